//! Values of fields in a page, as the program shows them: hidden characters are escaped, and long
//! values are cut, with their length.

use serde_json::{Value, json};

use super::block::short_hash;
use crate::show::plain;

/// A value of more characters is cut.
const WHOLE: usize = 2_000;
/// How many characters of such a value are kept.
const KEPT: usize = 200;

/// Returns a value for the page: a text as a string, anything else as `[JSON]`, and a long value as
/// `[beginning, characters, hash]`. `has_cut` is set if it is cut.
pub(super) fn value(value: &Value, full: bool, has_cut: &mut bool) -> Value {
    let (text, is_text) = match value {
        Value::String(text) => (text.clone(), true),
        other => (other.to_string(), false),
    };
    let length = text.chars().count();
    if length > WHOLE && !full {
        *has_cut = true;
        let beginning: String = text.chars().take(KEPT).collect();
        return json!([lines(&beginning), length, short_hash(&text)]);
    }
    if is_text { Value::String(lines(&text)) } else { json!([plain(&text)]) }
}

/// Returns a text with hidden characters escaped. It keeps its lines.
pub(super) fn lines(text: &str) -> String {
    text.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_shown_as_the_program_shows_it_and_a_long_one_with_its_length() {
        let mut cut = false;
        let mut shown = |of: Value| value(&of, false, &mut cut);
        assert_eq!(shown(json!("one\ntwo\u{202e}\u{2028}")), json!("one\ntwo\\u{202e}\\u{2028}"));
        assert_eq!(shown(json!(12)), json!(["12"]));
        assert_eq!(shown(json!(null)), json!(["null"]));
        assert_eq!(shown(json!({"a": "</script>"})), json!([r#"{"a":"</script>"}"#]));
        let long = shown(json!("n".repeat(600_000)));
        assert_eq!(long[0], json!("n".repeat(200)));
        assert_eq!((&long[1], long[2].as_str().map(str::len)), (&json!(600_000), Some(12)));
        assert!(cut);
        let mut cut = false;
        assert_eq!(value(&json!("n".repeat(3_000)), true, &mut cut), json!("n".repeat(3_000)));
        assert!(!cut);
    }
}
