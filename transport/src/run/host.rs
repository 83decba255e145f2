//! The interface between the loop and the book.

use fieldbook_core::WallTime;
use fieldbook_core::protocol::{ExchangeAnswer, ExchangeRequest, Failure};
use tokio::sync::watch;

use super::report::{Left, SyncReport};

/// The book's side of an exchange. The crate `fieldbook` implements it.
///
/// [`Self::prepare`], [`Self::apply_answer`] and [`Self::fail`] may block for a durable commit. The
/// loop calls them on tokio's blocking threads, one call at a time. Each call is one commit, whole
/// or not at all. The loop may be dropped between two calls; a call that has begun runs to its end.
pub trait SyncHost: Send + Sync + 'static {
    /// An error of the book itself, such as a disk that fails.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Plans and freezes the next units, makes them durable, and builds the request.
    ///
    /// # Errors
    /// If the book cannot be read or written. The run ends.
    fn prepare(&self, ask: &ExchangeParams) -> Result<NextStep, Self::Error>;

    /// Applies an answer.
    ///
    /// # Errors
    /// If the book cannot be read or written. The run ends.
    fn apply_answer(
        &self,
        request: &ExchangeRequest,
        answer: ExchangeAnswer,
    ) -> Result<ExchangeCounts, Self::Error>;

    /// Builds the request for the page after `answer` before `answer` is applied. It is the same
    /// request without units and head claim, with a new request id and with the answer's cursors.
    /// The call reads and writes nothing durable and does not block. With `None` the loop applies
    /// the answer first and then calls [`Self::prepare`].
    fn follow_up(
        &self,
        request: &ExchangeRequest,
        answer: &ExchangeAnswer,
    ) -> Option<ExchangeRequest>;

    /// Records that an exchange failed as a whole, and returns what the book decided.
    ///
    /// # Errors
    /// If the book cannot be read or written. The run ends.
    fn fail(
        &self,
        request: &ExchangeRequest,
        failure: &Failure,
    ) -> Result<ExchangeCounts, Self::Error>;

    /// Decides about units whose exchange failed while an exchange without units was answered:
    /// perhaps these units do not get through. `strikes` is the number of such failures in a row.
    ///
    /// # Errors
    /// If the book cannot be read or written. The run ends.
    fn isolate(
        &self,
        request: &ExchangeRequest,
        failure: &Failure,
        _strikes: u32,
    ) -> Result<ExchangeCounts, Self::Error> {
        self.fail(request, failure)
    }

    /// Returns what is known of the units that an earlier run sent without an answer and that would
    /// be sent now. If there are any, the run begins with an exchange without units. The call reads
    /// nothing durable and does not block.
    fn unanswered(&self) -> Unanswered {
        Unanswered::No
    }

    /// Returns the number of times that the book went away and came back: odd while it is away. A
    /// run that notices a change ends like one that is cancelled, and a worker waits until the book
    /// is back. `None` if the book never goes away.
    fn turns(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// Returns whether an error only says that the book is away.
    fn is_away(_error: &Self::Error) -> bool {
        false
    }

    /// Returns what a run leaves undone, as far as the book knows. The call reads nothing durable
    /// and does not block.
    fn left(&self) -> Left;

    /// Reports the loop's activity to the app. The call must not block.
    fn report(&self, activity: &Activity);
}

/// What the next exchange should carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeParams {
    /// Whether this is the first exchange of a run.
    pub first: bool,
    /// Whether units may be sent.
    pub push: bool,
    /// Whether to exchange even if there is no unit to send.
    pub pull: bool,
    /// The most ops. A unit with more ops is sent alone.
    pub batch_ops: usize,
    /// The most bytes of units. A larger unit is sent alone.
    pub batch_bytes: usize,
    /// The most changes to ask for. 0 asks for none.
    pub page_limit: u32,
}

/// What [`SyncHost::prepare`] returns.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "only one exists at a time, and it is taken apart at once"
)]
pub enum NextStep {
    /// A request to send.
    Exchange(ExchangeRequest),
    /// Nothing to send now.
    Idle {
        /// When an op that is held may be sent.
        next_wake: Option<WallTime>,
    },
}

/// What is known of units that an earlier run sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Unanswered {
    /// There are no such units, or the server answered for them.
    #[default]
    No,
    /// The server has not answered for them.
    Sent,
    /// The server has not answered for them, and some are known not to get through.
    Suspected,
}

/// What an applied answer, or a failure, changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExchangeCounts {
    /// Units that the server accepted.
    pub units_acked: u32,
    /// The ops in these units.
    pub ops_acked: u32,
    /// Units that were stale or ahead: their ops are planned again.
    pub units_stale: u32,
    /// Units with a transient answer. They are sent again later.
    pub units_tried_again: u32,
    /// Units that were found not to get through: each of them is sent alone from now on.
    pub units_isolated: u32,
    /// Units of a request that did not get through, of which one or more are the cause: they are
    /// sent in parts.
    pub units_suspected: u32,
    /// Ops that became dead letters.
    pub ops_dead: u32,
    /// Conflicts that were resolved, or parked for a person.
    pub conflicts: u32,
    /// Changes of the server that the book applied and that were new to the book.
    pub changes: u32,
    /// Whether the server has more changes.
    pub more: bool,
    /// Whether an op, an actor, an entity type or the server was parked.
    pub parked: bool,
    /// Whether the server that the book knows answered after other servers had, so that ops parked
    /// for that reason resume.
    pub resumed: bool,
    /// Records of the server that this program cannot hold. They were set aside.
    pub set_aside: u32,
    /// The error code of an answer that cannot be true. None of it was applied.
    pub misbehaved: Option<&'static str>,
}

impl ExchangeCounts {
    /// Returns whether a unit ended or was put off, or parked ops resume. Changes alone are no
    /// progress: a page with new changes moves a cursor too, and the loop must not ask for the same
    /// page for ever.
    pub(super) fn progressed(&self) -> bool {
        let counts = [
            self.units_acked,
            self.units_stale,
            self.units_tried_again,
            self.units_isolated,
            self.units_suspected,
            self.ops_acked,
            self.ops_dead,
            self.conflicts,
        ];
        self.parked || self.resumed || counts.iter().any(|count| *count > 0)
    }
}

/// What the loop is doing.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Activity {
    /// A run began.
    Started,
    /// A request is being sent.
    Exchanging {
        /// The number of units in it.
        units: u32,
        /// The number of ops in these units.
        ops: u32,
    },
    /// An answer was applied. These are the sums of the run so far.
    Progress(SyncReport),
    /// The run ended.
    Ended(SyncReport),
    /// The worker waits after failures.
    BackingOff {
        /// The end of the wait, by the wall clock.
        until: WallTime,
        /// The number of runs in a row that failed.
        failures: u32,
    },
    /// The worker waits for work.
    Waiting {
        /// The time of the next run that needs no wake, by the wall clock.
        until: WallTime,
    },
    /// The worker was paused.
    Paused,
    /// The worker ended for good, by a shutdown or by an error of the book.
    Stopped,
}
