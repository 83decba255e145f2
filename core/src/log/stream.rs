//! What surrounds the entries of an exported log: the first line, the cover and the end.
//!
//! Invariants:
//! 1. A stream of version 2 that ends without its end block is cut off. So is one whose last entry
//!    is not the one on its cover.
//! 2. The end block has the hash of every byte before it, so no byte of the cover changes
//!    unnoticed. It has no key, and proves nothing against anybody who can write the file.
//! 3. Reading allocates no memory for bytes that do not exist.
//! 4. Only a bundle has told entries.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use super::export::checked_length;
use super::verify::{Damage, DamageKind, Walk};
use crate::entry::EntryError;
use crate::entry::frame::Mark;
use crate::numbers::{Hash, Seq};
use crate::redaction::Wanted;

/// The first line of a stream of version 1: entries alone.
pub(super) const BEGINS_1: &[u8] = b"fieldbook-log 1\n";
/// The first line of a stream of version 2.
pub(super) const BEGINS_2: &[u8] = b"fieldbook-log 2\n";

/// The form of a block with the hash of an entry's content, and what a bundle tells of the entry.
pub(super) const TOLD: u8 = 0;
/// The form of a block with an entry as it is stored.
pub(super) const ENTRY: u8 = 1;
/// The form of a block with a joint: the hash with which it was sealed, and the entry.
pub(super) const JOINT: u8 = 2;
/// The form of the last block.
pub(super) const END: u8 = 255;

/// What a stream says of itself before its entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cover {
    /// The first entry.
    from: Seq,
    /// The hash of the last entry; none for an empty log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head: Option<Hash>,
    /// What the stream is.
    kind: String,
    /// The program that made a bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made_by: Option<String>,
    /// What a bundle leaves out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    redaction: Option<Redaction>,
    /// The last entry.
    to: Seq,
}

/// What a bundle leaves out, as its cover says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redaction {
    /// The records that the bundle is about; empty for all.
    #[serde(rename = "for")]
    pub records: Vec<String>,
    /// `keep` or `hide`.
    pub ids: String,
    /// `all` or `none`.
    pub rule: String,
    /// The fields that are shown.
    pub shown: Vec<String>,
    /// The bundle is about what was recorded after this entry.
    pub since: Seq,
}

impl Redaction {
    pub(super) fn of(wanted: &Wanted) -> Self {
        let word = |is: bool, yes: &str, no: &str| if is { yes } else { no }.to_owned();
        Self {
            records: wanted.records.iter().map(ToString::to_string).collect(),
            ids: word(wanted.hides_ids, "hide", "keep"),
            rule: word(wanted.whole, "none", "all"),
            shown: wanted.shown.iter().map(ToString::to_string).collect(),
            since: wanted.since,
        }
    }
}

const LOG: &str = "log";
const BUNDLE: &str = "bundle";

impl Cover {
    /// Returns the cover of a whole log.
    pub(super) fn of_log(to: Seq, head: Option<Hash>) -> Self {
        let kind = LOG.to_owned();
        Self { from: Seq::ZERO.next(), head, kind, made_by: None, redaction: None, to }
    }

    /// Returns the cover of a bundle.
    pub(super) fn of_bundle(
        to: Seq,
        head: Option<Hash>,
        made_by: &str,
        redaction: Redaction,
    ) -> Self {
        let (kind, made_by) = (BUNDLE.to_owned(), Some(made_by.to_owned()));
        Self { kind, made_by, redaction: Some(redaction), ..Self::of_log(to, head) }
    }

    /// Returns the block of a cover.
    pub(super) fn block(&self) -> Vec<u8> {
        // Numbers, a hash and a word always have a text.
        let text = serde_json::to_vec(self).unwrap_or_default();
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        [length.to_le_bytes().as_slice(), &text].concat()
    }
}

/// The most bytes of a cover that are read: a later version may say more.
const COVER_BYTES: usize = 64 * 1024;

/// Returns the last block of a stream, from the hash of everything before it.
pub(super) fn end_block(before: &blake3::Hasher) -> Vec<u8> {
    let length = END_BYTES.to_le_bytes();
    [length.as_slice(), &[END], before.finalize().as_bytes()].concat()
}

/// Returns the form of a block with a stored entry, and what the block has of it.
pub(super) fn form_of(stored: &[u8]) -> (u8, &[u8]) {
    let (mark, content) = Mark::of(stored);
    let form = match mark {
        None => ENTRY,
        Some(Mark::Told) => TOLD,
        Some(Mark::Joint) => JOINT,
    };
    (form, content)
}

/// The length of the last block: its form and a hash.
const END_BYTES: u32 = 33;

/// Where a reader of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// At an entry, which is in the buffer.
    Entry,
    /// At the end, and the stream is whole.
    End,
}

/// A stream that is being read.
pub(super) struct Streamed<'r, R> {
    reader: &'r mut R,
    /// The bytes of the cover, and the hash of what was read; none for version 1.
    whole: Option<(Vec<u8>, blake3::Hasher)>,
    /// Whether the end is compared with what was read. After damage it says nothing more.
    compares: bool,
}

impl<'r, R: Read> Streamed<'r, R> {
    /// Reads what is before the first entry.
    pub(super) fn begin(
        reader: &'r mut R,
        buffer: &mut Vec<u8>,
        walk: &Walk,
    ) -> Result<Self, Damage> {
        fill(reader, BEGINS_2.len(), buffer).map_err(|error| walk.unreadable(error))?;
        if buffer == BEGINS_1 {
            return Ok(Self { reader, whole: None, compares: true });
        }
        if buffer != BEGINS_2 {
            return Err(walk.unreadable(NO_LOG));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(buffer);
        let Some(length) = length(reader, buffer).map_err(|error| walk.unreadable(error))? else {
            return Err(walk.unreadable(CUT_OFF));
        };
        hasher.update(buffer);
        if length > COVER_BYTES {
            return Err(walk.unreadable("its cover is longer than any"));
        }
        fill(reader, length, buffer).map_err(|error| walk.unreadable(error))?;
        if buffer.len() < length {
            return Err(walk.unreadable(CUT_OFF));
        }
        hasher.update(buffer);
        // The cover is believed at the end, once its bytes are known to be the written ones.
        Ok(Self { reader, whole: Some((buffer.clone(), hasher)), compares: true })
    }

    /// Returns whether the cover names a bundle. It is believed at the end.
    pub(super) fn is_bundle(&self) -> bool {
        self.redaction().is_some()
    }

    /// Returns what the cover of a bundle says.
    pub(super) fn redaction(&self) -> Option<Redaction> {
        let (cover, _) = self.whole.as_ref()?;
        let cover: Cover = serde_json::from_slice(cover).ok()?;
        cover.redaction.filter(|_| cover.kind == BUNDLE)
    }

    /// Goes on after damage.
    pub(super) const fn go_on(&mut self) {
        self.compares = false;
    }

    /// Reads the next entry into the buffer.
    pub(super) fn next(&mut self, buffer: &mut Vec<u8>, walk: &Walk) -> Result<Place, Damage> {
        let length = length(self.reader, buffer).map_err(|error| walk.unreadable(error))?;
        let Some((cover, hasher)) = &mut self.whole else {
            return match length {
                Some(length) => entry(self.reader, length, buffer, walk),
                None if buffer.is_empty() => Ok(Place::End),
                None => Err(walk.unreadable(CUT_OFF)),
            };
        };
        let (Some(length), prefix) = (length, buffer.clone()) else {
            return Err(walk.unreadable(CUT_OFF));
        };
        fill(self.reader, 1, buffer).map_err(|error| walk.unreadable(error))?;
        let (form, rest) = (buffer.first().copied(), length.checked_sub(1));
        match (form, rest) {
            (Some(ENTRY), Some(rest)) => {
                hasher.update(&prefix);
                hasher.update(&[ENTRY]);
                entry(self.reader, rest, buffer, walk)?;
                hasher.update(buffer);
                Ok(Place::Entry)
            }
            (Some(form @ (TOLD | JOINT)), Some(rest)) => {
                hasher.update(&prefix);
                hasher.update(&[form]);
                entry(self.reader, rest, buffer, walk)?;
                hasher.update(buffer);
                let mark = if form == TOLD { Mark::Told } else { Mark::Joint };
                buffer.splice(..0, mark.bytes().iter().copied());
                Ok(Place::Entry)
            }
            (Some(END), Some(blake3::OUT_LEN)) => {
                fill(self.reader, blake3::OUT_LEN + 1, buffer)
                    .map_err(|error| walk.unreadable(error))?;
                if buffer.len() < blake3::OUT_LEN {
                    return Err(walk.unreadable(CUT_OFF));
                }
                if self.compares {
                    let is_sum = buffer.as_slice() == hasher.finalize().as_bytes().as_slice();
                    let fault = if is_sum { fault_of(cover, walk) } else { Some(OTHER_SUM) };
                    fault.map_or(Ok(()), |fault| Err(walk.unreadable(fault)))?;
                }
                Ok(Place::End)
            }
            (None, _) => Err(walk.unreadable(CUT_OFF)),
            _ => Err(walk.unreadable("this program does not know this part of it")),
        }
    }
}

/// Returns why a stream is not the whole log that its cover says.
fn fault_of(cover: &[u8], walk: &Walk) -> Option<&'static str> {
    let Ok(cover) = serde_json::from_slice::<Cover>(cover) else {
        return Some("this program cannot read its cover");
    };
    let is_known = cover.kind == LOG || (cover.kind == BUNDLE && cover.redaction.is_some());
    if !is_known || cover.from != Seq::ZERO.next() {
        return Some("it is not a whole log, and this program reads no part of one");
    }
    let head = walk.done.head;
    let is_last = head.map_or(Seq::ZERO, |head| head.seq) == cover.to
        && head.map(|head| head.hash) == cover.head;
    (!is_last).then_some("it does not end with the entry on its cover")
}

/// Reads this many bytes of an entry into the buffer.
fn entry(
    reader: &mut impl Read,
    length: usize,
    buffer: &mut Vec<u8>,
    walk: &Walk,
) -> Result<Place, Damage> {
    let unframed =
        |source: EntryError| Damage { seq: walk.next(), kind: DamageKind::Unframed { source } };
    checked_length(length).map_err(unframed)?;
    fill(reader, length, buffer).map_err(|error| walk.unreadable(error))?;
    if buffer.len() < length { Err(walk.unreadable(CUT_OFF)) } else { Ok(Place::Entry) }
}

/// Reads a length. None if the stream ends before it or within it; its bytes are in the buffer.
fn length(reader: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
    fill(reader, LENGTH_BYTES, buffer)?;
    let length = <[u8; LENGTH_BYTES]>::try_from(buffer.as_slice()).ok();
    Ok(length.map(|length| usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX)))
}

/// Reads this many bytes, or as many as exist. Allocates no memory for bytes that do not exist.
fn fill(reader: &mut impl Read, length: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    reader.take(length as u64).read_to_end(buffer)?;
    Ok(())
}

const LENGTH_BYTES: usize = 4;
const CUT_OFF: &str = "the exported log is cut off here";
const OTHER_SUM: &str = "the bytes of the exported log differ from the sum at its end";
const NO_LOG: &str =
    "this is not an exported log: it does not begin with `fieldbook-log 1` or `fieldbook-log 2`";

const _: () = assert!(END_BYTES as usize == 1 + blake3::OUT_LEN);
