//! What a unit does: applied, known already, stale, or refused; whole or not at all.
//!
//! ```text
//!   what the record is     base      create, replace   update    delete
//!   never known            none      applied           stale     applied (a tombstone)
//!   live at r7             r7        applied           applied   applied
//!   deleted at r7          r7        applied           stale     stale
//!   anything else          differs   stale             stale     stale
//! ```
//!
//! A unit that replaces others, one of which took effect, is stale whatever its bases are.
//!
//! A base names the state that the device has seen, so a matching one is all that create and replace need: they set the
//! whole image. An update patches an image, so it needs one.

use std::collections::{BTreeMap, BTreeSet};

use super::row::{Placing, Row, changed};
use super::{Accepted, AuthorityState, ExchangeError, Quota, UnitMemory};
use crate::limits;
use crate::names::RecordKey;
use crate::numbers::Version;
use crate::op::OpKind;
use crate::protocol::{Change, Outcome, Unit, UnitChange, UnitOutcome};
use crate::time::{Hlc, WallTime};

/// Applies units in order. A unit is left without an outcome, to be sent again, once the answer is full of stale records.
pub(super) fn apply_all<S: AuthorityState>(
    state: &mut S,
    units: &[Unit],
    now: WallTime,
    quota: &Quota,
    accepted: &mut Accepted,
) -> Result<(), ExchangeError<S::Error>> {
    if units.is_empty() {
        return Ok(());
    }
    let first = state.last_commit().map_err(ExchangeError::State)?;
    let latest = Hlc::at(now.plus(limits::CLOCK_AHEAD));
    let mut last = first;
    let mut stale_bytes = 0;
    for unit in units {
        if stale_bytes >= quota.page_bytes {
            break;
        }
        let next = Version::new(last.number().saturating_add(1));
        let outcome = apply(state, unit, next, latest, quota)?;
        match &outcome {
            Outcome::Applied { versions, .. } | Outcome::Duplicate { versions } => {
                last = last.max(versions.values().copied().max().unwrap_or_default());
                accepted.own.extend(versions.iter().map(|(key, version)| (key.clone(), *version)));
            }
            Outcome::Stale { current, .. } => stale_bytes += current.iter().map(change_size).sum::<usize>(),
            _ => {}
        }
        accepted.outcomes.push(UnitOutcome { unit: unit.id, outcome });
    }
    if last > first {
        state.set_last_commit(last).map_err(ExchangeError::State)?;
        accepted.wrote = true;
    }
    Ok(())
}

fn apply<S: AuthorityState>(
    state: &mut S,
    unit: &Unit,
    commit: Version,
    latest: Hlc,
    quota: &Quota,
) -> Result<Outcome, ExchangeError<S::Error>> {
    let digest = unit.digest();
    if let Some(memory) = state.unit(&unit.id).map_err(ExchangeError::State)? {
        return Ok(if memory.digest == digest {
            Outcome::Duplicate { versions: versions(unit, memory.commit) }
        } else {
            rejected("unit_reused", "another unit had this id: send the change under a new one")
        });
    }
    if let Some((code, message)) = fault(unit) {
        return Ok(rejected(code, message));
    }
    if let Some(unfit) = unit.changes.iter().find_map(|change| change.fields.as_ref()?.unfit()) {
        return Ok(rejected(unfit.code(), &unfit.to_string()));
    }
    let mut rows = Vec::with_capacity(unit.changes.len());
    for change in &unit.changes {
        rows.push(state.record(&change.key).map_err(ExchangeError::State)?);
    }
    let mut applied = Vec::new();
    for former in &unit.replaces {
        if state.unit(former).map_err(ExchangeError::State)?.is_some() {
            applied.push(*former);
        }
    }
    let before = unit.changes.iter().zip(&rows);
    // Whatever the bases say: what took effect once must not do so again.
    let is_stale =
        |(change, row): &(&UnitChange, &Option<Row>)| !applied.is_empty() || !meets(change, row.as_ref());
    if before.clone().any(|pair| is_stale(&pair)) {
        return Ok(Outcome::Stale { current: shown(before.filter(is_stale), quota), applied });
    }
    let mut after = Vec::with_capacity(rows.len());
    let mut image_bytes = 0;
    for (index, (change, row)) in (0..).zip(before) {
        let placing = Placing { version: commit, index, latest };
        let next = changed(row.as_ref(), change, placing).map_err(ExchangeError::Damaged)?;
        let bytes = next.fields.as_ref().map_or(0, |fields| fields.as_str().len());
        if bytes > limits::OP_BYTES {
            // A device reads no image that is larger, so that one record would stop every device.
            return Ok(rejected("record_too_large", "the record's fields would be over 1 MiB"));
        }
        image_bytes += bytes;
        after.push(next);
    }
    if image_bytes > quota.unit_image_bytes {
        return Ok(rejected("unit_too_large", "the unit's records are too large together: send fewer"));
    }
    write(state, unit, digest, &rows, &after)?;
    let versions = versions(unit, commit);
    let capped = unit.changes.iter().zip(after).filter(|(change, _)| change.edited_at > latest);
    let current = capped.map(|(change, row)| row.into_change(change.key.clone())).collect();
    Ok(Outcome::Applied { versions, current })
}

fn write<S: AuthorityState>(
    state: &mut S,
    unit: &Unit,
    digest: crate::numbers::Hash,
    before: &[Option<Row>],
    after: &[Row],
) -> Result<(), ExchangeError<S::Error>> {
    let Some(commit) = after.first().map(|row| row.version) else { return Ok(()) };
    for ((change, before), after) in unit.changes.iter().zip(before).zip(after) {
        state.set_record(&change.key, before.as_ref(), after).map_err(ExchangeError::State)?;
    }
    state.set_unit(&unit.id, &UnitMemory { digest, commit }).map_err(ExchangeError::State)
}

/// Returns what is wrong with a unit whatever the store holds.
fn fault(unit: &Unit) -> Option<(&'static str, &'static str)> {
    if unit.changes.is_empty() {
        return Some(("no_changes", "a unit has at least one change"));
    }
    if unit.changes.len() > limits::TRANSACTION_OPS {
        return Some(("too_many_changes", "a unit has at most 1,000 changes"));
    }
    if unit.replaces.len() > limits::TRANSACTION_OPS {
        return Some(("too_many_replaced", "a unit replaces at most 1,000 others"));
    }
    let mut keys = BTreeSet::new();
    for change in &unit.changes {
        if !keys.insert(&change.key) {
            return Some(("duplicate_key", "each change of a unit is of another record"));
        }
        if change.ops.is_empty() {
            return Some(("no_ops", "a change names at least one op"));
        }
        match (change.kind, &change.fields) {
            (OpKind::Delete, Some(_)) => return Some(("fields_present", "a delete has no fields")),
            (OpKind::Create | OpKind::Update | OpKind::Replace, None) => {
                return Some(("fields_missing", "create, update and replace have fields"));
            }
            _ => {}
        }
    }
    None
}

/// Returns whether a change is meant for the record as it is.
fn meets(change: &UnitChange, row: Option<&Row>) -> bool {
    let live = row.is_some_and(|row| !row.is_deleted());
    // Version 0 is how a device was told that there never was such a record.
    let base = change.base.filter(|version| *version > Version::default());
    base == row.map(|row| row.version)
        && match change.kind {
            OpKind::Create | OpKind::Replace => true,
            OpKind::Update => live,
            OpKind::Delete => live || row.is_none(),
        }
}

/// Returns records as they are; so many as fit an answer, at least one.
fn shown<'a>(before: impl Iterator<Item = (&'a UnitChange, &'a Option<Row>)>, quota: &Quota) -> Vec<Change> {
    let mut current = Vec::new();
    let mut bytes = 0;
    for (change, row) in before {
        let key: RecordKey = change.key.clone();
        bytes += row.as_ref().map_or(0, |row| row.size(&key));
        if bytes > quota.unit_image_bytes && !current.is_empty() {
            break;
        }
        current.push(match row {
            Some(row) => row.clone().into_change(key),
            None => Row::never(key),
        });
    }
    current
}

fn change_size(change: &Change) -> usize {
    120 + change.fields.as_ref().map_or(0, |fields| fields.as_str().len())
}

fn versions(unit: &Unit, commit: Version) -> BTreeMap<RecordKey, Version> {
    unit.changes.iter().map(|change| (change.key.clone(), commit)).collect()
}

fn rejected(code: &str, message: &str) -> Outcome {
    Outcome::Rejected { code: code.to_owned(), message: message.to_owned() }
}
