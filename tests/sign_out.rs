//! Signing out: nothing that was not sent is lost, and another user's changes stay that user's.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;

use common::{Server, TestClock, assert_sound, fields, key, options, sync, sync_with};
use fieldbook::audit::{read_export, verify_export};
use fieldbook::sync::protocol::{ExchangeRequest, Failure};
use fieldbook::sync::{FnRemote, OpState, Unsent};
use fieldbook::{Actor, Book, EntityRules, EntityType, Error, Schema, SignOut};
use serde_json::json;

const WIPE: SignOut = SignOut::Wipe { export_to: None };

fn actor(name: &str) -> Actor {
    Actor::parse(name).unwrap()
}

/// A device with one book in a folder.
struct Device {
    folder: tempfile::TempDir,
    clock: Arc<TestClock>,
}

impl Device {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), clock: TestClock::starting() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn book(&self) -> Book {
        Book::open_or_create(self.path("a.book"), options("ann", &self.clock)).unwrap()
    }

    fn export(&self) -> SignOut {
        SignOut::Wipe { export_to: Some(self.path("a.log")) }
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn create(book: &Book, id: &str) {
    book.records().create(key(id), fields(json!({"n": 1}))).unwrap();
}

fn refused(result: Result<(), Error>) -> Unsent {
    match result {
        Err(Error::Unsent(unsent)) => unsent,
        other => panic!("not refused: {other:?}"),
    }
}

/// Makes a book in which Ann has a dead letter, an op without an answer, and an op that waits. Ben
/// uses it now.
fn left_by_ann(device: &Device, server: &Server) -> Book {
    let book = device.book();
    create(&book, "lead/1");
    sync_with(&book, &server.refusing("no", "no"));
    assert_eq!(book.status().dead_letters, 1);
    create(&book, "lead/2");
    let lost = |_: &ExchangeRequest| Err(Failure::Unreachable { code: "lost" }.into());
    sync_with(&book, &FnRemote::new(lost));
    create(&book, "lead/3");
    book.act_as(actor("ben"));
    book
}

#[test]
fn a_book_that_is_kept_has_everything_when_its_user_is_back() {
    let device = Device::new();
    let book = device.book();
    create(&book, "lead/1");
    book.sign_out(SignOut::Keep).unwrap();
    let book = device.book();
    assert_eq!((book.queue().unsent().unwrap().ops(), device.files().len()), (1, 1));
    sync(&book, &Server::new(&device.clock));
    assert_eq!(book.status().pending, 0);
}

#[test]
fn a_book_whose_server_has_everything_is_removed() {
    let device = Device::new();
    let book = device.book();
    create(&book, "lead/1");
    sync(&book, &Server::new(&device.clock));
    book.sign_out(WIPE).unwrap();
    assert_eq!(device.files(), Vec::<String>::new());
}

#[test]
fn what_waits_what_has_no_answer_and_what_was_refused_each_keeps_the_book() {
    let device = Device::new();
    let server = Server::new(&device.clock);
    let book = left_by_ann(&device, &server);
    create(&book, "lead/4");
    let head = book.audit().head().unwrap();
    let unsent = refused(book.sign_out(WIPE));
    assert_eq!(unsent.of, BTreeMap::from([(actor("ann"), 3), (actor("ben"), 1)]));
    let book = device.book();
    assert_eq!(book.audit().head().unwrap(), head, "the book is as it was");
    book.dead_letters().discard(vec![book.dead_letters().all().unwrap()[0].op], "no").unwrap();
    sync(&book, &server);
    let unsent = refused(book.sign_out(WIPE));
    assert_eq!(unsent.to_string(), "1 change was not sent: 1 of ben");
}

#[test]
fn an_export_verifies_and_has_what_was_not_sent() {
    let device = Device::new();
    let book = device.book();
    create(&book, "lead/1");
    sync_with(&book, &Server::new(&device.clock).refusing("no", "no"));
    book.act_as(actor("ben"));
    create(&book, "lead/2");
    let head = book.audit().head().unwrap();
    book.sign_out(device.export()).unwrap();
    assert_eq!(device.files(), ["a.log"]);
    let open = || File::open(device.path("a.log")).unwrap();
    assert_eq!(verify_export(&mut open()).unwrap().head, head);
    let read = read_export(&mut open(), options("support", &device.clock)).unwrap();
    let unsent = read.queue().unsent().unwrap();
    assert_eq!(unsent.of, BTreeMap::from([(actor("ann"), 1), (actor("ben"), 1)]));
    assert_eq!(read.records().get(&key("lead/2")).unwrap().unwrap().json.as_str(), r#"{"n":1}"#);
}

#[test]
fn an_export_that_cannot_be_made_keeps_the_book() {
    let device = Device::new();
    let book = device.book();
    create(&book, "lead/1");
    fs::write(device.path("a.log"), b"of somebody else").unwrap();
    assert!(matches!(book.sign_out(device.export()), Err(Error::Store(_))));
    assert_eq!(fs::read(device.path("a.log")).unwrap(), b"of somebody else");
    let missing = Some(device.path("missing").join("a.log"));
    let refused = device.book().sign_out(SignOut::Wipe { export_to: missing });
    assert!(matches!(refused, Err(Error::Store(_))));
    let book = device.book();
    assert_eq!(book.queue().unsent().unwrap().ops(), 1);
    assert_sound(&book);
}

#[test]
fn a_book_with_another_handle_or_open_for_reading_is_not_removed() {
    let device = Device::new();
    let book = device.book();
    let other = book.clone();
    assert!(matches!(book.sign_out(WIPE), Err(Error::InUse)));
    create(&other, "lead/1");
    other.close().unwrap();
    let looking = Book::open(device.path("a.book"), options("ann", &device.clock).read_only());
    assert!(matches!(looking.unwrap().sign_out(device.export()), Err(Error::ReadOnly)));
    assert_eq!(device.files(), ["a.book"]);
}

#[test]
fn what_never_leaves_the_device_keeps_no_book() {
    let device = Device::new();
    let rules = EntityRules { local_only: true, ..EntityRules::default() };
    let schema = Schema::closed().declare(EntityType::parse("draft").unwrap(), rules);
    let with_drafts = options("ann", &device.clock).schema(schema);
    let book = Book::create_new(device.path("a.book"), with_drafts).unwrap();
    create(&book, "draft/1");
    assert_eq!(book.queue().unsent().unwrap().to_string(), "0 changes were not sent");
    book.sign_out(WIPE).unwrap();
    assert_eq!(device.files(), Vec::<String>::new());
}

#[test]
fn nothing_of_a_former_user_is_sent_with_other_credentials_or_shown_as_ones_own() {
    let device = Device::new();
    let server = Server::new(&device.clock);
    let book = left_by_ann(&device, &server);
    create(&book, "lead/4");
    sync(&book, &server);
    let here = |id: &str| server.record(id).is_some();
    let arrived = ["lead/1", "lead/2", "lead/3", "lead/4"].map(here);
    assert_eq!(arrived, [false, false, false, true]);
    let requests = server.requests.lock().unwrap().clone();
    for request in requests.iter().filter(|request| request.actor == actor("ben")) {
        let sent: Vec<_> = request.units.iter().flat_map(|unit| &unit.changes).collect();
        assert!(sent.iter().all(|change| change.key == key("lead/4")), "{sent:?}");
    }
    let items = book.failed().page(None, 100).unwrap().items;
    let listed: Vec<_> =
        items.iter().map(|item| (item.key.clone(), item.op.actor.clone())).collect();
    let of_ann = ["lead/1", "lead/2", "lead/3"].map(|id| (key(id), actor("ann")));
    assert_eq!(listed, of_ann, "the list says whose they are");
    assert!(matches!(items[0].op.state, OpState::DeadLettered { .. }));
    assert_eq!(book.dead_letters().all().unwrap()[0].actor, actor("ann"));
    let queued = book.queue().list().unwrap();
    assert!(queued.iter().all(|op| op.op.actor == actor("ann")));
    // A dead letter that another user sends again is still not theirs.
    book.dead_letters().retry(vec![items[0].op.op]).unwrap();
    sync(&book, &server);
    assert!(!here("lead/1"));
    book.act_as(actor("ann"));
    sync(&book, &server);
    assert_eq!(["lead/1", "lead/2", "lead/3"].map(here), [true; 3]);
    assert_sound(&book);
}
