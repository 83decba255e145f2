//! The size of a batch: halved when the server or the network cannot carry it, doubled when all is
//! well.
//!
//! ```text
//!   50 ── too large ─▶ 25 ── too large ─▶ 12 ── accepted ─▶ 18 ── accepted ─▶ 18    (ceiling: 3/4 of the last refused size)
//! ```
//!
//! Invariants:
//! 1. Both sizes are between 1 and the run's options.
//! 2. A size that was too large is not tried again within the run: each refusal lowers the ceiling
//!    by a quarter or more. So for each unit that is too large alone, the number of refused
//!    exchanges grows with the logarithm of the batch size only.

use super::report::RunOptions;

/// The present size of batches. The caller keeps it from run to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchSizer {
    // `None` stands for the run's options.
    size: Option<Size>,
    ceiling: Option<Size>,
    /// The most changes of a page that got through. `None` stands for the run's options.
    pub(super) page: Option<u32>,
}

/// The size of a batch.
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

impl BatchSizer {
    /// Starts a run. A size that was too large in an earlier run may be possible now.
    pub(super) fn begin(&mut self) {
        self.ceiling = None;
    }

    /// Returns the most that an exchange may carry.
    pub(super) fn size(&self, options: &RunOptions) -> Size {
        let most = Size::of(options);
        self.size.map_or(most, |size| size.at_most(most))
    }

    /// Records that units were answered.
    pub(super) fn succeeded(&mut self, options: &RunOptions) {
        let most = Size::of(options);
        let most = self.ceiling.map_or(most, |ceiling| ceiling.at_most(most));
        self.size = self.size.map(|size| size.doubled().at_most(most));
    }

    /// Records a failure that a smaller exchange might avoid.
    pub(super) fn failed(&mut self, options: &RunOptions) {
        self.size = Some(self.size(options).halved());
    }

    /// Records that an exchange of several units was too large.
    pub(super) fn too_large(&mut self, carried: Size, options: &RunOptions) {
        let ceiling = carried.three_quarters();
        self.ceiling = Some(self.ceiling.map_or(ceiling, |known| known.at_most(ceiling)));
        self.size = Some(self.size(options).at_most(carried).halved());
    }

    /// Resets the size after a single unit was too large alone: the other units were not the cause.
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
        let (mut sizer, options) = (BatchSizer::default(), options());
        let mut sizes = Vec::new();
        for _ in 0..8 {
            sizer.failed(&options);
            sizes.push(sizer.size(&options).ops);
        }
        assert_eq!(sizes, [25, 12, 6, 3, 1, 1, 1, 1]);
        for _ in 0..12 {
            sizer.succeeded(&options);
        }
        assert_eq!(sizer.size(&options), Size { ops: 50, bytes: 1_000 });
    }

    #[test]
    fn a_size_that_was_too_large_is_not_reached_again_in_the_run_but_in_the_next() {
        let (mut sizer, options) = (BatchSizer::default(), options());
        sizer.too_large(Size { ops: 40, bytes: 900 }, &options);
        assert_eq!(sizer.size(&options), Size { ops: 20, bytes: 450 });
        for _ in 0..10 {
            sizer.succeeded(&options);
        }
        assert_eq!(sizer.size(&options), Size { ops: 30, bytes: 675 });
        sizer.begin();
        sizer.succeeded(&options);
        assert_eq!(sizer.size(&options), Size { ops: 50, bytes: 1_000 });
    }

    #[test]
    fn options_of_zero_still_send_one_unit() {
        let options = RunOptions { batch_ops: 0, batch_bytes: 0, ..RunOptions::default() };
        assert_eq!(BatchSizer::default().size(&options), Size { ops: 1, bytes: 1 });
    }

    #[test]
    fn sizes_follow_options_that_become_smaller() {
        let (mut sizer, mut options) = (BatchSizer::default(), options());
        sizer.failed(&options);
        options.batch_ops = 10;
        assert_eq!(sizer.size(&options).ops, 10);
    }
}
