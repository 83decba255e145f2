//! What a request can need, read in one statement.

use std::collections::BTreeSet;

use fieldbook_core::authority::{Quota, looked_at};
use fieldbook_core::digest::Place;
use fieldbook_core::protocol::ExchangeRequest;
use fieldbook_core::{EntityType, RecordKey, UnitId, limits};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::connections::{Values, value};
use super::failure::Failure;
use super::loaded::Loaded;
use super::{rows, statements};
use crate::store::{StateError, Tenant};

/// The bytes of contents that are read in advance. What is left out is read when the rules ask for
/// it, in one more round trip.
pub(super) const CONTENT_BYTES: i64 = limits::TURN_BYTES as i64;

/// The keys of a request, each once, in the order in which the rules look at them.
#[derive(Debug)]
pub(super) struct Wanted<'r> {
    request: &'r ExchangeRequest,
    units: Vec<UnitId>,
    pub(super) records: Vec<RecordKey>,
    entities: Vec<EntityType>,
    parts: Vec<(EntityType, u8)>,
}

impl<'r> Wanted<'r> {
    pub(super) fn by(request: &'r ExchangeRequest, quota: &Quota) -> Self {
        let mut wanted = Self {
            request,
            units: Vec::new(),
            records: Vec::new(),
            entities: Vec::new(),
            parts: Vec::new(),
        };
        let (mut units, mut records) = (BTreeSet::new(), BTreeSet::new());
        let (mut entities, mut parts) = (BTreeSet::new(), BTreeSet::new());
        for unit in looked_at(&request.units, quota) {
            units.insert(unit.id);
            units.extend(&unit.earlier_units);
            for change in &unit.changes {
                let key = &change.key;
                if records.insert(key) {
                    wanted.records.push(key.clone());
                }
                entities.insert(&key.entity);
                parts.insert((&key.entity, Place::of(&key.id).first_byte()));
            }
        }
        wanted.units = units.into_iter().collect();
        wanted.entities = entities.into_iter().cloned().collect();
        wanted.parts = parts.into_iter().map(|(entity, part)| (entity.clone(), part)).collect();
        wanted
    }

    /// Returns the statement that reads it, and its values. Of the records' contents it reads about
    /// as many bytes as `most`.
    pub(super) fn statement(&self, tenant: &Tenant, most: i64) -> (&'static str, Values) {
        let mut values = device_values(tenant, self.request);
        if self.request.units.is_empty() {
            return (statements::HEAD, values);
        }
        let units: Vec<_> = self.units.iter().map(|unit| unit.as_bytes().to_vec()).collect();
        values.push(value(units, Type::BYTEA_ARRAY));
        push_keys(&mut values, &self.records);
        values.push(value(most, Type::INT8));
        values.push(value(names(self.entities.iter()), Type::TEXT_ARRAY));
        values.push(value(names(self.parts.iter().map(|(entity, _)| entity)), Type::TEXT_ARRAY));
        let parts: Vec<_> = self.parts.iter().map(|(_, part)| i16::from(*part)).collect();
        values.push(value(parts, Type::INT2_ARRAY));
        (statements::LOAD, values)
    }

    /// Reads the answer of the statement.
    pub(super) fn loaded(&self, row: &Row, tenant: &Tenant) -> Result<Loaded, StateError> {
        let mut loaded = Loaded::new(rows::top(row, tenant)?);
        loaded.log = Some(rows::log(row, (self.request.device, self.request.epoch))?);
        if self.request.units.is_empty() {
            return Ok(loaded);
        }
        let memories = rows::list::<Option<&[u8]>>(row, "memories")?;
        let digests = rows::list::<Option<&[u8]>>(row, "digests")?;
        let of_parts = rows::list::<Option<&[u8]>>(row, "part_digests")?;
        rows::aligned(self.units.len(), &[memories.len()])?;
        rows::aligned(self.entities.len(), &[digests.len()])?;
        rows::aligned(self.parts.len(), &[of_parts.len()])?;
        for (unit, bytes) in self.units.iter().zip(memories) {
            loaded.units.insert(*unit, bytes.map(rows::memory).transpose()?);
        }
        for (entity, bytes) in self.entities.iter().zip(digests) {
            loaded.entities.insert(entity.clone(), bytes.map(rows::digest).transpose()?);
        }
        for (part, bytes) in self.parts.iter().zip(of_parts) {
            let digest = bytes.map(rows::digest).transpose()?;
            loaded.parts.insert(part.clone(), digest.unwrap_or_default());
        }
        loaded.records.extend(rows::records(row, &self.records)?);
        Ok(loaded)
    }
}

/// Returns the keys from a key on.
pub(super) fn from_key<'k>(
    keys: &'k [RecordKey],
    key: &RecordKey,
) -> Result<&'k [RecordKey], Failure> {
    let place = keys.iter().position(|known| known == key);
    let rest = place.and_then(|place| keys.get(place..));
    rest.ok_or(Failure::NotLoaded("a record"))
}

/// Returns the values of the statement that reads records by their keys.
pub(super) fn record_values(tenant: &Tenant, keys: &[RecordKey], most: i64) -> Values {
    let mut values = vec![tenant_value(tenant)];
    push_keys(&mut values, keys);
    values.push(value(most, Type::INT8));
    values
}

/// Adds the contents of further records to those that are there. Contents that are not needed again
/// stay: the rules run from the beginning.
pub(super) fn add_contents(
    loaded: &mut Loaded,
    row: &Row,
    keys: &[RecordKey],
) -> Result<(), StateError> {
    for (key, found) in rows::records(row, keys)? {
        if found.as_ref().is_some_and(|found| found.content.is_some()) {
            loaded.records.insert(key, found);
        }
    }
    Ok(())
}

pub(super) fn tenant_value(
    tenant: &Tenant,
) -> (Box<dyn tokio_postgres::types::ToSql + Sync + Send>, Type) {
    value(tenant.as_str().to_owned(), Type::TEXT)
}

fn device_values(tenant: &Tenant, request: &ExchangeRequest) -> Values {
    vec![
        tenant_value(tenant),
        value(request.device.as_bytes().to_vec(), Type::BYTEA),
        value(request.epoch.as_bytes().to_vec(), Type::BYTEA),
    ]
}

fn push_keys(values: &mut Values, keys: &[RecordKey]) {
    values.push(value(names(keys.iter().map(|key| &key.entity)), Type::TEXT_ARRAY));
    let ids: Vec<_> = keys.iter().map(|key| key.id.as_str().to_owned()).collect();
    values.push(value(ids, Type::TEXT_ARRAY));
}

fn names<'e>(entities: impl Iterator<Item = &'e EntityType>) -> Vec<String> {
    entities.map(|entity| entity.as_str().to_owned()).collect()
}
