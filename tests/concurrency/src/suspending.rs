//! A book that is suspended and resumed amid writers, a reader, a live list, a watcher and a run,
//! and that another program writes to meanwhile.
//!
//! ```text
//!   suspends  ── suspend ── nobody has the file ── another program writes ── resume ── again
//!   writers   create: confirmed, or refused as suspended and not written
//!   reader    a beginning of the log, or suspended
//!   run       sends what waits, as exchanges by hand
//!   list, watcher   wait meanwhile, and have the last state in the end
//! ```

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use fieldbook::host::WallTime;
use fieldbook::sync::protocol::{ExchangeAnswer, ExchangeRequest};
use fieldbook::sync::{ExchangeParams, NextStep, ServerEpoch, ServerId};
use fieldbook::{Book, EntityType, Error, RecordKey};
use fieldbook_core::authority::{Caller, MemoryAuthority, Quota, exchange};
use redb::StorageBackend;
use shuttle::future::block_on;
use shuttle::thread;

use crate::disk::{Loss, SimDisk};
use crate::explore::explore;
use crate::stage::{
    Attempt, Order, RoundClock, Stage, Writers, check_confirmed, create, key, listed, logged,
    options,
};

const WRITERS: u64 = 2;
const EACH: u64 = 2;
const SUSPENSIONS: u64 = 2;
/// The thread number of the other program.
const OTHER: u64 = 8;
/// The thread number of the last write, which the other program makes after everything else. Its row
/// is the last of the list.
const LAST: u64 = 9;
const ASK: ExchangeParams = ExchangeParams {
    first: false,
    push: true,
    pull: true,
    batch_ops: 500,
    batch_bytes: 1 << 20,
    page_limit: 500,
};

/// A file with a lock: one program has it open at a time.
#[derive(Clone)]
struct File {
    disk: SimDisk,
    is_held: Arc<AtomicBool>,
}

/// A file that is open. It holds the lock until it is closed.
struct OpenFile {
    file: File,
    is_open: AtomicBool,
}

impl File {
    fn open(&self) -> OpenFile {
        assert!(!self.is_held.swap(true, Ordering::SeqCst), "two have the file open");
        OpenFile { file: self.clone(), is_open: AtomicBool::new(true) }
    }

    fn is_held(&self) -> bool {
        self.is_held.load(Ordering::SeqCst)
    }

    fn book(&self, seed: u64) -> Book {
        let file = self.clone();
        let options = options(Arc::new(RoundClock::default()), seed).schema(listed());
        Book::on_storage(move || file.open(), options).unwrap()
    }
}

impl OpenFile {
    fn disk(&self) -> &SimDisk {
        assert!(self.is_open.load(Ordering::SeqCst), "a closed file is used");
        &self.file.disk
    }
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpenFile")
    }
}

impl StorageBackend for OpenFile {
    fn len(&self) -> io::Result<u64> {
        self.disk().len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk().read(offset, out)
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.disk().set_len(length)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.disk().sync_data()
    }
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk().write(offset, bytes)
    }
    fn close(&self) -> io::Result<()> {
        self.is_open.store(false, Ordering::SeqCst);
        self.file.is_held.store(false, Ordering::SeqCst);
        Ok(())
    }
}

/// Suspends the book, lets another program write, and resumes the book. Returns the write.
fn suspended_once(book: &Book, file: &File, order: &Order, thread: u64, index: u64) -> Attempt {
    book.suspend().unwrap();
    assert!(book.is_suspended() && !file.is_held(), "nobody has the file");
    let refused = create(book, order, OTHER, LAST);
    assert!(matches!(refused.result, Err(Error::Suspended)), "{refused:?}");
    assert!(matches!(book.records().get(&refused.key), Err(Error::Suspended)));
    thread::yield_now();
    let other = file.book(100 + index);
    let written = create(&other, order, thread, index);
    assert!(written.result.is_ok(), "{written:?}");
    other.close().unwrap();
    assert!(!file.is_held());
    book.resume().unwrap();
    written
}

/// Suspends and resumes the book. Returns the writes of the other program.
fn suspender(book: &Book, file: &File, order: &Arc<Order>) -> thread::JoinHandle<Vec<Attempt>> {
    let (book, file, order) = (book.clone(), file.clone(), Arc::clone(order));
    thread::spawn(move || {
        let once = |index| suspended_once(&book, &file, &order, OTHER, index);
        (0..SUSPENSIONS).map(once).collect()
    })
}

/// Reads the log again and again, and returns what it read.
fn reader(book: &Book) -> thread::JoinHandle<Vec<BTreeSet<RecordKey>>> {
    let book = book.clone();
    thread::spawn(move || {
        let lead = EntityType::parse("lead").unwrap();
        let mut all = Vec::new();
        for _ in 0..4 {
            match book.records().list(&lead, None, usize::MAX) {
                Ok(page) => all.push(page.iter().map(|record| record.key()).collect()),
                Err(Error::Suspended) => thread::yield_now(),
                Err(error) => panic!("{error:?}"),
            }
        }
        all
    })
}

/// Follows a list until it has the last row, and returns its rows then. If it missed a change, it
/// would wait for ever.
fn follower(book: &Book) -> thread::JoinHandle<BTreeSet<RecordKey>> {
    let lead = EntityType::parse("lead").unwrap();
    let mut live = book.records().query(&lead, "order").live().unwrap();
    thread::spawn(move || {
        loop {
            let change = block_on(live.changed()).unwrap().expect("the book is open");
            let keys: Vec<_> = change
                .items
                .iter()
                .map(|row| RecordKey::parse("lead", row.id.as_str()).unwrap())
                .collect();
            if keys.last() == Some(&key(LAST, LAST)) {
                return keys.into_iter().collect();
            }
        }
    })
}

/// Receives the changed records until it has received the last one.
fn watcher(book: &Book) -> thread::JoinHandle<BTreeSet<RecordKey>> {
    let mut changes = book.watch();
    thread::spawn(move || {
        let mut told = BTreeSet::new();
        while !told.contains(&key(LAST, LAST)) {
            told.extend(block_on(changes.recv()).unwrap().iter().cloned());
        }
        told
    })
}

/// A server in memory.
#[derive(Clone)]
struct Server(Arc<Mutex<MemoryAuthority>>);

impl Server {
    fn new() -> Self {
        let (server, epoch) = (ServerId::from_bytes([7; 16]), ServerEpoch::from_bytes([8; 16]));
        Self(Arc::new(Mutex::new(MemoryAuthority::new(server, epoch))))
    }

    fn answer(&self, request: &ExchangeRequest) -> ExchangeAnswer {
        let mut authority = self.0.lock().unwrap();
        let now = WallTime::from_milliseconds(1_700_000_000_000);
        exchange(&mut *authority, request, now, &Caller::Anyone, &Quota::default()).unwrap()
    }

    /// Makes one exchange. Returns whether there may be more to do.
    fn exchange(&self, book: &Book) -> Result<bool, Error> {
        match book.exchange().prepare(&ASK)? {
            NextStep::Exchange(request) => {
                let (is_push, answer) = (!request.units.is_empty(), self.answer(&request));
                Ok(book.exchange().apply_answer(&request, answer)?.more || is_push)
            }
            NextStep::Idle { .. } => Ok(false),
        }
    }

    /// Returns the records that it has.
    fn has(&self) -> BTreeSet<RecordKey> {
        let authority = self.0.lock().unwrap();
        authority.records().map(|(key, _)| key.clone()).collect()
    }
}

fn run(book: &Book, server: &Server) -> thread::JoinHandle<()> {
    let (book, server) = (book.clone(), server.clone());
    thread::spawn(move || {
        for _ in 0..3 {
            match server.exchange(&book) {
                Ok(_) => {}
                Err(Error::Suspended) => thread::yield_now(),
                Err(error) => panic!("{error:?}"),
            }
        }
    })
}

fn it_comes_and_goes() {
    let file = File { disk: Stage::bare(), is_held: Arc::default() };
    let (book, server, order) = (file.book(7), Server::new(), Arc::new(Order::default()));
    let (follower, watcher) = (follower(&book), watcher(&book));
    let (reader, run) = (reader(&book), run(&book, &server));
    let suspender = suspender(&book, &file, &order);
    let mut attempts = Writers::start(&book, &order, WRITERS, EACH).join();
    attempts.extend(suspender.join().unwrap());
    run.join().unwrap();
    // Nothing is written after the last resume, so the resume itself has to tell of it.
    attempts.push(suspended_once(&book, &file, &order, LAST, LAST));
    for attempt in &attempts {
        assert!(matches!(attempt.result, Ok(_) | Err(Error::Suspended)), "{attempt:?}");
    }
    check_confirmed(&book, &attempts);
    let log = logged(&book);
    let confirmed: BTreeSet<_> = attempts
        .iter()
        .filter(|attempt| attempt.result.is_ok())
        .map(|attempt| attempt.key.clone())
        .collect();
    assert_eq!(log.len(), confirmed.len(), "what was refused is not written");
    assert_eq!(follower.join().unwrap(), confirmed, "the list has the last state");
    assert_eq!(watcher.join().unwrap(), confirmed, "the watcher was told all");
    for seen in reader.join().unwrap() {
        let begins: BTreeSet<_> = log[..seen.len()].iter().map(|(_, _, key)| key.clone()).collect();
        assert_eq!(seen, begins, "a beginning of the log");
    }
    while server.exchange(&book).unwrap() {}
    let status = book.status();
    assert_eq!((status.pending, status.dead_letters), (0, 0), "nothing arrived twice");
    assert_eq!(server.has(), confirmed, "it arrived");
    book.close().unwrap();
    assert!(!file.is_held());
    let reopened = Stage::on(SimDisk::holding(file.disk.platter().image(Loss::Everything)));
    check_confirmed(&reopened.book, &attempts);
}

#[test]
fn what_is_confirmed_while_the_book_comes_and_goes_is_there_once_and_nobody_waits_for_ever() {
    explore("suspensions", it_comes_and_goes);
}
