//! What is known of the ops of a tail together, without reading them: how many there are, and a
//! bound of their stamps.
//!
//! Invariants:
//! 1. A sum has no number that is zero, so equal tails have equal sums.
//! 2. A sum of no ops is the default.

use std::collections::BTreeMap;

use crate::codec::{Decode, Encode};
use crate::names::{Actor, EntityType};
use crate::rows::TailRow;
use crate::time::Hlc;

/// The number of ops by the schema version of their fields.
type ByForm = BTreeMap<u32, u64>;

/// The number of the ops of a tail, and a bound of their stamps.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct TailSum {
    /// The number of ops of each actor, by entity type and schema version of the fields.
    ops: BTreeMap<Actor, BTreeMap<EntityType, ByForm>>,
    /// A stamp that is not before the stamp of any op.
    latest_stamp: Hlc,
}

impl TailSum {
    /// Adds an op.
    pub fn add(&mut self, row: &TailRow) {
        self.latest_stamp = self.latest_stamp.max(row.edited_at);
        // Nearly always there is one actor. A look-up first avoids copying the names.
        let known = self.ops.get_mut(&row.actor).and_then(|types| types.get_mut(&row.key.entity));
        let forms = match known {
            Some(forms) => forms,
            None => {
                let types = self.ops.entry(row.actor.clone()).or_default();
                types.entry(row.key.entity.clone()).or_default()
            }
        };
        let ops = forms.entry(row.form()).or_default();
        *ops = ops.saturating_add(1);
    }

    /// Removes an op that was added with this row.
    pub fn remove(&mut self, row: &TailRow) {
        let Some(types) = self.ops.get_mut(&row.actor) else { return };
        let Some(forms) = types.get_mut(&row.key.entity) else { return };
        let Some(ops) = forms.get_mut(&row.form()) else { return };
        *ops = ops.saturating_sub(1);
        if *ops > 0 {
            return;
        }
        forms.remove(&row.form());
        if forms.is_empty() {
            types.remove(&row.key.entity);
        }
        if types.is_empty() {
            self.ops.remove(&row.actor);
        }
        if self.ops.is_empty() {
            *self = Self::default();
        }
    }

    /// Returns a stamp that is not before the stamp of any op.
    pub const fn latest_stamp(&self) -> Hlc {
        self.latest_stamp
    }

    /// Returns the number of all ops.
    pub fn ops(&self) -> u64 {
        self.pending(|_| true)
    }

    /// Returns the number of ops whose entity types pass `leaves`.
    pub fn pending(&self, leaves: impl Fn(&EntityType) -> bool) -> u64 {
        self.ops.values().map(|types| count(types, &leaves)).sum()
    }

    /// Returns the actors other than `actor`, each with the number of ops whose entity types pass
    /// `leaves`, if there are any.
    pub fn others(&self, actor: &Actor, leaves: impl Fn(&EntityType) -> bool) -> Vec<(Actor, u64)> {
        let others = self.ops.iter().filter(|(other, _)| *other != actor);
        let counted = others.map(|(other, types)| (other.clone(), count(types, &leaves)));
        counted.filter(|(_, ops)| *ops > 0).collect()
    }

    /// Returns the entity types of the ops, each with a schema version that fields of its ops have.
    pub fn forms(&self) -> impl Iterator<Item = (&EntityType, u32)> {
        let types = self.ops.values().flatten();
        types.flat_map(|(entity, forms)| forms.keys().map(move |form| (entity, *form)))
    }
}

fn count(types: &BTreeMap<EntityType, ByForm>, leaves: &impl Fn(&EntityType) -> bool) -> u64 {
    let leaving = types.iter().filter(|(entity, _)| leaves(entity));
    leaving.flat_map(|(_, forms)| forms.values()).sum()
}
