//! A book that is opened to be read only: for support, and for damaged books.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use fieldbook::RunOptions;
use fieldbook::audit::{Moment, Seq, examine_book, rebuild_book};
use fieldbook::schema::Reference;
use fieldbook::sync::ExchangeParams;
use fieldbook::sync::protocol::Failure;
use fieldbook::{Book, BookOptions, EntityRules, Error, Fields, Schema, SyncState};
use redb::{ReadableTable, TableDefinition, TableHandle};
use serde_json::json;

fn options() -> BookOptions {
    BookOptions::new("ann").unwrap()
}

fn fields() -> Fields {
    Fields::from_value(json!({"name": "Ann"})).unwrap()
}

#[test]
fn looking_at_a_book_changes_not_a_byte_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ann.book");
    let book = Book::create_new(&path, options()).unwrap();
    book.records().create("lead/1".parse().unwrap(), fields()).unwrap();
    drop(book);
    let before = std::fs::read(&path).unwrap();

    let book = Book::open(&path, options().read_only()).unwrap();
    assert_eq!(
        book.audit().timeline(&"lead/1".parse().unwrap()).unwrap().len(),
        1,
        "what lags behind is folded in memory"
    );
    assert_eq!(book.audit().entries(Seq::new(1), 10).unwrap().len(), 3);
    let refused = book.records().create("lead/2".parse().unwrap(), fields());
    assert!(matches!(refused, Err(Error::ReadOnly)), "{refused:?}");
    assert_eq!(book.status().pending, 1);
    book.close().unwrap();
    assert!(std::fs::read(&path).unwrap() == before);

    let book = Book::open(&path, options()).unwrap();
    assert_eq!(
        book.audit().entries(Seq::new(1), 10).unwrap().len(),
        3,
        "nothing of what was refused came through"
    );
}

#[test]
fn who_needs_credentials_is_said_of_the_actor_who_uses_the_book() {
    let folder = tempfile::tempdir().unwrap();
    let book = Book::create_new(folder.path().join("ann.book"), options()).unwrap();
    book.records().create("lead/1".parse().unwrap(), fields()).unwrap();
    let remote = fieldbook::sync::FnRemote::new(|_: &_| {
        Err(Failure::Unauthorized { code: "expired".into() }.into())
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(book.sync(&remote, &RunOptions::default())).unwrap();
    let needs_auth = |book: &Book| matches!(book.status().state, SyncState::NeedsAuth { .. });
    assert!(needs_auth(&book));
    book.act_as("ben".parse().unwrap());
    assert!(!needs_auth(&book));
    book.act_as("ann".parse().unwrap());
    assert!(needs_auth(&book));
}

#[test]
fn tables_that_do_not_read_are_folded_anew_from_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ann.book");
    let book = Book::create_new(&path, options()).unwrap();
    book.records().create("lead/1".parse().unwrap(), fields()).unwrap();
    book.close().unwrap();
    let scramble = |name: &str| {
        let database = redb::Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        let tables = transaction.list_tables().unwrap();
        let full = tables
            .map(|table| table.name().to_owned())
            .find(|table| table.starts_with(name))
            .unwrap();
        let mut table =
            transaction.open_table(TableDefinition::<&[u8], &[u8]>::new(&full)).unwrap();
        let keys: Vec<_> =
            table.iter().unwrap().map(|row| row.unwrap().0.value().to_vec()).collect();
        assert!(!keys.is_empty());
        for key in keys {
            table.insert(key.as_slice(), [0xff; 3].as_slice()).unwrap();
        }
        drop(table);
        transaction.commit().unwrap();
    };
    scramble("state");
    let book = Book::open(&path, options()).unwrap();
    assert!(book.records().get(&"lead/1".parse().unwrap()).unwrap().is_some());
    book.close().unwrap();

    scramble("tail");
    // The tail is read when it is needed, and then nothing is sent.
    let (push, pull) = (true, false);
    let ask =
        ExchangeParams { first: true, push, pull, batch_ops: 9, batch_bytes: 999, page_limit: 0 };
    let book = Book::open(&path, options()).unwrap();
    assert!(book.exchange().prepare(&ask).is_err());
    // Nor is the past told as if nothing had waited.
    assert!(book.at(Moment::Back(0)).unwrap().queue().is_err());
    book.close().unwrap();
    assert_eq!(rebuild_book(&path, &options(), |_, _| {}).unwrap(), Seq::new(3));
    let book = Book::open(&path, options()).unwrap();
    assert_eq!(book.status().pending, 1);
    assert!(book.audit().check_tables().unwrap().is_sound());
}

/// `verify --tables` once opened the book for writing and folded its tables again in place, without
/// the indexes that the app declares.
#[test]
fn a_program_that_does_not_know_what_an_app_declares_finds_no_fault_in_its_tables() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ann.book");
    let to_person = Reference { field: "person".to_owned(), entity: "person".parse().unwrap() };
    let rules = EntityRules {
        indexes: vec!["name".into()],
        references: vec![to_person],
        ..EntityRules::default()
    };
    let book = Book::create_new(&path, options().schema(Schema::open(rules))).unwrap();
    let fields = Fields::from_value(json!({"name": "Ann", "person": "7"})).unwrap();
    book.records().create("lead/1".parse().unwrap(), fields).unwrap();
    book.records().create("person/7".parse().unwrap(), Fields::new()).unwrap();
    book.close().unwrap();
    let before = std::fs::read(&path).unwrap();
    let found = examine_book(&path, options(), true, |_, _| {}).unwrap();
    assert!(found.is_sound(), "{:?}", found.findings);
    assert_eq!((found.log.entries, found.anchor), (4, None));
    assert!(std::fs::read(&path).unwrap() == before, "not a byte changes");
}
