//! Ends ops, which leave the tail then, and parks single ops.

use fieldbook_core::entry::{PlannedOp, Winner};
use fieldbook_core::log::StoreError;
use fieldbook_core::rows::ParkedOpRow;
use fieldbook_core::{OpId, RecordKey};

use super::Applying;
use super::open::Open;
use crate::access::Tables;
use crate::effects::TailEffect;
use crate::log_view::LogView;

impl<T: Tables, L: LogView> Applying<'_, T, L> {
    /// Ends ops of a record. If an op was parked, its park ends and its open conflicts close, since
    /// there is nothing left to choose.
    pub(super) fn end(&mut self, key: &RecordKey, ops: &[PlannedOp]) -> Result<(), StoreError> {
        let open = self.take_or_begin(key)?;
        self.end_in(open, ops)
    }

    /// Ends ops of an open record.
    pub(super) fn end_in(&mut self, mut open: Open, ops: &[PlannedOp]) -> Result<(), StoreError> {
        for op in ops {
            if open.end(op).is_some_and(|ended| ended.pending.dead) {
                self.tables.put_dead_letter(&op.id, None)?;
            }
            self.effects.tail.push(TailEffect::Remove(op.place));
            if self.tables.park_of(&op.id)?.is_some() {
                self.tables.close_conflicts(&open.key, &op.id, Winner::Remote, None)?;
                self.park(&op.id, None)?;
            }
        }
        self.keep(open);
        Ok(())
    }

    /// Parks a single op, or ends its park. A parked op keeps its first code.
    pub(super) fn park(&mut self, op: &OpId, code: Option<&str>) -> Result<(), StoreError> {
        if self.tables.park_of(op)?.is_some() == code.is_some() {
            return Ok(());
        }
        self.change_state(|state, _| {
            let ops = state.parked_ops;
            let parked = if code.is_some() { ops.checked_add(1) } else { ops.checked_sub(1) };
            state.parked_ops = parked.unwrap_or(ops);
        })?;
        self.tables.put_park_of(op, code.map(|code| ParkedOpRow { code: code.to_owned() }))?;
        self.effects.tail.push(TailEffect::Parked(*op, code.map(str::to_owned)));
        Ok(())
    }
}
