//! What an entry made of a record: the images before and after it, for a story.

use crate::fields::FieldsJson;
use crate::names::RecordKey;

/// What an entry made of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    /// The record.
    pub key: RecordKey,
    /// What the app read.
    pub seen: Change,
    /// What the server had confirmed.
    pub confirmed: Change,
}

/// An image before and after an entry; none where there was no record.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Change {
    /// Before.
    pub before: Option<FieldsJson>,
    /// After.
    pub after: Option<FieldsJson>,
}
