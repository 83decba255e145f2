//! A declared check of a field's value.

use std::fmt;

use serde::Deserialize;
use serde_json::{Number, Value};

/// The conditions of a field's value. A condition that is not declared holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Check {
    /// The kind of value.
    kind: Option<Kind>,
    /// Whether every record has a value.
    needed: bool,
    /// The least number.
    least: Option<Number>,
    /// The greatest number.
    most: Option<Number>,
    /// The fewest characters of a text, or elements of a list.
    shortest: Option<usize>,
    /// The most characters of a text, or elements of a list.
    longest: Option<usize>,
    /// The allowed values.
    one_of: Option<Vec<Value>>,
}

/// A kind of value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Text,
    Number,
    WholeNumber,
    Boolean,
    List,
    Object,
}

/// Why a value is refused, as the end of a sentence. It never repeats the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault<'c> {
    Missing,
    Kind(Kind),
    Less(&'c Number),
    More(&'c Number),
    Shorter(usize),
    Longer(usize),
    Other,
}

impl Check {
    /// Returns why a value is refused; `None` is no value.
    pub(super) fn fault(&self, value: Option<&Value>) -> Option<Fault<'_>> {
        let Some(value) = value else { return self.needed.then_some(Fault::Missing) };
        if let Some(kind) = self.kind.filter(|kind| !kind.is_of(value)) {
            return Some(Fault::Kind(kind));
        }
        if let Value::Number(number) = value {
            if let Some(least) = self.least.as_ref().filter(|least| is_less(number, least)) {
                return Some(Fault::Less(least));
            }
            if let Some(most) = self.most.as_ref().filter(|most| is_less(most, number)) {
                return Some(Fault::More(most));
            }
        }
        if let Some(length) = length(value) {
            if let Some(shortest) = self.shortest.filter(|shortest| length < *shortest) {
                return Some(Fault::Shorter(shortest));
            }
            if let Some(longest) = self.longest.filter(|longest| length > *longest) {
                return Some(Fault::Longer(longest));
            }
        }
        let is_other = |allowed: &Vec<Value>| !allowed.contains(value);
        self.one_of.as_ref().is_some_and(is_other).then_some(Fault::Other)
    }

    /// Returns a fault of the check itself, with advice.
    pub(super) fn mistake(&self) -> Option<&'static str> {
        let is_crossed = match (&self.least, &self.most) {
            (Some(least), Some(most)) => is_less(most, least),
            _ => false,
        };
        if is_crossed || self.shortest.zip(self.longest).is_some_and(|(short, long)| long < short) {
            return Some("allows no value: its lower bound is above its upper one");
        }
        if self.one_of.as_ref().is_some_and(Vec::is_empty) {
            return Some("allows no value: one_of lists at least one");
        }
        (*self == Self::default()).then_some(
            "checks nothing: name kind, needed, least, most, shortest, longest or one_of",
        )
    }
}

impl Kind {
    fn is_of(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Number => value.is_number(),
            Self::WholeNumber => value.is_i64() || value.is_u64(),
            Self::Boolean => value.is_boolean(),
            Self::List => value.is_array(),
            Self::Object => value.is_object(),
        }
    }
}

/// Compares numbers. Whole numbers are compared as such: a double cannot tell all of them apart.
fn is_less(left: &Number, right: &Number) -> bool {
    if let (Some(left), Some(right)) = (whole(left), whole(right)) {
        return left < right;
    }
    left.as_f64().zip(right.as_f64()).is_some_and(|(left, right)| left < right)
}

fn whole(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

fn length(value: &Value) -> Option<usize> {
    match value {
        Value::String(text) => Some(text.chars().count()),
        Value::Array(elements) => Some(elements.len()),
        _ => None,
    }
}

impl fmt::Display for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing: every record has it"),
            Self::Kind(kind) => write!(f, "is not {kind}"),
            Self::Less(least) => write!(f, "is less than {least}"),
            Self::More(most) => write!(f, "is more than {most}"),
            Self::Shorter(shortest) => write!(f, "is shorter than {shortest}"),
            Self::Longer(longest) => write!(f, "is longer than {longest}"),
            Self::Other => f.write_str("is none of the allowed values"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "a text",
            Self::Number => "a number",
            Self::WholeNumber => "a whole number",
            Self::Boolean => "true or false",
            Self::List => "a list",
            Self::Object => "an object",
        })
    }
}
