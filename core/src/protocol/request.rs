//! Reads a request within its bounds: its lists are counted before memory is allocated for them.
//!
//! A first pass over the body builds nothing. It counts the elements of each list and stops at the
//! first limit. Only a body that passes is read into memory.
//!
//! Invariant: a request in memory is at most twice its body and 16 MiB, whatever its lists hold.
//! (The smallest element of each list is at most 120 bytes in memory, and the limits keep all of
//! them together below 16 MiB. Texts and ids are smaller than in the body.)
//!
//! What it does not do: check the units. `authority` does, and answers unit by unit.

use std::borrow::Cow;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde::{Deserialize, de};

use super::{ExchangeRequest, PROTOCOL};
use crate::limits;

/// The reason why a body is not accepted as a request. It repeats nothing of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnreadableRequest {
    /// A list of the request is longer than any request allows.
    #[error("a request has at most {most} {list}: send fewer at a time")]
    TooLarge {
        /// The content of the list.
        list: &'static str,
        /// The most elements of the list.
        most: usize,
    },
    /// The request is of another version of the protocol.
    #[error("this server speaks protocol {PROTOCOL}, not {protocol}: upgrade the older side")]
    OtherProtocol {
        /// The version of the request.
        protocol: u32,
    },
    /// The body is not a request.
    #[error("the body is {what}: line {line}, column {column}")]
    NotARequest {
        /// What the body is instead.
        what: &'static str,
        /// The line of the fault, from 1.
        line: usize,
        /// The column of the fault, from 1.
        column: usize,
    },
}

/// Reads a request.
///
/// # Errors
/// [`UnreadableRequest`] if the body is not a request, or one of its lists is too long.
pub fn read_request(body: &[u8]) -> Result<ExchangeRequest, UnreadableRequest> {
    let mut counts = Counts::default();
    let mut walk = serde_json::Deserializer::from_slice(body);
    // The second pass reports other faults, with their place.
    drop(Walk { at: At::Request, counts: &mut counts }.deserialize(&mut walk));
    if let Some((list, most)) = counts.over {
        return Err(UnreadableRequest::TooLarge { list, most });
    }
    serde_json::from_slice(body).map_err(|error| unreadable(body, &error))
}

pub(super) fn unreadable(body: &[u8], error: &serde_json::Error) -> UnreadableRequest {
    #[derive(Deserialize)]
    struct Version {
        protocol: u32,
    }
    if let Ok(Version { protocol }) = serde_json::from_slice(body)
        && protocol != PROTOCOL
    {
        return UnreadableRequest::OtherProtocol { protocol };
    }
    let what = if error.is_data() { "not an exchange request" } else { "not JSON" };
    UnreadableRequest::NotARequest { what, line: error.line(), column: error.column() }
}

/// The number of elements so far, over the whole request.
#[derive(Debug, Default)]
struct Counts {
    units: usize,
    changes: usize,
    stamps: usize,
    cursors: usize,
    /// The list that is too long, and its limit.
    over: Option<(&'static str, usize)>,
}

impl Counts {
    fn count(&mut self, at: At) -> Result<(), ()> {
        let (count, list, most) = match at {
            At::Units => (&mut self.units, "units", limits::REQUEST_UNITS),
            At::Changes => (&mut self.changes, "changes", limits::REQUEST_CHANGES),
            At::Writes | At::Fields => {
                (&mut self.stamps, "stamps in `older`", limits::REQUEST_STAMPS)
            }
            At::Cursors => (&mut self.cursors, "cursors", limits::REQUEST_CURSORS),
            At::Request | At::Unit | At::Change | At::Write | At::Elsewhere => return Ok(()),
        };
        *count += 1;
        if *count > most {
            self.over = Some((list, most));
            return Err(());
        }
        Ok(())
    }
}

/// The part of a request that the pass has reached.
#[derive(Debug, Clone, Copy)]
enum At {
    Request,
    Units,
    Unit,
    Changes,
    Change,
    /// The list of writes that a change's fields come from, one write, and the list of fields that
    /// it names.
    Writes,
    Write,
    Fields,
    Cursors,
    Elsewhere,
}

impl At {
    /// Returns the part under a member's name.
    fn member(self, name: &str) -> Self {
        match (self, name) {
            (Self::Request, "units") => Self::Units,
            (Self::Request, "cursors") => Self::Cursors,
            (Self::Unit, "changes") => Self::Changes,
            (Self::Change, "older") => Self::Writes,
            (Self::Write, "fields") => Self::Fields,
            _ => Self::Elsewhere,
        }
    }

    /// Returns the part that each element of a list is.
    const fn element(self) -> Self {
        match self {
            Self::Units => Self::Unit,
            Self::Changes => Self::Change,
            Self::Writes => Self::Write,
            _ => Self::Elsewhere,
        }
    }
}

/// Walks over one value and counts.
struct Walk<'a> {
    at: At,
    counts: &'a mut Counts,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.at {
            At::Elsewhere => deserializer.deserialize_ignored_any(IgnoredAny).map(drop),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a part of a request")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = members.next_key::<Name<'de>>()? {
            self.counts.count(self.at).map_err(|()| A::Error::custom("too many"))?;
            members
                .next_value_seed(Walk { at: self.at.member(&name), counts: &mut *self.counts })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let at = self.at.element();
        while elements.next_element_seed(Walk { at, counts: &mut *self.counts })?.is_some() {
            self.counts.count(self.at).map_err(|()| A::Error::custom("too many"))?;
        }
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A member's name, borrowed if the text holds it without escapes.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
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

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = r#""protocol":1,"request":"00000000-0000-0000-0000-000000000001",
        "device":"00000000-0000-0000-0000-000000000002","epoch":"00000000-0000-0000-0000-000000000003",
        "actor":"ann","page_limit":0"#;

    const OP: &str = "00000000-0000-0000-0000-000000000007";

    fn body(members: &str) -> Vec<u8> {
        format!("{{{HEAD},{members}}}").into_bytes()
    }

    fn list(one: impl Fn(usize) -> String, count: usize) -> String {
        (0..count).map(one).collect::<Vec<_>>().join(",")
    }

    fn unit(changes: &str) -> String {
        format!(r#"{{"id":"00000000-0000-0000-0000-000000000009","changes":[{changes}]}}"#)
    }

    fn change(older: &str) -> String {
        format!(
            r#"{{"key":"lead/1","kind":"delete","ops":[],"edited_at":1,"older":[{older}],"schema_version":1}}"#
        )
    }

    /// In a body of 16 MiB an element may have a few bytes, but each element needed a hundred bytes
    /// and more in memory before anything counted them: twelve requests at once needed two
    /// gigabytes.
    #[test]
    fn lists_over_their_limits_are_refused_before_memory_is_taken_for_them() {
        let write = |fields: &str| format!(r#"{{"edited_at":1,"op":"{OP}","fields":[{fields}]}}"#);
        let stamps = write(&list(|n| format!(r#""{n}""#), 30_000));
        let writes = list(|_| write(""), 30_000);
        for (list, within, over) in [
            (
                "units",
                list(|_| unit(""), limits::REQUEST_UNITS),
                list(|_| unit(""), limits::REQUEST_UNITS + 1),
            ),
            (
                "changes",
                unit(&list(|_| change(""), limits::REQUEST_CHANGES)),
                [unit(&list(|_| change(""), limits::REQUEST_CHANGES)), unit(&change(""))].join(","),
            ),
            (
                "stamps in `older`",
                unit(&list(|_| change(&stamps), 3)),
                unit(&list(|_| change(&stamps), 1 + limits::REQUEST_STAMPS / 30_000)),
            ),
            (
                "stamps in `older`",
                unit(&list(|_| change(&writes), 3)),
                unit(&list(|_| change(&writes), 1 + limits::REQUEST_STAMPS / 30_000)),
            ),
        ] {
            assert!(read_request(&body(&format!(r#""units":[{within}]"#))).is_ok(), "{list}");
            let refused = read_request(&body(&format!(r#""\u0075nits":[{over}]"#))).unwrap_err();
            assert!(
                matches!(refused, UnreadableRequest::TooLarge { list: told, .. } if told == list),
                "{refused}"
            );
        }
        let cursors = list(|n| format!(r#""a{n}":"""#), limits::REQUEST_CURSORS + 1);
        let refused = read_request(&body(&format!(r#""cursors":{{{cursors}}}"#))).unwrap_err();
        assert!(
            matches!(refused, UnreadableRequest::TooLarge { list: "cursors", .. }),
            "{refused}"
        );
    }

    #[test]
    fn a_body_that_is_no_request_is_told_by_its_place() {
        let told = |text: &str| read_request(text.as_bytes()).unwrap_err();
        assert!(matches!(
            told("{\n!"),
            UnreadableRequest::NotARequest { what: "not JSON", line: 2, .. }
        ));
        assert!(matches!(
            told(r#"{"units":7}"#),
            UnreadableRequest::NotARequest { what: "not an exchange request", .. }
        ));
        assert_eq!(
            told(r#"{"protocol":2,"units":{}}"#),
            UnreadableRequest::OtherProtocol { protocol: 2 }
        );
        let deep = format!(r#"{{"cursors":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(told(&deep), UnreadableRequest::NotARequest { .. }));
    }
}
