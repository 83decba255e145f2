//! Random choices from a seed: every choice of a simulated world, so that the seed alone determines
//! the run.

use fieldbook_core::{Randomness, SeededRandomness};

/// A stream of choices that is wholly determined by its seed.
pub struct Dice(SeededRandomness);

impl Dice {
    /// Starts a stream.
    pub fn new(seed: u64) -> Self {
        Self(SeededRandomness::from_number(seed))
    }

    /// Draws a number below `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    /// Draws an index of a list with this length; 0 for an empty one.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    /// Draws a number between two, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most.saturating_sub(least) + 1)
    }

    /// Returns true this many times in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    /// Draws an element of a list.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.index(from.len()))
    }

    /// Draws an index by these weights; `None` if all are zero.
    pub fn weighted(&mut self, weights: &[u64]) -> Option<usize> {
        let sum = weights.iter().sum();
        let mut left = if sum == 0 { return None } else { self.below(sum) };
        weights.iter().position(|weight| {
            let here = left < *weight;
            left = left.saturating_sub(*weight);
            here
        })
    }

    /// Draws the seed of another stream.
    pub fn seed(&mut self) -> u64 {
        self.below(u64::MAX)
    }
}

impl std::fmt::Debug for Dice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dice")
    }
}
