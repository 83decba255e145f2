//! How ops leave the tail, and what they take from the dead letters before them.

use fieldbook_core::entry::{Annulled, AnnulledReason, ParkScope, PlannedOp, Winner};
use fieldbook_core::log::StoreError;
use fieldbook_core::rows::{RecordRow, TailRef};
use fieldbook_core::rules::effective_fields;
use fieldbook_core::{OpKind, RecordKey};

use super::Applying;
use crate::access::Tables;
use crate::effects::TailEffect;
use crate::log_view::LogView;

impl<T: Tables, L: LogView> Applying<'_, T, L> {
    pub(super) fn annulled(&mut self, annulled: &Annulled) -> Result<(), StoreError> {
        if matches!(annulled.reason, AnnulledReason::NoEffect | AnnulledReason::Arrived) {
            self.last_word(&annulled.key, &annulled.ops)?;
        }
        self.end(&annulled.key, &annulled.ops)
    }

    /// Ends ops of a record.
    pub(super) fn end(&mut self, key: &RecordKey, ops: &[PlannedOp]) -> Result<(), StoreError> {
        let mut row = self.tables.take_record(key)?.unwrap_or_default();
        let ends = |reference: &TailRef| ops.iter().any(|op| op.id == reference.op);
        for reference in row.tail.iter().filter(|reference| reference.dead && ends(reference)) {
            self.tables.put_dead_letter(&reference.op, None)?;
        }
        row.tail.retain(|reference| !ends(reference));
        self.ended(key, ops)?;
        self.see(&mut row)?;
        self.put(key, row)
    }

    /// Takes from a record's dead letters what later ops, which end now, said anew.
    pub(super) fn last_word(&mut self, key: &RecordKey, ops: &[PlannedOp]) -> Result<(), StoreError> {
        let Some(mut row) = self.tables.take_record(key)? else { return Ok(()) };
        self.outdate(key, &mut row, ops)?;
        self.see(&mut row)?;
        self.put(key, row)
    }

    pub(super) fn outdate(
        &mut self,
        key: &RecordKey,
        row: &mut RecordRow,
        ops: &[PlannedOp],
    ) -> Result<(), StoreError> {
        if row.tail.iter().any(TailRef::was_given_up) {
            for op in ops {
                let content = self.log.op(op.place)?;
                let own = row.tail.iter().find(|reference| reference.op == op.id).cloned();
                let upcast = own.as_ref().and_then(|own| own.upcast.as_ref());
                let upcast = upcast.map(|upcast| upcast.fields.to_fields()).transpose();
                let upcast = upcast.map_err(|fault| self.damaged(fault))?;
                let said = upcast.as_ref().unwrap_or(&content.fields);
                let names: Vec<_> = said.names().map(str::to_owned).collect();
                row.outdate(op.place, content.kind, &names).map_err(|fault| self.damaged(fault))?;
                if let Some(own) = own.filter(|_| content.kind == OpKind::Update) {
                    let left = effective_fields(&content, &own);
                    row.hand_down(op.place, &left).map_err(|fault| self.damaged(fault))?;
                }
            }
            let last = ops.iter().map(|op| op.place).max().unwrap_or_default();
            self.refer_by_what_is_left(key, row, |found| found.place < last && found.was_given_up())?;
        }
        Ok(())
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
