//! `compact`: trims the oldest entries of a log, and makes the file smaller.

use std::io::Write;
use std::path::PathBuf;

use fieldbook::Book;
use fieldbook::audit::{Compaction, CompactionPlan, KeptBack, KeptBy, Seq, When};
use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::{look, options};
use crate::error::Failure;
use crate::files::{self, is_new, shown};
use crate::output::Output;
use crate::show::table::{Listing, row};
use crate::show::{count, name, progress, time};
use crate::view::Then;

/// The arguments of `compact`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook compact ann.book --trim-before -90d --dry-run
  fieldbook compact ann.book --trim-before -90d --archive ann-1.fblog.gz
  fieldbook history ann.book lead/42 --with-archive ann-1.fblog.gz

What was confirmed, waits, failed or is undecided stays, and so does everything behind the oldest change that has not
ended. Only the history before goes: the records as they were then stand in its place. Entries go only once the server has
confirmed that it knows them; a book whose server confirms nothing, or that has none, needs an archive. The archive is
written and verified before the book changes.")]
pub(crate) struct Args {
    /// The book's file
    pub(crate) book: PathBuf,
    /// Trim what came before this moment: an entry (40), a time (2026-11-28), a span before the end of
    /// the log (-90d)
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    trim_before: When,
    /// Write the trimmed entries to this new file first; compressed if its name ends in .gz
    #[arg(long, value_name = "FILE")]
    archive: Option<PathBuf>,
    /// Write nothing: say what would go, and how much
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Trims a log.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let book = look(&args.book)?;
    if files::begins_like_an_exported_log(&args.book) {
        return Err(Failure::new(format!("{} is an exported log", shown(&args.book)))
            .hint("only a book can be compacted"));
    }
    args.archive.as_deref().map_or(Ok(()), is_new)?;
    let mut how = Compaction::before(Then::default().moment(&book, &args.trim_before)?);
    if let Some(path) = &args.archive {
        how = how.archive_to(path);
    }
    let before = book.audit().used_bytes()?;
    let head = book.audit().head()?.map_or(0, |head| head.seq.number());
    let bar = progress::bar(head, "folding");
    let step = |seq: Seq| bar.set_position(seq.number());
    let plan = if args.dry_run {
        book.plan_compaction(&how, step)?
    } else {
        drop(book);
        Book::open(&args.book, options("local")?.without_app_rules())?.compact(&how, step)?
    };
    bar.finish_and_clear();
    let after = std::fs::metadata(&args.book).map_or(before, |metadata| metadata.len());
    if args.json {
        return output.json(&as_json(&plan, args.dry_run, before, after));
    }
    tell(args, &plan, before, after, output)
}

fn tell(
    args: &Args,
    plan: &CompactionPlan,
    before: u64,
    after: u64,
    output: &mut Output,
) -> Result<(), Failure> {
    let Some(upto) = plan.upto else {
        writeln!(output, "nothing to trim up to entry {}", plan.wanted)?;
        return tell_kept(plan, output);
    };
    let heads: &'static [&'static str] = if args.dry_run { &["would", ""] } else { &["done", ""] };
    let mut listing = Listing::new(heads);
    let at = plan.at.map(time::local).unwrap_or_default();
    row!(listing, "trims up to", format!("entry {upto}, of {at}"));
    row!(listing, "goes", format!("{}, {}", count(plan.entries, "entry"), HumanBytes(plan.bytes)));
    let baseline =
        format!("{}, {}", count(plan.records, "record"), HumanBytes(plan.baseline_bytes));
    row!(listing, "in their place", baseline);
    if let Some(path) = &args.archive {
        let sum = plan.archive.map_or_else(String::new, |sum| format!(", sum {sum}"));
        row!(listing, "archive", format!("{}{sum}", shown(path)));
    }
    if !args.dry_run {
        row!(listing, "file", format!("{} before, {} now", HumanBytes(before), HumanBytes(after)));
    }
    listing.write(output)?;
    tell_kept(plan, output)
}

/// Says why less is trimmed than was asked for.
fn tell_kept(plan: &CompactionPlan, output: &mut Output) -> Result<(), Failure> {
    let Some(kept) = &plan.kept_by else { return Ok(()) };
    writeln!(output, "\nkept: {}", words_of(kept))?;
    Ok(())
}

fn words_of(kept: &KeptBack) -> String {
    match kept {
        KeptBack::Live(KeptBy::Op { key, place, dead: true }) => format!(
            "everything from change {place} of {} on: the server refused it, and somebody has to decide",
            name(key)
        ),
        KeptBack::Live(KeptBy::Op { key, place, .. }) => {
            format!("everything from change {place} of {} on, which the server does not have", name(key))
        }
        KeptBack::Live(KeptBy::Unit { planned, .. }) => {
            format!("everything from entry {planned} on, which planned a unit without an answer")
        }
        KeptBack::Live(KeptBy::Conflict { key, id }) => {
            format!("everything from conflict {id} of {} on, which somebody has to decide", name(key))
        }
        KeptBack::Live(KeptBy::Undeclared { key }) => {
            format!("what came before {} was adopted: a later version of the app declared it", name(key))
        }
        KeptBack::Live(_) => "all: another server was accepted, and was not read to its end".to_owned(),
        KeptBack::NotAnchored { anchored: Some(seq) } => format!(
            "what came after entry {seq}, the last one that the server has confirmed to know: sync first"
        ),
        KeptBack::NotAnchored { anchored: None } => {
            "all: no server has confirmed that it knows the log. Sync, or make an archive (--archive)".to_owned()
        }
        _ => "all: the records would need as much space as their history".to_owned(),
    }
}

fn as_json(plan: &CompactionPlan, dry_run: bool, before: u64, after: u64) -> Value {
    json!({
        "dry_run": dry_run,
        "upto": plan.upto,
        "at": plan.at.map(time::utc),
        "wanted": plan.wanted,
        "entries": plan.entries,
        "bytes": plan.bytes,
        "records": plan.records,
        "baseline_bytes": plan.baseline_bytes,
        "kept": plan.kept_by.as_ref().map(words_of),
        "archive": plan.archive,
        "file_bytes_before": before,
        "file_bytes": after,
    })
}
