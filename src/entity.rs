//! Typed records: an app's own Rust types, converted to and from JSON fields by serde.

use std::sync::Arc;

use fieldbook_core::rows::RecordRow;
use fieldbook_core::rules::admit::Rejected;
use fieldbook_core::rules::save::save;
use fieldbook_core::{EntityType, Fields, Mutation, RecordId, RecordKey, limits};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::book::Book;
use crate::error::Error;
use crate::write::Written;

/// An app's type for one entity type. Its serde form is the record's fields, without the id.
///
/// ```
/// use fieldbook::{Book, BookOptions, Entity};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Lead {
///     name: String,
///     phone: Option<String>,
/// }
///
/// impl Entity for Lead {
///     const ENTITY: &'static str = "lead";
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
/// let id = book.new_id();
/// book.save(&id, &Lead { name: "Ann".into(), phone: None })?;
/// let lead = book.get::<Lead>(&id)?.expect("it was just saved");
/// assert_eq!(lead.name, "Ann");
/// # Ok(())
/// # }
/// ```
pub trait Entity: Serialize + DeserializeOwned {
    /// The entity type's name: lower-case letters, digits and `_`, at most 63 bytes.
    const ENTITY: &'static str;

    /// Returns the entity type.
    ///
    /// # Panics
    /// If [`Self::ENTITY`] breaks the rule for entity types. That is a fault of the app.
    fn entity_type() -> EntityType {
        match EntityType::parse(Self::ENTITY) {
            Ok(entity) => entity,
            Err(fault) => panic!("BUG: `{}` as an entity type: {fault}", Self::ENTITY),
        }
    }
}

impl Book {
    /// Writes a typed record. It creates the record if the app reads none, else it updates the
    /// fields that differ. Without a difference it writes nothing.
    ///
    /// Fields that the type does not know are kept, at the top and inside of objects, so an older
    /// version of the app removes nothing of a newer one. (Inside a changed list they are not kept,
    /// because its items have no names.) A field that the type knows and leaves out (an `Option`
    /// that is `None`) is removed. To remove fields that the type does not know, use
    /// [`Records::replace`](crate::record::Records::replace).
    ///
    /// # Errors
    /// [`Error::Type`] if the type does not convert to a JSON object; else as for
    /// [`Records::update`](crate::record::Records::update).
    pub fn save<E: Entity>(&self, id: &RecordId, record: &E) -> Result<Written, Error> {
        let key = RecordKey::new(E::entity_type(), id.clone());
        let fields = to_fields(&key, record)?;
        self.write_typed(key, fields, round_trip::<E>)
    }

    /// Edits a typed record: reads it, calls `edit`, and writes the fields that `edit` changed.
    /// What others write meanwhile stays, in those fields too: `edit` is then called again, with
    /// the record as it is by then. Without a change it writes nothing.
    ///
    /// Use it where a value was not read long before: a button, a counter, one field of a form.
    ///
    /// ```
    /// # use fieldbook::{Book, BookOptions, Entity};
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct Lead { stage: String, calls: u32 }
    /// # impl Entity for Lead { const ENTITY: &'static str = "lead"; }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
    /// # let id = book.new_id();
    /// # book.save(&id, &Lead { stage: "new".into(), calls: 0 })?;
    /// book.edit::<Lead>(&id, |lead| lead.calls += 1)?;
    /// # assert_eq!(book.get::<Lead>(&id)?.map(|lead| lead.calls), Some(1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Rejected`] if the app reads no such record, or if it changed during each of
    /// [`EDIT_TRIES`](fieldbook_core::limits::EDIT_TRIES) calls; [`Error::Type`] if its fields do
    /// not fit the type; else as for [`Records::update`](crate::record::Records::update).
    pub fn edit<E: Entity>(
        &self,
        id: &RecordId,
        mut edit: impl FnMut(&mut E),
    ) -> Result<Written, Error> {
        let key = RecordKey::new(E::entity_type(), id.clone());
        for _ in 0..limits::EDIT_TRIES {
            let row = self.latest()?.record(&key)?;
            let seen = row.as_ref().and_then(RecordRow::image);
            let seen = seen.ok_or_else(|| Rejected::Missing(key.clone()))?.clone();
            let before = self.shared.as_read(&key, &seen)?;
            let mut record: E = from_fields(&key, &before)?;
            edit(&mut record);
            let patch = save(&before, &to_fields(&key, &record)?, &round_trip::<E>);
            if let Some(written) = self.update_seen(key.clone(), seen, patch)? {
                return Ok(written);
            }
        }
        Err(Rejected::KeepsChanging(key).into())
    }

    /// Returns a record as an app's type, or `None` if the app reads none.
    ///
    /// # Errors
    /// [`Error::Store`] if it cannot be read; [`Error::Type`] if its fields do not fit the type.
    pub fn get<E: Entity>(&self, id: &RecordId) -> Result<Option<E>, Error> {
        self.records()
            .with(&RecordKey::new(E::entity_type(), id.clone()), |record| record.to())?
            .transpose()
    }

    /// Deletes a typed record.
    ///
    /// # Errors
    /// As for [`Records::delete`](crate::record::Records::delete).
    pub fn remove<E: Entity>(&self, id: &RecordId) -> Result<Written, Error> {
        self.write(Mutation::delete(RecordKey::new(E::entity_type(), id.clone())))
    }
}

/// Returns the fields that remain after a type has read and written them.
fn round_trip<E: Entity>(fields: &Fields) -> Option<Fields> {
    let record: E = serde_json::from_str(fields.to_json().as_str()).ok()?;
    // Limits are not checked: a record that is too large must be readable, so that it can be made
    // smaller.
    match serde_json::to_value(&record).ok()? {
        serde_json::Value::Object(members) => Some(members.into_iter().collect()),
        _ => None,
    }
}

fn from_fields<E: Entity>(key: &RecordKey, fields: &Fields) -> Result<E, Error> {
    serde_json::from_str(fields.to_json().as_str())
        .map_err(|source| Error::Type { what: key.to_string(), source: Arc::new(source) })
}

fn to_fields<T: Serialize>(key: &RecordKey, record: &T) -> Result<Fields, Error> {
    let misfit = |source: Arc<dyn std::error::Error + Send + Sync>| Error::Type {
        what: key.to_string(),
        source,
    };
    let value = serde_json::to_value(record).map_err(|source| misfit(Arc::new(source)))?;
    Fields::from_value(value).map_err(|source| misfit(Arc::new(source)))
}
