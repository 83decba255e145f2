//! How much an exchange may carry: halved when the server or the link has too much of it, doubled when all is well.
//!
//! ```text
//!   50 ── too large ─▶ 25 ── too large ─▶ 12 ── taken ─▶ 18 ── taken ─▶ 18    (ceiling: 3/4 of what was refused last)
//! ```
//!
//! Invariants:
//! 1. Both sizes are between 1 and what the run's options say.
//! 2. A size that was too large is not tried again within the run: each refusal lowers the ceiling by a quarter or
//!    more, so a run makes at most a logarithm's worth of refused exchanges for each unit that is too large alone.

use super::report::RunOptions;

/// How much exchanges carry at present. The caller keeps it from run to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Throttle {
    // `None` is "as much as the options say".
    size: Option<Size>,
    ceiling: Option<Size>,
    /// The most changes of a page that got through; `None` is "as many as the options say".
    pub(super) page: Option<u32>,
}

/// What exchanges carry, or what one did carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) ops: usize,
    pub(super) bytes: usize,
}

impl Size {
    fn of(options: &RunOptions) -> Self {
        Self { ops: options.batch_ops.max(1), bytes: options.batch_bytes.max(1) }
    }

    fn at_most(self, other: Self) -> Self {
        Self { ops: self.ops.min(other.ops), bytes: self.bytes.min(other.bytes) }
    }

    fn halved(self) -> Self {
        Self { ops: (self.ops / 2).max(1), bytes: (self.bytes / 2).max(1) }
    }

    fn doubled(self) -> Self {
        Self { ops: self.ops.saturating_mul(2), bytes: self.bytes.saturating_mul(2) }
    }

    fn three_quarters(self) -> Self {
        let cut = |size: usize| size.saturating_sub((size / 4).max(1)).max(1);
        Self { ops: cut(self.ops), bytes: cut(self.bytes) }
    }
}

impl Throttle {
    /// Starts a run: what was too large in an earlier one may have become possible.
    pub(super) fn begin(&mut self) {
        self.ceiling = None;
    }

    /// Returns what an exchange may carry.
    pub(super) fn size(&self, options: &RunOptions) -> Size {
        let most = Size::of(options);
        self.size.map_or(most, |size| size.at_most(most))
    }

    /// Takes note that units were answered.
    pub(super) fn succeeded(&mut self, options: &RunOptions) {
        let most = Size::of(options);
        let most = self.ceiling.map_or(most, |ceiling| ceiling.at_most(most));
        self.size = self.size.map(|size| size.doubled().at_most(most));
    }

    /// Takes note that an exchange failed in a way that a smaller one might not.
    pub(super) fn failed(&mut self, options: &RunOptions) {
        self.size = Some(self.size(options).halved());
    }

    /// Takes note that an exchange of several units was too large.
    pub(super) fn too_large(&mut self, carried: Size, options: &RunOptions) {
        let ceiling = carried.three_quarters();
        self.ceiling = Some(self.ceiling.map_or(ceiling, |known| known.at_most(ceiling)));
        self.size = Some(self.size(options).at_most(carried).halved());
    }

    /// Takes note that the unit was found that is too large alone: it said nothing about the others.
    pub(super) fn culprit_found(&mut self) {
        *self = Self { page: self.page, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> RunOptions {
        RunOptions { batch_ops: 50, batch_bytes: 1_000, ..RunOptions::default() }
    }

    #[test]
    fn failures_halve_down_to_one_and_successes_double_back() {
        let (mut throttle, options) = (Throttle::default(), options());
        let mut sizes = Vec::new();
        for _ in 0..8 {
            throttle.failed(&options);
            sizes.push(throttle.size(&options).ops);
        }
        assert_eq!(sizes, [25, 12, 6, 3, 1, 1, 1, 1]);
        for _ in 0..12 {
            throttle.succeeded(&options);
        }
        assert_eq!(throttle.size(&options), Size { ops: 50, bytes: 1_000 });
    }

    #[test]
    fn a_size_that_was_too_large_is_not_reached_again_in_the_run_but_in_the_next() {
        let (mut throttle, options) = (Throttle::default(), options());
        throttle.too_large(Size { ops: 40, bytes: 900 }, &options);
        assert_eq!(throttle.size(&options), Size { ops: 20, bytes: 450 });
        for _ in 0..10 {
            throttle.succeeded(&options);
        }
        assert_eq!(throttle.size(&options), Size { ops: 30, bytes: 675 });
        throttle.begin();
        throttle.succeeded(&options);
        assert_eq!(throttle.size(&options), Size { ops: 50, bytes: 1_000 });
    }

    #[test]
    fn options_of_zero_still_send_one_unit() {
        let options = RunOptions { batch_ops: 0, batch_bytes: 0, ..RunOptions::default() };
        assert_eq!(Throttle::default().size(&options), Size { ops: 1, bytes: 1 });
    }

    #[test]
    fn sizes_follow_options_that_become_smaller() {
        let (mut throttle, mut options) = (Throttle::default(), options());
        throttle.failed(&options);
        options.batch_ops = 10;
        assert_eq!(throttle.size(&options).ops, 10);
    }
}
