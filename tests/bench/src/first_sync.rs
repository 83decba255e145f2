//! The first sync: a new book fetches everything that a server has, over HTTP on the loopback; then
//! it asks once more.
//!
//! ```text
//!   bench ── embedded server, filled over the same protocol
//!     └── child process ── Book::sync through HttpRemote ── its figures as JSON on its standard output
//! ```
//!
//! The book is in its own process, so that its peak memory is not the server's. The counted bytes
//! go through a relay that only counts.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use fieldbook::audit::{DeviceId, Epoch, Hlc};
use fieldbook::host::{SeededRandomness, WallTime};
use fieldbook::record::{FieldsJson, OpId, OpKind, UnitId};
use fieldbook::sync::protocol::{ExchangeRequest, Unit, UnitChange};
use fieldbook::sync::{RequestId, Stopped};
use fieldbook::{
    Actor, Book, BookOptions, EntityType, HttpOptions, HttpRemote, RecordId, RecordKey, Remote,
    RunOptions, SyncReport,
};
use fieldbook_server::{ServeOptions, serve};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::peer::Failure;
use crate::race::{Setting, Stopwatch};
use crate::sample::{Sample, Samples};

const RECORDS: usize = 100_000;
const ROUNDS: usize = 3;
const UNITS_OF_A_REQUEST: usize = 500;

/// The cost of a first sync, and of an exchange without news after it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FirstSync {
    pub(crate) records: u64,
    pub(crate) seconds: f64,
    pub(crate) records_per_second: f64,
    /// The most memory that the client's process needed, if the system reports it.
    pub(crate) peak_bytes: Option<u64>,
    pub(crate) requests: u32,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) nothing_new: NothingNew,
}

/// An exchange with nothing new, from the first byte of a connection to its last, headers and all.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NothingNew {
    pub(crate) requests: u32,
    pub(crate) wire_bytes_sent: u64,
    pub(crate) wire_bytes_received: u64,
    pub(crate) entries_written: u64,
}

/// Measures in child processes of this program and returns the run of median speed, with the
/// highest peak of all.
pub(crate) fn measure(setting: &Setting) -> Result<FirstSync, Failure> {
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&setting.folder)?;
    let runtime = runtime()?;
    let options =
        ServeOptions::new(SocketAddr::from(([127, 0, 0, 1], 0)), folder.path().join("server.redb"));
    let server = runtime.block_on(serve(options)).map_err(failed("start"))?;
    runtime.block_on(fill(&server.url(), &Samples::new(7).take(setting.scaled(RECORDS)), 1))?;
    let mut runs = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let book = folder.path().join(format!("client-{round}.book"));
        let child = Command::new(std::env::current_exe()?)
            .args(["--first-sync-of", &server.url(), "--folder"])
            .arg(&book)
            .stderr(Stdio::inherit())
            .output()?;
        if !child.status.success() {
            return Err(Failure::Wrong { peer: "fieldbook", what: "failed in its child process" });
        }
        runs.push(serde_json::from_slice::<FirstSync>(&child.stdout)?);
    }
    runtime.block_on(server.shutdown()).map_err(failed("stop"))?;
    let peak_bytes = runs.iter().filter_map(|run| run.peak_bytes).max();
    runs.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
    let median = runs.into_iter().nth(ROUNDS / 2);
    let median = median.ok_or(Failure::Wrong { peer: "fieldbook", what: "did not run" })?;
    Ok(FirstSync { peak_bytes, ..median })
}

/// Runs the child process: syncs a new book at a path and returns the figures.
pub(crate) fn client(url: &str, path: &Path) -> Result<FirstSync, Failure> {
    let runtime = runtime()?;
    let book = Book::create_new(path, BookOptions::new("bench")?)?;
    let remote = remote(url)?;
    let watch = Stopwatch::start();
    let report = runtime.block_on(book.sync(&remote, &RunOptions::default()))?;
    let seconds = watch.read().as_secs_f64();
    let report = idle(report)?;
    let peak_bytes = peak_memory();
    Ok(FirstSync {
        records: report.changes,
        seconds,
        records_per_second: report.changes as f64 / seconds,
        peak_bytes,
        requests: report.exchanges,
        bytes_sent: report.bytes_sent,
        bytes_received: report.bytes_received,
        nothing_new: nothing_new(&runtime, &book, url)?,
    })
}

fn nothing_new(runtime: &Runtime, book: &Book, url: &str) -> Result<NothingNew, Failure> {
    let before = book.audit().head()?;
    let server = url
        .trim_start_matches("http://")
        .parse::<SocketAddr>()
        .map_err(failed("give its address"))?;
    let (report, (sent, received)) = runtime.block_on(async {
        let (relay_url, counting) = relay(server).await?;
        let remote = remote(&relay_url)?;
        let report = book.sync(&remote, &RunOptions::default()).await?;
        // Without the remote the connection ends, and with it the count.
        drop(remote);
        let counted = counting.await.map_err(failed("be counted"))??;
        Ok::<_, Failure>((idle(report)?, counted))
    })?;
    let (before, after) = (before.map(|head| head.seq), book.audit().head()?.map(|head| head.seq));
    Ok(NothingNew {
        requests: report.exchanges,
        wire_bytes_sent: sent,
        wire_bytes_received: received,
        entries_written: after.zip(before).map_or(0, |(after, before)| after.since(before)),
    })
}

/// Passes one connection on, and counts the bytes in each direction.
async fn relay(
    server: SocketAddr,
) -> Result<(String, JoinHandle<io::Result<(u64, u64)>>), Failure> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let counting = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await?;
        let mut server = TcpStream::connect(server).await?;
        tokio::io::copy_bidirectional(&mut client, &mut server).await
    });
    Ok((url, counting))
}

/// Puts records on the server as one device's units, one record each, as from an app's single
/// writes. Each call has a seed of its own, by which the units are told apart.
pub(crate) async fn fill(url: &str, records: &[Sample], seed: u64) -> Result<(), Failure> {
    let mut random = SeededRandomness::from_number(seed);
    let now = WallTime::from_milliseconds(1_760_000_000_000);
    let (device, epoch) = (DeviceId::new(now, &mut random), Epoch::new(now, &mut random));
    let (remote, actor) = (remote(url)?, Actor::parse("filler")?);
    let mut ids = SeededRandomness::from_number(seed + 1_000_000);
    for records in records.chunks(UNITS_OF_A_REQUEST) {
        let request = ExchangeRequest {
            units: records
                .iter()
                .map(|record| unit_of(record, now, &mut random))
                .collect::<Result<_, _>>()?,
            ..ExchangeRequest::new(RequestId::new(now, &mut ids), device, epoch, actor.clone())
        };
        let received = remote.exchange(&request).await.map_err(failed("take records"))?;
        if received.answer.outcomes.len() != records.len() {
            return Err(Failure::Wrong { peer: "the server", what: "did not take every record" });
        }
    }
    Ok(())
}

/// Makes a unit that creates a record.
pub(crate) fn unit_of(
    record: &Sample,
    now: WallTime,
    random: &mut SeededRandomness,
) -> Result<Unit, Failure> {
    let change = UnitChange {
        key: RecordKey::new(EntityType::parse("lead")?, RecordId::parse(&record.id)?),
        kind: OpKind::Create,
        base: None,
        ops: vec![OpId::new(now, random)],
        edited_at: Hlc::at(now),
        older: Vec::new(),
        schema_version: 1,
        fields: Some(FieldsJson::parse(&record.json)?),
    };
    Ok(Unit { id: UnitId::new(now, random), changes: vec![change], earlier_units: Vec::new() })
}

pub(crate) fn idle(report: SyncReport) -> Result<SyncReport, Failure> {
    match report.stopped {
        Stopped::Idle => Ok(report),
        _ => Err(Failure::Wrong { peer: "fieldbook", what: "did not sync to the end" }),
    }
}

pub(crate) fn remote(url: &str) -> Result<HttpRemote, Failure> {
    HttpRemote::new(url, HttpOptions::default()).map_err(failed("be reached"))
}

pub(crate) fn runtime() -> Result<Runtime, Failure> {
    Ok(Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// Returns the most memory that this process needed, if the system reports it.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

pub(crate) fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    doing: &'static str,
) -> impl Fn(E) -> Failure {
    move |source| Failure::Server { doing, source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_with_nothing_new_is_one_small_request_and_changes_no_byte_of_the_book() {
        let folder = tempfile::tempdir().unwrap();
        let (path, runtime) = (folder.path().join("client.book"), runtime().unwrap());
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let options = ServeOptions::new(listen, folder.path().join("server.redb"));
        let server = runtime.block_on(serve(options)).unwrap();
        runtime.block_on(fill(&server.url(), &Samples::new(7).take(300), 1)).unwrap();
        let synced = client(&server.url(), &path).unwrap();
        assert_eq!((synced.records, synced.requests), (300, 1));

        let book = Book::open(&path, BookOptions::new("bench").unwrap()).unwrap();
        let before = std::fs::read(&path).unwrap();
        let nothing = nothing_new(&runtime, &book, &server.url()).unwrap();
        assert!(before == std::fs::read(&path).unwrap(), "the file changed");
        assert_eq!((nothing.requests, nothing.entries_written), (1, 0));
        // From the first byte of the connection to the last, headers included. The first request of
        // a process names the cursors.
        assert!(nothing.wire_bytes_sent < 500 && nothing.wire_bytes_received < 500, "{nothing:?}");
        let nothing = nothing_new(&runtime, &book, &server.url()).unwrap();
        assert!(
            nothing.wire_bytes_sent <= 400 && nothing.wire_bytes_received <= 400,
            "{nothing:?}"
        );
        drop(book);
        runtime.block_on(server.shutdown()).unwrap();
    }
}
