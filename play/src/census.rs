//! The counts from the devices' own logs and tables: units, coalesced ops, conflicts, dead letters.
//!
//! The logs are counted, not the calls of the play: an op counts as coalesced if a `Planned` entry
//! has it so.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook::audit::entry::{Control, Decision, Meta};
use fieldbook::audit::{Seq, entry::Winner};
use fieldbook::{Book, RecordKey};
use serde::Serialize;

use crate::compare::{Difference, Kind};

/// The number of entries in memory at a time: an entry can be as large as a page of the server.
const ENTRIES: usize = 4;

/// The totals of the logs and tables of all devices.
#[derive(Debug, Clone, Default)]
pub(crate) struct Census {
    pub(crate) log_entries: u64,
    pub(crate) book_bytes: u64,
    pub(crate) ops: u64,
    pub(crate) units: u64,
    pub(crate) changes: u64,
    /// Ops in those changes; an op that was planned twice counts twice.
    pub(crate) planned_ops: u64,
    pub(crate) cancelled_ops: u64,
    pub(crate) superseded_ops: u64,
    pub(crate) conflicts: BTreeMap<(&'static str, &'static str), u64>,
    /// The records with a conflict.
    pub(crate) in_conflict: BTreeMap<RecordKey, InConflict>,
    pub(crate) open_conflicts: u64,
    pub(crate) dead_letters: u64,
    pub(crate) pending_ops: u64,
}

/// All conflicts of one record together.
#[derive(Debug, Clone, Default)]
pub struct InConflict {
    /// The authors whose devices found a conflict.
    pub authors: BTreeSet<usize>,
    /// The fields of the conflicts.
    pub fields: BTreeSet<String>,
    /// Whether a conflict was about the whole record: a delete or a replace.
    pub whole: bool,
}

impl InConflict {
    /// Returns whether conflicts name everything that differs.
    pub(crate) fn names_all(&self, difference: &Difference) -> bool {
        self.whole
            || (difference.kind == Kind::Values
                && difference.fields.iter().all(|field| self.fields.contains(field)))
    }
}

/// Conflicts of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConflictCount {
    /// The policy that resolved them, by its stable name.
    pub policy: &'static str,
    /// The winner: `local`, `remote`, `merged` or `undecided`.
    pub winner: &'static str,
    /// Their number.
    pub count: u64,
}

impl Census {
    /// Adds one device.
    pub(crate) fn add(&mut self, author: usize, book: &Book) -> Result<(), fieldbook::Error> {
        self.walk(book)?;
        self.book_bytes += book.audit().used_bytes()?;
        let status = book.status();
        self.dead_letters += status.dead_letters;
        self.pending_ops += status.pending;
        for conflict in book.conflicts().all()? {
            *self
                .conflicts
                .entry((conflict.rule.as_str(), winner(conflict.winner)))
                .or_default() += 1;
            self.open_conflicts += u64::from(conflict.open);
            let known = self.in_conflict.entry(conflict.key).or_default();
            known.authors.insert(author);
            known.whole |= conflict.fields.is_empty();
            known.fields.extend(conflict.fields.into_iter().map(|field| field.name));
        }
        Ok(())
    }

    fn walk(&mut self, book: &Book) -> Result<(), fieldbook::Error> {
        let mut from = Seq::ZERO.next();
        loop {
            let entries = book.audit().entries(from, ENTRIES)?;
            let Some(last) = entries.last() else { return Ok(()) };
            from = last.header.seq.next();
            for entry in entries {
                self.log_entries += 1;
                self.entry(&entry.meta);
            }
        }
    }

    fn entry(&mut self, meta: &Meta) {
        match meta {
            Meta::Intent(intent) => self.ops += intent.ops.len() as u64,
            Meta::Control(Control::Planned(planned)) => {
                self.units += planned.units.len() as u64;
                for change in planned.units.iter().flat_map(|unit| &unit.changes) {
                    self.changes += 1;
                    self.planned_ops += change.ops.len() as u64;
                }
                let cancelled =
                    planned.cancelled.iter().map(|cancelled| cancelled.ops.len() as u64);
                self.cancelled_ops += cancelled.sum::<u64>();
            }
            Meta::Control(Control::Decided(decisions) | Control::PersonActed(_, decisions)) => {
                for decision in decisions {
                    match decision {
                        Decision::Cancelled(cancelled) => {
                            self.cancelled_ops += cancelled.ops.len() as u64
                        }
                        Decision::Superseded { .. } => self.superseded_ops += 1,
                        _ => {}
                    }
                }
            }
            Meta::Upstream(_) | Meta::Control(_) => {}
        }
    }

    /// Returns the number of ops that were sent only as part of a later op's change.
    pub(crate) const fn coalesced_ops(&self) -> u64 {
        self.planned_ops - self.changes
    }

    /// Returns the conflicts by policy and winner.
    pub(crate) fn conflict_counts(&self) -> Vec<ConflictCount> {
        let counts = self.conflicts.iter();
        counts
            .map(|((policy, winner), count)| ConflictCount { policy, winner, count: *count })
            .collect()
    }
}

/// Returns the stable name of a winner.
const fn winner(winner: Winner) -> &'static str {
    match winner {
        Winner::Local => "local",
        Winner::Remote => "remote",
        Winner::Merged => "merged",
        Winner::Undecided => "undecided",
    }
}
