//! One record at the server, and what a change makes of it.
//!
//! Each field has a stamp, when it was last edited, so that a device can settle a conflict field by field. Most fields of
//! most records share one stamp, the record's; only the others are kept.

use std::collections::{BTreeMap, BTreeSet};

use super::state::RowPlace;
use crate::fields::{FieldsJson, InvalidFields};
use crate::ids::OpId;
use crate::limits;
use crate::names::{RecordId, RecordKey};
use crate::numbers::Version;
use crate::op::OpKind;
use crate::protocol::{Change, Measured, RecordSize, UnitChange};
use crate::time::Hlc;

/// One record at the server.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The commit that last changed it, which is its version.
    pub version: Version,
    /// Which change of that commit it was, from 0.
    pub index: u32,
    /// When it was last edited.
    pub edited_at: Hlc,
    /// The op that last edited it.
    pub op: OpId,
    /// The stamps of the fields whose last edit was at another time, and of fields that were taken away.
    pub stamps: BTreeMap<String, Hlc>,
    /// Its image; none if it is deleted.
    pub fields: Option<FieldsJson>,
}

impl Row {
    /// Returns whether this is a tombstone.
    pub const fn is_deleted(&self) -> bool {
        self.fields.is_none()
    }

    /// Returns the row as a device is told of it.
    pub fn into_change(self, key: RecordKey) -> Change {
        let mut older = self.stamps;
        older.retain(|_, stamp| *stamp < self.edited_at);
        Change {
            key,
            version: self.version,
            edited_at: self.edited_at,
            op: self.op,
            older,
            deleted: self.fields.is_none(),
            partial: false,
            fields: self.fields,
        }
    }

    /// Returns how a device is told that a record never was.
    pub(super) fn never(key: RecordKey) -> Change {
        Change {
            key,
            version: Version::default(),
            edited_at: Hlc::ZERO,
            op: OpId::from_bytes([0; 16]),
            older: BTreeMap::new(),
            deleted: true,
            partial: false,
            fields: None,
        }
    }

    /// Returns how many bytes the row takes in an answer.
    pub(super) fn size(&self, key: &RecordKey) -> RecordSize {
        let older = self.stamps.iter().filter(|(_, stamp)| **stamp < self.edited_at);
        let measured = Measured {
            key,
            version: self.version,
            edited_at: self.edited_at,
            older: older.map(|(name, stamp)| (name.as_str(), *stamp)),
            fields: self.fields.as_ref().map(|fields| fields.as_str().len()),
        };
        measured.size()
    }

    /// Returns how many bytes the row takes where it is kept.
    pub fn stored_bytes(&self, id: &RecordId) -> usize {
        let stamps: usize = self.stamps.keys().map(|name| name.len() + 9).sum();
        let fields = self.fields.as_ref().map_or(0, |fields| fields.as_str().len());
        30 + id.as_str().len() + stamps + fields
    }

    /// Returns where the row stands.
    pub fn place(&self, id: &RecordId) -> RowPlace {
        RowPlace {
            version: self.version,
            index: self.index,
            is_deleted: self.is_deleted(),
            bytes: self.stored_bytes(id),
        }
    }

    fn edited_at_of(&self, field: &str) -> Hlc {
        self.stamps.get(field).copied().unwrap_or(self.edited_at)
    }
}

/// Where a change puts its record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placing {
    /// The commit.
    pub(super) version: Version,
    /// Which change of it.
    pub(super) index: u32,
}

/// Returns the row that a change makes of the present one. The caller has checked that it may.
pub(super) fn changed(
    before: Option<&Row>,
    change: &UnitChange,
    placing: Placing,
) -> Result<Row, InvalidFields> {
    let edited_at = change.edited_at;
    let (fields, stamps) = match (change.kind, &change.fields) {
        (OpKind::Delete, _) | (_, None) => (None, BTreeMap::new()),
        (OpKind::Create | OpKind::Replace, Some(image)) => {
            let image = image.clone().into_image()?;
            let stamps = if change.older.is_empty() {
                BTreeMap::new()
            } else {
                let names = image.names()?.into_iter();
                let own = names.map(|(name, _)| (stamp_of(change, &name, edited_at), name));
                own.filter(|(stamp, _)| *stamp != edited_at).map(|(stamp, name)| (name, stamp)).collect()
            };
            (Some(image), stamps)
        }
        (OpKind::Update, Some(patch)) => return updated(before, change, patch, edited_at, placing),
    };
    let op = last_op(change);
    Ok(Row { version: placing.version, index: placing.index, edited_at, op, stamps, fields })
}

fn updated(
    before: Option<&Row>,
    change: &UnitChange,
    patch: &FieldsJson,
    edited_at: Hlc,
    placing: Placing,
) -> Result<Row, InvalidFields> {
    // Patched as text: the writer of the store waits for this, and a small patch may be of a large record.
    let (image, mut present) = match before.and_then(|row| row.fields.as_ref()) {
        Some(image) => {
            let names: BTreeSet<_> = image.names()?.into_iter().map(|(name, _)| name).collect();
            (image.patched(patch)?, names)
        }
        None => (FieldsJson::default().patched(patch)?, BTreeSet::new()),
    };
    let mut stamps = BTreeMap::new();
    if let Some(before) = before {
        let known = present.iter().chain(before.stamps.keys());
        stamps.extend(known.map(|name| (name.clone(), before.edited_at_of(name))));
    }
    for (name, is_null) in patch.names()? {
        stamps.insert(name.clone(), stamp_of(change, &name, edited_at));
        if is_null {
            present.remove(&name);
        } else {
            present.insert(name);
        }
    }
    let own = (edited_at, last_op(change));
    let (edited_at, op) = before.map_or(own, |row| own.max((row.edited_at, row.op)));
    stamps.retain(|name, stamp| *stamp != edited_at || !present.contains(name));
    forget_oldest_removed(&mut stamps, |name| !present.contains(name));
    let fields = Some(image);
    Ok(Row { version: placing.version, index: placing.index, edited_at, op, stamps, fields })
}

/// Returns when a change edited a field; never after the change as a whole, whatever the device claims.
fn stamp_of(change: &UnitChange, field: &str, edited_at: Hlc) -> Hlc {
    change.edited_at_of(field).min(edited_at)
}

fn last_op(change: &UnitChange) -> OpId {
    change.ops.last().copied().unwrap_or(OpId::from_bytes([0; 16]))
}

/// Of the stamps of fields that were taken away, the oldest go first; such a field then counts as taken away when the record
/// was last edited.
fn forget_oldest_removed(stamps: &mut BTreeMap<String, Hlc>, removed: impl Fn(&str) -> bool) {
    let mut by_age: Vec<_> =
        stamps.iter().filter(|(name, _)| removed(name)).map(|(name, stamp)| (*stamp, name.clone())).collect();
    let surplus = by_age.len().saturating_sub(limits::REMOVED_STAMPS);
    if surplus > 0 {
        by_age.sort_unstable();
        for (_, name) in by_age.into_iter().take(surplus) {
            stamps.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(kind: OpKind, edited_at: u64, older: &[(&str, u64)], fields: &str) -> UnitChange {
        UnitChange {
            key: RecordKey::parse("lead", "1").unwrap(),
            kind,
            base: None,
            ops: vec![OpId::from_bytes([u8::try_from(edited_at).unwrap(); 16])],
            edited_at: Hlc::from_bits(edited_at),
            older: older.iter().map(|(name, at)| ((*name).to_owned(), Hlc::from_bits(*at))).collect(),
            schema_version: 1,
            fields: (kind != OpKind::Delete).then(|| FieldsJson::parse(fields).unwrap()),
        }
    }

    fn after(changes: &[UnitChange]) -> Change {
        let placing = Placing { version: Version::new(1), index: 0 };
        let mut row = None;
        for change in changes {
            row = Some(changed(row.as_ref(), change, placing).unwrap());
        }
        row.unwrap().into_change(RecordKey::parse("lead", "1").unwrap())
    }

    fn image(change: &Change) -> &str {
        change.fields.as_ref().map_or("", FieldsJson::as_str)
    }

    #[test]
    fn an_update_keeps_the_older_stamps_of_the_fields_it_leaves_alone() {
        let row = after(&[
            change(OpKind::Create, 3, &[("a", 1)], r#"{"a":1,"b":1,"c":1}"#),
            change(OpKind::Update, 5, &[], r#"{"b":2}"#),
        ]);
        assert_eq!(image(&row), r#"{"a":1,"b":2,"c":1}"#);
        let stamps = ["a", "b", "c"].map(|name| row.edited_at_of(name).to_bits());
        assert_eq!((row.edited_at.to_bits(), stamps), (5, [1, 5, 3]));
        assert!(!row.older.contains_key("b"));
    }

    #[test]
    fn an_update_older_than_the_record_stamps_only_its_own_fields() {
        let row = after(&[
            change(OpKind::Create, 9, &[], r#"{"a":1,"b":1}"#),
            change(OpKind::Update, 4, &[], r#"{"b":2}"#),
        ]);
        assert_eq!((row.edited_at.to_bits(), row.edited_at_of("b").to_bits()), (9, 4));
        assert_eq!(row.op, OpId::from_bytes([9; 16]));
    }

    #[test]
    fn a_field_that_was_taken_away_keeps_the_time_of_that() {
        let row = after(&[
            change(OpKind::Create, 1, &[], r#"{"a":1,"b":1}"#),
            change(OpKind::Update, 3, &[], r#"{"b":null}"#),
            change(OpKind::Update, 8, &[], r#"{"a":2}"#),
        ]);
        assert_eq!(image(&row), r#"{"a":2}"#);
        assert_eq!((row.edited_at.to_bits(), row.edited_at_of("b").to_bits()), (8, 3));
    }

    #[test]
    fn the_stamps_of_fields_that_were_taken_away_are_bounded() {
        let mut changes = vec![change(OpKind::Create, 1, &[], r#"{"a":1}"#)];
        for number in 0..80 {
            changes.push(change(OpKind::Update, number + 2, &[], &format!(r#"{{"gone{number}":null}}"#)));
        }
        let row = after(&changes);
        let removed = row.older.keys().filter(|name| name.starts_with("gone")).count();
        assert!(removed <= limits::REMOVED_STAMPS, "{removed}");
        assert!(row.older.contains_key("gone78") && !row.older.contains_key("gone3"));
    }

    #[test]
    fn a_replaced_record_keeps_no_old_field_and_no_null() {
        let row = after(&[
            change(OpKind::Create, 1, &[], r#"{"a":1,"b":1}"#),
            change(OpKind::Replace, 5, &[("c", 4), ("x", 2)], r#"{"c":1,"d":1,"e":null}"#),
        ]);
        assert_eq!(image(&row), r#"{"c":1,"d":1}"#);
        assert_eq!(row.older, BTreeMap::from([("c".to_owned(), Hlc::from_bits(4))]));
    }

    #[test]
    fn a_stamp_is_kept_as_it_is() {
        let row = after(&[change(OpKind::Create, 250, &[("a", 200), ("b", 90)], r#"{"a":1,"b":1}"#)]);
        let stamps = ["a", "b"].map(|name| row.edited_at_of(name).to_bits());
        assert_eq!((row.edited_at.to_bits(), stamps), (250, [200, 90]));
    }

    #[test]
    fn a_tombstone_has_no_fields_and_no_stamps() {
        let row = after(&[
            change(OpKind::Create, 3, &[("a", 1)], r#"{"a":1,"b":1}"#),
            change(OpKind::Delete, 5, &[], ""),
        ]);
        assert!(row.deleted && row.fields.is_none() && row.older.is_empty());
    }
}
