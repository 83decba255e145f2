//! The rows of the tables folded from the log. They live here, below the tables, because the rules read them.
//!
//! Rows can be thrown away and folded again, so their stored form may change between versions of the program: a book
//! whose tables are of another [`FOLD_VERSION`] is rebuilt when it is opened.

mod layout;
mod record;

use crate::codec::{Decode, Encode, is_part, stored_by_members};
use crate::entry::{Extent, ParkScope, PlannedChange, PlannedOp, Receipt, SettledBy, Winner};
use crate::fields::FieldsJson;
use crate::ids::{DeviceId, Epoch, OpId, ServerEpoch, ServerId, TenantId, UnitId};
use crate::names::{Actor, RecordKey};
use crate::numbers::{Cursor, Hash, Seq, Version};
use crate::op::OpKind;
use crate::schema::Policy;
use crate::time::{Hlc, WallTime};

pub use layout::RecordView;
pub use record::{Confirmed, RecordRow, Visible};

/// The version of the fold. Raised whenever any entry folds to other rows: because a type of a row
/// changed, or because the fold makes something else of an entry. `tests/golden` has the tables of
/// every golden log, which show such a change.
pub const FOLD_VERSION: u32 = 16;

/// A unit that is planned and has no final answer. Key: the unit's id.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct UnitRow {
    /// The entry that planned it.
    pub planned: Seq,
    /// Which of that entry's units it is, from 0: the place that the plan gave it, which it keeps when it is sent again.
    pub number: u32,
    /// Whose credentials it may be sent with.
    pub actor: Actor,
    /// Its changes.
    pub changes: Vec<PlannedChange>,
    /// Of each of them, the record as the server had it when the unit was planned; none if nothing was known of it.
    pub records: Vec<Option<Confirmed>>,
    /// The hash of its frozen content.
    pub digest: Hash,
    /// Attempted units some of whose ops it carries again.
    pub replaces: Vec<UnitId>,
    /// How many classified transient answers it has had.
    pub tries: u32,
    /// The code of the last of them.
    pub code: String,
    /// When the first of them came.
    pub first_try: Option<WallTime>,
    /// Not to be sent again before this.
    pub retry_at: Option<WallTime>,
    /// That a request with it did not get through, while one without units did.
    pub suspicion: Option<Suspicion>,
}

/// What is known of a unit that may be the one that does not get through.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Suspicion {
    /// What it is sent together with: the entry that says so, and the number of the decision in it.
    pub group: (Seq, u32),
    /// How often it has not got through alone.
    pub times: u32,
    /// What came in place of an answer.
    pub code: String,
    /// Not to be sent again before this; only for a unit that was found by itself.
    pub retry_at: Option<WallTime>,
}

/// A conflict. Key: the entry that recorded it, then its number among the decisions of that entry, both big-endian.
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
    /// The server's version that it met.
    pub version: Version,
    /// What the server did.
    pub extent: Extent,
    /// When the server's side was edited.
    pub remote_edited_at: Hlc,
    /// Each field with its rule and its winner.
    pub fields: Vec<(String, Policy, Winner)>,
    /// Who won as a whole.
    pub winner: Winner,
    /// The rule by which the whole was settled.
    pub rule: Policy,
    /// The overlapping fields as both sides had them before.
    pub base: FieldsJson,
    /// The overlapping fields as the local op has them.
    pub local: FieldsJson,
    /// The overlapping fields as the server has them.
    pub remote: FieldsJson,
    /// What a merging rule made of both.
    pub merged: Option<FieldsJson>,
    /// The functions of the app that settled it.
    pub functions: Vec<SettledBy>,
    /// When it was found, by the device's clock.
    pub at: WallTime,
    /// Whether a person still has to choose.
    pub open: bool,
}

impl ConflictRow {
    /// Returns the name of the app's function that settled a field, or the whole.
    pub fn function_of(&self, field: Option<&str>) -> Option<&str> {
        let found = self.functions.iter().find(|settled| settled.field.as_deref() == field);
        found.map(|settled| settled.function.as_str())
    }

    /// Notes what a person chose, if it was still open.
    pub fn close(&mut self, winner: Winner, merged: Option<&FieldsJson>) {
        if !self.open {
            return;
        }
        self.open = false;
        self.winner = winner;
        self.merged = merged.cloned().or(self.merged.take());
        for (.., of_field) in self.fields.iter_mut().filter(|(.., of_field)| *of_field == Winner::Undecided) {
            *of_field = winner;
        }
    }
}

/// An op that the server refused for good. Key: the op's id.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct DeadLetterRow {
    /// The record.
    pub key: RecordKey,
    /// The op.
    pub op: PlannedOp,
    /// What it does.
    pub kind: OpKind,
    /// Who made it.
    pub actor: Actor,
    /// The unit in which it was refused.
    pub unit: UnitId,
    /// The server's code.
    pub code: String,
    /// The server's message.
    pub message: String,
    /// How many classified answers it had.
    pub tries: u32,
    /// When the first of them came, by the device's clock.
    pub first_at: WallTime,
    /// When the last of them came.
    pub last_at: WallTime,
    /// The entry that recorded it.
    pub recorded: Seq,
}

/// Why an op is parked by itself. Key: the op's id.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ParkedOpRow {
    /// The code.
    pub code: String,
}

/// An op of the tail, enough of it to plan without reading the log. Key: seq, index, both big-endian.
///
/// The table lags behind the log by design: it is folded up to [`StateRow::tail_folded`] and completed in memory from the
/// entries above when a book is opened.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct TailRow {
    /// The op.
    pub op: OpId,
    /// The record.
    pub key: RecordKey,
    /// What it does.
    pub kind: OpKind,
    /// Who made it.
    pub actor: Actor,
    /// When it was made, in the order that decides conflicts.
    pub edited_at: Hlc,
    /// When it was made, by the device's clock.
    pub made_at: WallTime,
    /// The schema version it was made under.
    pub schema_version: u32,
    /// The schema version that it was turned into since.
    pub upcast: Option<u32>,
    /// How many ops its transaction has.
    pub transaction_ops: u32,
    /// How many bytes its fields take.
    pub bytes: u64,
    /// The declared references that it sets.
    pub references: Vec<FieldReference>,
    /// The records that its record referred to when it was made, and by this op does no longer.
    pub led_away: Vec<RecordKey>,
}

/// A declared reference that an op sets.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
pub struct FieldReference {
    /// The field.
    pub field: String,
    /// The record that it points to; none if it points nowhere.
    pub target: Option<RecordKey>,
}

impl TailRow {
    /// Returns the records that it refers to.
    pub fn targets(&self) -> impl Iterator<Item = &RecordKey> {
        self.references.iter().filter_map(|reference| reference.target.as_ref())
    }

    /// Returns the schema version of its fields as they are now.
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
    /// The server that this book belongs to, and the life of it that was last seen.
    pub server: Option<(ServerId, ServerEpoch)>,
    /// The tenant of that server that this book belongs to; none if the server never said.
    pub tenant: Option<TenantId>,
    /// The highest version that this life of the server ever told.
    pub highest: Version,
    /// The rows of the server that were set aside last: a hash of each one's name, and its version.
    pub set_aside: Vec<(u64, Version)>,
    /// How far each entity type was read whose name does not follow our rule.
    pub foreign_cursors: Vec<(String, Cursor)>,
    /// How far the server knows this log.
    pub anchor: Option<Receipt>,
    /// The server's clock, and the device's, at the last answer.
    pub server_time: Option<(WallTime, WallTime)>,
    /// When the server last answered, by the device's clock.
    pub synced_at: Option<WallTime>,
    /// What is stopped, and by which code. Ops that are parked by themselves have rows of their own, so that this one does not grow
    /// with them.
    pub parks: Vec<(ParkScope, String)>,
    /// How many ops are parked by themselves.
    pub parked_ops: u64,
    /// Whether an accepted server has yet to be read to its end; until then confirmed records of version 0 are those that
    /// the former one had.
    pub rereading: bool,
    /// Whether another server was ever accepted. What its former one had deleted may still be news to it, whenever another
    /// device offers it the record.
    pub had_other_server: bool,
    /// How far the table of the tail is folded.
    pub tail_folded: Seq,
    /// How far the table of the history is folded.
    pub history_folded: Seq,
}

impl StateRow {
    /// Returns the format that a row names whose other members may be of any format: it comes first in each of them.
    pub fn format_of(stored: &[u8]) -> Option<u32> {
        // So small a number is one byte; larger ones begin with a byte that says how long they are.
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
}

const _: () = assert!(is_part::<PlannedChange>());
const _: () = assert!(is_part::<crate::record::Pending>());

/// Returns the hash by which a row of the server that was set aside is known again: over its name, and over all of it if it
/// names no version.
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
