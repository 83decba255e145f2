//! The ops that are still to be sent, as the planner would send them if nothing held them.
//!
//! ```text
//!   unanswered units       as they are frozen
//!   waiting ops            planned, removed from a copy of the tail, planned again, until nothing is left
//! ```
//!
//! Ops that can never leave by themselves are not counted: dead letters, ops that wait for a dead
//! creation, local ops.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fieldbook::error::StoreError;
use fieldbook::host::WallTime;
use fieldbook::record::{OpKind, OpPlace};
use fieldbook::{RecordKey, Schema};
use fieldbook_core::record::TailOp;
use fieldbook_core::rows::{RecordRow, TailRow};
use fieldbook_core::rules::View;
use fieldbook_core::rules::coalesce::coalesce;
use fieldbook_core::rules::group::Group;
use fieldbook_core::rules::inspect::NoInspection;
use fieldbook_core::rules::plan::{PlanInput, plan};
use fieldbook_core::tail::Tail;
use fieldbook_core::{Actor, FieldsJson};
use fieldbook_projections::Snapshot;
use fieldbook_projections::SnapshotView;
use serde_json::{Value, json};

use super::fault::Fault;

/// One change to be sent.
pub(super) struct Owed {
    pub(super) key: RecordKey,
    pub(super) shown: Value,
    pub(super) tries: u32,
}

/// Returns the changes to be sent, oldest first.
pub(super) fn owed(snapshot: &Arc<Snapshot>, schema: &Schema) -> Result<Vec<Owed>, Fault> {
    let tail = snapshot.tail(schema)?;
    let mut reader = SnapshotView::new(&**snapshot, snapshot.log()?, &tail);
    let mut found: Vec<(OpPlace, Owed)> = Vec::new();
    for (id, unit) in tail.units() {
        let Some(row) = snapshot.unit(id)? else { continue };
        for change in &row.changes {
            let fields = reader.fields(change.fields)?;
            let shown = shown(change.kind, &change.key, fields.as_ref());
            let first = change.ops.iter().map(|op| op.place).min().unwrap_or_default();
            found.push((first, Owed { key: change.key.clone(), shown, tries: unit.tries }));
        }
    }
    for group in waiting(&tail, schema) {
        for (key, places) in &group.records {
            let Some(first) = places.first() else { continue };
            let behind = tail.ops_of(key).any(|place| place < *first && !tail.is_dead(place));
            let row = snapshot.record(key)?.unwrap_or_default();
            if let Some((kind, fields)) = come_to(&mut reader, &row, places, behind)? {
                let shown = shown(kind, key, fields.as_ref());
                found.push((*first, Owed { key: key.clone(), shown, tries: 0 }));
            }
        }
    }
    found.sort_by_key(|(place, _)| *place);
    Ok(found.into_iter().map(|(_, owed)| owed).collect())
}

fn shown(kind: OpKind, key: &RecordKey, fields: Option<&FieldsJson>) -> Value {
    json!([kind, key, fields.and_then(|fields| fields.to_fields().ok())])
}

/// Returns the groups of all ops that wait, in the order in which they would leave.
fn waiting(tail: &Tail, schema: &Schema) -> Vec<Group> {
    let mut rows: BTreeMap<OpPlace, TailRow> = tail
        .ops()
        .filter(|(place, _)| tail.unit_of(*place).is_none())
        .map(|(place, row)| (place, row.clone()))
        .collect();
    let actors: BTreeSet<_> = rows.values().map(|row| row.actor.clone()).collect();
    let mut groups = Vec::new();
    let mut heed_references = true;
    loop {
        let left = copy(&rows, |place| tail.is_dead(place), heed_references);
        let next: Vec<_> = actors.iter().flat_map(|actor| planned(&left, schema, actor)).collect();
        if next.is_empty() && !heed_references {
            return groups;
        }
        // The remaining ops may refer to records that will never exist. They count all the same.
        heed_references = !next.is_empty();
        for place in next.iter().flat_map(|group| &group.records).flat_map(|(_, places)| places) {
            rows.remove(place);
        }
        groups.extend(next);
    }
}

fn copy(
    rows: &BTreeMap<OpPlace, TailRow>,
    dead: impl Fn(OpPlace) -> bool,
    references: bool,
) -> Tail {
    let mut tail = Tail::default();
    for (place, row) in rows {
        let mut row = row.clone();
        if !references {
            row.references.clear();
        }
        tail.insert(*place, row);
        tail.set_dead(*place, dead(*place));
    }
    tail
}

fn planned(tail: &Tail, schema: &Schema, actor: &Actor) -> Vec<Group> {
    // At this time nothing backs off any more.
    let now = WallTime::from_milliseconds(i64::MAX);
    plan(&PlanInput::unbounded(tail, schema, &[], actor, now, &NoInspection)).groups
}

/// Returns the kind of op that ops make together with those before them.
fn come_to(
    reader: &mut impl View<Error = StoreError>,
    row: &RecordRow,
    places: &[OpPlace],
    behind_others: bool,
) -> Result<Option<(OpKind, Option<FieldsJson>)>, Fault> {
    let tail = row.tail_ops(|place| reader.op(place), StoreError::from)?;
    let mut confirmed = row.registers().map_err(StoreError::from)?;
    let first = places.iter().min().copied().unwrap_or_default();
    let is_before = |op: &&TailOp| op.op.place < first && !op.pending.dead;
    confirmed
        .join_tail(tail.iter().filter(is_before).filter(|_| behind_others).map(|op| &op.writes));
    let ops = tail.iter().filter(|op| places.contains(&op.op.place));
    let change = coalesce(&confirmed, ops, behind_others).ok();
    Ok(change.map(|change| {
        let fields = (change.kind != OpKind::Delete).then(|| change.fields.to_json());
        (change.kind, fields)
    }))
}
