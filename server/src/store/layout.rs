//! How a row of the feed is stored.
//!
//! ```text
//!   flags u8 (1: deleted, 2: with a floor, 4: with an author) | stamp | id length u8, id
//!     | author length u8, author, if flagged | floor: stamp, if flagged | writes u32, each: write | fields
//!   stamp  edited_at u64 | op [16]
//!   write  stamp | fields u32, each: name length u8, name
//! ```
//!
//! The fields are JSON text up to the end of the value, stored as they are sent, so that a page is
//! built without parsing them. Version and index are the end of the key. Reading checks every
//! length and refuses unknown flags.

use fieldbook_core::authority::{FeedItem, Row};
use fieldbook_core::record::{EditStamp, FieldWrites};
use fieldbook_core::{Actor, FieldsJson, Hlc, OpId, RecordId, Version};

use super::Damaged;

const DELETED: u8 = 1;
const FLOOR: u8 = 2;
const AUTHOR: u8 = 4;
const DAMAGED: Damaged = Damaged { what: "a row of the feed" };

/// Writes a row. `None` if a name is longer than any checked name can be.
pub(super) fn write(id: &RecordId, row: &Row) -> Option<Vec<u8>> {
    let fields = row.fields.as_ref().map_or(&[][..], FieldsJson::as_bytes);
    let mut bytes =
        Vec::with_capacity(64 + id.as_str().len() + 60 * row.older.len() + fields.len());
    let deleted = if row.is_deleted() { DELETED } else { 0 };
    let author = if row.by.is_some() { AUTHOR } else { 0 };
    bytes.push(deleted | author | if row.floor.is_some() { FLOOR } else { 0 });
    push_stamp(&mut bytes, row.stamp());
    push_text(&mut bytes, id.as_str())?;
    if let Some(by) = &row.by {
        push_text(&mut bytes, by.as_str())?;
    }
    if let Some(floor) = row.floor {
        push_stamp(&mut bytes, floor);
    }
    push_count(&mut bytes, row.older.len())?;
    for write in &row.older {
        push_stamp(&mut bytes, write.stamp());
        push_count(&mut bytes, write.fields.len())?;
        for name in &write.fields {
            push_text(&mut bytes, name)?;
        }
    }
    bytes.extend_from_slice(fields);
    Some(bytes)
}

/// Reads only whether a row is a tombstone, and its own stamp.
///
/// # Errors
/// [`Damaged`] for bytes that are no row.
pub(super) fn glance(bytes: &[u8]) -> Result<(bool, EditStamp), Damaged> {
    let mut reader = Reader(bytes);
    let is_deleted = reader.flags()? & DELETED > 0;
    Ok((is_deleted, reader.stamp()?))
}

/// Reads a row.
///
/// # Errors
/// [`Damaged`] for bytes that are not a row.
pub(super) fn read(version: Version, index: u32, bytes: &[u8]) -> Result<FeedItem, Damaged> {
    let mut reader = Reader(bytes);
    let flags = reader.flags()?;
    let EditStamp { edited_at, op } = reader.stamp()?;
    let id = RecordId::parse(reader.text()?).map_err(|_| DAMAGED)?;
    let by = if flags & AUTHOR > 0 {
        Some(Actor::parse(reader.text()?).map_err(|_| DAMAGED)?)
    } else {
        None
    };
    let floor = if flags & FLOOR > 0 { Some(reader.stamp()?) } else { None };
    let mut older = Vec::new();
    for _ in 0..reader.count()? {
        let EditStamp { edited_at, op } = reader.stamp()?;
        let mut fields = Vec::new();
        for _ in 0..reader.count()? {
            fields.push(reader.text()?.to_owned());
        }
        older.push(FieldWrites { edited_at, op, fields });
    }
    let fields = match (flags & DELETED > 0, reader.0) {
        (true, []) => None,
        (true, _) => return Err(DAMAGED),
        (false, json) => Some(FieldsJson::from_stored(json).map_err(|_| DAMAGED)?),
    };
    Ok(FeedItem { id, row: Row { version, index, edited_at, op, by, older, floor, fields } })
}

fn push_stamp(bytes: &mut Vec<u8>, stamp: EditStamp) {
    bytes.extend_from_slice(&stamp.edited_at.to_bits().to_le_bytes());
    bytes.extend_from_slice(stamp.op.as_bytes());
}

fn push_count(bytes: &mut Vec<u8>, count: usize) -> Option<()> {
    bytes.extend_from_slice(&u32::try_from(count).ok()?.to_le_bytes());
    Some(())
}

fn push_text(bytes: &mut Vec<u8>, text: &str) -> Option<()> {
    bytes.push(u8::try_from(text.len()).ok()?);
    bytes.extend_from_slice(text.as_bytes());
    Some(())
}

/// Bytes that are still to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const COUNT: usize>(&mut self) -> Result<[u8; COUNT], Damaged> {
        let (taken, rest) = self.0.split_first_chunk::<COUNT>().ok_or(DAMAGED)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// Reads the flags, and refuses unknown ones.
    fn flags(&mut self) -> Result<u8, Damaged> {
        let [flags] = self.take::<1>()?;
        if flags & !(DELETED | FLOOR | AUTHOR) == 0 { Ok(flags) } else { Err(DAMAGED) }
    }

    fn stamp(&mut self) -> Result<EditStamp, Damaged> {
        let edited_at = Hlc::from_bits(u64::from_le_bytes(self.take()?));
        Ok(EditStamp { edited_at, op: OpId::from_bytes(self.take()?) })
    }

    fn count(&mut self) -> Result<u32, Damaged> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn text(&mut self) -> Result<&'a str, Damaged> {
        let [length] = self.take::<1>()?;
        let (text, rest) = self.0.split_at_checked(length.into()).ok_or(DAMAGED)?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| DAMAGED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(fields: Option<&str>) -> (RecordId, Row) {
        let row = Row {
            version: Version::new(7),
            index: 3,
            edited_at: Hlc::from_bits(99),
            op: OpId::from_bytes([5; 16]),
            by: fields.filter(|text| *text != "{}").map(|_| Actor::parse("änn").unwrap()),
            older: vec![
                FieldWrites {
                    edited_at: Hlc::from_bits(1),
                    op: OpId::from_bytes([6; 16]),
                    fields: vec![],
                },
                FieldWrites {
                    edited_at: Hlc::from_bits(4),
                    op: OpId::from_bytes([7; 16]),
                    fields: vec!["a".to_owned(), String::new()],
                },
            ],
            floor: fields
                .map(|_| EditStamp { edited_at: Hlc::from_bits(3), op: OpId::from_bytes([8; 16]) }),
            fields: fields.map(|text| FieldsJson::parse(text).unwrap()),
        };
        (RecordId::parse("Ünïcode 1").unwrap(), row)
    }

    #[test]
    fn rows_read_as_they_were_written() {
        for fields in [None, Some("{}"), Some(r#"{"a":1,"b":"ü"}"#)] {
            let (id, row) = row(fields);
            let bytes = write(&id, &row).unwrap();
            assert_eq!(bytes.len(), row.stored_bytes(&id));
            assert_eq!(glance(&bytes), Ok((fields.is_none(), row.stamp())));
            assert_eq!(read(row.version, row.index, &bytes).unwrap(), FeedItem { id, row });
        }
    }

    #[test]
    fn damaged_rows_are_refused_and_never_panic() {
        let (id, row) = row(None);
        let bytes = write(&id, &row).unwrap();
        for length in 0..bytes.len() {
            assert!(read(row.version, row.index, &bytes[..length]).is_err(), "{length}");
        }
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x80;
            // Reading must not panic, whatever the bytes are.
            drop(read(row.version, row.index, &damaged));
        }
        let longer = [bytes.as_slice(), b"x"].concat();
        assert!(read(row.version, row.index, &longer).is_err());
    }
}
