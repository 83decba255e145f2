//! The tenant and the actors of each bearer token.
//!
//! ```json
//! {
//!   "some-long-random-token": { "tenant": "acme", "actor": "ann" },
//!   "another-long-token":     { "tenant": "acme", "actors": ["bob", "eve"], "expires": "2027-01-01T00:00:00Z" }
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

use fieldbook_core::authority::Caller;
use fieldbook_core::{Actor, Randomness as _, WallTime, system};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::store::Tenant;

/// The shortest allowed token, in bytes.
const TOKEN_BYTES: usize = 16;

/// A token file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokensError {
    /// The file cannot be read.
    #[error("cannot read the token file {path:?}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// The path is a folder, a pipe or a device.
    #[error(
        "the token file {path:?} is not a regular file: it is read again at each SIGHUP, so write it to a file"
    )]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Users other than the owner may read or write the file.
    #[error(
        "the token file {path:?} is open to other users of this machine (mode {mode:03o}): run chmod 600 on it"
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
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

/// The rights of a token.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) tenant: Tenant,
    pub(crate) caller: Caller,
    /// The place of the token in the file, which distinguishes it from others of the tenant.
    pub(crate) number: usize,
    expires: Option<WallTime>,
}

/// The reason why a request's credentials are not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    Missing,
    Unknown,
    Expired,
}

/// The clients that may exchange.
pub(crate) enum Credentials {
    /// Every client that reaches the server, as the only tenant.
    Open(Arc<Grant>),
    /// Every client with one of these tokens, by the token's hash under the key.
    Tokens { key: [u8; 32], grants: HashMap<[u8; 32], Arc<Grant>> },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(_) => f.write_str("Open"),
            Self::Tokens { grants, .. } => {
                f.debug_struct("Tokens").field("count", &grants.len()).finish()
            }
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenEntry {
    tenant: String,
    actor: Option<Actor>,
    #[serde(default)]
    actors: BTreeSet<Actor>,
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

impl Credentials {
    /// Lets in every client that reaches the server.
    pub(crate) fn open() -> Self {
        let grant =
            Grant { tenant: Tenant::local(), caller: Caller::Anyone, number: 0, expires: None };
        Self::Open(Arc::new(grant))
    }

    /// Reads a token file.
    pub(crate) fn read(path: &Path) -> Result<Self, TokensError> {
        let path = path.to_owned();
        let unreadable = |source| TokensError::Unreadable { path: path.clone(), source };
        let metadata = std::fs::metadata(&path).map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(TokensError::NotAFile { path });
        }
        check_mode(&path, &metadata)?;
        let text = std::fs::read_to_string(&path).map_err(unreadable)?;
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
            let grant = entry.grant(number).map_err(|fault| faulty(fault.to_owned()))?;
            if let Some(first) = grants.insert(hash(&key, token.as_bytes()), Arc::new(grant)) {
                let fault = format!(
                    "its token is that of entry {} already: take one of them out",
                    first.number
                );
                return Err(faulty(fault));
            }
        }
        Ok(Self::Tokens { key, grants })
    }

    /// Returns the rights of the value of an `Authorization` header.
    pub(crate) fn grant(&self, header: Option<&[u8]>, now: WallTime) -> Result<Arc<Grant>, Denied> {
        match self {
            Self::Open(grant) => Ok(Arc::clone(grant)),
            Self::Tokens { key, grants } => {
                let token = header.and_then(bearer).ok_or(Denied::Missing)?;
                let grant = grants.get(&hash(key, token)).ok_or(Denied::Unknown)?;
                match grant.expires {
                    Some(expires) if expires <= now => Err(Denied::Expired),
                    _ => Ok(Arc::clone(grant)),
                }
            }
        }
    }
}

impl Grant {
    /// Returns the actor of a token that allows only one.
    pub(crate) fn only_actor(&self) -> Option<&Actor> {
        match &self.caller {
            Caller::OneOf(actors) if actors.len() == 1 => actors.first(),
            _ => None,
        }
    }

    #[cfg(test)]
    pub(crate) fn for_test(tenant: &str, number: usize) -> Arc<Self> {
        let tenant = Tenant::parse(tenant).unwrap();
        Arc::new(Self { tenant, caller: Caller::Anyone, number, expires: None })
    }
}

/// The text that describes the form of an entry in an error.
const FORM: &str = "an entry has the members tenant and actor (or actors), perhaps expires, each once, and no other";

fn check_token(token: &str) -> Result<(), &'static str> {
    if token.len() < TOKEN_BYTES {
        return Err("a token has at least 16 characters, drawn at random");
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a token has no spaces and only ASCII characters: no header could carry it");
    }
    Ok(())
}

/// Refuses a file that other users may read or change.
#[cfg(unix)]
fn check_mode(path: &Path, metadata: &std::fs::Metadata) -> Result<(), TokensError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(TokensError::OpenToOthers { path: path.to_owned(), mode })
}

/// Accepts every file, because other systems have other permissions.
#[cfg(not(unix))]
fn check_mode(_: &Path, _: &std::fs::Metadata) -> Result<(), TokensError> {
    Ok(())
}

impl TokenEntry {
    fn grant(self, number: usize) -> Result<Grant, &'static str> {
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
        Ok(Grant { tenant, caller: Caller::OneOf(actors), number, expires })
    }
}

/// Returns the token of `Bearer TOKEN`. The case of the scheme does not matter (RFC 9110, section
/// 11.1).
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

fn hash(key: &[u8; 32], token: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(key, token).as_bytes()
}

#[cfg(test)]
mod tests;
