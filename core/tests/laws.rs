//! The laws of the rules, over tails that nobody would think of. `PROPTEST_CASES` says how many: `.ci/run laws` asks for
//! 10,000 of each.
//!
//! 1. Applying what ops come to equals applying the ops: what is frozen makes of the confirmed record what the ops make of it.
//! 2. Ops never go as one across a barrier: an op under way, a transaction's edge, another actor, another schema version, an
//!    open undo window.
//! 3. Every op of a plan is named by it once, and what was frozen is found again with the same digest.
//! 4. A plan overtakes neither a dependency nor the record's own order, whatever the priorities.
//! 5. Every op of the tail is in a unit, in a group, or held.
//! 6. A request as a whole, what is sent again and what is new, takes no deletion past what was made before it and refers to
//!    its record, and sends again in the order in which it was planned.
//! 7. Joining writes is associative, commutative and idempotent. What is stored of registers reads as the same registers.
//!
//! The laws of policies and of rebase are beside these (`rules/rebase`).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use fieldbook_core::entry::{FieldsSource, Item, Items, Planned};
use fieldbook_core::protocol::UnitChange;
use fieldbook_core::record::{
    Before, Does, EditStamp, FieldStamps, FieldWrites, Joined, Life, Pending, Register, Registers, SentFor,
    TailOp, WriteStamps, Writes, join,
};
use fieldbook_core::rows::{Confirmed, FieldReference, RecordRow, TailRow, UnitChangeRow, UnitRow, Visible};
use fieldbook_core::rules::freeze::{freeze, thaw};
use fieldbook_core::rules::group::Group;
use fieldbook_core::rules::inspect::NoInspection;
use fieldbook_core::rules::plan::{Hold, Plan, PlanInput, plan};
use fieldbook_core::rules::{OpContent, View};
use fieldbook_core::tail::Tail;
use fieldbook_core::{
    Actor, EntityRules, EntityType, Fields, FieldsJson, Hash, Hlc, InvalidFields, OpId, OpKind, OpPlace,
    Priorities, RecordKey, Reference, Schema, SeededRandomness, Seq, UnitId, Version, WallTime,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW: WallTime = WallTime::from_milliseconds(1_000_000);
const WINDOW: Duration = Duration::from_millis(5_000);
const KINDS: [OpKind; 4] = [OpKind::Create, OpKind::Update, OpKind::Delete, OpKind::Replace];
const RECORDS: usize = 4;

/// An op as it is drawn.
#[derive(Debug, Clone)]
struct Drawn {
    kind: usize,
    record: usize,
    other_actor: bool,
    new_version: bool,
    /// Whether it is of the same transaction as the one before it.
    joins: bool,
    fresh: bool,
    dead: bool,
    refers: Option<usize>,
    leaves: Option<usize>,
    fields: Fields,
}

/// A unit of the first ops of a record, as it is drawn.
#[derive(Debug, Clone)]
struct DrawnUnit {
    ops: usize,
    planned: u64,
    number: u32,
    tries: u32,
    backs_off: bool,
}

/// A tail with all that planning and freezing read.
#[derive(Debug, Default)]
struct Book {
    tail: Tail,
    rows: HashMap<RecordKey, RecordRow>,
    ops: BTreeMap<OpPlace, (RecordKey, OpContent)>,
    items: HashMap<Seq, Vec<Item>>,
}

fn key(record: usize) -> RecordKey {
    let entity = if record < RECORDS / 2 { "lead" } else { "note" };
    RecordKey::parse(entity, &record.to_string()).unwrap()
}

fn actor(other: bool) -> Actor {
    Actor::parse(if other { "user-2" } else { "user-1" }).unwrap()
}

prop_compose! {
    fn some_fields()(members in prop::collection::btree_map("[a-c]", prop_oneof![
        Just(Value::Null), (0..3u8).prop_map(|n| json!(n)),
    ], 0..3)) -> Fields {
        members.into_iter().collect()
    }
}

prop_compose! {
    fn drawn()(
        kind in 0..4usize, record in 0..RECORDS,
        (other_actor, new_version, joins) in (rarely(), rarely(), rarely()),
        (fresh, dead) in (rarely(), rarely()),
        refers in prop::option::weighted(0.3, 0..RECORDS), leaves in prop::option::weighted(0.3, 0..RECORDS),
        fields in some_fields(),
    ) -> Drawn {
        Drawn { kind, record, other_actor, new_version, joins, fresh, dead, refers, leaves, fields }
    }
}

fn rarely() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.15)
}

fn priorities() -> impl Strategy<Value = [Priorities; 2]> {
    let some = || prop::option::of(-1..2i32);
    let one = || {
        (some(), some(), some()).prop_map(|(create, update, delete)| Priorities { create, update, delete })
    };
    [one(), one()]
}

fn schema([leads, notes]: [Priorities; 2]) -> Schema {
    let rules = |entity: &str, priorities| {
        let entity = EntityType::parse(entity).unwrap();
        let references = vec![Reference { field: "about".to_owned(), entity }];
        EntityRules { references, priorities, undo_window: WINDOW, ..EntityRules::default() }
    };
    // Leads refer to notes and notes to leads, so that records may wait for each other. No version is declared by name.
    Schema::open(rules("note", leads)).declare(
        EntityType::parse("note").unwrap(),
        EntityRules { schema_version: 1, upcasters: BTreeMap::new(), ..rules("lead", notes) },
    )
}

impl Book {
    fn new(confirmed: Vec<Option<Fields>>, ops: Vec<Drawn>, under_way: usize) -> Self {
        let mut book = Self::default();
        for (record, image) in confirmed.into_iter().enumerate() {
            let confirmed = image.map(|image| Confirmed {
                version: Version::new(7),
                edited_at: Hlc::from_bits(1),
                op: OpId::from_bytes([0; 16]),
                older: Vec::new(),
                floor: None,
                deleted: false,
                fields: image.into_image().to_json(),
            });
            book.rows.insert(key(record), RecordRow { confirmed, ..RecordRow::default() });
        }
        let (mut seq, mut index) = (0, 0);
        let mut intents: Vec<Vec<Drawn>> = Vec::new();
        for op in ops {
            match intents.last_mut() {
                Some(last) if op.joins => last.push(op),
                _ => intents.push(vec![op]),
            }
        }
        for intent in intents {
            let (ops, first) = (intent.len(), intent[0].clone());
            seq += 1;
            // A transaction has one author and one time, and is refused whole.
            for op in intent {
                let place = OpPlace { seq: Seq::new(seq), index };
                book.insert(
                    place,
                    &Drawn { other_actor: first.other_actor, fresh: first.fresh, dead: first.dead, ..op },
                    ops,
                );
                index += 1;
            }
            index = 0;
        }
        book.send(under_way);
        book
    }

    fn insert(&mut self, place: OpPlace, drawn: &Drawn, transaction_ops: usize) {
        let (key, kind) = (key(drawn.record), KINDS[drawn.kind]);
        let number = u32::try_from(self.ops.len() + 1).unwrap();
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        let op = OpId::from_bytes(bytes);
        let mut fields = if kind == OpKind::Delete { Fields::new() } else { drawn.fields.clone() };
        // Nobody writes an update that says nothing (`admit`).
        if kind == OpKind::Update && fields.is_empty() {
            fields.set("a", 1);
        }
        let refers = drawn.refers.filter(|target| *target != drawn.record && kind != OpKind::Delete);
        // Leads refer to notes and notes to leads.
        let refers = refers.filter(|target| (*target < RECORDS / 2) != (drawn.record < RECORDS / 2));
        if let Some(target) = refers {
            fields.set("about", target.to_string());
        }
        let is_other = |target: &usize| (*target < RECORDS / 2) != (drawn.record < RECORDS / 2);
        let leaves = drawn
            .leaves
            .filter(|target| is_other(target) && kind != OpKind::Create && refers != Some(*target));
        // Notes are declared by name, so that their version counts; only leads have ops of two versions.
        let schema_version = if drawn.new_version && drawn.record < RECORDS / 2 { 2 } else { 1 };
        let edited_at = Hlc::from_bits(u64::from(number) + 10);
        let references = refers
            .map(|target| FieldReference { field: "about".to_owned(), target: Some(self::key(target)) });
        self.tail.insert(
            place,
            TailRow {
                op,
                key: key.clone(),
                kind,
                actor: actor(drawn.other_actor),
                edited_at,
                made_at: if drawn.fresh { NOW } else { WallTime::from_milliseconds(0) },
                schema_version,
                upcast: None,
                transaction_ops: u32::try_from(transaction_ops).unwrap(),
                bytes: 10,
                references: references.into_iter().collect(),
                led_away: leaves.map(self::key).into_iter().collect(),
            },
        );
        self.tail.set_dead(place, drawn.dead);
        let row = self.rows.entry(key.clone()).or_default();
        row.visible = Visible::Absent;
        let (cleared, cleared_at) = cleared(row, &self.ops, kind, &fields);
        let pending = Pending::new(op, place, kind, edited_at);
        row.tail.push(Pending { dead: drawn.dead, cleared, cleared_at, ..pending });
        self.ops.insert(place, (key, OpContent { id: op, kind, edited_at, schema_version, fields }));
    }

    /// Puts the first ops of the first record under way, if none of them is in a transaction.
    fn send(&mut self, count: usize) {
        let unit = DrawnUnit { ops: count, planned: 1_000, number: 0, tries: 0, backs_off: false };
        self.send_of(0, &unit);
    }

    /// Puts the first ops of a record under way, if none of them is in a transaction.
    fn send_of(&mut self, record: usize, drawn: &DrawnUnit) {
        let first: Vec<_> = self
            .tail
            .ops_of(&key(record))
            .filter(|place| !self.tail.is_dead(*place))
            .take(drawn.ops)
            .collect();
        if first.is_empty() || first.iter().any(|place| self.tail.op(*place).unwrap().transaction_ops > 1) {
            return;
        }
        let ops = first.iter().map(|place| fieldbook_core::entry::PlannedOp {
            id: self.tail.op(*place).unwrap().op,
            place: *place,
        });
        let change = UnitChangeRow {
            key: key(record),
            kind: OpKind::Update,
            ops: ops.collect(),
            base: None,
            sent_for: SentFor { version: None, record: None },
            edited_at: Hlc::ZERO,
            older: Vec::new(),
            schema_version: 1,
            fields: FieldsSource::Nothing,
        };
        let unit = UnitRow {
            planned: Seq::new(drawn.planned),
            number: drawn.number,
            actor: self.tail.op(first[0]).unwrap().actor.clone(),
            changes: vec![change],
            digest: Hash::from_bytes([0; 32]),
            replaces: Vec::new(),
            tries: drawn.tries,
            code: String::new(),
            first_try: None,
            retry_at: drawn.backs_off.then(|| NOW.plus(WINDOW)),
            suspicion: None,
        };
        // In another order than that of the plans.
        self.tail.put_unit(UnitId::from_bytes([9 - u8::try_from(record).unwrap(); 16]), &unit);
    }

    fn planned(&self, schema: &Schema, batch_ops: usize) -> Plan {
        let actor = actor(false);
        let input = PlanInput::unbounded(&self.tail, schema, &[], &actor, NOW, &NoInspection);
        plan(&PlanInput { batch_ops, ..input })
    }

    fn op(&self, place: OpPlace) -> &TailRow {
        self.tail.op(place).unwrap()
    }

    fn waiting(&self, key: &RecordKey) -> Vec<OpPlace> {
        self.tail.ops_of(key).filter(|place| !self.tail.is_dead(*place)).collect()
    }

    fn is_transaction(&self, group: &Group) -> bool {
        group.records.iter().flat_map(|(_, places)| places).any(|place| self.op(*place).transaction_ops > 1)
    }
}

impl View for Book {
    type Error = InvalidFields;

    fn record(&mut self, key: &RecordKey) -> Result<Option<RecordRow>, InvalidFields> {
        Ok(self.rows.get(key).cloned())
    }

    fn unit(&mut self, _: &UnitId) -> Result<Option<UnitRow>, InvalidFields> {
        Ok(None)
    }

    fn unit_of(&mut self, op: &OpId) -> Result<Option<UnitId>, InvalidFields> {
        Ok(self.tail.place_of(op).and_then(|place| self.tail.unit_of(place)))
    }

    fn op(&mut self, place: OpPlace) -> Result<OpContent, InvalidFields> {
        Ok(self.ops[&place].1.clone())
    }

    fn fields(&mut self, source: FieldsSource) -> Result<Option<FieldsJson>, InvalidFields> {
        Ok(match source {
            FieldsSource::Nothing => None,
            FieldsSource::OfOp(place) => Some(self.ops[&place].1.fields.to_json()),
            FieldsSource::Item(seq, index) => {
                let bytes = self.items[&seq][usize::try_from(index).unwrap()].bytes().unwrap();
                Some(FieldsJson::from_stored(bytes).unwrap())
            }
        })
    }
}

fn any_book() -> impl Strategy<Value = Book> {
    let confirmed = prop::collection::vec(prop::option::of(some_fields()), RECORDS);
    (confirmed, prop::collection::vec(drawn(), 0..12), 0..3usize)
        .prop_map(|(confirmed, ops, under_way)| Book::new(confirmed, ops, under_way))
}

prop_compose! {
    fn drawn_unit()(
        ops in 0..3usize, planned in 1_000..1_002u64, number in 0..3u32, tries in 0..2u32, backs_off in any::<bool>(),
    ) -> DrawnUnit {
        DrawnUnit { ops, planned, number, tries, backs_off }
    }
}

/// A book with units of several records under way, some of which back off.
fn any_book_under_way() -> impl Strategy<Value = Book> {
    (any_book(), prop::collection::vec(drawn_unit(), RECORDS)).prop_map(|(mut book, units)| {
        for (record, unit) in units.iter().enumerate().skip(1) {
            book.send_of(record, unit);
        }
        book
    })
}

/// A unit of a request: its records with their ops, and the first op of what is sent again.
type Sent = (Vec<(RecordKey, Vec<OpPlace>)>, Option<OpPlace>);

/// The units of a request, in order.
fn request(book: &Book, plan: &Plan) -> Vec<Sent> {
    let again = plan.again.iter().map(|id| {
        let unit = book.tail.unit(id).unwrap();
        let of =
            |key: &RecordKey| unit.ops.iter().copied().filter(|place| book.op(*place).key == *key).collect();
        let records = unit.records.iter().map(|key| (key.clone(), of(key))).collect();
        (records, unit.ops.iter().min().copied())
    });
    again.chain(plan.groups.iter().map(|group| (group.records.clone(), None))).collect()
}

/// Worked out a second time: what ops of one record come to.
fn comes_to(kinds: &[OpKind]) -> OpKind {
    match (kinds.first(), kinds.last()) {
        (_, Some(OpKind::Delete)) => OpKind::Delete,
        _ if !kinds.contains(&OpKind::Delete) && kinds.first() == Some(&OpKind::Create) => OpKind::Create,
        _ => OpKind::Update,
    }
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
                prop_assert!(book.tail.unit_of(*place).is_none(), "an op under way");
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
        book in any_book_under_way(), priorities in priorities(), batch in 1..12usize,
    ) {
        let plan = book.planned(&schema(priorities), batch);
        let places: Vec<_> = plan.again.iter().map(|id| book.tail.unit(id).unwrap()).map(|unit| (unit.planned, unit.number)).collect();
        prop_assert!(places.is_sorted(), "again in the order of the plans");
        let request = request(&book, &plan);
        let mut gone: BTreeSet<OpPlace> = BTreeSet::new();
        for (records, again_from) in &request {
            let along: BTreeSet<_> = records.iter().map(|(key, _)| key.clone()).collect();
            for (key, places) in records {
                let (first, last) = (book.op(places[0]), *places.last().unwrap());
                let made_here = again_from.is_none() && first.kind == OpKind::Create;
                if book.op(last).kind != OpKind::Delete || made_here {
                    continue;
                }
                let before = again_from.unwrap_or(last);
                for (place, row) in book.tail.ops().filter(|(place, _)| *place < before && !gone.contains(place)) {
                    let refers = row.targets().chain(&row.led_away).any(|target| target == key);
                    let together = book.tail.ops_of_entry(place.seq).any(|(_, row)| along.contains(&row.key))
                        && row.transaction_ops > 1;
                    let waits_for_a_person = book.tail.is_dead(place) || {
                        let dead = book.tail.ops_of(&row.key).find(|place| book.tail.is_dead(*place));
                        dead.is_some_and(|dead| book.op(dead).kind == OpKind::Create)
                    };
                    prop_assert!(
                        !refers || together || waits_for_a_person || along.contains(&row.key),
                        "{} refers to {}, which goes before it", place, key,
                    );
                }
            }
            gone.extend(records.iter().flat_map(|(_, places)| places));
        }
    }

    #[test]
    fn every_op_of_a_tail_under_way_is_sent_or_held(book in any_book_under_way(), priorities in priorities()) {
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
    fn a_tail_that_nobody_holds_from_outside_always_sends_something(book in any_book_under_way(), priorities in priorities()) {
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
        let Planned { units, annulled } = &frozen.planned;
        let in_units = units.iter().flat_map(|unit| &unit.changes).flat_map(|change| &change.ops);
        let mut named: Vec<_> = in_units.chain(annulled.iter().flat_map(|annulled| &annulled.ops)).map(|op| op.place).collect();
        named.sort_unstable();
        let mut absorbed: Vec<_> =
            plan.groups.iter().flat_map(|group| &group.records).flat_map(|(_, places)| places.clone()).collect();
        absorbed.sort_unstable();
        prop_assert_eq!(named, absorbed, "each op once");

        book.items.insert(seq, Vec::from(Items::clone(&frozen.items)));
        for unit in units {
            let changes = unit.changes.iter().map(|change| UnitChangeRow {
                key: change.key.clone(), kind: change.kind, ops: change.ops.clone(), base: change.base, sent_for: SentFor { version: None, record: None },
                edited_at: change.edited_at, older: change.older.clone(), schema_version: change.schema_version, fields: change.fields,
            });
            let row = UnitRow {
                planned: seq, number: 0, actor: unit.actor.clone(), changes: changes.collect(), digest: unit.digest,
                replaces: Vec::new(),
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
        for annulled in annulled {
            let places: Vec<_> = annulled.ops.iter().map(|op| op.place).collect();
            let before = book.rows[&annulled.key].registers().unwrap().image();
            prop_assert_eq!(one_by_one(&book, &annulled.key, &places).image(), before, "they come to nothing");
        }
    }

    #[test]
    fn the_order_and_the_repetition_of_writes_to_a_living_record_do_not_matter(
        all in prop::collection::vec(some_edit(), 0..8), order in Just((0..8usize).collect::<Vec<_>>()).prop_shuffle(),
        again in prop::collection::vec(0..8usize, 0..8),
    ) {
        let join = |record: Registers, number: &usize| match all.get(*number) {
            Some(writes) => record.with([writes]),
            None => record,
        };
        let one_by_one = all.iter().fold(Registers::default(), |record, writes| record.with([writes]));
        let shuffled = order.iter().chain(&again).fold(Registers::default(), join);
        prop_assert_eq!(&shuffled, &one_by_one);
        prop_assert!(all.iter().all(|writes| !writes.are_left(&one_by_one)), "nothing is left of what was joined");
    }

    #[test]
    fn whether_a_record_is_there_depends_on_no_order(
        edits in prop::collection::vec(some_edit(), 0..5), deletions in prop::collection::vec((1..9u64, 5..8u8), 0..4),
        order in Just((0..9usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let deletes = |(at, op): &(u64, u8)| {
            Writes { does: Does::Deletes, stamp: stamp(*at, *op), fields: BTreeMap::new(), brings_back: None }
        };
        let all: Vec<_> = edits.into_iter().chain(deletions.iter().map(deletes)).collect();
        let in_order = all.iter().fold(Registers::default(), |record, writes| record.with([writes]));
        let shuffled = order.iter().filter_map(|number| all.get(*number));
        let shuffled = shuffled.fold(Registers::default(), |record, writes| record.with([writes]));
        prop_assert_eq!((shuffled.life, shuffled.stamp), (in_order.life, in_order.stamp));
        let last = all.iter().max_by_key(|writes| writes.stamp);
        prop_assert_eq!(in_order.is_deleted(), last.is_some_and(|last| last.does == Does::Deletes), "the last word decides");
    }

    #[test]
    fn what_is_stored_of_registers_reads_as_the_same_registers(
        all in prop::collection::vec(some_edit(), 0..6), deletion in prop::option::of((0..9u64, 0..4u8)), number in 1..9u64,
    ) {
        let mut record = all.iter().fold(Registers::default(), |record, writes| record.with([writes]));
        if let Some((at, op)) = deletion {
            record.join(&Writes { does: Does::Deletes, stamp: stamp(at, op), fields: BTreeMap::new(), brings_back: None });
        }
        // An edit above a deletion brings the record back, with a floor.
        let edit = Writes { does: Does::Edits, stamp: stamp(9, 9), fields: BTreeMap::new(), brings_back: None };
        for record in [record.clone(), record.with([&edit])] {
            let stored = Confirmed::of(&record, Version::new(number));
            let read = stored.as_ref().map(|stored| stored.registers().unwrap());
            prop_assert_eq!(stored.map(|stored| stored.version), (record.life != Life::Unknown).then(|| Version::new(number)));
            prop_assert_eq!(read.unwrap_or_default(), record);
        }
    }
}

/// Notes what an op takes away without naming it: a replace what its author read, a new creation what the deletion beneath had shown.
fn cleared(
    row: &RecordRow,
    ops: &BTreeMap<OpPlace, (RecordKey, OpContent)>,
    kind: OpKind,
    said: &Fields,
) -> (Vec<String>, Option<EditStamp>) {
    let deletion = row.tail.last().filter(|last| last.kind == OpKind::Delete);
    let seen = match (kind, deletion) {
        (OpKind::Replace, _) => row.tail.as_slice(),
        (OpKind::Create, Some(_)) => &row.tail[..row.tail.len() - 1],
        _ => return (Vec::new(), None),
    };
    let mut names: BTreeSet<String> = row.registers().unwrap().fields.into_keys().collect();
    names.extend(seen.iter().flat_map(|earlier| ops[&earlier.place].1.fields.names().map(str::to_owned)));
    let cleared = names.into_iter().filter(|name| !said.has(name)).collect();
    (cleared, deletion.filter(|_| kind == OpKind::Create).map(Pending::stamp))
}

fn stamp(at: u64, op: u8) -> EditStamp {
    EditStamp { edited_at: Hlc::from_bits(at), op: OpId::from_bytes([op; 16]) }
}

prop_compose! {
    /// Writes of fields of one record. Two with one stamp are the same write: what they say follows from it.
    fn some_edit()(at in 1..9u64, op in 1..4u8) -> Writes {
        let own = stamp(at, op);
        let said = ["a", "b", "c"].into_iter().zip(0..).filter(|(_, number)| (at + u64::from(op)) >> number & 1 == 1);
        let value = |number: u64| if (at + number).is_multiple_of(3) { Value::Null } else { json!([at, op]) };
        let fields = said.map(|(name, number)| (name.to_owned(), Register { value: value(number), stamp: own }));
        Writes { does: Does::Creates, stamp: own, fields: fields.collect(), brings_back: None }
    }
}

/// What the server makes of its row by a change: its stamp, the fields that have another, and its floor.
fn made_at_server(
    row: Option<&Confirmed>,
    change: &UnitChange,
    names: &[(String, bool)],
) -> Option<(EditStamp, Vec<FieldWrites>, Option<EditStamp>)> {
    let before = match row {
        None => Before::Never,
        Some(row) if row.deleted => Before::Deleted(row.stamp()),
        Some(row) => {
            let present = row.fields.to_fields().unwrap();
            let present = present.names().map(str::to_owned).collect::<Vec<_>>();
            Before::There(FieldStamps::of(row.stamp(), &row.older, row.floor, present))
        }
    };
    let write = WriteStamps { kind: change.kind, stamp: change.stamp(), older: &change.older, fields: names };
    match join(before, &write) {
        Joined::AsBefore => None,
        Joined::Deleted(stamp) => Some((stamp, Vec::new(), None)),
        Joined::There { stamps, .. } => Some(stamps.into_parts()),
    }
}

/// What there is to read of a record, each field with its stamp.
fn shown(record: &Registers) -> Option<Vec<(String, Value, EditStamp)>> {
    let read = |(name, value): (&str, &Value)| (name.to_owned(), value.clone(), record.stamp_of(name));
    record.image().map(|image| image.iter().map(read).collect())
}

/// What ops at these places make of what is confirmed, each joined in turn.
fn one_by_one(book: &Book, key: &RecordKey, places: &[OpPlace]) -> Registers {
    let row = &book.rows[key];
    let tail = row.tail_ops(|place| Ok(book.ops[&place].1.clone()), |fault: InvalidFields| fault).unwrap();
    let ops: Vec<&TailOp> = tail.iter().filter(|op| places.contains(&op.op.place)).collect();
    row.registers().unwrap().with(ops.into_iter().map(|op| &op.writes))
}
