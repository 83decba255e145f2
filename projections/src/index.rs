//! Declared indexes: records by the value of a field.
//!
//! The order of the stored bytes is the order of the values: false, true, numbers, text. Lists,
//! objects and absent fields are not indexed. Text is compared by its UTF-8 bytes.

use std::ops::Bound;

use fieldbook_core::log::StoreError;
use fieldbook_core::{EntityType, FieldsJson, RecordId, RecordKey};
use serde_json::Value;

use crate::access::DiskTables;
use crate::tables::Which;
use crate::tables::after_prefix;

/// Updates the indexes after a record's change.
///
/// # Errors
/// [`StoreError`] if the table cannot be written.
pub(crate) fn follow(
    tables: &mut DiskTables<'_>,
    indexes: &[String],
    key: &RecordKey,
    before: Option<&FieldsJson>,
    after: Option<&FieldsJson>,
) -> Result<(), StoreError> {
    if before == after {
        return Ok(());
    }
    let before = keys(indexes, key, before)?;
    let after = keys(indexes, key, after)?;
    let table = tables.which(Which::Indexes)?;
    for key in before.iter().filter(|key| !after.contains(key)) {
        drop(table.remove(key.as_slice()).map_err(StoreError::during("writing an index"))?);
    }
    for key in after.iter().filter(|key| !before.contains(key)) {
        drop(
            table
                .insert(key.as_slice(), [].as_slice())
                .map_err(StoreError::during("writing an index"))?,
        );
    }
    Ok(())
}

/// Returns the keys of a record in its indexes.
pub(crate) fn keys(
    indexes: &[String],
    key: &RecordKey,
    image: Option<&FieldsJson>,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let Some(image) = image else { return Ok(Vec::new()) };
    let fields =
        image.to_fields().map_err(|fault| StoreError::corrupt("stored fields", None, fault))?;
    let keys = indexes.iter().filter_map(|field| {
        let mut bytes = prefix(&key.entity, field);
        bytes.extend(ordered(fields.get(field)?)?);
        bytes.extend_from_slice(key.id.as_str().as_bytes());
        // An id has at most 128 bytes.
        bytes.push(u8::try_from(key.id.as_str().len()).unwrap_or(u8::MAX));
        Some(bytes)
    });
    Ok(keys.collect())
}

/// A part of one index, as a range of its key bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexRange {
    pub(crate) from: Vec<u8>,
    pub(crate) to: Vec<u8>,
}

impl IndexRange {
    /// Makes the range of the values between two bounds. A bound that is not an indexed kind of
    /// value counts as absent.
    pub fn values(entity: &EntityType, field: &str, range: (Bound<&Value>, Bound<&Value>)) -> Self {
        let whole = prefix(entity, field);
        let at = |value: &Value| ordered(value).map(|value| [whole.as_slice(), &value].concat());
        let after = |value: &Value| at(value).and_then(|key| after_prefix(&key));
        let from = match range.0 {
            Bound::Included(value) => at(value),
            Bound::Excluded(value) => after(value),
            Bound::Unbounded => None,
        };
        let to = match range.1 {
            Bound::Included(value) => after(value),
            Bound::Excluded(value) => at(value),
            Bound::Unbounded => None,
        };
        let end = after_prefix(&whole).unwrap_or_default();
        Self { from: from.unwrap_or(whole), to: to.unwrap_or(end) }
    }

    /// Makes the range of the texts that begin with `text`.
    pub fn prefix(entity: &EntityType, field: &str, text: &str) -> Self {
        let from = [prefix(entity, field), ordered_text(text)].concat();
        let to = after_prefix(&from).unwrap_or_default();
        Self { from, to }
    }
}

/// Returns the prefix of all keys of one index.
pub(crate) fn prefix(entity: &EntityType, field: &str) -> Vec<u8> {
    let mut bytes = entity.as_str().as_bytes().to_vec();
    bytes.push(0);
    escape(field.as_bytes(), &mut bytes);
    bytes.extend_from_slice(&[0, 0]);
    bytes
}

/// Returns bytes in the order of the values; `None` for values that are not indexed.
pub(crate) fn ordered(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Bool(value) => Some(vec![1 + u8::from(*value)]),
        Value::Number(number) => {
            let bits = number.as_f64()?.to_bits();
            // Positive numbers sort by their bits once the sign is flipped; negative ones by all
            // bits flipped.
            let flipped = if bits >> 63 == 0 { bits ^ (1 << 63) } else { !bits };
            let mut bytes = vec![3];
            bytes.extend_from_slice(&flipped.to_be_bytes());
            Some(bytes)
        }
        Value::String(text) => {
            let mut bytes = ordered_text(text);
            bytes.extend_from_slice(&[0, 0]);
            Some(bytes)
        }
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Returns the common prefix of the ordered bytes of all texts that begin with `text`.
pub(crate) fn ordered_text(text: &str) -> Vec<u8> {
    let mut bytes = vec![4];
    escape(text.as_bytes(), &mut bytes);
    bytes
}

/// Reads the record's id off the end of a key.
pub(crate) fn id_of(key: &[u8]) -> Option<RecordId> {
    let (length, rest) = key.split_last()?;
    let id = rest.get(rest.len().checked_sub(usize::from(*length))?..)?;
    RecordId::parse(std::str::from_utf8(id).ok()?).ok()
}

/// Writes a text. Its zero bytes are written as 0, 255, so that 0, 0 can end the text.
fn escape(text: &[u8], into: &mut Vec<u8>) {
    for byte in text {
        into.push(*byte);
        if *byte == 0 {
            into.push(u8::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_bytes_is_the_order_of_values() {
        let values = [
            json!(false),
            json!(true),
            json!(-1e300),
            json!(-2),
            json!(-1.5),
            json!(0),
            json!(1),
            json!(1.5),
            json!(900),
            json!(""),
            json!("\0"),
            json!("a"),
            json!("a\0b"),
            json!("ab"),
            json!("b"),
        ];
        let bytes: Vec<_> = values.iter().map(|value| ordered(value).unwrap()).collect();
        assert!(bytes.is_sorted(), "{bytes:?}");
    }

    #[test]
    fn a_records_id_reads_off_its_key() {
        let key = RecordKey::parse("lead", "x\u{1F600}y").unwrap();
        let image = FieldsJson::parse(r#"{"stage":"hot"}"#).unwrap();
        let keys = keys(&["stage".to_owned(), "other".to_owned()], &key, Some(&image)).unwrap();
        assert_eq!(keys.len(), 1);
        assert_eq!(id_of(&keys[0]).unwrap(), key.id);
    }
}
