//! A park because of credentials or of the protocol ends when the server answers. An answer of
//! something other than the server parks nothing.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::{
    Server, TestClock, assert_sound, book, fields, key, options, sync, sync_by, sync_with,
};
use fieldbook::schema::Policy;
use fieldbook::sync::protocol::{ExchangeRequest, Failure};
use fieldbook::sync::{FnRemote, Stopped};
use fieldbook::{Actor, Book, EntityRules, Remote, RunOptions, Schema, SyncState};
use redb::backends::InMemoryBackend;
use serde_json::json;
use std::sync::Arc;

fn failing(failure: &Failure) -> impl Remote + use<> {
    let failure = failure.clone();
    FnRemote::new(move |_: &ExchangeRequest| Err(failure.clone().into()))
}

fn unauthorized(code: &str) -> Failure {
    Failure::Unauthorized { code: code.to_owned() }
}

fn upgrade(code: &str) -> Failure {
    Failure::UpgradeRequired { code: code.to_owned() }
}

fn with_a_note() -> (Arc<TestClock>, Server, Book) {
    let clock = TestClock::starting();
    let (server, ann) = (Server::new(&clock), book("ann", &clock));
    ann.records().create(key("note/1"), fields(json!({"t": "fine"}))).unwrap();
    clock.advance(3_600_000);
    (clock, server, ann)
}

/// The book was parked for good, and sent no further request to the right server.
#[test]
fn what_a_server_said_of_credentials_or_of_the_protocol_is_lifted_when_one_answers() {
    for failure in [unauthorized("token_expired"), upgrade("upgrade_required")] {
        let (_, server, ann) = with_a_note();
        let report = sync_with(&ann, &failing(&failure));
        assert_eq!((report.stopped, report.parked), (Stopped::Failed(failure.clone()), true));
        let report = sync_with(&ann, &failing(&failure));
        assert_eq!(
            (report.stopped, report.exchanges, report.units_sent),
            (Stopped::Failed(failure.clone()), 1, 0),
            "it is asked again once, with nothing at stake"
        );
        let report = sync(&ann, &server);
        assert_eq!((report.stopped, report.ops_acked), (Stopped::Idle, 1), "{failure:?}");
        assert_eq!((ann.status().pending, ann.status().state), (0, SyncState::Idle));
        assert_sound(&ann);
    }
}

#[test]
fn what_has_no_marker_parks_nothing_and_the_state_says_what_is_wanted() {
    for failure in [unauthorized("http_401"), unauthorized("credentials_late"), upgrade("http_426")]
    {
        let (_, server, ann) = with_a_note();
        let report = sync_with(&ann, &failing(&failure));
        assert_eq!((report.stopped, report.parked), (Stopped::Failed(failure.clone()), false));
        match failure {
            Failure::Unauthorized { code } => {
                assert_eq!(ann.status().state, SyncState::NeedsAuth { code })
            }
            _ => assert!(matches!(ann.status().state, SyncState::NeedsUpgrade { .. })),
        }
        let report = sync(&ann, &server);
        assert_eq!(
            (report.ops_acked, ann.status().pending, ann.status().state),
            (1, 0, SyncState::Idle)
        );
    }
}

/// The park once stayed until the next answer, so the state asked for credentials that were fine.
#[test]
fn an_answer_that_parks_an_op_ends_the_park_of_its_actor_all_the_same() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let manual = EntityRules { policy: Policy::Manual, ..EntityRules::default() };
    let open = |name: &str| {
        let options = options(name, &clock).schema(Schema::open(manual.clone()));
        Book::on_backend(InMemoryBackend::new(), options).unwrap()
    };
    let (ann, ben) = (open("ann"), open("ben"));
    ann.records().create(key("note/1"), fields(json!({"t": "fine"}))).unwrap();
    sync(&ann, &server);
    sync(&ben, &server);
    ben.records().update(key("note/1"), fields(json!({"t": "ben's"}))).unwrap();
    sync(&ben, &server);
    sync_with(&ann, &failing(&unauthorized("token_expired")));
    ann.records().update(key("note/1"), fields(json!({"t": "ann's"}))).unwrap();
    let once = RunOptions { pull_only: true, ..RunOptions::default() };
    sync_by(&ann, &server.remote(), &once);
    assert_eq!(ann.conflicts().list_open(None, 9).unwrap().items.len(), 1);
    let state = ann.status().state;
    assert!(matches!(state, SyncState::NeedsAttention { conflicts: 1, .. }), "{state:?}");
    assert_sound(&ann);
}

#[test]
fn the_credentials_of_one_actor_say_nothing_of_anothers() {
    let (_, server, ann) = with_a_note();
    sync_with(&ann, &failing(&unauthorized("token_expired")));
    ann.act_as(Actor::parse("ben").unwrap());
    sync(&ann, &server);
    ann.act_as(Actor::parse("ann").unwrap());
    assert_eq!(ann.status().state, SyncState::NeedsAuth { code: "token_expired".to_owned() });
    assert_eq!(sync(&ann, &server).ops_acked, 1);
}
