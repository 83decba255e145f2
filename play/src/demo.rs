//! `fieldbook demo`: the shipped history, played against a server of its own in a temporary folder.
//!
//! It says what it does, plays, shows what came of it, and follows one record that two people changed at the same time.

use std::io::Write;

use fieldbook::entry::Winner;
use fieldbook::rows::ConflictRow;
use fieldbook::{Book, FieldsJson, RecordKey};
use tempfile::TempDir;

use crate::error::Failure;
use crate::output::Output;
use crate::play::{self, Played, Setup, Source};
use crate::show::history::Follower;
use crate::show::table::cut;
use crate::show::table::{Listing, row};
use crate::show::{name, plain, time, words};
use crate::stopped::take_away_when_stopped;

/// What `demo` is asked.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Verify every book's log and fold its tables anew at the end
    #[arg(long)]
    check: bool,
}

const STREAM: &[u8] = include_bytes!("../data/crm-history/openstates-vt-de.jsonl.gz");
const ORACLE: &[u8] = include_bytes!("../data/crm-history/openstates-vt-de.final.jsonl.gz");
/// How much of a value is shown.
const SHOWN: usize = 90;

/// Runs the command.
pub(crate) fn run(args: Args, output: &mut Output) -> Result<(), Failure> {
    writeln!(output, "{INTRODUCTION}")?;
    output.finish()?;
    let folder = TempDir::with_prefix("fieldbook-demo-")
        .map_err(|error| Failure::new("cannot make a temporary folder").because(error))?;
    take_away_when_stopped(folder.path().to_owned())?;
    let books = folder.path().join("books");
    let played = play::play(Setup {
        stream: Source::Shipped { name: "the shipped history", bytes: STREAM },
        oracle: Some(Source::Shipped { name: "the shipped table", bytes: ORACLE }),
        server: None,
        books: Some(books.clone()),
        seed: 1,
        faults: false,
        check: args.check,
    })?;
    played.report.write(output)?;
    play::verdict(&played.report)?;
    writeln!(output, "\n{}", ending(&played))?;
    let Some(meeting) = find_meeting(&played, &books)? else { return Ok(()) };
    meeting.tell(output)?;
    writeln!(output, "\n{FAREWELL}")?;
    Ok(())
}

const INTRODUCTION: &str = "\
This plays eight years of real changes: 51 people and bots kept the legislators and committees of Vermont and Delaware,
each on a device of their own, often without hearing of the others' changes for days. Every device is a book; a server
of its own runs in this program; everything is in a temporary folder. It takes some seconds.
";

const FAREWELL: &str = "\
Next: `fieldbook init ann.book`, `fieldbook put ann.book lead/42 '{\"name\":\"Ann\"}'`, `fieldbook history ann.book lead/42`.";

fn ending(played: &Played) -> String {
    let report = &played.report;
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

/// A record that two people changed at the same time, and the book that settled it.
struct Meeting {
    book: Book,
    author: String,
    key: RecordKey,
    conflict: ConflictRow,
}

/// Finds the conflict that is told in the fewest words: one field, short values, a change on either side.
fn find_meeting(played: &Played, books: &std::path::Path) -> Result<Option<Meeting>, Failure> {
    let failed = |error: fieldbook::Error| Failure::new("a book of the demo does not read").because(error);
    let mut authors: Vec<usize> =
        played.in_conflict.values().flat_map(|conflicts| conflicts.authors.iter().copied()).collect();
    authors.sort_unstable();
    authors.dedup();
    let mut best: Option<(usize, Meeting)> = None;
    for actor in authors.into_iter().filter_map(|author| played.authors.get(author)) {
        let path = books.join(play::file_name(actor.as_str()));
        let book = Book::open(path, play::options(actor)?).map_err(failed)?;
        for (_, conflict) in book.conflicts().map_err(failed)? {
            let length =
                conflict.local.as_str().len() + conflict.remote.as_str().len() + conflict.base.as_str().len();
            // A field that was not there before, or a whole record, tells less of how two changes meet.
            let is_plain = conflict.fields.len() == 1 && !conflict.base.may_have_null();
            let words = if is_plain { length } else { length.saturating_add(1_000_000) };
            if best.as_ref().is_none_or(|(fewest, _)| words < *fewest) {
                let author = actor.to_string();
                best = Some((
                    words,
                    Meeting { book: book.clone(), author, key: conflict.key.clone(), conflict },
                ));
            }
        }
    }
    Ok(best.map(|(_, meeting)| meeting))
}

impl Meeting {
    fn tell(&self, output: &mut Output) -> Result<(), Failure> {
        let failed =
            |error: fieldbook::Error| Failure::new("a book of the demo does not read").because(error);
        let Self { book, author, key, conflict } = self;
        let fields: Vec<_> = conflict.fields.iter().map(|(field, ..)| name(field)).collect();
        writeln!(output, "One record that two of them changed without hearing of each other: {}", name(key))?;
        let what =
            if fields.is_empty() { "as a whole".to_owned() } else { format!("field {}", fields.join(", ")) };
        writeln!(output, "  found by  the device of {}, {what}", name(author))?;
        writeln!(output, "  before    {}", clip(&conflict.base))?;
        let (mine, theirs) = match conflict.winner {
            Winner::Remote => ("lost", "won"),
            Winner::Local => ("won", "lost"),
            Winner::Merged | Winner::Undecided => ("met", "met"),
        };
        let (local, remote) = (conflict.edited_at.wall(), conflict.remote_edited_at.wall());
        writeln!(output, "  device    {} ({}, {mine})", clip(&conflict.local), time::local(local))?;
        writeln!(output, "  server    {} ({}, {theirs})", clip(&conflict.remote), time::local(remote))?;
        writeln!(output, "  rule      {}", words::policy(conflict.rule))?;
        let explanation = book.explain(key).map_err(failed)?;
        writeln!(output, "  status    {}", words::record(&explanation).0)?;
        writeln!(output, "\nIts history on that device, as the log has it:")?;
        let mut listing = Listing::new(&[">entry", "when", "what", "detail"]);
        let mut follower = Follower::new(key);
        for entry in book.timeline(key).map_err(failed)? {
            for event in follower.events(&entry) {
                row!(
                    listing,
                    entry.header.seq,
                    time::local(entry.header.wall),
                    event.what,
                    cut(&event.detail, SHOWN)
                );
            }
        }
        listing.write(output)
    }
}

fn clip(fields: &FieldsJson) -> String {
    cut(&plain(fields.as_str()), SHOWN)
}
