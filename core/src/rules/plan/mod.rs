//! Plans what is sent next, and what is held and why.
//!
//! ```text
//!   tail  ──►  unanswered units that are due     sent again, same bytes
//!         ──►  groups of ops                     each becomes a new unit, coalesced and frozen
//!         ──►  holds                             each with a reason that the app can read
//! ```
//!
//! Invariants:
//! 1. A record is in at most one unanswered unit. Later ops of the record wait.
//! 2. A group never reaches across these: an unanswered op, the edge of a transaction, another
//!    actor, another schema version, an open undo window, a reference to a record that is created
//!    later in the tail, the size limit ([`super::size`]).
//! 3. An unanswered op is always sent again before later ops of its record: only a delete absorbs
//!    it, every other op waits.
//! 4. An op waits if its declared reference is to a record that the server does not have, unless
//!    that record waits for the op. Priority orders the rest, so it never overtakes a dependency. A
//!    delete overtakes no op that refers to its record (`deletes`).
//! 5. Ops that would be one change wait together if a person still has to choose in one of them.
//! 6. A change that the server would only refuse ([`super::inspect`]) is held. It is checked in the
//!    form in which it would be sent.
//! 7. Every op of the tail is in a unit, in a group, or held with a reason.
//! 8. Units that are sent again keep the order of their plans, and nothing overtakes a unit that
//!    did not fit the batch.
//! 9. A suspected unit is sent after everything else, and never together with it.
//!
//! This file has the steps of a plan. `ready` has the records that the plan of an exchange looks
//! at. `groups` finds the ops that are sent together, `blockers` the reasons against sending,
//! `deletes` the waits of a deletion. `suspects` plans what is sent last. `hold` has the words.
//!
//! What it does not do: coalesce a group ([`super::coalesce`]) or freeze it ([`super::freeze`]).

mod blockers;
mod deletes;
mod groups;
mod hold;
mod ready;
mod suspects;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use foldhash::{HashSet, HashSetExt};

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

/// The input of a plan.
pub struct PlanInput<'a> {
    /// The tail.
    pub tail: &'a Tail,
    /// The declarations of the app.
    pub schema: &'a Schema,
    /// The parks and their codes, without those of single ops, which the tail has.
    pub parks: &'a [(ParkScope, String)],
    /// The actor whose credentials are available.
    pub actor: &'a Actor,
    /// The device's wall clock.
    pub now: WallTime,
    /// The most changes to send.
    pub batch_ops: usize,
    /// The most bytes to send. A single unit may exceed it alone.
    pub batch_bytes: usize,
    /// Whether the network is unmetered.
    pub unmetered: bool,
    /// The check before sending.
    pub inspect: &'a dyn Inspect,
}

impl<'a> PlanInput<'a> {
    /// Makes an input without limits, on an unmetered network. It is for questions about what is
    /// held, and why.
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
    /// Unanswered units that are sent again.
    pub again: Vec<UnitId>,
    /// Ops to coalesce into new units, in the order in which they are sent.
    pub groups: Vec<Group>,
    /// The ops that are held.
    pub holds: BTreeMap<OpPlace, Hold>,
    /// The earliest time at which a held op becomes due.
    pub wake: Option<WallTime>,
    /// Whether something that could be sent did not fit the batch.
    pub more: bool,
    /// Whether this plan did not reach some ops, so that the next plan has to look at them.
    pub unfinished: bool,
    /// The number of records that the plan looked at, which is its cost.
    pub looked_at: usize,
    /// The number of ops with a hold that no run ends, including those of earlier plans.
    pub resting: u64,
}

/// Makes a send plan.
pub fn plan(input: &PlanInput<'_>) -> Plan {
    let mut planning = Planning::of(input);
    planning.unanswered_units(input.tail.units_in_order());
    planning.new_groups(input.tail.ops());
    planning.suspects();
    let plan = &mut planning.plan;
    plan.wake = plan.holds.values().filter_map(Hold::until).min();
    plan.resting = plan.holds.values().filter(|hold| !hold.may_end_in_a_run()).count() as u64;
    planning.plan
}

/// Makes the plan of the next exchange. It looks only at ready records, and at no more of them than
/// a batch may need. It passes over the records that it cannot send until that can have changed.
/// `holds` has only the holds that this plan found.
pub fn plan_next(input: &PlanInput<'_>, queue: &mut ReadyQueue) -> Plan {
    queue.look_around(input);
    let most = input.batch_ops.saturating_add(LOOKS_AHEAD);
    queue.read_on(input.tail, input.schema, most);
    let (looked_at, after) = queue.next(most);
    let mut planning = Planning { after, ..Planning::of(input) };
    planning.unanswered_units(input.tail.units_in_order());
    if !planning.plan.more {
        planning.plan.unfinished = after.is_some();
        planning.new_groups(
            looked_at.iter().filter_map(|place| Some((*place, input.tail.op(*place)?))),
        );
    }
    planning.suspects();
    let Planning { mut plan, later, .. } = planning;
    queue.put_back(input.tail, &later);
    queue.pass_over(input.tail, &looked_at, &plan.holds);
    let of_units = input.tail.units().flat_map(|(_, unit)| &unit.ops);
    let of_units: Vec<_> = of_units.filter_map(|place| plan.holds.get(place)).collect();
    plan.resting =
        queue.resting() + of_units.iter().filter(|hold| !hold.may_end_in_a_run()).count() as u64;
    plan.wake = of_units.into_iter().filter_map(Hold::until).chain(queue.wake_at()).min();
    plan
}

/// The number of records that a plan looks at in addition to a batch. So many may be held before
/// the plan has to be made again.
const LOOKS_AHEAD: usize = 250;

/// Plans like [`plan`], but for one record only. It is for the question why that record is held.
pub fn plan_record(input: &PlanInput<'_>, key: &RecordKey) -> Plan {
    plan_records(input, [key])
}

/// Plans some records alone, as [`plan_record`] plans each of them. The cost follows their ops.
pub fn plan_records<'k>(
    input: &PlanInput<'_>,
    keys: impl IntoIterator<Item = &'k RecordKey>,
) -> Plan {
    let mut planning = Planning::of(input);
    let keys: Vec<_> = keys.into_iter().collect();
    let places = planning.concerned_with(&keys);
    planning.unanswered_units(input.tail.units_of(&places));
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
    /// Whether any op of the tail refers to a record. If none does, no deletion waits.
    heeds_references: bool,
    /// The ops that this plan sends. They are collected only if deletions depend on them.
    going: HashSet<OpPlace>,
    /// The ops of units that a deletion absorbs. They leave in a new unit, after all units that
    /// are sent again.
    absorbed: Vec<OpPlace>,
    /// The suspected units without another hold.
    suspects: Vec<Suspect<'a>>,
    /// The turn of the first record that this plan does not look at.
    after: Option<Turn>,
    /// The turns of groups that could be sent, but not before that record.
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
            absorbed: Vec::new(),
            suspects: Vec::new(),
            after: None,
            later: Vec::new(),
        }
    }

    /// Sends unanswered units again, given in the order of their plans, or records why they are
    /// held.
    fn unanswered_units(&mut self, units: Vec<(UnitId, &'a TailUnit)>) {
        for (id, unit) in units {
            if self.absorbs(id, unit) {
                continue;
            }
            self.visited.extend(unit.records.iter().cloned());
            self.hold_behind(id, unit);
            let hold = self.hold_of_unit(unit);
            let bytes =
                unit.ops.iter().filter_map(|place| self.input.tail.op(*place)).map(size).sum();
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
        let absorbed = std::mem::take(&mut self.absorbed);
        self.note_going(absorbed.into_iter());
    }

    fn hold_behind(&mut self, id: UnitId, unit: &TailUnit) {
        for key in &unit.records {
            for place in self
                .input
                .tail
                .ops_of(key)
                .filter(|place| self.input.tail.unit_of(*place) != Some(id))
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

    /// Returns the ops that decide whether waiting ops of records can be sent: their own ops, the
    /// ops of records in their transactions, and those that their deletion waits for.
    fn concerned_with(&self, keys: &[&RecordKey]) -> BTreeSet<OpPlace> {
        let tail = self.input.tail;
        let mut next: Vec<&RecordKey> = keys.to_vec();
        let (mut places, mut known) =
            (BTreeSet::new(), next.iter().copied().collect::<HashSet<_>>());
        let mut entries = HashSet::new();
        while let Some(key) = next.pop() {
            for (place, row) in tail.ops_of(key).filter_map(|place| Some((place, tail.op(place)?)))
            {
                places.insert(place);
                // The ops of a transaction are looked at once, not once for each of them.
                let is_new = entries.insert(place.seq);
                let together = is_new.then(|| self.together_with(place, row));
                let together = together.into_iter().flatten();
                let deletes = self.heeds_references && row.kind == OpKind::Delete;
                let earlier = deletes.then(|| self.referring(key, place)).into_iter().flatten();
                let earlier = earlier.filter_map(|place| Some(&tail.op(place)?.key));
                next.extend(together.chain(earlier).filter(|key| known.insert(key)));
            }
        }
        places
    }

    /// Returns the records of the transaction of an op; none if it has no other op.
    fn together_with(
        &self,
        place: OpPlace,
        row: &TailRow,
    ) -> impl Iterator<Item = &'a RecordKey> + use<'a> {
        let tail = self.input.tail;
        let ops = (row.transaction_ops > 1).then(|| tail.ops_of_entry(place.seq));
        ops.into_iter().flatten().map(|(_, row)| &row.key)
    }

    fn note_going(&mut self, places: impl Iterator<Item = OpPlace>) {
        if self.heeds_references {
            self.going.extend(places);
        }
    }

    fn take(&mut self, candidate: Candidate) {
        if self.plan.more {
            // This group may have to follow a group that was left out.
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

    /// Adds a unit if the batch has room and nothing before it was left out. The first unit always
    /// fits.
    fn fits(&mut self, changes: usize, bytes: usize) -> bool {
        if self.plan.more {
            return false;
        }
        let empty = self.ops == 0;
        if !empty
            && (self.ops + changes > self.input.batch_ops
                || self.bytes + bytes > self.input.batch_bytes)
        {
            return false;
        }
        self.ops += changes;
        self.bytes += bytes;
        true
    }
}

/// Returns the approximate size of an op in a request, in bytes.
fn size(row: &TailRow) -> usize {
    usize::try_from(row.bytes).unwrap_or(usize::MAX).saturating_add(240)
}

#[cfg(test)]
mod tests;
