//! What was read in advance, as the rules read it.
//!
//! Invariant: a key that was not read is an error, and never looks like a row that does not exist.

use std::collections::BTreeMap;

use fieldbook_core::authority::{
    AuthorityRead, FeedItem, IdVersion, Row, RowPlace, UnitMemory, Usage,
};
use fieldbook_core::digest::Digest;
use fieldbook_core::entry::Receipt;
use fieldbook_core::{
    DeviceId, EntityType, Epoch, Hash, RecordId, RecordKey, ServerEpoch, ServerId, TenantId,
    UnitId, Version, WallTime,
};

use crate::store::{Damaged, layout};

/// Why the rules have no answer from what was read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadedError {
    /// The rules asked for something that was not read: a fault of this program.
    #[error("{0} was not read")]
    NotLoaded(&'static str),
    /// The content of this record is needed, and was left out because there was much before it.
    #[error("a record's content was not read yet")]
    ContentNeeded(RecordKey),
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

/// What the store and the tenant are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Top {
    pub(super) identity: (ServerId, ServerEpoch),
    /// How often the store was restored.
    pub(super) epoch_number: i64,
    pub(super) tenant: TenantId,
    pub(super) last_commit: Version,
    pub(super) newest_time: Option<WallTime>,
    pub(super) usage: Usage,
}

/// A record that was found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) place: RowPlace,
    /// Its row, unless it was left out.
    pub(super) content: Option<Vec<u8>>,
}

/// A log of a device: what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Log {
    pub(super) of: (DeviceId, Epoch),
    pub(super) anchor: Option<Receipt>,
    pub(super) device_key: Option<Hash>,
}

/// The heads of a device's logs, epoch by epoch, oldest first.
pub(super) type Heads = BTreeMap<Epoch, Vec<Receipt>>;

/// The feeds of a page: of each entity type the rows at their places.
pub(super) type Feeds = BTreeMap<EntityType, BTreeMap<(Version, u32), Vec<u8>>>;

/// What was read in advance. Each part is there if the request can need it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Loaded {
    pub(super) top: Top,
    pub(super) log: Option<Log>,
    pub(super) units: BTreeMap<UnitId, Option<UnitMemory>>,
    pub(super) records: BTreeMap<RecordKey, Option<Found>>,
    /// The digests of entity types; none for a type without records.
    pub(super) entities: BTreeMap<EntityType, Option<Digest>>,
    pub(super) parts: BTreeMap<(EntityType, u8), Digest>,
    /// The rows after the cursors of a request, as far as they were read.
    pub(super) feeds: Option<Feeds>,
    /// Each entity type with its last commit and its digest, in the order of names.
    pub(super) all_entities: Option<Vec<(EntityType, Version, Digest)>>,
    /// The digests of the parts of one entity type.
    pub(super) all_parts: Option<(EntityType, Vec<Digest>)>,
    /// The next records of one entity type after an id.
    pub(super) versions: Option<(EntityType, Vec<IdVersion>)>,
    /// The heads that are kept of a device's logs.
    pub(super) heads: Option<(DeviceId, Heads)>,
}

impl Loaded {
    pub(super) fn new(top: Top) -> Self {
        Self {
            top,
            log: None,
            units: BTreeMap::new(),
            records: BTreeMap::new(),
            entities: BTreeMap::new(),
            parts: BTreeMap::new(),
            feeds: None,
            all_entities: None,
            all_parts: None,
            versions: None,
            heads: None,
        }
    }

    fn log(&self, device: &DeviceId, epoch: Option<&Epoch>) -> Result<&Log, LoadedError> {
        let is_it =
            |log: &&Log| log.of.0 == *device && epoch.is_none_or(|epoch| log.of.1 == *epoch);
        self.log.as_ref().filter(is_it).ok_or(LoadedError::NotLoaded("a log of a device"))
    }

    fn heads(&self, device: &DeviceId) -> Result<&Heads, LoadedError> {
        let heads = self.heads.as_ref().filter(|(of, _)| of == device);
        let (_, heads) = heads.ok_or(LoadedError::NotLoaded("the heads of a device's logs"))?;
        Ok(heads)
    }

    fn found(&self, key: &RecordKey) -> Result<Option<&Found>, LoadedError> {
        let found = self.records.get(key).ok_or(LoadedError::NotLoaded("a record"))?;
        Ok(found.as_ref())
    }
}

/// Reads a row that is at a record's place.
pub(super) fn row_of(key: &RecordKey, place: &RowPlace, content: &[u8]) -> Result<Row, Damaged> {
    let item = layout::read(place.version, place.index, content)?;
    if item.id == key.id {
        Ok(item.row)
    } else {
        Err(Damaged { what: "a record: the row is one of another record" })
    }
}

impl AuthorityRead for Loaded {
    type Error = LoadedError;

    fn identity(&self) -> Result<(ServerId, ServerEpoch), LoadedError> {
        Ok(self.top.identity)
    }

    fn tenant(&self) -> Result<Option<TenantId>, LoadedError> {
        Ok(Some(self.top.tenant))
    }

    fn last_commit(&self) -> Result<Version, LoadedError> {
        Ok(self.top.last_commit)
    }

    fn newest_time(&self) -> Result<Option<WallTime>, LoadedError> {
        Ok(self.top.newest_time)
    }

    fn record(&self, key: &RecordKey) -> Result<Option<Row>, LoadedError> {
        let Some(found) = self.found(key)? else { return Ok(None) };
        match &found.content {
            Some(content) => Ok(Some(row_of(key, &found.place, content)?)),
            None => Err(LoadedError::ContentNeeded(key.clone())),
        }
    }

    fn place(&self, key: &RecordKey) -> Result<Option<RowPlace>, LoadedError> {
        Ok(self.found(key)?.map(|found| found.place))
    }

    fn has_records(&self, entity: &EntityType) -> Result<bool, LoadedError> {
        let known = self.entities.get(entity).ok_or(LoadedError::NotLoaded("an entity type"))?;
        Ok(known.is_some())
    }

    fn unit(&self, id: &UnitId) -> Result<Option<UnitMemory>, LoadedError> {
        self.units.get(id).cloned().ok_or(LoadedError::NotLoaded("a unit"))
    }

    fn anchor(&self, device: &DeviceId, epoch: &Epoch) -> Result<Option<Receipt>, LoadedError> {
        Ok(self.log(device, Some(epoch))?.anchor)
    }

    fn device_key(&self, device: &DeviceId) -> Result<Option<Hash>, LoadedError> {
        Ok(self.log(device, None)?.device_key)
    }

    fn anchors(&self, device: &DeviceId, epoch: &Epoch) -> Result<Vec<Receipt>, LoadedError> {
        Ok(self.heads(device)?.get(epoch).cloned().unwrap_or_default())
    }

    fn epochs(&self, device: &DeviceId) -> Result<Vec<Epoch>, LoadedError> {
        Ok(self.heads(device)?.keys().copied().collect())
    }

    fn entities_after(&self, commit: Version) -> Result<Vec<EntityType>, LoadedError> {
        if let Some(entities) = &self.all_entities {
            let changed = entities.iter().filter(|(_, last, _)| *last > commit);
            return Ok(changed.map(|(entity, ..)| entity.clone()).collect());
        }
        // The statement has looked at the cursors already.
        let feeds = self.feeds.as_ref().ok_or(LoadedError::NotLoaded("the changes"))?;
        Ok(feeds.keys().cloned().collect())
    }

    fn feed(
        &self,
        entity: &EntityType,
        from: (Version, u32),
    ) -> Result<impl Iterator<Item = Result<FeedItem, LoadedError>>, LoadedError> {
        let feeds = self.feeds.as_ref().ok_or(LoadedError::NotLoaded("the changes"))?;
        let rows = feeds.get(entity).into_iter().flat_map(move |feed| feed.range(from..));
        Ok(rows.map(|((version, index), content)| Ok(layout::read(*version, *index, content)?)))
    }

    fn has_changed(&self, entity: &EntityType, after: Version) -> Result<bool, LoadedError> {
        let all = self.all_entities.as_ref();
        let all = all.ok_or(LoadedError::NotLoaded("the entity types"))?;
        Ok(all.iter().any(|(known, last, _)| known == entity && *last > after))
    }

    fn digests(&self) -> Result<Option<Vec<(EntityType, Digest)>>, LoadedError> {
        let all = self.all_entities.as_ref().ok_or(LoadedError::NotLoaded("the digests"))?;
        Ok(Some(all.iter().map(|(entity, _, digest)| (entity.clone(), *digest)).collect()))
    }

    fn parts(&self, entity: &EntityType) -> Result<Option<Vec<Digest>>, LoadedError> {
        let parts = self.all_parts.as_ref().filter(|(of, _)| of == entity);
        let (_, parts) = parts.ok_or(LoadedError::NotLoaded("the digests of parts"))?;
        Ok(Some(parts.clone()))
    }

    fn versions(
        &self,
        entity: &EntityType,
        _: Option<&RecordId>,
    ) -> Result<impl Iterator<Item = Result<IdVersion, LoadedError>>, LoadedError> {
        let versions = self.versions.as_ref().filter(|(of, _)| of == entity);
        let (_, versions) = versions.ok_or(LoadedError::NotLoaded("the versions"))?;
        Ok(versions.iter().cloned().map(Ok))
    }
}
