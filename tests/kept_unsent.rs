//! Signing out with only the unsent changes kept: the values of other records leave the device, and
//! nothing that was not sent is lost.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use common::{Server, TestClock, assert_sound, fields, key, options, sync, sync_with, view};
use fieldbook::audit::{Moment, Seq, Verification};
use fieldbook::conflict::Choice;
use fieldbook::schema::{Policy, Reference};
use fieldbook::sync::FnRemote;
use fieldbook::sync::protocol::{ExchangeRequest, Failure};
use fieldbook::{Book, BookOptions, EntityRules, EntityType, Error, Schema, SignOut};
use serde_json::json;

/// A device, and a server with four leads of another device.
struct World {
    folder: tempfile::TempDir,
    clock: Arc<TestClock>,
    server: Server,
}

impl World {
    fn new() -> Self {
        let clock = TestClock::starting();
        let world =
            Self { folder: tempfile::tempdir().unwrap(), server: Server::new(&clock), clock };
        let other = common::book("ben", &world.clock);
        for number in 1..5 {
            let name = json!({"name": format!("Marked{number}"), "stage": "new"});
            other.records().create(key(&format!("lead/{number}")), fields(name)).unwrap();
        }
        sync(&other, &world.server);
        world
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("a.book")
    }

    fn options(&self) -> BookOptions {
        options("ann", &self.clock)
    }

    /// Opens the book of the device, which has synced once before the first sign-out.
    fn book(&self) -> Book {
        self.book_with(self.options())
    }

    fn book_with(&self, options: BookOptions) -> Book {
        let is_new = !self.path().exists();
        let book = Book::open_or_create(self.path(), options).unwrap();
        if is_new {
            sync(&book, &self.server);
        }
        book
    }

    /// Returns which of the four names are anywhere in the file.
    fn names_in_file(&self) -> Vec<u32> {
        let bytes = fs::read(self.path()).unwrap();
        let is_in = |number: &u32| {
            let name = format!("Marked{number}");
            bytes.windows(name.len()).any(|window| window == name.as_bytes())
        };
        (1..5).filter(is_in).collect()
    }
}

fn edit(book: &Book, id: &str, stage: &str) {
    book.records().update(key(id), fields(json!({"stage": stage}))).unwrap();
}

#[test]
fn only_records_with_an_unsent_change_keep_their_values_on_the_device() {
    let world = World::new();
    let book = world.book();
    edit(&book, "lead/2", "hot");
    book.records().create(key("lead/9"), fields(json!({"name": "Nora"}))).unwrap();
    let head = book.audit().head().unwrap().unwrap();
    assert_eq!(world.names_in_file(), [1, 2, 3, 4]);
    book.sign_out(SignOut::KeepUnsent).unwrap();
    assert_eq!(world.names_in_file(), [2], "in no page of the file");

    let book = world.book();
    assert_eq!(view(&book, "lead/1"), None);
    assert_eq!(view(&book, "lead/2"), Some(json!({"name": "Marked2", "stage": "hot"})));
    assert_eq!(view(&book, "lead/9"), Some(json!({"name": "Nora"})));
    assert_eq!(book.queue().unsent().unwrap().ops(), 2);
    let Verification::Sound(verified) = book.audit().verify(|_| {}).unwrap() else {
        panic!("the log is damaged");
    };
    assert_eq!(verified.erased_items, 3);
    assert_eq!(book.audit().entries(head.seq, 1).unwrap()[0].hash, head.hash, "the same log");
    assert_sound(&book);

    sync(&book, &world.server);
    assert_eq!(book.status().pending, 0);
    assert_eq!(view(&book, "lead/1"), Some(json!({"name": "Marked1", "stage": "new"})));
    let arrived = world.server.record("lead/2");
    assert_eq!(arrived, Some(json!({"name": "Marked2", "stage": "hot"})));
    assert_eq!(world.server.record("lead/9"), Some(json!({"name": "Nora"})));
    assert_sound(&book);
}

#[test]
fn a_change_that_had_no_answer_takes_effect_once() {
    let world = World::new();
    let book = world.book();
    edit(&book, "lead/3", "won");
    let server = world.server.clone();
    // The server takes the change, and its answer is lost.
    let remote = FnRemote::new(move |request: &ExchangeRequest| {
        server.answer(request);
        Err(Failure::Unreachable { code: "lost" }.into())
    });
    sync_with(&book, &remote);
    let version = world.server.version("lead/3");
    book.sign_out(SignOut::KeepUnsent).unwrap();
    let book = world.book();
    sync(&book, &world.server);
    assert_eq!((book.status().pending, world.server.version("lead/3")), (0, version));
    assert_eq!(view(&book, "lead/3"), Some(json!({"name": "Marked3", "stage": "won"})));
    assert_sound(&book);
}

#[test]
fn own_changes_that_the_server_has_come_back_too() {
    let world = World::new();
    let book = world.book();
    edit(&book, "lead/1", "mine");
    book.records().create(key("lead/9"), fields(json!({"name": "Nora"}))).unwrap();
    sync(&book, &world.server);
    book.sign_out(SignOut::KeepUnsent).unwrap();
    assert_eq!(world.names_in_file(), Vec::<u32>::new());
    let book = world.book();
    assert_eq!((view(&book, "lead/1"), view(&book, "lead/9")), (None, None));
    sync(&book, &world.server);
    assert_eq!(view(&book, "lead/1"), Some(json!({"name": "Marked1", "stage": "mine"})));
    assert_eq!(view(&book, "lead/9"), Some(json!({"name": "Nora"})));
    assert_sound(&book);
}

#[test]
fn what_waits_for_a_person_waits_with_both_values() {
    let world = World::new();
    let rules = EntityRules { policy: Policy::Manual, ..EntityRules::default() };
    let schema = Schema::closed().declare(EntityType::parse("lead").unwrap(), rules);
    let opened = || world.book_with(world.options().schema(schema.clone()));
    let book = opened();
    // The server refuses one change for good, and a second one meets another person's.
    edit(&book, "lead/1", "refused");
    sync_with(&book, &world.server.refusing("no", "Marked4 is not for you"));
    edit(&book, "lead/2", "mine");
    let other = common::book("ben", &world.clock);
    sync(&other, &world.server);
    world.clock.advance(1_000);
    edit(&other, "lead/2", "theirs");
    sync(&other, &world.server);
    sync(&book, &world.server);
    assert_eq!((book.status().dead_letters, book.conflicts().count().unwrap().open), (1, 1));
    book.sign_out(SignOut::KeepUnsent).unwrap();
    assert_eq!(world.names_in_file(), [1, 2, 4], "the refusal of a kept change stays with it");

    let book = opened();
    let dead = book.dead_letters().all().unwrap();
    assert_eq!((dead.len(), dead[0].key.clone()), (1, key("lead/1")));
    let open = book.conflicts().all().unwrap();
    assert_eq!(open[0].remote.as_str(), r#"{"stage":"theirs"}"#);
    assert_eq!(open[0].local.as_str(), r#"{"stage":"mine"}"#);
    book.conflicts().resolve(open[0].id, Choice::Local).unwrap();
    book.dead_letters().retry(vec![dead[0].op]).unwrap();
    sync(&book, &world.server);
    let stage = |id: &str| world.server.record(id).unwrap()["stage"].clone();
    assert_eq!((stage("lead/1"), stage("lead/2")), (json!("refused"), json!("mine")));
    assert_sound(&book);
}

#[test]
fn the_record_that_an_unsent_change_refers_to_stays() {
    let world = World::new();
    let reference =
        Reference { field: "lead".to_owned(), entity: EntityType::parse("lead").unwrap() };
    let rules = EntityRules { references: vec![reference], ..EntityRules::default() };
    let schema =
        Schema::open(EntityRules::default()).declare(EntityType::parse("note").unwrap(), rules);
    let opened = || world.book_with(world.options().schema(schema.clone()));
    let book = opened();
    book.records().create(key("note/1"), fields(json!({"lead": "4"}))).unwrap();
    book.sign_out(SignOut::KeepUnsent).unwrap();
    let book = opened();
    assert!(view(&book, "lead/4").is_some() && view(&book, "lead/3").is_none());
    sync(&book, &world.server);
    assert_eq!(world.server.record("note/1"), Some(json!({"lead": "4"})));
}

#[test]
fn what_never_leaves_the_device_stays_on_it() {
    let world = World::new();
    let rules = EntityRules { local_only: true, ..EntityRules::default() };
    let schema =
        Schema::open(EntityRules::default()).declare(EntityType::parse("draft").unwrap(), rules);
    let opened = || world.book_with(world.options().schema(schema.clone()));
    let book = opened();
    book.records().create(key("draft/1"), fields(json!({"text": "later"}))).unwrap();
    sync(&book, &world.server);
    book.sign_out(SignOut::KeepUnsent).unwrap();
    assert_eq!(view(&opened(), "draft/1"), Some(json!({"text": "later"})));
}

#[test]
fn a_read_of_the_past_says_that_values_were_erased() {
    let world = World::new();
    let book = world.book();
    edit(&book, "lead/1", "sent");
    sync(&book, &world.server);
    edit(&book, "lead/2", "hot");
    let then = book.audit().head().unwrap().unwrap().seq;
    book.sign_out(SignOut::KeepUnsent).unwrap();
    let book = world.book();
    let by = book.audit().head().unwrap().unwrap().seq;
    let erased = |read: Result<(), Error>| {
        assert!(matches!(read, Err(Error::Erased { by: entry }) if entry == by), "{read:?}");
    };
    let past = book.at(Moment::Entry(then)).unwrap();
    erased(past.get_record(&key("lead/1")).map(drop));
    erased(past.list(&EntityType::parse("lead").unwrap(), None, 10).map(drop));
    erased(past.conflicts().map(drop));
    let kept = past.get_record(&key("lead/2")).unwrap().unwrap();
    assert_eq!(kept.json.as_str(), r#"{"name":"Marked2","stage":"hot"}"#);
    assert_eq!(past.status().unwrap().pending, 1);
    // From the entry on, the past is whole again.
    sync(&book, &world.server);
    let since = book.at(Moment::Entry(by)).unwrap();
    assert_eq!(since.get_record(&key("lead/1")).unwrap(), None);
    let now = book.at(Moment::Back(0)).unwrap();
    assert!(now.get_record(&key("lead/1")).unwrap().is_some());
    assert!(!book.conflicts().overwritten(Seq::ZERO, 10).unwrap().more);
}

#[test]
fn the_story_of_an_erased_record_tells_what_happened_without_its_values() {
    let world = World::new();
    let book = world.book();
    edit(&book, "lead/1", "secret");
    sync(&book, &world.server);
    book.sign_out(SignOut::KeepUnsent).unwrap();
    let book = world.book();
    sync(&book, &world.server);
    let until = Seq::new(u64::MAX);
    for about in [None, Some(key("lead/1"))] {
        let told = book.audit().story(about.as_ref(), Seq::ZERO, until).unwrap();
        let told: Vec<_> = told.iter().map(|paragraph| paragraph.text()).collect();
        let at = told.iter().position(|text| text.contains("were erased")).unwrap();
        let before = told[..at].join("\n");
        assert!(before.contains("(erased)"), "{before}");
        assert!(!before.contains("secret") && !before.contains("Marked"), "{before}");
        assert!(told[at + 1..].join("\n").contains("secret"), "it came again: {told:?}");
    }
    let mut shown = Vec::new();
    book.audit()
        .walk(&book.actor(), until, |step| {
            let effects = step.effects.iter().chain(step.others);
            let images = effects.filter_map(|effect| effect.seen.after.clone());
            shown.extend(images.map(|image| (step.entry.header.seq, image)));
        })
        .unwrap();
    assert!(shown.iter().all(|(_, image)| image.as_str() != "{}"), "{shown:?}");
}

#[test]
fn what_came_while_the_user_was_away_meets_the_kept_change() {
    let world = World::new();
    let book = world.book();
    edit(&book, "lead/2", "mine");
    book.sign_out(SignOut::KeepUnsent).unwrap();
    let other = common::book("ben", &world.clock);
    sync(&other, &world.server);
    world.clock.advance(5_000);
    other.records().update(key("lead/2"), fields(json!({"name": "Renamed"}))).unwrap();
    sync(&other, &world.server);
    let book = world.book();
    sync(&book, &world.server);
    let both = Some(json!({"name": "Renamed", "stage": "mine"}));
    assert_eq!((world.server.record("lead/2"), view(&book, "lead/2")), (both.clone(), both));
}

#[test]
fn a_sign_out_without_anything_unsent_leaves_a_book_without_records() {
    let world = World::new();
    world.book().sign_out(SignOut::KeepUnsent).unwrap();
    let book = world.book();
    let leads = book.records().list(&EntityType::parse("lead").unwrap(), None, 10).unwrap();
    assert_eq!((leads.len(), world.names_in_file()), (0, Vec::new()));
    // Nothing is left to erase, and the book goes on all the same.
    book.sign_out(SignOut::KeepUnsent).unwrap();
    let book = world.book();
    sync(&book, &world.server);
    assert_eq!(world.names_in_file(), [1, 2, 3, 4]);
    assert_sound(&book);
}

#[test]
fn a_refused_sign_out_changes_nothing() {
    let world = World::new();
    let book = world.book();
    edit(&book, "lead/1", "hot");
    let other = book.clone();
    assert!(matches!(book.sign_out(SignOut::KeepUnsent), Err(Error::InUse)));
    other.close().unwrap();
    let before = fs::read(world.path()).unwrap();
    let looking = Book::open(world.path(), world.options().read_only()).unwrap();
    assert!(matches!(looking.sign_out(SignOut::KeepUnsent), Err(Error::ReadOnly)));
    assert!(fs::read(world.path()).unwrap() == before);
    assert_eq!(fs::read_dir(world.folder.path()).unwrap().count(), 1);
}
