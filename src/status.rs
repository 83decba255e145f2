//! Where the book as a whole, and each record, stands between this device and the server.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use fieldbook_core::entry::ParkScope;
use fieldbook_core::locks::MutexGuard;
use fieldbook_core::rules::plan::{Hold, Plan, PlanInput, plan, plan_record};
use fieldbook_core::tail::{Tail, TailUnit};
use fieldbook_core::{EntityType, OpId, RecordKey, WallTime};
use fieldbook_transport::{Activity, Stopped};
use tokio::sync::watch;

use crate::book::{Book, Shared, read};
use crate::error::Error;
use crate::record::RecordStatus;

/// What the engine is doing or waiting for. Never [`SyncState::Idle`] while anything needs attention.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SyncState {
    /// Nothing is being done, and nothing needs anyone.
    #[default]
    Idle,
    /// An exchange is under way.
    Syncing {
        /// Ops that reached the server in this run.
        done: u64,
        /// Ops that are still owed to it.
        left: u64,
    },
    /// The last exchange failed; the next is tried then.
    BackingOff {
        /// When, by the device's wall clock.
        until: WallTime,
    },
    /// The server cannot be reached.
    Offline {
        /// What stood in the way.
        code: String,
    },
    /// New credentials are needed.
    NeedsAuth {
        /// The server's code.
        code: String,
    },
    /// A person has to decide about these.
    NeedsAttention {
        /// Dead letters.
        dead_letters: u64,
        /// Ops parked by a conflict.
        conflicts: u64,
        /// Records with a change that would be refused, until someone corrects it.
        held: u64,
    },
    /// The app, or the server, has to be upgraded.
    NeedsUpgrade {
        /// The server's code.
        code: String,
    },
    /// The server is another one, or another life of it, than before. See [`Book::accept_server`].
    NeedsServerConfirmed,
    /// The last exchange ended early for this reason.
    Failed {
        /// The reason.
        code: String,
    },
    /// The disk failed: close the book and open it again.
    StorageFailed,
}

/// The state of the engine and what is owed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SyncStatus {
    /// What it is doing or waiting for.
    pub state: SyncState,
    /// Ops without a terminal outcome, dead letters included.
    pub pending: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// When the server last answered, by the device's wall clock.
    pub synced_at: Option<WallTime>,
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

    /// Returns where one record stands.
    ///
    /// # Errors
    /// [`Error::Store`] if it does not read.
    pub fn record_status(&self, key: &RecordKey) -> Result<RecordStatus, Error> {
        let tail = self.shared.tail();
        if !tail.has(key) {
            return Ok(RecordStatus::Synced);
        }
        let snapshot = self.snapshot()?;
        if let Some(dead) =
            tail.ops_of(key).find(|place| tail.is_dead(*place)).and_then(|place| tail.op(place))
        {
            let row = snapshot.dead_letter(&dead.op)?;
            let (code, message) = row.map(|row| (row.code, row.message)).unwrap_or_default();
            return Ok(RecordStatus::DeadLettered { code, message });
        }
        let parked: Vec<OpId> = parked_ops(&self.shared.state().parks);
        if tail.ops_of(key).filter_map(|place| tail.op(place)).any(|row| parked.contains(&row.op)) {
            let conflicts = snapshot.conflicts()?;
            if let Some((id, _)) = conflicts.into_iter().rev().find(|(_, row)| row.open && row.key == *key) {
                return Ok(RecordStatus::InConflict(id));
            }
        }
        let plan = self.shared.plan_record(&tail, key);
        let hold = tail.ops_of(key).find_map(|place| match plan.holds.get(&place) {
            Some(Hold::Behind(_) | Hold::After(_)) | None => None,
            hold => hold.cloned(),
        });
        let under_way = tail.ops_of(key).any(|place| tail.unit_of(place).is_some());
        Ok(match hold {
            Some(hold) => RecordStatus::Held(hold),
            None if under_way => RecordStatus::InFlight,
            None => RecordStatus::Pending,
        })
    }

    /// Returns what would be sent now if the batch had no bounds, and what is held, without sending or writing anything.
    pub fn plan(&self) -> Plan {
        let tail = self.shared.tail();
        self.shared.plan(&tail, usize::MAX, usize::MAX)
    }

    /// Returns when a page last moved each entity type on, by the device's wall clock.
    ///
    /// # Errors
    /// [`Error::Store`] if a row does not read.
    pub fn synced_at(&self) -> Result<Vec<(EntityType, WallTime)>, Error> {
        let cursors = self.snapshot()?.cursors()?;
        Ok(cursors.into_iter().map(|(entity, row)| (entity, row.synced_at)).collect())
    }
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
    fn planning<T>(&self, tail: &Tail, use_it: impl FnOnce(PlanInput<'_>) -> T) -> T {
        let actor = read(&self.actor).clone();
        let parks = self.state().parks.clone();
        self.inspecting(tail, |inspect| {
            let now = self.clock.now().wall;
            let input = PlanInput::unbounded(tail, &self.schema, &parks, &actor, now, inspect);
            use_it(PlanInput { unmetered: self.connectivity.is_unmetered(), ..input })
        })
    }

    /// Tells the watchers what is owed, keeping what the engine is doing unless something needs attention.
    pub(crate) fn refresh_status(&self) {
        let turn = self.telling();
        self.tell(&turn, None);
    }

    /// Waits for one's turn to tell the watchers. What is told is read within it, or it could be told after what is newer.
    fn telling(&self) -> MutexGuard<'_, ()> {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, _turn: &MutexGuard<'_, ()>, doing: Option<SyncState>) {
        let tail = self.tail();
        let (pending, dead_letters) = (tail.len() as u64, tail.dead_letters() as u64);
        drop(tail);
        let state = self.state();
        let (synced_at, attention) = (state.synced_at, self.attention(&state.parks, dead_letters));
        drop(state);
        self.status.send_if_modified(|status| {
            let state = match (doing, attention) {
                // While it works, it works; what needs attention shows when it is done.
                (Some(doing @ SyncState::Syncing { .. }), _) => doing,
                (_, Some(attention)) => attention,
                (Some(doing), None) => doing,
                (None, None) if needs_someone(&status.state) => SyncState::Idle,
                (None, None) => status.state.clone(),
            };
            let next = SyncStatus { state, pending, dead_letters, synced_at };
            let modified = next != *status;
            *status = next;
            modified
        });
    }

    fn attention(&self, parks: &[(ParkScope, String)], dead_letters: u64) -> Option<SyncState> {
        if self.failed.load(Ordering::SeqCst) {
            return Some(SyncState::StorageFailed);
        }
        let actor = read(&self.actor).clone();
        let find = |wanted: &dyn Fn(&ParkScope) -> bool| {
            parks.iter().find(|(scope, _)| wanted(scope)).map(|(_, code)| code.clone())
        };
        if find(&|scope| matches!(scope, ParkScope::Server(..))).is_some() {
            return Some(SyncState::NeedsServerConfirmed);
        }
        let wants_others = |scope: &ParkScope| {
            matches!(scope, ParkScope::Tenant(_)) || *scope == ParkScope::Actor(actor.clone())
        };
        if let Some(code) = find(&wants_others) {
            return Some(SyncState::NeedsAuth { code });
        }
        if let Some(code) = find(&|scope| matches!(scope, ParkScope::Protocol | ParkScope::Entity(_))) {
            return Some(SyncState::NeedsUpgrade { code });
        }
        let waiting = self.waiting();
        if waiting.outgrown > 0 {
            return Some(SyncState::NeedsUpgrade { code: "schema_version".to_owned() });
        }
        let (conflicts, held) = (parked_ops(parks).len() as u64, waiting.held);
        let someone = dead_letters > 0 || conflicts > 0 || held > 0;
        someone.then_some(SyncState::NeedsAttention { dead_letters, conflicts, held })
    }

    pub(crate) fn show(&self, activity: &Activity) {
        let turn = self.telling();
        let left = self.tail().len() as u64;
        let present = self.status.borrow().state.clone();
        let doing = match activity {
            Activity::Started | Activity::Exchanging { .. } => SyncState::Syncing { done: 0, left },
            Activity::Progress(report) => SyncState::Syncing { done: report.ops_acked, left },
            // Why it waits says more than until when.
            Activity::BackingOff { .. } if is_reason(&present) => present,
            Activity::BackingOff { until, .. } => SyncState::BackingOff { until: *until },
            Activity::Ended(report) => ended(&report.stopped).unwrap_or_else(|| self.resting()),
            Activity::Waiting { .. } => self.resting(),
            // A run that was not heard to end broke off.
            Activity::Stopped if matches!(present, SyncState::Syncing { .. }) => {
                SyncState::Failed { code: "interrupted".to_owned() }
            }
            _ => present,
        };
        self.tell(&turn, Some(doing));
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
    use fieldbook_core::protocol::Failure;
    let failure = match stopped {
        Stopped::Failed(failure) => failure,
        Stopped::NoProgress => return Some(SyncState::Failed { code: "no_progress".to_owned() }),
        Stopped::PageRefused(_) => return Some(SyncState::Failed { code: "page_refused".to_owned() }),
        _ => return None,
    };
    Some(match failure {
        Failure::Unreachable { code } | Failure::Unknown { code } => {
            SyncState::Offline { code: (*code).to_owned() }
        }
        Failure::Unauthorized { code } => SyncState::NeedsAuth { code: code.clone() },
        Failure::UpgradeRequired { code } => SyncState::NeedsUpgrade { code: code.clone() },
        Failure::Transient { code, .. } | Failure::Refused { code } => {
            SyncState::Failed { code: code.clone() }
        }
        Failure::Misbehaved { code } => SyncState::Failed { code: (*code).to_owned() },
        Failure::TooLarge => SyncState::Failed { code: "too_large".to_owned() },
    })
}

/// Whether a state says why nothing is sent, and not only until when.
const fn is_reason(state: &SyncState) -> bool {
    matches!(state, SyncState::Offline { .. } | SyncState::NeedsAuth { .. } | SyncState::NeedsUpgrade { .. })
}

/// Whether a state lasts until someone does something, rather than until the engine goes on.
const fn needs_someone(state: &SyncState) -> bool {
    matches!(
        state,
        SyncState::NeedsAuth { .. }
            | SyncState::NeedsAttention { .. }
            | SyncState::NeedsUpgrade { .. }
            | SyncState::NeedsServerConfirmed
            | SyncState::StorageFailed
    )
}

fn parked_ops(parks: &[(ParkScope, String)]) -> Vec<OpId> {
    let ops = parks.iter().filter_map(|(scope, _)| match scope {
        ParkScope::Op(op) => Some(*op),
        _ => None,
    });
    ops.collect()
}
