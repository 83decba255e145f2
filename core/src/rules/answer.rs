//! What follows from the server's answer.
//!
//! | the server says of a unit | decision |
//! |---|---|
//! | applied, duplicate | acked |
//! | stale | dissolved; each of its ops is judged against the current record; what is left is planned anew |
//! | ahead | dissolved, with the stamps that [`super::restamp`] gave its ops before; planned anew |
//! | transient | tried; the fifth time dead-lettered |
//! | rejected | dead-lettered |
//! | unsupported | its entity type is parked |
//! | unauthorized | its actor is parked |
//!
//! and of a record: confirmed moves on if the version is higher, and its tail is judged anew (`rules::rebase`).
//!
//! Invariants:
//! 1. Facts ([`Upstream`]) and decisions are separate entries of one commit.
//! 2. Only records that the answer names are read: the cost does not grow with the tail.
//! 3. An outcome for a unit that is not under way is ignored; a unit without an outcome stays as it is.
//! 4. Taking the same answer a second time decides nothing new.

mod aside;
mod grown;
mod split;

use std::collections::{BTreeMap, BTreeSet};

pub use aside::set_aside;
pub use split::split;

use super::status::ParkReason;
use super::{View, backoff};
use crate::entry::{ChangeMeta, Decision, Extent, Items, OutcomeClass, OutcomeMeta, ParkScope, Upstream};
use crate::fields::{Fields, FieldsJson};
use crate::ids::{OpId, UnitId};
use crate::limits;
use crate::names::RecordKey;
use crate::numbers::Version;
use crate::protocol::{Change, ExchangeAnswer, Outcome};
use crate::random::Randomness;
use crate::rows::{RecordRow, TailRef, UnitChangeRow, UnitRow};
use crate::schema::Schema;
use crate::time::WallTime;

/// What an answer comes to: facts and decisions, each with its erasable values.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// What the server said.
    pub upstream: Upstream,
    /// The values of `upstream`.
    pub upstream_items: Items,
    /// What follows.
    pub decisions: Vec<Decision>,
    /// The values of `decisions`.
    pub decision_items: Items,
    /// What a former life of the server had and this one lacks, to be offered again.
    pub reoffers: Vec<Reoffer>,
    /// Counts for the report.
    pub tally: Tally,
}

/// A record that the server once confirmed and now has in an older state.
#[derive(Debug, Clone, PartialEq)]
pub struct Reoffer {
    /// The record.
    pub key: RecordKey,
    /// What it was; `None` if it was deleted.
    pub image: Option<Fields>,
    /// When that was edited. The offer keeps this stamp, so that an older state never wins over a newer one.
    pub edited_at: crate::time::Hlc,
}

impl Answered {
    /// Returns whether there is anything to write.
    pub fn is_empty(&self) -> bool {
        let upstream = &self.upstream;
        self.decisions.is_empty()
            && upstream.outcomes.is_empty()
            && upstream.changes.is_empty()
            && upstream.cursors.is_empty()
            && upstream.receipt.is_none()
    }
}

/// What an answer did, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Units that reached the server.
    pub units_acked: u32,
    /// Ops that reached the server.
    pub ops_acked: u32,
    /// Units that were stale.
    pub units_stale: u32,
    /// Units that will be tried again.
    pub units_tried: u32,
    /// Ops that became dead letters.
    pub ops_dead: u32,
    /// Conflicts that were recorded.
    pub conflicts: u32,
    /// Records that the server sent in a version that was not known.
    pub changes: u32,
    /// Records that the server sent and that would be too large.
    pub set_aside: u32,
    /// Whether something was parked.
    pub parked: bool,
}

/// Decides what follows from an answer.
///
/// # Errors
/// What the view fails with.
pub fn take_answer<V: View>(
    view: &mut V,
    schema: &Schema,
    answer: &ExchangeAnswer,
    now: WallTime,
    random: &mut dyn Randomness,
) -> Result<Answered, V::Error> {
    let mut taking = Taking {
        view,
        schema,
        now,
        random,
        out: Answered {
            upstream: Upstream {
                request: answer.request,
                server: answer.server,
                epoch: answer.server_epoch,
                server_time: answer.server_time,
                outcomes: Vec::new(),
                changes: Vec::new(),
                cursors: answer
                    .cursors
                    .iter()
                    .map(|(entity, cursor)| (entity.clone(), cursor.clone()))
                    .collect(),
                receipt: answer.receipt,
            },
            upstream_items: Items::default(),
            decisions: Vec::new(),
            decision_items: Items::default(),
            reoffers: Vec::new(),
            tally: Tally::default(),
        },
        touched: BTreeMap::new(),
        settled: Vec::new(),
        landed: BTreeSet::new(),
        sizes: grown::has_parts(answer).then(BTreeMap::new),
    };
    for outcome in &answer.outcomes {
        taking.outcome(outcome.unit, &outcome.outcome)?;
    }
    for change in &answer.changes {
        taking.change(change)?;
    }
    taking.judge_all()?;
    Ok(taking.out)
}

/// A record that the answer names.
#[derive(Default)]
pub(super) struct Touched<'a> {
    /// What the server sent of it, lowest version first; nothing where a page had sent it before.
    pub(super) changes: Vec<&'a Change>,
    /// Whether a unit of ours turned out to be made for another version of it.
    pub(super) stale: bool,
}

/// An answer as it is being taken: outcomes and changes are read here, tails are judged in [`super::rebase`].
pub(super) struct Taking<'a, V: View> {
    pub(super) view: &'a mut V,
    pub(super) schema: &'a Schema,
    pub(super) now: WallTime,
    pub(super) random: &'a mut dyn Randomness,
    pub(super) out: Answered,
    pub(super) touched: BTreeMap<RecordKey, Touched<'a>>,
    /// Units that this answer has already decided on.
    pub(super) settled: Vec<(UnitId, UnitRow)>,
    /// Ops of ours that turned out to have taken effect though their unit was given up.
    pub(super) landed: BTreeSet<OpId>,
    /// How large the answer makes records, if it sends parts of some.
    pub(super) sizes: Option<BTreeMap<RecordKey, usize>>,
}

impl<'a, V: View> Taking<'a, V> {
    fn outcome(&mut self, id: UnitId, outcome: &'a Outcome) -> Result<(), V::Error> {
        if self.settled.iter().any(|(settled, _)| *settled == id) {
            return Ok(());
        }
        let Some(unit) = self.view.unit(&id)? else { return Ok(()) };
        if let Outcome::Applied { versions, .. } | Outcome::Duplicate { versions } = outcome
            && unit.changes.iter().any(|change| !versions.contains_key(&change.key))
        {
            // Half an answer is none: the unit stays under way and is sent again.
            return Ok(());
        }
        let mut meta = OutcomeMeta {
            unit: id,
            class: OutcomeClass::Applied,
            code: String::new(),
            message: None,
            versions: Vec::new(),
        };
        match outcome {
            Outcome::Applied { versions, current } => {
                meta.versions = self.acked(id, &unit, versions);
                for change in current {
                    self.change(change)?;
                }
            }
            Outcome::Duplicate { versions } => {
                meta.class = OutcomeClass::Duplicate;
                meta.versions = self.acked(id, &unit, versions);
            }
            Outcome::Stale { current, applied } => {
                meta.class = OutcomeClass::Stale;
                self.stale(id, &unit, current, applied, ParkReason::WornOut)?;
            }
            // Its ops were given other stamps before the answer was looked at. A page may have passed them by.
            Outcome::Ahead => {
                meta.class = OutcomeClass::Ahead;
                self.stale(id, &unit, &[], &[], ParkReason::Ahead)?;
            }
            Outcome::Transient { code, message, retry_after_milliseconds } => {
                meta.class = OutcomeClass::Transient;
                self.describe(&mut meta, code, message);
                self.tried(id, &unit, &meta.code, message, *retry_after_milliseconds);
            }
            Outcome::Rejected { code, message } => {
                meta.class = OutcomeClass::Rejected;
                self.describe(&mut meta, code, message);
                self.dead_lettered(id, &unit, &meta.code, message);
            }
            Outcome::Unsupported { entity, code } => {
                meta.class = OutcomeClass::Unsupported;
                meta.code = cut(code, limits::CODE_BYTES);
                self.park(ParkScope::Entity(entity.clone()), &meta.code);
            }
            Outcome::Unauthorized { code } => {
                meta.class = OutcomeClass::Unauthorized;
                meta.code = cut(code, limits::CODE_BYTES);
                self.park(ParkScope::Actor(unit.actor.clone()), &meta.code);
            }
        }
        self.out.upstream.outcomes.push(meta);
        self.settled.push((id, unit));
        Ok(())
    }

    fn describe(&mut self, meta: &mut OutcomeMeta, code: &str, message: &str) {
        meta.code = cut(code, limits::CODE_BYTES);
        if !message.is_empty() {
            let message = cut(message, limits::MESSAGE_BYTES);
            meta.message = Some(self.out.upstream_items.add(message, self.random));
        }
    }

    pub(super) fn acked(
        &mut self,
        id: UnitId,
        unit: &UnitRow,
        versions: &BTreeMap<RecordKey, Version>,
    ) -> Vec<(RecordKey, Version)> {
        let ours =
            unit.changes.iter().filter_map(|change| Some((change.key.clone(), *versions.get(&change.key)?)));
        let versions: Vec<_> = ours.collect();
        self.out.tally.units_acked += 1;
        self.out.tally.ops_acked += count(unit);
        self.out.decisions.push(Decision::Acked {
            unit: id,
            planned: unit.planned,
            versions: versions.clone(),
        });
        versions
    }

    fn stale(
        &mut self,
        id: UnitId,
        unit: &UnitRow,
        current: &'a [Change],
        applied: &[UnitId],
        worn_out_by: ParkReason,
    ) -> Result<(), V::Error> {
        self.out.tally.units_stale += 1;
        self.out.decisions.push(Decision::Dissolved { unit: id, planned: unit.planned });
        for change in current {
            self.change(change)?;
            if let Some(touched) = self.touched.get_mut(&change.key) {
                touched.stale |= unit.changes.iter().any(|ours| ours.key == change.key);
            }
        }
        for change in &unit.changes {
            let Some(row) = self.view.record(&change.key)? else { continue };
            if is_overtaken(change, &row) {
                self.touched.entry(change.key.clone()).or_default().stale = true;
            }
            self.landed(&change.key, &row, |own| own.attempts.iter().any(|unit| applied.contains(unit)))?;
            let worn_out = |reference: &&TailRef| {
                reference.stale.saturating_add(1) >= limits::STALE_TRIES
                    && change.ops.iter().any(|op| op.id == reference.op)
            };
            for reference in row.tail.iter().filter(worn_out) {
                self.park(ParkScope::Op(reference.op), worn_out_by.code());
            }
        }
        Ok(())
    }

    fn tried(&mut self, id: UnitId, unit: &UnitRow, code: &str, message: &str, retry_after: Option<u64>) {
        let tries = unit.tries.saturating_add(u32::from(backoff::counts(code)));
        if tries >= limits::TRIES {
            return self.dead_lettered(id, unit, code, message);
        }
        let asked = retry_after.map(std::time::Duration::from_millis);
        let retry_at = self.now.plus(backoff::backoff(tries, asked, self.random));
        self.out.tally.units_tried += 1;
        self.out.decisions.push(Decision::Tried {
            unit: id,
            planned: unit.planned,
            tries,
            code: code.to_owned(),
            retry_at,
        });
    }

    fn dead_lettered(&mut self, id: UnitId, unit: &UnitRow, code: &str, message: &str) {
        self.out.tally.ops_dead += count(unit);
        let message = cut(message, limits::MESSAGE_BYTES);
        let message = (!message.is_empty()).then(|| self.out.decision_items.add(message, self.random));
        let tries = unit.tries.saturating_add(1);
        self.out.decisions.push(Decision::DeadLettered {
            unit: id,
            planned: unit.planned,
            tries,
            code: code.to_owned(),
            message,
        });
    }

    pub(super) fn park(&mut self, scope: ParkScope, code: &str) {
        self.out.tally.parked = true;
        let decision = Decision::Parked { scope, code: code.to_owned() };
        if !self.out.decisions.contains(&decision) {
            self.out.decisions.push(decision);
        }
    }

    /// Records what the server sent of a record and remembers to judge its tail, if it may have one.
    /// The same version is recorded once, though a page and an outcome may both bring it; what an outcome names has a tail.
    fn change(&mut self, change: &'a Change) -> Result<(), V::Error> {
        let known = self.touched.get(&change.key).map(|touched| touched.changes.as_slice());
        if known.unwrap_or_default().iter().any(|known| known.version == change.version) {
            return Ok(());
        }
        let kept_aside = self.schema.rules(&change.key.entity).is_none();
        let version = self.view.confirmed_version(&change.key)?;
        let is_news = version.is_none_or(|known| change.version > known);
        let may_need_judging = !kept_aside && self.view.may_need_judging(&change.key)?;
        // Of a record that a former server had, it is news that there never was one.
        let is_known = !is_news && version != Some(Version::default());
        if is_known && !kept_aside && !may_need_judging {
            return Ok(());
        }
        if self.outgrows(change)? {
            self.set_aside(change);
            return Ok(());
        }
        let extent = match (change.deleted, change.partial) {
            (true, _) => Extent::Deleted,
            (false, true) => Extent::Partial,
            (false, false) => Extent::Whole,
        };
        let fields = match (&change.fields, extent) {
            (_, Extent::Deleted) => None,
            (Some(fields), _) => Some(self.out.upstream_items.add_fields(fields, self.random)),
            (None, _) => Some(self.out.upstream_items.add_fields(&FieldsJson::default(), self.random)),
        };
        self.out.upstream.changes.push(ChangeMeta {
            key: change.key.clone(),
            version: change.version,
            extent,
            edited_at: change.edited_at,
            op: change.op,
            older: change.older.iter().map(|(name, stamp)| (name.clone(), *stamp)).collect(),
            fields,
            kept_aside,
        });
        self.out.tally.changes += u32::from(is_news);
        if may_need_judging {
            self.touched.entry(change.key.clone()).or_default().changes.push(change);
        }
        Ok(())
    }
}

/// Returns whether a page had brought another version of a record while a change of ours was under way. What was under way
/// was left alone then, and the answer need not name the record: of a transaction another one can have been stale.
fn is_overtaken(change: &UnitChangeRow, row: &RecordRow) -> bool {
    let known = row.version().filter(|known| known.number() > 0);
    known.is_some_and(|known| change.base.is_none_or(|base| known > base))
}

fn count(unit: &UnitRow) -> u32 {
    u32::try_from(unit.changes.iter().map(|change| change.ops.len()).sum::<usize>()).unwrap_or(u32::MAX)
}

/// Cuts text to so many bytes, at a character.
pub(super) fn cut(text: &str, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
