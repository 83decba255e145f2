//! Tables of the app that follow the records: sums, counts, look-ups of its own.
//!
//! A projection receives each change of a record, before and after, in the commit that makes it. So
//! it always matches the records that the app reads, also while a sync rebases a record.
//!
//! ```
//! use fieldbook::projection::{Projection, ProjectionError, ProjectionTable, RecordChange};
//! use fieldbook::{Book, BookOptions, Fields};
//!
//! /// The minutes of calls of each lead.
//! struct MinutesByLead;
//!
//! impl Projection for MinutesByLead {
//!     fn name(&self) -> &str {
//!         "minutes_by_lead"
//!     }
//!
//!     fn version(&self) -> u32 {
//!         1 // raised whenever `fold` makes another table
//!     }
//!
//!     fn fold(&self, change: &RecordChange<'_>, table: &mut ProjectionTable<'_>) -> Result<(), ProjectionError> {
//!         if change.key.entity.as_str() != "call" {
//!             return Ok(());
//!         }
//!         // Subtract the record before the change, add the record after it.
//!         for (fields, sign) in [(change.before, -1), (change.after, 1)] {
//!             let Some(fields) = fields else { continue };
//!             let lead = fields.get("lead").and_then(|lead| lead.as_str()).unwrap_or_default().as_bytes();
//!             let minutes = fields.get("minutes").and_then(|minutes| minutes.as_i64()).unwrap_or(0);
//!             let before = table.get(lead)?.and_then(|sum| sum.try_into().ok()).map_or(0, i64::from_be_bytes);
//!             match before + sign * minutes {
//!                 0 => table.remove(lead)?,
//!                 sum => table.put(lead, &sum.to_be_bytes())?,
//!             }
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let options = BookOptions::new("user-7")?.projection(MinutesByLead)?;
//! let book = Book::create_new(folder.path().join("crm.book"), options)?;
//! book.records().create("call/1".parse()?, Fields::parse(r#"{"lead":"42","minutes":12}"#)?)?;
//! book.records().create("call/2".parse()?, Fields::parse(r#"{"lead":"42","minutes":5}"#)?)?;
//! book.records().delete("call/1".parse()?)?;
//!
//! let minutes = book.projection("minutes_by_lead").get(b"42")?;
//! assert_eq!(minutes, Some(5_i64.to_be_bytes().to_vec()));
//! # Ok(())
//! # }
//! ```
//!
//! What it is not: a history of a record ([`audit`](crate::audit) is), or a way to change records.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

use fieldbook_core::log::StoreError;
pub use fieldbook_projections::{
    Broken, InvalidProjection, KeyValue, PROJECTION_KEY_BYTES, PROJECTION_VALUE_BYTES, Projection,
    ProjectionError, ProjectionTable, RecordChange,
};
use fieldbook_projections::{ProjectionRow, Snapshot};

use crate::book::{Book, Shared, WriterState};
use crate::error::Error;

/// The state of one of the app's projections.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ProjectionStatus {
    /// Its name.
    pub name: String,
    /// The version that folded it.
    pub version: u32,
    /// The cause, if it is broken; `None` if it matches the records.
    pub broken: Option<Broken>,
}

impl Book {
    /// Returns the reader of one of the app's projections. Each read takes one snapshot, with every
    /// commit before it.
    pub const fn projection<'b>(&'b self, name: &'b str) -> Projected<'b> {
        Projected { book: self, name }
    }
}

/// Returns the tables of those projections of the writer that are not broken.
pub(crate) fn sound_projections(
    writer: &WriterState,
    snapshot: &Snapshot,
) -> Result<BTreeMap<String, Vec<KeyValue>>, StoreError> {
    let mut sound = BTreeMap::new();
    for name in writer.projections.names() {
        if snapshot.projection(name)?.is_some_and(|row| row.broken.is_none()) {
            let table = snapshot.projected_range(name, .., usize::MAX)?;
            sound.insert(name.to_owned(), table);
        }
    }
    Ok(sound)
}

/// One of the app's projections, to read.
#[derive(Debug, Clone, Copy)]
pub struct Projected<'b> {
    book: &'b Book,
    name: &'b str,
}

impl Projected<'_> {
    /// Returns the value of a key.
    ///
    /// # Errors
    /// [`Error::NoSuchProjection`]; [`Error::BrokenProjection`]; [`Error::Store`] if the disk
    /// fails.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.sound()?.projected(self.name, key)?)
    }

    /// Returns the first `limit` keys of a range with their values, in order, on one snapshot.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub fn range<'k>(
        &self,
        range: impl RangeBounds<&'k [u8]>,
        limit: usize,
    ) -> Result<Vec<KeyValue>, Error> {
        Ok(self.sound()?.projected_range(self.name, range, limit)?)
    }

    /// Takes a snapshot in which the projection is sound.
    fn sound(&self) -> Result<Snapshot, Error> {
        let snapshot = self.book.shared.snapshot()?;
        match snapshot.projection(self.name)? {
            None => Err(Error::NoSuchProjection(self.name.to_owned())),
            Some(ProjectionRow { broken: Some(_), .. }) => {
                Err(Error::BrokenProjection(self.name.to_owned()))
            }
            Some(_) => Ok(snapshot),
        }
    }
}

impl Shared {
    /// Folds the app's projections that are new or have another version, in one commit.
    pub(crate) fn fold_new_projections(&self) -> Result<(), Error> {
        let mut writer = self.writer.lock().map_err(|_| Error::Interrupted)?;
        if writer.projections.is_stale() {
            let transaction = self.store.begin_write()?;
            writer.projections.fold_stale(&transaction)?;
            self.store.commit(transaction)?;
        }
        Ok(())
    }
}
