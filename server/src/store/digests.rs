//! The digests of a store: kept with its records, counted once for a store from before there were
//! digests, and compared with the records when somebody asks.
//!
//! Invariant: the digests of a tenant count only if they name its last commit. A program that does
//! not know them leaves that mark behind, and the next opening counts them anew.

use std::collections::BTreeMap;

use fieldbook_core::authority::{self, Caller, Compared, Quota};
use fieldbook_core::digest::{Digest, Place};
use fieldbook_core::protocol::CompareRequest;
use fieldbook_core::{EntityType, Version, WallTime};
use redb::{Database, ReadableDatabase, ReadableTable, TableError, WriteTransaction};

use super::state::TenantState;
use super::{Damaged, StateError, Store, StoreExchangeError, Tenant, layout, tables};

/// The digests of the entity types of a tenant (no part), and of their parts.
type Counted = BTreeMap<(String, Option<u8>), Digest>;

/// A digest of a store that is not the digest of the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongDigest {
    /// The tenant.
    pub tenant: String,
    /// The entity type.
    pub entity: String,
    /// The number of live records by the digest.
    pub kept: u64,
    /// The number of live records.
    pub counted: u64,
}

impl Store {
    /// Counts the digests of a store that does not have them. A store that cannot be written still
    /// answers exchanges, and no comparison.
    pub(crate) fn count_digests_if_missing(&self) {
        match count_missing(&self.database) {
            Ok(0) => {}
            Ok(tenants) => tracing::info!(tenants, "the digests of the records were counted"),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "the digests cannot be counted, so nothing is compared");
            }
        }
    }

    /// Compares the digests with the records, and returns those that differ.
    pub(crate) fn wrong_digests(&self) -> Result<Vec<WrongDigest>, StateError> {
        count_missing(&self.database)?;
        wrong(&self.database)
    }

    /// Answers a request for a comparison.
    pub(crate) fn compare(
        &self,
        tenant: &Tenant,
        request: &CompareRequest,
        now: WallTime,
        (caller, quota): (&Caller, &Quota),
    ) -> Result<Compared, StoreExchangeError> {
        let snapshot = self.database.begin_read().map_err(StateError::from)?;
        let state = TenantState::read(&snapshot, tenant, self.identity)?;
        Ok(authority::compare(&state, request, now, caller, quota)?)
    }
}

/// Counts the digests of each tenant whose digests do not name its last commit. Returns how many
/// tenants that were.
pub(super) fn count_missing(database: &Database) -> Result<usize, StateError> {
    {
        let snapshot = database.begin_read()?;
        let tenants = snapshot.open_table(tables::TENANTS)?;
        let digests = match snapshot.open_table(tables::DIGESTS) {
            Ok(digests) => Some(digests),
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(error.into()),
        };
        if digests.is_some() && missing(&tenants, digests.as_ref())?.is_empty() {
            return Ok(0);
        }
    }
    let transaction = database.begin_write()?;
    let counted = {
        let tenants = transaction.open_table(tables::TENANTS)?;
        let mut digests = transaction.open_table(tables::DIGESTS)?;
        let feed = transaction.open_table(tables::FEED)?;
        let missing = missing(&tenants, Some(&digests))?;
        for (tenant, commit) in &missing {
            let end = tables::tenant_end(tenant);
            digests.retain_in(tenant.as_slice()..end.as_slice(), |_, _| false)?;
            for ((entity, part), digest) in count(&feed, tenant)? {
                let entity = EntityType::parse(&entity).map_err(|_| DAMAGED)?;
                let key = tables::digest_key(tenant, &entity, part);
                digests.insert(key.as_slice(), digest.to_bytes().as_slice())?;
            }
            digests.insert(tenant.as_slice(), commit.number().to_le_bytes().as_slice())?;
        }
        missing.len()
    };
    transaction.commit()?;
    Ok(counted)
}

const DAMAGED: Damaged = Damaged { what: "a key of the feed" };

/// Returns the tenants whose digests do not name their last commit, with that commit.
fn missing<T: ReadableTable<&'static [u8], &'static [u8]>>(
    tenants: &T,
    digests: Option<&impl ReadableTable<&'static [u8], &'static [u8]>>,
) -> Result<Vec<(Vec<u8>, Version)>, StateError> {
    let mut missing = Vec::new();
    for row in tenants.iter()? {
        let (tenant, commit) = row?;
        let commit = tables::commit_from(commit.value())
            .ok_or(Damaged { what: "a tenant's last commit" })?;
        let mark = match digests {
            Some(digests) => digests.get(tenant.value())?,
            None => None,
        };
        let mark = mark.and_then(|mark| tables::commit_from(mark.value()));
        if mark != Some(commit) {
            missing.push((tenant.value().to_owned(), commit));
        }
    }
    Ok(missing)
}

/// Counts the digests of a tenant's records.
fn count(
    feed: &impl ReadableTable<&'static [u8], &'static [u8]>,
    tenant: &[u8],
) -> Result<Counted, StateError> {
    let mut counted = Counted::new();
    for row in feed.range(tenant..)? {
        let (key, value) = row?;
        if !key.value().starts_with(tenant) {
            break;
        }
        let entity = tables::feed_entity(tenant, key.value())?;
        let (version, index) = tables::feed_place(key.value())?;
        let item = layout::read(version, index, value.value())?;
        let digest = if item.row.is_deleted() {
            Digest::default()
        } else {
            Digest::of(&entity, &item.id, version)
        };
        for part in [None, Some(Place::of(&item.id).first_byte())] {
            let sum = counted.entry((entity.to_string(), part)).or_default();
            *sum = sum.plus(digest);
        }
    }
    Ok(counted)
}

/// Counts the digests of all records, and returns those that differ from the kept ones. A digest of
/// a part that differs is told as its entity type.
pub(super) fn wrong(database: &Database) -> Result<Vec<WrongDigest>, StateError> {
    let snapshot = database.begin_read()?;
    let tenants = snapshot.open_table(tables::TENANTS)?;
    let (kept, feed) = (snapshot.open_table(tables::DIGESTS)?, snapshot.open_table(tables::FEED)?);
    let mut wrong = Vec::new();
    for row in tenants.iter()? {
        let (tenant, _) = row?;
        let tenant = tenant.value();
        let mut counted = count(&feed, tenant)?;
        let mut differing = BTreeMap::new();
        for row in kept.range(tenant..)? {
            let (key, value) = row?;
            let Some(rest) = key.value().strip_prefix(tenant) else { break };
            // The mark.
            let Some((entity, part)) = tables::digest_of(rest) else { continue };
            let digest = Digest::from_bytes(value.value()).ok_or(Damaged { what: "a digest" })?;
            let is = counted.remove(&(entity.clone(), part)).unwrap_or_default();
            if digest != is {
                differing.entry(entity).or_insert((digest.records, is.records));
            }
        }
        for ((entity, _), is) in counted.into_iter().filter(|(_, is)| *is != Digest::default()) {
            differing.entry(entity).or_insert((0, is.records));
        }
        let tenant = String::from_utf8_lossy(tenant.strip_suffix(&[0]).unwrap_or(tenant));
        wrong.extend(differing.into_iter().map(|(entity, (kept, counted))| WrongDigest {
            tenant: tenant.clone().into_owned(),
            entity,
            kept,
            counted,
        }));
    }
    Ok(wrong)
}

/// Lets the digests of all tenants name their new commits, because a new epoch numbers its commits
/// higher and changes no record. `former` has the commit of each tenant before.
pub(super) fn follow_epoch(
    transaction: &WriteTransaction,
    former: &[(Vec<u8>, Version, Version)],
) -> Result<(), StateError> {
    let mut digests = transaction.open_table(tables::DIGESTS)?;
    for (tenant, before, after) in former {
        let mark = digests.get(tenant.as_slice())?;
        let is_known = mark.and_then(|mark| tables::commit_from(mark.value())) == Some(*before);
        if is_known {
            digests.insert(tenant.as_slice(), after.number().to_le_bytes().as_slice())?;
        }
    }
    Ok(())
}
