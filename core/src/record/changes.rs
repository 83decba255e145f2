//! Changes of a record: sent changes as writes, and changes from the server as registers.
//!
//! Invariants:
//! 1. A change that the server applied on its base has the same result here, because the join is
//!    the same.
//! 2. A whole row replaces the record. A part of a row leaves the fields that the part does not
//!    name.
//!
//! What it does not do: make a change of ops ([`crate::rules::coalesce`]).

use super::registers::{Does, Registers, Writes, with_stamp};
use super::stamp::{EditStamp, FieldWrites};
use crate::entry::PlannedChange;
use crate::fields::{Fields, FieldsJson, InvalidFields};
use crate::numbers::Version;
use crate::op::OpKind;
use crate::protocol::{Change, UnitChange};

impl PlannedChange {
    /// Returns the change's own stamp, which has the id of the last op. Fields in `older` have
    /// other stamps.
    pub fn stamp(&self) -> EditStamp {
        let op = self.ops.last().map_or(EditStamp::NEVER.op, |op| op.id);
        EditStamp { edited_at: self.edited_at, op }
    }

    /// Joins the change to a record, given the fields that it was frozen with. A change without a
    /// base version met no record at the server. A record that a former epoch of the server had is
    /// then no part of the result.
    #[doc(hidden)]
    pub fn join_into(&self, record: &mut Registers, fields: Fields) {
        if self.base.is_none_or(|base| base == Version::default()) {
            *record = Registers::default();
        }
        let writes = record.written(self.kind, self.stamp(), &self.older, fields.into_map());
        record.join(&writes);
    }
}

impl Registers {
    /// Joins a sent change, given its fields.
    pub fn join_sent(&mut self, change: &UnitChange, fields: Fields) {
        let writes = self.written(change.kind, change.stamp(), &change.older, fields.into_map());
        self.join(&writes);
    }
}

impl<V: Clone + Default + PartialEq> Registers<V> {
    /// Returns the writes of a change to this record.
    pub fn written(
        &self,
        kind: OpKind,
        own: EditStamp,
        older: &[FieldWrites],
        fields: impl IntoIterator<Item = (String, V)>,
    ) -> Writes<V> {
        // A replace removes the fields that it does not name.
        let others = self.fields.keys().filter(|_| kind == OpKind::Replace);
        let mut written = with_stamp(others.map(|name| (name.clone(), V::default())), own);
        written.extend(with_stamp(fields, own));
        // If two writes name a field, the first of them counts.
        for writes in older.iter().rev() {
            for name in &writes.fields {
                if let Some(field) = written.get_mut(name) {
                    field.stamp = writes.stamp();
                }
            }
        }
        let does = match kind {
            OpKind::Delete => Does::Deletes,
            OpKind::Create => Does::Creates,
            OpKind::Update | OpKind::Replace => Does::Edits,
        };
        // A change of a live record writes only fields, and every field can have another stamp than
        // the change.
        let of_fields = || written.values().map(|field| field.stamp).max().unwrap_or_default();
        let stamp = if kind == OpKind::Delete || !self.is_live() { own } else { of_fields() };
        Writes { does, stamp, fields: written, brings_back: None }
    }
}

impl Change {
    /// Returns the record after this change from the server.
    ///
    /// # Errors
    /// [`InvalidFields`] if the fields do not read.
    #[doc(hidden)]
    pub fn onto(&self, before: &Registers) -> Result<Registers, InvalidFields> {
        let fields =
            self.fields.as_ref().map(FieldsJson::to_fields).transpose()?.unwrap_or_default();
        let sent =
            || Registers::of(self.stamp(), &self.older, self.floor, fields.into_image().into_map());
        Ok(match (self.deleted, self.partial) {
            (true, _) => Registers::deleted(self.stamp()),
            (false, true) => before.with_part(sent()),
            (false, false) => sent(),
        })
    }
}

impl Registers {
    /// Returns the registers with a part of the record from the server in place of their own
    /// fields.
    #[must_use]
    pub fn with_part(&self, mut part: Self) -> Self {
        if self.is_live() {
            part.floor = part.floor.max(self.floor);
            for (name, field) in &self.fields {
                part.fields.entry(name.clone()).or_insert_with(|| field.clone());
            }
        }
        part
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::entry::FieldsSource;
    use crate::record::test_ops::{deleted, fields, op_id, planned, there};
    use crate::time::Hlc;

    fn change(kind: OpKind, older: Vec<FieldWrites>) -> PlannedChange {
        PlannedChange {
            key: crate::names::RecordKey::parse("lead", "1").unwrap(),
            kind,
            ops: vec![planned(1), planned(2)],
            base: Some(Version::new(1)),
            edited_at: Hlc::from_bits(7),
            older,
            schema_version: 1,
            fields: FieldsSource::Nothing,
        }
    }

    fn stamp(time: u64, op: u8) -> EditStamp {
        EditStamp { edited_at: Hlc::from_bits(time), op: op_id(op) }
    }

    #[test]
    fn an_accepted_change_has_the_stamp_of_its_last_op_but_for_what_is_listed() {
        let mut record = there(&[("a", json!(0), 99, 0), ("z", json!(0), 99, 3)]);
        let listed = FieldWrites {
            edited_at: Hlc::from_bits(5),
            op: op_id(1),
            fields: vec!["b".to_owned()],
        };
        change(OpKind::Update, vec![listed])
            .join_into(&mut record, fields(json!({"a": 2, "b": 1})));
        assert_eq!(record.image(), Some(fields(json!({"a": 2, "b": 1, "z": 0}))));
        let stamps = ["a", "b", "z"].map(|name| record.stamp_of(name));
        assert_eq!(stamps, [stamp(7, 2), stamp(5, 1), stamp(3, 99)]);
        assert_eq!(record.stamp, stamp(7, 2));
    }

    #[test]
    fn what_was_accepted_for_no_version_met_no_record_whatever_a_former_life_of_the_server_had() {
        for base in [None, Some(Version::default())] {
            let mut record = there(&[("a", json!(0), 99, 0), ("z", json!(0), 99, 50)]);
            let create = PlannedChange { base, ..change(OpKind::Create, Vec::new()) };
            create.join_into(&mut record, fields(json!({"a": 2})));
            assert_eq!(
                (record.image(), record.stamp),
                (Some(fields(json!({"a": 2}))), stamp(7, 2))
            );
        }
    }

    #[test]
    fn a_record_that_is_there_does_not_get_a_stamp_that_none_of_its_fields_has() {
        let mut record = there(&[("a", json!(0), 99, 0)]);
        let listed = FieldWrites {
            edited_at: Hlc::from_bits(5),
            op: op_id(1),
            fields: vec!["a".to_owned()],
        };
        change(OpKind::Create, vec![listed]).join_into(&mut record, fields(json!({"a": 1})));
        assert_eq!(
            (record.stamp_of("a"), record.stamp),
            (stamp(5, 1), stamp(5, 1)),
            "as at the server"
        );
    }

    #[test]
    fn a_replace_takes_away_what_it_does_not_name() {
        let mut record = there(&[("a", json!(0), 99, 0), ("z", json!(0), 99, 3)]);
        change(OpKind::Replace, Vec::new()).join_into(&mut record, fields(json!({"a": 2})));
        assert_eq!(record.image(), Some(fields(json!({"a": 2}))));
        assert_eq!(record.stamp_of("z"), stamp(7, 2));
    }

    #[test]
    fn a_creation_over_a_deletion_counts_what_it_does_not_have_as_deleted_then() {
        let mut record = deleted(99, 5);
        change(OpKind::Create, Vec::new()).join_into(&mut record, fields(json!({"a": 2})));
        assert_eq!((record.image(), record.floor), (Some(fields(json!({"a": 2}))), stamp(5, 99)));
        change(OpKind::Delete, Vec::new()).join_into(&mut record, Fields::new());
        assert!(record.is_live(), "a deletion with the stamp of what is there is not above it");
        let mut other = there(&[("a", json!(0), 99, 0)]);
        change(OpKind::Delete, Vec::new()).join_into(&mut other, Fields::new());
        assert_eq!((other.image(), other.stamp), (None, stamp(7, 2)));
    }
}
