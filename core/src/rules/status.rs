//! The state of ops, records and the book, and the reasons: the only place that computes it.
//!
//! ```text
//!   tail, dead letters, open conflicts ┐
//!   the holds of the plan              ├─► Known ─► state of each op ─► state of its record ─► explain, the CLI
//!   units of running exchanges         ┘
//!   parks, counts, activity of the engine ───────► state of the book ───────────────────────► SyncStatus
//! ```
//!
//! | an op that | has the state | and its record at least |
//! |---|---|---|
//! | the server refused for good | dead-lettered | dead-lettered |
//! | met a conflict that is open | in conflict | in conflict |
//! | waits for such an op, or is sent with it | held | in conflict |
//! | is parked for any other reason, or has no upcaster | parked | parked |
//! | waits for such an op, or is sent with it | held | parked |
//! | is held for a reason of its own | held | held |
//! | is in a unit that an exchange carries now | in flight | in flight |
//! | is in a unit that no exchange carries now, and that the server has not put off | waiting for the network | the same |
//! | waits for an earlier op of its record | held | pending |
//! | is in no unit, or the server has put its unit off and the wait is over | pending | pending |
//!
//! The upper row wins. An op has the state of the first row that is true of it. A record has the
//! uppermost state of its ops. Among ops of the same row the oldest decides. A record without such
//! ops is synced, or unknown.
//!
//! Invariants:
//! 1. The same facts give the same status. Time is one of the facts: the plan was made for a
//!    moment.
//! 2. An op is in flight only while an exchange with it is running in this process.
//! 3. An op is in conflict only while somebody can choose in a conflict.
//! 4. No value of a field is in a status.
//!
//! `park` reads the stored reasons, `op` has the states of an op, `moves` has a person's actions on
//! a parked op, `book` has the state of the whole book, `words` has the words.
//!
//! What it does not do: decide what is held ([`super::plan`]), or make the sentences of an
//! explanation ([`super::explain`]).

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

/// The facts about ops that have not ended, read at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The tail.
    pub tail: &'a Tail,
    /// The holds of a plan without limits.
    pub holds: &'a BTreeMap<OpPlace, Hold>,
    /// The dead letters of the ops in question.
    pub dead: &'a BTreeMap<OpId, DeadLetterRow>,
    /// The ops in question for which a person has to choose, each with its newest conflict.
    pub open: &'a BTreeMap<OpId, ConflictId>,
    /// The units that an exchange carries now.
    pub sending: &'a BTreeSet<UnitId>,
    /// The times at which the entries of units were written, as far as they are needed.
    pub written_at: &'a BTreeMap<Seq, WallTime>,
}

/// The state of one record.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RecordStatus {
    /// This device does not know the record.
    Unknown,
    /// The server has all ops of the record.
    Synced,
    /// The record waits for its turn: the next sync sends it.
    Pending,
    /// The record is ready to be sent, and no exchange carries it: none has begun, or the last one
    /// failed.
    WaitingForNetwork,
    /// An exchange carries the record now, and the answer has not arrived.
    InFlight,
    /// The record is not sent now, for this reason.
    Held(Hold),
    /// The record stops until something outside changes, or until a person moves it.
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

/// The state of a record without its details. A record has the greatest state of its ops.
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

/// The state of a record, and the op that decides it.
#[derive(Debug, Clone, PartialEq)]
pub struct DecidedStatus {
    /// The state.
    pub status: RecordStatus,
    /// The op that decides the state; none if the record has no op in the tail.
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
    /// Returns the state without its details.
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
    /// Returns the state of a record, by the table above. `is_known` is true if this device has, or
    /// had, a version of it.
    pub fn record(&self, key: &RecordKey, is_known: bool) -> DecidedStatus {
        let mut decided: Option<DecidedStatus> = None;
        for place in self.tail.ops_of(key) {
            let Some(row) = self.tail.op(place) else { continue };
            let status = self.status_by(place, self.op(place, row));
            // Among equal states the oldest op decides.
            if decided.as_ref().is_none_or(|known| known.status.state() < status.state()) {
                decided = Some(DecidedStatus { status, decided_by: Some(place) });
            }
        }
        let status = if is_known { RecordStatus::Synced } else { RecordStatus::Unknown };
        decided.unwrap_or(DecidedStatus { status, decided_by: None })
    }

    /// Returns the state of an op of the tail, by the table above.
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

    /// Returns the state that one op gives its record.
    fn status_by(&self, place: OpPlace, state: OpState) -> RecordStatus {
        let held =
            || self.holds.get(&place).cloned().map_or(RecordStatus::Pending, RecordStatus::Held);
        match state {
            OpState::DeadLettered { code, message, .. } => {
                RecordStatus::DeadLettered { code, message }
            }
            OpState::InConflict { conflict } => RecordStatus::InConflict(conflict),
            OpState::Parked { reason, .. } => RecordStatus::Parked(reason),
            OpState::Held(Held::BehindParked { conflict: Some(conflict), .. }) => {
                RecordStatus::InConflict(conflict)
            }
            OpState::Held(Held::BehindParked { reason, conflict: None, .. }) => {
                RecordStatus::Parked(reason)
            }
            OpState::Held(
                Held::Behind { .. } | Held::BehindNotLetThrough { .. } | Held::After { .. },
            )
            | OpState::Pending { .. } => RecordStatus::Pending,
            OpState::Held(_) => held(),
            OpState::InFlight { .. } => RecordStatus::InFlight,
            OpState::WaitingForNetwork { .. } => RecordStatus::WaitingForNetwork,
        }
    }

    /// Returns the state of an op without a hold.
    fn sendable(&self, place: OpPlace) -> OpState {
        let Some(id) = self.tail.unit_of(place) else { return OpState::Pending { tries: 0 } };
        let Some(unit) = self.tail.unit(&id) else { return OpState::Pending { tries: 0 } };
        let (since, since_at) = (unit.planned, self.written_at.get(&unit.planned).copied());
        if self.sending.contains(&id) {
            OpState::InFlight { since, since_at, tries: unit.tries }
        } else if unit.tries > 0 {
            // The server has put the op's unit off, so the op does not wait for the network.
            OpState::Pending { tries: unit.tries }
        } else {
            OpState::WaitingForNetwork { since, since_at }
        }
    }

    /// Returns the state of an op that the plan holds. A new hold needs a state here: there is no
    /// other arm.
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
            Hold::TargetDeleted(record) => Held::TargetDeleted { record: record.clone() },
            Hold::Refused { reason } => Held::Refused { reason: reason.clone() },
            Hold::TooLarge { bytes } => Held::TooLarge { bytes: *bytes, most: limits::OP_BYTES },
        })
    }

    /// Distinguishes an op that is parked itself from an op that is only sent with it or after it,
    /// and a conflict in which a person can choose from any other reason.
    fn parked(&self, row: &TailRow, scope: &ParkScope, code: &str) -> OpState {
        let reason = ParkReason::of(scope, code);
        let ParkScope::Op(stopped) = scope else {
            return OpState::Parked { reason, code: code.to_owned() };
        };
        let open = self.open.get(stopped).copied();
        let reason = if open.is_some() { ParkReason::Conflict } else { reason };
        match (*stopped == row.op, open) {
            (true, Some(conflict)) => OpState::InConflict { conflict },
            (true, None) => OpState::Parked { reason, code: code.to_owned() },
            // If that op has ended since, the next plan ends this hold too.
            (false, conflict) => OpState::Held(match self.tail.place_of(stopped) {
                Some(op) => Held::BehindParked { op, reason, conflict },
                None => Held::Behind { op: None },
            }),
        }
    }

    /// Returns why an op waits for a unit.
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
