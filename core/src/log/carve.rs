//! Finds entries in the raw bytes of a file whose pages cannot be read any more.
//!
//! ```text
//!   bytes ─► where a header may begin ─► entries that decode ─► the longest chain from entry 1, and islands
//! ```
//!
//! The storage engine keeps the bytes of an entry together, and an entry says how long it is. So an
//! entry is found whole wherever it lies, without the tree of pages that leads to it. Older pages
//! may hold further copies of an entry.
//!
//! Invariants:
//! 1. An entry is returned only if all its bytes decode.
//! 2. Of two copies of an entry, the one with more erased items is returned: what was erased does
//!    not come back.
//! 3. The bytes are only read. Memory follows the number of entries, not their size.
//!
//! What it is not: proof. The first entry of an island has no predecessor to be checked against, if
//! none of its neighbours says what its hash has to be.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};

use crate::entry::frame::Frame;
use crate::entry::{Baseline, Control, Entry, FORMAT, Item, Meta, chain};
use crate::limits;
use crate::numbers::{Hash, Seq};
use crate::time::WallTime;

/// The bytes that are searched at a time.
const SEARCHED_AT_ONCE: usize = 4 * 1024 * 1024;
/// The bytes from which one can tell whether a header begins there: its length, and the header up
/// to the length of the actor.
const TELLS: usize = 4 + HEADER_BYTES;
/// The bytes of a header without the actor (`docs/log-format.md`).
const HEADER_BYTES: usize = 43;

/// An entry that was found, and its place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The offset of its first byte.
    pub at: u64,
    /// The number of its bytes.
    pub length: usize,
    /// The seq in its header.
    pub seq: Seq,
    /// The wall clock in its header.
    pub wall: WallTime,
    /// The hash that it carries.
    pub hash: Hash,
    /// The hash with which it was sealed: another one if it is a joint.
    sealed: Hash,
    /// The hash of its content, computed from its bytes.
    content: Hash,
    erased: usize,
    /// Whether it has the state of a baseline, as a joint has.
    is_joint: bool,
}

impl Piece {
    /// Reads the stored bytes of the entry.
    ///
    /// # Errors
    /// The error of the file.
    pub fn read(&self, file: &mut (impl Read + Seek)) -> io::Result<Vec<u8>> {
        read_at(file, self.at, self.length)
    }

    fn follows(&self, previous: &Hash) -> bool {
        chain::link(previous, &self.content) == self.sealed
    }
}

/// The entries of a log that were found in a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pieces {
    /// The entries from the first on, each linked to the one before.
    pub linked: Vec<Piece>,
    /// Later entries, linked among themselves. The entry before each island was not found.
    pub islands: Vec<Vec<Piece>>,
}

impl Pieces {
    /// Takes what follows a gap out of the linked entries if the joint was not found: without it a
    /// baseline is no beginning of a log.
    fn without_half_a_baseline(mut self) -> Self {
        let pairs = self.linked.iter().zip(self.linked.iter().skip(1));
        let gap = pairs.clone().position(|(one, next)| one.seq.next() != next.seq);
        if let Some(gap) = gap.filter(|_| !self.linked.iter().any(|piece| piece.is_joint)) {
            let rest = self.linked.split_off(gap + 1);
            self.islands.insert(0, rest);
        }
        self
    }

    /// Returns the first and the last place of each gap. What came after the last entry is not
    /// known.
    pub fn missing(&self) -> Vec<(Seq, Seq)> {
        let mut next = self.linked.last().map_or(1, |last| last.seq.next().number());
        let mut missing = Vec::new();
        for island in &self.islands {
            let (Some(first), Some(last)) = (island.first(), island.last()) else { continue };
            if first.seq.number() > next {
                missing.push((Seq::new(next), Seq::new(first.seq.number() - 1)));
            }
            next = last.seq.next().number();
        }
        missing
    }
}

/// Searches a file of this many bytes for entries. `progress` is called with the number of searched
/// bytes.
///
/// # Errors
/// The error of the file.
pub fn carve(
    file: &mut (impl Read + Seek),
    bytes: u64,
    mut progress: impl FnMut(u64),
) -> io::Result<Pieces> {
    let mut found: BTreeMap<Seq, Vec<Piece>> = BTreeMap::new();
    let mut at = 0;
    while at < bytes {
        let part = read_at(file, at, SEARCHED_AT_ONCE + TELLS)?;
        let starts = part.windows(TELLS).enumerate().filter(|(_, bytes)| may_begin(bytes));
        for start in starts.map(|(start, _)| start).take_while(|start| *start < SEARCHED_AT_ONCE) {
            let known = part.get(start..).unwrap_or_default();
            let piece = piece_at(file, at + start as u64, known)?;
            if let Some(piece) = with_mark(file, piece)? {
                keep(found.entry(piece.seq).or_default(), piece);
            }
        }
        at += SEARCHED_AT_ONCE as u64;
        progress(at.min(bytes));
    }
    Ok(chained(found))
}

/// Keeps one piece for each hash: the one with the most erased items.
fn keep(pieces: &mut Vec<Piece>, piece: Piece) {
    match pieces.iter_mut().find(|known| known.hash == piece.hash && known.content == piece.content)
    {
        Some(known) if known.erased < piece.erased => *known = piece,
        Some(_) => {}
        None => pieces.push(piece),
    }
}

/// Links the pieces: from the first entry as far as they go, then the islands. An entry that does
/// not follow from the one before it was altered, and is left out.
fn chained(found: BTreeMap<Seq, Vec<Piece>>) -> Pieces {
    let mut pieces = Pieces::default();
    let (mut next, mut previous, mut goes_on) = (Seq::ZERO.next(), Some(Hash::ZERO), true);
    for (seq, candidates) in &found {
        // The next entry of a baseline was sealed after the entry before its gap.
        let is_over_gap =
            || previous.is_some_and(|hash| candidates.iter().any(|piece| piece.follows(&hash)));
        if *seq != next && !is_over_gap() {
            (previous, goes_on) = (None, false);
        }
        // Of several entries that claim a place, the one that the next entry follows.
        let after = found.get(&seq.next());
        let is_followed = |piece: &&Piece| {
            after.is_some_and(|after| after.iter().any(|next| next.follows(&piece.hash)))
        };
        let fits = |piece: &&Piece| previous.is_none_or(|hash| piece.follows(&hash));
        let fitting = || candidates.iter().filter(fits);
        next = seq.next();
        if let Some(piece) = fitting().find(is_followed).or_else(|| fitting().next()) {
            match pieces.islands.last_mut() {
                Some(island) if goes_on => island.push(*piece),
                None if goes_on => pieces.linked.push(*piece),
                _ => pieces.islands.push(vec![*piece]),
            }
            (previous, goes_on) = (Some(piece.hash), true);
        } else {
            // Its bytes were altered; perhaps not the hash, which the next entry then follows.
            let altered = candidates.iter().find(is_followed);
            (previous, goes_on) = (altered.map(|piece| piece.hash), false);
        }
    }
    pieces.without_half_a_baseline()
}

/// Returns whether an entry may begin here: the length of a header, the format, a kind, and the
/// length of an actor that fits.
fn may_begin(bytes: &[u8]) -> bool {
    let [a, b, 0, 0, FORMAT, 1..=3, ..] = bytes else { return false };
    let length = usize::from(u16::from_le_bytes([*a, *b]));
    let actor = bytes.get(TELLS - 1).copied().map(usize::from);
    actor.is_some_and(|actor| actor > 0 && length == HEADER_BYTES + actor)
}

/// Takes the entry at a place. `known` are bytes from there on; more are read if the entry says
/// that it is longer.
fn piece_at(file: &mut (impl Read + Seek), at: u64, known: &[u8]) -> io::Result<Option<Piece>> {
    let mut bytes = Cow::Borrowed(known);
    loop {
        let needs = match Frame::parse_first(&bytes) {
            Ok((_, length)) => return Ok(bytes.get(..length).and_then(|bytes| piece(at, bytes))),
            Err(unparsed) => unparsed.needs.filter(|needs| *needs <= limits::ENTRY_BYTES),
        };
        let Some(needs) = needs else { return Ok(None) };
        let more = read_at(file, at, needs.max(bytes.len().saturating_mul(2)))?;
        if more.len() < needs {
            return Ok(None);
        }
        bytes = Cow::Owned(more);
    }
}

fn piece(at: u64, bytes: &[u8]) -> Option<Piece> {
    // No book has an entry with a part left out.
    let is_of_bundle = |entry: &Entry| entry.told || entry.items.iter().any(Item::is_hidden);
    let entry = Entry::decode(bytes).ok().filter(|entry| !is_of_bundle(entry))?;
    let erased = entry.items.iter().filter(|item| matches!(item, Item::Erased { .. })).count();
    Some(Piece {
        at,
        length: bytes.len(),
        seq: entry.header.seq,
        wall: entry.header.wall,
        hash: entry.hash,
        sealed: entry.joint.unwrap_or(entry.hash),
        content: entry.content,
        erased,
        is_joint: matches!(
            entry.meta,
            Meta::Control(Control::Baseline(Baseline { state: Some(_), .. }))
        ),
    })
}

/// Takes the mark of a joint along, which is before its header.
fn with_mark(file: &mut (impl Read + Seek), piece: Option<Piece>) -> io::Result<Option<Piece>> {
    let Some(found) = piece.filter(|piece| piece.is_joint) else { return Ok(piece) };
    let Some(at) = found.at.checked_sub(MARK_BYTES as u64) else { return Ok(None) };
    let bytes = read_at(file, at, found.length + MARK_BYTES)?;
    Ok(self::piece(at, &bytes))
}

/// The bytes of a mark, with the hash behind it.
const MARK_BYTES: usize = 36;

/// Reads this many bytes, or as many as there are.
fn read_at(file: &mut (impl Read + Seek), at: u64, length: usize) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(length as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Draft, EntryKind, Header, Items, seal};
    use crate::ids::Epoch;
    use crate::names::Actor;
    use crate::random::SeededRandomness;
    use crate::time::Hlc;

    /// Returns the stored bytes of an entry with an item of this size.
    fn entry(seq: u64, size: usize) -> Vec<u8> {
        let header = Header {
            format: FORMAT,
            kind: EntryKind::Control,
            epoch: Epoch::from_bytes([7; 16]),
            seq: Seq::new(seq),
            hlc: Hlc::ZERO,
            wall: WallTime::from_milliseconds(1),
            actor: Actor::parse("ann").unwrap(),
        };
        let mut items = Items::default();
        items.add(vec![1; size], &mut SeededRandomness::from_number(1));
        let draft = Draft { meta: Meta::Control(Control::Decided(Vec::new())), items };
        seal(&header, &draft, &Hash::ZERO).unwrap().bytes
    }

    fn found(bytes: Vec<u8>) -> Vec<u64> {
        let length = bytes.len() as u64;
        let pieces = carve(&mut io::Cursor::new(bytes), length, |_| {}).unwrap();
        let all = pieces.linked.iter().chain(pieces.islands.iter().flatten());
        all.map(|piece| piece.seq.number()).collect()
    }

    #[test]
    fn an_entry_is_found_where_it_lies_and_however_long_it_is() {
        let junk = |size: usize| vec![0xa5; size];
        let beside = [junk(3), entry(1, 10), junk(1), entry(7, 0), junk(9)].concat();
        assert_eq!(found(beside), [1, 7]);
        let over_the_part = [junk(SEARCHED_AT_ONCE - 60), entry(2, 100), junk(5)].concat();
        assert_eq!(found(over_the_part), [2]);
        let longer_than_a_part = [junk(100), entry(3, 2 * SEARCHED_AT_ONCE), junk(5)].concat();
        assert_eq!(found(longer_than_a_part), [3]);
    }

    #[test]
    fn an_entry_that_is_cut_or_says_that_it_is_too_long_is_not_there() {
        let mut cut = entry(1, 100);
        cut.pop();
        assert!(found(cut).is_empty());
        let mut too_long = entry(1, 100);
        let meta = 4 + HEADER_BYTES + 3;
        too_long[meta..meta + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(found(too_long).is_empty());
        // Nor does a place at the end of all numbers stop the search.
        assert_eq!(found([entry(u64::MAX, 1), entry(4, 1)].concat()), [4, u64::MAX]);
    }
}
