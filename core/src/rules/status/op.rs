//! The states of an op, what it waits for, and what a person can do about it.
//!
//! | the state of the op | it waits for | a person may |
//! |---|---|---|
//! | pending | the next sync | undo it |
//! | waiting for the network | the network | |
//! | in flight | the answer | |
//! | held until a time | that time | undo it while it is in no unit |
//! | held until something is corrected | a person | discard it |
//! | held because it alone does not get through | its time, or a person | retry, discard or correct it |
//! | held for another actor | that actor | |
//! | held for another op or record | that op or record | |
//! | parked because its author has no credentials | its author | |
//! | parked: worn out, ahead, made too large by an upcaster, a reason of a later version | a person | retry or discard it |
//! | parked by a conflict that is not open any more | a person | retry or discard it |
//! | parked for an upgrade, or because no upcaster leads to the declared version | an upgrade of the app or the server | |
//! | parked for another server or tenant | a person, or the known server | |
//! | in conflict | a person | choose a side |
//! | dead-lettered | a person | retry, discard or correct it |
//!
//! In addition a person may undo every op that is in no unit and has no newer op on it.
//!
//! Invariants:
//! 1. An op that waits for a person has an action that moves it.

use serde::Serialize;

use super::ParkReason;
use crate::names::{Actor, RecordKey};
use crate::numbers::{ConflictId, Seq};
use crate::op::OpPlace;
use crate::time::WallTime;

/// The state of an op, and why it is not synced.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum OpState {
    /// Nothing delays it: the next sync sends it.
    Pending {
        /// How many times the server answered that it cannot accept it now.
        tries: u32,
    },
    /// It is ready to be sent, and no exchange carries it: none has begun, or the last one failed.
    WaitingForNetwork {
        /// The entry that made it ready.
        since: Seq,
        /// When that was, by the device's clock.
        since_at: Option<WallTime>,
    },
    /// An exchange carries it now, and the answer has not arrived.
    InFlight {
        /// The entry that made it ready.
        since: Seq,
        /// When that was, by the device's clock.
        since_at: Option<WallTime>,
        /// How many times the server answered that it cannot accept it now.
        tries: u32,
    },
    /// It is not sent now.
    Held(Held),
    /// It stops until something outside changes, or until a person moves it.
    Parked {
        /// Why.
        reason: ParkReason,
        /// The code of the server, or the stored code.
        code: String,
    },
    /// It met a conflict, and a person has to choose a side.
    InConflict {
        /// The conflict.
        conflict: ConflictId,
    },
    /// The server refused it for good.
    DeadLettered {
        /// The server's code.
        code: String,
        /// The server's message.
        message: String,
        /// How many answers it had.
        tries: u32,
        /// When the last refusal arrived, by the device's clock.
        last_at: Option<WallTime>,
    },
}

/// Why an op is not sent now.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "why", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Held {
    /// It can still be undone.
    UndoWindow {
        /// When that ends.
        until: WallTime,
    },
    /// The server could not accept it.
    BackingOff {
        /// The time of the next try.
        until: WallTime,
        /// The server's code.
        code: String,
        /// How often it was tried.
        tries: u32,
    },
    /// Requests with it have not got through, while others have.
    NotLetThrough {
        /// The time of the next try; none if it waits until everything else is sent.
        until: Option<WallTime>,
        /// The code of the failure.
        code: String,
        /// How often it was sent alone.
        times: u32,
    },
    /// Another record has to reach the server first.
    WaitsFor {
        /// The record.
        record: RecordKey,
    },
    /// The record's creation is a dead letter.
    DeadCreate,
    /// An earlier change of the record is sent first.
    Behind {
        /// That change; none if it has ended since, so that the next plan ends this hold.
        op: Option<OpPlace>,
    },
    /// An earlier change is sent first, and that change does not get through although others do.
    BehindNotLetThrough {
        /// That change.
        op: OpPlace,
        /// The code of the failure.
        code: String,
    },
    /// Another change is sent before it or with it, and that change is parked.
    BehindParked {
        /// That change.
        op: OpPlace,
        /// The reason for which that change is parked.
        reason: ParkReason,
        /// The conflict in which a person has to choose, if there is one.
        conflict: Option<ConflictId>,
    },
    /// An earlier change of the record is sent first, and the two cannot be one change.
    After {
        /// That change.
        op: OpPlace,
    },
    /// It wants an unmetered network.
    UnmeteredNetwork,
    /// Another actor made it, or made the change that is sent before it or with it.
    OtherActor {
        /// The actor.
        actor: Actor,
    },
    /// Records of its entity type never leave the device.
    LocalOnly,
    /// It refers to a record that was deleted, and would be refused.
    Gone {
        /// The record.
        record: RecordKey,
    },
    /// The app's validator refuses it.
    Refused {
        /// Why, in the app's words.
        reason: String,
    },
    /// The record would be larger than a server accepts.
    TooLarge {
        /// The size of its fields, in bytes.
        bytes: usize,
        /// The most bytes that they may have.
        most: usize,
    },
}

/// What, or whom, an op waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "for", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Awaited {
    /// The next sync.
    NextSync,
    /// A network, or a server that answers.
    Network,
    /// The server's answer to a request that was sent.
    Answer,
    /// A time.
    Time {
        /// The time.
        until: WallTime,
    },
    /// Another op, which is sent first or together with it.
    Op {
        /// That op.
        op: OpPlace,
    },
    /// Another record.
    Record {
        /// The record.
        record: RecordKey,
    },
    /// An actor, who has to use this device or to sign in again.
    Actor {
        /// The actor.
        actor: Actor,
    },
    /// The user of this device, who has to decide something.
    Person,
    /// An upgrade of the app or the server.
    Upgrade,
    /// The server that the book belongs to, or a person who accepts another one.
    Server,
    /// Nothing: it never leaves the device.
    Nothing,
}

/// What a person can do about an op, in addition to undoing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UserAction {
    /// Choose a side of the conflict that it met.
    Choose,
    /// Send it again.
    Retry,
    /// Correct its fields and send that.
    Correct,
    /// Give it up.
    Discard,
}

impl OpState {
    /// Returns what, or whom, the op waits for. `made_by` is the op's author.
    pub fn awaits(&self, made_by: Option<&Actor>) -> Awaited {
        match self {
            Self::Pending { .. } => Awaited::NextSync,
            Self::WaitingForNetwork { .. } => Awaited::Network,
            Self::InFlight { .. } => Awaited::Answer,
            Self::Held(held) => held.awaits(),
            Self::Parked { reason, .. } => match reason {
                ParkReason::Unauthorized => {
                    made_by.map_or(Awaited::Person, |actor| Awaited::Actor { actor: actor.clone() })
                }
                ParkReason::Unsupported | ParkReason::OtherProtocol | ParkReason::NoUpcaster => {
                    Awaited::Upgrade
                }
                ParkReason::OtherServer | ParkReason::ServerBehind | ParkReason::OtherTenant => {
                    Awaited::Server
                }
                ParkReason::Conflict
                | ParkReason::WornOut
                | ParkReason::Ahead
                | ParkReason::UpcastTooLarge
                | ParkReason::Unknown => Awaited::Person,
            },
            Self::InConflict { .. } | Self::DeadLettered { .. } => Awaited::Person,
        }
    }

    /// Returns what a person can do about the op, in addition to undoing it.
    pub const fn actions(&self) -> &'static [UserAction] {
        match self {
            Self::DeadLettered { .. } => {
                &[UserAction::Retry, UserAction::Correct, UserAction::Discard]
            }
            Self::InConflict { .. } => &[UserAction::Choose],
            Self::Parked { reason, .. } if reason.is_for_a_person() => {
                &[UserAction::Retry, UserAction::Discard]
            }
            // Whatever was to be chosen is chosen, so nothing is left that could stop the op.
            Self::Parked { reason: ParkReason::Conflict, .. } => {
                &[UserAction::Retry, UserAction::Discard]
            }
            Self::Held(Held::NotLetThrough { times: 1.., .. }) => {
                &[UserAction::Retry, UserAction::Correct, UserAction::Discard]
            }
            Self::Held(Held::Gone { .. } | Held::Refused { .. } | Held::TooLarge { .. }) => {
                &[UserAction::Discard]
            }
            Self::Pending { .. }
            | Self::WaitingForNetwork { .. }
            | Self::InFlight { .. }
            | Self::Held(_)
            | Self::Parked { .. } => &[],
        }
    }
}

impl Held {
    fn awaits(&self) -> Awaited {
        match self {
            Self::UndoWindow { until } | Self::BackingOff { until, .. } => {
                Awaited::Time { until: *until }
            }
            Self::NotLetThrough { until, .. } => {
                until.map_or(Awaited::NextSync, |until| Awaited::Time { until })
            }
            Self::WaitsFor { record } => Awaited::Record { record: record.clone() },
            Self::Behind { op: None } => Awaited::NextSync,
            Self::Behind { op: Some(op) }
            | Self::After { op }
            | Self::BehindNotLetThrough { op, .. }
            | Self::BehindParked { op, .. } => Awaited::Op { op: *op },
            Self::UnmeteredNetwork => Awaited::Network,
            Self::OtherActor { actor } => Awaited::Actor { actor: actor.clone() },
            Self::LocalOnly => Awaited::Nothing,
            Self::DeadCreate | Self::Gone { .. } | Self::Refused { .. } | Self::TooLarge { .. } => {
                Awaited::Person
            }
        }
    }
}
