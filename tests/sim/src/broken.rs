//! A broken invariant.

/// A broken invariant, by its name in the fault model (S1–S20, L1–L8), and the evidence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{invariant}: {what}")]
pub struct Broken {
    /// The invariant.
    pub invariant: &'static str,
    /// The evidence.
    pub what: String,
}

impl Broken {
    /// Makes the error for a broken invariant.
    pub fn new(invariant: &'static str, what: impl Into<String>) -> Self {
        Self { invariant, what: what.into() }
    }
}

/// Checks an invariant.
///
/// # Errors
/// [`Broken`] if the invariant is broken.
pub fn ensure(
    holds: bool,
    invariant: &'static str,
    what: impl FnOnce() -> String,
) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken::new(invariant, what())) }
}
