//! What the log says of the device: its openings, and how long no server answered.

use super::{fine, weighs};
use crate::entry::{
    Baseline, Erased, ErasedRecords, LastStop, Session, SignedNote, Silence, Trimmed,
};
use crate::names::RecordKey;
use crate::note::{Note, NoteKind};
use crate::rules::status::words::{counted, listed};
use crate::rules::story::{Sentence, Weight};
use crate::when::offset_shown;

pub(super) fn opening(session: &Session) -> Sentence {
    let by = session.app.as_ref().map_or_else(
        || session.program.clone(),
        |app| format!("{} {} ({})", app.name, app.version, session.program),
    );
    let mut text = format!("The book was opened by {by} on {}", session.system);
    if let Some(minutes) = session.utc_offset {
        text.push_str(&format!(", at UTC{}", offset_shown(minutes)));
    }
    text.push('.');
    if session.schema.is_some() {
        text.push_str(" The app's declarations were recorded.");
    }
    if session.last_stop == LastStop::Unclean {
        return weighs(
            Weight::Waits,
            format!("{text} The program before it was killed, or the power failed."),
        );
    }
    fine(text)
}

pub(super) fn silence(silence: &Silence) -> Sentence {
    let codes: Vec<_> = silence
        .codes
        .iter()
        .map(|(code, times)| match times {
            1 => code.clone(),
            times => format!("{code} {times} times"),
        })
        .collect();
    let attempts = counted(usize::try_from(silence.attempts).unwrap_or(usize::MAX), "attempt");
    let when = if silence.attempts == 1 {
        format!("at {}", silence.from)
    } else {
        format!("from {} to {}", silence.from, silence.to)
    };
    let text = format!("No answer of the server to {attempts} {when} ({}).", codes.join(", "));
    weighs(Weight::Waits, format!("{text} Nothing was lost, and no try was used."))
}

/// Tells a checkpoint, which somebody made. A receipt is a part of each exchange, and is not told.
pub(super) fn checkpoint(signed: &SignedNote) -> Option<Sentence> {
    let note = Note::parse(&signed.note).ok()?;
    let stated = note.statement().filter(|stated| stated.kind == NoteKind::Checkpoint)?;
    let names: Vec<_> = note.signatures.iter().map(|one| one.name.to_owned()).collect();
    let (seq, names) = (stated.seq, listed(&names));
    Some(fine(format!("The log up to entry {seq} was signed by {names}; nobody checked it here.")))
}

/// Tells that values were erased: of one record, in its own story, or of all.
pub(super) fn erased(erased: &Erased, about: Option<&RecordKey>) -> Option<Sentence> {
    const REST: &str = "Keys, users and times stay in the log, and its hashes are as before.";
    let text = match (about, &erased.records) {
        (Some(key), records) if !records.has(key) => return None,
        (Some(_), ErasedRecords::Only(_)) => format!("Its values were erased. {REST}"),
        (Some(_), ErasedRecords::Except(_)) => {
            format!("Its values were erased on this device, with those of other records. {REST}")
        }
        (None, ErasedRecords::Only(keys)) => {
            let records = counted(keys.len(), "record");
            format!("The values of {records} were erased. {REST}")
        }
        (None, ErasedRecords::Except(keys)) if keys.is_empty() => {
            format!("The values of all records were erased. {REST}")
        }
        (None, ErasedRecords::Except(keys)) => {
            let records = counted(keys.len(), "record");
            format!("The values of all but {records} were erased. {REST}")
        }
    };
    Some(weighs(Weight::Waits, text))
}

/// Tells how a record stood when what was before was trimmed: in its own story. The story of the
/// book tells it once, with the state.
pub(super) fn baseline_of(baseline: &Baseline, about: Option<&RecordKey>) -> Option<Sentence> {
    let Some(key) = about else {
        baseline.state.as_ref()?;
        return Some(fine("What came before this was trimmed: the log begins here."));
    };
    let found = baseline.records.iter().find(|record| record.change.key == *key)?;
    let version = found.change.version;
    Some(fine(format!("What came before this was trimmed. The record stood at {version}.")))
}

/// Tells that entries were trimmed.
pub(super) fn trimmed(trimmed: &Trimmed) -> Sentence {
    let archive = match trimmed.archive {
        Some(sum) => format!("An archive has them, with the sum {sum}."),
        None => "No archive was made of them.".to_owned(),
    };
    let (upto, entries) = (trimmed.upto.seq, trimmed.entries);
    fine(format!(
        "The log up to entry {upto} was trimmed: {entries} of its entries went, and the records stayed. {archive}"
    ))
}
