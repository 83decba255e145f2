use super::*;
use crate::ids::OpId;
use crate::numbers::Seq;
use crate::op::OpKind;
use crate::rows::FieldReference;
use crate::rules::test_view::{TestView, key, unit_id};
use crate::schema::{EntityRules, NetworkClass};
use crate::time::Hlc;
use std::time::Duration;

fn place(seq: u64) -> OpPlace {
    OpPlace { seq: Seq::new(seq), index: 0 }
}

fn op(seq: u8) -> OpId {
    OpId::from_bytes([seq; 16])
}

/// Makes updates of one record, in entries 1, 2, 3 and so on.
fn tail(updates: u8) -> Tail {
    tail_of(updates, |_| 1)
}

/// Makes updates of records, in entries 1, 2, 3 and so on.
fn tail_of(updates: u8, record: impl Fn(u8) -> u8) -> Tail {
    let mut tail = Tail::default();
    for seq in 1..=updates {
        let row = TailRow {
            op: op(seq),
            key: RecordKey::parse("lead", &record(seq).to_string()).unwrap(),
            kind: OpKind::Update,
            actor: Actor::parse("user-1").unwrap(),
            edited_at: Hlc::from_bits(seq.into()),
            made_at: WallTime::default(),
            schema_version: 1,
            upcast: None,
            transaction_ops: 1,
            bytes: 10,
            references: Vec::new(),
            led_away: Vec::new(),
        };
        tail.insert(place(seq.into()), row);
    }
    tail
}

/// Makes a unit of record 1 that was tried once and waits for a minute.
fn attempted() -> crate::rows::UnitRow {
    let unit = TestView::default().with("1", 1, 1, 0).units.remove(&unit_id(1)).unwrap();
    let retry_at = Some(WallTime::from_milliseconds(60_000));
    crate::rows::UnitRow { actor: Actor::parse("user-1").unwrap(), tries: 1, retry_at, ..unit }
}

/// The input of a plan in these tests.
struct Asked<'a> {
    parks: &'a [(ParkScope, String)],
    batch_bytes: usize,
    network: NetworkClass,
    unmetered: bool,
}

impl Default for Asked<'_> {
    fn default() -> Self {
        Self { parks: &[], batch_bytes: 1_000_000, network: NetworkClass::Any, unmetered: true }
    }
}

impl Asked<'_> {
    fn plan(self, tail: &Tail) -> Plan {
        let rules = EntityRules {
            undo_window: Duration::ZERO,
            network: self.network,
            ..EntityRules::default()
        };
        plan(&PlanInput {
            tail,
            schema: &Schema::open(rules),
            parks: self.parks,
            actor: &Actor::parse("user-1").unwrap(),
            now: WallTime::default(),
            batch_ops: 50,
            batch_bytes: self.batch_bytes,
            unmetered: self.unmetered,
            inspect: &crate::rules::inspect::NoInspection,
        })
    }
}

/// Returns the records of each group of a plan.
fn records(plan: &Plan) -> Vec<Vec<String>> {
    let of = |group: &Group| group.records.iter().map(|(key, _)| key.to_string()).collect();
    plan.groups.iter().map(of).collect()
}

#[test]
fn ops_of_a_record_leave_as_one_group() {
    let plan = Asked::default().plan(&tail(3));
    let places: Vec<_> = plan
        .groups
        .iter()
        .flat_map(|group| &group.records)
        .map(|(_, places)| places.clone())
        .collect();
    assert_eq!(places, [[place(1), place(2), place(3)]]);
}

#[test]
fn what_would_be_one_change_with_an_op_that_waits_for_a_person_waits_with_it() {
    let mut tail = tail(3);
    tail.set_parked(op(2), Some("conflict".to_owned()));
    let plan = Asked::default().plan(&tail);
    assert_eq!(plan.groups, []);
    assert_eq!(plan.holds.len(), 3);
    assert!(plan.holds.values().all(|hold| matches!(hold, Hold::Parked { .. })));
}

#[test]
fn a_batch_takes_what_fits_to_the_last_byte_and_one_unit_whatever_its_size() {
    let tail = tail_of(2, |seq| seq);
    let whole: usize = tail.ops().map(|(_, row)| size(row)).sum();
    let taken = |batch_bytes| {
        let plan = Asked { batch_bytes, ..Asked::default() }.plan(&tail);
        (plan.groups.len(), plan.more)
    };
    assert_eq!(taken(whole), (2, false));
    assert_eq!(taken(whole - 1), (1, true));
    assert_eq!(taken(1), (1, true));
}

#[test]
fn a_delete_takes_over_what_was_attempted_without_waiting_for_its_next_try() {
    let unit = attempted();
    let absorbed = |transaction_ops: u32| {
        let mut rows: Vec<_> = tail(2).ops().map(|(place, row)| (place, row.clone())).collect();
        (rows[1].1.kind, rows[1].1.transaction_ops) = (OpKind::Delete, transaction_ops);
        let mut tail = Tail::of(rows);
        tail.put_unit(unit_id(1), &unit);
        Asked::default()
            .plan(&tail)
            .groups
            .iter()
            .filter_map(|group| group.absorbs)
            .collect::<Vec<_>>()
    };
    assert_eq!(absorbed(1), [unit_id(1)]);
    assert_eq!(absorbed(2), [], "a transaction arrives whole");
}

#[test]
fn a_delete_takes_nothing_over_while_an_earlier_op_is_sent_again() {
    let mut unit = attempted();
    unit.changes[0].ops = vec![crate::entry::PlannedOp { id: op(2), place: place(2) }];
    let planned = |dead: bool| {
        let mut rows: Vec<_> = tail(3).ops().map(|(place, row)| (place, row.clone())).collect();
        rows[2].1.kind = OpKind::Delete;
        let mut tail = Tail::of(rows);
        tail.put_unit(unit_id(1), &unit);
        tail.set_dead(place(1), dead);
        Asked::default().plan(&tail)
    };
    let absorbed = planned(true);
    assert_eq!(
        absorbed.groups.iter().filter_map(|group| group.absorbs).collect::<Vec<_>>(),
        [unit_id(1)]
    );
    let held = planned(false);
    assert_eq!((held.groups.len(), held.holds[&place(1)].clone()), (0, Hold::Behind(unit_id(1))));
    assert!(held.wake.is_some());
}

#[test]
fn a_hold_says_whether_it_ends_by_itself_or_by_a_person() {
    let until = WallTime::from_milliseconds(7);
    let code = "busy".to_owned();
    for (hold, ends, by_a_person) in [
        (Hold::UndoWindow { until }, Some(until), false),
        (Hold::BackingOff { until, code }, Some(until), false),
        (Hold::DeadCreate, None, false),
        (Hold::TargetDeleted(RecordKey::parse("lead", "1").unwrap()), None, true),
        (Hold::Refused { reason: String::new() }, None, true),
        (Hold::TooLarge { bytes: 0 }, None, true),
    ] {
        assert_eq!((hold.until(), hold.waits_for_correction()), (ends, by_a_person), "{hold:?}");
    }
}

#[test]
fn an_op_that_is_larger_than_the_rule_says_waits_for_an_unmetered_network() {
    let tail = tail(1);
    let held = |most: usize, unmetered: bool| {
        let network = NetworkClass::UnmeteredAbove(most);
        Asked { network, unmetered, ..Asked::default() }
            .plan(&tail)
            .holds
            .into_values()
            .collect::<Vec<_>>()
    };
    assert_eq!(held(9, false), [Hold::UnmeteredNetwork], "it takes 10 bytes");
    assert_eq!(held(10, false), []);
    assert_eq!(held(11, false), []);
    assert_eq!(held(9, true), []);
}

#[test]
fn a_refused_creation_stands_in_the_way_of_a_transaction_and_a_refused_update_does_not() {
    let planned = |refused: OpKind| {
        let mut rows: Vec<_> = tail(3).ops().map(|(place, row)| (place, row.clone())).collect();
        rows[0].1.kind = refused;
        rows[1].1.key = RecordKey::parse("lead", "2").unwrap();
        (rows[1].1.transaction_ops, rows[2].1.transaction_ops) = (2, 2);
        rows[2].0 = OpPlace { seq: Seq::new(2), index: 1 };
        let mut tail = Tail::of(rows);
        tail.set_dead(place(1), true);
        Asked::default().plan(&tail)
    };
    assert_eq!(records(&planned(OpKind::Update)), [["lead/2", "lead/1"]]);
    let held = planned(OpKind::Create);
    assert_eq!(records(&held), [[""; 0]; 0]);
    assert!(held.holds.values().all(|hold| *hold == Hold::DeadCreate), "{held:?}");
}

#[test]
fn of_two_new_records_that_refer_to_each_other_the_one_that_was_made_first_does_not_wait() {
    let mut rows: Vec<_> =
        tail_of(2, |seq| seq).ops().map(|(place, row)| (place, row.clone())).collect();
    let keys = [rows[0].1.key.clone(), rows[1].1.key.clone()];
    for ((_, row), target) in rows.iter_mut().zip(keys.into_iter().rev()) {
        row.kind = OpKind::Create;
        row.references = vec![FieldReference { field: "other".to_owned(), target: Some(target) }];
    }
    let first = Asked::default().plan(&Tail::of(rows));
    assert_eq!(records(&first).first(), Some(&vec!["lead/1".to_owned()]), "{first:?}");
}

#[test]
fn what_is_unanswered_waits_for_its_own_time_and_a_transaction_that_is_sent_again_for_that() {
    let mut unit = attempted();
    let until = unit.retry_at.unwrap();
    // The transaction changes records 1 and 2. An update of record 1 came after it, and left while
    // the transaction was a dead letter.
    let mut rows: Vec<_> = tail(3).ops().map(|(place, row)| (place, row.clone())).collect();
    rows[0].1.key = RecordKey::parse("lead", "2").unwrap();
    (rows[0].1.transaction_ops, rows[1].1.transaction_ops) = (2, 2);
    rows[1].0 = OpPlace { seq: Seq::new(1), index: 1 };
    let sent = rows[2].0;
    unit.changes[0].ops = vec![crate::entry::PlannedOp { id: rows[2].1.op, place: sent }];
    let mut tail = Tail::of(rows);
    tail.put_unit(unit_id(1), &unit);
    let plan = Asked::default().plan(&tail);
    assert_eq!(plan.holds[&sent], Hold::BackingOff { until, code: String::new() });
    assert_eq!((plan.holds[&place(1)].clone(), plan.wake), (Hold::Behind(unit_id(1)), Some(until)));
}

/// Makes one unit for each of records 1, 2 and so on. Some are suspected in a set. Others are
/// suspected alone and wait until a time in milliseconds.
fn suspected(sets: &[Option<u64>], alone: &[Option<i64>]) -> Tail {
    let count = u8::try_from(sets.len()).unwrap();
    let mut tail = tail_of(count, |seq| seq);
    for ((number, set), alone) in (1..).zip(sets).zip(alone) {
        let unit = TestView::default()
            .with(&number.to_string(), number, 1, 0)
            .units
            .remove(&unit_id(number))
            .unwrap();
        let mut unit = crate::rows::UnitRow { actor: Actor::parse("user-1").unwrap(), ..unit };
        unit.changes[0].ops =
            vec![crate::entry::PlannedOp { id: op(number), place: place(number.into()) }];
        unit.suspicion = set.map(|set| crate::rows::Suspicion {
            set: (Seq::new(set), 0),
            times: alone.map_or(0, |_| 2),
            code: "http_502".to_owned(),
            retry_at: alone.map(WallTime::from_milliseconds),
        });
        tail.put_unit(unit_id(number), &unit);
    }
    tail
}

fn not_let_through(until: Option<i64>, times: u32) -> Hold {
    let until = until.map(WallTime::from_milliseconds);
    Hold::NotLetThrough { until, code: "http_502".to_owned(), times }
}

#[test]
fn what_may_not_get_through_waits_until_everything_else_is_sent() {
    let tail = suspected(&[Some(9), None, Some(9)], &[None; 3]);
    let plan = Asked::default().plan(&tail);
    assert_eq!((plan.again.clone(), plan.more), (vec![unit_id(2)], true));
    assert_eq!(
        (&plan.holds[&place(1)], &plan.holds[&place(3)]),
        (&not_let_through(None, 0), &not_let_through(None, 0))
    );
    let tail = suspected(&[Some(9)], &[None]);
    let with_a_new_op = {
        let mut rows: Vec<_> =
            tail_of(2, |seq| seq).ops().map(|(place, row)| (place, row.clone())).collect();
        rows.retain(|(at, _)| *at == place(2));
        let mut tail = tail;
        tail.insert(rows[0].0, rows[0].1.clone());
        tail
    };
    let plan = Asked::default().plan(&with_a_new_op);
    assert_eq!((records(&plan), plan.again.len()), (vec![vec!["lead/2".to_owned()]], 0));
}

#[test]
fn one_set_of_what_may_not_get_through_goes_at_a_time_the_one_that_was_suspected_first() {
    let tail = suspected(
        &[Some(9), Some(8), Some(9), Some(8), Some(7)],
        &[None, None, None, None, Some(0)],
    );
    let plan = Asked::default().plan(&tail);
    assert_eq!(plan.again, [unit_id(2), unit_id(4)]);
    assert_eq!(plan.holds[&place(1)], not_let_through(None, 0));
    assert_eq!(
        plan.holds[&place(5)],
        not_let_through(None, 2),
        "it is due, and goes after the groups"
    );
}

#[test]
fn what_was_found_alone_waits_for_its_own_time_and_says_so() {
    let tail = suspected(&[Some(9), Some(8)], &[Some(500), Some(400)]);
    let plan = Asked::default().plan(&tail);
    assert_eq!((plan.again.len(), plan.more), (0, false));
    assert_eq!(plan.holds[&place(1)], not_let_through(Some(500), 2));
    assert_eq!(plan.wake, Some(WallTime::from_milliseconds(400)));
    let tail = suspected(&[Some(9), Some(8)], &[Some(0), Some(-1)]);
    assert_eq!(
        Asked::default().plan(&tail).again,
        [unit_id(2)],
        "alone, and the one that is due first"
    );
}

#[test]
fn a_clock_that_was_set_back_does_not_keep_what_was_found_alone_for_ever() {
    let beyond = i64::try_from(crate::limits::BACKOFF_MOST.as_millis()).unwrap() + 1;
    let tail = suspected(&[Some(9)], &[Some(beyond)]);
    assert_eq!(Asked::default().plan(&tail).again, [unit_id(1)]);
}

#[test]
fn what_does_not_get_through_is_for_a_person_once_it_is_no_glitch_any_more() {
    let waits = |times| {
        Hold::NotLetThrough { until: None, code: String::new(), times }.waits_for_correction()
    };
    assert!(!waits(0) && !waits(crate::limits::TRIES - 1) && waits(crate::limits::TRIES));
}

#[test]
fn a_delete_takes_over_what_does_not_get_through() {
    let mut tail = suspected(&[Some(9)], &[Some(500)]);
    let mut row = tail.op(place(1)).unwrap().clone();
    (row.op, row.kind) = (op(2), OpKind::Delete);
    tail.insert(place(2), row);
    let plan = Asked::default().plan(&tail);
    assert_eq!(
        plan.groups.iter().filter_map(|group| group.absorbs).collect::<Vec<_>>(),
        [unit_id(1)]
    );
}

#[test]
fn an_undo_window_that_a_clock_opens_again_lets_go_what_waited_with_a_parked_op() {
    // Edits 1 to 3 of one record. A person has to choose in the third edit. While the undo window
    // of the second edit is open, the first edit is sent without the others.
    let mut tail = tail(3);
    let window = Duration::from_millis(5_000);
    let row = TailRow {
        made_at: WallTime::from_milliseconds(1_000),
        ..tail.op(place(2)).unwrap().clone()
    };
    tail.insert(place(2), row);
    tail.set_parked(op(3), Some("conflict".to_owned()));
    let schema = Schema::open(EntityRules { undo_window: window, ..EntityRules::default() });
    let actor = Actor::parse("user-1").unwrap();
    let mut queue = ReadyQueue::default();
    let mut sent_at = |now| {
        let now = WallTime::from_milliseconds(now);
        let inspect = &crate::rules::inspect::NoInspection;
        plan_next(&PlanInput::unbounded(&tail, &schema, &[], &actor, now, inspect), &mut queue)
            .groups
            .len()
    };
    assert_eq!((sent_at(10_000), sent_at(5_500)), (0, 1));
}

#[test]
fn a_dead_letter_that_is_sent_again_parts_an_edit_from_the_deletion_behind_it() {
    // Lead 0 is edited and deleted. A dead letter refers to it between the edit and the deletion.
    // An earlier op refers to it too and waits for its undo window, so the deletion waits, and the
    // edit with it.
    let mut tail = tail_of(5, |seq| [1, 0, 2, 0, 9][usize::from(seq) - 1]);
    let about = FieldReference { field: "about".to_owned(), target: Some(key("0")) };
    let made_at = WallTime::from_milliseconds(9_000);
    for (seq, change) in [
        (
            1,
            TailRow {
                references: vec![about.clone()],
                made_at,
                ..tail.op(place(1)).unwrap().clone()
            },
        ),
        (3, TailRow { references: vec![about], ..tail.op(place(3)).unwrap().clone() }),
        (4, TailRow { kind: OpKind::Delete, ..tail.op(place(4)).unwrap().clone() }),
    ] {
        tail.insert(place(seq), change);
    }
    tail.set_dead(place(3), true);
    let schema = Schema::open(EntityRules {
        undo_window: Duration::from_millis(5_000),
        ..EntityRules::default()
    });
    let actor = Actor::parse("user-1").unwrap();
    let mut queue = ReadyQueue::default();
    let sends_the_edit = |tail: &Tail, queue: &mut ReadyQueue| {
        let inspect = &crate::rules::inspect::NoInspection;
        let input = PlanInput::unbounded(
            tail,
            &schema,
            &[],
            &actor,
            WallTime::from_milliseconds(10_000),
            inspect,
        );
        plan_next(&input, queue).groups.iter().any(|group| group.records[0].1 == [place(2)])
    };
    assert!(!sends_the_edit(&tail, &mut queue));
    tail.set_dead(place(3), false);
    queue.changed(&tail, &schema, &key("2"));
    assert!(sends_the_edit(&tail, &mut queue));
}
