//! The words of a text, for search.
//!
//! ```text
//!   "O’Brien, +62 812-3456" ─► o, brien, 628123456
//!   "東京タワー"             ─► 東京, 京タ, タワ, ワー
//! ```
//!
//! Invariants:
//! 1. Words are caseless: without case and accents. What is asked for is split by the same rules.
//! 2. A range of a word is that of the text as it was written.

use std::ops::Range;

use unicode_normalization::char::is_combining_mark;

use crate::index::without_case;
use crate::limits;

/// A word of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The word without case and accents, at most [`limits::SEARCH_WORD_BYTES`].
    pub text: String,
    /// Where it is in the text, in bytes.
    pub range: Range<usize>,
}

/// The fewest digits of a text that is taken for a phone number.
const PHONE_DIGITS: usize = 5;
/// The fewest digits of what is asked for that are taken for a part of a phone number.
const ASKED_DIGITS: usize = 3;

/// Returns the words of a text: runs of letters and digits. Scripts without spaces between words
/// give each pair of neighbours. A text that is a phone number gives its digits as one word.
pub fn words(text: &str) -> Vec<Word> {
    if let Some(digits) = digits(text, PHONE_DIGITS) {
        return vec![Word { text: digits, range: 0..text.len() }];
    }
    let mut words = Vec::new();
    let mut run: Option<Range<usize>> = None;
    let mut letters: Vec<Range<usize>> = Vec::new();
    for (at, letter) in text.char_indices() {
        let range = at..at + letter.len_utf8();
        if is_without_spaces(letter) {
            end_run(text, &mut run, &mut words);
            letters.push(range);
            continue;
        }
        pairs(text, &mut letters, &mut words);
        if letter.is_alphanumeric() || (run.is_some() && is_combining_mark(letter)) {
            run.get_or_insert(at..at).end = range.end;
        } else {
            end_run(text, &mut run, &mut words);
        }
    }
    end_run(text, &mut run, &mut words);
    pairs(text, &mut letters, &mut words);
    words
}

/// Returns the words that somebody asks for, each once.
pub fn asked_words(text: &str) -> Vec<String> {
    let mut asked = match digits(text, ASKED_DIGITS) {
        // In a number with its country the zero before the area is missing.
        Some(digits) => vec![digits.trim_start_matches('0').to_owned()],
        None => words(text).into_iter().map(|word| word.text).collect(),
    };
    asked.retain(|word| !word.is_empty());
    let mut known = std::collections::BTreeSet::new();
    asked.retain(|word| known.insert(word.clone()));
    asked.truncate(limits::SEARCH_ASKED_WORDS);
    asked
}

fn end_run(text: &str, run: &mut Option<Range<usize>>, words: &mut Vec<Word>) {
    words.extend(run.take().and_then(|range| word(text, range)));
}

fn pairs(text: &str, letters: &mut Vec<Range<usize>>, words: &mut Vec<Word>) {
    if let [alone] = letters.as_slice() {
        words.extend(word(text, alone.clone()));
    }
    for pair in letters.windows(2) {
        if let [one, other] = pair {
            words.extend(word(text, one.start..other.end));
        }
    }
    letters.clear();
}

fn word(text: &str, range: Range<usize>) -> Option<Word> {
    let mut letters = without_case(text.get(range.clone())?).into_owned();
    // A letter may stand for several words, such as ½ to 1⁄2: its letters are one.
    if !letters.is_ascii() {
        letters.retain(char::is_alphanumeric);
    }
    let mut end = letters.len().min(limits::SEARCH_WORD_BYTES);
    while !letters.is_char_boundary(end) {
        end -= 1;
    }
    letters.truncate(end);
    (!letters.is_empty()).then_some(Word { text: letters, range })
}

/// Returns the digits of a text that has nothing but digits and what stands between the digits of
/// phone numbers, if there are enough of them.
fn digits(text: &str, fewest: usize) -> Option<String> {
    let is_of_phone = |letter: char| letter.is_ascii_digit() || "+-./() \u{a0}".contains(letter);
    if !text.chars().all(is_of_phone) {
        return None;
    }
    let mut digits: String = text.chars().filter(char::is_ascii_digit).collect();
    digits.truncate(limits::SEARCH_WORD_BYTES);
    (digits.len() >= fewest).then_some(digits)
}

/// Returns whether a letter is of a script that writes words without spaces: Chinese, Japanese,
/// Thai, Lao, Burmese, Khmer.
const fn is_without_spaces(letter: char) -> bool {
    matches!(
        letter,
        '\u{e00}'..='\u{eff}'
            | '\u{1000}'..='\u{109f}'
            | '\u{1780}'..='\u{17ff}'
            | '\u{3005}'..='\u{3007}'
            | '\u{3040}'..='\u{30ff}'
            | '\u{3400}'..='\u{4dbf}'
            | '\u{4e00}'..='\u{9fff}'
            | '\u{f900}'..='\u{faff}'
            | '\u{20000}'..='\u{3ffff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        words(text).into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn a_text_is_split_into_caseless_words() {
        assert_eq!(texts("O’Brien-Müller, e\u{301}VA 2nd"), ["o", "brien", "muller", "eva", "2nd"]);
        assert_eq!(texts("東京タワー A"), ["東京", "京タ", "タワ", "ワー", "a"]);
        assert_eq!(texts("Ёлка и كتاب"), ["елка", "и", "كتاب"]);
        assert_eq!(texts(" ... ½"), ["12"]);
        assert!(texts("").is_empty());
    }

    #[test]
    fn a_range_is_that_of_the_text_as_it_was_written() {
        let text = "Frau Müller";
        let found: Vec<_> = words(text).into_iter().map(|word| &text[word.range]).collect();
        assert_eq!(found, ["Frau", "Müller"]);
    }

    #[test]
    fn a_phone_number_is_one_word_however_it_is_written() {
        for number in ["+62 812-3456", "(62) 812.3456", "628123456"] {
            assert_eq!(texts(number), ["628123456"], "{number}");
        }
        assert_eq!(texts("12 34"), ["12", "34"], "too few digits for a phone number");
        assert_eq!(asked_words("0812 3456"), ["8123456"]);
        assert_eq!(asked_words("000"), [""; 0]);
    }

    #[test]
    fn a_long_word_is_cut_and_what_is_asked_is_bounded() {
        let long = "ä".repeat(400);
        assert_eq!(texts(&long), ["a".repeat(limits::SEARCH_WORD_BYTES)]);
        let many: String = (0..100).map(|number| format!("w{number} ")).collect();
        assert_eq!(asked_words(&many).len(), limits::SEARCH_ASKED_WORDS);
        assert_eq!(asked_words("hot hot HOT"), ["hot"]);
    }
}
