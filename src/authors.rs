//! Who made the changes that the server sent, as far as it said so.
//!
//! The entry directly after an upstream entry names the authors of its changes. The conflicts that
//! an answer causes are recorded in the same commit, a few entries later: the note of its receipt
//! and the records that were set aside come before them.

use std::collections::BTreeMap;

use fieldbook_core::entry::{Authored, Control, Entry, Meta};
use fieldbook_core::log::{StoreError, read_entry};
use fieldbook_core::rows::ConflictRow;
use fieldbook_core::{Actor, ConflictId, RecordKey, Seq, Version};
use fieldbook_projections::LogView;
use redb::ReadableTable;

use crate::audit::Audit;
use crate::conflict::Conflict;
use crate::error::Error;

/// How many entries before a conflict may belong to the answer with the change that it met. An
/// answer of ordinary size is one entry.
const LOOKS_BACK: u64 = 64;

impl Audit<'_> {
    /// Returns the author of each change of an upstream entry, in their order; `None` if the server
    /// did not say, and an empty list for any other entry.
    ///
    /// # Errors
    /// [`Error::Store`] if the entry after it cannot be read.
    pub fn authors_of(&self, entry: &Entry) -> Result<Vec<Option<Actor>>, Error> {
        let Meta::Upstream(upstream) = &entry.meta else { return Ok(Vec::new()) };
        let named = authors_after(&self.book.shared.snapshot()?.entries()?, entry)?;
        let author = |number| Authored::of(&named, number).cloned();
        Ok((0..).take(upstream.changes.len()).map(author).collect())
    }
}

/// Finds the authors of the server's changes that conflicts met. It keeps those of one answer,
/// since conflicts of one answer follow one another.
pub(crate) struct Met<'a, L> {
    log: &'a L,
    found_in: Seq,
    authors: BTreeMap<(RecordKey, Version), Actor>,
}

impl<'a, L: LogView> Met<'a, L> {
    pub(crate) const fn new(log: &'a L) -> Self {
        Self { log, found_in: Seq::ZERO, authors: BTreeMap::new() }
    }

    /// Makes the conflict of a row, with the author of the change that it met.
    pub(crate) fn conflict(&mut self, id: ConflictId, row: ConflictRow) -> Conflict {
        let by = self.author(id, &row);
        Conflict::of(id, row, by)
    }

    /// Returns the author of the change that a conflict met. An entry that cannot be read names
    /// nobody: the conflict is shown all the same.
    pub(crate) fn author(&mut self, id: ConflictId, conflict: &ConflictRow) -> Option<Actor> {
        if self.found_in != id.seq {
            self.found_in = id.seq;
            self.authors.clear();
            self.read();
        }
        self.authors.get(&(conflict.key.clone(), conflict.version)).cloned()
    }

    /// Reads the authors of the answer before the entry with the conflict.
    fn read(&mut self) {
        let found_in = self.found_in.number();
        let (mut named, mut request) = (Vec::new(), None);
        for seq in (found_in.saturating_sub(LOOKS_BACK).max(1)..found_in).rev().map(Seq::new) {
            let Ok(Some(entry)) = self.log.entry(seq) else { return };
            match &entry.meta {
                Meta::Control(Control::Authors(authors)) => named.clone_from(authors),
                // They follow the changes: the note of the receipt, and records that were set
                // aside.
                Meta::Control(Control::Note(_) | Control::Decided(_)) if request.is_none() => {}
                // An answer can be several entries.
                Meta::Upstream(upstream) if request.is_none_or(|of| of == upstream.request) => {
                    request = Some(upstream.request);
                    let named = std::mem::take(&mut named);
                    for (number, change) in (0..).zip(&upstream.changes) {
                        if let Some(by) = Authored::of(&named, number) {
                            self.authors.insert((change.key.clone(), change.version), by.clone());
                        }
                    }
                }
                _ => return,
            }
        }
    }
}

/// Returns the authors of the changes of an entry, which the entry after it names.
pub(crate) fn authors_after(
    entries: &impl ReadableTable<u64, &'static [u8]>,
    entry: &Entry,
) -> Result<Vec<Authored>, StoreError> {
    if !matches!(&entry.meta, Meta::Upstream(upstream) if !upstream.changes.is_empty()) {
        return Ok(Vec::new());
    }
    Ok(match read_entry(entries, entry.header.seq.next())?.map(|entry| entry.meta) {
        Some(Meta::Control(Control::Authors(named))) => named,
        _ => Vec::new(),
    })
}
