//! Text from elsewhere is shown safely: nothing in it reorders, hides or breaks what a person
//! reads.

use fieldbook::Fields;

use crate::settle::refusing_with;
use crate::support::{Folder, StillClock, book, sync};

/// Characters that must not reach a screen: they reorder, hide, break lines or control the
/// terminal.
const HIDDEN: [char; 18] = [
    '\u{202e}',
    '\u{2066}',
    '\u{2069}',
    '\u{200b}',
    '\u{200d}',
    '\u{200e}',
    '\u{2028}',
    '\u{2029}',
    '\u{2060}',
    '\u{feff}',
    '\u{ad}',
    '\u{61c}',
    '\u{180e}',
    '\u{fff9}',
    '\u{e0041}',
    '\u{fe0f}',
    '\u{3164}',
    '\u{e000}',
];

/// Three records once reached the screen unescaped: one looked like `invoice/exe.pdf`, one broke
/// the line, one looked like `invoice/42`.
#[test]
fn nothing_that_is_hidden_or_reorders_reaches_what_a_person_reads() {
    let folder = Folder::new();
    folder.ok(&["init", "a.book", "--actor", "ann\u{202e}"]);
    for (number, hidden) in HIDDEN.into_iter().enumerate() {
        let key = format!("invoice/{hidden}{number}");
        let fields = format!(r#"{{"t{hidden}":"a{hidden}b","n":{number}}}"#);
        folder.ok(&["put", "a.book", &key, &fields]);
        let ran = folder.run(&["get", "a.book", &format!("{key}x")]);
        assert_eq!(ran.code, 1);
        seen_as_it_is(&ran.err);
        for args in [
            &["get", "a.book", &key][..],
            &["history", "a.book", &key],
            &["explain", "a.book", &key],
            &["status", "a.book", &key],
            &["get", "a.book", &key, "--json"],
            &["put", "a.book", &key, &fields, "--replace"],
            &["patch", "a.book", &key, r#"{"n":99}"#],
        ] {
            seen_as_it_is(&folder.ok(args));
        }
        let value = folder.one_json(&["get", "a.book", &key, "--json"]);
        assert_eq!(value["key"], key.as_str(), "a machine reads what it is");
    }
    for args in [
        &["ls", "a.book", "invoice"][..],
        &["ls", "a.book", "invoice", "--limit", "1"],
        &["ls", "a.book", "invoice", "--json"],
        &["queue", "a.book"],
        &["queue", "a.book", "--json"],
        &["plan", "a.book"],
        &["plan", "a.book", "--json"],
        &["log", "a.book", "--limit", "0"],
        &["log", "a.book", "--limit", "0", "--json"],
        &["status", "a.book"],
    ] {
        seen_as_it_is(&folder.ok(args));
    }
}

/// Text of a server reaches a person too: codes, messages, and the text that a person answers.
#[test]
fn what_a_server_says_is_shown_so_that_it_can_be_seen() {
    let folder = Folder::new();
    let clock = StillClock::new();
    let ann = book(&folder.path("ann.book"), "ann", &clock);
    ann.records().create("lead/1".parse().unwrap(), Fields::new()).unwrap();
    ann.records().create("lead/2".parse().unwrap(), Fields::new()).unwrap();
    sync(
        &ann,
        &refusing_with(
            &clock,
            "cod\u{202e}e\u{200b}",
            "mess\u{2066}age\u{2028}\u{9b}31m\u{e0041}\u{feff}",
        ),
    );
    ann.close().unwrap();
    folder.ok(&["dead-letters", "discard", "ann.book", "4", "--reason", "why\u{202e}\u{200b}"]);
    for args in [
        &["status", "ann.book"][..],
        &["status", "ann.book", "lead/1"],
        &["get", "ann.book", "lead/1"],
        &["explain", "ann.book", "lead/1"],
        &["explain", "ann.book", "lead/1", "--json"],
        &["history", "ann.book", "lead/1"],
        &["history", "ann.book", "lead/2", "--json"],
        &["log", "ann.book"],
        &["log", "ann.book", "--json"],
        &["queue", "ann.book"],
        &["dead-letters", "list", "ann.book"],
        &["dead-letters", "list", "ann.book", "--json"],
        &["dead-letters", "show", "ann.book", "3"],
    ] {
        seen_as_it_is(&folder.ok(args));
    }
    folder.ok(&["dead-letters", "export", "ann.book", "dead.jsonl"]);
    seen_as_it_is(std::str::from_utf8(&folder.bytes("dead.jsonl")).unwrap());
}

/// An error repeats wrong arguments and names of files.
#[test]
fn what_was_typed_comes_back_so_that_it_can_be_seen() {
    let folder = Folder::new();
    folder.ok(&["init", "a.book"]);
    for hidden in HIDDEN.into_iter().chain(['\u{1b}', '\u{9b}', '\u{8}', '\r']) {
        let name = format!("x{hidden}[31my.book");
        for args in [
            &["get", "a.book", &format!("Lead{hidden}/1")][..],
            &["status", &name],
            &["verify", &name],
            &["put", "a.book", "lead/1", &format!("@{name}")],
            &["sync", "a.book", "--server", &format!("http://127.0.0.1:1/{hidden}")],
            &["sync", "a.book", "--server", "http://127.0.0.1:1", "--token-file", &name],
            &["log", &name],
            &[&format!("stat{hidden}us")],
        ] {
            let ran = folder.run(args);
            assert_ne!(ran.code, 0, "{args:?}");
            seen_as_it_is(&ran.err);
        }
        seen_as_it_is(&folder.ok(&["init", &name]));
        seen_as_it_is(&folder.run(&["init", &name]).err);
        seen_as_it_is(&folder.ok(&["status", &name]));
    }
}

#[track_caller]
fn seen_as_it_is(said: &str) {
    let found =
        said.chars().find(|found| HIDDEN.contains(found) || (found.is_control() && *found != '\n'));
    assert_eq!(found, None, "{}", said.escape_debug());
    assert!(!said.is_empty());
}
