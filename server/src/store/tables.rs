//! The tables of a server store, format 2. Every key begins with the tenant and a zero byte, which
//! no tenant's name contains.
//!
//! Numbers in keys are big-endian, so that keys are in the order of the numbers. Numbers in values
//! are little-endian.

use fieldbook_core::authority::{UnitFate, UnitMemory, Usage};
use fieldbook_core::entry::Receipt;
use fieldbook_core::{
    Actor, DeviceId, EntityType, Epoch, Hash, RecordKey, Seq, UnitId, Version, WallTime,
};
use redb::TableDefinition;

use super::{Damaged, Tenant};

/// The format of the tables.
pub(super) const FORMAT: u8 = 2;

/// The place of each record in the feed.
///
/// Key: tenant, 0, entity type, 0, record id. Value: commit, index: the end of its key in the feed.
pub(super) const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records-1");

/// Each record at its latest change, so that a page is one scan of adjacent rows.
///
/// Key: tenant, 0, entity type, 0, commit (u64), index (u32). Value: [`super::layout`].
pub(super) const FEED: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("feed-1");

/// The units that were answered for good.
///
/// Key: tenant, 0, unit id. Value: digest, commit (u64). A unit without a commit has 0 and its
/// result (u8: 0 changed nothing, 1 ahead, 2 refused). A refused unit also has the length of its
/// code (u8), the code and the message.
pub(super) const UNITS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("units-1");

/// The known heads of the devices' logs.
///
/// Key: tenant, 0, device, epoch. Value: seq (u64), hash.
pub(super) const ANCHORS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("anchors-1");

/// The last commit of each tenant.
///
/// Key: tenant, 0. Value: last commit (u64).
pub(super) const TENANTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("tenants-1");

/// How much each tenant keeps. Made by the first write; a tenant without a row is counted once.
///
/// Key: tenant, 0. Value: records, bytes, entity types (u64 each).
pub(super) const USAGE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("usage-1");

/// The hashes of the devices' keys. Made by the first write.
///
/// Key: tenant, 0, device. Value: the key's fingerprint.
pub(super) const DEVICES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("devices-1");

/// The heads of the devices' logs, former ones and the present one: the first of each epoch and the
/// newest. Made by the first write.
///
/// Key: tenant, 0, device, epoch, seq (u64). Value: hash.
pub(super) const WITNESSED: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("witnessed-1");

/// When the newest head of each log came, and from which actor. Made by the first write.
///
/// Key: tenant, 0, device, epoch. Value: milliseconds since 1970 by the server's clock (i64),
/// actor.
pub(super) const SEEN: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("seen-1");

/// When each tenant's newest commit was. Made by the first write.
///
/// Key: tenant, 0. Value: milliseconds since 1970 by the server's clock (i64).
pub(super) const TIMES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("times-1");

/// The last change of each entity type. Made by the first write. For a tenant with records and no
/// row here, all records are searched once.
///
/// Key: tenant, 0, last commit of the type (u64, big-endian), entity type. Value: nothing.
pub(super) const TYPES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("types-1");

/// The digests of the live records. Made with the store, or counted by the first start of a server
/// that knows them.
///
/// Key: tenant, 0, entity type, 0; value: the digest of the type: records (u64), sum (u128). Key:
/// tenant, 0, entity type, 0, part (u8); value: the digest of one of its 256 parts. Key: tenant, 0;
/// value: the commit at which the digests of the tenant stand (u64).
pub(super) const DIGESTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("digests-1");

/// The keys that sign receipts, retired ones included. Made with the store, or by the first start
/// of a server that signs.
///
/// Key: number (u32, big-endian). Value: retired (u8), milliseconds since 1970 at which it was made
/// (i64), the secret key as text.
pub(super) const SIGNING_KEYS: TableDefinition<'_, &[u8], &[u8]> =
    TableDefinition::new("signing-keys-1");

/// The identity of the store. One row.
///
/// Key: `store`. Value: format (u8), server id, server epoch.
pub(super) const STORE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("store-1");

/// The key of the only row of [`STORE`].
pub(super) const STORE_KEY: &[u8] = b"store";

pub(super) fn tenant_key(tenant: &Tenant) -> Vec<u8> {
    let mut key = Vec::with_capacity(tenant.as_str().len() + 1);
    key.extend_from_slice(tenant.as_str().as_bytes());
    key.push(0);
    key
}

pub(super) fn record_key(tenant: &[u8], key: &RecordKey) -> Vec<u8> {
    [tenant, &key.to_bytes()].concat()
}

/// Returns the first key behind all keys of a tenant, its own key included.
pub(super) fn tenant_end(tenant: &[u8]) -> Vec<u8> {
    // The tenant's key ends with a zero byte.
    [tenant.strip_suffix(&[0]).unwrap_or(tenant), &[1]].concat()
}

/// Returns the key of a digest.
pub(super) fn digest_key(tenant: &[u8], entity: &EntityType, part: Option<u8>) -> Vec<u8> {
    let mut key = feed_prefix(tenant, entity);
    key.extend(part);
    key
}

/// Reads the end of a key of [`DIGESTS`], behind the tenant. None for the mark of the tenant.
pub(super) fn digest_of(rest: &[u8]) -> Option<(String, Option<u8>)> {
    let end = rest.iter().position(|byte| *byte == 0)?;
    let (entity, part) = rest.split_at_checked(end)?;
    let entity = std::str::from_utf8(entity).ok()?.to_owned();
    Some((entity, part.get(1).copied()))
}

/// Returns where the feed of an entity type begins.
pub(super) fn feed_prefix(tenant: &[u8], entity: &EntityType) -> Vec<u8> {
    [tenant, entity.as_str().as_bytes(), &[0]].concat()
}

pub(super) fn feed_key(
    tenant: &[u8],
    entity: &EntityType,
    version: Version,
    index: u32,
) -> Vec<u8> {
    let mut key = feed_prefix(tenant, entity);
    key.extend_from_slice(&version.number().to_be_bytes());
    key.extend_from_slice(&index.to_be_bytes());
    key
}

/// Returns the first key after the feed of an entity type.
pub(super) fn feed_end(tenant: &[u8], entity: &EntityType) -> Vec<u8> {
    [tenant, entity.as_str().as_bytes(), &[1]].concat()
}

/// Returns the entity type of a key of the feed.
pub(super) fn feed_entity(tenant: &[u8], key: &[u8]) -> Result<EntityType, Damaged> {
    let damaged = Damaged { what: "a key of the feed" };
    let name = key
        .strip_prefix(tenant)
        .and_then(|rest| rest.split(|byte| *byte == 0).next())
        .ok_or(damaged)?;
    let name = std::str::from_utf8(name).map_err(|_| damaged)?;
    EntityType::parse(name).map_err(|_| damaged)
}

/// Returns the key of an entity type in [`TYPES`]. With an empty name, it is the first key of its
/// commit.
pub(super) fn type_key(tenant: &[u8], last: Version, entity: &str) -> Vec<u8> {
    [tenant, &last.number().to_be_bytes(), entity.as_bytes()].concat()
}

/// Reads the entity type of a key of [`TYPES`].
pub(super) fn type_from(tenant: &[u8], key: &[u8]) -> Option<EntityType> {
    let (_, name) = key.strip_prefix(tenant)?.split_first_chunk::<8>()?;
    EntityType::parse(std::str::from_utf8(name).ok()?).ok()
}

/// Reads the place at the end of a feed key.
pub(super) fn feed_place(key: &[u8]) -> Result<(Version, u32), Damaged> {
    let damaged = Damaged { what: "a key of the feed" };
    let place = key.last_chunk::<12>().ok_or(damaged)?;
    place_from(place).ok_or(damaged)
}

pub(super) fn place_bytes(version: Version, index: u32) -> Vec<u8> {
    [version.number().to_be_bytes().as_slice(), &index.to_be_bytes()].concat()
}

pub(super) fn place_from(bytes: &[u8]) -> Option<(Version, u32)> {
    let (commit, index) = bytes.split_first_chunk::<8>()?;
    let index = u32::from_be_bytes(index.try_into().ok()?);
    Some((Version::new(u64::from_be_bytes(*commit)), index))
}

pub(super) fn unit_key(tenant: &[u8], unit: &UnitId) -> Vec<u8> {
    [tenant, unit.as_bytes()].concat()
}

pub(super) fn unit_bytes(memory: &UnitMemory) -> Vec<u8> {
    let (commit, rest) = match &memory.fate {
        UnitFate::Applied(commit) => (*commit, Vec::new()),
        UnitFate::ChangedNothing => (Version::default(), vec![0]),
        UnitFate::Ahead => (Version::default(), vec![1]),
        UnitFate::Rejected { code, message } => {
            // All codes come from the rules and are short.
            let length = u8::try_from(code.len()).unwrap_or(0);
            let code = code.as_bytes().get(..length.into()).unwrap_or_default();
            (Version::default(), [&[2, length], code, message.as_bytes()].concat())
        }
    };
    [memory.digest.as_bytes().as_slice(), &commit.number().to_le_bytes(), &rest].concat()
}

pub(super) fn unit_from(bytes: &[u8]) -> Option<UnitMemory> {
    let (digest, commit) = bytes.split_first_chunk::<32>()?;
    let (commit, rest) = commit.split_first_chunk::<8>()?;
    let fate = match (u64::from_le_bytes(*commit), rest) {
        (0, [0]) => UnitFate::ChangedNothing,
        (0, [1]) => UnitFate::Ahead,
        (0, [2, length, texts @ ..]) => {
            let (code, message) = texts.split_at_checked(usize::from(*length))?;
            let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
            UnitFate::Rejected { code: text(code)?, message: text(message)? }
        }
        (commit, []) if commit > 0 => UnitFate::Applied(Version::new(commit)),
        _ => return None,
    };
    Some(UnitMemory { digest: Hash::from_bytes(*digest), fate })
}

pub(super) fn anchor_key(tenant: &[u8], device: &DeviceId, epoch: &Epoch) -> Vec<u8> {
    [tenant, device.as_bytes(), epoch.as_bytes()].concat()
}

pub(super) fn device_key(tenant: &[u8], device: &DeviceId) -> Vec<u8> {
    [tenant, device.as_bytes()].concat()
}

pub(super) fn hash_from(bytes: &[u8]) -> Option<Hash> {
    Some(Hash::from_bytes(bytes.try_into().ok()?))
}

/// Returns the range of keys of the heads of one epoch of a log.
pub(super) fn witnessed_range(
    tenant: &[u8],
    device: &DeviceId,
    epoch: &Epoch,
) -> (Vec<u8>, Vec<u8>) {
    let prefix = anchor_key(tenant, device, epoch);
    ([prefix.as_slice(), &[0; 8]].concat(), [prefix.as_slice(), &[0xff; 8]].concat())
}

pub(super) fn witnessed_key(tenant: &[u8], device: &DeviceId, epoch: &Epoch, seq: Seq) -> Vec<u8> {
    [anchor_key(tenant, device, epoch).as_slice(), &seq.number().to_be_bytes()].concat()
}

/// Reads the head in a row of [`WITNESSED`].
pub(super) fn witnessed_from(key: &[u8], hash: &[u8]) -> Option<Receipt> {
    let seq = Seq::new(u64::from_be_bytes(*key.last_chunk()?));
    Some(Receipt { seq, hash: hash_from(hash)? })
}

pub(super) fn anchor_bytes(anchor: &Receipt) -> Vec<u8> {
    [anchor.seq.number().to_le_bytes().as_slice(), anchor.hash.as_bytes()].concat()
}

pub(super) fn anchor_from(bytes: &[u8]) -> Option<Receipt> {
    let (seq, hash) = bytes.split_first_chunk::<8>()?;
    let hash = Hash::from_bytes(hash.try_into().ok()?);
    Some(Receipt { seq: Seq::new(u64::from_le_bytes(*seq)), hash })
}

pub(super) fn commit_from(bytes: &[u8]) -> Option<Version> {
    Some(Version::new(u64::from_le_bytes(bytes.try_into().ok()?)))
}

pub(super) fn time_from(bytes: &[u8]) -> Option<WallTime> {
    Some(WallTime::from_milliseconds(i64::from_le_bytes(bytes.try_into().ok()?)))
}

pub(super) fn seen_bytes((at, actor): (WallTime, &Actor)) -> Vec<u8> {
    [at.milliseconds().to_le_bytes().as_slice(), actor.as_str().as_bytes()].concat()
}

pub(super) fn seen_from(bytes: &[u8]) -> Option<(WallTime, Actor)> {
    let (at, actor) = bytes.split_first_chunk::<8>()?;
    let actor = Actor::parse(std::str::from_utf8(actor).ok()?).ok()?;
    Some((WallTime::from_milliseconds(i64::from_le_bytes(*at)), actor))
}

pub(super) fn usage_bytes(usage: &Usage) -> Vec<u8> {
    [usage.records, usage.bytes, usage.entity_types].map(u64::to_le_bytes).concat()
}

pub(super) fn usage_from(bytes: &[u8]) -> Option<Usage> {
    let (numbers, []) = bytes.as_chunks::<8>() else { return None };
    let [records, bytes, entity_types] = numbers.try_into().ok()?;
    let number = |bytes: [u8; 8]| u64::from_le_bytes(bytes);
    Some(Usage {
        records: number(records),
        bytes: number(bytes),
        entity_types: number(entity_types),
    })
}
