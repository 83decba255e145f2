//! Against what a change is judged: what both sides were when they were last the same, as its author knew it.
//!
//! | an op that → | its author had seen |
//! |---|---|
//! | waits for the first time | what is confirmed: a page that changed it was judged against it |
//! | was a dead letter, and is sent again | what was confirmed when it was sent first; pages passed it by |
//!
//! Invariants:
//! 1. An op that goes again keeps the base that it had, until it was judged against what the server has.
//! 2. It is sent for the version of that base if what is confirmed now differs where the op says something, so that the
//!    server gives its present record, and the two are judged with the stamps that the server knows.

use serde_json::Value;

use crate::fields::{Fields, FieldsJson, InvalidFields};
use crate::numbers::Version;
use crate::op::OpKind;
use crate::rows::{AuthorBase, RecordRow, TailRef};

/// Returns `base`, which is what is confirmed, with what the authors of ops that go again had seen in its place. Where two of
/// them had seen the same field differently, the earlier one counts.
///
/// # Errors
/// [`InvalidFields`] if stored text was damaged.
pub fn overlaid<'a>(
    mut base: Option<Fields>,
    references: impl DoubleEndedIterator<Item = &'a TailRef>,
) -> Result<Option<Fields>, InvalidFields> {
    for (reference, seen) in references.rev().filter_map(|found| Some((found, found.base.as_ref()?))) {
        let fields = seen.fields.as_ref().map(FieldsJson::to_fields).transpose()?;
        match (reference.kind, &mut base, fields) {
            (OpKind::Update, Some(base), Some(fields)) => base.compose(fields),
            (_, base, fields) => *base = fields,
        }
    }
    Ok(base)
}

/// Returns the version for which ops of a record are sent, each with the fields it still has.
///
/// # Errors
/// [`InvalidFields`] if stored text was damaged.
pub(super) fn version(row: &RecordRow, ops: &[(&TailRef, Fields)]) -> Result<Option<Version>, InvalidFields> {
    let confirmed = row.confirmed_image().map(FieldsJson::to_fields).transpose()?;
    for (reference, fields) in ops {
        let Some(AuthorBase { version, fields: seen }) = &reference.base else { continue };
        // A version that is not behind is of another life of the server, and says nothing of this one.
        if *version >= row.version() {
            continue;
        }
        let seen = seen.as_ref().map(FieldsJson::to_fields).transpose()?;
        if differs(reference.kind, fields, seen.as_ref(), confirmed.as_ref()) {
            return Ok(*version);
        }
    }
    Ok(row.version())
}

/// Returns whether what is confirmed is another thing than what an op's author had seen, where the op says something else.
fn differs(kind: OpKind, fields: &Fields, seen: Option<&Fields>, confirmed: Option<&Fields>) -> bool {
    let null = Value::Null;
    match (kind, confirmed) {
        (OpKind::Create | OpKind::Update, Some(confirmed)) => fields.iter().any(|(name, ours)| {
            let theirs = confirmed.get(name).unwrap_or(&null);
            theirs != ours && theirs != seen.and_then(|seen| seen.get(name)).unwrap_or(&null)
        }),
        (OpKind::Create, None) => false,
        (OpKind::Update | OpKind::Delete | OpKind::Replace, None) => seen.is_some(),
        (OpKind::Delete | OpKind::Replace, Some(confirmed)) => {
            seen.cloned().map(Fields::into_image).as_ref() != Some(confirmed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: Value) -> Fields {
        Fields::from_value(value).unwrap()
    }

    #[track_caller]
    fn expect(kind: OpKind, ours: Value, seen: Option<Value>, confirmed: Option<Value>, differing: bool) {
        let (seen, confirmed) = (seen.map(fields), confirmed.map(fields));
        assert_eq!(differs(kind, &fields(ours), seen.as_ref(), confirmed.as_ref()), differing);
    }

    #[test]
    fn an_update_differs_only_where_it_says_something_else_than_theirs() {
        let seen = || Some(json!({"a": 0, "b": null}));
        expect(OpKind::Update, json!({"a": 1}), seen(), Some(json!({"a": 0, "c": 9})), false);
        expect(OpKind::Update, json!({"a": 1}), seen(), Some(json!({"a": 5})), true);
        expect(OpKind::Update, json!({"a": 1}), seen(), Some(json!({"a": 1})), false);
        expect(OpKind::Update, json!({"b": 1}), seen(), Some(json!({"a": 5})), false);
        expect(OpKind::Update, json!({"b": 1}), seen(), Some(json!({"b": 2})), true);
        expect(OpKind::Update, json!({"a": 1}), seen(), None, true);
    }

    #[test]
    fn what_sets_or_takes_the_whole_record_differs_with_any_field() {
        for kind in [OpKind::Delete, OpKind::Replace] {
            expect(kind, json!({}), Some(json!({"a": 0})), Some(json!({"a": 0})), false);
            expect(kind, json!({}), Some(json!({"a": 0})), Some(json!({"a": 0, "b": 1})), true);
        }
    }

    #[test]
    fn a_creation_differs_if_someone_else_made_the_record_with_other_values() {
        expect(OpKind::Create, json!({"a": 1}), None, None, false);
        expect(OpKind::Create, json!({"a": 1}), None, Some(json!({"a": 1, "b": 1})), false);
        expect(OpKind::Create, json!({"a": 1}), None, Some(json!({"a": 2})), true);
        expect(OpKind::Create, json!({"a": 1}), Some(json!({"a": 2})), Some(json!({"a": 2})), false);
    }
}
