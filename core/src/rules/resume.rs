//! Ends parks when a person reports that something outside has changed.
//!
//! | the person has | these resume |
//! |---|---|
//! | new credentials | ops of this actor |
//! | upgraded the app or the server | entity types, the protocol, and ops that an upcaster made too large |
//!
//! Invariant: parks for another reason remain: a choice in a conflict, an accepted server, another
//! actor.
//!
//! What it does not do: end the parks that an answer of the server ends
//! ([`super::failure::refutes`], [`super::belonging::lifted`]).

use super::status::ParkReason;
use crate::entry::{Decision, ParkScope};
use crate::names::Actor;
use crate::rows::StateRow;
use crate::tail::Tail;

/// A change outside the book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// There are new credentials for this actor.
    Credentials(&'a Actor),
    /// The app or the server was upgraded.
    Upgraded,
}

/// Returns the decisions that end the parks that waited for this change.
pub fn resume(state: &StateRow, tail: &Tail, change: Change<'_>) -> Vec<Decision> {
    let whole = state.parks.iter().map(|(scope, code)| (scope.clone(), code.as_str()));
    let ops = tail.parked().map(|(op, code)| (ParkScope::Op(*op), code));
    let concerned = whole.chain(ops).filter(|(scope, code)| waits_for(change, scope, code));
    let mut scopes: Vec<_> = concerned.map(|(scope, _)| scope).collect();
    // The tail returns its parked ops in no order, and a decision needs one.
    scopes.sort_unstable();
    scopes.into_iter().map(|scope| Decision::Unparked { scope }).collect()
}

fn waits_for(change: Change<'_>, scope: &ParkScope, code: &str) -> bool {
    match (change, scope) {
        (Change::Credentials(actor), ParkScope::Actor(parked)) => parked == actor,
        (Change::Upgraded, ParkScope::Protocol | ParkScope::Entity(_)) => true,
        (Change::Upgraded, ParkScope::Op(_)) => {
            ParkReason::of(scope, code) == ParkReason::UpcastTooLarge
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ServerEpoch, ServerId, TenantId};
    use crate::names::EntityType;
    use crate::rules::test_view::op_id;

    fn actor(name: &str) -> Actor {
        Actor::parse(name).unwrap()
    }

    /// Returns the parks that end in a book in which everything is parked that can be.
    fn goes_on(change: Change<'_>) -> Vec<ParkScope> {
        let parks = [
            (ParkScope::Actor(actor("ann")), "token_expired"),
            (ParkScope::Actor(actor("ben")), "token_expired"),
            (ParkScope::Entity(EntityType::parse("lead").unwrap()), "unknown_entity"),
            (ParkScope::Op(op_id(1)), "conflict"),
            (ParkScope::Op(op_id(2)), ParkReason::UpcastTooLarge.code()),
            (
                ParkScope::Server(ServerId::from_bytes([1; 16]), ServerEpoch::from_bytes([1; 16])),
                "other",
            ),
            (ParkScope::Tenant(TenantId::from_bytes([1; 16])), "other_tenant"),
            (ParkScope::Protocol, "upgrade"),
        ];
        let (mut whole, mut tail) = (Vec::new(), Tail::default());
        for (scope, code) in parks {
            match scope {
                ParkScope::Op(op) => tail.set_parked(op, Some(code.to_owned())),
                scope => whole.push((scope, code.to_owned())),
            }
        }
        let decisions = resume(&StateRow { parks: whole, ..StateRow::default() }, &tail, change);
        let scopes = decisions.into_iter().map(|decision| match decision {
            Decision::Unparked { scope } => scope,
            other => panic!("nothing goes on by {other:?}"),
        });
        scopes.collect()
    }

    #[test]
    fn new_credentials_let_go_on_what_their_actor_made() {
        assert_eq!(goes_on(Change::Credentials(&actor("ann"))), [ParkScope::Actor(actor("ann"))]);
    }

    #[test]
    fn an_upgrade_lets_go_on_what_the_old_version_could_not_do() {
        let lead = ParkScope::Entity(EntityType::parse("lead").unwrap());
        assert_eq!(goes_on(Change::Upgraded), [lead, ParkScope::Op(op_id(2)), ParkScope::Protocol]);
    }
}
