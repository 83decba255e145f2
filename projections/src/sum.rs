//! The sum at the end of every stored row. A row whose bytes were altered on the disk is neither
//! shown nor used.
//!
//! ```text
//!   row (bincode) │ u64 sum over it, little-endian
//! ```
//!
//! The log has hashes, but rows only follow from the log, and the storage engine checks the sums of
//! its pages only during a repair. A row that does not match its sum is damaged, and `fieldbook
//! rebuild` folds it again.
//!
//! Invariants:
//! 1. A change within any eight bytes that the sum reads together is always found: each step maps
//!    states one to one.
//!
//! What it is not: proof against a person who alters a row on purpose. That person can also write
//! the sum, or another log.

/// Appends its sum to a row.
pub(crate) fn put(mut row: Vec<u8>) -> Vec<u8> {
    let sum = of(&row);
    row.extend_from_slice(&sum.to_le_bytes());
    row
}

/// Returns a row without its sum, or `None` if the two do not match.
pub(crate) fn take(stored: &[u8]) -> Option<&[u8]> {
    let (row, sum) = stored.split_last_chunk::<8>()?;
    (of(row) == u64::from_le_bytes(*sum)).then_some(row)
}

fn of(row: &[u8]) -> u64 {
    let (pairs, rest) = row.as_chunks::<16>();
    // Two states that do not depend on each other need half the time of one.
    let (mut even, mut odd) = (step(START, row.len() as u64), ODD);
    for pair in pairs {
        (even, odd) = step_both(even, odd, pair);
    }
    let mut last = [0; 16];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    (even, odd) = step_both(even, odd, &last);
    let sum = step(even, odd.rotate_left(32));
    sum ^ (sum >> 32)
}

fn step_both(even: u64, odd: u64, pair: &[u8; 16]) -> (u64, u64) {
    let both = u128::from_le_bytes(*pair);
    #[expect(clippy::cast_possible_truncation, reason = "each half is wanted alone")]
    (step(even, both as u64), step(odd, (both >> 64) as u64))
}

/// Returns the next state. The step is one to one in the state and in the word: a product with an
/// odd number, and a rotation.
const fn step(state: u64, word: u64) -> u64 {
    (state ^ word).wrapping_mul(ODD).rotate_left(29)
}

/// Makes the sum of zeros different from zero.
const START: u64 = 0x6669_656c_6462_6f6b;
/// The golden ratio's fraction of 2⁶⁴. It is odd, and its bits look random.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_altered_byte_and_every_other_length_is_found() {
        for length in 0..40_u8 {
            let row: Vec<u8> = (0..length).collect();
            let stored = put(row.clone());
            assert_eq!(take(&stored), Some(row.as_slice()));
            for at in 0..stored.len() {
                for bit in 0..8 {
                    let mut altered = stored.clone();
                    altered[at] ^= 1 << bit;
                    assert_eq!(take(&altered), None, "byte {at} of {length}");
                }
                assert_eq!(take(&stored[..at]), None, "cut to {at} of {length}");
            }
            assert_eq!(take(&put(stored.clone())[..stored.len()]), Some(row.as_slice()));
        }
        assert_eq!(take(&[0; 8]), None);
    }

    #[test]
    fn words_that_change_places_are_found() {
        let words = [[1; 8], [2; 8], [3; 8], [4; 8]];
        for (one, other) in [(0, 1), (0, 2), (1, 3), (0, 3)] {
            let mut swapped = words;
            swapped.swap(one, other);
            assert_ne!(of(&words.concat()), of(&swapped.concat()), "{one} and {other}");
        }
    }
}
