//! Keeps the store open: after a failure it opens the store again, and writes to it once there is
//! room.
//!
//! ```text
//!             failure                  closed, opened again             room
//!   Writable ─────────► Out of reach ──────────────────────► Read only ──────► Writable
//! ```
//!
//! After a failed write the engine accepts no other write: the state on the disk is unknown until
//! the file is opened again, which repairs it. Reading resumes as soon as the file is open. Writing
//! resumes once a test file of some size can be written beside it.
//!
//! Invariants:
//! 1. A failure is reported to the request that met it, and to all requests until the store is open
//!    again. No answer comes from a store in an unknown state.
//! 2. The file that is opened again is the same store, in the same epoch.
//! 3. A store that is opened again is read from the disk, not from pages of failed writes that the
//!    system still has in memory.
//! 4. Opening again costs at most a part of the time ([`PAUSES`]), however often it fails.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fieldbook_core::authority::{Accepted, Caller, Compared, Quota};
use fieldbook_core::log::StoreError;
use fieldbook_core::new_file::folder_of;
use fieldbook_core::protocol::{Change, CompareRequest, ExchangeAnswer, ExchangeRequest};
use fieldbook_core::{ServerEpoch, ServerId, WallTime};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Damaged, Incoming, OpenStoreError, StateError, Store, StoreExchangeError, Tenant};
use crate::door::Turn;

/// The shortest wait before the next try to open or write the store.
const PAUSE: Duration = Duration::from_millis(500);
/// The wait after a failed opening, as a multiple of the duration of that opening.
const PAUSES: u32 = 4;
/// The longest wait.
const PAUSE_MOST: Duration = Duration::from_secs(60);
/// The interval of checks whether all users have left a store that failed.
const LEAVING: Duration = Duration::from_millis(10);
/// The room that is needed before the store is written again, in bytes.
const ROOM: usize = 1024 * 1024;

/// Opens the store; a seam, so that tests can put a disk of their own below it.
type Opener = dyn Fn() -> Result<Store, OpenStoreError> + Send + Sync;
/// Checks whether there is room to write.
type Prober = dyn Fn() -> io::Result<()> + Send + Sync;

/// A store that recovers from a failure.
pub(crate) struct Keeper {
    open: Box<Opener>,
    probe: Box<Prober>,
    identity: (ServerId, ServerEpoch),
    verifiers: Vec<String>,
    state: Mutex<State>,
    failed: Notify,
}

#[derive(Debug)]
struct State {
    store: Option<Arc<Store>>,
    /// The store that failed, as long as an operation may still use it.
    leaving: Option<Arc<Store>>,
    writable: bool,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Keeper {
    /// Opens the store at a path, or makes it if there is no file.
    pub(crate) fn open(path: &Path, cache_bytes: usize) -> Result<Self, OpenStoreError> {
        let mut store = Store::open(path, cache_bytes)?;
        store.make_key_if_missing();
        store.count_digests_if_missing();
        let (to_open, to_probe) = (path.to_owned(), folder_of(path).to_owned());
        let open = move || reopen(&to_open, cache_bytes);
        let probe = move || write_some(&to_probe);
        Ok(Self::with(store, Box::new(open), Box::new(probe)))
    }

    fn with(store: Store, open: Box<Opener>, probe: Box<Prober>) -> Self {
        let (identity, verifiers) = (store.identity(), store.verifiers());
        let state = State { store: Some(Arc::new(store)), leaving: None, writable: true };
        Self { open, probe, identity, verifiers, state: Mutex::new(state), failed: Notify::new() }
    }

    /// Returns the server's id and epoch.
    pub(crate) const fn identity(&self) -> (ServerId, ServerEpoch) {
        self.identity
    }

    /// Returns the public keys that sign receipts.
    pub(crate) fn verifiers(&self) -> &[String] {
        &self.verifiers
    }

    /// Returns whether the store can be read and written, as far as is known.
    pub(crate) fn is_ready(&self) -> bool {
        let state = self.lock();
        state.store.is_some() && state.writable
    }

    /// Applies a request; see [`Store::accept`]. While nothing can be written, a request without
    /// units is still accepted, and its head is not anchored.
    pub(crate) fn accept(
        &self,
        incoming: Incoming<'_>,
        turn: Option<&Turn>,
    ) -> Result<Accepted, StoreExchangeError> {
        let writable = self.lock().writable;
        let without_head;
        let request = match (writable, incoming.request.units.is_empty()) {
            (true, _) => incoming.request,
            (false, true) => {
                without_head = Arc::new(ExchangeRequest {
                    head: None,
                    ..ExchangeRequest::clone(incoming.request)
                });
                &without_head
            }
            (false, false) => return Err(StoreExchangeError::OutOfReach),
        };
        self.with_store(|store| store.accept(Incoming { request, ..incoming }, turn))
    }

    /// Answers a request; see [`Store::answer`].
    pub(crate) fn answer(
        &self,
        incoming: Incoming<'_>,
        accepted: Accepted,
        take: impl FnMut(Change),
    ) -> Result<ExchangeAnswer, StoreExchangeError> {
        self.with_store(|store| store.answer(incoming, accepted, take))
    }

    /// Answers a request for a comparison; see [`Store::compare`].
    pub(crate) fn compare(
        &self,
        tenant: &Tenant,
        request: &CompareRequest,
        now: WallTime,
        for_whom: (&Caller, &Quota),
    ) -> Result<Compared, StoreExchangeError> {
        self.with_store(|store| store.compare(tenant, request, now, for_whom))
    }

    /// Copies the store into a new file; see [`Store::backup`]. A failure may be one of the place
    /// of the backup, so the store stays in use. None if the store is out of reach.
    pub(crate) fn backup(&self, path: &Path) -> Option<Result<u64, StoreError>> {
        let store = self.lock().store.clone()?;
        Some(store.backup(path))
    }

    /// Runs an operation on the store if it is open, and takes the store out of use if the
    /// operation fails.
    fn with_store<T>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreExchangeError>,
    ) -> Result<T, StoreExchangeError> {
        let store = self.lock().store.clone().ok_or(StoreExchangeError::OutOfReach)?;
        // The engine panics on some damage.
        let done = catch_unwind(AssertUnwindSafe(|| work(&store)));
        let done = done.unwrap_or_else(|_| {
            self.give_up(&store);
            Err(StateError::from(Damaged { what: "a page" }).into())
        });
        if let Err(StoreExchangeError::State(StateError::Storage(_))) = &done {
            self.give_up(&store);
        }
        done
    }

    /// Takes a store that failed out of use.
    fn give_up(&self, store: &Arc<Store>) {
        let mut state = self.lock();
        // Other operations that used the store at the same time call this function too.
        if state.store.as_ref().is_some_and(|present| Arc::ptr_eq(present, store)) {
            state.leaving = state.store.take();
            state.writable = false;
            self.failed.notify_one();
        }
    }

    /// Opens the store again whenever it has failed. Ends when dropped.
    pub(crate) async fn keep(self: Arc<Self>) {
        loop {
            self.failed.notified().await;
            tracing::error!("the store failed: it is closed and opened again");
            let took = self.open_again().await;
            tracing::warn!(
                "the store is open again for reading: writing resumes once there is room"
            );
            let pause = (took * PAUSES).clamp(PAUSE, PAUSE_MOST);
            loop {
                tokio::time::sleep(pause).await;
                let keeper = Arc::clone(&self);
                let resumed = tokio::task::spawn_blocking(move || keeper.resume()).await;
                if resumed.unwrap_or(false) {
                    break;
                }
            }
        }
    }

    /// Opens the store again, however many tries that takes. Returns the duration of the last
    /// opening.
    async fn open_again(self: &Arc<Self>) -> Duration {
        while self.lock().leaving.as_ref().is_some_and(|store| Arc::strong_count(store) > 1) {
            tokio::time::sleep(LEAVING).await;
        }
        loop {
            let began = Instant::now();
            let keeper = Arc::clone(self);
            let opened =
                tokio::task::spawn_blocking(move || keeper.try_to_open()).await.unwrap_or(false);
            let took = began.elapsed();
            if opened {
                return took;
            }
            tokio::time::sleep((took * PAUSES).clamp(PAUSE, PAUSE_MOST)).await;
        }
    }

    /// Closes the failed store and opens it again. Blocks.
    fn try_to_open(&self) -> bool {
        // The failed store is closed outside the lock. An error of closing it is expected.
        let leaving = self.lock().leaving.take();
        drop(leaving);
        match (self.open)() {
            Ok(store) if store.identity() == self.identity => {
                self.lock().store = Some(Arc::new(store));
                true
            }
            Ok(_) => {
                tracing::error!(
                    "another store stands in the place of the one that failed: put it back"
                );
                false
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the store cannot be opened again"
                );
                false
            }
        }
    }

    /// Allows writing if there is room. Returns whether nothing is left to do; the store may have
    /// failed again.
    fn resume(&self) -> bool {
        let room = (self.probe)();
        let mut state = self.lock();
        match room {
            Ok(()) if state.store.is_some() => {
                state.writable = true;
                tracing::warn!("the store is written again");
                true
            }
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "nothing can be written beside the store yet"
                );
                state.store.is_none()
            }
        }
    }

    /// Closes the file, so that the next opening is quick.
    pub(crate) fn close(self) -> Result<(), StateError> {
        let mut state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        match state.store.take().and_then(Arc::into_inner) {
            Some(store) => store.close(),
            // A store that failed is repaired by the next opening.
            None => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the store in its state on the disk.
fn reopen(path: &Path, cache_bytes: usize) -> Result<Store, OpenStoreError> {
    forget_cached_pages(path);
    Store::open_existing(path, cache_bytes)
}

/// Makes the system drop its cached pages of a file. After a failed sync the cache may have pages
/// that never reached the disk. They would look stored, and be lost at the next loss of power.
#[cfg(target_os = "linux")]
fn forget_cached_pages(path: &Path) {
    let forgotten = std::fs::File::open(path)
        .and_then(|file| Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?));
    if let Err(error) = forgotten {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "the cached pages of the store stay"
        );
    }
}

/// Does nothing, because other systems have no such call.
#[cfg(not(target_os = "linux"))]
fn forget_cached_pages(_: &Path) {}

/// Writes a file without a name, to check whether there is room.
fn write_some(folder: &Path) -> io::Result<()> {
    let mut file = tempfile::tempfile_in(folder)?;
    file.write_all(&vec![b'x'; ROOM])?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
