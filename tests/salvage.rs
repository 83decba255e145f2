//! Salvage of a damaged book: what can still be found is in a new book, and nothing of it is sent
//! by itself.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on panics")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Server, TestClock, assert_sound, fields, key, options, sync};
use fieldbook::audit::{Salvage, Seq, salvage_book};
use fieldbook::{Book, Error, SyncState};
use serde_json::json;
use tempfile::TempDir;

/// A damaged book, and its server.
struct Damaged {
    folder: TempDir,
    clock: Arc<TestClock>,
    server: Server,
    /// The seq and the stored bytes of each entry.
    entries: Vec<(u64, Vec<u8>)>,
}

impl Damaged {
    /// A book with synced leads, and after them leads that no server has seen.
    fn new(synced: usize, unsent: usize) -> Self {
        let (folder, clock) = (TempDir::new().unwrap(), TestClock::starting());
        let server = Server::new(&clock);
        let book =
            Book::create_new(folder.path().join("ann.book"), options("ann", &clock)).unwrap();
        for number in 0..synced {
            create(&book, number);
            clock.advance(1_000);
        }
        sync(&book, &server);
        for number in synced..synced + unsent {
            create(&book, number);
            clock.advance(1_000);
        }
        let mut log = Vec::new();
        book.audit().export(&mut log).unwrap();
        book.close().unwrap();
        let mut rest = log.strip_prefix(b"fieldbook-log 2\n".as_slice()).unwrap();
        let (mut entries, mut is_cover) = (Vec::new(), true);
        while let Some((length, after)) = rest.split_first_chunk() {
            let (block, after) = after.split_at(u32::from_le_bytes(*length) as usize);
            // The cover, the entries, the end.
            if let (false, Some((1, entry))) = (is_cover, block.split_first()) {
                entries.push((entries.len() as u64 + 1, entry.to_vec()));
            }
            (rest, is_cover) = (after, false);
        }
        Self { folder, clock, server, entries }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("ann.book")
    }

    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path()).unwrap();
        change(&mut bytes);
        fs::write(self.path(), bytes).unwrap();
    }

    /// Overwrites every copy of an entry.
    fn destroy(&self, seq: u64) {
        let (_, entry) = &self.entries[usize::try_from(seq).unwrap() - 1];
        self.change(|bytes| {
            let mut at = 0;
            while let Some(found) = find(&bytes[at..], entry) {
                bytes[at + found..][..entry.len()].fill(0xab);
                at += found;
            }
        });
    }

    /// The entries of which every byte is in the file.
    fn whole(&self) -> Vec<u64> {
        let bytes = fs::read(self.path()).unwrap();
        let whole = self.entries.iter().filter(|(_, entry)| find(&bytes, entry).is_some());
        whole.map(|(seq, _)| *seq).collect()
    }

    fn salvage(&self) -> (Salvage, Book) {
        let (before, new) = (fs::read(self.path()).unwrap(), self.folder.path().join("new.book"));
        let salvage =
            salvage_book(self.path(), &new, options("ann", &self.clock), |_, _| {}).unwrap();
        assert!(fs::read(self.path()).unwrap() == before, "the damaged file is only read");
        let book = Book::open(&new, options("ann", &self.clock)).unwrap();
        assert_sound(&book);
        (salvage, book)
    }

    /// Syncs until nothing moves any more.
    fn sync(&self, book: &Book) {
        for _ in 0..4 {
            sync(book, &self.server);
            self.clock.advance(3 * 3_600_000);
        }
    }
}

fn create(book: &Book, number: usize) {
    let name = format!("the lead with number {number}");
    book.records().create(key(&format!("lead/{number}")), fields(json!({ "name": name }))).unwrap();
}

fn find(bytes: &[u8], sought: &[u8]) -> Option<usize> {
    bytes.windows(sought.len()).position(|window| window == sought)
}

fn found(salvage: &Salvage) -> Vec<u64> {
    let islands = salvage.islands.iter().flat_map(|(first, last)| first.number()..=last.number());
    (1..=salvage.linked).chain(islands).collect()
}

#[test]
fn a_whole_file_is_found_whole_and_its_pending_ops_wait_for_a_person() {
    let damaged = Damaged::new(3, 4);
    let (salvage, book) = damaged.salvage();
    assert_eq!((salvage.linked, salvage.same_device), (damaged.entries.len() as u64, true));
    assert_eq!((salvage.islands.len(), salvage.missing.len()), (0, 0));
    assert_eq!((salvage.waiting.len(), book.status().pending), (4, 4));
    damaged.sync(&book);
    assert_eq!(damaged.server.record("lead/5"), None, "nothing is sent by itself");
    assert!(matches!(book.status().state, SyncState::NeedsAttention { parked: 4, .. }));
    let said = book.explain(&key("lead/5")).unwrap().to_string();
    assert!(said.contains("recovered from a damaged file"), "{said}");

    let ops =
        book.queue().list().unwrap().into_iter().map(|queued| queued.op.op).collect::<Vec<_>>();
    book.dead_letters().retry(ops).unwrap();
    damaged.sync(&book);
    assert_eq!(damaged.server.record("lead/5"), Some(json!({"name": "the lead with number 5"})));
    assert_eq!(book.status().pending, 0);
}

#[test]
fn ops_behind_a_destroyed_entry_are_found_and_none_that_the_server_has_is_offered() {
    let damaged = Damaged::new(3, 6);
    let gap = damaged.entries.len() as u64 - 3;
    damaged.destroy(gap);
    let (salvage, book) = damaged.salvage();
    assert_eq!(salvage.missing, [(Seq::new(gap), Seq::new(gap))]);
    assert_eq!(found(&salvage), damaged.whole());
    assert_eq!(salvage.waiting.len(), 5, "six leads were unsent, and one is lost");
    assert!(salvage.waiting.contains_key(&key("lead/8")) && salvage.same_device);
    let lead = book.records().get(&key("lead/8")).unwrap().unwrap();
    assert_eq!(lead.json.as_str(), r#"{"name":"the lead with number 8"}"#);
}

#[test]
fn an_entry_whose_bytes_were_altered_is_left_out() {
    let damaged = Damaged::new(0, 5);
    damaged.change(|bytes| {
        let name = b"the lead with number 2";
        while let Some(at) = find(bytes, name) {
            bytes[at] = b'T';
        }
    });
    let (salvage, _) = damaged.salvage();
    assert_eq!(salvage.missing, [(Seq::new(5), Seq::new(5))]);
    assert_eq!(salvage.waiting.len(), 4);
    assert!(!salvage.waiting.contains_key(&key("lead/2")));
}

#[test]
fn without_the_devices_key_it_is_a_new_device_and_confirmed_records_come_from_the_server() {
    let damaged = Damaged::new(5, 3);
    // The engine reads nothing without the first page.
    damaged.change(|bytes| bytes[..4096].fill(0));
    let (salvage, book) = damaged.salvage();
    assert!(!salvage.same_device);
    assert_eq!(found(&salvage), damaged.whole());
    let waiting: Vec<_> = salvage.waiting.keys().map(ToString::to_string).collect();
    assert_eq!(waiting, ["lead/5", "lead/6", "lead/7"], "the server has the others");
    damaged.sync(&book);
    assert!(book.records().get(&key("lead/4")).unwrap().is_some());
    assert_eq!(book.status().pending, 3);
}

#[test]
fn of_a_file_cut_anywhere_every_entry_that_is_whole_is_found() {
    for percent in [10, 30, 50, 70, 90] {
        let damaged = Damaged::new(30, 30);
        damaged.change(|bytes| bytes.truncate(bytes.len() * percent / 100));
        let whole = damaged.whole();
        if whole.is_empty() {
            continue;
        }
        let (salvage, _) = damaged.salvage();
        assert_eq!(found(&salvage), whole, "{percent} % of the file");
    }
}

#[test]
fn what_a_person_decided_behind_the_gap_stays_decided() {
    let damaged = Damaged::new(0, 4);
    let book = Book::open(damaged.path(), options("ann", &damaged.clock)).unwrap();
    create(&book, 4);
    let place = book.queue().list().unwrap().first().unwrap().op.place;
    book.queue().undo(place).unwrap();
    book.close().unwrap();
    damaged.destroy(5);
    let (salvage, book) = damaged.salvage();
    assert!(!salvage.islands.is_empty() && salvage.linked == 4);
    assert!(!salvage.waiting.contains_key(&key("lead/0")), "it was undone behind the gap");
    assert!(book.records().get(&key("lead/0")).unwrap().is_none());
}

#[test]
fn what_is_no_book_and_a_path_that_exists_are_refused_and_nothing_is_left() {
    let damaged = Damaged::new(0, 1);
    let names = |folder: &Path| fs::read_dir(folder).unwrap().count();
    let new = damaged.folder.path().join("new.book");
    let refused = |from: &Path, to: &Path| -> Error {
        salvage_book(from, to, options("ann", &damaged.clock), |_, _| {}).unwrap_err()
    };
    let notes = damaged.folder.path().join("notes.txt");
    fs::write(&notes, "no book at all").unwrap();
    assert!(refused(&notes, &new).to_string().contains("no entry of a log"));
    assert!(refused(&damaged.path(), &notes).to_string().contains("exists"));
    assert!(refused(&damaged.folder.path().join("none"), &new).to_string().contains("none"));
    assert!(refused(damaged.folder.path(), &new).to_string().contains("not a file"));
    assert_eq!(names(damaged.folder.path()), 2);
}
