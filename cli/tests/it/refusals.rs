//! A command that fails prints why and what to do, exits with its code, and leaves every file
//! unchanged.

use fieldbook::{Book, BookOptions};

use crate::support::Folder;

/// Runs the program, which must fail with this code and these words and leave the file unchanged.
#[track_caller]
fn refused(folder: &Folder, args: &[&str], code: i32, words: &[&str]) {
    let before: Vec<_> =
        folder.names().into_iter().map(|name| (folder.bytes(&name), name)).collect();
    let ran = folder.run(args);
    assert_eq!(ran.code, code, "{args:?}: {ran:?}");
    assert_eq!(ran.out, "", "results only go out if there are some");
    assert!(ran.err.starts_with("error: "), "{}", ran.err);
    for word in words {
        assert!(ran.err.contains(word), "{word:?} is not in {}", ran.err);
    }
    let after: Vec<_> =
        folder.names().into_iter().map(|name| (folder.bytes(&name), name)).collect();
    assert!(before == after, "{args:?} changed a file");
}

fn with_a_lead() -> Folder {
    let folder = Folder::new();
    folder.ok(&["init", "a.book"]);
    folder.ok(&["put", "a.book", "lead/1", r#"{"name":"Ann"}"#]);
    folder
}

#[test]
fn only_init_makes_a_book() {
    let folder = Folder::new();
    for args in [
        &["put", "a.book", "lead/1", "{}"][..],
        &["get", "a.book", "lead/1"],
        &["status", "a.book"],
        &["sync", "a.book", "--server", "http://127.0.0.1:1"],
        &["verify", "a.book"],
    ] {
        refused(&folder, args, 1, &["there is no a.book", "fieldbook init"]);
    }
    refused(&folder, &["init", "no/such/folder/a.book"], 1, &["there is no no/such/folder"]);
    assert!(folder.names().is_empty());
}

#[test]
fn init_never_writes_over_anything() {
    let folder = with_a_lead();
    refused(&folder, &["init", "a.book"], 1, &["a.book exists already"]);
}

#[test]
fn what_is_not_a_book_is_left_as_it_is() {
    let folder = Folder::new();
    std::fs::write(folder.path("notes.txt"), "not a book").unwrap();
    std::fs::write(folder.path("empty"), "").unwrap();
    refused(
        &folder,
        &["put", "notes.txt", "lead/1", "{}"],
        1,
        &["notes.txt is not a book", "the file is unchanged"],
    );
    refused(&folder, &["verify", "notes.txt"], 1, &["notes.txt is not a book"]);
    refused(&folder, &["rebuild", "empty"], 1, &["empty is not a book: it is empty"]);
    refused(&folder, &["log", "."], 1, &["is not a book: it is not a file"]);
}

#[test]
fn a_book_that_is_open_elsewhere_is_not_touched() {
    let folder = with_a_lead();
    let held = Book::open(folder.path("a.book"), BookOptions::new("app").unwrap()).unwrap();
    refused(&folder, &["put", "a.book", "lead/2", "{}"], 1, &["is open already", "close the app"]);
    refused(&folder, &["get", "a.book", "lead/1"], 1, &["is open already"]);
    held.close().unwrap();
    folder.ok(&["get", "a.book", "lead/1"]);
}

#[test]
fn json_that_does_not_read_is_named_with_its_place() {
    let folder = with_a_lead();
    refused(
        &folder,
        &["put", "a.book", "lead/2", "{\"name\":\n  x}"],
        2,
        &["line 2, column 3", "@FILE"],
    );
    refused(&folder, &["patch", "a.book", "lead/1", "[1]"], 2, &["not an object"]);
    refused(
        &folder,
        &["put", "a.book", "lead/2", "@missing.json"],
        1,
        &["cannot read the fields from missing.json"],
    );
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000));
    refused(&folder, &["put", "a.book", "lead/2", &deep], 2, &["nests deeper"]);
}

/// Numbers beyond 64 bits or 17 digits were once rounded silently, and a number or character that
/// JSON cannot have was reported as "not JSON".
#[test]
fn a_number_is_kept_as_it_was_written_or_refused_by_that_word() {
    let folder = with_a_lead();
    for (id, (number, is_kept)) in (1..).zip([
        ("9223372036854775808", true),
        ("-9223372036854775808", true),
        ("0.1", true),
        ("1.7976931348623157e308", true),
        ("12345678901234567890123", false),
        ("-9223372036854775809", false),
        ("9007199254740993.0", false),
        ("0.12345678901234567890", false),
        ("1e-400", false),
        ("1e400", false),
    ]) {
        let key = format!("number/{id}");
        let put = ["put", "a.book", &key, &format!("{{\"list\":[{number}]}}")];
        if is_kept {
            folder.ok(&put);
            let read = folder.ok(&["get", "a.book", &key, "--json"]);
            let read: String = read.split_whitespace().collect();
            assert!(read.replace("e+", "e").contains(&format!("[{number}]")), "{number}: {read}");
        } else {
            refused(&folder, &put, 2, &["the number at `list[0]`", "write it as text"]);
        }
    }
    refused(&folder, &["put", "a.book", "text/1", r#"{"t":"\ud800"}"#], 2, &["`t`", "surrogate"]);
    refused(
        &folder,
        &["put", "a.book", "text/1", r#"{"t":{"a":1,"a":1}}"#],
        2,
        &["`t.a`", "twice"],
    );
}

#[test]
fn what_the_line_itself_gets_wrong_is_wrong_usage() {
    let folder = with_a_lead();
    for args in [
        &["put", "a.book", "lead1", "{}"][..],
        &["put", "a.book", "Lead/1", "{}"],
        &["get", "a.book", "lead/"],
        &["put", "a.book", "lead/2", "{}", "--actor", ""],
        &["sync", "a.book"],
        &["sync", "a.book", "--server", "http://127.0.0.1:1", "--batch", "0"],
        &["sync", "a.book", "--server", "http://127.0.0.1:1", "--pull-only", "--push-only"],
        &["sync", "a.book", "--server", "http://sync.example.com"],
        &["dead-letters", "retry", "a.book"],
        &["conflicts", "show", "a.book", "47"],
        &["verify", "a.book", "--head", "xyz"],
        &["no-such-command"],
    ] {
        refused(&folder, args, 2, &[]);
    }
}

#[test]
fn a_write_that_makes_no_sense_is_refused_with_what_would() {
    let folder = with_a_lead();
    // Opening a book may move its pages, so the test compares its content.
    let log = folder.ok(&["log", "a.book", "--json"]);
    for (args, words) in [
        (&["put", "a.book", "lead/1", "{}"][..], ["lead/1 exists already", "--replace"]),
        (&["patch", "a.book", "lead/9", "{}"], ["lead/9 does not exist", "fieldbook put"]),
        (&["rm", "a.book", "lead/9"], ["lead/9 does not exist", "fieldbook ls"]),
        (&["get", "a.book", "lead/9"], ["there is no lead/9", "fieldbook ls"]),
        (&["history", "a.book", "lead/9"], ["this book has nothing about lead/9", "fieldbook ls"]),
        (&["explain", "a.book", "lead/9"], ["this book has nothing about lead/9", "fieldbook ls"]),
        (
            &["dead-letters", "show", "a.book", "2"],
            ["op 2 is not a dead letter", "fieldbook queue"],
        ),
        (
            &["dead-letters", "discard", "a.book", "2", "--reason", "x"],
            ["op 2 is not a dead letter", "list"],
        ),
        (&["conflicts", "show", "a.book", "47.2"], ["there is no conflict 47.2", "list"]),
        (&["undo", "a.book", "99"], ["the log has no op 99", "fieldbook log a.book"]),
    ] {
        let ran = folder.run(args);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{args:?}: {ran:?}");
        assert!(words.iter().all(|word| ran.err.contains(word)), "{args:?}: {}", ran.err);
    }
    assert_eq!(folder.ok(&["log", "a.book", "--json"]), log);
}

#[test]
fn a_server_that_is_down_costs_nothing_but_the_exit_code() {
    let folder = with_a_lead();
    let before = folder.one_json(&["get", "a.book", "lead/1", "--json"]);
    for _ in 0..3 {
        let ran = folder.run(&["sync", "a.book", "--server", "http://127.0.0.1:1"]);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
        assert!(
            ran.err.contains("cannot be reached") && ran.err.contains("your changes are kept"),
            "{}",
            ran.err
        );
    }
    let after = folder.one_json(&["get", "a.book", "lead/1", "--json"]);
    assert_eq!((&after["fields"], &after["pending"]), (&before["fields"], &before["pending"]));
    assert_eq!(
        folder.json(&["queue", "a.book", "--json"])[0]["tries"],
        0,
        "being offline is no try"
    );
    assert_eq!(
        folder.json(&["log", "a.book", "--json"]).len(),
        6,
        "the plan is written once, before the first try"
    );
}

#[test]
fn something_else_than_a_server_is_told_apart_from_one() {
    let folder = with_a_lead();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let portal = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let _read = stream.read(&mut [0; 4_096]).unwrap();
        let page =
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<html>login</";
        stream.write_all(page.as_bytes()).unwrap();
    });
    let ran = folder.run(&["sync", "a.book", "--server", &url]);
    portal.join().unwrap();
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("your changes are kept"), "{}", ran.err);
    assert_eq!(folder.one_json(&["status", "a.book", "--json"])["pending"], 1);
}

#[test]
fn a_changed_byte_is_found_and_its_entry_named() {
    let folder = Folder::new();
    folder.ok(&["init", "a.book"]);
    for name in ["Ann", "Zanzibar", "Cleo"] {
        folder.ok(&["put", "a.book", &format!("lead/{name}"), &format!(r#"{{"name":"{name}"}}"#)]);
    }
    folder.ok(&["log", "a.book", "--export", "a.log"]);
    for file in ["a.book", "a.log"] {
        let mut bytes = folder.bytes(file);
        let needle = b"\"Zanzibar\"";
        let places: Vec<_> =
            (0..bytes.len()).filter(|at| bytes[*at..].starts_with(needle)).collect();
        assert!(!places.is_empty());
        places.iter().for_each(|at| bytes[at + 1] = b'T');
        std::fs::write(folder.path(file), bytes).unwrap();
        let before = folder.bytes(file);
        let ran = folder.run(&["verify", file]);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
        assert!(
            ran.err.starts_with("error: entry 6 is damaged\n  because its hash is "),
            "{}",
            ran.err
        );
        assert!(folder.bytes(file) == before, "verifying changed {file}");
    }
    let ran = folder.run(&["verify", "a.book", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &found["ok"], &found["entry"]), (1, &false.into(), &6.into()));
    let ran = folder.run(&["log", "a.book", "--export", "b.log"]);
    assert!(ran.code == 1 && ran.err.contains("entry 6 is damaged"), "{ran:?}");
    assert_eq!(folder.names(), ["a.book", "a.log"]);
}

#[test]
fn a_file_cut_short_anywhere_is_an_error_and_never_a_panic() {
    let folder = with_a_lead();
    let whole = folder.bytes("a.book");
    for eighth in 0..8 {
        std::fs::write(folder.path("cut.book"), &whole[..whole.len() * eighth / 8]).unwrap();
        for args in
            [&["verify", "cut.book"][..], &["get", "cut.book", "lead/1"], &["log", "cut.book"]]
        {
            let ran = folder.run(args);
            assert_eq!(ran.code, 1, "{eighth}/8 {args:?}: {ran:?}");
            assert!(ran.err.starts_with("error: ") && !ran.err.contains("panicked"), "{}", ran.err);
        }
    }
}

#[test]
fn a_server_does_not_start_for_everyone_or_where_another_one_listens() {
    let folder = Folder::new();
    refused(
        &folder,
        &["serve", "--data", "s.store", "--listen", "0.0.0.0:0"],
        1,
        &["without a token file"],
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(
        &folder,
        &["serve", "--data", "s.store", "--listen", &address],
        1,
        &["cannot listen on"],
    );
    let serve = ["serve", "--data", "s.store", "--listen", "127.0.0.1:0", "--tokens", "none.json"];
    refused(&folder, &serve, 1, &["cannot read the token file"]);
    std::fs::write(folder.path("notes.txt"), "not a store").unwrap();
    refused(&folder, &["serve", "--data", "notes.txt", "--listen", "127.0.0.1:0"], 1, &[]);
}
