//! Decides how many waiting ops fit one change.
//!
//! A server accepts fields of at most [`limits::OP_BYTES`] in a change, and a record of at most
//! this size after it. Several changes, each within the limit, may exceed it together. A record may
//! also exceed it because of others' writes.
//!
//! | the ops of a record, in their order | result |
//! |---|---|
//! | all of them together are within the limit | are one change |
//! | only the first few are within the limit | the first few are one change, and the others follow |
//! | neither the first op nor all together are within the limit | are held until somebody makes the record smaller |
//!
//! Invariants:
//! 1. There is one measure, here and at the server: the bytes of the one form of fields.
//! 2. The order of ops never changes to make them fit, and a transaction is never divided.

use super::View;
use super::freeze::{FreezeError, prepare};
use super::group::Group;
use crate::fields::{FieldsJson, InvalidFields};
use crate::limits;
use crate::op::{OpKind, OpPlace};
use crate::rows::{RecordRow, TailRow};

/// Returns the size in bytes of the fields of a change, or of the record after it, if the size
/// exceeds the limit; otherwise `None`.
///
/// # Errors
/// [`InvalidFields`] if stored text was damaged.
pub(super) fn over(
    row: &RecordRow,
    kind: OpKind,
    fields: &FieldsJson,
) -> Result<Option<usize>, InvalidFields> {
    let bytes = fields.as_str().len();
    if bytes > limits::OP_BYTES {
        return Ok(Some(bytes));
    }
    let confirmed = row.confirmed_image().filter(|_| kind == OpKind::Update);
    let Some(confirmed) = confirmed.filter(|image| image.as_str().len() + bytes > limits::OP_BYTES)
    else {
        return Ok(None);
    };
    let bytes = confirmed.patched(fields)?.as_str().len();
    Ok((bytes > limits::OP_BYTES).then_some(bytes))
}

/// Returns the size in bytes of some ops as one change, or of the record after it, if the size
/// exceeds the limit.
fn over_together<V: View>(
    view: &mut V,
    row: &RecordRow,
    places: &[OpPlace],
) -> Result<Option<usize>, FreezeError<V::Error>>
where
    V::Error: std::error::Error,
{
    let Ok(sent) = prepare(view, row, places, false)?.coalesced else { return Ok(None) };
    if sent.kind == OpKind::Delete {
        return Ok(None);
    }
    Ok(over(row, sent.kind, &sent.fields.to_json())?)
}

/// Returns the part of a group that can be one change: all, the first few ops of a lone record, or
/// none.
pub(super) fn fitting<V: View>(view: &mut V, group: &Group) -> Result<Group, Excess<V::Error>>
where
    V::Error: std::error::Error,
{
    let mut largest = 0;
    for (key, places) in &group.records {
        let row = view.record(key).map_err(FreezeError::View)?.unwrap_or_default();
        let Some(bytes) = over_together(view, &row, places)? else { continue };
        largest = largest.max(bytes);
        let is_run = group.records.len() == 1 && places.windows(2).all(is_apart);
        let shorter = if is_run { 1..places.len() } else { 0..0 };
        for count in shorter.rev() {
            let first = places.get(..count).unwrap_or_default();
            if over_together(view, &row, first)?.is_none() {
                return Ok(Group { records: vec![(key.clone(), first.to_vec())], ..group.clone() });
            }
        }
    }
    if largest > 0 { Err(Excess::Over(largest)) } else { Ok(group.clone()) }
}

/// The reason why no op of a group can be sent.
pub(super) enum Excess<E: std::error::Error + 'static> {
    /// A record's fields would have this size in bytes, which exceeds the limit.
    Over(usize),
    /// The size could not be computed.
    Unread(FreezeError<E>),
}

impl<E: std::error::Error> From<FreezeError<E>> for Excess<E> {
    fn from(error: FreezeError<E>) -> Self {
        Self::Unread(error)
    }
}

impl<E: std::error::Error> From<InvalidFields> for Excess<E> {
    fn from(fault: InvalidFields) -> Self {
        Self::Unread(fault.into())
    }
}

/// Returns whether two ops are of different transactions: ops of one transaction are in one entry.
fn is_apart(pair: &[OpPlace]) -> bool {
    matches!(pair, [one, next] if one.seq != next.seq)
}

/// Returns the size in bytes that a record's fields would have, if no op of a group can be sent
/// because of this size.
///
/// # Errors
/// [`FreezeError`] if the book cannot be read or is damaged.
pub fn excess<V: View>(view: &mut V, group: &Group) -> Result<Option<usize>, FreezeError<V::Error>>
where
    V::Error: std::error::Error,
{
    match fitting(view, group) {
        Ok(_) => Ok(None),
        Err(Excess::Over(bytes)) => Ok(Some(bytes)),
        Err(Excess::Unread(error)) => Err(error),
    }
}

/// Returns how many of a record's ops, from the first, fit one change by their own sizes: all of
/// them, if their result is within the limit. After a later op that replaces or deletes the record,
/// the earlier ops add nothing to the size.
pub(super) fn barrier<'a>(ops: impl Iterator<Item = &'a TailRow>) -> usize {
    let (mut bytes, mut all, mut within) = (0_u64, 0, 0);
    for row in ops {
        bytes = match row.kind {
            OpKind::Delete => 0,
            OpKind::Replace => row.bytes,
            OpKind::Create | OpKind::Update => bytes.saturating_add(row.bytes),
        };
        all += 1;
        if bytes <= limits::OP_BYTES as u64 {
            within = all;
        }
    }
    within.max(1).min(all.max(1))
}

/// Returns whether ops are so large that checking the limit is worth the cost.
pub(super) fn is_bulky<'a>(ops: impl Iterator<Item = &'a TailRow>) -> bool {
    ops.map(|row| row.bytes).fold(0, u64::saturating_add) > limits::OP_BYTES as u64 / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Actor;
    use crate::rules::test_view::{TestView, key};
    use crate::time::{Hlc, WallTime};

    fn row(kind: OpKind, bytes: usize) -> TailRow {
        TailRow {
            op: crate::ids::OpId::from_bytes([0; 16]),
            key: key("a"),
            kind,
            actor: Actor::parse("ann").unwrap(),
            edited_at: Hlc::ZERO,
            made_at: WallTime::default(),
            schema_version: 1,
            upcast: None,
            transaction_ops: 1,
            bytes: bytes as u64,
            references: Vec::new(),
            led_away: Vec::new(),
        }
    }

    #[track_caller]
    fn together(ops: &[(OpKind, usize)], expected: usize) {
        let rows: Vec<_> = ops.iter().map(|(kind, bytes)| row(*kind, *bytes)).collect();
        assert_eq!(barrier(rows.iter()), expected, "{ops:?}");
    }

    #[test]
    fn ops_that_are_over_the_limit_together_go_one_after_the_other() {
        use OpKind::{Create, Delete, Replace, Update};
        let most = limits::OP_BYTES;
        together(&[(Create, most)], 1);
        together(&[(Create, most / 2), (Update, most / 2)], 2);
        together(&[(Create, most / 2), (Update, most / 2), (Update, 2)], 2);
        together(&[(Create, most), (Update, 1), (Update, 1)], 1);
        together(&[(Create, most), (Update, most), (Delete, 0)], 3);
        together(&[(Create, most), (Update, most), (Replace, most)], 3);
        together(&[(Create, most), (Delete, 0), (Create, most), (Update, most)], 3);
        together(&[(Update, 2 * most), (Update, 1)], 1);
    }

    #[test]
    fn the_record_after_an_update_counts_and_what_an_update_takes_away() {
        let view = TestView::default().with("a", 1, 0, 1);
        let mut row = view.records[&key("a")].clone();
        let text = |bytes: usize| "x".repeat(bytes);
        let image =
            FieldsJson::parse(&format!(r#"{{"a":"{}"}}"#, text(limits::OP_BYTES - 20))).unwrap();
        if let Some(confirmed) = &mut row.confirmed {
            confirmed.fields = image;
        }
        let over =
            |kind, fields: &str| over(&row, kind, &FieldsJson::parse(fields).unwrap()).unwrap();
        assert_eq!(over(OpKind::Update, r#"{"b":1}"#), None);
        assert_eq!(over(OpKind::Update, r#"{"b":"0123456789012"}"#), Some(limits::OP_BYTES + 8));
        assert_eq!(
            over(OpKind::Update, &format!(r#"{{"a":null,"b":"{}"}}"#, text(1_000_000))),
            None
        );
        assert_eq!(over(OpKind::Replace, &format!(r#"{{"b":"{}"}}"#, text(1_000_000))), None);
    }
}
