//! The part of the meta that says what was decided: by the engine after an answer, or by a person. As in [`super::meta`],
//! changing a type here changes the stored bytes.

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
    /// Reserved: no program has written it. They are of an entity type that never leaves the device.
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
    /// Nothing of an op is left to say, and it ends.
    Superseded {
        /// The record.
        key: RecordKey,
        /// The op.
        op: PlannedOp,
    },
    /// An op loses fields to a conflict, or all that it says if none is named.
    Dropped {
        /// The record.
        key: RecordKey,
        /// The op.
        op: PlannedOp,
        /// The fields.
        fields: Vec<String>,
    },
    /// Fields of an op get a later stamp, above what they met; all of it if none is named.
    Raised {
        /// The record.
        key: RecordKey,
        /// The op.
        op: PlannedOp,
        /// The fields.
        fields: Vec<String>,
        /// When they count as edited.
        edited_at: Hlc,
        /// The item with values that it has in place of its own; none if it keeps these.
        values: Option<ItemIndex>,
    },
    /// An edit stands above a deletion: it goes as a creation, with all that its author read.
    BroughtBack {
        /// The record.
        key: RecordKey,
        /// The op.
        op: PlannedOp,
        /// The item with what its author read, the edit included.
        read: ItemIndex,
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
        /// Whether the server said so; else nobody knows whether it took effect.
        answered: bool,
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
    /// A request with these units did not get through, while one without units did: something between device and server, or
    /// the server, fails over what they hold. They are sent after everything else, and by themselves.
    Suspected {
        /// The units, each with the entry that planned it.
        units: Vec<(UnitId, Seq)>,
        /// How often it has not got through alone; 0 where they are several.
        times: u32,
        /// What came in place of an answer.
        code: String,
        /// Not to be sent again before this; none where they are several, which go as soon as nothing else is left to send.
        retry_at: Option<WallTime>,
    },
    /// Pending ops get earlier stamps: the ones that they were made with are ahead of the server's time.
    Restamped {
        /// What the server's clock showed.
        server_time: WallTime,
        /// The ops, oldest first.
        ops: Vec<Restamp>,
    },
    /// The book belongs to this tenant of its server from now on.
    BelongsTo {
        /// The tenant.
        tenant: TenantId,
    },
    /// The server sent a row that this program cannot hold: it is kept here as it came, and the rest was read.
    SetAside {
        /// What of it does not read.
        fault: String,
        /// The version that it names, if it names one.
        version: Option<Version>,
        /// The item with the name of its record as the server writes it; empty if it has none.
        name: ItemIndex,
        /// The item with the whole row as it came; none if it is too large to be kept.
        row: Option<ItemIndex>,
    },
    /// A page read an entity type so far whose name this program cannot hold.
    ReadForeign {
        /// The entity type as the server writes it.
        entity: String,
        /// The server's cursor.
        cursor: Cursor,
    },
}

/// An op's new stamp.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Restamp {
    /// The record.
    pub key: RecordKey,
    /// The op.
    pub op: PlannedOp,
    /// When it counts as made.
    pub edited_at: Hlc,
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
    /// Everything, until there are credentials of the tenant that the book belongs to: these are of this one.
    Tenant(TenantId),
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
