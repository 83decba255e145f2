//! Records as the app's present schema version reads them: through its upcasters.
//!
//! ```text
//!   stored image {"tel":"1"} ─► upcasters from version 1 to the declared one ─► {"phone":"1"}
//! ```
//!
//! A row of a record has no schema version: devices with different versions of the app write its
//! fields, each under the names of its version. So every image passes all upcasters, and an
//! upcaster leaves alone what is in its later form already.
//!
//! Invariants:
//! 1. Reading changes nothing that is stored.
//! 2. An image that the upcasters would change once more is read as it is stored: these upcasters
//!    are for ops of a known version only.
//!
//! What it does not do: convert ops (`rules::upcast`), or decide what a write has to take away
//! (`rules::read_through`).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::EntityRules;
use crate::codec::{Decode, Encode};
use crate::fields::{Fields, FieldsJson, InvalidFields};
use crate::hooks::Upcaster;
use crate::op::OpKind;

/// The form in which records are read: the versions that the upcasters lead from and to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Form {
    from: u32,
    to: u32,
}

impl Form {
    /// Returns the versions as bytes.
    pub(crate) fn to_be_bytes(self) -> [u8; 8] {
        (u64::from(self.from) << 32 | u64::from(self.to)).to_be_bytes()
    }
}

impl EntityRules {
    /// Returns the form in which records are read; `None` if they are read as they are stored.
    pub fn form(&self) -> Option<Form> {
        let steps = u32::try_from(self.steps().count()).unwrap_or(u32::MAX);
        let from = self.schema_version.saturating_sub(steps);
        (steps > 0).then_some(Form { from, to: self.schema_version })
    }

    /// Returns the declarations that reading needs.
    #[doc(hidden)]
    #[must_use]
    pub fn for_reading(&self) -> Self {
        let (schema_version, upcasters) = (self.schema_version, self.upcasters.clone());
        Self { schema_version, upcasters, ..Self::default() }
    }

    /// Returns the upcasters that lead to the declared version, the last one first.
    fn steps(&self) -> impl Iterator<Item = &Upcaster> {
        (1..self.schema_version).rev().map_while(|version| self.upcasters.get(&version))
    }

    /// Returns an image as the app reads it; `None` if that is the stored image.
    pub fn read(&self, stored: &Fields) -> Option<Fields> {
        let read = self.passed(stored.clone());
        (read != *stored && self.passed(read.clone()) == read).then_some(read)
    }

    fn passed(&self, image: Fields) -> Fields {
        let mut steps: Vec<_> = self.steps().collect();
        steps.reverse();
        // A null stands for no value, so that it hides nothing and is no difference.
        steps.into_iter().fold(image, |image, step| step.apply(OpKind::Replace, image).into_image())
    }

    /// Returns the values of an image as the app reads it, from its stored text.
    ///
    /// # Errors
    /// [`InvalidFields`] if the stored text is damaged.
    #[doc(hidden)]
    pub fn read_values(&self, stored: &str) -> Result<Fields, InvalidFields> {
        let fields = FieldsJson::from_stored_text(stored).to_fields()?;
        let read = self.may_change(stored).then(|| self.read(&fields)).flatten();
        Ok(read.unwrap_or(fields))
    }

    /// Returns whether reading can change an image with this text.
    fn may_change(&self, stored: &str) -> bool {
        self.steps().any(|step| step.may_change(stored))
    }

    /// Returns the text of an image as the app reads it.
    ///
    /// # Errors
    /// [`InvalidFields`] if the stored text is damaged.
    pub fn read_text<'s>(&self, stored: &'s str) -> Result<Cow<'s, str>, InvalidFields> {
        if !self.may_change(stored) {
            return Ok(Cow::Borrowed(stored));
        }
        let fields = FieldsJson::from_stored_text(stored).to_fields()?;
        Ok(match self.read(&fields) {
            Some(read) => Cow::Owned(read.to_json().as_str().to_owned()),
            None => Cow::Borrowed(stored),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::from_value(value).unwrap()
    }

    #[track_caller]
    fn read(rules: &EntityRules, stored: Value) -> Value {
        let json = fields(stored.clone()).to_json();
        let text = rules.read_text(json.as_str()).unwrap();
        let read = rules.read(&fields(stored.clone())).unwrap_or_else(|| fields(stored));
        assert_eq!(*text, *read.to_json().as_str(), "text and values are read the same");
        assert_eq!(rules.read_values(json.as_str()).unwrap(), read, "and values from the text");
        Value::Object(read.into_map())
    }

    fn renamed() -> EntityRules {
        let rules = EntityRules { schema_version: 3, ..EntityRules::default() };
        rules.rename_from(1, "tel", "phone").rename_from(2, "phone", "mobile")
    }

    #[test]
    fn a_row_of_any_version_is_read_under_the_present_names() {
        let present = || json!({"mobile": "1", "name": "Ann"});
        for name in ["tel", "phone", "mobile"] {
            assert_eq!(read(&renamed(), json!({name: "1", "name": "Ann"})), present());
        }
        assert_eq!(renamed().form(), Some(Form { from: 1, to: 3 }));
    }

    #[test]
    fn an_old_name_is_the_later_one_if_both_are_there() {
        // Whoever writes the new name takes the old one away, so the old one was written after.
        assert_eq!(read(&renamed(), json!({"tel": "2", "mobile": "1"})), json!({"mobile": "2"}));
    }

    #[test]
    fn a_text_that_only_holds_an_old_name_is_read_as_it_is() {
        let stored = || json!({"note": "the \"tel\":1 of Ann"});
        assert_eq!(read(&renamed(), stored()), stored());
    }

    #[test]
    fn an_upcaster_that_would_change_its_own_result_is_not_for_rows() {
        let rules = EntityRules { schema_version: 2, ..EntityRules::default() };
        let cents = rules.upcast_from(1, |_, mut fields| {
            if let Some(value) = fields.get("value").and_then(Value::as_u64) {
                fields.set("value", value * 100);
            }
            fields
        });
        assert_eq!(read(&cents, json!({"value": 5})), json!({"value": 5}));
    }

    #[test]
    fn a_missing_step_ends_the_way_to_the_versions_before_it() {
        let rules = EntityRules { schema_version: 3, ..EntityRules::default() };
        let last = rules.clone().rename_from(2, "phone", "mobile");
        assert_eq!(
            read(&last, json!({"phone": "1", "tel": "2"})),
            json!({"mobile": "1", "tel": "2"})
        );
        assert_eq!(last.form(), Some(Form { from: 2, to: 3 }));
        assert_eq!(rules.rename_from(1, "a", "b").form(), None);
    }

    #[test]
    fn damaged_text_is_an_error_and_not_a_record() {
        assert!(renamed().read_text("{\"tel\"").is_err());
        assert!(renamed().read_values("{").is_err());
    }
}
