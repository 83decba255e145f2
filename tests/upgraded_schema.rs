//! A book that an older version of an app wrote, opened by a newer version. Pending ops are upcast,
//! or kept until they can be upcast, and never lost. The book is a file in `tests/golden/schema-1`,
//! written by `the_golden_book_is_written` with `FIELDBOOK_WRITE_GOLDEN=1` when format 2 was made,
//! and never since.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Server, TestClock, assert_sound, fields, key, options, sync, view};
use fieldbook::audit::Seq;
use fieldbook::schema::Upcaster;
use fieldbook::sync::protocol::Failure;
use fieldbook::sync::{ExchangeParams, NextStep, ParkReason, RecordStatus, Resume};
use fieldbook::{Book, EntityRules, EntityType, Fields, Schema, SyncState};
use fieldbook_core::log::{Store, StoreOptions};
use serde_json::json;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/schema-1/queued.golden");

fn rules(schema_version: u32) -> EntityRules {
    EntityRules { schema_version, undo_window: std::time::Duration::ZERO, ..EntityRules::default() }
}

fn declared(rules: EntityRules) -> Schema {
    Schema::closed().declare(EntityType::parse("lead").unwrap(), rules)
}

/// Returns the declarations of version 2, which renames `name` to `title`.
fn upgraded() -> Schema {
    declared(rules(2).upcast_from(1, |_, mut fields| {
        if let Some(name) = fields.remove("name") {
            fields.set("title", name);
        }
        fields
    }))
}

fn open(path: &Path, clock: &Arc<TestClock>, schema: Schema) -> Book {
    Book::open(path, options("ann", clock).schema(schema)).unwrap()
}

fn golden_copy() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queued.book");
    std::fs::copy(GOLDEN, &path).unwrap();
    (folder, path)
}

fn one_op() -> ExchangeParams {
    ExchangeParams {
        first: true,
        push: true,
        pull: false,
        batch_ops: 1,
        batch_bytes: 1_000_000,
        page_limit: 0,
    }
}

/// The book has a dead letter, a unit whose answer was lost, and ops that were never sent.
#[test]
fn the_golden_book_is_written() {
    if std::env::var_os("FIELDBOOK_WRITE_GOLDEN").is_none() {
        return;
    }
    std::fs::create_dir_all(Path::new(GOLDEN).parent().unwrap()).unwrap();
    drop(std::fs::remove_file(GOLDEN));
    let clock = TestClock::starting();
    let book = Book::create_new(GOLDEN, options("ann", &clock).schema(declared(rules(1)))).unwrap();
    book.records().create(key("lead/dead"), fields(json!({"name": "Dora"}))).unwrap();
    let NextStep::Exchange(request) = book.exchange().prepare(&one_op()).unwrap() else {
        panic!("there is something to send")
    };
    book.exchange().fail(&request, &Failure::TooLarge).unwrap();
    book.records().create(key("lead/lost"), fields(json!({"name": "Lou"}))).unwrap();
    assert!(matches!(book.exchange().prepare(&one_op()).unwrap(), NextStep::Exchange(_)));
    book.records()
        .create(key("lead/new"), fields(json!({"name": "Nell", "stage": "new"})))
        .unwrap();
    book.records().update(key("lead/new"), fields(json!({"name": "Nelly"}))).unwrap();
    book.close().unwrap();
    // A book has spare room to grow. A tracked file does not need that room.
    let mut store = Store::open(Path::new(GOLDEN), &StoreOptions::default()).unwrap();
    while store.compact().unwrap() {}
}

#[test]
fn what_an_older_version_queued_is_read_and_sent_in_the_new_form() {
    let (_folder, path) = golden_copy();
    let clock = TestClock::starting();
    let before = open(&path, &clock, declared(rules(1)));
    let (head, last) = (
        before.audit().head().unwrap().unwrap(),
        before.audit().entries(Seq::new(1), 100).unwrap(),
    );
    before.close().unwrap();

    let book = open(&path, &clock, upgraded());
    assert_eq!(view(&book, "lead/new"), Some(json!({"title": "Nelly", "stage": "new"})));
    assert_eq!(view(&book, "lead/dead"), Some(json!({"title": "Dora"})));
    assert_eq!(
        view(&book, "lead/lost"),
        Some(json!({"title": "Lou"})),
        "what is unanswered is read in the new form, and is as it was frozen"
    );
    let entries = book.audit().entries(Seq::new(1), 100).unwrap();
    assert_eq!(entries[..last.len()], last, "the log only grew");
    assert_eq!(entries[last.len() - 1].hash, head.hash);
    assert_sound(&book);
    let head = book.audit().head().unwrap();
    book.close().unwrap();
    let book = open(&path, &clock, upgraded());
    assert_eq!(book.audit().head().unwrap(), head, "it is turned once");

    let server = Server::new(&clock);
    book.records().update(key("lead/new"), fields(json!({"stage": "hot"}))).unwrap();
    let dead = book.dead_letters().all().unwrap().remove(0).op;
    book.dead_letters().retry(vec![dead]).unwrap();
    sync(&book, &server);
    assert_eq!(book.status().pending, 0);
    assert_eq!(server.record("lead/new"), Some(json!({"title": "Nelly", "stage": "hot"})));
    assert_eq!(server.record("lead/dead"), Some(json!({"title": "Dora"})));
    assert_eq!(server.record("lead/lost"), Some(json!({"name": "Lou"})));
    let requests = server.requests.lock().unwrap();
    let units = requests.iter().flat_map(|request| &request.units).flat_map(|unit| &unit.changes);
    let sent: Vec<_> = units
        .map(|change| (change.key.id.as_str().to_owned(), change.ops.len(), change.schema_version))
        .collect();
    let expected = [("lost", 1, 1), ("dead", 1, 2), ("new", 2, 2), ("new", 1, 2)];
    let expected = expected.map(|(id, ops, version)| (id.to_owned(), ops, version));
    assert_eq!(sent, expected, "what was made under different versions is not sent as one");
    drop(requests);
    assert_sound(&book);
}

#[test]
fn without_an_upcaster_it_is_kept_with_the_reason_until_a_version_of_the_app_has_one() {
    let (_folder, path) = golden_copy();
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let book = open(&path, &clock, declared(rules(2)));
    assert_eq!(view(&book, "lead/new"), Some(json!({"name": "Nelly", "stage": "new"})));
    sync(&book, &server);
    assert_eq!(
        (server.record("lead/new"), server.record("lead/lost")),
        (None, Some(json!({"name": "Lou"})))
    );
    let held = RecordStatus::Parked(ParkReason::NoUpcaster);
    assert_eq!(book.record_status(&key("lead/new")).unwrap(), held);
    let said = book.explain(&key("lead/new")).unwrap().to_string();
    assert!(said.contains("schema version 1 of 2") && said.contains("upcaster"), "{said}");
    assert_eq!(book.status().pending, 3);
    assert_eq!(book.status().state, SyncState::NeedsUpgrade { code: "schema_version".to_owned() });
    assert_sound(&book);
    book.close().unwrap();

    let book = open(&path, &clock, upgraded());
    sync(&book, &server);
    assert_eq!(server.record("lead/new"), Some(json!({"title": "Nelly", "stage": "new"})));
    assert_eq!(book.status().pending, 1, "the dead letter");
    assert!(matches!(book.status().state, SyncState::NeedsAttention { dead_letters: 1, .. }));
    assert_sound(&book);
}

/// The op of a stale unit waits again in its old form, and is upcast when it is planned again.
#[test]
fn what_comes_back_stale_is_turned_when_it_is_planned_anew() {
    let (_folder, path) = golden_copy();
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let other = common::book("ben", &clock);
    other.records().create(key("lead/lost"), fields(json!({"town": "t"}))).unwrap();
    sync(&other, &server);
    let book = open(&path, &clock, upgraded());
    sync(&book, &server);
    assert_eq!(server.record("lead/lost"), Some(json!({"title": "Lou", "town": "t"})));
    assert_sound(&book);
}

#[test]
fn what_an_upcaster_makes_too_large_is_parked_and_not_lost() {
    let (_folder, path) = golden_copy();
    let clock = TestClock::starting();
    let grown = rules(2).upcast_from(1, |_, mut fields: Fields| {
        fields.set("title", "x".repeat(2 * 1024 * 1024));
        fields
    });
    let book = open(&path, &clock, declared(grown));
    assert_eq!(
        book.record_status(&key("lead/new")).unwrap(),
        RecordStatus::Parked(ParkReason::UpcastTooLarge)
    );
    let waits = SyncState::NeedsAttention { dead_letters: 1, conflicts: 0, parked: 3, held: 0 };
    assert_eq!(book.status().state, waits, "there is no conflict in which somebody could choose");
    let head = book.audit().head().unwrap();
    book.close().unwrap();
    let unchanged = EntityRules { upcasters: [(1, Upcaster::unchanged())].into(), ..rules(2) };
    let book = open(&path, &clock, declared(unchanged));
    assert_eq!(view(&book, "lead/new"), Some(json!({"name": "Nelly", "stage": "new"})));
    assert!(
        book.audit().head().unwrap().unwrap().seq > head.unwrap().seq,
        "it was turned by the next version"
    );
    book.servers().resume(Resume::Upgraded).unwrap();
    let server = Server::new(&clock);
    sync(&book, &server);
    assert_eq!(server.record("lead/new"), Some(json!({"name": "Nelly", "stage": "new"})));
    assert_sound(&book);
}
