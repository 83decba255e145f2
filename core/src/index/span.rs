//! What a list asks of an index, as a range of keys.
//!
//! Invariants:
//! 1. The range has the key of every record that the list asks for.
//! 2. It has no other keys, unless a text of the conditions was cut. Then [`Span::holds`] decides
//!    for each record.

use std::cmp::Ordering;
use std::ops::Bound;

use serde_json::Value;

use super::order::{self, Kind};
use super::{IndexPart, IndexRule, compare};
use crate::fields::InvalidFields;
use crate::names::EntityType;

/// The conditions of a list: equal values of the first parts, then perhaps a range or a prefix of
/// the next part.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conditions {
    pub(super) equal: Vec<Value>,
    pub(super) last: Option<Last>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Last {
    Range(Bound<Value>, Bound<Value>),
    Prefix(String),
}

/// Conditions that an index cannot answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.as_str())]
#[non_exhaustive]
pub enum Misfit {
    /// A condition follows a range or a prefix.
    BehindRange,
    /// There are more conditions than parts.
    Parts,
    /// A value is a list or an object, or a bound is null.
    Kind,
    /// The bounds of a range have different kinds.
    Bounds,
}

impl Misfit {
    /// Returns the fault in words, with what to do.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BehindRange => {
                "a condition follows a range or a prefix: ask for one of these last, and only once"
            }
            Self::Parts => {
                "the list has more conditions than its index has parts: declare an index with more parts"
            }
            Self::Kind => {
                "an index has texts, numbers, true and false: look for one of these, or for null with `eq`"
            }
            Self::Bounds => {
                "the bounds of a range have different kinds: use two texts, two numbers or two truth values"
            }
        }
    }
}

impl Conditions {
    /// Adds a value that the next part has to have. A null stands for no value.
    ///
    /// # Errors
    /// [`Misfit`] if the conditions end with a range or a prefix, or the value is a list or an
    /// object.
    pub fn equal(&mut self, value: Value) -> Result<(), Misfit> {
        self.is_open()?;
        if matches!(value, Value::Array(_) | Value::Object(_)) {
            return Err(Misfit::Kind);
        }
        self.equal.push(value);
        Ok(())
    }

    /// Adds a range for the next part. It has values of the kind of its bounds only.
    ///
    /// # Errors
    /// [`Misfit`] if the conditions end with a range or a prefix, or the bounds are not two texts,
    /// two numbers or two truth values.
    pub fn range(&mut self, from: Bound<Value>, to: Bound<Value>) -> Result<(), Misfit> {
        self.is_open()?;
        let kind = |bound: &Bound<Value>| match bound {
            Bound::Included(value) | Bound::Excluded(value) => Some(Kind::of(Some(value))),
            Bound::Unbounded => None,
        };
        let kinds = (kind(&from), kind(&to));
        if kinds.0 == Some(Kind::Nothing) || kinds.1 == Some(Kind::Nothing) {
            return Err(Misfit::Kind);
        }
        if matches!(kinds, (Some(one), Some(other)) if one != other) {
            return Err(Misfit::Bounds);
        }
        if kinds != (None, None) {
            self.last = Some(Last::Range(from, to));
        }
        Ok(())
    }

    /// Adds a beginning of the text of the next part.
    ///
    /// # Errors
    /// [`Misfit`] if the conditions end with a range or a prefix.
    pub fn prefix(&mut self, text: impl Into<String>) -> Result<(), Misfit> {
        self.is_open()?;
        self.last = Some(Last::Prefix(text.into()));
        Ok(())
    }

    const fn is_open(&self) -> Result<(), Misfit> {
        if self.last.is_some() { Err(Misfit::BehindRange) } else { Ok(()) }
    }
}

/// A range of the keys of one index.
#[derive(Debug, Clone, PartialEq)]
pub struct Span<'r> {
    rule: &'r IndexRule,
    entity: &'r EntityType,
    conditions: &'r Conditions,
    from: Vec<u8>,
    to: Vec<u8>,
    /// Whether the range may have keys of other records too, because a text was cut.
    is_rough: bool,
}

impl<'r> Span<'r> {
    /// Makes the range of some conditions.
    ///
    /// # Errors
    /// [`Misfit::Parts`] if the index has fewer parts than there are conditions.
    pub fn new(
        rule: &'r IndexRule,
        entity: &'r EntityType,
        conditions: &'r Conditions,
    ) -> Result<Self, Misfit> {
        let Conditions { equal, last } = conditions;
        if equal.len() + usize::from(last.is_some()) > rule.parts.len() {
            return Err(Misfit::Parts);
        }
        let (mut key, mut is_rough) = (rule.prefix(entity), false);
        for (part, value) in rule.parts.iter().zip(equal) {
            is_rough |= order::write(part, Some(value), &mut key);
        }
        let (from, to) = match (last, rule.parts.get(equal.len())) {
            (Some(Last::Range(from, to)), Some(part)) => {
                let (from, to, cut) = bounded(part, &key, (from, to));
                is_rough |= cut;
                (from, to)
            }
            (Some(Last::Prefix(text)), Some(part)) => {
                is_rough |= order::write_prefix(part, text, &mut key);
                let to = after(&key);
                (key, to)
            }
            _ => {
                let to = after(&key);
                (key, to)
            }
        };
        Ok(Self { rule, entity, conditions, from, to, is_rough })
    }

    /// Returns the first key of the range and the first key after it.
    pub fn bounds(&self) -> (&[u8], &[u8]) {
        (&self.from, &self.to)
    }

    /// Returns the rule of the index.
    pub const fn rule(&self) -> &'r IndexRule {
        self.rule
    }

    /// Returns the entity type.
    pub const fn entity(&self) -> &'r EntityType {
        self.entity
    }

    /// Returns whether [`Self::holds`] has to decide for each record.
    pub const fn is_rough(&self) -> bool {
        self.is_rough
    }

    /// Returns whether a record fulfils the conditions with the entry that has this key.
    ///
    /// # Errors
    /// [`InvalidFields`] if its image is damaged.
    pub fn holds(&self, key: &[u8], id: &str, image: &str) -> Result<bool, InvalidFields> {
        self.rule.any_entry(image, |values| {
            let mut values_and_parts = self.rule.parts.iter().zip(&values);
            let equal = self.conditions.equal.iter().all(|wanted| {
                values_and_parts.next().is_some_and(|(part, value)| {
                    compare(part, *value, Some(wanted)) == Ordering::Equal
                })
            });
            let last = self.conditions.last.as_ref().is_none_or(|last| {
                values_and_parts.next().is_some_and(|(part, value)| last.holds(part, *value))
            });
            equal && last && self.rule.key(self.entity, id, &values) == key
        })
    }
}

impl Last {
    fn holds(&self, part: &IndexPart, value: Option<&Value>) -> bool {
        // The conditions are about values, whatever the direction of the part.
        let part = IndexPart { descending: false, ..part.clone() };
        match (self, value) {
            (Self::Prefix(prefix), Some(Value::String(text))) => part.begins(text, prefix),
            (Self::Prefix(_), _) => false,
            (Self::Range(from, to), value) => {
                let order = |bound: &Value| compare(&part, value, Some(bound));
                let is_kind = |bound: &Value| Kind::of(value) == Kind::of(Some(bound));
                let after = match from {
                    Bound::Included(from) => is_kind(from) && order(from).is_ge(),
                    Bound::Excluded(from) => is_kind(from) && order(from).is_gt(),
                    Bound::Unbounded => true,
                };
                let before = match to {
                    Bound::Included(to) => is_kind(to) && order(to).is_le(),
                    Bound::Excluded(to) => is_kind(to) && order(to).is_lt(),
                    Bound::Unbounded => true,
                };
                after && before
            }
        }
    }
}

impl IndexPart {
    fn begins(&self, text: &str, prefix: &str) -> bool {
        if self.caseless {
            super::caseless::without_case(text).starts_with(&*super::caseless::without_case(prefix))
        } else {
            text.starts_with(prefix)
        }
    }
}

/// Returns the range of a part's values between two bounds, after the key of the parts before it,
/// and whether a bound was cut.
fn bounded(
    part: &IndexPart,
    key: &[u8],
    bounds: (&Bound<Value>, &Bound<Value>),
) -> (Vec<u8>, Vec<u8>, bool) {
    // In the keys of a descending part the greater value comes first.
    let (first, last) = if part.descending { (bounds.1, bounds.0) } else { bounds };
    let kind = [first, last].into_iter().find_map(|bound| match bound {
        Bound::Included(value) | Bound::Excluded(value) => Some(Kind::of(Some(value))),
        Bound::Unbounded => None,
    });
    let (least, greatest) = kind.unwrap_or(Kind::Nothing).tags();
    let (start, end) = if part.descending { (!greatest, !least) } else { (least, greatest) };
    let mut is_cut = false;
    let mut at = |value: &Value| {
        let mut key = key.to_vec();
        let cut = order::write(part, Some(value), &mut key);
        is_cut |= cut;
        (key, cut)
    };
    let from = match first {
        Bound::Unbounded => [key, &[start]].concat(),
        Bound::Included(value) => at(value).0,
        // Texts on both sides of a bound that was cut have its key.
        Bound::Excluded(value) => match at(value) {
            (key, true) => key,
            (key, false) => after(&key),
        },
    };
    let to = match last {
        Bound::Unbounded => after(&[key, &[end]].concat()),
        Bound::Included(value) => after(&at(value).0),
        Bound::Excluded(value) => match at(value) {
            (key, true) => after(&key),
            (key, false) => key,
        },
    };
    (from, to, is_cut)
}

/// Returns the first key after all keys that begin so. A key begins with a letter, so there is one.
fn after(key: &[u8]) -> Vec<u8> {
    let mut key = key.to_vec();
    while key.pop_if(|last| *last == u8::MAX).is_some() {}
    if let Some(last) = key.last_mut() {
        *last += 1;
    }
    key
}
