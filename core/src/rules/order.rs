//! The order in which groups are sent: by priority of the entity type and the kind of op, then by
//! age.
//!
//! Invariants:
//! 1. A delete is not sent before earlier ops that refer to its record or remove a reference to it.
//!    It is not sent before an earlier delete of an entity type whose records may have referred to
//!    its record: the server would refuse the later of the two.
//! 2. The order is total, and depends on nothing but the ops.
//!
//! What it does not do: make ops wait for others. Ops that depend on a record that the server does
//! not have are no candidates ([`super::plan`]).

use std::cmp::Reverse;
use std::collections::HashMap;

use super::group::Group;
use crate::names::{EntityType, RecordKey};
use crate::op::{OpKind, OpPlace};
use crate::rows::TailRow;
use crate::schema::Schema;
use crate::tail::Tail;

/// A group that could be sent, with the facts that order it.
pub(super) struct Candidate {
    pub(super) priority: i32,
    pub(super) first: OpPlace,
    pub(super) group: Group,
    pub(super) bytes: usize,
}

/// Puts candidates in the order in which they are sent.
pub(super) fn order(schema: &Schema, tail: &Tail, candidates: &mut [Candidate]) {
    heed_references(schema, tail, candidates);
    candidates.sort_by_key(|candidate| (Reverse(candidate.priority), candidate.first));
}

/// Returns the kind of op that some ops of a record make together.
pub(super) fn comes_to<'a>(ops: impl Iterator<Item = &'a TailRow>) -> OpKind {
    ops.fold(None, |kind, row| Some(together(kind, row.kind))).unwrap_or(OpKind::Update)
}

/// Returns the kind of op that an op makes together with those before it; `None` stands for no
/// earlier op.
pub(super) const fn together(before: Option<OpKind>, next: OpKind) -> OpKind {
    match (before, next) {
        (_, OpKind::Delete) => OpKind::Delete,
        (Some(OpKind::Create), _) | (None, OpKind::Create) => OpKind::Create,
        (Some(OpKind::Delete), _) => OpKind::Replace,
        (Some(before), _) => before,
        (None, next) => next,
    }
}

/// Lowers the priority of deletes. A delete is not sent before earlier ops that refer to its record
/// or remove a reference to it, nor before an earlier delete of an entity type whose records may
/// have referred to its record.
fn heed_references<'a>(schema: &'a Schema, tail: &'a Tail, candidates: &mut [Candidate]) {
    candidates.sort_by_key(|candidate| candidate.first);
    let mut referring: HashMap<&RecordKey, i32> = HashMap::new();
    let mut deleting: HashMap<&EntityType, i32> = HashMap::new();
    for Candidate { priority, group, .. } in candidates {
        let rows_of = |places: &[OpPlace]| -> Vec<&'a TailRow> {
            places.iter().filter_map(|place| tail.op(*place)).collect()
        };
        let records: Vec<_> = group.records.iter().map(|(_, places)| rows_of(places)).collect();
        let kind = |rows: &[&'a TailRow]| comes_to(rows.iter().copied());
        let deletes = records.iter().filter(|rows| kind(rows) == OpKind::Delete);
        let deleted: Vec<_> = deletes.filter_map(|rows| rows.first()).map(|row| &row.key).collect();
        for key in &deleted {
            let earlier = [referring.get(key).copied(), deleting.get(&key.entity).copied()];
            *priority = earlier.into_iter().flatten().fold(*priority, i32::min);
        }
        let known = *priority;
        let lower = |noted: &mut i32| *noted = (*noted).min(known);
        for target in records.iter().flatten().flat_map(|row| row.targets().chain(&row.led_away)) {
            referring.entry(target).and_modify(lower).or_insert(known);
        }
        for key in deleted {
            let declared = schema.rules(&key.entity).map(|rules| rules.references.as_slice());
            for reference in declared.unwrap_or_default() {
                deleting.entry(&reference.entity).and_modify(lower).or_insert(known);
            }
        }
    }
}
