//! An app's own projections at the front door: opening a book with them, reading them, and whether they are sound.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

use fieldbook_core::log::commit;
use fieldbook_projections::{Broken, KeyValue, ProjectionRow, Snapshot};

use crate::book::{Book, Shared};
use crate::error::Error;

/// Where one of the app's own projections stands.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ProjectionStatus {
    /// Its name.
    pub name: String,
    /// The version that it was folded by.
    pub version: u32,
    /// What broke it; `None` if it is in line with the records.
    pub broken: Option<Broken>,
}

impl Book {
    /// Returns where each of the app's own projections that the book holds stands.
    ///
    /// # Errors
    /// [`Error::Store`] if a row does not read.
    pub fn projections(&self) -> Result<Vec<ProjectionStatus>, Error> {
        let rows = self.snapshot()?.projections()?.into_iter();
        Ok(rows
            .map(|(name, ProjectionRow { version, broken })| ProjectionStatus { name, version, broken })
            .collect())
    }

    /// Returns the way to read one of the app's own projections. Each read is one snapshot; it sees every commit before it.
    pub const fn projection<'b>(&'b self, name: &'b str) -> Projected<'b> {
        Projected { book: self, name }
    }

    /// Returns the tables of those registered projections that are not broken.
    pub(crate) fn sound_projections(
        &self,
        snapshot: &Snapshot,
    ) -> Result<BTreeMap<String, Vec<KeyValue>>, Error> {
        let names: Vec<String> = {
            let writer = self.shared.writer.lock().map_err(|_| Error::Interrupted)?;
            writer.projections.names().map(ToOwned::to_owned).collect()
        };
        let mut sound = BTreeMap::new();
        for name in names {
            if snapshot.projection(&name)?.is_some_and(|row| row.broken.is_none()) {
                let table = snapshot.projected_range(&name, .., usize::MAX)?;
                sound.insert(name, table);
            }
        }
        Ok(sound)
    }
}

/// One of the app's own projections, for reading.
#[derive(Debug, Clone, Copy)]
pub struct Projected<'b> {
    book: &'b Book,
    name: &'b str,
}

impl Projected<'_> {
    /// Returns the value of a key.
    ///
    /// # Errors
    /// [`Error::Misuse`] if the book holds no such projection; [`Error::BrokenProjection`]; [`Error::Store`] if the disk
    /// fails.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.sound()?.projected(self.name, key)?)
    }

    /// Returns the first `limit` keys of a range with their values, in order, on one snapshot.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub fn range<'k>(&self, range: impl RangeBounds<&'k [u8]>, limit: usize) -> Result<Vec<KeyValue>, Error> {
        Ok(self.sound()?.projected_range(self.name, range, limit)?)
    }

    /// Takes a snapshot in which the projection is sound.
    fn sound(&self) -> Result<Snapshot, Error> {
        let snapshot = self.book.snapshot()?;
        match snapshot.projection(self.name)? {
            None => Err(Error::Misuse("the book holds no projection of this name: register it when opening")),
            Some(ProjectionRow { broken: Some(_), .. }) => Err(Error::BrokenProjection(self.name.to_owned())),
            Some(_) => Ok(snapshot),
        }
    }
}

impl Shared {
    /// Folds those of the app's projections that are new or of another version, in one commit.
    pub(crate) fn fold_new_projections(&self) -> Result<(), Error> {
        let mut writer = self.writer.lock().map_err(|_| Error::Interrupted)?;
        if writer.projections.is_stale() {
            let transaction = self.store.begin_write()?;
            writer.projections.fold_stale(&transaction)?;
            commit(transaction)?;
        }
        Ok(())
    }
}
