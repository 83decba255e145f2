//! The templates: one for each variant of an entry. Short, for people. Codes come in brackets after
//! the words.
//!
//! ```text
//!   edits       what somebody did on this device
//!   answers     what the server said
//!   units       what was sent, and what came of it
//!   decisions   what was decided
//!   conflicts   who won, and by which rule
//!   device      openings, and silences
//! ```
//!
//! What it does not do: choose what is told, or lay it out.

mod answers;
mod conflicts;
mod decisions;
mod device;
mod edits;
mod units;

use super::values::{self, image};
use super::{Sentence, Teller, Weight};
use crate::entry::{Authored, Entry, Item, ItemIndex, Meta, PlannedUnit};
use crate::ids::UnitId;
use crate::names::{Actor, RecordKey};
use crate::record::Effect;
use crate::rules::status::words::listed;

/// Tells an entry.
pub(super) fn entry(
    teller: &Teller,
    entry: &Entry,
    effects: &[Effect],
    authors: &[Authored],
) -> Vec<Sentence> {
    let words = Words { teller, entry, effects, authors };
    match &entry.meta {
        Meta::Intent(intent) => words.intent(intent),
        Meta::Upstream(upstream) => words.upstream(upstream),
        Meta::Control(control) => words.control(control),
    }
}

fn fine(text: impl Into<String>) -> Sentence {
    Sentence { text: text.into(), weight: Weight::Fine }
}

fn weighs(weight: Weight, text: impl Into<String>) -> Sentence {
    Sentence { text: text.into(), weight }
}

struct Words<'a> {
    teller: &'a Teller,
    entry: &'a Entry,
    effects: &'a [Effect],
    authors: &'a [Authored],
}

impl Words<'_> {
    fn effect(&self, key: &RecordKey) -> Option<&Effect> {
        self.effects.iter().find(|effect| effect.key == *key)
    }

    /// Returns the name of a record: `it` in the story of that record.
    fn name(&self, key: &RecordKey) -> String {
        if self.teller.about.is_some() { "it".to_owned() } else { key.to_string() }
    }

    /// Returns whose, for example `: ` before sentences about one of many records.
    fn of(&self, key: &RecordKey) -> String {
        if self.teller.about.is_some() { String::new() } else { format!("{key}: ") }
    }

    /// Returns `In lead/42, ` before what happened in one of many records.
    fn within(&self, key: &RecordKey) -> String {
        if self.teller.about.is_some() { String::new() } else { format!("In {key}, ") }
    }

    /// Returns who made a change of the server. A user of this device has other devices too.
    fn maker(&self, by: Option<&Actor>) -> String {
        match by {
            Some(by) if *by == self.entry.header.actor => format!("{by} on another device"),
            Some(by) => by.to_string(),
            None => "another device".to_owned(),
        }
    }

    fn concerns(&self, key: &RecordKey) -> bool {
        self.teller.concerns(key)
    }

    fn has_of(&self, unit: &PlannedUnit) -> bool {
        unit.changes.iter().any(|change| self.concerns(&change.key))
    }

    /// Returns the records of a unit before a sentence about it; none if the story is about another
    /// record.
    fn of_unit(&self, unit: &UnitId) -> Option<String> {
        let known = self.teller.units.get(unit);
        if self.teller.about.is_some() {
            return known.filter(|unit| self.has_of(unit)).map(|_| String::new());
        }
        let Some(unit) = known else { return Some("A change: ".to_owned()) };
        let mut keys: Vec<_> =
            unit.changes.iter().take(MOST_SENTENCES).map(|change| change.key.to_string()).collect();
        if unit.changes.len() > MOST_SENTENCES {
            keys.push(format!("{} more", values::grouped(unit.changes.len() - MOST_SENTENCES)));
        }
        Some(format!("{}: ", listed(&keys)))
    }

    fn image_of(&self, index: ItemIndex) -> String {
        match self.entry.fields(index) {
            Ok(Some(fields)) => image(&fields),
            Ok(None) => ERASED.to_owned(),
            Err(_) => UNREADABLE.to_owned(),
        }
    }

    fn is_hidden(&self, index: ItemIndex) -> bool {
        let item = usize::try_from(index).ok().and_then(|index| self.entry.items.get(index));
        item.is_some_and(Item::is_hidden)
    }

    fn message(&self, message: Option<ItemIndex>) -> String {
        message.map_or_else(String::new, |message| format!(": {}", self.quoted(message)))
    }

    fn quoted(&self, index: ItemIndex) -> String {
        match self.entry.text(index) {
            Some(text) if self.is_hidden(index) => text.into_owned(),
            Some(text) => values::shown(&text.into_owned().into()),
            None => ERASED.to_owned(),
        }
    }
}

fn coded(code: &str) -> String {
    if code.is_empty() { String::new() } else { format!(" ({code})") }
}

/// The most sentences of one kind in a paragraph.
const MOST_SENTENCES: usize = 6;
const ERASED: &str = "(erased)";
const UNREADABLE: &str = "(unreadable)";
