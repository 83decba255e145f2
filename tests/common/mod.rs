//! Helpers of the tests of whole books: a server within the process, a clock that stands still, and
//! short forms.
#![allow(
    dead_code,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "each test binary uses its own part; a test that cannot go on panics"
)]

pub(crate) mod comparing;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use fieldbook::host::{Clock, MonotonicTime, Now, SeededRandomness, WallTime};
use fieldbook::sync::protocol::{
    ExchangeAnswer, ExchangeRequest, Failure, Outcome, Unit, UnitOutcome,
};
use fieldbook::sync::{FnRemote, ServerEpoch, ServerId};
use fieldbook::{Book, BookOptions, Fields, RecordKey, Remote, RunOptions, SyncReport};
use fieldbook_core::Version;
use fieldbook_core::authority::{Caller, ExchangeError, MemoryAuthority, Quota, exchange};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use serde_json::Value;

/// A clock that advances only by calls.
#[derive(Debug, Default)]
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn starting() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(1_700_000_000_000)))
    }

    pub(crate) fn advance(&self, milliseconds: i64) {
        self.0.fetch_add(milliseconds, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Now {
        let milliseconds = self.0.load(Ordering::SeqCst);
        Now {
            wall: WallTime::from_milliseconds(milliseconds),
            monotonic: MonotonicTime::from_milliseconds(milliseconds.unsigned_abs()),
        }
    }
}

/// A server: the rules over a store in memory.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) authority: Arc<Mutex<MemoryAuthority>>,
    pub(crate) requests: Arc<Mutex<Vec<ExchangeRequest>>>,
    clock: Arc<TestClock>,
}

impl Server {
    pub(crate) fn new(clock: &Arc<TestClock>) -> Self {
        let authority =
            MemoryAuthority::new(ServerId::from_bytes([7; 16]), ServerEpoch::from_bytes([8; 16]));
        Self {
            authority: Arc::new(Mutex::new(authority)),
            requests: Arc::default(),
            clock: Arc::clone(clock),
        }
    }

    /// Sets the server back to a backup, and starts a new epoch.
    pub(crate) fn restore(&self, backup: &MemoryAuthority, epoch: u8) {
        let mut authority = self.authority.lock().unwrap();
        authority.clone_from(backup);
        authority.start_epoch(ServerEpoch::from_bytes([epoch; 16]));
    }

    pub(crate) fn answer(&self, request: &ExchangeRequest) -> ExchangeAnswer {
        self.try_answer(request).unwrap()
    }

    pub(crate) fn try_answer(&self, request: &ExchangeRequest) -> Result<ExchangeAnswer, Failure> {
        self.requests.lock().unwrap().push(request.clone());
        let mut authority = self.authority.lock().unwrap();
        let now = self.clock.now().wall;
        exchange(&mut *authority, request, now, &Caller::Anyone, &Quota::default()).map_err(
            |error| match error {
                ExchangeError::Refused(refusal) => refusal.into(),
                other => panic!("a server in memory does not fail: {other}"),
            },
        )
    }

    pub(crate) fn remote(&self) -> impl Remote + use<> {
        let server = self.clone();
        FnRemote::new(move |request: &ExchangeRequest| Ok(server.try_answer(request)?))
    }

    /// Returns a remote whose server refuses every unit for good.
    pub(crate) fn refusing(
        &self,
        code: &'static str,
        message: &'static str,
    ) -> impl Remote + use<> {
        self.refusing_where(|_| true, code, message)
    }

    /// Returns a remote whose server refuses these units for good.
    pub(crate) fn refusing_where<F: Fn(&Unit) -> bool + Send + Sync>(
        &self,
        is_bad: F,
        code: &'static str,
        message: &'static str,
    ) -> impl Remote + use<F> {
        let server = self.clone();
        FnRemote::new(move |request: &ExchangeRequest| {
            let mut rest = request.clone();
            let (bad, good): (Vec<_>, Vec<_>) = rest.units.into_iter().partition(&is_bad);
            rest.units = good;
            let mut answer = server.try_answer(&rest)?;
            let outcome =
                || Outcome::Rejected { code: code.to_owned(), message: message.to_owned() };
            let refused = bad.iter().map(|unit| UnitOutcome { unit: unit.id, outcome: outcome() });
            answer.outcomes.extend(refused);
            Ok(answer)
        })
    }

    /// Returns the version of a record of the server.
    pub(crate) fn version(&self, key: &str) -> Option<Version> {
        let key: RecordKey = key.parse().unwrap();
        let authority = self.authority.lock().unwrap();
        authority.records().find(|(found, _)| **found == key).map(|(_, row)| row.version)
    }

    /// Returns a record of the server.
    pub(crate) fn record(&self, key: &str) -> Option<Value> {
        let key: RecordKey = key.parse().unwrap();
        let authority = self.authority.lock().unwrap();
        let (_, row) = authority.records().find(|(found, _)| **found == key)?;
        row.fields.as_ref().map(|fields| serde_json::from_str(fields.as_str()).unwrap())
    }
}

/// A disk in memory that counts writes. While it `fails`, it reads `reads_left` times, and no more.
#[derive(Debug, Clone, Default)]
pub(crate) struct FailingDisk {
    bytes: Arc<InMemoryBackend>,
    pub(crate) fails: Arc<AtomicBool>,
    pub(crate) reads_left: Arc<AtomicU64>,
    pub(crate) writes: Arc<AtomicU64>,
}

impl StorageBackend for FailingDisk {
    fn len(&self) -> io::Result<u64> {
        self.bytes.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.fails.load(Ordering::SeqCst) {
            let less = |left: u64| left.checked_sub(1);
            let left = self.reads_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
            left.map_err(|_| io::Error::other("planned by the test"))?;
        }
        self.bytes.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.bytes.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.bytes.write(offset, data)
    }
}

/// Makes a book on a disk in memory.
pub(crate) fn book(name: &str, clock: &Arc<TestClock>) -> Book {
    Book::on_backend(InMemoryBackend::new(), options(name, clock)).unwrap()
}

pub(crate) fn options(name: &str, clock: &Arc<TestClock>) -> BookOptions {
    let seed =
        name.bytes().fold(1u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    BookOptions::new(name)
        .unwrap()
        .clock(Arc::clone(clock) as Arc<dyn Clock>)
        .randomness(Box::new(SeededRandomness::from_number(seed)))
}

pub(crate) fn sync(book: &Book, server: &Server) -> SyncReport {
    sync_with(book, &server.remote())
}

pub(crate) fn sync_with(book: &Book, remote: &dyn Remote) -> SyncReport {
    sync_by(book, remote, &RunOptions::default())
}

pub(crate) fn sync_by(book: &Book, remote: &dyn Remote, options: &RunOptions) -> SyncReport {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(book.sync(remote, options)).unwrap()
}

pub(crate) fn key(text: &str) -> RecordKey {
    text.parse().unwrap()
}

pub(crate) fn fields(value: Value) -> Fields {
    Fields::from_value(value).unwrap()
}

/// Returns the record that the app reads.
pub(crate) fn view(book: &Book, record: &str) -> Option<Value> {
    let record = book.records().get(&key(record)).unwrap()?;
    Some(serde_json::from_str(record.json.as_str()).unwrap())
}

/// Asserts that the tables are the fold of the log, and that the log verifies.
#[track_caller]
pub(crate) fn assert_sound(book: &Book) {
    assert_eq!(
        book.audit().check_tables().unwrap().differing,
        [""; 0],
        "the tables differ from a fold of the log"
    );
    book.audit().verify(|_| {}).unwrap().into_result().unwrap();
}
