//! The words for the state of an op, a record or the book. Each text ends a sentence whose subject
//! is the op, the record or the book: "Change 2 … waits for its turn". Times are in UTC.

use std::fmt;

use super::{Held, OpState, ParkReason, SyncState};
use crate::limits;
use crate::names::Actor;

/// Returns the state of an op, in words. `made_by` is its author.
pub fn in_words(state: &OpState, made_by: Option<&Actor>) -> String {
    match state {
        OpState::Held(Held::OtherActor { actor }) if made_by == Some(actor) => {
            format!("waits until {actor}, who made it, uses this device again")
        }
        state => state.to_string(),
    }
}

impl fmt::Display for OpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending { tries: 0 } => f.write_str("waits for its turn: the next sync sends it"),
            Self::Pending { tries } => {
                write!(
                    f,
                    "was put off {} by the server, and the next sync sends it again",
                    times(*tries)
                )
            }
            Self::WaitingForNetwork { since, since_at } => write!(
                f,
                "waits for the network since entry {since}{}: it is not known to have reached the server, and the next sync \
                 sends it",
                since_at.map_or_else(String::new, |at| format!(" ({at})"))
            ),
            Self::InFlight { since, since_at, tries } => {
                let at = since_at.map_or_else(String::new, |at| format!(", ready since {at}"));
                let again = if *tries == 0 { "" } else { " again" };
                write!(
                    f,
                    "was sent{again} (entry {since}{at}), and the server has not answered yet"
                )
            }
            Self::Held(held) => held.fmt(f),
            Self::Parked { reason, code } => {
                write!(f, "is stopped, since {reason} ({})", shown(code))
            }
            Self::InConflict { conflict } => {
                write!(
                    f,
                    "is stopped, since it met conflict {conflict}, in which a person has to choose"
                )
            }
            Self::DeadLettered { code, message, tries, last_at } => {
                f.write_str("was refused by the server for good")?;
                if *tries > 1 {
                    write!(f, " after {tries} tries")?;
                }
                if let Some(at) = last_at {
                    write!(f, " at {at}")?;
                }
                write!(f, ": {}", shown(code))?;
                if message.is_empty() { Ok(()) } else { write!(f, ", \"{message}\"") }
            }
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UndoWindow { until } => write!(f, "is held until {until}, as long as it can still be undone"),
            Self::BackingOff { until, code, tries } => write!(
                f,
                "is held until {until}: the server could not take it ({}), and {tries} of {} tries are used",
                shown(code),
                limits::TRIES
            ),
            Self::NotLetThrough { until, code, times } => not_let_through(f, *until, code, *times),
            Self::WaitsFor { record } => write!(f, "waits for {record}, which has to reach the server first"),
            Self::DeadCreate => f.write_str(
                "waits for the record's creation, which the server refused: someone has to decide on that first",
            ),
            Self::Behind { op: Some(op) } => write!(f, "waits behind change {op} of the record"),
            Self::Behind { op: None } => f.write_str("waits behind an earlier change of the record"),
            Self::BehindNotLetThrough { op, code } => {
                write!(f, "waits behind change {op}, which is not let through ({})", shown(code))
            }
            Self::BehindParked { op, conflict: Some(conflict), .. } => {
                write!(f, "waits behind change {op}, which met conflict {conflict}: a person has to choose there")
            }
            Self::BehindParked { op, reason, conflict: None } => {
                write!(f, "waits behind change {op}, which is stopped, since {reason}")
            }
            Self::After { op } => {
                write!(f, "waits for change {op} of the record, which goes first: the two cannot go as one")
            }
            Self::UnmeteredNetwork => f.write_str("waits for an unmetered network"),
            Self::OtherActor { actor } => {
                write!(f, "waits until {actor} uses this device again, whose change goes before it or with it")
            }
            Self::LocalOnly => f.write_str("stays on this device: the app never sends records of this type"),
            Self::TargetDeleted { record } => write!(
                f,
                "is not sent, since it refers to {record}, which was deleted: someone has to correct it, undo it or discard it"
            ),
            Self::Refused { reason } => write!(
                f,
                "is not sent, since the app would have it corrected first (\"{reason}\"): someone has to edit it, undo it or \
                 discard it"
            ),
            Self::TooLarge { bytes, most } => write!(
                f,
                "is not sent, since the record's fields would take {bytes} bytes of at most {most}: someone has to make the \
                 record smaller, undo it or discard it"
            ),
        }
    }
}

fn not_let_through(
    f: &mut fmt::Formatter<'_>,
    until: Option<crate::time::WallTime>,
    code: &str,
    alone: u32,
) -> fmt::Result {
    if alone == 0 {
        return write!(
            f,
            "waits for its turn after all others: a request with it and others was not let through ({}), and each half is sent \
             by itself until it is known which one is meant",
            shown(code)
        );
    }
    match until {
        Some(until) => write!(f, "is held until {until}")?,
        None => f.write_str("is tried again after all others")?,
    }
    write!(
        f,
        ": something between this device and the server does not let this change through, or the server fails over it ({}, {} \
         alone); the others are sent, and someone can correct it or discard it",
        shown(code),
        times(alone)
    )
}

/// The clause after "is stopped, since".
impl fmt::Display for ParkReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Self::Conflict => "it met a conflict",
            Self::WornOut => {
                return write!(
                    f,
                    "others changed the record before each of its {} attempts reached the server",
                    limits::STALE_TRIES
                );
            }
            Self::Ahead => {
                return write!(
                    f,
                    "the server called the time at which it was made too far ahead, {} times",
                    limits::STALE_TRIES
                );
            }
            Self::UpcastTooLarge => {
                "this version of the app turns it into more than a record may hold"
            }
            Self::Recovered => {
                "it was recovered from a damaged file, and nobody knows whether it reached the server"
            }
            Self::NoUpcaster => {
                "it was made by another version of the app, in a form that this one cannot turn into its own"
            }
            Self::Unauthorized => "the server did not accept the credentials",
            Self::Unsupported => {
                "the server does not take this type of record or one of its fields"
            }
            Self::OtherProtocol => "the server speaks another version of the protocol",
            Self::OtherServer => "a different or restored server answered",
            Self::ServerBehind => "the server reports that it was set back",
            Self::OtherTenant => "the credentials belong to another tenant of the server",
            Self::Unknown => "another version of this program stopped it",
        };
        f.write_str(words)
    }
}

impl fmt::Display for SyncState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count =
            |number: u64, what: &str| counted(usize::try_from(number).unwrap_or(usize::MAX), what);
        match self {
            Self::Idle => f.write_str("nothing needs attention"),
            Self::Syncing { done, total, current } => {
                write!(f, "syncing, {done} of {} done", count(*total, "change"))?;
                current.as_ref().map_or(Ok(()), |key| write!(f, ", now {key}"))
            }
            Self::BackingOff { until } => write!(f, "tries again at {until}"),
            Self::Offline { code } => write!(f, "the server cannot be reached ({code})"),
            Self::NeedsAuth { code } => write!(f, "needs new credentials ({code})"),
            Self::NeedsAttention { dead_letters, conflicts, parked, held } => {
                let all = [
                    (*dead_letters, "dead letter", ""),
                    (*conflicts, "conflict", " to resolve"),
                    (*parked, "stopped change", " to retry or discard"),
                    (*held, "record", " to correct"),
                ];
                let named = all.iter().filter(|(number, ..)| *number > 0);
                let named: Vec<_> =
                    named.map(|(number, what, to)| count(*number, what) + to).collect();
                write!(f, "needs a person: {}", named.join(", "))
            }
            Self::NeedsActors { actors, ops } => {
                let names: Vec<_> = actors.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "waiting for {} to use this device: {}",
                    names.join(", "),
                    count(*ops, "change")
                )
            }
            Self::NeedsUpgrade { code } => write!(f, "needs an upgrade ({code})"),
            Self::NeedsServerConfirmed => {
                f.write_str("another server answered: it has to be confirmed")
            }
            Self::Failed { code } => write!(f, "the last exchange failed ({code})"),
            Self::StorageFailed => f.write_str("the disk failed: open the book again"),
        }
    }
}

fn times(number: u32) -> String {
    counted(usize::try_from(number).unwrap_or(usize::MAX), "time")
}

/// Returns a code as it is shown to people.
pub(in crate::rules) const fn shown(code: &str) -> &str {
    if code.is_empty() { "no code given" } else { code }
}

/// Joins parts with commas and a last `and`.
pub(in crate::rules) fn listed(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Returns a number with the word for the counted things.
pub(in crate::rules) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
