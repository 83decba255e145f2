//! The part of the meta with decisions: those of the engine after an answer, and those of a person.
//! A changed type in this file changes the stored bytes, as in [`super::meta`].

use super::meta::{Extent, ItemIndex, PlannedOp};
use crate::codec::{Decode, Encode};
use crate::ids::{OpId, ServerEpoch, ServerId, TenantId, UnitId};
use crate::names::{Actor, EntityType, RecordKey};
use crate::numbers::{Cursor, Seq, Version};
use crate::op::OpKind;
use crate::schema::Policy;
use crate::time::{Hlc, WallTime};

/// Ops that ended without being sent.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Cancelled {
    /// The record.
    pub key: RecordKey,
    /// The ops, oldest first.
    pub ops: Vec<PlannedOp>,
    /// The reason.
    pub reason: CancelledReason,
}

/// The reason why ops need not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum CancelledReason {
    /// The record was created and deleted before any of it left the device.
    CreatedAndDeleted,
    /// The ops were undone within the undo window.
    Undone,
    /// The ops change nothing of the record.
    NoEffect,
    /// Reserved: no program has written it. The ops are of an entity type that never leaves the
    /// device.
    LocalOnly,
    /// The ops had reached the server in a unit that was abandoned.
    AlreadyApplied,
}

/// One decision. Applying it needs no rule: it names the effect, not the reason.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Decision {
    /// A unit reached the server: its ops are acked and confirmed moves to these versions.
    Acked {
        /// The unit.
        unit: UnitId,
        /// The entry that planned it.
        planned: Seq,
        /// The versions that the unit gave its records.
        versions: Vec<(RecordKey, Version)>,
    },
    /// The server did not accept a unit this time.
    Tried {
        /// The unit.
        unit: UnitId,
        /// The entry that planned it.
        planned: Seq,
        /// The number of classified answers to the unit so far.
        tries: u32,
        /// The server's code.
        code: String,
        /// The unit is not sent again before this time.
        retry_at: WallTime,
    },
    /// A unit was stale: its ops return to the tail, to be planned again.
    Requeued {
        /// The unit.
        unit: UnitId,
        /// The entry that planned it.
        planned: Seq,
    },
    /// Fields of an op were changed on both sides.
    Conflicted(Conflicted),
    /// An op has nothing left to write, and ends.
    Superseded {
        /// The record.
        key: RecordKey,
        /// The op.
        op: PlannedOp,
    },
    /// An op loses fields to a conflict. Without names it loses all fields.
    Dropped {
        /// The record.
        key: RecordKey,
        /// The op.
        op: PlannedOp,
        /// The fields.
        fields: Vec<String>,
    },
    /// Fields of an op get a later stamp, above the writes that they met. Without names all fields
    /// do.
    Raised {
        /// The record.
        key: RecordKey,
        /// The op.
        op: PlannedOp,
        /// The fields.
        fields: Vec<String>,
        /// The new time of the fields' edit.
        edited_at: Hlc,
        /// The item with values that replace the op's own; none if the op keeps its own.
        values: Option<ItemIndex>,
    },
    /// An edit wins against a deletion. It is sent as a creation with all that its author read.
    BroughtBack {
        /// The record.
        key: RecordKey,
        /// The op.
        op: PlannedOp,
        /// The item with the fields that its author read, with the edit.
        read: ItemIndex,
    },
    /// A unit was refused for good: its ops stay in visible, marked as failed, until a person
    /// decides.
    DeadLettered {
        /// The unit.
        unit: UnitId,
        /// The entry that planned it.
        planned: Seq,
        /// The number of classified answers to the unit.
        tries: u32,
        /// The server's code.
        code: String,
        /// The item with the server's message.
        message: Option<ItemIndex>,
        /// Whether the server answered. Otherwise nobody knows whether the unit took effect.
        answered: bool,
    },
    /// A dead letter returns to the tail with zero tries.
    Retried {
        /// The record.
        key: RecordKey,
        /// The op.
        op: PlannedOp,
    },
    /// A person discarded an op. The visible record no longer includes the op.
    Discarded {
        /// The record.
        key: RecordKey,
        /// The op.
        op: PlannedOp,
    },
    /// Ops ended without being sent.
    Cancelled(Cancelled),
    /// Sending stops for a scope until something outside changes.
    Parked {
        /// The scope that is parked.
        scope: ParkScope,
        /// The server's code.
        code: String,
    },
    /// A park ended.
    Unparked {
        /// The scope that resumes.
        scope: ParkScope,
    },
    /// A person resolved an open conflict.
    Resolved {
        /// The record.
        key: RecordKey,
        /// The local op.
        op: PlannedOp,
        /// The side whose values win.
        winner: Winner,
        /// The item with the values that the person gave in place of both.
        merged: Option<ItemIndex>,
    },
    /// A person accepted another server, or another epoch of the server. Every record is to be
    /// confirmed again, and every unanswered unit returns to the tail as abandoned.
    ServerAccepted {
        /// The server and its epoch. None stands for the next server that answers, because the
        /// accepted server has not named itself yet.
        server: Option<(ServerId, ServerEpoch)>,
    },
    /// The accepted server was read to its end: records that it did not name do not exist.
    ServerRead,
    /// An undeclared record is applied, because its entity type is declared now.
    Adopted {
        /// The record.
        key: RecordKey,
        /// The upstream entry that brought it.
        seq: Seq,
        /// The index of the change in that entry.
        number: u32,
    },
    /// The app declares a later schema version than the version under which an op was made. The op
    /// gets fields of that version.
    Upcast {
        /// The record.
        key: RecordKey,
        /// The op.
        op: PlannedOp,
        /// The schema version of the new fields.
        schema_version: u32,
        /// The item with the fields.
        fields: ItemIndex,
    },
    /// A request with these units failed while a request without units was answered: something
    /// between device and server, or the server, fails because of their content. They are sent
    /// after everything else, and alone.
    Suspected {
        /// The units, each with the entry that planned it.
        units: Vec<(UnitId, Seq)>,
        /// How often the unit has not got through alone; 0 for several units.
        times: u32,
        /// The code of the failure.
        code: String,
        /// The units must not be sent again before this time. None if they are several: they leave
        /// when nothing else is left to send.
        retry_at: Option<WallTime>,
    },
    /// Pending ops get earlier stamps, because their stamps are ahead of the server's time.
    Restamped {
        /// The time of the server's clock.
        server_time: WallTime,
        /// The ops, oldest first.
        ops: Vec<Restamp>,
    },
    /// The book belongs to this tenant of its server from now on.
    BelongsTo {
        /// The tenant.
        tenant: TenantId,
    },
    /// The server sent a row that this program cannot hold. The row is kept here as it arrived, and
    /// the rest was read.
    SetAside {
        /// The part that cannot be read.
        fault: String,
        /// The version in the row, if it has one.
        version: Option<Version>,
        /// The item with the name of its record as the server writes it; empty if it has none.
        name: ItemIndex,
        /// The item with the whole row as it arrived; none if it is too large to keep.
        row: Option<ItemIndex>,
    },
    /// A page moved the cursor of an entity type whose name this program cannot hold.
    ReadForeign {
        /// The entity type as the server writes it.
        entity: String,
        /// The server's cursor.
        cursor: Cursor,
    },
    /// A person handed an op over to another actor, whose credentials send it from now on. The op
    /// keeps its id, its stamp and its fields.
    HandedOver {
        /// The record.
        key: RecordKey,
        /// The op.
        op: PlannedOp,
        /// The actor who sends it.
        to: Actor,
    },
    /// A comparison showed that the server does not have a record, or that the book has a false
    /// state of it. The book lets go of what was confirmed of it. Pending ops stay.
    LetGo {
        /// The record.
        key: RecordKey,
        /// The version that was confirmed.
        version: Version,
    },
}

/// An op's new stamp.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Restamp {
    /// The record.
    pub key: RecordKey,
    /// The op.
    pub op: PlannedOp,
    /// The op's new time.
    pub edited_at: Hlc,
}

/// The scope of a park.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum ParkScope {
    /// Everything that this actor made, until there are new credentials.
    Actor(Actor),
    /// One entity type, until the app or the server is upgraded.
    Entity(EntityType),
    /// One op, until a person decides.
    Op(OpId),
    /// Everything, until someone confirms which server this is.
    Server(ServerId, ServerEpoch),
    /// Everything, until the app is upgraded to a protocol that the server speaks.
    Protocol,
    /// Everything, until there are credentials of the book's tenant. The present credentials are of
    /// this tenant.
    Tenant(TenantId),
}

/// A conflict as it was found and resolved. The values are items of the same entry.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Conflicted {
    /// The record.
    pub key: RecordKey,
    /// The local op.
    pub op: PlannedOp,
    /// The kind of the local op.
    pub kind: OpKind,
    /// The time at which the local op was made.
    pub edited_at: Hlc,
    /// The server's version that it met.
    pub version: Version,
    /// How much of the record the server sent.
    pub extent: Extent,
    /// The time at which the server's side was edited.
    pub remote_edited_at: Hlc,
    /// The fields that both sides changed; empty if one side is a delete.
    pub fields: Vec<ConflictedField>,
    /// The winner, if one side is a delete or the record is resolved as a whole.
    pub winner: Winner,
    /// The rule that resolved the conflict as a whole.
    pub rule: Policy,
    /// The item with the overlapping fields as both sides had them before.
    pub base: ItemIndex,
    /// The item with the overlapping fields as the local op has them.
    pub local: ItemIndex,
    /// The item with the overlapping fields as the server has them.
    pub remote: ItemIndex,
    /// The item with the fields that a merging rule made; none if no rule merged.
    pub merged: Option<ItemIndex>,
    /// The functions of the app that resolved the conflict.
    pub functions: Vec<ResolvedBy>,
}

/// A function of the app that resolved a conflict. Its result is recorded, so it is never called
/// for this conflict again.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ResolvedBy {
    /// The field; none if the function resolved the whole record.
    pub field: Option<String>,
    /// The function's name.
    pub function: String,
}

/// One field of a conflict.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ConflictedField {
    /// The field's name.
    pub name: String,
    /// The rule that resolved the field.
    pub rule: Policy,
    /// The winner.
    pub winner: Winner,
}

/// The winner of a conflict.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Winner {
    /// The local edit wins and will be sent.
    Local,
    /// The server's value wins. The local value is recorded.
    Remote,
    /// The rule made a value of both, and it will be sent.
    Merged,
    /// A person has to choose.
    Undecided,
}

/// The action that a person asked for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum PersonAction {
    /// Send dead letters again, unchanged or corrected.
    Retry,
    /// End ops without sending them. The reason is an item.
    Discard {
        /// The item with the reason.
        reason: ItemIndex,
    },
    /// Take back ops that have not left yet.
    Undo,
    /// Resolve a conflict by hand.
    Resolve,
    /// New credentials, an upgrade, or a confirmed server: parked ops resume.
    Resume,
    /// Accept another epoch of the server.
    AcceptServer,
    /// Hand ops of an actor over to another one.
    HandOver,
}
