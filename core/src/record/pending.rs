//! One op of a record's tail, as it is stored: which op it is, how it stands, and what of it is left to say.
//!
//! What the op says is in the log at its place. Here is only what differs from that: what it names after policies, people and
//! upcasters, the fields that have another stamp, and those that it takes away without naming them.
//!
//! Invariants:
//! 1. An op has one stamp when it is made, above every register of the record that its author read.
//!
//! What it is not: what is left as writes, and how that changes ([`super::TailOp`]), or what becomes of the op ([`crate::rules`]).

use super::registers::{Registers, Writes};
use super::stamp::EditStamp;
use crate::codec::{Decode, Encode};
use crate::entry::PlannedOp;
use crate::fields::{FieldsJson, InvalidFields};
use crate::ids::{OpId, UnitId};
use crate::numbers::Version;
use crate::op::{OpKind, OpPlace};
use crate::rows::Confirmed;
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
    /// Whether nothing is left of it.
    pub emptied: bool,
    /// What it names, where that is not what the log says.
    pub named: Option<FieldsJson>,
    /// The fields that it takes away without naming them: those that its author read and a replace or a new creation leaves out.
    pub cleared: Vec<String>,
    /// The stamp of these if it is not the op's: that of the deletion of ours that the creation stands on.
    pub cleared_at: Option<EditStamp>,
    /// The fields whose stamp was raised above that of others of the op.
    pub raised: Vec<(String, Hlc)>,
    /// What its author read of the record, if it brings the record back from a deletion.
    pub brings_back: Option<FieldsJson>,
    /// The schema version of what it names, if it was turned into a later one than that under which it was made.
    pub upcast: Option<u32>,
    /// The units that carried it and were given up without knowing whether they took effect.
    pub attempts: Vec<UnitId>,
    /// What the first of these units was made for.
    pub given_up: Option<SentFor>,
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
}

/// Joins ops of our own that the server took since to what a unit was made for: its author had seen them. The version stays, since the
/// server is to tell what it has.
///
/// # Errors
/// [`InvalidFields`] if stored text was damaged.
pub fn take_own(made_for: &mut Option<Confirmed>, own: &[Writes]) -> Result<(), InvalidFields> {
    let record = made_for.as_ref().map_or_else(|| Ok(Registers::default()), Confirmed::registers)?;
    let version = made_for.as_ref().map(|record| record.version).unwrap_or_default();
    *made_for = Confirmed::of(&record.with(own), version);
    Ok(())
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
            emptied: false,
            named: None,
            cleared: Vec::new(),
            cleared_at: None,
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
    use crate::record::test_ops::{fields, op_id, tail_op, there};

    #[test]
    fn what_a_unit_was_made_for_gets_our_own_later_changes_and_keeps_its_version() {
        let known = there(&[("a", json!(0), 99, 1), ("b", json!(0), 99, 1)]);
        let mut made_for = Confirmed::of(&known, Version::new(4));
        take_own(&mut made_for, &[tail_op(7, OpKind::Update, json!({"a": 7})).writes]).unwrap();
        let record = made_for.unwrap();
        let seen = record.registers().unwrap();
        assert_eq!(seen.image(), Some(fields(json!({"a": 7, "b": 0}))));
        assert_eq!(seen.stamp_of("a"), EditStamp { edited_at: Hlc::from_bits(7), op: op_id(7) });
        assert_eq!(record.version, Version::new(4));
    }
}
