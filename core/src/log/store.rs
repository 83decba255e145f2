//! The file: made in one step, opened by one at a time, refused without a trace.
//!
//! Invariants:
//! 1. A path holds either a whole book or what it held before: a new file gets its name after its last sync.
//! 2. Nothing that exists is ever overwritten by [`Store::create`].
//! 3. [`Store::open`] writes to a file only once it has shown that it is a book that opens (see `staged`), and never if it
//!    is opened to be looked at only.
//! 4. A store that is only looked at is opened for reading, so that a file which cannot be written to can be looked at.
//! 5. A store that is only looked at, or given up, is not closed as others are: redb would commit once more for that, which
//!    over a damaged file can end the process.
//!
//! What it is not: an error-proof reader of damaged pages. redb checks pages when it repairs, not each time it reads them;
//! `verify` finds what is damaged among the entries.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, StorageBackend, TableHandle};

use super::entries::ENTRIES;
use super::error::{StoreError, guarded};
use super::looking::Looking;
use super::staged::{GiveUp, Staged};
use crate::new_file::{NewFileError, new_file};

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// How much memory may hold pages of the file.
    pub cache_bytes: usize,
    /// Whether the file keeps its every byte: what is written, by redb itself too, stays in memory and is gone when the
    /// store is closed.
    pub look_only: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { cache_bytes: 16 * 1024 * 1024, look_only: false }
    }
}

/// An open book file. Readers never wait; writers wait for each other.
pub struct Store {
    /// There until the store is closed or dropped.
    database: Option<Database>,
    /// There until it was used.
    give_up: Option<GiveUp>,
    /// What the database stands on.
    disk: Box<dyn StorageBackend>,
    look_only: bool,
}

impl Store {
    /// Makes a new book and opens it.
    ///
    /// It is built under a temporary name in the same folder and moved into place once it is on the disk.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`], whatever it is that stands there; [`StoreError::NotFound`] for a missing folder;
    /// [`StoreError::Disk`].
    pub fn create(path: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        if fs::symlink_metadata(path).is_ok() {
            return Err(StoreError::AlreadyExists { path: path.to_owned() });
        }
        let fill = |file| {
            let backend = FileBackend::new(file).map_err(StoreError::during("creating the book"))?;
            initialise(backend, options)?.close()
        };
        new_file(path, fill).map_err(|error| match error {
            NewFileError::Exists => StoreError::AlreadyExists { path: path.to_owned() },
            NewFileError::Folder { folder, source } => not_found_or(source, &folder, "creating the book"),
            NewFileError::Disk { during, source } => StoreError::disk(during)(source),
            NewFileError::Filling(error) => error,
        })?;
        Self::open(path, options)
    }

    /// Opens a book. A file that is refused keeps its bytes. To be looked at only, it is opened for reading, beside others who
    /// look at it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::NotABook`], [`StoreError::AlreadyOpen`], [`StoreError::NewerFormat`],
    /// [`StoreError::ReadOnly`], [`StoreError::Denied`], [`StoreError::Corrupt`], [`StoreError::Disk`].
    pub fn open(path: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        let not_a_book = |why| StoreError::NotABook { path: path.to_owned(), why };
        let metadata = fs::metadata(path).map_err(|error| not_found_or(error, path, "opening the book"))?;
        // Opening a pipe would wait for ever, so the kind is asked for first.
        if !metadata.is_file() {
            return Err(not_a_book("it is not a file"));
        }
        let mut file = open_file(path, options.look_only)?;
        let mut magic = Vec::with_capacity(REDB_MAGIC.len());
        let length = file.by_ref().take(REDB_MAGIC.len() as u64).read_to_end(&mut magic);
        length.map_err(StoreError::disk("reading the book's first bytes"))?;
        match magic.as_slice() {
            [] => return Err(not_a_book("it is empty")),
            magic if magic != REDB_MAGIC => return Err(not_a_book("it is of another kind")),
            _ => {}
        }
        let backend = FileBackend::new(file).map_err(StoreError::during("opening the book"))?;
        if options.look_only {
            return open_backend(Looking::new(backend), path, options);
        }
        open_backend(backend, path, options)
    }

    /// Opens a book on any storage: a simulated disk, for one. Makes it there if the storage is empty.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn with_backend(backend: impl StorageBackend, options: &StoreOptions) -> Result<Self, StoreError> {
        match backend.len().map_err(StoreError::disk("opening the book"))? {
            0 => initialise(backend, options),
            _ => open_backend(backend, Path::new("the given storage"), options),
        }
    }

    /// Begins to read: a snapshot of the last commit.
    ///
    /// A snapshot keeps every page it can reach; end it soon.
    ///
    /// # Errors
    /// [`StoreError`] if the disk fails.
    pub fn begin_read(&self) -> Result<redb::ReadTransaction, StoreError> {
        self.database()?.begin_read().map_err(StoreError::during("beginning to read"))
    }

    /// Begins to write, once every earlier writer has ended. What is not committed is as if it never was.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] after an earlier storage error.
    pub fn begin_write(&self) -> Result<redb::WriteTransaction, StoreError> {
        self.database()?.begin_write().map_err(StoreError::during("beginning to write"))
    }

    /// Gives unused space back to the file system, and returns whether there was any.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while a transaction is open.
    pub fn compact(&mut self) -> Result<bool, StoreError> {
        let database = self.database.as_mut().ok_or(StoreError::Poisoned)?;
        database.compact().map_err(StoreError::during("compacting"))
    }

    /// Checks every page of the file against its checksum. Takes as long as reading the whole file.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if one is damaged; [`StoreError::InUse`] while a transaction is open.
    pub fn check_pages(&mut self) -> Result<(), StoreError> {
        let database = self.database.as_mut().ok_or(StoreError::Poisoned)?;
        let is_whole =
            guarded(|| database.check_integrity().map_err(StoreError::during("checking the book's pages")))?;
        if is_whole {
            Ok(())
        } else {
            Err(StoreError::corrupt(PAGES, None, "which pages are in use is not so"))
        }
    }

    /// Commits a transaction durably, as [`commit`] does, at three quarters of the price if it is small.
    ///
    /// Behind a commit redb frees the pages that nobody reads any more, which is a second commit of its books, though not one that
    /// waits for the disk. As long as somebody reads what was before, it leaves them to the next commit, which frees them along
    /// with its own work.
    ///
    /// # Errors
    /// As for [`commit`], and [`StoreError`] if no snapshot can be begun: it was not written then.
    pub fn commit(&self, transaction: redb::WriteTransaction) -> Result<(), StoreError> {
        let _before = self.begin_read()?;
        commit(transaction)
    }

    /// Returns whether the file is only looked at.
    pub const fn is_look_only(&self) -> bool {
        self.look_only
    }

    /// Returns how many bytes the file takes. What is free in it counts: [`Self::compact`] gives that back. It asks the file
    /// system only, whatever the book holds and whoever writes.
    ///
    /// # Errors
    /// [`StoreError::Disk`] if the disk fails.
    pub fn file_bytes(&self) -> Result<u64, StoreError> {
        self.disk.len().map_err(StoreError::disk("measuring the book"))
    }

    /// Closes the book such that the next opening needs no repair, and says if that failed, which dropping would not.
    ///
    /// # Errors
    /// [`StoreError`] if the disk fails or a write transaction is open.
    pub fn close(mut self) -> Result<(), StoreError> {
        if self.look_only {
            self.let_go();
            return Ok(());
        }
        match self.database.take() {
            Some(database) => {
                guarded(move || database.close().map_err(StoreError::during("closing the book")))
            }
            None => Ok(()),
        }
    }

    /// Leaves the file as the last commit left it, and takes no more part in it: for what turned out to be damaged. The next
    /// opening repairs what a close would have spared it.
    pub fn abandon(mut self) {
        self.let_go();
    }

    fn let_go(&mut self) {
        let (Some(mut database), Some(give_up)) = (self.database.take(), self.give_up.take()) else { return };
        give_up.now();
        // The first thing that this reads fails, and after a failure redb writes nothing, also when it closes. One guard each: a
        // database that was dropped while a panic unwinds could panic again, which ends the process.
        drop(guarded(|| database.check_integrity().map_err(StoreError::during("letting go of the book"))));
        drop(guarded(move || {
            drop(database);
            Ok::<_, StoreError>(())
        }));
    }

    fn database(&self) -> Result<&Database, StoreError> {
        self.database.as_ref().ok_or(StoreError::Poisoned)
    }
}

impl Drop for Store {
    /// redb commits once more when it closes, and may panic over a damaged file then, which must not take the app down.
    fn drop(&mut self) {
        if self.look_only {
            self.let_go();
        }
        if let Some(database) = self.database.take()
            && let Err(error) =
                guarded(move || database.close().map_err(StoreError::during("closing the book")))
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "the book was not closed well");
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

/// Commits a transaction durably.
///
/// # Errors
/// [`StoreError::Disk`] or [`StoreError::Corrupt`]: it is *unknown* whether the commit will be there after reopening.
/// [`StoreError::Poisoned`]: it was not written.
pub fn commit(transaction: redb::WriteTransaction) -> Result<(), StoreError> {
    transaction.commit().map_err(StoreError::during("committing"))
}

/// Makes the tables of a new book in empty storage.
fn initialise(backend: impl StorageBackend, options: &StoreOptions) -> Result<Store, StoreError> {
    // There is nothing yet that could be spoilt.
    let staged = Staged::new(backend, false);
    staged.go_live().map_err(StoreError::disk("creating the book"))?;
    let database = builder(options)
        .create_with_backend(staged.second_hand())
        .map_err(StoreError::during("creating the book"))?;
    let store = opened(database, staged, options);
    let transaction = store.begin_write()?;
    transaction.open_table(ENTRIES).map_err(StoreError::during("creating the log's table"))?;
    commit(transaction)?;
    Ok(store)
}

fn open_backend(
    backend: impl StorageBackend,
    path: &Path,
    options: &StoreOptions,
) -> Result<Store, StoreError> {
    let staged = Staged::new(backend, options.look_only);
    let for_redb = staged.second_hand();
    let builder = builder(options);
    let database =
        guarded(move || builder.create_with_backend(for_redb).map_err(|error| refused(error.into(), path)))?;
    let store = opened(database, staged.second_hand(), options);
    // What is refused is let go of, not closed: closing commits once more, which may panic over a damaged file.
    if let Err(error) = check_format(&store, path) {
        store.abandon();
        return Err(error);
    }
    if !options.look_only {
        staged.go_live().map_err(StoreError::disk("opening the book"))?;
    }
    Ok(store)
}

fn opened(database: Database, staged: Staged<impl StorageBackend>, options: &StoreOptions) -> Store {
    let give_up = Some(staged.give_up());
    Store { database: Some(database), give_up, disk: Box::new(staged), look_only: options.look_only }
}

fn check_format(store: &Store, path: &Path) -> Result<(), StoreError> {
    let database = store.database()?;
    match guarded(|| format_of(database).map_err(StoreError::during("opening the book")))? {
        Some(FORMAT) => Ok(()),
        Some(found) => Err(StoreError::NewerFormat { found }),
        None => Err(StoreError::NotABook { path: path.to_owned(), why: "it is another program's database" }),
    }
}

fn refused(error: redb::Error, path: &Path) -> StoreError {
    match error {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
            StoreError::AlreadyOpen { path: path.to_owned() }
        }
        redb::Error::UpgradeRequired(_) => {
            StoreError::NotABook { path: path.to_owned(), why: "it is a database of an older kind" }
        }
        error => StoreError::during("opening the book")(error),
    }
}

/// Returns the format of the book's log, read off the name of its table: the newest if there are several.
fn format_of(database: &Database) -> Result<Option<u32>, redb::Error> {
    let transaction = database.begin_read()?;
    let formats = transaction.list_tables()?.filter_map(|table| {
        table.name().strip_prefix("entries-").and_then(|format| format.parse::<u32>().ok())
    });
    Ok(formats.max())
}

fn builder(options: &StoreOptions) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(options.cache_bytes);
    builder
}

/// Opens a file that is there, for writing too unless it is only looked at.
fn open_file(path: &Path, look_only: bool) -> Result<File, StoreError> {
    let opened = OpenOptions::new().read(true).write(!look_only).open(path);
    opened.map_err(|error| match error.kind() {
        // Who may read it is told that it cannot be written to, which is another thing than a disk that fails.
        io::ErrorKind::PermissionDenied if !look_only && File::open(path).is_ok() => {
            StoreError::ReadOnly { during: "opening the book", source: error }
        }
        _ => not_found_or(error, path, "opening the book"),
    })
}

fn not_found_or(error: io::Error, path: &Path, during: &'static str) -> StoreError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            StoreError::NotFound { path: path.to_owned() }
        }
        _ => StoreError::disk(during)(error),
    }
}

/// The format that this program reads and writes: the number in the name of [`ENTRIES`].
const FORMAT: u32 = 1;

/// What a redb file begins with. redb would make a database of an empty file, so this is looked at before it is asked.
const REDB_MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";

const PAGES: &str = "the file's structure";
