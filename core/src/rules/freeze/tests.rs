//! The rest of ops that lost some or all of their fields, and the earlier units that a new unit
//! names. The spec cases test all other freezing.

use super::*;
use crate::names::Actor;
use crate::random::SeededRandomness;
use crate::rules::test_view::{TestView, key, unit_id};
use crate::time::Hlc;

/// Freezes all waiting ops of one record.
fn frozen(view: &mut TestView, absorbed: Option<UnitId>) -> Frozen {
    let places = view.row("a").tail.iter().map(|reference| reference.place).collect();
    let group = Group {
        records: vec![(key("a"), places)],
        actor: Actor::parse("ann").unwrap(),
        absorbs: absorbed,
    };
    let mut random = SeededRandomness::from_number(1);
    freeze(view, &[group], Seq::new(9), WallTime::default(), &mut random).unwrap()
}

fn earlier_units(view: &mut TestView, absorbed: Option<UnitId>) -> Vec<UnitId> {
    frozen(view, absorbed).planned.units.into_iter().flat_map(|unit| unit.earlier_units).collect()
}

fn reasons(frozen: &Frozen) -> Vec<CancelledReason> {
    frozen.planned.cancelled.iter().map(|cancelled| cancelled.reason).collect()
}

#[test]
fn an_op_that_lost_all_says_nothing_beside_the_later_one() {
    let mut view = TestView::default().with("a", 1, 0, 2);
    view.row("a").tail[0].emptied = true;
    let frozen = frozen(&mut view, None);
    let change = &frozen.planned.units[0].changes[0];
    assert_eq!((change.ops.len(), change.edited_at), (2, Hlc::from_bits(1_001)));
    let items: Vec<crate::entry::Item> = frozen.items.into();
    assert_eq!(items[0].bytes(), Some(br#"{"n":1}"#.as_slice()));
}

#[test]
fn ops_that_all_lost_what_they_said_end_without_effect_and_not_as_created_and_deleted() {
    let mut view = TestView::default().with("a", 1, 0, 1);
    view.row("a").tail[0].emptied = true;
    assert_eq!(reasons(&frozen(&mut view, None)), [CancelledReason::NoEffect]);
}

#[test]
fn what_an_op_says_is_not_written_a_second_time_unless_it_changed() {
    let source = |view: &mut TestView| frozen(view, None).planned.units[0].changes[0].fields;
    let mut view = TestView::default().with("a", 1, 0, 1);
    let place = view.row("a").tail[0].place;
    assert_eq!(source(&mut view), FieldsSource::OfOp(place));
    view.row("a").tail[0].named =
        Some(crate::rules::test_view::fields(serde_json::json!({"m": 1})).to_json());
    assert_eq!(source(&mut view), FieldsSource::Item(Seq::new(9), 0));
    assert_eq!(
        source(&mut TestView::default().with("a", 1, 0, 2)),
        FieldsSource::Item(Seq::new(9), 0)
    );
}

#[test]
fn created_and_deleted_is_nothing_unless_there_is_or_may_be_such_a_record() {
    let view = |is_there: bool| {
        let mut view = TestView::default().with("a", 1, 0, 2);
        view.row("a").tail[0].kind = OpKind::Create;
        let place = view.row("a").tail[0].place;
        view.ops.get_mut(&place).unwrap().kind = OpKind::Create;
        view.turn_into_delete("a", 1);
        if !is_there {
            view.row("a").confirmed = None;
        }
        view
    };
    assert_eq!(reasons(&frozen(&mut view(false), None)), [CancelledReason::CreatedAndDeleted]);
    assert_eq!(reasons(&frozen(&mut view(true), None)), []);
    assert_eq!(reasons(&frozen(&mut view(false), Some(unit_id(200)))), []);
}

#[test]
fn a_delete_of_what_is_not_there_is_sent_only_if_it_may_have_been() {
    let mut view = TestView::default().with("a", 1, 0, 1);
    view.turn_into_delete("a", 0);
    view.row("a").confirmed = None;
    assert_eq!(reasons(&frozen(&mut view, None)), [CancelledReason::NoEffect]);
    let again = frozen(&mut view, Some(unit_id(200)));
    assert_eq!(again.planned.units[0].changes[0].kind, OpKind::Delete);
}

#[test]
fn a_unit_names_each_attempt_of_its_ops_once() {
    let mut view = TestView::default().with("a", 1, 0, 2);
    let row = view.row("a");
    row.tail[0].earlier_units.extend([unit_id(7), unit_id(8)]);
    row.tail[1].earlier_units.extend([unit_id(8), unit_id(9)]);
    assert_eq!(earlier_units(&mut view, None), [unit_id(7), unit_id(8), unit_id(9)]);
}

#[test]
fn of_too_many_attempts_the_newest_are_named_and_the_one_that_is_taken_over() {
    let attempt = |number: u16| {
        let [high, low] = number.to_be_bytes();
        UnitId::from_bytes([high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    };
    let mut view = TestView::default().with("a", 1, 0, 1);
    view.row("a").tail[0].earlier_units.extend((0..1_200).map(attempt));
    let named = earlier_units(&mut view, Some(unit_id(200)));
    assert_eq!(named.len(), limits::TRANSACTION_OPS);
    assert_eq!(named.first(), Some(&attempt(201)));
    assert_eq!(named[named.len() - 2..], [attempt(1_199), unit_id(200)]);
}

/// A record was created, deleted and created again before any of it left. The first two ops end.
/// Fields that the third had removed with the deletion's stamp would otherwise stay above later
/// writes of the record.
#[test]
fn what_a_creation_took_away_by_a_deletion_falls_when_the_plan_ends_that() {
    let mut view = TestView::default().with("a", 1, 0, 3);
    view.row("a").confirmed = None;
    view.turn_into_delete("a", 1);
    for number in [0, 2] {
        let pending = &mut view.row("a").tail[number];
        pending.kind = OpKind::Create;
        let place = pending.place;
        view.ops.get_mut(&place).unwrap().kind = OpKind::Create;
    }
    let [deletion, anew] = [1, 2].map(|number| view.row("a").tail[number].clone());
    view.row("a").tail[2].cleared = vec!["m".to_owned()];
    view.row("a").tail[2].cleared_at = Some(deletion.stamp());
    let places = view.row("a").tail[..2].iter().map(|pending| pending.place).collect();
    let group = Group {
        records: vec![(key("a"), places)],
        actor: Actor::parse("ann").unwrap(),
        absorbs: None,
    };
    let mut random = SeededRandomness::from_number(1);
    let frozen =
        freeze(&mut view, &[group], Seq::new(9), WallTime::default(), &mut random).unwrap();
    assert_eq!(reasons(&frozen), [CancelledReason::CreatedAndDeleted]);
    let op = PlannedOp { id: anew.op, place: anew.place };
    let falls = Decision::Dropped { key: key("a"), op, fields: vec!["m".to_owned()] };
    assert_eq!(frozen.fallen, [falls]);
    assert_eq!(frozen.into_drafts().len(), 2, "the plan, and what falls with it");
}

/// A creation and an edit were refused, the record was deleted, and the creation was retried. Both
/// ended with the deletion, and the deleted record showed the fields of the edit.
#[test]
fn a_deletion_that_ends_without_leaving_takes_what_dead_letters_beneath_it_would_show() {
    let mut view = TestView::default().with("a", 1, 0, 3);
    view.row("a").tail[0].kind = OpKind::Create;
    let places: Vec<_> = view.row("a").tail.iter().map(|pending| pending.place).collect();
    view.ops.get_mut(&places[0]).unwrap().kind = OpKind::Create;
    view.turn_into_delete("a", 2);
    view.row("a").confirmed = None;
    view.row("a").tail[1].dead = true;
    let dead = view.row("a").tail[1].clone();
    let records = vec![(key("a"), vec![places[0], places[2]])];
    let group = Group { records, actor: Actor::parse("ann").unwrap(), absorbs: None };
    let mut random = SeededRandomness::from_number(1);
    let frozen =
        freeze(&mut view, &[group], Seq::new(9), WallTime::default(), &mut random).unwrap();
    assert_eq!(reasons(&frozen), [CancelledReason::CreatedAndDeleted]);
    let op = PlannedOp { id: dead.op, place: dead.place };
    assert_eq!(frozen.fallen, [Decision::Dropped { key: key("a"), op, fields: Vec::new() }]);
}
