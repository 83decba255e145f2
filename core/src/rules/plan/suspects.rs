//! Plans suspected units, which perhaps do not get through ([`crate::rules::failure`]): they are
//! sent last, and alone.
//!
//! Invariants:
//! 1. No suspected unit is sent while anything else can be sent. Then one set of them is sent at
//!    a time.
//! 2. The set that was suspected first is sent first. Sets are sent before units that are
//!    suspected alone, because most units get through soonest that way.
//! 3. A unit that is suspected alone waits for its own time.
//! 4. Each suspected unit has a hold, also in the set that is sent now, so that a user can see
//!    why it took so long.

use super::{Hold, Plan, Planning};
use crate::ids::UnitId;
use crate::limits;
use crate::rows::Suspicion;
use crate::tail::TailUnit;

impl Planning<'_> {
    /// Adds one set of the suspected units if there is nothing else to send, and records holds
    /// for all of them.
    pub(super) fn suspects(&mut self) {
        let suspects = std::mem::take(&mut self.suspects);
        let is_due = |unit: &TailUnit| self.until_of(unit).is_none();
        let Plan { again, groups, more, unfinished, .. } = &self.plan;
        let nothing_else = again.is_empty() && groups.is_empty() && !more && !unfinished;
        let due = suspects.iter().filter(|(_, unit, _)| nothing_else && is_due(unit));
        let next = due.map(|(.., known)| (known.retry_at, known.set)).min();
        for (id, unit, known) in suspects {
            let (until, goes) = (self.until_of(unit), next == Some((known.retry_at, known.set)));
            if goes {
                self.plan.again.push(id);
            }
            self.plan.more |= until.is_none() && !goes;
            let hold = Hold::NotLetThrough { until, code: known.code.clone(), times: known.times };
            self.hold_all(&unit.ops, &hold);
        }
    }

    /// Returns the time until which an isolated unit waits, if it still waits.
    fn until_of(&self, unit: &TailUnit) -> Option<crate::time::WallTime> {
        unit.isolated()?.retry_at.filter(|at| self.is_ahead(*at, limits::BACKOFF_MOST))
    }
}

/// A suspected unit without another hold.
pub(super) type Suspect<'a> = (UnitId, &'a TailUnit, &'a Suspicion);
