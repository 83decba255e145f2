//! Advice runs as it is printed, and pasting it decides nothing.

use std::process::{Command, Stdio};

use crate::looks::with_a_conflict;
use crate::settle::{with_a_dead_letter, with_a_worn_out_op, with_an_open_conflict};
use crate::support::{Folder, Ran, Serving};

/// Runs a line in a shell, as a person pastes it.
fn paste(folder: &Folder, line: &str, server: &str) -> Ran {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_fieldbook"));
    let mut folders = vec![program.parent().unwrap().to_owned()];
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).current_dir(folder.path(".")).stdin(Stdio::null());
    shell.env("PATH", std::env::join_paths(folders).unwrap()).env("TZ", "UTC").env("NO_COLOR", "1");
    shell
        .env("FIELDBOOK_SERVER", server)
        .env_remove("FIELDBOOK_ACTOR")
        .env_remove("RUST_BACKTRACE");
    shell.output().unwrap().into()
}

/// Returns the lines with commands, both those to run and those to choose.
fn commands(said: &str) -> Vec<String> {
    let lines = said.lines().map(|line| line.trim());
    lines
        .filter(|line| line.starts_with("fieldbook ") || line.starts_with("# "))
        .map(str::to_owned)
        .collect()
}

/// `keep BOOK 8.3 mine|theirs|JSON`, pasted, once ran a pipe and decided the conflict.
#[test]
fn pasting_all_of_an_advice_decides_nothing() {
    let folder = with_an_open_conflict();
    let before = folder.bytes("ann.book");
    let id = folder.json(&["conflicts", "list", "ann.book", "--json"])[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    for args in [&["explain", "ann.book", "lead/1"][..], &["conflicts", "show", "ann.book", &id]] {
        let said = folder.ok(args);
        let lines = commands(&said);
        assert!(lines.iter().any(|line| line.contains("conflicts keep ann.book")), "{said}");
        for line in &lines {
            let ran = paste(&folder, line, "http://127.0.0.1:1");
            assert_eq!(ran.code, 0, "{line}: {ran:?}");
        }
        assert!(folder.bytes("ann.book") == before, "{said}");
    }
    // A command to choose runs as it is printed behind its mark.
    let chosen = format!("fieldbook conflicts keep ann.book {id} remote");
    assert!(folder.ok(&["explain", "ann.book", "lead/1"]).contains(&format!("# {chosen}\n")));
    assert_eq!(paste(&folder, &chosen, "").code, 0);
    assert!(folder.json(&["conflicts", "list", "ann.book", "--open", "--json"]).is_empty());
}

#[test]
fn each_way_to_settle_a_dead_letter_runs_as_it_is_printed() {
    for (word, left) in [("retry", 2), ("discard", 0), ("correct", 1)] {
        let folder = with_a_dead_letter();
        let explained = folder.ok(&["explain", "ann.book", "lead/1"]);
        let shown =
            commands(&explained).into_iter().find(|line| line.starts_with("fieldbook ")).unwrap();
        let ran = paste(&folder, &shown, "");
        let line = format!("# fieldbook dead-letters {word} ");
        let chosen = commands(&ran.out).into_iter().find(|found| found.starts_with(&line)).unwrap();
        let ran = paste(&folder, chosen.trim_start_matches("# "), "");
        assert_eq!(ran.code, 0, "{chosen}: {ran:?}");
        assert_eq!(folder.json(&["queue", "ann.book", "--json"]).len(), left, "{word}");
    }
}

/// There was once no advice, and both commands refused the op: it was taken for a conflict.
#[test]
fn each_way_to_move_a_worn_out_op_runs_as_it_is_printed() {
    for (word, left) in [("retry", 1), ("discard", 0)] {
        let folder = with_a_worn_out_op();
        let status = folder.one_json(&["status", "ann.book", "--json"]);
        assert_eq!(
            (&status["state"], &status["open_conflicts"]),
            (&"needs_attention".into(), &0.into())
        );
        let shown = folder.ok(&["status", "ann.book"]);
        assert!(shown.contains("needs a person: 1 stopped change to retry or discard"), "{shown}");
        let queued = folder.json(&["queue", "ann.book", "--json"]);
        assert_eq!(
            (&queued[0]["state"], &queued[0]["hold"]["why"]),
            (&"parked".into(), &"worn_out".into())
        );
        let explained = folder.ok(&["explain", "ann.book", "lead/1"]);
        assert!(
            explained
                .contains("It waits for ann, or whoever helps them, to retry it or discard it")
        );
        let line = format!("# fieldbook dead-letters {word} ");
        let chosen =
            commands(&explained).into_iter().find(|found| found.starts_with(&line)).unwrap();
        let ran = paste(&folder, chosen.trim_start_matches("# "), "");
        assert_eq!(ran.code, 0, "{chosen}: {ran:?}");
        let queued = folder.json(&["queue", "ann.book", "--json"]);
        assert_eq!(queued.len(), left, "{word}");
        assert!(queued.iter().all(|op| op["state"] == "ready"), "{queued:?}");
    }
}

/// A user may begin with a hyphen, and have a name that a shell would split.
#[test]
fn what_a_user_left_is_taken_over_as_advised() {
    for gone in ["ann", "-rf; x"] {
        let folder = Folder::new();
        folder.ok(&["init", "a.book", &format!("--actor={gone}")]);
        folder.ok(&["put", "a.book", "lead/1", "{}"]);
        folder.ok(&["put", "a.book", "lead/2", "{}", "--actor", "ben"]);
        for args in [&["explain", "a.book", "lead/1"][..], &["failed", "a.book"]] {
            let said = folder.ok(args);
            let advised = commands(&said);
            let chosen = advised.iter().find(|line| line.starts_with("# fieldbook hand-over"));
            assert!(chosen.is_some(), "{said}");
        }
        let doctor = folder.run(&["doctor", "a.book"]).out;
        let chosen = commands(&doctor).into_iter().find(|line| line.contains("hand-over")).unwrap();
        let ran = paste(&folder, chosen.trim_start_matches("# "), "");
        assert_eq!(ran.code, 0, "{chosen}: {ran:?}");
        let queue = folder.json(&["queue", "a.book", "--json"]);
        assert!(queue.iter().all(|op| op["actor"] == "ben"), "{queue:?}");
    }
}

/// `status`, `get`, `queue` and `explain` use the same words for a record.
#[test]
fn every_command_says_of_a_record_what_its_explanation_says() {
    for folder in [with_a_dead_letter(), with_a_worn_out_op(), with_an_open_conflict()] {
        let explained = folder.ok(&["explain", "ann.book", "lead/1"]);
        let stands = |said: &str| {
            let words = ["was refused by the server for good", "is stopped, since"];
            words.iter().find_map(|word| said.find(word).map(|at| said[at..].to_owned())).unwrap()
        };
        let sentence = stands(&explained);
        let (sentence, _) = sentence.split_once(".\n").unwrap();
        for args in [
            &["get", "ann.book", "lead/1"][..],
            &["status", "ann.book", "lead/1"],
            &["queue", "ann.book"],
        ] {
            let said = folder.ok(args);
            assert!(said.contains(sentence), "{args:?} does not say {sentence:?}: {said}");
        }
    }
}

/// A book whose name a shell would split, and a record whose name a terminal would: all advice
/// names them correctly.
#[test]
fn advice_names_books_and_records_as_they_are() {
    let folder = Folder::new();
    let server = Serving::start(&folder, &[]);
    for (book, id) in
        [("ann's book; $(x).book", "it's|`1`"), ("-rf", "a\u{202e}b"), ("b&c.book", "100% \\o/")]
    {
        let key = format!("lead/{id}");
        let book_path = format!("./{book}");
        folder.ok(&["init", &book_path]);
        folder.ok(&["put", &book_path, &key, "{}"]);
        let missing = format!("{key}?");
        for args in [
            &["explain", &book_path, &key][..],
            &["get", &book_path, &missing],
            &["put", &book_path, &key, "{}"],
            &["patch", &book_path, &missing, r#"{"a":1}"#],
            &["rm", &book_path, &missing],
            &["history", &book_path, &missing],
            &["status", &book_path, &missing],
            &["conflicts", "show", &book_path, "9.9"],
            &["dead-letters", "show", &book_path, "99"],
            &["undo", &book_path, "0192f0c1-8f5e-7c3a-9b1d-2f6a3c4d5e6f"],
        ] {
            let ran = folder.run(args);
            let lines = commands(&format!("{}{}", ran.out, ran.err));
            assert!(lines.iter().any(|line| line.starts_with("fieldbook ")), "{args:?}: {ran:?}");
            for line in lines {
                let pasted = paste(&folder, &line, &server.url);
                // A record that never existed has no history: the command runs and reports that.
                assert!(
                    pasted.code == 0 || pasted.err.contains("this book has nothing about"),
                    "{line}: {pasted:?}"
                );
            }
        }
        assert_eq!(
            folder.one_json(&["status", &book_path, "--json"])["pending"],
            0,
            "the sync ran as advised"
        );
    }
}

#[test]
fn what_comes_next_in_a_list_is_listed_as_advised() {
    let folder = Folder::new();
    folder.ok(&["init", "a.book"]);
    for id in ["-a", "b c", "d"] {
        folder.ok(&["put", "a.book", &format!("lead/{id}"), "{}"]);
    }
    let mut said = folder.ok(&["ls", "a.book", "lead", "--limit", "1"]);
    for id in ["b c", "d"] {
        let next = commands(&said).pop().unwrap();
        said = paste(&folder, &next, "").out;
        assert!(said.contains(&format!("\n{id} ")), "{next}: {said}");
    }
    assert!(commands(&said).is_empty(), "{said}");
}

#[test]
fn a_sync_says_in_its_heading_what_happened_and_how_to_go_on() {
    let folder = Folder::new();
    let server = Serving::start(&folder, &[]);
    folder.ok(&["init", "a.book", "--actor", "ann"]);
    folder.ok(&["put", "a.book", "lead/1", "{}"]);
    assert!(folder.ok(&["sync", "a.book", "--server", &server.url]).starts_with("SYNCED\n"));
    folder.ok(&["put", "a.book", "lead/2", "{}", "--actor", "ben"]);
    let held = folder.run(&["sync", "a.book", "--server", &server.url, "--actor", "ann"]);
    assert!(held.code == 0 && held.out.starts_with("PARTLY SYNCED\n"), "{held:?}");
    let lines = commands(&held.err);
    assert_eq!(lines, ["fieldbook plan a.book"], "{held:?}");
    assert_eq!(paste(&folder, &lines[0], "").code, 0);
    let explained = folder.ok(&["explain", "a.book", "lead/2", "--actor", "ann"]);
    let line =
        commands(&explained).into_iter().find(|line| line.starts_with("fieldbook sync")).unwrap();
    assert_eq!(paste(&folder, &line, &server.url).code, 0, "{line}");
    assert_eq!(folder.one_json(&["status", "a.book", "--json"])["pending"], 0);
    let nowhere = paste(&folder, &line, "");
    assert!(nowhere.code == 2 && nowhere.err.contains("set FIELDBOOK_SERVER"), "{nowhere:?}");
    drop(server);
    let other = Folder::new();
    let server = Serving::start(&other, &[]);
    let refused = folder.run(&["sync", "a.book", "--server", &server.url]);
    assert!(refused.code == 1 && !refused.out.contains("SYNCED"), "{refused:?}");
}

/// `dead-letters correct` once wrote as `local`, a user who does not exist, so the corrected op was
/// never sent.
#[test]
fn what_is_done_about_a_change_stays_its_authors() {
    let actor = |folder: &Folder| {
        folder.json(&["log", "ann.book", "--limit", "1", "--json"])[0]["actor"].clone()
    };
    let folder = with_a_dead_letter();
    folder.ok(&["dead-letters", "correct", "ann.book", "3", r#"{"name":"Ann"}"#]);
    assert_eq!(folder.json(&["queue", "ann.book", "--json"])[0]["actor"], "ann");
    let folder = with_a_dead_letter();
    folder.ok(&["dead-letters", "retry", "ann.book", "3", "--actor", "support"]);
    assert_eq!(actor(&folder), "support", "who decided is on record");
    folder.ok(&["put", "ann.book", "lead/9", "{}"]);
    assert_eq!(actor(&folder), "ann", "who decided about others' changes does not use the book");
    folder.ok(&["undo", "ann.book", "3"]);
    assert_eq!(actor(&folder), "ann");
    let folder = with_a_conflict();
    folder.ok(&["put", "ann.book", "lead/9", "{}", "--actor", "ben"]);
    folder.ok(&["conflicts", "flip", "ann.book", "11.1"]);
    assert_eq!(actor(&folder), "ann");
    let folder = with_an_open_conflict();
    folder.ok(&["conflicts", "keep", "ann.book", "11.1", "local"]);
    assert_eq!(actor(&folder), "ann");
}
