//! Ends ops of which nothing is left to send.
//!
//! | an op that waits and | ends as |
//! |---|---|
//! | makes what the server has already | cancelled: no effect |
//! | is below what the server has | superseded |
//!
//! Invariants:
//! 1. A dead letter or an unanswered op never ends here. But a dead letter that deletes is dropped
//!    if it is below the record at the server.
//! 2. The ops that a local deletion covers end with it.
//! 3. A creation never ends without the local deletion over which it was made.

use super::{OpStanding, Subject};
use crate::entry::CancelledReason;
use crate::record::{Does, Life, Registers, TailOp};

impl Subject<'_> {
    /// Ends the waiting ops of which nothing is left.
    pub(super) fn end_empty_ops(&mut self) {
        for number in 0..self.ops.len() {
            let op = self.op(number);
            match op.standing {
                _ if is_left(&op.tail, &self.after) => {}
                OpStanding::Waits => self.end(number),
                OpStanding::Dead if op.tail.deletes() => self.lose(number),
                _ => {}
            }
        }
    }

    /// Ends an op and the ops that end with it.
    fn end(&mut self, number: usize) {
        let Some(ending) = self.ending_with(number) else { return };
        if is_so_already(&self.op(number).tail, &self.after) {
            self.cancel(&ending, CancelledReason::NoEffect);
        } else {
            self.lose_whole(&ending);
        }
    }

    /// Returns an op of which nothing is left and the ops that end with it, oldest first. Returns
    /// `None` if the op has to stay, since a deletion that it covers cannot end yet.
    fn ending_with(&self, number: usize) -> Option<Vec<usize>> {
        let mut ending = vec![number];
        if self.op(number).tail.writes.does == Does::Creates {
            ending.extend(self.deletions_shown_without(number));
            if !ending.iter().all(|number| self.op(*number).standing == OpStanding::Waits) {
                return None;
            }
        }
        for deletion in ending.clone().into_iter().filter(|number| self.op(*number).tail.deletes())
        {
            // The deletion does not cover an op that was raised above it.
            let covers = self.op(deletion).tail.writes.greatest();
            let is_covered = |earlier: &usize| {
                let earlier = self.op(*earlier);
                earlier.standing == OpStanding::Waits && earlier.tail.writes.greatest() < covers
            };
            ending.extend((0..deletion).filter(is_covered));
        }
        ending.sort_unstable();
        ending.dedup();
        Some(ending)
    }

    /// Returns the local deletions that the app would read if a creation ended alone.
    fn deletions_shown_without(&self, creation: usize) -> Vec<usize> {
        let stays =
            |number: &usize| self.op(*number).standing != OpStanding::Ended && *number != creation;
        let creates = |number: &usize| self.op(*number).tail.writes.does == Does::Creates;
        let later_creation = |deletion: usize| {
            (deletion + 1..self.ops.len()).any(|later| stays(&later) && creates(&later))
        };
        let deletions =
            (0..creation).filter(stays).filter(|number| self.op(*number).tail.deletes());
        deletions.filter(|deletion| !later_creation(*deletion)).collect()
    }
}

/// Returns whether anything is left of an op that waits. A creation of an unknown record is always
/// left.
fn is_left(op: &TailOp, after: &Registers) -> bool {
    op.writes.are_left(after) || op.writes.does == Does::Creates && after.life == Life::Unknown
}

/// Returns whether the record at the server is already as the op makes it.
fn is_so_already(op: &TailOp, after: &Registers) -> bool {
    match op.writes.does {
        Does::Deletes => !after.is_live(),
        Does::Creates | Does::Edits => {
            after.is_live() && op.named.iter().all(|(name, value)| after.value_of(name) == value)
        }
        Does::Nothing => false,
    }
}
