//! Lists by an index: they have the records that a scan finds, in the order of the values, whoever
//! wrote and whenever the index was declared.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{Server, TestClock, assert_sound, fields, key, options, sync};
use fieldbook::audit::{examine_book, rebuild_book};
use fieldbook::query::{Count, IndexPlace, Stored};
use fieldbook::record::{FieldsJson, Page};
use fieldbook::schema::{IndexPart, IndexRule};
use fieldbook::sync::RecordStatus;
use fieldbook::{Book, BookOptions, Entity, EntityRules, EntityType, Error, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

fn lead() -> EntityType {
    EntityType::parse("lead").unwrap()
}

fn schema(indexes: &[IndexRule]) -> Schema {
    let rules = EntityRules { indexes: indexes.to_vec(), ..EntityRules::default() };
    Schema::closed().declare(lead(), rules)
}

fn plain() -> BookOptions {
    BookOptions::new("ann").unwrap()
}

fn with(indexes: &[IndexRule]) -> BookOptions {
    plain().schema(schema(indexes))
}

fn in_memory(indexes: &[IndexRule]) -> Book {
    let options = options("ann", &TestClock::starting()).schema(schema(indexes));
    Book::on_backend(redb::backends::InMemoryBackend::new(), options).unwrap()
}

fn create(book: &Book, id: &str, value: Value) {
    book.records().create(key(&format!("lead/{id}")), fields(value)).unwrap();
}

fn ids<V>(page: &Page<Stored<V>, IndexPlace>) -> Vec<&str> {
    page.items.iter().map(|row| row.id.as_str()).collect()
}

/// Returns the ids of a whole list.
fn all(book: &Book, index: &str) -> Vec<String> {
    let page = book.records().query(&lead(), index).limit(10_000).page().unwrap();
    ids(&page).into_iter().map(str::to_owned).collect()
}

/// Returns the ids of the leads whose `n` has a value.
fn found(values: &[Value], wanted: &Value) -> Vec<usize> {
    let book = in_memory(&["n".into()]);
    for (id, value) in values.iter().enumerate() {
        create(&book, &id.to_string(), json!({ "n": value }));
    }
    let page = book.records().query(&lead(), "n").eq(wanted.clone()).page().unwrap();
    page.items.iter().map(|row| row.id.as_str().parse().unwrap()).collect()
}

/// An index that was declared for a book with records was once empty, in silence.
#[test]
fn an_index_declared_later_has_the_records_from_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ann.book");
    let book = Book::create_new(&path, with(&[])).unwrap();
    for (id, n) in [("1", 3), ("2", 1), ("3", 2)] {
        create(&book, id, json!({ "n": n }));
    }
    book.close().unwrap();
    let heard = Arc::new(AtomicU64::new(0));
    let hears = Arc::clone(&heard);
    let hear = move |read, all| assert!(read <= hears.fetch_max(all, Ordering::SeqCst).max(all));
    let book = Book::open(&path, with(&["n".into()]).on_index_build(hear)).unwrap();
    assert_eq!(all(&book, "n"), ["2", "3", "1"]);
    assert_eq!(heard.load(Ordering::SeqCst), 3, "the progress was told");
    assert_sound(&book);
    book.close().unwrap();

    // What is there already is not built again, and what is there no more is dropped.
    let never = |_, _| panic!("nothing is to be built");
    let book = Book::open(&path, with(&["n".into()]).on_index_build(never)).unwrap();
    book.close().unwrap();
    let book = Book::open(&path, with(&[]).on_index_build(never)).unwrap();
    let gone = book.records().query(&lead(), "n").page();
    assert!(matches!(gone, Err(Error::Misuse(_))), "{gone:?}");
    assert_sound(&book);
    book.close().unwrap();
}

#[test]
fn an_index_of_another_shape_is_built_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ann.book");
    let book = Book::create_new(&path, with(&["n".into(), "m".into()])).unwrap();
    for (id, n) in [("1", json!(1)), ("2", json!(2)), ("3", json!(null))] {
        create(&book, id, json!({ "n": n, "m": 0 }));
    }
    let place = book.records().query(&lead(), "n").limit(1).page().unwrap().next.unwrap();
    book.close().unwrap();
    let book = Book::open(&path, with(&[IndexRule::new("n").desc("n"), "m".into()])).unwrap();
    assert_eq!(all(&book, "n"), ["2", "1", "3"], "those without a value are last");
    assert_eq!(all(&book, "m"), ["1", "2", "3"]);
    let elsewhere = book.records().query(&lead(), "n").after(Some(&place)).page();
    assert!(matches!(elsewhere, Err(Error::NotOfThisList)), "a place of the former shape");
    assert_sound(&book);
}

/// A program that did not declare the index once left it behind, and one that declared another
/// schema took `others` for its own.
#[test]
fn a_program_without_the_declarations_keeps_the_indexes_right() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ann.book");
    let of_app = || {
        let others = EntityRules { indexes: vec!["m".into()], ..EntityRules::default() };
        let rules = EntityRules { indexes: vec!["n".into()], ..EntityRules::default() };
        let schema = Schema::open(others).declare(lead(), rules);
        plain().schema(schema).on_index_build(|_, _| panic!("nothing is to be built"))
    };
    let book = Book::create_new(&path, of_app()).unwrap();
    create(&book, "1", json!({"n": 5}));
    create(&book, "2", json!({"n": 6}));
    book.records().create(key("note/1"), fields(json!({"m": 1}))).unwrap();
    book.close().unwrap();

    let book = Book::open(&path, plain()).unwrap();
    book.records().update(key("lead/1"), fields(json!({"n": 7}))).unwrap();
    book.records().delete(key("lead/2")).unwrap();
    create(&book, "3", json!({"n": 1}));
    book.records().create(key("task/1"), fields(json!({"m": 2}))).unwrap();
    assert_eq!(all(&book, "n"), ["3", "1"], "it can list by them too");
    book.close().unwrap();

    let book = Book::open(&path, of_app()).unwrap();
    assert_eq!(all(&book, "n"), ["3", "1"]);
    for entity in ["note", "task"] {
        let entity = EntityType::parse(entity).unwrap();
        assert_eq!(ids(&book.records().query(&entity, "m").page().unwrap()), ["1"]);
    }
    assert_sound(&book);
}

fn looked_at(path: &Path) {
    let found = examine_book(path, plain(), true, |_, _| {}).unwrap();
    assert!(found.is_sound(), "{:?}", found.findings);
}

/// `rebuild` without the declarations once emptied the indexes, and `verify` left them out.
#[test]
fn a_rebuild_and_a_verification_use_the_shapes_on_record() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ann.book");
    let book = Book::create_new(&path, with(&["n".into()])).unwrap();
    create(&book, "1", json!({"n": 2}));
    create(&book, "2", json!({"n": 1}));
    book.close().unwrap();
    looked_at(&path);
    rebuild_book(&path, &plain(), |_, _| {}).unwrap();
    looked_at(&path);
    let book = Book::open(&path, with(&["n".into()])).unwrap();
    assert_eq!(all(&book, "n"), ["2", "1"]);
    book.close().unwrap();

    // A key that is missing is found, and comes back.
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let table = redb::TableDefinition::<&[u8], &[u8]>::new("indexes-2");
    assert!(transaction.open_table(table).unwrap().pop_first().unwrap().is_some());
    transaction.commit().unwrap();
    drop(database);
    let found = examine_book(&path, plain(), true, |_, _| {}).unwrap();
    assert!(found.findings.iter().any(|found| found.to_string().contains("indexes")));
    rebuild_book(&path, &plain(), |_, _| {}).unwrap();
    looked_at(&path);
}

#[test]
fn shapes_that_do_not_read_are_found_and_built_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ann.book");
    let book = Book::create_new(&path, with(&["n".into()])).unwrap();
    create(&book, "1", json!({"n": 2}));
    book.close().unwrap();
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let table = redb::TableDefinition::<&[u8], &[u8]>::new("index-shapes-1");
    let damaged = |mut table: redb::Table<'_, &[u8], &[u8]>| {
        table.insert(b"lead".as_slice(), [7; 9].as_slice()).unwrap().is_some()
    };
    assert!(damaged(transaction.open_table(table).unwrap()));
    transaction.commit().unwrap();
    drop(database);
    let found = examine_book(&path, plain(), false, |_, _| {}).unwrap();
    assert!(found.findings.iter().any(|found| found.to_string().contains("index-shapes")));
    assert!(Book::open(&path, plain()).is_err());
    rebuild_book(&path, &plain(), |_, _| {}).unwrap();
    let book = Book::open(&path, with(&["n".into()])).unwrap();
    assert_eq!(all(&book, "n"), ["1"]);
}

#[test]
fn a_book_that_is_only_read_has_the_indexes_on_record_and_says_which_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ann.book");
    let book = Book::create_new(&path, with(&["n".into()])).unwrap();
    create(&book, "1", json!({"n": 2, "m": 1}));
    book.close().unwrap();
    let before = std::fs::read(&path).unwrap();
    let declared = [IndexRule::from("n"), "m".into()];
    let book = Book::open(&path, with(&declared).read_only()).unwrap();
    assert_eq!(all(&book, "n"), ["1"]);
    let lacking = book.records().query(&lead(), "m").page().unwrap_err();
    assert!(matches!(lacking, Error::NotBuilt(_)), "{lacking}");
    book.close().unwrap();
    assert!(std::fs::read(&path).unwrap() == before, "not a byte changes");
}

/// Integers beyond 2^53 once fell together.
#[test]
fn integers_beyond_two_to_the_53rd_are_told_apart() {
    let two_53 = 1_u64 << 53;
    let mut numbers: Vec<_> = (two_53 - 1..=two_53 + 3).map(|number| json!(number)).collect();
    numbers.extend([json!(i64::MAX), json!(u64::MAX), json!(1e300)]);
    for (at, number) in numbers.iter().enumerate() {
        assert_eq!(found(&numbers, number), [at], "{number}");
    }
    let book = in_memory(&["n".into()]);
    for (id, number) in numbers.iter().enumerate().rev() {
        create(&book, &id.to_string(), json!({ "n": number }));
    }
    let in_order: Vec<_> = (0..numbers.len()).map(|id| id.to_string()).collect();
    assert_eq!(all(&book, "n"), in_order);
    let beyond = book.records().query(&lead(), "n").range(two_53 + 1..).count_up_to(100).unwrap();
    assert_eq!(beyond, Count::Exact(6));
}

/// −0.0 was once not found as 0.
#[test]
fn zero_is_zero() {
    let zeros = [json!(0), json!(0.0), json!(-0.0)];
    assert_eq!(found(&zeros, &json!(0)).len(), 3);
    assert_eq!(found(&zeros, &json!(-0.0)).len(), 3);
}

/// A text of 900 kB was once a key.
#[test]
fn long_texts_that_differ_at_their_end_are_told_apart() {
    let book = in_memory(&["n".into()]);
    let long = |end: &str| "x".repeat(900_000) + end;
    for (id, end) in [("1", "a"), ("2", "b"), ("3", "b")] {
        create(&book, id, json!({ "n": long(end) }));
    }
    create(&book, "4", json!({ "n": "x" }));
    let list = || book.records().query(&lead(), "n");
    assert_eq!(ids(&list().eq(long("a")).page().unwrap()), ["1"]);
    assert_eq!(ids(&list().eq(long("b")).page().unwrap()), ["2", "3"]);
    assert_eq!(list().range(long("b")..).count_up_to(9).unwrap(), Count::Exact(2));
    assert_eq!(list().prefix(&long("")).count_up_to(9).unwrap(), Count::Exact(3));
    assert_eq!(list().prefix("x").count_up_to(9).unwrap(), Count::Exact(4));
    let mut after = None;
    for wanted in ["2", "3"] {
        let page = list().eq(long("b")).after(after.as_ref()).limit(1).page().unwrap();
        assert_eq!(ids(&page), [wanted]);
        after = page.next;
    }
    assert_eq!(after, None);
}

#[derive(Serialize, Deserialize)]
struct Lead {
    owner: String,
    stage: String,
    updated_at: u64,
}

impl Entity for Lead {
    const ENTITY: &'static str = "lead";
}

fn owner_stage() -> IndexRule {
    IndexRule::new("owner_stage").asc("owner").asc("stage").desc("updated_at")
}

fn pipeline(book: &Book) {
    for (id, owner, stage, updated_at) in [
        ("1", "ann", "hot", 1),
        ("2", "ann", "hot", 3),
        ("3", "ann", "new", 2),
        ("4", "ben", "hot", 9),
        ("5", "ann", "won", 4),
    ] {
        create(book, id, json!({"owner": owner, "stage": stage, "updated_at": updated_at}));
    }
}

#[test]
fn a_compound_index_answers_equal_values_then_a_range_in_its_order() {
    let book = in_memory(&[owner_stage()]);
    pipeline(&book);
    let list = || book.query::<Lead>("owner_stage");
    assert_eq!(ids(&list().page().unwrap()), ["2", "1", "3", "5", "4"]);
    assert_eq!(ids(&list().eq("ann").page().unwrap()), ["2", "1", "3", "5"]);
    assert_eq!(ids(&list().eq("ann").eq("hot").page().unwrap()), ["2", "1"]);
    assert_eq!(ids(&list().eq("ann").eq("hot").range(2..).page().unwrap()), ["2"]);
    assert_eq!(ids(&list().eq("ann").range("hot".."new").page().unwrap()), ["2", "1"]);
    assert_eq!(ids(&list().eq("ann").range("i"..="won").reversed().page().unwrap()), ["5", "3"]);
    assert_eq!(ids(&list().eq("ann").prefix("w").page().unwrap()), ["5"]);
    assert_eq!(list().eq("ann").count_up_to(3).unwrap(), Count::AtLeast(3));
    assert_eq!(list().eq("ann").count_up_to(4).unwrap(), Count::Exact(4));
    let first = list().page().unwrap().items.remove(0).value.unwrap();
    assert_eq!((first.stage.as_str(), first.updated_at), ("hot", 3));
}

#[test]
fn pages_go_on_from_their_place_in_both_directions_while_records_change() {
    let book = in_memory(&[owner_stage()]);
    pipeline(&book);
    let list = || book.query::<Lead>("owner_stage").eq("ann").limit(2);
    let first = list().page().unwrap();
    assert_eq!(ids(&first), ["2", "1"]);
    // The place is a text, for a screen that comes back later.
    let text = serde_json::to_string(&first.next).unwrap();
    let place: Option<IndexPlace> = serde_json::from_str(&text).unwrap();
    // The record of the place goes, and another one comes behind it.
    book.records().delete(key("lead/1")).unwrap();
    create(&book, "6", json!({"owner": "ann", "stage": "lost", "updated_at": 1}));
    assert_eq!(ids(&list().after(place.as_ref()).page().unwrap()), ["6", "3"]);
    assert_eq!(ids(&list().after(place.as_ref()).reversed().page().unwrap()), ["2"]);
    // A page that is exactly full is the last one if nothing follows.
    let last = list().after(place.as_ref()).limit(3).page().unwrap();
    assert_eq!((ids(&last), &last.next), (vec!["6", "3", "5"], &None));
    assert_eq!(list().limit(0).page().unwrap().items.len(), 0);
}

#[test]
fn a_list_has_unsent_changes_and_the_status_and_version_of_each_row() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let options = options("ann", &clock).schema(schema(&["n".into()]));
    let book = Book::on_backend(redb::backends::InMemoryBackend::new(), options).unwrap();
    create(&book, "1", json!({"n": 1}));
    create(&book, "2", json!({"n": 2}));
    sync(&book, &server);
    create(&book, "3", json!({"n": 3}));
    book.records().update(key("lead/1"), fields(json!({"n": 9}))).unwrap();
    book.records().delete(key("lead/2")).unwrap();
    let page = book.records().query(&lead(), "n").page().unwrap();
    assert_eq!(ids(&page), ["3", "1"]);
    let [new, changed] = page.items.as_slice() else { panic!("two rows") };
    assert_eq!((new.version, new.pending, &new.status), (None, 1, &RecordStatus::Pending));
    assert_eq!((changed.version.is_some(), changed.pending), (true, 1));
    assert_eq!(changed.value, FieldsJson::parse(r#"{"n":9}"#).unwrap());
    sync(&book, &server);
    let page = book.records().query(&lead(), "n").page().unwrap();
    assert!(page.items.iter().all(|row| row.status == RecordStatus::Synced && row.pending == 0));
    assert_sound(&book);
}

#[test]
fn several_reads_are_of_one_instant() {
    let book = in_memory(&["n".into()]);
    create(&book, "1", json!({"n": 1}));
    let read = book.read(|at| {
        let before = at.query_records(&lead(), "n").page()?;
        create(&book, "2", json!({"n": 2}));
        book.records().update(key("lead/1"), fields(json!({"n": 3})))?;
        let after = at.query_records(&lead(), "n").page()?;
        assert!(at.get_record(&key("lead/2"))?.is_none());
        assert_eq!(before, after, "the status of each row too");
        at.query_records(&lead(), "n").count_up_to(9)
    });
    assert_eq!(read.unwrap(), Count::Exact(1));
    assert_eq!(all(&book, "n"), ["2", "1"]);
}

#[test]
fn texts_are_found_whatever_their_case_and_accents() {
    let by_name = IndexRule::new("by_name").asc(IndexPart::new("name").caseless());
    let book = in_memory(&[by_name]);
    for (id, name) in [("1", "Éva"), ("2", "eve"), ("3", "EVA"), ("4", "Straße"), ("5", "Zoë")] {
        create(&book, id, json!({ "name": name }));
    }
    create(&book, "6", json!({}));
    assert_eq!(all(&book, "by_name"), ["1", "3", "2", "4", "5", "6"]);
    let list = || book.records().query(&lead(), "by_name");
    assert_eq!(ids(&list().eq("éVA").page().unwrap()), ["1", "3"]);
    assert_eq!(ids(&list().prefix("STRASS").page().unwrap()), ["4"]);
    assert_eq!(ids(&list().eq(Value::Null).page().unwrap()), ["6"], "those without a name");
}

#[test]
fn a_record_is_under_each_element_of_its_list() {
    let by_tag = IndexRule::new("by_tag").asc(IndexPart::new("tags").each()).only_if_present();
    let book = in_memory(&[by_tag]);
    create(&book, "1", json!({"tags": ["red", "big", "red"]}));
    create(&book, "2", json!({"tags": ["red"]}));
    create(&book, "3", json!({"tags": []}));
    let list = || book.records().query(&lead(), "by_tag");
    assert_eq!(ids(&list().eq("red").page().unwrap()), ["1", "2"]);
    assert_eq!(ids(&list().page().unwrap()), ["1", "1", "2"]);
    book.records().update(key("lead/1"), fields(json!({"tags": ["big"]}))).unwrap();
    assert_eq!(ids(&list().eq("red").page().unwrap()), ["2"]);
    assert_sound(&book);
}

#[test]
fn what_an_index_cannot_answer_is_a_misuse_that_says_what_to_do() {
    let book = in_memory(&[owner_stage()]);
    create(&book, "1", json!({}));
    let list = || book.records().query(&lead(), "owner_stage");
    let place = {
        create(&book, "2", json!({}));
        list().limit(1).page().unwrap().next
    };
    let note = EntityType::parse("note").unwrap();
    for (asked, word) in [
        (book.records().query(&lead(), "stage"), "declare it"),
        (book.records().query(&note, "owner_stage"), "declare it"),
        (list().eq(json!([1])), "look for"),
        (list().range(1..).eq(2), "last"),
        (list().prefix("a").prefix("b"), "last"),
        (list().eq(1).eq(2).eq(3).eq(4), "more parts"),
        (list().range(json!(1)..json!("a")), "kinds"),
    ] {
        for fault in [asked.page().err(), asked.count_up_to(1).err()] {
            let Some(Error::Misuse(text)) = fault else { panic!("{word}: {fault:?}") };
            assert!(text.contains(word), "{text}");
        }
    }
    assert!(list().after(place.as_ref()).page().is_ok());
    let twice = with(&["n".into(), "n".into()]);
    let folder = tempfile::tempdir().unwrap();
    let refused = Book::create_new(folder.path().join("ann.book"), twice);
    assert!(matches!(refused, Err(Error::Misuse(_))), "{refused:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no file is left behind");
}
