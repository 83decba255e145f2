//! `backup`, `verify` and `rebuild`: copy a book, check the log and the tables, and fold the tables
//! anew.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};

use fieldbook::audit::{Examination, Finding, Hash, examine_book, rebuild_book, survey_export};
use serde_json::{Value, json};

use super::evidence::Trust;
use super::options;
use super::standing::{Answered, AskServer};
use crate::error::{Failure, export_again};
use crate::files;
use crate::output::Output;
use crate::show::advice::{Advice, BOOK};
use crate::show::{count, progress};

/// The arguments of `verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook verify ann.book
  fieldbook verify ann.log --head 5f0c...        a log written by `log --export`
  fieldbook verify ann.bundle                    a bundle for support: what it leaves out is counted
  fieldbook verify ann.book --key sync.example.com+9f2c41aa+... --require anchored
  fieldbook verify ann.book --server https://sync.example.com --token-file ann.token

For a book, everything is checked: the log, every row of every table, every page, and whether the book opens. No byte
changes.

An intact chain shows that nothing was changed by accident (`chained`). A person who can write the file can forge all of
it. A head that was kept elsewhere detects that (--head), and so does every sync, and so does a receipt that the server
signed: with the server's public key, as its owner told you (--key), entries are `anchored`. They were so when it signed.
With a key of the device they are `signed`: this says who, not when. A key that only the file names proves nothing.

With --server, the server of the book says whether it knows this log: up to which entry, whether this is an older copy, or
whether the log was forked or rewritten (exit code 1). It is asked one question, and nothing changes.")]
pub(crate) struct VerifyArgs {
    /// A book, a log exported from one, or a bundle
    pub(crate) file: PathBuf,
    /// The hash that the last entry must have
    #[arg(long, value_name = "HASH", value_parser = hash)]
    head: Option<Hash>,
    /// Also fold the tables anew in memory, and compare them with those of the book
    #[arg(long)]
    tables: bool,
    #[command(flatten)]
    trust: Trust,
    #[command(flatten)]
    asked: AskServer,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The arguments of `rebuild`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook rebuild ann.book

The log does not change. The indexes of the app are built anew too, by their shapes in the book.")]
pub(crate) struct RebuildArgs {
    /// The book's file
    pub(crate) book: PathBuf,
}

/// The arguments of `backup`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook backup ann.book ann.backup
  fieldbook verify ann.backup --tables

The copy has everything that was written before, and opens by itself. An app makes one while it writes, by
`book.audit().backup`. Never sync both the book and its backup: they are one device. A server makes a backup of its
store itself: fieldbook serve --help.")]
pub(crate) struct BackupArgs {
    /// The book's file
    pub(crate) book: PathBuf,
    /// The new file
    copy: PathBuf,
}

/// Copies a book into a new file.
pub(crate) fn backup(args: &BackupArgs, output: &mut Output) -> Result<(), Failure> {
    let bar = progress::bar(0, "copying");
    let book = super::look(&args.book)?;
    let rows = book.audit().backup(&args.copy, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    let head = book.audit().head()?.map_or(0, |head| head.seq.number());
    writeln!(
        output,
        "{}: {}, {}",
        files::shown(&args.copy),
        count(head, "entry"),
        count(rows, "row")
    )?;
    Ok(())
}

/// Checks a book or an exported log.
pub(crate) fn verify(args: &VerifyArgs, output: &mut Output) -> Result<(), Failure> {
    files::is_file(&args.file)?;
    let exported = files::begins_like_an_exported_log(&args.file);
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
    // Notes say nothing about a log whose hashes do not match.
    let weighed = if found.is_sound() {
        Some(args.trust.weigh(&args.file, exported, &mut found)?)
    } else {
        None
    };
    let answered = if found.is_sound() { args.asked.ask(&args.file)? } else { None };
    if args.json {
        let mut value = as_json(&found);
        weighed.iter().for_each(|weighed| weighed.add_to(&mut value));
        answered.iter().for_each(|answered| answered.add_to(&mut value));
        output.json(&value)?;
        output.finish()?;
    }
    let Some(weighed) = weighed.filter(|_| found.is_sound()) else {
        return Err(damaged(&found, &args.file, exported));
    };
    let check = || {
        answered.as_ref().map_or(Ok(()), Answered::check)?;
        weighed.check()
    };
    if args.json {
        return check();
    }
    tell_of_log(&found, exported, output)?;
    if args.tables {
        writeln!(output, "the tables match the log")?;
    }
    weighed.tell(output)?;
    if let Some(answered) = &answered {
        answered.tell(output)?;
    } else if let Some(anchor) = found.anchor {
        writeln!(
            output,
            "The next sync compares entry {} with the one that the server has.",
            anchor.seq
        )?;
    }
    output.finish()?;
    check()
}

/// Says what was found in a sound log.
fn tell_of_log(found: &Examination, exported: bool, output: &mut Output) -> Result<(), Failure> {
    let head = found.log.head.map_or(Hash::ZERO, |head| head.hash);
    writeln!(output, "intact: {}, head {head}", count(found.log.entries, "entry"))?;
    if let Some(upto) = found.log.trimmed {
        writeln!(
            output,
            "entries up to {} were trimmed; a baseline stands in their place, and an entry behind it names it",
            upto.seq
        )?;
    }
    if found.log.erased_items > 0 {
        writeln!(output, "{} erased; their hashes match", count(found.log.erased_items, "item"))?;
    }
    if found.log.hidden_items > 0 {
        let left_out = count(found.log.hidden_items, "item");
        writeln!(output, "{left_out} left out of this bundle; their hashes match")?;
    }
    if !exported {
        writeln!(output, "every page and every row of every table can be read")?;
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

/// Checks every hash of an exported log or of a bundle.
pub(super) fn examine_export(path: &Path) -> Result<Examination, Failure> {
    let file = files::open(path)?;
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let bar = progress::bytes(length, "verifying");
    let mut found = Examination::default();
    let failed = |error| Failure::new(format!("cannot read {}", files::shown(path))).because(error);
    let mut log = files::log_in(bar.wrap_read(file)).map_err(failed)?;
    let log = survey_export(&mut log, |damage| found.find(Finding::from(damage)));
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
        "hidden_items": found.log.hidden_items,
        "told_entries": found.log.told_entries,
        "trimmed": found.log.trimmed.map(|upto| upto.seq),
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
pub(crate) fn words_of(finding: &Finding) -> (String, Option<String>) {
    if let Finding::Entry(damage) = finding {
        return (format!("entry {} is damaged", damage.seq), Some(chain_of(&damage.kind)));
    }
    (finding.to_string(), finding.source().map(chain_of))
}

/// Returns an error with its causes, in one line.
fn chain_of(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

fn damaged(found: &Examination, file: &Path, exported: bool) -> Failure {
    let mut findings = found.findings.iter().map(words_of);
    let (what, why) = findings.next().unwrap_or_default();
    let mut failure = Failure::new(what);
    if let Some(why) = why {
        failure = failure.because(why);
    }
    let others = findings
        .map(|(what, why)| why.map_or_else(|| what.clone(), |why| format!("{what}: {why}")));
    let unlisted = (found.unlisted > 0).then(|| count(found.unlisted, "further fault"));
    let failure = failure.also(others.chain(unlisted));
    if found.findings.iter().all(Finding::is_of_a_note) {
        return failure.hint(
            "every hash matches, so nothing changed by accident: somebody wrote the log or the notes anew. Keep the \
             file, and compare it with a backup",
        );
    }
    if let [Finding::OtherHead { .. }] = found.findings.as_slice() {
        return failure.hint("the log was cut, was continued, or is another log");
    }
    if exported {
        return failure.hint(export_again(file));
    }
    if found.log_is_sound() {
        return failure
            .hint(
                "keep a copy of the file. The log is sound, and this folds the tables anew from it:",
            )
            .advise(Advice::default().choose(["rebuild", BOOK]));
    }
    let salvage = Advice::default().choose(["salvage", BOOK, "new.book"]);
    let is_seen = found.log.head.is_some() && !found.findings.iter().any(Finding::hides_entries);
    if !is_seen {
        return failure
            .hint(
                "keep the file; parts of it cannot be read. Restore the book from a backup that verifies, or make a \
                 new book of what is left in the file:",
            )
            .advise(salvage);
    }
    failure
        .hint(
            "keep the file; every entry that is not named is intact. This makes a new book of what is left in it:",
        )
        .advise(salvage)
}

fn hash(text: &str) -> Result<Hash, String> {
    Hash::try_from(text.to_owned()).map_err(|error| error.to_string())
}
