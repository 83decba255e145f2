//! A person's actions on an op that is parked alone.
//!
//! | the op is parked because | a retry | a discard | a choice |
//! |---|---|---|---|
//! | it met a conflict that is open | no | no | yes |
//! | it is worn out, ahead, made too large by an upcaster, or parked by a later version of this program | sends it again | ends it | no |
//! | it met a conflict, and none is open any more | sends it again | ends it | no |
//! | something outside has to change | no | no | no |
//!
//! A retry of an op also retries the others of its record and of its transaction that are parked in
//! this way: they were one unit, and one of them alone would wait for the others. A retry resets
//! the count of an op's stale answers.
//!
//! Invariants:
//! 1. A choice moves an op that is parked alone, or a retry and a discard do. One of the two is
//!    always possible.
//! 2. No retry lifts a conflict in which somebody has to choose.
//!
//! What it is not: undo, which takes back any op that is in no unit and has no newer op on it.

use std::collections::{BTreeMap, BTreeSet};

use super::ParkReason;
use crate::entry::{Decision, ParkScope, PlannedOp};
use crate::ids::OpId;
use crate::op::OpPlace;
use crate::rows::TailRow;
use crate::tail::Tail;

/// The parks of the ops in question, and which of these ops have an open conflict.
#[derive(Debug, Clone, Default)]
pub struct Stopped {
    /// The ops that are parked alone, each with the code.
    pub parks: BTreeMap<OpId, String>,
    /// The ops with a conflict that is open.
    pub open: BTreeSet<OpId>,
}

impl Stopped {
    /// Returns whether an op is parked so that a person may retry or discard it, by the table
    /// above.
    pub fn is_for_a_person(&self, op: &OpId) -> bool {
        let code = self.parks.get(op).filter(|_| !self.open.contains(op));
        let reason = code.map(|code| ParkReason::of_op(code));
        reason.is_some_and(|reason| reason == ParkReason::Conflict || reason.is_for_a_person())
    }

    /// Decides that parked ops are sent again, with the ops that belong to them. A person may retry
    /// each op of `asked`.
    pub fn retry(&self, tail: &Tail, asked: &[OpId]) -> Vec<Decision> {
        let again = together(tail, asked).into_iter();
        let again = again.filter(|(_, row)| self.is_for_a_person(&row.op));
        let decisions = again.flat_map(|(place, row)| {
            let (key, op) = (row.key.clone(), PlannedOp { id: row.op, place });
            [Decision::Retried { key, op }, Decision::Unparked { scope: ParkScope::Op(op.id) }]
        });
        decisions.collect()
    }
}

/// Returns the ops that may be sent together with some ops of the tail, including themselves: those
/// of their records and of their transactions, each once and in order.
pub fn together<'t>(tail: &'t Tail, ops: &[OpId]) -> BTreeMap<OpPlace, &'t TailRow> {
    let mut found = BTreeMap::new();
    let (mut records, mut entries) = (BTreeSet::new(), BTreeSet::new());
    for op in ops {
        let Some(place) = tail.place_of(op) else { continue };
        let Some(row) = tail.op(place) else { continue };
        if records.insert(&row.key) {
            let of_record = tail.ops_of(&row.key);
            found.extend(of_record.filter_map(|place| Some((place, tail.op(place)?))));
        }
        if entries.insert(place.seq) {
            found.extend(tail.ops_of_entry(place.seq));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{Actor, RecordKey};
    use crate::numbers::Seq;
    use crate::op::OpKind;
    use crate::time::{Hlc, WallTime};

    fn op(number: u8) -> OpId {
        OpId::from_bytes([number; 16])
    }

    fn key(record: u8) -> RecordKey {
        RecordKey::parse("lead", &record.to_string()).unwrap()
    }

    /// Makes parks of ops, and open conflicts of some of them.
    fn stopped(parks: &[(u8, &str)], open: &[u8]) -> Stopped {
        Stopped {
            parks: parks.iter().map(|(number, code)| (op(*number), (*code).to_owned())).collect(),
            open: open.iter().map(|number| op(*number)).collect(),
        }
    }

    /// Makes ops 1, 2 and so on, each with its entry and its record.
    fn tail(ops: &[(u64, u8)]) -> Tail {
        let mut tail = Tail::default();
        for (number, (seq, record)) in (1u8..).zip(ops) {
            let index = u32::from(number);
            let row = TailRow {
                op: op(number),
                key: key(*record),
                kind: OpKind::Update,
                actor: Actor::parse("ann").unwrap(),
                edited_at: Hlc::ZERO,
                made_at: WallTime::default(),
                schema_version: 1,
                upcast: None,
                transaction_ops: 1,
                bytes: 10,
                references: Vec::new(),
                led_away: Vec::new(),
            };
            tail.insert(OpPlace { seq: Seq::new(*seq), index }, row);
        }
        tail
    }

    /// Returns the ops that are sent again.
    fn again(stopped: &Stopped, tail: &Tail, asked: u8) -> Vec<u8> {
        let decisions = stopped.retry(tail, &[op(asked)]);
        let retried = decisions.iter().filter_map(|decision| match decision {
            Decision::Retried { op, .. } => Some(op.id.as_bytes()[0]),
            _ => None,
        });
        let lifted = decisions
            .iter()
            .filter(|decision| matches!(decision, Decision::Unparked { .. }))
            .count();
        let retried: Vec<_> = retried.collect();
        assert_eq!(retried.len(), lifted, "what is sent again is parked no longer");
        retried
    }

    /// A person could only undo such an op, starting with the newest op: no other action moved it.
    #[test]
    fn every_op_that_is_parked_by_itself_has_a_way_on() {
        for code in ["stale", "ahead", "upcast", "conflict", "of a later version"] {
            assert!(stopped(&[(1, code)], &[]).is_for_a_person(&op(1)), "{code}");
            let chosen = stopped(&[(1, code)], &[1]);
            assert!(!chosen.is_for_a_person(&op(1)), "{code}: there is something to choose");
        }
    }

    #[test]
    fn an_op_that_is_not_parked_by_itself_is_not_for_a_person() {
        assert!(!stopped(&[(2, "stale")], &[]).is_for_a_person(&op(1)));
    }

    #[test]
    fn a_parked_op_is_sent_again_with_those_that_were_one_unit_with_it() {
        // Ops 1 and 2 are a transaction over records 1 and 2; op 3 is of record 1, op 4 of record
        // 3.
        let tail = tail(&[(5, 1), (5, 2), (6, 1), (7, 3)]);
        let parks = [(1, "stale"), (2, "stale"), (3, "ahead"), (4, "stale")];
        assert_eq!(again(&stopped(&parks, &[]), &tail, 1), [1, 2, 3]);
        assert_eq!(again(&stopped(&parks, &[]), &tail, 4), [4]);
        assert_eq!(again(&stopped(&parks, &[3]), &tail, 1), [1, 2], "a choice is not made by it");
    }
}
