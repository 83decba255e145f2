//! Where the book as a whole, and each record, stands between this device and the server: the front door's side of
//! `rules::status`, which reads what the rule is told and tells the watchers.
//!
//! Invariants:
//! 1. What the watchers hear last is the newest: a status is read and told under one lock.
//! 2. What the engine does is remembered here and told as it is. What waits for somebody is looked up each time.
//! 3. Which units are being sent, and when the server last answered, is kept in memory: neither costs a write. After a start
//!    nothing is being sent, and the last answer is the last one that brought something new.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use fieldbook_core::entry::ParkScope;
use fieldbook_core::locks::MutexGuard;
use fieldbook_core::protocol::ExchangeRequest;
use fieldbook_core::rows::{DeadLetterRow, TailRow};
use fieldbook_core::rules::clock::ServerTime;
use fieldbook_core::rules::explain::{ExplainedOp, op};
use fieldbook_core::rules::plan::{Hold, Plan, PlanInput, plan, plan_record};
use fieldbook_core::rules::status::{
    Attention, Known, ParkReason, Progress, RecordStatus, SyncState, overall,
};
use fieldbook_core::tail::{Tail, TailUnit};
use fieldbook_core::{ConflictId, EntityType, OpContent, OpId, OpPlace, RecordKey, UnitId, WallTime};
use fieldbook_projections::{LogView, Snapshot};
use fieldbook_transport::{Activity, Stopped};
use tokio::sync::watch;

use crate::book::{Book, Shared, read};
use crate::error::Error;

/// The state of the engine and what is owed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SyncStatus {
    /// What it is doing or waiting for.
    pub state: SyncState,
    /// Ops without a terminal outcome, dead letters included.
    pub pending: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// When the server last answered, by the device's wall clock. It moves with every answer. Only answers that bring something
    /// new are written, so that after a start it is the time of the last one of those.
    pub synced_at: Option<WallTime>,
}

/// An op that is owed to the server, and where it stands.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct QueuedOp {
    /// Its record.
    pub key: RecordKey,
    /// Where it stands, and why.
    pub op: ExplainedOp,
    /// Why the plan does not send it, if it does not.
    pub hold: Option<Hold>,
    /// The unit that it was sent in, if that has no answer yet.
    pub unit: Option<UnitId>,
    /// How often the server put that unit off.
    pub tries: u32,
    /// How many bytes its fields take.
    pub bytes: u64,
    /// How many ops its transaction has.
    pub transaction_ops: u32,
    /// The records that it refers to, as the schema declares.
    pub references: Vec<RecordKey>,
}

/// What the engine does, as it was last heard.
#[derive(Debug, Default)]
pub(crate) struct Engine {
    /// What it does or waits for.
    doing: SyncState,
    /// How far the present run has come.
    progress: Progress,
    /// How many ops of this run have an end, by its report.
    settled: u64,
    /// How many ops the last plan of this run held.
    held: u64,
    /// The first record of the last request.
    current: Option<RecordKey>,
    /// Whether something waited for the actor who uses the book when that was last looked up.
    needed_someone: bool,
}

impl Book {
    /// Returns the state of the engine.
    pub fn status(&self) -> SyncStatus {
        self.shared.status.borrow().clone()
    }

    /// Returns a receiver that hears of every change of the engine's state.
    pub fn watch_status(&self) -> watch::Receiver<SyncStatus> {
        self.shared.status.subscribe()
    }

    /// Returns where one record stands. It is in flight only while this process exchanges it with the server;
    /// [`Self::watch_status`] hears when an exchange begins and ends.
    ///
    /// # Errors
    /// [`Error::Store`] if it does not read.
    pub fn record_status(&self, key: &RecordKey) -> Result<RecordStatus, Error> {
        let (tail, snapshot) = self.shared.tail_and_snapshot()?;
        if !tail.has(key) {
            let known = snapshot.record(key)?.is_some_and(|row| row.confirmed.is_some());
            return Ok(if known { RecordStatus::Synced } else { RecordStatus::Unknown });
        }
        let dead = tail.ops_of(key).filter(|place| tail.is_dead(*place)).filter_map(|place| tail.op(place));
        let dead = dead_letters_of(&snapshot, dead.map(|row| row.op))?;
        let holds = self.shared.plan_record(&tail, key).holds;
        let known = Known {
            tail: &tail,
            holds: &holds,
            dead: &dead,
            open: &open_conflicts(&snapshot, &tail, &holds)?,
            sending: &self.shared.sending(),
            written_at: &BTreeMap::new(),
        };
        Ok(known.record(key, true).status)
    }
}

/// What is owed to the server: [`Book::queue`].
///
/// ```
/// # use fieldbook::{Book, BookOptions, Fields};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
/// book.create("lead/42".parse()?, Fields::parse(r#"{"name":"Ann"}"#)?)?;
/// for owed in book.queue().list()? {
///     println!("{}: {}", owed.key, owed.op.in_words());
/// }
/// // It has not left, so undoing it takes it back without a trace at the server.
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
    /// Returns all that is owed to the server, oldest first, each op with where it stands and why.
    ///
    /// # Errors
    /// [`Error::Store`] if something does not read.
    pub fn list(&self) -> Result<Vec<QueuedOp>, Error> {
        let snapshot = self.book.shared.snapshot()?;
        let tail = snapshot.tail(&self.book.shared.schema)?;
        let dead = snapshot.dead_letters()?.into_iter().map(|letter| (letter.op.id, letter)).collect();
        let holds = self.book.shared.plan(&tail, usize::MAX, usize::MAX).holds;
        let known = Known {
            tail: &tail,
            holds: &holds,
            dead: &dead,
            open: &open_conflicts(&snapshot, &tail, &holds)?,
            sending: &self.book.shared.sending(),
            written_at: &BTreeMap::new(),
        };
        let queued = |(place, row): (OpPlace, &TailRow)| {
            let unit = tail.unit_of(place);
            QueuedOp {
                key: row.key.clone(),
                op: op(&known, place, row),
                hold: holds.get(&place).cloned(),
                unit,
                tries: unit.and_then(|unit| tail.unit(&unit)).map_or(0, |unit| unit.tries),
                bytes: row.bytes,
                transaction_ops: row.transaction_ops,
                references: row.targets().cloned().collect(),
            }
        };
        Ok(tail.ops().map(queued).collect())
    }

    /// Returns what would be sent now if the batch had no bounds, and what is held, without sending or writing anything.
    pub fn plan(&self) -> Plan {
        let tail = self.book.shared.tail();
        self.book.shared.plan(&tail, usize::MAX, usize::MAX)
    }

    /// Returns how many ops are parked by themselves, by the reason.
    pub fn parked(&self) -> BTreeMap<ParkReason, u64> {
        let mut parked = BTreeMap::new();
        for (code, ops) in self.book.shared.tail().parked_by_code() {
            *parked.entry(ParkReason::of_op(code)).or_default() += ops;
        }
        parked
    }

    /// Looks an op up by its id, for a write whose outcome is unknown: `None` means that it was not written, or ended
    /// already and stands further back in the log than the unacknowledged tail.
    pub fn find(&self, op: OpId) -> Option<OpPlace> {
        self.book.shared.tail().place_of(&op)
    }

    /// Returns what an op of the log does.
    ///
    /// # Errors
    /// [`Error::NotPossible`] if the log has no such op; [`Error::Store`] if it does not read.
    pub fn op(&self, place: OpPlace) -> Result<OpContent, Error> {
        self.book.key_of(place)?;
        Ok(self.book.shared.snapshot()?.log()?.op(place)?)
    }
}

/// Reads the open conflicts of the ops that a plan holds since one is parked by itself.
pub(crate) fn open_conflicts(
    snapshot: &Snapshot,
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
        let conflicts = snapshot.conflicts_of(key)?.into_iter().filter(|(_, row)| row.open);
        open.extend(conflicts.map(|(id, row)| (row.op.id, id)));
    }
    Ok(open)
}

impl Shared {
    pub(crate) fn plan(&self, tail: &Tail, batch_ops: usize, batch_bytes: usize) -> Plan {
        self.planning(tail, |input| plan(&PlanInput { batch_ops, batch_bytes, ..input }))
    }

    /// Plans one record alone, as if the batch had no bounds.
    pub(crate) fn plan_record(&self, tail: &Tail, key: &RecordKey) -> Plan {
        self.planning(tail, |input| plan_record(&input, key))
    }

    /// Lends what planning looks at, without bounds of the batch.
    pub(crate) fn planning<T>(&self, tail: &Tail, use_it: impl FnOnce(PlanInput<'_>) -> T) -> T {
        let actor = read(&self.actor).clone();
        let parks = self.state().parks.clone();
        self.inspecting(tail, |inspect| {
            let now = self.clock.now().wall;
            let input = PlanInput::unbounded(tail, &self.schema, &parks, &actor, now, inspect);
            use_it(PlanInput { unmetered: self.connectivity.is_unmetered(), ..input })
        })
    }

    /// Returns the units that an exchange carries now.
    pub(crate) fn sending(&self) -> BTreeSet<UnitId> {
        self.lock_sending().clone()
    }

    /// Takes note of what a request carries that is about to leave. What an earlier one carried and nobody answered goes with
    /// this one, or waits.
    pub(crate) fn sends(&self, request: &ExchangeRequest) {
        *self.lock_sending() = request.units.iter().map(|unit| unit.id).collect();
        let first = request.units.first().and_then(|unit| unit.changes.first());
        self.engine().current = first.map(|change| change.key.clone());
    }

    /// Takes note that a request was answered or has failed.
    pub(crate) fn has_sent(&self, request: &ExchangeRequest) {
        self.lock_sending().retain(|sent| !request.units.iter().any(|unit| unit.id == *sent));
    }

    fn lock_sending(&self) -> MutexGuard<'_, BTreeSet<UnitId>> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of how many ops a plan of this run holds.
    pub(crate) fn note_held(&self, plan: &Plan) {
        self.engine().held = plan.resting;
    }

    /// Returns when the server last answered.
    pub(crate) fn answered_at(&self) -> Option<WallTime> {
        self.server_time().as_ref().map(ServerTime::heard_at)
    }

    /// Tells the watchers what is owed and what waits for somebody, and what the engine was last heard to do.
    pub(crate) fn refresh_status(&self) {
        self.tell(&mut self.engine());
    }

    /// Forgets that the last run wanted something of who used the book until now.
    pub(crate) fn forget_reason(&self) {
        let mut engine = self.engine();
        if matches!(engine.doing, SyncState::NeedsAuth { .. }) {
            engine.doing = SyncState::Idle;
        }
        self.tell(&mut engine);
    }

    /// Waits for the turn to tell the watchers. What is told is read under this lock, so that an older status never follows a
    /// newer one.
    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, engine: &mut Engine) {
        let actor = read(&self.actor).clone();
        let tail = self.tail();
        let (pending, dead_letters) = (tail.len() as u64, tail.dead_letters() as u64);
        let leaves = |entity: &EntityType| self.schema.rules(entity).is_none_or(|rules| !rules.local_only);
        let others = tail.others(&actor, leaves);
        let parked_ops = tail.parked_by_code().clone();
        drop(tail);
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
        if is_over && matches!(engine.doing, SyncState::NeedsAuth { .. } | SyncState::NeedsUpgrade { .. }) {
            // What the last run wanted was parked, and goes on.
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
        if !matches!(activity, Activity::Started | Activity::Exchanging { .. } | Activity::Progress(_)) {
            self.lock_sending().clear();
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
            // Why it waits says more than until when.
            Activity::BackingOff { .. } if engine.doing.is_reason() => return self.tell(&mut engine),
            Activity::BackingOff { until, .. } => SyncState::BackingOff { until: *until },
            Activity::Ended(report) => ended(&report.stopped).unwrap_or_else(|| self.resting()),
            Activity::Waiting { .. } => self.resting(),
            // A run that was not heard to end broke off.
            Activity::Stopped if matches!(engine.doing, SyncState::Syncing { .. }) => {
                SyncState::Failed { code: "interrupted".to_owned() }
            }
            _ => return self.tell(&mut engine),
        };
        engine.doing = doing;
        self.tell(&mut engine);
    }

    /// Takes note that nobody waits any more for the run that is going on, however it ended.
    pub(crate) fn run_is_over(&self) {
        self.lock_sending().clear();
        let mut engine = self.engine();
        if matches!(engine.doing, SyncState::Syncing { .. }) {
            engine.doing = self.resting();
            self.tell(&mut engine);
        }
    }

    /// Returns how far the run is.
    fn syncing(&self, engine: &mut Engine) -> SyncState {
        let waiting = {
            let tail = self.tail();
            (tail.len() as u64).saturating_sub(tail.dead_letters() as u64)
        };
        engine.progress = engine.progress.moved(engine.settled, waiting.saturating_sub(engine.held));
        let Progress { done, total } = engine.progress;
        SyncState::Syncing { done, total, current: engine.current.clone() }
    }

    /// Returns the state between two runs of which the last one went well: idle, unless the server put something off.
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
    snapshot: &Snapshot,
    ops: impl Iterator<Item = OpId>,
) -> Result<BTreeMap<OpId, DeadLetterRow>, Error> {
    let mut dead = BTreeMap::new();
    for op in ops {
        dead.extend(snapshot.dead_letter(&op)?.map(|letter| (op, letter)));
    }
    Ok(dead)
}
