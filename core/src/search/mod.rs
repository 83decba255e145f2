//! Search: what an app declares, the words of a record, and what fits what is asked for.
//!
//! A record is found if each word that is asked for fits a word of its declared fields. For each
//! asked word the ways are tried in this order, until one finds a record:
//!
//! 1. the same word, one that begins so, or one that contains it;
//! 2. a word with the same first letter and few mistakes;
//! 3. a word with few mistakes.
//!
//! A record has the points of the best fit of each asked word, each multiplied with the weight of
//! its field. Most points come first, and equal points in the order of ids.
//!
//! What it does not do: store anything. The tables do.

mod fit;
mod words;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fields::InvalidFields;
use crate::index::{Picked, UNICODE};
use crate::limits;
use crate::schema::EntityRules;

pub use fit::{Fit, Near, PART_LETTERS, is_near, mistakes_of};
pub use words::{Word, asked_words, words};

/// The version of the words. It is raised whenever the same rule and record give other words. What
/// is folded for search is then folded anew.
pub const SEARCH_VERSION: u32 = 2;

/// The fields of an entity type in which records are searched.
///
/// ```
/// use fieldbook_core::search::SearchRule;
///
/// let rule = SearchRule::new().field("name", 4).field("company", 2).field("phone", 1);
/// assert!(rule.check().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SearchRule {
    fields: Vec<(String, u32)>,
    /// The declarations through which records are read; `None` for records as they are stored.
    #[serde(skip)]
    reading: Option<Box<EntityRules>>,
}

/// A rule that cannot be declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.as_str())]
#[non_exhaustive]
pub enum InvalidSearch {
    /// There is no field, there are too many, or one is named twice.
    Fields,
    /// A weight is 0 or too great.
    Weight,
}

impl InvalidSearch {
    /// Returns the fault in words, with what to do.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fields => "search needs one to sixteen different fields",
            Self::Weight => "the weight of a field in search is 1 to 1,000",
        }
    }
}

/// A word of a record in one of its searched fields.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldWord {
    /// The place of the field in the rule.
    pub field: u8,
    /// The word.
    pub word: String,
}

impl SearchRule {
    /// Makes a rule without fields.
    pub const fn new() -> Self {
        Self { fields: Vec::new(), reading: None }
    }

    /// Adds a field. Words in a field of a higher weight count more. Texts and numbers are
    /// searched, and those in a list.
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, weight: u32) -> Self {
        self.fields.push((name.into(), weight));
        self
    }

    /// Returns the fields with their weights.
    pub fn fields(&self) -> &[(String, u32)] {
        &self.fields
    }

    /// Checks the rule.
    ///
    /// # Errors
    /// [`InvalidSearch`] with the first fault.
    #[doc(hidden)]
    pub fn check(&self) -> Result<(), InvalidSearch> {
        let names: std::collections::BTreeSet<_> =
            self.fields.iter().map(|(name, _)| name).collect();
        let sizes = 1..=limits::SEARCH_FIELDS;
        if names.len() != self.fields.len() || !sizes.contains(&names.len()) {
            return Err(InvalidSearch::Fields);
        }
        let weights = 1..=limits::SEARCH_WEIGHT;
        if !self.fields.iter().all(|(_, weight)| weights.contains(weight)) {
            return Err(InvalidSearch::Weight);
        }
        Ok(())
    }

    /// Returns bytes that differ between rules, between versions of the words and between tables of
    /// Unicode.
    #[doc(hidden)]
    pub fn digest(&self) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&SEARCH_VERSION.to_be_bytes());
        if let Some(form) = self.reading.as_ref().and_then(|rules| rules.form()) {
            hasher.update(&form.to_be_bytes());
        }
        for (major, minor, patch) in UNICODE {
            hasher.update(&[major, minor, patch]);
        }
        for (name, weight) in &self.fields {
            hasher.update(name.as_bytes()).update(&[0]).update(&weight.to_be_bytes());
        }
        let mut digest = [0; 16];
        digest.iter_mut().zip(hasher.finalize().as_bytes()).for_each(|(to, from)| *to = *from);
        digest
    }

    /// Takes the words of records as the app reads them: through the upcasters of their type.
    #[doc(hidden)]
    #[must_use]
    pub fn read_by(mut self, rules: &EntityRules) -> Self {
        self.reading = rules.form().map(|_| Box::new(rules.for_reading()));
        self
    }

    /// Returns the weight of a field, by its place.
    #[doc(hidden)]
    pub fn weight(&self, field: u8) -> u64 {
        self.fields.get(usize::from(field)).map_or(0, |(_, weight)| u64::from(*weight))
    }

    /// Returns the words of a record, in order and each once: at most
    /// [`limits::SEARCH_RECORD_WORDS`], those of the first fields first.
    ///
    /// # Errors
    /// [`InvalidFields`] if the image is damaged.
    #[doc(hidden)]
    pub fn words_of(&self, image: &str) -> Result<Vec<FieldWord>, InvalidFields> {
        let mut found = Vec::new();
        self.texts(image, |field, text| {
            found.extend(words(text).into_iter().map(|word| FieldWord { field, word: word.text }));
        })?;
        if found.len() > limits::SEARCH_RECORD_WORDS {
            let mut known = std::collections::BTreeSet::new();
            found.retain(|word| {
                known.len() < limits::SEARCH_RECORD_WORDS && known.insert(word.clone())
            });
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Passes each text of a searched field to `read`, with the place of the field.
    ///
    /// # Errors
    /// As for [`Self::words_of`].
    #[doc(hidden)]
    pub fn texts(&self, image: &str, mut read: impl FnMut(u8, &str)) -> Result<(), InvalidFields> {
        let image = match &self.reading {
            Some(rules) => rules.read_text(image)?,
            None => Cow::Borrowed(image),
        };
        let mut names: Vec<String> = self.fields.iter().map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        let fields = Picked::of(&names, &image)?;
        for ((name, _), place) in self.fields.iter().zip(0_u8..) {
            match fields.get(name) {
                Some(Value::Array(items)) => {
                    items.iter().for_each(|item| text(item, place, &mut read))
                }
                Some(value) => text(value, place, &mut read),
                None => {}
            }
        }
        Ok(())
    }
}

fn text(value: &Value, field: u8, read: &mut impl FnMut(u8, &str)) {
    match value {
        Value::String(text) => read(field, text),
        Value::Number(number) => read(field, &number.to_string()),
        _ => {}
    }
}
