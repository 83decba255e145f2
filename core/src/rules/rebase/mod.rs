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

use crate::entry::{Annulled, AnnulledReason, Decision, Items, ParkScope};
use crate::fields::{Fields, InvalidFields};
use crate::names::RecordKey;
use crate::numbers::Version;
use crate::random::Randomness;
use crate::record::{EditStamp, Registers, TailOp, fall_with};
use crate::schema::EntityRules;
use crate::time::Hlc;

/// A record's tail, and what the server says of the record.
pub(super) struct Subject<'a> {
    pub(super) key: &'a RecordKey,
    pub(super) rules: &'a EntityRules,
    /// Oldest first. A number says which of them is meant.
    pub(super) ops: Vec<Op>,
    /// What is confirmed, with what this answer acked.
    pub(super) before: Registers,
    /// What the server has now.
    pub(super) after: Registers,
    pub(super) version: Version,
    /// What units were planned on that were stale or refused by this answer.
    pub(super) planned_on: Vec<Registers>,
    /// Whether the server tells of the record for the first time in another life than the one that confirmed it: what it has there
    /// can be earlier than what was confirmed, and nobody had seen it all the same.
    pub(super) is_another_life: bool,
}

/// An op of it.
pub(super) struct Op {
    pub(super) tail: TailOp,
    pub(super) standing: Standing,
}

/// How an op stands while an answer is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It waits, or is parked.
    Waits,
    /// It is a dead letter.
    Dead,
    /// It was sent back by this answer: the place of what it was planned on, and whether it is a dead letter now.
    SentBack(usize, bool),
    /// It has no answer yet, or a unit with it was given up.
    Unanswered,
    /// It has ended.
    Ended,
}

impl Standing {
    /// Returns whether the op can end by what is decided here: a dead letter stays listed until a person ends it.
    const fn waits(self) -> bool {
        matches!(self, Self::Waits | Self::SentBack(_, false))
    }

    const fn is_dead(self) -> bool {
        matches!(self, Self::Dead | Self::SentBack(_, true))
    }
}

/// Where decisions and their values go.
pub(super) struct Output<'a> {
    pub(super) decisions: Vec<Decision>,
    pub(super) items: &'a mut Items,
    pub(super) random: &'a mut dyn Randomness,
    pub(super) conflicts: u32,
    pub(super) parked: bool,
}

impl Output<'_> {
    pub(super) fn park(&mut self, scope: ParkScope, code: &str) {
        self.parked = true;
        let decision = Decision::Parked { scope, code: code.to_owned() };
        if !self.decisions.contains(&decision) {
            self.decisions.push(decision);
        }
    }

    fn fields(&mut self, fields: &Fields) -> crate::entry::ItemIndex {
        self.items.add_fields(&fields.to_json(), self.random)
    }
}

/// Decides what becomes of a record's tail.
///
/// # Errors
/// [`InvalidFields`] if stored text was damaged.
pub(super) fn rebase(subject: &mut Subject<'_>, out: &mut Output<'_>) -> Result<(), InvalidFields> {
    subject.stay_above_own(out)?;
    for (number, since) in std::mem::take(&mut subject.planned_on).iter().enumerate() {
        let is_of = |op: &Op| matches!(op.standing, Standing::SentBack(of, _) if of == number);
        let ops = subject.which(is_of);
        subject.meet(&ops, since, out)?;
    }
    let ops = subject.which(|op| matches!(op.standing, Standing::Waits | Standing::Dead));
    let before = std::mem::take(&mut subject.before);
    subject.meet(&ops, &before, out)?;
    subject.before = before;
    subject.settle(out)
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
) -> Result<Vec<Decision>, InvalidFields> {
    let mut since = confirmed.clone();
    since.fields.retain(|name, _| !names.contains(name));
    since.floor = Default::default();
    let ops = tail.into_iter().enumerate().map(|(at, tail)| {
        let standing = if at == number { Standing::Waits } else { Standing::Unanswered };
        Op { tail, standing }
    });
    let (before, after, planned_on) = (confirmed.clone(), confirmed.clone(), Vec::new());
    let is_another_life = false;
    let mut subject =
        Subject { key, rules, ops: ops.collect(), before, after, version, planned_on, is_another_life };
    let mut out = Output { decisions: Vec::new(), items, random, conflicts: 0, parked: false };
    if confirmed.is_live() && !names.is_empty() {
        subject.meet(&[number], &since, &mut out)?;
        subject.settle(&mut out)?;
    }
    Ok(out.decisions)
}

impl Subject<'_> {
    #[expect(clippy::indexing_slicing, reason = "a number is of one of these ops")]
    fn op(&self, number: usize) -> &Op {
        &self.ops[number]
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

    /// Ends an op of which nothing is left; what later creations took away by the stamp of a deletion falls with it.
    fn supersede(&mut self, number: usize, out: &mut Output<'_>) -> Result<(), InvalidFields> {
        let Some(op) = self.ops.get_mut(number) else { return Ok(()) };
        op.standing = Standing::Ended;
        let ended = op.tail.op;
        let waiting = self.ops.iter().filter(|op| op.standing != Standing::Ended || op.tail.op == ended);
        for (op, names) in fall_with(waiting.map(|op| &op.tail.pending), &[ended]) {
            let number = self.ops.iter().position(|other| other.tail.op == op);
            number.map_or(Ok(()), |number| self.drop_fields(number, &names, out))?;
        }
        out.decisions.push(Decision::Superseded { key: self.key.clone(), op: ended });
        Ok(())
    }

    fn annul(&mut self, numbers: &[usize], reason: AnnulledReason, out: &mut Output<'_>) {
        let mut ops = Vec::new();
        for number in numbers {
            if let Some(op) = self.ops.get_mut(*number) {
                op.standing = Standing::Ended;
                ops.push(op.tail.op);
            }
        }
        if !ops.is_empty() {
            out.decisions.push(Decision::Annulled(Annulled { key: self.key.clone(), ops, reason }));
        }
    }

    /// Takes fields from an op; all that it says, if none is named.
    fn drop_fields(
        &mut self,
        number: usize,
        names: &[String],
        out: &mut Output<'_>,
    ) -> Result<(), InvalidFields> {
        let key = self.key.clone();
        let Some(op) = self.ops.get_mut(number) else { return Ok(()) };
        if names.is_empty() {
            op.tail.pending.empty();
        } else {
            op.tail.pending.drop_fields(names)?;
        }
        op.tail.look_again()?;
        out.decisions.push(Decision::Dropped { key, op: op.tail.op, fields: names.to_vec() });
        Ok(())
    }

    /// Gives fields of an op a later stamp, and values in place of its own; all of it, if none is named.
    fn raise(
        &mut self,
        number: usize,
        names: &[String],
        edited_at: Hlc,
        values: Option<&Fields>,
        out: &mut Output<'_>,
    ) -> Result<(), InvalidFields> {
        let key = self.key.clone();
        let Some(op) = self.ops.get_mut(number) else { return Ok(()) };
        let before = op.tail.pending.stamp();
        op.tail.pending.raise(names, edited_at, values)?;
        op.tail.look_again()?;
        let (after, op) = (op.tail.pending.stamp(), op.tail.op);
        let values = values.map(|values| out.fields(values));
        out.decisions.push(Decision::Raised { key, op, fields: names.to_vec(), edited_at, values });
        for later in self.ops.iter_mut().filter(|_| before != after) {
            later.tail.pending.follow_deletion(before, after);
            later.tail.look_again()?;
        }
        Ok(())
    }

    /// Has an edit bring the record back from a deletion, as its author read it.
    fn bring_back(
        &mut self,
        number: usize,
        read: &Fields,
        out: &mut Output<'_>,
    ) -> Result<(), InvalidFields> {
        let key = self.key.clone();
        let Some(op) = self.ops.get_mut(number) else { return Ok(()) };
        op.tail.pending.brings_back = Some(read.to_json());
        op.tail.look_again()?;
        let read = out.fields(read);
        out.decisions.push(Decision::BroughtBack { key, op: op.tail.op, read });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
