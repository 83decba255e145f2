//! Which of several ops decides the state of a record. The tests of [`crate::rules::explain`] check
//! the state of each single op with its words.

use super::*;
use crate::entry::PlannedOp;
use crate::names::Actor;
use crate::op::OpKind;
use crate::rules::test_view::{TestView, unit_id};
use crate::time::Hlc;

fn place(seq: u64) -> OpPlace {
    OpPlace { seq: Seq::new(seq), index: 0 }
}

fn op(seq: u8) -> OpId {
    OpId::from_bytes([seq; 16])
}

fn key() -> RecordKey {
    RecordKey::parse("lead", "1").unwrap()
}

/// Updates of `lead/1`, in entries 1, 2, 3 and so on.
#[derive(Default)]
struct Given {
    tail: Tail,
    holds: BTreeMap<OpPlace, Hold>,
    dead: BTreeMap<OpId, DeadLetterRow>,
    open: BTreeMap<OpId, ConflictId>,
    sending: BTreeSet<UnitId>,
}

impl Given {
    fn updates(count: u8) -> Self {
        let mut given = Self::default();
        for seq in 1..=count {
            let row = TailRow {
                op: op(seq),
                key: key(),
                kind: OpKind::Update,
                actor: Actor::parse("ann").unwrap(),
                edited_at: Hlc::from_bits(seq.into()),
                made_at: WallTime::default(),
                schema_version: 1,
                upcast: None,
                transaction_ops: 1,
                bytes: 10,
                references: Vec::new(),
                led_away: Vec::new(),
            };
            given.tail.insert(place(seq.into()), row);
        }
        given
    }

    fn holding(mut self, seq: u8, hold: Hold) -> Self {
        self.holds.insert(place(seq.into()), hold);
        self
    }

    /// Holds an op because another op is parked under a stored code.
    fn parked(self, seq: u8, stopped: u8, code: &str) -> Self {
        self.holding(seq, Hold::Parked { scope: ParkScope::Op(op(stopped)), code: code.to_owned() })
    }

    fn in_a_unit(mut self, seq: u8, sending: bool) -> Self {
        let mut unit = TestView::default().with("1", 1, 1, 0).units.remove(&unit_id(1)).unwrap();
        unit.changes[0].ops = vec![PlannedOp { id: op(seq), place: place(seq.into()) }];
        self.tail.put_unit(unit_id(1), &unit);
        self.sending.extend(sending.then_some(unit_id(1)));
        self
    }

    fn meeting(mut self, seq: u8) -> Self {
        self.open.insert(op(seq), ConflictId { seq: Seq::new(9), number: 0 });
        self
    }

    fn decided(&self) -> DecidedStatus {
        let known = Known {
            tail: &self.tail,
            holds: &self.holds,
            dead: &self.dead,
            open: &self.open,
            sending: &self.sending,
            written_at: &BTreeMap::new(),
        };
        known.record(&key(), true)
    }

    fn stands(&self) -> (RecordState, Option<OpPlace>) {
        let decided = self.decided();
        (decided.status.state(), decided.decided_by)
    }
}

#[test]
fn the_op_that_is_furthest_from_the_server_decides_and_of_several_the_oldest() {
    let local = || Hold::LocalOnly;
    assert_eq!(Given::updates(0).stands(), (RecordState::Synced, None));
    assert_eq!(Given::updates(2).stands(), (RecordState::Pending, Some(place(1))));
    let held = Given::updates(3).holding(2, local()).holding(3, local());
    assert_eq!(held.stands(), (RecordState::Held, Some(place(2))));
    let waiting = Given::updates(2).in_a_unit(1, false).holding(2, Hold::Behind(unit_id(1)));
    assert_eq!(waiting.stands(), (RecordState::WaitingForNetwork, Some(place(1))));
    let parked = Given::updates(2).holding(1, local()).parked(2, 2, "stale");
    assert_eq!(parked.stands(), (RecordState::Parked, Some(place(2))));
    assert_eq!(parked.decided().status, RecordStatus::Parked(ParkReason::WornOut));
    let conflict = Given::updates(3).parked(1, 1, "stale").parked(2, 2, "conflict").meeting(2);
    assert_eq!(conflict.stands(), (RecordState::InConflict, Some(place(2))));
}

/// The state once was "held by the other record's op, with a conflict" that nobody found on this
/// record.
#[test]
fn what_goes_with_a_parked_op_stands_as_that_one_does() {
    let behind = Given::updates(2).parked(1, 2, "conflict").meeting(2);
    assert_eq!(behind.stands(), (RecordState::InConflict, Some(place(1))));
    let behind = Given::updates(2).parked(1, 2, "ahead");
    assert_eq!(behind.decided().status, RecordStatus::Parked(ParkReason::Ahead));
    let gone = Given::updates(1).parked(1, 7, "ahead");
    assert_eq!(gone.stands(), (RecordState::Pending, Some(place(1))), "the next plan lifts it");
}

#[test]
fn only_an_exchange_that_is_running_puts_a_record_in_flight() {
    assert_eq!(Given::updates(1).in_a_unit(1, true).stands().0, RecordState::InFlight);
    assert_eq!(Given::updates(1).in_a_unit(1, false).stands().0, RecordState::WaitingForNetwork);
    let mut sending = Given::updates(1);
    sending.sending.insert(unit_id(1));
    assert_eq!(sending.stands().0, RecordState::Pending, "another unit is being sent");
}

#[test]
fn a_state_is_named_as_it_is_serialized() {
    use RecordState::{
        DeadLettered, Held, InConflict, InFlight, Parked, Pending, Synced, Unknown,
        WaitingForNetwork,
    };
    for state in [
        Unknown,
        Synced,
        Pending,
        WaitingForNetwork,
        InFlight,
        Held,
        Parked,
        InConflict,
        DeadLettered,
    ] {
        assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
    }
}
