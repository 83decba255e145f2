//! What the log says of each opening, of the app's declarations, and of the time without a server.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{Server, TestClock, assert_sound, fields, key, options, sync, sync_with, view};
use fieldbook::audit::entry::{Control, Entry, LastStop, Meta, Session, Silence};
use fieldbook::audit::{Seq, rebuild_book};
use fieldbook::host::{Clock, Now, WallTime};
use fieldbook::schema::Reference;
use fieldbook::sync::FnRemote;
use fieldbook::sync::protocol::{ExchangeRequest, Failure};
use fieldbook::{Book, BookOptions, EntityRules, EntityType, Error, Remote, Schema};
use serde_json::{Value, json};

fn entries(book: &Book) -> Vec<Entry> {
    book.audit().entries(Seq::ZERO, usize::MAX).unwrap()
}

fn head(book: &Book) -> u64 {
    book.audit().head().unwrap().unwrap().seq.number()
}

/// Returns the sessions of a log with their places.
fn sessions(book: &Book) -> Vec<(u64, Session)> {
    let found = entries(book).into_iter().filter_map(|entry| match entry.meta {
        Meta::Control(Control::Session(session)) => Some((entry.header.seq.number(), session)),
        _ => None,
    });
    found.collect()
}

fn silences(book: &Book) -> Vec<(u64, Vec<Silence>)> {
    let found = entries(book).into_iter().filter_map(|entry| match entry.meta {
        Meta::Control(Control::Silence(silences)) => Some((entry.header.seq.number(), silences)),
        _ => None,
    });
    found.collect()
}

fn entity(name: &str) -> EntityType {
    EntityType::parse(name).unwrap()
}

/// Calls refer to leads.
fn schema() -> Schema {
    let references = vec![Reference { field: "lead".to_owned(), entity: entity("lead") }];
    let calls = EntityRules { references, ..EntityRules::default() };
    Schema::open(EntityRules::default()).declare(entity("call"), calls)
}

fn add(book: &Book, record: &str) {
    book.records().create(key(record), fields(json!({"n": 1}))).unwrap();
}

#[test]
fn an_opening_is_recorded_with_its_first_write_and_never_alone() {
    let (clock, folder) = (TestClock::starting(), tempfile::tempdir().unwrap());
    let path = folder.path().join("a.book");
    let opened = |version: &str| options("ann", &clock).app("CRM", version).system("android 14");
    Book::create_new(&path, opened("7.0")).unwrap().close().unwrap();

    // Nothing is written: neither by an opening alone, nor with a write that is refused.
    let book = Book::open(&path, opened("7.1")).unwrap();
    assert!(matches!(
        book.records().update(key("lead/1"), fields(json!({"n": 2}))),
        Err(Error::Rejected(_))
    ));
    assert_eq!(head(&book), 2, "the book was made, and by whom");
    book.close().unwrap();

    let book = Book::open(&path, opened("7.2")).unwrap();
    add(&book, "lead/1");
    add(&book, "lead/2");
    let known = sessions(&book);
    let of = |(seq, session): &(u64, Session)| {
        (*seq, session.app.clone().unwrap().version, session.last_stop)
    };
    assert_eq!(
        known.iter().map(of).collect::<Vec<_>>(),
        [(2, "7.0".to_owned(), LastStop::None), (3, "7.2".to_owned(), LastStop::Clean),]
    );
    assert_eq!(known[1].1.system, "android 14");
    assert_eq!(known[1].1.program, concat!("fieldbook ", env!("CARGO_PKG_VERSION")));
    assert_eq!(head(&book), 5, "two ops follow");
    assert_sound(&book);
}

#[test]
fn a_program_that_was_killed_is_told_from_one_that_closed_the_book() {
    let (clock, folder) = (TestClock::starting(), tempfile::tempdir().unwrap());
    let (path, copy) = (folder.path().join("a.book"), folder.path().join("copy.book"));
    let book = Book::create_new(&path, options("ann", &clock)).unwrap();
    add(&book, "lead/1");
    // The bytes of an open book are those that a kill leaves.
    std::fs::copy(&path, &copy).unwrap();
    book.close().unwrap();
    for (path, expected) in [(path, LastStop::Clean), (copy, LastStop::Unclean)] {
        let book = Book::open(&path, options("ann", &clock)).unwrap();
        add(&book, "lead/2");
        assert_eq!(sessions(&book).pop().unwrap().1.last_stop, expected);
    }
}

/// A clock of a device in Kathmandu.
struct Kathmandu(Arc<TestClock>);

impl Clock for Kathmandu {
    fn now(&self) -> Now {
        self.0.now()
    }

    fn utc_offset(&self, _: WallTime) -> Option<i32> {
        Some(345)
    }
}

#[test]
fn the_zone_of_the_device_is_recorded_if_its_clock_knows_it() {
    let clock = TestClock::starting();
    let there = Arc::new(Kathmandu(Arc::clone(&clock)));
    let known = Book::on_backend(
        redb::backends::InMemoryBackend::new(),
        options("ann", &clock).clock(there),
    );
    assert_eq!(sessions(&known.unwrap())[0].1.utc_offset, Some(345));
    assert_eq!(sessions(&common::book("ben", &clock))[0].1.utc_offset, None);
}

#[test]
fn the_declarations_are_recorded_when_they_changed() {
    let (clock, folder) = (TestClock::starting(), tempfile::tempdir().unwrap());
    let path = folder.path().join("a.book");
    Book::create_new(&path, options("ann", &clock)).unwrap().close().unwrap();
    for (number, schema) in [schema(), schema(), Schema::closed()].into_iter().enumerate() {
        let schema = schema.declare(entity("lead"), EntityRules::default());
        let book = Book::open(&path, options("ann", &clock).schema(schema)).unwrap();
        add(&book, &format!("lead/{number}"));
    }
    let book = Book::open(&path, options("ann", &clock).recorded_schema()).unwrap();
    let known = sessions(&book);
    let recorded: Vec<_> = known.iter().map(|(_, session)| session.schema.is_some()).collect();
    assert_eq!(recorded, [true, true, false, true]);
    assert_eq!(known[1].1.schema_digest, known[2].1.schema_digest);
    let last = &entries(&book)[usize::try_from(known[3].0).unwrap() - 1];
    let declared: Value = serde_json::from_slice(last.item(0).unwrap()).unwrap();
    assert_eq!(declared, json!({"entities": {"lead": {}}}));
    assert_sound(&book);
}

/// Returns how a program that knows nothing of the app opens the book.
fn support() -> BookOptions {
    BookOptions::new("support").unwrap().recorded_schema()
}

#[test]
fn a_program_without_the_app_opens_the_book_by_what_it_declared() {
    let (clock, folder) = (TestClock::starting(), tempfile::tempdir().unwrap());
    let path = folder.path().join("a.book");
    let secret = EntityRules { local_only: true, ..EntityRules::default() };
    let declared = schema().declare(entity("note"), secret);
    let book = Book::create_new(&path, options("ann", &clock).schema(declared)).unwrap();
    add(&book, "note/1");
    book.records().create(key("call/1"), fields(json!({"lead": "9"}))).unwrap();
    book.records().create(key("lead/9"), fields(json!({"name": "Ann"}))).unwrap();
    book.records().update(key("call/1"), fields(json!({"lead": "8"}))).unwrap();
    let explained = ["note/1", "call/1", "lead/9"].map(|id| book.explain(&key(id)).unwrap());
    book.close().unwrap();

    let options = support().clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let book = Book::open(&path, options).unwrap();
    book.act_as("ann".parse().unwrap());
    for said in explained {
        let here = book.explain(&said.key).unwrap();
        assert_eq!(
            here.ops.iter().map(|op| &op.state).collect::<Vec<_>>(),
            said.ops.iter().map(|op| &op.state).collect::<Vec<_>>()
        );
    }
    let server = Server::new(&clock);
    sync(&book, &server);
    assert_eq!(server.record("lead/9"), Some(json!({"name": "Ann"})));
    assert_eq!(server.record("note/1"), None, "it never leaves the device");
    assert!(view(&book, "note/1").is_some());
    let known = sessions(&book);
    assert_eq!(known.len(), 2);
    assert_eq!(known[1].1.schema, None, "the declarations are still those of the app");
    assert_sound(&book);
}

fn with_a_validator() -> Schema {
    schema().declare(entity("lead"), EntityRules::default().validate(|_| Ok(())))
}

#[test]
fn a_book_that_needs_functions_of_its_app_is_not_written_without_them() {
    let (clock, folder) = (TestClock::starting(), tempfile::tempdir().unwrap());
    let path = folder.path().join("a.book");
    let app = || options("ann", &clock).schema(with_a_validator());
    let book = Book::create_new(&path, app()).unwrap();
    add(&book, "lead/1");
    assert!(book.audit().lacking().is_empty(), "the app has its own functions");
    book.close().unwrap();

    let before = std::fs::read(&path).unwrap();
    let refused = Book::open(&path, support());
    let Err(Error::LacksRules { hooks }) = refused else { panic!("{refused:?}") };
    assert_eq!(
        hooks.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["the validator of lead"]
    );
    let book = Book::open(&path, support().read_only()).unwrap();
    assert_eq!(book.audit().lacking(), hooks);
    assert!(view(&book, "lead/1").is_some());
    drop(book);
    assert!(std::fs::read(&path).unwrap() == before, "the file changed");

    // Asked for, it is written, and what the app declared stays recorded.
    let book = Book::open(&path, support().without_app_rules()).unwrap();
    add(&book, "lead/2");
    assert_eq!(book.audit().lacking(), hooks);
    book.close().unwrap();
    assert!(matches!(Book::open(&path, support()), Err(Error::LacksRules { .. })));
    // Folding calls no function, so it needs none.
    rebuild_book(&path, &support(), |_, _| {}).unwrap();
    let book = Book::open(&path, app()).unwrap();
    assert_eq!(sessions(&book).iter().filter(|(_, one)| one.schema.is_some()).count(), 1);
    assert_sound(&book);
}

fn unreachable() -> impl Remote {
    FnRemote::new(|_: &ExchangeRequest| Err(Failure::Unreachable { code: "dns" }.into()))
}

/// Fails to sync this often, a minute apart, and returns the times of the first and the last
/// failure.
fn fail(book: &Book, clock: &TestClock, times: usize) -> (WallTime, WallTime) {
    let first = clock.now().wall;
    for number in 0..times {
        if number > 0 {
            clock.advance(60_000);
        }
        sync_with(book, &unreachable());
    }
    (first, clock.now().wall)
}

fn one_silence(from: WallTime, to: WallTime, attempts: u32) -> Vec<Silence> {
    vec![Silence { from, to, attempts, codes: vec![("dns".to_owned(), attempts)], answers: 0 }]
}

#[test]
fn failed_attempts_write_nothing_and_the_next_answer_records_them_once() {
    let (clock, folder) = (TestClock::starting(), tempfile::tempdir().unwrap());
    let (server, path) = (Server::new(&clock), folder.path().join("a.book"));
    let book = Book::create_new(&path, options("ann", &clock)).unwrap();
    add(&book, "lead/1");
    // The first attempt plans its unit. That is a write, before the attempt.
    let (from, _) = fail(&book, &clock, 1);
    let before = std::fs::read(&path).unwrap();
    clock.advance(60_000);
    let (_, to) = fail(&book, &clock, 37);
    assert!(std::fs::read(&path).unwrap() == before, "a failed attempt changed the file");
    let last = head(&book);

    sync(&book, &server);
    assert_eq!(silences(&book), [(last + 1, one_silence(from, to, 38))]);
    sync(&book, &server);
    add(&book, "lead/2");
    assert_eq!(silences(&book).len(), 1, "it is recorded once");
    assert_sound(&book);
}

#[test]
fn a_write_without_a_server_records_the_attempts_before_it() {
    let (clock, server) = (TestClock::starting(), Server::new(&TestClock::starting()));
    let book = common::book("ann", &clock);
    sync(&book, &server);
    let (from, to) = fail(&book, &clock, 5);
    sync(&book, &server);
    let (second, end) = fail(&book, &clock, 2);
    assert_eq!(silences(&book), [], "an answer without news writes nothing either");
    let last = head(&book);
    add(&book, "lead/1");
    let both = [one_silence(from, to, 5), one_silence(second, end, 2)].concat();
    assert_eq!(silences(&book), [(last + 1, both)]);
    assert_eq!(head(&book), last + 2, "it is in the commit of the op");
    assert_sound(&book);
}

/// A book that was made before openings and declarations were recorded.
fn before_sessions(folder: &Path) -> std::path::PathBuf {
    let golden =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/format-2/before-sessions.golden");
    let path = folder.join("old.book");
    std::fs::copy(golden, &path).unwrap();
    path
}

#[test]
fn a_book_from_before_sessions_opens_is_read_and_is_synced() {
    let (clock, folder) = (TestClock::starting(), tempfile::tempdir().unwrap());
    clock.advance(100_000_000_000);
    let (server, path) = (Server::new(&clock), before_sessions(folder.path()));
    let looked = Book::open(&path, support().read_only()).unwrap();
    let lead = json!({"company": "1", "name": "Ann", "stage": "hot"});
    assert_eq!(view(&looked, "lead/42"), Some(lead.clone()));
    assert_eq!(looked.queue().list().unwrap().len(), 4);
    let old_head = looked.audit().head().unwrap().unwrap();
    assert_eq!(
        old_head.hash.to_string(),
        "a1bf392982c4d1c26a94d972d33a9580fcf3ec97a9a486f568b3f627984252bc",
        "the log is as it was sealed"
    );
    drop(looked);

    let book = Book::open(&path, options("rep-7", &clock).schema(schema())).unwrap();
    sync(&book, &server);
    assert_eq!(server.record("lead/42"), Some(lead));
    assert_eq!(book.status().pending, 0);
    assert_eq!(entries(&book)[4].hash, old_head.hash);
    let known = sessions(&book);
    assert_eq!(known.len(), 1);
    assert!(known[0].1.schema.is_some(), "the declarations are recorded from now on");
    assert_sound(&book);
}
