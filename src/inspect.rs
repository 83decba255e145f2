//! The inspection of ops before they are sent, and the count of records that wait for a person
//! because of it. `rules::inspect` decides; this module reads its input from the book.
//!
//! Invariants:
//! 1. If the schema declares no reference, no validator and no schema version, only records near
//!    the limit of size are inspected.
//! 2. Waiting records are counted. A record is inspected again when it changes, when a record that
//!    it refers to changes, and with every plan.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::PoisonError;

use fieldbook_core::rules::View;
use fieldbook_core::rules::group::Group;
use fieldbook_core::rules::inspect::{Inspect, NoInspection, is_gone, refers, refusal};
use fieldbook_core::rules::plan::{Hold, Plan};
use fieldbook_core::rules::size::excess;
use fieldbook_core::tail::Tail;
use fieldbook_core::{EntityType, RecordKey, Schema};
use fieldbook_projections::{Snapshot, SnapshotView};

use crate::book::Shared;

/// Inspects ops with a view of the book. A record that cannot be read passes: freezing its unit
/// fails, and returns the error.
pub(crate) struct Inspector<'a, V> {
    view: RefCell<V>,
    schema: &'a Schema,
    suspects: &'a BTreeSet<RecordKey>,
}

impl<'a, V: View> Inspector<'a, V> {
    /// Makes an inspector. `suspects` are the records that were too large before.
    pub(crate) const fn new(
        view: V,
        schema: &'a Schema,
        suspects: &'a BTreeSet<RecordKey>,
    ) -> Self {
        Self { view: RefCell::new(view), schema, suspects }
    }
}

/// Inspects sizes only, with a snapshot that is taken at the first need.
struct Sizes<'a> {
    shared: &'a Shared,
    tail: &'a Tail,
    suspects: &'a BTreeSet<RecordKey>,
}

impl Inspect for Sizes<'_> {
    fn is_gone(&self, _: &RecordKey) -> bool {
        false
    }

    fn refusal(&self, _: &Group) -> Option<String> {
        None
    }

    fn refers(&self, _: &RecordKey, _: &RecordKey) -> bool {
        false
    }

    fn was_too_large(&self, key: &RecordKey) -> bool {
        self.suspects.contains(key)
    }

    fn excess(&self, group: &Group) -> Option<usize> {
        // A plan reports no disk errors. The next exchange does.
        let snapshot = Snapshot::new(self.shared.store.begin_read().ok()?);
        let log = snapshot.log().ok()?;
        excess(&mut SnapshotView::new(&snapshot, log, self.tail), group).ok().flatten()
    }
}

impl<V: View> Inspect for Inspector<'_, V>
where
    V::Error: std::error::Error + 'static,
{
    fn is_gone(&self, key: &RecordKey) -> bool {
        is_gone(&mut *self.view.borrow_mut(), key).unwrap_or(false)
    }

    fn refusal(&self, group: &Group) -> Option<String> {
        refusal(&mut *self.view.borrow_mut(), self.schema, group).ok().flatten()
    }

    fn was_too_large(&self, key: &RecordKey) -> bool {
        self.suspects.contains(key)
    }

    fn excess(&self, group: &Group) -> Option<usize> {
        excess(&mut *self.view.borrow_mut(), group).ok().flatten()
    }

    fn refers(&self, from: &RecordKey, to: &RecordKey) -> bool {
        refers(&mut *self.view.borrow_mut(), self.schema, from, to).unwrap_or(false)
    }
}

/// The records with an op that waits for a person.
#[derive(Debug, Default)]
pub(crate) struct Attention {
    held: BTreeSet<RecordKey>,
    outgrown: BTreeSet<RecordKey>,
    /// Records that were too large when they were to be sent. Some may be smaller now.
    too_large: BTreeSet<RecordKey>,
}

/// The numbers of waiting records.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Waiting {
    /// Records with an op that a person must correct.
    pub(crate) held: u64,
    /// Records with an op of another schema version.
    pub(crate) outgrown: u64,
}

impl Attention {
    fn note<'h>(&mut self, key: &RecordKey, holds: impl Iterator<Item = &'h Hold> + Clone) {
        set(&mut self.held, key, holds.clone().any(Hold::waits_for_correction));
        set(
            &mut self.outgrown,
            key,
            holds.clone().any(|hold| matches!(hold, Hold::NoUpcaster { .. })),
        );
    }
}

fn set(keys: &mut BTreeSet<RecordKey>, key: &RecordKey, is_in: bool) {
    if !is_in {
        keys.remove(key);
    } else if !keys.contains(key) {
        keys.insert(key.clone());
    }
}

impl Shared {
    /// Returns the records that were too large.
    pub(crate) fn too_large(&self) -> BTreeSet<RecordKey> {
        self.attention.lock().unwrap_or_else(PoisonError::into_inner).too_large.clone()
    }

    /// Remembers records whose ops could not be sent because the record would be too large.
    pub(crate) fn note_too_large(&self, keys: Vec<RecordKey>) {
        self.attention.lock().unwrap_or_else(PoisonError::into_inner).too_large.extend(keys);
    }

    /// Forgets what was found of the records. [`Self::review_all`] looks at them anew.
    pub(crate) fn forget_attention(&self) {
        *self.attention.lock().unwrap_or_else(PoisonError::into_inner) = Attention::default();
    }

    /// Lends the inspector of ops.
    pub(crate) fn inspecting<T>(&self, tail: &Tail, use_it: impl FnOnce(&dyn Inspect) -> T) -> T {
        let suspects = self.too_large();
        if !self.schema.inspects() {
            return use_it(&Sizes { shared: self, tail, suspects: &suspects });
        }
        let snapshot = self.store.begin_read().map(Snapshot::new);
        match snapshot.as_ref().map(|snapshot| (snapshot, snapshot.log())) {
            Ok((snapshot, Ok(log))) => use_it(&Inspector::new(
                SnapshotView::new(snapshot, log, tail),
                &self.schema,
                &suspects,
            )),
            // A plan reports no disk errors. The next exchange does.
            _ => use_it(&NoInspection),
        }
    }

    pub(crate) fn waiting(&self) -> Waiting {
        let attention = self.attention.lock().unwrap_or_else(PoisonError::into_inner);
        Waiting { held: attention.held.len() as u64, outgrown: attention.outgrown.len() as u64 }
    }

    /// Inspects all waiting records.
    pub(crate) fn review_all(&self) {
        let keys: BTreeSet<_> = {
            let tail = self.tail();
            let concerns = |entity: &EntityType, form: u32| {
                let rules = self.schema.rules(entity);
                rules.is_some_and(|rules| rules.is_inspected() || rules.schema_version != form)
            };
            let mut rows = BTreeSet::new();
            if tail.sum().forms().any(|(entity, form)| concerns(entity, form)) {
                let concerned = tail.ops().filter(|(_, row)| concerns(&row.key.entity, row.form()));
                rows.extend(concerned.map(|(_, row)| row.key.clone()));
            }
            // Units that did not get through before the book was closed.
            let isolated = tail.units().filter(|(_, unit)| unit.isolated().is_some());
            rows.extend(isolated.flat_map(|(_, unit)| unit.records.iter().cloned()));
            rows
        };
        keys.iter().for_each(|key| self.review_record(key));
    }

    /// Inspects records that a commit changed, and the records that refer to them.
    pub(crate) fn review(&self, changed: &[RecordKey]) {
        let keys: BTreeSet<RecordKey> = {
            let attention = self.attention.lock().unwrap_or_else(PoisonError::into_inner);
            let is_noted =
                |key: &RecordKey| attention.held.contains(key) || attention.outgrown.contains(key);
            let inspects = self.schema.inspects();
            if !inspects && attention.outgrown.is_empty() && attention.held.is_empty() {
                return;
            }
            let tail = self.tail();
            let is_inspected = |key: &RecordKey| {
                inspects && self.schema.rules(&key.entity).is_some_and(|rules| rules.is_inspected())
            };
            let mut keys = BTreeSet::new();
            for key in changed {
                if is_noted(key) || is_inspected(key) {
                    keys.insert(key.clone());
                }
                keys.extend(tail.referrers(key).map(|(_, row)| row.key.clone()));
            }
            keys
        };
        keys.iter().for_each(|key| self.review_record(key));
    }

    fn review_record(&self, key: &RecordKey) {
        let plan = {
            let tail = self.tail();
            let plan = self.plan_record(&tail, key);
            let places: Vec<_> = tail.ops_of(key).collect();
            places
                .into_iter()
                .filter_map(|place| plan.holds.get(&place).cloned())
                .collect::<Vec<_>>()
        };
        let mut attention = self.attention.lock().unwrap_or_else(PoisonError::into_inner);
        attention.note(key, plan.iter());
    }

    /// Remembers the holds of a whole plan: time may have passed since the last commit.
    pub(crate) fn review_plan(&self, plan: &Plan) {
        let waits =
            |hold: &Hold| hold.waits_for_correction() || matches!(hold, Hold::NoUpcaster { .. });
        let mut held = plan.holds.iter().filter(|(_, hold)| waits(hold)).peekable();
        if held.peek().is_none() {
            return;
        }
        let tail = self.tail();
        let held: Vec<_> =
            held.filter_map(|(place, hold)| Some((tail.op(*place)?.key.clone(), hold))).collect();
        let mut attention = self.attention.lock().unwrap_or_else(PoisonError::into_inner);
        held.into_iter().for_each(|(key, hold)| attention.note(&key, std::iter::once(hold)));
        drop(attention);
        self.refresh_status();
    }
}
