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
//! | held for another actor | that actor | hand it over or discard it |
//! | held for another op or record | that op or record | |
//! | parked because its author has no credentials | its author | hand it over or discard it |
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
    /// Nothing delays the op: the next sync sends it.
    Pending {
        /// How often the server answered that it cannot accept the op now.
        tries: u32,
    },
    /// The op is ready to be sent, and no exchange carries it: none has begun, or the last one
    /// failed.
    WaitingForNetwork {
        /// The entry that made the op ready.
        since: Seq,
        /// The time of that entry, by the device's clock.
        since_at: Option<WallTime>,
    },
    /// An exchange carries the op now, and the answer has not arrived.
    InFlight {
        /// The entry that made the op ready.
        since: Seq,
        /// The time of that entry, by the device's clock.
        since_at: Option<WallTime>,
        /// How often the server answered that it cannot accept the op now.
        tries: u32,
    },
    /// The op is not sent now.
    Held(Held),
    /// The op stops until something outside changes, or until a person moves it.
    Parked {
        /// The reason.
        reason: ParkReason,
        /// The code of the server, or the stored code.
        code: String,
    },
    /// The op met a conflict, and a person has to choose a side.
    InConflict {
        /// The conflict.
        conflict: ConflictId,
    },
    /// The server refused the op for good.
    DeadLettered {
        /// The server's code.
        code: String,
        /// The server's message.
        message: String,
        /// The number of answers to the op.
        tries: u32,
        /// The time at which the last refusal arrived, by the device's clock.
        last_at: Option<WallTime>,
    },
}

/// The reason why an op is not sent now.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "why", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Held {
    /// The op can still be undone.
    UndoWindow {
        /// The time at which the undo window closes.
        until: WallTime,
    },
    /// The server could not accept the op.
    BackingOff {
        /// The time of the next try.
        until: WallTime,
        /// The server's code.
        code: String,
        /// How often the op was tried.
        tries: u32,
    },
    /// Requests with the op have not got through, while others have.
    NotLetThrough {
        /// The time of the next try; none if the op waits until everything else is sent.
        until: Option<WallTime>,
        /// The code of the failure.
        code: String,
        /// How often the op was sent alone.
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
        /// That change; none if that change has ended since, so that the next plan ends this hold.
        op: Option<OpPlace>,
    },
    /// An earlier change is sent first, and that change does not get through although others do.
    BehindNotLetThrough {
        /// That change.
        op: OpPlace,
        /// The code of the failure.
        code: String,
    },
    /// Another change is sent before the op or with it, and that change is parked.
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
    /// The op waits for an unmetered network.
    UnmeteredNetwork,
    /// Another actor made the op, or made the change that is sent before it or with it.
    OtherActor {
        /// The actor.
        actor: Actor,
    },
    /// Records of its entity type never leave the device.
    LocalOnly,
    /// The op refers to a record that was deleted, and would be refused.
    TargetDeleted {
        /// The record.
        record: RecordKey,
    },
    /// The app's validator refuses the op.
    Refused {
        /// The reason, in the words of the app.
        reason: String,
    },
    /// The record would be larger than a server accepts.
    TooLarge {
        /// The size of the record's fields, in bytes.
        bytes: usize,
        /// The most bytes that the fields may have.
        most: usize,
    },
}

/// The person or the thing that an op waits for.
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
    /// Nothing, because the op never leaves the device.
    Nothing,
}

/// An action of a person on an op, in addition to undoing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UserAction {
    /// Choose a side of the conflict that the op met.
    Choose,
    /// Send the op again.
    Retry,
    /// Correct the op's fields and send the correction.
    Correct,
    /// End the op without sending it.
    Discard,
    /// Hand the op over to another user, whose credentials send it.
    HandOver,
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
                | ParkReason::Recovered
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
            // The choice has been made, so nothing stops the op any more.
            Self::Parked { reason: ParkReason::Conflict, .. } => {
                &[UserAction::Retry, UserAction::Discard]
            }
            Self::Held(Held::NotLetThrough { times: 1.., .. }) => {
                &[UserAction::Retry, UserAction::Correct, UserAction::Discard]
            }
            Self::Held(Held::OtherActor { .. })
            | Self::Parked { reason: ParkReason::Unauthorized, .. } => {
                &[UserAction::HandOver, UserAction::Discard]
            }
            Self::Held(
                Held::TargetDeleted { .. } | Held::Refused { .. } | Held::TooLarge { .. },
            ) => &[UserAction::Discard],
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
            Self::DeadCreate
            | Self::TargetDeleted { .. }
            | Self::Refused { .. }
            | Self::TooLarge { .. } => Awaited::Person,
        }
    }
}
