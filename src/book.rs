//! The book: how it is opened and closed, and the state that its parts share.
//!
//! ```text
//!   app ──► write ──► writer (one round at a time) ──► log + tables, one commit ──► tail, watchers
//!   app ──► read  ──► a snapshot of the tables
//!   app ──► sync  ──► transport's loop ──► host ──► writer
//! ```
//!
//! Invariants:
//! 1. The file has everything that must survive. The state in memory ([`Shared`]) is folded from it
//!    when the book is opened.
//! 2. The state in memory changes after a commit, never before.
//! 3. After a storage error every write fails until the book is opened anew.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use fieldbook_core::entry::{Control, Draft, Opened};
use fieldbook_core::locks::{
    AtomicBool, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
use fieldbook_core::log::{GroupCommit, Head, Store, StoreError, guarded, read_head};
use fieldbook_core::rows::{FOLD_VERSION, StateRow};
use fieldbook_core::rules::clock::ServerTime;
use fieldbook_core::rules::plan::ReadyQueue;
use fieldbook_core::tail::Tail;
use fieldbook_core::{
    Actor, Clock, DeviceId, DeviceKey, Epoch, Hlc, Now, Randomness, RecordKey, Schema,
    SeededRandomness, UnitId,
};
use fieldbook_projections::{Projections, Snapshot};
use tokio::sync::{broadcast, watch};

use crate::audit::Audit;
use crate::decisions::{Conflicts, DeadLetters, Servers};
use crate::error::Error;
use crate::exchange::{Exchange, Others};
use crate::inspect::Attention;
use crate::latest::Latest;
use crate::maintain::refold;
use crate::options::{BookOptions, Connectivity};
use crate::status::{Engine, Queue, SyncStatus};
use crate::writer::{Job, Session};

/// The most commits that a slow watcher may lag behind. After more, its receiver reports that it
/// missed some.
const WATCH_BACKLOG: usize = 1_024;
/// The most writes that share one commit.
const ROUND_JOBS: usize = 1_024;

/// The store of one device: the log, the tables folded from it, and the sync with a server.
///
/// A `Book` is a handle; clones share the same book. All methods may be called from any thread. A
/// write blocks until its commit is durable, so an async app calls it on a blocking thread.
#[derive(Clone)]
pub struct Book {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    /// It is before the store, so that it is dropped first: the store's close needs that no
    /// snapshot is open.
    pub(crate) latest: Latest,
    pub(crate) store: Store,
    pub(crate) schema: Schema,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) connectivity: Arc<dyn Connectivity>,
    pub(crate) group: GroupCommit<Job, Result<(), Error>>,
    pub(crate) writer: Mutex<WriterState>,
    ids: Mutex<SeededRandomness>,
    /// `None` for a book from before there were device keys: copies of it could not agree on a
    /// key.
    pub(crate) device_key: Option<DeviceKey>,
    pub(crate) others: Others,
    pub(crate) tail: RwLock<Tail>,
    /// The records of the tail that are ready to be planned. A holder of this lock also holds that
    /// of `tail`.
    pub(crate) ready: Mutex<ReadyQueue>,
    pub(crate) state: RwLock<StateRow>,
    pub(crate) actor: RwLock<Actor>,
    pub(crate) server_time: Mutex<Option<ServerTime>>,
    pub(crate) failed: AtomicBool,
    pub(crate) changes: broadcast::Sender<Arc<[RecordKey]>>,
    pub(crate) status: watch::Sender<SyncStatus>,
    /// The state of the engine. The lock is held while a status is read and sent to the watchers.
    pub(crate) engine: Mutex<Engine>,
    /// The units that are in flight.
    pub(crate) sending: Mutex<BTreeSet<UnitId>>,
    pub(crate) syncing: Arc<tokio::sync::Mutex<fieldbook_transport::BatchSizer>>,
    pub(crate) attention: Mutex<Attention>,
}

/// State that only the committing round uses.
pub(crate) struct WriterState {
    pub(crate) head: Option<Head>,
    pub(crate) randomness: Box<dyn Randomness>,
    pub(crate) projections: Projections,
}

impl Book {
    /// Makes a new book at a path that does not exist.
    ///
    /// # Errors
    /// [`Error::Store`] if the path exists, or the disk fails. No file is left behind then.
    pub fn create_new(path: impl AsRef<Path>, options: BookOptions) -> Result<Self, Error> {
        let store = Store::create(path.as_ref(), &options.store)?;
        Self::start(store, options)
    }

    /// Opens an existing book.
    ///
    /// # Errors
    /// [`Error::Store`] if the file does not exist, is open elsewhere, is no book, or is damaged.
    /// The file is unchanged then.
    pub fn open(path: impl AsRef<Path>, options: BookOptions) -> Result<Self, Error> {
        let store = Store::open(path.as_ref(), &options.store)?;
        Self::start(store, options)
    }

    /// Opens the book at a path, or makes it if the path does not exist.
    ///
    /// # Errors
    /// [`Error::Store`] as for [`Self::open`] and [`Self::create_new`].
    pub fn open_or_create(path: impl AsRef<Path>, options: BookOptions) -> Result<Self, Error> {
        if path.as_ref().exists() {
            Self::open(path, options)
        } else {
            Self::create_new(path, options)
        }
    }

    pub(crate) fn start(mut store: Store, options: BookOptions) -> Result<Self, Error> {
        let mut randomness: Box<dyn Randomness> = match options.randomness {
            Some(randomness) => randomness,
            None => Box::new(fieldbook_core::system::randomness().map_err(|source| {
                StoreError::Disk {
                    during: "asking the operating system for randomness",
                    source: Box::new(source),
                }
            })?),
        };
        let mut seed = [0; 32];
        randomness.fill(&mut seed);
        let mut projections = options.projections;
        // The storage engine may panic on a damaged page. The error then blames the file, not the
        // app.
        let read = guarded(|| read_tables(&mut store, &options.schema, &mut projections));
        let (head, state, tail, known_key) = match read {
            Ok(read) => read,
            Err(error) => {
                // The store is damaged, so its file must not change any more, not even by a close.
                store.abandon();
                return Err(error);
            }
        };
        // The key is made with the book, so every copy of the book has the same key.
        let device_key = if head.is_none() { Some(DeviceKey::from_seed(&seed)) } else { known_key };
        let server_time =
            state.server_time.map(|(server, wall)| ServerTime::remembered(server, wall));
        let shared = Shared {
            latest: Latest::default(),
            store,
            clock: options.clock,
            connectivity: options.connectivity,
            group: GroupCommit::new(ROUND_JOBS),
            ids: Mutex::new(SeededRandomness::new(seed)),
            device_key,
            others: Others::default(),
            writer: Mutex::new(WriterState { head, randomness, projections }),
            ready: Mutex::new(ReadyQueue::of(&tail, &options.schema)),
            tail: RwLock::new(tail),
            state: RwLock::new(state),
            actor: RwLock::new(options.actor),
            server_time: Mutex::new(server_time),
            failed: AtomicBool::new(false),
            changes: broadcast::Sender::new(WATCH_BACKLOG),
            status: watch::Sender::new(SyncStatus::default()),
            engine: Mutex::default(),
            sending: Mutex::default(),
            syncing: Arc::default(),
            attention: Mutex::default(),
            schema: options.schema,
        };
        let book = Self { shared: Arc::new(shared) };
        if head.is_none() {
            book.shared.write_in_turn(move |session| {
                if let Some(key) = &device_key {
                    session.tables.set_device_key(key)?;
                }
                Shared::begin_log(session)
            })?;
        }
        if !book.shared.store.is_look_only() {
            book.take_in_what_is_declared_now()?;
            book.upcast_what_waits()?;
            book.shared.fold_new_projections()?;
        }
        book.shared.review_all();
        book.shared.refresh_status();
        Ok(book)
    }

    /// Returns the actor who uses the book.
    pub fn actor(&self) -> Actor {
        read(&self.shared.actor).clone()
    }

    /// Sets the actor who uses the book from now on. An op keeps the actor who made it, and is sent
    /// with that actor's credentials only.
    pub fn act_as(&self, actor: Actor) {
        *write(&self.shared.actor) = actor;
        // A request for new credentials concerned the former actor.
        self.shared.forget_reason();
    }

    /// Returns the conflicts with the server.
    pub const fn conflicts(&self) -> Conflicts<'_> {
        Conflicts::of(self)
    }

    /// Returns the ops that the server refused. A person decides about them.
    pub const fn dead_letters(&self) -> DeadLetters<'_> {
        DeadLetters::of(self)
    }

    /// Returns the ops that are pending.
    pub const fn queue(&self) -> Queue<'_> {
        Queue { book: self }
    }

    /// Returns the book's state at its server, and a person's actions about it.
    pub const fn servers(&self) -> Servers<'_> {
        Servers::of(self)
    }

    /// Returns the methods for an exchange driven by hand.
    pub const fn exchange(&self) -> Exchange<'_> {
        Exchange { book: self }
    }

    /// Returns the log, with its maintenance.
    pub const fn audit(&self) -> Audit<'_> {
        Audit { book: self }
    }

    /// Returns a receiver of the records that each commit changed.
    pub fn watch(&self) -> broadcast::Receiver<Arc<[RecordKey]>> {
        self.shared.changes.subscribe()
    }

    /// Closes the book, and returns whether the close succeeded. There must be no other handle to
    /// it.
    ///
    /// # Errors
    /// [`Error::InUse`] if there is another handle; [`Error::Store`] if the disk fails.
    pub fn close(self) -> Result<(), Error> {
        let shared = Arc::try_unwrap(self.shared).map_err(|_| Error::InUse)?;
        shared.latest.forget();
        Ok(shared.store.close()?)
    }
}

/// Reads the tables into memory. Rows of another [`FOLD_VERSION`] are folded anew first.
fn read_tables(
    store: &mut Store,
    schema: &Schema,
    projections: &mut Projections,
) -> Result<(Option<Head>, StateRow, Tail, Option<DeviceKey>), Error> {
    let mut snapshot = Snapshot::new(store.begin_read()?);
    let head = read_head(&snapshot.entries()?)?;
    // Rows of another version need not be readable: the tables are folded anew from the log.
    if head.is_some() && !snapshot.state().is_ok_and(|state| state.format == FOLD_VERSION) {
        drop(snapshot);
        if store.is_look_only() {
            // On damaged pages a commit can end the process. A read-only app must not risk that;
            // `rebuild` is for such files.
            store.check_pages()?;
        }
        refold(store, schema, head, |_| {})?;
        snapshot = Snapshot::new(store.begin_read()?);
    }
    let state = snapshot.state()?;
    let tail = snapshot.tail(schema)?;
    projections.settle(&snapshot)?;
    let device_key = snapshot.device_key()?;
    Ok((head, state, tail, device_key))
}

impl std::fmt::Debug for Book {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Book").field("device", &self.shared.state().device).finish_non_exhaustive()
    }
}

impl Shared {
    /// Takes a snapshot of the whole book, to read several things at the same instant. While it
    /// exists, overwritten pages keep their space in the file.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, Error> {
        Ok(Snapshot::new(self.store.begin_read()?))
    }

    pub(crate) fn tail(&self) -> RwLockReadGuard<'_, Tail> {
        read(&self.tail)
    }

    pub(crate) fn state(&self) -> RwLockReadGuard<'_, StateRow> {
        read(&self.state)
    }

    pub(crate) fn server_time(&self) -> Option<ServerTime> {
        *self.server_time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lends randomness for ids that are made outside a commit, so a new id never waits for the
    /// disk.
    pub(crate) fn ids(&self) -> MutexGuard<'_, SeededRandomness> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the server's clock, to correct this device's clock.
    pub(crate) fn hear_server(&self, server: fieldbook_core::WallTime, now: Now) {
        let heard = ServerTime::heard(server, now);
        *self.server_time.lock().unwrap_or_else(PoisonError::into_inner) = Some(heard);
    }

    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
        self.refresh_status();
    }

    pub(crate) fn check_alive(&self) -> Result<(), Error> {
        if self.failed.load(Ordering::SeqCst) { Err(StoreError::Poisoned.into()) } else { Ok(()) }
    }

    /// Writes the first entry of a new log.
    fn begin_log(session: &mut Session<'_>) -> Result<(), Error> {
        let device = DeviceId::new(session.now.wall, session.randomness);
        session.epoch = Epoch::new(session.now.wall, session.randomness);
        let opened =
            Opened { device, made_by: concat!("fieldbook ", env!("CARGO_PKG_VERSION")).to_owned() };
        session.append(Draft::control(Control::Opened(opened)), Hlc::ZERO)?;
        Ok(())
    }
}

/// No code under these locks can panic in the middle of a change, so the data of a poisoned lock is
/// sound.
pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
