//! Randomness as an argument.
//!
//! Nothing in this crate draws randomness by itself. [`SeededRandomness`] makes a stream of bytes
//! from a 32-byte seed. The crate `fieldbook` seeds it once from the operating system, a simulation
//! from its own seed.

/// A source of random bytes that the caller passes in.
pub trait Randomness: Send {
    /// Fills the whole slice.
    fn fill(&mut self, bytes: &mut [u8]);

    /// Draws a number below `bound`; 0 for a bound of 0.
    ///
    /// The modulo bias is below 2⁻³² for bounds below 2³². That is enough for the backoff, and is
    /// not meant for keys.
    fn below(&mut self, bound: u64) -> u64 {
        let mut bytes = [0u8; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes).checked_rem(bound).unwrap_or(0)
    }
}

/// Random bytes from a seed: the extended output of BLAKE3 keyed with the seed, read in buffers.
///
/// With a secret seed the output cannot be distinguished from random bytes (BLAKE3 paper, section
/// 2.6). So salts and ids drawn from it are as good as those of the operating system, with far
/// fewer system calls.
pub struct SeededRandomness {
    output: blake3::OutputReader,
    buffer: [u8; 1024],
    used: usize,
}

impl SeededRandomness {
    /// Starts a stream that the seed alone determines.
    pub fn new(seed: [u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&seed);
        hasher.update(b"fieldbook randomness 1");
        Self { output: hasher.finalize_xof(), buffer: [0; 1024], used: 1024 }
    }

    /// Starts a stream from a small number, for simulations and tests.
    pub fn from_number(seed: u64) -> Self {
        Self::new(*blake3::hash(&seed.to_le_bytes()).as_bytes())
    }
}

impl Randomness for SeededRandomness {
    fn fill(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            if self.used == self.buffer.len() {
                self.output.fill(&mut self.buffer);
                self.used = 0;
            }
            let available = self.buffer.get(self.used..).unwrap_or_default();
            let count = available.len().min(bytes.len());
            let (now, later) = bytes.split_at_mut(count);
            now.copy_from_slice(available.get(..count).unwrap_or_default());
            self.used += count;
            bytes = later;
        }
    }
}

impl std::fmt::Debug for SeededRandomness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SeededRandomness")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bytes_however_they_are_drawn() {
        let mut whole = [0u8; 5000];
        SeededRandomness::from_number(7).fill(&mut whole);
        let mut pieces = SeededRandomness::from_number(7);
        let mut drawn = Vec::new();
        while drawn.len() < whole.len() {
            let mut piece = vec![0u8; (drawn.len() % 97 + 1).min(whole.len() - drawn.len())];
            pieces.fill(&mut piece);
            drawn.extend(piece);
        }
        assert_eq!(drawn, whole);
    }

    #[test]
    fn a_bound_of_zero_draws_zero() {
        assert_eq!(SeededRandomness::from_number(1).below(0), 0);
    }
}
