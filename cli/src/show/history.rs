//! The history of one record, entry by entry.

use std::collections::HashSet;

use fieldbook::RecordKey;
use fieldbook::audit::entry::{
    Conflicted, Control, Decision, Entry, FieldsSource, Meta, Planned, Upstream,
};
use fieldbook::record::UnitId;

use super::{entry as show, name, words};

/// One event in the history of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// The name of the event.
    pub(crate) what: String,
    /// The details.
    pub(crate) detail: String,
}

/// Follows a record through its entries, oldest first. A decision about a unit concerns the record
/// if an earlier entry planned the unit for it.
pub(crate) struct Follower<'k> {
    key: &'k RecordKey,
    units: HashSet<UnitId>,
}

impl<'k> Follower<'k> {
    /// Makes a follower of a record.
    pub(crate) fn new(key: &'k RecordKey) -> Self {
        Self { key, units: HashSet::new() }
    }

    /// Returns what an entry did to the record.
    pub(crate) fn events(&mut self, entry: &Entry) -> Vec<Event> {
        match &entry.meta {
            Meta::Intent(intent) => show::placed(entry, intent)
                .filter(|(_, op)| op.key == *self.key)
                .map(|(place, op)| {
                    event(format!("{} ({place})", op.kind), show::op_detail(entry, op))
                })
                .collect(),
            Meta::Upstream(upstream) => self.upstream(entry, upstream),
            Meta::Control(Control::Planned(planned)) => self.planned(entry, planned),
            Meta::Control(Control::Decided(decisions) | Control::PersonActed(_, decisions)) => {
                let number_and_decision = (0u32..).zip(decisions);
                number_and_decision
                    .filter_map(|(number, one)| self.decision(entry, number, one))
                    .collect()
            }
            Meta::Control(
                Control::Opened(_)
                | Control::EpochStarted { .. }
                | Control::Session(_)
                | Control::Silence(_)
                | Control::Authors(_)
                | Control::Note(_)
                | Control::Trimmed(_),
            ) => Vec::new(),
            Meta::Control(Control::Baseline(baseline)) => {
                let of_this =
                    baseline.records.iter().filter(|record| record.change.key == *self.key);
                of_this
                    .map(|record| {
                        event(format!("baseline {}", record.change.version), String::new())
                    })
                    .collect()
            }
            Meta::Control(Control::Erased(erased)) => {
                let of_this = erased.records.has(self.key);
                of_this.then(|| event("erased".to_owned(), String::new())).into_iter().collect()
            }
        }
    }

    fn upstream(&self, entry: &Entry, upstream: &Upstream) -> Vec<Event> {
        let outcomes = upstream
            .outcomes
            .iter()
            .filter(|outcome| self.units.contains(&outcome.unit))
            .map(|outcome| {
                let version = outcome.versions.iter().find(|(key, _)| key == self.key);
                let version = version.map(|(_, version)| version.to_string()).unwrap_or_default();
                let message =
                    outcome.message.map(|index| show::item(entry, index)).unwrap_or_default();
                let parts = [version, outcome.code.clone(), message];
                let said: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                event(format!("server: {}", show::class(outcome.class)), said.join(" "))
            });
        let changes =
            upstream.changes.iter().filter(|change| change.key == *self.key).map(|change| {
                let fields =
                    change.fields.map(|index| show::item(entry, index)).unwrap_or_default();
                let shown = show::change(change);
                let version = shown.strip_prefix(&name(self.key)).unwrap_or(&shown).trim_start();
                event(format!("server has {version}"), fields)
            });
        // A page often repeats a change that came with an outcome.
        let mut events: Vec<_> = outcomes.chain(changes).collect();
        events.dedup();
        events
    }

    fn planned(&mut self, entry: &Entry, planned: &Planned) -> Vec<Event> {
        let mut events = Vec::new();
        for unit in &planned.units {
            for change in unit.changes.iter().filter(|change| change.key == *self.key) {
                self.units.insert(unit.id);
                let fields = match change.fields {
                    FieldsSource::Item(seq, index) if seq == entry.header.seq => {
                        show::item(entry, index)
                    }
                    _ => String::new(),
                };
                let ops = show::places(&change.ops);
                events.push(event("planned", format!("{} from {ops} {fields}", change.kind)));
            }
        }
        let cancelled = planned.cancelled.iter().filter(|cancelled| cancelled.key == *self.key);
        events.extend(cancelled.map(|cancelled| {
            let ops = show::places(&cancelled.ops);
            event("cancelled", format!("{ops} {}", words::cancelled(cancelled.reason)))
        }));
        events
    }

    fn decision(&self, entry: &Entry, number: u32, decision: &Decision) -> Option<Event> {
        let is_it = |key: &RecordKey| key == self.key;
        let sent = |unit: &UnitId| self.units.contains(unit);
        let shown = || show::decision(entry, decision);
        Some(match decision {
            Decision::Acked { unit, versions, .. } if sent(unit) => {
                let version = versions.iter().find(|(key, _)| is_it(key));
                event("acked", version.map(|(_, version)| version.to_string()).unwrap_or_default())
            }
            Decision::Tried { unit, .. } if sent(unit) => event("tried", shown()),
            Decision::Suspected { units, .. } if units.iter().any(|(unit, _)| sent(unit)) => {
                event("suspected", shown())
            }
            Decision::Requeued { unit, .. } if sent(unit) => {
                event("stale", "its ops are planned again")
            }
            Decision::DeadLettered { unit, .. } if sent(unit) => {
                event("dead letter", shown().trim_start_matches("dead letter ").to_owned())
            }
            Decision::Conflicted(conflict) if is_it(&conflict.key) => {
                let id = format!("conflict {}.{number}", entry.header.seq);
                event(id, conflict_detail(entry, conflict))
            }
            Decision::Superseded { key, op } if is_it(key) => {
                event("superseded", op.place.to_string())
            }
            Decision::Dropped { key, op, fields } if is_it(key) => {
                event("dropped", format!("{} {}", op.place, show::loses(fields)))
            }
            Decision::Raised { key, op, fields, edited_at, values } if is_it(key) => {
                let raised = show::raised(entry, fields, *edited_at, *values);
                event("raised", format!("{} {raised}", op.place))
            }
            Decision::BroughtBack { key, op, read } if is_it(key) => {
                event("brought back", format!("{} {}", op.place, show::brings_back(entry, *read)))
            }
            Decision::Retried { key, op } if is_it(key) => event("retried", op.place.to_string()),
            Decision::Discarded { key, op } if is_it(key) => {
                event("discarded", op.place.to_string())
            }
            Decision::Resolved { key, winner, .. } if is_it(key) => {
                event("resolved", words::winner(*winner))
            }
            Decision::Adopted { key, seq, .. } if is_it(key) => {
                event("adopted", format!("undeclared since {seq}"))
            }
            Decision::Cancelled(cancelled) if is_it(&cancelled.key) => event("cancelled", shown()),
            _ => return None,
        })
    }
}

fn conflict_detail(entry: &Entry, conflict: &Conflicted) -> String {
    let side = |index| show::item(entry, index);
    format!(
        "{}; before {}, local {}, remote {}",
        show::resolution(conflict),
        side(conflict.base),
        side(conflict.local),
        side(conflict.remote)
    )
}

fn event(what: impl Into<String>, detail: impl Into<String>) -> Event {
    Event { what: what.into(), detail: detail.into() }
}
