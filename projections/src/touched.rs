//! The records that an entry touches: those that it changes or names, and those whose units it
//! answers. The history is made of it, and a read of the past.
//!
//! Invariants:
//! 1. An entry that changes a record's row, its ops in the tail, its units, conflicts or dead
//!    letters touches the record, or concerns the book as a whole.
//! 2. The answer depends on the log only: on the entry, the plans that it names, and the decisions
//!    that follow it in the same commit.
//!
//! What it does not do: say how an entry changes a record. `apply` does.

use std::collections::BTreeSet;

use fieldbook_core::entry::{About, Control, Decision, Entry, ErasedRecords, Meta, Upstream};
use fieldbook_core::log::StoreError;
use fieldbook_core::{RecordKey, Seq, UnitId};

use crate::log_view::LogView;

/// What an entry touches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// The records, each once, in the order of their keys.
    pub keys: Vec<RecordKey>,
    /// Whether the entry concerns the book as a whole: it begins the log or an epoch, it parks or
    /// resumes, it is about the server, or about a row that has no record here, or it says that
    /// values were erased or entries trimmed.
    pub book: bool,
    /// Whether the entry can change every record: another server was accepted, or read to its end,
    /// or values were erased.
    pub all: bool,
}

/// Returns what an entry touches.
///
/// # Errors
/// [`StoreError`] if a plan that the entry names, or the decisions about an answer, cannot be read.
pub fn touched(entry: &Entry, log: &impl LogView) -> Result<Touched, StoreError> {
    let (mut keys, mut found) = (BTreeSet::new(), Touched::default());
    match &entry.meta {
        Meta::Intent(intent) => keys.extend(intent.ops.iter().map(|op| op.key.clone())),
        Meta::Upstream(upstream) => {
            keys.extend(upstream.changes.iter().map(|change| change.key.clone()));
            keys.extend(answered(upstream, entry.header.seq, log)?);
        }
        Meta::Control(Control::Planned(planned)) => {
            let changes = planned.units.iter().flat_map(|unit| &unit.changes);
            keys.extend(changes.map(|change| change.key.clone()));
            keys.extend(planned.cancelled.iter().map(|cancelled| cancelled.key.clone()));
        }
        Meta::Control(Control::Decided(decisions) | Control::PersonActed(_, decisions)) => {
            for decision in decisions {
                match decision.about() {
                    About::Records(about) => keys.extend(about.into_iter().cloned()),
                    About::Units(units) => {
                        for (unit, planned) in units {
                            keys.extend(keys_of_unit(&unit, planned, log)?);
                        }
                    }
                    About::Book => found.book = true,
                }
                found.all |=
                    matches!(decision, Decision::ServerAccepted { .. } | Decision::ServerRead);
            }
        }
        Meta::Control(
            Control::Opened(_)
            | Control::EpochStarted { .. }
            | Control::Session(_)
            | Control::Silence(_)
            | Control::Authors(_)
            | Control::Note(_)
            | Control::Trimmed(_),
        ) => found.book = true,
        Meta::Control(Control::Baseline(baseline)) => {
            keys.extend(baseline.records.iter().map(|record| record.change.key.clone()));
            found.book = baseline.state.is_some();
        }
        Meta::Control(Control::Erased(erased)) => {
            found.book = true;
            match &erased.records {
                ErasedRecords::Only(records) => keys.extend(records.iter().cloned()),
                ErasedRecords::Except(_) => found.all = true,
            }
        }
    }
    found.keys = keys.into_iter().collect();
    Ok(found)
}

/// Returns the records of the units that an answer is about. An accepted unit names its records.
/// The others are found by the decisions that follow in the same commit, which name the plans.
fn answered(
    upstream: &Upstream,
    seq: Seq,
    log: &impl LogView,
) -> Result<Vec<RecordKey>, StoreError> {
    let outcomes = upstream.outcomes.iter();
    let named = outcomes.flat_map(|outcome| outcome.versions.iter().map(|(key, _)| key.clone()));
    let mut keys: Vec<_> = named.collect();
    let mut others: BTreeSet<UnitId> = BTreeSet::new();
    let nameless = upstream.outcomes.iter().filter(|outcome| outcome.versions.is_empty());
    others.extend(nameless.map(|outcome| outcome.unit));
    if others.is_empty() {
        return Ok(keys);
    }
    let next = log.entry(seq.next())?;
    let Some(Meta::Control(Control::Decided(decisions))) = next.as_deref().map(|next| &next.meta)
    else {
        return Ok(keys);
    };
    for (unit, planned) in decisions.iter().flat_map(units_of) {
        if others.remove(&unit) {
            keys.extend(keys_of_unit(&unit, planned, log)?);
        }
    }
    Ok(keys)
}

/// Returns the units that a decision is about, each with the entry that planned it.
fn units_of(decision: &Decision) -> Vec<(UnitId, Seq)> {
    match decision.about() {
        About::Units(units) => units,
        About::Records(_) | About::Book => Vec::new(),
    }
}

fn keys_of_unit(
    unit: &UnitId,
    planned: Seq,
    log: &impl LogView,
) -> Result<Vec<RecordKey>, StoreError> {
    let entry = log.existing(planned)?;
    let Meta::Control(Control::Planned(plan)) = &entry.meta else { return Ok(Vec::new()) };
    let found = plan.units.iter().filter(|planned| planned.id == *unit);
    Ok(found.flat_map(|unit| unit.changes.iter().map(|change| change.key.clone())).collect())
}
