//! The costs that grow with a book and the costs that do not. The tests count reads, writes and
//! syncs of the disk, and measure no time.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Server, TestClock, book, fields, key, options, sync};
use fieldbook::{Book, Mutation, RecordKey, RunOptions};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use serde_json::json;

/// A disk in memory that counts its operations.
#[derive(Debug, Clone, Default)]
struct Disk {
    bytes: Arc<InMemoryBackend>,
    asked: Arc<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    reads: AtomicUsize,
    read_bytes: AtomicUsize,
    writes: AtomicUsize,
    syncs: AtomicUsize,
    /// The bytes that were written since the last sync, and the most between two syncs.
    since: AtomicUsize,
    most: AtomicUsize,
}

impl Disk {
    fn reads(&self) -> usize {
        self.asked.reads.load(Ordering::SeqCst)
    }

    fn read_bytes(&self) -> usize {
        self.asked.read_bytes.load(Ordering::SeqCst)
    }

    fn syncs(&self) -> usize {
        self.asked.syncs.load(Ordering::SeqCst)
    }

    /// Returns the most bytes that were written between two syncs since the last call.
    fn most_at_once(&self) -> usize {
        self.asked.most.swap(0, Ordering::SeqCst)
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.bytes.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.asked.reads.fetch_add(1, Ordering::SeqCst);
        self.asked.read_bytes.fetch_add(out.len(), Ordering::SeqCst);
        self.bytes.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.asked.syncs.fetch_add(1, Ordering::SeqCst);
        self.asked.since.store(0, Ordering::SeqCst);
        self.bytes.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.asked.writes.fetch_add(1, Ordering::SeqCst);
        let since = self.asked.since.fetch_add(data.len(), Ordering::SeqCst) + data.len();
        self.asked.most.fetch_max(since, Ordering::SeqCst);
        self.bytes.write(offset, data)
    }
}

/// Returns the key of a record. The keys are in the order of creation, like ids from
/// `Book::new_id`.
fn nth(number: usize) -> RecordKey {
    key(&format!("lead/{number:06}"))
}

/// Makes a book of this many records, each with its own entry.
fn book_of(records: usize) -> (Book, Disk) {
    let disk = Disk::default();
    let options = options("ann", &TestClock::starting()).cache_bytes(0);
    let book = Book::on_backend(disk.clone(), options).unwrap();
    let created: Vec<_> = (0..records)
        .map(|number| Mutation::create(nth(number), fields(json!({"n": number}))))
        .collect();
    created.chunks(5_000).for_each(|some| drop(book.import(some.to_vec()).unwrap()));
    (book, disk)
}

/// With a million records the call once took 0.7 seconds, and waited for writers.
#[test]
fn how_large_a_book_is_is_told_without_reading_it() {
    for records in [1_000, 10_000] {
        let (book, disk) = book_of(records);
        let before = (disk.reads(), disk.syncs());
        let told = book.audit().used_bytes().unwrap();
        assert_eq!((disk.reads(), disk.syncs()), before, "{records} records");
        assert_eq!(told, disk.len().unwrap());
    }
}

/// The first call once folded the whole history in one commit, and every writer waited.
#[test]
fn the_first_timeline_of_a_long_log_folds_its_history_in_parts() {
    let [few, many] = [10_000, 40_000].map(|records| {
        let (book, disk) = book_of(records);
        let syncs = disk.syncs();
        disk.most_at_once();
        assert_eq!(book.audit().timeline(&nth(7)).unwrap().len(), 1);
        let parts = disk.syncs() - syncs;
        assert!(parts >= records.div_ceil(4_096), "{parts} syncs for {records} entries");
        assert_eq!(book.audit().timeline(&nth(records - 1)).unwrap().len(), 1);
        assert_eq!(disk.syncs() - syncs, parts, "it is folded");
        disk.most_at_once()
    });
    assert!(many * 10 <= few * 15, "{few} bytes at once, {many} at four times the size");
}

/// The call once read, hashed and copied the other 4,999 records of the page.
#[test]
fn the_timeline_of_a_record_that_came_in_a_large_page_reads_a_part_of_it() {
    let [few, many] = [500, 5_000].map(|records| {
        let clock = TestClock::starting();
        let (server, ann) = (Server::new(&clock), book("ann", &clock));
        let created = (0..records).map(|number| {
            Mutation::create(key(&format!("lead/{number:04}")), fields(json!({"n": number})))
        });
        ann.import(created.collect()).unwrap();
        sync(&ann, &server);
        let disk = Disk::default();
        let ben = Book::on_backend(disk.clone(), options("ben", &clock).cache_bytes(0)).unwrap();
        let all = RunOptions { page_limit: 10_000, ..RunOptions::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let report = runtime.block_on(ben.sync(&server.remote(), &all)).unwrap();
        assert_eq!((report.changes, report.exchanges), (records, 1));
        ben.audit().fold_lazy().unwrap();
        let before = disk.read_bytes();
        let timeline = ben.audit().timeline(&key("lead/0300")).unwrap();
        assert_eq!(timeline.len(), 1);
        disk.read_bytes() - before
    });
    assert!(many * 10 <= few * 15, "{few} bytes read, {many} of a page of ten times the size");
}
