//! The exchange: one request and its answer, as JSON. `docs/protocol.md` tells what they mean.
//!
//! Invariants:
//! 1. A unit's content never changes under its id: [`Unit::digest`] is the same each time it is sent.
//! 2. Absent optional members mean the default named at the field; unknown members are ignored, unknown outcomes are not.
//!
//! What it is not: HTTP. Status codes, headers and time-outs are the transport's; it hands [`Failure`]s over.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::entry::Receipt;
use crate::fields::FieldsJson;
use crate::ids::{DeviceId, Epoch, OpId, RequestId, ServerEpoch, ServerId, UnitId};
use crate::names::{Actor, EntityType, RecordKey};
use crate::numbers::{Cursor, Hash, Seq, Version};
use crate::op::OpKind;
use crate::time::{Hlc, WallTime};

/// The version of the protocol.
pub const PROTOCOL: u32 = 1;
/// What every answer of a fieldbook server carries, so that a captive portal's page is not taken for one.
pub const MARKER: &str = "fieldbook";

/// What a device sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExchangeRequest {
    /// The version of the protocol, [`PROTOCOL`].
    pub protocol: u32,
    /// Names this request; the answer repeats it.
    pub request: RequestId,
    /// The device.
    pub device: DeviceId,
    /// The present life of its log.
    pub epoch: Epoch,
    /// Whose changes these are.
    pub actor: Actor,
    /// The life of the server that its versions and cursors are of; none if it knows none yet. Another one takes nothing from
    /// this request, and only says which it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_epoch: Option<ServerEpoch>,
    /// The head of its log, if it wants one anchored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<HeadClaim>,
    /// What is to be applied, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<Unit>,
    /// How far it has read each entity type; types that are not named are read from their beginning.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cursors: BTreeMap<EntityType, Cursor>,
    /// How many changes it takes; 0 for none.
    pub page_limit: u32,
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

/// What is applied whole or not at all, under one id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// The idempotency key.
    pub id: UnitId,
    /// The changes, each of another record.
    pub changes: Vec<UnitChange>,
    /// Earlier units that carried some of these ops and had no final answer. If one of them took effect after all, this one is
    /// stale, and the answer says which. Not part of the digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<UnitId>,
}

/// What a unit does to one record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitChange {
    /// The record.
    pub key: RecordKey,
    /// What is done.
    pub kind: OpKind,
    /// The version it is meant for; none for a record that the device does not know the server to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Version>,
    /// The ops it stands for, oldest first, at least one.
    pub ops: Vec<OpId>,
    /// The last edit among them.
    pub edited_at: Hlc,
    /// The fields that were edited earlier than that.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub older: BTreeMap<String, Hlc>,
    /// The app's schema version of the fields.
    pub schema_version: u32,
    /// An image for create and replace, a patch for update; none for delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<FieldsJson>,
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
    /// Whether more changes wait behind the page.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// That the claimed head is anchored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
    /// That the claimed head does not extend what is anchored: what is. No unit was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked: Option<Receipt>,
}

/// What became of one unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "OutcomeMembers")]
pub struct UnitOutcome {
    /// The unit.
    pub unit: UnitId,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The classes of answers to a unit. Read as part of a [`UnitOutcome`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Accepted now.
    Applied {
        /// The version each of its records has by it.
        versions: BTreeMap<RecordKey, Version>,
        /// Records that became something else than the device expects.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        current: Vec<Change>,
    },
    /// The same unit was accepted before; this is the first answer again.
    Duplicate {
        /// The version each of its records got then.
        versions: BTreeMap<RecordKey, Version>,
    },
    /// Some base versions are not the current ones. Nothing was applied.
    Stale {
        /// The records that differ, as they are now; a record that never was is a deletion of version 0.
        current: Vec<Change>,
        /// Which of the units that it replaces took effect.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        applied: Vec<UnitId>,
    },
    /// Not now. Nothing was applied.
    Transient {
        /// Why, for machines.
        code: String,
        /// Why, for people.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        message: String,
        /// Not again before so many milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_milliseconds: Option<u64>,
    },
    /// Never, as it is. Nothing was applied.
    Rejected {
        /// Why, for machines.
        code: String,
        /// Why, for people.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        message: String,
    },
    /// The server does not know the entity type or a field of it. Nothing was applied.
    Unsupported {
        /// The entity type.
        entity: EntityType,
        /// Why, for machines.
        code: String,
    },
    /// The credentials hold for the exchange but not for this actor's changes.
    Unauthorized {
        /// Why, for machines.
        code: String,
    },
}

/// One record as the server has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The record.
    pub key: RecordKey,
    /// The server's version of it.
    pub version: Version,
    /// When it was last edited.
    pub edited_at: Hlc,
    /// The op that last edited it.
    pub op: OpId,
    /// The fields whose last edit is older.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub older: BTreeMap<String, Hlc>,
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
    /// Returns when a field was last edited.
    pub fn edited_at_of(&self, field: &str) -> Hlc {
        self.older.get(field).copied().unwrap_or(self.edited_at)
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

impl Unit {
    /// Returns the hash of the unit's content, over a written-down framing (`docs/protocol.md`), never over JSON.
    pub fn digest(&self) -> Hash {
        let mut framing = Framing(blake3::Hasher::new());
        framing.0.update(b"fieldbook unit 1");
        framing.0.update(self.id.as_bytes());
        framing.number(self.changes.len() as u64);
        for change in &self.changes {
            framing.text(change.key.entity.as_str());
            framing.text(change.key.id.as_str());
            framing.text(change.kind.as_str());
            framing.number(change.base.map_or(0, |version| version.number().saturating_add(1)));
            framing.number(change.ops.len() as u64);
            for op in &change.ops {
                framing.0.update(op.as_bytes());
            }
            framing.number(change.edited_at.to_bits());
            framing.number(change.older.len() as u64);
            for (name, edited_at) in &change.older {
                framing.text(name);
                framing.number(edited_at.to_bits());
            }
            framing.number(u64::from(change.schema_version));
            framing.number(u64::from(change.fields.is_some()));
            framing.text(change.fields.as_ref().map_or("", FieldsJson::as_str));
        }
        Hash::from_bytes(*framing.0.finalize().as_bytes())
    }

    /// Returns about how many bytes the unit takes in a request.
    pub fn size(&self) -> usize {
        self.changes.iter().map(UnitChange::size).sum::<usize>() + 40 * self.replaces.len() + 64
    }
}

impl UnitChange {
    /// Returns about how many bytes the change takes in a request.
    pub fn size(&self) -> usize {
        let fields = self.fields.as_ref().map_or(0, |fields| fields.as_str().len());
        let older: usize = self.older.keys().map(|name| name.len() + 24).sum();
        160 + self.key.id.as_str().len() + 40 * self.ops.len() + older + fields
    }

    /// Returns when a field was edited.
    pub fn edited_at_of(&self, field: &str) -> Hlc {
        self.older.get(field).copied().unwrap_or(self.edited_at)
    }
}

/// Length-prefixed little-endian framing.
struct Framing(blake3::Hasher);

impl Framing {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
    }
}

/// Every member that an outcome of any class may have, side by side.
///
/// serde reads flattened and tagged values through a buffer that cannot hold JSON text as it stands, so a stale outcome
/// with fields in it would not read. This form needs no buffer.
#[derive(Deserialize)]
struct OutcomeMembers {
    unit: UnitId,
    outcome: String,
    versions: Option<BTreeMap<RecordKey, Version>>,
    #[serde(default)]
    current: Vec<Change>,
    #[serde(default)]
    applied: Vec<UnitId>,
    code: Option<String>,
    #[serde(default)]
    message: String,
    retry_after_milliseconds: Option<u64>,
    entity: Option<EntityType>,
}

impl TryFrom<OutcomeMembers> for UnitOutcome {
    type Error = InvalidOutcome;

    fn try_from(members: OutcomeMembers) -> Result<Self, InvalidOutcome> {
        let OutcomeMembers {
            unit,
            outcome,
            versions,
            current,
            applied,
            code,
            message,
            retry_after_milliseconds,
            entity,
        } = members;
        let outcome = match outcome.as_str() {
            "applied" => Outcome::Applied { versions: versions.ok_or(InvalidOutcome)?, current },
            "duplicate" => Outcome::Duplicate { versions: versions.ok_or(InvalidOutcome)? },
            "stale" => Outcome::Stale { current, applied },
            "transient" => {
                Outcome::Transient { code: code.ok_or(InvalidOutcome)?, message, retry_after_milliseconds }
            }
            "rejected" => Outcome::Rejected { code: code.ok_or(InvalidOutcome)?, message },
            "unsupported" => Outcome::Unsupported {
                entity: entity.ok_or(InvalidOutcome)?,
                code: code.ok_or(InvalidOutcome)?,
            },
            "unauthorized" => Outcome::Unauthorized { code: code.ok_or(InvalidOutcome)? },
            _ => return Err(InvalidOutcome),
        };
        Ok(Self { unit, outcome })
    }
}

/// An outcome of an unknown class, or without a member that its class has.
#[derive(Debug, thiserror::Error)]
#[error("an outcome is of an unknown class or lacks a member of its class")]
struct InvalidOutcome;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandomness;

    #[test]
    fn every_outcome_reads_as_it_was_written() {
        let mut random = SeededRandomness::from_number(1);
        let unit = UnitId::new(WallTime::default(), &mut random);
        let key = RecordKey::parse("lead", "1").unwrap();
        let change = Change {
            key: key.clone(),
            version: Version::new(7),
            edited_at: Hlc::from_bits(5),
            op: OpId::new(WallTime::default(), &mut random),
            older: BTreeMap::from([("phone".to_owned(), Hlc::from_bits(4))]),
            deleted: false,
            partial: false,
            fields: Some(FieldsJson::parse(r#"{"name":"Ann","phone":[1.5,{"a":null}]}"#).unwrap()),
        };
        let code = "some_code".to_owned();
        for outcome in [
            Outcome::Applied {
                versions: BTreeMap::from([(key, Version::new(7))]),
                current: vec![change.clone()],
            },
            Outcome::Duplicate { versions: BTreeMap::new() },
            Outcome::Stale { current: vec![change], applied: vec![unit] },
            Outcome::Transient {
                code: code.clone(),
                message: "later".into(),
                retry_after_milliseconds: Some(5),
            },
            Outcome::Rejected { code: code.clone(), message: String::new() },
            Outcome::Unsupported { entity: EntityType::parse("lead").unwrap(), code: code.clone() },
            Outcome::Unauthorized { code },
        ] {
            let written = UnitOutcome { unit, outcome };
            let text = serde_json::to_string(&written).unwrap();
            assert_eq!(serde_json::from_str::<UnitOutcome>(&text).unwrap(), written, "{text}");
        }
    }

    #[test]
    fn an_outcome_of_an_unknown_class_does_not_read() {
        for bad in [
            r#"{"unit":"0192f0c1-8f5e-7c3a-9b1d-2f6a3c4d5e6f","outcome":"maybe"}"#,
            r#"{"unit":"0192f0c1-8f5e-7c3a-9b1d-2f6a3c4d5e6f","outcome":"applied"}"#,
            r#"{"outcome":"stale"}"#,
        ] {
            assert!(serde_json::from_str::<UnitOutcome>(bad).is_err(), "{bad}");
        }
    }
}
