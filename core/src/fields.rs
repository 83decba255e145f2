//! The fields of a record: a JSON object whose members are the units of change.
//!
//! ```text
//!   image    {"name":"Ann","phone":"555"}       what a record is; no member is null
//!   patch    {"phone":null,"stage":"hot"}       what an update does; null takes the field away
//!   apply    image + patch  = {"name":"Ann","stage":"hot"}
//!   compose  patch + patch' = patch''           later members win, nulls are kept
//! ```
//!
//! Invariants:
//! 1. `apply(apply(image, p), q) == apply(image, compose(p, q))` for all images and patches.
//! 2. A field is a *top-level* member and is set whole: values are never merged inside
//!    (`docs/decisions/0002-fields-are-top-level-members.md` says why RFC 7396's recursion would break invariant 1).
//! 3. [`FieldsJson`] is compact, its member names ascend strictly, and it nests at most [`limits::JSON_DEPTH`] deep.
//!
//! What it is not: a schema. Any JSON value may stand in a field.

mod text;

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::codec::{Decode, Encode};
use crate::limits;

/// JSON that cannot be the fields of a record. Names the field where one is at fault, never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidFields {
    /// Not a JSON object, or not JSON at all.
    #[error("fields are not a JSON object such as {{\"name\":\"Ann\"}} (line {line}, column {column})")]
    NotAnObject {
        /// Line of the fault, from 1; 0 if the text was JSON of another kind.
        line: usize,
        /// Column of the fault, from 1.
        column: usize,
    },
    /// More bytes than [`limits::OP_BYTES`].
    #[error("fields take {bytes} bytes, more than the {} that one op may have", limits::OP_BYTES)]
    TooLarge {
        /// How many bytes the fields take.
        bytes: usize,
    },
    /// Deeper than [`limits::JSON_DEPTH`].
    #[error("a field nests deeper than {} levels", limits::JSON_DEPTH)]
    TooDeep,
    /// A field's name is empty or longer than [`limits::FIELD_NAME_BYTES`].
    #[error("a field's name is empty or longer than {} bytes", limits::FIELD_NAME_BYTES)]
    FieldName,
}

/// Fields as values: an image of a record or a patch of one.
#[derive(Clone, PartialEq, Default, Serialize)]
#[serde(transparent)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// Returns no fields at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks a JSON value and takes its members.
    ///
    /// # Errors
    /// [`InvalidFields`] if it is not an object, nests too deep, is too large, or has an impossible field name.
    pub fn from_value(value: Value) -> Result<Self, InvalidFields> {
        let Value::Object(members) = value else {
            return Err(InvalidFields::NotAnObject { line: 0, column: 0 });
        };
        let fields = Self(members);
        fields.checked()?;
        Ok(fields)
    }

    /// Checks the limits, which fields built member by member may break, and returns the JSON form.
    ///
    /// # Errors
    /// [`InvalidFields`] if they nest too deep, are too large, or have an impossible name.
    pub fn checked(&self) -> Result<FieldsJson, InvalidFields> {
        if self.0.values().any(|value| !is_shallower_than(value, limits::JSON_DEPTH - 1)) {
            return Err(InvalidFields::TooDeep);
        }
        if self.0.keys().any(|name| name.is_empty() || name.len() > limits::FIELD_NAME_BYTES) {
            return Err(InvalidFields::FieldName);
        }
        let json = self.to_json();
        let bytes = json.as_str().len();
        if bytes > limits::OP_BYTES { Err(InvalidFields::TooLarge { bytes }) } else { Ok(json) }
    }

    /// Parses and checks JSON text.
    ///
    /// # Errors
    /// [`InvalidFields`], with the place of the fault where the text is not JSON.
    pub fn parse(text: &str) -> Result<Self, InvalidFields> {
        if text.len() > 2 * limits::OP_BYTES {
            return Err(InvalidFields::TooLarge { bytes: text.len() });
        }
        Self::from_value(serde_json::from_str(text).map_err(|error| not_an_object(&error))?)
    }

    /// Returns the value of a field.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Sets a field, to null too.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.0.insert(name.into(), value.into());
    }

    /// Takes a field out.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// Returns the fields in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Returns the names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Returns how many fields there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Applies a patch to an image: a null takes the field away, anything else sets it.
    pub fn apply(&mut self, patch: &Self) {
        for (name, value) in &patch.0 {
            if value.is_null() {
                self.0.remove(name);
            } else {
                self.0.insert(name.clone(), value.clone());
            }
        }
    }

    /// Puts a later patch on top of this one: its members win, its nulls stay.
    pub fn compose(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    /// Takes away the fields that are null: what a patch, or a create that names nulls, leaves as an image.
    #[must_use]
    pub fn into_image(mut self) -> Self {
        self.0.retain(|_, value| !value.is_null());
        self
    }

    /// Returns the patch that makes `after` of this image.
    pub fn patch_to(&self, after: &Self) -> Self {
        let changed = after.0.iter().filter(|(name, value)| self.0.get(*name) != Some(value));
        let mut patch: Map<_, _> = changed.map(|(name, value)| (name.clone(), value.clone())).collect();
        patch.extend(
            self.0.keys().filter(|name| !after.0.contains_key(*name)).map(|name| (name.clone(), Value::Null)),
        );
        Self(patch)
    }

    /// Returns only the fields whose names pass.
    #[must_use]
    pub fn filtered(&self, mut keep: impl FnMut(&str) -> bool) -> Self {
        let kept = self.0.iter().filter(|(name, _)| keep(name));
        Self(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    /// Returns the compact JSON form with ascending names.
    pub fn to_json(&self) -> FieldsJson {
        // Writing a map of values to memory has no way to fail.
        FieldsJson(serde_json::to_string(&self.0).unwrap_or_else(|_| "{}".to_owned()).into())
    }

    /// Returns the members.
    pub fn into_map(self) -> Map<String, Value> {
        self.0
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_value(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl FromIterator<(String, Value)> for Fields {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(members: I) -> Self {
        Self(members.into_iter().collect())
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fields({} fields)", self.0.len())
    }
}

/// Fields as stored and sent: compact JSON text that was checked when it was made.
#[derive(Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub struct FieldsJson(Box<str>);

impl FieldsJson {
    /// Checks the text of a record's image or patch, and brings it to the one form that invariant 3 names.
    ///
    /// Text that already has that form is taken as it is, without building values.
    ///
    /// # Errors
    /// [`InvalidFields`] as for [`Fields::parse`].
    pub fn parse(text: &str) -> Result<Self, InvalidFields> {
        if text.len() > 2 * limits::OP_BYTES {
            return Err(InvalidFields::TooLarge { bytes: text.len() });
        }
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let orderly =
            FormCheck::TopLevel.deserialize(&mut deserializer).map_err(|error| not_an_object(&error))?;
        deserializer.end().map_err(|error| not_an_object(&error))?;
        if orderly && text.len() <= limits::OP_BYTES && is_compact(text) {
            return Ok(Self(text.into()));
        }
        Ok(Fields::parse(text)?.to_json())
    }

    /// Takes stored bytes that were checked when they were written.
    ///
    /// # Errors
    /// [`InvalidFields`] if they are not even UTF-8. Text that is not JSON shows when it is read as [`Fields`].
    pub fn from_stored(bytes: &[u8]) -> Result<Self, InvalidFields> {
        let text =
            std::str::from_utf8(bytes).map_err(|_| InvalidFields::NotAnObject { line: 0, column: 0 })?;
        Ok(Self(text.into()))
    }

    /// Takes stored text that was checked when it was written.
    pub(crate) fn from_stored_text(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns the JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the JSON text as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Builds the values.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub fn to_fields(&self) -> Result<Fields, InvalidFields> {
        let members = serde_json::from_str(&self.0).map_err(|error| not_an_object(&error))?;
        Ok(Fields(members))
    }

    /// Applies a patch to this image, as [`Fields::apply`] does to values.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub fn patched(&self, patch: &Self) -> Result<Self, InvalidFields> {
        if let Some(text) = text::apply(&self.0, &patch.0) {
            return Ok(Self(text.into()));
        }
        let mut image = self.to_fields()?;
        image.apply(&patch.to_fields()?);
        Ok(image.to_json())
    }

    /// Returns whether a top-level member may be null. Never wrongly says no.
    pub fn may_have_null(&self) -> bool {
        self.0.contains("null")
    }

    /// Returns the image these fields leave: the same text unless a member is null.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub fn into_image(self) -> Result<Self, InvalidFields> {
        if !self.may_have_null() {
            return Ok(self);
        }
        Ok(self.to_fields()?.into_image().to_json())
    }
}

impl Default for FieldsJson {
    fn default() -> Self {
        Self("{}".into())
    }
}

impl fmt::Debug for FieldsJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FieldsJson({} bytes)", self.0.len())
    }
}

impl Serialize for FieldsJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<&RawValue>(&self.0).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for FieldsJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::parse(raw.get()).map_err(serde::de::Error::custom)
    }
}

fn not_an_object(error: &serde_json::Error) -> InvalidFields {
    // serde_json reports its own depth guard as a syntax error with this text and no code of its own.
    if error.to_string().starts_with("recursion limit exceeded") {
        return InvalidFields::TooDeep;
    }
    InvalidFields::NotAnObject { line: error.line(), column: error.column() }
}

fn is_shallower_than(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels > 0 && items.iter().all(|item| is_shallower_than(item, levels - 1)),
        Value::Object(members) => {
            levels > 0 && members.values().all(|item| is_shallower_than(item, levels - 1))
        }
        _ => true,
    }
}

/// Returns whether JSON text has no white space outside its strings.
fn is_compact(text: &str) -> bool {
    let (mut in_string, mut escaped) = (false, false);
    for byte in text.bytes() {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b' ' | b'\n' | b'\r' | b'\t') => return false,
            _ => {}
        }
    }
    true
}

/// Walks JSON without building values, under serde_json's depth guard. At the top level it answers whether the text is
/// an object whose names are short, written plainly and strictly ascending.
#[derive(Clone, Copy)]
enum FormCheck {
    TopLevel,
    Inner,
}

impl<'de> DeserializeSeed<'de> for FormCheck {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        match self {
            Self::TopLevel => deserializer.deserialize_map(self),
            Self::Inner => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for FormCheck {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<bool, A::Error> {
        let mut orderly = true;
        let mut before = std::borrow::Cow::Borrowed("");
        while let Some(Name(name)) = members.next_key::<Name<'de>>()? {
            let plain = matches!(name, std::borrow::Cow::Borrowed(_));
            if matches!(self, Self::TopLevel) {
                orderly &= plain && *name > *before && name.len() <= limits::FIELD_NAME_BYTES;
                before = name;
            }
            orderly &= members.next_value_seed(Self::Inner)?;
        }
        Ok(orderly)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        let mut orderly = true;
        while let Some(item) = items.next_element_seed(Self::Inner)? {
            orderly &= item;
        }
        Ok(orderly)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(true)
    }

    /// A fraction may be written in many ways; it is brought to the one that serde_json writes.
    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(true)
    }
}

/// A member's name, borrowed where the text holds it plainly.
struct Name<'de>(std::borrow::Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }
            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(name.into()))
            }
            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(name.to_owned().into()))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

/// Returns whether bytes are one JSON value, whatever its kind; for what is kept without being read.
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn fields(value: Value) -> Fields {
        Fields::from_value(value).unwrap()
    }

    #[test]
    fn a_null_in_a_patch_takes_the_field_away() {
        let mut image = fields(json!({"name": "Ann", "phone": "1"}));
        image.apply(&fields(json!({"phone": null, "stage": "hot"})));
        assert_eq!(image, fields(json!({"name": "Ann", "stage": "hot"})));
    }

    #[test]
    fn values_are_set_whole_and_never_merged_inside() {
        let mut image = fields(json!({"address": {"street": "x", "town": "y"}}));
        image.apply(&fields(json!({"address": {"town": "z"}})));
        assert_eq!(image, fields(json!({"address": {"town": "z"}})));
    }

    #[test]
    fn text_that_nests_too_deep_is_refused_before_it_is_built() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(Fields::parse(&deep).unwrap_err(), InvalidFields::TooDeep);
        assert_eq!(FieldsJson::parse(&deep).unwrap_err(), InvalidFields::TooDeep);
    }

    #[test]
    fn every_way_to_write_the_same_object_becomes_one_text() {
        let plain = FieldsJson::parse(r#"{"a":1,"b":[1.5,"x y"]}"#).unwrap();
        for other in [
            r#"{ "a": 1, "b": [1.5, "x y"] }"#,
            r#"{"b":[1.5,"x y"],"a":1}"#,
            r#"{"\u0061":1,"b":[1.50,"x y"]}"#,
        ] {
            assert_eq!(FieldsJson::parse(other).unwrap(), plain, "{other}");
        }
        assert_eq!(FieldsJson::parse(r#"{"a":2,"a":1}"#).unwrap().as_str(), r#"{"a":1}"#);
    }

    #[test]
    fn what_is_not_an_object_is_refused_with_its_place() {
        for bad in ["", "[]", "null", "{", "{\"a\":}", "{} x", "{\"a\":1e999}", "\u{feff}{}"] {
            assert!(FieldsJson::parse(bad).is_err(), "{bad}");
            assert!(Fields::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Fields::parse("{\n  x").unwrap_err(), InvalidFields::NotAnObject { line: 2, column: 3 });
    }

    #[test]
    fn debug_output_shows_no_value() {
        assert_eq!(format!("{:?}", fields(json!({"secret": "canary"}))), "Fields(1 fields)");
        assert_eq!(format!("{:?}", fields(json!({"a": 1})).to_json()), "FieldsJson(7 bytes)");
    }

    prop_compose! {
        fn some_fields()(members in prop::collection::btree_map("[a-d]", prop_oneof![
            Just(Value::Null), (0..3u8).prop_map(|n| json!(n)), Just(json!({"x": 1})), Just(json!({"y": null})),
        ], 0..4)) -> Fields {
            members.into_iter().collect()
        }
    }

    /// Fields with all that text can hold: escapes in names and values, brackets in strings, nesting, nulls inside.
    fn any_fields() -> impl Strategy<Value = Fields> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-c\"\\\\{}\\[\\],:né\n ]{0,6}".prop_map(Value::from),
        ];
        let value = leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-b\"}é]{1,2}", inner, 0..3).prop_map(Value::from_iter),
            ]
        });
        prop::collection::btree_map("[a-d]|[a-b\"\\\\}é\n]{1,2}", value, 0..5)
            .prop_map(|members| members.into_iter().collect())
    }

    proptest! {
        #[test]
        fn a_patch_of_the_text_is_the_text_of_the_patched_values(image in any_fields(), patch in any_fields()) {
            let image = image.into_image();
            let text = image.to_json().patched(&patch.to_json()).unwrap();
            let mut values = image;
            values.apply(&patch);
            prop_assert_eq!(text, values.to_json());
        }

        #[test]
        fn damaged_text_never_panics(image in r#"\{?[\{\}\[\]",:a-c0\\nul é]{0,24}"#, patch in r#"\{"[ab]":[01"\\\[,}]{0,9}"#) {
            drop(FieldsJson(image.into()).patched(&FieldsJson(patch.into())));
        }
    }

    #[test]
    fn text_in_the_usual_form_is_patched_as_text() {
        assert_eq!(
            text::apply(r#"{"a":{"x":[1,"}"]},"b":"\\\"","d":1}"#, r#"{"a":null,"c":[],"d":"n"}"#).unwrap(),
            r#"{"b":"\\\"","c":[],"d":"n"}"#
        );
        assert_eq!(text::apply("{}", r#"{"a":null}"#).unwrap(), "{}");
        assert_eq!(text::apply(r#"{"a\n":1}"#, "{}"), None, "an escaped name is left to the values");
        assert_eq!(text::apply(r#"{"b":1,"a":1}"#, "{}"), None);
    }

    proptest! {
        #[test]
        fn composing_patches_equals_applying_them_in_order(image in some_fields(), p in some_fields(), q in some_fields()) {
            let image = image.into_image();
            let mut one_by_one = image.clone();
            one_by_one.apply(&p);
            one_by_one.apply(&q);
            let mut composed = p;
            composed.compose(q);
            let mut at_once = image;
            at_once.apply(&composed);
            prop_assert_eq!(one_by_one, at_once);
        }

        #[test]
        fn a_patch_between_two_images_makes_one_of_the_other(a in some_fields(), b in some_fields()) {
            let (mut a, b) = (a.into_image(), b.into_image());
            let patch = a.patch_to(&b);
            a.apply(&patch);
            prop_assert_eq!(a, b);
        }

        #[test]
        fn the_quick_check_and_the_full_parse_agree(text in r#"[\{\}\[\]",:a0-9\\nul .e-]{0,24}"#) {
            prop_assert_eq!(FieldsJson::parse(&text).is_ok(), Fields::parse(&text).is_ok());
        }
    }
}
