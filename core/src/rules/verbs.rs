//! What a person asks for after the fact: undo an op, flip a settled conflict, choose in an open one, correct a dead letter.
//!
//! | undo of → | nothing newer of its record, never planned | anything else |
//! |---|---|---|
//! | any op | annulled: it never leaves | a compensating op that cites it |
//!
//! | compensation of → | create | update | delete | replace |
//! |---|---|---|---|---|
//! | is | delete | update back, for fields that nobody changed since | create with the image before | replace with the image before |
//!
//! | correction of → | a dead create | any other dead letter |
//! |---|---|---|
//! | takes in | the ops of its record that wait, too | nothing else |
//!
//! Invariants:
//! 1. Nothing is erased: what is undone, flipped or corrected stays in the log, and the op that does so cites it.
//! 2. A compensation never takes back what someone did later.
//! 3. A correction ends no op that is under way, and brings back no value that a later op of the record set anew.

use serde_json::Value;

use super::Image;
use super::coalesce::{Folded, FoldedChange, Step};
use crate::entry::{Decision, PlannedOp, Winner};
use crate::fields::Fields;
use crate::ids::{OpId, UnitId};
use crate::names::RecordKey;
use crate::op::{Mutation, OpKind};
use crate::rows::{ConflictRow, UnitRow};

/// What undoing an op comes to now that it may have left.
#[derive(Debug, Clone, PartialEq)]
pub enum Compensation {
    /// An op that takes back what the undone one did.
    Op(Mutation),
    /// There is nothing left to take back: someone changed it since.
    Nothing,
}

/// Computes the op that takes another one back.
///
/// `before` is what the app read before the op, `now` what it reads now.
pub fn compensate(
    key: &RecordKey,
    kind: OpKind,
    fields: &Fields,
    before: Option<&Fields>,
    now: Option<&Fields>,
) -> Compensation {
    let null = Value::Null;
    let mutation = match (kind, before, now) {
        (OpKind::Create, _, Some(_)) => Mutation::delete(key.clone()),
        (OpKind::Delete, Some(before), None) => Mutation::create(key.clone(), before.clone()),
        (OpKind::Replace, Some(before), Some(_)) => Mutation::replace(key.clone(), before.clone()),
        (OpKind::Update, Some(before), Some(now)) => {
            let untouched = |name: &str| now.get(name).unwrap_or(&null) == fields.get(name).unwrap_or(&null);
            let back = fields.filtered(untouched);
            let back: Fields = back
                .names()
                .map(|name| (name.to_owned(), before.get(name).cloned().unwrap_or(Value::Null)))
                .collect();
            if back.is_empty() {
                return Compensation::Nothing;
            }
            Mutation::update(key.clone(), back)
        }
        _ => return Compensation::Nothing,
    };
    Compensation::Op(mutation)
}

/// A conflict that cannot be flipped or chosen in, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotFlippable {
    /// A person has yet to choose.
    #[error("this conflict is still open: choose in it")]
    Open,
    /// It is settled already.
    #[error("this conflict is settled already: flip it")]
    Settled,
    /// A rule merged both sides.
    #[error("a rule merged both sides: write the value that you want")]
    Merged,
}

/// Computes the op that makes the other side of a settled conflict win.
///
/// `now` is what the app reads now, `last` the last image known of the record, for bringing it back.
///
/// # Errors
/// [`NotFlippable`].
pub fn flip(
    conflict: &ConflictRow,
    fields: &FlipFields,
    now: Option<&Fields>,
) -> Result<Option<Mutation>, NotFlippable> {
    let key = conflict.key.clone();
    let ours_lost = match conflict.winner {
        Winner::Undecided => return Err(NotFlippable::Open),
        Winner::Merged => return Err(NotFlippable::Merged),
        Winner::Remote => true,
        Winner::Local => false,
    };
    let by_field = !conflict.fields.is_empty();
    let remote_deleted = conflict.extent == crate::entry::Extent::Deleted;
    let mutation = if by_field {
        let mut patch = Fields::new();
        for (name, _, winner) in &conflict.fields {
            let other = if *winner == Winner::Remote { &fields.local } else { &fields.remote };
            patch.set(name, other.get(name).cloned().unwrap_or(Value::Null));
        }
        match now {
            Some(_) => Mutation::update(key, patch),
            None => return Ok(None),
        }
    } else {
        match (conflict.kind, ours_lost, now) {
            (OpKind::Delete, true, Some(_)) => Mutation::delete(key),
            (OpKind::Delete, false, None) => Mutation::create(key, fields.remote.clone()),
            (OpKind::Replace, true, Some(_)) if !remote_deleted => {
                Mutation::replace(key, fields.local.clone())
            }
            (OpKind::Replace, false, Some(_)) if !remote_deleted => {
                Mutation::replace(key, fields.remote.clone())
            }
            (kind, true, None) if remote_deleted => Mutation::create(key, fields.last_with_ours(kind)),
            (_, false, Some(_)) if remote_deleted => Mutation::delete(key),
            _ => return Ok(None),
        }
    };
    Ok(Some(mutation))
}

/// The values of a conflict, read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FlipFields {
    /// As our op had them.
    pub local: Fields,
    /// As the server had them.
    pub remote: Fields,
    /// The whole image before the conflict.
    pub last: Fields,
}

impl FlipFields {
    /// What our op makes of a record that was deleted: an update stands on the last image, anything else on its own.
    fn last_with_ours(&self, kind: OpKind) -> Fields {
        let mut image = Image { fields: None, before_deletion: Some(self.last.clone()) };
        image.apply(kind, &self.local);
        image.fields.unwrap_or_default()
    }
}

/// What a person chooses in an open conflict.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// The local values.
    Mine,
    /// The server's values.
    Theirs,
    /// Other values for the fields in question.
    Merged(Fields),
}

/// What a choice means for the op that waits.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chosen {
    /// The fields that it loses.
    pub lost: Vec<String>,
    /// The values that it gets instead.
    pub merged: Option<Fields>,
    /// Whether nothing of it is left.
    pub superseded: bool,
}

/// Works a choice out. `effective` is what the op would still send.
///
/// # Errors
/// [`NotFlippable::Settled`] if there is nothing to choose any more.
pub fn choose(conflict: &ConflictRow, effective: &Fields, choice: &Choice) -> Result<Chosen, NotFlippable> {
    if !conflict.open {
        return Err(NotFlippable::Settled);
    }
    let open = |winner: &Winner| *winner == Winner::Undecided;
    let names: Vec<_> =
        conflict.fields.iter().filter(|(.., winner)| open(winner)).map(|(name, ..)| name.clone()).collect();
    Ok(match choice {
        Choice::Mine => Chosen::default(),
        Choice::Merged(fields) => Chosen { merged: Some(fields.clone()), ..Chosen::default() },
        Choice::Theirs => {
            let whole = conflict.fields.is_empty();
            let superseded = whole || effective.names().all(|name| names.iter().any(|lost| lost == name));
            Chosen { lost: names, merged: None, superseded }
        }
    })
}

/// Works out what a person's word on some ops of a unit that does not get through comes to: the unit is given up, as one of
/// which nobody knows whether it arrived, and what else it carried goes again without them. Of a transaction the rest stays
/// where it is, for a person to decide on.
pub fn take_out(id: UnitId, unit: &UnitRow, ops: &[OpId], is_transaction: bool) -> Vec<Decision> {
    let code = unit.suspicion.as_ref().map_or_else(String::new, |known| known.code.clone());
    let given_up =
        Decision::DeadLettered { unit: id, planned: unit.planned, tries: unit.tries, code, message: None };
    let all = unit.changes.iter().flat_map(|change| change.ops.iter().map(|op| (&change.key, *op)));
    let others = all.filter(|(_, op)| !is_transaction && !ops.contains(&op.id));
    let again = others.map(|(key, op)| Decision::Retried { key: key.clone(), op });
    std::iter::once(given_up).chain(again).collect()
}

/// An op of a record's tail, as far as correcting a dead letter needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct TailOp {
    /// Which.
    pub op: PlannedOp,
    /// What is left of it.
    pub step: Step,
    /// Whether it was sent and has no answer yet.
    pub under_way: bool,
}

/// What a corrected dead letter comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Correction {
    /// The new op.
    pub change: FoldedChange,
    /// The ops that it takes in, oldest first: the dead one, and what waited for a dead creation.
    pub taken: Vec<PlannedOp>,
}

/// Works a correction out: what the dead letter says, with `better` on top. `tail` is its record's, oldest first.
///
/// Returns nothing if the op is not in the tail.
pub fn correct(tail: &[TailOp], dead: OpId, better: Fields) -> Option<Correction> {
    let letter = tail.iter().find(|found| found.op.id == dead)?;
    let takes_all = letter.step.kind == OpKind::Create;
    let (mut folded, mut taken) = (Folded::Nothing, Vec::new());
    for found in tail {
        if found.op.id == dead || (takes_all && !found.under_way) {
            folded = folded.then(found.step.clone(), true);
            taken.push(found.op);
        } else if let Folded::Change(change) = &mut folded {
            // It stays, and stands before the new op: what it set anew is its own to say.
            match found.step.kind {
                OpKind::Update => {
                    change.fields = change.fields.filtered(|name| found.step.fields.get(name).is_none());
                }
                OpKind::Create | OpKind::Replace => change.fields = Fields::new(),
                // Who corrects what was deleted since wants it back, with all that it said.
                OpKind::Delete => {}
            }
        }
    }
    let Folded::Change(mut change) = folded else { return None };
    change.fields.compose(better);
    Some(Correction { change, taken })
}

#[cfg(test)]
mod tests;
