//! What a simulated world needs beyond the front door: a disk of its own, and the rows as they are stored.
//!
//! It is here only with the feature `simulation`, which is for this repository's own programs: types of the storage engine and of
//! the stored rows are in it, so any release may change it.

use fieldbook_core::Schema;
use fieldbook_core::log::Store;
pub use fieldbook_projections::Snapshot;

use crate::book::Book;
use crate::error::Error;
use crate::options::BookOptions;

impl Book {
    /// Opens a book on something that behaves like a file.
    ///
    /// # Errors
    /// [`Error::Store`] as for [`Self::open`].
    pub fn on_backend(backend: impl redb::StorageBackend, options: BookOptions) -> Result<Self, Error> {
        let store = Store::with_backend(backend, &options.store)?;
        Self::start(store, options)
    }

    /// Takes a snapshot of the whole book, for reading more than one thing at the same instant. Hold it briefly: while it
    /// lives, what is overwritten keeps its room in the file.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        self.shared.snapshot()
    }

    /// Returns what the app declared.
    pub fn schema(&self) -> &Schema {
        &self.shared.schema
    }
}
