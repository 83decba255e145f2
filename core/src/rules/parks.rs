//! Parks: the requests that they stop, the answers that end them, and the parks that are no news.
//!
//! | what is parked | stops pages | an answer to a request of this actor |
//! |---|---|---|
//! | the server, or its tenant | always | lifts nothing: the owner of the book does ([`super::belonging`]) |
//! | this actor, or the protocol | except in the first request of a run, which checks whether the park still applies | ends it |
//! | another actor, an entity type, an op | never | ends nothing |
//!
//! Invariants:
//! 1. A park is written once and ended once.
//! 2. A run makes at least one request, so that a park because of credentials or the protocol ends
//!    without a person.
//!
//! What it does not do: decide why something is parked ([`super::failure::parks`],
//! [`super::answer`]), or what a person resumes ([`super::resume`]).

use super::belonging::is_about_owner;
use super::failure::refutes;
use crate::entry::{Decision, ParkScope};
use crate::names::Actor;
use crate::rows::StateRow;
use crate::tail::Tail;

/// Returns whether the server must not be asked for pages now. `is_first` is true for the first
/// request of a run.
pub fn stops_pages(state: &StateRow, actor: &Actor, is_first: bool) -> bool {
    let stops = |scope: &ParkScope| is_about_owner(scope) || (!is_first && refutes(scope, actor));
    state.parks.iter().any(|(scope, _)| stops(scope))
}

/// Returns the parks that an answer to a request of this actor ends: the answer shows that the
/// credentials and the protocol are accepted now.
pub fn lifted_by_answer(state: &StateRow, actor: &Actor) -> Vec<Decision> {
    let lifted = state.parks.iter().map(|(scope, _)| scope).filter(|scope| refutes(scope, actor));
    lifted.map(|scope| Decision::Unparked { scope: scope.clone() }).collect()
}

/// Leaves out parks that are recorded already, and ends of parks that do not exist. The tail has
/// the ops that are parked alone.
pub fn only_news(state: &StateRow, tail: &Tail, mut decisions: Vec<Decision>) -> Vec<Decision> {
    let is_parked = |scope: &ParkScope| match scope {
        ParkScope::Op(op) => tail.park_of(op).is_some(),
        _ => state.parks.iter().any(|(parked, _)| parked == scope),
    };
    decisions.retain(|decision| match decision {
        Decision::Parked { scope, .. } => !is_parked(scope),
        Decision::Unparked { scope } => is_parked(scope),
        _ => true,
    });
    decisions
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

    fn parked(scopes: &[ParkScope]) -> StateRow {
        let parks = scopes.iter().map(|scope| (scope.clone(), "code".to_owned())).collect();
        StateRow { parks, ..StateRow::default() }
    }

    /// Returns every scope of a park, from the view of ann: about the owner, about her or the
    /// protocol, about anything else.
    fn scopes() -> [Vec<ParkScope>; 3] {
        let server =
            ParkScope::Server(ServerId::from_bytes([1; 16]), ServerEpoch::from_bytes([1; 16]));
        [
            vec![server, ParkScope::Tenant(TenantId::from_bytes([1; 16]))],
            vec![ParkScope::Actor(actor("ann")), ParkScope::Protocol],
            vec![
                ParkScope::Actor(actor("ben")),
                ParkScope::Entity(EntityType::parse("lead").unwrap()),
                ParkScope::Op(op_id(1)),
            ],
        ]
    }

    #[test]
    fn a_park_stops_pages_always_but_for_the_first_request_or_never() {
        let ann = actor("ann");
        let stops = |scope: &ParkScope| {
            let state = parked(std::slice::from_ref(scope));
            (stops_pages(&state, &ann, true), stops_pages(&state, &ann, false))
        };
        for (scopes, expected) in scopes().iter().zip([(true, true), (false, true), (false, false)])
        {
            for scope in scopes {
                assert_eq!(stops(scope), expected, "{scope:?}");
            }
        }
        assert!(!stops_pages(&StateRow::default(), &ann, false));
    }

    #[test]
    fn an_answer_lifts_what_it_shows_to_be_accepted_and_nothing_else() {
        let [owner, asked, other] = scopes();
        let state = parked(&[owner, asked.clone(), other].concat());
        let lifted: Vec<_> = asked.into_iter().map(|scope| Decision::Unparked { scope }).collect();
        assert_eq!(lifted_by_answer(&state, &actor("ann")), lifted);
    }

    #[test]
    fn what_is_parked_is_not_parked_again_and_what_is_not_is_not_lifted() {
        let park = |scope| Decision::Parked { scope, code: "code".to_owned() };
        let lift = |scope| Decision::Unparked { scope };
        let (known, new) = (ParkScope::Protocol, ParkScope::Op(op_id(1)));
        let all = vec![
            park(known.clone()),
            park(new.clone()),
            park(ParkScope::Op(op_id(2))),
            lift(known.clone()),
            lift(new.clone()),
            Decision::ServerRead,
        ];
        let mut tail = Tail::default();
        tail.set_parked(op_id(2), Some("stale".to_owned()));
        let news = only_news(&parked(std::slice::from_ref(&known)), &tail, all);
        assert_eq!(news, [park(new), lift(known), Decision::ServerRead]);
    }
}
