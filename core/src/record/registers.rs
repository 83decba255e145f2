//! A record as registers, the writes of an op, and the join of both.
//!
//! ```text
//!   registers │ a field: value or null, stamp      (one for each top-level field)
//!             │ life:    live or deleted, stamp
//!   join      │ in each field the greater stamp wins
//!             │ between a deletion and writes, the greater stamp decides as a whole
//! ```
//!
//! | record ↓ / joined with → | a deletion | writes |
//! |---|---|---|
//! | live | deleted, if the deletion is above every register; else unchanged | in each field the greater stamp |
//! | deleted | the greater stamp | below the deletion: unchanged; above it: live, with the fields that the op brings back |
//! | not known | deleted | live |
//!
//! Invariants:
//! 1. The order and the repetition of writes to a live record do not matter. The tests below have
//!    this law.
//! 2. A deleted record has no fields. It keeps only the stamp of its deletion.
//! 3. Fields that an edit brings back get the next stamp above the deletion. The fields that the
//!    edit names keep their own stamps.
//!
//! A register of a device holds a value. A register of the server holds only whether there is a
//! value, since the server keeps values as text.
//!
//! What it does not do: decide which writes an author had read ([`crate::rules`]).

use std::collections::BTreeMap;

use serde_json::Value;

use super::stamp::{EditStamp, FieldWrites, list_by_write};
use crate::fields::Fields;
use crate::limits;

/// One field of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Register<V = Value> {
    /// The field's value. It is null, the default, if a write removed the field.
    pub value: V,
    /// The stamp of the write that set the value.
    pub stamp: EditStamp,
}

/// Whether a record exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Life {
    /// Nothing is known of the record.
    #[default]
    Unknown,
    /// The record exists.
    Live,
    /// The record was deleted.
    Deleted,
}

/// A record as registers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Registers<V = Value> {
    /// Whether the record exists.
    pub life: Life,
    /// The greatest stamp of the registers. A deleted record has the stamp of its deletion.
    pub stamp: EditStamp,
    /// The fields, including removed ones.
    pub fields: BTreeMap<String, Register<V>>,
    /// The stamp of the removal of every field that `fields` does not have.
    pub floor: EditStamp,
}

/// The writes of an op to a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Writes<V = Value> {
    /// The effect on the record's life.
    pub does: Does,
    /// The op's own stamp: the stamp of its deletion, its creation or its edit as a whole. A field
    /// can have another stamp.
    pub stamp: EditStamp,
    /// The fields that the op writes. A null removes its field.
    pub fields: BTreeMap<String, Register<V>>,
    /// The fields that the op's author had read, if the op brings the record back from a deletion.
    pub brings_back: Option<BTreeMap<String, V>>,
}

/// The effect of an op on a record's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// The op creates the record, or changes the record that exists.
    Creates,
    /// The op changes the record.
    Edits,
    /// The op deletes the record.
    Deletes,
    /// Nothing is left of the op.
    Nothing,
}

impl<V: Clone + Default + PartialEq> Registers<V> {
    /// Makes the registers of a live record from its own stamp, the fields with another stamp
    /// (`older`), the floor and the members of its image.
    pub fn of(
        own: EditStamp,
        older: &[FieldWrites],
        floor: Option<EditStamp>,
        members: impl IntoIterator<Item = (String, V)>,
    ) -> Self {
        let mut fields = with_stamp(members, own);
        // If two writes name a field, the first of them counts.
        for writes in older.iter().rev() {
            for name in &writes.fields {
                let null = || Register { value: V::default(), stamp: own };
                fields.entry(name.clone()).or_insert_with(null).stamp = writes.stamp();
            }
        }
        Self { life: Life::Live, stamp: own, fields, floor: floor.unwrap_or_default() }
    }

    /// A record that was deleted.
    pub fn deleted(stamp: EditStamp) -> Self {
        Self { life: Life::Deleted, stamp, ..Self::default() }
    }

    /// Lists by write the fields that the image and the record's own stamp do not describe: removed
    /// fields, and fields with another stamp.
    pub fn older(&self) -> Vec<FieldWrites> {
        let differs =
            |field: &Register<V>| field.stamp != self.stamp || field.value == V::default();
        let listed = self.fields.iter().filter(|(_, field)| differs(field));
        list_by_write(listed.map(|(name, field)| (name.clone(), field.stamp)))
    }

    /// Forgets the oldest removed fields if there are more of them than [`limits::REMOVED_STAMPS`].
    /// The floor rises to the latest forgotten stamp, and stays below the stamp of every other
    /// removed field.
    pub fn forget_oldest_removed(&mut self) {
        let removed = self.fields.values().filter(|field| field.value == V::default());
        let mut removed: Vec<_> = removed.map(|field| field.stamp).collect();
        let surplus = removed.len().saturating_sub(limits::REMOVED_STAMPS);
        removed.sort_unstable();
        self.floor = removed.iter().take(surplus).copied().fold(self.floor, EditStamp::max);
        // The floor stands for a removed field whose stamp is not above it.
        let floor = self.floor;
        self.fields.retain(|_, field| field.value != V::default() || field.stamp > floor);
    }

    /// Returns the stamp of a field. A field without a register has the stamp of the floor, and
    /// every field of a deleted record has the stamp of the deletion.
    pub fn stamp_of(&self, name: &str) -> EditStamp {
        match self.life {
            Life::Live => self.fields.get(name).map_or(self.floor, |field| field.stamp),
            Life::Deleted => self.stamp,
            Life::Unknown => EditStamp::NEVER,
        }
    }

    /// Returns whether the record exists.
    pub fn is_live(&self) -> bool {
        self.life == Life::Live
    }

    /// Returns whether the record was deleted.
    pub fn is_deleted(&self) -> bool {
        self.life == Life::Deleted
    }

    /// Joins the writes of an op.
    pub fn join(&mut self, writes: &Writes<V>) {
        match (self.life, writes.does) {
            (_, Does::Nothing) => {}
            (Life::Live, Does::Deletes) if writes.stamp <= self.stamp => {}
            (Life::Deleted, _) if writes.greatest() <= self.stamp => {}
            (_, Does::Deletes) => *self = Self::deleted(writes.stamp),
            (Life::Deleted, _) => self.bring_back(writes),
            _ => self.write(writes),
        }
    }

    fn write(&mut self, writes: &Writes<V>) {
        self.life = Life::Live;
        self.stamp = self.stamp.max(writes.stamp);
        for (name, field) in &writes.fields {
            if field.stamp > self.stamp_of(name) {
                self.fields.insert(name.clone(), field.clone());
                self.stamp = self.stamp.max(field.stamp);
            }
        }
    }

    fn bring_back(&mut self, writes: &Writes<V>) {
        let deletion = self.stamp;
        // An op has a stamp below the deletion if only fields of it were raised above the deletion.
        let own = if writes.stamp > deletion { writes.stamp } else { writes.greatest() };
        let above = deletion.next(writes.stamp.op).min(own);
        let others = writes.brings_back.clone().unwrap_or_default().into_iter();
        let others = others.filter(|(_, value)| *value != V::default());
        let fields = with_stamp(others, above);
        *self = Self { life: Life::Live, stamp: writes.stamp, fields, floor: deletion };
        for (name, field) in &writes.fields {
            self.stamp = self.stamp.max(field.stamp);
            self.fields.insert(name.clone(), field.clone());
        }
    }
}

impl Registers {
    /// Returns the value of a field, or null if the record has no such field.
    pub fn value_of(&self, name: &str) -> &Value {
        const NULL: &Value = &Value::Null;
        self.fields.get(name).map_or(NULL, |field| &field.value)
    }

    /// Returns the image, or `None` if the record does not exist.
    pub fn image(&self) -> Option<Fields> {
        let members = self.fields.iter().filter(|(_, field)| !field.value.is_null());
        self.is_live()
            .then(|| members.map(|(name, field)| (name.clone(), field.value.clone())).collect())
    }
}

/// Gives each field one stamp.
pub(super) fn with_stamp<V>(
    fields: impl IntoIterator<Item = (String, V)>,
    stamp: EditStamp,
) -> BTreeMap<String, Register<V>> {
    fields.into_iter().map(|(name, value)| (name, Register { value, stamp })).collect()
}

impl<V: Clone + Default + PartialEq> Writes<V> {
    /// Returns whether the writes would still change a record.
    pub fn are_left(&self, record: &Registers<V>) -> bool {
        match (self.does, record.life) {
            (Does::Nothing, _) => false,
            (_, Life::Deleted) | (Does::Deletes, Life::Live) => self.greatest() > record.stamp,
            (Does::Deletes, Life::Unknown) | (Does::Creates, Life::Unknown) => true,
            _ => self.fields.iter().any(|(name, field)| field.stamp > record.stamp_of(name)),
        }
    }

    /// Returns whether a record has any of the writes. A field that a creation removes by the stamp
    /// of a deletion does not count: the stamp belongs to the deletion.
    pub fn have_arrived(&self, record: &Registers<V>) -> bool {
        match (self.does, record.life) {
            (Does::Deletes, Life::Deleted) => self.stamp == record.stamp,
            (Does::Creates | Does::Edits, Life::Live) => {
                let is_there = |(name, field): (&String, &Register<V>)| {
                    let there = record.fields.get(name).map(|there| there.stamp);
                    field.stamp.op == self.stamp.op && there == Some(field.stamp)
                };
                self.fields.iter().any(is_there) || record.stamp == self.stamp
            }
            _ => false,
        }
    }

    /// Returns the greatest stamp of the writes.
    pub fn greatest(&self) -> EditStamp {
        self.fields.values().map(|field| field.stamp).fold(self.stamp, EditStamp::max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::ids::OpId;
    use crate::time::Hlc;

    fn stamp(at: u64, op: u8) -> EditStamp {
        EditStamp { edited_at: Hlc::from_bits(at), op: OpId::from_bytes([op; 16]) }
    }

    fn writes(does: Does, stamp: EditStamp, fields: &[(&str, Value)]) -> Writes {
        let fields = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Register { value: value.clone(), stamp }));
        Writes { does, stamp, fields: fields.collect(), brings_back: None }
    }

    fn joined(all: &[Writes]) -> Registers {
        all.iter().fold(Registers::default(), |mut record, writes| {
            record.join(writes);
            record
        })
    }

    #[test]
    fn in_each_field_the_greater_stamp_stands() {
        let record = joined(&[
            writes(Does::Creates, stamp(1, 1), &[("a", json!(1)), ("b", json!(1))]),
            writes(Does::Edits, stamp(9, 2), &[("a", json!(2))]),
            writes(Does::Edits, stamp(5, 3), &[("a", json!(3)), ("b", json!(null))]),
        ]);
        assert_eq!(record.image(), Some(Fields::from_value(json!({"a": 2})).unwrap()));
        assert_eq!((record.stamp, record.stamp_of("b")), (stamp(9, 2), stamp(5, 3)));
    }

    #[test]
    fn a_deletion_stands_above_what_it_is_above_and_falls_below_an_edit() {
        let create = || writes(Does::Creates, stamp(1, 1), &[("a", json!(1))]);
        let edit = || writes(Does::Edits, stamp(7, 2), &[("a", json!(2))]);
        let delete = |at| writes(Does::Deletes, stamp(at, 3), &[]);
        assert_eq!(joined(&[create(), edit(), delete(8)]).life, Life::Deleted);
        assert_eq!(
            joined(&[create(), edit(), delete(5)]).image(),
            Some(Fields::from_value(json!({"a": 2})).unwrap())
        );
        assert!(joined(&[create(), delete(8), edit()]).is_deleted());
        assert!(joined(&[create(), delete(5), edit()]).is_live());
    }

    /// Two copies of a book each created a record again over the same deletion.
    #[test]
    fn what_a_creation_takes_away_by_the_stamp_of_a_deletion_is_no_sign_that_it_arrived() {
        let anew = |op: u8| {
            let mut anew = writes(Does::Creates, stamp(6, op), &[("a", json!(op))]);
            anew.fields.insert("c".to_owned(), Register { value: Value::Null, stamp: stamp(5, 1) });
            anew
        };
        let record = joined(&[anew(2)]);
        assert!(anew(2).have_arrived(&record) && !anew(3).have_arrived(&record));
    }

    #[test]
    fn an_edit_above_a_deletion_brings_back_what_its_author_read_right_above_it() {
        let mut record = joined(&[writes(Does::Deletes, stamp(5, 3), &[])]);
        let read = BTreeMap::from([("a".to_owned(), json!(1)), ("b".to_owned(), json!(1))]);
        let edit = writes(Does::Edits, stamp(9, 2), &[("a", json!(2))]);
        record.join(&Writes { brings_back: Some(read), ..edit });
        assert_eq!(record.image(), Some(Fields::from_value(json!({"a": 2, "b": 1})).unwrap()));
        assert_eq!((record.stamp_of("a"), record.stamp_of("b")), (stamp(9, 2), stamp(6, 2)));
        assert_eq!(record.stamp_of("c"), stamp(5, 3), "what it does not have counts as deleted");
        let mut record = joined(&[writes(Does::Deletes, stamp(5, 3), &[])]);
        let mut edit = writes(Does::Edits, stamp(2, 2), &[("a", json!(2))]);
        edit.fields.insert("a".to_owned(), Register { value: json!(2), stamp: stamp(9, 2) });
        edit.brings_back = Some(BTreeMap::from([("b".to_owned(), json!(1))]));
        record.join(&edit);
        assert_eq!(
            record.stamp_of("b"),
            stamp(6, 2),
            "above it though the edit was made before it"
        );
    }

    prop_compose! {
        fn some_writes()(
            at in 1..6u64, op in 1..4u8, names in prop::collection::btree_set("[ab]", 0..3),
        ) -> Writes {
            // Two writes with one stamp are the same write: the value follows from it.
            let fields: Vec<_> = names.iter().map(|name| (name.as_str(), json!([at, op]))).collect();
            writes(Does::Creates, stamp(at, op), &fields)
        }
    }

    proptest! {
        #[test]
        fn the_order_and_the_repetition_of_writes_do_not_matter(
            all in prop::collection::vec(some_writes(), 0..6), seed in 0..720usize,
        ) {
            let mut other = all.clone();
            let mut seed = seed;
            for place in (1..other.len()).rev() {
                other.swap(place, seed % (place + 1));
                seed /= place + 1;
            }
            other.extend(all.iter().take(2).cloned());
            prop_assert_eq!(joined(&all), joined(&other));
        }
    }
}
