//! An op that the server would refuse is held for the user. The reason is in the record's status,
//! in the explanation and in the plan, and the book's status needs attention. Once the reason has
//! gone, the op is sent without a further call.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{Server, TestClock, assert_sound, fields, key, options, sync, view};
use fieldbook::conflict::Undone;
use fieldbook::schema::{Outgoing, Reference};
use fieldbook::sync::{Hold, RecordStatus};
use fieldbook::{Book, EntityRules, EntityType, Mutation, RunOptions, Schema, SyncState};
use serde_json::json;

fn needs_a_name(outgoing: &Outgoing<'_>) -> Result<(), String> {
    match outgoing.image {
        Some(image) if image.get("name").is_none() => Err("a lead needs a name".to_owned()),
        _ => Ok(()),
    }
}

fn schema(undo_window: Duration) -> Schema {
    let company = EntityType::parse("company").unwrap();
    let references = vec![Reference { field: "company".to_owned(), entity: company.clone() }];
    let lead =
        EntityRules { references, undo_window, ..EntityRules::default() }.validate(needs_a_name);
    let other = EntityRules { undo_window: Duration::ZERO, ..EntityRules::default() };
    Schema::closed().declare(EntityType::parse("lead").unwrap(), lead).declare(company, other)
}

fn open(path: &Path, clock: &Arc<TestClock>, undo_window: Duration) -> Book {
    Book::open_or_create(path, options("ann", clock).schema(schema(undo_window))).unwrap()
}

/// A book of the app, a book of another app without rules, and their server.
struct Two {
    clock: Arc<TestClock>,
    server: Server,
    book: Book,
    other: Book,
    _folder: tempfile::TempDir,
}

fn two() -> Two {
    let (clock, folder) = (TestClock::starting(), tempfile::tempdir().unwrap());
    let server = Server::new(&clock);
    let book = open(&folder.path().join("a.book"), &clock, Duration::ZERO);
    let other = common::book("ben", &clock);
    Two { clock, server, book, other, _folder: folder }
}

const fn attention(held: u64) -> SyncState {
    SyncState::NeedsAttention { dead_letters: 0, conflicts: 0, parked: 0, held }
}

#[test]
fn a_draft_is_held_with_the_apps_words_until_it_is_complete() {
    let (clock, folder) = (TestClock::starting(), tempfile::tempdir().unwrap());
    let server = Server::new(&clock);
    let path = folder.path().join("a.book");
    let book = open(&path, &clock, Duration::ZERO);
    book.records().create(key("lead/1"), fields(json!({"phone": "5"}))).unwrap();
    book.records().create(key("lead/2"), fields(json!({"name": "Ben"}))).unwrap();
    assert_eq!(book.status().state, attention(1), "at once, before anything is sent");
    sync(&book, &server);
    assert_eq!(
        (server.record("lead/1"), server.record("lead/2")),
        (None, Some(json!({"name": "Ben"})))
    );
    let hold = Hold::Refused { reason: "a lead needs a name".to_owned() };
    assert_eq!(book.record_status(&key("lead/1")).unwrap(), RecordStatus::Held(hold.clone()));
    assert!(book.queue().plan().holds.values().any(|held| *held == hold));
    let said = book.explain(&key("lead/1")).unwrap().to_string();
    assert!(said.contains("a lead needs a name"), "{said}");
    assert_eq!(book.status().state, attention(1));
    book.close().unwrap();

    let book = open(&path, &clock, Duration::ZERO);
    assert_eq!(book.status().state, attention(1), "also after a restart");
    book.records().update(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap();
    assert_eq!(book.status().state, SyncState::Idle);
    let report = sync(&book, &server);
    assert_eq!((report.units_acked, report.ops_acked), (1, 2));
    assert_eq!(server.record("lead/1"), Some(json!({"name": "Ann", "phone": "5"})));
    assert_sound(&book);
}

#[test]
fn a_reference_to_a_deleted_record_is_held_until_that_is_there_again() {
    let Two { server, book, other, .. } = &two();
    other.records().create(key("company/1"), fields(json!({"name": "Acme"}))).unwrap();
    sync(other, server);
    sync(book, server);
    book.records().create(key("lead/1"), fields(json!({"name": "Ann", "company": "1"}))).unwrap();
    assert_eq!(book.status().state, SyncState::Idle);
    other.records().delete(key("company/1")).unwrap();
    sync(other, server);
    pull(book, server);
    assert_eq!(
        book.record_status(&key("lead/1")).unwrap(),
        RecordStatus::Held(Hold::TargetDeleted(key("company/1")))
    );
    assert_eq!(book.status().state, attention(1));
    sync(book, server);
    assert_eq!(server.record("lead/1"), None);
    let said = book.explain(&key("lead/1")).unwrap().to_string();
    assert!(said.contains("company/1, which was deleted"), "{said}");

    other.records().create(key("company/1"), fields(json!({"name": "Acme again"}))).unwrap();
    sync(other, server);
    sync(book, server);
    sync(book, server);
    assert_eq!(server.record("lead/1"), Some(json!({"name": "Ann", "company": "1"})));
    assert_eq!(book.status().state, SyncState::Idle);
    assert_sound(book);
}

#[test]
fn what_can_still_be_undone_is_looked_at_when_it_would_leave() {
    let (clock, folder) = (TestClock::starting(), tempfile::tempdir().unwrap());
    let server = Server::new(&clock);
    let book = open(&folder.path().join("a.book"), &clock, Duration::from_secs(5));
    book.records().create(key("lead/1"), fields(json!({"phone": "5"}))).unwrap();
    assert_eq!(book.status().state, SyncState::Idle);
    clock.advance(6_000);
    sync(&book, &server);
    assert_eq!(book.status().state, attention(1));
    let op = book.snapshot().unwrap().tail(book.schema()).unwrap().ops().next().unwrap().1.op;
    assert!(book.dead_letters().retry(vec![op]).is_err(), "it is no dead letter");
    book.dead_letters().discard(vec![op], "not needed").unwrap();
    assert_eq!((view(&book, "lead/1"), book.status().state), (None, SyncState::Idle));
    book.records().create(key("lead/2"), fields(json!({"name": "Ben"}))).unwrap();
    let op = book.snapshot().unwrap().tail(book.schema()).unwrap().ops().next().unwrap().1.op;
    assert!(book.dead_letters().discard(vec![op], "no").is_err(), "nothing is wrong with it");
    assert_sound(&book);
}

/// Ann set a lead's company, which was deleted later, and its phone. Ben's later edit of the
/// company won. Ann's company was dropped, and still her phone was held because of it.
#[test]
fn what_a_conflict_took_from_an_edit_does_not_hold_the_rest_of_it() {
    let Two { clock, server, book, other, .. } = &two();
    other.records().create(key("company/1"), fields(json!({"name": "Acme"}))).unwrap();
    other.records().create(key("company/2"), fields(json!({"name": "Beta"}))).unwrap();
    other.records().create(key("lead/1"), fields(json!({"name": "Ann", "company": null}))).unwrap();
    sync(other, server);
    sync(book, server);
    book.records().update(key("lead/1"), fields(json!({"company": "2", "phone": "5"}))).unwrap();
    clock.advance(1_000);
    other.records().update(key("lead/1"), fields(json!({"company": "1"}))).unwrap();
    other.records().delete(key("company/2")).unwrap();
    sync(other, server);
    pull(book, server);
    assert_eq!(book.record_status(&key("lead/1")).unwrap(), RecordStatus::Pending);
    sync(book, server);
    assert_eq!(server.record("lead/1"), Some(json!({"name": "Ann", "company": "1", "phone": "5"})));
    assert_eq!(book.status().state, SyncState::Idle);
    assert_sound(book);
}

/// A lead of a deleted company waits for a correction, and a later transaction deletes it. An undo
/// of its creation has no effect, and no edit can be coalesced with it across the transaction. So
/// with undo alone the creation waited for ever.
#[test]
fn what_is_held_behind_a_transaction_and_cannot_be_undone_can_be_discarded() {
    let Two { server, book, other, .. } = &two();
    other.records().create(key("company/1"), fields(json!({"name": "Acme"}))).unwrap();
    sync(other, server);
    other.records().delete(key("company/1")).unwrap();
    sync(other, server);
    sync(book, server);
    book.records().create(key("lead/1"), fields(json!({"name": "Ann", "company": "1"}))).unwrap();
    let also = Mutation::create(key("lead/2"), fields(json!({"name": "Ben"})));
    book.transaction(vec![Mutation::delete(key("lead/1")), also]).unwrap();
    sync(book, server);
    let tail = book.snapshot().unwrap().tail(book.schema()).unwrap();
    let (place, held) = tail.ops().next().map(|(place, row)| (place, row.op)).unwrap();
    assert_eq!(book.queue().plan().holds[&place], Hold::TargetDeleted(key("company/1")));
    assert_eq!(book.queue().undo(place).unwrap(), Undone::Nothing);
    assert_eq!(book.status().state, attention(1), "and says so");

    book.dead_letters().discard(vec![held], "the company is gone").unwrap();
    sync(book, server);
    assert_eq!(
        (server.record("lead/1"), server.record("lead/2")),
        (None, Some(json!({"name": "Ben"})))
    );
    assert_eq!(book.status().state, SyncState::Idle);
    assert_sound(book);
}

/// Reads a page and sends nothing.
fn pull(book: &Book, server: &Server) {
    let options = RunOptions { pull_only: true, ..RunOptions::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(book.sync(&server.remote(), &options)).unwrap();
}
