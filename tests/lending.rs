//! Two programs with one book: real processes, which lend it to each other, and are killed.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::{assert_sound, fields, key, view};
use fieldbook::error::StoreError;
use fieldbook::host::{Lend, Role};
use fieldbook::{Book, BookOptions, Error, SignOut};
use serde_json::json;

/// Longer than anything here takes, on a busy machine too.
const LONG: Duration = Duration::from_secs(60);

fn options(role: Role) -> BookOptions {
    BookOptions::new("ann").unwrap().app("crm", "2").shares_as(role)
}

fn create(book: &Book, record: &str) -> Result<(), Error> {
    book.records().create(key(record), fields(json!({"n": 1}))).map(drop)
}

/// Creates a record as soon as the book is there.
fn create_once_back(book: &Book, record: &str) {
    loop {
        match create(book, record) {
            Ok(()) => return,
            Err(Error::Suspended) => std::thread::sleep(Duration::from_millis(2)),
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Returns how many times a test repeats: fewer than a proof would need.
fn times() -> usize {
    std::env::var("FIELDBOOK_LENDINGS").map_or(4, |text| text.parse().unwrap())
}

/// A second process of this test program, which follows the words of the first.
struct Other {
    process: Child,
    says: BufReader<ChildStdout>,
}

impl Other {
    fn start(path: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_other_process", "--nocapture"])
            .env("FIELDBOOK_OTHER", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let says = BufReader::new(process.stdout.take().unwrap());
        Self { process, says }
    }

    fn tell(&mut self, word: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{word}").unwrap();
    }

    /// Waits for a word, and returns what follows it.
    fn hears(&mut self, word: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.says.read_line(&mut line).unwrap() > 0, "it ended before it said {word}");
            if let Some((_, rest)) = line.split_once(&format!("<{word}>")) {
                return rest.trim().to_owned();
            }
        }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// What the second process does. It is no test of its own.
#[test]
fn the_other_process() {
    let Ok(path) = std::env::var("FIELDBOOK_OTHER") else { return };
    let path = PathBuf::from(path);
    let mut book: Option<Book> = None;
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match word {
            "hold" => {
                book = Some(
                    Book::open(&path, options(Role::Interface).lends(|_| Lend::AtOnce)).unwrap(),
                )
            }
            "write" => create_once_back(book.as_ref().unwrap(), rest),
            "close" => book.take().unwrap().close().unwrap(),
            "borrow" => {
                let borrowed = Book::open_within(&path, options(Role::Background), LONG).unwrap();
                create(&borrowed, rest).unwrap();
                borrowed.close().unwrap();
            }
            "ask" => {
                println!("<asks>");
                book = Some(Book::open_within(&path, options(Role::Interface), LONG).unwrap());
            }
            _ => panic!("{line}"),
        }
        println!("<did> {}", std::process::id());
    }
}

#[test]
fn a_window_and_a_background_run_alternate_without_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("crm.book");
    let lends = options(Role::Interface).lends(|_| Lend::AtOnce);
    let book = Book::create_new(&path, lends).unwrap();
    let mut other = Other::start(&path);
    for turn in 0..times() {
        other.tell(&format!("borrow run/{turn}"));
        // The window goes on writing, and waits while its book is lent.
        let is_over = Arc::new(AtomicBool::new(false));
        let (of_window, ends) = (book.clone(), Arc::clone(&is_over));
        let window = std::thread::spawn(move || {
            let mut written = 0;
            while !ends.load(Ordering::SeqCst) {
                create_once_back(&of_window, &format!("window/{turn}-{written}"));
                written += 1;
            }
            written
        });
        other.hears("did");
        create_once_back(&book, &format!("back/{turn}"));
        is_over.store(true, Ordering::SeqCst);
        assert!(window.join().unwrap() > 0);
        assert!(view(&book, &format!("run/{turn}")).is_some(), "the run's write is here at once");
    }
    assert_sound(&book);
    book.close().unwrap();
}

/// A run that opens again and again does not keep the window out: the window waits for the turn
/// like anybody else.
#[test]
fn a_program_that_borrows_again_and_again_does_not_starve_the_lender() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("crm.book");
    let lends = options(Role::Interface).lends(|_| Lend::AtOnce);
    let book = Book::create_new(&path, lends).unwrap();
    let mut other = Other::start(&path);
    // It is told the next one before it has done the one before, so it asks again as soon as it has
    // closed the book.
    let (borrows, mut told) = (times() * 2, 2);
    (0..told).for_each(|turn| other.tell(&format!("borrow run/{turn}")));
    let (is_over, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (of_window, ends, counts) = (book.clone(), Arc::clone(&is_over), Arc::clone(&written));
    let window = std::thread::spawn(move || {
        while !ends.load(Ordering::SeqCst) {
            let number = counts.load(Ordering::SeqCst);
            create_once_back(&of_window, &format!("window/{number}"));
            counts.store(number + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    other.hears("did");
    let before = written.load(Ordering::SeqCst);
    // The scheduler decides how many borrows follow one another. A lender that starves never writes.
    let has_written = || written.load(Ordering::SeqCst) >= before + 2;
    for heard in 1..MOST_BORROWS {
        if heard < borrows || !has_written() {
            other.tell(&format!("borrow run/{told}"));
            told += 1;
        } else if heard == told {
            break;
        }
        other.hears("did");
    }
    assert!(has_written(), "the window wrote {written:?} times beside {told} borrows");
    is_over.store(true, Ordering::SeqCst);
    window.join().unwrap();
    // The last borrow may not have been given back yet.
    create_once_back(&book, "window/last");
    assert_sound(&book);
}

/// So many borrows in a row, and the window has not written: it starves.
const MOST_BORROWS: usize = 300;

#[test]
fn what_a_killed_program_held_or_asked_for_blocks_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("crm.book");
    Book::create_new(&path, options(Role::Interface)).unwrap().close().unwrap();
    for turn in 0..times() {
        // Killed while it has the book.
        let mut other = Other::start(&path);
        other.tell("hold");
        other.hears("did");
        other.tell(&format!("write held/{turn}"));
        other.hears("did");
        let refused = Book::open(&path, options(Role::Interface));
        let Err(Error::Store(error)) = refused else { panic!("{refused:?}") };
        let StoreError::AlreadyOpen { holder: Some(holder), .. } = &*error else {
            panic!("{error:?}")
        };
        assert_eq!((holder.process, holder.role), (other.process.id(), Role::Interface));
        assert_eq!(holder.app.as_deref(), Some("crm 2"));
        other.kill();
        let book = Book::open(&path, options(Role::Interface)).unwrap();
        assert!(view(&book, &format!("held/{turn}")).is_some());
        book.close().unwrap();

        // Killed while it lends.
        let mut other = Other::start(&path);
        other.tell("hold");
        other.hears("did");
        let book = Book::open_within(&path, options(Role::Background), LONG).unwrap();
        other.kill();
        create(&book, &format!("lent/{turn}")).unwrap();
        book.close().unwrap();
        let book = Book::open(&path, options(Role::Background)).unwrap();
        assert_sound(&book);

        // Killed while it asks: the holder keeps its book.
        let mut other = Other::start(&path);
        other.tell("ask");
        other.hears("asks");
        other.kill();
        create_once_back(&book, &format!("asked/{turn}"));
        book.close().unwrap();
    }
}

/// The id of a process is used again, so what a file says is not believed without its lock.
#[test]
fn a_holder_is_named_only_while_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("crm.book");
    let book = Book::create_new(&path, options(Role::Interface)).unwrap();
    let left = std::fs::read(folder.path().join("crm.book.holder")).unwrap();
    book.close().unwrap();
    let alone = || BookOptions::new("ann").unwrap();
    let book = Book::open(&path, alone()).unwrap();
    std::fs::write(folder.path().join("crm.book.holder"), left).unwrap();
    let refused = Book::open(&path, alone());
    assert!(
        matches!(&refused, Err(Error::Store(error)) if matches!(**error, StoreError::AlreadyOpen { holder: None, .. })),
        "{refused:?}"
    );
    drop(book);
}

#[test]
fn a_window_keeps_its_book_from_a_background_run_and_nobody_is_forced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("crm.book");
    let book = Book::create_new(&path, options(Role::Interface)).unwrap();
    let wait = Duration::from_millis(1_500);
    let refused = Book::open_within(&path, options(Role::Background), wait);
    let Err(error) = refused else { panic!("it was lent") };
    let said = error.to_string();
    assert!(said.contains(&format!("process {} (crm 2) since ", std::process::id())), "{said}");
    assert!(!book.is_suspended());
    create(&book, "lead/1").unwrap();

    // It goes to the background: now the run may have it, and gives it back.
    book.suspend().unwrap();
    let run = Book::open_within(&path, options(Role::Background), wait).unwrap();
    create(&run, "lead/2").unwrap();
    assert!(book.resume().is_err());
    // The window comes back, asks, and the run yields.
    book.resume_within(LONG).unwrap();
    assert!(run.is_suspended() && view(&book, "lead/2").is_some());
    book.close().unwrap();
    create_once_back(&run, "lead/3");
    // The app suspends what is lent: then it does not come back by itself.
    let other = Book::open_within(&path, options(Role::Interface), LONG).unwrap();
    run.suspend().unwrap();
    other.close().unwrap();
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(run.is_suspended());
    run.resume().unwrap();
    run.close().unwrap();
}

#[test]
fn a_wiped_book_leaves_no_file_and_a_missing_one_makes_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("crm.book");
    let missing = Book::open_within(&path, options(Role::Interface), LONG);
    assert!(matches!(missing, Err(Error::Store(_))));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    Book::create_new(&path, options(Role::Interface)).unwrap().close().unwrap();
    let book = Book::open_within(&path, options(Role::Interface), LONG).unwrap();
    book.sign_out(SignOut::Wipe { export_to: None }).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
