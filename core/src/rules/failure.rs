//! The consequences of an exchange that failed as a whole.
//!
//! | the failure | the possible cause | the decision |
//! |---|---|---|
//! | nobody was reached | the network | none: a week offline leaves no trace |
//! | our server refuses the credentials, or speaks another protocol | neither network nor request | the actor, or everything, is parked |
//! | anything else: a foreign page, a broken connection, an invalid answer, "not now", "refused" | perhaps the request | see below |
//!
//! If the request may be the cause, the loop makes an exchange without units. If that fails too,
//! the cause is the network or the server, and nothing is decided. If it is answered, the units do
//! not get through:
//!
//! | units of the request | first such failure | second such failure, or suspected before |
//! |---|---|---|
//! | several | none: the failure may have been a glitch | suspected, in two halves that are sent alone |
//! | one | none | isolated: suspected alone, and tried again now and then |
//! | one that our server calls too large or unreadable | dead-lettered | dead-lettered |
//!
//! Invariants:
//! 1. A fault of the server or the network never counts as a try of a unit, and makes no dead
//!    letter, however often it happens.
//! 2. A suspicion ends with its unit, or with the first answer to it. Each step of the search is
//!    one small decision.
//! 3. When an isolated unit gets through, units that are isolated under the same code may be sent
//!    at once: the obstacle may be gone.
//!
//! What it does not do: order suspected units ([`super::plan`]), or make the exchange without units
//! (the loop in `transport`).

use super::backoff::backoff;
use super::status::ParkReason;
use crate::entry::{Decision, ParkScope};
use crate::ids::{ServerEpoch, ServerId, UnitId};
use crate::limits;
use crate::names::Actor;
use crate::numbers::Seq;
use crate::protocol::{Failure, UNMARKED};
use crate::random::Randomness;
use crate::rows::Suspicion;
use crate::tail::Tail;
use crate::time::WallTime;

/// The possible cause of a failed exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The network, the server or the credentials, whatever the content of the request is.
    Elsewhere,
    /// Perhaps the content of the request: an exchange without units shows it.
    Request,
}

/// Returns the possible cause of a failure.
pub fn blame(failure: &Failure) -> Blame {
    match failure {
        Failure::Unreachable { code } if !ANSWERED.contains(code) => Blame::Elsewhere,
        Failure::Unauthorized { code } if !is_foreign(code) => Blame::Elsewhere,
        Failure::UpgradeRequired { .. } => Blame::Elsewhere,
        _ => Blame::Request,
    }
}

/// The codes of `Unreachable` for an answer of something other than our server.
const ANSWERED: [&str; 3] = ["not_our_server", "captive_portal", "proxy"];

/// The codes that the transport itself makes for missing credentials, without an answer of a
/// server.
const UNASKED: [&str; 2] = ["credentials_late", "token_has_control_characters"];

/// Returns whether the request may have left the device before it failed. It has not left if nobody
/// was reached, or if there were no credentials to send.
pub fn may_have_left(failure: &Failure) -> bool {
    match failure {
        Failure::Unreachable { code } => ANSWERED.contains(code),
        Failure::Unauthorized { code } => !UNASKED.contains(&code.as_str()),
        _ => true,
    }
}

/// Returns whether a code is that of an answer without our marker.
fn is_foreign(code: &str) -> bool {
    code.starts_with(UNMARKED)
}

/// Returns the scope that a failure parks until something outside changes. Only an answer of our
/// own server parks anything: a page of something else stops exchanges only as long as it is in the
/// way.
pub fn parks(
    failure: &Failure,
    actor: &Actor,
    server: Option<(ServerId, ServerEpoch)>,
) -> Option<(ParkScope, String)> {
    match failure {
        Failure::Unauthorized { code }
            if !is_foreign(code) && !UNASKED.contains(&code.as_str()) =>
        {
            Some((ParkScope::Actor(actor.clone()), code.clone()))
        }
        Failure::UpgradeRequired { code } if !is_foreign(code) => {
            Some((ParkScope::Protocol, code.clone()))
        }
        Failure::Refused { code } if code == ParkReason::ServerBehind.code() => {
            server.map(|(server, epoch)| (ParkScope::Server(server, epoch), code.clone()))
        }
        _ => None,
    }
}

/// Returns whether an answer to a request of this actor shows that a park can end.
pub fn refutes(scope: &ParkScope, actor: &Actor) -> bool {
    match scope {
        ParkScope::Protocol => true,
        ParkScope::Actor(parked) => parked == actor,
        ParkScope::Entity(_) | ParkScope::Op(_) | ParkScope::Server(..) | ParkScope::Tenant(_) => {
            false
        }
    }
}

/// A unit of a request that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubted {
    /// The unit.
    pub unit: UnitId,
    /// The entry that planned it.
    pub planned: Seq,
    /// The number of classified answers to the unit so far.
    pub tries: u32,
    /// The suspicion against the unit so far.
    pub suspicion: Option<Suspicion>,
}

/// Decides about the units of a request that failed while a request without units was answered.
/// `strikes` is the number of such failures in a row.
pub fn isolate(
    failure: &Failure,
    units: &[Doubted],
    strikes: u32,
    now: WallTime,
    random: &mut dyn Randomness,
) -> Vec<Decision> {
    if let (Some(code), [lone]) = (refused_for_good(failure), units) {
        let (unit, planned, tries) = (lone.unit, lone.planned, lone.tries.saturating_add(1));
        return vec![Decision::DeadLettered {
            unit,
            planned,
            tries,
            code: code.to_owned(),
            message: None,
            answered: false,
        }];
    }
    let is_known = units.iter().any(|unit| unit.suspicion.is_some());
    // Our server refuses the same units again. Units that are too large together may fit in parts,
    // so less is sent at a time.
    let is_certain = matches!(failure, Failure::Refused { .. });
    if *failure == Failure::TooLarge || !(is_known || is_certain || strikes >= limits::STRIKES) {
        return Vec::new();
    }
    let named =
        |units: &[Doubted]| units.iter().map(|unit| (unit.unit, unit.planned)).collect::<Vec<_>>();
    let code = || failure.code().to_owned();
    match units {
        [] => Vec::new(),
        [lone] => {
            let times = lone.suspicion.as_ref().map_or(0, |known| known.times).saturating_add(1);
            let asked = match failure {
                Failure::Transient { retry_after, .. } => *retry_after,
                _ => None,
            };
            // The wait is never zero, because a run must end.
            let wait = backoff(times, asked.or(Some(limits::BACKOFF_FIRST)), random);
            let retry_at = Some(now.plus(wait));
            vec![Decision::Suspected { units: named(units), times, code: code(), retry_at }]
        }
        several => {
            let (first, second) = several.split_at(several.len() / 2);
            let half = |units| Decision::Suspected {
                units: named(units),
                times: 0,
                code: code(),
                retry_at: None,
            };
            vec![half(first), half(second)]
        }
    }
}

/// Returns the code with which our own server refuses a lone unit for good.
pub fn refused_for_good(failure: &Failure) -> Option<&str> {
    match failure {
        Failure::TooLarge => Some(failure.code()),
        Failure::Refused { code } if code == "bad_request" => Some(code),
        _ => None,
    }
}

/// Returns the decisions that free isolated units under the same code as a unit that just got
/// through.
pub fn freed(tail: &Tail, decisions: &[Decision], now: WallTime) -> Vec<Decision> {
    let through = |unit: &UnitId| tail.unit(unit).and_then(|unit| unit.isolated());
    let codes: Vec<_> = decisions
        .iter()
        .filter_map(|decision| match decision {
            Decision::Acked { unit, .. } => through(unit).map(|known| known.code.as_str()),
            _ => None,
        })
        .collect();
    if codes.is_empty() {
        return Vec::new();
    }
    let ended = |id: &UnitId| {
        decisions.iter().any(|decision| match decision {
            Decision::Acked { unit, .. }
            | Decision::Requeued { unit, .. }
            | Decision::DeadLettered { unit, .. }
            | Decision::Tried { unit, .. } => unit == id,
            _ => false,
        })
    };
    let waiting = tail.units().filter_map(|(id, unit)| Some((id, unit.planned, unit.isolated()?)));
    let waiting = waiting.filter(|(id, _, known)| {
        codes.contains(&known.code.as_str())
            && known.retry_at.is_some_and(|at| at > now)
            && !ended(id)
    });
    waiting.map(|(id, planned, known)| again_at(*id, planned, known, now)).collect()
}

/// Returns the decision that lets an isolated unit be sent again from a time on.
pub fn again_at(unit: UnitId, planned: Seq, known: &Suspicion, at: WallTime) -> Decision {
    let (times, code) = (known.times, known.code.clone());
    Decision::Suspected { units: vec![(unit, planned)], times, code, retry_at: Some(at) }
}

#[cfg(test)]
mod tests;
