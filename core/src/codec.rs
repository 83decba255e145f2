//! The one file that knows bincode.
//!
//! What it is: how the meta part of an entry and the rows of the tables become bytes and are read back.
//! Configuration: bincode 2.0.1, `standard()` (little-endian, variable-length integers), with a byte limit.
//!
//! Invariants:
//! 1. Reading never takes more memory than the limit, whatever the bytes claim.
//! 2. Bytes after the value are refused, so no two byte strings read as one value by accident.
//! 3. Names are checked on reading as they are on entry.
//!
//! What it is not: part of the hash. Hashes are over stored bytes with the framing of [`crate::entry::frame`].
//!
//! bincode is unmaintained upstream; it is pinned, and nothing outside this file may name it, so that it can be replaced
//! by any writer of the same bytes (wincode's variable-length form is one).

use bincode::config;
use bincode::de::read::Reader;
use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
pub(crate) use bincode::{BorrowDecode, Decode, Encode};

use crate::limits;
use crate::names::{Actor, EntityType, RecordId, RecordKey};

/// Stored bytes that do not read as what they should be.
#[derive(Debug, thiserror::Error)]
#[error("stored bytes do not read as {what}")]
pub struct CodecError {
    /// What was to be read.
    pub what: &'static str,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// From this size on, what was written is read back before it is stored. Smaller values always read: no part of a stored type
/// takes more than [`PART_BYTES`] of memory, and none less than a byte of its stored form.
const READ_BACK_FROM: usize = 64 * 1024;
/// The most memory of one part of a stored type.
const PART_BYTES: usize = 512;

const _: () = assert!(READ_BACK_FROM * PART_BYTES < 2 * limits::ROW_BYTES);
const _: () = assert!(size_of::<crate::entry::Decision>() <= PART_BYTES);
const _: () = assert!(size_of::<crate::entry::ChangeMeta>() <= PART_BYTES);
const _: () = assert!(size_of::<crate::entry::OpMeta>() <= PART_BYTES);
const _: () = assert!(size_of::<crate::entry::PlannedUnit>() <= PART_BYTES);
const _: () = assert!(size_of::<crate::entry::PlannedChange>() <= PART_BYTES);
const _: () = assert!(size_of::<crate::rows::UnitChangeRow>() <= PART_BYTES);
const _: () = assert!(size_of::<crate::rows::TailRef>() <= PART_BYTES);

/// A value that has a stored form. Implemented here and nowhere else.
pub trait Stored: Encode + Decode<()> {
    /// What the value is called in errors.
    const WHAT: &'static str;
    /// The most bytes the stored form may take.
    const LIMIT: usize = limits::ROW_BYTES;
}

/// Writes the stored form.
///
/// # Errors
/// [`CodecError`] if the value is over its limit, or over what reading it would take.
pub fn encode<T: Stored>(value: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = bincode::encode_to_vec(value, config::standard())
        .map_err(|source| CodecError { what: T::WHAT, source: Some(Box::new(source)) })?;
    if bytes.len() > T::LIMIT {
        return Err(CodecError { what: T::WHAT, source: None });
    }
    // Reading counts the memory that it takes, not the bytes: many small parts take far more than they are long.
    if bytes.len() > READ_BACK_FROM {
        decode::<T>(&bytes)?;
    }
    Ok(bytes)
}

/// Reads the stored form, all of it.
///
/// # Errors
/// [`CodecError`] for bytes that are not such a value, go on after it, or claim more than the limit.
pub fn decode<T: Stored>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > T::LIMIT {
        return Err(CodecError { what: T::WHAT, source: None });
    }
    // The limit counts memory claimed, not bytes read; fixed-size elements may claim a little more than they take.
    let configuration = config::standard().with_limit::<{ 2 * limits::ROW_BYTES }>();
    let (value, read) = bincode::decode_from_slice::<T, _>(bytes, configuration)
        .map_err(|source| CodecError { what: T::WHAT, source: Some(Box::new(source)) })?;
    if read != bytes.len() {
        return Err(CodecError { what: T::WHAT, source: None });
    }
    Ok(value)
}

/// A stored value as it is read where it lies: its text is borrowed from the stored bytes.
pub trait StoredView<'a>: BorrowDecode<'a, ()> {
    /// The value that is stored.
    type Whole: Stored;
}

/// Reads a view of the stored form, all of it.
///
/// # Errors
/// As for [`decode`].
pub fn view<'a, T: StoredView<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    let what = T::Whole::WHAT;
    if bytes.len() > T::Whole::LIMIT {
        return Err(CodecError { what, source: None });
    }
    let configuration = config::standard().with_limit::<{ 2 * limits::ROW_BYTES }>();
    let (value, read) = bincode::borrow_decode_from_slice::<T, _>(bytes, configuration)
        .map_err(|source| CodecError { what, source: Some(Box::new(source)) })?;
    if read != bytes.len() {
        return Err(CodecError { what, source: None });
    }
    Ok(value)
}

macro_rules! stored {
    ($($type:ty => $what:literal $(, $limit:expr)?;)*) => { $(
        impl Stored for $type {
            const WHAT: &'static str = $what;
            $(const LIMIT: usize = $limit;)?
        }
    )* };
}

stored! {
    crate::entry::Meta => "the meta part of an entry", limits::META_BYTES;
    crate::rows::RecordRow => "a record's row";
    crate::rows::UnitRow => "a unit's row";
    crate::rows::ConflictRow => "a conflict's row";
    crate::rows::DeadLetterRow => "a dead letter's row";
    crate::rows::TailRow => "a row of the tail";
    crate::rows::CursorRow => "a cursor's row";
    crate::rows::StateRow => "the book's state row";
}

impl<'a> StoredView<'a> for crate::rows::RecordView<'a> {
    type Whole = crate::rows::RecordRow;
}

/// Reads the text of a name, laid out as a `String` is, without taking memory for it.
fn name<'b, D: Decoder>(
    decoder: &mut D,
    bytes: &'b mut [u8; limits::RECORD_ID_BYTES],
) -> Result<&'b str, DecodeError> {
    let length = u64::decode(decoder)?;
    let bytes = usize::try_from(length).ok().and_then(|length| bytes.get_mut(..length));
    let bytes = bytes.ok_or(DecodeError::Other("a name of more bytes than any may have"))?;
    decoder.claim_bytes_read(bytes.len())?;
    decoder.reader().read(bytes)?;
    std::str::from_utf8(bytes).map_err(|inner| DecodeError::Utf8 { inner })
}

macro_rules! checked_text {
    ($($name:ty),*) => { $(
        impl Encode for $name {
            fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
                self.as_str().encode(encoder)
            }
        }

        impl<C> Decode<C> for $name {
            fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
                let mut bytes = [0; limits::RECORD_ID_BYTES];
                Self::parse(name(decoder, &mut bytes)?).map_err(|invalid| DecodeError::OtherString(invalid.to_string()))
            }
        }

        impl<'de, C> BorrowDecode<'de, C> for $name {
            fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
                let text = <&'de str>::borrow_decode(decoder)?;
                Self::parse(text).map_err(|invalid| DecodeError::OtherString(invalid.to_string()))
            }
        }
    )* };
}

checked_text!(EntityType, RecordId, Actor);

impl Encode for RecordKey {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.entity.encode(encoder)?;
        self.id.encode(encoder)
    }
}

impl<C> Decode<C> for RecordKey {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Self { entity: EntityType::decode(decoder)?, id: RecordId::decode(decoder)? })
    }
}

impl<'de, C> BorrowDecode<'de, C> for RecordKey {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Self { entity: EntityType::borrow_decode(decoder)?, id: RecordId::borrow_decode(decoder)? })
    }
}
