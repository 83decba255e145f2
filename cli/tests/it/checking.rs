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
    let url = serving.url.clone();
    assert!(serving.stop("-INT").success());
    let told = folder.ok(&["check-store", "server.store"]);
    assert!(told.contains("match its records"), "{told}");
    let nobody = folder.run(&["check", "ann.book", "--server", &url]);
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

#[test]
fn a_difference_is_mended_after_it_was_shown_and_the_history_tells_it() {
    let folder = Folder::new();
    let serving = set_back(&folder);
    let args = ["check", "ann.book", "--server", &serving.url];
    let found = folder.run(&args);
    assert!(found.err.contains("--mend"), "{}", found.err);
    let told = folder.ok(&["check", "ann.book", "--server", &serving.url, "--mend"]);
    let (shown, mended) = (told.find("extra"), told.find("let go"));
    assert!(shown.is_some() && shown < mended, "{told}");
    folder.ok(&args);
    let ids = folder.ok(&["ls", "ann.book", "lead"]);
    assert!(ids.contains("\n3 ") && !ids.contains("\n2 "), "{ids}");
    let history = folder.ok(&["history", "ann.book", "lead/2"]);
    assert!(history.contains("the book let it go"), "{history}");
    assert_eq!(folder.one_json(&["verify", "ann.book", "--tables", "--json"])["ok"], true);
}

/// The server has an older version of a record: it is not mended over what the book knows.
#[test]
fn a_server_that_was_set_back_is_named_and_nothing_is_mended() {
    let folder = Folder::new();
    let serving = Serving::start(&folder, &[]);
    folder.ok(&["init", "ann.book"]);
    folder.ok(&["put", "ann.book", "lead/1", r#"{"stage":"new"}"#]);
    folder.ok(&["sync", "ann.book", "--server", &serving.url]);
    assert!(serving.stop("-INT").success());
    fs::copy(folder.path("server.store"), folder.path("backup")).unwrap();
    let serving = Serving::start(&folder, &[]);
    folder.ok(&["patch", "ann.book", "lead/1", r#"{"stage":"won"}"#]);
    folder.ok(&["sync", "ann.book", "--server", &serving.url]);
    assert!(serving.stop("-INT").success());
    fs::copy(folder.path("backup"), folder.path("server.store")).unwrap();
    let serving = Serving::start(&folder, &[]);
    folder.ok(&["init", "carl.book"]);
    folder.ok(&["put", "carl.book", "lead/3", r#"{"stage":"new"}"#]);
    folder.ok(&["sync", "carl.book", "--server", &serving.url]);
    let refused = folder.run(&["check", "ann.book", "--server", &serving.url, "--mend"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("the server was set back"), "{}", refused.err);
    let kept = folder.one_json(&["get", "ann.book", "lead/1", "--json"]);
    assert_eq!(kept["fields"]["stage"], "won");
}
