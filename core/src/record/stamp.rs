//! When a write was made, and by which op; and the stamps of a record's fields as they are told and kept.
//!
//! Most fields of most records were written by one op: its stamp is the record's own. Only the others are listed, by the writes that they
//! come from, so that an op id is told once.
//!
//! Invariants:
//! 1. Stamps are a total order: by time, then by op id. Two writes with the same stamp are the same write.
//! 2. A field that is neither in the image nor listed counts as taken away at the floor.
//!
//! What it is not: the values ([`super::registers`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::codec::{Decode, Encode};
use crate::ids::OpId;
use crate::time::Hlc;

/// When a write was made, and by which op.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
pub struct EditStamp {
    /// When, in the order that decides conflicts.
    pub edited_at: Hlc,
    /// The op.
    pub op: OpId,
}

impl EditStamp {
    /// Before every write.
    pub const NEVER: Self = Self { edited_at: Hlc::ZERO, op: OpId::from_bytes([0; 16]) };

    /// Returns the next stamp above this one that a write of an op can have.
    #[must_use]
    pub fn next(self, op: OpId) -> Self {
        Self { edited_at: self.edited_at.next(), op }
    }
}

impl Default for EditStamp {
    fn default() -> Self {
        Self::NEVER
    }
}

/// The fields of a record that were last written by one op, at one time.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct FieldWrites {
    /// When.
    pub edited_at: Hlc,
    /// The op.
    pub op: OpId,
    /// The names of the fields, among them those that it took away.
    pub fields: Vec<String>,
}

impl FieldWrites {
    /// Returns the stamp of these fields.
    pub const fn stamp(&self) -> EditStamp {
        EditStamp { edited_at: self.edited_at, op: self.op }
    }
}

/// Returns the stamp under which a field is listed.
pub fn listed(older: &[FieldWrites], field: &str) -> Option<EditStamp> {
    older.iter().find(|write| write.fields.iter().any(|name| name == field)).map(FieldWrites::stamp)
}

/// Lists fields by the writes that they come from: in the order of stamps, and of names within a write.
pub fn list_by_write(fields: impl IntoIterator<Item = (String, EditStamp)>) -> Vec<FieldWrites> {
    let mut by_stamp = BTreeMap::<EditStamp, Vec<String>>::new();
    for (name, stamp) in fields {
        by_stamp.entry(stamp).or_default().push(name);
    }
    let write = |(EditStamp { edited_at, op }, mut fields): (EditStamp, Vec<String>)| {
        fields.sort_unstable();
        FieldWrites { edited_at, op, fields }
    };
    by_stamp.into_iter().map(write).collect()
}
