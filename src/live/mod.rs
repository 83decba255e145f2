//! Live lists: a list that tells what changed in it, commit by commit.
//!
//! ```
//! use fieldbook::{Book, BookOptions, EntityRules, EntityType, Fields, Schema};
//! use serde_json::json;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let lead = EntityType::parse("lead")?;
//! let rules = EntityRules { indexes: vec!["name".into()], ..EntityRules::default() };
//! let options = BookOptions::new("ann")?.schema(Schema::closed().declare(lead.clone(), rules));
//! let book = Book::create_new(folder.path().join("crm.book"), options)?;
//! book.records().create("lead/1".parse()?, Fields::from_value(json!({"name": "Bela"}))?)?;
//!
//! let mut live = book.records().query(&lead, "name").limit(50).live()?;
//! let first = live.take_change()?.expect("the list itself is the first change");
//! assert_eq!((first.items.len(), first.inserted), (1, vec![0]));
//!
//! book.records().create("lead/2".parse()?, Fields::from_value(json!({"name": "Ann"}))?)?;
//! book.records().update("lead/1".parse()?, Fields::from_value(json!({"phone": "555"}))?)?;
//! let change = live.take_change()?.expect("both writes, in one change");
//! assert_eq!((change.inserted, change.updated), (vec![0], vec![1]));
//! assert!(live.take_change()?.is_none());
//! # Ok(())
//! # }
//! ```
//!
//! Invariants:
//! 1. The last change that a list tells leaves it as the same list read anew. Time is the
//!    exception: an undo window or a delay that ends is told with the next commit.
//! 2. Each change differs from the one before it.
//! 3. A list that is not asked holds the rows that it told last, and no more.
//! 4. A list that is dropped leaves nothing behind, and it does not keep the book open: a close
//!    waits for its read.
//! 5. While the book is suspended a list waits. After it, the list tells what differs.
//!
//! What it is not: a history. Changes between two questions are one change.

mod in_file;
mod windows;

use std::sync::{Arc, Weak};

use fieldbook_core::FieldsJson;
use fieldbook_core::index::{Steps, Window};
use fieldbook_projections::sound;
use tokio::sync::watch;

use crate::book::{Book, Shared};
use crate::error::Error;
use crate::guests::{Guest, Guests};
use crate::query::{Asked, Following, IndexPlace, Query, Rows, Stored};
use crate::record::RecordRef;
use crate::suspended::is_suspended;
use windows::{Extent, SharedExtent, lock};

pub(crate) use windows::LiveLists;

/// The rows of a live list after something changed, and what changed.
///
/// To follow it, take the rows of `removed` out of the list before, from the last to the first; put
/// the row `items[place]` in at each place of `inserted`, from the first to the last; and replace
/// the row at each place of `updated`. A row that moves is removed and inserted, under the same id.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ListChange<V> {
    /// All rows of the list.
    pub items: Vec<Stored<V>>,
    /// The places of the rows that went, in the list before, ascending.
    pub removed: Vec<usize>,
    /// The places of the new rows in `items`, ascending.
    pub inserted: Vec<usize>,
    /// The places in `items` of rows that were there before and have another content, version or
    /// status, ascending.
    pub updated: Vec<usize>,
    /// Where the list continues after its limit; `None` if nothing follows.
    pub next: Option<IndexPlace>,
}

/// A list that tells what changed in it: [`Query::live`].
#[must_use = "a live list tells nothing unless it is asked"]
pub struct LiveList<V> {
    book: Weak<Shared>,
    guests: Arc<Guests>,
    turns: watch::Receiver<u64>,
    asked: Asked<V>,
    extent: SharedExtent,
    told: watch::Receiver<()>,
    /// What was told last; `None` before the first time. The rows have the text of their records:
    /// an app's type cannot be compared.
    last: Option<Rows<FieldsJson>>,
}

impl<V> Query<'_, V> {
    /// Returns the list as one that tells its changes. The first change is the list itself.
    ///
    /// A commit that does not touch the list costs a comparison of keys. The list is read anew when
    /// it is asked, if a commit touched it: a change of its rows, or, while a row has pending ops,
    /// any commit, because it may change the status of that row.
    ///
    /// # Errors
    /// Those of [`Query::page`], and [`Error::Misuse`] for a list of one instant, which never
    /// changes.
    pub fn live(self) -> Result<LiveList<V>, Error> {
        let book = self.latest_book().ok_or(Error::Misuse(
            "a list within `Book::read` never changes: ask the book itself for a live list",
        ))?;
        self.check()?;
        let shared = &book.shared;
        let (extent, told) = shared.live.register();
        let (guests, turns) = (Arc::clone(&shared.guests), shared.suspension.turns());
        let book = Arc::downgrade(shared);
        Ok(LiveList { book, guests, turns, asked: self.into_asked(), extent, told, last: None })
    }
}

impl<V> LiveList<V> {
    /// Waits until the list differs from what it told last, and returns the change; `None` after
    /// the book was closed. It waits while the book is suspended. The call may be dropped at any
    /// time and loses nothing. It reads the rows on the thread that polls it.
    ///
    /// # Errors
    /// [`Error::Store`] if a row cannot be read. The next call tries again at once.
    pub async fn changed(&mut self) -> Result<Option<ListChange<V>>, Error> {
        while self.told.changed().await.is_ok() {
            if self.turns.wait_for(|turns| !is_suspended(*turns)).await.is_err() {
                break;
            }
            match self.read_now() {
                // It was suspended in between, and the change is still to be told.
                Err(Error::Suspended) | Ok(None) => {}
                told => return told,
            }
        }
        Ok(None)
    }

    /// Returns the change since the last one, without waiting; `None` if there is none, or the book
    /// is suspended or was closed.
    ///
    /// # Errors
    /// As for [`Self::changed`].
    pub fn take_change(&mut self) -> Result<Option<ListChange<V>>, Error> {
        if !self.is_told() {
            return Ok(None);
        }
        match self.read_now() {
            Err(Error::Suspended) => Ok(None),
            told => told,
        }
    }

    /// Returns whether the book was closed, so that the list tells nothing more.
    pub fn has_ended(&self) -> bool {
        self.told.has_changed().is_err()
    }

    /// Returns the change since the last one, for who has the book.
    fn take_change_of(&mut self, book: &Book) -> Result<Option<ListChange<V>>, Error> {
        if self.is_told() { self.read_again(book) } else { Ok(None) }
    }

    /// Returns whether the list was told since it was read last.
    fn is_told(&mut self) -> bool {
        let is_told = self.told.has_changed().unwrap_or(false);
        self.told.mark_unchanged();
        is_told
    }

    fn read_now(&mut self) -> Result<Option<ListChange<V>>, Error> {
        let guest = self.guests.enter(&self.book);
        guest.as_ref().and_then(Guest::book).map_or(Ok(None), |book| self.read_again(book))
    }

    fn read_again(&mut self, book: &Book) -> Result<Option<ListChange<V>>, Error> {
        // From here on every commit touches the list, until its window is known again.
        *lock(&self.extent) = Extent::Unknown;
        let (shown, extent) = match self.read(book) {
            Ok(read) => read,
            Err(error) => {
                self.told.mark_changed();
                return Err(error);
            }
        };
        *lock(&self.extent) = extent;
        if self.last.as_ref() == Some(&shown) {
            return Ok(None);
        }
        let before = self.last.take().map(|page| page.items).unwrap_or_default();
        let steps = Steps::between(&before, &shown.items, |row| &row.id);
        let items = shown.items.iter().map(|row| self.asked.row(row)).collect();
        let next = shown.next.clone();
        self.last = Some(shown);
        let Steps { removed, inserted, updated } = steps;
        Ok(Some(ListChange { items, removed, inserted, updated, next }))
    }

    /// Reads the rows, of one instant.
    fn read(&self, book: &Book) -> Result<(Rows<FieldsJson>, Extent), Error> {
        let (tail, snapshot) = book.shared.tail_and_snapshot()?;
        let query = self.asked.of(book);
        let (mut shown, following) = query.rows_and_following(&snapshot)?;
        query.fill_in(&mut shown, book, &tail, &snapshot)?;
        sound(&tail)?;
        let window = window(&query, &shown.items, following)?;
        let is_pending = shown.items.iter().any(|row| row.pending > 0);
        Ok((shown, Extent::Known { window, is_pending }))
    }
}

/// Returns the window of a list that shows these rows.
fn window<V>(
    query: &Query<'_, V>,
    rows: &[Stored<V>],
    following: Option<Following>,
) -> Result<Window, Error> {
    let span = query.span()?;
    let (from, to) = span.bounds();
    let keys = (from.to_vec(), to.to_vec());
    let mut window = Window::new(span.entity().clone(), keys, span.is_rough());
    rows.iter().for_each(|row| window.add(row.id.clone()));
    if let Some(Following { at, id }) = following {
        window.add(id);
        window.end_at(&at, query.reversed);
    }
    Ok(window)
}

impl<V> Asked<V> {
    /// Makes the app's row of a row with the text of its record.
    fn row(&self, row: &Stored<FieldsJson>) -> Stored<V> {
        let record = RecordRef {
            entity: &self.entity,
            id: row.id.as_str(),
            json: row.value.as_str(),
            version: row.version,
            pending: row.pending,
            // No value of a list has it.
            synced_at: None,
        };
        Stored { status: row.status.clone(), ..Stored::of(row.id.clone(), record, self.value) }
    }
}

impl<V> std::fmt::Debug for LiveList<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveList").finish_non_exhaustive()
    }
}
