//! The number of exchanges that a long queue takes. A bad op among many does not delay the others.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::{Server, TestClock, assert_sound, book, fields, key, sync_with};
use fieldbook::sync::protocol::{ExchangeRequest, Outcome, UnitOutcome};
use fieldbook::sync::{FnRemote, RecordStatus, Stopped};
use fieldbook::{Book, Mutation, RunOptions, SyncReport};
use serde_json::json;

fn queue(book: &Book, ops: usize) {
    let lead = |number| {
        let image = json!({"name": format!("Lead {number}"), "stage": "new", "phone": "5550100"});
        Mutation::create(key(&format!("lead/{number}")), fields(image))
    };
    book.import((0..ops).map(lead).collect()).unwrap();
    assert_eq!(book.status().pending, ops as u64);
}

fn drained(batch_ops: usize) -> (Server, SyncReport) {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let book = book("ann", &clock);
    queue(&book, 2_000);
    let options = RunOptions { batch_ops, ..RunOptions::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = runtime.block_on(book.sync(&server.remote(), &options)).unwrap();
    assert_eq!((book.status().pending, report.ops_acked), (0, 2_000));
    assert_eq!(server.authority.lock().unwrap().records().count(), 2_000);
    assert_sound(&book);
    (server, report)
}

#[test]
fn two_thousand_ops_drain_in_forty_exchanges_of_fifty() {
    let (server, report) = drained(50);
    assert!(report.exchanges <= 40, "{} exchanges", report.exchanges);
    let requests = server.requests.lock().unwrap();
    assert!(requests.iter().all(|request| request.units.len() <= 50));
}

#[test]
fn two_thousand_ops_drain_in_four_exchanges_of_five_hundred() {
    let (_, report) = drained(500);
    assert_eq!(report.exchanges, 4);
}

#[test]
fn one_op_among_a_hundred_that_the_server_never_takes_costs_the_others_nothing() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let book = book("ann", &clock);
    queue(&book, 100);
    let poison = key("lead/37");
    let (there, bad) = (server.clone(), poison.clone());
    let picky = FnRemote::new(move |request: &ExchangeRequest| {
        let is_bad = |unit: &&fieldbook::sync::protocol::Unit| {
            unit.changes.iter().any(|change| change.key == bad)
        };
        let refused: Vec<_> = request.units.iter().filter(is_bad).map(|unit| unit.id).collect();
        let mut without = request.clone();
        without.units.retain(|unit| !refused.contains(&unit.id));
        let mut answer = there.answer(&without);
        answer.outcomes.extend(refused.into_iter().map(|unit| UnitOutcome {
            unit,
            outcome: Outcome::Rejected { code: "23514".to_owned(), message: String::new() },
        }));
        Ok(answer)
    });
    let report = sync_with(&book, &picky);
    assert_eq!(
        (report.exchanges, report.ops_acked, report.ops_dead),
        (2, 99, 1),
        "two batches of fifty"
    );
    assert_eq!(report.stopped, Stopped::Idle);
    assert_eq!(server.authority.lock().unwrap().records().count(), 99);
    assert!(matches!(book.record_status(&poison).unwrap(), RecordStatus::DeadLettered { .. }));
    assert_sound(&book);
}

/// If the server fails on each request with one op, whole exchanges fail. The book finds the op by
/// halving, and the other ops arrive. A fault of the server is no refusal of the op, so the op is
/// held and tried again from time to time.
#[test]
fn one_op_among_a_hundred_that_brings_the_server_down_does_not_keep_the_others() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let book = book("ann", &clock);
    queue(&book, 100);
    let (there, bad) = (server.clone(), key("lead/37"));
    let falling = FnRemote::new(move |request: &ExchangeRequest| {
        if request.units.iter().flat_map(|unit| &unit.changes).any(|change| change.key == bad) {
            return Err(fieldbook::sync::protocol::Failure::Transient {
                code: "500".to_owned(),
                retry_after: None,
                marked: true,
            }
            .into());
        }
        Ok(there.answer(request))
    });
    let mut runs = 0;
    let is_held = || matches!(book.record_status(&key("lead/37")).unwrap(), RecordStatus::Held(_));
    while book.status().pending > 1 || !is_held() {
        sync_with(&book, &falling);
        clock.advance(2 * 3_600_000);
        runs += 1;
        assert!(runs < 10, "{:?}", book.status());
    }
    assert_eq!(book.status().dead_letters, 0);
    assert_eq!(server.authority.lock().unwrap().records().count(), 99);
    assert_sound(&book);
}
