//! Reads the confirmed records of the book, a few at a time.

use std::collections::BTreeMap;

use fieldbook_core::digest::{Digest, Place};
use fieldbook_core::protocol::EntityDigest;
use fieldbook_core::rows::RecordRow;
use fieldbook_core::rules::compare::Side;
use fieldbook_core::{EntityType, RecordId, Version};

use crate::book::Shared;
use crate::error::Error;

/// The number of records that are read from one snapshot.
const SLICE: usize = 1_000;

/// The digests of the book's confirmed live records.
#[derive(Debug, Default)]
pub(super) struct OwnDigests(BTreeMap<EntityType, OwnType>);

/// One entity type.
#[derive(Debug, Clone)]
pub(super) struct OwnType {
    /// The digests of its 256 parts.
    pub(super) parts: Vec<Digest>,
    /// The number of its records with pending ops.
    waiting: u64,
}

impl Default for OwnType {
    fn default() -> Self {
        Self { parts: vec![Digest::default(); 256], waiting: 0 }
    }
}

impl OwnType {
    pub(super) fn digest(&self) -> Digest {
        self.parts.iter().copied().fold(Digest::default(), Digest::plus)
    }

    fn add(&mut self, entity: &EntityType, id: &RecordId, row: &RecordRow) {
        self.waiting += u64::from(!row.tail.is_empty());
        let place = usize::from(Place::of(id).first_byte());
        if let (Some(digest), Some(part)) = (digest(entity, id, row), self.parts.get_mut(place)) {
            *part = part.plus(digest);
        }
    }
}

impl OwnDigests {
    pub(super) fn of(&self, entity: &EntityType) -> OwnType {
        self.0.get(entity).cloned().unwrap_or_default()
    }

    pub(super) fn types(&self) -> impl Iterator<Item = &EntityType> {
        self.0.keys()
    }

    /// Returns the number of live confirmed records of some types.
    pub(super) fn records(&self, of: impl Fn(&EntityType) -> bool) -> u64 {
        let some = self.0.iter().filter(|(entity, _)| of(entity));
        some.map(|(_, own)| own.digest().records).sum()
    }

    /// Returns the number of records of some types with pending ops.
    pub(super) fn waiting(&self, of: impl Fn(&EntityType) -> bool) -> u64 {
        self.0.iter().filter(|(entity, _)| of(entity)).map(|(_, own)| own.waiting).sum()
    }
}

/// Returns the digest of a record as it is confirmed; `None` if it is not live.
pub(super) fn digest(entity: &EntityType, id: &RecordId, row: &RecordRow) -> Option<Digest> {
    let side = Side::of(row);
    side.is_live.then(|| Digest::of(entity, id, side.version))
}

/// Returns what a server says of a type of which it never had a record.
pub(super) fn nothing(entity: &EntityType) -> EntityDigest {
    EntityDigest {
        entity: entity.to_string(),
        records: 0,
        sum: 0,
        read_to: Version::default(),
        newer: false,
    }
}

impl Shared {
    /// Counts the digests of the confirmed records.
    pub(super) async fn own_digests(&self) -> Result<OwnDigests, Error> {
        let types = self.snapshot()?.entity_types()?;
        let mut own = OwnDigests::default();
        for entity in types {
            let of_type = own.0.entry(entity.clone()).or_default();
            self.walk(&entity, |id, row| of_type.add(&entity, id, row)).await?;
        }
        Ok(own)
    }

    /// Passes each record of an entity type to `see`, in the order of ids, deleted ones too. Other
    /// tasks run in between, so the records may be of different moments.
    pub(super) async fn walk(
        &self,
        entity: &EntityType,
        mut see: impl FnMut(&RecordId, &RecordRow) + Send,
    ) -> Result<(), Error> {
        let mut after = None;
        while let Some(last) = self.slice(entity, after.as_ref(), &mut see)? {
            after = Some(last);
            // Other tasks of the app run in between.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Passes the next records on, and returns the last of them if there may be more.
    fn slice(
        &self,
        entity: &EntityType,
        after: Option<&RecordId>,
        see: &mut impl FnMut(&RecordId, &RecordRow),
    ) -> Result<Option<RecordId>, Error> {
        let snapshot = self.snapshot()?;
        let mut last = None;
        for (number, record) in snapshot.records(entity, after)?.take(SLICE).enumerate() {
            let (id, row) = record?;
            see(&id, &row);
            if number + 1 == SLICE {
                last = Some(id);
            }
        }
        Ok(last)
    }
}
