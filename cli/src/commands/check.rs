//! `check`: whether a book has the records that its server has. `check-store`: whether a server's
//! store has the digests of its records.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use fieldbook::Book;
use fieldbook::sync::{
    CheckError, Difference, Differing, Mended, NotCompared, ServerState, Stopped,
};
use fieldbook_server::check_digests;
use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::at_server::{AtServer, exchange_failure};
use super::{AppRules, Viewer};
use crate::error::Failure;
use crate::files::{self, shown};
use crate::output::Output;
use crate::show::advice::{Advice, BOOK};
use crate::show::table::{Listing, Text, Tone, row};
use crate::show::{count, count_of, name, progress, some};

/// The arguments of `check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook check ann.book --server http://127.0.0.1:7070
  fieldbook check ann.book --server https://sync.example.com --token-file ann.token --actor ann
  fieldbook check ann.book --server http://127.0.0.1:7070 --mend      first without --mend, to see what differs and why

It fetches what is new first, and sends nothing. Equal books and servers need one short request more. --mend fetches
what is missing or has another version, and lets go of what the server does not have, except records with pending ops.
The log keeps all of it. The exit code is 0 if no record differs, or if all were mended.")]
pub(crate) struct Args {
    /// The book's file
    pub(crate) book: PathBuf,
    #[command(flatten)]
    server: AtServer,
    /// Mend what differs, after it was shown
    #[arg(long)]
    mend: bool,
    /// Show every record that differs
    #[arg(long)]
    full: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    viewer: Viewer,
    #[command(flatten)]
    rules: AppRules,
}

/// The arguments of `check-store`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook check-store crm.store

It reads every record. The server that serves the store has to be stopped first.")]
pub(crate) struct StoreArgs {
    /// The store's file, while no server has it open
    data: PathBuf,
}

/// The records of each kind that are shown unless all are asked for.
const SHOWN: usize = 20;

/// Runs `check`.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let (book, remote) = args.server.open(&args.book, &args.viewer, &args.rules)?;
    let runtime = super::runtime()?;
    let spinner = progress::spinner("checking");
    let checked = runtime.block_on(book.check(&remote));
    spinner.finish_and_clear();
    let difference = checked.map_err(|error| failed(args, &book, error))?;
    if !args.json {
        tell(args, &difference, output)?;
    }
    let wants_mending = args.mend && !difference.is_empty();
    let mended = wants_mending.then(|| runtime.block_on(book.mend(&remote, &difference)));
    let mended = mended.transpose();
    if args.json {
        let found = as_json(&difference);
        output.json(&with_mended(found, mended.as_ref().ok().and_then(Option::as_ref)))?;
    }
    let mended = mended.map_err(|error| failed(args, &book, error))?;
    if let Some(mended) = mended.as_ref().filter(|_| !args.json) {
        tell_mended(mended, output)?;
    }
    output.finish()?;
    verdict(args, &difference, mended.as_ref())
}

fn tell_mended(mended: &Mended, output: &mut Output) -> Result<(), Failure> {
    writeln!(output)?;
    let mut listing = Listing::new(&["mended", ""]);
    row!(listing, "fetched", count(mended.fetched, "record"));
    row!(listing, "let go", count(mended.let_go, "record"));
    if !mended.left.is_empty() {
        let left = some(mended.left.iter().map(name));
        row!(listing, "left as they are", Text::toned(left, Tone::Waiting));
    }
    listing.write(output)
}

/// Shows a difference.
fn tell(args: &Args, difference: &Difference, output: &mut Output) -> Result<(), Failure> {
    let is_equal = difference.is_empty();
    let mut listing = Listing::new(if is_equal {
        &["the book has what the server has", ""]
    } else {
        &["the book and the server differ", ""]
    });
    row!(listing, "compared", count(difference.records_compared, "record"));
    for (what, list) in kinds(difference) {
        if !list.is_empty() {
            row!(listing, what, Text::toned(count_of(list, "record"), Tone::Bad));
        }
    }
    if difference.more {
        row!(listing, "and more", "the list ends here");
    }
    if difference.pending > 0 {
        let pending = format!("{}: no difference", count(difference.pending, "record"));
        row!(listing, "pending", Text::toned(pending, Tone::Waiting));
    }
    if difference.set_aside > 0 {
        let aside = format!(
            "{}: this program cannot hold what the server has",
            count(difference.set_aside, "record")
        );
        row!(listing, "set aside", Text::toned(aside, Tone::Waiting));
    }
    for one in &difference.not_compared {
        row!(listing, "not compared", format!("{}: {}", name(&one.entity), why(one.reason)));
    }
    let bytes = format!(
        "{} ({} out, {} in)",
        difference.requests,
        HumanBytes(difference.bytes_sent),
        HumanBytes(difference.bytes_received)
    );
    row!(listing, "requests", bytes);
    listing.write(output)?;
    if is_equal {
        return Ok(());
    }
    writeln!(output)?;
    let mut listing =
        Listing::new(&["record", "is", ">in the book", ">at the server"]).full(args.full);
    let most = if args.full { usize::MAX } else { SHOWN };
    let mut hidden = 0;
    for (what, list) in kinds(difference) {
        hidden += list.len().saturating_sub(most);
        for one in list.iter().take(most) {
            let version = |version: Option<fieldbook::record::Version>| {
                version.map_or_else(|| "–".to_owned(), |version| version.to_string())
            };
            row!(listing, name(&one.key), what, version(one.book), version(one.server));
        }
    }
    listing.write(output)?;
    if hidden > 0 {
        writeln!(output, "and {} more; --full shows all", count(hidden as u64, "record"))?;
    }
    Ok(())
}

fn kinds(difference: &Difference) -> [(&'static str, &[Differing]); 3] {
    [
        ("missing", &difference.missing),
        ("extra", &difference.extra),
        ("another version", &difference.other_version),
    ]
}

const fn why(reason: NotCompared) -> &'static str {
    match reason {
        NotCompared::LocalOnly => "its records never leave the device",
        NotCompared::Undeclared => "the app does not declare it",
        NotCompared::Foreign => "this program cannot hold its name",
        _ => "for a reason that this program does not know",
    }
}

/// Returns the failure of a check that found a difference and did not mend all of it.
fn verdict(args: &Args, difference: &Difference, mended: Option<&Mended>) -> Result<(), Failure> {
    if difference.is_empty() {
        return Ok(());
    }
    if let Some(mended) = mended {
        if difference.more {
            return Err(Failure::new("more records differ than one check lists")
                .hint("this mends the next ones:")
                .advise(Advice::default().choose(args.server.again(
                    "check",
                    &args.viewer,
                    &["--mend"],
                ))));
        }
        let Some(left) = mended.left.first() else { return Ok(()) };
        let records = count_of(&mended.left, "record");
        return Err(Failure::new(format!("{records} were left as they are"))
            .hint("the server does not have them, and they have pending ops; these show them:")
            .advise(
                Advice::default().run(["explain", BOOK, &left.to_string()]).run(["queue", BOOK]),
            ));
    }
    let records = count(difference.records() as u64, "record");
    Err(Failure::new(format!("{records} of the book and the server differ"))
        .hint("a difference has a cause; the first lines look for it, the last one mends the book:")
        .advise(shows(args, difference)))
}

fn shows(args: &Args, difference: &Difference) -> Advice {
    let lists = kinds(difference);
    let mut advice =
        Advice::default().run([OsString::from("verify"), BOOK.into(), "--tables".into()]);
    if let Some(one) = lists.iter().flat_map(|(_, list)| *list).next() {
        advice = advice.run(["history", BOOK, &one.key.to_string()]);
    }
    advice.choose(args.server.again("check", &args.viewer, &["--mend"]))
}

fn failed(args: &Args, book: &Book, error: CheckError) -> Failure {
    let what = format!("cannot check the book against {}", args.server.address());
    let sync = || Advice::default().run(args.server.again("sync", &args.viewer, &[]));
    match error {
        CheckError::Book(error) => error.into(),
        CheckError::NotUpToDate { stopped: Stopped::Failed(failure) }
        | CheckError::Failed(failure) => {
            let (why, hint) = exchange_failure(&failure);
            Failure::new(what).because(why).hint(hint)
        }
        CheckError::NotUpToDate { .. } | CheckError::OtherServer => {
            let ServerState { parks, .. } = book.servers().state();
            let why = match parks.first() {
                Some(park) => format!("the book waits: {}", park.code),
                None => error.to_string(),
            };
            Failure::new(what).because(why).hint("this says what to do:").advise(sync())
        }
        CheckError::SetBack { records } => {
            let older = format!("it has older versions of {}", count_of(&records, "record"));
            Failure::new("nothing was mended: the server was set back").because(older).hint(
                "its operator runs `fieldbook restored` on the store, and each device accepts the \
                 server; if nobody set it back, the book's own tables are damaged:",
            )
            .advise(Advice::default().run(["verify", BOOK, "--tables"]).choose(["rebuild", BOOK]))
        }
        other => Failure::new(what).because(other.to_string()),
    }
}

fn with_mended(mut found: Value, mended: Option<&Mended>) -> Value {
    if let (Some(members), Some(mended)) = (found.as_object_mut(), mended) {
        let mended = json!({
            "fetched": mended.fetched, "let_go": mended.let_go, "left": mended.left,
        });
        members.insert("mended".to_owned(), mended);
    }
    found
}

fn as_json(difference: &Difference) -> Value {
    let list = |list: &[Differing]| -> Vec<Value> {
        let one =
            |one: &Differing| json!({ "key": one.key, "book": one.book, "server": one.server });
        list.iter().map(one).collect()
    };
    let reason = |reason| match reason {
        NotCompared::LocalOnly => "local_only",
        NotCompared::Undeclared => "undeclared",
        NotCompared::Foreign => "foreign",
        _ => "other",
    };
    let not_compared = difference.not_compared.iter();
    json!({
        "equal": difference.is_empty(),
        "missing": list(&difference.missing),
        "extra": list(&difference.extra),
        "other_version": list(&difference.other_version),
        "more": difference.more,
        "pending": difference.pending,
        "set_aside": difference.set_aside,
        "records_compared": difference.records_compared,
        "not_compared": not_compared
            .map(|one| json!({ "entity": one.entity, "reason": reason(one.reason) }))
            .collect::<Vec<_>>(),
        "commit": difference.commit,
        "requests": difference.requests,
        "bytes_sent": difference.bytes_sent,
        "bytes_received": difference.bytes_received,
    })
}

/// Runs `check-store`.
pub(crate) fn store(args: &StoreArgs, output: &mut Output) -> Result<(), Failure> {
    files::is_file(&args.data)?;
    let wrong = check_digests(&args.data).map_err(Failure::caused_by)?;
    if wrong.is_empty() {
        writeln!(output, "the digests of {} match its records", shown(&args.data))?;
        return Ok(());
    }
    let mut listing = Listing::new(&["tenant", "type", ">by its digest", ">counted"]);
    for one in &wrong {
        row!(listing, name(&one.tenant), name(&one.entity), one.kept, one.counted);
    }
    listing.write(output)?;
    output.finish()?;
    Err(Failure::new("some digests do not match their records")
        .hint("the store is damaged: restore a backup of it, then run `fieldbook restored`"))
}
