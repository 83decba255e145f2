//! A backup of a book in use. A copy of the file that other means make while the book is written
//! is torn.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{Server, TestClock, assert_sound, fields, key, options, sync};
use fieldbook::audit::examine_book;
use fieldbook::{Book, Error};
use serde_json::json;

#[test]
fn every_backup_made_amid_writes_opens_verifies_and_has_what_was_written_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::starting();
    let book = Book::create_new(folder.path().join("ann.book"), options("ann", &clock)).unwrap();
    book.records().create(key("counter/1"), fields(json!({"count": 0}))).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for count in 1.. {
                if done.load(Ordering::SeqCst) {
                    return;
                }
                book.records().update(key("counter/1"), fields(json!({ "count": count }))).unwrap();
            }
        });
        let copies: Vec<_> = (0..25)
            .map(|number| {
                let path = folder.path().join(format!("{number}.backup"));
                let before = book.audit().head().unwrap().unwrap();
                let rows = book.audit().backup(&path, |_, _| {});
                (path, before, rows)
            })
            .collect();
        done.store(true, Ordering::SeqCst);
        for (path, before, rows) in copies {
            assert!(rows.unwrap() > 0);
            let found = examine_book(&path, options("ann", &clock), true, |_, _| {}).unwrap();
            assert!(found.is_sound(), "{:?}", found.findings);
            let copy = Book::open(&path, options("ann", &clock)).unwrap();
            let same = copy.audit().entries(before.seq, 1).unwrap();
            assert_eq!(same.first().map(|entry| entry.hash), Some(before.hash));
        }
    });
}

#[test]
fn a_device_that_is_restored_from_its_backup_goes_on_and_loses_only_what_it_had_not_sent() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, path) = (TestClock::starting(), folder.path().join("ann.book"));
    let server = Server::new(&clock);
    let book = Book::create_new(&path, options("ann", &clock)).unwrap();
    book.records().create(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap();
    sync(&book, &server);
    book.audit().backup(folder.path().join("ann.backup"), |_, _| {}).unwrap();
    clock.advance(1_000);
    book.records().update(key("lead/1"), fields(json!({"name": "Anna"}))).unwrap();
    sync(&book, &server);
    drop(book);
    let book = Book::open(folder.path().join("ann.backup"), options("ann", &clock)).unwrap();
    book.records().create(key("lead/2"), fields(json!({"name": "Ben"}))).unwrap();
    for _ in 0..3 {
        clock.advance(3_600_000);
        sync(&book, &server);
    }
    assert_sound(&book);
    let name = |record| book.records().get(&key(record)).unwrap().unwrap().json;
    assert_eq!(name("lead/1").as_str(), r#"{"name":"Anna"}"#);
    assert_eq!((book.status().pending, server.requests.lock().unwrap().len() > 2), (0, true));
    assert!(server.authority.lock().unwrap().records().any(|(record, _)| *record == key("lead/2")));
}

#[test]
fn a_backup_replaces_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, path) = (TestClock::starting(), folder.path().join("ann.book"));
    let book = Book::create_new(&path, options("ann", &clock)).unwrap();
    let there = folder.path().join("there");
    std::fs::write(&there, b"mine").unwrap();
    let refused = book.audit().backup(&there, |_, _| {}).unwrap_err();
    assert!(
        matches!(refused, Error::Store(_)) && refused.to_string().contains("exists"),
        "{refused}"
    );
    assert_eq!(std::fs::read(&there).unwrap(), b"mine");
    assert!(book.audit().backup(folder.path().join("none").join("x"), |_, _| {}).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}
