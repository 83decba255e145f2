//! Writing a book anew: another form of its log, as a file beside it that takes its place.
//!
//! ```text
//!   no other handle? ─► a new file: the log in its new form ─► the tables, folded from it ─► put in place ─► sync the folder
//! ```
//!
//! Invariants:
//! 1. At every moment there is the former book or the new one, whole.
//! 2. From the copy to the rename nobody writes: there is no other handle, and the file is locked
//!    until its name is gone.
//! 3. What is refused changes no byte of the book.
//!
//! What it does not do: write over the blocks of the former file. A file system may keep them until
//! it needs them.

use std::path::Path;

use fieldbook_core::entry::{Control, Draft};
use fieldbook_core::log::{
    Appender, Head, Stamp, Store, StoreOptions, entries, not_made, read_head,
};
use fieldbook_core::new_file::replace_file_by_path;
use fieldbook_core::rules::clock::entry_stamp;
use fieldbook_projections::DiskTables;
use redb::{ReadOnlyTable, WriteTransaction};

use crate::book::{Book, Shared, read};
use crate::error::Error;
use crate::maintain::refold;

/// The log of a book, in a snapshot.
pub(crate) type Log = ReadOnlyTable<u64, &'static [u8]>;

/// Returns what a book shares, if there is no other handle and it can be changed. Nobody else
/// writes from here on.
pub(crate) fn alone(book: Book) -> Result<Shared, Error> {
    let shared = book.into_only()?;
    if shared.store.is_read_only() {
        return Err(Error::ReadOnly);
    }
    shared.check_alive()?;
    Ok(shared)
}

impl Shared {
    /// Puts a new file in place of the book's. `write` gets the path at which it makes the file;
    /// nobody else knows the file by that path.
    pub(crate) fn replace_file(
        self,
        during: &'static str,
        write: impl FnOnce(&Self, &Path) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let path = self.store.with(|store| Ok(store.path()?.to_owned()))?;
        replace_file_by_path(&path, |new| write(&self, new))
            .map_err(|error| not_made(error, &path, during))?;
        // The former file has no name any more, and nothing is written to it.
        Book::store_of(self).ok_or(Error::Suspended)?.abandon();
        Ok(())
    }

    /// Writes a new store with another form of the log of this book. `copy` writes the log into
    /// the empty table of the new store, and returns the entry that says so, if there is one. The
    /// tables are folded from the result.
    pub(crate) fn write_anew(
        &self,
        new: impl FnOnce() -> Result<Store, Error>,
        copy: impl FnOnce(&Log, &WriteTransaction) -> Result<Option<Control>, Error>,
    ) -> Result<(), Error> {
        let log = entries(&self.store.begin_read()?)?;
        let mut head = read_head(&log)?;
        let mut new = new()?;
        let transaction = new.begin_write()?;
        if let Some(said) = copy(&log, &transaction)? {
            // As every entry, it comes after what the opening records and after the silences.
            let mut drafts = self.introduction(&log)?;
            drafts.push(Draft::control(said));
            head = self.append_to(&transaction, head, drafts)?;
        }
        if let Some(key) = &self.device_key {
            DiskTables::new(&transaction).set_device_key(key)?;
        }
        new.commit(transaction)?;
        refold(&new, &self.schema, head, |_| {})?;
        new.compact()?;
        Ok(new.close()?)
    }

    fn append_to(
        &self,
        transaction: &WriteTransaction,
        head: Option<Head>,
        drafts: Vec<Draft>,
    ) -> Result<Option<Head>, Error> {
        let (now, actor) = (self.clock.now(), read(&self.actor).clone());
        let mut appender = Appender::open(transaction, head)?;
        for draft in drafts {
            let Some(before) = appender.head() else { return Err(Error::EmptyLog) };
            let stamp = Stamp {
                epoch: before.epoch,
                hlc: entry_stamp(before.hlc, now, self.server_time()),
                wall: now.wall,
                actor: actor.clone(),
            };
            appender.append(draft, stamp)?;
        }
        Ok(appender.head())
    }
}

/// Makes a new store at a path.
pub(crate) fn new_store(path: &Path) -> Result<Store, Error> {
    Ok(Store::create(path, &StoreOptions::default())?)
}
