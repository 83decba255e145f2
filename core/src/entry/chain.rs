//! The hashes of a log. They never change: every released book, and every other program that
//! verifies one, depends on them.
//!
//! ```text
//!   commitment = blake3("fieldbook/1/item\0"    ‖ salt[16] ‖ u32 length ‖ bytes)
//!   content    = blake3("fieldbook/1/content\0" ‖ u32 length ‖ header ‖ u32 length ‖ meta ‖ u32 count ‖ commitment[32] …)
//!   hash       = blake3("fieldbook/1/link\0"    ‖ hash of the entry before[32] ‖ content[32])
//! ```
//!
//! Numbers are little-endian. The hash before the first entry is [`Hash::ZERO`], 32 zero bytes.

use crate::numbers::Hash;

const ITEM: &[u8] = b"fieldbook/1/item\0";
const CONTENT: &[u8] = b"fieldbook/1/content\0";
const LINK: &[u8] = b"fieldbook/1/link\0";

/// Returns the commitment to an erasable value.
pub fn commitment(salt: &[u8; 16], bytes: &[u8]) -> Hash {
    let mut hashing = Hashing::of(ITEM);
    hashing.add(salt);
    hashing.add(&length(bytes));
    hashing.add(bytes);
    hashing.hash()
}

/// Returns the commitment to an erasable value in its stored layout: salt, length, bytes.
pub(super) fn commitment_of_stored(stored: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(ITEM);
    hasher.update(stored);
    Hash::from_bytes(*hasher.finalize().as_bytes())
}

/// The hash of an entry's content, computed while the entry is written.
pub(super) struct Content(blake3::Hasher);

impl Content {
    /// Begins the hash with the header, the meta part and the number of items, in their stored
    /// layout.
    pub(super) fn begin(beginning: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(CONTENT);
        hasher.update(beginning);
        Self(hasher)
    }

    /// Adds the next item's commitment.
    pub(super) fn add(&mut self, commitment: &Hash) {
        self.0.update(commitment.as_bytes());
    }

    /// Returns the hash.
    pub(super) fn end(self) -> Hash {
        Hash::from_bytes(*self.0.finalize().as_bytes())
    }
}

/// Hashes the content of an entry.
pub fn content(
    header: &[u8],
    meta: &[u8],
    commitments: impl ExactSizeIterator<Item = Hash>,
) -> Hash {
    let mut hashing = Hashing::of(CONTENT);
    hashing.add(&length(header));
    hashing.add(header);
    hashing.add(&length(meta));
    hashing.add(meta);
    hashing.add(&u32::try_from(commitments.len()).unwrap_or(u32::MAX).to_le_bytes());
    commitments.for_each(|commitment| hashing.add(commitment.as_bytes()));
    hashing.hash()
}

/// Links an entry to the one before it.
pub fn link(previous: &Hash, content: &Hash) -> Hash {
    let mut bytes = [0; LINK.len() + 64];
    let (words, hashes) = bytes.split_at_mut(LINK.len());
    let (before, after) = hashes.split_at_mut(32);
    words.copy_from_slice(LINK);
    before.copy_from_slice(previous.as_bytes());
    after.copy_from_slice(content.as_bytes());
    Hash::from_bytes(*blake3::hash(&bytes).as_bytes())
}

/// The bytes to hash, part by part. As long as they are few they are collected first: passing a few
/// bytes to a hasher costs about as much as hashing them.
struct Hashing {
    bytes: [u8; 512],
    length: usize,
    /// The hasher for bytes that were too many to collect. It is large, so it is boxed and made
    /// only then.
    hasher: Option<Box<blake3::Hasher>>,
}

impl Hashing {
    fn of(domain: &[u8]) -> Self {
        let mut hashing = Self { bytes: [0; 512], length: 0, hasher: None };
        hashing.add(domain);
        hashing
    }

    fn add(&mut self, part: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.length..self.length + part.len()) {
            place.copy_from_slice(part);
            self.length += part.len();
        } else {
            let (together, _) = self.bytes.split_at(self.length);
            let hasher = self.hasher.get_or_insert_with(Box::default);
            hasher.update(together).update(part);
            self.length = 0;
        }
    }

    fn hash(&mut self) -> Hash {
        let (together, _) = self.bytes.split_at(self.length);
        let hash = match &mut self.hasher {
            Some(hasher) => hasher.update(together).finalize(),
            None => blake3::hash(together),
        };
        Hash::from_bytes(*hash.as_bytes())
    }
}

/// Follows a chain from a known hash through the contents of the entries after it.
pub fn extend(from: &Hash, contents: &[Hash]) -> Hash {
    contents.iter().fold(*from, |previous, content| link(&previous, content))
}

/// Returns a length as four bytes. Every part is bounded by `limits::ENTRY_BYTES`, far below 2³².
fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_together_first_hashes_as_the_parts_told_one_by_one() {
        let value: Vec<u8> = (0..=u8::MAX).cycle().take(1_500).collect();
        // Lengths around the collected part, around a chunk of the hash, and well beyond both.
        for bytes in (0..1_500)
            .filter(|length| *length < 600 || (1_000..1_060).contains(length) || *length > 1_490)
        {
            let (value, _) = value.split_at(bytes);
            let mut hasher = blake3::Hasher::new();
            hasher.update(ITEM).update(&[7; 16]).update(&length(value)).update(value);
            assert_eq!(
                commitment(&[7; 16], value).as_bytes(),
                hasher.finalize().as_bytes(),
                "{bytes} bytes"
            );

            let commitments = [Hash::from_bytes([1; 32]), Hash::from_bytes([2; 32])];
            let mut hasher = blake3::Hasher::new();
            hasher
                .update(CONTENT)
                .update(&length(value))
                .update(value)
                .update(&length(value))
                .update(value);
            hasher.update(&2u32.to_le_bytes()).update(&[1; 32]).update(&[2; 32]);
            let hashing = content(value, value, commitments.into_iter());
            assert_eq!(hashing.as_bytes(), hasher.finalize().as_bytes(), "twice {bytes} bytes");
        }
    }
}
