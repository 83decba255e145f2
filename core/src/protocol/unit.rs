//! A unit as it is sent, and the digest that proves it unchanged since it was frozen.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::fields::FieldsJson;
use crate::ids::{OpId, UnitId};
use crate::names::RecordKey;
use crate::numbers::{Hash, Version};
use crate::op::OpKind;
use crate::record::{EditStamp, FieldWrites, listed};
use crate::time::Hlc;

/// A set of changes that the server applies whole or not at all, under one id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// The idempotency key.
    pub id: UnitId,
    /// The changes, each of another record.
    pub changes: Vec<UnitChange>,
    /// Earlier units that had some of the same ops and no final answer. If one of them took effect
    /// after all, this unit is stale, and the answer names that earlier unit. They are not part of
    /// the digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier_units: Vec<UnitId>,
}

/// A unit's change of one record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitChange {
    /// The record.
    pub key: RecordKey,
    /// What the change does.
    pub kind: OpKind,
    /// The version for which the change is made; none for a record that the server does not have,
    /// as far as the device knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Version>,
    /// The ops of the change, oldest first; at least one.
    pub ops: Vec<OpId>,
    /// The time of the last edit of these ops. With the last of `ops` it is the stamp of every
    /// field that is not listed.
    pub edited_at: Hlc,
    /// The writes that the other fields come from: ops among `ops`, or a deletion that one of them
    /// follows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub older: Vec<FieldWrites>,
    /// The app's schema version of the fields.
    pub schema_version: u32,
    /// An image for create and replace, a patch for update, none for delete. Invalid fields are
    /// read all the same: the server refuses that unit alone, with a reason.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "as_sent")]
    pub fields: Option<FieldsJson>,
}

impl Unit {
    /// Returns the hash of the unit's content, over a documented framing (`docs/protocol.md`),
    /// never over JSON.
    pub fn digest(&self) -> Hash {
        let mut framing = Framing(blake3::Hasher::new());
        framing.0.update(b"fieldbook unit 1");
        framing.0.update(self.id.as_bytes());
        framing.number(self.changes.len() as u64);
        for change in &self.changes {
            framing.text(change.key.entity.as_str());
            framing.text(change.key.id.as_str());
            framing.text(change.kind.as_str());
            framing.number(change.base.map_or(0, |version| version.number().saturating_add(1)));
            framing.number(change.ops.len() as u64);
            for op in &change.ops {
                framing.0.update(op.as_bytes());
            }
            framing.number(change.edited_at.to_bits());
            framing.number(change.older.len() as u64);
            for write in &change.older {
                framing.number(write.edited_at.to_bits());
                framing.0.update(write.op.as_bytes());
                framing.number(write.fields.len() as u64);
                for name in &write.fields {
                    framing.text(name);
                }
            }
            framing.number(u64::from(change.schema_version));
            framing.number(u64::from(change.fields.is_some()));
            framing.text(change.fields.as_ref().map_or("", FieldsJson::as_str));
        }
        Hash::from_bytes(*framing.0.finalize().as_bytes())
    }

    /// Returns the approximate size of the unit in a request, in bytes.
    pub fn size(&self) -> usize {
        self.changes.iter().map(UnitChange::size).sum::<usize>()
            + 40 * self.earlier_units.len()
            + 64
    }
}

impl UnitChange {
    /// Returns the approximate size of the change in a request, in bytes.
    pub fn size(&self) -> usize {
        let fields = self.fields.as_ref().map_or(0, |fields| fields.as_str().len());
        let of_write = |write: &FieldWrites| {
            92 + write.fields.iter().map(|name| name.len() + 3).sum::<usize>()
        };
        let older: usize = self.older.iter().map(of_write).sum();
        160 + self.key.id.as_str().len() + 40 * self.ops.len() + older + fields
    }

    /// Returns the latest of its stamps.
    pub fn latest_stamp(&self) -> Hlc {
        self.older.iter().map(|write| write.edited_at).fold(self.edited_at, Hlc::max)
    }

    /// Returns the stamp of the change as a whole, and of every field that is not listed.
    pub fn stamp(&self) -> EditStamp {
        let op = self.ops.last().copied().unwrap_or(EditStamp::NEVER.op);
        EditStamp { edited_at: self.edited_at, op }
    }

    /// Returns the stamp of a field.
    pub fn stamp_of(&self, field: &str) -> EditStamp {
        listed(&self.older, field).unwrap_or_else(|| self.stamp())
    }
}

fn as_sent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<FieldsJson>, D::Error> {
    let sent = Option::<Box<RawValue>>::deserialize(deserializer)?;
    Ok(sent.map(|sent| FieldsJson::as_sent(sent.get())))
}

/// Length-prefixed little-endian framing.
struct Framing(blake3::Hasher);

impl Framing {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
    }
}
