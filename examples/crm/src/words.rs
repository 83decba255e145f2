//! What the screen says: rows, badges, the state of the book.

use std::error::Error;

use fieldbook::sync::{Hold, RecordStatus};
use fieldbook::{Book, SyncState, SyncStatus};

use crate::list::Row;

/// Returns the line above rows.
pub(crate) fn heading() -> String {
    columns("stage", "name", "amount", "phone", "sync")
}

fn columns(stage: &str, name: &str, amount: &str, phone: &str, badge: &str) -> String {
    format!("{stage:<5}  {name:<22}  {amount:>11}  {phone:<16}  {badge}").trim_end().to_owned()
}

/// Returns the line of a lead in a list, with its badge at the end.
pub(crate) fn row(row: &Row) -> String {
    let badge = badge(&row.status);
    let line = match &row.value {
        Ok(lead) => columns(&lead.stage, &lead.name, &lead.amount.to_string(), &lead.phone, &badge),
        Err(error) => columns("?", &chain(error), "", "", &badge),
    };
    one_line(&line)
}

/// Returns the badge of a record: nothing if the server has it.
pub(crate) fn badge(status: &RecordStatus) -> String {
    match status {
        RecordStatus::Synced | RecordStatus::Unknown => String::new(),
        RecordStatus::DeadLettered { .. } => "failed".to_owned(),
        RecordStatus::InConflict(_) => "conflict".to_owned(),
        RecordStatus::Parked(_) => "stopped".to_owned(),
        RecordStatus::Held(hold) if hold.waits_for_correction() => "failed".to_owned(),
        RecordStatus::Held(Hold::OtherActor(actor)) => format!("waits for {actor}"),
        _ => "waits".to_owned(),
    }
}

/// Returns the state of the book in a sentence.
pub(crate) fn state(status: &SyncStatus) -> String {
    match &status.state {
        SyncState::Idle | SyncState::Syncing { .. } if status.pending == 0 => {
            "everything is at the server".to_owned()
        }
        SyncState::NeedsAttention { conflicts, .. } if *conflicts > 0 => {
            format!("`conflicts` has {} to choose in", counted(*conflicts, "conflict"))
        }
        SyncState::NeedsAttention { dead_letters, parked, held, .. } => {
            format!("`failed` has {}", counted(dead_letters + parked + held, "failed change"))
        }
        SyncState::Offline { .. } | SyncState::BackingOff { .. } => {
            let unsent = counted(status.pending, "change");
            format!("the server cannot be reached: {unsent} not sent yet")
        }
        SyncState::Idle => format!("{} not sent yet", counted(status.pending, "change")),
        // The other states have a sentence of their own.
        other => other.to_string(),
    }
}

/// Returns what stands before the cursor: the user, and what is not at the server.
pub(crate) fn prompt(book: &Book, is_offline: bool) -> String {
    let status = book.status();
    let mut notes = Vec::new();
    if is_offline {
        notes.push("offline".to_owned());
    }
    if status.pending > 0 {
        notes.push(format!("{} unsent", status.pending));
    }
    match notes.is_empty() {
        true => format!("{}> ", book.actor()),
        false => format!("{} ({})> ", book.actor(), notes.join(", ")),
    }
}

/// Returns a number with what is counted.
pub(crate) fn counted(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

/// Returns an error with its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Returns what somebody typed as one line, so that a name cannot look like other rows.
pub(crate) fn one_line(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// Returns a text without the letters that steer a terminal.
pub(crate) fn printable(text: &str) -> String {
    let shown =
        |letter: char| if letter.is_control() && letter != '\n' { '\u{fffd}' } else { letter };
    text.chars().map(shown).collect()
}
