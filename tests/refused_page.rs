//! A record that something on the way refuses in answers, as a scanner of downloads does.
//!
//! Once, every page contained the record, so the book read nothing any more. Units and pages were
//! in the same exchanges, so the sent units had no answer either and counted as the cause.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::sync::Arc;

use common::{Server, TestClock, assert_sound, book, fields, key, sync, sync_with, view};
use fieldbook::sync::protocol::{ExchangeRequest, Failure};
use fieldbook::sync::{FnRemote, RecordStatus, Stopped};
use fieldbook::{Book, Remote, SyncState};
use serde_json::json;

const HOUR: i64 = 3_600_000;

/// Returns a remote on which every answer with this word fails in this way.
fn scanned(server: &Server, word: &'static str, failure: &Failure) -> impl Remote + use<> {
    let (to, failure) = (server.clone(), failure.clone());
    FnRemote::new(move |request: &ExchangeRequest| {
        let answer = to.try_answer(request)?;
        if serde_json::to_string(&answer).unwrap().contains(word) {
            return Err(failure.clone().into());
        }
        Ok(answer)
    })
}

fn failures() -> [Failure; 5] {
    let retry_after = Some(std::time::Duration::from_secs(1));
    [
        Failure::Transient { code: "http_503".to_owned(), retry_after, marked: false },
        Failure::Unreachable { code: "not_our_server" },
        Failure::Transient { code: "http_502".to_owned(), retry_after: None, marked: false },
        Failure::Unknown { code: "answer_cut" },
        Failure::Misbehaved { code: "not_an_answer" },
    ]
}

/// Makes a server with 40 notes, of which number 25 is refused, and one lead after them.
fn written_by_ben(clock: &Arc<TestClock>) -> (Server, Book) {
    let (server, ben) = (Server::new(clock), book("ben", clock));
    for number in 0..40 {
        let text = if number == 25 { "POISON" } else { "fine" };
        ben.records().create(key(&format!("note/{number}")), fields(json!({ "t": text }))).unwrap();
    }
    ben.records().create(key("lead/1"), fields(json!({"t": "last"}))).unwrap();
    clock.advance(HOUR);
    sync(&ben, &server);
    (server, ben)
}

fn read_by(book: &Book) -> usize {
    (0..40).filter(|number| view(book, &format!("note/{number}")).is_some()).count()
}

#[test]
fn what_stands_before_it_is_read_and_what_is_sent_arrives() {
    for failure in failures() {
        let clock = TestClock::starting();
        let (server, ben) = written_by_ben(&clock);
        let ann = book("ann", &clock);
        let remote = scanned(&server, "POISON", &failure);
        for number in 0..3 {
            ann.records()
                .create(key(&format!("order/{number}")), fields(json!({"n": number})))
                .unwrap();
        }
        // The first run may end at the first lost answer.
        for _ in 0..2 {
            clock.advance(HOUR);
            sync_with(&ann, &remote);
        }
        assert_eq!(read_by(&ann), 25, "{failure:?}");
        for number in 0..3 {
            let order = key(&format!("order/{number}"));
            assert_eq!(ann.record_status(&order).unwrap(), RecordStatus::Synced, "{failure:?}");
        }
        // The report and the status name the page as the cause, and no unit.
        clock.advance(HOUR);
        let report = sync_with(&ann, &remote);
        assert_eq!(report.stopped, Stopped::PageRefused(failure.clone()));
        assert!(report.exchanges <= 4, "{} exchanges", report.exchanges);
        assert_eq!(ann.status().state, SyncState::Failed { code: "page_refused".to_owned() });
        assert_eq!((ann.status().dead_letters, report.units_isolated), (0, 0));
        // A later edit of the record by another device removes the cause, without a person at this
        // device.
        ben.records().update(key("note/25"), fields(json!({"t": "fine"}))).unwrap();
        clock.advance(HOUR);
        sync(&ben, &server);
        let report = sync_with(&ann, &remote);
        assert_eq!((report.stopped, read_by(&ann)), (Stopped::Idle, 40));
        assert!(view(&ann, "lead/1").is_some());
        assert_sound(&ann);
    }
}

#[test]
fn everything_is_read_once_it_gets_through() {
    let clock = TestClock::starting();
    let (server, _) = written_by_ben(&clock);
    let ann = book("ann", &clock);
    let failure = Failure::Unreachable { code: "not_our_server" };
    let report = sync_with(&ann, &scanned(&server, "POISON", &failure));
    assert_eq!((report.stopped, report.changes), (Stopped::PageRefused(failure), 25));
    let report = sync(&ann, &server);
    assert_eq!((report.stopped, read_by(&ann)), (Stopped::Idle, 40));
    assert_sound(&ann);
}
