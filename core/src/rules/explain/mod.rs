//! Explains why a record is not synced, or that it is: in sentences that a support person can read
//! out, and as data.
//!
//! ```text
//!   Facts (rows of one snapshot, where the ops stand) ──► explain ──► Explanation ──► words: one sentence each
//! ```
//!
//! [`super::status`] computes the state of the record and its ops. This module adds the user's
//! view, the confirmed version, the conflicts, and the sentences.
//!
//! Invariants:
//! 1. The same facts give the same explanation. Time is one of the facts: the plan was made for a
//!    moment.
//! 2. It contains no value of a field. It contains names of fields, ids, codes, and the reason that
//!    the server or the app's validator gave for a refusal.
//! 3. It has a sentence for every op of the record's tail, and words for every reason to hold an
//!    op.
//!
//! What it does not do: show the history of a record, or ask the server.

mod explanation;
#[cfg(test)]
mod tests;
mod words;

pub use explanation::{ExplainedConflict, ExplainedOp, ExplainedVersion, Explanation, Seen};

use super::status::{Known, RecordState};
use crate::entry::Extent;
use crate::names::{Actor, RecordKey};
use crate::numbers::ConflictId;
use crate::op::OpPlace;
use crate::rows::{ConflictRow, RecordRow, TailRow, Visible};
use crate::time::WallTime;

/// The facts of an explanation, read at one moment.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The record.
    pub key: &'a RecordKey,
    /// Its row; an empty one if nothing is known of the record.
    pub row: &'a RecordRow,
    /// The facts about ops that have not ended.
    pub known: Known<'a>,
    /// The record's conflicts, oldest first.
    pub conflicts: &'a [(ConflictId, ConflictRow)],
    /// The authors of the server's changes that the conflicts met, in the same order; none if the
    /// server did not say.
    pub authors: &'a [Option<Actor>],
    /// Whether something of the record is undeclared: its entity type is not declared.
    pub undeclared: bool,
    /// The time at which records of its entity type were last brought up to date.
    pub entity_synced_at: Option<WallTime>,
    /// The time at which the server last answered this device at all.
    pub book_synced_at: Option<WallTime>,
}

/// Explains the state of a record.
pub fn explain(facts: &Facts<'_>) -> Explanation {
    let seen = seen(facts.row);
    let state = facts.known.record(facts.key, seen != Seen::Nothing);
    let places = facts.known.tail.ops_of(facts.key);
    let ops = places.filter_map(|place| Some(op(&facts.known, place, facts.known.tail.op(place)?)));
    let confirmed = facts.row.confirmed.as_ref().map(|confirmed| ExplainedVersion {
        version: confirmed.version,
        edited_at: confirmed.edited_at.wall(),
        deleted: confirmed.deleted,
    });
    let mut explanation = Explanation {
        key: facts.key.clone(),
        state: state.status.state(),
        decided_by: state.decided_by,
        seen,
        confirmed,
        ops: ops.collect(),
        conflicts: conflicts(facts),
        undeclared: facts.undeclared,
        synced_at: facts.row.synced_at,
        entity_synced_at: facts.entity_synced_at,
        book_synced_at: facts.book_synced_at,
        sentences: Vec::new(),
    };
    explanation.sentences = words::sentences(&explanation);
    explanation
}

/// The most other records of a transaction that the explanation of an op has. The sentences name
/// all but the last of so many.
pub const OTHER_RECORDS: usize = 4;

/// Explains the state of one op of the tail.
pub fn op(known: &Known<'_>, place: OpPlace, row: &TailRow) -> ExplainedOp {
    let state = known.op(place, row);
    ExplainedOp {
        op: row.op,
        place,
        kind: row.kind,
        actor: row.actor.clone(),
        made_at: row.made_at,
        transaction_ops: row.transaction_ops,
        together_with: together_with(known, place, row),
        awaits: state.awaits(Some(&row.actor)),
        actions: state.actions(),
        state,
    }
}

/// Returns other records of the op's transaction, in the order of its ops.
fn together_with(known: &Known<'_>, place: OpPlace, row: &TailRow) -> Vec<RecordKey> {
    let mut records: Vec<RecordKey> = Vec::new();
    if row.transaction_ops > 1 {
        for (_, other) in known.tail.ops_of_entry(place.seq) {
            if other.key != row.key && !records.contains(&other.key) {
                records.push(other.key.clone());
            }
            if records.len() == OTHER_RECORDS {
                break;
            }
        }
    }
    records
}

impl Explanation {
    /// Returns the state of the record in a few words: the deciding part of the sentence.
    pub fn in_short(&self) -> String {
        let decides = self.ops.iter().find(|op| Some(op.place) == self.decided_by);
        match decides {
            Some(op) => op.in_words(),
            None if self.state == RecordState::Unknown => "unknown to this device".to_owned(),
            None => "synced".to_owned(),
        }
    }
}

impl ExplainedOp {
    /// Returns the state of the op, in words.
    pub fn in_words(&self) -> String {
        super::status::in_words(&self.state, Some(&self.actor))
    }
}

fn seen(row: &RecordRow) -> Seen {
    match (&row.visible, &row.confirmed) {
        (Visible::Own(_), _) => Seen::WithOwnChanges,
        (Visible::Absent, _) => Seen::DeletedHere,
        (Visible::AsConfirmed, Some(confirmed)) if confirmed.deleted => Seen::DeletedByServer,
        (Visible::AsConfirmed, Some(_)) => Seen::AsConfirmed,
        (Visible::AsConfirmed, None) => Seen::Nothing,
    }
}

fn conflicts(facts: &Facts<'_>) -> Vec<ExplainedConflict> {
    let authors = facts.authors.iter().cloned().chain(std::iter::repeat(None));
    facts.conflicts.iter().zip(authors).map(|((id, row), by)| conflict(*id, row, by)).collect()
}

fn conflict(id: ConflictId, row: &ConflictRow, remote_by: Option<Actor>) -> ExplainedConflict {
    ExplainedConflict {
        id,
        at: row.at,
        op: row.op.place,
        kind: row.kind,
        version: row.version,
        remote_by,
        deleted_by_server: row.extent == Extent::Deleted,
        fields: row.fields.clone(),
        winner: row.winner,
        rule: row.rule,
        functions: row.functions.clone(),
        open: row.open,
    }
}
