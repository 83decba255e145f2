//! The one writer. It gathers jobs into rounds; each round is one durable commit.
//!
//! ```text
//!   job: read rows ─► decide ─► append entries ─► apply to tables ┐
//!   job: …                                                        ├─ one transaction ─► commit ─► memory, watchers, replies
//!   job: …                                                        ┘
//! ```
//!
//! Invariants:
//! 1. A job decides before it writes. A job that fails before it wrote does not affect the other
//!    jobs of its round. A job that fails after it wrote ends the round, and nothing of the round
//!    is committed.
//! 2. No caller gets an answer before the commit, and no state in memory changes before it.
//! 3. A round without writes makes no commit.
//! 4. If a commit fails, nobody knows whether it took effect: its callers receive
//!    [`Error::Unknown`], and the book takes no more writes.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use fieldbook_core::entry::{Checked, Control, Draft, Entry, FieldsSource, Meta, Silence};
use fieldbook_core::index::Turn;
use fieldbook_core::locks::{Mutex, MutexGuard};
use fieldbook_core::log::{
    Appender, GroupCommit, Head, Reply, Stamp, Store, StoreError, read_entry,
};
use fieldbook_core::rows::{RecordRow, StateRow, StoredRecord, UnitRow};
use fieldbook_core::rules::clock::{ServerTime, Stamped, entry_stamp, stamp};
use fieldbook_core::rules::silence::Silences;
use fieldbook_core::rules::{OpContent, View};
use fieldbook_core::tail::Tail;
use fieldbook_core::{
    Actor, Epoch, FieldsJson, Hlc, Now, OpId, OpPlace, Randomness, RecordKey, Schema, Seq, UnitId,
    Version,
};
#[cfg(feature = "search")]
use fieldbook_projections::search::{Part, fold_part};
use fieldbook_projections::{
    Appended, CachedLog, DiskTables, Effects, Indexes, LogView, Projections, Tables, TailEffect,
    Wanted, apply, fold_history, fold_tail, sound, tail_is_due,
};
use foldhash::HashMap;
use redb::ReadableTable;

use crate::book::{Shared, WriterState, read, write};
use crate::declared::Opening;
use crate::error::Error;

/// The work of a caller within a round.
pub(crate) type Job = Box<dyn FnOnce(&mut Session<'_>) -> Result<(), Error> + Send>;

/// The book within one write transaction, for a job.
pub(crate) struct Session<'t> {
    pub(crate) tables: DiskTables<'t>,
    pub(crate) schema: &'t Schema,
    indexes: &'t Indexes,
    pub(crate) tail: &'t Tail,
    pub(crate) actor: Actor,
    pub(crate) now: Now,
    pub(crate) epoch: Epoch,
    pub(crate) randomness: &'t mut dyn Randomness,
    /// What the first entry of this opening is preceded by; none if the log has it.
    opening: Option<&'t Opening>,
    silences: &'t Mutex<Silences>,
    /// The silences that precede the first entry of this round, once they are settled.
    to_tell: Option<Vec<Silence>>,
    projections: &'t mut Projections,
    /// Whether there are live lists.
    is_live: bool,
    /// The new keys in the indexes, for the live lists.
    new_keys: Option<Vec<Vec<u8>>>,
    appender: Appender<'t>,
    server_time: Option<ServerTime>,
    last_stamp: Hlc,
    /// The stamps of this round's edits that had to exceed the clock, by record.
    beyond: HashMap<RecordKey, Hlc>,
    effects: Effects,
    appended: u64,
    ops: Vec<OpId>,
    fold_tail: bool,
    fold_history: bool,
    /// The parts of the words for search that are to be written.
    #[cfg(feature = "search")]
    search_parts: Vec<Part>,
    read_only: bool,
}

impl<'t> Session<'t> {
    /// Makes the stamp of the next edit of a record. `read` is the latest stamp that its author
    /// read of the record.
    pub(crate) fn stamp(&mut self, key: &RecordKey, read: Hlc) -> Stamped {
        let read = self.beyond.get(key).map_or(read, |known| read.max(*known));
        let stamped = stamp(self.last_stamp, read, self.now, self.server_time);
        let by_the_clock = stamp(self.last_stamp, Hlc::ZERO, self.now, self.server_time).hlc;
        self.last_stamp = by_the_clock;
        // The clock alone may give two edits of one round the same stamp, because the last stamp
        // may be ahead of the corrected clock.
        self.beyond.insert(key.clone(), stamped.hlc);
        stamped
    }

    /// Reserves memory for this many ops of one call.
    pub(crate) fn reserve(&mut self, ops: usize) {
        self.tables.reserve(ops);
        self.effects.reserve(ops);
        self.beyond.reserve(ops);
        self.ops.reserve(ops);
    }

    /// Appends an entry and applies it. Its clock is at least `hlc`. The first entry of an opening
    /// is preceded by what the opening records, and the first of a round by the silences before it.
    pub(crate) fn append(&mut self, draft: impl Into<Checked>, hlc: Hlc) -> Result<Entry, Error> {
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        if self.appender.head().is_some() {
            self.introduce()?;
        }
        self.append_one(draft.into(), hlc)
    }

    /// Appends what the opening records and the silences, unless the log has them. [`Self::append`]
    /// does so before its entry; a new epoch calls it first, so that it is in the former epoch.
    pub(crate) fn introduce(&mut self) -> Result<(), Error> {
        if let Some(opening) = self.opening.take() {
            let declared = self.tables.state()?.declared;
            let known = declared.and_then(|seq| self.appender.read(seq, None).ok().flatten());
            let draft = opening.draft(known.as_ref(), self.now, self.randomness);
            self.append_one(draft.into(), Hlc::ZERO)?;
        }
        let silences = std::mem::take(self.due_silences());
        if !silences.is_empty() {
            self.append_one(Draft::control(Control::Silence(silences)).into(), Hlc::ZERO)?;
        }
        Ok(())
    }

    /// Settles which silences precede the first entry of this round.
    fn due_silences(&mut self) -> &mut Vec<Silence> {
        self.to_tell.get_or_insert_with(|| {
            let mut silences = self.silences.lock().unwrap_or_else(PoisonError::into_inner);
            if silences.is_empty() { Vec::new() } else { silences.record() }
        })
    }

    fn append_one(&mut self, draft: Checked, hlc: Hlc) -> Result<Entry, Error> {
        let head = self.appender.head().map_or(Hlc::ZERO, |head| head.hlc);
        let hlc = if hlc > head { hlc } else { entry_stamp(head, self.now, self.server_time) };
        if let Meta::Intent(intent) = draft.meta() {
            self.ops.extend(intent.ops.iter().map(|op| op.id));
        } else {
            self.fold_tail = true;
        }
        let stamp =
            Stamp { epoch: self.epoch, hlc, wall: self.now.wall, actor: self.actor.clone() };
        self.appended += 1;
        // Intents of an app often follow one another and are staged. Decisions need the written
        // log.
        let entry = match draft.meta() {
            Meta::Intent(_) => self.appender.hold(draft, stamp)?,
            _ => self.appender.append(draft, stamp)?,
        };
        let log = CachedLog::new(Appended(&self.appender));
        apply(&mut self.tables, &log, self.schema, &entry, &mut self.effects)?;
        Ok(entry)
    }

    /// Returns the place of the next entry, after those that precede it.
    pub(crate) fn next_seq(&mut self) -> Seq {
        let mut next = self.appender.head().map_or(Seq::ZERO, |head| head.seq).next();
        if self.opening.is_some() {
            next = next.next();
        }
        if self.due_silences().is_empty() { next } else { next.next() }
    }

    /// Returns the last entry, with those of this session.
    pub(crate) fn head(&self) -> Option<Head> {
        self.appender.head()
    }

    /// Returns the log's table, with the entries of this session.
    ///
    /// # Errors
    /// [`StoreError`] if staged entries cannot be written.
    pub(crate) fn entries(&mut self) -> Result<&redb::Table<'t, u64, &'static [u8]>, StoreError> {
        self.appender.table()
    }

    /// Returns a view of the log, with the entries of this session.
    pub(crate) fn log_view(&self) -> CachedLog<Appended<'_, 't>> {
        CachedLog::new(Appended(&self.appender))
    }

    /// Returns the ops that jobs of this round have ended or planned. The tail does not have these
    /// changes yet.
    pub(crate) fn touched(&self) -> BTreeSet<OpPlace> {
        let mut touched = BTreeSet::new();
        for effect in &self.effects.tail {
            match effect {
                TailEffect::Remove(place) | TailEffect::Dead(place, _) => {
                    touched.insert(*place);
                }
                TailEffect::Unit(_, unit) => {
                    let ops = unit.changes.iter().flat_map(|change| &change.ops);
                    touched.extend(ops.map(|op| op.place));
                }
                TailEffect::Insert(..)
                | TailEffect::Replace(..)
                | TailEffect::Parked(..)
                | TailEffect::UnitGone(_) => {}
            }
        }
        touched
    }

    /// Asks for the next part of the history to be folded in this round.
    pub(crate) fn want_history(&mut self) {
        self.fold_history = true;
    }

    /// Asks for a part of the words for search to be written in this round.
    #[cfg(feature = "search")]
    pub(crate) fn fold_search(&mut self, part: Part) {
        self.search_parts.push(part);
    }

    /// Returns whether there is something to commit.
    fn has_work(&self) -> bool {
        #[cfg(feature = "search")]
        if !self.search_parts.is_empty() {
            return true;
        }
        self.appended > 0 || self.fold_history
    }

    /// Lends the view for the rules, with the randomness.
    pub(crate) fn view(&mut self) -> (SessionView<'_, 't>, &mut (dyn Randomness + 't)) {
        let log = CachedLog::new(Appended(&self.appender));
        let former = self.tables.known_state().is_none_or(|state| state.had_other_server);
        let (tail, judge_all) = (self.tail, self.appended > 0 || former);
        (SessionView { tables: &mut self.tables, log, tail, judge_all }, self.randomness)
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.appender.flush()?;
        let wanted = Wanted { effects: self.projections.follows(), new_keys: self.is_live };
        let flushed = self.tables.flush(self.indexes, wanted)?;
        self.new_keys = flushed.new_keys;
        self.projections.follow(&mut self.tables, &flushed.effects)?;
        let head = self.appender.head().map_or(Seq::ZERO, |head| head.seq);
        if self.fold_history {
            fold_history(&mut self.tables, &CachedLog::new(Appended(&self.appender)), head)?;
        }
        #[cfg(feature = "search")]
        for part in std::mem::take(&mut self.search_parts) {
            fold_part(self.tables.transaction(), part)?;
        }
        let in_memory = self.tail.in_memory().len().saturating_add(self.effects.tail.len());
        if self.fold_tail
            || self.fold_history
            || tail_is_due(&self.tables.state()?, head, in_memory)
        {
            fold_tail(&mut self.tables, self.tail, &self.effects.tail, head)?;
        }
        Ok(())
    }
}

/// The view of a session for the rules.
pub(crate) struct SessionView<'a, 't> {
    tables: &'a mut DiskTables<'t>,
    log: CachedLog<Appended<'a, 't>>,
    tail: &'a Tail,
    judge_all: bool,
}

impl View for SessionView<'_, '_> {
    type Error = StoreError;

    fn record(&mut self, key: &RecordKey) -> Result<Option<RecordRow>, StoreError> {
        self.tables.record(key)
    }

    fn confirmed_version(&mut self, key: &RecordKey) -> Result<Option<Version>, StoreError> {
        Ok(self.tables.look(key)?.and_then(StoredRecord::version))
    }

    fn may_need_rebase(&mut self, key: &RecordKey) -> Result<bool, StoreError> {
        // The row without this round's ops may have no tail, so after an append every row is
        // judged.
        if self.judge_all || self.tail.is_empty() {
            return Ok(self.judge_all);
        }
        Ok(self.tables.look(key)?.is_some_and(|row| row.pending() > 0))
    }

    fn unit(&mut self, unit: &UnitId) -> Result<Option<UnitRow>, StoreError> {
        self.tables.unit(unit)
    }

    fn unit_of(&mut self, op: &OpId) -> Result<Option<UnitId>, StoreError> {
        Ok(self.tail.unit_of_op(op))
    }

    fn op(&mut self, place: OpPlace) -> Result<OpContent, StoreError> {
        self.log.op(place)
    }

    fn fields(&mut self, source: FieldsSource) -> Result<Option<FieldsJson>, StoreError> {
        self.log.fields(source)
    }
}

/// A caller to answer, with its result and the ops that its job appended.
type Answer = (Reply<Result<(), Error>>, Result<(), Error>, Vec<OpId>);

/// The result of a round that wrote.
struct Done {
    head: Option<Head>,
    state: StateRow,
    effects: Effects,
    /// The new keys in the indexes; `None` if they are not known.
    new_keys: Option<Vec<Vec<u8>>>,
    /// Whether the log has what this opening records.
    introduced: bool,
}

impl Shared {
    /// Runs a job in the next round and returns its result.
    pub(crate) fn write_in_turn<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Session<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.write_in_turn_of(&self.group, job)
    }

    /// Runs a job in a round that it has for itself: what was written before it is committed, and
    /// what is written meanwhile comes after it.
    pub(crate) fn write_alone<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Session<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        // The lock of the writer lets one round follow another, of whichever group.
        self.write_in_turn_of(&GroupCommit::new(1), job)
    }

    fn write_in_turn_of<T: Send + 'static>(
        &self,
        group: &GroupCommit<Job, Result<(), Error>>,
        job: impl FnOnce(&mut Session<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.check_alive()?;
        let slot = Arc::new(Mutex::new(None));
        let place = Arc::clone(&slot);
        let job: Job = Box::new(move |session| {
            let made = job(session)?;
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
            Ok(())
        });
        group.submit(job, |jobs| self.round(jobs)).map_err(|_| {
            self.fail();
            Error::Interrupted
        })??;
        slot.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or(Error::Interrupted)
    }

    /// Returns what precedes the next entry: what the opening records, and the silences. A writer
    /// that is not of this book, such as one of a new file, appends them.
    pub(crate) fn introduction(
        &self,
        log: &impl ReadableTable<u64, &'static [u8]>,
    ) -> Result<Vec<Draft>, Error> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = &mut *writer;
        let mut drafts = Vec::new();
        if let Some(opening) = &writer.opening {
            let declared = self.state().declared;
            let known = declared.and_then(|seq| read_entry(log, seq).ok().flatten());
            let randomness = &mut *writer.randomness;
            drafts.push(opening.draft(known.as_ref(), self.clock.now(), randomness));
        }
        let silences = self.silences().record();
        if !silences.is_empty() {
            drafts.push(Draft::control(Control::Silence(silences)));
        }
        Ok(drafts)
    }

    pub(crate) fn silences(&self) -> MutexGuard<'_, Silences> {
        self.silences.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn round(&self, jobs: Vec<(Job, Reply<Result<(), Error>>)>) {
        let _span = tracing::debug_span!("append", jobs = jobs.len()).entered();
        let Ok(mut writer) = self.writer.lock() else {
            jobs.into_iter().for_each(|(_, reply)| reply.send(Err(StoreError::Poisoned.into())));
            return;
        };
        let mut answers = Vec::with_capacity(jobs.len());
        if let Err(failure) = self.work_and_commit(&mut writer, jobs, false, &mut answers) {
            for (_, answer, ops) in &mut answers {
                if answer.is_ok() {
                    *answer = Err(failure.told(std::mem::take(ops)));
                }
            }
        }
        drop(writer);
        answers.into_iter().for_each(|(reply, answer, _)| reply.send(answer));
    }

    /// Folds the next part of the tables that lag behind, for a caller that holds the writer's
    /// lock.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub(crate) fn fold_next_part(&self, writer: &mut WriterState) -> Result<(), Error> {
        self.work_and_commit(writer, Vec::new(), true, &mut Vec::new())
            .map_err(|failure| failure.told(Vec::new()))
    }

    /// Brings the book to rest: commits once more without a change, unless nothing was committed
    /// since the last time. A kill before the next write then needs no repair at the next opening.
    ///
    /// # Errors
    /// [`Error::Unknown`] if the disk fails. The book takes no more writes then.
    pub(crate) fn rest(&self) -> Result<(), Error> {
        let mut writer = self.writer.lock().map_err(|_| StoreError::Poisoned)?;
        // A suspended book is closed, which is more than rest.
        if self.store.is_read_only() || !self.store.is_open() || writer.at_rest {
            return Ok(());
        }
        self.check_alive()?;
        if let Err(error) = self.store.with(Store::rest) {
            let failure = Failed::During(Arc::new(error));
            self.note_failure(&failure);
            return Err(failure.told(Vec::new()));
        }
        writer.at_rest = true;
        Ok(())
    }

    fn work_and_commit(
        &self,
        writer: &mut WriterState,
        jobs: Vec<(Job, Reply<Result<(), Error>>)>,
        fold_history: bool,
        answers: &mut Vec<Answer>,
    ) -> Result<(), Failed> {
        let done = self.work(writer, jobs, fold_history, answers);
        self.silences().written(matches!(done, Ok(Some(_))));
        if !matches!(done, Ok(None)) {
            self.latest.forget();
        }
        match done {
            Ok(Some(done)) => self.follow_commit(writer, done),
            Ok(None) => {}
            Err(failure) => {
                self.note_failure(&failure);
                return Err(failure);
            }
        }
        Ok(())
    }

    /// After a failure of the store the book takes no more writes. If a job met damaged bytes, its
    /// caller receives the error, its writes are undone, and other writes continue.
    fn note_failure(&self, failure: &Failed) {
        if matches!(failure, Failed::Before(Error::Suspended)) {
            return;
        }
        if let Failed::Before(Error::Store(error)) = failure
            && matches!(**error, StoreError::Corrupt { .. })
        {
            tracing::error!(
                during = "round",
                "the book is damaged: the writes of this round were undone"
            );
            return;
        }
        tracing::error!(
            during = "commit",
            "the store failed; no more writes until the book is opened anew"
        );
        self.fail();
    }

    fn work(
        &self,
        writer: &mut WriterState,
        jobs: Vec<(Job, Reply<Result<(), Error>>)>,
        fold_history: bool,
        answers: &mut Vec<Answer>,
    ) -> Result<Option<Done>, Failed> {
        // A round that cannot begin answers all its callers with the error.
        let mut begun = self.check_alive().and_then(|()| Ok(self.store.begin_write()?));
        let transaction = match &mut begun {
            Ok(transaction) => transaction,
            Err(error) => {
                answers.extend(
                    jobs.into_iter().map(|(_, reply)| (reply, Err(error.clone()), Vec::new())),
                );
                return Err(Failed::Before(error.clone()));
            }
        };
        let tail = self.tail();
        let mut session = match self.session(transaction, writer, &tail) {
            Ok(session) => session,
            Err(error) => {
                answers.extend(
                    jobs.into_iter().map(|(_, reply)| (reply, Err(error.clone()), Vec::new())),
                );
                return Err(Failed::Before(error));
            }
        };
        session.fold_history = fold_history;
        let mut torn = None;
        for (job, reply) in jobs {
            if let Some(error) = &torn {
                answers.push((reply, Err(Error::clone(error)), Vec::new()));
                continue;
            }
            let before = session.appended;
            let answer = job(&mut session);
            if let Err(error) = &answer
                && session.appended > before
            {
                torn = Some(error.clone());
            }
            answers.push((reply, answer, std::mem::take(&mut session.ops)));
        }
        if let Some(error) = torn {
            return Err(Failed::Before(error));
        }
        sound(&tail).map_err(|error| Failed::Before(error.into()))?;
        if !session.has_work() {
            return Ok(None);
        }
        let introduced = session.opening.is_none();
        session.finish().map_err(Failed::Before)?;
        let head = session.head();
        let state = session.tables.state().map_err(|error| Failed::Before(error.into()))?;
        let effects = std::mem::take(&mut session.effects);
        let new_keys = session.new_keys.take();
        drop(session);
        drop(tail);
        let Ok(transaction) = begun else { return Ok(None) };
        writer.at_rest = false;
        self.latest.commit_begins();
        self.store.commit(transaction).map_err(|error| Failed::During(Arc::new(error)))?;
        Ok(Some(Done { head, state, effects, new_keys, introduced }))
    }

    fn session<'t>(
        &'t self,
        transaction: &'t redb::WriteTransaction,
        writer: &'t mut WriterState,
        tail: &'t Tail,
    ) -> Result<Session<'t>, Error> {
        let state = self.state().clone();
        let head = writer.head;
        let epoch = head.map_or(Epoch::from_bytes([0; 16]), |head| head.epoch);
        Ok(Session {
            appender: Appender::open(transaction, head)?,
            tables: DiskTables::with_state(transaction, state),
            schema: &self.schema,
            indexes: &self.indexes,
            tail,
            actor: read(&self.actor).clone(),
            now: self.clock.now(),
            epoch,
            randomness: writer.randomness.as_mut(),
            opening: writer.opening.as_deref(),
            silences: &self.silences,
            to_tell: None,
            projections: &mut writer.projections,
            is_live: self.live.has_any(),
            new_keys: None,
            server_time: self.server_time(),
            last_stamp: head.map_or(Hlc::ZERO, |head| head.hlc),
            beyond: HashMap::default(),
            effects: Effects::default(),
            appended: 0,
            ops: Vec::new(),
            fold_tail: false,
            fold_history: false,
            #[cfg(feature = "search")]
            search_parts: Vec::new(),
            read_only: self.store.is_read_only(),
        })
    }

    fn follow_commit(&self, writer: &mut WriterState, done: Done) {
        writer.head = done.head;
        if done.introduced {
            writer.opening = None;
        }
        // The parks come first: no plan may find an op that waits again and not what stops it.
        *write(&self.state) = done.state.clone();
        let head = done.head.map_or(Seq::ZERO, |head| head.seq);
        let all_records = done.effects.all_records;
        let mut keys = match self.snapshot() {
            Ok(snapshot) => self.follow_tail(done.effects, Arc::new(snapshot), &done.state, head),
            Err(_) => {
                // The commit is in the file, but nothing that is read from now on would be right.
                self.failed.store(true, Ordering::SeqCst);
                done.effects.records.into_iter().map(|changed| changed.key).collect()
            }
        };
        let turn = Turn { records: &keys, new_keys: done.new_keys.as_deref() };
        self.live.committed(&turn, all_records);
        self.review(&keys);
        if self.changes.receiver_count() > 0 && !keys.is_empty() {
            keys.sort_unstable();
            keys.dedup();
            // It is no error if nobody receives.
            drop(self.changes.send(keys.into()));
        }
        self.refresh_status();
    }
}

/// Why a round was not committed.
enum Failed {
    /// Nothing was written.
    Before(Error),
    /// It may be committed.
    During(Arc<StoreError>),
}

impl Failed {
    /// Returns the error for a caller whose job appended these ops.
    fn told(&self, ops: Vec<OpId>) -> Error {
        match self {
            Self::Before(error) => error.clone(),
            Self::During(source) => Error::Unknown { ops, source: Arc::clone(source) },
        }
    }
}
