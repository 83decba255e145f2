//! The real client and the real server with something between them that does what things on the way
//! do: it refuses bodies by what they hold, answers with pages of its own, cuts, trickles, closes
//! connections, rewrites headers, leads to another server or puts another tenant's token in. All by
//! a seed. After it is gone everything drains without a person.
//!
//! ```text
//!   script ──draws──► books (real Book, HttpRemote) ──TCP──► box ──TCP──► real server, tenants `ours` and `theirs`
//!                                                             │    └────► another real server
//!                                                             └─► tally: what the servers really answered
//! ```
//!
//! What it is not: a simulation. Sockets, threads and the HTTP client are real, so a seed tells
//! what is drawn, and not how far a byte had come when a connection was cut. The books' and the
//! servers' clocks are told, so that no backoff costs time.

pub mod fault;
pub mod processes;
pub mod script;

mod check;
mod fleet;
mod middlebox;
mod tally;
mod wire;

pub use tally::Counts;

/// What did not hold, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub String);

impl Broken {
    /// Says that the harness itself could not go on.
    pub(crate) fn harness(what: &str, error: impl std::fmt::Display) -> Self {
        Self(format!("harness: {what}: {error}"))
    }
}

/// Checks a promise.
pub(crate) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken(what())) }
}
