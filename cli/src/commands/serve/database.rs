//! The address of a database, as a person names it: a flag, a file, or the environment.
//!
//! Invariant: nothing of an address is printed or logged before it is read, because it may have a
//! password anywhere.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use fieldbook_server::PostgresUrl;

use crate::error::Failure;

/// The variable with the address, so that it is in no list of processes.
const VARIABLE: &str = "FIELDBOOK_STORE";

/// An address that is not read yet.
#[derive(Clone, serde::Deserialize)]
#[serde(transparent)]
pub(super) struct Address(String);

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address")
    }
}

impl FromStr for Address {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

/// What names a database.
#[derive(Debug, Clone, Default)]
pub(super) struct Database {
    pub(super) store: Option<Address>,
    pub(super) store_file: Option<PathBuf>,
}

impl Database {
    /// Returns the database; none if a file is named, or nothing. The environment counts last.
    pub(super) fn url(&self, has_file: bool) -> Result<Option<PostgresUrl>, Failure> {
        let read = match (&self.store, &self.store_file) {
            (Some(Address(text)), None) => PostgresUrl::parse(text),
            (None, Some(path)) => PostgresUrl::read(path),
            (Some(_), Some(_)) => {
                return Err(Failure::usage(
                    "name the database with --store or --store-file, not both",
                ));
            }
            (None, None) if has_file => return Ok(None),
            (None, None) => match std::env::var(VARIABLE) {
                Ok(text) if !text.is_empty() => PostgresUrl::parse(&text),
                _ => return Ok(None),
            },
        };
        read.map(Some).map_err(Failure::caused_by)
    }
}
