//! Records that a server sends in parts: together they must not become larger than a record may be, since then nobody could send
//! or store it.
//!
//! Invariants:
//! 1. An answer that sends whole records only costs nothing here.
//! 2. A part that would make a record too large is set aside on record, and the record stays as it was.

use std::collections::BTreeMap;

use super::outcomes::current;
use crate::entry::{Decision, Items};
use crate::fields::FieldsJson;
use crate::limits;
use crate::names::RecordKey;
use crate::protocol::{Change, ExchangeAnswer};
use crate::random::Randomness;
use crate::rows::RecordRow;
use crate::rules::View;

/// Returns whether a record would become too large by a part that the server sent of it.
pub(super) fn outgrows<V: View>(
    view: &mut V,
    sizes: &mut BTreeMap<RecordKey, usize>,
    change: &Change,
) -> Result<bool, V::Error> {
    let part = change.fields.as_ref().map_or(0, size);
    let mut grown = part;
    if change.partial && !change.deleted {
        let before = sizes.get(&change.key).copied();
        let row = view.record(&change.key)?.filter(|_| before.is_none());
        let confirmed = row.as_ref().and_then(RecordRow::confirmed_image);
        grown = before.or(confirmed.map(size)).unwrap_or(0).saturating_add(part);
        if grown > limits::OP_BYTES {
            grown = exactly(confirmed, change).unwrap_or(grown);
        }
    }
    let outgrows = change.partial && grown > limits::OP_BYTES;
    if !outgrows {
        sizes.insert(change.key.clone(), grown);
    }
    Ok(outgrows)
}

/// Puts on record that a change of the server was not taken.
pub(super) fn set_aside(change: &Change, items: &mut Items, random: &mut dyn Randomness) -> Decision {
    let name = items.add(change.key.to_string(), random);
    let row = change.fields.as_ref().map(|fields| items.add_fields(fields, random));
    Decision::SetAside { fault: "size".to_owned(), version: Some(change.version), name, row }
}

/// Returns whether an answer sends parts of records.
pub(super) fn has_parts(answer: &ExchangeAnswer) -> bool {
    let of_outcomes = answer.outcomes.iter().flat_map(|told| current(&told.outcome));
    answer.changes.iter().chain(of_outcomes).any(|change| change.partial)
}

/// Returns how large a confirmed record becomes by a part of it.
fn exactly(confirmed: Option<&FieldsJson>, change: &Change) -> Option<usize> {
    let mut image = confirmed?.to_fields().ok()?;
    image.apply(&change.fields.as_ref()?.to_fields().ok()?);
    Some(size(&image.to_json()))
}

fn size(fields: &FieldsJson) -> usize {
    fields.as_bytes().len()
}
