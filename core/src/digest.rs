//! Digests of records: whether a book and a server have the same records, without naming them.
//!
//! A digest of a set of records has their number, and the sum of a mark of each record. It follows
//! a change of one record at a fixed cost, and the digests of two separate sets add up to the
//! digest of both. The sum is taken modulo 2^128. It is no XOR, in which a record that is counted
//! twice would vanish.
//!
//! ```text
//!   mark of a record   the first 16 bytes of BLAKE3 over, little-endian:
//!                        "fieldbook live 1"            sixteen bytes, no length
//!                        entity type                   text: its length (u64), its UTF-8
//!                        record id                     text
//!                        version                       u64
//!   part of a record   the first digits of BLAKE3 over the UTF-8 of its id, in hexadecimal
//! ```
//!
//! What it is not: a proof. Whoever chooses record ids can make two sets with the same digest. It
//! finds faults, not lies.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64_NOPAD;
use serde::{Deserialize, Serialize};

use crate::names::{EntityType, RecordId};
use crate::numbers::Version;

/// The words before the content of a mark.
const MARK: &[u8; 16] = b"fieldbook live 1";

/// The digest of a set of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    /// The number of records.
    pub records: u64,
    /// The sum of their marks, modulo 2^128.
    pub sum: u128,
}

impl Digest {
    /// Returns the digest of one record.
    pub fn of(entity: &EntityType, id: &RecordId, version: Version) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(MARK);
        for text in [entity.as_str(), id.as_str()] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.update(&version.number().to_le_bytes());
        let hash: [u8; 32] = hasher.finalize().into();
        let sum = hash.first_chunk().map_or(0, |mark| u128::from_le_bytes(*mark));
        Self { records: 1, sum }
    }

    /// Returns the digest of two sets without common records.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            records: self.records.wrapping_add(other.records),
            sum: self.sum.wrapping_add(other.sum),
        }
    }

    /// Returns the digest of the rest, after the records of `other` were taken out.
    ///
    /// A change that is not applied yet may be smaller than nothing: its numbers wrap, and
    /// [`Self::plus`] wraps them back.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self {
            records: self.records.wrapping_sub(other.records),
            sum: self.sum.wrapping_sub(other.sum),
        }
    }

    /// Returns the stored form: the number of records and the sum, little-endian.
    pub fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        let (records, sum) = bytes.split_at_mut(8);
        records.copy_from_slice(&self.records.to_le_bytes());
        sum.copy_from_slice(&self.sum.to_le_bytes());
        bytes
    }

    /// Reads the stored form; `None` if these are no such bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (records, sum) = bytes.split_first_chunk::<8>()?;
        let sum = u128::from_le_bytes(sum.try_into().ok()?);
        Some(Self { records: u64::from_le_bytes(*records), sum })
    }
}

/// A part of the records of an entity type: those whose [`Place`] begins with certain hexadecimal
/// digits. Written as these digits, at most eight; the part without digits has all records.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Part {
    /// The digits as a number.
    digits: u32,
    /// How many digits there are.
    count: u8,
}

/// Where a record is among the parts: the first eight digits of the hash of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(u32);

impl Place {
    /// Returns the place of a record.
    pub fn of(id: &RecordId) -> Self {
        let hash: [u8; 32] = blake3::hash(id.as_str().as_bytes()).into();
        Self(hash.first_chunk().map_or(0, |first| u32::from_be_bytes(*first)))
    }

    /// Returns the number of its part among the 256 largest.
    pub const fn first_byte(self) -> u8 {
        self.0.to_be_bytes()[0]
    }
}

/// Finds the part of a record among parts of which none is within another.
#[derive(Debug, Clone)]
pub struct PartsByPlace {
    /// The first place of each part and its index, in order.
    from: Vec<(u32, usize)>,
    parts: Vec<Part>,
}

impl PartsByPlace {
    /// Makes the finder.
    pub fn new(parts: &[Part]) -> Self {
        let first = |part: &Part| part.shift().map_or(0, |shift| part.digits << shift);
        let mut from: Vec<_> = parts.iter().map(first).zip(0..).collect();
        from.sort_unstable();
        Self { from, parts: parts.to_vec() }
    }

    /// Returns the index of the part that has a place.
    pub fn find(&self, place: Place) -> Option<usize> {
        let behind = self.from.partition_point(|(first, _)| *first <= place.0);
        let (_, index) = self.from.get(behind.checked_sub(1)?)?;
        self.parts.get(*index).filter(|part| part.has(place)).map(|_| *index)
    }
}

/// Text that is no part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a part: expected at most 8 lower-case hexadecimal digits")]
pub struct InvalidPart;

impl Part {
    /// The part that has all records.
    pub const ALL: Self = Self { digits: 0, count: 0 };
    /// The most digits of a part.
    pub const DIGITS: u8 = 8;

    /// Returns the part of all records whose place has this first byte.
    pub const fn of_first_byte(byte: u8) -> Self {
        Self { digits: byte as u32, count: 2 }
    }

    /// Returns whether a record is in this part.
    pub fn has(self, place: Place) -> bool {
        self.shift().is_none_or(|shift| place.0 >> shift == self.digits)
    }

    /// Returns by how many digits a part is smaller than the whole.
    pub const fn digits(self) -> u8 {
        self.count
    }

    /// Returns the number of parts that this part is divided into: 256 if it has all records, else
    /// 16; 0 if it cannot be divided.
    pub const fn divisions(self) -> usize {
        match self.count {
            0 => 256,
            Self::DIGITS.. => 0,
            _ => 16,
        }
    }

    /// Returns the parts that this part is divided into, in order.
    pub fn divided(self) -> impl Iterator<Item = Self> {
        let more = if self.count == 0 { 2 } else { 1 };
        let number = u32::try_from(self.divisions()).unwrap_or_default();
        (0..number).map(move |next| Self {
            digits: self.digits << (4 * more) | next,
            count: self.count + more,
        })
    }

    /// Returns the index of a record's part among [`Self::divided`]; `None` if the record is not in
    /// this part, or the part cannot be divided.
    pub fn division_of(self, place: Place) -> Option<usize> {
        let is_divided = self.divisions() > 0 && self.has(place);
        let shift = 32 - 4 * u32::from(self.count + if self.count == 0 { 2 } else { 1 }).min(8);
        let most = u32::try_from(self.divisions()).unwrap_or_default();
        is_divided.then(|| ((place.0 >> shift) % most.max(1)) as usize)
    }

    /// Returns by how many bits a place is shifted to leave the digits of a part; `None` for a part
    /// without digits.
    fn shift(self) -> Option<u32> {
        (self.count > 0).then(|| 32 - 4 * u32::from(self.count))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            0 => Ok(()),
            count => write!(f, "{:0width$x}", self.digits, width = usize::from(count)),
        }
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({self})")
    }
}

impl FromStr for Part {
    type Err = InvalidPart;

    fn from_str(text: &str) -> Result<Self, InvalidPart> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        let count = u8::try_from(text.len()).map_err(|_| InvalidPart)?;
        if count > Self::DIGITS || !text.bytes().all(is_digit) {
            return Err(InvalidPart);
        }
        let digits = if count == 0 { Ok(0) } else { u32::from_str_radix(text, 16) };
        Ok(Self { digits: digits.map_err(|_| InvalidPart)?, count })
    }
}

impl From<Part> for String {
    fn from(part: Part) -> Self {
        part.to_string()
    }
}

impl TryFrom<String> for Part {
    type Error = InvalidPart;

    fn try_from(text: String) -> Result<Self, InvalidPart> {
        text.parse()
    }
}

/// The digests of the parts that a part is divided into, in order. Written as unpadded base64 of 20
/// bytes for each: the number of records (u32) and the sum (u128), little-endian.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digests(Vec<Digest>);

/// Text that is no list of digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a list of digests: expected unpadded base64 of at most 256 times 20 bytes")]
pub struct InvalidDigests;

/// The size of a digest in [`Digests`].
const PACKED: usize = 20;

impl Digests {
    /// Makes a list; numbers of records above 2^32 - 1 are written as that.
    pub const fn new(digests: Vec<Digest>) -> Self {
        Self(digests)
    }

    /// Returns the digests.
    pub fn as_slice(&self) -> &[Digest] {
        &self.0
    }
}

impl From<Digests> for String {
    fn from(digests: Digests) -> Self {
        let mut bytes = Vec::with_capacity(PACKED * digests.0.len());
        for digest in &digests.0 {
            let records = u32::try_from(digest.records).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&records.to_le_bytes());
            bytes.extend_from_slice(&digest.sum.to_le_bytes());
        }
        BASE64_NOPAD.encode(&bytes)
    }
}

impl TryFrom<String> for Digests {
    type Error = InvalidDigests;

    fn try_from(text: String) -> Result<Self, InvalidDigests> {
        let most = Part::ALL.divisions() * PACKED;
        if text.len() > most.div_ceil(3) * 4 {
            return Err(InvalidDigests);
        }
        let bytes = BASE64_NOPAD.decode(text.as_bytes()).map_err(|_| InvalidDigests)?;
        let (digests, []) = bytes.as_chunks::<PACKED>() else { return Err(InvalidDigests) };
        let read = |bytes: &[u8; PACKED]| {
            let (records, sum) = bytes.split_first_chunk::<4>()?;
            let sum = u128::from_le_bytes(sum.try_into().ok()?);
            Some(Digest { records: u32::from_le_bytes(*records).into(), sum })
        };
        digests.iter().map(read).collect::<Option<_>>().map(Self).ok_or(InvalidDigests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, version: u64) -> Digest {
        Digest::of(
            &EntityType::parse("lead").unwrap(),
            &RecordId::parse(id).unwrap(),
            Version::new(version),
        )
    }

    #[test]
    fn the_order_of_records_does_not_matter_and_a_record_that_is_there_twice_shows() {
        let (one, other) = (record("1", 7), record("2", 9));
        assert_eq!(one.plus(other), other.plus(one));
        assert_eq!(one.plus(other).minus(one), other);
        // With XOR these two were nothing.
        assert_ne!(one.plus(one), Digest::default());
        assert_ne!(record("1", 7).sum, record("1", 8).sum);
        assert_ne!(record("1", 7).sum, record("17", 7).sum);
    }

    /// The digest is part of the protocol: these bytes never change.
    #[test]
    fn the_mark_of_a_record_is_the_documented_one() {
        let framed = [
            b"fieldbook live 1".as_slice(),
            &4u64.to_le_bytes(),
            b"lead",
            &2u64.to_le_bytes(),
            b"42",
            &7u64.to_le_bytes(),
        ];
        let hash: [u8; 32] = blake3::hash(&framed.concat()).into();
        assert_eq!(record("42", 7).sum, u128::from_le_bytes(hash[..16].try_into().unwrap()));
        assert_eq!(format!("{:032x}", record("42", 7).sum), "b9141b4bc9c200251d84e2ffbb2ffd34");
    }

    #[test]
    fn each_record_is_in_one_part_of_each_division() {
        for number in 0..500 {
            let place = Place::of(&RecordId::parse(&number.to_string()).unwrap());
            let mut part = Part::ALL;
            while part.divisions() > 0 {
                let at = part.division_of(place).unwrap();
                let inside: Vec<_> =
                    part.divided().enumerate().filter(|(_, part)| part.has(place)).collect();
                assert_eq!(inside.len(), 1, "{place:?} in {part}");
                assert_eq!(inside[0].0, at);
                part = inside[0].1;
            }
            assert_eq!(part.digits(), Part::DIGITS);
            assert_eq!(part.division_of(place), None);
            let first = Part::of_first_byte(place.first_byte());
            assert!(first.has(place) && part.to_string().starts_with(&first.to_string()));
        }
    }

    #[test]
    fn the_part_of_a_place_is_found_among_many() {
        let parts: Vec<Part> =
            ["a7", "0", "ffe", "8a3", "8a1"].map(|text| text.parse().unwrap()).into();
        let finder = PartsByPlace::new(&parts);
        for number in 0..5_000 {
            let place = Place::of(&RecordId::parse(&number.to_string()).unwrap());
            assert_eq!(finder.find(place), parts.iter().position(|part| part.has(place)));
        }
        assert_eq!(PartsByPlace::new(&[]).find(Place(7)), None);
        assert_eq!(PartsByPlace::new(&[Part::ALL]).find(Place(u32::MAX)), Some(0));
    }

    #[test]
    fn parts_and_digests_are_read_as_they_are_written_and_nothing_else_is() {
        for text in ["", "0", "a7", "00", "12345678", "ffffffff"] {
            assert_eq!(text.parse::<Part>().unwrap().to_string(), text);
        }
        for text in ["g", "A7", "123456789", "+1", "é"] {
            assert_eq!(text.parse::<Part>(), Err(InvalidPart), "{text}");
        }
        let digests = Digests::new(vec![record("1", 7), Digest::default(), record("2", 9)]);
        let text = String::from(digests.clone());
        assert_eq!(text.len(), 80);
        assert_eq!(Digests::try_from(text), Ok(digests));
        for text in ["AAA", "!", &"A".repeat(7_000)] {
            assert_eq!(Digests::try_from(text.to_owned()), Err(InvalidDigests), "{}", text.len());
        }
        let stored = record("1", 7).to_bytes();
        assert_eq!(Digest::from_bytes(&stored), Some(record("1", 7)));
        assert_eq!(Digest::from_bytes(&stored[1..]), None);
    }
}
