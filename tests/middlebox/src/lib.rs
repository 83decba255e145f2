//! The real client and the real server with a box between them that acts like faulty devices of a
//! network. It refuses bodies by content, answers with its own pages, cuts and slows answers,
//! closes connections, rewrites headers, leads requests to another server, or replaces the token by
//! that of another tenant. A seed determines its faults. Once the faults end, everything drains
//! without a person.
//!
//! ```text
//!   script ──draws──► books (real Book, HttpRemote) ──TCP──► box ──TCP──► real server, tenants `ours` and `theirs`
//!                                                             │    └────► another real server
//!                                                             └─► tally: what the servers really answered
//! ```
//!
//! What it is not: a simulation. Sockets, threads and the HTTP client are real. So a seed
//! determines the drawn faults, but not how many bytes had arrived when a connection was cut. The
//! run sets the clocks of the books and the servers, so that no backoff costs time.

pub mod fault;
pub mod processes;
pub mod script;

mod check;
mod fleet;
mod middlebox;
mod tally;
mod wire;

pub use tally::Counts;

/// A broken promise, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub String);

impl Broken {
    /// Makes the error of a harness that cannot go on.
    pub(crate) fn harness(what: &str, error: impl std::fmt::Display) -> Self {
        Self(format!("harness: {what}: {error}"))
    }
}

/// Checks a promise.
pub(crate) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken(what())) }
}
