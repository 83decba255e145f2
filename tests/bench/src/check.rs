//! The check of a book against its server, over HTTP on the loopback: of equal ones, and with
//! records that were lost on their way to the book. SQLite has no such thing.
//!
//! The figures are times of whole checks, each with the exchange that asks for news first. Notes
//! have the requests and bytes of the comparison, which do not depend on the machine.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use fieldbook::sync::protocol::{CompareRequest, ExchangeRequest};
use fieldbook::sync::{BoxFuture, Difference, Received, ReceivedComparison, RemoteError};
use fieldbook::{Book, BookOptions, HttpRemote, Remote, RunOptions};
use fieldbook_server::{ServeOptions, serve};
use tokio::runtime::Runtime;

use crate::figure::{Figure, percentile};
use crate::first_sync::{failed, fill, idle, remote, runtime};
use crate::peer::{CACHE, Failure};
use crate::race::{Setting, Stopwatch};
use crate::sample::Samples;

pub(crate) const NAME: &str = "check of 100,000 records";
const RECORDS: usize = 100_000;
const ROUNDS: usize = 9;
/// The names of the figures, and how many records differ in each.
const DIFFERING: [(&str, usize); 3] = [
    ("check of 100,000, equal", 0),
    ("check of 100,000, one record differs", 1),
    ("check of 100,000, 1,000 records differ", 1_000),
];
const WRONG: Failure = Failure::Wrong { peer: "fieldbook", what: "found another difference" };

/// A server that loses the records of its pages while it is told to.
struct Losing {
    server: HttpRemote,
    loses: AtomicBool,
}

impl Remote for Losing {
    fn exchange<'a>(
        &'a self,
        request: &'a ExchangeRequest,
    ) -> BoxFuture<'a, Result<Received, RemoteError>> {
        Box::pin(async move {
            let mut received = self.server.exchange(request).await?;
            if self.loses.load(Ordering::SeqCst) {
                received.answer.changes.clear();
            }
            Ok(received)
        })
    }

    fn compare<'a>(
        &'a self,
        request: &'a CompareRequest,
    ) -> BoxFuture<'a, Result<ReceivedComparison, RemoteError>> {
        self.server.compare(request)
    }
}

/// Measures all figures on one book and one server.
pub(crate) fn measure(setting: &Setting) -> Result<Vec<Figure>, Failure> {
    let mut figures = DIFFERING.map(|(name, _)| Figure::seconds(name, None));
    if !"fieldbook".contains(&setting.peer) {
        return Ok(figures.into());
    }
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&setting.folder)?;
    let runtime = runtime()?;
    let options =
        ServeOptions::new(SocketAddr::from(([127, 0, 0, 1], 0)), folder.path().join("server.redb"));
    let server = runtime.block_on(serve(options)).map_err(failed("start"))?;
    let url = server.url();
    let mut samples = Samples::new(7);
    runtime.block_on(fill(&url, &samples.take(setting.scaled(RECORDS)), 1))?;
    let options = BookOptions::new("bench")?.cache_bytes(CACHE << 20);
    let book = Book::create_new(folder.path().join("client.book"), options)?;
    let losing = Losing { server: remote(&url)?, loses: AtomicBool::new(false) };
    idle(runtime.block_on(book.sync(&losing, &RunOptions::default()))?)?;
    losing.loses.store(true, Ordering::SeqCst);
    let mut differing = 0;
    for ((_, wanted), figure) in DIFFERING.into_iter().zip(&mut figures) {
        let more = samples.take(wanted - differing);
        // Each request has ids of its own.
        runtime.block_on(fill(&url, &more, 10 + wanted as u64))?;
        differing = wanted;
        (figure.fieldbook, figure.note) = times(&runtime, &book, &losing, wanted)?;
    }
    book.close()?;
    drop(losing);
    runtime.block_on(server.shutdown()).map_err(failed("stop"))?;
    Ok(figures.into())
}

/// Returns the median time of a check, and what its comparison sent and received.
fn times(
    runtime: &Runtime,
    book: &Book,
    remote: &Losing,
    wanted: usize,
) -> Result<(Option<f64>, Option<String>), Failure> {
    let mut found = check(runtime, book, remote, wanted)?;
    let mut seconds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let watch = Stopwatch::start();
        found = check(runtime, book, remote, wanted)?;
        seconds.push(watch.read().as_secs_f64());
    }
    let note = format!(
        "requests: {}, bytes sent: {}, received: {}",
        found.requests, found.bytes_sent, found.bytes_received
    );
    Ok((percentile(seconds, 50), Some(note)))
}

fn check(
    runtime: &Runtime,
    book: &Book,
    remote: &Losing,
    wanted: usize,
) -> Result<Difference, Failure> {
    let found = runtime.block_on(book.check(remote)).map_err(failed("compare"))?;
    if found.missing.len() == wanted && found.records() == wanted { Ok(found) } else { Err(WRONG) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_finds_what_was_lost() {
        let folder = tempfile::tempdir().unwrap();
        let setting = Setting {
            folder: folder.path().to_owned(),
            divisor: 100,
            peer: "fieldbook".to_owned(),
            way: None,
        };
        let figures = measure(&setting).unwrap();
        assert!(figures.iter().all(|figure| figure.fieldbook.is_some() && figure.note.is_some()));
    }
}
