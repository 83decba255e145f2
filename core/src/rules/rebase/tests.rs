//! What the ops of a record's tail are judged against: what an answer acks, what a page overtook, what came before what.

use serde_json::{Value, json};

use super::*;
use crate::entry::AnnulledReason;
use crate::numbers::Version;
use crate::protocol::Outcome;
use crate::rules::answer::Answered;
use crate::rules::desk::{Desk, annulled, applied, fields, theirs, unit_id};
use crate::time::Hlc;

/// Returns the conflict that an answer led to, with what stood in the field before.
fn conflict(answered: Answered) -> (Conflicted, Value) {
    let found = answered.decisions.into_iter().find_map(|decision| match decision {
        Decision::Conflicted(conflicted) => Some(conflicted),
        _ => None,
    });
    let found = found.expect("a conflict");
    let items: Vec<crate::entry::Item> = answered.decision_items.into();
    let base = items[usize::try_from(found.base).unwrap()].bytes().unwrap();
    let base: Value = serde_json::from_slice(base).unwrap();
    (found, base["n"].clone())
}

fn stale(current: Change) -> Vec<(u8, Outcome)> {
    vec![(1, Outcome::Stale { current: vec![current], applied: Vec::new() })]
}

#[test]
fn what_the_same_answer_acks_is_what_a_later_op_was_made_on() {
    let mut desk = Desk::default().with("a", 1, 1, 1);
    let answered = desk.take(vec![(1, applied("a"))], vec![theirs("a", 3, json!({"n": "theirs"}))]);
    assert_eq!(conflict(answered).1, json!(0));
}

#[test]
fn an_ack_that_a_page_has_overtaken_is_in_what_the_page_brought() {
    let mut desk = Desk::default().with("a", 1, 1, 1);
    let confirmed = desk.row("a").confirmed.as_mut().unwrap();
    (confirmed.version, confirmed.fields) = (Version::new(4), fields(json!({"n": "later"})).to_json());
    let answered = desk.take(vec![(1, applied("a"))], vec![theirs("a", 5, json!({"n": "theirs"}))]);
    assert_eq!(conflict(answered).1, json!("later"));
}

#[test]
fn a_stale_answer_that_a_page_has_overtaken_is_judged_against_what_the_page_brought() {
    let met = |deleted: bool| {
        let mut desk = Desk::default().with("a", 1, 1, 0);
        let row = desk.row("a");
        let place = row.tail[0].place;
        let confirmed = row.confirmed.as_mut().unwrap();
        (confirmed.version, confirmed.edited_at) = (Version::new(5), Hlc::from_bits(9_000));
        confirmed.fields = fields(json!({"n": "newest"})).to_json();
        desk.ops.get_mut(&place).unwrap().edited_at = Hlc::from_bits(6_000);
        let older = BTreeMap::from([("n".to_owned(), Hlc::from_bits(10))]);
        let current = Change { deleted, older, ..theirs("a", 3, json!({"n": "old"})) };
        conflict(desk.take(stale(current), Vec::new())).0
    };
    for deleted in [false, true] {
        let met = met(deleted);
        assert_eq!((met.version, met.remote_edited_at), (Version::new(5), Hlc::from_bits(9_000)));
        assert_eq!((met.winner, met.extent), (Winner::Remote, Extent::Whole));
        assert_eq!(met.fields.iter().map(|field| field.winner).collect::<Vec<_>>(), [Winner::Remote]);
    }
}

#[test]
fn a_delete_made_before_what_is_on_its_way_does_not_end_together_with_that() {
    let ends = |swapped: bool| {
        let mut desk = Desk::default().with("a", 1, 1, 1);
        let row = desk.row("a");
        let (mut sent, mut waits) = (row.tail[0].clone(), row.tail[1].clone());
        if swapped {
            (sent.op, sent.place, waits.op, waits.place) = (waits.op, waits.place, sent.op, sent.place);
            let mut unit = desk.units.pop_first().unwrap();
            unit.1.changes[0].ops = vec![PlannedOp { id: sent.op, place: sent.place }];
            desk.units.extend([unit]);
        }
        let delete = desk.turn_into_delete("a", usize::from(!swapped));
        let deleted = Change { deleted: true, fields: None, ..theirs("a", 3, json!({})) };
        (annulled(&desk.take(stale(deleted), Vec::new())), sent.op, delete)
    };
    let (ended, sent, delete) = ends(false);
    assert_eq!(ended, [(AnnulledReason::NoEffect, vec![sent, delete])]);
    let (ended, sent, delete) = ends(true);
    assert!(!ended.iter().any(|(_, ops)| ops.contains(&sent) && ops.contains(&delete)), "{ended:?}");
}

#[test]
fn what_came_to_the_server_by_another_unit_than_the_last_word_did_not_come_with_it() {
    let mut desk = Desk::default().with("a", 1, 0, 2);
    desk.units.clear();
    let row = desk.row("a");
    row.tail[0].attempts.push(unit_id(50));
    row.tail[1].attempts.push(unit_id(51));
    let last = row.tail[1].op;
    let news = Change { op: last, ..theirs("a", 2, json!({"n": 1})) };
    assert_eq!(annulled(&desk.take(Vec::new(), vec![news])), [(AnnulledReason::Arrived, vec![last])]);
}

#[test]
fn a_delete_ends_with_what_goes_again_before_it_and_with_what_left_between_them() {
    let mut desk = Desk::default().with("a", 1, 1, 2);
    let row = desk.row("a");
    // The first op of the tail goes again; the second one is in the unit.
    let (again, sent) = (row.tail[0].op, row.tail[1].clone());
    desk.units.get_mut(&unit_id(1)).unwrap().changes[0].ops =
        vec![PlannedOp { id: sent.op, place: sent.place }];
    let delete = desk.turn_into_delete("a", 2);
    let deleted = Change { deleted: true, fields: None, ..theirs("a", 3, json!({})) };
    let answered = desk.take(stale(deleted), Vec::new());
    assert_eq!(annulled(&answered), [(AnnulledReason::NoEffect, vec![again, sent.op, delete])]);
}

#[test]
fn a_creation_that_agrees_stands_where_a_refused_deletion_hides_what_theirs_has_besides() {
    let ended = |beneath: OpKind, dead: bool, outdated: bool| {
        let mut desk = Desk::default().with("a", 1, 1, 1);
        let row = desk.row("a");
        (row.tail[0].dead, row.tail[0].outdated, row.tail[0].kind) = (dead, outdated, beneath);
        row.tail[1].kind = OpKind::Create;
        let sent = PlannedOp { id: row.tail[1].op, place: row.tail[1].place };
        desk.ops.get_mut(&sent.place).unwrap().kind = OpKind::Create;
        desk.units.get_mut(&unit_id(1)).unwrap().changes[0].ops = vec![sent];
        desk.ops.get_mut(&desk.records[&crate::rules::desk::key("a")].tail[0].place).unwrap().kind = beneath;
        let ended = annulled(&desk.take(stale(theirs("a", 3, json!({"n": 1, "more": 1}))), Vec::new()));
        ended.iter().any(|(_, ops)| ops.contains(&sent.id))
    };
    assert!(!ended(OpKind::Delete, true, false), "the app would read `more` by an end");
    assert!(!ended(OpKind::Delete, false, false), "together they are a replacement");
    assert!(ended(OpKind::Delete, true, true), "the deletion says nothing any more");
    assert!(ended(OpKind::Update, true, false), "the app reads `more` already");
}

/// Ours comes to the same as theirs, but only by two ops, of which the first can leave by itself.
#[test]
fn what_our_last_word_stands_on_is_judged_where_it_may_leave_before_it() {
    let mut desk = Desk::default().with("a", 1, 1, 2);
    let delete = desk.turn_into_delete("a", 1);
    let row = desk.row("a");
    row.tail[2].kind = OpKind::Create;
    let place = row.tail[2].place;
    desk.ops.get_mut(&place).unwrap().kind = OpKind::Create;
    let answered = desk.take(Vec::new(), vec![theirs("a", 3, json!({"n": 2}))]);
    assert_eq!(annulled(&answered), []);
    assert_eq!(conflict(answered).0.op.id, delete);
}

#[test]
fn what_a_deletion_covers_is_judged_where_it_may_leave_before_it() {
    let deleted = || Change { deleted: true, fields: None, ..theirs("a", 3, json!({})) };
    let mut desk = Desk::default().with("a", 1, 1, 2);
    let row = desk.row("a");
    let (covered, sent) = (row.tail[1].op, row.tail[0].op);
    let delete = desk.turn_into_delete("a", 2);
    // The unit has no answer yet: the deletion stays on top of it.
    let answered = desk.take(Vec::new(), vec![deleted()]);
    assert_eq!(annulled(&answered), []);
    assert_eq!(conflict(answered).0.op.id, covered);
    // It is refused: nothing is on its way any more, and the dead letter is left to a person.
    let refused = Outcome::Rejected { code: "forbidden".to_owned(), message: String::new() };
    let ended = annulled(&desk.take(vec![(1, refused)], vec![deleted()]));
    assert_eq!(ended, [(AnnulledReason::NoEffect, vec![covered, delete])]);
    assert!(!ended.iter().any(|(_, ops)| ops.contains(&sent)));
}

#[test]
fn a_record_of_a_dissolved_transaction_is_judged_though_another_one_was_stale() {
    let mut desk = Desk::default().with("a", 1, 1, 0).with("b", 2, 1, 0);
    let other = desk.units.remove(&unit_id(2)).unwrap();
    desk.units.get_mut(&unit_id(1)).unwrap().changes.extend(other.changes);
    let stale = stale(theirs("a", 3, json!({"n": 0})));
    let answered = desk.take(stale, vec![theirs("b", 4, json!({"n": "theirs"}))]);
    let (conflict, base) = conflict(answered);
    assert_eq!((conflict.key, base), (crate::rules::desk::key("b"), json!("before")));
}

/// The page came while the transaction was on its way, and the answer was from before it: another record was stale.
#[test]
fn a_record_of_a_dissolved_transaction_is_judged_though_only_an_earlier_page_had_its_news() {
    let judged = |version: u64| {
        let mut desk = Desk::default().with("a", 1, 1, 0).with("b", 2, 1, 0);
        let other = desk.units.remove(&unit_id(2)).unwrap();
        desk.units.get_mut(&unit_id(1)).unwrap().changes.extend(other.changes);
        let confirmed = desk.row("b").confirmed.as_mut().unwrap();
        (confirmed.version, confirmed.edited_at) = (Version::new(version), Hlc::from_bits(5_000));
        confirmed.fields = fields(json!({"n": "theirs"})).to_json();
        desk.take(stale(theirs("a", 3, json!({"n": 0}))), Vec::new())
    };
    let (conflict, base) = conflict(judged(4));
    assert_eq!((conflict.key, base), (crate::rules::desk::key("b"), json!("before")));
    assert_eq!((conflict.version, conflict.winner), (Version::new(4), Winner::Remote));
    assert_eq!(judged(1).tally.conflicts, 0, "it was made for that version");
}

#[test]
fn an_answer_to_one_unit_says_nothing_of_another_that_is_on_its_way() {
    for outcome in [
        Outcome::Rejected { code: "forbidden".to_owned(), message: String::new() },
        Outcome::Stale { current: vec![theirs("a", 3, json!({"n": 0}))], applied: Vec::new() },
    ] {
        let mut desk = Desk::default().with("a", 1, 1, 0).with("b", 2, 1, 1);
        desk.turn_into_delete("b", 1);
        let deleted = Change { deleted: true, fields: None, ..theirs("b", 4, json!({})) };
        let answered = desk.take(vec![(1, outcome)], vec![deleted]);
        let key = crate::rules::desk::key("b");
        let on_b = answered.decisions.iter().filter(|decision| match decision {
            Decision::Annulled(annulled) => annulled.key == key,
            Decision::Conflicted(conflict) => conflict.key == key,
            _ => false,
        });
        assert_eq!(on_b.count(), 0);
    }
}

/// Which ops end, and how many conflicts there are, of three ops of a record of which one, by number, comes back stale and
/// the others wait; the last op is of this kind, and sets what theirs has, if it sets anything.
fn met(sent: usize, last: OpKind, deleted: bool) -> (String, u32) {
    let mut desk = Desk::default().with("a", 1, 1, 2);
    let tail = desk.row("a").tail.clone();
    let of_sent = PlannedOp { id: tail[sent].op, place: tail[sent].place };
    desk.units.get_mut(&unit_id(1)).unwrap().changes[0].ops = vec![of_sent];
    if last == OpKind::Delete {
        desk.turn_into_delete("a", 2);
    } else {
        desk.row("a").tail[2].kind = last;
        desk.ops.get_mut(&tail[2].place).unwrap().kind = last;
    }
    let current = Change { deleted, ..theirs("a", 3, json!({"n": 2})) };
    let answered = desk.take(stale(current), Vec::new());
    let ended: Vec<_> = annulled(&answered).into_iter().flat_map(|(_, ops)| ops).collect();
    let numbers = (0..3).filter(|number| ended.contains(&tail[*number].op));
    (numbers.map(|number| number.to_string()).collect(), answered.tally.conflicts)
}

#[test]
fn what_waits_ends_with_what_was_stale_only_if_it_covers_that_and_agrees_as_a_whole() {
    let expect = |found: (String, u32), ended: &str, conflicts: u32, why: &str| {
        assert_eq!(found, (ended.to_owned(), conflicts), "{why}");
    };
    expect(met(0, OpKind::Replace, false), "012", 0, "set to the same, after what was stale");
    expect(
        met(1, OpKind::Delete, true),
        "012",
        0,
        "deleted by both, though one was made before what was stale",
    );
    expect(met(1, OpKind::Replace, true), "", 2, "they deleted it, and we did not");
    expect(met(1, OpKind::Delete, false), "", 2, "we deleted it, and they did not");
    expect(met(2, OpKind::Replace, false), "2", 1, "what was stale came last, and agrees by itself");
    expect(met(2, OpKind::Delete, true), "2", 1, "what waits says something else");
}
