//! The connection of a book to its server: the [`Remote`] trait, HTTP, an in-process remote for
//! tests, and the exchange loop.
//!
//! ```text
//!   Worker ── wakes ──▶ run ── prepare / accept / fail ──▶ SyncHost (the book; each call is one durable commit)
//!                        │
//!                        └── exchange ──▶ Remote ── HttpRemote ──▶ POST {origin}/v1/exchange, …/compare
//! ```
//!
//! Invariants:
//! 1. Nothing that matters lives only in a future. If a future is dropped at an await, the book
//!    keeps what it has committed, and the next run continues from there.
//! 2. [`SyncHost::prepare`] makes each request durable before it leaves. One call of
//!    [`SyncHost::apply_answer`] applies an answer in one commit, after the whole answer was read.
//! 3. Every loop, wait, body and retry in this crate has a bound.
//! 4. No error, `Debug` text or log line holds a token, a payload or a full URL.
//!
//! What it does not do: decide anything about records, units or conflicts. It knows neither the log
//! nor the tables.

mod background;
mod credentials;
#[cfg(feature = "http")]
mod http;
mod memory;
mod remote;
mod run;

pub use background::{Handle, Worker, WorkerError, WorkerOptions};
pub use credentials::{Credentials, Secret, StaticToken};
#[cfg(feature = "http")]
pub use http::{
    HttpOptions, HttpRemote, InvalidOrigin, ProxyUse, Redirected, SetUpError, Unparsable,
};
pub use memory::FnRemote;
pub use remote::{BoxFuture, Received, ReceivedComparison, Remote, RemoteError};
pub use run::{
    Activity, BatchSizer, Budget, ExchangeCounts, ExchangeParams, Left, Limit, MOST_EXCHANGES,
    NextStep, RunError, RunOptions, Stopped, SyncHost, SyncReport, Unanswered, run,
};
