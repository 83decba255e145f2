//! Numbers with a meaning. Each is its own type, so that a place in the log is never mistaken for a
//! version.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

use crate::codec::{Decode, Encode};
use crate::limits;

/// The place of an entry in its log, from 1, without gaps.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Encode,
    Decode,
    Serialize,
    Deserialize,
)]
#[serde(transparent)]
pub struct Seq(u64);

impl Seq {
    /// The place before the first entry: the head of an empty log.
    pub const ZERO: Self = Self(0);

    /// Makes a place in the log.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Returns the next place.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Returns how many entries this place is after `earlier`; 0 if it is not after it.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The server's number for one state of one record. It grows with each change of that record. The
/// versions of different records have no order. Written `r47`.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Encode,
    Decode,
    Serialize,
    Deserialize,
)]
#[serde(transparent)]
pub struct Version(u64);

impl Version {
    /// Makes a version of the server's number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the server's number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// Names a conflict by its place: the entry that recorded it, and its number in that entry. Written
/// `47.2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConflictId {
    /// The entry.
    pub seq: Seq,
    /// The number of the decision.
    pub number: u32,
}

impl fmt::Display for ConflictId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}", self.seq, self.number))
    }
}

impl FromStr for ConflictId {
    type Err = InvalidConflictId;

    fn from_str(text: &str) -> Result<Self, InvalidConflictId> {
        let (seq, number) = text.split_once('.').ok_or(InvalidConflictId)?;
        let seq = Seq::new(seq.parse().map_err(|_| InvalidConflictId)?);
        Ok(Self { seq, number: number.parse().map_err(|_| InvalidConflictId)? })
    }
}

impl Serialize for ConflictId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Text that is not the id of a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a conflict: expected ENTRY.NUMBER, such as 47.2")]
pub struct InvalidConflictId;

/// The place up to which a device has read one entity type: opaque bytes of the server, at most 256
/// of them.
#[derive(Clone, PartialEq, Eq, Hash, Default, Encode, Decode, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cursor(Vec<u8>);

/// Bytes that cannot be a cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor: expected at most {} bytes as unpadded base64url", limits::CURSOR_BYTES)]
pub struct InvalidCursor;

impl Cursor {
    /// Makes a cursor of the server's bytes.
    ///
    /// # Errors
    /// [`InvalidCursor`] if there are more than [`limits::CURSOR_BYTES`].
    pub fn new(bytes: Vec<u8>) -> Result<Self, InvalidCursor> {
        if bytes.len() > limits::CURSOR_BYTES { Err(InvalidCursor) } else { Ok(Self(bytes)) }
    }

    /// Returns the server's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cursor({})", BASE64URL_NOPAD.encode(&self.0))
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        BASE64URL_NOPAD.encode(&cursor.0)
    }
}

impl TryFrom<String> for Cursor {
    type Error = InvalidCursor;
    fn try_from(text: String) -> Result<Self, InvalidCursor> {
        Self::new(BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| InvalidCursor)?)
    }
}

/// A BLAKE3 hash: an entry's content, an entry's place in the chain, an item's commitment. Written
/// in lower-case hex.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Encode,
    Decode,
    Serialize,
    Deserialize,
)]
#[serde(into = "String", try_from = "String")]
pub struct Hash([u8; 32]);

/// Text that is not a hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a hash: expected 64 hexadecimal digits")]
pub struct InvalidHash;

impl Hash {
    /// The hash before the first entry of a log.
    pub const ZERO: Self = Self([0; 32]);

    /// Makes a hash of its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for Hash {
    type Error = InvalidHash;
    fn try_from(text: String) -> Result<Self, InvalidHash> {
        let bytes =
            data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| InvalidHash)?;
        Ok(Self(bytes.try_into().map_err(|_| InvalidHash)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_conflict_reads_as_it_is_written_and_nothing_else_is_one() {
        let id = ConflictId { seq: Seq::new(47), number: 2 };
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "47", "47.", ".2", "47.2.1", "47.-2", "a.b"] {
            assert_eq!(text.parse::<ConflictId>(), Err(InvalidConflictId), "{text}");
        }
    }
}
