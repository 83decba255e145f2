//! What the rules need of a store: one tenant's part of it, inside one transaction.

use super::row::Row;
use super::usage::Usage;
use crate::entry::Receipt;
use crate::ids::{DeviceId, Epoch, ServerEpoch, ServerId, TenantId, UnitId};
use crate::names::{EntityType, RecordId, RecordKey};
use crate::numbers::{Hash, Version};
use crate::record::EditStamp;
use crate::time::WallTime;

/// What the rules read.
pub trait AuthorityRead {
    /// What the store fails with.
    type Error;

    /// Returns which server this is, and which life of it.
    ///
    /// # Errors
    /// If the store failed.
    fn identity(&self) -> Result<(ServerId, ServerEpoch), Self::Error>;

    /// Returns which tenant's part of the store this is; none for a store that is not shared.
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

    /// Returns a record's row, also of a deleted one; none if there never was one.
    ///
    /// # Errors
    /// If the store failed.
    fn record(&self, key: &RecordKey) -> Result<Option<Row>, Self::Error>;

    /// Returns where a record's row stands, without reading the row.
    ///
    /// # Errors
    /// If the store failed.
    fn place(&self, key: &RecordKey) -> Result<Option<RowPlace>, Self::Error>;

    /// Returns whether there is or was a record of an entity type.
    ///
    /// # Errors
    /// If the store failed.
    fn has_records(&self, entity: &EntityType) -> Result<bool, Self::Error>;

    /// Returns what is remembered of a unit.
    ///
    /// # Errors
    /// If the store failed.
    fn unit(&self, id: &UnitId) -> Result<Option<UnitMemory>, Self::Error>;

    /// Returns the time of the tenant's newest commit, by the server's clock; none if it is not known.
    ///
    /// # Errors
    /// If the store failed.
    fn newest_time(&self) -> Result<Option<WallTime>, Self::Error>;

    /// Returns the known head of one life of a device's log.
    ///
    /// # Errors
    /// If the store failed.
    fn anchor(&self, device: &DeviceId, epoch: &Epoch) -> Result<Option<Receipt>, Self::Error>;

    /// Returns what is remembered of the key of a device.
    ///
    /// # Errors
    /// If the store failed.
    fn device_key(&self, device: &DeviceId) -> Result<Option<Hash>, Self::Error>;

    /// Returns the heads that are kept of one life of a device's log, oldest first: its first one and the newest.
    ///
    /// # Errors
    /// If the store failed.
    fn anchors(&self, device: &DeviceId, epoch: &Epoch) -> Result<Vec<Receipt>, Self::Error>;

    /// Returns the entity types of which a record changed after a commit; others may be among them.
    ///
    /// # Errors
    /// If the store failed.
    fn entities_after(&self, commit: Version) -> Result<Vec<EntityType>, Self::Error>;

    /// Returns the records of an entity type that changed in a commit or after it, from one of its changes on, each once, at
    /// its latest change, in the order of commits and within a commit in the order of its changes.
    ///
    /// # Errors
    /// If the store failed; the iterator too.
    fn feed(
        &self,
        entity: &EntityType,
        from: (Version, u32),
    ) -> Result<impl Iterator<Item = Result<FeedItem, Self::Error>>, Self::Error>;
}

/// What the rules write. All of one exchange's writes are committed together, or none.
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
    /// `before` is what [`AuthorityRead::place`] returned for it.
    ///
    /// # Errors
    /// If the store failed.
    fn set_record(
        &mut self,
        key: &RecordKey,
        before: Option<&RowPlace>,
        row: &Row,
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

    /// Sets the known head of one life of a device's log. The heads before it are kept: the first, and
    /// [`crate::limits::ANCHORS_KEPT`] of the newest.
    ///
    /// # Errors
    /// If the store failed.
    fn set_anchor(&mut self, device: &DeviceId, epoch: &Epoch, anchor: &Receipt) -> Result<(), Self::Error>;
}

/// What is remembered of a unit that was answered for good: enough to know it again and to give the first answer again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitMemory {
    /// The hash of its content.
    pub digest: Hash,
    /// What became of it.
    pub fate: UnitFate,
}

/// What became of a unit that is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitFate {
    /// It was applied in this commit, whose number is the version of every record that it changed.
    Applied(Version),
    /// It was accepted, and changed nothing: what it met stood above it, or all that it writes was there.
    ChangedNothing,
    /// A stamp of it was ahead of the server's time.
    Ahead,
    /// It was refused.
    Rejected {
        /// Why, for machines.
        code: String,
        /// Why, for people.
        message: String,
    },
}

impl UnitMemory {
    /// Returns whether the unit was accepted, so that it took effect as far as it could.
    pub const fn was_accepted(&self) -> bool {
        matches!(self.fate, UnitFate::Applied(_) | UnitFate::ChangedNothing)
    }
}

/// Where a record's row stands, and how large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowPlace {
    /// The record's version.
    pub version: Version,
    /// Which change of that commit it was.
    pub index: u32,
    /// The record's own stamp, the greatest of its fields.
    pub stamp: EditStamp,
    /// Whether it is a tombstone.
    pub is_deleted: bool,
    /// How many bytes the row takes, as [`Row::stored_bytes`] tells it.
    pub bytes: usize,
}

/// One record of the feed.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedItem {
    /// The record, of the entity type that was asked for.
    pub id: RecordId,
    /// Its row.
    pub row: Row,
}
