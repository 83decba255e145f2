//! The fieldbook sync server: HTTP over an embedded store. [`serve`] starts it inside any tokio program.
//!
//! ```text
//!   http      requests and answers, credentials, status codes
//!   tokens    which token speaks for whom
//!   store     one redb file: tables, transactions
//!   fieldbook_core::authority    the rules: what an exchange does
//! ```
//!
//! `docs/protocol.md` tells what is sent; `docs/openapi.json` has it as schemas, and a test keeps them true.
//!
//! What it does not do: TLS (put a proxy that ends it in front), or any rule of its own.

mod http;
mod serve;
mod store;
mod tokens;

pub use serve::{ServeError, ServeOptions, Server, declare_restored, serve};
pub use store::OpenStoreError;
pub use tokens::TokensError;
