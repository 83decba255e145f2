//! Search: it finds what a scorer finds that looks at every record, in the same order, whatever
//! happened to the book and however far the words lag behind.
#![cfg(feature = "search")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;
#[path = "common/scored.rs"]
mod scored;
#[path = "common/searched.rs"]
mod searched;

use std::path::Path;

use common::{Server, TestClock, assert_sound, fields, key, options, sync, sync_with, view};
use fieldbook::record::FieldsJson;
use fieldbook::search::{Fit, Hit, SearchRule};
use fieldbook::{Book, BookOptions, Entity, EntityRules, EntityType, Error, Schema};
use proptest::prelude::*;
use redb::backends::InMemoryBackend;
use scored::scored;
use searched::{in_memory, lead, rule};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

fn plain() -> BookOptions {
    BookOptions::new("ann").unwrap()
}

fn create(book: &Book, id: &str, value: Value) {
    book.records().create(key(&format!("lead/{id}")), fields(value)).unwrap();
}

fn hits(book: &Book, asked: &str) -> Vec<Hit<FieldsJson>> {
    book.records().search(&lead(), asked).limit(usize::MAX).run().unwrap()
}

fn ids(book: &Book, asked: &str) -> Vec<String> {
    hits(book, asked).into_iter().map(|hit| hit.row.id.as_str().to_owned()).collect()
}

#[test]
fn words_beginnings_parts_mistakes_and_digits_are_found_best_first() {
    let book = in_memory();
    create(
        &book,
        "1",
        json!({"name": "Hanna Schmidt", "company": "Askrindo", "phones": ["+62 812-3456-789"]}),
    );
    create(&book, "2", json!({"name": "Ann Müller", "company": "Hanna & Co", "phones": []}));
    create(&book, "3", json!({"name": "Anna", "company": "Straße 9", "phones": 4_412_345}));
    assert_eq!(ids(&book, "ann"), ["2", "3", "1"], "the word, a beginning, a part");
    assert_eq!(ids(&book, "HANNA"), ["1", "2"], "the name weighs more");
    assert_eq!(ids(&book, "muller ann"), ["2"], "each word has to fit");
    assert_eq!(ids(&book, "muller schmidt"), [""; 0]);
    assert_eq!(ids(&book, "schmitd"), ["1"], "two letters that changed places");
    assert_eq!(ids(&book, "askrndo"), ["1"], "a letter is missing");
    assert_eq!(ids(&book, "zskrindo"), ["1"], "the first letter is wrong");
    assert_eq!(ids(&book, "strasse"), ["3"]);
    assert_eq!(ids(&book, "0812 3456"), ["1"], "without the zero before the area");
    assert_eq!(ids(&book, "56-789"), ["1"], "the last digits");
    assert_eq!(ids(&book, "44123"), ["3"], "a number as it is written");
    assert_eq!(ids(&book, " .,"), [""; 0]);
    let hit = hits(&book, "ann muller").remove(0);
    let matched: Vec<_> =
        hit.matched.iter().map(|word| (&word.text[word.range.clone()], word.fit)).collect();
    let wanted = [("Ann", Fit::Same), ("Müller", Fit::Same), ("Hanna", Fit::Part)];
    assert_eq!(matched, wanted, "every word that fits");
    assert_eq!(hit.points, 80);
    assert_sound(&book);
}

#[derive(Serialize, Deserialize)]
struct Lead {
    name: String,
}

impl Entity for Lead {
    const ENTITY: &'static str = "lead";
}

#[test]
fn a_typed_search_has_values_and_a_type_without_a_rule_is_a_misuse() {
    let book = in_memory();
    create(&book, "1", json!({"name": "Ann"}));
    create(&book, "2", json!({"name": ["Ann"]}));
    let found = book.search::<Lead>("ann").limit(9).run().unwrap();
    assert_eq!(found[0].row.value.as_ref().unwrap().name, "Ann");
    assert!(matches!(found[1].row.value, Err(Error::Type { .. })));
    assert_eq!(book.search::<Lead>("ann").limit(1).run().unwrap().len(), 1);
    let note = EntityType::parse("note").unwrap();
    let undeclared = book.records().search(&note, "ann").run();
    assert!(matches!(undeclared, Err(Error::Misuse(text)) if text.contains("declare")));
    for wrong in [
        SearchRule::new(),
        SearchRule::new().field("name", 0),
        SearchRule::new().field("name", 1).field("name", 2),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let refused = Book::create_new(folder.path().join("a.book"), plain().search(lead(), wrong));
        assert!(matches!(refused, Err(Error::Misuse(_))), "{refused:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

fn open(path: &Path, rule: Option<SearchRule>) -> Book {
    let options = rule.into_iter().fold(plain(), |options, rule| options.search(lead(), rule));
    Book::open_or_create(path, options).unwrap()
}

#[test]
fn words_follow_a_program_without_the_rule_and_another_rule_has_other_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ann.book");
    let book = open(&path, None);
    for number in 0..700 {
        create(&book, &number.to_string(), json!({"name": format!("Lead {number}"), "note": "x"}));
    }
    book.close().unwrap();
    let book = open(&path, Some(rule()));
    assert_eq!(ids(&book, "699"), ["699"], "a rule that is declared later finds what was there");
    book.close().unwrap();
    let book = open(&path, None);
    book.records().update(key("lead/699"), fields(json!({"name": "Zoë"}))).unwrap();
    book.records().delete(key("lead/698")).unwrap();
    book.close().unwrap();
    let book = open(&path, Some(rule()));
    assert_eq!((ids(&book, "699"), ids(&book, "698")), (vec![], vec![]));
    assert_eq!(ids(&book, "zoe"), ["699"]);
    book.close().unwrap();

    let of_notes = SearchRule::new().field("note", 1);
    let looking = plain().search(lead(), of_notes.clone()).read_only();
    let looking = Book::open(&path, looking).unwrap();
    let behind = looking.records().search(&lead(), "x").run();
    assert!(matches!(behind, Err(Error::NotBuilt(_))), "{behind:?}");
    looking.close().unwrap();
    let book = open(&path, Some(of_notes));
    assert_eq!((ids(&book, "x").len(), ids(&book, "zoe").len()), (699, 0));
    book.audit().rebuild(|_| {}).unwrap();
    assert_eq!(ids(&book, "x").len(), 699, "a rebuild folds them anew");
    assert_sound(&book);
    book.close().unwrap();
}

#[test]
fn a_read_only_book_finds_what_its_words_are_near() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ann.book");
    let book = open(&path, Some(rule()));
    create(&book, "1", json!({"name": "Ann"}));
    book.fold_search().unwrap();
    create(&book, "2", json!({"name": "Anna"}));
    book.close().unwrap();
    let before = std::fs::read(&path).unwrap();
    let looking = Book::open(&path, plain().search(lead(), rule()).read_only()).unwrap();
    assert_eq!(ids(&looking, "ann"), ["1", "2"]);
    looking.close().unwrap();
    assert!(std::fs::read(&path).unwrap() == before, "not a byte changes");
}

#[test]
fn what_is_searched_is_what_the_app_reads_after_a_refusal_and_an_undo() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let options = options("ann", &clock).search(lead(), rule());
    let book = Book::on_backend(InMemoryBackend::new(), options).unwrap();
    create(&book, "1", json!({"name": "Ann"}));
    sync(&book, &server);
    book.fold_search().unwrap();
    let written = book.records().update(key("lead/1"), fields(json!({"name": "Zoe"}))).unwrap();
    assert_eq!((ids(&book, "ann"), ids(&book, "zoe")), (vec![], vec!["1".to_owned()]));
    book.fold_search().unwrap();
    let fieldbook::Written::Op { place, .. } = written else { panic!("an op") };
    book.queue().undo(place).unwrap();
    assert_eq!((ids(&book, "ann"), ids(&book, "zoe")), (vec!["1".to_owned()], vec![]));
    assert_sound(&book);
}

/// The creation is a dead letter of the book, so its record is not offered to the new server, and
/// no decision names it.
#[test]
fn what_another_server_never_had_of_a_record_is_not_found() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let empty = server.authority.lock().unwrap().clone();
    let [ann, ben] = ["ann", "ben"].map(|actor| {
        let options = options(actor, &clock).search(lead(), rule());
        Book::on_backend(InMemoryBackend::new(), options).unwrap()
    });
    create(&ann, "1", json!({"name": "Ann"}));
    sync_with(&ann, &server.refusing("no", ""));
    create(&ben, "1", json!({"name": "Zoe", "company": "Acme"}));
    sync(&ben, &server);
    sync(&ann, &server);
    assert_eq!(ids(&ann, "acme"), ["1"]);
    server.restore(&empty, 99);
    sync(&ann, &server);
    ann.servers().accept_only().unwrap();
    sync(&ann, &server);
    assert_eq!(view(&ann, "lead/1"), Some(json!({"name": "Ann"})));
    assert_eq!(ids(&ann, "acme"), [""; 0]);
    assert_sound(&ann);
}

/// Finds records by looking at every one of them.
fn looked_at(book: &Book, asked: &str) -> Vec<(String, u64)> {
    let records = book.records().list(&lead(), None, usize::MAX).unwrap();
    let images: Vec<(&str, Map<String, Value>)> = records
        .iter()
        .map(|record| (record.id, serde_json::from_str(record.json).unwrap()))
        .collect();
    scored(&rule(), images.iter().map(|(id, image)| (*id, image)), asked)
}

fn found(book: &Book, asked: &str) -> Vec<(String, u64)> {
    hits(book, asked).into_iter().map(|hit| (hit.row.id.as_str().to_owned(), hit.points)).collect()
}

fn name() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        3 => "[ab]{1,3}",
        2 => prop::sample::select(vec!["hanna", "hana", "anna", "schmidt", "Schmitt", "Müller", "jakarta", "東京", "京都市"]).prop_map(str::to_owned),
        1 => "[ah]nn?a[bc]{0,2}",
        1 => "\\+62 8[12]{5,7}",
    ];
    proptest::collection::vec(word, 0..3).prop_map(|words| words.join(" "))
}

fn image() -> impl Strategy<Value = Value> {
    (name(), name(), proptest::collection::vec(name(), 0..3)).prop_map(
        |(name, company, phones)| json!({"name": name, "company": company, "phones": phones}),
    )
}

/// A record that an older version of the app wrote is stored under the former name of the field.
#[test]
fn a_field_that_was_renamed_is_found_under_its_new_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.book");
    let open = |version, field: &str| {
        let rules = EntityRules { schema_version: version, ..EntityRules::default() };
        let rules = if version > 1 { rules.rename_from(1, "title", "name") } else { rules };
        let schema = Schema::closed().declare(lead(), rules);
        let options = plain().schema(schema).search(lead(), SearchRule::new().field(field, 1));
        Book::open_or_create(&path, options).unwrap()
    };
    let book = open(1, "title");
    create(&book, "1", json!({"title": "Schmidt"}));
    assert_eq!(ids(&book, "schmidt"), ["1"]);
    book.close().unwrap();
    let book = open(2, "name");
    assert_eq!(ids(&book, "schmidt"), ["1"], "looked through");
    book.fold_search().unwrap();
    assert_eq!(ids(&book, "schmidt"), ["1"], "folded");
    create(&book, "2", json!({"name": "Schmidt"}));
    assert_eq!(ids(&book, "schmidt"), ["1", "2"]);
}

#[derive(Debug, Clone)]
enum Event {
    Write(u8, Value),
    Delete(u8),
    Sync,
    Refuse,
    Discard,
    Undo,
    Fold,
    Search(String),
}

fn event() -> impl Strategy<Value = Event> {
    let asked = prop_oneof![
        3 => name(),
        1 => "[ahns]{3,6}",
        1 => "0?8[12]{2,4}",
        1 => prop::sample::select(vec!["hanan", "shcmidt", "mullre", "akarta", "xakarta", "京"]).prop_map(str::to_owned),
    ];
    prop_oneof![
        5 => (0..20_u8, image()).prop_map(|(id, image)| Event::Write(id, image)),
        2 => (0..20_u8).prop_map(Event::Delete),
        1 => Just(Event::Sync),
        1 => Just(Event::Refuse),
        1 => Just(Event::Discard),
        1 => Just(Event::Undo),
        1 => Just(Event::Fold),
        6 => asked.prop_map(Event::Search),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn a_search_finds_what_looking_at_every_record_finds(
        events in proptest::collection::vec(event(), 1..60)
    ) {
        let clock = TestClock::starting();
        let server = Server::new(&clock);
        let options = options("ann", &clock).search(lead(), rule());
        let book = Book::on_backend(InMemoryBackend::new(), options).unwrap();
        for event in events {
            match event {
                // A change that must wait for a person is refused, and changes nothing.
                Event::Write(id, image) => {
                    let (name, lead) = (format!("lead/{id}"), key(&format!("lead/{id}")));
                    drop(match view(&book, &name) {
                        None => book.records().create(lead, fields(image)),
                        Some(_) => book.records().update(lead, fields(image)),
                    });
                }
                Event::Delete(id) => drop(book.records().delete(key(&format!("lead/{id}")))),
                Event::Sync => drop(sync(&book, &server)),
                Event::Refuse => drop(sync_with(&book, &server.refusing("no", ""))),
                Event::Discard => {
                    let letters = book.dead_letters().all().unwrap();
                    let letters = letters.into_iter().map(|letter| letter.op).collect();
                    book.dead_letters().discard(letters, "not wanted").unwrap();
                }
                Event::Undo => {
                    if let Some(newest) = book.queue().list().unwrap().last() {
                        drop(book.queue().undo(newest.op.place));
                    }
                }
                Event::Fold => book.fold_search().unwrap(),
                Event::Search(asked) => {
                    prop_assert_eq!(found(&book, &asked), looked_at(&book, &asked), "{}", asked);
                }
            }
        }
    }
}
