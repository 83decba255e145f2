//! The decisions of a person on earlier ops: undo, flip, choose, correct, discard. Each decision is
//! recorded, and nothing is lost.

mod common;

use common::{Server, TestClock, assert_sound, book, fields, key, options, sync, view};
use fieldbook::audit::Seq;
use fieldbook::conflict::{Choice, ConflictId, Undone};
use fieldbook::error::NotPossible;
use fieldbook::record::OpPlace;
use fieldbook::schema::Policy;
use fieldbook::sync::protocol::Failure;
use fieldbook::sync::{ExchangeParams, NextStep, RecordStatus};
use fieldbook::{Book, BookOptions, EntityRules, EntityType, Error, Schema, SyncState, Written};
use serde_json::json;

fn place(written: Written) -> OpPlace {
    match written {
        Written::Op { place, .. } => place,
        Written::Unchanged => panic!("expected an op"),
    }
}

/// Returns a remote whose server refuses all units for good.
fn refusing(server: &Server) -> impl fieldbook::Remote + use<> {
    server.refusing("23514", "phone must be a number")
}

#[test]
fn an_unsent_op_is_undone_without_a_trace_at_the_server() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let book = book("ann", &clock);
    book.records().create(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap();
    let update =
        place(book.records().update(key("lead/1"), fields(json!({"name": "Oops"}))).unwrap());
    assert_eq!(book.queue().undo(update).unwrap(), Undone::Cancelled);
    assert_eq!(view(&book, "lead/1"), Some(json!({"name": "Ann"})));
    sync(&book, &server);
    assert_eq!(server.record("lead/1"), Some(json!({"name": "Ann"})));
    assert_sound(&book);
}

#[test]
fn an_op_that_has_left_is_undone_by_one_that_takes_it_back() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let book = book("ann", &clock);
    book.records().create(key("lead/1"), fields(json!({"name": "Ann", "town": "x"}))).unwrap();
    sync(&book, &server);
    let update = place(
        book.records()
            .update(key("lead/1"), fields(json!({"name": "Oops", "town": null})))
            .unwrap(),
    );
    sync(&book, &server);
    assert!(matches!(book.queue().undo(update).unwrap(), Undone::Compensated(_)));
    sync(&book, &server);
    assert_eq!(server.record("lead/1"), Some(json!({"name": "Ann", "town": "x"})));
    let delete = place(book.records().delete(key("lead/1")).unwrap());
    sync(&book, &server);
    assert_eq!(server.record("lead/1"), None);
    assert!(matches!(book.queue().undo(delete).unwrap(), Undone::Compensated(_)));
    sync(&book, &server);
    assert_eq!(server.record("lead/1"), Some(json!({"name": "Ann", "town": "x"})));
    assert_sound(&book);
}

#[test]
fn a_lost_conflict_can_be_flipped_by_a_person() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let (ann, ben) = (book("ann", &clock), book("ben", &clock));
    ann.records().create(key("lead/1"), fields(json!({"name": "x"}))).unwrap();
    sync(&ann, &server);
    sync(&ben, &server);
    clock.advance(1_000);
    ann.records().update(key("lead/1"), fields(json!({"name": "by ann"}))).unwrap();
    clock.advance(1_000);
    ben.records().update(key("lead/1"), fields(json!({"name": "by ben"}))).unwrap();
    sync(&ben, &server);
    sync(&ann, &server);
    assert_eq!(view(&ann, "lead/1"), Some(json!({"name": "by ben"})));
    let id = ann.conflicts().all().unwrap().pop().unwrap().id;
    ann.conflicts().flip(id).unwrap();
    sync(&ann, &server);
    assert_eq!(server.record("lead/1"), Some(json!({"name": "by ann"})));
    assert_sound(&ann);
}

#[test]
fn an_open_conflict_waits_until_a_person_chooses() {
    for (choice, expected) in [
        (Choice::Local, "by ann"),
        (Choice::Remote, "by ben"),
        (Choice::Merged(fields(json!({"name": "both"}))), "both"),
    ] {
        let clock = TestClock::starting();
        let server = Server::new(&clock);
        let rules = EntityRules {
            policy: Policy::Manual,
            undo_window: std::time::Duration::ZERO,
            ..EntityRules::default()
        };
        let manual = |name: &str| -> BookOptions {
            options(name, &clock).schema(Schema::open(rules.clone()))
        };
        let on_memory =
            |options| Book::on_backend(redb::backends::InMemoryBackend::new(), options).unwrap();
        let (ann, ben) = (on_memory(manual("ann")), on_memory(manual("ben")));
        ann.records().create(key("lead/1"), fields(json!({"name": "x"}))).unwrap();
        sync(&ann, &server);
        sync(&ben, &server);
        ann.records().update(key("lead/1"), fields(json!({"name": "by ann"}))).unwrap();
        ben.records().update(key("lead/1"), fields(json!({"name": "by ben"}))).unwrap();
        sync(&ben, &server);
        sync(&ann, &server);
        let id = ann.conflicts().all().unwrap().pop().unwrap().id;
        assert_eq!(ann.record_status(&key("lead/1")).unwrap(), RecordStatus::InConflict(id));
        assert_eq!(
            ann.status().state,
            SyncState::NeedsAttention { dead_letters: 0, conflicts: 1, parked: 0, held: 0 }
        );
        assert_eq!(
            view(&ann, "lead/1"),
            Some(json!({"name": "by ann"})),
            "what was typed stays on the screen"
        );
        sync(&ann, &server);
        assert_eq!(
            server.record("lead/1"),
            Some(json!({"name": "by ben"})),
            "nothing is sent before the choice"
        );
        ann.conflicts().resolve(id, choice).unwrap();
        sync(&ann, &server);
        sync(&ben, &server);
        let expected = Some(json!({"name": expected}));
        assert_eq!(
            (server.record("lead/1"), view(&ann, "lead/1")),
            (expected.clone(), expected.clone())
        );
        assert_eq!(view(&ben, "lead/1"), expected);
        assert_eq!(ann.status().state, SyncState::Idle);
        assert_sound(&ann);
    }
}

#[test]
fn a_refused_op_stays_on_the_screen_until_it_is_corrected() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let book = book("ann", &clock);
    book.records().create(key("lead/1"), fields(json!({"name": "Ann", "phone": "x"}))).unwrap();
    common::sync_with(&book, &refusing(&server));
    assert_eq!(view(&book, "lead/1"), Some(json!({"name": "Ann", "phone": "x"})));
    let status = book.record_status(&key("lead/1")).unwrap();
    assert_eq!(
        status,
        RecordStatus::DeadLettered {
            code: "23514".into(),
            message: "phone must be a number".into()
        }
    );
    book.records().update(key("lead/1"), fields(json!({"stage": "hot"}))).unwrap();
    sync(&book, &server);
    assert_eq!(
        server.record("lead/1"),
        None,
        "an edit of a record whose creation is dead waits for it"
    );
    let letter = book.dead_letters().all().unwrap().remove(0);
    book.dead_letters().correct(letter.op, fields(json!({"phone": "5"}))).unwrap();
    sync(&book, &server);
    assert_eq!(server.record("lead/1"), Some(json!({"name": "Ann", "phone": "5", "stage": "hot"})));
    assert_eq!((book.status().pending, book.dead_letters().all().unwrap().len()), (0, 0));
    assert_sound(&book);
}

#[test]
fn a_refused_deletion_cannot_be_corrected_and_stays_as_it_is() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let book = book("ann", &clock);
    book.records().create(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap();
    sync(&book, &server);
    book.records().delete(key("lead/1")).unwrap();
    common::sync_with(&book, &refusing(&server));
    let letter = book.dead_letters().all().unwrap().remove(0);
    let corrected = book.dead_letters().correct(letter.op, fields(json!({"name": "Anne"})));
    assert!(
        matches!(corrected, Err(Error::NotPossible(NotPossible::NothingToCorrect(op))) if op == letter.op),
        "{corrected:?}"
    );
    assert_eq!(book.dead_letters().all().unwrap(), [letter]);
    assert_sound(&book);
}

#[test]
fn a_refused_op_can_be_sent_again_or_discarded() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let book = book("ann", &clock);
    book.records().create(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap();
    sync(&book, &server);
    for n in 1..=2 {
        book.records().update(key("lead/1"), fields(json!({"n": n}))).unwrap();
        common::sync_with(&book, &refusing(&server));
    }
    let letters: Vec<_> =
        book.dead_letters().all().unwrap().iter().map(|letter| letter.op).collect();
    assert_eq!(letters.len(), 2);
    book.dead_letters().retry(vec![letters[0]]).unwrap();
    sync(&book, &server);
    assert_eq!(server.record("lead/1"), Some(json!({"name": "Ann", "n": 1})));
    assert_eq!(
        view(&book, "lead/1"),
        Some(json!({"name": "Ann", "n": 2})),
        "the other one is still shown"
    );
    book.dead_letters().discard(vec![letters[1]], "typed by mistake").unwrap();
    assert_eq!(view(&book, "lead/1"), Some(json!({"name": "Ann", "n": 1})));
    assert_eq!(book.status().state, SyncState::Idle);
    assert!(book.dead_letters().retry(letters).is_err(), "neither is a dead letter any more");
    assert_sound(&book);
}

/// A replacement was refused, and a later update with a note was accepted. The retry of the
/// replacement removed the note: at the server, and on the device as soon as the note was
/// confirmed.
#[test]
fn what_was_typed_after_a_refused_replacement_stays_when_that_is_sent_again() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let book = book("ann", &clock);
    book.records().create(key("lead/1"), fields(json!({"name": "Ann", "town": "Graz"}))).unwrap();
    sync(&book, &server);
    book.records().replace(key("lead/1"), fields(json!({"name": "Anna"}))).unwrap();
    common::sync_with(&book, &refusing(&server));
    book.records().update(key("lead/1"), fields(json!({"note": "call back"}))).unwrap();
    sync(&book, &server);
    let noted = Some(json!({"name": "Ann", "town": "Graz", "note": "call back"}));
    assert_eq!(server.record("lead/1"), noted);
    let both = Some(json!({"name": "Anna", "note": "call back"}));
    assert_eq!(view(&book, "lead/1"), both);
    let letters: Vec<_> =
        book.dead_letters().all().unwrap().iter().map(|letter| letter.op).collect();
    book.dead_letters().retry(letters).unwrap();
    sync(&book, &server);
    assert_eq!((server.record("lead/1"), view(&book, "lead/1")), (both.clone(), both));
    assert_sound(&book);
}

/// Ann's edit was a dead letter when Ben changed the same field and Ann's book read his change. Her
/// retry had Ben's version as its base, although she had not read that version when she wrote.
/// Ben's value was lost without a conflict.
#[test]
fn a_dead_letter_that_is_sent_again_meets_what_others_changed_meanwhile() {
    for (corrected, later) in [(false, "ben"), (false, "ann"), (true, "ann")] {
        let clock = TestClock::starting();
        let server = Server::new(&clock);
        let (ann, ben) = (book("ann", &clock), book("ben", &clock));
        ann.records().create(key("lead/1"), fields(json!({"phone": "1", "town": "t"}))).unwrap();
        sync(&ann, &server);
        sync(&ben, &server);
        let write = |name: &str| {
            clock.advance(1_000);
            let book = if name == "ann" { &ann } else { &ben };
            book.records()
                .update(key("lead/1"), fields(json!({"phone": format!("by {name}")})))
                .unwrap();
        };
        let earlier = if later == "ann" { "ben" } else { "ann" };
        write(earlier);
        write(later);
        common::sync_with(&ann, &refusing(&server));
        ben.records().update(key("lead/1"), fields(json!({"town": "u"}))).unwrap();
        sync(&ben, &server);
        sync(&ann, &server);
        assert_eq!(
            view(&ann, "lead/1"),
            Some(json!({"phone": format!("by {later}"), "town": "u"})),
            "the later one is shown"
        );
        assert_eq!(ann.conflicts().all().unwrap().len(), 1, "it is on record when the page comes");

        let letter = ann.dead_letters().all().unwrap().remove(0);
        if corrected {
            ann.dead_letters().correct(letter.op, fields(json!({"note": "called"}))).unwrap();
        } else {
            ann.dead_letters().retry(vec![letter.op]).unwrap();
        }
        sync(&ann, &server);
        sync(&ben, &server);
        let conflict = ann.conflicts().all().unwrap().pop().expect("both changed the phone");
        assert_eq!(ann.conflicts().all().unwrap().len(), 1, "and it is on record once");
        let values = [&conflict.base, &conflict.local, &conflict.remote]
            .map(|fields| fields.as_str().to_owned());
        assert_eq!(values, [r#"{"phone":"1"}"#, r#"{"phone":"by ann"}"#, r#"{"phone":"by ben"}"#]);
        let mut expected = json!({"phone": format!("by {later}"), "town": "u"});
        if corrected {
            expected["note"] = json!("called");
        }
        assert_eq!(
            (server.record("lead/1"), view(&ann, "lead/1")),
            (Some(expected.clone()), Some(expected))
        );
        assert_eq!((ann.status().pending, ben.status().pending), (0, 0));
        assert_sound(&ann);
    }
}

#[test]
fn a_dead_letter_that_meets_only_edits_of_other_fields_is_taken_at_once() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let (ann, ben) = (book("ann", &clock), book("ben", &clock));
    ann.records().create(key("lead/1"), fields(json!({"phone": "1"}))).unwrap();
    sync(&ann, &server);
    sync(&ben, &server);
    ann.records().update(key("lead/1"), fields(json!({"phone": "2"}))).unwrap();
    common::sync_with(&ann, &refusing(&server));
    ben.records().update(key("lead/1"), fields(json!({"town": "u"}))).unwrap();
    sync(&ben, &server);
    sync(&ann, &server);
    ann.dead_letters().retry(vec![ann.dead_letters().all().unwrap().remove(0).op]).unwrap();
    let report = sync(&ann, &server);
    assert_eq!((report.units_acked, report.units_stale), (1, 0));
    assert_eq!(server.record("lead/1"), Some(json!({"phone": "2", "town": "u"})));
    assert_eq!(ann.conflicts().all().unwrap(), []);
    assert_sound(&ann);
}

#[test]
fn records_of_an_undeclared_type_are_kept_and_adopted_by_an_upgrade() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let ann = book("ann", &clock);
    ann.records().create(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap();
    ann.records().create(key("task/1"), fields(json!({"title": "call"}))).unwrap();
    sync(&ann, &server);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.book");
    let lead = EntityType::parse("lead").unwrap();
    let old = Schema::closed().declare(lead.clone(), EntityRules::default());
    let ben = Book::create_new(&path, options("ben", &clock).schema(old.clone())).unwrap();
    sync(&ben, &server);
    assert_eq!((view(&ben, "lead/1").is_some(), view(&ben, "task/1")), (true, None));
    assert_sound(&ben);
    let head = ben.audit().head().unwrap();
    assert_eq!(sync(&ben, &server).changes, 0, "the cursor moved past what is undeclared");
    assert_eq!(ben.audit().head().unwrap(), head);
    ben.close().unwrap();
    let new = old.declare(EntityType::parse("task").unwrap(), EntityRules::default());
    let ben = Book::open(&path, options("ben", &clock).schema(new)).unwrap();
    assert_eq!(view(&ben, "task/1"), Some(json!({"title": "call"})));
    assert_sound(&ben);
}

/// The base of the later edit lacked a unit that had taken effect without an answer, and the op of
/// that unit was not pending any more.
#[test]
fn what_had_arrived_though_nobody_said_so_is_no_conflict_with_a_later_unanswered_edit() {
    let clock = TestClock::starting();
    let (server, book) = (Server::new(&clock), book("ann", &clock));
    book.records().create(key("lead/1"), fields(json!({"stage": "new"}))).unwrap();
    sync(&book, &server);
    let ask = |push| ExchangeParams {
        first: true,
        push,
        pull: true,
        batch_ops: 9,
        batch_bytes: 1_000_000,
        page_limit: 9,
    };
    let next = |push| match book.exchange().prepare(&ask(push)).unwrap() {
        NextStep::Exchange(request) => request,
        other => panic!("nothing to send: {other:?}"),
    };
    book.records().update(key("lead/1"), fields(json!({"stage": "hot"}))).unwrap();
    let first = next(true);
    drop(server.answer(&first));
    book.exchange().fail(&first, &Failure::TooLarge).unwrap();
    book.records().update(key("lead/1"), fields(json!({"stage": "won"}))).unwrap();
    let (page, second) = (next(false), next(true));
    book.exchange().apply_answer(&page, server.answer(&page)).unwrap();
    assert_eq!(book.status().dead_letters, 0, "the first one arrived");
    book.exchange().apply_answer(&second, server.answer(&second)).unwrap();
    sync(&book, &server);
    assert_eq!(book.conflicts().all().unwrap(), []);
    assert_eq!(server.record("lead/1"), Some(json!({"stage": "won"})));
    assert_sound(&book);
}

#[test]
fn a_place_without_an_op_and_an_id_without_a_conflict_are_said_to_be_none() {
    let clock = TestClock::starting();
    let ann = book("ann", &clock);
    let made = place(ann.records().create(key("lead/1"), fields(json!({"name": "Ann"}))).unwrap());
    assert_eq!(ann.queue().op(made).unwrap().fields, fields(json!({"name": "Ann"})));
    for nowhere in [
        OpPlace { index: 1, ..made },
        OpPlace { seq: Seq::new(1), index: 0 },
        OpPlace { seq: Seq::new(9), index: 0 },
    ] {
        for refused in [ann.queue().op(nowhere).map(drop), ann.queue().undo(nowhere).map(drop)] {
            assert!(
                matches!(refused, Err(Error::NotPossible(NotPossible::NoSuchOp(place))) if place == nowhere),
                "{refused:?}"
            );
        }
    }
    let id = ConflictId { seq: Seq::new(2), number: 0 };
    for refused in [ann.conflicts().get(id).map(drop), ann.conflicts().resolve(id, Choice::Local)] {
        assert!(
            matches!(refused, Err(Error::NotPossible(NotPossible::NoSuchConflict(none))) if none == id),
            "{refused:?}"
        );
    }
}

/// A later edit brought a deleted record back. Its fields counted as read by the author of the
/// earlier edit, so the loss of the earlier edit was not recorded.
#[test]
fn what_was_discarded_below_a_deletion_is_on_record_though_a_later_edit_brought_the_record_back() {
    let clock = TestClock::starting();
    let (server, ann, ben) = (Server::new(&clock), book("ann", &clock), book("ben", &clock));
    ann.records().create(key("lead/1"), fields(json!({"stage": "new", "town": "x"}))).unwrap();
    sync(&ann, &server);
    sync(&ben, &server);
    clock.advance(1_000);
    let first =
        place(ann.records().update(key("lead/1"), fields(json!({"stage": "hot"}))).unwrap());
    let ask = ExchangeParams {
        first: true,
        push: true,
        pull: false,
        batch_ops: 9,
        batch_bytes: 1_000_000,
        page_limit: 9,
    };
    match ann.exchange().prepare(&ask).unwrap() {
        NextStep::Exchange(request) => {
            ann.exchange().fail(&request, &Failure::TooLarge).unwrap();
        }
        other => panic!("nothing to send: {other:?}"),
    }
    clock.advance(1_000);
    ben.records().delete(key("lead/1")).unwrap();
    sync(&ben, &server);
    clock.advance(1_000);
    ann.records().update(key("lead/1"), fields(json!({"town": "y"}))).unwrap();
    sync(&ann, &server);
    assert_eq!(server.record("lead/1"), Some(json!({"stage": "new", "town": "y"})));
    ann.dead_letters().retry(vec![ann.queue().op(first).unwrap().id]).unwrap();
    sync(&ann, &server);
    let fields: Vec<_> =
        ann.conflicts().all().unwrap().into_iter().flat_map(|conflict| conflict.fields).collect();
    let names: Vec<_> = fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["stage"], "beside the one of the whole record");
    assert_sound(&ann);
}
