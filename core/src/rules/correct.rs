//! What a corrected dead letter becomes: one new op, which takes the place of the dead one and of what waited for it.
//!
//! | an op of the record's tail | the dead letter is a create | it is anything else |
//! |---|---|---|
//! | is the dead letter | becomes part of the new op, and ends | becomes part of the new op, and ends |
//! | stands before it | becomes part of the new op, and ends | stays as it is |
//! | stands behind it and was not sent | becomes part of the new op, and ends | stays; what it set anew is its own to say |
//! | is under way | stays; what it set anew is its own to say | stays; what it set anew is its own to say |
//!
//! | the ops come to ↓ / without them the app would read → | a record | no record |
//! |---|---|---|
//! | a create | an update | a create |
//! | an update | an update | a create |
//! | a replace | an update | a create |
//! | a delete | a delete | refused when it is written |
//!
//! An op that does not get through ([`super::isolated`]) is corrected in two steps: it is taken out of its unit, which makes it
//! a dead letter, and then corrected as one.
//!
//! Invariants:
//! 1. The values of the correction stand on top of all others.
//! 2. A correction ends no op that is under way, and brings back no value that a later op of the record set anew.
//! 3. What was corrected stays in the log, and the new op cites it.

use super::Image;
use super::coalesce::{Folded, FoldedChange, Step};
use super::isolated::{Isolated, Rest};
use super::not_possible::NotPossible;
use crate::entry::{Decision, PlannedOp};
use crate::fields::Fields;
use crate::ids::OpId;
use crate::names::RecordKey;
use crate::op::{Mutation, OpKind};

/// An op of a record's tail.
#[derive(Debug, Clone, PartialEq)]
pub struct TailOp {
    /// Which.
    pub op: PlannedOp,
    /// What is left of it.
    pub step: Step,
    /// Whether it was sent and has no answer yet.
    pub under_way: bool,
    /// Whether a later op, which has ended, left it nothing to say.
    pub outdated: bool,
}

/// What a corrected dead letter comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Correction {
    /// The new op.
    pub mutation: Mutation,
    /// What the app would read without the ops that end: the new op is written on top of that.
    pub image: Option<Fields>,
    /// The ops that end, oldest first.
    pub ends: Vec<Decision>,
}

/// Decides what a dead letter with `better` on top of its fields comes to. `confirmed` is what the server has of the record,
/// `tail` are its pending ops, oldest first.
///
/// # Errors
/// [`NotPossible`] if the op is not in the tail, or deletes.
pub fn correct(
    key: &RecordKey,
    confirmed: Option<Fields>,
    tail: &[TailOp],
    dead: OpId,
    better: Fields,
) -> Result<Correction, NotPossible> {
    let letter = tail.iter().find(|found| found.op.id == dead).ok_or(NotPossible::NotRefused(dead))?;
    if letter.step.kind == OpKind::Delete {
        return Err(NotPossible::NothingToCorrect(dead));
    }
    let (change, taken) = take_in(tail, letter).ok_or(NotPossible::NotRefused(dead))?;
    let image = image_without(confirmed, tail, &taken);
    let kind = match (change.kind, &image) {
        (OpKind::Create | OpKind::Replace, Some(_)) => OpKind::Update,
        (OpKind::Update | OpKind::Replace, None) => OpKind::Create,
        (kind, _) => kind,
    };
    let mut fields = change.fields;
    fields.compose(better);
    let mutation = Mutation { key: key.clone(), kind, fields, cites: Some(dead) };
    let ends = taken.into_iter().map(|op| Decision::Superseded { key: key.clone(), op }).collect();
    Ok(Correction { mutation, image, ends })
}

/// Folds a dead letter with what becomes part of the new op; returns what they come to, and which ops they are. `None` if they
/// come to nothing.
fn take_in(tail: &[TailOp], letter: &TailOp) -> Option<(FoldedChange, Vec<PlannedOp>)> {
    let takes_all = letter.step.kind == OpKind::Create;
    let (mut folded, mut taken) = (Folded::Nothing, Vec::new());
    for found in tail {
        if found.op.id == letter.op.id || (takes_all && !found.under_way) {
            folded = folded.then(found.step.clone(), true);
            taken.push(found.op);
        } else if let Folded::Change(change) = &mut folded {
            // It stays, and stands before the new op: what it set anew is its own to say.
            match found.step.kind {
                OpKind::Update => {
                    change.fields = change.fields.filtered(|name| found.step.fields.get(name).is_none());
                }
                OpKind::Create | OpKind::Replace => change.fields = Fields::new(),
                // Who corrects what was deleted since wants it back, with all that it said.
                OpKind::Delete => {}
            }
        }
    }
    match folded {
        Folded::Change(change) => Some((change, taken)),
        Folded::Nothing => None,
    }
}

/// Returns what the app would read of a record without some ops of its tail.
fn image_without(confirmed: Option<Fields>, tail: &[TailOp], without: &[PlannedOp]) -> Option<Fields> {
    let mut image = Image { fields: confirmed, before_deletion: None };
    for stays in tail.iter().filter(|found| !found.outdated && !without.contains(&found.op)) {
        image.apply(stays.step.kind, &stays.step.fields);
    }
    image.fields
}

/// Says what becomes of the rest of a unit that does not get through when this op of it is to be corrected.
///
/// # Errors
/// [`NotPossible::NothingToCorrect`] if the op deletes.
pub fn before_correction(isolated: Isolated, op: OpId, kind: OpKind) -> Result<Isolated, NotPossible> {
    match kind {
        OpKind::Delete => Err(NotPossible::NothingToCorrect(op)),
        // The correction of a creation takes in what went with it.
        OpKind::Create => Ok(Isolated { rest: Rest::Stays, ..isolated }),
        OpKind::Update | OpKind::Replace => Ok(isolated),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::rules::desk::{fields, key, op_id, unit_id};
    use crate::rules::test_tail::planned;
    use crate::time::Hlc;

    /// Ops 1, 2, 3, … of a record, each with whether it is under way.
    fn tail(ops: Vec<(OpKind, Value, bool)>) -> Vec<TailOp> {
        let ops = (1..).zip(ops).map(|(number, (kind, said, under_way))| TailOp {
            op: planned(number),
            step: Step { kind, fields: fields(said), edited_at: Hlc::from_bits(number.into()) },
            under_way,
            outdated: false,
        });
        ops.collect()
    }

    /// Corrects an op; returns what is written, on which image, and the ops that end.
    #[track_caller]
    fn corrected(
        confirmed: Option<Value>,
        tail: &[TailOp],
        dead: u8,
        better: Value,
    ) -> (OpKind, Fields, Option<Fields>, Vec<PlannedOp>) {
        let confirmed = confirmed.map(fields);
        let correction = correct(&key("1"), confirmed, tail, op_id(dead), fields(better)).unwrap();
        assert_eq!((&correction.mutation.key, correction.mutation.cites), (&key("1"), Some(op_id(dead))));
        let ended = correction.ends.into_iter().map(|decision| match decision {
            Decision::Superseded { key: of, op } if of == key("1") => op,
            other => panic!("not superseded: {other:?}"),
        });
        (correction.mutation.kind, correction.mutation.fields, correction.image, ended.collect())
    }

    #[test]
    fn a_corrected_create_takes_in_what_waited_for_it() {
        let tail = tail(vec![
            (OpKind::Create, json!({"a": "bad", "b": 1}), false),
            (OpKind::Update, json!({"b": 2}), false),
        ]);
        let expected =
            (OpKind::Create, fields(json!({"a": "good", "b": 2})), None, vec![planned(1), planned(2)]);
        assert_eq!(corrected(None, &tail, 1, json!({"a": "good"})), expected);
    }

    #[test]
    fn a_corrected_create_leaves_alone_what_is_under_way_and_what_that_set() {
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
            let (kind, fields, _, ended) = corrected(Some(json!({"a": 0})), &tail, 1, json!({"c": 1}));
            assert_eq!(ended, [planned(1)]);
            (kind, fields)
        };
        assert_eq!(of(OpKind::Update, json!({"a": 2})), (OpKind::Update, fields(json!({"b": 1, "c": 1}))));
        assert_eq!(of(OpKind::Replace, json!({"a": 2})), (OpKind::Update, fields(json!({"c": 1}))));
    }

    #[test]
    fn who_corrects_what_was_deleted_since_makes_it_again_with_all_that_it_said() {
        let tail =
            tail(vec![(OpKind::Update, json!({"a": 1, "b": 1}), false), (OpKind::Delete, json!({}), false)]);
        let expected = (OpKind::Create, fields(json!({"a": 1, "b": 1, "c": 1})), None, vec![planned(1)]);
        assert_eq!(corrected(Some(json!({"a": 0})), &tail, 1, json!({"c": 1})), expected);
    }

    #[test]
    fn a_corrected_create_or_replace_of_a_record_that_is_there_is_an_update_of_it() {
        for kind in [OpKind::Create, OpKind::Replace] {
            let tail = tail(vec![(kind, json!({"a": 1}), false)]);
            let there = Some(json!({"z": 0}));
            let expected =
                (OpKind::Update, fields(json!({"a": 2})), there.clone().map(fields), vec![planned(1)]);
            assert_eq!(corrected(there, &tail, 1, json!({"a": 2})), expected, "{kind}");
        }
    }

    #[test]
    fn an_op_that_has_nothing_left_to_say_is_not_part_of_the_image() {
        let mut tail =
            tail(vec![(OpKind::Replace, json!({"a": 1}), false), (OpKind::Update, json!({"b": 1}), false)]);
        tail[0].outdated = true;
        let (_, _, image, _) = corrected(Some(json!({"a": 0})), &tail, 2, json!({"b": 2}));
        assert_eq!(image, Some(fields(json!({"a": 0}))));
    }

    #[test]
    fn only_what_is_there_and_says_something_is_corrected() {
        let of = |tail: &[TailOp]| correct(&key("1"), None, tail, op_id(1), Fields::new());
        assert_eq!(of(&[]), Err(NotPossible::NotRefused(op_id(1))));
        let deletion = tail(vec![(OpKind::Delete, json!({}), false)]);
        assert_eq!(of(&deletion), Err(NotPossible::NothingToCorrect(op_id(1))));
    }

    #[test]
    fn what_went_with_a_creation_waits_for_its_correction_and_what_went_with_an_update_does_not() {
        let unit = Isolated { unit: unit_id(1), rest: Rest::GoesAgain };
        let of = |kind| before_correction(unit, op_id(1), kind).map(|isolated| isolated.rest);
        assert_eq!(of(OpKind::Create), Ok(Rest::Stays));
        assert_eq!(of(OpKind::Update), Ok(Rest::GoesAgain));
        assert_eq!(of(OpKind::Replace), Ok(Rest::GoesAgain));
        assert_eq!(of(OpKind::Delete), Err(NotPossible::NothingToCorrect(op_id(1))));
    }
}
