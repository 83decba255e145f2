//! States in words. The book has the sentences about records, ops and itself. This module adds
//! colours, the reader's time zone, words for entries of the log, and the stable names for JSON.

use fieldbook::SyncState;
use fieldbook::audit::entry::{CancelledReason, ParkScope, Winner};
use fieldbook::audit::{ExplainedOp, Explanation};
use fieldbook::conflict::Conflict;
use fieldbook::schema::Policy;
use fieldbook::sync::{Hold, OpState, ParkReason, RecordState};

use super::table::Tone;
use super::{name, plain, time};

/// Returns a text of the book for people: times in the reader's zone, hidden characters escaped.
pub(crate) fn of_the_book(words: &impl ToString) -> String {
    plain(&time::localised(&words.to_string()))
}

/// Returns the state of a record in the book's words, with its tone.
pub(crate) fn record(explanation: &Explanation) -> (String, Tone) {
    (of_the_book(&explanation.in_short()), record_tone(explanation.state))
}

/// Returns the tone of a record's state.
pub(crate) const fn record_tone(state: RecordState) -> Tone {
    match state {
        RecordState::Synced => Tone::Good,
        RecordState::Parked | RecordState::InConflict | RecordState::DeadLettered => Tone::Bad,
        RecordState::Unknown => Tone::Plain,
        _ => Tone::Waiting,
    }
}

/// Returns the state of an op in the book's words, with its tone.
pub(crate) fn op(op: &ExplainedOp) -> (String, Tone) {
    let tone = match op.state {
        OpState::Pending { .. } => Tone::Good,
        OpState::Parked { .. } | OpState::InConflict { .. } | OpState::DeadLettered { .. } => {
            Tone::Bad
        }
        _ => Tone::Waiting,
    };
    (of_the_book(&op.in_words()), tone)
}

/// Returns the stable name of an op's state, for JSON.
pub(crate) const fn op_state_name(state: &OpState) -> &'static str {
    match state {
        OpState::Pending { .. } => "ready",
        OpState::WaitingForNetwork { .. } => "waiting_for_network",
        OpState::InFlight { .. } => "in_flight",
        OpState::Held(_) => "held",
        OpState::Parked { .. } => "parked",
        OpState::InConflict { .. } => "in_conflict",
        OpState::DeadLettered { .. } => "dead",
        _ => "other",
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
        Hold::TargetDeleted(_) => "target_deleted",
        Hold::Refused { .. } => "refused",
        Hold::TooLarge { .. } => "too_large",
        _ => "other",
    }
}

/// Returns what is parked, and why, in the book's words.
pub(crate) fn park(scope: &ParkScope, code: &str) -> String {
    format!("{}, because {} ({code})", parked(scope), of_the_book(&ParkReason::of(scope, code)))
}

/// Returns what is parked.
pub(crate) fn parked(scope: &ParkScope) -> String {
    match scope {
        ParkScope::Actor(actor) => format!("ops of {}", name(actor)),
        ParkScope::Entity(entity) => format!("records of type {entity}"),
        ParkScope::Op(op) => format!("op {op}"),
        ParkScope::Server(..) | ParkScope::Tenant(_) | ParkScope::Protocol => {
            "everything".to_owned()
        }
    }
}

/// Returns the stable name of a park's scope, for JSON.
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

/// Returns the state of a book with so many pending ops, in words with times in UTC, and its tone.
pub(crate) fn book_state(state: &SyncState, pending: u64) -> (String, Tone) {
    let tone = match state {
        SyncState::Idle if pending > 0 => {
            return ("changes wait to be sent".to_owned(), Tone::Waiting);
        }
        SyncState::Idle => Tone::Good,
        SyncState::Syncing { .. }
        | SyncState::BackingOff { .. }
        | SyncState::Offline { .. }
        | SyncState::NeedsActors { .. } => Tone::Waiting,
        _ => Tone::Bad,
    };
    (state.to_string(), tone)
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
        SyncState::NeedsActors { .. } => "needs_actors",
        SyncState::NeedsUpgrade { .. } => "needs_upgrade",
        SyncState::NeedsServerConfirmed => "needs_server_confirmed",
        SyncState::Failed { .. } => "failed",
        SyncState::StorageFailed => "storage_failed",
        _ => "other",
    }
}

/// Returns who won a conflict.
pub(crate) const fn winner(winner: Winner) -> &'static str {
    match winner {
        Winner::Local => "local wins",
        Winner::Remote => "remote wins",
        Winner::Merged => "merged",
        Winner::Undecided => "waits for a person",
    }
}

/// Returns the result of a conflict.
pub(crate) fn outcome(conflict: &Conflict) -> String {
    let mut winners: Vec<Winner> = conflict.fields.iter().map(|field| field.winner).collect();
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

/// Returns the rule of a conflict: the name of the app's function, or the policy.
pub(crate) fn rule(rule: Policy, function: Option<&str>) -> String {
    function.map_or_else(|| policy(rule), |name| format!("the app's {name}"))
}

/// Returns why ops need not be sent.
pub(crate) const fn cancelled(reason: CancelledReason) -> &'static str {
    match reason {
        CancelledReason::CreatedAndDeleted => "created and deleted before it left",
        CancelledReason::Undone => "undone before it left",
        CancelledReason::NoEffect => "changes nothing",
        CancelledReason::LocalOnly => "never leaves this device",
        CancelledReason::AlreadyApplied => "had already reached the server",
    }
}
