//! The words of an explanation. Short, for people, one sentence each.

use super::{ExplainedConflict, ExplainedOp, Explanation, OTHER_RECORDS, Seen};
use crate::entry::{ConflictedField, ResolvedBy, Winner};
use crate::op::OpKind;
use crate::rules::status::words::{counted, listed};
use crate::rules::status::{OpState, ParkReason};
use crate::schema::Policy;

pub(super) fn sentences(explanation: &Explanation) -> Vec<String> {
    let mut all = vec![seen(explanation)];
    if explanation.undeclared {
        all.push(format!(
            "The server sent it, but this app does not declare records of type {}: it is kept until it does.",
            explanation.key.entity
        ));
    }
    if explanation.seen != Seen::Nothing {
        all.push(confirmed(explanation));
    }
    all.extend(explanation.ops.iter().flat_map(op));
    all.extend(explanation.conflicts.iter().map(conflict));
    all.extend(synced(explanation));
    all
}

fn seen(explanation: &Explanation) -> String {
    let key = &explanation.key;
    match explanation.seen {
        Seen::Nothing => format!("This device knows no record {key}."),
        Seen::AsConfirmed if explanation.ops.is_empty() => {
            format!("The user sees {key} as the server has it.")
        }
        Seen::AsConfirmed => format!("The user sees {key} as the server confirmed it."),
        Seen::DeletedByServer => {
            format!("The user does not see {key}: it is deleted at the server.")
        }
        Seen::WithOwnChanges => format!(
            "The user sees {key} with {} of this device that the server has not confirmed.",
            counted(explanation.ops.len(), "change")
        ),
        Seen::DeletedHere => {
            format!(
                "The user does not see {key}: it was deleted here, and the server has not confirmed that."
            )
        }
    }
}

fn confirmed(explanation: &Explanation) -> String {
    let Some(confirmed) = &explanation.confirmed else {
        return "The server has not confirmed any version of it yet.".to_owned();
    };
    let what = if confirmed.deleted { "its deletion as version" } else { "version" };
    // Each time is named once. The last sentence has the time of the server's last answer.
    let heard = explanation.synced_at.filter(|at| Some(*at) != explanation.book_synced_at);
    let heard = heard.map_or_else(String::new, |at| format!(", last confirmed at {at}"));
    format!(
        "The server confirmed {what} {}, edited at {}{heard}.",
        confirmed.version, confirmed.edited_at
    )
}

fn op(op: &ExplainedOp) -> Vec<String> {
    let (kind, by, at) = (kind(op.kind), &op.actor, op.made_at);
    let mut all = vec![format!("Change {}, {kind} by {by} at {at}, {}.", op.place, op.in_words())];
    all.extend(together(op));
    all.extend(remedy(op));
    all
}

/// Returns what the server takes together with an op.
fn together(op: &ExplainedOp) -> Option<String> {
    let mut names: Vec<_> = op.together_with.iter().map(ToString::to_string).collect();
    if names.is_empty() {
        return None;
    }
    if names.len() == OTHER_RECORDS {
        names.pop();
        names.push("others".to_owned());
    }
    Some(format!(
        "It is one of {} that the server takes together or not at all, with those of {}.",
        counted(op.transaction_ops as usize, "change"),
        listed(&names)
    ))
}

/// Returns when an op that waits for somebody resumes, and whom it waits for.
fn remedy(op: &ExplainedOp) -> Option<String> {
    let actor = &op.actor;
    let stays = "it stays on the screen until then";
    Some(match &op.state {
        OpState::DeadLettered { .. } => {
            format!(
                "It waits for {actor}, or whoever helps them, to retry it, correct it or discard it; {stays}."
            )
        }
        OpState::InConflict { .. } => {
            format!("It waits for {actor}, or whoever helps them, to choose a side; {stays}.")
        }
        OpState::Parked { reason, .. } => match reason {
            ParkReason::Unauthorized => format!("It waits for {actor} to sign in again."),
            ParkReason::Unsupported => {
                "It resumes when the app or the server is upgraded.".to_owned()
            }
            ParkReason::OtherProtocol => "It resumes when the app is upgraded.".to_owned(),
            ParkReason::NoUpcaster => {
                "It resumes when the app is upgraded to a version that declares the upcaster."
                    .to_owned()
            }
            ParkReason::OtherServer | ParkReason::ServerBehind => {
                "It resumes when the known server answers, or when a person accepts the other one."
                    .to_owned()
            }
            ParkReason::OtherTenant => {
                format!("It waits for {actor} to sign in to the tenant that the book belongs to.")
            }
            ParkReason::UpcastTooLarge => format!(
                "It resumes when the app is upgraded, or when {actor}, or whoever helps them, retries it or discards it."
            ),
            ParkReason::Conflict
            | ParkReason::WornOut
            | ParkReason::Ahead
            | ParkReason::Recovered
            | ParkReason::Unknown => {
                format!(
                    "It waits for {actor}, or whoever helps them, to retry it or discard it; {stays}."
                )
            }
        },
        _ => return None,
    })
}

fn conflict(conflict: &ExplainedConflict) -> String {
    let met = match (conflict.fields.as_slice(), conflict.deleted_by_server) {
        (_, true) => "the server had deleted the record".to_owned(),
        ([], false) => "the server had changed the record".to_owned(),
        (fields, false) => {
            let names: Vec<_> = fields.iter().map(|field| format!("`{}`", field.name)).collect();
            format!("both sides had changed {}", listed(&names))
        }
    };
    let (rule, winner) = conflict
        .fields
        .first()
        .map_or((conflict.rule, conflict.winner), |field| (field.rule, field.winner));
    let named = |field: Option<&str>, rule: Policy| {
        let by = ResolvedBy::function_of(&conflict.functions, field);
        by.map_or_else(|| rule.as_str().to_owned(), |by| format!("the app's rule \"{by}\""))
    };
    let first = conflict.fields.first().map(|field| field.name.as_str());
    let resolution = if conflict.open {
        "someone has to choose a side".to_owned()
    } else if conflict.fields.iter().all(|field| (field.rule, field.winner) == (rule, winner)) {
        format!("{} ({})", won(winner), named(first, rule))
    } else {
        let each = conflict.fields.iter().map(|ConflictedField { name, rule, winner }| {
            format!("in `{name}` {} ({})", won(*winner), named(Some(name), *rule))
        });
        listed(&each.collect::<Vec<_>>())
    };
    let by = conflict.remote_by.as_ref().map_or_else(String::new, |by| format!(" by {by}"));
    format!(
        "Conflict {}, found at {}: when change {} ({}) met version {}{by}, {met}; {resolution}.",
        conflict.id,
        conflict.at,
        conflict.op,
        kind(conflict.kind),
        conflict.version
    )
}

const fn kind(kind: OpKind) -> &'static str {
    match kind {
        OpKind::Create => "a creation",
        OpKind::Update => "an update",
        OpKind::Delete => "a deletion",
        OpKind::Replace => "a replacement",
    }
}

const fn won(winner: Winner) -> &'static str {
    match winner {
        Winner::Local => "this device won",
        Winner::Remote => "the server won",
        Winner::Merged => "both were merged",
        Winner::Undecided => "nobody has won yet",
    }
}

fn synced(explanation: &Explanation) -> Vec<String> {
    let Some(at) = explanation.book_synced_at else {
        return vec!["The server has never answered this device.".to_owned()];
    };
    let mut all = Vec::new();
    if let Some(entity_at) = explanation.entity_synced_at.filter(|entity_at| *entity_at != at) {
        let entity = &explanation.key.entity;
        all.push(format!(
            "The server last sent something of records of type {entity} at {entity_at}."
        ));
    }
    all.push(format!("The server last answered this device at {at}."));
    all
}
