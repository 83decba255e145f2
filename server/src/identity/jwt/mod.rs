//! Signed tokens (JSON Web Tokens) of an identity provider, and the grant that their claims give.
//!
//! Invariants:
//! 1. The operator names the algorithms. A token's own header never chooses another one, and a
//!    secret is never compared with a public key.
//! 2. Every token has an end, an issuer and an audience that the settings name.
//! 3. Times are compared with the server's clock, which is an argument.
//! 4. If nobody knows whether a token is valid, because its keys cannot be fetched, the fault says
//!    so ([`Fault::is_transient`]): a device then waits instead of asking its user to sign in.
//! 5. No fault and no log line repeats a part of a token.
//!
//! What it does not do: renew a token (the app does), or ask the issuer about one token.

mod claims;
mod fetch;
mod keys;
mod settings;
mod verify;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fieldbook_core::authority::Role;
use fieldbook_core::{Actor, WallTime};
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};

use self::claims::Claim;
use self::fetch::FetchedKeys;
use self::keys::KeySet;
pub use self::settings::JwtError;
use self::settings::{KeySource, Settings, TenantRule};
use super::{Grant, Seen};

/// The longest token that is looked at, in bytes.
const TOKEN_BYTES: usize = 16 * 1024;

/// The reason why a signed token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The text is not a token, names an algorithm that is not allowed, or its signature is wrong.
    Invalid,
    /// No key has the id that the token names.
    UnknownKey,
    Expired,
    NotYet,
    Issuer,
    Audience,
    /// The claims name no tenant of this server.
    NoTenant,
    /// The claims name no actor.
    NoActor,
    /// The keys cannot be fetched now.
    NoKeys,
}

impl Fault {
    /// Returns whether the same token may be accepted a little later.
    pub(crate) const fn is_transient(self) -> bool {
        matches!(self, Self::NoKeys)
    }

    /// Returns the code for machines and the text for people.
    pub(crate) const fn code_and_text(self) -> (&'static str, &'static str) {
        match self {
            Self::Invalid => ("token_invalid", "this token is not accepted here: sign in again"),
            Self::UnknownKey => {
                ("token_unknown", "the key of this token is not known here: sign in again")
            }
            Self::Expired => ("token_expired", "this token has expired: sign in again"),
            Self::NotYet => (
                "token_not_yet_valid",
                "this token is not valid yet: compare the clocks of the issuer and this server",
            ),
            Self::Issuer => ("token_wrong_issuer", "this token is of another issuer"),
            Self::Audience => ("token_wrong_audience", "this token is for another service"),
            Self::NoTenant => ("token_without_tenant", "this token names no tenant of this server"),
            Self::NoActor => ("token_without_actor", "this token names no user"),
            Self::NoKeys => (
                "keys_unavailable",
                "the issuer's keys cannot be read now: send the same again a little later",
            ),
        }
    }
}

/// The signed tokens that are accepted.
#[derive(Debug)]
pub(crate) struct Jwt {
    validation: Validation,
    leeway: Duration,
    tenant: TenantRule,
    actor: Claim,
    roles: Option<Claim>,
    keys: Keys,
}

/// Where the keys are.
#[derive(Debug)]
enum Keys {
    Fixed(KeySet),
    Fetched(Arc<FetchedKeys>),
}

impl Jwt {
    /// Reads the settings, and the keys if they are in a file. Keys that `former` has fetched from
    /// the same address are kept.
    pub(crate) fn read(
        path: &Path,
        former: Option<&Self>,
        seen: &mut Seen,
    ) -> Result<Self, JwtError> {
        verify::install();
        let settings = Settings::read(path, seen)?;
        let keys = match settings.keys {
            KeySource::Fixed(set) => Keys::Fixed(set),
            KeySource::Address(address) => {
                let former = former.and_then(|former| match &former.keys {
                    Keys::Fetched(keys) if keys.is_of(&address, &settings.algorithms) => Some(keys),
                    _ => None,
                });
                Keys::Fetched(match former {
                    Some(keys) => Arc::clone(keys),
                    None => Arc::new(FetchedKeys::new(address, settings.algorithms.clone())?),
                })
            }
        };
        let mut validation =
            Validation { algorithms: settings.algorithms, ..Validation::default() };
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&[settings.issuer]);
        validation.set_audience(&settings.audience);
        // Times are compared with the server's clock, in `check_times`.
        (validation.validate_exp, validation.validate_nbf) = (false, false);
        let (tenant, actor, roles) = (settings.tenant, settings.actor, settings.roles);
        Ok(Self { validation, leeway: settings.leeway, tenant, actor, roles, keys })
    }

    /// Fetches the keys again if it is time.
    pub(crate) async fn keep_keys(&self) {
        if let Keys::Fetched(keys) = &self.keys {
            keys.fetch_if_due().await;
        }
    }

    /// Returns the rights of a token. If its key is not known, the keys are fetched first, within
    /// limits.
    pub(crate) async fn grant(&self, token: &[u8], now: WallTime) -> Result<Grant, Fault> {
        let (key, algorithm) = match self.look_at(token, now)? {
            Some(found) => found,
            None => {
                let Keys::Fetched(keys) = &self.keys else { return Err(Fault::UnknownKey) };
                let is_fresh = keys.fetch_for_token().await;
                match self.look_at(token, now)? {
                    Some(found) => found,
                    None if is_fresh => return Err(Fault::UnknownKey),
                    None => return Err(Fault::NoKeys),
                }
            }
        };
        let validation = Validation { algorithms: vec![algorithm], ..self.validation.clone() };
        let claims = decode::<Map<String, Value>>(token, &key, &validation)
            .map_err(|error| fault(&error))?
            .claims;
        self.check_times(&claims, now)?;
        self.granted(&claims)
    }

    /// Returns the key of a token, or none if it is not known. Nothing of the token is trusted yet.
    fn look_at(
        &self,
        token: &[u8],
        now: WallTime,
    ) -> Result<Option<(DecodingKey, jsonwebtoken::Algorithm)>, Fault> {
        if token.len() > TOKEN_BYTES {
            return Err(Fault::Invalid);
        }
        let header = decode_header(token).map_err(|_| Fault::Invalid)?;
        if !self.validation.algorithms.contains(&header.alg) {
            return Err(Fault::Invalid);
        }
        let found = match &self.keys {
            Keys::Fixed(set) => set.find(header.kid.as_deref(), header.alg),
            Keys::Fetched(keys) => keys.find(header.kid.as_deref(), header.alg),
        };
        if found.is_none() {
            // An expired token is most often of a key that is gone. Its claim speaks against
            // itself, so it needs no signature.
            let claims =
                jsonwebtoken::dangerous::insecure_decode_claims::<Map<String, Value>>(token)
                    .map_err(|_| Fault::Invalid)?;
            self.check_times(&claims, now)?;
        }
        Ok(found.map(|key| (key, header.alg)))
    }

    fn check_times(&self, claims: &Map<String, Value>, now: WallTime) -> Result<(), Fault> {
        let expires = claims::time(claims, "exp")?.ok_or(Fault::Invalid)?;
        if expires.plus(self.leeway) <= now {
            return Err(Fault::Expired);
        }
        let begins = claims::time(claims, "nbf")?;
        if begins.is_some_and(|begins| now.plus(self.leeway) < begins) {
            return Err(Fault::NotYet);
        }
        Ok(())
    }

    fn granted(&self, claims: &Map<String, Value>) -> Result<Grant, Fault> {
        let tenant = self.tenant.of(claims).ok_or(Fault::NoTenant)?;
        let actor = self.actor.text(claims).and_then(|text| Actor::parse(text).ok());
        let actor = actor.ok_or(Fault::NoActor)?;
        // Above every place in a token file.
        let number = claims::number(actor.as_str()) | (1 << 63);
        let roles = self.roles.as_ref().map(|claim| claim.texts(claims)).unwrap_or_default();
        // A role that no rights can name is no role.
        let roles = roles.into_iter().filter_map(Role::parse).collect();
        Ok(Grant { tenant, actors: Some([actor].into()), roles, number, expires: None })
    }
}

fn fault(error: &jsonwebtoken::errors::Error) -> Fault {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::InvalidIssuer => Fault::Issuer,
        ErrorKind::InvalidAudience => Fault::Audience,
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
            match claim.as_str() {
                "iss" => Fault::Issuer,
                "aud" => Fault::Audience,
                _ => Fault::Invalid,
            }
        }
        _ => Fault::Invalid,
    }
}
