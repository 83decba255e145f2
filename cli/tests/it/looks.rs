//! How things look. The books are made with a clock that stands still, so times are the same each
//! time.

use std::sync::{Arc, Mutex};

use fieldbook::Remote;
use fieldbook::host::Clock;
use fieldbook::sync::protocol::ExchangeRequest;
use fieldbook::sync::{FnRemote, ServerEpoch, ServerId};
use fieldbook_core::authority::{Caller, MemoryAuthority, Quota, exchange};
use insta::assert_snapshot;

use crate::settle::with_a_dead_letter;
use crate::support::{Folder, StillClock, ann_and_ben, fields, key, sync};

/// A folder with the books of two users who changed the same field, and ann's record of the
/// conflict.
pub(crate) fn with_a_conflict() -> Folder {
    let folder = Folder::new();
    let clock = StillClock::new();
    let server = server(&clock);
    let (ann, ben) = ann_and_ben(&folder, &clock);
    ann.records().create(key("lead/42"), fields(r#"{"name":"Ann","stage":"new"}"#)).unwrap();
    sync(&ann, &server);
    sync(&ben, &server);
    clock.advance(60);
    ann.records().update(key("lead/42"), fields(r#"{"stage":"hot","phone":"1"}"#)).unwrap();
    clock.advance(60);
    ben.records().update(key("lead/42"), fields(r#"{"stage":"cold"}"#)).unwrap();
    sync(&ben, &server);
    clock.advance(60);
    sync(&ann, &server);
    clock.advance(60);
    ann.records().create(key("task/7"), fields(r#"{"title":"call"}"#)).unwrap();
    ann.close().unwrap();
    ben.close().unwrap();
    folder
}

pub(crate) fn server(clock: &Arc<StillClock>) -> impl Remote + use<> {
    let authority =
        MemoryAuthority::new(ServerId::from_bytes([7; 16]), ServerEpoch::from_bytes([8; 16]));
    let (authority, clock) = (Mutex::new(authority), Arc::clone(clock));
    FnRemote::new(move |request: &ExchangeRequest| {
        let mut authority = authority.lock().unwrap();
        Ok(exchange(&mut *authority, request, clock.now().wall, &Caller::Anyone, &Quota::default())
            .unwrap())
    })
}

#[test]
fn help_says_what_there_is_and_where_to_start() {
    let folder = Folder::new();
    assert_snapshot!("help", folder.ok(&["--help"]));
    assert_snapshot!("help_put", folder.ok(&["put", "--help"]));
    assert_snapshot!("help_sync", folder.ok(&["sync", "--help"]));
}

#[test]
fn every_command_has_help_with_an_example() {
    let folder = Folder::new();
    for command in [
        "serve",
        "init",
        "put",
        "patch",
        "rm",
        "undo",
        "get",
        "ls",
        "log",
        "history",
        "status",
        "explain",
        "queue",
        "plan",
        "sync",
        "check",
        "check-store",
        "failed",
        "hand-over",
        "reset",
        "overwritten",
        "backup",
        "dead-letters list",
        "dead-letters show",
        "dead-letters retry",
        "dead-letters discard",
        "dead-letters correct",
        "dead-letters export",
        "conflicts list",
        "conflicts show",
        "conflicts keep",
        "conflicts flip",
        "verify",
        "rebuild",
    ] {
        let args: Vec<_> = command.split(' ').chain(["--help"]).collect();
        let help = folder.ok(&args);
        assert!(help.contains(&format!("Examples:\n  fieldbook {command}")), "{help}");
    }
}

#[test]
fn tables_are_aligned_and_tell_the_story() {
    let folder = with_a_conflict();
    let tables = [
        &["log", "ann.book", "--from", "2"][..],
        &["history", "ann.book", "lead/42"],
        &["conflicts", "list", "ann.book"],
        &["conflicts", "show", "ann.book", "11.1"],
        &["get", "ann.book", "lead/42"],
        &["ls", "ann.book"],
        &["ls", "ann.book", "lead"],
        &["queue", "ann.book"],
        &["plan", "ann.book"],
        &["explain", "ann.book", "lead/42"],
        &["explain", "ann.book", "task/7"],
        &["status", "ann.book", "lead/42"],
    ];
    let shown: Vec<_> = tables
        .iter()
        .map(|args| format!("$ fieldbook {}\n{}", args.join(" "), folder.ok(args)))
        .collect();
    assert_snapshot!("tables", shown.join("\n"));
}

#[test]
fn a_refused_change_is_explained_in_words_that_can_be_read_out() {
    let folder = with_a_dead_letter();
    let tables = [
        &["explain", "ann.book", "lead/1"][..],
        &["dead-letters", "list", "ann.book"],
        &["queue", "ann.book"],
        &["failed", "ann.book"],
        &["failed", "ann.book", "--of", "ben"],
    ];
    let shown: Vec<_> = tables
        .iter()
        .map(|args| format!("$ fieldbook {}\n{}", args.join(" "), folder.ok(args)))
        .collect();
    assert_snapshot!("refused", shown.join("\n"));
}

#[test]
fn json_has_the_promised_members() {
    let (folder, refused) = (with_a_conflict(), with_a_dead_letter());
    let members_in = |folder: &Folder, args: &[&str]| {
        let value = folder.json(args).pop().unwrap();
        let names: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        format!("{}: {}", args.join(" "), names.join(" "))
    };
    let members = |args: &[&str]| members_in(&folder, args);
    let shapes = [
        members(&["get", "ann.book", "lead/42", "--json"]),
        members(&["ls", "ann.book", "--json"]),
        members(&["ls", "ann.book", "lead", "--json"]),
        members(&["log", "ann.book", "--json"]),
        members(&["history", "ann.book", "lead/42", "--json"]),
        members(&["status", "ann.book", "--json"]),
        members(&["status", "ann.book", "lead/42", "--json"]),
        members(&["explain", "ann.book", "lead/42", "--json"]),
        members(&["queue", "ann.book", "--json"]),
        members(&["plan", "ann.book", "--json"]),
        members_in(&refused, &["failed", "ann.book", "--json"]),
        members(&["conflicts", "list", "ann.book", "--json"]),
        members(&["verify", "ann.book", "--json"]),
    ];
    assert_snapshot!("json_members", shapes.join("\n"));
}

#[test]
fn looking_changes_no_byte_of_the_file() {
    let folder = with_a_conflict();
    let before = folder.bytes("ann.book");
    for args in [
        &["get", "ann.book", "lead/42"][..],
        &["get", "ann.book", "lead/42", "--at", "3"],
        &["ls", "ann.book", "lead"],
        &["log", "ann.book", "--limit", "0"],
        &["log", "ann.book", "--export", "ann.log"],
        &["history", "ann.book", "lead/42"],
        &["status", "ann.book"],
        &["explain", "ann.book", "lead/42"],
        &["queue", "ann.book"],
        &["plan", "ann.book"],
        &["failed", "ann.book", "--json"],
        &["overwritten", "ann.book"],
        &["conflicts", "list", "ann.book"],
        &["conflicts", "show", "ann.book", "11.1"],
        &["dead-letters", "list", "ann.book"],
        &["dead-letters", "export", "ann.book", "dead.jsonl"],
        &["verify", "ann.book"],
    ] {
        folder.ok(args);
        assert!(folder.bytes("ann.book") == before, "{args:?} changed the book");
    }
}
