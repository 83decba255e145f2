//! Explaining a record: the front door's side of `rules::explain`, which reads what the rule is told.
//!
//! Invariants:
//! 1. Everything is read from one snapshot, so that what is said of the tail and of the record fits together.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook_core::log::StoreError;
use fieldbook_core::rules::explain::{Explanation, Facts, explain};
use fieldbook_core::rules::plan::{PlanInput, plan};
use fieldbook_core::rules::status::Known;
use fieldbook_core::tail::Tail;
use fieldbook_core::{RecordKey, Seq, WallTime};
use fieldbook_projections::{LogView, Snapshot, SnapshotView};

use crate::book::Book;
use crate::error::Error;
use crate::inspect::Inspector;
use crate::status::{dead_letters_of, open_conflicts};

impl Book {
    /// Explains where a record stands: what the user sees, what the server confirmed, why each change that is not synced is
    /// not, which conflicts there were and who won.
    ///
    /// Costs a read of the whole tail, so it is meant for a detail view or a support call, not for each row of a list.
    ///
    /// # Errors
    /// [`Error::Store`] if something does not read.
    pub fn explain(&self, key: &RecordKey) -> Result<Explanation, Error> {
        let snapshot = self.snapshot()?;
        let (row, state) = (snapshot.record(key)?.unwrap_or_default(), snapshot.state()?);
        let tail = snapshot.tail(self.schema())?;
        let actor = self.actor();
        let view = SnapshotView::new(&snapshot, snapshot.log()?, &tail);
        let (now, suspects) = (self.shared.clock.now().wall, BTreeSet::from([key.clone()]));
        let inspector = Inspector::new(view, self.schema(), &suspects);
        let input = PlanInput::unbounded(&tail, self.schema(), &state.parks, &actor, now, &inspector);
        let plan = plan(&PlanInput { unmetered: self.shared.connectivity.is_unmetered(), ..input });
        let dead = row.tail.iter().filter(|reference| reference.dead).map(|reference| reference.op);
        let dead = dead_letters_of(&snapshot, dead)?;
        let mut conflicts = snapshot.conflicts()?;
        let open = open_conflicts(&conflicts);
        conflicts.retain(|(_, conflict)| conflict.key == *key);
        let cursors = snapshot.cursors()?;
        Ok(explain(&Facts {
            key,
            row: &row,
            known: Known {
                tail: &tail,
                holds: &plan.holds,
                dead: &dead,
                open: &open,
                sending: &self.shared.sending(),
                written_at: &written_at(&snapshot, &tail, key)?,
            },
            conflicts: &conflicts,
            kept_aside: snapshot.aside()?.iter().any(|(aside, ..)| aside == key),
            entity_synced_at: cursors
                .into_iter()
                .find(|(entity, _)| *entity == key.entity)
                .map(|(_, row)| row.synced_at),
            book_synced_at: self.shared.answered_at(),
        }))
    }
}

/// Returns when the entries were written that made the units of a record.
fn written_at(
    snapshot: &Snapshot,
    tail: &Tail,
    key: &RecordKey,
) -> Result<BTreeMap<Seq, WallTime>, StoreError> {
    let log = snapshot.log()?;
    let units = tail.ops_of(key).filter_map(|place| tail.unit(&tail.unit_of(place)?));
    units.map(|unit| Ok((unit.planned, log.existing(unit.planned)?.header.wall))).collect()
}
