//! The book's file. It is made in one step and opened by one process at a time. A refused file is
//! not changed.
//!
//! Invariants:
//! 1. A path has either a whole book or its earlier content: a new file gets its name after its
//!    last sync.
//! 2. Nothing that exists is ever overwritten by [`Store::create`].
//! 3. [`Store::open`] writes to a file only after the file has proved to be a book that opens (see
//!    `staged`), and never if it is opened read-only.
//! 4. A read-only store opens its file for reading, so that a file without write permission can be
//!    read.
//! 5. A read-only store, or a store that was given up, skips redb's close. redb commits once more
//!    when it closes, and over a damaged file that can end the process.
//!
//! What it is not: a reader that survives all damaged pages. redb checks pages during a repair, not
//! at each read. `verify` finds damaged entries.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, StorageBackend, TableHandle};

use super::entries::ENTRIES;
use super::error::{StoreError, catch_storage_panic};
use super::looking::Looking;
use super::staged::{GiveUp, Staged};
use super::turn::{Which, look};
use crate::entry::LastStop;
use crate::new_file::{NewFileError, new_file, remove_file};

/// The options for opening a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// The most memory for pages of the file.
    pub cache_bytes: usize,
    /// Whether the store is read-only: no byte of the file changes. Writes, including redb's own,
    /// stay in memory and are lost when the store is closed.
    pub read_only: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { cache_bytes: 16 * 1024 * 1024, read_only: false }
    }
}

/// An open book file. Readers never wait; writers wait for each other.
pub struct Store {
    /// Present until the store is closed or dropped.
    database: Option<Database>,
    /// Present until the store is given up.
    give_up: Option<GiveUp>,
    /// The storage of the database.
    disk: Box<dyn StorageBackend>,
    /// The file, whatever the working folder becomes. `None` if the storage is not a file.
    path: Option<PathBuf>,
    read_only: bool,
    stopped_before: LastStop,
}

impl Store {
    /// Makes a new book and opens it.
    ///
    /// The book is built under a temporary name in the same folder, and moved into place once it is
    /// durable.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] if the path exists, as a file or as anything else;
    /// [`StoreError::NotFound`] for a missing folder; [`StoreError::Disk`].
    pub fn create(path: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        if fs::symlink_metadata(path).is_ok() {
            return Err(StoreError::AlreadyExists { path: path.to_owned() });
        }
        let fill = |file| {
            let backend =
                FileBackend::new(file).map_err(StoreError::during("creating the book"))?;
            initialise(backend, options)?.close()
        };
        new_file(path, fill).map_err(|error| not_made(error, path, "creating the book"))?;
        let mut store = Self::open(path, options)?;
        store.stopped_before = LastStop::None;
        Ok(store)
    }

    /// Opens a book. A refused file is not changed. A read-only store shares its file with other
    /// readers.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::NotABook`], [`StoreError::AlreadyOpen`],
    /// [`StoreError::NewerFormat`], [`StoreError::ReadOnly`], [`StoreError::Denied`],
    /// [`StoreError::Corrupt`], [`StoreError::Disk`].
    pub fn open(path: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        let not_a_book = |why| StoreError::NotABook { path: path.to_owned(), why };
        check_is_file(path, "opening the book")?;
        let mut file = open_file(path, options.read_only)?;
        let mut magic = Vec::with_capacity(REDB_MAGIC.len());
        let length = file.by_ref().take(REDB_MAGIC.len() as u64).read_to_end(&mut magic);
        length.map_err(StoreError::disk("reading the book's first bytes"))?;
        match magic.as_slice() {
            [] => return Err(not_a_book("it is empty")),
            magic if magic != REDB_MAGIC => return Err(not_a_book("it is of another kind")),
            _ => {}
        }
        let found = file.metadata().map_err(StoreError::disk("opening the book"))?;
        let backend = FileBackend::new(file).map_err(StoreError::during("opening the book"))?;
        let mut store = if options.read_only {
            open_backend(Looking::new(backend), path, options)?
        } else {
            open_backend(backend, path, options)?
        };
        if !is_still_at(path, &found) {
            // Somebody who had the lock until now removed the file, or put another in its place.
            store.abandon();
            return Err(StoreError::AlreadyOpen { path: path.to_owned(), holder: None });
        }
        store.path = Some(fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()));
        Ok(store)
    }

    /// Opens a book on any storage, such as a simulated disk. Makes a new book if the storage is
    /// empty.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn with_backend(
        backend: impl StorageBackend,
        options: &StoreOptions,
    ) -> Result<Self, StoreError> {
        match backend.len().map_err(StoreError::disk("opening the book"))? {
            0 => initialise(backend, options),
            _ => open_backend(backend, Path::new(GIVEN_STORAGE), options),
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

    /// Begins to write, after every earlier writer has ended. Writes that are not committed have no
    /// effect.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] after an earlier storage error.
    pub fn begin_write(&self) -> Result<redb::WriteTransaction, StoreError> {
        self.database()?.begin_write().map_err(StoreError::during("beginning to write"))
    }

    /// Gives unused space back to the file system. Returns whether there was any.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while a transaction is open.
    pub fn compact(&mut self) -> Result<bool, StoreError> {
        let database = self.database.as_mut().ok_or(StoreError::Poisoned)?;
        database.compact().map_err(StoreError::during("compacting"))
    }

    /// Checks every page of the file against its checksum. The duration is that of reading the
    /// whole file.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if a page is damaged; [`StoreError::InUse`] while a transaction is
    /// open.
    pub fn check_pages(&mut self) -> Result<(), StoreError> {
        let database = self.database.as_mut().ok_or(StoreError::Poisoned)?;
        let is_whole = catch_storage_panic(|| {
            database.check_integrity().map_err(StoreError::during("checking the book's pages"))
        })?;
        if is_whole {
            Ok(())
        } else {
            Err(StoreError::corrupt(PAGES, None, "which pages are in use is not so"))
        }
    }

    /// Commits a transaction durably, like [`commit`], at three quarters of the cost if the
    /// transaction is small.
    ///
    /// After a commit redb frees the pages that nobody reads any more, in a second commit of its
    /// own, which does not wait for the disk. While somebody still reads the earlier state, redb
    /// leaves these pages to the next commit, which frees them together with its own work. It would
    /// also cost every reader: after the second commit, until the next one, each page that is not
    /// in the cache is looked for in all parts of the write buffer first.
    ///
    /// # Errors
    /// Those of [`commit`], and [`StoreError`] if no snapshot can be begun; then nothing was
    /// written.
    pub fn commit(&self, transaction: redb::WriteTransaction) -> Result<(), StoreError> {
        let _before = self.begin_read()?;
        commit(transaction)
    }

    /// Commits once more without a change, so that a kill before the next commit needs no repair at
    /// the next opening. The commit after it undoes that.
    ///
    /// redb calls it quick repair: it writes which pages of the file are in use, a few bytes for
    /// each 100 KiB of the file, and waits for the disk twice.
    ///
    /// # Errors
    /// Those of [`Self::commit`].
    pub fn rest(&self) -> Result<(), StoreError> {
        let mut transaction = self.begin_write()?;
        transaction.set_quick_repair(true);
        self.commit(transaction)
    }

    /// Returns how the program that wrote to the book before stopped. If it was killed before its
    /// first commit, that counts as a clean stop: the file shows no difference.
    pub const fn stopped_before(&self) -> LastStop {
        self.stopped_before
    }

    /// Returns the path of the file.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the storage is not a file.
    pub fn path(&self) -> Result<&Path, StoreError> {
        let not_a_file = || StoreError::NotFound { path: PathBuf::from(GIVEN_STORAGE) };
        self.path.as_deref().ok_or_else(not_a_file)
    }

    /// Returns whether the store is read-only.
    pub const fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Returns the size of the file in bytes, including unused space, which [`Self::compact`] gives
    /// back. It only asks the file system, so its cost does not depend on the book or its writers.
    ///
    /// # Errors
    /// [`StoreError::Disk`] if the disk fails.
    pub fn file_bytes(&self) -> Result<u64, StoreError> {
        self.disk.len().map_err(StoreError::disk("measuring the book"))
    }

    /// Closes the book so that the next opening needs no repair. It returns an error of closing;
    /// dropping the store does not.
    ///
    /// # Errors
    /// [`StoreError`] if the disk fails or a write transaction is open.
    pub fn close(mut self) -> Result<(), StoreError> {
        if self.read_only {
            self.let_go();
            return Ok(());
        }
        match self.database.take() {
            Some(database) => catch_storage_panic(move || {
                database.close().map_err(StoreError::during("closing the book"))
            }),
            None => Ok(()),
        }
    }

    /// Stops using a damaged file, and leaves it as the last commit left it. The next opening does
    /// the repair that a close would have made unnecessary.
    pub fn abandon(mut self) {
        self.let_go();
    }

    /// Removes the book's file, and makes that durable. Nobody else can open the file before it is
    /// gone. If it cannot be removed, the store is closed and the file stays whole.
    ///
    /// # Errors
    /// [`StoreError::Disk`] or [`StoreError::Denied`] if the file cannot be removed;
    /// [`StoreError::NotFound`] if it was moved, or the storage is not a file.
    pub fn remove(mut self) -> Result<(), StoreError> {
        let path = self.path()?.to_owned();
        // redb holds the lock of the file until the store is given up.
        remove_file(&path).map_err(|error| not_found_or(error, &path, "removing the book"))?;
        self.let_go();
        Ok(())
    }

    fn let_go(&mut self) {
        let (Some(mut database), Some(give_up)) = (self.database.take(), self.give_up.take())
        else {
            return;
        };
        give_up.now();
        // The first read of this call fails, and after a failure redb writes nothing, also when it
        // closes. Each call has its own guard: a database that is dropped during an unwinding could
        // panic again, which ends the process.
        drop(catch_storage_panic(|| {
            database.check_integrity().map_err(StoreError::during("letting go of the book"))
        }));
        drop(catch_storage_panic(move || {
            drop(database);
            Ok::<_, StoreError>(())
        }));
    }

    fn database(&self) -> Result<&Database, StoreError> {
        self.database.as_ref().ok_or(StoreError::Poisoned)
    }
}

impl Drop for Store {
    /// Catches a panic of redb. redb commits once more when it closes, and may panic over a damaged
    /// file.
    fn drop(&mut self) {
        if self.read_only {
            self.let_go();
        }
        if let Some(database) = self.database.take()
            && let Err(error) = catch_storage_panic(move || {
                database.close().map_err(StoreError::during("closing the book"))
            })
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "closing the book failed");
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

/// Commits a transaction durably. [`Store::commit`] does so at less cost to those who read
/// afterwards.
///
/// # Errors
/// [`StoreError::Disk`] or [`StoreError::Corrupt`]: it is *unknown* whether the reopened book has
/// the commit. [`StoreError::Poisoned`]: it was not written.
pub fn commit(transaction: redb::WriteTransaction) -> Result<(), StoreError> {
    transaction.commit().map_err(StoreError::during("committing"))
}

/// Makes the tables of a new book in empty storage.
fn initialise(backend: impl StorageBackend, options: &StoreOptions) -> Result<Store, StoreError> {
    // Empty storage has nothing to damage.
    let staged = Staged::new(backend, false);
    staged.go_live().map_err(StoreError::disk("creating the book"))?;
    let database = builder(options)
        .create_with_backend(staged.second_hand())
        .map_err(StoreError::during("creating the book"))?;
    let store = opened(database, staged, options, LastStop::None);
    let transaction = store.begin_write()?;
    transaction.open_table(ENTRIES).map_err(StoreError::during("creating the log's table"))?;
    store.commit(transaction)?;
    Ok(store)
}

/// Returns whether redb closed the file: the byte after its magic says whether the file was open
/// for writing. A file that was killed at rest needs no repair, and says so all the same.
fn was_closed(backend: &impl StorageBackend) -> Result<bool, StoreError> {
    const OPEN_FOR_WRITING: u8 = 2;
    let mut state = [0];
    if backend.len().map_err(StoreError::disk("opening the book"))? > REDB_MAGIC.len() as u64 {
        let read = backend.read(REDB_MAGIC.len() as u64, &mut state);
        read.map_err(StoreError::disk("reading the book's first bytes"))?;
    }
    Ok(state[0] & OPEN_FOR_WRITING == 0)
}

fn open_backend(
    backend: impl StorageBackend,
    path: &Path,
    options: &StoreOptions,
) -> Result<Store, StoreError> {
    let stopped = if was_closed(&backend)? { LastStop::Clean } else { LastStop::Unclean };
    let staged = Staged::new(backend, options.read_only);
    let for_redb = staged.second_hand();
    let builder = builder(options);
    let database = catch_storage_panic(move || {
        builder.create_with_backend(for_redb).map_err(|error| refused(error.into(), path))
    })?;
    let store = opened(database, staged.second_hand(), options, stopped);
    // A refused file is given up, not closed: redb commits once more when it closes, and may panic
    // over a damaged file.
    if let Err(error) = check_format(&store, path) {
        store.abandon();
        return Err(error);
    }
    if !options.read_only {
        staged.go_live().map_err(StoreError::disk("opening the book"))?;
    }
    Ok(store)
}

fn opened(
    database: Database,
    staged: Staged<impl StorageBackend>,
    options: &StoreOptions,
    stopped_before: LastStop,
) -> Store {
    let give_up = Some(staged.give_up());
    Store {
        database: Some(database),
        give_up,
        disk: Box::new(staged),
        path: None,
        read_only: options.read_only,
        stopped_before,
    }
}

fn check_format(store: &Store, path: &Path) -> Result<(), StoreError> {
    let database = store.database()?;
    match catch_storage_panic(|| {
        format_of(database).map_err(StoreError::during("opening the book"))
    })? {
        Some(FORMAT) => Ok(()),
        Some(found) => Err(StoreError::NewerFormat { found }),
        None => Err(StoreError::NotABook {
            path: path.to_owned(),
            why: "it is another program's database",
        }),
    }
}

fn refused(error: redb::Error, path: &Path) -> StoreError {
    match error {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
            let holder = look(path, Which::Holder).map(|(program, _)| Box::new(program));
            StoreError::AlreadyOpen { path: path.to_owned(), holder }
        }
        redb::Error::UpgradeRequired(_) => {
            StoreError::NotABook { path: path.to_owned(), why: "it is a database of an older kind" }
        }
        error => StoreError::during("opening the book")(error),
    }
}

/// Returns the error for a file that was not made.
pub fn not_made<E: From<StoreError>>(
    error: NewFileError<E>,
    path: &Path,
    during: &'static str,
) -> E {
    match error {
        NewFileError::Exists => StoreError::AlreadyExists { path: path.to_owned() }.into(),
        NewFileError::Folder { folder, source } => not_found_or(source, &folder, during).into(),
        NewFileError::Disk { during, source } => StoreError::disk(during)(source).into(),
        NewFileError::Filling(error) => error,
    }
}

/// Returns the format of the book's log, which the name of its table contains: the newest if there
/// are several.
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

/// Opens a file to read its raw bytes, whatever they are.
///
/// # Errors
/// [`StoreError::NotFound`], [`StoreError::NotABook`] if it is not a file, [`StoreError::Denied`],
/// [`StoreError::Disk`].
pub fn open_to_read(path: &Path, during: &'static str) -> Result<File, StoreError> {
    check_is_file(path, during)?;
    File::open(path).map_err(|error| not_found_or(error, path, during))
}

/// Returns whether a path still leads to the file that was found there. Only Unix tells.
fn is_still_at(path: &Path, found: &fs::Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (found.dev(), found.ino()))
    }
    #[cfg(not(unix))]
    {
        let _ = (path, found);
        true
    }
}

/// Checks that a path is a file: opening a pipe would wait for ever.
fn check_is_file(path: &Path, during: &'static str) -> Result<(), StoreError> {
    let metadata = fs::metadata(path).map_err(|error| not_found_or(error, path, during))?;
    if metadata.is_file() {
        return Ok(());
    }
    Err(StoreError::NotABook { path: path.to_owned(), why: "it is not a file" })
}

/// Opens an existing file, for writing too unless it is read-only.
fn open_file(path: &Path, read_only: bool) -> Result<File, StoreError> {
    let opened = OpenOptions::new().read(true).write(!read_only).open(path);
    opened.map_err(|error| match error.kind() {
        // A user with permission to read learns that the file cannot be written, which is not a
        // failure of the disk.
        io::ErrorKind::PermissionDenied if !read_only && File::open(path).is_ok() => {
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

/// The first bytes of a redb file. redb would make a database of an empty file, so these bytes are
/// checked first.
const REDB_MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";

/// What stands for the path of storage that is not a file.
const GIVEN_STORAGE: &str = "the given storage";

const PAGES: &str = "the file's structure";

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// A program that waited for the lock would else write to a file that has no name any more.
    #[test]
    fn a_file_that_was_replaced_or_removed_while_it_was_opened_is_not_the_book() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a.book"), folder.path().join("new"));
        fs::write(&path, "one").unwrap();
        let found = File::open(&path).unwrap().metadata().unwrap();
        assert!(is_still_at(&path, &found));
        fs::write(&other, "two").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(!is_still_at(&path, &found));
        fs::remove_file(&path).unwrap();
        assert!(!is_still_at(&path, &found));
    }
}
