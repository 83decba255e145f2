//! The store as the rules need it: one tenant's part of it, inside one transaction.

use super::row::Row;
use super::usage::Usage;
use crate::digest::Digest;
use crate::entry::Receipt;
use crate::ids::{DeviceId, Epoch, ServerEpoch, ServerId, TenantId, UnitId};
use crate::names::{Actor, EntityType, RecordId, RecordKey};
use crate::numbers::{Hash, Version};
use crate::record::EditStamp;
use crate::time::WallTime;

/// A record's id and its version.
pub type IdVersion = (RecordId, Version);

/// The reads of the rules.
pub trait AuthorityRead {
    /// The error of the store.
    type Error;

    /// Returns the server's id and epoch.
    ///
    /// # Errors
    /// If the store failed.
    fn identity(&self) -> Result<(ServerId, ServerEpoch), Self::Error>;

    /// Returns the tenant of this part of the store; none for a store that is not shared.
    ///
    /// # Errors
    /// If the store failed.
    fn tenant(&self) -> Result<Option<TenantId>, Self::Error> {
        Ok(None)
    }

    /// Returns the number of the tenant's last commit; 0 before the first.
    ///
    /// # Errors
    /// If the store failed.
    fn last_commit(&self) -> Result<Version, Self::Error>;

    /// Returns a record's row, also of a deleted record; none if the record never existed.
    ///
    /// # Errors
    /// If the store failed.
    fn record(&self, key: &RecordKey) -> Result<Option<Row>, Self::Error>;

    /// Returns the place of a record's row, without reading the row.
    ///
    /// # Errors
    /// If the store failed.
    fn place(&self, key: &RecordKey) -> Result<Option<RowPlace>, Self::Error>;

    /// Returns whether an entity type has or had a record.
    ///
    /// # Errors
    /// If the store failed.
    fn has_records(&self, entity: &EntityType) -> Result<bool, Self::Error>;

    /// Returns the memory of a unit.
    ///
    /// # Errors
    /// If the store failed.
    fn unit(&self, id: &UnitId) -> Result<Option<UnitMemory>, Self::Error>;

    /// Returns the time of the tenant's newest commit, by the server's clock; none if it is not
    /// known.
    ///
    /// # Errors
    /// If the store failed.
    fn newest_time(&self) -> Result<Option<WallTime>, Self::Error>;

    /// Returns the anchor of one epoch of a device's log.
    ///
    /// # Errors
    /// If the store failed.
    fn anchor(&self, device: &DeviceId, epoch: &Epoch) -> Result<Option<Receipt>, Self::Error>;

    /// Returns the remembered hash of a device's key.
    ///
    /// # Errors
    /// If the store failed.
    fn device_key(&self, device: &DeviceId) -> Result<Option<Hash>, Self::Error>;

    /// Returns the heads that are kept of one epoch of a device's log, oldest first: the first head
    /// and the newest.
    ///
    /// # Errors
    /// If the store failed.
    fn anchors(&self, device: &DeviceId, epoch: &Epoch) -> Result<Vec<Receipt>, Self::Error>;

    /// Returns the epochs of a device's logs of which heads are kept, in any order.
    ///
    /// # Errors
    /// If the store failed.
    fn epochs(&self, device: &DeviceId) -> Result<Vec<Epoch>, Self::Error>;

    /// Returns the entity types of which a record changed after a commit; others may be among them.
    ///
    /// # Errors
    /// If the store failed.
    fn entities_after(&self, commit: Version) -> Result<Vec<EntityType>, Self::Error>;

    /// Returns the records of an entity type that changed, starting at a given change of a given
    /// commit. Each record appears once, at its latest change. The order is that of the commits,
    /// and within a commit that of its changes.
    ///
    /// # Errors
    /// If the store failed; the iterator too.
    fn feed(
        &self,
        entity: &EntityType,
        from: (Version, u32),
    ) -> Result<impl Iterator<Item = Result<FeedItem, Self::Error>>, Self::Error>;

    /// Returns whether a record of an entity type changed after a commit.
    ///
    /// # Errors
    /// If the store failed.
    fn has_changed(&self, entity: &EntityType, after: Version) -> Result<bool, Self::Error> {
        let from = (Version::new(after.number().saturating_add(1)), 0);
        Ok(self.feed(entity, from)?.next().transpose()?.is_some())
    }

    /// Returns the digest of each entity type that has or had a record, in the order of names. None
    /// if the store does not have its digests, because a program that does not know them wrote to
    /// it.
    ///
    /// # Errors
    /// If the store failed.
    fn digests(&self) -> Result<Option<Vec<(EntityType, Digest)>>, Self::Error>;

    /// Returns the digests of the 256 parts of an entity type, in order. None as for
    /// [`Self::digests`].
    ///
    /// # Errors
    /// If the store failed.
    fn parts(&self, entity: &EntityType) -> Result<Option<Vec<Digest>>, Self::Error>;

    /// Returns the ids and versions of the records of an entity type after an id, in the order of
    /// ids; deleted ones too.
    ///
    /// # Errors
    /// If the store failed; the iterator too.
    fn versions(
        &self,
        entity: &EntityType,
        after: Option<&RecordId>,
    ) -> Result<impl Iterator<Item = Result<IdVersion, Self::Error>>, Self::Error>;
}

/// The writes of the rules. All writes of one exchange are committed together, or none.
pub trait AuthorityState: AuthorityRead {
    /// Sets the number of the tenant's last commit.
    ///
    /// # Errors
    /// If the store failed.
    fn set_last_commit(&mut self, commit: Version) -> Result<(), Self::Error>;

    /// Sets the time of the tenant's newest commit.
    ///
    /// # Errors
    /// If the store failed.
    fn set_newest_time(&mut self, time: WallTime) -> Result<(), Self::Error>;

    /// Sets a record's row and moves the record to the row's place in the feed.
    ///
    /// `before` is the result of [`AuthorityRead::place`] for it.
    ///
    /// # Errors
    /// If the store failed.
    fn set_record(
        &mut self,
        key: &RecordKey,
        before: Option<&RowPlace>,
        row: &Row,
    ) -> Result<(), Self::Error>;

    /// Returns the digest of an entity type, or of one of its 256 parts, as it is kept.
    ///
    /// # Errors
    /// If the store failed.
    fn digest(&self, entity: &EntityType, part: Option<u8>) -> Result<Digest, Self::Error>;

    /// Sets the digest of an entity type, or of one of its 256 parts.
    ///
    /// # Errors
    /// If the store failed.
    fn set_digest(
        &mut self,
        entity: &EntityType,
        part: Option<u8>,
        digest: Digest,
    ) -> Result<(), Self::Error>;

    /// Returns how much the tenant keeps.
    ///
    /// # Errors
    /// If the store failed.
    fn usage(&self) -> Result<Usage, Self::Error>;

    /// Sets how much the tenant keeps.
    ///
    /// # Errors
    /// If the store failed.
    fn set_usage(&mut self, usage: &Usage) -> Result<(), Self::Error>;

    /// Remembers a unit.
    ///
    /// # Errors
    /// If the store failed.
    fn set_unit(&mut self, id: &UnitId, memory: &UnitMemory) -> Result<(), Self::Error>;

    /// Remembers the key of a device.
    ///
    /// # Errors
    /// If the store failed.
    fn set_device_key(&mut self, device: &DeviceId, fingerprint: &Hash) -> Result<(), Self::Error>;

    /// Sets the anchor of one epoch of a device's log. Of the earlier heads, the first is kept, and
    /// [`crate::limits::ANCHORS_KEPT`] of the newest.
    ///
    /// # Errors
    /// If the store failed.
    fn set_anchor(
        &mut self,
        device: &DeviceId,
        epoch: &Epoch,
        anchor: &Receipt,
    ) -> Result<(), Self::Error>;

    /// Remembers when a new head of a log came, and from which actor, for whoever runs the server.
    /// It is called in the commit of that head only. A store without a list of devices does
    /// nothing.
    ///
    /// # Errors
    /// If the store failed.
    fn set_seen(
        &mut self,
        _device: &DeviceId,
        _epoch: &Epoch,
        _seen: (WallTime, &Actor),
    ) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// The memory of a unit with a final answer: enough to recognise it and to repeat the first answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitMemory {
    /// The hash of its content.
    pub digest: Hash,
    /// The fate of the unit.
    pub fate: UnitFate,
}

/// The fate of a remembered unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitFate {
    /// The unit was applied in this commit. The commit's number is the version of every record that
    /// it changed.
    Applied(Version),
    /// The unit was accepted and changed nothing: the records had later writes, or all writes of
    /// the unit.
    ChangedNothing,
    /// A stamp of the unit was ahead of the server's time.
    Ahead,
    /// The unit was refused.
    Rejected {
        /// The reason, for machines.
        code: String,
        /// The reason, for people.
        message: String,
    },
}

impl UnitMemory {
    /// Returns whether the unit was accepted.
    pub const fn was_accepted(&self) -> bool {
        matches!(self.fate, UnitFate::Applied(_) | UnitFate::ChangedNothing)
    }
}

/// The place and size of a record's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowPlace {
    /// The record's version.
    pub version: Version,
    /// The index of the change in that commit.
    pub index: u32,
    /// The record's own stamp, the greatest of its fields.
    pub stamp: EditStamp,
    /// Whether the row is a tombstone.
    pub is_deleted: bool,
    /// The size of the row: [`Row::stored_bytes`].
    pub bytes: usize,
}

/// One record of the feed.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedItem {
    /// The record, of the entity type that was asked for.
    pub id: RecordId,
    /// The record's row.
    pub row: Row,
}
