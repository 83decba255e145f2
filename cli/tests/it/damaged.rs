//! Damaged, cut, altered, read-only and foreign files: the program reports the truth about them,
//! and reading changes no byte.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use redb::{ReadableTable, TableDefinition};

use crate::looks::with_a_conflict;
use crate::support::{Folder, Ran};

const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries-1");
const PAGE: usize = 4096;

fn changed(folder: &Folder, name: &str) -> (Vec<u8>, SystemTime) {
    (folder.bytes(name), folder.path(name).metadata().unwrap().modified().unwrap())
}

/// Returns whether a run ended with an exit code of the program and without text of the storage
/// engine.
#[track_caller]
fn ended_well(ran: &Ran, args: &[&str]) {
    assert!((0..=2).contains(&ran.code), "{args:?}: {ran:?}");
    assert!(!ran.err.contains("panicked at"), "{args:?}: {ran:?}");
    assert!(ran.code == 0 || ran.err.starts_with("error: "), "{args:?}: {ran:?}");
}

/// `verify` once reported "intact" for 16 of 60 books with one damaged page that could not be
/// opened. Reading them ended in a panic of the storage engine with the hint to run `verify`.
#[test]
fn a_book_that_cannot_be_read_is_never_called_intact() {
    let folder = with_a_conflict();
    let whole = folder.bytes("ann.book");
    let pages = whole.len() / PAGE;
    let mut unreadable = 0;
    for number in 0..48 {
        let page = number * pages / 48;
        let mut bytes = whole.clone();
        let (from, to) = (page * PAGE, (page + 1) * PAGE);
        bytes[from.max(10)..to].iter_mut().for_each(|byte| *byte ^= 0x5a);
        std::fs::write(folder.path("ann.book"), &bytes).unwrap();
        let before = changed(&folder, "ann.book");
        let reading = [
            &["status", "ann.book"][..],
            &["log", "ann.book", "--limit", "0"],
            &["get", "ann.book", "lead/42"],
            &["conflicts", "list", "ann.book"],
        ];
        // With panics printed too, the storage engine's text does not help.
        let failed = reading.iter().filter(|args| {
            let ran: Ran = folder.command(args).env("RUST_BACKTRACE", "1").output().unwrap().into();
            ended_well(&ran, args);
            ran.code != 0
        });
        let failed = failed.count();
        let log = ["log", "ann.book", "--export", "ann.log", "--force"];
        ended_well(&folder.run(&log), &log);
        let ran = folder.run(&["verify", "ann.book"]);
        ended_well(&ran, &["verify"]);
        assert!(failed == 0 || ran.code == 1, "page {page}: {failed} reads failed, but {ran:?}");
        assert!(!ran.err.contains("fieldbook verify"), "advice that leads back to itself: {ran:?}");
        unreadable += usize::from(failed > 0);
        assert!(changed(&folder, "ann.book") == before, "looking changed page {page}");
        for args in [
            &["put", "ann.book", "lead/77", "{}"][..],
            &["rebuild", "ann.book"],
            &["status", "ann.book"],
        ] {
            ended_well(&folder.run(args), args);
        }
    }
    assert!(unreadable > 0, "no page that was damaged is needed");
}

#[test]
fn every_damage_is_listed_and_none_hides_another() {
    let folder = Folder::new();
    folder.ok(&["init", "a.book"]);
    for name in ["Zanzibar", "Cleopatra", "Archimedes"] {
        folder.ok(&["put", "a.book", &format!("lead/{name}"), &format!(r#"{{"name":"{name}"}}"#)]);
    }
    folder.ok(&["log", "a.book", "--export", "a.log"]);
    for file in ["a.book", "a.log"] {
        let mut bytes = folder.bytes(file);
        for needle in [&b"\"Zanzibar\""[..], b"\"Archimedes\""] {
            let places: Vec<_> =
                (0..bytes.len()).filter(|at| bytes[*at..].starts_with(needle)).collect();
            places.iter().for_each(|at| bytes[at + 1] = b'X');
        }
        std::fs::write(folder.path(file), bytes).unwrap();
        let ran = folder.run(&["verify", file]);
        assert!(ran.code == 1 && ran.err.starts_with("error: entry 4 is damaged"), "{ran:?}");
        assert!(
            ran.err.contains("also entry 8 is damaged") && !ran.err.contains("entry 6"),
            "{ran:?}"
        );
        let json = folder.run(&["verify", file, "--json"]);
        let found: serde_json::Value = serde_json::from_str(&json.out).unwrap();
        assert!(found["findings"].as_array().unwrap().len() >= 2, "{found}");
    }
}

/// A log that was cut between two entries once verified as a shorter log.
#[test]
fn a_log_whose_end_is_missing_is_told_by_what_the_tables_know() {
    let folder = with_a_conflict();
    let database = redb::Database::open(folder.path("ann.book")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(ENTRIES).unwrap();
        let last = table.last().unwrap().unwrap().0.value();
        (last - 2..=last).for_each(|seq| drop(table.remove(seq).unwrap()));
    }
    transaction.commit().unwrap();
    drop(database);
    let ran = folder.run(&["verify", "ann.book"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("knows of entry 14, but the log ends at entry 12"), "{ran:?}");
    assert!(!ran.err.contains("rebuild"), "folding what is left would hide that: {ran:?}");
}

#[test]
fn a_row_that_does_not_read_is_found_and_rebuilding_mends_it() {
    let folder = with_a_conflict();
    let table = TableDefinition::<&[u8], &[u8]>::new("conflicts-1");
    let database = redb::Database::open(folder.path("ann.book")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(table).unwrap();
        let key = table.first().unwrap().unwrap().0.value().to_vec();
        table.insert(key.as_slice(), [0xff; 3].as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let ran = folder.run(&["verify", "ann.book"]);
    assert!(
        ran.code == 1 && ran.err.contains("the table of conflicts: 1 row does not read"),
        "{ran:?}"
    );
    assert!(ran.err.contains("# fieldbook rebuild ann.book"), "{ran:?}");
    folder.ok(&["rebuild", "ann.book"]);
    folder.ok(&["verify", "ann.book", "--tables"]);
}

/// Folding, in memory, finds a table that was changed so that every row still reads.
#[test]
fn folding_the_tables_to_verify_them_changes_not_a_byte() {
    let folder = with_a_conflict();
    let before = changed(&folder, "ann.book");
    let said = folder.ok(&["verify", "ann.book", "--tables"]);
    assert!(said.contains("the tables match the log"), "{said}");
    assert!(changed(&folder, "ann.book") == before);
    let table = TableDefinition::<&[u8], &[u8]>::new("conflicts-1");
    let database = redb::Database::open(folder.path("ann.book")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(table).unwrap().pop_first().unwrap();
    transaction.commit().unwrap();
    drop(database);
    let before = changed(&folder, "ann.book");
    folder.ok(&["verify", "ann.book"]);
    let ran = folder.run(&["verify", "ann.book", "--tables"]);
    assert!(
        ran.code == 1 && ran.err.contains("the table of conflicts does not match the log"),
        "{ran:?}"
    );
    assert!(changed(&folder, "ann.book") == before);
}

/// `verify` once claimed that the server knew a book that was altered, sealed anew and had its
/// receipts rewritten.
#[test]
fn what_the_file_says_of_the_server_is_told_as_the_files_own_word() {
    let folder = with_a_conflict();
    let said = folder.ok(&["verify", "ann.book"]);
    assert!(
        said.contains("The next sync compares entry 12 with the one that the server has."),
        "{said}"
    );
    assert!(said.contains("level: chained") && !said.contains("server knows"), "{said}");
}

/// A book of mode 0444, or in a folder without write permission, once could not be read.
#[test]
fn a_book_that_cannot_be_written_to_can_be_looked_at() {
    let folder = with_a_conflict();
    let mode = |name: &str, mode| {
        std::fs::set_permissions(folder.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("ann.book", 0o444);
    mode(".", 0o555);
    let before = changed(&folder, "ann.book");
    for args in [
        &["status", "ann.book"][..],
        &["ls", "ann.book", "lead"],
        &["log", "ann.book"],
        &["history", "ann.book", "lead/42"],
        &["explain", "ann.book", "task/7"],
        &["queue", "ann.book"],
        &["plan", "ann.book"],
        &["verify", "ann.book", "--tables"],
        &["conflicts", "list", "ann.book"],
    ] {
        folder.ok(args);
    }
    // The user who runs the tests may be allowed to write in spite of the mode.
    let may_write = std::fs::OpenOptions::new().append(true).open(folder.path("ann.book")).is_ok();
    if !may_write {
        let ran = folder.run(&["put", "ann.book", "lead/1", "{}"]);
        assert!(
            ran.code == 1 && ran.err.contains("read-only") && !ran.err.contains("disk failed"),
            "{ran:?}"
        );
    }
    assert!(changed(&folder, "ann.book") == before);
    mode(".", 0o755);
}

#[test]
fn two_may_look_at_a_book_at_once_and_nobody_while_it_is_written_to() {
    let folder = with_a_conflict();
    let look = |at: &Path| {
        let options = fieldbook::BookOptions::new("support").unwrap();
        fieldbook::Book::open(at, options.read_only())
    };
    let looking = look(&folder.path("ann.book")).unwrap();
    folder.ok(&["status", "ann.book"]);
    let refused = folder.run(&["put", "ann.book", "lead/1", "{}"]);
    assert!(refused.code == 1 && refused.err.contains("is open already"), "{refused:?}");
    assert!(
        !refused.err.contains("look at a copy"),
        "a copy of what is being written is damaged: {refused:?}"
    );
    drop(looking);
    folder.ok(&["put", "ann.book", "lead/1", "{}"]);
}

/// `log BOOK --export BOOK --force` once replaced the book by its export.
#[test]
fn no_output_ever_replaces_a_book_by_whichever_name() {
    let folder = with_a_conflict();
    std::os::unix::fs::symlink("ann.book", folder.path("link")).unwrap();
    std::fs::hard_link(folder.path("ann.book"), folder.path("twin")).unwrap();
    std::fs::create_dir(folder.path("sub")).unwrap();
    let before = folder.bytes("ann.book");
    let whole = folder.path("ann.book");
    for target in [
        "ann.book",
        "./ann.book",
        "sub/../ann.book",
        "link",
        "twin",
        "ben.book",
        whole.to_str().unwrap(),
    ] {
        for args in [
            &["log", "ann.book", "--export", target, "--force"][..],
            &["dead-letters", "export", "ann.book", target, "--force"],
        ] {
            let ran = folder.run(args);
            assert!(ran.code == 1 && ran.err.contains("is not overwritten"), "{args:?}: {ran:?}");
        }
    }
    assert!(folder.bytes("ann.book") == before);
    assert_eq!(folder.names(), ["ann.book", "ben.book", "link", "sub", "twin"]);
    folder.ok(&["log", "ann.book", "--export", "a.log"]);
    folder.ok(&["log", "ann.book", "--export", "a.log", "--force"]);
}

/// `verify` of a pipe once waited for ever.
#[test]
fn a_pipe_a_device_or_a_folder_is_refused_at_once() {
    let folder = with_a_conflict();
    assert!(
        std::process::Command::new("mkfifo").arg(folder.path("pipe")).status().unwrap().success()
    );
    for odd in ["pipe", "/dev/zero", "."] {
        let fields = format!("@{odd}");
        for args in [
            &["verify", odd][..],
            &["status", odd],
            &["rebuild", odd],
            &["put", odd, "lead/1", "{}"],
            &["put", "ann.book", "lead/7", &fields],
            &["patch", "ann.book", "lead/42", &fields],
            &["conflicts", "keep", "ann.book", "9.1", &fields],
            &["sync", "ann.book", "--server", "http://127.0.0.1:1", "--token-file", odd],
            &["log", "ann.book", "--export", odd, "--force"],
        ] {
            let mut child = folder
                .command(args)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut looks = 0;
            while child.try_wait().unwrap().is_none() {
                looks += 1;
                if looks > 12_000 {
                    child.kill().unwrap();
                    panic!("{args:?} waits");
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let ran: Ran = child.wait_with_output().unwrap().into();
            assert!(ran.code != 0 && ran.err.contains("not a file"), "{args:?}: {ran:?}");
        }
    }
}

#[test]
fn what_is_left_in_a_file_without_its_first_page_is_found_and_waits_for_a_person() {
    let folder = Folder::new();
    folder.ok(&["init", "ann.book"]);
    for lead in ["lead/1", "lead/2"] {
        folder.ok(&["put", "ann.book", lead, r#"{"stage":"new"}"#]);
    }
    let mut bytes = folder.bytes("ann.book");
    bytes[..4096].fill(0);
    std::fs::write(folder.path("ann.book"), &bytes).unwrap();
    let refused = folder.run(&["status", "ann.book"]);
    assert!(refused.err.contains("fieldbook salvage ann.book new.book"), "{}", refused.err);

    let told = folder.ok(&["salvage", "ann.book", "new.book"]);
    assert!(told.contains("found      6 entries\n           1\u{2013}6\n"), "{told}");
    assert!(told.contains("waiting    2 changes of 2 records\n"), "{told}");
    assert!(told.ends_with("\n  fieldbook queue new.book\n"), "{told}");
    assert!(folder.bytes("ann.book") == bytes, "the damaged file is only read");
    assert_eq!(folder.one_json(&["verify", "new.book", "--tables", "--json"])["ok"], true);
    let op = folder.one_json(&["explain", "new.book", "lead/2", "--json"]);
    assert_eq!(op["ops"][0]["state"]["reason"], "recovered", "{op}");
    let again = folder.run(&["salvage", "ann.book", "new.book"]);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.err.contains("exists"), "{}", again.err);
}

#[test]
fn the_doctor_says_what_waits_for_whom_and_finds_nothing_wrong_with_a_sound_book() {
    let folder = Folder::new();
    folder.ok(&["init", "ann.book", "--actor", "ann"]);
    folder.ok(&["put", "ann.book", "lead/ann@example.com", r#"{"stage":"new"}"#]);
    let told = folder.ok(&["doctor", "ann.book"]);
    assert!(told.starts_with("0 problems, 2 remarks · 4 entries · read only"), "{told}");
    assert!(told.contains("· 1 change waiting, and no server has ever answered"), "{told}");
    assert!(told.contains("such as lead/ann@example.com"), "{told}");

    folder.ok(&["put", "ann.book", "lead/1", r#"{"stage":"new"}"#, "--actor", "ben"]);
    let before = folder.bytes("ann.book");
    let told = folder.run(&["doctor", "ann.book", "--actor", "ann"]);
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.out.contains("✗ change 6 of lead/1 waits until ben, who made it"), "{}", told.out);
    assert!(told.out.contains("\n    fieldbook explain ann.book lead/1\n"), "{}", told.out);
    assert!(folder.bytes("ann.book") == before, "no byte changes");
}

/// A page overwritten at a random place once ended the looking commands in a panic of the engine.
#[test]
fn the_doctor_never_panics_and_finds_a_fault_exactly_where_verify_does() {
    let folder = Folder::new();
    folder.ok(&["init", "ann.book"]);
    for lead in 0..20 {
        folder.ok(&["put", "ann.book", &format!("lead/{lead}"), r#"{"stage":"new"}"#]);
    }
    let sound = folder.bytes("ann.book");
    let pages = sound.len() / 4096;
    for page in (0..pages).step_by(pages.div_ceil(24)) {
        let mut bytes = sound.clone();
        bytes[page * 4096..][..4096].fill(0xa5);
        std::fs::write(folder.path("ann.book"), &bytes).unwrap();
        let verified = folder.run(&["verify", "ann.book", "--tables"]);
        let told = folder.run(&["doctor", "ann.book"]);
        assert!(!told.err.contains("panicked"), "page {page}: {}", told.err);
        assert_eq!(told.code, verified.code, "page {page}: {told:?} {verified:?}");
        assert!(folder.bytes("ann.book") == bytes, "page {page}: no byte changes");
    }
}
