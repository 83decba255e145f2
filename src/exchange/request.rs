//! Requests: units that a durable `Planned` froze before they are sent, cursors, and the claim of
//! the log's head.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook_core::entry::Receipt;
use fieldbook_core::limits;
use fieldbook_core::log::entries_from;
use fieldbook_core::protocol::{ExchangeRequest, HeadClaim, PROTOCOL, Unit};
use fieldbook_core::rows::StateRow;
use fieldbook_core::rules::View;
use fieldbook_core::rules::belonging::is_behind;
use fieldbook_core::rules::freeze::{freeze, thaw};
use fieldbook_core::rules::group::Group;
use fieldbook_core::rules::plan::Plan;
use fieldbook_core::rules::upcast::is_due;
use fieldbook_core::tail::Tail;
use fieldbook_core::{Actor, Cursor, EntityType, Hlc, OpPlace, RecordKey, RequestId, Seq, UnitId};
use fieldbook_projections::Tables;

use super::identity;
use crate::book::{Shared, read};
use crate::error::Error;
use crate::maintain::upcast_ops;
use crate::writer::Session;

impl Shared {
    pub(super) fn cursors(&self) -> Result<BTreeMap<EntityType, Cursor>, Error> {
        let snapshot = fieldbook_projections::Snapshot::new(self.store.begin_read()?);
        Ok(snapshot.cursors()?.into_iter().map(|(entity, row)| (entity, row.cursor)).collect())
    }

    pub(crate) fn empty_request(
        &self,
        cursors: BTreeMap<EntityType, Cursor>,
        page_limit: u32,
    ) -> Result<ExchangeRequest, Error> {
        let request = RequestId::new(self.clock.now().wall, &mut *self.ids());
        let actor = read(&self.actor).clone();
        without_units(&self.state(), request, actor, cursors, page_limit)
    }
}

impl Shared {
    /// Builds a request without units and pages that asks which server answers. If the server
    /// reported that it was set back, the request has the cursors and the head claim: only these
    /// show whether it still is.
    pub(super) fn probe(&self) -> Result<ExchangeRequest, Error> {
        if !is_behind(&self.state()) {
            return self.empty_request(BTreeMap::new(), 0);
        }
        let cursors = self.cursors()?;
        let head = self.write_in_turn(|session| {
            let state = session.tables.state()?;
            claim(session, &state)
        })?;
        let (tenant, device_key) = (self.state().tenant, self.device_key);
        Ok(ExchangeRequest { head, tenant, device_key, ..self.empty_request(cursors, 0)? })
    }
}

fn without_units(
    state: &StateRow,
    request: RequestId,
    actor: Actor,
    cursors: BTreeMap<EntityType, Cursor>,
    page_limit: u32,
) -> Result<ExchangeRequest, Error> {
    let (device, epoch) = identity(state)?;
    Ok(ExchangeRequest {
        protocol: PROTOCOL,
        request,
        device,
        epoch,
        // A request that only reads needs no key, and a secret is sent as rarely as possible.
        device_key: None,
        others: None,
        actor,
        server_epoch: state.server.map(|(_, epoch)| epoch),
        // This frequent request names no tenant: the answer has it.
        tenant: None,
        head: None,
        units: Vec::new(),
        foreign_cursors: state.foreign_cursors.iter().cloned().collect(),
        cursors,
        page_limit,
    })
}

/// A request, and what was found while it was built.
pub(super) struct Planned {
    pub(super) request: ExchangeRequest,
    /// Records whose ops cannot be sent because the record would be too large.
    pub(super) too_large: Vec<RecordKey>,
}

/// Freezes the planned groups, adds the unanswered units, and builds the request. Others could
/// write while the plan was made, so groups that have changed since are left out.
pub(super) fn request_with_units(
    session: &mut Session<'_>,
    plan: Plan,
    cursors: BTreeMap<EntityType, Cursor>,
    page_limit: u32,
) -> Result<Planned, Error> {
    let Plan { mut groups, mut again, .. } = plan;
    again.retain(|id| session.tail.unit(id).is_some_and(|unit| unit.actor == session.actor));
    // The units are read before anything is written: if one is damaged, this round has nothing to
    // undo.
    let mut sending = Sending::default();
    sending.add(session, &again)?;
    // Earlier jobs of this round are not in the tail yet. Ops that they ended or planned are left
    // out, and ops behind those wait for the next plan.
    let touched = session.touched();
    keep_up_to_the_first_that_goes_out(&mut groups, |group| {
        let mut places = group.records.iter().flat_map(|(_, places)| places);
        let is_untouched = !places.any(|place| touched.contains(place));
        is_untouched && group.actor == session.actor && stands_as_planned(session.tail, group)
    });
    // These are ops of an older schema version whose unit was unanswered when the book was opened.
    let places = groups.iter().flat_map(|group| &group.records);
    let places = places.flat_map(|(key, places)| places.iter().map(|place| (key.clone(), *place)));
    let old: Vec<_> =
        places.filter(|(_, place)| is_due(session.schema, session.tail, *place)).collect();
    if !old.is_empty() {
        upcast_ops(session, &old)?;
        let mut parked = BTreeSet::new();
        for (_, place) in &old {
            let Some(row) = session.tail.op(*place) else { continue };
            parked.extend(session.tables.park_of(&row.op)?.map(|_| *place));
        }
        keep_up_to_the_first_that_goes_out(&mut groups, |group| {
            !group.records.iter().flat_map(|(_, places)| places).any(|place| parked.contains(place))
        });
    }
    let mut new = Vec::new();
    let (seq, now) = (session.next_seq(), session.now.wall);
    let mut frozen = {
        let (mut view, randomness) = session.view();
        freeze(&mut view, &groups, seq, now, randomness).map_err(Error::not_frozen)?
    };
    new.extend(frozen.planned.units.iter().map(|unit| unit.id));
    let too_large = std::mem::take(&mut frozen.too_large);
    for draft in frozen.into_drafts() {
        session.append(draft, Hlc::ZERO)?;
    }
    sending.add(session, &new)?;
    let units = sending.units;
    let state = session.tables.state()?;
    let head = if units.is_empty() { None } else { claim(session, &state)? };
    let request = RequestId::new(session.now.wall, session.randomness);
    let empty = without_units(&state, request, session.actor.clone(), cursors, page_limit)?;
    Ok(Planned {
        request: ExchangeRequest { head, units, tenant: state.tenant, ..empty },
        too_large,
    })
}

/// The units of a request that is being built.
#[derive(Default)]
struct Sending {
    units: Vec<Unit>,
    bytes: usize,
    is_full: bool,
}

impl Sending {
    /// Adds planned units, with their frozen bytes, as long as the request has room. The rest is
    /// sent with the next exchange.
    fn add(&mut self, session: &mut Session<'_>, ids: &[UnitId]) -> Result<(), Error> {
        let (mut view, _) = session.view();
        for id in ids {
            if self.is_full {
                break;
            }
            let Some(row) = view.unit(id)? else { continue };
            let unit = thaw(&mut view, *id, &row).map_err(Error::not_frozen)?;
            self.bytes += unit.size();
            self.is_full = self.bytes > UNITS_BYTES && !self.units.is_empty();
            if !self.is_full {
                self.units.push(unit);
            }
        }
        Ok(())
    }
}

/// The most bytes of units in a request, whatever the app sets; a single unit may exceed it. The
/// rest of what a server reads is for the head claim and the cursors.
const UNITS_BYTES: usize = limits::REQUEST_BYTES - limits::REQUEST_BYTES / 4;

/// Removes the first group that is not sent now, and all groups behind it: they may have to be sent
/// after it, and are planned anew.
fn keep_up_to_the_first_that_goes_out(groups: &mut Vec<Group>, stays: impl Fn(&Group) -> bool) {
    let most = groups.iter().position(|group| !stays(group)).unwrap_or(groups.len());
    groups.truncate(most);
}

/// Returns whether the ops of a group are still the first waiting ops of their records, and nothing
/// holds any of them.
fn stands_as_planned(tail: &Tail, group: &Group) -> bool {
    let goes = |place: &OpPlace| {
        let unit = tail.unit_of(*place);
        let is_parked = tail.op(*place).is_none_or(|row| tail.park_of(&row.op).is_some());
        !is_parked && (unit.is_none() || unit == group.absorbs)
    };
    group.records.iter().all(|(key, places)| {
        let waiting = tail.ops_of(key).filter(|place| !tail.is_dead(*place)).take(places.len());
        waiting.eq(places.iter().copied()) && places.iter().all(goes)
    })
}

/// Claims the head of the log, or as much of the log as one exchange carries, on top of the anchor.
fn claim(session: &mut Session<'_>, state: &StateRow) -> Result<Option<HeadClaim>, Error> {
    let Some(head) = session.head() else { return Ok(None) };
    // What lies between a receipt and what is left of the log is gone, so it cannot be claimed.
    let is_left = |anchor: &Receipt| state.trimmed.is_none_or(|upto| anchor.seq >= upto);
    let Some(anchor) = state.anchor.filter(is_left) else {
        // The server records the first head of an epoch without a check. It may have recorded one
        // already, and its answer was lost.
        let most = limits::ANCHOR_DIGESTS as u64;
        let trimmed = state.trimmed.map_or(0, |upto| upto.next().number());
        let from = head.seq.number().saturating_add(1).saturating_sub(most);
        let from = from.max(state.epoch_from.number()).max(trimmed);
        let entries = entries_from(session.entries()?, Seq::new(from));
        let contents =
            entries.map(|entry| Ok(entry?.content)).collect::<Result<Vec<_>, Error>>()?;
        return Ok(Some(HeadClaim { anchor: None, contents, seq: head.seq, hash: head.hash }));
    };
    let mut contents = Vec::new();
    let mut last = anchor;
    for entry in entries_from(session.entries()?, anchor.seq.next()).take(limits::ANCHOR_DIGESTS) {
        let entry = entry?;
        contents.push(entry.content);
        last = Receipt { seq: entry.header.seq, hash: entry.hash };
    }
    Ok(Some(HeadClaim { anchor: Some(anchor), contents, seq: last.seq, hash: last.hash }))
}
