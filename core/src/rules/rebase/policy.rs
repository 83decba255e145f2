//! Decides who wins where both sides wrote: in a field, or in the record's life.
//!
//! | policy ↓ / conflict in → | a field | the life: one side deletes |
//! |---|---|---|
//! | last write wins | the later write | the later write |
//! | server wins, device wins | that side | that side |
//! | min, max | the smaller, the greater number; else the later write | the later write |
//! | append unique | the remote list and the local items that it lacks; else the later write | the later write |
//! | manual | a person | a person |
//! | a function of the app | its ruling | its ruling; the later write if it merges |
//!
//! Invariants:
//! 1. "Later" is a total order: by time, then by op id, so that every device that judges the same
//!    two writes agrees.
//! 2. The winner depends only on the two writes and the value before, never on the order of their
//!    arrival. Exceptions are server wins, device wins, and a function of the app that looks at the
//!    sides.
//!
//! What it does not do: find the writes that meet ([`super::meet`]), or change ops.

use std::cmp::Ordering;

use serde_json::Value;

use crate::entry::{ResolvedBy, Winner};
use crate::fields::Fields;
use crate::hooks::{ConflictFunction, MergeDecision, MergeInput};
use crate::names::RecordKey;
use crate::record::EditStamp;
use crate::schema::{EntityRules, Policy};

/// The result of a policy for a field or a life.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Resolution {
    pub(super) winner: Winner,
    /// A value made of both sides.
    pub(super) merged: Option<Value>,
    /// The policy that resolved it.
    pub(super) rule: Policy,
    /// The function of the app that resolved it.
    pub(super) by: Option<ResolvedBy>,
}

/// The two writes that meet.
#[derive(Debug, Clone, Copy)]
pub(super) struct StampPair {
    pub(super) local: EditStamp,
    pub(super) remote: EditStamp,
}

impl StampPair {
    pub(super) fn later(self) -> Winner {
        if self.local > self.remote { Winner::Local } else { Winner::Remote }
    }
}

/// Resolves a field. The three values are the value before, the local value and the remote value.
pub(super) fn resolve_field(
    key: &RecordKey,
    rules: &EntityRules,
    name: &str,
    [base, local, remote]: [&Value; 3],
    stamps: StampPair,
) -> Resolution {
    let rule = rules.policy_of(name);
    if rule != Policy::Function {
        let (winner, merged) = by_policy(rule, local, remote, stamps);
        return Resolution { winner, merged, rule, by: None };
    }
    let function = rules.function_of(name);
    let by = function.map(|function| resolved_by(Some(name), function));
    let input = input(key, Some(name), [base, local, remote], stamps);
    let (winner, merged) = match function.map(|function| function.decide(&input)) {
        None => (stamps.later(), None),
        Some(MergeDecision::Local) => (Winner::Local, None),
        Some(MergeDecision::Remote) => (Winner::Remote, None),
        Some(MergeDecision::Ask) => (Winner::Undecided, None),
        Some(MergeDecision::Merged(value)) => {
            let merged: Fields = std::iter::once((name.to_owned(), value.clone())).collect();
            // A merged value that breaks a limit is for a person to look at.
            if merged.checked().is_ok() {
                (Winner::Merged, Some(value))
            } else {
                (Winner::Undecided, None)
            }
        }
    };
    Resolution { winner, merged, rule, by }
}

/// Resolves whether the record exists, by its image before, the local image and the remote image. A
/// side that deletes the record has no image.
pub(super) fn resolve_life(
    key: &RecordKey,
    rules: &EntityRules,
    [base, local, remote]: [Option<&Fields>; 3],
    stamps: StampPair,
) -> Resolution {
    let function = rules.function.as_ref();
    let rule = if function.is_some() { Policy::Function } else { rules.policy };
    let by = function.map(|function| resolved_by(None, function));
    let winner = match rule {
        Policy::ServerWins => Winner::Remote,
        Policy::DeviceWins => Winner::Local,
        Policy::Manual => Winner::Undecided,
        Policy::Function => {
            let value = |fields: Option<&Fields>| {
                fields.map_or(Value::Null, |fields| Value::Object(fields.clone().into_map()))
            };
            let (base, local, remote) = (value(base), value(local), value(remote));
            let input = input(key, None, [&base, &local, &remote], stamps);
            match function.map(|function| function.decide(&input)) {
                Some(MergeDecision::Local) => Winner::Local,
                Some(MergeDecision::Remote) => Winner::Remote,
                Some(MergeDecision::Ask) => Winner::Undecided,
                Some(MergeDecision::Merged(_)) | None => stamps.later(),
            }
        }
        _ => stamps.later(),
    };
    Resolution { winner, merged: None, rule, by }
}

fn input<'a>(
    key: &'a RecordKey,
    field: Option<&'a str>,
    [base, local, remote]: [&'a Value; 3],
    stamps: StampPair,
) -> MergeInput<'a> {
    MergeInput {
        key,
        field,
        base,
        local,
        remote,
        local_edited_at: stamps.local.edited_at,
        remote_edited_at: stamps.remote.edited_at,
        local_is_later: stamps.later() == Winner::Local,
    }
}

fn resolved_by(field: Option<&str>, function: &ConflictFunction) -> ResolvedBy {
    ResolvedBy { field: field.map(str::to_owned), function: function.name().to_owned() }
}

fn by_policy(
    rule: Policy,
    local: &Value,
    remote: &Value,
    stamps: StampPair,
) -> (Winner, Option<Value>) {
    // The later write wins if the numbers are equal, however they are written, or too close to
    // compare. If the side decided instead, two devices would resolve the same two writes
    // differently.
    let by_number = |wins: Ordering| match compare_numbers(local, remote) {
        Some(Ordering::Equal) | None => stamps.later(),
        Some(order) if order == wins => Winner::Local,
        Some(_) => Winner::Remote,
    };
    let winner = match rule {
        Policy::LastWriteWins | Policy::Function => stamps.later(),
        Policy::ServerWins => Winner::Remote,
        Policy::DeviceWins => Winner::Local,
        Policy::Manual => Winner::Undecided,
        Policy::Max => by_number(Ordering::Greater),
        Policy::Min => by_number(Ordering::Less),
        Policy::AppendUnique => match (local, remote) {
            (Value::Array(local), Value::Array(remote)) => {
                let missing = local.iter().filter(|item| !remote.contains(item));
                let merged = remote.iter().chain(missing).cloned().collect();
                return (Winner::Merged, Some(Value::Array(merged)));
            }
            _ => stamps.later(),
        },
    };
    (winner, None)
}

/// Compares two numbers, integers exactly. Returns `None` if a value is not a number.
fn compare_numbers(one: &Value, other: &Value) -> Option<Ordering> {
    if let (Some(one), Some(other)) = (one.as_i64(), other.as_i64()) {
        return Some(one.cmp(&other));
    }
    if let (Some(one), Some(other)) = (one.as_u64(), other.as_u64()) {
        return Some(one.cmp(&other));
    }
    one.as_f64()?.partial_cmp(&other.as_f64()?)
}

#[cfg(test)]
mod tests;
