//! Where one op stands, what it waits for, and what a person can do about it.
//!
//! | where the op stands | it waits for | a person may |
//! |---|---|---|
//! | pending | the next sync | undo it |
//! | waiting for the network | the network | |
//! | in flight | the answer | |
//! | held until a time | that time | undo it while it is in no unit |
//! | held, and something has to be corrected first | a person | discard it |
//! | held, since it does not get through alone | its time, or a person | retry, discard or correct it |
//! | held for another actor | that actor | |
//! | held behind another op or record | that op or record | |
//! | parked, since its author has no credentials | its author | |
//! | parked: worn out, ahead, too large by an upcaster, a reason of a later version | a person | retry or discard it |
//! | parked by a conflict in which nothing is open any more | a person | retry or discard it |
//! | parked for an upgrade, or since no upcaster leads to the declared version | whoever upgrades the app or the server | |
//! | parked for another server or tenant | a person, or the known server | |
//! | in conflict | a person | choose a side |
//! | dead-lettered | a person | retry, discard or correct it |
//!
//! Undo is there beside these for every op that is in no unit and on which nothing newer stands.
//!
//! Invariants:
//! 1. An op that waits for a person has an action that moves it.

use serde::Serialize;

use super::ParkReason;
use crate::names::{Actor, RecordKey};
use crate::numbers::{ConflictId, Seq};
use crate::op::OpPlace;
use crate::time::WallTime;

/// Where an op stands, and why it is not synced.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum OpState {
    /// Nothing holds it back: the next sync sends it.
    Pending {
        /// How many times the server said that it cannot take it now.
        tries: u32,
    },
    /// It is ready to be sent, and no exchange with it is running: none has begun, or the last one did not get through.
    WaitingForNetwork {
        /// The entry that made it ready.
        since: Seq,
        /// When that was, by the device's clock.
        since_at: Option<WallTime>,
    },
    /// An exchange with it is running, and the answer has yet to come.
    InFlight {
        /// The entry that made it ready.
        since: Seq,
        /// When that was, by the device's clock.
        since_at: Option<WallTime>,
        /// How many times the server said that it cannot take it now.
        tries: u32,
    },
    /// It is not sent now.
    Held(Held),
    /// It stops until something outside changes, or until a person moves it.
    Parked {
        /// Why.
        reason: ParkReason,
        /// The server's code, or the stored one.
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
        /// When the last of them came, by the device's clock.
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
    /// The server could not take it.
    BackingOff {
        /// When it is tried again.
        until: WallTime,
        /// The server's code.
        code: String,
        /// How often it was tried.
        tries: u32,
    },
    /// Requests with it have not got through, while others have.
    NotLetThrough {
        /// When it is tried again; none if it waits for its turn after everything else.
        until: Option<WallTime>,
        /// What came in place of an answer.
        code: String,
        /// How often it was sent alone.
        times: u32,
    },
    /// Another record has to reach the server first.
    WaitsFor {
        /// Which one.
        record: RecordKey,
    },
    /// The record's creation is a dead letter.
    DeadCreate,
    /// An earlier change of the record goes first.
    Behind {
        /// Which one; none if it has ended meanwhile, so that the next plan lifts this.
        op: Option<OpPlace>,
    },
    /// An earlier change goes first, and that one has not got through, while others have.
    BehindNotLetThrough {
        /// Which one.
        op: OpPlace,
        /// What came in place of an answer.
        code: String,
    },
    /// Another change goes before it or with it, and that one is parked.
    BehindParked {
        /// Which one.
        op: OpPlace,
        /// Why that one is parked.
        reason: ParkReason,
        /// The conflict in which a person has to choose, if there is one.
        conflict: Option<ConflictId>,
    },
    /// An earlier change of the record goes first, and the two cannot go as one.
    After {
        /// Which one.
        op: OpPlace,
    },
    /// It wants an unmetered network.
    UnmeteredNetwork,
    /// Someone else made it, or the change that goes before it or with it.
    OtherActor {
        /// Who.
        actor: Actor,
    },
    /// Records of its entity type never leave the device.
    LocalOnly,
    /// It refers to a record that was deleted, and would be refused.
    Gone {
        /// Which one.
        record: RecordKey,
    },
    /// The app's validator refuses it.
    Refused {
        /// Why, in the app's words.
        reason: String,
    },
    /// The record would be larger than a server takes.
    TooLarge {
        /// How many bytes its fields would take.
        bytes: usize,
        /// How many they may take.
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
        /// Which one.
        until: WallTime,
    },
    /// Another op, which goes first or with it.
    Op {
        /// Which one.
        op: OpPlace,
    },
    /// Another record.
    Record {
        /// Which one.
        record: RecordKey,
    },
    /// A user, who has to use this device or to sign in again.
    Actor {
        /// Who.
        actor: Actor,
    },
    /// Whoever uses this device: that person has to decide something.
    Person,
    /// Whoever upgrades the app or the server.
    Upgrade,
    /// The server that the book belongs to, or a person who accepts another one.
    Server,
    /// Nothing: it never leaves the device.
    Nothing,
}

/// What a person can do about an op, besides undoing it.
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
    /// Returns what or whom the op waits for. `made_by` is the op's author.
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

    /// Returns what a person can do about the op, besides undoing it.
    pub const fn actions(&self) -> &'static [UserAction] {
        match self {
            Self::DeadLettered { .. } => &[UserAction::Retry, UserAction::Correct, UserAction::Discard],
            Self::InConflict { .. } => &[UserAction::Choose],
            Self::Parked { reason, .. } if reason.is_for_a_person() => {
                &[UserAction::Retry, UserAction::Discard]
            }
            // Whatever was to be chosen is chosen, so nothing is left that could stop the op.
            Self::Parked { reason: ParkReason::Conflict, .. } => &[UserAction::Retry, UserAction::Discard],
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
            Self::UndoWindow { until } | Self::BackingOff { until, .. } => Awaited::Time { until: *until },
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
