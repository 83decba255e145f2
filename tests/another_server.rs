//! The server is restored from a backup, or another server answers. The book stops and shows the
//! reason. After a person has accepted the server, the book offers again the records that the
//! server lacks.

mod common;

use common::{Server, TestClock, assert_sound, book, fields, key, sync, view};
use fieldbook::SyncState;
use serde_json::json;

#[test]
fn what_a_restored_server_has_lost_is_offered_again_by_whoever_has_it() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let (ann, ben) = (book("ann", &clock), book("ben", &clock));
    ann.records().create(key("lead/1"), fields(json!({"n": 1}))).unwrap();
    ann.records().create(key("lead/2"), fields(json!({"n": 1}))).unwrap();
    sync(&ann, &server);
    sync(&ben, &server);
    let backup = server.authority.lock().unwrap().clone();
    clock.advance(1_000);
    ben.records().update(key("lead/1"), fields(json!({"n": 2}))).unwrap();
    ben.records().create(key("lead/3"), fields(json!({"n": 3}))).unwrap();
    ben.records().delete(key("lead/2")).unwrap();
    sync(&ben, &server);
    sync(&ann, &server);
    clock.advance(1_000);
    ben.records().update(key("lead/1"), fields(json!({"n": 4}))).unwrap();
    sync(&ben, &server);

    server.restore(&backup, 99);
    let head = ann.audit().head().unwrap().unwrap().seq;
    sync(&ann, &server);
    assert_eq!(ann.status().state, SyncState::NeedsServerConfirmed);
    assert_eq!(ann.audit().head().unwrap().unwrap().seq, head.next(), "only the park was written");
    assert_eq!(
        view(&ann, "lead/1"),
        Some(json!({"n": 2})),
        "nothing jumps back before somebody confirms"
    );
    ann.servers().accept_only().unwrap();
    sync(&ann, &server);
    sync(&ben, &server);
    ben.servers().accept_only().unwrap();
    for _ in 0..2 {
        sync(&ben, &server);
        sync(&ann, &server);
    }
    for book in [&ann, &ben] {
        assert_eq!(
            view(book, "lead/1"),
            Some(json!({"n": 4})),
            "the newest state that any device had"
        );
        assert_eq!(view(book, "lead/2"), None);
        assert_eq!(view(book, "lead/3"), Some(json!({"n": 3})));
        assert_eq!((book.status().pending, book.status().state), (0, SyncState::Idle));
        assert_sound(book);
    }
    assert_eq!(server.record("lead/1"), Some(json!({"n": 4})));
    assert_eq!((server.record("lead/2"), server.record("lead/3")), (None, Some(json!({"n": 3}))));
}

#[test]
fn an_edit_that_waits_when_the_server_changes_reaches_the_new_one_with_its_whole_record() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let empty = server.authority.lock().unwrap().clone();
    let ann = book("ann", &clock);
    ann.records().create(key("lead/1"), fields(json!({"name": "Ann", "n": 1}))).unwrap();
    sync(&ann, &server);
    clock.advance(1_000);
    ann.records().update(key("lead/1"), fields(json!({"n": 2}))).unwrap();
    server.restore(&empty, 99);
    sync(&ann, &server);
    ann.servers().accept_only().unwrap();
    for _ in 0..3 {
        sync(&ann, &server);
    }
    assert_eq!(server.record("lead/1"), Some(json!({"name": "Ann", "n": 2})));
    assert_eq!(ann.status().pending, 0);
    assert_sound(&ann);
}

#[test]
fn a_server_that_was_restored_twice_from_one_backup_does_not_take_an_edit_for_one_of_its_own_life()
{
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let backup = server.authority.lock().unwrap().clone();
    let (ann, ben) = (book("ann", &clock), book("ben", &clock));
    server.restore(&backup, 98);
    ann.records().create(key("lead/1"), fields(json!({"by": "ann"}))).unwrap();
    sync(&ann, &server);
    clock.advance(1_000);
    ann.records().update(key("lead/1"), fields(json!({"by": "ann again"}))).unwrap();
    // In the second epoch the record gets the same version as in the first.
    server.restore(&backup, 99);
    ben.records().create(key("lead/1"), fields(json!({"by": "ben"}))).unwrap();
    sync(&ben, &server);
    sync(&ann, &server);
    assert_eq!(ann.status().state, SyncState::NeedsServerConfirmed);
    assert_eq!(
        server.record("lead/1"),
        Some(json!({"by": "ben"})),
        "nothing of the former epoch was applied"
    );
    ann.servers().accept_only().unwrap();
    for _ in 0..3 {
        sync(&ann, &server);
        sync(&ben, &server);
    }
    assert_eq!(server.record("lead/1"), Some(json!({"by": "ann again"})), "hers was later");
    let conflicts = ann.conflicts().all().unwrap();
    assert!(
        conflicts.iter().any(|conflict| conflict.remote.as_str().contains("ben")),
        "and that is on record"
    );
    assert_eq!(view(&ben, "lead/1"), Some(json!({"by": "ann again"})));
    assert_eq!((ann.status().pending, ben.status().pending), (0, 0));
    for book in [&ann, &ben] {
        assert_sound(book);
    }
}
