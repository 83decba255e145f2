//! Time is an option of every reading command: `--at`, `--zone`, `find`, and an exported log in the
//! place of a book.

use std::sync::Arc;

use fieldbook::host::{Clock, Now, WallTime};
use fieldbook::{Book, BookOptions, Mutation};

use crate::support::{Folder, StillClock, book, fields, key};

/// A book whose lead/42 was made at 09:00:00 UTC, changed at 09:30:00, and changed again at
/// 11:00:00.
fn made(folder: &Folder) {
    let clock = StillClock::new();
    let ann = book(&folder.path("ann.book"), "ann", &clock);
    ann.records().create(key("lead/42"), fields(r#"{"name":"Mueller","stage":"new"}"#)).unwrap();
    clock.advance(1_800);
    ann.records().update(key("lead/42"), fields(r#"{"stage":"hot"}"#)).unwrap();
    clock.advance(5_400);
    ann.transaction(vec![
        Mutation::update(key("lead/42"), fields(r#"{"stage":"won","name":"Miller"}"#)),
        Mutation::create(key("lead/43"), fields(r#"{"name":"Mueller again"}"#)),
    ])
    .unwrap();
    ann.close().unwrap();
}

/// The first line of an answer.
fn understood(folder: &Folder, when: &[&str]) -> String {
    let all = [&["get", "ann.book", "lead/42"], when].concat();
    folder.ok(&all).lines().next().unwrap().to_owned()
}

#[test]
fn every_way_to_name_a_moment_is_understood_and_said_back() {
    let folder = Folder::new();
    made(&folder);
    let hot = "as of entry 4, 2026-03-01 09:30:00 (+00:00); 1 entry follows";
    assert_eq!(understood(&folder, &["--at", "4"]), hot);
    assert_eq!(understood(&folder, &["--at", "@-1"]), hot);
    assert_eq!(understood(&folder, &["--at", "2026-03-01 09:30Z"]), hot);
    assert_eq!(
        understood(&folder, &["--at", "-1h"]),
        "as of entry 4, 2026-03-01 10:00:00 (+00:00); 1 entry follows"
    );
    assert_eq!(
        understood(&folder, &["--at", "10:45", "--zone", "+01:00"]),
        "as of entry 4, 2026-03-01 10:45:00 (+01:00); 1 entry follows"
    );
    let wrong = folder.run(&["get", "ann.book", "lead/42", "--at", "tomorrow"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("expected a moment: an entry (41873)"), "{}", wrong.err);
    let late = folder.run(&["get", "ann.book", "lead/42", "--at", "99"]);
    assert!(late.err.contains("the log ends at entry 5"), "{}", late.err);
}

#[test]
fn a_time_without_a_zone_is_read_in_utc_and_says_so() {
    let folder = Folder::new();
    made(&folder);
    let said = folder.ok(&["get", "ann.book", "lead/42", "--at", "09:45"]);
    assert!(said.contains("read in UTC: the device's zone is not on record"), "{said}");
    let said = folder.ok(&["get", "ann.book", "lead/42", "--at", "09:45", "--zone", "utc"]);
    assert!(!said.contains("not on record"), "{said}");
    // In Kathmandu it is five hours and three quarters later.
    let local = ["get", "ann.book", "lead/42", "--at", "15:20", "--zone", "local"];
    let local = folder.command(&local).env("TZ", "NPT-5:45").output().unwrap();
    let local = String::from_utf8(local.stdout).unwrap();
    assert!(local.starts_with("as of entry 4, 2026-03-01 15:20:00 (+05:45)"), "{local}");
}

/// A device whose clock is five hours and three quarters ahead of UTC.
#[derive(Debug)]
struct InKathmandu(Arc<StillClock>);

impl Clock for InKathmandu {
    fn now(&self) -> Now {
        self.0.now()
    }

    fn utc_offset(&self, _: WallTime) -> Option<i32> {
        Some(5 * 60 + 45)
    }
}

#[test]
fn a_time_is_read_in_the_zone_of_the_device_that_the_book_has_on_record() {
    let folder = Folder::new();
    let clock = StillClock::new();
    let options = BookOptions::new("ann").unwrap().clock(Arc::new(InKathmandu(Arc::clone(&clock))));
    let ann = Book::create_new(folder.path("ann.book"), options).unwrap();
    ann.records().create(key("lead/42"), fields(r#"{"stage":"new"}"#)).unwrap();
    clock.advance(1_800);
    ann.records().update(key("lead/42"), fields(r#"{"stage":"hot"}"#)).unwrap();
    ann.close().unwrap();
    // The program runs in another zone. Nine o'clock in UTC is a quarter to three there.
    let then = ["get", "ann.book", "lead/42", "--at", "14:50"];
    let told = folder.command(&then).env("TZ", "BRT+3").output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(
        told.starts_with("as of entry 3, 2026-03-01 14:50:00 (+05:45); 1 entry follows"),
        "{told}"
    );
    assert!(!told.contains("not on record") && told.contains("new"), "{told}");
    let utc = folder.ok(&["get", "ann.book", "lead/42", "--at", "09:05", "--zone", "utc"]);
    assert!(utc.starts_with("as of entry 3, 2026-03-01 09:05:00 (+00:00)"), "{utc}");
}

#[test]
fn every_reading_verb_answers_as_of_then() {
    let folder = Folder::new();
    made(&folder);
    let before = folder.bytes("ann.book");
    let then = |args: &[&str]| folder.ok(&[args, &["--at", "4"]].concat());
    assert!(then(&["get", "ann.book", "lead/42"]).contains("hot"));
    assert!(!then(&["ls", "ann.book", "lead"]).contains("43"));
    assert!(then(&["ls", "ann.book"]).contains("lead"));
    assert!(then(&["status", "ann.book"]).contains("4 entries"));
    assert!(then(&["status", "ann.book", "lead/42"]).contains("2"));
    assert!(then(&["explain", "ann.book", "lead/42"]).contains("with 2 changes of this device"));
    assert_eq!(then(&["queue", "ann.book"]).matches("lead/42").count(), 2);
    assert!(then(&["plan", "ann.book"]).contains("the next sync sends 1 unit"));
    assert!(then(&["conflicts", "list", "ann.book"]).contains("no conflicts"));
    assert!(then(&["dead-letters", "list", "ann.book"]).contains("no dead letters"));
    assert!(!then(&["log", "ann.book"]).contains("lead/43"));
    assert!(!then(&["history", "ann.book", "lead/42"]).contains("won"));
    assert!(then(&["find", "ann.book", "mueller"]).contains("lead/42"));
    let now = folder.ok(&["find", "ann.book", "mueller"]);
    assert!(now.contains("lead/43") && !now.contains("lead/42"), "{now}");
    for args in [&["queue", "ann.book"][..], &["log", "ann.book"], &["find", "ann.book", "x"]] {
        let ran = folder.run(&[args, &["--at", "@-1", "--json"]].concat());
        assert!(ran.err.starts_with("as of entry 4"), "with --json it is a note: {ran:?}");
        assert!(ran.out.lines().all(|line| line.starts_with('{')), "{}", ran.out);
    }
    assert!(folder.bytes("ann.book") == before, "no byte of the book changed");
}

#[test]
fn an_exported_log_is_read_in_the_place_of_a_book() {
    let folder = Folder::new();
    made(&folder);
    folder.ok(&["log", "ann.book", "--export", "ann.log"]);
    for args in [
        &["get", "lead/42"][..],
        &["ls", "lead"],
        &["queue"],
        &["plan"],
        &["explain", "lead/42"],
        &["log"],
        &["history", "lead/42"],
        &["find", "mueller"],
        &["get", "lead/42", "--at", "-1h"],
    ] {
        let on = |file| {
            let (verb, rest) = args.split_first().unwrap();
            folder.ok(&[&[*verb, file], rest].concat()).replace(file, "SOURCE")
        };
        let book = on("ann.book");
        // What a book advises cannot be done to an exported log.
        let answer = book.split("\nWhat to do:").next().unwrap();
        assert_eq!(on("ann.log"), answer, "{args:?}");
    }
    let mut bytes = folder.bytes("ann.log");
    let last = bytes.len() - 40;
    bytes[last] ^= 1;
    std::fs::write(folder.path("bad.log"), bytes).unwrap();
    let bad = folder.run(&["ls", "bad.log"]);
    assert_eq!(bad.code, 1);
    assert!(bad.err.contains("entry 5"), "{}", bad.err);
}

#[test]
fn a_clock_that_was_set_back_is_said() {
    let folder = Folder::new();
    let clock = StillClock::new();
    let ann = book(&folder.path("ann.book"), "ann", &clock);
    ann.records().create(key("lead/42"), fields("{}")).unwrap();
    clock.advance(-645);
    ann.records().update(key("lead/42"), fields(r#"{"stage":"hot"}"#)).unwrap();
    ann.close().unwrap();
    let said = folder.ok(&["get", "ann.book", "lead/42", "--at", "4"]);
    let wanted = "the device's clock was behind its log around then: entry 4 was made when it showed \
                  2026-03-01 08:49:15, and counts as 2026-03-01 09:00:00";
    assert!(said.contains(wanted), "{said}");
}
