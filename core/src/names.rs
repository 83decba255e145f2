//! Names that come from outside and are checked once: entity types, record ids, actors.
//!
//! Invariants: an [`EntityType`] matches `[a-z][a-z0-9_]{0,62}`; a [`RecordId`] and an [`Actor`]
//! are 1 to 128 bytes of UTF-8 without control characters. The types can only be made through the
//! check, also when read from disk or network.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::thread::LocalKey;

use serde::{Deserialize, Serialize};

use crate::codec::{Decode, Encode, stored_as_checked_text};
use crate::limits;
use crate::random::Randomness;
use crate::time::WallTime;

/// A name that breaks the rule for its kind. The error does not repeat the name, which may be
/// personal data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what}: {rule}")]
pub struct InvalidName {
    /// The kind of name.
    pub what: &'static str,
    /// The rule that the name breaks, in words.
    pub rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:ident, $store:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text and makes a name of it.
            ///
            /// # Errors
            /// [`InvalidName`] with the rule that the text breaks.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                $check(text)?;
                Ok(Self($store(text)))
            }

            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }
    };
}

name!(
    /// The kind of a record, such as `lead`: lower-case letters, digits and `_`, at most 63 bytes.
    EntityType, check_entity_type, shared_entity_type
);
name!(
    /// The id of a record within its entity type: 1 to 128 bytes of UTF-8 with no control
    /// characters.
    RecordId, check_record_id, own
);
name!(
    /// The user who made an op: the app's own id of a user or device, 1 to 128 bytes with no
    /// control characters.
    ///
    /// Entry headers contain it, and it survives erasure. So pass an opaque id, not a person's name
    /// or address.
    Actor, check_actor, shared_actor
);

impl RecordId {
    /// Makes a new id ordered by time (a UUIDv7), which is the cheapest kind to store in large
    /// numbers.
    pub fn new(at: WallTime, random: &mut dyn Randomness) -> Self {
        Self(crate::ids::time_ordered(at, random).to_string().into())
    }

    /// Checks text as [`Self::parse`] does, without making a name of it.
    ///
    /// # Errors
    /// [`InvalidName`] with the rule that the text breaks.
    pub fn check(text: &str) -> Result<(), InvalidName> {
        check_record_id(text)
    }
}

stored_as_checked_text!(EntityType, RecordId, Actor);

/// Names one record: its entity type and its id. Written `lead/42`.
#[derive(Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub struct RecordKey {
    /// The kind of record.
    pub entity: EntityType,
    /// The id within that kind.
    pub id: RecordId,
}

impl RecordKey {
    /// Joins the two parts.
    pub const fn new(entity: EntityType, id: RecordId) -> Self {
        Self { entity, id }
    }

    /// Checks both parts and joins them.
    ///
    /// # Errors
    /// [`InvalidName`] for the first part that breaks its rule.
    pub fn parse(entity: &str, id: &str) -> Result<Self, InvalidName> {
        Ok(Self { entity: EntityType::parse(entity)?, id: RecordId::parse(id)? })
    }

    /// Returns the bytes under which the record's row is stored: entity type, a zero byte, id.
    ///
    /// No part contains a zero byte, so the rows of one entity type are adjacent, ordered by id.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entity.as_str().len() + 1 + self.id.as_str().len());
        bytes.extend_from_slice(self.entity.as_str().as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(self.id.as_str().as_bytes());
        bytes
    }

    /// Calls `use_bytes` with the same bytes, without an allocation.
    pub fn with_bytes<T>(&self, use_bytes: impl FnOnce(&[u8]) -> T) -> T {
        const MOST: usize = limits::ENTITY_TYPE_BYTES + 1 + limits::RECORD_ID_BYTES;
        let (entity, id) = (self.entity.as_str().as_bytes(), self.id.as_str().as_bytes());
        let mut bytes = [0; MOST];
        let (before, behind) = bytes.split_at_mut(entity.len());
        before.copy_from_slice(entity);
        // The zero byte is there already: the buffer starts out as zeros.
        behind.split_at_mut(1).1.split_at_mut(id.len()).0.copy_from_slice(id);
        use_bytes(bytes.split_at(entity.len() + 1 + id.len()).0)
    }

    /// Reads the bytes of [`Self::to_bytes`]; `None` if these are no such bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (entity, id) = std::str::from_utf8(bytes).ok()?.split_once('\0')?;
        Self::parse(entity, id).ok()
    }
}

impl Ord for RecordKey {
    fn cmp(&self, other: &Self) -> Ordering {
        // Keys that are compared mostly have the same entity type and share its text.
        let entities = match Arc::ptr_eq(&self.entity.0, &other.entity.0) {
            true => Ordering::Equal,
            false => self.entity.cmp(&other.entity),
        };
        entities.then_with(|| self.id.cmp(&other.id))
    }
}

impl PartialOrd for RecordKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.entity, self.id))
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.entity, self.id)
    }
}

impl FromStr for RecordKey {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (entity, id) = text.split_once('/').ok_or(InvalidName {
            what: "record key",
            rule: "expected ENTITY/ID, such as lead/42",
        })?;
        Self::parse(entity, id)
    }
}

impl Serialize for RecordKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}/{}", self.entity, self.id))
    }
}

impl<'de> Deserialize<'de> for RecordKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn own(text: &str) -> Arc<str> {
    text.into()
}

fn shared_entity_type(text: &str) -> Arc<str> {
    thread_local! {
        static LAST: Last = const { RefCell::new(None) };
    }
    shared(&LAST, text)
}

fn shared_actor(text: &str) -> Arc<str> {
    thread_local! {
        static LAST: Last = const { RefCell::new(None) };
    }
    shared(&LAST, text)
}

type Last = RefCell<Option<Arc<str>>>;

/// Returns this thread's last text if it is the same. Records arrive in runs of one entity type and
/// one actor, and without this each record would hold its own copy of these names.
fn shared(last: &'static LocalKey<Last>, text: &str) -> Arc<str> {
    last.with_borrow_mut(|last| match last {
        Some(known) if **known == *text => Arc::clone(known),
        _ => Arc::clone(last.insert(text.into())),
    })
}

fn check_entity_type(text: &str) -> Result<(), InvalidName> {
    let mut bytes = text.bytes();
    let starts = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase());
    let goes_on =
        bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if starts && goes_on && text.len() <= limits::ENTITY_TYPE_BYTES {
        return Ok(());
    }
    Err(InvalidName {
        what: "entity type",
        rule: "expected a lower-case letter, then at most 62 lower-case letters, digits or underscores",
    })
}

fn check_record_id(text: &str) -> Result<(), InvalidName> {
    check_free_text(text, "record id")
}

fn check_actor(text: &str) -> Result<(), InvalidName> {
    check_free_text(text, "actor")
}

fn check_free_text(text: &str, what: &'static str) -> Result<(), InvalidName> {
    let has_control = |text: &str| {
        // Nearly every id is plain ASCII. A check of bytes is faster than a check of characters,
        // and without an early exit it handles many bytes at once.
        let is_plain = text.bytes().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~'));
        !is_plain && text.chars().any(char::is_control)
    };
    if text.is_empty() || text.len() > limits::RECORD_ID_BYTES || has_control(text) {
        return Err(InvalidName {
            what,
            rule: "expected 1 to 128 bytes of UTF-8 with no control characters",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_types_follow_their_pattern() {
        for good in ["lead", "a", "sales_order2", &"a".repeat(63)] {
            assert!(EntityType::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "Lead", "2lead", "_lead", "le-ad", "../x", "lead\0", "é", &"a".repeat(64)]
        {
            assert!(EntityType::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn record_ids_refuse_control_characters_and_extreme_lengths() {
        for bad in ["", "a\nb", "a\0b", "\u{85}", &"x".repeat(129)] {
            assert!(RecordId::parse(bad).is_err(), "{bad:?}");
        }
        assert!(RecordId::parse("Ünïcode / with spaces; and ../dots").is_ok());
    }

    #[test]
    fn a_key_survives_its_stored_form_and_its_written_form() {
        let key = RecordKey::parse("lead", "a/b c").unwrap();
        assert_eq!(RecordKey::from_bytes(&key.to_bytes()).unwrap(), key);
        let largest = RecordKey::parse(&"a".repeat(63), &"é".repeat(64)).unwrap();
        for key in [&key, &largest] {
            assert_eq!(key.with_bytes(<[u8]>::to_vec), key.to_bytes());
        }
        assert_eq!(key.to_string().parse::<RecordKey>().unwrap(), key);
        assert_eq!(RecordKey::from_bytes(b"lead"), None);
        assert_eq!(RecordKey::from_bytes(b"Lead\0x"), None);
    }
}
