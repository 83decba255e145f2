//! The rows that the ops of an intent have in the tail, by what the app declares.

use fieldbook_core::entry::{Entry, Meta, OpMeta};
use fieldbook_core::log::StoreError;
use fieldbook_core::rows::{FieldReference, TailRow};
use fieldbook_core::{FieldsJson, InvalidFields, OpPlace, RecordKey, Schema};

/// Returns the rows that the ops of an intent have in the tail; none for other kinds of entry.
///
/// # Errors
/// [`StoreError::Corrupt`] if an op's fields are damaged.
pub fn tail_rows(schema: &Schema, entry: &Entry) -> Result<Vec<(OpPlace, TailRow)>, StoreError> {
    let Meta::Intent(intent) = &entry.meta else { return Ok(Vec::new()) };
    let rows = intent.ops.iter().enumerate().map(|(index, meta)| {
        let place = OpPlace { seq: entry.header.seq, index: u32::try_from(index).unwrap_or(u32::MAX) };
        let text = meta.fields.map(|index| entry.fields(index)).transpose();
        let text = text.map_err(|fault| StoreError::corrupt("an op's fields", entry.header.seq, fault))?;
        Ok((place, tail_row(schema, entry, intent.ops.len(), meta, text.flatten().as_ref())?))
    });
    rows.collect()
}

pub(super) fn tail_row(
    schema: &Schema,
    entry: &Entry,
    ops: usize,
    meta: &OpMeta,
    fields: Option<&FieldsJson>,
) -> Result<TailRow, StoreError> {
    let references = references(schema, &meta.key, fields);
    Ok(TailRow {
        op: meta.id,
        key: meta.key.clone(),
        kind: meta.kind,
        actor: entry.header.actor.clone(),
        edited_at: meta.edited_at,
        made_at: entry.header.wall,
        schema_version: meta.schema_version,
        upcast: None,
        transaction_ops: u32::try_from(ops).unwrap_or(u32::MAX),
        bytes: fields.map_or(0, |fields| fields.as_str().len()) as u64,
        references: references
            .map_err(|fault| StoreError::corrupt("an op's fields", entry.header.seq, fault))?,
    })
}

/// Returns the records that an op refers to, by the declared references.
fn references(
    schema: &Schema,
    key: &RecordKey,
    fields: Option<&FieldsJson>,
) -> Result<Vec<FieldReference>, InvalidFields> {
    let declared = schema.rules(&key.entity).map(|rules| rules.references.as_slice()).unwrap_or_default();
    let Some(fields) = fields.filter(|_| !declared.is_empty()) else { return Ok(Vec::new()) };
    let fields = fields.to_fields()?;
    let found = declared.iter().filter_map(|reference| {
        let id = fields.get(&reference.field)?.as_str();
        let target = id.and_then(|id| RecordKey::parse(reference.entity.as_str(), id).ok());
        Some(FieldReference { field: reference.field.clone(), target })
    });
    Ok(found.collect())
}
