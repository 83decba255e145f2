//! A reset: a person gives up every change that the server does not have. In the end the app reads
//! exactly what the server has, and the log has what was given up.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Server, TestClock, assert_sound, book, fields, key, options, sync, sync_with, view};
use fieldbook::audit::entry::{Control, Decision, Meta, PersonAction};
use fieldbook::audit::{Moment, Seq, read_export, verify_export};
use fieldbook::error::StoreError;
use fieldbook::record::OpId;
use fieldbook::sync::protocol::{ExchangeRequest, Failure};
use fieldbook::sync::{FnRemote, TakeState};
use fieldbook::{Actor, Book, EntityRules, EntityType, Error, Mutation, Schema};
use serde_json::json;

const ALL: [&str; 6] = ["lead/1", "lead/2", "lead/3", "lead/4", "lead/5", "lead/6"];

fn create(book: &Book, id: &str) {
    book.records().create(key(id), fields(json!({"n": 1}))).unwrap();
}

fn update(book: &Book, id: &str) {
    book.records().update(key(id), fields(json!({"n": 2}))).unwrap();
}

/// Syncs once. The answer is lost; the request arrives or not.
fn sync_lost(book: &Book, server: &Server, arrives: bool) {
    let server = server.clone();
    let remote = FnRemote::new(move |request: &ExchangeRequest| {
        if arrives {
            drop(server.try_answer(request)?);
        }
        Err(Failure::Unreachable { code: "lost" }.into())
    });
    sync_with(book, &remote);
}

fn sent(server: &Server) -> usize {
    server.requests.lock().unwrap().iter().map(|request| request.units.len()).sum()
}

/// The server has lead 1 and lead 2. Ann has a dead letter, a deletion, units without an answer,
/// and ops that wait; Ben has an op on her device; and Cleo changed lead 2 meanwhile.
#[test]
fn after_a_reset_and_a_sync_the_app_reads_exactly_what_the_server_has() {
    for arrives in [true, false] {
        let clock = TestClock::starting();
        let server = Server::new(&clock);
        let (ann, cleo) = (book("ann", &clock), book("cleo", &clock));
        create(&ann, "lead/1");
        create(&ann, "lead/2");
        sync(&ann, &server);
        update(&ann, "lead/1");
        create(&ann, "lead/3");
        sync_with(&ann, &server.refusing("no", "no"));
        assert!(ann.status().dead_letters > 0);
        update(&ann, "lead/2");
        create(&ann, "lead/4");
        sync_lost(&ann, &server, arrives);
        update(&ann, "lead/4");
        ann.records().delete(key("lead/1")).unwrap();
        ann.act_as(Actor::parse("ben").unwrap());
        ann.transaction(vec![
            Mutation::create(key("lead/5"), fields(json!({"n": 1}))),
            Mutation::create(key("lead/6"), fields(json!({"n": 1}))),
        ])
        .unwrap();
        sync(&cleo, &server);
        cleo.records().update(key("lead/2"), fields(json!({"by": "cleo"}))).unwrap();
        sync(&cleo, &server);
        let (unsent, before) = (ann.queue().unsent().unwrap().ops(), sent(&server));
        assert_eq!(ann.servers().take_state("the wrong device").unwrap(), unsent);
        assert_sound(&ann);
        assert!(ann.queue().list().unwrap().is_empty());
        assert_eq!(ann.failed().page(None, 9).unwrap().items, []);
        for user in ["ben", "ann"] {
            ann.act_as(Actor::parse(user).unwrap());
            sync(&ann, &server);
        }
        assert_eq!(sent(&server), before, "nothing was sent");
        for id in ALL {
            assert_eq!(view(&ann, id), server.record(id), "{id}, arrived: {arrives}");
        }
        assert_eq!(server.record("lead/4").is_some(), arrives);
        assert_eq!(server.record("lead/2").unwrap()["by"], "cleo");
        assert_eq!((ann.status().pending, ann.status().dead_letters), (0, 0));
        assert_sound(&ann);
        create(&ann, "lead/7");
        sync(&ann, &server);
        assert!(server.record("lead/7").is_some(), "the book goes on");
    }
}

/// A person resets while a request is on its way. Its answer comes after the reset.
#[test]
fn an_answer_that_comes_after_the_reset_brings_the_servers_state() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let ann = book("ann", &clock);
    create(&ann, "lead/1");
    let (to, resetting) = (server.clone(), ann.clone());
    let remote = FnRemote::new(move |request: &ExchangeRequest| {
        let answer = to.try_answer(request)?;
        resetting.servers().take_state("meanwhile").unwrap();
        Ok(answer)
    });
    sync_with(&ann, &remote);
    sync(&ann, &server);
    assert_eq!(server.record("lead/1"), Some(json!({"n": 1})), "it had arrived");
    assert_eq!(view(&ann, "lead/1"), server.record("lead/1"));
    assert_eq!(ann.status().pending, 0);
    assert_sound(&ann);
}

#[test]
fn the_log_has_who_gave_up_what_and_why() {
    let book = book("ann", &TestClock::starting());
    create(&book, "lead/1");
    book.servers().take_state("entered twice").unwrap();
    let told = book.audit().story(Some(&key("lead/1")), Seq::ZERO, Seq::new(u64::MAX)).unwrap();
    let told = told.iter().map(|paragraph| paragraph.text()).collect::<Vec<_>>().join("\n");
    assert!(told.contains("ann discarded it") && told.contains("entered twice"), "{told}");
    let kept = book.audit().timeline(&key("lead/1")).unwrap();
    let has = kept[0].item(0) == Some(br#"{"n":1}"#.as_slice());
    assert!(has, "the content stays in the log");
}

#[test]
fn without_an_unsent_op_nothing_is_written_and_what_never_leaves_stays() {
    let clock = TestClock::starting();
    let folder = tempfile::tempdir().unwrap();
    let rules = EntityRules { local_only: true, ..EntityRules::default() };
    let schema =
        Schema::open(EntityRules::default()).declare(EntityType::parse("draft").unwrap(), rules);
    let with_drafts = options("ann", &clock).schema(schema);
    let book = Book::create_new(folder.path().join("a.book"), with_drafts).unwrap();
    create(&book, "draft/1");
    let head = book.audit().head().unwrap();
    assert_eq!(book.servers().take_state("x").unwrap(), 0);
    assert_eq!(book.audit().head().unwrap(), head);
    create(&book, "lead/1");
    assert_eq!(book.servers().take_state("x").unwrap(), 1);
    assert_eq!((view(&book, "draft/1"), view(&book, "lead/1")), (Some(json!({"n": 1})), None));
    assert_sound(&book);
}

#[test]
fn a_long_tail_ends_in_one_commit_of_several_entries() {
    let book = book("ann", &TestClock::starting());
    let made = (0..4_500)
        .map(|number| Mutation::create(key(&format!("lead/{number}")), fields(json!({"n": 1}))));
    for part in made.collect::<Vec<_>>().chunks(500) {
        book.transaction(part.to_vec()).unwrap();
    }
    let before = book.audit().head().unwrap().unwrap().seq.number();
    assert_eq!(book.servers().take_state("x").unwrap(), 4_500);
    assert_eq!(book.audit().head().unwrap().unwrap().seq.number(), before + 3);
    assert!(book.queue().unsent().unwrap().is_empty());
}

/// Returns the ops that resets discarded, by the log.
fn discarded(book: &Book) -> BTreeSet<OpId> {
    let entries = book.audit().entries(Seq::ZERO, usize::MAX).unwrap();
    let decisions = entries.into_iter().filter_map(|entry| match entry.meta {
        Meta::Control(Control::PersonActed(PersonAction::Discard { .. }, decisions)) => {
            Some(decisions)
        }
        _ => None,
    });
    let ended = decisions.flatten().filter_map(|decision| match decision {
        Decision::Discarded { op, .. } => Some(op.id),
        _ => None,
    });
    ended.collect()
}

/// Returns the ops that an exported log has as unsent.
fn unsent_in(export: &Path) -> BTreeSet<OpId> {
    let clock = TestClock::starting();
    let read = read_export(&mut File::open(export).unwrap(), options("support", &clock)).unwrap();
    read.queue().list().unwrap().iter().map(|queued| queued.op.op).collect()
}

#[test]
fn with_an_export_everything_that_was_given_up_is_in_a_verified_file() {
    let clock = TestClock::starting();
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::new(&clock));
    let ann = Book::create_new(folder.path().join("a.book"), options("ann", &clock)).unwrap();
    create(&ann, "lead/1");
    sync(&ann, &server);
    update(&ann, "lead/1");
    sync_with(&ann, &server.refusing("no", "no"));
    create(&ann, "lead/2");
    sync_lost(&ann, &server, false);
    ann.act_as(Actor::parse("ben").unwrap());
    create(&ann, "lead/3");
    let (before, given_up) = (ann.audit().head().unwrap(), ann.queue().list().unwrap());
    let path = folder.path().join("given-up.log");
    let how = TakeState::new("the wrong device").export_to(&path);
    assert_eq!(ann.servers().take_state(how.clone()).unwrap(), 3);
    assert_eq!(verify_export(&mut File::open(&path).unwrap()).unwrap().head, before);
    let ids: BTreeSet<_> = given_up.iter().map(|queued| queued.op.op).collect();
    assert_eq!((discarded(&ann), unsent_in(&path)), (ids.clone(), ids));
    // The book itself shows what was given up, too.
    let then = ann.at(Moment::Entry(before.unwrap().seq)).unwrap();
    let shown = then.queue().unwrap();
    assert_eq!(shown.len(), 3);
    let content = ann.queue().op(shown[2].op.place).unwrap();
    assert_eq!(content.fields, fields(json!({"n": 1})));
    drop(then);
    // Nothing is left, so there is no second file, and the first one is in nobody's way.
    assert_eq!(ann.servers().take_state(how).unwrap(), 0);
    assert_sound(&ann);
}

#[test]
fn an_export_that_cannot_be_made_discards_nothing() {
    let clock = TestClock::starting();
    let folder = tempfile::tempdir().unwrap();
    let (book_path, path) = (folder.path().join("a.book"), folder.path().join("a.log"));
    let book = Book::create_new(&book_path, options("ann", &clock)).unwrap();
    create(&book, "lead/1");
    let head = book.audit().head().unwrap();
    fs::write(&path, b"of somebody else").unwrap();
    let refused = |book: &Book, path: &Path| {
        let how = TakeState::new("twice").export_to(path);
        book.servers().take_state(how).unwrap_err()
    };
    let told = refused(&book, &path);
    assert!(
        matches!(&told, Error::Store(cause) if matches!(**cause, StoreError::AlreadyExists { .. })),
        "{told:?}"
    );
    assert_eq!(fs::read(&path).unwrap(), b"of somebody else");
    let told = refused(&book, &folder.path().join("missing").join("a.log"));
    assert!(
        matches!(&told, Error::Store(cause) if matches!(**cause, StoreError::NotFound { .. })),
        "{told:?}"
    );
    assert_eq!(book.audit().head().unwrap(), head);
    create(&book, "lead/2");
    assert_eq!(book.queue().unsent().unwrap().ops(), 2, "the book goes on");
    book.close().unwrap();
    let looking = Book::open(&book_path, options("ann", &clock).read_only()).unwrap();
    let path = folder.path().join("b.log");
    assert!(matches!(refused(&looking, &path), Error::ReadOnly));
    assert!(!path.exists(), "a book that cannot be reset exports nothing");
}

/// Writers change the same few records all the time, so their ops are in the rounds of the resets
/// and between an export and its commit, if there is a gap.
#[test]
fn what_is_written_during_a_reset_is_in_its_export_or_still_waits() {
    let clock = TestClock::starting();
    let folder = tempfile::tempdir().unwrap();
    let book = Book::create_new(folder.path().join("a.book"), options("ann", &clock)).unwrap();
    let is_over = AtomicBool::new(false);
    let resets = std::thread::scope(|scope| {
        for writer in 0..4 {
            let (book, is_over) = (&book, &is_over);
            scope.spawn(move || {
                for number in 0_u64.. {
                    if is_over.load(Ordering::SeqCst) {
                        break;
                    }
                    let id = key(&format!("lead/{}", writer % 2));
                    let image = fields(json!({"n": number, "writer": writer}));
                    let written = match book.records().update(id.clone(), image.clone()) {
                        Err(Error::Rejected(_)) => book.records().create(id, image),
                        written => written,
                    };
                    assert!(matches!(written, Ok(_) | Err(Error::Rejected(_))), "{written:?}");
                }
            });
        }
        let mut resets = Vec::new();
        while resets.len() < 20 {
            let known = discarded(&book);
            let path = folder.path().join(format!("{}.log", resets.len()));
            let how = TakeState::new("again").export_to(&path);
            if book.servers().take_state(how).unwrap() > 0 {
                let now: BTreeSet<_> = discarded(&book).difference(&known).copied().collect();
                resets.push((now, unsent_in(&path)));
            }
        }
        is_over.store(true, Ordering::SeqCst);
        resets
    });
    for (discarded, exported) in resets {
        assert_eq!(discarded, exported);
    }
    assert_sound(&book);
}
