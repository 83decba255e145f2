//! Tails as they are drawn: ops of several records and actors, transactions, references, units under way, some that back off; and
//! what planning and freezing read of a book beside them.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::time::Duration;

use fieldbook_core::entry::{FieldsSource, Item};
use fieldbook_core::rows::{
    Confirmed, FieldReference, RecordRow, TailRef, TailRow, UnitChangeRow, UnitRow, Visible,
};
use fieldbook_core::rules::group::Group;
use fieldbook_core::rules::inspect::NoInspection;
use fieldbook_core::rules::plan::{Plan, PlanInput, plan};
use fieldbook_core::rules::{Image, OpContent, View};
use fieldbook_core::tail::Tail;
use fieldbook_core::{
    Actor, EntityRules, EntityType, Fields, FieldsJson, Hash, Hlc, OpId, OpKind, OpPlace, Priorities,
    RecordKey, Reference, Schema, Seq, UnitId, Version, WallTime,
};
use proptest::prelude::*;
use serde_json::{Value, json};

pub(crate) const NOW: WallTime = WallTime::from_milliseconds(1_000_000);
pub(crate) const WINDOW: Duration = Duration::from_millis(5_000);
pub(crate) const KINDS: [OpKind; 4] = [OpKind::Create, OpKind::Update, OpKind::Delete, OpKind::Replace];
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
pub(crate) struct Book {
    pub(crate) tail: Tail,
    pub(crate) rows: HashMap<RecordKey, RecordRow>,
    pub(crate) ops: BTreeMap<OpPlace, (RecordKey, OpContent)>,
    pub(crate) items: HashMap<Seq, Vec<Item>>,
}

pub(crate) fn key(record: usize) -> RecordKey {
    let entity = if record < RECORDS / 2 { "lead" } else { "note" };
    RecordKey::parse(entity, &record.to_string()).unwrap()
}

pub(crate) fn actor(other: bool) -> Actor {
    Actor::parse(if other { "user-2" } else { "user-1" }).unwrap()
}

prop_compose! {
    pub(crate) fn some_fields()(members in prop::collection::btree_map("[a-c]", prop_oneof![
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

pub(crate) fn priorities() -> impl Strategy<Value = [Priorities; 2]> {
    let some = || prop::option::of(-1..2i32);
    let one = || {
        (some(), some(), some()).prop_map(|(create, update, delete)| Priorities { create, update, delete })
    };
    [one(), one()]
}

pub(crate) fn schema([leads, notes]: [Priorities; 2]) -> Schema {
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
        row.tail.push(TailRef { dead: drawn.dead, ..TailRef::new(op, place, kind) });
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
            base_fields: None,
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

    pub(crate) fn planned(&self, schema: &Schema, batch_ops: usize) -> Plan {
        let actor = actor(false);
        let input = PlanInput::unbounded(&self.tail, schema, &[], &actor, NOW, &NoInspection);
        plan(&PlanInput { batch_ops, ..input })
    }

    pub(crate) fn op(&self, place: OpPlace) -> &TailRow {
        self.tail.op(place).unwrap()
    }

    pub(crate) fn waiting(&self, key: &RecordKey) -> Vec<OpPlace> {
        self.tail.ops_of(key).filter(|place| !self.tail.is_dead(*place)).collect()
    }

    pub(crate) fn is_transaction(&self, group: &Group) -> bool {
        group.records.iter().flat_map(|(_, places)| places).any(|place| self.op(*place).transaction_ops > 1)
    }
}

impl View for Book {
    type Error = Infallible;

    fn record(&mut self, key: &RecordKey) -> Result<Option<RecordRow>, Infallible> {
        Ok(self.rows.get(key).cloned())
    }

    fn unit(&mut self, _: &UnitId) -> Result<Option<UnitRow>, Infallible> {
        Ok(None)
    }

    fn unit_of(&mut self, op: &OpId) -> Result<Option<UnitId>, Infallible> {
        Ok(self.tail.place_of(op).and_then(|place| self.tail.unit_of(place)))
    }

    fn op(&mut self, place: OpPlace) -> Result<OpContent, Infallible> {
        Ok(self.ops[&place].1.clone())
    }

    fn fields(&mut self, source: FieldsSource) -> Result<Option<FieldsJson>, Infallible> {
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

pub(crate) fn any_book() -> impl Strategy<Value = Book> {
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
pub(crate) fn any_book_under_way() -> impl Strategy<Value = Book> {
    (any_book(), prop::collection::vec(drawn_unit(), RECORDS)).prop_map(|(mut book, units)| {
        for (record, unit) in units.iter().enumerate().skip(1) {
            book.send_of(record, unit);
        }
        book
    })
}

/// A unit of a request: its records with their ops, and the first op of what is sent again.
pub(crate) type Sent = (Vec<(RecordKey, Vec<OpPlace>)>, Option<OpPlace>);

/// The units of a request, in order.
pub(crate) fn request(book: &Book, plan: &Plan) -> Vec<Sent> {
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
pub(crate) fn comes_to(kinds: &[OpKind]) -> OpKind {
    match (kinds.first(), kinds.last()) {
        (_, Some(OpKind::Delete)) => OpKind::Delete,
        _ if !kinds.contains(&OpKind::Delete) && kinds.first() == Some(&OpKind::Create) => OpKind::Create,
        _ => OpKind::Update,
    }
}

pub(crate) fn confirmed(book: &Book, key: &RecordKey) -> Image {
    let fields = book.rows[key].confirmed_image().map(|json| json.to_fields().unwrap());
    Image { fields, before_deletion: None }
}

pub(crate) fn one_by_one(book: &Book, key: &RecordKey, places: &[OpPlace]) -> Image {
    let mut image = confirmed(book, key);
    for (_, content) in places.iter().map(|place| &book.ops[place]) {
        image.apply(content.kind, &content.fields);
    }
    image
}
