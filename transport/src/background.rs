//! The worker runs the exchange loop: when the app wakes it, when something is due, and after a
//! failed run.
//!
//! ```text
//!             wake, timer                    failed: random wait, at least Retry-After
//!   Waiting ─────────────▶ run ── idle ──▶ Waiting      BackingOff ── timer, retry_now ──▶ run
//!      ▲  resume                  └─ failed ───────────────▲
//!   Paused ◀── pause (from any state; cuts a wait for the server short, never a commit)
//! ```
//!
//! Invariants:
//! 1. The next run is always at a finite time, whatever the clocks do: at most
//!    [`WorkerOptions::look_every`] after an idle run or [`limits::BACKOFF_MOST`] after any run.
//!    A wake never makes it later. After an idle run the worker waits at least one second, unless
//!    it is woken.
//! 2. `wake` never shortens a backoff: many local writes must not flood a server that is down.
//!    `retry_now` ends a backoff.
//! 3. After [`Handle::shutdown`] no call into the book is running. Dropping the handle ends the
//!    worker too.
//! 4. The runs of one book take turns, whoever starts them: each run holds the lock of the batch
//!    sizer.
//! 5. An error of the book, or a panic, ends the worker. The worker reports [`Activity::Stopped`],
//!    and `shutdown` returns the reason.
//! 6. While the book is away ([`SyncHost::turns`]) the worker waits. When the book is back, a run
//!    begins at once.
//!
//! What it does not do: keep state. A worker that is killed starts again from the book.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use fieldbook_core::rules::backoff;
use fieldbook_core::{Clock, Now, Randomness, limits};
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinHandle;

use crate::remote::Remote;
use crate::run::{
    Activity, BatchSizer, RunOptions, Stopped, SyncHost, SyncReport, WaitAfter, is_away, run_until,
};

/// The configuration of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerOptions {
    /// What each run may do, and how much.
    pub run: RunOptions,
    /// The most time between two questions for changes when nothing else causes a run, at most an
    /// hour ([`limits::BACKOFF_MOST`]). Each wait is between nine tenths of it and all of it, so
    /// that devices that were started together do not ask together.
    pub look_every: Duration,
    /// How long the worker waits after a write before it sends, so that a burst of writes leaves in
    /// one request. It waits no longer than until the next run is due anyway, and
    /// [`Handle::retry_now`] ends the wait.
    pub gather_for: Duration,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            run: RunOptions::default(),
            look_every: Duration::from_secs(60),
            gather_for: Duration::ZERO,
        }
    }
}

/// Why a worker ended before it was shut down.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The book failed.
    #[error("syncing ended because the book failed: reopen it")]
    Book {
        /// The error of the book.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The worker panicked, or the runtime was shut down while the worker ran.
    #[error("syncing ended by a panic: reopen the book")]
    Panicked,
}

/// The parts that a worker is made of.
pub struct Worker<D> {
    /// The book.
    pub host: Arc<D>,
    /// The remote that reaches the server.
    pub remote: Arc<dyn Remote>,
    /// The source of time.
    pub clock: Arc<dyn Clock>,
    /// The source of random numbers for the backoff.
    pub random: Box<dyn Randomness>,
    /// The configuration.
    pub options: WorkerOptions,
    /// The lock that each run holds, so that all runs of one book take turns. It keeps the batch
    /// size from run to run.
    pub sizer: Arc<Mutex<BatchSizer>>,
}

impl<D: SyncHost> Worker<D> {
    /// Starts the worker on the current tokio runtime. The first run begins at once.
    pub fn start(self) -> Handle {
        let wakes = Arc::new(Wakes::default());
        let (control, orders) = watch::channel(Order::Work);
        let (stop, stopping) = watch::channel(false);
        let (turns, sizer) = (self.host.turns(), Arc::clone(&self.sizer));
        let task = Task { worker: self, wakes: Arc::clone(&wakes), orders, stopping, turns };
        Handle { wakes, control, stop, sizer, task: tokio::spawn(task.supervise()) }
    }
}

impl<D> std::fmt::Debug for Worker<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Controls a worker that was started.
#[derive(Debug)]
#[must_use = "dropping the handle ends the worker"]
pub struct Handle {
    wakes: Arc<Wakes>,
    control: watch::Sender<Order>,
    /// True while the current run should end.
    stop: watch::Sender<bool>,
    /// The lock of the run that is under way.
    sizer: Arc<Mutex<BatchSizer>>,
    task: JoinHandle<Result<(), WorkerError>>,
}

impl Handle {
    /// Wakes the worker, because there is something to send. All calls before the next run count as
    /// one.
    pub fn wake(&self) {
        self.wakes.work.notify_one();
    }

    /// Begins the next run at once, even during a backoff, because something outside changed: the
    /// network is up, there are new credentials, or a person asks.
    pub fn retry_now(&self) {
        self.wakes.retry.notify_one();
    }

    /// Stops syncing until [`Self::resume`]. A wait for the server is cut short. The run that is
    /// under way may still commit an answer: [`Self::rests`] waits for its end.
    pub fn pause(&self) {
        self.order(Order::Pause);
    }

    /// Waits until no run of the book is under way, whoever started it. After [`Self::pause`], the
    /// worker sends and writes nothing from then on.
    pub async fn rests(&self) {
        drop(self.sizer.lock().await);
    }

    /// Resumes syncing at once after [`Self::pause`].
    pub fn resume(&self) {
        self.order(Order::Work);
    }

    /// Sets the order and the stop flag in one step. Otherwise a pause and a resume of two threads
    /// could leave the order of one thread with the stop flag of the other.
    fn order(&self, order: Order) {
        self.control.send_modify(|current| {
            *current = order;
            self.stop.send_replace(order != Order::Work);
        });
    }

    /// Returns whether the worker has ended by itself. [`Self::shutdown`] returns the reason.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Ends the worker and waits for its end.
    ///
    /// # Errors
    /// [`WorkerError`] if the worker ended earlier, by an error of the book or by a panic.
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
    /// Clears the calls so far, because the run that begins now is for them.
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

/// The wait between two runs.
struct Wait {
    length: Duration,
    /// Whether [`Handle::wake`] ends the wait.
    wakes: bool,
}

struct Task<D> {
    worker: Worker<D>,
    wakes: Arc<Wakes>,
    orders: watch::Receiver<Order>,
    stopping: watch::Receiver<bool>,
    /// The turns of the book.
    turns: Option<watch::Receiver<u64>>,
}

/// Waits until the book goes away or comes back; for ever if it never does.
async fn turn(turns: &mut Option<watch::Receiver<u64>>) {
    match turns {
        // The worker keeps the book, so the sender is there.
        Some(turns) => drop(turns.changed().await),
        None => std::future::pending().await,
    }
}

impl<D: SyncHost> Task<D> {
    /// Runs the work in its own task, so that a panic in the work is reported.
    async fn supervise(self) -> Result<(), WorkerError> {
        let host = Arc::clone(&self.worker.host);
        let ended = tokio::spawn(self.work()).await.unwrap_or(Err(WorkerError::Panicked));
        if let Err(error) = &ended {
            tracing::error!(%error, "the sync worker ended");
        }
        host.report(&Activity::Stopped);
        ended
    }

    async fn work(mut self) -> Result<(), WorkerError> {
        let mut failures = 0u32;
        while self.may_work().await {
            let mut sizer = tokio::select! {
                biased;
                sizer = Arc::clone(&self.worker.sizer).lock_owned() => sizer,
                _ = self.stopping.wait_for(|stop| *stop) => continue,
            };
            self.wakes.forget();
            let worker = &self.worker;
            let report = run_until(
                &worker.host,
                &*worker.remote,
                &*worker.clock,
                &worker.options.run,
                &mut sizer,
                self.stopping.clone(),
            )
            .await
            .map_err(|error| WorkerError::Book { source: Box::new(error) })?;
            drop(sizer);
            let wait = self.plan(&report, &mut failures);
            self.sleep(wait).await;
        }
        Ok(())
    }

    /// Waits while the worker is paused or the book is away. Returns whether the worker should run.
    async fn may_work(&mut self) -> bool {
        loop {
            let order = *self.orders.borrow_and_update();
            let turn_of_book = self.turns.as_mut().map(|turns| *turns.borrow_and_update());
            match order {
                Order::Work if turn_of_book.is_some_and(is_away) => {}
                Order::Work => return self.orders.has_changed().is_ok(),
                Order::End => return false,
                Order::Pause => self.worker.host.report(&Activity::Paused),
            }
            tokio::select! {
                changed = self.orders.changed() => if changed.is_err() { return false },
                () = turn(&mut self.turns) => {}
            }
        }
    }

    /// Decides how long to wait after a run, and reports it.
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
            let due = report.next_run.filter(|_| report.stopped == Stopped::Idle);
            let due = due.map_or(Duration::MAX, |next| next.since(now.wall));
            let length = due.min(self.look_after()).clamp(LEAST_WAIT, limits::BACKOFF_MOST);
            self.worker.host.report(&Activity::Waiting { until: now.wall.plus(length) });
            return Wait { length, wakes: true };
        };
        *failures = failures.saturating_add(1);
        let length = match failure.map(WaitAfter::of) {
            Some(WaitAfter::Longest) => limits::BACKOFF_MOST,
            Some(WaitAfter::Random { asked, most }) => self.backoff(*failures, asked).min(most),
            None => self.backoff(*failures, None),
        };
        let until = now.wall.plus(length);
        self.worker.host.report(&Activity::BackingOff { until, failures: *failures });
        Wait { length, wakes: false }
    }

    /// Returns the time until the next question for changes.
    fn look_after(&mut self) -> Duration {
        // The bound comes before the spread, which would be cut off else.
        let most = self.worker.options.look_every.min(limits::BACKOFF_MOST);
        let tenth = u64::try_from(most.as_millis() / 10).unwrap_or(u64::MAX);
        let less = self.worker.random.below(tenth.saturating_add(1));
        most.saturating_sub(Duration::from_millis(less))
    }

    fn backoff(&mut self, failures: u32, asked: Option<Duration>) -> Duration {
        backoff::backoff(failures, asked, &mut *self.worker.random)
    }

    /// Waits for the writes that follow a first one, no longer than until the run is due anyway.
    async fn gather(&mut self, due: Duration) {
        tokio::select! {
            () = tokio::time::sleep(self.worker.options.gather_for.min(due)) => {}
            () = self.wakes.retry.notified() => {}
            _ = self.orders.changed() => {}
        }
    }

    async fn sleep(&mut self, wait: Wait) {
        let began = self.worker.clock.now();
        loop {
            let left = wait.length.saturating_sub(passed(began, self.worker.clock.now()));
            if left.is_zero() {
                return;
            }
            tokio::select! {
                // Timers may stop while the device sleeps, so the loop reads the clocks now and
                // then.
                () = tokio::time::sleep(left.min(LOOK_AT_CLOCKS)) => {}
                () = self.wakes.work.notified(), if wait.wakes => {
                    let due = wait.length.saturating_sub(passed(began, self.worker.clock.now()));
                    return self.gather(due).await;
                }
                () = turn(&mut self.turns) => return,
                () = self.wakes.retry.notified() => return,
                // Either there is a new order, or the handle is gone. `may_work` finds out which.
                _ = self.orders.changed() => return,
            }
        }
    }
}

/// Returns the time that has passed, by the clock that shows the longer time: either clock may stop
/// or jump.
fn passed(began: Now, now: Now) -> Duration {
    now.monotonic.since(began.monotonic).max(now.wall.since(began.wall))
}

/// The shortest wait for something that is due: a book that always returns "now" must not make the
/// worker spin.
const LEAST_WAIT: Duration = Duration::from_secs(1);
/// The longest sleep without reading the clocks.
const LOOK_AT_CLOCKS: Duration = Duration::from_secs(60);
