//! The changes of a fold, for its followers: the tail in memory and the watchers.

use fieldbook_core::rows::{TailRow, UnitRow};
use fieldbook_core::tail::Tail;
use fieldbook_core::{FieldsJson, OpId, OpPlace, RecordKey, UnitId};

/// The changes of one or more entries.
#[derive(Debug, Clone, Default)]
pub struct Effects {
    /// The changes of the tail, in order.
    pub tail: Vec<TailEffect>,
    /// The records whose row or status changed, in order. A record may be there more than once.
    pub records: Vec<Changed>,
    /// Whether every record may have changed: another server was accepted.
    pub all_records: bool,
}

impl Effects {
    /// Reserves memory for the changes of this many ops.
    pub fn reserve(&mut self, ops: usize) {
        self.tail.reserve(ops);
        self.records.reserve(ops);
    }
}

/// A record whose row or status changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The record.
    pub key: RecordKey,
    /// Whether ops of the record may be in the tail. If not, nobody has to look for them.
    pub may_have_tail: bool,
}

/// A record whose visible image a commit changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordEffect {
    /// The record.
    pub key: RecordKey,
    /// The fields that the app read before the commit; `None` for no such record.
    pub before: Option<FieldsJson>,
    /// The fields that the app reads after the commit; `None` for no such record.
    pub after: Option<FieldsJson>,
}

/// One change of the tail.
#[derive(Debug, Clone)]
pub enum TailEffect {
    /// An op was appended.
    Insert(OpPlace, TailRow),
    /// The row of an op changed.
    Replace(OpPlace, TailRow),
    /// An op ended.
    Remove(OpPlace),
    /// An op became a dead letter, or a dead letter was sent again.
    Dead(OpPlace, bool),
    /// An op was parked alone under this code, or its park ended.
    Parked(OpId, Option<String>),
    /// A unit was planned, or its row changed.
    Unit(UnitId, UnitRow),
    /// A unit ended, by an answer or because it was abandoned.
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
