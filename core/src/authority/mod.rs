//! The server's rules: what one exchange does to one tenant's store, and what is answered.
//!
//! The same code runs in the server, in the in-process remote of tests, and in the simulator. It reads and writes through
//! [`AuthorityRead`] and [`AuthorityState`]; time is an argument.
//!
//! [`exchange`] is the whole. A store whose readers must not wait for its writer takes it in two steps: [`accept`] (the
//! head and the units, in a write transaction) or [`accept_without_writing`] (for a request that changes nothing), then
//! [`answer`] (the page) on any later state.
//!
//! Invariants:
//! 1. A unit takes effect whole or not at all, at most once, and its id is remembered in the same transaction.
//! 2. A record's version is the number of the commit that last changed it (`docs/decisions/0003`), so it grows, for ever.
//! 3. A page ends where a commit ends. A cursor never passes a change that was not sent, unless its device made it.
//! 4. Every record of the feed stands in it once, at its latest change; a deleted one as a tombstone.
//! 5. A head that does not extend what is anchored for its device and epoch changes nothing.
//! 6. Changes and heads of a device are taken only with the key that it came with first, if it came with one.
//! 7. What a request costs is counted before it is done, and is bounded. Whatever is accepted, every device can read: sizes
//!    count every byte that travels.
//! 8. A request that was made for another life of the store, or for another tenant, changes nothing and is told nothing but which
//!    life and tenant this is: what it says of versions and cursors would mean something else here.
//! 9. A stamp is taken as it is, or its unit not at all. What the server says of the time never goes back behind its newest
//!    commit, so that a stamp that was taken once is not ahead later.
//!
//! What it does not do: check credentials, decide conflicts of two devices (a device does; here writes are joined by their
//! stamps), wait, or know an app's entity types. Tombstones and unit ids are kept for ever.

mod device;
mod fault;
mod head;
mod memory;
mod page;
mod refusal;
mod row;
mod state;
mod unit;
mod usage;
mod work;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::entry::Receipt;
use crate::fields::InvalidFields;
use crate::limits;
use crate::names::{Actor, RecordKey};
use crate::numbers::Version;
use crate::protocol::{Change, ExchangeAnswer, ExchangeRequest, MARKER, PROTOCOL, SetAside, UnitOutcome};
use crate::time::WallTime;

use device::Device;
pub use memory::MemoryAuthority;
pub use refusal::{Refusal, RefusalClass};
pub use row::Row;
pub use state::{AuthorityRead, AuthorityState, FeedItem, RowPlace, UnitFate, UnitMemory};
pub use usage::Usage;

/// Who asks, as far as the credentials tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Caller {
    /// Whoever it says it is.
    #[default]
    Anyone,
    /// One of these actors.
    OneOf(BTreeSet<Actor>),
}

impl Caller {
    /// Returns whether the caller may speak for an actor.
    pub fn may_be(&self, actor: &Actor) -> bool {
        match self {
            Self::Anyone => true,
            Self::OneOf(actors) => actors.contains(actor),
        }
    }
}

/// What one exchange may ask for, and how much a tenant may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The most units of a request.
    pub units: usize,
    /// The most changes of all its units together.
    pub changes: usize,
    /// The most changes of a page; a last whole commit may go over it.
    pub page_changes: u32,
    /// The bytes after which a page ends, and after which no further unit is treated once the outcomes take so many.
    pub page_bytes: usize,
    /// The most bytes that one unit's records take in an answer: a commit is never split, and must fit one.
    pub commit_bytes: usize,
    /// The most work of one request with one unit: the bytes of records that are read and written.
    pub work_bytes: usize,
    /// The most work of one request of several units.
    pub turn_bytes: usize,
    /// The most entity types of a tenant.
    pub entity_types: u64,
    /// The most records of a tenant, deleted ones too.
    pub records: Option<u64>,
    /// The most bytes that a tenant's records may take.
    pub bytes: Option<u64>,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            units: limits::REQUEST_UNITS,
            changes: limits::REQUEST_CHANGES,
            page_changes: limits::PAGE_CHANGES_MOST,
            page_bytes: limits::PAGE_BYTES,
            commit_bytes: limits::COMMIT_BYTES,
            work_bytes: limits::WORK_BYTES,
            turn_bytes: limits::TURN_BYTES,
            entity_types: limits::ENTITY_TYPES as u64,
            records: None,
            bytes: None,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError<E> {
    /// The request is refused as a whole; nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store failed. Whatever was written to it must not be committed.
    #[error("the store failed")]
    State(#[source] E),
    /// The store holds fields that are not JSON.
    #[error("the store holds a record whose fields do not read")]
    Damaged(#[source] InvalidFields),
}

/// What became of a request's head and units.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Accepted {
    /// What became of the units.
    pub outcomes: Vec<UnitOutcome>,
    /// What is anchored now, if the request claimed a head.
    pub receipt: Option<Receipt>,
    /// What is anchored, if the claimed head does not extend it.
    pub forked: Option<Receipt>,
    /// Whether the request was made for another life of this store, or for another tenant.
    pub for_another_life: bool,
    /// Whether the state was written to, so that it needs a commit.
    pub wrote: bool,
    /// How much work the units were, in bytes.
    pub work: usize,
    /// The records that the units changed, now or before, and the version each got by that.
    own: BTreeMap<RecordKey, Version>,
}

/// Applies a request to a tenant's store and answers it.
///
/// # Errors
/// [`ExchangeError`]; the transaction around `state` is then to be given up.
pub fn exchange<S: AuthorityState>(
    state: &mut S,
    request: &ExchangeRequest,
    now: WallTime,
    caller: &Caller,
    quota: &Quota,
) -> Result<ExchangeAnswer, ExchangeError<S::Error>> {
    let accepted = accept(state, request, now, caller, quota)?;
    answer(state, request, now, quota, accepted)
}

/// Checks a request, anchors its head and applies its units.
///
/// # Errors
/// [`ExchangeError::Refused`]: nothing was written, so that others may share the transaction. After any other error the
/// transaction around `state` is to be given up.
pub fn accept<S: AuthorityState>(
    state: &mut S,
    request: &ExchangeRequest,
    now: WallTime,
    caller: &Caller,
    quota: &Quota,
) -> Result<Accepted, ExchangeError<S::Error>> {
    let mut accepted =
        Accepted { for_another_life: check(state, request, caller, quota)?, ..Accepted::default() };
    if accepted.for_another_life {
        return Ok(accepted);
    }
    // Whatever refuses comes before the first write.
    let device = device::know(state, request)?;
    let verdict = judge_head(state, request)?;
    if let Device::New(fingerprint) = device {
        state.set_device_key(&request.device, &fingerprint).map_err(ExchangeError::State)?;
        accepted.wrote = true;
    }
    match verdict {
        Some(head::Verdict::Forked(anchored)) => {
            accepted.forked = Some(anchored);
            return Ok(accepted);
        }
        Some(head::Verdict::Known(anchored)) => accepted.receipt = Some(anchored),
        Some(head::Verdict::Extends(receipt)) => {
            state.set_anchor(&request.device, &request.epoch, &receipt).map_err(ExchangeError::State)?;
            accepted.receipt = Some(receipt);
            accepted.wrote = true;
        }
        None => {}
    }
    let now = server_time(state, now)?;
    unit::apply_all(state, &request.units, now, quota, &mut accepted)?;
    Ok(accepted)
}

/// Does what [`accept`] does if that needs no write, and returns `None` if it does.
///
/// # Errors
/// [`ExchangeError`].
pub fn accept_without_writing<S: AuthorityRead>(
    state: &S,
    request: &ExchangeRequest,
    caller: &Caller,
    quota: &Quota,
) -> Result<Option<Accepted>, ExchangeError<S::Error>> {
    if check(state, request, caller, quota)? {
        return Ok(Some(Accepted { for_another_life: true, ..Accepted::default() }));
    }
    if device::know(state, request)? != Device::Known {
        return Ok(None);
    }
    Ok(match judge_head(state, request)? {
        Some(head::Verdict::Forked(anchored)) => {
            Some(Accepted { forked: Some(anchored), ..Accepted::default() })
        }
        _ if !request.units.is_empty() => None,
        Some(head::Verdict::Extends(_)) => None,
        Some(head::Verdict::Known(anchored)) => {
            Some(Accepted { receipt: Some(anchored), ..Accepted::default() })
        }
        None => Some(Accepted::default()),
    })
}

/// Reads the page that a request asks for and makes the answer.
///
/// # Errors
/// [`ExchangeError`].
pub fn answer<S: AuthorityRead>(
    state: &S,
    request: &ExchangeRequest,
    now: WallTime,
    quota: &Quota,
    accepted: Accepted,
) -> Result<ExchangeAnswer, ExchangeError<S::Error>> {
    let mut changes = Vec::new();
    let answer = answer_by_change(state, request, now, quota, accepted, |change| changes.push(change))?;
    Ok(ExchangeAnswer { changes, ..answer })
}

/// Does what [`answer`] does, but hands each change of the page on as it is read, and returns the answer without them: one that
/// writes them at once has only one of them in memory.
///
/// # Errors
/// [`ExchangeError`]; what was handed on is then void.
pub fn answer_by_change<S: AuthorityRead>(
    state: &S,
    request: &ExchangeRequest,
    now: WallTime,
    quota: &Quota,
    accepted: Accepted,
    take: impl FnMut(Change),
) -> Result<ExchangeAnswer, ExchangeError<S::Error>> {
    // Whoever holds a forked log has to decide first which life of it this is.
    let page = if accepted.forked.is_some() || accepted.for_another_life {
        page::Page::default()
    } else {
        page::read(state, request, quota, &accepted.own, take)?
    };
    let (server, server_epoch) = state.identity().map_err(ExchangeError::State)?;
    let now = server_time(state, now)?;
    Ok(ExchangeAnswer {
        marker: MARKER.to_owned(),
        protocol: PROTOCOL,
        request: request.request,
        server,
        server_epoch,
        tenant: state.tenant().map_err(ExchangeError::State)?,
        server_time: now,
        outcomes: accepted.outcomes,
        changes: Vec::new(),
        cursors: page.cursors,
        others: page.others,
        more: page.more,
        receipt: accepted.receipt,
        forked: accepted.forked,
        set_aside: SetAside::default(),
    })
}

/// Returns what the server says of the time: what its clock shows, unless that has gone back behind its newest commit.
fn server_time<S: AuthorityRead>(state: &S, now: WallTime) -> Result<WallTime, ExchangeError<S::Error>> {
    let newest = state.newest_time().map_err(ExchangeError::State)?;
    Ok(newest.map_or(now, |newest| now.max(newest)))
}

/// Refuses what no unit of which should be looked at, and returns whether the request was made for another life of the store.
fn check<S: AuthorityRead>(
    state: &S,
    request: &ExchangeRequest,
    caller: &Caller,
    quota: &Quota,
) -> Result<bool, ExchangeError<S::Error>> {
    if request.protocol != PROTOCOL {
        return Err(Refusal::upgrade_required(request.protocol).into());
    }
    if !caller.may_be(&request.actor) {
        return Err(Refusal::wrong_actor().into());
    }
    let changes: usize = request.units.iter().map(|unit| unit.changes.len()).sum();
    if request.units.len() > quota.units || changes > quota.changes {
        return Err(Refusal::too_large(quota).into());
    }
    let (_, epoch) = state.identity().map_err(ExchangeError::State)?;
    if request.server_epoch.is_some_and(|meant| meant != epoch) {
        return Ok(true);
    }
    if let Some(meant) = request.tenant
        && state.tenant().map_err(ExchangeError::State)?.is_some_and(|tenant| tenant != meant)
    {
        return Ok(true);
    }
    let last = state.last_commit().map_err(ExchangeError::State)?;
    let others = request.others.iter().filter(|cursor| !cursor.as_bytes().is_empty());
    for cursor in request.cursors.values().chain(others) {
        if page::position(cursor)? > last {
            return Err(Refusal::server_behind().into());
        }
    }
    Ok(false)
}

fn judge_head<S: AuthorityRead>(
    state: &S,
    request: &ExchangeRequest,
) -> Result<Option<head::Verdict>, ExchangeError<S::Error>> {
    let Some(claim) = &request.head else { return Ok(None) };
    let anchored = state.anchor(&request.device, &request.epoch).map_err(ExchangeError::State)?;
    Ok(Some(head::judge(anchored, claim)?))
}
