//! `fieldbook play`: a stream of mutations, played through one book per author. The crate `fieldbook-play` does the work.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use fieldbook_play::{MadeUp, Progress, Report, Setup, Source, generate, play};
use indicatif::ProgressBar;

use crate::error::Failure;
use crate::output::Output;
use crate::show::table::{Listing, Text, Tone};
use crate::show::{plain, progress};
use crate::temporary::Temporary;

/// What `play` is asked.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The stream, one mutation a line, gzipped or not.
    stream: PathBuf,
    /// The table that the stream comes to, one record a line, to compare the server with.
    #[arg(long, value_name = "FINAL")]
    oracle: Option<PathBuf>,
    /// A server that runs already and is empty; without it one is started for this play.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// A token that the server takes from every author.
    #[arg(long, env = "FIELDBOOK_TOKEN", hide_env_values = true, requires = "server")]
    token: Option<String>,
    /// Where to keep the books, in a new or empty folder; without it they are thrown away at the end.
    #[arg(long, value_name = "DIR")]
    books: Option<PathBuf>,
    /// What ids and salts are drawn from: the same stream and seed end the same.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Lose, double, delay and refuse what goes between devices and server, as drawn from the seed, until all is played.
    #[arg(long)]
    faults: bool,
    /// Verify every book's log and fold its tables anew at the end.
    #[arg(long)]
    check: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Write a made-up stream of so many mutations to STREAM, and what it comes to to FINAL, instead of playing.
    #[arg(long, value_name = "MUTATIONS", hide = true, requires = "oracle")]
    generate: Option<u64>,
    /// How many authors the made-up stream has.
    #[arg(long, hide = true, requires = "generate", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    devices: Option<u64>,
}

/// Runs the command.
pub(crate) fn run(args: Args, output: &mut Output) -> Result<(), Failure> {
    if let (Some(mutations), Some(oracle)) = (args.generate, &args.oracle) {
        let what = MadeUp { mutations, devices: args.devices, seed: args.seed };
        return Ok(generate(what, &args.stream, oracle)?);
    }
    let temporary = Temporary::new("fieldbook-play-")?;
    let played = play(Setup {
        stream: Source::File(args.stream),
        oracle: args.oracle.map(Source::File),
        server: args.server.map(|url| (url, args.token)),
        books: args.books,
        temporary: temporary.path().to_owned(),
        seed: args.seed,
        faults: args.faults,
        check: args.check,
        progress: Arc::new(Bar::new()),
    })?;
    if args.json {
        output.json(&played.report)?;
    } else {
        write_report(&played.report, output)?;
    }
    output.finish()?;
    verdict(&played.report)
}

/// Writes what a play came to as a table.
pub(crate) fn write_report(report: &Report, output: &mut Output) -> Result<(), Failure> {
    let mut listing = Listing::new(&["", ">", ""]);
    for row in report.rows() {
        let tone = match row.tone {
            fieldbook_play::Tone::Plain => Tone::Plain,
            fieldbook_play::Tone::Good => Tone::Good,
            fieldbook_play::Tone::Bad => Tone::Bad,
        };
        listing.row([row.name.into(), Text::toned(row.figure, tone), row.about.into()]);
    }
    listing.write(output)?;
    writeln!(output, "\nfinal state {}", report.digest)?;
    Ok(())
}

/// Returns the failure that a play that does not hold ends with.
pub(crate) fn verdict(report: &Report) -> Result<(), Failure> {
    let faults = report.faults();
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(format!("the play does not hold: {}", faults.join("; "))))
    }
}

/// Shows how far a play is.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    pub(crate) fn new() -> Self {
        Self(progress::bar(0, "playing"))
    }
}

impl Progress for Bar {
    fn begin(&self, steps: u64) {
        self.0.set_length(steps);
    }

    fn advance(&self, steps: u64) {
        self.0.inc(steps);
    }

    fn tell(&self, what: &str) {
        // The bar is not torn; and a standard error that nobody reads is no reason to stop.
        self.0.suspend(|| drop(writeln!(std::io::stderr(), "{}", plain(what))));
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}
