//! The words of an explanation. Short, for people, one sentence each.

use super::{ExplainedConflict, ExplainedOp, Explanation, Held, OpState, ParkedScope, Seen};
use crate::entry::Winner;
use crate::limits;
use crate::op::OpKind;
use crate::schema::Policy;
use crate::time::WallTime;

pub(super) fn sentences(explanation: &Explanation) -> Vec<String> {
    let mut all = vec![seen(explanation)];
    if explanation.kept_aside {
        all.push(format!(
            "The server sent it, but this app does not declare records of type {}: it is kept aside until it does.",
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
        Seen::DeletedByServer => format!("The user does not see {key}: it is deleted at the server."),
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
    // Each time is told once: when the server last said anything at all stands at the end.
    let heard = explanation.synced_at.filter(|at| Some(*at) != explanation.book_synced_at);
    let heard = heard.map_or_else(String::new, |at| format!(", as it last said at {at}"));
    format!("The server confirmed {what} {}, edited at {}{heard}.", confirmed.version, confirmed.edited_at)
}

fn op(op: &ExplainedOp) -> Vec<String> {
    let by = op.actor.as_ref().map_or_else(String::new, |actor| format!(" by {actor}"));
    let at = op.made_at.map_or_else(String::new, |at| format!(" at {at}"));
    let mut all = vec![format!("Change {}, {}{by}{at}, {}.", op.place, kind(op.kind), state(op))];
    match &op.state {
        OpState::DeadLettered { .. } => all.push(
            "It stays on the user's screen until someone retries it, corrects it or discards it.".to_owned(),
        ),
        OpState::Parked { scope, .. } => all.push(remedy(*scope).to_owned()),
        _ => {}
    }
    all
}

fn state(op: &ExplainedOp) -> String {
    match &op.state {
        OpState::Pending => "waits for its turn: the next sync sends it".to_owned(),
        OpState::InFlight { since, since_at, tries: 0 } => format!(
            "is under way since entry {since}{}: the answer has yet to come, and the next sync asks for it again",
            bracketed(*since_at)
        ),
        OpState::InFlight { since, since_at, tries } => format!(
            "is under way since entry {since}{}: the server put it off {}, and the next sync sends it again",
            bracketed(*since_at),
            counted(usize::try_from(*tries).unwrap_or(usize::MAX), "time")
        ),
        OpState::Held(Held::OtherActor { actor }) if op.actor.as_ref() == Some(actor) => {
            format!("waits until {actor}, who made it, uses this device again")
        }
        OpState::Held(held) => self::held(held),
        OpState::Parked { scope, code } => format!("is stopped, since {} ({})", stopped(*scope), shown(code)),
        OpState::DeadLettered { code, message, tries, last_at } => {
            let message = if message.is_empty() { String::new() } else { format!(", \"{message}\"") };
            let tries = match tries {
                0 | 1 => String::new(),
                tries => format!(" after {tries} tries"),
            };
            let at = last_at.map_or_else(String::new, |at| format!(" at {at}"));
            format!("was refused by the server for good{tries}{at}: {}{message}", shown(code))
        }
    }
}

fn held(held: &Held) -> String {
    match held {
        Held::UndoWindow { until } => format!("is held until {until}, as long as it can still be undone"),
        Held::BackingOff { until, code, tries } => format!(
            "is held until {until}: the server could not take it ({}), and {tries} of {} tries are used",
            shown(code),
            limits::TRIES
        ),
        Held::NotLetThrough { times: 0, code, .. } => format!(
            "waits for its turn after all others: a request with it and others was not let through ({}), and each half is \
             sent by itself until it is known which one is meant",
            shown(code)
        ),
        Held::NotLetThrough { until, code, times } => format!(
            "is {}: something between this device and the server does not let this change through, or the server fails \
             over it ({}, {} alone); the others are sent, and someone can correct it or discard it",
            until.map_or_else(
                || "tried again after all others".to_owned(),
                |until| format!("held until {until}")
            ),
            shown(code),
            counted(usize::try_from(*times).unwrap_or(usize::MAX), "time")
        ),
        Held::WaitsFor { record } => format!("waits for {record}, which has to reach the server first"),
        Held::DeadCreate => {
            "waits for the record's creation, which the server refused: someone has to decide on that first"
                .to_owned()
        }
        Held::Behind { since: Some(since) } => {
            format!("waits behind an earlier change of the record, which is under way since entry {since}")
        }
        Held::BehindNotLetThrough { op, code } => {
            format!("waits behind change {op}, which is not let through ({})", shown(code))
        }
        Held::Behind { since: None } => "waits behind an earlier change of the record".to_owned(),
        Held::After { op } => {
            format!("waits for change {op} of the record, which goes first: the two cannot go as one")
        }
        Held::UnmeteredNetwork => "waits for an unmetered network".to_owned(),
        Held::OtherActor { actor } => {
            format!("waits until {actor} uses this device again, whose change goes before it or with it")
        }
        Held::BehindConflict { op } => {
            format!("waits behind change {op}, which met a conflict that waits for a person")
        }
        Held::LocalOnly => "stays on this device: the app never sends records of this type".to_owned(),
        Held::Gone { record } => format!(
            "is not sent, since it refers to {record}, which was deleted: someone has to correct it, undo it or discard it"
        ),
        Held::Refused { reason } => format!(
            "is not sent, since the app would have it corrected first (\"{reason}\"): someone has to edit it, undo it or discard it"
        ),
        Held::TooLarge { bytes, most } => format!(
            "is not sent, since the record's fields would take {bytes} bytes of at most {most}: someone has to make the record smaller, undo it or discard it"
        ),
    }
}

const fn stopped(scope: ParkedScope) -> &'static str {
    match scope {
        ParkedScope::Actor => "the server did not accept the credentials",
        ParkedScope::Entity => "the server does not take this type of record or one of its fields",
        ParkedScope::Op => "it met a conflict that waits for a person",
        ParkedScope::Server => "the server is not the one that it was",
        ParkedScope::Tenant => "the credentials belong to another tenant of the server",
        ParkedScope::Protocol => "the server speaks another version of the protocol",
        ParkedScope::SchemaVersion => {
            "it was made by another version of the app, in a form that this one cannot turn into its own"
        }
    }
}

const fn remedy(scope: ParkedScope) -> &'static str {
    match scope {
        ParkedScope::Actor => "It goes on when that user has signed in again.",
        ParkedScope::Entity => "It goes on when the app or the server was upgraded.",
        ParkedScope::Op => "It goes on when someone has chosen a side.",
        ParkedScope::Server => {
            "It goes on when the server that the book knows answers, or someone has accepted the other one."
        }
        ParkedScope::Tenant => {
            "It goes on when someone has signed in to the tenant that the book belongs to."
        }
        ParkedScope::Protocol => "It goes on when the app was upgraded.",
        ParkedScope::SchemaVersion => {
            "It goes on when the app was upgraded to a version that declares the upcaster."
        }
    }
}

fn conflict(conflict: &ExplainedConflict) -> String {
    let met = match (conflict.fields.as_slice(), conflict.deleted_by_server) {
        (_, true) => "the server had deleted the record".to_owned(),
        ([], false) => "the server had changed the record".to_owned(),
        (fields, false) => {
            let names: Vec<_> = fields.iter().map(|(name, ..)| format!("`{name}`")).collect();
            format!("both sides had changed {}", listed(&names))
        }
    };
    let (rule, winner) = conflict
        .fields
        .first()
        .map_or((conflict.rule, conflict.winner), |(_, rule, winner)| (*rule, *winner));
    let named = |field: Option<&str>, rule: Policy| {
        let by = conflict.functions.iter().find(|(settled, _)| settled.as_deref() == field);
        by.map_or_else(|| rule.as_str().to_owned(), |(_, function)| format!("the app's rule \"{function}\""))
    };
    let first = conflict.fields.first().map(|(name, ..)| name.as_str());
    let settled = if conflict.open {
        "someone has to choose a side".to_owned()
    } else if conflict.fields.iter().all(|(_, by, who)| (*by, *who) == (rule, winner)) {
        format!("{} ({})", won(winner), named(first, rule))
    } else {
        let each = conflict.fields.iter().map(|(name, rule, winner)| {
            format!("in `{name}` {} ({})", won(*winner), named(Some(name), *rule))
        });
        listed(&each.collect::<Vec<_>>())
    };
    format!(
        "Conflict {}, found at {}: when change {} ({}) met version {}, {met}; {settled}.",
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
        all.push(format!("The server last sent something of records of type {entity} at {entity_at}."));
    }
    all.push(format!("The server last told this device something new at {at}."));
    all
}

fn bracketed(at: Option<WallTime>) -> String {
    at.map_or_else(String::new, |at| format!(" ({at})"))
}

const fn shown(code: &str) -> &str {
    if code.is_empty() { "no code given" } else { code }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn listed(all: &[String]) -> String {
    match all {
        [] => String::new(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}
