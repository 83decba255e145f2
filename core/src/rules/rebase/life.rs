//! Conflicts about a record's life: one side deleted the record, or both sides did.
//!
//! | who wins → | the server | the device | a person has to choose |
//! |---|---|---|---|
//! | local edits, remote deletion | the edits end | raised above the deletion, with all that their author had read | … and parked |
//! | local deletion, remote edits | the deletion ends, with the local ops before it | raised above the edits | … and parked |
//! | two deletions | – | the edits that the local deletion covers are recorded and end | – |
//!
//! Invariants:
//! 1. No write is sent over a deletion with a stamp below the deletion. On other devices the
//!    deletion would win.
//!
//! What it does not do: resolve single fields ([`super::fields`]).

use super::found::Found;
use super::policy::{StampPair, resolve_life};
use super::{OpStanding, Subject};
use crate::entry::Winner;
use crate::fields::Fields;
use crate::ids::OpId;
use crate::record::{Does, EditStamp, Register, Registers};

impl Subject<'_> {
    /// Resolves the record's life after one side deleted the record.
    pub(super) fn meet_in_life(&mut self, ops: &[usize], since: &Registers) {
        let Some(last) = ops.last().copied() else { return };
        let deletes = self.op(last).tail.deletes();
        let greatest = ops.iter().map(|number| self.op(*number).tail.writes.greatest());
        let local_at = greatest.max().unwrap_or_default();
        let stamps = StampPair { local: local_at, remote: self.after.stamp };
        let (base, remote) = (since.image(), self.after.image());
        let named = self.named_by(ops);
        let local = (!deletes).then_some(&named);
        let mut resolution =
            resolve_life(self.key, self.rules, [base.as_ref(), local, remote.as_ref()], stamps);
        let is_another = |op: &super::Op| op.tail.writes.does != Does::Creates;
        if deletes
            && stamps.later() == Winner::Remote
            && self.ops.iter().skip(last + 1).any(is_another)
        {
            // The tail goes on after the deletion, so the deletion is not the last local write.
            resolution.winner = Winner::Remote;
        }
        let winner = resolution.winner;
        let found = Found {
            winner,
            base: base.unwrap_or_default(),
            local: if deletes { Fields::new() } else { named },
            remote: remote.unwrap_or_default(),
            functions: resolution.by.into_iter().collect(),
            ..self.nothing_found()
        };
        if deletes && winner == Winner::Local {
            let (news, after) = (self.fields_of_others(since), self.after.clone());
            self.lose_writes(ops, since, |_, name, write| {
                write.stamp < after.stamp_of(name) && news.iter().any(|new| new == name)
            });
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

    /// Returns the fields that ops name. A later op replaces the values of an earlier op.
    fn named_by(&self, ops: &[usize]) -> Fields {
        let mut named = Fields::new();
        ops.iter().for_each(|number| named.compose(self.op(*number).tail.named.clone()));
        named
    }

    /// Records and ends the local edits that a local deletion covers, if it stays above the remote
    /// deletion. The edits must not be sent over the remote deletion before the local deletion, or
    /// after a person undoes the local deletion. The two deletions are no conflict.
    pub(super) fn lose_covered(&mut self, ops: &[usize], since: &Registers) {
        let stays =
            ops.last().is_some_and(|last| self.op(*last).tail.writes.stamp > self.after.stamp);
        let is_edit = |number: &usize| {
            matches!(self.op(*number).tail.writes.does, Does::Edits | Does::Creates)
        };
        let covered: Vec<_> =
            ops.iter().copied().filter(|number| stays && is_edit(number)).collect();
        if covered.is_empty() {
            return;
        }
        let (base, local) = (since.image().unwrap_or_default(), self.named_by(&covered));
        let found = Found { winner: Winner::Remote, base, local, ..self.nothing_found() };
        self.record(&covered, found);
        self.lose_whole(&covered);
    }

    /// Records that a local deletion can remove remote writes. After the deletion, the tail creates
    /// the record again, but the deletion can be sent alone.
    pub(super) fn record_inner_deletion(
        &mut self,
        ops: &[usize],
        since: &Registers,
        news: &[String],
    ) {
        let mut earlier = ops.iter().rev().skip(1).copied();
        let Some(deletion) = earlier.find(|number| self.op(*number).tail.deletes()) else { return };
        let stamp = self.op(deletion).tail.writes.stamp;
        // A later local write with another value has a conflict of its own.
        let writes_another = |op: &usize, name: &str| {
            let write = self.op(*op).tail.writes.fields.get(name);
            *op > deletion && write.is_some_and(|write| write.value != *self.after.value_of(name))
        };
        let falls = |name: &&String| {
            self.after.stamp_of(name) < stamp
                && !self.after.value_of(name).is_null()
                && !ops.iter().any(|op| writes_another(op, name))
        };
        if news.iter().any(|name| falls(&name)) {
            let (base, remote) =
                (since.image().unwrap_or_default(), self.after.image().unwrap_or_default());
            self.record(&[deletion], Found { base, remote, ..self.nothing_found() });
        }
    }

    /// Raises the writes of an op that are below the remote side above it, or the whole op if a
    /// person has to choose. A write is dropped if it had lost before, or if a later local op
    /// covers it and is not raised.
    fn raise_what_stands(&mut self, number: usize, since: &Registers, raises_all: bool) {
        let (remote, writes) = (self.to_go_over(number), &self.op(number).tail.writes);
        let is_below = |field: &Register| raises_all || field.stamp < remote;
        let below = writes.fields.iter().filter(|(_, field)| is_below(field));
        let had_lost = |name: &str, field: &Register| field.stamp <= since.stamp_of(name);
        let (ends, stays): (Vec<_>, Vec<_>) = below.partition(|(name, field)| {
            had_lost(name, field) || self.is_covered_for_good(number, name)
        });
        let [ends, stays] = [ends, stays]
            .map(|names| names.into_iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
        let is_whole = ends.len() + stays.len() == writes.fields.len();
        let stands = if writes.fields.is_empty() {
            raises_all || writes.stamp < remote
        } else {
            !stays.is_empty()
        };
        let above = self.above(number, &stays, remote);
        if !ends.is_empty() && (stands || !is_whole) {
            self.drop_fields(number, &ends);
        }
        if stands {
            self.raise(number, if is_whole { &[] } else { &stays }, above, None);
            // The fields that the op brings back get a stamp too. Later ops have to be above it.
            self.keep_order(number, None, above, since);
        }
    }

    /// Returns whether a later local op covers a field and is not raised with it: a deletion, or an
    /// unanswered op, which can be at the server.
    fn is_covered_for_good(&self, number: usize, name: &str) -> bool {
        self.ops.iter().skip(number + 1).any(|later| match later.standing {
            OpStanding::Waits => later.tail.deletes(),
            OpStanding::Unanswered => {
                later.tail.deletes() || later.tail.writes.fields.contains_key(name)
            }
            OpStanding::Dead | OpStanding::Ended => false,
        })
    }

    /// Returns the stamp that an op has to be above to win over the remote side. For a dead letter
    /// this is the next stamp above a remote deletion: a later local edit brings back fields with
    /// that stamp and without the dead letter's values, and these fields must not win over the dead
    /// letter.
    fn to_go_over(&self, number: usize) -> EditStamp {
        let remote = self.after.stamp;
        let is_left_out = self.after.is_deleted() && self.op(number).standing == OpStanding::Dead;
        if is_left_out { remote.next(OpId::from_bytes([u8::MAX; 16])) } else { remote }
    }

    /// Makes each edit bring the record back with all fields that its author had read, without the
    /// values of dead letters.
    pub(super) fn read_again(&mut self, ops: &[usize], since: &Registers) {
        let mut read = since.clone();
        for number in ops {
            let op = self.op(*number);
            let (at, is_edit) = (read.with([&op.tail.writes]), op.tail.writes.does == Does::Edits);
            let image = at.image().unwrap_or_default();
            if op.standing != OpStanding::Dead {
                read = at;
            }
            if is_edit {
                self.bring_back(*number, image);
            }
        }
    }
}
