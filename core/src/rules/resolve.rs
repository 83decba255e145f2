//! Who wins what both sides changed since they were last the same.
//!
//! | ours ↓ / theirs → | changed fields | deleted |
//! |---|---|---|
//! | update, create | per overlapping field, by the field's policy | the later edit |
//! | replace | the later edit, as a whole | the later edit |
//! | delete | the later edit | agreed |
//!
//! Invariants:
//! 1. A field conflicts only if theirs differs from the base *and* from ours; all other fields merge.
//! 2. "Later" is a total order: by stamp, then by op id, so that every device that judges the same two edits agrees.
//! 3. The result depends on the two edits and the base only, never on the order in which they arrived.
//! 4. Nothing is dropped: every value that loses is in the result, to be recorded.

use std::cmp::Ordering;

use serde_json::Value;

use crate::entry::{ConflictedField, SettledBy, Winner};
use crate::fields::Fields;
use crate::hooks::{ConflictFunction, Meeting, Ruling};
use crate::ids::OpId;
use crate::names::RecordKey;
use crate::op::OpKind;
use crate::schema::{EntityRules, Granularity, Policy};
use crate::time::Hlc;

/// Our side of a possible conflict.
#[derive(Clone, Copy)]
pub struct LocalEdit<'a> {
    /// What it does.
    pub kind: OpKind,
    /// The fields it still has.
    pub fields: &'a Fields,
    /// When it was made, and its op; the last one of several.
    pub edited: (Hlc, OpId),
    /// When a field was last edited, and by which op.
    pub edit_of: &'a dyn Fn(&str) -> (Hlc, OpId),
}

/// Their side.
pub struct RemoteEdit<'a> {
    /// The op that last edited the record.
    pub op: OpId,
    /// The record's image now, or `None` if it is deleted.
    pub image: Option<&'a Fields>,
    /// When the record was last edited.
    pub edited_at: Hlc,
    /// When a field was last edited.
    pub edited_at_of: &'a dyn Fn(&str) -> Hlc,
}

/// What becomes of our edit.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolution {
    /// The two sides do not meet.
    Apart,
    /// The server already has what the edit wants.
    Agreed,
    /// They meet.
    Conflict(Settlement),
}

/// A conflict with its outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// Each field that both sides changed; empty where a delete is one side.
    pub fields: Vec<ConflictedField>,
    /// Who won as a whole: the server only if nothing of ours is left.
    pub winner: Winner,
    /// The rule for the whole.
    pub rule: Policy,
    /// The fields in question as they were on both sides before.
    pub base: Fields,
    /// As ours has them.
    pub local: Fields,
    /// As theirs has them.
    pub remote: Fields,
    /// What a rule made of both.
    pub merged: Option<Fields>,
    /// The functions of the app that settled it.
    pub functions: Vec<SettledBy>,
}

impl Settlement {
    /// Makes a settlement of no field.
    pub(super) fn nothing(rules: &EntityRules) -> Self {
        Self {
            fields: Vec::new(),
            winner: Winner::Local,
            rule: if rules.function.is_some() { Policy::Function } else { rules.policy },
            base: Fields::new(),
            local: Fields::new(),
            remote: Fields::new(),
            merged: None,
            functions: Vec::new(),
        }
    }

    /// Returns the fields that our op loses.
    pub fn lost(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(|field| field.winner == Winner::Remote).map(|field| field.name.as_str())
    }
}

/// Settles one edit of ours against the server's present record.
pub fn resolve(
    key: &RecordKey,
    rules: &EntityRules,
    base: Option<&Fields>,
    local: LocalEdit<'_>,
    remote: &RemoteEdit<'_>,
) -> Resolution {
    let nothing = Fields::new();
    let base_fields = base.unwrap_or(&nothing);
    let rules = Rules { key, declared: rules };
    match (local.kind, remote.image) {
        (OpKind::Delete, None) => Resolution::Agreed,
        (OpKind::Delete, Some(image)) => whole(rules, base_fields, &nothing, image, local, remote),
        (_, None) => whole(rules, base_fields, local.fields, &nothing, local, remote),
        (OpKind::Replace, Some(image)) => {
            if *image == local.fields.clone().into_image() {
                Resolution::Agreed
            } else if image == base_fields {
                Resolution::Apart
            } else {
                whole(rules, base_fields, local.fields, image, local, remote)
            }
        }
        (OpKind::Create | OpKind::Update, Some(image)) => by_field(rules, base_fields, image, local, remote),
    }
}

/// One side deletes, or replaces the whole record: there is only one winner.
fn whole(
    rules: Rules<'_>,
    base: &Fields,
    ours: &Fields,
    theirs: &Fields,
    local: LocalEdit<'_>,
    remote: &RemoteEdit<'_>,
) -> Resolution {
    let function = rules.declared.function.as_ref();
    let rule = if function.is_some() { Policy::Function } else { rules.declared.policy };
    let winner = match rule {
        Policy::ServerWins => Winner::Remote,
        Policy::DeviceWins => Winner::Local,
        Policy::Manual => Winner::Undecided,
        Policy::Function => rules.whole_by(function, [base, ours, theirs], local, remote),
        _ => later(local.edited, (remote.edited_at, remote.op)),
    };
    Resolution::Conflict(Settlement {
        fields: Vec::new(),
        winner,
        rule,
        base: base.clone(),
        local: ours.clone(),
        remote: theirs.clone(),
        merged: None,
        functions: function.map(|function| settled_by(None, function)).into_iter().collect(),
    })
}

fn by_field(
    rules: Rules<'_>,
    base: &Fields,
    image: &Fields,
    local: LocalEdit<'_>,
    remote: &RemoteEdit<'_>,
) -> Resolution {
    let null = Value::Null;
    let differs = |name: &str, ours: &Value| {
        let theirs = image.get(name).unwrap_or(&null);
        theirs != base.get(name).unwrap_or(&null) && theirs != ours
    };
    let overlapping: Vec<_> = local.fields.iter().filter(|(name, ours)| differs(name, ours)).collect();
    if overlapping.is_empty() {
        let agreed = local.fields.iter().all(|(name, ours)| image.get(name).unwrap_or(&null) == ours);
        return if agreed { Resolution::Agreed } else { Resolution::Apart };
    }
    let rules_of = rules.declared;
    let as_one = rules_of.granularity == Granularity::WholeRecord;
    let together = as_one.then(|| later(local.edited, (remote.edited_at, remote.op)));
    let mut settlement = Settlement::nothing(rules_of);
    for (name, ours) in local.fields.iter().filter(|(name, ours)| as_one || differs(name, ours)) {
        let theirs = image.get(name).unwrap_or(&null);
        let rule = rules_of.policy_of(name);
        let remote_edit = ((remote.edited_at_of)(name), remote.op);
        let settled = match together {
            Some(winner) if rule == Policy::LastWriteWins => Settled::of(winner),
            _ if rule == Policy::Function => {
                let function = rules_of.function_of(name);
                settlement.functions.extend(function.map(|function| settled_by(Some(name), function)));
                let values = [base.get(name).unwrap_or(&null), ours, theirs];
                rules.field_by(function, name, values, (local.edit_of)(name), remote_edit)
            }
            _ => settle(rule, ours, theirs, (local.edit_of)(name), remote_edit),
        };
        settlement.fields.push(ConflictedField { name: name.to_owned(), rule, winner: settled.winner });
        settlement.base.set(name, base.get(name).cloned().unwrap_or(Value::Null));
        settlement.local.set(name, ours.clone());
        settlement.remote.set(name, theirs.clone());
        if let Some(value) = settled.merged {
            settlement.merged.get_or_insert_with(Fields::new).set(name, value);
        }
    }
    settlement.winner = overall(&settlement.fields, local.fields.len());
    Resolution::Conflict(settlement)
}

/// The server wins as a whole only if each field of the op is lost; one open field leaves the whole open.
pub(super) fn overall(fields: &[ConflictedField], all: usize) -> Winner {
    let has = |winner| fields.iter().any(|field| field.winner == winner);
    if has(Winner::Undecided) {
        Winner::Undecided
    } else if fields.len() == all && fields.iter().all(|field| field.winner == Winner::Remote) {
        Winner::Remote
    } else if has(Winner::Merged) {
        Winner::Merged
    } else {
        Winner::Local
    }
}

/// What is declared, and the record that it is asked for.
#[derive(Clone, Copy)]
struct Rules<'a> {
    key: &'a RecordKey,
    declared: &'a EntityRules,
}

impl Rules<'_> {
    /// Has the app settle a field. A merged value that breaks a limit is for a person to look at.
    fn field_by(
        self,
        function: Option<&ConflictFunction>,
        field: &str,
        [base, mine, theirs]: [&Value; 3],
        local: (Hlc, OpId),
        remote: (Hlc, OpId),
    ) -> Settled {
        let later = later(local, remote);
        let meeting = Meeting {
            key: self.key,
            field: Some(field),
            base,
            mine,
            theirs,
            mine_edited_at: local.0,
            theirs_edited_at: remote.0,
            mine_is_later: later == Winner::Local,
        };
        match function.map(|function| function.settle(&meeting)) {
            None => Settled::of(later),
            Some(Ruling::Mine) => Settled::of(Winner::Local),
            Some(Ruling::Theirs) => Settled::of(Winner::Remote),
            Some(Ruling::Merged(value)) => {
                let merged: Fields = std::iter::once((field.to_owned(), value.clone())).collect();
                match merged.checked() {
                    Ok(_) => Settled { winner: Winner::Merged, merged: Some(value) },
                    Err(_) => Settled::of(Winner::Undecided),
                }
            }
            Some(Ruling::Ask) => Settled::of(Winner::Undecided),
        }
    }

    /// Has the app settle a whole record.
    fn whole_by(
        self,
        function: Option<&ConflictFunction>,
        [base, ours, theirs]: [&Fields; 3],
        local: LocalEdit<'_>,
        remote: &RemoteEdit<'_>,
    ) -> Winner {
        let value = |fields: &Fields| Value::Object(fields.clone().into_map());
        let mine = if local.kind == OpKind::Delete { Value::Null } else { value(ours) };
        let there = if remote.image.is_none() { Value::Null } else { value(theirs) };
        let later = later(local.edited, (remote.edited_at, remote.op));
        let meeting = Meeting {
            key: self.key,
            field: None,
            base: &if base.is_empty() { Value::Null } else { value(base) },
            mine: &mine,
            theirs: &there,
            mine_edited_at: local.edited.0,
            theirs_edited_at: remote.edited_at,
            mine_is_later: later == Winner::Local,
        };
        match function.map(|function| function.settle(&meeting)) {
            Some(Ruling::Mine) => Winner::Local,
            Some(Ruling::Theirs) => Winner::Remote,
            Some(Ruling::Ask) => Winner::Undecided,
            Some(Ruling::Merged(_)) | None => later,
        }
    }
}

fn settled_by(field: Option<&str>, function: &ConflictFunction) -> SettledBy {
    SettledBy { field: field.map(str::to_owned), function: function.name().to_owned() }
}

struct Settled {
    winner: Winner,
    merged: Option<Value>,
}

impl Settled {
    const fn of(winner: Winner) -> Self {
        Self { winner, merged: None }
    }
}

fn settle(rule: Policy, ours: &Value, theirs: &Value, local: (Hlc, OpId), remote: (Hlc, OpId)) -> Settled {
    // Numbers that are equal, however they are written, or too close to tell apart fall to the later edit: whatever decided
    // by who asks would have two devices settle the same two edits differently.
    let by_number = |wins: Ordering| match compare_numbers(ours, theirs) {
        Some(Ordering::Equal) | None => Settled::of(later(local, remote)),
        Some(order) => Settled::of(if order == wins { Winner::Local } else { Winner::Remote }),
    };
    match rule {
        Policy::LastWriteWins | Policy::Function => Settled::of(later(local, remote)),
        Policy::ServerWins => Settled::of(Winner::Remote),
        Policy::DeviceWins => Settled::of(Winner::Local),
        Policy::Manual => Settled::of(Winner::Undecided),
        Policy::Max => by_number(Ordering::Greater),
        Policy::Min => by_number(Ordering::Less),
        Policy::AppendUnique => match (ours, theirs) {
            (Value::Array(ours), Value::Array(theirs)) => {
                let missing = ours.iter().filter(|item| !theirs.contains(item));
                let merged = theirs.iter().chain(missing).cloned().collect();
                Settled { winner: Winner::Merged, merged: Some(Value::Array(merged)) }
            }
            _ => Settled::of(later(local, remote)),
        },
    }
}

/// Compares two numbers, whole ones exactly; `None` if one is none.
fn compare_numbers(one: &Value, other: &Value) -> Option<Ordering> {
    if let (Some(one), Some(other)) = (one.as_i64(), other.as_i64()) {
        return Some(one.cmp(&other));
    }
    if let (Some(one), Some(other)) = (one.as_u64(), other.as_u64()) {
        return Some(one.cmp(&other));
    }
    one.as_f64()?.partial_cmp(&other.as_f64()?)
}

/// The total order of edits.
fn later(local: (Hlc, OpId), remote: (Hlc, OpId)) -> Winner {
    if local > remote { Winner::Local } else { Winner::Remote }
}

#[cfg(test)]
mod tests;
