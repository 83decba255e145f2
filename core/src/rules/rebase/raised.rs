//! Raises local writes above remote writes, and keeps the order of local ops.
//!
//! Invariants:
//! 1. A raised write is above the remote write, above all stamps of its op, and above earlier local
//!    writes of the same fields.
//! 2. A later local write stays above a raised write.

use std::collections::BTreeMap;

use super::{Op, OpStanding, Subject};
use crate::ids::OpId;
use crate::record::{EditStamp, Register, Registers};
use crate::time::Hlc;

impl Subject<'_> {
    /// Raises local writes above an earlier own write that the server has with a later stamp than
    /// the tail. The tail's stamps were lowered while nobody knew that the earlier write had
    /// arrived.
    pub(super) fn stay_above_own(&mut self) {
        // Nearly all ops of a long tail meet the same few writers.
        let mut writers: BTreeMap<OpId, Option<usize>> = BTreeMap::new();
        for number in
            self.which(|op| op.standing == OpStanding::Waits || op.standing == OpStanding::Dead)
        {
            let op = self.op(number);
            let mut number_of = |writer: OpId| {
                let find = || self.ops.iter().position(|op| op.tail.op.id == writer);
                *writers.entry(writer).or_insert_with(find)
            };
            let mut is_passed_by = |there: EditStamp, here: EditStamp| {
                there > here
                    && number_of(there.op).is_some_and(|earlier| earlier < number)
                    && self.is_own(there)
            };
            let writes = &op.tail.writes;
            let passed = |(name, field): &(&String, &Register)| {
                is_passed_by(self.after.stamp_of(name), field.stamp)
            };
            let names: Vec<_> =
                writes.fields.iter().filter(passed).map(|(name, _)| name.clone()).collect();
            let is_whole = op.tail.deletes() && is_passed_by(self.after.stamp, writes.stamp);
            if !names.is_empty() || is_whole {
                let there = names.iter().map(|name| self.after.stamp_of(name)).max();
                let above = self.above(number, &names, there.unwrap_or(self.after.stamp));
                self.raise(number, &names, above, None);
                self.keep_order(number, None, above, &Registers::default());
            }
        }
    }

    /// Raises later local writes above a raised write, in the field `only` or in all fields. In one
    /// field, only dead letters follow, because they do not cover the raised write. In all fields,
    /// waiting ops follow too, so that they stay above the fields that are brought back. A write
    /// that had lost before keeps its stamp, and so does a deletion below a remote write.
    pub(super) fn keep_order(
        &mut self,
        number: usize,
        only: Option<&str>,
        mut above: Hlc,
        since: &Registers,
    ) {
        for later in number + 1..self.ops.len() {
            let Op { tail, standing, .. } = self.op(later);
            let follows =
                *standing == OpStanding::Dead || only.is_none() && *standing == OpStanding::Waits;
            let fields =
                tail.writes.fields.iter().filter(|(name, _)| only.is_none_or(|only| only == *name));
            let had_lost = |name: &str, field: &Register| {
                field.stamp <= since.stamp_of(name) && !self.is_first_of_epoch
            };
            let passed = fields
                .filter(|(name, field)| field.stamp.edited_at <= above && !had_lost(name, field));
            let passed: Vec<_> = passed.map(|(name, _)| name.clone()).collect();
            let own = tail.writes.stamp;
            let stands = tail.deletes() && (self.after.is_deleted() || own > self.after.stamp);
            if follows && (!passed.is_empty() || stands && own.edited_at <= above) {
                above = above.next();
                self.raise(later, &passed, above, None);
            }
        }
    }

    /// Returns a time above a remote write, above all stamps of an op, and above earlier local
    /// writes of the same fields.
    pub(super) fn above(&self, number: usize, names: &[String], remote: EditStamp) -> Hlc {
        let earlier = self.ops.iter().take(number + 1).map(|op| &op.tail.writes);
        let stamps =
            earlier.flat_map(|writes| names.iter().filter_map(|name| writes.fields.get(name)));
        let own = self.op(number).tail.writes.greatest();
        stamps.map(|field| field.stamp).fold(remote.max(own), EditStamp::max).edited_at.next()
    }

    /// Returns whether a later local op writes the field or deletes the record. A dead letter
    /// covers nothing.
    pub(super) fn is_covered(&self, number: usize, name: &str) -> bool {
        let covers = |op: &&Op| op.standing != OpStanding::Ended && op.standing != OpStanding::Dead;
        let mut later = self.ops.iter().skip(number + 1).filter(covers);
        later.any(|op| op.tail.deletes() || op.tail.writes.fields.contains_key(name))
    }
}
