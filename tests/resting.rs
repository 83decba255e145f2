//! A book at rest opens after a kill without a repair, and the log still says that it was killed.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{TestClock, assert_sound, fields, key, options};
use fieldbook::audit::Seq;
use fieldbook::audit::entry::{Control, LastStop, Meta};
use fieldbook::{Book, Mutation, WorkerOptions};
use serde_json::json;

/// Makes a book with some records, which is open.
fn book_at(path: &Path, records: usize) -> Book {
    let book = Book::create_new(path, options("ann", &TestClock::starting())).unwrap();
    let add = |number: usize| {
        Mutation::create(key(&format!("lead/{number}")), fields(json!({"text": "x".repeat(200)})))
    };
    let all: Vec<_> = (0..records).map(add).collect();
    for some in all.chunks(500) {
        book.transaction(some.to_vec()).unwrap();
    }
    book
}

/// Copies the bytes of an open book: those that a kill leaves.
fn killed(path: &Path, name: &str) -> PathBuf {
    let copy = path.with_file_name(name);
    std::fs::copy(path, &copy).unwrap();
    copy
}

/// Returns whether the storage engine repairs the file when it is opened.
fn needs_repair(path: &Path) -> bool {
    let (copy, repairs) = (killed(path, "looked-at.book"), Arc::new(AtomicBool::new(false)));
    let noted = Arc::clone(&repairs);
    let mut builder = redb::Builder::new();
    builder.set_repair_callback(move |_| noted.store(true, Ordering::SeqCst));
    drop(builder.open(copy).unwrap());
    repairs.load(Ordering::SeqCst)
}

fn open(path: &Path) -> Book {
    Book::open(path, options("ann", &TestClock::starting())).unwrap()
}

fn last_stop(book: &Book) -> LastStop {
    book.records().create(key("lead/after"), fields(json!({}))).unwrap();
    let entries = book.audit().entries(Seq::ZERO, usize::MAX).unwrap();
    let stops = entries.into_iter().filter_map(|entry| match entry.meta {
        Meta::Control(Control::Session(session)) => Some(session.last_stop),
        _ => None,
    });
    stops.last().unwrap()
}

#[test]
fn a_book_that_was_killed_at_rest_is_not_repaired_and_says_that_it_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.book");
    let book = book_at(&path, 100);
    let busy = killed(&path, "busy.book");
    book.rest().unwrap();
    let resting = killed(&path, "resting.book");
    assert!(needs_repair(&busy));
    assert!(!needs_repair(&resting));
    for path in [&busy, &resting] {
        let book = open(path);
        assert_eq!(last_stop(&book), LastStop::Unclean);
        assert_sound(&book);
    }
}

#[test]
fn a_write_ends_the_rest_of_a_book_and_is_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.book");
    let book = book_at(&path, 100);
    book.rest().unwrap();
    book.records().create(key("lead/late"), fields(json!({"text": "late"}))).unwrap();
    let opened = open(&killed(&path, "copy.book"));
    assert!(common::view(&opened, "lead/late").is_some());
    assert_sound(&opened);
}

#[test]
fn a_book_at_rest_does_not_commit_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.book");
    let book = book_at(&path, 10);
    book.rest().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    book.rest().unwrap();
    assert!(std::fs::read(&path).unwrap() == bytes, "the second call wrote something");
}

#[tokio::test]
async fn background_sync_brings_the_book_to_rest_after_the_last_write() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::starting());
    let path = folder.path().join("a.book");
    let book = book_at(&path, 10);
    let server = common::Server::new(&clock);
    let syncing = book.keep_syncing(Arc::new(server.remote()), WorkerOptions::default()).unwrap();
    for round in 0.. {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        if !needs_repair(&path) {
            break;
        }
        assert!(round < 200, "the book does not come to rest");
    }
    syncing.shutdown().await.unwrap();
    book.close().unwrap();
}
