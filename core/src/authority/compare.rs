//! Answers one question of a comparison. It only reads.
//!
//! | question | cost |
//! |---|---|
//! | the digest of each entity type | a row for each type |
//! | the 256 parts of an entity type | 256 rows |
//! | smaller parts; ids and versions | the records of the type, [`limits::COMPARE_LOOKED_AT`] of them at a time |
//! | records | these records, up to the size of a page |
//! | the heads of the device's logs | a row for each head, at most of 256 epochs |
//!
//! Invariants:
//! 1. What a request names is counted before any record is read.
//! 2. An answer is within the bounds of a page, whatever is asked.
//! 3. A request for another epoch of the store, or for another tenant, learns only which they are.

use std::collections::BTreeMap;

use super::page::position;
use super::row::Row;
use super::{AuthorityRead, Caller, ExchangeError, Quota, Refusal, server_time};
use crate::digest::{Digest, Digests, Part, PartsByPlace, Place};
use crate::limits;
use crate::names::{RecordId, RecordKey};
use crate::numbers::{Cursor, Version};
use crate::protocol::{
    Ask, CompareAnswer, CompareRequest, EntityDigest, EpochHeads, Found, InParts, PROTOCOL,
    RecordSize,
};
use crate::time::WallTime;

/// The work of looking at one record, in bytes.
const LOOK: usize = 64;

/// An answer, and how much work it was, in bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// The answer.
    pub answer: CompareAnswer,
    /// The work.
    pub work: usize,
}

/// Answers a request for a comparison.
///
/// # Errors
/// [`ExchangeError`].
pub fn compare<S: AuthorityRead>(
    state: &S,
    request: &CompareRequest,
    now: WallTime,
    caller: &Caller,
    quota: &Quota,
) -> Result<Compared, ExchangeError<S::Error>> {
    if request.protocol != PROTOCOL {
        return Err(Refusal::upgrade_required(request.protocol).into());
    }
    if !caller.may_be(&request.actor) {
        return Err(Refusal::wrong_actor().into());
    }
    check_named(&request.ask)?;
    let failed = ExchangeError::State;
    let (server, epoch) = state.identity().map_err(failed)?;
    let tenant = state.tenant().map_err(ExchangeError::State)?;
    let mut answer = CompareAnswer {
        tenant,
        server_time: server_time(state, now)?,
        commit: state.last_commit().map_err(ExchangeError::State)?,
        ..CompareAnswer::new(request, (server, epoch))
    };
    let is_other_tenant =
        matches!((request.tenant, tenant), (Some(meant), Some(is)) if meant != is);
    if request.server_epoch.is_some_and(|meant| meant != epoch) || is_other_tenant {
        return Ok(Compared { answer, work: 0 });
    }
    let mut work = 0;
    answer.found = Some(match &request.ask {
        Ask::Digests => digests(state, request, answer.commit)?,
        Ask::Parts(InParts { entity, parts, after: None }) if *parts == [Part::ALL] => {
            let digests = known(state.parts(entity))?;
            Found::Parts { parts: vec![Digests::new(digests)], after: None }
        }
        Ask::Parts(parts) => smaller_parts(state, parts, &mut work)?,
        Ask::Versions(parts) => versions(state, parts, quota, &mut work)?,
        Ask::Records(keys) => records(state, keys, quota, &mut work)?,
        Ask::Heads => heads(state, request, &mut work)?,
    });
    Ok(Compared { answer, work })
}

/// Refuses a question that names too much, or a record twice.
fn check_named(ask: &Ask) -> Result<(), Refusal> {
    let named = match ask {
        Ask::Digests | Ask::Heads => 0,
        Ask::Parts(InParts { parts, .. }) | Ask::Versions(InParts { parts, .. }) => {
            let mut sorted = parts.clone();
            sorted.sort_unstable_by_key(Part::to_string);
            let is_in = |pair: &[Part]| matches!(pair, [one, next] if next.to_string().starts_with(&one.to_string()));
            // Parts within each other would be counted twice. In the order of their texts, a part
            // comes directly before those that are within it.
            if parts.is_empty() || sorted.windows(2).any(is_in) {
                return Err(Refusal::bad_parts());
            }
            if matches!(ask, Ask::Parts(_)) && parts.iter().any(|part| part.divisions() == 0) {
                return Err(Refusal::bad_parts());
            }
            parts.len()
        }
        Ask::Records(keys) => keys.len(),
    };
    if named > limits::COMPARE_NAMED { Err(Refusal::names_too_much()) } else { Ok(()) }
}

/// Returns digests that the store has, or the refusal of a store that does not have them.
fn known<T, E>(digests: Result<Option<T>, E>) -> Result<T, ExchangeError<E>> {
    let digests = digests.map_err(ExchangeError::State)?;
    digests.ok_or_else(|| Refusal::digests_unknown().into())
}

fn digests<S: AuthorityRead>(
    state: &S,
    request: &CompareRequest,
    commit: Version,
) -> Result<Found, ExchangeError<S::Error>> {
    let place = |cursor: &Cursor| match cursor.as_bytes() {
        [] => Ok(Version::default()),
        _ => position(cursor),
    };
    let others = request.others.as_ref().map_or(Ok(Version::default()), place)?;
    let mut read_to = BTreeMap::new();
    for (entity, cursor) in &request.cursors {
        read_to.insert(entity, place(cursor)?);
    }
    if read_to.values().chain([&others]).any(|place| *place > commit) {
        return Err(Refusal::server_behind().into());
    }
    let earliest = read_to.values().copied().fold(others, Version::min);
    let changed = state.entities_after(earliest).map_err(ExchangeError::State)?;
    let mut found = Vec::new();
    for (entity, digest) in known(state.digests())? {
        let read_to = read_to.get(&entity).copied().unwrap_or(others);
        let newer = changed.contains(&entity)
            && state.has_changed(&entity, read_to).map_err(ExchangeError::State)?;
        let Digest { records, sum } = digest;
        found.push(EntityDigest { entity: entity.to_string(), records, sum, read_to, newer });
    }
    Ok(Found::Digests(found))
}

/// Looks at the next records of an entity type, and passes on those that are live and in a part.
/// Returns the last record that was looked at if there are more.
fn look<S: AuthorityRead>(
    state: &S,
    InParts { entity, parts, after }: &InParts,
    work: &mut usize,
    mut take: impl FnMut(usize, Place, RecordId, Version) -> bool,
) -> Result<Option<String>, ExchangeError<S::Error>> {
    let (mut last, finder) = (None, PartsByPlace::new(parts));
    let records = state.versions(entity, after.as_ref()).map_err(ExchangeError::State)?;
    for (number, record) in records.enumerate() {
        let (id, version) = record.map_err(ExchangeError::State)?;
        if number >= limits::COMPARE_LOOKED_AT {
            return Ok(last);
        }
        *work = work.saturating_add(LOOK);
        last = Some(id.as_str().to_owned());
        let place = Place::of(&id);
        let Some(part) = finder.find(place) else { continue };
        let key = RecordKey::new(entity.clone(), id);
        let row = state.place(&key).map_err(ExchangeError::State)?;
        *work = work.saturating_add(LOOK);
        let is_live = row.is_some_and(|row| !row.is_deleted);
        if is_live && !take(part, place, key.id, version) {
            return Ok(last);
        }
    }
    Ok(None)
}

fn smaller_parts<S: AuthorityRead>(
    state: &S,
    asked: &InParts,
    work: &mut usize,
) -> Result<Found, ExchangeError<S::Error>> {
    let empty = |part: &Part| vec![Digest::default(); part.divisions()];
    let mut parts: Vec<_> = asked.parts.iter().map(empty).collect();
    let after = look(state, asked, work, |number, place, id, version| {
        let division = asked.parts.get(number).and_then(|part| part.division_of(place));
        let digest = division.and_then(|at| parts.get_mut(number)?.get_mut(at));
        if let Some(digest) = digest {
            *digest = digest.plus(Digest::of(&asked.entity, &id, version));
        }
        true
    })?;
    Ok(Found::Parts { parts: parts.into_iter().map(Digests::new).collect(), after })
}

fn versions<S: AuthorityRead>(
    state: &S,
    asked: &InParts,
    quota: &Quota,
    work: &mut usize,
) -> Result<Found, ExchangeError<S::Error>> {
    let (mut records, mut bytes) = (Vec::new(), 0usize);
    let after = look(state, asked, work, |_, _, id, version| {
        // An id may consist of characters that JSON writes as two.
        bytes = bytes.saturating_add(2 * id.as_str().len() + 32);
        records.push((id.as_str().to_owned(), version));
        records.len() < limits::COMPARE_LISTED && bytes < quota.page_bytes
    })?;
    Ok(Found::Versions { records, after })
}

fn heads<S: AuthorityRead>(
    state: &S,
    request: &CompareRequest,
    work: &mut usize,
) -> Result<Found, ExchangeError<S::Error>> {
    let mut epochs = state.epochs(&request.device).map_err(ExchangeError::State)?;
    epochs.sort_unstable_by_key(|epoch| (*epoch != request.epoch, *epoch));
    let more = epochs.len() > limits::EPOCHS_LISTED;
    epochs.truncate(limits::EPOCHS_LISTED);
    let mut logs = Vec::with_capacity(epochs.len());
    for epoch in epochs {
        let heads = state.anchors(&request.device, &epoch).map_err(ExchangeError::State)?;
        *work = work.saturating_add(LOOK * heads.len());
        logs.push(EpochHeads { epoch, heads });
    }
    Ok(Found::Heads { logs, more })
}

fn records<S: AuthorityRead>(
    state: &S,
    keys: &[RecordKey],
    quota: &Quota,
    work: &mut usize,
) -> Result<Found, ExchangeError<S::Error>> {
    let (mut changes, mut size) = (Vec::new(), RecordSize::default());
    for key in keys {
        let place = state.place(key).map_err(ExchangeError::State)?;
        let bytes = place.map_or(0, |place| place.bytes);
        let is_full = size.all().saturating_add(bytes) > quota.page_bytes
            || size.head >= limits::PAGE_HEAD_BYTES;
        if !changes.is_empty() && is_full {
            break;
        }
        *work = work.saturating_add(bytes + LOOK);
        let row = state.record(key).map_err(ExchangeError::State)?;
        let change = match row {
            Some(row) => row.into_change(key.clone()),
            None => Row::never(key.clone()),
        };
        size += change.size();
        changes.push(change);
    }
    Ok(Found::Records(changes))
}
