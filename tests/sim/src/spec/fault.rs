//! Why a case could not be run to its end.

use fieldbook::Error;
use fieldbook::error::StoreError;

/// What stopped a case.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The case asks for something that makes no sense, or was not met.
    #[error("{0}")]
    Case(String),
    /// The engine broke a promise that holds after every step.
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
