//! The secret by which a server recognises a device.
//!
//! Device ids are no secret: logs, exports and requests contain them. Anybody who knew an id could
//! claim heads in the device's name, and the server would take the device itself for a copy. So
//! each book has a key from the start. The server remembers the key's hash when it receives it
//! first. From then on it accepts changes and heads of that device only with the same key.
//!
//! Invariants:
//! 1. The key is never shown, logged or exported: it is not in the log, and `Debug` hides it.
//! 2. A copy of a book has the same key, because it has the same owner. The server distinguishes
//!    the two by their logs.
//!
//! What it is not: a signature. The key is sent like a password, protected by TLS.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::numbers::{Hash, InvalidHash};

/// The secret by which a server recognises a device. Written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct DeviceKey([u8; 32]);

impl DeviceKey {
    /// Makes a key from a secret seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(blake3::derive_key("fieldbook 2026 device key", seed))
    }

    /// Makes a key from the bytes of [`Self::as_bytes`].
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes to store.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the hash that a server remembers.
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
