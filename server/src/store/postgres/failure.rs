//! What went wrong with the database, in words that contain no value of a statement.

use std::error::Error as _;

use deadpool_postgres::PoolError;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

/// Why a statement has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The database refuses the statement. Its text may contain values, so it is told only for the
    /// classes of codes that are about the database and not about values.
    #[error("the database answers with the code {code}{text}")]
    Refused { code: String, text: String },
    /// The connection broke, or cannot be made.
    #[error("the connection to the database fails: {0}")]
    Connection(String),
    /// Nothing came for too long.
    #[error("the database does not answer in time")]
    TooSlow,
    /// All connections are in use.
    #[error("all connections to the database are in use")]
    NoneFree,
    /// An answer of the database has another form.
    #[error("the answer of the database cannot be read: {0}")]
    Unreadable(String),
    /// The rules asked for something that was not read in advance: a fault of this program.
    #[error("the rules asked for {0}, which was not read: this is a fault of the program")]
    NotLoaded(&'static str),
    /// A newer program changed the tables while this one was running.
    #[error("a newer program has changed the tables: start this server again with that version")]
    Newer,
}

/// The classes of codes whose texts are about the database: connections, credentials, missing
/// databases and tables, resources, shut-downs.
const TOLD: [&str; 10] = ["08", "25", "28", "3D", "40", "42", "53", "55", "57", "58"];

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if let Some(refused) = error.as_db_error() {
            let code = refused.code().code().to_owned();
            let is_told = TOLD.iter().any(|class| code.starts_with(class));
            let text = if is_told { format!(": {}", refused.message()) } else { String::new() };
            return Self::Refused { code, text };
        }
        // The library's own texts name no value.
        let cause = error.source().map(ToString::to_string);
        match cause {
            Some(cause) => Self::Connection(format!("{error}: {cause}")),
            None => Self::Connection(error.to_string()),
        }
    }
}

impl From<PoolError> for Failure {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => error.into(),
            PoolError::Timeout(deadpool_postgres::TimeoutType::Wait) => Self::NoneFree,
            PoolError::Timeout(_) => Self::TooSlow,
            other => Self::Connection(other.to_string()),
        }
    }
}

impl Failure {
    /// Returns whether the database refuses with this code.
    pub(super) fn is(&self, state: &SqlState) -> bool {
        matches!(self, Self::Refused { code, .. } if code == state.code())
    }

    /// Returns whether the database asks for a password and the address has none.
    pub(super) fn is_missing_password(&self) -> bool {
        matches!(self, Self::Connection(text) if text.contains("password missing"))
    }

    /// Returns whether the connection was lost, so that a statement that changes nothing may be run
    /// again on another one.
    pub(super) fn is_lost_connection(&self) -> bool {
        match self {
            Self::Connection(_) => true,
            Self::Refused { code, .. } => code.starts_with("57P") || code.starts_with("08"),
            _ => false,
        }
    }
}
