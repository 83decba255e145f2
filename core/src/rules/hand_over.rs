//! Decides which ops are handed over together, when a person hands ops of a user who is gone over
//! to another one.
//!
//! | the op | with it go | its unit |
//! |---|---|---|
//! | waits, is parked or is a dead letter | the other ops of that user on its record and in its transaction, and what goes with those | |
//! | is in a unit without a final answer | the same | is abandoned; the unit that replaces it names it |
//!
//! An op that is handed over keeps its id, its stamp, its fields and its place. Only the
//! credentials that send it are others. So it wins no conflict that it would have lost.
//!
//! Invariants:
//! 1. An op that is not pending, or that the other user sends already, is refused, and none
//!    changes.
//! 2. No transaction is divided between two users: neither could send it.
//! 3. An abandoned unit that took effect after all takes effect once: the server calls the unit
//!    that replaces it stale.
//!
//! What it does not do: judge who may hand over what. The log has who decided, and the server
//! checks the credentials of who sends.

use std::collections::{BTreeMap, BTreeSet};

use super::not_possible::NotPossible;
use crate::entry::{Decision, PlannedOp};
use crate::ids::{OpId, UnitId};
use crate::names::{Actor, RecordKey};
use crate::op::OpPlace;
use crate::rows::TailRow;
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
/// [`NotPossible`] if one of the ops is not pending, or if this actor sends a named one already.
pub fn hand_over(
    tail: &Tail,
    touched: &BTreeSet<OpPlace>,
    named: &[OpId],
    to: &Actor,
) -> Result<HandedOver, NotPossible> {
    let mut found = HandedOver::default();
    for op in named {
        let place = tail.place_of(op).filter(|place| !touched.contains(place));
        let first = place.and_then(|place| Some((place, tail.op(place)?)));
        let first = first.ok_or(NotPossible::NotPending(*op))?;
        if first.1.actor == *to {
            return Err(NotPossible::SentByThem(*op));
        }
        for (place, other) in bound_together(tail, first) {
            if touched.contains(&place) {
                return Err(NotPossible::NotPending(other.op));
            }
            found.ops.insert(place, (other.key.clone(), other.op));
            found.units.extend(tail.unit_of(place));
        }
    }
    Ok(found)
}

/// Returns the ops of one user that share a record or a transaction with an op of that user, or
/// with another one of them.
fn bound_together<'t>(
    tail: &'t Tail,
    first: (OpPlace, &'t TailRow),
) -> BTreeMap<OpPlace, &'t TailRow> {
    let (mut found, mut to_follow) = (BTreeMap::from([first]), vec![first]);
    let (mut records, mut entries) = (BTreeSet::new(), BTreeSet::new());
    while let Some((place, row)) = to_follow.pop() {
        let of_record = records.insert(&row.key).then(|| tail.ops_of(&row.key));
        let of_record = of_record.into_iter().flatten();
        let of_record = of_record.filter_map(|place| Some((place, tail.op(place)?)));
        let of_entry = entries.insert(place.seq).then(|| tail.ops_of_entry(place.seq));
        for (place, other) in of_record.chain(of_entry.into_iter().flatten()) {
            if other.actor == first.1.actor && found.insert(place, other).is_none() {
                to_follow.push((place, other));
            }
        }
    }
    found
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
        mixed.insert(place(1), TailRow { actor: actor("ben"), ..row });
        assert_eq!(places(&mixed, 3, "cleo"), Ok(vec![3]));
        assert_eq!(places(&mixed, 1, "cleo"), Ok(vec![1]));
    }

    /// A transaction that stayed behind in part could be sent by neither user.
    #[test]
    fn no_transaction_is_divided_however_far_it_reaches() {
        let mut tail = pending(&[("1", OpKind::Create), ("2", OpKind::Create)]);
        let row = |number| tail.op(place(number)).unwrap().clone();
        let (one, two) = (row(1), row(2));
        // Entry 3 changes the records 1 and 3, and entry 4 the records 3 and 4.
        for (seq, index, record, op, like) in [
            (3, 0, "1", 30, &one),
            (3, 1, "3", 31, &one),
            (4, 0, "3", 40, &two),
            (4, 1, "4", 41, &two),
        ] {
            let at = OpPlace { seq: crate::numbers::Seq::new(seq), index };
            let (key, op) = (crate::rules::test_view::key(record), op_id(op));
            tail.insert(at, TailRow { key, op, ..like.clone() });
        }
        let seqs = places(&tail, 41, "cleo").unwrap();
        assert_eq!(seqs, [1, 3, 3, 4, 4], "the record 2 stays");
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
