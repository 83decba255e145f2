//! A live list kept in a file, for what must not open the book: a widget, an extension, a watch.
//!
//! What it is not: a copy of the book. Nobody writes to the file to change a record.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use fieldbook_core::FieldsJson;
use fieldbook_core::locks::Mutex;
use fieldbook_core::log::StoreError;
use fieldbook_core::new_file::replace_file;
use fieldbook_core::rules::status::RecordState;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::task::spawn_blocking;

use super::windows::WriteLast;
use super::{ListChange, LiveList};
use crate::book::Book;
use crate::error::Error;
use crate::guests::Guest;
use crate::query::Stored;
use crate::suspended::is_suspended;

/// The least time between two writes of a file: a burst of changes is one write.
const WRITTEN_EVERY: Duration = Duration::from_secs(2);
/// The longest wait between two tries of a file that cannot be written.
const TRIED_EVERY: Duration = Duration::from_secs(60);

impl LiveList<FieldsJson> {
    /// Writes the list to a file after each change of it, at most every two seconds, until the book
    /// is closed or the call is dropped. [`Book::close`] and [`Book::suspend`] write what the file
    /// has not got yet. A reader of the file finds a whole list, never half of one:
    ///
    /// ```json
    /// {"rows": [{"id": "42", "version": 7, "pending": 0, "status": "synced", "fields": {"name": "Ann"}}], "more": false}
    /// ```
    ///
    /// `version` is null if the server does not have the record yet, `pending` counts its unsent
    /// changes, and `more` says whether rows follow the limit of the list. The call needs a tokio
    /// runtime.
    ///
    /// A list that cannot be read or written is tried again, after two seconds at first and a
    /// minute at last. `hear` is called with the result of each try, so the app can tell that the
    /// file is old, and that it is not any more. It must not wait for the book, because a close
    /// waits for it.
    pub async fn keep_in_file(
        self,
        path: impl Into<PathBuf>,
        hear: impl FnMut(Result<(), Error>) + Send + 'static,
    ) {
        let (mut told, mut turns) = (self.told.clone(), self.turns.clone());
        told.mark_changed();
        let (book, guests) = (self.book.clone(), Arc::clone(&self.guests));
        let state = State { list: self, content: None, hear: Box::new(hear) };
        let kept = Arc::new(Kept { path: path.into(), state: Mutex::new(state) });
        let as_file: Arc<dyn WriteLast> = Arc::<Kept>::clone(&kept);
        let guest = guests.enter(&book);
        let Some(open) = guest.as_ref().and_then(Guest::book) else { return };
        open.shared.live.register_file(Arc::downgrade(&as_file));
        drop(guest);
        let mut wait = WRITTEN_EVERY;
        while told.changed().await.is_ok()
            && turns.wait_for(|turns| !is_suspended(*turns)).await.is_ok()
        {
            let (kept, guests, book) = (Arc::clone(&kept), Arc::clone(&guests), book.clone());
            let written = spawn_blocking(move || {
                let guest = guests.enter(&book);
                guest.as_ref().and_then(Guest::book).is_none_or(|book| kept.write(book))
            });
            wait = if written.await.unwrap_or(false) {
                WRITTEN_EVERY
            } else {
                told.mark_changed();
                wait.saturating_mul(2).min(TRIED_EVERY)
            };
            tokio::time::sleep(wait).await;
        }
    }
}

/// A list that is kept in a file.
struct Kept {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    list: LiveList<FieldsJson>,
    /// What the file has not got yet.
    content: Option<Vec<u8>>,
    hear: Box<dyn FnMut(Result<(), Error>) + Send>,
}

impl Kept {
    /// Writes the list if it changed. Returns whether the file has the list.
    fn write(&self, book: &Book) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.write(book, &self.path) {
            // The list is read when the book has its file again.
            Ok(false) | Err(Error::Suspended) => true,
            written => {
                let written = written.map(|_| ());
                if let Err(error) = &written {
                    tracing::warn!(%error, "a list was not written to its file");
                }
                let is_written = written.is_ok();
                (state.hear)(written);
                is_written
            }
        }
    }
}

impl WriteLast for Kept {
    fn write_last(&self, book: &Book) {
        self.write(book);
    }
}

impl State {
    /// Returns whether there was something to write.
    fn write(&mut self, book: &Book, path: &Path) -> Result<bool, Error> {
        if let Some(change) = self.list.take_change_of(book)? {
            self.content = Some(content(&change)?);
        }
        let Some(content) = &self.content else { return Ok(false) };
        replace_file(path, content).map_err(StoreError::disk("writing a list to its file"))?;
        self.content = None;
        Ok(true)
    }
}

#[derive(Serialize)]
struct FileOfList<'a> {
    rows: Vec<FileRow<'a>>,
    more: bool,
}

#[derive(Serialize)]
struct FileRow<'a> {
    id: &'a str,
    version: Option<u64>,
    pending: usize,
    status: RecordState,
    fields: &'a RawValue,
}

impl<'a> FileRow<'a> {
    fn of(row: &'a Stored<FieldsJson>) -> Result<Self, serde_json::Error> {
        Ok(Self {
            id: row.id.as_str(),
            version: row.version.map(|version| version.number()),
            pending: row.pending,
            status: row.status.state(),
            fields: serde_json::from_str(row.value.as_str())?,
        })
    }
}

fn content(change: &ListChange<FieldsJson>) -> Result<Vec<u8>, Error> {
    let rows: Result<Vec<_>, _> = change.items.iter().map(FileRow::of).collect();
    let made = rows.and_then(|rows| {
        let more = change.next.is_some();
        serde_json::to_vec(&FileOfList { rows, more })
    });
    made.map_err(|fault| StoreError::corrupt("the fields of a listed record", None, fault).into())
}
