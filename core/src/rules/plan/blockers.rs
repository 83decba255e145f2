//! The reasons why something cannot be sent now: an unanswered unit, a single op, a transaction, a
//! whole group.

use std::time::Duration;

use foldhash::HashSet;

use super::{Group, Hold, Planning};
use crate::entry::ParkScope;
use crate::limits;
use crate::names::RecordKey;
use crate::op::{OpKind, OpPlace};
use crate::rows::TailRow;
use crate::rules::inspect::referred;
use crate::rules::size::is_bulky;
use crate::schema::{EntityRules, NetworkClass};
use crate::tail::TailUnit;
use crate::time::WallTime;

impl Planning<'_> {
    pub(super) fn hold_of_unit(&self, unit: &TailUnit) -> Option<Hold> {
        let stopped = self.parked(|scope| match scope {
            ParkScope::Actor(actor) => *actor == unit.actor,
            ParkScope::Entity(entity) => unit.records.iter().any(|key| key.entity == *entity),
            ParkScope::Op(_) => false,
            ParkScope::Server(..) | ParkScope::Tenant(_) | ParkScope::Protocol => true,
        });
        let ops = unit.ops.iter().filter_map(|place| self.input.tail.op(*place));
        if let Some(hold) =
            stopped.or_else(|| ops.into_iter().find_map(|row| self.parked_alone(row)))
        {
            return Some(hold);
        }
        if unit.actor != *self.input.actor {
            return Some(Hold::OtherActor(unit.actor.clone()));
        }
        if let Some(until) = unit.retry_at.filter(|at| self.is_ahead(*at, limits::BACKOFF_MOST)) {
            return Some(Hold::BackingOff { until, code: unit.code.clone() });
        }
        self.is_sent_too_early(unit).map(Hold::WaitsFor)
    }

    /// Returns why the server would refuse a group, as far as a check here can find it.
    pub(super) fn expected_refusal(&self, group: &Group) -> Option<Hold> {
        let Self { input, .. } = self;
        let is_inspected = |key: &RecordKey| {
            input.schema.rules(&key.entity).is_some_and(EntityRules::is_inspected)
        };
        if !group.records.iter().any(|(key, _)| is_inspected(key)) {
            return None;
        }
        for (_, places) in &group.records {
            let ops = places.iter().filter_map(|place| input.tail.op(*place));
            if let Some(gone) =
                referred(ops).into_iter().find(|target| input.inspect.is_gone(target))
            {
                return Some(Hold::TargetDeleted(gone.clone()));
            }
        }
        input.inspect.refusal(group).map(|reason| Hold::Refused { reason })
    }

    /// Returns the size of a record's fields in bytes, if a group cannot be sent because this size
    /// is over the limit. The check runs only for large groups, and for records that were too large
    /// before.
    pub(super) fn excess(&self, group: &Group) -> Option<usize> {
        let Self { input, .. } = self;
        let is_suspect = |(key, places): &(RecordKey, Vec<OpPlace>)| {
            is_bulky(places.iter().filter_map(|place| input.tail.op(*place)))
                || input.inspect.was_too_large(key)
        };
        if group.absorbs.is_some() || !group.records.iter().any(is_suspect) {
            return None;
        }
        input.inspect.excess(group)
    }

    /// Returns why a transaction waits for an earlier op of a record, or for a later unanswered op:
    /// other ops may have overtaken ops of a unit that was abandoned.
    pub(super) fn blocked_before(&self, key: &RecordKey, first: OpPlace) -> Option<Hold> {
        let tail = self.input.tail;
        if let Some(unit) = tail.ops_of(key).find_map(|place| tail.unit_of(place)) {
            return Some(Hold::Behind(unit));
        }
        let earlier =
            tail.ops_of(key).find(|place| place.seq < first.seq && self.blocks(*place))?;
        Some(if tail.is_dead(earlier) { Hold::DeadCreate } else { Hold::WaitsFor(key.clone()) })
    }

    /// Returns whether the server refused to create a record, so that later ops of it wait for a
    /// person.
    pub(super) fn has_dead_create(&self, key: &RecordKey) -> bool {
        let tail = self.input.tail;
        let dead =
            tail.ops_of(key).find(|place| tail.is_dead(*place)).and_then(|place| tail.op(place));
        dead.is_some_and(|dead| dead.kind == OpKind::Create)
    }

    fn blocks(&self, place: OpPlace) -> bool {
        let created = || self.input.tail.op(place).is_some_and(|row| row.kind == OpKind::Create);
        !self.input.tail.is_dead(place) || created()
    }

    /// Returns why an op cannot be sent now, looking at the op alone.
    pub(super) fn blocker(&self, place: OpPlace) -> Option<Hold> {
        let row = self.input.tail.op(place)?;
        let rules = self.input.schema.rules(&row.key.entity);
        // An op of a type that stays on the device is never sent, so it waits for nothing else.
        if !self.input.schema.leaves(&row.key.entity) {
            return Some(Hold::LocalOnly);
        }
        let parked = self.parked(|scope| match scope {
            ParkScope::Actor(actor) => *actor == row.actor,
            ParkScope::Entity(entity) => row.key.entity == *entity,
            ParkScope::Op(_) => false,
            ParkScope::Server(..) | ParkScope::Tenant(_) | ParkScope::Protocol => true,
        });
        if let Some(hold) = parked.or_else(|| self.parked_alone(row)) {
            return Some(hold);
        }
        if row.actor != *self.input.actor {
            return Some(Hold::OtherActor(row.actor.clone()));
        }
        let rules = rules?;
        if let Some(declared) = crate::rules::upcast::outgrown(self.input.schema, row)
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
            .find(|target| self.is_not_created_yet(target, &row.key, place))
            .map(|target| Hold::WaitsFor(target.clone()))
    }

    /// Returns whether the record of a reference is not at the server yet, so that the op at
    /// `place` waits for its creation. If records wait for each other, the op that was made first
    /// does not wait.
    fn is_not_created_yet(&self, target: &RecordKey, from: &RecordKey, place: OpPlace) -> bool {
        let tail = self.input.tail;
        let is_create =
            |place: &OpPlace| tail.op(*place).is_some_and(|row| row.kind == OpKind::Create);
        let created = if target == from { None } else { tail.ops_of(target).find(is_create) };
        // A record that is deleted and created again after the op exists until then.
        let is_there =
            |created: OpPlace| tail.ops_of(target).any(|known| known > place && known < created);
        created.is_some_and(|created| {
            created < place || (!is_there(created) && !self.leads_back(target, from))
        })
    }

    /// Returns whether any op of one record may wait for another record: by a reference, in a
    /// transaction, by a deletion of a record that others refer to, or by a chain of these.
    fn leads_back(&self, target: &RecordKey, from: &RecordKey) -> bool {
        let tail = self.input.tail;
        let (mut known, mut next) = (HashSet::from_iter([target]), vec![target]);
        while let Some(key) = next.pop() {
            for (place, row) in tail.ops_of(key).filter_map(|place| Some((place, tail.op(place)?)))
            {
                let together = self.together_with(place, row);
                let deletes = row.kind == OpKind::Delete;
                let earlier = deletes.then(|| self.referring(key, place)).into_iter().flatten();
                let earlier = earlier.filter_map(|place| Some(&tail.op(place)?.key));
                for key in row.targets().chain(together).chain(earlier) {
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

    /// Returns whether the deadline is ahead. A deadline beyond the longest wait shows that the
    /// clock was set back since: it counts as reached.
    pub(super) fn is_ahead(&self, until: WallTime, longest: Duration) -> bool {
        until > self.input.now && until <= self.input.now.plus(longest)
    }

    fn parked_alone(&self, row: &TailRow) -> Option<Hold> {
        let code = self.input.tail.park_of(&row.op)?;
        Some(Hold::Parked { scope: ParkScope::Op(row.op), code: code.to_owned() })
    }

    fn parked(&self, concerns: impl Fn(&ParkScope) -> bool) -> Option<Hold> {
        let (scope, code) = self.input.parks.iter().find(|(scope, _)| concerns(scope))?;
        Some(Hold::Parked { scope: scope.clone(), code: code.clone() })
    }
}
