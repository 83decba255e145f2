//! The one form of fields as text. Text that has it is recognised; other text is rewritten.
//!
//! ```text
//!   no white space outside strings
//!   the members of every object ascend by the bytes of their names; no name occurs twice
//!   numbers as `number` writes them
//!   strings as plain UTF-8; escaped are only " and \ , and controls: \b \f \n \r \t, the others as \u00 with two lower-case digits
//! ```
//!
//! Invariants:
//! 1. Two texts of the same values have the same form, whatever program wrote them and in whatever
//!    order.
//! 2. Text in the one form is not changed.
//! 3. Text that cannot be rewritten without a loss is refused: a number that would be rounded, half
//!    of a surrogate pair, a name that occurs twice.
//! 4. The form does not depend on the features with which an app builds `serde_json`
//!    (`preserve_order`, `arbitrary_precision`).
//!
//! This file only checks text. `rewrite` makes the form where text has another one. `scan`
//! recognises usual text without either.

use serde::de::IgnoredAny;

use super::number;
use super::{InvalidFields, rewrite};
use crate::limits;

/// Returns whether text is one JSON value of any kind. It is for text that is kept without being
/// read.
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Returns the one form of a JSON object, or `None` if the text has it already.
pub(super) fn rewritten(text: &str) -> Result<Option<String>, InvalidFields> {
    let mut scan = Scan { text, at: 0, is_form: true };
    scan.object_of_fields().map_err(|stop| scan.fault(stop))?;
    if scan.is_form {
        return Ok(None);
    }
    rewrite::object(text).map(Some)
}

/// The reason why a scan ended early.
enum Stop {
    /// The text is not JSON here.
    Syntax,
    Fault(InvalidFields),
}

impl Stop {
    fn within(self, name: &str) -> Self {
        match self {
            Self::Fault(fault) => Self::Fault(fault.within(name)),
            Self::Syntax => self,
        }
    }

    fn within_item(self, index: usize) -> Self {
        match self {
            Self::Fault(fault) => Self::Fault(fault.within_item(index)),
            Self::Syntax => self,
        }
    }
}

/// One pass over the text. It checks three things: the text is JSON, it can be kept, and it has the
/// form already.
struct Scan<'a> {
    text: &'a str,
    at: usize,
    is_form: bool,
}

impl<'a> Scan<'a> {
    fn object_of_fields(&mut self) -> Result<(), Stop> {
        self.pass_space();
        if self.peek() != Some(b'{') {
            return Err(Stop::Syntax);
        }
        self.object(limits::FIELD_LEVELS, true)?;
        self.pass_space();
        if self.at == self.text.len() { Ok(()) } else { Err(Stop::Syntax) }
    }

    /// Passes a value; `levels` is how many objects and lists may still be entered.
    fn value(&mut self, levels: usize) -> Result<(), Stop> {
        match self.peek() {
            Some(b'"') => self.string().map(|_| ()),
            Some(b'{' | b'[') if levels == 0 => Err(Stop::Fault(InvalidFields::TooDeep)),
            Some(b'{') => self.object(levels - 1, false),
            Some(b'[') => self.list(levels - 1),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(Stop::Syntax),
        }
    }

    fn object(&mut self, levels: usize, is_top: bool) -> Result<(), Stop> {
        self.at += 1;
        self.pass_space();
        if self.passes(b'}') {
            return Ok(());
        }
        let mut before: Option<Name<'a>> = None;
        loop {
            let name = self.name(is_top)?;
            let order = before.as_ref().map(|before| before.text().cmp(name.text()));
            match order {
                Some(std::cmp::Ordering::Equal) => {
                    let fault = InvalidFields::Duplicate { at: String::new() };
                    return Err(Stop::Fault(fault.within(name.text())));
                }
                Some(std::cmp::Ordering::Greater) => self.is_form = false,
                _ => {}
            }
            self.pass_space();
            if !self.passes(b':') {
                return Err(Stop::Syntax);
            }
            self.pass_space();
            self.value(levels).map_err(|stop| stop.within(name.text()))?;
            before = Some(name);
            self.pass_space();
            if self.passes(b'}') {
                return Ok(());
            }
            if !self.passes(b',') {
                return Err(Stop::Syntax);
            }
            self.pass_space();
        }
    }

    fn list(&mut self, levels: usize) -> Result<(), Stop> {
        self.at += 1;
        self.pass_space();
        if self.passes(b']') {
            return Ok(());
        }
        for index in 0.. {
            self.value(levels).map_err(|stop| stop.within_item(index))?;
            self.pass_space();
            if self.passes(b']') {
                return Ok(());
            }
            if !self.passes(b',') {
                break;
            }
            self.pass_space();
        }
        Err(Stop::Syntax)
    }

    fn name(&mut self, is_top: bool) -> Result<Name<'a>, Stop> {
        if self.peek() != Some(b'"') {
            return Err(Stop::Syntax);
        }
        let start = self.at;
        let escaped = self.string()?;
        let token = self.text.get(start..self.at).unwrap_or_default();
        let name = if escaped {
            Name::Escaped(rewrite::unescaped(token).ok_or(Stop::Syntax)?)
        } else {
            Name::Plain(token.get(1..token.len() - 1).unwrap_or_default())
        };
        if is_top && (name.text().is_empty() || name.text().len() > limits::FIELD_NAME_BYTES) {
            return Err(Stop::Fault(InvalidFields::FieldName));
        }
        Ok(name)
    }

    /// Skips a string, and returns whether it contains an escape.
    fn string(&mut self) -> Result<bool, Stop> {
        self.at += 1;
        let mut escaped = false;
        loop {
            let plain = self.rest().iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
            self.at += plain.ok_or(Stop::Syntax)?;
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                _ => return Err(Stop::Syntax),
            }
            escaped = true;
        }
        self.at += 1;
        Ok(escaped)
    }

    fn escape(&mut self) -> Result<(), Stop> {
        self.at += 1;
        let kind = self.peek().ok_or(Stop::Syntax)?;
        self.at += 1;
        match kind {
            b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'/' => {
                self.is_form = false;
                Ok(())
            }
            b'u' => self.unicode_escape(),
            _ => Err(Stop::Syntax),
        }
    }

    fn unicode_escape(&mut self) -> Result<(), Stop> {
        let digits = self.rest().get(..4).ok_or(Stop::Syntax)?;
        let is_lower = !digits.iter().any(u8::is_ascii_uppercase);
        let unit = self.hexadecimal()?;
        let has_short = matches!(unit, 0x08 | 0x09 | 0x0a | 0x0c | 0x0d);
        self.is_form &= unit < 0x20 && !has_short && is_lower;
        let half = || Stop::Fault(InvalidFields::Surrogate { at: String::new() });
        match unit {
            0xd800..=0xdbff => {
                if !self.rest().starts_with(b"\\u") {
                    return Err(half());
                }
                self.at += 2;
                if matches!(self.hexadecimal()?, 0xdc00..=0xdfff) { Ok(()) } else { Err(half()) }
            }
            0xdc00..=0xdfff => Err(half()),
            _ => Ok(()),
        }
    }

    /// Reads the four digits of an escape, and returns their number.
    fn hexadecimal(&mut self) -> Result<u32, Stop> {
        let digits = self.rest().get(..4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits =
            digits.and_then(|digits| std::str::from_utf8(digits).ok()).ok_or(Stop::Syntax)?;
        self.at += 4;
        u32::from_str_radix(digits, 16).map_err(|_| Stop::Syntax)
    }

    fn number(&mut self) -> Result<(), Stop> {
        let start = self.at;
        self.passes(b'-');
        if !self.passes(b'0') {
            self.digits()?;
        }
        if self.passes(b'.') {
            self.digits()?;
        }
        if self.passes(b'e') || self.passes(b'E') {
            if !self.passes(b'+') {
                self.passes(b'-');
            }
            self.digits()?;
        }
        let token = self.text.get(start..self.at).unwrap_or_default();
        match number::canonical(token) {
            Some(written) => self.is_form &= written == token,
            None => return Err(Stop::Fault(InvalidFields::Number { at: String::new() })),
        }
        Ok(())
    }

    /// Skips one or more digits.
    fn digits(&mut self) -> Result<(), Stop> {
        let rest = self.rest();
        let count = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        self.at += count;
        if count == 0 { Err(Stop::Syntax) } else { Ok(()) }
    }

    fn word(&mut self, word: &str) -> Result<(), Stop> {
        if !self.rest().starts_with(word.as_bytes()) {
            return Err(Stop::Syntax);
        }
        self.at += word.len();
        Ok(())
    }

    fn pass_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.is_form = false;
            self.at += 1;
        }
    }

    fn passes(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn fault(&self, stop: Stop) -> InvalidFields {
        match stop {
            Stop::Fault(fault) => fault,
            Stop::Syntax => self.not_an_object(),
        }
    }

    /// Makes the error for the place where the text stops being an object, like a JSON parser. Line
    /// 0 stands for JSON of another kind.
    fn not_an_object(&self) -> InvalidFields {
        if !self.text.trim_start().starts_with('{') && is_json(self.text) {
            return InvalidFields::NotAnObject { line: 0, column: 0 };
        }
        let last = self.at.min(self.text.len().saturating_sub(1));
        let before = self.text.as_bytes().get(..last).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let column =
            last - before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        InvalidFields::NotAnObject { line, column: column + 1 }
    }
}

/// A member's name, borrowed if the text holds it without escapes.
enum Name<'a> {
    Plain(&'a str),
    Escaped(String),
}

impl Name<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Escaped(text) => text,
        }
    }
}
