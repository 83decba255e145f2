//! `fieldbook play`: a stream of mutations, played through one book per author.
//!
//! ```text
//!   stream ─► schedule ─► player ─► fleet of books ─► sync ─► server
//!                                        │                      │
//!   oracle ───────────► compare ◄────────┴── census ◄───────────┘ ─► report
//! ```
//!
//! `docs/play.md` has the form of a stream and what is compared.

mod census;
mod clock;
mod compare;
mod faults;
mod fleet;
mod generate;
mod player;
mod report;
mod schedule;
mod scratch;
mod stream;
mod sync;
mod write;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use fieldbook::{Actor, Credentials, HttpOptions, HttpRemote, NoCredentials, RecordKey, Remote, Secret};
use fieldbook_server::{ServeOptions, Server, serve};
use tempfile::TempDir;

use crate::error::Failure;
use crate::output::Output;
use crate::show::progress;
use crate::stopped::take_away_when_stopped;
use census::InConflict;
use clock::VirtualClock;
use compare::ServerTable;
use fleet::Fleet;
use player::{Ending, Player};
use report::{Oracle, Unequal};
use stream::Stream;
use sync::{Link, Syncer, Traffic};
use write::Writes;

pub(crate) use fleet::{file_name, options};
pub(crate) use report::Report;
pub(crate) use stream::Source;

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
        return generate::generate(mutations, args.devices, args.seed, &args.stream, oracle);
    }
    let setup = Setup {
        stream: Source::File(args.stream),
        oracle: args.oracle.map(Source::File),
        server: args.server.map(|url| (url, args.token)),
        books: args.books,
        seed: args.seed,
        faults: args.faults,
        check: args.check,
    };
    let report = play(setup)?.report;
    if args.json {
        output.json(&report)?;
    } else {
        report.write(output)?;
    }
    output.finish()?;
    verdict(&report)
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

/// What is played, and against what.
pub(crate) struct Setup {
    pub(crate) stream: Source,
    pub(crate) oracle: Option<Source>,
    /// The address of a server that runs already, and a token for it.
    pub(crate) server: Option<(String, Option<String>)>,
    pub(crate) books: Option<PathBuf>,
    pub(crate) seed: u64,
    /// Whether things go wrong on the way to the server.
    pub(crate) faults: bool,
    pub(crate) check: bool,
}

/// What a play leaves behind.
pub(crate) struct Played {
    pub(crate) report: Report,
    pub(crate) authors: Vec<Actor>,
    /// The records that a conflict names.
    pub(crate) in_conflict: BTreeMap<RecordKey, InConflict>,
}

/// Plays a stream to its end.
pub(crate) fn play(setup: Setup) -> Result<Played, Failure> {
    // One device syncs at a time. Few threads: each keeps for itself what it once needed for the largest page.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new("cannot start the program's threads").because(error))?;
    runtime.block_on(play_within(setup))
}

#[expect(clippy::disallowed_methods, reason = "how long a play takes is real time")]
async fn play_within(setup: Setup) -> Result<Played, Failure> {
    let began = Instant::now();
    let temporary = TempDir::with_prefix("fieldbook-play-")
        .map_err(|error| Failure::new("cannot make a temporary folder").because(error))?;
    take_away_when_stopped(temporary.path().to_owned())?;
    let discard = setup.books.is_none();
    let folder = match &setup.books {
        Some(folder) => own_folder(folder)?,
        None => temporary.path().to_owned(),
    };
    let stream = Stream::index(setup.stream, temporary.path())?;
    let world = Arc::new(VirtualClock::default());
    let (server, remote) = connect(setup.server, temporary.path(), &world).await?;
    let bar = progress::bar(stream.ops + stream.authors.len() as u64, "playing");
    let mut player = Player {
        fleet: Fleet::new(&stream.authors, &folder, !discard, setup.seed),
        syncer: Syncer {
            link: Link::new(remote, setup.faults.then_some(setup.seed), Arc::clone(&world)),
            traffic: Traffic::default(),
            progress: bar,
        },
        stream,
        world,
        writes: Writes::default(),
        late_ops: 0,
    };
    expect_empty(&player).await?;
    player.play().await?;
    let (ending, table) = player.end(setup.check, discard).await?;
    player.fleet.close_all()?;
    player.syncer.progress.finish_and_clear();
    let oracle = match &setup.oracle {
        Some(oracle) => Some(judge_oracle(&player, &ending, &table, oracle).await?),
        None => None,
    };
    if let Some(server) = server {
        server
            .shutdown()
            .await
            .map_err(|error| Failure::new("the server did not stop well").because(error))?;
    }
    let mut report = report_of(&player, &ending, setup.check);
    report.records = table.len() as u64;
    report.digest = table.digest();
    report.oracle = oracle;
    report.seconds = began.elapsed().as_secs_f64();
    report.holds = report.faults().is_empty();
    Ok(Played { report, authors: player.stream.authors, in_conflict: ending.census.in_conflict })
}

async fn judge_oracle(
    player: &Player,
    ending: &Ending,
    table: &ServerTable,
    oracle: &Source,
) -> Result<Oracle, Failure> {
    let mut judged = Oracle::default();
    let Some(reader) = player.stream.authors.first() else { return Ok(judged) };
    for difference in table.compare_oracle(oracle, &player.syncer, reader).await? {
        match ending.census.in_conflict.get(&difference.key) {
            Some(conflicts) => {
                judged.fields_named += u64::from(conflicts.names_all(&difference));
                judged.explained.push(difference);
            }
            None => judged.unexplained.push(difference),
        }
    }
    Ok(judged)
}

fn report_of(player: &Player, ending: &Ending, checked: bool) -> Report {
    let census = &ending.census;
    let devices = player.stream.authors.len() as u64;
    let name = |author: usize| player.stream.authors.get(author).map(ToString::to_string).unwrap_or_default();
    let unequal: Vec<_> = ending
        .unequal
        .iter()
        .map(|(author, records)| Unequal { author: name(*author), records: records.clone() })
        .collect();
    Report {
        stream: player.stream.source().name().into_owned(),
        mutations: player.stream.ops,
        transactions: player.stream.transactions.len() as u64,
        devices,
        writes: player.writes,
        traffic: player.syncer.traffic,
        injected: player.syncer.link.faults(),
        units: census.units,
        changes: census.changes,
        coalesced_ops: census.coalesced_ops(),
        annulled_ops: census.annulled_ops,
        superseded_ops: census.superseded_ops,
        conflicts: census.conflict_counts(),
        records_in_conflict: census.in_conflict.len() as u64,
        open_conflicts: census.open_conflicts,
        dead_letters: census.dead_letters,
        pending_ops: census.pending_ops,
        late_ops: player.late_ops,
        quiet: ending.quiet,
        rounds: ending.rounds,
        records: 0,
        digest: String::new(),
        equal_devices: devices - unequal.len() as u64,
        unequal,
        oracle: None,
        checked,
        faults: ending.faults.clone(),
        log_entries: census.log_entries,
        book_bytes: census.book_bytes,
        seconds: 0.0,
        peak_memory_bytes: report::peak_memory(),
        holds: false,
    }
}

/// Makes the folder for the books, or takes one that is empty.
fn own_folder(folder: &Path) -> Result<PathBuf, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(format!("cannot use the folder {}", folder.display())).because(error)
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    if std::fs::read_dir(folder).map_err(failed)?.next().is_some() {
        return Err(Failure::new(format!("the folder {} is not empty", folder.display()))
            .hint("a play makes its books anew: name a folder that is new or empty"));
    }
    Ok(folder.to_owned())
}

/// Sets up the way to the server, and the server if none is named.
async fn connect(
    server: Option<(String, Option<String>)>,
    folder: &Path,
    world: &Arc<VirtualClock>,
) -> Result<(Option<Server>, Arc<dyn Remote>), Failure> {
    let (server, url, token) = match server {
        Some((url, token)) => (None, url, token),
        None => {
            let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let options = ServeOptions {
                clock: Some(Arc::<VirtualClock>::clone(world)),
                cache_bytes: SERVER_CACHE_BYTES,
                ..ServeOptions::new(listen, folder.join("server.redb"))
            };
            let server =
                serve(options).await.map_err(|error| Failure::new("cannot start a server").because(error))?;
            let url = server.url();
            (Some(server), url, None)
        }
    };
    let credentials: Arc<dyn Credentials> = match token {
        Some(token) => Arc::new(TokenOfAll(Secret::new(token))),
        None => Arc::new(NoCredentials),
    };
    let remote = HttpRemote::new(&url, credentials, HttpOptions::default())
        .map_err(|error| Failure::usage("the server cannot be used").because(error))?;
    Ok((server, Arc::new(remote)))
}

async fn expect_empty(player: &Player) -> Result<(), Failure> {
    let Some(reader) = player.stream.authors.first() else { return Ok(()) };
    match compare::records_before(&player.syncer, reader).await? {
        0 => Ok(()),
        _ => Err(Failure::new("the server has records already, so the end could not be compared")
            .hint("start it with a fresh store")),
    }
}

/// One token that every author sends.
struct TokenOfAll(Secret);

impl Credentials for TokenOfAll {
    fn token<'a>(&'a self, _: &'a Actor) -> Pin<Box<dyn Future<Output = Option<Secret>> + Send + 'a>> {
        Box::pin(std::future::ready(Some(self.0.clone())))
    }

    fn refresh<'a>(&'a self, _: &'a Actor) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(std::future::ready(false))
    }
}

/// How much of its store the play's own server keeps in memory.
const SERVER_CACHE_BYTES: usize = 16 * 1024 * 1024;
