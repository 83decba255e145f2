//! Indexes: what an app declares, the order of their keys, and what a list asks of them.
//!
//! ```text
//!   IndexRule ── the parts of an index ──┐
//!   a record's fields as text ───────────┴─► entries ─► keys, in the order of the values
//!   Conditions of a list ──────────────────► Span: a range of keys, and a check of long texts
//! ```
//!
//! A key is: entity type, 0, name of the index, 0, the parts, the record's id. `order` has the form
//! of a part.
//!
//! Invariants:
//! 1. The order of keys is the order of the values, part by part, and then the order of the ids
//!    ([`compare`] is the reference). Two texts that agree in their first 256 bytes are the only
//!    exception: their keys have equal parts.
//! 2. A key depends on the rule and the record alone: not on a locale, and not on who writes.
//! 3. A rule has a stored form, so a program without the app's declarations can follow it.
//!
//! What it does not do: store or read keys. The tables do.

mod caseless;
mod entries;
mod order;
mod place;
mod span;
mod steps;
mod window;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError, Decode, Encode, Stored};
use crate::limits;
use crate::schema::{EntityRules, Form};

pub use caseless::UNICODE;
pub(crate) use caseless::without_case;
pub(crate) use entries::Picked;
pub use entries::TurnedKeys;
pub use order::compare;
pub use place::{IndexPlace, InvalidPlace};
pub use span::{Conditions, Misfit, Span};
pub use steps::Steps;
pub use window::{Turn, Window};

/// The version of the keys. It is raised whenever the same rule and record give another key. Each
/// index of another version is then built anew.
pub const INDEX_VERSION: u32 = 1;

/// One index of an entity type: a list of its records in the order of up to four parts.
///
/// ```
/// use fieldbook_core::index::{IndexPart, IndexRule};
///
/// // The leads of an owner by stage, the latest first.
/// let of_owner = IndexRule::new("of_owner").asc("owner").asc("stage").desc("updated_at");
/// // By name, whatever its case and accents. Only leads that have a name are in it.
/// let by_name = IndexRule::new("by_name").asc(IndexPart::new("name").caseless()).only_if_present();
/// // Once under each of its tags.
/// let by_tag = IndexRule::new("by_tag").asc(IndexPart::new("tags").each());
/// assert!([of_owner, by_name, by_tag].iter().all(|rule| rule.check().is_ok()));
/// // The field alone: an ascending index of this name, only if the field is present.
/// assert_eq!(IndexRule::from("stage"), IndexRule::new("stage").asc("stage").only_if_present());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexRule {
    name: String,
    parts: Vec<IndexPart>,
    #[serde(default, skip_serializing_if = "is_false")]
    only_if_present: bool,
}

/// One part of an index: a field, its direction and its form.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexPart {
    field: String,
    #[serde(default, skip_serializing_if = "is_false")]
    descending: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    caseless: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    each: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl IndexPart {
    /// Makes a part of a field: ascending, with texts as they are, and one entry for the value.
    pub fn new(field: impl Into<String>) -> Self {
        Self { field: field.into(), descending: false, caseless: false, each: false }
    }

    /// Returns the name of the field.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Compares texts without their case and accents: `Éva` and `eva` are equal. Letters that
    /// Unicode does not decompose, such as `ø`, stay as they are.
    #[must_use]
    pub const fn caseless(mut self) -> Self {
        self.caseless = true;
        self
    }

    /// Makes one entry for each different element of a list. A record is listed once for each entry
    /// that a list asks for. An index has at most one such part.
    #[must_use]
    pub const fn each(mut self) -> Self {
        self.each = true;
        self
    }
}

impl From<&str> for IndexPart {
    fn from(field: &str) -> Self {
        Self::new(field)
    }
}

impl From<&str> for IndexRule {
    /// Makes an ascending index of one field with the name of that field. A record without the
    /// field is not in it.
    fn from(field: &str) -> Self {
        Self::new(field).asc(field).only_if_present()
    }
}

impl IndexRule {
    /// Makes an index without parts. The name is 1 to 63 bytes without control characters.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), parts: Vec::new(), only_if_present: false }
    }

    /// Adds an ascending part.
    #[must_use]
    pub fn asc(mut self, part: impl Into<IndexPart>) -> Self {
        self.parts.push(part.into());
        self
    }

    /// Adds a descending part. Records without its value come last, as in an ascending part.
    #[must_use]
    pub fn desc(mut self, part: impl Into<IndexPart>) -> Self {
        self.parts.push(IndexPart { descending: true, ..part.into() });
        self
    }

    /// Leaves out the records in which a part has no value. Else they come last.
    #[must_use]
    pub const fn only_if_present(mut self) -> Self {
        self.only_if_present = true;
        self
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the parts in their order.
    pub fn parts(&self) -> &[IndexPart] {
        &self.parts
    }

    /// Returns whether records without a value of a part are left out.
    pub const fn is_only_if_present(&self) -> bool {
        self.only_if_present
    }

    /// Returns whether the keys depend on the tables of Unicode.
    pub fn is_caseless(&self) -> bool {
        self.parts.iter().any(|part| part.caseless)
    }

    /// Checks the rule.
    ///
    /// # Errors
    /// [`InvalidIndex`] with the first fault.
    pub fn check(&self) -> Result<(), InvalidIndex> {
        let names = 1..=limits::INDEX_NAME_BYTES;
        if !names.contains(&self.name.len()) || self.name.chars().any(char::is_control) {
            return Err(InvalidIndex::Name);
        }
        if !(1..=limits::INDEX_PARTS).contains(&self.parts.len()) {
            return Err(InvalidIndex::Parts);
        }
        let fields = 1..=limits::FIELD_NAME_BYTES;
        if !self.parts.iter().all(|part| fields.contains(&part.field.len())) {
            return Err(InvalidIndex::Field);
        }
        if self.parts.iter().filter(|part| part.each).count() > 1 {
            return Err(InvalidIndex::Each);
        }
        Ok(())
    }

    /// Returns eight bytes that differ between rules, so that a place in a list is not used in
    /// another one.
    pub fn digest(&self) -> [u8; 8] {
        let mut bytes = Vec::new();
        // Writing a rule to memory does not fail; if it did, all places would have one digest.
        drop(codec::write_behind(&mut bytes, self, "a rule of an index"));
        let mut digest = [0; 8];
        digest.iter_mut().zip(blake3::hash(&bytes).as_bytes()).for_each(|(to, from)| *to = *from);
        digest
    }
}

/// An index that cannot be declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.as_str())]
#[non_exhaustive]
pub enum InvalidIndex {
    /// The name is empty, too long, or has a control character.
    Name,
    /// There is no part, or there are too many.
    Parts,
    /// The name of a field breaks its rule.
    Field,
    /// Two parts have an entry for each element.
    Each,
    /// Two indexes of an entity type have the same name.
    Twice,
}

impl InvalidIndex {
    /// Returns the fault in words, with what to do.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "the name of an index is not 1 to 63 bytes without control characters",
            Self::Parts => {
                "an index has no part or more than 4: declare its parts with `asc` and `desc`"
            }
            Self::Field => "a part of an index names a field that is not 1 to 255 bytes long",
            Self::Each => {
                "an index has two parts with an entry for each element: leave one of them"
            }
            Self::Twice => "two indexes of an entity type have the same name: each needs its own",
        }
    }
}

/// The indexes of one entity type.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EntityIndexes {
    rules: Vec<IndexRule>,
    /// The names of the indexed fields, in order.
    fields: Vec<String>,
    /// The form of the records that the keys are made of; `None` for records as they are stored.
    form: Option<Form>,
    /// The upcasters that lead to the form. A program without the app may lack them.
    reading: Option<Box<EntityRules>>,
}

impl EntityIndexes {
    /// Takes rules, in the order of their names, each once.
    pub fn new(rules: impl IntoIterator<Item = IndexRule>) -> Self {
        let mut rules: Vec<_> = rules.into_iter().collect();
        rules.sort_by(|one, other| one.name.cmp(&other.name));
        let fields = rules.iter().flat_map(|rule| &rule.parts).map(|part| part.field.clone());
        let fields: BTreeSet<_> = fields.collect();
        Self { rules, fields: fields.into_iter().collect(), form: None, reading: None }
    }

    /// Makes the keys of records as the app reads them: through the upcasters of their type.
    #[must_use]
    pub fn read_by(mut self, rules: &EntityRules) -> Self {
        if let Some(form) = rules.form().filter(|_| !self.is_empty()) {
            (self.form, self.reading) = (Some(form), Some(Box::new(rules.for_reading())));
        }
        self
    }

    /// Keeps only some of the rules.
    #[must_use]
    pub fn filtered(mut self, keep: impl Fn(&IndexRule) -> bool) -> Self {
        self.rules.retain(|rule| keep(rule));
        Self { form: self.form, reading: self.reading, ..Self::new(self.rules) }
    }

    /// Returns the form of the records that the keys are made of; `None` for records as they are
    /// stored.
    pub const fn form(&self) -> Option<Form> {
        self.form
    }

    /// Returns whether this program can make the keys: it has the upcasters of their form.
    pub fn can_be_followed(&self) -> bool {
        self.form == self.reading.as_ref().and_then(|rules| rules.form())
    }

    /// Checks all rules, and that their names differ.
    ///
    /// # Errors
    /// [`InvalidIndex`] with the first fault.
    pub fn check(&self) -> Result<(), InvalidIndex> {
        self.rules.iter().try_for_each(IndexRule::check)?;
        let mut pairs = self.rules.iter().zip(self.rules.iter().skip(1));
        if pairs.any(|(one, other)| one.name == other.name) {
            return Err(InvalidIndex::Twice);
        }
        Ok(())
    }

    /// Returns whether there is no index.
    pub const fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns the rules in the order of their names.
    pub fn rules(&self) -> &[IndexRule] {
        &self.rules
    }

    /// Returns the rule of a name.
    pub fn rule(&self, name: &str) -> Option<&IndexRule> {
        self.rules.iter().find(|rule| rule.name == name)
    }
}

/// The shape of an entity type's indexes, as a book has it on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexShapes {
    made: Made,
    form: Option<Form>,
}

/// The part of a shape that every book has.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Made {
    version: u32,
    unicode: [(u8, u8, u8); 2],
    rules: Vec<IndexRule>,
}

/// The form is stored behind the rest, if there is one.
impl Stored for IndexShapes {
    const WHAT: &'static str = "the shapes of indexes";

    fn write(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        codec::write_behind(bytes, &self.made, Self::WHAT)?;
        self.form.as_ref().map_or(Ok(()), |form| codec::write_behind(bytes, form, Self::WHAT))
    }

    fn read(bytes: &[u8]) -> Result<Self, CodecError> {
        let (made, rest) = codec::read_first(bytes, Self::WHAT)?;
        let form = if rest.is_empty() { None } else { Some(codec::read_whole(rest, Self::WHAT)?) };
        Ok(Self { made, form })
    }
}

const _: () = assert!(codec::is_part::<IndexRule>());
const _: () = assert!(codec::is_part::<IndexPart>());

impl IndexShapes {
    /// Makes the shapes of indexes that this program builds.
    pub fn of(indexes: &EntityIndexes) -> Self {
        let rules = indexes.rules.clone();
        Self { made: Made { version: INDEX_VERSION, unicode: UNICODE, rules }, form: indexes.form }
    }

    /// Returns the indexes whose keys this program would write too. `rules` are those of their
    /// type.
    pub fn present(&self, rules: Option<&EntityRules>) -> EntityIndexes {
        let is_present = |rule: &&IndexRule| {
            self.made.version == INDEX_VERSION
                && (self.made.unicode == UNICODE || !rule.is_caseless())
        };
        self.indexes(self.made.rules.iter().filter(is_present), rules)
    }

    /// Returns all indexes, to be built by this program. `rules` are those of their type.
    pub fn wanted(&self, rules: Option<&EntityRules>) -> EntityIndexes {
        self.indexes(self.made.rules.iter(), rules)
    }

    fn indexes<'r>(
        &self,
        of: impl Iterator<Item = &'r IndexRule>,
        rules: Option<&EntityRules>,
    ) -> EntityIndexes {
        let indexes = EntityIndexes::new(of.cloned());
        match rules {
            Some(rules) if self.form.is_some() && rules.form() == self.form => {
                indexes.read_by(rules)
            }
            _ if indexes.is_empty() => indexes,
            _ => EntityIndexes { form: self.form, ..indexes },
        }
    }

    /// Returns all rules.
    pub fn rules(&self) -> &[IndexRule] {
        &self.made.rules
    }
}

#[cfg(test)]
mod tests;
