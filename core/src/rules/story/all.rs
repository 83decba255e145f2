//! The stories of the device and of every record, told in one pass.
//!
//! An entry about many records is told to each of them by its own part only, so that its cost does
//! not grow with the square of their number.
//!
//! Invariants:
//! 1. Each story is the one that a [`Teller`] of its record tells.

use std::collections::{BTreeMap, BTreeSet};

use super::{Paragraph, Teller};
use crate::entry::{About, Authored, Control, Decision, Entry, Meta};
use crate::ids::UnitId;
use crate::names::RecordKey;
use crate::record::Effect;

/// Tells the entries of a log, oldest first, to the device and to every record.
#[derive(Debug)]
pub struct Stories {
    device: Teller,
    records: BTreeMap<RecordKey, Teller>,
}

/// The part of an entry that is about one record: the places in its lists.
#[derive(Debug, Default)]
struct Part {
    units: Vec<usize>,
    cancelled: Vec<usize>,
    outcomes: Vec<usize>,
    changes: Vec<usize>,
    decisions: Vec<u32>,
}

impl Default for Stories {
    fn default() -> Self {
        Self { device: Teller::new(None), records: BTreeMap::new() }
    }
}

impl Stories {
    /// Tells the next entry. `effects` are the records that it touched. `authors` are those that
    /// the entry after an answer names.
    pub fn tell(&mut self, entry: &Entry, effects: &[Effect], authors: &[Authored]) {
        self.device.tell(entry, effects, authors);
        if effects.is_empty() {
            return;
        }
        let parts = self.parts(entry, effects);
        let mut own = entry.clone();
        let nothing = Part::default();
        for effect in effects {
            let key = &effect.key;
            let part = parts.get(key).unwrap_or(&nothing);
            own.meta = part.of(&entry.meta);
            let teller =
                self.records.entry(key.clone()).or_insert_with(|| Teller::new(Some(key.clone())));
            teller.numbers.clone_from(&part.decisions);
            teller.tell(&own, std::slice::from_ref(effect), &part.authors_of(authors));
        }
    }

    /// Returns the story of the device and those of the records, oldest paragraph first.
    pub fn end(self) -> (Vec<Paragraph>, BTreeMap<RecordKey, Vec<Paragraph>>) {
        let records = self.records.into_iter().map(|(key, teller)| (key, teller.end()));
        (self.device.end(), records.collect())
    }

    /// Returns which parts of an entry are about which of its records.
    fn parts(&self, entry: &Entry, effects: &[Effect]) -> BTreeMap<RecordKey, Part> {
        let mut parts: BTreeMap<RecordKey, Part> =
            effects.iter().map(|effect| (effect.key.clone(), Part::default())).collect();
        let mut each = |keys: Option<BTreeSet<&RecordKey>>, note: &dyn Fn(&mut Part)| match keys {
            Some(keys) => keys.into_iter().for_each(|key| {
                parts.get_mut(key).into_iter().for_each(note);
            }),
            None => parts.values_mut().for_each(note),
        };
        match &entry.meta {
            Meta::Intent(_) => {}
            Meta::Upstream(upstream) => {
                for (at, outcome) in upstream.outcomes.iter().enumerate() {
                    each(self.of_unit(&outcome.unit), &|part| part.outcomes.push(at));
                }
                for (at, change) in upstream.changes.iter().enumerate() {
                    each(Some(BTreeSet::from([&change.key])), &|part| part.changes.push(at));
                }
            }
            Meta::Control(Control::Planned(planned)) => {
                for (at, unit) in planned.units.iter().enumerate() {
                    let keys = unit.changes.iter().map(|change| &change.key).collect();
                    each(Some(keys), &|part| part.units.push(at));
                }
                for (at, cancelled) in planned.cancelled.iter().enumerate() {
                    each(Some(BTreeSet::from([&cancelled.key])), &|part| part.cancelled.push(at));
                }
            }
            Meta::Control(Control::Decided(decisions) | Control::PersonActed(_, decisions)) => {
                for (number, decision) in (0..).zip(decisions) {
                    each(self.of_decision(decision), &|part| part.decisions.push(number));
                }
            }
            Meta::Control(_) => {}
        }
        parts
    }

    /// Returns the records of a unit; none if it is not known.
    fn of_unit(&self, unit: &UnitId) -> Option<BTreeSet<&RecordKey>> {
        let unit = self.device.units.get(unit)?;
        Some(unit.changes.iter().map(|change| &change.key).collect())
    }

    /// Returns the records that a decision is about; none if it can be about every record.
    fn of_decision<'s>(&'s self, decision: &'s Decision) -> Option<BTreeSet<&'s RecordKey>> {
        match decision.about() {
            About::Records(keys) => Some(keys.into_iter().collect()),
            About::Units(units) => {
                let each: Option<Vec<_>> =
                    units.iter().map(|(unit, _)| self.of_unit(unit)).collect();
                Some(each?.into_iter().flatten().collect())
            }
            About::Book => None,
        }
    }
}

impl Part {
    /// Returns the part of an entry's content.
    fn of(&self, meta: &Meta) -> Meta {
        match meta {
            Meta::Upstream(all) => Meta::Upstream(crate::entry::Upstream {
                outcomes: at(&all.outcomes, &self.outcomes),
                changes: at(&all.changes, &self.changes),
                cursors: all.cursors.clone(),
                ..*all
            }),
            Meta::Control(Control::Planned(all)) => {
                Meta::Control(Control::Planned(crate::entry::Planned {
                    units: at(&all.units, &self.units),
                    cancelled: at(&all.cancelled, &self.cancelled),
                }))
            }
            Meta::Control(Control::Decided(all)) => {
                Meta::Control(Control::Decided(self.decisions_of(all)))
            }
            Meta::Control(Control::PersonActed(action, all)) => {
                Meta::Control(Control::PersonActed(action.clone(), self.decisions_of(all)))
            }
            Meta::Intent(_) | Meta::Control(_) => meta.clone(),
        }
    }

    /// Returns the authors of the changes, by their places in this part.
    fn authors_of(&self, all: &[Authored]) -> Vec<Authored> {
        let each = all.iter().map(|one| {
            let own = (0..).zip(&self.changes).filter(|(_, place)| {
                u32::try_from(**place).is_ok_and(|place| one.changes.binary_search(&place).is_ok())
            });
            Authored { actor: one.actor.clone(), changes: own.map(|(number, _)| number).collect() }
        });
        each.filter(|one| !one.changes.is_empty()).collect()
    }

    fn decisions_of(&self, all: &[Decision]) -> Vec<Decision> {
        let each =
            self.decisions.iter().filter_map(|number| all.get(usize::try_from(*number).ok()?));
        each.cloned().collect()
    }
}

fn at<T: Clone>(all: &[T], places: &[usize]) -> Vec<T> {
    places.iter().filter_map(|place| all.get(*place).cloned()).collect()
}
