//! What follows from an exchange that failed as a whole.
//!
//! | the failure | whose fault it may be | what is decided |
//! |---|---|---|
//! | nobody was reached | the network's | nothing: a week offline leaves no trace |
//! | our server refuses the credentials, or speaks another protocol | neither's | the actor, or everything, is parked |
//! | anything else: a foreign page, a broken connection, no answer of the protocol, "not now", "refused" | the request's, perhaps | see below |
//!
//! Where it may be the request's fault, the same is asked without units. If that fails too, it is the network or the server,
//! and nothing is decided. If it is answered, the units are what does not get through:
//!
//! | units of the request | failed so for the first time | failed so again, or suspected before |
//! |---|---|---|
//! | several | nothing: it may have been a glitch | suspected, in two halves that are sent by themselves |
//! | one | nothing | isolated: suspected alone, and tried again now and then |
//! | one that our server calls too large or unreadable | dead-lettered | dead-lettered |
//!
//! Invariants:
//! 1. A fault of the server or of the way is never a unit's try, and makes no dead letter, however often it is met.
//! 2. A suspicion ends with its unit, or with the first answer about it. Each step of the search is one small decision.
//! 3. A unit that got through after all frees those that stood behind the same code: what was in the way may be gone.
//!
//! What it is not: the order in which suspected units are sent ([`super::plan`]), or the asking (`transport`'s loop).

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

/// Whose fault a failed exchange may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The network's, the server's or the credentials', whatever the request held.
    Elsewhere,
    /// Perhaps that of what the request held: the same without units tells.
    Request,
}

/// Returns whose fault a failure may be.
pub fn blame(failure: &Failure) -> Blame {
    match failure {
        Failure::Unreachable { code } if !ANSWERED.contains(code) => Blame::Elsewhere,
        Failure::Unauthorized { code } if !is_foreign(code) => Blame::Elsewhere,
        Failure::UpgradeRequired { .. } => Blame::Elsewhere,
        _ => Blame::Request,
    }
}

/// The codes of what cannot be reached with which something answered, if not our server.
const ANSWERED: [&str; 3] = ["not_our_server", "captive_portal", "proxy"];

/// What the transport says of credentials without having heard a server.
const UNASKED: [&str; 2] = ["credentials_late", "token_has_control_characters"];

/// Returns whether the request may have left the device before it failed. A request that reached nobody has not, nor has one for
/// which there were no credentials to send.
pub fn may_have_left(failure: &Failure) -> bool {
    match failure {
        Failure::Unreachable { code } => ANSWERED.contains(code),
        Failure::Unauthorized { code } => !UNASKED.contains(&code.as_str()),
        _ => true,
    }
}

/// Returns whether a code is that of something without our marker.
fn is_foreign(code: &str) -> bool {
    code.starts_with(UNMARKED)
}

/// Returns what a failure stops until something outside changes. Only our own server's word does: a page of something else
/// stops nothing for longer than it stands in the way.
pub fn parks(
    failure: &Failure,
    actor: &Actor,
    server: Option<(ServerId, ServerEpoch)>,
) -> Option<(ParkScope, String)> {
    match failure {
        Failure::Unauthorized { code } if !is_foreign(code) && !UNASKED.contains(&code.as_str()) => {
            Some((ParkScope::Actor(actor.clone()), code.clone()))
        }
        Failure::UpgradeRequired { code } if !is_foreign(code) => Some((ParkScope::Protocol, code.clone())),
        Failure::Refused { code } if code == ParkReason::ServerBehind.code() => {
            server.map(|(server, epoch)| (ParkScope::Server(server, epoch), code.clone()))
        }
        _ => None,
    }
}

/// Returns whether an answer to a request of this actor shows that what was parked can go on.
pub fn refutes(scope: &ParkScope, actor: &Actor) -> bool {
    match scope {
        ParkScope::Protocol => true,
        ParkScope::Actor(parked) => parked == actor,
        ParkScope::Entity(_) | ParkScope::Op(_) | ParkScope::Server(..) | ParkScope::Tenant(_) => false,
    }
}

/// A unit of a request that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubted {
    /// Which.
    pub unit: UnitId,
    /// The entry that planned it.
    pub planned: Seq,
    /// How many classified answers it has had.
    pub tries: u32,
    /// What was known of it.
    pub suspicion: Option<Suspicion>,
}

/// Decides about the units of a request that failed while one without units was answered. `strikes` is how many requests
/// with units have failed so in a row.
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
    // What our server refuses it refuses again. What is too large together need not be so in parts: less is sent at a time.
    let is_certain = matches!(failure, Failure::Refused { .. });
    if *failure == Failure::TooLarge || !(is_known || is_certain || strikes >= limits::STRIKES) {
        return Vec::new();
    }
    let named = |units: &[Doubted]| units.iter().map(|unit| (unit.unit, unit.planned)).collect::<Vec<_>>();
    let code = || failure.code().to_owned();
    match units {
        [] => Vec::new(),
        [lone] => {
            let times = lone.suspicion.as_ref().map_or(0, |known| known.times).saturating_add(1);
            let asked = match failure {
                Failure::Transient { retry_after, .. } => *retry_after,
                _ => None,
            };
            // Never at once: a run must come to its end.
            let wait = backoff(times, asked.or(Some(limits::BACKOFF_FIRST)), random);
            let retry_at = Some(now.plus(wait));
            vec![Decision::Suspected { units: named(units), times, code: code(), retry_at }]
        }
        several => {
            let (first, second) = several.split_at(several.len() / 2);
            let half =
                |units| Decision::Suspected { units: named(units), times: 0, code: code(), retry_at: None };
            vec![half(first), half(second)]
        }
    }
}

/// Returns the code by which our own server says of a lone unit that it will never take it.
pub fn refused_for_good(failure: &Failure) -> Option<&str> {
    match failure {
        Failure::TooLarge => Some(failure.code()),
        Failure::Refused { code } if code == "bad_request" => Some(code),
        _ => None,
    }
}

/// Returns what frees the isolated units that stand behind the same code as one that got through just now.
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
            | Decision::Dissolved { unit, .. }
            | Decision::DeadLettered { unit, .. }
            | Decision::Tried { unit, .. } => unit == id,
            _ => false,
        })
    };
    let waiting = tail.units().filter_map(|(id, unit)| Some((id, unit.planned, unit.isolated()?)));
    let waiting = waiting.filter(|(id, _, known)| {
        codes.contains(&known.code.as_str()) && known.retry_at.is_some_and(|at| at > now) && !ended(id)
    });
    waiting.map(|(id, planned, known)| again_at(*id, planned, known, now)).collect()
}

/// Returns what lets an isolated unit be sent again from a time on.
pub fn again_at(unit: UnitId, planned: Seq, known: &Suspicion, at: WallTime) -> Decision {
    let (times, code) = (known.times, known.code.clone());
    Decision::Suspected { units: vec![(unit, planned)], times, code, retry_at: Some(at) }
}

#[cfg(test)]
mod tests;
