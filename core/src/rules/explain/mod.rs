//! Why a record is not synced, or that it is: in words that a support person can read out, and as data.
//!
//! ```text
//!   Facts (rows of one snapshot, where the ops stand) ──► explain ──► Explanation ──► words: one sentence each
//! ```
//!
//! Where the record and its ops stand is [`super::status`]'s to say: nothing of it is computed here. This module adds what the user
//! sees, what the server confirmed, which conflicts there were, and the sentences.
//!
//! Invariants:
//! 1. The same facts give the same explanation. Time comes in with them: the plan was made for an instant.
//! 2. No value of a field is in it, only names of fields, ids, codes, and what the server or the app's validator said of a
//!    refusal.
//! 3. Every op of the record's tail has its sentence, and every reason to hold one has its words.
//!
//! What it is not: the history of a record, or a look at what the server has.

mod explanation;
#[cfg(test)]
mod tests;
mod words;

pub use explanation::{ExplainedConflict, ExplainedOp, ExplainedVersion, Explanation, Seen};

use super::status::{Known, RecordState};
use crate::entry::{ConflictedField, Extent};
use crate::names::RecordKey;
use crate::numbers::ConflictId;
use crate::op::OpPlace;
use crate::rows::{ConflictRow, RecordRow, TailRow, Visible};
use crate::time::WallTime;

/// What an explanation is made of, as it was read at one instant.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The record.
    pub key: &'a RecordKey,
    /// Its row; an empty one if nothing is known of it.
    pub row: &'a RecordRow,
    /// What is known of the ops that have no terminal outcome.
    pub known: Known<'a>,
    /// The record's conflicts, oldest first.
    pub conflicts: &'a [(ConflictId, ConflictRow)],
    /// Whether the server sent it, but its entity type is not declared.
    pub kept_aside: bool,
    /// When records of its entity type were last brought up to date.
    pub entity_synced_at: Option<WallTime>,
    /// When the server last answered this device at all.
    pub book_synced_at: Option<WallTime>,
}

/// Explains where a record stands.
pub fn explain(facts: &Facts<'_>) -> Explanation {
    let seen = seen(facts.row);
    let standing = facts.known.record(facts.key, seen != Seen::Nothing);
    let places = facts.known.tail.ops_of(facts.key);
    let ops = places.filter_map(|place| Some(op(&facts.known, place, facts.known.tail.op(place)?)));
    let confirmed = facts.row.confirmed.as_ref().map(|confirmed| ExplainedVersion {
        version: confirmed.version,
        edited_at: confirmed.edited_at.wall(),
        deleted: confirmed.deleted,
    });
    let mut explanation = Explanation {
        key: facts.key.clone(),
        standing: standing.status.state(),
        decided_by: standing.decided_by,
        seen,
        confirmed,
        ops: ops.collect(),
        conflicts: facts.conflicts.iter().map(|(id, row)| conflict(*id, row)).collect(),
        kept_aside: facts.kept_aside,
        synced_at: facts.row.synced_at,
        entity_synced_at: facts.entity_synced_at,
        book_synced_at: facts.book_synced_at,
        sentences: Vec::new(),
    };
    explanation.sentences = words::sentences(&explanation);
    explanation
}

/// Explains where one op of the tail stands.
pub fn op(known: &Known<'_>, place: OpPlace, row: &TailRow) -> ExplainedOp {
    let state = known.op(place, row);
    ExplainedOp {
        op: row.op,
        place,
        kind: row.kind,
        actor: row.actor.clone(),
        made_at: row.made_at,
        awaits: state.awaits(Some(&row.actor)),
        actions: state.actions(),
        state,
    }
}

impl Explanation {
    /// Returns where the record stands in the fewest words: what decides that, without the rest of the sentence.
    pub fn in_short(&self) -> String {
        let decides = self.ops.iter().find(|op| Some(op.place) == self.decided_by);
        match decides {
            Some(op) => op.in_words(),
            None if self.standing == RecordState::Unknown => "unknown to this device".to_owned(),
            None => "synced".to_owned(),
        }
    }
}

impl ExplainedOp {
    /// Returns where the op stands, in words.
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

fn conflict(id: ConflictId, row: &ConflictRow) -> ExplainedConflict {
    let fields = row.fields.iter().cloned();
    ExplainedConflict {
        id,
        at: row.at,
        op: row.op.place,
        kind: row.kind,
        version: row.version,
        deleted_by_server: row.extent == Extent::Deleted,
        fields: fields.map(|(name, rule, winner)| ConflictedField { name, rule, winner }).collect(),
        winner: row.winner,
        rule: row.rule,
        functions: row.functions.clone(),
        open: row.open,
    }
}
