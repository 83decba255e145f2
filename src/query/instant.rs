//! Several reads of one instant: what is written in between does not show.

use std::cell::OnceCell;
use std::sync::Arc;

use fieldbook_core::tail::Tail;
use fieldbook_core::{EntityType, FieldsJson, RecordId, RecordKey};
use fieldbook_projections::{Snapshot, sound};

use super::{Query, Source, fields_of};
use crate::book::Book;
use crate::entity::Entity;
use crate::error::Error;
use crate::read::with_record;
use crate::record::{Record, RecordRef};

impl Book {
    /// Calls `read` with the book as it is now. Everything that it reads there is of this instant,
    /// whatever is written meanwhile. Until it returns, overwritten pages keep their space in the
    /// file, so it should not wait for anything.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails; those of `read`.
    pub fn read<T>(&self, read: impl FnOnce(&Instant<'_>) -> Result<T, Error>) -> Result<T, Error> {
        read(&Instant { book: self, snapshot: self.latest()?, tail: OnceCell::new() })
    }
}

/// The book at one instant: [`Book::read`].
pub struct Instant<'b> {
    pub(super) book: &'b Book,
    pub(super) snapshot: Arc<Snapshot>,
    /// The tail of this instant, once it was needed after a later commit.
    tail: OnceCell<Tail>,
}

impl Instant<'_> {
    /// Returns a record as an app's type, like [`Book::get`].
    ///
    /// # Errors
    /// As for [`Book::get`].
    pub fn get<E: Entity>(&self, id: &RecordId) -> Result<Option<E>, Error> {
        let key = RecordKey::new(E::entity_type(), id.clone());
        self.with_record(&key, |record| record.to())?.transpose()
    }

    /// Returns a record, like [`Records::get`](crate::record::Records::get).
    ///
    /// # Errors
    /// As for [`Records::get`](crate::record::Records::get).
    pub fn get_record(&self, key: &RecordKey) -> Result<Option<Record>, Error> {
        self.with_record(key, |record| record.under(key.clone()))
    }

    /// Lends a record, like [`Records::with`](crate::record::Records::with).
    ///
    /// # Errors
    /// As for [`Records::with`](crate::record::Records::with).
    pub fn with_record<T>(
        &self,
        key: &RecordKey,
        read: impl FnOnce(RecordRef<'_>) -> T,
    ) -> Result<Option<T>, Error> {
        Ok(with_record(&self.snapshot, &self.book.shared.schema, key, read)?)
    }

    /// Returns the list of an app's type by one of its indexes, like [`Book::query`].
    pub fn query<'q, E: Entity>(&'q self, index: &'q str) -> Query<'q, Result<E, Error>> {
        Query::new(Source::At(self), E::entity_type(), index, |record| record.to())
    }

    /// Returns the list of an entity type by one of its indexes, like
    /// [`Records::query`](crate::record::Records::query).
    pub fn query_records<'q>(
        &'q self,
        entity: &EntityType,
        index: &'q str,
    ) -> Query<'q, FieldsJson> {
        Query::new(Source::At(self), entity.clone(), index, fields_of)
    }

    /// Lends the tail of this instant.
    pub(super) fn with_tail<T>(
        &self,
        read: impl FnOnce(&Tail) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let now = self.book.shared.tail();
        let tail = if now.followed() == self.snapshot.last_seq()? {
            &now
        } else if let Some(tail) = self.tail.get() {
            tail
        } else {
            let tail = self.snapshot.tail(&self.book.shared.schema)?;
            self.tail.get_or_init(|| tail)
        };
        let found = read(tail)?;
        sound(tail)?;
        Ok(found)
    }
}

impl std::fmt::Debug for Instant<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instant").finish_non_exhaustive()
    }
}
