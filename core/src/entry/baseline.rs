//! What stands in place of the entries that were trimmed from the beginning of a log.
//!
//! ```text
//!   before   1 · 2 · 3 · … · 900 · 901 · … · 950
//!   after    1 ·     3 ·     898 · 899 · 900 ║ 901 · … · 950 · 951
//!            kept entries    └ baseline parts  ┘ joint            └ says that 1 to 900 were trimmed
//! ```
//!
//! The *baseline* is the rows up to the joint: entries that are still needed, such as the beginning of
//! the log, and parts with the records as they were. It is a chain of its own, sealed from the
//! first row to the joint, with gaps between its places. The *joint* has the place of the last
//! trimmed entry, and ends with that entry's hash, so the log goes on from it as before. An
//! entry behind it, in the chain of the log, names both hashes: it vouches for the baseline.
//!
//! Invariants:
//! 1. A fold of the baseline makes the tables that a fold of the trimmed entries made, as far as a
//!    later entry or a read can need them.
//! 2. At the joint no op was pending, no unit was unanswered and no conflict was open. So no entry
//!    behind it names a place before it.
//!
//! What it is not: a snapshot of the tables. Its form does not change when theirs does.

use super::decision::ParkScope;
use super::meta::{ChangeMeta, Receipt};
use crate::codec::{Decode, Encode};
use crate::ids::{ServerEpoch, ServerId, TenantId};
use crate::names::EntityType;
use crate::numbers::{Cursor, Hash, Version};
use crate::time::WallTime;

/// A part of what the trimmed entries came to.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Baseline {
    /// Confirmed records, in the order of their keys.
    pub records: Vec<BaselineRecord>,
    /// The state of the book, in the joint; none in the other parts.
    pub state: Option<BaselineState>,
}

/// A record as the server had confirmed it.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct BaselineRecord {
    /// The record, as a whole row or a deletion.
    pub change: ChangeMeta,
    /// When the server last confirmed something of it, by the device's clock.
    pub synced_at: Option<WallTime>,
}

/// What was known of the book as a whole.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Default)]
pub struct BaselineState {
    /// The server of the book, and its last known epoch.
    pub server: Option<(ServerId, ServerEpoch)>,
    /// The tenant to which the book belongs.
    pub tenant: Option<TenantId>,
    /// The highest version in any answer of that epoch.
    pub highest: Version,
    /// The rows of the server that were set aside last: a hash and a version of each.
    pub set_aside: Vec<(u64, Version)>,
    /// The cursors of entity types whose names this program does not allow.
    pub foreign_cursors: Vec<(String, Cursor)>,
    /// The server's last receipt.
    pub anchor: Option<Receipt>,
    /// The times of the server's clock and of the device's clock at the last answer.
    pub server_time: Option<(WallTime, WallTime)>,
    /// When the server last answered, by the device's clock.
    pub synced_at: Option<WallTime>,
    /// The parks that held, with their codes.
    pub parks: Vec<(ParkScope, String)>,
    /// Whether another server was ever accepted.
    pub had_other_server: bool,
    /// The cursor of each entity type, and when a page last moved it, by the device's clock.
    pub cursors: Vec<(EntityType, Cursor, WallTime)>,
}

/// Entries were trimmed from the beginning of the log. The entry is in the same commit as the
/// trimming.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Trimmed {
    /// The last trimmed entry: its place, and the hash that it had.
    pub upto: Receipt,
    /// The hash with which the joint in its place was sealed.
    pub baseline: Hash,
    /// The number of rows that were taken out of the log for it.
    pub entries: u64,
    /// The sum at the end of the archive that has them, as an exported log without compression;
    /// none if no archive was made.
    pub archive: Option<Hash>,
}
