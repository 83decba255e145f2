//! The exchange: one request and its answer, as JSON. `docs/protocol.md` explains their meaning.
//!
//! Invariants:
//! 1. A unit's content never changes under its id: [`Unit::digest`] is the same each time it is
//!    sent.
//! 2. An absent optional member stands for the default named at the field. Unknown members are
//!    ignored; unknown outcomes are not.
//!
//! What it is not: HTTP. Status codes, headers and time-outs belong to the transport, which returns
//! [`Failure`]s.

mod compare;
mod outcome;
mod reading;
mod request;
mod size;
mod unit;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::device_key::DeviceKey;
use crate::entry::{Receipt, SignedNote};
use crate::fields::FieldsJson;
use crate::ids::{DeviceId, Epoch, OpId, RequestId, ServerEpoch, ServerId, TenantId};
use crate::names::{Actor, EntityType, RecordKey};
use crate::numbers::{Cursor, Hash, Seq, Version};
use crate::record::listed;
use crate::time::{Hlc, WallTime};

pub use crate::record::{EditStamp, FieldWrites};
pub use compare::{
    Ask, CANNOT_COMPARE, CompareAnswer, CompareRequest, EntityDigest, EpochHeads, Found, InParts,
    read_compare,
};
pub use outcome::{Outcome, UnitOutcome};
pub use reading::{SetAside, SetAsideRow};
pub use request::{UnreadableRequest, read_request};
pub(crate) use size::Measured;
pub use size::RecordSize;
pub use unit::{Unit, UnitChange};

/// The version of the protocol.
pub const PROTOCOL: u32 = 1;
/// The marker that every answer of a fieldbook server carries. A device never takes the page of a
/// captive portal for an answer.
pub const MARKER: &str = "fieldbook";

/// The request of a device.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ExchangeRequest {
    /// The version of the protocol, [`PROTOCOL`].
    pub protocol: u32,
    /// The id of this request, which the answer repeats.
    pub request: RequestId,
    /// The device.
    pub device: DeviceId,
    /// The present epoch of its log.
    pub epoch: Epoch,
    /// The secret by which the server recognises the device. None for books from before there were
    /// keys.
    #[serde(default)]
    pub device_key: Option<DeviceKey>,
    /// The actor of the changes.
    pub actor: Actor,
    /// The server epoch that the versions and cursors belong to; none if the device knows no
    /// server yet. A server of another epoch applies nothing of this request, and only names
    /// its own epoch.
    #[serde(default)]
    pub server_epoch: Option<ServerEpoch>,
    /// The tenant that the versions and cursors belong to; none if the server never named one.
    /// Another tenant applies nothing of this request either.
    #[serde(default)]
    pub tenant: Option<TenantId>,
    /// The head of the device's log, if the device asks for an anchor for it.
    #[serde(default)]
    pub head: Option<HeadClaim>,
    /// The units to apply, in order.
    #[serde(default)]
    pub units: Vec<Unit>,
    /// The cursor of each entity type. Types that are not named are read from their beginning. The
    /// server skips names that are no entity types of its own.
    #[serde(default, deserialize_with = "reading::known_cursors")]
    pub cursors: BTreeMap<EntityType, Cursor>,
    /// The cursor of every type that is not named; empty for the beginning. None from a device
    /// that names all types.
    #[serde(default)]
    pub others: Option<Cursor>,
    /// The most changes to send; 0 for none.
    pub page_limit: u32,
    /// The cursors of entity types whose names break the naming rule. They are written among
    /// `cursors`, and the server does not read them.
    #[serde(skip)]
    pub foreign_cursors: BTreeMap<String, Cursor>,
}

impl ExchangeRequest {
    /// Returns a request without content, from a device that knows nothing of the server yet.
    pub const fn new(request: RequestId, device: DeviceId, epoch: Epoch, actor: Actor) -> Self {
        Self {
            protocol: PROTOCOL,
            request,
            device,
            epoch,
            device_key: None,
            actor,
            server_epoch: None,
            tenant: None,
            head: None,
            units: Vec::new(),
            cursors: BTreeMap::new(),
            others: None,
            page_limit: 0,
            foreign_cursors: BTreeMap::new(),
        }
    }
}

/// A request in its written form: its cursors are one member.
#[derive(Serialize)]
struct WrittenRequest<'a> {
    protocol: u32,
    request: RequestId,
    device: DeviceId,
    epoch: Epoch,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_key: Option<DeviceKey>,
    actor: &'a Actor,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_epoch: Option<ServerEpoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<TenantId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<&'a HeadClaim>,
    #[serde(skip_serializing_if = "<[Unit]>::is_empty")]
    units: &'a [Unit],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    cursors: BTreeMap<&'a str, &'a Cursor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    others: Option<&'a Cursor>,
    page_limit: u32,
}

impl Serialize for ExchangeRequest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Every member is named, so that a new member does not compile until it is written.
        let Self {
            protocol,
            request,
            device,
            epoch,
            device_key,
            actor,
            server_epoch,
            tenant,
            head,
            units,
            cursors,
            others,
            page_limit,
            foreign_cursors,
        } = self;
        let foreign = foreign_cursors.iter().map(|(entity, cursor)| (entity.as_str(), cursor));
        let known = cursors.iter().map(|(entity, cursor)| (entity.as_str(), cursor));
        let written = WrittenRequest {
            protocol: *protocol,
            request: *request,
            device: *device,
            epoch: *epoch,
            device_key: *device_key,
            actor,
            server_epoch: *server_epoch,
            tenant: *tenant,
            head: head.as_ref(),
            units,
            cursors: foreign.chain(known).collect(),
            others: others.as_ref(),
            page_limit: *page_limit,
        };
        written.serialize(serializer)
    }
}

/// A claim: the log's head extends the anchor that the server has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadClaim {
    /// The last anchor that the server has confirmed to the device; none in a new epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Receipt>,
    /// The content hashes of the entries after the anchor, oldest first; at most
    /// [`crate::limits::ANCHOR_DIGESTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contents: Vec<Hash>,
    /// The place of the last of these entries.
    pub seq: Seq,
    /// Its hash in the chain.
    pub hash: Hash,
}

/// The answer of a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExchangeAnswer {
    /// [`MARKER`].
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
    /// The outcomes of the units. A unit without an outcome was not applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<UnitOutcome>,
    /// The changes after the cursors, in the order of commits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// The cursors after the page. Only cursors that moved are named.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cursors: BTreeMap<EntityType, Cursor>,
    /// A cursor up to which every entity type has been read. It is sent only if the request had
    /// `others` and the cursor differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<Cursor>,
    /// Whether there are more changes after the page.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// The receipt for the claimed head, if it is anchored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
    /// The receipt as a note that the server signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<SignedNote>,
    /// The anchor, if the claimed head does not extend it. No unit was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked: Option<Receipt>,
    /// The parts that this program cannot hold: see [`ExchangeAnswer::read`].
    #[serde(skip)]
    pub set_aside: SetAside,
}

impl ExchangeAnswer {
    /// Returns an answer without content to a request, from a server in this epoch at this time.
    pub fn new(
        request: RequestId,
        server: ServerId,
        server_epoch: ServerEpoch,
        server_time: WallTime,
    ) -> Self {
        Self {
            marker: MARKER.to_owned(),
            protocol: PROTOCOL,
            request,
            server,
            server_epoch,
            tenant: None,
            server_time,
            outcomes: Vec::new(),
            changes: Vec::new(),
            cursors: BTreeMap::new(),
            others: None,
            more: false,
            receipt: None,
            signed: None,
            forked: None,
            set_aside: SetAside::default(),
        }
    }
}

/// One record as the server has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The record.
    pub key: RecordKey,
    /// The server's version of it.
    pub version: Version,
    /// The time of its last edit, the greatest stamp of its fields. A stamp after 2199 cannot be
    /// read.
    #[serde(deserialize_with = "reading::stamp")]
    pub edited_at: Hlc,
    /// The op that last edited it.
    pub op: OpId,
    /// The actor who made that op; none if the server does not say. A name that this program does
    /// not allow counts as none.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "reading::author"
    )]
    pub by: Option<Actor>,
    /// The writes that set or removed the other fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "reading::writes")]
    pub older: Vec<FieldWrites>,
    /// The stamp of the removal of every field that is neither in the image nor listed. Without a
    /// floor such fields never existed.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "reading::floor")]
    pub floor: Option<EditStamp>,
    /// Whether the record was deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// Whether `fields` are only some of its fields.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Its image, or some of its fields; none if it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<FieldsJson>,
}

impl Change {
    /// Returns the record's own stamp, the greatest of its fields.
    pub const fn stamp(&self) -> EditStamp {
        EditStamp { edited_at: self.edited_at, op: self.op }
    }

    /// Returns the stamp of a field. In a deleted record each field has the stamp of the deletion.
    pub fn stamp_of(&self, field: &str) -> EditStamp {
        let is_there = || self.fields.as_ref().is_some_and(|fields| fields.has(field));
        match listed(&self.older, field) {
            Some(stamp) => stamp,
            None if self.deleted || is_there() => self.stamp(),
            None => self.floor.unwrap_or(EditStamp::NEVER),
        }
    }
}

/// The body of a response that is not a 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// [`MARKER`].
    pub marker: String,
    /// The reason, for machines.
    pub code: String,
    /// The reason, for people.
    pub message: String,
}

/// The failure of a whole exchange: none of its units was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No server was reached, or something other than our server answered.
    Unreachable {
        /// The obstacle.
        code: &'static str,
    },
    /// The credentials are missing, expired or refused.
    Unauthorized {
        /// The server's code.
        code: String,
    },
    /// The server cannot answer now.
    Transient {
        /// The server's code.
        code: String,
        /// The server's lower bound for the next attempt.
        retry_after: Option<Duration>,
        /// Whether the answer is from our server.
        marked: bool,
    },
    /// The request is too large as a whole.
    TooLarge,
    /// The server speaks another protocol, or refuses this client's version.
    UpgradeRequired {
        /// The server's code.
        code: String,
    },
    /// The server refused the request as a whole, and would refuse it again.
    Refused {
        /// The server's code.
        code: String,
    },
    /// The connection broke after the request began to leave: the units may have been applied.
    Unknown {
        /// The part that broke.
        code: &'static str,
    },
    /// The answer is not an answer: it cannot be parsed, or answers another request.
    Misbehaved {
        /// The fault of the answer.
        code: &'static str,
    },
}

/// The prefix of the code of a failure if something without our marker answered. The status follows
/// it. No code of an answer with the marker begins so.
pub const UNMARKED: &str = "http_";

impl Failure {
    /// Returns the name of the failure for machines.
    pub fn code(&self) -> &str {
        match self {
            Self::Unreachable { code } | Self::Unknown { code } | Self::Misbehaved { code } => code,
            Self::Unauthorized { code }
            | Self::Transient { code, .. }
            | Self::UpgradeRequired { code }
            | Self::Refused { code } => code,
            Self::TooLarge => "too_large",
        }
    }
}

#[cfg(test)]
mod tests;
