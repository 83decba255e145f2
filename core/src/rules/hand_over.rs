//! Decides which ops are handed over together, when a person hands ops of a user who is gone over
//! to another one.
//!
//! | the op | with it go | its unit |
//! |---|---|---|
//! | waits, is parked or is a dead letter | the other ops of that user on its record and in its transaction | |
//! | is in a unit without a final answer | the same | is abandoned; the unit that replaces it names it |
//!
//! An op that is handed over keeps its id, its stamp, its fields and its place. Only the
//! credentials that send it are others. So it wins no conflict that it would have lost.
//!
//! Invariants:
//! 1. An op that is not pending, or that the other user sends already, is refused, and none
//!    changes.
//! 2. An abandoned unit that took effect after all takes effect once: the server calls the unit
//!    that replaces it stale.
//!
//! What it does not do: judge who may hand over what. The log has who decided, and the server
//! checks the credentials of who sends.

use std::collections::{BTreeMap, BTreeSet};

use super::not_possible::NotPossible;
use super::status::together;
use crate::entry::{Decision, PlannedOp};
use crate::ids::{OpId, UnitId};
use crate::names::{Actor, RecordKey};
use crate::op::OpPlace;
use crate::tail::Tail;

/// The ops that are handed over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HandedOver {
    /// The ops, oldest first, each with its record.
    pub ops: BTreeMap<OpPlace, (RecordKey, OpId)>,
    /// Their units without a final answer.
    pub units: BTreeSet<UnitId>,
}

/// Finds the ops that are handed over with those that a person named. `touched` are the ops that
/// ended or were planned since the tail was folded.
///
/// # Errors
/// [`NotPossible`] if one of the named ops is not pending, or is sent by this actor already.
pub fn hand_over(
    tail: &Tail,
    touched: &BTreeSet<OpPlace>,
    named: &[OpId],
    to: &Actor,
) -> Result<HandedOver, NotPossible> {
    let mut found = HandedOver::default();
    for op in named {
        let place = tail.place_of(op).filter(|place| !touched.contains(place));
        let row = place.and_then(|place| tail.op(place)).ok_or(NotPossible::NotPending(*op))?;
        if row.actor == *to {
            return Err(NotPossible::SentByThem(*op));
        }
        let of_user = together(tail, op).filter(|(_, other)| other.actor == row.actor);
        for (place, other) in of_user.filter(|(place, _)| !touched.contains(place)) {
            found.ops.insert(place, (other.key.clone(), other.op));
            found.units.extend(tail.unit_of(place));
        }
    }
    Ok(found)
}

impl HandedOver {
    /// Returns the decisions that name the new sender, after those about the units.
    pub fn decisions(self, to: &Actor) -> impl Iterator<Item = Decision> {
        self.ops.into_iter().map(|(place, (key, id))| Decision::HandedOver {
            key,
            op: PlannedOp { id, place },
            to: to.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::OpKind;
    use crate::rules::test_tail::{isolated_unit as unit_row, pending, place, planned};
    use crate::rules::test_view::{op_id, unit_id};

    fn actor(name: &str) -> Actor {
        Actor::parse(name).unwrap()
    }

    /// Returns the places of the ops that go with this one.
    fn places(tail: &Tail, op: u8, to: &str) -> Result<Vec<u64>, NotPossible> {
        let found = hand_over(tail, &BTreeSet::new(), &[op_id(op)], &actor(to))?;
        Ok(found.ops.into_keys().map(|place| place.seq.number()).collect())
    }

    fn tail() -> Tail {
        pending(&[("1", OpKind::Create), ("2", OpKind::Create), ("1", OpKind::Update)])
    }

    #[test]
    fn the_ops_of_a_record_go_together_and_those_of_others_stay() {
        assert_eq!(places(&tail(), 3, "cleo"), Ok(vec![1, 3]));
        assert_eq!(places(&tail(), 2, "cleo"), Ok(vec![2]));
        let mut mixed = tail();
        let row = mixed.op(place(1)).unwrap().clone();
        mixed.insert(place(1), crate::rows::TailRow { actor: actor("ben"), ..row });
        assert_eq!(places(&mixed, 3, "cleo"), Ok(vec![3]));
        assert_eq!(places(&mixed, 1, "cleo"), Ok(vec![1]));
    }

    #[test]
    fn a_unit_without_an_answer_is_found_once() {
        let mut tail = tail();
        tail.put_unit(unit_id(1), &unit_row("1", vec![planned(1), planned(3)]));
        let found =
            hand_over(&tail, &BTreeSet::new(), &[op_id(1), op_id(3)], &actor("cleo")).unwrap();
        assert_eq!(found.units, BTreeSet::from([unit_id(1)]));
        let decisions: Vec<_> = found.decisions(&actor("cleo")).collect();
        assert_eq!(decisions.len(), 2);
    }

    #[test]
    fn what_is_not_pending_or_theirs_already_is_refused() {
        assert_eq!(places(&tail(), 9, "cleo"), Err(NotPossible::NotPending(op_id(9))));
        let own = tail().op(place(1)).unwrap().actor.clone();
        assert_eq!(places(&tail(), 1, own.as_str()), Err(NotPossible::SentByThem(op_id(1))));
        let touched = BTreeSet::from([place(1)]);
        let refused = hand_over(&tail(), &touched, &[op_id(1)], &actor("cleo"));
        assert_eq!(refused, Err(NotPossible::NotPending(op_id(1))));
    }
}
