//! Units that may be the ones that do not get through ([`crate::rules::failure`]): they go last, and by themselves.
//!
//! Invariants:
//! 1. While anything else can be sent, no suspected unit is; then one group of them at a time.
//! 2. Of several groups the one that was suspected first goes first, and groups go before what was found alone: most gets
//!    through soonest so.
//! 3. One that was found alone waits for its own time.
//! 4. Each of them has its hold, the group that goes now too: whoever asks is told why it took so long.

use super::{Hold, Plan, Planning};
use crate::ids::UnitId;
use crate::limits;
use crate::rows::Suspicion;
use crate::tail::TailUnit;

impl Planning<'_> {
    /// Takes one group of the suspected units, if there is nothing else to send, and says of all of them why they waited.
    pub(super) fn suspects(&mut self) {
        let suspects = std::mem::take(&mut self.suspects);
        let is_due = |unit: &TailUnit| self.until_of(unit).is_none();
        let Plan { again, groups, more, unfinished, .. } = &self.plan;
        let nothing_else = again.is_empty() && groups.is_empty() && !more && !unfinished;
        let due = suspects.iter().filter(|(_, unit, _)| nothing_else && is_due(unit));
        let next = due.map(|(.., known)| (known.retry_at, known.group)).min();
        for (id, unit, known) in suspects {
            let (until, goes) = (self.until_of(unit), next == Some((known.retry_at, known.group)));
            if goes {
                self.plan.again.push(id);
            }
            self.plan.more |= until.is_none() && !goes;
            let hold = Hold::NotLetThrough { until, code: known.code.clone(), times: known.times };
            self.hold_all(&unit.ops, &hold);
        }
    }

    /// Returns until when a unit that was found alone waits, if it still does.
    fn until_of(&self, unit: &TailUnit) -> Option<crate::time::WallTime> {
        unit.isolated()?.retry_at.filter(|at| self.is_ahead(*at, limits::BACKOFF_MOST))
    }
}

/// A suspected unit that nothing else holds.
pub(super) type Suspect<'a> = (UnitId, &'a TailUnit, &'a Suspicion);
