//! The budget of one request, counted before the work is done.
//!
//! A small request may ask for much work: a few bytes of an update make the server read and write a
//! whole record. So the bytes to read, to build and to look up are counted in advance. Once the
//! budget is spent, the remaining units get no outcome, and the device sends them again. The first
//! unit of a request has the whole budget, so that each request makes progress. A unit that exceeds
//! the whole budget is rejected. The next units share the rest of the smaller budget of a turn,
//! because other requests wait for the writer.
//!
//! What it does not do: choose the next request. That is the server's part.

use super::Quota;
use super::row::PresentState;
use super::state::RowPlace;
use crate::protocol::{Unit, UnitChange};

/// The cost of every change: finding its record, and writing three rows.
const CHANGE: usize = 4 * 1024;
/// The cost of a look-up.
const LOOKUP: usize = 1024;

/// The budget is spent, and the step was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spent;

/// Returns the units of a request that its budget may suffice to look at, from the first on. No
/// look-up is made for the others, so a store that reads in advance can leave them out.
pub fn looked_at<'u>(units: &'u [Unit], quota: &Quota) -> &'u [Unit] {
    let mut work = Work::new(quota);
    let count = units.iter().take_while(|unit| work.look_at(unit).is_ok()).count();
    units.get(..count).unwrap_or(units)
}

/// The remaining budget of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    left: usize,
    spent: usize,
}

impl Work {
    pub(super) const fn new(quota: &Quota) -> Self {
        Self { left: quota.work_bytes, spent: 0 }
    }

    /// Ends a unit. The next units have the rest of a turn.
    pub(super) fn go_on(&mut self, quota: &Quota) {
        self.left = self.left.min(quota.turn_bytes.saturating_sub(self.spent));
    }

    /// Returns how much was spent.
    pub(super) const fn spent(&self) -> usize {
        self.spent
    }

    /// Spends the cost of looking at a unit.
    pub(super) fn look_at(&mut self, unit: &Unit) -> Result<(), Spent> {
        let lookups = unit.earlier_units.len().saturating_add(1).saturating_mul(LOOKUP);
        self.spend(
            unit.changes
                .len()
                .saturating_mul(CHANGE)
                .saturating_add(lookups)
                .saturating_add(unit.size()),
        )
    }

    /// Spends the cost of a change of a record. A join with the whole record reads and writes it.
    pub(super) fn change(
        &mut self,
        change: &UnitChange,
        before: Option<&RowPlace>,
    ) -> Result<(), Spent> {
        let row = before.filter(|place| PresentState::needs_row(change, place));
        self.spend(row.map_or(0, |row| row.bytes.saturating_mul(2)))
    }

    /// Spends the cost of showing a record.
    pub(super) fn show(&mut self, row: Option<&RowPlace>) -> Result<(), Spent> {
        self.spend(row.map_or(0, |row| row.bytes))
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Spent> {
        // A refusal spends the remaining budget too: no later unit may overtake a unit that waits.
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(0);
        if left.is_some() {
            self.spent = self.spent.saturating_add(bytes);
        }
        left.map(drop).ok_or(Spent)
    }
}
