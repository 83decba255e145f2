//! Tests of one answer with an outcome of each kind: the counts of the report, and the messages
//! that are kept.

use serde_json::json;

use super::*;
use crate::entry::CancelledReason;
use crate::limits;
use crate::numbers::Version;
use crate::protocol::Change;
use crate::protocol::Outcome;
use crate::rules::test_view::{TestView, applied, cancelled, superseded, theirs, unit_id};
use crate::time::Hlc;

fn rejected(message: &str) -> Outcome {
    Outcome::Rejected { code: "no".to_owned(), message: message.to_owned() }
}

#[test]
fn an_answer_is_told_in_numbers() {
    let stale = |record| Outcome::Stale {
        current: vec![theirs(record, 3, json!({"n": "theirs"}))],
        applied: vec![],
    };
    let transient = || Outcome::Transient {
        code: "busy".to_owned(),
        message: String::new(),
        retry_after_milliseconds: None,
    };
    // Two of each kind, with 2 and 3 ops.
    let mut view = TestView::default();
    for (record, unit, ops) in [
        ("a", 1, 2),
        ("b", 2, 3),
        ("c", 3, 2),
        ("d", 4, 3),
        ("e", 5, 2),
        ("f", 6, 3),
        ("g", 7, 2),
        ("h", 8, 3),
    ] {
        view = view.with(record, unit, ops, 0);
    }
    let outcomes = vec![
        (1, applied("a")),
        (2, applied("b")),
        (3, stale("c")),
        (4, stale("d")),
        (5, transient()),
        (6, transient()),
        (7, rejected("")),
        (8, rejected("")),
    ];
    let changes = vec![theirs("x", 4, json!({"n": 1})), theirs("y", 5, json!({"n": 1}))];
    let answered = view.take(outcomes, changes);
    let tally = answered.tally;
    assert_eq!((tally.units_acked, tally.ops_acked), (2, 5));
    assert_eq!((tally.units_stale, tally.units_tried, tally.ops_dead), (2, 2, 5));
    // The stale records are among what the server sent.
    assert_eq!((tally.changes, tally.parked), (4, false));
    assert!(tally.conflicts >= 2, "{tally:?}");
    assert!(!answered.is_empty());
}

#[test]
fn an_answer_without_news_is_empty_and_one_with_any_is_not() {
    assert!(TestView::default().take(Vec::new(), Vec::new()).is_empty());
    assert!(!TestView::default().take(Vec::new(), vec![theirs("x", 4, json!({}))]).is_empty());
    let full = || TestView::default().with("a", 1, 1, 0).take(vec![(1, applied("a"))], Vec::new());
    assert!(!full().is_empty());
    let only_decisions =
        Answered { upstream: TestView::default().take(Vec::new(), Vec::new()).upstream, ..full() };
    assert!(!only_decisions.is_empty());
    let only_outcomes = Answered { decisions: Vec::new(), ..full() };
    assert!(!only_outcomes.is_empty());
}

#[test]
fn what_the_server_says_to_people_is_kept_beside_its_code_and_cut_at_a_character() {
    let mut view = TestView::default().with("a", 1, 1, 0).with("b", 2, 1, 0);
    let long = "é".repeat(limits::MESSAGE_BYTES);
    let answered = view.take(vec![(1, rejected("")), (2, rejected(&long))], Vec::new());
    let told: Vec<_> = answered.upstream.outcomes.iter().map(|outcome| outcome.message).collect();
    assert_eq!(told, [None, Some(0)]);
    let messages = answered.decisions.iter().filter_map(|decision| match decision {
        Decision::DeadLettered { code, message, .. } => Some((code.as_str(), *message)),
        _ => None,
    });
    assert_eq!(messages.collect::<Vec<_>>(), [("no", None), ("no", Some(0))]);
    for (text, bytes, expected) in
        [("é", 0, ""), ("é", 1, ""), ("é", 2, "é"), ("aéb", 2, "a"), ("ab", 9, "ab")]
    {
        assert_eq!(cut(text, bytes), expected, "{text} to {bytes}");
    }
}

#[test]
fn what_an_abandoned_unit_turns_out_to_have_brought_ends_as_arrived_unless_it_is_unanswered() {
    let mut view = TestView::default().with("a", 1, 1, 1);
    let row = view.row("a");
    let lost = unit_id(50);
    for pending in &mut row.tail {
        pending.earlier_units.push(lost);
    }
    let (sent, waits) = (row.tail[0].op, row.tail[1].op);
    // The server keeps stamps unchanged, so the device recognises its own write by the stamp.
    let told =
        Change { op: waits, edited_at: row.tail[1].edited_at, ..theirs("a", 2, json!({"n": 1})) };
    let ended = |view: &mut TestView| cancelled(&view.take(Vec::new(), vec![told.clone()]));
    assert_eq!(
        ended(&mut view),
        [(CancelledReason::AlreadyApplied, vec![waits])],
        "the first is unanswered again"
    );
    view.units.clear();
    let after = view.take(Vec::new(), vec![told.clone()]);
    assert_eq!(cancelled(&after), [(CancelledReason::AlreadyApplied, vec![waits])]);
    assert_eq!(
        superseded(&after),
        [sent],
        "what came by the same unit was covered by the later word"
    );
    assert_eq!(after.tally.conflicts, 0);
}

#[test]
fn both_sides_deleted_and_ours_ends_with_what_it_covered_whatever_becomes_of_an_earlier_op() {
    let mut view = TestView::default().with("a", 1, 1, 2);
    let (covered, delete) = (view.row("a").tail[1].op, view.turn_into_delete("a", 2));
    let deleted = || Change { deleted: true, fields: None, ..theirs("a", 3, json!({})) };
    for outcomes in [Vec::new(), vec![(1, applied("a"))]] {
        let answered = view.take(outcomes, vec![deleted()]);
        assert_eq!(cancelled(&answered), [(CancelledReason::NoEffect, vec![delete])]);
        assert_eq!((superseded(&answered), answered.tally.conflicts), (vec![covered], 0));
    }
}

#[test]
fn what_an_earlier_unit_turns_out_to_have_brought_ends_as_arrived_when_its_later_one_is_stale() {
    let mut view = TestView::default().with("a", 1, 1, 0);
    let pending = &mut view.row("a").tail[0];
    pending.earlier_units.push(unit_id(50));
    let (own, edited_at) = (pending.op, pending.edited_at);
    let current = vec![Change { op: own, edited_at, ..theirs("a", 2, json!({"n": 0})) }];
    let answered =
        view.take(vec![(1, Outcome::Stale { current, applied: Vec::new() })], Vec::new());
    assert_eq!(cancelled(&answered), [(CancelledReason::AlreadyApplied, vec![own])]);
}

#[test]
fn a_restored_server_is_offered_what_its_former_life_had_last() {
    let offered = |edited_at: u64, prepare: &dyn Fn(&mut TestView)| {
        let mut view = TestView::default().with("a", 1, 0, 1);
        view.units.clear();
        let confirmed = view.row("a").confirmed.as_mut().unwrap();
        (confirmed.version, confirmed.edited_at) = (Version::default(), Hlc::from_bits(5_000));
        prepare(&mut view);
        let change =
            Change { edited_at: Hlc::from_bits(edited_at), ..theirs("a", 1, json!({"n": "old"})) };
        view.take(Vec::new(), vec![change]).reoffers.len()
    };
    let nothing = |_: &mut TestView| {};
    assert_eq!(
        offered(4_999, &nothing),
        1,
        "an edit of ours that waits does not stand in its place"
    );
    assert_eq!(offered(5_000, &nothing), 0, "it is the same edit");
    let deleted = |view: &mut TestView| {
        view.turn_into_delete("a", 0);
    };
    assert_eq!(offered(4_999, &deleted), 0, "we do not want it either");
    let abandoned = |view: &mut TestView| {
        view.turn_into_delete("a", 0);
        view.row("a").tail[0].dead = true;
    };
    assert_eq!(offered(4_999, &abandoned), 1, "the delete was refused");
}

/// No edit causes a full disk, but an edit became a dead letter after five such answers.
#[test]
fn a_unit_for_which_a_tenant_has_no_room_waits_however_long_that_takes() {
    let mut view = TestView::default().with("a", 1, 1, 0).with("b", 2, 1, 0);
    view.units.values_mut().for_each(|unit| unit.tries = limits::TRIES - 1);
    let told = |code: &str| Outcome::Transient {
        code: code.to_owned(),
        message: String::new(),
        retry_after_milliseconds: Some(900_000),
    };
    // The server's wish is longer than any backoff after so many tries.
    let answered = view.take(vec![(1, told("quota_exceeded")), (2, told("busy"))], Vec::new());
    let waits = answered.decisions.iter().filter_map(|decision| match decision {
        Decision::Tried { unit, tries, retry_at, .. } => Some((*unit, *tries, *retry_at)),
        _ => None,
    });
    assert_eq!(
        waits.collect::<Vec<_>>(),
        [(unit_id(1), limits::TRIES - 1, WallTime::from_milliseconds(900_000))]
    );
    assert_eq!(answered.tally.ops_dead, 1);
}
