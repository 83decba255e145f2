//! How units end by an answer.
//!
//! Invariants:
//! 1. A unit ends once; an outcome for one that is not under way is ignored.
//! 2. Half an answer is none: a unit that is said to be applied without a version for each of its records stays under way.
//! 3. What only the server's own code says counts as a try ([`backoff::counts`]).
//!
//! What it is not: what becomes of the ops of a unit that was sent back ([`super::records`]).

use std::collections::{BTreeMap, BTreeSet};

use super::facts::Facts;
use super::{Tally, count, cut};
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
pub(super) enum End {
    /// The server has it, by these versions.
    Acked(Vec<(RecordKey, Version)>),
    /// It was made for something else than what the server has: its ops are planned anew.
    Dissolved,
    /// Its ops are dead letters.
    DeadLettered,
    /// It stays under way.
    Stays,
}

/// What the outcomes of an answer come to.
#[derive(Default)]
pub(super) struct Ends {
    pub(super) units: BTreeMap<UnitId, (UnitRow, End)>,
    /// Units that were given up and took effect all the same.
    pub(super) applied: BTreeSet<UnitId>,
    /// Units that are acked by a row that can hold what others wrote after them: a page's, or that of a second answer.
    pub(super) came_back: BTreeSet<UnitId>,
    pub(super) decisions: Vec<Decision>,
}

impl Ends {
    /// Returns the units whose outcome was taken.
    pub(super) fn taken(&self) -> BTreeSet<UnitId> {
        self.units.keys().copied().collect()
    }

    /// Returns the records of units that were sent back.
    pub(super) fn sent_back(&self) -> Vec<RecordKey> {
        let back = self.units.values().filter(|(_, end)| matches!(end, End::Dissolved | End::DeadLettered));
        back.flat_map(|(unit, _)| unit.changes.iter().map(|change| change.key.clone())).collect()
    }

    pub(super) fn ack(
        &mut self,
        id: UnitId,
        unit: UnitRow,
        versions: Vec<(RecordKey, Version)>,
        tally: &mut Tally,
    ) {
        tally.units_acked += 1;
        tally.ops_acked += count(&unit);
        let (planned, told) = (unit.planned, versions.clone());
        self.decisions.push(Decision::Acked { unit: id, planned, versions: told });
        self.units.insert(id, (unit, End::Acked(versions)));
    }

    fn park(&mut self, scope: ParkScope, code: &str) {
        let decision = Decision::Parked { scope, code: code.to_owned() };
        if !self.decisions.contains(&decision) {
            self.decisions.push(decision);
        }
    }
}

/// Returns the rows that outcomes bring of units that were taken.
pub(super) fn current(outcomes: &[UnitOutcome], taken: BTreeSet<UnitId>) -> impl Iterator<Item = &Change> {
    let told = outcomes.iter().filter(move |told| taken.contains(&told.unit));
    told.flat_map(|told| match &told.outcome {
        Outcome::Applied { current, .. }
        | Outcome::Duplicate { current, .. }
        | Outcome::Stale { current, .. } => current.as_slice(),
        _ => &[],
    })
}

/// Takes the outcomes of an answer.
pub(super) fn ends<V: View>(
    view: &mut V,
    outcomes: &[UnitOutcome],
    now: WallTime,
    random: &mut dyn Randomness,
    facts: &mut Facts,
    items: &mut Items,
    tally: &mut Tally,
) -> Result<Ends, V::Error> {
    let mut ends = Ends::default();
    for UnitOutcome { unit: id, outcome } in outcomes {
        if ends.units.contains_key(id) {
            continue;
        }
        let Some(unit) = view.unit(id)? else { continue };
        let mut taking =
            Taking { now, random: &mut *random, items: &mut *items, tally: &mut *tally, ends: &mut ends };
        let Some((meta, end)) = taking.outcome(*id, &unit, outcome, facts) else { continue };
        facts.outcome(meta);
        if matches!(outcome, Outcome::Stale { .. } | Outcome::Ahead) {
            let reason = if *outcome == Outcome::Ahead { ParkReason::Ahead } else { ParkReason::WornOut };
            park_worn_out(view, &unit, reason.code(), &mut ends)?;
        }
        if matches!(outcome, Outcome::Duplicate { .. }) {
            ends.came_back.insert(*id);
        }
        match end {
            End::Acked(versions) => ends.ack(*id, unit, versions, tally),
            end => {
                ends.units.insert(*id, (unit, end));
            }
        }
    }
    Ok(ends)
}

/// What was stale too often waits for a person: something is wrong with what the server says of it.
fn park_worn_out<V: View>(view: &mut V, unit: &UnitRow, code: &str, ends: &mut Ends) -> Result<(), V::Error> {
    for change in &unit.changes {
        let Some(row) = view.record(&change.key)? else { continue };
        let worn_out = |pending: &&Pending| {
            pending.stale.saturating_add(1) >= limits::STALE_TRIES
                && change.ops.iter().any(|op| op.id == pending.op)
        };
        for pending in row.tail.iter().filter(worn_out) {
            ends.park(ParkScope::Op(pending.op), code);
        }
    }
    Ok(())
}

struct Taking<'a> {
    now: WallTime,
    random: &'a mut dyn Randomness,
    items: &'a mut Items,
    tally: &'a mut Tally,
    ends: &'a mut Ends,
}

impl Taking<'_> {
    /// Returns what the outcome is on record, and how its unit ends; none if it is half an answer.
    fn outcome(
        &mut self,
        id: UnitId,
        unit: &UnitRow,
        outcome: &Outcome,
        facts: &mut Facts,
    ) -> Option<(OutcomeMeta, End)> {
        let mut meta = OutcomeMeta {
            unit: id,
            class: class(outcome),
            code: String::new(),
            message: None,
            versions: Vec::new(),
        };
        let end = match outcome {
            Outcome::Applied { versions, .. } | Outcome::Duplicate { versions, .. } => {
                let told = |key: &RecordKey| Some((key.clone(), *versions.get(key)?));
                meta.versions =
                    unit.changes.iter().map(|change| told(&change.key)).collect::<Option<Vec<_>>>()?;
                End::Acked(meta.versions.clone())
            }
            Outcome::Stale { applied, .. } => {
                self.ends.applied.extend(applied);
                self.dissolve(id, unit)
            }
            // Its ops were given other stamps before the answer was looked at. A page may have passed them by.
            Outcome::Ahead => self.dissolve(id, unit),
            Outcome::Transient { code, message, retry_after_milliseconds } => {
                self.describe(&mut meta, facts, code, message);
                self.tried(id, unit, &meta.code, message, *retry_after_milliseconds)
            }
            Outcome::Rejected { code, message } => {
                self.describe(&mut meta, facts, code, message);
                self.dead_lettered(id, unit, &meta.code, message)
            }
            Outcome::Unsupported { entity, code } => {
                meta.code = cut(code, limits::CODE_BYTES);
                self.ends.park(ParkScope::Entity(entity.clone()), &meta.code);
                End::Stays
            }
            Outcome::Unauthorized { code } => {
                meta.code = cut(code, limits::CODE_BYTES);
                self.ends.park(ParkScope::Actor(unit.actor.clone()), &meta.code);
                End::Stays
            }
        };
        Some((meta, end))
    }

    fn describe(&mut self, meta: &mut OutcomeMeta, facts: &mut Facts, code: &str, message: &str) {
        meta.code = cut(code, limits::CODE_BYTES);
        if !message.is_empty() {
            meta.message = Some(facts.text(cut(message, limits::MESSAGE_BYTES), self.random));
        }
    }

    fn dissolve(&mut self, id: UnitId, unit: &UnitRow) -> End {
        self.tally.units_stale += 1;
        self.ends.decisions.push(Decision::Dissolved { unit: id, planned: unit.planned });
        End::Dissolved
    }

    fn tried(
        &mut self,
        id: UnitId,
        unit: &UnitRow,
        code: &str,
        message: &str,
        retry_after: Option<u64>,
    ) -> End {
        let tries = unit.tries.saturating_add(u32::from(backoff::counts(code)));
        if tries >= limits::TRIES {
            return self.dead_lettered(id, unit, code, message);
        }
        let asked = retry_after.map(std::time::Duration::from_millis);
        let retry_at = self.now.plus(backoff::backoff(tries, asked, self.random));
        self.tally.units_tried += 1;
        let (planned, code) = (unit.planned, code.to_owned());
        self.ends.decisions.push(Decision::Tried { unit: id, planned, tries, code, retry_at });
        End::Stays
    }

    fn dead_lettered(&mut self, id: UnitId, unit: &UnitRow, code: &str, message: &str) -> End {
        self.tally.ops_dead += count(unit);
        let message = cut(message, limits::MESSAGE_BYTES);
        let message = (!message.is_empty()).then(|| self.items.add(message, self.random));
        self.ends.decisions.push(Decision::DeadLettered {
            unit: id,
            planned: unit.planned,
            tries: unit.tries.saturating_add(1),
            code: code.to_owned(),
            message,
            answered: true,
        });
        End::DeadLettered
    }
}

const fn class(outcome: &Outcome) -> OutcomeClass {
    match outcome {
        Outcome::Applied { .. } => OutcomeClass::Applied,
        Outcome::Duplicate { .. } => OutcomeClass::Duplicate,
        Outcome::Stale { .. } => OutcomeClass::Stale,
        Outcome::Ahead => OutcomeClass::Ahead,
        Outcome::Transient { .. } => OutcomeClass::Transient,
        Outcome::Rejected { .. } => OutcomeClass::Rejected,
        Outcome::Unsupported { .. } => OutcomeClass::Unsupported,
        Outcome::Unauthorized { .. } => OutcomeClass::Unauthorized,
    }
}
