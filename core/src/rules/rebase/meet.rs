//! Finds the local writes that meet writes of somebody else.
//!
//! | local ↓ / new from others → | fields | a deletion |
//! |---|---|---|
//! | fields | meet in each field with two values ([`super::fields`]) | meet as a whole ([`super::life`]) |
//! | a deletion | meet as a whole | do not meet |
//!
//! Invariants:
//! 1. An op with nothing left has met the remote write before, and does not meet it again.
//! 2. Two deletions are no conflict, and neither are two equal values. If the last local write
//!    stays, the earlier local writes are recorded and end: they must not be sent over the remote
//!    write before the last local write, or after a person undoes the last local write.
//!
//! What it does not do: decide what follows.

use std::collections::BTreeSet;

use super::{Op, OpStanding, Subject};
use crate::entry::CancelledReason;
use crate::record::{Does, EditStamp, Life, Registers};
use crate::schema::Granularity;

impl Subject<'_> {
    /// Makes local ops meet what is new since `since`.
    pub(super) fn meet(&mut self, ops: &[usize], since: &Registers) {
        let ops = self.with_something_left(ops, since);
        let Some(last) = ops.last().copied() else { return };
        if self.come_to_nothing(&ops, since) {
            if self.after.is_live() {
                // The ops create a record that the server never got, and delete it. They must not
                // change the record that exists now.
                self.cancel(&ops, CancelledReason::CreatedAndDeleted);
            }
            return;
        }
        if since.is_live() && self.after.is_deleted() && self.after.stamp == EditStamp::NEVER {
            // The accepted server never had the record: nobody deleted it.
            return self.read_again(&ops, since);
        }
        let news = self.fields_of_others(since);
        let is_touched = self.is_new(self.after.stamp, since.stamp);
        let is_gone = self.after.is_deleted() && is_touched;
        let deletes = self.op(last).tail.deletes();
        if is_gone && !deletes
            || deletes && self.after.is_live() && (is_touched || !news.is_empty())
        {
            return self.meet_in_life(&ops, since);
        }
        if is_gone {
            self.lose_covered(&ops, since);
        } else {
            self.record_inner_deletion(&ops, since, &news);
        }
        if deletes || !self.after.is_live() {
            return;
        }
        match self.rules.granularity {
            Granularity::WholeRecord => self.meet_as_one(&ops, since, &news),
            Granularity::Field => self.meet_in_fields(&ops, since, &news),
        }
    }

    /// Leaves out ops with nothing left, which met the remote writes before.
    fn with_something_left(&self, ops: &[usize], since: &Registers) -> Vec<usize> {
        let is_left = |op: &Op| {
            // Another epoch of the server can have earlier stamps than the op met before.
            op.tail.writes.are_left(since)
                || self.is_first_of_epoch && op.tail.writes.are_left(&self.after)
        };
        let stays = |number: &&usize| self.op(**number).standing != OpStanding::Ended;
        let mut left = false;
        let counts = |number: &&usize| {
            let op = self.op(**number);
            // A deletion after an op with something left counts too: it separates that op from
            // later ops.
            let counts = is_left(op) || left && op.tail.deletes();
            left |= counts;
            counts
        };
        ops.iter().filter(stays).filter(counts).copied().collect()
    }

    /// Returns whether ops create a record and delete it, and none of them was ever sent.
    fn come_to_nothing(&self, ops: &[usize], since: &Registers) -> bool {
        let (Some(first), Some(last)) = (ops.first(), ops.last()) else { return false };
        let (first, last) = (self.op(*first), self.op(*last));
        let unsent = |number: &usize| {
            let op = self.op(*number);
            op.standing == OpStanding::Waits
                && op.since.is_none()
                && op.tail.pending.abandoned.is_none()
        };
        since.life == Life::Unknown
            && first.tail.writes.does == Does::Creates
            && last.tail.deletes()
            && ops.iter().all(unsent)
    }

    /// Returns the fields that others wrote since `since`.
    pub(super) fn fields_of_others(&self, since: &Registers) -> Vec<String> {
        let of_ops = self.ops.iter().flat_map(|op| op.tail.writes.fields.keys());
        let names = self.after.fields.keys().chain(since.fields.keys()).chain(of_ops);
        let names: BTreeSet<&String> = names.collect();
        let is_new = |name: &&String| {
            self.is_new(self.after.stamp_of(name), since.stamp_of(name))
                && !self.is_brought_back(name)
        };
        names.into_iter().filter(is_new).cloned().collect()
    }

    /// Returns whether an op of the tail brought the value of a field back from a deletion. Such a
    /// value has the op's id and the next time above the deletion, which the op has nowhere.
    fn is_brought_back(&self, name: &str) -> bool {
        let stamp = self.after.stamp_of(name);
        let writer = self.ops.iter().map(|op| &op.tail).find(|op| op.op.id == stamp.op);
        let read = writer.and_then(|op| op.writes.brings_back.as_ref());
        read.is_some_and(|read| read.get(name) == Some(self.after.value_of(name)))
    }

    /// Returns whether a stamp at the server is of a new write of others. In another epoch of the
    /// server, a new write can have an earlier stamp.
    fn is_new(&self, stamp: EditStamp, since: EditStamp) -> bool {
        let is_later =
            stamp > since || self.is_first_of_epoch && stamp != since && stamp != EditStamp::NEVER;
        is_later && !self.is_own(stamp)
    }
}
