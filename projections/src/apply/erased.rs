//! Takes away the rows of records whose values were erased.
//!
//! A fold of the log from its beginning finds no values in the entries before, and makes rows of
//! nothing for these records. Those rows go here, so that no read returns a record without its
//! values.

use fieldbook_core::entry::ErasedRecords;
use fieldbook_core::log::StoreError;

use super::Applying;
use crate::access::Tables;
use crate::log_view::LogView;

impl<T: Tables, L: LogView> Applying<'_, T, L> {
    /// A record with an op in the tail stays: nothing that the server does not have is erased.
    pub(super) fn erased(&mut self, records: &ErasedRecords) -> Result<(), StoreError> {
        self.close()?;
        self.tables.erase(records)?;
        let seq = self.seq();
        let is_all = matches!(records, ErasedRecords::Except(_));
        match records {
            ErasedRecords::Only(keys) => keys.iter().for_each(|key| self.touched(key, true)),
            ErasedRecords::Except(_) => self.effects.all_records = true,
        }
        self.change_state(|state, _| {
            state.erasures.push(seq);
            if is_all {
                // The server's records come again, and so do the rows that were set aside.
                state.foreign_cursors.clear();
                state.set_aside.clear();
            }
        })
    }
}
