//! What a request changed, as the values of the statements that store it.

use std::collections::BTreeMap;

use fieldbook_core::protocol::ExchangeRequest;
use fieldbook_core::{EntityType, limits};
use tokio_postgres::types::Type;

use super::connections::{Values, value};
use super::load::tenant_value;
use super::loaded::Loaded;
use super::overlay::Changes;
use super::rows::stored;
use crate::store::{Damaged, Tenant, layout, tables};

/// The values of up to three statements: none for a statement that has nothing to store.
#[derive(Default)]
pub(super) struct Stored {
    pub(super) device: Option<Values>,
    pub(super) head: Option<Values>,
    pub(super) rows: Option<Values>,
}

/// Returns the values of the statements that store what a request changed.
pub(super) fn stored_by(
    tenant: &Tenant,
    request: &ExchangeRequest,
    loaded: &Loaded,
    changes: &Changes,
) -> Result<Stored, Damaged> {
    let device = || value(request.device.as_bytes().to_vec(), Type::BYTEA);
    let of_device = changes.device_key.map(|key| {
        vec![tenant_value(tenant), device(), value(key.as_bytes().to_vec(), Type::BYTEA)]
    });
    let mut head = None;
    if let Some(anchor) = &changes.anchor {
        head = Some(vec![
            tenant_value(tenant),
            device(),
            value(request.epoch.as_bytes().to_vec(), Type::BYTEA),
            value(loaded.top.epoch_number, Type::INT8),
            value(stored(anchor.seq.number())?, Type::INT8),
            value(anchor.hash.as_bytes().to_vec(), Type::BYTEA),
            // The new head is one of the newest.
            value(limits::ANCHORS_KEPT as i64 - 1, Type::INT8),
        ]);
    }
    let is_empty = changes.units.is_empty() && changes.records.is_empty();
    let rows = if is_empty { None } else { Some(rows(tenant, loaded, changes)?) };
    Ok(Stored { device: of_device, head, rows })
}

fn rows(tenant: &Tenant, loaded: &Loaded, changes: &Changes) -> Result<Values, Damaged> {
    let mut values = of_tenant(tenant, loaded, changes)?;
    let units = changes.units.keys().map(|unit| unit.as_bytes().to_vec()).collect::<Vec<_>>();
    let memories = changes.units.values().map(tables::unit_bytes).collect::<Vec<_>>();
    values.push(value(units, Type::BYTEA_ARRAY));
    values.push(value(memories, Type::BYTEA_ARRAY));
    push_entities(&mut values, loaded, changes)?;
    push_records(&mut values, changes)?;
    Ok(values)
}

fn of_tenant(tenant: &Tenant, loaded: &Loaded, changes: &Changes) -> Result<Values, Damaged> {
    let top = &loaded.top;
    let usage = changes.usage.unwrap_or(top.usage);
    let newest =
        changes.newest_time.or(top.newest_time).map(fieldbook_core::WallTime::milliseconds);
    let last = changes.last_commit.unwrap_or(top.last_commit);
    // A count that no number of the database can hold is kept at the largest one.
    let most = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    Ok(vec![
        tenant_value(tenant),
        value(top.epoch_number, Type::INT8),
        value(stored(last.number())?, Type::INT8),
        value(newest, Type::INT8),
        value(most(usage.records), Type::INT8),
        value(most(usage.bytes), Type::INT8),
        value(most(usage.entity_types), Type::INT8),
    ])
}

fn push_entities(values: &mut Values, loaded: &Loaded, changes: &Changes) -> Result<(), Damaged> {
    let (mut names, mut commits, mut digests) = (Vec::new(), Vec::new(), Vec::new());
    for (entity, last) in &changes.entities {
        let known = || loaded.entities.get(entity).copied().flatten().unwrap_or_default();
        let digest = changes.digests.get(&(entity.clone(), None)).copied().unwrap_or_else(known);
        names.push(entity.as_str().to_owned());
        commits.push(stored(last.number())?);
        digests.push(digest.to_bytes().to_vec());
    }
    values.push(value(names, Type::TEXT_ARRAY));
    values.push(value(commits, Type::INT8_ARRAY));
    values.push(value(digests, Type::BYTEA_ARRAY));
    let of_parts: BTreeMap<(&EntityType, u8), _> = changes
        .digests
        .iter()
        .filter_map(|((entity, part), digest)| Some(((entity, (*part)?), digest)))
        .collect();
    let names: Vec<_> = of_parts.keys().map(|(entity, _)| entity.as_str().to_owned()).collect();
    let parts: Vec<_> = of_parts.keys().map(|(_, part)| i16::from(*part)).collect();
    let digests: Vec<_> = of_parts.values().map(|digest| digest.to_bytes().to_vec()).collect();
    values.push(value(names, Type::TEXT_ARRAY));
    values.push(value(parts, Type::INT2_ARRAY));
    values.push(value(digests, Type::BYTEA_ARRAY));
    Ok(())
}

fn push_records(values: &mut Values, changes: &Changes) -> Result<(), Damaged> {
    let (mut entities, mut ids) = (Vec::new(), Vec::new());
    let (mut commits, mut indexes, mut contents) = (Vec::new(), Vec::new(), Vec::new());
    for (key, row) in &changes.records {
        let what = "a row to be written";
        entities.push(key.entity.as_str().to_owned());
        ids.push(key.id.as_str().to_owned());
        commits.push(stored(row.version.number())?);
        indexes.push(i32::try_from(row.index).map_err(|_| Damaged { what })?);
        contents.push(layout::write(&key.id, row).ok_or(Damaged { what })?);
    }
    values.push(value(entities, Type::TEXT_ARRAY));
    values.push(value(ids, Type::TEXT_ARRAY));
    values.push(value(commits, Type::INT8_ARRAY));
    values.push(value(indexes, Type::INT4_ARRAY));
    values.push(value(contents, Type::BYTEA_ARRAY));
    Ok(())
}
