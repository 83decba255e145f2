//! The meta part of an entry: what must survive erasure. Format 2; changing a type here changes the stored bytes.
//!
//! Values that may be erased (fields, messages) are never in the meta part: it holds an [`ItemIndex`] into the entry's
//! items instead.
//!
//! Enum variants are written by their number, so new ones go to the end, and golden files of every released format keep
//! anyone from forgetting.

use super::decision::{Annulled, Decision, Verb};
use crate::codec::{Decode, Encode};
use crate::ids::{DeviceId, Epoch, OpId, RequestId, ServerEpoch, ServerId, UnitId};
use crate::names::{Actor, EntityType, RecordKey};
use crate::numbers::{Cursor, Hash, Seq, Version};
use crate::op::{OpKind, OpPlace};
use crate::record::{EditStamp, FieldWrites};
use crate::time::{Hlc, WallTime};

/// Which item of the same entry holds a value, from 0.
pub type ItemIndex = u32;

/// What an entry says, by its kind.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Meta {
    /// What the app did.
    Intent(Intent),
    /// What the server said.
    Upstream(Upstream),
    /// What the engine or a person decided.
    Control(Control),
}

/// A transaction of the app: its ops take effect all or none, here and at the server.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Intent {
    /// The ops, at least one, in the order in which they were made.
    pub ops: Vec<OpMeta>,
}

/// One op of an intent.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct OpMeta {
    /// The op's id.
    pub id: OpId,
    /// The record.
    pub key: RecordKey,
    /// What is done to it.
    pub kind: OpKind,
    /// When it was made.
    pub edited_at: Hlc,
    /// Whether the device's clock stood too far ahead, so that `edited_at` was capped.
    pub clock_capped: bool,
    /// The version its author saw.
    pub base: Option<Version>,
    /// The schema version it was made under.
    pub schema_version: u32,
    /// The item with its fields; none for a delete.
    pub fields: Option<ItemIndex>,
    /// An earlier op that this one corrects.
    pub cites: Option<OpId>,
}

/// One answer of the server: facts, in the server's words. What follows from them is a [`Control::Decided`] entry in the
/// same commit.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Upstream {
    /// The request that was answered.
    pub request: RequestId,
    /// Which server answered.
    pub server: ServerId,
    /// Which life of that server.
    pub epoch: ServerEpoch,
    /// The server's clock when it answered.
    pub server_time: WallTime,
    /// What it said of each unit.
    pub outcomes: Vec<OutcomeMeta>,
    /// The records it sent: those of its page, and those that came with an outcome.
    pub changes: Vec<ChangeMeta>,
    /// How far the page reads.
    pub cursors: Vec<(EntityType, Cursor)>,
    /// That the server knows our head up to here.
    pub receipt: Option<Receipt>,
}

/// What the server said of one unit.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct OutcomeMeta {
    /// The unit.
    pub unit: UnitId,
    /// How it was classed.
    pub class: OutcomeClass,
    /// The server's code, for classes that have one.
    pub code: String,
    /// The item with the server's message.
    pub message: Option<ItemIndex>,
    /// The versions that the unit's records got.
    pub versions: Vec<(RecordKey, Version)>,
}

/// The classes of answers to a unit (design, section 6.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub enum OutcomeClass {
    /// Accepted now.
    Applied,
    /// Accepted before, under the same unit id.
    Duplicate,
    /// A base version is not the current one.
    Stale,
    /// Not now; again later.
    Transient,
    /// Never, as it is.
    Rejected,
    /// The server does not know the entity type or a column.
    Unsupported,
    /// The credentials no longer hold.
    Unauthorized,
    /// A stamp is too far ahead of the server's time.
    Ahead,
}

/// One record as the server sent it.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct ChangeMeta {
    /// The record.
    pub key: RecordKey,
    /// The server's version of it.
    pub version: Version,
    /// How much of it was sent.
    pub extent: Extent,
    /// When it was last edited, the greatest stamp of its fields.
    pub edited_at: Hlc,
    /// The op that last edited it.
    pub op: OpId,
    /// The writes that its other fields come from, and those that took fields away.
    pub older: Vec<FieldWrites>,
    /// When a field that is neither in the image nor listed counts as taken away.
    pub floor: Option<EditStamp>,
    /// The item with the fields; none for a deletion.
    pub fields: Option<ItemIndex>,
    /// Whether the entity type was unknown, so that the record is kept aside.
    pub kept_aside: bool,
}

/// How much of a record a change carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Extent {
    /// The whole image.
    Whole,
    /// Some fields; the others are as they were.
    Partial,
    /// Nothing: the record was deleted.
    Deleted,
}

/// The server's word that it knows a head of this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize)]
pub struct Receipt {
    /// The entry that is anchored.
    pub seq: Seq,
    /// Its hash.
    pub hash: Hash,
}

/// What the engine or a person decided.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Control {
    /// The first entry of every log.
    Opened(Opened),
    /// Units were frozen, before the first byte of them left.
    Planned(Planned),
    /// What followed from an answer of the server, or from the lack of one.
    Decided(Vec<Decision>),
    /// What a person decided.
    Verb(Verb, Vec<Decision>),
    /// A new life of the log began: the file was restored from a copy or cloned.
    EpochStarted {
        /// The epoch of every entry from this one on; the entry itself carries it in its header.
        epoch: Epoch,
        /// What the server knew of the former epoch.
        anchored: Option<Receipt>,
    },
}

/// The beginning of a log.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Opened {
    /// The device.
    pub device: DeviceId,
    /// The version of the program that made the book.
    pub made_by: String,
}

/// A send plan.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Planned {
    /// What will be sent, in order.
    pub units: Vec<PlannedUnit>,
    /// Ops that need not be sent at all.
    pub annulled: Vec<Annulled>,
}

/// One unit: what is applied at the server whole or not at all, under one idempotency key.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct PlannedUnit {
    /// The unit's id.
    pub id: UnitId,
    /// Whose credentials it may be sent with.
    pub actor: Actor,
    /// Its changes, each of another record.
    pub changes: Vec<PlannedChange>,
    /// The hash of its frozen content (`docs/protocol.md`), checked each time it is sent.
    pub digest: Hash,
    /// Attempted units without a final answer some of whose ops this one carries again: one that it takes over, and those that
    /// were given up.
    pub replaces: Vec<UnitId>,
}

/// What a unit does to one record.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct PlannedChange {
    /// The record.
    pub key: RecordKey,
    /// What is done to it.
    pub kind: OpKind,
    /// The ops that it stands for, oldest first.
    pub ops: Vec<PlannedOp>,
    /// The version it is meant for.
    pub base: Option<Version>,
    /// The last edit among its ops. With the last of them it is the stamp of every field that is not listed.
    pub edited_at: Hlc,
    /// The writes that the other fields come from.
    pub older: Vec<FieldWrites>,
    /// The schema version of its fields.
    pub schema_version: u32,
    /// Where its fields are.
    pub fields: FieldsSource,
}

/// An op that a unit absorbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct PlannedOp {
    /// The op.
    pub id: OpId,
    /// Where it stands.
    pub place: OpPlace,
}

/// Where the frozen fields of a change are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum FieldsSource {
    /// It has none: a delete.
    Nothing,
    /// They are the fields of its only op, as they stand there.
    OfOp(OpPlace),
    /// They are an item of the entry that planned it.
    Item(Seq, ItemIndex),
}
