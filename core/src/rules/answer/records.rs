//! A record of an answer: ends the own writes that came back, and rebases the rest of the tail.
//!
//! ```text
//!   confirmed ─ acks of this answer ─► before ─ rows of this answer ─► after
//!                                        └──────── rebase ────────────────┘
//! ```
//!
//! | an own write that the server has | its op |
//! |---|---|
//! | of the last op of an unanswered unit for this record alone | its unit is acked |
//! | of an unanswered unit for several records | stays unanswered, since only an outcome has all versions |
//! | of a unit that was abandoned | had arrived, and is cancelled |
//!
//! Invariants:
//! 1. An op that arrived meets nothing, and no later op of the tail meets it.
//! 2. An unanswered op is left alone.

use std::collections::BTreeSet;

use super::outcomes::{UnitEnd, UnitEnds};
use crate::entry::{Cancelled, CancelledReason, Decision, Items};
use crate::ids::OpId;
use crate::names::RecordKey;
use crate::numbers::Version;
use crate::protocol::Change;
use crate::random::Randomness;
use crate::record::{Registers, TailOp};
use crate::rows::{Confirmed, RecordRow};
use crate::rules::View;
use crate::rules::rebase::{Op, OpStanding, Subject, rebase};
use crate::schema::Schema;

/// A record of an answer.
pub(super) struct Record<'a> {
    pub(super) key: &'a RecordKey,
    pub(super) row: &'a RecordRow,
    /// The rows of the record in the answer, lowest version first. There is none if an earlier
    /// page had the record.
    pub(super) changes: &'a [&'a Change],
}

/// Decides what happens to the record's tail.
pub(super) fn follow<V: View>(
    view: &mut V,
    schema: &Schema,
    record: &Record<'_>,
    ends: &mut UnitEnds,
    items: &mut Items,
    random: &mut dyn Randomness,
) -> Result<(), V::Error> {
    let key = record.key;
    let tail = record.row.tail_ops(|place| view.op(place), V::Error::from)?;
    let confirmed = record.row.registers()?;
    let known = record.row.version();
    // The record at the server, by this answer or an earlier answer.
    let (mut after, mut version) = (confirmed.clone(), known.unwrap_or_default());
    for change in
        record.changes.iter().filter(|change| known.is_none_or(|known| change.version >= known))
    {
        (after, version) = (change.onto(&after)?, change.version);
    }
    ack_own(view, record, &tail, &after, version, ends)?;
    let arrived = arrived(view, &tail, &after, ends)?;
    let ops: Vec<_> = tail.iter().map(|op| op.op).filter(|op| arrived.contains(&op.id)).collect();
    if !ops.is_empty() {
        let cancelled =
            Cancelled { key: key.clone(), ops, reason: CancelledReason::AlreadyApplied };
        ends.decisions.push(Decision::Cancelled(cancelled));
    }
    let Some(rules) = schema.rules(&key.entity) else { return Ok(()) };
    let (before, before_version) = with_acks(view, record, confirmed, ends)?;
    // A late page can be older than the acks.
    if let Some(known) = before_version.filter(|known| *known > version) {
        (after, version) = (before.clone(), known);
    }
    let is_first_of_epoch = known == Some(Version::default()) && !record.changes.is_empty();
    let mut ops = Vec::with_capacity(tail.len());
    for tail in tail {
        let op = if arrived.contains(&tail.op.id) {
            Op { tail, standing: OpStanding::Ended, since: None, of_former_epoch: false }
        } else {
            standing(view, key, tail, ends, is_first_of_epoch)?
        };
        ops.push(op);
    }
    let decisions = std::mem::take(&mut ends.decisions);
    let mut subject =
        Subject { key, rules, ops, after, version, is_first_of_epoch, decisions, items, random };
    rebase(&mut subject, &before);
    ends.decisions = subject.decisions;
    Ok(())
}

/// Acks units for this record alone if the server has the writes of their last op.
fn ack_own<V: View>(
    view: &mut V,
    record: &Record<'_>,
    tail: &[TailOp],
    after: &Registers,
    version: Version,
    ends: &mut UnitEnds,
) -> Result<(), V::Error> {
    for op in tail.iter().rev().filter(|op| op.writes.have_arrived(after)) {
        let Some(id) = view.unit_of(&op.op.id)? else { continue };
        if ends.units.contains_key(&id) {
            continue;
        }
        let Some(unit) = view.unit(&id)? else { continue };
        let is_whole = matches!(unit.changes.as_slice(), [only] if only.ops.last().is_some_and(|last| last.id == op.op.id));
        if is_whole {
            ends.came_back.insert(id);
            ends.ack(id, unit, vec![(record.key.clone(), version)]);
        }
    }
    Ok(())
}

/// Returns the ops whose abandoned units took effect.
fn arrived<V: View>(
    view: &mut V,
    tail: &[TailOp],
    after: &Registers,
    ends: &UnitEnds,
) -> Result<BTreeSet<OpId>, V::Error> {
    let mut arrived = BTreeSet::new();
    for op in tail.iter().filter(|op| !op.pending.earlier_units.is_empty()) {
        let by_unit = op.pending.earlier_units.iter().any(|unit| ends.applied.contains(unit));
        if !by_unit && !op.writes.have_arrived(after) {
            continue;
        }
        let unit = view.unit_of(&op.op.id)?;
        if unit.is_none_or(|unit| ends.is_sent_back(&unit)) {
            arrived.insert(op.op.id);
        }
    }
    Ok(arrived)
}

/// Returns the confirmed record with the acks of this answer, and its version.
fn with_acks<V: View>(
    view: &mut V,
    record: &Record<'_>,
    mut confirmed: Registers,
    ends: &UnitEnds,
) -> Result<(Registers, Option<Version>), V::Error> {
    let mut known = record.row.version();
    for (id, (unit, end)) in &ends.units {
        let UnitEnd::Acked(versions) = end else { continue };
        let came_back = ends.came_back.contains(id);
        let Some((_, version)) = versions.iter().find(|(key, _)| key == record.key) else {
            continue;
        };
        for change in unit.changes.iter().filter(|change| change.key == *record.key) {
            // A page that came since has the change already.
            if known.is_some_and(|known| *version <= known) {
                continue;
            }
            let fields = view.fields(change.fields)?.unwrap_or_default().to_fields()?;
            change.join_into(&mut confirmed, fields);
            if came_back {
                continue;
            }
            // The outcome's row is the record with the change, as the server made it. An ack makes
            // no conflict.
            if let Some(row) = record.changes.iter().find(|row| row.version == *version) {
                confirmed = row.onto(&confirmed)?;
            }
            known = Some(*version);
        }
    }
    Ok((confirmed, known))
}

/// Returns how an op stands, with the record that its unit was planned on if the unit was sent back.
fn standing<V: View>(
    view: &mut V,
    key: &RecordKey,
    tail: TailOp,
    ends: &UnitEnds,
    is_first_of_epoch: bool,
) -> Result<Op, V::Error> {
    let stands = |tail, standing| Op { tail, standing, since: None, of_former_epoch: false };
    let Some(id) = view.unit_of(&tail.op.id)? else {
        let standing = if tail.pending.dead { OpStanding::Dead } else { OpStanding::Waits };
        let Some(sent) = tail.pending.abandoned.as_ref() else { return Ok(stands(tail, standing)) };
        if !is_first_of_epoch {
            return Ok(stands(tail, OpStanding::Unanswered));
        }
        // Another epoch of the server sent the record. What the op's author had read is the state
        // that its unit was made for in the former epoch.
        let since = Some(sent.registers()?);
        return Ok(Op { since, ..stands(tail, standing) });
    };
    let Some((unit, end)) = ends.units.get(&id) else {
        return Ok(stands(tail, OpStanding::Unanswered));
    };
    let standing = match end {
        UnitEnd::Acked(_) => return Ok(stands(tail, OpStanding::Ended)),
        UnitEnd::Stays => return Ok(stands(tail, OpStanding::Unanswered)),
        UnitEnd::Requeued => OpStanding::Waits,
        UnitEnd::DeadLettered => OpStanding::Dead,
    };
    let planned_on = unit.changes.iter().zip(&unit.records).find(|(change, _)| change.key == *key);
    let planned_on = planned_on.and_then(|(_, record)| record.as_ref());
    // An accepted server has no record of version 0.
    let of_former_epoch = planned_on.is_some_and(|record| record.version == Version::default());
    let sent = tail.pending.abandoned.as_ref();
    let record = sent.map_or(planned_on, |sent| sent.record.as_ref());
    let since = Some(record.map(Confirmed::registers).transpose()?.unwrap_or_default());
    Ok(Op { tail, standing, since, of_former_epoch })
}

#[cfg(test)]
mod tests;
