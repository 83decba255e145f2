//! The layout of an entry in bytes. It is format 2, described for other programs in
//! `docs/log-format.md`.
//!
//! ```text
//!   u32 length of header │ header
//!   u32 length of meta   │ meta (bincode)
//!   u32 number of items  │ item …
//!   hash[32]
//!
//!   header  u8 format │ u8 kind │ epoch[16] │ u64 seq │ u64 hlc │ i64 wall ms │ u8 length │ actor (UTF-8)
//!   item    u8 1 │ salt[16] │ u32 length │ bytes          present
//!           u8 0 │ commitment[32]                         erased
//!           u8 2 │ commitment[32] │ u32 length │ told     hidden, only in a bundle
//!
//!   told entry, only in a bundle:     u32 2³²−1 │ content[32] │ an entry that says what is told of it
//!   joint, the last entry of a baseline:  u32 2³²−2 │ sealed hash[32] │ an entry that ends with the hash of the
//!                                     entry whose place it has
//! ```
//!
//! Numbers are little-endian. Reading never panics, and allocates no more memory than the bytes
//! justify.

use std::collections::BTreeSet;

use super::{EntryError, EntryKind, FORMAT, Header, Item, ItemIndex, ItemValue, Sealed, chain};
use crate::codec::CodecError;
use crate::ids::Epoch;
use crate::limits;
use crate::names::Actor;
use crate::numbers::{Hash, Seq};
use crate::time::{Hlc, WallTime};

/// A stored entry taken apart. Its meta part is still bytes.
#[derive(Debug)]
pub struct Frame<'a> {
    /// The fixed beginning, read.
    pub header: Header,
    /// The meta part, not read.
    pub meta: &'a [u8],
    /// The stored hash in the chain.
    pub hash: Hash,
    header_bytes: &'a [u8],
    items: Vec<StoredItem<'a>>,
    /// The hash of the content of an entry that a bundle only tells of.
    sealed: Option<Hash>,
    /// The hash with which a joint was sealed.
    joint: Option<Hash>,
}

/// Why bytes do not begin with an entry.
#[derive(Debug)]
pub struct Unparsed {
    /// The fault.
    pub error: EntryError,
    /// If the bytes end too early: how many there have to be at least.
    pub needs: Option<usize>,
}

/// An item, borrowed from the stored bytes.
#[derive(Debug, Clone, Copy)]
enum StoredItem<'a> {
    Present { salt: &'a [u8; 16], bytes: &'a [u8] },
    Erased { commitment: &'a [u8; 32] },
    Hidden { commitment: &'a [u8; 32], told: &'a [u8] },
}

impl<'a> Frame<'a> {
    /// Takes stored bytes apart.
    ///
    /// # Errors
    /// [`EntryError::Frame`], [`EntryError::NewerFormat`] or [`EntryError::OlderFormat`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EntryError> {
        let (frame, length) = Self::parse_first(bytes).map_err(|unparsed| unparsed.error)?;
        if length != bytes.len() {
            return Err(EntryError::Frame { at: length, what: "the end" });
        }
        Ok(frame)
    }

    /// Takes apart the entry with which the bytes begin. Returns it with the number of its bytes.
    ///
    /// # Errors
    /// [`Unparsed`] with the error of [`Self::parse`].
    pub fn parse_first(bytes: &'a [u8]) -> Result<(Self, usize), Unparsed> {
        let mut reader = Reader { bytes, at: 0, needs: None };
        match Self::read(&mut reader) {
            Ok(frame) => Ok((frame, reader.at)),
            Err(error) => Err(Unparsed { error, needs: reader.needs }),
        }
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, EntryError> {
        let joint = reader.marked(JOINT, "the sealed hash of a joint")?;
        let sealed = reader.marked(TOLD, "the content of a told entry")?;
        let header_bytes = reader.block("the header")?;
        let header = parse_header(header_bytes)?;
        let meta = reader.block("the meta part")?;
        let count = reader.number("the number of items")?;
        // An item has at least 21 bytes, so a false count cannot reserve more than the bytes could
        // hold.
        let mut items = Vec::with_capacity(count.min(reader.left() / 21));
        for _ in 0..count {
            items.push(reader.item()?);
        }
        let hash = Hash::from_bytes(*reader.array("the hash")?);
        Ok(Self { header, meta, hash, header_bytes, items, sealed, joint })
    }

    /// Returns the kind of a stored entry without taking it apart; `None` if the bytes are too few
    /// or the kind is not known.
    pub fn kind_of(bytes: &[u8]) -> Option<EntryKind> {
        let mut at = 0;
        for mark in [JOINT, TOLD] {
            at += if bytes.get(at..)?.first_chunk() == Some(&mark) { PREFIX } else { 0 };
        }
        // The length of the header, and the format, come before it.
        match bytes.get(at + 5)? {
            1 => Some(EntryKind::Intent),
            2 => Some(EntryKind::Upstream),
            3 => Some(EntryKind::Control),
            _ => None,
        }
    }

    /// Returns whether a bundle only tells of the entry.
    pub const fn is_told(&self) -> bool {
        self.sealed.is_some()
    }

    /// Returns the hash with which a joint was sealed, after the entry before it in the baseline. Its
    /// [`Self::hash`] is that of the entry whose place it has, which the next entry extends.
    pub const fn joint(&self) -> Option<Hash> {
        self.joint
    }

    /// Returns the hash with which the entry was sealed.
    pub fn sealed_hash(&self) -> Hash {
        self.joint.unwrap_or(self.hash)
    }

    /// Returns the entry as it is stored once it is sealed after another entry. Its content stays.
    #[cfg(feature = "store")]
    pub(crate) fn sealed_after(&self, previous: &Hash) -> (Vec<u8>, Hash) {
        let hash = chain::link(previous, &self.content());
        let mut bytes = self.rewritten(|_| Keeps::All);
        let without_hash = bytes.len().saturating_sub(hash.as_bytes().len());
        bytes.truncate(without_hash);
        bytes.extend_from_slice(hash.as_bytes());
        (bytes, hash)
    }

    /// Computes the hash of the content from the bytes. Of a told entry it is the hash that the
    /// bundle has.
    pub fn content(&self) -> Hash {
        if let Some(content) = self.sealed {
            return content;
        }
        chain::content(self.header_bytes, self.meta, self.items.iter().map(StoredItem::commitment))
    }

    /// Copies the items out.
    pub fn items_owned(&self) -> Vec<Item> {
        self.items.iter().map(StoredItem::owned).collect()
    }

    /// Returns the entry as it is stored once some items are erased: each is replaced by its
    /// commitment, so every hash stays. `items` are the indices, and those that do not exist, or
    /// were erased before, change nothing.
    pub fn without(&self, items: &BTreeSet<ItemIndex>) -> Vec<u8> {
        self.rewritten(|index| if items.contains(&index) { Keeps::Nothing } else { Keeps::All })
    }

    /// Returns the entry as a bundle has it, with every hash as it was. `keeps` says for each
    /// present item what is left of it.
    pub(crate) fn hiding(&self, keeps: impl FnMut(ItemIndex) -> Keeps) -> Vec<u8> {
        self.rewritten(keeps)
    }

    fn rewritten(&self, mut keeps: impl FnMut(ItemIndex) -> Keeps) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (mark, hash) in [(JOINT, &self.joint), (TOLD, &self.sealed)] {
            if let Some(hash) = hash {
                bytes.extend_from_slice(&mark);
                bytes.extend_from_slice(hash.as_bytes());
            }
        }
        for part in [self.header_bytes, self.meta] {
            write_number(&mut bytes, part.len());
            bytes.extend_from_slice(part);
        }
        write_number(&mut bytes, self.items.len());
        for (index, item) in (0..).zip(&self.items) {
            let StoredItem::Present { salt, bytes: value } = item else {
                write_item(&mut bytes, &item.owned());
                continue;
            };
            match keeps(index) {
                Keeps::All => {
                    bytes.push(1);
                    bytes.extend_from_slice(*salt);
                    write_number(&mut bytes, value.len());
                    bytes.extend_from_slice(value);
                }
                Keeps::Nothing => {
                    write_item(&mut bytes, &Item::Erased { commitment: item.commitment() });
                }
                Keeps::Told(told) => {
                    write_item(&mut bytes, &Item::Hidden { commitment: item.commitment(), told });
                }
            }
        }
        bytes.extend_from_slice(self.hash.as_bytes());
        bytes
    }

    /// Returns how many items a bundle left out.
    pub fn hidden(&self) -> usize {
        self.items.iter().filter(|item| matches!(item, StoredItem::Hidden { .. })).count()
    }

    /// Returns how many of these have told fields.
    pub fn told_items(&self) -> usize {
        let tells = |item: &&StoredItem<'_>| matches!(item, StoredItem::Hidden { told, .. } if !told.is_empty());
        self.items.iter().filter(tells).count()
    }

    /// Returns how many items were erased.
    pub fn erased(&self) -> usize {
        self.items.iter().filter(|item| matches!(item, StoredItem::Erased { .. })).count()
    }
}

impl StoredItem<'_> {
    fn commitment(&self) -> Hash {
        match self {
            Self::Present { salt, bytes } => chain::commitment(salt, bytes),
            Self::Erased { commitment } | Self::Hidden { commitment, .. } => {
                Hash::from_bytes(**commitment)
            }
        }
    }

    fn owned(&self) -> Item {
        match *self {
            Self::Present { salt, bytes } => {
                Item::Present { salt: *salt, value: ItemValue::Bytes(bytes.to_vec()) }
            }
            Self::Erased { commitment } => {
                Item::Erased { commitment: Hash::from_bytes(*commitment) }
            }
            Self::Hidden { commitment, told } => {
                Item::Hidden { commitment: Hash::from_bytes(*commitment), told: told.to_vec() }
            }
        }
    }
}

/// What is left of a present item.
pub(crate) enum Keeps {
    /// All of it.
    All,
    /// Its commitment: it was erased.
    Nothing,
    /// Its commitment, and what a bundle tells of it.
    Told(Vec<u8>),
}

/// The bytes before a told entry: no header is so long.
const TOLD: [u8; 4] = [0xff; 4];
/// The bytes before a joint.
const JOINT: [u8; 4] = [0xfe, 0xff, 0xff, 0xff];
/// How many bytes are before a marked entry itself: the mark and a hash.
const PREFIX: usize = 36;

/// Returns the stored form of a joint: a sealed entry that stands in the place of another one,
/// whose hash the next entry extends.
#[cfg(feature = "store")]
pub(crate) fn joint(sealed: &Sealed, place_of: &Hash) -> Vec<u8> {
    let without_hash = sealed.bytes.len().saturating_sub(sealed.hash.as_bytes().len());
    let entry = sealed.bytes.get(..without_hash).unwrap_or_default();
    [JOINT.as_slice(), sealed.hash.as_bytes(), entry, place_of.as_bytes()].concat()
}

/// Returns the stored form of an entry that a bundle tells of.
pub(crate) fn told(
    header: &Header,
    meta: impl FnOnce(&mut Vec<u8>) -> Result<(), CodecError>,
    items: &[Item],
    content: &Hash,
    (joint, hash): (Option<&Hash>, &Hash),
) -> Result<Vec<u8>, EntryError> {
    let joint = joint.map(|sealed| [JOINT.as_slice(), sealed.as_bytes()].concat());
    let told = [TOLD.as_slice(), content.as_bytes()].concat();
    let mut bytes = [joint.unwrap_or_default(), told].concat();
    let entry = write(header, meta, items, &Hash::ZERO)?.bytes;
    let without_hash = entry.len().saturating_sub(hash.as_bytes().len());
    bytes.extend_from_slice(entry.get(..without_hash).unwrap_or_default());
    bytes.extend_from_slice(hash.as_bytes());
    Ok(bytes)
}

/// A mark before an entry. A stream has a form of its own for each, in place of the mark.
#[cfg(feature = "store")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A bundle only tells of the entry.
    Told,
    /// The entry is a joint.
    Joint,
}

#[cfg(feature = "store")]
impl Mark {
    /// Returns the mark of a stored entry, and the entry without it.
    pub(crate) fn of(stored: &[u8]) -> (Option<Self>, &[u8]) {
        let (told, joint) = (stored.strip_prefix(&TOLD), stored.strip_prefix(&JOINT));
        match (told, joint) {
            (Some(rest), _) => (Some(Self::Told), rest),
            (_, Some(rest)) => (Some(Self::Joint), rest),
            _ => (None, stored),
        }
    }

    /// Returns the bytes of the mark.
    pub(crate) const fn bytes(self) -> &'static [u8] {
        match self {
            Self::Told => &TOLD,
            Self::Joint => &JOINT,
        }
    }
}

/// Writes an entry in one buffer and hashes it there. `meta` writes the meta part.
pub(crate) fn write(
    header: &Header,
    meta: impl FnOnce(&mut Vec<u8>) -> Result<(), CodecError>,
    items: &[Item],
    previous: &Hash,
) -> Result<Sealed, EntryError> {
    let item_bytes: usize = items.iter().map(Item::stored_bytes).sum();
    let mut bytes = Vec::with_capacity(USUAL_BYTES + item_bytes);
    block(&mut bytes, |bytes| {
        write_header(bytes, header);
        Ok(())
    })?;
    block(&mut bytes, |bytes| Ok(meta(bytes)?))?;
    write_number(&mut bytes, items.len());
    let size = bytes.len() + item_bytes + 32;
    if size > limits::ENTRY_BYTES {
        return Err(EntryError::TooLarge { bytes: size });
    }
    let mut content = chain::Content::begin(&bytes);
    for item in items {
        match item {
            Item::Present { salt, value } => {
                bytes.push(1);
                let start = bytes.len();
                bytes.extend_from_slice(salt);
                write_number(&mut bytes, value.as_bytes().len());
                bytes.extend_from_slice(value.as_bytes());
                content.add(&chain::commitment_of_stored(bytes.get(start..).unwrap_or_default()));
            }
            Item::Erased { .. } | Item::Hidden { .. } => {
                write_item(&mut bytes, item);
                content.add(&item.commitment());
            }
        }
    }
    let content = content.end();
    let hash = chain::link(previous, &content);
    bytes.extend_from_slice(hash.as_bytes());
    Ok(Sealed { bytes, content, hash })
}

/// Writes an item without its value.
fn write_item(bytes: &mut Vec<u8>, item: &Item) {
    match item {
        // A present item is written where its bytes are hashed.
        Item::Present { .. } => {}
        Item::Erased { commitment } => {
            bytes.push(0);
            bytes.extend_from_slice(commitment.as_bytes());
        }
        Item::Hidden { commitment, told } => {
            bytes.push(2);
            bytes.extend_from_slice(commitment.as_bytes());
            write_number(bytes, told.len());
            bytes.extend_from_slice(told);
        }
    }
}

/// The usual size of the header and the meta part of an entry with few ops.
const USUAL_BYTES: usize = 320;

/// Writes the bytes that `fill` adds, with their length before them.
fn block(
    bytes: &mut Vec<u8>,
    fill: impl FnOnce(&mut Vec<u8>) -> Result<(), EntryError>,
) -> Result<(), EntryError> {
    let start = bytes.len();
    write_number(bytes, 0);
    let filled = bytes.len();
    fill(bytes)?;
    // Each part has its own limit, far below 2³².
    let length = u32::try_from(bytes.len() - filled).unwrap_or(u32::MAX);
    if let Some(place) = bytes.get_mut(start..filled) {
        place.copy_from_slice(&length.to_le_bytes());
    }
    Ok(())
}

fn write_header(bytes: &mut Vec<u8>, header: &Header) {
    let actor = header.actor.as_str().as_bytes();
    bytes.push(header.format);
    bytes.push(header.kind as u8);
    bytes.extend_from_slice(header.epoch.as_bytes());
    bytes.extend_from_slice(&header.seq.number().to_le_bytes());
    bytes.extend_from_slice(&header.hlc.to_bits().to_le_bytes());
    bytes.extend_from_slice(&header.wall.milliseconds().to_le_bytes());
    // An actor has at most 128 bytes.
    bytes.push(u8::try_from(actor.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(actor);
}

fn parse_header(bytes: &[u8]) -> Result<Header, EntryError> {
    let mut reader = Reader { bytes, at: 0, needs: None };
    let [format] = *reader.array("the format")?;
    if format > FORMAT {
        return Err(EntryError::NewerFormat { found: format });
    }
    if format == 0 {
        return Err(reader.fault("a format from 1"));
    }
    if format < FORMAT {
        return Err(EntryError::OlderFormat { found: format });
    }
    let kind = match *reader.array("the kind")? {
        [1] => EntryKind::Intent,
        [2] => EntryKind::Upstream,
        [3] => EntryKind::Control,
        _ => return Err(reader.fault("a kind from 1 to 3")),
    };
    let epoch = Epoch::from_bytes(*reader.array("the epoch")?);
    let seq = Seq::new(u64::from_le_bytes(*reader.array("the seq")?));
    let hlc = Hlc::from_bits(u64::from_le_bytes(*reader.array("the clock")?));
    let wall = WallTime::from_milliseconds(i64::from_le_bytes(*reader.array("the wall clock")?));
    let [length] = *reader.array("the actor's length")?;
    let actor = std::str::from_utf8(reader.slice(usize::from(length), "the actor")?).ok();
    let actor =
        actor.and_then(|actor| Actor::parse(actor).ok()).ok_or_else(|| reader.fault("an actor"))?;
    if reader.left() != 0 {
        return Err(reader.fault("the end of the header"));
    }
    Ok(Header { format, kind, epoch, seq, hlc, wall, actor })
}

fn write_number(bytes: &mut Vec<u8>, number: usize) {
    // The sum of all parts was checked against `limits::ENTRY_BYTES`, far below 2³².
    bytes.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The end of a part that goes beyond the bytes.
    needs: Option<usize>,
}

impl<'a> Reader<'a> {
    fn slice(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], EntryError> {
        let end = self.at.checked_add(length).ok_or_else(|| self.fault(what))?;
        let Some(slice) = self.bytes.get(self.at..end) else {
            self.needs = Some(end);
            return Err(self.fault(what));
        };
        self.at = end;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<&'a [u8; N], EntryError> {
        self.slice(N, what)?.try_into().map_err(|_| self.fault(what))
    }

    fn number(&mut self, what: &'static str) -> Result<usize, EntryError> {
        usize::try_from(u32::from_le_bytes(*self.array(what)?)).map_err(|_| self.fault(what))
    }

    /// Reads a mark and the hash behind it, if the mark is there.
    fn marked(&mut self, mark: [u8; 4], what: &'static str) -> Result<Option<Hash>, EntryError> {
        if self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()) != Some(&mark) {
            return Ok(None);
        }
        self.at += mark.len();
        Ok(Some(Hash::from_bytes(*self.array(what)?)))
    }

    fn block(&mut self, what: &'static str) -> Result<&'a [u8], EntryError> {
        let length = self.number(what)?;
        self.slice(length, what)
    }

    fn item(&mut self) -> Result<StoredItem<'a>, EntryError> {
        match *self.array("an item's tag")? {
            [1] => Ok(StoredItem::Present {
                salt: self.array("a salt")?,
                bytes: self.block("an item")?,
            }),
            [0] => Ok(StoredItem::Erased { commitment: self.array("a commitment")? }),
            [2] => Ok(StoredItem::Hidden {
                commitment: self.array("a commitment")?,
                told: self.block("what is told of an item")?,
            }),
            _ => Err(self.fault("an item's tag from 0 to 2")),
        }
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    const fn fault(&self, what: &'static str) -> EntryError {
        EntryError::Frame { at: self.at, what }
    }
}
