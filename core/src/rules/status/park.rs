//! The reasons for a park, as a type.
//!
//! The log stores the scope of a park and a code ([`Decision::Parked`]). Only this file reads and
//! names such codes.
//!
//! | scope | stored code | reason |
//! |---|---|---|
//! | an op | `conflict` | [`ParkReason::Conflict`] |
//! | an op | `stale` | [`ParkReason::WornOut`] |
//! | an op | `ahead` | [`ParkReason::Ahead`] |
//! | an op | `upcast` | [`ParkReason::UpcastTooLarge`] |
//! | an op | `recovered` | [`ParkReason::Recovered`] |
//! | an op | anything else | [`ParkReason::Unknown`] |
//! | a server | `server_behind` | [`ParkReason::ServerBehind`] |
//! | a server | anything else | [`ParkReason::OtherServer`] |
//! | a tenant | anything | [`ParkReason::OtherTenant`] |
//! | an actor | the server's own code | [`ParkReason::Unauthorized`] |
//! | an entity type | the server's own code | [`ParkReason::Unsupported`] |
//! | the protocol | the server's own code | [`ParkReason::OtherProtocol`] |
//!
//! Invariants:
//! 1. Every stored park has a reason, whatever its code is.
//! 2. A reason that is stored and read again is the same reason.

use serde::Serialize;

use crate::entry::{Decision, ParkScope};
use crate::ids::OpId;

/// The reason for a park.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ParkReason {
    /// The op met a conflict, and a person has to choose a side.
    Conflict,
    /// Others changed the record before each of the op's attempts, as often as
    /// [`crate::limits::STALE_TRIES`] allows.
    WornOut,
    /// The server called the op's stamp too far ahead of its own time, as often as
    /// [`crate::limits::STALE_TRIES`] allows.
    Ahead,
    /// The app's upcaster makes the op larger than a record may be.
    UpcastTooLarge,
    /// The op was recovered from a damaged file, so it is not known whether it reached the server.
    Recovered,
    /// The app has no upcaster from the op's schema version to the declared one.
    NoUpcaster,
    /// The server did not accept the credentials of the actor.
    Unauthorized,
    /// The server does not accept the entity type, or one of its fields.
    Unsupported,
    /// The server speaks another version of the protocol.
    OtherProtocol,
    /// Another server answered, or the known one after a restore from a backup.
    OtherServer,
    /// The known server answered that it was set back.
    ServerBehind,
    /// The credentials belong to another tenant than the book.
    OtherTenant,
    /// Another version of this program parked the op, for a reason that this version does not know.
    Unknown,
}

impl ParkReason {
    /// Returns the reason of a stored park.
    pub fn of(scope: &ParkScope, code: &str) -> Self {
        match scope {
            ParkScope::Op(_) => Self::of_op(code),
            ParkScope::Server(..) if code == Self::ServerBehind.code() => Self::ServerBehind,
            ParkScope::Server(..) => Self::OtherServer,
            ParkScope::Tenant(_) => Self::OtherTenant,
            ParkScope::Actor(_) => Self::Unauthorized,
            ParkScope::Entity(_) => Self::Unsupported,
            ParkScope::Protocol => Self::OtherProtocol,
        }
    }

    /// Returns the stored code of a reason. It is empty if the code is the server's own, or if none
    /// is stored.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::WornOut => "stale",
            Self::Ahead => "ahead",
            Self::UpcastTooLarge => "upcast",
            Self::Recovered => "recovered",
            Self::OtherServer => "other_server",
            Self::ServerBehind => "server_behind",
            Self::OtherTenant => "other_tenant",
            Self::NoUpcaster
            | Self::Unauthorized
            | Self::Unsupported
            | Self::OtherProtocol
            | Self::Unknown => "",
        }
    }

    /// Returns the decision that parks an op for this reason.
    pub fn park(self, op: OpId) -> Decision {
        Decision::Parked { scope: ParkScope::Op(op), code: self.code().to_owned() }
    }

    /// Returns whether a person may send the op again or discard it, although it is neither a dead
    /// letter nor held. An op in a conflict needs a choice. An op that is parked for something
    /// outside resumes when that changes.
    pub const fn is_for_a_person(self) -> bool {
        matches!(
            self,
            Self::WornOut | Self::Ahead | Self::UpcastTooLarge | Self::Recovered | Self::Unknown
        )
    }

    /// Returns the reason for which an op is parked alone.
    pub fn of_op(code: &str) -> Self {
        let known =
            [Self::Conflict, Self::WornOut, Self::Ahead, Self::UpcastTooLarge, Self::Recovered];
        known.into_iter().find(|reason| reason.code() == code).unwrap_or(Self::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ServerEpoch, ServerId, TenantId};
    use crate::names::{Actor, EntityType};

    fn op() -> ParkScope {
        ParkScope::Op(OpId::from_bytes([1; 16]))
    }

    fn server() -> ParkScope {
        ParkScope::Server(ServerId::from_bytes([1; 16]), ServerEpoch::from_bytes([2; 16]))
    }

    #[test]
    fn a_reason_that_is_stored_reads_as_the_same_reason() {
        use ParkReason::{
            Ahead, Conflict, OtherServer, OtherTenant, ServerBehind, UpcastTooLarge, WornOut,
        };
        let tenant = || ParkScope::Tenant(TenantId::from_bytes([3; 16]));
        for (scope, reason) in [
            (op(), Conflict),
            (op(), WornOut),
            (op(), Ahead),
            (op(), UpcastTooLarge),
            (server(), OtherServer),
            (server(), ServerBehind),
            (tenant(), OtherTenant),
        ] {
            assert_eq!(ParkReason::of(&scope, reason.code()), reason);
        }
    }

    /// Existing logs contain these codes: a changed code would get another meaning.
    #[test]
    fn the_stored_codes_never_change() {
        let stored = [
            ParkReason::Conflict,
            ParkReason::WornOut,
            ParkReason::Ahead,
            ParkReason::UpcastTooLarge,
            ParkReason::Recovered,
        ];
        let codes = ["conflict", "stale", "ahead", "upcast", "recovered"];
        assert_eq!(stored.map(ParkReason::code), codes);
        let others = [ParkReason::OtherServer, ParkReason::ServerBehind, ParkReason::OtherTenant];
        assert_eq!(others.map(ParkReason::code), ["other_server", "server_behind", "other_tenant"]);
    }

    #[test]
    fn a_code_that_nobody_knows_still_has_a_reason() {
        let entity = EntityType::parse("lead").unwrap();
        let actor = Actor::parse("ann").unwrap();
        for (scope, reason) in [
            (op(), ParkReason::Unknown),
            (server(), ParkReason::OtherServer),
            (ParkScope::Actor(actor), ParkReason::Unauthorized),
            (ParkScope::Entity(entity), ParkReason::Unsupported),
            (ParkScope::Protocol, ParkReason::OtherProtocol),
        ] {
            assert_eq!(ParkReason::of(&scope, "new in a later version"), reason);
        }
    }

    #[test]
    fn an_op_is_parked_under_the_code_of_the_reason() {
        let one = OpId::from_bytes([1; 16]);
        let Decision::Parked { scope, code } = ParkReason::WornOut.park(one) else {
            panic!("it parks")
        };
        assert_eq!((scope, code), (ParkScope::Op(one), "stale".to_owned()));
    }
}
