//! The exchange: one request and its answer, as JSON. `docs/protocol.md` tells what they mean.
//!
//! Invariants:
//! 1. A unit's content never changes under its id: [`Unit::digest`] is the same each time it is sent.
//! 2. Absent optional members mean the default named at the field; unknown members are ignored, unknown outcomes are not.
//!
//! What it is not: HTTP. Status codes, headers and time-outs are the transport's; it hands [`Failure`]s over.

mod outcome;
mod reading;
mod request;
mod size;
mod unit;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::device_key::DeviceKey;
use crate::entry::Receipt;
use crate::fields::FieldsJson;
use crate::ids::{DeviceId, Epoch, OpId, RequestId, ServerEpoch, ServerId, TenantId};
use crate::names::{Actor, EntityType, RecordKey};
use crate::numbers::{Cursor, Hash, Seq, Version};
use crate::record::listed;
use crate::time::{Hlc, WallTime};

pub use crate::record::{EditStamp, FieldWrites};
pub use outcome::{Outcome, UnitOutcome};
pub use reading::{SetAside, SetAsideRow};
pub use request::{UnreadableRequest, read_request};
pub(crate) use size::Measured;
pub use size::RecordSize;
pub use unit::{Unit, UnitChange};

/// The version of the protocol.
pub const PROTOCOL: u32 = 1;
/// What every answer of a fieldbook server carries, so that a captive portal's page is not taken for one.
pub const MARKER: &str = "fieldbook";

/// What a device sends.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ExchangeRequest {
    /// The version of the protocol, [`PROTOCOL`].
    pub protocol: u32,
    /// Names this request; the answer repeats it.
    pub request: RequestId,
    /// The device.
    pub device: DeviceId,
    /// The present life of its log.
    pub epoch: Epoch,
    /// The secret by which the server knows the device again; none for books that were made before there was one.
    #[serde(default)]
    pub device_key: Option<DeviceKey>,
    /// Whose changes these are.
    pub actor: Actor,
    /// The life of the server that its versions and cursors are of; none if it knows none yet. Another one takes nothing from
    /// this request, and only says which it is.
    #[serde(default)]
    pub server_epoch: Option<ServerEpoch>,
    /// The tenant that its versions and cursors are of; none if the server never said. Another one takes nothing from this request
    /// either.
    #[serde(default)]
    pub tenant: Option<TenantId>,
    /// The head of its log, if it wants one anchored.
    #[serde(default)]
    pub head: Option<HeadClaim>,
    /// What is to be applied, in order.
    #[serde(default)]
    pub units: Vec<Unit>,
    /// How far it has read each entity type; types that are not named are read from their beginning. Whoever reads a request passes
    /// over names that no entity type of its own can have.
    #[serde(default, deserialize_with = "reading::known_cursors")]
    pub cursors: BTreeMap<EntityType, Cursor>,
    /// How far it has read every type that is not named; empty for the beginning. None from a device that names all of them.
    #[serde(default)]
    pub others: Option<Cursor>,
    /// How many changes it takes; 0 for none.
    pub page_limit: u32,
    /// How far it has read entity types whose names do not follow our rule. They are written among `cursors`, and not read.
    #[serde(skip)]
    pub foreign_cursors: BTreeMap<String, Cursor>,
}

impl ExchangeRequest {
    /// Returns a request that brings nothing and asks for nothing, of a device that knows nothing of the server yet.
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

/// A request as it is written: its cursors are one member.
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
        // Every member is named, so that a new one does not compile until it is written.
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

/// That the log's head extends what the server knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadClaim {
    /// What the server is believed to have anchored; none in a new epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Receipt>,
    /// The content hashes of the entries after the anchor, oldest first; at most [`crate::limits::ANCHOR_DIGESTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contents: Vec<Hash>,
    /// The entry that the last of them is.
    pub seq: Seq,
    /// Its hash in the chain.
    pub hash: Hash,
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExchangeAnswer {
    /// [`MARKER`].
    pub marker: String,
    /// The version of the protocol.
    pub protocol: u32,
    /// The request that is answered.
    pub request: RequestId,
    /// Which server this is.
    pub server: ServerId,
    /// Which life of it.
    pub server_epoch: ServerEpoch,
    /// Which tenant of it the credentials are of, by an id that says nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Its clock.
    pub server_time: WallTime,
    /// What became of the units; one that is missing was not treated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<UnitOutcome>,
    /// What changed after the cursors, in the order of commits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// The cursors after that page; only those that moved.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cursors: BTreeMap<EntityType, Cursor>,
    /// How far every entity type was read by that page, at least; only for who asked with `others`, and only if it is elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<Cursor>,
    /// Whether more changes wait behind the page.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// That the claimed head is anchored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
    /// That the claimed head does not extend what is anchored: what is. No unit was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked: Option<Receipt>,
    /// What of it this program cannot hold: see [`ExchangeAnswer::read`].
    #[serde(skip)]
    pub set_aside: SetAside,
}

/// One record as the server has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The record.
    pub key: RecordKey,
    /// The server's version of it.
    pub version: Version,
    /// When it was last edited, the greatest stamp of its fields. A stamp after 2199 does not read.
    #[serde(deserialize_with = "reading::stamp")]
    pub edited_at: Hlc,
    /// The op that last edited it.
    pub op: OpId,
    /// The writes that the other fields come from, and those that took fields away.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "reading::writes")]
    pub older: Vec<FieldWrites>,
    /// When a field that is neither in the image nor listed counts as taken away; without one it never was there.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "reading::floor")]
    pub floor: Option<EditStamp>,
    /// Whether it was deleted.
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

    /// Returns the stamp of a field. Of a deleted record each field has the stamp of the deletion.
    pub fn stamp_of(&self, field: &str) -> EditStamp {
        let is_there = || self.fields.as_ref().is_some_and(|fields| fields.has(field));
        match listed(&self.older, field) {
            Some(stamp) => stamp,
            None if self.deleted || is_there() => self.stamp(),
            None => self.floor.unwrap_or(EditStamp::NEVER),
        }
    }
}

/// The body of an answer that is not 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// [`MARKER`].
    pub marker: String,
    /// Why, for machines.
    pub code: String,
    /// Why, for people.
    pub message: String,
}

/// How an exchange as a whole failed: no unit of it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No server was reached, or something that is not our server answered.
    Unreachable {
        /// What stood in the way.
        code: &'static str,
    },
    /// The credentials are missing, expired or refused.
    Unauthorized {
        /// The server's code.
        code: String,
    },
    /// The server said: not now.
    Transient {
        /// The server's code.
        code: String,
        /// Its lower bound for the next attempt.
        retry_after: Option<Duration>,
        /// Whether it was our server that said so.
        marked: bool,
    },
    /// The request is too large as a whole.
    TooLarge,
    /// The server speaks another protocol, or refuses this client's version.
    UpgradeRequired {
        /// The server's code.
        code: String,
    },
    /// The server refused the request as a whole, and would again.
    Refused {
        /// The server's code.
        code: String,
    },
    /// The connection broke after the request began to leave: the units may have been applied.
    Unknown {
        /// What broke.
        code: &'static str,
    },
    /// The answer is not one: it does not parse, or answers something else.
    Misbehaved {
        /// What is wrong with it.
        code: &'static str,
    },
}

/// What the code of a failure begins with if something without our marker answered: the status follows. No code of a marked
/// answer begins so.
pub const UNMARKED: &str = "http_";

impl Failure {
    /// Returns what it is called by machines.
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
