//! A record's row: what the server confirmed, what the app reads, and the ops between the two.

use crate::codec::{Decode, Encode};
use crate::fields::{Fields, FieldsJson, InvalidFields};
use crate::ids::OpId;
use crate::numbers::Version;
use crate::op::{OpContent, OpPlace};
use crate::record::{EditStamp, FieldWrites, Life, Pending, Registers, TailOp};
use crate::time::{Hlc, WallTime};

/// One record. Key: [`RecordKey::to_bytes`](crate::names::RecordKey::to_bytes).
///
/// Invariants:
/// 1. `visible` is [`Visible::AsConfirmed`] if and only if `tail` is empty.
/// 2. `tail` ascends by place, and has exactly the ops of the record that have not ended.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RecordRow {
    /// The confirmed record; none if the server never sent or acked it.
    pub confirmed: Option<Confirmed>,
    /// What the app reads.
    pub visible: Visible,
    /// The ops of the record that have not ended.
    pub tail: Vec<Pending>,
    /// When an answer last had this record, by the device's clock.
    pub synced_at: Option<WallTime>,
}

/// The record as the server has it, at the highest known version.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Confirmed {
    /// The server's version.
    pub version: Version,
    /// The time of the record's own stamp.
    pub edited_at: Hlc,
    /// The op of the record's own stamp.
    pub op: OpId,
    /// The fields with another stamp, by write.
    pub older: Vec<FieldWrites>,
    /// The stamp of the removal of every field that is neither in the image nor in `older`. None
    /// stands for the stamp before every write.
    pub floor: Option<EditStamp>,
    /// Whether the record is deleted.
    pub deleted: bool,
    /// The image; empty if the record is deleted.
    pub fields: FieldsJson,
}

impl Confirmed {
    /// Returns the record's own stamp, the greatest of its registers.
    pub const fn stamp(&self) -> EditStamp {
        EditStamp { edited_at: self.edited_at, op: self.op }
    }

    /// Returns the record as registers.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub fn registers(&self) -> Result<Registers, InvalidFields> {
        if self.deleted {
            return Ok(Registers::deleted(self.stamp()));
        }
        Ok(Registers::of(
            self.stamp(),
            &self.older,
            self.floor,
            self.fields.to_fields()?.into_map(),
        ))
    }

    /// Makes this a record that the server never had: deleted, with the stamp before every write.
    pub fn never_was(&mut self) {
        *self = Self {
            version: self.version,
            edited_at: EditStamp::NEVER.edited_at,
            op: EditStamp::NEVER.op,
            older: Vec::new(),
            floor: None,
            deleted: true,
            fields: FieldsJson::default(),
        };
    }

    /// Makes a confirmed record of registers. Returns `None` if nothing is known of the record.
    pub fn of(registers: &Registers, version: Version) -> Option<Self> {
        if registers.life == Life::Unknown {
            return None;
        }
        let own = registers.stamp;
        Some(Self {
            version,
            edited_at: own.edited_at,
            op: own.op,
            older: registers.older(),
            floor: Some(registers.floor).filter(|floor| *floor != EditStamp::NEVER),
            deleted: !registers.is_live(),
            fields: registers.image().unwrap_or_default().to_json(),
        })
    }
}

/// What an app reads of a record.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Visible {
    /// What the server confirmed.
    #[default]
    AsConfirmed,
    /// Nothing: with the tail joined, the record does not exist.
    Absent,
    /// The confirmed record with the tail joined.
    Own(FieldsJson),
}

impl RecordRow {
    /// Returns the image that the app reads, or `None` if the record does not exist for the app.
    pub fn image(&self) -> Option<&FieldsJson> {
        match &self.visible {
            Visible::AsConfirmed => self.confirmed_image(),
            Visible::Absent => None,
            Visible::Own(fields) => Some(fields),
        }
    }

    /// Returns the confirmed image, or `None` if no live record is confirmed.
    pub fn confirmed_image(&self) -> Option<&FieldsJson> {
        self.confirmed
            .as_ref()
            .filter(|confirmed| !confirmed.deleted)
            .map(|confirmed| &confirmed.fields)
    }

    /// Returns the confirmed version, which is the base of an edit that is made now.
    pub fn version(&self) -> Option<Version> {
        self.confirmed.as_ref().map(|confirmed| confirmed.version)
    }

    /// Returns whether a version of the record is newer than what is confirmed.
    pub fn is_behind(&self, version: Version) -> bool {
        self.version().is_none_or(|known| version > known)
    }

    /// Sets the versions of a former server to 0. The accepted server has yet to confirm the
    /// record.
    pub fn await_confirmation(&mut self) {
        if let Some(confirmed) = self.confirmed.as_mut() {
            confirmed.version = Version::default();
        }
        self.tail.iter_mut().for_each(Pending::await_confirmation);
    }

    /// Adds an op at the end of the tail, and sets what the app reads.
    pub fn push(&mut self, op: Pending, visible: Visible) {
        self.visible = visible;
        // Nearly every tail has one op, and a vector would allocate room for four.
        if self.tail.is_empty() {
            self.tail.reserve_exact(1);
        }
        self.tail.push(op);
    }

    /// Returns whether a live record was confirmed by a former server only.
    pub fn awaits_confirmation(&self) -> bool {
        let awaits =
            |confirmed: &Confirmed| confirmed.version == Version::default() && !confirmed.deleted;
        self.confirmed.as_ref().is_some_and(awaits)
    }

    /// Returns the confirmed record as registers.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub fn registers(&self) -> Result<Registers, InvalidFields> {
        self.confirmed.as_ref().map_or_else(|| Ok(Registers::default()), Confirmed::registers)
    }

    /// Reads the tail. `content` finds the content of an op in the log.
    ///
    /// # Errors
    /// What `content` fails with, or what `damaged` makes of stored text that was damaged.
    pub fn tail_ops<E>(
        &self,
        mut content: impl FnMut(OpPlace) -> Result<OpContent, E>,
        damaged: impl Fn(InvalidFields) -> E,
    ) -> Result<Vec<TailOp>, E> {
        let read = |pending: &Pending| {
            TailOp::new(pending.clone(), content(pending.place)?).map_err(&damaged)
        };
        self.tail.iter().map(read).collect()
    }

    /// Returns the greatest stamp of the confirmed record and the tail. A new op has to be above
    /// it.
    pub fn greatest(&self) -> EditStamp {
        let confirmed = self.confirmed.as_ref().map(Confirmed::stamp).unwrap_or_default();
        self.tail.iter().map(Pending::greatest).fold(confirmed, EditStamp::max)
    }

    /// Returns whether nothing is known of the record, so that it needs no row.
    pub fn is_empty(&self) -> bool {
        self.confirmed.is_none() && self.tail.is_empty()
    }

    /// Returns the confirmed image as values; empty if there is none.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub fn confirmed_fields(&self) -> Result<Fields, InvalidFields> {
        self.confirmed_image().map_or_else(|| Ok(Fields::new()), FieldsJson::to_fields)
    }
}
