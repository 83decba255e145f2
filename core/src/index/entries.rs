//! The entries of a record in the indexes of its entity type.

use std::borrow::Cow;

use serde_json::Value;

use super::order::{self, Kind};
use super::{EntityIndexes, IndexPart, IndexRule};
use crate::fields::{FieldsJson, InvalidFields, values_of};
use crate::names::{EntityType, RecordId, RecordKey};

/// Some fields of a record: those of the given names, in their order.
pub(crate) struct Picked<'a> {
    names: &'a [String],
    values: Vec<Option<Value>>,
}

impl<'a> Picked<'a> {
    /// Reads fields of a record's image. `names` ascend.
    pub(crate) fn of(names: &'a [String], image: &str) -> Result<Self, InvalidFields> {
        if let Some(values) = values_of(image, names) {
            return Ok(Self { names, values });
        }
        let fields = FieldsJson::from_stored_text(image).to_fields()?;
        Ok(Self { names, values: names.iter().map(|name| fields.get(name).cloned()).collect() })
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        let at = self.names.binary_search_by(|known| known.as_str().cmp(name)).ok()?;
        self.values.get(at)?.as_ref()
    }
}

/// The keys that a change of a record turns, each in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TurnedKeys {
    /// The keys that the record had, and has no more.
    pub gone: Vec<Vec<u8>>,
    /// The keys that the record has, and had not.
    pub new: Vec<Vec<u8>>,
}

/// Most keys are shorter, so one allocation is enough to write them.
const USUAL_BYTES: usize = 128;

/// The values of one entry, part by part. A null, a list or an object is no value.
pub(super) type Values<'v> = Vec<Option<&'v Value>>;

impl EntityIndexes {
    /// Returns the keys of a record in all indexes, in order and each once.
    ///
    /// # Errors
    /// [`InvalidFields`] if the image is damaged.
    pub fn keys(
        &self,
        entity: &EntityType,
        id: &str,
        image: &str,
    ) -> Result<Vec<Vec<u8>>, InvalidFields> {
        let image = match &self.reading {
            Some(rules) => rules.read_text(image)?,
            None => Cow::Borrowed(image),
        };
        let picked = Picked::of(&self.fields, &image)?;
        let mut keys = Vec::with_capacity(self.rules.len());
        for rule in &self.rules {
            let entries = rule.entries(&picked).into_iter();
            keys.extend(entries.map(|values| rule.key(entity, id, &values)));
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }

    /// Returns the keys that a record loses and gets in all indexes when its image changes. `None`
    /// stands for no such record.
    ///
    /// # Errors
    /// [`InvalidFields`] if an image is damaged.
    pub fn turned(
        &self,
        key: &RecordKey,
        before: Option<&str>,
        after: Option<&str>,
    ) -> Result<TurnedKeys, InvalidFields> {
        if before == after || self.is_empty() {
            return Ok(TurnedKeys::default());
        }
        let keys = |image: Option<&str>| {
            image.map_or(Ok(Vec::new()), |image| self.keys(&key.entity, key.id.as_str(), image))
        };
        let (mut gone, mut new) = (keys(before)?, keys(after)?);
        let stays: Vec<bool> = new.iter().map(|key| gone.binary_search(key).is_ok()).collect();
        gone.retain(|key| new.binary_search(key).is_err());
        let mut stays = stays.into_iter();
        new.retain(|_| stays.next() == Some(false));
        Ok(TurnedKeys { gone, new })
    }
}

impl IndexRule {
    /// Returns the bytes with which all keys of the index begin.
    pub fn prefix(&self, entity: &EntityType) -> Vec<u8> {
        let mut prefix = Vec::with_capacity(USUAL_BYTES);
        self.write_prefix(entity, &mut prefix);
        prefix
    }

    fn write_prefix(&self, entity: &EntityType, key: &mut Vec<u8>) {
        for name in [entity.as_str(), &self.name] {
            key.extend_from_slice(name.as_bytes());
            key.push(0);
        }
    }

    /// Returns the id in a key of the index; `None` if the key has another form.
    pub fn id_of<'k>(&self, entity: &EntityType, key: &'k [u8]) -> Option<&'k str> {
        let rest = key.get(entity.as_str().len() + self.name.len() + 2..)?;
        let id = self.parts.iter().try_fold(rest, |rest, part| order::skip(part, rest))?;
        std::str::from_utf8(id).ok().filter(|id| RecordId::check(id).is_ok())
    }

    /// Returns the names of the index's fields, in order and each once.
    pub fn fields(&self) -> Vec<String> {
        let mut fields: Vec<_> = self.parts.iter().map(|part| part.field.clone()).collect();
        fields.sort_unstable();
        fields.dedup();
        fields
    }

    /// Reads the values of all entries of an image, and passes each entry to `read` until it
    /// returns true. Returns whether it did.
    pub(super) fn any_entry(
        &self,
        image: &str,
        read: impl FnMut(Values<'_>) -> bool,
    ) -> Result<bool, InvalidFields> {
        let fields = self.fields();
        let picked = Picked::of(&fields, image)?;
        Ok(self.entries(&picked).into_iter().any(read))
    }

    pub(super) fn key(&self, entity: &EntityType, id: &str, values: &Values<'_>) -> Vec<u8> {
        let mut key = Vec::with_capacity(USUAL_BYTES);
        self.write_prefix(entity, &mut key);
        for (part, value) in self.parts.iter().zip(values) {
            order::write(part, *value, &mut key);
        }
        key.extend_from_slice(id.as_bytes());
        key
    }

    /// Returns the values of each entry of a record.
    fn entries<'v>(&self, picked: &'v Picked<'_>) -> Vec<Values<'v>> {
        let value = |part: &IndexPart| picked.get(&part.field).filter(present);
        let list = self.parts.iter().enumerate().find_map(|(at, part)| {
            let items = picked.get(&part.field).filter(|_| part.each)?.as_array()?;
            items.iter().any(|item| present(&item)).then_some((at, items))
        });
        let mut rows = match list {
            None => vec![self.parts.iter().map(value).collect()],
            Some((at, items)) => items
                .iter()
                .filter(present)
                .map(|item| {
                    let mut row: Values<'v> = self.parts.iter().map(value).collect();
                    row.iter_mut().skip(at).take(1).for_each(|value| *value = Some(item));
                    row
                })
                .collect(),
        };
        rows.retain(|values| !self.only_if_present || values.iter().all(Option::is_some));
        rows
    }
}

/// Returns whether an index has a value: it is no null, list or object.
fn present(value: &&Value) -> bool {
    Kind::of(Some(value)) != Kind::Nothing
}
