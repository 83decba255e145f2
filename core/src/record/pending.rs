//! An op of a record's tail as it is stored: its place, its state, and what is left of it to send.
//!
//! The log has the op's fields at its place. [`Pending`] has only the differences: the fields that
//! policies, people and upcasters gave or left to the op, the fields with another stamp, and the
//! fields that the op removes without naming them.
//!
//! Invariants:
//! 1. A new op has one stamp. The stamp is above every register of the record that its author had
//!    read.
//!
//! What it does not do: give or change the writes of the op ([`super::TailOp`]), or decide how the
//! op ends ([`crate::rules`]).

use std::collections::BTreeSet;

use super::registers::{Registers, Writes};
use super::stamp::EditStamp;
use crate::codec::{Decode, Encode};
use crate::entry::PlannedOp;
use crate::fields::{FieldsJson, InvalidFields};
use crate::ids::{OpId, UnitId};
use crate::names::Actor;
use crate::numbers::Version;
use crate::op::{OpKind, OpPlace};
use crate::rows::Confirmed;
use crate::time::Hlc;

/// An op that has not ended.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Pending {
    /// The op's id.
    pub op: OpId,
    /// The op's place in the log.
    pub place: OpPlace,
    /// The kind of the op.
    pub kind: OpKind,
    /// The time of the op's stamp. A raise or a restamp of the whole op changes it.
    pub edited_at: Hlc,
    /// How often a unit with the op was sent back as stale or ahead.
    pub stale: u32,
    /// Whether the op is a dead letter.
    pub dead: bool,
    /// Whether the op was dropped as a whole.
    pub emptied: bool,
    /// The fields that the op names, if they are not the fields in the log.
    pub named: Option<FieldsJson>,
    /// The fields that the op removes without naming them. Its author had read them, and the
    /// replace or the new creation leaves them out.
    pub cleared: Vec<String>,
    /// The stamp of the `cleared` fields if it is not the op's own. A creation over a deletion of
    /// its tail has the stamp of that deletion here.
    pub cleared_at: Option<EditStamp>,
    /// The fields that were raised alone, each with the time of its stamp.
    pub raised: Vec<(String, Hlc)>,
    /// The fields that the op's author had read, if the op brings the record back from a deletion.
    pub brings_back: Option<FieldsJson>,
    /// The schema version of the named fields, if the op was upcast.
    pub upcast: Option<u32>,
    /// The actor whose credentials send the op, if it was handed over.
    pub sent_by: Option<Actor>,
    /// The units with this op that were abandoned or became dead letters.
    pub earlier_units: Vec<UnitId>,
    /// The state that the first abandoned unit was made for. It is `None` once the op met the
    /// record at the server.
    pub abandoned: Option<SentFor>,
}

/// The state that a unit was made for: the record as the server had it.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct SentFor {
    /// The record's version at the server.
    pub version: Option<Version>,
    /// The confirmed record; none if nothing was known of it.
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
}

/// Joins own ops, which the server has applied since, to the record that a unit was made for. The
/// unit's author had read these ops. The version stays, since only the server gives versions.
///
/// # Errors
/// [`InvalidFields`] if stored text was damaged.
pub fn join_own(made_for: &mut Option<Confirmed>, own: &[Writes]) -> Result<(), InvalidFields> {
    let record =
        made_for.as_ref().map_or_else(|| Ok(Registers::default()), Confirmed::registers)?;
    let version = made_for.as_ref().map(|record| record.version).unwrap_or_default();
    *made_for = Confirmed::of(&record.with(own), version);
    Ok(())
}

impl Pending {
    /// Makes an op that waits and was never sent.
    pub const fn new(op: OpId, place: OpPlace, kind: OpKind, edited_at: Hlc) -> Self {
        Self {
            op,
            place,
            kind,
            edited_at,
            stale: 0,
            dead: false,
            emptied: false,
            named: None,
            cleared: Vec::new(),
            cleared_at: None,
            raised: Vec::new(),
            brings_back: None,
            upcast: None,
            sent_by: None,
            earlier_units: Vec::new(),
            abandoned: None,
        }
    }

    /// Sets the version that an abandoned unit was made for to 0, if it was of a former server.
    pub fn await_confirmation(&mut self) {
        if let Some(sent) = &mut self.abandoned {
            sent.version = sent.version.map(|_| Version::default());
        }
    }

    /// Returns the op's own stamp. Fields can have another stamp (`raised`, `cleared_at`).
    pub const fn stamp(&self) -> EditStamp {
        EditStamp { edited_at: self.edited_at, op: self.op }
    }

    /// Returns the greatest stamp of the op.
    pub fn greatest(&self) -> EditStamp {
        let raised = self.raised.iter().map(|(_, edited_at)| *edited_at);
        EditStamp { edited_at: raised.fold(self.edited_at, Hlc::max), op: self.op }
    }
}

/// Returns the creations of a tail that lose their `cleared` fields because ops end, each with
/// these fields. A creation loses the fields that it removes by the stamp of a deletion when the
/// deletion ends.
pub fn fall_with<'a>(
    tail: impl Iterator<Item = &'a Pending> + Clone,
    ending: &[PlannedOp],
) -> Vec<(PlannedOp, Vec<String>)> {
    let ending: BTreeSet<_> = ending.iter().map(|op| op.id).collect();
    let is_ending = |pending: &&Pending| ending.contains(&pending.op);
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

/// Returns the dead letters before deletions that end without being sent. A deletion at the server
/// would stay above these dead letters. Without the deletion they would show a record that a person
/// deleted.
pub fn uncovered_by<'a>(
    tail: impl Iterator<Item = &'a Pending> + Clone,
    ending: &[PlannedOp],
) -> Vec<PlannedOp> {
    let ending: BTreeSet<_> = ending.iter().map(|op| op.id).collect();
    let is_ending = |pending: &&Pending| ending.contains(&pending.op);
    let deletions =
        tail.clone().filter(is_ending).filter(|op| op.kind == OpKind::Delete && !op.emptied);
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
    use crate::record::test_ops::{fields, op_id, tail_op, there};

    #[test]
    fn what_a_unit_was_made_for_gets_our_own_later_changes_and_keeps_its_version() {
        let known = there(&[("a", json!(0), 99, 1), ("b", json!(0), 99, 1)]);
        let mut made_for = Confirmed::of(&known, Version::new(4));
        join_own(&mut made_for, &[tail_op(7, OpKind::Update, json!({"a": 7})).writes]).unwrap();
        let record = made_for.unwrap();
        let seen = record.registers().unwrap();
        assert_eq!(seen.image(), Some(fields(json!({"a": 7, "b": 0}))));
        assert_eq!(seen.stamp_of("a"), EditStamp { edited_at: Hlc::from_bits(7), op: op_id(7) });
        assert_eq!(record.version, Version::new(4));
    }
}
