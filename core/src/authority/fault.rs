//! The faults for which the server refuses a unit for good. Each has a code for machines and a text
//! with advice.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::Quota;
use super::row::Row;
use crate::fields::{FieldsJson, InvalidFields};
use crate::limits;
use crate::op::OpKind;
use crate::protocol::{Outcome, RecordSize, Unit};

/// The reason for a refusal: a code for machines and a text for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault(&'static str, &'static str);

/// The id was used for other content.
pub(super) const UNIT_REUSED: Fault =
    Fault("unit_reused", "another unit had this id: send the change under a new one");
/// The unit's work exceeds the budget of a request.
pub(super) const TOO_COSTLY: Fault =
    Fault("unit_too_large", "the unit changes too many large records at once: send fewer in one");
/// The tenant has the most entity types already.
pub(super) const TOO_MANY_ENTITY_TYPES: Fault = Fault(
    "too_many_entity_types",
    "a tenant has at most 1,000 entity types: use one that is there",
);

const TOO_LARGE: Fault =
    Fault("unit_too_large", "the unit's records are too large together: send fewer");
const RECORD_TOO_LARGE: Fault =
    Fault("record_too_large", "the record's fields would be over 1 MiB");
const TOO_MANY_FIELDS: Fault = Fault("too_many_fields", "a record has at most 10,000 fields");

impl From<Fault> for Outcome {
    fn from(Fault(code, message): Fault) -> Self {
        rejected(code, message)
    }
}

/// Refuses a unit for good.
pub(super) fn rejected(code: &str, message: &str) -> Outcome {
    Outcome::Rejected { code: code.to_owned(), message: message.to_owned() }
}

/// Returns the fault of a unit that does not depend on the content of the store.
pub(super) fn of(unit: &Unit) -> Option<Fault> {
    if unit.changes.is_empty() {
        return Some(Fault("no_changes", "a unit has at least one change"));
    }
    if unit.changes.len() > limits::TRANSACTION_OPS {
        return Some(Fault("too_many_changes", "a unit has at most 1,000 changes"));
    }
    if unit.earlier_units.len() > limits::TRANSACTION_OPS {
        return Some(Fault("too_many_earlier_units", "a unit names at most 1,000 earlier units"));
    }
    let mut keys = BTreeSet::new();
    for change in &unit.changes {
        if !keys.insert(&change.key) {
            return Some(Fault("duplicate_key", "each change of a unit is of another record"));
        }
        if change.ops.is_empty() {
            return Some(Fault("no_ops", "a change names at least one op"));
        }
        match (change.kind, &change.fields) {
            (OpKind::Delete, Some(_)) => {
                return Some(Fault("fields_present", "a delete has no fields"));
            }
            (OpKind::Create | OpKind::Update | OpKind::Replace, None) => {
                return Some(Fault("fields_missing", "create, update and replace have fields"));
            }
            _ => {}
        }
    }
    None
}

/// Returns the fault of a record that a unit would make.
pub(super) fn of_row(row: &Row) -> Result<Option<Fault>, InvalidFields> {
    let Some(fields) = &row.fields else { return Ok(None) };
    // A device reads no larger image, so one such record would stop every device.
    if fields.as_str().len() > limits::OP_BYTES {
        return Ok(Some(RECORD_TOO_LARGE));
    }
    Ok((count(fields)? > limits::RECORD_FIELDS).then_some(TOO_MANY_FIELDS))
}

/// Returns the fault of records that are too large together, as one commit or in one unit's
/// outcome.
pub(super) fn of_commit(size: RecordSize, quota: &Quota) -> Option<Fault> {
    (size.all() > quota.commit_bytes || size.head > limits::COMMIT_HEAD_BYTES).then_some(TOO_LARGE)
}

/// Returns the number of fields. If the text is too short for too many fields, the number is an
/// upper bound.
fn count(fields: &FieldsJson) -> Result<usize, InvalidFields> {
    struct Count;
    impl<'de> Visitor<'de> for Count {
        type Value = usize;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<usize, A::Error> {
            let mut count = 0;
            while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                count += 1;
            }
            Ok(count)
        }
    }
    /// The shortest field: `"a":1,`.
    const SHORTEST: usize = 6;
    let most = fields.as_str().len() / SHORTEST;
    if most <= limits::RECORD_FIELDS {
        return Ok(most);
    }
    serde_json::Deserializer::from_str(fields.as_str())
        .deserialize_map(Count)
        .map_err(|error| InvalidFields::NotAnObject { line: error.line(), column: error.column() })
}
