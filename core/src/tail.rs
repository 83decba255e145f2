//! The tail in memory: all ops that have not ended, in order, with the facts that planning needs.
//!
//! Invariants:
//! 1. The tail holds an op from the commit that appended it to the commit that ended it, and never
//!    twice.
//! 2. Each op and each record is in at most one unit.
//! 3. The tail is a pure fold: built again from the log it is the same.
//!
//! What it is not: a store. It is built again each time a book is opened.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::ids::{OpId, UnitId};
use crate::names::{Actor, EntityType, RecordKey};
use crate::numbers::Seq;
use crate::op::OpPlace;
use crate::rows::{Suspicion, TailRow, UnitRow};
use crate::time::{Hlc, WallTime};

/// The tail of a book.
#[derive(Debug, Clone, Default)]
pub struct Tail {
    ops: BTreeMap<OpPlace, TailRow>,
    records: HashMap<RecordKey, Places>,
    places: HashMap<OpId, OpPlace>,
    dead: BTreeSet<OpPlace>,
    /// The ops that are parked alone, each with its code.
    parked: HashMap<OpId, String>,
    /// The number of ops that are parked alone, by code.
    parked_by_code: BTreeMap<String, u64>,
    units: BTreeMap<UnitId, TailUnit>,
    unit_of: HashMap<OpPlace, UnitId>,
    referrers: HashMap<RecordKey, BTreeSet<OpPlace>>,
    leavers: HashMap<RecordKey, BTreeSet<OpPlace>>,
    /// The number of ops of each actor, by entity type.
    actors: BTreeMap<Actor, BTreeMap<EntityType, u64>>,
    latest_stamp: Hlc,
    /// The last entry that the tail follows.
    followed: Seq,
}

/// A unit without a final answer, with the facts that planning needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailUnit {
    /// The entry that planned it.
    pub planned: Seq,
    /// The unit's number in that entry.
    pub number: u32,
    /// The actor whose credentials send it.
    pub actor: Actor,
    /// Its ops.
    pub ops: Vec<OpPlace>,
    /// Its records.
    pub records: Vec<RecordKey>,
    /// The number of answers of the class *transient*.
    pub tries: u32,
    /// The code of the last of these answers.
    pub code: String,
    /// The unit must not be sent again before this time.
    pub retry_at: Option<WallTime>,
    /// The suspicion that the unit does not get through.
    pub suspicion: Option<Suspicion>,
}

impl TailUnit {
    /// Returns the suspicion if it is against this unit alone.
    pub fn isolated(&self) -> Option<&Suspicion> {
        self.suspicion.as_ref().filter(|suspicion| suspicion.retry_at.is_some())
    }
}

/// The places of a record's ops, in order. Nearly always there is one, which needs no allocation.
#[derive(Debug, Clone)]
struct Places {
    first: OpPlace,
    more: Vec<OpPlace>,
}

impl Places {
    fn insert(&mut self, place: OpPlace) {
        if place == self.first {
            return;
        }
        let later =
            if place < self.first { std::mem::replace(&mut self.first, place) } else { place };
        if let Err(at) = self.more.binary_search(&later) {
            self.more.insert(at, later);
        }
    }

    /// Removes a place, and returns whether it was the only one.
    fn remove(&mut self, place: OpPlace) -> bool {
        if place != self.first {
            self.more.retain(|known| *known != place);
            return false;
        }
        if self.more.is_empty() {
            return true;
        }
        self.first = self.more.remove(0);
        false
    }
}

impl Tail {
    /// Makes a tail of many ops, oldest first, when a book is opened.
    pub fn of(rows: Vec<(OpPlace, TailRow)>) -> Self {
        let mut tail = Self {
            records: HashMap::with_capacity(rows.len()),
            places: HashMap::with_capacity(rows.len()),
            ..Self::default()
        };
        for (place, row) in &rows {
            tail.note(*place, row);
        }
        tail.ops = rows.into_iter().collect();
        tail
    }

    /// Adds an op that was appended.
    pub fn insert(&mut self, place: OpPlace, row: TailRow) {
        self.forget_row(place);
        self.note(place, &row);
        self.ops.insert(place, row);
    }

    /// Removes the facts that are kept beside the row of an op.
    fn forget_row(&mut self, place: OpPlace) {
        let Some(row) = self.ops.get(&place) else { return };
        let of_actor =
            self.actors.get_mut(&row.actor).and_then(|types| types.get_mut(&row.key.entity));
        of_actor.into_iter().for_each(|ops| *ops = ops.saturating_sub(1));
        row.targets().for_each(|target| forget(&mut self.referrers, target, place));
        row.led_away.iter().for_each(|target| forget(&mut self.leavers, target, place));
    }

    /// Removes an op that ended.
    pub fn remove(&mut self, place: OpPlace) {
        self.forget_row(place);
        let Some(row) = self.ops.remove(&place) else { return };
        self.places.remove(&row.op);
        self.set_parked(row.op, None);
        self.dead.remove(&place);
        self.unit_of.remove(&place);
        if self.records.get_mut(&row.key).is_some_and(|places| places.remove(place)) {
            self.records.remove(&row.key);
        }
    }

    fn note(&mut self, place: OpPlace, row: &TailRow) {
        self.latest_stamp = self.latest_stamp.max(row.edited_at);
        match self.records.entry(row.key.clone()) {
            Entry::Occupied(places) => places.into_mut().insert(place),
            Entry::Vacant(vacant) => drop(vacant.insert(Places { first: place, more: Vec::new() })),
        }
        self.places.insert(row.op, place);
        // Nearly always there is one actor. A look-up first avoids copying the name.
        match self.actors.get_mut(&row.actor).and_then(|types| types.get_mut(&row.key.entity)) {
            Some(ops) => *ops = ops.saturating_add(1),
            None => {
                let types = self.actors.entry(row.actor.clone()).or_default();
                types.insert(row.key.entity.clone(), 1);
            }
        }
        for target in row.targets() {
            self.referrers.entry(target.clone()).or_default().insert(place);
        }
        for target in &row.led_away {
            self.leavers.entry(target.clone()).or_default().insert(place);
        }
    }

    /// Marks an op as a dead letter, or removes the mark.
    pub fn set_dead(&mut self, place: OpPlace, dead: bool) {
        if dead {
            self.dead.insert(place);
        } else {
            self.dead.remove(&place);
        }
    }

    /// Parks one op under a code, or resumes it.
    pub fn set_parked(&mut self, op: OpId, code: Option<String>) {
        if let Some(code) = self.parked.remove(&op)
            && let Some(ops) = self.parked_by_code.get_mut(&code)
        {
            *ops = ops.saturating_sub(1);
            if *ops == 0 {
                self.parked_by_code.remove(&code);
            }
        }
        if let Some(code) = code {
            let ops = self.parked_by_code.entry(code.clone()).or_default();
            *ops = ops.saturating_add(1);
            self.parked.insert(op, code);
        }
    }

    /// Adds a unit that was planned, or updates one that was tried.
    pub fn put_unit(&mut self, id: UnitId, row: &UnitRow) {
        let ops: Vec<_> =
            row.changes.iter().flat_map(|change| change.ops.iter().map(|op| op.place)).collect();
        for place in &ops {
            self.unit_of.insert(*place, id);
        }
        let records = row.changes.iter().map(|change| change.key.clone()).collect();
        let unit = TailUnit {
            planned: row.planned,
            number: row.number,
            actor: row.actor.clone(),
            ops,
            records,
            tries: row.tries,
            code: row.code.clone(),
            retry_at: row.retry_at,
            suspicion: row.suspicion.clone(),
        };
        self.units.insert(id, unit);
    }

    /// Removes a unit that was answered, or whose ops another unit absorbed.
    pub fn remove_unit(&mut self, id: UnitId) {
        let Some(unit) = self.units.remove(&id) else { return };
        for place in unit.ops {
            if self.unit_of.get(&place) == Some(&id) {
                self.unit_of.remove(&place);
            }
        }
    }

    /// Returns all ops, oldest first.
    pub fn ops(&self) -> impl Iterator<Item = (OpPlace, &TailRow)> {
        self.ops.iter().map(|(place, row)| (*place, row))
    }

    /// Returns the ops of entries after a place, oldest first.
    pub fn ops_after(&self, seq: Seq) -> impl Iterator<Item = (OpPlace, &TailRow)> {
        self.ops.range(OpPlace { seq: seq.next(), index: 0 }..).map(|(place, row)| (*place, row))
    }

    /// Returns the ops of one entry, in order.
    pub fn ops_of_entry(&self, seq: Seq) -> impl Iterator<Item = (OpPlace, &TailRow)> {
        let range = OpPlace { seq, index: 0 }..=OpPlace { seq, index: u32::MAX };
        self.ops.range(range).map(|(place, row)| (*place, row))
    }

    /// Returns an op.
    pub fn op(&self, place: OpPlace) -> Option<&TailRow> {
        self.ops.get(&place)
    }

    /// Returns the place of an op.
    pub fn place_of(&self, op: &OpId) -> Option<OpPlace> {
        self.places.get(op).copied()
    }

    /// Returns the ops of a record, oldest first.
    pub fn ops_of(&self, key: &RecordKey) -> impl DoubleEndedIterator<Item = OpPlace> + '_ {
        let places = self.records.get(key).into_iter();
        places.flat_map(|places| std::iter::once(places.first).chain(places.more.iter().copied()))
    }

    /// Returns the ops that refer to a record, oldest first.
    pub fn referrers(&self, key: &RecordKey) -> impl Iterator<Item = (OpPlace, &TailRow)> {
        let places = self.referrers.get(key).into_iter().flatten();
        places.filter_map(|place| Some((*place, self.ops.get(place)?)))
    }

    /// Returns the ops before a place that remove a reference to a record, then those that refer to
    /// it, each oldest first.
    pub fn referring_before(
        &self,
        key: &RecordKey,
        place: OpPlace,
    ) -> impl Iterator<Item = OpPlace> + '_ {
        let known = [self.leavers.get(key), self.referrers.get(key)];
        known.into_iter().flatten().flat_map(move |places| places.range(..place)).copied()
    }

    /// Returns whether any op refers to a record, or removes a reference.
    pub fn has_references(&self) -> bool {
        !self.referrers.is_empty() || !self.leavers.is_empty()
    }

    /// Returns whether a record has a tail.
    pub fn has(&self, key: &RecordKey) -> bool {
        self.records.contains_key(key)
    }

    /// Returns whether an op is a dead letter.
    pub fn is_dead(&self, place: OpPlace) -> bool {
        self.dead.contains(&place)
    }

    /// Returns the code under which an op is parked alone, if it is.
    pub fn park_of(&self, op: &OpId) -> Option<&str> {
        self.parked.get(op).map(String::as_str)
    }

    /// Returns the ops that are parked alone, in no order.
    pub fn parked(&self) -> impl ExactSizeIterator<Item = (&OpId, &str)> {
        self.parked.iter().map(|(op, code)| (op, code.as_str()))
    }

    /// Returns the number of ops that are parked alone, by code.
    pub const fn parked_by_code(&self) -> &BTreeMap<String, u64> {
        &self.parked_by_code
    }

    /// Returns the unit that an op is in.
    pub fn unit_of(&self, place: OpPlace) -> Option<UnitId> {
        self.unit_of.get(&place).copied()
    }

    /// Returns a unit.
    pub fn unit(&self, id: &UnitId) -> Option<&TailUnit> {
        self.units.get(id)
    }

    /// Returns all units, ordered by id. The ids of one millisecond have no meaningful order:
    /// [`Self::units_in_order`] has the order of the plans.
    pub fn units(&self) -> impl Iterator<Item = (&UnitId, &TailUnit)> {
        self.units.iter()
    }

    /// Returns all units in the order in which they were planned.
    pub fn units_in_order(&self) -> Vec<(UnitId, &TailUnit)> {
        in_order(self.units.iter().map(|(id, unit)| (*id, unit)).collect())
    }

    /// Returns the units that some ops are in, in the order in which they were planned.
    pub fn units_of<'p>(
        &self,
        places: impl IntoIterator<Item = &'p OpPlace>,
    ) -> Vec<(UnitId, &TailUnit)> {
        let ids: BTreeSet<_> =
            places.into_iter().filter_map(|place| self.unit_of(*place)).collect();
        in_order(ids.into_iter().filter_map(|id| Some((id, self.units.get(&id)?))).collect())
    }

    /// Records that the tail follows the log up to an entry.
    pub const fn follow(&mut self, seq: Seq) {
        self.followed = seq;
    }

    /// Returns the last entry that the tail follows.
    pub const fn followed(&self) -> Seq {
        self.followed
    }

    /// Returns a stamp that is not before the stamp of any op of the tail.
    pub const fn latest_stamp(&self) -> Hlc {
        self.latest_stamp
    }

    /// Returns the other actors with ops in the tail. For each it returns the number of ops whose
    /// entity types pass `leaves`, dead letters included.
    pub fn others(&self, actor: &Actor, leaves: impl Fn(&EntityType) -> bool) -> Vec<(Actor, u64)> {
        let others = self.actors.iter().filter(|(other, _)| *other != actor);
        let counted = others.map(|(other, types)| {
            let ops = types.iter().filter(|(entity, _)| leaves(entity)).map(|(_, ops)| ops).sum();
            (other.clone(), ops)
        });
        counted.filter(|(_, ops)| *ops > 0).collect()
    }

    /// Returns the number of ops whose entity types pass `leaves`, dead letters included.
    pub fn pending(&self, leaves: impl Fn(&EntityType) -> bool) -> u64 {
        let types = self.actors.values().flatten();
        types.filter(|(entity, _)| leaves(entity)).map(|(_, ops)| ops).sum()
    }

    /// Returns the number of ops, dead letters included.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Returns whether all ops have ended.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Returns how many dead letters there are.
    pub fn dead_letters(&self) -> usize {
        self.dead.len()
    }
}

fn in_order(mut units: Vec<(UnitId, &TailUnit)>) -> Vec<(UnitId, &TailUnit)> {
    units.sort_by_key(|(id, unit)| (unit.planned, unit.number, *id));
    units
}

fn forget(index: &mut HashMap<RecordKey, BTreeSet<OpPlace>>, target: &RecordKey, place: OpPlace) {
    if let Some(places) = index.get_mut(target) {
        places.remove(&place);
        if places.is_empty() {
            index.remove(target);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(op: u8, actor: &str, entity: &str) -> TailRow {
        TailRow {
            op: OpId::from_bytes([op; 16]),
            key: RecordKey::parse(entity, "1").unwrap(),
            kind: crate::op::OpKind::Update,
            actor: Actor::parse(actor).unwrap(),
            edited_at: Hlc::ZERO,
            made_at: WallTime::default(),
            schema_version: 1,
            upcast: None,
            transaction_ops: 1,
            bytes: 10,
            references: Vec::new(),
            led_away: Vec::new(),
        }
    }

    #[test]
    fn the_ops_of_other_actors_are_counted_once_each_and_forgotten_with_their_end() {
        let place = |index| OpPlace { seq: Seq::new(1), index };
        let rows = [(1, "ann", "lead"), (2, "ben", "lead"), (3, "ben", "note"), (4, "cid", "lead")];
        let rows = (0..)
            .zip(rows)
            .map(|(index, (op, actor, entity))| (place(index), row(op, actor, entity)));
        let mut tail = Tail::of(rows.collect());
        let ann = Actor::parse("ann").unwrap();
        let others = |tail: &Tail| {
            let others = tail.others(&ann, |entity| entity.as_str() != "note");
            others.into_iter().map(|(actor, ops)| (actor.to_string(), ops)).collect::<Vec<_>>()
        };
        let two = [("ben".to_owned(), 1), ("cid".to_owned(), 1)];
        assert_eq!(others(&tail), two);
        tail.insert(place(1), row(2, "ben", "lead"));
        assert_eq!(others(&tail), two, "an op that is seen anew is the same op");
        tail.remove(place(1));
        tail.remove(place(1));
        assert_eq!(others(&tail), two[1..]);
    }

    proptest! {
        #[test]
        fn a_records_places_are_a_set_in_order(steps in prop::collection::vec((any::<bool>(), 0..6u64), 1..40)) {
            let at = |seq| OpPlace { seq: Seq::new(seq), index: 0 };
            let (mut places, mut wanted) = (None::<Places>, BTreeSet::new());
            for (inserts, seq) in steps {
                match (inserts, &mut places) {
                    (true, Some(places)) => places.insert(at(seq)),
                    (true, none) => *none = Some(Places { first: at(seq), more: Vec::new() }),
                    (false, some) => {
                        if some.as_mut().is_some_and(|places| places.remove(at(seq))) {
                            *some = None;
                        }
                    }
                }
                if inserts { wanted.insert(at(seq)); } else { wanted.remove(&at(seq)); }
                let found = places.iter().flat_map(|places| std::iter::once(&places.first).chain(&places.more));
                prop_assert!(found.eq(&wanted));
            }
        }
    }
}
