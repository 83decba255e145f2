//! The fate of each op, read from the log alone.
//!
//! Invariant: an op ends at most once. The tail has exactly the ops that have not ended.

use std::collections::BTreeMap;

use fieldbook::audit::Seq;
use fieldbook::audit::entry::{CancelledReason, Control, Decision, Meta, PlannedOp};
use fieldbook::record::{OpId, OpPlace, UnitId};
use fieldbook::{Book, RecordKey};

use super::fault::Fault;

/// An op and its fate.
struct Course {
    key: RecordKey,
    place: OpPlace,
    end: Option<&'static str>,
}

/// Every op of a log.
pub(super) struct Fates {
    courses: BTreeMap<OpId, Course>,
    units: BTreeMap<UnitId, Vec<PlannedOp>>,
    entries: u64,
}

impl Fates {
    /// Reads the whole log.
    pub(super) fn read(book: &Book) -> Result<Self, Fault> {
        let mut fates = Self { courses: BTreeMap::new(), units: BTreeMap::new(), entries: 0 };
        for entry in book.audit().entries(Seq::ZERO.next(), usize::MAX)? {
            // What says something of the device only depends on how the case is run.
            let of_the_device = matches!(
                entry.meta,
                Meta::Control(
                    Control::Session(_)
                        | Control::Silence(_)
                        | Control::Authors(_)
                        | Control::Note(_)
                        | Control::Erased(_)
                        | Control::Trimmed(_)
                )
            );
            fates.entries += u64::from(!of_the_device);
            let seq = entry.header.seq;
            match &entry.meta {
                Meta::Intent(intent) => {
                    for (op, index) in intent.ops.iter().zip(0..) {
                        let course = Course {
                            key: op.key.clone(),
                            place: OpPlace { seq, index },
                            end: None,
                        };
                        if fates.courses.insert(op.id, course).is_some() {
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
                    for cancelled in &planned.cancelled {
                        fates.end(&cancelled.ops, cancelled_as(cancelled.reason))?;
                    }
                }
                Meta::Control(Control::Decided(decisions) | Control::PersonActed(_, decisions)) => {
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
            Decision::Cancelled(cancelled) => {
                self.end(&cancelled.ops, cancelled_as(cancelled.reason))
            }
            _ => Ok(()),
        }
    }

    fn end(&mut self, ops: &[PlannedOp], end: &'static str) -> Result<(), Fault> {
        for op in ops {
            let Some(course) = self.courses.get_mut(&op.id) else {
                return Err(Fault::Broken(format!(
                    "op {} ended as {end}, but is not in the log",
                    op.id
                )));
            };
            if let Some(before) = course.end.replace(end) {
                return Err(Fault::Broken(format!(
                    "the op at {} of {} ended twice: as {before}, then as {end}",
                    course.place, course.key
                )));
            }
        }
        Ok(())
    }

    /// Checks that the tail has exactly the ops that have not ended.
    pub(super) fn check_tail(&self, book: &Book) -> Result<(), Fault> {
        let tail = book.snapshot()?.tail(book.schema())?;
        for (id, course) in &self.courses {
            if course.end.is_none() != tail.place_of(id).is_some() {
                let state = course.end.unwrap_or("open");
                return Err(Fault::Broken(format!(
                    "the op at {} of {} is {state}, which the tail does not show",
                    course.place, course.key
                )));
            }
        }
        Ok(())
    }

    /// Returns the places of a record's ops, oldest first.
    pub(super) fn places(&self, key: &RecordKey) -> Vec<OpPlace> {
        let mut places: Vec<_> = self
            .courses
            .values()
            .filter(|course| course.key == *key)
            .map(|course| course.place)
            .collect();
        places.sort_unstable();
        places
    }

    /// Returns the fates of a record's ops, oldest first.
    pub(super) fn of(&self, key: &RecordKey, dead: impl Fn(OpPlace) -> bool) -> Vec<&'static str> {
        let mut courses: Vec<_> =
            self.courses.values().filter(|course| course.key == *key).collect();
        courses.sort_by_key(|course| course.place);
        let fate = |course: &Course| {
            course.end.unwrap_or(if dead(course.place) { "dead" } else { "open" })
        };
        courses.into_iter().map(fate).collect()
    }

    /// Returns how many entries the log has, without those that say something of the device only.
    pub(super) const fn entries(&self) -> u64 {
        self.entries
    }
}

const fn cancelled_as(reason: CancelledReason) -> &'static str {
    match reason {
        CancelledReason::CreatedAndDeleted => "cancelled: created_and_deleted",
        CancelledReason::Undone => "cancelled: undone",
        CancelledReason::NoEffect => "cancelled: no_effect",
        CancelledReason::LocalOnly => "cancelled: local_only",
        CancelledReason::AlreadyApplied => "cancelled: already_applied",
    }
}
