//! A tenant's store in memory, for tests, the in-process remote and the simulator. A clone of it is
//! a backup.

use std::collections::BTreeMap;
use std::convert::Infallible;

use super::row::Row;
use super::state::{AuthorityRead, AuthorityState, FeedItem, IdVersion, RowPlace, UnitMemory};
use super::usage::Usage;
use crate::digest::Digest;
use crate::entry::Receipt;
use crate::ids::{DeviceId, Epoch, ServerEpoch, ServerId, TenantId, UnitId};
use crate::limits;
use crate::names::{EntityType, RecordId, RecordKey};
use crate::numbers::{Hash, Seq, Version};
use crate::time::WallTime;

/// A tenant's store in memory. It never fails, so each write is committed at once.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryAuthority {
    identity: (ServerId, ServerEpoch),
    tenant: Option<TenantId>,
    last_commit: Version,
    newest_time: Option<WallTime>,
    records: BTreeMap<RecordKey, Row>,
    feeds: BTreeMap<EntityType, BTreeMap<(Version, u32), RecordId>>,
    units: BTreeMap<UnitId, UnitMemory>,
    anchors: BTreeMap<(DeviceId, Epoch), Receipt>,
    heads: BTreeMap<(DeviceId, Epoch), BTreeMap<Seq, Hash>>,
    device_keys: BTreeMap<DeviceId, Hash>,
    usage: Usage,
    digests: BTreeMap<(EntityType, Option<u8>), Digest>,
}

impl MemoryAuthority {
    /// Makes an empty store.
    pub const fn new(server: ServerId, epoch: ServerEpoch) -> Self {
        Self {
            identity: (server, epoch),
            tenant: None,
            last_commit: Version::new(0),
            newest_time: None,
            records: BTreeMap::new(),
            feeds: BTreeMap::new(),
            units: BTreeMap::new(),
            anchors: BTreeMap::new(),
            heads: BTreeMap::new(),
            device_keys: BTreeMap::new(),
            usage: Usage { records: 0, bytes: 0, entity_types: 0 },
            digests: BTreeMap::new(),
        }
    }

    /// Names the tenant of the store. Every answer then names this tenant.
    #[must_use]
    pub const fn of_tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// Returns every record with its row, in the order of keys; deleted ones too.
    pub fn records(&self) -> impl Iterator<Item = (&RecordKey, &Row)> {
        self.records.iter()
    }

    /// Starts a new epoch of the store, as an operator does after restoring a backup. All anchors
    /// are removed, because the devices' logs may have grown since. What was seen of them stays.
    /// The new epoch numbers commits above every commit that the former epoch can have made. So a
    /// unit made for a version of that epoch never meets another state under the same number.
    pub fn start_epoch(&mut self, epoch: ServerEpoch) {
        self.identity.1 = epoch;
        self.anchors.clear();
        self.last_commit =
            Version::new(self.last_commit.number().saturating_add(limits::EPOCH_COMMITS));
    }
}

impl AuthorityRead for MemoryAuthority {
    type Error = Infallible;

    fn identity(&self) -> Result<(ServerId, ServerEpoch), Infallible> {
        Ok(self.identity)
    }

    fn tenant(&self) -> Result<Option<TenantId>, Infallible> {
        Ok(self.tenant)
    }

    fn last_commit(&self) -> Result<Version, Infallible> {
        Ok(self.last_commit)
    }

    fn newest_time(&self) -> Result<Option<WallTime>, Infallible> {
        Ok(self.newest_time)
    }

    fn record(&self, key: &RecordKey) -> Result<Option<Row>, Infallible> {
        Ok(self.records.get(key).cloned())
    }

    fn place(&self, key: &RecordKey) -> Result<Option<RowPlace>, Infallible> {
        Ok(self.records.get(key).map(|row| row.place(&key.id)))
    }

    fn has_records(&self, entity: &EntityType) -> Result<bool, Infallible> {
        Ok(self.feeds.contains_key(entity))
    }

    fn unit(&self, id: &UnitId) -> Result<Option<UnitMemory>, Infallible> {
        Ok(self.units.get(id).cloned())
    }

    fn anchor(&self, device: &DeviceId, epoch: &Epoch) -> Result<Option<Receipt>, Infallible> {
        Ok(self.anchors.get(&(*device, *epoch)).copied())
    }

    fn device_key(&self, device: &DeviceId) -> Result<Option<Hash>, Infallible> {
        Ok(self.device_keys.get(device).copied())
    }

    fn anchors(&self, device: &DeviceId, epoch: &Epoch) -> Result<Vec<Receipt>, Infallible> {
        let kept = self.heads.get(&(*device, *epoch)).into_iter().flatten();
        Ok(kept.map(|(seq, hash)| Receipt { seq: *seq, hash: *hash }).collect())
    }

    fn epochs(&self, device: &DeviceId) -> Result<Vec<Epoch>, Infallible> {
        let first = (*device, Epoch::from_bytes([0; 16]));
        let logs = self.heads.range(first..).map(|((of, epoch), _)| (of, epoch));
        Ok(logs.take_while(|(of, _)| *of == device).map(|(_, epoch)| *epoch).collect())
    }

    fn entities_after(&self, commit: Version) -> Result<Vec<EntityType>, Infallible> {
        let changed = self
            .feeds
            .iter()
            .filter(|(_, feed)| feed.last_key_value().is_some_and(|((last, _), _)| *last > commit));
        Ok(changed.map(|(entity, _)| entity.clone()).collect())
    }

    fn feed(
        &self,
        entity: &EntityType,
        from: (Version, u32),
    ) -> Result<impl Iterator<Item = Result<FeedItem, Infallible>>, Infallible> {
        let ids = self.feeds.get(entity).into_iter().flat_map(move |feed| feed.range(from..));
        let rows = ids.filter_map(move |(_, id)| {
            let row = self.records.get(&RecordKey::new(entity.clone(), id.clone()))?;
            Some(Ok(FeedItem { id: id.clone(), row: row.clone() }))
        });
        Ok(rows)
    }

    fn digests(&self) -> Result<Option<Vec<(EntityType, Digest)>>, Infallible> {
        // A type whose records never lived has a feed and no digest.
        self.feeds
            .keys()
            .map(|entity| Ok((entity.clone(), self.digest(entity, None)?)))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    fn parts(&self, entity: &EntityType) -> Result<Option<Vec<Digest>>, Infallible> {
        (0..=u8::MAX)
            .map(|part| self.digest(entity, Some(part)))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    fn versions(
        &self,
        entity: &EntityType,
        after: Option<&RecordId>,
    ) -> Result<impl Iterator<Item = Result<IdVersion, Infallible>>, Infallible> {
        let is_after = move |id: &RecordId| after.is_none_or(|after| id > after);
        let records = self.records.iter().skip_while(move |(key, _)| key.entity < *entity);
        let records = records.take_while(move |(key, _)| key.entity == *entity);
        let records = records.filter(move |(key, _)| is_after(&key.id));
        Ok(records.map(|(key, row)| Ok((key.id.clone(), row.version))))
    }
}

impl AuthorityState for MemoryAuthority {
    fn set_last_commit(&mut self, commit: Version) -> Result<(), Infallible> {
        self.last_commit = commit;
        Ok(())
    }

    fn set_newest_time(&mut self, time: WallTime) -> Result<(), Infallible> {
        self.newest_time = Some(time);
        Ok(())
    }

    fn set_record(
        &mut self,
        key: &RecordKey,
        before: Option<&RowPlace>,
        row: &Row,
    ) -> Result<(), Infallible> {
        let feed = self.feeds.entry(key.entity.clone()).or_default();
        if let Some(before) = before {
            feed.remove(&(before.version, before.index));
        }
        feed.insert((row.version, row.index), key.id.clone());
        self.records.insert(key.clone(), row.clone());
        Ok(())
    }

    fn digest(&self, entity: &EntityType, part: Option<u8>) -> Result<Digest, Infallible> {
        Ok(self.digests.get(&(entity.clone(), part)).copied().unwrap_or_default())
    }

    fn set_digest(
        &mut self,
        entity: &EntityType,
        part: Option<u8>,
        digest: Digest,
    ) -> Result<(), Infallible> {
        self.digests.insert((entity.clone(), part), digest);
        Ok(())
    }

    fn usage(&self) -> Result<Usage, Infallible> {
        Ok(self.usage)
    }

    fn set_usage(&mut self, usage: &Usage) -> Result<(), Infallible> {
        self.usage = *usage;
        Ok(())
    }

    fn set_unit(&mut self, id: &UnitId, memory: &UnitMemory) -> Result<(), Infallible> {
        self.units.insert(*id, memory.clone());
        Ok(())
    }

    fn set_anchor(
        &mut self,
        device: &DeviceId,
        epoch: &Epoch,
        anchor: &Receipt,
    ) -> Result<(), Infallible> {
        self.anchors.insert((*device, *epoch), *anchor);
        let kept = self.heads.entry((*device, *epoch)).or_default();
        if kept.len() > limits::ANCHORS_KEPT
            && let Some(second) = kept.keys().nth(1).copied()
        {
            kept.remove(&second);
        }
        kept.insert(anchor.seq, anchor.hash);
        Ok(())
    }

    fn set_device_key(&mut self, device: &DeviceId, fingerprint: &Hash) -> Result<(), Infallible> {
        self.device_keys.insert(*device, *fingerprint);
        Ok(())
    }
}
