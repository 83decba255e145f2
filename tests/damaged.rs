//! A book whose bytes were altered on the disk. No altered value is sent, and none is shown as a
//! true value.
//!
//! Once, 1000 in the log became 9000, the entry was sent and acked, and everybody read 9000. Only
//! `verify` found the damage, afterwards.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on panics"
)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Server, TestClock, book, fields, key, options, sync, view};
use fieldbook::audit::Seq;
use fieldbook::error::StoreError;
use fieldbook::sync::protocol::Failure;
use fieldbook::sync::{ExchangeParams, FnRemote, NextStep};
use fieldbook::{Book, Error, RunOptions};
use serde_json::json;

struct Disk {
    _folder: tempfile::TempDir,
    path: PathBuf,
    clock: Arc<TestClock>,
}

impl Disk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.book");
        Self { _folder: folder, path, clock: TestClock::starting() }
    }

    fn open(&self) -> Result<Book, Error> {
        Book::open_or_create(&self.path, options("ann", &self.clock))
    }
}

/// Alters each occurrence of a text in a file, either within entries (where the item's length is
/// before the text) or within rows.
fn alter(path: &Path, from: &str, to: &str, in_entry: bool) {
    assert_eq!(from.len(), to.len());
    let mut bytes = std::fs::read(path).unwrap();
    let whole = format!("{{{from}}}");
    let length = u32::try_from(whole.len()).unwrap().to_le_bytes();
    let mut altered = 0;
    for at in 4..bytes.len() - whole.len() {
        if bytes[at..].starts_with(whole.as_bytes()) && (bytes[at - 4..at] == length) == in_entry {
            bytes[at + 1..at + 1 + to.len()].copy_from_slice(to.as_bytes());
            altered += 1;
        }
    }
    assert!(altered > 0, "{from} is nowhere");
    std::fs::write(path, bytes).unwrap();
}

#[track_caller]
fn damaged_entry<T: std::fmt::Debug>(result: Result<T, Error>) -> Seq {
    let error = result.unwrap_err();
    let shown = error.to_string();
    assert!(!shown.contains("9000"), "{shown}");
    match error {
        Error::Store(store) => match &*store {
            StoreError::Corrupt { seq: Some(seq), .. } => *seq,
            other => panic!("{other}"),
        },
        other => panic!("{other:?}"),
    }
}

fn synced(book: &Book, server: &Server) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(book.sync(&server.remote(), &RunOptions::default())).map(drop)
}

fn ask(push: bool) -> ExchangeParams {
    ExchangeParams {
        first: true,
        push,
        pull: true,
        batch_ops: 50,
        batch_bytes: 1_000_000,
        page_limit: 1_000,
    }
}

/// Writes to a book, alters its file, syncs, and checks that the server received nothing. Returns
/// the entry that is reported as damaged.
#[track_caller]
fn not_sent(write: impl FnOnce(&Book, &TestClock), from: &str, to: &str) -> Seq {
    let disk = Disk::new();
    let server = Server::new(&disk.clock);
    let ann = disk.open().unwrap();
    write(&ann, &disk.clock);
    ann.close().unwrap();
    alter(&disk.path, from, to, true);
    disk.clock.advance(10_000);
    let seq = damaged_entry(disk.open().and_then(|ann| synced(&ann, &server)));
    assert_eq!(server.record("order/1"), None);
    seq
}

#[test]
fn an_entry_that_was_altered_is_not_sent() {
    let create = |ann: &Book, _: &TestClock| {
        ann.records().create(key("order/1"), fields(json!({"amount": 1000}))).unwrap();
    };
    assert_eq!(not_sent(create, r#""amount":1000"#, r#""amount":9000"#), Seq::new(3));
}

#[test]
fn an_unanswered_unit_whose_entry_was_altered_is_not_sent_again() {
    // Two ops make one unit. The entry of the plan holds its fields.
    let plan = |ann: &Book, clock: &TestClock| {
        ann.records().create(key("order/1"), fields(json!({"a": 1}))).unwrap();
        ann.records().update(key("order/1"), fields(json!({"b": 1000}))).unwrap();
        clock.advance(10_000);
        let NextStep::Exchange(request) = ann.exchange().prepare(&ask(true)).unwrap() else {
            panic!("there is something")
        };
        assert_eq!(request.units.len(), 1);
    };
    not_sent(plan, r#""a":1,"b":1000"#, r#""a":1,"b":9000"#);
}

#[test]
fn a_row_that_was_altered_is_neither_shown_nor_sent_and_can_be_folded_anew() {
    let disk = Disk::new();
    let server = Server::new(&disk.clock);
    let ann = disk.open().unwrap();
    ann.records().create(key("order/1"), fields(json!({"amount": 1000}))).unwrap();
    ann.close().unwrap();
    alter(&disk.path, r#""amount":1000"#, r#""amount":9000"#, false);
    let ann = disk.open().unwrap();
    let error = ann.records().get(&key("order/1")).unwrap_err();
    assert!(error.to_string().contains("folded from the log"), "{error}");
    assert!(ann.records().list(&key("order/1").entity, None, 10).is_err());
    assert!(
        ann.records().update(key("order/1"), fields(json!({"more": 1}))).is_err(),
        "nothing is built upon it"
    );
    drop(ann);
    let ann = disk.open().unwrap();
    disk.clock.advance(10_000);
    assert!(synced(&ann, &server).is_err());
    assert_eq!(server.record("order/1"), None);
    ann.audit().rebuild(|_| {}).unwrap();
    assert_eq!(view(&ann, "order/1"), Some(json!({"amount": 1000})));
    synced(&ann, &server).unwrap();
    assert_eq!(server.record("order/1"), Some(json!({"amount": 1000})));
}

#[test]
fn what_an_altered_entry_would_be_judged_by_is_not_used() {
    let disk = Disk::new();
    let (server, bob) = (Server::new(&disk.clock), book("bob", &disk.clock));
    let ann = disk.open().unwrap();
    ann.records().create(key("order/1"), fields(json!({"t": 1}))).unwrap();
    disk.clock.advance(10_000);
    sync(&ann, &server);
    sync(&bob, &server);
    ann.records().update(key("order/1"), fields(json!({"amount": 1000}))).unwrap();
    bob.records().update(key("order/1"), fields(json!({"amount": 2000}))).unwrap();
    disk.clock.advance(10_000);
    sync(&bob, &server);
    ann.close().unwrap();
    alter(&disk.path, r#""amount":1000"#, r#""amount":9000"#, true);
    let result = disk.open().and_then(|ann| {
        // The exchange only asks for a page, so that the page meets the altered op.
        let NextStep::Exchange(request) = ann.exchange().prepare(&ask(false))? else {
            panic!("there is a page")
        };
        ann.exchange().apply_answer(&request, server.answer(&request)).map(drop)
    });
    damaged_entry(result);
    assert_eq!(server.record("order/1"), Some(json!({"t": 1, "amount": 2000})));
}

#[test]
fn the_history_and_an_undo_do_not_tell_what_was_altered() {
    let disk = Disk::new();
    let ann = disk.open().unwrap();
    let made = ann.records().create(key("order/1"), fields(json!({"amount": 1000}))).unwrap();
    for number in 0..3 {
        ann.records().update(key("order/1"), fields(json!({"n": number}))).unwrap();
    }
    ann.close().unwrap();
    alter(&disk.path, r#""amount":1000"#, r#""amount":9000"#, true);
    let place = match made {
        fieldbook::Written::Op { place, .. } => place,
        fieldbook::Written::Unchanged => panic!("it was written"),
    };
    damaged_entry(disk.open().and_then(|ann| ann.queue().op(place)));
    damaged_entry(disk.open().and_then(|ann| ann.queue().undo(place)));
    damaged_entry(disk.open().and_then(|ann| ann.audit().rebuild(|_| {})));
}

/// A book whose damaged entry is not read any more goes on.
#[test]
fn what_nobody_has_to_read_stops_nobody() {
    let disk = Disk::new();
    let server = Server::new(&disk.clock);
    let ann = disk.open().unwrap();
    ann.records().create(key("order/1"), fields(json!({"amount": 1000}))).unwrap();
    disk.clock.advance(10_000);
    sync(&ann, &server);
    ann.close().unwrap();
    alter(&disk.path, r#""amount":1000"#, r#""amount":9000"#, true);
    let ann = disk.open().unwrap();
    ann.records().create(key("order/2"), fields(json!({"amount": 5}))).unwrap();
    disk.clock.advance(10_000);
    synced(&ann, &server).unwrap();
    assert_eq!(server.record("order/2"), Some(json!({"amount": 5})));
    assert_eq!(view(&ann, "order/1"), Some(json!({"amount": 1000})), "the row is what it was");
}

#[test]
fn who_writes_goes_on_beside_a_sync_that_meets_damage() {
    let disk = Disk::new();
    let (server, bob) = (Server::new(&disk.clock), book("bob", &disk.clock));
    let ann = disk.open().unwrap();
    ann.records().create(key("order/1"), fields(json!({"t": 1}))).unwrap();
    disk.clock.advance(10_000);
    sync(&ann, &server);
    bob.records().create(key("order/2"), fields(json!({"amount": 1000}))).unwrap();
    disk.clock.advance(10_000);
    sync(&bob, &server);
    // The entry of a page is after the anchor, and that entry is altered.
    sync(&ann, &server);
    ann.close().unwrap();
    alter(&disk.path, r#""amount":1000"#, r#""amount":9000"#, true);
    let ann = disk.open().unwrap();
    ann.records().create(key("order/3"), fields(json!({"t": 3}))).unwrap();
    disk.clock.advance(10_000);
    damaged_entry(synced(&ann, &server));
    ann.records().create(key("order/4"), fields(json!({"t": 4}))).unwrap();
    assert_eq!(view(&ann, "order/2"), Some(json!({"amount": 1000})));
    assert_eq!(server.record("order/3"), None, "a head that nobody can vouch for is not claimed");
}

#[test]
fn a_failure_is_no_reason_to_hide_the_damage() {
    let disk = Disk::new();
    let ann = disk.open().unwrap();
    ann.records().create(key("order/1"), fields(json!({"amount": 1000}))).unwrap();
    ann.close().unwrap();
    alter(&disk.path, r#""amount":1000"#, r#""amount":9000"#, true);
    disk.clock.advance(10_000);
    let never = FnRemote::new(|_: &fieldbook::sync::protocol::ExchangeRequest| {
        Err(Failure::Unreachable { code: "refused" }.into())
    });
    let result = disk.open().and_then(|ann| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(ann.sync(&never, &RunOptions::default())).map(drop)
    });
    damaged_entry(result);
}
