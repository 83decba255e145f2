//! The comparison of the server's records, each device's records and the oracle.
//!
//! Invariants:
//! 1. The server's table is read through the protocol alone, page by page, without a book.
//! 2. Two records are the same if their JSON values are, whatever their text. Memory has digests,
//!    not records.
//! 3. A difference from the oracle is explained only by a conflict entry that names the record.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fieldbook::audit::{DeviceId, Epoch};
use fieldbook::host::{SeededRandomness, WallTime};
use fieldbook::record::FieldsJson;
use fieldbook::sync::protocol::{Change, ExchangeRequest};
use fieldbook::sync::{Cursor, RequestId};
use fieldbook::{Actor, Book, EntityType, RecordKey, limits};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::source::{Lines, Source, at_line, is_blank};
use crate::sync::Syncer;

/// The most pages of a table.
const PAGES: u32 = 1_000_000;
/// The most records that differ from the oracle for which the fields are named.
const NAMED: usize = 10_000;

/// A digest of a record, small enough for every record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Digest {
    /// Of its text, for a fast yes.
    text: blake3::Hash,
    /// Of its values, in one order.
    values: blake3::Hash,
}

impl Digest {
    fn of(text: &str) -> Result<Self, Failure> {
        Ok(Self { text: blake3::hash(text.as_bytes()), values: values_digest(text)? })
    }

    /// Returns whether a text has the same values.
    fn is_of(&self, text: &str) -> Result<bool, Failure> {
        Ok(self.text == blake3::hash(text.as_bytes()) || self.values == values_digest(text)?)
    }
}

fn values_digest(text: &str) -> Result<blake3::Hash, Failure> {
    Ok(blake3::hash(Value::Object(members(text)?).to_string().as_bytes()))
}

fn members(text: &str) -> Result<Map<String, Value>, Failure> {
    let mut members: Map<String, Value> = serde_json::from_str(text)
        .map_err(|error| Failure::new("a record is not a JSON object").because(error))?;
    // In a patch, a null means that the field does not exist.
    members.retain(|_, value| !value.is_null());
    Ok(members)
}

/// The server's records, as digests.
#[derive(Debug, Default)]
pub(crate) struct ServerTable {
    records: BTreeMap<RecordKey, Digest>,
}

impl ServerTable {
    /// Reads all records of the server.
    pub(crate) async fn read(syncer: &Syncer, actor: &Actor) -> Result<Self, Failure> {
        let mut table = Self::default();
        pages(syncer, actor, |change| {
            match change.fields.filter(|_| !change.deleted) {
                Some(fields) => {
                    table.records.insert(change.key, Digest::of(fields.as_str())?);
                }
                None => {
                    table.records.remove(&change.key);
                }
            }
            Ok(())
        })
        .await?;
        Ok(table)
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Returns one digest of everything: the same for the same records with the same values.
    pub(crate) fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (key, digest) in &self.records {
            hasher.update(&key.to_bytes()).update(&[0]).update(digest.values.as_bytes());
        }
        hasher.finalize().to_hex().chars().take(32).collect()
    }

    /// Compares the records of a device with it.
    pub(crate) fn compare(&self, book: &Book) -> Result<Vec<Difference>, Failure> {
        let failed =
            |error: fieldbook::Error| Failure::new("a book cannot be compared").because(error);
        let mut differences = Vec::new();
        let mut missing: BTreeSet<&RecordKey> = self.records.keys().collect();
        let snapshot = book.snapshot().map_err(failed)?;
        for entity in snapshot.entity_types().map_err(|error| failed(error.into()))? {
            for row in snapshot.records(&entity, None).map_err(|error| failed(error.into()))? {
                let (id, row) = row.map_err(|error| failed(error.into()))?;
                let Some(image) = row.image().map(FieldsJson::as_str) else { continue };
                let key = RecordKey::new(entity.clone(), id);
                missing.remove(&key);
                let kind = match self.records.get(&key) {
                    Some(digest) if digest.is_of(image)? => continue,
                    Some(_) => Kind::Values,
                    None => Kind::OnlyHere,
                };
                differences.push(Difference::new(key, kind));
            }
        }
        differences
            .extend(missing.into_iter().map(|key| Difference::new(key.clone(), Kind::Missing)));
        Ok(differences)
    }

    /// Compares it with the table that the stream should result in.
    pub(crate) async fn compare_oracle(
        &self,
        oracle: &Source,
        syncer: &Syncer,
        actor: &Actor,
    ) -> Result<Vec<Difference>, Failure> {
        let mut differences = Vec::new();
        let mut wanted: HashMap<RecordKey, (usize, Box<str>)> = HashMap::new();
        let mut missing: BTreeSet<&RecordKey> = self.records.keys().collect();
        let mut lines = Lines::new(oracle.open()?);
        while let Some(line) = lines.next(oracle)? {
            if is_blank(line.text) {
                continue;
            }
            let row: OracleRow<'_> = serde_json::from_slice(line.text).map_err(|error| {
                at_line(oracle, line.number, "is not a record of a table").because(error)
            })?;
            let key = RecordKey::parse(&row.entity, &row.id).map_err(|error| {
                at_line(oracle, line.number, "names a record that cannot be one").because(error)
            })?;
            let mut kind = Kind::Missing;
            if let Some((known, digest)) = self.records.get_key_value(&key) {
                missing.remove(known);
                if digest.is_of(row.record.get())? {
                    continue;
                }
                kind = Kind::Values;
                if wanted.len() < NAMED {
                    wanted.insert(key.clone(), (differences.len(), row.record.get().into()));
                }
            }
            differences.push(Difference::new(key, kind));
        }
        differences
            .extend(missing.into_iter().map(|key| Difference::new(key.clone(), Kind::OnlyHere)));
        if !wanted.is_empty() {
            pages(syncer, actor, |change| {
                if let (Some((place, expected)), Some(found)) =
                    (wanted.get(&change.key), &change.fields)
                    && let Some(difference) = differences.get_mut(*place)
                {
                    difference.fields = differing(found.as_str(), expected)?;
                }
                Ok(())
            })
            .await?;
        }
        Ok(differences)
    }
}

/// Returns the names of the fields that differ.
fn differing(found: &str, expected: &str) -> Result<Vec<String>, Failure> {
    let (found, expected) = (members(found)?, members(expected)?);
    let names: BTreeSet<_> = found.keys().chain(expected.keys()).collect();
    Ok(names.into_iter().filter(|name| found.get(*name) != expected.get(*name)).cloned().collect())
}

/// A record that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The record.
    pub key: RecordKey,
    /// The kind of difference.
    pub kind: Kind,
    /// The fields that differ, if they were compared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}

impl Difference {
    const fn new(key: RecordKey, kind: Kind) -> Self {
        Self { key, kind, fields: Vec::new() }
    }

    /// Returns the difference in words.
    pub fn words(&self) -> String {
        match self.kind {
            Kind::Values if self.fields.is_empty() => format!("{} has other values", self.key),
            Kind::Values => format!("{} differs in {}", self.key, self.fields.join(", ")),
            Kind::Missing => format!("{} is missing", self.key),
            Kind::OnlyHere => format!("{} should not exist", self.key),
        }
    }
}

/// How a record differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Both sides have it, with other values.
    Values,
    /// It is missing.
    Missing,
    /// It should not exist.
    OnlyHere,
}

#[derive(Deserialize)]
struct OracleRow<'a> {
    #[serde(borrow)]
    entity: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    id: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    record: &'a RawValue,
}

/// Returns the number of records on a server before the play. It counts one page at most.
pub(crate) async fn records_before(syncer: &Syncer, actor: &Actor) -> Result<usize, Failure> {
    let mut reader = Reader::new(actor);
    Ok(syncer.ask(&reader.request()).await?.answer.changes.len())
}

/// Reads all records of the server, oldest change first.
async fn pages(
    syncer: &Syncer,
    actor: &Actor,
    mut each: impl FnMut(Change) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut reader = Reader::new(actor);
    for _ in 0..PAGES {
        let answer = syncer.ask(&reader.request()).await?.answer;
        answer.changes.into_iter().try_for_each(&mut each)?;
        reader.cursors.extend(answer.cursors);
        if !answer.more {
            return Ok(());
        }
    }
    Err(Failure::new("the server's table does not end"))
}

/// An actor that only reads.
struct Reader {
    actor: Actor,
    device: DeviceId,
    epoch: Epoch,
    cursors: BTreeMap<EntityType, Cursor>,
    random: SeededRandomness,
}

impl Reader {
    fn new(actor: &Actor) -> Self {
        let mut random = SeededRandomness::from_number(0);
        let device = DeviceId::new(WallTime::default(), &mut random);
        let epoch = Epoch::new(WallTime::default(), &mut random);
        Self { actor: actor.clone(), device, epoch, cursors: BTreeMap::new(), random }
    }

    fn request(&mut self) -> ExchangeRequest {
        ExchangeRequest {
            cursors: self.cursors.clone(),
            page_limit: limits::PAGE_CHANGES,
            ..ExchangeRequest::new(
                RequestId::new(WallTime::default(), &mut self.random),
                self.device,
                self.epoch,
                self.actor.clone(),
            )
        }
    }
}
