//! The entry: the unit of the log.
//!
//! ```text
//!   entry   header | meta | items | hash          (stored framing: `frame`)
//!   item    salt + bytes, or only a commitment once it is erased
//!   content blake3(header, meta, commitments)     (`chain`)
//!   hash    blake3(hash of the entry before, content)
//! ```
//!
//! Invariants:
//! 1. An entry's hash depends on its stored bytes only, and does not change when items are erased.
//! 2. A `Draft` is about to be appended. An [`Entry`] was read, and its content hash was computed
//!    from the bytes.
//!
//! What it is not: proof against the owner of the file. A hash chain without a key shows corruption
//! and careless edits. `docs/log-format.md` explains what anchors add.

mod about;
mod baseline;
pub mod chain;
mod decision;
mod erasure;
pub mod frame;
mod hidden;
mod meta;

use std::borrow::Cow;

use crate::codec;
use crate::fields::{FieldsJson, InvalidFields};
use crate::ids::Epoch;
use crate::limits;
use crate::names::Actor;
use crate::numbers::{Hash, Seq};
use crate::random::Randomness;
use crate::time::{Hlc, WallTime};

pub use about::About;
pub use baseline::{Baseline, BaselineRecord, BaselineState, Trimmed};
pub use decision::{
    Cancelled, CancelledReason, Conflicted, ConflictedField, Decision, ParkScope, PersonAction,
    ResolvedBy, Restamp, Winner,
};
pub use erasure::Erasure;
pub use hidden::NOT_IN_BUNDLE;
pub use meta::{
    AppVersion, Authored, ChangeMeta, Control, Erased, ErasedRecords, Extent, FieldsSource, Intent,
    ItemIndex, LastStop, Meta, OpMeta, Opened, OutcomeClass, OutcomeMeta, Planned, PlannedChange,
    PlannedOp, PlannedUnit, Receipt, Session, SignedNote, Silence, Upstream,
};

impl Authored {
    /// Returns the author of the change with a number; none if the server did not say.
    pub fn of(named: &[Self], number: u32) -> Option<&Actor> {
        let found = named.iter().find(|one| one.changes.binary_search(&number).is_ok());
        found.map(|one| &one.actor)
    }
}

/// The version of the entry format that this program writes.
pub const FORMAT: u8 = 2;

/// The three kinds of entry. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// The ops of the app.
    Intent = 1,
    /// The answer of the server.
    Upstream = 2,
    /// A decision of the engine or of a person.
    Control = 3,
}

impl EntryKind {
    /// Returns the word used in JSON, in tables and in errors.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Upstream => "upstream",
            Self::Control => "control",
        }
    }
}

impl Meta {
    /// Reads the meta part of a stored entry.
    ///
    /// # Errors
    /// [`EntryError`] if the meta part cannot be read, or is of another kind than the header names.
    pub(crate) fn read(frame: &frame::Frame<'_>) -> Result<Self, EntryError> {
        let meta: Self = codec::decode(frame.meta)?;
        if meta.kind() == frame.header.kind { Ok(meta) } else { Err(EntryError::KindDiffers) }
    }

    /// Returns the kind of the entry with this meta part.
    pub const fn kind(&self) -> EntryKind {
        match self {
            Self::Intent(_) => EntryKind::Intent,
            Self::Upstream(_) => EntryKind::Upstream,
            Self::Control(_) => EntryKind::Control,
        }
    }
}

// The macro is called here and not beside the types, because their source text is also built alone,
// with another codec (`core/tests/wincode`).
codec::stored_by_members! {
    Meta => "the meta part of an entry", at most limits::META_BYTES;
}

const _: () = assert!(codec::is_part::<Decision>());
const _: () = assert!(codec::is_part::<ChangeMeta>());
const _: () = assert!(codec::is_part::<OpMeta>());
const _: () = assert!(codec::is_part::<PlannedUnit>());
const _: () = assert!(codec::is_part::<PlannedChange>());

/// The fixed beginning of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The version of the format.
    pub format: u8,
    /// The kind of entry.
    pub kind: EntryKind,
    /// The epoch of the log.
    pub epoch: Epoch,
    /// The place in the log.
    pub seq: Seq,
    /// The log's clock; grows strictly from entry to entry.
    pub hlc: Hlc,
    /// The device's wall clock, for people.
    pub wall: WallTime,
    /// The user of the book.
    pub actor: Actor,
}

/// One erasable value of an entry.
#[derive(Clone, PartialEq, Eq)]
pub enum Item {
    /// The value, with the salt that keeps its commitment from being guessed.
    Present {
        /// Sixteen random bytes.
        salt: [u8; 16],
        /// The value.
        value: ItemValue,
    },
    /// The value was erased. Its commitment remains.
    Erased {
        /// The commitment.
        commitment: Hash,
    },
    /// The value was left out of a bundle for support. Its commitment remains.
    Hidden {
        /// The commitment.
        commitment: Hash,
        /// What the bundle tells of the value: some of its fields, as a compact JSON object with
        /// ascending names, or nothing. The commitment does not prove it.
        told: Vec<u8>,
    },
}

/// The value of an item: fields with shared text, or bytes.
#[derive(Clone)]
pub enum ItemValue {
    /// Fields.
    Fields(FieldsJson),
    /// Any other value.
    Bytes(Vec<u8>),
}

impl ItemValue {
    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Fields(fields) => fields.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// Two values are equal if their bytes are, wherever the bytes are held.
impl PartialEq for ItemValue {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for ItemValue {}

impl Item {
    /// Returns the value, or `None` if it was erased or hidden.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Present { value, .. } => Some(value.as_bytes()),
            Self::Erased { .. } | Self::Hidden { .. } => None,
        }
    }

    /// Returns whether the value was left out of a bundle.
    pub const fn is_hidden(&self) -> bool {
        matches!(self, Self::Hidden { .. })
    }

    /// Returns the size of the stored item, in bytes.
    fn stored_bytes(&self) -> usize {
        match self {
            Self::Present { value, .. } => 21 + value.as_bytes().len(),
            Self::Erased { .. } => 33,
            Self::Hidden { told, .. } => 37 + told.len(),
        }
    }

    /// Returns the commitment that the chain hashes.
    pub fn commitment(&self) -> Hash {
        match self {
            Self::Present { salt, value } => chain::commitment(salt, value.as_bytes()),
            Self::Erased { commitment } | Self::Hidden { commitment, .. } => *commitment,
        }
    }
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Present { value, .. } => write!(f, "Item({} bytes)", value.as_bytes().len()),
            Self::Erased { .. } => f.write_str("Item(erased)"),
            Self::Hidden { .. } => f.write_str("Item(hidden)"),
        }
    }
}

/// The erasable values of an entry that is being built.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Items(Vec<Item>);

impl Items {
    /// Makes an empty list with room for `count` items.
    pub fn with_capacity(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    /// Adds a value under a fresh salt and returns its index.
    pub fn add(&mut self, bytes: impl Into<Vec<u8>>, random: &mut dyn Randomness) -> ItemIndex {
        self.add_value(ItemValue::Bytes(bytes.into()), random)
    }

    fn add_value(&mut self, value: ItemValue, random: &mut dyn Randomness) -> ItemIndex {
        let mut salt = [0u8; 16];
        random.fill(&mut salt);
        self.0.push(Item::Present { salt, value });
        // The limits allow at most one item for each change or op, so this cannot overflow.
        ItemIndex::try_from(self.0.len() - 1).unwrap_or(ItemIndex::MAX)
    }

    /// Returns the number of items.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the bytes of all present items.
    pub fn bytes(&self) -> usize {
        self.0.iter().filter_map(Item::bytes).map(<[u8]>::len).sum()
    }

    /// Returns whether there are no items.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes the items after the first `count`.
    pub fn truncate(&mut self, count: usize) {
        self.0.truncate(count);
    }

    /// Adds fields and returns their index.
    pub fn add_fields(&mut self, fields: &FieldsJson, random: &mut dyn Randomness) -> ItemIndex {
        self.add_value(ItemValue::Fields(fields.clone()), random)
    }
}

impl From<Vec<Item>> for Items {
    fn from(items: Vec<Item>) -> Self {
        Self(items)
    }
}

impl From<Items> for Vec<Item> {
    fn from(items: Items) -> Self {
        items.0
    }
}

/// An entry that is about to be appended: everything but its place, its time and its hash.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// Its content.
    pub meta: Meta,
    /// Its erasable values.
    pub items: Items,
}

impl Draft {
    /// Checks that the entry can be stored and read back, without storing it.
    ///
    /// # Errors
    /// [`EntryError`] if a part is over its limit.
    pub fn checked(self) -> Result<Checked, EntryError> {
        let meta = codec::encode(&self.meta)?;
        let bytes: usize = self.items.0.iter().map(Item::stored_bytes).sum();
        if bytes > limits::ENTRY_BYTES - limits::META_BYTES {
            return Err(EntryError::TooLarge { bytes });
        }
        Ok(Checked { draft: self, meta: Some(meta) })
    }

    /// Makes a control entry without items.
    pub fn control(control: Control) -> Self {
        Self { meta: Meta::Control(control), items: Items::default() }
    }
}

/// A draft for the log. A draft that was checked keeps the meta part that the check wrote, so that
/// a large one is not written and read back twice.
#[derive(Debug)]
pub struct Checked {
    pub(crate) draft: Draft,
    meta: Option<Vec<u8>>,
}

impl Checked {
    /// Returns its content.
    pub const fn meta(&self) -> &Meta {
        &self.draft.meta
    }
}

impl From<Checked> for Draft {
    fn from(checked: Checked) -> Self {
        checked.draft
    }
}

/// Makes a draft that is not checked yet. The check happens when the draft is sealed.
impl From<Draft> for Checked {
    fn from(draft: Draft) -> Self {
        Self { draft, meta: None }
    }
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its fixed beginning.
    pub header: Header,
    /// Its content.
    pub meta: Meta,
    /// Its erasable values.
    pub items: Vec<Item>,
    /// The hash of its content, computed from its bytes.
    pub content: Hash,
    /// Its hash in the chain, as stored.
    pub hash: Hash,
    /// The hash with which a joint was sealed, the last entry of a baseline; none for any other entry.
    /// [`Self::hash`] is then that of the entry whose place the joint has.
    pub joint: Option<Hash>,
    /// Whether a bundle only tells of it: its place in the chain is proven, and its header, its
    /// content and its items are what the maker of the bundle says.
    pub told: bool,
}

impl Entry {
    /// Returns whether the entry has the hash with which it was sealed after an entry with this
    /// hash.
    pub fn follows(&self, previous: &Hash) -> bool {
        chain::link(previous, &self.content) == self.joint.unwrap_or(self.hash)
    }

    /// Returns the bytes of an item, or `None` if it was erased, is hidden or does not exist.
    pub fn item(&self, index: ItemIndex) -> Option<&[u8]> {
        self.items.get(usize::try_from(index).ok()?)?.bytes()
    }

    /// Returns an item as text, or `None` if it was erased or does not exist. Of a hidden item it
    /// is [`NOT_IN_BUNDLE`].
    pub fn text(&self, index: ItemIndex) -> Option<Cow<'_, str>> {
        match self.items.get(usize::try_from(index).ok()?)? {
            Item::Hidden { .. } => Some(Cow::Borrowed(NOT_IN_BUNDLE)),
            item => item.bytes().map(String::from_utf8_lossy),
        }
    }

    /// Returns an item as fields, or `None` if it was erased or does not exist. Of a hidden item
    /// these are the fields that the bundle tells, and [`NOT_IN_BUNDLE`].
    ///
    /// # Errors
    /// [`InvalidFields`] if the stored text was damaged.
    pub fn fields(&self, index: ItemIndex) -> Result<Option<FieldsJson>, InvalidFields> {
        match usize::try_from(index).ok().and_then(|index| self.items.get(index)) {
            Some(Item::Present { value: ItemValue::Fields(fields), .. }) => {
                Ok(Some(fields.clone()))
            }
            Some(Item::Present { value: ItemValue::Bytes(bytes), .. }) => {
                FieldsJson::from_stored(bytes).map(Some)
            }
            Some(Item::Hidden { told, .. }) => hidden::fields(told, self.header.seq).map(Some),
            Some(Item::Erased { .. }) | None => Ok(None),
        }
    }

    /// Reads a stored entry: its frame, its meta part, and the hash of its content.
    ///
    /// # Errors
    /// [`EntryError`] for bytes that are not an entry of a known format.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let frame = frame::Frame::parse(bytes)?;
        let meta = Meta::read(&frame)?;
        let content = frame.content();
        Ok(Self {
            content,
            meta,
            hash: frame.hash,
            joint: frame.joint(),
            told: frame.is_told(),
            items: frame.items_owned(),
            header: frame.header,
        })
    }
}

/// Builds the stored bytes of an entry.
///
/// # Errors
/// [`EntryError`] if a part is over its limit.
pub fn seal(header: &Header, draft: &Draft, previous: &Hash) -> Result<Sealed, EntryError> {
    let meta = |bytes: &mut Vec<u8>| codec::encode_onto(bytes, &draft.meta);
    frame::write(header, meta, &draft.items.0, previous)
}

/// Builds the stored bytes of an entry that may have been checked before.
///
/// # Errors
/// As for [`seal`].
pub fn seal_checked(
    header: &Header,
    checked: &Checked,
    previous: &Hash,
) -> Result<Sealed, EntryError> {
    let Some(meta) = &checked.meta else { return seal(header, &checked.draft, previous) };
    let meta = |bytes: &mut Vec<u8>| {
        bytes.extend_from_slice(meta);
        Ok(())
    };
    frame::write(header, meta, &checked.draft.items.0, previous)
}

/// The stored bytes of a new entry with the hashes that they have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The bytes to store.
    pub bytes: Vec<u8>,
    /// The hash of the content.
    pub content: Hash,
    /// The hash in the chain.
    pub hash: Hash,
}

/// Bytes that are not an entry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// The bytes end too early, are too long, or hold an invalid length or tag.
    #[error("an entry's frame is damaged at byte {at}: {what}")]
    Frame {
        /// How far the frame could be read.
        at: usize,
        /// The part that was to be read there.
        what: &'static str,
    },
    /// A newer program wrote the entry.
    #[error(
        "the entry has format {found}; this program reads up to format {FORMAT}: use a newer one"
    )]
    NewerFormat {
        /// The format of the entry.
        found: u8,
    },
    /// A program from before the first release wrote the entry.
    #[error(
        "the entry has format {found}, made by a version before the first release; this program reads format {FORMAT}: \
         begin a new book"
    )]
    OlderFormat {
        /// The format of the entry.
        found: u8,
    },
    /// A part that only a bundle for support may have.
    #[error("a part of it was left out, as in a bundle for support, and this is none")]
    OnlyInBundle,
    /// The header and the meta part disagree about the kind.
    #[error("an entry's header and its content are of different kinds")]
    KindDiffers,
    /// The meta part cannot be read.
    #[error(transparent)]
    Meta(#[from] codec::CodecError),
    /// The entry's clock is not after the clock of the entry before, for example because no later
    /// stamp exists.
    #[error(
        "the log's clock does not advance after its last entry: export the pending ops and begin a new book"
    )]
    ClockEnded,
    /// The entry would be over [`crate::limits::ENTRY_BYTES`].
    #[error("an entry of {bytes} bytes is over the limit of {}", limits::ENTRY_BYTES)]
    TooLarge {
        /// The number of bytes that it would have.
        bytes: usize,
    },
}

// Apart from the type: the tests compile the file of the type again, with another codec.
impl ResolvedBy {
    /// Returns the name of the function that resolved a field, or the whole record; `None` if no
    /// function did.
    pub fn function_of<'s>(all: &'s [Self], field: Option<&str>) -> Option<&'s str> {
        let found = all.iter().find(|resolution| resolution.field.as_deref() == field);
        found.map(|resolution| resolution.function.as_str())
    }
}
