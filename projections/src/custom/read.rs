//! Reads an app's projections on one snapshot.

use std::ops::{Bound, RangeBounds};

use fieldbook_core::log::StoreError;
use redb::{ReadOnlyTable, ReadableTable};

use super::ProjectionRow;
use super::table::{KeyValue, bounds};
use crate::read::Snapshot;
use crate::tables;

impl Snapshot {
    /// Returns the projections that the book has, by name.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn projections(&self) -> Result<Vec<(String, ProjectionRow)>, StoreError> {
        self.open(tables::PROJECTIONS)?.map_or_else(|| Ok(Vec::new()), |table| rows(&table))
    }

    /// Returns the stored state of one projection.
    ///
    /// # Errors
    /// [`StoreError`] if the row cannot be read.
    pub fn projection(&self, name: &str) -> Result<Option<ProjectionRow>, StoreError> {
        let Some(table) = self.open(tables::PROJECTIONS)? else { return Ok(None) };
        let stored = table.get(name.as_bytes()).map_err(StoreError::during("reading a row"))?;
        stored.map(|stored| row(stored.value())).transpose()
    }

    /// Returns the value of a key of a projection's table, broken or not.
    ///
    /// # Errors
    /// [`StoreError`] if the value cannot be read.
    pub fn projected(&self, name: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(table) = self.open(tables::app(&tables::app_name(name)))? else { return Ok(None) };
        let stored = table.get(key).map_err(StoreError::during("reading a projection"))?;
        Ok(stored.map(|stored| stored.value().to_vec()))
    }

    /// Returns the first `limit` keys of a range of a projection's table with their values, in
    /// order.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn projected_range<'a>(
        &self,
        name: &str,
        range: impl RangeBounds<&'a [u8]>,
        limit: usize,
    ) -> Result<Vec<KeyValue>, StoreError> {
        let table = self.open(tables::app(&tables::app_name(name)))?;
        table.map_or_else(|| Ok(Vec::new()), |table| self::range(&table, bounds(&range), limit))
    }

    fn open(&self, definition: tables::Named<'_>) -> Result<Option<BytesTable>, StoreError> {
        match self.transaction.open_table(definition) {
            Ok(table) => Ok(Some(table)),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(StoreError::during("opening a table")(error)),
        }
    }
}

type BytesTable = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// Reads the rows of all projections.
pub(super) fn rows(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
) -> Result<Vec<(String, ProjectionRow)>, StoreError> {
    let mut rows = Vec::new();
    for stored in table.iter().map_err(StoreError::during("reading rows"))? {
        let (key, value) = stored.map_err(StoreError::during("reading rows"))?;
        rows.push((name(key.value())?, row(value.value())?));
    }
    Ok(rows)
}

/// Reads the names of all projections.
pub(super) fn names(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
) -> Result<Vec<String>, StoreError> {
    let rows = table.iter().map_err(StoreError::during("reading rows"))?;
    rows.map(|stored| name(stored.map_err(StoreError::during("reading rows"))?.0.value())).collect()
}

fn name(bytes: &[u8]) -> Result<String, StoreError> {
    let name = std::str::from_utf8(bytes);
    Ok(name.map_err(|fault| StoreError::corrupt("a projection's name", None, fault))?.to_owned())
}

fn row(bytes: &[u8]) -> Result<ProjectionRow, StoreError> {
    serde_json::from_slice(bytes).map_err(|fault| {
        StoreError::corrupt("a projection's row that is folded from the log", None, fault)
    })
}

/// Reads a part of a table.
pub(super) fn range(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    range: (Bound<&[u8]>, Bound<&[u8]>),
    limit: usize,
) -> Result<Vec<KeyValue>, StoreError> {
    let during = "reading a projection";
    let rows = table.range::<&[u8]>(range).map_err(StoreError::during(during))?;
    rows.take(limit)
        .map(|row| {
            let (key, value) = row.map_err(StoreError::during(during))?;
            Ok((key.value().to_vec(), value.value().to_vec()))
        })
        .collect()
}
