//! The real program, killed without a warning (C1). Each write that it reported is there. Each
//! write that it did not report is there whole or not at all. A later sync continues.
//!
//! `FIELDBOOK_KILLS=100 cargo test -p fieldbook-cli --test it killed` kills a hundred times each.
//! An ordinary run kills ten times.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Folder, Serving};

fn rounds() -> u32 {
    std::env::var("FIELDBOOK_KILLS").map_or(10, |rounds| rounds.parse().unwrap())
}

/// Spreads the kills over the time that an action takes.
fn moment(round: u32, takes: Duration) -> Duration {
    takes * (round * 37 % 101) / 100
}

#[expect(clippy::disallowed_methods, reason = "a kill has to come at some real time")]
fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

fn kill(mut child: Child) {
    // A process that has ended cannot be killed, which is fine.
    drop(child.kill());
    drop(child.wait());
}

#[test]
fn a_killed_writer_loses_nothing_that_it_said_was_written() {
    let folder = Folder::new();
    folder.ok(&["init", "ann.book"]);
    // Each write is a process of its own, so a kill hits a known write. A play is one process with
    // many writes.
    let takes = timed(|| drop(folder.ok(&["put", "ann.book", "lead/first", r#"{"n":1}"#])));
    let mut said = BTreeSet::from(["lead/first".to_owned()]);
    let mut asked = said.clone();
    for round in 0..rounds() {
        let key = format!("lead/{round}");
        let mut command = folder.command(&["put", "ann.book", &key, r#"{"n":1,"text":"in ink"}"#]);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        std::thread::sleep(moment(round, takes));
        kill(child);
        let answer = BufReader::new(out).lines().next();
        if answer.is_some_and(|line| line.is_ok_and(|line| line.starts_with("created"))) {
            said.insert(key.clone());
        }
        asked.insert(key);
        let verified = folder.one_json(&["verify", "ann.book", "--tables", "--json"]);
        assert_eq!(verified["ok"], true, "round {round}: {verified}");
    }
    let there: BTreeSet<String> = keys(&folder, "ann.book");
    assert!(there.is_superset(&said), "said and lost: {:?}", said.difference(&there));
    assert!(asked.is_superset(&there), "never asked for: {:?}", there.difference(&asked));
    let lengths: BTreeSet<_> = folder
        .json(&["ls", "ann.book", "lead", "--limit", "0", "--json"])
        .iter()
        .map(|record| record["fields"].to_string())
        .collect();
    assert!(lengths.len() <= 2, "a record is there in part: {lengths:?}");
}

#[test]
fn a_killed_server_applies_everything_once() {
    let folder = Folder::new();
    folder.ok(&["init", "ann.book"]);
    folder.ok(&["put", "ann.book", "lead/first", r#"{"n":1}"#]);
    let mut serving = Serving::start(&folder, &[]);
    let takes = timed(|| drop(folder.ok(&["sync", "ann.book", "--server", &serving.url])));
    for round in 0..rounds() {
        folder.ok(&["put", "ann.book", &format!("lead/{round}"), r#"{"n":1}"#]);
        folder.ok(&["put", "ann.book", &format!("note/{round}"), r#"{"n":2}"#]);
        let mut command = folder.command(&["sync", "ann.book", "--server", &serving.url]);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(moment(round, takes));
        // Dropping the server kills it. Every third time the device is killed too.
        drop(serving);
        if round % 3 == 0 {
            kill(child);
        } else {
            drop(child.wait_with_output());
        }
        serving = Serving::start(&folder, &[]);
    }
    let report = folder.one_json(&["sync", "ann.book", "--server", &serving.url, "--json"]);
    assert_eq!(report["pending"], 0, "{report}");
    assert_eq!(folder.one_json(&["verify", "ann.book", "--tables", "--json"])["ok"], true);
    folder.ok(&["init", "ben.book"]);
    folder.ok(&["sync", "ben.book", "--server", &serving.url]);
    let there = keys(&folder, "ann.book");
    assert_eq!(keys(&folder, "ben.book"), there);
    assert_eq!(there.len(), 1 + 2 * usize::try_from(rounds()).unwrap());
    // One unit made each record and took effect once, so each record has the version of that unit's
    // commit.
    let versions: BTreeSet<_> = ["lead", "note"]
        .iter()
        .flat_map(|entity| folder.json(&["ls", "ben.book", entity, "--limit", "0", "--json"]))
        .map(|record| record["version"].to_string())
        .collect();
    assert_eq!(versions.len(), there.len(), "as many commits as records: {versions:?}");
}

fn keys(folder: &Folder, book: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for entity in ["lead", "note"] {
        let records = folder.json(&["ls", book, entity, "--limit", "0", "--json"]);
        keys.extend(
            records.iter().map(|record| format!("{entity}/{}", record["id"].as_str().unwrap())),
        );
    }
    keys
}
