//! A conflict as it is recorded.
//!
//! Invariants:
//! 1. The server wins as a whole only if the ops lose every field that they name. One undecided
//!    field leaves the whole undecided.
//! 2. A conflict is recorded under the last of its ops.

use serde_json::Value;

use super::Subject;
use super::policy::Resolution;
use crate::entry::{Conflicted, ConflictedField, Decision, Extent, ResolvedBy, Winner};
use crate::fields::Fields;
use crate::op::OpKind;
use crate::record::Does;
use crate::schema::Policy;

/// A conflict that is being put together.
pub(super) struct Found {
    pub(super) fields: Vec<ConflictedField>,
    pub(super) winner: Winner,
    pub(super) rule: Policy,
    pub(super) base: Fields,
    pub(super) local: Fields,
    pub(super) remote: Fields,
    pub(super) merged: Fields,
    pub(super) functions: Vec<ResolvedBy>,
}

impl Subject<'_> {
    pub(super) fn nothing_found(&self) -> Found {
        Found {
            fields: Vec::new(),
            winner: Winner::Local,
            rule: if self.rules.function.is_some() { Policy::Function } else { self.rules.policy },
            base: Fields::new(),
            local: Fields::new(),
            remote: Fields::new(),
            merged: Fields::new(),
            functions: Vec::new(),
        }
    }

    /// The server wins as a whole only if the ops lose every field that they name. One undecided
    /// field leaves the whole undecided.
    pub(super) fn overall(&self, ops: &[usize], fields: &[ConflictedField]) -> Winner {
        let has = |winner| fields.iter().any(|field| field.winner == winner);
        let is_lost = |name: &str| {
            fields.iter().any(|field| field.name == name && field.winner == Winner::Remote)
        };
        let mut named = ops.iter().flat_map(|number| self.op(*number).tail.named.names());
        if has(Winner::Undecided) {
            Winner::Undecided
        } else if fields.iter().all(|field| field.winner == Winner::Remote) && named.all(is_lost) {
            Winner::Remote
        } else if has(Winner::Merged) {
            Winner::Merged
        } else {
            Winner::Local
        }
    }

    /// Records a conflict under the last of its ops.
    pub(super) fn record(&mut self, ops: &[usize], found: Found) {
        let Some(last) = ops.last().copied() else { return };
        let [base, local, remote] =
            [&found.base, &found.local, &found.remote].map(|values| self.item(values));
        let merged = (!found.merged.is_empty()).then(|| self.item(&found.merged));
        let last = &self.op(last).tail;
        let conflicted = Conflicted {
            key: self.key.clone(),
            op: last.op,
            kind: self.kind_of(ops),
            edited_at: last.writes.greatest().edited_at,
            version: self.version,
            extent: if self.after.is_deleted() { Extent::Deleted } else { Extent::Whole },
            remote_edited_at: self.after.stamp.edited_at,
            fields: found.fields,
            winner: found.winner,
            rule: found.rule,
            base,
            local,
            remote,
            merged,
            functions: found.functions,
        };
        self.decisions.push(Decision::Conflicted(conflicted));
    }

    /// Returns the kind of ops as one change.
    fn kind_of(&self, ops: &[usize]) -> OpKind {
        let kinds = ops.iter().map(|number| &self.op(*number).tail);
        let kinds = kinds.filter(|op| op.writes.does != Does::Nothing).map(|op| op.kind);
        kinds.reduce(then).unwrap_or(OpKind::Update)
    }
}

/// Returns the kind of two ops in a row as one change.
fn then(first: OpKind, next: OpKind) -> OpKind {
    use OpKind::{Create, Delete, Replace, Update};
    match (first, next) {
        (_, Delete) => Delete,
        (_, Replace) | (Delete, Create | Update) => Replace,
        (Create | Update | Replace, Create | Update) => first,
    }
}

impl Found {
    pub(super) fn add(
        &mut self,
        name: &str,
        [base, local, remote]: [&Value; 3],
        resolution: &Resolution,
    ) {
        let (rule, winner) = (resolution.rule, resolution.winner);
        self.fields.push(ConflictedField { name: name.to_owned(), rule, winner });
        self.base.set(name, base.clone());
        self.local.set(name, local.clone());
        self.remote.set(name, remote.clone());
        if let Some(merged) = &resolution.merged {
            self.merged.set(name, merged.clone());
        }
        self.functions.extend(resolution.by.clone());
    }

    pub(super) fn lost(&self) -> impl Iterator<Item = String> {
        let lost = self.fields.iter().filter(|field| field.winner == Winner::Remote);
        lost.map(|field| field.name.clone())
    }
}
