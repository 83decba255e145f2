//! The target over fields as text: accepted text has the one form, which is the form of its written
//! values.
//!
//! What it does not do: distinguish how the text is read. The law is the same for the quick check
//! and the slow way.

use fieldbook::Fields;
use fieldbook::record::FieldsJson;
use serde_json::Value;

use super::Choices;

/// The most levels of nesting in the text that is built from choices.
const LEVELS: usize = 4;

/// Reads raw text, or text built of choices, of which most has the one form. If the text is
/// accepted, `serde_json` reads it, and the written form of these values is the kept text.
pub fn fields_text(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let text = if choice & 1 == 0 {
        let Ok(text) = std::str::from_utf8(rest) else { return };
        text.to_owned()
    } else {
        let mut text = String::new();
        object(&mut Choices(rest), LEVELS, &mut text);
        text
    };
    let taken = FieldsJson::parse(&text);
    let read = serde_json::from_str::<Value>(&text);
    let (Ok(taken), Ok(Value::Object(members))) = (&taken, &read) else {
        assert!(taken.is_err(), "BUG: {text} is taken, but is no object");
        return;
    };
    let written = Fields::from_iter(members.clone()).checked();
    assert_eq!(written.as_ref(), Ok(taken), "BUG: {text} is not kept as its values are written");
    let again = FieldsJson::parse(taken.as_str());
    assert_eq!(again.as_ref(), Ok(taken), "BUG: what {text} is kept as is not taken as it is");
}

fn object(choices: &mut Choices<'_>, levels: usize, text: &mut String) {
    text.push('{');
    // The names ascend by themselves, except for a few.
    let mut letter = b'a';
    for member in 0..choices.below(6) {
        if member > 0 {
            text.push(',');
        }
        letter = letter.saturating_add(u8::try_from(choices.below(3)).unwrap_or(0));
        text.push('"');
        text.push(char::from(letter));
        characters(choices, text);
        text.push_str("\":");
        value(choices, levels, text);
    }
    text.push_str(pick(choices, &["}", "}", "}", "}", "}", "}", " }", ",}", "", "}}"]));
}

fn value(choices: &mut Choices<'_>, levels: usize, text: &mut String) {
    match choices.below(8) {
        0 | 1 => {
            text.push('"');
            characters(choices, text);
            text.push('"');
        }
        2 if levels > 0 => object(choices, levels - 1, text),
        3 if levels > 0 => {
            text.push('[');
            for item in 0..choices.below(4) {
                text.push_str(if item > 0 { "," } else { "" });
                value(choices, levels - 1, text);
            }
            text.push(']');
        }
        4 => number(choices, text),
        _ => {
            text.push_str(pick(choices, &["true", "false", "null", "0", "7", "\"\"", "-12", "1.5"]))
        }
    }
}

fn characters(choices: &mut Choices<'_>, text: &mut String) {
    const PARTS: [&str; 15] = [
        "plain text",
        "x",
        "é",
        "😀",
        "\\n",
        "\\\"",
        "\\\\",
        "\\u001f",
        "\\u0007",
        "\\u0041",
        "\\/",
        "\u{7f}",
        "\u{1}",
        "\\",
        "{[,]}:",
    ];
    for _ in 0..choices.below(4) {
        text.push_str(pick(choices, &PARTS));
    }
}

fn number(choices: &mut Choices<'_>, text: &mut String) {
    const PARTS: [&str; 12] =
        ["0", "1", "9", "12345678", "00", "-", ".", ".5", "e5", "E-3", "0001", "999999999"];
    for _ in 0..=choices.below(4) {
        text.push_str(pick(choices, &PARTS));
    }
}

fn pick<'a>(choices: &mut Choices<'_>, from: &[&'a str]) -> &'a str {
    from.get(choices.below(from.len())).copied().unwrap_or_default()
}
