//! The comparison: whether a device has the records that the server has. One request asks one
//! question, and changes nothing.
//!
//! ```text
//!   digests    of each entity type                          always first; equal: nothing more is asked
//!   parts      the digests of smaller parts of a type       where the digests differ
//!   versions   ids and versions of the records of parts     where the parts differ
//!   records    records by their keys, as an exchange has them
//!   heads      the heads of the device's logs that the server keeps: a question of its own
//! ```
//!
//! `docs/protocol.md` explains the meaning. [`crate::digest`] has the digests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::request::unreadable;
use super::{Change, PROTOCOL, SetAside, UnreadableRequest, reading};
use crate::digest::{Digest, Digests, Part};
use crate::entry::Receipt;
use crate::ids::{DeviceId, Epoch, RequestId, ServerEpoch, ServerId, TenantId};
use crate::limits;
use crate::names::{Actor, EntityType, RecordId, RecordKey};
use crate::numbers::{Cursor, Version};
use crate::time::WallTime;

/// The code of the failure of a server, or of a remote, that cannot compare.
pub const CANNOT_COMPARE: &str = "cannot_compare";

/// The request of a device for a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompareRequest {
    /// The version of the protocol, [`PROTOCOL`].
    pub protocol: u32,
    /// The id of this request, which the answer repeats.
    pub request: RequestId,
    /// The device.
    pub device: DeviceId,
    /// The present epoch of its log.
    pub epoch: Epoch,
    /// The actor whose credentials are used.
    pub actor: Actor,
    /// The server epoch that the versions and cursors belong to; none if the device knows no
    /// server yet. A server of another epoch only names its own epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_epoch: Option<ServerEpoch>,
    /// The tenant that the versions and cursors belong to; none if the server never named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// The cursor of each entity type, as in an exchange. They are sent with [`Ask::Digests`] only.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "reading::known_cursors"
    )]
    pub cursors: BTreeMap<EntityType, Cursor>,
    /// The cursor of every type that is not named, as in an exchange.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<Cursor>,
    /// The question.
    pub ask: Ask,
}

/// The question of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// The digest of each entity type.
    Digests,
    /// The digests of the parts that these parts are divided into. The 256 parts of a whole type
    /// cost the server little; for others it looks at the records of the type.
    Parts(InParts),
    /// The ids and versions of the live records of these parts.
    Versions(InParts),
    /// These records as they are, deleted ones too; at most [`limits::COMPARE_NAMED`].
    Records(Vec<RecordKey>),
    /// The heads that are kept of the logs of the request's device. The epoch of the request comes
    /// first.
    Heads,
}

/// Parts of the records of an entity type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InParts {
    /// The entity type.
    pub entity: EntityType,
    /// The parts, at most [`limits::COMPARE_NAMED`]. No part may have records of another.
    pub parts: Vec<Part>,
    /// The record after which the server goes on, in the order of ids; none for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<RecordId>,
}

/// The answer to a [`CompareRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompareAnswer {
    /// [`super::MARKER`].
    pub marker: String,
    /// The version of the protocol.
    pub protocol: u32,
    /// The id of the request that is answered.
    pub request: RequestId,
    /// The id of the server.
    pub server: ServerId,
    /// The epoch of the server.
    pub server_epoch: ServerEpoch,
    /// The tenant of the credentials, by an id that reveals nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// The server's clock.
    pub server_time: WallTime,
    /// The tenant's last commit. The answer is the state after it.
    pub commit: Version,
    /// The answer to the question. None if the request was made for another epoch of the server, or
    /// for another tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Found>,
    /// The records that this program cannot hold: see [`Self::read`].
    #[serde(skip)]
    pub set_aside: SetAside,
}

/// The answer to one question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// The digest of each entity type that has or had a record, in the order of names.
    Digests(Vec<EntityDigest>),
    /// The digests of parts.
    Parts {
        /// For each part of the question, in order: the digests of the parts that it is divided
        /// into. If `after` is present, the digests of the records up to there.
        parts: Vec<Digests>,
        /// The last record that was looked at; none if all were.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
    },
    /// Ids and versions of live records, in the order of ids.
    Versions {
        /// The records.
        records: Vec<(String, Version)>,
        /// The last record that was looked at; none if all were.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
    },
    /// The first records of the question, as many as fit one answer and at least one. A record that
    /// never existed is a deletion of version 0.
    Records(Vec<Change>),
    /// The heads of the device's logs, at most [`limits::EPOCHS_LISTED`] epochs of them.
    Heads {
        /// Each epoch with its heads: the epoch of the request first, then in the order of ids.
        logs: Vec<EpochHeads>,
        /// Whether the device has more epochs than are listed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        more: bool,
    },
}

/// The heads that a server keeps of one epoch of a device's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochHeads {
    /// The epoch.
    pub epoch: Epoch,
    /// The first head and the newest ones, oldest first: at most [`limits::ANCHORS_KEPT`] and one.
    pub heads: Vec<Receipt>,
}

/// The digest of an entity type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntityDigest {
    /// The entity type, as the server writes it.
    pub entity: String,
    /// The number of its live records.
    pub records: u64,
    /// The sum of their marks.
    #[serde(with = "sum")]
    pub sum: u128,
    /// The commit up to which the cursors of the request have read this type.
    pub read_to: Version,
    /// Whether a record of this type changed after that commit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub newer: bool,
}

impl EntityDigest {
    /// Returns the digest.
    pub const fn digest(&self) -> Digest {
        Digest { records: self.records, sum: self.sum }
    }
}

/// A sum as 32 hexadecimal digits, because JSON has no such numbers.
mod sum {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(sum: &u128, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{sum:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
        let text = String::deserialize(from)?;
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let sum = is_hex.then(|| u128::from_str_radix(&text, 16).ok()).flatten();
        sum.ok_or_else(|| D::Error::custom("a sum has 32 hexadecimal digits"))
    }
}

/// Reads a request for a comparison.
///
/// # Errors
/// [`UnreadableRequest`] if the body is no such request, or is larger than
/// [`limits::COMPARE_BYTES`].
pub fn read_compare(body: &[u8]) -> Result<CompareRequest, UnreadableRequest> {
    if body.len() > limits::COMPARE_BYTES {
        return Err(UnreadableRequest::TooLarge { list: "bytes", most: limits::COMPARE_BYTES });
    }
    serde_json::from_slice(body).map_err(|error| unreadable(body, &error))
}

impl CompareAnswer {
    /// Reads the body of an answer. Records that this program cannot hold are set aside.
    ///
    /// # Errors
    /// The error of the JSON reader if the body is no such answer.
    pub fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body).or_else(|_| in_part(body))
    }

    /// Returns an answer without content to a request, from a server in this epoch.
    pub fn new(request: &CompareRequest, (server, epoch): (ServerId, ServerEpoch)) -> Self {
        Self {
            marker: super::MARKER.to_owned(),
            protocol: PROTOCOL,
            request: request.request,
            server,
            server_epoch: epoch,
            tenant: None,
            server_time: WallTime::from_milliseconds(0),
            commit: Version::default(),
            found: None,
            set_aside: SetAside::default(),
        }
    }
}

/// The members of an answer whose records are still text.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    found: RecordTexts<'a>,
}

#[derive(Deserialize)]
struct RecordTexts<'a> {
    #[serde(borrow)]
    records: Vec<&'a RawValue>,
}

fn in_part(body: &[u8]) -> Result<CompareAnswer, serde_json::Error> {
    let Members { found } = serde_json::from_slice(body)?;
    let mut members: BTreeMap<String, &RawValue> = serde_json::from_slice(body)?;
    members.remove("found");
    let mut answer: CompareAnswer = serde_json::from_str(&serde_json::to_string(&members)?)?;
    let changes = answer.set_aside.changes(&found.records);
    answer.found = Some(Found::Records(changes));
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "018f3a2b-7c00-7000-8000-000000000001";

    fn answer(found: &Value) -> Result<CompareAnswer, serde_json::Error> {
        let whole = json!({
            "marker": "fieldbook", "protocol": 1, "request": ID, "server": ID, "server_epoch": ID,
            "server_time": 1_715_153_000_000u64, "commit": 7, "found": found,
        });
        CompareAnswer::read(&serde_json::to_vec(&whole).unwrap())
    }

    #[test]
    fn a_request_is_read_as_it_is_written() {
        let parts = InParts {
            entity: "lead".parse().unwrap(),
            parts: vec![Part::ALL, "a7".parse().unwrap()],
            after: Some("42".parse().unwrap()),
        };
        let keys = vec!["lead/1".parse().unwrap()];
        for ask in [
            Ask::Digests,
            Ask::Parts(parts.clone()),
            Ask::Versions(parts),
            Ask::Records(keys),
            Ask::Heads,
        ] {
            let request = CompareRequest {
                protocol: PROTOCOL,
                request: ID.parse().unwrap(),
                device: ID.parse().unwrap(),
                epoch: ID.parse().unwrap(),
                actor: "ann".parse().unwrap(),
                server_epoch: None,
                tenant: None,
                cursors: BTreeMap::new(),
                others: Some(Cursor::default()),
                ask,
            };
            let body = serde_json::to_vec(&request).unwrap();
            assert_eq!(read_compare(&body).unwrap(), request);
        }
        let large = vec![b' '; limits::COMPARE_BYTES + 1];
        assert!(matches!(read_compare(&large), Err(UnreadableRequest::TooLarge { .. })));
        let other = br#"{"protocol":2}"#;
        assert!(matches!(read_compare(other), Err(UnreadableRequest::OtherProtocol { .. })));
        assert!(matches!(read_compare(b"{"), Err(UnreadableRequest::NotARequest { .. })));
    }

    #[test]
    fn a_record_that_this_program_cannot_hold_is_set_aside_and_the_others_are_read() {
        let row =
            |key: &str| json!({"key": key, "version": 3, "edited_at": 5, "op": ID, "fields": {}});
        let read = answer(&json!({"records": [row("Lead/1"), row("lead/2")]})).unwrap();
        let Some(Found::Records(changes)) = &read.found else { panic!("{read:?}") };
        assert_eq!(changes.len(), 1);
        assert_eq!(read.set_aside.rows.len(), 1);
        assert_eq!(read.set_aside.rows[0].name, "Lead/1");
    }

    #[test]
    fn an_answer_that_is_none_is_not_read() {
        let sum = |sum: &str| json!({"digests": [{"entity": "lead", "records": 1, "sum": sum, "read_to": 1}]});
        assert!(answer(&sum(&"0f".repeat(16))).is_ok());
        for found in [
            sum("1"),
            sum(&"+f".repeat(16)),
            json!({"parts": {"parts": ["AAA"]}}),
            json!({"versions": {"records": [["1"]]}}),
            json!({"records": 7}),
            json!({"guesses": []}),
            json!([]),
        ] {
            assert!(answer(&found).is_err(), "{found}");
        }
    }
}
