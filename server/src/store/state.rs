//! One tenant's part of the store, as the rules read and write it, inside one transaction.

use fieldbook_core::authority::{AuthorityRead, AuthorityState, FeedItem, Row, UnitMemory};
use fieldbook_core::entry::Receipt;
use fieldbook_core::{DeviceId, EntityType, Epoch, RecordKey, ServerEpoch, ServerId, UnitId, Version};
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, Table, WriteTransaction};

use super::{Damaged, StateError, Tenant, layout, tables};

/// A tenant's tables; `T` is a table of a read or of a write transaction.
pub(super) struct TenantState<T> {
    tenant: Vec<u8>,
    identity: (ServerId, ServerEpoch),
    records: T,
    feed: T,
    units: T,
    anchors: T,
    tenants: T,
}

impl TenantState<ReadOnlyTable<&'static [u8], &'static [u8]>> {
    pub(super) fn read(
        transaction: &ReadTransaction,
        tenant: &Tenant,
        identity: (ServerId, ServerEpoch),
    ) -> Result<Self, StateError> {
        Ok(Self {
            tenant: tables::tenant_key(tenant),
            identity,
            records: transaction.open_table(tables::RECORDS)?,
            feed: transaction.open_table(tables::FEED)?,
            units: transaction.open_table(tables::UNITS)?,
            anchors: transaction.open_table(tables::ANCHORS)?,
            tenants: transaction.open_table(tables::TENANTS)?,
        })
    }
}

impl<'t> TenantState<Table<'t, &'static [u8], &'static [u8]>> {
    pub(super) fn write(
        transaction: &'t WriteTransaction,
        tenant: &Tenant,
        identity: (ServerId, ServerEpoch),
    ) -> Result<Self, StateError> {
        Ok(Self {
            tenant: tables::tenant_key(tenant),
            identity,
            records: transaction.open_table(tables::RECORDS)?,
            feed: transaction.open_table(tables::FEED)?,
            units: transaction.open_table(tables::UNITS)?,
            anchors: transaction.open_table(tables::ANCHORS)?,
            tenants: transaction.open_table(tables::TENANTS)?,
        })
    }
}

/// Reads one value and makes something of it.
fn read_with<T: ReadableTable<&'static [u8], &'static [u8]>, V>(
    table: &T,
    key: &[u8],
    what: &'static str,
    read: impl FnOnce(&[u8]) -> Option<V>,
) -> Result<Option<V>, StateError> {
    let Some(value) = table.get(key)? else { return Ok(None) };
    Ok(Some(read(value.value()).ok_or(Damaged { what })?))
}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> AuthorityRead for TenantState<T> {
    type Error = StateError;

    fn identity(&self) -> Result<(ServerId, ServerEpoch), StateError> {
        Ok(self.identity)
    }

    fn last_commit(&self) -> Result<Version, StateError> {
        let last = read_with(&self.tenants, &self.tenant, "a tenant's last commit", tables::commit_from)?;
        Ok(last.unwrap_or_default())
    }

    fn record(&self, key: &RecordKey) -> Result<Option<Row>, StateError> {
        let place_key = tables::record_key(&self.tenant, key);
        let place = read_with(&self.records, &place_key, "a record's place", tables::place_from)?;
        let Some((version, index)) = place else { return Ok(None) };
        let feed_key = tables::feed_key(&self.tenant, &key.entity, version, index);
        let value = self.feed.get(feed_key.as_slice())?;
        let value = value.ok_or(Damaged { what: "the feed: a record is not at its place" })?;
        let item = layout::read(version, index, value.value())?;
        if item.id == key.id {
            Ok(Some(item.row))
        } else {
            Err(Damaged { what: "the feed: another record is at a record's place" }.into())
        }
    }

    fn unit(&self, id: &UnitId) -> Result<Option<UnitMemory>, StateError> {
        let key = tables::unit_key(&self.tenant, id);
        read_with(&self.units, &key, "what is remembered of a unit", tables::unit_from)
    }

    fn anchor(&self, device: &DeviceId, epoch: &Epoch) -> Result<Option<Receipt>, StateError> {
        let key = tables::anchor_key(&self.tenant, device, epoch);
        read_with(&self.anchors, &key, "an anchor", tables::anchor_from)
    }

    /// Skips from each entity type's first row to where the next type's must begin.
    fn entities(&self) -> Result<Vec<EntityType>, StateError> {
        let mut entities = Vec::new();
        let mut from = self.tenant.clone();
        while let Some(first) = self.feed.range(from.as_slice()..)?.next() {
            let (key, _) = first?;
            if !key.value().starts_with(&self.tenant) {
                break;
            }
            let entity = tables::feed_entity(&self.tenant, key.value())?;
            from = tables::feed_end(&self.tenant, &entity);
            entities.push(entity);
        }
        Ok(entities)
    }

    fn feed(
        &self,
        entity: &EntityType,
        after: Version,
    ) -> Result<impl Iterator<Item = Result<FeedItem, StateError>>, StateError> {
        let from = tables::feed_key(&self.tenant, entity, Version::new(after.number().saturating_add(1)), 0);
        let to = tables::feed_end(&self.tenant, entity);
        let rows = self.feed.range(from.as_slice()..to.as_slice())?;
        Ok(rows.map(|row| {
            let (key, value) = row?;
            let (version, index) = tables::feed_place(key.value())?;
            Ok(layout::read(version, index, value.value())?)
        }))
    }
}

impl AuthorityState for TenantState<Table<'_, &'static [u8], &'static [u8]>> {
    fn set_last_commit(&mut self, commit: Version) -> Result<(), StateError> {
        self.tenants.insert(self.tenant.as_slice(), commit.number().to_le_bytes().as_slice())?;
        Ok(())
    }

    fn set_record(&mut self, key: &RecordKey, before: Option<&Row>, row: &Row) -> Result<(), StateError> {
        if let Some(before) = before {
            let former = tables::feed_key(&self.tenant, &key.entity, before.version, before.index);
            self.feed.remove(former.as_slice())?;
        }
        let value = layout::write(&key.id, row).ok_or(Damaged { what: "a row that is to be written" })?;
        let feed_key = tables::feed_key(&self.tenant, &key.entity, row.version, row.index);
        self.feed.insert(feed_key.as_slice(), value.as_slice())?;
        let place = tables::place_bytes(row.version, row.index);
        self.records.insert(tables::record_key(&self.tenant, key).as_slice(), place.as_slice())?;
        Ok(())
    }

    fn set_unit(&mut self, id: &UnitId, memory: &UnitMemory) -> Result<(), StateError> {
        let key = tables::unit_key(&self.tenant, id);
        self.units.insert(key.as_slice(), tables::unit_bytes(memory).as_slice())?;
        Ok(())
    }

    fn set_anchor(&mut self, device: &DeviceId, epoch: &Epoch, anchor: &Receipt) -> Result<(), StateError> {
        let key = tables::anchor_key(&self.tenant, device, epoch);
        self.anchors.insert(key.as_slice(), tables::anchor_bytes(anchor).as_slice())?;
        Ok(())
    }
}
