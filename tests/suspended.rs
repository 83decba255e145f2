//! A book that is suspended has no lock of its file, and goes on where the file is when it is
//! resumed, whoever wrote to it meanwhile.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use common::{Server, TestClock, assert_sound, fields, key, options, sync, view};
use fieldbook::audit::Seq;
use fieldbook::audit::entry::{Control, LastStop, Meta};
use fieldbook::error::StoreError;
use fieldbook::schema::IndexRule;
use fieldbook::sync::protocol::ExchangeRequest;
use fieldbook::sync::{BoxFuture, Received, RemoteError, Stopped};
use fieldbook::{
    Book, BookOptions, EntityRules, EntityType, Error, Remote, RunOptions, Schema, SyncState,
    WorkerOptions,
};
use serde_json::json;
use tokio::time::sleep;

fn schema(index: &str) -> Schema {
    let indexes = vec![IndexRule::new("by").asc(index)];
    let rules = EntityRules { indexes, ..EntityRules::default() };
    Schema::closed().declare(EntityType::parse("lead").unwrap(), rules)
}

fn with(index: &str) -> BookOptions {
    options("ann", &TestClock::starting()).schema(schema(index))
}

/// Makes a book with one record.
fn book_at(path: &Path) -> Book {
    let book = Book::create_new(path, with("n")).unwrap();
    create(&book, 1);
    book
}

fn create(book: &Book, number: u32) {
    try_create(book, number).unwrap();
}

fn try_create(book: &Book, number: u32) -> Result<(), Error> {
    let record = key(&format!("lead/{number}"));
    book.records().create(record, fields(json!({"n": number, "m": 0}))).map(drop)
}

/// Lets another program write to the file.
fn meanwhile(path: &Path, write: impl FnOnce(&Book)) {
    let other = Book::open(path, with("n")).unwrap();
    write(&other);
    other.close().unwrap();
}

/// Returns how many descriptors of this process are of a file.
#[cfg(target_os = "linux")]
fn descriptors(path: &Path) -> usize {
    let of = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read_link(entry.unwrap().path());
    let all = std::fs::read_dir("/proc/self/fd").unwrap().map(of);
    all.filter(|target| target.as_ref().is_ok_and(|target| target == path)).count()
}

fn sessions(book: &Book) -> Vec<LastStop> {
    let entries = book.audit().entries(Seq::ZERO, usize::MAX).unwrap();
    let stops = entries.into_iter().filter_map(|entry| match entry.meta {
        Meta::Control(Control::Session(session)) => Some(session.last_stop),
        _ => None,
    });
    stops.collect()
}

#[test]
fn a_suspended_book_holds_no_lock_and_its_file_was_closed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap().join("crm.book");
    let book = book_at(&path);
    let raw = || {
        let (repairs, mut builder) = (Arc::new(AtomicBool::new(false)), redb::Builder::new());
        let noted = Arc::clone(&repairs);
        builder.set_repair_callback(move |_| noted.store(true, Ordering::SeqCst));
        builder.open(&path).map(|_| repairs.load(Ordering::SeqCst))
    };
    assert!(matches!(raw(), Err(redb::DatabaseError::DatabaseAlreadyOpen)));

    book.suspend().unwrap();
    assert!(book.is_suspended());
    #[cfg(target_os = "linux")]
    assert_eq!(descriptors(&path), 0);
    assert!(!raw().unwrap(), "it was closed, so nothing is repaired");
    assert!(matches!(try_create(&book, 2), Err(Error::Suspended)));
    assert!(matches!(book.records().get(&key("lead/1")), Err(Error::Suspended)));
    assert!(matches!(book.queue().list(), Err(Error::Suspended)));
    assert!(matches!(book.explain(&key("lead/1")), Err(Error::Suspended)));
    assert!(book.queue().plan().groups.is_empty());
    assert_eq!((book.status().pending, book.status().state), (1, SyncState::Idle));
    book.suspend().expect("twice is once");
    book.rest().expect("a closed file is at rest");

    book.resume().unwrap();
    book.resume().expect("twice is once");
    create(&book, 2);
    assert_eq!(book.status().pending, 2);
    assert_eq!(sessions(&book).len(), 1, "nobody else wrote, so the session goes on");
    assert_sound(&book);
    book.close().unwrap();
}

#[test]
fn what_another_program_wrote_meanwhile_is_read_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("crm.book");
    let book = book_at(&path);
    let (mut watched, mut list) =
        (book.watch(), book.records().query(&lead(), "by").live().unwrap());
    assert_eq!(list.take_change().unwrap().unwrap().items.len(), 1);
    book.suspend().unwrap();
    let server = Server::new(&TestClock::starting());
    meanwhile(&path, |other| {
        create(other, 2);
        sync(other, &server);
        create(other, 3);
    });
    assert!(list.take_change().unwrap().is_none(), "a list waits");

    book.resume().unwrap();
    assert_eq!(view(&book, "lead/3"), Some(json!({"n": 3, "m": 0})));
    assert_eq!(book.status().pending, 1, "the other program's sync sent the first two");
    let told = watched.try_recv().unwrap();
    assert_eq!(&*told, [key("lead/1"), key("lead/2"), key("lead/3")]);
    assert_eq!(list.take_change().unwrap().unwrap().inserted, [1, 2]);
    create(&book, 4);
    assert_eq!(sessions(&book).len(), 3, "what follows is of this program again");
    assert_eq!(sync(&book, &server).ops_acked, 2);
    assert_eq!(list.take_change().unwrap().unwrap().items.len(), 4);
    assert_sound(&book);
}

#[test]
fn a_resume_that_fails_leaves_the_book_suspended_with_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("crm.book");
    let book = book_at(&path);
    book.suspend().unwrap();
    let other = Book::open(&path, with("n")).unwrap();
    for _ in 0..2 {
        let refused = book.resume();
        assert!(
            matches!(&refused, Err(Error::Store(cause)) if matches!(**cause, StoreError::AlreadyOpen { .. })),
            "{refused:?}"
        );
        assert!(book.is_suspended() && matches!(try_create(&book, 9), Err(Error::Suspended)));
    }
    other.close().unwrap();
    book.resume().unwrap();
    create(&book, 2);
    assert_sound(&book);
}

/// An older version of the app may run in the background.
#[test]
fn indexes_that_another_version_of_the_app_dropped_are_built_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("crm.book");
    let book = book_at(&path);
    book.suspend().unwrap();
    let other = Book::open(&path, with("m")).unwrap();
    create(&other, 2);
    other.close().unwrap();
    book.resume().unwrap();
    let page = book.records().query(&lead(), "by").reversed().page().unwrap();
    assert_eq!(page.items[0].id.as_str(), "2");
    assert_sound(&book);
}

#[test]
fn a_file_that_is_not_the_same_any_more_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("crm.book"), folder.path().join("older.book"));
    let book = book_at(&path);
    book.audit().backup(&copy, |_, _| {}).unwrap();
    create(&book, 2);
    book.suspend().unwrap();
    let kept = folder.path().join("kept.book");
    std::fs::rename(&path, &kept).unwrap();
    std::fs::rename(&copy, &path).unwrap();
    let refused = book.resume();
    assert!(matches!(refused, Err(Error::NotTheSame(_))), "{refused:?}");
    std::fs::rename(&kept, &path).unwrap();
    book.resume().expect("the file is back");

    // A program without a schema follows the indexes that the file has.
    let support = || options("ann", &TestClock::starting()).recorded_schema();
    book.close().unwrap();
    let book = Book::open(&path, support()).unwrap();
    book.suspend().unwrap();
    let app = Book::open(&path, with("m")).unwrap();
    create(&app, 3);
    app.close().unwrap();
    let refused = book.resume();
    assert!(matches!(refused, Err(Error::NotTheSame(_))), "{refused:?}");
    drop(book);
    assert_sound(&Book::open(&path, with("m")).unwrap());
}

#[test]
fn a_suspended_book_that_is_dropped_was_stopped_cleanly() {
    for is_closed in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("crm.book");
        let book = book_at(&path);
        book.suspend().unwrap();
        if is_closed {
            book.close().unwrap();
        } else {
            drop(book);
        }
        let book = Book::open(&path, with("n")).unwrap();
        create(&book, 2);
        assert_eq!(sessions(&book), [LastStop::None, LastStop::Clean]);
    }
}

/// Snapshots that an app holds cannot keep the lock.
#[test]
fn a_read_that_outlives_the_suspension_fails_and_does_not_delay_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("crm.book");
    let book = book_at(&path);
    for number in 2..200 {
        create(&book, number);
    }
    let at = book.at(fieldbook::audit::Moment::Entry(Seq::new(3))).unwrap();
    book.suspend().unwrap();
    let read = at.get_record(&key("lead/150"));
    assert!(matches!(read, Err(Error::Suspended)), "{read:?}");
    meanwhile(&path, |other| create(other, 500));
    book.resume().unwrap();
    assert!(matches!(at.get_record(&key("lead/150")), Err(Error::Suspended)), "it stays closed");
    assert!(view(&book, "lead/500").is_some());
}

#[test]
fn only_a_file_can_be_suspended() {
    let book = common::book("ann", &TestClock::starting());
    assert!(matches!(book.suspend(), Err(Error::Misuse(_))));
    create(&book, 1);
}

fn lead() -> EntityType {
    EntityType::parse("lead").unwrap()
}

/// Never answers the first requests, which the server applies all the same.
struct Lossy {
    server: Server,
    lost: AtomicU32,
}

impl Remote for Lossy {
    fn exchange<'a>(
        &'a self,
        request: &'a ExchangeRequest,
    ) -> BoxFuture<'a, Result<Received, RemoteError>> {
        let answer = self.server.answer(request);
        let is_lost =
            self.lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        Box::pin(async move {
            if is_lost.is_ok() {
                std::future::pending::<()>().await;
            }
            Ok(Received { answer, bytes_sent: 1, bytes_received: 1 })
        })
    }
}

#[tokio::test]
async fn a_run_is_cut_by_a_suspension_and_what_it_sent_arrives_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("crm.book");
    let (book, server) = (book_at(&path), Server::new(&TestClock::starting()));
    let lossy = Arc::new(Lossy { server: server.clone(), lost: AtomicU32::new(1) });
    let (of_run, remote) = (book.clone(), Arc::clone(&lossy));
    let run = tokio::spawn(async move { of_run.sync(&*remote, &RunOptions::default()).await });
    while !matches!(book.status().state, SyncState::Syncing { .. })
        || server.version("lead/1").is_none()
    {
        sleep(Duration::from_millis(1)).await;
    }
    book.suspend().unwrap();
    assert_eq!(run.await.unwrap().unwrap().stopped, Stopped::Cancelled);
    assert_eq!((book.status().state, book.status().pending), (SyncState::Idle, 1));
    let away = book.sync(&*lossy, &RunOptions::default()).await.unwrap();
    assert_eq!((away.stopped, away.exchanges), (Stopped::Cancelled, 0));

    book.resume().unwrap();
    let report = book.sync(&*lossy, &RunOptions::default()).await.unwrap();
    assert_eq!((report.stopped, report.ops_acked), (Stopped::Idle, 1));
    assert_eq!(server.version("lead/1").unwrap().number(), 1, "it took effect once");
    assert_sound(&book);
}

#[tokio::test]
async fn background_sync_and_live_lists_wait_and_go_on_by_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("crm.book");
    let (book, server) = (book_at(&path), Server::new(&TestClock::starting()));
    let lossy = Lossy { server: server.clone(), lost: AtomicU32::new(1) };
    let worker = book.keep_syncing(Arc::new(lossy), WorkerOptions::default()).unwrap();
    let mut list = book.records().query(&lead(), "by").live().unwrap();
    drop(list.changed().await.unwrap().unwrap());
    let told = tokio::spawn(async move {
        loop {
            let change = list.changed().await.unwrap().unwrap();
            if change.items.len() == 2 {
                return change;
            }
        }
    });
    while server.version("lead/1").is_none() {
        sleep(Duration::from_millis(1)).await;
    }
    for _ in 0..3 {
        book.suspend().unwrap();
        let asked = server.requests.lock().unwrap().len();
        worker.wake();
        worker.retry_now();
        sleep(Duration::from_millis(50)).await;
        assert_eq!(server.requests.lock().unwrap().len(), asked, "no request leaves");
        assert!(!worker.is_finished());
        book.resume().unwrap();
    }
    book.suspend().unwrap();
    meanwhile(&path, |other| create(other, 2));
    sleep(Duration::from_millis(20)).await;
    assert!(!told.is_finished());
    book.resume().unwrap();
    assert_eq!(told.await.unwrap().inserted, [1]);
    while book.status().pending > 0 {
        sleep(Duration::from_millis(1)).await;
    }
    assert!(server.version("lead/2").is_some());
    worker.shutdown().await.unwrap();
    assert_sound(&book);
    book.close().unwrap();
}

/// Writers, readers and a sync go on while the book is suspended and resumed again and again.
#[test]
fn nothing_confirmed_is_lost_and_nothing_else_fails_while_it_comes_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("crm.book");
    let (book, server) = (book_at(&path), Server::new(&TestClock::starting()));
    let is_over = AtomicBool::new(false);
    let confirmed = std::thread::scope(|scope| {
        let writers: Vec<_> = (1..4)
            .map(|writer| {
                let (book, is_over) = (&book, &is_over);
                scope.spawn(move || {
                    let mut confirmed = Vec::new();
                    for number in 0.. {
                        if is_over.load(Ordering::SeqCst) {
                            break;
                        }
                        match try_create(book, writer * 100_000 + number) {
                            Ok(()) => confirmed.push(writer * 100_000 + number),
                            Err(Error::Suspended) => std::thread::yield_now(),
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                    confirmed
                })
            })
            .collect();
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                match book.records().query(&lead(), "by").limit(20).page() {
                    Ok(page) => assert!(!page.items.is_empty()),
                    Err(Error::Suspended) => {}
                    Err(error) => panic!("{error:?}"),
                }
                match book.queue().list() {
                    Ok(_) | Err(Error::Suspended) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                let stopped = sync(&book, &server).stopped;
                assert!(matches!(stopped, Stopped::Idle | Stopped::Cancelled), "{stopped:?}");
            }
        });
        for round in 0..40 {
            std::thread::sleep(Duration::from_millis(round % 7));
            book.suspend().unwrap();
            assert!(redb::Builder::new().open(&path).is_ok());
            book.resume().unwrap();
        }
        is_over.store(true, Ordering::SeqCst);
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(confirmed.iter().all(|number| view(&book, &format!("lead/{number}")).is_some()));
    assert_eq!(sync(&book, &server).stopped, Stopped::Idle);
    assert_eq!(book.status().pending, 0);
    assert!(confirmed.iter().all(|number| server.version(&format!("lead/{number}")).is_some()));
    assert_sound(&book);
    book.close().unwrap();
}
