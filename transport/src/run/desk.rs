//! What the loop asks of a book, and what it tells it.

use fieldbook_core::WallTime;
use fieldbook_core::protocol::{ExchangeAnswer, ExchangeRequest, Failure};

use super::report::SyncReport;

/// The book's side of an exchange. Implemented by the front door.
///
/// [`Self::prepare`], [`Self::accept`] and [`Self::fail`] may block for a durable commit, so the loop calls each on a
/// thread of tokio's blocking pool, one at a time. Each is one commit, whole or not at all: the loop may be dropped
/// between any two of them, and a call that has begun runs to its end.
pub trait Desk: Send + Sync + 'static {
    /// What goes wrong in the book itself, as when its disk fails.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Freezes what is to be sent next, durably before it returns, and builds the request.
    ///
    /// # Errors
    /// If the book cannot be read or written. The run ends.
    fn prepare(&self, ask: &Ask) -> Result<Next, Self::Error>;

    /// Takes an answer in.
    ///
    /// # Errors
    /// If the book cannot be read or written. The run ends.
    fn accept(&self, request: &ExchangeRequest, answer: ExchangeAnswer) -> Result<Taken, Self::Error>;

    /// Builds the request for the page behind `answer`, before that was taken in: the same without units and head claim,
    /// under a fresh request id, with the answer's cursors put over its own. It reads and writes nothing durable and does
    /// not block. `None` makes the loop take the answer in first and [`Self::prepare`] the next request.
    fn follow_up(&self, request: &ExchangeRequest, answer: &ExchangeAnswer) -> Option<ExchangeRequest>;

    /// Takes note that an exchange failed as a whole, and returns what that settled.
    ///
    /// # Errors
    /// If the book cannot be read or written. The run ends.
    fn fail(&self, request: &ExchangeRequest, failure: &Failure) -> Result<Taken, Self::Error>;

    /// Takes note that an exchange with units failed while one without units was answered: the units may be what does not get
    /// through. `strikes` is how many with units have failed so in a row.
    ///
    /// # Errors
    /// If the book cannot be read or written. The run ends.
    fn isolate(
        &self,
        request: &ExchangeRequest,
        failure: &Failure,
        _strikes: u32,
    ) -> Result<Taken, Self::Error> {
        self.fail(request, failure)
    }

    /// Returns what is known of the units that would be sent now and were sent before, by an earlier run. The run then begins
    /// with an exchange without units. It reads nothing durable and does not block.
    fn unanswered(&self) -> Unanswered {
        Unanswered::No
    }

    /// Tells the app what the loop is doing. It must not block.
    fn report(&self, activity: &Activity);
}

/// What the next exchange should carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Whether this is the first round of a run.
    pub first: bool,
    /// Whether units may be sent.
    pub push: bool,
    /// Whether an exchange is wanted even if there is no unit to send.
    pub pull: bool,
    /// The most ops it should carry. A unit that has more goes alone.
    pub batch_ops: usize,
    /// The most bytes of units it should carry. A unit that has more goes alone.
    pub batch_bytes: usize,
    /// How many changes to ask for; 0 for none.
    pub page_limit: u32,
}

/// What [`Desk::prepare`] has.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one of it at a time, and it is taken apart at once")]
pub enum Next {
    /// A request to send.
    Exchange(ExchangeRequest),
    /// Nothing to send now.
    Idle {
        /// When something that is held may be sent.
        next_wake: Option<WallTime>,
    },
}

/// What is known of units that an earlier run sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Unanswered {
    /// There are none, or the server answered for them.
    #[default]
    No,
    /// They have had no answer.
    Sent,
    /// They have had none, and some are known not to get through.
    Suspected,
}

/// What taking an answer in did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// Units the server has accepted.
    pub units_acked: u32,
    /// The ops in them.
    pub ops_acked: u32,
    /// Units that were stale: their records were rebased, and they are planned anew.
    pub units_stale: u32,
    /// Units the server will take later.
    pub units_tried_again: u32,
    /// Units that do not get through and were found: they are tried again by themselves.
    pub units_isolated: u32,
    /// Units of a request that did not get through, one or more of which are meant: they are sent in parts.
    pub units_suspected: u32,
    /// Ops that became dead letters.
    pub ops_dead: u32,
    /// Conflicts that were resolved, or parked for a person.
    pub conflicts: u32,
    /// Changes of the server that were taken in and were not known.
    pub changes: u32,
    /// Whether the server has more changes.
    pub more: bool,
    /// Whether something was parked until the world outside changes.
    pub parked: bool,
    /// Whether the server that the book knows answered after others had, so that what was parked for that goes on.
    pub resumed: bool,
    /// Records of the server that this program cannot hold, and that were set aside.
    pub set_aside: u32,
    /// What the answer says that cannot be. Nothing of it was taken.
    pub misbehaved: Option<&'static str>,
}

impl Taken {
    /// Returns whether a unit was settled or put off, or what was parked goes on. Changes alone are no progress: a page that
    /// brings some moves a cursor too, and one that brings the same for ever must not be asked for, for ever.
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
    /// A request leaves.
    Exchanging {
        /// Its units.
        units: u32,
        /// The ops in them.
        ops: u32,
    },
    /// An answer was taken in; these are the run's sums so far.
    Progress(SyncReport),
    /// The run ended.
    Ended(SyncReport),
    /// The worker waits after failures.
    BackingOff {
        /// Until when, by the wall clock.
        until: WallTime,
        /// How many runs in a row have failed.
        failures: u32,
    },
    /// The worker waits for something to do.
    Waiting {
        /// When it looks by itself, by the wall clock.
        until: WallTime,
    },
    /// The worker was paused.
    Paused,
    /// The worker ended for good: it was shut down, or the book failed.
    Stopped,
}
