//! A walk through the whole log, with the state of every record and of the book after each entry.
//!
//! ```text
//!   entry ──► the fold ──► which records can be in another state now ──► the rules ──► WalkStep
//! ```
//!
//! Invariants:
//! 1. After each entry, the states are those that [`Book::at`](crate::Book::at) returns for it.
//! 2. A record is looked at again only if the entry touched it or a record that it is sent with or
//!    refers to, or if a wait of it has ended by the clock. An entry about the book as a whole
//!    makes the walk look at all pending records.
//!
//! What it is not: a way to read one moment. [`Book::at`](crate::Book::at) costs what changed
//! since.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook_core::entry::{Authored, Entry, Meta};
use fieldbook_core::log::StoreError;
use fieldbook_core::record::Effect;
use fieldbook_core::rules::explain::Explanation;
use fieldbook_core::rules::plan::Hold;
use fieldbook_core::tail::Tail;
use fieldbook_core::{Actor, RecordKey, Schema, Seq, WallTime};
use fieldbook_projections::{CachedLog, LogView, Past, PastRows, Snapshot, Step, walk};

use crate::at::past_status;
use crate::audit::Audit;
use crate::authors::authors_after;
use crate::conflict::ConflictCount;
use crate::error::Error;
use crate::explain::Moment;
use crate::status::SyncStatus;

/// One entry of a walk: [`Audit::walk`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct WalkStep<'a> {
    /// The entry.
    pub entry: &'a Entry,
    /// The authors of the server's changes in the entry, as the next entry names them.
    pub authors: &'a [Authored],
    /// What the entry made of the records that it touches.
    pub effects: &'a [Effect],
    /// What it made of all other records, if it can change every record: another server was
    /// accepted, or read to its end.
    pub others: &'a [Effect],
    /// The records that are, or may be, in another state after the entry, each as
    /// [`At::explain`](crate::audit::At::explain) explains it.
    pub explained: &'a [Explanation],
    /// The state of the engine, and what was pending.
    pub status: &'a SyncStatus,
    /// The number of conflicts.
    pub conflicts: ConflictCount,
}

impl Audit<'_> {
    /// Passes every entry up to a place to `tell`, oldest first, with what it changed: records,
    /// their states, the numbers of the book. `actor` is the one whose credentials decide what may
    /// be sent. The log is folded once, in memory.
    ///
    /// ```
    /// use fieldbook::audit::Seq;
    /// # use fieldbook::{Book, BookOptions, Fields};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("ann")?)?;
    /// book.records().create("lead/42".parse()?, Fields::parse(r#"{"stage":"new"}"#)?)?;
    /// let mut pending = Vec::new();
    /// book.audit().walk(&book.actor(), Seq::new(u64::MAX), |step| pending.push(step.status.pending))?;
    /// assert_eq!(pending.last(), Some(&1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Store`] if an entry cannot be read.
    pub fn walk(
        &self,
        actor: &Actor,
        upto: Seq,
        mut tell: impl FnMut(&WalkStep<'_>),
    ) -> Result<(), Error> {
        let (snapshot, schema) = (self.book.shared.snapshot()?, &self.book.shared.schema);
        let (log, entries) = (snapshot.log()?, snapshot.entries()?);
        let mut states = States::new(&snapshot, schema, actor);
        walk(&snapshot, schema, upto, |step| {
            let authors = authors_after(&entries, step.entry)?;
            let explained = states.after(&log, &step)?;
            let (status, conflicts) = (states.status(step.past), states.conflicts);
            tell(&WalkStep {
                entry: step.entry,
                authors: &authors,
                effects: step.effects,
                others: step.others,
                explained: &explained,
                status: &status,
                conflicts,
            });
            Ok::<_, Error>(())
        })
    }
}

/// What is known of the records between two entries.
struct States<'a> {
    snapshot: &'a Snapshot,
    schema: &'a Schema,
    actor: &'a Actor,
    /// The records with an op that a person must correct.
    held: BTreeSet<RecordKey>,
    /// The records with an op of another schema version.
    outgrown: BTreeSet<RecordKey>,
    /// The records with a wait that ends by the clock, by its end.
    waits: BTreeSet<(WallTime, RecordKey)>,
    /// The records that wait until everything else is sent.
    last: BTreeSet<RecordKey>,
    /// The number of conflicts of each record that has any: all, and open ones.
    conflicts_of: BTreeMap<RecordKey, (u64, u64)>,
    conflicts: ConflictCount,
}

impl<'a> States<'a> {
    fn new(snapshot: &'a Snapshot, schema: &'a Schema, actor: &'a Actor) -> Self {
        Self {
            snapshot,
            schema,
            actor,
            held: BTreeSet::new(),
            outgrown: BTreeSet::new(),
            waits: BTreeSet::new(),
            last: BTreeSet::new(),
            conflicts_of: BTreeMap::new(),
            conflicts: ConflictCount { all: 0, open: 0 },
        }
    }

    /// Explains the records whose state an entry may have changed.
    fn after<T>(&mut self, log: &CachedLog<T>, step: &Step<'_>) -> Result<Vec<Explanation>, Error>
    where
        T: fieldbook_projections::EntryTable,
    {
        let now = step.entry.header.hlc.wall();
        let keys = self.concerned(log, step, now)?;
        let past = step.past;
        let rows = PastRows { past, snapshot: self.snapshot };
        let of_all = Moment::of_past(&rows, log, self.schema, self.actor, now);
        let holds = of_all.plan_records(&keys).holds;
        let mut explained = Vec::with_capacity(keys.len());
        for key in keys {
            let entity_synced_at = past.cursors().get(&key.entity).map(|row| row.synced_at);
            let places = past.tail().ops_of(&key);
            let own: BTreeMap<_, _> =
                places.filter_map(|place| Some((place, holds.get(&place)?.clone()))).collect();
            let explanation =
                Moment { entity_synced_at, ..of_all }.explained(&key, &holds, &own)?;
            self.note(&key, &own.values().collect::<Vec<_>>());
            self.count(&key, &explanation);
            explained.push(explanation);
        }
        Ok(explained)
    }

    /// Returns the records that can be in another state after an entry.
    fn concerned(
        &mut self,
        log: &impl LogView,
        step: &Step<'_>,
        now: WallTime,
    ) -> Result<BTreeSet<RecordKey>, StoreError> {
        let (tail, touched) = (step.past.tail(), step.touched);
        let mut keys: BTreeSet<_> = touched.keys.iter().cloned().collect();
        keys.extend(step.others.iter().map(|effect| effect.key.clone()));
        keys.extend(self.last.iter().cloned());
        while let Some((until, _)) = self.waits.first()
            && *until <= now
            && let Some((_, key)) = self.waits.pop_first()
        {
            keys.insert(key);
        }
        if touched.book || touched.all {
            keys.extend(tail.ops().map(|(_, row)| row.key.clone()));
            return Ok(keys);
        }
        let mut unseen: Vec<_> = keys.iter().cloned().collect();
        while let Some(key) = unseen.pop() {
            for other in together(tail, log, &key)? {
                if keys.insert(other.clone()) {
                    unseen.push(other);
                }
            }
        }
        Ok(keys)
    }

    /// Remembers the holds of a record.
    fn note(&mut self, key: &RecordKey, holds: &[&Hold]) {
        let set = |keys: &mut BTreeSet<RecordKey>, is_in: bool| {
            if is_in { keys.insert(key.clone()) } else { keys.remove(key) }
        };
        set(&mut self.held, holds.iter().any(|hold| hold.waits_for_correction()));
        set(&mut self.outgrown, holds.iter().any(|hold| matches!(hold, Hold::NoUpcaster { .. })));
        let waits_for_all = |hold: &&Hold| matches!(hold, Hold::NotLetThrough { until: None, .. });
        set(&mut self.last, holds.iter().any(waits_for_all));
        let ends = holds.iter().filter_map(|hold| match hold {
            Hold::UndoWindow { until } | Hold::BackingOff { until, .. } => Some(*until),
            Hold::NotLetThrough { until, .. } => *until,
            _ => None,
        });
        self.waits.extend(ends.map(|until| (until, key.clone())));
    }

    /// Counts the conflicts of a record anew.
    fn count(&mut self, key: &RecordKey, explanation: &Explanation) {
        let all = explanation.conflicts.len() as u64;
        let open = explanation.conflicts.iter().filter(|one| one.open).count() as u64;
        let before = self.conflicts_of.get(key).copied().unwrap_or_default();
        if before == (all, open) {
            return;
        }
        self.conflicts_of.insert(key.clone(), (all, open));
        self.conflicts.all = self.conflicts.all + all - before.0;
        self.conflicts.open = self.conflicts.open + open - before.1;
    }

    /// Returns the state of the engine, as if it had just been started, and what is pending.
    fn status(&self, past: &Past) -> SyncStatus {
        let (held, outgrown) = (self.held.len() as u64, self.outgrown.len() as u64);
        past_status(past, self.schema, self.actor, held, outgrown)
    }
}

/// Returns the records whose state can follow that of a record: those that refer to it, and those
/// whose ops share a transaction or a unit with its ops.
fn together(
    tail: &Tail,
    log: &impl LogView,
    key: &RecordKey,
) -> Result<BTreeSet<RecordKey>, StoreError> {
    let mut keys: BTreeSet<_> = tail.referrers(key).map(|(_, row)| row.key.clone()).collect();
    for place in tail.ops_of(key) {
        if tail.op(place).is_some_and(|row| row.transaction_ops > 1) {
            let entry = log.existing(place.seq)?;
            if let Meta::Intent(intent) = &entry.meta {
                keys.extend(intent.ops.iter().map(|op| op.key.clone()));
            }
        }
        let unit = tail.unit_of(place).and_then(|unit| tail.unit(&unit));
        keys.extend(unit.into_iter().flat_map(|unit| unit.records.iter().cloned()));
    }
    keys.retain(|other| other != key && tail.has(other));
    Ok(keys)
}
