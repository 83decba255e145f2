//! The meta part of an entry, which survives erasure. It has format 2. A changed type in this file
//! changes the stored bytes.
//!
//! Values that may be erased (fields, messages) are never in the meta part. The meta part has an
//! [`ItemIndex`] into the entry's items instead.
//!
//! Enum variants are stored by their number, so new variants go to the end. The golden files of
//! every released format test this.

use super::baseline::{Baseline, Trimmed};
use super::decision::{Cancelled, Decision, PersonAction};
use crate::codec::{Decode, Encode};
use crate::ids::{DeviceId, Epoch, OpId, RequestId, ServerEpoch, ServerId, UnitId};
use crate::names::{Actor, EntityType, RecordKey};
use crate::numbers::{Cursor, Hash, Seq, Version};
use crate::op::{OpKind, OpPlace};
use crate::record::{EditStamp, FieldWrites};
use crate::time::{Hlc, WallTime};

/// The index of the item of the same entry that holds a value, from 0.
pub type ItemIndex = u32;

/// The content of an entry, by its kind.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Meta {
    /// The ops of the app.
    Intent(Intent),
    /// The answer of the server.
    Upstream(Upstream),
    /// A decision of the engine or of a person.
    Control(Control),
}

/// A transaction of the app. All its ops take effect, or none, here and at the server.
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
    /// What the op does.
    pub kind: OpKind,
    /// The time at which the op was made.
    pub edited_at: Hlc,
    /// Whether the device's clock was too far ahead, so that `edited_at` was capped.
    pub clock_capped: bool,
    /// The version that its author had read.
    pub base: Option<Version>,
    /// The schema version under which the op was made.
    pub schema_version: u32,
    /// The item with its fields; none for a delete.
    pub fields: Option<ItemIndex>,
    /// The earlier op that this op corrects.
    pub cites: Option<OpId>,
}

/// One answer of the server, as facts in the server's words. A [`Control::Decided`] entry in the
/// same commit has the consequences.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Upstream {
    /// The request that was answered.
    pub request: RequestId,
    /// The server that answered.
    pub server: ServerId,
    /// The epoch of that server.
    pub epoch: ServerEpoch,
    /// The server's clock when it answered.
    pub server_time: WallTime,
    /// The outcome of each unit.
    pub outcomes: Vec<OutcomeMeta>,
    /// The records that the server sent: those of the page, and those of outcomes.
    pub changes: Vec<ChangeMeta>,
    /// The cursors that the page moved.
    pub cursors: Vec<(EntityType, Cursor)>,
    /// The server's receipt for the head of this log.
    pub receipt: Option<Receipt>,
}

/// The outcome of one unit.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct OutcomeMeta {
    /// The unit.
    pub unit: UnitId,
    /// The class of the outcome.
    pub class: OutcomeClass,
    /// The server's code, for classes that have one.
    pub code: String,
    /// The item with the server's message.
    pub message: Option<ItemIndex>,
    /// The versions that the unit's records got.
    pub versions: Vec<(RecordKey, Version)>,
}

/// The classes of answers to a unit (`docs/protocol.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub enum OutcomeClass {
    /// The unit was accepted now.
    Applied,
    /// The unit was accepted before, under the same id.
    Duplicate,
    /// A base version is not the current one.
    Stale,
    /// The unit is not accepted now, but may be later.
    Transient,
    /// The unit is never accepted in this form.
    Rejected,
    /// The server does not know the entity type or one of its fields.
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
    /// How much of the record was sent.
    pub extent: Extent,
    /// The time of its last edit, the greatest stamp of its fields.
    pub edited_at: Hlc,
    /// The op that last edited it.
    pub op: OpId,
    /// The writes that set or removed the other fields.
    pub older: Vec<FieldWrites>,
    /// The stamp of the removal of every field that is neither in the image nor listed.
    pub floor: Option<EditStamp>,
    /// The item with the fields; none for a deletion.
    pub fields: Option<ItemIndex>,
    /// Whether the entity type was not declared, so that the record is kept and not folded.
    pub undeclared: bool,
}

/// How much of a record a change carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Extent {
    /// The whole image.
    Whole,
    /// Some fields. The other fields did not change.
    Partial,
    /// Nothing: the record was deleted.
    Deleted,
}

/// The server's confirmation that it knows a head of this log.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize,
)]
pub struct Receipt {
    /// The entry that is anchored.
    pub seq: Seq,
    /// Its hash.
    pub hash: Hash,
}

/// A decision of the engine or of a person.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Control {
    /// The first entry of every log.
    Opened(Opened),
    /// Units were frozen, before the first byte of them left.
    Planned(Planned),
    /// The consequences of an answer of the server, or of a missing answer.
    Decided(Vec<Decision>),
    /// The decisions of a person.
    PersonActed(PersonAction, Vec<Decision>),
    /// A new epoch of the log began: the file was restored from a copy or cloned.
    EpochStarted {
        /// The epoch from this entry on. The entry's header has the same epoch.
        epoch: Epoch,
        /// The server's last receipt for the former epoch.
        anchored: Option<Receipt>,
    },
    /// A program opened the book and wrote to it. The entry is in the commit of its first write.
    Session(Session),
    /// Exchanges that failed since the last entry of this kind. The entry is in the commit of the
    /// next write after them.
    Silence(Vec<Silence>),
    /// Who made the changes of the upstream entry directly before this one, as far as the server
    /// says it.
    Authors(Vec<Authored>),
    /// Somebody signed that this log had an entry: the server, in the commit of its answer, or the
    /// owner of the device.
    Note(SignedNote),
    /// The values of records were erased.
    Erased(Erased),
    /// What trimmed entries came to. It is before the joint of a log, or the joint itself.
    Baseline(Baseline),
    /// Entries were trimmed.
    Trimmed(Trimmed),
}

/// The beginning of a log.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Opened {
    /// The device.
    pub device: DeviceId,
    /// The version of the program that made the book.
    pub made_by: String,
}

/// One opening of the book, by which later entries can be read: with which program, in which zone,
/// under which declarations they were written.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Session {
    /// The library and its version.
    pub program: String,
    /// The app, if it names itself.
    pub app: Option<AppVersion>,
    /// The operating system.
    pub system: String,
    /// The minutes by which the device's wall clock is ahead of UTC, if they are known.
    pub utc_offset: Option<i32>,
    /// How the program before stopped.
    pub last_stop: LastStop,
    /// The digest of the app's declarations.
    pub schema_digest: Hash,
    /// The item with the declarations (`docs/log-format.md`); none if the book has them already.
    pub schema: Option<ItemIndex>,
}

/// The name and the version of an app.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AppVersion {
    /// The name.
    pub name: String,
    /// The version.
    pub version: String,
}

/// How the program that last wrote to the book stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum LastStop {
    /// There was none: the book is new.
    None,
    /// It closed the book.
    Clean,
    /// It was killed, or the power failed.
    Unclean,
}

/// The changes of one actor among those of an upstream entry.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Authored {
    /// The actor, in the server's words.
    pub actor: Actor,
    /// The numbers of the changes in that entry, from 0, ascending.
    pub changes: Vec<u32>,
}

/// A signed note, with the keys that check it as the signer named them. Nothing here is trusted by
/// its being here: whoever can write the file can write both.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize)]
pub struct SignedNote {
    /// The note ([`crate::note`]).
    pub note: String,
    /// The keys, each written as `name+id+key`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}

/// The values of records were erased, from the log and from the tables. The entries themselves
/// stay, with the hashes that they had. The entry is in the same commit as the erasing.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Erased {
    /// The records.
    pub records: ErasedRecords,
    /// The number of items that were erased for it.
    pub items: u64,
}

/// The records whose values are erased.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ErasedRecords {
    /// These records. The keys are in ascending order.
    Only(Vec<RecordKey>),
    /// All records except these. The keys are in ascending order. The cursors go too, so that the
    /// server's records come again.
    Except(Vec<RecordKey>),
}

/// Exchanges that failed in a row.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Silence {
    /// When the first of them failed, by the device's clock.
    pub from: WallTime,
    /// When the last of them failed.
    pub to: WallTime,
    /// How many failed.
    pub attempts: u32,
    /// How many failed with each code, in the order in which the codes first came.
    pub codes: Vec<(String, u32)>,
    /// How many answers without news came in between. They are 0 unless there were more silences
    /// than are kept apart.
    pub answers: u32,
}

/// A send plan.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Planned {
    /// The units to send, in order.
    pub units: Vec<PlannedUnit>,
    /// Ops that need not be sent at all.
    pub cancelled: Vec<Cancelled>,
}

/// One unit: the server applies it whole or not at all, under one idempotency key.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct PlannedUnit {
    /// The unit's id.
    pub id: UnitId,
    /// The actor whose credentials send it.
    pub actor: Actor,
    /// Its changes, each of another record.
    pub changes: Vec<PlannedChange>,
    /// The hash of its frozen content (`docs/protocol.md`), checked each time it is sent.
    pub digest: Hash,
    /// Earlier units without a final answer that had some of the same ops: the unit that this unit
    /// absorbs, and those that were abandoned.
    pub earlier_units: Vec<UnitId>,
}

/// A unit's change of one record.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct PlannedChange {
    /// The record.
    pub key: RecordKey,
    /// What the change does.
    pub kind: OpKind,
    /// The ops that the change consists of, oldest first.
    pub ops: Vec<PlannedOp>,
    /// The version for which the change was made.
    pub base: Option<Version>,
    /// The time of the last edit of its ops. With the last op it is the stamp of every field that
    /// is not listed.
    pub edited_at: Hlc,
    /// The writes that the other fields come from.
    pub older: Vec<FieldWrites>,
    /// The schema version of its fields.
    pub schema_version: u32,
    /// The place of its fields.
    pub fields: FieldsSource,
}

/// An op with its place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct PlannedOp {
    /// The op.
    pub id: OpId,
    /// The op's place.
    pub place: OpPlace,
}

/// The place of the frozen fields of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum FieldsSource {
    /// The change has no fields: it is a delete.
    Nothing,
    /// The fields are those of this op, unchanged.
    OfOp(OpPlace),
    /// The fields are this item of the entry at this place.
    Item(Seq, ItemIndex),
}
