//! Tells what happened, in sentences: the story of one record, or of the device.
//!
//! ```text
//!   Step (an entry, and what the fold made of the records) ──► words: sentences ──► Paragraph
//!   plan, answer, decisions of one exchange ──────────────────► one Paragraph, its worst first
//! ```
//!
//! Invariants:
//! 1. The same steps give the same paragraphs. Time, values and authors come from the entries and
//!    from the fold, never from the present.
//! 2. Each variant of an entry has a template. A new variant does not compile until it has one.
//! 3. The author of an op is the actor of its entry. The author of a server's change is the actor
//!    whom the server named, or else another device. It is never this device.
//! 4. A value is told whole, or with its length. An erased value is told as erased.
//! 5. The head of a paragraph is its worst outcome, so that a second outcome is not hidden.
//!
//! `words` has the templates, `values` the words for values and changes. `all` tells the stories of
//! all records at once.
//!
//! What it does not do: fold, read the log, or show times.

mod all;
mod values;
mod words;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

pub use all::Stories;
pub use values::{FieldChange, changes, shown};

use crate::entry::{Authored, Control, Entry, Meta, OutcomeClass, PlannedUnit, Upstream};
use crate::ids::{OpId, UnitId};
use crate::names::{Actor, RecordKey};
use crate::numbers::{Seq, Version};
use crate::op::OpPlace;
use crate::record::Effect;
use crate::time::WallTime;

/// How good or bad an event is, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Weight {
    /// Everything went as it should.
    Fine,
    /// Something waits, and goes on by itself.
    Waits,
    /// A value lost to another one. Both are on record.
    Lost,
    /// A person has to act.
    NeedsAttention,
}

/// The kinds of events, for filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// Somebody used this device.
    Edits,
    /// The server said something.
    Server,
    /// The engine, or a person, decided something.
    Decisions,
}

/// One sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sentence {
    /// The words.
    pub text: String,
    /// How good or bad it is.
    pub weight: Weight,
}

/// What happened at one moment: an edit, a person's decision, or a whole exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Paragraph {
    /// The first entry.
    pub from: Seq,
    /// The last entry.
    pub to: Seq,
    /// The time of the first entry, by the device's clock.
    pub at: WallTime,
    /// The time of the last entry.
    pub until: WallTime,
    /// The worst of its sentences.
    pub weight: Weight,
    /// The kinds of its events.
    pub kinds: BTreeSet<Kind>,
    /// Its records.
    pub records: BTreeSet<RecordKey>,
    /// The sentences, in the order in which it happened.
    pub sentences: Vec<Sentence>,
}

impl Paragraph {
    /// Returns the words that head a paragraph with a bad outcome.
    pub const fn head(&self) -> Option<&'static str> {
        match self.weight {
            Weight::Fine => None,
            Weight::Waits => Some("Put off"),
            Weight::Lost => Some("Conflict"),
            Weight::NeedsAttention => Some("Needs a person"),
        }
    }

    /// Returns the whole paragraph: its head, then its sentences. Sentences that are all the same
    /// are told once.
    pub fn text(&self) -> String {
        let head = self.head().filter(|_| self.sentences.len() > 1);
        let head = head.map(|head| format!("{head}: "));
        let texts: Vec<_> = self.sentences.iter().map(|sentence| sentence.text.as_str()).collect();
        format!("{}{}", head.unwrap_or_default(), texts.join(" "))
    }
}

/// Returns the time between two events in words, `2 h 14 min later`; `None` for less than half a
/// minute. A clock that was set back is told as that.
pub fn gap(before: WallTime, after: WallTime) -> Option<String> {
    let back = before.since(after).as_secs();
    if back > 0 {
        return Some(format!("the device's clock was set back by {}", span(back)));
    }
    let later = after.since(before).as_secs();
    (later >= 30).then(|| format!("{} later", span(later)))
}

/// Returns a span in its two greatest units.
fn span(seconds: u64) -> String {
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let from = parts.iter().position(|(number, _)| *number > 0).unwrap_or(3);
    let shown = parts.iter().skip(from).take(2).filter(|(number, _)| *number > 0);
    let shown: Vec<_> = shown.map(|(number, unit)| format!("{number} {unit}")).collect();
    if shown.is_empty() { "0 s".to_owned() } else { shown.join(" ") }
}

/// Tells the entries of a log, oldest first.
#[derive(Debug)]
pub struct Teller {
    /// The record that the story is about; none for the whole device.
    about: Option<RecordKey>,
    /// The units that were planned, with their changes.
    units: HashMap<UnitId, PlannedUnit>,
    /// The ops of this device.
    ops: HashMap<OpId, OpPlace>,
    /// The authors of these ops.
    authors: HashMap<OpPlace, Actor>,
    /// The places of the next entry's decisions in the whole entry, if it is the part of one that
    /// is about this record.
    numbers: Vec<u32>,
    /// The present exchange.
    open: Option<Exchange>,
    paragraphs: Vec<Paragraph>,
}

/// An exchange that is being told.
#[derive(Debug)]
struct Exchange {
    paragraph: Paragraph,
    /// Whether an answer or a decision was told, so that the next plan begins another exchange.
    answered: bool,
    /// The units whose end a decision has told.
    classes: BTreeMap<UnitId, OutcomeClass>,
    /// The authors of the server's changes in it.
    made_by: BTreeMap<(RecordKey, Version), Actor>,
}

impl Exchange {
    /// Remembers what the decisions about an answer need to know of it.
    fn learn(&mut self, upstream: &Upstream, authors: &[Authored]) {
        self.classes.extend(upstream.outcomes.iter().map(|one| (one.unit, one.class)));
        for (number, change) in (0..).zip(&upstream.changes) {
            if let Some(actor) = Authored::of(authors, number) {
                self.made_by.insert((change.key.clone(), change.version), actor.clone());
            }
        }
    }
}

impl Teller {
    /// Makes a teller of one record, or of the whole device.
    pub fn new(about: Option<RecordKey>) -> Self {
        Self {
            about,
            units: HashMap::new(),
            ops: HashMap::new(),
            authors: HashMap::new(),
            numbers: Vec::new(),
            open: None,
            paragraphs: Vec::new(),
        }
    }

    /// Tells the next entry. `effects` are the records that it changed. `authors` are those that
    /// the entry after an answer names; an entry of another kind has none.
    pub fn tell(&mut self, entry: &Entry, effects: &[Effect], authors: &[Authored]) {
        self.learn(entry);
        let is_exchange = matches!(
            entry.meta,
            Meta::Upstream(_)
                | Meta::Control(
                    Control::Planned(_)
                        | Control::Decided(_)
                        | Control::Authors(_)
                        | Control::Note(_)
                )
        );
        let begins = matches!(entry.meta, Meta::Control(Control::Planned(_)));
        if !is_exchange || (begins && self.open.as_ref().is_some_and(|open| open.answered)) {
            self.end_exchange();
        }
        if let (Some(open), Meta::Upstream(upstream)) = (&mut self.open, &entry.meta) {
            open.learn(upstream, authors);
        }
        let sentences = words::entry(self, entry, effects, authors);
        if sentences.is_empty() && !is_exchange {
            return;
        }
        let kind = match &entry.meta {
            Meta::Intent(_) => Kind::Edits,
            Meta::Upstream(_) => Kind::Server,
            Meta::Control(_) => Kind::Decisions,
        };
        let records = effects.iter().map(|effect| effect.key.clone());
        let at = entry.header.wall;
        let mut paragraph = Paragraph {
            from: entry.header.seq,
            to: entry.header.seq,
            at,
            until: at,
            weight: sentences.iter().map(|sentence| sentence.weight).max().unwrap_or(Weight::Fine),
            kinds: if sentences.is_empty() { BTreeSet::new() } else { BTreeSet::from([kind]) },
            records: records.collect(),
            sentences,
        };
        if !is_exchange {
            self.paragraphs.push(paragraph);
            return;
        }
        let answered = !begins;
        match &mut self.open {
            Some(open) => {
                open.answered |= answered;
                open.paragraph.add(paragraph);
            }
            None => {
                paragraph.records.extend(self.about.clone());
                let (classes, made_by) = (BTreeMap::new(), BTreeMap::new());
                let mut open = Exchange { paragraph, answered, classes, made_by };
                if let Meta::Upstream(upstream) = &entry.meta {
                    open.learn(upstream, authors);
                }
                self.open = Some(open);
            }
        }
    }

    /// Returns all paragraphs, oldest first.
    pub fn end(mut self) -> Vec<Paragraph> {
        self.end_exchange();
        self.paragraphs
    }

    fn end_exchange(&mut self) {
        if let Some(open) = self.open.take()
            && !open.paragraph.sentences.is_empty()
        {
            self.paragraphs.push(open.paragraph);
        }
    }

    /// Remembers the ops and the units of an entry, for the sentences about them later. The story
    /// of one record needs only its own: so the stories of all records together need no more memory
    /// than that of the device.
    fn learn(&mut self, entry: &Entry) {
        match &entry.meta {
            Meta::Intent(intent) => {
                for (index, op) in (0..).zip(&intent.ops) {
                    if !self.concerns(&op.key) {
                        continue;
                    }
                    let place = OpPlace { seq: entry.header.seq, index };
                    self.ops.insert(op.id, place);
                    self.authors.insert(place, entry.header.actor.clone());
                }
            }
            Meta::Control(Control::Planned(planned)) => {
                let is_own = |unit: &&PlannedUnit| {
                    self.about.is_none()
                        || unit.changes.iter().any(|change| self.concerns(&change.key))
                };
                let own: Vec<_> = planned.units.iter().filter(is_own).cloned().collect();
                self.units.extend(own.into_iter().map(|unit| (unit.id, unit)));
            }
            _ => {}
        }
    }

    fn concerns(&self, key: &RecordKey) -> bool {
        self.about.as_ref().is_none_or(|about| about == key)
    }
}

impl Paragraph {
    fn add(&mut self, next: Self) {
        self.to = next.to;
        self.until = next.until;
        self.weight = self.weight.max(next.weight);
        self.kinds.extend(next.kinds);
        self.records.extend(next.records);
        for sentence in next.sentences {
            if !self.sentences.contains(&sentence) {
                self.sentences.push(sentence);
            }
        }
    }
}
