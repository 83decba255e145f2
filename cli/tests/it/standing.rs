//! `verify --server`: what the server that keeps the heads of a log says of a book, an export, a
//! bundle and a copy.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Folder, Ran, Serving};

/// A book that was synced twice, and its server.
fn synced() -> (Folder, Serving) {
    let folder = Folder::new();
    let serving = Serving::start(&folder, &[]);
    folder.ok(&["init", "ann.book"]);
    folder.ok(&["put", "ann.book", "lead/42", r#"{"name":"Lake Street School"}"#]);
    folder.ok(&["sync", "ann.book", "--server", &serving.url]);
    (folder, serving)
}

fn edit_and_sync(folder: &Folder, serving: &Serving, book: &str, stage: &str) {
    folder.ok(&["patch", book, "lead/42", &json!({ "stage": stage }).to_string()]);
    folder.run(&["sync", book, "--server", &serving.url]);
}

fn asked(folder: &Folder, file: &str, serving: &Serving) -> Ran {
    folder.run(&["verify", file, "--server", &serving.url])
}

fn said(folder: &Folder, file: &str, serving: &Serving) -> Value {
    let ran = folder.run(&["verify", file, "--server", &serving.url, "--json"]);
    let found: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
    found["server"].clone()
}

#[test]
fn the_server_says_of_a_book_and_what_is_made_of_it_that_it_is_this_log() {
    let (folder, serving) = synced();
    edit_and_sync(&folder, &serving, "ann.book", "won");
    folder.ok(&["log", "ann.book", "--export", "ann.log"]);
    folder.ok(&["bundle", "ann.book", "-o", "ann.bundle"]);
    folder.ok(&["bundle", "ann.book", "-o", "other.bundle", "--for", "lead/43"]);
    let bytes = folder.bytes("ann.book");
    for file in ["ann.book", "ann.log", "ann.bundle", "other.bundle"] {
        let ran = asked(&folder, file, &serving);
        assert_eq!(ran.code, 0, "{file}: {ran:?}");
        assert!(ran.out.contains("knows the log up to entry"), "{file}: {}", ran.out);
        assert!(ran.out.contains("and it is this log"), "{file}: {}", ran.out);
        let said = said(&folder, file, &serving);
        assert_eq!((&said["is"], &said["heads_compared"]), (&json!("same"), &json!(2)), "{file}");
        assert_eq!(said["shared"], said["upto"]);
    }
    assert_eq!(folder.bytes("ann.book"), bytes, "asking changes nothing");
    folder.ok(&["bundle", "ann.book", "-o", "hidden.bundle", "--ids", "hide"]);
    let hidden = asked(&folder, "hidden.bundle", &serving);
    assert_eq!(hidden.code, 2, "{hidden:?}");
    assert!(hidden.err.contains("does not name its device"), "{}", hidden.err);
}

#[test]
fn an_older_copy_is_told_how_far_the_log_went_on() {
    let (folder, serving) = synced();
    fs::copy(folder.path("ann.book"), folder.path("old.book")).unwrap();
    edit_and_sync(&folder, &serving, "ann.book", "won");
    let ran = asked(&folder, "old.book", &serving);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("this is an older copy; it is the same up to entry"), "{}", ran.out);
    let said = said(&folder, "old.book", &serving);
    assert_eq!(said["is"], "behind");
    assert!(said["shared"].as_u64() < said["upto"].as_u64(), "{said}");
}

#[test]
fn two_copies_that_went_on_are_both_known_and_each_is_told_of_the_other() {
    let (folder, serving) = synced();
    fs::copy(folder.path("ann.book"), folder.path("copy.book")).unwrap();
    edit_and_sync(&folder, &serving, "ann.book", "won");
    edit_and_sync(&folder, &serving, "copy.book", "lost");
    edit_and_sync(&folder, &serving, "copy.book", "lost again");
    for book in ["ann.book", "copy.book"] {
        let ran = asked(&folder, book, &serving);
        assert_eq!(ran.code, 0, "{book}: {ran:?}");
        assert!(ran.out.contains("and it is this log"), "{book}: {}", ran.out);
        assert!(ran.out.contains("also knows 1 other continuation"), "{book}: {}", ran.out);
    }
}

#[test]
fn a_server_that_never_saw_the_device_says_nothing_of_its_log() {
    let (folder, serving) = synced();
    folder.ok(&["init", "new.book"]);
    folder.ok(&["put", "new.book", "lead/1", "{}"]);
    let ran = asked(&folder, "new.book", &serving);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("does not know this device"), "{}", ran.out);
    assert_eq!(said(&folder, "new.book", &serving)["is"], "unknown");
}

#[test]
fn a_token_of_another_tenant_learns_nothing_and_a_silent_server_fails_the_check() {
    let folder = Folder::new();
    folder.write_tokens(
        r#"{"a-token-of-acme-0001":{"tenant":"acme","actor":"ann"},
            "a-token-of-other-001":{"tenant":"other","actor":"ann"}}"#,
    );
    fs::write(folder.path("ann.token"), "a-token-of-acme-0001").unwrap();
    fs::write(folder.path("other.token"), "a-token-of-other-001").unwrap();
    let serving = Serving::start(&folder, &["--tokens", "tokens.json"]);
    folder.ok(&["init", "ann.book", "--actor", "ann"]);
    folder.ok(&["put", "ann.book", "lead/1", "{}", "--actor", "ann"]);
    let url = serving.url.clone();
    folder.ok(&["sync", "ann.book", "--server", &url, "--token-file", "ann.token"]);
    let with =
        |token: &str| folder.run(&["verify", "ann.book", "--server", &url, "--token-file", token]);
    assert!(with("ann.token").out.contains("and it is this log"), "{:?}", with("ann.token"));
    let other = with("other.token");
    assert_eq!(other.code, 1, "{other:?}");
    assert!(other.err.contains("the token is of another tenant"), "{}", other.err);
    let without = asked(&folder, "ann.book", &serving);
    assert_eq!(without.code, 1, "{without:?}");
    assert!(without.out.contains("intact"), "what was found in the file is shown: {without:?}");
    assert!(without.err.contains("other credentials"), "{}", without.err);
    assert!(serving.stop("-TERM").success());
    let nobody = with("ann.token");
    assert_eq!(nobody.code, 1, "{nobody:?}");
    assert!(nobody.err.contains("did not say whether it knows the log"), "{}", nobody.err);
}
