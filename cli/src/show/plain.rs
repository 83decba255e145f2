//! Text from elsewhere, made safe to show: ids, values, names, messages of a server, paths.
//!
//! Characters that reorder, hide or break a line in a terminal are shown as an escape, `\u{202e}`.
//! Unicode's properties define them:
//!
//! 1. control characters: the escape character and its 8-bit form, backspace, tabs, line ends;
//! 2. format characters: bidirectional marks, zero-width characters, the byte order mark, tags;
//! 3. line and paragraph separators, private use, and what is not assigned;
//! 4. characters that are ignored by default and in none of these groups: variation selectors,
//!    Hangul fillers, the blank Braille cell;
//! 5. combining marks without a letter, or more than four on one letter.
//!
//! [`plain`] is for prose and values. It keeps the joiners within an emoji. [`name`] is for ids and
//! names, which people compare by eye. It also escapes joiners and unusual blanks, and doubles a
//! backslash, so no two names look the same.
//!
//! Both leave their own results unchanged, except that [`name`] doubles backslashes again: escape a
//! name once, where it joins a text.

use std::fmt::Display;
use std::io;

use unicode_general_category::{GeneralCategory, get_general_category};

/// The most combining marks on one letter.
const MARKS: usize = 4;

/// Returns the text with all characters that reorder, hide or break it escaped.
pub(crate) fn plain(text: &str) -> String {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len());
    let mut before = Before::default();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let kept = before.takes(character) || before.joins(character, characters.peek().copied());
        put(&mut shown, character, kept);
        before.note(character, kept);
    }
    shown
}

/// Returns a name, such as a record's id, escaped so that no two names look the same.
pub(crate) fn name(name: &(impl Display + ?Sized)) -> String {
    let name = name.to_string();
    let mut shown = String::with_capacity(name.len());
    let mut before = Before::default();
    let mut characters = name.chars().peekable();
    while let Some(character) = characters.next() {
        let lonely = character == ' ' && (before.is_blank() || characters.peek().is_none());
        let kept = before.takes(character) && !is_odd_space(character) && !lonely;
        match character {
            '\\' => shown.push_str("\\\\"),
            ' ' if lonely => shown.push_str("\\u{20}"),
            _ => put(&mut shown, character, kept),
        }
        before.note(character, kept);
    }
    shown
}

/// Returns whether a character is invisible, or changes how others are shown.
pub(crate) fn is_hidden(character: char) -> bool {
    use GeneralCategory::{
        Control, Format, LineSeparator, ParagraphSeparator, PrivateUse, Surrogate, Unassigned,
    };
    match character {
        ' '..='~' => false,
        // Ignored by default, or blank, although the category is another.
        '\u{34f}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{2800}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{ffa0}'
        | '\u{e0100}'..='\u{e01ef}' => true,
        _ => matches!(
            get_general_category(character),
            Control
                | Format
                | LineSeparator
                | ParagraphSeparator
                | PrivateUse
                | Surrogate
                | Unassigned
        ),
    }
}

fn put(shown: &mut String, character: char, kept: bool) {
    match character {
        _ if kept => shown.push(character),
        '\n' | '\r' | '\t' => shown.extend(character.escape_default()),
        _ => shown.extend(character.escape_unicode()),
    }
}

fn is_odd_space(character: char) -> bool {
    character != ' ' && get_general_category(character) == GeneralCategory::SpaceSeparator
}

fn is_mark(character: char) -> bool {
    matches!(
        get_general_category(character),
        GeneralCategory::NonspacingMark
            | GeneralCategory::EnclosingMark
            | GeneralCategory::SpacingMark
    )
}

fn is_symbol(character: char) -> bool {
    matches!(
        get_general_category(character),
        GeneralCategory::OtherSymbol
            | GeneralCategory::ModifierSymbol
            | GeneralCategory::MathSymbol
    )
}

/// What comes before a character.
#[derive(Debug, Default)]
struct Before {
    last: Option<char>,
    marks: usize,
}

impl Before {
    /// Returns whether a character is shown unchanged at this place.
    fn takes(&self, character: char) -> bool {
        if is_hidden(character) {
            return false;
        }
        // ASCII is tested first: the look-up of a category takes longer.
        character.is_ascii() || !is_mark(character) || (self.last.is_some() && self.marks < MARKS)
    }

    /// Returns whether a character joins the parts of an emoji, or selects the emoji form of a
    /// sign.
    fn joins(&self, character: char, next: Option<char>) -> bool {
        let Some(last) = self.last else { return false };
        let selected = last == '\u{fe0f}';
        match character {
            '\u{200d}' => (is_symbol(last) || selected) && next.is_some_and(is_symbol),
            '\u{fe0f}' => {
                is_symbol(last)
                    || (matches!(last, '0'..='9' | '#' | '*') && next == Some('\u{20e3}'))
            }
            _ => false,
        }
    }

    fn is_blank(&self) -> bool {
        self.last.is_none_or(|last| last == ' ')
    }

    fn note(&mut self, character: char, kept: bool) {
        self.marks =
            if kept && !character.is_ascii() && is_mark(character) { self.marks + 1 } else { 0 };
        // After an escape, a combining mark has a character to stand on: its closing brace.
        self.last = Some(if kept || character == ' ' { character } else { '}' });
    }
}

/// JSON with hidden characters escaped as `\u202e`, which parses to the same text.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Visible;

impl Visible {
    fn write<W: io::Write + ?Sized>(writer: &mut W, text: &str) -> io::Result<()> {
        let mut rest = text;
        while let Some((place, character)) =
            rest.char_indices().find(|(_, character)| is_hidden(*character))
        {
            let (seen, from_here) = rest.split_at(place);
            writer.write_all(seen.as_bytes())?;
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = from_here.get(character.len_utf8()..).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }
}

impl serde_json::ser::Formatter for Visible {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        Self::write(writer, fragment)
    }

    /// Writes stored JSON text. A hidden character in it is part of a string, and its line ends are
    /// blanks between values.
    fn write_raw_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let blanks: &[char] = &['\n', '\r', '\t'];
        if fragment.contains(blanks) {
            return Self::write(writer, &fragment.replace(blanks, " "));
        }
        Self::write(writer, fragment)
    }
}

/// Standard error for lines of a log, with hidden characters escaped. Colours are kept: the quoted
/// text has none, because the log escapes it first.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Log;

impl Log {
    fn shown(bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(bytes);
        let mut shown = String::with_capacity(text.len());
        for character in text.chars() {
            let kept = matches!(character, '\n' | '\u{1b}') || !is_hidden(character);
            put(&mut shown, character, kept);
        }
        shown
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(Self::shown(bytes).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_reorders_hides_or_breaks_a_line_is_written_out() {
        assert_eq!(
            plain("a\u{1b}[31mb\nc\u{9b}1m\u{8}\u{7f}"),
            "a\\u{1b}[31mb\\nc\\u{9b}1m\\u{8}\\u{7f}"
        );
        for hidden in
            "\u{ad}\u{61c}\u{180e}\u{200b}\u{200c}\u{200d}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2060}\u{2064}\
             \u{2066}\u{2069}\u{206f}\u{feff}\u{fff9}\u{fffb}\u{e0001}\u{e0041}\u{e007f}\u{e000}\u{10ffff}\u{378}\u{34f}\
             \u{115f}\u{3164}\u{ffa0}\u{2800}\u{fe00}\u{fe0f}\u{e0100}\u{0}\u{85}"
                .chars()
        {
            let text = format!("a{hidden}b");
            let written = format!("a{}b", hidden.escape_unicode());
            assert_eq!((plain(&text), name(&text)), (written.clone(), written), "{hidden:?}");
        }
        for text in
            ["naïve ✓ — “ok”", "日本語　テスト", "שלום", "한국어", "e\u{301}", "1,000\u{a0}€"]
        {
            assert_eq!(plain(text), text);
        }
    }

    #[test]
    fn an_emoji_stays_whole_in_a_value_and_its_joiners_show_in_a_name() {
        for emoji in [
            "👨\u{200d}👩\u{200d}👧",
            "❤️",
            "👩🏽\u{200d}🚀",
            "👩\u{200d}❤️\u{200d}👨",
            "1️⃣",
            "🤷\u{200d}♀️",
        ] {
            assert_eq!(plain(emoji), emoji);
        }
        assert_eq!(name("👨\u{200d}👩"), "👨\\u{200d}👩");
        assert_eq!(plain("a\u{200d}b \u{200d}✓"), "a\\u{200d}b \\u{200d}✓", "only within an emoji");
    }

    #[test]
    fn no_two_names_look_the_same() {
        assert_eq!(name("a b"), "a b");
        assert_eq!(
            name(" a  b "),
            "\\u{20}a \\u{20}b\\u{20}",
            "blanks cannot stand for the gap between columns"
        );
        assert_eq!(name("a\u{a0}b\u{3000}"), "a\\u{a0}b\\u{3000}");
        assert_eq!(name("a\\u{202e}b"), "a\\\\u{202e}b", "not what U+202E is shown as");
    }

    #[test]
    fn marks_without_a_letter_and_towers_of_them_are_written_out() {
        assert_eq!(plain("\u{301}a"), "\\u{301}a");
        assert_eq!(
            plain(&format!("a{}", "\u{301}".repeat(5))),
            "a\u{301}\u{301}\u{301}\u{301}\\u{301}"
        );
        assert_eq!(
            name("\u{202e}\u{301}"),
            "\\u{202e}\u{301}",
            "it stands on the brace, where it is seen"
        );
    }

    #[test]
    fn a_line_of_a_log_hides_nothing_and_keeps_its_colours() {
        let line = "\u{1b}[33mWARN\u{1b}[0m actor=\u{202e}nna\u{9b}\n";
        assert_eq!(
            Log::shown(line.as_bytes()),
            "\u{1b}[33mWARN\u{1b}[0m actor=\\u{202e}nna\\u{9b}\n"
        );
    }

    #[test]
    fn json_hides_nothing_and_reads_as_the_same_text() {
        let value = json!({"a\u{202e}": "\u{e0041}b\u{200b}\u{9b}\n\"", "c": ["naïve"]});
        let raw =
            serde_json::value::RawValue::from_string("{\n\"x\":\"\u{feff}\"}".to_owned()).unwrap();
        for (wanted, written) in
            [(&value, to_json(&value)), (&json!({"x": "\u{feff}"}), to_json(&raw))]
        {
            assert!(!written.chars().any(is_hidden), "{written:?}");
            assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), *wanted);
        }
    }

    fn to_json(value: &impl Serialize) -> String {
        let mut bytes = Vec::new();
        value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, Visible)).unwrap();
        String::from_utf8(bytes).unwrap()
    }
}
