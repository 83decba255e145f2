//! A set of keys: the issuer's public keys (JWKS, RFC 7517), or one secret.
//!
//! Invariant: a key is used for one algorithm only, and a public set has no secrets. So a token
//! that is signed with a public key as its secret finds no key.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::value::RawValue;

/// The most keys of a set. Providers publish a handful.
const KEYS: usize = 64;

/// The keys of an issuer.
#[derive(Debug, Clone, Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    is_secret: bool,
}

#[derive(Debug, Clone)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Why a set of keys cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnusableKeys {
    #[error("it is not a key set of the form {{\"keys\": [..]}}")]
    NotASet,
    #[error("it has more than {KEYS} keys")]
    TooMany,
    #[error("none of its {0} keys is a public key for an algorithm of the settings")]
    NoneFits(usize),
}

#[derive(serde::Deserialize)]
struct Set {
    keys: Vec<Box<RawValue>>,
}

impl KeySet {
    /// Makes the set of one secret.
    pub(super) fn secret(secret: DecodingKey) -> Self {
        let key = Key { id: None, algorithm: Algorithm::HS256, key: secret };
        Self { keys: vec![key], is_secret: true }
    }

    /// Reads a set of public keys, and keeps those that fit the algorithms. Keys of other kinds are
    /// passed over: a provider may add them any day.
    pub(super) fn parse(text: &[u8], algorithms: &[Algorithm]) -> Result<Self, UnusableKeys> {
        let Set { keys } = serde_json::from_slice(text).map_err(|_| UnusableKeys::NotASet)?;
        if keys.len() > KEYS {
            return Err(UnusableKeys::TooMany);
        }
        let fitting =
            keys.iter().filter_map(|text| key(text.get(), algorithms)).collect::<Vec<_>>();
        if fitting.is_empty() {
            return Err(UnusableKeys::NoneFits(keys.len()));
        }
        Ok(Self { keys: fitting, is_secret: false })
    }

    /// Returns the key of a token's header. A token without a key's id has the only key that fits.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let mut fitting = self.keys.iter().filter(|key| {
            key.algorithm == algorithm
                && (self.is_secret || id.is_none() || key.id.as_deref() == id)
        });
        let found = fitting.next()?;
        fitting.next().is_none().then(|| found.key.clone())
    }
}

/// Returns a public key if it fits one of the algorithms.
fn key(text: &str, algorithms: &[Algorithm]) -> Option<Key> {
    let jwk: Jwk = serde_json::from_str(text).ok()?;
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    let is_for_signatures =
        jwk.common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
    let is_for_it = match jwk.common.key_algorithm {
        Some(named) => Algorithm::try_from(named).is_ok_and(|named| named == algorithm),
        None => true,
    };
    if !algorithms.contains(&algorithm) || !is_for_signatures || !is_for_it {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    Some(Key { id: jwk.common.key_id, algorithm, key })
}
