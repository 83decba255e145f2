//! The log as a stream of bytes that another program can verify without redb.
//!
//! ```text
//!   "fieldbook-log 2\n" │ block(cover) │ block(1 │ stored entry) │ … │ block(255 │ BLAKE3 of all before)
//! ```
//!
//! Entries are in order, from the first. `stream` has the parts around them. A stream without its
//! end was cut off, wherever that happened. Streams of version 1 are read too: they have neither
//! cover nor end, so one that is cut off between two entries is a shorter log that verifies.

use std::io::{Read, Write};

use redb::ReadableTable;

use super::entries::ENTRIES;
use super::error::StoreError;
use super::store::Store;
use super::stream::{BEGINS_2, Cover, Place, Redaction, Streamed, end_block, form_of};
use super::verify::{Damage, Verified, Walk};
use crate::entry::{EntryError, frame::Frame};
use crate::limits;
use crate::numbers::{Hash, Seq};

/// Writes the stored entries up to the present end of the log, and returns their number. It does
/// not verify them.
///
/// # Errors
/// [`StoreError`] of the store, or of the writer as [`StoreError::Disk`].
pub fn export(
    table: &impl ReadableTable<u64, &'static [u8]>,
    writer: &mut impl Write,
) -> Result<u64, StoreError> {
    Ok(write_parts(None, |part| part.read(table), writer)?.entries)
}

/// Does the same as [`export`], but opens the log again for each part and writes the part after
/// closing it: a snapshot keeps every page that it can reach, and the writer may be slow.
///
/// # Errors
/// Those of [`export`], or the error of `open`.
pub fn export_in_parts<T: ReadableTable<u64, &'static [u8]>>(
    mut open: impl FnMut() -> Result<T, StoreError>,
    writer: &mut impl Write,
) -> Result<u64, StoreError> {
    Ok(write_parts(None, |part| part.read(&open()?), writer)?.entries)
}

/// What an export wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// The number of entries.
    pub entries: u64,
    /// The hash of everything before the end block, which the end block has.
    pub sum: Hash,
}

/// Does the same as [`export_in_parts`] for the entries up to a place. Each part is written with
/// one call of the writer, and ends where an entry does.
///
/// # Errors
/// Those of [`export_in_parts`].
pub fn export_up_to<T: ReadableTable<u64, &'static [u8]>>(
    upto: Seq,
    mut open: impl FnMut() -> Result<T, StoreError>,
    writer: &mut impl Write,
) -> Result<Exported, StoreError> {
    write_parts(Some(upto), |part| part.read(&open()?), writer)
}

fn write_parts(
    upto: Option<Seq>,
    mut read: impl FnMut(&mut Part) -> Result<(), StoreError>,
    writer: &mut impl Write,
) -> Result<Exported, StoreError> {
    let written = StoreError::disk("writing the exported log");
    let mut part = Part { bytes: BEGINS_2.to_vec(), upto, ..Part::default() };
    let mut hasher = blake3::Hasher::new();
    loop {
        read(&mut part)?;
        if part.bytes.is_empty() {
            break;
        }
        hasher.update(&part.bytes);
        writer.write_all(&part.bytes).map_err(&written)?;
        part.bytes.clear();
    }
    writer.write_all(&end_block(&hasher)).map_err(&written)?;
    writer.flush().map_err(&written)?;
    let sum = Hash::from_bytes(*hasher.finalize().as_bytes());
    Ok(Exported { entries: part.entries, sum })
}

/// The number of bytes after which a part of the log ends.
const PART_BYTES: usize = 1024 * 1024;

/// A part of an exported log, and the state of the whole export.
#[derive(Default)]
struct Part {
    bytes: Vec<u8>,
    /// How many entries were read so far.
    entries: u64,
    /// The place after the last of these entries.
    next: u64,
    /// Where the export is to end at the latest.
    upto: Option<Seq>,
    /// Where the log ended when the first part was read.
    end: Option<u64>,
}

impl Part {
    /// Reads the next entries; none at the end.
    fn read(&mut self, table: &impl ReadableTable<u64, &'static [u8]>) -> Result<(), StoreError> {
        let end = match self.end {
            Some(end) => end,
            None => self.begin(table)?,
        };
        for row in table.range(self.next..=end).map_err(StoreError::during(READING))? {
            let (key, stored) = row.map_err(StoreError::during(READING))?;
            let (seq, stored) = (Seq::new(key.value()), stored.value());
            let (form, content) = form_of(stored);
            let length = checked_length(content.len())
                .map_err(|error| StoreError::corrupt_entry(seq, error))?;
            self.bytes.extend_from_slice(&(length + 1).to_le_bytes());
            self.bytes.push(form);
            self.bytes.extend_from_slice(content);
            self.entries += 1;
            self.next = seq.next().number();
            if self.bytes.len() >= PART_BYTES {
                break;
            }
        }
        Ok(())
    }

    /// Writes the cover, and returns where the log ends.
    fn begin(&mut self, table: &impl ReadableTable<u64, &'static [u8]>) -> Result<u64, StoreError> {
        let upto = self.upto.map_or(u64::MAX, Seq::number);
        let mut rows = table.range(..=upto).map_err(StoreError::during(READING))?;
        let last = rows.next_back().transpose().map_err(StoreError::during(READING))?;
        let end = last.as_ref().map_or(0, |(key, _)| key.value());
        // A last entry that cannot be read has no hash. Verifying the stream reports the entry.
        let head = last.and_then(|(_, stored)| Some(Frame::parse(stored.value()).ok()?.hash));
        self.bytes.extend_from_slice(&Cover::of_log(Seq::new(end), head).block());
        self.end = Some(end);
        Ok(end)
    }
}

/// Verifies an exported log. It keeps one entry in memory at a time.
///
/// # Errors
/// [`Damage`] for the first entry that was altered after it was sealed. A stream that is not an
/// exported log has damage in entry 1.
pub fn verify_export(reader: &mut impl Read) -> Result<Verified, Damage> {
    let mut walk = Walk::default();
    let mut buffer = Vec::new();
    let mut stream = Streamed::begin(reader, &mut buffer, &walk)?;
    walk.in_bundle = stream.is_bundle();
    while stream.next(&mut buffer, &walk)? == Place::Entry {
        walk.step(None, &buffer)?;
    }
    walk.end()
}

/// Verifies an exported log and stores its entries in an empty store.
///
/// # Errors
/// [`StoreError::Corrupt`] for the first entry that was altered after it was sealed, or if the
/// stream is no exported log; [`StoreError`] of the store.
pub fn import(reader: &mut impl Read, store: &Store) -> Result<Verified, StoreError> {
    import_parts([reader], store)
}

/// Does the same for a log whose beginning was trimmed: the archives of it, the oldest first, and
/// last the exported log of what is left. Each but the first begins with a baseline, whose joint is the
/// last entry of the one before. The result is the log as it was before it was trimmed.
///
/// # Errors
/// Those of [`import`]; [`StoreError::NotNext`] if a part does not go on where the one before ends.
pub fn import_parts<'r, R: Read + 'r>(
    parts: impl IntoIterator<Item = &'r mut R>,
    store: &Store,
) -> Result<Verified, StoreError> {
    let transaction = store.begin_write()?;
    let mut whole: Option<Walk> = None;
    {
        let opened = transaction.open_table(ENTRIES);
        let mut table = opened.map_err(StoreError::during("opening the log's table"))?;
        for (number, part) in (1..).zip(parts) {
            whole = Some(import_part(part, number, whole, &mut table)?);
        }
    }
    let verified = whole.unwrap_or_default().end().map_err(damaged)?;
    store.commit(transaction)?;
    Ok(verified)
}

/// Adds a part to what was imported before.
fn import_part(
    reader: &mut impl Read,
    number: usize,
    mut whole: Option<Walk>,
    table: &mut redb::Table<'_, u64, &'static [u8]>,
) -> Result<Walk, StoreError> {
    let (mut walk, mut buffer) = (Walk::default(), Vec::new());
    let mut stream = Streamed::begin(reader, &mut buffer, &walk).map_err(damaged)?;
    walk.in_bundle = stream.is_bundle();
    let is_first = whole.is_none();
    let mut goes_on = is_first;
    while stream.next(&mut buffer, &walk).map_err(damaged)? == Place::Entry {
        walk.step(None, &buffer).map_err(damaged)?;
        let Some(head) = walk.done.head else { continue };
        if goes_on {
            if let Some(whole) = &mut whole {
                whole.step(None, &buffer).map_err(damaged)?;
            }
            let replaced = table.insert(head.seq.number(), buffer.as_slice());
            drop(replaced.map_err(StoreError::during("storing an exported log"))?);
        } else if walk.is_at_joint() {
            let before = whole.as_ref().and_then(|whole| whole.done.head);
            if before.map(|before| (before.seq, before.hash)) != Some((head.seq, head.hash)) {
                return Err(StoreError::NotNext { part: number });
            }
            goes_on = true;
        }
    }
    if !goes_on {
        return Err(StoreError::NotNext { part: number });
    }
    match whole {
        // The part is verified by itself, too.
        Some(whole) => walk.end().map(|_| whole).map_err(damaged),
        None => Ok(walk),
    }
}

fn damaged(damage: Damage) -> StoreError {
    StoreError::corrupt("an exported log", damage.seq, damage)
}

/// Checks a whole exported log and passes all damage to `on_damage`. The result counts every entry
/// that exists. The check ends early if the stream ends early, or if the length of the next entry
/// is missing.
pub fn survey_export(reader: &mut impl Read, mut on_damage: impl FnMut(Damage)) -> Verified {
    let mut walk = Walk::default();
    let mut buffer = Vec::new();
    let mut stream = match Streamed::begin(reader, &mut buffer, &walk) {
        Ok(stream) => stream,
        Err(damage) => {
            on_damage(damage);
            return walk.done;
        }
    };
    walk.in_bundle = stream.is_bundle();
    loop {
        match stream.next(&mut buffer, &walk) {
            Ok(Place::Entry) => {
                let mut is_damaged = false;
                // A gap is reported once, not for every entry after it.
                let named = Frame::parse(&buffer).map(|frame| frame.header.seq);
                let place =
                    named.ok().filter(|named| *named > walk.next()).unwrap_or_else(|| walk.next());
                walk.step_over(place, &buffer, &mut |damage| {
                    is_damaged = true;
                    on_damage(damage);
                });
                if is_damaged {
                    stream.go_on();
                }
            }
            Ok(Place::End) => return walk.ended(on_damage),
            Err(damage) => {
                on_damage(damage);
                return walk.done;
            }
        }
    }
}

/// Passes each stored entry of an exported log on, as far as the stream can be read.
pub(super) fn each_stored(reader: &mut impl Read, mut take: impl FnMut(&[u8])) {
    let (mut buffer, walk) = (Vec::new(), Walk::default());
    let Ok(mut stream) = Streamed::begin(reader, &mut buffer, &walk) else { return };
    while stream.next(&mut buffer, &walk).is_ok_and(|place| place == Place::Entry) {
        take(&buffer);
    }
}

/// How a file that begins like an exported log is to be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BundleLook {
    /// What its cover says that it leaves out; none if it is no bundle.
    pub redaction: Option<Redaction>,
    /// The ranges of entries of which it only tells, each with its first and its last entry.
    pub told: Vec<(Seq, Seq)>,
    /// The number of hidden items of which it tells some fields.
    pub told_items: u64,
}

/// Returns what the cover of a bundle says that it leaves out; none for anything else. The cover is
/// not verified.
pub fn redaction_in_export(reader: &mut impl Read) -> Option<Redaction> {
    let (mut buffer, walk) = (Vec::new(), Walk::default());
    Streamed::begin(reader, &mut buffer, &walk).ok()?.redaction()
}

/// Looks at a stream, as far as it can be read. What is wrong with it has to be found separately.
pub fn look_at_export(reader: &mut impl Read) -> BundleLook {
    let (mut buffer, walk) = (Vec::new(), Walk::default());
    let Ok(mut stream) = Streamed::begin(reader, &mut buffer, &walk) else {
        return BundleLook::default();
    };
    let mut look = BundleLook { redaction: stream.redaction(), ..BundleLook::default() };
    while look.redaction.is_some()
        && stream.next(&mut buffer, &walk).is_ok_and(|place| place == Place::Entry)
    {
        let Ok(frame) = Frame::parse(&buffer) else { continue };
        look.told_items += frame.told_items() as u64;
        let seq = frame.header.seq;
        match look.told.last_mut() {
            _ if !frame.is_told() => {}
            Some((_, last)) if last.next() == seq => *last = seq,
            _ => look.told.push((seq, seq)),
        }
    }
    look
}

pub(super) fn checked_length(length: usize) -> Result<u32, EntryError> {
    match u32::try_from(length) {
        Ok(checked) if length <= limits::ENTRY_BYTES => Ok(checked),
        _ => Err(EntryError::TooLarge { bytes: length }),
    }
}

const READING: &str = "exporting the log";
