//! The demo: the shipped history, played against a server of its own, and one record that two people changed at the same time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fieldbook::conflict::Conflict;
use fieldbook::{Actor, Book, RecordKey};

use crate::failure::Failure;
use crate::fleet::{file_name, options};
use crate::progress::Progress;
use crate::run::{Played, Setup, play};
use crate::source::Source;

const STREAM: &[u8] = include_bytes!("../data/crm-history/openstates-vt-de.jsonl.gz");
const ORACLE: &[u8] = include_bytes!("../data/crm-history/openstates-vt-de.final.jsonl.gz");

/// A demo that was played. Its books are there as long as the folder is.
#[derive(Debug)]
pub struct Demo {
    /// What the play came to.
    pub played: Played,
    books: PathBuf,
}

/// Plays the shipped history in an empty folder, which its caller makes and takes away. `check` is as in [`Setup::check`].
///
/// # Errors
/// As [`play`].
pub fn demo(folder: &Path, check: bool, progress: Arc<dyn Progress>) -> Result<Demo, Failure> {
    let books = folder.join("books");
    let played = play(Setup {
        stream: Source::Shipped { name: "the shipped history", bytes: STREAM },
        oracle: Some(Source::Shipped { name: "the shipped table", bytes: ORACLE }),
        server: None,
        books: Some(books.clone()),
        temporary: folder.to_owned(),
        seed: 1,
        faults: false,
        check,
        progress,
    })?;
    Ok(Demo { played, books })
}

impl Demo {
    /// What the demo is about, to be read before it plays.
    pub const INTRODUCTION: &str = "\
This plays eight years of real changes: 51 people and bots kept the legislators and committees of Vermont and Delaware,
each on a device of their own, often without hearing of the others' changes for days. Every device is a book; a server
of its own runs in this program; everything is in a temporary folder. It takes some seconds; ctrl-c stops it.
";

    /// Returns what came of it, in a sentence.
    pub fn ending(&self) -> String {
        let report = &self.played.report;
        let but_for = match report.oracle.as_ref().map_or(0, |oracle| oracle.explained.len()) {
            0 => String::new(),
            1 => ", but for 1 that a recorded conflict explains".to_owned(),
            explained => format!(", but for {explained} that recorded conflicts explain"),
        };
        format!(
            "All {} devices show the same {} records as the server, and the same as the history's own last state{but_for}.",
            report.devices, report.records
        )
    }

    /// Finds the conflict that is told in the fewest words: one field, short values, a change on either side.
    ///
    /// # Errors
    /// If a book of the demo cannot be read.
    pub fn meeting(&self) -> Result<Option<Meeting>, Failure> {
        let conflicts = self.played.in_conflict.values();
        let mut authors: Vec<usize> =
            conflicts.flat_map(|conflicts| conflicts.authors.iter().copied()).collect();
        authors.sort_unstable();
        authors.dedup();
        let mut best: Option<(usize, Meeting)> = None;
        for actor in authors.into_iter().filter_map(|author| self.played.authors.get(author)) {
            let book = self.book(actor)?;
            for conflict in book.conflicts().all().map_err(unreadable)? {
                let words = words(&conflict);
                if best.as_ref().is_none_or(|(fewest, _)| words < *fewest) {
                    let meeting = Meeting {
                        book: book.clone(),
                        author: actor.clone(),
                        key: conflict.key.clone(),
                        conflict,
                    };
                    best = Some((words, meeting));
                }
            }
        }
        Ok(best.map(|(_, meeting)| meeting))
    }

    fn book(&self, actor: &Actor) -> Result<Book, Failure> {
        Book::open(self.books.join(file_name(actor.as_str())), options(actor)?).map_err(unreadable)
    }
}

/// A record that two people changed at the same time, and the book that settled it.
#[derive(Debug)]
pub struct Meeting {
    /// The book of the device that found it.
    pub book: Book,
    /// Whose device that is.
    pub author: Actor,
    /// The record.
    pub key: RecordKey,
    /// What was found.
    pub conflict: Conflict,
}

/// Returns how much there is to tell of a conflict. A field that was not there before, or a whole record, tells less of how
/// two changes meet, so such a conflict counts as long.
fn words(conflict: &Conflict) -> usize {
    let length =
        conflict.local.as_str().len() + conflict.remote.as_str().len() + conflict.base.as_str().len();
    let is_plain = conflict.fields.len() == 1 && !conflict.base.may_have_null();
    if is_plain { length } else { length.saturating_add(1_000_000) }
}

fn unreadable(error: fieldbook::Error) -> Failure {
    Failure::new("a book of the demo does not read").because(error)
}
