//! Decides whether the server, the epoch and the tenant that answered are those that the book
//! belongs to.
//!
//! ```text
//!   first answer ever              the book belongs to this server from now on
//!   the known server and tenant    applied; parks because of others end by themselves
//!   another server, another epoch  nothing is applied: parked until the known one answers, or a person accepts the other
//!   another tenant                 the same; the likely cause are other credentials
//! ```
//!
//! Invariants:
//! 1. Nothing is applied from a server that does not own the book. It is sent only a question for
//!    its identity.
//! 2. An answer of the known server ends every such park, without a person.
//! 3. A person accepts a server by name. If several await acceptance, none is chosen automatically.
//!    Of one server only its latest epoch awaits it.
//!
//! What it is not: a proof of the server's identity. The connection provides that.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::not_possible::NotPossible;
use crate::entry::{Decision, ParkScope};
use crate::ids::{ServerEpoch, ServerId, TenantId};
use crate::protocol::ExchangeAnswer;
use crate::rows::StateRow;
use crate::rules::status::ParkReason;

/// The code of a park for another tenant of the known server.
pub const OTHER_TENANT: &str = ParkReason::OtherTenant.code();

/// A server, its epoch and, if it is known, a tenant: what a book can belong to. Written
/// `SERVER/EPOCH` or `SERVER/EPOCH/TENANT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServerIdentity {
    /// The server.
    pub server: ServerId,
    /// The epoch of the server.
    pub epoch: ServerEpoch,
    /// The tenant, if it is another one than the book's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
}

impl fmt::Display for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.server, self.epoch)?;
        self.tenant.map_or(Ok(()), |tenant| write!(f, "/{tenant}"))
    }
}

/// Text that does not name a server and its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected SERVER/EPOCH or SERVER/EPOCH/TENANT, each an id as a UUID")]
pub struct InvalidServerIdentity;

impl FromStr for ServerIdentity {
    type Err = InvalidServerIdentity;

    fn from_str(text: &str) -> Result<Self, InvalidServerIdentity> {
        let mut parts = text.split('/');
        let mut next = || parts.next();
        let server = next().and_then(|part| part.parse().ok()).ok_or(InvalidServerIdentity)?;
        let epoch = next().and_then(|part| part.parse().ok()).ok_or(InvalidServerIdentity)?;
        let tenant = next().map(str::parse).transpose().map_err(|_| InvalidServerIdentity)?;
        if next().is_some() {
            return Err(InvalidServerIdentity);
        }
        Ok(Self { server, epoch, tenant })
    }
}

/// Returns the parks that follow if the server that answered does not own the book; empty if it
/// does.
pub fn stranger(state: &StateRow, answer: &ExchangeAnswer) -> Vec<Decision> {
    let (server, epoch) = (answer.server, answer.server_epoch);
    let Some(known) = state.server else { return Vec::new() };
    if known != (server, epoch) {
        // A server has one epoch at a time. So its present epoch ends every park because of another
        // epoch of it.
        let former = |scope: &&ParkScope| matches!(scope, ParkScope::Server(one, other) if *one == server && *other != epoch);
        let scopes = state.parks.iter().map(|(scope, _)| scope).filter(former);
        let mut decisions: Vec<_> =
            scopes.map(|scope| Decision::Unparked { scope: scope.clone() }).collect();
        let scope = ParkScope::Server(server, epoch);
        let code = ParkReason::OtherServer.code().to_owned();
        decisions.push(Decision::Parked { scope, code });
        return decisions;
    }
    match (state.tenant, answer.tenant) {
        (Some(ours), Some(tenant)) if ours != tenant => {
            vec![Decision::Parked {
                scope: ParkScope::Tenant(tenant),
                code: OTHER_TENANT.to_owned(),
            }]
        }
        _ => Vec::new(),
    }
}

/// Returns whether a park stops everything until the owner of the book is clear.
pub const fn is_about_owner(scope: &ParkScope) -> bool {
    matches!(scope, ParkScope::Server(..) | ParkScope::Tenant(_))
}

/// Returns whether the book waits for its owner. Any server that answers is then asked for its
/// identity, and receives nothing else.
pub fn waits_for_owner(state: &StateRow) -> bool {
    state.parks.iter().any(|(scope, _)| is_about_owner(scope))
}

/// Returns whether the known server itself answered that it was set back. Only a request with the
/// device's cursors shows whether that is still true.
pub fn is_behind(state: &StateRow) -> bool {
    state.parks.iter().any(|(scope, code)| ParkReason::of(scope, code) == ParkReason::ServerBehind)
}

/// Returns the parks that end when the owner of the book answers.
pub fn lifted(state: &StateRow) -> Vec<Decision> {
    let scopes = state.parks.iter().map(|(scope, _)| scope).filter(|scope| is_about_owner(scope));
    scopes.map(|scope| Decision::Unparked { scope: scope.clone() }).collect()
}

/// Returns the servers that answered in place of the book's owner and may be accepted, in the order
/// of their answers.
pub fn candidates(state: &StateRow) -> Vec<ServerIdentity> {
    let parks = state.parks.iter().filter_map(|(scope, _)| match scope {
        ParkScope::Server(server, epoch) => {
            Some(ServerIdentity { server: *server, epoch: *epoch, tenant: None })
        }
        ParkScope::Tenant(tenant) => {
            let (server, epoch) = state.server?;
            Some(ServerIdentity { server, epoch, tenant: Some(*tenant) })
        }
        _ => None,
    });
    parks.collect()
}

/// Returns the decisions by which a person makes one of the [`candidates`] the owner of the book.
///
/// # Errors
/// [`NotPossible::ServerHasNotAnswered`] if `accepted` is not a candidate.
pub fn accept(state: &StateRow, accepted: &ServerIdentity) -> Result<Vec<Decision>, NotPossible> {
    if !candidates(state).contains(accepted) {
        return Err(NotPossible::ServerHasNotAnswered);
    }
    let ServerIdentity { server, epoch, tenant } = *accepted;
    // A server that only answered that it was set back has not named its present epoch.
    let named = tenant.is_some() || state.server != Some((server, epoch));
    let mut decisions = lifted(state);
    decisions.push(Decision::ServerAccepted { server: named.then_some((server, epoch)) });
    // Another epoch of the book's own server has the same tenants. The token of the next request
    // must not change the tenant.
    let is_same = state.server.is_some_and(|(known, _)| known == server) && named;
    let tenant = tenant.or(state.tenant.filter(|_| is_same));
    decisions.extend(tenant.map(|tenant| Decision::BelongsTo { tenant }));
    Ok(decisions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(number: u8) -> (ServerId, ServerEpoch) {
        (ServerId::from_bytes([number; 16]), ServerEpoch::from_bytes([number + 100; 16]))
    }

    fn parked(numbers: &[u8]) -> StateRow {
        let park = |number: &u8| {
            let (server, epoch) = server(*number);
            (ParkScope::Server(server, epoch), ParkReason::OtherServer.code().to_owned())
        };
        StateRow {
            server: Some(server(1)),
            parks: numbers.iter().map(park).collect(),
            ..StateRow::default()
        }
    }

    #[test]
    fn an_identity_reads_as_it_is_written() {
        let (server, epoch) = server(3);
        for tenant in [None, Some(TenantId::from_bytes([9; 16]))] {
            let identity = ServerIdentity { server, epoch, tenant };
            assert_eq!(identity.to_string().parse(), Ok(identity));
        }
        for bad in ["", "x", "x/y", &format!("{server}"), &format!("{server}/{epoch}/x"), "////"] {
            assert_eq!(bad.parse::<ServerIdentity>(), Err(InvalidServerIdentity), "{bad}");
        }
    }

    #[test]
    fn only_who_has_answered_can_be_accepted_and_that_ends_every_other_candidature() {
        let state = parked(&[2, 3]);
        let named = candidates(&state);
        assert_eq!(
            named.iter().map(|one| (one.server, one.epoch)).collect::<Vec<_>>(),
            [server(2), server(3)]
        );
        let (other, epoch) = server(4);
        assert_eq!(
            accept(&state, &ServerIdentity { server: other, epoch, tenant: None }),
            Err(NotPossible::ServerHasNotAnswered)
        );
        let decisions = accept(&state, &named[0]).unwrap();
        assert_eq!(decisions.len(), 3);
        assert_eq!(decisions.last(), Some(&Decision::ServerAccepted { server: Some(server(2)) }));
    }

    /// A restored server was accepted, and the next answer was for the token of another tenant.
    /// That tenant received the book's changes.
    #[test]
    fn another_life_of_the_own_server_is_accepted_with_the_tenant_that_the_book_belongs_to() {
        let tenant = TenantId::from_bytes([9; 16]);
        let state = StateRow { tenant: Some(tenant), ..parked(&[2]) };
        let belongs = |server: ServerId| {
            let (_, epoch) = self::server(7);
            let parks =
                vec![(ParkScope::Server(server, epoch), ParkReason::OtherServer.code().to_owned())];
            let state = StateRow { parks, ..state.clone() };
            let decisions =
                accept(&state, &ServerIdentity { server, epoch, tenant: None }).unwrap();
            decisions.contains(&Decision::BelongsTo { tenant })
        };
        assert_eq!((belongs(server(1).0), belongs(server(2).0)), (true, false));
    }

    #[test]
    fn the_id_of_a_tenant_is_its_own_at_each_server() {
        let (one, other) = (server(1).0, server(2).0);
        assert_eq!(TenantId::derive(&one, "acme"), TenantId::derive(&one, "acme"));
        assert_ne!(TenantId::derive(&one, "acme"), TenantId::derive(&one, "acme2"));
        assert_ne!(TenantId::derive(&one, "acme"), TenantId::derive(&other, "acme"));
    }
}
