//! Records: their keys and fields, the app's writes, and the records that the app reads.
//!
//! ```
//! use fieldbook::record::FieldsJson;
//! use fieldbook::{Book, BookOptions, EntityType, Fields, Mutation, RecordKey};
//! use serde_json::json;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
//! let leads = EntityType::parse("lead")?;
//! let ann = RecordKey::new(leads.clone(), book.new_id());
//! let call: RecordKey = "call/1".parse()?;
//!
//! // Fields as values, or as JSON text. Both ops are written, or none of them.
//! book.transaction(vec![
//!     Mutation::create(ann.clone(), Fields::from_value(json!({"name": "Ann", "stage": "new"}))?),
//!     Mutation::create(call, FieldsJson::parse(r#"{"minutes":12}"#)?),
//! ])?;
//! // A null removes a field.
//! book.records().update(ann.clone(), Fields::from_value(json!({"stage": null}))?)?;
//!
//! let record = book.records().get(&ann)?.expect("it was just written");
//! assert_eq!((record.json.as_str(), record.pending), (r#"{"name":"Ann"}"#, 2));
//! # Ok(())
//! # }
//! ```
//!
//! [`Records`] has the calls that take keys and fields.
//!
//! What it is not: typed. [`Entity`] converts an app's own types, and [`Book`](crate::Book) has the
//! calls for them.

use std::borrow::Cow;

use fieldbook_core::log::StoreError;
use fieldbook_core::rows::{RecordRow, RecordView};
pub use fieldbook_core::{
    Actor, EntityType, Fields, FieldsJson, Mutation, MutationFields, OpContent, OpId, OpKind,
    OpPlace, RecordId, RecordKey, UnitId, Version,
};
use fieldbook_core::{Schema, WallTime};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::book::Shared;
pub use crate::entity::Entity;
use crate::error::Error;
pub use crate::read::Page;
pub use crate::records::Records;
pub use crate::write::Written;

/// A record that the app reads: the confirmed record with the tail joined.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The key of the record.
    pub key: RecordKey,
    /// The fields of the record, as JSON text.
    pub json: FieldsJson,
    /// The version that the server confirmed; `None` if the server does not have the record yet.
    pub version: Option<Version>,
    /// The number of its pending ops.
    pub pending: usize,
    /// When the server last sent the record or an outcome for it, by the device's clock.
    pub synced_at: Option<WallTime>,
}

impl Record {
    /// Returns the fields as values.
    ///
    /// # Errors
    /// [`Error::Store`] if the stored text is damaged.
    pub fn fields(&self) -> Result<Fields, Error> {
        self.json.to_fields().map_err(Error::damaged)
    }

    /// Converts the fields to an app's type.
    ///
    /// # Errors
    /// [`Error::Type`] if they do not fit the type.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(self.json.as_str()).map_err(|source| Error::Type {
            what: self.key.to_string(),
            source: std::sync::Arc::new(source),
        })
    }

    /// Lends the record.
    pub(crate) fn lent(&self) -> RecordRef<'_> {
        let Self { key, json, version, pending, synced_at } = self;
        RecordRef {
            entity: &key.entity,
            id: key.id.as_str(),
            json: json.as_str(),
            version: *version,
            pending: *pending,
            synced_at: *synced_at,
        }
    }

    /// Returns the record of a row as the app reads it, if there is one.
    pub(crate) fn from_row(
        schema: &Schema,
        key: RecordKey,
        row: &RecordRow,
    ) -> Result<Option<Self>, StoreError> {
        let Some(image) = row.image() else { return Ok(None) };
        let json = FieldsJson::from_stored_text(&as_read(schema, &key.entity, image.as_str())?);
        let (version, pending, synced_at) = (row.version(), row.tail.len(), row.synced_at);
        Ok(Some(Self { key, json, version, pending, synced_at }))
    }
}

/// A lent record, with the content of a [`Record`]. Copy the parts that must outlive the call.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RecordRef<'a> {
    /// The entity type of the record.
    pub entity: &'a EntityType,
    /// The id of the record.
    pub id: &'a str,
    /// The fields of the record, as JSON text.
    pub json: &'a str,
    /// The version that the server confirmed; `None` if the server does not have the record yet.
    pub version: Option<Version>,
    /// The number of its pending ops.
    pub pending: usize,
    /// When the server last sent the record or an outcome for it, by the device's clock.
    pub synced_at: Option<WallTime>,
}

impl<'a> RecordRef<'a> {
    /// Copies the key, for example to continue a list after it.
    pub fn key(&self) -> RecordKey {
        let id = RecordId::parse(self.id);
        let id = id.unwrap_or_else(|_| unreachable!("BUG: ids are checked when they are read"));
        RecordKey::new(self.entity.clone(), id)
    }

    /// Converts the fields to an app's type. Its text may be borrowed from the record.
    ///
    /// # Errors
    /// [`Error::Type`] if they do not fit the type.
    pub fn to<T: Deserialize<'a>>(&self) -> Result<T, Error> {
        serde_json::from_str(self.json).map_err(|source| Error::Type {
            what: format!("{}/{}", self.entity, self.id),
            source: std::sync::Arc::new(source),
        })
    }

    /// Lends the record that the app reads, if there is one.
    pub(crate) fn lend<T>(
        schema: &Schema,
        (entity, id): (&EntityType, &str),
        view: &RecordView<'_>,
        read: impl FnOnce(RecordRef<'_>) -> T,
    ) -> Result<Option<T>, StoreError> {
        let RecordView { image, version, pending, synced_at } = *view;
        let Some(image) = image else { return Ok(None) };
        let json = &*as_read(schema, entity, image)?;
        Ok(Some(read(RecordRef { entity, id, json, version, pending, synced_at })))
    }

    /// Copies the record, to outlive the call.
    pub fn to_record(self) -> Record {
        self.under(self.key())
    }

    /// Copies the record, with this key.
    pub(crate) fn under(self, key: RecordKey) -> Record {
        let Self { json, version, pending, synced_at, .. } = self;
        Record { key, json: FieldsJson::from_stored_text(json), version, pending, synced_at }
    }
}

impl Shared {
    /// Returns the values of a stored image as the app reads it.
    pub(crate) fn as_read(&self, key: &RecordKey, image: &FieldsJson) -> Result<Fields, Error> {
        let read = as_read(&self.schema, &key.entity, image.as_str())?;
        FieldsJson::from_stored_text(&read).to_fields().map_err(Error::damaged)
    }
}

/// Returns the text of an image as the app reads it. Only a type that is declared by name can have
/// upcasters.
fn as_read<'s>(
    schema: &Schema,
    entity: &EntityType,
    image: &'s str,
) -> Result<Cow<'s, str>, StoreError> {
    match schema.declared_rules(entity) {
        Some(rules) if rules.schema_version > 1 => rules
            .read_text(image)
            .map_err(|fault| StoreError::corrupt("stored fields", None, fault)),
        _ => Ok(Cow::Borrowed(image)),
    }
}

/// Records of one entity type, copied into one piece of memory: [`Records::list`].
#[derive(Debug, Clone, PartialEq)]
pub struct RecordList {
    /// Pass this to get the next part; `None` at the end.
    pub next: Option<RecordId>,
    entity: EntityType,
    /// The id and the JSON of each record, in a row.
    text: String,
    places: Vec<Place>,
}

/// The position of a record in the text, and its other data.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Place {
    id: usize,
    json: usize,
    end: usize,
    version: Option<Version>,
    pending: usize,
    synced_at: Option<WallTime>,
}

impl RecordList {
    /// Reserves memory for this many records of common size, up to a bound.
    pub(crate) fn with_room(entity: EntityType, records: usize) -> Self {
        let room = records.min(128);
        let (text, places) = (String::with_capacity(320 * room), Vec::with_capacity(room));
        Self { next: None, entity, text, places }
    }

    pub(crate) fn push(&mut self, record: RecordRef<'_>) {
        let RecordRef { version, pending, synced_at, .. } = record;
        let id = self.text.len();
        self.text.push_str(record.id);
        let json = self.text.len();
        self.text.push_str(record.json);
        self.places.push(Place { id, json, end: self.text.len(), version, pending, synced_at });
    }

    /// Returns the number of records.
    pub const fn len(&self) -> usize {
        self.places.len()
    }

    /// Returns whether there are no records.
    pub const fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Returns the record at a position, or `None` behind the last.
    pub fn get(&self, at: usize) -> Option<RecordRef<'_>> {
        self.places.get(at).map(|place| self.at(place))
    }

    /// Returns the records in the order of their ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RecordRef<'_>> {
        self.places.iter().map(|place| self.at(place))
    }

    fn at(&self, place: &Place) -> RecordRef<'_> {
        let Place { id, json, end, version, pending, synced_at } = *place;
        let text = |from, to| self.text.get(from..to).unwrap_or_default();
        RecordRef {
            entity: &self.entity,
            id: text(id, json),
            json: text(json, end),
            version,
            pending,
            synced_at,
        }
    }
}
