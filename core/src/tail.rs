//! The tail: all ops that have not ended, in order, with the facts that planning needs.
//!
//! ```text
//!   stored     the ops up to the mark of their table      read when a question needs them
//!   in memory  the ops above the mark, unanswered units, the parks of single ops, the sum of all
//! ```
//!
//! A book has one tail, which follows its commits. A question takes a clone: it shares what is in
//! memory, and has its own readings. So a question finds one moment, and no commit waits for it.
//! Without a stored part all ops are in memory.
//!
//! Invariants:
//! 1. The tail holds an op from the commit that appended it to the commit that ended it, and never
//!    twice.
//! 2. Each op and each record is in at most one unit.
//! 3. The tail is a pure fold: built again from the log it is the same.
//! 4. What is in memory does not grow with the ops that wait, except for unanswered units and parks
//!    of single ops.

mod stored;
mod sum;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::HashMap;

use crate::ids::{OpId, UnitId};
use crate::names::{Actor, EntityType, RecordKey};
use crate::numbers::Seq;
use crate::op::OpPlace;
use crate::rows::{Suspicion, TailRow, UnitRow};
use crate::time::{Hlc, WallTime};

use stored::Reading;
pub use stored::{StoredTail, TailFault};
pub use sum::TailSum;

/// The tail of a book.
#[derive(Debug, Default)]
pub struct Tail {
    known: Arc<Known>,
    read: Reading,
}

impl Clone for Tail {
    /// Returns the same tail for another question.
    fn clone(&self) -> Self {
        Self { known: Arc::clone(&self.known), read: Reading::default() }
    }
}

/// What is in memory.
#[derive(Debug, Clone, Default)]
struct Known {
    stored: Option<Arc<dyn StoredTail>>,
    /// The last entry whose ops are stored.
    mark: Seq,
    sum: TailSum,
    ops: BTreeMap<OpPlace, TailRow>,
    places: HashMap<OpId, OpPlace>,
    /// The places of each record's ops, if all of them are in memory.
    records: HashMap<RecordKey, Places>,
    /// The dead letters, if all ops are in memory.
    dead: BTreeSet<OpPlace>,
    parked: HashMap<OpId, Park>,
    /// The number of ops that are parked alone, by code.
    parked_by_code: BTreeMap<String, u64>,
    units: BTreeMap<UnitId, TailUnit>,
    unit_of: HashMap<OpPlace, (UnitId, OpId)>,
    in_units: HashMap<OpId, OpPlace>,
    referrers: HashMap<RecordKey, BTreeSet<OpPlace>>,
    leavers: HashMap<RecordKey, BTreeSet<OpPlace>>,
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

/// The park of a single op.
#[derive(Debug, Clone)]
struct Park {
    code: String,
    /// The op's place, if it was known when the op was parked.
    place: Option<OpPlace>,
}

impl Known {
    /// Removes the facts that are kept beside the row of an op.
    fn forget_row(&mut self, place: OpPlace) {
        let Some(row) = self.ops.get(&place) else { return };
        self.sum.remove(row);
        row.targets().for_each(|target| forget(&mut self.referrers, target, place));
        row.led_away.iter().for_each(|target| forget(&mut self.leavers, target, place));
    }

    fn note(&mut self, place: OpPlace, row: &TailRow) {
        self.sum.add(row);
        self.places.insert(row.op, place);
        if self.stored.is_none() {
            match self.records.entry(row.key.clone()) {
                Entry::Occupied(places) => places.into_mut().insert(place),
                Entry::Vacant(vacant) => {
                    vacant.insert(Places { first: place, more: Vec::new() });
                }
            }
        }
        for target in row.targets() {
            self.referrers.entry(target.clone()).or_default().insert(place);
        }
        for target in &row.led_away {
            self.leavers.entry(target.clone()).or_default().insert(place);
        }
    }

    fn insert(&mut self, place: OpPlace, row: TailRow) {
        self.forget_row(place);
        self.note(place, &row);
        self.ops.insert(place, row);
    }

    fn remove(&mut self, place: OpPlace) {
        self.forget_row(place);
        let Some(row) = self.ops.remove(&place) else { return };
        self.places.remove(&row.op);
        self.set_parked(row.op, None, None);
        self.dead.remove(&place);
        if let Some((_, op)) = self.unit_of.remove(&place) {
            self.in_units.remove(&op);
        }
        if self.records.get_mut(&row.key).is_some_and(|places| places.remove(place)) {
            self.records.remove(&row.key);
        }
    }

    fn set_parked(&mut self, op: OpId, code: Option<String>, place: Option<OpPlace>) {
        if let Some(Park { code, .. }) = self.parked.remove(&op)
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
            self.parked.insert(op, Park { code, place });
        }
    }

    fn put_unit(&mut self, id: UnitId, row: &UnitRow) {
        let mut ops = Vec::new();
        for op in row.changes.iter().flat_map(|change| &change.ops) {
            self.unit_of.insert(op.place, (id, op.id));
            self.in_units.insert(op.id, op.place);
            ops.push(op.place);
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

    fn remove_unit(&mut self, id: UnitId) {
        let Some(unit) = self.units.remove(&id) else { return };
        for place in unit.ops {
            if let Some((unit, op)) = self.unit_of.get(&place).copied()
                && unit == id
            {
                self.unit_of.remove(&place);
                self.in_units.remove(&op);
            }
        }
    }
}

impl Tail {
    /// Makes a tail of many ops, oldest first, all of them in memory.
    pub fn of(rows: Vec<(OpPlace, TailRow)>) -> Self {
        let mut tail = Self::default();
        rows.into_iter().for_each(|(place, row)| tail.insert(place, row));
        tail
    }

    /// Makes a tail whose ops are stored up to the entry `mark`, with the sum of these ops. The ops
    /// above it have to be inserted.
    pub fn stored(stored: Arc<dyn StoredTail>, mark: Seq, sum: TailSum) -> Self {
        let known = Known { stored: Some(stored), mark, sum, ..Known::default() };
        Self { known: Arc::new(known), read: Reading::default() }
    }

    /// Goes on with the storage of a later moment, the last entry of which is `followed`. If its
    /// mark is higher, all ops up to there are stored, and none of them stays in memory.
    pub fn follow(&mut self, stored: Arc<dyn StoredTail>, mark: Seq, sum: &TailSum, followed: Seq) {
        self.read = Reading::default();
        let known = self.known();
        (known.stored, known.followed) = (Some(stored), followed);
        if mark > known.mark {
            known.mark = mark;
            known.ops.clear();
            known.places.clear();
            known.referrers.clear();
            known.leavers.clear();
            known.sum = sum.clone();
        }
    }

    /// Replaces the storage, and keeps everything that is in memory.
    pub fn set_stored(&mut self, stored: Arc<dyn StoredTail>) {
        self.read = Reading::default();
        self.known().stored = Some(stored);
    }

    /// Sets the last entry that a tail in memory has followed.
    pub fn set_followed(&mut self, followed: Seq) {
        self.known().followed = followed;
    }

    fn known(&mut self) -> &mut Known {
        Arc::make_mut(&mut self.known)
    }

    /// Adds an op that was appended, or replaces its row.
    pub fn insert(&mut self, place: OpPlace, row: TailRow) {
        self.known().insert(place, row);
    }

    /// Removes an op that ended.
    pub fn remove(&mut self, place: OpPlace) {
        self.known().remove(place);
    }

    /// Marks an op as a dead letter, or removes the mark. The stored part has its own marks.
    pub fn set_dead(&mut self, place: OpPlace, dead: bool) {
        let known = self.known();
        if known.stored.is_some() {
            return;
        }
        if dead {
            known.dead.insert(place);
        } else {
            known.dead.remove(&place);
        }
    }

    /// Parks one op under a code, or resumes it.
    pub fn set_parked(&mut self, op: OpId, code: Option<String>) {
        let place = code.as_ref().and_then(|_| self.place_of(&op));
        self.known().set_parked(op, code, place);
    }

    /// Parks an op that was parked when the storage was opened. Its place is found when a question
    /// needs it.
    pub fn keep_parked(&mut self, op: OpId, code: String) {
        self.known().set_parked(op, Some(code), None);
    }

    /// Adds a unit that was planned, or updates one that was tried.
    pub fn put_unit(&mut self, id: UnitId, row: &UnitRow) {
        self.known().put_unit(id, row);
    }

    /// Removes a unit that was answered or abandoned, or whose ops another unit absorbed.
    pub fn remove_unit(&mut self, id: UnitId) {
        self.known().remove_unit(id);
    }

    fn on_disk(&self) -> Option<&dyn StoredTail> {
        self.known.stored.as_deref()
    }

    /// Returns why a reading of the stored part failed, once. What the tail said is of no use then.
    pub fn fault(&self) -> Option<TailFault> {
        self.read.fault()
    }

    /// Takes over the fault of another question about this tail, and returns whether there was
    /// none.
    pub fn answers_for(&self, other: &Self) -> bool {
        self.read.take_over(other.fault())
    }

    /// Returns all ops, oldest first.
    pub fn ops(&self) -> impl Iterator<Item = (OpPlace, &TailRow)> {
        self.ops_from(OpPlace { seq: Seq::ZERO, index: 0 })
    }

    /// Returns the ops from a place on, oldest first.
    pub fn ops_from(&self, place: OpPlace) -> impl Iterator<Item = (OpPlace, &TailRow)> {
        let mut next = self.on_disk().filter(|_| place.seq <= self.known.mark).map(|_| place);
        let mut page = Vec::new().into_iter();
        let stored = std::iter::from_fn(move || {
            loop {
                if let Some(place) = page.next() {
                    return Some(place);
                }
                let read = self.read.ops_from(self.on_disk()?, next?, READ_AT_ONCE);
                next = read.last().filter(|_| read.len() == READ_AT_ONCE).map(|last| last.next());
                page = read.into_iter();
                if page.len() == 0 {
                    return None;
                }
            }
        });
        let stored = stored.filter_map(|place| Some((place, self.op(place)?)));
        stored.chain(self.known.ops.range(place..).map(|(place, row)| (*place, row)))
    }

    /// Returns the ops that are not stored yet, oldest first.
    pub fn in_memory(&self) -> impl ExactSizeIterator<Item = (OpPlace, &TailRow)> {
        self.known.ops.iter().map(|(place, row)| (*place, row))
    }

    /// Returns the ops of one entry, in order.
    pub fn ops_of_entry(&self, seq: Seq) -> impl Iterator<Item = (OpPlace, &TailRow)> {
        let stored = self.on_disk().filter(|_| seq <= self.known.mark);
        let stored = stored.map(|stored| self.read.ops_of_entry(stored, seq));
        let stored =
            stored.into_iter().flat_map(each).filter_map(|place| Some((place, self.op(place)?)));
        let range = OpPlace { seq, index: 0 }..=OpPlace { seq, index: u32::MAX };
        stored.chain(self.known.ops.range(range).map(|(place, row)| (*place, row)))
    }

    /// Returns an op.
    pub fn op(&self, place: OpPlace) -> Option<&TailRow> {
        let known = self.known.ops.get(&place);
        known.or_else(|| {
            let stored = self.on_disk().filter(|_| place.seq <= self.known.mark)?;
            self.read.op(stored, place)
        })
    }

    /// Returns the place of an op. If it has none in the tail, this may read all of it.
    pub fn place_of(&self, op: &OpId) -> Option<OpPlace> {
        let known = self.known.places.get(op).or_else(|| self.known.in_units.get(op)).copied();
        let known = known.or_else(|| self.known.parked.get(op)?.place);
        known.or_else(|| {
            let stored = self.on_disk().filter(|_| !self.is_empty())?;
            self.read.place_of(stored, op)
        })
    }

    /// Returns the ops of a record, oldest first.
    pub fn ops_of(&self, key: &RecordKey) -> impl DoubleEndedIterator<Item = OpPlace> + '_ {
        let stored = self.on_disk().map(|stored| self.read.ops_of(stored, key));
        let stored = stored.into_iter().flat_map(|ops| {
            (0..ops.places.len()).filter_map(move |at| ops.places.get(at).copied())
        });
        let places = self.known.records.get(key).into_iter();
        stored.chain(
            places.flat_map(|places| {
                std::iter::once(places.first).chain(places.more.iter().copied())
            }),
        )
    }

    /// Returns the ops that refer to a record, oldest first.
    pub fn referrers(&self, key: &RecordKey) -> impl Iterator<Item = (OpPlace, &TailRow)> {
        let known = self.known.referrers.get(key).into_iter().flatten().copied();
        let places = self.stored_referring(key, false).chain(known);
        places.filter_map(|place| Some((place, self.op(place)?)))
    }

    /// Returns the ops before a place that remove a reference to a record, then those that refer to
    /// it, each oldest first.
    pub fn referring_before(
        &self,
        key: &RecordKey,
        place: OpPlace,
    ) -> impl Iterator<Item = OpPlace> {
        let known = [&self.known.leavers, &self.known.referrers].map(|index| index.get(key));
        [true, false].into_iter().zip(known).flat_map(move |(removes, known)| {
            let stored = self.stored_referring(key, removes).filter(move |known| *known < place);
            let known = known.into_iter().flat_map(move |places| places.range(..place));
            stored.chain(known.copied())
        })
    }

    /// Returns the stored ops that refer to a record, or those that remove a reference to it.
    fn stored_referring(
        &self,
        key: &RecordKey,
        removes: bool,
    ) -> impl Iterator<Item = OpPlace> + use<'_> {
        let stored = self.on_disk().filter(|stored| self.read.has_references(*stored));
        let stored = stored.map(|stored| self.read.referring(stored, key));
        let stored = stored
            .into_iter()
            .flat_map(|ops| (0..ops.len()).filter_map(move |at| ops.get(at).copied()));
        stored.filter(move |(_, leads_away)| *leads_away == removes).map(|(place, _)| place)
    }

    /// Returns whether any op refers to a record, or removes a reference.
    pub fn has_references(&self) -> bool {
        !self.known.referrers.is_empty()
            || !self.known.leavers.is_empty()
            || self.on_disk().is_some_and(|stored| self.read.has_references(stored))
    }

    /// Returns whether a record has a tail.
    pub fn has(&self, key: &RecordKey) -> bool {
        self.ops_of(key).next().is_some()
    }

    /// Returns whether an op is a dead letter.
    pub fn is_dead(&self, place: OpPlace) -> bool {
        let Some(stored) = self.on_disk() else { return self.known.dead.contains(&place) };
        let Some(row) = self.op(place) else { return false };
        self.read.ops_of(stored, &row.key).is_dead(place)
    }

    /// Returns the code under which an op is parked alone, if it is.
    pub fn park_of(&self, op: &OpId) -> Option<&str> {
        self.known.parked.get(op).map(|park| park.code.as_str())
    }

    /// Returns the ops that are parked alone, in no order.
    pub fn parked(&self) -> impl ExactSizeIterator<Item = (&OpId, &str)> {
        self.known.parked.iter().map(|(op, park)| (op, park.code.as_str()))
    }

    /// Returns the number of ops that are parked alone, by code.
    pub fn parked_by_code(&self) -> &BTreeMap<String, u64> {
        &self.known.parked_by_code
    }

    /// Returns the unit that an op is in.
    pub fn unit_of(&self, place: OpPlace) -> Option<UnitId> {
        self.known.unit_of.get(&place).map(|(unit, _)| *unit)
    }

    /// Returns the unit that an op is in, by the op's id.
    pub fn unit_of_op(&self, op: &OpId) -> Option<UnitId> {
        self.unit_of(*self.known.in_units.get(op)?)
    }

    /// Returns a unit.
    pub fn unit(&self, id: &UnitId) -> Option<&TailUnit> {
        self.known.units.get(id)
    }

    /// Returns all units, ordered by id. The ids of one millisecond have no meaningful order:
    /// [`Self::units_in_order`] has the order of the plans.
    pub fn units(&self) -> impl Iterator<Item = (&UnitId, &TailUnit)> {
        self.known.units.iter()
    }

    /// Returns all units in the order in which they were planned.
    pub fn units_in_order(&self) -> Vec<(UnitId, &TailUnit)> {
        in_order(self.known.units.iter().map(|(id, unit)| (*id, unit)).collect())
    }

    /// Returns the units that some ops are in, in the order in which they were planned.
    pub fn units_of<'p>(
        &self,
        places: impl IntoIterator<Item = &'p OpPlace>,
    ) -> Vec<(UnitId, &TailUnit)> {
        let ids: BTreeSet<_> =
            places.into_iter().filter_map(|place| self.unit_of(*place)).collect();
        in_order(ids.into_iter().filter_map(|id| Some((id, self.known.units.get(&id)?))).collect())
    }

    /// Returns the last entry that the tail follows.
    pub fn followed(&self) -> Seq {
        self.known.followed
    }

    /// Returns the number of ops of each kind, and a bound of their stamps.
    pub fn sum(&self) -> &TailSum {
        &self.known.sum
    }

    /// Returns a stamp that is not before the stamp of any op of the tail.
    pub fn latest_stamp(&self) -> Hlc {
        self.known.sum.latest_stamp()
    }

    /// Returns the other actors with ops in the tail. For each it returns the number of ops whose
    /// entity types pass `leaves`, dead letters included.
    pub fn others(&self, actor: &Actor, leaves: impl Fn(&EntityType) -> bool) -> Vec<(Actor, u64)> {
        self.known.sum.others(actor, leaves)
    }

    /// Returns the number of ops whose entity types pass `leaves`, dead letters included.
    pub fn pending(&self, leaves: impl Fn(&EntityType) -> bool) -> u64 {
        self.known.sum.pending(leaves)
    }

    /// Returns the number of ops, dead letters included.
    pub fn len(&self) -> u64 {
        self.known.sum.ops()
    }

    /// Returns whether all ops have ended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many dead letters there are.
    pub fn dead_letters(&self) -> u64 {
        match self.on_disk() {
            Some(stored) => self.read.dead_letters(stored),
            None => self.known.dead.len() as u64,
        }
    }
}

/// The number of stored ops that are read together.
const READ_AT_ONCE: usize = 256;

/// Returns the places of a list.
fn each(places: Arc<Vec<OpPlace>>) -> impl Iterator<Item = OpPlace> {
    (0..places.len()).filter_map(move |at| places.get(at).copied())
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
