//! The fieldbook sync server: HTTP over an embedded store. [`serve`] starts it inside any tokio
//! program.
//!
//! ```text
//!   door      connections, how long they may take, and how much of the server one client may use
//!   http      requests and answers, credentials, status codes
//!   tokens    the tenant and the actors of each token
//!   store     one redb file: tables, transactions
//!   fieldbook_core::authority    the rules: what an exchange does
//! ```
//!
//! `docs/protocol.md` explains the messages. `docs/openapi.json` has their schemas, and a test
//! compares them with the server.
//!
//! What it does not do: TLS (put a proxy in front of it that ends TLS), or have rules of its own.

mod door;
mod http;
mod limits;
mod serve;
mod store;
mod tokens;

pub use limits::DoorLimits;
pub use serve::{ServeError, ServeOptions, Server, declare_restored, serve};
pub use store::OpenStoreError;
pub use tokens::TokensError;
