//! The tenant and the actors of each bearer token.
//!
//! ```json
//! {
//!   "some-long-random-token": { "tenant": "acme", "actor": "ann" },
//!   "another-long-token":     { "tenant": "acme", "actors": ["bob", "eve"], "roles": ["manager"],
//!                           "expires": "2027-01-01T00:00:00Z" }
//! }
//! ```
//!
//! Invariants:
//! 1. No token is kept, shown or logged: tokens are hashed with a key of this process as soon as
//!    they are read, and found by that hash. So the duration of a comparison reveals nothing about
//!    them.
//! 2. An error about the file names the entry by its number, never by its token.
//! 3. A file with an obvious mistake is refused: a token that occurs twice, no token at all, an
//!    unknown member, or a file that others on the machine may read.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fieldbook_core::authority::Role;
use fieldbook_core::{Actor, Randomness as _, WallTime, system};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::identity::{Denied, FileError, Grant, Kind, Mode, Seen};
use crate::store::Tenant;

/// The shortest allowed token, in bytes.
const TOKEN_BYTES: usize = 16;

const KIND: Kind = Kind { what: "the token file", mode: Mode::Private, most: None };

/// A token file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokensError {
    /// The file is not read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file has no entry.
    #[error(
        "the token file {path:?} names no token, so nobody could sync: add an entry, or serve without a token file"
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file is not JSON of the expected form.
    #[error(
        "the token file {path:?} is not of the form {{\"TOKEN\": {{\"tenant\": \"acme\", \"actor\": \"ann\"}}}} \
         (line {line}, column {column})"
    )]
    NotTokens {
        /// The file.
        path: PathBuf,
        /// Line of the fault, from 1.
        line: usize,
        /// Column of the fault, from 1.
        column: usize,
    },
    /// An entry of the file is invalid.
    #[error("entry {number} of the token file {path:?}: {fault}")]
    Entry {
        /// The file.
        path: PathBuf,
        /// The number of the entry in the file, from 1.
        number: usize,
        /// The fault of the entry.
        fault: String,
    },
    /// The system gives no randomness to hash tokens with.
    #[error("the system gives no randomness")]
    NoRandomness,
}

/// The grants of the file, each by the hash of its token under a key of this process.
pub(crate) struct Tokens {
    key: [u8; 32],
    grants: HashMap<[u8; 32], Arc<Grant>>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("count", &self.grants.len()).finish()
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenEntry {
    tenant: String,
    actor: Option<Actor>,
    #[serde(default)]
    actors: BTreeSet<Actor>,
    #[serde(default)]
    roles: Vec<String>,
    expires: Option<String>,
}

/// The members of the file in its order, including repeated ones, which a map would hide.
struct Entries(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tokens")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(EntriesVisitor)
    }
}

impl Tokens {
    /// Reads a token file.
    pub(crate) fn read(path: &Path, seen: &mut Seen) -> Result<Self, TokensError> {
        let text = seen.read_text(path, KIND)?;
        let path = path.to_owned();
        if text.trim().is_empty() {
            return Err(TokensError::Empty { path });
        }
        let Entries(entries) =
            serde_json::from_str(&text).map_err(|error| TokensError::NotTokens {
                path: path.clone(),
                line: error.line(),
                column: error.column(),
            })?;
        if entries.is_empty() {
            return Err(TokensError::Empty { path });
        }
        let mut key = [0; 32];
        system::randomness().map_err(|_| TokensError::NoRandomness)?.fill(&mut key);
        let mut grants: HashMap<_, Arc<Grant>> = HashMap::with_capacity(entries.len());
        for (number, (token, entry)) in (1..).zip(entries) {
            let faulty = |fault: String| TokensError::Entry { path: path.clone(), number, fault };
            check_token(&token).map_err(|fault| faulty(fault.to_owned()))?;
            let entry: TokenEntry =
                serde_json::from_str(entry.get()).map_err(|_| faulty(FORM.to_owned()))?;
            let grant = entry.grant(number as u64).map_err(|fault| faulty(fault.to_owned()))?;
            if let Some(first) = grants.insert(hash(&key, token.as_bytes()), Arc::new(grant)) {
                let fault = format!(
                    "its token is that of entry {} already: take one of them out",
                    first.number
                );
                return Err(faulty(fault));
            }
        }
        Ok(Self { key, grants })
    }

    /// Returns the rights of a token.
    pub(crate) fn grant(&self, token: &[u8], now: WallTime) -> Result<Arc<Grant>, Denied> {
        let grant = self.grants.get(&hash(&self.key, token)).ok_or(Denied::Unknown)?;
        match grant.expires {
            Some(expires) if expires <= now => Err(Denied::Expired),
            _ => Ok(Arc::clone(grant)),
        }
    }
}

/// The text that describes the form of an entry in an error.
const FORM: &str = "an entry has the members tenant and actor (or actors), perhaps roles and expires, each once, and no other";

fn check_token(token: &str) -> Result<(), &'static str> {
    if token.len() < TOKEN_BYTES {
        return Err("a token has at least 16 characters, drawn at random");
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a token has no spaces and only ASCII characters: no header could carry it");
    }
    Ok(())
}

impl TokenEntry {
    fn grant(self, number: u64) -> Result<Grant, &'static str> {
        let tenant = Tenant::parse(&self.tenant)
            .ok_or("a tenant is a lower-case letter, then lower-case letters, digits, - or _")?;
        let actors: BTreeSet<_> = self.actors.into_iter().chain(self.actor).collect();
        if actors.is_empty() {
            return Err("it names neither an actor nor actors");
        }
        let expires = match self.expires {
            Some(text) => Some(
                WallTime::parse(&text)
                    .ok_or("expires is not a time such as 2027-01-01T00:00:00Z")?,
            ),
            None => None,
        };
        let roles: Option<_> = self.roles.iter().map(|name| Role::parse(name)).collect();
        let roles = roles.ok_or("a role has 1 to 128 bytes and no spaces")?;
        Ok(Grant { tenant, actors: Some(actors), roles, number, expires })
    }
}

fn hash(key: &[u8; 32], token: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(key, token).as_bytes()
}

#[cfg(test)]
mod tests;
