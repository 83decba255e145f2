//! Comparisons: what each question needs, read in one statement.

use fieldbook_core::authority::{self, Caller, Compared, ExchangeError, Quota};
use fieldbook_core::digest::{Digest, Part};
use fieldbook_core::entry::Receipt;
use fieldbook_core::protocol::{Ask, CompareRequest, InParts};
use fieldbook_core::{Epoch, RecordKey, Seq, Version, WallTime, limits};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::connections::{Values, value};
use super::load::{add_contents, from_key, record_values, tenant_value};
use super::loaded::{Found, Heads, Loaded, LoadedError};
use super::{Postgres, rows, statements};
use crate::store::{Damaged, StateError, StoreExchangeError, Tenant, tables};

impl Postgres {
    /// Answers a request for a comparison. It costs one round trip, and one more for each
    /// [`CONTENT_BYTES`](super::load::CONTENT_BYTES) of records that are asked for.
    pub(crate) fn compare(
        &self,
        tenant: &Tenant,
        request: &CompareRequest,
        now: WallTime,
        (caller, quota): (&Caller, &Quota),
    ) -> Result<Compared, StoreExchangeError> {
        let (sql, values) = question(tenant, request, self.amounts.content_bytes);
        let row = self.ask(tenant, sql, &values)?;
        let mut loaded = read(&row, tenant, request)?;
        loop {
            let compared = authority::compare(&loaded, request, now, caller, quota);
            let key = match compared {
                Err(ExchangeError::State(LoadedError::ContentNeeded(key))) => key,
                other => return Ok(other?),
            };
            let Ask::Records(keys) = &request.ask else {
                return Err(StateError::from(LoadedError::NotLoaded("a record")).into());
            };
            let rest = from_key(keys, &key).map_err(StateError::from)?;
            let row = self.ask(
                tenant,
                statements::RECORDS,
                &record_values(tenant, rest, self.amounts.content_bytes),
            )?;
            add_contents(&mut loaded, &row, rest)?;
        }
    }
}

fn question(tenant: &Tenant, request: &CompareRequest, most: i64) -> (&'static str, Values) {
    match &request.ask {
        Ask::Digests => (statements::DIGESTS, vec![tenant_value(tenant)]),
        Ask::Parts(InParts { entity, parts, after: None }) if *parts == [Part::ALL] => {
            let entity = value(entity.as_str().to_owned(), Type::TEXT);
            (statements::PARTS, vec![tenant_value(tenant), entity])
        }
        Ask::Parts(asked) | Ask::Versions(asked) => {
            let after = asked.after.as_ref().map_or("", |id| id.as_str()).to_owned();
            let most = limits::COMPARE_LOOKED_AT as i64 + 1;
            let values = vec![
                tenant_value(tenant),
                value(asked.entity.as_str().to_owned(), Type::TEXT),
                value(after, Type::TEXT),
                value(most, Type::INT8),
            ];
            (statements::VERSIONS, values)
        }
        Ask::Records(keys) => (statements::RECORDS, record_values(tenant, named(keys), most)),
        Ask::Heads => {
            let values = vec![
                tenant_value(tenant),
                value(request.device.as_bytes().to_vec(), Type::BYTEA),
                value(request.epoch.as_bytes().to_vec(), Type::BYTEA),
                value(HEADS_READ, Type::INT8),
            ];
            (statements::HEADS, values)
        }
    }
}

/// The heads that are read: all of the epochs that an answer lists, and one of another.
const HEADS_READ: i64 = (limits::EPOCHS_LISTED * (limits::ANCHORS_KEPT + 1)) as i64 + 1;

/// Returns the keys that are looked up: a question with more is refused.
fn named(keys: &[RecordKey]) -> &[RecordKey] {
    keys.get(..limits::COMPARE_NAMED).unwrap_or(keys)
}

fn read(row: &Row, tenant: &Tenant, request: &CompareRequest) -> Result<Loaded, StateError> {
    let mut loaded = Loaded::new(rows::top(row, tenant)?);
    match &request.ask {
        Ask::Digests => {
            let names = rows::list::<&str>(row, "entities")?;
            let commits = rows::list::<i64>(row, "commits")?;
            let digests = rows::list::<&[u8]>(row, "digests")?;
            rows::aligned(names.len(), &[commits.len(), digests.len()])?;
            let mut all = Vec::with_capacity(names.len());
            for ((name, commit), digest) in names.into_iter().zip(commits).zip(digests) {
                let last = Version::new(rows::number(commit)?);
                all.push((rows::entity(name)?, last, rows::digest(digest)?));
            }
            loaded.all_entities = Some(all);
        }
        Ask::Parts(InParts { entity, parts, after: None }) if *parts == [Part::ALL] => {
            let mut all = vec![Digest::default(); 256];
            let places = rows::list::<i16>(row, "parts")?;
            let digests = rows::list::<&[u8]>(row, "digests")?;
            rows::aligned(places.len(), &[digests.len()])?;
            for (place, digest) in places.into_iter().zip(digests) {
                let place = usize::try_from(place).ok().and_then(|place| all.get_mut(place));
                *place.ok_or(Damaged { what: "a part" })? = rows::digest(digest)?;
            }
            loaded.all_parts = Some((entity.clone(), all));
        }
        Ask::Parts(asked) | Ask::Versions(asked) => read_versions(&mut loaded, row, asked)?,
        Ask::Records(keys) => {
            loaded.records.extend(rows::records(row, named(keys))?);
        }
        Ask::Heads => loaded.heads = Some((request.device, read_heads(row)?)),
    }
    Ok(loaded)
}

fn read_heads(row: &Row) -> Result<Heads, StateError> {
    const DAMAGED: Damaged = Damaged { what: "a head that was known" };
    let epochs = rows::list::<&[u8]>(row, "epochs")?;
    let seqs = rows::list::<i64>(row, "seqs")?;
    let hashes = rows::list::<&[u8]>(row, "hashes")?;
    rows::aligned(epochs.len(), &[seqs.len(), hashes.len()])?;
    let mut heads = Heads::new();
    for ((epoch, seq), hash) in epochs.into_iter().zip(seqs).zip(hashes) {
        let epoch = <[u8; 16]>::try_from(epoch).map_err(|_| DAMAGED)?;
        let seq = Seq::new(rows::number(seq)?);
        let hash = tables::hash_from(hash).ok_or(DAMAGED)?;
        heads.entry(Epoch::from_bytes(epoch)).or_default().push(Receipt { seq, hash });
    }
    Ok(heads)
}

fn read_versions(loaded: &mut Loaded, row: &Row, asked: &InParts) -> Result<(), StateError> {
    let ids = rows::list::<&str>(row, "ids")?;
    let commits = rows::list::<i64>(row, "commits")?;
    let indexes = rows::list::<i32>(row, "indexes")?;
    let sizes = rows::list::<i32>(row, "sizes")?;
    let glances = rows::list::<&[u8]>(row, "glances")?;
    rows::aligned(ids.len(), &[commits.len(), indexes.len(), sizes.len(), glances.len()])?;
    let mut versions = Vec::with_capacity(ids.len());
    let places = commits.into_iter().zip(indexes).zip(sizes.into_iter().zip(glances));
    for (id, (at, (size, glance))) in ids.into_iter().zip(places) {
        let (id, place) = (rows::id(id)?, rows::place(at, size, glance)?);
        versions.push((id.clone(), place.version));
        let key = RecordKey::new(asked.entity.clone(), id);
        loaded.records.insert(key, Some(Found { place, content: None }));
    }
    loaded.versions = Some((asked.entity.clone(), versions));
    Ok(())
}
