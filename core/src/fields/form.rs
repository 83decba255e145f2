//! Whether JSON text already has the one form that is stored, found out without building values.
//!
//! What it is not: a parser of its own. serde_json reads, and its depth guard holds.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::limits;

/// Returns whether bytes are one JSON value, whatever its kind; for what is kept without being read.
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Returns whether JSON text has no white space outside its strings.
pub(super) fn is_compact(text: &str) -> bool {
    let (mut in_string, mut escaped) = (false, false);
    for byte in text.bytes() {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b' ' | b'\n' | b'\r' | b'\t') => return false,
            _ => {}
        }
    }
    true
}

/// Walks JSON without building values, under serde_json's depth guard. At the top level it answers whether the text is
/// an object whose names are short, written plainly and strictly ascending.
#[derive(Clone, Copy)]
pub(super) enum FormCheck {
    TopLevel,
    Inner,
}

impl<'de> DeserializeSeed<'de> for FormCheck {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        match self {
            Self::TopLevel => deserializer.deserialize_map(self),
            Self::Inner => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for FormCheck {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<bool, A::Error> {
        let mut orderly = true;
        let mut before = Cow::Borrowed("");
        while let Some(Name(name)) = members.next_key::<Name<'de>>()? {
            let plain = matches!(name, Cow::Borrowed(_));
            if matches!(self, Self::TopLevel) {
                orderly &= plain && *name > *before && name.len() <= limits::FIELD_NAME_BYTES;
                before = name;
            }
            orderly &= members.next_value_seed(Self::Inner)?;
        }
        Ok(orderly)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        let mut orderly = true;
        while let Some(item) = items.next_element_seed(Self::Inner)? {
            orderly &= item;
        }
        Ok(orderly)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(true)
    }

    /// A fraction may be written in many ways; it is brought to the one that serde_json writes.
    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(true)
    }
}

/// A member's name, borrowed where the text holds it plainly.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }
            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(name.into()))
            }
            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(name.to_owned().into()))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}
