//! The stored form of values. No other file names bincode.
//!
//! This file writes the meta part of an entry and the rows of the tables as bytes, and reads them
//! back. The configuration is bincode 2.0.1, `standard()` (little-endian, variable-length
//! integers), with a byte limit.
//!
//! Invariants:
//! 1. Reading never needs more memory than the limit, whatever length the bytes claim.
//! 2. Bytes after the value are refused, so two different byte strings never read as the same
//!    value.
//! 3. Names are checked on reading as they are on entry.
//!
//! What it is not: a part of the hash. Hashes are over stored bytes with the framing of
//! [`crate::entry::frame`]. Nor does this file know the stored types: each of them declares its own
//! name and size limit.
//!
//! bincode is unmaintained upstream. It is pinned, and no other file may name it. So any writer of
//! the same bytes can replace it (wincode's variable-length form is one).

use bincode::config;
use bincode::de::read::Reader;
pub(crate) use bincode::de::{BorrowDecoder, Decoder};
pub(crate) use bincode::enc::Encoder;
use bincode::enc::write::Writer;
pub(crate) use bincode::error::{DecodeError, EncodeError};
pub(crate) use bincode::{BorrowDecode, Decode, Encode};

use crate::limits;

/// Stored bytes that cannot be read as the expected value.
#[derive(Debug, thiserror::Error)]
#[error("stored bytes cannot be read as {what}")]
pub struct CodecError {
    /// The name of the expected value.
    pub what: &'static str,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A value whose stored form is longer than this is read back before it is stored. A smaller value
/// can always be read: no part of a stored type needs more than [`PART_BYTES`] of memory, and each
/// part has at least one stored byte.
const READ_BACK_FROM: usize = 64 * 1024;
/// The most memory of one part of a stored type, which is an element of a list in it. [`is_part`]
/// proves it beside each such type.
const PART_BYTES: usize = 512;

const _: () = assert!(READ_BACK_FROM * PART_BYTES < 2 * limits::ROW_BYTES);

/// Returns whether a type is small enough to be a part of a stored type.
pub(crate) const fn is_part<T>() -> bool {
    size_of::<T>() <= PART_BYTES
}

/// A value with a stored form. Each type implements it beside its definition, in this crate only.
pub trait Stored: Sized {
    /// The name of the value in errors.
    const WHAT: &'static str;
    /// The most bytes of the stored form.
    const LIMIT: usize = limits::ROW_BYTES;

    /// Appends the stored form to `bytes`, whatever its length.
    ///
    /// # Errors
    /// [`CodecError`] if the value cannot be written.
    fn write(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Reads the stored form, to its last byte.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are not such a value, or continue after it.
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
/// [`CodecError`] if the value is over its size limit, or reading it back would need too much
/// memory.
pub fn encode<T: Stored>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    encode_onto(&mut bytes, value)?;
    Ok(bytes)
}

/// Most values are shorter, so one allocation is enough to write them.
const USUAL_BYTES: usize = 512;

/// Appends the stored form to `bytes`.
///
/// # Errors
/// Those of [`encode`]. The content of `bytes` is then undefined.
pub fn encode_onto<T: Stored>(bytes: &mut Vec<u8>, value: &T) -> Result<(), CodecError> {
    let start = bytes.len();
    value.write(bytes)?;
    let written = bytes.get(start..).unwrap_or_default();
    if written.len() > T::LIMIT {
        return Err(damaged(T::WHAT));
    }
    // Reading counts memory, not bytes: many small parts need much more memory than they have
    // bytes.
    if written.len() > READ_BACK_FROM {
        decode::<T>(written)?;
    }
    Ok(())
}

/// A writer that appends. bincode's own function first counts the bytes, which doubles the work.
struct Behind<'a>(&'a mut Vec<u8>);

impl Writer for Behind<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Reads the stored form, to its last byte.
///
/// # Errors
/// [`CodecError`] if the bytes are not such a value, continue after it, or claim more than the
/// limit.
pub fn decode<T: Stored>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > T::LIMIT {
        return Err(damaged(T::WHAT));
    }
    T::read(bytes)
}

/// Appends the members of a value to `bytes`.
pub(crate) fn write_behind(
    bytes: &mut Vec<u8>,
    value: &impl Encode,
    what: &'static str,
) -> Result<(), CodecError> {
    bincode::encode_into_writer(value, Behind(bytes), config::standard()).map_err(because(what))
}

/// Reads the result of [`write_behind`], to its last byte.
pub(crate) fn read_whole<T: Decode<()>>(bytes: &[u8], what: &'static str) -> Result<T, CodecError> {
    let (value, rest) = read_first(bytes, what)?;
    if rest.is_empty() { Ok(value) } else { Err(damaged(what)) }
}

/// Reads the result of [`write_behind`], and returns it with the bytes after it.
pub(crate) fn read_first<'b, T: Decode<()>>(
    bytes: &'b [u8],
    what: &'static str,
) -> Result<(T, &'b [u8]), CodecError> {
    // The limit counts claimed memory, not bytes. Elements of a fixed size may claim a little more
    // than they need.
    let configuration = config::standard().with_limit::<{ 2 * limits::ROW_BYTES }>();
    let (value, read) =
        bincode::decode_from_slice::<T, _>(bytes, configuration).map_err(because(what))?;
    Ok((value, bytes.get(read..).unwrap_or_default()))
}

/// Makes the error for bytes that cannot be read.
pub(crate) const fn damaged(what: &'static str) -> CodecError {
    CodecError { what, source: None }
}

fn because<E: std::error::Error + Send + Sync + 'static>(
    what: &'static str,
) -> impl Fn(E) -> CodecError {
    move |source| CodecError { what, source: Some(Box::new(source)) }
}

/// Reads the text of a name, stored like a `String`, without an allocation.
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

/// Stores types that are made from checked text (`parse`, `as_str`) as that text, and checks the
/// text again when it is read.
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
