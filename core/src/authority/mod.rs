//! The server's rules: what one exchange does to one tenant's store, and the answer.
//!
//! The server, the in-process remote of tests, and the simulator run the same code. It reads and
//! writes through [`AuthorityRead`] and [`AuthorityState`]. Time is an argument.
//!
//! [`exchange`] does everything. A store whose readers must not wait for its writer runs it in two
//! steps. The first is [`accept`] (the head and the units, in a write transaction), or
//! [`accept_without_writing`] for a request that changes nothing. The second is [`answer`] (the
//! page), on any later state.
//!
//! Invariants:
//! 1. A unit takes effect whole or not at all, and at most once. The same transaction remembers its
//!    id.
//! 2. A record's version is the number of the commit that last changed it (`docs/decisions/0003`),
//!    so it always grows.
//! 3. A page ends where a commit ends. A cursor never passes a change that was not sent, unless the
//!    same device made it.
//! 4. The feed has every record once, at its latest change. A deleted record is a tombstone.
//! 5. A head that does not extend the anchor of its device and epoch changes nothing.
//! 6. If a device's first request had a key, the server accepts its changes and heads only with
//!    that key.
//! 7. The cost of a request is counted before the work is done, and is bounded. Every device can
//!    read whatever the server accepts: sizes count every byte that is sent.
//! 8. A request that was made for another epoch of the store, or for another tenant, changes
//!    nothing. The answer only names this epoch and tenant, because versions and cursors of the
//!    request have another meaning here.
//! 9. A stamp is accepted unchanged, or its unit is not accepted. The server's time never goes back
//!    behind its newest commit, so that a stamp that was once accepted is not ahead later.
//!
//! 10. Declared rights are judged change by change, and a unit with a forbidden change is refused
//!     whole (`rights`). Without declarations nothing is judged.
//! 11. The digests of the live records change with the records (`digests`). [`compare`] answers what
//!     a device asks to compare its records with these.
//!
//! What it does not do: check credentials or an app's entity types, or wait. It does not decide
//! conflicts: a device does, and here writes are joined by their stamps. Tombstones and unit ids
//! are kept for ever.

mod compare;
mod device;
mod digests;
mod fault;
mod head;
mod memory;
mod page;
mod refusal;
mod rights;
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
use crate::protocol::{
    Change, ExchangeAnswer, ExchangeRequest, MARKER, PROTOCOL, SetAside, UnitOutcome,
};
use crate::time::WallTime;

pub use compare::{Compared, compare};
use device::Device;
pub use memory::MemoryAuthority;
pub use refusal::{Refusal, RefusalClass};
pub use rights::{InvalidRights, Limited, Rights, Role};
pub use row::Row;
pub use state::{
    AuthorityRead, AuthorityState, FeedItem, IdVersion, RowPlace, UnitFate, UnitMemory,
};
pub use usage::Usage;
pub use work::looked_at;

/// The actors that the credentials allow, and what they may write.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Caller {
    /// Any actor.
    #[default]
    Anyone,
    /// One of these actors.
    OneOf(BTreeSet<Actor>),
    /// Actors whose changes are judged by declared rights.
    Limited(Limited),
}

impl Caller {
    /// Returns whether the caller may act for an actor.
    pub fn may_be(&self, actor: &Actor) -> bool {
        match self {
            Self::Anyone => true,
            Self::OneOf(actors) => actors.contains(actor),
            Self::Limited(limited) => {
                limited.actors.as_ref().is_none_or(|actors| actors.contains(actor))
            }
        }
    }

    /// Returns the limits of what the caller may write; none if there are none.
    const fn limited(&self) -> Option<&Limited> {
        match self {
            Self::Anyone | Self::OneOf(_) => None,
            Self::Limited(limited) => Some(limited),
        }
    }
}

/// The most that one exchange may ask for, and the most that a tenant may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The most units of a request.
    pub units: usize,
    /// The most changes of all its units together.
    pub changes: usize,
    /// The most changes of a page. Its last commit is whole and may exceed this number.
    pub page_changes: u32,
    /// The bytes after which a page ends. Once the outcomes are as large, no further unit is
    /// applied.
    pub page_bytes: usize,
    /// The most bytes of one unit's records in an answer. A commit is never split, so it must fit
    /// one answer.
    pub commit_bytes: usize,
    /// The most work of one request with one unit, in bytes of records that are read and written.
    pub work_bytes: usize,
    /// The most work of one request with several units.
    pub turn_bytes: usize,
    /// The most entity types of a tenant.
    pub entity_types: u64,
    /// The most records of a tenant, deleted ones too.
    pub records: Option<u64>,
    /// The most bytes of a tenant's records.
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

/// The reason why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError<E> {
    /// The request is refused as a whole; nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store failed. Nothing that was written to it may be committed.
    #[error("the store failed")]
    State(#[source] E),
    /// The store holds fields that are not JSON.
    #[error("the store holds a record whose fields cannot be read")]
    Damaged(#[source] InvalidFields),
}

/// The result for a request's head and units.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Accepted {
    /// The outcomes of the units.
    pub outcomes: Vec<UnitOutcome>,
    /// The anchor now, if the request claimed a head.
    pub receipt: Option<Receipt>,
    /// The anchor, if the claimed head does not extend it.
    pub forked: Option<Receipt>,
    /// Whether the request was made for another epoch of this store, or for another tenant.
    pub for_another_epoch: bool,
    /// Whether the state was written to, so that it needs a commit.
    pub wrote: bool,
    /// The work of the units, in bytes.
    pub work: usize,
    /// The records that the units changed, now or before, and the version that each record got by
    /// its change.
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
/// [`ExchangeError::Refused`]: nothing was written, so other requests may share the transaction.
/// After any other error, roll back the transaction of `state`.
pub fn accept<S: AuthorityState>(
    state: &mut S,
    request: &ExchangeRequest,
    now: WallTime,
    caller: &Caller,
    quota: &Quota,
) -> Result<Accepted, ExchangeError<S::Error>> {
    let mut accepted = Accepted {
        for_another_epoch: check(state, request, caller, quota)?,
        ..Accepted::default()
    };
    if accepted.for_another_epoch {
        return Ok(accepted);
    }
    // Every check that can refuse comes before the first write.
    let device = device::know(state, request)?;
    let checked = check_head(state, request)?;
    if let Device::New(fingerprint) = device {
        state.set_device_key(&request.device, &fingerprint).map_err(ExchangeError::State)?;
        accepted.wrote = true;
    }
    match checked {
        Some(head::HeadCheck::Forked(anchored)) => {
            accepted.forked = Some(anchored);
            return Ok(accepted);
        }
        Some(head::HeadCheck::Known(anchored)) => accepted.receipt = Some(anchored),
        Some(head::HeadCheck::Extends(receipt)) => {
            state
                .set_anchor(&request.device, &request.epoch, &receipt)
                .map_err(ExchangeError::State)?;
            state
                .set_seen(&request.device, &request.epoch, (now, &request.actor))
                .map_err(ExchangeError::State)?;
            accepted.receipt = Some(receipt);
            accepted.wrote = true;
        }
        None => {}
    }
    let now = server_time(state, now)?;
    let units = (&request.actor, request.units.as_slice());
    unit::apply_all(state, units, now, (caller, quota), &mut accepted)?;
    Ok(accepted)
}

/// Does the same as [`accept`] if that certainly needs no write; otherwise returns `None`.
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
        return Ok(Some(Accepted { for_another_epoch: true, ..Accepted::default() }));
    }
    if device::know(state, request)? != Device::Known {
        return Ok(None);
    }
    Ok(match check_head(state, request)? {
        Some(head::HeadCheck::Forked(anchored)) => {
            Some(Accepted { forked: Some(anchored), ..Accepted::default() })
        }
        _ if !request.units.is_empty() => None,
        Some(head::HeadCheck::Extends(_)) => None,
        Some(head::HeadCheck::Known(anchored)) => {
            Some(Accepted { receipt: Some(anchored), ..Accepted::default() })
        }
        None => Some(Accepted::default()),
    })
}

/// Reads the page that a request asks for, and makes the answer.
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
    let answer =
        answer_by_change(state, request, now, quota, accepted, |change| changes.push(change))?;
    Ok(ExchangeAnswer { changes, ..answer })
}

/// Does the same as [`answer`], but passes each change to `take` when it is read, and returns the
/// answer without the changes. A caller that writes changes at once has only one of them in memory.
///
/// # Errors
/// [`ExchangeError`]. The changes passed to `take` are then invalid.
pub fn answer_by_change<S: AuthorityRead>(
    state: &S,
    request: &ExchangeRequest,
    now: WallTime,
    quota: &Quota,
    accepted: Accepted,
    take: impl FnMut(Change),
) -> Result<ExchangeAnswer, ExchangeError<S::Error>> {
    // The owner of a forked log has to decide about the log before a page is sent. The cursors of
    // a request for another epoch have no meaning here.
    let page = if accepted.forked.is_some() || accepted.for_another_epoch {
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
        signed: None,
        forked: accepted.forked,
        set_aside: SetAside::default(),
    })
}

/// Returns the server's time: the later of its clock and the time of its newest commit.
fn server_time<S: AuthorityRead>(
    state: &S,
    now: WallTime,
) -> Result<WallTime, ExchangeError<S::Error>> {
    let newest = state.newest_time().map_err(ExchangeError::State)?;
    Ok(newest.map_or(now, |newest| now.max(newest)))
}

/// Refuses a request before any unit is checked. Returns whether the request was made for another
/// epoch of the store, or for another tenant.
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

fn check_head<S: AuthorityRead>(
    state: &S,
    request: &ExchangeRequest,
) -> Result<Option<head::HeadCheck>, ExchangeError<S::Error>> {
    let Some(claim) = &request.head else { return Ok(None) };
    let anchored = state.anchor(&request.device, &request.epoch).map_err(ExchangeError::State)?;
    Ok(Some(head::check(anchored, claim)?))
}
