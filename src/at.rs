//! The book as it was at a moment of the past, with the reads of the book.
//!
//! ```text
//!   Moment ──► the last entry that belongs to it (Found) ──► At: get, list, status, explain, queue, …
//! ```
//!
//! Invariants:
//! 1. Each read returns what it would have returned after that entry, by the app's present schema.
//!    Waits that end by the clock are those of the moment.
//! 2. Nothing was in flight, and every network was unmetered: no entry says otherwise.
//! 3. The cost follows what changed since. A read of one record reads its own entries only, unless
//!    the schema declares references or validators, so that other records can hold it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use fieldbook_core::log::{Head, read_entry};
use fieldbook_core::rules::belonging::{ServerIdentity, candidates};
use fieldbook_core::rules::explain::Explanation;
use fieldbook_core::rules::plan::{Hold, Plan};
use fieldbook_core::rules::status::{Attention, ParkReason, RecordStatus, SyncState, overall};
pub use fieldbook_core::when::{InvalidWhen, Moment, Offsets, When, Zone, offset_shown, shown};
use fieldbook_core::{Actor, ConflictId, EntityType, RecordId, RecordKey, Schema, Seq, WallTime};
use fieldbook_projections::{Erasures, Past, PastRows, Snapshot};

use crate::authors::Met;
use crate::book::Book;
use crate::conflict::{Conflict, ConflictCount, DeadLetter};
use crate::decisions::ServerState;
use crate::error::Error;
use crate::explain;
use crate::record::{Record, RecordList};
use crate::status::{QueuedOp, SyncStatus, parked_by_reason};

/// The entry at which a moment was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// The last entry of the moment; [`Seq::ZERO`] if the moment is before the first entry.
    pub seq: Seq,
    /// The time of the moment: the time that was asked for, or that of the log's clock at the
    /// entry.
    pub at: WallTime,
    /// The number of entries that follow.
    pub follow: u64,
    /// The entry next to the moment whose wall clock was behind the log's clock, if there is one:
    /// the device's clock had been set back.
    pub set_back: Option<SetBack>,
}

impl Found {
    /// Makes a moment without doubts.
    pub const fn new(seq: Seq, at: WallTime, follow: u64) -> Self {
        Self { seq, at, follow, set_back: None }
    }
}

/// An entry that was made after the device's clock was set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetBack {
    /// The entry.
    pub seq: Seq,
    /// What the device's clock showed.
    pub showed: WallTime,
    /// The time that counts: that of the log's clock, which never goes back.
    pub counts: WallTime,
}

/// A wall clock that is so many milliseconds behind the log's clock was set back.
const BEHIND_MILLISECONDS: i64 = 1_000;

/// The book as it was at a moment: [`Book::at`]. While it exists, overwritten pages keep their
/// space in the file.
///
/// ```
/// use fieldbook::audit::{Moment, Seq};
/// # use fieldbook::{Book, BookOptions, Fields, RecordKey};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
/// let lead: RecordKey = "lead/42".parse()?;
/// book.records().create(lead.clone(), Fields::parse(r#"{"name":"Ann"}"#)?)?;
/// book.records().update(lead.clone(), Fields::parse(r#"{"name":"Anna"}"#)?)?;
///
/// // One entry back.
/// let past = book.at(Moment::Back(1))?;
/// assert_eq!(past.found().seq, Seq::new(3));
/// assert_eq!(past.get_record(&lead)?.expect("it was there").json.as_str(), r#"{"name":"Ann"}"#);
/// assert_eq!(past.status()?.pending, 1);
/// println!("{}", past.explain(&lead)?);
/// # Ok(())
/// # }
/// ```
pub struct At<'b> {
    book: &'b Book,
    snapshot: Arc<Snapshot>,
    found: Found,
    actor: Actor,
    whole: OnceLock<Past>,
}

/// What the rules need to know of the past.
type PastMoment<'a> = explain::Moment<'a, PastRows<'a>, redb::ReadOnlyTable<u64, &'static [u8]>>;

impl Book {
    /// Returns the book as it was at a moment.
    ///
    /// # Errors
    /// [`Error::NoSuchEntry`] for an entry after the end of the log; [`Error::Store`] if the log cannot
    /// be read.
    pub fn at(&self, moment: Moment) -> Result<At<'_>, Error> {
        let snapshot = Arc::new(self.shared.snapshot()?);
        let found = find(&snapshot, moment)?;
        Ok(At { book: self, snapshot, found, actor: self.actor(), whole: OnceLock::new() })
    }
}

impl<'b> At<'b> {
    /// Makes the book as it was after an entry by folding the whole log up to it.
    pub(crate) fn folded(book: &'b Book, seq: Seq) -> Result<Self, Error> {
        let at = book.at(Moment::Entry(seq))?;
        let past = Past::whole(&at.snapshot, &book.shared.schema, at.found.seq)?;
        Ok(Self { whole: OnceLock::from(past), ..at })
    }

    /// Sets the actor whose credentials decide what may be sent. The default is the book's actor.
    #[must_use]
    pub fn acting_as(mut self, actor: Actor) -> Self {
        self.actor = actor;
        self
    }

    /// Returns the entry at which the moment was found.
    pub const fn found(&self) -> &Found {
        &self.found
    }

    /// Returns the last entry's place, hash and clock.
    ///
    /// # Errors
    /// [`Error::Store`] if it cannot be read.
    pub fn head(&self) -> Result<Option<Head>, Error> {
        let entry = read_entry(&self.snapshot.entries()?, self.found.seq)?;
        Ok(entry.map(|entry| {
            let (header, hash) = (entry.header, entry.hash);
            Head { seq: header.seq, hash, hlc: header.hlc, epoch: header.epoch }
        }))
    }

    fn past(&self) -> Result<&Past, Error> {
        if let Some(past) = self.whole.get() {
            return Ok(past);
        }
        let past = Past::of(&self.snapshot, &self.book.shared.schema, self.found.seq)?;
        Ok(self.whole.get_or_init(|| past))
    }

    /// Refuses to read values of this moment that were erased: those of a record, or of any.
    pub(crate) fn check_values(&self, key: Option<&RecordKey>) -> Result<(), Error> {
        let (erasures, at) = (Erasures::of(&self.snapshot)?, self.found.seq);
        let by = key.map_or_else(|| erasures.of_any(at), |key| erasures.of_record(key, at));
        by.map_or(Ok(()), |by| Err(Error::Erased { by }))
    }

    /// Passes the moment of a question about one record to the rules.
    fn about<T>(
        &self,
        key: &RecordKey,
        ask: impl FnOnce(&PastMoment<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let schema = &self.book.shared.schema;
        if self.whole.get().is_some() || schema.inspects() {
            return self.ask(self.past()?, Some(key), ask);
        }
        let past = Past::of_record(&self.snapshot, schema, key, self.found.seq)?;
        self.ask(&past, Some(key), ask)
    }

    fn ask<T>(
        &self,
        past: &Past,
        key: Option<&RecordKey>,
        ask: impl FnOnce(&PastMoment<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (rows, log) = (PastRows { past, snapshot: &self.snapshot }, self.snapshot.log()?);
        let (schema, now) = (&self.book.shared.schema, self.found.at);
        let cursor = key.and_then(|key| past.cursors().get(&key.entity));
        ask(&explain::Moment {
            entity_synced_at: cursor.map(|row| row.synced_at),
            ..explain::Moment::of_past(&rows, &log, schema, &self.actor, now)
        })
    }

    /// Returns a record as the app read it.
    ///
    /// # Errors
    /// [`Error::Erased`] if its values of that moment were erased; [`Error::Store`] if it cannot be
    /// read.
    pub fn get_record(&self, key: &RecordKey) -> Result<Option<Record>, Error> {
        self.check_values(Some(key))?;
        let row = match self.whole.get() {
            Some(past) => past.record(&self.snapshot, key)?,
            None => {
                let schema = &self.book.shared.schema;
                Past::row(&self.snapshot, schema, key, self.found.seq)?
            }
        };
        let Some(row) = row else { return Ok(None) };
        Ok(Record::from_row(&self.book.shared.schema, key.clone(), &row)?)
    }

    /// Lists records of an entity type in the order of their ids, at most `limit` of them, after an
    /// id if it is given.
    ///
    /// # Errors
    /// [`Error::Erased`] if values of that moment were erased; [`Error::Store`] if a record cannot
    /// be read.
    pub fn list(
        &self,
        entity: &EntityType,
        after: Option<&RecordId>,
        limit: usize,
    ) -> Result<RecordList, Error> {
        self.check_values(None)?;
        let past = self.past()?;
        let mut records = RecordList::with_room(entity.clone(), limit);
        let mut after = after.cloned();
        loop {
            let left = limit - records.len();
            let rows = past.records(&self.snapshot, entity, after.as_ref(), left)?;
            for (id, row) in &rows {
                let key = RecordKey::new(entity.clone(), id.clone());
                let record = Record::from_row(&self.book.shared.schema, key, row)?;
                record.iter().for_each(|record| records.push(record.lent()));
            }
            let is_last = rows.len() < left;
            after = rows.last().map(|(id, _)| id.clone());
            if is_last || records.len() == limit {
                records.next = after.filter(|_| records.len() == limit && limit > 0);
                return Ok(records);
            }
        }
    }

    /// Returns the entity types that had records.
    ///
    /// # Errors
    /// [`Error::Store`] if a row cannot be read.
    pub fn entity_types(&self) -> Result<Vec<EntityType>, Error> {
        Ok(self.past()?.entity_types(&self.snapshot)?)
    }

    /// Returns the status of a record.
    ///
    /// # Errors
    /// [`Error::Store`] if it cannot be read.
    pub fn record_status(&self, key: &RecordKey) -> Result<RecordStatus, Error> {
        self.about(key, |moment| moment.record_status(key))
    }

    /// Explains the state of a record.
    ///
    /// # Errors
    /// [`Error::Store`] if it cannot be read.
    pub fn explain(&self, key: &RecordKey) -> Result<Explanation, Error> {
        self.about(key, |moment| moment.explain(key))
    }

    /// Returns the pending ops, oldest first, each with its state and the reason for it.
    ///
    /// # Errors
    /// [`Error::Store`] if the log cannot be read.
    pub fn queue(&self) -> Result<Vec<QueuedOp>, Error> {
        self.ask(self.past()?, None, |moment| moment.queue())
    }

    /// Returns what a sync would have sent, without a limit of its batch, and what was held.
    ///
    /// # Errors
    /// [`Error::Store`] if the log cannot be read.
    pub fn plan(&self) -> Result<Plan, Error> {
        self.ask(self.past()?, None, |moment| Ok(moment.plan()))
    }

    /// Returns the numbers of ops that were parked one by one, by reason.
    ///
    /// # Errors
    /// [`Error::Store`] if the log cannot be read.
    pub fn parked(&self) -> Result<BTreeMap<ParkReason, u64>, Error> {
        Ok(parked_by_reason(self.past()?.tail()))
    }

    /// Returns the state of the engine, as if it had just been started, and what was pending.
    ///
    /// # Errors
    /// [`Error::Store`] if the log cannot be read.
    pub fn status(&self) -> Result<SyncStatus, Error> {
        let (past, plan) = (self.past()?, self.plan()?);
        let records = |wanted: &dyn Fn(&Hold) -> bool| -> u64 {
            let held = plan.holds.iter().filter(|(_, hold)| wanted(hold));
            let keys: BTreeSet<_> =
                held.filter_map(|(place, _)| Some(&past.tail().op(*place)?.key)).collect();
            keys.len() as u64
        };
        let held = records(&Hold::waits_for_correction);
        let outgrown = records(&|hold| matches!(hold, Hold::NoUpcaster { .. }));
        Ok(past_status(past, &self.book.shared.schema, &self.actor, held, outgrown))
    }

    /// Returns the state of the book at its server.
    ///
    /// # Errors
    /// [`Error::Store`] if the log cannot be read.
    pub fn server_state(&self) -> Result<ServerState, Error> {
        Ok(ServerState::of(self.past()?.state()))
    }

    /// Returns the servers that had answered instead of the known one.
    ///
    /// # Errors
    /// [`Error::Store`] if the log cannot be read.
    pub fn candidates(&self) -> Result<Vec<ServerIdentity>, Error> {
        Ok(candidates(self.past()?.state()))
    }

    /// Returns for each entity type when a page last moved its cursor, by the device's wall clock.
    ///
    /// # Errors
    /// [`Error::Store`] if the log cannot be read.
    pub fn synced_at(&self) -> Result<BTreeMap<EntityType, WallTime>, Error> {
        let cursors = self.past()?.cursors().iter();
        Ok(cursors.map(|(entity, row)| (entity.clone(), row.synced_at)).collect())
    }

    /// Returns all dead letters, oldest first.
    ///
    /// # Errors
    /// [`Error::Store`] if the log cannot be read.
    pub fn dead_letters(&self) -> Result<Vec<DeadLetter>, Error> {
        let rows = self.past()?.dead_letters(&self.snapshot)?.into_iter();
        Ok(rows.map(DeadLetter::of).collect())
    }

    /// Returns all conflicts, oldest first, as they stood.
    ///
    /// # Errors
    /// [`Error::Erased`] if values of that moment were erased; [`Error::Store`] if the log cannot
    /// be read.
    pub fn conflicts(&self) -> Result<Vec<Conflict>, Error> {
        self.check_values(None)?;
        let (log, rows) = (self.snapshot.log()?, self.past()?.conflicts(&self.snapshot)?);
        let mut met = Met::new(&log);
        Ok(rows.into_iter().map(|(id, row)| met.conflict(id, row)).collect())
    }

    /// Returns a conflict as it stood; `None` if there was none with this id.
    ///
    /// # Errors
    /// [`Error::Erased`] if its values were erased; [`Error::Store`] if the log cannot be read.
    pub fn conflict(&self, id: ConflictId) -> Result<Option<Conflict>, Error> {
        let (log, rows) = (self.snapshot.log()?, self.past()?.conflicts(&self.snapshot)?);
        let Some((id, row)) = rows.into_iter().find(|(found, _)| *found == id) else {
            return Ok(None);
        };
        self.check_values(Some(&row.key))?;
        Ok(Some(Met::new(&log).conflict(id, row)))
    }

    /// Returns the number of conflicts.
    ///
    /// # Errors
    /// [`Error::Store`] if the log cannot be read.
    pub fn count_conflicts(&self) -> Result<ConflictCount, Error> {
        let conflicts = self.past()?.conflicts(&self.snapshot)?;
        let open = conflicts.iter().filter(|(_, row)| row.open).count() as u64;
        Ok(ConflictCount { all: conflicts.len() as u64, open })
    }
}

impl std::fmt::Debug for At<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("At").field("found", &self.found).finish_non_exhaustive()
    }
}

/// Returns the state of the engine, as if it had just been started, and what was pending. `held` is
/// the number of records that wait for a correction, `outgrown` that of those without an upcaster.
pub(crate) fn past_status(
    past: &Past,
    schema: &Schema,
    actor: &Actor,
    held: u64,
    outgrown: u64,
) -> SyncStatus {
    let tail = past.tail();
    let leaves = |entity: &EntityType| schema.leaves(entity);
    let dead_letters = tail.dead_letters();
    let attention = Attention {
        storage_failed: false,
        parks: &past.state().parks,
        parked_ops: tail.parked_by_code(),
        actor,
        dead_letters,
        held,
        outgrown,
        others: tail.others(actor, leaves),
    };
    let state = overall(&SyncState::Idle, &attention);
    let (pending, synced_at) = (tail.pending(leaves), past.state().synced_at);
    SyncStatus { state, pending, dead_letters, synced_at }
}

/// Finds the last entry that belongs to a moment. An entry belongs to a time if the milliseconds of
/// its log clock, which only grows, are not after it.
pub(crate) fn find(snapshot: &Snapshot, moment: Moment) -> Result<Found, Error> {
    let last = snapshot.last_seq()?;
    let (table, trimmed) = (snapshot.entries()?, snapshot.state()?.trimmed);
    let header =
        |seq: Seq| -> Result<_, Error> { Ok(read_entry(&table, seq)?.map(|entry| entry.header)) };
    let (seq, asked) = match moment {
        Moment::Entry(seq) if seq > last => {
            return Err(Error::NoSuchEntry { last });
        }
        Moment::Entry(seq) => (seq, None),
        Moment::Back(steps) => (Seq::new(last.number().saturating_sub(steps)), None),
        Moment::Time(time) => {
            let (mut from, mut to) = (trimmed.map_or(0, |upto| upto.number()), last.number());
            while from < to {
                let middle = from + (to - from).div_ceil(2);
                let is_in = header(Seq::new(middle))?.is_some_and(|found| found.hlc.wall() <= time);
                (from, to) = if is_in { (middle, to) } else { (from, middle - 1) };
            }
            (Seq::new(from), Some(time))
        }
    };
    let here = header(seq)?;
    if let Some(upto) = trimmed {
        let is_before = |time: WallTime| here.as_ref().is_none_or(|at| at.hlc.wall() > time);
        if seq < upto || asked.is_some_and(is_before) {
            return Err(Error::Trimmed { upto });
        }
    }
    let next = header(seq.next())?;
    let set_back = [here.as_ref(), next.as_ref()].into_iter().flatten().find_map(|header| {
        let (showed, counts) = (header.wall, header.hlc.wall());
        let behind = counts.milliseconds().saturating_sub(showed.milliseconds());
        (behind > BEHIND_MILLISECONDS).then_some(SetBack { seq: header.seq, showed, counts })
    });
    let at = asked.or_else(|| here.map(|here| here.hlc.wall())).unwrap_or_default();
    Ok(Found { seq, at, follow: last.since(seq), set_back })
}
