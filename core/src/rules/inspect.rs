//! Holds for the user a change that the server would only refuse.
//!
//! | a change that | is held as |
//! |---|---|
//! | refers, once coalesced, to a record that the server deleted | gone |
//! | the app's validator refuses in the form in which it would be sent | refused |
//! | makes the record larger than a server accepts ([`super::size`]) | too large |
//!
//! Invariants:
//! 1. Every plan checks again, and nothing is written down. The hold ends when the ops change (an
//!    edit, an undo, a discard), or when the record that it refers to exists again.
//! 2. A change is checked as it would be sent: ops that leave together are checked together.
//!
//! What it is not: a check of the app's writes. A user may save a record that is not ready to be
//! sent.

use std::collections::BTreeMap;

use super::View;
use super::answer::cut;
use super::freeze::{FreezeError, outgoing};
use super::group::Group;
use crate::fields::Fields;
use crate::hooks::Outgoing;
use crate::limits;
use crate::names::RecordKey;
use crate::op::OpKind;
use crate::rows::TailRow;
use crate::schema::Schema;

/// Checks a change before it is sent.
pub trait Inspect {
    /// Returns whether a record is known to be gone from the server.
    fn is_gone(&self, key: &RecordKey) -> bool;

    /// Returns why the app refuses to send a group.
    fn refusal(&self, group: &Group) -> Option<String>;

    /// Returns whether a record was over the size limit before, so that checking again is worth the
    /// cost.
    fn was_too_large(&self, _: &RecordKey) -> bool {
        false
    }

    /// Returns the size in bytes that a record's fields would have, if no op of a group can be sent
    /// because of this size.
    fn excess(&self, _: &Group) -> Option<usize> {
        None
    }

    /// Returns whether the server's state of a record refers to another record.
    fn refers(&self, from: &RecordKey, to: &RecordKey) -> bool;
}

/// A check that finds no fault.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoInspection;

impl Inspect for NoInspection {
    fn is_gone(&self, _: &RecordKey) -> bool {
        false
    }

    fn refusal(&self, _: &Group) -> Option<String> {
        None
    }

    fn refers(&self, _: &RecordKey, _: &RecordKey) -> bool {
        false
    }
}

/// Returns whether the server deleted a record, and the record has no pending op.
///
/// # Errors
/// The error of the view.
pub fn is_gone<V: View>(view: &mut V, key: &RecordKey) -> Result<bool, V::Error> {
    let row = view.record(key)?;
    Ok(row.is_some_and(|row| {
        row.tail.is_empty() && row.confirmed.is_some_and(|confirmed| confirmed.deleted)
    }))
}

/// Returns whether the server's state of a record refers to another record by a declared reference.
///
/// # Errors
/// [`FreezeError`] if the book cannot be read or is damaged.
pub fn refers<V: View>(
    view: &mut V,
    schema: &Schema,
    from: &RecordKey,
    to: &RecordKey,
) -> Result<bool, FreezeError<V::Error>>
where
    V::Error: std::error::Error,
{
    let row = view.record(from).map_err(FreezeError::View)?;
    let Some(image) = row.as_ref().and_then(|row| row.confirmed_image()) else { return Ok(false) };
    let image = as_read(schema, from, image.to_fields()?);
    let declared = schema.rules(&from.entity).map_or(&[][..], |rules| rules.references.as_slice());
    let is_it = |reference: &crate::schema::Reference| {
        let id = image.get(&reference.field).and_then(serde_json::Value::as_str);
        reference.entity == to.entity && id == Some(to.id.as_str())
    };
    Ok(declared.iter().any(is_it))
}

/// Returns why a validator of the app refuses a group.
///
/// # Errors
/// [`FreezeError`] if the book cannot be read or is damaged.
pub fn refusal<V: View>(
    view: &mut V,
    schema: &Schema,
    group: &Group,
) -> Result<Option<String>, FreezeError<V::Error>>
where
    V::Error: std::error::Error,
{
    for (key, places) in &group.records {
        let validator = schema.rules(&key.entity).and_then(|rules| rules.validator.as_ref());
        let Some(validator) = validator else { continue };
        let row = view.record(key).map_err(FreezeError::View)?.unwrap_or_default();
        let Some(sent) = outgoing(view, &row, places)? else { continue };
        let image = sent.image.map(|image| as_read(schema, key, image));
        let looked_at =
            Outgoing { key, kind: sent.kind, fields: &sent.fields, image: image.as_ref() };
        if let Err(reason) = validator.check(&looked_at) {
            return Ok(Some(cut(&reason, limits::MESSAGE_BYTES)));
        }
    }
    Ok(None)
}

/// Returns an image as the app reads it.
fn as_read(schema: &Schema, key: &RecordKey, image: Fields) -> Fields {
    let read = schema.declared_rules(&key.entity).and_then(|rules| rules.read(&image));
    read.unwrap_or(image)
}

/// Returns the records that ops of one record refer to after coalescing, oldest first.
pub(super) fn referred<'a>(ops: impl Iterator<Item = &'a TailRow>) -> Vec<&'a RecordKey> {
    let mut fields: BTreeMap<&str, Option<&RecordKey>> = BTreeMap::new();
    for row in ops {
        if row.kind != OpKind::Update {
            fields.clear();
        }
        fields.extend(
            row.references.iter().map(|found| (found.field.as_str(), found.target.as_ref())),
        );
    }
    fields.into_values().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::OpPlace;

    #[test]
    fn nothing_is_wrong_for_who_does_not_look() {
        let key = RecordKey::parse("lead", "1").unwrap();
        let actor = crate::names::Actor::parse("ann").unwrap();
        let records = vec![(key.clone(), vec![OpPlace::default()])];
        assert!(!NoInspection.is_gone(&key));
        assert!(!NoInspection.refers(&key, &key));
        assert_eq!(NoInspection.refusal(&Group { records, actor, absorbs: None }), None);
    }
}
