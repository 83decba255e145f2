//! Syncing in the background: transport's worker over this book, woken by what is written.
//!
//! ```text
//!   write ──► watchers ──► is something new to be sent? ──► wake ┐
//!   signed in, upgraded, server confirmed ──► retry now ────────┼──► worker ──► run, in turn with `Book::sync` ──► status
//!   timers (undo windows, backoff, a look now and then) ────────┘
//! ```
//!
//! Invariants:
//! 1. A run of the worker and a [`Book::sync`] of the same book take turns, whole run by whole run.
//! 2. What a run itself writes does not wake the next one.
//! 3. The worker keeps nothing: all it goes by is in the book, so it may end at any moment.
//! 4. The tasks end with the handle. They hold the book open until then.
//!
//! What it is not: a scheduler of the operating system. Where an app is only woken now and then, it calls [`Book::sync`].

use std::sync::{Arc, Weak};

use fieldbook_core::entry::ParkScope;
use fieldbook_core::{Randomness, RecordKey, SeededRandomness};
use fieldbook_transport::{Handle, Remote, Worker, WorkerError, WorkerOptions};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

use crate::book::{Book, Shared};
use crate::error::Error;
use crate::status::SyncStatus;

impl Book {
    /// Keeps the book synced in the background, on the tokio runtime of the caller, until the handle is shut down or
    /// dropped. It syncs at once, after each local write, when something held becomes due, now and then to hear of others'
    /// changes, and again after failures, with backoff. What it is doing shows in [`Book::watch_status`].
    ///
    /// While it lives the book cannot be closed. After [`Book::act_as`], call [`SyncHandle::wake`].
    ///
    /// # Errors
    /// [`Error::Misuse`] outside a tokio runtime.
    pub fn keep_syncing(&self, remote: Arc<dyn Remote>, options: WorkerOptions) -> Result<SyncHandle, Error> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::Misuse("background sync needs a tokio runtime: call it within one"));
        }
        let mut seed = [0; 32];
        self.shared.ids().fill(&mut seed);
        // Listening begins before the first run, so that nothing written meanwhile is missed.
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
        let listener = Listener {
            shared: Arc::downgrade(&self.shared),
            worker: Arc::downgrade(&handle),
            parks: self.shared.parks(),
            parked_ops: self.shared.tail().parked().len(),
        };
        let listening = Task(tokio::spawn(listener.listen(changes, status)));
        Ok(SyncHandle { handle, listening })
    }
}

/// Steers the background sync of a book. Dropping it ends the sync.
#[derive(Debug)]
#[must_use = "dropping the handle ends the background sync"]
pub struct SyncHandle {
    handle: Arc<Handle>,
    listening: Task,
}

impl SyncHandle {
    /// Says that there is something to send. Local writes do so by themselves. It never shortens a backoff.
    pub fn wake(&self) {
        self.handle.wake();
    }

    /// Says that the world outside changed (the network is up, a person asks): syncs at once, also while backing off.
    pub fn retry_now(&self) {
        self.handle.retry_now();
    }

    /// Stops syncing until [`Self::resume`]. A wait for the server is cut short, a commit is not.
    pub fn pause(&self) {
        self.handle.pause();
    }

    /// Goes on after [`Self::pause`], at once.
    pub fn resume(&self) {
        self.handle.resume();
    }

    /// Returns whether it has ended by itself; [`Self::shutdown`] says why.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// Ends the background sync and waits until it has: then no call into the book is under way and, if no other handle to
    /// the book is left, it can be closed.
    ///
    /// # Errors
    /// [`WorkerError`] if it had ended before, by a failure of the book or a panic.
    pub async fn shutdown(self) -> Result<(), WorkerError> {
        let Self { handle, mut listening } = self;
        listening.end().await;
        match Arc::try_unwrap(handle) {
            Ok(handle) => handle.shutdown().await,
            // The listener was the only other holder, and it is gone.
            Err(_) => Err(WorkerError::Panicked),
        }
    }
}

/// A task that ends when this is dropped.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Task {
    /// Ends the task and waits until all it holds is dropped.
    async fn end(&mut self) {
        self.0.abort();
        // It was ended, or had ended by itself: either is what was wanted.
        drop((&mut self.0).await);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Hears of what happens in the book and wakes the worker for it.
struct Listener {
    shared: Weak<Shared>,
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
        loop {
            tokio::select! {
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
        }
    }

    fn tell(&self, word: impl FnOnce(&Handle)) {
        if let Some(worker) = self.worker.upgrade() {
            word(&worker);
        }
    }

    /// Returns whether a record that changed has an op that is in no unit: one that was just written, or goes back to the
    /// tail. What a run itself does to records leaves none.
    fn has_new_work(&self, keys: &[RecordKey]) -> bool {
        let Some(shared) = self.shared.upgrade() else { return false };
        let tail = shared.tail();
        let mut ops = keys.iter().flat_map(|key| tail.ops_of(key));
        ops.any(|place| tail.unit_of(place).is_none() && !tail.is_dead(place))
    }

    /// Returns whether something that was parked no longer is.
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
