//! A server's store is restored from a backup: nothing that a device still has is lost.

use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use fieldbook::Mutation;
use serde_json::json;

use crate::support::{Folder, Ran, Serving, StillClock, book, fields, key};

#[test]
fn what_a_restored_server_lacks_comes_back_from_the_devices() {
    let folder = Folder::new();
    let serving = Serving::start(&folder, &[]);
    for (book, lead) in [("ann.book", "lead/1"), ("ben.book", "lead/2")] {
        folder.ok(&["init", book]);
        folder.ok(&["put", book, lead, r#"{"stage":"new"}"#]);
        folder.ok(&["sync", book, "--server", &serving.url]);
    }
    assert!(serving.stop("-INT").success());
    fs::copy(folder.path("server.store"), folder.path("backup")).unwrap();

    let serving = Serving::start(&folder, &[]);
    folder.ok(&["patch", "ann.book", "lead/1", r#"{"stage":"won"}"#]);
    folder.ok(&["put", "ann.book", "lead/3", r#"{"stage":"new"}"#]);
    folder.ok(&["sync", "ann.book", "--server", &serving.url]);
    let open = folder.run(&["restored", "server.store"]);
    assert_eq!(open.code, 1);
    assert!(open.err.contains("is already open"), "{}", open.err);
    assert!(serving.stop("-INT").success());
    fs::copy(folder.path("backup"), folder.path("server.store")).unwrap();

    let serving = Serving::start(&folder, &[]);
    let undeclared = folder.run(&["sync", "ann.book", "--server", &serving.url]);
    assert_eq!(undeclared.code, 1, "{undeclared:?}");
    assert!(serving.stop("-INT").success());
    let declared = folder.ok(&["restored", "server.store"]);
    assert!(declared.contains("server.store begins a new epoch"), "{declared}");

    let serving = Serving::start(&folder, &[]);
    for book in ["ann.book", "ben.book"] {
        let refused = folder.run(&["sync", book, "--server", &serving.url]);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.err.contains("--accept-server"), "{}", refused.err);
        folder.ok(&["sync", book, "--server", &serving.url, "--accept-server"]);
    }
    for book in ["ann.book", "ben.book", "ann.book"] {
        let report = folder.one_json(&["sync", book, "--server", &serving.url, "--json"]);
        assert_eq!(
            (&report["stopped"], &report["pending"]),
            (&json!("idle"), &json!(0)),
            "{book}: {report}"
        );
    }
    for book in ["ann.book", "ben.book"] {
        let stages: Vec<_> = ["lead/1", "lead/2", "lead/3"]
            .map(|lead| folder.one_json(&["get", book, lead, "--json"])["fields"]["stage"].clone())
            .into();
        assert_eq!(stages, ["won", "new", "new"], "{book}");
        assert_eq!(folder.one_json(&["verify", book, "--tables", "--json"])["ok"], true);
    }
}

/// A copy of the file by other means, amid writes, is torn: 3 of 20 did not open.
#[test]
fn a_server_makes_a_backup_of_its_store_while_it_runs_and_the_backup_can_be_served() {
    let folder = Folder::new();
    fs::create_dir(folder.path("backups")).unwrap();
    let mut serving = Serving::start(&folder, &["--backups", "backups"]);
    folder.ok(&["init", "ann.book"]);
    folder.ok(&["put", "ann.book", "lead/1", r#"{"stage":"new"}"#]);
    folder.ok(&["sync", "ann.book", "--server", &serving.url]);
    serving.signal("-USR1");
    let line = serving.next_line();
    assert!(line.starts_with("backup backups/") && line.contains("rows"), "{line}");
    folder.ok(&["patch", "ann.book", "lead/1", r#"{"stage":"won"}"#]);
    folder.ok(&["sync", "ann.book", "--server", &serving.url]);
    assert!(serving.stop("-INT").success());

    let backups: Vec<_> = fs::read_dir(folder.path("backups")).unwrap().collect();
    assert_eq!(backups.len(), 1);
    fs::copy(backups[0].as_ref().unwrap().path(), folder.path("server.store")).unwrap();
    folder.ok(&["restored", "server.store"]);
    let serving = Serving::start(&folder, &[]);
    assert_eq!(folder.run(&["sync", "ann.book", "--server", &serving.url]).code, 1);
    folder.ok(&["sync", "ann.book", "--server", &serving.url, "--accept-server"]);
    folder.ok(&["sync", "ann.book", "--server", &serving.url]);
    folder.ok(&["init", "ben.book"]);
    folder.ok(&["sync", "ben.book", "--server", &serving.url]);
    let read = folder.one_json(&["get", "ben.book", "lead/1", "--json"]);
    assert_eq!(read["fields"]["stage"], "won");
}

/// A signal has no answer, and must not end the server.
#[cfg(unix)]
#[test]
fn a_server_that_cannot_make_a_backup_says_so_in_its_log_and_goes_on() {
    for (args, said) in [
        (&[][..], "start the server with --backups FOLDER"),
        (&["--backups", "gone"], "no backup was written"),
    ] {
        let folder = Folder::new();
        let serving = Serving::start(&folder, args);
        folder.ok(&["init", "ann.book"]);
        for id in ["lead/1", "lead/2"] {
            folder.ok(&["put", "ann.book", id, "{}"]);
            serving.signal("-USR1");
            folder.ok(&["sync", "ann.book", "--server", &serving.url]);
        }
        let log = serving.log();
        assert!(log.contains(said), "{log}");
        assert_eq!(folder.names(), ["ann.book", "server.store"]);
    }
}

#[test]
fn a_backup_of_a_book_verifies_and_replaces_nothing() {
    let folder = Folder::new();
    folder.ok(&["init", "ann.book"]);
    folder.ok(&["put", "ann.book", "lead/1", r#"{"stage":"new"}"#]);
    let before = folder.bytes("ann.book");
    let told = folder.ok(&["backup", "ann.book", "ann.backup"]);
    assert!(told.starts_with("ann.backup: 4 entries, "), "{told}");
    assert!(folder.bytes("ann.book") == before, "not a byte of the book changes");
    folder.ok(&["verify", "ann.backup", "--tables"]);
    let again = folder.run(&["backup", "ann.book", "ann.backup"]);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.err.contains("exists"), "{}", again.err);
    assert_eq!(folder.names(), ["ann.backup", "ann.book"]);
}

/// Makes a book of nine megabytes.
fn large_book(folder: &Folder) {
    let book = book(&folder.path("ann.book"), "ann", &StillClock::new());
    let note = format!(r#"{{"text":"{}"}}"#, "t".repeat(3_000));
    let notes = (0..3_000).map(|n| Mutation::create(key(&format!("note/{n}")), fields(&note)));
    book.import(notes.collect()).unwrap();
    book.close().unwrap();
}

/// The system refuses to let a file grow over a limit, like a disk without room.
#[cfg(unix)]
#[test]
fn a_backup_that_finds_no_room_midway_leaves_nothing_and_says_so() {
    let folder = Folder::new();
    large_book(&folder);
    let before = folder.bytes("ann.book");
    let script = "trap '' XFSZ; ulimit -f 4096; exec \"$0\" backup ann.book ann.backup";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_fieldbook")]).current_dir(folder.path(""));
    let ran = Ran::from(shell.output().unwrap());
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
    assert!(ran.err.contains("the disk failed while making the backup"), "{}", ran.err);
    assert!(ran.err.contains("File too large"), "{}", ran.err);
    assert_eq!(folder.names(), ["ann.book"]);
    assert!(folder.bytes("ann.book") == before, "not a byte of the book changes");
    folder.ok(&["backup", "ann.book", "ann.backup"]);
    folder.ok(&["verify", "ann.backup", "--tables"]);
}

#[test]
fn a_backup_that_is_killed_leaves_no_file_of_its_name() {
    let folder = Folder::new();
    large_book(&folder);
    let before = folder.bytes("ann.book");
    for milliseconds in (0..60).step_by(5) {
        let mut backup = folder.command(&["backup", "ann.book", "ann.backup"]);
        let mut backup = backup.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(milliseconds));
        // A process that has ended cannot be killed, which is fine.
        drop(backup.kill());
        let status = backup.wait().unwrap();
        for name in folder.names() {
            let is_unfinished = name.starts_with(".fieldbook-") && name.ends_with(".new");
            assert!(is_unfinished || name == "ann.book" || name == "ann.backup", "{name}");
        }
        if folder.path("ann.backup").exists() {
            folder.ok(&["verify", "ann.backup", "--tables"]);
            fs::remove_file(folder.path("ann.backup")).unwrap();
        } else {
            assert!(!status.success());
        }
    }
    assert!(folder.bytes("ann.book") == before, "not a byte of the book changes");
    folder.ok(&["backup", "ann.book", "ann.backup"]);
    folder.ok(&["verify", "ann.backup", "--tables"]);
}

#[test]
fn a_store_that_is_not_there_is_not_made_by_declaring_it_restored() {
    let folder = Folder::new();
    let ran = folder.run(&["restored", "nowhere.store"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("nowhere.store"), "{}", ran.err);
    fs::write(folder.path("notes.txt"), "not a store").unwrap();
    let ran = folder.run(&["restored", "notes.txt"]);
    assert!(ran.err.contains("is not a fieldbook server's store"), "{}", ran.err);
    assert_eq!(folder.bytes("notes.txt"), b"not a store");
    assert_eq!(folder.names(), ["notes.txt"]);
}
