//! The server's store: one redb file for all tenants. Behind the feature `postgres` it may be a
//! database of several servers in its place ([`postgres`]); [`any`] is the seam between the two and
//! the rest of the server.
//!
//! Invariants:
//! 1. All changes of one exchange are in one durable commit: the units' effects, their ids, and the
//!    anchor. Other exchanges may share the commit.
//! 2. Reading never waits for writing: a page is read from a snapshot.
//! 3. A file under the store's name is whole: it is made under another name, synced, and then
//!    renamed.
//! 4. Invalid bytes are an error, never a guess.
//!
//! What it is not: a history. It has the present state of each record. The devices' logs show who
//! changed what.

mod any;
mod devices;
mod digests;
#[cfg(test)]
mod growth;
mod keeper;
mod layout;
mod opening;
#[cfg(feature = "postgres")]
mod postgres;
mod rounds;
mod signing;
mod state;
#[cfg(test)]
mod support;
mod tables;

use std::io;
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Arc;

use fieldbook_core::authority::{self, Accepted, Caller, ExchangeError, Quota, Refusal};
use fieldbook_core::log::{StoreError, copy_database};
use fieldbook_core::new_file::{NewFileError, new_file};
use fieldbook_core::protocol::{Change, ExchangeAnswer, ExchangeRequest};
use fieldbook_core::{
    Clock, SeededRandomness, ServerEpoch, ServerId, TenantId, Version, WallTime, limits, system,
};
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};

pub(crate) use any::AnyStore;
pub use devices::{KnownDevice, KnownLog};
pub use digests::WrongDigest;
pub(crate) use keeper::Keeper;
pub use opening::OpenStoreError;
use opening::{damaged, database_error, io_error, storage_error};
#[cfg(feature = "postgres")]
pub(crate) use postgres::Postgres;
#[cfg(feature = "postgres")]
pub use postgres::{DatabaseFault, OpenDatabaseError, PostgresUrl, PostgresUrlError};
use rounds::Rounds;
use signing::Signers;
pub use signing::{SigningKey, SigningKeyError};
use state::TenantState;

use crate::door::Turn;

/// One customer's part of the store. An exchange uses one tenant only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tenant(String);

impl Tenant {
    /// Returns the only tenant of a server without tokens.
    pub(crate) fn local() -> Self {
        Self("local".to_owned())
    }

    /// Checks a name: a lower-case letter, then at most 62 lower-case letters, digits, `_` or `-`.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        let goes_on = name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-')
        });
        (starts && goes_on && name.len() <= 63).then(|| Self(name.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the tenant's id for devices: it never changes, and it is not the tenant's name.
    pub(crate) fn id(&self, server: &ServerId) -> TenantId {
        TenantId::derive(server, &self.0)
    }
}

/// Stored bytes that are not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store is damaged: {what} cannot be read")]
pub(crate) struct Damaged {
    pub(crate) what: &'static str,
}

/// A record whose fields are not JSON.
const DAMAGED_FIELDS: Damaged = Damaged { what: "a record's fields" };

/// The error of a transaction.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("the store cannot be read or written")]
    Storage(#[source] Box<redb::Error>),
    #[error(transparent)]
    Damaged(#[from] Damaged),
    #[cfg(feature = "postgres")]
    #[error("the database cannot be read or written")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl<E: Into<redb::Error>> From<E> for StateError {
    fn from(error: E) -> Self {
        Self::Storage(Box::new(error.into()))
    }
}

/// Why an exchange has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreExchangeError {
    #[error(transparent)]
    Refused(Refusal),
    #[error(transparent)]
    State(StateError),
    /// The store failed a moment ago, and cannot be read or written yet.
    #[error("the store is being opened again, or waits for room")]
    OutOfReach,
}

impl From<ExchangeError<StateError>> for StoreExchangeError {
    fn from(error: ExchangeError<StateError>) -> Self {
        match error {
            ExchangeError::Refused(refusal) => Self::Refused(refusal),
            ExchangeError::State(error) => Self::State(error),
            ExchangeError::Damaged(_) => Self::State(DAMAGED_FIELDS.into()),
        }
    }
}

impl From<StateError> for StoreExchangeError {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

/// A request, and the facts to check it with.
#[derive(Clone, Copy)]
pub(crate) struct Incoming<'a> {
    pub(crate) tenant: &'a Tenant,
    pub(crate) request: &'a Arc<ExchangeRequest>,
    pub(crate) now: WallTime,
    pub(crate) caller: &'a Caller,
    pub(crate) quota: &'a Quota,
}

/// An open store.
pub(crate) struct Store {
    database: Database,
    identity: (ServerId, ServerEpoch),
    rounds: Rounds,
    signers: Signers,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store at a path, or makes it if there is no file.
    pub(crate) fn open(path: &Path, cache_bytes: usize) -> Result<Self, OpenStoreError> {
        let exists = path.try_exists().map_err(|source| io_error(path, source))?;
        if !exists {
            create(path)?;
        }
        Self::open_existing(path, cache_bytes)
    }

    /// Opens the store at a path. It reads and checks the whole file, so that damage is found
    /// before anything is served.
    pub(crate) fn open_existing(path: &Path, cache_bytes: usize) -> Result<Self, OpenStoreError> {
        // The engine panics on some damage.
        catch_unwind(|| Self::open_checked(path, cache_bytes)).unwrap_or_else(|_| {
            let source = Box::new(Damaged { what: "a page" });
            Err(OpenStoreError::Damaged { path: path.to_owned(), source })
        })
    }

    fn open_checked(path: &Path, cache_bytes: usize) -> Result<Self, OpenStoreError> {
        let database = redb::Builder::new()
            .set_cache_size(cache_bytes)
            .set_check_integrity_on_open(true)
            .open(path)
            .map_err(|error| database_error(path, error))?;
        Self::on_database(database, path)
    }

    fn on_database(database: Database, path: &Path) -> Result<Self, OpenStoreError> {
        let identity = identify(&database, path)?;
        let signers = Signers::read(&database).map_err(|error| storage_error(path, error))?;
        Ok(Self { database, identity, rounds: Rounds::new(), signers })
    }

    /// Makes the first key in a store from before there were keys. A store that cannot be written
    /// still answers, and its receipts have no signature.
    pub(crate) fn make_key_if_missing(&mut self) {
        if !self.signers.is_empty() {
            return;
        }
        let made = || -> Result<Signers, StateError> {
            let transaction = self.database.begin_write()?;
            let now = system::SystemClock::new().now().wall;
            signing::make_first(&transaction, &self.identity.0, now, &mut randomness()?)?;
            transaction.commit()?;
            Signers::read(&self.database)
        };
        match made() {
            Ok(signers) => self.signers = signers,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "the store has no key, so receipts are not signed");
            }
        }
    }

    /// Returns the public keys that sign receipts.
    pub(crate) fn verifiers(&self) -> Vec<String> {
        self.signers.verifiers()
    }

    /// Returns the keys that sign receipts, oldest first.
    pub(crate) fn signing_keys(&self) -> Result<Vec<SigningKey>, SigningKeyError> {
        signing::list(&self.database)
    }

    /// Adds a key that signs receipts from the next start on.
    pub(crate) fn add_signing_key(&self, name: &str) -> Result<SigningKey, SigningKeyError> {
        let now = system::SystemClock::new().now().wall;
        signing::add(&self.database, name, now, &mut randomness()?)
    }

    /// Retires a key from the next start on.
    pub(crate) fn retire_signing_key(&self, id: &str) -> Result<SigningKey, SigningKeyError> {
        signing::retire(&self.database, id)
    }

    /// Copies the store, as its last commit left it, into a new file, and returns the number of
    /// rows. Nobody waits for it.
    pub(crate) fn backup(&self, path: &Path) -> Result<u64, StoreError> {
        let snapshot =
            self.database.begin_read().map_err(StoreError::during("making the backup"))?;
        copy_database(&snapshot, path, &mut |_, _| {})
    }

    /// Starts a new epoch of the store: another epoch id, no anchors, and commit numbers above
    /// every number that the former epoch can have used. So a unit made for a version of that epoch
    /// never meets another state under the same number.
    pub(crate) fn start_epoch(&mut self) -> Result<(), StateError> {
        let (server, epoch) = (self.identity.0, ServerEpoch::random(&mut randomness()?));
        let transaction = self.database.begin_write()?;
        transaction.open_table(tables::ANCHORS)?.retain(|_, _| false)?;
        {
            let mut tenants = transaction.open_table(tables::TENANTS)?;
            let mut next = Vec::new();
            for row in tenants.iter()? {
                let (tenant, commit) = row?;
                let commit = tables::commit_from(commit.value())
                    .ok_or(Damaged { what: "a tenant's last commit" })?;
                let after = commit.number().saturating_add(limits::EPOCH_COMMITS);
                next.push((tenant.value().to_owned(), commit, Version::new(after)));
            }
            for (tenant, _, after) in &next {
                tenants.insert(tenant.as_slice(), after.number().to_le_bytes().as_slice())?;
            }
            digests::follow_epoch(&transaction, &next)?;
        }
        put_identity(&transaction, (server, epoch))?;
        transaction.commit()?;
        self.identity = (server, epoch);
        Ok(())
    }

    /// Returns the server's id and epoch.
    pub(crate) const fn identity(&self) -> (ServerId, ServerEpoch) {
        self.identity
    }

    /// Anchors a request's head and applies its units, durably. A request without writes does not
    /// wait. A request with writes lends its turn, if it has one, while it waits for its commit.
    pub(crate) fn accept(
        &self,
        incoming: Incoming<'_>,
        turn: Option<&Turn>,
    ) -> Result<Accepted, StoreExchangeError> {
        let Incoming { tenant, request, caller, quota, .. } = incoming;
        let without_writing = {
            let snapshot = self.database.begin_read().map_err(StateError::from)?;
            let state = TenantState::read(&snapshot, tenant, self.identity)?;
            authority::accept_without_writing(&state, request, caller, quota)?
        };
        match without_writing {
            Some(accepted) => Ok(accepted),
            None => self.rounds.accept(&self.database, self.identity, incoming, turn),
        }
    }

    /// Answers a request with the present store: after the commit, and without delaying others. It
    /// passes each change of the page on when it is read. The returned answer does not contain the
    /// changes.
    pub(crate) fn answer(
        &self,
        incoming: Incoming<'_>,
        accepted: Accepted,
        take: impl FnMut(Change),
    ) -> Result<ExchangeAnswer, StoreExchangeError> {
        let Incoming { tenant, request, now, quota, .. } = incoming;
        let snapshot = self.database.begin_read().map_err(StateError::from)?;
        let state = TenantState::read(&snapshot, tenant, self.identity)?;
        let answer = authority::answer_by_change(&state, request, now, quota, accepted, take)?;
        let signed = self.signers.sign(request, &answer);
        Ok(ExchangeAnswer { signed, ..answer })
    }

    /// Closes the file, so that the next opening is quick.
    pub(crate) fn close(self) -> Result<(), StateError> {
        Ok(self.database.close()?)
    }
}

/// Makes the file: its tables, and its identity.
fn create(path: &Path) -> Result<(), OpenStoreError> {
    let fill = |file| -> Result<(), StateError> {
        let database = redb::Builder::new().create_with_backend(FileBackend::new(file)?)?;
        fill_database(&database)?;
        Ok(database.close()?)
    };
    match new_file(path, fill) {
        // Another process made the file at the same moment, and its file is used.
        Ok(()) | Err(NewFileError::Exists) => Ok(()),
        Err(NewFileError::Filling(error)) => Err(storage_error(path, error)),
        Err(NewFileError::Folder { source, .. } | NewFileError::Disk { source, .. }) => {
            Err(io_error(path, source))
        }
        Err(_) => Err(io_error(path, io::ErrorKind::Other.into())),
    }
}

fn fill_database(database: &Database) -> Result<(), StateError> {
    let mut random = randomness()?;
    let identity = (ServerId::random(&mut random), ServerEpoch::random(&mut random));
    let transaction = database.begin_write()?;
    for table in [
        tables::RECORDS,
        tables::FEED,
        tables::UNITS,
        tables::ANCHORS,
        tables::TENANTS,
        tables::DIGESTS,
    ] {
        drop(transaction.open_table(table)?);
    }
    put_identity(&transaction, identity)?;
    let now = system::SystemClock::new().now().wall;
    signing::make_first(&transaction, &identity.0, now, &mut random)?;
    Ok(transaction.commit()?)
}

fn put_identity(
    transaction: &WriteTransaction,
    identity: (ServerId, ServerEpoch),
) -> Result<(), StateError> {
    let row = [[tables::FORMAT].as_slice(), identity.0.as_bytes(), identity.1.as_bytes()].concat();
    transaction.open_table(tables::STORE)?.insert(tables::STORE_KEY, row.as_slice())?;
    Ok(())
}

/// Returns the system's randomness.
fn randomness() -> Result<SeededRandomness, StateError> {
    Ok(system::randomness().map_err(redb::StorageError::Io)?)
}

/// Reads the identity of a store.
fn identify(database: &Database, path: &Path) -> Result<(ServerId, ServerEpoch), OpenStoreError> {
    let not_a_store = || OpenStoreError::NotAStore { path: path.to_owned() };
    let transaction = database.begin_read().map_err(|error| storage_error(path, error.into()))?;
    let table = match transaction.open_table(tables::STORE) {
        Ok(table) => table,
        Err(redb::TableError::Storage(error)) => return Err(storage_error(path, error.into())),
        Err(_) => return Err(not_a_store()),
    };
    let row = table.get(tables::STORE_KEY).map_err(|error| storage_error(path, error.into()))?;
    let row = row.ok_or_else(not_a_store)?;
    let unreadable = || damaged(path, Damaged { what: "what the store is" });
    let (format, ids) = row.value().split_first().ok_or_else(unreadable)?;
    if *format < tables::FORMAT {
        return Err(OpenStoreError::OlderFormat { path: path.to_owned(), found: *format });
    }
    if *format != tables::FORMAT {
        return Err(OpenStoreError::NewerFormat { path: path.to_owned(), found: *format });
    }
    let (server, epoch) = ids.split_first_chunk::<16>().ok_or_else(unreadable)?;
    let epoch = epoch.try_into().map_err(|_| unreadable())?;
    Ok((ServerId::from_bytes(*server), ServerEpoch::from_bytes(epoch)))
}
