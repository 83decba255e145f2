//! How ops leave the tail.

use fieldbook_core::RecordKey;
use fieldbook_core::entry::{Annulled, ParkScope, PlannedOp, Winner};
use fieldbook_core::log::StoreError;
use fieldbook_core::record::Pending;

use super::Applying;
use crate::access::Tables;
use crate::effects::TailEffect;
use crate::log_view::LogView;

impl<T: Tables, L: LogView> Applying<'_, T, L> {
    pub(super) fn annulled(&mut self, annulled: &Annulled) -> Result<(), StoreError> {
        self.end(&annulled.key, &annulled.ops)
    }

    /// Ends ops of a record.
    pub(super) fn end(&mut self, key: &RecordKey, ops: &[PlannedOp]) -> Result<(), StoreError> {
        let mut row = self.tables.take_record(key)?.unwrap_or_default();
        let ends = |pending: &Pending| ops.iter().any(|op| op.id == pending.op);
        for reference in row.tail.iter().filter(|reference| reference.dead && ends(reference)) {
            self.tables.put_dead_letter(&reference.op, None)?;
        }
        row.tail.retain(|reference| !ends(reference));
        self.ended(key, ops)?;
        self.see(key, row)
    }

    /// Notes that ops left the tail. What they were parked for is settled with them: there is nothing to choose any more.
    pub(super) fn ended(&mut self, key: &RecordKey, ops: &[PlannedOp]) -> Result<(), StoreError> {
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
        if state.parks.len() == parks { Ok(()) } else { self.put_state(state) }
    }
}
