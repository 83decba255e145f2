//! The cost of an operation must not grow with the ops that wait beside it. The tests count
//! allocations, which are the same in each run: nearly every row, op and name that is read makes
//! some.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use fieldbook::conflict::ConflictCount;
use std::alloc::System;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Server, TestClock, fields, key, options, sync, sync_with};
use fieldbook::schema::Policy;
use fieldbook::sync::protocol::{ExchangeRequest, Outcome};
use fieldbook::sync::{Ask, FnRemote, Next, RecordStatus};
use fieldbook::{Actor, Book, EntityRules, EntityType, Mutation, Schema};
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

fn ask() -> Ask {
    Ask { first: true, push: true, pull: true, batch_ops: 20, batch_bytes: 1 << 20, page_limit: 0 }
}

fn request(book: &Book) -> ExchangeRequest {
    match book.exchange().prepare(&ask()).unwrap() {
        Next::Exchange(request) => request,
        Next::Idle { .. } => panic!("there is something to send"),
    }
}

/// Returns the costs of a few operations on a record without waiting ops.
fn everyday(book: &Book, server: &Server) -> Vec<(&'static str, usize)> {
    book.create(key("lead/z"), fields(json!({"name": "x"}))).unwrap();
    // An exchange claims at most 1,000 entries of the log. After these exchanges, the claims have
    // caught up with the log.
    for number in 0..16 {
        sync(book, server);
        book.update(key("lead/z"), fields(json!({"number": number}))).unwrap();
    }
    sync(book, server);
    let (write, _) = work(|| book.update(key("lead/z"), fields(json!({"name": "y"}))).unwrap());
    let (read, _) = work(|| book.get_record(&key("lead/z")).unwrap());
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
        let (found, _) = work(|| sync(&ann, &server));
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
