//! The fields of a record: a JSON object whose members are the units of change.
//!
//! ```text
//!   image    {"name":"Ann","phone":"555"}       the content of a record; no member is null
//!   patch    {"phone":null,"stage":"hot"}       the content of an update; a null removes the field
//!   apply    image + patch  = {"name":"Ann","stage":"hot"}
//!   compose  patch + patch' = patch''           later members win, nulls are kept
//! ```
//!
//! Invariants:
//! 1. `apply(apply(image, p), q) == apply(image, compose(p, q))` for all images and patches.
//! 2. A field is a *top-level* member and is set whole: values are never merged inside.
//!    `docs/decisions/0002-fields-are-top-level-members.md` explains why the recursion of RFC 7396
//!    would break invariant 1.
//! 3. [`FieldsJson`] has the one form of `canonical` at every depth, and its values nest at most
//!    [`limits::FIELD_LEVELS`] deep.
//! 4. No number is rounded: a number that cannot be kept exactly is refused.
//!
//! What it is not: a schema. A field may have any JSON value.

mod canonical;
mod fault;
mod number;
mod patch_text;
mod rewrite;
mod scan;
mod stored;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::limits;

pub use canonical::is_json;
pub use fault::InvalidFields;
pub(crate) use patch_text::values_of;
pub use stored::FieldsJson;

/// Fields as values: an image of a record or a patch of one.
#[derive(Clone, PartialEq, Default, Serialize)]
#[serde(transparent)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// Returns no fields at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks a JSON value and makes fields of its members.
    ///
    /// # Errors
    /// [`InvalidFields`] if it is not an object, nests too deep, is too large, or has an invalid
    /// field name.
    pub fn from_value(value: Value) -> Result<Self, InvalidFields> {
        let Value::Object(members) = value else {
            return Err(InvalidFields::NotAnObject { line: 0, column: 0 });
        };
        let fields = Self(members);
        fields.checked()?;
        Ok(fields)
    }

    /// Checks the limits, which fields built member by member may break, and returns the JSON form.
    ///
    /// # Errors
    /// [`InvalidFields`] if the fields nest too deep, are too large, have an invalid name, or
    /// contain a number that cannot be kept exactly.
    pub fn checked(&self) -> Result<FieldsJson, InvalidFields> {
        self.written()?.of_one_op()
    }

    /// Returns the JSON form of fields of any size.
    ///
    /// # Errors
    /// As for [`Self::checked`], but for the size.
    pub(crate) fn written(&self) -> Result<FieldsJson, InvalidFields> {
        if self.0.keys().any(|name| name.is_empty() || name.len() > limits::FIELD_NAME_BYTES) {
            return Err(InvalidFields::FieldName);
        }
        match rewrite::of_members(&self.0) {
            (_, Some(fault)) => Err(fault),
            (json, None) => Ok(FieldsJson(json.into())),
        }
    }

    /// Parses and checks JSON text. Numbers keep their value exactly, or are refused.
    ///
    /// # Errors
    /// [`InvalidFields`], with the place of the fault where the text is not JSON.
    pub fn parse(text: &str) -> Result<Self, InvalidFields> {
        FieldsJson::parse(text)?.to_fields()
    }

    /// Returns the value of a field.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Returns whether the field exists, with a null too.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Sets a field, to null too.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.0.insert(name.into(), value.into());
    }

    /// Removes a field and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// Returns the fields in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Returns the names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Returns the number of fields.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Applies a patch to an image: a null removes the field, any other value sets it.
    pub fn apply(&mut self, patch: &Self) {
        for (name, value) in &patch.0 {
            if value.is_null() {
                self.0.remove(name);
            } else {
                self.0.insert(name.clone(), value.clone());
            }
        }
    }

    /// Composes a later patch with this one: the later members win, and nulls are kept.
    pub fn compose(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    /// Removes the fields that are null. So a patch, or a create with nulls, becomes an image.
    #[must_use]
    pub fn into_image(mut self) -> Self {
        self.0.retain(|_, value| !value.is_null());
        self
    }

    /// Returns the patch that changes this image into `after`.
    pub fn patch_to(&self, after: &Self) -> Self {
        let changed = after.0.iter().filter(|(name, value)| self.0.get(*name) != Some(value));
        let mut patch: Map<_, _> =
            changed.map(|(name, value)| (name.clone(), value.clone())).collect();
        patch.extend(
            self.0
                .keys()
                .filter(|name| !after.0.contains_key(*name))
                .map(|name| (name.clone(), Value::Null)),
        );
        Self(patch)
    }

    /// Returns only the fields whose names pass `keep`.
    #[must_use]
    pub fn filtered(&self, mut keep: impl FnMut(&str) -> bool) -> Self {
        let kept = self.0.iter().filter(|(name, _)| keep(name));
        Self(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    /// Returns the one form as text, for fields that were checked or were made of checked fields.
    pub fn to_json(&self) -> FieldsJson {
        FieldsJson(rewrite::of_members(&self.0).0.into())
    }

    /// Returns the members.
    pub fn into_map(self) -> Map<String, Value> {
        self.0
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_value(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl FromIterator<(String, Value)> for Fields {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(members: I) -> Self {
        Self(members.into_iter().collect())
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fields({} fields)", self.0.len())
    }
}

fn not_an_object(error: &serde_json::Error) -> InvalidFields {
    InvalidFields::NotAnObject { line: error.line(), column: error.column() }
}

#[cfg(test)]
mod tests;
