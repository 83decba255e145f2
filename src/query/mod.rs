//! Lists of records by an index, counts, and several reads of one instant.
//!
//! ```
//! use fieldbook::query::Count;
//! use fieldbook::schema::IndexRule;
//! use fieldbook::{Book, BookOptions, Entity, EntityRules, Schema};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Lead {
//!     owner: String,
//!     stage: String,
//!     value: u32,
//! }
//!
//! impl Entity for Lead {
//!     const ENTITY: &'static str = "lead";
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! // The leads of an owner by stage, those of the highest value first.
//! let index = IndexRule::new("owner_stage").asc("owner").asc("stage").desc("value");
//! let rules = EntityRules { indexes: vec![index], ..EntityRules::default() };
//! let schema = Schema::closed().declare(Lead::entity_type(), rules);
//! let options = BookOptions::new("user-7")?.schema(schema);
//! let book = Book::create_new(folder.path().join("crm.book"), options)?;
//! for (stage, value) in [("won", 5), ("new", 7), ("new", 9), ("lost", 1)] {
//!     let lead = Lead { owner: "ann".into(), stage: stage.into(), value };
//!     book.save(&book.new_id(), &lead)?;
//! }
//!
//! let new = || book.query::<Lead>("owner_stage").eq("ann").eq("new");
//! let first = new().limit(1).page()?;
//! let second = new().limit(1).after(first.next.as_ref()).page()?;
//! let values = first.items.into_iter().chain(second.items).map(|row| row.value.map(|lead| lead.value));
//! assert_eq!(values.collect::<Result<Vec<_>, _>>()?, [9, 7]);
//! assert!(second.next.is_none());
//!
//! // Both are read of one instant, whatever is written in between.
//! let (late, all) = book.read(|at| {
//!     let late = at.query::<Lead>("owner_stage").eq("ann").range("m"..).count_up_to(100)?;
//!     Ok((late, at.query::<Lead>("owner_stage").count_up_to(2)?))
//! })?;
//! assert_eq!((late, all), (Count::Exact(3), Count::AtLeast(2)));
//! # Ok(())
//! # }
//! ```
//!
//! Every list has what the app reads, so unsent changes too. Its cost is that of the rows that it
//! returns, whatever the size of the book. A text of more than 256 bytes is the exception: rows
//! that agree with it so far are read to compare the rest.
//!
//! What it is not: a language for queries. A list reads one index, in its order. Declare an index
//! for each list that a screen needs.

mod instant;
mod rows;

use std::ops::{Bound, ControlFlow, RangeBounds};

pub use self::instant::Instant;
#[cfg(feature = "search")]
pub(crate) use self::rows::{fill_in, no_record};
pub use crate::live::{ListChange, LiveList};
use fieldbook_core::index::{Conditions, Misfit};
pub use fieldbook_core::index::{IndexPlace, InvalidPlace};
use fieldbook_core::rules::status::RecordStatus;
use fieldbook_core::{EntityType, FieldsJson, RecordId, Version};
use fieldbook_projections::sound;
use serde_json::Value;

use crate::book::Book;
use crate::entity::Entity;
use crate::error::Error;
use crate::read::Page;
use crate::record::RecordRef;
use crate::records::Records;

/// The number of rows of a page, unless [`Query::limit`] sets another.
pub const PAGE_ROWS: usize = 100;

/// A row of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored<V> {
    /// The record's id.
    pub id: RecordId,
    /// The version that the server confirmed; `None` if the server does not have the record yet.
    pub version: Option<Version>,
    /// The number of the record's pending ops.
    pub pending: usize,
    /// The sync status of the record, for a badge.
    pub status: RecordStatus,
    /// Its content: `Result<E, Error>` in a typed list, [`FieldsJson`] in another one.
    pub value: V,
}

impl<V> Stored<V> {
    /// Makes the row of a record, with the status of a record without pending ops.
    pub(crate) fn of(id: RecordId, record: RecordRef<'_>, value: fn(RecordRef<'_>) -> V) -> Self {
        let (version, pending, status) = (record.version, record.pending, RecordStatus::Synced);
        Self { id, version, pending, status, value: value(record) }
    }
}

/// The rows of a page.
pub(crate) type Rows<V> = Page<Stored<V>, IndexPlace>;

/// The row that follows the last one of a page: its key in the index, and its record.
pub(crate) struct Following {
    pub(crate) at: Vec<u8>,
    pub(crate) id: RecordId,
}

/// A number of records, counted no further than was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// There are so many.
    Exact(u64),
    /// There are more than so many.
    AtLeast(u64),
}

/// A list by an index: [`Book::query`], [`Records::query`](Records::query).
///
/// The conditions are for the parts of the index in their order: [`Self::eq`] for the first ones,
/// then at most one [`Self::range`] or [`Self::prefix`]. A condition that the index cannot answer
/// is an [`Error::Misuse`] of the call that reads.
#[derive(Debug, Clone)]
#[must_use = "a list is read by `page` or `count_up_to`"]
pub struct Query<'q, V> {
    source: Source<'q>,
    entity: EntityType,
    index: &'q str,
    conditions: Conditions,
    misfit: Option<Misfit>,
    pub(crate) reversed: bool,
    after: Option<IndexPlace>,
    limit: usize,
    value: fn(RecordRef<'_>) -> V,
}

/// What a list asks for, without the book.
pub(crate) struct Asked<V> {
    pub(crate) entity: EntityType,
    index: String,
    conditions: Conditions,
    reversed: bool,
    after: Option<IndexPlace>,
    limit: usize,
    pub(crate) value: fn(RecordRef<'_>) -> V,
}

impl<V> Asked<V> {
    /// Returns the list of a book, with the fields as JSON text.
    pub(crate) fn of<'q>(&'q self, book: &'q Book) -> Query<'q, FieldsJson> {
        Query {
            conditions: self.conditions.clone(),
            reversed: self.reversed,
            after: self.after.clone(),
            limit: self.limit,
            ..Query::new(Source::Latest(book), self.entity.clone(), &self.index, fields_of)
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Source<'q> {
    Latest(&'q Book),
    At(&'q Instant<'q>),
}

impl Book {
    /// Returns the list of an app's type by one of its indexes.
    pub fn query<'q, E: Entity>(&'q self, index: &'q str) -> Query<'q, Result<E, Error>> {
        Query::new(Source::Latest(self), E::entity_type(), index, |record| record.to())
    }
}

impl<'b> Records<'b> {
    /// Returns the list of an entity type by one of its indexes, with the fields as JSON text.
    pub fn query(self, entity: &EntityType, index: &'b str) -> Query<'b, FieldsJson> {
        Query::new(Source::Latest(self.book), entity.clone(), index, fields_of)
    }
}

impl<'q, V> Query<'q, V> {
    fn new(
        source: Source<'q>,
        entity: EntityType,
        index: &'q str,
        value: fn(RecordRef<'_>) -> V,
    ) -> Self {
        Self {
            source,
            entity,
            index,
            conditions: Conditions::default(),
            misfit: None,
            reversed: false,
            after: None,
            limit: PAGE_ROWS,
            value,
        }
    }

    /// Lists only records whose next part has this value. A null asks for records without a value.
    pub fn eq(self, value: impl Into<Value>) -> Self {
        let value = value.into();
        self.on_next(|conditions| conditions.equal(value))
    }

    /// Lists only records whose next part is in this range. A range has values of the kind of its
    /// bounds only: `5..` has no texts.
    pub fn range<B: Clone + Into<Value>>(self, range: impl RangeBounds<B>) -> Self {
        let bound = |bound: Bound<&B>| bound.map(|value| value.clone().into());
        let (from, to) = (bound(range.start_bound()), bound(range.end_bound()));
        self.on_next(|conditions| conditions.range(from, to))
    }

    /// Lists only records whose next part is a text that begins so.
    pub fn prefix(self, text: &str) -> Self {
        self.on_next(|conditions| conditions.prefix(text))
    }

    fn on_next(mut self, add: impl FnOnce(&mut Conditions) -> Result<(), Misfit>) -> Self {
        let added = add(&mut self.conditions).err();
        self.misfit = self.misfit.or(added);
        self
    }

    /// Lists from the end of the index.
    pub const fn reversed(mut self) -> Self {
        self.reversed = true;
        self
    }

    /// Lists what follows a place, which the page before gave. Records that changed meanwhile are
    /// where they are now.
    pub fn after(mut self, place: Option<&IndexPlace>) -> Self {
        self.after = place.cloned();
        self
    }

    /// Sets the most rows of the page. The default is [`PAGE_ROWS`].
    pub const fn limit(mut self, rows: usize) -> Self {
        self.limit = rows;
        self
    }

    /// Reads the page.
    ///
    /// # Errors
    /// [`Error::Misuse`] if the entity type has no such index, or a condition does not fit it;
    /// [`Error::NotOfThisList`] if the index has another shape than when the place was read;
    /// [`Error::NotBuilt`] if the file lacks the index; [`Error::Store`] if a row cannot be read.
    pub fn page(&self) -> Result<Page<Stored<V>, IndexPlace>, Error> {
        match self.source {
            Source::At(at) => {
                let mut page = self.rows(&at.snapshot)?;
                if page.items.iter().any(|row| row.pending > 0) {
                    at.with_tail(|tail| self.fill_in(&mut page, at.book, tail, &at.snapshot))?;
                }
                Ok(page)
            }
            Source::Latest(book) => {
                let page = self.rows(&*book.latest()?)?;
                if page.items.iter().all(|row| row.pending == 0) {
                    return Ok(page);
                }
                // The status comes from the tail, so the rows are read anew of its instant.
                let (tail, snapshot) = book.shared.tail_and_snapshot()?;
                let mut page = self.rows(&snapshot)?;
                self.fill_in(&mut page, book, &tail, &snapshot)?;
                sound(&tail)?;
                Ok(page)
            }
        }
    }

    /// Counts the records, up to this number. The limit of the page does not matter.
    ///
    /// # Errors
    /// As for [`Self::page`].
    pub fn count_up_to(&self, most: u64) -> Result<Count, Error> {
        let (latest, snapshot) = match self.source {
            Source::At(at) => (None, Some(&*at.snapshot)),
            Source::Latest(book) => (Some(book.latest()?), None),
        };
        let (mut count, mut more) = (0, false);
        if let Some(snapshot) = latest.as_deref().or(snapshot) {
            self.each(snapshot, |_, _| {
                more = count == most;
                count += u64::from(!more);
                Ok(if more { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
        }
        Ok(if more { Count::AtLeast(most) } else { Count::Exact(count) })
    }
}

pub(crate) fn fields_of(record: RecordRef<'_>) -> FieldsJson {
    FieldsJson::from_stored_text(record.json)
}
