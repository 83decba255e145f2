//! Decides how a dead letter is corrected: one new op replaces the dead letter and the ops that
//! waited for it.
//!
//! | an op of the record's tail | the dead letter is a create | the dead letter is something else |
//! |---|---|---|
//! | is the dead letter | becomes part of the new op, and ends | becomes part of the new op, and ends |
//! | is before it | becomes part of the new op, and ends | stays as it is |
//! | is after it and was not sent | becomes part of the new op, and ends | stays; the new op leaves out the fields that it set |
//! | is unanswered | stays; the new op leaves out the fields that it set | stays; the new op leaves out the fields that it set |
//!
//! The new op is an update if the app would read a record without the ops that end. Otherwise it is
//! a create.
//!
//! An op that does not get through ([`super::isolated`]) is corrected in two steps: it is removed
//! from its unit, which makes it a dead letter, and then corrected as one.
//!
//! Invariants:
//! 1. The values of the correction override all others.
//! 2. A correction ends no unanswered op, and restores no value that a later op of the record has
//!    overwritten.
//! 3. The corrected op stays in the log, and the new op cites it.

use super::isolated::{Isolated, Rest};
use super::not_possible::NotPossible;
use crate::entry::Decision;
use crate::fields::Fields;
use crate::ids::OpId;
use crate::names::RecordKey;
use crate::op::{Mutation, OpKind};
use crate::record::{Registers, TailOp};

/// The result of correcting a dead letter.
#[derive(Debug, Clone, PartialEq)]
pub struct Correction {
    /// The new op.
    pub mutation: Mutation,
    /// The record that the app would read without the ops that end. The new op is written on this
    /// record.
    pub image: Option<Fields>,
    /// The ops that end, oldest first.
    pub ends: Vec<Decision>,
}

/// Decides the result of correcting a dead letter with `better` applied to its fields. `confirmed`
/// is the server's state of the record, `tail` are its pending ops, oldest first, and
/// `is_unanswered` returns whether an op is in a unit without a final answer.
///
/// # Errors
/// [`NotPossible`] if the op is not in the tail, or deletes.
pub fn correct(
    key: &RecordKey,
    confirmed: &Registers,
    tail: &[TailOp],
    is_unanswered: impl Fn(&TailOp) -> bool,
    dead: OpId,
    better: Fields,
) -> Result<Correction, NotPossible> {
    let letter =
        tail.iter().find(|found| found.op.id == dead).ok_or(NotPossible::NotRefused(dead))?;
    if letter.kind == OpKind::Delete {
        return Err(NotPossible::NothingToCorrect(dead));
    }
    let takes_all = letter.kind == OpKind::Create;
    let is_taken = |op: &TailOp| op.op.id == dead || takes_all && !is_unanswered(op);
    let mut fields = absorbed_fields(confirmed, tail, is_taken);
    fields.compose(better);
    let stays = tail.iter().filter(|op| !is_taken(op));
    let image = confirmed.with(stays.map(|op| &op.writes)).image();
    let kind = if image.is_some() { OpKind::Update } else { OpKind::Create };
    let mutation = Mutation { key: key.clone(), kind, fields: fields.into(), cites: Some(dead) };
    let taken = tail.iter().filter(|op| is_taken(op));
    let ends = taken.map(|op| Decision::Superseded { key: key.clone(), op: op.op }).collect();
    Ok(Correction { mutation, image, ends })
}

/// Returns the fields that become part of the new op, without those that somebody else, or a later
/// op that stays, has overwritten.
fn absorbed_fields(
    confirmed: &Registers,
    tail: &[TailOp],
    is_taken: impl Fn(&TailOp) -> bool,
) -> Fields {
    let mut fields = Fields::new();
    for op in tail {
        if is_taken(op) {
            let stands = |name: &str| {
                let own = op.writes.fields.get(name).map(|field| field.stamp);
                !confirmed.is_live() || own.is_some_and(|own| own > confirmed.stamp_of(name))
            };
            fields.compose(op.named.filtered(stands));
            continue;
        }
        // This op stays, and is before the new op: the new op leaves out the fields that it set.
        match op.kind {
            OpKind::Update => fields = fields.filtered(|name| !op.named.has(name)),
            OpKind::Create | OpKind::Replace => fields = Fields::new(),
            // A person who corrects a record that was deleted since wants it back with all its
            // fields.
            OpKind::Delete => {}
        }
    }
    fields
}

/// Decides about the rest of a unit that does not get through before this op of it is corrected.
///
/// # Errors
/// [`NotPossible::NothingToCorrect`] if the op deletes.
pub fn before_correction(
    isolated: Isolated,
    op: OpId,
    kind: OpKind,
) -> Result<Isolated, NotPossible> {
    match kind {
        OpKind::Delete => Err(NotPossible::NothingToCorrect(op)),
        // The correction of a creation absorbs the ops that were sent with it.
        OpKind::Create => Ok(Isolated { rest: Rest::Stays, ..isolated }),
        OpKind::Update | OpKind::Replace => Ok(isolated),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::entry::PlannedOp;
    use crate::rules::test_tail::{planned, tail_op, there};
    use crate::rules::test_view::{fields, key, op_id, unit_id};

    /// Makes ops 1, 2, 3 and so on of a record, each made at its number, with whether it is
    /// unanswered.
    fn tail(ops: Vec<(OpKind, Value, bool)>) -> Vec<(TailOp, bool)> {
        let ops = (1..).zip(ops).map(|(number, (kind, said, is_unanswered))| {
            (tail_op(number, kind, said), is_unanswered)
        });
        ops.collect()
    }

    /// Makes the server's state, which somebody else wrote before any op of the tail.
    fn known(confirmed: Option<Value>) -> Registers {
        let members = confirmed.map(|confirmed| fields(confirmed).into_map());
        let read = |members: serde_json::Map<String, Value>| {
            let all: Vec<_> = members.into_iter().collect();
            let all: Vec<_> =
                all.iter().map(|(name, value)| (name.as_str(), value.clone(), 99, 0)).collect();
            there(&all)
        };
        members.map(read).unwrap_or_default()
    }

    fn correct_in(
        confirmed: &Registers,
        tail: &[(TailOp, bool)],
        dead: u8,
        better: Fields,
    ) -> Result<Correction, NotPossible> {
        let is_unanswered: Vec<_> = tail
            .iter()
            .filter(|(_, is_unanswered)| *is_unanswered)
            .map(|(op, _)| op.op.id)
            .collect();
        let ops: Vec<_> = tail.iter().map(|(op, _)| op.clone()).collect();
        correct(
            &key("1"),
            confirmed,
            &ops,
            |op| is_unanswered.contains(&op.op.id),
            op_id(dead),
            better,
        )
    }

    /// Corrects an op. Returns the new op, the image that it is written on, and the ops that end.
    #[track_caller]
    fn corrected(
        confirmed: Option<Value>,
        tail: &[(TailOp, bool)],
        dead: u8,
        better: Value,
    ) -> (OpKind, Fields, Option<Fields>, Vec<PlannedOp>) {
        let correction = correct_in(&known(confirmed), tail, dead, fields(better)).unwrap();
        assert_eq!(
            (&correction.mutation.key, correction.mutation.cites),
            (&key("1"), Some(op_id(dead)))
        );
        let ended = correction.ends.into_iter().map(|decision| match decision {
            Decision::Superseded { key: of, op } if of == key("1") => op,
            other => panic!("not superseded: {other:?}"),
        });
        let said = correction.mutation.fields.to_fields().unwrap();
        (correction.mutation.kind, said, correction.image, ended.collect())
    }

    #[test]
    fn a_corrected_create_takes_in_what_waited_for_it() {
        let tail = tail(vec![
            (OpKind::Create, json!({"a": "bad", "b": 1}), false),
            (OpKind::Update, json!({"b": 2}), false),
        ]);
        let expected = (
            OpKind::Create,
            fields(json!({"a": "good", "b": 2})),
            None,
            vec![planned(1), planned(2)],
        );
        assert_eq!(corrected(None, &tail, 1, json!({"a": "good"})), expected);
    }

    #[test]
    fn a_corrected_create_leaves_alone_what_is_unanswered_and_what_that_set() {
        let tail = tail(vec![
            (OpKind::Delete, json!({}), false),
            (OpKind::Create, json!({"a": 1, "b": 1}), false),
            (OpKind::Replace, json!({"a": 2}), true),
            (OpKind::Update, json!({"c": 3}), false),
        ]);
        let image = Some(fields(json!({"a": 2})));
        let ended = vec![planned(1), planned(2), planned(4)];
        let expected = (OpKind::Update, fields(json!({"b": 9, "c": 3})), image, ended);
        assert_eq!(corrected(None, &tail, 2, json!({"b": 9})), expected);
    }

    #[test]
    fn a_correction_does_not_bring_back_what_was_typed_anew_later() {
        let of = |kind, later: Value| {
            let dead = (OpKind::Update, json!({"a": 1, "b": 1}), false);
            let tail = tail(vec![dead, (kind, later, false)]);
            let (kind, fields, _, ended) =
                corrected(Some(json!({"a": 0})), &tail, 1, json!({"c": 1}));
            assert_eq!(ended, [planned(1)]);
            (kind, fields)
        };
        assert_eq!(
            of(OpKind::Update, json!({"a": 2})),
            (OpKind::Update, fields(json!({"b": 1, "c": 1})))
        );
        assert_eq!(of(OpKind::Replace, json!({"a": 2})), (OpKind::Update, fields(json!({"c": 1}))));
    }

    #[test]
    fn who_corrects_what_was_deleted_since_makes_it_again_with_all_that_it_said() {
        let tail = tail(vec![
            (OpKind::Update, json!({"a": 1, "b": 1}), false),
            (OpKind::Delete, json!({}), false),
        ]);
        let expected =
            (OpKind::Create, fields(json!({"a": 1, "b": 1, "c": 1})), None, vec![planned(1)]);
        assert_eq!(corrected(Some(json!({"a": 0})), &tail, 1, json!({"c": 1})), expected);
    }

    #[test]
    fn a_corrected_create_or_replace_of_a_record_that_is_there_is_an_update_of_it() {
        for kind in [OpKind::Create, OpKind::Replace] {
            let tail = tail(vec![(kind, json!({"a": 1}), false)]);
            let there = Some(json!({"z": 0}));
            let expected = (
                OpKind::Update,
                fields(json!({"a": 2})),
                there.clone().map(fields),
                vec![planned(1)],
            );
            assert_eq!(corrected(there, &tail, 1, json!({"a": 2})), expected, "{kind}");
        }
    }

    #[test]
    fn an_op_that_has_nothing_left_to_say_is_not_part_of_the_image() {
        let mut tail = tail(vec![
            (OpKind::Replace, json!({"a": 1}), false),
            (OpKind::Update, json!({"b": 1}), false),
        ]);
        tail[0].0.drop_fields(&[]);
        tail[0].0.write();
        let (_, _, image, _) = corrected(Some(json!({"a": 0})), &tail, 2, json!({"b": 2}));
        assert_eq!(image, Some(fields(json!({"a": 0}))));
    }

    #[test]
    fn a_correction_does_not_say_again_what_somebody_else_wrote_over_meanwhile() {
        let tail = tail(vec![(OpKind::Update, json!({"a": 1, "b": 1}), false)]);
        let theirs = there(&[("a", json!(9), 99, 50), ("b", json!(0), 99, 0)]);
        let correction = correct_in(&theirs, &tail, 1, fields(json!({"c": 2}))).unwrap();
        assert_eq!(
            correction.mutation,
            Mutation {
                cites: Some(op_id(1)),
                ..Mutation::update(key("1"), fields(json!({"b": 1, "c": 2})))
            }
        );
    }

    #[test]
    fn only_what_is_there_and_says_something_is_corrected() {
        let of =
            |tail: &[(TailOp, bool)]| correct_in(&Registers::default(), tail, 1, Fields::new());
        assert_eq!(of(&[]), Err(NotPossible::NotRefused(op_id(1))));
        let deletion = tail(vec![(OpKind::Delete, json!({}), false)]);
        assert_eq!(of(&deletion), Err(NotPossible::NothingToCorrect(op_id(1))));
    }

    #[test]
    fn what_went_with_a_creation_waits_for_its_correction_and_what_went_with_an_update_does_not() {
        let unit = Isolated { unit: unit_id(1), rest: Rest::SentAgain };
        let of = |kind| before_correction(unit, op_id(1), kind).map(|isolated| isolated.rest);
        assert_eq!(of(OpKind::Create), Ok(Rest::Stays));
        assert_eq!(of(OpKind::Update), Ok(Rest::SentAgain));
        assert_eq!(of(OpKind::Replace), Ok(Rest::SentAgain));
        assert_eq!(of(OpKind::Delete), Err(NotPossible::NothingToCorrect(op_id(1))));
    }
}
