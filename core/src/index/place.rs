//! A place in a list: where the next page begins.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

use super::IndexRule;
use crate::limits;
use crate::names::EntityType;

/// A place in a list by an index. It stays valid when records change, and its serde form is a text.
///
/// The text has the values of the index's parts in it: treat it like the records themselves.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct IndexPlace {
    rule: [u8; 8],
    key: Vec<u8>,
}

/// Text that is not a place in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a place in a list: take the text of a place unchanged")]
pub struct InvalidPlace;

impl IndexPlace {
    /// Makes the place of a key.
    pub fn new(rule: &IndexRule, key: &[u8]) -> Self {
        Self { rule: rule.digest(), key: key.to_vec() }
    }

    /// Returns the key, or `None` if the place is of another index, or of an earlier shape of this
    /// index.
    pub fn key(&self, rule: &IndexRule, entity: &EntityType) -> Option<&[u8]> {
        let is_its = self.rule == rule.digest() && self.key.starts_with(&rule.prefix(entity));
        is_its.then_some(self.key.as_slice())
    }
}

impl From<IndexPlace> for String {
    fn from(place: IndexPlace) -> Self {
        BASE64URL_NOPAD.encode(&[place.rule.as_slice(), &place.key].concat())
    }
}

impl TryFrom<String> for IndexPlace {
    type Error = InvalidPlace;

    fn try_from(text: String) -> Result<Self, InvalidPlace> {
        if text.len() > limits::INDEX_PLACE_TEXT {
            return Err(InvalidPlace);
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| InvalidPlace)?;
        let (rule, key) = bytes.split_first_chunk().ok_or(InvalidPlace)?;
        Ok(Self { rule: *rule, key: key.to_vec() })
    }
}

impl fmt::Debug for IndexPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IndexPlace({} bytes)", self.key.len())
    }
}
