//! A program that is stopped leaves nothing behind: no folder, no process.

#![cfg(unix)]

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::Folder;

/// A running demo, with temporary files in a folder of its own.
struct Demo {
    process: Child,
    name: String,
}

impl Demo {
    /// Starts a demo as the leader of its own process group, and waits until there are books.
    fn playing(folder: &Folder) -> Self {
        let before = folder.names();
        let mut demo = folder.command(&["demo"]);
        demo.env("TMPDIR", folder.path("."))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = demo.process_group(0).spawn().unwrap();
        loop {
            let is_new =
                |name: &&String| name.starts_with("fieldbook-demo-") && !before.contains(name);
            if let Some(name) = folder.names().iter().find(is_new)
                && std::fs::read_dir(folder.path(name).join("books"))
                    .is_ok_and(|mut all| all.next().is_some())
            {
                return Self { process, name: name.clone() };
            }
            assert_eq!(process.try_wait().unwrap(), None, "it ended before it could be stopped");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends it a signal, waits for its end, and returns its output.
    fn stop(self, signal: &str) -> String {
        let group = self.process.id();
        assert!(
            Command::new("kill").args([signal, &group.to_string()]).status().unwrap().success()
        );
        let ended = self.process.wait_with_output().unwrap();
        assert!(!ended.status.success());
        let is_anyone_left =
            Command::new("kill").args(["-0", "--", &format!("-{group}")]).output().unwrap();
        assert!(!is_anyone_left.status.success(), "after {signal} a process of its group goes on");
        String::from_utf8(ended.stderr).unwrap()
    }
}

/// The demo, stopped by ctrl-C, once left 24 MB in the temporary folder.
#[test]
fn a_demo_that_is_stopped_takes_its_books_away() {
    for signal in ["-INT", "-TERM", "-HUP"] {
        let folder = Folder::new();
        Demo::playing(&folder).stop(signal);
        assert_eq!(folder.names(), [""; 0], "after {signal}");
    }
}

#[test]
fn what_a_demo_that_was_killed_left_goes_with_the_next_one_and_what_is_in_use_stays() {
    let folder = Folder::new();
    let killed = Demo::playing(&folder);
    let left = killed.name.clone();
    killed.stop("-KILL");
    assert_eq!(folder.names(), [left.as_str()]);

    let next = Demo::playing(&folder);
    let beside = Demo::playing(&folder);
    let mut both = [next.name.clone(), beside.name.clone()];
    both.sort();
    assert_eq!(
        folder.names(),
        both,
        "each of them has its own, and the one that nobody holds is gone"
    );
    let said = next.stop("-INT");
    assert!(said.contains("1 temporary folder of killed programs removed"), "{said}");
    assert!(said.contains(&left), "{said}");
    assert_eq!(beside.stop("-INT"), "", "there was nothing left to remove");
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn a_play_that_fails_leaves_nothing() {
    let folder = Folder::new();
    std::fs::write(folder.path("stream.jsonl"), "{}\n").unwrap();
    let mut play = folder.command(&["play", "stream.jsonl"]);
    let ran = play.env("TMPDIR", folder.path(".")).output().unwrap();
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    assert_eq!(folder.names(), ["stream.jsonl"]);
}
