//! Each row of the tables of the module, and what a person can choose.

use super::*;
use crate::entry::Extent;
use crate::numbers::Version;
use crate::op::OpPlace;
use crate::time::Hlc;
use serde_json::json;

fn fields(value: Value) -> Fields {
    Fields::from_value(value).unwrap()
}

fn key() -> RecordKey {
    RecordKey::parse("lead", "1").unwrap()
}

#[test]
fn an_update_is_taken_back_field_by_field() {
    let (before, now) = (fields(json!({"a": 1, "b": 1})), fields(json!({"a": 2, "b": 2, "c": 2})));
    let op = fields(json!({"a": 2, "c": 2}));
    assert_eq!(
        compensate(&key(), OpKind::Update, &op, Some(&before), Some(&now)),
        Compensation::Op(Mutation::update(key(), fields(json!({"a": 1, "c": null}))))
    );
}

#[test]
fn what_someone_changed_since_is_left_alone() {
    let (before, now) = (fields(json!({"a": 1})), fields(json!({"a": 3})));
    let undone = compensate(&key(), OpKind::Update, &fields(json!({"a": 2})), Some(&before), Some(&now));
    assert_eq!(undone, Compensation::Nothing);
}

#[test]
fn a_delete_is_taken_back_with_the_whole_image() {
    let before = fields(json!({"a": 1}));
    assert_eq!(
        compensate(&key(), OpKind::Delete, &Fields::new(), Some(&before), None),
        Compensation::Op(Mutation::create(key(), before))
    );
    assert_eq!(
        compensate(&key(), OpKind::Create, &fields(json!({"a": 1})), None, Some(&fields(json!({"a": 1})))),
        Compensation::Op(Mutation::delete(key()))
    );
}

fn tail(ops: Vec<(OpKind, Value, bool)>) -> Vec<TailOp> {
    let ops = (1..).zip(ops).map(|(number, (kind, value, under_way))| TailOp {
        op: PlannedOp { id: OpId::from_bytes([number; 16]), place: OpPlace::default() },
        step: Step { kind, fields: fields(value), edited_at: Hlc::from_bits(u64::from(number)) },
        under_way,
    });
    ops.collect()
}

/// Corrects an op, and returns what is sent and the numbers of the ops that it ends.
fn corrected(tail: &[TailOp], dead: u8, better: Value) -> (OpKind, Fields, Vec<u8>) {
    let correction = correct(tail, OpId::from_bytes([dead; 16]), fields(better)).unwrap();
    let ended = correction.taken.iter().map(|op| op.id.as_bytes()[0]).collect();
    (correction.change.kind, correction.change.fields, ended)
}

#[test]
fn a_corrected_create_takes_in_what_waited_for_it() {
    let tail = tail(vec![
        (OpKind::Create, json!({"a": "bad", "b": 1}), false),
        (OpKind::Update, json!({"b": 2}), false),
    ]);
    let expected = (OpKind::Create, fields(json!({"a": "good", "b": 2})), vec![1, 2]);
    assert_eq!(corrected(&tail, 1, json!({"a": "good"})), expected);
}

#[test]
fn a_corrected_create_leaves_alone_what_is_under_way_and_what_that_set() {
    let tail = tail(vec![
        (OpKind::Delete, json!({}), false),
        (OpKind::Create, json!({"a": 1, "b": 1}), false),
        (OpKind::Replace, json!({"a": 2}), true),
        (OpKind::Update, json!({"c": 3}), false),
    ]);
    let expected = (OpKind::Replace, fields(json!({"b": 9, "c": 3})), vec![1, 2, 4]);
    assert_eq!(corrected(&tail, 2, json!({"b": 9})), expected);
}

#[test]
fn a_correction_does_not_bring_back_what_was_typed_anew_later() {
    let later =
        |kind| tail(vec![(OpKind::Update, json!({"a": 1, "b": 1}), false), (kind, json!({"a": 2}), false)]);
    let of = |kind| corrected(&later(kind), 1, json!({"c": 1}));
    assert_eq!(of(OpKind::Update), (OpKind::Update, fields(json!({"b": 1, "c": 1})), vec![1]));
    assert_eq!(of(OpKind::Replace), (OpKind::Update, fields(json!({"c": 1})), vec![1]));
    assert_eq!(of(OpKind::Delete), (OpKind::Update, fields(json!({"a": 1, "b": 1, "c": 1})), vec![1]));
}

#[test]
fn only_what_is_there_is_corrected() {
    assert_eq!(correct(&[], OpId::from_bytes([1; 16]), Fields::new()), None);
}

/// A conflict of an op of this kind with the server, which deleted the record or not; with its fields, if it was settled by field.
fn conflict(kind: OpKind, winner: Winner, deleted: bool, settled: &[(&str, Winner)]) -> ConflictRow {
    let nothing = Fields::new().to_json();
    let policy = crate::schema::Policy::LastWriteWins;
    ConflictRow {
        key: key(),
        op: PlannedOp { id: OpId::from_bytes([1; 16]), place: OpPlace::default() },
        kind,
        edited_at: Hlc::ZERO,
        version: Version::new(2),
        extent: if deleted { Extent::Deleted } else { Extent::Whole },
        remote_edited_at: Hlc::ZERO,
        fields: settled.iter().map(|(name, winner)| ((*name).to_owned(), policy, *winner)).collect(),
        winner,
        rule: policy,
        base: nothing.clone(),
        local: nothing.clone(),
        remote: nothing,
        merged: None,
        functions: Vec::new(),
        at: crate::time::WallTime::default(),
        open: winner == Winner::Undecided,
    }
}

#[test]
fn a_flip_of_fields_gives_each_the_value_of_the_side_that_lost_it() {
    let conflict =
        conflict(OpKind::Update, Winner::Local, false, &[("a", Winner::Remote), ("b", Winner::Local)]);
    let values = FlipFields {
        local: fields(json!({"a": "ours", "b": "ours"})),
        remote: fields(json!({"a": "theirs"})),
        last: Fields::new(),
    };
    let patch = fields(json!({"a": "ours", "b": null}));
    assert_eq!(flip(&conflict, &values, Some(&Fields::new())), Ok(Some(Mutation::update(key(), patch))));
    assert_eq!(flip(&conflict, &values, None), Ok(None), "there is no record to put them in");
}

#[test]
fn a_flip_of_a_whole_record_does_what_the_side_that_lost_had_done() {
    use OpKind::{Delete, Replace, Update};
    use Winner::{Local, Remote};
    let values = FlipFields {
        local: fields(json!({"a": "ours"})),
        remote: fields(json!({"a": "theirs"})),
        last: fields(json!({"a": "last", "b": "last"})),
    };
    let ours = || values.local.clone();
    let theirs = || values.remote.clone();
    let on_top = || fields(json!({"a": "ours", "b": "last"}));
    for (kind, winner, deleted, is_there, expected) in [
        (Delete, Remote, false, true, Some(Mutation::delete(key()))),
        (Delete, Remote, false, false, None),
        (Delete, Local, false, false, Some(Mutation::create(key(), theirs()))),
        (Delete, Local, false, true, None),
        (Replace, Remote, false, true, Some(Mutation::replace(key(), ours()))),
        (Replace, Remote, false, false, None),
        (Replace, Local, false, true, Some(Mutation::replace(key(), theirs()))),
        (Replace, Remote, true, false, Some(Mutation::create(key(), ours()))),
        (Replace, Remote, true, true, None),
        (Replace, Local, true, true, Some(Mutation::delete(key()))),
        (Update, Remote, true, false, Some(Mutation::create(key(), on_top()))),
        (Update, Remote, true, true, None),
        (Update, Remote, false, false, None),
        (Update, Local, true, true, Some(Mutation::delete(key()))),
        (Update, Local, true, false, None),
        (Update, Local, false, true, None),
    ] {
        let now = is_there.then(Fields::new);
        let flipped = flip(&conflict(kind, winner, deleted, &[]), &values, now.as_ref());
        assert_eq!(flipped, Ok(expected), "{kind:?}, {winner:?} won, deleted: {deleted}, there: {is_there}");
    }
}

#[test]
fn what_is_open_or_merged_is_not_flipped() {
    for (winner, why) in [(Winner::Undecided, NotFlippable::Open), (Winner::Merged, NotFlippable::Merged)] {
        let conflict = conflict(OpKind::Update, winner, false, &[("a", winner)]);
        assert_eq!(flip(&conflict, &FlipFields::default(), None), Err(why));
    }
}

#[test]
fn a_choice_says_what_the_op_loses_and_whether_anything_of_it_is_left() {
    let by_field = |names: &[&str]| {
        let undecided: Vec<_> = names.iter().map(|name| (*name, Winner::Undecided)).collect();
        let mut settled = vec![("settled", Winner::Local)];
        settled.extend(undecided);
        conflict(OpKind::Update, Winner::Undecided, false, &settled)
    };
    let effective = fields(json!({"a": 1, "b": 2}));
    let theirs = |conflict: &ConflictRow| choose(conflict, &effective, &Choice::Theirs).unwrap();
    let lost = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let part = theirs(&by_field(&["a"]));
    assert_eq!(part, Chosen { lost: lost(&["a"]), merged: None, superseded: false });
    let all = theirs(&by_field(&["a", "b"]));
    assert_eq!(all, Chosen { lost: lost(&["a", "b"]), merged: None, superseded: true });
    let whole = conflict(OpKind::Delete, Winner::Undecided, false, &[]);
    assert_eq!(theirs(&whole), Chosen { superseded: true, ..Chosen::default() });
    assert_eq!(choose(&whole, &effective, &Choice::Mine), Ok(Chosen::default()));
    let merged = Choice::Merged(fields(json!({"a": 3})));
    let chosen = Chosen { merged: Some(fields(json!({"a": 3}))), ..Chosen::default() };
    assert_eq!(choose(&whole, &effective, &merged), Ok(chosen));
    let settled = conflict(OpKind::Update, Winner::Local, false, &[("a", Winner::Local)]);
    assert_eq!(choose(&settled, &effective, &Choice::Theirs), Err(NotFlippable::Settled));
}
