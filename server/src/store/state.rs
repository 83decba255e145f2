//! One tenant's part of the store, as the rules read and write it, inside one transaction.

use fieldbook_core::authority::{
    AuthorityRead, AuthorityState, FeedItem, IdVersion, Row, RowPlace, UnitMemory, Usage,
};
use fieldbook_core::digest::Digest;
use fieldbook_core::entry::Receipt;
use fieldbook_core::{
    Actor, DeviceId, EntityType, Epoch, Hash, RecordId, RecordKey, ServerEpoch, ServerId, TenantId,
    UnitId, Version, WallTime, limits,
};
use redb::{
    AccessGuard, ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableError, WriteTransaction,
};

use super::{Damaged, StateError, Tenant, layout, tables};

/// A row of a table.
type KeyAndValue<'r> = (AccessGuard<'r, &'static [u8]>, AccessGuard<'r, &'static [u8]>);

/// A tenant's tables; `T` is a table of a read or of a write transaction.
pub(super) struct TenantState<T> {
    tenant: Vec<u8>,
    identity: (ServerId, ServerEpoch),
    tenant_id: TenantId,
    records: T,
    feed: T,
    units: T,
    anchors: T,
    tenants: T,
    /// The table is missing for readers of a store that an earlier version of the program made and
    /// that was not written since.
    usage: Option<T>,
    devices: Option<T>,
    witnessed: Option<T>,
    /// None for readers.
    seen: Option<T>,
    /// As `usage`.
    times: Option<T>,
    /// As `usage`.
    types: Option<T>,
    /// As `usage`.
    digests: Option<T>,
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
            tenant_id: tenant.id(&identity.0),
            records: transaction.open_table(tables::RECORDS)?,
            feed: transaction.open_table(tables::FEED)?,
            units: transaction.open_table(tables::UNITS)?,
            anchors: transaction.open_table(tables::ANCHORS)?,
            tenants: transaction.open_table(tables::TENANTS)?,
            usage: if_there(transaction.open_table(tables::USAGE))?,
            devices: if_there(transaction.open_table(tables::DEVICES))?,
            witnessed: if_there(transaction.open_table(tables::WITNESSED))?,
            seen: None,
            times: if_there(transaction.open_table(tables::TIMES))?,
            types: if_there(transaction.open_table(tables::TYPES))?,
            digests: if_there(transaction.open_table(tables::DIGESTS))?,
        })
    }
}

impl<'t> TenantState<Table<'t, &'static [u8], &'static [u8]>> {
    /// Opens the tables for the local tenant. [`Self::turn_to`] changes to another tenant.
    pub(super) fn write(
        transaction: &'t WriteTransaction,
        identity: (ServerId, ServerEpoch),
    ) -> Result<Self, StateError> {
        let tenant = Tenant::local();
        Ok(Self {
            tenant: tables::tenant_key(&tenant),
            identity,
            tenant_id: tenant.id(&identity.0),
            records: transaction.open_table(tables::RECORDS)?,
            feed: transaction.open_table(tables::FEED)?,
            units: transaction.open_table(tables::UNITS)?,
            anchors: transaction.open_table(tables::ANCHORS)?,
            tenants: transaction.open_table(tables::TENANTS)?,
            usage: Some(transaction.open_table(tables::USAGE)?),
            devices: Some(transaction.open_table(tables::DEVICES)?),
            witnessed: Some(transaction.open_table(tables::WITNESSED)?),
            seen: Some(transaction.open_table(tables::SEEN)?),
            times: Some(transaction.open_table(tables::TIMES)?),
            types: Some(transaction.open_table(tables::TYPES)?),
            digests: Some(transaction.open_table(tables::DIGESTS)?),
        })
    }
}

impl<T> TenantState<T> {
    /// Changes to another tenant's part of the same transaction.
    pub(super) fn turn_to(&mut self, tenant: &Tenant) {
        self.tenant = tables::tenant_key(tenant);
        self.tenant_id = tenant.id(&self.identity.0);
    }
}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> TenantState<T> {
    /// Counts a tenant's records, once: a store of an earlier version of the program has no counts.
    fn count_usage(&self) -> Result<Usage, StateError> {
        let mut usage = Usage::default();
        let mut entity = Vec::new();
        for row in self.feed.range(self.tenant.as_slice()..)? {
            let (key, value) = row?;
            let Some(rest) = key.value().strip_prefix(self.tenant.as_slice()) else { break };
            let of = rest.split(|byte| *byte == 0).next().unwrap_or_default();
            if of != entity {
                entity = of.to_owned();
                usage.entity_types += 1;
            }
            usage.records += 1;
            usage.bytes = usage.bytes.saturating_add(value.value().len() as u64);
        }
        for row in self.units.range(self.tenant.as_slice()..)? {
            if !row?.0.value().starts_with(&self.tenant) {
                break;
            }
            usage.remember_unit();
        }
        Ok(usage)
    }

    /// Returns all entity types of the tenant. It jumps from the first row of each type to the
    /// first possible row of the next.
    fn all_entities(&self) -> Result<Vec<EntityType>, StateError> {
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

    /// Returns the commit that last changed a record of an entity type: the feed has each record at
    /// its latest change.
    fn last_change(&self, entity: &EntityType) -> Result<Option<Version>, StateError> {
        let (from, to) =
            (tables::feed_prefix(&self.tenant, entity), tables::feed_end(&self.tenant, entity));
        let last = self.feed.range(from.as_slice()..to.as_slice())?.next_back().transpose()?;
        Ok(last
            .map(|(key, _)| tables::feed_place(key.value()))
            .transpose()?
            .map(|(commit, _)| commit))
    }

    /// Returns whether the last change of each entity type of the tenant is recorded.
    fn knows_types(&self) -> Result<bool, StateError> {
        let Some(types) = &self.types else { return Ok(false) };
        let first = types.range(self.tenant.as_slice()..)?.next().transpose()?;
        Ok(first.is_some_and(|(key, _)| key.value().starts_with(&self.tenant)))
    }

    /// Returns the digests of the tenant if they stand at its last commit.
    fn sound_digests(&self) -> Result<Option<&T>, StateError> {
        let Some(table) = &self.digests else { return Ok(None) };
        let what = "the commit of a tenant's digests";
        let at = read_with(table, &self.tenant, what, tables::commit_from)?;
        Ok((at.unwrap_or_default() == self.last_commit()?).then_some(table))
    }
}

/// Treats a missing table as `None`.
pub(super) fn if_there<T>(opened: Result<T, TableError>) -> Result<Option<T>, StateError> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reads one value and decodes it.
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

    fn tenant(&self) -> Result<Option<TenantId>, StateError> {
        Ok(Some(self.tenant_id))
    }

    fn last_commit(&self) -> Result<Version, StateError> {
        let last =
            read_with(&self.tenants, &self.tenant, "a tenant's last commit", tables::commit_from)?;
        Ok(last.unwrap_or_default())
    }

    fn newest_time(&self) -> Result<Option<WallTime>, StateError> {
        let Some(table) = &self.times else { return Ok(None) };
        read_with(table, &self.tenant, "the time of a tenant's newest commit", tables::time_from)
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

    fn place(&self, key: &RecordKey) -> Result<Option<RowPlace>, StateError> {
        let place_key = tables::record_key(&self.tenant, key);
        let place = read_with(&self.records, &place_key, "a record's place", tables::place_from)?;
        let Some((version, index)) = place else { return Ok(None) };
        let feed_key = tables::feed_key(&self.tenant, &key.entity, version, index);
        let value = self.feed.get(feed_key.as_slice())?;
        let value = value.ok_or(Damaged { what: "the feed: a record is not at its place" })?;
        let (is_deleted, stamp) = layout::glance(value.value())?;
        Ok(Some(RowPlace { version, index, stamp, is_deleted, bytes: value.value().len() }))
    }

    fn has_records(&self, entity: &EntityType) -> Result<bool, StateError> {
        let (from, to) =
            (tables::feed_prefix(&self.tenant, entity), tables::feed_end(&self.tenant, entity));
        Ok(self.feed.range(from.as_slice()..to.as_slice())?.next().transpose()?.is_some())
    }

    fn unit(&self, id: &UnitId) -> Result<Option<UnitMemory>, StateError> {
        let key = tables::unit_key(&self.tenant, id);
        read_with(&self.units, &key, "what is remembered of a unit", tables::unit_from)
    }

    fn anchor(&self, device: &DeviceId, epoch: &Epoch) -> Result<Option<Receipt>, StateError> {
        let key = tables::anchor_key(&self.tenant, device, epoch);
        read_with(&self.anchors, &key, "an anchor", tables::anchor_from)
    }

    fn device_key(&self, device: &DeviceId) -> Result<Option<Hash>, StateError> {
        let Some(table) = &self.devices else { return Ok(None) };
        read_with(
            table,
            &tables::device_key(&self.tenant, device),
            "a device's key",
            tables::hash_from,
        )
    }

    fn anchors(&self, device: &DeviceId, epoch: &Epoch) -> Result<Vec<Receipt>, StateError> {
        let Some(table) = &self.witnessed else { return Ok(Vec::new()) };
        let (from, to) = tables::witnessed_range(&self.tenant, device, epoch);
        let mut heads = Vec::new();
        for row in table.range(from.as_slice()..=to.as_slice())? {
            let (key, hash) = row?;
            let head = tables::witnessed_from(key.value(), hash.value());
            heads.push(head.ok_or(Damaged { what: "a head that was known" })?);
        }
        Ok(heads)
    }

    fn epochs(&self, device: &DeviceId) -> Result<Vec<Epoch>, StateError> {
        let Some(table) = &self.witnessed else { return Ok(Vec::new()) };
        let of_device = tables::device_key(&self.tenant, device);
        let (mut from, mut epochs) = (of_device.clone(), Vec::new());
        // It jumps from the first head of each epoch to the first of the next.
        while let Some(row) = table.range(from.as_slice()..)?.next() {
            let (key, _) = row?;
            let Some(rest) = key.value().strip_prefix(of_device.as_slice()) else { break };
            let epoch = rest.first_chunk().copied().map(Epoch::from_bytes);
            let epoch = epoch.ok_or(Damaged { what: "a head that was known" })?;
            epochs.push(epoch);
            (_, from) = tables::witnessed_range(&self.tenant, device, &epoch);
            from.push(0);
        }
        Ok(epochs)
    }

    fn entities_after(&self, commit: Version) -> Result<Vec<EntityType>, StateError> {
        if !self.knows_types()? {
            return self.all_entities();
        }
        let Some(types) = &self.types else { return Ok(Vec::new()) };
        let from =
            tables::type_key(&self.tenant, Version::new(commit.number().saturating_add(1)), "");
        let mut entities = Vec::new();
        for row in types.range(from.as_slice()..)? {
            let (key, _) = row?;
            if !key.value().starts_with(&self.tenant) {
                break;
            }
            let entity = tables::type_from(&self.tenant, key.value());
            entities.push(entity.ok_or(Damaged { what: "when an entity type was changed" })?);
        }
        Ok(entities)
    }

    fn feed(
        &self,
        entity: &EntityType,
        (version, index): (Version, u32),
    ) -> Result<impl Iterator<Item = Result<FeedItem, StateError>>, StateError> {
        let from = tables::feed_key(&self.tenant, entity, version, index);
        let to = tables::feed_end(&self.tenant, entity);
        let rows = self.feed.range(from.as_slice()..to.as_slice())?;
        Ok(rows.map(|row| {
            let (key, value) = row?;
            let (version, index) = tables::feed_place(key.value())?;
            Ok(layout::read(version, index, value.value())?)
        }))
    }

    fn digests(&self) -> Result<Option<Vec<(EntityType, Digest)>>, StateError> {
        let Some(table) = self.sound_digests()? else { return Ok(None) };
        let mut digests = Vec::new();
        let entities = self.all_entities()?;
        for entity in entities {
            let key = tables::digest_key(&self.tenant, &entity, None);
            let digest = read_with(table, &key, "a digest", Digest::from_bytes)?;
            digests.push((entity, digest.unwrap_or_default()));
        }
        Ok(Some(digests))
    }

    fn parts(&self, entity: &EntityType) -> Result<Option<Vec<Digest>>, StateError> {
        let Some(table) = self.sound_digests()? else { return Ok(None) };
        let mut parts = vec![Digest::default(); 256];
        let whole = tables::digest_key(&self.tenant, entity, None);
        let end = tables::feed_end(&self.tenant, entity);
        for row in table.range(whole.as_slice()..end.as_slice())? {
            let (key, digest) = row?;
            let Some(part) = key.value().strip_prefix(whole.as_slice()) else { break };
            let Some(place) = part.first().and_then(|part| parts.get_mut(usize::from(*part)))
            else {
                continue;
            };
            *place = Digest::from_bytes(digest.value()).ok_or(Damaged { what: "a digest" })?;
        }
        Ok(Some(parts))
    }

    fn versions(
        &self,
        entity: &EntityType,
        after: Option<&RecordId>,
    ) -> Result<impl Iterator<Item = Result<IdVersion, StateError>>, StateError> {
        let prefix = tables::feed_prefix(&self.tenant, entity);
        let from = after.map_or_else(Vec::new, |after| after.as_str().as_bytes().to_vec());
        let from = [prefix.as_slice(), &from].concat();
        let to = tables::feed_end(&self.tenant, entity);
        let after = after.cloned();
        let rows = self.records.range(from.as_slice()..to.as_slice())?;
        let read = move |row: Result<KeyAndValue<'_>, _>| {
            let (key, place) = row?;
            let id = key.value().get(prefix.len()..).and_then(|id| std::str::from_utf8(id).ok());
            let id = id.and_then(|id| RecordId::parse(id).ok());
            let id = id.ok_or(Damaged { what: "a record's key" })?;
            let place = tables::place_from(place.value());
            Ok((id, place.ok_or(Damaged { what: "a record's place" })?.0))
        };
        let is_after = move |record: &Result<IdVersion, StateError>| match record {
            Ok((id, _)) => after.as_ref() != Some(id),
            Err(_) => true,
        };
        Ok(rows.map(read).filter(is_after))
    }
}

impl TenantState<Table<'_, &'static [u8], &'static [u8]>> {
    /// Records that a record of an entity type is changed in a commit, before the change.
    fn note_change(&mut self, entity: &EntityType, commit: Version) -> Result<(), StateError> {
        if !self.knows_types()? {
            // This is the tenant's first change, or its first change since these rows exist.
            for known in self.all_entities()? {
                let last = self.last_change(&known)?.unwrap_or_default();
                self.set_type(&known, last)?;
            }
        }
        let last = self.last_change(entity)?;
        if let (Some(last), Some(types)) = (last.filter(|last| *last != commit), &mut self.types) {
            types.remove(tables::type_key(&self.tenant, last, entity.as_str()).as_slice())?;
        }
        if last != Some(commit) {
            self.set_type(entity, commit)?;
        }
        Ok(())
    }

    fn set_type(&mut self, entity: &EntityType, last: Version) -> Result<(), StateError> {
        if let Some(types) = &mut self.types {
            types.insert(
                tables::type_key(&self.tenant, last, entity.as_str()).as_slice(),
                [].as_slice(),
            )?;
        }
        Ok(())
    }
}

impl AuthorityState for TenantState<Table<'_, &'static [u8], &'static [u8]>> {
    fn set_last_commit(&mut self, commit: Version) -> Result<(), StateError> {
        let number = commit.number().to_le_bytes();
        // Digests that did not stand at the commit before do not stand at this one.
        if self.sound_digests()?.is_some()
            && let Some(digests) = &mut self.digests
        {
            digests.insert(self.tenant.as_slice(), number.as_slice())?;
        }
        self.tenants.insert(self.tenant.as_slice(), number.as_slice())?;
        Ok(())
    }

    fn set_newest_time(&mut self, time: WallTime) -> Result<(), StateError> {
        if let Some(table) = &mut self.times {
            table.insert(self.tenant.as_slice(), time.milliseconds().to_le_bytes().as_slice())?;
        }
        Ok(())
    }

    fn set_record(
        &mut self,
        key: &RecordKey,
        before: Option<&RowPlace>,
        row: &Row,
    ) -> Result<(), StateError> {
        self.note_change(&key.entity, row.version)?;
        if let Some(before) = before {
            let former = tables::feed_key(&self.tenant, &key.entity, before.version, before.index);
            self.feed.remove(former.as_slice())?;
        }
        let value = layout::write(&key.id, row).ok_or(Damaged { what: "a row to be written" })?;
        let feed_key = tables::feed_key(&self.tenant, &key.entity, row.version, row.index);
        self.feed.insert(feed_key.as_slice(), value.as_slice())?;
        let place = tables::place_bytes(row.version, row.index);
        self.records.insert(tables::record_key(&self.tenant, key).as_slice(), place.as_slice())?;
        Ok(())
    }

    fn digest(&self, entity: &EntityType, part: Option<u8>) -> Result<Digest, StateError> {
        let Some(table) = &self.digests else { return Ok(Digest::default()) };
        let key = tables::digest_key(&self.tenant, entity, part);
        Ok(read_with(table, &key, "a digest", Digest::from_bytes)?.unwrap_or_default())
    }

    fn set_digest(
        &mut self,
        entity: &EntityType,
        part: Option<u8>,
        digest: Digest,
    ) -> Result<(), StateError> {
        if let Some(table) = &mut self.digests {
            let key = tables::digest_key(&self.tenant, entity, part);
            table.insert(key.as_slice(), digest.to_bytes().as_slice())?;
        }
        Ok(())
    }

    fn usage(&self) -> Result<Usage, StateError> {
        let Some(table) = &self.usage else { return self.count_usage() };
        let known = read_with(table, &self.tenant, "a tenant's usage", tables::usage_from)?;
        known.map_or_else(|| self.count_usage(), Ok)
    }

    fn set_usage(&mut self, usage: &Usage) -> Result<(), StateError> {
        if let Some(table) = &mut self.usage {
            table.insert(self.tenant.as_slice(), tables::usage_bytes(usage).as_slice())?;
        }
        Ok(())
    }

    fn set_unit(&mut self, id: &UnitId, memory: &UnitMemory) -> Result<(), StateError> {
        let key = tables::unit_key(&self.tenant, id);
        self.units.insert(key.as_slice(), tables::unit_bytes(memory).as_slice())?;
        Ok(())
    }

    fn set_anchor(
        &mut self,
        device: &DeviceId,
        epoch: &Epoch,
        anchor: &Receipt,
    ) -> Result<(), StateError> {
        let key = tables::anchor_key(&self.tenant, device, epoch);
        self.anchors.insert(key.as_slice(), tables::anchor_bytes(anchor).as_slice())?;
        let kept = self.anchors(device, epoch)?;
        let Some(witnessed) = &mut self.witnessed else { return Ok(()) };
        let place = |seq| tables::witnessed_key(&self.tenant, device, epoch, seq);
        if let [_, second, rest @ ..] = kept.as_slice()
            && rest.len() + 1 >= limits::ANCHORS_KEPT
        {
            witnessed.remove(place(second.seq).as_slice())?;
        }
        witnessed.insert(place(anchor.seq).as_slice(), anchor.hash.as_bytes().as_slice())?;
        Ok(())
    }

    fn set_seen(
        &mut self,
        device: &DeviceId,
        epoch: &Epoch,
        seen: (WallTime, &Actor),
    ) -> Result<(), StateError> {
        if let Some(table) = &mut self.seen {
            let key = tables::anchor_key(&self.tenant, device, epoch);
            table.insert(key.as_slice(), tables::seen_bytes(seen).as_slice())?;
        }
        Ok(())
    }

    fn set_device_key(&mut self, device: &DeviceId, fingerprint: &Hash) -> Result<(), StateError> {
        if let Some(table) = &mut self.devices {
            let key = tables::device_key(&self.tenant, device);
            table.insert(key.as_slice(), fingerprint.as_bytes().as_slice())?;
        }
        Ok(())
    }
}
