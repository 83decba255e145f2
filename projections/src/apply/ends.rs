//! Ends ops, which leave the tail then, and parks single ops.

use fieldbook_core::entry::{PlannedOp, Winner};
use fieldbook_core::log::StoreError;
use fieldbook_core::record::Pending;
use fieldbook_core::rows::{ParkedOpRow, RecordRow};
use fieldbook_core::{OpId, RecordKey};

use super::Applying;
use crate::access::Tables;
use crate::effects::TailEffect;
use crate::log_view::LogView;

impl<T: Tables, L: LogView> Applying<'_, T, L> {
    /// Ends ops of a record.
    pub(super) fn end(&mut self, key: &RecordKey, ops: &[PlannedOp]) -> Result<(), StoreError> {
        let row = self.tables.take_record(key)?.unwrap_or_default();
        self.end_in(key, row, ops)
    }

    /// Ends ops of a record, given its row. If an op was parked, its park ends and its open
    /// conflicts close, since there is nothing left to choose.
    pub(super) fn end_in(
        &mut self,
        key: &RecordKey,
        mut row: RecordRow,
        ops: &[PlannedOp],
    ) -> Result<(), StoreError> {
        let ends = |pending: &Pending| ops.iter().any(|op| op.id == pending.op);
        for dead in row.tail.iter().filter(|pending| pending.dead && ends(pending)) {
            self.tables.put_dead_letter(&dead.op, None)?;
        }
        row.tail.retain(|pending| !ends(pending));
        self.effects.tail.extend(ops.iter().map(|op| TailEffect::Remove(op.place)));
        for op in ops {
            if self.tables.park_of(&op.id)?.is_some() {
                self.tables.close_conflicts(key, &op.id, Winner::Remote, None)?;
                self.park(&op.id, None)?;
            }
        }
        self.see(key, row)
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
