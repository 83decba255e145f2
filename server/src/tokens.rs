//! Which bearer token speaks for whom.
//!
//! ```json
//! {
//!   "some-long-random-token": { "tenant": "acme", "actor": "ann" },
//!   "another-long-token":     { "tenant": "acme", "actors": ["bob", "eve"], "expires": "2027-01-01T00:00:00Z" }
//! }
//! ```
//!
//! Invariants:
//! 1. No token is kept, shown or logged: tokens are hashed with a key of this process as soon as they are read, and found
//!    by that hash, so that how long a comparison takes tells nothing about them.
//! 2. An error about the file names the entry by its number, never by its token.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fieldbook_core::authority::Caller;
use fieldbook_core::{Actor, WallTime};
use serde::Deserialize;

use crate::store::Tenant;

/// The shortest token that is taken, in bytes.
const TOKEN_BYTES: usize = 16;

/// A token file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokensError {
    /// It cannot be read.
    #[error("cannot read the token file {path:?}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// It is not JSON of the expected form.
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
    /// One of its entries says something impossible.
    #[error("entry {number} of the token file {path:?}: {fault}")]
    Entry {
        /// The file.
        path: PathBuf,
        /// Which entry, from 1, in the order of tokens.
        number: usize,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The system gives no randomness to hash tokens with.
    #[error("the system gives no randomness")]
    NoRandomness,
}

/// What a token allows.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) tenant: Tenant,
    pub(crate) caller: Caller,
    expires: Option<WallTime>,
}

/// Why a request's credentials do not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    Missing,
    Unknown,
    Expired,
}

/// Who may exchange.
pub(crate) enum Credentials {
    /// Whoever reaches the server, as the only tenant.
    Open(Arc<Grant>),
    /// Whoever has one of these tokens, by its hash under the key.
    Tokens { key: [u8; 32], grants: HashMap<[u8; 32], Arc<Grant>> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenEntry {
    tenant: String,
    actor: Option<Actor>,
    #[serde(default)]
    actors: BTreeSet<Actor>,
    expires: Option<String>,
}

impl Credentials {
    /// Lets everyone in who reaches the server.
    pub(crate) fn open() -> Self {
        Self::Open(Arc::new(Grant { tenant: Tenant::local(), caller: Caller::Anyone, expires: None }))
    }

    /// Reads a token file.
    pub(crate) fn read(path: &Path) -> Result<Self, TokensError> {
        let path = path.to_owned();
        let text = std::fs::read_to_string(&path)
            .map_err(|source| TokensError::Unreadable { path: path.clone(), source })?;
        let entries: BTreeMap<String, TokenEntry> = serde_json::from_str(&text).map_err(|error| {
            TokensError::NotTokens { path: path.clone(), line: error.line(), column: error.column() }
        })?;
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|_| TokensError::NoRandomness)?;
        let mut grants = HashMap::with_capacity(entries.len());
        for (number, (token, entry)) in (1..).zip(entries) {
            let entry_error = |fault| TokensError::Entry { path: path.clone(), number, fault };
            if token.len() < TOKEN_BYTES {
                return Err(entry_error("a token has at least 16 characters, drawn at random"));
            }
            let grant = entry.grant().map_err(entry_error)?;
            grants.insert(hash(&key, token.as_bytes()), Arc::new(grant));
        }
        Ok(Self::Tokens { key, grants })
    }

    /// Returns what the value of an `Authorization` header allows.
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

impl TokenEntry {
    fn grant(self) -> Result<Grant, &'static str> {
        let tenant = Tenant::parse(&self.tenant)
            .ok_or("a tenant is a lower-case letter, then lower-case letters, digits, - or _")?;
        let actors: BTreeSet<_> = self.actors.into_iter().chain(self.actor).collect();
        if actors.is_empty() {
            return Err("it names neither an actor nor actors");
        }
        let expires = match self.expires {
            Some(text) => {
                Some(WallTime::parse(&text).ok_or("expires is not a time such as 2027-01-01T00:00:00Z")?)
            }
            None => None,
        };
        Ok(Grant { tenant, caller: Caller::OneOf(actors), expires })
    }
}

/// Takes the token out of `Bearer TOKEN`; the scheme's case does not matter (RFC 9110, section 11.1).
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

fn hash(key: &[u8; 32], token: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(key, token).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallTime = WallTime::from_milliseconds(1_800_000_000_000);

    fn read(text: &str) -> Result<Credentials, TokensError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Credentials::read(file.path())
    }

    #[test]
    fn a_token_allows_its_actors_until_it_expires() {
        let credentials = read(
            r#"{"0123456789abcdef": {"tenant": "acme", "actors": ["ann", "bob"]},
                "fedcba9876543210": {"tenant": "acme", "actor": "eve", "expires": "2020-01-01T00:00:00Z"}}"#,
        )
        .unwrap();
        let grant = credentials.grant(Some(b"bearer  0123456789abcdef"), NOW).unwrap();
        assert_eq!(grant.tenant.as_str(), "acme");
        assert!(grant.caller.may_be(&Actor::parse("bob").unwrap()));
        assert!(!grant.caller.may_be(&Actor::parse("eve").unwrap()));
        assert_eq!(credentials.grant(Some(b"Bearer fedcba9876543210"), NOW).unwrap_err(), Denied::Expired);
        for (header, denied) in [
            (None, Denied::Missing),
            (Some(&b"Basic 0123456789abcdef"[..]), Denied::Missing),
            (Some(b"Bearer"), Denied::Missing),
            (Some(b"Bearer 0123456789abcdeg"), Denied::Unknown),
        ] {
            assert_eq!(credentials.grant(header, NOW).unwrap_err(), denied);
        }
    }

    #[test]
    fn a_faulty_token_file_is_refused_without_showing_a_token() {
        for bad in [
            "",
            "[]",
            r#"{"canary-canary-canary": {"tenant": "acme"}}"#,
            r#"{"canary-canary-canary": {"tenant": "Acme", "actor": "ann"}}"#,
            r#"{"canary-canary-canary": {"tenant": "acme", "actor": ""}}"#,
            r#"{"canary-canary-canary": {"tenant": "acme", "actor": "ann", "expires": "soon"}}"#,
            r#"{"canary-canary-canary": {"tenant": "acme", "actor": "ann", "expire": "2027-01-01T00:00:00Z"}}"#,
            r#"{"canary": {"tenant": "acme", "actor": "ann"}}"#,
        ] {
            let Err(error) = read(bad) else { panic!("taken: {bad}") };
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        }
    }
}
