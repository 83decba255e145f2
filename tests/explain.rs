//! The sentences that explain why a record is not synced.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Server, TestClock, book, fields, key, options, sync, sync_with};
use fieldbook::audit::{Explanation, Seen};
use fieldbook::schema::{Policy, Reference};
use fieldbook::sync::protocol::{ExchangeRequest, Failure, Outcome, UnitOutcome};
use fieldbook::sync::{FnRemote, Held, OpState, ParkReason, RecordState, RecordStatus};
use fieldbook::{Actor, Book, EntityRules, EntityType, Mutation, Remote, Schema};
use serde_json::json;

/// A value that no sentence may contain.
const SECRET: &str = "canary-5f3a";

fn explain(book: &Book, record: &str) -> Explanation {
    let explanation = book.explain(&key(record)).unwrap();
    let shown =
        format!("{explanation} {explanation:?} {}", serde_json::to_string(&explanation).unwrap());
    assert!(!shown.contains(SECRET), "no value of a field is explained: {shown}");
    assert_eq!(explanation.to_string().lines().count(), explanation.sentences.len());
    explanation
}

fn written(book: &Book, record: &str) {
    book.records().create(key(record), fields(json!({"name": SECRET, "stage": "new"}))).unwrap();
}

/// Returns a remote that gives every unit the same outcome.
fn answering(server: &Server, outcome: Outcome) -> impl Remote + use<> {
    let server = server.clone();
    FnRemote::new(move |request: &ExchangeRequest| {
        let mut request = request.clone();
        let units = std::mem::take(&mut request.units);
        let mut answer = server.answer(&request);
        answer.outcomes = units
            .iter()
            .map(|unit| UnitOutcome { unit: unit.id, outcome: outcome.clone() })
            .collect();
        Ok(answer)
    })
}

fn failing(failure: Failure) -> impl Remote {
    FnRemote::new(move |_: &ExchangeRequest| Err(failure.clone().into()))
}

fn with_rules(clock: &Arc<TestClock>, rules: EntityRules) -> Book {
    let schema =
        Schema::open(EntityRules { undo_window: Duration::ZERO, ..EntityRules::default() });
    let options =
        options("ann", clock).schema(schema.declare(EntityType::parse("lead").unwrap(), rules));
    Book::on_backend(redb::backends::InMemoryBackend::new(), options).unwrap()
}

fn only_op(explanation: &Explanation) -> &OpState {
    let [op] = explanation.ops.as_slice() else { panic!("one op, not {}", explanation.ops.len()) };
    &op.state
}

#[test]
fn a_record_that_nobody_knows() {
    let clock = TestClock::starting();
    let explanation = explain(&book("ann", &clock), "lead/1");
    assert_eq!((explanation.state, explanation.seen), (RecordState::Unknown, Seen::Nothing));
    assert_eq!(
        explanation.sentences,
        ["This device knows no record lead/1.", "The server has never answered this device."]
    );
}

#[test]
fn a_change_that_waits_for_its_turn() {
    let clock = TestClock::starting();
    let book = book("ann", &clock);
    written(&book, "lead/1");
    let explanation = explain(&book, "lead/1");
    assert_eq!(
        (explanation.state, only_op(&explanation)),
        (RecordState::Pending, &OpState::Pending { tries: 0 })
    );
    assert_eq!(
        explanation.sentences,
        [
            "The user sees lead/1 with 1 change of this device that the server has not confirmed.",
            "The server has not confirmed any version of it yet.",
            "Change 3, a creation by ann at 2023-11-14T22:13:20.000Z, waits for its turn: the next sync sends it.",
            "The server has never answered this device.",
        ]
    );
}

#[test]
fn a_change_that_cannot_go_as_one_with_an_earlier_one_names_it() {
    let clock = TestClock::starting();
    let book = book("ann", &clock);
    let create = |record| Mutation::create(key(record), fields(json!({"name": SECRET})));
    book.transaction(vec![create("lead/1"), create("lead/2")]).unwrap();
    book.records().update(key("lead/1"), fields(json!({"stage": SECRET}))).unwrap();
    let explanation = explain(&book, "lead/1");
    let states: Vec<_> = explanation.ops.iter().map(|op| op.state.clone()).collect();
    let first = explanation.ops.first().unwrap().place;
    assert_eq!(states, [OpState::Pending { tries: 0 }, OpState::Held(Held::After { op: first })]);
    assert_eq!(explanation.state, RecordState::Pending);
    assert_eq!(
        book.record_status(&key("lead/1")).unwrap(),
        RecordStatus::Pending,
        "and so says its status"
    );
    assert!(explanation.to_string().contains("waits for change 3 of the record, which goes first"));
}

#[test]
fn a_record_that_is_synced_and_one_that_is_deleted() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let book = book("ann", &clock);
    written(&book, "lead/1");
    clock.advance(1_000);
    sync(&book, &server);
    let explanation = explain(&book, "lead/1");
    assert_eq!((explanation.state, explanation.seen), (RecordState::Synced, Seen::AsConfirmed));
    assert_eq!(
        explanation.sentences,
        [
            "The user sees lead/1 as the server has it.",
            "The server confirmed version r1, edited at 2023-11-14T22:13:20.000Z.",
            "The server last answered this device at 2023-11-14T22:13:21.000Z.",
        ]
    );
    book.records().delete(key("lead/1")).unwrap();
    let explanation = explain(&book, "lead/1");
    assert_eq!((explanation.state, explanation.seen), (RecordState::Pending, Seen::DeletedHere));
    sync(&book, &server);
    let explanation = explain(&book, "lead/1");
    assert_eq!((explanation.state, explanation.seen), (RecordState::Synced, Seen::DeletedByServer));
    assert!(
        explanation.sentences[1].starts_with("The server confirmed its deletion as version r2,")
    );
}

/// The explanation once called such a change in flight, although no request had left the device.
#[test]
fn a_change_that_reached_nobody_waits_for_the_network_and_one_behind_it_names_it() {
    for failure in [Failure::Unreachable { code: "dns" }, Failure::Unknown { code: "reset" }] {
        let clock = TestClock::starting();
        let book = book("ann", &clock);
        written(&book, "lead/1");
        sync_with(&book, &failing(failure));
        book.records().update(key("lead/1"), fields(json!({"stage": "hot"}))).unwrap();
        let explanation = explain(&book, "lead/1");
        assert_eq!(explanation.state, RecordState::WaitingForNetwork);
        assert_eq!(
            explanation.sentences[2..4],
            [
                "Change 3, a creation by ann at 2023-11-14T22:13:20.000Z, waits for the network since entry 4 \
                 (2023-11-14T22:13:20.000Z): it is not known to have reached the server, and the next sync sends it.",
                "Change 6, an update by ann at 2023-11-14T22:13:20.000Z, waits behind change 3 of the record.",
            ]
        );
    }
}

#[test]
fn a_change_is_in_flight_while_an_exchange_with_it_is_running_and_no_longer() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let book = book("ann", &clock);
    written(&book, "lead/1");
    let (asked, there) = (book.clone(), server.clone());
    let looking = FnRemote::new(move |request: &ExchangeRequest| {
        if !request.units.is_empty() {
            let explanation = explain(&asked, "lead/1");
            assert_eq!(explanation.state, RecordState::InFlight);
            assert!(
                explanation.sentences[2].ends_with("and the server has not answered yet."),
                "{explanation}"
            );
            assert_eq!(asked.record_status(&key("lead/1")).unwrap(), RecordStatus::InFlight);
        }
        Ok(there.answer(request))
    });
    let report = sync_with(&book, &looking);
    assert_eq!((report.ops_sent, report.ops_acked), (1, 1));
    assert_eq!(book.record_status(&key("lead/1")).unwrap(), RecordStatus::Synced);
}

#[test]
fn a_change_that_the_server_could_not_take_yet() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let book = book("ann", &clock);
    written(&book, "lead/1");
    let busy = Outcome::Transient {
        code: "busy".to_owned(),
        message: String::new(),
        retry_after_milliseconds: Some(30_000),
    };
    sync_with(&book, &answering(&server, busy));
    let explanation = explain(&book, "lead/1");
    assert_eq!(explanation.state, RecordState::Held);
    let OpState::Held(Held::BackingOff { until, code, tries }) = only_op(&explanation) else {
        panic!("{:?}", explanation.ops)
    };
    assert_eq!((code.as_str(), *tries), ("busy", 1));
    let expected = format!(
        "Change 3, a creation by ann at 2023-11-14T22:13:20.000Z, is held until {until}: the server could not take it \
         (busy), and 1 of 5 tries are used."
    );
    assert_eq!(explanation.sentences[2], expected);
    clock.advance(60_000);
    let explanation = explain(&book, "lead/1");
    assert_eq!(explanation.state, RecordState::Pending);
    assert!(
        explanation.sentences[2]
            .ends_with("was put off 1 time by the server, and the next sync sends it again."),
        "{explanation}"
    );
}

#[test]
fn a_change_that_the_server_refused_and_what_hangs_on_it() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let task = EntityType::parse("task").unwrap();
    let reference =
        Reference { field: "lead".to_owned(), entity: EntityType::parse("lead").unwrap() };
    let no_window = EntityRules { undo_window: Duration::ZERO, ..EntityRules::default() };
    let schema = Schema::open(no_window.clone())
        .declare(task, EntityRules { references: vec![reference], ..no_window });
    let book = Book::on_backend(
        redb::backends::InMemoryBackend::new(),
        options("ann", &clock).schema(schema),
    )
    .unwrap();
    written(&book, "lead/1");
    let refused =
        Outcome::Rejected { code: "forbidden".to_owned(), message: "not your region".to_owned() };
    sync_with(&book, &answering(&server, refused));
    book.records().update(key("lead/1"), fields(json!({"stage": "hot"}))).unwrap();
    book.records().create(key("task/1"), fields(json!({"lead": "1"}))).unwrap();

    let explanation = explain(&book, "lead/1");
    assert_eq!(
        (explanation.state, explanation.seen),
        (RecordState::DeadLettered, Seen::WithOwnChanges)
    );
    assert_eq!(
        explanation.sentences[2..5],
        [
            "Change 3, a creation by ann at 2023-11-14T22:13:20.000Z, was refused by the server for good at \
             2023-11-14T22:13:20.000Z: forbidden, \"not your region\".",
            "It waits for ann, or whoever helps them, to retry it, correct it or discard it; it stays on the screen until \
             then.",
            "Change 7, an update by ann at 2023-11-14T22:13:20.000Z, waits for the record's creation, which the server \
             refused: someone has to decide on that first.",
        ]
    );
    let explanation = explain(&book, "task/1");
    assert_eq!(only_op(&explanation), &OpState::Held(Held::WaitsFor { record: key("lead/1") }));
    assert!(
        explanation.sentences[2]
            .ends_with("waits for lead/1, which has to reach the server first.")
    );
}

#[test]
fn a_conflict_that_was_resolved_names_the_fields_and_who_won_and_no_value() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let (ann, ben) = (book("ann", &clock), book("ben", &clock));
    written(&ann, "lead/1");
    sync(&ann, &server);
    sync(&ben, &server);
    clock.advance(1_000);
    ann.records()
        .update(key("lead/1"), fields(json!({"name": "canary-5f3a by ann", "stage": "hot"})))
        .unwrap();
    clock.advance(1_000);
    ben.records().update(key("lead/1"), fields(json!({"name": "canary-5f3a by ben"}))).unwrap();
    sync(&ben, &server);
    sync(&ann, &server);
    let explanation = explain(&ann, "lead/1");
    assert_eq!(explanation.state, RecordState::Synced);
    let [conflict] = explanation.conflicts.as_slice() else {
        panic!("{:?}", explanation.conflicts)
    };
    let expected = format!(
        "Conflict {}, found at 2023-11-14T22:13:22.000Z: when change {} (an update) met version r2 by ben, both sides \
         had changed `name`; the server won (last_write_wins).",
        conflict.id, conflict.op
    );
    assert_eq!(explanation.sentences[2], expected);
}

#[test]
fn a_conflict_that_waits_for_a_person() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let manual = EntityRules {
        policy: Policy::Manual,
        undo_window: Duration::ZERO,
        ..EntityRules::default()
    };
    let (ann, ben) = (with_rules(&clock, manual), book("ben", &clock));
    written(&ann, "lead/1");
    sync(&ann, &server);
    sync(&ben, &server);
    ann.records().update(key("lead/1"), fields(json!({"stage": "hot"}))).unwrap();
    clock.advance(1_000);
    ben.records().update(key("lead/1"), fields(json!({"stage": "won"}))).unwrap();
    sync(&ben, &server);
    sync(&ann, &server);
    let explanation = explain(&ann, "lead/1");
    assert_eq!(explanation.state, RecordState::InConflict);
    assert_eq!(
        *only_op(&explanation),
        OpState::InConflict { conflict: explanation.conflicts[0].id }
    );
    assert_eq!(ann.record_status(&key("lead/1")).unwrap().state(), RecordState::InConflict);
    let text = explanation.to_string();
    assert!(text.contains("It waits for ann, or whoever helps them, to choose a side;"), "{text}");
    assert!(
        text.contains("both sides had changed `stage`; someone has to choose a side."),
        "{text}"
    );
}

#[test]
fn what_stops_until_something_outside_changes() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let expired = || failing(Failure::Unauthorized { code: "expired".to_owned() });
    let upgrade = || failing(Failure::UpgradeRequired { code: "protocol".to_owned() });
    let unsupported = Outcome::Unsupported {
        entity: EntityType::parse("lead").unwrap(),
        code: "unknown_entity".to_owned(),
    };
    let cases: [(Box<dyn Remote>, ParkReason, &str); 3] = [
        (
            Box::new(expired()),
            ParkReason::Unauthorized,
            "the server did not accept the credentials (expired)",
        ),
        (
            Box::new(upgrade()),
            ParkReason::OtherProtocol,
            "the server speaks another version of the protocol (protocol)",
        ),
        (
            Box::new(answering(&server, unsupported)),
            ParkReason::Unsupported,
            "the server does not take this type of record or one of its fields (unknown_entity)",
        ),
    ];
    for (remote, reason, words) in cases {
        let book = book("ann", &clock);
        written(&book, "lead/1");
        sync_with(&book, remote.as_ref());
        let explanation = explain(&book, "lead/1");
        assert_eq!(explanation.state, RecordState::Parked, "{reason:?}");
        assert!(
            matches!(only_op(&explanation), OpState::Parked { reason: found, .. } if *found == reason)
        );
        assert!(
            explanation.sentences[2].ends_with(&format!("is stopped, since {words}.")),
            "{explanation}"
        );
        let remedy = &explanation.sentences[3];
        assert!(
            remedy.starts_with("It resumes when ") || remedy.starts_with("It waits for ann "),
            "{explanation}"
        );
        assert_eq!(book.record_status(&key("lead/1")).unwrap(), RecordStatus::Parked(reason));
    }
}

#[test]
fn what_is_held_by_the_apps_own_rules() {
    let clock = TestClock::starting();
    let local =
        EntityRules { local_only: true, undo_window: Duration::ZERO, ..EntityRules::default() };
    let undoable = EntityRules { undo_window: Duration::from_secs(5), ..EntityRules::default() };
    for (rules, words) in [
        (local, "stays on this device: the app never sends records of this type."),
        (undoable, "is held until 2023-11-14T22:13:25.000Z, as long as it can still be undone."),
    ] {
        let book = with_rules(&clock, rules);
        written(&book, "lead/1");
        let explanation = explain(&book, "lead/1");
        assert_eq!(explanation.state, RecordState::Held);
        assert!(explanation.sentences[2].ends_with(words), "{explanation}");
    }
    let book = book("ann", &clock);
    written(&book, "lead/1");
    book.act_as(Actor::parse("ben").unwrap());
    let explanation = explain(&book, "lead/1");
    assert!(
        explanation.sentences[2].ends_with("waits until ann, who made it, uses this device again."),
        "{explanation}"
    );
}

#[test]
fn the_same_as_data() {
    let clock = TestClock::starting();
    let book = book("ann", &clock);
    written(&book, "lead/1");
    sync_with(&book, &failing(Failure::Unknown { code: "reset" }));
    let explanation = serde_json::to_value(explain(&book, "lead/1")).unwrap();
    assert_eq!(explanation["key"], "lead/1");
    assert_eq!(explanation["state"], "waiting_for_network");
    assert_eq!(explanation["seen"], "with_own_changes");
    assert_eq!(explanation["ops"][0]["kind"], "create");
    assert_eq!(
        explanation["ops"][0]["state"],
        json!({"state": "waiting_for_network", "since": 4, "since_at": 1_700_000_000_000_i64})
    );
    assert_eq!(explanation["sentences"].as_array().unwrap().len(), 4);
}
