//! Raising: a write of ours gets a stamp above theirs, and our own order stays.
//!
//! Invariants:
//! 1. What is raised stands above theirs, above what the op has, and above earlier ops of ours in the same fields.
//! 2. A later word of ours stays above it.

use super::{Output, Standing, Subject};
use crate::fields::InvalidFields;
use crate::record::EditStamp;
use crate::time::Hlc;

impl Subject<'_> {
    /// Raises what was made on top of a write of ours that turns out to be at the server with a later stamp than it has here: stamps were
    /// lowered while nobody knew that it had arrived.
    pub(super) fn stay_above_own(&mut self, out: &mut Output<'_>) -> Result<(), InvalidFields> {
        for number in 0..self.ops.len() {
            let op = self.op(number);
            if !op.standing.waits() && !op.standing.is_dead() {
                continue;
            }
            let is_earlier =
                |op| self.ops.iter().take(number).any(|earlier: &super::Op| earlier.tail.op.id == op);
            // Compared first: of a long tail next to nothing is passed by, and who wrote it is looked for in all of it.
            let is_passed_by = |there: EditStamp, here: EditStamp| {
                there > here && is_earlier(there.op) && self.is_own(there)
            };
            let writes = &op.tail.writes;
            let passed =
                writes.fields.iter().map(|(name, field)| (name, self.after.stamp_of(name), field.stamp));
            let passed = passed.filter(|(_, there, here)| is_passed_by(*there, *here));
            let (names, there): (Vec<_>, Vec<_>) =
                passed.map(|(name, there, _)| (name.clone(), there)).unzip();
            let is_whole = op.tail.deletes() && is_passed_by(self.after.stamp, writes.stamp);
            if names.is_empty() && !is_whole {
                continue;
            }
            let there = there.into_iter().max().unwrap_or(self.after.stamp);
            let above = self.above(number, &names, there);
            self.raise(number, &names, above, None, out)?;
            self.keep_order(number, None, above, out)?;
        }
        Ok(())
    }

    /// Raises later words of ours above one that was raised, in a field or in all: dead letters, which do not cover it, and what would
    /// be below that which comes along.
    pub(super) fn keep_order(
        &mut self,
        number: usize,
        only: Option<&str>,
        mut above: Hlc,
        out: &mut Output<'_>,
    ) -> Result<(), InvalidFields> {
        for later in number + 1..self.ops.len() {
            let op = self.op(later);
            let follows = op.standing.is_dead() || only.is_none() && op.standing.waits();
            let fields =
                op.tail.writes.fields.iter().filter(|(name, _)| only.is_none_or(|only| only == *name));
            let passed = fields.filter(|(_, field)| field.stamp.edited_at <= above);
            let passed: Vec<_> = passed.map(|(name, _)| name.clone()).collect();
            if follows && !passed.is_empty() {
                above = above.next();
                self.raise(later, &passed, above, None, out)?;
            }
        }
        Ok(())
    }

    /// Returns a time above a write of theirs, what an op has, and what earlier ops of ours have in the same fields.
    pub(super) fn above(&self, number: usize, names: &[String], theirs: EditStamp) -> Hlc {
        let place = self.op(number).tail.op.place;
        let earlier = self.ops.iter().map(|op| &op.tail).filter(|op| op.op.place <= place);
        let stamps = earlier.flat_map(|op| names.iter().filter_map(|name| op.writes.fields.get(name)));
        let own = self.op(number).tail.writes.greatest();
        stamps.map(|field| field.stamp).fold(theirs.max(own), EditStamp::max).edited_at.next()
    }

    /// Returns whether a later op of ours says something of the same field. A dead letter covers nothing.
    pub(super) fn is_covered(&self, holder: usize, name: &str) -> bool {
        let place = self.op(holder).tail.op.place;
        let covers = |op: &&super::Op| op.standing != Standing::Ended && !op.standing.is_dead();
        let later = self.ops.iter().filter(|op| op.tail.op.place > place).filter(covers);
        later.into_iter().any(|op| op.tail.deletes() || op.tail.writes.fields.contains_key(name))
    }
}
