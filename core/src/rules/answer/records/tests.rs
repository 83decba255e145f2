//! Tests of what the ops of a record's tail meet when acks, late pages and units that were sent
//! back come together.

use serde_json::{Value, json};

use super::*;
use crate::entry::{Conflicted, Extent, Item, Winner};
use crate::op::OpKind;
use crate::protocol::Outcome;
use crate::record::SentFor;
use crate::rules::answer::Answered;
use crate::rules::test_view::{
    TestView, applied, cancelled, fields, key, superseded, theirs, unit_id,
};
use crate::time::Hlc;

/// Returns the conflicts that an answer led to, each with what stood in `n` before.
fn conflicts(answered: Answered) -> Vec<(Conflicted, Value)> {
    let items: Vec<Item> = answered.decision_items.into();
    let found = answered.decisions.into_iter().filter_map(|decision| match decision {
        Decision::Conflicted(found) => Some(found),
        _ => None,
    });
    let with_base = found.map(|found| {
        let base = items[usize::try_from(found.base).unwrap()].bytes().unwrap();
        let base: Value = serde_json::from_slice(base).unwrap();
        (found, base["n"].clone())
    });
    with_base.collect()
}

#[track_caller]
fn conflict(answered: Answered) -> (Conflicted, Value) {
    let mut found = conflicts(answered);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn stale(current: Change) -> Vec<(u8, Outcome)> {
    vec![(1, Outcome::Stale { current: vec![current], applied: Vec::new() })]
}

fn refused() -> Vec<(u8, Outcome)> {
    vec![(1, Outcome::Rejected { code: "forbidden".to_owned(), message: String::new() })]
}

fn deleted(record: &str, version: u64) -> Change {
    Change { deleted: true, fields: None, ..theirs(record, version, json!({})) }
}

/// Confirms a record of somebody else, as an earlier page had it.
fn told_before(view: &mut TestView, record: &str, version: u64, value: &Value) {
    let told = theirs(record, version, json!({ "n": value }));
    let confirmed = view.row(record).confirmed.as_mut().unwrap();
    (confirmed.version, confirmed.edited_at, confirmed.op) =
        (told.version, told.edited_at, told.op);
    confirmed.fields = told.fields.unwrap();
}

#[test]
fn what_the_same_answer_acks_is_what_a_later_op_was_made_on() {
    let mut view = TestView::default().with("a", 1, 1, 1);
    let answered = view.take(vec![(1, applied("a"))], vec![theirs("a", 3, json!({"n": "theirs"}))]);
    assert_eq!(conflict(answered).1, json!(0));
}

#[test]
fn an_ack_judges_nothing() {
    let mut view = TestView::default().with("a", 1, 1, 1);
    told_before(&mut view, "a", 1, &json!("theirs"));
    let answered = view.take(vec![(1, applied("a"))], Vec::new());
    assert_eq!(answered.decisions.len(), 1, "{:?}", answered.decisions);
}

#[test]
fn an_ack_that_a_page_has_overtaken_is_in_what_the_page_brought() {
    let mut view = TestView::default().with("a", 1, 1, 1);
    told_before(&mut view, "a", 4, &json!("later"));
    // The author of the waiting op had read it: the op's stamp is above it.
    view.row("a").confirmed.as_mut().unwrap().edited_at = Hlc::from_bits(1_000);
    let newest =
        Change { edited_at: Hlc::from_bits(6_000), ..theirs("a", 5, json!({"n": "theirs"})) };
    let answered = view.take(vec![(1, applied("a"))], vec![newest]);
    assert_eq!(conflict(answered).1, json!("later"));
}

#[test]
fn a_stale_answer_that_a_page_has_overtaken_is_judged_against_what_the_page_brought() {
    for old in [theirs("a", 3, json!({"n": "old"})), deleted("a", 3)] {
        let mut view = TestView::default().with("a", 1, 1, 0);
        told_before(&mut view, "a", 5, &json!("newest"));
        let (met, base) = conflict(view.take(stale(old), Vec::new()));
        assert_eq!(
            (met.version, met.extent, base),
            (Version::new(5), Extent::Whole, json!("before"))
        );
        assert_eq!((met.winner, met.remote_edited_at), (Winner::Remote, Hlc::from_bits(5_000)));
    }
}

#[test]
fn what_is_refused_meets_what_is_new_since_its_unit_was_planned_and_stays_listed() {
    let mut view = TestView::default().with("a", 1, 1, 0);
    told_before(&mut view, "a", 5, &json!("newest"));
    let answered = view.take(refused(), Vec::new());
    assert_eq!((superseded(&answered), cancelled(&answered)), (Vec::new(), Vec::new()));
    assert_eq!(conflict(answered).1, json!("before"));
    let unchanged = TestView::default().with("a", 1, 1, 0).take(refused(), Vec::new());
    assert_eq!(unchanged.tally.conflicts, 0, "it was made for what the server has");
}

#[test]
fn two_deletions_are_no_conflict_also_behind_an_edit_that_was_stale() {
    let mut view = TestView::default().with("a", 1, 1, 1);
    let waits = view.turn_into_delete("a", 1);
    let answered = view.take(stale(deleted("a", 3)), Vec::new());
    assert_eq!(cancelled(&answered), [(CancelledReason::NoEffect, vec![waits])]);
}

#[test]
fn what_came_to_the_server_by_another_unit_than_the_last_word_did_not_come_with_it() {
    let mut view = TestView::default().with("a", 1, 0, 2);
    view.units.clear();
    let row = view.row("a");
    row.tail[0].earlier_units.push(unit_id(50));
    row.tail[1].earlier_units.push(unit_id(51));
    let (last, edited_at) = (row.tail[1].op, row.tail[1].edited_at);
    let news = Change { op: last, edited_at, ..theirs("a", 2, json!({"n": 1})) };
    assert_eq!(
        cancelled(&view.take(Vec::new(), vec![news])),
        [(CancelledReason::AlreadyApplied, vec![last])]
    );
}

#[test]
fn a_unit_of_one_record_whose_last_write_the_server_has_is_acked_by_the_page_that_tells_it() {
    let mut view = TestView::default().with("a", 1, 2, 0);
    let last = view.row("a").tail[1].clone();
    let told = Change { op: last.op, edited_at: last.edited_at, ..theirs("a", 2, json!({"n": 1})) };
    let answered = view.take(Vec::new(), vec![told]);
    assert_eq!(
        (answered.tally.units_acked, answered.tally.ops_acked, answered.tally.conflicts),
        (1, 2, 0)
    );
    assert!(
        matches!(answered.decisions.as_slice(), [Decision::Acked { .. }]),
        "{:?}",
        answered.decisions
    );
}

#[test]
fn a_transaction_waits_for_its_outcome_which_tells_of_all_its_records() {
    let mut view = TestView::default().with("a", 1, 1, 0).with("b", 2, 1, 0);
    let other = view.units.remove(&unit_id(2)).unwrap();
    let unit = view.units.get_mut(&unit_id(1)).unwrap();
    unit.changes.extend(other.changes);
    unit.records.extend(other.records);
    let sent = view.row("a").tail[0].clone();
    let told = Change { op: sent.op, edited_at: sent.edited_at, ..theirs("a", 2, json!({"n": 0})) };
    let answered = view.take(Vec::new(), vec![told]);
    assert_eq!(answered.decisions, []);
}

#[test]
fn a_record_of_a_requeued_transaction_is_judged_though_another_one_was_stale() {
    let mut view = TestView::default().with("a", 1, 1, 0).with("b", 2, 1, 0);
    let other = view.units.remove(&unit_id(2)).unwrap();
    let unit = view.units.get_mut(&unit_id(1)).unwrap();
    unit.changes.extend(other.changes);
    unit.records.extend(other.records);
    let stale = stale(theirs("a", 3, json!({"n": 0})));
    let answered = view.take(stale, vec![theirs("b", 4, json!({"n": "theirs"}))]);
    let (conflict, base) = conflict(answered);
    assert_eq!((conflict.key, base), (key("b"), json!("before")));
}

/// The page came while the transaction was in flight. The answer was made before the page: another
/// record was stale.
#[test]
fn a_record_of_a_requeued_transaction_is_judged_though_only_an_earlier_page_had_its_news() {
    let judged = |has_news: bool| {
        let mut view = TestView::default().with("a", 1, 1, 0).with("b", 2, 1, 0);
        let other = view.units.remove(&unit_id(2)).unwrap();
        let unit = view.units.get_mut(&unit_id(1)).unwrap();
        unit.changes.extend(other.changes);
        unit.records.extend(other.records);
        if has_news {
            told_before(&mut view, "b", 4, &json!("theirs"));
        }
        view.take(stale(theirs("a", 3, json!({"n": 0}))), Vec::new())
    };
    let (conflict, base) = conflict(judged(true));
    assert_eq!((conflict.key, base), (key("b"), json!("before")));
    assert_eq!((conflict.version, conflict.winner), (Version::new(4), Winner::Remote));
    assert_eq!(judged(false).tally.conflicts, 0, "it was made for what the server has");
}

#[test]
fn an_answer_to_one_unit_says_nothing_of_another_that_is_on_its_way() {
    for outcomes in [refused(), stale(theirs("a", 3, json!({"n": 0})))] {
        let mut view = TestView::default().with("a", 1, 1, 0).with("b", 2, 1, 0);
        let answered = view.take(outcomes, vec![deleted("b", 4)]);
        let on_b = answered.decisions.iter().filter(|decision| match decision {
            Decision::Cancelled(cancelled) => cancelled.key == key("b"),
            Decision::Conflicted(conflict) => conflict.key == key("b"),
            Decision::Superseded { key: of, .. } | Decision::Dropped { key: of, .. } => {
                *of == key("b")
            }
            _ => false,
        });
        assert_eq!(on_b.count(), 0);
    }
}

#[test]
fn a_unit_that_was_abandoned_is_judged_by_nothing_but_another_life_of_the_server() {
    let abandoned = |former: bool| {
        let mut view = TestView::default().with("a", 1, 0, 1);
        view.units.clear();
        let row = view.row("a");
        row.tail[0].abandoned =
            Some(SentFor { version: row.version(), record: row.confirmed.clone() });
        if former {
            row.await_confirmation();
        }
        view.take(Vec::new(), vec![theirs("a", 3, json!({"n": "theirs"}))])
    };
    assert_eq!(abandoned(false).decisions, []);
    assert_eq!(conflict(abandoned(true)).1, json!("before"));
}

/// A write of the accepted server can have an earlier stamp than the record of the former one.
#[test]
fn a_unit_that_was_planned_for_a_former_epoch_meets_what_an_earlier_page_of_this_one_brought() {
    let found = |planned_on: u64| {
        let mut view = TestView::default().with("a", 1, 1, 0);
        let unit = view.units.get_mut(&unit_id(1)).unwrap();
        let record = unit.records[0].as_mut().unwrap();
        (record.version, record.edited_at) = (Version::new(planned_on), Hlc::from_bits(6_000));
        view.row("a").tail[0].edited_at = Hlc::from_bits(7_000);
        told_before(&mut view, "a", 9, &json!("theirs"));
        conflicts(view.take(stale(theirs("a", 9, json!({"n": "theirs"}))), Vec::new())).len()
    };
    assert_eq!(found(0), 1);
    // In one epoch nobody can have written later with an earlier stamp.
    assert_eq!(found(1), 0);
}

#[test]
fn what_was_stale_too_often_waits_for_a_person() {
    let parked = |stale_before: u32| {
        let mut view = TestView::default().with("a", 1, 1, 0);
        let pending = &mut view.row("a").tail[0];
        pending.stale = stale_before;
        let op = pending.op;
        let answered = view.take(stale(theirs("a", 3, json!({"other": 1}))), Vec::new());
        let scope = crate::entry::ParkScope::Op(op);
        answered.decisions.contains(&Decision::Parked { scope, code: "stale".to_owned() })
    };
    let last = crate::limits::STALE_TRIES - 1;
    assert_eq!((parked(last - 1), parked(last)), (false, true));
}

#[test]
fn a_deletion_and_a_creation_of_ours_meet_theirs_as_the_replace_that_they_are() {
    let mut view = TestView::default().with("a", 1, 0, 2);
    view.units.clear();
    view.turn_into_delete("a", 0);
    let row = view.row("a");
    row.tail[1].kind = OpKind::Create;
    let place = row.tail[1].place;
    let content = view.ops.get_mut(&place).unwrap();
    (content.kind, content.fields) = (OpKind::Create, fields(json!({"n": 2})));
    let (met, base) = conflict(view.take(Vec::new(), vec![theirs("a", 3, json!({"n": 3}))]));
    assert_eq!((met.kind, met.winner, base), (OpKind::Replace, Winner::Remote, json!("before")));
}
