//! The rows of the tables folded from the log. They live here, below the tables, because the rules
//! read them.
//!
//! Rows can be thrown away and folded again, so their stored form may change between versions of
//! the program: a book whose tables are of another [`FOLD_VERSION`] is rebuilt when it is opened.

mod layout;
mod record;
mod stored;

use crate::codec::{Decode, Encode, is_part, stored_by_members};
use crate::entry::{
    ConflictedField, Extent, ParkScope, PlannedChange, PlannedOp, Receipt, ResolvedBy, Winner,
};
use crate::fields::FieldsJson;
use crate::ids::{DeviceId, Epoch, OpId, ServerEpoch, ServerId, TenantId, UnitId};
use crate::names::{Actor, RecordKey};
use crate::numbers::{Cursor, Hash, Seq, Version};
use crate::op::OpKind;
use crate::record::Pending;
use crate::schema::Policy;
use crate::tail::TailSum;
use crate::time::{Hlc, WallTime};

pub use layout::RecordView;
pub use record::{Confirmed, RecordRow, Visible};
pub use stored::{OPS_IN_ROW, StoredRecord};

/// The version of the fold. It changes whenever an entry folds to other rows, because the type of a
/// row or the fold itself changed. `tests/golden` has the tables of every golden log, which show
/// such a change.
pub const FOLD_VERSION: u32 = 27;

/// A unit that is planned and has no final answer. Key: the unit's id.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct UnitRow {
    /// The entry that planned the unit.
    pub planned: Seq,
    /// The number of the unit among the units of that entry, from 0. The unit keeps it when it is
    /// sent again.
    pub number: u32,
    /// The actor with whose credentials the unit is sent.
    pub actor: Actor,
    /// The changes of the unit.
    pub changes: Vec<PlannedChange>,
    /// For each change, the record that was confirmed when the unit was planned; none if nothing
    /// was known of the record. Own ops that arrive later are joined to it.
    pub records: Vec<Option<Confirmed>>,
    /// The hash of the unit's frozen content.
    pub digest: Hash,
    /// The earlier units that had some of its ops and no final answer.
    pub earlier_units: Vec<UnitId>,
    /// The number of transient answers that count as tries.
    pub tries: u32,
    /// The code of the last transient answer.
    pub code: String,
    /// When the first transient answer came, by the device's clock.
    pub first_try: Option<WallTime>,
    /// The unit is not sent again before this time.
    pub retry_at: Option<WallTime>,
    /// The suspicion against the unit: requests with it did not get through, while a request
    /// without units did.
    pub suspicion: Option<Suspicion>,
}

/// A suspicion that a unit does not get through.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Suspicion {
    /// The set of suspected units that are sent together: the entry with the decision, and the
    /// number of the decision in that entry.
    pub set: (Seq, u32),
    /// How often the unit did not get through alone.
    pub times: u32,
    /// The code of what came in place of an answer.
    pub code: String,
    /// The unit is not sent again before this time. Only an isolated unit has such a time.
    pub retry_at: Option<WallTime>,
}

/// A conflict. Key: the entry that recorded it, then its number among the decisions of that entry,
/// both big-endian.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct ConflictRow {
    /// The record.
    pub key: RecordKey,
    /// The local op.
    pub op: PlannedOp,
    /// What the local op does.
    pub kind: OpKind,
    /// When the local op was made.
    pub edited_at: Hlc,
    /// The server's version that the local op met.
    pub version: Version,
    /// Whether the server's side is a record or a deletion.
    pub extent: Extent,
    /// When the server's side was edited.
    pub remote_edited_at: Hlc,
    /// Each field with its rule and its winner.
    pub fields: Vec<ConflictedField>,
    /// The winner of the record as a whole.
    pub winner: Winner,
    /// The policy for the record as a whole.
    pub rule: Policy,
    /// The overlapping fields as both sides had them before.
    pub base: FieldsJson,
    /// The overlapping fields as the local op has them.
    pub local: FieldsJson,
    /// The overlapping fields as the server has them.
    pub remote: FieldsJson,
    /// The values that a policy or a person made of both sides.
    pub merged: Option<FieldsJson>,
    /// The functions of the app that resolved the conflict.
    pub functions: Vec<ResolvedBy>,
    /// When the conflict was found, by the device's clock.
    pub at: WallTime,
    /// Whether a person still has to choose.
    pub open: bool,
}

impl ConflictRow {
    /// Closes the conflict with its winner, if it is open.
    pub fn close(&mut self, winner: Winner, merged: Option<&FieldsJson>) {
        if !self.open {
            return;
        }
        self.open = false;
        self.winner = winner;
        self.merged = merged.cloned().or(self.merged.take());
        let undecided = |field: &&mut ConflictedField| field.winner == Winner::Undecided;
        self.fields.iter_mut().filter(undecided).for_each(|field| field.winner = winner);
    }
}

/// A dead letter. Key: the op's id.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct DeadLetterRow {
    /// The record.
    pub key: RecordKey,
    /// The op.
    pub op: PlannedOp,
    /// The kind of the op.
    pub kind: OpKind,
    /// The actor whose credentials send the op: who made it, or to whom it was handed over.
    pub actor: Actor,
    /// The unit with the op.
    pub unit: UnitId,
    /// The server's code.
    pub code: String,
    /// The server's message.
    pub message: String,
    /// The number of the unit's tries.
    pub tries: u32,
    /// When the first try ended, by the device's clock.
    pub first_at: WallTime,
    /// When the last try ended, by the device's clock.
    pub last_at: WallTime,
    /// The entry that recorded the dead letter.
    pub recorded: Seq,
}

/// The park of a single op. Key: the op's id.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ParkedOpRow {
    /// The code of the reason.
    pub code: String,
}

/// An op of the tail, with all that a plan needs, so that planning does not read the log. Key: seq,
/// index, both big-endian.
///
/// The table lags behind the log by design: it is folded up to [`StateRow::tail_folded`]. The ops
/// of the entries above are in memory.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct TailRow {
    /// The op.
    pub op: OpId,
    /// The record.
    pub key: RecordKey,
    /// The kind of the op.
    pub kind: OpKind,
    /// The actor who made the op.
    pub actor: Actor,
    /// The time of the op's greatest stamp, which decides conflicts.
    pub edited_at: Hlc,
    /// When the op was made, by the device's clock.
    pub made_at: WallTime,
    /// The schema version under which the op was made.
    pub schema_version: u32,
    /// The schema version to which the op was upcast.
    pub upcast: Option<u32>,
    /// The number of ops in its transaction.
    pub transaction_ops: u32,
    /// The size of its fields in bytes.
    pub bytes: u64,
    /// The declared references that the op sets.
    pub references: Vec<FieldReference>,
    /// The records to which the op's record referred before the op, but no longer after it.
    pub led_away: Vec<RecordKey>,
}

/// A declared reference that an op sets.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
pub struct FieldReference {
    /// The field.
    pub field: String,
    /// The record to which the field refers; none if it refers to no record.
    pub target: Option<RecordKey>,
}

impl TailRow {
    /// Returns the records to which the op refers.
    pub fn targets(&self) -> impl Iterator<Item = &RecordKey> {
        self.references.iter().filter_map(|reference| reference.target.as_ref())
    }

    /// Returns the schema version of the op's present fields.
    pub fn form(&self) -> u32 {
        self.upcast.unwrap_or(self.schema_version)
    }
}

/// How far one entity type was read. Key: the entity type.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct CursorRow {
    /// The server's cursor.
    pub cursor: Cursor,
    /// When a page last moved it, by the device's clock.
    pub synced_at: WallTime,
}

/// What is known of the book as a whole. One row.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Default)]
pub struct StateRow {
    /// The version of the fold that made the rows.
    pub format: u32,
    /// The device.
    pub device: Option<DeviceId>,
    /// The log's present epoch.
    pub epoch: Option<Epoch>,
    /// The first entry of that epoch.
    pub epoch_from: Seq,
    /// The server of this book, and its last known epoch.
    pub server: Option<(ServerId, ServerEpoch)>,
    /// The tenant of that server to which this book belongs; none if no answer named one.
    pub tenant: Option<TenantId>,
    /// The highest version in any answer of this epoch of the server.
    pub highest: Version,
    /// The rows of the server that were set aside last. Each has its hash ([`aside_hash`]) and its
    /// version.
    pub set_aside: Vec<(u64, Version)>,
    /// The cursors of entity types whose names this program does not allow.
    pub foreign_cursors: Vec<(String, Cursor)>,
    /// The server's last receipt for this epoch of the log, which has the anchor.
    pub anchor: Option<Receipt>,
    /// The times of the server's clock and of the device's clock at the last answer.
    pub server_time: Option<(WallTime, WallTime)>,
    /// When the server last answered, by the device's clock.
    pub synced_at: Option<WallTime>,
    /// The parks and their codes, without those of single ops. Each single op that is parked has a
    /// row ([`ParkedOpRow`]), so that the state row does not grow with them.
    pub parks: Vec<(ParkScope, String)>,
    /// The number of single ops that are parked.
    pub parked_ops: u64,
    /// Whether the accepted server has not been read to its end yet. Until then, a confirmed
    /// record of version 0 is a record of the former server.
    pub rereading: bool,
    /// Whether another server was ever accepted. Any later page can then bring back a record that
    /// the former server had deleted, because another device offers it again.
    pub had_other_server: bool,
    /// How far the table of the tail is folded.
    pub tail_folded: Seq,
    /// The sum of the ops in that table.
    pub tail: TailSum,
    /// How far the table of the history is folded.
    pub history_folded: Seq,
    /// The last entry that has the app's declarations.
    pub declared: Option<Seq>,
    /// The entries that say that values of records were erased, oldest first.
    pub erasures: Vec<Seq>,
    /// The last of the entries that were trimmed from the beginning of the log; none if it is
    /// whole.
    pub trimmed: Option<Seq>,
}

impl StateRow {
    /// Returns the format of a stored state row. The format is the first member of every row,
    /// whatever the format of the other members is.
    pub fn format_of(stored: &[u8]) -> Option<u32> {
        // A number up to 250 is one byte. A larger number begins with a byte for its length.
        stored.first().copied().filter(|first| (1..=250).contains(first)).map(u32::from)
    }
}

stored_by_members! {
    UnitRow => "a unit's row";
    ConflictRow => "a conflict's row";
    DeadLetterRow => "a dead letter's row";
    ParkedOpRow => "the row of a parked op";
    TailRow => "a row of the tail";
    CursorRow => "a cursor's row";
    StateRow => "the book's state row";
    Pending => "an op of a tail that is stored apart";
}

const _: () = assert!(is_part::<PlannedChange>());
const _: () = assert!(is_part::<Pending>());

/// Returns the hash by which a row that was set aside is recognised. The hash covers the row's
/// name, and the whole row if the row has no version.
pub fn aside_hash(name: &[u8], version: Option<Version>, row: Option<&[u8]>) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(name);
    if let (None, Some(row)) = (version, row) {
        hasher.update(row);
    }
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests;
