//! The reasons for which a request is refused as a whole. They are expected, so each has a code for
//! machines and a text with advice.

use super::Quota;
use crate::protocol::{Failure, PROTOCOL};

/// A request that is refused as a whole. No unit of it was applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The kind of refusal. A device reacts to the kind.
    pub class: RefusalClass,
    /// The reason, for machines.
    pub code: &'static str,
    /// The reason, for people.
    pub message: String,
}

/// The kinds of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalClass {
    /// The request is not valid; the client is at fault.
    BadRequest,
    /// The credentials do not allow the request's actor.
    Forbidden,
    /// The server remembers another key for the device than the request's key.
    DeviceOfAnother,
    /// The device has read a later state of this store than its present one.
    Behind,
    /// The request exceeds a limit of one request.
    TooLarge,
    /// The client uses another protocol.
    UpgradeRequired,
    /// The store cannot answer this now; the same request may be answered later.
    NotNow,
}

impl Refusal {
    pub(super) fn upgrade_required(protocol: u32) -> Self {
        Self {
            class: RefusalClass::UpgradeRequired,
            code: "upgrade_required",
            message: format!(
                "this server speaks protocol {PROTOCOL}, not {protocol}: upgrade the older side"
            ),
        }
    }

    pub(super) fn wrong_actor() -> Self {
        Self {
            class: RefusalClass::Forbidden,
            code: "wrong_actor",
            message:
                "the token does not hold for this actor: sign in as the one who made the changes"
                    .into(),
        }
    }

    pub(super) fn device_of_another() -> Self {
        Self {
            class: RefusalClass::DeviceOfAnother,
            code: "device_of_another",
            message:
                "another book has this device's id: make a new book, or ask the server's operator"
                    .into(),
        }
    }

    pub(super) fn too_large(quota: &Quota) -> Self {
        Self {
            class: RefusalClass::TooLarge,
            code: "too_large",
            message: format!(
                "a request has at most {} units with {} changes: send fewer at a time",
                quota.units, quota.changes
            ),
        }
    }

    pub(super) fn server_behind() -> Self {
        Self {
            class: RefusalClass::Behind,
            code: "server_behind",
            message: "this store is older than what the device has read: start a new server epoch"
                .into(),
        }
    }

    pub(super) fn bad_cursor() -> Self {
        Self {
            class: RefusalClass::BadRequest,
            code: "bad_cursor",
            message: "a cursor is not one of this server's: send none to read from the beginning"
                .into(),
        }
    }

    pub(super) fn names_too_much() -> Self {
        let most = crate::limits::COMPARE_NAMED;
        Self {
            class: RefusalClass::TooLarge,
            code: "too_large",
            message: format!("a comparison names at most {most} parts or records: ask for fewer"),
        }
    }

    pub(super) fn bad_parts() -> Self {
        Self {
            class: RefusalClass::BadRequest,
            code: "bad_parts",
            message: "a comparison names at least one part, none within another, \
                      and only asks for the parts of one that can be divided"
                .into(),
        }
    }

    pub(super) fn digests_unknown() -> Self {
        Self {
            class: RefusalClass::NotNow,
            code: "digests_unknown",
            message: "this store was written by a program without digests: start the server again"
                .into(),
        }
    }

    pub(super) fn too_many_digests() -> Self {
        Self {
            class: RefusalClass::BadRequest,
            code: "too_many_digests",
            message: format!("a head claim has at most {} contents", crate::limits::ANCHOR_DIGESTS),
        }
    }
}

impl From<Refusal> for Failure {
    /// Makes the failure that a transport without a network returns for a refusal.
    fn from(refusal: Refusal) -> Self {
        let code = refusal.code.to_owned();
        match refusal.class {
            RefusalClass::BadRequest | RefusalClass::Behind | RefusalClass::DeviceOfAnother => {
                Self::Refused { code }
            }
            RefusalClass::Forbidden => Self::Unauthorized { code },
            RefusalClass::TooLarge => Self::TooLarge,
            RefusalClass::UpgradeRequired => Self::UpgradeRequired { code },
            RefusalClass::NotNow => Self::Transient { code, retry_after: None, marked: true },
        }
    }
}
