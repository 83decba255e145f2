//! The options and the report of a run.

use std::time::Duration;

use fieldbook_core::protocol::Failure;
use fieldbook_core::{WallTime, limits};

use super::MOST_EXCHANGES;
use super::host::ExchangeCounts;
use super::wait_after::WaitAfter;

/// What a run may do, and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOptions {
    /// The most ops of one exchange.
    pub batch_ops: usize,
    /// The most bytes of units of one exchange.
    pub batch_bytes: usize,
    /// The most changes to ask for at a time.
    pub page_limit: u32,
    /// Whether to send no units.
    pub pull_only: bool,
    /// Whether to ask for no changes.
    pub push_only: bool,
    /// What the run may cost.
    pub budget: Budget,
    /// The most exchanges of the run, failed exchanges included. [`MOST_EXCHANGES`] is the upper
    /// limit. Only a run of two or more exchanges can find units that do not get through.
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

/// What a run may cost. The run checks bytes and ops between exchanges, so the last exchange may
/// exceed them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// The longest time that the run may take. The wait for an answer is cut short at its end; a
    /// commit is not, so the run can take longer by one commit. A run with an end asks for pages
    /// that fit into the time left.
    pub time: Option<Duration>,
    /// The most bytes of bodies, both directions together.
    pub bytes: Option<u64>,
    /// The most ops that may be sent.
    pub ops: Option<u64>,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncReport {
    /// The number of exchanges that began.
    pub exchanges: u32,
    /// Bytes of bodies sent in exchanges that were answered.
    pub bytes_sent: u64,
    /// Bytes of bodies received in exchanges that were answered.
    pub bytes_received: u64,
    /// Units that left the device, or may have left. A unit that is sent twice counts twice. A unit
    /// of a request that reached no server does not count.
    pub units_sent: u64,
    /// The ops in these units.
    pub ops_sent: u64,
    /// Units that the server accepted.
    pub units_acked: u64,
    /// The ops in these units.
    pub ops_acked: u64,
    /// Units that were stale or ahead.
    pub units_stale: u64,
    /// Units with a transient answer. They are sent again later.
    pub units_tried_again: u64,
    /// Units that do not get through although others do. A unit that is tried twice counts twice.
    pub units_isolated: u64,
    /// Ops that became dead letters.
    pub ops_dead: u64,
    /// Conflicts that were recorded.
    pub conflicts: u64,
    /// Changes of the server that were applied.
    pub changes: u64,
    /// Records of the server that this program cannot hold. They were set aside.
    pub set_aside: u64,
    /// Whether an op, an actor, an entity type or the server was parked.
    pub parked: bool,
    /// Why the run ended.
    pub stopped: Stopped,
    /// What the run has left to do.
    pub left: Left,
    /// The earliest time at which another run has something to do, by the wall clock; `None` if
    /// nothing is known to be due.
    ///
    /// | the run | the time |
    /// |---|---|
    /// | was cut short with something left | at once |
    /// | failed | after the least wait for this failure |
    /// | ended idle | when a held op may be sent |
    ///
    /// An app that the operating system wakes passes it on.
    pub next_run: Option<WallTime>,
}

/// What a run has left to do, for an operating system that wants to know whether to run it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Left {
    /// The ops that are not at the server yet.
    pub ops: u64,
    /// Whether the server has changes that were not read, as far as the run knows.
    pub pages: bool,
    /// Whether something waits for a person: a dead letter, a parked or held op, a server or a user
    /// without credentials. No run changes that.
    pub for_person: bool,
}

impl Left {
    /// Makes the part that a book knows: its pending ops, and whether something waits for a person.
    pub const fn of_book(ops: u64, for_person: bool) -> Self {
        Self { ops, pages: false, for_person }
    }

    /// Returns whether there is nothing left.
    pub const fn is_nothing(&self) -> bool {
        self.ops == 0 && !self.pages && !self.for_person
    }
}

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stopped {
    /// There is nothing more to send or to ask for.
    Idle,
    /// An exchange failed as a whole.
    Failed(Failure),
    /// The next change of the server does not get through, although exchanges without it do:
    /// something in the network refuses its content. Everything before it was read, and all units
    /// were sent. The next run asks for it again.
    PageRefused(Failure),
    /// The budget is used up.
    BudgetSpent(Limit),
    /// The run made [`RunOptions::max_exchanges`] exchanges. Another run may continue.
    ExchangesSpent,
    /// Exchanges changed nothing, although the book or the server wanted to continue: two in a row,
    /// or [`limits::EMPTY_PAGES`] pages in a row that moved a cursor and brought no news.
    NoProgress,
    /// The caller cancelled the run.
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
            left: Left::default(),
            next_run: None,
        }
    }

    /// Returns when another run has something to do. Until the run ends, `next_run` is when a held
    /// op may be sent.
    pub(super) fn when_next(&self, now: WallTime) -> Option<WallTime> {
        match &self.stopped {
            Stopped::Idle => self.next_run,
            Stopped::BudgetSpent(_) | Stopped::ExchangesSpent | Stopped::Cancelled => {
                (!self.left.is_nothing()).then_some(now)
            }
            Stopped::Failed(failure) | Stopped::PageRefused(failure) => {
                Some(now.plus(WaitAfter::of(failure).least()))
            }
            Stopped::NoProgress => Some(now.plus(limits::BACKOFF_MOST)),
        }
    }

    pub(super) fn add(&mut self, taken: &ExchangeCounts) {
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
