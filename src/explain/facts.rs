//! From rows to what there is to say of them. Pure: the same facts give the same explanation.

use std::collections::BTreeMap;

use fieldbook_core::entry::{Extent, ParkScope};
use fieldbook_core::rows::{ConflictRow, DeadLetterRow, RecordRow, TailRow, Visible};
use fieldbook_core::rules::plan::Hold;
use fieldbook_core::tail::TailUnit;
use fieldbook_core::{OpId, OpKind, OpPlace, RecordKey, Seq, WallTime};
use fieldbook_projections::ConflictId;

use super::{
    ExplainedConflict, ExplainedOp, ExplainedVersion, Explanation, Held, OpState, ParkedScope, Seen,
    Standing, sentences,
};

/// What an explanation is made of, as it was read.
pub(super) struct Facts {
    pub(super) key: RecordKey,
    pub(super) row: RecordRow,
    pub(super) ops: Vec<OpFacts>,
    pub(super) conflicts: Vec<(ConflictId, ConflictRow)>,
    pub(super) kept_aside: bool,
    pub(super) entity_synced_at: Option<WallTime>,
    pub(super) book_synced_at: Option<WallTime>,
    /// When entries were written that ops are under way since.
    pub(super) written_at: BTreeMap<Seq, WallTime>,
}

/// What is known of an op of the record's tail.
pub(super) struct OpFacts {
    pub(super) op: OpId,
    pub(super) place: OpPlace,
    pub(super) kind: OpKind,
    pub(super) row: Option<TailRow>,
    pub(super) unit: Option<TailUnit>,
    /// The unit that it waits behind.
    pub(super) before: Option<TailUnit>,
    pub(super) hold: Option<Hold>,
    pub(super) dead: Option<DeadLetterRow>,
}

pub(super) fn explain(facts: Facts) -> Explanation {
    let ops: Vec<_> = facts.ops.iter().map(|op| explain_op(op, &facts.written_at)).collect();
    let conflicts: Vec<_> = facts.conflicts.into_iter().map(|(id, row)| explain_conflict(id, row)).collect();
    let seen = match (&facts.row.visible, &facts.row.confirmed) {
        (Visible::Own(_), _) => Seen::WithOwnChanges,
        (Visible::Absent, _) => Seen::DeletedHere,
        (Visible::AsConfirmed, Some(confirmed)) if confirmed.deleted => Seen::DeletedByServer,
        (Visible::AsConfirmed, Some(_)) => Seen::AsConfirmed,
        (Visible::AsConfirmed, None) => Seen::Nothing,
    };
    let confirmed = facts.row.confirmed.as_ref().map(|confirmed| ExplainedVersion {
        version: confirmed.version,
        edited_at: confirmed.edited_at.wall(),
        deleted: confirmed.deleted,
    });
    let mut explanation = Explanation {
        key: facts.key,
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
    explanation.sentences = sentences::sentences(&explanation);
    explanation
}

fn standing(seen: Seen, ops: &[ExplainedOp], conflicts: &[ExplainedConflict]) -> Standing {
    let is_open = conflicts.iter().any(|conflict| conflict.open);
    let each = ops.iter().map(|op| match &op.state {
        OpState::DeadLettered { .. } => 6,
        OpState::Parked { scope: ParkedScope::Op, .. } if is_open => 5,
        OpState::Parked { .. } => 4,
        OpState::Held(Held::Behind { .. }) | OpState::Pending => 1,
        OpState::Held(_) => 3,
        OpState::InFlight { .. } => 2,
    });
    match each.max() {
        Some(6..) => Standing::DeadLettered,
        Some(5) => Standing::InConflict,
        Some(4) => Standing::Parked,
        Some(3) => Standing::Held,
        Some(2) => Standing::InFlight,
        Some(_) => Standing::Pending,
        None if seen == Seen::Nothing => Standing::Unknown,
        None => Standing::Synced,
    }
}

fn explain_op(facts: &OpFacts, written_at: &BTreeMap<Seq, WallTime>) -> ExplainedOp {
    ExplainedOp {
        op: facts.op,
        place: facts.place,
        kind: facts.kind,
        actor: facts.row.as_ref().map(|row| row.actor.clone()),
        made_at: facts.row.as_ref().map(|row| row.made_at),
        state: state(facts, written_at),
    }
}

fn state(facts: &OpFacts, written_at: &BTreeMap<Seq, WallTime>) -> OpState {
    if let Some(dead) = &facts.dead {
        return OpState::DeadLettered {
            code: dead.code.clone(),
            message: dead.message.clone(),
            tries: dead.tries,
            last_at: Some(dead.last_at),
        };
    }
    let Some(hold) = &facts.hold else {
        return facts.unit.as_ref().map_or(OpState::Pending, |unit| OpState::InFlight {
            since: unit.planned,
            since_at: written_at.get(&unit.planned).copied(),
            tries: unit.tries,
        });
    };
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
        Hold::BackingOff { until, code } => Held::BackingOff {
            until: *until,
            code: code.clone(),
            tries: facts.unit.as_ref().map_or(0, |unit| unit.tries),
        },
        Hold::Behind(_) => Held::Behind { since: facts.before.as_ref().map(|unit| unit.planned) },
        Hold::UnmeteredNetwork => Held::UnmeteredNetwork,
        Hold::OtherActor(actor) => Held::OtherActor { actor: actor.clone() },
        Hold::LocalOnly => Held::LocalOnly,
        Hold::Gone(record) => Held::Gone { record: record.clone() },
        Hold::Refused { reason } => Held::Refused { reason: reason.clone() },
        _ => Held::Other,
    })
}

impl ParkedScope {
    const fn of(scope: &ParkScope) -> Self {
        match scope {
            ParkScope::Actor(_) => Self::Actor,
            ParkScope::Entity(_) => Self::Entity,
            ParkScope::Op(_) => Self::Op,
            ParkScope::Server(..) => Self::Server,
            ParkScope::Protocol => Self::Protocol,
        }
    }
}

fn explain_conflict(id: ConflictId, row: ConflictRow) -> ExplainedConflict {
    ExplainedConflict {
        id,
        at: row.at,
        op: row.op.place,
        kind: row.kind,
        version: row.version,
        deleted_by_server: row.extent == Extent::Deleted,
        fields: row.fields,
        winner: row.winner,
        rule: row.rule,
        functions: row.functions.into_iter().map(|settled| (settled.field, settled.function)).collect(),
        open: row.open,
    }
}
