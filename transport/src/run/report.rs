//! What a run was asked for and what it did.

use std::time::Duration;

use fieldbook_core::protocol::Failure;
use fieldbook_core::{WallTime, limits};

use super::MOST_EXCHANGES;
use super::desk::Taken;

/// What a run may do and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOptions {
    /// The most ops of one exchange.
    pub batch_ops: usize,
    /// The most bytes of units of one exchange.
    pub batch_bytes: usize,
    /// How many changes to ask for at a time.
    pub page_limit: u32,
    /// Whether units stay where they are.
    pub pull_only: bool,
    /// Whether changes of the server are not asked for.
    pub push_only: bool,
    /// What the run may cost.
    pub budget: Budget,
    /// The most exchanges of the run, failed ones included; at most [`MOST_EXCHANGES`] whatever stands here. What never gets
    /// through is only found by runs of two or more.
    pub max_exchanges: u32,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            batch_ops: limits::BATCH_OPS,
            batch_bytes: limits::BATCH_BYTES,
            page_limit: limits::PAGE_CHANGES,
            pull_only: false,
            push_only: false,
            budget: Budget::default(),
            max_exchanges: MOST_EXCHANGES,
        }
    }
}

/// What a run may cost. It is looked at between exchanges, so the last one may go over it; to stop within one, drop the
/// run's future.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// How long the run may take.
    pub time: Option<Duration>,
    /// How many bytes of bodies may go either way, together.
    pub bytes: Option<u64>,
    /// How many ops may be sent.
    pub ops: Option<u64>,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncReport {
    /// Exchanges begun.
    pub exchanges: u32,
    /// Bytes of bodies sent in exchanges that were answered.
    pub bytes_sent: u64,
    /// Bytes of bodies received in exchanges that were answered.
    pub bytes_received: u64,
    /// Units that left the device, or may have; one that is sent twice counts twice, and one of a request that reached nobody
    /// does not count.
    pub units_sent: u64,
    /// Ops sent in them.
    pub ops_sent: u64,
    /// Units the server has accepted.
    pub units_acked: u64,
    /// The ops in them.
    pub ops_acked: u64,
    /// Units that were stale.
    pub units_stale: u64,
    /// Units the server will take later.
    pub units_tried_again: u64,
    /// Units that do not get through, though others do; one that is tried in vain twice counts twice.
    pub units_isolated: u64,
    /// Ops that became dead letters.
    pub ops_dead: u64,
    /// Conflicts.
    pub conflicts: u64,
    /// Changes of the server that were taken in.
    pub changes: u64,
    /// Records of the server that this program cannot hold, and that were set aside.
    pub set_aside: u64,
    /// Whether something was parked until the world outside changes.
    pub parked: bool,
    /// Why the run ended.
    pub stopped: Stopped,
    /// When something that is held may be sent, if the run ended idle.
    pub next_wake: Option<WallTime>,
}

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stopped {
    /// There is nothing more to send or to ask for.
    Idle,
    /// An exchange failed as a whole.
    Failed(Failure),
    /// What the server has next does not get through, though exchanges without it do: all before it was read, and what was to be
    /// sent was sent. Something on the way refuses it for what it holds. The next run asks for it again.
    PageRefused(Failure),
    /// The budget is used up.
    BudgetSpent(Limit),
    /// [`RunOptions::max_exchanges`] were made; another run may go on.
    ExchangesSpent,
    /// Exchanges changed nothing, though the book or the server wanted to go on: two in a row, or as many pages as
    /// [`limits::EMPTY_PAGES`] that moved on and brought nothing.
    NoProgress,
    /// Whoever runs it wanted it to end.
    Cancelled,
}

/// A limit of a [`Budget`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// [`Budget::time`].
    Time,
    /// [`Budget::bytes`].
    Bytes,
    /// [`Budget::ops`].
    Ops,
}

impl SyncReport {
    pub(super) fn new() -> Self {
        Self {
            exchanges: 0,
            bytes_sent: 0,
            bytes_received: 0,
            units_sent: 0,
            ops_sent: 0,
            units_acked: 0,
            ops_acked: 0,
            units_stale: 0,
            units_tried_again: 0,
            units_isolated: 0,
            ops_dead: 0,
            conflicts: 0,
            changes: 0,
            set_aside: 0,
            parked: false,
            stopped: Stopped::Cancelled,
            next_wake: None,
        }
    }

    pub(super) fn add(&mut self, taken: &Taken) {
        self.units_acked += u64::from(taken.units_acked);
        self.ops_acked += u64::from(taken.ops_acked);
        self.units_stale += u64::from(taken.units_stale);
        self.units_tried_again += u64::from(taken.units_tried_again);
        self.units_isolated += u64::from(taken.units_isolated);
        self.ops_dead += u64::from(taken.ops_dead);
        self.conflicts += u64::from(taken.conflicts);
        self.changes += u64::from(taken.changes);
        self.set_aside += u64::from(taken.set_aside);
        self.parked |= taken.parked;
    }
}
