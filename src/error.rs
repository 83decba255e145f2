//! What can go wrong, by culprit. Each has one reaction.
//!
//! ```
//! use fieldbook::{Book, BookOptions, Error, Fields};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
//! match book.update("lead/42".parse()?, Fields::parse(r#"{"stage":"hot"}"#)?) {
//!     Ok(_) => println!("on the disk"),
//!     Err(Error::Rejected(why)) => println!("not valid, nothing was written: {why}"),
//!     Err(Error::NotPossible(why)) => println!("not as things stand by now: {why}"),
//!     Err(Error::Unknown { ops, .. }) => println!("reopen the book and look for {ops:?}"),
//!     Err(error) => println!("the book failed: {error}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What it is not: what a server answers. That is in the report of a sync, and on record.

use std::sync::Arc;

use fieldbook_core::OpId;
pub use fieldbook_core::log::StoreError;
pub use fieldbook_core::rules::NotPossible;
use fieldbook_core::rules::admit::NotAdmitted;
pub use fieldbook_core::rules::admit::Rejected;
use fieldbook_core::rules::freeze::FreezeError;
pub use fieldbook_core::{InvalidFields, InvalidName};

/// A call on a book that failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk failed, or the file is not what it should be. For a write: nothing was written.
    ///
    /// After a disk failure every write fails until the book is opened anew.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// The disk failed while committing, so nobody can say whether these ops were written. They are settled by opening the
    /// book anew and asking [`Queue::find`](crate::sync::Queue::find) for each.
    #[error("the disk failed while committing: open the book again and look the ops up by their ids")]
    Unknown {
        /// The ops, in the order of the mutations.
        ops: Vec<OpId>,
        /// What failed.
        #[source]
        source: Arc<StoreError>,
    },
    /// The mutation is not valid; nothing was written. The app's reaction: tell the user, or fix the call.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// A typed record does not go into JSON fields, or stored fields do not make that type.
    #[error("{what} does not fit the type it is read or written as")]
    Type {
        /// Which record.
        what: String,
        /// What serde says. It names fields and types, never values.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// What a person decided cannot be carried out as things stand; nothing was written. A sync may have ended what the decision is
    /// about since it was shown. The app's reaction: show the text, and what there is to decide by now.
    #[error(transparent)]
    NotPossible(#[from] NotPossible),
    /// The app's own projection broke, so its table is not to be relied on. See [`Audit::projections`](crate::audit::Audit::projections) for what broke
    /// it.
    #[error("the projection `{0}` is broken: fix its fold and raise its version, or rebuild the book")]
    BrokenProjection(String),
    /// The book holds no projection of this name: it was never opened with one.
    #[error("the book holds no projection `{0}`: register it when opening the book")]
    NoSuchProjection(String),
    /// The book cannot be closed, since another handle to it is in use, as that of a background sync is until it ends. That
    /// one closes it when it is dropped.
    #[error("another handle to this book is still in use: shut its background sync down and drop the others")]
    InUse,
    /// The book was opened to be looked at only, so nothing was written.
    #[error("this book was opened to be looked at only: open it without `look_only`")]
    LookOnly,
    /// The call is a fault of the app's code, whatever the user does and whatever happens at the same time; the text says
    /// which.
    #[error("{0}")]
    Misuse(&'static str),
    /// The thread that was committing this write together with its own panicked. Open the book anew.
    #[error("the commit that this write was part of did not end: open the book again")]
    Interrupted,
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
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
