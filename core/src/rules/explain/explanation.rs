//! An explanation as data. The app shows it, and the sentences are made of it.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::entry::{ConflictedField, ResolvedBy, Winner};
use crate::ids::OpId;
use crate::names::{Actor, RecordKey};
use crate::numbers::{ConflictId, Version};
use crate::op::{OpKind, OpPlace};
use crate::rules::status::{Awaited, OpState, RecordState, UserAction};
use crate::schema::Policy;
use crate::time::WallTime;

/// The explanation of one record. `Display` prints one sentence per line.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The record.
    pub key: RecordKey,
    /// The state of the record.
    pub state: RecordState,
    /// The op that decides this state; none if there is no op.
    pub decided_by: Option<OpPlace>,
    /// The record as the user sees it.
    pub seen: Seen,
    /// The version that the server confirmed; `None` if there is none.
    pub confirmed: Option<ExplainedVersion>,
    /// The ops that have not ended, oldest first.
    pub ops: Vec<ExplainedOp>,
    /// The record's conflicts, oldest first.
    pub conflicts: Vec<ExplainedConflict>,
    /// Whether something of the record is undeclared: its entity type is not declared.
    pub undeclared: bool,
    /// The time at which the server last sent something of this record, by the device's clock.
    pub synced_at: Option<WallTime>,
    /// The time at which records of its entity type were last brought up to date.
    pub entity_synced_at: Option<WallTime>,
    /// The time at which the server last answered this device at all.
    pub book_synced_at: Option<WallTime>,
    /// The same in words, one sentence each.
    pub sentences: Vec<String>,
}

/// The record as the user sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Seen {
    /// The user sees no record, and this device never knew one.
    Nothing,
    /// The user sees the confirmed record.
    AsConfirmed,
    /// The user sees no record, because the server deleted it.
    DeletedByServer,
    /// The user sees the confirmed record with changes of this device.
    WithOwnChanges,
    /// The user sees no record, because this device deleted it.
    DeletedHere,
}

/// A version that the server confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExplainedVersion {
    /// The server's number.
    pub version: Version,
    /// The time of the edit, by the clock of its author's device.
    pub edited_at: WallTime,
    /// Whether it is a deletion.
    pub deleted: bool,
}

/// An op that has not ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ExplainedOp {
    /// The op.
    pub op: OpId,
    /// The op's place in the log.
    pub place: OpPlace,
    /// What the op does.
    pub kind: OpKind,
    /// The op's author.
    pub actor: Actor,
    /// The time of the op, by the device's clock.
    pub made_at: WallTime,
    /// The number of ops of its transaction, itself included: all of them take effect at the
    /// server, or none.
    pub transaction_ops: u32,
    /// Other records of the transaction whose ops have not ended, at most
    /// [`OTHER_RECORDS`](super::OTHER_RECORDS).
    pub together_with: Vec<RecordKey>,
    /// The state of the op.
    pub state: OpState,
    /// The person or the thing that the op waits for.
    pub awaits: Awaited,
    /// What a person can do about it, in addition to undoing it.
    pub actions: &'static [UserAction],
}

/// A conflict, open or resolved.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ExplainedConflict {
    /// The id of the conflict.
    pub id: ConflictId,
    /// The time at which the conflict was found, by the device's clock.
    pub at: WallTime,
    /// The op of this device.
    pub op: OpPlace,
    /// What the op does.
    pub kind: OpKind,
    /// The server's version that it met.
    pub version: Version,
    /// The actor who made that version, in the server's words; none if it did not say.
    pub remote_by: Option<Actor>,
    /// Whether that version is a deletion.
    pub deleted_by_server: bool,
    /// Each field that both sides changed, its policy and its winner; empty if one side is a
    /// deletion.
    #[serde(serialize_with = "as_lists")]
    pub fields: Vec<ConflictedField>,
    /// The winner, if the record was resolved as a whole.
    pub winner: Winner,
    /// The rule that resolved the record as a whole.
    pub rule: Policy,
    /// The functions of the app that resolved the conflict.
    #[serde(serialize_with = "as_pairs")]
    pub functions: Vec<ResolvedBy>,
    /// Whether a person still has to choose.
    pub open: bool,
}

/// Writes each field as a list of its name, its rule and its winner.
fn as_lists<S: Serializer>(fields: &[ConflictedField], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(fields.iter().map(|field| (&field.name, field.rule, field.winner)))
}

/// Writes each function as a list of its field, null for the whole, and its name.
fn as_pairs<S: Serializer>(functions: &[ResolvedBy], serializer: S) -> Result<S::Ok, S::Error> {
    serializer
        .collect_seq(functions.iter().map(|resolution| (&resolution.field, &resolution.function)))
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentences.join("\n"))
    }
}
