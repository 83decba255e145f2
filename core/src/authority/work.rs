//! What one request may cost, counted before it is done.
//!
//! A request is small beside what it may ask for: a few bytes of an update make a whole record be read and written. So what is
//! read, built and looked up is counted, in bytes, before; once the budget is spent, the units behind are left untreated and
//! come again. The first unit of a request has all of the budget, so that each request gets on; a unit for which all of it is
//! not enough is rejected. Those behind it have what it left of the smaller budget of a turn, since others wait for the writer.
//!
//! What it is not: fair. Whose request comes next is the server's.

use super::Quota;
use super::row::Met;
use super::state::RowPlace;
use crate::protocol::{Unit, UnitChange};

/// What every change costs, whatever is in it: finding its record, and three rows that are written.
const CHANGE: usize = 4 * 1024;
/// What a look-up costs.
const LOOKUP: usize = 1024;

/// The budget is spent. Nothing of what was asked for was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spent;

/// What is left of a request's budget.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    left: usize,
    spent: usize,
}

impl Work {
    pub(super) const fn new(quota: &Quota) -> Self {
        Self { left: quota.work_bytes, spent: 0 }
    }

    /// Says that a unit is done: what comes behind has what is left of a turn.
    pub(super) fn go_on(&mut self, quota: &Quota) {
        self.left = self.left.min(quota.turn_bytes.saturating_sub(self.spent));
    }

    /// Returns how much was spent.
    pub(super) const fn spent(&self) -> usize {
        self.spent
    }

    /// Takes what it costs to look at a unit at all.
    pub(super) fn look_at(&mut self, unit: &Unit) -> Result<(), Spent> {
        let lookups = unit.replaces.len().saturating_add(1).saturating_mul(LOOKUP);
        self.spend(
            unit.changes.len().saturating_mul(CHANGE).saturating_add(lookups).saturating_add(unit.size()),
        )
    }

    /// Takes what it costs to make a change of a record: what is joined with the whole record reads it and writes it.
    pub(super) fn change(&mut self, change: &UnitChange, before: Option<&RowPlace>) -> Result<(), Spent> {
        let row = before.filter(|place| Met::needs_row(change, place));
        self.spend(row.map_or(0, |row| row.bytes.saturating_mul(2)))
    }

    /// Takes what it costs to show a record.
    pub(super) fn show(&mut self, row: Option<&RowPlace>) -> Result<(), Spent> {
        self.spend(row.map_or(0, |row| row.bytes))
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Spent> {
        // A refusal takes what is left too: whoever comes behind a unit that waits must not overtake it.
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(0);
        if left.is_some() {
            self.spent = self.spent.saturating_add(bytes);
        }
        left.map(drop).ok_or(Spent)
    }
}
