//! The two ends of an exchange at a device, as `src/exchange` does them.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use fieldbook_core::entry::{Control, Decision, Draft, Items, Meta};
use fieldbook_core::limits;
use fieldbook_core::protocol::{ExchangeAnswer, ExchangeRequest, Outcome};
use fieldbook_core::rules::View;
use fieldbook_core::rules::answer::{Answered, Reoffer, decide_answer, entries};
use fieldbook_core::rules::belonging::{is_behind, lifted, stranger, waits_for_owner};
use fieldbook_core::rules::clock::{ServerTime, observe};
use fieldbook_core::rules::credible::{KnownOfServer, credible, drop_unasked};
use fieldbook_core::rules::failure::{freed, refutes};
use fieldbook_core::rules::freeze::{freeze, thaw};
use fieldbook_core::rules::inspect::NoInspection;
use fieldbook_core::rules::news::{News, drop_late_cursors, ends_rereading, is_news, keep_news};
use fieldbook_core::rules::parks::only_news;
use fieldbook_core::rules::plan::{Plan, PlanInput, plan};
use fieldbook_core::rules::restamp::{KnownTimes, may_be_ahead, restamp};
use fieldbook_core::rules::restore::{bring_back, offer, offer_missing};
use fieldbook_core::{Cursor, DeviceId, EntityType, Hlc, RequestId, UnitId};
use fieldbook_projections::Tables;

use super::{Device, Job, Moment, store};
use crate::walk::law::{Broken, Law};

/// The number of changes that a device asks for: a small world has fewer.
const PAGE: u32 = 100;

impl Device {
    /// Plans the next units.
    pub(in crate::walk) fn plan(&self, moment: Moment<'_>) -> Plan {
        plan(&PlanInput {
            tail: &self.tail,
            schema: moment.schema,
            parks: &self.tables.state.parks,
            actor: moment.actor,
            now: moment.wall,
            batch_ops: limits::BATCH_OPS,
            batch_bytes: limits::BATCH_BYTES,
            unmetered: true,
            inspect: &NoInspection,
        })
    }

    /// Freezes the next units and makes the request. None: there is nothing to send or to ask.
    pub(in crate::walk) fn prepare(
        &mut self,
        moment: Moment<'_>,
        push: bool,
    ) -> Result<Option<ExchangeRequest>, Broken> {
        let state = &self.tables.state;
        if waits_for_owner(state) {
            let cursors = if is_behind(state) { self.cursors() } else { BTreeMap::new() };
            return Ok(Some(self.empty_request(moment, cursors, 0)));
        }
        loop {
            let plan = if push { self.plan(moment) } else { Plan::default() };
            let (cursors, others) = self.position();
            if plan.groups.is_empty() && plan.again.is_empty() {
                let request = self.empty_request(moment, cursors, PAGE);
                return Ok(Some(ExchangeRequest { others: Some(others), ..request }));
            }
            let units = self.job(moment, |job| job.freeze(&plan))?;
            if !units.is_empty() {
                let tenant = self.tables.state.tenant;
                let request = self.empty_request(moment, cursors, PAGE);
                return Ok(Some(ExchangeRequest {
                    units,
                    tenant,
                    others: Some(others),
                    ..request
                }));
            }
        }
    }

    fn position(&self) -> (BTreeMap<EntityType, Cursor>, Cursor) {
        match self.others() {
            Some(others) => (BTreeMap::new(), others),
            None => (self.cursors(), Cursor::default()),
        }
    }

    fn cursors(&self) -> BTreeMap<EntityType, Cursor> {
        self.tables
            .cursors
            .iter()
            .map(|(entity, row)| (entity.clone(), row.cursor.clone()))
            .collect()
    }

    /// Returns the cursor of all entity types, if it belongs to the server that the book knows.
    pub(in crate::walk) fn others(&self) -> Option<Cursor> {
        let state = &self.tables.state;
        let known = self.others.as_ref();
        let known = known.filter(|(of, _)| !state.rereading && state.server == Some(*of));
        known.map(|(_, others)| others.clone())
    }

    fn empty_request(
        &self,
        moment: Moment<'_>,
        cursors: BTreeMap<EntityType, Cursor>,
        page_limit: u32,
    ) -> ExchangeRequest {
        let state = &self.tables.state;
        let device = state.device.unwrap_or(DeviceId::from_bytes([0; 16]));
        let request = RequestId::from_bytes([self.number; 16]);
        let server_epoch = state.server.map(|(_, epoch)| epoch);
        let request = ExchangeRequest::new(request, device, self.epoch(), moment.actor.clone());
        ExchangeRequest { server_epoch, cursors, page_limit, ..request }
    }

    /// Applies an answer.
    pub(in crate::walk) fn hear(
        &mut self,
        moment: Moment<'_>,
        request: &ExchangeRequest,
        mut answer: ExchangeAnswer,
    ) -> Result<(), Broken> {
        let state = self.tables.state.clone();
        let stranger = stranger(&state, &answer);
        if !stranger.is_empty() {
            return self.decide(moment, stranger);
        }
        let known = KnownOfServer {
            anchor: state.anchor,
            highest: state.highest,
            epoch: state.epoch,
            epoch_from: state.epoch_from,
        };
        if let Err(code) = credible(request, &answer, &known) {
            return Err(Broken::new(Law::Sound, format!("an answer is not credible: {code}")));
        }
        drop_unasked(request, &mut answer);
        self.heard = Some(ServerTime::heard(answer.server_time, moment.now()));
        self.lower_stamps(moment, &answer)?;
        self.decide(moment, lifted(&state))?;
        if self.tables.state.rereading {
            self.others = None;
        }
        let (cursors, stands) = self.position();
        let began_here = request.others == Some(stands) && request.cursors == cursors;
        let (server, others) = ((answer.server, answer.server_epoch), answer.others.take());
        let mut passed_over = false;
        if is_news(&self.tables.state, request, &answer, moment.wall) {
            let Ok(()) = drop_late_cursors(
                request,
                began_here,
                || Ok::<_, Infallible>(self.cursors()),
                &mut answer,
            );
            passed_over = self.job(moment, |job| job.take(request, &answer))?;
        }
        if let Some(others) = others.filter(|_| began_here && !passed_over) {
            self.others = Some((server, others));
        }
        let parks = self.tables.state.parks.iter().map(|(scope, _)| scope);
        let refuted = parks.filter(|scope| refutes(scope, moment.actor));
        let lifted = refuted.map(|scope| Decision::Unparked { scope: scope.clone() }).collect();
        self.decide(moment, lifted)
    }

    /// Appends decisions that are not decided already.
    fn decide(&mut self, moment: Moment<'_>, decisions: Vec<Decision>) -> Result<(), Broken> {
        let news = only_news(&self.tables.state, &self.tail, decisions);
        if news.is_empty() {
            return Ok(());
        }
        self.job(moment, |job| {
            job.append(Draft::control(Control::Decided(news)), Hlc::ZERO)?;
            Ok(())
        })
    }

    fn lower_stamps(&mut self, moment: Moment<'_>, answer: &ExchangeAnswer) -> Result<(), Broken> {
        if !may_be_ahead(&self.tail, answer.server_time) {
            return Ok(());
        }
        let is_sent_back =
            |outcome: &Outcome| matches!(outcome, Outcome::Stale { .. } | Outcome::Ahead);
        let sent_back = answer.outcomes.iter().filter(|answered| is_sent_back(&answered.outcome));
        let sent_back: BTreeSet<UnitId> = sent_back.map(|told| told.unit).collect();
        let server = answer.server_time;
        self.job(moment, |job| {
            let before = match job.device.tables.state.server_time {
                Some((server, _)) => Some(server),
                None => job.device.log.first().map(|entry| entry.header.wall),
            };
            let times = KnownTimes { server, now: moment.now(), before };
            let tail = job.device.tail.clone();
            let ops = restamp(&mut job.view().0, &tail, &times, &sent_back).map_err(store)?;
            if !ops.is_empty() {
                let decision = Decision::Restamped { server_time: server, ops };
                job.append(Draft::control(Control::Decided(vec![decision])), Hlc::ZERO)?;
            }
            Ok(())
        })
    }
}

impl Job<'_> {
    /// Freezes the planned units and finds the unanswered ones again.
    fn freeze(&mut self, plan: &Plan) -> Result<Vec<fieldbook_core::protocol::Unit>, Broken> {
        let mut ids = plan.again.clone();
        let (seq, now) = (self.next_seq(), self.moment.wall);
        let frozen = {
            let (mut view, mut drawn) = self.view();
            freeze(&mut view, &plan.groups, seq, now, &mut drawn)
                .map_err(|error| Broken::unsound(&error))?
        };
        ids.extend(frozen.planned.units.iter().map(|unit| unit.id));
        for draft in frozen.into_drafts() {
            self.append(draft, Hlc::ZERO)?;
        }
        let (mut view, _) = self.view();
        let mut units = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(row) = view.unit(&id).map_err(store)? else { continue };
            units.push(thaw(&mut view, id, &row).map_err(|error| Broken::unsound(&error))?);
        }
        Ok(units)
    }

    /// Applies an answer: facts, decisions, and offers. Returns whether its page leaves out changes
    /// of units that are no longer unanswered.
    fn take(&mut self, request: &ExchangeRequest, answer: &ExchangeAnswer) -> Result<bool, Broken> {
        let last = self.device.head();
        let schema = self.moment.schema;
        let wall = self.moment.wall;
        let answered = {
            let (mut view, mut drawn) = self.view();
            decide_answer(&mut view, schema, answer, wall, &mut drawn).map_err(store)?
        };
        let state = self.device.tables.state.clone();
        let News { mut answered, tells, passed_over } =
            keep_news(&state, answer, wall, false, answered);
        let read_to_end = ends_rereading(&state, request, answer);
        answered.decisions.extend(freed(&self.device.tail, &answered.decisions, wall));
        let Answered { upstream, upstream_items, decisions, decision_items, reoffers, .. } =
            answered;
        let mut drafts = if tells { entries(answer, upstream, upstream_items) } else { Vec::new() };
        if !decisions.is_empty() {
            drafts.push(Draft {
                meta: Meta::Control(Control::Decided(decisions)),
                items: decision_items,
            });
        }
        let seen = answer.changes.iter().map(|change| change.edited_at).max().unwrap_or(Hlc::ZERO);
        for (number, draft) in drafts.into_iter().enumerate() {
            let checked = draft.checked().map_err(|error| Broken::unsound(&error))?;
            let hlc = if number == 0 && tells {
                observe(last, seen, answer.server_time)
            } else {
                Hlc::ZERO
            };
            self.append(checked.into(), hlc)?;
        }
        self.offer_again(reoffers, read_to_end)?;
        Ok(passed_over)
    }

    /// Writes the records that a former epoch of the server had, and this one lacks, as ops of ours
    /// with their old stamps.
    fn offer_again(&mut self, reoffers: Vec<Reoffer>, read_to_end: bool) -> Result<(), Broken> {
        for older in reoffers {
            let row = self.row(&older.key);
            if let Some(offer) = offer(older, &row).map_err(|fault| Broken::unsound(&fault))? {
                self.write(offer.mutation, Some(offer.edited_at))?;
            }
        }
        if !read_to_end {
            return Ok(());
        }
        let (mut missing, mut decisions, mut items) = (Vec::new(), Vec::new(), Items::default());
        for key in self.device.tables.unconfirmed().map_err(store)? {
            let row = self.row(&key);
            let (confirmed, tail) = self.tail_ops(&row)?;
            let brought_back = bring_back(&key, &confirmed, &tail, &mut items, &mut self.view().1);
            decisions.extend(brought_back.map_err(|fault| Broken::unsound(&fault))?);
            missing.extend(offer_missing(key, &row).map_err(|fault| Broken::unsound(&fault))?);
        }
        decisions.push(Decision::ServerRead);
        self.append(Draft { meta: Meta::Control(Control::Decided(decisions)), items }, Hlc::ZERO)?;
        for offer in missing {
            self.write(offer.mutation, Some(offer.edited_at))?;
        }
        Ok(())
    }
}
