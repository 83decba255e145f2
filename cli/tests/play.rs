//! Plays and the demo, run as a person runs them: the program, its output, its exit code.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on panics, with the line that says where"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

const HISTORY: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../play/data/crm-history/openstates-vt-de.jsonl.gz");
const TABLE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../play/data/crm-history/openstates-vt-de.final.jsonl.gz"
);

fn fieldbook() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fieldbook"));
    command
        .env_remove("FIELDBOOK_TOKEN")
        .env_remove("FIELDBOOK_LOG")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    command
}

/// Writes a stream of one mutation.
fn small_stream(folder: &Path) -> PathBuf {
    let line = json!({
        "ts": "2024-03-01T10:00:00Z", "author": "ann", "op": "create", "entity": "person", "id": "1",
        "payload": {"name": "Eve"}, "tx": "t0", "base_pos": 0, "pos": 1, "synced_at": "2024-03-01T23:00:00Z",
    });
    let stream = folder.join("stream.jsonl");
    fs::write(&stream, format!("{line}\n")).unwrap();
    stream
}

#[track_caller]
fn report(ran: &Output) -> Value {
    serde_json::from_slice(&ran.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&ran.stderr)))
}

#[track_caller]
fn failure(ran: &Output) -> String {
    assert_eq!(ran.status.code(), Some(1));
    String::from_utf8(ran.stderr.clone()).unwrap()
}

#[test]
fn books_are_kept_where_asked_and_never_put_among_other_files() {
    let folder = TempDir::new().unwrap();
    let stream = small_stream(folder.path());
    let books = folder.path().join("books");
    let play = || fieldbook().arg("play").arg(&stream).arg("--books").arg(&books).output().unwrap();
    assert!(play().status.success());
    let shown =
        fieldbook().arg("get").arg(books.join("ann.book")).arg("person/1").output().unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains("Eve"), "{shown:?}");
    assert!(failure(&play()).contains("is not empty"));
}

#[test]
fn a_play_that_does_not_hold_tells_its_report_and_fails() {
    let folder = TempDir::new().unwrap();
    let (stream, table) = (small_stream(folder.path()), folder.path().join("table.jsonl"));
    fs::write(&table, r#"{"entity": "person", "id": "1", "record": {"name": "not so"}}"#).unwrap();
    let mut play = fieldbook();
    play.arg("play").arg(&stream).arg("--oracle").arg(&table);
    let ran = play.output().unwrap();
    assert!(failure(&ran).contains("the play failed"), "{ran:?}");
    assert!(failure(&ran).contains("person/1 differs in name"), "{ran:?}");
    let told = String::from_utf8(ran.stdout).unwrap();
    let row =
        |name: &str| told.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let figure = |name: &str| row(name).split_whitespace().next().unwrap_or_default().to_owned();
    assert_eq!(
        (figure("equal devices"), figure("unexplained")),
        ("1".to_owned(), "1".to_owned()),
        "{told}"
    );
    let ran = play.arg("--json").output().unwrap();
    assert_eq!((ran.status.code(), &report(&ran)["holds"]), (Some(1), &json!(false)));
}

#[test]
fn a_server_that_dies_in_the_middle_is_waited_for_and_all_ends_equal() {
    let folder = TempDir::new().unwrap();
    let books = folder.path().join("books");
    let mut server = Serve::start(folder.path());
    let url = format!("http://{}", server.address);
    let mut player = fieldbook()
        .args(["play", HISTORY, "--oracle", TABLE, "--json", "--server", &url, "--books"])
        .arg(&books)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let made = || fs::read_dir(&books).map_or(0, Iterator::count);
    wait_while_it_grows(&mut player, made, 12);
    // `Child::kill` is SIGKILL: nothing is flushed or closed.
    server.process.kill().unwrap();
    server.process.wait().unwrap();
    sleep(Duration::from_millis(700));
    server.restart(folder.path());
    let ran = player.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    assert!(said.contains("waiting") && said.contains("the server is back"), "{said}");
    let report = report(&ran);
    assert_eq!(
        (&report["equal_devices"], &report["oracle"]["unexplained"]),
        (&json!(51), &json!([]))
    );
    assert_ne!(report["traffic"]["failed_exchanges"], 0);

    let again = fieldbook().args(["play", HISTORY, "--server", &url]).output().unwrap();
    assert!(failure(&again).contains("the server already has records"));
}

/// A server in its own process.
struct Serve {
    process: Child,
    address: String,
}

impl Serve {
    fn start(folder: &Path) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        Self { process: Self::spawn(folder, &address), address }
    }

    fn restart(&mut self, folder: &Path) {
        self.process = Self::spawn(folder, &self.address);
    }

    fn spawn(folder: &Path, address: &str) -> Child {
        let mut command = fieldbook();
        command.args(["serve", "--listen", address, "--data"]).arg(folder.join("crm.store"));
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        // The server prints its address once it listens.
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains(address), "{line}");
        process
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Waits until a number is reached, however long that takes on a slow machine: as long as the
/// program runs, and the number grows from time to time.
#[track_caller]
fn wait_while_it_grows(program: &mut Child, number: impl Fn() -> usize, wanted: usize) {
    const LOOKS_WITHOUT_GROWTH: u32 = 6_000;
    let (mut most, mut without) = (0, 0);
    while most < wanted {
        assert!(program.try_wait().unwrap().is_none(), "the program ended at {most} of {wanted}");
        let now = number();
        without = if now > most { 0 } else { without + 1 };
        assert!(without < LOOKS_WITHOUT_GROWTH, "{most} of {wanted}, and it grows no more");
        most = most.max(now);
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_demo_plays_and_tells_of_a_conflict() {
    let ran = fieldbook().args(["demo", "--check"]).output().unwrap();
    let told = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success(), "{told}{}", String::from_utf8_lossy(&ran.stderr));
    for part in [
        "All 51 devices have the same 771 records",
        "that two devices changed at the same time",
        "status    synced",
    ] {
        assert!(told.contains(part), "{told}");
    }
}
