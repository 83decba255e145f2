//! The status of a book: the sent ops, the time of the server's last answer, the progress of a run,
//! and the person that the book waits for.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Server, TestClock, assert_sound, book, fields, key, options, sync, sync_with};
use fieldbook::host::Clock;
use fieldbook::record::OpId;
use fieldbook::sync::protocol::{ExchangeRequest, Failure, Outcome, UnitOutcome};
use fieldbook::sync::{FnRemote, ParkReason, RecordState, RecordStatus};
use fieldbook::{
    Actor, Book, EntityRules, EntityType, Mutation, Remote, RunOptions, Schema, SyncState, limits,
};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use serde_json::json;

fn actor(name: &str) -> Actor {
    Actor::parse(name).unwrap()
}

fn only_op(book: &Book) -> OpId {
    let queue = book.queue().list().unwrap();
    let [queued] = queue.as_slice() else { panic!("one op, not {}", queue.len()) };
    queued.op.op
}

/// Returns a remote that answers every unit with this outcome: stale, or ahead.
fn turning_back(server: &Server, outcome: Outcome) -> impl Remote + use<> {
    let server = server.clone();
    FnRemote::new(move |request: &ExchangeRequest| {
        let mut request = request.clone();
        let units = std::mem::take(&mut request.units);
        let mut answer = server.answer(&request);
        answer.outcomes = units
            .iter()
            .map(|unit| UnitOutcome { unit: unit.id, outcome: outcome.clone() })
            .collect();
        Ok(answer)
    })
}

fn stale() -> Outcome {
    Outcome::Stale { current: Vec::new(), applied: Vec::new() }
}

/// Makes a book with one op that was stale or ahead as often as is allowed.
fn worn_out(outcome: Outcome) -> (Server, Book) {
    let clock = TestClock::starting();
    let (server, ann) = (Server::new(&clock), book("ann", &clock));
    ann.records().create(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap();
    sync_with(&ann, &turning_back(&server, outcome));
    (server, ann)
}

/// The report once counted all ops as sent, although no request had left the device.
#[test]
fn what_reached_nobody_is_not_counted_as_sent() {
    for (failure, sent) in
        [(Failure::Unreachable { code: "dns" }, 0), (Failure::Unknown { code: "reset" }, 1)]
    {
        let clock = TestClock::starting();
        let ann = book("ann", &clock);
        ann.records().create(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap();
        let fails = failure.clone();
        let report =
            sync_with(&ann, &FnRemote::new(move |_: &ExchangeRequest| Err(fails.clone().into())));
        assert_eq!((report.units_sent, report.ops_sent), (sent, sent), "{failure:?}");
        assert_eq!(ann.record_status(&key("lead/1")).unwrap(), RecordStatus::WaitingForNetwork);
    }
}

/// The time once stood still while the server answered for hours without news.
#[test]
fn when_the_server_last_answered_moves_with_every_answer_and_costs_no_write() {
    let clock = TestClock::starting();
    let (server, ann) = (Server::new(&clock), book("ann", &clock));
    assert_eq!(ann.status().synced_at, None);
    ann.records().create(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap();
    sync(&ann, &server);
    sync(&ann, &server);
    let (written, head) = (clock.now().wall, ann.audit().head().unwrap());
    let told = ann.watch_status();
    clock.advance(3_600_000);
    sync(&ann, &server);
    assert_eq!(ann.status().synced_at, Some(clock.now().wall));
    assert_eq!(told.borrow().synced_at, Some(clock.now().wall));
    let explained = ann.explain(&key("lead/1")).unwrap();
    assert_eq!(explained.book_synced_at, Some(clock.now().wall));
    assert!(
        explained
            .to_string()
            .ends_with(&format!("The server last answered this device at {}.", clock.now().wall))
    );
    assert_eq!(ann.audit().head().unwrap(), head, "nothing was written for it");
    assert!(written < clock.now().wall);
    let unreachable =
        FnRemote::new(|_: &ExchangeRequest| Err(Failure::Unreachable { code: "dns" }.into()));
    let before = ann.status().synced_at;
    clock.advance(60_000);
    sync_with(&ann, &unreachable);
    assert_eq!(ann.status().synced_at, before, "nobody answered");
}

#[test]
fn after_a_start_the_last_answer_is_the_last_one_that_was_written() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.book");
    let ann = Book::create_new(&path, options("ann", &clock)).unwrap();
    ann.records().create(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap();
    sync(&ann, &server);
    sync(&ann, &server);
    let written = ann.status().synced_at;
    clock.advance(60_000);
    sync(&ann, &server);
    assert_ne!(ann.status().synced_at, written);
    ann.close().unwrap();
    assert_eq!(Book::open(&path, options("ann", &clock)).unwrap().status().synced_at, written);
}

/// Once, `done` counted accepted ops and `left` counted all pending ops, so both went up and down.
#[test]
fn progress_never_runs_backwards_and_names_the_record() {
    let clock = TestClock::starting();
    let (server, ann) = (Server::new(&clock), book("ann", &clock));
    let lead = |number: u32| {
        Mutation::create(key(&format!("lead/{number:03}")), fields(json!({"n": number})))
    };
    ann.import((0..100).map(lead).collect()).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (book, there, told) = (ann.clone(), server.clone(), Arc::clone(&seen));
    let remote = FnRemote::new(move |request: &ExchangeRequest| {
        told.lock().unwrap().push(book.status().state);
        if told.lock().unwrap().len() == 2 {
            book.import((100..110).map(lead).collect()).unwrap();
        }
        Ok(there.answer(request))
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let run = RunOptions { batch_ops: 25, ..RunOptions::default() };
    runtime.block_on(ann.sync(&remote, &run)).unwrap();
    let steps: Vec<_> = seen
        .lock()
        .unwrap()
        .iter()
        .map(|state| match state {
            SyncState::Syncing { done, total, current } => {
                (*done, *total, current.as_ref().map(ToString::to_string))
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let named = |number: &str| Some(format!("lead/{number}"));
    assert_eq!(steps[0], (0, 100, named("000")));
    assert_eq!(steps[1], (25, 100, named("025")));
    assert_eq!(steps[2], (50, 110, named("050")), "ten were written meanwhile");
    assert!(steps.is_sorted_by(|one, next| one.0 <= next.0 && one.1 <= next.1), "{steps:?}");
    assert_eq!((ann.status().state, ann.status().pending), (SyncState::Idle, 0));
}

/// A server that never answers.
struct Never;
impl Remote for Never {
    fn exchange<'a>(
        &'a self,
        _: &'a ExchangeRequest,
    ) -> std::pin::Pin<
        Box<
            dyn Future<Output = Result<fieldbook::sync::Received, fieldbook::sync::RemoteError>>
                + Send
                + 'a,
        >,
    > {
        Box::pin(std::future::pending())
    }
}

#[test]
fn a_run_that_nobody_waits_for_any_more_leaves_nothing_in_flight() {
    let clock = TestClock::starting();
    let ann = book("ann", &clock);
    ann.records().create(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let run = RunOptions::default();
        let waits = ann.sync(&Never, &run);
        assert!(tokio::time::timeout(Duration::from_millis(200), waits).await.is_err());
    });
    assert_eq!(ann.record_status(&key("lead/1")).unwrap(), RecordStatus::WaitingForNetwork);
    assert_eq!(ann.status().state, SyncState::Idle);
}

/// A disk in memory that does something while it syncs: a commit is not finished then.
#[derive(Clone, Default)]
struct SlowDisk {
    bytes: Arc<InMemoryBackend>,
    meanwhile: Arc<Mutex<Option<Meanwhile>>>,
}

type Meanwhile = Box<dyn Fn() + Send>;

impl std::fmt::Debug for SlowDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SlowDisk")
    }
}

impl StorageBackend for SlowDisk {
    fn len(&self) -> io::Result<u64> {
        self.bytes.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.bytes.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        if let Some(meanwhile) = &*self.meanwhile.lock().unwrap() {
            meanwhile();
        }
        self.bytes.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.bytes.write(offset, data)
    }
}

/// A badge once went from "being sent" back to "waits" for a moment, before it went to "synced".
#[test]
fn what_was_sent_is_in_flight_until_its_answer_is_in_the_book() {
    let (clock, disk) = (TestClock::starting(), SlowDisk::default());
    let server = Server::new(&clock);
    let ann = Book::on_backend(disk.clone(), options("ann", &clock)).unwrap();
    ann.records().create(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let look = {
        let (book, seen) = (ann.clone(), Arc::clone(&seen));
        move || seen.lock().unwrap().push(book.record_status(&key("lead/1")).unwrap().state())
    };
    let meanwhile = Arc::clone(&disk.meanwhile);
    let remote = FnRemote::new(move |request: &ExchangeRequest| {
        let answer = server.answer(request);
        // From here on everybody looks at the record while its answer is written.
        *meanwhile.lock().unwrap() = Some(Box::new(look.clone()));
        Ok(answer)
    });
    sync_with(&ann, &remote);
    disk.meanwhile.lock().unwrap().take();
    let mut seen = seen.lock().unwrap().clone();
    seen.dedup();
    assert_eq!(seen, [RecordState::InFlight]);
    assert_eq!(ann.record_status(&key("lead/1")).unwrap(), RecordStatus::Synced);
}

/// The state was once idle, and did not show that an op waited.
#[test]
fn while_the_change_of_another_user_waits_the_state_says_for_whom() {
    let clock = TestClock::starting();
    let (server, shared) = (Server::new(&clock), book("ann", &clock));
    shared.records().create(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap();
    shared.act_as(actor("ben"));
    shared.records().create(key("lead/2"), fields(json!({"name": "Ben"}))).unwrap();
    sync(&shared, &server);
    assert_eq!(
        shared.status().state,
        SyncState::NeedsActors { actors: vec![actor("ann")], ops: 1 }
    );
    let explained = shared.explain(&key("lead/1")).unwrap();
    assert!(explained.to_string().contains("a creation by ann at "), "{explained}");
    assert!(
        explained.to_string().contains("waits until ann, who made it, uses this device again"),
        "{explained}"
    );
    shared.act_as(actor("ann"));
    assert_eq!(shared.status().state, SyncState::Idle);
    sync(&shared, &server);
    assert_eq!((shared.status().state, shared.status().pending), (SyncState::Idle, 0));
}

#[test]
fn what_never_leaves_the_device_waits_for_nobody() {
    let clock = TestClock::starting();
    let local =
        EntityRules { local_only: true, undo_window: Duration::ZERO, ..EntityRules::default() };
    let schema =
        Schema::open(EntityRules { undo_window: Duration::ZERO, ..EntityRules::default() })
            .declare(EntityType::parse("draft").unwrap(), local);
    let shared =
        Book::on_backend(InMemoryBackend::new(), options("ann", &clock).schema(schema)).unwrap();
    shared.records().create(key("draft/1"), fields(json!({"name": "Ann"}))).unwrap();
    assert_eq!(shared.status().pending, 0, "no server ever has to know it");
    shared.records().create(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap();
    assert_eq!(shared.status().pending, 1);
    sync(&shared, &Server::new(&clock));
    assert_eq!(shared.status().pending, 0);
    shared.act_as(actor("ben"));
    assert_eq!(shared.status().state, SyncState::Idle);
    let explained = shared.explain(&key("draft/1")).unwrap();
    assert!(explained.to_string().contains("stays on this device"), "{explained}");
}

/// Such an op once counted as a conflict in which no choice was possible, and a retry and a discard
/// were refused.
#[test]
fn an_op_that_is_worn_out_waits_for_a_person_who_retries_it_or_discards_it() {
    for (outcome, reason) in [(stale(), ParkReason::WornOut), (Outcome::Ahead, ParkReason::Ahead)] {
        let (server, ann) = worn_out(outcome.clone());
        assert_eq!(ann.record_status(&key("lead/1")).unwrap(), RecordStatus::Parked(reason));
        let waits = SyncState::NeedsAttention { dead_letters: 0, conflicts: 0, parked: 1, held: 0 };
        assert_eq!(ann.status().state, waits);
        let explained = ann.explain(&key("lead/1")).unwrap();
        assert_eq!(explained.state, RecordState::Parked);
        assert!(
            explained
                .to_string()
                .contains("It waits for ann, or whoever helps them, to retry it or discard it")
        );
        sync(&ann, &server);
        assert_eq!(ann.status().pending, 1, "it goes on by a person alone");
        ann.dead_letters().retry(vec![only_op(&ann)]).unwrap();
        assert_eq!(ann.record_status(&key("lead/1")).unwrap(), RecordStatus::Pending);
        sync(&ann, &server);
        assert_eq!((ann.status().state, ann.status().pending), (SyncState::Idle, 0));
        assert_eq!(server.record("lead/1"), Some(json!({"name": "Ann"})));
        assert_sound(&ann);

        let (server, ann) = worn_out(outcome);
        ann.dead_letters().discard(vec![only_op(&ann)], "typed twice").unwrap();
        sync(&ann, &server);
        assert_eq!((ann.status().state, ann.status().pending), (SyncState::Idle, 0));
        assert_eq!(server.record("lead/1"), None);
        assert_sound(&ann);
    }
}

#[test]
fn a_retry_gives_a_worn_out_op_as_many_attempts_as_a_new_one() {
    let (server, ann) = worn_out(stale());
    ann.dead_letters().retry(vec![only_op(&ann)]).unwrap();
    let report = sync_with(&ann, &turning_back(&server, stale()));
    assert_eq!(report.units_sent, u64::from(limits::STALE_TRIES));
    assert_eq!(
        ann.record_status(&key("lead/1")).unwrap(),
        RecordStatus::Parked(ParkReason::WornOut)
    );
}
