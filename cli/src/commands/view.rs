//! `view`: a page of the book's whole history, in one file, to look at in a browser.

use std::io::Write;
use std::path::{Path, PathBuf};

use fieldbook::audit::{Seq, When};

use super::look;
use crate::error::Failure;
use crate::files::{begins_like_an_exported_log, may_be_written, shown};
use crate::output::{Output, write_whole};
use crate::page::{Made, Wanted, page};
use crate::show::advice::{Advice, BOOK};
use crate::show::{count, progress};
use crate::view::{Clocks, Then};

/// The arguments of `view`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook view ann.book -o ann.html
  fieldbook view ann.log -o ann.html                 of an exported log
  fieldbook view ann.book -o ann.html --since -7d    only the last seven days

Open the file in a browser: it needs no network, and its policy forbids it one. It holds what people
typed. Treat it like the book.")]
pub(crate) struct Args {
    /// The book's file, or an exported log
    pub(crate) book: PathBuf,
    /// The page to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Overwrite the page
    #[arg(long)]
    force: bool,
    /// Begin at this moment [default: the beginning]
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    since: Option<When>,
    /// End at this moment [default: the end of the log]
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    until: Option<When>,
    /// Take long values whole, not only their beginning and their length
    #[arg(long)]
    full: bool,
}

/// The largest page that is written. A browser needs several times as much memory.
const MOST: usize = 40_000_000;

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    may_be_written(&args.output, args.force)?;
    let book = look(&args.book)?;
    let head = book.audit().head()?.map_or(Seq::ZERO, |head| head.seq);
    let then = Then::default();
    let since = args.since.as_ref().map_or(Ok(Seq::ZERO), |when| then.begin(&book, when))?;
    let until = match &args.until {
        Some(when) => then.at(&book, when)?.found().seq,
        None => head,
    };
    if since > until {
        return Err(Failure::usage("the page would end before it begins")
            .hint("--since is before --until; this lists the last entries:")
            .advise(Advice::default().run(["log", BOOK])));
    }
    let offset = match then.clocks(&book, until)? {
        Clocks::Fixed(offset) => Some(offset),
        _ => None,
    };
    let file = args.book.file_name().unwrap_or(args.book.as_os_str());
    let is_log = begins_like_an_exported_log(&args.book);
    let wanted = Wanted {
        name: file.to_string_lossy().into_owned(),
        // What helped then may not be possible now.
        path: (!is_log && until == head).then(|| args.book.clone()),
        since,
        until,
        offset,
        full: args.full,
    };
    let bar = progress::bar(until.number(), "reading");
    let made = page(&book, &wanted, |done| bar.set_position(done))?;
    bar.finish_and_clear();
    write(&args.output, args.force, &made)?;
    writeln!(
        output,
        "{} and {} in {} ({}): open it in a browser",
        count(made.entries, "entry"),
        count(made.records as u64, "record"),
        shown(&args.output),
        indicatif::HumanBytes(made.html.len() as u64),
    )?;
    if made.has_cut {
        writeln!(
            output,
            "values over 2,000 characters are cut, with their length: --full has all of them"
        )?;
    }
    Ok(())
}

/// Writes a page, unless it is too large for a browser.
pub(crate) fn write(path: &Path, force: bool, made: &Made) -> Result<(), Failure> {
    if made.html.len() > MOST {
        let size = indicatif::HumanBytes(made.html.len() as u64);
        return Err(Failure::new(format!(
            "the page would be {size}, which is too much for a browser"
        ))
        .hint("narrow it with --since or --until, or leave out --full"));
    }
    write_whole(path, force, |file| {
        let failed = |error| Failure::new(format!("cannot write {}", shown(path))).because(error);
        file.write_all(made.html.as_bytes()).map_err(failed)
    })
}
