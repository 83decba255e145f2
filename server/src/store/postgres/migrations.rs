//! Makes the tables, and brings older ones up to date. The migrations are numbered, and a part of the
//! program.
//!
//! ```text
//!   no schema ──► made            a schema of ours ──► the missing migrations, each once
//!   a newer one ──► refused       a schema of somebody else ──► refused, unchanged
//! ```
//!
//! Invariants:
//! 1. All migrations run in one transaction, under a lock: of several servers that start at the same
//!    time one makes the tables.
//! 2. A database that is refused is not changed.

use fieldbook_core::note::Ed25519Key;
use fieldbook_core::{ServerEpoch, ServerId};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::connections::{Lent, value};
use super::keys;
use super::opening::{Cause, DatabaseFault};
use super::rows::{self, column};
use crate::store::randomness;

/// The migrations, in order.
const ALL: [(i32, &str); LAST as usize] = [(1, include_str!("migrations/0001.sql"))];

/// The number of the last migration that this program knows.
pub(super) const LAST: i32 = 1;

/// It reads the tables of the catalogue: the functions for it answer from a cache, which does not
/// know what another server made while this one waited.
const LOOK: &str = "select current_setting('server_encoding') as encoding, \
     current_setting('synchronous_commit') as confirms, current_setting('fsync') as syncs, \
     pg_is_in_recovery() as is_copy, \
     exists (select from pg_catalog.pg_namespace n where n.nspname = 'fieldbook') as has_schema, \
     exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n \
     on n.oid = c.relnamespace where n.nspname = 'fieldbook' and c.relname = 'store') as has_store";
/// The number of the lock has no meaning but to be the same in every server.
const ALONE: &str = "begin; select pg_advisory_xact_lock(6172430199)";
const STORE: &str = "select s.server, s.epoch, s.migration from fieldbook.store s";
const MAKE_STORE: &str = "insert into fieldbook.store \
     (server, epoch, epoch_number, migration) values ($1, $2, 0, 0)";
const START_EPOCH: &str =
    "update fieldbook.store set epoch = $1, epoch_number = epoch_number + 1 returning epoch";
const SET_MIGRATION: &str = "update fieldbook.store set migration = $1";

/// What a database of ours is.
pub(super) struct Opened {
    pub(super) identity: (ServerId, ServerEpoch),
    pub(super) keys: Vec<Ed25519Key>,
}

/// Checks a database, makes or updates its tables, and reads what the store is.
pub(super) async fn open(lent: &mut Lent) -> Result<Opened, Cause> {
    let found = look(lent).await?;
    if found != Some(LAST) {
        lent.run(ALONE).await?;
        // Another server may have made the tables meanwhile.
        let found = look(lent).await?;
        update(lent, found).await?;
        lent.run("commit").await?;
        lent.ended();
    }
    let row = lent.ask(STORE, &Vec::new()).await?;
    let identity = rows::identity(&row)?;
    Ok(Opened { identity, keys: keys::signing(lent).await? })
}

/// Gives the store a new epoch. A database without tables is not changed.
pub(super) async fn start_epoch(lent: &mut Lent) -> Result<ServerEpoch, Cause> {
    if look(lent).await?.is_none() {
        return Err(DatabaseFault::Empty.into());
    }
    let epoch = ServerEpoch::random(&mut randomness()?);
    lent.ask(START_EPOCH, &vec![value(epoch.as_bytes().to_vec(), Type::BYTEA)]).await?;
    Ok(epoch)
}

/// Returns the last migration of the database; none if it has no tables of ours.
async fn look(lent: &mut Lent) -> Result<Option<i32>, Cause> {
    let row = lent.read(LOOK, &Vec::new()).await?;
    if column::<&str>(&row, "encoding")? != "UTF8" {
        return Err(DatabaseFault::Encoding.into());
    }
    if column::<bool>(&row, "is_copy")? {
        return Err(DatabaseFault::Copy.into());
    }
    if column::<&str>(&row, "confirms")? == "off" {
        return Err(DatabaseFault::Unsafe.into());
    }
    if column::<&str>(&row, "syncs")? == "off" {
        tracing::warn!("the database has fsync = off: a loss of power can lose what was confirmed");
    }
    let has_schema: bool = column(&row, "has_schema")?;
    if !column::<bool>(&row, "has_store")? {
        return if has_schema { Err(DatabaseFault::NotOurs.into()) } else { Ok(None) };
    }
    let store = lent.rows(STORE, &Vec::new()).await;
    lent.ended();
    let store = match store {
        // The table has the name of ours and other columns.
        Err(failure) if failure.is(&SqlState::UNDEFINED_COLUMN) => {
            return Err(DatabaseFault::NotOurs.into());
        }
        other => other?,
    };
    let row = store.first().ok_or(DatabaseFault::NotOurs)?;
    let migration = column(row, "migration").map_err(|_| DatabaseFault::NotOurs)?;
    if migration > LAST {
        Err(DatabaseFault::Newer { found: migration }.into())
    } else {
        Ok(Some(migration))
    }
}

/// Runs the missing migrations in the present transaction.
async fn update(lent: &mut Lent, found: Option<i32>) -> Result<(), Cause> {
    for (number, text) in ALL.iter().filter(|(number, _)| found.is_none_or(|found| found < *number))
    {
        lent.run(text).await?;
        if *number == 1 {
            make_store(lent).await?;
        }
        lent.rows(SET_MIGRATION, &vec![value(*number, Type::INT4)]).await?;
        tracing::info!(number, "the tables of the database were brought to this migration");
    }
    Ok(())
}

async fn make_store(lent: &mut Lent) -> Result<(), Cause> {
    let mut random = randomness()?;
    let (server, epoch) = (ServerId::random(&mut random), ServerEpoch::random(&mut random));
    let values = vec![
        value(server.as_bytes().to_vec(), Type::BYTEA),
        value(epoch.as_bytes().to_vec(), Type::BYTEA),
    ];
    lent.rows(MAKE_STORE, &values).await?;
    keys::make_first(lent, &server, &mut random).await?;
    Ok(())
}
