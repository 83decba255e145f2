//! What an operator does with a store while no server has it open.

use std::path::Path;

use fieldbook_core::ServerEpoch;

use crate::ServeError;
use crate::store::{KnownDevice, SigningKey, SigningKeyError, Store, WrongDigest};

/// Declares that a store was restored from a backup: the store begins a new epoch. Without this
/// call, devices that have read or sent more than the backup has are refused, and other devices
/// could take a new state for a state that they know.
///
/// Every device then shows that another server epoch answered, and continues once its user has
/// accepted it. Devices offer again the records that the backup lacks. Returns the new epoch.
///
/// # Errors
/// [`ServeError::Store`] if there is no such store, if a server has it open, or if it cannot be
/// written. The store then does not change.
pub fn declare_restored(data: &Path) -> Result<ServerEpoch, ServeError> {
    let mut store = Store::open_existing(data, FEW_PAGES)?;
    let failed = |source| ServeError::NotRestored { source: Box::new(source) };
    store.start_epoch().map_err(failed)?;
    let (_, epoch) = store.identity();
    store.close().map_err(failed)?;
    Ok(epoch)
}

/// The same as [`declare_restored`] for a store in a database that was restored by the tools of the
/// database. Call it while no server uses the database.
///
/// # Errors
/// [`ServeError::Database`] if there is no such store, or if it cannot be written.
#[cfg(feature = "postgres")]
pub async fn declare_database_restored(
    database: &crate::PostgresUrl,
) -> Result<ServerEpoch, ServeError> {
    Ok(crate::store::Postgres::start_epoch(database).await?)
}

/// Counts the records of a store, and returns the digests that differ from them; none in a sound
/// store. The digests of a store from before there were digests are counted first.
///
/// # Errors
/// [`ServeError::Store`] if there is no such store, if a server has it open, or if it is damaged;
/// [`ServeError::NotChecked`] if its records cannot be read.
pub fn check_digests(data: &Path) -> Result<Vec<WrongDigest>, ServeError> {
    let store = Store::open_existing(data, FEW_PAGES)?;
    let failed = |source| ServeError::NotChecked { source: Box::new(source) };
    let wrong = store.wrong_digests().map_err(failed)?;
    store.close().map_err(failed)?;
    Ok(wrong)
}

/// Returns the devices that a store knows, of all tenants: those that claimed a head of their log.
/// The file may be a backup of a store that is served.
///
/// # Errors
/// [`ServeError::Store`] if there is no such store, if a server has it open, or if it is damaged;
/// [`ServeError::NotChecked`] if its rows cannot be read.
pub fn known_devices(data: &Path) -> Result<Vec<KnownDevice>, ServeError> {
    let store = Store::open_existing(data, FEW_PAGES)?;
    let failed = |source| ServeError::NotChecked { source: Box::new(source) };
    let devices = store.devices().map_err(failed)?;
    store.close().map_err(failed)?;
    Ok(devices)
}

/// Returns the keys with which a store's server signs receipts, oldest first. A store from before
/// there were keys has none until its next start.
///
/// # Errors
/// [`ServeError::Store`] if there is no such store, or if a server has it open;
/// [`ServeError::Keys`] if the keys cannot be read.
pub fn signing_keys(data: &Path) -> Result<Vec<SigningKey>, ServeError> {
    with_store(data, |store| store.signing_keys())
}

/// Adds a key that signs receipts from the next start on, beside those that sign already. Its name
/// should be the host of the server.
///
/// # Errors
/// [`ServeError::Store`] as for [`signing_keys`]; [`ServeError::Keys`] for another name, or if the
/// store cannot be written.
pub fn add_signing_key(data: &Path, name: &str) -> Result<SigningKey, ServeError> {
    with_store(data, |store| store.add_signing_key(name))
}

/// Retires a key: it signs nothing more from the next start on. Receipts by it stay as good as they
/// are.
///
/// # Errors
/// [`ServeError::Store`] as for [`signing_keys`]; [`ServeError::Keys`] for an unknown id, for the
/// only key that signs, or if the store cannot be written.
pub fn retire_signing_key(data: &Path, id: &str) -> Result<SigningKey, ServeError> {
    with_store(data, |store| store.retire_signing_key(id))
}

fn with_store<T>(
    data: &Path,
    work: impl FnOnce(&Store) -> Result<T, SigningKeyError>,
) -> Result<T, ServeError> {
    let store = Store::open_existing(data, FEW_PAGES)?;
    let done = work(&store)?;
    store.close().map_err(|source| ServeError::Close { source: Box::new(source) })?;
    Ok(done)
}

/// Room for the pages of a command that touches few of them.
const FEW_PAGES: usize = 4 * 1024 * 1024;
