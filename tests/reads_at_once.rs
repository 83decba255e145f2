//! Reads share a snapshot. The snapshot must never be older than a write that has returned.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use fieldbook::{Book, BookOptions, Fields, RecordKey};
use redb::backends::InMemoryBackend;
use serde_json::json;

#[test]
fn a_read_sees_every_write_that_returned_before_it_began_however_many_read_at_once() {
    let book = Book::on_backend(InMemoryBackend::new(), BookOptions::new("ann").unwrap()).unwrap();
    let key: RecordKey = "counter/1".parse().unwrap();
    let fields = |count: u64| Fields::from_value(json!({ "count": count })).unwrap();
    book.create(key.clone(), fields(0)).unwrap();
    let written = AtomicU64::new(0);
    let last = 400;
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let before = written.load(Ordering::SeqCst);
                    let record = book.get_record(&key).unwrap().unwrap();
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
            book.update(key.clone(), fields(count)).unwrap();
            written.store(count, Ordering::SeqCst);
        }
    });
}
