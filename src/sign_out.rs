//! Signing out: the book stays, or its file is removed.
//!
//! ```text
//!   wipe: no other handle? ─► anything unsent? ─► export, synced and verified ─► remove the file ─► sync the folder
//! ```
//!
//! Invariants:
//! 1. At every moment there is the whole book, or an export with the whole log, or nothing was
//!    unsent.
//! 2. From the count to the removal nobody writes: there is no other handle, and the file is locked
//!    until its name is gone.
//! 3. A sign-out that is refused changes no byte of the book.
//!
//! What it is not: an erasure. A file system may keep the bytes of a removed file until it writes
//! over them. And it keeps no part of a book: see decision 0041.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use fieldbook_core::log::turn::{Which, beside};
use fieldbook_core::log::{
    StoreError, entries, export_in_parts, not_made, read_head, verify_export,
};
use fieldbook_core::new_file::new_file;
use fieldbook_core::rules::unsent::{Unsent, unsent};
use fieldbook_projections::sound;

use crate::book::{Book, Shared, read};
use crate::error::Error;
use crate::gate::Gate;
use crate::status::Queue;

/// What becomes of a book when its user signs out ([`Book::sign_out`]).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignOut {
    /// The book is closed, and stays as it is. What was not sent leaves when its user signs in
    /// again.
    Keep,
    /// The book's file is removed, with the records of entity types that never leave the device.
    Wipe {
        /// A new file for the whole log, which keeps what was not sent. Without it a book is
        /// removed only if the server has everything. [`read_export`](crate::audit::read_export)
        /// reads the log again.
        export_to: Option<PathBuf>,
    },
}

/// The moments of a wipe at which a test looks at the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The export is written under its temporary name.
    Exporting,
    /// The export has its name, and the book is still there.
    Exported,
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
            SignOut::Wipe { export_to } => wipe(self, export_to.as_deref(), &mut |_| ()),
        }
    }
}

impl Queue<'_> {
    /// Returns the number of ops that the server does not have, or may not have, for each user:
    /// they wait, have no answer, are parked, or are dead letters. Ops of entity types that never
    /// leave the device are not counted.
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
        let found = unsent(&tail, &read(&self.actor), |entity| self.schema.leaves(entity));
        sound(&tail)?;
        Ok(found)
    }
}

/// Removes the file of a book, after its log was exported if there is a path.
fn wipe(book: Book, export_to: Option<&Path>, at: &mut dyn FnMut(Step)) -> Result<(), Error> {
    // Nobody else may write from here on.
    let shared = book.into_only()?;
    if shared.store.is_read_only() {
        return Err(Error::ReadOnly);
    }
    shared.check_alive()?;
    let unsent = shared.unsent()?;
    match export_to {
        Some(path) => export(&shared.store, path, at)?,
        None if !unsent.is_empty() => return Err(Error::Unsent(unsent)),
        None => {}
    }
    at(Step::Exported);
    let store = Book::store_of(shared).ok_or(Error::Suspended)?;
    let beside =
        store.path().map(|path| [Which::Holder, Which::Turn].map(|which| beside(path, which)));
    store.remove()?;
    // They say who has the book, and nothing of it. There may be none.
    beside.into_iter().flatten().for_each(|path| drop(std::fs::remove_file(path)));
    Ok(())
}

/// Writes the whole log to a new file and verifies what was written. The file gets its name after
/// that.
fn export(store: &Gate, path: &Path, at: &mut dyn FnMut(Step)) -> Result<(), Error> {
    let disk = StoreError::disk("exporting the log");
    let fill = |mut file: File| -> Result<(), Error> {
        let mut writer = BufWriter::new(&file);
        export_in_parts(|| entries(&store.begin_read()?), &mut writer)?;
        writer.flush().map_err(&disk)?;
        drop(writer);
        at(Step::Exporting);
        file.rewind().map_err(&disk)?;
        let damaged = |damage| StoreError::corrupt("the exported log", None, damage);
        let written = verify_export(&mut BufReader::new(&file)).map_err(damaged)?;
        if written.head != read_head(&entries(&store.begin_read()?)?)? {
            return Err(StoreError::corrupt("the exported log", None, "it ends too early").into());
        }
        Ok(())
    };
    new_file(path, fill).map_err(|error| not_made(error, path, "exporting the log"))
}

#[cfg(test)]
mod tests {
    use std::fs;

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
}
