//! Whether the units of a request are what does not get through, or the network or the server is.
//!
//! ```text
//!   a run    units ── failed: the run ends, as for any failure
//!   the next no units ── failed: the run ends, and nothing is known of the units
//!               └─ answered ─▶ units ── failed ─▶ the book suspects them, in halves ─▶ a page ─▶ units …
//! ```
//!
//! Invariants:
//! 1. What had no answer is sent again only after an exchange without units was answered. So pages are read even if no unit
//!    ever gets through, and an outage costs one small request a run.
//! 2. Units are blamed only if an exchange was answered just before or just after they failed.
//! 3. A run makes at most [`IN_A_ROW`] failed exchanges with units in a row, and none after a server that said when to come
//!    back.

use fieldbook_core::protocol::{ExchangeRequest, Failure};

/// How many exchanges with units may fail in a row before the run ends: enough to find one among many.
const IN_A_ROW: u32 = 12;

/// What a run knows of its failures.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// What failed last, until an exchange without units says whose fault it was.
    open: Option<(ExchangeRequest, Failure)>,
    /// How many exchanges with units have failed in a row, those of earlier runs counted as one.
    strikes: u32,
    /// Whether the last exchange was answered.
    answered: bool,
}

/// What is to be done about a failure with units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The way was open just before: the book decides at once.
    Settle,
    /// A page is asked for, and then the book decides.
    Ask,
    /// The run ends.
    End,
}

impl Doubt {
    /// Says that units were sent by an earlier run and had no answer.
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

    /// Returns what failed and was not settled.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.open.as_ref().map(|(_, failure)| failure.clone())
    }

    /// Returns whether the run has failed in a row as often as it may.
    pub(super) fn is_enough(&self) -> bool {
        self.strikes >= IN_A_ROW
    }

    /// Takes note of an answer, and returns what is to be settled by it.
    pub(super) fn answered(&mut self, had_units: bool) -> Option<(ExchangeRequest, Failure)> {
        self.answered = true;
        if had_units {
            self.strikes = 0;
        }
        self.open.take()
    }

    /// Takes note of a failure with units.
    pub(super) fn failed(&mut self, request: &ExchangeRequest, failure: &Failure) -> Next {
        let was_open = std::mem::take(&mut self.answered);
        self.strikes = self.strikes.saturating_add(1);
        if was_open {
            return Next::Settle;
        }
        // What our server refuses it refuses again; of anything else, one failure says nothing.
        let is_certain = matches!(failure, Failure::TooLarge | Failure::Refused { .. });
        let says_nothing = self.strikes == 1 || self.is_enough() || comes_back_later(failure);
        if says_nothing && !is_certain {
            return Next::End;
        }
        self.open = Some((request.clone(), failure.clone()));
        Next::Ask
    }
}

/// Returns whether whoever answered said when to come back.
pub(super) const fn comes_back_later(failure: &Failure) -> bool {
    matches!(failure, Failure::Transient { retry_after: Some(_), .. })
}
