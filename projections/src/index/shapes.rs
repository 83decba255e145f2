//! The shapes of a book's indexes, as they are on record.

use std::collections::BTreeMap;

use fieldbook_core::index::{EntityIndexes, IndexRule, IndexShapes};
use fieldbook_core::log::StoreError;
use fieldbook_core::{EntityRules, EntityType, Schema};
use redb::{ReadableTable, WriteTransaction};

use super::Indexes;
use crate::access::{decode, encode};
use crate::tables;

/// The indexes that a book has on record, those of another version of the program included.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IndexesOnFile {
    /// `None` stands for the entity types without a row of their own.
    rows: BTreeMap<Option<EntityType>, IndexShapes>,
}

impl IndexesOnFile {
    pub(crate) fn read(
        table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    ) -> Result<Self, StoreError> {
        let mut rows = BTreeMap::new();
        for row in table.iter().map_err(StoreError::during(READING))? {
            let (key, stored) = row.map_err(StoreError::during(READING))?;
            let entity = entity_of(key.value()).ok_or(StoreError::Corrupt {
                what: "the entity type of an index on record",
                seq: None,
                source: None,
            })?;
            rows.insert(entity, decode(stored.value())?);
        }
        Ok(Self { rows })
    }

    /// Returns the indexes as this program builds them. Those of another version are not among
    /// them. Some may need upcasters that the schema lacks.
    pub fn present(&self, schema: &Schema) -> Indexes {
        self.indexes(|entity, shapes| shapes.present(rules_of(schema, entity)))
    }

    /// Returns the indexes on record in the form in which this program would build them. An index
    /// that needs upcasters which the schema lacks is not among them.
    pub fn wanted(&self, schema: &Schema) -> Indexes {
        self.indexes(|entity, shapes| {
            let wanted = shapes.wanted(rules_of(schema, entity));
            if wanted.can_be_followed() { wanted } else { EntityIndexes::default() }
        })
    }

    fn indexes(&self, of: impl Fn(Option<&EntityType>, &IndexShapes) -> EntityIndexes) -> Indexes {
        let others = self.rows.get(&None).map(|shapes| of(None, shapes)).unwrap_or_default();
        let named = self.rows.iter().filter_map(|(entity, shapes)| {
            let entity = entity.as_ref()?;
            Some((entity.clone(), of(Some(entity), shapes)))
        });
        let entities = named.filter(|(_, indexes)| *indexes != others).collect();
        Indexes { entities, others }
    }

    /// Returns whether the book has exactly these indexes, as this program builds them.
    pub fn are(&self, indexes: &Indexes) -> bool {
        *self == Self::of(indexes)
    }

    /// Returns the rules of an entity type.
    pub(super) fn rules(&self, entity: &EntityType) -> &[IndexRule] {
        let row = self.rows.get(&Some(entity.clone())).or_else(|| self.rows.get(&None));
        row.map_or(&[][..], IndexShapes::rules)
    }

    fn of(indexes: &Indexes) -> Self {
        let others = Some(&indexes.others).filter(|others| !others.is_empty());
        let others = others.map(|others| (None, IndexShapes::of(others)));
        let named = indexes.entities.iter();
        let named = named.map(|(entity, of)| (Some(entity.clone()), IndexShapes::of(of)));
        Self { rows: others.into_iter().chain(named).collect() }
    }
}

impl Indexes {
    /// Puts these indexes on record, in place of those that were.
    ///
    /// # Errors
    /// [`StoreError`] if the table cannot be written.
    pub fn put_on_file(&self, transaction: &WriteTransaction) -> Result<(), StoreError> {
        transaction.delete_table(tables::INDEX_SHAPES).map_err(StoreError::during(WRITING))?;
        let rows = IndexesOnFile::of(self).rows;
        if rows.is_empty() {
            return Ok(());
        }
        let table = transaction.open_table(tables::INDEX_SHAPES);
        let mut table = table.map_err(StoreError::during(WRITING))?;
        for (entity, shapes) in rows {
            let key = entity.as_ref().map_or("", EntityType::as_str).as_bytes();
            let replaced = table.insert(key, encode(&shapes)?.as_slice());
            drop(replaced.map_err(StoreError::during(WRITING))?);
        }
        Ok(())
    }
}

/// Returns the rules of an entity type that is declared by name. Other types are read as they are
/// stored.
fn rules_of<'s>(schema: &'s Schema, entity: Option<&EntityType>) -> Option<&'s EntityRules> {
    entity.and_then(|entity| schema.declared_rules(entity))
}

/// Reads a key of the table.
pub(crate) fn entity_of(key: &[u8]) -> Option<Option<EntityType>> {
    if key.is_empty() {
        return Some(None);
    }
    EntityType::parse(std::str::from_utf8(key).ok()?).ok().map(Some)
}

const READING: &str = "reading the shapes of indexes";
const WRITING: &str = "writing the shapes of indexes";
