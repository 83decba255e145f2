//! The sync status of the book and of each record. `rules::status` decides; this module reads its
//! input from the book and sends the status to the watchers.
//!
//! Invariants:
//! 1. The last status that a watcher receives is the newest: a status is read and sent under one
//!    lock.
//! 2. The state of the engine is kept in memory. The state of waiting ops is read each time.
//! 3. The units in flight and the time of the last answer are kept in memory, so neither costs a
//!    write. After a start no unit is in flight, and the time is that of the last answer that had
//!    news.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use fieldbook_core::entry::ParkScope;
use fieldbook_core::locks::MutexGuard;
use fieldbook_core::protocol::ExchangeRequest;
use fieldbook_core::rows::{DeadLetterRow, TailRow};
use fieldbook_core::rules::clock::ServerTime;
use fieldbook_core::rules::explain::{ExplainedOp, op};
use fieldbook_core::rules::plan::{Hold, Plan, PlanInput, plan, plan_record, plan_records};
use fieldbook_core::rules::status::{
    Attention, Known, ParkReason, Progress, RecordStatus, SyncState, overall,
};
use fieldbook_core::tail::{Tail, TailUnit};
use fieldbook_core::{
    ConflictId, EntityType, OpContent, OpId, OpPlace, RecordKey, UnitId, WallTime,
};
use fieldbook_projections::{LogView, Rows, Snapshot, sound};
use fieldbook_transport::{Activity, Stopped};
use tokio::sync::watch;

use crate::book::{Book, Shared, read};
use crate::error::Error;

/// The state of the engine, and the number of pending ops.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SyncStatus {
    /// The activity of the engine, or what it waits for.
    pub state: SyncState,
    /// The number of ops that the server does not have, dead letters included. Ops of entity types
    /// that never leave the device are not counted.
    pub pending: u64,
    /// The number of dead letters.
    pub dead_letters: u64,
    /// When the server last answered, by the device's wall clock. Every answer changes it. Only
    /// answers with news are written, so after a start it is the time of the last answer with
    /// news.
    pub synced_at: Option<WallTime>,
}

/// A pending op with its state.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct QueuedOp {
    /// The record of the op.
    pub key: RecordKey,
    /// Its state, and the reason for it.
    pub op: ExplainedOp,
    /// The reason why the plan does not send it, if it does not.
    pub hold: Option<Hold>,
    /// The unanswered unit that it was sent in, if there is one.
    pub unit: Option<UnitId>,
    /// The number of times that the server deferred that unit.
    pub tries: u32,
    /// The size of its fields, in bytes.
    pub bytes: u64,
    /// The number of ops in its transaction.
    pub transaction_ops: u32,
    /// The records that it refers to, by the schema.
    pub references: Vec<RecordKey>,
}

/// The state of the engine, by its last report.
#[derive(Debug, Default)]
pub(crate) struct Engine {
    /// The activity, or what the engine waits for.
    doing: SyncState,
    /// The progress of the present run.
    progress: Progress,
    /// The number of ops that ended in this run, by its report.
    settled: u64,
    /// The number of ops that the last plan of this run held.
    held: u64,
    /// The first record of the last request.
    current: Option<RecordKey>,
    /// Whether anything waited for the book's actor at the last look.
    needed_someone: bool,
}

impl Book {
    /// Returns the state of the engine.
    pub fn status(&self) -> SyncStatus {
        self.shared.status.borrow().clone()
    }

    /// Returns a receiver of every change of the engine's state.
    pub fn watch_status(&self) -> watch::Receiver<SyncStatus> {
        self.shared.status.subscribe()
    }

    /// Returns the status of one record. It is in flight only while this process exchanges it with
    /// the server. [`Self::watch_status`] receives a status when an exchange begins and ends.
    ///
    /// # Errors
    /// [`Error::Store`] if it cannot be read.
    pub fn record_status(&self, key: &RecordKey) -> Result<RecordStatus, Error> {
        let (tail, snapshot) = self.shared.tail_and_snapshot()?;
        let status = self.shared.status_of(&tail, &snapshot, key)?;
        sound(&tail)?;
        Ok(status)
    }
}

/// The pending ops: [`Book::queue`].
///
/// ```
/// # use fieldbook::{Book, BookOptions, Fields};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
/// book.records().create("lead/42".parse()?, Fields::parse(r#"{"name":"Ann"}"#)?)?;
/// for pending in book.queue().list()? {
///     println!("{}: {}", pending.key, pending.op.in_words());
/// }
/// // The op was not sent, so undo leaves no trace at the server.
/// let last = book.queue().list()?.pop().expect("it waits");
/// book.queue().undo(last.op.place)?;
/// assert!(book.queue().list()?.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Queue<'b> {
    pub(crate) book: &'b Book,
}

impl Queue<'_> {
    /// Returns all pending ops, oldest first, each with its state and the reason for it.
    ///
    /// # Errors
    /// [`Error::Store`] if the book cannot be read.
    pub fn list(&self) -> Result<Vec<QueuedOp>, Error> {
        let snapshot = Arc::new(self.book.shared.snapshot()?);
        let tail = snapshot.tail(&self.book.shared.schema)?;
        let dead =
            snapshot.dead_letters()?.into_iter().map(|letter| (letter.op.id, letter)).collect();
        let holds = self.book.shared.plan(&tail, usize::MAX, usize::MAX).holds;
        let known = Known {
            tail: &tail,
            holds: &holds,
            dead: &dead,
            open: &open_conflicts(&*snapshot, &tail, &holds)?,
            sending: &self.book.shared.sending(),
            written_at: &BTreeMap::new(),
        };
        let queued = queued(&known);
        sound(&tail)?;
        Ok(queued)
    }

    /// Returns what the next sync would send without a limit of its batch, and what is held.
    /// Nothing is sent or written. The plan of a suspended book is empty.
    pub fn plan(&self) -> Plan {
        if self.book.is_suspended() {
            return Plan::default();
        }
        let tail = self.book.shared.tail();
        self.book.shared.plan(&tail, usize::MAX, usize::MAX)
    }

    /// Returns the numbers of ops that are parked one by one, by reason.
    pub fn parked(&self) -> BTreeMap<ParkReason, u64> {
        parked_by_reason(&self.book.shared.tail())
    }

    /// Finds an op by its id, after a write whose outcome is unknown. `None` means that the op was
    /// not written, or has ended already and is no longer in the tail.
    ///
    /// # Errors
    /// [`Error::Store`] if the book cannot be read.
    pub fn find(&self, op: OpId) -> Result<Option<OpPlace>, Error> {
        let tail = self.book.shared.tail();
        let place = tail.place_of(&op);
        sound(&tail)?;
        Ok(place)
    }

    /// Returns the content of an op in the log.
    ///
    /// # Errors
    /// [`Error::NotPossible`] if the log has no such op; [`Error::Store`] if it cannot be read.
    pub fn op(&self, place: OpPlace) -> Result<OpContent, Error> {
        self.book.key_of(place)?;
        Ok(self.book.shared.snapshot()?.log()?.op(place)?)
    }
}

/// Returns the ops of a tail, oldest first, each with its state.
pub(crate) fn queued(known: &Known<'_>) -> Vec<QueuedOp> {
    let tail = known.tail;
    let queued = |(place, row): (OpPlace, &TailRow)| {
        let unit = tail.unit_of(place);
        QueuedOp {
            key: row.key.clone(),
            op: op(known, place, row),
            hold: known.holds.get(&place).cloned(),
            unit,
            tries: unit.and_then(|unit| tail.unit(&unit)).map_or(0, |unit| unit.tries),
            bytes: row.bytes,
            transaction_ops: row.transaction_ops,
            references: row.targets().cloned().collect(),
        }
    };
    tail.ops().map(queued).collect()
}

/// Returns the numbers of ops of a tail that are parked one by one, by reason.
pub(crate) fn parked_by_reason(tail: &Tail) -> BTreeMap<ParkReason, u64> {
    let mut parked = BTreeMap::new();
    for (code, ops) in tail.parked_by_code() {
        *parked.entry(ParkReason::of_op(code)).or_default() += ops;
    }
    parked
}

/// Reads the open conflicts of the ops that a plan holds behind a parked op.
pub(crate) fn open_conflicts(
    rows: &impl Rows,
    tail: &Tail,
    holds: &BTreeMap<OpPlace, Hold>,
) -> Result<BTreeMap<OpId, ConflictId>, Error> {
    let parked = holds.values().filter_map(|hold| match hold {
        Hold::Parked { scope: ParkScope::Op(op), .. } => tail.op(tail.place_of(op)?),
        _ => None,
    });
    let keys: BTreeSet<_> = parked.map(|row| &row.key).collect();
    let mut open = BTreeMap::new();
    for key in keys {
        let conflicts = rows.conflicts_of(key)?.into_iter().filter(|(_, row)| row.open);
        open.extend(conflicts.map(|(id, row)| (row.op.id, id)));
    }
    Ok(open)
}

/// Returns the status of a record. The rows and the tail are of one instant. `plan` plans the
/// record alone; it is called if the record has pending ops.
pub(crate) fn status_of(
    rows: &impl Rows,
    tail: &Tail,
    sending: &BTreeSet<UnitId>,
    key: &RecordKey,
    plan: impl FnOnce() -> Plan,
) -> Result<RecordStatus, Error> {
    if !tail.has(key) {
        let known = rows.record(key)?.is_some_and(|row| row.confirmed.is_some());
        return Ok(if known { RecordStatus::Synced } else { RecordStatus::Unknown });
    }
    with_known(rows, tail, sending, [key], &plan().holds, |known| known.record(key, true).status)
}

/// Lends what is known of some records, given the holds of a plan of them alone. The rows and the
/// tail are of one instant.
pub(crate) fn with_known<'k, T>(
    rows: &impl Rows,
    tail: &Tail,
    sending: &BTreeSet<UnitId>,
    keys: impl IntoIterator<Item = &'k RecordKey>,
    holds: &BTreeMap<OpPlace, Hold>,
    use_it: impl FnOnce(&Known<'_>) -> T,
) -> Result<T, Error> {
    let ops = keys.into_iter().flat_map(|key| tail.ops_of(key));
    let dead = ops.filter(|place| tail.is_dead(*place));
    let dead = dead.filter_map(|place| tail.op(place)).map(|row| row.op);
    Ok(use_it(&Known {
        tail,
        holds,
        dead: &dead_letters_of(rows, dead)?,
        open: &open_conflicts(rows, tail, holds)?,
        sending,
        written_at: &BTreeMap::new(),
    }))
}

impl Shared {
    /// Returns the status of a record. The tail and the snapshot are of one instant.
    pub(crate) fn status_of(
        &self,
        tail: &Tail,
        snapshot: &Snapshot,
        key: &RecordKey,
    ) -> Result<RecordStatus, Error> {
        status_of(snapshot, tail, &self.sending(), key, || self.plan_record(tail, key))
    }

    /// Returns the status of each of these records, all of which have pending ops. The tail and the
    /// snapshot are of one instant. One plan is made for all of them.
    pub(crate) fn statuses_of(
        &self,
        tail: &Tail,
        snapshot: &Snapshot,
        keys: &[RecordKey],
    ) -> Result<Vec<RecordStatus>, Error> {
        let holds = self.planning(tail, |input| plan_records(&input, keys)).holds;
        with_known(snapshot, tail, &self.sending(), keys, &holds, |known| {
            keys.iter().map(|key| known.record(key, true).status).collect()
        })
    }

    pub(crate) fn plan(&self, tail: &Tail, batch_ops: usize, batch_bytes: usize) -> Plan {
        self.planning(tail, |input| plan(&PlanInput { batch_ops, batch_bytes, ..input }))
    }

    /// Plans one record alone, without a limit of the batch.
    pub(crate) fn plan_record(&self, tail: &Tail, key: &RecordKey) -> Plan {
        self.planning(tail, |input| plan_record(&input, key))
    }

    /// Lends the input of a plan without a limit of the batch.
    pub(crate) fn planning<T>(&self, tail: &Tail, use_it: impl FnOnce(PlanInput<'_>) -> T) -> T {
        let actor = read(&self.actor).clone();
        let parks = self.state().parks.clone();
        self.inspecting(tail, |inspect| {
            let now = self.clock.now().wall;
            let input = PlanInput::unbounded(tail, &self.schema, &parks, &actor, now, inspect);
            use_it(PlanInput { unmetered: self.connectivity.is_unmetered(), ..input })
        })
    }

    /// Returns the units that are in flight.
    pub(crate) fn sending(&self) -> BTreeSet<UnitId> {
        self.lock_sending().clone()
    }

    /// Records the units of a request that is about to leave. Units of an earlier, unanswered
    /// request are sent with this one, or wait.
    pub(crate) fn sends(&self, request: &ExchangeRequest) {
        *self.lock_sending() = request.units.iter().map(|unit| unit.id).collect();
        let first = request.units.first().and_then(|unit| unit.changes.first());
        self.engine().current = first.map(|change| change.key.clone());
        self.live.statuses_changed();
    }

    /// Records that a request was answered or failed.
    pub(crate) fn has_sent(&self, request: &ExchangeRequest) {
        self.lock_sending().retain(|sent| !request.units.iter().any(|unit| unit.id == *sent));
        self.live.statuses_changed();
    }

    /// Records that no unit is in flight.
    fn send_nothing(&self) {
        let sent = std::mem::take(&mut *self.lock_sending());
        if !sent.is_empty() {
            self.live.statuses_changed();
        }
    }

    fn lock_sending(&self) -> MutexGuard<'_, BTreeSet<UnitId>> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the number of ops that a plan of this run holds.
    pub(crate) fn note_held(&self, plan: &Plan) {
        self.engine().held = plan.resting;
    }

    /// Returns when the server last answered.
    pub(crate) fn answered_at(&self) -> Option<WallTime> {
        self.server_time().as_ref().map(ServerTime::heard_at)
    }

    /// Sends the watchers the present status: pending ops, what waits for a person, and the last
    /// known activity.
    pub(crate) fn refresh_status(&self) {
        self.tell(&mut self.engine());
    }

    /// Returns the number of pending ops, and whether something waits for somebody.
    pub(crate) fn unfinished(&self) -> (u64, bool) {
        let mut engine = self.engine();
        self.tell(&mut engine);
        (self.status.borrow().pending, engine.needed_someone)
    }

    /// Forgets the request of the last run for credentials of the former actor.
    pub(crate) fn forget_reason(&self) {
        let mut engine = self.engine();
        if matches!(engine.doing, SyncState::NeedsAuth { .. }) {
            engine.doing = SyncState::Idle;
        }
        self.tell(&mut engine);
    }

    /// Locks the engine. A status is read and sent under this lock, so an older status never
    /// follows a newer one.
    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, engine: &mut Engine) {
        if !self.store.is_open() {
            // What was known last stays: a part of it is in the file.
            return;
        }
        let actor = read(&self.actor).clone();
        let tail = self.tail();
        let leaves = |entity: &EntityType| self.schema.leaves(entity);
        let (pending, dead_letters) = (tail.pending(leaves), tail.dead_letters());
        let others = tail.others(&actor, leaves);
        let parked_ops = tail.parked_by_code().clone();
        let (state, waiting) = (self.state(), self.waiting());
        let attention = Attention {
            storage_failed: self.failed.load(Ordering::SeqCst),
            parks: &state.parks,
            parked_ops: &parked_ops,
            actor: &actor,
            dead_letters,
            held: waiting.held,
            outgrown: waiting.outgrown,
            others,
        };
        let needs_someone = attention.needs_someone().is_some();
        let is_over = engine.needed_someone && !needs_someone;
        if is_over
            && matches!(engine.doing, SyncState::NeedsAuth { .. } | SyncState::NeedsUpgrade { .. })
        {
            // The park that stopped the last run has ended.
            engine.doing = SyncState::Idle;
        }
        engine.needed_someone = needs_someone;
        let state = overall(&engine.doing, &attention);
        let next = SyncStatus { state, pending, dead_letters, synced_at: self.answered_at() };
        self.status.send_if_modified(|status| {
            let modified = next != *status;
            *status = next;
            modified
        });
    }

    pub(crate) fn show(&self, activity: &Activity) {
        if !matches!(
            activity,
            Activity::Started | Activity::Exchanging { .. } | Activity::Progress(_)
        ) {
            self.send_nothing();
        }
        let mut engine = self.engine();
        let doing = match activity {
            Activity::Started => {
                *engine = Engine { needed_someone: engine.needed_someone, ..Engine::default() };
                SyncState::Syncing { done: 0, total: 0, current: None }
            }
            Activity::Exchanging { .. } => self.syncing(&mut engine),
            Activity::Progress(report) => {
                engine.settled = report.ops_acked.saturating_add(report.ops_dead);
                self.syncing(&mut engine)
            }
            // The reason for the wait is more useful than its end.
            Activity::BackingOff { .. } if engine.doing.is_reason() => {
                return self.tell(&mut engine);
            }
            Activity::BackingOff { until, .. } => SyncState::BackingOff { until: *until },
            Activity::Ended(report) => ended(&report.stopped).unwrap_or_else(|| self.resting()),
            Activity::Waiting { .. } => self.resting(),
            // The run ended without a report: it was cancelled.
            Activity::Stopped if matches!(engine.doing, SyncState::Syncing { .. }) => {
                SyncState::Failed { code: "interrupted".to_owned() }
            }
            _ => return self.tell(&mut engine),
        };
        engine.doing = doing;
        self.tell(&mut engine);
    }

    /// Records that nobody waits for the present run any more, however it ended.
    pub(crate) fn run_is_over(&self) {
        self.send_nothing();
        let mut engine = self.engine();
        if matches!(engine.doing, SyncState::Syncing { .. }) {
            engine.doing = self.resting();
            self.tell(&mut engine);
        }
    }

    /// Returns the progress of the run.
    fn syncing(&self, engine: &mut Engine) -> SyncState {
        let waiting = {
            let tail = self.tail();
            tail.len().saturating_sub(tail.dead_letters())
        };
        engine.progress =
            engine.progress.moved(engine.settled, waiting.saturating_sub(engine.held));
        let Progress { done, total } = engine.progress;
        SyncState::Syncing { done, total, current: engine.current.clone() }
    }

    /// Returns the state after a run that succeeded: idle, unless the server deferred a unit.
    fn resting(&self) -> SyncState {
        let now = self.clock.now().wall;
        let tail = self.tail();
        let isolated = |unit: &TailUnit| unit.isolated().and_then(|known| known.retry_at);
        let until = tail.units().filter_map(|(_, unit)| unit.retry_at.or_else(|| isolated(unit)));
        let put_off = until.filter(|at| *at > now).min();
        put_off.map_or(SyncState::Idle, |until| SyncState::BackingOff { until })
    }
}

/// Returns the state after a run that failed as a whole.
fn ended(stopped: &Stopped) -> Option<SyncState> {
    match stopped {
        Stopped::Failed(failure) => Some(SyncState::after(failure)),
        Stopped::NoProgress => Some(SyncState::Failed { code: "no_progress".to_owned() }),
        Stopped::PageRefused(_) => Some(SyncState::Failed { code: "page_refused".to_owned() }),
        _ => None,
    }
}

/// Reads the dead letters of ops.
pub(crate) fn dead_letters_of(
    rows: &impl Rows,
    ops: impl Iterator<Item = OpId>,
) -> Result<BTreeMap<OpId, DeadLetterRow>, Error> {
    let mut dead = BTreeMap::new();
    for op in ops {
        dead.extend(rows.dead_letter(&op)?.map(|letter| (op, letter)));
    }
    Ok(dead)
}
