//! Runs that an operating system allows for a short time: they end in it, within an exchange too,
//! and nothing is lost or doubled wherever they end.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Server, TestClock, assert_sound, fields, key, view};
use fieldbook::host::{Clock, MonotonicTime, Now, SeededRandomness, WallTime};
use fieldbook::sync::protocol::ExchangeRequest;
use fieldbook::sync::{BoxFuture, Budget, Limit, Received, RemoteError, Stopped};
use fieldbook::{Book, BookOptions, Mutation, Remote, RunOptions, SyncReport};
use redb::backends::InMemoryBackend;
use serde_json::json;
use tokio::time::{Instant, sleep};

/// The time that has passed for tokio, on both clocks.
struct Passing(Instant);

impl Clock for Passing {
    fn now(&self) -> Now {
        let passed = self.0.elapsed();
        let monotonic =
            MonotonicTime::from_milliseconds(u64::try_from(passed.as_millis()).unwrap());
        Now { wall: WallTime::from_milliseconds(1_700_000_000_000).plus(passed), monotonic }
    }
}

/// A network that needs this long for a request without content, and for each change and unit.
struct Slow {
    server: Server,
    empty: Duration,
    each: Duration,
}

impl Remote for Slow {
    fn exchange<'a>(
        &'a self,
        request: &'a ExchangeRequest,
    ) -> BoxFuture<'a, Result<Received, RemoteError>> {
        let times = |count: usize| self.each * u32::try_from(count).unwrap();
        Box::pin(async move {
            sleep(self.empty + times(request.units.len())).await;
            let answer = self.server.answer(request);
            sleep(self.empty + times(answer.changes.len())).await;
            Ok(Received { answer, bytes_sent: 1, bytes_received: 1 })
        })
    }
}

fn book(actor: &str, began: Instant) -> Book {
    let seed = actor.bytes().fold(0, |seed, byte| seed * 31 + u64::from(byte));
    let options = BookOptions::new(actor).unwrap().clock(Arc::new(Passing(began)));
    let options = options.randomness(Box::new(SeededRandomness::from_number(seed)));
    Book::on_backend(InMemoryBackend::new(), options).unwrap()
}

fn create(book: &Book, records: std::ops::Range<usize>) {
    let create =
        |number| Mutation::create(key(&format!("lead/{number}")), fields(json!({"n": number})));
    book.import(records.map(create).collect()).unwrap();
}

async fn within(book: &Book, remote: &Slow, time: Duration) -> SyncReport {
    let budget = Budget { time: Some(time), ..Budget::default() };
    let options = RunOptions { batch_ops: 10, budget, ..RunOptions::default() };
    let began = Instant::now();
    let report = book.sync(remote, &options).await.unwrap();
    assert!(began.elapsed() <= time, "{time:?} became {:?}", began.elapsed());
    report
}

/// Returns a server with these records of Ben.
async fn server_of_ben(records: std::ops::Range<usize>, began: Instant) -> Server {
    let server = Server::new(&TestClock::starting());
    let ben = book("ben", began);
    create(&ben, records);
    ben.sync(&server.remote(), &RunOptions::default()).await.unwrap();
    server
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_cut_at_any_time_loses_nothing_and_doubles_nothing() {
    let milliseconds = Duration::from_millis;
    let mut cut = 0;
    for time in (0..400).step_by(7) {
        let began = Instant::now();
        let server = server_of_ben(100..130, began).await;
        let ann = book("ann", began);
        create(&ann, 0..30);
        let slow = Slow { server: server.clone(), empty: milliseconds(20), each: milliseconds(1) };
        let report = within(&ann, &slow, milliseconds(time)).await;
        if report.stopped == Stopped::BudgetSpent(Limit::Time) {
            cut += 1;
            let at_once = (!report.left.is_nothing()).then(|| Passing(began).now().wall);
            assert_eq!(report.next_run, at_once, "{report:?}");
        } else {
            assert!(report.stopped == Stopped::Idle && report.left.is_nothing(), "{report:?}");
            assert_eq!(report.next_run, None);
        }
        let report = within(&ann, &slow, milliseconds(60_000)).await;
        assert_eq!((report.stopped, ann.status().pending), (Stopped::Idle, 0));
        for number in (0..30).chain(100..130) {
            let record = format!("lead/{number}");
            assert_eq!(server.record(&record), Some(json!({"n": number})));
            assert_eq!(view(&ann, &record), Some(json!({"n": number})));
        }
        assert_eq!(ann.conflicts().count().unwrap().all, 0);
        assert_sound(&ann);
    }
    assert!(cut > 20, "{cut} runs were cut short");
}

/// 5,000 changes need 50 s over this network. A page of them, or a batch of units, would never
/// arrive in a run of 20 s.
#[tokio::test(start_paused = true)]
async fn over_a_slow_network_each_short_run_moves_on() {
    let began = Instant::now();
    let server = server_of_ben(1_000..6_000, began).await;
    let ann = book("ann", began);
    create(&ann, 0..200);
    let slow = Slow { server, empty: Duration::from_millis(300), each: Duration::from_millis(10) };
    let mut runs = 0;
    let mut before = 0;
    loop {
        runs += 1;
        let report = within(&ann, &slow, Duration::from_secs(20)).await;
        if report.stopped == Stopped::Idle {
            break;
        }
        let known = ann.audit().head().unwrap().map_or(0, |head| head.seq.number());
        assert!(known > before && runs < 10, "{runs} runs: {report:?}");
        before = known;
    }
    assert_eq!(view(&ann, "lead/5999"), Some(json!({"n": 5999})));
    assert_eq!(ann.status().pending, 0);
}
