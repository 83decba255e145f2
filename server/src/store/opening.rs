//! The reasons why a store does not open: it turns the engine's error into a statement about the
//! file.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use redb::DatabaseError;

use super::{StateError, tables};

/// Why a store cannot be opened or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenStoreError {
    /// Another process has the store open.
    #[error("the store {path:?} is already open: stop the other server first")]
    AlreadyOpen {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a store.
    #[error("{path:?} is not a fieldbook server's store: choose another path")]
    NotAStore {
        /// The file.
        path: PathBuf,
    },
    /// The file was a store, or is a part of one.
    #[error(
        "{path:?} is a damaged or incomplete copy of a fieldbook server's store, and was not changed: \
         restore a whole copy (made while the server was stopped), then run: fieldbook restored STORE"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The damage that was found.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A newer program made the store.
    #[error(
        "the store {path:?} has format {found}; this program knows {}: use a newer one",
        tables::FORMAT
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u8,
    },
    /// A program from before the first release made the store.
    #[error(
        "the store {path:?} has format {found}, made by a version before the first release; this program knows {}: \
         begin a new store, and let the devices offer what they have",
        tables::FORMAT
    )]
    OlderFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u8,
    },
    /// The file or its folder cannot be read or written.
    #[error("cannot open the store {path:?}: check that its folder exists and may be written to")]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

pub(super) fn damaged(
    path: &Path,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> OpenStoreError {
    OpenStoreError::Damaged { path: path.to_owned(), source: source.into() }
}

pub(super) fn io_error(path: &Path, source: io::Error) -> OpenStoreError {
    OpenStoreError::Io { path: path.to_owned(), source: Box::new(source) }
}

pub(super) fn storage_error(path: &Path, source: StateError) -> OpenStoreError {
    OpenStoreError::Io { path: path.to_owned(), source: Box::new(source) }
}

pub(super) fn database_error(path: &Path, error: DatabaseError) -> OpenStoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenStoreError::AlreadyOpen { path: path.to_owned() },
        error if tells_of_damage(&error) && begins_as_a_store(path) => damaged(path, error),
        error if tells_of_damage(&error) => OpenStoreError::NotAStore { path: path.to_owned() },
        error => storage_error(path, error.into()),
    }
}

/// Returns whether the engine's error is about wrong bytes, not about failing to read them.
fn tells_of_damage(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::Storage(redb::StorageError::Corrupted(_))
        | DatabaseError::UpgradeRequired(_)
        | DatabaseError::RepairAborted => true,
        // The file has no magic number, or ends too early.
        DatabaseError::Storage(redb::StorageError::Io(error)) => {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}

/// The first bytes of each file of the engine.
const MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";

/// Returns whether a file begins like a file of the engine, however short it is.
fn begins_as_a_store(path: &Path) -> bool {
    let mut start = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut start));
    read.is_ok() && !start.is_empty() && MAGIC.starts_with(&start)
}
