//! The demo: the shipped history, played against a temporary server, and one record that two people
//! changed at the same time.

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

/// A demo that was played. Its books exist as long as the folder.
#[derive(Debug)]
pub struct Demo {
    /// The result of the play.
    pub played: Played,
    books: PathBuf,
}

/// Plays the shipped history in an empty folder, which the caller makes and removes. `check` is as
/// in [`Setup::check`].
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
    /// An introduction to read before the play.
    pub const INTRODUCTION: &str = "\
This plays eight years of real changes. 51 people and bots edited the legislators and committees of Vermont and
Delaware, each on an own device, often without a sync for days. Each device has a book. The server runs in this
program, and all files are in a temporary folder. The demo takes some seconds; ctrl-C stops it.
";

    /// Returns the result in one sentence.
    pub fn ending(&self) -> String {
        let report = &self.played.report;
        let except = match report.oracle.as_ref().map_or(0, |oracle| oracle.explained.len()) {
            0 => String::new(),
            1 => ", except 1 that a recorded conflict explains".to_owned(),
            explained => format!(", except {explained} that recorded conflicts explain"),
        };
        format!(
            "All {} devices have the same {} records as the server. They equal the last state of the history{except}.",
            report.devices, report.records
        )
    }

    /// Finds the conflict with the shortest description: one field, short values, a change on
    /// either side.
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

/// A record that two people changed at the same time, and the book that resolved the conflict.
#[derive(Debug)]
pub struct Meeting {
    /// The book of the device that found the conflict.
    pub book: Book,
    /// The author of that device.
    pub author: Actor,
    /// The record.
    pub key: RecordKey,
    /// The conflict.
    pub conflict: Conflict,
}

/// Returns the length of a conflict's description. A new field, or a whole record, shows two
/// changes less clearly, so such a conflict counts as long.
fn words(conflict: &Conflict) -> usize {
    let length = conflict.local.as_str().len()
        + conflict.remote.as_str().len()
        + conflict.base.as_str().len();
    let is_plain = conflict.fields.len() == 1 && !conflict.base.may_have_null();
    if is_plain { length } else { length.saturating_add(1_000_000) }
}

fn unreadable(error: fieldbook::Error) -> Failure {
    Failure::new("a book of the demo cannot be read").because(error)
}
