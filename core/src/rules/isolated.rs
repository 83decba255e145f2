//! Decides about units that do not get through although others do, or whose actor is gone, when a
//! person decides on their ops.
//!
//! | a person removes an op from such a unit, and | the unit | its other ops |
//! |---|---|---|
//! | the unit has single ops | is dead-lettered | are sent again without the op |
//! | the unit has a transaction | is dead-lettered | stay dead letters, for the person to decide on |
//!
//! Invariants:
//! 1. Nobody knows whether such a unit arrived. So it is recorded as abandoned, and the unit that
//!    sends its ops again names it.
//! 2. A transaction is never sent again in part.
//!
//! What it does not do: find such units ([`super::failure`]), or decide when they are tried alone
//! ([`super::plan`]).

use std::collections::BTreeSet;

use crate::entry::Decision;
use crate::ids::{OpId, UnitId};
use crate::names::Actor;
use crate::op::OpPlace;
use crate::rows::UnitRow;
use crate::tail::{Tail, TailUnit};

/// A unit that does not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isolated {
    /// The unit.
    pub unit: UnitId,
    /// The fate of its other ops when a person decides on some of them.
    pub rest: Rest,
}

/// The fate of the other ops of a unit from which some are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// The other ops are sent again.
    SentAgain,
    /// The other ops stay dead letters.
    Stays,
}

/// Finds the units of these ops that do not get through, each once. Returns them and the ops that
/// are in none of them. `touched` are the ops that ended or were planned since the tail was folded.
pub fn isolated(
    tail: &Tail,
    touched: &BTreeSet<OpPlace>,
    ops: &[OpId],
) -> (Vec<Isolated>, Vec<OpId>) {
    units_of(tail, touched, ops, |unit| unit.isolated().is_some())
}

fn units_of(
    tail: &Tail,
    touched: &BTreeSet<OpPlace>,
    ops: &[OpId],
    wanted: impl Fn(&TailUnit) -> bool,
) -> (Vec<Isolated>, Vec<OpId>) {
    let (mut units, mut others): (Vec<Isolated>, _) = (Vec::new(), Vec::new());
    let unit_of = |place| tail.unit_of(place).filter(|unit| tail.unit(unit).is_some_and(&wanted));
    for op in ops {
        let place = tail.place_of(op).filter(|place| !touched.contains(place));
        let Some((place, unit)) = place.and_then(|place| Some((place, unit_of(place)?))) else {
            others.push(*op);
            continue;
        };
        if !units.iter().any(|known| known.unit == unit) {
            let is_transaction = tail.op(place).is_some_and(|row| row.transaction_ops > 1);
            let rest = if is_transaction { Rest::Stays } else { Rest::SentAgain };
            units.push(Isolated { unit, rest });
        }
    }
    (units, others)
}

/// Finds the units of these ops that do not get through, and those whose actor is gone. Returns the
/// same as [`isolated`].
pub fn left_behind(
    tail: &Tail,
    touched: &BTreeSet<OpPlace>,
    ops: &[OpId],
    is_gone: impl Fn(&Actor) -> bool,
) -> (Vec<Isolated>, Vec<OpId>) {
    units_of(tail, touched, ops, |unit| unit.isolated().is_some() || is_gone(&unit.actor))
}

/// Returns the unit that an op is in, if the unit does not get through.
pub fn isolated_unit(tail: &Tail, place: OpPlace) -> Option<UnitId> {
    tail.unit_of(place).filter(|unit| tail.unit(unit).is_some_and(|unit| unit.isolated().is_some()))
}

/// Returns the decisions that remove ops from a unit that does not get through.
pub fn take_out(isolated: Isolated, unit: &UnitRow, ops: &[OpId]) -> Vec<Decision> {
    let code = unit.suspicion.as_ref().map_or_else(String::new, |known| known.code.clone());
    let (planned, tries) = (unit.planned, unit.tries);
    let abandoned = Decision::DeadLettered {
        unit: isolated.unit,
        planned,
        tries,
        code,
        message: None,
        answered: false,
    };
    let carried =
        unit.changes.iter().flat_map(|change| change.ops.iter().map(|op| (&change.key, *op)));
    let others =
        carried.filter(|(_, op)| isolated.rest == Rest::SentAgain && !ops.contains(&op.id));
    let again = others.map(|(key, op)| Decision::Retried { key: key.clone(), op });
    std::iter::once(abandoned).chain(again).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::OpKind;
    use crate::rules::test_tail::{
        isolated_unit as unit_row, pending, place, planned, transaction, unit_of,
    };
    use crate::rules::test_view::{key, op_id, unit_id};

    #[test]
    fn a_unit_is_found_once_for_all_of_its_ops_and_apart_from_ops_that_are_in_none() {
        let mut tail =
            pending(&[("1", OpKind::Create), ("1", OpKind::Update), ("2", OpKind::Create)]);
        tail.put_unit(unit_id(1), &unit_row("1", vec![planned(1), planned(2)]));
        let found = isolated(&tail, &BTreeSet::new(), &[op_id(1), op_id(3), op_id(2), op_id(9)]);
        let unit = Isolated { unit: unit_id(1), rest: Rest::SentAgain };
        assert_eq!(found, (vec![unit], vec![op_id(3), op_id(9)]));
    }

    #[test]
    fn a_unit_that_is_merely_unanswered_is_not_meant() {
        let mut tail = pending(&[("1", OpKind::Create)]);
        tail.put_unit(unit_id(1), &unit_of("1", vec![planned(1)]));
        assert_eq!(isolated(&tail, &BTreeSet::new(), &[op_id(1)]), (Vec::new(), vec![op_id(1)]));
    }

    #[test]
    fn an_op_that_was_ended_in_this_very_round_is_in_no_unit() {
        let mut tail = pending(&[("1", OpKind::Create)]);
        tail.put_unit(unit_id(1), &unit_row("1", vec![planned(1)]));
        let found = isolated(&tail, &BTreeSet::from([place(1)]), &[op_id(1)]);
        assert_eq!(found, (Vec::new(), vec![op_id(1)]));
    }

    #[test]
    fn the_rest_of_a_transaction_stays() {
        let mut tail = transaction(&[("1", 1), ("2", 2)]);
        tail.put_unit(unit_id(1), &unit_row("1", vec![planned(1)]));
        let (units, _) = isolated(&tail, &BTreeSet::new(), &[op_id(1)]);
        assert_eq!(units, [Isolated { unit: unit_id(1), rest: Rest::Stays }]);
    }

    #[test]
    fn who_takes_an_op_out_of_a_unit_sends_the_rest_of_it_again_but_for_a_transaction() {
        let unit = unit_row("1", vec![planned(1), planned(2), planned(3)]);
        let abandoned = Decision::DeadLettered {
            unit: unit_id(1),
            planned: unit.planned,
            tries: 0,
            code: "http_502".to_owned(),
            message: None,
            answered: false,
        };
        let again = |seq| Decision::Retried { key: key("1"), op: planned(seq) };
        let taken_out = |rest| take_out(Isolated { unit: unit_id(1), rest }, &unit, &[op_id(2)]);
        assert_eq!(taken_out(Rest::SentAgain), [abandoned.clone(), again(1), again(3)]);
        assert_eq!(taken_out(Rest::Stays), [abandoned]);
    }
}
