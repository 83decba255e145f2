//! Syncing: the book's side of the exchange. What is decided here is decided by core's rules; this file reads what they
//! need, appends what they decide, and builds requests.
//!
//! ```text
//!   prepare   plan (rule) ─► freeze (rule) ─► append Planned, durable ─► request
//!   accept    answer ─► take_answer (rule) ─► append Upstream, Decided, one commit
//!   fail      what must be durable of a failed exchange ─► append Decided
//! ```
//!
//! Invariants:
//! 1. The first byte of a unit leaves after its `Planned` entry is durable; what leaves again is checked by its digest.
//! 2. An answer is one commit: the page, the cursors, the outcomes and what follows.
//! 3. An answer with nothing new writes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use fieldbook_core::entry::{Control, Decision, Draft, Items, Meta, ParkScope, Receipt, Upstream};
use fieldbook_core::limits;
use fieldbook_core::log::{StoreError, entries_from};
use fieldbook_core::protocol::{
    ExchangeAnswer, ExchangeRequest, Failure, HeadClaim, Outcome, PROTOCOL, Unit,
};
use fieldbook_core::rows::StateRow;
use fieldbook_core::rules::answer::{Reoffer, Tally, take_answer};
use fieldbook_core::rules::clock::observe;
use fieldbook_core::rules::freeze::{freeze, thaw};
use fieldbook_core::rules::plan::{Plan, PlanInput, plan};
use fieldbook_core::rules::upcast::is_due;
use fieldbook_core::rules::{View, retry};
use fieldbook_core::{
    Cursor, DeviceId, EntityType, Epoch, FieldsJson, Hlc, Mutation, OpId, RequestId, Seq, UnitId,
};
use fieldbook_projections::Tables;
use fieldbook_transport::{Activity, Ask, Desk, Next, Remote, RunError, RunOptions, SyncReport, Taken, run};

use crate::book::{Book, Shared, read};
use crate::error::Error;
use crate::inspect::Inspector;
use crate::maintain::upcast_ops;
use crate::write::reoffer;
use crate::writer::Session;

impl Book {
    /// Syncs until nothing is left to send or to fetch, or something stops it; the report says which.
    ///
    /// Two syncs of one book take turns. Dropping the future at any point loses nothing.
    ///
    /// # Errors
    /// [`Error`] if the book itself fails. A server that cannot be reached or refuses is in the report, not an error.
    pub async fn sync(&self, remote: &dyn Remote, options: &RunOptions) -> Result<SyncReport, Error> {
        let mut throttle = self.shared.syncing.lock().await;
        let clock = Arc::clone(&self.shared.clock);
        run(&self.shared, remote, clock.as_ref(), options, &mut throttle).await.map_err(|error| match error {
            RunError::Desk { source } => source,
            _ => Error::Interrupted,
        })
    }

    /// Plans and freezes what would be sent now and returns the request, without sending it. With [`Self::take`] it drives
    /// an exchange by hand: for tests, and for transports of an app's own.
    ///
    /// # Errors
    /// [`Error`] if the book fails.
    pub fn prepare(&self, ask: &Ask) -> Result<Next, Error> {
        self.shared.prepare(ask)
    }

    /// Takes an answer in.
    ///
    /// # Errors
    /// [`Error`] if the book fails.
    pub fn take(&self, request: &ExchangeRequest, answer: ExchangeAnswer) -> Result<Taken, Error> {
        self.shared.accept(request, answer)
    }

    /// Takes note that an exchange failed as a whole: the third call for whoever drives exchanges by hand.
    ///
    /// # Errors
    /// [`Error`] if the book fails.
    pub fn fail(&self, request: &ExchangeRequest, failure: &Failure) -> Result<Taken, Error> {
        self.shared.fail_exchange(request, failure)
    }
}

impl Desk for Shared {
    type Error = Error;

    fn prepare(&self, ask: &Ask) -> Result<Next, Error> {
        let _span = tracing::debug_span!("plan").entered();
        self.check_alive()?;
        let page_limit = if ask.pull || ask.push { ask.page_limit } else { 0 };
        loop {
            let plan = if ask.push {
                self.plan(&self.tail(), ask.batch_ops, ask.batch_bytes, true)
            } else {
                Plan::default()
            };
            self.review_plan(&plan);
            let cursors = self.cursors()?;
            if plan.groups.is_empty() && plan.again.is_empty() {
                return if ask.pull && !self.is_parked() {
                    Ok(Next::Exchange(self.empty_request(cursors, page_limit)?))
                } else {
                    Ok(Next::Idle { next_wake: plan.wake })
                };
            }
            let (ask, unmetered) = (ask.clone(), self.connectivity.is_unmetered());
            let request = self.write_in_turn(move |session| {
                request_with_units(session, &ask, unmetered, cursors, page_limit)
            })?;
            if !request.units.is_empty() {
                return Ok(Next::Exchange(request));
            }
            // Nothing of what was planned need be sent: it has ended, and what waited behind it may go.
        }
    }

    fn accept(&self, request: &ExchangeRequest, mut answer: ExchangeAnswer) -> Result<Taken, Error> {
        let _span = tracing::debug_span!("exchange", request = %request.request, units = request.units.len())
            .entered();
        self.check_alive()?;
        if answer.request != request.request {
            return Ok(Taken::default());
        }
        let more = answer.more;
        self.hear_server(answer.server_time, self.clock.now());
        let known = self.state().server;
        let taken = if known.is_some_and(|known| known != (answer.server, answer.server_epoch)) {
            let scope = ParkScope::Server(answer.server, answer.server_epoch);
            self.decide(vec![Decision::Parked { scope, code: "other_server".to_owned() }])?;
            Taken { parked: true, ..Taken::default() }
        } else if let Some(anchored) = answer.forked {
            self.start_epoch(anchored)?;
            Taken { units_stale: 1, ..Taken::default() }
        } else if self.is_news(&answer) {
            self.drop_late_cursors(request, &mut answer)?;
            let tally = self.write_in_turn(move |session| take(session, &answer))?;
            Taken { more, ..taken(&tally) }
        } else {
            Taken { more, ..Taken::default() }
        };
        Ok(taken)
    }

    fn follow_up(&self, request: &ExchangeRequest, answer: &ExchangeAnswer) -> Option<ExchangeRequest> {
        let mut cursors = request.cursors.clone();
        cursors.extend(answer.cursors.iter().map(|(entity, cursor)| (entity.clone(), cursor.clone())));
        let request_id = RequestId::new(self.clock.now().wall, &mut *self.ids());
        Some(ExchangeRequest {
            request: request_id,
            head: None,
            units: Vec::new(),
            cursors,
            ..request.clone()
        })
    }

    fn fail(&self, request: &ExchangeRequest, failure: &Failure) -> Result<Taken, Error> {
        self.fail_exchange(request, failure)
    }

    fn report(&self, activity: &Activity) {
        self.show(activity);
    }
}

impl Shared {
    /// Decides what must be durable of a failed exchange.
    fn fail_exchange(&self, request: &ExchangeRequest, failure: &Failure) -> Result<Taken, Error> {
        let alone = match request.units.as_slice() {
            [unit] => Some(unit.id),
            _ => None,
        };
        let actor = request.actor.clone();
        let park = |scope, code: &str| vec![Decision::Parked { scope, code: code.to_owned() }];
        let decisions = match (failure, alone) {
            (Failure::Unauthorized { code }, _) => park(ParkScope::Actor(actor), code),
            (Failure::UpgradeRequired { code }, _) => park(ParkScope::Protocol, code),
            (Failure::TooLarge, Some(unit)) => return self.give_up(unit, "too_large".to_owned()),
            // Of what a server refuses as a whole, only this can be the fault of a lone unit.
            (Failure::Refused { code }, Some(unit)) if code == "bad_request" => {
                return self.give_up(unit, code.clone());
            }
            (Failure::Refused { code }, _) if code == "server_behind" => match self.state().server {
                Some((server, epoch)) => park(ParkScope::Server(server, epoch), code),
                None => return Ok(Taken::default()),
            },
            (Failure::Transient { code, retry_after, marked: true }, Some(unit)) => {
                return self.count_try(unit, code.clone(), *retry_after);
            }
            _ => return Ok(Taken::default()),
        };
        self.decide(decisions)?;
        Ok(Taken { parked: true, ..Taken::default() })
    }

    fn is_parked(&self) -> bool {
        let actor = read(&self.actor).clone();
        self.state().parks.iter().any(|(scope, _)| match scope {
            ParkScope::Server(..) | ParkScope::Protocol => true,
            ParkScope::Actor(parked) => *parked == actor,
            _ => false,
        })
    }

    fn cursors(&self) -> Result<BTreeMap<EntityType, Cursor>, Error> {
        let snapshot = fieldbook_projections::Snapshot::new(self.store.begin_read()?);
        Ok(snapshot.cursors()?.into_iter().map(|(entity, row)| (entity, row.cursor)).collect())
    }

    fn empty_request(
        &self,
        cursors: BTreeMap<EntityType, Cursor>,
        page_limit: u32,
    ) -> Result<ExchangeRequest, Error> {
        let (device, epoch) = identity(&self.state())?;
        let now = self.clock.now().wall;
        let request = RequestId::new(now, &mut *self.ids());
        let actor = read(&self.actor).clone();
        Ok(ExchangeRequest {
            protocol: PROTOCOL,
            request,
            device,
            epoch,
            actor,
            head: None,
            units: Vec::new(),
            cursors,
            page_limit,
        })
    }

    /// A page that begins elsewhere than where this book now stands is late: its records are taken by their versions, but it
    /// moves no cursor, since nobody but the server knows whether that would be forward.
    fn drop_late_cursors(&self, request: &ExchangeRequest, answer: &mut ExchangeAnswer) -> Result<(), Error> {
        if !answer.cursors.is_empty() {
            let known = self.cursors()?;
            answer.cursors.retain(|entity, _| request.cursors.get(entity) == known.get(entity));
        }
        Ok(())
    }

    /// Returns whether an answer says anything that is not known.
    fn is_news(&self, answer: &ExchangeAnswer) -> bool {
        let anchored = self.state().anchor;
        !answer.outcomes.is_empty()
            || !answer.changes.is_empty()
            || !answer.cursors.is_empty()
            || answer.receipt.is_some_and(|receipt| anchored != Some(receipt))
            || (self.state().rereading && !answer.more)
    }

    /// Appends decisions that are not decided already.
    pub(crate) fn decide(&self, decisions: Vec<Decision>) -> Result<(), Error> {
        let news: Vec<_> = {
            let state = self.state();
            let is_known = |decision: &Decision| match decision {
                Decision::Parked { scope, .. } => state.parks.iter().any(|(parked, _)| parked == scope),
                Decision::Unparked { scope } => !state.parks.iter().any(|(parked, _)| parked == scope),
                _ => false,
            };
            decisions.into_iter().filter(|decision| !is_known(decision)).collect()
        };
        if news.is_empty() {
            return Ok(());
        }
        self.write_in_turn(move |session| {
            session.append(Draft::control(Control::Decided(news)), Hlc::ZERO)?;
            Ok(())
        })
    }

    /// The server knows another continuation of this log: the file is a copy. It goes on as a new life, with nothing lost.
    fn start_epoch(&self, anchored: Receipt) -> Result<(), Error> {
        self.write_in_turn(move |session| {
            let known = entries_from(session.entries(), anchored.seq).next().transpose()?;
            if known.is_some_and(|entry| entry.hash == anchored.hash) {
                // The head that the server has is of this very log: the verdict is on a request from before that left.
                return Ok(());
            }
            tracing::warn!("this log is a restored or cloned copy: it goes on in a new epoch");
            let epoch = Epoch::new(session.now.wall, session.randomness);
            session.epoch = epoch;
            session.append(
                Draft::control(Control::EpochStarted { epoch, anchored: Some(anchored) }),
                Hlc::ZERO,
            )?;
            Ok(())
        })
    }

    fn give_up(&self, unit: UnitId, code: String) -> Result<Taken, Error> {
        self.write_in_turn(move |session| {
            let Some(row) = session.tables.unit(&unit)? else { return Ok(Taken::default()) };
            let tries = row.tries.saturating_add(1);
            let decision = Decision::DeadLettered { unit, planned: row.planned, tries, code, message: None };
            session.append(Draft::control(Control::Decided(vec![decision])), Hlc::ZERO)?;
            let ops = row.changes.iter().map(|change| change.ops.len()).sum::<usize>();
            Ok(Taken { ops_dead: u32::try_from(ops).unwrap_or(u32::MAX), ..Taken::default() })
        })
    }

    /// A whole exchange with one unit that our server could not treat counts as that unit's try, so that a unit which
    /// brings the server down does not hold up the others for ever.
    fn count_try(
        &self,
        unit: UnitId,
        code: String,
        asked: Option<std::time::Duration>,
    ) -> Result<Taken, Error> {
        let tries = {
            let tail = self.tail();
            let Some(unit) = tail.unit(&unit) else { return Ok(Taken::default()) };
            unit.tries.saturating_add(1)
        };
        if tries >= limits::TRIES {
            return self.give_up(unit, code);
        }
        self.write_in_turn(move |session| {
            let Some(row) = session.tables.unit(&unit)? else { return Ok(Taken::default()) };
            let retry_at = session.now.wall.plus(retry::backoff(tries, asked, session.randomness));
            let decision = Decision::Tried { unit, planned: row.planned, tries, code, retry_at };
            session.append(Draft::control(Control::Decided(vec![decision])), Hlc::ZERO)?;
            Ok(Taken { units_tried_again: 1, ..Taken::default() })
        })
    }
}

/// Plans again on the tail as this round has it (what was planned on may have been undone meanwhile), freezes new units,
/// finds those under way again, and builds the request.
fn request_with_units(
    session: &mut Session<'_>,
    ask: &Ask,
    unmetered: bool,
    cursors: BTreeMap<EntityType, Cursor>,
    page_limit: u32,
) -> Result<ExchangeRequest, Error> {
    let state = session.tables.state()?;
    let (tail, schema, actor, now) = (session.tail, session.schema, session.actor.clone(), session.now.wall);
    let inspector = Inspector::new(session.view().0, schema);
    let input = PlanInput {
        tail,
        schema,
        parks: &state.parks,
        actor: &actor,
        now,
        batch_ops: ask.batch_ops,
        batch_bytes: ask.batch_bytes,
        unmetered,
        heed_backoff: true,
        inspect: &inspector,
    };
    let Plan { mut groups, again, .. } = plan(&input);
    drop(inspector);
    // Jobs before this one in the same round are not in the tail yet: what they ended or planned is left out.
    groups.retain(|group| {
        !group.records.iter().flat_map(|(_, places)| places).any(|place| session.has_touched(*place))
    });
    // What was made under an older schema version, and was under way when the book was opened.
    let places = groups.iter().flat_map(|group| &group.records);
    let places = places.flat_map(|(key, places)| places.iter().map(|place| (key.clone(), *place)));
    let old: Vec<_> = places.filter(|(_, place)| is_due(session.schema, session.tail, *place)).collect();
    if !old.is_empty() {
        upcast_ops(session, &old)?;
        let parks = session.tables.state()?.parks;
        let is_parked = |op: &OpId| parks.iter().any(|(scope, _)| *scope == ParkScope::Op(*op));
        groups.retain(|group| {
            let places = group.records.iter().flat_map(|(_, places)| places);
            !places.filter_map(|place| session.tail.op(*place)).any(|row| is_parked(&row.op))
        });
    }
    let mut ids = again;
    let (seq, now) = (session.next_seq(), session.now.wall);
    let frozen = {
        let (mut view, randomness) = session.view();
        freeze(&mut view, &groups, seq, now, randomness)?
    };
    if !frozen.planned.units.is_empty() || !frozen.planned.annulled.is_empty() {
        ids.extend(frozen.planned.units.iter().map(|unit| unit.id));
        let meta = Meta::Control(Control::Planned(frozen.planned));
        session.append(Draft { meta, items: frozen.items }, Hlc::ZERO)?;
    }
    let mut units = Vec::with_capacity(ids.len());
    {
        let (mut view, _) = session.view();
        for id in ids {
            if let Some(row) = view.unit(&id)? {
                let unit: Unit = thaw(&mut view, id, &row)?;
                units.push(unit);
            }
        }
    }
    let state = session.tables.state()?;
    let (device, epoch) = identity(&state)?;
    let head = if units.is_empty() { None } else { claim(session, &state)? };
    let request = RequestId::new(session.now.wall, session.randomness);
    let actor = session.actor.clone();
    Ok(ExchangeRequest {
        protocol: PROTOCOL,
        request,
        device,
        epoch,
        actor,
        head,
        units,
        cursors,
        page_limit,
    })
}

/// Claims the head of the log, or as much of it as one exchange carries, on top of what the server has anchored.
fn claim(session: &Session<'_>, state: &StateRow) -> Result<Option<HeadClaim>, Error> {
    let Some(head) = session.head() else { return Ok(None) };
    let Some(anchor) = state.anchor else {
        // The server takes the first head that it sees of an epoch as given. It may have seen one, and its answer was lost.
        let most = limits::ANCHOR_DIGESTS as u64;
        let from = head.seq.number().saturating_add(1).saturating_sub(most).max(state.epoch_from.number());
        let entries = entries_from(session.entries(), Seq::new(from));
        let contents = entries.map(|entry| Ok(entry?.content)).collect::<Result<Vec<_>, Error>>()?;
        return Ok(Some(HeadClaim { anchor: None, contents, seq: head.seq, hash: head.hash }));
    };
    let mut contents = Vec::new();
    let mut last = anchor;
    for entry in entries_from(session.entries(), anchor.seq.next()).take(limits::ANCHOR_DIGESTS) {
        let entry = entry?;
        contents.push(entry.content);
        last = Receipt { seq: entry.header.seq, hash: entry.hash };
    }
    Ok(Some(HeadClaim { anchor: Some(anchor), contents, seq: last.seq, hash: last.hash }))
}

/// Takes an answer in: facts first, then what follows from them.
fn take(session: &mut Session<'_>, answer: &ExchangeAnswer) -> Result<Tally, Error> {
    let (schema, now, last) =
        (session.schema, session.now.wall, session.head().map_or(Hlc::ZERO, |head| head.hlc));
    let mut answered = {
        let (mut view, randomness) = session.view();
        take_answer(&mut view, schema, answer, now, randomness)?
    };
    if passes_over(answer, &answered.upstream) {
        answered.upstream.cursors.clear();
    }
    if answered.upstream.receipt == session.tables.state()?.anchor {
        answered.upstream.receipt = None;
    }
    let read_to_end = session.tables.state()?.rereading && !answer.more;
    let (is_empty, tally) = (answered.is_empty(), answered.tally);
    if is_empty && !read_to_end {
        return Ok(tally);
    }
    let seen = answer.changes.iter().map(|change| change.edited_at).max().unwrap_or(Hlc::ZERO);
    let hlc = observe(last, seen, answer.server_time);
    if !is_empty {
        let draft = Draft { meta: Meta::Upstream(answered.upstream), items: answered.upstream_items };
        session.append(draft, hlc)?;
    }
    if !answered.decisions.is_empty() {
        let _span = tracing::debug_span!("rebase", decisions = answered.decisions.len()).entered();
        let meta = Meta::Control(Control::Decided(answered.decisions));
        session.append(Draft { meta, items: answered.decision_items }, Hlc::ZERO)?;
    }
    offer_again(session, answered.reoffers, read_to_end)?;
    Ok(tally)
}

/// After a server was restored: what its former life had confirmed and this one lacks is written as ops of ours, under the
/// stamps it had, so that it is sent again and nothing is dropped.
fn offer_again(session: &mut Session<'_>, reoffers: Vec<Reoffer>, read_to_end: bool) -> Result<(), Error> {
    for Reoffer { key, image, edited_at } in reoffers {
        let row = session.tables.record(&key)?.unwrap_or_default();
        let now = row.image().map(FieldsJson::to_fields).transpose().map_err(Error::damaged)?;
        let mutation = match (image, now) {
            (Some(image), Some(now)) if row.tail.is_empty() => Mutation::update(key, now.patch_to(&image)),
            (Some(image), None) if row.tail.is_empty() => Mutation::create(key, image),
            (None, Some(_)) if row.tail.is_empty() => Mutation::delete(key),
            // What stands in the tail is newer than what is offered again.
            _ => continue,
        };
        reoffer(session, mutation, edited_at)?;
    }
    if !read_to_end {
        return Ok(());
    }
    let mut lost = Vec::new();
    for key in session.tables.unconfirmed()? {
        let Some(row) = session.tables.record(&key)? else { continue };
        if let (true, Some(confirmed)) = (row.tail.is_empty(), row.confirmed.as_ref()) {
            let image = confirmed.fields.to_fields().map_err(Error::damaged)?;
            lost.push((Mutation::create(key, image), confirmed.edited_at));
        }
    }
    session.append(Draft::control(Control::Decided(vec![Decision::ServerRead])), Hlc::ZERO)?;
    lost.into_iter().try_for_each(|(mutation, edited_at)| reoffer(session, mutation, edited_at))
}

/// Returns whether an answer that comes late tells of a unit that is no longer under way. The page passes over what its own
/// units changed, so that it reads on only for who takes their outcomes.
fn passes_over(answer: &ExchangeAnswer, upstream: &Upstream) -> bool {
    answer.outcomes.iter().any(|told| {
        matches!(told.outcome, Outcome::Applied { .. } | Outcome::Duplicate { .. })
            && !upstream.outcomes.iter().any(|taken| taken.unit == told.unit)
    })
}

fn taken(tally: &Tally) -> Taken {
    Taken {
        units_acked: tally.units_acked,
        ops_acked: tally.ops_acked,
        units_stale: tally.units_stale,
        units_tried_again: tally.units_tried,
        ops_dead: tally.ops_dead,
        conflicts: tally.conflicts,
        changes: tally.changes,
        more: false,
        parked: tally.parked,
    }
}

fn identity(state: &StateRow) -> Result<(DeviceId, Epoch), Error> {
    let missing = || StoreError::Corrupt {
        what: "the book does not know which device it is",
        seq: Some(Seq::ZERO),
        source: None,
    };
    Ok((state.device.ok_or_else(missing)?, state.epoch.ok_or_else(missing)?))
}

/// Makes an entry's erasable text, for verbs.
pub(crate) fn text_item(session: &mut Session<'_>, text: &str) -> (Items, u32) {
    let mut items = Items::default();
    let index = items.add(text, session.randomness);
    (items, index)
}
