//! Copies a whole database, as one commit left it, into a new file. Writers go on meanwhile.
//!
//! Invariants:
//! 1. The copy has every table and every row of one snapshot, and nothing of a later commit.
//! 2. The path gets either the whole copy or nothing: the file is moved into place after its last
//!    sync. An existing file is never replaced.
//! 3. Memory does not grow with the size: a commit follows each [`COMMIT_BYTES`] of rows.
//! 4. A panic of the caller's `progress` ends the copy: it goes on in the caller, and nothing new is
//!    at the path.
//! 5. What a kill leaves is neither a book nor a store: the tables get their names in the last
//!    commit. Otherwise a part of a log would be a log that verifies.
//!
//! What it is not: a copy of the file. It leaves out free pages, and what was erased.

use std::any::Any;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{
    Builder, Database, Key, ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition,
    TableHandle, WriteTransaction,
};

use super::entries::ENTRIES;
use super::error::{StoreError, catch_storage_panic};
use super::store::not_made;
use crate::new_file::new_file;

/// The bytes of rows after which the copy is committed.
const COMMIT_BYTES: usize = 16 * 1024 * 1024;
/// The cache of the new database. Pages of an earlier commit are not needed again.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// The number of rows that were copied, and the number of all rows.
pub type CopyProgress<'p> = dyn FnMut(u64, u64) + 'p;

/// Copies all tables of a snapshot into a new database file, and returns the number of its rows.
/// All keys and values are bytes, except the keys of the log.
///
/// The snapshot keeps every page that it can reach, so the source grows by what is written
/// meanwhile.
///
/// # Errors
/// [`StoreError::AlreadyExists`], [`StoreError::NotFound`] for a missing folder,
/// [`StoreError::Disk`], and [`StoreError::Corrupt`] if a row cannot be read. Nothing new is at the
/// path then.
pub fn copy_database(
    snapshot: &ReadTransaction,
    path: &Path,
    progress: &mut CopyProgress<'_>,
) -> Result<u64, StoreError> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(StoreError::AlreadyExists { path: path.to_owned() });
    }
    let mut rows = 0;
    let made = new_file(path, |file| {
        rows = catch_storage_panic(|| fill(snapshot, file, progress))?;
        Ok::<_, Stopped>(())
    });
    match made.map_err(|error| not_made(error, path, COPYING)) {
        Ok(()) => Ok(rows),
        Err(Stopped::Failed(error)) => Err(error),
        Err(Stopped::Panicked(panic)) => resume_unwind(panic),
    }
}

/// What stopped a copy.
enum Stopped {
    Failed(StoreError),
    /// The panic of the caller's `progress`. It is no fault of a file.
    Panicked(Box<dyn Any + Send>),
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

fn fill(
    snapshot: &ReadTransaction,
    file: File,
    progress: &mut CopyProgress<'_>,
) -> Result<u64, Stopped> {
    let backend = FileBackend::new(file).map_err(StoreError::during(COPYING))?;
    let database = Builder::new()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(backend)
        .map_err(StoreError::during(COPYING))?;
    let (mut names, mut all) = (Vec::new(), 0);
    for table in snapshot.list_tables().map_err(StoreError::during(COPYING))? {
        names.push(table.name().to_owned());
        let table = snapshot.open_untyped_table(table).map_err(StoreError::during(COPYING))?;
        all += table.len().map_err(StoreError::during(COPYING))?;
    }
    let mut copy = Copy { database: &database, done: 0, all, progress };
    for name in &names {
        let unnamed = unnamed(name);
        if name == ENTRIES.name() {
            copy.table(snapshot, ENTRIES, TableDefinition::new(&unnamed))?;
        } else {
            copy.table(snapshot, bytes_table(name), bytes_table(&unnamed))?;
        }
    }
    let done = copy.done;
    name_tables(&database, &names)?;
    database.close().map_err(StoreError::during(COPYING))?;
    Ok(done)
}

/// Returns the name that a table has until the copy is whole.
fn unnamed(name: &str) -> String {
    format!("unfinished {name}")
}

/// Gives the tables their names, all in one commit.
fn name_tables(database: &Database, names: &[String]) -> Result<(), StoreError> {
    let transaction = database.begin_write().map_err(StoreError::during(COPYING))?;
    for name in names {
        transaction
            .rename_table(bytes_table(&unnamed(name)), bytes_table(name))
            .map_err(StoreError::during(COPYING))?;
    }
    transaction.commit().map_err(StoreError::during(COPYING))
}

struct Copy<'c, 'p> {
    database: &'c Database,
    done: u64,
    all: u64,
    progress: &'c mut CopyProgress<'p>,
}

impl Copy<'_, '_> {
    /// Copies one table; an empty one too.
    fn table<K: Key + 'static>(
        &mut self,
        snapshot: &ReadTransaction,
        from: TableDefinition<'_, K, &'static [u8]>,
        to: TableDefinition<'_, K, &'static [u8]>,
    ) -> Result<(), Stopped> {
        let table = snapshot.open_table(from).map_err(StoreError::during(COPYING))?;
        let mut rows = table.iter().map_err(StoreError::during(COPYING))?;
        loop {
            let transaction = self.database.begin_write().map_err(StoreError::during(COPYING))?;
            let is_end = self.part(&transaction, to, &mut rows)?;
            transaction.commit().map_err(StoreError::during(COPYING))?;
            self.tell()?;
            if is_end {
                return Ok(());
            }
        }
    }

    /// Calls `progress`. Its panic does not unwind through the engine, which would take it for
    /// damage.
    fn tell(&mut self) -> Result<(), Stopped> {
        let tell = AssertUnwindSafe(|| (self.progress)(self.done, self.all));
        catch_unwind(tell).map_err(Stopped::Panicked)
    }

    /// Copies rows up to the size of a commit. Returns whether they were the last.
    fn part<K: Key + 'static>(
        &mut self,
        transaction: &WriteTransaction,
        to: TableDefinition<'_, K, &'static [u8]>,
        rows: &mut redb::Range<'_, K, &'static [u8]>,
    ) -> Result<bool, StoreError> {
        let mut copy = transaction.open_table(to).map_err(StoreError::during(COPYING))?;
        let mut bytes = 0;
        while bytes < COMMIT_BYTES {
            let Some(row) = rows.next() else { return Ok(true) };
            let (key, value) = row.map_err(StoreError::during(COPYING))?;
            copy.insert(key.value(), value.value()).map_err(StoreError::during(COPYING))?;
            bytes += K::as_bytes(&key.value()).as_ref().len() + value.value().len();
            self.done += 1;
        }
        Ok(false)
    }
}

const fn bytes_table(name: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(name)
}

const COPYING: &str = "making the backup";
