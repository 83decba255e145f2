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
//! What it is not: the folding of a group ([`super::coalesce`]) or its freezing ([`super::freeze`]).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use super::inspect::{Inspect, referred};
use super::order::{Candidate, comes_to, order};
use crate::entry::ParkScope;
use crate::ids::UnitId;
use crate::limits;
use crate::names::{Actor, RecordKey};
use crate::op::{OpKind, OpPlace};
use crate::rows::TailRow;
use crate::schema::{EntityRules, NetworkClass, Schema};
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

/// Why an op is not sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hold {
    /// It can still be undone.
    UndoWindow {
        /// When the window closes.
        until: WallTime,
    },
    /// A record that it refers to is not at the server yet.
    WaitsFor(RecordKey),
    /// The record's creation was refused: it waits for a person to decide on that dead letter.
    DeadCreate,
    /// It was not taken, and is tried again later.
    BackingOff {
        /// When.
        until: WallTime,
        /// The server's code.
        code: String,
    },
    /// An earlier op of its record is under way.
    Behind(UnitId),
    /// An earlier op of its record goes first, and the two cannot go as one.
    After(OpPlace),
    /// It wants an unmetered network.
    UnmeteredNetwork,
    /// Something is parked.
    Parked {
        /// What.
        scope: ParkScope,
        /// The server's code.
        code: String,
    },
    /// Someone else made it, whose credentials are not at hand.
    OtherActor(Actor),
    /// Its entity type never leaves the device.
    LocalOnly,
    /// It was made under another schema version than the app declares, and no upcasters lead from there.
    NoUpcaster {
        /// The version of its fields.
        from: u32,
        /// The version that the app declares.
        to: u32,
    },
    /// It refers to a record that was deleted: it would be refused. Someone has to correct it, unless the record is made
    /// again.
    Gone(RecordKey),
    /// The app's validator refuses it: someone has to correct it.
    Refused {
        /// Why, in the app's words.
        reason: String,
    },
}

impl Hold {
    /// Returns whether it lasts until a person corrects what is held.
    pub const fn waits_for_correction(&self) -> bool {
        matches!(self, Self::Gone(_) | Self::Refused { .. })
    }

    /// Returns when the hold ends by itself.
    pub const fn until(&self) -> Option<WallTime> {
        match self {
            Self::UndoWindow { until } | Self::BackingOff { until, .. } => Some(*until),
            _ => None,
        }
    }
}

/// Makes a send plan.
pub fn plan(input: &PlanInput<'_>) -> Plan {
    let mut planning = Planning { input, plan: Plan::default(), ops: 0, bytes: 0, visited: HashSet::new() };
    planning.units_under_way();
    planning.new_groups();
    let plan = &mut planning.plan;
    plan.wake = plan.holds.values().filter_map(Hold::until).min();
    planning.plan
}

/// Plans as [`plan`] does, but for one record only: for who wants to know why that one is held.
pub fn plan_record(input: &PlanInput<'_>, key: &RecordKey) -> Plan {
    let mut planning = Planning { input, plan: Plan::default(), ops: 0, bytes: 0, visited: HashSet::new() };
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

impl Planning<'_> {
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

    /// A delete behind an attempted unit of the same record takes its ops over: whatever became of the attempt, the record
    /// is to go. Returns whether it did.
    fn takes_over(&mut self, id: UnitId, unit: &TailUnit) -> bool {
        let [key] = unit.records.as_slice() else { return false };
        if unit.tries == 0 || self.hold_of_unit(&TailUnit { retry_at: None, ..unit.clone() }).is_some() {
            return false;
        }
        let behind: Vec<_> = self.input.tail.ops_of(key).filter(|place| !unit.ops.contains(place)).collect();
        let Some(last) = behind.last().and_then(|place| self.input.tail.op(*place)) else { return false };
        if last.kind != OpKind::Delete || behind.iter().any(|place| self.bars(*place).is_some()) {
            return false;
        }
        let ops: Vec<_> = unit.ops.iter().chain(&behind).copied().collect();
        if ops.iter().filter_map(|place| self.input.tail.op(*place)).any(|row| row.transaction_ops > 1) {
            return false;
        }
        self.visited.insert(key.clone());
        let bytes = size(last);
        if self.fits(1, bytes) {
            let records = vec![(key.clone(), ops)];
            self.plan.groups.push(Group { records, actor: unit.actor.clone(), replaces: Some(id) });
        } else {
            self.plan.more = true;
        }
        true
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

    fn hold_of_unit(&self, unit: &TailUnit) -> Option<Hold> {
        if let Some(hold) = self.parked(|scope| match scope {
            ParkScope::Actor(actor) => *actor == unit.actor,
            ParkScope::Entity(entity) => unit.records.iter().any(|key| key.entity == *entity),
            ParkScope::Op(op) => self.input.tail.place_of(op).is_some_and(|place| unit.ops.contains(&place)),
            ParkScope::Server(..) | ParkScope::Protocol => true,
        }) {
            return Some(hold);
        }
        if unit.actor != *self.input.actor {
            return Some(Hold::OtherActor(unit.actor.clone()));
        }
        let until =
            unit.retry_at.filter(|at| self.input.heed_backoff && self.is_ahead(*at, limits::BACKOFF_MOST))?;
        Some(Hold::BackingOff { until, code: unit.code.clone() })
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

    /// Finds the group that begins with the first waiting op of a record, or holds what cannot be sent.
    fn candidate(&mut self, first: OpPlace, row: &TailRow) -> Option<Candidate> {
        let places = if row.transaction_ops > 1 { self.transaction(first)? } else { self.run(first, row)? };
        let mut records: Vec<(RecordKey, Vec<OpPlace>)> = Vec::new();
        let mut bytes = 0;
        for place in places {
            let Some(row) = self.input.tail.op(place) else { continue };
            bytes += size(row);
            match records.iter_mut().find(|(key, _)| *key == row.key) {
                Some((_, places)) => places.push(place),
                None => records.push((row.key.clone(), vec![place])),
            }
        }
        let of_record = |(key, places): &(RecordKey, Vec<OpPlace>)| {
            let kind = comes_to(places.iter().filter_map(|place| self.input.tail.op(*place)));
            self.input.schema.rules(&key.entity).map_or(0, |rules| rules.priority_of(kind))
        };
        let priority = records.iter().map(of_record).max().unwrap_or_default();
        let group = Group { records, actor: row.actor.clone(), replaces: None };
        if let Some(hold) = self.objection(&group) {
            for (_, places) in &group.records {
                self.hold_all(places, &hold);
            }
            return None;
        }
        Some(Candidate { priority, first, group, bytes })
    }

    /// Returns why a group would only be sent to fail.
    fn objection(&self, group: &Group) -> Option<Hold> {
        let Self { input, .. } = self;
        let is_inspected =
            |key: &RecordKey| input.schema.rules(&key.entity).is_some_and(EntityRules::is_inspected);
        if !group.records.iter().any(|(key, _)| is_inspected(key)) {
            return None;
        }
        for (_, places) in &group.records {
            let ops = places.iter().filter_map(|place| input.tail.op(*place));
            if let Some(gone) = referred(ops).into_iter().find(|target| input.inspect.is_gone(target)) {
                return Some(Hold::Gone(gone.clone()));
            }
        }
        input.inspect.refusal(group).map(|reason| Hold::Refused { reason })
    }

    /// The ops of one record that can go as one, from the first waiting one on.
    fn run(&mut self, first: OpPlace, row: &TailRow) -> Option<Vec<OpPlace>> {
        self.visited.insert(row.key.clone());
        let tail = self.input.tail;
        let waiting: Vec<_> = tail.ops_of(&row.key).filter(|place| !tail.is_dead(*place)).collect();
        let dead_create =
            tail.ops_of(&row.key).find(|place| tail.is_dead(*place)).and_then(|place| tail.op(place));
        if dead_create.is_some_and(|dead| dead.kind == OpKind::Create) {
            self.hold_all(&waiting, &Hold::DeadCreate);
            return None;
        }
        if let Some(hold) = self.bars(first) {
            self.hold_all(&waiting, &hold);
            return None;
        }
        let mut run = vec![first];
        for place in waiting.iter().copied().filter(|place| *place > first) {
            let joins = tail.op(place).is_some_and(|next| {
                next.transaction_ops == 1
                    && next.actor == row.actor
                    && next.schema_version == row.schema_version
            });
            let bar = if joins { self.bars(place) } else { None };
            if let Some(hold @ Hold::Parked { scope: ParkScope::Op(_), .. }) = bar {
                // They are one change, and a person has yet to choose about it.
                self.hold_all(&waiting, &hold);
                return None;
            }
            if !joins || bar.is_some() {
                break;
            }
            run.push(place);
        }
        for place in waiting.into_iter().filter(|place| !run.contains(place)) {
            let hold = self.bars(place).unwrap_or(Hold::After(first));
            self.plan.holds.insert(place, hold);
        }
        Some(run)
    }

    /// All ops of one transaction, if each can go: all or none.
    fn transaction(&mut self, first: OpPlace) -> Option<Vec<OpPlace>> {
        let tail = self.input.tail;
        let ops = tail.ops_of_entry(first.seq).map(|(place, _)| place);
        let places: Vec<_> = ops.filter(|place| !tail.is_dead(*place)).collect();
        let keys: BTreeSet<_> =
            places.iter().filter_map(|place| tail.op(*place)).map(|row| row.key.clone()).collect();
        let hold = keys.iter().find_map(|key| self.blocked_before(key, first)).or_else(|| {
            places.iter().find_map(|place| match self.bars(*place) {
                Some(Hold::WaitsFor(key)) if keys.contains(&key) => None,
                hold => hold,
            })
        });
        for key in &keys {
            let behind = tail.ops_of(key).filter(|place| place.seq > first.seq && !tail.is_dead(*place));
            self.plan.holds.extend(behind.map(|place| (place, Hold::After(first))));
        }
        self.visited.extend(keys);
        match hold {
            Some(hold) => {
                self.hold_all(&places, &hold);
                None
            }
            None => Some(places),
        }
    }

    /// Returns why an earlier op of a record keeps a transaction from going, or a later one that is under way: what was given
    /// up and is sent again may have been overtaken.
    fn blocked_before(&self, key: &RecordKey, first: OpPlace) -> Option<Hold> {
        let tail = self.input.tail;
        if let Some(unit) = tail.ops_of(key).find_map(|place| tail.unit_of(place)) {
            return Some(Hold::Behind(unit));
        }
        let earlier =
            tail.ops_of(key).find(|place| place.seq < first.seq && self.stands_in_the_way(*place))?;
        Some(if tail.is_dead(earlier) { Hold::DeadCreate } else { Hold::WaitsFor(key.clone()) })
    }

    fn stands_in_the_way(&self, place: OpPlace) -> bool {
        let created = || self.input.tail.op(place).is_some_and(|row| row.kind == OpKind::Create);
        !self.input.tail.is_dead(place) || created()
    }

    /// Returns why an op cannot be sent now, looking at the op alone.
    fn bars(&self, place: OpPlace) -> Option<Hold> {
        let row = self.input.tail.op(place)?;
        let rules = self.input.schema.rules(&row.key.entity);
        let parked = self.parked(|scope| match scope {
            ParkScope::Actor(actor) => *actor == row.actor,
            ParkScope::Entity(entity) => row.key.entity == *entity,
            ParkScope::Op(op) => row.op == *op,
            ParkScope::Server(..) | ParkScope::Protocol => true,
        });
        if parked.is_some() {
            return parked;
        }
        if row.actor != *self.input.actor {
            return Some(Hold::OtherActor(row.actor.clone()));
        }
        let rules = rules?;
        if rules.local_only {
            return Some(Hold::LocalOnly);
        }
        if let Some(declared) = super::upcast::outgrown(self.input.schema, row)
            && !declared.can_upcast(row.form())
        {
            return Some(Hold::NoUpcaster { from: row.form(), to: declared.schema_version });
        }
        let until = row.made_at.plus(rules.undo_window);
        if self.is_ahead(until, rules.undo_window) {
            return Some(Hold::UndoWindow { until });
        }
        let unmetered_only = match rules.network {
            NetworkClass::Any => false,
            NetworkClass::Unmetered => true,
            NetworkClass::UnmeteredAbove(bytes) => row.bytes > bytes as u64,
        };
        if unmetered_only && !self.input.unmetered {
            return Some(Hold::UnmeteredNetwork);
        }
        row.targets()
            .find(|target| self.is_unborn(target, &row.key, place))
            .map(|target| Hold::WaitsFor(target.clone()))
    }

    /// Returns whether a record that is referred to has yet to be created at the server, so that the op at `place` waits for
    /// it. Where records wait for each other, the op that was made first does not.
    fn is_unborn(&self, target: &RecordKey, from: &RecordKey, place: OpPlace) -> bool {
        let tail = self.input.tail;
        let is_create = |place: &OpPlace| tail.op(*place).is_some_and(|row| row.kind == OpKind::Create);
        let created = if target == from { None } else { tail.ops_of(target).find(is_create) };
        created.is_some_and(|created| created < place || !self.leads_back(target, from))
    }

    /// Returns whether anything of one record may wait for another one: by a reference, in a transaction, and so on from
    /// there.
    fn leads_back(&self, target: &RecordKey, from: &RecordKey) -> bool {
        let tail = self.input.tail;
        let (mut known, mut next) = (HashSet::from([target]), vec![target]);
        while let Some(key) = next.pop() {
            for (place, row) in tail.ops_of(key).filter_map(|place| Some((place, tail.op(place)?))) {
                let together = tail.ops_of_entry(place.seq).map(|(_, row)| &row.key);
                for key in row.targets().chain(together) {
                    if key == from {
                        return true;
                    }
                    if known.insert(key) {
                        next.push(key);
                    }
                }
            }
        }
        false
    }

    /// Returns whether a wait goes on. One that would take longer than the longest there is was begun by a clock that has
    /// been set back since, and is over.
    fn is_ahead(&self, until: WallTime, longest: Duration) -> bool {
        until > self.input.now && until <= self.input.now.plus(longest)
    }

    fn parked(&self, concerns: impl Fn(&ParkScope) -> bool) -> Option<Hold> {
        let (scope, code) = self.input.parks.iter().find(|(scope, _)| concerns(scope))?;
        Some(Hold::Parked { scope: scope.clone(), code: code.clone() })
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
mod tests {
    use super::*;
    use crate::ids::OpId;
    use crate::numbers::Seq;
    use crate::time::Hlc;
    use std::time::Duration;

    fn place(seq: u64) -> OpPlace {
        OpPlace { seq: Seq::new(seq), index: 0 }
    }

    fn op(seq: u8) -> OpId {
        OpId::from_bytes([seq; 16])
    }

    /// Updates of one record, in entries 1, 2, 3, …
    fn tail(updates: u8) -> Tail {
        let mut tail = Tail::default();
        for seq in 1..=updates {
            let row = TailRow {
                op: op(seq),
                key: RecordKey::parse("lead", "1").unwrap(),
                kind: OpKind::Update,
                actor: Actor::parse("user-1").unwrap(),
                edited_at: Hlc::from_bits(seq.into()),
                made_at: WallTime::default(),
                schema_version: 1,
                upcast: None,
                transaction_ops: 1,
                bytes: 10,
                references: Vec::new(),
            };
            tail.insert(place(seq.into()), row);
        }
        tail
    }

    fn planned(tail: &Tail, parks: &[(ParkScope, String)]) -> Plan {
        let rules = EntityRules { undo_window: Duration::ZERO, ..EntityRules::default() };
        plan(&PlanInput {
            tail,
            schema: &Schema::open(rules),
            parks,
            actor: &Actor::parse("user-1").unwrap(),
            now: WallTime::default(),
            batch_ops: 50,
            batch_bytes: 1_000_000,
            unmetered: true,
            heed_backoff: true,
            inspect: &crate::rules::inspect::NoInspection,
        })
    }

    #[test]
    fn ops_of_a_record_leave_as_one_group() {
        let plan = planned(&tail(3), &[]);
        let places: Vec<_> =
            plan.groups.iter().flat_map(|group| &group.records).map(|(_, places)| places.clone()).collect();
        assert_eq!(places, [[place(1), place(2), place(3)]]);
    }

    #[test]
    fn what_would_be_one_change_with_an_op_that_waits_for_a_person_waits_with_it() {
        let parks = [(ParkScope::Op(op(2)), "conflict".to_owned())];
        let plan = planned(&tail(3), &parks);
        assert_eq!(plan.groups, []);
        assert_eq!(plan.holds.len(), 3);
        assert!(plan.holds.values().all(|hold| matches!(hold, Hold::Parked { .. })));
    }
}
