//! Failures of a play: what failed, why, and what to do.

use std::error::Error;

/// A play that could not begin or not continue.
///
/// A play that ends with a wrong result is no failure: its [`Report`](crate::Report) has the
/// faults.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    /// What failed, in a line.
    pub what: String,
    /// The cause, if there is one.
    pub source: Option<Box<dyn Error + Send + Sync>>,
    /// What to do, in a line.
    pub hint: Option<&'static str>,
    /// Whether the call is wrong, such as one with an address that is not valid.
    pub is_usage: bool,
}

impl Failure {
    /// Makes a failure of a play.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None, hint: None, is_usage: false }
    }

    /// Makes a failure of a wrong call.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { is_usage: true, ..Self::new(what) }
    }

    /// Adds the cause.
    #[must_use]
    pub(crate) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub(crate) const fn hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }
}
