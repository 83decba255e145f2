//! If something between the device and the server never lets a record through, only that record is
//! delayed.
//!
//! A firewall or a virus scanner may refuse a body, and a gateway or a server may fail on it. Once,
//! all other records and all reading then stopped for ever: unanswered units were sent again first,
//! all together, and pages were in the same exchanges.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use common::{Server, TestClock, assert_sound, book, fields, key, options, sync, sync_with, view};
use fieldbook::schema::Reference;
use fieldbook::sync::protocol::{ExchangeRequest, Failure};
use fieldbook::sync::{FnRemote, Hold, RecordStatus, Stopped};
use fieldbook::{Book, EntityRules, EntityType, Mutation, Remote, Schema, SyncReport, SyncState};
use serde_json::json;

const HOUR: i64 = 3_600_000;

/// Returns a remote on which every request with this word in its units fails in this way.
fn refusing(server: &Server, word: &'static str, failure: &Failure) -> impl Remote + use<> {
    let (to, failure) = (server.clone(), failure.clone());
    FnRemote::new(move |request: &ExchangeRequest| {
        if holds(request, word) {
            return Err(failure.clone().into());
        }
        Ok(to.try_answer(request)?)
    })
}

fn holds(request: &ExchangeRequest, word: &str) -> bool {
    serde_json::to_string(&request.units).unwrap().contains(word)
}

fn transient(code: &str, marked: bool) -> Failure {
    Failure::Transient { code: code.to_owned(), retry_after: None, marked }
}

fn note(book: &Book, number: usize, text: &str) {
    book.records().create(key(&format!("note/{number}")), fields(json!({ "t": text }))).unwrap();
}

fn arrived(server: &Server, numbers: std::ops::Range<usize>) -> usize {
    numbers.filter(|number| server.record(&format!("note/{number}")).is_some()).count()
}

/// Syncs once an hour, at most this many times, until a condition is true. Returns the number of
/// syncs.
fn hourly(
    clock: &TestClock,
    most: u32,
    mut sync: impl FnMut() -> SyncReport,
    is_so: impl Fn() -> bool,
) -> u32 {
    for times in 1..=most {
        clock.advance(HOUR);
        sync();
        if is_so() {
            return times;
        }
    }
    panic!("after {most} syncs it is not so");
}

fn entries(book: &Book) -> usize {
    book.audit().entries(fieldbook::audit::Seq::ZERO, usize::MAX).unwrap().len()
}

/// Returns why an op of a record is held.
fn hold(book: &Book, record: &str) -> Option<Hold> {
    match book.record_status(&key(record)).unwrap() {
        RecordStatus::Held(hold) => Some(hold),
        _ => None,
    }
}

/// Syncs a book with six notes, of which the first never gets through, until the other five have
/// arrived and the book has read a note of another device.
fn others_go_on(failure: &Failure) -> (Arc<TestClock>, Server, Book) {
    let clock = TestClock::starting();
    let (server, ann, ben) = (Server::new(&clock), book("ann", &clock), book("ben", &clock));
    for number in 0..6 {
        note(&ann, number, if number == 0 { "POISON" } else { "fine" });
    }
    ben.records().create(key("note/ben"), fields(json!({"t": "hello"}))).unwrap();
    sync(&ben, &server);
    let remote = refusing(&server, "POISON", failure);
    let is_so = || arrived(&server, 1..6) == 5 && view(&ann, "note/ben").is_some();
    hourly(&clock, 20, || sync_with(&ann, &remote), is_so);
    assert_sound(&ann);
    (clock, server, ann)
}

#[test]
fn refused_by_a_firewall() {
    others_go_on(&Failure::Unreachable { code: "not_our_server" });
    others_go_on(&Failure::Unreachable { code: "captive_portal" });
    others_go_on(&Failure::Unreachable { code: "proxy" });
    others_go_on(&Failure::Unauthorized { code: "http_401".to_owned() });
}

#[test]
fn a_gateway_answers_502() {
    others_go_on(&transient("http_502", false));
    others_go_on(&transient("http_429", false));
}

#[test]
fn the_connection_breaks() {
    for code in ["connection_broke", "timeout", "answer_cut"] {
        others_go_on(&Failure::Unknown { code });
    }
}

#[test]
fn what_comes_back_is_no_answer() {
    for code in ["not_an_answer", "media_type", "marker", "empty_answer"] {
        others_go_on(&Failure::Misbehaved { code });
    }
}

#[test]
fn the_server_says_when_to_come_back_each_time() {
    let retry_after = Some(Duration::from_secs(5));
    for (code, marked) in [("http_503", false), ("store_failed", true)] {
        others_go_on(&Failure::Transient { code: code.to_owned(), retry_after, marked });
    }
}

#[test]
fn our_server_cannot_read_it() {
    let (_, _, ann) = others_go_on(&Failure::Refused { code: "bad_request".into() });
    let letters = ann.dead_letters().all().unwrap();
    assert_eq!(
        letters.iter().map(|letter| letter.code.as_str()).collect::<Vec<_>>(),
        ["bad_request"]
    );
}

#[test]
fn our_server_cannot_take_it() {
    others_go_on(&Failure::Refused { code: "some_quota".into() });
    let (_, _, ann) = others_go_on(&Failure::TooLarge);
    assert_eq!(ann.dead_letters().all().unwrap().len(), 1);
}

/// Once, such an op was sent again together with the others, and each fault of the server counted
/// as a try of the op. After five tries the op was a dead letter.
#[test]
fn the_server_falls_over_it_each_time_and_it_is_held_and_no_dead_letter() {
    let failure = transient("server_failed", true);
    let (clock, server, ann) = others_go_on(&failure);
    let remote = refusing(&server, "POISON", &failure);
    for _ in 0..30 {
        clock.advance(HOUR);
        sync_with(&ann, &remote);
    }
    assert_eq!(ann.dead_letters().all().unwrap(), []);
    assert!(matches!(hold(&ann, "note/0"), Some(Hold::NotLetThrough { times: 20.., .. })));
    let explained = ann.explain(&key("note/0")).unwrap().to_string();
    assert!(
        explained.contains("server_failed")
            && explained.contains("does not let this change through"),
        "{explained}"
    );
    assert!(!explained.contains("POISON"));
    assert_eq!(
        ann.status().state,
        SyncState::NeedsAttention { dead_letters: 0, conflicts: 0, parked: 0, held: 1 },
        "a person sees it"
    );
    sync(&ann, &server);
    clock.advance(HOUR);
    let report = sync(&ann, &server);
    assert_eq!(
        (report.stopped, ann.status().pending, ann.status().state),
        (Stopped::Idle, 0, SyncState::Idle)
    );
}

/// Once, the state of the halving was only in the memory of the process, so a program that runs for
/// one sync never found the op.
#[test]
fn processes_that_sync_once_find_it_as_well() {
    let clock = TestClock::starting();
    let (server, folder) = (Server::new(&clock), tempfile::tempdir().unwrap());
    let path = folder.path().join("ann.book");
    let open = |path: &Path| Book::open_or_create(path, options("ann", &clock)).unwrap();
    let ann = open(&path);
    for number in 0..50 {
        note(&ann, number, if number == 17 { "POISON" } else { "fine" });
    }
    ann.close().unwrap();
    let remote = refusing(&server, "POISON", &Failure::Unknown { code: "connection_broke" });
    let once = || {
        let ann = open(&path);
        let report = sync_with(&ann, &remote);
        ann.close().unwrap();
        report
    };
    let times = hourly(&clock, 20, once, || arrived(&server, 0..50) == 49);
    assert!(times <= 4, "{times} processes");
    let ann = open(&path);
    assert!(
        matches!(hold(&ann, "note/17"), Some(Hold::NotLetThrough { .. })),
        "a new process knows it"
    );
    assert_sound(&ann);
}

#[test]
fn each_of_two_is_found() {
    let clock = TestClock::starting();
    let (server, ann) = (Server::new(&clock), book("ann", &clock));
    for number in 0..40 {
        note(&ann, number, if [0, 39].contains(&number) { "POISON" } else { "fine" });
    }
    let remote = refusing(&server, "POISON", &transient("http_502", false));
    hourly(&clock, 6, || sync_with(&ann, &remote), || arrived(&server, 1..39) == 38);
    clock.advance(HOUR);
    sync_with(&ann, &remote);
    for record in ["note/0", "note/39"] {
        assert!(
            matches!(hold(&ann, record), Some(Hold::NotLetThrough { times: 1.., .. })),
            "{record}"
        );
    }
    assert_sound(&ann);
}

fn with_references() -> Schema {
    let entity = |name: &str| EntityType::parse(name).unwrap();
    let plain = EntityRules { undo_window: Duration::ZERO, ..EntityRules::default() };
    let lead = Reference { field: "lead".to_owned(), entity: entity("lead") };
    Schema::open(plain.clone())
        .declare(entity("lead"), EntityRules { priority: 1, ..plain.clone() })
        .declare(entity("task"), EntityRules { references: vec![lead], priority: 5, ..plain })
}

#[test]
fn of_two_hundred_with_priorities_and_references_only_what_refers_to_it_waits_and_says_so() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let disk = redb::backends::InMemoryBackend::new();
    let ann = Book::on_backend(disk, options("ann", &clock).schema(with_references())).unwrap();
    let mut all = Vec::new();
    for number in 0..100 {
        let text = if number == 31 { "POISON" } else { "fine" };
        all.push(Mutation::create(key(&format!("lead/{number}")), fields(json!({ "t": text }))));
        all.push(Mutation::create(
            key(&format!("task/{number}")),
            fields(json!({ "lead": number.to_string() })),
        ));
    }
    ann.import(all).unwrap();
    ann.records().update(key("lead/31"), fields(json!({ "n": 1 }))).unwrap();
    let remote = refusing(&server, "POISON", &Failure::Unreachable { code: "not_our_server" });
    let there = |entity: &str| {
        (0..100).filter(|number| server.record(&format!("{entity}/{number}")).is_some()).count()
    };
    hourly(&clock, 6, || sync_with(&ann, &remote), || (there("lead"), there("task")) == (99, 99));
    assert!(matches!(hold(&ann, "lead/31"), Some(Hold::NotLetThrough { .. })));
    assert_eq!(hold(&ann, "task/31"), Some(Hold::WaitsFor(key("lead/31"))));
    assert_sound(&ann);
    hourly(&clock, 4, || sync(&ann, &server), || (there("lead"), there("task")) == (100, 100));
    assert_eq!(ann.status().pending, 0);
    assert_sound(&ann);
}

#[test]
fn a_transaction_is_held_whole_and_what_stands_behind_it_waits() {
    let clock = TestClock::starting();
    let (server, ann) = (Server::new(&clock), book("ann", &clock));
    let create = |number: usize, text| {
        Mutation::create(key(&format!("note/{number}")), fields(json!({ "t": text })))
    };
    ann.transaction(vec![create(0, "POISON"), create(1, "with it")]).unwrap();
    for number in 2..6 {
        note(&ann, number, "fine");
    }
    let remote = refusing(&server, "POISON", &transient("http_502", false));
    hourly(&clock, 6, || sync_with(&ann, &remote), || arrived(&server, 2..6) == 4);
    ann.records().update(key("note/1"), fields(json!({ "t": "typed since" }))).unwrap();
    clock.advance(HOUR);
    sync_with(&ann, &remote);
    assert_eq!(arrived(&server, 0..2), 0, "all of it or nothing");
    assert!(matches!(hold(&ann, "note/1"), Some(Hold::NotLetThrough { .. })));
    let explained = ann.explain(&key("note/1")).unwrap().to_string();
    // The explanation once said "which is under way" for days.
    assert!(
        explained.contains("waits behind change 3, which is not let through (http_502)"),
        "{explained}"
    );
    assert!(!explained.contains("under way"), "{explained}");
    hourly(
        &clock,
        4,
        || sync(&ann, &server),
        || arrived(&server, 0..2) == 2 && ann.status().pending == 0,
    );
    assert_sound(&ann);
}

#[test]
fn once_all_is_through_nothing_of_a_suspicion_is_left() {
    let clock = TestClock::starting();
    let (server, ann) = (Server::new(&clock), book("ann", &clock));
    for number in 0..60 {
        note(&ann, number, "fine");
    }
    let fails = Arc::new(AtomicBool::new(true));
    let (to, failing) = (server.clone(), Arc::clone(&fails));
    // Only requests with units fail, as on a server with a full disk.
    let remote = FnRemote::new(move |request: &ExchangeRequest| {
        if failing.load(Ordering::SeqCst) && !request.units.is_empty() {
            return Err(transient("store_failed", true).into());
        }
        Ok(to.try_answer(request)?)
    });
    for _ in 0..48 {
        clock.advance(HOUR);
        sync_with(&ann, &remote);
    }
    assert_eq!((ann.dead_letters().all().unwrap().len(), arrived(&server, 0..60)), (0, 0));
    fails.store(false, Ordering::SeqCst);
    hourly(&clock, 2, || sync_with(&ann, &remote), || arrived(&server, 0..60) == 60);
    let tail = ann.snapshot().unwrap().tail(ann.schema()).unwrap();
    assert_eq!((tail.units().count(), tail.len(), ann.status().state), (0, 0, SyncState::Idle));
    note(&ann, 60, "fine");
    clock.advance(HOUR);
    assert_eq!(sync_with(&ann, &remote).exchanges, 1, "and the next one goes as ever");
    assert_sound(&ann);
}

#[test]
fn a_week_without_the_server_writes_nothing_and_uses_up_no_try() {
    for failure in [
        Failure::Unreachable { code: "connection_refused" },
        Failure::Unreachable { code: "not_our_server" },
        Failure::Unknown { code: "timeout" },
        transient("http_503", false),
        transient("store_failed", true),
        Failure::Misbehaved { code: "not_an_answer" },
        Failure::Unauthorized { code: "http_401".to_owned() },
        Failure::Refused { code: "bad_request".to_owned() },
        Failure::TooLarge,
    ] {
        let clock = TestClock::starting();
        let (server, ann) = (Server::new(&clock), book("ann", &clock));
        note(&ann, 0, "fine");
        clock.advance(HOUR);
        let away = FnRemote::new(|_: &ExchangeRequest| Err(failure.clone().into()));
        sync_with(&ann, &away);
        let written = entries(&ann);
        for _ in 0..7 * 24 {
            clock.advance(HOUR);
            sync_with(&ann, &away);
        }
        assert_eq!(entries(&ann), written, "{failure:?}");
        let report = sync(&ann, &server);
        assert_eq!((report.ops_acked, ann.status().pending), (1, 0), "{failure:?}");
    }
}

/// A gateway that fails on an op needs some time to start again, so no exchange is answered just
/// after the failure.
#[test]
fn a_gateway_that_is_away_after_each_time_is_seen_by_the_next_run() {
    let clock = TestClock::starting();
    let (server, ann) = (Server::new(&clock), book("ann", &clock));
    for number in 0..20 {
        note(&ann, number, if number == 7 { "POISON" } else { "fine" });
    }
    let (to, died) = (server.clone(), Arc::new(AtomicBool::new(false)));
    let dying = Arc::clone(&died);
    let remote = FnRemote::new(move |request: &ExchangeRequest| {
        if dying.load(Ordering::SeqCst) {
            return Err(Failure::Unreachable { code: "connection_refused" }.into());
        }
        if holds(request, "POISON") {
            dying.store(true, Ordering::SeqCst);
            return Err(Failure::Unknown { code: "connection_broke" }.into());
        }
        Ok(to.try_answer(request)?)
    });
    let once = || {
        died.store(false, Ordering::SeqCst);
        sync_with(&ann, &remote)
    };
    hourly(&clock, 12, once, || arrived(&server, 0..20) == 19);
    assert!(matches!(hold(&ann, "note/7"), Some(Hold::NotLetThrough { .. })));
}

#[test]
fn one_failure_that_does_not_come_again_leaves_no_trace() {
    let clock = TestClock::starting();
    let (server, ann) = (Server::new(&clock), book("ann", &clock));
    for number in 0..10 {
        note(&ann, number, "fine");
    }
    clock.advance(HOUR);
    let (to, asked) = (server.clone(), AtomicU32::new(0));
    let remote = FnRemote::new(move |request: &ExchangeRequest| {
        match asked.fetch_add(1, Ordering::SeqCst) {
            0 => Err(Failure::Unknown { code: "connection_broke" }.into()),
            _ => Ok(to.try_answer(request)?),
        }
    });
    let report = sync_with(&ann, &remote);
    assert_eq!(report.stopped, Stopped::Failed(Failure::Unknown { code: "connection_broke" }));
    let planned = entries(&ann);
    let report = sync_with(&ann, &remote);
    assert_eq!((report.ops_acked, report.units_isolated, ann.status().pending), (10, 0, 0));
    assert!(
        entries(&ann) <= planned + 4,
        "that one exchange had failed, what the server said, and what follows"
    );
}

/// Makes a book in which one op of a record is isolated and held. The poison is in the record's
/// first update.
fn held_up() -> (Arc<TestClock>, Server, Book) {
    let clock = TestClock::starting();
    let (server, ann) = (Server::new(&clock), book("ann", &clock));
    note(&ann, 0, "fine");
    clock.advance(HOUR);
    sync(&ann, &server);
    ann.records().update(key("note/0"), fields(json!({ "t": "POISON", "n": 1 }))).unwrap();
    let remote = refusing(&server, "POISON", &transient("http_502", false));
    hourly(&clock, 6, || sync_with(&ann, &remote), || hold(&ann, "note/0").is_some());
    (clock, server, ann)
}

fn only_op(book: &Book) -> fieldbook::record::OpId {
    let tail = book.snapshot().unwrap().tail(book.schema()).unwrap();
    tail.ops().next().unwrap().1.op
}

#[test]
fn a_person_can_give_it_up() {
    let (clock, server, ann) = held_up();
    ann.dead_letters().discard(vec![only_op(&ann)], "nobody needs it").unwrap();
    assert_eq!((view(&ann, "note/0").unwrap(), ann.status().pending), (json!({"t": "fine"}), 0));
    assert_sound(&ann);
    ann.records().update(key("note/0"), fields(json!({ "n": 2 }))).unwrap();
    clock.advance(HOUR);
    sync(&ann, &server);
    assert_eq!(server.record("note/0").unwrap(), json!({"t": "fine", "n": 2}));
    assert_sound(&ann);
}

#[test]
fn a_person_can_correct_it() {
    let (clock, server, ann) = held_up();
    let remote = refusing(&server, "POISON", &transient("http_502", false));
    ann.dead_letters().correct(only_op(&ann), fields(json!({ "t": "said otherwise" }))).unwrap();
    clock.advance(HOUR);
    sync_with(&ann, &remote);
    assert_eq!(server.record("note/0").unwrap(), json!({"t": "said otherwise", "n": 1}));
    assert_eq!((ann.status().pending, ann.dead_letters().all().unwrap().len()), (0, 0));
    assert_sound(&ann);
}

#[test]
fn a_person_can_have_it_tried_at_once() {
    let (_, server, ann) = held_up();
    assert_eq!(sync(&ann, &server).ops_acked, 0, "it waits for its own time");
    ann.dead_letters().retry(vec![only_op(&ann)]).unwrap();
    assert_eq!((sync(&ann, &server).ops_acked, ann.status().pending), (1, 0));
    assert_sound(&ann);
}

#[test]
fn a_deletion_goes_through_in_its_place() {
    let (clock, server, ann) = held_up();
    ann.records().delete(key("note/0")).unwrap();
    clock.advance(HOUR);
    sync_with(&ann, &refusing(&server, "POISON", &transient("http_502", false)));
    assert_eq!((server.record("note/0"), ann.status().pending), (None, 0));
    assert_sound(&ann);
}

#[test]
fn an_edit_behind_it_waits_and_goes_after_it() {
    let (clock, server, ann) = held_up();
    ann.records().update(key("note/0"), fields(json!({ "n": 3 }))).unwrap();
    clock.advance(HOUR);
    sync_with(&ann, &refusing(&server, "POISON", &transient("http_502", false)));
    assert_eq!((server.record("note/0").unwrap(), ann.status().pending), (json!({"t": "fine"}), 2));
    clock.advance(HOUR);
    sync(&ann, &server);
    assert_eq!(server.record("note/0").unwrap(), json!({"t": "POISON", "n": 3}));
    assert_sound(&ann);
}

/// A unit that was abandoned may have arrived all the same.
#[test]
fn what_was_corrected_though_it_had_arrived_is_put_on_top_of_it() {
    let clock = TestClock::starting();
    let (server, ann) = (Server::new(&clock), book("ann", &clock));
    note(&ann, 0, "fine");
    clock.advance(HOUR);
    sync(&ann, &server);
    ann.records().update(key("note/0"), fields(json!({ "t": "ANSWER LOST", "n": 1 }))).unwrap();
    let to = server.clone();
    let losing = FnRemote::new(move |request: &ExchangeRequest| {
        let answer = to.try_answer(request)?;
        // The remote also removes the pages, because they would confirm the unit.
        if holds(request, "ANSWER LOST") {
            return Err(Failure::Unknown { code: "answer_cut" }.into());
        }
        Ok(fieldbook::sync::protocol::ExchangeAnswer {
            changes: Vec::new(),
            cursors: std::collections::BTreeMap::new(),
            more: false,
            ..answer
        })
    });
    hourly(&clock, 6, || sync_with(&ann, &losing), || hold(&ann, "note/0").is_some());
    ann.dead_letters().correct(only_op(&ann), fields(json!({ "t": "better" }))).unwrap();
    hourly(&clock, 4, || sync(&ann, &server), || ann.status().pending == 0);
    assert_eq!(server.record("note/0").unwrap(), json!({"t": "better", "n": 1}));
    assert_sound(&ann);
}

#[test]
fn an_accepted_server_ends_every_suspicion() {
    let (clock, server, ann) = held_up();
    let backup = server.authority.lock().unwrap().clone();
    server.restore(&backup, 9);
    clock.advance(HOUR);
    sync(&ann, &server);
    ann.servers().accept_only().unwrap();
    let tail = ann.snapshot().unwrap().tail(ann.schema()).unwrap();
    assert_eq!(tail.units().count(), 0);
    hourly(&clock, 3, || sync(&ann, &server), || ann.status().pending == 0);
    assert_eq!(server.record("note/0").unwrap(), json!({"t": "POISON", "n": 1}));
    assert_sound(&ann);
}

/// Each run is bounded, and a unit that failed is not tried again at once.
#[test]
fn a_run_with_what_does_not_get_through_is_short_and_says_how_it_ended() {
    let clock = TestClock::starting();
    let (server, ann) = (Server::new(&clock), book("ann", &clock));
    for number in 0..200 {
        note(&ann, number, if number % 40 == 3 { "POISON" } else { "fine" });
    }
    let remote = refusing(&server, "POISON", &Failure::Unreachable { code: "not_our_server" });
    let most = std::cell::Cell::new(0);
    let once = || {
        let report = sync_with(&ann, &remote);
        most.set(most.get().max(report.exchanges));
        report
    };
    hourly(&clock, 10, once, || arrived(&server, 0..200) == 195);
    assert!(most.get() <= 120, "{} exchanges", most.get());
    clock.advance(HOUR);
    let report = sync_with(&ann, &remote);
    assert_eq!((report.stopped.clone(), report.units_isolated), (Stopped::Idle, 5));
    assert!(report.next_run.is_some() && report.exchanges <= 12, "{report:?}");
    let again = sync_with(&ann, &remote);
    assert_eq!((again.exchanges, again.units_sent), (1, 0), "they wait for their own time");
}
