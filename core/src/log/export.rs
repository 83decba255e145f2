//! The log as a stream: what another program can verify without redb.
//!
//! ```text
//!   "fieldbook-log 1\n" │ u32 length (little-endian) │ stored entry │ u32 length │ stored entry │ …
//! ```
//!
//! Entries stand in order from the first. The stream ends where the bytes end: compare the head with the one that is
//! expected, since a stream cut off between two entries is a shorter log that verifies.

use std::io::{self, Read, Write};

use redb::ReadableTable;

use super::error::StoreError;
use super::verify::{Damage, DamageKind, Verified, Walk};
use crate::entry::EntryError;
use crate::limits;
use crate::numbers::Seq;

/// What an exported log begins with.
pub const EXPORT_MAGIC: &[u8] = b"fieldbook-log 1\n";

/// Writes the whole log, as it is stored, and returns how many entries it has. Does not verify it.
///
/// # Errors
/// [`StoreError`] of the store, or of the writer as [`StoreError::Disk`].
pub fn export(
    table: &impl ReadableTable<u64, &'static [u8]>,
    writer: &mut impl Write,
) -> Result<u64, StoreError> {
    let written = StoreError::disk("writing the exported log");
    writer.write_all(EXPORT_MAGIC).map_err(&written)?;
    let mut entries = 0;
    for row in table.iter().map_err(StoreError::during(READING))? {
        let (key, stored) = row.map_err(StoreError::during(READING))?;
        let stored = stored.value();
        let seq = Seq::new(key.value());
        let length = checked_length(stored.len()).map_err(|error| StoreError::corrupt_entry(seq, error))?;
        writer.write_all(&length.to_le_bytes()).map_err(&written)?;
        writer.write_all(stored).map_err(&written)?;
        entries += 1;
    }
    writer.flush().map_err(&written)?;
    Ok(entries)
}

/// Verifies an exported log, in memory for one entry.
///
/// # Errors
/// [`Damage`] for the first entry that is not as it was sealed. What is no exported log at all is damage of entry 1.
pub fn verify_export(reader: &mut impl Read) -> Result<Verified, Damage> {
    let mut walk = Walk::default();
    let mut buffer = Vec::new();
    fill(reader, EXPORT_MAGIC.len(), &mut buffer).map_err(|error| walk.unreadable(error))?;
    if buffer != EXPORT_MAGIC {
        return Err(walk.unreadable("this is not an exported log: it does not begin with `fieldbook-log 1`"));
    }
    loop {
        fill(reader, LENGTH_BYTES, &mut buffer).map_err(|error| walk.unreadable(error))?;
        let Ok(length) = <[u8; LENGTH_BYTES]>::try_from(buffer.as_slice()) else {
            if buffer.is_empty() {
                return Ok(walk.done);
            }
            return Err(walk.unreadable(CUT_OFF));
        };
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        checked_length(length)
            .map_err(|source| Damage { seq: walk.next(), kind: DamageKind::Unframed { source } })?;
        fill(reader, length, &mut buffer).map_err(|error| walk.unreadable(error))?;
        if buffer.len() < length {
            return Err(walk.unreadable(CUT_OFF));
        }
        walk.step(None, &buffer)?;
    }
}

/// Reads so many bytes, or as many as there are; takes no memory for bytes that are not.
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
