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
//! What it is not: part of the hash. Hashes are over stored bytes with the framing of [`crate::entry::frame`]. Nor does it know
//! what is stored: each stored type says beside itself what it is called, and how large it may be.
//!
//! bincode is unmaintained upstream; it is pinned, and nothing outside this file may name it, so that it can be replaced
//! by any writer of the same bytes (wincode's variable-length form is one).

use bincode::config;
use bincode::de::read::Reader;
pub(crate) use bincode::de::{BorrowDecoder, Decoder};
pub(crate) use bincode::enc::Encoder;
use bincode::enc::write::Writer;
pub(crate) use bincode::error::{DecodeError, EncodeError};
pub(crate) use bincode::{BorrowDecode, Decode, Encode};

use crate::limits;

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
/// The most memory of one part of a stored type: what a list of such a type holds. [`is_part`] shows it beside each of them.
const PART_BYTES: usize = 512;

const _: () = assert!(READ_BACK_FROM * PART_BYTES < 2 * limits::ROW_BYTES);

/// Returns whether a type is small enough to be a part of a stored type.
pub(crate) const fn is_part<T>() -> bool {
    size_of::<T>() <= PART_BYTES
}

/// A value that has a stored form of its own. Implemented beside each of them, in this crate and nowhere else.
pub trait Stored: Sized {
    /// What the value is called in errors.
    const WHAT: &'static str;
    /// The most bytes the stored form may take.
    const LIMIT: usize = limits::ROW_BYTES;

    /// Writes the stored form, however large, behind what is there.
    ///
    /// # Errors
    /// [`CodecError`] if it cannot be written.
    fn write(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Reads the stored form, all of it.
    ///
    /// # Errors
    /// [`CodecError`] for bytes that are not such a value, or go on after it.
    fn read(bytes: &[u8]) -> Result<Self, CodecError>;
}

/// Stores types by their members, one after the other.
macro_rules! stored_by_members {
    ($($stored:ty => $what:literal $(, at most $limit:expr)?;)*) => { $(
        impl $crate::codec::Stored for $stored {
            const WHAT: &'static str = $what;
            $(const LIMIT: usize = $limit;)?

            fn write(&self, bytes: &mut Vec<u8>) -> Result<(), $crate::codec::CodecError> {
                $crate::codec::write_behind(bytes, self, Self::WHAT)
            }

            fn read(bytes: &[u8]) -> Result<Self, $crate::codec::CodecError> {
                $crate::codec::read_whole(bytes, Self::WHAT)
            }
        }
    )* };
}

pub(crate) use stored_by_members;

/// Writes the stored form.
///
/// # Errors
/// [`CodecError`] if the value is over its limit, or over what reading it would take.
pub fn encode<T: Stored>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    encode_onto(&mut bytes, value)?;
    Ok(bytes)
}

/// Most values take no more, so that writing them takes memory once.
const USUAL_BYTES: usize = 512;

/// Writes the stored form behind what is there.
///
/// # Errors
/// As for [`encode`]; what is there then is void.
pub fn encode_onto<T: Stored>(bytes: &mut Vec<u8>, value: &T) -> Result<(), CodecError> {
    let start = bytes.len();
    value.write(bytes)?;
    let written = bytes.get(start..).unwrap_or_default();
    if written.len() > T::LIMIT {
        return Err(damaged(T::WHAT));
    }
    // Reading counts the memory that it takes, not the bytes: many small parts take far more than they are long.
    if written.len() > READ_BACK_FROM {
        decode::<T>(written)?;
    }
    Ok(())
}

/// Bytes that are written to at their end. bincode's own way counts first how many there will be, which is half of the work.
struct Behind<'a>(&'a mut Vec<u8>);

impl Writer for Behind<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Reads the stored form, all of it.
///
/// # Errors
/// [`CodecError`] for bytes that are not such a value, go on after it, or claim more than the limit.
pub fn decode<T: Stored>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > T::LIMIT {
        return Err(damaged(T::WHAT));
    }
    T::read(bytes)
}

/// Writes the members of a value behind what is there.
pub(crate) fn write_behind(
    bytes: &mut Vec<u8>,
    value: &impl Encode,
    what: &'static str,
) -> Result<(), CodecError> {
    bincode::encode_into_writer(value, Behind(bytes), config::standard()).map_err(because(what))
}

/// Reads what [`write_behind`] wrote, all of it.
pub(crate) fn read_whole<T: Decode<()>>(bytes: &[u8], what: &'static str) -> Result<T, CodecError> {
    // The limit counts memory claimed, not bytes read; fixed-size elements may claim a little more than they take.
    let configuration = config::standard().with_limit::<{ 2 * limits::ROW_BYTES }>();
    let (value, read) = bincode::decode_from_slice::<T, _>(bytes, configuration).map_err(because(what))?;
    if read == bytes.len() { Ok(value) } else { Err(damaged(what)) }
}

/// Says that bytes do not read.
pub(crate) const fn damaged(what: &'static str) -> CodecError {
    CodecError { what, source: None }
}

fn because<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl Fn(E) -> CodecError {
    move |source| CodecError { what, source: Some(Box::new(source)) }
}

/// Reads the text of a name, laid out as a `String` is, without taking memory for it.
pub(crate) fn read_name<'b, D: Decoder>(
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

/// Stores types that are made from text by a check (`parse`, `as_str`) as that text, and checks them again when they are read.
macro_rules! stored_as_checked_text {
    ($($name:ty),*) => { $(
        impl $crate::codec::Encode for $name {
            fn encode<E: $crate::codec::Encoder>(&self, encoder: &mut E) -> Result<(), $crate::codec::EncodeError> {
                $crate::codec::Encode::encode(self.as_str(), encoder)
            }
        }

        impl<C> $crate::codec::Decode<C> for $name {
            fn decode<D: $crate::codec::Decoder<Context = C>>(
                decoder: &mut D,
            ) -> Result<Self, $crate::codec::DecodeError> {
                let mut bytes = [0; $crate::limits::RECORD_ID_BYTES];
                Self::parse($crate::codec::read_name(decoder, &mut bytes)?)
                    .map_err(|invalid| $crate::codec::DecodeError::OtherString(invalid.to_string()))
            }
        }

        impl<'de, C> $crate::codec::BorrowDecode<'de, C> for $name {
            fn borrow_decode<D: $crate::codec::BorrowDecoder<'de, Context = C>>(
                decoder: &mut D,
            ) -> Result<Self, $crate::codec::DecodeError> {
                let text = <&'de str as $crate::codec::BorrowDecode<'de, C>>::borrow_decode(decoder)?;
                Self::parse(text).map_err(|invalid| $crate::codec::DecodeError::OtherString(invalid.to_string()))
            }
        }
    )* };
}

pub(crate) use stored_as_checked_text;
