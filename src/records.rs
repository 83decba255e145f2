//! The records of a book without types of the app: fields as values or as JSON text.
//!
//! Each read takes one snapshot, and holds it no longer than the call. Each write is one durable
//! commit. Lists by an index are in [`crate::query`], searches in `crate::search`.

use std::ops::ControlFlow;

use fieldbook_core::{EntityType, Mutation, MutationFields, RecordId, RecordKey};

use crate::book::Book;
use crate::error::Error;
use crate::read::with_record;
use crate::record::{Record, RecordList, RecordRef};
use crate::write::Written;

/// The records of a book as keys and JSON fields: [`Book::records`]. For types of the app there are
/// [`Book::save`], [`Book::edit`], [`Book::get`], [`Book::remove`] and [`Book::query`].
#[derive(Clone, Copy)]
pub struct Records<'b> {
    pub(crate) book: &'b Book,
}

impl Book {
    /// Returns the records of the book without types of the app: to write and read their fields as
    /// values or as JSON text.
    pub const fn records(&self) -> Records<'_> {
        Records { book: self }
    }
}

impl std::fmt::Debug for Records<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

/// Writes.
impl Records<'_> {
    /// Creates a record from values, or from JSON text. Text is checked in one pass and stored
    /// unchanged, at a fraction of the cost of values.
    ///
    /// ```
    /// use fieldbook::{Book, BookOptions, Mutation, RecordKey};
    /// use fieldbook::record::FieldsJson;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let book = Book::open_or_create(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
    /// let text = r#"{"name":"Ann","stage":"new"}"#; // from a form, a file or the network
    /// book.records().create("lead/42".parse()?, FieldsJson::parse(text)?)?;
    /// // An update's text is compared with the record's text. The op has the fields that differ.
    /// book.records().update("lead/42".parse()?, FieldsJson::parse(r#"{"name":"Ann","stage":"hot"}"#)?)?;
    ///
    /// // Many ops in one durable commit, each sent by itself.
    /// let lines = [r#"{"name":"Bela"}"#, r#"{"name":"Chidi"}"#];
    /// let creates: Result<Vec<Mutation>, fieldbook::error::InvalidFields> = lines
    ///     .into_iter()
    ///     .map(|line| Ok(Mutation::create(RecordKey::new(lead(), book.new_id()), FieldsJson::parse(line)?)))
    ///     .collect();
    /// book.import(creates?)?;
    /// # Ok(())
    /// # }
    /// # fn lead() -> fieldbook::EntityType { fieldbook::EntityType::parse("lead").expect("it is a name") }
    /// ```
    ///
    /// # Errors
    /// [`Error::Rejected`] if the record exists or a limit is exceeded; [`Error::Store`] or
    /// [`Error::Unknown`] if the disk fails.
    pub fn create(
        &self,
        key: RecordKey,
        fields: impl Into<MutationFields>,
    ) -> Result<Written, Error> {
        self.book.write(Mutation::create(key, fields))
    }

    /// Changes some fields of a record. A null removes a field.
    ///
    /// # Errors
    /// As for [`Self::create`], and [`Error::Rejected`] if the record does not exist.
    pub fn update(
        &self,
        key: RecordKey,
        patch: impl Into<MutationFields>,
    ) -> Result<Written, Error> {
        self.book.write(Mutation::update(key, patch))
    }

    /// Replaces all fields of a record.
    ///
    /// # Errors
    /// As for [`Self::update`].
    pub fn replace(
        &self,
        key: RecordKey,
        fields: impl Into<MutationFields>,
    ) -> Result<Written, Error> {
        self.book.write(Mutation::replace(key, fields))
    }

    /// Deletes a record.
    ///
    /// # Errors
    /// As for [`Self::update`].
    pub fn delete(&self, key: RecordKey) -> Result<Written, Error> {
        self.book.write(Mutation::delete(key))
    }
}

/// Reads.
impl Records<'_> {
    /// Returns a record, or `None` if the app reads none.
    ///
    /// # Errors
    /// [`Error::Store`] if it cannot be read.
    pub fn get(&self, key: &RecordKey) -> Result<Option<Record>, Error> {
        self.with(key, |record| record.under(key.clone()))
    }

    /// Lends a record without copying it: the fastest read. Returns the result of `read`, or `None`
    /// if the app reads no such record.
    ///
    /// ```
    /// # use fieldbook::{Book, BookOptions, Fields, RecordKey};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
    /// #[derive(serde::Deserialize)]
    /// struct Name<'a> {
    ///     name: &'a str,
    /// }
    ///
    /// let key: RecordKey = "lead/42".parse()?;
    /// book.records().create(key.clone(), Fields::parse(r#"{"name":"Ann","stage":"new"}"#)?)?;
    /// let letters = book.records().with(&key, |lead| lead.to::<Name<'_>>().map(|lead| lead.name.len()))?;
    /// assert_eq!(letters.transpose()?, Some(3));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Store`] if it cannot be read.
    pub fn with<T>(
        &self,
        key: &RecordKey,
        read: impl FnOnce(RecordRef<'_>) -> T,
    ) -> Result<Option<T>, Error> {
        Ok(with_record(&*self.book.latest()?, &self.book.shared.schema, key, read)?)
    }

    /// Lends the records of an entity type without copying them, in the order of their ids, after
    /// an id if it is given, until `read` breaks off. All of them are from one instant. Until the
    /// call returns, overwritten pages keep their space in the file.
    ///
    /// ```
    /// # use fieldbook::{Book, BookOptions, EntityType, Fields};
    /// # use std::ops::ControlFlow;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
    /// # book.records().create("lead/42".parse()?, Fields::parse(r#"{"name":"Ann"}"#)?)?;
    /// let mut unsent = Vec::new();
    /// book.records().scan(&EntityType::parse("lead")?, None, |lead| {
    ///     if lead.pending > 0 {
    ///         unsent.push(lead.id.to_owned());
    ///     }
    ///     if unsent.len() < 20 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    /// })?;
    /// assert_eq!(unsent, ["42"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Store`] if a record cannot be read; `read` may have received those before it.
    pub fn scan(
        &self,
        entity: &EntityType,
        after: Option<&RecordId>,
        mut read: impl FnMut(RecordRef<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let (schema, mut damaged) = (&self.book.shared.schema, None);
        self.book.latest()?.records_as(entity, after, |id, view| {
            match RecordRef::lend(schema, (entity, id), view, &mut read) {
                Ok(flow) => flow.unwrap_or(ControlFlow::Continue(())),
                Err(error) => {
                    damaged = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        damaged.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Lists records of an entity type in the order of their ids, at most `limit` of them, after an
    /// id if it is given. They are copied into one piece of memory; [`RecordRef::to_record`] copies
    /// a single record out of it.
    ///
    /// ```
    /// # use fieldbook::{Book, BookOptions, EntityType, Fields};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
    /// # for lead in ["lead/1", "lead/2", "lead/3"] {
    /// #     book.records().create(lead.parse()?, Fields::parse("{}")?)?;
    /// # }
    /// let leads = EntityType::parse("lead")?;
    /// let first = book.records().list(&leads, None, 2)?;
    /// assert_eq!(first.iter().map(|lead| lead.id).collect::<Vec<_>>(), ["1", "2"]);
    /// let last = book.records().list(&leads, first.next.as_ref(), 2)?;
    /// assert_eq!((last.len(), &last.next), (1, &None));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Store`] if a record cannot be read.
    pub fn list(
        &self,
        entity: &EntityType,
        after: Option<&RecordId>,
        limit: usize,
    ) -> Result<RecordList, Error> {
        let mut records = RecordList::with_room(entity.clone(), limit);
        if self.lend(entity, after, limit, |record| records.push(record))? {
            records.next =
                records.len().checked_sub(1).and_then(|last| Some(records.get(last)?.key().id));
        }
        Ok(records)
    }

    /// Lends at most this many records, and returns whether there were that many.
    fn lend(
        &self,
        entity: &EntityType,
        after: Option<&RecordId>,
        limit: usize,
        mut read: impl FnMut(RecordRef<'_>),
    ) -> Result<bool, Error> {
        let mut left = limit;
        if left > 0 {
            self.scan(entity, after, |record| {
                read(record);
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
        }
        Ok(left == 0)
    }
}
