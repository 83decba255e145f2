//! `fieldbook play`: a stream of mutations, played through one book per author. The crate
//! `fieldbook-play` does the work.

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

/// The arguments of `play`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The stream, one mutation a line, plain or gzipped.
    stream: PathBuf,
    /// The table that the stream results in, one record a line, to compare the server with.
    #[arg(long, value_name = "FINAL")]
    oracle: Option<PathBuf>,
    /// An empty server that already runs. Without it, the play starts one.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// A token that the server accepts for every author.
    #[arg(long, env = "FIELDBOOK_TOKEN", hide_env_values = true, requires = "server")]
    token: Option<String>,
    /// A new or empty folder for the books. Without it, the books are removed at the end.
    #[arg(long, value_name = "DIR")]
    books: Option<PathBuf>,
    /// The seed of ids and salts: the same stream and seed have the same result.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Lose, duplicate, delay and refuse messages between devices and server, at random from the
    /// seed, until all is played.
    #[arg(long)]
    faults: bool,
    /// Verify every book's log and fold its tables anew at the end.
    #[arg(long)]
    check: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Generate this many mutations into STREAM and the resulting table into FINAL, instead of
    /// playing.
    #[arg(long, value_name = "MUTATIONS", hide = true, requires = "oracle")]
    generate: Option<u64>,
    /// The number of authors in the generated stream.
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

/// Writes the result of a play as a table.
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

/// Returns the failure of a play, if it has one.
pub(crate) fn verdict(report: &Report) -> Result<(), Failure> {
    let faults = report.faults();
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(format!("the play failed: {}", faults.join("; "))))
    }
}

/// Shows the progress of a play.
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
        // The line must not break the bar. Standard error may be closed.
        self.0.suspend(|| drop(writeln!(std::io::stderr(), "{}", plain(what))));
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}
