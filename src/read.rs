//! Pages of lists, and records of a snapshot.

use fieldbook_core::log::StoreError;
use fieldbook_core::{RecordId, RecordKey, Schema};
use fieldbook_projections::Snapshot;

use crate::record::RecordRef;

/// A part of a list, and where it continues.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T, After = RecordId> {
    /// The items of this part.
    pub items: Vec<T>,
    /// Pass this to get the next part; `None` at the end.
    pub next: Option<After>,
}

impl<T, After> Page<T, After> {
    /// Makes a page of found items. If there are `limit` of them, more may follow.
    pub(crate) fn of(items: Vec<T>, limit: usize, place: impl FnOnce(&T) -> After) -> Self {
        let next = if items.len() < limit { None } else { items.last().map(place) };
        Self { items, next }
    }
}

/// Lends a record of a snapshot, as the app with this schema reads it.
pub(crate) fn with_record<T>(
    snapshot: &Snapshot,
    schema: &Schema,
    key: &RecordKey,
    read: impl FnOnce(RecordRef<'_>) -> T,
) -> Result<Option<T>, StoreError> {
    let name = (&key.entity, key.id.as_str());
    let found = snapshot.record_as(key, |view| RecordRef::lend(schema, name, view, read))?;
    Ok(found.transpose()?.flatten())
}
