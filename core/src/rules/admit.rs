//! Decides whether a mutation may be written.
//!
//! | the app asks for ↓ / it reads → | a record | no record |
//! |---|---|---|
//! | create  | refused: exists | an op |
//! | update  | an op, or nothing if no field differs | refused: missing |
//! | replace | an op, or nothing if the image is the same | refused: missing |
//! | delete  | an op | refused: missing |
//!
//! Invariants:
//! 1. A refused mutation changes nothing, and its error names the field or the limit.
//! 2. A save without a change makes no op. An update's op has only the fields that differ.
//! 3. No write makes a record with more fields than a server accepts. An op that lowers the number
//!    of fields of such a record is allowed.
//!
//! `images` admits the mutations of one call, one after the other.

mod images;

pub use images::{AdmittedOp, NotAdmitted, SeenRecord};

use crate::fields::{FieldsJson, InvalidFields};
use crate::limits;
use crate::names::{EntityType, RecordKey};
use crate::op::{Mutation, OpKind};
use crate::schema::Schema;

/// A mutation that is not valid. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// A create of a record that the app can read.
    #[error("{0} exists already: use an update or a replace")]
    Exists(RecordKey),
    /// An update, replace or delete of a record that the app cannot read.
    #[error("{0} does not exist: create it first")]
    Missing(RecordKey),
    /// A record that was changed each time while the app edited it.
    #[error("{0} was changed by others each time while it was edited: try again")]
    KeepsChanging(RecordKey),
    /// The entity type was not declared.
    #[error("entity type {0} is not declared in the book's schema")]
    UnknownEntity(EntityType),
    /// The fields break a limit.
    #[error("{key}: {fault}")]
    Fields {
        /// The record.
        key: RecordKey,
        /// The fault.
        #[source]
        fault: InvalidFields,
    },
    /// The record would have more fields than a server accepts.
    #[error(
        "{key} would have {fields} fields, over the limit of {}: take some away, or use a second record",
        limits::RECORD_FIELDS
    )]
    TooManyFields {
        /// The record.
        key: RecordKey,
        /// The number of fields that the record would have.
        fields: usize,
    },
    /// The transaction has too many ops.
    #[error(
        "a transaction of {ops} ops is over the limit of {}: split it",
        limits::TRANSACTION_OPS
    )]
    TooManyOps {
        /// The number of its ops.
        ops: usize,
    },
    /// The transaction has too many bytes.
    #[error(
        "a transaction of {bytes} bytes is over the limit of {}: split it",
        limits::TRANSACTION_BYTES
    )]
    TooManyBytes {
        /// The number of its bytes.
        bytes: usize,
    },
}

/// Decides on one mutation of a record. The app reads the record as `image`.
///
/// Returns the fields of the op: an image, or the fields that differ, and nothing for a delete.
/// Returns `None` if there is nothing to write. Fields are compared as text, because equal values
/// have equal text.
///
/// # Errors
/// [`Rejected`], by the table above or for a broken limit; [`NotAdmitted::Damaged`] if the image
/// cannot be read.
pub fn admit(
    schema: &Schema,
    image: Option<&FieldsJson>,
    mutation: &Mutation,
) -> Result<Option<FieldsJson>, NotAdmitted> {
    let key = &mutation.key;
    let refused = |fault| Rejected::Fields { key: key.clone(), fault };
    if schema.rules(&key.entity).is_none() {
        return Err(Rejected::UnknownEntity(key.entity.clone()).into());
    }
    let written = || mutation.fields.written().map_err(refused);
    let json = match (mutation.kind, image) {
        (OpKind::Create, Some(_)) => return Err(Rejected::Exists(key.clone()).into()),
        (OpKind::Create, None) => written()?.into_owned(),
        (_, None) => return Err(Rejected::Missing(key.clone()).into()),
        (OpKind::Delete, Some(_)) => return Ok(Some(FieldsJson::default())),
        (OpKind::Update, Some(image)) => {
            let changed = image.changed_by(&*written()?).map_err(NotAdmitted::Damaged)?;
            if changed.is_empty() {
                return Ok(None);
            }
            changed
        }
        (OpKind::Replace, Some(image)) => {
            let whole = written()?.into_owned().into_image().map_err(NotAdmitted::Damaged)?;
            if whole == *image {
                return Ok(None);
            }
            whole
        }
    };
    // Only the fields that are written count: a save that names a whole large record may change one
    // field of it.
    let json = json.of_one_op().map_err(refused)?;
    let too_many = too_many(image, mutation.kind, &json).map_err(NotAdmitted::Damaged)?;
    match too_many {
        Some(fields) => Err(Rejected::TooManyFields { key: key.clone(), fields }.into()),
        None => Ok(Some(json)),
    }
}

/// Checks the limits of a transaction as a whole.
///
/// # Errors
/// [`Rejected::TooManyOps`] or [`Rejected::TooManyBytes`].
pub fn admit_transaction(ops: usize, bytes: usize) -> Result<(), Rejected> {
    if ops > limits::TRANSACTION_OPS {
        return Err(Rejected::TooManyOps { ops });
    }
    if bytes > limits::TRANSACTION_BYTES {
        return Err(Rejected::TooManyBytes { bytes });
    }
    Ok(())
}

/// Returns the number of fields of a record after an op, if it is too large. An op that lowers the
/// number is always allowed, even if the record still has too many after it.
fn too_many(
    image: Option<&FieldsJson>,
    kind: OpKind,
    written: &FieldsJson,
) -> Result<Option<usize>, InvalidFields> {
    let bytes = written.as_str().len() + image.map_or(0, |image| image.as_str().len());
    if bytes < limits::RECORD_FIELDS * MEMBER_BYTES {
        return Ok(None);
    }
    let written = written.names()?;
    let image = image.map(FieldsJson::names).transpose()?.unwrap_or_default();
    let has = |name: &str| image.binary_search_by(|(known, _)| known.as_str().cmp(name)).is_ok();
    let before = image.len();
    let after = if kind == OpKind::Update {
        let added = written.iter().filter(|(name, is_null)| !is_null && !has(name)).count();
        let removed = written.iter().filter(|(name, is_null)| *is_null && has(name)).count();
        before.saturating_add(added).saturating_sub(removed)
    } else {
        written.iter().filter(|(_, is_null)| !is_null).count()
    };
    Ok((after > limits::RECORD_FIELDS && after >= before).then_some(after))
}

/// The fewest bytes of a member with the comma before it or the brace: `,"a":1`.
const MEMBER_BYTES: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::Fields;
    use crate::schema::EntityRules;
    use serde_json::json;

    fn key() -> RecordKey {
        RecordKey::parse("lead", "1").unwrap()
    }

    fn fields(value: serde_json::Value) -> Fields {
        Fields::from_value(value).unwrap()
    }

    fn decide(
        image: Option<serde_json::Value>,
        mutation: &Mutation,
    ) -> Result<Option<Fields>, Rejected> {
        let image = image.map(|image| fields(image).to_json());
        let decide = |mutation: &Mutation| {
            admit(&Schema::open(EntityRules::default()), image.as_ref(), mutation).map_err(rejected)
        };
        let admitted = decide(mutation);
        if let Ok(json) = mutation.fields.to_fields().unwrap().checked() {
            let text = Mutation { fields: json.into(), ..mutation.clone() };
            assert_eq!(decide(&text), admitted, "text and values give the same result");
        }
        Ok(admitted?.map(|json| json.to_fields().unwrap()))
    }

    fn rejected(error: NotAdmitted) -> Rejected {
        match error {
            NotAdmitted::Rejected(rejected) => rejected,
            NotAdmitted::Damaged(fault) => panic!("{fault}"),
        }
    }

    #[test]
    fn a_create_of_what_is_there_is_refused() {
        let create = Mutation::create(key(), fields(json!({"a": 1})));
        assert_eq!(decide(Some(json!({})), &create), Err(Rejected::Exists(key())));
        assert_eq!(decide(None, &create), Ok(Some(fields(json!({"a": 1})))));
    }

    #[test]
    fn an_update_or_a_delete_of_what_is_not_there_is_refused() {
        assert_eq!(
            decide(None, &Mutation::update(key(), fields(json!({"a": 1})))),
            Err(Rejected::Missing(key()))
        );
        assert_eq!(decide(None, &Mutation::delete(key())), Err(Rejected::Missing(key())));
        assert_eq!(
            decide(None, &Mutation::replace(key(), Fields::new())),
            Err(Rejected::Missing(key()))
        );
    }

    #[test]
    fn an_update_keeps_only_the_fields_that_differ() {
        let update = Mutation::update(key(), fields(json!({"a": 1, "b": 2, "c": null, "d": null})));
        assert_eq!(
            decide(Some(json!({"a": 1, "b": 1, "c": 1})), &update),
            Ok(Some(fields(json!({"b": 2, "c": null}))))
        );
    }

    #[test]
    fn a_save_that_changes_nothing_writes_nothing() {
        assert_eq!(
            decide(Some(json!({"a": 1})), &Mutation::update(key(), fields(json!({"a": 1})))),
            Ok(None)
        );
        assert_eq!(
            decide(
                Some(json!({"a": 1})),
                &Mutation::replace(key(), fields(json!({"a": 1, "b": null})))
            ),
            Ok(None)
        );
    }

    #[test]
    fn a_number_with_a_sign_is_another_than_the_one_without_also_below_an_escaped_name() {
        for name in ["a", "a\n"] {
            let update = Mutation::update(key(), fields(json!({name: -0.0, "b": 1})));
            assert_eq!(
                decide(Some(json!({name: 0.0, "b": 1})), &update),
                Ok(Some(fields(json!({name: -0.0}))))
            );
            let same = Mutation::update(key(), fields(json!({name: 0.0})));
            assert_eq!(decide(Some(json!({name: 0.0, "b": 1})), &same), Ok(None));
        }
    }

    #[test]
    fn a_save_of_a_record_larger_than_an_op_carries_what_differs() {
        let large = |name: &str| (name.to_owned(), json!("x".repeat(limits::OP_BYTES / 2)));
        let mut image: Fields = [large("a"), large("b"), large("c")].into_iter().collect();
        let before = image.to_json();
        image.set("d", 1);
        let schema = Schema::open(EntityRules::default());
        let admitted = admit(&schema, Some(&before), &Mutation::update(key(), image));
        assert_eq!(admitted.unwrap().unwrap().as_str(), r#"{"d":1}"#);
    }

    #[test]
    fn an_entity_type_that_was_not_declared_is_refused() {
        let create = Mutation::create(key(), Fields::new());
        let refused = admit(&Schema::closed(), None, &create);
        assert_eq!(refused.map_err(rejected), Err(Rejected::UnknownEntity(key().entity)));
    }

    #[test]
    fn fields_over_the_limit_are_refused_however_they_were_built() {
        let mut large = Fields::new();
        large.set("a", "x".repeat(limits::OP_BYTES));
        assert!(matches!(
            decide(None, &Mutation::create(key(), large)),
            Err(Rejected::Fields { .. })
        ));
        let mut deep = serde_json::json!(1);
        for _ in 0..200 {
            deep = json!([deep]);
        }
        let deep = Fields::from_iter([("a".to_owned(), deep)]);
        assert!(matches!(
            decide(None, &Mutation::create(key(), deep)),
            Err(Rejected::Fields { .. })
        ));
    }

    /// Makes fields with the names from `from` on, each with this value.
    fn many(from: usize, count: usize, value: &serde_json::Value) -> Fields {
        (from..from + count).map(|number| (format!("{number:05}"), value.clone())).collect()
    }

    #[test]
    fn a_record_has_as_many_fields_as_a_server_takes_and_no_more() {
        const MOST: usize = limits::RECORD_FIELDS;
        let schema = Schema::open(EntityRules::default());
        let decide = |image: Option<&Fields>, mutation: Mutation| {
            let image = image.map(Fields::to_json);
            admit(&schema, image.as_ref(), &mutation)
                .map(|admitted| admitted.is_some())
                .map_err(rejected)
        };
        let over = |fields| Err(Rejected::TooManyFields { key: key(), fields });
        let (one, full) = (json!(1), many(0, MOST, &json!(1)));
        assert_eq!(decide(None, Mutation::create(key(), full.clone())), Ok(true));
        assert_eq!(decide(None, Mutation::create(key(), many(0, MOST + 1, &one))), over(MOST + 1));
        // The limit counts the fields of the record after the update, however few fields the update
        // has.
        assert_eq!(decide(Some(&full), Mutation::update(key(), many(0, 1, &json!(2)))), Ok(true));
        assert_eq!(
            decide(Some(&full), Mutation::update(key(), many(MOST, 1, &one))),
            over(MOST + 1)
        );
        let mut exchanged = many(MOST, 2, &one);
        exchanged.compose(many(0, 2, &json!(null)));
        assert_eq!(decide(Some(&full), Mutation::update(key(), exchanged)), Ok(true));
        // Nulls are no fields of an image.
        let mut with_nulls = full.clone();
        with_nulls.compose(many(MOST, 5, &json!(null)));
        assert_eq!(decide(None, Mutation::create(key(), with_nulls.clone())), Ok(true));
        assert_eq!(decide(Some(&Fields::new()), Mutation::replace(key(), with_nulls)), Ok(true));
        let replaced = decide(Some(&full), Mutation::replace(key(), many(0, MOST + 1, &one)));
        assert_eq!(replaced, over(MOST + 1));
        assert_eq!(decide(Some(&full), Mutation::delete(key())), Ok(true));
    }

    #[test]
    fn what_takes_fields_away_from_a_record_with_too_many_is_written() {
        let beyond = many(0, limits::RECORD_FIELDS + 9, &json!(1));
        let schema = Schema::open(EntityRules::default());
        let update = |value| Mutation::update(key(), many(0, 2, &value));
        let image = beyond.to_json();
        assert!(admit(&schema, Some(&image), &update(json!(null))).is_ok());
        let over = Rejected::TooManyFields { key: key(), fields: beyond.len() };
        assert_eq!(admit(&schema, Some(&image), &update(json!(2))).map_err(rejected), Err(over));
    }

    #[test]
    fn a_transaction_may_be_as_large_as_its_limits_and_no_larger() {
        let (ops, bytes) = (limits::TRANSACTION_OPS, limits::TRANSACTION_BYTES);
        assert_eq!(admit_transaction(ops, bytes), Ok(()));
        assert_eq!(admit_transaction(ops + 1, bytes), Err(Rejected::TooManyOps { ops: ops + 1 }));
        assert_eq!(
            admit_transaction(ops, bytes + 1),
            Err(Rejected::TooManyBytes { bytes: bytes + 1 })
        );
    }
}
