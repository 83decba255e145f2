//! Rebase: what becomes of a record's tail when the server says something new of it.
//!
//! ```text
//!   tail ─► in flight, or given up without an answer?      left alone
//!           waits, is parked or dead?                      meets what is new since it was confirmed     ┐
//!           came back stale, or was refused?               meets what is new since its unit was planned ┘─► meet ─► policy
//!           then: nothing left of what waits?              ends
//! ```
//!
//! Invariants:
//! 1. A conflict is a write of ours that meets a write of somebody else that its author had not seen, whoever wins. What was seen is told
//!    by stamps: what is confirmed before and after, or what a unit was planned on. An ack judges nothing.
//! 2. All that meets is put on record; ops that go as one change make one conflict.
//! 3. What a policy decides is a decision, and an ordinary write: dropped, raised, brought back.
//! 4. What is decided here is applied to a copy of the tail by the same functions as the fold's.
//!
//! What it is not: which records an answer is about ([`super::answer`]), or who wins ([`policy`]).

mod fields;
mod found;
mod life;
mod meet;
mod policy;
mod raised;
mod settle;

use crate::entry::{Annulled, AnnulledReason, Decision, ItemIndex, Items, ParkScope};
use crate::fields::Fields;
use crate::names::RecordKey;
use crate::numbers::Version;
use crate::random::Randomness;
use crate::record::{Does, EditStamp, Registers, TailOp, fall_with};
use crate::schema::EntityRules;
use crate::time::Hlc;

/// A record's tail, what the server says of the record, and what is decided.
pub(super) struct Subject<'a> {
    pub(super) key: &'a RecordKey,
    pub(super) rules: &'a EntityRules,
    /// Oldest first. A number says which of them is meant.
    pub(super) ops: Vec<Op>,
    /// What the server has now.
    pub(super) after: Registers,
    pub(super) version: Version,
    /// Whether the server tells of the record for the first time in another life than the one that confirmed it: what it has there
    /// can be earlier than what was confirmed, and nobody had seen it all the same.
    pub(super) is_another_life: bool,
    pub(super) decisions: Vec<Decision>,
    /// The values of the decisions.
    pub(super) items: &'a mut Items,
    pub(super) random: &'a mut dyn Randomness,
}

/// An op of it.
pub(super) struct Op {
    pub(super) tail: TailOp,
    pub(super) standing: Standing,
    /// What its unit was planned on, if this answer sent it back. Others saw what was confirmed before.
    pub(super) since: Option<Registers>,
}

/// How an op stands while an answer is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It waits, or is parked: it can end by what is decided here.
    Waits,
    /// It is a dead letter, which stays listed until a person ends it.
    Dead,
    /// It has no answer yet, or a unit with it was given up.
    Unanswered,
    /// It has ended.
    Ended,
}

/// Decides what becomes of a record's tail. `before` is what is confirmed, with what this answer acked.
pub(super) fn rebase(subject: &mut Subject<'_>, before: &Registers) {
    subject.stay_above_own();
    let mut planned_on = Vec::new();
    for since in subject.ops.iter().filter_map(|op| op.since.as_ref()) {
        if !planned_on.contains(since) {
            planned_on.push(since.clone());
        }
    }
    for since in planned_on.into_iter().map(Some).chain([None]) {
        let meets = |op: &Op| matches!(op.standing, Standing::Waits | Standing::Dead) && op.since == since;
        subject.meet(&subject.which(meets), since.as_ref().unwrap_or(before));
    }
    subject.settle();
}

/// Has an op that says something of fields anew meet what is there: of these its author had seen nothing.
#[expect(clippy::too_many_arguments, reason = "a record, its tail and where decisions go")]
pub(super) fn meet_anew(
    key: &RecordKey,
    rules: &EntityRules,
    tail: Vec<TailOp>,
    number: usize,
    confirmed: &Registers,
    version: Version,
    names: &[String],
    items: &mut Items,
    random: &mut dyn Randomness,
) -> Vec<Decision> {
    if !confirmed.is_live() || names.is_empty() {
        return Vec::new();
    }
    let mut since = confirmed.clone();
    since.fields.retain(|name, _| !names.contains(name));
    since.floor = EditStamp::NEVER;
    let standing = |at| if at == number { Standing::Waits } else { Standing::Unanswered };
    let ops = tail.into_iter().enumerate().map(|(at, tail)| Op { tail, standing: standing(at), since: None });
    let (after, decisions) = (confirmed.clone(), Vec::new());
    let mut subject = Subject {
        key,
        rules,
        ops: ops.collect(),
        after,
        version,
        is_another_life: false,
        decisions,
        items,
        random,
    };
    subject.meet(&[number], &since);
    subject.settle();
    subject.decisions
}

impl Subject<'_> {
    #[expect(clippy::indexing_slicing, reason = "a number is of one of these ops")]
    fn op(&self, number: usize) -> &Op {
        &self.ops[number]
    }

    #[expect(clippy::indexing_slicing, reason = "a number is of one of these ops")]
    fn op_mut(&mut self, number: usize) -> &mut Op {
        &mut self.ops[number]
    }

    fn which(&self, is_one: impl Fn(&Op) -> bool) -> Vec<usize> {
        self.ops.iter().enumerate().filter(|(_, op)| is_one(op)).map(|(number, _)| number).collect()
    }

    /// Returns whether a stamp is one that an op of ours has, or had when it was made. Another copy of this book may have given the op
    /// another one, with another value.
    fn is_own(&self, stamp: EditStamp) -> bool {
        let own = self.ops.iter().map(|op| &op.tail).find(|op| op.op.id == stamp.op);
        own.is_some_and(|op| {
            let at = stamp.edited_at;
            let raised = || op.pending.raised.iter().any(|(_, raised)| *raised == at);
            at == op.pending.edited_at || at == op.content.edited_at || raised()
        })
    }

    fn item(&mut self, fields: &Fields) -> ItemIndex {
        self.items.add_fields(&fields.to_json(), self.random)
    }

    /// Has an op wait until a person chooses.
    fn park(&mut self, number: usize) {
        let scope = ParkScope::Op(self.op(number).tail.op.id);
        let decision = Decision::Parked { scope, code: "conflict".to_owned() };
        if !self.decisions.contains(&decision) {
            self.decisions.push(decision);
        }
    }

    /// All that ops say is lost.
    fn lose_whole(&mut self, ops: &[usize]) {
        ops.iter().rev().for_each(|number| self.lose(*number));
    }

    /// All that an op says is lost: it ends, but a dead letter stays listed. With a deletion falls what later creations took away by its
    /// stamp, and what dead letters beneath it say: what a person deleted must not show again.
    fn lose(&mut self, number: usize) {
        let Op { tail, standing, .. } = self.op(number);
        let (op, standing, deletes) = (tail.op, *standing, tail.deletes());
        let stay = self.ops.iter().filter(|other| other.standing != Standing::Ended);
        for (falls, names) in fall_with(stay.map(|op| &op.tail.pending), &[op]) {
            let at = self.which(|other| other.tail.op == falls);
            at.into_iter().for_each(|at| self.drop_fields(at, &names));
        }
        let is_beneath = |other: &Op| {
            let says = matches!(other.tail.writes.does, Does::Creates | Does::Edits);
            other.standing == Standing::Dead && other.tail.op.place < op.place && says
        };
        let beneath = if deletes { self.which(is_beneath) } else { Vec::new() };
        beneath.into_iter().for_each(|earlier| self.drop_fields(earlier, &[]));
        if standing != Standing::Dead {
            self.op_mut(number).standing = Standing::Ended;
            self.decisions.push(Decision::Superseded { key: self.key.clone(), op });
        } else if self.op(number).tail.writes.does != Does::Nothing {
            self.drop_fields(number, &[]);
        }
    }

    fn annul(&mut self, numbers: &[usize], reason: AnnulledReason) {
        numbers.iter().for_each(|number| self.op_mut(*number).standing = Standing::Ended);
        let ops = numbers.iter().map(|number| self.op(*number).tail.op).collect();
        self.decisions.push(Decision::Annulled(Annulled { key: self.key.clone(), ops, reason }));
    }

    /// Takes fields from an op; all that it says, if none is named.
    fn drop_fields(&mut self, number: usize, names: &[String]) {
        let op = &mut self.op_mut(number).tail;
        op.drop_fields(names);
        let op = op.op;
        self.decisions.push(Decision::Dropped { key: self.key.clone(), op, fields: names.to_vec() });
    }

    /// Gives fields of an op a later stamp, and values in place of its own; all of it, if none is named.
    fn raise(&mut self, number: usize, names: &[String], edited_at: Hlc, values: Option<&Fields>) {
        let op = &mut self.op_mut(number).tail;
        let before = op.writes.stamp;
        op.raise(names, edited_at, values);
        let (op, after) = (op.op, op.writes.stamp);
        self.ops.iter_mut().for_each(|later| later.tail.follow_deletion(before, after));
        let values = values.map(|values| self.item(values));
        let (key, fields) = (self.key.clone(), names.to_vec());
        self.decisions.push(Decision::Raised { key, op, fields, edited_at, values });
    }

    /// Has an edit bring the record back from a deletion, as its author read it.
    fn bring_back(&mut self, number: usize, read: Fields) {
        let item = self.item(&read);
        let op = &mut self.op_mut(number).tail;
        op.bring_back(read);
        let op = op.op;
        self.decisions.push(Decision::BroughtBack { key: self.key.clone(), op, read: item });
    }
}

#[cfg(test)]
mod tests;
