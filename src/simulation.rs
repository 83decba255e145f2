//! Additions for a simulated world: storage of its own, and the rows as they are stored.
//!
//! The feature `simulation` is for the programs of this repository only. It has types of the
//! storage engine and of the stored rows, so any release may change it.

use std::collections::BTreeSet;
use std::sync::Arc;

use fieldbook_core::log::{Store, StoreOptions};
use fieldbook_core::{RecordKey, Schema, Seq};
pub use fieldbook_projections::Snapshot;

use crate::at::{At, Moment};
use crate::book::Book;
use crate::compact::{Compaction, CompactionPlan};
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

    /// Opens a book on storage that can be opened again, like a file: so the book can be suspended.
    /// `open` opens the storage each time.
    ///
    /// # Errors
    /// [`Error::Store`] as for [`Self::open`].
    pub fn on_storage<B: redb::StorageBackend>(
        open: impl Fn() -> B + Send + 'static,
        options: BookOptions,
    ) -> Result<Self, Error> {
        let of_store = options.store;
        let reopen = move || Store::with_backend(open(), &of_store);
        Self::start_from(reopen()?, options, Some(Box::new(reopen)))
    }

    /// Writes a book onto an empty backend as
    /// [`SignOut::KeepUnsent`](crate::SignOut::KeepUnsent) writes it: with the values of what the
    /// server does not have.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn write_unsent(&self, backend: impl redb::StorageBackend) -> Result<(), Error> {
        let make = || Ok(Store::with_backend(backend, &StoreOptions::default())?);
        self.shared.write_unsent(make)
    }

    /// Writes a book onto an empty backend as [`Book::compact`] writes it, without an archive on the
    /// disk: as if one had been made. Nothing is written if there is nothing to trim.
    ///
    /// # Errors
    /// As for [`Book::compact`].
    pub fn write_compacted(
        &self,
        before: Moment,
        backend: impl redb::StorageBackend,
    ) -> Result<CompactionPlan, Error> {
        let how = Compaction::before(before).archive_to("");
        let make = || Ok(Store::with_backend(backend, &StoreOptions::default())?);
        self.shared.write_compacted(&how, make)
    }

    /// Takes a snapshot of the whole book, to read several things at the same instant. Hold it
    /// briefly: while it exists, overwritten pages keep their space in the file.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn snapshot(&self) -> Result<Arc<Snapshot>, Error> {
        self.shared.snapshot().map(Arc::new)
    }

    /// Compares every read of the book as it was after an entry with the same read of a fold of the
    /// whole log up to the entry. Returns the first that differs, with both results.
    ///
    /// # Errors
    /// [`Error::Store`] if the log cannot be read.
    pub fn past_differs(&self, seq: Seq) -> Result<Option<String>, Error> {
        let at = match self.at(Moment::Entry(seq)) {
            // Its entries are gone.
            Err(Error::Trimmed { .. }) => return Ok(None),
            at => at?,
        };
        let folded = self.audit().replay_at(seq)?;
        if matches!(at.check_values(None), Err(Error::Erased { .. })) {
            // Values of the moment were erased.
            return Ok(None);
        }
        let mut keys: BTreeSet<RecordKey> = BTreeSet::new();
        for entity in self.audit().entity_types()?.into_iter().chain(folded.entity_types()?) {
            for records in [
                self.records().list(&entity, None, usize::MAX)?,
                folded.list(&entity, None, usize::MAX)?,
            ] {
                keys.extend(records.iter().map(|record| record.key()));
            }
        }
        keys.extend(folded.queue()?.into_iter().map(|op| op.key));
        keys.extend(self.queue().list()?.into_iter().map(|op| op.key));
        let of_records = |at: &At<'_>| -> Result<Vec<(String, String)>, Error> {
            let mut reads = Vec::new();
            for key in &keys {
                reads.push((format!("the record {key}"), format!("{:?}", at.get_record(key)?)));
                reads.push((
                    format!("the status of {key}"),
                    format!("{:?}", at.record_status(key)?),
                ));
                reads.push((
                    format!("the explanation of {key}"),
                    format!("{:#?}", at.explain(key)?),
                ));
            }
            Ok(reads)
        };
        let of_tables = |at: &At<'_>| -> Result<Vec<(String, String)>, Error> {
            let mut reads = vec![
                ("the state".to_owned(), format!("{:#?}", at.status()?)),
                ("the server".to_owned(), format!("{:#?}", at.server_state()?)),
                ("the cursors".to_owned(), format!("{:?}", at.synced_at()?)),
                ("the queue".to_owned(), format!("{:#?}", at.queue()?)),
                ("the plan".to_owned(), format!("{:#?}", at.plan()?)),
                ("the parked ops".to_owned(), format!("{:?}", at.parked()?)),
                ("the dead letters".to_owned(), format!("{:#?}", at.dead_letters()?)),
                ("the conflicts".to_owned(), format!("{:#?}", at.conflicts()?)),
                ("the entity types".to_owned(), format!("{:?}", at.entity_types()?)),
            ];
            for entity in folded.entity_types()? {
                let listed = at.list(&entity, None, usize::MAX)?;
                reads.push((format!("the records of {entity}"), format!("{listed:?}")));
                let (mut paged, mut after) = (Vec::new(), None);
                loop {
                    let page = at.list(&entity, after.as_ref(), 3)?;
                    paged.extend(page.iter().map(|record| record.key()));
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
                reads.push((format!("the pages of {entity}"), format!("{paged:?}")));
            }
            Ok(reads)
        };
        // The records first: afterwards, they are read from the tables of all.
        let read = |at: &At<'_>| {
            Ok::<_, Error>([of_records(at)?, of_tables(at)?, of_records(at)?].concat())
        };
        let pairs = read(&at)?.into_iter().zip(read(&folded)?);
        let differs =
            pairs.map(|(now, then)| (now.0, now.1, then.1)).find(|(_, now, then)| now != then);
        Ok(differs.map(|(what, now, then)| {
            format!("{what} at entry {seq} is\n{now}\nand the whole log folds to\n{then}")
        }))
    }

    /// Returns the app's schema.
    pub fn schema(&self) -> &Schema {
        &self.shared.schema
    }
}
