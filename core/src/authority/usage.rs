//! The amount that a tenant keeps at the server, and whether it may keep more.
//!
//! Invariants:
//! 1. The counts follow each change in its own transaction. Nothing is counted again.
//! 2. A tenant over a limit can still read, and can write a row that is not larger than the row
//!    that it replaces.

use std::collections::BTreeSet;

use super::state::RowPlace;
use super::{AuthorityState, ExchangeError, Quota};
use crate::names::{EntityType, RecordKey};

/// The bytes of one remembered unit.
const UNIT_BYTES: u64 = 56;

/// The amount that a tenant keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Its records, including deleted ones.
    pub records: u64,
    /// The bytes of its records and of the memory of its units.
    pub bytes: u64,
    /// Its entity types.
    pub entity_types: u64,
}

impl Usage {
    /// Counts a unit that is remembered.
    pub fn remember_unit(&mut self) {
        self.bytes = self.bytes.saturating_add(UNIT_BYTES);
    }
}

/// The limit that a unit would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// The tenant's room.
    Room,
    /// The number of entity types.
    EntityTypes,
}

/// The tenant's usage after the units of one request.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// The present usage; none until something is written.
    usage: Option<Usage>,
    /// Entity types that are known to have records.
    known: BTreeSet<EntityType>,
}

/// The growth by one unit.
#[derive(Debug, Default)]
pub(super) struct Growth {
    records: u64,
    /// The bytes by which some of its records grow, and the bytes by which others shrink.
    more: u64,
    less: u64,
    entity_types: BTreeSet<EntityType>,
}

impl Counted {
    /// Adds one record to a unit's growth.
    pub(super) fn grow<S: AuthorityState>(
        &self,
        state: &S,
        growth: &mut Growth,
        key: &RecordKey,
        (before, after): (Option<&RowPlace>, usize),
    ) -> Result<(), ExchangeError<S::Error>> {
        let before_bytes = before.map_or(0, |row| row.bytes);
        growth.more = growth.more.saturating_add(after.saturating_sub(before_bytes) as u64);
        growth.less = growth.less.saturating_add(before_bytes.saturating_sub(after) as u64);
        if before.is_some() {
            return Ok(());
        }
        growth.records += 1;
        let is_known =
            self.known.contains(&key.entity) || growth.entity_types.contains(&key.entity);
        if !is_known && !state.has_records(&key.entity).map_err(ExchangeError::State)? {
            growth.entity_types.insert(key.entity.clone());
        }
        Ok(())
    }

    /// Adds a unit's growth, unless it exceeds a limit.
    pub(super) fn take<S: AuthorityState>(
        &mut self,
        state: &S,
        growth: Growth,
        quota: &Quota,
    ) -> Result<Result<(), Over>, ExchangeError<S::Error>> {
        let present = match self.usage {
            Some(usage) => usage,
            None => state.usage().map_err(ExchangeError::State)?,
        };
        let mut usage = Usage {
            records: present.records.saturating_add(growth.records),
            bytes: present.bytes.saturating_add(growth.more).saturating_sub(growth.less),
            entity_types: present.entity_types.saturating_add(growth.entity_types.len() as u64),
        };
        if !growth.entity_types.is_empty() && usage.entity_types > quota.entity_types {
            return Ok(Err(Over::EntityTypes));
        }
        let is_over = |most: Option<u64>, used: u64| most.is_some_and(|most| used > most);
        if growth.records > 0 && is_over(quota.records, usage.records)
            || usage.bytes > present.bytes && is_over(quota.bytes, usage.bytes)
        {
            return Ok(Err(Over::Room));
        }
        usage.remember_unit();
        self.known.extend(growth.entity_types);
        self.usage = Some(usage);
        Ok(Ok(()))
    }

    /// Counts a unit that is remembered and changed no record.
    pub(super) fn remember_unit<S: AuthorityState>(
        &mut self,
        state: &S,
    ) -> Result<(), ExchangeError<S::Error>> {
        let mut usage = match self.usage {
            Some(usage) => usage,
            None => state.usage().map_err(ExchangeError::State)?,
        };
        usage.remember_unit();
        self.usage = Some(usage);
        Ok(())
    }

    /// Writes the new usage.
    pub(super) fn store<S: AuthorityState>(
        self,
        state: &mut S,
    ) -> Result<(), ExchangeError<S::Error>> {
        self.usage.map_or(Ok(()), |usage| state.set_usage(&usage).map_err(ExchangeError::State))
    }
}
