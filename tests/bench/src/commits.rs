//! The server under many writers: each client sends one unit per request, over HTTP on the
//! loopback, and waits for its outcome.
//!
//! The number of units per second depends on the disk and on other processes. So the same run also
//! has one client alone: compare the ratios to that client.

use std::net::SocketAddr;

use fieldbook::audit::{DeviceId, Epoch};
use fieldbook::host::{SeededRandomness, WallTime};
use fieldbook::sync::RequestId;
use fieldbook::sync::protocol::{ExchangeRequest, Outcome, Unit};
use fieldbook::{Actor, Remote};
use fieldbook_server::{ServeOptions, serve};
use serde::Serialize;

use crate::first_sync::{failed, remote, runtime, unit_of};
use crate::peer::Failure;
use crate::race::{Setting, Stopwatch};
use crate::sample::Samples;

/// The number of clients that write at the same time, the requests of each of them in a round, and
/// the goal in units per second of all of them; none for one client.
const CLIENTS: [(usize, usize, Option<u32>); 3] =
    [(1, 400, None), (8, 200, Some(3_000)), (64, 60, Some(3_700))];
const ROUNDS: usize = 5;
/// The most time of the slowest hundredth, in medians.
const SLOWEST: f64 = 5.0;

/// The result of this many clients at the same time.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Commits {
    pub(crate) clients: usize,
    /// The median of the rounds.
    pub(crate) units_per_second: f64,
    /// How long the median request of all rounds took.
    pub(crate) median_seconds: f64,
    /// How long all but the slowest hundredth took.
    pub(crate) slowest_seconds: f64,
    /// The goal, in units per second.
    pub(crate) aim: Option<u32>,
}

impl Commits {
    /// Returns the result as a line, with the ratios to the result of one client, and the goals.
    pub(crate) fn line(&self, alone: Option<&Self>) -> String {
        let ratio = alone.map_or(1.0, |alone| self.units_per_second / alone.units_per_second);
        let aim = self.aim.map_or_else(String::new, |aim| format!(" (aim: {aim})"));
        format!(
            "{:>2} clients: {:.0} units/s{aim}, {ratio:.2} x one client; a request {:.2} ms, 99 of 100 within {:.2} ms, \
             {:.1} x (aim: {SLOWEST})",
            self.clients,
            self.units_per_second,
            self.median_seconds * 1e3,
            self.slowest_seconds * 1e3,
            self.slowest_seconds / self.median_seconds,
        )
    }
}

/// Measures each number of clients in turn, round by round, on one server.
pub(crate) fn measure(setting: &Setting) -> Result<Vec<Commits>, Failure> {
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&setting.folder)?;
    let runtime = runtime()?;
    let options =
        ServeOptions::new(SocketAddr::from(([127, 0, 0, 1], 0)), folder.path().join("server.redb"));
    let server = runtime.block_on(serve(options)).map_err(failed("start"))?;
    let mut source = Source::new();
    let mut rounds: Vec<(Vec<f64>, Vec<f64>)> = vec![Default::default(); CLIENTS.len()];
    for _ in 0..ROUNDS {
        for ((clients, requests, _), (speeds, times)) in CLIENTS.iter().zip(&mut rounds) {
            let work: Vec<_> = (0..*clients)
                .map(|_| source.requests(setting.scaled(*requests)))
                .collect::<Result<_, _>>()?;
            let units: usize = work.iter().map(Vec::len).sum();
            let watch = Stopwatch::start();
            let took = runtime.block_on(all_at_once(&server.url(), work))?;
            speeds.push(units as f64 / watch.read().as_secs_f64());
            times.extend(took);
        }
    }
    runtime.block_on(server.shutdown()).map_err(failed("stop"))?;
    let summed =
        CLIENTS.iter().zip(rounds).map(|((clients, _, aim), (mut speeds, mut times))| Commits {
            clients: *clients,
            units_per_second: part(&mut speeds, 50),
            median_seconds: part(&mut times, 50),
            slowest_seconds: part(&mut times, 99),
            aim: *aim,
        });
    Ok(summed.collect())
}

/// Makes requests of one unit, each with a new record.
struct Source {
    samples: Samples,
    random: SeededRandomness,
}

impl Source {
    fn new() -> Self {
        Self { samples: Samples::new(9), random: SeededRandomness::from_number(9) }
    }

    /// Makes the requests of one client, a device of its own, one after the other.
    fn requests(&mut self, count: usize) -> Result<Vec<ExchangeRequest>, Failure> {
        let (now, random) = (WallTime::from_milliseconds(1_760_000_000_000), &mut self.random);
        let (device, epoch) = (DeviceId::new(now, random), Epoch::new(now, random));
        let actor = Actor::parse("writer")?;
        let records = self.samples.take(count);
        let requests = records.iter().map(|record| {
            let units: Vec<Unit> = vec![unit_of(record, now, random)?];
            let empty =
                ExchangeRequest::new(RequestId::new(now, random), device, epoch, actor.clone());
            Ok(ExchangeRequest { units, ..empty })
        });
        requests.collect()
    }
}

/// Sends the requests of all clients and returns the time of each request, in seconds.
async fn all_at_once(url: &str, work: Vec<Vec<ExchangeRequest>>) -> Result<Vec<f64>, Failure> {
    let clients = work.into_iter().map(|requests| {
        let url = url.to_owned();
        tokio::spawn(async move {
            let remote = remote(&url)?;
            let mut times = Vec::with_capacity(requests.len());
            for request in requests {
                let watch = Stopwatch::start();
                let received = remote.exchange(&request).await.map_err(failed("take a unit"))?;
                times.push(watch.read().as_secs_f64());
                match received.answer.outcomes.as_slice() {
                    [told] if matches!(told.outcome, Outcome::Applied { .. }) => {}
                    _ => {
                        return Err(Failure::Wrong {
                            peer: "the server",
                            what: "did not apply a unit",
                        });
                    }
                }
            }
            Ok(times)
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await.map_err(failed("be written to"))??);
    }
    Ok(times)
}

/// Returns the value below which this many hundredths of all values are.
fn part(values: &mut [f64], hundredths: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get(last * hundredths / 100).copied().unwrap_or(f64::NAN)
}
