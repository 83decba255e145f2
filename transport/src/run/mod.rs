//! The exchange loop: it exchanges until nothing is left to send or to ask for.
//!
//! ```text
//!   prepare ─▶ exchange ─▶ accept ─▶ prepare ─▶ …  ─▶ Idle
//!                 │ more pages, no units                        page n:   exchange │ accept
//!                 └─▶ follow_up: the next page is fetched       page n+1:          │ exchange │ accept
//!                     while this page is applied
//! ```
//!
//! Invariants:
//! 1. Answers are applied in the order of their requests, one at a time. At most one page is being
//!    applied while one is in flight.
//! 2. A run ends, whatever the server answers. Every exchange makes progress: it ends or puts off a
//!    unit, moves a cursor to a place that is new to this run, shrinks the batch after "too large",
//!    or shows whether units fail to get through ([`doubt`]). These end the run: two exchanges in a
//!    row without progress, [`fieldbook_core::limits::EMPTY_PAGES`] pages in a row without news, a
//!    second fork, and [`MOST_EXCHANGES`]. A page that does not get through is asked for in parts;
//!    if the smallest part fails, reading ends ([`pages`]).
//! 3. The future may be dropped at any await. Prepared units stay frozen in the book and are sent
//!    again under the same ids. A call into the book that has begun runs to its end on its own
//!    thread.
//! 4. A failed exchange ends the run, with two exceptions. After "too large" the loop sends less.
//!    If the units or the page may be the cause, each is tried without the other, so that neither
//!    stops the other ([`failing`]). Waiting is the worker's part.
//!
//! What it does not do: look into an outcome or a change. That is the book's part, in
//! [`SyncHost::apply_answer`].

mod cut;
mod doubt;
mod failing;
mod host;
mod pages;
mod progress;
mod report;
mod sizer;
mod time_left;
mod wait_after;

pub use host::{Activity, ExchangeCounts, ExchangeParams, NextStep, SyncHost, Unanswered};
pub use report::{Budget, Left, Limit, RunOptions, Stopped, SyncReport};
pub use sizer::BatchSizer;

use std::error::Error;
use std::ops::ControlFlow;
use std::sync::Arc;

use fieldbook_core::protocol::{ExchangeAnswer, ExchangeRequest, Failure};
use fieldbook_core::rules::failure::may_have_left;
use fieldbook_core::{Actor, Clock};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::remote::{Received, Remote, RemoteError};
use cut::Cut;
use doubt::Doubt;
use pages::Pages;
use progress::{Progress, moves_a_cursor};
use sizer::Size;
use time_left::TimeLeft;

pub(crate) use cut::is_away;
pub(crate) use wait_after::WaitAfter;

/// The most exchanges of one run, whatever its options are.
pub const MOST_EXCHANGES: u32 = 100_000;

/// The most exchanges in a row that may change nothing.
const FRUITLESS_MOST: u32 = 2;

/// An error of the book that ended a run. Failures outside the book are in [`SyncReport::stopped`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError<E: Error + 'static> {
    /// The book refused a step.
    #[error("the book failed during the exchange: reopen it")]
    Host {
        /// The error of the book.
        #[source]
        source: E,
    },
    /// A call into the book panicked, or the runtime was shut down during it. The panic itself was
    /// reported where it happened.
    #[error("a step of the exchange panicked or was ended: reopen the book")]
    Interrupted,
}

/// Exchanges with the server until there is nothing more to send or to ask for, or until something
/// stops the run.
///
/// # Errors
/// [`RunError`] if the book fails. A failed exchange is in [`SyncReport::stopped`].
pub async fn run<D: SyncHost>(
    host: &Arc<D>,
    remote: &dyn Remote,
    clock: &dyn Clock,
    options: &RunOptions,
    sizer: &mut BatchSizer,
) -> Result<SyncReport, RunError<D::Error>> {
    let (_keep, never) = watch::channel(false);
    run_until(host, remote, clock, options, sizer, never).await
}

/// Runs like [`run`], and ends early once `stop` holds true or its sender is gone. Only the wait
/// for the server is cut short. No call into the book is running when the function returns.
pub(crate) async fn run_until<D: SyncHost>(
    host: &Arc<D>,
    remote: &dyn Remote,
    clock: &dyn Clock,
    options: &RunOptions,
    sizer: &mut BatchSizer,
    stop: watch::Receiver<bool>,
) -> Result<SyncReport, RunError<D::Error>> {
    sizer.begin();
    let pages = Pages::after(sizer.page);
    let time = TimeLeft::new(clock.now().monotonic, options.budget.time);
    let report = SyncReport::new();
    let mut run = Run {
        host,
        remote,
        clock,
        options,
        sizer,
        cut: Cut::new(stop, host.turns()),
        time,
        report,
        fruitless: 0,
        refused: None,
        doubt: Doubt::default(),
        pages,
        progress: Progress::default(),
    };
    host.report(&Activity::Started);
    let stopped = match run.drive().await {
        // The book went away before the run noticed.
        Err(RunError::Host { source }) if D::is_away(&source) => Ok(Stopped::Cancelled),
        stopped => stopped,
    };
    run.sizer.page = run.pages.most();
    let mut report = run.report;
    report.stopped = stopped?;
    report.left = Left { pages: report.left.pages, ..host.left() };
    report.next_run = report.when_next(clock.now().wall);
    tracing::debug!(exchanges = report.exchanges, stopped = ?report.stopped, "sync run ended");
    host.report(&Activity::Ended(report.clone()));
    Ok(report)
}

/// What follows an exchange: continue with this value of [`ExchangeParams::pull`], or end.
type Flow = ControlFlow<Stopped, bool>;

struct Run<'a, D: SyncHost> {
    host: &'a Arc<D>,
    remote: &'a dyn Remote,
    clock: &'a dyn Clock,
    options: &'a RunOptions,
    sizer: &'a mut BatchSizer,
    cut: Cut,
    time: TimeLeft,
    report: SyncReport,
    /// The number of exchanges in a row that changed nothing.
    fruitless: u32,
    /// The number of units in the last request, if it was too large.
    refused: Option<usize>,
    /// Whether units do not get through.
    doubt: Doubt,
    /// Whether pages do not get through.
    pages: Pages,
    progress: Progress,
}

/// The result of sending a request.
#[expect(clippy::large_enum_variant, reason = "at most two exist at a time")]
enum Sent {
    Received(Received),
    Failed(RemoteError),
    /// The wait was cut short.
    Cut(Stopped),
}

impl<D: SyncHost> Run<'_, D> {
    async fn drive(&mut self) -> Result<Stopped, RunError<D::Error>> {
        let (mut first, mut pull) = (true, !self.options.push_only);
        self.report.left.pages = pull;
        // A run of one exchange has no second exchange for the units.
        let may_ask = !self.options.pull_only && self.options.max_exchanges > 1;
        let before = if may_ask { self.host.unanswered() } else { Unanswered::No };
        if before != Unanswered::No {
            self.doubt.begin();
            self.pages.part();
        }
        // This exchange only asks whether the server answers: units without an answer are sent
        // again before pages are read. If units are known not to get through, pages are read first.
        let mut only_asks = before == Unanswered::Sent;
        loop {
            if let Some(stopped) = self.spent() {
                return Ok(stopped);
            }
            let ask = match self.ask(first, pull) {
                ask if only_asks || self.pages.want_neither() => {
                    ExchangeParams { push: false, pull: true, page_limit: 0, ..ask }
                }
                ask if self.doubt.wants_page() => ExchangeParams { push: false, pull: true, ..ask },
                ask => ask,
            };
            first = false;
            let mut request = match self.on_host(move |host| host.prepare(&ask)).await? {
                NextStep::Exchange(request) => request,
                NextStep::Idle { next_wake } => {
                    self.report.next_run = next_wake;
                    return Ok(self.idle());
                }
            };
            if self.pages.are_apart() && !request.units.is_empty() {
                request.page_limit = 0;
            }
            let flow = self.exchange(request, pull).await?;
            only_asks = false;
            match flow {
                ControlFlow::Continue(more) => pull = more && !self.options.push_only,
                ControlFlow::Break(stopped) => return Ok(stopped),
            }
        }
    }

    /// Returns why a run ends that has nothing more to send or to ask for.
    fn idle(&self) -> Stopped {
        if let Some(failure) = self.pages.refused() {
            return Stopped::PageRefused(failure.clone());
        }
        self.doubt.failure().map_or(Stopped::Idle, Stopped::Failed)
    }

    fn ask(&self, first: bool, pull: bool) -> ExchangeParams {
        let size = self.sizer.size(self.options);
        let left = self.options.budget.ops.map(|most| most.saturating_sub(self.report.ops_sent));
        let left = left.and_then(|left| usize::try_from(left).ok()).unwrap_or(usize::MAX);
        ExchangeParams {
            first,
            push: !self.options.pull_only,
            pull: pull && self.pages.refused().is_none(),
            batch_ops: size.ops.min(left),
            batch_bytes: self.time.batch(self.clock.now().monotonic, size.bytes),
            page_limit: match self.pages.refused() {
                None if !self.options.push_only => self.page_limit(),
                _ => 0,
            },
        }
    }

    fn page_limit(&self) -> u32 {
        let wanted = self.pages.limit(self.options.page_limit);
        self.time.page(self.clock.now().monotonic, wanted)
    }

    /// Returns why no further exchange may begin.
    fn spent(&self) -> Option<Stopped> {
        if self.cut.is_due() {
            return Some(Stopped::Cancelled);
        }
        let (budget, report) = (&self.options.budget, &self.report);
        let reached = |most: Option<u64>, used: u64| most.is_some_and(|most| used >= most);
        if self.time.is_over(self.clock.now().monotonic) {
            return Some(Stopped::BudgetSpent(Limit::Time));
        }
        if reached(budget.bytes, report.bytes_sent.saturating_add(report.bytes_received)) {
            return Some(Stopped::BudgetSpent(Limit::Bytes));
        }
        if reached(budget.ops, report.ops_sent) {
            return Some(Stopped::BudgetSpent(Limit::Ops));
        }
        (report.exchanges >= self.options.max_exchanges.min(MOST_EXCHANGES))
            .then_some(Stopped::ExchangesSpent)
    }

    /// Sends a request, applies its answer, and continues through the following pages.
    async fn exchange(
        &mut self,
        mut request: ExchangeRequest,
        pull: bool,
    ) -> Result<Flow, RunError<D::Error>> {
        let mut sent = self.send(&request).await;
        loop {
            let received = match sent {
                Sent::Received(received) => received,
                Sent::Failed(error) => return self.failed(request, error, pull).await,
                Sent::Cut(stopped) => return Ok(Flow::Break(stopped)),
            };
            self.report.bytes_sent = self.report.bytes_sent.saturating_add(received.bytes_sent);
            self.report.bytes_received =
                self.report.bytes_received.saturating_add(received.bytes_received);
            let had_page = self.asks_for_page(&request);
            let next = self.follow_up(&request, &received.answer);
            if self.progress.is_second_fork(&received.answer) {
                return self.failed_at_all(request, misbehaved("forked_again"), pull).await;
            }
            let (taken, arriving);
            (request, taken, arriving) =
                self.take_while_sending(request, received.answer, next.as_ref()).await?;
            if let Some(code) = taken.misbehaved {
                return self.failed_at_all(request, misbehaved(code), pull).await;
            }
            if self.fruitless >= FRUITLESS_MOST || self.progress.is_empty_for_long() {
                return Ok(Flow::Break(Stopped::NoProgress));
            }
            match (next, arriving) {
                // An op that was parked may change what to ask for, so the page in flight is
                // dropped and asked for again.
                (Some(next), Some(arriving)) if !taken.parked => (request, sent) = (next, arriving),
                (_, Some(Sent::Cut(stopped))) => return Ok(Flow::Break(stopped)),
                // An answer without a page does not show whether there is more to read.
                _ => return Ok(Flow::Continue(taken.more || (pull && !had_page))),
            }
        }
    }

    /// Returns whether a request asks for as much as any request of the run.
    const fn asks_for_page(&self, request: &ExchangeRequest) -> bool {
        request.page_limit > 0 || self.options.page_limit == 0
    }

    fn follow_up(
        &self,
        request: &ExchangeRequest,
        answer: &ExchangeAnswer,
    ) -> Option<ExchangeRequest> {
        let only_pages = request.units.is_empty() && answer.more;
        if !only_pages || !moves_a_cursor(request, answer) || self.spent().is_some() {
            return None;
        }
        let next = self.host.follow_up(request, answer)?;
        let page_limit = next.page_limit.min(self.page_limit());
        Some(ExchangeRequest { page_limit, ..next })
    }

    /// Applies an answer on its own thread while the next request, if there is one, is in flight.
    async fn take_while_sending(
        &mut self,
        request: ExchangeRequest,
        answer: ExchangeAnswer,
        next: Option<&ExchangeRequest>,
    ) -> Result<(ExchangeRequest, ExchangeCounts, Option<Sent>), RunError<D::Error>> {
        let had_units = !request.units.is_empty();
        let moved = moves_a_cursor(&request, &answer) && self.progress.is_new_place(&answer);
        let proves = self.doubt.wants_page() || self.pages.want_neither();
        let had_page = self.asks_for_page(&request);
        let host = Arc::clone(self.host);
        let taking = spawn_blocking(move || {
            let taken = host.apply_answer(&request, answer)?;
            Ok((request, taken))
        });
        let arriving = match next {
            Some(next) => Some(self.send(next).await),
            None => None,
        };
        let (request, taken) = joined(taking.await)?;
        self.report.add(&taken);
        if taken.misbehaved.is_some() {
            return Ok((request, taken, arriving));
        }
        if had_page {
            self.report.left.pages = taken.more;
        }
        let progressed = moved || taken.progressed();
        // An exchange that shows the cause of a failure needs no other progress.
        if progressed || !proves {
            self.count(progressed);
            self.progress.count(&taken);
        }
        if had_units {
            self.sizer.succeeded(self.options);
            self.refused = None;
        }
        self.pages.answered(had_page);
        let doubted = self.doubt.answered(had_units).filter(|_| !taken.parked);
        if let Some((request, failure)) = doubted {
            self.resolve_doubt(request, failure).await?;
        }
        self.host.report(&Activity::Progress(self.report.clone()));
        Ok((request, taken, arriving))
    }

    async fn send(&mut self, request: &ExchangeRequest) -> Sent {
        if self.report.exchanges == 0
            && let Some(stopped) = self.prepare_remote(&request.actor).await
        {
            return Sent::Cut(stopped);
        }
        let (units, ops) = (request.units.len(), ops_of(request));
        self.report.exchanges += 1;
        let shown = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        self.host.report(&Activity::Exchanging { units: shown(units), ops: shown(ops) });
        let began = self.clock.now().monotonic;
        let sent = tokio::select! {
            biased;
            sent = self.remote.exchange(request) => match sent {
                Ok(received) => Sent::Received(received),
                Err(error) => Sent::Failed(error),
            },
            () = self.cut.due() => Sent::Cut(Stopped::Cancelled),
            () = self.time.over(self.clock) => Sent::Cut(Stopped::BudgetSpent(Limit::Time)),
        };
        if matches!(sent, Sent::Received(_)) && self.time.has_end() {
            let took = self.clock.now().monotonic.since(began);
            self.time.answered(took, request.page_limit, carried(request).bytes);
        }
        // A request that was cut short may have left.
        if !matches!(&sent, Sent::Failed(error) if !may_have_left(error.failure())) {
            self.report.units_sent += units as u64;
            self.report.ops_sent += ops as u64;
        }
        sent
    }

    /// Lets the remote prepare itself. Returns why the run ended meanwhile.
    async fn prepare_remote(&mut self, actor: &Actor) -> Option<Stopped> {
        tokio::select! {
            biased;
            () = self.remote.prepare(actor, self.clock.now().wall) => None,
            () = self.cut.due() => Some(Stopped::Cancelled),
            () = self.time.over(self.clock) => Some(Stopped::BudgetSpent(Limit::Time)),
        }
    }

    fn count(&mut self, progressed: bool) {
        self.fruitless = if progressed { 0 } else { self.fruitless + 1 };
    }

    async fn on_host<T: Send + 'static>(
        &self,
        call: impl FnOnce(&D) -> Result<T, D::Error> + Send + 'static,
    ) -> Result<T, RunError<D::Error>> {
        let host = Arc::clone(self.host);
        joined(spawn_blocking(move || call(&host)).await)
    }
}

fn joined<T, E: Error + 'static>(
    joined: Result<Result<T, E>, tokio::task::JoinError>,
) -> Result<T, RunError<E>> {
    match joined {
        Ok(result) => result.map_err(|source| RunError::Host { source }),
        // The panic's text stays out of the error, because it may quote a record.
        Err(_) => Err(RunError::Interrupted),
    }
}

fn misbehaved(code: &'static str) -> RemoteError {
    Failure::Misbehaved { code }.into()
}

fn carried(request: &ExchangeRequest) -> Size {
    Size { ops: ops_of(request), bytes: request.units.iter().map(|unit| unit.size()).sum() }
}

fn ops_of(request: &ExchangeRequest) -> usize {
    request.units.iter().flat_map(|unit| &unit.changes).map(|change| change.ops.len()).sum()
}
