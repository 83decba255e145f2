//! The reasons why an op is not sent now, as apps and support people read them.

use crate::entry::ParkScope;
use crate::ids::UnitId;
use crate::limits;
use crate::names::{Actor, RecordKey};
use crate::op::OpPlace;
use crate::time::WallTime;

/// The reason why an op is not sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hold {
    /// The op can still be undone.
    UndoWindow {
        /// The time at which the undo window closes.
        until: WallTime,
    },
    /// A record to which the op refers is not at the server yet.
    WaitsFor(RecordKey),
    /// The record's creation was refused. The op waits for a person to decide about that dead
    /// letter.
    DeadCreate,
    /// The server did not accept the op's unit, which is sent again later.
    BackingOff {
        /// The time at which the unit is sent again.
        until: WallTime,
        /// The server's code.
        code: String,
    },
    /// Requests with the op's unit did not get through, while other requests did.
    NotLetThrough {
        /// The time of the next try; none if the unit waits until everything else is sent.
        until: Option<WallTime>,
        /// The code of the failure.
        code: String,
        /// How often the unit was sent alone; 0 while it is suspected together with other units.
        times: u32,
    },
    /// An earlier op of its record is unanswered.
    Behind(UnitId),
    /// An earlier op of its record is sent first, and the two cannot be one change.
    After(OpPlace),
    /// The op waits for an unmetered network, as its entity type declares.
    UnmeteredNetwork,
    /// The op, its actor, its entity type or the server is parked.
    Parked {
        /// The scope that is parked.
        scope: ParkScope,
        /// The server's code.
        code: String,
    },
    /// Another actor made the op, and that actor's credentials are not available.
    OtherActor(Actor),
    /// The op's entity type never leaves the device.
    LocalOnly,
    /// The op was made under another schema version than the declared version, and no upcasters
    /// lead to the declared version.
    NoUpcaster {
        /// The schema version of the op's fields.
        from: u32,
        /// The version that the app declares.
        to: u32,
    },
    /// The op refers to a deleted record, so the server would refuse the op. A person has to
    /// correct the op, unless the record is created again.
    TargetDeleted(RecordKey),
    /// The app's validator refuses the op. A person has to correct the op.
    Refused {
        /// The reason, in the words of the app.
        reason: String,
    },
    /// The record would be larger than a server accepts. A person has to make it smaller.
    TooLarge {
        /// The size of the record's fields, in bytes.
        bytes: usize,
    },
}

impl Hold {
    /// Returns whether the hold lasts until a person corrects the op, or may last so long.
    pub const fn waits_for_correction(&self) -> bool {
        match self {
            Self::TargetDeleted(_) | Self::Refused { .. } | Self::TooLarge { .. } => true,
            // A unit that failed so often is unlikely to get through by itself.
            Self::NotLetThrough { times, .. } => *times >= limits::TRIES,
            _ => false,
        }
    }

    /// Returns whether the hold lasts until a user signs in.
    pub const fn waits_for_a_user(&self) -> bool {
        matches!(self, Self::OtherActor(_) | Self::Parked { scope: ParkScope::Actor(_), .. })
    }

    /// Returns whether the hold may end during a run, because the same run may send everything that
    /// the op waits for.
    pub const fn may_end_in_a_run(&self) -> bool {
        matches!(
            self,
            Self::WaitsFor(_)
                | Self::Behind(_)
                | Self::After(_)
                | Self::NotLetThrough { until: None, .. }
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
