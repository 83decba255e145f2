//! [`FieldsJson`]: fields as text, in the one form that is stored, sent and hashed.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::canonical::rewritten;
use super::scan::has_form;
use super::{Fields, InvalidFields, not_an_object, patch_text};
use crate::codec::{Decode, Encode};
use crate::limits;

/// Fields as stored and sent: compact JSON text that was checked when it was made. Copies share the
/// text.
#[derive(Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub struct FieldsJson(pub(super) Arc<str>);

impl FieldsJson {
    /// Checks the text of a record's image or patch, and rewrites it in the one form that invariant
    /// 3 names.
    ///
    /// Text that has that form already is kept, without building values.
    ///
    /// # Errors
    /// [`InvalidFields`] as for [`Fields::parse`].
    pub fn parse(text: &str) -> Result<Self, InvalidFields> {
        if text.len() > 2 * limits::OP_BYTES {
            return Err(InvalidFields::TooLarge { bytes: text.len() });
        }
        if text.len() <= limits::OP_BYTES && has_form(text) {
            return Ok(Self(text.into()));
        }
        Self(rewritten(text)?.map_or_else(|| text.into(), Arc::from)).of_one_op()
    }

    /// Returns the fields, unless they are larger than one op allows.
    ///
    /// # Errors
    /// [`InvalidFields::TooLarge`].
    pub(crate) fn of_one_op(self) -> Result<Self, InvalidFields> {
        let bytes = self.0.len();
        if bytes > limits::OP_BYTES { Err(InvalidFields::TooLarge { bytes }) } else { Ok(self) }
    }

    /// Keeps the fields of a message as they were sent, valid or not. So one invalid unit does not
    /// make the whole message unreadable. The caller that uses the unit has to check
    /// [`Self::unfit`].
    pub(crate) fn as_sent(text: &str) -> Self {
        Self::parse(text).unwrap_or_else(|_| Self(format!("{UNFIT}{text}").into()))
    }

    /// Returns why fields that were kept as sent cannot be used.
    pub(crate) fn unfit(&self) -> Option<InvalidFields> {
        self.0.strip_prefix(UNFIT).and_then(|text| Self::parse(text).err())
    }

    /// Makes fields of stored bytes that were checked when they were written.
    ///
    /// # Errors
    /// [`InvalidFields`] if the bytes are not UTF-8. Text that is not JSON is found when it is read
    /// as [`Fields`].
    pub fn from_stored(bytes: &[u8]) -> Result<Self, InvalidFields> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| InvalidFields::NotAnObject { line: 0, column: 0 })?;
        Ok(Self(text.into()))
    }

    /// Makes fields of stored text that was checked when it was written.
    pub fn from_stored_text(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns the JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the JSON text as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Builds the values.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub fn to_fields(&self) -> Result<Fields, InvalidFields> {
        let members = serde_json::from_str(&self.0).map_err(|error| not_an_object(&error))?;
        Ok(Fields(members))
    }

    /// Applies a patch to this image, as [`Fields::apply`] does to values.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub fn patched(&self, patch: &Self) -> Result<Self, InvalidFields> {
        if let Some(text) = patch_text::apply(&self.0, &patch.0) {
            return Ok(Self(text.into()));
        }
        let mut image = self.to_fields()?;
        image.apply(&patch.to_fields()?);
        Ok(image.to_json())
    }

    /// Returns the members of a patch that change this image. A null for a field that does not
    /// exist changes nothing.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub(crate) fn changed_by(&self, patch: &Self) -> Result<Self, InvalidFields> {
        if let Some(text) = patch_text::changed(&self.0, &patch.0) {
            return Ok(Self(text.into()));
        }
        let (image, patch) = (self.to_fields()?, patch.to_fields()?);
        let changes = |name: &str| match (image.get(name), patch.get(name)) {
            (None, Some(value)) => !value.is_null(),
            // Values are compared as text, in which `0.0` and `-0.0` differ.
            (before, after) => before.map(Value::to_string) != after.map(Value::to_string),
        };
        Ok(patch.filtered(changes).to_json())
    }

    /// Leaves fields out.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub(crate) fn without(self, left_out: &[String]) -> Result<Self, InvalidFields> {
        if left_out.is_empty() {
            return Ok(self);
        }
        let left_out: std::collections::BTreeSet<&str> =
            left_out.iter().map(String::as_str).collect();
        if let Some(text) = patch_text::without(&self.0, |name| left_out.contains(name)) {
            return Ok(Self(text.into()));
        }
        Ok(self.to_fields()?.filtered(|name| !left_out.contains(name)).to_json())
    }

    /// Returns the names of the fields in order, each with whether its value is null. No values are
    /// built.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub(crate) fn names(&self) -> Result<Vec<(String, bool)>, InvalidFields> {
        if let Some(names) = patch_text::names(&self.0) {
            return Ok(names);
        }
        Ok(self
            .to_fields()?
            .iter()
            .map(|(name, value)| (name.to_owned(), value.is_null()))
            .collect())
    }

    /// Returns whether the field exists with a value other than null. No values are built. Damaged
    /// text has no fields.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names()
            .is_ok_and(|names| names.iter().any(|(known, is_null)| known == name && !is_null))
    }

    /// Returns whether there are no fields.
    pub fn is_empty(&self) -> bool {
        &*self.0 == "{}"
    }

    /// Returns false only if certainly no top-level member is null.
    pub fn may_have_null(&self) -> bool {
        self.0.contains("null")
    }

    /// Returns the image of these fields: the same text unless a member is null.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub fn into_image(self) -> Result<Self, InvalidFields> {
        if !self.may_have_null() {
            return Ok(self);
        }
        Ok(self.to_fields()?.into_image().to_json())
    }
}

/// A character that begins no JSON. It marks text that is kept although it is not valid as fields.
const UNFIT: char = '!';

impl Default for FieldsJson {
    fn default() -> Self {
        Self("{}".into())
    }
}

impl fmt::Debug for FieldsJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FieldsJson({} bytes)", self.0.len())
    }
}

impl Serialize for FieldsJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Text that is not valid as fields is written as it was sent.
        let text = self.0.strip_prefix(UNFIT).unwrap_or(&self.0);
        serde_json::from_str::<&RawValue>(text)
            .map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for FieldsJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::parse(raw.get()).map_err(serde::de::Error::custom)
    }
}
