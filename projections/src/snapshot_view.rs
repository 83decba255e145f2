//! A view of a book for the rules, outside a round of the writer: the rows of one snapshot or of
//! the past, the log and the tail.
//!
//! Invariants:
//! 1. The three are of the same moment. The caller takes the log and the tail from the snapshot, or
//!    uses the tail in memory if the snapshot was begun after the last commit.
//!
//! What it is not: a view for decisions that are written. Such a decision is made within the round,
//! on the tables with that round's changes.

use fieldbook_core::entry::FieldsSource;
use fieldbook_core::log::StoreError;
use fieldbook_core::rows::{ConflictRow, DeadLetterRow, RecordRow, UnitRow};
use fieldbook_core::tail::Tail;
use fieldbook_core::{ConflictId, FieldsJson, OpContent, OpId, OpPlace, RecordKey, UnitId, View};

use crate::log_view::LogView;
use crate::past::Past;
use crate::read::Snapshot;

/// The rows of one moment, present or past.
#[expect(missing_docs, reason = "each reads one table, described in `tables`")]
pub trait Rows {
    fn record(&self, key: &RecordKey) -> Result<Option<RecordRow>, StoreError>;
    fn unit(&self, id: &UnitId) -> Result<Option<UnitRow>, StoreError>;
    fn dead_letter(&self, op: &OpId) -> Result<Option<DeadLetterRow>, StoreError>;
    /// Returns the conflicts of a record, oldest first.
    fn conflicts_of(&self, key: &RecordKey) -> Result<Vec<(ConflictId, ConflictRow)>, StoreError>;
    /// Returns whether something of a record is undeclared.
    fn is_undeclared(&self, key: &RecordKey) -> Result<bool, StoreError>;
}

impl Rows for Snapshot {
    fn record(&self, key: &RecordKey) -> Result<Option<RecordRow>, StoreError> {
        self.record(key)
    }

    fn unit(&self, id: &UnitId) -> Result<Option<UnitRow>, StoreError> {
        self.unit(id)
    }

    fn dead_letter(&self, op: &OpId) -> Result<Option<DeadLetterRow>, StoreError> {
        self.dead_letter(op)
    }

    fn conflicts_of(&self, key: &RecordKey) -> Result<Vec<(ConflictId, ConflictRow)>, StoreError> {
        self.conflicts_of(key)
    }

    fn is_undeclared(&self, key: &RecordKey) -> Result<bool, StoreError> {
        self.is_undeclared(key)
    }
}

/// The past of a snapshot: what was not touched since is read from the snapshot.
#[derive(Clone, Copy)]
pub struct PastRows<'a> {
    /// The tables as they were.
    pub past: &'a Past,
    /// The snapshot that they were made of.
    pub snapshot: &'a Snapshot,
}

impl std::fmt::Debug for PastRows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.past.fmt(f)
    }
}

impl Rows for PastRows<'_> {
    fn record(&self, key: &RecordKey) -> Result<Option<RecordRow>, StoreError> {
        self.past.record(self.snapshot, key)
    }

    fn unit(&self, id: &UnitId) -> Result<Option<UnitRow>, StoreError> {
        self.past.unit(self.snapshot, id)
    }

    fn dead_letter(&self, op: &OpId) -> Result<Option<DeadLetterRow>, StoreError> {
        self.past.dead_letter(self.snapshot, op)
    }

    fn conflicts_of(&self, key: &RecordKey) -> Result<Vec<(ConflictId, ConflictRow)>, StoreError> {
        self.past.conflicts_of(self.snapshot, key)
    }

    fn is_undeclared(&self, key: &RecordKey) -> Result<bool, StoreError> {
        self.past.is_undeclared(self.snapshot, key)
    }
}

/// Rows of one moment in the form that the rules read.
pub struct SnapshotView<'a, L, R = Snapshot> {
    rows: &'a R,
    log: L,
    tail: &'a Tail,
}

impl<'a, L: LogView, R: Rows> SnapshotView<'a, L, R> {
    /// Lends rows to the rules, with their log ([`Snapshot::log`]) and the tail of their moment
    /// ([`Snapshot::tail`], [`Past::tail`]).
    pub const fn new(rows: &'a R, log: L, tail: &'a Tail) -> Self {
        Self { rows, log, tail }
    }
}

impl<L: LogView, R: Rows> View for SnapshotView<'_, L, R> {
    type Error = StoreError;

    fn record(&mut self, key: &RecordKey) -> Result<Option<RecordRow>, StoreError> {
        self.rows.record(key)
    }

    fn unit(&mut self, unit: &UnitId) -> Result<Option<UnitRow>, StoreError> {
        self.rows.unit(unit)
    }

    fn unit_of(&mut self, op: &OpId) -> Result<Option<UnitId>, StoreError> {
        Ok(self.tail.unit_of_op(op))
    }

    fn op(&mut self, place: OpPlace) -> Result<OpContent, StoreError> {
        self.log.op(place)
    }

    fn fields(&mut self, source: FieldsSource) -> Result<Option<FieldsJson>, StoreError> {
        self.log.fields(source)
    }
}

impl<L, R> std::fmt::Debug for SnapshotView<'_, L, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SnapshotView")
    }
}
