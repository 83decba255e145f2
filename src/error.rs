//! Errors by their cause. Each has one reaction.
//!
//! ```
//! use fieldbook::{Book, BookOptions, Error, Fields};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
//! match book.records().update("lead/42".parse()?, Fields::parse(r#"{"stage":"hot"}"#)?) {
//!     Ok(_) => println!("it is on the disk"),
//!     Err(Error::Rejected(why)) => println!("not valid, nothing was written: {why}"),
//!     Err(Error::NotPossible(why)) => println!("not possible now: {why}"),
//!     Err(Error::Unknown { ops, .. }) => println!("open the book again and find {ops:?}"),
//!     Err(error) => println!("the book failed: {error}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What it is not: the answers of a server. They are in the report of a sync and in the log.

use std::sync::Arc;

pub use fieldbook_core::log::StoreError;
pub use fieldbook_core::rules::NotPossible;
use fieldbook_core::rules::admit::NotAdmitted;
pub use fieldbook_core::rules::admit::Rejected;
use fieldbook_core::rules::freeze::FreezeError;
use fieldbook_core::rules::unsent::Unsent;
use fieldbook_core::{Hook, OpId, Seq};
pub use fieldbook_core::{InvalidFields, InvalidName};

/// A call on a book that failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk failed, or the file is damaged or is no book. A write with this error wrote
    /// nothing.
    ///
    /// After a disk failure every write fails until the book is opened anew.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// The disk failed during the commit, so nobody knows whether these ops were written. The app's
    /// reaction: open the book anew and call [`Queue::find`](crate::sync::Queue::find) for each op.
    #[error("the disk failed during the commit: open the book again and find the ops by their ids")]
    Unknown {
        /// The ops, in the order of the mutations.
        ops: Vec<OpId>,
        /// The failure.
        #[source]
        source: Arc<StoreError>,
    },
    /// The mutation is not valid; nothing was written. The app's reaction: show the text to the
    /// user, or correct the call.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// A typed record does not convert to JSON fields, or the stored fields do not convert to the
    /// type.
    #[error("{what} does not fit the app's type")]
    Type {
        /// The record.
        what: String,
        /// The error of serde. It names fields and types, never values.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A person's decision cannot be carried out in the present state; nothing was written. A sync
    /// may have ended the op or conflict since it was shown. The app's reaction: show the text, and
    /// the decisions that are possible now.
    #[error(transparent)]
    NotPossible(#[from] NotPossible),
    /// The app's own projection broke, so its table may be wrong.
    /// [`Audit::projections`](crate::audit::Audit::projections) has the cause.
    #[error(
        "the projection `{0}` is broken: fix its fold and raise its version, or rebuild the book"
    )]
    BrokenProjection(String),
    /// The book has no projection of this name: it was never opened with it.
    #[error("the book has no projection `{0}`: open the book with it")]
    NoSuchProjection(String),
    /// The book cannot be closed, because there is another handle to it, such as that of a
    /// background sync. The book closes when that handle is dropped.
    #[error(
        "there is another handle to this book: shut down its background sync and drop the others"
    )]
    InUse,
    /// The book is suspended, so it neither reads nor writes; nothing was written. The app's
    /// reaction: call [`Book::resume`](crate::Book::resume). A book that was lent resumes by
    /// itself.
    #[error("the book is suspended: resume it")]
    Suspended,
    /// The book cannot be resumed, because its file is not what it was when it was suspended. The
    /// text says in what. The app's reaction: close this book, and open the file anew.
    #[error("{0}: close the book and open it anew")]
    NotTheSame(&'static str),
    /// The book was not removed, because the server does not have everything in it. The book is
    /// closed and unchanged. The app's reaction: open it again, and sync, let a person decide about
    /// the failed ops, or sign out with an export.
    #[error("{0}; sync, decide about what failed, or sign out with an export")]
    Unsent(Unsent),
    /// The book was opened read-only, so nothing was written.
    #[error("this book was opened read-only: open it without `read_only`")]
    ReadOnly,
    /// The book's declarations name functions of the app that this program lacks, so it was not
    /// opened to write. The file is unchanged. The app itself can write the book.
    #[error("the book needs rules of its app that this program lacks: {}", listed(.hooks))]
    LacksRules {
        /// The functions.
        hooks: Vec<Hook>,
    },
    /// The file lacks what the call reads: an index as the program declares it, or the words of a
    /// search. A book that is opened read-only, or without the app's rules, does not build it. The
    /// app's reaction: open the book once to write.
    #[error("the file lacks {0}: open it once to write, with the rules of its app")]
    NotBuilt(&'static str),
    /// The place is of another index, or the index has another shape now. The app's reaction: read
    /// the list from its first page.
    #[error("this place is not of the list as it is now: begin at the first page")]
    NotOfThisList,
    /// The log has no entry of this number.
    #[error("the log ends at entry {last}")]
    NoSuchEntry {
        /// The last entry.
        last: Seq,
    },
    /// The log has no entry at all, so there is nothing to sign or to read.
    #[error("the log has no entry, so there is nothing to sign or to read")]
    EmptyLog,
    /// The values that the call reads were erased. The entry that says so, and those before it,
    /// are in the log with their keys and times.
    #[error(
        "values of this moment were erased by entry {by}: ask for a moment from that entry on, or \
         read the history, which tells what is left"
    )]
    Erased {
        /// The entry that says so.
        by: Seq,
    },
    /// The moment is before what is left of the log: its entries were trimmed. The app's reaction:
    /// read the archive that was made of them.
    #[error(
        "the log was trimmed up to entry {upto}: ask for a moment from that entry on, or read it \
         together with the archive of what was before"
    )]
    Trimmed {
        /// The last of the trimmed entries.
        upto: Seq,
    },
    /// The signer of a checkpoint did not sign. Nothing was written.
    #[error("the head of the log was not signed")]
    NotSigned(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The call is a fault of the app's code, in every state of the book. The text names the fault.
    #[error("{0}")]
    Misuse(&'static str),
    /// The thread that committed this write together with its own panicked. Open the book anew.
    #[error("the commit of this write did not end: open the book again")]
    Interrupted,
}

fn listed(hooks: &[Hook]) -> String {
    hooks.iter().map(Hook::to_string).collect::<Vec<_>>().join(", ")
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            // The store of an open book is closed only while the book is suspended.
            StoreError::Closed => Self::Suspended,
            error => Self::Store(Arc::new(error)),
        }
    }
}

impl Error {
    pub(crate) fn not_admitted(refused: NotAdmitted) -> Self {
        match refused {
            NotAdmitted::Rejected(rejected) => rejected.into(),
            NotAdmitted::Damaged(fault) => Self::damaged(fault),
        }
    }

    pub(crate) fn not_frozen(error: FreezeError<StoreError>) -> Self {
        match error {
            FreezeError::View(error) => error.into(),
            other => StoreError::corrupt("what is to be sent", None, other).into(),
        }
    }

    pub(crate) fn damaged(fault: InvalidFields) -> Self {
        StoreError::corrupt("stored fields", None, fault).into()
    }
}
