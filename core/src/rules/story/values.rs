//! Words for values and for changes of fields: `stage from "new" to "won"`.

use serde::Serialize;
use serde_json::Value;

use crate::entry::NOT_IN_BUNDLE;
use crate::fields::FieldsJson;
use crate::rules::status::words::listed;

/// A field before and after an entry.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    /// The field.
    pub field: String,
    /// Its value before; none if it had none.
    pub old: Option<Value>,
    /// Its value after; none if it has none.
    pub new: Option<Value>,
}

/// The most characters of a value that are told.
const TOLD: usize = 80;
/// How many of them begin a longer value.
const BEGINNING: usize = 40;

/// Returns a value in words. A value of more than 80 characters is cut, with its length:
/// `"nnn…" (600,000 characters)`.
pub fn shown(value: &Value) -> String {
    let (quoted, length) = match value {
        Value::String(text) => (true, text.chars().count()),
        other => (false, other.to_string().chars().count()),
    };
    if length <= TOLD {
        return value.to_string();
    }
    let length = grouped(length);
    if let (true, Value::String(text)) = (quoted, value) {
        let beginning: String = text.chars().take(BEGINNING).collect();
        return format!("{}…\" ({length} characters)", unclosed(&beginning));
    }
    let beginning: String = value.to_string().chars().take(BEGINNING).collect();
    format!("{beginning}… ({length} characters)")
}

/// Returns text as JSON without the closing quote.
fn unclosed(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted.strip_suffix('"').unwrap_or(&quoted).to_owned()
}

/// Returns a number with commas between groups of three digits.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && at % 3 == first % 3 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns the fields that differ between two images, in the order of their names. No image counts
/// as one without fields, and so does an image that does not read.
pub fn changes(before: Option<&FieldsJson>, after: Option<&FieldsJson>) -> Vec<FieldChange> {
    let read = |image: Option<&FieldsJson>| {
        image.and_then(|image| image.to_fields().ok()).unwrap_or_default()
    };
    let (before, after) = (read(before), read(after));
    let mut names: Vec<&str> = before.iter().chain(after.iter()).map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    let differs = names.into_iter().filter_map(|name| {
        let (old, new) = (before.get(name), after.get(name));
        (old != new).then(|| FieldChange {
            field: name.to_owned(),
            old: old.cloned(),
            new: new.cloned(),
        })
    });
    differs.collect()
}

/// Returns changed fields as the objects of a sentence: `changed stage from "new" to "won", set
/// phone to "1" and removed notes (was "x")`.
pub(super) fn in_words(changes: &[FieldChange]) -> String {
    let each = changes.iter().map(|change| {
        let field = &change.field;
        if field == NOT_IN_BUNDLE {
            return format!("changed values {NOT_IN_BUNDLE}");
        }
        match (&change.old, &change.new) {
            (Some(old), Some(new)) => {
                format!("changed {field} from {} to {}", shown(old), shown(new))
            }
            (None, Some(new)) => format!("set {field} to {}", shown(new)),
            (Some(old), None) => format!("removed {field} (was {})", shown(old)),
            (None, None) => format!("left {field} as it was"),
        }
    });
    listed(&each.collect::<Vec<_>>())
}

/// Returns the fields of a new record: `name "Ann", stage "new"`.
pub(super) fn image(fields: &FieldsJson) -> String {
    let Ok(fields) = fields.to_fields() else { return "(unreadable)".to_owned() };
    let each: Vec<_> = fields.iter().map(|(name, value)| in_image(name, value)).collect();
    if each.is_empty() { "no fields".to_owned() } else { each.join(", ") }
}

fn in_image(name: &str, value: &Value) -> String {
    if name == NOT_IN_BUNDLE {
        return format!("values {NOT_IN_BUNDLE}");
    }
    format!("{name} {}", shown(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_long_value_is_cut_with_its_length_and_a_short_one_is_whole() {
        assert_eq!(shown(&json!("Ann \"A\"")), r#""Ann \"A\"""#);
        assert_eq!(shown(&json!("é".repeat(80))), format!("\"{}\"", "é".repeat(80)));
        let long = shown(&json!("s".repeat(600_000)));
        assert_eq!(long, format!("\"{}…\" (600,000 characters)", "s".repeat(40)));
        assert_eq!(shown(&json!({"a": [1, 2]})), r#"{"a":[1,2]}"#);
        assert!(shown(&json!(vec![7; 100])).ends_with("… (201 characters)"));
    }

    #[test]
    fn numbers_have_groups_of_three_digits() {
        for (number, text) in [(0, "0"), (12, "12"), (999, "999"), (1_000, "1,000")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!((grouped(81_000), grouped(1_234_567)), ("81,000".into(), "1,234,567".into()));
    }

    #[test]
    fn changes_are_told_with_the_old_and_the_new_value() {
        let of = |text: &str| FieldsJson::parse(text).unwrap();
        let before = of(r#"{"a":1,"b":"x","c":true}"#);
        let after = of(r#"{"a":2,"c":true,"d":"new"}"#);
        let found = changes(Some(&before), Some(&after));
        assert_eq!(
            in_words(&found),
            r#"changed a from 1 to 2, removed b (was "x") and set d to "new""#
        );
        assert_eq!(changes(Some(&before), Some(&before)), []);
        assert_eq!(changes(None, Some(&after)).len(), 3);
        assert_eq!(image(&after), r#"a 2, c true, d "new""#);
        assert_eq!(image(&of("{}")), "no fields");
    }
}
