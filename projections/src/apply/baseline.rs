//! Applies a part of a baseline: what trimmed entries came to.
//!
//! The baseline is the beginning of a log, so the tables have nothing of its records before it.

use fieldbook_core::entry::{Baseline, BaselineState};
use fieldbook_core::log::StoreError;
use fieldbook_core::rows::CursorRow;

use super::Applying;
use crate::access::Tables;
use crate::log_view::LogView;

impl<T: Tables, L: LogView> Applying<'_, T, L> {
    pub(super) fn baseline(&mut self, baseline: &Baseline) -> Result<(), StoreError> {
        for (number, record) in (0..).zip(&baseline.records) {
            self.news(&record.change, number, record.synced_at)?;
        }
        baseline.state.as_ref().map_or(Ok(()), |state| self.baseline_state(state))
    }

    fn baseline_state(&mut self, found: &BaselineState) -> Result<(), StoreError> {
        for (entity, cursor, synced_at) in &found.cursors {
            let row = CursorRow { cursor: cursor.clone(), synced_at: *synced_at };
            self.tables.put_cursor(entity, row)?;
        }
        // Every member has a place here.
        let BaselineState {
            server,
            tenant,
            highest,
            set_aside,
            foreign_cursors,
            anchor,
            server_time,
            synced_at,
            parks,
            had_other_server,
            cursors: _,
        } = found.clone();
        self.change_state(|state, header| {
            (state.server, state.tenant, state.highest) = (server, tenant, highest);
            (state.set_aside, state.foreign_cursors) = (set_aside, foreign_cursors);
            (state.anchor, state.server_time) = (anchor, server_time);
            (state.synced_at, state.parks) = (synced_at, parks);
            state.had_other_server = had_other_server;
            state.trimmed = Some(header.seq);
        })
    }
}
