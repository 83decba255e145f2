//! Finds ops that are sent together: a run of one record, a whole transaction, or a delete that
//! absorbs unanswered ops.

use std::collections::BTreeSet;

use foldhash::{HashMap, HashMapExt, HashSet};

use super::{Group, Hold, Planning, size};
use crate::entry::ParkScope;
use crate::ids::UnitId;
use crate::names::RecordKey;
use crate::op::{OpKind, OpPlace};
use crate::rows::TailRow;
use crate::rules::order::{Candidate, comes_to};
use crate::rules::size::barrier;
use crate::tail::TailUnit;

impl Planning<'_> {
    /// Lets a delete absorb the ops of an unanswered unit of its record that the server has put
    /// off: whatever happened to the unit, the record has to go. The same applies after a unit that
    /// does not get through, because the delete has none of its content. Returns whether the delete
    /// absorbs them, now or once the batch has room.
    pub(super) fn absorbs(&mut self, id: UnitId, unit: &TailUnit) -> bool {
        let [key] = unit.records.as_slice() else { return false };
        if (unit.tries == 0 && unit.isolated().is_none())
            || self.hold_of_unit(&TailUnit { retry_at: None, ..unit.clone() }).is_some()
        {
            return false;
        }
        let tail = self.input.tail;
        let waits = |place: &OpPlace| !tail.is_dead(*place) && !unit.ops.contains(place);
        let behind: Vec<_> = tail.ops_of(key).filter(waits).collect();
        // Ops that are sent again although they are older have their turn after the unit, not after
        // the delete.
        if behind.iter().any(|place| unit.ops.iter().any(|sent| sent > place)) {
            return false;
        }
        let Some((place, last)) =
            behind.last().and_then(|place| Some((*place, self.input.tail.op(*place)?)))
        else {
            return false;
        };
        if last.kind != OpKind::Delete || behind.iter().any(|place| self.blocker(*place).is_some())
        {
            return false;
        }
        if self.heeds_references && self.awaited(key, place, |known| known == key).is_some() {
            return false;
        }
        let ops: Vec<_> = unit.ops.iter().chain(&behind).copied().collect();
        if ops
            .iter()
            .filter_map(|place| self.input.tail.op(*place))
            .any(|row| row.transaction_ops > 1)
        {
            return false;
        }
        self.visited.insert(key.clone());
        let bytes = size(last);
        if self.fits(1, bytes) {
            if self.heeds_references {
                self.absorbed.extend(ops.iter().copied());
            }
            let records = vec![(key.clone(), ops)];
            self.plan.groups.push(Group { records, actor: unit.actor.clone(), absorbs: Some(id) });
        } else {
            self.plan.more = true;
        }
        true
    }

    /// Finds the group that begins with the first waiting op of a record, or holds ops that cannot
    /// be sent.
    pub(super) fn candidate(&mut self, first: OpPlace, row: &TailRow) -> Option<Candidate> {
        let places = if row.transaction_ops > 1 {
            self.transaction(first)?
        } else {
            self.ops_of_one_change(first, row)?
        };
        let mut records: Vec<(RecordKey, Vec<OpPlace>)> = Vec::new();
        let (mut numbers, mut bytes) = (HashMap::new(), 0);
        for place in places {
            let Some(row) = self.input.tail.op(place) else { continue };
            bytes += size(row);
            let number = *numbers.entry(&row.key).or_insert(records.len());
            match records.get_mut(number) {
                Some((_, places)) => places.push(place),
                None => records.push((row.key.clone(), vec![place])),
            }
        }
        let of_record = |(key, places): &(RecordKey, Vec<OpPlace>)| {
            let kind = comes_to(places.iter().filter_map(|place| self.input.tail.op(*place)));
            self.input.schema.rules(&key.entity).map_or(0, |rules| rules.priority_of(kind))
        };
        let priority = records.iter().map(of_record).max().unwrap_or_default();
        let group = Group { records, actor: row.actor.clone(), absorbs: None };
        if let Some(hold) = self.expected_refusal(&group) {
            for (_, places) in &group.records {
                self.hold_all(places, &hold);
            }
            return None;
        }
        Some(Candidate { priority, first, group, bytes })
    }

    /// Returns the ops of one record that can be one change, from the first waiting op on.
    fn ops_of_one_change(&mut self, first: OpPlace, row: &TailRow) -> Option<Vec<OpPlace>> {
        self.visited.insert(row.key.clone());
        let tail = self.input.tail;
        let waiting: Vec<_> = tail.ops_of(&row.key).filter(|place| !tail.is_dead(*place)).collect();
        if self.has_dead_create(&row.key) {
            self.hold_all(&waiting, &Hold::DeadCreate);
            return None;
        }
        if let Some(hold) = self.blocker(first) {
            self.hold_all(&waiting, &hold);
            return None;
        }
        let mut together = vec![first];
        for place in waiting.iter().copied().filter(|place| *place > first) {
            let joins = tail.op(place).is_some_and(|next| {
                next.transaction_ops == 1
                    && next.actor == row.actor
                    && next.schema_version == row.schema_version
            });
            let bar = if joins { self.blocker(place) } else { None };
            if let Some(hold @ Hold::Parked { scope: ParkScope::Op(_), .. }) = bar {
                // These ops are one change, and a person still has to choose in it.
                self.hold_all(&waiting, &hold);
                return None;
            }
            let deletes = tail.op(place).is_some_and(|next| next.kind == OpKind::Delete);
            let is_overtaking = deletes
                && row.kind != OpKind::Create
                && self.is_referred_to_between(&row.key, first, place);
            if !joins || bar.is_some() || is_overtaking {
                break;
            }
            together.push(place);
        }
        together.truncate(barrier(together.iter().filter_map(|place| tail.op(*place))));
        let joined: HashSet<_> = together.iter().copied().collect();
        for place in waiting.into_iter().filter(|place| !joined.contains(place)) {
            let hold = self.blocker(place).unwrap_or(Hold::After(first));
            self.plan.holds.insert(place, hold);
        }
        Some(together)
    }

    /// Returns all ops of a transaction if each of them can be sent, otherwise `None`.
    fn transaction(&mut self, first: OpPlace) -> Option<Vec<OpPlace>> {
        let tail = self.input.tail;
        let ops = tail.ops_of_entry(first.seq).map(|(place, _)| place);
        let places: Vec<_> = ops.filter(|place| !tail.is_dead(*place)).collect();
        let keys: BTreeSet<_> =
            places.iter().filter_map(|place| tail.op(*place)).map(|row| row.key.clone()).collect();
        let hold = keys.iter().find_map(|key| self.blocked_before(key, first)).or_else(|| {
            places.iter().find_map(|place| match self.blocker(*place) {
                Some(Hold::WaitsFor(key)) if keys.contains(&key) => None,
                hold => hold,
            })
        });
        for key in &keys {
            let behind =
                tail.ops_of(key).filter(|place| place.seq > first.seq && !tail.is_dead(*place));
            // Unanswered ops wait for the answer to their own unit, and have a hold of their own.
            let behind = behind.filter(|place| tail.unit_of(*place).is_none());
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
}
