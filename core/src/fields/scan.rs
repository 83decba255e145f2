//! A quick check whether text has the one form already. Most text has, because most programs write
//! JSON compactly and in order.
//!
//! ```text
//!   accepted                                       left to `canonical`, which checks byte by byte
//!   names without escapes, ascending               names with escapes or out of order
//!   whole numbers of up to 18 characters           longer ones, exponents, `-0`
//!   fractions of few digits                        fractions of many digits
//!   " \ \b \f \n \r \t escaped, nothing else       \u and \/
//!   no white space outside strings                 white space, and text that is not JSON
//! ```
//!
//! Invariants:
//! 1. Accepted text is the one form of its values. If the check gives up,
//!    [`super::FieldsJson::parse`] becomes slow, never wrong.
//! 2. Each byte of text is read once. Only names are read twice, because they are compared.
//!
//! What it is not: a source of faults. The check never returns the reason why it gave up.

use super::number;
use crate::limits;

/// Returns whether text is a JSON object in the one form. False proves nothing.
pub(super) fn has_form(text: &str) -> bool {
    object(text.as_bytes(), limits::FIELD_LEVELS, true).is_some_and(<[u8]>::is_empty)
}

/// The rest of the text after a part of it; `None` if that part is not accepted.
type Rest<'a> = Option<&'a [u8]>;

/// Passes an object. `levels` is how many objects and lists may still be entered within it.
fn object(bytes: &[u8], levels: usize, is_top: bool) -> Rest<'_> {
    let mut bytes = pass(bytes, b'{')?;
    if let Some(rest) = pass(bytes, b'}') {
        return Some(rest);
    }
    let mut before: Option<&[u8]> = None;
    loop {
        let (name, rest) = plain_string(bytes)?;
        if before.is_some_and(|before| before >= name) {
            return None;
        }
        if is_top && (name.is_empty() || name.len() > limits::FIELD_NAME_BYTES) {
            return None;
        }
        before = Some(name);
        let (next, rest) = value(pass(rest, b':')?, levels)?.split_first()?;
        match next {
            b',' => bytes = rest,
            b'}' => return Some(rest),
            _ => return None,
        }
    }
}

fn list(bytes: &[u8], levels: usize) -> Rest<'_> {
    let mut bytes = pass(bytes, b'[')?;
    if let Some(rest) = pass(bytes, b']') {
        return Some(rest);
    }
    loop {
        let (next, rest) = value(bytes, levels)?.split_first()?;
        match next {
            b',' => bytes = rest,
            b']' => return Some(rest),
            _ => return None,
        }
    }
}

fn value(bytes: &[u8], levels: usize) -> Rest<'_> {
    match bytes.first()? {
        b'"' => string(bytes),
        b'{' => object(bytes, levels.checked_sub(1)?, false),
        b'[' => list(bytes, levels.checked_sub(1)?),
        b't' => bytes.strip_prefix(b"true"),
        b'f' => bytes.strip_prefix(b"false"),
        b'n' => bytes.strip_prefix(b"null"),
        _ => number(bytes),
    }
}

/// Skips a string, and returns the text between its quotes if it contains no escape.
fn plain_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let bytes = pass(bytes, b'"')?;
    let (text, rest) = bytes.split_at_checked(plain(bytes))?;
    Some((text, pass(rest, b'"')?))
}

fn string(bytes: &[u8]) -> Rest<'_> {
    let mut bytes = pass(bytes, b'"')?;
    loop {
        match bytes.get(plain(bytes)..)? {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't', rest @ ..] => bytes = rest,
            _ => return None,
        }
    }
}

/// Counts the bytes before the first quote, backslash or control. It reads eight bytes at a time.
pub(super) fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const TOPS: u64 = ONES << 7;
    // Sets the top bit of each byte that is below the limit. The lowest bit that it sets is always
    // right: a borrow that makes a bit wrong comes from a byte that is itself below the limit.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & TOPS;
    let (words, last) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let found = quote | backslash | below(word, 0x20);
        if found != 0 {
            return index * 8 + (found.trailing_zeros() / 8) as usize;
        }
    }
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
    words.len() * 8 + last.iter().position(is_special).unwrap_or(last.len())
}

/// Skips a number that is written in the one way.
fn number(bytes: &[u8]) -> Rest<'_> {
    let is_negative = bytes.first() == Some(&b'-');
    let unsigned = bytes.get(usize::from(is_negative)..)?;
    let count = digits(unsigned);
    let (whole, rest) = unsigned.split_at_checked(count)?;
    if whole.first().is_none_or(|first| *first == b'0' && count > 1) {
        return None;
    }
    match rest.first() {
        Some(b'.') => {
            let fraction = digits(rest.get(1..)?);
            let (token, rest) = bytes.split_at_checked(bytes.len() - rest.len() + 1 + fraction)?;
            let is_plain = fraction > 0 && std::str::from_utf8(token).is_ok_and(number::is_plain);
            (is_plain && !matches!(rest, [b'e' | b'E', ..])).then_some(rest)
        }
        Some(b'e' | b'E') => None,
        _ if count > WHOLE_DIGITS || (is_negative && whole == b"0") => None,
        _ => Some(rest),
    }
}

/// Numbers with this many digits are within 64 bits, whatever their sign.
const WHOLE_DIGITS: usize = 18;

fn digits(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len())
}

fn pass(bytes: &[u8], byte: u8) -> Rest<'_> {
    match bytes.split_first() {
        Some((first, rest)) if *first == byte => Some(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::{Fields, canonical};
    use super::*;

    #[track_caller]
    fn accepted_is_the_form(text: &str) {
        if has_form(text) {
            let values: Value = serde_json::from_str(text).unwrap();
            let Value::Object(members) = values else { panic!("{text} is no object") };
            let written = Fields::from_iter(members).checked().unwrap();
            assert_eq!(written.as_str(), text);
            assert_eq!(canonical::rewritten(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn usual_text_is_accepted() {
        for text in [
            "{}",
            r#"{"a":1}"#,
            r#"{"a":"","b":"x\"y\\\n","c":[],"d":{},"e":true,"f":false,"g":null}"#,
            r#"{"a":{"":1,"b":[[-12,0,[]],{"x":"é😀"}]},"é":123456789012345678}"#,
            r#"{"a":1.5,"b":-0.25,"c":10.0}"#,
            "{\"a\":\"\u{7f}0123456789abcdef\"}",
        ] {
            assert!(has_form(text), "{text}");
            accepted_is_the_form(text);
        }
    }

    #[test]
    fn what_is_not_the_form_or_no_json_is_left_to_the_long_way() {
        for text in [
            "",
            "[]",
            "{",
            "{}x",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{,"a":1}"#,
            r#"{"a":1"b":2}"#,
            r#" {}"#,
            r#"{"a": 1}"#,
            r#"{"b":1,"a":2}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a":{"y":1,"x":2}}"#,
            r#"{"":1}"#,
            r#"{"a\n":1}"#,
            r#"{"a":"\u0061"}"#,
            r#"{"a":"\/"}"#,
            r#"{"a":"\x"}"#,
            "{\"a\":\"\t\"}",
            "{\"a\":\"01234567\u{1}\"}",
            r#"{"a":"x}"#,
            r#"{"a":"\"}"#,
            r#"{"a":01}"#,
            r#"{"a":-}"#,
            r#"{"a":-0}"#,
            r#"{"a":1e5}"#,
            r#"{"a":1.50}"#,
            r#"{"a":1.}"#,
            r#"{"a":.5}"#,
            r#"{"a":1.5e3}"#,
            r#"{"a":01.5}"#,
            r#"{"a":12345678901234567890123}"#,
            r#"{"a":tru}"#,
            r#"{"a":nulll}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":[1 ]}"#,
            "{\"a\":\"\u{0}\"}",
        ] {
            assert!(!has_form(text), "{text}");
        }
        let nested =
            |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(has_form(&nested(limits::FIELD_LEVELS)));
        assert!(!has_form(&nested(limits::FIELD_LEVELS + 1)));
        let named = |bytes: usize| format!("{{\"{}\":1}}", "n".repeat(bytes));
        assert!(has_form(&named(limits::FIELD_NAME_BYTES)));
        assert!(!has_form(&named(limits::FIELD_NAME_BYTES + 1)));
    }

    #[test]
    fn every_byte_that_ends_a_plain_run_is_found_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for at in 0..20 {
                let mut bytes = [b'x'; 20];
                bytes[at] = byte;
                let ends = matches!(byte, b'"' | b'\\' | 0..=0x1f);
                assert_eq!(plain(&bytes), if ends { at } else { 20 }, "byte {byte} at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_what_the_values_would_be_written_as(
            text in r#"\{("[a-c]{0,2}":("[x-z\\"n/ué]{0,9}"|-?[0-9.e]{1,5}|null|\[[0-9,]{0,4}\]|\{"a":1\})[,}]?){0,4}[ }]?"#,
        ) {
            accepted_is_the_form(&text);
        }

        #[test]
        fn what_is_accepted_stays_right_when_a_byte_of_it_is_another(at in any::<prop::sample::Index>(), byte in 0..0x80u8) {
            let text = r#"{"a":"x\"y","b":[1,-2.5,{"c":null,"d":true}],"note":"Met at the fair; call again.","z":1234567}"#;
            let mut bytes = text.as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            accepted_is_the_form(std::str::from_utf8(&bytes).unwrap());
        }

        #[test]
        fn a_plain_run_ends_where_a_search_byte_by_byte_ends(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let ends = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
            prop_assert_eq!(plain(&bytes), ends.unwrap_or(bytes.len()));
        }
    }
}
