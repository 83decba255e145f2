//! Reading: by key, in lists, by a declared index. Each call is one snapshot, held no longer than the call.

use std::ops::Bound;

use fieldbook_core::{EntityType, RecordId, RecordKey};
use fieldbook_projections::IndexRange;
use serde_json::Value;

use crate::book::Book;
use crate::error::Error;
use crate::record::Record;

/// A part of a list, and where to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T, After = RecordId> {
    /// What is in this part.
    pub items: Vec<T>,
    /// Pass this to get the next part; `None` at the end.
    pub next: Option<After>,
}

impl Book {
    /// Returns a record, or `None` if there is none for the app.
    ///
    /// # Errors
    /// [`Error::Store`] if it does not read.
    pub fn get_record(&self, key: &RecordKey) -> Result<Option<Record>, Error> {
        let record = self.latest()?.record_as(key, |view| Record::from_view(key.clone(), view))?;
        Ok(record.flatten())
    }

    /// Lists records of one entity type in the order of their ids, at most `limit` of them, after an id if one is given.
    ///
    /// # Errors
    /// [`Error::Store`] if one does not read.
    pub fn list(
        &self,
        entity: &EntityType,
        after: Option<&RecordId>,
        limit: usize,
    ) -> Result<Page<Record>, Error> {
        let snapshot = self.latest()?;
        let mut items = Vec::with_capacity(limit.min(1_024));
        let mut rows = snapshot.records_as(entity, after, |id, view| {
            Record::from_view(RecordKey::new(entity.clone(), id), view)
        })?;
        while items.len() < limit {
            let Some(record) = rows.next() else { return Ok(Page { items, next: None }) };
            items.extend(record?);
        }
        let next = items.last().map(|record| record.key.id.clone());
        Ok(Page { items, next })
    }

    /// Lists records of one entity type by a field that the schema declares as an index, in the order of its values: false,
    /// true, numbers, text. Records without the field, or with a list or an object in it, are not in an index.
    ///
    /// # Errors
    /// [`Error::Misuse`] if the index is not declared; [`Error::Store`] if a row does not read.
    pub fn list_by_index(
        &self,
        entity: &EntityType,
        field: &str,
        range: (Bound<&Value>, Bound<&Value>),
        after: Option<&IndexPlace>,
        limit: usize,
    ) -> Result<Page<Record, IndexPlace>, Error> {
        self.indexed(entity, field, IndexRange::values(entity, field, range), after, limit)
    }

    /// Lists records by an index, those whose text begins with a prefix.
    ///
    /// # Errors
    /// As for [`Self::list_by_index`].
    pub fn list_by_prefix(
        &self,
        entity: &EntityType,
        field: &str,
        prefix: &str,
        after: Option<&IndexPlace>,
        limit: usize,
    ) -> Result<Page<Record, IndexPlace>, Error> {
        self.indexed(entity, field, IndexRange::prefix(entity, field, prefix), after, limit)
    }

    fn indexed(
        &self,
        entity: &EntityType,
        field: &str,
        range: IndexRange,
        after: Option<&IndexPlace>,
        limit: usize,
    ) -> Result<Page<Record, IndexPlace>, Error> {
        let declared =
            self.schema().rules(entity).is_some_and(|rules| rules.indexes.iter().any(|index| index == field));
        if !declared {
            return Err(Error::Misuse("this field is not declared as an index of its entity type"));
        }
        let snapshot = self.latest()?;
        let found = snapshot.by_index(&range, after.map(|place| place.0.as_slice()), limit)?;
        let next =
            if found.len() < limit { None } else { found.last().map(|(place, _)| IndexPlace(place.clone())) };
        let mut items = Vec::with_capacity(found.len());
        for (_, id) in found {
            let key = RecordKey::new(entity.clone(), id);
            items.extend(snapshot.record_as(&key, |view| Record::from_view(key.clone(), view))?.flatten());
        }
        Ok(Page { items, next })
    }

    /// Returns the entity types of which the book has records.
    ///
    /// # Errors
    /// [`Error::Store`] if a key does not read.
    pub fn entity_types(&self) -> Result<Vec<EntityType>, Error> {
        Ok(self.snapshot()?.entity_types()?)
    }
}

/// A place in a list by index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexPlace(Vec<u8>);
