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
//!    undo window, a reference to a record that is created later in the tail, the limit of size ([`super::size`]).
//! 3. An attempted op is never left out of what is sent: a delete behind it takes it over, anything else waits.
//! 4. An op whose declared reference is itself not at the server waits for it, unless that waits for the op. Priority orders
//!    what is left, and so never overtakes a dependency; nor does a delete overtake what refers to its record (`deletes`).
//! 5. Ops that would be one change wait together if a person has yet to choose about one of them.
//! 6. What would only be sent to fail ([`super::inspect`]) is held, looked at as it would be sent.
//! 7. Every op of the tail is in a unit, in a group, or held with a reason.
//! 8. What is sent again keeps the place that its plan gave it, and nothing passes what did not fit the batch.
//! 9. A unit that may be the one that does not get through goes after everything else, and never together with it.
//!
//! Here are the steps of a plan; `ready` which records the plan of an exchange looks at, `groups` finds the ops that go together, `bars` why something cannot go now, `deletes` what a
//! deletion waits for, `suspects` what goes last, `hold` has the words.
//!
//! What it is not: the folding of a group ([`super::coalesce`]) or its freezing ([`super::freeze`]).

mod bars;
mod deletes;
mod groups;
mod hold;
mod ready;
mod suspects;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};

pub use hold::Hold;
pub use ready::{ReadyQueue, passed_over};

use super::group::Group;
use super::inspect::Inspect;
use super::order::{Candidate, order};
use crate::entry::ParkScope;
use crate::ids::UnitId;
use crate::names::{Actor, RecordKey};
use crate::op::{OpKind, OpPlace};
use crate::rows::TailRow;
use crate::schema::Schema;
use crate::tail::{Tail, TailUnit};
use crate::time::WallTime;
use ready::Turn;
use suspects::Suspect;

/// What planning looks at.
pub struct PlanInput<'a> {
    /// The tail.
    pub tail: &'a Tail,
    /// What the app declared.
    pub schema: &'a Schema,
    /// What is parked but for single ops, which the tail knows, and by which code.
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
    /// Who looks at what would be sent.
    pub inspect: &'a dyn Inspect,
}

impl<'a> PlanInput<'a> {
    /// Looks at everything that there is to send, on a network that costs nothing: for who wants to know what is held, and why.
    pub const fn unbounded(
        tail: &'a Tail,
        schema: &'a Schema,
        parks: &'a [(ParkScope, String)],
        actor: &'a Actor,
        now: WallTime,
        inspect: &'a dyn Inspect,
    ) -> Self {
        let (batch_ops, batch_bytes) = (usize::MAX, usize::MAX);
        Self { tail, schema, parks, actor, now, batch_ops, batch_bytes, unmetered: true, inspect }
    }
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
    /// Whether there are ops that this plan did not come to, so that the next one has to look.
    pub unfinished: bool,
    /// How many records it looked at: what it cost.
    pub looked_at: usize,
    /// How many ops are held that no run lets go on by itself, also those of earlier plans.
    pub resting: u64,
}

/// Makes a send plan.
pub fn plan(input: &PlanInput<'_>) -> Plan {
    let mut planning = Planning::of(input);
    planning.units_under_way(input.tail.units_in_order());
    planning.new_groups(input.tail.ops());
    planning.suspects();
    let plan = &mut planning.plan;
    plan.wake = plan.holds.values().filter_map(Hold::until).min();
    plan.resting = plan.holds.values().filter(|hold| !hold.may_end_in_a_run()).count() as u64;
    planning.plan
}

/// Makes the plan of the next exchange. It looks only at what is ready, and at no more of that than a batch may need; what it
/// cannot send is passed over until that can have changed. Of `holds` the plan has those that it came by.
pub fn plan_next(input: &PlanInput<'_>, queue: &mut ReadyQueue) -> Plan {
    queue.look_around(input);
    let (looked_at, after) = queue.next(input.batch_ops.saturating_add(LOOKS_AHEAD));
    let mut planning = Planning { after, ..Planning::of(input) };
    planning.units_under_way(input.tail.units_in_order());
    if !planning.plan.more {
        planning.plan.unfinished = after.is_some();
        planning.new_groups(looked_at.iter().filter_map(|place| Some((*place, input.tail.op(*place)?))));
    }
    planning.suspects();
    let Planning { mut plan, later, .. } = planning;
    queue.put_back(input.tail, &later);
    queue.pass_over(input.tail, &looked_at, &plan.holds);
    let of_units = input.tail.units().flat_map(|(_, unit)| &unit.ops);
    let of_units: Vec<_> = of_units.filter_map(|place| plan.holds.get(place)).collect();
    plan.resting = queue.resting() + of_units.iter().filter(|hold| !hold.may_end_in_a_run()).count() as u64;
    plan.wake = of_units.into_iter().filter_map(Hold::until).chain(queue.wake_at()).min();
    plan
}

/// How many more records than a batch has a plan looks at: so many of them may be held before it has to be made again.
const LOOKS_AHEAD: usize = 250;

/// Plans as [`plan`] does, but for one record only: for who wants to know why that one is held.
pub fn plan_record(input: &PlanInput<'_>, key: &RecordKey) -> Plan {
    let mut planning = Planning::of(input);
    let places = planning.concerned_with(key);
    planning.units_under_way(input.tail.units_of(&places));
    let ops = places.into_iter().filter_map(|place| Some((place, input.tail.op(place)?)));
    planning.new_groups(ops);
    planning.suspects();
    planning.plan
}

struct Planning<'a> {
    input: &'a PlanInput<'a>,
    plan: Plan,
    ops: usize,
    bytes: usize,
    visited: HashSet<RecordKey>,
    /// Whether anything in the tail refers to a record. Where nothing does, deletions wait for nothing.
    heeds_references: bool,
    /// The ops that this plan sends; only kept if deletions have to know.
    going: HashSet<OpPlace>,
    /// The ops of units that a deletion takes over. They go in a new unit, behind all that is sent again.
    taken_over: Vec<OpPlace>,
    /// The suspected units that nothing else holds.
    suspects: Vec<Suspect<'a>>,
    /// The turn of the first record that this plan does not look at.
    after: Option<Turn>,
    /// The later turns of what could be sent, but not before that record.
    later: Vec<Turn>,
}

impl<'a> Planning<'a> {
    fn of(input: &'a PlanInput<'a>) -> Self {
        Self {
            input,
            plan: Plan::default(),
            ops: 0,
            bytes: 0,
            visited: HashSet::new(),
            heeds_references: input.tail.has_references(),
            going: HashSet::new(),
            taken_over: Vec::new(),
            suspects: Vec::new(),
            after: None,
            later: Vec::new(),
        }
    }

    /// Sends units again, given in the order of their plans, or says why they are held.
    fn units_under_way(&mut self, units: Vec<(UnitId, &'a TailUnit)>) {
        for (id, unit) in units {
            if self.takes_over(id, unit) {
                continue;
            }
            self.visited.extend(unit.records.iter().cloned());
            self.hold_behind(id, unit);
            let hold = self.hold_of_unit(unit);
            let bytes = unit.ops.iter().filter_map(|place| self.input.tail.op(*place)).map(size).sum();
            match (hold, &unit.suspicion) {
                (Some(hold), _) => self.hold_all(&unit.ops, &hold),
                (None, Some(suspicion)) => self.suspects.push((id, unit, suspicion)),
                (None, None) if self.fits(unit.records.len(), bytes) => {
                    self.plan.again.push(id);
                    self.note_going(unit.ops.iter().copied());
                }
                (None, None) => self.plan.more = true,
            }
        }
        let taken_over = std::mem::take(&mut self.taken_over);
        self.note_going(taken_over.into_iter());
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

    /// Finds the groups that begin with one of these ops, given oldest first.
    fn new_groups<'t>(&mut self, ops: impl Iterator<Item = (OpPlace, &'t TailRow)>) {
        let tail = self.input.tail;
        let in_order = self.input.schema.has_one_priority();
        let mut candidates = Vec::new();
        for (place, row) in ops {
            if self.visited.contains(&row.key) || tail.is_dead(place) {
                continue;
            }
            if in_order && self.plan.more {
                break;
            }
            self.plan.looked_at += 1;
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

    /// The ops that decide whether what waits of a record can go: its own, and those that its deletion has to wait for.
    fn concerned_with(&self, key: &RecordKey) -> BTreeSet<OpPlace> {
        let tail = self.input.tail;
        let (mut places, mut known, mut next) = (BTreeSet::new(), HashSet::from([key]), vec![key]);
        while let Some(key) = next.pop() {
            for (place, row) in tail.ops_of(key).filter_map(|place| Some((place, tail.op(place)?))) {
                places.insert(place);
                let together = tail.ops_of_entry(place.seq).map(|(_, row)| &row.key);
                let deletes = self.heeds_references && row.kind == OpKind::Delete;
                let earlier = deletes.then(|| self.referring(key, place)).into_iter().flatten();
                let earlier = earlier.filter_map(|place| Some(&tail.op(place)?.key));
                next.extend(together.chain(earlier).filter(|key| known.insert(key)));
            }
        }
        places
    }

    fn note_going(&mut self, places: impl Iterator<Item = OpPlace>) {
        if self.heeds_references {
            self.going.extend(places);
        }
    }

    fn take(&mut self, candidate: Candidate) {
        if self.plan.more {
            // What it may have to go behind was left out.
            return;
        }
        let turn = Turn { priority: Reverse(candidate.priority), first: candidate.first };
        if self.after.is_some_and(|after| turn > after) {
            self.later.push(turn);
            return;
        }
        if let Some(earlier) = self.deletes_too_early(&candidate.group) {
            for (_, places) in &candidate.group.records {
                self.hold_all(places, &Hold::WaitsFor(earlier.clone()));
            }
            return;
        }
        if let Some(bytes) = self.excess(&candidate.group) {
            for (_, places) in &candidate.group.records {
                self.hold_all(places, &Hold::TooLarge { bytes });
            }
            return;
        }
        let changes = candidate.group.records.len();
        if self.fits(changes, candidate.bytes) {
            self.note_going(candidate.group.records.iter().flat_map(|(_, places)| places).copied());
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

    /// Counts a unit in if the batch has room and nothing before it was left out; the first one always has.
    fn fits(&mut self, changes: usize, bytes: usize) -> bool {
        if self.plan.more {
            return false;
        }
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
