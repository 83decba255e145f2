//! Plans: the allowed content of a `Planned` entry.

use std::collections::BTreeSet;

use fieldbook::RecordKey;
use fieldbook::audit::entry::{Planned, PlannedUnit};
use fieldbook::record::{OpId, OpKind};

use super::Model;
use crate::broken::{Broken, ensure};
use crate::ledger::Ledger;

impl Model {
    pub(super) fn planned(&mut self, planned: &Planned, ledger: &Ledger) -> Result<(), Broken> {
        planned
            .cancelled
            .iter()
            .try_for_each(|cancelled| self.cancelled(cancelled, true, ledger))?;
        for unit in &planned.units {
            for former in &unit.earlier_units {
                let carried = self.units.remove(former);
                self.abandoned(carried.into_iter().flatten());
                ensure(self.ever_planned.contains(former), "S5", || {
                    format!("{} names a unit that never was", unit.id)
                })?;
            }
            self.earlier_units.insert(unit.id, unit.earlier_units.clone());
            self.check_plan(unit)?;
            let changes = unit.changes.iter().map(|change| {
                (change.key.clone(), change.ops.iter().map(|op| op.id).collect::<Vec<_>>())
            });
            self.units.insert(unit.id, changes.collect());
            ensure(self.ever_planned.insert(unit.id), "S5", || {
                format!("unit {} was planned twice", unit.id)
            })?;
        }
        Ok(())
    }

    /// Records that a unit with these ops was abandoned.
    pub(super) fn abandoned(&mut self, carried: impl Iterator<Item = (RecordKey, Vec<OpId>)>) {
        for (key, ops) in carried {
            let tail =
                self.records.get_mut(&key).map(|held| held.tail.iter_mut()).into_iter().flatten();
            tail.filter(|waiting| ops.contains(&waiting.op))
                .for_each(|waiting| waiting.abandoned = true);
        }
    }

    fn check_plan(&self, unit: &PlannedUnit) -> Result<(), Broken> {
        let named: BTreeSet<OpId> =
            unit.changes.iter().flat_map(|change| change.ops.iter().map(|op| op.id)).collect();
        for change in &unit.changes {
            let unanswered = self.units.values().flatten().any(|(key, _)| *key == change.key);
            ensure(!unanswered, "S9", || format!("{} is in two units at once", change.key))?;
            let tail =
                self.records.get(&change.key).map(|held| held.tail.as_slice()).unwrap_or_default();
            let ours: Vec<_> = tail.iter().filter(|waiting| named.contains(&waiting.op)).collect();
            ensure(
                ours.len() == change.ops.len() && ours.iter().all(|waiting| !waiting.dead),
                "S5",
                || format!("unit {} has ops of {} that do not wait", unit.id, change.key),
            )?;
            let said = ours.iter().filter(|waiting| {
                self.ops.get(&waiting.op).is_none_or(|op| op.kind != OpKind::Delete)
            });
            let is_delete = change.kind == OpKind::Delete;
            let turned = said.into_iter().all(|waiting| waiting.form == change.schema_version);
            ensure(is_delete || turned, "S18", || {
                format!(
                    "unit {} says that {} is of another schema version than its ops",
                    unit.id, change.key
                )
            })?;
            let passed = tail.iter().take_while(|waiting| !named.contains(&waiting.op));
            let overtaken = passed.filter(|waiting| !waiting.dead).count();
            ensure(overtaken == 0, "S9", || {
                format!("unit {} passes {overtaken} earlier ops of {}", unit.id, change.key)
            })?;
        }
        for op in &named {
            let Some(place) = self.ops.get(op).map(|op| op.place) else { continue };
            let mates = self.ops.iter().filter(|(_, mate)| mate.place.seq == place.seq);
            let left = mates
                .filter(|(id, mate)| mate.end.is_none() && !mate.was_dead && !named.contains(id));
            let left = left.count();
            ensure(left == 0, "S10", || {
                format!(
                    "unit {} leaves {left} ops of its transaction {} behind",
                    unit.id, place.seq
                )
            })?;
        }
        Ok(())
    }
}
