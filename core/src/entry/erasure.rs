//! Erasing the values of records: which items of an entry have them, and the entry that says so.
//!
//! ```text
//!   item of an op, a change, a plan, a decision,
//!   item of a baseline                                  its record
//!   item of an outcome, a refusal                   the records of its unit
//!   item of a reason                                the records of the decisions beside it
//!   item of a row that was set aside                no record here: goes with all others
//!   item of a session                               nobody's: the declarations stay
//! ```
//!
//! Invariants:
//! 1. Every item of every variant is in the list: a new variant does not compile without it.
//! 2. An item with values of several records goes if one of them is erased.
//!
//! What it does not take: the meta part. Keys, names of fields, actors and times stay in the log.

use std::collections::{BTreeSet, HashSet};

use super::decision::{Conflicted, Decision, PersonAction};
use super::meta::{Control, ErasedRecords, FieldsSource, ItemIndex, Meta, Planned, Upstream};
use super::{About, Entry};
use crate::ids::UnitId;
use crate::names::RecordKey;
use crate::numbers::Seq;

impl ErasedRecords {
    /// Makes the list of some records.
    pub fn only(keys: impl IntoIterator<Item = RecordKey>) -> Self {
        Self::Only(keys.into_iter().collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// Makes the list of all records except some.
    pub fn except(keys: impl IntoIterator<Item = RecordKey>) -> Self {
        Self::Except(keys.into_iter().collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// Returns whether a record's values are erased.
    pub fn has(&self, key: &RecordKey) -> bool {
        match self {
            Self::Only(keys) => keys.binary_search(key).is_ok(),
            Self::Except(keys) => keys.binary_search(key).is_err(),
        }
    }
}

/// Finds the items that an erasure takes, entry by entry from the beginning of the log.
pub struct Erasure<'r> {
    records: &'r ErasedRecords,
    /// The units with a record whose values are erased.
    units: HashSet<UnitId>,
}

impl<'r> Erasure<'r> {
    /// Begins before the first entry.
    pub fn of(records: &'r ErasedRecords) -> Self {
        Self { records, units: HashSet::new() }
    }

    /// Returns the items of the next entry that are to be erased.
    pub fn items_of(&mut self, entry: &Entry) -> BTreeSet<ItemIndex> {
        let mut items = BTreeSet::new();
        match &entry.meta {
            Meta::Intent(intent) => {
                let erased = intent.ops.iter().filter(|op| self.records.has(&op.key));
                items.extend(erased.filter_map(|op| op.fields));
            }
            Meta::Upstream(upstream) => self.of_answer(upstream, &mut items),
            Meta::Control(Control::Planned(planned)) => {
                self.of_plan(planned, entry.header.seq, &mut items);
            }
            Meta::Control(Control::Decided(decisions)) => self.of_all(decisions, &mut items),
            Meta::Control(Control::PersonActed(action, decisions)) => {
                self.of_all(decisions, &mut items);
                if let PersonAction::Discard { reason } = action
                    && self.is_any_about_erased(decisions)
                {
                    items.insert(*reason);
                }
            }
            // The declarations of a session are of no record.
            Meta::Control(
                Control::Opened(_)
                | Control::EpochStarted { .. }
                | Control::Session(_)
                | Control::Silence(_)
                | Control::Authors(_)
                | Control::Note(_)
                | Control::Erased(_)
                | Control::Trimmed(_),
            ) => {}
            Meta::Control(Control::Baseline(baseline)) => {
                let changes = baseline.records.iter().map(|record| &record.change);
                let erased = changes.filter(|change| self.records.has(&change.key));
                items.extend(erased.filter_map(|change| change.fields));
            }
        }
        items
    }

    fn of_answer(&self, upstream: &Upstream, items: &mut BTreeSet<ItemIndex>) {
        let outcomes = upstream.outcomes.iter().filter(|one| self.units.contains(&one.unit));
        items.extend(outcomes.filter_map(|outcome| outcome.message));
        let changes = upstream.changes.iter().filter(|change| self.records.has(&change.key));
        items.extend(changes.filter_map(|change| change.fields));
    }

    fn of_plan(&mut self, planned: &Planned, seq: Seq, items: &mut BTreeSet<ItemIndex>) {
        for unit in &planned.units {
            for change in unit.changes.iter().filter(|change| self.records.has(&change.key)) {
                self.units.insert(unit.id);
                // Fields of another entry are items of that entry.
                if let FieldsSource::Item(of, item) = change.fields
                    && of == seq
                {
                    items.insert(item);
                }
            }
        }
    }

    fn of_all(&self, decisions: &[Decision], items: &mut BTreeSet<ItemIndex>) {
        let erased = decisions.iter().filter(|decision| self.is_about_erased(decision));
        erased.for_each(|decision| items.extend(decision.items()));
    }

    /// A reason without a decision is of no record, so it goes with all others.
    fn is_any_about_erased(&self, decisions: &[Decision]) -> bool {
        decisions.iter().any(|decision| self.is_about_erased(decision))
            || (decisions.is_empty() && matches!(self.records, ErasedRecords::Except(_)))
    }

    fn is_about_erased(&self, decision: &Decision) -> bool {
        match decision.about() {
            About::Records(keys) => keys.into_iter().any(|key| self.records.has(key)),
            About::Units(units) => units.iter().any(|(unit, _)| self.units.contains(unit)),
            // The row that was set aside has no record in the book.
            About::Book => matches!(self.records, ErasedRecords::Except(_)),
        }
    }
}

impl Decision {
    /// Returns the items that the decision names.
    pub(crate) fn items(&self) -> Vec<ItemIndex> {
        match self {
            Self::Conflicted(Conflicted { base, local, remote, merged, .. }) => {
                [*base, *local, *remote].into_iter().chain(*merged).collect()
            }
            Self::Raised { values, .. } => values.iter().copied().collect(),
            Self::BroughtBack { read, .. } => vec![*read],
            Self::DeadLettered { message, .. } => message.iter().copied().collect(),
            Self::Resolved { merged, .. } => merged.iter().copied().collect(),
            Self::Upcast { fields, .. } => vec![*fields],
            Self::SetAside { name, row, .. } => std::iter::once(*name).chain(*row).collect(),
            Self::Acked { .. }
            | Self::Tried { .. }
            | Self::Requeued { .. }
            | Self::Superseded { .. }
            | Self::Dropped { .. }
            | Self::Retried { .. }
            | Self::Discarded { .. }
            | Self::Cancelled(_)
            | Self::Parked { .. }
            | Self::Unparked { .. }
            | Self::ServerAccepted { .. }
            | Self::ServerRead
            | Self::Adopted { .. }
            | Self::Suspected { .. }
            | Self::Restamped { .. }
            | Self::BelongsTo { .. }
            | Self::ReadForeign { .. }
            | Self::HandedOver { .. }
            | Self::LetGo { .. } => Vec::new(),
        }
    }
}
