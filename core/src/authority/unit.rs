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
//! Whatever the bases say, a unit with a stamp that is further ahead of the server's time than the bound is not looked at: it is
//! answered `ahead`. Stamps that the server lowered would make devices differ after a lost answer. That answer is remembered under
//! the unit's id: time passes, and a copy of the request that comes later would take effect beside what its device plans anew.
//!
//! A unit that replaces others, one of which took effect, is stale whatever its bases are.
//!
//! Costs are counted before the work ([`super::work`]). Whether a unit is stale is found out without reading a record, and
//! building ends with the first record that is too much, so that the memory of one unit is that of the largest commit.
//!
//! A base names the state that the device has seen, so a matching one is all that create and replace need: they set the
//! whole image. An update patches an image, so it needs one.

use std::collections::BTreeMap;

use super::fault::{self, Fault};
use super::row::{Placing, Row, changed};
use super::state::RowPlace;
use super::usage::{Counted, Growth, Over};
use super::work::{Spent, Work};
use super::{Accepted, AuthorityState, ExchangeError, Quota, UnitMemory};
use crate::limits;
use crate::names::RecordKey;
use crate::numbers::Version;
use crate::op::OpKind;
use crate::protocol::{Change, Outcome, RecordSize, Unit, UnitChange, UnitOutcome};
use crate::time::{Hlc, WallTime};

/// After how long a unit that found no room is tried again.
const ROOM_AGAIN: u64 = 15 * 60 * 1000;

/// What the units of one request share.
struct Round<'a> {
    quota: &'a Quota,
    /// The latest stamp that is taken.
    latest: Hlc,
    work: Work,
    counted: Counted,
}

/// Applies units in order. A unit is left without an outcome, to be sent again, once the answer is full of outcomes or the
/// work of one request is done.
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
    let latest = Hlc::at(now.plus(limits::STAMP_AHEAD));
    let mut round = Round { quota, latest, work: Work::new(quota), counted: Counted::default() };
    let mut last = first;
    let mut told = RecordSize::default();
    for unit in units {
        if told.all() >= quota.page_bytes || told.head >= limits::PAGE_HEAD_BYTES {
            break;
        }
        let next = Version::new(last.number().saturating_add(1));
        let outcome = match apply(state, unit, next, &mut round)? {
            Ok(outcome) => outcome,
            Err(Spent) if !accepted.outcomes.is_empty() => break,
            // It had all that a request may have.
            Err(Spent) => fault::TOO_COSTLY.into(),
        };
        if let Outcome::Applied { versions, .. } | Outcome::Duplicate { versions } = &outcome {
            last = last.max(versions.values().copied().max().unwrap_or_default());
            accepted.own.extend(versions.iter().map(|(key, version)| (key.clone(), *version)));
        }
        accepted.wrote |= matches!(outcome, Outcome::Ahead);
        let outcome = UnitOutcome { unit: unit.id, outcome };
        told += outcome.size();
        accepted.outcomes.push(outcome);
        round.work.go_on(quota);
    }
    accepted.work = round.work.spent();
    if last > first {
        state.set_last_commit(last).map_err(ExchangeError::State)?;
        state.set_newest_time(now).map_err(ExchangeError::State)?;
        round.counted.store(state)?;
        accepted.wrote = true;
    }
    Ok(())
}

/// What came of a unit, unless there was no work left for it.
type Treated<T, E> = Result<Result<T, Spent>, ExchangeError<E>>;

fn apply<S: AuthorityState>(
    state: &mut S,
    unit: &Unit,
    commit: Version,
    round: &mut Round<'_>,
) -> Treated<Outcome, S::Error> {
    if round.work.look_at(unit).is_err() {
        return Ok(Err(Spent));
    }
    let digest = unit.digest();
    if let Some(memory) = state.unit(&unit.id).map_err(ExchangeError::State)? {
        return Ok(Ok(if memory.digest != digest {
            fault::UNIT_REUSED.into()
        } else if memory.was_ahead() {
            Outcome::Ahead
        } else {
            Outcome::Duplicate { versions: versions(unit, memory.commit) }
        }));
    }
    if let Some(fault) = fault::of(unit) {
        return Ok(Ok(fault.into()));
    }
    if let Some(unfit) = unit.changes.iter().find_map(|change| change.fields.as_ref()?.unfit()) {
        return Ok(Ok(fault::rejected(unfit.code(), &unfit.to_string())));
    }
    if unit.changes.iter().any(|change| change.latest_stamp() > round.latest) {
        // Its device plans anew once it hears that. A copy of the request that comes later must not take effect beside it.
        let memory = UnitMemory::ahead(digest);
        state.set_unit(&unit.id, &memory).map_err(ExchangeError::State)?;
        return Ok(Ok(Outcome::Ahead));
    }
    let mut applied = Vec::new();
    for former in &unit.replaces {
        let memory = state.unit(former).map_err(ExchangeError::State)?;
        if memory.is_some_and(|memory| !memory.was_ahead()) {
            applied.push(*former);
        }
    }
    let mut places = Vec::with_capacity(unit.changes.len());
    for change in &unit.changes {
        places.push((change, state.place(&change.key).map_err(ExchangeError::State)?));
    }
    // Whatever the bases say: what took effect once must not do so again.
    let is_stale = |(change, place): &&(&UnitChange, Option<RowPlace>)| {
        !applied.is_empty() || !meets(change, place.as_ref())
    };
    if places.iter().any(|change| is_stale(&change)) {
        let shown = show(state, places.iter().filter(is_stale), round)?;
        return Ok(shown.map(|current| Outcome::Stale { current, applied }));
    }
    let mut draft = match draft(state, &places, commit, round)? {
        Ok(draft) => draft,
        Err(Ended::Spent) => return Ok(Err(Spent)),
        Err(Ended::Fault(fault)) => return Ok(Ok(fault.into())),
    };
    match round.counted.take(state, std::mem::take(&mut draft.growth), round.quota)? {
        Ok(()) => {}
        Err(Over::EntityTypes) => return Ok(Ok(fault::TOO_MANY_ENTITY_TYPES.into())),
        Err(Over::Room) => {
            return Ok(Ok(Outcome::Transient {
                code: "quota_exceeded".to_owned(),
                message:
                    "there is no room left for this tenant: delete what is not needed, or ask the operator"
                        .to_owned(),
                retry_after_milliseconds: Some(ROOM_AGAIN),
            }));
        }
    }
    for ((change, place), row) in places.iter().zip(&draft.rows) {
        state.set_record(&change.key, place.as_ref(), row).map_err(ExchangeError::State)?;
    }
    state.set_unit(&unit.id, &UnitMemory { digest, commit }).map_err(ExchangeError::State)?;
    Ok(Ok(Outcome::Applied { versions: versions(unit, commit), current: Vec::new() }))
}

/// The rows that a unit makes.
#[derive(Default)]
struct Draft {
    rows: Vec<Row>,
    growth: Growth,
}

/// Why a unit's rows are not built to the end.
enum Ended {
    /// The work of the request is done.
    Spent,
    /// The unit cannot be taken.
    Fault(Fault),
}

/// Builds the rows that a unit makes, up to the first thing that speaks against it.
fn draft<S: AuthorityState>(
    state: &S,
    places: &[(&UnitChange, Option<RowPlace>)],
    commit: Version,
    round: &mut Round<'_>,
) -> Result<Result<Draft, Ended>, ExchangeError<S::Error>> {
    let mut draft = Draft::default();
    let mut size = RecordSize::default();
    for (index, (change, place)) in (0..).zip(places) {
        if round.work.change(change, place.as_ref()).is_err() {
            return Ok(Err(Ended::Spent));
        }
        // Only an update needs what was there.
        let before = match change.kind {
            OpKind::Update => state.record(&change.key).map_err(ExchangeError::State)?,
            _ => None,
        };
        let placing = Placing { version: commit, index };
        let row = changed(before.as_ref(), change, placing).map_err(ExchangeError::Damaged)?;
        drop(before);
        size += row.size(&change.key);
        let fault = fault::of_row(&row).map_err(ExchangeError::Damaged)?;
        if let Some(fault) = fault.or_else(|| fault::of_commit(size, round.quota)) {
            return Ok(Err(Ended::Fault(fault)));
        }
        let bytes = row.stored_bytes(&change.key.id);
        round.counted.grow(state, &mut draft.growth, &change.key, (place.as_ref(), bytes))?;
        draft.rows.push(row);
    }
    Ok(Ok(draft))
}

/// Returns records as they are, for a unit that was made for others: so many as fit a commit, at least one.
fn show<'a, S: AuthorityState>(
    state: &S,
    places: impl Iterator<Item = &'a (&'a UnitChange, Option<RowPlace>)>,
    round: &mut Round<'_>,
) -> Treated<Vec<Change>, S::Error> {
    let (mut current, mut size) = (Vec::new(), RecordSize::default());
    for (change, place) in places {
        if round.work.show(place.as_ref()).is_err() {
            break;
        }
        let key = change.key.clone();
        let row = match place {
            Some(_) => state.record(&key).map_err(ExchangeError::State)?,
            None => None,
        };
        let change = match row {
            Some(row) => row.into_change(key),
            None => Row::never(key),
        };
        size += change.size();
        if !current.is_empty() && fault::of_commit(size, round.quota).is_some() {
            break;
        }
        current.push(change);
    }
    Ok(if current.is_empty() { Err(Spent) } else { Ok(current) })
}

/// Returns whether a change is meant for the record as it is.
fn meets(change: &UnitChange, row: Option<&RowPlace>) -> bool {
    let live = row.is_some_and(|row| !row.is_deleted);
    // Version 0 is how a device was told that there never was such a record.
    let base = change.base.filter(|version| *version > Version::default());
    base == row.map(|row| row.version)
        && match change.kind {
            OpKind::Create | OpKind::Replace => true,
            OpKind::Update => live,
            OpKind::Delete => live || row.is_none(),
        }
}

fn versions(unit: &Unit, commit: Version) -> BTreeMap<RecordKey, Version> {
    unit.changes.iter().map(|change| (change.key.clone(), commit)).collect()
}
