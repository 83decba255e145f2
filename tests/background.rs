//! Syncing in the background, in tokio's paused time: waits take no time, and their lengths are
//! exact.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Server, TestClock, assert_sound, fields, key, options};
use fieldbook::host::{Clock, MonotonicTime, Now, WallTime};
use fieldbook::sync::protocol::{ExchangeRequest, Failure, Outcome, UnitOutcome};
use fieldbook::sync::{FnRemote, Received, RemoteError, Resume, WorkerError};
use fieldbook::{
    Book, BookOptions, EntityRules, Error, Remote, RunOptions, Schema, SyncHandle, SyncState,
    WorkerOptions,
};
use serde_json::json;
use tokio::time::{Instant, sleep};

/// A clock that follows tokio's paused time.
struct PausedClock(Instant);

impl Clock for PausedClock {
    fn now(&self) -> Now {
        let passed = u64::try_from(self.0.elapsed().as_millis()).unwrap();
        Now {
            wall: WallTime::from_milliseconds(1_700_000_000_000 + i64::try_from(passed).unwrap()),
            monotonic: MonotonicTime::from_milliseconds(passed),
        }
    }
}

/// A server whose answers a test sets.
#[derive(Clone)]
struct World {
    server: Server,
    failure: Arc<Mutex<Option<Failure>>>,
    /// The outcome of every unit, in place of the server's outcome.
    outcome: Arc<Mutex<Option<Outcome>>>,
    /// The number of exchanges so far, and the number of running ones.
    asked: Arc<AtomicUsize>,
    at_once: Arc<AtomicUsize>,
    takes: Duration,
}

impl World {
    fn new() -> Self {
        Self {
            server: Server::new(&TestClock::starting()),
            failure: Arc::default(),
            outcome: Arc::default(),
            asked: Arc::default(),
            at_once: Arc::default(),
            takes: Duration::from_millis(5),
        }
    }

    fn fails(&self, failure: Option<Failure>) {
        *self.failure.lock().unwrap() = failure;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn record(&self, record: &str) -> Option<serde_json::Value> {
        self.server.record(record)
    }

    fn answer(&self, request: &ExchangeRequest) -> Result<Received, RemoteError> {
        if let Some(failure) = self.failure.lock().unwrap().clone() {
            return Err(failure.into());
        }
        let mut request = request.clone();
        let outcome = self.outcome.lock().unwrap().clone();
        let units = if outcome.is_some() { std::mem::take(&mut request.units) } else { Vec::new() };
        let mut answer = self.server.answer(&request);
        answer.outcomes.extend(
            units
                .into_iter()
                .zip(outcome.into_iter().cycle())
                .map(|(unit, outcome)| UnitOutcome { unit: unit.id, outcome }),
        );
        Ok(Received { answer, bytes_sent: 0, bytes_received: 0 })
    }
}

impl Remote for World {
    fn exchange<'a>(
        &'a self,
        request: &'a ExchangeRequest,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Received, RemoteError>> + Send + 'a>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            assert_eq!(self.at_once.fetch_add(1, Ordering::SeqCst), 0, "one exchange at a time");
            sleep(self.takes).await;
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            self.answer(request)
        })
    }
}

fn with_clock() -> BookOptions {
    options("ann", &TestClock::starting()).clock(Arc::new(PausedClock(Instant::now())))
}

fn open(options: BookOptions) -> Book {
    Book::on_backend(redb::backends::InMemoryBackend::new(), options).unwrap()
}

fn start(book: &Book, world: &World) -> SyncHandle {
    book.keep_syncing(Arc::new(world.clone()), WorkerOptions::default()).unwrap()
}

fn create(book: &Book, record: &str) {
    book.records().create(key(record), fields(json!({"name": "x"}))).unwrap();
}

fn transient(retry_after: u64) -> Failure {
    Failure::Transient {
        code: "busy".to_owned(),
        retry_after: Some(Duration::from_secs(retry_after)),
        marked: true,
    }
}

async fn shortly() {
    sleep(Duration::from_millis(100)).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_written_reaches_the_server_by_itself_and_a_run_does_not_wake_the_next() {
    let (book, world) = (open(with_clock()), World::new());
    let sync = start(&book, &world);
    shortly().await;
    assert_eq!(world.asked(), 1, "it looks at once");
    create(&book, "lead/1");
    shortly().await;
    assert_eq!(world.record("lead/1"), Some(json!({"name": "x"})));
    assert_eq!(world.asked(), 2);
    assert_eq!((book.status().state, book.status().pending), (SyncState::Idle, 0));
    sleep(Duration::from_secs(130)).await;
    assert_eq!(world.asked(), 4, "then it looks now and then");
    sync.shutdown().await.unwrap();
    assert_sound(&book);
}

#[tokio::test(start_paused = true)]
async fn what_is_written_during_a_run_is_sent_after_it() {
    let (book, mut world) = (open(with_clock()), World::new());
    world.takes = Duration::from_secs(2);
    let sync = start(&book, &world);
    for n in 0..5 {
        sleep(Duration::from_millis(700)).await;
        create(&book, &format!("lead/{n}"));
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!(book.status().pending, 0);
    sync.shutdown().await.unwrap();
    assert_sound(&book);
}

#[tokio::test(start_paused = true)]
async fn being_offline_shows_and_ends_by_itself_with_everything_sent() {
    let (book, world) = (open(with_clock()), World::new());
    world.fails(Some(Failure::Unreachable { code: "dns" }));
    let sync = start(&book, &world);
    for n in 0..20 {
        create(&book, &format!("lead/{n}"));
        sleep(Duration::from_secs(600)).await;
        assert_eq!(book.status().state, SyncState::Offline { code: "dns".to_owned() });
    }
    assert_eq!(book.status().pending, 20, "no try is used up");
    world.fails(None);
    sleep(Duration::from_secs(301)).await;
    assert_eq!((book.status().state, book.status().pending), (SyncState::Idle, 0));
    sync.shutdown().await.unwrap();
    assert_sound(&book);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_time_gets_it_however_much_is_written() {
    let (book, world) = (open(with_clock()), World::new());
    world.fails(Some(transient(300)));
    let sync = start(&book, &world);
    shortly().await;
    let SyncState::BackingOff { until } = book.status().state else {
        panic!("{:?}", book.status())
    };
    assert_eq!(until.milliseconds() / 1_000, 1_700_000_300);
    for n in 0..5 {
        create(&book, &format!("lead/{n}"));
        sleep(Duration::from_secs(50)).await;
        assert_eq!(world.asked(), 1);
        assert_eq!(
            book.status().state,
            SyncState::BackingOff { until },
            "a write does not make it look idle"
        );
    }
    world.fails(None);
    sleep(Duration::from_secs(60)).await;
    assert_eq!((book.status().state, book.status().pending), (SyncState::Idle, 0));
    sync.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_the_server_put_off_shows_as_backing_off_and_goes_when_it_is_due() {
    let (book, world) = (open(with_clock()), World::new());
    *world.outcome.lock().unwrap() = Some(Outcome::Transient {
        code: "locked".to_owned(),
        message: String::new(),
        retry_after_milliseconds: Some(20_000),
    });
    let sync = start(&book, &world);
    create(&book, "lead/1");
    shortly().await;
    let SyncState::BackingOff { until } = book.status().state else {
        panic!("{:?}", book.status())
    };
    assert_eq!(until.milliseconds() / 1_000, 1_700_000_020);
    *world.outcome.lock().unwrap() = None;
    sleep(Duration::from_secs(15)).await;
    assert_eq!(book.status().pending, 1);
    sleep(Duration::from_secs(10)).await;
    assert_eq!((book.status().state, book.status().pending), (SyncState::Idle, 0));
    sync.shutdown().await.unwrap();
    assert_sound(&book);
}

#[tokio::test(start_paused = true)]
async fn new_credentials_are_used_at_once() {
    let (book, world) = (open(with_clock()), World::new());
    world.fails(Some(Failure::Unauthorized { code: "expired".to_owned() }));
    let sync = start(&book, &world);
    create(&book, "lead/1");
    sleep(Duration::from_secs(30)).await;
    assert_eq!(book.status().state, SyncState::NeedsAuth { code: "expired".to_owned() });
    assert_eq!(world.asked(), 1, "the server is not hammered meanwhile");
    world.fails(None);
    book.servers().resume(Resume::Authenticated).unwrap();
    shortly().await;
    assert_eq!((book.status().state, book.status().pending), (SyncState::Idle, 0));
    sync.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_shows_when_the_run_is_over_and_a_retry_of_it_goes_at_once() {
    let (book, world) = (open(with_clock()), World::new());
    *world.outcome.lock().unwrap() =
        Some(Outcome::Rejected { code: "forbidden".to_owned(), message: String::new() });
    let sync = start(&book, &world);
    create(&book, "lead/1");
    shortly().await;
    assert_eq!(
        book.status().state,
        SyncState::NeedsAttention { dead_letters: 1, conflicts: 0, parked: 0, held: 0 }
    );
    *world.outcome.lock().unwrap() = None;
    book.dead_letters()
        .retry(book.dead_letters().all().unwrap().iter().map(|letter| letter.op).collect())
        .unwrap();
    shortly().await;
    assert_eq!((book.status().state, book.status().pending), (SyncState::Idle, 0));
    sync.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_can_still_be_undone_leaves_when_it_no_longer_can() {
    let rules = EntityRules { undo_window: Duration::from_secs(5), ..EntityRules::default() };
    let (book, world) = (open(with_clock().schema(Schema::open(rules))), World::new());
    let sync = start(&book, &world);
    create(&book, "lead/1");
    sleep(Duration::from_secs(4)).await;
    assert_eq!(book.status().pending, 1);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(book.status().pending, 0);
    sync.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_paused_sync_asks_nothing_until_it_is_resumed() {
    let (book, world) = (open(with_clock()), World::new());
    let sync = start(&book, &world);
    shortly().await;
    sync.pause();
    create(&book, "lead/1");
    sleep(Duration::from_secs(600)).await;
    assert_eq!((world.asked(), book.status().pending), (1, 1));
    sync.resume();
    shortly().await;
    assert_eq!(book.status().pending, 0);
    sync.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_background_and_a_sync_by_hand_take_turns() {
    let (book, mut world) = (open(with_clock()), World::new());
    world.takes = Duration::from_millis(300);
    let sync = start(&book, &world);
    // The world panics if two exchanges run at once.
    for n in 0..10 {
        create(&book, &format!("lead/{n}"));
        let report = book.sync(&world, &RunOptions::default()).await.unwrap();
        assert!(report.exchanges > 0);
        sleep(Duration::from_millis(50)).await;
        sync.retry_now();
    }
    sleep(Duration::from_secs(2)).await;
    assert_eq!(book.status().pending, 0);
    assert!(world.asked() > 15, "both were at it: {}", world.asked());
    sync.shutdown().await.unwrap();
    assert_sound(&book);
}

#[tokio::test(start_paused = true)]
async fn after_a_shutdown_the_book_can_be_closed_and_after_a_drop_it_is_let_go_of() {
    let (book, world) = (open(with_clock()), World::new());
    let sync = start(&book, &world);
    shortly().await;
    assert!(matches!(book.clone().close(), Err(Error::InUse)), "the sync holds it open");
    sync.shutdown().await.unwrap();
    let sync = start(&book, &world);
    shortly().await;
    drop(sync);
    shortly().await;
    create(&book, "lead/1");
    sleep(Duration::from_secs(600)).await;
    assert_eq!((world.asked(), book.status().pending), (2, 1));
    book.close().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_it_and_is_told_and_others_may_sync_on() {
    let (book, world) = (open(with_clock()), World::new());
    let panics = FnRemote::new(|_: &ExchangeRequest| panic!("planned by the test"));
    let sync = book.keep_syncing(Arc::new(panics), WorkerOptions::default()).unwrap();
    shortly().await;
    assert!(sync.is_finished());
    assert_eq!(book.status().state, SyncState::Failed { code: "interrupted".to_owned() });
    create(&book, "lead/1");
    book.sync(&world, &RunOptions::default()).await.unwrap();
    assert_eq!((book.status().state, book.status().pending), (SyncState::Idle, 0));
    assert!(matches!(sync.shutdown().await, Err(WorkerError::Panicked)));
}

#[test]
fn without_a_runtime_it_is_refused() {
    let book = open(options("ann", &TestClock::starting()));
    let refused = book.keep_syncing(Arc::new(World::new()), WorkerOptions::default());
    assert!(matches!(refused, Err(Error::Misuse(_))));
}
