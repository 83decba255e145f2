//! Reads the rows of the database's answers. Every value is checked: another form is an error.

use fieldbook_core::authority::{RowPlace, UnitMemory, Usage};
use fieldbook_core::digest::Digest;
use fieldbook_core::entry::Receipt;
use fieldbook_core::{
    DeviceId, EntityType, Epoch, Hash, RecordId, RecordKey, Seq, ServerEpoch, ServerId, Version,
    WallTime, limits,
};
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::failure::Failure;
use super::loaded::{Found, Log, Top};
use super::migrations;
use crate::store::{Damaged, StateError, Tenant, layout, tables};

/// Reads one column.
pub(super) fn column<'r, T: FromSql<'r>>(row: &'r Row, name: &str) -> Result<T, Failure> {
    row.try_get(name).map_err(|_| Failure::Unreadable(format!("the column {name}")))
}

/// Reads a column of an array, which is null if it has no element.
pub(super) fn list<'r, T: FromSql<'r>>(row: &'r Row, name: &str) -> Result<Vec<T>, Failure> {
    Ok(column::<Option<Vec<T>>>(row, name)?.unwrap_or_default())
}

/// A number that is never negative.
pub(super) fn number(stored: i64) -> Result<u64, Damaged> {
    u64::try_from(stored).map_err(|_| Damaged { what: "a number" })
}

/// A number as it is stored.
pub(super) fn stored(number: u64) -> Result<i64, Damaged> {
    i64::try_from(number).map_err(|_| Damaged { what: "a number to be written" })
}

pub(super) fn index(stored: i32) -> Result<u32, Damaged> {
    u32::try_from(stored).map_err(|_| Damaged { what: "the place of a record" })
}

pub(super) fn id16(bytes: &[u8], what: &'static str) -> Result<[u8; 16], Damaged> {
    bytes.try_into().map_err(|_| Damaged { what })
}

pub(super) fn entity(name: &str) -> Result<EntityType, Damaged> {
    EntityType::parse(name).map_err(|_| Damaged { what: "an entity type" })
}

pub(super) fn id(text: &str) -> Result<RecordId, Damaged> {
    RecordId::parse(text).map_err(|_| Damaged { what: "a record's id" })
}

pub(super) fn digest(bytes: &[u8]) -> Result<Digest, Damaged> {
    Digest::from_bytes(bytes).ok_or(Damaged { what: "a digest" })
}

pub(super) fn memory(bytes: &[u8]) -> Result<UnitMemory, Damaged> {
    tables::unit_from(bytes).ok_or(Damaged { what: "what is remembered of a unit" })
}

/// Reads the server's id and epoch.
pub(super) fn identity(row: &Row) -> Result<(ServerId, ServerEpoch), StateError> {
    let what = "what the store is";
    let server = id16(column(row, "server")?, what)?;
    let epoch = id16(column(row, "epoch")?, what)?;
    Ok((ServerId::from_bytes(server), ServerEpoch::from_bytes(epoch)))
}

/// Reads what the store and the tenant are. A tenant of before the store was restored has its commits
/// numbered higher from now on, as all tenants of a store file have when it is restored.
pub(super) fn top(row: &Row, tenant: &Tenant) -> Result<Top, StateError> {
    if column::<i32>(row, "migration")? > migrations::LAST {
        return Err(Failure::Newer.into());
    }
    let identity = identity(row)?;
    let epoch_number = column::<i64>(row, "epoch_number")?;
    let whole = |name| -> Result<u64, StateError> {
        Ok(number(column::<Option<i64>>(row, name)?.unwrap_or_default())?)
    };
    let of_tenant = column::<Option<i64>>(row, "tenant_epoch_number")?.unwrap_or(epoch_number);
    let restored = number(epoch_number.saturating_sub(of_tenant))?;
    let last = whole("last_commit")?;
    // A tenant without a commit has none to pass.
    let restored = if last == 0 { 0 } else { restored };
    let last = last.saturating_add(restored.saturating_mul(limits::EPOCH_COMMITS));
    let newest = column::<Option<i64>>(row, "newest_time")?;
    Ok(Top {
        identity,
        epoch_number,
        tenant: tenant.id(&identity.0),
        last_commit: Version::new(last),
        newest_time: newest.map(WallTime::from_milliseconds),
        usage: Usage {
            records: whole("records")?,
            bytes: whole("bytes")?,
            entity_types: whole("entity_types")?,
        },
    })
}

/// Reads what is known of a log and its device.
pub(super) fn log(row: &Row, of: (DeviceId, Epoch)) -> Result<Log, StateError> {
    let hash = |name, what| -> Result<Option<Hash>, StateError> {
        let bytes = column::<Option<&[u8]>>(row, name)?;
        Ok(bytes.map(|bytes| tables::hash_from(bytes).ok_or(Damaged { what })).transpose()?)
    };
    let anchor = match (column::<Option<i64>>(row, "seq")?, hash("hash", "an anchor")?) {
        (Some(seq), Some(hash)) => Some(Receipt { seq: Seq::new(number(seq)?), hash }),
        _ => None,
    };
    Ok(Log { of, anchor, device_key: hash("fingerprint", "a device's key")? })
}

/// Reads the place of a row.
pub(super) fn place(
    (commit, idx): (i64, i32),
    size: i32,
    glance: &[u8],
) -> Result<RowPlace, Damaged> {
    let (is_deleted, stamp) = layout::glance(glance)?;
    Ok(RowPlace {
        version: Version::new(number(commit)?),
        index: index(idx)?,
        stamp,
        is_deleted,
        bytes: usize::try_from(size).map_err(|_| Damaged { what: "the size of a row" })?,
    })
}

/// Reads the records of aligned arrays, which are in the order of the keys.
pub(super) fn records(
    row: &Row,
    keys: &[RecordKey],
) -> Result<Vec<(RecordKey, Option<Found>)>, StateError> {
    let commits = list::<Option<i64>>(row, "commits")?;
    let indexes = list::<Option<i32>>(row, "indexes")?;
    let sizes = list::<Option<i32>>(row, "sizes")?;
    let glances = list::<Option<&[u8]>>(row, "glances")?;
    let contents = list::<Option<Vec<u8>>>(row, "contents")?;
    aligned(
        keys.len(),
        &[commits.len(), indexes.len(), sizes.len(), glances.len(), contents.len()],
    )?;
    let mut records = Vec::with_capacity(keys.len());
    let places = commits.into_iter().zip(indexes).zip(sizes).zip(glances);
    for ((key, place), content) in keys.iter().zip(places).zip(contents) {
        let found = match place {
            (((Some(commit), Some(idx)), Some(size)), Some(glance)) => {
                Some(Found { place: self::place((commit, idx), size, glance)?, content })
            }
            _ => None,
        };
        records.push((key.clone(), found));
    }
    Ok(records)
}

/// Checks that arrays have an element for each key.
pub(super) fn aligned(keys: usize, lengths: &[usize]) -> Result<(), Failure> {
    if lengths.iter().all(|length| *length == keys) {
        Ok(())
    } else {
        Err(Failure::Unreadable("arrays that should have the same length".to_owned()))
    }
}
