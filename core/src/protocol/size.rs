//! The exact size of a record in an answer, computed without writing it.
//!
//! Invariants:
//! 1. [`RecordSize::all`] is the size of the [`Change`] as `serde_json` writes it, with the comma
//!    after it.
//! 2. [`RecordSize::head`] is all of that without the fields. The meta part of a device's log needs
//!    no more bytes for it than this JSON.
//!
//! What it is not: an estimate. Clients that look for a gap between an estimate and the limit would
//! find it.

use std::ops::{Add, AddAssign};

use super::{Change, Outcome, UnitOutcome};
use crate::names::{Actor, RecordKey};
use crate::numbers::Version;
use crate::record::{EditStamp, FieldWrites};
use crate::time::Hlc;

/// The size of a part of an answer, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordSize {
    /// Everything except the fields: the key, numbers, ids, the stamps of fields.
    pub head: usize,
    /// The fields.
    pub fields: usize,
}

impl RecordSize {
    /// Returns the sum.
    pub const fn all(self) -> usize {
        self.head.saturating_add(self.fields)
    }
}

impl Add for RecordSize {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            head: self.head.saturating_add(other.head),
            fields: self.fields.saturating_add(other.fields),
        }
    }
}

impl AddAssign for RecordSize {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl std::iter::Sum for RecordSize {
    fn sum<I: Iterator<Item = Self>>(sizes: I) -> Self {
        sizes.fold(Self::default(), Add::add)
    }
}

/// The number of characters of an id.
const ID: usize = 36;

/// The parts of a record that have a size, wherever it is stored.
pub(crate) struct Measured<'a> {
    pub(crate) key: &'a RecordKey,
    pub(crate) version: Version,
    pub(crate) edited_at: Hlc,
    pub(crate) by: Option<&'a Actor>,
    /// The writes that fields with their own stamps come from.
    pub(crate) older: &'a [FieldWrites],
    pub(crate) floor: Option<EditStamp>,
    /// The length of the fields' text; none for a deleted record.
    pub(crate) fields: Option<usize>,
}

impl Measured<'_> {
    pub(crate) fn size(self) -> RecordSize {
        const FRAME: usize = r#"{"key":,"version":,"edited_at":,"op":""},"#.len() + ID;
        let mut head = FRAME
            + key(self.key)
            + number(self.version.number())
            + number(self.edited_at.to_bits());
        if let Some(by) = self.by {
            head += r#","by":"#.len() + string(by.as_str());
        }
        if !self.older.is_empty() {
            // The extra comma counts for the closing bracket.
            head += r#","older":["#.len() + self.older.iter().map(write).sum::<usize>();
        }
        if let Some(floor) = self.floor {
            head +=
                r#","floor":{"edited_at":,"op":""}"#.len() + ID + number(floor.edited_at.to_bits());
        }
        match self.fields {
            None => RecordSize { head: head + r#","deleted":true"#.len(), fields: 0 },
            Some(fields) => RecordSize { head: head + r#","fields":"#.len(), fields },
        }
    }
}

impl Change {
    /// Returns the size in an answer, in bytes.
    pub fn size(&self) -> RecordSize {
        let sized = Measured {
            key: &self.key,
            version: self.version,
            edited_at: self.edited_at,
            by: self.by.as_ref(),
            older: &self.older,
            floor: self.floor,
            fields: self.fields.as_ref().map(|fields| fields.as_str().len()),
        };
        let mut size = sized.size();
        if self.partial {
            size.head += r#","partial":true"#.len();
        }
        if self.deleted && self.fields.is_some() {
            size.head += r#","deleted":true"#.len();
        } else if !self.deleted && self.fields.is_none() {
            size.head -= r#","deleted":true"#.len();
        }
        size
    }
}

impl UnitOutcome {
    /// Returns the size in an answer, in bytes; a little more if there are texts.
    pub fn size(&self) -> RecordSize {
        /// The parts of a fixed length, in the class that has most of them.
        const FRAME: usize = 160;
        let frame = RecordSize { head: FRAME, fields: 0 };
        let plus = |head| frame + RecordSize { head, fields: 0 };
        match &self.outcome {
            Outcome::Applied { versions, current } | Outcome::Duplicate { versions, current } => {
                let versions =
                    versions.iter().map(|(name, version)| key(name) + number(version.number()) + 2);
                plus(versions.sum()) + current.iter().map(Change::size).sum()
            }
            Outcome::Stale { current, applied } => {
                plus(39 * applied.len()) + current.iter().map(Change::size).sum()
            }
            Outcome::Ahead => frame,
            Outcome::Transient { code, message, .. } | Outcome::Rejected { code, message } => {
                plus(string(code) + string(message))
            }
            Outcome::Unsupported { entity, code } => plus(string(entity.as_str()) + string(code)),
            Outcome::Unauthorized { code } => plus(string(code)),
        }
    }
}

/// Returns the length of a write that fields come from, with a comma.
fn write(write: &FieldWrites) -> usize {
    const FRAME: usize = r#"{"edited_at":,"op":"","fields":[]},"#.len() + ID;
    let names: usize = write.fields.iter().map(|name| string(name) + 1).sum();
    // There is no comma after the last name.
    FRAME + number(write.edited_at.to_bits()) + names.saturating_sub(1)
}

fn key(key: &RecordKey) -> usize {
    string(key.entity.as_str()) + string(key.id.as_str()) - 1
}

/// Returns the number of digits of a number.
fn number(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |digits| digits as usize + 1)
}

/// Returns the length of a text as JSON, with its quotes.
fn string(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | 0x08 | 0x09 | 0x0a | 0x0c | 0x0d => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    2 + text.bytes().map(escaped).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::fields::FieldsJson;
    use crate::ids::{OpId, UnitId};

    fn names() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z]{1,4}",
            any::<String>(),
            Just("\u{1}\u{8}\t\n\u{c}\r\"\\/\u{7f}é😀".to_owned())
        ]
    }

    fn changes() -> impl Strategy<Value = Change> {
        let stamp = || any::<u64>().prop_map(|bits| Hlc::from_bits(bits >> (bits % 64)));
        let op = OpId::from_bytes([9; 16]);
        let write = (stamp(), prop::collection::vec(names(), 0..5));
        let write =
            write.prop_map(move |(edited_at, fields)| FieldWrites { edited_at, op, fields });
        let older = prop::collection::vec(write, 0..4);
        let floor =
            prop::option::of(stamp().prop_map(move |edited_at| EditStamp { edited_at, op }));
        let id = r#"[a-z"\\é/]{1,20}"#;
        let by = prop::option::of(id.prop_map(|name| Actor::parse(&name).unwrap()));
        let stamps = (older, floor, by);
        (id, any::<u64>(), any::<u64>(), stamps, any::<[bool; 3]>(), 0..40usize).prop_map(
            |(
                id,
                version,
                edited_at,
                (older, floor, by),
                [deleted, partial, has_fields],
                length,
            )| {
                Change {
                    key: RecordKey::parse("lead", &id).unwrap(),
                    version: Version::new(version >> (version % 64)),
                    edited_at: Hlc::from_bits(edited_at >> (edited_at % 64)),
                    op: OpId::from_bytes([7; 16]),
                    by,
                    older,
                    floor,
                    deleted,
                    partial,
                    fields: has_fields.then(|| {
                        FieldsJson::parse(&format!(r#"{{"a":"{}"}}"#, "x".repeat(length))).unwrap()
                    }),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn the_size_of_a_record_is_what_is_written_of_it(change in changes()) {
            let written = serde_json::to_string(&change).unwrap();
            let fields = change.fields.as_ref().map_or(0, |fields| fields.as_str().len());
            prop_assert_eq!(change.size(), RecordSize { head: written.len() + 1 - fields, fields });
        }

        #[test]
        fn an_outcome_takes_no_more_than_its_size(changes in prop::collection::vec(changes(), 0..4)) {
            let unit = UnitId::from_bytes([7; 16]);
            let versions: BTreeMap<_, _> = changes.iter().map(|c| (c.key.clone(), c.version)).collect();
            let code = "a_code".to_owned();
            let message = "\"quoted\"\n".to_owned();
            for outcome in [
                Outcome::Applied { versions: versions.clone(), current: changes.clone() },
                Outcome::Duplicate { versions, current: changes.clone() },
                Outcome::Stale { applied: vec![unit; changes.len()], current: changes },
                Outcome::Ahead,
                Outcome::Rejected { code: code.clone(), message: message.clone() },
                Outcome::Transient { code, message, retry_after_milliseconds: Some(u64::MAX) },
            ] {
                let outcome = UnitOutcome { unit, outcome };
                let written = serde_json::to_string(&outcome).unwrap().len();
                let size = outcome.size().all();
                prop_assert!(written < size && size < written + 160, "{written} {size}");
            }
        }
    }
}
