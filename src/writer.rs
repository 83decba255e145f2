//! The one writer: jobs gathered into rounds, each round one durable commit.
//!
//! ```text
//!   job: read rows ─► decide ─► append entries ─► apply to tables ┐
//!   job: …                                                        ├─ one transaction ─► commit ─► tail, state, watchers, replies
//!   job: …                                                        ┘
//! ```
//!
//! Invariants:
//! 1. A job decides before it writes. One that fails having written nothing leaves the others of its round alone; one that
//!    fails after having written ends the round: nothing of it is committed.
//! 2. Nobody is answered before the commit, and nothing in memory changes before it.
//! 3. A round that wrote nothing commits nothing.
//! 4. A commit that fails is ambiguous: who wrote in it hears [`Error::Unknown`], and the book takes no more writes.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use fieldbook_core::entry::{Checked, Entry, FieldsSource, Meta};
use fieldbook_core::locks::Mutex;
use fieldbook_core::log::{Appender, Head, Reply, Stamp, StoreError};
use fieldbook_core::rows::{RecordRow, StateRow, UnitRow};
use fieldbook_core::rules::clock::{ServerTime, Stamped, entry_stamp, stamp};
use fieldbook_core::rules::{OpContent, View};
use fieldbook_core::tail::Tail;
use fieldbook_core::{
    Actor, Epoch, FieldsJson, Hlc, Now, OpId, OpPlace, Randomness, RecordKey, Schema, Seq, UnitId, Version,
};
use fieldbook_projections::{
    Appended, CachedLog, DiskTables, Effects, LogView, Projections, Tables, TailEffect, apply, fold_history,
    fold_tail, tail_is_due,
};
use foldhash::HashMap;

use crate::book::{Shared, WriterState, read, write};
use crate::error::Error;

/// What a caller wants done within a round.
pub(crate) type Job = Box<dyn FnOnce(&mut Session<'_>) -> Result<(), Error> + Send>;

/// The book as a job sees it, within one write transaction.
pub(crate) struct Session<'t> {
    pub(crate) tables: DiskTables<'t>,
    pub(crate) schema: &'t Schema,
    pub(crate) tail: &'t Tail,
    pub(crate) actor: Actor,
    pub(crate) now: Now,
    pub(crate) epoch: Epoch,
    pub(crate) randomness: &'t mut dyn Randomness,
    projections: &'t mut Projections,
    appender: Appender<'t>,
    server_time: Option<ServerTime>,
    last_stamp: Hlc,
    /// The stamps of this round's edits by record, of those that had to go beyond the clock.
    beyond: HashMap<RecordKey, Hlc>,
    effects: Effects,
    appended: u64,
    ops: Vec<OpId>,
    fold_tail: bool,
    fold_history: bool,
    look_only: bool,
}

impl<'t> Session<'t> {
    /// Draws the stamp of the next edit of a record. `read` is the latest stamp that its author read of it.
    pub(crate) fn stamp(&mut self, key: &RecordKey, read: Hlc) -> Stamped {
        let read = self.beyond.get(key).map_or(read, |known| read.max(*known));
        let stamped = stamp(self.last_stamp, read, self.now, self.server_time);
        let by_the_clock = stamp(self.last_stamp, Hlc::ZERO, self.now, self.server_time).hlc;
        self.last_stamp = by_the_clock;
        // The clock alone need not tell the edits of one round apart: the last stamp may be ahead of what is believed now.
        self.beyond.insert(key.clone(), stamped.hlc);
        stamped
    }

    /// Makes room for so many ops of the app, which come in one call.
    pub(crate) fn reserve(&mut self, ops: usize) {
        self.tables.reserve(ops);
        self.effects.reserve(ops);
        self.beyond.reserve(ops);
        self.ops.reserve(ops);
    }

    /// Appends an entry and applies it. Its clock is at least `hlc`.
    pub(crate) fn append(&mut self, draft: impl Into<Checked>, hlc: Hlc) -> Result<Entry, Error> {
        let draft = draft.into();
        if self.look_only {
            return Err(Error::LookOnly);
        }
        let head = self.appender.head().map_or(Hlc::ZERO, |head| head.hlc);
        let hlc = if hlc > head { hlc } else { entry_stamp(head, self.now, self.server_time) };
        if let Meta::Intent(intent) = draft.meta() {
            self.ops.extend(intent.ops.iter().map(|op| op.id));
        } else {
            self.fold_tail = true;
        }
        let stamp = Stamp { epoch: self.epoch, hlc, wall: self.now.wall, actor: self.actor.clone() };
        self.appended += 1;
        // Many appends of an app come one after the other; what is decided is decided on a written log.
        let entry = match draft.meta() {
            Meta::Intent(_) => self.appender.hold(draft, stamp)?,
            _ => self.appender.append(draft, stamp)?,
        };
        let log = CachedLog::new(Appended(&self.appender));
        apply(&mut self.tables, &log, self.schema, &entry, &mut self.effects)?;
        Ok(entry)
    }

    /// Returns the place that the next entry will have.
    pub(crate) fn next_seq(&self) -> Seq {
        self.appender.head().map_or(Seq::ZERO, |head| head.seq).next()
    }

    /// Returns the last entry, this session's own included.
    pub(crate) fn head(&self) -> Option<Head> {
        self.appender.head()
    }

    /// Returns the log's table with what this session appended.
    ///
    /// # Errors
    /// [`StoreError`] if what is held cannot be written.
    pub(crate) fn entries(&mut self) -> Result<&redb::Table<'t, u64, &'static [u8]>, StoreError> {
        self.appender.table()
    }

    /// Reads the log with what this session appended.
    pub(crate) fn log_view(&self) -> CachedLog<Appended<'_, 't>> {
        CachedLog::new(Appended(&self.appender))
    }

    /// Returns the ops that jobs of this round have ended or planned; the tail does not know of it yet.
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

    /// Has the next part of the history folded in this round.
    pub(crate) fn want_history(&mut self) {
        self.fold_history = true;
    }

    /// Lends what the rules may read, together with randomness.
    pub(crate) fn view(&mut self) -> (SessionView<'_, 't>, &mut (dyn Randomness + 't)) {
        let log = CachedLog::new(Appended(&self.appender));
        let former = self.tables.known_state().is_none_or(|state| state.had_other_server);
        let (tail, judge_all) = (self.tail, self.appended > 0 || former);
        (SessionView { tables: &mut self.tables, log, tail, judge_all }, self.randomness)
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.appender.flush()?;
        let changed = self.tables.flush(self.schema, self.projections.follows())?;
        self.projections.follow(&mut self.tables, &changed)?;
        let head = self.appender.head().map_or(Seq::ZERO, |head| head.seq);
        if self.fold_history {
            fold_history(&mut self.tables, &CachedLog::new(Appended(&self.appender)), head)?;
        }
        if self.fold_tail || self.fold_history || tail_is_due(&self.tables.state()?, head) {
            fold_tail(&mut self.tables, self.tail, &self.effects.tail, head)?;
        }
        Ok(())
    }
}

/// What the rules read of a session.
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
        Ok(self.tables.look(key)?.and_then(RecordRow::version))
    }

    fn may_need_rebase(&mut self, key: &RecordKey) -> Result<bool, StoreError> {
        // A tail that began in this very round is found by reading the row.
        Ok(self.judge_all || self.tail.has(key))
    }

    fn unit(&mut self, unit: &UnitId) -> Result<Option<UnitRow>, StoreError> {
        self.tables.unit(unit)
    }

    fn unit_of(&mut self, op: &OpId) -> Result<Option<UnitId>, StoreError> {
        Ok(self.tail.place_of(op).and_then(|place| self.tail.unit_of(place)))
    }

    fn op(&mut self, place: OpPlace) -> Result<OpContent, StoreError> {
        self.log.op(place)
    }

    fn fields(&mut self, source: FieldsSource) -> Result<Option<FieldsJson>, StoreError> {
        self.log.fields(source)
    }
}

/// Whom to answer, what, and the ops that the job appended.
type Answer = (Reply<Result<(), Error>>, Result<(), Error>, Vec<OpId>);

/// What a round did, if it wrote anything.
struct Done {
    head: Option<Head>,
    state: StateRow,
    effects: Effects,
}

impl Shared {
    /// Has a job done in the next round and returns what it made.
    pub(crate) fn write_in_turn<T: Send + 'static>(
        &self,
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
        self.group.submit(job, |jobs| self.round(jobs)).map_err(|_| {
            self.fail();
            Error::Interrupted
        })??;
        slot.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or(Error::Interrupted)
    }

    fn round(&self, jobs: Vec<(Job, Reply<Result<(), Error>>)>) {
        let _span = tracing::debug_span!("append", jobs = jobs.len()).entered();
        let Ok(mut writer) = self.writer.lock() else {
            jobs.into_iter().for_each(|(_, reply)| reply.send(Err(StoreError::Poisoned.into())));
            return;
        };
        let mut answers = Vec::with_capacity(jobs.len());
        let done = self.work(&mut writer, jobs, &mut answers);
        if !matches!(done, Ok(None)) {
            self.latest.forget();
        }
        match done {
            Ok(Some(done)) => self.follow_commit(&mut writer, done),
            Ok(None) => {}
            Err(failure) => {
                self.note_failure(&failure);
                for (_, answer, ops) in &mut answers {
                    if answer.is_ok() {
                        *answer = Err(match &failure {
                            Failed::Before(error) => error.clone(),
                            Failed::During(source) => {
                                Error::Unknown { ops: std::mem::take(ops), source: Arc::clone(source) }
                            }
                        });
                    }
                }
            }
        }
        drop(writer);
        answers.into_iter().for_each(|(reply, answer, _)| reply.send(answer));
    }

    /// A failed store takes no more writes. A job that met damaged bytes says so to whoever asked for it; what it wrote is taken
    /// back, and who writes elsewhere goes on.
    fn note_failure(&self, failure: &Failed) {
        if let Failed::Before(Error::Store(error)) = failure
            && matches!(**error, StoreError::Corrupt { .. })
        {
            tracing::error!(during = "round", "the book is damaged: what was to be written was taken back");
            return;
        }
        tracing::error!(during = "commit", "the store failed; no more writes until the book is opened anew");
        self.fail();
    }

    fn work(
        &self,
        writer: &mut WriterState,
        jobs: Vec<(Job, Reply<Result<(), Error>>)>,
        answers: &mut Vec<Answer>,
    ) -> Result<Option<Done>, Failed> {
        // Whatever keeps the round from beginning is everyone's answer.
        let mut begun = self.check_alive().and_then(|()| Ok(self.store.begin_write()?));
        let transaction = match &mut begun {
            Ok(transaction) => transaction,
            Err(error) => {
                answers.extend(jobs.into_iter().map(|(_, reply)| (reply, Err(error.clone()), Vec::new())));
                return Err(Failed::Before(error.clone()));
            }
        };
        let tail = self.tail();
        let mut session = match self.session(transaction, writer, &tail) {
            Ok(session) => session,
            Err(error) => {
                answers.extend(jobs.into_iter().map(|(_, reply)| (reply, Err(error.clone()), Vec::new())));
                return Err(Failed::Before(error));
            }
        };
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
        if session.appended == 0 && !session.fold_history {
            return Ok(None);
        }
        session.finish().map_err(Failed::Before)?;
        let head = session.head();
        let state = session.tables.state().map_err(|error| Failed::Before(error.into()))?;
        let effects = std::mem::take(&mut session.effects);
        drop(session);
        drop(tail);
        let Ok(transaction) = begun else { return Ok(None) };
        self.latest.commit_begins();
        self.store.commit(transaction).map_err(|error| Failed::During(Arc::new(error)))?;
        Ok(Some(Done { head, state, effects }))
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
            tail,
            actor: read(&self.actor).clone(),
            now: self.clock.now(),
            epoch,
            randomness: writer.randomness.as_mut(),
            projections: &mut writer.projections,
            server_time: self.server_time(),
            last_stamp: head.map_or(Hlc::ZERO, |head| head.hlc),
            beyond: HashMap::default(),
            effects: Effects::default(),
            appended: 0,
            ops: Vec::new(),
            fold_tail: false,
            fold_history: false,
            look_only: self.store.is_look_only(),
        })
    }

    fn follow_commit(&self, writer: &mut WriterState, done: Done) {
        writer.head = done.head;
        *write(&self.state) = done.state;
        let mut keys = self.follow_tail(done.effects, done.head.map_or(Seq::ZERO, |head| head.seq));
        self.review(&keys);
        if self.changes.receiver_count() > 0 && !keys.is_empty() {
            keys.sort_unstable();
            keys.dedup();
            // Nobody listening any more is no error.
            drop(self.changes.send(keys.into()));
        }
        self.refresh_status();
    }
}

/// Why a round was not committed, as far as that is known.
enum Failed {
    /// Nothing was written.
    Before(Error),
    /// It may have been.
    During(Arc<StoreError>),
}
