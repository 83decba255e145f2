//! Why a record is not synced, or that it is: in words that a support person can read out, and as data.
//!
//! ```text
//!   Facts (rows of one snapshot, what the plan holds) ──► explain ──► Explanation ──► words: one sentence each
//! ```
//!
//! | an op of the tail that | is explained as | the record then stands at least at |
//! |---|---|---|
//! | the server refused for good | dead-lettered | dead-lettered |
//! | is stopped by a conflict that is still open | parked | in conflict |
//! | is stopped by anything else (a park, a missing upcaster) | parked | parked |
//! | is held for a reason of its own | held | held |
//! | is in a unit, and nothing holds it | in flight | in flight |
//! | waits behind an earlier op of the record, or one that met a conflict | held | pending, or in conflict |
//! | is in no unit, and nothing holds it | pending | pending |
//!
//! Of several, the upper one counts. Without a tail a record is synced, or unknown.
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

use std::collections::BTreeMap;

pub use explanation::{
    ExplainedConflict, ExplainedOp, ExplainedVersion, Explanation, Held, OpState, ParkedScope, Seen, Standing,
};

use super::plan::Hold;
use crate::entry::{Extent, ParkScope};
use crate::ids::{OpId, UnitId};
use crate::limits;
use crate::names::RecordKey;
use crate::numbers::{ConflictId, Seq};
use crate::op::OpPlace;
use crate::rows::{ConflictRow, DeadLetterRow, RecordRow, TailRef, Visible};
use crate::tail::Tail;
use crate::time::WallTime;

/// What an explanation is made of, as it was read at one instant.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The record.
    pub key: &'a RecordKey,
    /// Its row; an empty one if nothing is known of it.
    pub row: &'a RecordRow,
    /// The whole tail.
    pub tail: &'a Tail,
    /// What a plan without bounds holds.
    pub holds: &'a BTreeMap<OpPlace, Hold>,
    /// The dead letters among the record's ops.
    pub dead: &'a BTreeMap<OpId, DeadLetterRow>,
    /// The record's conflicts, oldest first.
    pub conflicts: &'a [(ConflictId, ConflictRow)],
    /// Whether the server sent it, but its entity type is not declared.
    pub kept_aside: bool,
    /// When records of its entity type were last brought up to date.
    pub entity_synced_at: Option<WallTime>,
    /// When the server last answered with anything new at all.
    pub book_synced_at: Option<WallTime>,
    /// When entries were written since which ops are under way.
    pub written_at: &'a BTreeMap<Seq, WallTime>,
}

/// Explains where a record stands.
pub fn explain(facts: &Facts<'_>) -> Explanation {
    let ops: Vec<_> = facts.row.tail.iter().map(|reference| facts.op(reference)).collect();
    let conflicts: Vec<_> = facts.conflicts.iter().map(|(id, row)| conflict(*id, row)).collect();
    let seen = seen(facts.row);
    let confirmed = facts.row.confirmed.as_ref().map(|confirmed| ExplainedVersion {
        version: confirmed.version,
        edited_at: confirmed.edited_at.wall(),
        deleted: confirmed.deleted,
    });
    let mut explanation = Explanation {
        key: facts.key.clone(),
        standing: standing(seen, &ops, &conflicts),
        seen,
        confirmed,
        ops,
        conflicts,
        kept_aside: facts.kept_aside,
        synced_at: facts.row.synced_at,
        entity_synced_at: facts.entity_synced_at,
        book_synced_at: facts.book_synced_at,
        sentences: Vec::new(),
    };
    explanation.sentences = words::sentences(&explanation);
    explanation
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

/// The table above: what comes last in the order of [`Standing`] counts.
fn standing(seen: Seen, ops: &[ExplainedOp], conflicts: &[ExplainedConflict]) -> Standing {
    let is_open = conflicts.iter().any(|conflict| conflict.open);
    let each = ops.iter().map(|op| match &op.state {
        OpState::DeadLettered { .. } => Standing::DeadLettered,
        OpState::Parked { scope: ParkedScope::Op, .. } if is_open => Standing::InConflict,
        OpState::Parked { .. } => Standing::Parked,
        OpState::Held(Held::BehindConflict { .. }) if is_open => Standing::InConflict,
        OpState::Pending
        | OpState::Held(Held::Behind { .. } | Held::BehindNotLetThrough { .. } | Held::After { .. }) => {
            Standing::Pending
        }
        OpState::Held(_) => Standing::Held,
        OpState::InFlight { .. } => Standing::InFlight,
    });
    let without_tail = if seen == Seen::Nothing { Standing::Unknown } else { Standing::Synced };
    each.max().unwrap_or(without_tail)
}

impl Facts<'_> {
    fn op(&self, reference: &TailRef) -> ExplainedOp {
        let row = self.tail.op(reference.place);
        ExplainedOp {
            op: reference.op,
            place: reference.place,
            kind: reference.kind,
            actor: row.map(|row| row.actor.clone()),
            made_at: row.map(|row| row.made_at),
            state: self.state(reference),
        }
    }

    fn state(&self, reference: &TailRef) -> OpState {
        if let Some(dead) = self.dead.get(&reference.op) {
            return OpState::DeadLettered {
                code: dead.code.clone(),
                message: dead.message.clone(),
                tries: dead.tries,
                last_at: Some(dead.last_at),
            };
        }
        let unit = self.tail.unit_of(reference.place).and_then(|unit| self.tail.unit(&unit));
        match self.holds.get(&reference.place) {
            Some(Hold::Parked { scope: ParkScope::Op(stopped), .. }) if *stopped != reference.op => {
                // What stopped is another change; if that one is gone meanwhile, the next plan lifts this too.
                match self.tail.place_of(stopped) {
                    Some(op) => OpState::Held(Held::BehindConflict { op }),
                    None => OpState::Held(Held::Behind { since: None }),
                }
            }
            Some(hold) => self.held(hold, unit.map_or(0, |unit| unit.tries)),
            None => unit.map_or(OpState::Pending, |unit| OpState::InFlight {
                since: unit.planned,
                since_at: self.written_at.get(&unit.planned).copied(),
                tries: unit.tries,
            }),
        }
    }

    /// What goes first is under way only while nothing holds it.
    fn behind(&self, unit: &UnitId) -> Held {
        let Some(unit) = self.tail.unit(unit) else { return Held::Behind { since: None } };
        match unit.ops.iter().find_map(|place| Some((*place, self.holds.get(place)?))) {
            None => Held::Behind { since: Some(unit.planned) },
            Some((op, Hold::NotLetThrough { code, .. })) => {
                Held::BehindNotLetThrough { op, code: code.clone() }
            }
            Some(_) => Held::Behind { since: None },
        }
    }

    /// A hold that is added has to be given its words: there is no other arm.
    fn held(&self, hold: &Hold, tries: u32) -> OpState {
        OpState::Held(match hold {
            Hold::Parked { scope, code } => {
                return OpState::Parked { scope: ParkedScope::of(scope), code: code.clone() };
            }
            Hold::NoUpcaster { from, to } => {
                let code = format!("schema version {from} of {to}");
                return OpState::Parked { scope: ParkedScope::SchemaVersion, code };
            }
            Hold::UndoWindow { until } => Held::UndoWindow { until: *until },
            Hold::WaitsFor(record) => Held::WaitsFor { record: record.clone() },
            Hold::DeadCreate => Held::DeadCreate,
            Hold::BackingOff { until, code } => Held::BackingOff { until: *until, code: code.clone(), tries },
            Hold::NotLetThrough { until, code, times } => {
                Held::NotLetThrough { until: *until, code: code.clone(), times: *times }
            }
            Hold::Behind(unit) => self.behind(unit),
            Hold::After(op) => Held::After { op: *op },
            Hold::UnmeteredNetwork => Held::UnmeteredNetwork,
            Hold::OtherActor(actor) => Held::OtherActor { actor: actor.clone() },
            Hold::LocalOnly => Held::LocalOnly,
            Hold::Gone(record) => Held::Gone { record: record.clone() },
            Hold::Refused { reason } => Held::Refused { reason: reason.clone() },
            Hold::TooLarge { bytes } => Held::TooLarge { bytes: *bytes, most: limits::OP_BYTES },
        })
    }
}

impl ParkedScope {
    const fn of(scope: &ParkScope) -> Self {
        match scope {
            ParkScope::Actor(_) => Self::Actor,
            ParkScope::Entity(_) => Self::Entity,
            ParkScope::Op(_) => Self::Op,
            ParkScope::Server(..) => Self::Server,
            ParkScope::Tenant(_) => Self::Tenant,
            ParkScope::Protocol => Self::Protocol,
        }
    }
}

fn conflict(id: ConflictId, row: &ConflictRow) -> ExplainedConflict {
    ExplainedConflict {
        id,
        at: row.at,
        op: row.op.place,
        kind: row.kind,
        version: row.version,
        deleted_by_server: row.extent == Extent::Deleted,
        fields: row.fields.clone(),
        winner: row.winner,
        rule: row.rule,
        functions: row
            .functions
            .iter()
            .map(|settled| (settled.field.clone(), settled.function.clone()))
            .collect(),
        open: row.open,
    }
}
