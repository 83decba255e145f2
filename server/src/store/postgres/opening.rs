//! Why a database cannot be the store of a server.

use std::error::Error;
use std::fmt;

use tokio_postgres::error::SqlState;

use super::PostgresUrl;
use super::failure::Failure;
use super::migrations;
use crate::store::StateError;

/// Why a database cannot be the store of a server. It names the database and its host, and neither
/// the user nor the password.
#[derive(Debug)]
pub struct OpenDatabaseError {
    fault: DatabaseFault,
    at: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// The kinds of reasons for which a database cannot be a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatabaseFault {
    /// Nothing answers at the address.
    Unreachable,
    /// The user or the password is wrong.
    Credentials,
    /// There is no database of this name.
    Missing,
    /// The database has a schema `fieldbook` that this program did not make.
    NotOurs,
    /// The database has no store yet.
    Empty,
    /// A newer program changed the tables.
    Newer {
        /// The number of the last migration of the database.
        found: i32,
    },
    /// The user may not make or use the tables.
    NotAllowed,
    /// The database is a copy that cannot be written.
    Copy,
    /// The database confirms commits before they are stored.
    Unsafe,
    /// The encoding of the database is not UTF-8.
    Encoding,
    /// The database failed in another way.
    Failed,
}

/// A reason, before it is known of which database.
pub(super) enum Cause {
    Fault(DatabaseFault),
    Failed(Box<dyn Error + Send + Sync>),
}

impl OpenDatabaseError {
    /// Returns the kind of the reason.
    pub const fn fault(&self) -> DatabaseFault {
        self.fault
    }

    pub(super) fn new(url: &PostgresUrl, cause: Cause) -> Self {
        let (fault, source) = match cause {
            Cause::Fault(fault) => (fault, None),
            Cause::Failed(source) => (DatabaseFault::Failed, Some(source)),
        };
        Self { fault, at: url.to_string(), source }
    }

    /// Makes the error of a connection that was not made.
    pub(super) fn unreachable(url: &PostgresUrl, failure: Failure) -> Self {
        let is = |states: &[SqlState]| states.iter().any(|state| failure.is(state));
        let fault =
            if is(&[SqlState::INVALID_PASSWORD, SqlState::INVALID_AUTHORIZATION_SPECIFICATION])
                || failure.is_missing_password()
            {
                DatabaseFault::Credentials
            } else if is(&[SqlState::INVALID_CATALOG_NAME]) {
                DatabaseFault::Missing
            } else {
                DatabaseFault::Unreachable
            };
        Self { fault, at: url.to_string(), source: Some(Box::new(failure)) }
    }
}

impl fmt::Display for OpenDatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = &self.at;
        let last = migrations::LAST;
        match self.fault {
            DatabaseFault::Unreachable => write!(
                f,
                "cannot reach the database {at}: check that it runs and that the host and the port \
                 are right"
            ),
            DatabaseFault::Credentials => write!(
                f,
                "the database {at} refuses the user or the password: check both in its address"
            ),
            DatabaseFault::Missing => {
                write!(f, "there is no database {at}: make it, for instance with createdb")
            }
            DatabaseFault::NotOurs => write!(
                f,
                "the database {at} has a schema fieldbook that is not a server's store, and was \
                 not changed: choose another database"
            ),
            DatabaseFault::Empty => write!(
                f,
                "the database {at} has no server's store: restore one, or serve it as it is"
            ),
            DatabaseFault::Newer { found } => write!(
                f,
                "the database {at} has migration {found}, made by a newer program; this program \
                 knows {last}: use a newer one"
            ),
            DatabaseFault::NotAllowed => write!(
                f,
                "the user may not make or use the tables of the database {at}: run \
                 GRANT CREATE ON DATABASE for it, or use the user that made them"
            ),
            DatabaseFault::Copy => write!(
                f,
                "the database {at} is a copy that cannot be written: name the one that it is a \
                 copy of"
            ),
            DatabaseFault::Unsafe => write!(
                f,
                "the database {at} confirms commits before they are stored (synchronous_commit is \
                 off), so an answer could be lost: turn it on for this database or user"
            ),
            DatabaseFault::Encoding => {
                write!(f, "the database {at} has another encoding than UTF8: make one with it")
            }
            DatabaseFault::Failed => write!(f, "the database {at} cannot be opened as a store"),
        }
    }
}

impl Error for OpenDatabaseError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

impl From<DatabaseFault> for Cause {
    fn from(fault: DatabaseFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<StateError> for Cause {
    fn from(error: StateError) -> Self {
        Self::Failed(Box::new(error))
    }
}

impl From<Failure> for Cause {
    fn from(failure: Failure) -> Self {
        if failure.is(&SqlState::INSUFFICIENT_PRIVILEGE) {
            return Self::Fault(DatabaseFault::NotAllowed);
        }
        Self::Failed(Box::new(failure))
    }
}
