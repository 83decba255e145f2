//! `log`: the entries of a book.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use fieldbook::Book;
use fieldbook::audit::Seq;
use fieldbook::audit::entry::{Entry, EntryKind};

use super::{head_of, look};
use crate::error::Failure;
use crate::files::{is_part, may_be_written, shown};
use crate::output::{Output, write_whole};
use crate::show::table::{Listing, Text, Tone, row};
use crate::show::{count, entry, json, progress, time};
use crate::view::Then;

/// The arguments of `log`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook log ann.book                        the last entries
  fieldbook log ann.book --from 1 --limit 0     all of them
  fieldbook log ann.book --at 14:05             the last ones before that time
  fieldbook log ann.book --json | jq -c 'select(.kind == \"upstream\")'
  fieldbook log ann.book --export ann.log       for another program to verify")]
pub(crate) struct LogArgs {
    /// The book's file
    pub(crate) book: PathBuf,
    /// The first entry to show; without it the last ones are shown
    #[arg(long, value_name = "SEQ")]
    from: Option<u64>,
    /// The most entries to show, 0 for all
    #[arg(long, value_name = "N", default_value_t = 40)]
    limit: u64,
    /// Show long values whole
    #[arg(long)]
    full: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    then: Then,
    /// Verify the log and write it to a file that other programs can verify (docs/log-format.md)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "json", "at"])]
    export: Option<PathBuf>,
    /// Overwrite the file of --export
    #[arg(long, requires = "export")]
    force: bool,
}

/// Shows or exports the log.
pub(crate) fn log(args: &LogArgs, output: &mut Output) -> Result<(), Failure> {
    let book = look(&args.book)?;
    if let Some(file) = &args.export {
        refuse_to_export_a_part(&args.book)?;
        return export(&book, file, args.force, output);
    }
    let head = args.then.of(&book, args.json, output)?.entries()?;
    let limit = if args.limit == 0 { u64::MAX } else { args.limit };
    let from = args.from.unwrap_or_else(|| head.saturating_sub(limit).saturating_add(1)).max(1);
    let to = from.saturating_add(limit - 1).min(head);
    let mut next = from;
    while next <= to {
        let entries = book
            .audit()
            .entries(Seq::new(next), usize::try_from(to - next + 1).unwrap_or(PAGE).min(PAGE))?;
        let Some(last) = entries.last() else { break };
        next = last.header.seq.number() + 1;
        if args.json {
            entries.iter().try_for_each(|entry| output.json(&json::entry(entry)))?;
        } else {
            table(&entries, args.full, output)?;
        }
    }
    if !args.json && (from > 1 || to < head) {
        match to.checked_sub(from) {
            Some(_) => writeln!(
                output,
                "entries {from} to {to} of {head}; choose others with --from and --limit"
            )?,
            None => writeln!(output, "the log ends at entry {head}")?,
        }
    }
    Ok(())
}

fn table(entries: &[Entry], full: bool, output: &mut Output) -> Result<(), Failure> {
    let mut listing = Listing::new(&[">entry", "time", "actor", "kind", "what"]).full(full);
    for entry in entries {
        let header = &entry.header;
        let told = if entry.told { ", told" } else { "" };
        let kind = Text::toned(format!("{}{told}", header.kind.as_str()), tone(header.kind));
        let actor = Text::name(&header.actor);
        row!(listing, header.seq, time::local(header.wall), actor, kind, entry::summary(entry));
    }
    listing.write(output)
}

const fn tone(kind: EntryKind) -> Tone {
    match kind {
        EntryKind::Intent => Tone::Good,
        EntryKind::Upstream => Tone::Waiting,
        EntryKind::Control => Tone::Plain,
    }
}

/// Refuses to make a log of a bundle that left something out.
fn refuse_to_export_a_part(path: &Path) -> Result<(), Failure> {
    if !is_part(path)? {
        return Ok(());
    }
    let what =
        format!("{} is a bundle with values left out, and no log can be made of it", shown(path));
    Err(Failure::new(what).hint("copy the bundle as it is, or ask for one made with --redact none"))
}

/// Verifies the log and writes it to a file.
fn export(book: &Book, file: &Path, force: bool, output: &mut Output) -> Result<(), Failure> {
    may_be_written(file, force)?;
    let bar = progress::bar(head_of(book)?, "verifying");
    let verified = book.audit().verify(|done| bar.set_position(done))?;
    bar.finish_and_clear();
    let verified = verified.into_result().map_err(|damage| {
        Failure::new("the log is damaged, so it was not exported").because(damage)
    })?;
    let spinner = progress::spinner("exporting");
    let entries = write_whole(file, force, |file| {
        let mut writer = BufWriter::new(file);
        Ok(book.audit().export(&mut writer)?)
    })?;
    spinner.finish_and_clear();
    let head = verified.head.map(|head| head.hash.to_string()).unwrap_or_default();
    writeln!(output, "{} to {}, head {head}", count(entries, "entry"), shown(file))?;
    Ok(())
}

/// How many entries are read at a time.
const PAGE: usize = 1_000;
