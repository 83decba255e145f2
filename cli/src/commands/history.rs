//! `history`: what happened, in sentences. The sentences are the book's (`rules::story`). This
//! module chooses, lays out, and adds what to do.
//!
//! 1. The device's zone is the zone of the times, unless `--zone` names another.
//! 2. Without a record it is the last day of the device, each exchange as one paragraph.

use std::io::Write;
use std::path::PathBuf;

use fieldbook::audit::{Kind, Offsets, Paragraph, Seq, Weight, When, changes, gap, offset_shown};
use fieldbook::{Book, Error, RecordKey};
use serde_json::{Value, json};

use super::explain::what_to_do;
use super::look;
use crate::error::Failure;
use crate::output::Output;
use crate::show::advice::{Advice, BOOK};
use crate::show::history::Follower;
use crate::show::table::{Listing, Text, row, wrap};
use crate::show::{count_of, json, name, plain, time, words};
use crate::view::{Clocks, Then, View};

/// The arguments of `history`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook history ann.book lead/42
  fieldbook history ann.book                       the last day of the device
  fieldbook history ann.book --since -2h --only attention
  fieldbook history ann.book lead/42 --table       entry by entry
  fieldbook history ann.book lead/42 --json        the entries, one JSON object a line, with old and new values

Long values are told by their beginning and their length: `show`, `get --full` and --json have all of them.")]
pub(crate) struct Args {
    /// The book's file, or an exported log
    pub(crate) book: PathBuf,
    /// The record, as ENTITY/ID; without it, the device
    key: Option<RecordKey>,
    /// Begin at this moment [default: the beginning; without a record, the last day]
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    since: Option<When>,
    /// End at this moment
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    until: Option<When>,
    /// Only the last N paragraphs
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Only paragraphs with this text, in upper or lower case
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Only paragraphs of these kinds
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    only: Vec<Only>,
    /// Show a table, entry by entry
    #[arg(long)]
    table: bool,
    /// With --table, show long values whole
    #[arg(long, requires = "table")]
    full: bool,
    /// Print the entries, one JSON object a line
    #[arg(long, conflicts_with = "table")]
    json: bool,
    #[command(flatten)]
    then: Then,
}

/// The kinds of paragraphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Only {
    /// What somebody did on this device
    Edits,
    /// What the server said
    Server,
    /// What was decided
    Decisions,
    /// Conflicts, and what needs a person
    Attention,
}

impl Only {
    fn has(self, paragraph: &Paragraph) -> bool {
        match self {
            Self::Edits => paragraph.kinds.contains(&Kind::Edits),
            Self::Server => paragraph.kinds.contains(&Kind::Server),
            Self::Decisions => paragraph.kinds.contains(&Kind::Decisions),
            Self::Attention => paragraph.weight >= Weight::Lost,
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let book = look(&args.book)?;
    let view = args.then.of(&book, args.json, output)?;
    let (from, upto) = range(args, &view)?;
    if let Some(key) = &args.key
        && book.audit().timeline(key)?.is_empty()
    {
        return Err(Failure::new(format!("this book has nothing about {}", name(key)))
            .hint("this lists the records of its type:")
            .advise(Advice::default().run(["ls", BOOK, key.entity.as_str()])));
    }
    if args.json {
        return as_json(args, &book, from, upto, output);
    }
    if args.table {
        return table(args, &book, from, upto, output);
    }
    let clocks = args.then.clocks(&book, upto)?;
    time::show_in(clocks);
    let mut paragraphs = book.audit().story(args.key.as_ref(), from, upto)?;
    paragraphs.retain(|paragraph| is_wanted(args, paragraph));
    if let Some(last) = args.last {
        paragraphs.drain(..paragraphs.len().saturating_sub(last));
    }
    let explanation = args.key.as_ref().map(|key| view.explain(key)).transpose()?;
    if let Some(explanation) = &explanation {
        let now = if view.is_past() { "then" } else { "now" };
        let pending = match explanation.ops.len() {
            0 => String::new(),
            _ => {
                format!(" · {} of this device not confirmed", count_of(&explanation.ops, "change"))
            }
        };
        let state = words::record(explanation).0;
        writeln!(output, "{} · {now}: {state}{pending}", name(&explanation.key))?;
    }
    write_story(&paragraphs, output)?;
    if view.is_past() || args.until.is_some() {
        return Ok(());
    }
    match &explanation {
        Some(explanation) => what_to_do(explanation, &book.actor(), &args.book, output),
        None => what_waits(&view, args, output),
    }
}

fn is_wanted(args: &Args, paragraph: &Paragraph) -> bool {
    let has_text = |text: &String| paragraph.text().to_lowercase().contains(&text.to_lowercase());
    args.grep.as_ref().is_none_or(has_text)
        && (args.only.is_empty() || args.only.iter().any(|only| only.has(paragraph)))
}

/// Returns the first and the last entry of the history.
fn range(args: &Args, view: &View<'_>) -> Result<(Seq, Seq), Failure> {
    let book = view.book;
    let last = view.head()?.map_or(Seq::ZERO, |head| head.seq);
    let upto = match &args.until {
        Some(when) => args.then.at(book, when)?.found().seq.min(last),
        None => last,
    };
    let since = match (&args.since, &args.key) {
        (Some(when), _) => args.then.begin(book, when)?,
        (None, Some(_)) => return Ok((Seq::ZERO, upto)),
        (None, None) => {
            let end = view.head()?.map(|head| head.hlc.wall()).unwrap_or_default();
            let offset = i64::from(args.then.clocks(book, upto)?.at(end)) * 60_000;
            let day = (end.milliseconds() + offset).div_euclid(DAY) * DAY - offset;
            let before = fieldbook::host::WallTime::from_milliseconds(day - 1);
            match book.at(fieldbook::audit::Moment::Time(before)) {
                Err(Error::Trimmed { .. }) => Seq::ZERO,
                at => at?.found().seq,
            }
        }
    };
    // The moment is after an entry, so the history begins with the next one.
    Ok((since.next(), upto))
}

/// A day in milliseconds.
const DAY: i64 = 86_400_000;

/// Writes paragraphs, each with its time and its entries.
fn write_story(paragraphs: &[Paragraph], output: &mut Output) -> Result<(), Failure> {
    let width = output.width().map_or(WIDTH, usize::from).clamp(40, WIDTH);
    let (mut day, mut before) = (String::new(), None);
    for paragraph in paragraphs {
        let today = time::day(paragraph.at);
        if today != day {
            let zone = offset_shown(time::zone().at(paragraph.at));
            let zone = if zone == "+00:00" { "" } else { &zone };
            let is_known = time::zone() != Clocks::NotOnRecord;
            let of = if is_known { "" } else { "; the device's zone is not on record" };
            let first =
                if day.is_empty() { format!(", times in UTC{zone}{of}") } else { String::new() };
            writeln!(output, "{today}{first}\n")?;
            day = today;
        }
        if let Some(gap) = before.and_then(|before| gap(before, paragraph.at)) {
            writeln!(output, "   {gap}")?;
        }
        before = Some(paragraph.until);
        let entries = if paragraph.from == paragraph.to {
            paragraph.from.to_string()
        } else {
            format!("{}–{}", paragraph.from, paragraph.to)
        };
        let text = time::localised_on(&paragraph.text(), paragraph.at);
        let text = format!("{} [{entries}]", plain(&text));
        for (number, line) in wrap(&text, width - INDENT).iter().enumerate() {
            let at = if number == 0 { time::of_day(paragraph.at) } else { String::new() };
            writeln!(output, "{at:<INDENT$}{line}")?;
        }
    }
    if paragraphs.is_empty() {
        writeln!(output, "nothing happened")?;
    }
    Ok(())
}

/// The columns of a line.
const WIDTH: usize = 100;
/// The columns before the text.
const INDENT: usize = 10;

/// Writes the commands that show what waits for somebody.
fn what_waits(view: &View<'_>, args: &Args, output: &mut Output) -> Result<(), Failure> {
    let (status, conflicts) = (view.status()?, view.count_conflicts()?);
    let mut advice = Advice::default();
    if status.pending > 0 {
        advice = advice.run(["queue", BOOK]);
    }
    if status.dead_letters > 0 {
        advice = advice.run(["dead-letters", "list", BOOK]);
    }
    if conflicts.open > 0 {
        advice = advice.run(["conflicts", "list", BOOK, "--open"]);
    }
    if advice.is_empty() {
        return Ok(());
    }
    writeln!(output, "\nWhat waits:")?;
    let lines = advice.lines(Some(&args.book));
    Ok(lines.iter().try_for_each(|line| writeln!(output, "  {line}"))?)
}

/// Prints the entries, each with what it changed of the records that the app reads.
fn as_json(
    args: &Args,
    book: &Book,
    from: Seq,
    upto: Seq,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut printed = Ok(());
    book.audit().follow(args.key.as_ref(), from, upto, |entry, effects| {
        let mut value = json::entry(entry);
        let changed = effects.iter().flat_map(|effect| {
            let found = changes(effect.seen.before.as_ref(), effect.seen.after.as_ref());
            found.into_iter().map(|change| {
                json!({ "key": effect.key, "field": change.field, "old": change.old, "new": change.new })
            })
        });
        if let Value::Object(members) = &mut value {
            members.insert("changed".to_owned(), changed.collect());
        }
        if printed.is_ok() {
            printed = output.json(&value);
        }
    })?;
    printed
}

/// Shows the history entry by entry.
fn table(
    args: &Args,
    book: &Book,
    from: Seq,
    upto: Seq,
    output: &mut Output,
) -> Result<(), Failure> {
    let Some(key) = &args.key else {
        return Err(Failure::usage("--table needs a record")
            .hint("this shows all entries:")
            .advise(Advice::default().run(["log", BOOK])));
    };
    let mut follower = Follower::new(key);
    let mut listing = Listing::new(&[">entry", "time", "actor", "what", "detail"]).full(args.full);
    for entry in &book.audit().timeline(key)? {
        let header = &entry.header;
        for event in follower.events(entry) {
            if header.seq < from || header.seq > upto {
                continue;
            }
            let actor = Text::name(&header.actor);
            row!(listing, header.seq, time::local(header.wall), actor, event.what, event.detail);
        }
    }
    listing.write(output)
}
