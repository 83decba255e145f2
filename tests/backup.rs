//! A backup of a book in use. A copy of the file that other means make while the book is written
//! is torn.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::{fs, thread};

use common::{
    FailingDisk, Server, TestClock, assert_sound, book, fields, key, options, sync, view,
};
use fieldbook::audit::examine_book;
use fieldbook::{Book, Error, RecordKey};
use serde_json::json;

/// The number of threads that write, and of threads that make backups.
const THREADS: usize = 3;
const BACKUPS_EACH: usize = 8;

fn counter(writer: usize) -> RecordKey {
    key(&format!("counter/{writer}"))
}

fn count_of(book: &Book, writer: usize) -> Option<u64> {
    view(book, &counter(writer).to_string())?.get("count")?.as_u64()
}

/// A backup, with what was confirmed to each writer before it was asked for.
struct Made {
    path: PathBuf,
    confirmed: Vec<u64>,
    rows: Result<u64, Error>,
}

#[test]
fn every_backup_made_amid_writes_opens_verifies_and_has_what_was_written_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let book = Book::create_new(folder.path().join("ann.book"), options("ann", &clock)).unwrap();
    let confirmed: Vec<_> = (0..THREADS).map(|_| AtomicU64::new(0)).collect();
    let done = AtomicBool::new(false);
    let (done, confirmed, book, folder) = (&done, &confirmed, &book, folder.path());
    for writer in 0..THREADS {
        book.records().create(counter(writer), fields(json!({"count": 0}))).unwrap();
    }
    let made: Vec<Made> = thread::scope(|scope| {
        for (writer, confirmed) in confirmed.iter().enumerate() {
            scope.spawn(move || {
                for count in (1..).take_while(|_| !done.load(Ordering::SeqCst)) {
                    let update = fields(json!({ "count": count }));
                    book.records().update(counter(writer), update).unwrap();
                    confirmed.store(count, Ordering::SeqCst);
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                sync(book, &server);
            }
        });
        let copying: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let backup = |number| {
                        let path = folder.join(format!("{thread}-{number}.backup"));
                        let counts = confirmed.iter().map(|count| count.load(Ordering::SeqCst));
                        let confirmed = counts.collect();
                        Made { confirmed, rows: book.audit().backup(&path, |_, _| {}), path }
                    };
                    (0..BACKUPS_EACH).map(backup).collect::<Vec<_>>()
                })
            })
            .collect();
        let made = copying.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        done.store(true, Ordering::SeqCst);
        made
    });
    assert_eq!(made.len(), THREADS * BACKUPS_EACH);
    for Made { path, confirmed, rows } in made {
        assert!(rows.unwrap() > 0);
        let found = examine_book(&path, options("ann", &clock), true, |_, _| {}).unwrap();
        assert!(found.is_sound(), "{:?}", found.findings);
        let copy = Book::open(&path, options("ann", &clock).read_only()).unwrap();
        let head = copy.audit().head().unwrap().unwrap();
        let same = book.audit().entries(head.seq, 1).unwrap();
        assert_eq!(same.first().map(|entry| entry.hash), Some(head.hash), "a part of the log");
        for (writer, confirmed) in confirmed.into_iter().enumerate() {
            assert!(count_of(&copy, writer) >= Some(confirmed), "{confirmed} were confirmed");
        }
    }
}

#[test]
fn a_book_that_cannot_be_read_to_its_end_leaves_no_half_copy_and_is_not_written() {
    let (clock, disk) = (TestClock::starting(), FailingDisk::default());
    let open = || Book::on_backend(disk.clone(), options("ann", &clock).cache_bytes(0)).unwrap();
    let book = open();
    for number in 0..200 {
        let name = fields(json!({ "name": "n".repeat(500), "number": number }));
        book.records().create(key(&format!("lead/{number}")), name).unwrap();
    }
    drop(book);
    let mut failed = 0;
    for reads in (0..).step_by(7) {
        let (folder, book) = (tempfile::tempdir().unwrap(), open());
        let path = folder.path().join("ann.backup");
        let writes = disk.writes.load(Ordering::SeqCst);
        disk.reads_left.store(reads, Ordering::SeqCst);
        disk.fails.store(true, Ordering::SeqCst);
        let made = book.audit().backup(&path, |_, _| {});
        disk.fails.store(false, Ordering::SeqCst);
        assert_eq!(disk.writes.load(Ordering::SeqCst), writes, "nothing is written to the book");
        let Err(error) = made else {
            let found = examine_book(&path, options("ann", &clock), true, |_, _| {}).unwrap();
            assert!(found.is_sound(), "{:?}", found.findings);
            break;
        };
        failed += 1;
        assert!(
            matches!(&error, Error::Store(_)) && error.to_string().contains("the disk failed"),
            "{error}"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "after {reads} reads");
    }
    assert!(failed > 3, "the copy fails at {failed} places");
    assert_sound(&open());
}

/// A copy of the first entries of a log was once a book that opened and verified.
#[test]
fn what_a_kill_amid_a_backup_leaves_is_not_a_book() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::starting());
    let book = book("ann", &clock);
    let long = "t".repeat(800_000);
    for number in 0..30 {
        let note = fields(json!({ "text": long }));
        book.records().create(key(&format!("note/{number}")), note).unwrap();
    }
    let (path, mut left) = (folder.path().join("ann.backup"), Vec::new());
    let copied = book.audit().backup(&path, |done, all| {
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let unfinished = names.filter(|path| path.extension().is_some_and(|end| end == "new"));
        let as_it_is = folder.path().join(format!("{}.left", left.len()));
        fs::copy(unfinished.last().unwrap(), &as_it_is).unwrap();
        left.push((as_it_is, done, all));
    });
    let rows = copied.unwrap();
    let parts = left.iter().filter(|(_, done, _)| *done > 1 && *done < rows).count();
    assert!(parts > 2, "the log is copied in {parts} parts");
    for (path, done, all) in left {
        let refused = Book::open(path, options("ann", &clock).read_only());
        let refused = refused.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.contains("is not a book"), "after {done} of {all} rows: {refused}");
    }
    assert_sound(&Book::open(&path, options("ann", &clock)).unwrap());
}

/// The only way to end a running call. It was once told as damage of the file.
#[test]
fn a_caller_that_panics_amid_a_backup_gets_its_panic_and_no_half_copy() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, path) = (TestClock::starting(), folder.path().join("ann.book"));
    let book = Book::create_new(&path, options("ann", &clock)).unwrap();
    book.records().create(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap();
    let (copy, mut calls) = (folder.path().join("ann.backup"), 0);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        book.audit().backup(&copy, |_, _| {
            calls += 1;
            assert!(calls < 5, "cancelled");
        })
    }));
    let said = panicked.unwrap_err();
    assert_eq!(said.downcast_ref::<&str>(), Some(&"cancelled"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    book.records().update(key("lead/1"), fields(json!({"name": "Anna"}))).unwrap();
    assert!(book.audit().backup(&copy, |_, _| {}).unwrap() > 0);
    assert_sound(&book);
    assert_sound(&Book::open(&copy, options("ann", &clock)).unwrap());
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
    fs::write(&there, b"mine").unwrap();
    let refused = book.audit().backup(&there, |_, _| {}).unwrap_err();
    assert!(
        matches!(refused, Error::Store(_)) && refused.to_string().contains("exists"),
        "{refused}"
    );
    assert_eq!(fs::read(&there).unwrap(), b"mine");
    assert!(book.audit().backup(folder.path().join("none").join("x"), |_, _| {}).is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}
