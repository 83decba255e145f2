//! Applies a unit, as a whole or not at all. A unit is applied, known already, stale or refused.
//!
//! ```text
//!   the record is          base      create, replace   update    delete
//!   never known            none      joined            stale     joined (a tombstone)
//!   live at r7             r7        joined            joined    joined
//!   deleted at r7          r7        joined            stale     joined (the later deletion wins)
//!   anything else          differs   stale             stale     stale
//! ```
//!
//! Joined means that in each field the write with the greater stamp wins
//! ([`crate::record::Registers`]). A record that the join does not change keeps its version, and a
//! unit that changes no record makes no commit. A unit whose writes are all present is a duplicate,
//! whatever its bases are.
//!
//! A unit with a stamp that is too far ahead of the server's time is answered `ahead`, whatever its
//! bases are. If the server lowered stamps itself, devices would differ after a lost answer.
//!
//! Every final answer except `stale` is remembered under the unit's id, `ahead` and refusals too.
//! Time passes and stores change: without this memory, a later copy of the request could take
//! effect although its device has acted on the first answer.
//!
//! If a unit names earlier units and one of them took effect, it is stale, whatever its bases are,
//! unless all its writes are present.
//!
//! A change that the caller may not make ([`super::rights`]) is refused once its base matches, and
//! its unit with it.
//!
//! The cost is counted before the work ([`super::work`]). Building rows ends at the first record
//! that exceeds the budget, so one unit needs at most the memory of the largest commit.

use std::collections::BTreeMap;

use super::digests::Turned;
use super::fault;
use super::row::{Effect, Placing, PresentState, Row, changed, is_known};
use super::state::{RowPlace, UnitFate};
use super::usage::{Counted, Growth, Over};
use super::work::{Spent, Work};
use super::{Accepted, AuthorityState, Caller, ExchangeError, Limited, Quota, UnitMemory};
use crate::limits;
use crate::names::{Actor, RecordKey};
use crate::numbers::Version;
use crate::op::OpKind;
use crate::protocol::{Change, Outcome, RecordSize, Unit, UnitChange, UnitOutcome};
use crate::time::{Hlc, WallTime};

/// The milliseconds after which a unit that found no room at the server is sent again.
const ROOM_AGAIN: u64 = 15 * 60 * 1000;

/// The state that the units of one request share.
struct Round<'a> {
    /// The author of the units.
    actor: &'a Actor,
    quota: &'a Quota,
    /// The limits of what the caller may write.
    limited: Option<&'a Limited>,
    /// The latest stamp that is accepted.
    latest: Hlc,
    work: Work,
    counted: Counted,
    digests: Turned,
    /// Whether anything was written.
    wrote: bool,
}

/// Applies units of an actor in order. Once the answer is full of outcomes, or the request's budget
/// is spent, the remaining units get no outcome. The device sends them again.
pub(super) fn apply_all<S: AuthorityState>(
    state: &mut S,
    (actor, units): (&Actor, &[Unit]),
    now: WallTime,
    (caller, quota): (&Caller, &Quota),
    accepted: &mut Accepted,
) -> Result<(), ExchangeError<S::Error>> {
    if units.is_empty() {
        return Ok(());
    }
    let first = state.last_commit().map_err(ExchangeError::State)?;
    let latest = Hlc::at(now.plus(limits::STAMP_AHEAD));
    let (work, counted, digests) = (Work::new(quota), Counted::default(), Turned::default());
    let limited = caller.limited();
    let mut round = Round { actor, quota, limited, latest, work, counted, digests, wrote: false };
    let mut last = first;
    let mut shown = RecordSize::default();
    for unit in units {
        if shown.all() >= quota.page_bytes || shown.head >= limits::PAGE_HEAD_BYTES {
            break;
        }
        let next = Version::new(last.number().saturating_add(1));
        let outcome = match apply(state, unit, next, &mut round)? {
            Ok(outcome) => outcome,
            Err(Spent) if !accepted.outcomes.is_empty() => break,
            // The unit had the whole budget of a request.
            Err(Spent) => refused(state, unit, fault::TOO_COSTLY.into(), &mut round)?,
        };
        if let Outcome::Applied { versions, current } | Outcome::Duplicate { versions, current } =
            &outcome
        {
            last = last.max(versions.values().copied().max().unwrap_or_default());
            let is_shown = |key: &RecordKey| current.iter().any(|change| change.key == *key);
            let own = versions.iter().filter(|(key, _)| !is_shown(key));
            accepted.own.extend(own.map(|(key, version)| (key.clone(), *version)));
        }
        let outcome = UnitOutcome { unit: unit.id, outcome };
        shown += outcome.size();
        accepted.outcomes.push(outcome);
        round.work.go_on(quota);
    }
    accepted.work = round.work.spent();
    accepted.wrote |= round.wrote;
    round.digests.store(state)?;
    if last > first {
        state.set_last_commit(last).map_err(ExchangeError::State)?;
        state.set_newest_time(now).map_err(ExchangeError::State)?;
    }
    if round.wrote {
        round.counted.store(state)?;
    }
    Ok(())
}

/// The result of a unit, or `Spent` if the budget did not suffice.
type Treated<T, E> = Result<Result<T, Spent>, ExchangeError<E>>;
/// The changes of a unit with the places of their records.
type Places<'u> = [(&'u UnitChange, Option<RowPlace>)];

fn apply<S: AuthorityState>(
    state: &mut S,
    unit: &Unit,
    commit: Version,
    round: &mut Round<'_>,
) -> Treated<Outcome, S::Error> {
    if round.work.look_at(unit).is_err() {
        return Ok(Err(Spent));
    }
    if let Some(memory) = state.unit(&unit.id).map_err(ExchangeError::State)? {
        return again(state, unit, memory, round).map(Ok);
    }
    if let Some(refusal) = refusal_of(unit) {
        return refused(state, unit, refusal, round).map(Ok);
    }
    if unit.changes.iter().any(|change| change.latest_stamp() > round.latest) {
        remember(state, unit, UnitFate::Ahead, round)?;
        return Ok(Ok(Outcome::Ahead));
    }
    let mut applied = Vec::new();
    for former in &unit.earlier_units {
        let memory = state.unit(former).map_err(ExchangeError::State)?;
        if memory.is_some_and(|memory| memory.was_accepted()) {
            applied.push(*former);
        }
    }
    let mut places = Vec::with_capacity(unit.changes.len());
    for change in &unit.changes {
        places.push((change, state.place(&change.key).map_err(ExchangeError::State)?));
    }
    // A unit that names an applied earlier unit is stale whatever its bases are: no op takes effect
    // twice.
    let is_stale = |(change, place): &&(&UnitChange, Option<RowPlace>)| {
        !applied.is_empty() || !meets(change, place.as_ref())
    };
    if !places.iter().any(|change| is_stale(&change)) {
        return join(state, unit, &places, commit, round);
    }
    if let Some(current) = all_known(state, &places, round)? {
        return known(state, unit, &places, current, round).map(Ok);
    }
    let current = show(state, places.iter().filter(is_stale), round)?;
    Ok(if current.is_empty() { Err(Spent) } else { Ok(Outcome::Stale { current, applied }) })
}

/// Returns the refusal of a unit that does not depend on the content of the store.
fn refusal_of(unit: &Unit) -> Option<Outcome> {
    if let Some(fault) = fault::of(unit) {
        return Some(fault.into());
    }
    let unfit = unit.changes.iter().find_map(|change| change.fields.as_ref()?.unfit())?;
    Some(fault::rejected(unfit.code(), &unfit.to_string()))
}

/// Repeats the first answer, with the present records that changed since.
fn again<S: AuthorityState>(
    state: &S,
    unit: &Unit,
    memory: UnitMemory,
    round: &mut Round<'_>,
) -> Result<Outcome, ExchangeError<S::Error>> {
    if memory.digest != unit.digest() {
        return Ok(fault::UNIT_REUSED.into());
    }
    let commit = match memory.fate {
        UnitFate::Ahead => return Ok(Outcome::Ahead),
        UnitFate::Rejected { code, message } => return Ok(Outcome::Rejected { code, message }),
        UnitFate::Applied(commit) => Some(commit),
        UnitFate::ChangedNothing => None,
    };
    let (mut versions, mut changed_since) = (BTreeMap::new(), Vec::new());
    for change in &unit.changes {
        let place = state.place(&change.key).map_err(ExchangeError::State)?;
        let present = place.as_ref().map(|place| place.version);
        // A record that the unit did not change had, and may have, an older version than the unit's
        // commit.
        let then = [commit, present].into_iter().flatten().min().unwrap_or_default();
        versions.insert(change.key.clone(), then);
        if present.is_some() && present != commit {
            changed_since.push((change, place));
        }
    }
    let current = show(state, changed_since.iter(), round)?;
    Ok(Outcome::Duplicate { versions, current })
}

/// Refuses a unit for good.
fn refused<S: AuthorityState>(
    state: &mut S,
    unit: &Unit,
    refusal: Outcome,
    round: &mut Round<'_>,
) -> Result<Outcome, ExchangeError<S::Error>> {
    if let Outcome::Rejected { code, message } = &refusal {
        let fate = UnitFate::Rejected { code: code.clone(), message: message.clone() };
        remember(state, unit, fate, round)?;
    }
    Ok(refusal)
}

/// Remembers a unit that changed no record.
fn remember<S: AuthorityState>(
    state: &mut S,
    unit: &Unit,
    fate: UnitFate,
    round: &mut Round<'_>,
) -> Result<(), ExchangeError<S::Error>> {
    round.counted.remember_unit(state)?;
    round.wrote = true;
    let memory = UnitMemory { digest: unit.digest(), fate };
    state.set_unit(&unit.id, &memory).map_err(ExchangeError::State)
}

/// Answers a unit whose writes are all present.
fn known<S: AuthorityState>(
    state: &mut S,
    unit: &Unit,
    places: &Places<'_>,
    current: Vec<Change>,
    round: &mut Round<'_>,
) -> Result<Outcome, ExchangeError<S::Error>> {
    remember(state, unit, UnitFate::ChangedNothing, round)?;
    Ok(Outcome::Duplicate { versions: present(places), current })
}

/// Joins a unit whose bases match the present records.
fn join<S: AuthorityState>(
    state: &mut S,
    unit: &Unit,
    places: &Places<'_>,
    commit: Version,
    round: &mut Round<'_>,
) -> Treated<Outcome, S::Error> {
    let mut draft = match draft(state, places, commit, round)? {
        Ok(draft) => draft,
        Err(Ended::Spent) => return Ok(Err(Spent)),
        Err(Ended::Refused(refusal)) => return refused(state, unit, refusal, round).map(Ok),
    };
    if draft.rows.iter().all(Option::is_none) {
        let current = if draft.is_known { show(state, places.iter(), round)? } else { Vec::new() };
        if !current.is_empty() && current.len() == places.len() {
            return known(state, unit, places, current, round).map(Ok);
        }
        remember(state, unit, UnitFate::ChangedNothing, round)?;
        return Ok(Ok(Outcome::Applied { versions: present(places), current: Vec::new() }));
    }
    match round.counted.take(state, std::mem::take(&mut draft.growth), round.quota)? {
        Ok(()) => {}
        Err(Over::EntityTypes) => {
            return refused(state, unit, fault::TOO_MANY_ENTITY_TYPES.into(), round).map(Ok);
        }
        Err(Over::Room) => return Ok(Ok(no_room())),
    }
    let mut versions = present(places);
    for ((change, place), row) in places.iter().zip(&draft.rows) {
        let Some(row) = row else { continue };
        state.set_record(&change.key, place.as_ref(), row).map_err(ExchangeError::State)?;
        round.digests.add(&change.key, place.as_ref(), row);
        versions.insert(change.key.clone(), commit);
    }
    round.wrote = true;
    let memory = UnitMemory { digest: unit.digest(), fate: UnitFate::Applied(commit) };
    state.set_unit(&unit.id, &memory).map_err(ExchangeError::State)?;
    Ok(Ok(Outcome::Applied { versions, current: Vec::new() }))
}

fn no_room() -> Outcome {
    Outcome::Transient {
        code: "quota_exceeded".to_owned(),
        message:
            "there is no room left for this tenant: delete what is not needed, or ask the operator"
                .to_owned(),
        retry_after_milliseconds: Some(ROOM_AGAIN),
    }
}

/// The rows that a unit makes.
struct Draft {
    /// A row for each record of the unit; none for a record that the unit does not change.
    rows: Vec<Option<Row>>,
    growth: Growth,
    /// Whether all writes of the unit are present already.
    is_known: bool,
}

/// The reason why a unit's rows are not built to the end.
enum Ended {
    /// The request's budget is spent.
    Spent,
    /// The unit is refused.
    Refused(Outcome),
}

/// Builds the rows that a unit makes, up to the first reason against it.
fn draft<S: AuthorityState>(
    state: &S,
    places: &Places<'_>,
    commit: Version,
    round: &mut Round<'_>,
) -> Result<Result<Draft, Ended>, ExchangeError<S::Error>> {
    let mut draft =
        Draft { rows: Vec::with_capacity(places.len()), growth: Growth::default(), is_known: true };
    let mut size = RecordSize::default();
    for (index, (change, place)) in (0..).zip(places) {
        if round.work.change(change, place.as_ref()).is_err() {
            return Ok(Err(Ended::Spent));
        }
        let present = present_state(state, change, place.as_ref())?;
        if let Some(limited) = round.limited {
            let is_live = place.is_some_and(|place| !place.is_deleted);
            let refusal = limited.refusal_of(change, is_live, present.row());
            if let Some(refusal) = refusal.map_err(ExchangeError::Damaged)? {
                return Ok(Err(Ended::Refused(refusal)));
            }
        }
        let placing = Placing { version: commit, index };
        let row =
            match changed(present, change, round.actor, placing).map_err(ExchangeError::Damaged)? {
                Effect::Nothing { is_known } => {
                    draft.is_known &= is_known;
                    draft.rows.push(None);
                    continue;
                }
                Effect::Row(row) => row,
            };
        size += row.size(&change.key);
        let fault = fault::of_row(&row).map_err(ExchangeError::Damaged)?;
        if let Some(fault) = fault.or_else(|| fault::of_commit(size, round.quota)) {
            return Ok(Err(Ended::Refused(fault.into())));
        }
        let bytes = row.stored_bytes(&change.key.id);
        round.counted.grow(state, &mut draft.growth, &change.key, (place.as_ref(), bytes))?;
        draft.rows.push(Some(row));
    }
    Ok(Ok(draft))
}

/// Reads the part of a record that the join with a change needs.
fn present_state<S: AuthorityState>(
    state: &S,
    change: &UnitChange,
    place: Option<&RowPlace>,
) -> Result<PresentState, ExchangeError<S::Error>> {
    let Some(place) = place else { return Ok(PresentState::Never) };
    if !PresentState::needs_row(change, place) {
        return Ok(PresentState::Stamp(*place));
    }
    let row = state.record(&change.key).map_err(ExchangeError::State)?;
    Ok(row.map_or(PresentState::Never, |row| PresentState::Row(Box::new(row))))
}

/// Returns a unit's records as they are, if they have all its writes and fit one answer.
fn all_known<S: AuthorityState>(
    state: &S,
    places: &Places<'_>,
    round: &mut Round<'_>,
) -> Result<Option<Vec<Change>>, ExchangeError<S::Error>> {
    let may_be = |(change, place): &(&UnitChange, Option<RowPlace>)| {
        let deletes = change.kind == OpKind::Delete;
        place.is_some_and(|place| place.is_deleted == deletes && place.stamp >= change.stamp())
    };
    if !places.iter().all(may_be) {
        return Ok(None);
    }
    // The rows are read to be shown, so the work of showing them is counted here.
    let mut work = round.work;
    let (mut current, mut size) = (Vec::new(), RecordSize::default());
    for (change, place) in places {
        if work.show(place.as_ref()).is_err() {
            return Ok(None);
        }
        let Some(row) = state.record(&change.key).map_err(ExchangeError::State)? else {
            return Ok(None);
        };
        if !is_known(&row, change).map_err(ExchangeError::Damaged)? {
            return Ok(None);
        }
        size += row.size(&change.key);
        if fault::of_commit(size, round.quota).is_some() {
            return Ok(None);
        }
        current.push(row.into_change(change.key.clone()));
    }
    round.work = work;
    Ok(Some(current))
}

/// Returns records as they are: as many as fit a commit, and at least one unless the budget is
/// spent.
fn show<'a, S: AuthorityState>(
    state: &S,
    places: impl Iterator<Item = &'a (&'a UnitChange, Option<RowPlace>)>,
    round: &mut Round<'_>,
) -> Result<Vec<Change>, ExchangeError<S::Error>> {
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
    Ok(current)
}

/// Returns the versions that records have.
fn present(places: &Places<'_>) -> BTreeMap<RecordKey, Version> {
    let version =
        |place: &Option<RowPlace>| place.as_ref().map(|place| place.version).unwrap_or_default();
    places.iter().map(|(change, place)| (change.key.clone(), version(place))).collect()
}

/// Returns whether a change's base matches the record.
fn meets(change: &UnitChange, row: Option<&RowPlace>) -> bool {
    let live = row.is_some_and(|row| !row.is_deleted);
    // Version 0 is the version of a record that never existed.
    let base = change.base.filter(|version| *version > Version::default());
    base == row.map(|row| row.version)
        && match change.kind {
            OpKind::Create | OpKind::Replace | OpKind::Delete => true,
            OpKind::Update => live,
        }
}
