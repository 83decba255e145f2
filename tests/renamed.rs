//! A field that gets another name: every device reads and lists all records under the name that its
//! app knows, whoever wrote them, and nobody's edit is hidden or lost.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{Server, TestClock, assert_sound, fields, key, options, sync, view};
use fieldbook::audit::examine_book;
use fieldbook::projection::{Projection, ProjectionError, ProjectionTable, RecordChange};
use fieldbook::{Book, BookOptions, Entity, EntityRules, EntityType, Error, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

fn lead() -> EntityType {
    EntityType::parse("lead").unwrap()
}

/// Version 1 of the app has `tel`, version 2 has `phone`. Both list by it.
fn schema(version: u32) -> Schema {
    let name = if version == 1 { "tel" } else { "phone" };
    let rules = EntityRules {
        schema_version: version,
        indexes: vec![name.into()],
        ..EntityRules::default()
    };
    let rules = if version == 1 { rules } else { rules.rename_from(1, "tel", "phone") };
    Schema::closed().declare(lead(), rules)
}

/// The same upgrade by a function, which a program without the app lacks.
fn by_function() -> Schema {
    let rules =
        EntityRules { schema_version: 2, indexes: vec!["phone".into()], ..EntityRules::default() };
    let rules = rules.upcast_from(1, |_, mut fields| {
        if let Some(value) = fields.remove("tel") {
            fields.set("phone", value);
        }
        fields
    });
    Schema::closed().declare(lead(), rules)
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Lead {
    name: String,
    phone: Option<String>,
}

impl Entity for Lead {
    const ENTITY: &'static str = "lead";
}

fn book(name: &str, version: u32, clock: &Arc<TestClock>) -> Book {
    let options = options(name, clock).schema(schema(version));
    Book::on_backend(redb::backends::InMemoryBackend::new(), options).unwrap()
}

fn open(path: &Path, clock: &Arc<TestClock>, schema: Schema) -> Book {
    Book::open_or_create(path, options("ann", clock).schema(schema)).unwrap()
}

/// Returns the ids of the leads with a value of this field, as the index has them.
fn listed(book: &Book, index: &str, value: &str) -> Vec<String> {
    let page = book.records().query(&lead(), index).eq(value).page().unwrap();
    page.items.iter().map(|row| row.id.as_str().to_owned()).collect()
}

fn id() -> fieldbook::RecordId {
    "1".parse().unwrap()
}

/// Makes a book of version 1 with a confirmed record, and closes it.
fn confirmed(path: &Path, clock: &Arc<TestClock>, server: &Server) {
    let old = open(path, clock, schema(1));
    old.records().create(key("lead/1"), fields(json!({"name": "Ann", "tel": "1"}))).unwrap();
    sync(&old, server);
    assert_eq!(listed(&old, "tel", "1"), ["1"]);
    old.close().unwrap();
}

/// Makes a book of each version, which have the same confirmed record.
fn both(clock: &Arc<TestClock>, server: &Server) -> (Book, Book) {
    let (old, new) = (book("old", 1, clock), book("new", 2, clock));
    old.records().create(key("lead/1"), fields(json!({"name": "Ann", "tel": "1"}))).unwrap();
    sync(&old, server);
    sync(&new, server);
    (old, new)
}

#[test]
fn what_the_server_confirmed_is_read_and_listed_under_the_new_name() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::starting());
    let path = folder.path().join("ann.book");
    let server = Server::new(&clock);
    confirmed(&path, &clock, &server);
    for schema in [schema(2), by_function()] {
        let new = open(&path, &clock, schema);
        let expected = || json!({"name": "Ann", "phone": "1"});
        assert_eq!(view(&new, "lead/1"), Some(expected()));
        let typed = Lead { name: "Ann".into(), phone: Some("1".into()) };
        assert_eq!(new.get::<Lead>(&id()).unwrap(), Some(typed));
        assert_eq!(listed(&new, "phone", "1"), ["1"]);
        let rows = new.query::<Lead>("phone").eq("1").page().unwrap().items;
        assert_eq!(rows[0].value.as_ref().unwrap().phone.as_deref(), Some("1"));
        let all = new.records().list(&lead(), None, 10).unwrap();
        assert_eq!(serde_json::from_str::<Value>(all.get(0).unwrap().json).unwrap(), expected());
        let past = new.at(fieldbook::audit::Moment::Back(0)).unwrap();
        let record = past.get_record(&key("lead/1")).unwrap().unwrap();
        assert_eq!(serde_json::from_str::<Value>(record.json.as_str()).unwrap(), expected());
        assert_sound(&new);
        assert_eq!(
            server.record("lead/1"),
            Some(json!({"name": "Ann", "tel": "1"})),
            "reading changes nothing at the server"
        );
        new.close().unwrap();
    }
}

#[test]
fn an_edit_under_the_new_name_takes_the_former_one_away_and_no_other_edit_does() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let (_, new) = both(&clock, &server);
    new.edit::<Lead>(&id(), |lead| lead.name = "Anna".into()).unwrap();
    sync(&new, &server);
    assert_eq!(server.record("lead/1"), Some(json!({"name": "Anna", "tel": "1"})));
    new.edit::<Lead>(&id(), |lead| lead.phone = Some("2".into())).unwrap();
    assert_eq!(listed(&new, "phone", "2"), ["1"]);
    sync(&new, &server);
    assert_eq!(server.record("lead/1"), Some(json!({"name": "Anna", "phone": "2"})));
    assert_sound(&new);
}

/// Whoever edits last is read by all who know the new name, whichever name they write.
#[test]
fn the_later_edit_counts_whichever_name_it_uses() {
    for old_is_later in [true, false] {
        let clock = TestClock::starting();
        let server = Server::new(&clock);
        let (old, new) = both(&clock, &server);
        let by_old =
            || old.records().update(key("lead/1"), fields(json!({"tel": "by the old"}))).unwrap();
        let by_new =
            || new.records().update(key("lead/1"), fields(json!({"phone": "by the new"}))).unwrap();
        if old_is_later {
            by_new();
            clock.advance(1_000);
            by_old();
        } else {
            by_old();
            clock.advance(1_000);
            by_new();
        }
        for _ in 0..2 {
            sync(&old, &server);
            sync(&new, &server);
        }
        let expected = if old_is_later { "by the old" } else { "by the new" };
        assert_eq!(new.get::<Lead>(&id()).unwrap().unwrap().phone.as_deref(), Some(expected));
        assert_eq!(listed(&new, "phone", expected), ["1"]);
        let conflicts = old.conflicts().count().unwrap().all + new.conflicts().count().unwrap().all;
        assert_eq!(conflicts, 1, "the edit that lost is on record");
        assert_sound(&new);
        assert_sound(&old);
    }
}

/// Once, an op that was upcast set the new name beside the former one that the server had.
#[test]
fn an_edit_that_waited_during_the_upgrade_is_not_hidden_by_what_was_confirmed() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::starting());
    let path = folder.path().join("ann.book");
    let server = Server::new(&clock);
    confirmed(&path, &clock, &server);
    let old = open(&path, &clock, schema(1));
    old.records().update(key("lead/1"), fields(json!({"tel": "2"}))).unwrap();
    old.close().unwrap();
    let new = open(&path, &clock, schema(2));
    assert_eq!(view(&new, "lead/1"), Some(json!({"name": "Ann", "phone": "2"})));
    assert_eq!(listed(&new, "phone", "2"), ["1"]);
    sync(&new, &server);
    assert_eq!(server.record("lead/1"), Some(json!({"name": "Ann", "phone": "2"})));
    assert_sound(&new);
}

#[test]
fn what_is_undone_is_read_as_before() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let (_, new) = both(&clock, &server);
    let written = new.edit::<Lead>(&id(), |lead| lead.phone = None).unwrap();
    assert_eq!(view(&new, "lead/1"), Some(json!({"name": "Ann"})));
    new.queue().undo(written.place().unwrap()).unwrap();
    assert_eq!(view(&new, "lead/1"), Some(json!({"name": "Ann", "phone": "1"})));
    assert_sound(&new);
}

/// A rename is data, so a program without the app follows it. A function is not: such a program
/// drops the index instead of filling it with other keys, and the app builds it again.
#[test]
fn a_program_without_the_app_leaves_no_wrong_index() {
    for (after, is_data) in [(schema(2), true), (by_function(), false)] {
        let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::starting());
        let path = folder.path().join("ann.book");
        confirmed(&path, &clock, &Server::new(&clock));
        let new = open(&path, &clock, after.clone());
        new.records().update(key("lead/1"), fields(json!({"name": "Anna"}))).unwrap();
        new.close().unwrap();

        let recorded = options("ann", &clock).recorded_schema();
        let examined = examine_book(&path, recorded, true, |_, _| {}).unwrap();
        assert!(examined.is_sound(), "{examined:?}");
        let plain = || options("ann", &clock);
        let looking = Book::open(&path, plain().recorded_schema().read_only()).unwrap();
        assert_eq!(listed(&looking, "phone", "1"), ["1"]);
        looking.close().unwrap();

        let refused = Book::open(&path, plain().recorded_schema());
        match refused {
            Ok(program) => {
                assert!(is_data);
                let record = key("lead/2");
                program
                    .records()
                    .create(record, fields(json!({"name": "Bo", "tel": "2"})))
                    .unwrap();
                assert_eq!(listed(&program, "phone", "2"), ["2"]);
                program.close().unwrap();
            }
            Err(Error::LacksRules { .. }) => {
                assert!(!is_data);
                let program = Book::open(&path, plain().without_app_rules()).unwrap();
                let record = key("lead/2");
                program
                    .records()
                    .create(record, fields(json!({"name": "Bo", "tel": "2"})))
                    .unwrap();
                assert!(matches!(
                    program.records().query(&lead(), "phone").page(),
                    Err(Error::NotBuilt(_))
                ));
                assert_sound(&program);
                program.close().unwrap();
            }
            Err(other) => panic!("{other}"),
        }
        let new = open(&path, &clock, after);
        assert_eq!(
            (listed(&new, "phone", "1"), listed(&new, "phone", "2")),
            (vec!["1".into()], vec!["2".into()])
        );
        assert_sound(&new);
    }
}

/// Counts the leads with a phone.
struct WithPhone;

impl Projection for WithPhone {
    fn name(&self) -> &str {
        "with_phone"
    }

    fn version(&self) -> u32 {
        1
    }

    fn fold(
        &self,
        change: &RecordChange<'_>,
        table: &mut ProjectionTable<'_>,
    ) -> Result<(), ProjectionError> {
        let has = |fields: Option<&fieldbook::Fields>| fields.is_some_and(|it| it.has("phone"));
        let count = table.get(b"n")?.and_then(|it| it.first().copied()).unwrap_or(0);
        let count = count + u8::from(has(change.after)) - u8::from(has(change.before));
        table.put(b"n", &[count])
    }
}

#[test]
fn a_projection_is_folded_anew_of_what_the_upgraded_app_reads() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::starting());
    let path = folder.path().join("ann.book");
    let with = |schema: Schema| -> BookOptions {
        options("ann", &clock).schema(schema).projection(WithPhone).unwrap()
    };
    let count = |book: &Book| book.projection("with_phone").get(b"n").unwrap().map(|it| it[0]);
    let old = Book::open_or_create(&path, with(schema(1))).unwrap();
    old.records().create(key("lead/1"), fields(json!({"name": "Ann", "tel": "1"}))).unwrap();
    assert_eq!(count(&old), Some(0));
    sync(&old, &Server::new(&clock));
    old.close().unwrap();
    let new = Book::open(&path, with(schema(2))).unwrap();
    assert_eq!(count(&new), Some(1));
    new.edit::<Lead>(&id(), |lead| lead.phone = None).unwrap();
    assert_eq!(count(&new), Some(0));
    assert_sound(&new);
}

#[test]
fn a_check_before_sending_sees_the_record_as_the_app_reads_it() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let old = book("old", 1, &clock);
    old.records().create(key("lead/1"), fields(json!({"name": "Ann", "tel": "1"}))).unwrap();
    sync(&old, &server);
    let rules = EntityRules { schema_version: 2, ..EntityRules::default() };
    let rules = rules.rename_from(1, "tel", "phone").validate(|outgoing| {
        let has = outgoing.image.is_none_or(|image| image.has("phone"));
        if has { Ok(()) } else { Err("a lead needs a phone".into()) }
    });
    let options = options("new", &clock).schema(Schema::closed().declare(lead(), rules));
    let new = Book::on_backend(redb::backends::InMemoryBackend::new(), options).unwrap();
    sync(&new, &server);
    new.edit::<Lead>(&id(), |lead| lead.name = "Anna".into()).unwrap();
    sync(&new, &server);
    assert_eq!(server.record("lead/1"), Some(json!({"name": "Anna", "tel": "1"})));
}
