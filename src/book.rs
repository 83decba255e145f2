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
use fieldbook_core::log::{GroupCommit, Head, Store, StoreError};
use fieldbook_core::rows::StateRow;
use fieldbook_core::rules::clock::ServerTime;
use fieldbook_core::rules::plan::ReadyQueue;
use fieldbook_core::rules::silence::Silences;
use fieldbook_core::{
    Actor, Clock, DeviceId, DeviceKey, Epoch, Hlc, Hook, Now, Randomness, RecordKey, Schema,
    SeededRandomness, UnitId,
};
#[cfg(feature = "search")]
use fieldbook_projections::search::Searches;
use fieldbook_projections::{Indexes, Projections, Snapshot};
use tokio::sync::{broadcast, watch};

use crate::audit::Audit;
use crate::decisions::{Conflicts, DeadLetters, Servers};
use crate::declared::{Opening, PROGRAM};
use crate::error::Error;
use crate::exchange::{Exchange, Others};
use crate::gate::Gate;
use crate::guests::Guests;
use crate::indexes::Wanted;
use crate::inspect::Attention;
use crate::latest::Latest;
use crate::lend::Seat;
use crate::live::LiveLists;
use crate::options::{BookOptions, Connectivity};
use crate::origin::{Origin, Reopen};
use crate::ready::Following;
use crate::status::{Engine, Queue, SyncStatus};
use crate::suspended::Suspension;
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
    /// The tail, with the snapshot of its moment. It is before the store for the same reason.
    pub(crate) following: Mutex<Following>,
    /// How the file is opened again, and who is told that it is open. Who suspends or resumes the
    /// book holds this lock. It is before the store: nobody is told so any more when it is closed.
    pub(crate) origin: Mutex<Origin>,
    pub(crate) store: Gate,
    pub(crate) suspension: Suspension,
    pub(crate) guests: Arc<Guests>,
    pub(crate) schema: Schema,
    /// The functions of the app that this program lacks.
    pub(crate) lacking: Vec<Hook>,
    /// The failed exchanges that no entry has yet.
    pub(crate) silences: Mutex<Silences>,
    /// The indexes that every commit follows.
    pub(crate) indexes: Indexes,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) connectivity: Arc<dyn Connectivity>,
    pub(crate) group: GroupCommit<Job, Result<(), Error>>,
    pub(crate) writer: Mutex<WriterState>,
    ids: Mutex<SeededRandomness>,
    /// `None` for a book from before there were device keys: copies of it could not agree on a
    /// key.
    pub(crate) device_key: Option<DeviceKey>,
    pub(crate) others: Others,
    /// The records of the tail that are ready to be planned. The tail changes only under this lock.
    pub(crate) ready: Mutex<ReadyQueue>,
    pub(crate) state: RwLock<StateRow>,
    pub(crate) actor: RwLock<Actor>,
    pub(crate) server_time: Mutex<Option<ServerTime>>,
    pub(crate) failed: AtomicBool,
    /// The entity types that are searched.
    #[cfg(feature = "search")]
    pub(crate) searches: Searches,
    /// What is to be told to live lists.
    pub(crate) live: LiveLists,
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
    /// What this opening records with its first write; none after it.
    pub(crate) opening: Option<Box<Opening>>,
    /// Whether a kill now needs no repair at the next opening.
    pub(crate) at_rest: bool,
}

impl Book {
    /// Makes a new book at a path that does not exist.
    ///
    /// # Errors
    /// [`Error::Store`] if the path exists, or the disk fails; [`Error::Misuse`] if an index cannot
    /// be declared so. No file is left behind then.
    pub fn create_new(path: impl AsRef<Path>, options: BookOptions) -> Result<Self, Error> {
        // A fault of the declarations leaves no file behind.
        options.check()?;
        let store = Store::create(path.as_ref(), &options.store)?;
        Self::start(store, options)
    }

    /// Opens an existing book.
    ///
    /// # Errors
    /// [`Error::Store`] if the file does not exist, is open elsewhere, is no book, or is damaged.
    /// The file is unchanged then.
    pub fn open(path: impl AsRef<Path>, options: BookOptions) -> Result<Self, Error> {
        options.schema.refuse(path.as_ref(), &options.store)?;
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

    pub(crate) fn start(store: Store, options: BookOptions) -> Result<Self, Error> {
        let (path, of_store) = (store.path().ok().map(Path::to_owned), options.store);
        let reopen = path.map(|path| -> Reopen { Box::new(move || Store::open(&path, &of_store)) });
        Self::start_from(store, options, reopen)
    }

    /// Starts a book that is suspended by closing its store, and resumed by opening it anew.
    pub(crate) fn start_from(
        store: Store,
        options: BookOptions,
        reopen: Option<Reopen>,
    ) -> Result<Self, Error> {
        let (declared, app) = (options.check()?, options.app_in_words());
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
        let mut origin = Origin {
            seat: Seat::new(options.sharing, store.path().ok(), &options.clock, app),
            reopen,
            schema: options.schema,
            wanted: Wanted { declared, on_build: options.on_index_build },
            app: options.app,
            system: options.system,
            clock: Arc::clone(&options.clock),
            record: Vec::new(),
        };
        let mut projections = options.projections;
        let (store, found) = origin.read(store, &mut projections)?;
        let (head, state, in_force) = (found.head, found.state, found.in_force);
        // The key is made with the book, so every copy of the book has the same key.
        let device_key =
            if head.is_none() { Some(DeviceKey::from_seed(&seed)) } else { found.device_key };
        let server_time =
            state.server_time.map(|(server, wall)| ServerTime::remembered(server, wall));
        origin.record = in_force.record;
        let opening = origin.opening(store.stopped_before());
        let shared = Shared {
            latest: Latest::default(),
            following: Mutex::new(found.following),
            store: Gate::new(store),
            suspension: Suspension::default(),
            guests: Arc::default(),
            origin: Mutex::new(origin),
            clock: options.clock,
            connectivity: options.connectivity,
            group: GroupCommit::new(ROUND_JOBS),
            ids: Mutex::new(SeededRandomness::new(seed)),
            device_key,
            others: Others::default(),
            writer: Mutex::new(WriterState {
                head,
                randomness,
                projections,
                opening: Some(Box::new(opening)),
                at_rest: false,
            }),
            ready: Mutex::default(),
            state: RwLock::new(state),
            actor: RwLock::new(options.actor),
            server_time: Mutex::new(server_time),
            failed: AtomicBool::new(false),
            #[cfg(feature = "search")]
            searches: read_as_the_app(options.searches, &in_force.schema),
            live: LiveLists::default(),
            changes: broadcast::Sender::new(WATCH_BACKLOG),
            status: watch::Sender::new(SyncStatus::default()),
            engine: Mutex::default(),
            sending: Mutex::default(),
            syncing: Arc::default(),
            attention: Mutex::default(),
            schema: in_force.schema,
            lacking: in_force.lacking,
            silences: Mutex::default(),
            indexes: found.indexes,
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
        book.shared.take_seat()?;
        book.catch_up()?;
        book.shared.review_all();
        book.shared.refresh_status();
        Ok(book)
    }

    /// Adapts what the file has to the declarations of the app.
    pub(crate) fn catch_up(&self) -> Result<(), Error> {
        if self.shared.store.is_read_only() {
            return Ok(());
        }
        self.adopt_what_is_declared_now()?;
        self.upcast_what_waits()?;
        self.shared.fold_new_projections()
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
        self.shared.live.statuses_changed();
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

    /// Brings the book to rest: if the process is killed before the next write, the next opening
    /// needs no repair. A repair reads the whole file.
    ///
    /// It waits for running writes and commits once more without a change, which takes about as
    /// long as two small writes. It does nothing if nothing was written since the last time.
    /// Background sync calls it after each half second without a change. An app without background
    /// sync can call it when it goes to the background.
    ///
    /// # Errors
    /// [`Error::Unknown`] if the disk fails; the book takes no more writes then.
    pub fn rest(&self) -> Result<(), Error> {
        self.shared.rest()
    }

    /// Closes the book, and returns whether the close succeeded. There must be no other handle to
    /// it.
    ///
    /// # Errors
    /// [`Error::InUse`] if there is another handle; [`Error::Store`] if the disk fails.
    pub fn close(self) -> Result<(), Error> {
        // A suspended book was closed when it was suspended.
        self.into_store()?.map_or(Ok(()), |store| Ok(store.close()?))
    }

    /// Takes the book apart if this is its only handle. Reads of live lists are waited for, and
    /// lists in files are written a last time.
    ///
    /// # Errors
    /// [`Error::InUse`].
    pub(crate) fn into_only(self) -> Result<Shared, Error> {
        let guests = Arc::clone(&self.shared.guests);
        guests.shut();
        let alone = if Arc::strong_count(&self.shared) == 1 {
            self.shared.live.write_files(&self);
            Arc::try_unwrap(self.shared).map_err(|_| Error::InUse)
        } else {
            drop(self);
            Err(Error::InUse)
        };
        if alone.is_ok() {
            guests.end();
        }
        guests.open();
        alone
    }

    /// Lets go of everything but the store, if the book has it.
    pub(crate) fn into_store(self) -> Result<Option<Store>, Error> {
        Ok(Self::store_of(self.into_only()?))
    }

    /// Lets go of everything but the store of a book that was taken apart.
    pub(crate) fn store_of(shared: Shared) -> Option<Store> {
        shared.latest.forget();
        drop((shared.following, shared.origin));
        shared.store.into_store()
    }
}

/// Makes searches find what the app reads: records through the upcasters of their type.
#[cfg(feature = "search")]
fn read_as_the_app(searches: Searches, schema: &Schema) -> Searches {
    let read = |(entity, rule): (_, fieldbook_core::search::SearchRule)| {
        let rule = match schema.declared_rules(&entity) {
            Some(rules) => rule.read_by(rules),
            None => rule,
        };
        (entity, rule)
    };
    searches.into_iter().map(read).collect()
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

    /// Remembers the server's clock as the file has it, unless a later time is known.
    pub(crate) fn remember_server_time(&self, stored: Option<ServerTime>) {
        let mut known = self.server_time.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = |time: &Option<ServerTime>| time.as_ref().map(ServerTime::heard_at);
        if heard(&stored) > heard(&known) {
            *known = stored;
        }
    }

    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
        self.refresh_status();
    }

    pub(crate) fn check_alive(&self) -> Result<(), Error> {
        if !self.store.is_open() {
            return Err(Error::Suspended);
        }
        if self.failed.load(Ordering::SeqCst) { Err(StoreError::Poisoned.into()) } else { Ok(()) }
    }

    /// Writes the first entry of a new log.
    fn begin_log(session: &mut Session<'_>) -> Result<(), Error> {
        let device = DeviceId::new(session.now.wall, session.randomness);
        session.epoch = Epoch::new(session.now.wall, session.randomness);
        let opened = Opened { device, made_by: PROGRAM.to_owned() };
        session.append(Draft::control(Control::Opened(opened)), Hlc::ZERO)?;
        session.introduce()
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
