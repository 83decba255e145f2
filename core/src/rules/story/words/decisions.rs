//! What was decided, by the engine or by a person.

use super::conflicts::won;
use super::device::{baseline_of, checkpoint, erased, opening, silence, trimmed};
use super::{MOST_SENTENCES, Words, coded, fine, weighs};
use crate::entry::{
    Cancelled, CancelledReason, Control, Decision, ParkScope, PersonAction, PlannedOp, Restamp,
};
use crate::names::RecordKey;
use crate::rules::status::ParkReason;
use crate::rules::status::words::listed;
use crate::rules::story::values;
use crate::rules::story::{Sentence, Weight};
use crate::time::WallTime;

impl Words<'_> {
    pub(super) fn control(&self, control: &Control) -> Vec<Sentence> {
        match control {
            Control::Opened(opened) if self.teller.about.is_none() => {
                vec![fine(format!("The book was created by {}.", opened.made_by))]
            }
            Control::Opened(_) => Vec::new(),
            Control::Planned(planned) => self.planned(planned),
            Control::Decided(decisions) => self.decisions(decisions),
            Control::PersonActed(action, decisions) => self.action(action, decisions),
            Control::EpochStarted { .. } => vec![weighs(
                Weight::NeedsAttention,
                "This file is a restored or cloned copy: a new epoch of the log began.",
            )],
            Control::Session(session) if self.teller.about.is_none() => vec![opening(session)],
            Control::Session(_) => Vec::new(),
            // Also in the story of one record: it says why the record did not leave.
            Control::Silence(silences) => silences.iter().map(silence).collect(),
            // The sentences about their changes name them.
            Control::Authors(_) => Vec::new(),
            Control::Note(signed) if self.teller.about.is_none() => {
                checkpoint(signed).into_iter().collect()
            }
            Control::Note(_) => Vec::new(),
            // A record that begins with it says so; see the entry that says what was trimmed.
            Control::Baseline(baseline) => {
                let about = self.teller.about.as_ref();
                baseline_of(baseline, about).into_iter().collect()
            }
            Control::Trimmed(what) if self.teller.about.is_none() => vec![trimmed(what)],
            Control::Trimmed(_) => Vec::new(),
            Control::Erased(what) => erased(what, self.teller.about.as_ref()).into_iter().collect(),
        }
    }

    pub(super) fn action(&self, action: &PersonAction, decisions: &[Decision]) -> Vec<Sentence> {
        let who = &self.entry.header.actor;
        let head = match action {
            PersonAction::Retry => format!("{who} asked to send it again."),
            PersonAction::Discard { reason } => {
                format!("{who} discarded it, for this reason: {}.", self.quoted(*reason))
            }
            PersonAction::Undo => format!("{who} took it back."),
            PersonAction::Resolve => format!("{who} resolved a conflict."),
            PersonAction::Resume => format!("{who} let what had stopped go on."),
            PersonAction::HandOver => format!("{who} handed it over."),
            PersonAction::AcceptServer => format!("{who} accepted the server that answers now."),
        };
        let sentences = self.decisions(decisions);
        if sentences.is_empty() && self.teller.about.is_some() {
            return Vec::new();
        }
        std::iter::once(fine(head)).chain(sentences).collect()
    }

    pub(super) fn decisions(&self, decisions: &[Decision]) -> Vec<Sentence> {
        // A part of an entry knows the numbers of its decisions in the whole entry.
        let number = |at: u32| {
            let known = usize::try_from(at).ok().and_then(|at| self.teller.numbers.get(at));
            known.copied().unwrap_or(at)
        };
        let mut sentences: Vec<_> = (0..)
            .zip(decisions)
            .filter_map(|(at, decision)| self.decision(number(at), decision))
            .collect();
        if sentences.len() > MOST_SENTENCES && self.teller.about.is_none() {
            // The worst first, so that none of them is cut.
            sentences.sort_by_key(|one| std::cmp::Reverse(one.weight));
            let cut = sentences.split_off(MOST_SENTENCES);
            let worst = cut.iter().filter(|sentence| sentence.weight > Weight::Fine).count();
            let worst =
                if worst > 0 { format!(", {worst} of them not fine") } else { String::new() };
            sentences
                .push(fine(format!("And {} more decisions{worst}.", values::grouped(cut.len()))));
        }
        sentences
    }

    pub(super) fn decision(&self, number: u32, decision: &Decision) -> Option<Sentence> {
        let on = |key: &RecordKey| self.concerns(key).then(|| self.of(key));
        Some(match decision {
            Decision::Acked { unit, versions, .. } => self.acked(unit, versions)?,
            Decision::Tried { unit, tries, code, retry_at, .. } => weighs(
                Weight::Waits,
                format!(
                    "{}The server put it off, try {tries}; the next is not before {retry_at}{}.",
                    self.of_unit(unit)?,
                    coded(code)
                ),
            ),
            Decision::Requeued { unit, .. } => weighs(
                Weight::Waits,
                format!(
                    "{}The server had a newer version, so it is laid on top of that.",
                    self.of_unit(unit)?
                ),
            ),
            Decision::Conflicted(conflict) => self.conflicted(number, conflict)?,
            Decision::Superseded { key, op } => {
                fine(format!("{}Change {} has nothing left to send.", on(key)?, op.place))
            }
            Decision::Dropped { key, op, fields } => weighs(
                Weight::Lost,
                format!("{}Change {} loses {}.", on(key)?, op.place, named(fields)),
            ),
            Decision::Raised { key, op, fields, values, .. } => {
                let values = values
                    .map_or_else(String::new, |values| format!(" with {}", self.image_of(values)));
                fine(format!(
                    "{}Change {} stays for {}{values}.",
                    on(key)?,
                    op.place,
                    named(fields)
                ))
            }
            Decision::BroughtBack { key, op, read } => weighs(
                Weight::Lost,
                format!(
                    "{}Change {} brings the deleted record back as {}.",
                    on(key)?,
                    op.place,
                    self.image_of(*read)
                ),
            ),
            Decision::DeadLettered { unit, code, message, answered, tries, .. } => {
                self.refused(unit, code, *message, *answered, *tries)?
            }
            Decision::Retried { key, op } => {
                fine(format!("{}Change {} is sent again.", on(key)?, op.place))
            }
            Decision::Discarded { key, op } => {
                fine(format!("{}Change {} is off the screen, and is not sent.", on(key)?, op.place))
            }
            Decision::Cancelled(cancelled) => {
                on(&cancelled.key)?;
                self.cancelled(cancelled)
            }
            Decision::Parked { scope, code } => self.parked(scope, code)?,
            Decision::Unparked { scope } => fine(format!("{} go on.", self.scope(scope)?)),
            Decision::Resolved { key, op, winner, merged } => {
                let merged = merged
                    .map_or_else(String::new, |merged| format!(": {}", self.image_of(merged)));
                fine(format!(
                    "{}In the conflict of change {}, {}{merged}.",
                    on(key)?,
                    op.place,
                    won(*winner)
                ))
            }
            Decision::ServerAccepted { .. } => fine(
                "Everything is read from that server anew, and what it lacks is offered again.",
            ),
            Decision::ServerRead => fine("The accepted server was read to its end."),
            Decision::Adopted { key, seq, .. } => fine(format!(
                "{}It was kept since entry {seq} until its type was declared, and is shown now.",
                on(key)?
            )),
            Decision::Upcast { key, op, schema_version, .. } => fine(format!(
                "{}Change {} was converted to schema version {schema_version} of the app.",
                on(key)?,
                op.place
            )),
            Decision::Suspected { units, times, code, retry_at } => {
                self.suspected(units.iter().map(|(unit, _)| unit), *times, code, *retry_at)?
            }
            Decision::Restamped { server_time, ops } => self.restamped(*server_time, ops)?,
            Decision::BelongsTo { tenant } => {
                self.whole(format!("The book belongs to tenant {tenant} of its server now."))?
            }
            Decision::SetAside { fault, version, name, .. } => {
                let version = version.map_or_else(String::new, |version| format!(" ({version})"));
                let sentences = self.whole(format!(
                    "The server sent {}{version}, whose {fault} this program cannot hold; it is set aside.", self.quoted(*name)
                ))?;
                weighs(Weight::Waits, sentences.text)
            }
            Decision::HandedOver { key, op, to } => {
                fine(format!("{}Change {} is sent by {to} from now on.", on(key)?, op.place))
            }
            Decision::LetGo { key, version } => fine(format!(
                "{}A comparison showed that the server does not have it as {version}, so the book let it go.",
                on(key)?
            )),
            Decision::ReadForeign { entity, .. } => {
                self.whole(format!("Records of type {entity:?} were read and set aside."))?
            }
        })
    }

    /// Tells of the book as a whole: no part of the story of one record.
    pub(super) fn whole(&self, text: String) -> Option<Sentence> {
        self.teller.about.is_none().then(|| fine(text))
    }

    pub(super) fn restamped(&self, server_time: WallTime, ops: &[Restamp]) -> Option<Sentence> {
        let own = ops.iter().filter(|restamp| self.concerns(&restamp.key));
        let places: Vec<_> =
            own.map(|restamp| restamp.op.place.to_string()).take(MOST_SENTENCES).collect();
        (!places.is_empty()).then(|| {
            let one = places.len() == 1;
            let (noun, verb) = if one { ("change", "counts") } else { ("changes", "count") };
            fine(format!(
                "The device's clock was ahead of the server's ({server_time}), so {noun} {} {verb} as made earlier.",
                listed(&places)
            ))
        })
    }

    pub(super) fn cancelled(&self, cancelled: &Cancelled) -> Sentence {
        let (of, noun) = (self.of(&cancelled.key), changes_of(&cancelled.ops));
        let verb = if cancelled.ops.len() == 1 { "is" } else { "are" };
        let why = match cancelled.reason {
            CancelledReason::CreatedAndDeleted => {
                "the record was created and deleted before it left"
            }
            CancelledReason::Undone => "it was taken back before it left",
            CancelledReason::NoEffect => "nothing of the record would change",
            CancelledReason::LocalOnly => "records of this type never leave the device",
            CancelledReason::AlreadyApplied => "the server had it already",
        };
        fine(format!("{of}{noun} {verb} not sent: {why}."))
    }

    pub(super) fn parked(&self, scope: &ParkScope, code: &str) -> Option<Sentence> {
        let why = ParkReason::of(scope, code);
        Some(weighs(
            Weight::NeedsAttention,
            format!("{} stop, because {why}{}.", self.scope(scope)?, coded(code)),
        ))
    }

    /// Returns what a park stops. The story of one record has the parks of its ops.
    pub(super) fn scope(&self, scope: &ParkScope) -> Option<String> {
        Some(match scope {
            ParkScope::Actor(actor) => format!("The changes of {actor}"),
            ParkScope::Entity(entity) => {
                if self.teller.about.as_ref().is_some_and(|about| about.entity != *entity) {
                    return None;
                }
                format!("Records of type {entity}")
            }
            ParkScope::Op(op) => match self.teller.ops.get(op) {
                Some(place) => format!("Change {place} and those behind it"),
                None if self.teller.about.is_some() => return None,
                None => "A change and those behind it".to_owned(),
            },
            ParkScope::Server(..) | ParkScope::Protocol | ParkScope::Tenant(_) => {
                "All changes".to_owned()
            }
        })
    }
}

fn changes_of(ops: &[PlannedOp]) -> String {
    let places: Vec<_> = ops.iter().map(|op| op.place.to_string()).collect();
    match places.as_slice() {
        [] => "Its changes".to_owned(),
        [place] => format!("Change {place}"),
        several => format!("Changes {}", listed(several)),
    }
}

fn named(fields: &[String]) -> String {
    if fields.is_empty() { "all its fields".to_owned() } else { listed(fields) }
}
