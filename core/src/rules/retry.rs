//! Sends ops again when a person asks for a retry.
//!
//! | the op | the decision | other ops that are sent again |
//! |---|---|---|
//! | is a dead letter | it returns to the tail, with the same id and zero tries | the dead letters of its transaction |
//! | is in a unit that does not get through | the unit is tried again at once, unchanged | the rest of its unit |
//! | is parked so that a person may retry it | its park ends, and its count of stale answers starts at zero | see [`Stopped`] |
//! | anything else | refused, and the others do not change | |
//!
//! Invariants:
//! 1. Each op is named once, oldest first.
//! 2. The op that is sent again is the refused op, with the same id and stamp.
//!
//! What it does not do: decide when the engine tries again by itself ([`super::backoff`],
//! [`super::failure`]).

use std::collections::BTreeMap;

use super::failure::again_at;
use super::not_possible::NotPossible;
use super::status::Stopped;
use crate::entry::{Decision, PlannedOp};
use crate::ids::{OpId, UnitId};
use crate::rows::{DeadLetterRow, UnitRow};
use crate::tail::Tail;
use crate::time::WallTime;

/// Sends dead letters and parked ops again. `stopped` has the parks. `asked` are the ops that a
/// person named, each with its dead letter if it is one.
///
/// # Errors
/// [`NotPossible::NotRefused`] if one of the ops is neither.
pub fn retry(
    tail: &Tail,
    stopped: &Stopped,
    asked: Vec<(OpId, Option<DeadLetterRow>)>,
) -> Result<Vec<Decision>, NotPossible> {
    let (mut again, mut parked) = (BTreeMap::new(), Vec::new());
    for (op, letter) in asked {
        let Some(letter) = letter else {
            if !stopped.is_for_a_person(&op) {
                return Err(NotPossible::NotRefused(op));
            }
            parked.push(op);
            continue;
        };
        let transaction = tail.ops_of_entry(letter.op.place.seq);
        let dead = transaction.filter(|(place, _)| tail.is_dead(*place));
        again.extend(dead.map(|(place, row)| (place, (row.key.clone(), row.op))));
        again.insert(letter.op.place, (letter.key, letter.op.id));
    }
    let retried = |(place, (key, id))| Decision::Retried { key, op: PlannedOp { id, place } };
    Ok(again.into_iter().map(retried).chain(stopped.retry(tail, &parked)).collect())
}

/// Returns the decision by which a unit that does not get through is tried at once; `None` if
/// nothing delays it.
pub fn try_at_once(unit: UnitId, row: &UnitRow, now: WallTime) -> Option<Decision> {
    Some(again_at(unit, row.planned, row.suspicion.as_ref()?, now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::ParkScope;
    use crate::op::{OpKind, OpPlace};
    use crate::rules::status::ParkReason;
    use crate::rules::test_tail::{
        dead_letter, isolated_unit, pending, place, planned, transaction, unit_of,
    };
    use crate::rules::test_view::{key, op_id, unit_id};

    fn retried(record: &str, op: PlannedOp) -> Decision {
        Decision::Retried { key: key(record), op }
    }

    #[test]
    fn a_dead_letter_is_sent_again_alone_and_once() {
        let mut tail = pending(&[("1", OpKind::Create), ("2", OpKind::Create)]);
        tail.set_dead(place(1), true);
        tail.set_dead(place(2), true);
        let asked = || (op_id(1), Some(dead_letter("1", planned(1), OpKind::Create)));
        assert_eq!(
            retry(&tail, &Stopped::default(), vec![asked(), asked()]),
            Ok(vec![retried("1", planned(1))])
        );
    }

    #[test]
    fn the_dead_letters_of_its_transaction_go_with_it() {
        let mut tail = transaction(&[("1", 1), ("2", 2), ("3", 3)]);
        let op = |number: u8| PlannedOp {
            id: op_id(number),
            place: OpPlace { index: u32::from(number) - 1, ..place(1) },
        };
        tail.set_dead(op(1).place, true);
        tail.set_dead(op(3).place, true);
        let asked = vec![(op_id(3), Some(dead_letter("3", op(3), OpKind::Update)))];
        assert_eq!(
            retry(&tail, &Stopped::default(), asked),
            Ok(vec![retried("1", op(1)), retried("3", op(3))])
        );
    }

    #[test]
    fn nothing_is_retried_if_one_of_the_ops_is_no_dead_letter() {
        let mut tail = pending(&[("1", OpKind::Create), ("2", OpKind::Create)]);
        tail.set_dead(place(1), true);
        let asked =
            vec![(op_id(1), Some(dead_letter("1", planned(1), OpKind::Create))), (op_id(2), None)];
        assert_eq!(
            retry(&tail, &Stopped::default(), asked),
            Err(NotPossible::NotRefused(op_id(2)))
        );
    }

    #[test]
    fn a_worn_out_op_is_sent_again_and_is_parked_no_longer() {
        let tail = pending(&[("1", OpKind::Create)]);
        let scope = || ParkScope::Op(op_id(1));
        let parks = BTreeMap::from([(op_id(1), ParkReason::WornOut.code().to_owned())]);
        let stopped = Stopped { parks, ..Stopped::default() };
        let expected = vec![retried("1", planned(1)), Decision::Unparked { scope: scope() }];
        assert_eq!(retry(&tail, &stopped, vec![(op_id(1), None)]), Ok(expected));
    }

    #[test]
    fn a_unit_that_does_not_get_through_is_tried_at_once_and_keeps_what_is_known_of_it() {
        let now = WallTime::from_milliseconds(5);
        let row = isolated_unit("1", vec![planned(1)]);
        let expected = Decision::Suspected {
            units: vec![(unit_id(1), row.planned)],
            times: 2,
            code: "http_502".to_owned(),
            retry_at: Some(now),
        };
        assert_eq!(try_at_once(unit_id(1), &row, now), Some(expected));
        assert_eq!(try_at_once(unit_id(1), &unit_of("1", vec![planned(1)]), now), None);
    }
}
