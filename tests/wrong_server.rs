//! A device reaches a wrong server, or the right one with another tenant's token. Once, one such
//! contact stopped the book for good: it sent no further request to the right server. A person
//! could only accept the wrong server, and the confirmed records were lost. Now a book goes on with
//! the right server as soon as that server answers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on panics")]

mod common;

use std::sync::Arc;

use common::{Server, TestClock, assert_sound, book, fields, key, options, sync, view};
use fieldbook::audit::entry::ParkScope;
use fieldbook::error::NotPossible;
use fieldbook::sync::{ServerEpoch, ServerId, TenantId};
use fieldbook::{Book, Error, SyncState};
use fieldbook_core::authority::MemoryAuthority;
use serde_json::json;

fn other_server(clock: &Arc<TestClock>, number: u8) -> Server {
    let server = Server::new(clock);
    let (id, epoch) =
        (ServerId::from_bytes([number; 16]), ServerEpoch::from_bytes([number + 100; 16]));
    *server.authority.lock().unwrap() = MemoryAuthority::new(id, epoch);
    server
}

/// Makes a tenant of one server, always the same.
fn tenant(clock: &Arc<TestClock>, number: u8) -> Server {
    let (id, epoch) = (ServerId::from_bytes([7; 16]), ServerEpoch::from_bytes([8; 16]));
    let server = Server::new(clock);
    let authority = MemoryAuthority::new(id, epoch).of_tenant(TenantId::from_bytes([number; 16]));
    *server.authority.lock().unwrap() = authority;
    server
}

fn records(server: &Server) -> usize {
    server.authority.lock().unwrap().records().count()
}

fn entries(book: &Book) -> u64 {
    book.audit().head().unwrap().unwrap().seq.number()
}

#[test]
fn the_right_server_needs_no_confirmation() {
    let clock = TestClock::starting();
    let (right, wrong, ann) = (Server::new(&clock), other_server(&clock, 1), book("ann", &clock));
    ann.records().create(key("lead/1"), fields(json!({"a": 1}))).unwrap();
    sync(&ann, &right);
    ann.records().create(key("lead/2"), fields(json!({"a": 2}))).unwrap();
    sync(&ann, &wrong);
    assert_eq!(ann.status().state, SyncState::NeedsServerConfirmed);
    assert_eq!(records(&wrong), 0, "nothing is given to a server that the book does not belong to");

    let before = entries(&ann);
    for _ in 0..3 {
        sync(&ann, &wrong);
    }
    assert_eq!(entries(&ann), before, "that it is still the wrong one is no news");
    assert_eq!(wrong.requests.lock().unwrap().len(), 4, "each sync asks once");
    assert!(wrong.requests.lock().unwrap().iter().skip(1).all(|request| request.units.is_empty()));

    right.requests.lock().unwrap().clear();
    sync(&ann, &right);
    assert_eq!(right.record("lead/2"), Some(json!({"a": 2})));
    assert_eq!((ann.status().pending, ann.status().state), (0, SyncState::Idle));
    let probe = right.requests.lock().unwrap().first().cloned().unwrap();
    assert!(probe.units.is_empty() && probe.page_limit == 0, "first it asks who is there");
    assert_sound(&ann);
}

#[test]
fn a_book_that_is_opened_anew_for_each_sync_goes_on_too() {
    let clock = TestClock::starting();
    let (right, wrong) = (Server::new(&clock), other_server(&clock, 1));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ann.book");
    let once = |server: &Server| {
        let book = Book::open_or_create(&path, options("ann", &clock)).unwrap();
        sync(&book, server);
        book.close().unwrap();
    };
    once(&right);
    let book = Book::open_or_create(&path, options("ann", &clock)).unwrap();
    book.records().create(key("lead/1"), fields(json!({"a": 1}))).unwrap();
    sync(&book, &right);
    book.records().create(key("lead/2"), fields(json!({"a": 2}))).unwrap();
    book.close().unwrap();
    once(&wrong);
    once(&wrong);
    once(&right);
    assert_eq!(right.record("lead/2"), Some(json!({"a": 2})));
    assert_eq!(records(&wrong), 0);
}

#[test]
fn another_tenant_of_the_server_is_told_as_that_and_the_right_one_goes_on() {
    let clock = TestClock::starting();
    let (right, wrong, ann) = (tenant(&clock, 1), tenant(&clock, 2), book("ann", &clock));
    ann.records().create(key("lead/1"), fields(json!({"a": 1}))).unwrap();
    sync(&ann, &right);
    let ben = book("ben", &clock);
    ben.records().create(key("lead/1"), fields(json!({"other": true}))).unwrap();
    ben.records().create(key("lead/9"), fields(json!({"other": true}))).unwrap();
    sync(&ben, &wrong);
    ann.records().create(key("lead/2"), fields(json!({"a": 2}))).unwrap();
    sync(&ann, &wrong);
    assert_eq!(ann.status().state, SyncState::NeedsAuth { code: "other_tenant".to_owned() });
    assert_eq!(records(&wrong), 2, "the request named the tenant that it was made for");
    assert_eq!(view(&ann, "lead/1"), Some(json!({"a": 1})), "nothing of its page was taken");
    assert_eq!(view(&ann, "lead/9"), None);
    let parks = ann.snapshot().unwrap().state().unwrap().parks;
    assert!(
        matches!(parks.as_slice(), [(ParkScope::Tenant(_), code)] if code == "other_tenant"),
        "{parks:?}"
    );

    sync(&ann, &right);
    assert_eq!(right.record("lead/2"), Some(json!({"a": 2})));
    assert_eq!((ann.status().pending, ann.status().state), (0, SyncState::Idle));
    assert_sound(&ann);
}

#[test]
fn a_person_accepts_the_named_one_of_two() {
    let clock = TestClock::starting();
    let (first, second) = (other_server(&clock, 1), other_server(&clock, 2));
    let (right, ann) = (Server::new(&clock), book("ann", &clock));
    ann.records().create(key("lead/1"), fields(json!({"a": 1}))).unwrap();
    sync(&ann, &right);
    assert!(
        matches!(ann.servers().accept_only(), Err(Error::NotPossible(NotPossible::NoOtherServer))),
        "nobody else has answered"
    );
    sync(&ann, &first);
    sync(&ann, &second);
    let waiting = ann.servers().candidates();
    assert_eq!(
        waiting.iter().map(|one| one.server).collect::<Vec<_>>(),
        [ServerId::from_bytes([1; 16]), ServerId::from_bytes([2; 16])]
    );
    assert!(
        matches!(ann.servers().accept_only(), Err(Error::NotPossible(NotPossible::SeveralServers))),
        "one of two is not picked"
    );
    ann.servers().accept(waiting[0]).unwrap();
    assert!(ann.servers().candidates().is_empty());
    for _ in 0..2 {
        sync(&ann, &first);
    }
    assert_eq!(first.record("lead/1"), Some(json!({"a": 1})), "what it lacks is offered to it");
    assert_eq!(records(&second), 0);
    assert!(
        ann.servers().accept(waiting[1]).is_err(),
        "who is no longer asked about cannot be accepted"
    );
    // The former server is another server now.
    sync(&ann, &right);
    assert_eq!(ann.status().state, SyncState::NeedsServerConfirmed);
    sync(&ann, &first);
    assert_eq!(ann.status().state, SyncState::Idle);
    assert_sound(&ann);
}

#[test]
fn another_tenant_can_be_accepted_and_the_book_is_then_its() {
    let clock = TestClock::starting();
    let (former, next, ann) = (tenant(&clock, 1), tenant(&clock, 2), book("ann", &clock));
    ann.records().create(key("lead/1"), fields(json!({"a": 1}))).unwrap();
    sync(&ann, &former);
    sync(&ann, &next);
    ann.servers().accept_only().unwrap();
    for _ in 0..2 {
        sync(&ann, &next);
    }
    assert_eq!(next.record("lead/1"), Some(json!({"a": 1})));
    sync(&ann, &former);
    assert_eq!(ann.status().state, SyncState::NeedsAuth { code: "other_tenant".to_owned() });
    assert_sound(&ann);
}

/// A store goes back to a backup without a new epoch, and the operator restores the newer store
/// soon after.
#[test]
fn a_server_that_was_behind_and_caught_up_needs_no_confirmation() {
    let clock = TestClock::starting();
    let (server, ann) = (Server::new(&clock), book("ann", &clock));
    ann.records().create(key("lead/1"), fields(json!({"a": 1}))).unwrap();
    let backup = server.authority.lock().unwrap().clone();
    sync(&ann, &server);
    ann.records().create(key("lead/2"), fields(json!({"a": 2}))).unwrap();
    sync(&ann, &server);
    let newer = server.authority.lock().unwrap().clone();
    server.authority.lock().unwrap().clone_from(&backup);
    ann.records().create(key("lead/3"), fields(json!({"a": 3}))).unwrap();
    sync(&ann, &server);
    assert_eq!(ann.status().state, SyncState::NeedsServerConfirmed);
    let before = entries(&ann);
    for _ in 0..3 {
        sync(&ann, &server);
    }
    assert_eq!(entries(&ann), before, "that it is still behind is no news");
    server.authority.lock().unwrap().clone_from(&newer);
    sync(&ann, &server);
    assert_eq!(server.record("lead/3"), Some(json!({"a": 3})));
    assert_eq!((ann.status().pending, ann.status().state), (0, SyncState::Idle));
    assert_sound(&ann);
}
