//! Texts without their case and accents, for indexes that compare them so.
//!
//! ```text
//!   Straße ─► decompose ─► leave marks out ─► lower, upper, lower case ─► strasse
//! ```
//!
//! Invariants:
//! 1. The result depends on the text and on the tables of Unicode alone. [`UNICODE`] names their
//!    versions, and an index of other versions is built anew.
//!
//! What it is not: a collation. The order of caseless texts is that of their bytes, in every
//! language.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// The versions of Unicode by which texts are made caseless: that of cases, and that of marks.
pub const UNICODE: [(u8, u8, u8); 2] =
    [char::UNICODE_VERSION, unicode_normalization::UNICODE_VERSION];

/// Returns a text without case and accents.
pub(crate) fn without_case(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Cow::Owned(text.to_ascii_lowercase());
        }
        return Cow::Borrowed(text);
    }
    let bare = text.nfkd().filter(|letter| !is_combining_mark(*letter));
    // By way of upper case, because only there ß is SS and both small sigmas are one letter; from
    // lower case, because the upper case of ẞ is itself.
    let caseless = bare.flat_map(char::to_lowercase).flat_map(char::to_uppercase);
    let caseless = caseless.flat_map(char::to_lowercase);
    // Lower case can bring a mark back: the dot of İ.
    Cow::Owned(caseless.filter(|letter| !is_combining_mark(*letter)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_however_they_are_written() {
        for (one, other) in [
            ("ÉVA", "eva"),
            ("Müller", "muller"),
            ("Straße", "STRASSE"),
            ("Ἀχιλλεύς", "αχιλλευσ"),
            ("İstanbul", "istanbul"),
            ("ﬁeld", "FIELD"),
            ("e\u{301}", "\u{e9}"),
            ("Ёлка", "елка"),
        ] {
            assert_eq!(without_case(one), without_case(other), "{one}");
        }
        assert_ne!(without_case("ø"), without_case("o"), "Unicode does not decompose it");
    }

    #[test]
    fn a_caseless_text_stays_as_it_is() {
        for text in ["ÉVA", "ẞ", "ﬃ", "İ", "ΑΣ", "ŉ", "ǰ", "ΰ", "한국", "日本", "𝐀"]
        {
            let once = without_case(text).into_owned();
            assert_eq!(without_case(&once), once, "{text}");
        }
    }
}
