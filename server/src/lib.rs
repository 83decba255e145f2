//! The fieldbook sync server: HTTP over an embedded store. [`serve`] starts it inside any tokio program.
//!
//! ```text
//!   door      connections, how long they may take, and how much of the server one client may have
//!   http      requests and answers, credentials, status codes
//!   tokens    which token speaks for whom
//!   store     one redb file: tables, transactions
//!   fieldbook_core::authority    the rules: what an exchange does
//! ```
//!
//! `docs/protocol.md` tells what is sent; `docs/openapi.json` has it as schemas, and a test keeps them true.
//!
//! What it does not do: TLS (put a proxy that ends it in front), or any rule of its own.

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
