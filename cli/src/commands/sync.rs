//! `sync`: sends pending ops and fetches changes, until nothing is left or something stops it.

use std::path::PathBuf;

use fieldbook::sync::{OTHER_TENANT, Resume, Stopped};
use fieldbook::{Book, RunOptions, SyncReport, SyncState, limits};
use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::at_server::{AtServer, exchange_failure};
use super::{AppRules, Viewer};
use crate::error::Failure;
use crate::output::Output;
use crate::show::advice::{Advice, BOOK};
use crate::show::table::{Listing, Text, Tone, row};
use crate::show::{count, json, progress, time, words};

/// The arguments of `sync`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook sync ann.book --server http://127.0.0.1:7070
  fieldbook sync ann.book --server https://sync.example.com --token-file ann.token --actor ann

Ops that cannot be sent stay in the book. Sync again at any time.")]
pub(crate) struct Args {
    /// The book's file
    pub(crate) book: PathBuf,
    #[command(flatten)]
    server: AtServer,
    /// Fetch only
    #[arg(long, conflicts_with = "push_only")]
    pull_only: bool,
    /// Send only
    #[arg(long)]
    push_only: bool,
    /// The most ops in one exchange
    #[arg(long, value_name = "N", default_value_t = limits::BATCH_OPS, value_parser = batch)]
    batch: usize,
    /// Resume what was parked until an upgrade of the app or the server
    #[arg(long)]
    resume: bool,
    /// Accept the different or restored server that has answered. If several have answered,
    /// `fieldbook accept-server` accepts one by name
    #[arg(long)]
    accept_server: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    viewer: Viewer,
    #[command(flatten)]
    rules: AppRules,
}

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let (book, remote) = args.server.open(&args.book, &args.viewer, &args.rules)?;
    if args.accept_server {
        super::accept::accept(&book, None)?;
    }
    if args.resume {
        book.servers().resume(Resume::Upgraded)?;
    }
    let options = RunOptions {
        batch_ops: args.batch,
        pull_only: args.pull_only,
        push_only: args.push_only,
        ..RunOptions::default()
    };
    let runtime = super::runtime()?;
    let report = runtime.block_on(async {
        let spinner = progress::spinner("syncing");
        let watching = tokio::spawn(show_progress(book.clone(), spinner.clone()));
        let report = book.sync(&remote, &options).await;
        watching.abort();
        spinner.finish_and_clear();
        report
    })?;
    let verdict = verdict(args, &book, &report);
    if args.json {
        output.json(&report_json(&book, &report))?;
    } else if report.bytes_received > 0 || report.stopped == Stopped::Idle {
        table(&book, &report, verdict.is_ok(), output)?;
    }
    output.finish()?;
    if let Some((text, advice)) = verdict? {
        crate::error::note(&text, &advice, &args.book);
    }
    Ok(())
}

async fn show_progress(book: Book, spinner: indicatif::ProgressBar) {
    let mut status = book.watch_status();
    while status.changed().await.is_ok() {
        let state = status.borrow_and_update().state.clone();
        if matches!(state, SyncState::Syncing { .. }) {
            spinner.set_message(words::of_the_book(&state));
        }
    }
}

fn table(
    book: &Book,
    report: &SyncReport,
    went_well: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let left = book.status().pending;
    let mut listing = Listing::new(match (went_well, left) {
        (false, _) => &["sync ended early", ""],
        (true, 0) => &["synced", ""],
        (true, _) => &["partly synced", ""],
    });
    let sent = match report.ops_sent {
        0 => "nothing".to_owned(),
        sent => {
            format!(
                "{} in {}, {} accepted",
                ops(sent),
                count(report.units_sent, "unit"),
                report.ops_acked
            )
        }
    };
    row!(listing, "sent", sent);
    row!(
        listing,
        "received",
        if report.changes == 0 { "nothing".to_owned() } else { count(report.changes, "change") }
    );
    if report.set_aside > 0 {
        let rows = format!("{}: this program cannot hold them", count(report.set_aside, "record"));
        row!(listing, "set aside", Text::toned(rows, Tone::Waiting));
    }
    if report.units_stale > 0 {
        row!(listing, "rebased", count(report.units_stale, "unit"));
    }
    if report.conflicts > 0 {
        row!(listing, "conflicts", Text::toned(report.conflicts, Tone::Waiting));
    }
    if report.units_isolated > 0 {
        let units = count(report.units_isolated, "unit");
        row!(listing, "not getting through", Text::toned(units, Tone::Waiting));
    }
    if report.ops_dead > 0 {
        row!(listing, "refused", Text::toned(ops(report.ops_dead), Tone::Bad));
    }
    if let Some(at) = report.next_run {
        row!(listing, "next sync due", time::local(at));
    }
    let bytes =
        format!("{} out, {} in", HumanBytes(report.bytes_sent), HumanBytes(report.bytes_received));
    row!(listing, "exchanges", format!("{} ({bytes})", report.exchanges));
    let tone = if left == 0 { Tone::Good } else { Tone::Waiting };
    row!(
        listing,
        "pending",
        Text::toned(if left == 0 { "nothing".to_owned() } else { ops(left) }, tone)
    );
    listing.write(output)
}

/// Returns the failure of a run, or a note about a run that succeeded.
fn verdict(
    args: &Args,
    book: &Book,
    report: &SyncReport,
) -> Result<Option<(String, Advice)>, Failure> {
    ended(args, report)?;
    attention(args, book)
}

/// Checks that a run ended because nothing was left to do.
fn ended(args: &Args, report: &SyncReport) -> Result<(), Failure> {
    let server = args.server.address();
    let cut_short = |why: &str| {
        Failure::new(format!("the sync with {server} ended early"))
            .because(why.to_owned())
            .hint("pending ops stay in the book: sync again")
            .advise(Advice::default().run(args.server.again("sync", &args.viewer, &[])))
    };
    match &report.stopped {
        Stopped::Idle => Ok(()),
        Stopped::Failed(failure) => {
            let (why, hint) = exchange_failure(failure);
            Err(Failure::new(format!("cannot sync with {server}")).because(why).hint(hint))
        }
        Stopped::PageRefused(failure) => {
            let why = format!(
                "something on the way blocks it because of its content: {}",
                exchange_failure(failure).0
            );
            let hint = "everything before it was read, and your changes were sent; try another network, or ask its \
                        operator: a scanner or a filter may block the page";
            Err(Failure::new(format!("a page of changes does not get through at {server}"))
                .because(why)
                .hint(hint))
        }
        Stopped::NoProgress => Err(cut_short("the server keeps answering, but nothing changes")),
        Stopped::ExchangesSpent => Err(cut_short("it reached the limit of exchanges in one run")),
        Stopped::BudgetSpent(_) | Stopped::Cancelled => Err(cut_short("it was stopped")),
        _ => Err(cut_short("it stopped for a reason that this program does not know")),
    }
}

/// Returns what a book waits for after a run: a failure, or a note.
fn attention(args: &Args, book: &Book) -> Result<Option<(String, Advice)>, Failure> {
    let server = args.server.address();
    match book.status().state {
        SyncState::NeedsAuth { code } if code == OTHER_TENANT => {
            Err(Failure::new("these credentials belong to another tenant of this server")
                .because("nothing was stored there, and nothing was read from there")
                .hint("pass a token of the book's own tenant with --token-file; your changes are kept"))
        }
        SyncState::NeedsAuth { code } => Err(Failure::new("the server requires new credentials")
            .because(code)
            .hint("pass a fresh token with --token-file; your changes are kept")),
        SyncState::NeedsUpgrade { code } => {
            Err(Failure::new("some changes wait for an upgrade of the app or the server")
                .because(code)
                .hint("your changes are kept; after the upgrade:")
                .advise(Advice::default().run(args.server.again("sync", &args.viewer, &["--resume"]))))
        }
        SyncState::NeedsServerConfirmed => Err(Failure::new(format!(
            "{server} is not the server that this book knows"
        ))
        .because("it is another server, or it was restored from a backup")
        .hint(
            "check the address: when the server that the book knows answers, the book continues by itself. \
             Only if the new server is the right one:",
        )
        .advise(accepting(args, book))),
        SyncState::NeedsAttention { .. } => Ok(Some((
            "some ops or conflicts wait for a person:".to_owned(),
            Advice::default()
                .run(["dead-letters", "list", BOOK])
                .run(["conflicts", "list", BOOK, "--open"])
                .run(["plan", BOOK]),
        ))),
        SyncState::NeedsActors { .. } => Ok(Some((
            "some ops wait for other users; this shows for whom:".to_owned(),
            Advice::default().run(["plan", BOOK]),
        ))),
        _ if book.status().pending > 0 => {
            Ok(Some(("some ops are held; this shows why:".to_owned(), Advice::default().run(["plan", BOOK]))))
        }
        _ => Ok(None),
    }
}

/// Returns the commands that accept a server that has answered. With only one, `sync` accepts it
/// and goes on.
fn accepting(args: &Args, book: &Book) -> Advice {
    match book.servers().candidates().as_slice() {
        [_] => {
            Advice::default().choose(args.server.again("sync", &args.viewer, &["--accept-server"]))
        }
        several => super::accept::choices(several),
    }
}

fn report_json(book: &Book, report: &SyncReport) -> Value {
    let (stopped, code) = match &report.stopped {
        Stopped::Idle => ("idle", None),
        Stopped::Failed(failure) => ("failed", Some(exchange_failure(failure).0)),
        Stopped::PageRefused(failure) => ("page_refused", Some(exchange_failure(failure).0)),
        Stopped::BudgetSpent(_) => ("budget_spent", None),
        Stopped::ExchangesSpent => ("exchanges_spent", None),
        Stopped::NoProgress => ("no_progress", None),
        _ => ("cancelled", None),
    };
    json!({
        "stopped": stopped,
        "why": code,
        "exchanges": report.exchanges,
        "bytes_sent": report.bytes_sent,
        "bytes_received": report.bytes_received,
        "units_sent": report.units_sent,
        "ops_sent": report.ops_sent,
        "units_acked": report.units_acked,
        "ops_acked": report.ops_acked,
        "units_stale": report.units_stale,
        "units_tried_again": report.units_tried_again,
        "units_isolated": report.units_isolated,
        "ops_dead": report.ops_dead,
        "conflicts": report.conflicts,
        "changes": report.changes,
        "set_aside": report.set_aside,
        "parked": report.parked,
        "next_run": json::moment(report.next_run),
        "pending": book.status().pending,
    })
}

fn ops(number: u64) -> String {
    count(number, "op")
}

fn batch(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(ops @ 1..=MOST_BATCH) => Ok(ops),
        _ => Err(format!("expected a number from 1 to {MOST_BATCH}")),
    }
}

/// The size limit of a request allows no more ops than this.
const MOST_BATCH: usize = 10_000;
