//! What the app reads: one record with its fields and its status.

use fieldbook_core::rows::{RecordRow, RecordView};
use fieldbook_core::{Fields, FieldsJson, RecordKey, Version, WallTime};
use serde::de::DeserializeOwned;

use crate::error::Error;

/// One record as the app sees it: what the server confirmed with the app's own unsent changes on top.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Which record.
    pub key: RecordKey,
    /// Its fields, as JSON text.
    pub json: FieldsJson,
    /// The version that the server confirmed; none for a record that it does not have yet.
    pub version: Option<Version>,
    /// How many of its ops have no terminal outcome.
    pub pending: usize,
    /// When the server last said something of it, by the device's clock.
    pub synced_at: Option<WallTime>,
}

impl Record {
    /// Returns the fields as values.
    ///
    /// # Errors
    /// [`Error::Store`] if the stored text is damaged.
    pub fn fields(&self) -> Result<Fields, Error> {
        self.json.to_fields().map_err(Error::damaged)
    }

    /// Reads the fields as an app's type.
    ///
    /// # Errors
    /// [`Error::Type`] if they do not fit.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(self.json.as_str())
            .map_err(|source| Error::Type { what: self.key.to_string(), source: std::sync::Arc::new(source) })
    }

    pub(crate) fn from_view(key: RecordKey, view: &RecordView<'_>) -> Option<Self> {
        let json = view.image()?;
        let version = view.version();
        Some(Self { key, json, version, pending: view.pending(), synced_at: view.synced_at })
    }

    pub(crate) fn from_row(key: RecordKey, row: &RecordRow) -> Option<Self> {
        let json = row.image()?.clone();
        let version = row.version();
        Some(Self { key, json, version, pending: row.tail.len(), synced_at: row.synced_at })
    }
}
