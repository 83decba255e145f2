//! Identities: sixteen bytes each, one type for each meaning.
//!
//! Ids that people may see in order of age ([`OpId`], [`UnitId`], generated record ids) are UUIDv7.
//! The caller passes the time and the randomness, so this module has neither.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::codec::{Decode, Encode};
use crate::random::Randomness;
use crate::time::WallTime;

/// Text that is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {what}: expected a UUID such as 0192f0c1-8f5e-7c3a-9b1d-2f6a3c4d5e6f")]
pub struct InvalidId {
    what: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
        #[serde(into = "Uuid", from = "Uuid")]
        pub struct $name([u8; 16]);

        impl $name {
            /// Makes an id ordered by `at` from the caller's randomness (a UUIDv7).
            pub fn new(at: WallTime, random: &mut dyn Randomness) -> Self {
                Self(*time_ordered(at, random).as_bytes())
            }

            /// Makes an id without any meaning, from the caller's randomness alone (a UUIDv4).
            pub fn random(random: &mut dyn Randomness) -> Self {
                let mut bytes = [0; 16];
                random.fill(&mut bytes);
                Self(*uuid::Builder::from_random_bytes(bytes).into_uuid().as_bytes())
            }

            /// Makes an id of sixteen bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Returns the sixteen bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Uuid::from_bytes(self.0).fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), Uuid::from_bytes(self.0))
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                Self::from_bytes(id.0)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(*id.as_bytes())
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Uuid::parse_str(text).map(Self::from).map_err(|_| InvalidId { what: $what })
            }
        }
    };
}

id!(
    /// Names one op for ever, on every device and at the server.
    OpId, "op id"
);
id!(
    /// Names one unit. The id is the idempotency key: the server recognises the unit by it each
    /// time the unit is sent.
    UnitId, "unit id"
);
id!(
    /// Names one device's book. It stays the same through every epoch of its log.
    DeviceId, "device id"
);
id!(
    /// Names one epoch of a log. A restored or cloned file starts a new epoch.
    Epoch, "log epoch"
);
id!(
    /// Names one server store.
    ServerId, "server id"
);
id!(
    /// Names one epoch of a server store. A restored backup starts a new epoch.
    ServerEpoch, "server epoch"
);
id!(
    /// Names one tenant of a server store, which a token gives access to. The id does not reveal
    /// the tenant's name.
    TenantId, "tenant id"
);
id!(
    /// Names one request, so that a device never takes a late answer to another request for the
    /// answer to this one.
    RequestId, "request id"
);

impl TenantId {
    /// Returns the id of the tenant with this name at a server. It is the same through every epoch
    /// of the server's store, and different at every other server.
    pub fn derive(server: &ServerId, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("fieldbook 2026 tenant id");
        hasher.update(server.as_bytes()).update(name.as_bytes());
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        Self(bytes)
    }
}

/// Makes a UUIDv7 from a time and 80 random bits.
///
/// Source: RFC 9562, section 5.7. Times before 1970 count as 1970.
pub(crate) fn time_ordered(at: WallTime, random: &mut dyn Randomness) -> Uuid {
    let mut bytes = [0u8; 10];
    random.fill(&mut bytes);
    uuid::Builder::from_unix_timestamp_millis(at.milliseconds().max(0).unsigned_abs(), &bytes)
        .into_uuid()
}
