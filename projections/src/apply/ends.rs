//! How ops leave the tail.

use fieldbook_core::RecordKey;
use fieldbook_core::entry::{ParkScope, PlannedOp, Winner};
use fieldbook_core::log::StoreError;
use fieldbook_core::record::Pending;
use fieldbook_core::rows::RecordRow;

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

    /// Ends ops of a record, given its row. What they were parked for is settled with them: there is nothing to choose any more.
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
        let mut state = self.tables.state()?;
        let parks = state.parks.len();
        for op in ops {
            let scope = ParkScope::Op(op.id);
            if state.parks.iter().any(|(parked, _)| *parked == scope) {
                self.tables.close_conflicts(key, &op.id, Winner::Remote, None)?;
                state.parks.retain(|(parked, _)| *parked != scope);
            }
        }
        if state.parks.len() != parks {
            self.tables.put_state(state)?;
        }
        self.see(key, row)
    }
}
