//! Typed records: an app's own Rust types, in and out of JSON fields by serde.

use std::sync::Arc;

use fieldbook_core::{EntityType, Fields, Mutation, RecordId, RecordKey};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::book::Book;
use crate::error::Error;
use crate::write::Written;

/// An app's type for one entity type. Its serde form is the record's fields; the id stands apart.
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
    /// What the record holds and the type does not know stays as it is, at the top and inside of objects, so that an older
    /// version of the app takes nothing away from a newer one. (Inside of a list that changed nothing stays: its items have
    /// no names.) A field that the type knows and leaves out (an `Option` that is `None`) is taken away. To take away what a
    /// type does not know, give the record a whole new image with [`Book::replace`].
    ///
    /// # Errors
    /// [`Error::Type`] if it does not go into a JSON object; else as for [`Book::update`].
    pub fn save<E: Entity>(&self, id: &RecordId, record: &E) -> Result<Written, Error> {
        let key = RecordKey::new(E::entity_type(), id.clone());
        let fields = to_fields(&key, record)?;
        self.write_typed(key, fields, round_trip::<E>)
    }

    /// Returns a record as an app's type, or `None` if there is none for the app.
    ///
    /// # Errors
    /// [`Error::Store`] if it does not read; [`Error::Type`] if its fields do not fit.
    pub fn get<E: Entity>(&self, id: &RecordId) -> Result<Option<E>, Error> {
        self.with_record(&RecordKey::new(E::entity_type(), id.clone()), |record| record.to())?.transpose()
    }

    /// Takes a typed record away.
    ///
    /// # Errors
    /// As for [`Book::delete`].
    pub fn remove<E: Entity>(&self, id: &RecordId) -> Result<Written, Error> {
        self.write(Mutation::delete(RecordKey::new(E::entity_type(), id.clone())))
    }
}

/// Has a type read fields and write them again.
fn round_trip<E: Entity>(fields: &Fields) -> Option<Fields> {
    let record: E = serde_json::from_str(fields.to_json().as_str()).ok()?;
    // Not checked: a record that is over the limit has to be readable to be made smaller.
    match serde_json::to_value(&record).ok()? {
        serde_json::Value::Object(members) => Some(members.into_iter().collect()),
        _ => None,
    }
}

fn to_fields<T: Serialize>(key: &RecordKey, record: &T) -> Result<Fields, Error> {
    let misfit =
        |source: Arc<dyn std::error::Error + Send + Sync>| Error::Type { what: key.to_string(), source };
    let value = serde_json::to_value(record).map_err(|source| misfit(Arc::new(source)))?;
    Fields::from_value(value).map_err(|source| misfit(Arc::new(source)))
}
