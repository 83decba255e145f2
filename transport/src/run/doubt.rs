//! Finds out whether an exchange failed because of its units, or because of the network or the
//! server.
//!
//! ```text
//!   a run    units ── failed: the run ends, as for any failure
//!   the next no units ── failed: the run ends, and nothing is known of the units
//!               └─ answered ─▶ units ── failed ─▶ the book suspects them, in halves ─▶ a page ─▶ units …
//! ```
//!
//! Invariants:
//! 1. Units without an answer are sent again only after an exchange without units was answered. So
//!    pages are read even if no unit ever gets through, and an outage costs one small request per
//!    run.
//! 2. Units are suspected only if an exchange was answered just before or just after they failed.
//! 3. A run makes at most [`IN_A_ROW`] failed exchanges with units in a row. It makes no further
//!    one after a server named a time to come back.

use fieldbook_core::protocol::{ExchangeRequest, Failure};

/// The most exchanges with units that may fail in a row before the run ends. It is enough to find
/// one unit among many.
const IN_A_ROW: u32 = 12;

/// The failures of a run, and the state of their cause.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// The last failure, until an exchange without units shows whether the units caused it.
    open: Option<(ExchangeRequest, Failure)>,
    /// The number of exchanges with units that have failed in a row. All failures of earlier runs
    /// count as one.
    strikes: u32,
    /// Whether the last exchange was answered.
    answered: bool,
}

/// What to do about a failure with units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterFailure {
    /// An exchange was answered just before: the book decides at once.
    Resolve,
    /// The loop asks for a page, and then the book decides.
    AskForPage,
    /// The run ends.
    End,
}

impl Doubt {
    /// Records that an earlier run sent units and got no answer.
    pub(super) fn begin(&mut self) {
        self.strikes = 1;
    }

    /// Returns whether the next exchange must have no units.
    pub(super) fn wants_page(&self) -> bool {
        self.strikes > 0 && !self.answered
    }

    pub(super) fn strikes(&self) -> u32 {
        self.strikes
    }

    /// Returns the failure that is not decided yet.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.open.as_ref().map(|(_, failure)| failure.clone())
    }

    /// Returns whether the most failures in a row are reached.
    pub(super) fn is_enough(&self) -> bool {
        self.strikes >= IN_A_ROW
    }

    /// Records an answer, and returns the failure that it allows to decide about.
    pub(super) fn answered(&mut self, had_units: bool) -> Option<(ExchangeRequest, Failure)> {
        self.answered = true;
        if had_units {
            self.strikes = 0;
        }
        self.open.take()
    }

    /// Records a failure with units.
    pub(super) fn failed(&mut self, request: &ExchangeRequest, failure: &Failure) -> AfterFailure {
        let was_open = std::mem::take(&mut self.answered);
        self.strikes = self.strikes.saturating_add(1);
        if was_open {
            return AfterFailure::Resolve;
        }
        // Our server refuses the same units again. Of any other class, one failure proves nothing.
        let is_certain = matches!(failure, Failure::TooLarge | Failure::Refused { .. });
        let says_nothing = self.strikes == 1 || self.is_enough() || comes_back_later(failure);
        if says_nothing && !is_certain {
            return AfterFailure::End;
        }
        self.open = Some((request.clone(), failure.clone()));
        AfterFailure::AskForPage
    }
}

/// Returns whether the failure names a time to come back.
pub(super) const fn comes_back_later(failure: &Failure) -> bool {
    matches!(failure, Failure::Transient { retry_after: Some(_), .. })
}
