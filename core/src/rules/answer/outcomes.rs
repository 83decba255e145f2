//! Ends units by the outcomes of an answer.
//!
//! Invariants:
//! 1. A unit ends once. An outcome of a unit that has ended is ignored.
//! 2. A unit is acked only if the outcome has a version for each of its records. Otherwise the unit
//!    stays unanswered.
//! 3. A transient answer counts as a try, unless its code is that of a server without room
//!    ([`backoff::counts`]).
//!
//! What it does not do: rebase the ops of a unit that was sent back ([`super::records`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::cut;
use crate::entry::{Decision, Items, OutcomeClass, OutcomeMeta, ParkScope};
use crate::ids::UnitId;
use crate::limits;
use crate::names::RecordKey;
use crate::numbers::Version;
use crate::protocol::{Change, Outcome, UnitOutcome};
use crate::random::Randomness;
use crate::record::Pending;
use crate::rows::UnitRow;
use crate::rules::status::ParkReason;
use crate::rules::{View, backoff};
use crate::time::WallTime;

/// How a unit ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum UnitEnd {
    /// The server has the unit. Its records have these versions.
    Acked(Vec<(RecordKey, Version)>),
    /// The unit was stale or ahead. Its ops are planned again.
    Requeued,
    /// Its ops are dead letters.
    DeadLettered,
    /// The unit stays unanswered.
    Stays,
}

/// The result of the outcomes of an answer.
#[derive(Default)]
pub(super) struct UnitEnds {
    /// The outcomes that were taken, as the entry keeps them.
    pub(super) outcomes: Vec<OutcomeMeta>,
    pub(super) units: BTreeMap<UnitId, (UnitRow, UnitEnd)>,
    /// Units that were abandoned and took effect all the same.
    pub(super) applied: BTreeSet<UnitId>,
    /// Acked units whose row can have later writes of others: the row came with a page, or with
    /// the outcome *duplicate*.
    pub(super) came_back: BTreeSet<UnitId>,
    pub(super) decisions: Vec<Decision>,
}

impl UnitEnds {
    /// Returns whether the server sent a unit back: the unit was requeued or dead-lettered.
    pub(super) fn is_sent_back(&self, unit: &UnitId) -> bool {
        self.units
            .get(unit)
            .is_some_and(|(_, end)| matches!(end, UnitEnd::Requeued | UnitEnd::DeadLettered))
    }

    /// Returns the records of units that were sent back.
    pub(super) fn sent_back(&self) -> impl Iterator<Item = &RecordKey> {
        let back = self.units.iter().filter(|(id, _)| self.is_sent_back(id));
        back.flat_map(|(_, (unit, _))| unit.changes.iter().map(|change| &change.key))
    }

    pub(super) fn ack(&mut self, id: UnitId, unit: UnitRow, versions: Vec<(RecordKey, Version)>) {
        let (planned, acked) = (unit.planned, versions.clone());
        self.decisions.push(Decision::Acked { unit: id, planned, versions: acked });
        self.units.insert(id, (unit, UnitEnd::Acked(versions)));
    }

    fn park(&mut self, scope: ParkScope, code: &str) {
        let decision = Decision::Parked { scope, code: code.to_owned() };
        if !self.decisions.contains(&decision) {
            self.decisions.push(decision);
        }
    }
}

/// Returns the rows that an outcome brings.
pub(super) fn current(outcome: &Outcome) -> &[Change] {
    match outcome {
        Outcome::Applied { current, .. }
        | Outcome::Duplicate { current, .. }
        | Outcome::Stale { current, .. } => current,
        _ => &[],
    }
}

/// Takes the outcomes of an answer. `facts` gets every message of the server, and `items` gets the
/// messages of decisions.
pub(super) fn ends<V: View>(
    view: &mut V,
    outcomes: &[UnitOutcome],
    now: WallTime,
    facts: &mut Items,
    items: &mut Items,
    random: &mut dyn Randomness,
) -> Result<UnitEnds, V::Error> {
    let mut ends = UnitEnds::default();
    for UnitOutcome { unit: id, outcome } in outcomes {
        if ends.units.contains_key(id) {
            continue;
        }
        let Some(unit) = view.unit(id)? else { continue };
        let mut versions = Vec::new();
        if let Outcome::Applied { versions: given, .. }
        | Outcome::Duplicate { versions: given, .. } = outcome
        {
            let keys = unit.changes.iter().map(|change| &change.key);
            versions.extend(keys.filter_map(|key| Some((key.clone(), *given.get(key)?))));
            if versions.len() < unit.changes.len() {
                continue;
            }
        }
        let (class, code, message) = class_of(outcome);
        let (code, message) = (cut(code, limits::CODE_BYTES), cut(message, limits::MESSAGE_BYTES));
        let text = (!message.is_empty()).then(|| facts.add(message.as_str(), random));
        let meta = OutcomeMeta {
            unit: *id,
            class,
            code: code.clone(),
            message: text,
            versions: versions.clone(),
        };
        ends.outcomes.push(meta);
        let unit_answer = UnitAnswer { ends: &mut ends, id: *id, unit, code, now, items, random };
        match outcome {
            Outcome::Applied { .. } => unit_answer.ack(versions),
            Outcome::Duplicate { .. } => {
                unit_answer.ends.came_back.insert(*id);
                unit_answer.ack(versions);
            }
            Outcome::Stale { applied, .. } => {
                unit_answer.ends.applied.extend(applied);
                unit_answer.requeue(view, ParkReason::WornOut)?;
            }
            // The ops got other stamps before this function ran. They meet the pages that came
            // while the unit was unanswered.
            Outcome::Ahead => unit_answer.requeue(view, ParkReason::Ahead)?,
            Outcome::Transient { retry_after_milliseconds, .. } => {
                unit_answer.try_again(*retry_after_milliseconds, &message);
            }
            Outcome::Rejected { .. } => unit_answer.dead_letter(&message),
            Outcome::Unsupported { entity, .. } => {
                unit_answer.park(ParkScope::Entity(entity.clone()))
            }
            Outcome::Unauthorized { .. } => {
                let actor = unit_answer.unit.actor.clone();
                unit_answer.park(ParkScope::Actor(actor));
            }
        }
    }
    Ok(ends)
}

/// A unit whose outcome is taken.
struct UnitAnswer<'a> {
    ends: &'a mut UnitEnds,
    id: UnitId,
    unit: UnitRow,
    /// The server's code.
    code: String,
    now: WallTime,
    items: &'a mut Items,
    random: &'a mut dyn Randomness,
}

impl UnitAnswer<'_> {
    fn end(self, decision: Option<Decision>, end: UnitEnd) {
        self.ends.decisions.extend(decision);
        self.ends.units.insert(self.id, (self.unit, end));
    }

    fn ack(self, versions: Vec<(RecordKey, Version)>) {
        self.ends.ack(self.id, self.unit, versions);
    }

    /// Requeues the unit, so that its ops are planned again. An op that was sent back too often is
    /// parked for a person, since the server's answers about it cannot be right.
    fn requeue<V: View>(self, view: &mut V, reason: ParkReason) -> Result<(), V::Error> {
        self.ends.decisions.push(Decision::Requeued { unit: self.id, planned: self.unit.planned });
        for change in &self.unit.changes {
            let Some(row) = view.record(&change.key)? else { continue };
            let worn_out = |pending: &&Pending| {
                pending.stale.saturating_add(1) >= limits::STALE_TRIES
                    && change.ops.iter().any(|op| op.id == pending.op)
            };
            for pending in row.tail.iter().filter(worn_out) {
                self.ends.park(ParkScope::Op(pending.op), reason.code());
            }
        }
        self.end(None, UnitEnd::Requeued);
        Ok(())
    }

    fn try_again(self, retry_after: Option<u64>, message: &str) {
        let tries = self.unit.tries.saturating_add(u32::from(backoff::counts(&self.code)));
        if tries >= limits::TRIES {
            return self.dead_letter(message);
        }
        let asked = retry_after.map(Duration::from_millis);
        let retry_at = self.now.plus(backoff::backoff(tries, asked, self.random));
        let (unit, planned, code) = (self.id, self.unit.planned, self.code.clone());
        self.end(Some(Decision::Tried { unit, planned, tries, code, retry_at }), UnitEnd::Stays);
    }

    fn dead_letter(self, message: &str) {
        let decision = Decision::DeadLettered {
            unit: self.id,
            planned: self.unit.planned,
            tries: self.unit.tries.saturating_add(1),
            code: self.code.clone(),
            message: (!message.is_empty()).then(|| self.items.add(message, self.random)),
            answered: true,
        };
        self.end(Some(decision), UnitEnd::DeadLettered);
    }

    fn park(self, scope: ParkScope) {
        self.ends.park(scope, &self.code);
        self.end(None, UnitEnd::Stays);
    }
}

/// Returns the class of an outcome, with the server's code and message.
fn class_of(outcome: &Outcome) -> (OutcomeClass, &str, &str) {
    match outcome {
        Outcome::Applied { .. } => (OutcomeClass::Applied, "", ""),
        Outcome::Duplicate { .. } => (OutcomeClass::Duplicate, "", ""),
        Outcome::Stale { .. } => (OutcomeClass::Stale, "", ""),
        Outcome::Ahead => (OutcomeClass::Ahead, "", ""),
        Outcome::Transient { code, message, .. } => (OutcomeClass::Transient, code, message),
        Outcome::Rejected { code, message } => (OutcomeClass::Rejected, code, message),
        Outcome::Unsupported { code, .. } => (OutcomeClass::Unsupported, code, ""),
        Outcome::Unauthorized { code } => (OutcomeClass::Unauthorized, code, ""),
    }
}
