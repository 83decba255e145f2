//! States in words: what a record, an op or the book waits for.

use fieldbook::entry::{AnnulledReason, ParkScope, Winner};
use fieldbook::rows::ConflictRow;
use fieldbook::{Hold, OpPlace, Policy, RecordStatus, SyncState, limits};

use super::table::Tone;
use super::{count, name, time};

/// Returns where a record stands, and how that is.
pub(crate) fn record_status(status: &RecordStatus) -> (String, Tone) {
    match status {
        RecordStatus::Synced => ("synced".to_owned(), Tone::Good),
        RecordStatus::Pending => ("pending".to_owned(), Tone::Waiting),
        RecordStatus::InFlight => ("under way, no answer yet".to_owned(), Tone::Waiting),
        RecordStatus::Held(why) => (format!("held: {}", hold(why)), Tone::Waiting),
        RecordStatus::DeadLettered { code, message } => {
            (format!("refused: {code}{}", colon(message)), Tone::Bad)
        }
        RecordStatus::InConflict(id) => (format!("in conflict {id}, waits for a person"), Tone::Bad),
        other => (format!("{other:?}"), Tone::Plain),
    }
}

/// Returns the stable name of a record's status, for JSON.
pub(crate) const fn record_status_name(status: &RecordStatus) -> &'static str {
    match status {
        RecordStatus::Synced => "synced",
        RecordStatus::Pending => "pending",
        RecordStatus::InFlight => "in_flight",
        RecordStatus::Held(_) => "held",
        RecordStatus::DeadLettered { .. } => "dead_lettered",
        RecordStatus::InConflict(_) => "in_conflict",
        _ => "other",
    }
}

/// Returns why an op is not sent now.
pub(crate) fn hold(hold: &Hold) -> String {
    match hold {
        Hold::UndoWindow { until } => format!("can still be undone, until {}", time::local(*until)),
        Hold::WaitsFor(key) => format!("waits for {}, which has to reach the server first", name(key)),
        Hold::DeadCreate => "the record's creation was refused and waits for a person".to_owned(),
        Hold::BackingOff { until, code } => format!("not taken ({code}), again at {}", time::local(*until)),
        Hold::NotLetThrough { times: 0, code, .. } => {
            format!("after all others: a request with it and others was not let through ({code})")
        }
        Hold::NotLetThrough { until, code, times } => {
            let again = until.map_or_else(|| "after all others".to_owned(), time::local);
            format!("not let through on the way ({code}, {}), again at {again}", count(*times, "time"))
        }
        Hold::Behind(_) => "behind an earlier change of the record".to_owned(),
        Hold::After(place) => format!("after change {place} of the record, which goes first"),
        Hold::UnmeteredNetwork => "wants an unmetered network".to_owned(),
        Hold::Parked { scope, code } => format!("{} ({code})", park(scope)),
        Hold::OtherActor(actor) => format!("only goes out when {} syncs", name(actor)),
        Hold::LocalOnly => "never leaves this device".to_owned(),
        Hold::NoUpcaster { from, to } => {
            format!("made under schema version {from}, and the app has no way from there to its {to}")
        }
        Hold::Gone(key) => format!("refers to {}, which was deleted: it has to be corrected", name(key)),
        Hold::Refused { reason } => format!("has to be corrected: {reason}"),
        Hold::TooLarge { bytes } => format!(
            "the record would take {bytes} bytes of at most {}: it has to be made smaller",
            limits::OP_BYTES
        ),
        other => format!("{other:?}"),
    }
}

/// Returns why an op waits behind another one, by what holds that one, if anything does.
pub(crate) fn behind(before: Option<&(OpPlace, Hold)>) -> String {
    match before {
        None => "behind an earlier change of the record, which is under way".to_owned(),
        Some((place, Hold::NotLetThrough { code, .. })) => {
            format!("behind change {place}, which is not let through ({code})")
        }
        Some((place, _)) => format!("behind change {place}, which is held itself"),
    }
}

/// Returns the stable name of a hold, for JSON.
pub(crate) const fn hold_name(hold: &Hold) -> &'static str {
    match hold {
        Hold::UndoWindow { .. } => "undo_window",
        Hold::WaitsFor(_) => "waits_for",
        Hold::DeadCreate => "dead_create",
        Hold::BackingOff { .. } => "backing_off",
        Hold::NotLetThrough { .. } => "not_let_through",
        Hold::Behind(_) => "behind",
        Hold::After(_) => "after",
        Hold::UnmeteredNetwork => "unmetered_network",
        Hold::Parked { .. } => "parked",
        Hold::OtherActor(_) => "other_actor",
        Hold::LocalOnly => "local_only",
        Hold::NoUpcaster { .. } => "no_upcaster",
        Hold::Gone(_) => "gone",
        Hold::Refused { .. } => "refused",
        Hold::TooLarge { .. } => "too_large",
        _ => "other",
    }
}

/// Returns what is parked and until when.
pub(crate) fn park(scope: &ParkScope) -> String {
    match scope {
        ParkScope::Actor(actor) => format!("{} needs new credentials", name(actor)),
        ParkScope::Entity(entity) => format!("{entity} waits for an upgrade of the app or the server"),
        ParkScope::Op(op) => format!("op {op} waits for a person to settle its conflict"),
        ParkScope::Server(..) => "another server, or another life of it, answered".to_owned(),
        ParkScope::Tenant(_) => "the credentials are of another tenant than this book's".to_owned(),
        ParkScope::Protocol => "the app has to be upgraded to the server's protocol".to_owned(),
    }
}

/// Returns the stable name of what is parked, for JSON.
pub(crate) const fn park_name(scope: &ParkScope) -> &'static str {
    match scope {
        ParkScope::Actor(_) => "actor",
        ParkScope::Entity(_) => "entity",
        ParkScope::Op(_) => "op",
        ParkScope::Server(..) => "server",
        ParkScope::Protocol => "protocol",
        ParkScope::Tenant(_) => "tenant",
    }
}

/// Returns what the engine is doing or waiting for.
pub(crate) fn sync_state(state: &SyncState) -> (String, Tone) {
    match state {
        SyncState::Idle => ("nothing needs attention".to_owned(), Tone::Good),
        SyncState::Syncing { done, left } => (format!("syncing, {done} done, {left} left"), Tone::Waiting),
        SyncState::BackingOff { until } => (format!("tries again at {}", time::local(*until)), Tone::Waiting),
        SyncState::Offline { code } => (format!("the server cannot be reached ({code})"), Tone::Waiting),
        SyncState::NeedsAuth { code } => (format!("needs new credentials ({code})"), Tone::Bad),
        SyncState::NeedsAttention { dead_letters, conflicts, held } => (
            format!(
                "needs a person: {}, {} to settle{}",
                count(*dead_letters, "dead letter"),
                count(*conflicts, "conflict"),
                if *held == 0 { String::new() } else { format!(", {} to correct", count(*held, "record")) }
            ),
            Tone::Bad,
        ),
        SyncState::NeedsUpgrade { code } => (format!("needs an upgrade ({code})"), Tone::Bad),
        SyncState::NeedsServerConfirmed => {
            ("another server answered: it has to be confirmed".to_owned(), Tone::Bad)
        }
        SyncState::Failed { code } => (format!("the last exchange failed ({code})"), Tone::Bad),
        SyncState::StorageFailed => ("the disk failed: open the book again".to_owned(), Tone::Bad),
        other => (format!("{other:?}"), Tone::Plain),
    }
}

/// Returns the stable name of the engine's state, for JSON.
pub(crate) const fn sync_state_name(state: &SyncState) -> &'static str {
    match state {
        SyncState::Idle => "idle",
        SyncState::Syncing { .. } => "syncing",
        SyncState::BackingOff { .. } => "backing_off",
        SyncState::Offline { .. } => "offline",
        SyncState::NeedsAuth { .. } => "needs_auth",
        SyncState::NeedsAttention { .. } => "needs_attention",
        SyncState::NeedsUpgrade { .. } => "needs_upgrade",
        SyncState::NeedsServerConfirmed => "needs_server_confirmed",
        SyncState::Failed { .. } => "failed",
        SyncState::StorageFailed => "storage_failed",
        _ => "other",
    }
}

/// Returns who won a conflict, from this device's side.
pub(crate) const fn winner(winner: Winner) -> &'static str {
    match winner {
        Winner::Local => "mine stands",
        Winner::Remote => "theirs stands",
        Winner::Merged => "merged",
        Winner::Undecided => "waits for a person",
    }
}

/// Returns how a conflict was settled, from this device's side.
pub(crate) fn outcome(conflict: &ConflictRow) -> String {
    let mut winners: Vec<Winner> = conflict.fields.iter().map(|(.., winner)| *winner).collect();
    winners.dedup();
    match winners.as_slice() {
        [] => winner(conflict.winner).to_owned(),
        [all] => winner(*all).to_owned(),
        _ => "field by field".to_owned(),
    }
}

/// Returns a policy in words.
pub(crate) fn policy(policy: Policy) -> String {
    policy.as_str().replace('_', " ")
}

/// Returns the rule of a conflict, by the name of the app's function if there is one.
pub(crate) fn rule(rule: Policy, function: Option<&str>) -> String {
    function.map_or_else(|| policy(rule), |name| format!("the app's {name}"))
}

/// Returns why ops need not be sent.
pub(crate) const fn annulled(reason: AnnulledReason) -> &'static str {
    match reason {
        AnnulledReason::CreatedAndDeleted => "created and deleted before it left",
        AnnulledReason::Undone => "undone before it left",
        AnnulledReason::NoEffect => "changes nothing that is not so already",
        AnnulledReason::LocalOnly => "never leaves this device",
        AnnulledReason::Arrived => "had reached the server after all",
    }
}

fn colon(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}
