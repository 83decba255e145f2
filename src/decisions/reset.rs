//! A person takes the server's state: everything unsent is discarded, after it was exported if the
//! person wants that.
//!
//! ```text
//!   a round of its own: what is unsent? ─► export, verified and synced ─► decisions ─► commit
//! ```
//!
//! Invariants:
//! 1. With an export, an op is discarded only if it is in the export: nobody writes between the
//!    two, because both are in one round that has no other job.
//! 2. A reset that fails before its commit discards nothing.
//! 3. Without an unsent op nothing is written, neither to the book nor to a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use fieldbook_core::RecordKey;
use fieldbook_core::entry::{Decision, PersonAction};
use fieldbook_core::rows::RecordRow;
use fieldbook_core::rules::reset::reset;
use fieldbook_projections::{Tables, sound};

use super::decide;
use super::ops::record_rows;
use super::resume::Servers;
use crate::error::Error;
use crate::exchange::text_item;
use crate::export::{Step, export};
use crate::writer::Session;

/// The decisions of one entry of a reset: far below the largest entry, whatever the names are.
const PART_DECISIONS: usize = 2_000;

/// How a person takes the server's state ([`Servers::take_state`]). A text alone is a reason.
///
/// ```
/// use fieldbook::sync::TakeState;
///
/// let how = TakeState::new("entered on the wrong device").export_to("given-up.fieldbook-log");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeState {
    reason: String,
    export_to: Option<PathBuf>,
}

impl TakeState {
    /// Discards what is unsent for this reason. The log keeps the reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), export_to: None }
    }

    /// Exports the whole log to a new file before anything is discarded.
    /// [`read_export`](crate::audit::read_export) reads it again, with everything that was unsent.
    #[must_use]
    pub fn export_to(self, path: impl Into<PathBuf>) -> Self {
        Self { export_to: Some(path.into()), ..self }
    }
}

impl From<&str> for TakeState {
    fn from(reason: &str) -> Self {
        Self::new(reason)
    }
}

impl From<String> for TakeState {
    fn from(reason: String) -> Self {
        Self::new(reason)
    }
}

impl Servers<'_> {
    /// Takes the server's state in place of this device's own changes: every op that the server
    /// does not have, of whichever user, is discarded, and returns how many ops that are. The app
    /// reads what the server confirmed at once, and what it has now after the next sync. Nothing of
    /// these ops is sent any more. The log keeps each op with its fields, and the reason. Records
    /// of entity types that never leave the device stay.
    ///
    /// A unit may have left already, and nobody knows whether it arrived. It is abandoned; if it
    /// did arrive, its changes are part of the server's state. Without an unsent op nothing is
    /// written.
    ///
    /// With [`TakeState::export_to`] the whole log is exported before, as at a
    /// [sign-out](crate::SignOut::Wipe): each op that is discarded is in a file that is on the disk
    /// and verified. Writes wait until both are done, which takes as long as writing and reading
    /// the log. Without an unsent op there is no file.
    ///
    /// ```
    /// # use fieldbook::sync::TakeState;
    /// # use fieldbook::{Book, BookOptions, Fields};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("ann")?)?;
    /// book.records().create("lead/42".parse()?, Fields::parse("{}")?)?;
    /// assert_eq!(book.servers().take_state("entered on the wrong device")?, 1);
    /// assert!(book.records().get(&"lead/42".parse()?)?.is_none());
    /// assert!(book.queue().unsent()?.is_empty());
    ///
    /// book.records().create("lead/43".parse()?, Fields::parse("{}")?)?;
    /// let export_to = folder.path().join("given-up.fieldbook-log");
    /// book.servers().take_state(TakeState::new("twice").export_to(&export_to))?;
    /// assert!(export_to.exists());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails, or the file of the export exists already, or the log is
    /// damaged and an export was asked for; [`Error::ReadOnly`]. Nothing is decided then. An export
    /// that was finished before the book failed stays. [`Error::Unknown`] if the disk fails during
    /// the commit: the export stays then, too.
    pub fn take_state(&self, how: impl Into<TakeState>) -> Result<u64, Error> {
        self.take(how.into(), |_| ())
    }

    fn take(
        &self,
        how: TakeState,
        mut at: impl FnMut(Step) + Send + 'static,
    ) -> Result<u64, Error> {
        let TakeState { reason, export_to } = how;
        let Some(path) = export_to else {
            return self.book.shared.write_in_turn(move |session| {
                let decisions = unsent(session)?;
                discard(session, &reason, &decisions)
            });
        };
        let book = self.book.clone();
        self.book.shared.write_alone(move |session| {
            let decisions = unsent(session)?;
            if decisions.is_empty() {
                return Ok(0);
            }
            if book.shared.store.is_read_only() {
                return Err(Error::ReadOnly);
            }
            export(&book.shared.store, &path, &mut at)?;
            at(Step::Exported);
            discard(session, &reason, &decisions)
        })
    }
}

/// Asks the rule how everything unsent ends.
fn unsent(session: &mut Session<'_>) -> Result<Vec<Decision>, Error> {
    let schema = session.schema;
    let leaves = |key: &RecordKey| schema.leaves(&key.entity);
    let keys: BTreeSet<_> = session.tail.ops().map(|(_, row)| row.key.clone()).collect();
    sound(session.tail)?;
    let keys: Vec<_> = keys.into_iter().filter(leaves).collect();
    let rows: BTreeMap<RecordKey, RecordRow> = record_rows(session, keys.iter())?;
    Ok(reset(&session.tables.units()?, &rows))
}

/// Writes the decisions, and returns how many ops they end.
fn discard(session: &mut Session<'_>, reason: &str, decisions: &[Decision]) -> Result<u64, Error> {
    for part in decisions.chunks(PART_DECISIONS) {
        let (items, reason) = text_item(session, reason);
        decide(session, PersonAction::Discard { reason }, part.to_vec(), items)?;
    }
    let is_end = |found: &&Decision| matches!(found, Decision::Discarded { .. });
    Ok(decisions.iter().filter(is_end).count() as u64)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::book::Book;
    use crate::{BookOptions, Fields};

    fn options() -> BookOptions {
        BookOptions::new("ann").unwrap()
    }

    /// Makes a book in a folder, with an unsent op.
    fn book_in(folder: &Path) -> Book {
        let book = Book::create_new(folder.join("a.book"), options()).unwrap();
        let fields = Fields::parse(r#"{"n":1}"#).unwrap();
        book.records().create("lead/1".parse().unwrap(), fields).unwrap();
        book
    }

    fn names(folder: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// A kill leaves the folder as it is at that moment. So each copy of it is what a kill leaves.
    #[test]
    fn a_kill_at_any_step_leaves_the_unsent_op_or_an_export_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let (book, export_to) = (book_in(folder.path()), folder.path().join("a.log"));
        let left = Arc::new(Mutex::new(Vec::new()));
        let (path, noted) = (folder.path().to_owned(), Arc::clone(&left));
        let look = move |step| {
            let copy = tempfile::tempdir().unwrap();
            fs::copy(path.join("a.book"), copy.path().join("a.book")).unwrap();
            noted.lock().unwrap().push((step, copy, names(&path).contains("a.log")));
        };
        assert_eq!(book.servers().take(TakeState::new("x").export_to(export_to), look).unwrap(), 1);
        let found = std::mem::take(&mut *left.lock().unwrap()).into_iter().map(
            |(step, folder, is_exported)| {
                let book = Book::open(folder.path().join("a.book"), options()).unwrap();
                (step, book.queue().unsent().unwrap().ops(), is_exported)
            },
        );
        let expected = [(Step::Exporting, 1, false), (Step::Exported, 1, true)];
        assert_eq!(found.collect::<Vec<_>>(), expected);
        assert!(book.queue().unsent().unwrap().is_empty());
    }

    #[test]
    fn an_export_that_does_not_verify_discards_nothing_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let book = book_in(folder.path());
        let (head, before) = (book.audit().head().unwrap(), names(folder.path()));
        let path = folder.path().to_owned();
        let damage = move |step| {
            let aside = names(&path).into_iter().find(|name| name.ends_with(".new"));
            if let (Step::Exporting, Some(aside)) = (step, aside) {
                let mut bytes = fs::read(path.join(&aside)).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(path.join(aside), bytes).unwrap();
            }
        };
        let how = TakeState::new("x").export_to(folder.path().join("a.log"));
        let refused = book.servers().take(how.clone(), damage);
        assert!(matches!(refused, Err(Error::Store(_))), "{refused:?}");
        assert_eq!((book.audit().head().unwrap(), names(folder.path())), (head, before));
        assert_eq!(book.servers().take_state(how).unwrap(), 1, "the book goes on");
    }
}
