//! What the server said.

use super::{ERASED, MOST_SENTENCES, Words, coded, fine, weighs};
use crate::entry::{Authored, ChangeMeta, Extent, OutcomeClass, OutcomeMeta, Upstream};
use crate::names::Actor;
use crate::rules::story::values::{self, changes, image, in_words};
use crate::rules::story::{Sentence, Weight};

impl Words<'_> {
    pub(super) fn upstream(&self, upstream: &Upstream) -> Vec<Sentence> {
        let mut sentences = Vec::new();
        sentences.extend(upstream.outcomes.iter().filter_map(|outcome| self.outcome(outcome)));
        let changes = (0..).zip(&upstream.changes).filter(|(_, one)| self.concerns(&one.key));
        let changes: Vec<_> = changes.collect();
        let of_others = changes.iter().filter(|(_, one)| !self.teller.ops.contains_key(&one.op));
        let count = of_others.count();
        let by = |number| Authored::of(self.authors, number);
        let each = changes.iter().filter_map(|(number, one)| self.change(one, by(*number)));
        let mut shown: Vec<_> = each.collect();
        if shown.len() > MOST_SENTENCES {
            shown.truncate(MOST_SENTENCES);
            let all = values::grouped(count);
            shown.push(fine(format!("In all, the server sent {all} records changed elsewhere.")));
        }
        sentences.extend(shown);
        sentences
    }

    /// Tells an outcome that stops its unit. The decision that follows tells the end of another
    /// one.
    pub(super) fn outcome(&self, outcome: &OutcomeMeta) -> Option<Sentence> {
        let unit = self.teller.units.get(&outcome.unit);
        if unit.is_none_or(|unit| !self.has_of(unit)) && self.teller.about.is_some() {
            return None;
        }
        let code = coded(&outcome.code);
        let (weight, text) = match outcome.class {
            OutcomeClass::Applied
            | OutcomeClass::Duplicate
            | OutcomeClass::Stale
            | OutcomeClass::Transient
            | OutcomeClass::Rejected => return None,
            OutcomeClass::Unsupported => (
                Weight::NeedsAttention,
                "The server does not know this type of record, or one of its fields",
            ),
            OutcomeClass::Unauthorized => {
                (Weight::NeedsAttention, "The server did not accept the credentials")
            }
            OutcomeClass::Ahead => {
                (Weight::Waits, "The server found the time of the edit too far ahead")
            }
        };
        Some(weighs(weight, format!("{text}{code}.")))
    }

    pub(super) fn change(&self, change: &ChangeMeta, by: Option<&Actor>) -> Option<Sentence> {
        if change.undeclared {
            return Some(weighs(
                Weight::Waits,
                format!(
                    "The server sent {} ({}); it is kept until this app declares its type.",
                    self.name(&change.key),
                    change.version
                ),
            ));
        }
        let key = self.name(&change.key);
        let effect = self.effect(&change.key)?;
        if self.teller.ops.contains_key(&change.op) && effect.confirmed.before.is_some() {
            // This device's own change, back from the server. A record whose values were erased
            // was not there, so that it came again is told.
            return None;
        }
        let found = changes(effect.confirmed.before.as_ref(), effect.confirmed.after.as_ref());
        let (made, who) = (change.edited_at.wall(), self.maker(by));
        let text = match (change.extent, &effect.confirmed.before) {
            (Extent::Deleted, _) => {
                format!("{} deleted {key} at {made} ({}).", begins(who, by), change.version)
            }
            (Extent::Whole | Extent::Partial, None) => {
                let fields =
                    effect.confirmed.after.as_ref().map_or_else(|| ERASED.to_owned(), image);
                format!(
                    "The server sent {key}, made by {who} at {made} ({}): {fields}.",
                    change.version
                )
            }
            (Extent::Whole | Extent::Partial, Some(_)) if found.is_empty() => return None,
            (Extent::Whole | Extent::Partial, Some(_)) => {
                let within = self.within(&change.key);
                let who = if within.is_empty() { begins(who, by) } else { who };
                format!("{within}{who} {} at {made} ({}).", in_words(&found), change.version)
            }
        };
        let is_hidden = !found.is_empty() && effect.seen.before == effect.seen.after;
        let hidden = if is_hidden { " The screen shows this device's own changes." } else { "" };
        Some(fine(format!("{text}{hidden}")))
    }
}

/// Returns who made a change, as the beginning of a sentence. A name stays as it is.
fn begins(who: String, by: Option<&Actor>) -> String {
    if by.is_some() { who } else { "Another device".to_owned() }
}
