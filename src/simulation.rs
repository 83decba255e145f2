//! Additions for a simulated world: storage of its own, and the rows as they are stored.
//!
//! The feature `simulation` is for the programs of this repository only. It has types of the
//! storage engine and of the stored rows, so any release may change it.

use fieldbook_core::Schema;
use fieldbook_core::log::Store;
pub use fieldbook_projections::Snapshot;

use crate::book::Book;
use crate::error::Error;
use crate::options::BookOptions;

impl Book {
    /// Opens a book on a storage backend.
    ///
    /// # Errors
    /// [`Error::Store`] as for [`Self::open`].
    pub fn on_backend(
        backend: impl redb::StorageBackend,
        options: BookOptions,
    ) -> Result<Self, Error> {
        let store = Store::with_backend(backend, &options.store)?;
        Self::start(store, options)
    }

    /// Takes a snapshot of the whole book, to read several things at the same instant. Hold it
    /// briefly: while it exists, overwritten pages keep their space in the file.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        self.shared.snapshot()
    }

    /// Returns the app's schema.
    pub fn schema(&self) -> &Schema {
        &self.shared.schema
    }
}
