//! The indexes of a book: their shapes on record, and the keys of the records in them.
//!
//! ```text
//!   schema of the app ─► Indexes ─┐  opening: what differs is built or dropped, in one commit
//!   table `index-shapes` ─────────┴─► Indexes in force ─► every flush, every rebuild
//! ```
//!
//! Invariants:
//! 1. The table of indexes has the keys of the visible images of all records, as the app reads
//!    them, by the shapes on record, and no others. Both tables change in the same commit as the
//!    records.
//! 2. A program that declares nothing follows the shapes on record, so no writer leaves an index
//!    behind. It drops an index that needs an upcaster which it lacks; the app builds it again.
//!
//! What it does not do: know the form of a key (`fieldbook_core::index`).

mod build;
mod shapes;

use std::collections::BTreeMap;

use fieldbook_core::index::{EntityIndexes, InvalidIndex, TurnedKeys};
use fieldbook_core::log::StoreError;
use fieldbook_core::{EntityType, FieldsJson, InvalidFields, RecordKey, Schema};

use crate::sorted::{BytesTable, SortedRow, write_sorted};

pub use shapes::IndexesOnFile;
pub(crate) use shapes::entity_of;

/// The indexes of each entity type.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Indexes {
    /// The entity types whose indexes differ from those of the others.
    entities: BTreeMap<EntityType, EntityIndexes>,
    others: EntityIndexes,
}

impl Indexes {
    /// Takes the indexes that an app declares.
    ///
    /// # Errors
    /// [`InvalidIndex`] with the first fault.
    pub fn declared(schema: &Schema) -> Result<Self, InvalidIndex> {
        let others = schema.others().map(|rules| rules.indexes.clone()).unwrap_or_default();
        let others = EntityIndexes::new(others);
        others.check()?;
        let mut entities = BTreeMap::new();
        for (entity, rules) in schema.declared() {
            let indexes = EntityIndexes::new(rules.indexes.iter().cloned()).read_by(rules);
            indexes.check()?;
            if indexes != others {
                entities.insert(entity.clone(), indexes);
            }
        }
        Ok(Self { entities, others })
    }

    /// Returns the indexes of an entity type.
    pub fn of(&self, entity: &EntityType) -> &EntityIndexes {
        self.entities.get(entity).unwrap_or(&self.others)
    }

    /// Returns whether this program can make the keys of all indexes.
    pub fn can_be_followed(&self) -> bool {
        self.others.can_be_followed() && self.entities.values().all(EntityIndexes::can_be_followed)
    }

    /// Returns the keys of a record, in order.
    pub(crate) fn keys(
        &self,
        key: &RecordKey,
        image: Option<&FieldsJson>,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let indexes = self.of(&key.entity);
        let Some(image) = image.filter(|_| !indexes.is_empty()) else { return Ok(Vec::new()) };
        let keys = indexes.keys(&key.entity, key.id.as_str(), image.as_str());
        keys.map_err(damaged)
    }
}

fn damaged(fault: InvalidFields) -> StoreError {
    StoreError::corrupt("stored fields", None, fault)
}

/// The keys that a commit adds and removes.
#[derive(Default)]
pub(crate) struct Turned(Vec<SortedRow>);

impl Turned {
    /// Adds the change of a record.
    pub(crate) fn add(
        &mut self,
        indexes: &EntityIndexes,
        key: &RecordKey,
        before: Option<&FieldsJson>,
        after: Option<&FieldsJson>,
    ) -> Result<(), StoreError> {
        let (before, after) = (before.map(FieldsJson::as_str), after.map(FieldsJson::as_str));
        let turned = indexes.turned(key, before, after);
        let TurnedKeys { gone, new } = turned.map_err(damaged)?;
        self.0.extend(gone.into_iter().map(|key| SortedRow { key, value: None, is_new: false }));
        // A key that is there already, as in a damaged table, is written over.
        let row = |key| SortedRow { key, value: Some(Vec::new()), is_new: false };
        self.0.extend(new.into_iter().map(row));
        Ok(())
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the added keys.
    pub(crate) fn new_keys(&self) -> Vec<Vec<u8>> {
        let added = self.0.iter().filter(|row| row.value.is_some());
        added.map(|row| row.key.clone()).collect()
    }

    /// Writes the changes in the order of the keys.
    pub(crate) fn write(mut self, table: &mut BytesTable<'_>) -> Result<(), StoreError> {
        self.0.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        write_sorted(table, self.0.into_iter().map(Ok))
    }
}
