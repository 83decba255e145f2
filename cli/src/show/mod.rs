//! What a person reads: tables, progress, times, entries and states in words. And JSON for
//! machines.

pub(crate) mod advice;
pub(crate) mod entry;
pub(crate) mod history;
pub(crate) mod json;
mod plain;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod time;
pub(crate) mod words;

pub(crate) use plain::{Log, Visible, name, plain};

/// Returns a number with its noun. A `y` at the end of the noun becomes `ies`.
pub(crate) fn count(number: impl Into<u64>, one: &str) -> String {
    match number.into() {
        1 => format!("1 {one}"),
        number => match one.strip_suffix('y') {
            Some(stem) => format!("{number} {stem}ies"),
            None => format!("{number} {one}s"),
        },
    }
}

/// Returns the number of items in a slice, with the noun.
pub(crate) fn count_of<T>(items: &[T], one: &str) -> String {
    count(items.len() as u64, one)
}

/// Returns the value of a field before or after a change: a dash if there was none, and a long
/// value by its beginning and its length, unless it is to be shown in full.
pub(crate) fn value_or_dash(value: Option<&serde_json::Value>, full: bool) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if full => value.to_string(),
        Some(value) => fieldbook::audit::shown_value(value),
    }
}

/// Joins the first items, and adds the number of the rest.
pub(crate) fn some(items: impl IntoIterator<Item = String>) -> String {
    const SHOWN: usize = 4;
    let items: Vec<_> = items.into_iter().collect();
    let besides = items.len().saturating_sub(SHOWN);
    let mut text = items.into_iter().take(SHOWN).collect::<Vec<_>>().join(", ");
    if besides > 0 {
        text.push_str(&format!(" and {besides} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_enumeration_is_cut_and_says_so() {
        assert_eq!(some(["a".to_owned()]), "a");
        assert_eq!(some((1..=6).map(|n| n.to_string())), "1, 2, 3, 4 and 2 more");
        assert_eq!((count(1u64, "op"), count(2u64, "op")), ("1 op".to_owned(), "2 ops".to_owned()));
        assert_eq!(count(0u64, "entry"), "0 entries");
    }
}
