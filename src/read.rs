//! Reads: by key, in lists, by a declared index. Each call takes one snapshot, and holds it no
//! longer than the call.

use std::ops::{ControlFlow, RangeBounds};

use fieldbook_core::{EntityType, RecordId, RecordKey};
use fieldbook_projections::IndexRange;
use serde_json::Value;

use crate::book::Book;
use crate::error::Error;
use crate::record::{Record, RecordRef, Records};

/// A part of a list, and where it continues.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T, After = RecordId> {
    /// The items of this part.
    pub items: Vec<T>,
    /// Pass this to get the next part; `None` at the end.
    pub next: Option<After>,
}

impl<T, After> Page<T, After> {
    /// Makes a page of found items. If there are `limit` of them, more may follow.
    pub(crate) fn of(items: Vec<T>, limit: usize, place: impl FnOnce(&T) -> After) -> Self {
        let next = if items.len() < limit { None } else { items.last().map(place) };
        Self { items, next }
    }
}

impl Book {
    /// Returns a record, or `None` if the app reads none.
    ///
    /// # Errors
    /// [`Error::Store`] if it cannot be read.
    pub fn get_record(&self, key: &RecordKey) -> Result<Option<Record>, Error> {
        self.with_record(key, |record| record.under(key.clone()))
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
    /// book.create(key.clone(), Fields::parse(r#"{"name":"Ann","stage":"new"}"#)?)?;
    /// let letters = book.with_record(&key, |lead| lead.to::<Name<'_>>().map(|lead| lead.name.len()))?;
    /// assert_eq!(letters.transpose()?, Some(3));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Store`] if it cannot be read.
    pub fn with_record<T>(
        &self,
        key: &RecordKey,
        read: impl FnOnce(RecordRef<'_>) -> T,
    ) -> Result<Option<T>, Error> {
        let snapshot = self.latest()?;
        let found = snapshot
            .record_as(key, |view| RecordRef::of(&key.entity, key.id.as_str(), view).map(read))?;
        Ok(found.flatten())
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
    /// # book.create("lead/42".parse()?, Fields::parse(r#"{"name":"Ann"}"#)?)?;
    /// let mut unsent = Vec::new();
    /// book.scan(&EntityType::parse("lead")?, None, |lead| {
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
        Ok(self.latest()?.records_as(entity, after, |id, view| {
            RecordRef::of(entity, id, view).map_or(ControlFlow::Continue(()), &mut read)
        })?)
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
    /// #     book.create(lead.parse()?, Fields::parse("{}")?)?;
    /// # }
    /// let leads = EntityType::parse("lead")?;
    /// let first = book.list(&leads, None, 2)?;
    /// assert_eq!(first.iter().map(|lead| lead.id).collect::<Vec<_>>(), ["1", "2"]);
    /// let last = book.list(&leads, first.next.as_ref(), 2)?;
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
    ) -> Result<Records, Error> {
        let mut records = Records::with_room(entity.clone(), limit);
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

    /// Returns the lists of an entity type by a field that the schema declares as an index.
    pub const fn index<'b>(&'b self, entity: &'b EntityType, field: &'b str) -> Index<'b> {
        Index { book: self, entity, field }
    }
}

/// One index of a book, to list records by a field: [`Book::index`].
///
/// The order of the values is: false, true, numbers, text. A record without the field, or with a
/// list or an object in it, is not in the index.
///
/// ```
/// # use fieldbook::{Book, BookOptions, EntityRules, EntityType, Fields, Schema};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let leads = EntityType::parse("lead")?;
/// let rules = EntityRules { indexes: vec!["name".to_owned()], ..EntityRules::default() };
/// let options = BookOptions::new("user-7")?.schema(Schema::closed().declare(leads.clone(), rules));
/// let book = Book::create_new(folder.path().join("crm.book"), options)?;
/// book.create("lead/1".parse()?, Fields::parse(r#"{"name":"Bela"}"#)?)?;
/// book.create("lead/2".parse()?, Fields::parse(r#"{"name":"Ann"}"#)?)?;
///
/// let by_name = book.index(&leads, "name").range(.., None, 100)?;
/// let ids: Vec<_> = by_name.items.iter().map(|lead| lead.key.id.as_str()).collect();
/// assert_eq!(ids, ["2", "1"]);
/// assert_eq!(book.index(&leads, "name").prefix("A", None, 100)?.items.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Index<'b> {
    book: &'b Book,
    entity: &'b EntityType,
    field: &'b str,
}

impl Index<'_> {
    /// Lists the records whose value is in a range, at most `limit` of them, after a place if it is
    /// given.
    ///
    /// # Errors
    /// [`Error::Misuse`] if the index is not declared; [`Error::Store`] if a row cannot be read.
    pub fn range<'v>(
        &self,
        range: impl RangeBounds<&'v Value>,
        after: Option<&IndexPlace>,
        limit: usize,
    ) -> Result<Page<Record, IndexPlace>, Error> {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        self.list(&IndexRange::values(self.entity, self.field, range), after, limit)
    }

    /// Lists the records whose text begins with a prefix.
    ///
    /// # Errors
    /// As for [`Self::range`].
    pub fn prefix(
        &self,
        prefix: &str,
        after: Option<&IndexPlace>,
        limit: usize,
    ) -> Result<Page<Record, IndexPlace>, Error> {
        self.list(&IndexRange::prefix(self.entity, self.field, prefix), after, limit)
    }

    fn list(
        &self,
        range: &IndexRange,
        after: Option<&IndexPlace>,
        limit: usize,
    ) -> Result<Page<Record, IndexPlace>, Error> {
        let rules = self.book.shared.schema.rules(self.entity);
        if !rules.is_some_and(|rules| rules.indexes.iter().any(|index| index == self.field)) {
            return Err(Error::Misuse("this field is not declared as an index of its entity type"));
        }
        let snapshot = self.book.latest()?;
        let found = snapshot.by_index(range, after.map(|place| place.0.as_slice()), limit)?;
        let next = if found.len() < limit {
            None
        } else {
            found.last().map(|(place, _)| IndexPlace(place.clone()))
        };
        let mut items = Vec::with_capacity(found.len());
        for (_, id) in found {
            let key = RecordKey::new(self.entity.clone(), id);
            let found = snapshot.record_as(&key, |view| {
                let record = RecordRef::of(&key.entity, key.id.as_str(), view);
                record.map(|record| record.under(key.clone()))
            })?;
            items.extend(found.flatten());
        }
        Ok(Page { items, next })
    }
}

/// A place in a list by index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexPlace(Vec<u8>);
