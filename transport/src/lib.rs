//! How a book reaches its server: the [`Remote`] trait, HTTP, an in-process remote for tests, and the exchange loop.
//!
//! ```text
//!   Worker ── wakes ──▶ run ── prepare / accept / fail ──▶ Desk (the book; each call one durable commit)
//!                        │
//!                        └── exchange ──▶ Remote ── HttpRemote ──▶ POST {origin}/v1/exchange
//! ```
//!
//! Invariants:
//! 1. Nothing that matters lives only in a future: whatever is dropped at an await, the book holds what it had
//!    committed, and the next run goes on from there.
//! 2. What leaves was frozen durably by [`Desk::prepare`] before; what an answer says is taken in by one
//!    [`Desk::accept`], in one commit, only after the answer was read whole.
//! 3. Every loop, wait, body and retry here has a bound.
//! 4. No token, payload or full URL stands in an error, a `Debug` form or a log line.
//!
//! What it is not: it decides nothing about records, units or conflicts, and knows neither the log nor the tables.

mod background;
mod credentials;
#[cfg(feature = "http")]
mod http;
mod memory;
mod remote;
mod run;

pub use background::{Handle, Worker, WorkerError, WorkerOptions};
pub use credentials::{Credentials, NoCredentials, Secret, StaticToken};
#[cfg(feature = "http")]
pub use http::{HttpOptions, HttpRemote, InvalidOrigin, ProxyUse, Redirected, SetUpError, Unparsable};
pub use memory::FnRemote;
pub use remote::{BoxFuture, Received, Remote, RemoteError};
pub use run::{
    Activity, Ask, Budget, Desk, Limit, MOST_EXCHANGES, Next, RunError, RunOptions, Stopped, SyncReport,
    Taken, Throttle, Unanswered, run,
};
