//! Where things stand between this device and the server, and why: the only computation of it.
//!
//! ```text
//!   tail, dead letters, open conflicts ┐
//!   what the plan holds                ├─► Known ─► where each op stands ─► where its record stands ─► explain, the CLI
//!   which units are being sent now     ┘
//!   parks, counts, what the engine does ──────────► where the book stands ────────────────────────────► SyncStatus
//! ```
//!
//! | an op that | stands as | and its record at least as |
//! |---|---|---|
//! | the server refused for good | dead-lettered | dead-lettered |
//! | met a conflict that is open | in conflict | in conflict |
//! | waits for such an op, or with it | held | in conflict |
//! | is parked for any other reason, or has no upcaster | parked | parked |
//! | waits for such an op, or with it | held | parked |
//! | is held for a reason of its own | held | held |
//! | is in a unit that an exchange carries now | in flight | in flight |
//! | is in a unit that no exchange carries now, and that the server has not put off | waiting for the network | the same |
//! | waits behind an earlier op of its record | held | pending |
//! | is in no unit, or the server has put its unit off and the wait is over | pending | pending |
//!
//! The upper row counts: of an op the first that is true of it, of a record the uppermost of its ops, and of ops in one row the
//! oldest. A record without such ops is synced, or unknown.
//!
//! Invariants:
//! 1. The same facts give the same status. Time comes in with them: the plan was made for an instant.
//! 2. An op is in flight only while an exchange with it is running in this process.
//! 3. A park is in conflict only while there is a conflict in which somebody can choose.
//! 4. No value of a field is in a status.
//!
//! `park` reads the stored reasons, `op` has the states of an op, `moves` what a person does about a parked one,
//! `book` has the state of the whole, `words` has the words.
//!
//! What it is not: the plan ([`super::plan`]), which decides what is held, or the sentences of an explanation
//! ([`super::explain`]).

mod book;
mod moves;
mod op;
mod park;
#[cfg(test)]
mod tests;
pub(super) mod words;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub use book::{Attention, Progress, SyncState, overall};
pub use moves::{Stopped, together};
pub use op::{Awaited, Held, OpState, UserAction};
pub use park::ParkReason;
pub use words::in_words;

use super::plan::Hold;
use crate::entry::ParkScope;
use crate::ids::{OpId, UnitId};
use crate::limits;
use crate::names::RecordKey;
use crate::numbers::{ConflictId, Seq};
use crate::op::OpPlace;
use crate::rows::{DeadLetterRow, TailRow};
use crate::tail::Tail;
use crate::time::WallTime;

/// What is known of the ops that have no terminal outcome, as it was read at one instant.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The tail.
    pub tail: &'a Tail,
    /// What a plan without bounds holds.
    pub holds: &'a BTreeMap<OpPlace, Hold>,
    /// The dead letters of the ops in question.
    pub dead: &'a BTreeMap<OpId, DeadLetterRow>,
    /// The ops in question for which a person has to choose, each with its newest conflict.
    pub open: &'a BTreeMap<OpId, ConflictId>,
    /// The units that an exchange carries now.
    pub sending: &'a BTreeSet<UnitId>,
    /// When entries were written that made units, as far as that is wanted.
    pub written_at: &'a BTreeMap<Seq, WallTime>,
}

/// Where one record stands between this device and the server.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RecordStatus {
    /// This device does not know it.
    Unknown,
    /// The server has everything.
    Synced,
    /// It waits for its turn: the next sync sends it.
    Pending,
    /// It is ready to be sent, and no exchange with it is running: none has begun, or the last one did not get through.
    WaitingForNetwork,
    /// An exchange with it is running, and the answer has yet to come.
    InFlight,
    /// It is not sent now, and why.
    Held(Hold),
    /// It stops until something outside changes, or until a person moves it.
    Parked(ParkReason),
    /// A conflict waits for a person.
    InConflict(ConflictId),
    /// The server refused a change for good; a person has to decide.
    DeadLettered {
        /// The server's code.
        code: String,
        /// The server's message.
        message: String,
    },
}

/// Where a record stands, in a word. Of the ops of a record, the one that stands at the greatest of these counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RecordState {
    /// See [`RecordStatus::Unknown`].
    Unknown,
    /// See [`RecordStatus::Synced`].
    Synced,
    /// See [`RecordStatus::Pending`].
    Pending,
    /// See [`RecordStatus::WaitingForNetwork`].
    WaitingForNetwork,
    /// See [`RecordStatus::InFlight`].
    InFlight,
    /// See [`RecordStatus::Held`].
    Held,
    /// See [`RecordStatus::Parked`].
    Parked,
    /// See [`RecordStatus::InConflict`].
    InConflict,
    /// See [`RecordStatus::DeadLettered`].
    DeadLettered,
}

/// Where a record stands, and which of its ops says so.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordStanding {
    /// Where it stands.
    pub status: RecordStatus,
    /// The op by which it stands there; none if it has no op in the tail.
    pub decided_by: Option<OpPlace>,
}

impl RecordState {
    /// Returns the stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Synced => "synced",
            Self::Pending => "pending",
            Self::WaitingForNetwork => "waiting_for_network",
            Self::InFlight => "in_flight",
            Self::Held => "held",
            Self::Parked => "parked",
            Self::InConflict => "in_conflict",
            Self::DeadLettered => "dead_lettered",
        }
    }
}

impl RecordStatus {
    /// Returns the same in a word.
    pub const fn state(&self) -> RecordState {
        match self {
            Self::Unknown => RecordState::Unknown,
            Self::Synced => RecordState::Synced,
            Self::Pending => RecordState::Pending,
            Self::WaitingForNetwork => RecordState::WaitingForNetwork,
            Self::InFlight => RecordState::InFlight,
            Self::Held(_) => RecordState::Held,
            Self::Parked(_) => RecordState::Parked,
            Self::InConflict(_) => RecordState::InConflict,
            Self::DeadLettered { .. } => RecordState::DeadLettered,
        }
    }
}

impl Known<'_> {
    /// Returns where a record stands, by the table above. `is_known` says whether this device has, or had, a version of it.
    pub fn record(&self, key: &RecordKey, is_known: bool) -> RecordStanding {
        let mut standing: Option<RecordStanding> = None;
        for place in self.tail.ops_of(key) {
            let Some(row) = self.tail.op(place) else { continue };
            let status = self.status_by(place, self.op(place, row));
            // The oldest of those that stand alike counts.
            if standing.as_ref().is_none_or(|known| known.status.state() < status.state()) {
                standing = Some(RecordStanding { status, decided_by: Some(place) });
            }
        }
        let status = if is_known { RecordStatus::Synced } else { RecordStatus::Unknown };
        standing.unwrap_or(RecordStanding { status, decided_by: None })
    }

    /// Returns where an op of the tail stands, by the table above.
    pub fn op(&self, place: OpPlace, row: &TailRow) -> OpState {
        if let Some(dead) = self.dead.get(&row.op) {
            return OpState::DeadLettered {
                code: dead.code.clone(),
                message: dead.message.clone(),
                tries: dead.tries,
                last_at: Some(dead.last_at),
            };
        }
        match self.holds.get(&place) {
            Some(hold) => self.held(place, row, hold),
            None => self.sendable(place),
        }
    }

    /// Returns what the state of one op makes of its record.
    fn status_by(&self, place: OpPlace, state: OpState) -> RecordStatus {
        let held = || self.holds.get(&place).cloned().map_or(RecordStatus::Pending, RecordStatus::Held);
        match state {
            OpState::DeadLettered { code, message, .. } => RecordStatus::DeadLettered { code, message },
            OpState::InConflict { conflict } => RecordStatus::InConflict(conflict),
            OpState::Parked { reason, .. } => RecordStatus::Parked(reason),
            OpState::Held(Held::BehindParked { conflict: Some(conflict), .. }) => {
                RecordStatus::InConflict(conflict)
            }
            OpState::Held(Held::BehindParked { reason, conflict: None, .. }) => RecordStatus::Parked(reason),
            OpState::Held(Held::Behind { .. } | Held::BehindNotLetThrough { .. } | Held::After { .. })
            | OpState::Pending { .. } => RecordStatus::Pending,
            OpState::Held(_) => held(),
            OpState::InFlight { .. } => RecordStatus::InFlight,
            OpState::WaitingForNetwork { .. } => RecordStatus::WaitingForNetwork,
        }
    }

    /// Returns where an op stands that nothing holds.
    fn sendable(&self, place: OpPlace) -> OpState {
        let Some(id) = self.tail.unit_of(place) else { return OpState::Pending { tries: 0 } };
        let Some(unit) = self.tail.unit(&id) else { return OpState::Pending { tries: 0 } };
        let (since, since_at) = (unit.planned, self.written_at.get(&unit.planned).copied());
        if self.sending.contains(&id) {
            OpState::InFlight { since, since_at, tries: unit.tries }
        } else if unit.tries > 0 {
            // The server has answered for it, so the network is not what it waits for.
            OpState::Pending { tries: unit.tries }
        } else {
            OpState::WaitingForNetwork { since, since_at }
        }
    }

    /// Returns where an op stands that the plan holds. A hold that is added has to be given its state: there is no other arm.
    fn held(&self, place: OpPlace, row: &TailRow, hold: &Hold) -> OpState {
        OpState::Held(match hold {
            Hold::Parked { scope, code } => return self.parked(row, scope, code),
            Hold::NoUpcaster { from, to } => {
                let code = format!("schema version {from} of {to}");
                return OpState::Parked { reason: ParkReason::NoUpcaster, code };
            }
            Hold::UndoWindow { until } => Held::UndoWindow { until: *until },
            Hold::WaitsFor(record) => Held::WaitsFor { record: record.clone() },
            Hold::DeadCreate => Held::DeadCreate,
            Hold::BackingOff { until, code } => {
                let unit = self.tail.unit_of(place).and_then(|unit| self.tail.unit(&unit));
                let tries = unit.map_or(0, |unit| unit.tries);
                Held::BackingOff { until: *until, code: code.clone(), tries }
            }
            Hold::NotLetThrough { until, code, times } => {
                Held::NotLetThrough { until: *until, code: code.clone(), times: *times }
            }
            Hold::Behind(unit) => self.behind(unit),
            Hold::After(op) => Held::After { op: *op },
            Hold::UnmeteredNetwork => Held::UnmeteredNetwork,
            Hold::OtherActor(actor) => Held::OtherActor { actor: actor.clone() },
            Hold::LocalOnly => Held::LocalOnly,
            Hold::Gone(record) => Held::Gone { record: record.clone() },
            Hold::Refused { reason } => Held::Refused { reason: reason.clone() },
            Hold::TooLarge { bytes } => Held::TooLarge { bytes: *bytes, most: limits::OP_BYTES },
        })
    }

    /// Tells an op that is parked itself from one that only goes with it or after it, and a conflict in which a person can
    /// choose from any other reason.
    fn parked(&self, row: &TailRow, scope: &ParkScope, code: &str) -> OpState {
        let reason = ParkReason::of(scope, code);
        let ParkScope::Op(stopped) = scope else { return OpState::Parked { reason, code: code.to_owned() } };
        let open = self.open.get(stopped).copied();
        let reason = if open.is_some() { ParkReason::Conflict } else { reason };
        match (*stopped == row.op, open) {
            (true, Some(conflict)) => OpState::InConflict { conflict },
            (true, None) => OpState::Parked { reason, code: code.to_owned() },
            // If that one is gone meanwhile, the next plan lifts this too.
            (false, conflict) => OpState::Held(match self.tail.place_of(stopped) {
                Some(op) => Held::BehindParked { op, reason, conflict },
                None => Held::Behind { op: None },
            }),
        }
    }

    /// Returns why an op waits behind a unit.
    fn behind(&self, unit: &UnitId) -> Held {
        let Some(unit) = self.tail.unit(unit) else { return Held::Behind { op: None } };
        let held = unit.ops.iter().find_map(|place| match self.holds.get(place) {
            Some(Hold::NotLetThrough { code, .. }) => {
                Some(Held::BehindNotLetThrough { op: *place, code: code.clone() })
            }
            _ => None,
        });
        held.unwrap_or_else(|| Held::Behind { op: unit.ops.first().copied() })
    }
}
