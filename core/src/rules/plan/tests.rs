use super::*;
use crate::ids::OpId;
use crate::numbers::Seq;
use crate::op::OpKind;
use crate::schema::EntityRules;
use crate::time::Hlc;
use std::time::Duration;

fn place(seq: u64) -> OpPlace {
    OpPlace { seq: Seq::new(seq), index: 0 }
}

fn op(seq: u8) -> OpId {
    OpId::from_bytes([seq; 16])
}

/// Updates of one record, in entries 1, 2, 3, …
fn tail(updates: u8) -> Tail {
    let mut tail = Tail::default();
    for seq in 1..=updates {
        let row = TailRow {
            op: op(seq),
            key: RecordKey::parse("lead", "1").unwrap(),
            kind: OpKind::Update,
            actor: Actor::parse("user-1").unwrap(),
            edited_at: Hlc::from_bits(seq.into()),
            made_at: WallTime::default(),
            schema_version: 1,
            upcast: None,
            transaction_ops: 1,
            bytes: 10,
            references: Vec::new(),
        };
        tail.insert(place(seq.into()), row);
    }
    tail
}

fn planned(tail: &Tail, parks: &[(ParkScope, String)]) -> Plan {
    let rules = EntityRules { undo_window: Duration::ZERO, ..EntityRules::default() };
    plan(&PlanInput {
        tail,
        schema: &Schema::open(rules),
        parks,
        actor: &Actor::parse("user-1").unwrap(),
        now: WallTime::default(),
        batch_ops: 50,
        batch_bytes: 1_000_000,
        unmetered: true,
        heed_backoff: true,
        inspect: &crate::rules::inspect::NoInspection,
    })
}

#[test]
fn ops_of_a_record_leave_as_one_group() {
    let plan = planned(&tail(3), &[]);
    let places: Vec<_> =
        plan.groups.iter().flat_map(|group| &group.records).map(|(_, places)| places.clone()).collect();
    assert_eq!(places, [[place(1), place(2), place(3)]]);
}

#[test]
fn what_would_be_one_change_with_an_op_that_waits_for_a_person_waits_with_it() {
    let parks = [(ParkScope::Op(op(2)), "conflict".to_owned())];
    let plan = planned(&tail(3), &parks);
    assert_eq!(plan.groups, []);
    assert_eq!(plan.holds.len(), 3);
    assert!(plan.holds.values().all(|hold| matches!(hold, Hold::Parked { .. })));
}
