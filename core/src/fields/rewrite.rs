//! Writes the one form of `canonical`, from text that is known to be JSON, and from values.
//!
//! What it does not do: check text. `canonical` has checked that it is JSON and not too deep.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::sync::LazyLock;

use serde_json::{Map, Number, Value};

use super::{InvalidFields, number};
use crate::limits;

/// Writes an object from text that is known to be one.
pub(super) fn object(text: &str) -> Result<String, InvalidFields> {
    let mut out = String::with_capacity(text.len());
    Rewrite { text, at: 0 }.value(&mut out)?;
    Ok(out)
}

/// Reads a string token of JSON text, with its quotes.
pub(super) fn unescaped(token: &str) -> Option<String> {
    serde_json::from_str(token).ok()
}

struct Rewrite<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Rewrite<'a> {
    fn value(&mut self, out: &mut String) -> Result<(), InvalidFields> {
        self.pass_space();
        match self.peek() {
            Some(b'"') => {
                let token = self.string();
                if token.contains('\\') {
                    write_text(out, &unescaped(token).unwrap_or_default());
                } else {
                    out.push_str(token);
                }
                Ok(())
            }
            Some(b'{') => self.members(out),
            Some(b'[') => self.list(out),
            _ => {
                let token = self.plain();
                let is_number =
                    token.starts_with(|first: char| first == '-' || first.is_ascii_digit());
                match number::canonical(token).filter(|_| is_number) {
                    Some(number) => out.push_str(&number),
                    None => out.push_str(token),
                }
                Ok(())
            }
        }
    }

    fn members(&mut self, out: &mut String) -> Result<(), InvalidFields> {
        self.at += 1;
        let mut members: Vec<(String, String)> = Vec::new();
        self.pass_space();
        while self.peek().is_some_and(|byte| byte != b'}') {
            let name = unescaped(self.string()).unwrap_or_default();
            self.pass_space();
            self.at += 1;
            let mut written = String::new();
            self.value(&mut written).map_err(|fault| fault.within(&name))?;
            members.push((name, written));
            self.pass_comma();
        }
        self.at += 1;
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        let twice = members.windows(2).find_map(|pair| match pair {
            [(one, _), (other, _)] if one == other => Some(one),
            _ => None,
        });
        if let Some(name) = twice {
            return Err(InvalidFields::Duplicate { at: String::new() }.within(name));
        }
        out.push('{');
        for (number, (name, written)) in members.iter().enumerate() {
            if number > 0 {
                out.push(',');
            }
            write_text(out, name);
            out.push(':');
            out.push_str(written);
        }
        out.push('}');
        Ok(())
    }

    fn list(&mut self, out: &mut String) -> Result<(), InvalidFields> {
        self.at += 1;
        out.push('[');
        self.pass_space();
        let mut index = 0;
        while self.peek().is_some_and(|byte| byte != b']') {
            if index > 0 {
                out.push(',');
            }
            self.value(out).map_err(|fault| fault.within_item(index))?;
            index += 1;
            self.pass_comma();
        }
        self.at += 1;
        out.push(']');
        Ok(())
    }

    /// Passes a string and returns it with its quotes.
    fn string(&mut self) -> &'a str {
        let start = self.at;
        self.at += 1;
        while let Some(byte) = self.peek().filter(|byte| *byte != b'"') {
            self.at += if byte == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// Passes a number or a word and returns it.
    fn plain(&mut self) -> &'a str {
        let start = self.at;
        let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
        while self.peek().is_some_and(|byte| !ends(&byte)) {
            self.at += 1;
        }
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn pass_comma(&mut self) {
        self.pass_space();
        if self.peek() == Some(b',') {
            self.at += 1;
        }
        self.pass_space();
    }

    fn pass_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

/// Writes values, and returns the first fault: a value that nests too deep, or a number that would
/// be rounded. A [`Value`] holds such a number only if the app builds `serde_json` with
/// `arbitrary_precision`.
pub(super) fn of_members(members: &Map<String, Value>) -> (String, Option<InvalidFields>) {
    let mut writing = Writing { out: String::with_capacity(32 * members.len() + 2), fault: None };
    writing.members(members, limits::FIELD_LEVELS);
    (writing.out, writing.fault)
}

/// Whether the app builds `serde_json` so that its numbers keep the digits that they were read
/// from. Otherwise they have 64 bits, and are written in the one form already.
static KEEPS_DIGITS: LazyLock<bool> = LazyLock::new(|| {
    serde_json::from_str::<Number>("1.50").is_ok_and(|number| number.to_string() != "1.5")
});

struct Writing {
    out: String,
    fault: Option<InvalidFields>,
}

impl Writing {
    fn value(&mut self, value: &Value, levels: usize) {
        match value {
            Value::Null => self.out.push_str("null"),
            Value::Bool(true) => self.out.push_str("true"),
            Value::Bool(false) => self.out.push_str("false"),
            // Writing to a string cannot fail.
            Value::Number(number) if !*KEEPS_DIGITS => drop(write!(self.out, "{number}")),
            Value::Number(number) => self.number(&number.to_string()),
            Value::String(text) => write_text(&mut self.out, text),
            Value::Array(items) => {
                self.enter(levels);
                self.out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.out.push(',');
                    }
                    self.within(
                        |writing| writing.value(item, levels.saturating_sub(1)),
                        |fault| fault.within_item(index),
                    );
                }
                self.out.push(']');
            }
            Value::Object(members) => {
                self.enter(levels);
                self.members(members, levels.saturating_sub(1));
            }
        }
    }

    /// Records a value that nests too deep. It is written all the same, for callers that ignore the
    /// fault.
    fn enter(&mut self, levels: usize) {
        if levels == 0 {
            self.fault.get_or_insert(InvalidFields::TooDeep);
        }
    }

    fn members(&mut self, members: &Map<String, Value>, levels: usize) {
        self.out.push('{');
        let start = self.out.len();
        if members.keys().is_sorted() {
            members.iter().for_each(|(name, value)| self.member(start, name, value, levels));
        } else {
            // With the feature `preserve_order` of `serde_json` the members have the order in which
            // they were added.
            let mut ordered: Vec<_> = members.iter().collect();
            ordered.sort_by(|(one, _), (other, _)| -> Ordering { one.cmp(other) });
            ordered.into_iter().for_each(|(name, value)| self.member(start, name, value, levels));
        }
        self.out.push('}');
    }

    fn member(&mut self, start: usize, name: &str, value: &Value, levels: usize) {
        if self.out.len() > start {
            self.out.push(',');
        }
        write_text(&mut self.out, name);
        self.out.push(':');
        self.within(|writing| writing.value(value, levels), |fault| fault.within(name));
    }

    /// Writes a part, and names the place of a fault that was found in it.
    fn within(
        &mut self,
        write: impl FnOnce(&mut Self),
        place: impl FnOnce(InvalidFields) -> InvalidFields,
    ) {
        let had_fault = self.fault.is_some();
        write(self);
        if !had_fault {
            self.fault = self.fault.take().map(place);
        }
    }

    fn number(&mut self, token: &str) {
        match number::canonical(token) {
            Some(number) => self.out.push_str(&number),
            None => {
                self.fault.get_or_insert(InvalidFields::Number { at: String::new() });
                self.out.push_str(token);
            }
        }
    }
}

/// Writes a string as JSON, with the escapes that it needs.
fn write_text(out: &mut String, text: &str) {
    if text.bytes().any(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)) {
        // Writing a string to memory cannot fail.
        out.push_str(&serde_json::to_string(text).unwrap_or_default());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}
