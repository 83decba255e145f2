//! Takes an op back.
//!
//! | the op, with the rest of its transaction | is undone by |
//! |---|---|
//! | never left, is no dead letter, and is the last op of its record | a decision: it is cancelled and never leaves |
//! | anything else | an op that cites it, if the next table has one |
//!
//! | the op was | the app reads now | the op that takes it back |
//! |---|---|---|
//! | a create | a record with fields of this op only | a delete |
//! | a replace | a record with fields of this op only | a replace with the image before |
//! | an update; or one of the above otherwise | a record | an update that restores the fields that still have the op's stamp |
//! | a delete | no record | a create with the image before |
//! | any | anything else | none |
//!
//! Invariants:
//! 1. Nothing is erased: an undone op stays in the log.
//! 2. A transaction is cancelled whole or not at all.
//! 3. An undo never takes back somebody's later write, even if it has the same value.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::OpContent;
use crate::entry::{Cancelled, CancelledReason, Decision, PlannedOp};
use crate::fields::Fields;
use crate::names::RecordKey;
use crate::op::{Mutation, OpKind, OpPlace};
use crate::record::{Register, Registers};
use crate::rows::RecordRow;
use crate::tail::Tail;

/// Returns the decisions that cancel an op with the rest of its transaction, or `None` if it may
/// have left or later ops depend on it. `touched` are the ops that ended or were planned since the
/// tail was folded. `rows` are the rows of the transaction's records.
pub fn cancel(
    tail: &Tail,
    touched: &BTreeSet<OpPlace>,
    rows: &BTreeMap<RecordKey, RecordRow>,
    op: OpPlace,
) -> Option<Vec<Decision>> {
    let transaction_ops = tail.op(op)?.transaction_ops;
    let ops: Vec<_> = tail.ops_of_entry(op.seq).collect();
    let is_whole = u32::try_from(ops.len()).is_ok_and(|count| count == transaction_ops);
    let is_last = |place: OpPlace, key: &RecordKey| {
        tail.ops_of(key).next_back().is_some_and(|last| last.seq == place.seq)
    };
    // The ops of a unit that was abandoned may be at the server.
    let was_sent = |place: OpPlace, key: &RecordKey| {
        let pending =
            rows.get(key).and_then(|row| row.tail.iter().find(|pending| pending.place == place));
        pending.is_none_or(|pending| !pending.earlier_units.is_empty())
    };
    let is_free = |place: OpPlace, key: &RecordKey| {
        let stays =
            tail.unit_of(place).is_none() && !tail.is_dead(place) && !touched.contains(&place);
        stays && !was_sent(place, key)
    };
    if !is_whole
        || !ops.iter().all(|(place, row)| is_free(*place, &row.key) && is_last(*place, &row.key))
    {
        return None;
    }
    let cancelled = ops.into_iter().map(|(place, row)| {
        let ops = vec![PlannedOp { id: row.op, place }];
        Decision::Cancelled(Cancelled {
            key: row.key.clone(),
            ops,
            reason: CancelledReason::Undone,
        })
    });
    Some(cancelled.collect())
}

/// Returns the op that takes back an op that may have left, or `None` if there is nothing to take
/// back.
///
/// `before` is the record that the app read before the op. `now` is the record that it reads now,
/// with the writes that its fields come from.
pub fn compensate(
    key: &RecordKey,
    undone: &OpContent,
    before: Option<&Fields>,
    now: &Registers,
) -> Option<Mutation> {
    let mutation = match (undone.kind, before, now.is_live()) {
        (OpKind::Create, _, true) => {
            back_to(key, undone, &Fields::new(), now, Mutation::delete(key.clone()))?
        }
        (OpKind::Delete, Some(before), false) => Mutation::create(key.clone(), before.clone()),
        (OpKind::Replace, Some(before), true) => {
            back_to(key, undone, before, now, Mutation::replace(key.clone(), before.clone()))?
        }
        (OpKind::Update, Some(before), true) => update_back(key, undone, before, now)?,
        _ => return None,
    };
    Some(Mutation { cites: Some(undone.id), ..mutation })
}

/// Takes back an op that set the whole record: as a whole if everything visible is still its own,
/// otherwise field by field.
fn back_to(
    key: &RecordKey,
    undone: &OpContent,
    before: &Fields,
    now: &Registers,
    whole: Mutation,
) -> Option<Mutation> {
    let is_own = |field: &Register| field.value.is_null() || field.stamp.op == undone.id;
    if now.fields.values().all(is_own) && now.stamp.op == undone.id {
        return Some(whole);
    }
    update_back(key, undone, before, now)
}

/// Returns the earlier values of the fields that still have the op's own stamp, or a stamp that a
/// policy raised.
fn update_back(
    key: &RecordKey,
    undone: &OpContent,
    before: &Fields,
    now: &Registers,
) -> Option<Mutation> {
    let own = now.fields.iter().filter(|(_, field)| field.stamp.op == undone.id);
    let back =
        own.map(|(name, _)| (name.clone(), before.get(name).cloned().unwrap_or(Value::Null)));
    let back: Fields = back.collect();
    (!back.is_empty()).then(|| Mutation::update(key.clone(), back))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::Pending;
    use crate::rules::test_tail::{
        deleted, pending, place, planned, tail_op, tail_row, there, transaction, unit_of,
    };
    use crate::rules::test_view::{fields, key, op_id, unit_id};

    fn untouched() -> BTreeSet<OpPlace> {
        BTreeSet::new()
    }

    /// Makes the rows of the records of pending ops, none of which was sent.
    fn rows(tail: &Tail) -> BTreeMap<RecordKey, RecordRow> {
        let mut rows: BTreeMap<RecordKey, RecordRow> = BTreeMap::new();
        for (place, row) in tail.ops() {
            let pending = Pending::new(row.op, place, row.kind, row.edited_at);
            rows.entry(row.key.clone()).or_default().tail.push(pending);
        }
        rows
    }

    fn cancelled(tail: &Tail, touched: &BTreeSet<OpPlace>, seq: u8) -> Option<Vec<PlannedOp>> {
        let decisions = cancel(tail, touched, &rows(tail), place(seq))?;
        let ops = decisions.into_iter().flat_map(|decision| match decision {
            Decision::Cancelled(Cancelled { ops, reason: CancelledReason::Undone, .. }) => ops,
            other => panic!("not cancelled: {other:?}"),
        });
        Some(ops.collect())
    }

    #[test]
    fn the_last_op_of_a_record_that_was_never_planned_is_cancelled() {
        let tail = pending(&[("1", OpKind::Create), ("1", OpKind::Update), ("2", OpKind::Create)]);
        assert_eq!(cancelled(&tail, &untouched(), 2), Some(vec![planned(2)]));
        assert_eq!(cancelled(&tail, &untouched(), 3), Some(vec![planned(3)]));
        assert_eq!(cancelled(&tail, &untouched(), 1), None, "op 2 stands on it");
        assert_eq!(cancelled(&tail, &untouched(), 9), None, "it has ended");
    }

    #[test]
    fn an_op_that_may_have_left_is_not_cancelled() {
        let mut tail = pending(&[("1", OpKind::Create)]);
        assert_eq!(
            cancelled(&tail, &BTreeSet::from([place(1)]), 1),
            None,
            "it was planned in this very round"
        );
        tail.put_unit(unit_id(1), &unit_of("1", vec![planned(1)]));
        assert_eq!(cancelled(&tail, &untouched(), 1), None, "it is unanswered");
    }

    #[test]
    fn what_a_unit_carried_that_was_abandoned_without_an_answer_is_not_cancelled() {
        let tail = pending(&[("1", OpKind::Create)]);
        let mut rows = rows(&tail);
        assert!(cancel(&tail, &untouched(), &rows, place(1)).is_some());
        rows.get_mut(&key("1")).unwrap().tail[0].earlier_units.push(unit_id(1));
        assert_eq!(cancel(&tail, &untouched(), &rows, place(1)), None, "it may be at the server");
    }

    #[test]
    fn a_dead_letter_is_not_cancelled() {
        let mut tail = pending(&[("1", OpKind::Create)]);
        tail.set_dead(place(1), true);
        assert_eq!(cancelled(&tail, &untouched(), 1), None);
    }

    #[test]
    fn a_transaction_is_cancelled_whole_or_not_at_all() {
        let both = || transaction(&[("1", 10), ("2", 11)]);
        let ids = |ops: Vec<PlannedOp>| ops.into_iter().map(|op| op.id).collect::<Vec<_>>();
        assert_eq!(cancelled(&both(), &untouched(), 1).map(ids), Some(vec![op_id(10), op_id(11)]));
        let mut later = both();
        later.insert(place(2), tail_row("2", 2, OpKind::Update));
        assert_eq!(cancelled(&later, &untouched(), 1), None, "a later op stands on one of the two");
        let mut half = both();
        half.remove(OpPlace { index: 1, ..place(1) });
        assert_eq!(cancelled(&half, &untouched(), 1), None, "one of the two has ended");
    }

    /// Returns the op that takes back op 1 of this kind with these fields, if the app reads `now`.
    fn taken_back(
        kind: OpKind,
        said: Value,
        before: Option<Value>,
        now: &Registers,
    ) -> Option<Mutation> {
        let undone = tail_op(1, kind, said).content;
        compensate(&key("1"), &undone, before.map(fields).as_ref(), now)
    }

    #[expect(clippy::unnecessary_wraps, reason = "the result is compared with an `Option`")]
    fn cites(mutation: Mutation) -> Option<Mutation> {
        Some(Mutation { cites: Some(op_id(1)), ..mutation })
    }

    #[test]
    fn an_update_is_taken_back_field_by_field() {
        let now = there(&[("a", json!(2), 1, 1), ("b", json!(2), 9, 9), ("c", json!(2), 1, 1)]);
        let back = taken_back(
            OpKind::Update,
            json!({"a": 2, "c": 2}),
            Some(json!({"a": 1, "b": 1})),
            &now,
        );
        assert_eq!(back, cites(Mutation::update(key("1"), fields(json!({"a": 1, "c": null})))));
    }

    #[test]
    fn what_someone_wrote_since_is_left_alone_though_it_is_the_same_value() {
        for theirs in [json!(3), json!(2)] {
            let now = there(&[("a", theirs, 9, 9)]);
            assert_eq!(
                taken_back(OpKind::Update, json!({"a": 2}), Some(json!({"a": 1})), &now),
                None
            );
        }
    }

    #[test]
    fn a_value_that_a_policy_raised_is_still_the_ops_own() {
        let now = there(&[("a", json!(2), 1, 70)]);
        let back = taken_back(OpKind::Update, json!({"a": 2}), Some(json!({"a": 1})), &now);
        assert_eq!(back, cites(Mutation::update(key("1"), fields(json!({"a": 1})))));
    }

    #[test]
    fn a_field_that_the_update_took_away_comes_back() {
        let now = there(&[("a", json!(null), 1, 1)]);
        let back = taken_back(OpKind::Update, json!({"a": null}), Some(json!({"a": 1})), &now);
        assert_eq!(back, cites(Mutation::update(key("1"), fields(json!({"a": 1})))));
    }

    #[test]
    fn a_create_is_taken_back_by_a_delete_and_a_delete_by_a_create_with_the_image_before() {
        let of_create =
            taken_back(OpKind::Create, json!({"a": 1}), None, &there(&[("a", json!(1), 1, 1)]));
        assert_eq!(of_create, cites(Mutation::delete(key("1"))));
        let of_delete =
            taken_back(OpKind::Delete, json!({}), Some(json!({"a": 1})), &deleted(1, 1));
        assert_eq!(of_delete, cites(Mutation::create(key("1"), fields(json!({"a": 1})))));
    }

    #[test]
    fn a_create_with_somebody_elses_field_is_taken_back_field_by_field() {
        let now = there(&[("a", json!(1), 1, 1), ("b", json!(1), 1, 1), ("c", json!(1), 9, 9)]);
        let back = taken_back(OpKind::Create, json!({"a": 1, "b": 1}), None, &now);
        assert_eq!(back, cites(Mutation::update(key("1"), fields(json!({"a": null, "b": null})))));
        let now = there(&[("a", json!(1), 1, 1), ("c", json!(null), 9, 9)]);
        let back = taken_back(OpKind::Create, json!({"a": 1}), None, &now);
        assert_eq!(
            back,
            cites(Mutation::update(key("1"), fields(json!({"a": null})))),
            "what they took away is their word too"
        );
    }

    #[test]
    fn a_replace_is_taken_back_by_a_replace_or_field_by_field_beside_what_someone_wrote_since() {
        let back = |now: &Registers| {
            taken_back(OpKind::Replace, json!({"b": 2}), Some(json!({"a": 1})), now)
        };
        let own = there(&[("a", json!(null), 1, 1), ("b", json!(2), 1, 1)]);
        assert_eq!(back(&own), cites(Mutation::replace(key("1"), fields(json!({"a": 1})))));
        let theirs = there(&[("a", json!(null), 1, 1), ("b", json!(3), 9, 9)]);
        assert_eq!(back(&theirs), cites(Mutation::update(key("1"), fields(json!({"a": 1})))));
    }

    #[test]
    fn what_is_not_there_any_more_or_is_there_again_is_not_taken_back() {
        let (image, gone, again) =
            (|| Some(json!({"a": 1})), deleted(9, 9), there(&[("a", json!(1), 9, 9)]));
        assert_eq!(taken_back(OpKind::Create, json!({"a": 1}), None, &gone), None);
        assert_eq!(taken_back(OpKind::Update, json!({"a": 1}), image(), &gone), None);
        assert_eq!(taken_back(OpKind::Replace, json!({"a": 1}), image(), &gone), None);
        assert_eq!(taken_back(OpKind::Delete, json!({}), image(), &again), None);
    }
}
