//! The worker: runs the exchange loop when woken, when something is due, and again after failures.
//!
//! ```text
//!             wake, timer                    failed: full jitter, Retry-After at least
//!   Waiting ─────────────▶ run ── idle ──▶ Waiting      BackingOff ── timer, retry_now ──▶ run
//!      ▲  resume                  └─ failed ───────────────▲
//!   Paused ◀── pause (from anywhere; a wait for the server is cut short, a commit is not)
//! ```
//!
//! Invariants:
//! 1. The next look is always at a finite time, whatever clocks do: at most [`WorkerOptions::look_every`] ahead, or
//!    [`limits::BACKOFF_MOST`] after failures. Without a wake or a failure it is at least a second ahead.
//! 2. `wake` never shortens a backoff: many local writes must not hammer a server that is down. `retry_now` does.
//! 3. After [`Handle::shutdown`] no call into the book is under way. Dropping the handle ends the worker too.
//! 4. Runs of one book take turns, whoever makes them: each holds the throttle.
//! 5. A book that fails, or a panic, ends the worker; `shutdown` hands the reason over and [`Activity::Stopped`] was
//!    reported.
//!
//! What it is not: it keeps nothing. Killed at any moment it starts anew from the book.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use fieldbook_core::protocol::{Failure, UNMARKED};
use fieldbook_core::rules::backoff;
use fieldbook_core::{Clock, Now, Randomness, limits};
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinHandle;

use crate::remote::Remote;
use crate::run::{Activity, Desk, RunOptions, Stopped, SyncReport, Throttle, run_until};

/// How a worker goes about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerOptions {
    /// What each run may do.
    pub run: RunOptions,
    /// How often the server is asked for changes when nothing else happens.
    pub look_every: Duration,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self { run: RunOptions::default(), look_every: Duration::from_secs(60) }
    }
}

/// Why a worker ended before it was shut down.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The book failed.
    #[error("syncing ended because the book failed: reopen it")]
    Book {
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The worker panicked, or the runtime was shut down under it.
    #[error("syncing ended by a panic: reopen the book")]
    Panicked,
}

/// What a worker needs.
pub struct Worker<D> {
    /// The book.
    pub desk: Arc<D>,
    /// The way to the server.
    pub remote: Arc<dyn Remote>,
    /// Where it reads time.
    pub clock: Arc<dyn Clock>,
    /// Where it draws jitter from.
    pub random: Box<dyn Randomness>,
    /// How it goes about it.
    pub options: WorkerOptions,
    /// Held during each run, so that whoever else syncs the same book takes turns with it.
    pub throttle: Arc<Mutex<Throttle>>,
}

impl<D: Desk> Worker<D> {
    /// Starts the worker on the current tokio runtime. It runs at once and then whenever it is due.
    pub fn start(self) -> Handle {
        let wakes = Arc::new(Wakes::default());
        let (control, orders) = watch::channel(Order::Work);
        let (stop, stopping) = watch::channel(false);
        let task = Task { worker: self, wakes: Arc::clone(&wakes), orders, stopping };
        Handle { wakes, control, stop, task: tokio::spawn(task.supervise()) }
    }
}

impl<D> std::fmt::Debug for Worker<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Steers a worker that was started.
#[derive(Debug)]
#[must_use = "dropping the handle ends the worker"]
pub struct Handle {
    wakes: Arc<Wakes>,
    control: watch::Sender<Order>,
    /// True while a run that is under way should end.
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), WorkerError>>,
}

impl Handle {
    /// Says that there is something to send. Any number of calls before the next run are one.
    pub fn wake(&self) {
        self.wakes.work.notify_one();
    }

    /// Says that the world outside changed (network up, new credentials, a person asks): runs at once, even if the worker
    /// is backing off.
    pub fn retry_now(&self) {
        self.wakes.retry.notify_one();
    }

    /// Stops syncing until [`Self::resume`]. A wait for the server is cut short.
    pub fn pause(&self) {
        self.order(Order::Pause);
    }

    /// Goes on after [`Self::pause`], at once.
    pub fn resume(&self) {
        self.order(Order::Work);
    }

    /// Gives an order, and in the same step says whether a run under way should end: a pause and a resume of two threads
    /// must not leave the one's order with the other's wish.
    fn order(&self, order: Order) {
        self.control.send_modify(|current| {
            *current = order;
            self.stop.send_replace(order != Order::Work);
        });
    }

    /// Returns whether the worker has ended by itself; [`Self::shutdown`] says why.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Ends the worker and waits until it has.
    ///
    /// # Errors
    /// [`WorkerError`] if it had ended before by a failure of the book or a panic.
    pub async fn shutdown(self) -> Result<(), WorkerError> {
        self.order(Order::End);
        self.task.await.unwrap_or(Err(WorkerError::Panicked))
    }
}

#[derive(Debug, Default)]
struct Wakes {
    work: Notify,
    retry: Notify,
}

impl Wakes {
    /// Takes the calls so far as answered by the run that is about to begin.
    fn forget(&self) {
        for notify in [&self.work, &self.retry] {
            std::pin::pin!(notify.notified()).enable();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Work,
    Pause,
    End,
}

/// What to wait for between two runs.
struct Wait {
    length: Duration,
    /// Whether new work ends it.
    wakes: bool,
}

struct Task<D> {
    worker: Worker<D>,
    wakes: Arc<Wakes>,
    orders: watch::Receiver<Order>,
    stopping: watch::Receiver<bool>,
}

impl<D: Desk> Task<D> {
    /// Runs the work as a task of its own, so that a panic in it is seen.
    async fn supervise(self) -> Result<(), WorkerError> {
        let desk = Arc::clone(&self.worker.desk);
        let ended = tokio::spawn(self.work()).await.unwrap_or(Err(WorkerError::Panicked));
        if let Err(error) = &ended {
            tracing::error!(%error, "the sync worker ended");
        }
        desk.report(&Activity::Stopped);
        ended
    }

    async fn work(mut self) -> Result<(), WorkerError> {
        let mut failures = 0u32;
        while self.may_work().await {
            let mut throttle = tokio::select! {
                biased;
                throttle = Arc::clone(&self.worker.throttle).lock_owned() => throttle,
                _ = self.stopping.wait_for(|stop| *stop) => continue,
            };
            self.wakes.forget();
            let worker = &self.worker;
            let report = run_until(
                &worker.desk,
                &*worker.remote,
                &*worker.clock,
                &worker.options.run,
                &mut throttle,
                self.stopping.clone(),
            )
            .await
            .map_err(|error| WorkerError::Book { source: Box::new(error) })?;
            drop(throttle);
            let wait = self.plan(&report, &mut failures);
            self.sleep(wait).await;
        }
        Ok(())
    }

    /// Waits while paused; returns whether to go on.
    async fn may_work(&mut self) -> bool {
        loop {
            let order = *self.orders.borrow_and_update();
            match order {
                Order::Work => return self.orders.has_changed().is_ok(),
                Order::End => return false,
                Order::Pause => self.worker.desk.report(&Activity::Paused),
            }
            if self.orders.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Decides how long to wait after a run, and says so.
    fn plan(&mut self, report: &SyncReport, failures: &mut u32) -> Wait {
        let now = self.worker.clock.now();
        let failure = match &report.stopped {
            Stopped::Cancelled | Stopped::ExchangesSpent => {
                return Wait { length: Duration::ZERO, wakes: true };
            }
            Stopped::Idle | Stopped::BudgetSpent(_) => None,
            Stopped::NoProgress => Some(None),
            Stopped::Failed(failure) | Stopped::PageRefused(failure) => Some(Some(failure)),
        };
        let Some(failure) = failure else {
            *failures = 0;
            let due = report.next_wake.map_or(Duration::MAX, |next| next.since(now.wall));
            let length = due.min(self.worker.options.look_every).clamp(LEAST_WAIT, limits::BACKOFF_MOST);
            self.worker.desk.report(&Activity::Waiting { until: now.wall.plus(length) });
            return Wait { length, wakes: true };
        };
        *failures = failures.saturating_add(1);
        let length = match failure {
            // Something that is not our server asks for a login of its own: whoever uses the device may be at it.
            Some(Failure::Unauthorized { code }) if code.starts_with(UNMARKED) => {
                self.backoff(*failures, None).min(OFFLINE_MOST)
            }
            // Time alone will not help, but some finite look must remain.
            Some(
                Failure::Unauthorized { .. } | Failure::UpgradeRequired { .. } | Failure::Refused { .. },
            ) => limits::BACKOFF_MOST,
            Some(Failure::Transient { retry_after, .. }) => self.backoff(*failures, *retry_after),
            Some(Failure::Unreachable { .. }) => self.backoff(*failures, None).min(OFFLINE_MOST),
            _ => self.backoff(*failures, None),
        };
        let until = now.wall.plus(length);
        self.worker.desk.report(&Activity::BackingOff { until, failures: *failures });
        Wait { length, wakes: false }
    }

    fn backoff(&mut self, failures: u32, asked: Option<Duration>) -> Duration {
        backoff::backoff(failures, asked, &mut *self.worker.random)
    }

    async fn sleep(&mut self, wait: Wait) {
        let began = self.worker.clock.now();
        loop {
            let left = wait.length.saturating_sub(passed(began, self.worker.clock.now()));
            if left.is_zero() {
                return;
            }
            tokio::select! {
                // Timers may stand still while the device sleeps, so the clocks are looked at now and then.
                () = tokio::time::sleep(left.min(LOOK_AT_CLOCKS)) => {}
                () = self.wakes.work.notified(), if wait.wakes => return,
                () = self.wakes.retry.notified() => return,
                // Either there is an order or nobody is left to give one; `may_work` tells.
                _ = self.orders.changed() => return,
            }
        }
    }
}

/// Returns how much time has passed by the clock that says more, since either may stand still or jump.
fn passed(began: Now, now: Now) -> Duration {
    now.monotonic.since(began.monotonic).max(now.wall.since(began.wall))
}

/// The shortest wait for something that is due: a book that keeps saying "now" must not make the worker spin.
const LEAST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait while no server is reached: trying costs nobody else anything, and the network may be back.
const OFFLINE_MOST: Duration = Duration::from_secs(5 * 60);
/// The longest sleep without a look at the clocks.
const LOOK_AT_CLOCKS: Duration = Duration::from_secs(60);
