//! One play from its beginning to its report.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use fieldbook::{Actor, RecordKey};

use crate::census::InConflict;
use crate::clock::VirtualClock;
use crate::compare::{ServerTable, records_before};
use crate::failure::Failure;
use crate::fleet::Fleet;
use crate::player::{Ending, Player};
use crate::progress::Progress;
use crate::report::{Oracle, Report, Unequal, peak_memory};
use crate::server::connect;
use crate::source::Source;
use crate::stream::Stream;
use crate::sync::{Link, Syncer, Traffic};
use crate::write::Writes;

/// The input of a play.
pub struct Setup {
    /// The mutations.
    pub stream: Source,
    /// The table that the stream results in, to compare the server with.
    pub oracle: Option<Source>,
    /// The address of an empty server that already runs, and a token for it. Without it a server
    /// is started.
    pub server: Option<(String, Option<String>)>,
    /// A new or empty folder in which the books stay. Without it they are in `temporary`.
    pub books: Option<PathBuf>,
    /// An empty folder for files that nobody needs after the play. The caller makes and removes
    /// it.
    pub temporary: PathBuf,
    /// The seed of ids, salts and faults.
    pub seed: u64,
    /// Whether exchanges have faults on purpose.
    pub faults: bool,
    /// Whether each log is verified and each book's tables are folded anew at the end.
    pub check: bool,
    /// The receiver of the progress.
    pub progress: Arc<dyn Progress>,
}

/// The outcome of a play.
#[derive(Debug)]
pub struct Played {
    /// The counts and comparisons.
    pub report: Report,
    /// The authors, in the order of the stream.
    pub authors: Vec<Actor>,
    /// The records with a conflict.
    pub in_conflict: BTreeMap<RecordKey, InConflict>,
}

/// Plays a stream to its end. A play with a wrong result also returns: [`Report::faults`] has the
/// faults.
///
/// The call blocks. It starts threads of its own, so it must not be called from within a tokio
/// runtime.
///
/// # Errors
/// If the play cannot begin or continue: a stream or table cannot be read, a folder cannot be used,
/// or a server is not empty, stays away for a minute or requires credentials.
pub fn play(setup: Setup) -> Result<Played, Failure> {
    // One device syncs at a time. There are few threads, because each keeps the memory that it once
    // needed for the largest page.
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
    let discard = setup.books.is_none();
    let folder = match &setup.books {
        Some(folder) => own_folder(folder)?,
        None => setup.temporary.clone(),
    };
    let stream = Stream::index(setup.stream, &setup.temporary)?;
    let world = Arc::new(VirtualClock::default());
    let (server, remote) = connect(setup.server, &setup.temporary, &world).await?;
    setup.progress.begin(stream.ops + stream.authors.len() as u64);
    let mut player = Player {
        fleet: Fleet::new(&stream.authors, &folder, !discard, setup.seed),
        syncer: Syncer {
            link: Link::new(remote, setup.faults.then_some(setup.seed), Arc::clone(&world)),
            traffic: Traffic::default(),
            progress: setup.progress,
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
    player.syncer.progress.end();
    let oracle = match &setup.oracle {
        Some(oracle) => Some(judge_oracle(&player, &ending, &table, oracle).await?),
        None => None,
    };
    if let Some(server) = server {
        server
            .shutdown()
            .await
            .map_err(|error| Failure::new("the server did not stop cleanly").because(error))?;
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
    let name = |author: usize| {
        player.stream.authors.get(author).map(ToString::to_string).unwrap_or_default()
    };
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
        cancelled_ops: census.cancelled_ops,
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
        peak_memory_bytes: peak_memory(),
        holds: false,
    }
}

/// Makes the folder for the books, or accepts an empty folder.
fn own_folder(folder: &Path) -> Result<PathBuf, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(format!("cannot use the folder {}", folder.display())).because(error)
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    if std::fs::read_dir(folder).map_err(failed)?.next().is_some() {
        return Err(Failure::new(format!("the folder {} is not empty", folder.display()))
            .hint("a play makes its books anew: name a new or empty folder"));
    }
    Ok(folder.to_owned())
}

async fn expect_empty(player: &Player) -> Result<(), Failure> {
    let Some(reader) = player.stream.authors.first() else { return Ok(()) };
    match records_before(&player.syncer, reader).await? {
        0 => Ok(()),
        _ => {
            Err(Failure::new("the server already has records, so the result could not be compared")
                .hint("start it with a fresh store"))
        }
    }
}
