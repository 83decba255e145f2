//! What can go wrong with the store, by culprit.

use std::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use crate::entry::EntryError;
use crate::numbers::Seq;

/// The store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk, or what stands for it, failed.
    ///
    /// If it failed while committing, it is unknown whether the commit was written: reopen the book and look.
    #[error("the disk failed while {during}")]
    Disk {
        /// What was being done.
        during: &'static str,
        /// What the disk said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The file, its folder or its file system cannot be written to. Nothing was written.
    #[error("{during} has to write, but the file, its folder or its file system is read-only")]
    ReadOnly {
        /// What was being done.
        during: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The user of this process may not use the file or its folder.
    #[error("{during} is not permitted to this user")]
    Denied {
        /// What was being done.
        during: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is nothing at the path.
    #[error("there is no {}", .path.display())]
    NotFound {
        /// The path.
        path: PathBuf,
    },
    /// Something stands where a new book was to be made. It was left as it is.
    #[error("{} exists already: choose another path", .path.display())]
    AlreadyExists {
        /// The path.
        path: PathBuf,
    },
    /// Another handle, in this process or another, has the book open.
    #[error("{} is open already: close it there first", .path.display())]
    AlreadyOpen {
        /// The path.
        path: PathBuf,
    },
    /// What stands at the path is something else than a book. It was left as it is.
    #[error("{} is not a book: {why}", .path.display())]
    NotABook {
        /// The path.
        path: PathBuf,
        /// How that shows.
        why: &'static str,
    },
    /// A newer program wrote the book, or a part of it.
    #[error("the book has format {found}, which this program does not read: use a newer one")]
    NewerFormat {
        /// The format it has.
        found: u32,
    },
    /// A program from before the first release wrote the book, or a part of it.
    #[error(
        "the book has format {found}, made by a version before the first release, which this program does not read: \
         begin a new book"
    )]
    OlderFormat {
        /// The format it has.
        found: u32,
    },
    /// The file says something that cannot be.
    #[error("the book is damaged{}: {what}", at(.seq.as_ref()))]
    Corrupt {
        /// What is damaged.
        what: &'static str,
        /// The entry concerned, if it is known.
        seq: Option<Seq>,
        /// What showed it.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// An earlier storage error stopped every write.
    #[error("an earlier storage error stopped all writing: close the book and open it again")]
    Poisoned,
    /// An entry cannot be stored as it is.
    #[error("the entry cannot be stored")]
    Unstorable {
        /// Which limit it breaks.
        #[source]
        source: EntryError,
    },
    /// The operation needs the store for itself.
    #[error("{during} needs the book for itself: end every transaction first")]
    InUse {
        /// What was asked for.
        during: &'static str,
    },
    /// The caller used a table or a transaction in a way that redb does not allow.
    #[error("the store was used wrongly while {during}")]
    Misuse {
        /// What was being done.
        during: &'static str,
        /// What redb said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl StoreError {
    /// Returns what sorts any of redb's errors by culprit:
    /// `table.get(key).map_err(StoreError::during("reading a record"))?`.
    #[doc(hidden)]
    pub fn during<E: Into<redb::Error>>(during: &'static str) -> impl Fn(E) -> Self {
        move |error| Self::from_redb(error.into(), during)
    }

    /// Says that stored bytes are damaged.
    pub fn corrupt(
        what: &'static str,
        seq: impl Into<Option<Seq>>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Corrupt { what, seq: seq.into(), source: Some(source.into()) }
    }

    /// Says that an entry's bytes, or those of the entry before it, are not those that were sealed.
    pub(super) const fn altered(seq: Seq) -> Self {
        let what = "its bytes are not those that were written, so nothing of it is used: restore the book from a copy \
                    that verifies";
        Self::Corrupt { what, seq: Some(seq), source: None }
    }

    /// Says that a stored entry does not read.
    pub fn corrupt_entry(seq: Seq, source: EntryError) -> Self {
        match source {
            EntryError::NewerFormat { found } => Self::NewerFormat { found: u32::from(found) },
            EntryError::OlderFormat { found } => Self::OlderFormat { found: u32::from(found) },
            source => Self::corrupt("an entry does not read", seq, source),
        }
    }

    pub(super) fn disk(during: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::from_io(source, during)
    }

    fn from_io(source: io::Error, during: &'static str) -> Self {
        match source.kind() {
            // redb reads only where its own header says that there is something.
            io::ErrorKind::UnexpectedEof => Self::corrupt("the file ends too early", None, source),
            io::ErrorKind::InvalidData => Self::corrupt("the file's structure", None, source),
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { during, source },
            io::ErrorKind::PermissionDenied => Self::Denied { during, source },
            _ => Self::Disk { during, source: Box::new(source) },
        }
    }

    fn from_redb(error: redb::Error, during: &'static str) -> Self {
        use redb::Error as Redb;
        match error {
            Redb::Io(source) => Self::from_io(source, during),
            Redb::PreviousIo | Redb::LockPoisoned(_) | Redb::TransactionPoisoned => Self::Poisoned,
            Redb::TransactionInProgress
            | Redb::WouldBlock
            | Redb::ReadTransactionStillInUse(_)
            | Redb::EphemeralSavepointExists
            | Redb::PersistentSavepointExists => Self::InUse { during },
            Redb::Corrupted(_) | Redb::RepairAborted => Self::corrupt("the file's structure", None, error),
            Redb::TableTypeMismatch { .. }
            | Redb::TableIsMultimap(_)
            | Redb::TableIsNotMultimap(_)
            | Redb::TypeDefinitionChanged { .. }
            | Redb::TableDoesNotExist(_) => {
                Self::corrupt("a table is missing or of another kind", None, error)
            }
            Redb::Unsupported => Self::Disk { during, source: Box::new(error) },
            other => Self::Misuse { during, source: Box::new(other) },
        }
    }
}

/// Reads, and turns a panic into [`StoreError::Corrupt`].
///
/// redb trusts the structure of the pages it reads, and may panic over a damaged one. What was being read must not be
/// used again after an error. The panic's message still goes to the app's panic hook.
///
/// A transaction and its tables belong outside of `read`: redb's locks are poisoned by a panic, and a table or a transaction that
/// is dropped while that panic unwinds panics too, which ends the process.
///
/// # Errors
/// Those of `read`, and [`StoreError::Corrupt`] if it panics.
pub fn guarded<T, E: From<StoreError>>(read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_panic| {
        Err(StoreError::corrupt("the file's structure", None, "the storage engine cannot make sense of it")
            .into())
    })
}

fn at(seq: Option<&Seq>) -> String {
    seq.map_or_else(String::new, |seq| format!(" at entry {seq}"))
}

impl From<crate::fields::InvalidFields> for StoreError {
    fn from(fault: crate::fields::InvalidFields) -> Self {
        Self::Corrupt { what: "stored fields", seq: None, source: Some(Box::new(fault)) }
    }
}
