//! The secret by which a server knows a device again.
//!
//! Ids of devices are no secret: they stand in logs, exports and requests. Whoever knew one could claim heads in its name, so
//! that the device itself was taken for a copy. A key is made with the book and told to the server, which remembers its hash at
//! first sight and takes changes and heads of that device from nobody else.
//!
//! Invariants:
//! 1. It is never shown, logged or exported: it is not in the log, and `Debug` hides it.
//! 2. A copy of a book has the same key: it is the same owner's, and is told from the original by its log.
//!
//! What it is not: a signature. It travels like a password, and TLS keeps it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::numbers::{Hash, InvalidHash};

/// The secret by which a server knows a device again. Written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct DeviceKey([u8; 32]);

impl DeviceKey {
    /// Makes one from a secret seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(blake3::derive_key("fieldbook 2026 device key", seed))
    }

    /// Takes what [`Self::as_bytes`] returned.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes, to be stored.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns what a server remembers of it.
    pub fn fingerprint(&self) -> Hash {
        Hash::from_bytes(blake3::derive_key("fieldbook 2026 device key at a server", &self.0))
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceKey(…)")
    }
}

impl From<DeviceKey> for String {
    fn from(key: DeviceKey) -> Self {
        Hash::from_bytes(key.0).to_string()
    }
}

impl TryFrom<String> for DeviceKey {
    type Error = InvalidHash;
    fn try_from(text: String) -> Result<Self, InvalidHash> {
        Hash::try_from(text).map(|hash| Self(*hash.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_travels_as_text_and_is_not_shown() {
        let key = DeviceKey::from_seed(&[7; 32]);
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<DeviceKey>(&text).unwrap(), key);
        assert_eq!(text.len(), 66);
        assert_eq!(format!("{key:?}"), "DeviceKey(…)");
        assert!(!text.contains(&key.fingerprint().to_string()));
    }
}
