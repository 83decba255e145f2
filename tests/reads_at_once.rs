//! Reads and checks beside writes. Reads share a snapshot, which must never be older than a write
//! that has returned.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use fieldbook::{Book, BookOptions, Fields, RecordKey};
use redb::backends::InMemoryBackend;
use serde_json::json;

#[test]
fn a_read_sees_every_write_that_returned_before_it_began_however_many_read_at_once() {
    let book = Book::on_backend(InMemoryBackend::new(), BookOptions::new("ann").unwrap()).unwrap();
    let key: RecordKey = "counter/1".parse().unwrap();
    let fields = |count: u64| Fields::from_value(json!({ "count": count })).unwrap();
    book.records().create(key.clone(), fields(0)).unwrap();
    let written = AtomicU64::new(0);
    let last = 400;
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let before = written.load(Ordering::SeqCst);
                    let record = book.records().get(&key).unwrap().unwrap();
                    let count =
                        record.fields().unwrap().get("count").and_then(serde_json::Value::as_u64);
                    assert!(count.unwrap() >= before, "read {count:?} after {before} was written");
                    if before == last {
                        return;
                    }
                }
            });
        }
        for count in 1..=last {
            book.records().update(key.clone(), fields(count)).unwrap();
            written.store(count, Ordering::SeqCst);
        }
    });
}

/// The check once compared a state of the tables before a write with one after it.
#[test]
fn the_check_of_the_tables_finds_no_difference_while_another_thread_writes() {
    let book = Book::on_backend(InMemoryBackend::new(), BookOptions::new("ann").unwrap()).unwrap();
    let key: RecordKey = "counter/1".parse().unwrap();
    book.records().create(key.clone(), Fields::new()).unwrap();
    let checked = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut count = 0;
            while !checked.load(Ordering::SeqCst) {
                count += 1;
                let fields = Fields::from_value(json!({ "count": count })).unwrap();
                book.records().update(key.clone(), fields).unwrap();
            }
        });
        let checks: Vec<_> = (0..20).map(|_| book.audit().check_tables()).collect();
        checked.store(true, Ordering::SeqCst);
        for check in checks {
            assert_eq!(check.unwrap().differing, Vec::<&str>::new());
        }
    });
}
