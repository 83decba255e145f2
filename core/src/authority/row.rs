//! One record at the server, and the effect of a change on it.
//!
//! Each field has a stamp: the time of its last edit and the op that made it. The server joins as a
//! device does ([`crate::record::Registers`]): in each field the write with the greater stamp wins.
//! Most fields of most records share the record's stamp. Only the other stamps are kept.

use super::state::RowPlace;
use crate::fields::{FieldsJson, InvalidFields};
use crate::ids::OpId;
use crate::names::{Actor, RecordId, RecordKey};
use crate::numbers::Version;
use crate::op::OpKind;
use crate::protocol::{Change, Measured, RecordSize, UnitChange};
use crate::record::{EditStamp, FieldWrites, Life, Registers, Writes};
use crate::time::Hlc;

/// One record at the server.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The commit that last changed the record, which is its version.
    pub version: Version,
    /// The index of the change in that commit, from 0.
    pub index: u32,
    /// The time of the record's own stamp, the greatest of its fields.
    pub edited_at: Hlc,
    /// The op of the record's own stamp.
    pub op: OpId,
    /// The actor of the unit with that op; none if it is not known.
    pub by: Option<Actor>,
    /// The writes that set or removed the other fields.
    pub older: Vec<FieldWrites>,
    /// The stamp of the removal of every field that is neither in the image nor in `older`.
    pub floor: Option<EditStamp>,
    /// The record's image; none if the record is deleted.
    pub fields: Option<FieldsJson>,
}

impl Row {
    /// Returns whether the row is a tombstone.
    pub const fn is_deleted(&self) -> bool {
        self.fields.is_none()
    }

    /// Returns the record's own stamp, the greatest of its fields.
    pub const fn stamp(&self) -> EditStamp {
        EditStamp { edited_at: self.edited_at, op: self.op }
    }

    /// Makes the change that a device receives.
    pub fn into_change(self, key: RecordKey) -> Change {
        Change {
            key,
            version: self.version,
            edited_at: self.edited_at,
            op: self.op,
            by: self.by,
            older: self.older,
            floor: self.floor,
            deleted: self.fields.is_none(),
            partial: false,
            fields: self.fields,
        }
    }

    /// Makes the change for a record that never existed.
    pub(super) fn never(key: RecordKey) -> Change {
        Change {
            key,
            version: Version::default(),
            edited_at: Hlc::ZERO,
            op: OpId::from_bytes([0; 16]),
            by: None,
            older: Vec::new(),
            floor: None,
            deleted: true,
            partial: false,
            fields: None,
        }
    }

    /// Returns the size of the row in an answer.
    pub(super) fn size(&self, key: &RecordKey) -> RecordSize {
        let measured = Measured {
            key,
            version: self.version,
            edited_at: self.edited_at,
            by: self.by.as_ref(),
            older: &self.older,
            floor: self.floor,
            fields: self.fields.as_ref().map(|fields| fields.as_str().len()),
        };
        measured.size()
    }

    /// Returns the size of the row in the store, in bytes.
    pub fn stored_bytes(&self, id: &RecordId) -> usize {
        let of_names = |fields: &[String]| fields.iter().map(|name| name.len() + 1).sum::<usize>();
        let writes: usize = self.older.iter().map(|write| 28 + of_names(&write.fields)).sum();
        let floor = if self.floor.is_some() { 24 } else { 0 };
        let fields = self.fields.as_ref().map_or(0, |fields| fields.as_str().len());
        let by = self.by.as_ref().map_or(0, |by| 1 + by.as_str().len());
        30 + id.as_str().len() + by + floor + writes + fields
    }

    /// Returns the row's place.
    pub fn place(&self, id: &RecordId) -> RowPlace {
        RowPlace {
            version: self.version,
            index: self.index,
            stamp: self.stamp(),
            is_deleted: self.is_deleted(),
            bytes: self.stored_bytes(id),
        }
    }

    /// Returns the row as registers. A field's register has only whether the field has a value: the
    /// values stay text.
    fn registers(&self) -> Result<Registers<bool>, InvalidFields> {
        let Some(image) = &self.fields else { return Ok(Registers::deleted(self.stamp())) };
        let names = image.names()?.into_iter().map(|(name, _)| (name, true));
        Ok(Registers::of(self.stamp(), &self.older, self.floor, names))
    }
}

/// The present state of a change's record, as far as the join needs it.
#[derive(Debug)]
pub(super) enum PresentState {
    /// The record never existed.
    Never,
    /// Only the stamp of the present state matters.
    Stamp(RowPlace),
    /// The row.
    Row(Box<Row>),
}

impl PresentState {
    /// Returns whether the join needs the whole row, or only its place.
    pub(super) fn needs_row(change: &UnitChange, place: &RowPlace) -> bool {
        !place.is_deleted && change.kind != OpKind::Delete
    }

    /// Returns the row, if it was read.
    pub(super) fn row(&self) -> Option<&Row> {
        match self {
            Self::Row(row) => Some(row),
            Self::Never | Self::Stamp(_) => None,
        }
    }

    fn before(&self) -> Result<Registers<bool>, InvalidFields> {
        Ok(match self {
            Self::Never => Registers::default(),
            Self::Stamp(place) if place.is_deleted => Registers::deleted(place.stamp),
            Self::Stamp(place) => Registers::of(place.stamp, &[], None, []),
            Self::Row(row) => row.registers()?,
        })
    }

    fn author(&self) -> Option<Actor> {
        match self {
            Self::Row(row) => row.by.clone(),
            Self::Never | Self::Stamp(_) => None,
        }
    }

    fn image(self) -> Option<FieldsJson> {
        match self {
            Self::Row(row) => row.fields,
            Self::Never | Self::Stamp(_) => None,
        }
    }
}

/// The place that a change gives to its record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placing {
    /// The commit.
    pub(super) version: Version,
    /// The index of the change in the commit.
    pub(super) index: u32,
}

/// The effect of a change on its record.
#[derive(Debug)]
pub(super) enum Effect {
    /// The record stays as it is.
    Nothing {
        /// Whether the record has all writes of the change already.
        is_known: bool,
    },
    /// The record gets another row.
    Row(Row),
}

/// Joins a change of an actor with the present state. The caller has checked that the change may be
/// joined.
pub(super) fn changed(
    present: PresentState,
    change: &UnitChange,
    actor: &Actor,
    placing: Placing,
) -> Result<Effect, InvalidFields> {
    let (before, author) = (present.before()?, present.author());
    let (names, writes) = writes(&before, change)?;
    let mut after = before.clone();
    after.join(&writes);
    if after == before {
        return Ok(Effect::Nothing { is_known: are_all_in(&before, change, &writes) });
    }
    after.forget_oldest_removed();
    let is_new = !before.is_live();
    let image = if after.is_live() {
        let stands = |name: &str| is_new || after.stamp_of(name) > before.stamp_of(name);
        let left_out: Vec<_> = names.into_iter().filter(|name| !stands(name)).collect();
        let is_there = |registers: &Registers<bool>, name: &str| {
            registers.fields.get(name).is_some_and(|field| field.value)
        };
        let goes = |name: &&String| is_there(&before, name) && !is_there(&after, name);
        let taken_away: Vec<_> = before.fields.keys().filter(goes).cloned().collect();
        // Fields are patched as text: the store's writer waits for this, and a small patch may be
        // for a large record.
        let fields = change.fields.clone().unwrap_or_default().without(&left_out)?;
        Some(match present.image().filter(|_| !is_new) {
            Some(image) => image.patched(&fields)?.without(&taken_away)?,
            None => fields.into_image()?,
        })
    } else {
        None
    };
    let (Placing { version, index }, EditStamp { edited_at, op }) = (placing, after.stamp);
    let floor = Some(after.floor).filter(|floor| *floor != EditStamp::NEVER);
    let by = if after.stamp == before.stamp { author } else { Some(actor.clone()) };
    Ok(Effect::Row(Row {
        version,
        index,
        edited_at,
        op,
        by,
        older: after.older(),
        floor,
        fields: image,
    }))
}

/// Returns whether a record has all writes of a change, with the same stamps.
pub(super) fn is_known(row: &Row, change: &UnitChange) -> Result<bool, InvalidFields> {
    let before = row.registers()?;
    let (_, writes) = writes(&before, change)?;
    Ok(are_all_in(&before, change, &writes))
}

/// Returns the fields that a change names, and its writes.
fn writes(
    before: &Registers<bool>,
    change: &UnitChange,
) -> Result<(Vec<String>, Writes<bool>), InvalidFields> {
    let fields = change.fields.as_ref().map_or_else(|| Ok(Vec::new()), FieldsJson::names)?;
    let names = fields.iter().map(|(name, _)| name.clone()).collect();
    let fields = fields.into_iter().map(|(name, is_null)| (name, !is_null));
    Ok((names, before.written(change.kind, change.stamp(), &change.older, fields)))
}

fn are_all_in(before: &Registers<bool>, change: &UnitChange, writes: &Writes<bool>) -> bool {
    match before.life {
        // A change that writes no field is known by the record's own stamp.
        Life::Live if change.kind != OpKind::Delete && !writes.fields.is_empty() => {
            writes.fields.iter().all(|(name, field)| field.stamp == before.stamp_of(name))
        }
        Life::Live => change.kind != OpKind::Delete && before.stamp == change.stamp(),
        Life::Deleted => change.kind == OpKind::Delete && before.stamp == change.stamp(),
        Life::Unknown => false,
    }
}

#[cfg(test)]
mod tests;
