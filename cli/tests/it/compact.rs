//! `compact`: the file gets smaller, and what people have stays. Archives are read with the book.

use serde_json::json;

use crate::support::{Folder, Serving};

/// A book with thirty edits of one lead, each sent to a server, and one that waits.
fn made(folder: &Folder, serving: &Serving) {
    folder.ok(&["init", "ann.book", "--actor", "ann"]);
    for n in 0..30 {
        let fields = json!({ "n": n, "text": "x".repeat(2_000) }).to_string();
        let verb = if n == 0 { "put" } else { "patch" };
        folder.ok(&[verb, "ann.book", "lead/42", &fields]);
        folder.ok(&["sync", "ann.book", "--server", &serving.url]);
    }
    folder.ok(&["put", "ann.book", "lead/43", r#"{"name":"waits"}"#]);
}

#[test]
fn a_book_is_compacted_with_an_archive_and_both_together_tell_everything() {
    let folder = Folder::new();
    let serving = Serving::start(&folder, &[]);
    made(&folder, &serving);
    let story = folder.ok(&["history", "ann.book", "lead/42"]);
    let record = folder.ok(&["get", "ann.book", "lead/42"]);
    let whole = folder.path("ann.book").metadata().unwrap().len();

    let dry = ["compact", "ann.book", "--trim-before", "@-0", "--dry-run", "--json"];
    let bytes = folder.bytes("ann.book");
    let would = folder.one_json(&dry);
    assert_eq!(folder.bytes("ann.book"), bytes, "a dry run writes nothing");
    let said =
        folder.ok(&["compact", "ann.book", "--trim-before", "@-0", "--archive", "one.fblog.gz"]);
    assert!(said.contains("sync first"), "{said}");
    assert!(folder.path("ann.book").metadata().unwrap().len() < whole / 2, "{said}");

    // What is there is as before, what waits waits, and the log verifies.
    assert_eq!(folder.ok(&["get", "ann.book", "lead/42"]), record);
    assert_eq!(folder.one_json(&["status", "ann.book", "--json"])["pending"], 1);
    let verified = folder.one_json(&["verify", "ann.book", "--tables", "--json"]);
    assert_eq!(verified["trimmed"], would["upto"]);
    assert!(folder.ok(&["verify", "one.fblog.gz"]).starts_with("intact: "));

    // The archive alone, and both together.
    assert!(folder.ok(&["get", "one.fblog.gz", "lead/42"]).contains("xxx"));
    let short = folder.ok(&["history", "ann.book", "lead/42"]);
    assert!(short.contains("What came before this was trimmed"), "{short}");
    let both = folder.ok(&["history", "ann.book", "lead/42", "--with-archive", "one.fblog.gz"]);
    assert_eq!(both, story);
    let early = ["get", "ann.book", "lead/42", "--at", "4"];
    let refused = folder.run(&early);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("--with-archive FILE"), "{}", refused.err);
    let found = folder.ok(&[&early[..], &["--with-archive", "one.fblog.gz"]].concat());
    assert!(found.contains("as of entry 4"), "{found}");

    // Everything goes on with the server, and a bundle leaves as from any other book.
    folder.ok(&["sync", "ann.book", "--server", &serving.url]);
    assert_eq!(folder.one_json(&["status", "ann.book", "--json"])["pending"], 0);
    for ids in ["keep", "hide"] {
        folder.ok(&["bundle", "ann.book", "-o", "ann.bundle", "--ids", ids, "--force"]);
        assert!(folder.ok(&["verify", "ann.bundle"]).contains("were trimmed"));
        assert!(!folder.ok(&["history", "ann.bundle"]).contains("xxx"));
    }
    assert!(folder.ok(&["doctor", "ann.book"]).contains("looked at"));
}

#[test]
fn what_cannot_be_compacted_is_told_and_stays_as_it_was() {
    let folder = Folder::new();
    folder.ok(&["init", "ann.book", "--actor", "ann"]);
    folder.ok(&["put", "ann.book", "lead/42", r#"{"n":1}"#]);
    let bytes = folder.bytes("ann.book");
    let said = folder.ok(&["compact", "ann.book", "--trim-before", "@-0", "--dry-run"]);
    assert!(said.contains("no server has confirmed that it knows the log"), "{said}");
    let archived = ["compact", "ann.book", "--trim-before", "@-0", "--archive", "one.fblog"];
    let said = folder.ok(&[&archived[..], &["--dry-run"]].concat());
    assert!(said.contains("which the server does not have"), "{said}");
    folder.ok(&["log", "ann.book", "--export", "ann.log"]);
    let refused = folder.run(&["compact", "ann.log", "--trim-before", "@-0"]);
    assert!(refused.code == 1 && refused.err.contains("only a book"), "{}", refused.err);
    std::fs::write(folder.path("one.fblog"), "mine").unwrap();
    let refused = folder.run(&archived);
    assert!(refused.code == 1 && refused.err.contains("exists already"), "{}", refused.err);
    assert_eq!(folder.bytes("one.fblog"), b"mine");
    assert_eq!(folder.bytes("ann.book"), bytes);
    // An archive of another log does not go on in this book.
    folder.ok(&["init", "ben.book", "--actor", "ben"]);
    folder.ok(&["log", "ben.book", "--export", "ben.log"]);
    let refused = folder.run(&["get", "ann.book", "lead/42", "--with-archive", "ben.log"]);
    assert!(refused.code == 1 && refused.err.contains("the oldest first"), "{}", refused.err);
}
