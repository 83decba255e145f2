//! A book of an app with its own schema, in the hands of a person who has only the program.

use std::time::Duration;

use fieldbook::schema::Reference;
use fieldbook::{Book, BookOptions, EntityRules, EntityType, Schema};
use serde_json::{Value, json};

use crate::support::{Folder, Serving, fields, key};

fn entity(name: &str) -> EntityType {
    EntityType::parse(name).unwrap()
}

/// Calls refer to leads, drafts can be undone for an hour, and notes stay on the device.
fn plain_schema() -> Schema {
    let references = vec![Reference { field: "lead".to_owned(), entity: entity("lead") }];
    let undo_window = Duration::from_secs(3_600);
    Schema::open(EntityRules::default())
        .declare(entity("call"), EntityRules { references, ..EntityRules::default() })
        .declare(entity("draft"), EntityRules { undo_window, ..EntityRules::default() })
        .declare(entity("note"), EntityRules { local_only: true, ..EntityRules::default() })
}

/// The same with a check of leads.
fn schema() -> Schema {
    let named = EntityRules::default().validate(|outgoing| {
        match outgoing.fields.get("name") == Some(&json!("")) {
            true => Err("a lead needs a name".to_owned()),
            false => Ok(()),
        }
    });
    plain_schema().declare(entity("lead"), named)
}

/// Opens the book as the app does, and writes something of each kind.
fn written(folder: &Folder, schema: Schema) -> Book {
    let options = BookOptions::new("ann").unwrap().schema(schema).app("CRM", "7.1");
    let book = Book::create_new(folder.path("ann.book"), options).unwrap();
    book.records().create(key("call/1"), fields(r#"{"lead":"9","text":"hello"}"#)).unwrap();
    book.records().create(key("lead/9"), fields(r#"{"name":"Mueller"}"#)).unwrap();
    book.records().create(key("lead/8"), fields(r#"{"name":""}"#)).unwrap();
    book.records().update(key("call/1"), fields(r#"{"lead":"8"}"#)).unwrap();
    book.records().create(key("draft/1"), fields("{}")).unwrap();
    book.records().create(key("note/1"), fields("{}")).unwrap();
    book
}

fn states(explained: &Value) -> Vec<Value> {
    explained["ops"].as_array().unwrap().iter().map(|op| op["state"].clone()).collect()
}

#[test]
fn explain_has_the_holds_of_the_app_and_names_the_rules_that_it_cannot_run() {
    let folder = Folder::new();
    let book = written(&folder, schema());
    let ids = ["call/1", "lead/9", "draft/1", "note/1"];
    let said = ids.map(|id| serde_json::to_value(book.explain(&key(id)).unwrap()).unwrap());
    let invalid = serde_json::to_value(book.explain(&key("lead/8")).unwrap()).unwrap();
    book.close().unwrap();

    for (id, said) in ids.iter().zip(&said) {
        let here = folder.one_json(&["explain", "ann.book", id, "--json"]);
        assert_eq!(states(&here), states(said), "{id}");
        let missing = here["rules_not_run"].as_array().unwrap();
        assert_eq!(missing.len(), usize::from(*id == "lead/9"), "{id}: {missing:?}");
    }
    let held = |said: &Value| said["state"] == "held" || said["state"] == "parked";
    let all: Vec<_> = said.iter().flat_map(states).collect();
    assert_eq!(all.iter().filter(|state| held(state)).count(), 4, "{all:?}");

    // Only the app can tell that this lead is not valid, and the program says so.
    let here = folder.one_json(&["explain", "ann.book", "lead/8", "--json"]);
    assert_eq!(here["rules_not_run"], json!(["the validator of lead"]));
    assert_ne!(states(&here), states(&invalid));
    let told = folder.ok(&["explain", "ann.book", "lead/8"]);
    assert!(told.contains("which may decide otherwise: the validator of lead"), "{told}");
    assert_eq!(
        folder.one_json(&["plan", "ann.book", "--json"])["rules_not_run"],
        json!(["the validator of lead"])
    );
    let queue = folder.run(&["queue", "ann.book"]);
    assert!(queue.err.contains("the validator of lead"), "{queue:?}");
    assert!(folder.ok(&["status", "ann.book"]).contains("the validator of lead"));
}

#[test]
fn a_book_that_needs_rules_of_its_app_is_neither_synced_nor_written() {
    let folder = Folder::new();
    let serving = Serving::start(&folder, &[]);
    written(&folder, schema()).close().unwrap();
    let before = folder.bytes("ann.book");
    for args in [
        &["sync", "ann.book", "--server", &serving.url][..],
        &["put", "ann.book", "lead/7", "{}"],
        &["patch", "ann.book", "lead/9", "{}"],
        &["rm", "ann.book", "lead/9"],
        &["undo", "ann.book", "4"],
        &["accept-server", "ann.book"],
        &["dead-letters", "retry", "ann.book", "4"],
        &["hand-over", "ann.book", "--of", "ann", "--to", "ben"],
        &["dead-letters", "discard", "ann.book", "4", "--reason", "x"],
        &["dead-letters", "correct", "ann.book", "4", "{}"],
        &["conflicts", "keep", "ann.book", "4.0", "local"],
        &["conflicts", "flip", "ann.book", "4.0"],
    ] {
        let ran = folder.run(args);
        assert_eq!(ran.code, 1, "{args:?}: {ran:?}");
        assert!(ran.err.contains("the validator of lead"), "{args:?}: {ran:?}");
        assert!(ran.err.contains("--without-app-rules"), "{args:?}: {ran:?}");
        assert!(folder.bytes("ann.book") == before, "{args:?} changed the file");
    }
    let help = folder.ok(&["sync", "--help"]);
    assert!(help.contains("What may go wrong"), "{help}");

    let asked = folder.run(&["sync", "ann.book", "--server", &serving.url, "--without-app-rules"]);
    assert_eq!(asked.code, 0, "{asked:?}");
    assert!(asked.err.contains("the validator of lead"), "{asked:?}");
    assert_eq!(
        folder.one_json(&["status", "ann.book", "lead/8", "--json"])["status"],
        json!({
            "state": "synced"
        })
    );
}

/// The program once sent what never leaves the device.
#[test]
fn a_sync_sends_what_the_app_would_send_and_nothing_that_stays_on_the_device() {
    let folder = Folder::new();
    let serving = Serving::start(&folder, &[]);
    written(&folder, plain_schema()).close().unwrap();
    folder.ok(&["sync", "ann.book", "--server", &serving.url]);
    folder.ok(&["init", "ben.book", "--actor", "ben"]);
    folder.ok(&["sync", "ben.book", "--server", &serving.url]);
    let types = folder.json(&["ls", "ben.book", "--json"]);
    let types: Vec<_> = types.iter().map(|one| one["entity"].as_str().unwrap()).collect();
    assert_eq!(types, ["call", "lead"], "no draft before its hour is over, and no note ever");
    let sessions = folder.json(&["log", "ann.book", "--limit", "0", "--json"]);
    let sessions: Vec<_> = sessions.iter().filter(|entry| entry["control"] == "session").collect();
    assert_eq!(sessions.len(), 2);
    assert_eq!(sessions[0]["app"], json!({"name": "CRM", "version": "7.1"}));
    assert_eq!(sessions[0]["schema"]["entities"]["note"], json!({"local_only": true}));
    assert_eq!(sessions[1]["app"]["name"], "fieldbook-cli");
    assert_eq!(sessions[1]["schema"], json!(null), "the declarations are still the app's");
}
