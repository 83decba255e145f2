//! How a row of the feed is stored.
//!
//! ```text
//!   flags u8 (1: deleted) | edited_at u64 | op [16] | id length u8, id | stamps u32, each: name length u8, name, u64 | fields
//! ```
//!
//! The fields are JSON text to the end of the value, stored as it is sent, so that a page is built without reading it.
//! Version and index are the end of the key. Reading checks every length and refuses what it does not know.

use std::collections::BTreeMap;

use fieldbook_core::authority::{FeedItem, Row};
use fieldbook_core::{FieldsJson, Hlc, OpId, RecordId, Version};

use super::Damaged;

const DELETED: u8 = 1;
const DAMAGED: Damaged = Damaged { what: "a row of the feed" };

/// Writes a row. `None` if a name is longer than any checked name can be.
pub(super) fn write(id: &RecordId, row: &Row) -> Option<Vec<u8>> {
    let fields = row.fields.as_ref().map_or(&[][..], FieldsJson::as_bytes);
    let mut bytes = Vec::with_capacity(64 + id.as_str().len() + 40 * row.stamps.len() + fields.len());
    bytes.push(if row.is_deleted() { DELETED } else { 0 });
    bytes.extend_from_slice(&row.edited_at.to_bits().to_le_bytes());
    bytes.extend_from_slice(row.op.as_bytes());
    push_text(&mut bytes, id.as_str())?;
    bytes.extend_from_slice(&u32::try_from(row.stamps.len()).ok()?.to_le_bytes());
    for (name, stamp) in &row.stamps {
        push_text(&mut bytes, name)?;
        bytes.extend_from_slice(&stamp.to_bits().to_le_bytes());
    }
    bytes.extend_from_slice(fields);
    Some(bytes)
}

/// Reads of a row whether it is a tombstone, and nothing more.
///
/// # Errors
/// [`Damaged`] for bytes that are no row.
pub(super) fn is_deleted(bytes: &[u8]) -> Result<bool, Damaged> {
    match bytes.first() {
        Some(0) => Ok(false),
        Some(&DELETED) => Ok(true),
        _ => Err(DAMAGED),
    }
}

/// Reads a row.
///
/// # Errors
/// [`Damaged`] for bytes that are not one.
pub(super) fn read(version: Version, index: u32, bytes: &[u8]) -> Result<FeedItem, Damaged> {
    let mut reader = Reader(bytes);
    let deleted = match reader.take::<1>()? {
        [0] => false,
        [DELETED] => true,
        _ => return Err(DAMAGED),
    };
    let edited_at = reader.stamp()?;
    let op = OpId::from_bytes(reader.take()?);
    let id = RecordId::parse(reader.text()?).map_err(|_| DAMAGED)?;
    let mut stamps = BTreeMap::new();
    for _ in 0..u32::from_le_bytes(reader.take()?) {
        let name = reader.text()?.to_owned();
        stamps.insert(name, reader.stamp()?);
    }
    let fields = match (deleted, reader.0) {
        (true, []) => None,
        (true, _) => return Err(DAMAGED),
        (false, json) => Some(FieldsJson::from_stored(json).map_err(|_| DAMAGED)?),
    };
    Ok(FeedItem { id, row: Row { version, index, edited_at, op, stamps, fields } })
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

    fn stamp(&mut self) -> Result<Hlc, Damaged> {
        Ok(Hlc::from_bits(u64::from_le_bytes(self.take()?)))
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
            stamps: BTreeMap::from([("a".to_owned(), Hlc::from_bits(4)), (String::new(), Hlc::from_bits(1))]),
            fields: fields.map(|text| FieldsJson::parse(text).unwrap()),
        };
        (RecordId::parse("Ünïcode 1").unwrap(), row)
    }

    #[test]
    fn rows_read_as_they_were_written() {
        for fields in [None, Some("{}"), Some(r#"{"a":1,"b":"ü"}"#)] {
            let (id, row) = row(fields);
            let bytes = write(&id, &row).unwrap();
            assert_eq!((bytes.len(), is_deleted(&bytes)), (row.stored_bytes(&id), Ok(fields.is_none())));
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
            // Whatever is read, reading it must not panic.
            drop(read(row.version, row.index, &damaged));
        }
        let longer = [bytes.as_slice(), b"x"].concat();
        assert!(read(row.version, row.index, &longer).is_err());
    }
}
