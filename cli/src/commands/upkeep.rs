//! `verify` and `rebuild`: is the log what it was, and are the tables what follows from it?

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use fieldbook::{Damage, Hash, Seq, Verified, rebuild_book, verify_book, verify_export};
use serde_json::json;

use super::{look, open, options};
use crate::error::Failure;
use crate::output::Output;
use crate::show::{count, progress};

/// What `verify` is asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook verify ann.book
  fieldbook verify ann.log --head 5f0c...        a log written by `log --export`

An intact chain shows that nothing was changed by accident. Whoever can write the file can forge all of it: only a head
that someone else knows tells (--head, and what the server knows, which is checked for a book).")]
pub(crate) struct VerifyArgs {
    /// A book, or a log exported from one
    file: PathBuf,
    /// The hash that the last entry must have
    #[arg(long, value_name = "HASH", value_parser = hash)]
    head: Option<Hash>,
    /// Fold the tables of the book anew too and say whether they were what follows from the log
    #[arg(long)]
    tables: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What `rebuild` is asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook rebuild ann.book

The log is only read. This program does not know which indexes an app declares, so an app that does has to fold its
tables itself afterwards (`Book::rebuild`).")]
pub(crate) struct RebuildArgs {
    /// The book's file
    book: PathBuf,
}

/// Checks every hash.
pub(crate) fn verify(args: &VerifyArgs, output: &mut Output) -> Result<(), Failure> {
    let exported = is_export(&args.file)?;
    if exported && args.tables {
        return Err(
            Failure::usage("an exported log has no tables").hint("leave --tables out, or name a book")
        );
    }
    let found = if exported { verify_file(&args.file)? } else { verify_log(&args.file)? };
    let verified = match found {
        Ok(verified) => verified,
        Err(damage) => {
            if args.json {
                output
                    .json(&json!({ "ok": false, "entry": damage.seq, "fault": damage.kind.to_string() }))?;
                output.finish()?;
            }
            return Err(damaged(damage, exported));
        }
    };
    let hash = verified.head.map(|head| head.hash);
    if let Some(expected) = args.head.filter(|expected| hash != Some(*expected)) {
        return Err(Failure::new("the log does not end as expected")
            .because(format!("its head is {}, not {expected}", hash.unwrap_or(Hash::ZERO)))
            .hint("it was cut off, went on since, or is another log"));
    }
    let anchored = if exported { None } else { check_anchor(&args.file)? };
    if args.tables {
        check_tables(&args.file)?;
    }
    if args.json {
        return output.json(&json!({
            "ok": true,
            "entries": verified.entries,
            "erased_items": verified.erased_items,
            "head": hash,
            "anchored": anchored,
        }));
    }
    writeln!(output, "intact: {}, head {}", count(verified.entries, "entry"), hash.unwrap_or(Hash::ZERO))?;
    if verified.erased_items > 0 {
        writeln!(output, "{} erased, their commitments hold", count(verified.erased_items, "item"))?;
    }
    if let Some(seq) = anchored {
        writeln!(output, "the server knows it up to entry {seq}, and this is the same log")?;
    }
    if args.tables {
        writeln!(output, "the tables are what follows from the log")?;
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

/// Returns whether a file begins as exported logs do.
fn is_export(path: &Path) -> Result<bool, Failure> {
    // What cannot be read is told of by whoever opens it as a book.
    let Ok(file) = File::open(path) else { return Ok(false) };
    let mut beginning = Vec::with_capacity(EXPORT_BEGINS.len());
    let read = file.take(EXPORT_BEGINS.len() as u64).read_to_end(&mut beginning);
    Ok(read.is_ok() && beginning == EXPORT_BEGINS)
}

fn verify_file(path: &Path) -> Result<Result<Verified, Damage>, Failure> {
    let failed = |error| Failure::new(format!("cannot read {}", path.display())).because(error);
    let file = File::open(path).map_err(failed)?;
    let bar = progress::bytes(file.metadata().map_err(failed)?.len(), "verifying");
    let found = verify_export(&mut bar.wrap_read(BufReader::new(file)));
    bar.finish_and_clear();
    Ok(found)
}

fn verify_log(path: &Path) -> Result<Result<Verified, Damage>, Failure> {
    let bar = progress::bar(0, "verifying");
    let found = verify_book(path, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    Ok(found)
}

/// Compares the log with what the server said it knows of it, and returns up to where.
fn check_anchor(path: &Path) -> Result<Option<Seq>, Failure> {
    let book = look(path)?;
    let Some(anchor) = book.snapshot()?.state()?.anchor else { return Ok(None) };
    let here = book.entries(anchor.seq, 1)?.pop().filter(|entry| entry.header.seq == anchor.seq);
    if here.is_some_and(|entry| entry.hash == anchor.hash) {
        return Ok(Some(anchor.seq));
    }
    Err(Failure::new(format!("entry {} is not the one that the server knows", anchor.seq))
        .because("the chain holds, so the log was written anew, or the file is a copy of another state")
        .hint("keep the file as it is and ask whoever runs the server"))
}

fn check_tables(path: &Path) -> Result<(), Failure> {
    let book = open(path)?;
    let spinner = progress::spinner("folding the tables anew");
    let differs = book.check_tables()?;
    spinner.finish_and_clear();
    match differs {
        None => Ok(()),
        Some(table) => Err(Failure::new(format!("the table `{table}` was not what follows from the log"))
            .hint("the log is intact, and the tables have just been folded anew from it")),
    }
}

fn damaged(damage: Damage, exported: bool) -> Failure {
    let what = format!("entry {} is damaged", damage.seq);
    let failure = Failure::new(what).because(damage.kind);
    if exported {
        return failure.hint("export the log again; if that fails too, the book itself is damaged");
    }
    failure.hint("keep the file as it is; everything before that entry is as it was written")
}

fn hash(text: &str) -> Result<Hash, String> {
    Hash::try_from(text.to_owned()).map_err(|error| error.to_string())
}

/// What an exported log begins with (docs/log-format.md).
const EXPORT_BEGINS: &[u8] = b"fieldbook-log 1\n";
