//! Why an op is not sent now: the words of a plan that an app, and a support person, get to read.

use crate::entry::ParkScope;
use crate::ids::UnitId;
use crate::limits;
use crate::names::{Actor, RecordKey};
use crate::op::OpPlace;
use crate::time::WallTime;

/// Why an op is not sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hold {
    /// It can still be undone.
    UndoWindow {
        /// When the window closes.
        until: WallTime,
    },
    /// A record that it refers to is not at the server yet.
    WaitsFor(RecordKey),
    /// The record's creation was refused: it waits for a person to decide on that dead letter.
    DeadCreate,
    /// It was not taken, and is tried again later.
    BackingOff {
        /// When.
        until: WallTime,
        /// The server's code.
        code: String,
    },
    /// Requests with it have not got through, while others have.
    NotLetThrough {
        /// When it is tried again; none if it waits for its turn after everything else.
        until: Option<WallTime>,
        /// What came in place of an answer.
        code: String,
        /// How often it was sent alone; 0 while it is one of several that may be meant.
        times: u32,
    },
    /// An earlier op of its record is under way.
    Behind(UnitId),
    /// An earlier op of its record goes first, and the two cannot go as one.
    After(OpPlace),
    /// It wants an unmetered network.
    UnmeteredNetwork,
    /// Something is parked.
    Parked {
        /// What.
        scope: ParkScope,
        /// The server's code.
        code: String,
    },
    /// Someone else made it, whose credentials are not at hand.
    OtherActor(Actor),
    /// Its entity type never leaves the device.
    LocalOnly,
    /// It was made under another schema version than the app declares, and no upcasters lead from there.
    NoUpcaster {
        /// The version of its fields.
        from: u32,
        /// The version that the app declares.
        to: u32,
    },
    /// It refers to a record that was deleted: it would be refused. Someone has to correct it, unless the record is made
    /// again.
    Gone(RecordKey),
    /// The app's validator refuses it: someone has to correct it.
    Refused {
        /// Why, in the app's words.
        reason: String,
    },
    /// The record would be larger than a server takes: someone has to make it smaller.
    TooLarge {
        /// How many bytes its fields would take.
        bytes: usize,
    },
}

impl Hold {
    /// Returns whether it lasts until a person corrects what is held, or may last so long.
    pub const fn waits_for_correction(&self) -> bool {
        match self {
            Self::Gone(_) | Self::Refused { .. } | Self::TooLarge { .. } => true,
            // By then it is no glitch any more.
            Self::NotLetThrough { times, .. } => *times >= limits::TRIES,
            _ => false,
        }
    }

    /// Returns whether it may end while a run goes on, since all that it waits for may be sent by that run.
    pub const fn may_end_in_a_run(&self) -> bool {
        matches!(
            self,
            Self::WaitsFor(_) | Self::Behind(_) | Self::After(_) | Self::NotLetThrough { until: None, .. }
        )
    }

    /// Returns when the hold ends by itself.
    pub const fn until(&self) -> Option<WallTime> {
        match self {
            Self::UndoWindow { until } | Self::BackingOff { until, .. } => Some(*until),
            Self::NotLetThrough { until, .. } => *until,
            _ => None,
        }
    }
}
