//! What one answer with an outcome of each kind comes to: the counts of the report, and what is kept of the server's words.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;

use serde_json::{Value, json};

use super::*;
use crate::entry::FieldsSource;
use crate::fields::Fields;
use crate::ids::{RequestId, ServerEpoch, ServerId};
use crate::numbers::{Hash, Seq, Version};
use crate::op::{OpKind, OpPlace};
use crate::protocol::{MARKER, PROTOCOL, UnitOutcome};
use crate::random::SeededRandomness;
use crate::rows::{Confirmed, UnitChangeRow, Visible};
use crate::rules::OpContent;
use crate::schema::EntityRules;
use crate::time::Hlc;

/// A book in memory: rows, units and ops as they are put in.
#[derive(Default)]
struct Desk {
    records: HashMap<RecordKey, RecordRow>,
    units: BTreeMap<UnitId, UnitRow>,
    ops: HashMap<OpPlace, OpContent>,
}

impl View for Desk {
    type Error = Infallible;

    fn record(&mut self, key: &RecordKey) -> Result<Option<RecordRow>, Infallible> {
        Ok(self.records.get(key).cloned())
    }

    fn unit(&mut self, unit: &UnitId) -> Result<Option<UnitRow>, Infallible> {
        Ok(self.units.get(unit).cloned())
    }

    fn unit_of(&mut self, op: &OpId) -> Result<Option<UnitId>, Infallible> {
        let holds = |unit: &UnitRow| {
            unit.changes.iter().flat_map(|change| &change.ops).any(|planned| planned.id == *op)
        };
        Ok(self.units.iter().find(|(_, unit)| holds(unit)).map(|(id, _)| *id))
    }

    fn op(&mut self, place: OpPlace) -> Result<OpContent, Infallible> {
        Ok(self.ops[&place].clone())
    }

    fn fields(&mut self, source: FieldsSource) -> Result<Option<FieldsJson>, Infallible> {
        let FieldsSource::OfOp(place) = source else { return Ok(None) };
        Ok(Some(self.ops[&place].fields.to_json()))
    }
}

fn key(id: &str) -> RecordKey {
    RecordKey::parse("lead", id).unwrap()
}

fn unit_id(number: u8) -> UnitId {
    UnitId::from_bytes([number; 16])
}

fn op_id(number: u8) -> OpId {
    OpId::from_bytes([100 + number; 16])
}

fn fields(value: Value) -> Fields {
    Fields::from_value(value).unwrap()
}

impl Desk {
    /// Puts in a confirmed record with updates that set `n` to their numbers, and a unit that carries the first of them.
    fn with(mut self, record: &str, unit: u8, carried: u8, waiting: u8) -> Self {
        let place = |number: u8| OpPlace { seq: Seq::new(u64::from(unit)), index: u32::from(number) };
        let id = |number: u8| op_id(unit * 10 + number);
        let reference = |number: u8| TailRef::new(id(number), place(number), OpKind::Update);
        for number in 0..carried + waiting {
            let edited_at = Hlc::from_bits(1_000 + u64::from(number));
            let fields = fields(json!({ "n": number }));
            let content =
                OpContent { id: id(number), kind: OpKind::Update, edited_at, schema_version: 1, fields };
            self.ops.insert(place(number), content);
        }
        let confirmed = Confirmed {
            version: Version::new(1),
            edited_at: Hlc::ZERO,
            deleted: false,
            fields: fields(json!({"n": "before"})).to_json(),
        };
        let row = RecordRow {
            confirmed: Some(confirmed),
            visible: Visible::AsConfirmed,
            tail: (0..carried + waiting).map(reference).collect(),
            ..RecordRow::default()
        };
        self.records.insert(key(record), row);
        let change = UnitChangeRow {
            key: key(record),
            kind: OpKind::Update,
            ops: (0..carried).map(|number| PlannedOp { id: id(number), place: place(number) }).collect(),
            base: Some(Version::new(1)),
            base_fields: Some(fields(json!({"n": "before"})).to_json()),
            edited_at: Hlc::from_bits(1_000),
            older: Vec::new(),
            schema_version: 1,
            fields: FieldsSource::OfOp(place(carried.saturating_sub(1))),
        };
        let unit_row = UnitRow {
            planned: Seq::new(u64::from(unit)),
            actor: crate::names::Actor::parse("ann").unwrap(),
            changes: vec![change],
            digest: Hash::ZERO,
            replaces: Vec::new(),
            tries: 0,
            code: String::new(),
            first_try: None,
            retry_at: None,
        };
        self.units.insert(unit_id(unit), unit_row);
        self
    }

    fn take(&mut self, outcomes: Vec<(u8, Outcome)>, changes: Vec<Change>) -> Answered {
        let outcomes =
            outcomes.into_iter().map(|(unit, outcome)| UnitOutcome { unit: unit_id(unit), outcome });
        let answer = ExchangeAnswer {
            marker: MARKER.to_owned(),
            protocol: PROTOCOL,
            request: RequestId::from_bytes([1; 16]),
            server: ServerId::from_bytes([2; 16]),
            server_epoch: ServerEpoch::from_bytes([3; 16]),
            server_time: WallTime::default(),
            outcomes: outcomes.collect(),
            changes,
            cursors: BTreeMap::new(),
            more: false,
            receipt: None,
            forked: None,
        };
        let schema = Schema::open(EntityRules::default());
        let mut random = SeededRandomness::from_number(1);
        take_answer(self, &schema, &answer, WallTime::default(), &mut random).unwrap()
    }
}

fn theirs(record: &str, version: u64, value: Value) -> Change {
    Change {
        key: key(record),
        version: Version::new(version),
        edited_at: Hlc::from_bits(5_000),
        op: op_id(99),
        older: BTreeMap::new(),
        deleted: false,
        partial: false,
        fields: Some(fields(value).to_json()),
    }
}

fn applied(record: &str) -> Outcome {
    Outcome::Applied { versions: BTreeMap::from([(key(record), Version::new(2))]), current: Vec::new() }
}

fn rejected(message: &str) -> Outcome {
    Outcome::Rejected { code: "no".to_owned(), message: message.to_owned() }
}

/// Returns the ops that are annulled, and why.
fn annulled(answered: &Answered) -> Vec<(AnnulledReason, Vec<OpId>)> {
    let ends = answered.decisions.iter().filter_map(|decision| match decision {
        Decision::Annulled(annulled) => {
            Some((annulled.reason, annulled.ops.iter().map(|op| op.id).collect()))
        }
        _ => None,
    });
    ends.collect()
}

#[test]
fn an_answer_is_told_in_numbers() {
    let stale =
        |record| Outcome::Stale { current: vec![theirs(record, 3, json!({"n": "theirs"}))], applied: vec![] };
    let transient = || Outcome::Transient {
        code: "busy".to_owned(),
        message: String::new(),
        retry_after_milliseconds: None,
    };
    // Two of each kind, with 2 and 3 ops.
    let mut desk = Desk::default();
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
        desk = desk.with(record, unit, ops, 0);
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
    let answered = desk.take(outcomes, changes);
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
    assert!(Desk::default().take(Vec::new(), Vec::new()).is_empty());
    assert!(!Desk::default().take(Vec::new(), vec![theirs("x", 4, json!({}))]).is_empty());
    let full = || Desk::default().with("a", 1, 1, 0).take(vec![(1, applied("a"))], Vec::new());
    assert!(!full().is_empty());
    let only_decisions =
        Answered { upstream: Desk::default().take(Vec::new(), Vec::new()).upstream, ..full() };
    assert!(!only_decisions.is_empty());
    let only_outcomes = Answered { decisions: Vec::new(), ..full() };
    assert!(!only_outcomes.is_empty());
}

#[test]
fn what_the_server_says_to_people_is_kept_beside_its_code_and_cut_at_a_character() {
    let mut desk = Desk::default().with("a", 1, 1, 0).with("b", 2, 1, 0);
    let long = "é".repeat(limits::MESSAGE_BYTES);
    let answered = desk.take(vec![(1, rejected("")), (2, rejected(&long))], Vec::new());
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
fn what_a_given_up_unit_turns_out_to_have_brought_ends_as_arrived_unless_it_is_under_way() {
    let mut desk = Desk::default().with("a", 1, 1, 1);
    let row = desk.records.get_mut(&key("a")).unwrap();
    let lost = unit_id(50);
    for reference in &mut row.tail {
        reference.attempts.push(lost);
    }
    let (sent, waits) = (row.tail[0].op, row.tail[1].op);
    let ended = |desk: &mut Desk| {
        annulled(&desk.take(Vec::new(), vec![Change { op: waits, ..theirs("a", 2, json!({"n": 1})) }]))
    };
    assert_eq!(ended(&mut desk), [(AnnulledReason::Arrived, vec![waits])], "the first is under way again");
    desk.units.clear();
    assert_eq!(ended(&mut desk), [(AnnulledReason::Arrived, vec![sent, waits])]);
    desk.records.get_mut(&key("a")).unwrap().tail[1].attempts.clear();
    assert_eq!(
        ended(&mut desk),
        [],
        "a copy of this book sent it: this one ends what it sees of its own only"
    );
}

#[test]
fn both_sides_deleted_and_ours_ends_whole_though_an_earlier_op_was_acked_by_the_same_answer() {
    let mut desk = Desk::default().with("a", 1, 1, 2);
    let row = desk.records.get_mut(&key("a")).unwrap();
    let (covered, delete) = (row.tail[1].op, &mut row.tail[2]);
    delete.kind = OpKind::Delete;
    let (place, delete) = (delete.place, delete.op);
    let content = desk.ops.get_mut(&place).unwrap();
    (content.kind, content.fields) = (OpKind::Delete, Fields::new());
    let deleted = Change { deleted: true, fields: None, ..theirs("a", 3, json!({})) };
    let answered = desk.take(vec![(1, applied("a"))], vec![deleted]);
    assert_eq!(annulled(&answered), [(AnnulledReason::NoEffect, vec![covered, delete])]);
}
