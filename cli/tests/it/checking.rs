//! A book is checked against its server, and a store against its digests.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Folder, Serving};

/// Makes a book that has read a store whose place an older copy has taken.
fn set_back(folder: &Folder) -> Serving {
    let serving = Serving::start(folder, &[]);
    folder.ok(&["init", "ben.book"]);
    folder.ok(&["put", "ben.book", "lead/1", r#"{"stage":"new"}"#]);
    folder.ok(&["sync", "ben.book", "--server", &serving.url]);
    assert!(serving.stop("-INT").success());
    fs::copy(folder.path("server.store"), folder.path("backup")).unwrap();
    let serving = Serving::start(folder, &[]);
    folder.ok(&["put", "ben.book", "lead/2", r#"{"stage":"new"}"#]);
    folder.ok(&["sync", "ben.book", "--server", &serving.url]);
    folder.ok(&["init", "ann.book"]);
    folder.ok(&["sync", "ann.book", "--server", &serving.url]);
    assert!(serving.stop("-INT").success());
    // Nobody ran `fieldbook restored`.
    fs::copy(folder.path("backup"), folder.path("server.store")).unwrap();
    let serving = Serving::start(folder, &[]);
    folder.ok(&["init", "carl.book"]);
    folder.ok(&["put", "carl.book", "lead/3", r#"{"stage":"new"}"#]);
    folder.ok(&["sync", "carl.book", "--server", &serving.url]);
    serving
}

#[test]
fn a_book_that_has_what_its_server_has_is_told_so_and_keeps_what_waits() {
    let folder = Folder::new();
    let serving = Serving::start(&folder, &[]);
    folder.ok(&["init", "ann.book"]);
    folder.ok(&["put", "ann.book", "lead/1", r#"{"stage":"new"}"#]);
    folder.ok(&["sync", "ann.book", "--server", &serving.url]);
    folder.ok(&["patch", "ann.book", "lead/1", r#"{"stage":"hot"}"#]);
    let told = folder.ok(&["check", "ann.book", "--server", &serving.url]);
    assert!(told.contains("THE BOOK HAS WHAT THE SERVER HAS"), "{told}");
    assert!(told.contains("compared") && told.contains("1 record: no difference"), "{told}");
    let found = folder.one_json(&["check", "ann.book", "--server", &serving.url, "--json"]);
    assert_eq!((&found["equal"], &found["requests"]), (&json!(true), &json!(1)), "{found}");
    assert_eq!(folder.one_json(&["status", "ann.book", "--json"])["pending"], 1);
    assert!(serving.stop("-INT").success());
    let told = folder.ok(&["check-store", "server.store"]);
    assert!(told.contains("match its records"), "{told}");
    let nobody = folder.run(&["check", "ann.book", "--server", &serving.url]);
    assert_eq!(nobody.code, 1);
    assert!(nobody.err.contains("the server cannot be reached"), "{}", nobody.err);
}

#[test]
fn records_that_differ_are_listed_with_both_versions_and_the_exit_code_says_so() {
    let folder = Folder::new();
    let serving = set_back(&folder);
    let found = folder.run(&["check", "ann.book", "--server", &serving.url]);
    assert_eq!(found.code, 1, "{found:?}");
    let row = |record: &str| {
        let line = found.out.lines().find(|line| line.starts_with(record));
        line.unwrap_or_else(|| panic!("{}", found.out)).split_whitespace().collect::<Vec<_>>()
    };
    assert_eq!(row("lead/2"), ["lead/2", "extra", "r2", "–"]);
    assert_eq!(row("lead/3"), ["lead/3", "missing", "–", "r2"]);
    assert!(found.err.contains("2 records of the book and the server differ"), "{}", found.err);
    let found = folder.run(&["check", "ann.book", "--server", &serving.url, "--json"]);
    assert_eq!(found.code, 1);
    let found: Value = serde_json::from_str(&found.out).unwrap();
    assert_eq!(found["missing"], json!([{ "key": "lead/3", "book": null, "server": 2 }]));
    assert_eq!(found["extra"], json!([{ "key": "lead/2", "book": 2, "server": null }]));
}
