//! Signing out: the book stays, keeps only what is unsent, or its file is removed.
//!
//! ```text
//!   keep unsent: no other handle? ─► a new file without the other values ─► put in place ─► sync the folder
//!   wipe: no other handle? ─► anything unsent? ─► export, synced and verified ─► remove the file ─► sync the folder
//! ```
//!
//! Invariants:
//! 1. At every moment there is the whole book, or a book with everything unsent, or an export with
//!    the whole log, or nothing was unsent.
//! 2. From the count to the removal nobody writes: there is no other handle, and the file is locked
//!    until its name is gone.
//! 3. A sign-out that is refused changes no byte of the book.
//!
//! What it does not do: write over the blocks of the former file. A file system may keep them until
//! it needs them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fieldbook_core::RecordKey;
use fieldbook_core::entry::{Control, Erased, ErasedRecords};
use fieldbook_core::log::turn::{Which, beside};
use fieldbook_core::log::{Store, copy_without};
use fieldbook_core::rules::unsent::{Unsent, unsent};
use fieldbook_projections::sound;

use crate::book::{Book, Shared, read};
use crate::error::Error;
use crate::export::{Step, export};
use crate::rewrite::{alone, new_store};
use crate::status::Queue;

/// What becomes of a book when its user signs out ([`Book::sign_out`]).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignOut {
    /// The book is closed, and stays as it is. What was not sent leaves when its user signs in
    /// again.
    Keep,
    /// The values of all records are erased, from the tables and from the log, except those of
    /// records with an op that the server does not have, or may not have, of records that such an
    /// op refers to, and of records that an accepted server may lack. The op leaves when its user signs in again. The next sync reads the other
    /// records from the server anew.
    ///
    /// It is the same book, with the same log: the keys of records, their users and the times of
    /// their changes stay in it. Records of entity types that never leave the device stay too,
    /// since no server has them.
    KeepUnsent,
    /// The book's file is removed, with the records of entity types that never leave the device.
    Wipe {
        /// A new file for the whole log, which keeps what was not sent. Without it a book is
        /// removed only if the server has everything. [`read_export`](crate::audit::read_export)
        /// reads the log again.
        export_to: Option<PathBuf>,
    },
}

impl Book {
    /// Signs the user out: closes the book and keeps its file, or removes the file. There must be
    /// no other handle to the book: shut down its background sync first.
    ///
    /// A book with an op that the server does not have is only removed with an export. The export
    /// is on the disk, and verified, before the book is removed. Every user of the book counts,
    /// also one who is not there. [`Queue::unsent`] tells beforehand.
    ///
    /// ```
    /// use fieldbook::{Book, BookOptions, Error, Fields, SignOut};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("crm.book");
    /// let book = Book::create_new(&path, BookOptions::new("ann")?)?;
    /// book.records().create("lead/42".parse()?, Fields::parse(r#"{"name":"Bo"}"#)?)?;
    ///
    /// let refused = book.sign_out(SignOut::Wipe { export_to: None });
    /// assert!(matches!(refused, Err(Error::Unsent(unsent)) if unsent.ops() == 1));
    ///
    /// let book = Book::open(&path, BookOptions::new("ann")?)?;
    /// let export_to = Some(folder.path().join("ann.fieldbook-log"));
    /// book.sign_out(SignOut::Wipe { export_to })?;
    /// assert!(!path.exists());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InUse`] if there is another handle; [`Error::Unsent`] if something was not sent and
    /// there is no export; [`Error::ReadOnly`]; [`Error::Store`] if the export exists already, the
    /// log is damaged, or the disk fails. The file of the book is unchanged then, and the book is
    /// closed, unless there is another handle. Only if the folder cannot be synced after the
    /// removal, the file is gone.
    pub fn sign_out(self, how: SignOut) -> Result<(), Error> {
        match how {
            SignOut::Keep => self.close(),
            SignOut::KeepUnsent => keep_unsent(self, &mut |_| ()),
            SignOut::Wipe { export_to } => wipe(self, export_to.as_deref(), &mut |_| ()),
        }
    }
}

impl Queue<'_> {
    /// Returns the number of ops that the server does not have, or may not have, for each user:
    /// they wait, have no answer, are parked, or are dead letters. Ops of entity types that never
    /// leave the device are not counted. After another server was accepted it also returns the
    /// number of records that this server may lack, until it is read to its end.
    ///
    /// # Errors
    /// [`Error::Store`] if the book cannot be read.
    pub fn unsent(&self) -> Result<Unsent, Error> {
        self.book.shared.unsent()
    }
}

impl Shared {
    fn unsent(&self) -> Result<Unsent, Error> {
        let tail = self.tail();
        let mut found = unsent(&tail, &read(&self.actor), |entity| self.schema.leaves(entity));
        sound(&tail)?;
        if self.state().rereading {
            found.unconfirmed = self.snapshot()?.unconfirmed()?.len() as u64;
        }
        Ok(found)
    }
}

/// Puts a book in place of a book: with the same log, without the values of records that the server
/// has.
fn keep_unsent(book: Book, at: &mut dyn FnMut(Step)) -> Result<(), Error> {
    alone(book)?.replace_file(ERASING, |shared, new| {
        shared.write_unsent(|| new_store(new))?;
        at(Step::Erased);
        Ok(())
    })
}

impl Shared {
    /// Writes a new store with the log of this book, without the values of records that the server
    /// has, and with the entry that says so. The tables are folded from what is left.
    pub(crate) fn write_unsent(
        &self,
        new: impl FnOnce() -> Result<Store, Error>,
    ) -> Result<(), Error> {
        let records = ErasedRecords::except(self.not_at_the_server()?);
        self.write_anew(new, |log, copy| {
            let items = copy_without(log, copy, &records)?;
            Ok(Some(Control::Erased(Erased { records, items })))
        })
    }

    /// Returns the records that have to stay for what the server does not have: those of the ops in
    /// the tail, those that these ops refer to, and those that an accepted server has not confirmed
    /// yet, because it may lack them.
    fn not_at_the_server(&self) -> Result<BTreeSet<RecordKey>, Error> {
        let mut kept = BTreeSet::new();
        if self.state().rereading {
            kept.extend(self.snapshot()?.unconfirmed()?);
        }
        let tail = self.tail();
        for (_, row) in tail.ops() {
            kept.insert(row.key.clone());
            // Whether a record that an op refers to is there decides whether the op is sent.
            kept.extend(row.references.iter().filter_map(|reference| reference.target.clone()));
        }
        sound(&tail)?;
        Ok(kept)
    }
}

/// Removes the file of a book, after its log was exported if there is a path.
fn wipe(book: Book, export_to: Option<&Path>, at: &mut dyn FnMut(Step)) -> Result<(), Error> {
    let shared = alone(book)?;
    let unsent = shared.unsent()?;
    match export_to {
        Some(path) => export(&shared.store, path, at)?,
        None if !unsent.is_empty() => return Err(Error::Unsent(unsent)),
        None => {}
    }
    at(Step::Exported);
    let store = Book::store_of(shared).ok_or(Error::Suspended)?;
    let beside =
        store.path().ok().map(|path| [Which::Holder, Which::Turn].map(|which| beside(path, which)));
    store.remove()?;
    // They say who has the book, and nothing of it. There may be none.
    beside.into_iter().flatten().for_each(|path| drop(std::fs::remove_file(path)));
    Ok(())
}

const ERASING: &str = "writing the book without the erased values";

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use fieldbook_core::entry::Meta;
    use fieldbook_core::log::StoreOptions;

    use super::*;
    use crate::audit::read_export;
    use crate::{BookOptions, Fields, RecordKey};

    fn options() -> BookOptions {
        BookOptions::new("ann").unwrap()
    }

    fn copied(from: &Path) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            // What is not finished yet has a folder of its own.
            if entry.path().is_dir() {
                continue;
            }
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        copy
    }

    /// A kill leaves the folder as it is at that moment. So each copy of it is what a kill leaves.
    #[test]
    fn a_kill_at_any_step_leaves_the_whole_book_or_an_export_with_everything_unsent() {
        let folder = tempfile::tempdir().unwrap();
        let (path, export_to) = (folder.path().join("a.book"), folder.path().join("a.log"));
        let book = Book::create_new(&path, options()).unwrap();
        let key: RecordKey = "lead/1".parse().unwrap();
        book.records().create(key.clone(), Fields::parse(r#"{"n":1}"#).unwrap()).unwrap();
        let mut left = Vec::new();
        let look = &mut |step| left.push((Some(step), copied(folder.path())));
        wipe(book, Some(&export_to), look).unwrap();
        left.push((None, copied(folder.path())));
        let found = left.iter().map(|(step, folder)| {
            let (book, exported) = (folder.path().join("a.book"), folder.path().join("a.log"));
            if book.exists() {
                let book = Book::open(&book, options()).unwrap();
                assert_eq!(book.queue().unsent().unwrap().ops(), 1);
            }
            if exported.exists() {
                let read = read_export(&mut File::open(&exported).unwrap(), options()).unwrap();
                assert_eq!(read.queue().unsent().unwrap().ops(), 1);
                assert_eq!(read.records().get(&key).unwrap().unwrap().json.as_str(), r#"{"n":1}"#);
            }
            (*step, book.exists(), exported.exists())
        });
        let expected = [
            (Some(Step::Exporting), true, false),
            (Some(Step::Exported), true, true),
            (None, false, true),
        ];
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_kill_while_values_are_erased_leaves_the_former_book_or_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.book");
        let book = Book::create_new(&path, options()).unwrap();
        let key: RecordKey = "lead/1".parse().unwrap();
        book.records().create(key.clone(), Fields::parse(r#"{"n":1}"#).unwrap()).unwrap();
        let mut left = Vec::new();
        keep_unsent(book, &mut |step| left.push((Some(step), copied(folder.path())))).unwrap();
        left.push((None, copied(folder.path())));
        let steps: Vec<_> = left.iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, [Some(Step::Erased), None]);
        for (step, folder) in left {
            let book = Book::open(folder.path().join("a.book"), options()).unwrap();
            let last = book.audit().head().unwrap().unwrap().seq;
            let entry = book.audit().entries(last, 1).unwrap().remove(0);
            let is_erased = matches!(entry.meta, Meta::Control(Control::Erased(_)));
            assert_eq!(is_erased, step.is_none());
            assert_eq!(book.queue().unsent().unwrap().ops(), 1);
            assert_eq!(book.records().get(&key).unwrap().unwrap().json.as_str(), r#"{"n":1}"#);
        }
    }

    /// The file at the path stays what it is, if the folder takes no second one.
    #[test]
    fn a_book_that_cannot_be_written_anew_stays_as_it_is() {
        let store =
            Store::with_backend(redb::backends::InMemoryBackend::new(), &StoreOptions::default());
        let book = Book::start(store.unwrap(), options()).unwrap();
        let refused = book.sign_out(SignOut::KeepUnsent);
        assert!(matches!(refused, Err(Error::Store(_))), "it is not a file: {refused:?}");
    }
}
