//! Raising: a write of ours gets a stamp above theirs, and our own order stays.
//!
//! Invariants:
//! 1. What is raised stands above theirs, above what the op has, and above earlier ops of ours in the same fields.
//! 2. A later word of ours stays above it.

use super::{Op, Standing, Subject};
use crate::record::{EditStamp, Register, Registers};
use crate::time::Hlc;

impl Subject<'_> {
    /// Raises what was made on top of a write of ours that turns out to be at the server with a later stamp than it has here: stamps were
    /// lowered while nobody knew that it had arrived.
    pub(super) fn stay_above_own(&mut self) {
        for number in self.which(|op| op.standing == Standing::Waits || op.standing == Standing::Dead) {
            let (op, earlier) = (self.op(number), self.ops.iter().take(number));
            // Compared first: of a long tail next to nothing is passed by, and who wrote it is looked for in all of it.
            let is_passed_by = |there: EditStamp, here: EditStamp| {
                let is_earlier = || earlier.clone().any(|earlier| earlier.tail.op.id == there.op);
                there > here && is_earlier() && self.is_own(there)
            };
            let writes = &op.tail.writes;
            let passed =
                |(name, field): &(&String, &Register)| is_passed_by(self.after.stamp_of(name), field.stamp);
            let names: Vec<_> = writes.fields.iter().filter(passed).map(|(name, _)| name.clone()).collect();
            let is_whole = op.tail.deletes() && is_passed_by(self.after.stamp, writes.stamp);
            if !names.is_empty() || is_whole {
                let there = names.iter().map(|name| self.after.stamp_of(name)).max();
                let above = self.above(number, &names, there.unwrap_or(self.after.stamp));
                self.raise(number, &names, above, None);
                self.keep_order(number, None, above, &Registers::default());
            }
        }
    }

    /// Raises later words of ours above one that was raised, in a field or in all: dead letters, which do not cover it, and what would
    /// be below that which comes along. What had lost before stays where it is, and so does a deletion that is below what others wrote.
    pub(super) fn keep_order(
        &mut self,
        number: usize,
        only: Option<&str>,
        mut above: Hlc,
        since: &Registers,
    ) {
        for later in number + 1..self.ops.len() {
            let Op { tail, standing, .. } = self.op(later);
            let follows = *standing == Standing::Dead || only.is_none() && *standing == Standing::Waits;
            let fields = tail.writes.fields.iter().filter(|(name, _)| only.is_none_or(|only| only == *name));
            let had_lost =
                |name: &str, field: &Register| field.stamp <= since.stamp_of(name) && !self.is_another_life;
            let passed =
                fields.filter(|(name, field)| field.stamp.edited_at <= above && !had_lost(name, field));
            let passed: Vec<_> = passed.map(|(name, _)| name.clone()).collect();
            let own = tail.writes.stamp;
            let stands = tail.deletes() && (self.after.is_deleted() || own > self.after.stamp);
            if follows && (!passed.is_empty() || stands && own.edited_at <= above) {
                above = above.next();
                self.raise(later, &passed, above, None);
            }
        }
    }

    /// Returns a time above a write of theirs, what an op has, and what earlier ops of ours have in the same fields.
    pub(super) fn above(&self, number: usize, names: &[String], theirs: EditStamp) -> Hlc {
        let earlier = self.ops.iter().take(number + 1).map(|op| &op.tail.writes);
        let stamps = earlier.flat_map(|writes| names.iter().filter_map(|name| writes.fields.get(name)));
        let own = self.op(number).tail.writes.greatest();
        stamps.map(|field| field.stamp).fold(theirs.max(own), EditStamp::max).edited_at.next()
    }

    /// Returns whether a later op of ours says something of the same field. A dead letter covers nothing.
    pub(super) fn is_covered(&self, number: usize, name: &str) -> bool {
        let covers = |op: &&Op| op.standing != Standing::Ended && op.standing != Standing::Dead;
        let mut later = self.ops.iter().skip(number + 1).filter(covers);
        later.any(|op| op.tail.deletes() || op.tail.writes.fields.contains_key(name))
    }
}
