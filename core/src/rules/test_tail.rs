//! A tail in memory, for the tests of a person's decisions.

use super::test_view::{TestView, key, op_id, unit_id};
use crate::entry::{ConflictedField, Extent, PlannedChange, PlannedOp, Winner};
use crate::fields::Fields;
use crate::ids::{DeviceId, Epoch, RequestId};
use crate::names::Actor;
use crate::numbers::{Seq, Version};
use crate::op::{OpKind, OpPlace};
use crate::protocol::ExchangeRequest;
use crate::record::Pending;
pub(super) use crate::record::test_ops::{deleted, place, planned, tail_op, there};
use crate::rows::{ConflictRow, DeadLetterRow, RecordRow, Suspicion, TailRow, UnitRow};
use crate::schema::Policy;
use crate::tail::Tail;
use crate::time::{Hlc, WallTime};

/// Makes a pending op of a record, on its own.
pub(super) fn tail_row(record: &str, number: u8, kind: OpKind) -> TailRow {
    TailRow {
        op: op_id(number),
        key: key(record),
        kind,
        actor: Actor::parse("ann").unwrap(),
        edited_at: Hlc::from_bits(number.into()),
        made_at: WallTime::default(),
        schema_version: 1,
        upcast: None,
        transaction_ops: 1,
        bytes: 10,
        references: Vec::new(),
        led_away: Vec::new(),
    }
}

/// Makes ops of records, in entries 1, 2, 3 and so on.
pub(super) fn pending(ops: &[(&str, OpKind)]) -> Tail {
    let mut tail = Tail::default();
    for (seq, (record, kind)) in (1..).zip(ops) {
        tail.insert(place(seq), tail_row(record, seq, *kind));
    }
    tail
}

/// Makes the ops with these numbers as one transaction in entry 1, each of another record.
pub(super) fn transaction(numbers: &[(&str, u8)]) -> Tail {
    let mut tail = Tail::default();
    for (index, (record, number)) in (0..).zip(numbers) {
        let transaction_ops = u32::try_from(numbers.len()).unwrap();
        let row = TailRow { transaction_ops, ..tail_row(record, *number, OpKind::Update) };
        tail.insert(OpPlace { index, ..place(1) }, row);
    }
    tail
}

/// Makes unit 1 with these ops of a record.
pub(super) fn unit_of(record: &str, ops: Vec<PlannedOp>) -> UnitRow {
    let unit = TestView::default().with(record, 1, 1, 0).units.remove(&unit_id(1)).unwrap();
    let change = PlannedChange { ops, ..unit.changes[0].clone() };
    UnitRow { changes: vec![change], ..unit }
}

/// Returns the same unit, isolated.
pub(super) fn isolated_unit(record: &str, ops: Vec<PlannedOp>) -> UnitRow {
    let retry_at = Some(WallTime::from_milliseconds(60_000));
    let suspicion =
        Suspicion { set: (Seq::new(7), 0), times: 2, code: "http_502".to_owned(), retry_at };
    UnitRow { suspicion: Some(suspicion), ..unit_of(record, ops) }
}

/// Returns the row of a record with updates of these numbers as its tail. The server has the
/// record, or never named it.
pub(super) fn row_of(confirmed: bool, numbers: &[u8]) -> RecordRow {
    let row = TestView::default().with("1", 1, 0, 0).row("1").clone();
    let stamp = |number: u8| Hlc::from_bits(1_000 + u64::from(number));
    let waits =
        |number: &u8| Pending::new(op_id(*number), place(*number), OpKind::Update, stamp(*number));
    let tail = numbers.iter().map(waits);
    RecordRow { confirmed: row.confirmed.filter(|_| confirmed), tail: tail.collect(), ..row }
}

/// Makes the dead letter of an op.
pub(super) fn dead_letter(record: &str, op: PlannedOp, kind: OpKind) -> DeadLetterRow {
    DeadLetterRow {
        key: key(record),
        op,
        kind,
        actor: Actor::parse("ann").unwrap(),
        unit: unit_id(1),
        code: "23514".to_owned(),
        message: String::new(),
        tries: 1,
        first_at: WallTime::default(),
        last_at: WallTime::default(),
        recorded: Seq::new(9),
    }
}

/// Returns a conflict of op 1 with the server, which deleted the record or not; with its fields, if
/// it was resolved by field.
pub(super) fn conflict(
    kind: OpKind,
    winner: Winner,
    deleted: bool,
    settled: &[(&str, Winner)],
) -> ConflictRow {
    let nothing = Fields::new().to_json();
    let policy = Policy::LastWriteWins;
    ConflictRow {
        key: key("1"),
        op: planned(1),
        kind,
        edited_at: Hlc::ZERO,
        version: Version::new(2),
        extent: if deleted { Extent::Deleted } else { Extent::Whole },
        remote_edited_at: Hlc::ZERO,
        fields: settled
            .iter()
            .map(|(name, winner)| ConflictedField {
                name: (*name).to_owned(),
                rule: policy,
                winner: *winner,
            })
            .collect(),
        winner,
        rule: policy,
        base: nothing.clone(),
        local: nothing.clone(),
        remote: nothing,
        merged: None,
        functions: Vec::new(),
        at: WallTime::default(),
        open: winner == Winner::Undecided,
    }
}

/// Makes a request that asks for nothing.
pub(super) fn request() -> ExchangeRequest {
    ExchangeRequest::new(
        RequestId::from_bytes([1; 16]),
        DeviceId::from_bytes([4; 16]),
        Epoch::from_bytes([5; 16]),
        Actor::parse("ann").unwrap(),
    )
}
