use std::fs;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::{Arc, Mutex};

use fieldbook_core::log::{
    Appender, Store, StoreError, StoreOptions, commit, entries, entries_from, read_head, verify,
    verify_in_parts,
};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use super::samples;

fn options() -> StoreOptions {
    StoreOptions::default()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

/// Opens a file that has to be refused, and checks that it kept its bytes and gained no neighbour.
#[track_caller]
fn refused(path: &Path) -> StoreError {
    let (bytes, neighbours) = (fs::read(path).ok(), names(path.parent().unwrap()));
    let error = Store::open(path, &options()).expect_err("refused");
    assert!(fs::read(path).ok() == bytes, "the refused file was changed: {error}");
    assert_eq!(names(path.parent().unwrap()), neighbours);
    error
}

#[test]
fn a_created_book_is_empty_opens_again_and_keeps_what_is_committed() {
    let folder = folder();
    let path = folder.path().join("a.book");
    let store = Store::create(&path, &options()).unwrap();
    assert_eq!(names(folder.path()), ["a.book"], "no temporary file stays behind");
    assert_eq!(read_head(&entries(&store.begin_read().unwrap()).unwrap()).unwrap(), None);
    samples::append_all(&store, samples::example());
    store.close().unwrap();

    let store = Store::open(&path, &options()).unwrap();
    let verified = verify(&entries(&store.begin_read().unwrap()).unwrap(), |_| {}).unwrap();
    assert_eq!(verified.entries, 2);
}

#[test]
fn what_is_not_committed_is_gone() {
    let store = samples::memory_store();
    let transaction = store.begin_write().unwrap();
    let mut appender = Appender::open(&transaction, None).unwrap();
    appender.append(samples::intent(1), samples::stamp(1)).unwrap();
    drop(appender);
    drop(transaction);
    assert_eq!(read_head(&entries(&store.begin_read().unwrap()).unwrap()).unwrap(), None);
}

#[test]
fn creating_never_overwrites_whatever_stands_there() {
    let folder = folder();
    let book = folder.path().join("a.book");
    samples::append_all(&Store::create(&book, &options()).unwrap(), samples::example());
    let text = folder.path().join("notes.txt");
    fs::write(&text, "not a book").unwrap();
    let empty = folder.path().join("empty");
    fs::write(&empty, "").unwrap();
    let before = names(folder.path());
    for path in [&book, &text, &empty, &folder.path().to_owned()] {
        let bytes = fs::read(path).ok();
        let error = Store::create(path, &options()).unwrap_err();
        assert!(matches!(error, StoreError::AlreadyExists { .. }), "{error}");
        assert!(fs::read(path).ok() == bytes);
    }
    assert_eq!(names(folder.path()), before);
}

#[cfg(unix)]
#[test]
fn creating_does_not_follow_a_dangling_link() {
    let folder = folder();
    let link = folder.path().join("a.book");
    std::os::unix::fs::symlink(folder.path().join("nowhere"), &link).unwrap();
    let error = Store::create(&link, &options()).unwrap_err();
    assert!(matches!(error, StoreError::AlreadyExists { .. }), "{error}");
    assert_eq!(names(folder.path()), ["a.book"]);
}

#[test]
fn two_creators_of_one_path_make_one_book() {
    let folder = folder();
    let path = folder.path().join("a.book");
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| Store::create(&path, &options()).map(drop))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // One of them moves its file into place. Another that comes between its rename and its opening
    // may open the file first, but never replace it.
    let exists =
        |result: &Result<(), StoreError>| matches!(result, Err(StoreError::AlreadyExists { .. }));
    assert_eq!(results.iter().filter(|result| exists(result)).count(), 7, "{results:?}");
    assert_eq!(names(folder.path()), ["a.book"]);
    Store::open(&path, &options()).unwrap();
}

#[test]
fn a_second_opener_gets_already_open_and_the_first_goes_on() {
    let folder = folder();
    let path = folder.path().join("a.book");
    let store = Store::create(&path, &options()).unwrap();
    samples::append_all(&store, samples::example());
    let error = Store::open(&path, &options()).unwrap_err();
    assert!(matches!(error, StoreError::AlreadyOpen { .. }), "{error}");
    samples::append_all(&store, [samples::intent(3)]);
    drop(store);
    let store = Store::open(&path, &options()).unwrap();
    assert_eq!(verify(&entries(&store.begin_read().unwrap()).unwrap(), |_| {}).unwrap().entries, 3);
}

#[test]
fn a_missing_file_and_a_missing_folder_are_not_found_and_not_made() {
    let folder = folder();
    let error = refused(&folder.path().join("none.book"));
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
    let error = Store::create(&folder.path().join("none/a.book"), &options()).unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn an_empty_a_foreign_and_no_file_at_all_are_not_a_book() {
    let folder = folder();
    for (name, bytes) in [
        ("empty", Vec::new()),
        ("short", b"redb".to_vec()),
        ("text", b"a letter to the editor, long enough to hold a header".repeat(100)),
        ("zeros", vec![0; 8192]),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = refused(&path);
        assert!(matches!(error, StoreError::NotABook { .. }), "{name}: {error}");
    }
    let inner = folder.path().join("folder");
    fs::create_dir(&inner).unwrap();
    assert!(matches!(refused(&inner), StoreError::NotABook { .. }));
}

#[test]
fn another_programs_redb_file_is_not_a_book_and_a_newer_book_says_so() {
    const FOREIGN: redb::TableDefinition<'static, &str, u64> =
        redb::TableDefinition::new("settings");
    const NEWER: redb::TableDefinition<'static, u64, &[u8]> =
        redb::TableDefinition::new("entries-2");
    let folder = folder();
    let foreign = folder.path().join("foreign.redb");
    let database = redb::Database::create(&foreign).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(FOREIGN).unwrap().insert("n", 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(matches!(refused(&foreign), StoreError::NotABook { .. }));

    let newer = folder.path().join("newer.book");
    let database = redb::Database::create(&newer).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(NEWER).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(matches!(refused(&newer), StoreError::NewerFormat { found: 2 }));
}

/// The bytes of a book with some entries, closed well and as a crash leaves it.
fn book_bytes() -> [Vec<u8>; 2] {
    let folder = folder();
    let path = folder.path().join("a.book");
    let store = Store::create(&path, &options()).unwrap();
    for round in 0..4u64 {
        samples::append_all(&store, (0..40).map(|number| samples::intent(round * 40 + number)));
    }
    let crashed = fs::read(&path).unwrap();
    store.close().unwrap();
    [fs::read(&path).unwrap(), crashed]
}

#[test]
fn a_book_left_by_a_crash_opens_whole() {
    let folder = folder();
    let path = folder.path().join("a.book");
    let [_, crashed] = book_bytes();
    fs::write(&path, crashed).unwrap();
    let store = Store::open(&path, &options()).unwrap();
    assert_eq!(
        verify(&entries(&store.begin_read().unwrap()).unwrap(), |_| {}).unwrap().entries,
        160
    );
    store.close().unwrap();
    Store::open(&path, &options()).unwrap();
}

/// Opens a book that may be damaged: it opens with every entry, or it is refused with a typed error
/// and unchanged bytes.
#[track_caller]
fn opened_whole_or_refused(bytes: &[u8], what: &str) -> bool {
    let disk = SharedDisk::with(bytes);
    match Store::with_backend(disk.clone(), &options()) {
        Ok(store) => {
            let verified = verify(&entries(&store.begin_read().unwrap()).unwrap(), |_| {}).unwrap();
            assert_eq!(verified.entries, 160, "entries were lost: {what}");
            true
        }
        Err(error) => {
            assert!(disk.bytes() == bytes, "a refused book was changed: {what}: {error}");
            assert!(matches!(error, StoreError::Corrupt { .. }), "{what}: {error:?}");
            false
        }
    }
}

#[test]
fn a_truncated_book_is_refused_or_opens_with_every_entry() {
    let [closed, crashed] = book_bytes();
    for length in (512..closed.len()).step_by(512) {
        assert!(
            !opened_whole_or_refused(&closed[..length], "closed"),
            "opened when cut off at {length}"
        );
    }
    // After a crash redb takes the length from the file. Unused pages at the end are no loss.
    let lengths = (512..crashed.len()).step_by(512);
    let opened =
        lengths.filter(|length| opened_whole_or_refused(&crashed[..*length], "crashed")).count();
    assert!(opened < crashed.len() / 512 / 4, "{opened} opened");
}

#[test]
fn a_truncated_file_is_refused_and_keeps_its_bytes() {
    let folder = folder();
    let path = folder.path().join("a.book");
    let [closed, _] = book_bytes();
    for length in (0..8192).step_by(512).chain((8192..closed.len()).step_by(64 * 1024)) {
        fs::write(&path, &closed[..length]).unwrap();
        let error = refused(&path);
        let typed = matches!(error, StoreError::NotABook { .. } | StoreError::Corrupt { .. });
        assert!(typed, "cut off at {length}: {error:?}");
    }
}

#[test]
fn a_damaged_file_never_panics_through_opening_and_keeps_its_bytes_when_it_is_refused() {
    for bytes in book_bytes() {
        let mut refusals = 0;
        // The header with its two commit slots byte by byte, the pages in strides.
        for place in (0..320).chain((320..bytes.len()).step_by(4_093)) {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x5a;
            let disk = SharedDisk::with(&damaged);
            if let Err(error) = Store::with_backend(disk.clone(), &options()) {
                refusals += 1;
                assert!(disk.bytes() == damaged, "changed with byte {place} damaged: {error}");
                assert!(!matches!(error, StoreError::Disk { .. }), "byte {place}: {error:?}");
            }
        }
        assert!(refusals > 20, "{refusals} refusals");
    }
}

#[test]
fn a_book_with_damaged_pages_never_verifies_to_something_else() {
    let [closed, _] = book_bytes();
    let mut found = 0;
    for place in (320..closed.len()).step_by(251) {
        let mut damaged = closed.clone();
        damaged[place] ^= 0x5a;
        let Ok(store) = Store::with_backend(SharedDisk::with(&damaged), &options()) else {
            found += 1;
            continue;
        };
        // The damage may also be in unused space, or in pages that redb rebuilds.
        let snapshot = store.begin_read().unwrap();
        let Ok(table) = entries(&snapshot) else {
            found += 1;
            continue;
        };
        let verified = verify(&table, |_| {});
        let in_parts = verify_in_parts(&table, NonZeroU64::new(16).unwrap(), |_| {});
        assert_eq!(format!("{in_parts:?}"), format!("{verified:?}"), "byte {place}");
        match verified {
            Ok(verified) => assert_eq!(verified.entries, 160, "byte {place}"),
            Err(_) => found += 1,
        }
        drop(read_head(&table));
        let read = entries_from(&table, fieldbook_core::Seq::ZERO).filter(Result::is_ok).count();
        assert!(read <= 160);
    }
    assert!(found > 50, "{found} found");
}

#[test]
fn a_fresh_simulated_disk_is_made_a_book_and_opens_again() {
    let disk = SharedDisk::default();
    let store = Store::with_backend(disk.clone(), &options()).unwrap();
    samples::append_all(&store, samples::example());
    store.close().unwrap();
    let store = Store::with_backend(disk.clone(), &options()).unwrap();
    samples::append_all(&store, [samples::intent(3)]);
    drop(store);
    let store = Store::with_backend(disk, &options()).unwrap();
    assert_eq!(verify(&entries(&store.begin_read().unwrap()).unwrap(), |_| {}).unwrap().entries, 3);
}

#[test]
fn after_a_storage_error_every_write_is_refused_until_the_book_is_reopened() {
    let disk = SharedDisk::default();
    let store = Store::with_backend(disk.clone(), &options()).unwrap();
    samples::append_all(&store, samples::example());
    let transaction = store.begin_write().unwrap();
    let head = read_head(&entries(&store.begin_read().unwrap()).unwrap()).unwrap();
    let mut appender = Appender::open(&transaction, head).unwrap();
    appender.append(samples::intent(3), samples::stamp(3)).unwrap();
    drop(appender);
    disk.fail(true);
    assert!(matches!(commit(transaction), Err(StoreError::Disk { during: "committing", .. })));
    disk.fail(false);
    assert!(matches!(store.begin_write().map(drop), Err(StoreError::Poisoned)));
    drop(store);

    let store = Store::with_backend(disk, &options()).unwrap();
    let verified = verify(&entries(&store.begin_read().unwrap()).unwrap(), |_| {}).unwrap();
    assert!((2..=3).contains(&verified.entries));
    samples::append_all(&store, [samples::intent(9)]);
}

#[test]
fn a_disk_that_fails_while_opening_is_a_disk_error() {
    let disk = SharedDisk::default();
    drop(Store::with_backend(disk.clone(), &options()).unwrap());
    disk.fail(true);
    let error = Store::with_backend(disk, &options()).unwrap_err();
    assert!(matches!(error, StoreError::Disk { .. }), "{error}");
    assert!(std::error::Error::source(&error).is_some(), "the cause is kept");
}

#[test]
fn compacting_gives_space_back_and_is_refused_while_someone_reads() {
    let mut store = samples::memory_store();
    for round in 0..20u64 {
        samples::append_all(&store, (0..100).map(|number| samples::intent(round * 100 + number)));
    }
    let before = store.file_bytes().unwrap();
    assert!(before > 2_000 * 100);
    let snapshot = store.begin_read().unwrap();
    assert!(matches!(store.compact(), Err(StoreError::InUse { .. })));
    drop(snapshot);
    assert!(store.compact().unwrap());
    let after = store.file_bytes().unwrap();
    assert!(after < before && after > 2_000 * 100, "{before} {after}");
    assert_eq!(
        verify(&entries(&store.begin_read().unwrap()).unwrap(), |_| {}).unwrap().entries,
        2_000
    );
}

#[test]
fn errors_say_what_to_do_and_the_store_can_be_shared() {
    fn shared<T: Send + Sync>() {}
    shared::<Store>();
    shared::<StoreError>();
    let path = Path::new("x.book").to_owned();
    assert_eq!(
        StoreError::AlreadyOpen { path: path.clone(), holder: None }.to_string(),
        "x.book is open already: close it there first"
    );
    assert_eq!(
        StoreError::Corrupt {
            what: "an entry is missing",
            seq: Some(fieldbook_core::Seq::new(7)),
            source: None
        }
        .to_string(),
        "the book is damaged at entry 7: an entry is missing"
    );
    assert_eq!(StoreError::NotFound { path }.to_string(), "there is no x.book");
}

/// A disk in memory that lives longer than its store. A test can make it fail.
#[derive(Debug, Clone)]
struct SharedDisk {
    memory: Arc<InMemoryBackend>,
    failing: Arc<Mutex<bool>>,
}

impl Default for SharedDisk {
    fn default() -> Self {
        Self { memory: Arc::new(InMemoryBackend::new()), failing: Arc::default() }
    }
}

impl SharedDisk {
    fn with(bytes: &[u8]) -> Self {
        let disk = Self::default();
        disk.memory.set_len(bytes.len() as u64).unwrap();
        disk.memory.write(0, bytes).unwrap();
        disk
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.memory.len().unwrap()).unwrap()];
        self.memory.read(0, &mut bytes).unwrap();
        bytes
    }

    fn fail(&self, failing: bool) {
        *self.failing.lock().unwrap() = failing;
    }

    fn check(&self) -> std::io::Result<()> {
        if *self.failing.lock().unwrap() {
            Err(std::io::Error::other("the disk is gone"))
        } else {
            Ok(())
        }
    }
}

impl StorageBackend for SharedDisk {
    fn len(&self) -> std::io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.check()?;
        self.memory.read(offset, out)
    }

    fn set_len(&self, length: u64) -> std::io::Result<()> {
        self.check()?;
        self.memory.set_len(length)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.check()?;
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.check()?;
        self.memory.write(offset, bytes)
    }
}
