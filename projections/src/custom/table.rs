//! The table of one projection, as its fold uses it.

use std::ops::{Bound, RangeBounds};

use fieldbook_core::limits;
use fieldbook_core::log::{StoreError, catch_storage_panic};
use redb::{ReadableTable, Table, WriteTransaction};

use super::{ProjectionError, read};
use crate::tables;

/// The longest key of a projection's table, in bytes.
pub const PROJECTION_KEY_BYTES: usize = 1_024;
/// The largest value of a projection's table, in bytes.
pub const PROJECTION_VALUE_BYTES: usize = limits::OP_BYTES;

/// A key of a projection's table with its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// A projection's own table, within the transaction that changes the records: bytes to bytes, in
/// the order of keys.
///
/// An error of the disk is remembered. The transaction then fails, whatever the fold does with the
/// error.
pub struct ProjectionTable<'t> {
    table: Table<'t, &'static [u8], &'static [u8]>,
    failure: Option<StoreError>,
}

impl<'t> ProjectionTable<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction, name: &str) -> Result<Self, StoreError> {
        let table = transaction.open_table(tables::app(&tables::app_name(name)));
        Ok(Self {
            table: table.map_err(StoreError::during("opening a projection's table"))?,
            failure: None,
        })
    }

    pub(super) fn take_failure(&mut self) -> Option<StoreError> {
        self.failure.take()
    }

    /// Returns the value of a key.
    ///
    /// # Errors
    /// [`ProjectionError::Table`] if the disk fails.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, ProjectionError> {
        self.on_disk(|table| {
            let stored = table.get(key).map_err(StoreError::during("reading a projection"))?;
            Ok(stored.map(|stored| stored.value().to_vec()))
        })
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// [`ProjectionError::TooLarge`] if the key or the value is too large;
    /// [`ProjectionError::Table`] if the disk fails.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), ProjectionError> {
        if key.len() > PROJECTION_KEY_BYTES || value.len() > PROJECTION_VALUE_BYTES {
            return Err(ProjectionError::TooLarge);
        }
        self.on_disk(|table| {
            drop(table.insert(key, value).map_err(StoreError::during("writing a projection"))?);
            Ok(())
        })
    }

    /// Removes a key if it exists.
    ///
    /// # Errors
    /// [`ProjectionError::Table`] if the disk fails.
    pub fn remove(&mut self, key: &[u8]) -> Result<(), ProjectionError> {
        self.on_disk(|table| {
            drop(table.remove(key).map_err(StoreError::during("writing a projection"))?);
            Ok(())
        })
    }

    /// Returns the first `limit` keys of a range with their values, in order.
    ///
    /// # Errors
    /// [`ProjectionError::Table`] if the disk fails.
    pub fn range<'a>(
        &mut self,
        range: impl RangeBounds<&'a [u8]>,
        limit: usize,
    ) -> Result<Vec<KeyValue>, ProjectionError> {
        let range = bounds(&range);
        self.on_disk(|table| read::range(table, range, limit))
    }

    /// Runs an operation on the disk and remembers its error, because the app's fold might ignore
    /// it. It also catches a panic of redb over damaged pages.
    fn on_disk<T>(
        &mut self,
        work: impl FnOnce(&mut Table<'t, &'static [u8], &'static [u8]>) -> Result<T, StoreError>,
    ) -> Result<T, ProjectionError> {
        if self.failure.is_some() {
            return Err(ProjectionError::Table);
        }
        catch_storage_panic(|| work(&mut self.table)).map_err(|failure| {
            self.failure = Some(failure);
            ProjectionError::Table
        })
    }
}

impl std::fmt::Debug for ProjectionTable<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProjectionTable")
    }
}

pub(super) fn bounds<'a>(range: &impl RangeBounds<&'a [u8]>) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    (range.start_bound().cloned(), range.end_bound().cloned())
}
