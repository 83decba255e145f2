//! Reading what an explanation is made of.

use std::collections::BTreeMap;

use fieldbook_core::RecordKey;
use fieldbook_core::log::StoreError;
use fieldbook_core::rules::plan::{Hold, PlanInput, plan};
use fieldbook_projections::{LogView, SnapshotView};

use super::facts::{Facts, OpFacts};
use crate::book::Book;
use crate::error::Error;
use crate::inspect::Inspector;

impl Book {
    pub(super) fn facts(&self, key: &RecordKey) -> Result<Facts, Error> {
        let snapshot = self.snapshot()?;
        let (row, state) = (snapshot.record(key)?.unwrap_or_default(), snapshot.state()?);
        let tail = snapshot.tail(self.schema())?;
        let actor = self.actor();
        let view = SnapshotView::new(&snapshot, snapshot.log()?, &tail);
        let inspector = Inspector::new(view, self.schema());
        let plan = plan(&PlanInput {
            tail: &tail,
            schema: self.schema(),
            parks: &state.parks,
            actor: &actor,
            now: self.shared.clock.now().wall,
            batch_ops: usize::MAX,
            batch_bytes: usize::MAX,
            unmetered: self.shared.connectivity.is_unmetered(),
            heed_backoff: true,
            inspect: &inspector,
        });
        let ops = row.tail.iter().map(|reference| {
            let place = reference.place;
            let hold = plan.holds.get(&place).cloned();
            let before = match &hold {
                Some(Hold::Behind(unit)) => tail.unit(unit).cloned(),
                _ => None,
            };
            Ok(OpFacts {
                op: reference.op,
                place,
                kind: reference.kind,
                row: tail.op(place).cloned(),
                unit: tail.unit_of(place).and_then(|unit| tail.unit(&unit)).cloned(),
                before,
                hold,
                dead: if reference.dead { snapshot.dead_letter(&reference.op)? } else { None },
            })
        });
        let ops = ops.collect::<Result<Vec<_>, StoreError>>()?;
        let log = snapshot.log()?;
        let mut written_at = BTreeMap::new();
        for seq in ops.iter().filter_map(|op| op.unit.as_ref()).map(|unit| unit.planned) {
            written_at.insert(seq, log.existing(seq)?.header.wall);
        }
        let cursors = snapshot.cursors()?;
        Ok(Facts {
            key: key.clone(),
            row,
            ops,
            conflicts: snapshot.conflicts()?.into_iter().filter(|(_, row)| row.key == *key).collect(),
            kept_aside: snapshot.aside()?.iter().any(|(aside, ..)| aside == key),
            entity_synced_at: cursors
                .into_iter()
                .find(|(entity, _)| *entity == key.entity)
                .map(|(_, row)| row.synced_at),
            book_synced_at: state.synced_at,
            written_at,
        })
    }
}
