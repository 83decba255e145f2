//! A record as one call of the app reads it: the stored record, with the call's earlier mutations
//! applied.
//!
//! ```text
//!   stored image ─► admit 1st mutation ─► its op, and the image after it ─► admit 2nd mutation ─► …
//! ```
//!
//! Invariants:
//! 1. Each mutation of a call is admitted on the image after the mutations before it, although
//!    nothing is written yet.
//! 2. A mutation that is refused, or changes nothing, leaves the image as it is.
//! 3. The app reads the image through the upcasters of its entity type (`read_through`). The stored
//!    image is as it was written.
//! 4. The server's version, and the stamps that the author read, are those of the stored record:
//!    nobody else can have read the earlier ops of the same call.

use std::borrow::Cow;

use super::{Rejected, admit};
use crate::fields::{Fields, FieldsJson, InvalidFields};
use crate::numbers::Version;
use crate::op::{Mutation, OpKind};
use crate::rules::{apply_to_text, read_through};
use crate::schema::{EntityRules, Schema};
use crate::time::Hlc;

/// A record as a call reads it. Its image stays text, because most records are read only once, to
/// find that they do not exist.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenRecord {
    /// The image, or `None` if the record does not exist for the call.
    pub image: Option<FieldsJson>,
    /// The version that the server confirmed, if there is one.
    pub base: Option<Version>,
    /// The latest stamp of the record that the author read.
    pub read: Hlc,
}

/// A mutation that may be written, with the fields of its op.
#[derive(Debug, Clone, PartialEq)]
pub struct AdmittedOp {
    /// The mutation.
    pub mutation: Mutation,
    /// An image, or the fields that differ; none for a delete.
    pub json: Option<FieldsJson>,
    /// The version of the record that is confirmed.
    pub base: Option<Version>,
    /// The latest stamp of the record that its author read.
    pub read: Hlc,
    /// The schema version that the app declares for its entity type.
    pub schema_version: u32,
}

/// The reason why a mutation was not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// The mutation is not valid.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The stored image cannot be read.
    #[error("the stored image is damaged")]
    Damaged(#[source] InvalidFields),
}

impl SeenRecord {
    /// Returns the values of the image as the app reads it, by the rules of its entity type.
    ///
    /// # Errors
    /// [`InvalidFields`] if the stored image is damaged.
    pub fn fields(&self, rules: Option<&EntityRules>) -> Result<Option<Fields>, InvalidFields> {
        let Some(image) = &self.image else { return Ok(None) };
        match rules {
            Some(rules) => rules.read_values(image.as_str()).map(Some),
            None => image.to_fields().map(Some),
        }
    }

    /// Decides on a mutation of the record, and applies it to the image. Returns its op, or `None`
    /// if there is nothing to write.
    ///
    /// # Errors
    /// [`NotAdmitted`].
    pub fn admit(
        &mut self,
        schema: &Schema,
        mutation: Mutation,
    ) -> Result<Option<AdmittedOp>, NotAdmitted> {
        let Some(json) = self.decide(schema, &mutation)? else { return Ok(None) };
        let rules = schema.rules(&mutation.key.entity);
        let rules = rules.ok_or_else(|| Rejected::UnknownEntity(mutation.key.entity.clone()))?;
        let after = apply_to_text(self.image.as_ref(), mutation.kind, json.clone());
        self.image = after.map_err(NotAdmitted::Damaged)?;
        let json = (mutation.kind != OpKind::Delete).then_some(json);
        let (base, read, schema_version) = (self.base, self.read, rules.schema_version);
        Ok(Some(AdmittedOp { mutation, json, base, read, schema_version }))
    }
}

impl SeenRecord {
    /// Decides on a mutation of the record as the app reads it.
    fn decide(
        &self,
        schema: &Schema,
        mutation: &Mutation,
    ) -> Result<Option<FieldsJson>, NotAdmitted> {
        let rules = schema.declared_rules(&mutation.key.entity);
        let (Some(image), Some(rules)) =
            (&self.image, rules.filter(|rules| rules.form().is_some()))
        else {
            return admit(schema, self.image.as_ref(), mutation);
        };
        let damaged = NotAdmitted::Damaged;
        let Cow::Owned(read) = rules.read_text(image.as_str()).map_err(damaged)? else {
            return admit(schema, self.image.as_ref(), mutation);
        };
        let read = FieldsJson::from_stored_text(&read);
        let (stored, seen) =
            (image.to_fields().map_err(damaged)?, read.to_fields().map_err(damaged)?);
        if mutation.kind == OpKind::Update
            && let Ok(patch) = mutation.fields.to_fields()
            && read_through::is_of_stored(&stored, &seen, &patch)
        {
            return admit(schema, self.image.as_ref(), mutation);
        }
        let Some(json) = admit(schema, Some(&read), mutation)? else { return Ok(None) };
        if mutation.kind != OpKind::Update {
            return Ok(Some(json));
        }
        let patch = json.to_fields().map_err(damaged)?;
        let whole = read_through::complete(rules, &stored, &seen, patch);
        if whole.is_empty() {
            return Ok(None);
        }
        let whole = whole.checked();
        let fault = |fault| Rejected::Fields { key: mutation.key.clone(), fault };
        Ok(Some(whole.map_err(fault)?.of_one_op().map_err(fault)?))
    }
}

impl AdmittedOp {
    /// Returns the size of its fields, in bytes.
    pub fn bytes(&self) -> usize {
        self.json.as_ref().map_or(0, |json| json.as_str().len())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::rules::test_view::{fields, key};
    use crate::schema::EntityRules;

    fn schema() -> Schema {
        Schema::open(EntityRules { schema_version: 7, ..EntityRules::default() })
    }

    fn seen(image: Option<Value>) -> SeenRecord {
        let image = image.map(|image| fields(image).to_json());
        SeenRecord { image, base: Some(Version::new(3)), read: Hlc::from_bits(9) }
    }

    #[track_caller]
    fn written(seen: &mut SeenRecord, mutation: Mutation) -> Option<Value> {
        let op = seen.admit(&schema(), mutation).unwrap()?;
        Some(op.json.map_or(Value::Null, |json| serde_json::from_str(json.as_str()).unwrap()))
    }

    fn image(seen: &SeenRecord) -> Option<Value> {
        seen.fields(None).unwrap().map(|fields| Value::Object(fields.into_map()))
    }

    #[test]
    fn a_later_mutation_sees_what_the_earlier_ones_of_its_call_did() {
        let mut lead = seen(None);
        assert_eq!(
            written(&mut lead, Mutation::create(key("1"), fields(json!({"a": 1})))),
            Some(json!({"a": 1}))
        );
        let update = Mutation::update(key("1"), fields(json!({"a": 1, "b": 2})));
        assert_eq!(written(&mut lead, update), Some(json!({"b": 2})), "only what differs by now");
        assert_eq!(image(&lead), Some(json!({"a": 1, "b": 2})));
        assert_eq!(written(&mut lead, Mutation::delete(key("1"))), Some(Value::Null));
        let gone = lead.admit(&schema(), Mutation::delete(key("1")));
        assert_eq!(gone, Err(NotAdmitted::Rejected(Rejected::Missing(key("1")))));
        assert_eq!(
            written(&mut lead, Mutation::create(key("1"), fields(json!({"c": 1})))),
            Some(json!({"c": 1}))
        );
    }

    #[test]
    fn what_is_refused_or_changes_nothing_leaves_the_image_as_it_is() {
        let mut lead = seen(Some(json!({"a": 1})));
        let create = lead.admit(&schema(), Mutation::create(key("1"), fields(json!({"b": 1}))));
        assert_eq!(create, Err(NotAdmitted::Rejected(Rejected::Exists(key("1")))));
        assert_eq!(written(&mut lead, Mutation::update(key("1"), fields(json!({"a": 1})))), None);
        assert_eq!(lead, seen(Some(json!({"a": 1}))));
    }

    #[test]
    fn an_op_names_what_its_author_read_of_the_stored_record() {
        let mut lead = seen(Some(json!({"a": 1})));
        for value in [2, 3] {
            let update = Mutation::update(key("1"), fields(json!({ "a": value })));
            let op = lead.admit(&schema(), update).unwrap().unwrap();
            let expected = (Some(Version::new(3)), Hlc::from_bits(9), 7);
            assert_eq!((op.base, op.read, op.schema_version), expected);
            assert_eq!(op.bytes(), r#"{"a":2}"#.len());
        }
        let delete = lead.admit(&schema(), Mutation::delete(key("1"))).unwrap().unwrap();
        assert_eq!((delete.json.is_none(), delete.bytes()), (true, 0));
    }

    #[test]
    fn a_record_of_an_older_version_is_admitted_as_the_app_reads_it() {
        let rules = EntityRules { schema_version: 2, ..EntityRules::default() };
        let rules = rules.rename_from(1, "tel", "phone");
        let schema = Schema::closed().declare(key("1").entity, rules.clone());
        let decided = |mutation| {
            let mut lead = seen(Some(json!({"tel": "1", "name": "Ann"})));
            let op = lead.admit(&schema, mutation).unwrap()?;
            Some((
                op.json.unwrap().to_fields().unwrap(),
                lead.fields(Some(&rules)).unwrap().unwrap(),
            ))
        };
        let update = |value| Mutation::update(key("1"), fields(value));
        assert_eq!(decided(update(json!({"phone": "1"}))), None, "the app reads it so already");
        assert_eq!(
            decided(update(json!({"phone": "2"}))),
            Some((
                fields(json!({"phone": "2", "tel": null})),
                fields(json!({"phone": "2", "name": "Ann"}))
            ))
        );
        assert_eq!(
            decided(update(json!({"tel": "2"}))),
            Some((fields(json!({"tel": "2"})), fields(json!({"phone": "2", "name": "Ann"})))),
            "an update under the stored name is what the app reads too"
        );
        let whole = fields(json!({"phone": "1", "name": "Ann"}));
        assert_eq!(decided(Mutation::replace(key("1"), whole)), None);
    }

    #[test]
    fn a_stored_image_that_does_not_read_is_said_to_be_damaged() {
        let image = Some(FieldsJson::from_stored(b"{").unwrap());
        let mut lead = SeenRecord { image, ..seen(None) };
        let update = lead.admit(&schema(), Mutation::update(key("1"), fields(json!({"a": 1}))));
        assert!(matches!(update, Err(NotAdmitted::Damaged(_))), "{update:?}");
    }
}
