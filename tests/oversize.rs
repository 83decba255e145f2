//! Two changes that are each within the limit must not become a change over the limit.
//!
//! Coalescing once had no limit of size. A photo and a signature of 600 kB each, of one record,
//! left as one change of 1.2 MB, and the server could not read it. Both were refused for good. In a
//! larger batch, all later ops were stuck as well.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::sync::Arc;

use common::{Server, TestClock, book, fields, key, options, sync};
use fieldbook::conflict::Choice;
use fieldbook::error::Rejected;
use fieldbook::schema::Policy;
use fieldbook::sync::protocol::{ExchangeRequest, Failure};
use fieldbook::sync::{FnRemote, Hold, RecordStatus};
use fieldbook::{
    Book, EntityRules, Error, Fields, Mutation, RunOptions, Schema, SyncState, limits,
};
use serde_json::{Value, json};

/// Syncs eight times, an hour apart. The server refuses a body that it cannot read, or that is too
/// large.
fn settle(book: &Book, server: &Server, clock: &Arc<TestClock>, batch_bytes: usize) {
    let to = server.clone();
    let remote = FnRemote::new(move |request: &ExchangeRequest| {
        let body = serde_json::to_string(request).unwrap();
        if body.len() > limits::REQUEST_BYTES {
            return Err(Failure::TooLarge.into());
        }
        match serde_json::from_str::<ExchangeRequest>(&body) {
            Ok(read) => Ok(to.try_answer(&read)?),
            Err(_) => Err(Failure::Refused { code: "bad_request".into() }.into()),
        }
    });
    let options = RunOptions { batch_bytes, ..RunOptions::default() };
    for _ in 0..8 {
        clock.advance(3_600_000);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(book.sync(&remote, &options)).unwrap();
    }
    assert_eq!(book.status().dead_letters, 0);
}

fn text(letter: &str, bytes: usize) -> String {
    letter.repeat(bytes)
}

#[track_caller]
fn held(book: &Book, name: &str) -> usize {
    match book.record_status(&key(name)).unwrap() {
        RecordStatus::Held(Hold::TooLarge { bytes }) => bytes,
        other => panic!("{name} is not held for its size: {other:?}"),
    }
}

/// Returns how many records are held for a correction.
fn waiting(book: &Book) -> u64 {
    match book.status().state {
        SyncState::NeedsAttention { held, .. } => held,
        _ => 0,
    }
}

fn a_record_gets_over_the_limit(batch_bytes: usize) {
    let clock = TestClock::starting();
    let (server, ann) = (Server::new(&clock), book("ann", &clock));
    ann.records().create(key("form/1"), fields(json!({"photo": text("x", 600_000)}))).unwrap();
    ann.records().update(key("form/1"), fields(json!({"sign": text("y", 600_000)}))).unwrap();
    ann.records().create(key("note/1"), fields(json!({"t": "behind"}))).unwrap();
    settle(&ann, &server, &clock, batch_bytes);
    assert!(server.record("note/1").is_some(), "what stands behind goes");
    let form = server.record("form/1").unwrap();
    assert_eq!(form, json!({"photo": text("x", 600_000)}), "the creation is within the limit");
    // The rest is held, with the reason, and a person can correct it.
    assert!(held(&ann, "form/1") > limits::OP_BYTES);
    assert_eq!(waiting(&ann), 1);
    let explanation = ann.explain(&key("form/1")).unwrap().sentences.join(" ");
    assert!(explanation.contains("of at most 1048576"), "{explanation}");
    ann.records().update(key("form/1"), fields(json!({"photo": null}))).unwrap();
    settle(&ann, &server, &clock, batch_bytes);
    assert_eq!(server.record("form/1"), Some(json!({"sign": text("y", 600_000)})));
    assert_eq!(ann.record_status(&key("form/1")).unwrap(), RecordStatus::Synced);
    assert_eq!(waiting(&ann), 0);
}

#[test]
fn a_change_that_makes_a_record_too_large_waits_and_the_others_go() {
    a_record_gets_over_the_limit(1 << 20);
}

#[test]
fn a_change_that_makes_a_record_too_large_waits_in_a_larger_batch_too() {
    a_record_gets_over_the_limit(4 << 20);
    a_record_gets_over_the_limit(usize::MAX);
}

#[test]
fn changes_of_one_field_that_are_over_the_limit_together_go_one_after_the_other() {
    let clock = TestClock::starting();
    let (server, ann) = (Server::new(&clock), book("ann", &clock));
    ann.records().create(key("form/1"), fields(json!({"photo": text("x", 600_000)}))).unwrap();
    for letter in ["y", "z"] {
        ann.records()
            .update(key("form/1"), fields(json!({"photo": text(letter, 600_000)})))
            .unwrap();
    }
    settle(&ann, &server, &clock, 1 << 20);
    assert_eq!(server.record("form/1"), Some(json!({"photo": text("z", 600_000)})));
}

/// The limit counts bytes as they are stored and sent: a quote takes two bytes, a control character
/// six.
#[test]
fn characters_that_are_escaped_count_as_they_are_sent() {
    let clock = TestClock::starting();
    let (server, ann) = (Server::new(&clock), book("ann", &clock));
    ann.records().create(key("form/1"), fields(json!({"a": text("\u{1}", 100_000)}))).unwrap();
    ann.records().update(key("form/1"), fields(json!({"b": text("\"", 300_000)}))).unwrap();
    let alone =
        ann.records().update(key("form/1"), unchecked(json!({"c": text("\u{1}", 200_000)})));
    assert!(matches!(alone, Err(Error::Rejected(_))), "{alone:?}");
    settle(&ann, &server, &clock, 4 << 20);
    assert_eq!(server.record("form/1"), Some(json!({"a": text("\u{1}", 100_000)})));
    assert!(held(&ann, "form/1") > limits::OP_BYTES);
}

#[test]
fn what_two_people_wrote_does_not_become_a_record_that_is_too_large() {
    let clock = TestClock::starting();
    let (server, ann, bob) = (Server::new(&clock), book("ann", &clock), book("bob", &clock));
    ann.records().create(key("form/1"), fields(json!({"t": 1}))).unwrap();
    clock.advance(10_000);
    sync(&ann, &server);
    sync(&bob, &server);
    ann.records().update(key("form/1"), fields(json!({"a": text("x", 1_000_000)}))).unwrap();
    clock.advance(10_000);
    sync(&ann, &server);
    // The record has room for one of these updates. Each of them is small.
    bob.records().update(key("form/1"), fields(json!({"b": text("y", 30_000)}))).unwrap();
    bob.records().update(key("form/1"), fields(json!({"c": text("z", 30_000)}))).unwrap();
    bob.records().create(key("note/1"), fields(json!({"t": "behind"}))).unwrap();
    settle(&bob, &server, &clock, 1 << 20);
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&server.record("form/1").unwrap()), ["a", "b", "t"]);
    assert!(server.record("note/1").is_some());
    assert!(held(&bob, "form/1") > limits::OP_BYTES);
    // Another user makes room, and the held update is sent.
    sync(&ann, &server);
    ann.records().update(key("form/1"), fields(json!({"a": "small"}))).unwrap();
    clock.advance(10_000);
    sync(&ann, &server);
    settle(&bob, &server, &clock, 1 << 20);
    assert_eq!(names(&server.record("form/1").unwrap()), ["a", "b", "c", "t"]);
    assert_eq!(waiting(&bob), 0);
}

#[test]
fn a_transaction_with_a_record_that_is_too_large_waits_as_a_whole() {
    let clock = TestClock::starting();
    let (server, ann) = (Server::new(&clock), book("ann", &clock));
    ann.records().create(key("form/1"), fields(json!({"photo": text("x", 600_000)}))).unwrap();
    ann.transaction(vec![
        Mutation::create(key("note/1"), fields(json!({"t": "with it"}))),
        Mutation::update(key("form/1"), fields(json!({"sign": text("y", 600_000)}))),
    ])
    .unwrap();
    ann.records().create(key("note/2"), fields(json!({"t": "behind"}))).unwrap();
    settle(&ann, &server, &clock, 4 << 20);
    assert!(server.record("note/2").is_some() && server.record("form/1").is_some());
    assert_eq!(server.record("note/1"), None);
    assert!(held(&ann, "note/1") > limits::OP_BYTES);
}

#[test]
fn what_is_held_for_its_size_can_be_discarded() {
    let clock = TestClock::starting();
    let (server, ann) = (Server::new(&clock), book("ann", &clock));
    ann.records().create(key("form/1"), fields(json!({"photo": text("x", 600_000)}))).unwrap();
    let large =
        ann.records().update(key("form/1"), fields(json!({"sign": text("y", 600_000)}))).unwrap();
    settle(&ann, &server, &clock, 1 << 20);
    ann.dead_letters().discard(vec![large.op().unwrap()], "too large").unwrap();
    assert_eq!(ann.record_status(&key("form/1")).unwrap(), RecordStatus::Synced);
}

/// A request is never larger than the limit of the server, whatever batch size the app sets.
#[test]
fn a_batch_beyond_all_bounds_goes_in_requests_that_a_server_reads() {
    let clock = TestClock::starting();
    let (server, ann) = (Server::new(&clock), book("ann", &clock));
    for number in 0..20 {
        let photo = fields(json!({"photo": text("x", 1_000_000)}));
        ann.records().create(key(&format!("form/{number}")), photo).unwrap();
    }
    settle(&ann, &server, &clock, usize::MAX);
    assert!((0..20).all(|number| server.record(&format!("form/{number}")).is_some()));
    assert!(ann.queue().plan().holds.is_empty());
}

/// A server accepts no record of more than 10,000 fields. A device once wrote such a record all the
/// same, and the op became a dead letter.
#[test]
fn a_record_of_more_fields_than_a_server_takes_is_refused_when_it_is_written() {
    let clock = TestClock::starting();
    let (server, ann) = (Server::new(&clock), book("ann", &clock));
    let some = |from: usize, count: usize, value: Value| -> Fields {
        (from..from + count).map(|number| (format!("{number:05}"), value.clone())).collect()
    };
    let refused = |written: Result<_, Error>, expected: usize| match written {
        Err(Error::Rejected(Rejected::TooManyFields { fields, .. })) => {
            assert_eq!(fields, expected)
        }
        other => panic!("not refused: {other:?}"),
    };
    let most = limits::RECORD_FIELDS;
    refused(ann.records().create(key("form/1"), some(0, most + 1, json!(0))), most + 1);
    ann.records().create(key("form/1"), some(0, most - 1, json!(0))).unwrap();
    ann.records().update(key("form/1"), some(most - 1, 1, json!(0))).unwrap();
    refused(ann.records().update(key("form/1"), some(most, 1, json!(0))), most + 1);
    let both = vec![
        Mutation::update(key("form/1"), some(0, 1, Value::Null)),
        Mutation::update(key("form/1"), some(most, 2, json!(0))),
    ];
    refused(ann.transaction(both).map(|mut written| written.remove(0)), most + 1);
    // A record with the most fields is sent whole. Once it is at the server, an update that
    // replaces one of its fields is sent too.
    settle(&ann, &server, &clock, 1 << 20);
    assert_eq!(server.record("form/1").unwrap().as_object().unwrap().len(), most);
    ann.records().update(key("form/1"), unchecked(json!({"00000": null, "another": 1}))).unwrap();
    refused(ann.records().update(key("form/1"), fields(json!({"00000": 1}))), most + 1);
    settle(&ann, &server, &clock, 1 << 20);
    let at_server = server.record("form/1").unwrap();
    assert_eq!((at_server.as_object().unwrap().len(), &at_server["another"]), (most, &json!(1)));
    assert_eq!(ann.record_status(&key("form/1")).unwrap(), RecordStatus::Synced);
}

#[test]
fn a_choice_that_is_too_large_is_refused_when_it_is_made() {
    let clock = TestClock::starting();
    let rules = EntityRules { policy: Policy::Manual, ..EntityRules::default() };
    let backend = redb::backends::InMemoryBackend::new();
    let ann =
        Book::on_backend(backend, options("ann", &clock).schema(Schema::open(rules))).unwrap();
    let (server, bob) = (Server::new(&clock), book("bob", &clock));
    ann.records().create(key("form/1"), fields(json!({"t": 1}))).unwrap();
    clock.advance(10_000);
    sync(&ann, &server);
    sync(&bob, &server);
    for (book, value) in [(&bob, 2), (&ann, 3)] {
        book.records().update(key("form/1"), fields(json!({"t": value}))).unwrap();
    }
    clock.advance(10_000);
    sync(&bob, &server);
    sync(&ann, &server);
    let conflict = ann.conflicts().all().unwrap().into_iter().find(|found| found.open).unwrap().id;
    let large = unchecked(json!({"t": text("x", limits::OP_BYTES)}));
    let refused = ann.conflicts().resolve(conflict, Choice::Merged(large));
    assert!(matches!(refused, Err(Error::Rejected(_))), "{refused:?}");
    ann.conflicts().resolve(conflict, Choice::Local).unwrap();
}

fn unchecked(value: Value) -> Fields {
    value.as_object().unwrap().clone().into_iter().collect()
}
