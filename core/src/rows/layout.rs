//! The layout of a record's row in bytes. The parts that an app reads come first, so that they are
//! read in place.
//!
//! ```text
//!   u8 flags
//!   u32 length of the confirmed text                      if CONFIRMED
//!   u32 length of its own text                            if OWN
//!   u32 number of ops in the tail                         if TAIL or APART
//!   i64 synced_at                                         if SYNCED
//!   u64 version │ u64 edited_at │ op[16]                  if CONFIRMED
//!   confirmed text │ own text
//!   the older stamps, the floor, and the tail or the
//!     greatest stamp of a tail that is apart (bincode)    if MORE
//! ```
//!
//! Numbers are little-endian.
//!
//! Invariants:
//! 1. A [`RecordView`] gives the same as its row, and never reads the bytes behind the text.
//! 2. Reading allocates no memory beyond the size of the bytes, and refuses flags that no row has.
//!
//! What it does not do: check whether the bytes are those that were written. The sums beside the
//! tables are for that check.

use super::record::{Confirmed, RecordRow, Visible};
use super::stored::{Apart, OPS_IN_ROW, StoredRecord};
use crate::codec::{self, CodecError, Decode, Encode, Stored};
use crate::fields::FieldsJson;
use crate::ids::OpId;
use crate::numbers::Version;
use crate::record::{EditStamp, FieldWrites, Pending};
use crate::time::{Hlc, WallTime};

const CONFIRMED: u8 = 1;
const DELETED: u8 = 1 << 1;
const OWN: u8 = 1 << 2;
const ABSENT: u8 = 1 << 3;
const SYNCED: u8 = 1 << 4;
const TAIL: u8 = 1 << 5;
const MORE: u8 = 1 << 6;
const APART: u8 = 1 << 7;
const WHAT: &str = "a record's row";

/// The parts of a record's row that an app reads, without a copy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RecordView<'a> {
    /// What [`RecordRow::image`] returns, as JSON text.
    pub image: Option<&'a str>,
    /// What [`RecordRow::version`] returns.
    pub version: Option<Version>,
    /// The number of ops in the record's tail.
    pub pending: usize,
    /// When an answer last had this record, by the device's clock.
    pub synced_at: Option<WallTime>,
}

impl<'a> RecordView<'a> {
    /// Reads a view of a row's stored form.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes do not begin as a row does.
    pub fn read(bytes: &'a [u8]) -> Result<Self, CodecError> {
        let parts = Parts::of(bytes).ok_or(codec::damaged(WHAT))?;
        let text = if parts.has(OWN) {
            Some(parts.own)
        } else if parts.has(ABSENT) || !parts.has(CONFIRMED) || parts.has(DELETED) {
            None
        } else {
            Some(parts.confirmed)
        };
        let image =
            text.map(simdutf8::basic::from_utf8).transpose().map_err(|_| codec::damaged(WHAT))?;
        let version = parts.has(CONFIRMED).then_some(parts.version);
        Ok(Self { image, version, pending: parts.pending, synced_at: parts.synced_at })
    }
}

/// The parts of a stored row. The text stays bytes, and the rest is not read.
struct Parts<'a> {
    flags: u8,
    pending: usize,
    synced_at: Option<WallTime>,
    version: Version,
    edited_at: Hlc,
    op: OpId,
    confirmed: &'a [u8],
    own: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let (flags, rest) = bytes.split_first()?;
        let mut parts = Self {
            flags: *flags,
            pending: 0,
            synced_at: None,
            version: Version::default(),
            edited_at: Hlc::ZERO,
            op: OpId::from_bytes([0; 16]),
            confirmed: &[],
            own: &[],
            rest,
        };
        if !parts.has_flags_of_a_row() {
            return None;
        }
        let confirmed = parts.length_if(CONFIRMED)?;
        let own = parts.length_if(OWN)?;
        parts.pending = parts.length_if(TAIL | APART)?;
        if parts.has(SYNCED) {
            parts.synced_at = Some(WallTime::from_milliseconds(i64::from_le_bytes(parts.array()?)));
        }
        if parts.has(CONFIRMED) {
            parts.version = Version::new(u64::from_le_bytes(parts.array()?));
            parts.edited_at = Hlc::from_bits(u64::from_le_bytes(parts.array()?));
            parts.op = OpId::from_bytes(parts.array()?);
        }
        (parts.confirmed, parts.rest) = parts.rest.split_at_checked(confirmed)?;
        (parts.own, parts.rest) = parts.rest.split_at_checked(own)?;
        Some(parts)
    }

    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn has_flags_of_a_row(&self) -> bool {
        let both = |one: u8, other: u8| self.flags & (one | other) == one | other;
        let deleted_by_nobody = self.has(DELETED) && !self.has(CONFIRMED);
        let ends_with_its_text = self.has(APART) && !self.has(MORE);
        !(deleted_by_nobody || ends_with_its_text || both(OWN, ABSENT) || both(TAIL, APART))
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*array)
    }

    fn length_if(&mut self, flag: u8) -> Option<usize> {
        if self.has(flag) {
            usize::try_from(u32::from_le_bytes(self.array()?)).ok()
        } else {
            Some(0)
        }
    }
}

/// The part behind the text. The rules and the fold read it, an app does not.
#[derive(Encode, Decode, Default)]
struct More {
    older: Vec<FieldWrites>,
    floor: Option<EditStamp>,
    tail: Vec<Pending>,
}

/// The part behind the text of a row whose tail is apart.
#[derive(Encode, Decode)]
struct MoreApart {
    older: Vec<FieldWrites>,
    floor: Option<EditStamp>,
    greatest: EditStamp,
}

/// A whole row: the tail is in it.
impl Stored for RecordRow {
    const WHAT: &'static str = WHAT;

    fn write(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        write(self, None, bytes)
    }

    fn read(bytes: &[u8]) -> Result<Self, CodecError> {
        let StoredRecord { row, apart } = StoredRecord::read(bytes)?;
        if apart.is_none() { Ok(row) } else { Err(codec::damaged(WHAT)) }
    }
}

impl Stored for StoredRecord {
    const WHAT: &'static str = WHAT;

    fn write(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        write(&self.row, self.apart, bytes)
    }

    fn read(bytes: &[u8]) -> Result<Self, CodecError> {
        let parts = Parts::of(bytes).ok_or(codec::damaged(WHAT))?;
        let mut apart = None;
        let More { older, floor, tail } = if parts.has(APART) {
            let MoreApart { older, floor, greatest } = codec::read_whole(parts.rest, WHAT)?;
            let ops = u32::try_from(parts.pending).map_err(|_| codec::damaged(WHAT))?;
            apart = Some(Apart { ops, greatest });
            More { older, floor, tail: Vec::new() }
        } else if parts.has(MORE) {
            codec::read_whole(parts.rest, WHAT)?
        } else if parts.rest.is_empty() {
            More::default()
        } else {
            return Err(codec::damaged(WHAT));
        };
        let fits = if apart.is_some() {
            parts.pending > OPS_IN_ROW
        } else {
            tail.len() == parts.pending && tail.len() <= OPS_IN_ROW
        };
        let has_stamps = !older.is_empty() || floor.is_some();
        if !fits || (has_stamps && !parts.has(CONFIRMED)) {
            return Err(codec::damaged(WHAT));
        }
        let text = |text| FieldsJson::from_stored(text).map_err(|_| codec::damaged(WHAT));
        let visible = if parts.has(OWN) {
            Visible::Own(text(parts.own)?)
        } else if parts.has(ABSENT) {
            Visible::Absent
        } else {
            Visible::AsConfirmed
        };
        let confirmed = if parts.has(CONFIRMED) {
            let Parts { version, edited_at, op, .. } = parts;
            let (deleted, fields) = (parts.has(DELETED), text(parts.confirmed)?);
            Some(Confirmed { version, edited_at, op, older, floor, deleted, fields })
        } else {
            None
        };
        let row = RecordRow { confirmed, visible, tail, synced_at: parts.synced_at };
        Ok(Self { row, apart })
    }
}

fn write(row: &RecordRow, apart: Option<Apart>, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
    if row.tail.len() > OPS_IN_ROW {
        return Err(codec::damaged(WHAT));
    }
    let confirmed = row.confirmed.as_ref();
    let own = if let Visible::Own(own) = &row.visible { Some(own.as_bytes()) } else { None };
    let texts = [confirmed.map(|confirmed| confirmed.fields.as_bytes()), own];
    let length: usize = texts.iter().flatten().map(|text| text.len()).sum();
    bytes.reserve(64 + length + 64 * row.tail.len());
    let flags = flags(row, apart);
    bytes.push(flags);
    let tail = apart.map_or(row.tail.len(), |apart| apart.ops as usize);
    let tail = Some(tail).filter(|ops| *ops > 0);
    for length in texts.iter().map(|text| text.map(<[u8]>::len)).chain([tail]).flatten() {
        let length = u32::try_from(length).map_err(|_| codec::damaged(WHAT))?;
        bytes.extend_from_slice(&length.to_le_bytes());
    }
    if let Some(synced_at) = row.synced_at {
        bytes.extend_from_slice(&synced_at.milliseconds().to_le_bytes());
    }
    if let Some(confirmed) = confirmed {
        bytes.extend_from_slice(&confirmed.version.number().to_le_bytes());
        bytes.extend_from_slice(&confirmed.edited_at.to_bits().to_le_bytes());
        bytes.extend_from_slice(confirmed.op.as_bytes());
    }
    texts.iter().flatten().for_each(|text| bytes.extend_from_slice(text));
    if flags & MORE == 0 {
        return Ok(());
    }
    // The tuples are stored as the members of `More` and `MoreApart` are.
    let (older, floor) = confirmed
        .map_or((&[][..], None), |confirmed| (confirmed.older.as_slice(), confirmed.floor));
    match apart {
        Some(apart) => codec::write_behind(bytes, &(older, floor, apart.greatest), WHAT),
        None => codec::write_behind(bytes, &(older, floor, row.tail.as_slice()), WHAT),
    }
}

fn flags(row: &RecordRow, apart: Option<Apart>) -> u8 {
    let visible = match row.visible {
        Visible::AsConfirmed => 0,
        Visible::Absent => ABSENT,
        Visible::Own(_) => OWN,
    };
    let has_stamps =
        |confirmed: &Confirmed| !confirmed.older.is_empty() || confirmed.floor.is_some();
    let has_tail = !row.tail.is_empty() || apart.is_some();
    let has_more = has_tail || row.confirmed.as_ref().is_some_and(has_stamps);
    let of = |flag, is_so| if is_so { flag } else { 0 };
    visible
        | of(CONFIRMED, row.confirmed.is_some())
        | of(DELETED, row.confirmed.as_ref().is_some_and(|confirmed| confirmed.deleted))
        | of(SYNCED, row.synced_at.is_some())
        | of(TAIL, !row.tail.is_empty())
        | of(APART, apart.is_some())
        | of(MORE, has_more)
}
