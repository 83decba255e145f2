//! Keeps a run within [`Budget::time`](super::Budget::time), within an exchange too.
//!
//! ```text
//!   at first 200 changes, 64 KiB of units ─▶ what an exchange carried ─▶ what half the time left carries
//! ```
//!
//! Invariants:
//! 1. No exchange begins that would take longer than the time left, if it takes as long as the
//!    slowest of the last three of the run.
//! 2. An exchange that is not answered in time is cut short. Its units are frozen in the book, and
//!    the next run asks about them.
//! 3. A page and a batch are small enough for the time left, as far as those before them show. So a
//!    slow network makes them smaller, and each run moves on.
//!
//! What it does not do: cut a commit of the book short. A run can exceed its time by one commit.

use std::collections::VecDeque;
use std::time::Duration;

use fieldbook_core::{Clock, MonotonicTime};

/// How many exchanges tell how long the next one takes.
const REMEMBERED: usize = 3;
/// The most changes of the first page of a run that has an end.
const FIRST_PAGE: u64 = 200;
/// The most bytes of the first units of a run that has an end.
const FIRST_BYTES: u64 = 64 * 1024;
/// How many times larger than the page before a page can be. The same holds for batches.
const GROWTH: u64 = 4;
/// The longest sleep without reading the clock: timers may stop while the device sleeps.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(1);

/// The time that is left of a run.
#[derive(Debug)]
pub(super) struct TimeLeft {
    began: MonotonicTime,
    most: Option<Duration>,
    /// How long the last exchanges took.
    took: VecDeque<Duration>,
    /// The last page.
    page: Carried,
    /// The bytes of the last units.
    batch: Carried,
}

/// A part of an exchange that was answered.
#[derive(Debug, Clone, Copy)]
struct Carried {
    /// How much it was; before the first exchange, how much the first one can be.
    amount: u64,
    /// How long the exchange took; `None` before the first one.
    took: Option<Duration>,
}

impl Carried {
    const fn at_first(amount: u64) -> Self {
        Self { amount, took: None }
    }

    fn answered(&mut self, amount: u64, took: Duration) {
        if amount > 0 {
            *self = Self { amount, took: Some(took) };
        }
    }

    /// Returns how much is carried in half the time that is left. It is never 0.
    fn fits(&self, left: Duration) -> u64 {
        let Some(took) = self.took else { return self.amount };
        let half = u64::try_from(left.as_millis() / 2).unwrap_or(u64::MAX);
        let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        let fits = self.amount.saturating_mul(half) / took;
        fits.min(self.amount.saturating_mul(GROWTH)).max(1)
    }
}

impl TimeLeft {
    /// Begins a run that may take this long.
    pub(super) const fn new(began: MonotonicTime, most: Option<Duration>) -> Self {
        let (page, batch) = (Carried::at_first(FIRST_PAGE), Carried::at_first(FIRST_BYTES));
        Self { began, most, took: VecDeque::new(), page, batch }
    }

    /// Returns whether the run may not take as long as it wants.
    pub(super) const fn has_end(&self) -> bool {
        self.most.is_some()
    }

    /// Returns the time that is left; `None` if the run may take as long as it wants.
    pub(super) fn at(&self, now: MonotonicTime) -> Option<Duration> {
        self.most.map(|most| most.saturating_sub(now.since(self.began)))
    }

    /// Returns whether the time is over for another exchange.
    pub(super) fn is_over(&self, now: MonotonicTime) -> bool {
        let slowest = self.took.iter().max().copied().unwrap_or_default();
        self.at(now).is_some_and(|left| left.is_zero() || left < slowest)
    }

    /// Records an exchange that was answered: how long it took, the number of changes that it asked
    /// for, and the bytes of its units.
    pub(super) fn answered(&mut self, took: Duration, page: u32, bytes: usize) {
        self.took.push_back(took);
        if self.took.len() > REMEMBERED {
            self.took.pop_front();
        }
        self.page.answered(page.into(), took);
        self.batch.answered(bytes as u64, took);
    }

    /// Returns how many changes to ask for, at most `wanted`.
    pub(super) fn page(&self, now: MonotonicTime, wanted: u32) -> u32 {
        let fits = self.at(now).map_or(u64::MAX, |left| self.page.fits(left));
        u32::try_from(fits).unwrap_or(u32::MAX).min(wanted)
    }

    /// Returns how many bytes of units to send, at most `wanted`.
    pub(super) fn batch(&self, now: MonotonicTime, wanted: usize) -> usize {
        let fits = self.at(now).map_or(u64::MAX, |left| self.batch.fits(left));
        usize::try_from(fits).unwrap_or(usize::MAX).min(wanted)
    }

    /// Waits until the time is over; for ever if the run has no end.
    pub(super) async fn over(&self, clock: &dyn Clock) {
        loop {
            match self.at(clock.now().monotonic) {
                None => std::future::pending().await,
                Some(Duration::ZERO) => return,
                Some(left) => tokio::time::sleep(left.min(LOOK_AT_CLOCK)).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> MonotonicTime {
        MonotonicTime::from_milliseconds(milliseconds)
    }

    fn within(milliseconds: u64) -> TimeLeft {
        TimeLeft::new(at(1_000), Some(Duration::from_millis(milliseconds)))
    }

    fn took(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_run_without_an_end_asks_for_what_it_wants() {
        let mut left = TimeLeft::new(at(0), None);
        left.answered(took(10_000), 5_000, 9);
        assert!(!left.is_over(at(u64::MAX)));
        assert_eq!((left.page(at(0), 5_000), left.batch(at(0), 1 << 20)), (5_000, 1 << 20));
    }

    #[test]
    fn no_exchange_begins_that_takes_longer_than_the_time_left() {
        let mut left = within(1_000);
        left.answered(took(300), 0, 0);
        assert_eq!([1_700, 1_701].map(|now| left.is_over(at(now))), [false, true]);
        for _ in 0..REMEMBERED {
            left.answered(took(10), 0, 0);
        }
        assert!(!left.is_over(at(1_701)), "the slow exchange was long ago");
        assert!(left.is_over(at(2_000)) && within(0).is_over(at(1_000)));
    }

    #[test]
    fn pages_grow_from_a_small_one_as_far_as_the_time_left_allows() {
        let mut left = within(10_000);
        let mut pages = Vec::new();
        // Each change takes a millisecond.
        let mut now = 1_000;
        for _ in 0..6 {
            let page = left.page(at(now), 5_000);
            pages.push(page);
            left.answered(took(page.into()), page, 0);
            now += u64::from(page);
        }
        assert_eq!(pages, [200, 800, 3_200, 2_900, 1_450, 725]);
    }

    #[test]
    fn units_are_sized_like_pages() {
        let mut left = within(10_000);
        assert_eq!(left.batch(at(1_000), 1 << 20), 64 * 1024);
        left.answered(took(2_000), 0, 40_000);
        assert_eq!(left.batch(at(3_000), 1 << 20), 80_000);
        assert_eq!(left.page(at(3_000), 5_000), 200, "no page was carried yet");
    }

    #[test]
    fn a_page_over_a_very_slow_network_has_one_change_at_least() {
        let mut left = within(10_000);
        left.answered(took(9_999), 200, 70_000);
        assert_eq!(left.page(at(11_000), 5_000), 1);
    }
}
