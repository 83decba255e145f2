//! What cannot be meant.

use std::process::Command;

use fieldbook::{Book, BookOptions, Fields};

use crate::support::Office;

#[test]
fn a_line_that_cannot_be_meant_changes_nothing_and_says_what_to_type() {
    let office = Office::open();
    let mut ann = office.device("ann.book", "ann");
    ann.ok("offline");
    ann.ok("add \"Budi Santoso\" new 1200");
    ann.ok("add \"Budi Widodo\" hot 300");
    for (line, advice) in [
        ("lsit", "there is no command `lsit`: `help` lists them"),
        ("add Citra", "type `add NAME STAGE AMOUNT [PHONE]`: it makes a lead"),
        ("add Citra warm 1", "`warm` is no stage: new, hot, won, lost"),
        ("add Citra new 1.50", "`1.50` is no amount: write it in digits, like 1200"),
        ("set \"budi s\" colour red", "a lead has no `colour`: name, stage, amount or phone"),
        ("set \"budi s", "a quote is open: end it with \""),
        ("show citra", "no name begins with `citra`: try `search citra`"),
        ("set budi stage won", "which one? Type more of the name, or the id:\n  0"),
        ("list warm", "`warm` is no stage: new, hot, won, lost"),
        ("retry 1", "there is no number 1: `failed` shows the numbers"),
        ("mine all", "there is no number all: `conflicts` shows the numbers"),
        ("sync", "you are offline: type `online` first"),
        ("sync now", "type `sync`: it sends and fetches now, and says how it went"),
    ] {
        let said = ann.say(line);
        assert!(said.contains(&format!("error: {advice}")), "{line}: {said}");
    }
    assert!(ann.ok("status").contains("2 changes on this device only"));
    assert!(ann.ok("set \"budi s\" stage won").contains("stage of Budi Santoso is won"));
    assert!(ann.ok("set \"BUDI WIDODO\" stage new").contains("stage of Budi Widodo is new"));
    assert!(ann.ok("set \"budi w\" stage new").contains("nothing changed"));
}

#[test]
fn a_lead_of_another_program_that_does_not_fit_fails_alone() {
    let office = Office::open();
    let book = Book::create_new(office.path("ann.book"), BookOptions::new("ann").unwrap()).unwrap();
    let misfit = Fields::parse(r#"{"name":"Budi","stage":"new"}"#).unwrap();
    book.records().create("lead/2".parse().unwrap(), misfit).unwrap();
    book.close().unwrap();
    let mut ann = office.device("ann.book", "ann");
    ann.ok("offline");
    ann.ok("add Dewi new 1");
    let list = ann.ok("list");
    let misfit = "\n?      lead/2 does not fit the app's type: missing field `amount`";
    assert!(list.contains(misfit) && list.contains("\nnew    Dewi "), "{list}");
}

#[test]
fn a_name_can_neither_steer_the_terminal_of_another_user_nor_look_like_another_row() {
    let office = Office::open();
    let path = office.path("ann.book");
    let book = Book::create_new(&path, BookOptions::new("ann").unwrap()).unwrap();
    let name = r#"{"name":"Budi\u001b[2J\nwon    Citra","stage":"new","amount":1}"#;
    book.records().create("lead/2".parse().unwrap(), Fields::parse(name).unwrap()).unwrap();
    book.close().unwrap();
    let (mut ann, mut ben) = (office.device("ann.book", "ann"), office.device("ben.book", "ben"));
    ann.ok("sync");
    ben.ok("sync");
    for command in ["list", "show budi", "set budi stage hot", "search budi", "undo"] {
        let said = ben.ok(command);
        assert!(said.contains("Budi\u{fffd}[2J\u{fffd}won    Citra"), "{said}");
    }
}

#[test]
fn a_start_that_cannot_be_meant_says_how_to_start() {
    let office = Office::open();
    let _running = office.device("ann.book", "ann");
    let book = office.path("ann.book");
    let started = |arguments: &[&str]| {
        let ran = Command::new(env!("CARGO_BIN_EXE_crm")).args(arguments).output().unwrap();
        assert_eq!(ran.status.code(), Some(1));
        String::from_utf8(ran.stderr).unwrap()
    };
    let usage = "crm: crm BOOK USER [SERVER], for example: crm ann.book ann";
    assert!(started(&[]).starts_with(usage));
    assert!(started(&["ann.book"]).starts_with(usage));
    let in_use = started(&[book.to_str().unwrap(), "ann"]);
    assert!(in_use.contains("open already"), "{in_use}");
}
