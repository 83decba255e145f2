//! What the rules write, above what was read in advance. Nothing of it is stored before all of it is.

use std::collections::BTreeMap;

use fieldbook_core::authority::{
    AuthorityRead, AuthorityState, FeedItem, IdVersion, Row, RowPlace, UnitMemory, Usage,
};
use fieldbook_core::digest::Digest;
use fieldbook_core::entry::Receipt;
use fieldbook_core::{
    DeviceId, EntityType, Epoch, Hash, RecordId, RecordKey, ServerEpoch, ServerId, TenantId,
    UnitId, Version, WallTime,
};

use super::loaded::{Loaded, LoadedError};

/// What one request changed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) last_commit: Option<Version>,
    pub(super) newest_time: Option<WallTime>,
    pub(super) usage: Option<Usage>,
    pub(super) records: BTreeMap<RecordKey, Row>,
    /// The last commit of each entity type with a changed record.
    pub(super) entities: BTreeMap<EntityType, Version>,
    pub(super) digests: BTreeMap<(EntityType, Option<u8>), Digest>,
    pub(super) units: BTreeMap<UnitId, UnitMemory>,
    pub(super) device_key: Option<Hash>,
    pub(super) anchor: Option<Receipt>,
}

/// The state of a tenant within one request.
#[derive(Debug)]
pub(super) struct Overlay<'l> {
    loaded: &'l Loaded,
    changes: Changes,
}

impl<'l> Overlay<'l> {
    pub(super) fn new(loaded: &'l Loaded) -> Self {
        Self { loaded, changes: Changes::default() }
    }

    pub(super) fn into_changes(self) -> Changes {
        self.changes
    }
}

impl AuthorityRead for Overlay<'_> {
    type Error = LoadedError;

    fn identity(&self) -> Result<(ServerId, ServerEpoch), LoadedError> {
        self.loaded.identity()
    }

    fn tenant(&self) -> Result<Option<TenantId>, LoadedError> {
        self.loaded.tenant()
    }

    fn last_commit(&self) -> Result<Version, LoadedError> {
        self.changes.last_commit.map_or_else(|| self.loaded.last_commit(), Ok)
    }

    fn newest_time(&self) -> Result<Option<WallTime>, LoadedError> {
        self.changes.newest_time.map_or_else(|| self.loaded.newest_time(), |time| Ok(Some(time)))
    }

    fn record(&self, key: &RecordKey) -> Result<Option<Row>, LoadedError> {
        let row = self.changes.records.get(key);
        row.map_or_else(|| self.loaded.record(key), |row| Ok(Some(row.clone())))
    }

    fn place(&self, key: &RecordKey) -> Result<Option<RowPlace>, LoadedError> {
        let row = self.changes.records.get(key);
        row.map_or_else(|| self.loaded.place(key), |row| Ok(Some(row.place(&key.id))))
    }

    fn has_records(&self, entity: &EntityType) -> Result<bool, LoadedError> {
        Ok(self.changes.entities.contains_key(entity) || self.loaded.has_records(entity)?)
    }

    fn unit(&self, id: &UnitId) -> Result<Option<UnitMemory>, LoadedError> {
        let memory = self.changes.units.get(id);
        memory.map_or_else(|| self.loaded.unit(id), |memory| Ok(Some(memory.clone())))
    }

    fn anchor(&self, device: &DeviceId, epoch: &Epoch) -> Result<Option<Receipt>, LoadedError> {
        let known = self.loaded.anchor(device, epoch)?;
        Ok(self.changes.anchor.or(known))
    }

    fn device_key(&self, device: &DeviceId) -> Result<Option<Hash>, LoadedError> {
        let known = self.loaded.device_key(device)?;
        Ok(self.changes.device_key.or(known))
    }

    fn anchors(&self, device: &DeviceId, epoch: &Epoch) -> Result<Vec<Receipt>, LoadedError> {
        self.loaded.anchors(device, epoch)
    }

    fn epochs(&self, device: &DeviceId) -> Result<Vec<Epoch>, LoadedError> {
        self.loaded.epochs(device)
    }

    fn entities_after(&self, commit: Version) -> Result<Vec<EntityType>, LoadedError> {
        self.loaded.entities_after(commit)
    }

    fn feed(
        &self,
        entity: &EntityType,
        from: (Version, u32),
    ) -> Result<impl Iterator<Item = Result<FeedItem, LoadedError>>, LoadedError> {
        self.loaded.feed(entity, from)
    }

    fn digests(&self) -> Result<Option<Vec<(EntityType, Digest)>>, LoadedError> {
        self.loaded.digests()
    }

    fn parts(&self, entity: &EntityType) -> Result<Option<Vec<Digest>>, LoadedError> {
        self.loaded.parts(entity)
    }

    fn versions(
        &self,
        entity: &EntityType,
        after: Option<&RecordId>,
    ) -> Result<impl Iterator<Item = Result<IdVersion, LoadedError>>, LoadedError> {
        self.loaded.versions(entity, after)
    }
}

impl AuthorityState for Overlay<'_> {
    fn set_last_commit(&mut self, commit: Version) -> Result<(), LoadedError> {
        self.changes.last_commit = Some(commit);
        Ok(())
    }

    fn set_newest_time(&mut self, time: WallTime) -> Result<(), LoadedError> {
        self.changes.newest_time = Some(time);
        Ok(())
    }

    fn set_record(
        &mut self,
        key: &RecordKey,
        _: Option<&RowPlace>,
        row: &Row,
    ) -> Result<(), LoadedError> {
        self.changes.entities.insert(key.entity.clone(), row.version);
        self.changes.records.insert(key.clone(), row.clone());
        Ok(())
    }

    fn digest(&self, entity: &EntityType, part: Option<u8>) -> Result<Digest, LoadedError> {
        if let Some(digest) = self.changes.digests.get(&(entity.clone(), part)) {
            return Ok(*digest);
        }
        let digest = match part {
            None => self.loaded.entities.get(entity).map(|digest| digest.unwrap_or_default()),
            Some(part) => self.loaded.parts.get(&(entity.clone(), part)).copied(),
        };
        digest.ok_or(LoadedError::NotLoaded("a digest"))
    }

    fn set_digest(
        &mut self,
        entity: &EntityType,
        part: Option<u8>,
        digest: Digest,
    ) -> Result<(), LoadedError> {
        self.changes.digests.insert((entity.clone(), part), digest);
        Ok(())
    }

    fn usage(&self) -> Result<Usage, LoadedError> {
        Ok(self.changes.usage.unwrap_or(self.loaded.top.usage))
    }

    fn set_usage(&mut self, usage: &Usage) -> Result<(), LoadedError> {
        self.changes.usage = Some(*usage);
        Ok(())
    }

    fn set_unit(&mut self, id: &UnitId, memory: &UnitMemory) -> Result<(), LoadedError> {
        self.changes.units.insert(*id, memory.clone());
        Ok(())
    }

    fn set_anchor(
        &mut self,
        device: &DeviceId,
        epoch: &Epoch,
        anchor: &Receipt,
    ) -> Result<(), LoadedError> {
        self.loaded.anchor(device, epoch)?;
        self.changes.anchor = Some(*anchor);
        Ok(())
    }

    fn set_device_key(&mut self, device: &DeviceId, fingerprint: &Hash) -> Result<(), LoadedError> {
        self.loaded.device_key(device)?;
        self.changes.device_key = Some(*fingerprint);
        Ok(())
    }
}
