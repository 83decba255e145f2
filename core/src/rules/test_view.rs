//! A book in memory, for the tests of the rules that read one.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::answer::{Answered, decide_answer};
use super::{OpContent, View};
use crate::entry::{CancelledReason, Decision, FieldsSource, PlannedChange, PlannedOp};
use crate::fields::{Fields, FieldsJson, InvalidFields};
use crate::ids::{OpId, RequestId, ServerEpoch, ServerId, UnitId};
use crate::names::RecordKey;
use crate::numbers::{Hash, Seq, Version};
use crate::op::{OpKind, OpPlace};
use crate::protocol::{Change, ExchangeAnswer, Outcome, UnitOutcome};
use crate::random::SeededRandomness;
use crate::record::Pending;
pub(super) use crate::record::test_ops::{fields, op_id};
use crate::rows::{Confirmed, RecordRow, UnitRow, Visible};
use crate::schema::{EntityRules, Schema};
use crate::time::{Hlc, WallTime};

/// A book in memory: the rows, units and ops that a test adds.
#[derive(Default)]
pub(super) struct TestView {
    pub(super) records: HashMap<RecordKey, RecordRow>,
    pub(super) units: BTreeMap<UnitId, UnitRow>,
    pub(super) ops: HashMap<OpPlace, OpContent>,
}

impl View for TestView {
    type Error = InvalidFields;

    fn record(&mut self, key: &RecordKey) -> Result<Option<RecordRow>, InvalidFields> {
        Ok(self.records.get(key).cloned())
    }

    fn unit(&mut self, unit: &UnitId) -> Result<Option<UnitRow>, InvalidFields> {
        Ok(self.units.get(unit).cloned())
    }

    fn unit_of(&mut self, op: &OpId) -> Result<Option<UnitId>, InvalidFields> {
        let holds = |unit: &UnitRow| {
            unit.changes.iter().flat_map(|change| &change.ops).any(|planned| planned.id == *op)
        };
        Ok(self.units.iter().find(|(_, unit)| holds(unit)).map(|(id, _)| *id))
    }

    fn op(&mut self, place: OpPlace) -> Result<OpContent, InvalidFields> {
        Ok(self.ops[&place].clone())
    }

    fn fields(&mut self, source: FieldsSource) -> Result<Option<FieldsJson>, InvalidFields> {
        let FieldsSource::OfOp(place) = source else { return Ok(None) };
        Ok(Some(self.ops[&place].fields.to_json()))
    }
}

pub(super) fn key(id: &str) -> RecordKey {
    RecordKey::parse("lead", id).unwrap()
}

pub(super) fn unit_id(number: u8) -> UnitId {
    UnitId::from_bytes([number; 16])
}

impl TestView {
    /// Adds a confirmed record with updates that set `n` to their numbers, and a unit with the
    /// first of them.
    pub(super) fn with(mut self, record: &str, unit: u8, carried: u8, waiting: u8) -> Self {
        let place =
            |number: u8| OpPlace { seq: Seq::new(u64::from(unit)), index: u32::from(number) };
        let id = |number: u8| op_id(unit * 10 + number);
        let stamp = |number: u8| Hlc::from_bits(1_000 + u64::from(number));
        let waits =
            |number: u8| Pending::new(id(number), place(number), OpKind::Update, stamp(number));
        for number in 0..carried + waiting {
            let edited_at = stamp(number);
            let fields = fields(json!({ "n": number }));
            let content = OpContent {
                id: id(number),
                kind: OpKind::Update,
                edited_at,
                schema_version: 1,
                fields,
            };
            self.ops.insert(place(number), content);
        }
        let confirmed = Confirmed {
            version: Version::new(1),
            edited_at: Hlc::ZERO,
            op: OpId::from_bytes([0; 16]),
            older: Vec::new(),
            floor: None,
            deleted: false,
            fields: fields(json!({"n": "before"})).to_json(),
        };
        let row = RecordRow {
            confirmed: Some(confirmed.clone()),
            visible: Visible::AsConfirmed,
            tail: (0..carried + waiting).map(waits).collect(),
            ..RecordRow::default()
        };
        self.records.insert(key(record), row);
        let change = PlannedChange {
            key: key(record),
            kind: OpKind::Update,
            ops: (0..carried)
                .map(|number| PlannedOp { id: id(number), place: place(number) })
                .collect(),
            base: Some(Version::new(1)),
            edited_at: stamp(carried.saturating_sub(1)),
            older: Vec::new(),
            schema_version: 1,
            fields: FieldsSource::OfOp(place(carried.saturating_sub(1))),
        };
        let unit_row = UnitRow {
            planned: Seq::new(u64::from(unit)),
            number: 0,
            actor: crate::names::Actor::parse("ann").unwrap(),
            changes: vec![change],
            records: vec![Some(confirmed)],
            digest: Hash::ZERO,
            earlier_units: Vec::new(),
            tries: 0,
            code: String::new(),
            first_try: None,
            retry_at: None,
            suspicion: None,
        };
        self.units.insert(unit_id(unit), unit_row);
        self
    }

    pub(super) fn row(&mut self, record: &str) -> &mut RecordRow {
        self.records.get_mut(&key(record)).unwrap()
    }

    /// Changes an op of a record's tail to a delete, and returns it.
    pub(super) fn turn_into_delete(&mut self, record: &str, number: usize) -> OpId {
        let pending = &mut self.row(record).tail[number];
        pending.kind = OpKind::Delete;
        let (op, place) = (pending.op, pending.place);
        let content = self.ops.get_mut(&place).unwrap();
        (content.kind, content.fields) = (OpKind::Delete, Fields::new());
        op
    }

    pub(super) fn take(&mut self, outcomes: Vec<(u8, Outcome)>, changes: Vec<Change>) -> Answered {
        let outcomes = outcomes
            .into_iter()
            .map(|(unit, outcome)| UnitOutcome { unit: unit_id(unit), outcome });
        let answer = ExchangeAnswer { outcomes: outcomes.collect(), changes, ..answer() };
        let schema = Schema::open(EntityRules::default());
        let mut random = SeededRandomness::from_number(1);
        decide_answer(self, &schema, &answer, WallTime::default(), &mut random).unwrap()
    }
}

/// Returns an answer of server 2 without content.
pub(super) fn answer() -> ExchangeAnswer {
    ExchangeAnswer::new(
        RequestId::from_bytes([1; 16]),
        ServerId::from_bytes([2; 16]),
        ServerEpoch::from_bytes([3; 16]),
        WallTime::default(),
    )
}

pub(super) fn theirs(record: &str, version: u64, value: Value) -> Change {
    Change {
        key: key(record),
        version: Version::new(version),
        edited_at: Hlc::from_bits(5_000),
        op: op_id(99),
        by: None,
        older: Vec::new(),
        floor: None,
        deleted: false,
        partial: false,
        fields: Some(fields(value).to_json()),
    }
}

pub(super) fn applied(record: &str) -> Outcome {
    Outcome::Applied {
        versions: BTreeMap::from([(key(record), Version::new(2))]),
        current: Vec::new(),
    }
}

/// Returns the ops that are cancelled, and why.
pub(super) fn cancelled(answered: &Answered) -> Vec<(CancelledReason, Vec<OpId>)> {
    let ends = answered.decisions.iter().filter_map(|decision| match decision {
        Decision::Cancelled(cancelled) => {
            Some((cancelled.reason, cancelled.ops.iter().map(|op| op.id).collect()))
        }
        _ => None,
    });
    ends.collect()
}

/// Returns the ops of which nothing was left, in the order in which they end.
pub(super) fn superseded(answered: &Answered) -> Vec<OpId> {
    let ends = answered.decisions.iter().filter_map(|decision| match decision {
        Decision::Superseded { op, .. } => Some(op.id),
        _ => None,
    });
    ends.collect()
}
