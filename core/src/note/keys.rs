//! Keys that sign notes and check them: Ed25519, in the text form of Go's `sumdb/note`.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use super::text::{Signature, is_key_name};
use super::{SignError, Signer};

/// The type of an Ed25519 key in a signed note.
const ED25519: u8 = 1;

/// A text that is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key: {0}; expected a line such as `name+hexadecimal id+key`")]
pub struct InvalidKey(&'static str);

/// A public key that checks signatures. Written as `name+id+key`.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    key: VerifyingKey,
}

impl VerifierKey {
    fn of(name: &str, key: VerifyingKey) -> Self {
        let id = id_of(name, key.as_bytes());
        Self { name: name.to_owned(), id, key }
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the id as eight hexadecimal digits.
    pub fn id(&self) -> String {
        HEXLOWER.encode(&self.id)
    }

    /// Returns whether a signature says that it is by this key.
    pub fn is_named_by(&self, signature: &Signature<'_>) -> bool {
        signature.name == self.name && signature.key_id == self.id
    }

    /// Returns whether the signature of a text is by this key.
    pub fn verifies(&self, text: &str, signature: &Signature<'_>) -> bool {
        let Ok(bytes) = <[u8; 64]>::try_from(signature.bytes.as_slice()) else { return false };
        let signed = ed25519_dalek::Signature::from_bytes(&bytes);
        // The strict check refuses keys and signatures for which others would say otherwise.
        self.is_named_by(signature) && self.key.verify_strict(text.as_bytes(), &signed).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}+{}", self.name, self.id(), text_of(self.key.as_bytes()))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({self})")
    }
}

impl FromStr for VerifierKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(InvalidKey("it does not have three parts"));
        };
        if !is_key_name(name) {
            return Err(InvalidKey("its name is empty, too long, or has spaces"));
        }
        let key = bytes_of(key)?;
        let key = VerifyingKey::from_bytes(&key).map_err(|_| InvalidKey("it is no public key"))?;
        let read = Self::of(name, key);
        if read.id() != id {
            return Err(InvalidKey("its id does not follow from its name and its bytes"));
        }
        Ok(read)
    }
}

/// A secret key in memory.
pub struct Ed25519Key {
    verifier: VerifierKey,
    key: SigningKey,
}

impl Ed25519Key {
    /// Makes a key with a name from 32 secret bytes. They have to come from a source that nobody
    /// can guess.
    ///
    /// # Errors
    /// [`InvalidKey`] for a name that is empty, too long, or has spaces or a `+`.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, InvalidKey> {
        if !is_key_name(name) {
            return Err(InvalidKey("its name is empty, too long, or has spaces"));
        }
        let key = SigningKey::from_bytes(seed);
        Ok(Self { verifier: VerifierKey::of(name, key.verifying_key()), key })
    }

    /// Reads a secret key from its text, `PRIVATE+KEY+name+id+key`.
    ///
    /// # Errors
    /// [`InvalidKey`].
    pub fn parse_secret(text: &str) -> Result<Self, InvalidKey> {
        let parts: Vec<_> = text.trim().splitn(5, '+').collect();
        let ["PRIVATE", "KEY", name, id, key] = parts.as_slice() else {
            return Err(InvalidKey("it does not begin with `PRIVATE+KEY+`"));
        };
        let read = Self::from_seed(name, &bytes_of(key)?)?;
        if read.verifier.id() != *id {
            return Err(InvalidKey("its id does not follow from its name and its bytes"));
        }
        Ok(read)
    }

    /// Returns the secret key as text, to be kept where only its owner reads it.
    pub fn secret_text(&self) -> String {
        let VerifierKey { name, .. } = &self.verifier;
        format!("PRIVATE+KEY+{name}+{}+{}", self.verifier.id(), text_of(self.key.as_bytes()))
    }

    /// Returns the public key.
    pub const fn public(&self) -> &VerifierKey {
        &self.verifier
    }
}

impl Signer for Ed25519Key {
    fn verifier(&self) -> String {
        self.verifier.to_string()
    }

    fn sign(&self, text: &[u8]) -> Result<[u8; 64], SignError> {
        Ok(self.key.sign(text).to_bytes())
    }
}

impl fmt::Debug for Ed25519Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ed25519Key({}, secret)", self.verifier)
    }
}

/// Returns the text of a key: base64 of its type and its bytes.
fn text_of(key: &[u8; 32]) -> String {
    BASE64.encode(&[&[ED25519], key.as_slice()].concat())
}

/// Reads the text of a key.
fn bytes_of(text: &str) -> Result<[u8; 32], InvalidKey> {
    let bytes = BASE64.decode(text.as_bytes()).map_err(|_| InvalidKey("it is not base64"))?;
    let Some((&ED25519, key)) = bytes.split_first() else {
        return Err(InvalidKey("it is not an Ed25519 key"));
    };
    key.try_into().map_err(|_| InvalidKey("it does not have 32 bytes"))
}

/// Returns the id of a key: the first four bytes of SHA-256 of its name, a line break, its type and
/// its bytes.
fn id_of(name: &str, key: &[u8; 32]) -> [u8; 4] {
    let mut hasher = Sha256::new();
    hasher.update(name);
    hasher.update([b'\n', ED25519]);
    hasher.update(key);
    let [a, b, c, d, ..]: [u8; 32] = hasher.finalize().into();
    [a, b, c, d]
}
