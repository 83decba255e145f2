//! Targets over stored data: entries, a book's file, an exported log, rows.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};

use fieldbook::audit::entry::{
    Control, Draft, Entry, EntryKind, FORMAT, Header, Items, Meta, chain, seal,
};
use fieldbook::audit::{Epoch, Hash, Hlc, Seq, verify_export};
use fieldbook::host::{SeededRandomness, WallTime};
use fieldbook::{Actor, Book, BookOptions, Fields, RecordKey};
use fieldbook_core::codec::{self, Stored};
use fieldbook_core::rows;
use serde_json::json;

use super::quietly;
use crate::clock::SimClock;
use crate::disk::{Loss, SimDisk};

/// Reads stored bytes of an entry: a readable entry keeps its hashes, and each change of a sealed
/// entry is found.
pub fn entry_decode(data: &[u8]) {
    if let Ok(entry) = Entry::decode(data) {
        assert_eq!(
            Entry::decode(data).ok().as_ref(),
            Some(&entry),
            "BUG: the same bytes read in two ways"
        );
    }
    let (sealed, before) = sealed_entry();
    let mut changed = sealed.clone();
    for place in data.chunks_exact(3) {
        if let [high, low, by] = *place {
            let at = usize::from(u16::from_be_bytes([high, low])) % changed.len().max(1);
            if let Some(byte) = changed.get_mut(at) {
                *byte ^= by;
            }
        }
    }
    if let Ok(entry) = Entry::decode(&changed) {
        let holds = chain::link(&before, &entry.content) == entry.hash;
        assert_eq!(
            holds,
            changed == sealed,
            "BUG: a changed entry still follows from the one before"
        );
    }
}

/// Returns a real entry, and the hash of the one before it.
fn sealed_entry() -> (Vec<u8>, Hash) {
    let mut random = SeededRandomness::from_number(1);
    let mut items = Items::default();
    let message = items.add("a value that can be erased", &mut random);
    let meta = Meta::Control(Control::PersonActed(
        fieldbook::audit::entry::PersonAction::Discard { reason: message },
        Vec::new(),
    ));
    let Ok(actor) = Actor::parse("someone") else { return Default::default() };
    let header = Header {
        format: FORMAT,
        kind: EntryKind::Control,
        epoch: Epoch::from_bytes([7; 16]),
        seq: Seq::new(41),
        hlc: Hlc::from_bits(1 << 40),
        wall: WallTime::from_milliseconds(1_767_225_600_000),
        actor,
    };
    let before = Hash::from_bytes([9; 32]);
    let sealed = seal(&header, &Draft { meta, items }, &before);
    (sealed.map(|sealed| sealed.bytes).unwrap_or_default(), before)
}

/// Opens a file as a book: raw bytes, or (if they begin with 0) changes to a book's file, each with
/// a place in three bytes and a value. A refused file is not changed; a book that opens reports its
/// damage.
pub fn log_file(data: &[u8]) {
    let (image, changes) = match data.split_first() {
        Some((0, changes)) => (small_book().to_vec(), changes),
        Some((1, rest)) => {
            (b"redb\x1a\x0a\xa9\x0d\x0a".iter().chain(rest).copied().collect(), &[][..])
        }
        _ => (data.to_vec(), &[][..]),
    };
    let mut image: Vec<u8> = image;
    for place in changes.chunks_exact(4) {
        if let [high, middle, low, by] = *place {
            let at = usize::try_from(u32::from_be_bytes([0, high, middle, low])).unwrap_or(0)
                % image.len().max(1);
            if let Some(byte) = image.get_mut(at) {
                *byte ^= if *byte < 0x40 { by & KEEPS_SIZES } else { by };
            }
        }
    }
    // Empty storage is where a new book is made.
    if image.is_empty() {
        return;
    }
    quietly(|| {
        let disk = SimDisk::holding(image.clone());
        let Ok(options) = options() else { return };
        let Ok(book) = Book::on_backend(disk.clone(), options.read_only()) else {
            assert_eq!(disk.changes(), 0, "BUG: a file that was refused was written to");
            return;
        };
        // Opening and verifying contain the engine's panics over damaged pages. Other reads do not,
        // and are not promised to.
        drop(book.audit().verify(|_| {}));
        assert_eq!(disk.changes(), 0, "BUG: a file that was only looked at was written to");
    });
}

/// The bits of a byte below 64 that may change. The top five bits of a reference to a page are the
/// page's size, up to 4 GiB, and redb 4.5 reserves that much before it reads. So a damaged
/// reference can use all memory of a process, which nothing outside redb can prevent (see
/// `docs/promises.md`). Only sizes up to 512 KiB are made here.
const KEEPS_SIZES: u8 = 0x3f;

fn options() -> Result<BookOptions, fieldbook::error::InvalidName> {
    Ok(BookOptions::new("someone")?
        .clock(Arc::new(SimClock::new(1_767_225_600_000)))
        .cache_bytes(1024 * 1024)
        .randomness(Box::new(SeededRandomness::from_number(1))))
}

/// Returns the file of a real book.
fn small_book() -> &'static [u8] {
    static BOOK: OnceLock<Vec<u8>> = OnceLock::new();
    BOOK.get_or_init(|| {
        let disk = SimDisk::empty();
        let book = options().ok().and_then(|options| Book::on_backend(disk.clone(), options).ok());
        let Some(book) = book else { return Vec::new() };
        for number in 0..20 {
            let Ok(key) = RecordKey::parse("lead", &number.to_string()) else { continue };
            let fields = Fields::from_iter([("a".to_owned(), json!(number))]);
            drop(
                book.records()
                    .create(key.clone(), fields.clone())
                    .and_then(|_| book.records().delete(key)),
            );
        }
        drop(book.close());
        disk.platter().image(Loss::Everything)
    })
}

/// Verifies an exported log: raw bytes, or (if they begin with 0) changes to a real log, each with
/// a place in two bytes and a value. Each change is found, and so is each cut.
pub fn log_export(data: &[u8]) {
    let Some((0, changes)) = data.split_first().map(|(first, rest)| (*first, rest)) else {
        drop(verify_export(&mut &*data));
        return;
    };
    let real = small_export();
    let mut changed = real.to_vec();
    for place in changes.chunks_exact(3) {
        if let [high, low, by] = *place {
            let at = usize::from(u16::from_be_bytes([high, low])) % changed.len().max(1);
            if let Some(byte) = changed.get_mut(at) {
                *byte ^= by;
            }
        }
    }
    if let (Ok(verified), false) = (verify_export(&mut changed.as_slice()), changed == real) {
        panic!("BUG: a changed log verifies: {} entries", verified.entries);
    }
    // A log that is cut off is never taken for a whole one.
    let cut = changes.first().map_or(0, |byte| usize::from(*byte)).min(real.len());
    let (kept, _) = real.split_at(real.len() - cut);
    assert!(cut == 0 || verify_export(&mut &*kept).is_err(), "BUG: a log that is cut off verifies");
}

fn small_export() -> &'static [u8] {
    static EXPORT: OnceLock<Vec<u8>> = OnceLock::new();
    EXPORT.get_or_init(|| {
        let disk = SimDisk::holding(small_book().to_vec());
        let book = options().ok().and_then(|options| Book::on_backend(disk, options).ok());
        let mut bytes = Vec::new();
        if let Some(book) = book {
            drop(book.audit().export(&mut bytes));
        }
        bytes
    })
}

/// Reads stored rows and meta parts: readable bytes are equal after they are written and read
/// again.
pub fn rows(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else { return };
    match choice % 8 {
        0 => reads_back::<rows::RecordRow>(rest),
        1 => reads_back::<rows::UnitRow>(rest),
        2 => reads_back::<rows::ConflictRow>(rest),
        3 => reads_back::<rows::DeadLetterRow>(rest),
        4 => reads_back::<rows::TailRow>(rest),
        5 => reads_back::<rows::CursorRow>(rest),
        6 => reads_back::<rows::StateRow>(rest),
        _ => reads_back::<Meta>(rest),
    }
}

fn reads_back<T: Stored + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(value) = codec::decode::<T>(bytes) else { return };
    let Ok(written) = codec::encode(&value) else { panic!("BUG: what was read cannot be written") };
    assert_eq!(
        codec::decode::<T>(&written).ok(),
        Some(value),
        "BUG: what was written reads as something else"
    );
}
