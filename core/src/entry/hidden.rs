//! A value that a bundle left out, as the rules and the reader see it.
//!
//! A hidden item reads as fields with one field more, [`NOT_IN_BUNDLE`]. So a record with a hidden
//! value never looks like one without values, whoever shows it. The field says which entry has the
//! value: two different hidden values are not taken for the same one.

use crate::fields::{Fields, FieldsJson, InvalidFields};
use crate::numbers::Seq;

/// Stands for what a bundle left out: the name of a field, or the text itself.
pub const NOT_IN_BUNDLE: &str = "(not in this bundle)";

/// Returns the fields of a hidden item: those that the bundle tells, and the one that stands for
/// the others.
pub(super) fn fields(told: &[u8], seq: Seq) -> Result<FieldsJson, InvalidFields> {
    let mut fields = match told {
        [] => Fields::new(),
        told => FieldsJson::from_stored(told)?.to_fields()?,
    };
    fields.set(NOT_IN_BUNDLE, format!("values of entry {seq}"));
    Ok(fields.to_json())
}
