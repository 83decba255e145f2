//! Decides which ops end together with an op that a person discards.
//!
//! | the op | may be discarded | other ops that end |
//! |---|---|---|
//! | is a dead letter, or is held until somebody corrects it | yes | see below |
//! | is in a unit that does not get through | yes: it is first removed from the unit ([`super::isolated`]) | see below |
//! | is parked so that a person may discard it ([`super::status::Stopped`]) | yes | see below |
//! | was made by a user who is not there, or who has no credentials | yes: a unit with it is abandoned | see below |
//! | anything else | no | |
//!
//! | the op | the record exists without it | it does not: the server has no record, or the op follows a deletion of this device |
//! |---|---|---|
//! | creates the record | it alone | it and the later ops of the record, which would have nothing to change |
//! | does anything else | it alone | it alone |
//!
//! Invariants:
//! 1. Each op ends once, even if several of the named ops take it along.
//! 2. If one of the ops may not be discarded, the others do not change either.
//! 3. The decision names every op that ends, so applying it needs no rule.
//! 4. If a deletion ends, fields that a later creation removed with the deletion's stamp return
//!    with it.

use std::collections::{BTreeMap, BTreeSet};

use super::isolated::isolated_unit;
use super::not_possible::NotPossible;
use super::plan::Hold;
use super::status::Stopped;
use crate::entry::{Decision, PlannedOp};
use crate::ids::OpId;
use crate::names::RecordKey;
use crate::op::{OpKind, OpPlace};
use crate::record::fall_with;
use crate::rows::RecordRow;
use crate::tail::Tail;

/// An op that a person discards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscardedOp {
    /// Its record.
    pub key: RecordKey,
    /// The op.
    pub op: PlannedOp,
    /// What the op does.
    pub kind: OpKind,
}

/// Finds the ops that a person discards. `touched` are the ops that ended or were planned since the
/// tail was folded. `stopped` has the parks. `hold` returns why an op is held; it is called only
/// for waiting ops.
///
/// # Errors
/// [`NotPossible`] if one of them may not be discarded; or the error of `hold`.
pub fn to_discard<E: From<NotPossible>>(
    tail: &Tail,
    touched: &BTreeSet<OpPlace>,
    stopped: &Stopped,
    ops: &[OpId],
    mut hold: impl FnMut(&RecordKey, OpPlace) -> Result<Option<Hold>, E>,
) -> Result<Vec<DiscardedOp>, E> {
    let mut found = Vec::with_capacity(ops.len());
    for op in ops {
        let place = tail.place_of(op).filter(|place| !touched.contains(place));
        let pending = place.and_then(|place| Some((place, tail.op(place)?)));
        let (place, row) = pending.ok_or(NotPossible::NotPending(*op))?;
        let waits_for_a_person = tail.is_dead(place)
            || isolated_unit(tail, place).is_some()
            || stopped.is_for_a_person(op)
            || hold(&row.key, place)?
                .is_some_and(|hold| hold.waits_for_correction() || hold.waits_for_a_user());
        if !waits_for_a_person {
            return Err(NotPossible::NotHeld(*op).into());
        }
        found.push(DiscardedOp {
            key: row.key.clone(),
            op: PlannedOp { id: *op, place },
            kind: row.kind,
        });
    }
    Ok(found)
}

/// Decides which ops end with the discarded ops. `rows` are the rows of their records.
/// `is_unanswered` returns whether an op is in a unit without a final answer: such ops do not end
/// here.
pub fn discard(
    discarded: &[DiscardedOp],
    rows: &BTreeMap<RecordKey, RecordRow>,
    is_unanswered: impl Fn(OpPlace) -> bool,
) -> Vec<Decision> {
    let (mut ended, mut decisions) = (BTreeSet::new(), Vec::new());
    for DiscardedOp { key, op, kind } in discarded {
        let Some(row) = rows.get(key) else { continue };
        let takes_later = *kind == OpKind::Create && !is_there_without(row, op.place);
        // A tail ascends by place, and it may be long.
        let from = row.tail.partition_point(|found| found.place < op.place);
        let later = row.tail.get(from..).unwrap_or_default().iter();
        let ends: Vec<_> = later
            .take_while(|found| takes_later || found.place == op.place)
            .filter(|found| found.place == op.place || !is_unanswered(found.place))
            .filter(|found| ended.insert(found.place))
            .collect();
        let deletes = ends.iter().any(|found| found.kind == OpKind::Delete);
        let ops: Vec<_> =
            ends.into_iter().map(|found| PlannedOp { id: found.op, place: found.place }).collect();
        if deletes {
            let falls = fall_with(row.tail.iter(), &ops)
                .into_iter()
                .filter(|(op, _)| !ended.contains(&op.place));
            decisions.extend(falls.map(|(op, fields)| Decision::Dropped {
                key: key.clone(),
                op,
                fields,
            }));
        }
        decisions.extend(ops.into_iter().map(|op| Decision::Discarded { key: key.clone(), op }));
    }
    decisions
}

/// Returns whether the record exists without a creation of this device at this place: the server
/// has the record, and the creation follows no deletion of this device.
fn is_there_without(row: &RecordRow, creation: OpPlace) -> bool {
    let before = row.tail.iter().rev().find(|earlier| earlier.place < creation);
    let is_deleted = before.is_some_and(|before| before.kind == OpKind::Delete && !before.emptied);
    row.confirmed_image().is_some() && !is_deleted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::status::ParkReason;
    use crate::rules::test_tail::{isolated_unit as unit_row, pending, place, planned, row_of};
    use crate::rules::test_view::{key, op_id, unit_id};

    fn found(
        tail: &Tail,
        touched: &[u8],
        ops: &[u8],
        hold: Option<Hold>,
    ) -> Result<Vec<u8>, NotPossible> {
        let touched = touched.iter().map(|seq| place(*seq)).collect();
        let ops: Vec<_> = ops.iter().map(|number| op_id(*number)).collect();
        let found = to_discard(tail, &touched, &Stopped::default(), &ops, |_, _| {
            Ok::<_, NotPossible>(hold.clone())
        })?;
        Ok(found.into_iter().map(|found| found.op.place.seq.number().try_into().unwrap()).collect())
    }

    #[test]
    fn what_waits_for_a_person_may_be_discarded() {
        let mut tail =
            pending(&[("1", OpKind::Create), ("2", OpKind::Create), ("3", OpKind::Update)]);
        tail.set_dead(place(1), true);
        tail.put_unit(unit_id(1), &unit_row("2", vec![planned(2)]));
        let refused = Hold::Refused { reason: "no phone".to_owned() };
        assert_eq!(found(&tail, &[], &[1, 2], None), Ok(vec![1, 2]));
        assert_eq!(found(&tail, &[], &[3], Some(refused)), Ok(vec![3]));
    }

    #[test]
    fn an_op_that_is_worn_out_may_be_discarded() {
        let tail = pending(&[("1", OpKind::Create)]);
        let parks = BTreeMap::from([(op_id(1), ParkReason::WornOut.code().to_owned())]);
        let stopped = Stopped { parks, ..Stopped::default() };
        let found = to_discard(&tail, &BTreeSet::new(), &stopped, &[op_id(1)], |_, _| {
            Ok::<_, NotPossible>(None)
        });
        assert_eq!(found.map(|found| found.len()), Ok(1));
    }

    #[test]
    fn what_goes_by_itself_may_not_be_discarded() {
        let tail = pending(&[("1", OpKind::Create)]);
        let refused = Err(NotPossible::NotHeld(op_id(1)));
        assert_eq!(found(&tail, &[], &[1], None), refused);
        assert_eq!(found(&tail, &[], &[1], Some(Hold::UnmeteredNetwork)), refused);
    }

    #[test]
    fn what_has_ended_may_not_be_discarded() {
        let mut tail = pending(&[("1", OpKind::Create)]);
        tail.set_dead(place(1), true);
        assert_eq!(found(&tail, &[1], &[1], None), Err(NotPossible::NotPending(op_id(1))));
        assert_eq!(found(&tail, &[], &[1, 9], None), Err(NotPossible::NotPending(op_id(9))));
    }

    /// Discards ops of record 1, whose tail has three ops, and returns the ops that end.
    fn ends(confirmed: bool, given: &[(u8, OpKind)]) -> Vec<PlannedOp> {
        let given = given.iter().map(|(number, kind)| {
            let op = planned(*number);
            DiscardedOp { key: key("1"), op, kind: *kind }
        });
        let rows = BTreeMap::from([(key("1"), row_of(confirmed, &[1, 2, 3]))]);
        let decisions = discard(&given.collect::<Vec<_>>(), &rows, |_| false);
        let ended = decisions.into_iter().map(|decision| match decision {
            Decision::Discarded { key: of, op } if of == key("1") => op,
            other => panic!("not discarded: {other:?}"),
        });
        ended.collect()
    }

    #[test]
    fn an_op_is_discarded_alone() {
        assert_eq!(ends(true, &[(2, OpKind::Update)]), [planned(2)]);
        assert_eq!(ends(false, &[(1, OpKind::Update)]), [planned(1)]);
    }

    #[test]
    fn what_waits_behind_a_creation_ends_with_it() {
        assert_eq!(ends(false, &[(1, OpKind::Create)]), [planned(1), planned(2), planned(3)]);
        assert_eq!(
            ends(false, &[(2, OpKind::Create)]),
            [planned(2), planned(3)],
            "what came before stays"
        );
    }

    #[test]
    fn a_creation_of_a_record_that_is_there_takes_nothing_along() {
        assert_eq!(ends(true, &[(1, OpKind::Create)]), [planned(1)]);
    }

    #[test]
    fn each_op_ends_once() {
        let ended = ends(false, &[(2, OpKind::Create), (3, OpKind::Update), (2, OpKind::Create)]);
        assert_eq!(ended, [planned(2), planned(3)]);
    }
}
