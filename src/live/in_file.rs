//! A live list kept in a file, for what must not open the book: a widget, an extension, a watch.
//!
//! What it is not: a copy of the book. Nobody writes to the file to change a record.

use std::path::PathBuf;
use std::time::Duration;

use fieldbook_core::FieldsJson;
use fieldbook_core::log::StoreError;
use fieldbook_core::new_file::replace_file;
use fieldbook_core::rules::status::RecordState;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::task::spawn_blocking;

use super::{ListChange, LiveList};
use crate::error::Error;
use crate::query::Stored;

/// The least time between two writes of a file: a burst of changes is one write.
const WRITTEN_EVERY: Duration = Duration::from_secs(2);

impl LiveList<FieldsJson> {
    /// Writes the list to a file after each change of it, at most every two seconds, until the book
    /// is closed or the call is dropped. A change in the last two seconds before that is not
    /// written. A reader of the file finds a whole list, never half of one:
    ///
    /// ```json
    /// {"rows": [{"id": "42", "version": 7, "pending": 0, "status": "synced", "fields": {"name": "Ann"}}], "more": false}
    /// ```
    ///
    /// `version` is null if the server does not have the record yet, `pending` counts its unsent
    /// changes, and `more` says whether rows follow the limit of the list. The call needs a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`Error::Store`] if a row cannot be read, or the file cannot be written: the book goes on, and
    /// the app begins again later.
    pub async fn keep_in_file(mut self, path: impl Into<PathBuf>) -> Result<(), Error> {
        let path = path.into();
        while let Some(change) = self.changed().await? {
            let (content, path) = (content(&change)?, path.clone());
            let written = spawn_blocking(move || replace_file(&path, &content)).await;
            written
                .unwrap_or_else(|panicked| Err(panicked.into()))
                .map_err(StoreError::disk("writing a list to its file"))?;
            tokio::time::sleep(WRITTEN_EVERY).await;
        }
        Ok(())
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
