//! A record's whole life, command by command.

use serde_json::json;

use crate::support::{Folder, Serving};

#[test]
fn what_one_book_writes_another_one_reads_after_a_sync_with_serve() {
    let folder = Folder::new();
    let serving = Serving::start(&folder, &[]);
    assert!(
        folder.ok(&["init", "ann.book", "--actor", "ann"]).starts_with("created ann.book, device ")
    );
    folder.ok(&["init", "ben.book", "--actor", "ben"]);

    assert_eq!(
        folder.ok(&[
            "put",
            "ann.book",
            "lead/42",
            r#"{"name":"Ann","stage":"new"}"#,
            "--actor",
            "ann"
        ]),
        "created lead/42 (4)\n"
    );
    assert_eq!(
        folder.ok(&["patch", "ann.book", "lead/42", r#"{"stage":"hot"}"#, "--actor", "ann"]),
        "updated lead/42 (6)\n"
    );
    let expected = json!({"name": "Ann", "stage": "hot"});
    let record = folder.one_json(&["get", "ann.book", "lead/42", "--json"]);
    assert_eq!(
        (&record["fields"], &record["version"], &record["pending"]),
        (&expected, &json!(null), &json!(2))
    );
    assert_eq!(record["status"], json!({"state": "pending"}));

    let report = folder.one_json(&["sync", "ann.book", "--server", &serving.url, "--json"]);
    assert_eq!(
        (&report["ops_acked"], &report["units_acked"], &report["pending"]),
        (&json!(2), &json!(1), &json!(0))
    );
    assert_eq!(report["stopped"], "idle");
    folder.ok(&["sync", "ben.book", "--server", &serving.url]);
    let record = folder.one_json(&["get", "ben.book", "lead/42", "--json"]);
    assert_eq!((&record["fields"], &record["version"]), (&expected, &json!(1)));
    assert_eq!(record["status"], json!({"state": "synced"}));

    let kinds: Vec<_> = folder
        .json(&["log", "ann.book", "--json"])
        .iter()
        .map(|entry| entry["kind"].clone())
        .collect();
    // Each of three commands opened the book and wrote.
    let [made, put, patched] =
        [&["control", "control"][..], &["control", "intent"], &["control", "intent"]];
    // Opened, planned; the answer, its signature, the decisions.
    let synced = ["control", "control", "upstream", "control", "control"];
    assert_eq!(kinds, [made, put, patched, &synced].concat());
    let verified = folder.one_json(&["verify", "ann.book", "--tables", "--json"]);
    assert_eq!(
        (&verified["ok"], &verified["entries"], &verified["anchored"]),
        (&json!(true), &json!(11), &json!(8))
    );

    let status = folder.one_json(&["status", "ben.book", "--json"]);
    assert_eq!(
        (&status["state"], &status["pending"], &status["actor"]),
        (&json!("idle"), &json!(0), &json!("ben"))
    );
    assert!(serving.stop("-INT").success(), "ctrl-c ends the server well");
    assert_eq!(folder.run(&["sync", "ann.book", "--server", "http://127.0.0.1:1"]).code, 1);
}

#[test]
fn the_server_keeps_what_it_took_when_it_is_asked_to_end_and_started_again() {
    let folder = Folder::new();
    folder.ok(&["init", "ann.book"]);
    folder.ok(&["put", "ann.book", "lead/1", r#"{"n":1}"#]);
    let serving = Serving::start(&folder, &[]);
    folder.ok(&["sync", "ann.book", "--server", &serving.url]);
    assert!(serving.stop("-TERM").success());
    let serving = Serving::start(&folder, &[]);
    folder.ok(&["init", "ben.book"]);
    folder.ok(&["sync", "ben.book", "--server", &serving.url]);
    assert_eq!(
        folder.one_json(&["get", "ben.book", "lead/1", "--json"])["fields"],
        json!({"n": 1})
    );
}

#[test]
fn a_token_lets_its_actor_in_and_nobody_else() {
    let folder = Folder::new();
    let token = "a-long-random-token-9f27";
    let tokens = json!({ token: {"tenant": "acme", "actor": "ann"} }).to_string();
    folder.write_tokens(&tokens);
    std::fs::write(folder.path("ann.token"), format!("{token}\n")).unwrap();
    let serving = Serving::start(&folder, &["--tokens", "tokens.json"]);
    folder.ok(&["init", "ann.book", "--actor", "ann"]);
    folder.ok(&["put", "ann.book", "lead/1", "{}", "--actor", "ann"]);

    let refused = folder.run(&["sync", "ann.book", "--server", &serving.url]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.err.contains("other credentials") && refused.err.contains("--token-file"),
        "{}",
        refused.err
    );
    assert_eq!(folder.one_json(&["status", "ann.book", "--json"])["state"], "needs_auth");

    let sync = ["sync", "ann.book", "--server", &serving.url, "--token-file", "ann.token"];
    folder.ok(&sync);
    assert_eq!(folder.one_json(&["status", "ann.book", "--json"])["pending"], 0);
    folder.ok(&["put", "ann.book", "lead/2", "{}", "--actor", "eve"]);
    let refused = folder.run(&[&sync[..], &["--actor", "eve"]].concat());
    assert_eq!(refused.code, 1);
    for output in [refused.out, refused.err, folder.ok(&["log", "ann.book", "--json"])] {
        assert!(!output.contains(token), "{output}");
    }
}

#[test]
fn put_replace_gives_a_record_a_whole_new_image_and_rm_takes_it_away() {
    let folder = Folder::new();
    folder.ok(&["init", "a.book"]);
    folder.ok(&["put", "a.book", "lead/1", r#"{"a":1,"b":2}"#, "--replace"]);
    folder.ok(&["patch", "a.book", "lead/1", r#"{"b":null}"#]);
    assert_eq!(folder.one_json(&["get", "a.book", "lead/1", "--json"])["fields"], json!({"a": 1}));
    assert_eq!(
        folder.ok(&["put", "a.book", "lead/1", r#"{"c":3}"#, "--replace"]),
        "replaced lead/1 (8)\n"
    );
    assert_eq!(folder.one_json(&["get", "a.book", "lead/1", "--json"])["fields"], json!({"c": 3}));
    assert_eq!(folder.ok(&["patch", "a.book", "lead/1", r#"{"c":3}"#]), "lead/1 is unchanged\n");
    assert_eq!(folder.ok(&["rm", "a.book", "lead/1"]), "deleted lead/1 (10)\n");
    assert_eq!(folder.run(&["get", "a.book", "lead/1"]).code, 1);
    let before = folder.one_json(&["get", "a.book", "lead/1", "--at", "4", "--json"]);
    assert_eq!(before["fields"], json!({"a": 1, "b": 2}), "the past is still there to be read");
}

#[test]
fn fields_come_from_a_file_or_from_standard_input() {
    let folder = Folder::new();
    folder.ok(&["init", "a.book"]);
    std::fs::write(folder.path("lead.json"), "{\n  \"from\": \"a file\"\n}\n").unwrap();
    folder.ok(&["put", "a.book", "lead/1", "@lead.json"]);
    assert_eq!(
        folder.one_json(&["get", "a.book", "lead/1", "--json"])["fields"],
        json!({"from": "a file"})
    );
    let ran = folder.run_with_input(&["put", "a.book", "lead/2", "-"], r#"{"from":"a pipe"}"#);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        folder.one_json(&["get", "a.book", "lead/2", "--json"])["fields"],
        json!({"from": "a pipe"})
    );
}

#[test]
fn lists_are_read_in_parts_and_nothing_is_left_out() {
    let folder = Folder::new();
    folder.ok(&["init", "a.book"]);
    for id in ["1", "2", "3"] {
        folder.ok(&["put", "a.book", &format!("lead/{id}"), "{}"]);
    }
    folder.ok(&["put", "a.book", "task/1", "{}"]);
    let first = folder.ok(&["ls", "a.book", "lead", "--limit", "2"]);
    assert!(
        first.ends_with(
            "2 records; this lists more:\n  fieldbook ls a.book lead --after=2 --limit=2\n"
        ),
        "{first}"
    );
    let ids = |args: &[&str]| -> Vec<_> {
        folder.json(args).iter().map(|record| record["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&["ls", "a.book", "lead", "--after", "2", "--json"]), ["3"]);
    assert_eq!(ids(&["ls", "a.book", "lead", "--limit", "0", "--json"]), ["1", "2", "3"]);
    let types = folder.json(&["ls", "a.book", "--json"]);
    assert_eq!(types[0], json!({"entity": "lead", "records": 3, "synced_at": null}));
    assert_eq!(types[1]["entity"], "task");

    let seqs = |args: &[&str]| -> Vec<_> {
        folder.json(args).iter().map(|entry| entry["seq"].as_u64().unwrap()).collect()
    };
    assert_eq!(
        seqs(&["log", "a.book", "--limit", "2", "--json"]),
        [9, 10],
        "the last ones, unless told otherwise"
    );
    assert_eq!(seqs(&["log", "a.book", "--from", "2", "--limit", "2", "--json"]), [2, 3]);
    assert_eq!(seqs(&["log", "a.book", "--limit", "0", "--json"]), (1..=10).collect::<Vec<_>>());
    assert!(folder.ok(&["log", "a.book", "--from", "19"]).contains("the log ends at entry 10"));
}

#[test]
fn an_exported_log_verifies_and_is_never_written_over_unasked() {
    let folder = Folder::new();
    folder.ok(&["init", "a.book"]);
    folder.ok(&["put", "a.book", "lead/1", "{}"]);
    let said = folder.ok(&["log", "a.book", "--export", "a.log"]);
    let head = said.trim().rsplit(' ').next().unwrap().to_owned();
    assert!(folder.ok(&["verify", "a.log", "--head", &head]).starts_with("intact: 4 entries"));
    assert!(folder.bytes("a.log").starts_with(b"fieldbook-log 2\n"));
    // Cut between two entries, and before its end.
    let whole = folder.bytes("a.log");
    std::fs::write(folder.path("cut.log"), &whole[..whole.len() - 37]).unwrap();
    let cut = folder.run(&["verify", "cut.log"]);
    assert!(cut.code == 1 && cut.err.contains("cut off"), "{cut:?}");
    let cut = folder.run(&["status", "cut.log"]);
    assert!(cut.code == 1 && cut.err.contains("cut off"), "{cut:?}");
    // Commands for a damaged book would not help.
    assert!(cut.err.contains("export the log again") && !cut.err.contains("salvage"), "{cut:?}");
    let looked = folder.ok(&["doctor", "a.log"]);
    assert!(looked.contains("looked at: the file, every hash, signed notes"), "{looked}");
    assert!(looked.contains("not in an exported log or a bundle: pages, tables"), "{looked}");
    let damaged = folder.run(&["doctor", "cut.log"]);
    assert!(damaged.code == 1 && damaged.out.contains("export the log again"), "{damaged:?}");
    assert!(damaged.out.contains("not looked at, because of the damage"), "{damaged:?}");
    // A command that changes books says what the file is.
    let no_book = folder.run(&["rebuild", "a.log"]);
    assert!(no_book.code == 1 && no_book.err.contains("fieldbook verify a.log"), "{no_book:?}");
    std::fs::remove_file(folder.path("cut.log")).unwrap();

    folder.ok(&["put", "a.book", "lead/2", "{}"]);
    let before = folder.bytes("a.log");
    let refused = folder.run(&["log", "a.book", "--export", "a.log"]);
    assert_eq!((refused.code, folder.bytes("a.log")), (1, before));
    assert!(
        refused.err.contains("a.log exists already") && refused.err.contains("--force"),
        "{}",
        refused.err
    );
    folder.ok(&["log", "a.book", "--export", "a.log", "--force"]);
    assert_eq!(
        folder.run(&["verify", "a.log", "--head", &head]).code,
        1,
        "the head is another one now"
    );
    let found: serde_json::Value =
        serde_json::from_str(&folder.run(&["verify", "a.log", "--head", &head, "--json"]).out)
            .unwrap();
    assert_eq!(found["ok"], false, "a machine hears of it too: {found}");
    assert_eq!(folder.names(), ["a.book", "a.log"], "nothing temporary is left behind");
}

#[test]
fn rebuilding_changes_nothing_that_is_read() {
    let folder = Folder::new();
    folder.ok(&["init", "a.book"]);
    folder.ok(&["put", "a.book", "lead/1", r#"{"a":1}"#]);
    let before = folder.ok(&["get", "a.book", "lead/1", "--json"]);
    assert_eq!(folder.ok(&["rebuild", "a.book"]), "folded 4 entries anew\n");
    assert_eq!(folder.ok(&["get", "a.book", "lead/1", "--json"]), before);
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    use std::io::{BufRead, BufReader};
    let folder = Folder::new();
    folder.ok(&["init", "a.book"]);
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(300_000));
    std::fs::write(folder.path("large.json"), large).unwrap();
    folder.ok(&["put", "a.book", "lead/1", "@large.json"]);
    folder.ok(&["put", "a.book", "lead/2", "@large.json"]);
    let mut command = folder.command(&["log", "a.book", "--json"]);
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with('{'));
    let ended = child.wait_with_output().unwrap();
    assert_eq!(
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap().as_str()),
        (Some(0), "")
    );
}
