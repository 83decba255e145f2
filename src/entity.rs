//! Typed records: an app's own Rust types, in and out of JSON fields by serde.

use std::sync::Arc;

use fieldbook_core::{EntityType, Fields, Mutation, RecordId, RecordKey};
use serde::Serialize;

use crate::book::Book;
use crate::error::Error;
use crate::write::Written;

/// An app's type for one entity type. Its serde form is the record's fields; the id stands apart.
pub trait Entity {
    /// The entity type's name: lower-case letters, digits and `_`, at most 63 bytes.
    const ENTITY: &'static str;

    /// Returns the id of this record.
    fn id(&self) -> &RecordId;

    /// Returns the entity type.
    ///
    /// # Panics
    /// If [`Self::ENTITY`] breaks the rule for entity types, which is a mistake in the program.
    fn entity_type() -> EntityType {
        match EntityType::parse(Self::ENTITY) {
            Ok(entity) => entity,
            Err(fault) => panic!("BUG: `{}` as an entity type: {fault}", Self::ENTITY),
        }
    }
}

impl Book {
    /// Writes a typed record: creates it if there is none for the app, else updates just the fields that differ. Writes
    /// nothing if none does.
    ///
    /// # Errors
    /// [`Error::Type`] if it does not go into a JSON object; else as for [`Book::update`].
    pub fn save<E: Entity + Serialize>(&self, record: &E) -> Result<Written, Error> {
        let key = RecordKey::new(E::entity_type(), record.id().clone());
        let fields = to_fields(&key, record)?.into_image();
        let Some(before) = self.get_record(&key)? else {
            return self.write(Mutation::create(key, fields));
        };
        let patch = before.fields()?.patch_to(&fields);
        self.write(Mutation::update(key, patch))
    }

    /// Takes a typed record away.
    ///
    /// # Errors
    /// As for [`Book::delete`].
    pub fn remove<E: Entity>(&self, id: &RecordId) -> Result<Written, Error> {
        self.delete(RecordKey::new(E::entity_type(), id.clone()))
    }
}

fn to_fields<T: Serialize>(key: &RecordKey, record: &T) -> Result<Fields, Error> {
    let misfit =
        |source: Arc<dyn std::error::Error + Send + Sync>| Error::Type { what: key.to_string(), source };
    let value = serde_json::to_value(record).map_err(|source| misfit(Arc::new(source)))?;
    Fields::from_value(value).map_err(|source| misfit(Arc::new(source)))
}
