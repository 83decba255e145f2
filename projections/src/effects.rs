//! What a fold changed, for those who follow: the tail in memory and the watchers.

use fieldbook_core::rows::{TailRow, UnitRow};
use fieldbook_core::tail::Tail;
use fieldbook_core::{FieldsJson, OpId, OpPlace, RecordKey, UnitId};

/// What one or more entries changed.
#[derive(Debug, Clone, Default)]
pub struct Effects {
    /// What happened to the tail, in order.
    pub tail: Vec<TailEffect>,
    /// The records whose row or status changed.
    pub records: Vec<RecordKey>,
}

impl Effects {
    /// Makes room for what so many ops change.
    pub fn reserve(&mut self, ops: usize) {
        self.tail.reserve(ops);
        self.records.reserve(ops);
    }
}

/// A record whose visible image a commit changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordEffect {
    /// The record.
    pub key: RecordKey,
    /// What the app read before the commit; `None` for no such record.
    pub before: Option<FieldsJson>,
    /// What the app reads after it.
    pub after: Option<FieldsJson>,
}

/// One thing that happened to the tail.
#[derive(Debug, Clone)]
pub enum TailEffect {
    /// An op was appended.
    Insert(OpPlace, TailRow),
    /// What is known of an op is something else now.
    Replace(OpPlace, TailRow),
    /// An op ended.
    Remove(OpPlace),
    /// An op became a dead letter, or is one no longer.
    Dead(OpPlace, bool),
    /// An op was parked by itself, under this code, or goes on.
    Parked(OpId, Option<String>),
    /// A unit was planned or tried.
    Unit(UnitId, UnitRow),
    /// A unit was answered.
    UnitGone(UnitId),
}

impl TailEffect {
    /// Brings the tail in memory up to date.
    pub fn apply_to(self, tail: &mut Tail) {
        match self {
            Self::Insert(place, row) | Self::Replace(place, row) => tail.insert(place, row),
            Self::Remove(place) => tail.remove(place),
            Self::Dead(place, dead) => tail.set_dead(place, dead),
            Self::Parked(op, code) => tail.set_parked(op, code),
            Self::Unit(id, row) => tail.put_unit(id, &row),
            Self::UnitGone(id) => tail.remove_unit(id),
        }
    }
}
