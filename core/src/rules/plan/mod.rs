//! What is sent next, and what is held and why.
//!
//! ```text
//!   tail  ──►  units under way that are due     sent again, same bytes
//!         ──►  groups of ops                    each to be folded and frozen as a new unit
//!         ──►  holds                            each with a reason that the app can read
//! ```
//!
//! Invariants:
//! 1. A record is in at most one unit that has no final answer; what is behind it waits.
//! 2. A group never reaches across: an op under way, a transaction's edge, another actor, another schema version, an open
//!    undo window, a reference to a record that is created later in the tail.
//! 3. An attempted op is never left out of what is sent: a delete behind it takes it over, anything else waits.
//! 4. An op whose declared reference is itself not at the server waits for it, unless that waits for the op. Priority orders
//!    what is left, and so never overtakes a dependency; nor does a delete overtake what refers to its record.
//! 5. Ops that would be one change wait together if a person has yet to choose about one of them.
//! 6. What would only be sent to fail ([`super::inspect`]) is held, looked at as it would be sent.
//! 7. Every op of the tail is in a unit, in a group, or held with a reason.
//!
//! Here are the steps of a plan; `groups` finds the ops that go together, `bars` why something cannot go now, `hold` has the words.
//!
//! What it is not: the folding of a group ([`super::coalesce`]) or its freezing ([`super::freeze`]).

mod bars;
mod groups;
mod hold;

use std::collections::{BTreeMap, HashSet};

pub use hold::Hold;

use super::inspect::Inspect;
use super::order::{Candidate, order};
use crate::entry::ParkScope;
use crate::ids::UnitId;
use crate::names::{Actor, RecordKey};
use crate::op::OpPlace;
use crate::rows::TailRow;
use crate::schema::Schema;
use crate::tail::{Tail, TailUnit};
use crate::time::WallTime;

/// What planning looks at.
pub struct PlanInput<'a> {
    /// The tail.
    pub tail: &'a Tail,
    /// What the app declared.
    pub schema: &'a Schema,
    /// What is parked, and by which code.
    pub parks: &'a [(ParkScope, String)],
    /// Whose credentials are at hand.
    pub actor: &'a Actor,
    /// The device's wall clock.
    pub now: WallTime,
    /// The most changes to send.
    pub batch_ops: usize,
    /// The most bytes to send; one unit may go over it alone.
    pub batch_bytes: usize,
    /// Whether the network is unmetered.
    pub unmetered: bool,
    /// Whether a unit's backoff counts; a person who asks for a sync now does not wait for it.
    pub heed_backoff: bool,
    /// Who looks at what would be sent.
    pub inspect: &'a dyn Inspect,
}

/// A send plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Units under way that are sent again.
    pub again: Vec<UnitId>,
    /// Ops to be folded into new units, in the order in which they are sent.
    pub groups: Vec<Group>,
    /// What is held.
    pub holds: BTreeMap<OpPlace, Hold>,
    /// The earliest time at which something held becomes due.
    pub wake: Option<WallTime>,
    /// Whether something that could be sent did not fit the batch.
    pub more: bool,
}

/// Ops that make one unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The ops of each record, oldest first.
    pub records: Vec<(RecordKey, Vec<OpPlace>)>,
    /// Whose they are.
    pub actor: Actor,
    /// An attempted unit that this one takes over.
    pub replaces: Option<UnitId>,
}

/// Makes a send plan.
pub fn plan(input: &PlanInput<'_>) -> Plan {
    let mut planning = Planning::of(input);
    planning.units_under_way();
    planning.new_groups();
    let plan = &mut planning.plan;
    plan.wake = plan.holds.values().filter_map(Hold::until).min();
    planning.plan
}

/// Plans as [`plan`] does, but for one record only: for who wants to know why that one is held.
pub fn plan_record(input: &PlanInput<'_>, key: &RecordKey) -> Plan {
    let mut planning = Planning::of(input);
    planning.units_under_way();
    let tail = input.tail;
    let first = tail.ops_of(key).find(|place| !tail.is_dead(*place));
    let first = first.filter(|_| !planning.visited.contains(key));
    let first = first.and_then(|place| Some((place, tail.op(place)?)));
    if let Some(candidate) = first.and_then(|(place, row)| planning.candidate(place, row)) {
        planning.take(candidate);
    }
    planning.plan
}

struct Planning<'a> {
    input: &'a PlanInput<'a>,
    plan: Plan,
    ops: usize,
    bytes: usize,
    visited: HashSet<RecordKey>,
}

impl<'a> Planning<'a> {
    fn of(input: &'a PlanInput<'a>) -> Self {
        Self { input, plan: Plan::default(), ops: 0, bytes: 0, visited: HashSet::new() }
    }

    fn units_under_way(&mut self) {
        let mut units: Vec<_> = self.input.tail.units().collect();
        units.sort_by_key(|(id, unit)| (unit.planned, **id));
        for (id, unit) in units {
            if self.takes_over(*id, unit) {
                continue;
            }
            self.visited.extend(unit.records.iter().cloned());
            self.hold_behind(*id, unit);
            let hold = self.hold_of_unit(unit);
            let bytes = unit.ops.iter().filter_map(|place| self.input.tail.op(*place)).map(size).sum();
            match hold {
                Some(hold) => self.hold_all(&unit.ops, &hold),
                None if self.fits(unit.records.len(), bytes) => self.plan.again.push(*id),
                None => self.plan.more = true,
            }
        }
    }

    fn hold_behind(&mut self, id: UnitId, unit: &TailUnit) {
        for key in &unit.records {
            for place in
                self.input.tail.ops_of(key).filter(|place| self.input.tail.unit_of(*place) != Some(id))
            {
                if !self.input.tail.is_dead(place) {
                    self.plan.holds.insert(place, Hold::Behind(id));
                }
            }
        }
    }

    fn new_groups(&mut self) {
        let tail = self.input.tail;
        let in_order = self.input.schema.has_one_priority();
        let mut candidates = Vec::new();
        for (place, row) in tail.ops() {
            if self.visited.contains(&row.key) || tail.is_dead(place) {
                continue;
            }
            if in_order && self.plan.more {
                break;
            }
            let Some(candidate) = self.candidate(place, row) else { continue };
            if in_order {
                self.take(candidate);
            } else {
                candidates.push(candidate);
            }
        }
        order(self.input.schema, self.input.tail, &mut candidates);
        for candidate in candidates {
            self.take(candidate);
        }
    }

    fn take(&mut self, candidate: Candidate) {
        let changes = candidate.group.records.len();
        if !self.plan.more && self.fits(changes, candidate.bytes) {
            self.plan.groups.push(candidate.group);
        } else {
            self.plan.more = true;
        }
    }

    fn hold_all(&mut self, places: &[OpPlace], hold: &Hold) {
        for place in places {
            self.plan.holds.insert(*place, hold.clone());
        }
    }

    /// Counts a unit in if the batch has room; the first one always has.
    fn fits(&mut self, changes: usize, bytes: usize) -> bool {
        let empty = self.ops == 0;
        if !empty
            && (self.ops + changes > self.input.batch_ops || self.bytes + bytes > self.input.batch_bytes)
        {
            return false;
        }
        self.ops += changes;
        self.bytes += bytes;
        true
    }
}

/// About how many bytes an op takes in a request.
fn size(row: &TailRow) -> usize {
    usize::try_from(row.bytes).unwrap_or(usize::MAX).saturating_add(240)
}

#[cfg(test)]
mod tests;
