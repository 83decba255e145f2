//! The cost of an operation must not grow with the ops that wait beside it. The tests count
//! allocations, which are the same in each run: nearly every row, op and name that is read makes
//! some.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use fieldbook::conflict::ConflictCount;
use std::alloc::System;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Server, TestClock, fields, key, options, sync, sync_by, sync_with};
use fieldbook::schema::Policy;
use fieldbook::sync::protocol::{ExchangeRequest, Outcome};
use fieldbook::sync::{ExchangeParams, FnRemote, NextStep, RecordStatus};
use fieldbook::{Actor, Book, EntityRules, EntityType, Mutation, RunOptions, Schema};
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The tests of this file take turns, because the counter counts the allocations of the whole
/// process.
static TURN: Mutex<()> = Mutex::new(());

const FEW: usize = 300;
const MANY: usize = 10 * FEW;

/// Returns the number of allocations of a function, and its result.
fn work<T>(what: impl FnOnce() -> T) -> (usize, T) {
    let region = Region::new(ALLOCATOR);
    let made = what();
    (region.change().allocations, made)
}

/// Returns the number of bytes that a function allocates, and its result.
fn written_by<T>(what: impl FnOnce() -> T) -> (usize, T) {
    let region = Region::new(ALLOCATOR);
    let made = what();
    (region.change().bytes_allocated, made)
}

/// Asserts that each operation costs the same beside many ops as beside few, within a tenth and a
/// page of the storage.
#[track_caller]
fn assert_flat(few: &[(&'static str, usize)], many: &[(&'static str, usize)]) {
    let grows = few.iter().zip(many).filter(|((_, few), (_, many))| *many > few + few / 10 + 40);
    let grows: Vec<_> = grows.map(|((what, few), (_, many))| (what, few, many)).collect();
    assert!(grows.is_empty(), "allocations beside {FEW} and beside {MANY}: {grows:?}");
}

fn rules() -> EntityRules {
    EntityRules { undo_window: Duration::ZERO, ..EntityRules::default() }
}

fn open(name: &str, clock: &Arc<TestClock>, schema: Schema) -> Book {
    let options = options(name, clock).schema(schema);
    Book::on_backend(redb::backends::InMemoryBackend::new(), options).unwrap()
}

/// Creates records of an entity type, a thousand in a commit.
fn create(book: &Book, entity: &str, count: usize) {
    let mutations: Vec<_> = (0..count)
        .map(|number| {
            Mutation::create(key(&format!("{entity}/{number:06}")), fields(json!({"name": "x"})))
        })
        .collect();
    mutations.chunks(1_000).for_each(|some| drop(book.import(some.to_vec()).unwrap()));
}

fn ask() -> ExchangeParams {
    ExchangeParams {
        first: true,
        push: true,
        pull: true,
        batch_ops: 20,
        batch_bytes: 1 << 20,
        page_limit: 0,
    }
}

fn request(book: &Book) -> ExchangeRequest {
    match book.exchange().prepare(&ask()).unwrap() {
        NextStep::Exchange(request) => request,
        NextStep::Idle { .. } => panic!("there is something to send"),
    }
}

/// Returns the costs of a few operations on a record without waiting ops.
fn everyday(book: &Book, server: &Server) -> Vec<(&'static str, usize)> {
    book.records().create(key("lead/z"), fields(json!({"name": "x"}))).unwrap();
    // An exchange claims at most 1,000 entries of the log. After these exchanges, the claims have
    // caught up with the log.
    for number in 0..16 {
        sync(book, server);
        book.records().update(key("lead/z"), fields(json!({"number": number}))).unwrap();
    }
    sync(book, server);
    let (write, _) =
        work(|| book.records().update(key("lead/z"), fields(json!({"name": "y"}))).unwrap());
    let (read, _) = work(|| book.records().get(&key("lead/z")).unwrap());
    let (status, _) = work(|| book.status());
    let (record, stands) = work(|| book.record_status(&key("lead/z")).unwrap());
    assert_eq!(stands, RecordStatus::Pending);
    let (explain, _) = work(|| book.explain(&key("lead/z")).unwrap());
    let (prepare, request) = work(|| request(book));
    assert_eq!(request.units.len(), 1);
    let answer = server.answer(&request);
    let (take, _) = work(|| book.exchange().apply_answer(&request, answer).unwrap());
    vec![
        ("a write", write),
        ("a read", read),
        ("the status", status),
        ("where a record stands", record),
        ("an explanation", explain),
        ("planning an exchange of one op", prepare),
        ("taking its answer", take),
    ]
}

/// Each exchange once examined and sorted all of 100,000 ops that waited with two priorities.
#[test]
fn an_exchange_looks_at_its_batch_however_many_ops_wait_and_whatever_their_priorities() {
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for priority in [0, 5] {
        let cost = |waiting| {
            let clock = TestClock::starting();
            let urgent = EntityRules { priority, ..rules() };
            let schema = Schema::open(rules()).declare(EntityType::parse("note").unwrap(), urgent);
            let (book, server) = (open("ann", &clock, schema), Server::new(&clock));
            create(&book, "lead", waiting);
            create(&book, "note", 40);
            let first = request(&book);
            let types: Vec<_> =
                first.units[0].changes.iter().map(|change| change.key.entity.as_str()).collect();
            assert_eq!(types, [if priority > 0 { "note" } else { "lead" }]);
            book.exchange().apply_answer(&first, server.answer(&first)).unwrap();
            let (prepare, request) = work(|| request(&book));
            let answer = server.answer(&request);
            vec![
                ("preparing", prepare),
                (
                    "taking the answer",
                    work(|| book.exchange().apply_answer(&request, answer).unwrap()).0,
                ),
            ]
        };
        assert_flat(&cost(FEW), &cost(MANY));
    }
    drop(turn);
}

/// Opening a book once read every op that waits: 1,000,000 of them took 2 s and 445 MiB.
#[test]
fn opening_a_book_costs_the_same_however_many_ops_wait() {
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let cost = |waiting| {
        let folder = tempfile::tempdir().unwrap();
        let (path, clock) = (folder.path().join("ann.book"), TestClock::starting());
        let options = || options("ann", &clock).schema(Schema::open(rules()));
        let book = Book::create_new(&path, options()).unwrap();
        create(&book, "lead", waiting);
        book.close().unwrap();
        // In a debug build the storage engine counts its pages.
        let (engine, database) = work(|| redb::Database::open(&path).unwrap());
        drop(database);
        let (opening, book) = work(|| Book::open(&path, options()).unwrap());
        assert_eq!(book.status().pending, waiting as u64);
        let (status, _) = work(|| book.record_status(&key("lead/000007")).unwrap());
        let (first, sent) = work(|| request(&book));
        assert_eq!(sent.units.len(), 20);
        let (next, _) = work(|| request(&book));
        vec![
            ("opening", opening.saturating_sub(engine)),
            ("where a record stands", status),
            ("the first exchange", first),
            ("the same exchange again", next),
        ]
    };
    // A commit in which the table of the tail is folded comes after every second of these.
    assert_flat(&cost(2_000), &cost(20_000));
    drop(turn);
}

/// An edit of a record with 10,000 unsent edits once took 16 ms, because its row had all of them.
#[test]
fn one_more_edit_of_a_record_costs_the_same_however_many_are_unsent() {
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let cost = |edits: usize| {
        let clock = TestClock::starting();
        let book = open("ann", &clock, Schema::open(rules()));
        let note = key("note/1");
        book.records().create(note.clone(), fields(json!({"name": "x"}))).unwrap();
        let edit = |number: usize| Mutation::update(note.clone(), fields(json!({"n": number})));
        for some in (1..=edits).map(edit).collect::<Vec<_>>().chunks(1_000) {
            book.import(some.to_vec()).unwrap();
        }
        let (write, _) = work(|| book.write(edit(0)).unwrap());
        let (bytes, _) = written_by(|| book.write(edit(edits + 1)).unwrap());
        let (read, record) = work(|| book.records().get(&note).unwrap().unwrap());
        assert_eq!(record.fields().unwrap(), fields(json!({"n": edits + 1, "name": "x"})));
        vec![("a write", write), ("the bytes of a write", bytes / 100), ("a read", read)]
    };
    assert_flat(&cost(FEW), &cost(MANY));
    drop(turn);
}

/// An edit by somebody else that superseded 3,000 unsent edits of a record once took 90 s, and
/// retrying 1,500 refused ones 110 s: each read the whole tail of the record again.
#[test]
fn what_happens_to_all_edits_of_a_record_costs_each_of_them_the_same() {
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let costs = |edits: usize| {
        let note = key("note/1");
        let begin = || {
            let clock = TestClock::starting();
            let server = Server::new(&clock);
            let [ann, ben] = ["ann", "ben"].map(|name| open(name, &clock, Schema::open(rules())));
            ann.records().create(note.clone(), fields(json!({"name": "x"}))).unwrap();
            sync(&ann, &server);
            sync(&ben, &server);
            let edit = |number: usize| Mutation::update(note.clone(), fields(json!({"n": number})));
            ann.import((1..=edits).map(edit).collect()).unwrap();
            clock.advance(1_000);
            (ann, ben, server)
        };
        let (ann, _, server) = begin();
        let (sent, _) = work(|| sync(&ann, &server));
        let (ann, ben, server) = begin();
        ben.records().delete(note.clone()).unwrap();
        sync(&ben, &server);
        let (superseded, _) = work(|| sync(&ann, &server));
        let (ann, _, server) = begin();
        let (refused, _) = work(|| sync_with(&ann, &server.refusing("no", "not this")));
        let ops: Vec<_> =
            ann.dead_letters().all().unwrap().into_iter().map(|letter| letter.op).collect();
        let (some, others) = ops.split_at(edits / 2);
        let (retried, _) = work(|| ann.dead_letters().retry(some.to_vec()).unwrap());
        let discarded = work(|| ann.dead_letters().discard(others.to_vec(), "a test").unwrap()).0;
        let (reset, _) = work(|| ann.servers().take_state("a test").unwrap());
        [
            ("sent", sent),
            ("superseded", superseded),
            ("refused", refused),
            ("half of them retried", retried),
            ("half of them discarded", discarded),
            ("given up", reset),
        ]
    };
    let (few, many) = (costs(100), costs(1_000));
    for ((what, few), (_, many)) in few.into_iter().zip(many) {
        assert!(many < 15 * few, "{what}: {few} allocations for 100 edits, {many} for 1,000");
    }
    drop(turn);
}

#[test]
fn what_other_actors_left_costs_nobody_else_anything() {
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let cost = |waiting| {
        let clock = TestClock::starting();
        let (book, server) = (open("ann", &clock, Schema::open(rules())), Server::new(&clock));
        create(&book, "lead", waiting);
        book.act_as(Actor::parse("ben").unwrap());
        everyday(&book, &server)
    };
    assert_flat(&cost(FEW), &cost(MANY));
    drop(turn);
}

/// With 10,000 open conflicts a write once took 10 ms, an exchange 240 ms, and finding the
/// conflicts 16 s.
#[test]
fn open_conflicts_cost_only_who_looks_at_them() {
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let cost = |conflicts| {
        let clock = TestClock::starting();
        let manual = || Schema::open(EntityRules { policy: Policy::Manual, ..rules() });
        let (ann, ben, server) =
            (open("ann", &clock, manual()), open("ben", &clock, manual()), Server::new(&clock));
        create(&ann, "lead", conflicts);
        sync(&ann, &server);
        sync(&ben, &server);
        for book in [&ben, &ann] {
            let name = book.actor().to_string();
            let mutations = (0..conflicts).map(|number| {
                Mutation::update(key(&format!("lead/{number:06}")), fields(json!({"name": name})))
            });
            drop(book.import(mutations.collect()).unwrap());
        }
        sync(&ben, &server);
        // A list of conflicts names authors, so it reads the answers in which they were found. With
        // answers of one size its cost shows whether it follows the number of conflicts.
        let pages = RunOptions { page_limit: 300, ..RunOptions::default() };
        let (found, _) = work(|| sync_by(&ann, &server.remote(), &pages));
        assert_eq!(
            ann.conflicts().count().unwrap(),
            ConflictCount { all: conflicts as u64, open: conflicts as u64 }
        );
        let page = ann.conflicts().list_open(None, 10).unwrap();
        let (next, _) = work(|| ann.conflicts().list_open(page.next, 10).unwrap());
        let mut costs = everyday(&ann, &server);
        costs.extend([("finding each", found / conflicts), ("a page of conflicts", next)]);
        let one = page.items[0].id;
        costs.push((
            "settling one",
            work(|| ann.conflicts().resolve(one, fieldbook::conflict::Choice::Local).unwrap()).0,
        ));
        costs
    };
    assert_flat(&cost(FEW), &cost(MANY));
    drop(turn);
}

#[test]
fn dead_letters_cost_only_who_looks_at_them() {
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let cost = |letters| {
        let clock = TestClock::starting();
        let (book, server) = (open("ann", &clock, Schema::open(rules())), Server::new(&clock));
        create(&book, "lead", letters);
        let refusing = {
            let server = server.clone();
            FnRemote::new(move |request: &ExchangeRequest| {
                let mut answer =
                    server.try_answer(&ExchangeRequest { units: Vec::new(), ..request.clone() })?;
                answer.outcomes = request
                    .units
                    .iter()
                    .map(|unit| fieldbook::sync::protocol::UnitOutcome {
                        unit: unit.id,
                        outcome: Outcome::Rejected {
                            code: "no".to_owned(),
                            message: String::new(),
                        },
                    })
                    .collect();
                Ok(answer)
            })
        };
        sync_with(&book, &refusing);
        assert_eq!(book.status().dead_letters, letters as u64);
        let mut costs = everyday(&book, &server);
        let page = book.dead_letters().list(None, 10).unwrap();
        let (next, _) = work(|| book.dead_letters().list(page.next, 10).unwrap());
        costs.push(("a page of dead letters", next));
        let again = page.items[0].op;
        costs.push(("retrying one", work(|| book.dead_letters().retry(vec![again]).unwrap()).0));
        costs
    };
    assert_flat(&cost(FEW), &cost(MANY));
    drop(turn);
}

/// Each change of an answer once read whole answers again.
#[test]
fn looking_for_overwritten_values_costs_the_same_for_each_change_of_small_and_large_answers() {
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let cost = |page_limit: u32| {
        let clock = TestClock::starting();
        let open = |name| open(name, &clock, Schema::open(rules()));
        let (ann, ben, cleo, server) =
            (open("ann"), open("ben"), open("cleo"), Server::new(&clock));
        create(&ann, "lead", FEW);
        sync(&ann, &server);
        sync(&ben, &server);
        clock.advance(1_000);
        let update = |number| {
            Mutation::update(key(&format!("lead/{number:06}")), fields(json!({"name": "Ben"})))
        };
        drop(ben.import((0..FEW).map(update).collect()).unwrap());
        sync(&ben, &server);
        cleo.records().create(key("lead/own"), fields(json!({"name": "Cleo"}))).unwrap();
        let pages = RunOptions { page_limit, ..RunOptions::default() };
        let of = |book: &Book, notices| {
            sync_by(book, &server.remote(), &pages);
            let (looking, found) =
                work(|| book.conflicts().overwritten(fieldbook::audit::Seq::ZERO, MANY).unwrap());
            assert_eq!((found.items.len(), found.more), (notices, false));
            looking / FEW
        };
        vec![("a record of others", of(&cleo, 0)), ("an own record", of(&ann, FEW))]
    };
    assert_flat(&cost(10), &cost(300));
    drop(turn);
}
