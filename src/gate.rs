//! The store of a book, as long as the book has it: a suspended book has none.
//!
//! Invariants:
//! 1. Without a store every call fails with [`StoreError::Closed`], which an app reads as
//!    [`Error::Suspended`](crate::Error::Suspended).
//! 2. The store is taken and put back only by a holder of the writer's lock, so a write
//!    transaction never outlives it. A snapshot may: its reads fail then.
//! 3. The lock is held during one call into the store, never longer.

use fieldbook_core::locks::RwLock;
use fieldbook_core::log::{Store, StoreError};

use crate::book::{read, write};

/// A store that can be taken away.
pub(crate) struct Gate {
    store: RwLock<Option<Store>>,
    read_only: bool,
}

impl Gate {
    pub(crate) const fn new(store: Store) -> Self {
        let read_only = store.is_read_only();
        Self { store: RwLock::new(Some(store)), read_only }
    }

    /// Calls the store.
    ///
    /// # Errors
    /// [`StoreError::Closed`] if the book has none; those of the call.
    pub(crate) fn with<T>(
        &self,
        call: impl FnOnce(&Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        read(&self.store).as_ref().map_or(Err(StoreError::Closed), call)
    }

    pub(crate) fn begin_read(&self) -> Result<redb::ReadTransaction, StoreError> {
        self.with(Store::begin_read)
    }

    pub(crate) fn begin_write(&self) -> Result<redb::WriteTransaction, StoreError> {
        self.with(Store::begin_write)
    }

    pub(crate) fn commit(&self, transaction: redb::WriteTransaction) -> Result<(), StoreError> {
        self.with(|store| store.commit(transaction))
    }

    /// Returns whether the book was opened read-only, also while it has no store.
    pub(crate) const fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Returns whether the book has a store.
    pub(crate) fn is_open(&self) -> bool {
        read(&self.store).is_some()
    }

    pub(crate) fn take(&self) -> Option<Store> {
        write(&self.store).take()
    }

    pub(crate) fn put(&self, store: Store) {
        *write(&self.store) = Some(store);
    }

    pub(crate) fn into_store(self) -> Option<Store> {
        self.store.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
