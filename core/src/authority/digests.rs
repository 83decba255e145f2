//! The digests that follow the changes of one request.
//!
//! Invariants:
//! 1. The digests change in the transaction of the records. Nothing is counted again.
//! 2. A digest is read and written once for a request, however many of its records changed.

use std::collections::BTreeMap;

use super::row::Row;
use super::state::RowPlace;
use super::{AuthorityState, ExchangeError};
use crate::digest::{Digest, Place};
use crate::names::{EntityType, RecordKey};

/// The changes of digests by the units of one request: of whole entity types (`None`), and of their
/// 256 parts.
#[derive(Debug, Default)]
pub(super) struct Turned(BTreeMap<(EntityType, Option<u8>), Digest>);

impl Turned {
    /// Adds the change of one record.
    pub(super) fn add(&mut self, key: &RecordKey, before: Option<&RowPlace>, after: &Row) {
        let of = |version| Digest::of(&key.entity, &key.id, version);
        let before = before.filter(|place| !place.is_deleted).map(|place| of(place.version));
        let after = Some(after).filter(|row| !row.is_deleted()).map(|row| of(row.version));
        if before.is_none() && after.is_none() {
            return;
        }
        let change = after.unwrap_or_default().minus(before.unwrap_or_default());
        for part in [None, Some(Place::of(&key.id).first_byte())] {
            let turned = self.0.entry((key.entity.clone(), part)).or_default();
            *turned = turned.plus(change);
        }
    }

    /// Writes the changed digests.
    pub(super) fn store<S: AuthorityState>(
        self,
        state: &mut S,
    ) -> Result<(), ExchangeError<S::Error>> {
        for ((entity, part), change) in self.0 {
            let present = state.digest(&entity, part).map_err(ExchangeError::State)?;
            let digest = present.plus(change);
            state.set_digest(&entity, part, digest).map_err(ExchangeError::State)?;
        }
        Ok(())
    }
}
