//! What was sent, and what came of it.

use super::{MOST_SENTENCES, Words, coded, fine, weighs};
use crate::entry::{ItemIndex, OutcomeClass, Planned, PlannedUnit};
use crate::ids::UnitId;
use crate::names::RecordKey;
use crate::numbers::Version;
use crate::rules::status::words::{counted, listed};
use crate::rules::story::values;
use crate::rules::story::{Sentence, Weight};
use crate::time::WallTime;

impl Words<'_> {
    pub(super) fn planned(&self, planned: &Planned) -> Vec<Sentence> {
        let units: Vec<_> = planned.units.iter().filter(|unit| self.has_of(unit)).collect();
        let mut sentences: Vec<_> = planned
            .cancelled
            .iter()
            .filter(|cancelled| self.concerns(&cancelled.key))
            .map(|cancelled| self.cancelled(cancelled))
            .collect();
        if self.teller.about.is_some() {
            sentences.extend(units.iter().map(|unit| fine(self.sent(unit))));
        } else if !units.is_empty() {
            let changes = units.iter().map(|unit| unit.changes.len()).sum();
            sentences.push(fine(format!("Sent {}.", counted(changes, "record"))));
        }
        sentences
    }

    pub(super) fn sent(&self, unit: &PlannedUnit) -> String {
        let own: Vec<_> = unit.changes.iter().filter(|change| self.concerns(&change.key)).collect();
        let ops: Vec<_> = own.iter().flat_map(|change| &change.ops).collect();
        let mut text = match ops.as_slice() {
            [] => "Sent".to_owned(),
            [op] => format!("Sent change {}", op.place),
            several => {
                let places: Vec<_> = several.iter().map(|op| op.place.to_string()).collect();
                format!("Sent changes {} as one", listed(&places))
            }
        };
        let others = unit.changes.len() - own.len();
        if others > 0 {
            let noun = if others == 1 { "another record" } else { "other records" };
            let number = if others == 1 { String::new() } else { format!("{others} ") };
            text.push_str(&format!(", together with {number}{noun}"));
        }
        if !unit.earlier_units.is_empty() {
            text.push_str(", in place of what was sent before");
        }
        text.push('.');
        text
    }

    pub(super) fn acked(
        &self,
        unit: &UnitId,
        versions: &[(RecordKey, Version)],
    ) -> Option<Sentence> {
        let own: Vec<_> = versions.iter().filter(|(key, _)| self.concerns(key)).cloned().collect();
        if own.is_empty() {
            self.of_unit(unit)?;
        }
        let classes = self.teller.open.as_ref().map(|open| &open.classes);
        let class = classes.and_then(|classes| classes.get(unit));
        let took = if class == Some(&OutcomeClass::Duplicate) { "had taken" } else { "took" };
        let it = if self.teller.about.is_some() || own.is_empty() { " it" } else { "" };
        Some(fine(format!("The server {took}{it}{}.", self.versions(&own))))
    }

    pub(super) fn versions(&self, versions: &[(RecordKey, Version)]) -> String {
        if self.teller.about.is_some() {
            let own = versions.iter().find(|(key, _)| self.concerns(key));
            return own.map_or_else(String::new, |(_, version)| format!(" as {version}"));
        }
        let mut each: Vec<_> = versions
            .iter()
            .take(MOST_SENTENCES)
            .map(|(key, version)| format!("{key} as {version}"))
            .collect();
        if versions.len() > MOST_SENTENCES {
            each.push(format!("{} more", values::grouped(versions.len() - MOST_SENTENCES)));
        }
        if each.is_empty() { String::new() } else { format!(" {}", listed(&each)) }
    }

    pub(super) fn refused(
        &self,
        unit: &UnitId,
        code: &str,
        message: Option<ItemIndex>,
        answered: bool,
        tries: u32,
    ) -> Option<Sentence> {
        let of = self.of_unit(unit)?;
        let message = self.message(message);
        let text = if answered {
            format!("{of}The server refused it for good{message}{}.", coded(code))
        } else {
            let tries = if tries == 1 { "1 try".to_owned() } else { format!("{tries} tries") };
            format!(
                "{of}It was abandoned after {tries}, and nobody knows whether it arrived{message}{}.",
                coded(code)
            )
        };
        let shown = " It stays on the screen, marked as failed.";
        let together = self.teller.units.get(unit).map_or(0, |unit| {
            unit.changes
                .iter()
                .filter(|change| self.concerns(&change.key))
                .map(|change| change.ops.len())
                .sum::<usize>()
        });
        let shown = if together > 1 {
            format!(
                " All {together} changes of it stay on the screen, marked as failed, because they were sent as one."
            )
        } else {
            shown.to_owned()
        };
        Some(weighs(Weight::NeedsAttention, format!("{text}{shown}")))
    }

    pub(super) fn suspected<'u>(
        &self,
        mut units: impl Iterator<Item = &'u UnitId>,
        times: u32,
        code: &str,
        retry_at: Option<WallTime>,
    ) -> Option<Sentence> {
        let of = units.find_map(|unit| self.of_unit(unit))?;
        let next = retry_at.map_or_else(String::new, |at| format!(", not before {at}"));
        let times = match times {
            0 => "together with others".to_owned(),
            times => {
                format!("alone, {}", counted(usize::try_from(times).unwrap_or(usize::MAX), "time"))
            }
        };
        Some(weighs(
            Weight::Waits,
            format!(
                "{of}It did not get through {times}, so it is sent after everything else, and alone{next}{}.",
                coded(code)
            ),
        ))
    }
}
