//! The fate of each op, read from the log alone.
//!
//! Invariant: an op ends at most once. The tail has exactly the ops that have not ended.

use std::collections::BTreeMap;

use fieldbook::audit::Seq;
use fieldbook::audit::entry::{AnnulledReason, Control, Decision, Meta, PlannedOp};
use fieldbook::record::{OpId, OpPlace, UnitId};
use fieldbook::{Book, RecordKey};

use super::fault::Fault;

/// An op and its fate.
struct Life {
    key: RecordKey,
    place: OpPlace,
    end: Option<&'static str>,
}

/// Every op of a log.
pub(super) struct Fates {
    lives: BTreeMap<OpId, Life>,
    units: BTreeMap<UnitId, Vec<PlannedOp>>,
    entries: u64,
}

impl Fates {
    /// Reads the whole log.
    pub(super) fn read(book: &Book) -> Result<Self, Fault> {
        let mut fates = Self { lives: BTreeMap::new(), units: BTreeMap::new(), entries: 0 };
        for entry in book.audit().entries(Seq::ZERO.next(), usize::MAX)? {
            fates.entries += 1;
            let seq = entry.header.seq;
            match &entry.meta {
                Meta::Intent(intent) => {
                    for (op, index) in intent.ops.iter().zip(0..) {
                        let life =
                            Life { key: op.key.clone(), place: OpPlace { seq, index }, end: None };
                        if fates.lives.insert(op.id, life).is_some() {
                            return Err(Fault::Broken(format!("op {} is in the log twice", op.id)));
                        }
                    }
                }
                Meta::Upstream(_) => {}
                Meta::Control(Control::Planned(planned)) => {
                    for unit in &planned.units {
                        let ops = unit.changes.iter().flat_map(|change| change.ops.iter().copied());
                        fates.units.insert(unit.id, ops.collect());
                    }
                    for annulled in &planned.annulled {
                        fates.end(&annulled.ops, annulled_as(annulled.reason))?;
                    }
                }
                Meta::Control(Control::Decided(decisions) | Control::Verb(_, decisions)) => {
                    decisions.iter().try_for_each(|decision| fates.decided(decision))?;
                }
                Meta::Control(_) => {}
            }
        }
        Ok(fates)
    }

    fn decided(&mut self, decision: &Decision) -> Result<(), Fault> {
        match decision {
            Decision::Acked { unit, .. } => {
                let ops = self.units.get(unit).cloned();
                let ops = ops.ok_or_else(|| {
                    Fault::Broken(format!("unit {unit} was acked, never planned"))
                })?;
                self.end(&ops, "acked")
            }
            Decision::Superseded { op, .. } => self.end(&[*op], "superseded"),
            Decision::Discarded { op, .. } => self.end(&[*op], "discarded"),
            Decision::Annulled(annulled) => self.end(&annulled.ops, annulled_as(annulled.reason)),
            _ => Ok(()),
        }
    }

    fn end(&mut self, ops: &[PlannedOp], end: &'static str) -> Result<(), Fault> {
        for op in ops {
            let Some(life) = self.lives.get_mut(&op.id) else {
                return Err(Fault::Broken(format!(
                    "op {} ended as {end}, but is not in the log",
                    op.id
                )));
            };
            if let Some(before) = life.end.replace(end) {
                return Err(Fault::Broken(format!(
                    "the op at {} of {} ended twice: as {before}, then as {end}",
                    life.place, life.key
                )));
            }
        }
        Ok(())
    }

    /// Checks that the tail has exactly the ops that have not ended.
    pub(super) fn check_tail(&self, book: &Book) -> Result<(), Fault> {
        let tail = book.snapshot()?.tail(book.schema())?;
        for (id, life) in &self.lives {
            if life.end.is_none() != tail.place_of(id).is_some() {
                let state = life.end.unwrap_or("open");
                return Err(Fault::Broken(format!(
                    "the op at {} of {} is {state}, which the tail does not show",
                    life.place, life.key
                )));
            }
        }
        Ok(())
    }

    /// Returns the places of a record's ops, oldest first.
    pub(super) fn places(&self, key: &RecordKey) -> Vec<OpPlace> {
        let mut places: Vec<_> =
            self.lives.values().filter(|life| life.key == *key).map(|life| life.place).collect();
        places.sort_unstable();
        places
    }

    /// Returns the fates of a record's ops, oldest first.
    pub(super) fn of(&self, key: &RecordKey, dead: impl Fn(OpPlace) -> bool) -> Vec<&'static str> {
        let mut lives: Vec<_> = self.lives.values().filter(|life| life.key == *key).collect();
        lives.sort_by_key(|life| life.place);
        let fate = |life: &Life| life.end.unwrap_or(if dead(life.place) { "dead" } else { "open" });
        lives.into_iter().map(fate).collect()
    }

    /// Returns how many entries the log has.
    pub(super) const fn entries(&self) -> u64 {
        self.entries
    }
}

const fn annulled_as(reason: AnnulledReason) -> &'static str {
    match reason {
        AnnulledReason::CreatedAndDeleted => "annulled: created_and_deleted",
        AnnulledReason::Undone => "annulled: undone",
        AnnulledReason::NoEffect => "annulled: no_effect",
        AnnulledReason::LocalOnly => "annulled: local_only",
        AnnulledReason::Arrived => "annulled: arrived",
    }
}
