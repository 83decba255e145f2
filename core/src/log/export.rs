//! The log as a stream of bytes that another program can verify without redb.
//!
//! ```text
//!   "fieldbook-log 1\n" │ u32 length (little-endian) │ stored entry │ u32 length │ stored entry │ …
//! ```
//!
//! Entries are in order, from the first. The stream ends where the bytes end. A stream cut off
//! between two entries is a shorter log that verifies, so compare its head with the expected head.

use std::io::{self, Read, Write};

use redb::ReadableTable;

use super::error::StoreError;
use super::verify::{Damage, DamageKind, Verified, Walk};
use crate::entry::{EntryError, frame::Frame};
use crate::limits;
use crate::numbers::Seq;

/// The first bytes of an exported log.
pub const EXPORT_MAGIC: &[u8] = b"fieldbook-log 1\n";

/// Writes the stored entries up to the present end of the log, and returns their number. It does
/// not verify them.
///
/// # Errors
/// [`StoreError`] of the store, or of the writer as [`StoreError::Disk`].
pub fn export(
    table: &impl ReadableTable<u64, &'static [u8]>,
    writer: &mut impl Write,
) -> Result<u64, StoreError> {
    write_parts(|part| part.read(table), writer)
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
    write_parts(|part| part.read(&open()?), writer)
}

fn write_parts(
    mut read: impl FnMut(&mut Part) -> Result<(), StoreError>,
    writer: &mut impl Write,
) -> Result<u64, StoreError> {
    let written = StoreError::disk("writing the exported log");
    let mut part = Part { bytes: EXPORT_MAGIC.to_vec(), ..Part::default() };
    loop {
        read(&mut part)?;
        if part.bytes.is_empty() {
            break;
        }
        writer.write_all(&part.bytes).map_err(&written)?;
        part.bytes.clear();
    }
    writer.flush().map_err(&written)?;
    Ok(part.entries)
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
    /// Where the log ended when the first part was read.
    end: Option<u64>,
}

impl Part {
    /// Reads the next entries; none at the end.
    fn read(&mut self, table: &impl ReadableTable<u64, &'static [u8]>) -> Result<(), StoreError> {
        let end = match self.end {
            Some(end) => end,
            None => {
                table.last().map_err(StoreError::during(READING))?.map_or(0, |(key, _)| key.value())
            }
        };
        self.end = Some(end);
        for row in table.range(self.next..=end).map_err(StoreError::during(READING))? {
            let (key, stored) = row.map_err(StoreError::during(READING))?;
            let (seq, stored) = (Seq::new(key.value()), stored.value());
            let length = checked_length(stored.len())
                .map_err(|error| StoreError::corrupt_entry(seq, error))?;
            self.bytes.extend_from_slice(&length.to_le_bytes());
            self.bytes.extend_from_slice(stored);
            self.entries += 1;
            self.next = seq.next().number();
            if self.bytes.len() >= PART_BYTES {
                break;
            }
        }
        Ok(())
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
    begin(reader, &mut buffer, &walk)?;
    while read_entry(reader, &mut buffer, &walk)? {
        walk.step(None, &buffer)?;
    }
    Ok(walk.done)
}

/// Checks a whole exported log and passes all damage to `on_damage`. The result counts every entry
/// that exists. The check ends early if the stream ends early, or if the length of the next entry
/// is missing.
pub fn survey_export(reader: &mut impl Read, mut on_damage: impl FnMut(Damage)) -> Verified {
    let mut walk = Walk::default();
    let mut buffer = Vec::new();
    if let Err(damage) = begin(reader, &mut buffer, &walk) {
        on_damage(damage);
        return walk.done;
    }
    loop {
        match read_entry(reader, &mut buffer, &walk) {
            Ok(true) => {
                // A gap is reported once, not for every entry after it.
                let named = Frame::parse(&buffer).map(|frame| frame.header.seq);
                let place =
                    named.ok().filter(|named| *named > walk.next()).unwrap_or_else(|| walk.next());
                walk.step_over(place, &buffer, &mut on_damage);
            }
            Ok(false) => return walk.done,
            Err(damage) => {
                on_damage(damage);
                return walk.done;
            }
        }
    }
}

fn begin(reader: &mut impl Read, buffer: &mut Vec<u8>, walk: &Walk) -> Result<(), Damage> {
    fill(reader, EXPORT_MAGIC.len(), buffer).map_err(|error| walk.unreadable(error))?;
    if buffer == EXPORT_MAGIC {
        return Ok(());
    }
    Err(walk.unreadable("this is not an exported log: it does not begin with `fieldbook-log 1`"))
}

/// Reads the next entry into the buffer. Returns whether there was one.
fn read_entry(reader: &mut impl Read, buffer: &mut Vec<u8>, walk: &Walk) -> Result<bool, Damage> {
    fill(reader, LENGTH_BYTES, buffer).map_err(|error| walk.unreadable(error))?;
    let Ok(length) = <[u8; LENGTH_BYTES]>::try_from(buffer.as_slice()) else {
        return if buffer.is_empty() { Ok(false) } else { Err(walk.unreadable(CUT_OFF)) };
    };
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    checked_length(length)
        .map_err(|source| Damage { seq: walk.next(), kind: DamageKind::Unframed { source } })?;
    fill(reader, length, buffer).map_err(|error| walk.unreadable(error))?;
    if buffer.len() < length { Err(walk.unreadable(CUT_OFF)) } else { Ok(true) }
}

/// Reads this many bytes, or as many as exist. Allocates no memory for bytes that do not exist.
fn fill(reader: &mut impl Read, length: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    reader.take(length as u64).read_to_end(buffer)?;
    Ok(())
}

fn checked_length(length: usize) -> Result<u32, EntryError> {
    match u32::try_from(length) {
        Ok(checked) if length <= limits::ENTRY_BYTES => Ok(checked),
        _ => Err(EntryError::TooLarge { bytes: length }),
    }
}

const LENGTH_BYTES: usize = 4;
const CUT_OFF: &str = "the exported log is cut off within this entry";
const READING: &str = "exporting the log";
