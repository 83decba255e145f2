//! A program that is stopped in the middle leaves nothing behind.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::Folder;

/// The demo, stopped by ctrl-C, left 24 MB in the temporary folder.
#[test]
fn a_demo_that_is_stopped_takes_its_books_away() {
    for signal in ["-INT", "-TERM", "-HUP"] {
        let folder = Folder::new();
        let mut demo = folder.command(&["demo"]);
        demo.env("TMPDIR", folder.path(".")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut demo = demo.spawn().unwrap();
        let is_playing = || {
            let names = folder.names();
            let books = names.iter().find(|name| name.starts_with("fieldbook-demo-"));
            books.is_some_and(|name| {
                std::fs::read_dir(folder.path(name).join("books")).is_ok_and(|mut all| all.next().is_some())
            })
        };
        while !is_playing() {
            assert_eq!(demo.try_wait().unwrap(), None, "it ended before it could be stopped");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(Command::new("kill").args([signal, &demo.id().to_string()]).status().unwrap().success());
        assert!(!demo.wait().unwrap().success());
        assert_eq!(folder.names(), [""; 0], "after {signal}");
    }
}
