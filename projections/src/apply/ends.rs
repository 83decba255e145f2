//! How ops leave the tail.

use fieldbook_core::entry::{Annulled, PlannedOp, Winner};
use fieldbook_core::log::StoreError;
use fieldbook_core::record::Pending;
use fieldbook_core::rows::ParkedOpRow;
use fieldbook_core::{OpId, RecordKey};

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
        self.see(&mut row)?;
        self.put(key, row)
    }

    /// Notes that ops left the tail. What they were parked for is settled with them: there is nothing to choose any more.
    pub(super) fn ended(&mut self, key: &RecordKey, ops: &[PlannedOp]) -> Result<(), StoreError> {
        self.effects.tail.extend(ops.iter().map(|op| TailEffect::Remove(op.place)));
        for op in ops {
            if self.tables.park_of(&op.id)?.is_some() {
                self.tables.close_conflicts(key, &op.id, Winner::Remote, None)?;
                self.park(&op.id, None)?;
            }
        }
        Ok(())
    }

    /// Parks an op by itself, or lets it go on. An op that is parked keeps its first code.
    pub(super) fn park(&mut self, op: &OpId, code: Option<&str>) -> Result<(), StoreError> {
        if self.tables.park_of(op)?.is_some() == code.is_some() {
            return Ok(());
        }
        let mut state = self.tables.state()?;
        let parked =
            if code.is_some() { state.parked_ops.checked_add(1) } else { state.parked_ops.checked_sub(1) };
        state.parked_ops = parked.unwrap_or(state.parked_ops);
        self.put_state(state)?;
        self.tables.put_park_of(op, code.map(|code| ParkedOpRow { code: code.to_owned() }))?;
        self.effects.tail.push(TailEffect::Parked(*op, code.map(str::to_owned)));
        Ok(())
    }
}
