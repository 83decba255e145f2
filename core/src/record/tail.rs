//! The ops of a record's tail as writes, and what comes of them on top of what is confirmed.
//!
//! Invariants:
//! 1. What the app reads is `confirmed` with the tail joined: nothing else decides it.
//! 2. A deletion behind which the same tail makes the record anew is no deletion: the creation takes away what that had shown, with the
//!    stamp of the deletion, so that each stands or falls by its own.
//!
//! What it is not: which ops may leave ([`crate::rules::plan`]).

use super::pending::Pending;
use super::registers::{Does, Registers, Writes};
use crate::entry::PlannedOp;
use crate::fields::{Fields, InvalidFields};
use crate::op::{OpContent, OpKind};

/// One op of a record's tail, read.
#[derive(Debug, Clone, PartialEq)]
pub struct TailOp {
    /// Which.
    pub op: PlannedOp,
    /// What it does.
    pub kind: OpKind,
    /// How it stands, as stored.
    pub pending: Pending,
    /// What the log says of it.
    pub content: OpContent,
    /// What is left of it, as it names it.
    pub named: Fields,
    /// What is left of it.
    pub writes: Writes,
}

impl TailOp {
    /// Reads one.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub fn new(pending: Pending, content: OpContent) -> Result<Self, InvalidFields> {
        let op = PlannedOp { id: pending.op, place: pending.place };
        let (named, writes) = (pending.named(&content)?, pending.writes(&content)?);
        Ok(Self { op, kind: pending.kind, pending, content, named, writes })
    }

    /// Works out anew what is left of it.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub fn look_again(&mut self) -> Result<(), InvalidFields> {
        self.named = self.pending.named(&self.content)?;
        self.writes = self.pending.writes(&self.content)?;
        Ok(())
    }

    /// Returns the fields that it names and that stand above what is confirmed, `None` if nothing is left of it.
    pub fn named_above(&self, confirmed: &Registers) -> Option<Fields> {
        let stands = |name: &str| {
            let own = self.writes.fields.get(name);
            !confirmed.is_live() || own.is_some_and(|own| own.stamp > confirmed.stamp_of(name))
        };
        (self.writes.does != Does::Nothing).then(|| self.named.filtered(stands))
    }

    /// Returns whether its author's deletion is what it does.
    pub fn deletes(&self) -> bool {
        self.writes.does == Does::Deletes
    }
}

impl Registers {
    /// Joins ops of one tail, oldest first.
    pub fn join_tail<'a>(&mut self, ops: impl IntoIterator<Item = &'a Writes>) {
        let ops: Vec<_> = ops.into_iter().collect();
        for (number, writes) in ops.iter().enumerate() {
            let makes_anew = |later: &&Writes| later.does == Does::Creates;
            let is_covered = writes.does == Does::Deletes && ops.iter().skip(number + 1).any(makes_anew);
            if !is_covered {
                self.join(writes);
            }
        }
    }

    /// Returns them with ops joined.
    #[must_use]
    pub fn with<'a>(&self, ops: impl IntoIterator<Item = &'a Writes>) -> Self {
        let mut joined = self.clone();
        joined.join_tail(ops);
        joined
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::record::EditStamp;
    use crate::record::test_ops::{deleted, fields, tail_op, there};

    fn record() -> Registers {
        there(&[("a", json!(0), 99, 0), ("b", json!(0), 99, 0)])
    }

    fn visible(confirmed: &Registers, tail: &[TailOp]) -> Option<Value> {
        let image = confirmed.with(tail.iter().map(|op| &op.writes)).image();
        image.map(|image| Value::Object(image.into_map().into_iter().collect()))
    }

    fn takes_away(mut op: TailOp, names: &[&str], at: Option<EditStamp>) -> TailOp {
        op.pending.cleared = names.iter().map(|name| (*name).to_owned()).collect();
        op.pending.cleared_at = at;
        op.look_again().unwrap();
        op
    }

    #[test]
    fn the_app_reads_what_is_confirmed_with_the_tail_on_top() {
        let tail = [
            tail_op(1, OpKind::Update, json!({"a": 1})),
            tail_op(2, OpKind::Update, json!({"a": 2, "b": null, "c": 2})),
        ];
        assert_eq!(visible(&record(), &tail), Some(json!({"a": 2, "c": 2})));
        assert_eq!(visible(&Registers::default(), &[]), None);
    }

    #[test]
    fn an_op_still_says_what_stands_above_theirs() {
        let op = tail_op(7, OpKind::Update, json!({"a": 1, "b": 1}));
        let theirs = there(&[("a", json!(9), 99, 50), ("b", json!(9), 99, 5)]);
        assert_eq!(op.named_above(&theirs), Some(fields(json!({"b": 1}))));
        assert_eq!(op.named_above(&deleted(99, 5)), Some(fields(json!({"a": 1, "b": 1}))));
        let mut lost = op;
        lost.pending.empty();
        lost.look_again().unwrap();
        assert_eq!(lost.named_above(&theirs), None);
    }

    #[test]
    fn theirs_that_is_later_shows_through_a_dead_letter_too() {
        let mut dead = tail_op(1, OpKind::Update, json!({"a": 1, "b": 1}));
        dead.pending.dead = true;
        let theirs = there(&[("a", json!(9), 99, 50), ("b", json!(0), 99, 0)]);
        assert_eq!(visible(&theirs, &[dead]), Some(json!({"a": 9, "b": 1})));
    }

    #[test]
    fn nothing_of_a_record_shows_behind_a_deletion_of_ours_or_theirs_unless_ours_is_above() {
        let deletion = tail_op(2, OpKind::Delete, json!({}));
        assert_eq!(visible(&record(), std::slice::from_ref(&deletion)), None);
        let edit = |number| tail_op(number, OpKind::Update, json!({"a": 1}));
        assert_eq!(visible(&deleted(99, 5), &[edit(4)]), None);
        assert_eq!(visible(&deleted(99, 5), &[edit(6)]), Some(json!({"a": 1})));
        assert_eq!(visible(&there(&[("a", json!(9), 99, 50)]), &[deletion]), Some(json!({"a": 9})));
    }

    #[test]
    fn what_is_made_anew_behind_a_deletion_of_ours_shows_nothing_of_what_was_deleted() {
        let deletion = tail_op(1, OpKind::Delete, json!({}));
        let at = Some(deletion.writes.stamp);
        let anew = takes_away(tail_op(2, OpKind::Create, json!({"a": 2})), &["b"], at);
        assert_eq!(visible(&record(), &[deletion.clone(), anew.clone()]), Some(json!({"a": 2})));
        // Somebody else wrote `b` after the deletion and before the creation.
        let theirs = there(&[("a", json!(0), 99, 0), ("b", json!(9), 99, 2)]);
        assert_eq!(visible(&theirs, &[deletion, anew]), Some(json!({"a": 2, "b": 9})));
    }

    #[test]
    fn what_brings_a_record_back_shows_what_its_author_read_and_of_a_living_record_its_fields_only() {
        let mut edit = tail_op(7, OpKind::Update, json!({"a": 1}));
        edit.pending.brings_back = Some(fields(json!({"a": 1, "b": 0})).to_json());
        edit.look_again().unwrap();
        assert_eq!(visible(&deleted(99, 5), std::slice::from_ref(&edit)), Some(json!({"a": 1, "b": 0})));
        let again = there(&[("b", json!(9), 99, 6)]);
        assert_eq!(visible(&again, &[edit]), Some(json!({"a": 1, "b": 9})));
    }
}
