//! Background sync: the worker of `fieldbook-transport` on this book. Writes wake it.
//!
//! ```text
//!   write ──► watchers ──► new ops to send? ──► wake ┐
//!   a park ended ──► retry now ─────────────────────┼─► worker ─► run, in turn with `Book::sync` ─► status
//!   timers (undo windows, backoff, interval) ───────┘
//!   no change for half a second ──► the book comes to rest ([`Book::rest`])
//! ```
//!
//! Invariants:
//! 1. A run of the worker and a [`Book::sync`] of the same book take turns, whole run by whole run.
//! 2. The writes of a run do not wake the next run.
//! 3. The worker has no state of its own: all of it is in the book, so the worker may end at any
//!    moment.
//! 4. The tasks end with the handle. Until then they keep the book open.
//!
//! What it is not: a scheduler of the operating system. An app that is only woken from time to time
//! calls [`Book::sync`].

use std::sync::{Arc, Weak};
use std::time::Duration;

use fieldbook_core::entry::ParkScope;
use fieldbook_core::{Randomness, RecordKey, SeededRandomness};
use fieldbook_transport::{Handle, Remote, Worker, WorkerError, WorkerOptions};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Mutex, broadcast, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::book::{Book, Shared};
use crate::error::Error;
use crate::status::SyncStatus;

/// The time without a change after which the book comes to rest.
const REST_AFTER: Duration = Duration::from_millis(500);

impl Book {
    /// Keeps the book synced in the background, on the tokio runtime of the caller, until the
    /// handle is shut down or dropped. It syncs at once, after each local write (or a while later:
    /// [`WorkerOptions::gather_for`]), when a hold ends, at intervals to fetch changes of others, and
    /// again after failures, with backoff.
    /// [`Book::watch_status`] shows its state.
    ///
    /// While the book is suspended ([`Book::suspend`]) the sync waits, and goes on by itself when it
    /// is resumed. The book cannot be closed before the handle is gone. After [`Book::act_as`], call
    /// [`SyncHandle::wake`].
    ///
    /// # Errors
    /// [`Error::Misuse`] outside a tokio runtime.
    pub fn keep_syncing(
        &self,
        remote: Arc<dyn Remote>,
        options: WorkerOptions,
    ) -> Result<SyncHandle, Error> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::Misuse("background sync needs a tokio runtime: call it within one"));
        }
        let mut seed = [0; 32];
        self.shared.ids().fill(&mut seed);
        // The channels are opened before the first run, so no write in between is missed.
        let (changes, status) = (self.watch(), self.watch_status());
        let worker = Worker {
            host: Arc::clone(&self.shared),
            remote,
            clock: Arc::clone(&self.shared.clock),
            random: Box::new(SeededRandomness::new(seed)),
            options,
            sizer: Arc::clone(&self.shared.syncing),
        };
        let handle = Arc::new(worker.start());
        let resting = Arc::default();
        let listener = Listener {
            shared: Arc::downgrade(&self.shared),
            resting: Arc::clone(&resting),
            worker: Arc::downgrade(&handle),
            parks: self.shared.parks(),
            parked_ops: self.shared.tail().parked().len(),
        };
        let listening = Task(tokio::spawn(listener.listen(changes, status)));
        Ok(SyncHandle { handle, listening, resting })
    }
}

/// The handle of a book's background sync. Dropping it ends the sync.
#[derive(Debug)]
#[must_use = "dropping the handle ends the background sync"]
pub struct SyncHandle {
    handle: Arc<Handle>,
    listening: Task,
    /// The lock that the call holds which brings the book to rest.
    resting: Arc<Mutex<()>>,
}

impl SyncHandle {
    /// Wakes the worker to send. Local writes do so by themselves. A backoff is not shortened.
    pub fn wake(&self) {
        self.handle.wake();
    }

    /// Syncs at once, also during a backoff: after the network came up, or because a person asked.
    pub fn retry_now(&self) {
        self.handle.retry_now();
    }

    /// Stops syncing until [`Self::resume`]. A wait for the server is cut short, a commit is not.
    ///
    /// A run that has begun may still commit an answer that has arrived: [`Self::rests`] waits for
    /// its end.
    pub fn pause(&self) {
        self.handle.pause();
    }

    /// Waits until no run of the book is under way, those of [`Book::sync`] included. After
    /// [`Self::pause`], nothing is sent or applied from then on until [`Self::resume`].
    pub async fn rests(&self) {
        self.handle.rests().await;
    }

    /// Continues at once after [`Self::pause`].
    pub fn resume(&self) {
        self.handle.resume();
    }

    /// Returns whether the sync has ended by itself. [`Self::shutdown`] returns why.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// Ends the background sync and waits for its end. After that it makes no call into the book,
    /// and the book can be closed if there is no other handle to it.
    ///
    /// # Errors
    /// [`WorkerError`] if the sync had ended before, by a failure of the book or a panic.
    pub async fn shutdown(self) -> Result<(), WorkerError> {
        let Self { handle, mut listening, resting } = self;
        listening.end().await;
        drop(resting.lock().await);
        match Arc::try_unwrap(handle) {
            Ok(handle) => handle.shutdown().await,
            // The listener was the only other holder, and it has ended.
            Err(_) => Err(WorkerError::Panicked),
        }
    }
}

/// A task that ends when this value is dropped.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Task {
    /// Ends the task and waits until all its values are dropped.
    async fn end(&mut self) {
        self.0.abort();
        // The task was ended here, or had ended by itself. Both are right.
        drop((&mut self.0).await);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Receives the book's changes and wakes the worker.
struct Listener {
    shared: Weak<Shared>,
    resting: Arc<Mutex<()>>,
    worker: Weak<Handle>,
    parks: Vec<ParkScope>,
    parked_ops: usize,
}

impl Listener {
    async fn listen(
        mut self,
        mut changes: broadcast::Receiver<Arc<[RecordKey]>>,
        mut status: watch::Receiver<SyncStatus>,
    ) {
        let mut rests_at = Some(Instant::now() + REST_AFTER);
        loop {
            let rest = async {
                match rests_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = rest => {
                    rests_at = None;
                    self.rest().await;
                    continue;
                }
                changed = changes.recv() => match changed {
                    Ok(keys) => if self.has_new_work(&keys) { self.tell(Handle::wake) },
                    Err(RecvError::Lagged(_)) => self.tell(Handle::wake),
                    Err(RecvError::Closed) => return,
                },
                changed = status.changed() => match changed {
                    Ok(()) => if self.goes_on() { self.tell(Handle::retry_now) },
                    Err(_) => return,
                },
            }
            rests_at = Some(Instant::now() + REST_AFTER);
        }
    }

    /// Brings the book to rest. An error stops the book's writes, and the next write returns it.
    async fn rest(&self) {
        let resting = Arc::clone(&self.resting).lock_owned().await;
        if let Some(shared) = self.shared.upgrade() {
            let rest = move || {
                let rested = shared.rest();
                drop(shared);
                drop(resting);
                rested
            };
            let rested = tokio::task::spawn_blocking(rest).await;
            if let Ok(Err(error)) = rested {
                tracing::error!(%error, "the book did not come to rest");
            }
        }
    }

    fn tell(&self, word: impl FnOnce(&Handle)) {
        if let Some(worker) = self.worker.upgrade() {
            word(&worker);
        }
    }

    /// Returns whether a changed record has an op that is in no unit: a new op, or one that went
    /// back to the tail. The changes of a run itself leave no such op.
    fn has_new_work(&self, keys: &[RecordKey]) -> bool {
        let Some(shared) = self.shared.upgrade() else { return false };
        let tail = shared.tail();
        let mut ops = keys.iter().flat_map(|key| tail.ops_of(key));
        ops.any(|place| tail.unit_of(place).is_none() && !tail.is_dead(place))
    }

    /// Returns whether a park has ended.
    fn goes_on(&mut self) -> bool {
        let Some(shared) = self.shared.upgrade() else { return false };
        let parked_ops = shared.tail().parked().len();
        let before = std::mem::replace(&mut self.parks, shared.parks());
        let fewer_ops = std::mem::replace(&mut self.parked_ops, parked_ops) > parked_ops;
        fewer_ops || before.iter().any(|scope| !self.parks.contains(scope))
    }
}

impl Shared {
    fn parks(&self) -> Vec<ParkScope> {
        self.state().parks.iter().map(|(scope, _)| scope.clone()).collect()
    }
}
