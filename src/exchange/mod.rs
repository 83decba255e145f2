//! The book's side of the exchange. Core's rules decide; this module reads their input, appends
//! their decisions, and builds requests.
//!
//! ```text
//!   prepare   plan (rule) ─► freeze (rule) ─► append Planned, durable ─► request
//!   apply     answer ─► decide_answer (rule) ─► append Upstream, Decided, one commit
//!   fail      failure (rule) ─► append Decided, if it stops something
//!   isolate   failure (rule) ─► append Decided: which units are suspected
//! ```
//!
//! `request` builds requests, `answer` applies answers, `failure` handles an exchange without an
//! answer.
//!
//! Invariants:
//! 1. The first byte of a unit is sent after its `Planned` entry is durable. A unit that is sent
//!    again is checked by its digest.
//! 2. An answer is one commit: the page, the cursors, the outcomes and the decisions.
//! 3. An answer without news writes nothing. An answer that is not from the book's server, or that
//!    cannot be true, changes nothing.
//! 4. While the book waits for its own server, a run asks which server answers, and sends nothing
//!    else.

mod answer;
mod failure;
mod position;
mod request;

use std::collections::BTreeMap;
use std::sync::Arc;

use fieldbook_core::entry::{Control, Decision, Draft, Items};
use fieldbook_core::log::StoreError;
use fieldbook_core::protocol::{ExchangeAnswer, ExchangeRequest, Failure};
use fieldbook_core::rows::StateRow;
use fieldbook_core::rules::belonging::{lifted, stranger, waits_for_owner};
use fieldbook_core::rules::credible::{KnownOfServer, credible, drop_unasked};
use fieldbook_core::rules::news::{drop_late_cursors, is_news};
use fieldbook_core::rules::parks::{lifted_by_answer, only_news, stops_pages};
use fieldbook_core::rules::plan::Plan;
use fieldbook_core::tail::TailUnit;
use fieldbook_core::{Actor, DeviceId, Epoch, Hlc, RequestId, Seq};
use fieldbook_transport::{
    Activity, BatchSizer, ExchangeCounts, ExchangeParams, Left, NextStep, Remote, RunError,
    RunOptions, SyncHost, SyncReport, Unanswered, run,
};
use tokio::sync::watch;

use self::answer::{Took, apply};
pub(crate) use self::position::Others;
use self::request::{Planned, request_with_units};
use crate::book::{Book, Shared, read};
use crate::error::Error;
use crate::writer::Session;

impl Book {
    /// Syncs until nothing is left to send or to fetch, or something stops the run. The report has
    /// the reason.
    ///
    /// Two syncs of a book take turns. Dropping the future at any point loses nothing.
    ///
    /// # Errors
    /// [`Error`] if the book itself fails. A server that cannot be reached, or that refuses, is in
    /// the report and no error.
    pub async fn sync(
        &self,
        remote: &dyn Remote,
        options: &RunOptions,
    ) -> Result<SyncReport, Error> {
        let mut sizer = self.shared.syncing.lock().await;
        self.shared.run(remote, options, &mut sizer).await
    }
}

impl Shared {
    /// Runs exchanges. The caller has the lock of running syncs, which has the sizer.
    pub(crate) async fn run(
        self: &Arc<Self>,
        remote: &dyn Remote,
        options: &RunOptions,
        sizer: &mut BatchSizer,
    ) -> Result<SyncReport, Error> {
        // It also runs if this future is dropped in the middle of the run.
        let _ends = EndsRun(self);
        let clock = Arc::clone(&self.clock);
        run(self, remote, clock.as_ref(), options, sizer).await.map_err(|error| match error {
            RunError::Host { source } => source,
            _ => Error::Interrupted,
        })
    }
}

/// An exchange driven by hand, instead of [`Book::sync`]: [`Book::exchange`]. It is for tests, and
/// for an app's own transports that do not fit a [`Remote`].
///
/// ```
/// use fieldbook::sync::protocol::{ExchangeAnswer, ExchangeRequest};
/// use fieldbook::sync::{ExchangeParams, NextStep};
/// use fieldbook::{Book, BookOptions, Error, Fields};
///
/// /// Sends one request to the server and returns its answer.
/// fn carry(request: &ExchangeRequest) -> Option<ExchangeAnswer> {
///     # let _ = request;
///     None // no answer
/// }
///
/// fn exchange(book: &Book) -> Result<(), Error> {
///     let mut ask = ExchangeParams { first: true, push: true, pull: true, batch_ops: 500, batch_bytes: 1 << 20, page_limit: 500 };
///     while let NextStep::Exchange(request) = book.exchange().prepare(&ask)? {
///         // The units are durable now. Without an answer, the next request has the same bytes.
///         let Some(answer) = carry(&request) else { break };
///         let taken = book.exchange().apply_answer(&request, answer)?;
///         ask.pull = taken.more;
///         ask.first = false;
///     }
///     Ok(())
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
/// book.records().create("lead/42".parse()?, Fields::parse(r#"{"name":"Ann"}"#)?)?;
/// exchange(&book)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Exchange<'b> {
    pub(crate) book: &'b Book,
}

impl Exchange<'_> {
    /// Plans and freezes units and returns the request, without sending it. The caller sends it and
    /// passes the answer to [`Self::apply_answer`].
    ///
    /// # Errors
    /// [`Error`] if the book fails.
    pub fn prepare(&self, ask: &ExchangeParams) -> Result<NextStep, Error> {
        SyncHost::prepare(&*self.book.shared, ask)
    }

    /// Applies an answer. An answer that cannot be true is not applied: the exchange has failed,
    /// and [`ExchangeCounts::misbehaved`] has the code.
    ///
    /// # Errors
    /// [`Error`] if the book fails.
    pub fn apply_answer(
        &self,
        request: &ExchangeRequest,
        answer: ExchangeAnswer,
    ) -> Result<ExchangeCounts, Error> {
        let taken = self.book.shared.apply_answer(request, answer);
        self.book.shared.refresh_status();
        taken
    }

    /// Records that an exchange failed as a whole. Call it instead of [`Self::apply_answer`].
    ///
    /// # Errors
    /// [`Error`] if the book fails.
    pub fn fail(
        &self,
        request: &ExchangeRequest,
        failure: &Failure,
    ) -> Result<ExchangeCounts, Error> {
        SyncHost::fail(&*self.book.shared, request, failure)
    }

    /// Records that an exchange with units failed while an exchange without units was answered, so
    /// the units may be what does not get through. `strikes` is the number of failed exchanges with
    /// units in a row; the first one decides nothing yet.
    ///
    /// # Errors
    /// [`Error`] if the book fails.
    pub fn isolate(
        &self,
        request: &ExchangeRequest,
        failure: &Failure,
        strikes: u32,
    ) -> Result<ExchangeCounts, Error> {
        SyncHost::isolate(&*self.book.shared, request, failure, strikes)
    }
}

/// Records the end of a run when it is dropped.
struct EndsRun<'a>(&'a Shared);

impl Drop for EndsRun<'_> {
    fn drop(&mut self) {
        self.0.run_is_over();
    }
}

impl SyncHost for Shared {
    type Error = Error;

    fn prepare(&self, ask: &ExchangeParams) -> Result<NextStep, Error> {
        let _call = self.suspension.enter()?;
        let next = self.next(ask)?;
        if let NextStep::Exchange(request) = &next {
            self.sends(request);
        }
        Ok(next)
    }

    fn apply_answer(
        &self,
        request: &ExchangeRequest,
        answer: ExchangeAnswer,
    ) -> Result<ExchangeCounts, Error> {
        let _call = self.suspension.enter()?;
        // Until the answer is in the book, its units are in flight: otherwise a reader would find them
        // waiting again in between.
        let applied = self.check_and_apply(request, answer);
        self.has_sent(request);
        applied
    }

    fn follow_up(
        &self,
        request: &ExchangeRequest,
        answer: &ExchangeAnswer,
    ) -> Option<ExchangeRequest> {
        // One cursor for all entity types replaces the named cursors.
        let others = answer.others.clone().or_else(|| request.others.clone());
        let mut cursors = BTreeMap::new();
        if answer.others.is_none() {
            cursors.clone_from(&request.cursors);
            cursors.extend(
                answer.cursors.iter().map(|(entity, cursor)| (entity.clone(), cursor.clone())),
            );
        }
        let mut foreign_cursors = request.foreign_cursors.clone();
        foreign_cursors.extend(answer.set_aside.cursors.clone());
        let request_id = RequestId::new(self.clock.now().wall, &mut *self.ids());
        Some(ExchangeRequest {
            request: request_id,
            head: None,
            units: Vec::new(),
            cursors,
            others,
            foreign_cursors,
            ..request.clone()
        })
    }

    fn fail(&self, request: &ExchangeRequest, failure: &Failure) -> Result<ExchangeCounts, Error> {
        let _call = self.suspension.enter()?;
        self.has_sent(request);
        self.silences().failed(self.clock.now().wall, failure.code());
        self.fail_exchange(request, failure)
    }

    fn isolate(
        &self,
        request: &ExchangeRequest,
        failure: &Failure,
        strikes: u32,
    ) -> Result<ExchangeCounts, Error> {
        let _call = self.suspension.enter()?;
        self.has_sent(request);
        self.isolate_units(request, failure, strikes)
    }

    fn unanswered(&self) -> Unanswered {
        let (now, actor) = (self.clock.now().wall, read(&self.actor).clone());
        let is_due =
            |unit: &TailUnit| unit.isolated().is_none_or(|known| known.retry_at <= Some(now));
        let tail = self.tail();
        let sent = tail
            .units()
            .map(|(_, unit)| unit)
            .filter(|unit| unit.tries == 0 && unit.actor == actor && is_due(unit));
        let known = sent.map(|unit| match unit.suspicion {
            Some(_) => Unanswered::Suspected,
            None => Unanswered::Sent,
        });
        known.max().unwrap_or_default()
    }

    fn turns(&self) -> Option<watch::Receiver<u64>> {
        Some(self.suspension.turns())
    }

    fn is_away(error: &Error) -> bool {
        matches!(error, Error::Suspended)
    }

    fn left(&self) -> Left {
        let (pending, needs_someone) = self.unfinished();
        Left::of_book(pending, needs_someone)
    }

    fn report(&self, activity: &Activity) {
        self.show(activity);
    }
}

impl Shared {
    /// Plans the next units and builds the request.
    fn next(&self, ask: &ExchangeParams) -> Result<NextStep, Error> {
        let _span = tracing::debug_span!("plan").entered();
        self.check_alive()?;
        if ask.first && waits_for_owner(&self.state()) {
            return Ok(NextStep::Exchange(self.probe()?));
        }
        let page_limit = if ask.pull || ask.push { ask.page_limit } else { 0 };
        loop {
            let plan = if ask.push { self.plan_next(ask)? } else { Plan::default() };
            self.review_plan(&plan);
            self.note_held(&plan);
            if plan.unfinished && plan.groups.is_empty() && plan.again.is_empty() {
                continue;
            }
            let (cursors, others) = self.position()?;
            if plan.groups.is_empty() && plan.again.is_empty() {
                return if ask.pull && !self.is_parked(ask.first) {
                    let request = self.empty_request(cursors, page_limit)?;
                    Ok(NextStep::Exchange(ExchangeRequest { others: Some(others), ..request }))
                } else {
                    Ok(NextStep::Idle { next_wake: plan.wake })
                };
            }
            let Planned { request, too_large } = self.write_in_turn(move |session| {
                request_with_units(session, plan, cursors, page_limit)
            })?;
            self.note_too_large(too_large);
            if !request.units.is_empty() {
                let (device_key, others) = (self.device_key, Some(others));
                return Ok(NextStep::Exchange(ExchangeRequest { device_key, others, ..request }));
            }
            // All planned ops have ended, so there is nothing to send. Ops that waited for them may
            // be ready now: plan again.
        }
    }

    /// Applies an answer.
    pub(crate) fn check_and_apply(
        &self,
        request: &ExchangeRequest,
        mut answer: ExchangeAnswer,
    ) -> Result<ExchangeCounts, Error> {
        let _span = tracing::debug_span!("exchange", request = %request.request, units = request.units.len())
            .entered();
        self.check_alive()?;
        if answer.request != request.request {
            return Ok(ExchangeCounts::default());
        }
        let state = self.state().clone();
        let stranger = stranger(&state, &answer);
        if !stranger.is_empty() {
            self.decide(stranger)?;
            return Ok(ExchangeCounts { parked: true, ..ExchangeCounts::default() });
        }
        if let Err(code) = credible(request, &answer, &known_of_server(&state)) {
            tracing::warn!(code, "the server's answer cannot be true: it is not applied");
            return Ok(ExchangeCounts { misbehaved: Some(code), ..ExchangeCounts::default() });
        }
        drop_unasked(request, &mut answer);
        self.silences().answered();
        self.hear_server(answer.server_time, self.clock.now());
        self.lower_stamps(&answer)?;
        let resumed = self.resume_with_owner(&state)?;
        let more = answer.more || resumed;
        let (taken, parks) = if let Some(anchored) = answer.forked {
            self.start_epoch(anchored)?;
            (ExchangeCounts { units_stale: 1, ..ExchangeCounts::default() }, false)
        } else {
            self.forget_others_while_rereading();
            let began_here = self.began_here(request)?;
            let (server, others) = ((answer.server, answer.server_epoch), answer.others.take());
            let news = is_news(&self.state(), request, &answer, self.clock.now().wall);
            let Took { taken, passed_over, parks } = if news {
                drop_late_cursors(request, began_here, || self.cursors(), &mut answer)?;
                let asked = request.clone();
                self.write_in_turn(move |session| apply(session, &asked, &answer))?
            } else {
                Took::default()
            };
            if began_here && !passed_over {
                self.read_on(server, others);
            }
            (ExchangeCounts { more, ..taken }, parks)
        };
        if !parks {
            self.unpark(&request.actor)?;
        }
        Ok(ExchangeCounts { resumed, ..taken })
    }

    /// Returns whether the server is not asked for pages. A park for credentials or the protocol is
    /// tested once in a run: an answer ends it.
    fn is_parked(&self, first: bool) -> bool {
        let actor = read(&self.actor).clone();
        stops_pages(&self.state(), &actor, first)
    }

    /// Ends parks: an answer shows that the server accepts the actor's credentials and the
    /// protocol.
    fn unpark(&self, actor: &Actor) -> Result<(), Error> {
        let lifted = lifted_by_answer(&self.state(), actor);
        if lifted.is_empty() { Ok(()) } else { self.decide(lifted) }
    }

    /// Resumes what waited for the book's own server, which has answered. Returns whether anything
    /// was resumed.
    fn resume_with_owner(&self, state: &StateRow) -> Result<bool, Error> {
        let lifted = lifted(state);
        let resumed = !lifted.is_empty();
        if resumed {
            tracing::info!("the server that this book knows has answered: parked ops resume");
            self.decide(lifted)?;
        }
        Ok(resumed)
    }

    /// Appends the decisions that are not in effect already.
    pub(crate) fn decide(&self, decisions: Vec<Decision>) -> Result<(), Error> {
        let news = only_news(&self.state(), &self.tail(), decisions);
        if news.is_empty() {
            return Ok(());
        }
        self.write_in_turn(move |session| {
            session.append(Draft::control(Control::Decided(news)), Hlc::ZERO)?;
            Ok(())
        })
    }
}

pub(crate) fn known_of_server(state: &StateRow) -> KnownOfServer {
    KnownOfServer {
        anchor: state.anchor,
        highest: state.highest,
        epoch: state.epoch,
        epoch_from: state.epoch_from,
    }
}

pub(crate) fn identity(state: &StateRow) -> Result<(DeviceId, Epoch), Error> {
    let missing = || StoreError::Corrupt {
        what: "the book does not know which device it is",
        seq: Some(Seq::ZERO),
        source: None,
    };
    Ok((state.device.ok_or_else(missing)?, state.epoch.ok_or_else(missing)?))
}

/// Makes an erasable text for an entry about a person's action.
pub(crate) fn text_item(session: &mut Session<'_>, text: &str) -> (Items, u32) {
    let mut items = Items::default();
    let index = items.add(text, session.randomness);
    (items, index)
}
