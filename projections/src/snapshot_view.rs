//! A view of a book for the rules, outside a round of the writer: one snapshot, its log and its
//! tail.
//!
//! Invariants:
//! 1. The three are of the same moment. The caller takes the log and the tail from the snapshot, or
//!    uses the tail in memory if the snapshot was begun after the last commit.
//!
//! What it is not: a view for decisions that are written. Such a decision is made within the round,
//! on the tables with that round's changes.

use fieldbook_core::entry::FieldsSource;
use fieldbook_core::log::StoreError;
use fieldbook_core::rows::{RecordRow, UnitRow};
use fieldbook_core::tail::Tail;
use fieldbook_core::{FieldsJson, OpContent, OpId, OpPlace, RecordKey, UnitId, View};

use crate::log_view::LogView;
use crate::read::Snapshot;

/// A snapshot in the form that the rules read.
pub struct SnapshotView<'a, L> {
    snapshot: &'a Snapshot,
    log: L,
    tail: &'a Tail,
}

impl<'a, L: LogView> SnapshotView<'a, L> {
    /// Lends a snapshot to the rules, with its log ([`Snapshot::log`]) and its tail
    /// ([`Snapshot::tail`]).
    pub const fn new(snapshot: &'a Snapshot, log: L, tail: &'a Tail) -> Self {
        Self { snapshot, log, tail }
    }
}

impl<L: LogView> View for SnapshotView<'_, L> {
    type Error = StoreError;

    fn record(&mut self, key: &RecordKey) -> Result<Option<RecordRow>, StoreError> {
        self.snapshot.record(key)
    }

    fn unit(&mut self, unit: &UnitId) -> Result<Option<UnitRow>, StoreError> {
        self.snapshot.unit(unit)
    }

    fn unit_of(&mut self, op: &OpId) -> Result<Option<UnitId>, StoreError> {
        Ok(self.tail.place_of(op).and_then(|place| self.tail.unit_of(place)))
    }

    fn op(&mut self, place: OpPlace) -> Result<OpContent, StoreError> {
        self.log.op(place)
    }

    fn fields(&mut self, source: FieldsSource) -> Result<Option<FieldsJson>, StoreError> {
        self.log.fields(source)
    }
}

impl<L> std::fmt::Debug for SnapshotView<'_, L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SnapshotView")
    }
}
