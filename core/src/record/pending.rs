//! One op of a record's tail: which op it is, how it stands, and what of it is left to say.
//!
//! What the op says is in the log at its place. Here is only what differs from that: what policies and people took away, gave and
//! raised, what an upcaster made of it, and the fields that it takes away without naming them.
//!
//! | event → | what is left of the op |
//! |---|---|
//! | dropped (fields) | without these |
//! | raised (fields) | the same, with a later stamp; with the values that it was given |
//! | raised (whole) | all of it with a later stamp |
//! | restamped | all of it with an earlier stamp, since the clock was ahead |
//! | upcast | other fields, with the stamp that it was made with |
//! | brings back | as before; above a deletion it goes with all that its author read |
//! | emptied | nothing; a dead letter stays listed |
//!
//! Invariants:
//! 1. An op has one stamp when it is made, above every register of the record that its author read.
//! 2. What was taken away never comes back.
//!
//! What it is not: what becomes of the op ([`crate::rules`]).

use std::collections::BTreeMap;

use serde_json::Value;

use super::registers::{Does, Register, Registers, Writes};
use super::stamp::EditStamp;
use crate::codec::{Decode, Encode};
use crate::entry::PlannedOp;
use crate::fields::{Fields, FieldsJson, InvalidFields};
use crate::ids::{OpId, UnitId};
use crate::numbers::Version;
use crate::op::{OpContent, OpKind, OpPlace};
use crate::rows::{Confirmed, UnitChangeRow};
use crate::time::Hlc;

/// An op without a terminal outcome.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Pending {
    /// The op.
    pub op: OpId,
    /// Where it stands.
    pub place: OpPlace,
    /// What it does.
    pub kind: OpKind,
    /// When it counts as made.
    pub edited_at: Hlc,
    /// How often a unit with it was stale.
    pub stale: u32,
    /// Whether it is a dead letter.
    pub dead: bool,
    /// The fields that it takes away without naming them: those that its author read and a replace or a new creation leaves out.
    pub cleared: Vec<String>,
    /// The stamp of these if it is not the op's: that of the deletion of ours that the creation stands on.
    pub cleared_at: Option<EditStamp>,
    /// The fields that it lost.
    pub dropped: Vec<String>,
    /// Whether nothing is left of it.
    pub emptied: bool,
    /// Values that it has in place of its own, or beside them.
    pub given: Option<FieldsJson>,
    /// The fields whose stamp was raised above that of others of the op.
    pub raised: Vec<(String, Hlc)>,
    /// What its author read of the record, if it brings the record back from a deletion.
    pub brings_back: Option<FieldsJson>,
    /// Its fields under a later schema version than that under which it was made. What was dropped and given is of that version.
    pub upcast: Option<Upcast>,
    /// The units that carried it and were given up without knowing whether they took effect.
    pub attempts: Vec<UnitId>,
    /// What the first of these units was made for.
    pub given_up: Option<SentFor>,
}

/// An op's fields, turned into those of another schema version.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Upcast {
    /// The version.
    pub schema_version: u32,
    /// The fields.
    pub fields: FieldsJson,
}

/// What a unit was made for: the record as the server had it.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct SentFor {
    /// The server's version.
    pub version: Option<Version>,
    /// The record; none if nothing was known of it.
    pub record: Option<Confirmed>,
}

impl SentFor {
    /// Returns the record as registers.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub fn registers(&self) -> Result<Registers, InvalidFields> {
        self.record.as_ref().map_or_else(|| Ok(Registers::default()), Confirmed::registers)
    }

    /// Joins a change of our own that the server took since, given its fields. The version stays: the server is to tell what it has.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub fn take_own(&mut self, change: &UnitChangeRow, fields: Fields) -> Result<(), InvalidFields> {
        let mut record = self.registers()?;
        change.join_into(&mut record, fields);
        let version = self.record.as_ref().map(|record| record.version).unwrap_or_default();
        self.record = Confirmed::of(&record, version);
        Ok(())
    }
}

impl Pending {
    /// Makes one that waits and was never sent.
    pub const fn new(op: OpId, place: OpPlace, kind: OpKind, edited_at: Hlc) -> Self {
        Self {
            op,
            place,
            kind,
            edited_at,
            stale: 0,
            dead: false,
            cleared: Vec::new(),
            cleared_at: None,
            dropped: Vec::new(),
            emptied: false,
            given: None,
            raised: Vec::new(),
            brings_back: None,
            upcast: None,
            attempts: Vec::new(),
            given_up: None,
        }
    }

    /// Returns the stamp that its fields have unless they were raised.
    pub const fn stamp(&self) -> EditStamp {
        EditStamp { edited_at: self.edited_at, op: self.op }
    }

    /// Returns the greatest of its stamps.
    pub fn greatest(&self) -> EditStamp {
        let raised = self.raised.iter().map(|(_, edited_at)| *edited_at);
        EditStamp { edited_at: raised.fold(self.edited_at, Hlc::max), op: self.op }
    }

    /// Returns what is left of it, as fields: what it names.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub fn named(&self, content: &OpContent) -> Result<Fields, InvalidFields> {
        if self.emptied {
            return Ok(Fields::new());
        }
        let upcast = self.upcast.as_ref().map(|upcast| upcast.fields.to_fields()).transpose()?;
        let said = upcast.unwrap_or_else(|| content.fields.clone());
        let mut left =
            if self.dropped.is_empty() { said } else { said.filtered(|name| !self.has_dropped(name)) };
        if let Some(given) = &self.given {
            left.compose(given.to_fields()?);
        }
        Ok(left)
    }

    /// Returns what is left of it, as writes.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub fn writes(&self, content: &OpContent) -> Result<Writes, InvalidFields> {
        let named = self.named(content)?;
        let own = self.stamp();
        let cleared_at = self.cleared_at.unwrap_or(own);
        let cleared = self.cleared.iter().filter(|name| !self.has_dropped(name) && !self.emptied);
        let mut fields: BTreeMap<String, Register> =
            cleared.map(|name| (name.clone(), Register { value: Value::Null, stamp: cleared_at })).collect();
        for (name, value) in named.into_map() {
            fields.insert(name, Register { value, stamp: own });
        }
        for (name, edited_at) in &self.raised {
            if let Some(field) = fields.get_mut(name) {
                field.stamp = EditStamp { edited_at: *edited_at, op: self.op };
            }
        }
        let does = match self.kind {
            _ if self.emptied => Does::Nothing,
            OpKind::Delete => Does::Deletes,
            OpKind::Create => Does::Creates,
            OpKind::Update | OpKind::Replace if fields.is_empty() && !content.fields.is_empty() => {
                Does::Nothing
            }
            OpKind::Update | OpKind::Replace => Does::Edits,
        };
        let brings_back = self.brings_back.as_ref().map(FieldsJson::to_fields).transpose()?;
        Ok(Writes { does, stamp: own, fields, brings_back })
    }

    /// Takes fields from it.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub fn drop_fields(&mut self, names: &[String]) -> Result<(), InvalidFields> {
        for name in names {
            if !self.has_dropped(name) {
                self.dropped.push(name.clone());
            }
        }
        self.raised.retain(|(name, _)| !names.contains(name));
        if let Some(given) = &self.given {
            let kept = given.to_fields()?.filtered(|name| !names.iter().any(|lost| lost == name));
            self.given = (!kept.is_empty()).then(|| kept.to_json());
        }
        Ok(())
    }

    /// Gives it the fields that an upcaster made of what was left of it. What was raised stays raised under the same name.
    ///
    /// # Errors
    /// [`InvalidFields`] if the fields do not read.
    pub fn turn(&mut self, upcast: Upcast) -> Result<(), InvalidFields> {
        let names = upcast.fields.to_fields()?;
        self.raised.retain(|(name, _)| names.has(name));
        self.upcast = Some(upcast);
        let dropped = std::mem::take(&mut self.dropped);
        self.cleared.retain(|name| !dropped.contains(name));
        self.given = None;
        Ok(())
    }

    /// Takes away all that it says.
    pub fn empty(&mut self) {
        self.emptied = true;
    }

    /// Gives fields a later stamp, and values in place of its own; without fields, all of it.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub fn raise(
        &mut self,
        names: &[String],
        edited_at: Hlc,
        values: Option<&Fields>,
    ) -> Result<(), InvalidFields> {
        if names.is_empty() {
            self.edited_at = edited_at;
            self.raised.clear();
        }
        for name in names {
            self.raised.retain(|(known, _)| known != name);
            self.raised.push((name.clone(), edited_at));
        }
        if let Some(values) = values {
            let known = self.given.as_ref().map(FieldsJson::to_fields).transpose()?;
            let mut given = known.unwrap_or_default();
            given.compose(values.clone());
            self.given = Some(given.to_json());
        }
        Ok(())
    }

    /// Has what it takes away by the stamp of a deletion follow that to another stamp.
    pub fn follow_deletion(&mut self, before: EditStamp, after: EditStamp) {
        if self.cleared_at == Some(before) {
            self.cleared_at = Some(after);
        }
    }

    /// Gives all of it an earlier stamp.
    pub fn lower(&mut self, edited_at: Hlc) {
        self.edited_at = edited_at;
        self.raised.clear();
    }

    fn has_dropped(&self, name: &str) -> bool {
        self.dropped.iter().any(|dropped| dropped == name)
    }
}

/// Returns which later creations of a tail lose what they took away by the stamps of deletions that end: each stands or falls by its
/// own.
pub fn fall_with<'a>(
    tail: impl Iterator<Item = &'a Pending> + Clone,
    ending: &[PlannedOp],
) -> Vec<(PlannedOp, Vec<String>)> {
    let is_ending = |pending: &&Pending| ending.iter().any(|op| op.id == pending.op);
    let deletions = tail.clone().filter(is_ending).filter(|pending| pending.kind == OpKind::Delete);
    let stamps: Vec<_> = deletions.map(Pending::stamp).collect();
    let falls = |later: &&Pending| {
        later.cleared_at.is_some_and(|at| stamps.contains(&at))
            && !later.cleared.is_empty()
            && !is_ending(later)
    };
    tail.filter(falls)
        .map(|later| (PlannedOp { id: later.op, place: later.place }, later.cleared.clone()))
        .collect()
}

/// Returns the dead letters beneath deletions that end without leaving: a deletion that had left would stand above them for good, and
/// what a person deleted must not show again.
pub fn uncovered_by<'a>(
    tail: impl Iterator<Item = &'a Pending> + Clone,
    ending: &[PlannedOp],
) -> Vec<PlannedOp> {
    let is_ending = |pending: &&Pending| ending.iter().any(|op| op.id == pending.op);
    let deletions = tail.clone().filter(is_ending).filter(|op| op.kind == OpKind::Delete && !op.emptied);
    let Some(last) = deletions.map(|deletion| deletion.place).max() else { return Vec::new() };
    let is_beneath = |op: &&Pending| {
        op.dead && !op.emptied && op.place < last && op.kind != OpKind::Delete && !is_ending(op)
    };
    tail.filter(is_beneath).map(|op| PlannedOp { id: op.op, place: op.place }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::test_ops::{fields, op_id, planned, tail_op, there};

    /// What is left of an op: each field with its value and the time of its stamp.
    fn left(op: &crate::record::TailOp) -> Vec<(String, Value, u64)> {
        let fields = op.writes.fields.iter();
        fields
            .map(|(name, field)| (name.clone(), field.value.clone(), field.stamp.edited_at.to_bits()))
            .collect()
    }

    fn field(name: &str, value: Value, at: u64) -> (String, Value, u64) {
        (name.to_owned(), value, at)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn an_op_writes_the_fields_that_it_names_and_null_for_those_that_it_takes_away() {
        let mut op = tail_op(3, OpKind::Replace, json!({"a": 1, "b": null}));
        assert_eq!(
            (op.writes.does, left(&op)),
            (Does::Edits, vec![field("a", json!(1), 3), field("b", json!(null), 3)])
        );
        op.pending.cleared = names(&["c"]);
        op.look_again().unwrap();
        assert_eq!(left(&op)[2], field("c", json!(null), 3));
        op.pending.cleared_at = Some(EditStamp { edited_at: Hlc::from_bits(2), op: op_id(2) });
        op.look_again().unwrap();
        assert_eq!(
            left(&op)[2],
            field("c", json!(null), 2),
            "with the stamp of the deletion that it stands on"
        );
    }

    #[test]
    fn what_a_unit_was_made_for_gets_our_own_later_changes_and_keeps_its_version() {
        let known = there(&[("a", json!(0), 99, 1), ("b", json!(0), 99, 1)]);
        let mut sent_for =
            SentFor { version: Some(Version::new(4)), record: Confirmed::of(&known, Version::new(4)) };
        let own = UnitChangeRow {
            key: crate::names::RecordKey::parse("lead", "1").unwrap(),
            kind: OpKind::Update,
            ops: vec![planned(1)],
            base: Some(Version::new(7)),
            sent_for: SentFor { version: None, record: None },
            edited_at: Hlc::from_bits(7),
            older: Vec::new(),
            schema_version: 1,
            fields: crate::entry::FieldsSource::Nothing,
        };
        sent_for.take_own(&own, fields(json!({"a": 7}))).unwrap();
        let seen = sent_for.registers().unwrap();
        assert_eq!(seen.image(), Some(fields(json!({"a": 7, "b": 0}))));
        assert_eq!(seen.stamp_of("a"), EditStamp { edited_at: Hlc::from_bits(7), op: op_id(1) });
        let record = sent_for.record.unwrap();
        assert_eq!((sent_for.version, record.version), (Some(Version::new(4)), Version::new(4)));
    }

    #[test]
    fn what_was_taken_away_never_comes_back() {
        let mut op = tail_op(3, OpKind::Update, json!({"a": 1, "b": 1}));
        op.pending.cleared = names(&["c"]);
        op.pending.raise(&names(&["a"]), Hlc::from_bits(9), Some(&fields(json!({"a": 7})))).unwrap();
        op.look_again().unwrap();
        assert_eq!(left(&op)[0], field("a", json!(7), 9));
        op.pending.drop_fields(&names(&["a", "c"])).unwrap();
        op.look_again().unwrap();
        assert_eq!((op.writes.does, left(&op)), (Does::Edits, vec![field("b", json!(1), 3)]));
        op.pending.drop_fields(&names(&["b"])).unwrap();
        op.look_again().unwrap();
        assert_eq!((op.writes.does, left(&op)), (Does::Nothing, Vec::new()));
    }

    #[test]
    fn nothing_is_left_of_an_op_that_lost_all_whatever_it_did() {
        for kind in [OpKind::Create, OpKind::Update, OpKind::Replace, OpKind::Delete] {
            let said = if kind == OpKind::Delete { json!({}) } else { json!({"a": 1}) };
            let mut op = tail_op(3, kind, said);
            op.pending.cleared = names(&["b"]);
            op.pending.empty();
            op.look_again().unwrap();
            assert_eq!((op.writes.does, left(&op)), (Does::Nothing, Vec::new()), "{kind}");
        }
    }

    #[test]
    fn a_creation_that_lost_its_fields_still_makes_the_record() {
        let mut op = tail_op(3, OpKind::Create, json!({"a": 1}));
        op.pending.drop_fields(&names(&["a"])).unwrap();
        op.look_again().unwrap();
        assert_eq!((op.writes.does, left(&op)), (Does::Creates, Vec::new()));
    }

    #[test]
    fn some_fields_or_all_of_an_op_get_a_later_stamp_and_a_clock_that_was_ahead_takes_all_back() {
        let mut op = tail_op(3, OpKind::Update, json!({"a": 1, "b": 1}));
        op.pending.raise(&names(&["a"]), Hlc::from_bits(9), None).unwrap();
        op.look_again().unwrap();
        assert_eq!(left(&op), [field("a", json!(1), 9), field("b", json!(1), 3)]);
        assert_eq!(
            (op.pending.greatest().edited_at, op.pending.stamp().edited_at),
            (Hlc::from_bits(9), Hlc::from_bits(3))
        );
        op.pending.raise(&[], Hlc::from_bits(12), None).unwrap();
        op.look_again().unwrap();
        assert_eq!(left(&op), [field("a", json!(1), 12), field("b", json!(1), 12)]);
        op.pending.raise(&names(&["a"]), Hlc::from_bits(15), None).unwrap();
        op.pending.lower(Hlc::from_bits(2));
        op.look_again().unwrap();
        assert_eq!(left(&op), [field("a", json!(1), 2), field("b", json!(1), 2)]);
    }

    #[test]
    fn an_upcaster_gets_what_is_left_and_what_it_makes_has_the_stamp_of_the_op() {
        let mut op = tail_op(3, OpKind::Update, json!({"old": 1, "b": 1}));
        op.pending.drop_fields(&names(&["b"])).unwrap();
        op.pending.raise(&names(&["old"]), Hlc::from_bits(9), Some(&fields(json!({"old": 2})))).unwrap();
        op.pending.turn(Upcast { schema_version: 2, fields: fields(json!({"new": 2})).to_json() }).unwrap();
        op.look_again().unwrap();
        assert_eq!(left(&op), [field("new", json!(2), 3)]);
        op.pending.cleared = names(&["c", "d"]);
        op.pending.drop_fields(&names(&["c"])).unwrap();
        op.pending.raise(&names(&["new"]), Hlc::from_bits(9), None).unwrap();
        let again = fields(json!({"new": 3, "newer": 3})).to_json();
        op.pending.turn(Upcast { schema_version: 3, fields: again }).unwrap();
        op.look_again().unwrap();
        let expected = [field("d", json!(null), 3), field("new", json!(3), 9), field("newer", json!(3), 3)];
        assert_eq!(
            left(&op),
            expected,
            "what was raised stays so under the same name, what was dropped is gone"
        );
        op.pending.drop_fields(&names(&["d", "new", "newer"])).unwrap();
        op.look_again().unwrap();
        assert_eq!(op.writes.does, Does::Nothing);
    }
}
