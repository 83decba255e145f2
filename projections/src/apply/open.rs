//! The record that is being changed.
//!
//! Most decisions about a record follow one another, and each of them changes or ends one op. So
//! the ops of a tail are read once, and the row is written once, when another record is changed or
//! the entry ends.
//!
//! Invariants:
//! 1. At most one record is open. While it is, the tables do not have its row.
//! 2. The cost of changing or ending an op does not depend on the number of ops in the tail, unless
//!    the op's stamp changes.

use std::collections::BTreeSet;

use fieldbook_core::entry::PlannedOp;
use fieldbook_core::log::StoreError;
use fieldbook_core::record::TailOp;
use fieldbook_core::rows::{Confirmed, RecordRow, Visible};
use fieldbook_core::{OpPlace, RecordKey};

use super::Applying;
use crate::access::Tables;
use crate::log_view::LogView;

/// A record's row, with its tail as the log has it.
pub(super) struct Open {
    pub(super) key: RecordKey,
    /// The row without its tail.
    pub(super) row: RecordRow,
    tail: Vec<TailOp>,
    /// The ops of `tail` that have ended.
    ended: BTreeSet<OpPlace>,
}

impl Open {
    /// Returns an op of the tail.
    pub(super) fn op(&mut self, op: &PlannedOp) -> Option<&mut TailOp> {
        let at = self.tail.binary_search_by_key(&op.place, |known| known.op.place).ok()?;
        let known = self.tail.get_mut(at).filter(|known| known.op.id == op.id)?;
        (!self.ended.contains(&op.place)).then_some(known)
    }

    /// Returns the tail, oldest first.
    pub(super) fn tail(&self) -> impl Iterator<Item = &TailOp> + Clone {
        self.tail.iter().filter(|op| !self.ended.contains(&op.op.place))
    }

    /// Returns the tail, oldest first, for changes.
    pub(super) fn tail_mut(&mut self) -> impl Iterator<Item = &mut TailOp> {
        let ended = &self.ended;
        self.tail.iter_mut().filter(|op| !ended.contains(&op.op.place))
    }

    /// Takes an op out of the tail, and returns it if the tail had it.
    pub(super) fn end(&mut self, op: &PlannedOp) -> Option<&TailOp> {
        let at = self.tail.binary_search_by_key(&op.place, |known| known.op.place).ok()?;
        let known = self.tail.get(at).filter(|known| known.op.id == op.id)?;
        self.ended.insert(op.place).then_some(known)
    }

    /// Changes ops. Fields that a creation removes by the stamp of a deletion follow the deletion.
    pub(super) fn change(&mut self, ops: &[PlannedOp], change: impl Fn(&mut TailOp)) {
        // An op follows the deletions before it, whatever the order of the ops' names.
        let mut ops: Vec<_> = ops.iter().collect();
        ops.sort_unstable_by_key(|op| op.place);
        for op in ops {
            let Some(op) = self.op(op) else { continue };
            let before = op.writes.stamp;
            change(op);
            let after = op.writes.stamp;
            if before != after {
                self.tail_mut().for_each(|later| later.follow_deletion(before, after));
            }
        }
    }
}

impl<T: Tables, L: LogView> Applying<'_, T, L> {
    /// Takes a record for a change; `None` if it has no row. The caller gives it to [`Self::keep`].
    pub(super) fn take(&mut self, key: &RecordKey) -> Result<Option<Open>, StoreError> {
        if let Some(open) = self.open.take_if(|open| open.key == *key) {
            return Ok(Some(open));
        }
        self.close()?;
        let row = self.tables.take_record(key)?;
        row.map(|row| self.opened(key, row)).transpose()
    }

    /// Takes a record for a change. A record without a row begins empty.
    pub(super) fn take_or_begin(&mut self, key: &RecordKey) -> Result<Open, StoreError> {
        match self.take(key)? {
            Some(open) => Ok(open),
            None => self.opened(key, RecordRow::default()),
        }
    }

    /// Returns the confirmed state of a record.
    pub(super) fn confirmed(&mut self, key: &RecordKey) -> Result<Option<Confirmed>, StoreError> {
        self.close()?;
        self.tables.confirmed(key)
    }

    fn opened(&self, key: &RecordKey, mut row: RecordRow) -> Result<Open, StoreError> {
        let tail = row.tail_ops(|place| self.log.op(place), |fault| self.damaged(fault))?;
        row.tail = Vec::new();
        Ok(Open { key: key.clone(), row, tail, ended: BTreeSet::new() })
    }

    /// Keeps a record open, for a next change.
    pub(super) fn keep(&mut self, open: Open) {
        self.open = Some(open);
    }

    /// Writes the row of the open record, and sets `visible` to `confirmed` with the tail joined.
    pub(super) fn close(&mut self) -> Result<(), StoreError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let Open { key, mut row, mut tail, ended } = open;
        tail.retain(|op| !ended.contains(&op.op.place));
        row.visible = if tail.is_empty() {
            Visible::AsConfirmed
        } else {
            let joined = row.registers().map_err(|fault| self.damaged(fault))?;
            let joined = joined.with(tail.iter().map(|op| &op.writes)).image();
            joined.map_or(Visible::Absent, |fields| Visible::Own(fields.to_json()))
        };
        row.tail = tail.into_iter().map(|op| op.pending).collect();
        self.touched(&key, !row.tail.is_empty());
        self.tables.put_record(&key, Some(row).filter(|row| !row.is_empty()))
    }
}
