//! The laws of the rules, over random tails. `PROPTEST_CASES` sets their number: `.ci/run laws`
//! runs 10,000 of each.
//!
//! 1. Applying a frozen change to the confirmed record gives the same record as applying its ops.
//! 2. Ops never join across a barrier: an unanswered op, the edge of a transaction, another actor,
//!    another schema version, an open undo window.
//! 3. A plan names each of its ops once, and a frozen unit is found again with the same digest.
//! 4. A plan overtakes neither a dependency nor the record's own order, whatever the priorities.
//! 5. Every op of the tail is in a unit, in a group, or held.
//! 6. No request sends a deletion before an earlier op that refers to its record, whether units are
//!    new or sent again. Units that are sent again keep the order of their plans.
//! 7. Joining writes is associative, commutative and idempotent. Stored registers read as the same
//!    registers.
//! 8. The queue of ready records gives the same plan as a plan of everything, whatever has happened
//!    since the last plan.
//!
//! The laws of policies and of rebase are beside these (`rules/rebase`).
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on panics"
)]

#[path = "laws/book.rs"]
mod book;
#[path = "laws/ready.rs"]
mod ready;
#[path = "laws/registers.rs"]
mod registers;

use book::*;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use fieldbook_core::entry::{FieldsSource, Item, Items, Planned, PlannedChange};
use fieldbook_core::protocol::UnitChange;
use fieldbook_core::record::{
    Does, EditStamp, FieldWrites, Life, Pending, Register, Registers, TailOp, Writes,
};
use fieldbook_core::rows::{Confirmed, FieldReference, RecordRow, TailRow, UnitRow, Visible};
use fieldbook_core::rules::freeze::{freeze, thaw};
use fieldbook_core::rules::group::Group;
use fieldbook_core::rules::inspect::NoInspection;
use fieldbook_core::rules::plan::{Hold, Plan, PlanInput, plan};
use fieldbook_core::rules::{OpContent, View};
use fieldbook_core::tail::Tail;
use fieldbook_core::{
    Actor, EntityRules, EntityType, Fields, FieldsJson, Hash, Hlc, InvalidFields, OpId, OpKind,
    OpPlace, Priorities, RecordKey, Reference, Schema, SeededRandomness, Seq, UnitId, Version,
    WallTime,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW: WallTime = WallTime::from_milliseconds(1_000_000);
const WINDOW: Duration = Duration::from_millis(5_000);
const KINDS: [OpKind; 4] = [OpKind::Create, OpKind::Update, OpKind::Delete, OpKind::Replace];
const RECORDS: usize = 4;

/// A unit of a request: its records with their ops, and the first op if the unit is sent again.
type Sent = (Vec<(RecordKey, Vec<OpPlace>)>, Option<OpPlace>);

/// The units of a request, in order.
fn request(book: &Book, plan: &Plan) -> Vec<Sent> {
    let again = plan.again.iter().map(|id| {
        let unit = book.tail.unit(id).unwrap();
        let of = |key: &RecordKey| {
            unit.ops.iter().copied().filter(|place| book.op(*place).key == *key).collect()
        };
        let records = unit.records.iter().map(|key| (key.clone(), of(key))).collect();
        (records, unit.ops.iter().min().copied())
    });
    again.chain(plan.groups.iter().map(|group| (group.records.clone(), None))).collect()
}

/// Computes the result of the ops of one record a second time.
fn comes_to(kinds: &[OpKind]) -> OpKind {
    match (kinds.first(), kinds.last()) {
        (_, Some(OpKind::Delete)) => OpKind::Delete,
        _ if !kinds.contains(&OpKind::Delete) && kinds.first() == Some(&OpKind::Create) => {
            OpKind::Create
        }
        _ => OpKind::Update,
    }
}

/// Fails if a deletion is in a request before an earlier op that refers to its record.
fn takes_no_deletion_too_early(book: &Book, plan: &Plan) -> Result<(), TestCaseError> {
    let mut gone: BTreeSet<OpPlace> = BTreeSet::new();
    for (records, again_from) in request(book, plan) {
        let along: BTreeSet<_> = records.iter().map(|(key, _)| key.clone()).collect();
        for (key, places) in &records {
            let (first, last) = (book.op(places[0]), *places.last().unwrap());
            let made_here = again_from.is_none() && first.kind == OpKind::Create;
            if book.op(last).kind != OpKind::Delete || made_here {
                continue;
            }
            let before = again_from.unwrap_or(last);
            for (place, row) in
                book.tail.ops().filter(|(place, _)| *place < before && !gone.contains(place))
            {
                let refers = row.targets().chain(&row.led_away).any(|target| target == key);
                let together =
                    book.tail.ops_of_entry(place.seq).any(|(_, row)| along.contains(&row.key))
                        && row.transaction_ops > 1;
                let waits_for_a_person = book.tail.is_dead(place) || {
                    let dead = book.tail.ops_of(&row.key).find(|place| book.tail.is_dead(*place));
                    dead.is_some_and(|dead| book.op(dead).kind == OpKind::Create)
                };
                prop_assert!(
                    !refers || together || waits_for_a_person || along.contains(&row.key),
                    "{} refers to {}, which goes before it",
                    place,
                    key,
                );
            }
        }
        gone.extend(records.iter().flat_map(|(_, places)| places));
    }
    Ok(())
}

proptest! {
    #[test]
    fn ops_never_go_as_one_across_a_barrier(book in any_book(), priorities in priorities(), batch in 1..8usize) {
        let plan = book.planned(&schema(priorities), batch);
        for group in &plan.groups {
            let places: Vec<_> = group.records.iter().flat_map(|(_, places)| places.iter().copied()).collect();
            let first = book.op(places[0]);
            for place in &places {
                let row = book.op(*place);
                prop_assert!(book.tail.unit_of(*place).is_none(), "an unanswered op");
                prop_assert!(!book.tail.is_dead(*place), "a dead letter");
                prop_assert_eq!(&row.actor, &actor(false), "another actor");
                prop_assert!(row.made_at.plus(WINDOW) <= NOW, "an open undo window");
                prop_assert_eq!(row.transaction_ops > 1, first.transaction_ops > 1, "a transaction's edge");
            }
            if book.is_transaction(group) {
                let whole: BTreeSet<_> = book
                    .tail
                    .ops_of_entry(places[0].seq)
                    .map(|(place, _)| place)
                    .filter(|place| !book.tail.is_dead(*place))
                    .collect();
                prop_assert_eq!(&whole, &places.iter().copied().collect::<BTreeSet<_>>(), "all or none");
            } else {
                prop_assert_eq!(group.records.len(), 1);
                let one_version = places.iter().all(|place| book.op(*place).schema_version == first.schema_version);
                prop_assert!(one_version, "another schema version");
            }
        }
        let changes: usize = plan.groups.iter().map(|group| group.records.len()).sum();
        prop_assert!(changes <= batch || plan.groups.len() == 1, "the batch is bounded");
    }

    #[test]
    fn a_plan_overtakes_neither_a_dependency_nor_the_records_own_order(
        book in any_book(), priorities in priorities(), batch in 1..12usize,
    ) {
        let schema = schema(priorities);
        let plan = book.planned(&schema, batch);
        for group in &plan.groups {
            let together: BTreeSet<_> = group.records.iter().map(|(key, _)| key.clone()).collect();
            for (key, places) in &group.records {
                let waiting = book.waiting(key);
                prop_assert_eq!(&waiting[..places.len()], &places[..], "the oldest first, and none left out");
                let dead_create = book.tail.ops_of(key).any(|place| {
                    book.tail.is_dead(place) && place < places[0] && book.op(place).kind == OpKind::Create
                });
                let first_dead = book.tail.ops_of(key).find(|place| book.tail.is_dead(*place));
                let joins = first_dead.is_some_and(|place| book.op(place).kind == OpKind::Create);
                prop_assert!(!(dead_create && joins), "what waits for a dead creation stays");
                for place in places {
                    for target in book.op(*place).targets().filter(|target| !together.contains(target)) {
                        let created = book.tail.ops_of(target).find(|place| book.op(*place).kind == OpKind::Create);
                        prop_assert!(created.is_none_or(|created| created > *place), "{} waits for {target}", place);
                    }
                }
            }
        }
        let priority = |group: &Group| {
            let of_record = |(key, places): &(RecordKey, Vec<OpPlace>)| {
                let kinds: Vec<_> = places.iter().map(|place| book.op(*place).kind).collect();
                let kind = comes_to(&kinds);
                (schema.rules(&key.entity).unwrap().priority_of(kind), kind)
            };
            let records: Vec<_> = group.records.iter().map(of_record).collect();
            let deletes = records.iter().any(|(_, kind)| *kind == OpKind::Delete);
            (records.iter().map(|(priority, _)| *priority).max().unwrap(), deletes)
        };
        let first = |group: &Group| group.records.iter().flat_map(|(_, places)| places).min().copied().unwrap();
        for (number, earlier) in plan.groups.iter().enumerate() {
            for later in &plan.groups[number + 1..] {
                let ((before, _), (after, lowered)) = (priority(earlier), priority(later));
                prop_assert!(before >= after || lowered, "the higher priority first");
                let gone: Vec<_> = earlier.records.iter().filter(|(_, places)| {
                    places.last().is_some_and(|place| book.op(*place).kind == OpKind::Delete)
                }).map(|(key, _)| key).collect();
                let refers = later.records.iter().flat_map(|(_, places)| places).any(|place| {
                    book.op(*place).targets().any(|target| gone.contains(&target))
                });
                prop_assert!(!refers || first(earlier) < first(later), "a delete before what was made earlier and refers to it");
            }
        }
    }

    #[test]
    fn a_request_takes_no_deletion_past_what_refers_to_its_record_and_repeats_the_order_of_its_plans(
        book in any_book_with_unanswered(), priorities in priorities(), batch in 1..12usize,
    ) {
        let plan = book.planned(&schema(priorities), batch);
        let places: Vec<_> = plan.again.iter().map(|id| book.tail.unit(id).unwrap()).map(|unit| (unit.planned, unit.number)).collect();
        prop_assert!(places.is_sorted(), "again in the order of the plans");
        takes_no_deletion_too_early(&book, &plan)?;
    }

    #[test]
    fn every_op_of_a_tail_with_unanswered_units_is_sent_or_held(book in any_book_with_unanswered(), priorities in priorities()) {
        let plan = book.planned(&schema(priorities), usize::MAX);
        let request = request(&book, &plan);
        let sent: Vec<_> = request.iter().flat_map(|(records, _)| records).flat_map(|(_, places)| places.clone()).collect();
        for (place, _) in book.tail.ops().filter(|(place, _)| !book.tail.is_dead(*place)) {
            let times = usize::from(plan.holds.contains_key(&place)) + sent.iter().filter(|found| **found == place).count();
            prop_assert_eq!(times, 1, "{}", place);
        }
        prop_assert!(!plan.more);
    }

    #[test]
    fn a_tail_that_nobody_holds_from_outside_always_sends_something(book in any_book_with_unanswered(), priorities in priorities()) {
        let mut tail = Tail::default();
        for (place, row) in book.tail.ops() {
            tail.insert(place, TailRow { made_at: WallTime::from_milliseconds(0), actor: actor(false), ..row.clone() });
        }
        let schema = schema(priorities);
        let input = Book { tail, ..Book::default() };
        let plan = input.planned(&schema, usize::MAX);
        let waits = |hold: &Hold| matches!(hold, Hold::WaitsFor(_) | Hold::After(_) | Hold::Behind(_) | Hold::DeadCreate);
        prop_assume!(plan.holds.values().all(waits));
        prop_assert!(input.tail.is_empty() || !plan.groups.is_empty(), "everything waits for something else: {:?}", plan.holds);
    }

    #[test]
    fn every_op_of_the_tail_is_sent_or_held(book in any_book(), priorities in priorities()) {
        let plan = book.planned(&schema(priorities), usize::MAX);
        let sent: Vec<_> = plan.groups.iter().flat_map(|group| &group.records).flat_map(|(_, places)| places.clone()).collect();
        for (place, _) in book.tail.ops().filter(|(place, _)| !book.tail.is_dead(*place)) {
            let again = book.tail.unit_of(place).is_some_and(|unit| plan.again.contains(&unit));
            let times = usize::from(again) + usize::from(plan.holds.contains_key(&place))
                + sent.iter().filter(|found| **found == place).count();
            prop_assert_eq!(times, 1, "{}", place);
        }
        prop_assert!(!plan.more);
    }

    #[test]
    fn what_is_frozen_is_what_the_ops_come_to_and_names_each_of_them_once(
        mut book in any_book(), priorities in priorities(), seed in any::<u64>(),
    ) {
        let plan = book.planned(&schema(priorities), usize::MAX);
        let seq = Seq::new(2_000);
        let mut randomness = SeededRandomness::from_number(seed);
        let frozen = freeze(&mut book, &plan.groups, seq, NOW, &mut randomness).unwrap();
        let Planned { units, cancelled } = &frozen.planned;
        let in_units = units.iter().flat_map(|unit| &unit.changes).flat_map(|change| &change.ops);
        let mut named: Vec<_> = in_units.chain(cancelled.iter().flat_map(|cancelled| &cancelled.ops)).map(|op| op.place).collect();
        named.sort_unstable();
        let mut absorbed: Vec<_> =
            plan.groups.iter().flat_map(|group| &group.records).flat_map(|(_, places)| places.clone()).collect();
        absorbed.sort_unstable();
        prop_assert_eq!(named, absorbed, "each op once");

        book.items.insert(seq, Vec::from(Items::clone(&frozen.items)));
        for unit in units {
            let row = UnitRow {
                planned: seq, number: 0, actor: unit.actor.clone(), changes: unit.changes.clone(), records: vec![None; unit.changes.len()], digest: unit.digest,
                earlier_units: Vec::new(),
                tries: 0, code: String::new(), first_try: None, retry_at: None, suspicion: None,
            };
            let thawed = thaw(&mut book, unit.id, &row).unwrap();
            for mut change in thawed.changes {
                let places: Vec<_> = unit.changes.iter().filter(|planned| planned.key == change.key)
                    .flat_map(|planned| planned.ops.iter().map(|op| op.place)).collect();
                let fields = change.fields.take().map(|json| json.to_fields().unwrap()).unwrap_or_default();
                let names: Vec<_> = fields.iter().map(|(name, value)| (name.to_owned(), value.is_null())).collect();
                let mut at_once = book.rows[&change.key].registers().unwrap();
                at_once.join_sent(&change, fields);
                prop_assert_eq!(shown(&one_by_one(&book, &change.key, &places)), shown(&at_once));
                let row = book.rows[&change.key].confirmed.as_ref();
                let here = Confirmed::of(&at_once, Version::new(8)).map(|made| (made.stamp(), made.older, made.floor));
                prop_assert_eq!(here, made_at_server(row, &change, &names), "server and device make the same of it");
            }
        }
        for cancelled in cancelled {
            let places: Vec<_> = cancelled.ops.iter().map(|op| op.place).collect();
            let before = book.rows[&cancelled.key].registers().unwrap().image();
            prop_assert_eq!(one_by_one(&book, &cancelled.key, &places).image(), before, "they come to nothing");
        }
    }
}

/// The server's row after a change: its stamp, the fields with another stamp, and its floor.
fn made_at_server(
    row: Option<&Confirmed>,
    change: &UnitChange,
    names: &[(String, bool)],
) -> Option<(EditStamp, Vec<FieldWrites>, Option<EditStamp>)> {
    let before: Registers<bool> = match row {
        None => Registers::default(),
        Some(row) if row.deleted => Registers::deleted(row.stamp()),
        Some(row) => {
            let present = row.fields.to_fields().unwrap();
            let present = present.names().map(|name| (name.to_owned(), true)).collect::<Vec<_>>();
            Registers::of(row.stamp(), &row.older, row.floor, present)
        }
    };
    let fields = names.iter().map(|(name, is_null)| (name.clone(), !is_null));
    let mut after = before.clone();
    after.join(&before.written(change.kind, change.stamp(), &change.older, fields));
    after.forget_oldest_removed();
    let floor = Some(after.floor).filter(|floor| *floor != EditStamp::NEVER);
    (after != before).then(|| (after.stamp, after.older(), floor))
}

/// The readable content of a record, each field with its stamp.
fn shown(record: &Registers) -> Option<Vec<(String, Value, EditStamp)>> {
    let read =
        |(name, value): (&str, &Value)| (name.to_owned(), value.clone(), record.stamp_of(name));
    record.image().map(|image| image.iter().map(read).collect())
}
