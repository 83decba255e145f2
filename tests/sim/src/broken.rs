//! An invariant that did not hold.

/// An invariant that did not hold, by the name it has in the fault model (S1–S20, L1–L8), and how that shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{invariant}: {what}")]
pub struct Broken {
    /// The invariant.
    pub invariant: &'static str,
    /// How it shows.
    pub what: String,
}

impl Broken {
    /// Says that an invariant does not hold.
    pub fn new(invariant: &'static str, what: impl Into<String>) -> Self {
        Self { invariant, what: what.into() }
    }
}

/// Checks an invariant.
///
/// # Errors
/// [`Broken`] if it does not hold.
pub fn ensure(holds: bool, invariant: &'static str, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken::new(invariant, what())) }
}
