//! The form of one part of a key, in the order of the values.
//!
//! ```text
//!   false, true     1, 2
//!   a number        3 │ its nearest double, 8 bytes │ what that rounds away, 2 bytes
//!   a text          4 │ its bytes, a zero as 0 255  │ 0 0; 0 1 where it was cut
//!   no value        255
//! ```
//!
//! A descending part has all of these bytes inverted, except for no value, which stays last.
//!
//! Invariants:
//! 1. No form begins with another one, so the next part or the id never decides between two values.
//! 2. The form of a text has at most [`limits::INDEX_TEXT_BYTES`] and three more bytes.
//! 3. Every number of JSON fields has its own place: whole numbers of 64 bits, and doubles. 0 and
//!    -0.0 are equal, and so are 1 and 1.0.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::IndexPart;
use super::caseless::without_case;
use crate::limits;

/// The kinds of values, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Bool,
    Number,
    Text,
    Nothing,
}

const FALSE: u8 = 1;
const TRUE: u8 = 2;
const NUMBER: u8 = 3;
const TEXT: u8 = 4;
const NOTHING: u8 = u8::MAX;
const END: u8 = 0;
const CUT: u8 = 1;

impl Kind {
    /// Returns the kind of a value. A list, an object or a null counts as no value.
    pub(super) const fn of(value: Option<&Value>) -> Self {
        match value {
            Some(Value::Bool(_)) => Self::Bool,
            Some(Value::Number(_)) => Self::Number,
            Some(Value::String(_)) => Self::Text,
            Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => Self::Nothing,
        }
    }

    /// Returns the first bytes of the least and of the greatest values of the kind.
    pub(super) const fn tags(self) -> (u8, u8) {
        match self {
            Self::Bool => (FALSE, TRUE),
            Self::Number => (NUMBER, NUMBER),
            Self::Text => (TEXT, TEXT),
            Self::Nothing => (NOTHING, NOTHING),
        }
    }
}

/// Compares two values in the order of a part's keys. It is the reference for the order of the
/// bytes, and decides between texts that were cut.
pub fn compare(part: &IndexPart, one: Option<&Value>, other: Option<&Value>) -> Ordering {
    let (of_one, of_other) = (Kind::of(one), Kind::of(other));
    if of_one == Kind::Nothing || of_other == Kind::Nothing {
        return of_one.cmp(&of_other);
    }
    let order = of_one.cmp(&of_other).then_with(|| match (one, other) {
        (Some(Value::Bool(one)), Some(Value::Bool(other))) => one.cmp(other),
        (Some(Value::Number(one)), Some(Value::Number(other))) => compare_numbers(one, other),
        (Some(Value::String(one)), Some(Value::String(other))) if part.caseless => {
            without_case(one).cmp(&without_case(other))
        }
        (Some(Value::String(one)), Some(Value::String(other))) => one.cmp(other),
        _ => Ordering::Equal,
    });
    if part.descending { order.reverse() } else { order }
}

/// Compares two numbers exactly.
fn compare_numbers(one: &Number, other: &Number) -> Ordering {
    match (whole(one), whole(other)) {
        (Some(one), Some(other)) => one.cmp(&other),
        (Some(one), None) => compare_whole(one, double(other)),
        (None, Some(other)) => compare_whole(other, double(one)).reverse(),
        (None, None) => double(one).partial_cmp(&double(other)).unwrap_or(Ordering::Equal),
    }
}

/// Compares a whole number of 64 bits with a double.
fn compare_whole(whole: i128, double: f64) -> Ordering {
    #[expect(clippy::cast_possible_truncation, reason = "a double beyond 128 bits saturates")]
    let floor = double.floor() as i128;
    whole.cmp(&floor).then(if double.fract() == 0.0 { Ordering::Equal } else { Ordering::Less })
}

fn whole(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

fn double(number: &Number) -> f64 {
    number.as_f64().unwrap_or_default()
}

/// Appends the form of a value, and returns whether its text was cut.
pub(super) fn write(part: &IndexPart, value: Option<&Value>, key: &mut Vec<u8>) -> bool {
    let (start, mut cut) = (key.len(), false);
    match value {
        Some(Value::Bool(value)) => key.push(if *value { TRUE } else { FALSE }),
        Some(Value::Number(number)) => write_number(number, key),
        Some(Value::String(text)) => {
            cut = write_open_text(part, text, key);
            key.extend_from_slice(&[0, if cut { CUT } else { END }]);
        }
        Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => {
            key.push(NOTHING);
            return false;
        }
    }
    turn(part, start, key);
    cut
}

/// Appends the bytes with which the forms of all texts begin that begin with `text`. Returns
/// whether they were cut: then other texts have the form too.
pub(super) fn write_prefix(part: &IndexPart, text: &str, key: &mut Vec<u8>) -> bool {
    let start = key.len();
    let cut = write_open_text(part, text, key);
    if cut {
        key.extend_from_slice(&[0, CUT]);
    }
    turn(part, start, key);
    cut
}

/// Inverts what was appended if the part descends.
fn turn(part: &IndexPart, start: usize, key: &mut [u8]) {
    if part.descending {
        key.iter_mut().skip(start).for_each(|byte| *byte = !*byte);
    }
}

fn write_number(number: &Number, key: &mut Vec<u8>) {
    let double = double(number);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it is within 65 bits and without fraction"
    )]
    let rounded = whole(number).map_or(0, |whole| whole - double as i128);
    let rounded = i16::try_from(rounded).unwrap_or_default();
    // Zero has two forms as a double and is one value.
    let bits = if double == 0.0 { 0 } else { double.to_bits() };
    // Positive numbers sort by their bits once the sign is flipped; negative ones by all bits
    // flipped.
    let flipped = if bits >> 63 == 0 { bits ^ (1 << 63) } else { !bits };
    key.push(NUMBER);
    key.extend_from_slice(&flipped.to_be_bytes());
    key.extend_from_slice(&(rounded.cast_unsigned() ^ (1 << 15)).to_be_bytes());
}

/// Appends a text up to the most bytes of a key, and returns whether it was cut.
fn write_open_text(part: &IndexPart, text: &str, key: &mut Vec<u8>) -> bool {
    let compared = if part.caseless { without_case(text) } else { text.into() };
    key.push(TEXT);
    let end = key.len() + limits::INDEX_TEXT_BYTES;
    for byte in compared.bytes() {
        let escaped: &[u8] = if byte == 0 { &[0, u8::MAX] } else { &[byte] };
        if key.len() + escaped.len() > end {
            return true;
        }
        key.extend_from_slice(escaped);
    }
    false
}

/// Returns what follows after a part of a key; `None` if the key has another form.
pub(super) fn skip<'k>(part: &IndexPart, key: &'k [u8]) -> Option<&'k [u8]> {
    let (tag, rest) = key.split_first()?;
    if *tag == NOTHING {
        return Some(rest);
    }
    let turned = |byte: u8| if part.descending { !byte } else { byte };
    match turned(*tag) {
        FALSE | TRUE => Some(rest),
        NUMBER => rest.get(10..),
        TEXT => {
            let mut at = 0;
            loop {
                at += rest.get(at..)?.iter().position(|byte| turned(*byte) == 0)? + 2;
                if turned(*rest.get(at - 1)?) != u8::MAX {
                    return rest.get(at..);
                }
            }
        }
        _ => None,
    }
}
