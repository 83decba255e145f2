//! `verify` and `rebuild`: check the log and the tables, and fold the tables anew.

use std::error::Error;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use fieldbook::audit::{Examination, Finding, Hash, examine_book, rebuild_book, survey_export};
use serde_json::{Value, json};

use super::options;
use crate::error::Failure;
use crate::files;
use crate::output::Output;
use crate::show::advice::{Advice, BOOK};
use crate::show::{count, progress};

/// The arguments of `verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook verify ann.book
  fieldbook verify ann.log --head 5f0c...        a log written by `log --export`

For a book, everything is checked: the log, every row of every table, every page, and whether the book opens. No byte
changes.

An intact chain shows that nothing was changed by accident. A person who can write the file can forge all of it. A head
that was kept elsewhere detects that (--head), and so does every sync.")]
pub(crate) struct VerifyArgs {
    /// A book, or a log exported from one
    pub(crate) file: PathBuf,
    /// The hash that the last entry must have
    #[arg(long, value_name = "HASH", value_parser = hash)]
    head: Option<Hash>,
    /// Also fold the tables anew in memory, and compare them with those of the book
    #[arg(long)]
    tables: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The arguments of `rebuild`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook rebuild ann.book

The log does not change. This program does not know the indexes that an app declares. An app with indexes must fold its
tables itself afterwards (`book.audit().rebuild`).")]
pub(crate) struct RebuildArgs {
    /// The book's file
    pub(crate) book: PathBuf,
}

/// Checks a book or an exported log.
pub(crate) fn verify(args: &VerifyArgs, output: &mut Output) -> Result<(), Failure> {
    files::is_file(&args.file)?;
    let exported = is_export(&args.file)?;
    if exported && args.tables {
        return Err(Failure::usage("an exported log has no tables")
            .hint("leave --tables out, or name a book"));
    }
    let mut found =
        if exported { examine_export(&args.file)? } else { examine(&args.file, args.tables)? };
    let head = found.log.head.map_or(Hash::ZERO, |head| head.hash);
    if let Some(expected) = args.head.filter(|expected| *expected != head) {
        found.find(Finding::OtherHead { head, expected });
    }
    if args.json {
        output.json(&as_json(&found))?;
        output.finish()?;
    }
    if !found.is_sound() {
        return Err(damaged(&found, exported));
    }
    if args.json {
        return Ok(());
    }
    writeln!(output, "intact: {}, head {}", count(found.log.entries, "entry"), head)?;
    if found.log.erased_items > 0 {
        writeln!(output, "{} erased; their hashes match", count(found.log.erased_items, "item"))?;
    }
    if !exported {
        writeln!(output, "every page and every row of every table can be read")?;
    }
    if args.tables {
        writeln!(output, "the tables match the log")?;
    }
    if let Some(anchor) = found.anchor {
        writeln!(
            output,
            "according to this file, the server knows the log up to entry {}; the next sync checks this",
            anchor.seq
        )?;
    }
    Ok(())
}

/// Folds the tables anew.
pub(crate) fn rebuild(args: &RebuildArgs, output: &mut Output) -> Result<(), Failure> {
    let bar = progress::bar(0, "folding");
    let head = rebuild_book(&args.book, &options("local")?, |seq, last| {
        bar.set_length(last.number());
        bar.set_position(seq.number());
    })?;
    bar.finish_and_clear();
    writeln!(output, "folded {} anew", count(head.number(), "entry"))?;
    Ok(())
}

/// Returns whether a file begins as an exported log does.
fn is_export(path: &Path) -> Result<bool, Failure> {
    // Opening the file as a book reports why it cannot be read.
    let Ok(file) = files::open(path) else { return Ok(false) };
    let mut beginning = Vec::with_capacity(EXPORT_BEGINS.len());
    let read = file.take(EXPORT_BEGINS.len() as u64).read_to_end(&mut beginning);
    Ok(read.is_ok() && beginning == EXPORT_BEGINS)
}

fn examine_export(path: &Path) -> Result<Examination, Failure> {
    let file = files::open(path)?;
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let bar = progress::bytes(length, "verifying");
    let mut found = Examination::default();
    let log = survey_export(&mut bar.wrap_read(BufReader::new(file)), |damage| {
        found.find(Finding::from(damage))
    });
    found.log = log;
    bar.finish_and_clear();
    Ok(found)
}

fn examine(path: &Path, tables: bool) -> Result<Examination, Failure> {
    let bar = progress::bar(0, "verifying");
    let found = examine_book(path, options("local")?, tables, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    Ok(found)
}

fn as_json(found: &Examination) -> Value {
    let findings = found.findings.iter().map(|finding| {
        let (what, why) = words_of(finding);
        json!({ "entry": finding.entry(), "what": what, "why": why })
    });
    let mut value = json!({
        "ok": found.is_sound(),
        "entries": found.log.entries,
        "erased_items": found.log.erased_items,
        "head": found.log.head.map(|head| head.hash),
        "anchored": found.anchor.map(|anchor| anchor.seq),
        "findings": findings.collect::<Vec<_>>(),
        "unlisted": found.unlisted,
    });
    if let (Some(first), Some(members)) = (found.findings.first(), value.as_object_mut()) {
        let (what, why) = words_of(first);
        members.insert("entry".to_owned(), json!(first.entry()));
        members.insert("fault".to_owned(), json!(why.unwrap_or(what)));
    }
    value
}

/// Returns what was found, and why it is wrong.
fn words_of(finding: &Finding) -> (String, Option<String>) {
    if let Finding::Entry(damage) = finding {
        return (format!("entry {} is damaged", damage.seq), Some(chain_of(&damage.kind)));
    }
    (finding.to_string(), finding.source().map(chain_of))
}

/// Returns an error with its causes, in one line.
fn chain_of(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !said.ends_with(&words) {
            said = format!("{said}: {words}");
        }
        cause = error.source();
    }
    said
}

fn damaged(found: &Examination, exported: bool) -> Failure {
    let mut said = found.findings.iter().map(words_of);
    let (what, why) = said.next().unwrap_or_default();
    let mut failure = Failure::new(what);
    if let Some(why) = why {
        failure = failure.because(why);
    }
    let others =
        said.map(|(what, why)| why.map_or_else(|| what.clone(), |why| format!("{what}: {why}")));
    let unlisted = (found.unlisted > 0).then(|| count(found.unlisted, "further fault"));
    let failure = failure.also(others.chain(unlisted));
    if let [Finding::OtherHead { .. }] = found.findings.as_slice() {
        return failure.hint("the log was cut, was continued, or is another log");
    }
    if exported {
        return failure.hint("export the log again; if that fails too, the book itself is damaged");
    }
    let log_is_sound = found.log.head.is_some()
        && !found.findings.iter().any(|finding| {
            matches!(
                finding,
                Finding::Entry(_) | Finding::NotAnchored { .. } | Finding::OtherHead { .. }
            ) || finding.is_cut()
        });
    if log_is_sound {
        return failure
            .hint(
                "keep a copy of the file. The log is sound, and this folds the tables anew from it; an app with \
                 indexes must do that itself:",
            )
            .advise(Advice::default().choose(["rebuild", BOOK]));
    }
    let is_seen = found.log.head.is_some() && !found.findings.iter().any(Finding::hides_entries);
    if !is_seen {
        return failure.hint("keep the file, and restore the book from a copy that verifies; parts of this file cannot be read");
    }
    failure.hint("keep the file; every entry that is not named is intact")
}

fn hash(text: &str) -> Result<Hash, String> {
    Hash::try_from(text.to_owned()).map_err(|error| error.to_string())
}

/// The first bytes of an exported log (docs/log-format.md).
const EXPORT_BEGINS: &[u8] = b"fieldbook-log 1\n";
