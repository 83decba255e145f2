//! The file that says which signed tokens are accepted.
//!
//! ```json
//! {
//!   "issuer": "https://login.example.com/",
//!   "audience": "fieldbook",
//!   "algorithms": ["RS256"],
//!   "keys_url": "https://login.example.com/.well-known/jwks.json",
//!   "tenant_claim": "org_id",
//!   "tenants": { "org_9ybsU1dN2d": "acme" }
//! }
//! ```
//!
//! Invariants:
//! 1. A file with an obvious mistake is refused: an unknown member, two sources of keys, an
//!    algorithm that does not fit the source, a file that others may change, a secret that others
//!    may read.
//! 2. No error repeats a secret or a whole address.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};

use super::claims::Claim;
use super::fetch::Address;
use super::keys::KeySet;
use crate::identity::{FileError, Kind, Mode, Seen};
use crate::store::Tenant;

/// The shortest secret, in bytes (RFC 7518, section 3.2).
const SECRET_BYTES: usize = 32;
const SETTINGS: Kind = of_file("the settings file of signed tokens", Mode::Readable);
const KEYS: Kind = of_file("the key file", Mode::Readable);
const SECRET: Kind = of_file("the secret file", Mode::Private);

const fn of_file(what: &'static str, mode: Mode) -> Kind {
    Kind { what, mode, most: Some(1024 * 1024) }
}

/// How far the clocks of the issuer and the server may differ, if the settings name nothing else.
const LEEWAY_SECONDS: u64 = 30;
/// The largest leeway: more would keep tokens alive that their issuer has ended.
const LEEWAY_SECONDS_MOST: u64 = 300;

/// The settings of signed tokens, or their keys, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwtError {
    /// A file is not read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The settings are not a JSON object.
    #[error("the settings {path:?} are not a JSON object (line {line}, column {column})")]
    NotSettings {
        /// The file.
        path: PathBuf,
        /// Line of the fault, from 1.
        line: usize,
        /// Column of the fault, from 1.
        column: usize,
    },
    /// A setting is missing, unknown or invalid.
    #[error("the settings {path:?}: {fault}")]
    Setting {
        /// The file.
        path: PathBuf,
        /// The fault, with advice.
        fault: String,
    },
    /// The keys in a file cannot be used.
    #[error("the keys in {path:?} cannot be used: {fault}")]
    Keys {
        /// The file.
        path: PathBuf,
        /// The fault.
        fault: String,
    },
    /// The client that fetches keys does not start.
    #[error(
        "the client that fetches the issuer's keys does not start: check the system's certificates"
    )]
    Client {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Checked settings.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) issuer: String,
    pub(super) audience: Vec<String>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) leeway: Duration,
    pub(super) keys: KeySource,
    pub(super) tenant: TenantRule,
    pub(super) actor: Claim,
    pub(super) roles: Option<Claim>,
}

/// The keys, or where they are.
#[derive(Debug)]
pub(super) enum KeySource {
    Fixed(KeySet),
    Address(Address),
}

/// The tenant of a token.
#[derive(Debug)]
pub(super) enum TenantRule {
    /// Every token opens this tenant.
    Fixed(Tenant),
    /// A claim names the tenant, or one of the names that stand for tenants.
    Claimed { claim: Claim, names: Option<BTreeMap<String, Tenant>> },
}

impl TenantRule {
    /// Returns the tenant that the claims name.
    pub(super) fn of(&self, claims: &Map<String, Value>) -> Option<Tenant> {
        match self {
            Self::Fixed(tenant) => Some(tenant.clone()),
            Self::Claimed { claim, names: Some(names) } => names.get(claim.text(claims)?).cloned(),
            Self::Claimed { claim, names: None } => Tenant::parse(claim.text(claims)?),
        }
    }
}

/// The members of the file.
const MEMBERS: [&str; 12] = [
    "issuer",
    "audience",
    "algorithms",
    "keys_url",
    "keys_file",
    "secret_file",
    "leeway_seconds",
    "tenant",
    "tenant_claim",
    "tenants",
    "actor_claim",
    "roles_claim",
];

impl Settings {
    /// Reads a file, and the keys if they are in another. Paths are relative to the file's folder.
    pub(super) fn read(path: &Path, seen: &mut Seen) -> Result<Self, JwtError> {
        let text = seen.read(path, SETTINGS)?;
        let members: Map<String, Value> =
            serde_json::from_slice(&text).map_err(|error| JwtError::NotSettings {
                path: path.to_owned(),
                line: error.line(),
                column: error.column(),
            })?;
        let faulty = |fault| JwtError::Setting { path: path.to_owned(), fault };
        let members = Members(members);
        members.check_names().map_err(faulty)?;
        let algorithms = members.algorithms().map_err(faulty)?;
        Ok(Self {
            issuer: members.needed("issuer").map_err(faulty)?,
            audience: members.texts("audience").map_err(faulty)?,
            leeway: members.leeway().map_err(faulty)?,
            tenant: members.tenant().map_err(faulty)?,
            actor: members.claim("actor_claim").map_err(faulty)?.unwrap_or_else(Claim::subject),
            roles: members.claim("roles_claim").map_err(faulty)?,
            keys: members.keys(path, &algorithms, seen)?,
            algorithms,
        })
    }
}

/// The members of the file, read one by one. Every fault says what to write.
struct Members(Map<String, Value>);

impl Members {
    fn check_names(&self) -> Result<(), String> {
        match self.0.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => {
                Err(format!("there is no setting {name:?}: there are {}", MEMBERS.join(", ")))
            }
        }
    }

    fn text(&self, name: &str) -> Result<Option<String>, String> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.trim().is_empty() => Ok(Some(text.clone())),
            Some(_) => Err(format!("{name} is a text that is not empty")),
        }
    }

    fn needed(&self, name: &str) -> Result<String, String> {
        self.text(name)?.ok_or_else(|| format!("{name} is missing"))
    }

    /// Returns a list of texts, or one text as a list.
    fn texts(&self, name: &str) -> Result<Vec<String>, String> {
        let wrong = || format!("{name} is a list of texts that are not empty");
        let values = match self.0.get(name) {
            None => return Err(format!("{name} is missing")),
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
        };
        let texts: Option<Vec<_>> = values
            .iter()
            .map(|value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned))
            .collect();
        texts.filter(|texts| !texts.is_empty()).ok_or_else(wrong)
    }

    fn algorithms(&self) -> Result<Vec<Algorithm>, String> {
        let algorithm = |name: &String| match name.as_str() {
            "HS256" => Ok(Algorithm::HS256),
            "RS256" => Ok(Algorithm::RS256),
            "ES256" => Ok(Algorithm::ES256),
            "EdDSA" => Ok(Algorithm::EdDSA),
            _ => Err("algorithms are among HS256, RS256, ES256 and EdDSA".to_owned()),
        };
        self.texts("algorithms")?.iter().map(algorithm).collect()
    }

    fn leeway(&self) -> Result<Duration, String> {
        let seconds = match self.0.get("leeway_seconds") {
            None => Some(LEEWAY_SECONDS),
            Some(value) => value.as_u64().filter(|seconds| *seconds <= LEEWAY_SECONDS_MOST),
        };
        seconds.map(Duration::from_secs).ok_or_else(|| {
            format!("leeway_seconds is a whole number from 0 to {LEEWAY_SECONDS_MOST}")
        })
    }

    fn claim(&self, name: &str) -> Result<Option<Claim>, String> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let claim = Claim::parse(&text);
        claim.map(Some).ok_or_else(|| {
            format!("{name} is the name of a claim, or a place such as /app_metadata/tenant")
        })
    }

    fn tenant(&self) -> Result<TenantRule, String> {
        let parse = |name: &str| {
            let rule = "a tenant is a lower-case letter, then lower-case letters, digits, - or _";
            Tenant::parse(name).ok_or_else(|| rule.to_owned())
        };
        match (self.text("tenant")?, self.claim("tenant_claim")?, self.0.get("tenants")) {
            (Some(name), None, None) => Ok(TenantRule::Fixed(parse(&name)?)),
            (None, Some(claim), None) => Ok(TenantRule::Claimed { claim, names: None }),
            (None, Some(claim), Some(Value::Object(names))) if !names.is_empty() => {
                let named = |(name, tenant): (&String, &Value)| {
                    let tenant = tenant.as_str().ok_or("tenants names a tenant for each value")?;
                    Ok::<_, String>((name.clone(), parse(tenant)?))
                };
                let names = names.iter().map(named).collect::<Result<_, _>>()?;
                Ok(TenantRule::Claimed { claim, names: Some(names) })
            }
            _ => Err("name either tenant (one for all), or tenant_claim, perhaps with tenants \
                      such as {\"org_9ybs\": \"acme\"}"
                .to_owned()),
        }
    }

    fn keys(
        &self,
        path: &Path,
        algorithms: &[Algorithm],
        seen: &mut Seen,
    ) -> Result<KeySource, JwtError> {
        let faulty =
            |fault: &str| JwtError::Setting { path: path.to_owned(), fault: fault.to_owned() };
        let text = |name| self.text(name).map_err(|fault| faulty(&fault));
        let beside = |file: String| path.parent().unwrap_or(Path::new("")).join(file);
        let has_secret = algorithms.contains(&Algorithm::HS256);
        match (text("keys_url")?, text("keys_file")?, text("secret_file")?) {
            (None, None, Some(file)) => {
                if algorithms != [Algorithm::HS256] {
                    return Err(faulty("secret_file is for the algorithm HS256 alone"));
                }
                read_secret(&beside(file), seen).map(KeySource::Fixed)
            }
            (Some(_), None, None) | (None, Some(_), None) if has_secret => {
                Err(faulty("HS256 needs secret_file: public keys are for RS256, ES256 and EdDSA"))
            }
            (Some(address), None, None) => {
                Address::parse(&address).map(KeySource::Address).map_err(faulty)
            }
            (None, Some(file), None) => {
                read_keys(&beside(file), algorithms, seen).map(KeySource::Fixed)
            }
            _ => Err(faulty("name one of keys_url, keys_file and secret_file")),
        }
    }
}

fn read_keys(path: &Path, algorithms: &[Algorithm], seen: &mut Seen) -> Result<KeySet, JwtError> {
    KeySet::parse(&seen.read(path, KEYS)?, algorithms)
        .map_err(|fault| JwtError::Keys { path: path.to_owned(), fault: fault.to_string() })
}

fn read_secret(path: &Path, seen: &mut Seen) -> Result<KeySet, JwtError> {
    let text = seen.read(path, SECRET)?;
    let secret = text.trim_ascii();
    let faulty = |fault: String| JwtError::Keys { path: path.to_owned(), fault };
    if secret.len() < SECRET_BYTES {
        return Err(faulty(format!("a secret has at least {SECRET_BYTES} bytes, drawn at random")));
    }
    let secret = DecodingKey::from_secret(secret);
    secret.map(KeySet::secret).map_err(|_| faulty("it is not a secret".to_owned()))
}
