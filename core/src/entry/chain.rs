//! The hashes of format 1. Set in stone: every released book and every other program that verifies one depends on them.
//!
//! ```text
//!   commitment = blake3("fieldbook/1/item\0"    ‖ salt[16] ‖ u32 length ‖ bytes)
//!   content    = blake3("fieldbook/1/content\0" ‖ u32 length ‖ header ‖ u32 length ‖ meta ‖ u32 count ‖ commitment[32] …)
//!   hash       = blake3("fieldbook/1/link\0"    ‖ hash of the entry before[32] ‖ content[32])
//! ```
//!
//! Numbers are little-endian. Before the first entry stands the hash of 32 zero bytes' value: [`Hash::ZERO`].

use crate::numbers::Hash;

const ITEM: &[u8] = b"fieldbook/1/item\0";
const CONTENT: &[u8] = b"fieldbook/1/content\0";
const LINK: &[u8] = b"fieldbook/1/link\0";

/// Commits to an erasable value.
pub fn commitment(salt: &[u8; 16], bytes: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(ITEM);
    hasher.update(salt);
    hasher.update(&length(bytes));
    hasher.update(bytes);
    Hash::from_bytes(*hasher.finalize().as_bytes())
}

/// Commits to an erasable value as it is laid out in an entry: salt, length, bytes.
pub(super) fn commitment_of_stored(stored: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(ITEM);
    hasher.update(stored);
    Hash::from_bytes(*hasher.finalize().as_bytes())
}

/// The hash of what an entry says, while the entry is laid out.
pub(super) struct Content(blake3::Hasher);

impl Content {
    /// Begins with the header, the meta part and the number of items as they are laid out.
    pub(super) fn begin(said: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(CONTENT);
        hasher.update(said);
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

/// Hashes what an entry says.
pub fn content(header: &[u8], meta: &[u8], commitments: impl ExactSizeIterator<Item = Hash>) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(CONTENT);
    hasher.update(&length(header));
    hasher.update(header);
    hasher.update(&length(meta));
    hasher.update(meta);
    hasher.update(&u32::try_from(commitments.len()).unwrap_or(u32::MAX).to_le_bytes());
    for commitment in commitments {
        hasher.update(commitment.as_bytes());
    }
    Hash::from_bytes(*hasher.finalize().as_bytes())
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

/// Follows a chain from a known hash through the contents of the entries after it.
pub fn extend(from: &Hash, contents: &[Hash]) -> Hash {
    contents.iter().fold(*from, |previous, content| link(&previous, content))
}

/// Every part is bounded by `limits::ENTRY_BYTES`, far below 2³².
fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes()
}
