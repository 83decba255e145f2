//! The whole life of a mutation: it is written, read, sent, acked, and read by another device.
//! Other tests are about failures on this way.

mod common;

use common::{Server, TestClock, assert_sound, book, fields, key, options, sync, view};
use fieldbook::audit::entry::{Control, Meta, Winner};
use fieldbook::error::Rejected;
use fieldbook::sync::RecordStatus;
use fieldbook::{Book, Error, Mutation, MutationFields, SyncState, Written};
use serde_json::json;

#[test]
fn what_one_device_writes_another_one_reads() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let (ann, ben) = (book("ann", &clock), book("ben", &clock));
    ann.records().create(key("lead/1"), fields(json!({"name": "Ann", "stage": "new"}))).unwrap();
    ann.records().update(key("lead/1"), fields(json!({"stage": "hot"}))).unwrap();
    assert_eq!(ann.status().pending, 2);
    assert_eq!(ann.record_status(&key("lead/1")).unwrap(), RecordStatus::Pending);

    let report = sync(&ann, &server);
    assert_eq!(
        (report.exchanges, report.units_acked, report.ops_acked),
        (1, 1, 2),
        "two ops, one unit"
    );
    assert_eq!(ann.record_status(&key("lead/1")).unwrap(), RecordStatus::Synced);
    assert_eq!(server.record("lead/1"), Some(json!({"name": "Ann", "stage": "hot"})));

    sync(&ben, &server);
    assert_eq!(view(&ben, "lead/1"), Some(json!({"name": "Ann", "stage": "hot"})));
    assert_sound(&ann);
    assert_sound(&ben);
}

/// Fields as text and fields as values make the same op, so the log, the row and the server's
/// record are equal.
#[test]
fn an_app_that_has_text_writes_the_log_that_one_with_values_writes() {
    let exported = |as_text: bool| {
        let book = book("ann", &TestClock::starting());
        let given = |value| {
            let fields = fields(value);
            if as_text { MutationFields::from(fields.to_json()) } else { fields.into() }
        };
        book.records()
            .create(key("lead/1"), given(json!({"name": "Ann", "n": 1.5, "old": [null, {}]})))
            .unwrap();
        let update = given(json!({"name": "Ann", "stage": "hot", "old": null, "gone": null}));
        book.records().update(key("lead/1"), update.clone()).unwrap();
        assert_eq!(book.records().update(key("lead/1"), update).unwrap(), Written::Unchanged);
        book.records().replace(key("lead/1"), given(json!({"a\n": "é", "none": null}))).unwrap();
        let many = vec![
            Mutation::create(key("lead/2"), given(json!({"a\n": 1}))),
            Mutation::update(key("lead/2"), given(json!({"a\n": 2, "b": 0.0}))),
            Mutation::update(key("lead/2"), given(json!({"a\n": 2, "b": -0.0}))),
            Mutation::delete(key("lead/1")),
        ];
        let written = book.import(many).unwrap();
        assert!(written.iter().all(|written| written.op().is_some()), "{written:?}");
        assert_eq!(view(&book, "lead/2"), Some(json!({"a\n": 2, "b": -0.0})));
        assert_sound(&book);
        let mut log = Vec::new();
        book.audit().export(&mut log).unwrap();
        log
    };
    assert_eq!(exported(true), exported(false));
}

#[test]
fn an_exchange_with_nothing_new_is_one_small_request_and_writes_nothing() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let book = book("ann", &clock);
    book.records().create(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap();
    sync(&book, &server);
    let head = book.audit().head().unwrap();
    let report = sync(&book, &server);
    assert_eq!(report.exchanges, 1);
    assert!(report.bytes_sent < 500 && report.bytes_received < 500, "{report:?}");
    assert_eq!(book.audit().head().unwrap(), head);
}

#[test]
fn a_record_created_and_deleted_before_it_left_is_never_sent_and_on_record() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let book = book("ann", &clock);
    book.records().create(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap();
    book.records().delete(key("lead/1")).unwrap();
    sync(&book, &server);
    assert!(server.requests.lock().unwrap().iter().all(|request| request.units.is_empty()));
    assert_eq!(book.status().pending, 0);
    let cancelled = book.audit().entries(fieldbook::audit::Seq::new(1), 100).unwrap().into_iter().any(
        |entry| matches!(entry.meta, Meta::Control(Control::Planned(planned)) if planned.cancelled.len() == 1),
    );
    assert!(cancelled, "the log says that the ops were cancelled");
    assert_sound(&book);
}

#[test]
fn both_sides_of_a_conflict_are_kept_and_the_later_edit_wins_on_every_device() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let (ann, ben) = (book("ann", &clock), book("ben", &clock));
    ann.records()
        .create(key("lead/1"), fields(json!({"name": "x", "phone": "1", "town": "t"})))
        .unwrap();
    sync(&ann, &server);
    sync(&ben, &server);
    clock.advance(1_000);
    ann.records().update(key("lead/1"), fields(json!({"name": "by ann", "phone": "2"}))).unwrap();
    clock.advance(1_000);
    ben.records().update(key("lead/1"), fields(json!({"name": "by ben", "town": "u"}))).unwrap();
    sync(&ben, &server);
    sync(&ann, &server);
    sync(&ben, &server);
    let expected = Some(json!({"name": "by ben", "phone": "2", "town": "u"}));
    assert_eq!(
        (view(&ann, "lead/1"), view(&ben, "lead/1"), server.record("lead/1")),
        (expected.clone(), expected.clone(), expected)
    );
    let conflicts = ann.conflicts().all().unwrap();
    let [conflict] = conflicts.as_slice() else { panic!("one conflict, not {}", conflicts.len()) };
    assert_eq!(conflict.fields.len(), 1);
    assert_eq!(
        (conflict.fields[0].name.as_str(), conflict.fields[0].winner),
        ("name", Winner::Remote)
    );
    assert_eq!(
        (conflict.local.as_str(), conflict.remote.as_str()),
        (r#"{"name":"by ann"}"#, r#"{"name":"by ben"}"#)
    );
    assert_sound(&ann);
    assert_sound(&ben);
}

#[test]
fn a_transaction_reaches_the_server_whole() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let book = book("ann", &clock);
    let mutations = ["lead/1", "lead/2", "task/1"]
        .map(|record| Mutation::create(key(record), fields(json!({"n": record}))));
    book.transaction(mutations.to_vec()).unwrap();
    sync(&book, &server);
    let requests = server.requests.lock().unwrap();
    assert_eq!(requests[0].units.len(), 1);
    assert_eq!(requests[0].units[0].changes.len(), 3);
    drop(requests);
    assert_eq!(book.status().pending, 0);
    assert_sound(&book);
}

#[test]
fn one_invalid_mutation_of_a_transaction_leaves_nothing_behind() {
    let clock = TestClock::starting();
    let book = book("ann", &clock);
    let head = book.audit().head().unwrap();
    let refused = book.transaction(vec![
        Mutation::create(key("lead/1"), fields(json!({"a": 1}))),
        Mutation::update(key("lead/2"), fields(json!({"a": 1}))),
    ]);
    assert!(
        matches!(refused, Err(Error::Rejected(Rejected::Missing(missing))) if missing == key("lead/2"))
    );
    assert_eq!(book.audit().head().unwrap(), head);
    assert_eq!(view(&book, "lead/1"), None);
}

#[test]
fn a_lost_answer_is_asked_for_again_with_the_same_bytes_and_applied_once() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let book = book("ann", &clock);
    book.records().create(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap();
    let loses_answers = {
        let server = server.clone();
        fieldbook::sync::FnRemote::new(
            move |request: &fieldbook::sync::protocol::ExchangeRequest| {
                server.answer(request);
                Err(fieldbook::sync::protocol::Failure::Unknown { code: "reset" }.into())
            },
        )
    };
    common::sync_with(&book, &loses_answers);
    assert_eq!(book.record_status(&key("lead/1")).unwrap(), RecordStatus::WaitingForNetwork);
    book.records().update(key("lead/1"), fields(json!({"name": "Anna"}))).unwrap();
    sync(&book, &server);
    let units: Vec<_> =
        server.requests.lock().unwrap().iter().flat_map(|request| request.units.clone()).collect();
    assert_eq!(units[0], units[1], "the same unit, byte for byte");
    assert_eq!(server.record("lead/1"), Some(json!({"name": "Anna"})));
    assert_eq!(book.status().pending, 0);
    assert_sound(&book);
}

#[test]
fn a_book_that_is_closed_and_opened_goes_on_where_it_stopped() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.book");
    let first = Book::create_new(&path, options("ann", &clock)).unwrap();
    first.records().create(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap();
    let device = first.audit().device();
    first.close().unwrap();
    let second = Book::open(&path, options("ann", &clock)).unwrap();
    assert_eq!(second.audit().device(), device);
    assert_eq!(second.status().pending, 1);
    second.records().update(key("lead/1"), fields(json!({"stage": "hot"}))).unwrap();
    sync(&second, &server);
    assert_eq!(server.record("lead/1"), Some(json!({"name": "Ann", "stage": "hot"})));
    assert_eq!(second.status().state, SyncState::Idle);
    assert_sound(&second);
}

#[test]
fn many_queued_ops_drain_in_full_batches() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let book = book("ann", &clock);
    let creates =
        (0..2_000).map(|n| Mutation::create(key(&format!("lead/{n:04}")), fields(json!({"n": n}))));
    book.import(creates.collect()).unwrap();
    let report = sync(&book, &server);
    assert_eq!(report.exchanges, 40);
    assert_eq!(book.status().pending, 0);
    assert_sound(&book);
}
