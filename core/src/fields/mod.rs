//! The fields of a record: a JSON object whose members are the units of change.
//!
//! ```text
//!   image    {"name":"Ann","phone":"555"}       what a record is; no member is null
//!   patch    {"phone":null,"stage":"hot"}       what an update does; null takes the field away
//!   apply    image + patch  = {"name":"Ann","stage":"hot"}
//!   compose  patch + patch' = patch''           later members win, nulls are kept
//! ```
//!
//! Invariants:
//! 1. `apply(apply(image, p), q) == apply(image, compose(p, q))` for all images and patches.
//! 2. A field is a *top-level* member and is set whole: values are never merged inside
//!    (`docs/decisions/0002-fields-are-top-level-members.md` says why RFC 7396's recursion would break invariant 1).
//! 3. [`FieldsJson`] is compact, its member names ascend strictly, and it nests at most [`limits::JSON_DEPTH`] deep.
//!
//! What it is not: a schema. Any JSON value may stand in a field.

mod form;
mod stored;
mod text;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::limits;

pub use form::is_json;
pub use stored::FieldsJson;

/// JSON that cannot be the fields of a record. Names the field where one is at fault, never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidFields {
    /// Not a JSON object, or not JSON at all.
    #[error("fields are not a JSON object such as {{\"name\":\"Ann\"}} (line {line}, column {column})")]
    NotAnObject {
        /// Line of the fault, from 1; 0 if the text was JSON of another kind.
        line: usize,
        /// Column of the fault, from 1.
        column: usize,
    },
    /// More bytes than [`limits::OP_BYTES`].
    #[error("fields take {bytes} bytes, more than the {} that one op may have", limits::OP_BYTES)]
    TooLarge {
        /// How many bytes the fields take.
        bytes: usize,
    },
    /// Deeper than [`limits::JSON_DEPTH`].
    #[error("a field nests deeper than {} levels", limits::JSON_DEPTH)]
    TooDeep,
    /// A field's name is empty or longer than [`limits::FIELD_NAME_BYTES`].
    #[error("a field's name is empty or longer than {} bytes", limits::FIELD_NAME_BYTES)]
    FieldName,
}

/// Fields as values: an image of a record or a patch of one.
#[derive(Clone, PartialEq, Default, Serialize)]
#[serde(transparent)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// Returns no fields at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks a JSON value and takes its members.
    ///
    /// # Errors
    /// [`InvalidFields`] if it is not an object, nests too deep, is too large, or has an impossible field name.
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
    /// [`InvalidFields`] if they nest too deep, are too large, or have an impossible name.
    pub fn checked(&self) -> Result<FieldsJson, InvalidFields> {
        if self.0.values().any(|value| !is_shallower_than(value, limits::JSON_DEPTH - 1)) {
            return Err(InvalidFields::TooDeep);
        }
        if self.0.keys().any(|name| name.is_empty() || name.len() > limits::FIELD_NAME_BYTES) {
            return Err(InvalidFields::FieldName);
        }
        let json = self.to_json();
        let bytes = json.as_str().len();
        if bytes > limits::OP_BYTES { Err(InvalidFields::TooLarge { bytes }) } else { Ok(json) }
    }

    /// Parses and checks JSON text.
    ///
    /// # Errors
    /// [`InvalidFields`], with the place of the fault where the text is not JSON.
    pub fn parse(text: &str) -> Result<Self, InvalidFields> {
        if text.len() > 2 * limits::OP_BYTES {
            return Err(InvalidFields::TooLarge { bytes: text.len() });
        }
        Self::from_value(serde_json::from_str(text).map_err(|error| not_an_object(&error))?)
    }

    /// Returns the value of a field.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Sets a field, to null too.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.0.insert(name.into(), value.into());
    }

    /// Takes a field out.
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

    /// Returns how many fields there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Applies a patch to an image: a null takes the field away, anything else sets it.
    pub fn apply(&mut self, patch: &Self) {
        for (name, value) in &patch.0 {
            if value.is_null() {
                self.0.remove(name);
            } else {
                self.0.insert(name.clone(), value.clone());
            }
        }
    }

    /// Puts a later patch on top of this one: its members win, its nulls stay.
    pub fn compose(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    /// Takes away the fields that are null: what a patch, or a create that names nulls, leaves as an image.
    #[must_use]
    pub fn into_image(mut self) -> Self {
        self.0.retain(|_, value| !value.is_null());
        self
    }

    /// Returns the patch that makes `after` of this image.
    pub fn patch_to(&self, after: &Self) -> Self {
        let changed = after.0.iter().filter(|(name, value)| self.0.get(*name) != Some(value));
        let mut patch: Map<_, _> = changed.map(|(name, value)| (name.clone(), value.clone())).collect();
        patch.extend(
            self.0.keys().filter(|name| !after.0.contains_key(*name)).map(|name| (name.clone(), Value::Null)),
        );
        Self(patch)
    }

    /// Returns only the fields whose names pass.
    #[must_use]
    pub fn filtered(&self, mut keep: impl FnMut(&str) -> bool) -> Self {
        let kept = self.0.iter().filter(|(name, _)| keep(name));
        Self(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    /// Returns the compact JSON form with ascending names.
    pub fn to_json(&self) -> FieldsJson {
        // Writing a map of values to memory has no way to fail.
        FieldsJson(serde_json::to_string(&self.0).unwrap_or_else(|_| "{}".to_owned()).into())
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
    // serde_json reports its own depth guard as a syntax error with this text and no code of its own.
    if error.to_string().starts_with("recursion limit exceeded") {
        return InvalidFields::TooDeep;
    }
    InvalidFields::NotAnObject { line: error.line(), column: error.column() }
}

fn is_shallower_than(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels > 0 && items.iter().all(|item| is_shallower_than(item, levels - 1)),
        Value::Object(members) => {
            levels > 0 && members.values().all(|item| is_shallower_than(item, levels - 1))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests;
