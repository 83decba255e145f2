//! The reasons why a case is not run to its end.

use fieldbook::Error;
use fieldbook::error::StoreError;

/// The reason why a case stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// A step of the case makes no sense, or its expectation was not met.
    #[error("{0}")]
    Case(String),
    /// The engine broke an invariant that is checked after every step.
    #[error("broken: {0}")]
    Broken(String),
    /// The book failed.
    #[error("the book failed: {0}")]
    Book(#[from] Error),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Book(error.into())
    }
}
