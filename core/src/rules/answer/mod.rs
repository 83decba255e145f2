//! Decides what follows from the server's answer.
//!
//! ```text
//!   answer ─┬─ outcomes ─► how each unit ends                                   outcomes
//!           └─ rows ─────► facts; which records have a tail                     facts
//!   each such record ────► own writes that came back; then rebase               records
//! ```
//!
//! | outcome of a unit | decision |
//! |---|---|
//! | applied, duplicate | acked |
//! | stale | requeued; each of its ops meets what is new since the unit was planned; the rest is planned again |
//! | ahead | requeued, after [`super::restamp`] gave its ops other stamps; planned again |
//! | transient | tried; dead-lettered after [`TRIES`](crate::limits::TRIES) tries |
//! | rejected | dead-lettered, and its ops meet what is new since it was planned |
//! | unsupported | its entity type is parked |
//! | unauthorized | its actor is parked |
//!
//! A confirmed record moves on if a row has a higher version, and its tail is rebased
//! (`rules::rebase`).
//!
//! Invariants:
//! 1. Facts ([`Upstream`]) and decisions are separate entries of one commit.
//! 2. Only records that the answer names are read: the cost does not grow with the tail.
//! 3. An outcome of a unit that has ended is ignored. A unit without an outcome stays unanswered.
//! 4. Taking the same answer a second time decides nothing new.

mod aside;
mod authors;
mod entries;
mod facts;
mod grown;
pub(crate) mod note;
mod outcomes;
mod records;
mod restore;
mod split;

use std::collections::BTreeMap;

pub use aside::set_aside;
pub use entries::entries;

use self::facts::Rows;
use self::outcomes::{UnitEnd, UnitEnds};
use super::View;
use crate::entry::{Decision, Items, ParkScope, Upstream};
use crate::fields::Fields;
use crate::names::RecordKey;
use crate::protocol::ExchangeAnswer;
use crate::random::Randomness;
use crate::schema::Schema;
use crate::time::WallTime;

/// The result of an answer: facts and decisions, each with their erasable values.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// The facts: outcomes, changes, cursors and the receipt.
    pub upstream: Upstream,
    /// The values of `upstream`.
    pub upstream_items: Items,
    /// The decisions that follow.
    pub decisions: Vec<Decision>,
    /// The values of `decisions`.
    pub decision_items: Items,
    /// The records of a former epoch of the server that are offered again.
    pub reoffers: Vec<Reoffer>,
    /// Counts for the report.
    pub tally: AnswerCounts,
}

/// A record that the server once confirmed and now has in an older state.
#[derive(Debug, Clone, PartialEq)]
pub struct Reoffer {
    /// The record.
    pub key: RecordKey,
    /// The image to offer; `None` if the record was deleted.
    pub image: Option<Fields>,
    /// The time of the record's last edit. The offer keeps this time, so that an older state never
    /// wins over a newer state.
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
pub struct AnswerCounts {
    /// Units that were acked.
    pub units_acked: u32,
    /// Ops that were acked.
    pub ops_acked: u32,
    /// Units that were stale or ahead.
    pub units_stale: u32,
    /// Units with a transient answer that are sent again.
    pub units_tried: u32,
    /// Ops that became dead letters.
    pub ops_dead: u32,
    /// Conflicts that were recorded.
    pub conflicts: u32,
    /// Records that the server sent in a version that was not known.
    pub changes: u32,
    /// Rows that were set aside because they would make a record too large.
    pub set_aside: u32,
    /// Whether something was parked.
    pub parked: bool,
    /// Whether something other than single ops was parked.
    pub parked_more_than_ops: bool,
}

/// Decides what follows from an answer.
///
/// # Errors
/// An error of the view.
pub fn decide_answer<V: View>(
    view: &mut V,
    schema: &Schema,
    answer: &ExchangeAnswer,
    now: WallTime,
    random: &mut dyn Randomness,
) -> Result<Answered, V::Error> {
    let (mut facts, mut items) = (Items::default(), Items::default());
    let mut ends = outcomes::ends(view, &answer.outcomes, now, &mut facts, &mut items, random)?;
    let taken = answer.outcomes.iter().filter(|answered| ends.units.contains_key(&answered.unit));
    let rows =
        taken.flat_map(|answered| outcomes::current(&answered.outcome)).chain(&answer.changes);
    let sizes = grown::has_parts(answer).then(BTreeMap::new);
    let Rows { changes, mut changed, too_large, news } =
        facts::rows(view, schema, rows, sizes, &mut facts, random)?;
    let set_aside = u32::try_from(too_large.len()).unwrap_or(u32::MAX);
    ends.decisions
        .extend(too_large.into_iter().map(|row| grown::set_aside(row, &mut items, random)));
    for key in ends.sent_back() {
        changed.entry(key.clone()).or_default();
    }
    let mut reoffers = Vec::new();
    for (key, mut changes) in changed {
        changes.sort_by_key(|change| change.version);
        let Some(row) = view.record(&key)? else { continue };
        reoffers.extend(restore::reoffer(&key, &row, &changes)?);
        if !row.tail.is_empty() {
            let record = records::Record { key: &key, row: &row, changes: &changes };
            records::follow(view, schema, &record, &mut ends, &mut items, random)?;
        }
    }
    let tally = AnswerCounts { changes: news, set_aside, ..AnswerCounts::of(&ends) };
    let upstream = Upstream {
        request: answer.request,
        server: answer.server,
        epoch: answer.server_epoch,
        server_time: answer.server_time,
        outcomes: ends.outcomes,
        changes,
        cursors: answer
            .cursors
            .iter()
            .map(|(entity, cursor)| (entity.clone(), cursor.clone()))
            .collect(),
        receipt: answer.receipt,
    };
    let decisions = ends.decisions;
    Ok(Answered {
        upstream,
        upstream_items: facts,
        decisions,
        decision_items: items,
        reoffers,
        tally,
    })
}

impl AnswerCounts {
    /// Counts how units ended, and what was decided.
    fn of(ends: &UnitEnds) -> Self {
        let mut tally = Self::default();
        for (unit, end) in ends.units.values() {
            let ops = unit.changes.iter().map(|change| change.ops.len()).sum::<usize>();
            let ops = u32::try_from(ops).unwrap_or(u32::MAX);
            match end {
                UnitEnd::Acked(_) => {
                    tally.units_acked += 1;
                    tally.ops_acked += ops;
                }
                UnitEnd::Requeued => tally.units_stale += 1,
                UnitEnd::DeadLettered => tally.ops_dead += ops,
                UnitEnd::Stays => {}
            }
        }
        for decision in &ends.decisions {
            tally.units_tried += u32::from(matches!(decision, Decision::Tried { .. }));
            tally.conflicts += u32::from(matches!(decision, Decision::Conflicted(_)));
            if let Decision::Parked { scope, .. } = decision {
                tally.parked = true;
                tally.parked_more_than_ops |= !matches!(scope, ParkScope::Op(_));
            }
        }
        tally
    }
}

/// Cuts text to at most `bytes` bytes, between two characters.
pub(super) fn cut(text: &str, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
