//! The fieldbook sync server: HTTP over an embedded store. [`serve`] starts it inside any tokio
//! program.
//!
//! ```text
//!   door      connections, how long they may take, and how much of the server one client may use
//!   http      requests and answers, credentials, status codes
//!   identity  the credentials of a request: the token file, signed tokens, rights
//!   metrics   counts for a monitor, at an address of its own
//!   tokens    the tenant and the actors of each token of the file
//!   store     one redb file, or behind the feature `postgres` a database: tables, transactions
//!   fieldbook_core::authority    the rules: what an exchange does
//! ```
//!
//! `docs/protocol.md` explains the messages. `docs/openapi.json` has their schemas, and a test
//! compares them with the server.
//!
//! What it does not do: TLS (put a proxy in front of it that ends TLS), or have rules of its own.

mod door;
mod http;
mod identity;
mod limits;
mod metrics;
mod offline;
mod serve;
mod store;
mod tokens;

#[cfg(feature = "jwt")]
pub use identity::jwt::JwtError;
pub use identity::{FileError, RightsError};
pub use limits::DoorLimits;
#[cfg(feature = "postgres")]
pub use offline::declare_database_restored;
pub use offline::{
    add_signing_key, check_digests, declare_restored, known_devices, retire_signing_key,
    signing_keys,
};
pub use serve::{ServeError, ServeOptions, Server, serve};
#[cfg(feature = "postgres")]
pub use store::{DatabaseFault, OpenDatabaseError, PostgresUrl, PostgresUrlError};
pub use store::{KnownDevice, KnownLog, OpenStoreError, SigningKey, SigningKeyError, WrongDigest};
pub use tokens::TokensError;
