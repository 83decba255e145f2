//! Bounds records that a server sends in parts. A record that its parts make too large could not be
//! sent or stored.
//!
//! Invariants:
//! 1. An answer with whole records only has no cost here.
//! 2. A part that would make a record too large is set aside, and the record stays as it was.

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

/// Returns whether a part from the server would make its record too large.
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

/// Returns the decision that sets a change of the server aside.
pub(super) fn set_aside(
    change: &Change,
    items: &mut Items,
    random: &mut dyn Randomness,
) -> Decision {
    let name = items.add(change.key.to_string(), random);
    let row = change.fields.as_ref().map(|fields| items.add_fields(fields, random));
    Decision::SetAside { fault: "size".to_owned(), version: Some(change.version), name, row }
}

/// Returns whether an answer sends parts of records.
pub(super) fn has_parts(answer: &ExchangeAnswer) -> bool {
    let of_outcomes = answer.outcomes.iter().flat_map(|answered| current(&answered.outcome));
    answer.changes.iter().chain(of_outcomes).any(|change| change.partial)
}

/// Returns the size of a confirmed record with a part applied to it.
fn exactly(confirmed: Option<&FieldsJson>, change: &Change) -> Option<usize> {
    let mut image = confirmed?.to_fields().ok()?;
    image.apply(&change.fields.as_ref()?.to_fields().ok()?);
    Some(size(&image.to_json()))
}

fn size(fields: &FieldsJson) -> usize {
    fields.as_bytes().len()
}
