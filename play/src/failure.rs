//! Why a play could not be made or go on: what, why, and what to do about it.

use std::error::Error;

/// A play that could not begin or not go on.
///
/// A play that ends and does not hold is no failure: its [`Report`](crate::Report) says so.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    /// What could not be done, in a line.
    pub what: String,
    /// Why, if something else caused it.
    pub source: Option<Box<dyn Error + Send + Sync>>,
    /// What to do about it, in a line.
    pub hint: Option<&'static str>,
    /// Whether what was asked makes no sense, such as an address that is none.
    pub is_usage: bool,
}

impl Failure {
    /// Says what could not be done.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None, hint: None, is_usage: false }
    }

    /// Says what is wrong with the call itself.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { is_usage: true, ..Self::new(what) }
    }

    /// Says why.
    #[must_use]
    pub(crate) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub(crate) const fn hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }
}
