//! A change that an app asks for ([`Mutation`]), and its place once it is an op of the log
//! ([`OpPlace`]).

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codec::{Decode, Encode};
use crate::fields::{Fields, FieldsJson, InvalidFields};
use crate::ids::OpId;
use crate::names::RecordKey;
use crate::numbers::Seq;
use crate::time::Hlc;

/// What an op does to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpKind {
    /// Makes a new record.
    Create,
    /// Changes some fields of an existing record.
    Update,
    /// Deletes a record.
    Delete,
    /// Gives a record a whole new image. No old field survives.
    Replace,
}

impl OpKind {
    /// Returns the word used in JSON, in tables and in errors.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Replace => "replace",
        }
    }
}

impl fmt::Display for OpKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One change that an app asks for. It is not checked against the book yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Mutation {
    /// The record.
    pub key: RecordKey,
    /// What the change does to the record.
    pub kind: OpKind,
    /// An image for create and replace, a patch for update, nothing for delete.
    pub fields: MutationFields,
    /// The earlier op that this op corrects: a flipped conflict, a compensated op, an edited dead
    /// letter.
    pub cites: Option<OpId>,
}

impl Mutation {
    /// Asks to make a record.
    pub fn create(key: RecordKey, fields: impl Into<MutationFields>) -> Self {
        Self { key, kind: OpKind::Create, fields: fields.into(), cites: None }
    }

    /// Asks to change some fields. A null removes a field.
    pub fn update(key: RecordKey, patch: impl Into<MutationFields>) -> Self {
        Self { key, kind: OpKind::Update, fields: patch.into(), cites: None }
    }

    /// Asks to delete a record.
    pub fn delete(key: RecordKey) -> Self {
        Self { key, kind: OpKind::Delete, fields: MutationFields::default(), cites: None }
    }

    /// Asks to give a record a whole new image.
    pub fn replace(key: RecordKey, fields: impl Into<MutationFields>) -> Self {
        Self { key, kind: OpKind::Replace, fields: fields.into(), cites: None }
    }
}

/// The fields of a mutation, as values or as text. Both make the same op.
///
/// An app with JSON text passes it as [`FieldsJson`], checked by [`FieldsJson::parse`]. No values
/// are built of the text, neither by this check nor when the op is written.
#[derive(Debug, Clone, PartialEq)]
pub enum MutationFields {
    /// Values, for an app that works with them. Their limits are checked when they are written.
    Values(Fields),
    /// Text that was checked.
    Text(FieldsJson),
}

impl MutationFields {
    /// Returns the values.
    ///
    /// # Errors
    /// [`InvalidFields`] if the text was never checked.
    pub fn to_fields(&self) -> Result<Fields, InvalidFields> {
        match self {
            Self::Values(fields) => Ok(fields.clone()),
            Self::Text(json) => json.to_fields(),
        }
    }

    /// Returns the text, whatever its size.
    ///
    /// # Errors
    /// [`InvalidFields`] if values nest too deep, have an invalid name, or contain a number that
    /// cannot be kept exactly.
    pub(crate) fn written(&self) -> Result<Cow<'_, FieldsJson>, InvalidFields> {
        match self {
            Self::Values(fields) => fields.written().map(Cow::Owned),
            Self::Text(json) => Ok(Cow::Borrowed(json)),
        }
    }
}

impl Default for MutationFields {
    fn default() -> Self {
        Self::Values(Fields::new())
    }
}

impl From<Fields> for MutationFields {
    fn from(fields: Fields) -> Self {
        Self::Values(fields)
    }
}

impl From<FieldsJson> for MutationFields {
    fn from(json: FieldsJson) -> Self {
        Self::Text(json)
    }
}

/// The place of an op: the entry, and the op's index in it. Written `41` or, for the fourth op of
/// entry 41, `41+3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct OpPlace {
    /// The place of the intent in the log.
    pub seq: Seq,
    /// The index of the op in the intent, from 0.
    pub index: u32,
}

impl OpPlace {
    /// Returns the place after this one, whether or not there is an op.
    #[must_use]
    pub const fn next(self) -> Self {
        match self.index.checked_add(1) {
            Some(index) => Self { seq: self.seq, index },
            None => Self { seq: self.seq.next(), index: 0 },
        }
    }
}

impl fmt::Display for OpPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            0 => write!(f, "{}", self.seq),
            index => write!(f, "{}+{index}", self.seq),
        }
    }
}

impl Serialize for OpPlace {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The content of an op, without its record and its actor.
#[derive(Debug, Clone, PartialEq)]
pub struct OpContent {
    /// The op.
    pub id: OpId,
    /// What the op does.
    pub kind: OpKind,
    /// The time at which the op was made.
    pub edited_at: Hlc,
    /// The schema version under which the op was made.
    pub schema_version: u32,
    /// Its fields. Empty for a delete, and after they were erased.
    pub fields: Fields,
}
