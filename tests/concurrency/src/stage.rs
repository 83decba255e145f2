//! A book on a simulated disk, and the threads that write to it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use fieldbook::audit::Seq;
use fieldbook::audit::entry::Meta;
use fieldbook::host::{Clock, MonotonicTime, Now, SeededRandomness, WallTime};
use fieldbook::record::OpId;
use fieldbook::schema::IndexRule;
use fieldbook::{
    Book, BookOptions, EntityRules, Error, Fields, Mutation, RecordKey, Schema, Written,
};
use serde_json::json;
use shuttle::thread;

use crate::disk::{Change, Loss, SimDisk};

/// A clock that stands still and counts the rounds: the writer reads it once in each round.
#[derive(Default)]
pub(crate) struct RoundClock(AtomicUsize);

impl RoundClock {
    pub(crate) fn rounds(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Clock for RoundClock {
    fn now(&self) -> Now {
        self.0.fetch_add(1, Ordering::Relaxed);
        // A round has begun, and other callers arrive during it.
        thread::yield_now();
        Now {
            wall: WallTime::from_milliseconds(1_700_000_000_000),
            monotonic: MonotonicTime::from_milliseconds(0),
        }
    }
}

/// A book, its disk and its clock.
pub(crate) struct Stage {
    pub(crate) book: Book,
    pub(crate) disk: SimDisk,
    pub(crate) clock: Arc<RoundClock>,
}

/// The bytes of the disk of a new book. Making a book takes ten times as long as opening it.
static NEW: OnceLock<Vec<u8>> = OnceLock::new();
/// Those of a new book in which nothing waits, for scenarios that send.
static BARE: OnceLock<Vec<u8>> = OnceLock::new();

impl Stage {
    /// Makes the book with which every scenario begins, in its own schedule, so that it is no part
    /// of the other schedules.
    pub(crate) fn prepare() {
        NEW.get_or_init(|| {
            let stage = Self::on(SimDisk::empty());
            // The file grows here and not in the schedules, in which each sync must be that of a
            // commit.
            let filler = Fields::from_value(json!({ "filler": "-".repeat(400) })).unwrap();
            let keys: Vec<_> = (0..500)
                .map(|number| RecordKey::parse("filler", &number.to_string()).unwrap())
                .collect();
            let created = keys.iter().map(|key| Mutation::create(key.clone(), filler.clone()));
            stage.book.transaction(created.collect()).unwrap();
            // The pages of deleted records are free for the schedules.
            stage.book.transaction(keys.into_iter().map(Mutation::delete).collect()).unwrap();
            stage.into_bytes()
        });
        BARE.get_or_init(|| Self::on(SimDisk::empty()).into_bytes());
    }

    fn into_bytes(self) -> Vec<u8> {
        self.book.close().unwrap();
        self.disk.platter().image(Loss::Everything)
    }

    /// Returns the disk of a new book in which nothing waits.
    pub(crate) fn bare() -> SimDisk {
        SimDisk::holding(BARE.get().unwrap().clone())
    }

    /// Opens a new book.
    pub(crate) fn new() -> Self {
        Self::on(SimDisk::holding(NEW.get().unwrap().clone()))
    }

    /// Opens a new book with a list of leads, by the number of their write and then by thread.
    pub(crate) fn listing() -> Self {
        let disk = SimDisk::holding(NEW.get().unwrap().clone());
        Self::with(disk, |options| options.schema(listed()))
    }

    /// Opens the book that a disk holds, or makes one.
    pub(crate) fn on(disk: SimDisk) -> Self {
        Self::with(disk, |options| options)
    }

    fn with(disk: SimDisk, declare: impl FnOnce(BookOptions) -> BookOptions) -> Self {
        let clock = Arc::new(RoundClock::default());
        let book = Book::on_backend(disk.clone(), declare(options(clock.clone(), 7))).unwrap();
        Self { book, disk, clock }
    }

    /// Returns how often the disk was synced since it began to record.
    pub(crate) fn syncs(&self) -> usize {
        self.disk.recording().iter().filter(|change| matches!(change, Change::Sync)).count()
    }
}

/// Returns the options of a book whose ids begin with this seed.
pub(crate) fn options(clock: Arc<RoundClock>, seed: u64) -> BookOptions {
    let options = BookOptions::new("ann").unwrap().clock(clock).cache_bytes(1 << 20);
    options.randomness(Box::new(SeededRandomness::from_number(seed)))
}

/// Returns a schema with a list of leads, by the number of their write and then by thread.
pub(crate) fn listed() -> Schema {
    let order = IndexRule::new("order").asc("index").asc("thread");
    Schema::open(EntityRules { indexes: vec![order], ..EntityRules::default() })
}

/// The order of events: each look returns a later number. It is not a lock, so it is no step of a
/// schedule.
#[derive(Default)]
pub(crate) struct Order(AtomicU64);

impl Order {
    pub(crate) fn look(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// A write and its result.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) key: RecordKey,
    pub(crate) began: u64,
    pub(crate) ended: u64,
    pub(crate) result: Result<Written, Error>,
}

/// Threads that create records. Joining them returns the result of each write.
pub(crate) struct Writers(Vec<thread::JoinHandle<Vec<Attempt>>>);

impl Writers {
    pub(crate) fn start(book: &Book, order: &Arc<Order>, threads: u64, each: u64) -> Self {
        let start = |number| {
            let (book, order) = (book.clone(), Arc::clone(order));
            thread::spawn(move || {
                (0..each).map(|index| create(&book, &order, number, index)).collect()
            })
        };
        Self((0..threads).map(start).collect())
    }

    pub(crate) fn join(self) -> Vec<Attempt> {
        self.0.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    }
}

pub(crate) fn create(book: &Book, order: &Order, number: u64, index: u64) -> Attempt {
    let key = key(number, index);
    let fields = Fields::from_value(json!({ "thread": number, "index": index })).unwrap();
    let began = order.look();
    let result = book.records().create(key.clone(), fields);
    let ended = order.look();
    if result.is_ok() {
        let read = book.records().get(&key);
        assert!(matches!(read, Ok(Some(_)) | Err(Error::Suspended)), "{key} is read at once");
    }
    Attempt { key, began, ended, result }
}

pub(crate) fn key(thread: u64, index: u64) -> RecordKey {
    RecordKey::parse("lead", &format!("{thread}-{index}")).unwrap()
}

/// Returns the ops that writers made, in the order of the log.
pub(crate) fn logged(book: &Book) -> Vec<(Seq, OpId, RecordKey)> {
    let entries = book.audit().entries(Seq::new(1), usize::MAX).unwrap();
    let mut ops = Vec::new();
    for entry in entries {
        if let Meta::Intent(intent) = &entry.meta {
            let ops_of_writers = intent.ops.iter().filter(|op| op.key.entity.as_str() == "lead");
            ops.extend(ops_of_writers.map(|op| (entry.header.seq, op.id, op.key.clone())));
        }
    }
    ops
}

/// Checks that each confirmed write is in the log once, at the returned place, and that a write
/// that returned before another began is before it in the log.
pub(crate) fn check_confirmed(book: &Book, attempts: &[Attempt]) {
    let log = logged(book);
    let mut confirmed = Vec::new();
    for attempt in attempts {
        let Ok(written) = &attempt.result else { continue };
        let Written::Op { id, place } = written else { panic!("{attempt:?}") };
        let found: Vec<_> = log.iter().filter(|(_, _, key)| *key == attempt.key).collect();
        assert_eq!(found, [&(place.seq, *id, attempt.key.clone())], "once, where it was told");
        confirmed.push((attempt, place.seq));
    }
    for (earlier, place) in &confirmed {
        for (later, later_place) in &confirmed {
            assert!(
                earlier.ended > later.began || place < later_place,
                "{earlier:?} before {later:?}"
            );
        }
    }
    assert!(book.audit().verify(|_| {}).unwrap().is_sound());
}
