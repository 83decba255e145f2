//! What an app asks for ([`Mutation`]), and where it stands once it is an op of the log ([`OpPlace`]).

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codec::{Decode, Encode};
use crate::fields::{Fields, FieldsJson, InvalidFields};
use crate::ids::OpId;
use crate::names::RecordKey;
use crate::numbers::Seq;
use crate::time::Hlc;

/// What is done to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpKind {
    /// Makes a record that is not there.
    Create,
    /// Changes some fields of a record that is there.
    Update,
    /// Takes a record away.
    Delete,
    /// Gives a record a whole new image; no old field survives.
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

/// One change that an app asks for. Nothing of it is checked against the book yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Mutation {
    /// The record.
    pub key: RecordKey,
    /// What to do to it.
    pub kind: OpKind,
    /// An image for create and replace, a patch for update, nothing for delete.
    pub fields: MutationFields,
    /// An earlier op that this one corrects: a flipped conflict, a compensated op, an edited dead letter.
    pub cites: Option<OpId>,
}

impl Mutation {
    /// Asks for a record to be made.
    pub fn create(key: RecordKey, fields: impl Into<MutationFields>) -> Self {
        Self { key, kind: OpKind::Create, fields: fields.into(), cites: None }
    }

    /// Asks for some fields to be changed; a null takes a field away.
    pub fn update(key: RecordKey, patch: impl Into<MutationFields>) -> Self {
        Self { key, kind: OpKind::Update, fields: patch.into(), cites: None }
    }

    /// Asks for a record to be taken away.
    pub fn delete(key: RecordKey) -> Self {
        Self { key, kind: OpKind::Delete, fields: MutationFields::default(), cites: None }
    }

    /// Asks for a record to be given a whole new image.
    pub fn replace(key: RecordKey, fields: impl Into<MutationFields>) -> Self {
        Self { key, kind: OpKind::Replace, fields: fields.into(), cites: None }
    }
}

/// The fields that a mutation names: values, or text. Both come to the same op.
///
/// An app that has JSON text hands it over as [`FieldsJson`], which [`FieldsJson::parse`] checks: no values are built of it, neither
/// there nor when it is written.
#[derive(Debug, Clone, PartialEq)]
pub enum MutationFields {
    /// Values, as an app that works on them has them. Their limits are checked when they are written.
    Values(Fields),
    /// Text that was checked.
    Text(FieldsJson),
}

impl MutationFields {
    /// Returns the values.
    ///
    /// # Errors
    /// [`InvalidFields`] if text was never checked.
    pub fn to_fields(&self) -> Result<Fields, InvalidFields> {
        match self {
            Self::Values(fields) => Ok(fields.clone()),
            Self::Text(json) => json.to_fields(),
        }
    }

    /// Returns the text, of whatever size.
    ///
    /// # Errors
    /// [`InvalidFields`] if values nest too deep, or have an impossible name or a number that is not kept exactly.
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

/// Where an op stands: the entry, and which op of that entry. Written `41` or, for the fourth op of entry 41, `41+3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct OpPlace {
    /// The intent's place in the log.
    pub seq: Seq,
    /// Which of the intent's ops, from 0.
    pub index: u32,
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

/// What an op of the log does, apart from whom it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct OpContent {
    /// The op.
    pub id: OpId,
    /// What it does.
    pub kind: OpKind,
    /// When it was made.
    pub edited_at: Hlc,
    /// The schema version it was made under.
    pub schema_version: u32,
    /// Its fields; none for a delete, or if they were erased.
    pub fields: Fields,
}
