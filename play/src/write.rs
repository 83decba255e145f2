//! Writes a transaction of the stream as an app would: mutations that the book refuses are adapted,
//! and too large transactions are split.
//!
//! | the stream has ↓ / the device has → | the record | no such record |
//! |---|---|---|
//! | create | late | create |
//! | replace | replace | create |
//! | update | update; a member with its present value is late | late |
//! | delete | delete | late |
//!
//! A mutation is *late* if its author had read more than the base position: it changes a record
//! that the device does not have, creates a record that it has, or sets a field to its present
//! value. The author had read a change that arrives together with this one. Late mutations, and
//! later mutations of the same record in the transaction, are written at the transaction's own
//! position, after a pull. A late create of a record that exists even then becomes a replace, a
//! late update of a record that does not exist becomes a create, and a late delete of such a record
//! is left out. Each adaptation is counted and reported.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use fieldbook::record::{FieldsJson, OpId, OpKind};
use fieldbook::simulation::Snapshot;
use fieldbook::{Book, Error, Fields, Mutation, RecordKey, limits};
use serde::Serialize;

use crate::stream::StreamMutation;

/// How the mutations of the stream were adapted to the devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Writes {
    /// Ops in the books.
    pub ops: u64,
    /// Mutations that were written late, wholly or in part.
    pub late: u64,
    /// Late mutations that had no effect even then, or whose record has later changes of the same
    /// author.
    pub without_effect: u64,
    /// Creates of a record that the device had.
    pub creates_as_replaces: u64,
    /// Updates of a record that the device did not have.
    pub updates_as_creates: u64,
    /// Deletes of a record that the device did not have.
    pub deletes_left_out: u64,
    /// Transactions that were written after their base position, because two others of their
    /// author were not pushed yet.
    pub postponed_transactions: u64,
    /// Transactions that were too large for one.
    pub split_transactions: u64,
    /// The parts of the split transactions.
    pub split_parts: u64,
}

/// A mutation, by its number in its transaction, that is not written in full yet.
pub(crate) struct Late {
    mutation: usize,
    /// The members of its fields to write, or all of them.
    members: Option<HashSet<String>>,
}

/// An error, with the first line that it concerns.
pub(crate) type WriteError = (u64, Error);

/// Writes the part of a transaction that a device can write at the base position. Returns the ops,
/// and the late mutations.
pub(crate) fn write(
    book: &Book,
    mutations: Vec<StreamMutation>,
    writes: &mut Writes,
) -> Result<(Vec<OpId>, Vec<Late>), WriteError> {
    let mut images = Images::of(book, &mutations)?;
    let (mut adapted, mut late) = (Vec::with_capacity(mutations.len()), Vec::new());
    let (mut late_records, nothing) = (HashSet::new(), Fields::new());
    for (number, mutation) in mutations.into_iter().enumerate() {
        let line = mutation.line;
        let image = images.get(&mutation.key).map_err(|error| (line, error))?;
        let is_early = match mutation.kind {
            OpKind::Create => image.is_some(),
            OpKind::Update | OpKind::Delete => image.is_none(),
            OpKind::Replace => false,
        };
        if is_early || late_records.contains(&mutation.key) {
            late.push(Late { mutation: number, members: None });
            late_records.insert(mutation.key);
            continue;
        }
        let key = mutation.key.clone();
        let asked = match (mutation.kind, image.as_ref()) {
            (OpKind::Create | OpKind::Replace, None) => Mutation::create(key, mutation.fields),
            (OpKind::Create | OpKind::Replace, Some(_)) => Mutation::replace(key, mutation.fields),
            (OpKind::Delete, _) => Mutation::delete(key),
            (OpKind::Update, image) => {
                let image = image.unwrap_or(&nothing);
                let same = |name: &str| is_same(image, name, &mutation.fields);
                let members: HashSet<_> =
                    mutation.fields.names().filter(|name| same(name)).map(str::to_owned).collect();
                let changed = mutation.fields.filtered(|name| !members.contains(name));
                if !members.is_empty() {
                    late.push(Late { mutation: number, members: Some(members) });
                }
                if changed.is_empty() {
                    continue;
                }
                Mutation::update(key, changed)
            }
        };
        apply(image, &asked);
        adapted.push(Adapted { line, mutation: asked, bytes: mutation.bytes });
    }
    writes.late += late.len() as u64;
    Ok((append(book, adapted, writes)?, late))
}

/// Writes the late mutations of a transaction, after the device has pulled at the transaction's
/// position.
pub(crate) fn write_late(
    book: &Book,
    mutations: Vec<StreamMutation>,
    late: Vec<Late>,
    writes: &mut Writes,
) -> Result<Vec<OpId>, WriteError> {
    let mut images = Images::of(book, &mutations)?;
    let mut adapted = Vec::with_capacity(late.len());
    let mut members: HashMap<_, _> =
        late.into_iter().map(|late| (late.mutation, late.members)).collect();
    for (number, mutation) in mutations.into_iter().enumerate() {
        let Some(members) = members.remove(&number) else { continue };
        let line = mutation.line;
        let newer = images.newer(&mutation.key).map_err(|error| (line, error))?;
        let image = images.get(&mutation.key).map_err(|error| (line, error))?;
        let key = mutation.key.clone();
        let asked = match (mutation.kind, image.as_ref(), &newer) {
            (OpKind::Delete, None, _) => {
                writes.deletes_left_out += 1;
                continue;
            }
            (OpKind::Delete, Some(_), Newer::Nothing) => Mutation::delete(key),
            (_, None, Newer::Nothing) => {
                writes.updates_as_creates += u64::from(mutation.kind == OpKind::Update);
                Mutation::create(key, mutation.fields.into_image())
            }
            (OpKind::Create, Some(image), Newer::Nothing)
                if *image != mutation.fields.clone().into_image() =>
            {
                writes.creates_as_replaces += 1;
                Mutation::replace(key, mutation.fields)
            }
            (_, Some(image), Newer::Nothing | Newer::Members(_))
                if mutation.kind != OpKind::Delete =>
            {
                let is_asked =
                    |name: &str| members.as_ref().is_none_or(|members| members.contains(name));
                let is_open =
                    |name: &str| !matches!(&newer, Newer::Members(names) if names.contains(name));
                let asked = match mutation.kind {
                    // A create has the whole record.
                    OpKind::Create => image.patch_to(&mutation.fields.into_image()),
                    _ => mutation.fields,
                };
                let changed = asked.filtered(|name| {
                    is_asked(name) && is_open(name) && !is_same(image, name, &asked)
                });
                if changed.is_empty() {
                    writes.without_effect += 1;
                    continue;
                }
                Mutation::update(key, changed)
            }
            _ => {
                writes.without_effect += 1;
                continue;
            }
        };
        apply(image, &asked);
        adapted.push(Adapted { line, mutation: asked, bytes: mutation.bytes });
    }
    append(book, adapted, writes)
}

/// Returns whether a patch leaves a member unchanged.
fn is_same(image: &Fields, name: &str, patch: &Fields) -> bool {
    match (image.get(name), patch.get(name)) {
        (None, Some(value)) => value.is_null(),
        (before, after) => before == after,
    }
}

fn apply(image: &mut Option<Fields>, mutation: &Mutation) {
    // Fields made of values have no fault that text could have.
    let said = || mutation.fields.to_fields().unwrap_or_default();
    match mutation.kind {
        OpKind::Delete => *image = None,
        OpKind::Update => image.get_or_insert_default().apply(&said()),
        OpKind::Create | OpKind::Replace => *image = Some(said().into_image()),
    }
}

/// The records of one transaction on the device, with the transaction's earlier changes.
struct Images<'a> {
    book: &'a Book,
    snapshot: Arc<Snapshot>,
    images: HashMap<RecordKey, Option<Fields>>,
}

/// A change by the same author of a record that is not pushed yet.
enum Newer {
    Nothing,
    /// It set these members.
    Members(HashSet<String>),
    /// It created or deleted the whole record.
    Whole,
}

impl<'a> Images<'a> {
    fn of(book: &'a Book, mutations: &[StreamMutation]) -> Result<Self, WriteError> {
        let line = mutations.first().map_or(0, |mutation| mutation.line);
        let snapshot = book.snapshot().map_err(|error| (line, error))?;
        Ok(Self { book, snapshot, images: HashMap::new() })
    }

    fn get(&mut self, key: &RecordKey) -> Result<&mut Option<Fields>, Error> {
        if !self.images.contains_key(key) {
            let row = self.snapshot.record(key)?.unwrap_or_default();
            let image = row.image().map(FieldsJson::to_fields).transpose();
            let image = image.map_err(|fault| {
                fieldbook::error::StoreError::corrupt("stored fields", None, fault)
            })?;
            self.images.insert(key.clone(), image);
        }
        Ok(self.images.entry(key.clone()).or_default())
    }

    fn newer(&self, key: &RecordKey) -> Result<Newer, Error> {
        let row = self.snapshot.record(key)?.unwrap_or_default();
        if row.tail.is_empty() {
            return Ok(Newer::Nothing);
        }
        let mut names = HashSet::new();
        for reference in &row.tail {
            if reference.kind != OpKind::Update {
                return Ok(Newer::Whole);
            }
            names.extend(self.book.queue().op(reference.place)?.fields.names().map(str::to_owned));
        }
        Ok(Newer::Members(names))
    }
}

/// A mutation that the book accepts.
struct Adapted {
    line: u64,
    mutation: Mutation,
    bytes: usize,
}

fn append(
    book: &Book,
    adapted: Vec<Adapted>,
    writes: &mut Writes,
) -> Result<Vec<OpId>, WriteError> {
    let parts = split(adapted);
    if parts.len() > 1 {
        writes.split_transactions += 1;
        writes.split_parts += parts.len() as u64;
    }
    let mut ops = Vec::new();
    for (line, part) in parts {
        let written = book.transaction(part).map_err(|error| (line, error))?;
        ops.extend(written.iter().filter_map(fieldbook::Written::op));
    }
    writes.ops += ops.len() as u64;
    Ok(ops)
}

/// Splits a transaction that is too large. Each part comes with its first line.
fn split(adapted: Vec<Adapted>) -> Vec<(u64, Vec<Mutation>)> {
    let mut parts: Vec<(u64, Vec<Mutation>)> = Vec::new();
    let mut bytes = 0;
    for Adapted { line, mutation, bytes: more } in adapted {
        match parts.last_mut() {
            Some((_, part))
                if part.len() < limits::TRANSACTION_OPS
                    && bytes + more <= limits::TRANSACTION_BYTES =>
            {
                bytes += more;
                part.push(mutation);
            }
            _ => {
                bytes = more;
                parts.push((line, vec![mutation]));
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapted(line: u64, bytes: usize) -> Adapted {
        let key = RecordKey::parse("lead", &line.to_string()).unwrap();
        Adapted { line, mutation: Mutation::create(key, Fields::new()), bytes }
    }

    #[test]
    fn a_transaction_within_the_limits_stays_one() {
        assert_eq!(split((1..=1_000).map(|line| adapted(line, 4_000)).collect()).len(), 1);
        assert!(split(Vec::new()).is_empty());
    }

    #[test]
    fn one_of_too_many_ops_or_bytes_is_split_and_keeps_its_order() {
        let sizes = |parts: Vec<(u64, Vec<Mutation>)>| {
            parts.into_iter().map(|(line, part)| (line, part.len())).collect::<Vec<_>>()
        };
        let many = split((1..=3_400).map(|line| adapted(line, 10)).collect());
        assert_eq!(sizes(many), [(1, 1_000), (1_001, 1_000), (2_001, 1_000), (3_001, 400)]);
        let large = split((1..=9).map(|line| adapted(line, 1024 * 1024)).collect());
        assert_eq!(sizes(large), [(1, 4), (5, 4), (9, 1)]);
    }
}
