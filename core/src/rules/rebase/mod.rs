//! Rebases a record's tail: adapts its ops to a new state of the record at the server.
//!
//! ```text
//!   tail ─► in flight, or abandoned without an answer?      left alone
//!           waits, is parked or dead?                      meets what is new since it was confirmed     ┐
//!           came back stale, or was refused?               meets what is new since its unit was planned ┘─► meet ─► policy
//!           then: nothing left of what waits?              ends
//! ```
//!
//! Invariants:
//! 1. A conflict is a local write that meets a write of somebody else that its author had not read,
//!    whoever wins. Stamps show what the author had read: those of the record confirmed before, or
//!    of the record that the unit was planned on. An ack makes no conflict.
//! 2. Every conflict is recorded. Ops that meet together make one conflict. An earlier op that
//!    loses other values makes a further conflict.
//! 3. The result of a policy is made of ordinary decisions: drop, raise, bring back.
//! 4. Each decision is applied at once to a copy of the tail, by the functions that the fold uses.
//!
//! What it does not do: find the records of an answer ([`super::answer`]). [`policy`] decides who
//! wins.

mod empty_ops;
mod fields;
mod found;
mod life;
mod meet;
mod policy;
mod raised;

use crate::entry::{Cancelled, CancelledReason, Decision, ItemIndex, Items, ParkScope};
use crate::fields::Fields;
use crate::names::RecordKey;
use crate::numbers::Version;
use crate::op::OpKind;
use crate::random::Randomness;
use crate::record::{Does, EditStamp, Registers, TailOp, fall_with};
use crate::schema::EntityRules;
use crate::time::Hlc;

/// A record's tail, the record at the server, and the decisions about the tail.
pub(super) struct Subject<'a> {
    pub(super) key: &'a RecordKey,
    pub(super) rules: &'a EntityRules,
    /// The ops of the tail, oldest first. A `number` is an index of this list.
    pub(super) ops: Vec<Op>,
    /// The record as the server has it now.
    pub(super) after: Registers,
    pub(super) version: Version,
    /// Whether another server, or another epoch of the server, sends the record for the first
    /// time. Its writes can have earlier stamps than the confirmed record, and still no author
    /// here had read them.
    pub(super) is_first_of_epoch: bool,
    pub(super) decisions: Vec<Decision>,
    /// The values of `decisions`.
    pub(super) items: &'a mut Items,
    pub(super) random: &'a mut dyn Randomness,
}

/// An op of the tail.
pub(super) struct Op {
    pub(super) tail: TailOp,
    pub(super) standing: OpStanding,
    /// The record that the op's unit was planned on, if this answer sent the unit back. The author
    /// of any other op had read the record that was confirmed before.
    pub(super) since: Option<Registers>,
    /// Whether that record is of another server, or another epoch of the server, and an earlier
    /// page brought the present one.
    pub(super) of_former_epoch: bool,
}

/// How an op stands while an answer is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpStanding {
    /// The op waits or is parked. A decision can end it.
    Waits,
    /// The op is a dead letter. It stays listed until a person ends it.
    Dead,
    /// The op is unanswered, or a unit with it was abandoned.
    Unanswered,
    /// The op has ended.
    Ended,
}

/// Rebases a record's tail. `before` is the confirmed record with the acks of this answer.
pub(super) fn rebase(subject: &mut Subject<'_>, before: &Registers) {
    subject.stay_above_own();
    let mut planned_on = Vec::new();
    for op in &subject.ops {
        let on = (op.since.clone(), op.of_former_epoch);
        if on.0.is_some() && !planned_on.contains(&on) {
            planned_on.push(on);
        }
    }
    planned_on.push((None, false));
    let is_first_of_epoch = subject.is_first_of_epoch;
    for (since, former) in planned_on {
        let meets = |op: &Op| {
            let is_left = matches!(op.standing, OpStanding::Waits | OpStanding::Dead);
            is_left && op.since == since && op.of_former_epoch == former
        };
        subject.is_first_of_epoch = is_first_of_epoch || former;
        subject.meet(&subject.which(meets), since.as_ref().unwrap_or(before));
    }
    subject.is_first_of_epoch = is_first_of_epoch;
    subject.end_empty_ops();
}

/// Makes an op meet the confirmed record in the fields `names`, which an upcaster gave the op. Its
/// author had not read the record's values of these fields.
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
    let standing = |at| if at == number { OpStanding::Waits } else { OpStanding::Unanswered };
    let ops = tail.into_iter().enumerate().map(|(at, tail)| Op {
        tail,
        standing: standing(at),
        since: None,
        of_former_epoch: false,
    });
    let (after, decisions) = (confirmed.clone(), Vec::new());
    let mut subject = Subject {
        key,
        rules,
        ops: ops.collect(),
        after,
        version,
        is_first_of_epoch: false,
        decisions,
        items,
        random,
    };
    subject.meet(&[number], &since);
    // The other fields of an op whose unit was abandoned have not met what is new since: they meet
    // it when the op is answered, and the op has to be there then.
    if subject.op(number).tail.pending.abandoned.is_none() {
        subject.end_empty_ops();
    }
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

    /// Returns whether a stamp is own: an op of the tail has it, or had it when it was made. A copy
    /// of this book can have given the same op another stamp, with another value. That stamp is not
    /// own.
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

    /// Parks an op until a person chooses.
    fn park(&mut self, number: usize) {
        let scope = ParkScope::Op(self.op(number).tail.op.id);
        let decision = Decision::Parked { scope, code: "conflict".to_owned() };
        if !self.decisions.contains(&decision) {
            self.decisions.push(decision);
        }
    }

    /// Loses ops as a whole, the last of them first.
    fn lose_whole(&mut self, ops: &[usize]) {
        ops.iter().rev().for_each(|number| self.lose(*number));
    }

    /// Loses an op as a whole. The op is superseded, but a dead letter is dropped, because it stays
    /// listed. If the op is a deletion, later creations lose the fields that they remove by its
    /// stamp, and dead letters before it are dropped: a record that a person deleted must not show
    /// again.
    fn lose(&mut self, number: usize) {
        let Op { tail, standing, .. } = self.op(number);
        let (op, standing, deletes) = (tail.op, *standing, tail.deletes());
        // Only a deletion has later creations that lose fields, and a tail may be long.
        if tail.kind == OpKind::Delete {
            let stay = self.ops.iter().filter(|other| other.standing != OpStanding::Ended);
            for (falls, names) in fall_with(stay.map(|op| &op.tail.pending), &[op]) {
                let at = self.which(|other| other.tail.op == falls);
                at.into_iter().for_each(|at| self.drop_fields(at, &names));
            }
        }
        let is_beneath = |other: &Op| {
            let says = matches!(other.tail.writes.does, Does::Creates | Does::Edits);
            other.standing == OpStanding::Dead && other.tail.op.place < op.place && says
        };
        let beneath = if deletes { self.which(is_beneath) } else { Vec::new() };
        beneath.into_iter().for_each(|earlier| self.drop_fields(earlier, &[]));
        if standing != OpStanding::Dead {
            self.op_mut(number).standing = OpStanding::Ended;
            self.decisions.push(Decision::Superseded { key: self.key.clone(), op });
        } else if self.op(number).tail.writes.does != Does::Nothing {
            self.drop_fields(number, &[]);
        }
    }

    fn cancel(&mut self, numbers: &[usize], reason: CancelledReason) {
        numbers.iter().for_each(|number| self.op_mut(*number).standing = OpStanding::Ended);
        let ops = numbers.iter().map(|number| self.op(*number).tail.op).collect();
        self.decisions.push(Decision::Cancelled(Cancelled { key: self.key.clone(), ops, reason }));
    }

    /// Drops fields of an op, or the whole op if `names` is empty.
    fn drop_fields(&mut self, number: usize, names: &[String]) {
        let op = &mut self.op_mut(number).tail;
        op.drop_fields(names);
        let op = op.op;
        self.decisions.push(Decision::Dropped {
            key: self.key.clone(),
            op,
            fields: names.to_vec(),
        });
    }

    /// Raises fields of an op, or the whole op if `names` is empty. `values` replace the op's own
    /// values.
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

    /// Makes an edit bring the record back from a deletion, with all fields that its author had
    /// read.
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
