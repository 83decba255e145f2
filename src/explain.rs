//! The explanation of a record, now or at a moment of the past. `rules::explain` decides; this
//! module reads its input from the rows of that moment.
//!
//! Invariants:
//! 1. All of it is read at one instant, so the tail and the record match.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook_core::entry::ParkScope;
use fieldbook_core::log::StoreError;
use fieldbook_core::rules::explain::{Explanation, Facts, explain};
use fieldbook_core::rules::inspect::Inspect;
use fieldbook_core::rules::plan::{Hold, Plan, PlanInput, plan, plan_record, plan_records};
use fieldbook_core::rules::status::{Known, RecordStatus};
use fieldbook_core::tail::Tail;
use fieldbook_core::{Actor, OpPlace, RecordKey, Schema, Seq, UnitId, WallTime};
use fieldbook_projections::{CachedLog, EntryTable, LogView, PastRows, Rows, SnapshotView, sound};

use crate::authors::Met;
use crate::book::Book;
use crate::error::Error;
use crate::inspect::Inspector;
use crate::status::{QueuedOp, dead_letters_of, open_conflicts, queued, status_of};

/// Everything that the rules need to know of a book at one moment.
pub(crate) struct Moment<'a, R, T> {
    pub(crate) rows: &'a R,
    pub(crate) log: &'a CachedLog<T>,
    pub(crate) tail: &'a Tail,
    pub(crate) schema: &'a Schema,
    pub(crate) parks: &'a [(ParkScope, String)],
    pub(crate) actor: &'a Actor,
    pub(crate) now: WallTime,
    pub(crate) unmetered: bool,
    /// The units that an exchange carries.
    pub(crate) sending: &'a BTreeSet<UnitId>,
    pub(crate) entity_synced_at: Option<WallTime>,
    pub(crate) book_synced_at: Option<WallTime>,
}

/// No exchange carried a unit.
static NOTHING: BTreeSet<UnitId> = BTreeSet::new();

impl<'a, T> Moment<'a, PastRows<'a>, T> {
    /// Makes a moment of the past, for questions about the whole book. Nothing was in flight, and
    /// every network was unmetered: no entry says otherwise.
    pub(crate) fn of_past(
        rows: &'a PastRows<'a>,
        log: &'a CachedLog<T>,
        schema: &'a Schema,
        actor: &'a Actor,
        now: WallTime,
    ) -> Self {
        let state = rows.past.state();
        Self {
            rows,
            log,
            tail: rows.past.tail(),
            schema,
            parks: &state.parks,
            actor,
            now,
            unmetered: true,
            sending: &NOTHING,
            entity_synced_at: None,
            book_synced_at: state.synced_at,
        }
    }
}

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
        let cursor = snapshot.cursors()?.into_iter().find(|(entity, _)| *entity == key.entity);
        let moment = Moment {
            rows: &*snapshot,
            log: &snapshot.log()?,
            tail: &tail,
            schema: &self.shared.schema,
            parks: &snapshot.state()?.parks,
            actor: &self.actor(),
            now: self.shared.clock.now().wall,
            unmetered: self.shared.connectivity.is_unmetered(),
            sending: &self.shared.sending(),
            entity_synced_at: cursor.map(|(_, row)| row.synced_at),
            book_synced_at: self.shared.answered_at(),
        };
        let explanation = moment.explain(key)?;
        sound(&tail)?;
        Ok(explanation)
    }
}

impl<R: Rows, T: EntryTable> Moment<'_, R, T> {
    /// Explains the state of a record at this moment.
    pub(crate) fn explain(&self, key: &RecordKey) -> Result<Explanation, Error> {
        let holds = self.plan_record(key).holds;
        self.explained(key, &holds, &holds)
    }

    /// Explains the state of a record at this moment, given the holds of a plan that has the
    /// record, and those of them that are of its own ops.
    pub(crate) fn explained(
        &self,
        key: &RecordKey,
        holds: &BTreeMap<OpPlace, Hold>,
        own: &BTreeMap<OpPlace, Hold>,
    ) -> Result<Explanation, Error> {
        let row = self.rows.record(key)?.unwrap_or_default();
        let dead = row.tail.iter().filter(|reference| reference.dead).map(|reference| reference.op);
        let dead = dead_letters_of(self.rows, dead)?;
        let open = open_conflicts(self.rows, self.tail, own)?;
        let written_at = self.written_at(key)?;
        let (conflicts, mut met) = (self.rows.conflicts_of(key)?, Met::new(self.log));
        let authors: Vec<_> = conflicts.iter().map(|(id, row)| met.author(*id, row)).collect();
        Ok(explain(&Facts {
            key,
            row: &row,
            known: Known {
                tail: self.tail,
                holds,
                dead: &dead,
                open: &open,
                sending: self.sending,
                written_at: &written_at,
            },
            conflicts: &conflicts,
            authors: &authors,
            undeclared: self.rows.is_undeclared(key)?,
            entity_synced_at: self.entity_synced_at,
            book_synced_at: self.book_synced_at,
        }))
    }

    /// Returns the status of a record at this moment.
    pub(crate) fn record_status(&self, key: &RecordKey) -> Result<RecordStatus, Error> {
        status_of(self.rows, self.tail, self.sending, key, || self.plan_record(key))
    }

    /// Returns all pending ops of this moment, oldest first.
    pub(crate) fn queue(&self) -> Result<Vec<QueuedOp>, Error> {
        let dead = self.tail.ops().filter(|(place, _)| self.tail.is_dead(*place));
        let dead = dead_letters_of(self.rows, dead.map(|(_, row)| row.op))?;
        let holds = self.plan().holds;
        Ok(queued(&Known {
            tail: self.tail,
            holds: &holds,
            dead: &dead,
            open: &open_conflicts(self.rows, self.tail, &holds)?,
            sending: self.sending,
            written_at: &BTreeMap::new(),
        }))
    }

    /// Returns what a sync at this moment would have sent, without limits. Every record is checked
    /// for its size, because nobody remembers which were too large then.
    pub(crate) fn plan(&self) -> Plan {
        let all: BTreeSet<_> = self.tail.ops().map(|(_, row)| row.key.clone()).collect();
        self.inspecting(&all, plan)
    }

    /// Plans one record alone. Its size is checked too.
    fn plan_record(&self, key: &RecordKey) -> Plan {
        self.inspecting(&BTreeSet::from([key.clone()]), |input| plan_record(input, key))
    }

    /// Plans some records alone. Their sizes are checked too.
    pub(crate) fn plan_records(&self, keys: &BTreeSet<RecordKey>) -> Plan {
        self.inspecting(keys, |input| plan_records(input, keys))
    }

    fn inspecting(
        &self,
        suspects: &BTreeSet<RecordKey>,
        make: impl FnOnce(&PlanInput<'_>) -> Plan,
    ) -> Plan {
        let view = SnapshotView::new(self.rows, self.log, self.tail);
        let inspector = Inspector::new(view, self.schema, suspects);
        let inspect: &dyn Inspect = &inspector;
        let input =
            PlanInput::unbounded(self.tail, self.schema, self.parks, self.actor, self.now, inspect);
        make(&PlanInput { unmetered: self.unmetered, ..input })
    }

    /// Returns the times of the entries that planned the units of a record.
    fn written_at(&self, key: &RecordKey) -> Result<BTreeMap<Seq, WallTime>, StoreError> {
        let tail = self.tail;
        let units = tail.ops_of(key).filter_map(|place| tail.unit(&tail.unit_of(place)?));
        let at = |planned| Ok((planned, self.log.existing(planned)?.header.wall));
        units.map(|unit| at(unit.planned)).collect()
    }
}
