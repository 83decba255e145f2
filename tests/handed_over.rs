//! The ops of a user who is gone: they are exported, handed over to another user, or discarded,
//! each on record, and none is lost or takes effect twice.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::{Server, TestClock, assert_sound, book, fields, key, sync, sync_with, view};
use fieldbook::audit::Seq;
use fieldbook::audit::entry::{Control, Decision, Meta, PersonAction};
use fieldbook::sync::protocol::{ExchangeRequest, Failure};
use fieldbook::sync::{FnRemote, UserAction};
use fieldbook::{Actor, Book, Error, Mutation};
use serde_json::json;

fn actor(name: &str) -> Actor {
    Actor::parse(name).unwrap()
}

fn of_ann(book: &Book) -> Vec<fieldbook::record::OpId> {
    let page = book.failed().of(actor("ann")).page(None, 100).unwrap();
    page.items.into_iter().map(|item| item.op.op).collect()
}

/// Ann made a lead and changed it, and never synced. Ben uses her device.
fn left_behind(clock: &std::sync::Arc<TestClock>) -> Book {
    let book = book("ann", clock);
    book.records().create(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap();
    book.records().update(key("lead/1"), fields(json!({"stage": "hot"}))).unwrap();
    book.transaction(vec![
        Mutation::create(key("lead/2"), fields(json!({"name": "Bo"}))),
        Mutation::create(key("note/1"), fields(json!({"text": "x"}))),
    ])
    .unwrap();
    book.act_as(actor("ben"));
    book
}

#[test]
fn what_is_handed_over_leaves_with_the_other_credentials_as_it_was_made() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let book = left_behind(&clock);
    book.records().update(key("lead/1"), fields(json!({"town": "x"}))).unwrap();
    sync(&book, &server);
    assert_eq!(server.record("lead/1"), None, "Ben's own change waits for the creation");
    let ops = of_ann(&book);
    assert_eq!(ops.len(), 4);
    let item = book.failed().of(actor("ann")).page(None, 1).unwrap().items.remove(0);
    assert_eq!(item.op.actions, [UserAction::HandOver, UserAction::Discard]);
    let stamp = book.queue().list().unwrap()[0].op.made_at;
    clock.advance(60_000);
    assert_eq!(book.failed().hand_over(vec![ops[0], ops[2]], &actor("ben")).unwrap(), 4);
    assert_eq!(of_ann(&book), []);
    assert_sound(&book);
    assert_eq!(book.queue().list().unwrap()[0].op.made_at, stamp, "it is the same op");
    sync(&book, &server);
    assert_eq!(server.record("lead/1"), Some(json!({"name": "Ann", "stage": "hot", "town": "x"})));
    assert_eq!(server.record("note/1"), Some(json!({"text": "x"})));
    assert_eq!(book.status().pending, 0);
    let requests = server.requests.lock().unwrap();
    assert!(requests.iter().all(|request| request.actor == actor("ben")));
    drop(requests);
    assert_sound(&book);
    let told = book.audit().story(Some(&key("lead/1")), Seq::ZERO, Seq::new(u64::MAX)).unwrap();
    let told = told.iter().map(|paragraph| paragraph.text()).collect::<Vec<_>>().join("\n");
    assert!(told.contains("ben handed it over.") && told.contains("sent by ben"), "{told}");
}

#[test]
fn an_old_edit_wins_no_conflict_because_it_was_handed_over_later() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let (other, book) = (book("cleo", &clock), book("ann", &clock));
    book.records().create(key("lead/1"), fields(json!({"stage": "new"}))).unwrap();
    sync(&book, &server);
    sync(&other, &server);
    book.records().update(key("lead/1"), fields(json!({"stage": "by Ann"}))).unwrap();
    clock.advance(60_000);
    other.records().update(key("lead/1"), fields(json!({"stage": "by Cleo"}))).unwrap();
    sync(&other, &server);
    clock.advance(60_000);
    book.act_as(actor("ben"));
    book.failed().hand_over(of_ann(&book), &actor("ben")).unwrap();
    sync(&book, &server);
    assert_eq!(server.record("lead/1"), Some(json!({"stage": "by Cleo"})));
    assert_eq!(book.conflicts().count().unwrap().all, 1, "the loss is on record");
}

/// A unit of Ann arrived and its answer was lost. It is abandoned when it is handed over, and takes
/// effect once.
#[test]
fn a_unit_that_arrived_without_an_answer_takes_effect_once() {
    for arrives in [true, false] {
        let clock = TestClock::starting();
        let server = Server::new(&clock);
        let book = book("ann", &clock);
        book.records().create(key("lead/1"), fields(json!({"n": 1}))).unwrap();
        let to = server.clone();
        let lossy = FnRemote::new(move |request: &ExchangeRequest| {
            if arrives {
                drop(to.try_answer(request)?);
            }
            Err(Failure::Unreachable { code: "lost" }.into())
        });
        sync_with(&book, &lossy);
        assert_eq!(server.record("lead/1").is_some(), arrives);
        book.act_as(actor("ben"));
        assert_eq!(of_ann(&book).len(), 1);
        book.failed().hand_over(of_ann(&book), &actor("ben")).unwrap();
        assert_sound(&book);
        sync(&book, &server);
        assert_eq!((server.record("lead/1"), book.status().pending), (Some(json!({"n": 1})), 0));
        assert_eq!(book.conflicts().count().unwrap().all, 0);
        assert_sound(&book);
    }
}

#[test]
fn what_is_discarded_ends_on_record_with_its_reason() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let book = left_behind(&clock);
    book.dead_letters().discard(of_ann(&book), "Ann has left").unwrap();
    assert_eq!((of_ann(&book), view(&book, "lead/1")), (vec![], None));
    sync(&book, &server);
    assert_eq!((server.record("lead/1"), book.status().pending), (None, 0));
    let entries = book.audit().entries(Seq::ZERO, 100).unwrap();
    let decided = entries.iter().find_map(|entry| match &entry.meta {
        Meta::Control(Control::PersonActed(PersonAction::Discard { reason }, decisions)) => {
            Some((entry.header.actor.clone(), entry.item(*reason)?, decisions))
        }
        _ => None,
    });
    let (by, reason, decisions) = decided.unwrap();
    assert_eq!((by, reason), (actor("ben"), b"Ann has left".as_slice()));
    assert!(decisions.iter().all(|it| matches!(it, Decision::Discarded { .. })));
    assert_sound(&book);
}

#[test]
fn the_list_is_an_export_of_what_was_left_behind() {
    let book = left_behind(&TestClock::starting());
    let items = book.failed().of(actor("ann")).page(None, 100).unwrap().items;
    let lines: Vec<_> = items.iter().map(|item| serde_json::to_value(item).unwrap()).collect();
    let short = |line: &serde_json::Value| {
        (line["key"].clone(), line["kind"].clone(), line["actor"].clone(), line["fields"].clone())
    };
    assert_eq!(
        short(&lines[1]),
        (json!("lead/1"), json!("update"), json!("ann"), json!({"stage": "hot"}))
    );
    assert_eq!(lines.len(), 4);
}

#[test]
fn what_cannot_be_handed_over_changes_nothing() {
    let book = left_behind(&TestClock::starting());
    let head = book.audit().head().unwrap();
    let ops = of_ann(&book);
    let refused = book.failed().hand_over(ops.clone(), &actor("ann")).unwrap_err();
    assert!(refused.to_string().contains("own already"), "{refused}");
    let gone = "00000000-0000-7000-8000-000000000000".parse().unwrap();
    let refused = book.failed().hand_over(vec![ops[0], gone], &actor("ben"));
    assert!(matches!(refused, Err(Error::NotPossible(_))));
    assert_eq!(book.audit().head().unwrap(), head);
}
