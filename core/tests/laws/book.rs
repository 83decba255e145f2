//! Random tails, and the values that they are drawn from.

use super::*;

/// A drawn op.
#[derive(Debug, Clone)]
pub(super) struct Drawn {
    pub(super) kind: usize,
    pub(super) record: usize,
    pub(super) other_actor: bool,
    pub(super) new_version: bool,
    /// Whether it belongs to the same transaction as the op before it.
    pub(super) joins: bool,
    pub(super) fresh: bool,
    pub(super) dead: bool,
    pub(super) refers: Option<usize>,
    pub(super) leaves: Option<usize>,
    pub(super) fields: Fields,
}

/// A drawn unit of the first ops of a record.
#[derive(Debug, Clone)]
pub(super) struct DrawnUnit {
    pub(super) ops: usize,
    pub(super) planned: u64,
    pub(super) number: u32,
    pub(super) tries: u32,
    pub(super) backs_off: bool,
}

/// A tail with all that planning and freezing read.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) tail: Tail,
    pub(super) rows: HashMap<RecordKey, RecordRow>,
    pub(super) ops: BTreeMap<OpPlace, (RecordKey, OpContent)>,
    pub(super) items: HashMap<Seq, Vec<Item>>,
}

pub(super) fn key(record: usize) -> RecordKey {
    let entity = if record < RECORDS / 2 { "lead" } else { "note" };
    RecordKey::parse(entity, &record.to_string()).unwrap()
}

pub(super) fn actor(other: bool) -> Actor {
    Actor::parse(if other { "user-2" } else { "user-1" }).unwrap()
}

prop_compose! {
    pub(super) fn some_fields()(members in prop::collection::btree_map("[a-c]", prop_oneof![
        Just(Value::Null), (0..3u8).prop_map(|n| json!(n)),
    ], 0..3)) -> Fields {
        members.into_iter().collect()
    }
}

prop_compose! {
    pub(super) fn drawn()(
        kind in 0..4usize, record in 0..RECORDS,
        (other_actor, new_version, joins) in (rarely(), rarely(), rarely()),
        (fresh, dead) in (rarely(), rarely()),
        refers in prop::option::weighted(0.3, 0..RECORDS), leaves in prop::option::weighted(0.3, 0..RECORDS),
        fields in some_fields(),
    ) -> Drawn {
        Drawn { kind, record, other_actor, new_version, joins, fresh, dead, refers, leaves, fields }
    }
}

pub(super) fn rarely() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.15)
}

pub(super) fn priorities() -> impl Strategy<Value = [Priorities; 2]> {
    let some = || prop::option::of(-1..2i32);
    let one = || {
        (some(), some(), some()).prop_map(|(create, update, delete)| Priorities {
            create,
            update,
            delete,
        })
    };
    [one(), one()]
}

pub(super) fn schema([leads, notes]: [Priorities; 2]) -> Schema {
    let rules = |entity: &str, priorities| {
        let entity = EntityType::parse(entity).unwrap();
        let references = vec![Reference { field: "about".to_owned(), entity }];
        EntityRules { references, priorities, undo_window: WINDOW, ..EntityRules::default() }
    };
    // Leads refer to notes and notes to leads, so that records may wait for each other. No version
    // is declared by name.
    Schema::open(rules("note", leads)).declare(
        EntityType::parse("note").unwrap(),
        EntityRules { schema_version: 1, upcasters: BTreeMap::new(), ..rules("lead", notes) },
    )
}

impl Book {
    pub(super) fn new(confirmed: Vec<Option<Fields>>, ops: Vec<Drawn>, unanswered: usize) -> Self {
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
            // A transaction has one author and one time, and is refused as a whole.
            for op in intent {
                let place = OpPlace { seq: Seq::new(seq), index };
                book.insert(
                    place,
                    &Drawn {
                        other_actor: first.other_actor,
                        fresh: first.fresh,
                        dead: first.dead,
                        ..op
                    },
                    ops,
                );
                index += 1;
            }
            index = 0;
        }
        book.send(unanswered);
        book
    }

    pub(super) fn insert(&mut self, place: OpPlace, drawn: &Drawn, transaction_ops: usize) {
        let (key, kind) = (key(drawn.record), KINDS[drawn.kind]);
        let number = u32::try_from(self.ops.len() + 1).unwrap();
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        let op = OpId::from_bytes(bytes);
        let mut fields = if kind == OpKind::Delete { Fields::new() } else { drawn.fields.clone() };
        // Nobody writes an empty update (`admit`).
        if kind == OpKind::Update && fields.is_empty() {
            fields.set("a", 1);
        }
        let refers =
            drawn.refers.filter(|target| *target != drawn.record && kind != OpKind::Delete);
        // Leads refer to notes and notes to leads.
        let refers =
            refers.filter(|target| (*target < RECORDS / 2) != (drawn.record < RECORDS / 2));
        if let Some(target) = refers {
            fields.set("about", target.to_string());
        }
        let is_other = |target: &usize| (*target < RECORDS / 2) != (drawn.record < RECORDS / 2);
        let leaves = drawn
            .leaves
            .filter(|target| is_other(target) && kind != OpKind::Create && refers != Some(*target));
        // Notes are declared by name, so that their version counts; only leads have ops of two
        // versions.
        let schema_version = if drawn.new_version && drawn.record < RECORDS / 2 { 2 } else { 1 };
        let edited_at = Hlc::from_bits(u64::from(number) + 10);
        let references = refers.map(|target| FieldReference {
            field: "about".to_owned(),
            target: Some(self::key(target)),
        });
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
        self.ops
            .insert(place, (key, OpContent { id: op, kind, edited_at, schema_version, fields }));
    }

    /// Makes the first ops of the first record unanswered, if none of them is in a transaction.
    pub(super) fn send(&mut self, count: usize) {
        let unit = DrawnUnit { ops: count, planned: 1_000, number: 0, tries: 0, backs_off: false };
        self.send_of(0, &unit);
    }

    /// Makes the first ops of a record unanswered, if none of them is in a transaction.
    pub(super) fn send_of(&mut self, record: usize, drawn: &DrawnUnit) {
        let first: Vec<_> = self
            .tail
            .ops_of(&key(record))
            .filter(|place| !self.tail.is_dead(*place))
            .take(drawn.ops)
            .collect();
        if first.is_empty()
            || first.iter().any(|place| self.tail.op(*place).unwrap().transaction_ops > 1)
        {
            return;
        }
        let ops = first.iter().map(|place| fieldbook_core::entry::PlannedOp {
            id: self.tail.op(*place).unwrap().op,
            place: *place,
        });
        let change = PlannedChange {
            key: key(record),
            kind: OpKind::Update,
            ops: ops.collect(),
            base: None,
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
            records: vec![None],
            digest: Hash::from_bytes([0; 32]),
            earlier_units: Vec::new(),
            tries: drawn.tries,
            code: String::new(),
            first_try: None,
            retry_at: drawn.backs_off.then(|| NOW.plus(WINDOW)),
            suspicion: None,
        };
        // In another order than that of the plans.
        self.tail.put_unit(UnitId::from_bytes([9 - u8::try_from(record).unwrap(); 16]), &unit);
    }

    pub(super) fn planned(&self, schema: &Schema, batch_ops: usize) -> Plan {
        let actor = actor(false);
        let input = PlanInput::unbounded(&self.tail, schema, &[], &actor, NOW, &NoInspection);
        plan(&PlanInput { batch_ops, ..input })
    }

    pub(super) fn op(&self, place: OpPlace) -> &TailRow {
        self.tail.op(place).unwrap()
    }

    pub(super) fn waiting(&self, key: &RecordKey) -> Vec<OpPlace> {
        self.tail.ops_of(key).filter(|place| !self.tail.is_dead(*place)).collect()
    }

    pub(super) fn is_transaction(&self, group: &Group) -> bool {
        group
            .records
            .iter()
            .flat_map(|(_, places)| places)
            .any(|place| self.op(*place).transaction_ops > 1)
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

pub(super) fn any_book() -> impl Strategy<Value = Book> {
    let confirmed = prop::collection::vec(prop::option::of(some_fields()), RECORDS);
    (confirmed, prop::collection::vec(drawn(), 0..12), 0..3usize)
        .prop_map(|(confirmed, ops, unanswered)| Book::new(confirmed, ops, unanswered))
}

prop_compose! {
    pub(super) fn drawn_unit()(
        ops in 0..3usize, planned in 1_000..1_002u64, number in 0..3u32, tries in 0..2u32, backs_off in any::<bool>(),
    ) -> DrawnUnit {
        DrawnUnit { ops, planned, number, tries, backs_off }
    }
}

/// A book with unanswered units of several records, some of which back off.
pub(super) fn any_book_with_unanswered() -> impl Strategy<Value = Book> {
    (any_book(), prop::collection::vec(drawn_unit(), RECORDS)).prop_map(|(mut book, units)| {
        for (record, unit) in units.iter().enumerate().skip(1) {
            book.send_of(record, unit);
        }
        book
    })
}

/// Returns the fields that an op removes without naming them: for a replace those that its author
/// read, for a new creation those of the record before the deletion.
pub(super) fn cleared(
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
    names.extend(
        seen.iter().flat_map(|earlier| ops[&earlier.place].1.fields.names().map(str::to_owned)),
    );
    let cleared = names.into_iter().filter(|name| !said.has(name)).collect();
    (cleared, deletion.filter(|_| kind == OpKind::Create).map(Pending::stamp))
}

/// Joins the ops at these places to the confirmed record, one after the other.
pub(super) fn one_by_one(book: &Book, key: &RecordKey, places: &[OpPlace]) -> Registers {
    let row = &book.rows[key];
    let tail =
        row.tail_ops(|place| Ok(book.ops[&place].1.clone()), |fault: InvalidFields| fault).unwrap();
    let ops: Vec<&TailOp> = tail.iter().filter(|op| places.contains(&op.op.place)).collect();
    row.registers().unwrap().with(ops.into_iter().map(|op| &op.writes))
}
