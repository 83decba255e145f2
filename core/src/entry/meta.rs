//! The meta part of an entry: what must survive erasure. Format 1; changing a type here changes the stored bytes.
//!
//! Values that may be erased (fields, messages) are never in the meta part: it holds an [`ItemIndex`] into the entry's
//! items instead.
//!
//! Enum variants are written by their number, so new ones go to the end, and golden files of every released format keep
//! anyone from forgetting.

use crate::codec::{Decode, Encode};
use crate::ids::{DeviceId, Epoch, OpId, RequestId, ServerEpoch, ServerId, UnitId};
use crate::names::{Actor, EntityType, RecordKey};
use crate::numbers::{Cursor, Hash, Seq, Version};
use crate::op::{OpKind, OpPlace};
use crate::schema::Policy;
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
    /// When it was last edited.
    pub edited_at: Hlc,
    /// The op that last edited it.
    pub op: OpId,
    /// The fields whose last edit is older than `edited_at`.
    pub older: Vec<(String, Hlc)>,
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
    /// The last edit among its ops.
    pub edited_at: Hlc,
    /// The fields that were edited earlier than that.
    pub older: Vec<(String, Hlc)>,
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

/// Ops that ended without being sent.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Annulled {
    /// The record.
    pub key: RecordKey,
    /// The ops, oldest first.
    pub ops: Vec<PlannedOp>,
    /// Why.
    pub reason: AnnulledReason,
}

/// Why ops need not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum AnnulledReason {
    /// The record was created and deleted before anyone else heard of it.
    CreatedAndDeleted,
    /// They were undone within the undo window.
    Undone,
    /// They change nothing that is not so already.
    NoEffect,
    /// They are of an entity type that never leaves the device.
    LocalOnly,
    /// They had reached the server in a unit that was given up.
    Arrived,
}

/// One thing that was decided. Applying it needs no rule: it says what happens, not why it should.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Decision {
    /// A unit reached the server: its ops are acked and confirmed moves to these versions.
    Acked {
        /// The unit.
        unit: UnitId,
        /// The entry that planned it.
        planned: Seq,
        /// The versions its records have by it.
        versions: Vec<(RecordKey, Version)>,
    },
    /// A unit was not taken this time.
    Tried {
        /// The unit.
        unit: UnitId,
        /// The entry that planned it.
        planned: Seq,
        /// How many classified answers it has had.
        tries: u32,
        /// The server's code.
        code: String,
        /// Not to be sent again before this.
        retry_at: WallTime,
    },
    /// A unit was stale: its ops go back to the tail, to be planned anew.
    Dissolved {
        /// The unit.
        unit: UnitId,
        /// The entry that planned it.
        planned: Seq,
    },
    /// Fields of an op were changed on both sides.
    Conflicted(Conflicted),
    /// An op lost all it had to say to a conflict, and ends.
    Superseded {
        /// The record.
        key: RecordKey,
        /// The op.
        op: PlannedOp,
    },
    /// A unit was refused for good: its ops stay in visible, marked as failed, until a person decides.
    DeadLettered {
        /// The unit.
        unit: UnitId,
        /// The entry that planned it.
        planned: Seq,
        /// How many classified answers it had.
        tries: u32,
        /// The server's code.
        code: String,
        /// The item with the server's message.
        message: Option<ItemIndex>,
    },
    /// A dead letter goes back to the tail with zero tries.
    Retried {
        /// The record.
        key: RecordKey,
        /// The op.
        op: PlannedOp,
    },
    /// A person gave an op up; visible falls back to what stands without it.
    Discarded {
        /// The record.
        key: RecordKey,
        /// The op.
        op: PlannedOp,
    },
    /// Ops ended without being sent.
    Annulled(Annulled),
    /// Sending stops for a scope until something outside changes.
    Parked {
        /// What stops.
        scope: ParkScope,
        /// The server's code.
        code: String,
    },
    /// What stopped goes on.
    Unparked {
        /// What goes on.
        scope: ParkScope,
    },
    /// A person settled a conflict that was left open.
    Resolved {
        /// The record.
        key: RecordKey,
        /// The local op.
        op: PlannedOp,
        /// Whose values stand.
        winner: Winner,
        /// The fields that the op loses by it.
        lost: Vec<String>,
        /// The item with the values that the person gave in place of both.
        merged: Option<ItemIndex>,
    },
    /// A person accepted another server, or another life of the server: every record is to be confirmed anew, and every unit
    /// under way goes back to the tail as given up.
    ServerAccepted {
        /// The server and its life; none if it has not said yet who it is, so that the next one to answer is meant.
        server: Option<(ServerId, ServerEpoch)>,
    },
    /// The accepted server has been read to its end: records that it did not name are not there.
    ServerRead,
    /// A record that was kept aside is taken in, now that its entity type is declared.
    TakenIn {
        /// The record.
        key: RecordKey,
        /// The upstream entry that brought it.
        seq: Seq,
        /// Which of that entry's changes it is.
        number: u32,
    },
    /// The app declares a later schema version than that under which an op was made: what its fields are by that.
    Upcast {
        /// The record.
        key: RecordKey,
        /// The op.
        op: PlannedOp,
        /// The version that they are turned into.
        schema_version: u32,
        /// The item with the fields.
        fields: ItemIndex,
    },
}

/// What a park stops.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum ParkScope {
    /// Everything that this actor made, until there are new credentials.
    Actor(Actor),
    /// One entity type, until the app or the server is upgraded.
    Entity(EntityType),
    /// One op, until a person chooses.
    Op(OpId),
    /// Everything, until someone confirms which server this is.
    Server(ServerId, ServerEpoch),
    /// Everything, until the app is upgraded to a protocol that the server speaks.
    Protocol,
}

/// A conflict as it was found and settled. The values are items of the same entry.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Conflicted {
    /// The record.
    pub key: RecordKey,
    /// The local op.
    pub op: PlannedOp,
    /// What the local op does.
    pub kind: OpKind,
    /// When the local op was made.
    pub edited_at: Hlc,
    /// The server's version that it met.
    pub version: Version,
    /// What the server did.
    pub extent: Extent,
    /// When the server's side was edited.
    pub remote_edited_at: Hlc,
    /// The fields that both sides changed; empty where a delete is one side.
    pub fields: Vec<ConflictedField>,
    /// Who won, where a delete is one side or the record is settled whole.
    pub winner: Winner,
    /// The rule by which the whole was settled.
    pub rule: Policy,
    /// The item with the overlapping fields as both sides had them before.
    pub base: ItemIndex,
    /// The item with the overlapping fields as the local op has them.
    pub local: ItemIndex,
    /// The item with the overlapping fields as the server has them.
    pub remote: ItemIndex,
    /// The item with the fields that a merging rule made of both; none if no rule merged.
    pub merged: Option<ItemIndex>,
    /// The functions of the app that settled it.
    pub functions: Vec<SettledBy>,
}

/// A function of the app that settled a conflict. What it decided is beside it, so it is never called for that again.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SettledBy {
    /// The field; none if it settled the whole.
    pub field: Option<String>,
    /// The function's name.
    pub function: String,
}

/// One field of a conflict.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ConflictedField {
    /// The field's name.
    pub name: String,
    /// The rule that settled it.
    pub rule: Policy,
    /// Who won.
    pub winner: Winner,
}

/// Who wins a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Winner {
    /// The local edit stands and will be sent.
    Local,
    /// The server's value stands; the local one is on record.
    Remote,
    /// The rule made a value of both, and it will be sent.
    Merged,
    /// A person has to choose.
    Undecided,
}

/// What a person asked for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Verb {
    /// Send dead letters again, as they are or corrected.
    Retry,
    /// Give ops up, with the reason as an item.
    Discard {
        /// The item with the reason.
        reason: ItemIndex,
    },
    /// Take back what has not left yet.
    Undo,
    /// Settle a conflict by hand.
    Resolve,
    /// New credentials, an upgrade, or a confirmed server: what was parked goes on.
    Resume,
    /// Accept another life of the server.
    AcceptServer,
}
