//! The rest of ops that lost some or all of their fields, and the units that a new unit replaces.
//! The spec cases test all other freezing.

use super::*;
use crate::names::Actor;
use crate::random::SeededRandomness;
use crate::rules::desk::{Desk, key, unit_id};
use crate::time::Hlc;

/// Freezes all waiting ops of one record.
fn frozen(desk: &mut Desk, absorbed: Option<UnitId>) -> Frozen {
    let places = desk.row("a").tail.iter().map(|reference| reference.place).collect();
    let group = Group {
        records: vec![(key("a"), places)],
        actor: Actor::parse("ann").unwrap(),
        replaces: absorbed,
    };
    let mut random = SeededRandomness::from_number(1);
    freeze(desk, &[group], Seq::new(9), WallTime::default(), &mut random).unwrap()
}

fn replaces(desk: &mut Desk, absorbed: Option<UnitId>) -> Vec<UnitId> {
    frozen(desk, absorbed).planned.units.into_iter().flat_map(|unit| unit.replaces).collect()
}

fn reasons(frozen: &Frozen) -> Vec<AnnulledReason> {
    frozen.planned.annulled.iter().map(|annulled| annulled.reason).collect()
}

#[test]
fn an_op_that_lost_all_says_nothing_beside_the_later_one() {
    let mut desk = Desk::default().with("a", 1, 0, 2);
    desk.row("a").tail[0].emptied = true;
    let frozen = frozen(&mut desk, None);
    let change = &frozen.planned.units[0].changes[0];
    assert_eq!((change.ops.len(), change.edited_at), (2, Hlc::from_bits(1_001)));
    let items: Vec<crate::entry::Item> = frozen.items.into();
    assert_eq!(items[0].bytes(), Some(br#"{"n":1}"#.as_slice()));
}

#[test]
fn ops_that_all_lost_what_they_said_end_without_effect_and_not_as_created_and_deleted() {
    let mut desk = Desk::default().with("a", 1, 0, 1);
    desk.row("a").tail[0].emptied = true;
    assert_eq!(reasons(&frozen(&mut desk, None)), [AnnulledReason::NoEffect]);
}

#[test]
fn what_an_op_says_is_not_written_a_second_time_unless_it_changed() {
    let source = |desk: &mut Desk| frozen(desk, None).planned.units[0].changes[0].fields;
    let mut desk = Desk::default().with("a", 1, 0, 1);
    let place = desk.row("a").tail[0].place;
    assert_eq!(source(&mut desk), FieldsSource::OfOp(place));
    desk.row("a").tail[0].named =
        Some(crate::rules::desk::fields(serde_json::json!({"m": 1})).to_json());
    assert_eq!(source(&mut desk), FieldsSource::Item(Seq::new(9), 0));
    assert_eq!(source(&mut Desk::default().with("a", 1, 0, 2)), FieldsSource::Item(Seq::new(9), 0));
}

#[test]
fn created_and_deleted_is_nothing_unless_there_is_or_may_be_such_a_record() {
    let desk = |is_there: bool| {
        let mut desk = Desk::default().with("a", 1, 0, 2);
        desk.row("a").tail[0].kind = OpKind::Create;
        let place = desk.row("a").tail[0].place;
        desk.ops.get_mut(&place).unwrap().kind = OpKind::Create;
        desk.turn_into_delete("a", 1);
        if !is_there {
            desk.row("a").confirmed = None;
        }
        desk
    };
    assert_eq!(reasons(&frozen(&mut desk(false), None)), [AnnulledReason::CreatedAndDeleted]);
    assert_eq!(reasons(&frozen(&mut desk(true), None)), []);
    assert_eq!(reasons(&frozen(&mut desk(false), Some(unit_id(200)))), []);
}

#[test]
fn a_delete_of_what_is_not_there_is_sent_only_if_it_may_have_been() {
    let mut desk = Desk::default().with("a", 1, 0, 1);
    desk.turn_into_delete("a", 0);
    desk.row("a").confirmed = None;
    assert_eq!(reasons(&frozen(&mut desk, None)), [AnnulledReason::NoEffect]);
    let again = frozen(&mut desk, Some(unit_id(200)));
    assert_eq!(again.planned.units[0].changes[0].kind, OpKind::Delete);
}

#[test]
fn a_unit_names_each_attempt_of_its_ops_once() {
    let mut desk = Desk::default().with("a", 1, 0, 2);
    let row = desk.row("a");
    row.tail[0].attempts.extend([unit_id(7), unit_id(8)]);
    row.tail[1].attempts.extend([unit_id(8), unit_id(9)]);
    assert_eq!(replaces(&mut desk, None), [unit_id(7), unit_id(8), unit_id(9)]);
}

#[test]
fn of_too_many_attempts_the_newest_are_named_and_the_one_that_is_taken_over() {
    let attempt = |number: u16| {
        let [high, low] = number.to_be_bytes();
        UnitId::from_bytes([high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    };
    let mut desk = Desk::default().with("a", 1, 0, 1);
    desk.row("a").tail[0].attempts.extend((0..1_200).map(attempt));
    let named = replaces(&mut desk, Some(unit_id(200)));
    assert_eq!(named.len(), limits::TRANSACTION_OPS);
    assert_eq!(named.first(), Some(&attempt(201)));
    assert_eq!(named[named.len() - 2..], [attempt(1_199), unit_id(200)]);
}

/// A record was created, deleted and created again before any of it left. The first two ops end.
/// Fields that the third had removed with the deletion's stamp would otherwise stay above later
/// writes of the record.
#[test]
fn what_a_creation_took_away_by_a_deletion_falls_when_the_plan_ends_that() {
    let mut desk = Desk::default().with("a", 1, 0, 3);
    desk.row("a").confirmed = None;
    desk.turn_into_delete("a", 1);
    for number in [0, 2] {
        let pending = &mut desk.row("a").tail[number];
        pending.kind = OpKind::Create;
        let place = pending.place;
        desk.ops.get_mut(&place).unwrap().kind = OpKind::Create;
    }
    let [deletion, anew] = [1, 2].map(|number| desk.row("a").tail[number].clone());
    desk.row("a").tail[2].cleared = vec!["m".to_owned()];
    desk.row("a").tail[2].cleared_at = Some(deletion.stamp());
    let places = desk.row("a").tail[..2].iter().map(|pending| pending.place).collect();
    let group = Group {
        records: vec![(key("a"), places)],
        actor: Actor::parse("ann").unwrap(),
        replaces: None,
    };
    let mut random = SeededRandomness::from_number(1);
    let frozen =
        freeze(&mut desk, &[group], Seq::new(9), WallTime::default(), &mut random).unwrap();
    assert_eq!(reasons(&frozen), [AnnulledReason::CreatedAndDeleted]);
    let op = PlannedOp { id: anew.op, place: anew.place };
    let falls = Decision::Dropped { key: key("a"), op, fields: vec!["m".to_owned()] };
    assert_eq!(frozen.fallen, [falls]);
    assert_eq!(frozen.into_drafts().len(), 2, "the plan, and what falls with it");
}

/// A creation and an edit were refused, the record was deleted, and the creation was retried. Both
/// ended with the deletion, and the deleted record showed the fields of the edit.
#[test]
fn a_deletion_that_ends_without_leaving_takes_what_dead_letters_beneath_it_would_show() {
    let mut desk = Desk::default().with("a", 1, 0, 3);
    desk.row("a").tail[0].kind = OpKind::Create;
    let places: Vec<_> = desk.row("a").tail.iter().map(|pending| pending.place).collect();
    desk.ops.get_mut(&places[0]).unwrap().kind = OpKind::Create;
    desk.turn_into_delete("a", 2);
    desk.row("a").confirmed = None;
    desk.row("a").tail[1].dead = true;
    let dead = desk.row("a").tail[1].clone();
    let records = vec![(key("a"), vec![places[0], places[2]])];
    let group = Group { records, actor: Actor::parse("ann").unwrap(), replaces: None };
    let mut random = SeededRandomness::from_number(1);
    let frozen =
        freeze(&mut desk, &[group], Seq::new(9), WallTime::default(), &mut random).unwrap();
    assert_eq!(reasons(&frozen), [AnnulledReason::CreatedAndDeleted]);
    let op = PlannedOp { id: dead.op, place: dead.place };
    assert_eq!(frozen.fallen, [Decision::Dropped { key: key("a"), op, fields: Vec::new() }]);
}
