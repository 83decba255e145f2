//! The stamp of a write, and the stamps of a record's fields as they are sent and stored.
//!
//! Most fields of most records come from one op, and its stamp is the record's own. Only fields
//! with another stamp are listed. The list goes by write, so that it has the stamp of each write
//! once.
//!
//! Invariants:
//! 1. Stamps are a total order: by time, then by op id. Two writes with the same stamp are the same
//!    write.
//! 2. A field that is neither in the image nor listed was removed at the floor.
//!
//! What it does not have: values ([`super::registers`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::codec::{Decode, Encode};
use crate::ids::OpId;
use crate::time::Hlc;

/// The moment of a write and the op that made it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
pub struct EditStamp {
    /// The moment, in the order that decides conflicts.
    pub edited_at: Hlc,
    /// The op that made the write.
    pub op: OpId,
}

impl EditStamp {
    /// The stamp before every write.
    pub const NEVER: Self = Self { edited_at: Hlc::ZERO, op: OpId::from_bytes([0; 16]) };

    /// Returns the next stamp above this stamp for a write of an op.
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

/// The fields of a record whose last writes have one stamp.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct FieldWrites {
    /// The moment of the write.
    pub edited_at: Hlc,
    /// The op that made the write.
    pub op: OpId,
    /// The names of the fields, including removed ones.
    pub fields: Vec<String>,
}

impl FieldWrites {
    /// Returns the stamp of these fields.
    pub const fn stamp(&self) -> EditStamp {
        EditStamp { edited_at: self.edited_at, op: self.op }
    }
}

/// Returns the stamp that a list has for a field.
pub fn listed(older: &[FieldWrites], field: &str) -> Option<EditStamp> {
    older.iter().find(|write| write.fields.iter().any(|name| name == field)).map(FieldWrites::stamp)
}

/// Lists fields by write, in the order of stamps. The names of a write ascend.
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
