//! The explanation of a record. `rules::explain` decides; this module reads its input from the
//! book.
//!
//! Invariants:
//! 1. All of it is read at one instant, so the tail and the record match.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook_core::log::StoreError;
use fieldbook_core::rules::explain::{Explanation, Facts, explain};
use fieldbook_core::rules::plan::{PlanInput, plan_record};
use fieldbook_core::rules::status::Known;
use fieldbook_core::tail::Tail;
use fieldbook_core::{RecordKey, Seq, WallTime};
use fieldbook_projections::{LogView, Snapshot, SnapshotView};

use crate::book::Book;
use crate::error::Error;
use crate::inspect::Inspector;
use crate::status::{dead_letters_of, open_conflicts};

impl Book {
    /// Explains the state of a record: what the user reads, what the server confirmed, why each
    /// change is not synced, which conflicts there were and who won.
    ///
    /// The cost grows with the record's ops and conflicts, and with the records that it waits for.
    ///
    /// # Errors
    /// [`Error::Store`] if the book cannot be read.
    pub fn explain(&self, key: &RecordKey) -> Result<Explanation, Error> {
        let (tail, snapshot) = self.shared.tail_and_snapshot()?;
        let (row, state) = (snapshot.record(key)?.unwrap_or_default(), snapshot.state()?);
        let actor = self.actor();
        let view = SnapshotView::new(&snapshot, snapshot.log()?, &tail);
        let (now, suspects) = (self.shared.clock.now().wall, BTreeSet::from([key.clone()]));
        let inspector = Inspector::new(view, &self.shared.schema, &suspects);
        let input =
            PlanInput::unbounded(&tail, &self.shared.schema, &state.parks, &actor, now, &inspector);
        let unmetered = self.shared.connectivity.is_unmetered();
        let plan = plan_record(&PlanInput { unmetered, ..input }, key);
        let dead = row.tail.iter().filter(|reference| reference.dead).map(|reference| reference.op);
        let dead = dead_letters_of(&snapshot, dead)?;
        let open = open_conflicts(&snapshot, &tail, &plan.holds)?;
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
            conflicts: &snapshot.conflicts_of(key)?,
            kept_aside: snapshot.is_aside(key)?,
            entity_synced_at: cursors
                .into_iter()
                .find(|(entity, _)| *entity == key.entity)
                .map(|(_, row)| row.synced_at),
            book_synced_at: self.shared.answered_at(),
        }))
    }
}

/// Returns the times of the entries that planned the units of a record.
fn written_at(
    snapshot: &Snapshot,
    tail: &Tail,
    key: &RecordKey,
) -> Result<BTreeMap<Seq, WallTime>, StoreError> {
    let log = snapshot.log()?;
    let units = tail.ops_of(key).filter_map(|place| tail.unit(&tail.unit_of(place)?));
    units.map(|unit| Ok((unit.planned, log.existing(unit.planned)?.header.wall))).collect()
}
