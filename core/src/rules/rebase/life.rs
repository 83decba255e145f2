//! One side deleted the record, or both did.
//!
//! | who wins → | theirs | ours | a person is to choose |
//! |---|---|---|---|
//! | edits against a deletion | end | go with all that their author read, raised above it | … and parked |
//! | a deletion against edits | ends, with our earlier deletions | raised above theirs | … and parked |
//! | a deletion against a deletion | – | what ours covers ends on record | – |
//!
//! Invariants:
//! 1. Nothing is sent with a stamp below a deletion that it goes over: others would take the deletion for the last word there.
//!
//! What it is not: single fields ([`super::fields`]).

use super::found::Found;
use super::policy::{Two, settle_life};
use super::{Standing, Subject};
use crate::entry::Winner;
use crate::fields::Fields;
use crate::ids::OpId;
use crate::record::{Does, EditStamp, Register, Registers};

impl Subject<'_> {
    /// One side deleted the record.
    pub(super) fn meet_in_life(&mut self, ops: &[usize], since: &Registers) {
        let Some(last) = ops.last().copied() else { return };
        let deletes = self.op(last).tail.deletes();
        let greatest = ops.iter().map(|number| self.op(*number).tail.writes.greatest());
        let ours_at = greatest.max().unwrap_or_default();
        let two = Two { ours: ours_at, theirs: self.after.stamp };
        let (base, theirs) = (since.image(), self.after.image());
        let said = self.said_by(ops);
        let mine = (!deletes).then_some(&said);
        let mut settled = settle_life(self.key, self.rules, [base.as_ref(), mine, theirs.as_ref()], two);
        let is_another = |op: &super::Op| op.tail.writes.does != Does::Creates;
        if deletes && two.later() == Winner::Remote && self.ops.iter().skip(last + 1).any(is_another) {
            // Our last word is another one.
            settled.winner = Winner::Remote;
        }
        let winner = settled.winner;
        let found = Found {
            winner,
            base: base.unwrap_or_default(),
            local: if deletes { Fields::new() } else { said },
            remote: theirs.unwrap_or_default(),
            functions: settled.by.into_iter().collect(),
            ..self.nothing_found()
        };
        if deletes && winner == Winner::Local {
            self.record_covered(ops, since);
        }
        self.record(ops, found);
        if winner == Winner::Remote {
            return self.lose_whole(ops);
        }
        if !deletes {
            self.read_again(ops, since);
        }
        let winners = if deletes { std::slice::from_ref(&last) } else { ops };
        for number in winners {
            self.raise_what_stands(*number, since, winner == Winner::Undecided);
        }
        if winner == Winner::Undecided {
            self.park(last);
        }
    }

    /// Returns what ops name, the later ones over the earlier.
    fn said_by(&self, ops: &[usize]) -> Fields {
        let mut said = Fields::new();
        ops.iter().for_each(|number| said.compose(self.op(*number).tail.named.clone()));
        said
    }

    /// Two deletions are no conflict. If ours stays, edits of ours that it covers end on record: they must not go over theirs before ours
    /// does, and a person can take ours back.
    pub(super) fn lose_covered(&mut self, ops: &[usize], since: &Registers) {
        let stays = ops.last().is_some_and(|last| self.op(*last).tail.writes.stamp > self.after.stamp);
        let is_edit =
            |number: &usize| matches!(self.op(*number).tail.writes.does, Does::Edits | Does::Creates);
        let covered: Vec<_> = ops.iter().copied().filter(|number| stays && is_edit(number)).collect();
        if covered.is_empty() {
            return;
        }
        let (base, local) = (since.image().unwrap_or_default(), self.said_by(&covered));
        let found = Found { winner: Winner::Remote, base, local, ..self.nothing_found() };
        self.record(&covered, found);
        self.lose_whole(&covered);
    }

    /// A deletion of ours behind which we made the record anew may go by itself, and take along what they wrote: that is on record.
    pub(super) fn record_inner_deletion(&mut self, ops: &[usize], since: &Registers, news: &[String]) {
        let mut earlier = ops.iter().rev().skip(1).copied();
        let Some(deletion) = earlier.find(|number| self.op(*number).tail.deletes()) else { return };
        let stamp = self.op(deletion).tail.writes.stamp;
        // What we say otherwise there is on record by itself.
        let said = |op: &usize, name: &str| {
            let word = self.op(*op).tail.writes.fields.get(name);
            *op > deletion && word.is_some_and(|word| word.value != *self.after.value_of(name))
        };
        let falls = |name: &&String| {
            self.after.stamp_of(name) < stamp
                && !self.after.value_of(name).is_null()
                && !ops.iter().any(|op| said(op, name))
        };
        if news.iter().any(|name| falls(&name)) {
            let (base, remote) = (since.image().unwrap_or_default(), self.after.image().unwrap_or_default());
            self.record(&[deletion], Found { base, remote, ..self.nothing_found() });
        }
    }

    /// Raises what an op says below theirs above that; all of it, where a person is to choose. What a later op of ours covers that stays
    /// where it is, and what had lost before, stays below it, and ends.
    fn raise_what_stands(&mut self, number: usize, since: &Registers, raises_all: bool) {
        let (theirs, writes) = (self.to_go_over(number), &self.op(number).tail.writes);
        let is_below = |field: &Register| raises_all || field.stamp < theirs;
        let below = writes.fields.iter().filter(|(_, field)| is_below(field));
        let had_lost = |name: &str, field: &Register| field.stamp <= since.stamp_of(name);
        let (ends, stays): (Vec<_>, Vec<_>) =
            below.partition(|(name, field)| had_lost(name, field) || self.is_covered_for_good(number, name));
        let [ends, stays] =
            [ends, stays].map(|names| names.into_iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
        let is_whole = ends.len() + stays.len() == writes.fields.len();
        let stands =
            if writes.fields.is_empty() { raises_all || writes.stamp < theirs } else { !stays.is_empty() };
        let above = self.above(number, &stays, theirs);
        if !ends.is_empty() && (stands || !is_whole) {
            self.drop_fields(number, &ends);
        }
        if stands {
            self.raise(number, if is_whole { &[] } else { &stays }, above, None);
            // What its author read comes along, with a stamp of its own.
            self.keep_order(number, None, above, since);
        }
    }

    /// Returns whether a later op of ours covers a field and is not raised with it: a deletion, or one that may be at the server.
    fn is_covered_for_good(&self, number: usize, name: &str) -> bool {
        self.ops.iter().skip(number + 1).any(|later| match later.standing {
            Standing::Waits => later.tail.deletes(),
            Standing::Unanswered => later.tail.deletes() || later.tail.writes.fields.contains_key(name),
            Standing::Dead | Standing::Ended => false,
        })
    }

    /// Returns what an op has to be above to go over theirs. What a later edit of ours brings back without a dead letter stands right above
    /// their deletion, and must not pass for a later word than that.
    fn to_go_over(&self, number: usize) -> EditStamp {
        let theirs = self.after.stamp;
        let is_left_out = self.after.is_deleted() && self.op(number).standing == Standing::Dead;
        if is_left_out { theirs.next(OpId::from_bytes([u8::MAX; 16])) } else { theirs }
    }

    /// Edits stand above a deletion: each goes with all that its author read, but for refused values.
    pub(super) fn read_again(&mut self, ops: &[usize], since: &Registers) {
        let mut read = since.clone();
        for number in ops {
            let op = self.op(*number);
            let (at, is_edit) = (read.with([&op.tail.writes]), op.tail.writes.does == Does::Edits);
            let image = at.image().unwrap_or_default();
            if op.standing != Standing::Dead {
                read = at;
            }
            if is_edit {
                self.bring_back(*number, image);
            }
        }
    }
}
