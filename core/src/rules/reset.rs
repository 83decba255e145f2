//! Decides how every unsent op ends, when a person takes the server's state in place of the
//! device's own changes.
//!
//! | the op | it ends as | its unit |
//! |---|---|---|
//! | waits, is parked or is a dead letter | discarded | |
//! | is in a unit without a final answer | discarded | is abandoned: nobody knows whether it took effect |
//! | is of an entity type that never leaves the device | stays | |
//!
//! Invariants:
//! 1. Nothing is left that a later exchange could send.
//! 2. The decisions name every op that ends, so the log tells what was discarded.
//! 3. A unit that took effect after all comes back as the server's state, with the next page.
//!
//! What it does not do: read the server anew. Without a tail the app reads what the server
//! confirmed.

use super::isolated::{Isolated, Rest, take_out};
use crate::entry::{Decision, PlannedOp};
use crate::ids::UnitId;
use crate::names::RecordKey;
use crate::rows::{RecordRow, UnitRow};

/// Ends the tails of records. `rows` are the records with ops that could be sent, and `units` are
/// all units without a final answer.
pub fn reset<'a>(
    units: &'a [(UnitId, UnitRow)],
    rows: impl IntoIterator<Item = (&'a RecordKey, &'a RecordRow)>,
) -> Vec<Decision> {
    let abandoned = units
        .iter()
        .flat_map(|(unit, row)| take_out(Isolated { unit: *unit, rest: Rest::Stays }, row, &[]));
    let ended = rows.into_iter().flat_map(|(key, row)| {
        let named = row.tail.iter().map(|found| PlannedOp { id: found.op, place: found.place });
        named.map(|op| Decision::Discarded { key: key.clone(), op })
    });
    abandoned.chain(ended).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::test_tail::{planned, row_of, unit_of};
    use crate::rules::test_view::{key, unit_id};

    #[test]
    fn every_op_ends_and_a_unit_without_an_answer_is_abandoned_first() {
        let units = [(unit_id(1), unit_of("1", vec![planned(1)]))];
        let (one, two) = (row_of(false, &[1, 2]), row_of(true, &[3]));
        let decisions = reset(&units, [(&key("1"), &one), (&key("2"), &two)]);
        let abandoned = |found: &Decision| matches!(found, Decision::DeadLettered { unit, answered: false, .. } if *unit == unit_id(1));
        assert!(abandoned(&decisions[0]), "{:?}", decisions[0]);
        let ended = [("1", 1), ("1", 2), ("2", 3)]
            .map(|(record, op)| Decision::Discarded { key: key(record), op: planned(op) });
        assert_eq!(decisions[1..], ended);
    }

    #[test]
    fn without_an_unsent_op_nothing_is_decided() {
        assert_eq!(reset(&[], [(&key("1"), &row_of(true, &[]))]), []);
    }
}
