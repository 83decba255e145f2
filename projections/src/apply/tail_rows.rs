//! Makes the rows of the tail for the ops of an intent, by the references that the app declares.

use fieldbook_core::entry::{Entry, Meta, OpMeta};
use fieldbook_core::log::StoreError;
use fieldbook_core::record::{Registers, TailOp};
use fieldbook_core::rows::{FieldReference, RecordRow, TailRow};
use fieldbook_core::{
    Fields, FieldsJson, InvalidFields, OpKind, OpPlace, RecordKey, Reference, Schema,
};

use crate::log_view::LogView;

/// Returns the rows of the tail for the ops of an intent, and no rows for other kinds of entry.
/// `row_of` reads the row of a record with the ops of this entry. The function calls it only if an
/// op can change or remove a declared reference.
///
/// # Errors
/// [`StoreError::Corrupt`] if an op's fields are damaged, or what `row_of` fails with.
pub fn tail_rows(
    schema: &Schema,
    entry: &Entry,
    log: &impl LogView,
    mut row_of: impl FnMut(&RecordKey) -> Result<Option<RecordRow>, StoreError>,
) -> Result<Vec<(OpPlace, TailRow)>, StoreError> {
    let Meta::Intent(intent) = &entry.meta else { return Ok(Vec::new()) };
    let rows = intent.ops.iter().enumerate().map(|(index, meta)| {
        let place =
            OpPlace { seq: entry.header.seq, index: u32::try_from(index).unwrap_or(u32::MAX) };
        let text = meta.fields.map(|index| entry.fields(index)).transpose();
        let text =
            text.map_err(|fault| StoreError::corrupt("an op's fields", entry.header.seq, fault))?;
        let made = Made { schema, entry, ops: intent.ops.len(), meta };
        let before = || {
            let Some(row) = row_of(&meta.key)? else { return Ok(None) };
            let damaged = |fault| StoreError::corrupt("stored fields", place.seq, fault);
            let tail = row.tail_ops(|place| log.op(place), damaged)?;
            Ok(image_before(row.registers().map_err(damaged)?, tail.iter(), place))
        };
        Ok((place, made.tail_row(text.flatten().as_ref(), before)?))
    });
    rows.collect()
}

/// Returns the image that the app read before an op of the record's tail was made.
pub(super) fn image_before<'t>(
    mut record: Registers,
    tail: impl Iterator<Item = &'t TailOp>,
    place: OpPlace,
) -> Option<FieldsJson> {
    record.join_tail(tail.filter(|op| op.op.place < place).map(|op| &op.writes));
    record.image().map(|fields| fields.to_json())
}

/// An op as it was appended.
pub(super) struct Made<'a> {
    pub(super) schema: &'a Schema,
    pub(super) entry: &'a Entry,
    /// The number of ops in its entry.
    pub(super) ops: usize,
    pub(super) meta: &'a OpMeta,
}

impl Made<'_> {
    /// Returns the op's row in the tail. `before` reads the image before the op. The function calls
    /// it only if the op can change or remove a declared reference.
    pub(super) fn tail_row(
        &self,
        fields: Option<&FieldsJson>,
        before: impl FnOnce() -> Result<Option<FieldsJson>, StoreError>,
    ) -> Result<TailRow, StoreError> {
        let Self { schema, entry, ops, meta } = self;
        let damaged = |fault| StoreError::corrupt("an op's fields", entry.header.seq, fault);
        let declared =
            schema.rules(&meta.key.entity).map_or(&[][..], |rules| rules.references.as_slice());
        let references = references(declared, fields).map_err(damaged)?;
        let led_away = if may_lead_away(declared, meta.kind, &references) {
            let before = before()?.map(|before| before.to_fields()).transpose().map_err(damaged)?;
            led_away(declared, meta.kind, &references, &before.unwrap_or_default())
        } else {
            Vec::new()
        };
        Ok(TailRow {
            op: meta.id,
            key: meta.key.clone(),
            kind: meta.kind,
            actor: entry.header.actor.clone(),
            edited_at: meta.edited_at,
            made_at: entry.header.wall,
            schema_version: meta.schema_version,
            upcast: None,
            transaction_ops: u32::try_from(*ops).unwrap_or(u32::MAX),
            bytes: fields.map_or(0, |fields| fields.as_str().len()) as u64,
            references,
            led_away,
        })
    }
}

/// Returns the records that an op refers to, by the declared references.
fn references(
    declared: &[Reference],
    fields: Option<&FieldsJson>,
) -> Result<Vec<FieldReference>, InvalidFields> {
    let Some(fields) = fields.filter(|_| !declared.is_empty()) else { return Ok(Vec::new()) };
    let fields = fields.to_fields()?;
    let found = declared.iter().filter(|reference| fields.get(&reference.field).is_some());
    Ok(found.map(|reference| refers(reference, &fields)).collect())
}

fn refers(reference: &Reference, fields: &Fields) -> FieldReference {
    let id = fields.get(&reference.field).and_then(|value| value.as_str());
    let target = id.and_then(|id| RecordKey::parse(reference.entity.as_str(), id).ok());
    FieldReference { field: reference.field.clone(), target }
}

/// Returns whether an op can change or remove a declared reference. There is none before a create.
fn may_lead_away(declared: &[Reference], kind: OpKind, sets: &[FieldReference]) -> bool {
    !declared.is_empty() && kind != OpKind::Create && (kind != OpKind::Update || !sets.is_empty())
}

/// Returns the records to which a record referred before an op, in the fields that the op sets or
/// removes, and to which the op does not refer.
fn led_away(
    declared: &[Reference],
    kind: OpKind,
    sets: &[FieldReference],
    before: &Fields,
) -> Vec<RecordKey> {
    let touched = |field: &str| kind != OpKind::Update || sets.iter().any(|set| set.field == field);
    let former = declared.iter().filter(|reference| touched(&reference.field));
    let former = former.filter_map(|reference| refers(reference, before).target);
    let mut led_away: Vec<_> = former
        .filter(|target| !sets.iter().any(|set| set.target.as_ref() == Some(target)))
        .collect();
    led_away.sort_unstable();
    led_away.dedup();
    led_away
}
