//! What becomes of our own edits of a record when the server says something new of it.
//!
//! Ops that would be sent as one change are judged as one: they are folded, the change is settled against the server's
//! record ([`super::resolve`]), and what comes out is dealt back to the ops.
//!
//! ```text
//!   ops of a stale unit   ─┐
//!                          ├─ fold ─► settle ─► each op: stands, loses fields, ends, or waits for a person
//!   ops that wait         ─┘
//! ```
//!
//! Invariants:
//! 1. A value of ours that a later op of ours set anew never comes back: not when the later one loses, nor while a person has
//!    yet to choose about it, nor when theirs came to the same as the later one.
//! 2. What a replace or a delete of ours covered ends with it.
//! 3. What was made after a unit had left is judged apart from that unit, by its own time.
//! 4. Every value that loses as our last word is in a conflict; values that we had overwritten ourselves are in the log.

use serde_json::Value;

use super::coalesce::{Folded, Step};
use super::resolve::{LocalEdit, RemoteEdit, Resolution, Settlement, resolve};
use crate::entry::{AnnulledReason, ConflictedField, PlannedOp, SettledBy, Winner};
use crate::fields::Fields;
use crate::names::RecordKey;
use crate::op::OpKind;
use crate::schema::EntityRules;
use crate::time::Hlc;

/// Ops of one record that are judged as one change.
#[derive(Debug, Default)]
pub(super) struct Edit {
    /// The ops, oldest first.
    pub(super) ops: Vec<EditOp>,
    /// Whether they come from a unit that was stale.
    pub(super) stale: bool,
    /// What the record was when both sides were last the same.
    pub(super) base: Option<Fields>,
    /// Whether it makes the record anew on top of a deletion that is a dead letter, or goes again: the app reads no field of theirs.
    pub(super) hides_theirs: bool,
}

/// One of these ops.
#[derive(Debug)]
pub(super) struct EditOp {
    pub(super) op: PlannedOp,
    pub(super) kind: OpKind,
    pub(super) edited_at: Hlc,
    /// The fields that it still has.
    pub(super) fields: Fields,
}

/// What becomes of an op.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// It ends, since it need not be sent.
    Annulled(Vec<PlannedOp>, AnnulledReason),
    /// It is in a conflict.
    Conflicted(Box<Clash>),
    /// It ends, since nothing that it says is left.
    Superseded(PlannedOp),
}

/// An op's part in a conflict.
#[derive(Debug, PartialEq)]
pub(super) struct Clash {
    pub(super) op: PlannedOp,
    /// What the edit as a whole does.
    pub(super) kind: OpKind,
    pub(super) edited_at: Hlc,
    pub(super) settlement: Settlement,
}

impl EditOp {
    fn step(&self) -> Step {
        Step { kind: self.kind, fields: self.fields.clone(), edited_at: self.edited_at }
    }
}

/// Returns whether ops come to what the server has as a whole: both sides deleted the record, or set it to the same.
pub(super) fn agrees_as_a_whole(ops: &[EditOp], theirs: Option<&Fields>) -> bool {
    let Some(theirs) = theirs else { return ops.last().is_some_and(|last| last.kind == OpKind::Delete) };
    // Without either they come to a patch, or to a create, which is put on top of theirs.
    if !ops.iter().any(|op| matches!(op.kind, OpKind::Delete | OpKind::Replace)) {
        return false;
    }
    let folded = ops.iter().fold(Folded::Nothing, |folded, op| folded.then(op.step(), true));
    let Folded::Change(change) = folded else { return false };
    change.kind == OpKind::Replace && change.fields.into_image() == *theirs
}

/// Judges an edit. Verdicts come newest op first.
pub(super) fn judge(
    key: &RecordKey,
    rules: &EntityRules,
    mut edit: Edit,
    remote: &RemoteEdit<'_>,
) -> Vec<Verdict> {
    let attempted = edit.stale || edit.base.is_some();
    let mut folded = Folded::Nothing;
    let mut annulled = 0;
    for (number, op) in (1..).zip(&edit.ops) {
        folded = folded.then(op.step(), attempted);
        if folded == Folded::Nothing {
            annulled = number;
        }
    }
    let mut verdicts = Vec::new();
    if annulled > 0 && remote.image.is_some() {
        // They made a record that nobody else heard of and took it away again. They must not touch the one that is there now.
        let ops = edit.ops.drain(..annulled).map(|op| op.op).collect();
        verdicts.push(Verdict::Annulled(ops, AnnulledReason::CreatedAndDeleted));
    }
    let (Folded::Change(change), Some(last)) = (folded, edit.ops.last()) else { return verdicts };
    if change.kind == OpKind::Update && change.fields.is_empty() {
        return verdicts;
    }
    let edit_of = |name: &str| {
        let stamp = change.stamps.get(name).copied().unwrap_or(change.edited_at);
        (stamp, holder(&edit, name).unwrap_or(last).op.id)
    };
    // A replace sets the whole record, also on top of a create of ours that theirs came before.
    let replaces = change.kind == OpKind::Create && edit.ops.iter().any(|op| op.kind == OpKind::Replace);
    let kind = if replaces { OpKind::Replace } else { change.kind };
    let local =
        LocalEdit { kind, fields: &change.fields, edited: (change.edited_at, last.op.id), edit_of: &edit_of };
    let passed =
        if kind == OpKind::Replace { Vec::new() } else { passed(&edit, &change.fields, remote.image) };
    // Where the app does not read theirs it would by an end of ours; by an ack it may.
    let stands = kind == OpKind::Create && edit.hides_theirs;
    match resolve(key, rules, edit.base.as_ref(), local, remote) {
        Resolution::Agreed if !stands && (edit.stale || kind == OpKind::Delete) => {
            let ops = edit.ops.iter().map(|op| op.op).collect();
            verdicts.push(Verdict::Annulled(ops, AnnulledReason::NoEffect));
        }
        Resolution::Apart | Resolution::Agreed => {
            deal_fields(&edit, kind, Settlement::nothing(rules), rules, &passed, &mut verdicts);
        }
        Resolution::Conflict(settlement) if settlement.fields.is_empty() => {
            deal_whole(&edit, kind, settlement, &mut verdicts);
        }
        Resolution::Conflict(settlement) => {
            deal_fields(&edit, kind, settlement, rules, &passed, &mut verdicts);
        }
    }
    verdicts
}

/// Returns the op that set a field last.
fn holder<'a>(edit: &'a Edit, name: &str) -> Option<&'a EditOp> {
    edit.ops.iter().rev().find(|op| op.fields.get(name).is_some())
}

/// A field that theirs changed to the very value that our last word is. An earlier op of ours that says something else may
/// leave by itself, and must not take theirs away unseen.
#[derive(Debug)]
struct Passed {
    name: String,
    base: Value,
    value: Value,
}

fn passed(edit: &Edit, last_words: &Fields, theirs: Option<&Fields>) -> Vec<Passed> {
    let Some(theirs) = theirs else { return Vec::new() };
    let of_base =
        |name: &str| edit.base.as_ref().and_then(|base| base.get(name)).cloned().unwrap_or(Value::Null);
    let value_of = |name: &str| theirs.get(name).cloned().unwrap_or(Value::Null);
    let found = last_words.iter().map(|(name, ours)| (name, ours, value_of(name)));
    let found = found.filter(|(name, ours, value)| *ours == value && of_base(name) != *value);
    found.map(|(name, _, value)| Passed { name: name.to_owned(), base: of_base(name), value }).collect()
}

/// Deals out a conflict with one winner for the whole change.
fn deal_whole(edit: &Edit, kind: OpKind, settlement: Settlement, verdicts: &mut Vec<Verdict>) {
    let Some(last) = edit.ops.last() else { return };
    let lost = settlement.winner == Winner::Remote;
    verdicts.push(Verdict::Conflicted(Box::new(Clash {
        op: last.op,
        kind,
        edited_at: last.edited_at,
        settlement,
    })));
    if lost {
        verdicts.extend(edit.ops.iter().rev().map(|op| Verdict::Superseded(op.op)));
    }
}

/// Deals out a conflict that was settled field by field.
fn deal_fields(
    edit: &Edit,
    kind: OpKind,
    mut settlement: Settlement,
    rules: &EntityRules,
    passed: &[Passed],
    verdicts: &mut Vec<Verdict>,
) {
    for Passed { name, base, value } in passed {
        settlement.base.set(name, base.clone());
        settlement.remote.set(name, value.clone());
    }
    for op in edit.ops.iter().rev() {
        let is_last_word = |name: &str| holder(edit, name).is_some_and(|holder| holder.op == op.op);
        let own = settlement.fields.iter().filter(|field| op.fields.get(&field.name).is_some());
        let mut told = Vec::new();
        let mut overwritten = Vec::new();
        for field in own {
            match field.winner {
                _ if is_last_word(&field.name) => told.push(field.clone()),
                Winner::Remote | Winner::Undecided => {
                    overwritten.push(ConflictedField { winner: Winner::Remote, ..field.clone() });
                }
                Winner::Local | Winner::Merged => {}
            }
        }
        let loses = |passed: &&Passed| op.fields.get(&passed.name).is_some_and(|ours| *ours != passed.value);
        told.extend(passed.iter().filter(loses).map(|passed| ConflictedField {
            name: passed.name.clone(),
            rule: rules.policy_of(&passed.name),
            winner: Winner::Remote,
        }));
        let is_lost = |name: &str| {
            let lost = told.iter().chain(&overwritten).find(|field| field.name == name);
            lost.is_some_and(|field| field.winner == Winner::Remote)
        };
        let ends =
            settlement.winner == Winner::Remote || (!op.fields.is_empty() && op.fields.names().all(is_lost));
        let mut fields = told;
        if !ends || !fields.is_empty() {
            fields.append(&mut overwritten);
        }
        if !fields.is_empty() {
            verdicts.push(Verdict::Conflicted(Box::new(Clash {
                op: op.op,
                kind,
                edited_at: op.edited_at,
                settlement: part(&settlement, op, fields),
            })));
        }
        if ends {
            verdicts.push(Verdict::Superseded(op.op));
        }
    }
}

/// Returns what a settlement says of one op's fields.
fn part(settlement: &Settlement, op: &EditOp, fields: Vec<ConflictedField>) -> Settlement {
    let named = |name: &str| fields.iter().any(|field| field.name == name);
    let is_named = |settled: &&SettledBy| settled.field.as_deref().is_none_or(named);
    let settled_by = settlement.functions.iter().filter(is_named).cloned();
    let merged = settlement.merged.as_ref().map(|merged| merged.filtered(named));
    Settlement {
        winner: super::resolve::overall(&fields, op.fields.len()),
        rule: settlement.rule,
        base: settlement.base.filtered(named),
        local: op.fields.filtered(named),
        remote: settlement.remote.filtered(named),
        merged: merged.filter(|merged| !merged.is_empty()),
        functions: settled_by.collect(),
        fields,
    }
}

#[cfg(test)]
mod tests;
