//! Finds out whether a page does not get through, for example because a filter in the network
//! refuses a record that another device wrote.
//!
//! ```text
//!   a page ── failed ─▶ neither units nor a page ── failed: the run ends
//!                         └─ answered ─▶ the units, without a page ─▶ an eighth of the page ─▶ …
//!                                                        ─▶ one commit ── failed ─▶ reported
//! ```
//!
//! Invariants:
//! 1. A page counts as the cause only if, after it failed, an exchange with neither units nor a
//!    page was answered.
//! 2. Once a page may be the cause, or an earlier run sent units without an answer, units and pages
//!    are in different exchanges until the run ends. So neither stops the other, and neither counts
//!    as the cause of the other's failure.
//! 3. Everything before the commit that does not get through is read. Nothing is skipped: only the
//!    server can name the cursor behind that commit.
//!
//! What it does not do: remember a refused page. The next run asks for it again.

use fieldbook_core::protocol::Failure;

/// The number of parts into which a failed page is divided.
const PARTS: u32 = 8;

/// The pages of a run: their limits and failures.
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// Whether units and pages are in different exchanges.
    apart: bool,
    /// The most changes to ask for. `None` stands for the number in the options.
    most: Option<u32>,
    /// The limit and the failure of the last page that failed, until the cause is known.
    open: Option<(u32, Failure)>,
    /// Whether a page of this run has failed.
    failed: bool,
    /// The failure of the smallest possible page.
    refused: Option<Failure>,
}

impl Pages {
    /// Starts from the page limit of an earlier run. If that run had to use smaller pages, this run
    /// tries larger pages again and keeps them apart from units.
    pub(super) fn after(most: Option<u32>) -> Self {
        Self { most: most.map(larger), apart: most.is_some(), ..Self::default() }
    }

    /// Returns how many changes to ask for, at most `wanted`.
    pub(super) fn limit(&self, wanted: u32) -> u32 {
        self.most.map_or(wanted, |most| most.min(wanted))
    }

    /// Returns the limit for pages, if it is lower than the options'.
    pub(super) const fn most(&self) -> Option<u32> {
        self.most
    }

    /// Sends units and pages apart from now on.
    pub(super) const fn part(&mut self) {
        self.apart = true;
    }

    pub(super) const fn are_apart(&self) -> bool {
        self.apart
    }

    /// Returns whether the next exchange must have neither units nor a page.
    pub(super) const fn want_neither(&self) -> bool {
        self.open.is_some()
    }

    /// Records that a page without units failed.
    pub(super) fn failed(&mut self, limit: u32, failure: Failure) {
        (self.apart, self.failed) = (true, true);
        self.open = Some((limit, failure));
    }

    /// Records an answer.
    pub(super) fn answered(&mut self, had_page: bool) {
        if had_page {
            self.open = None;
            if !self.failed {
                self.most = self.most.map(larger);
            }
        } else if let Some((limit, failure)) = self.open.take() {
            if limit <= 1 {
                self.refused = Some(failure);
            }
            self.most = Some((limit / PARTS).max(1));
        }
    }

    /// Returns the failure that ended reading, if this run found that no page can be read.
    pub(super) const fn refused(&self) -> Option<&Failure> {
        self.refused.as_ref()
    }
}

const fn larger(limit: u32) -> u32 {
    limit.saturating_mul(PARTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Failure {
        Failure::Unreachable { code: "not_our_server" }
    }

    #[test]
    fn a_page_that_fails_is_asked_for_in_parts_down_to_one_change() {
        let (mut pages, mut limits) = (Pages::default(), Vec::new());
        while pages.refused().is_none() {
            let limit = pages.limit(5_000);
            limits.push(limit);
            pages.failed(limit, failure());
            assert!(pages.want_neither() && pages.are_apart());
            pages.answered(false);
            assert!(!pages.want_neither());
        }
        assert_eq!(limits, [5_000, 625, 78, 9, 1]);
        assert_eq!(pages.most(), Some(1));
    }

    #[test]
    fn pages_stay_small_in_the_run_in_which_one_failed_and_grow_in_the_next() {
        let mut pages = Pages::default();
        pages.failed(5_000, failure());
        pages.answered(false);
        pages.answered(true);
        assert_eq!(pages.limit(5_000), 625);
        let mut pages = Pages::after(Some(1));
        let mut limits = Vec::new();
        for _ in 0..6 {
            limits.push(pages.limit(5_000));
            pages.answered(true);
        }
        assert_eq!(limits, [8, 64, 512, 4_096, 5_000, 5_000]);
    }
}
