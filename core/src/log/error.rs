//! The errors of the store, by cause.

use std::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use super::turn::Program;
use crate::entry::EntryError;
use crate::numbers::Seq;

/// The store could not do what it was asked to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk failed, or the storage in its place.
    ///
    /// If it failed during a commit, it is unknown whether the commit was written. Reopen the book
    /// to find out.
    #[error("the disk failed while {during}")]
    Disk {
        /// The step that failed.
        during: &'static str,
        /// The error of the disk.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The file, its folder or its file system cannot be written to. Nothing was written.
    #[error("{during} has to write, but the file, its folder or its file system is read-only")]
    ReadOnly {
        /// The step that has to write.
        during: &'static str,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The user of this process may not use the file or its folder.
    #[error("{during} is not permitted to this user")]
    Denied {
        /// The step that is not permitted.
        during: &'static str,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// There is nothing at the path.
    #[error("there is no {}", .path.display())]
    NotFound {
        /// The path.
        path: PathBuf,
    },
    /// A file exists where a new book was to be made. It was not changed.
    #[error("{} exists already: choose another path", .path.display())]
    AlreadyExists {
        /// The path.
        path: PathBuf,
    },
    /// Another handle, in this process or another, has the book open.
    #[error("{} is open already{}: close it there first", .path.display(), in_program(.holder))]
    AlreadyOpen {
        /// The path.
        path: PathBuf,
        /// The program that has it open, if it shares the book and so says who it is.
        holder: Option<Box<Program>>,
    },
    /// The file at the path is not a book. It was not changed.
    #[error("{} is not a book: {why}", .path.display())]
    NotABook {
        /// The path.
        path: PathBuf,
        /// The reason.
        why: &'static str,
    },
    /// A newer program wrote the book, or a part of it.
    #[error("the book has format {found}, which this program does not read: use a newer one")]
    NewerFormat {
        /// The format of the book, or of the part.
        found: u32,
    },
    /// A program from before the first release wrote the book, or a part of it.
    #[error(
        "the book has format {found}, made by a version before the first release, which this program does not read: \
         begin a new book"
    )]
    OlderFormat {
        /// The format of the book, or of the part.
        found: u32,
    },
    /// The file has impossible content.
    #[error("the book is damaged{}: {what}", at(.seq.as_ref()))]
    Corrupt {
        /// The damaged part.
        what: &'static str,
        /// The entry, if it is known.
        seq: Option<Seq>,
        /// The error that revealed the damage.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// A part of a log does not go on where the part before it ends.
    #[error(
        "part {part} does not go on where the one before ends: name the archives of one log, the oldest first, and \
         last what is left of it"
    )]
    NotNext {
        /// The number of the part, from 1.
        part: usize,
    },
    /// An earlier storage error stopped every write.
    #[error("an earlier storage error stopped all writing: close the book and open it again")]
    Poisoned,
    /// The store was closed, and what was read of it before reads no more.
    #[error("the store is closed: open the book again")]
    Closed,
    /// An entry cannot be stored.
    #[error("the entry cannot be stored")]
    Unstorable {
        /// The fault of the entry.
        #[source]
        source: EntryError,
    },
    /// The operation needs the store for itself.
    #[error("{during} needs the book for itself: end every transaction first")]
    InUse {
        /// The operation that was asked for.
        during: &'static str,
    },
    /// The caller used a table or a transaction in a way that redb does not allow.
    #[error("the store was used wrongly while {during}")]
    Misuse {
        /// The step that failed.
        during: &'static str,
        /// The error of redb.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl StoreError {
    /// Returns a function that turns redb's errors into errors by cause:
    /// `table.get(key).map_err(StoreError::during("reading a record"))?`.
    #[doc(hidden)]
    pub fn during<E: Into<redb::Error>>(during: &'static str) -> impl Fn(E) -> Self {
        move |error| Self::from_redb(error.into(), during)
    }

    /// Makes the error for damaged stored bytes.
    pub fn corrupt(
        what: &'static str,
        seq: impl Into<Option<Seq>>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Corrupt { what, seq: seq.into(), source: Some(source.into()) }
    }

    /// Makes the error for an entry whose bytes, or those of the entry before it, were altered
    /// after it was sealed.
    pub(super) const fn altered(seq: Seq) -> Self {
        let what = "its bytes are not those that were written, so nothing of it is used: restore the book from a copy \
                    that verifies";
        Self::Corrupt { what, seq: Some(seq), source: None }
    }

    /// Makes the error for a stored entry that cannot be read.
    pub fn corrupt_entry(seq: Seq, source: EntryError) -> Self {
        match source {
            EntryError::NewerFormat { found } => Self::NewerFormat { found: u32::from(found) },
            EntryError::OlderFormat { found } => Self::OlderFormat { found: u32::from(found) },
            source => Self::corrupt("an entry does not read", seq, source),
        }
    }

    /// Makes the error for a failure of the operating system during a step.
    pub fn disk(during: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::from_io(source, during)
    }

    fn from_io(source: io::Error, during: &'static str) -> Self {
        match source.kind() {
            // redb reads only where its own header promises content.
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
            Redb::DatabaseClosed => Self::Closed,
            Redb::TransactionInProgress
            | Redb::WouldBlock
            | Redb::ReadTransactionStillInUse(_)
            | Redb::EphemeralSavepointExists
            | Redb::PersistentSavepointExists => Self::InUse { during },
            Redb::Corrupted(_) | Redb::RepairAborted => {
                Self::corrupt("the file's structure", None, error)
            }
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

/// Runs `read`, and turns a panic into [`StoreError::Corrupt`].
///
/// redb trusts the structure of the pages that it reads, and may panic over a damaged page. After
/// an error, do not use the objects that `read` used. The panic's message still reaches the app's
/// panic hook.
///
/// Keep a transaction and its tables outside `read`. A panic poisons redb's locks, and a table or
/// transaction that is dropped during the unwinding panics again, which ends the process.
///
/// # Errors
/// Those of `read`, and [`StoreError::Corrupt`] if it panics.
pub fn catch_storage_panic<T, E: From<StoreError>>(
    read: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_panic| {
        Err(StoreError::corrupt(
            "the file's structure",
            None,
            "the storage engine cannot make sense of it",
        )
        .into())
    })
}

fn in_program(holder: &Option<Box<Program>>) -> String {
    holder.as_ref().map_or_else(String::new, |holder| format!(" in {holder}"))
}

fn at(seq: Option<&Seq>) -> String {
    seq.map_or_else(String::new, |seq| format!(" at entry {seq}"))
}

impl From<crate::fields::InvalidFields> for StoreError {
    fn from(fault: crate::fields::InvalidFields) -> Self {
        Self::Corrupt { what: "stored fields", seq: None, source: Some(Box::new(fault)) }
    }
}
