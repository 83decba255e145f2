//! Makes a deletion wait for earlier ops that refer to its record, or that remove a reference to
//! it.
//!
//! A server that checks references refuses to delete a record that others refer to, and refuses a
//! reference to a deleted record. So a deletion is sent after all these ops, in the same request or
//! a later one, whatever delays them: a backoff, a park, an undo window, the network, another
//! actor.
//!
//! | an earlier op that refers to the record | delays the deletion |
//! |---|---|
//! | waits, or is unanswered | yes, unless it is before the deletion in the same request |
//! | never leaves the device | no |
//! | is of a record that leaves in the same unit | no: the server applies the unit as a whole |
//! | is a dead letter, or waits for a dead creation | only while the server's record still refers to the record to delete |
//!
//! In the last case a person can act: retry the dead letter, correct it or discard it. A dead
//! letter that would only *set* a reference does not delay a deletion: the server has no such
//! reference, and perhaps nobody ever sends it again.
//!
//! Invariants:
//! 1. These waits are for earlier ops only, so they never form a circle. A run that would end in a
//!    deletion is cut before it if an op that refers to the record was made within the run.
//! 2. The cost is the number of ops that refer to the deleted record. The tail is not searched.

use super::{Group, Planning};
use crate::names::RecordKey;
use crate::op::{OpKind, OpPlace};
use crate::rows::TailRow;
use crate::tail::TailUnit;

impl Planning<'_> {
    /// Returns a record that a group of new ops has to wait for. The group deletes a record to
    /// which the returned record refers.
    pub(super) fn deletes_too_early(&self, group: &Group) -> Option<RecordKey> {
        if !self.heeds_references {
            return None;
        }
        let goes_along = |key: &RecordKey| group.records.iter().any(|(known, _)| known == key);
        group.records.iter().find_map(|(key, places)| {
            let (first, last) = (self.row(*places.first()?)?, *places.last()?);
            // A record that is created and deleted in one change never was at the server.
            let deletes = self.row(last)?.kind == OpKind::Delete && first.kind != OpKind::Create;
            if deletes { self.awaited(key, last, goes_along) } else { None }
        })
    }

    /// Returns the record that an unanswered unit has to wait for before it is sent again: ops
    /// planned before the unit may have come back stale, or may be tried later than the unit.
    pub(super) fn is_sent_too_early(&self, unit: &TailUnit) -> Option<RecordKey> {
        let first = *unit.ops.iter().min().filter(|_| self.heeds_references)?;
        let last_of = |key: &RecordKey| {
            unit.ops.iter().rev().filter_map(|place| self.row(*place)).find(|row| row.key == *key)
        };
        let deleted = unit
            .records
            .iter()
            .filter(|key| last_of(key).is_some_and(|row| row.kind == OpKind::Delete));
        deleted
            .into_iter()
            .find_map(|key| self.awaited(key, first, |known| unit.records.contains(known)))
    }

    /// Returns the first record with an op, made before a place, that refers to a record or removes
    /// a reference to it, and is not sent before it.
    pub(super) fn awaited(
        &self,
        key: &RecordKey,
        place: OpPlace,
        goes_along: impl Fn(&RecordKey) -> bool,
    ) -> Option<RecordKey> {
        let mut earlier = self.referring(key, place).filter(|place| !self.going.contains(place));
        let awaited = earlier.find(|place| self.holds_up(key, *place, &goes_along))?;
        self.row(awaited).map(|row| row.key.clone())
    }

    /// Returns whether an op that refers to a record was made between two places, so that the ops
    /// before it and the deletion after it cannot be one change.
    pub(super) fn is_referred_to_between(
        &self,
        key: &RecordKey,
        first: OpPlace,
        last: OpPlace,
    ) -> bool {
        self.heeds_references
            && self
                .referring(key, last)
                .any(|place| place > first && self.holds_up(key, place, &|known| known == key))
    }

    pub(super) fn referring(
        &self,
        key: &RecordKey,
        place: OpPlace,
    ) -> impl Iterator<Item = OpPlace> {
        self.input.tail.referring_before(key, place)
    }

    fn holds_up(
        &self,
        key: &RecordKey,
        place: OpPlace,
        goes_along: &impl Fn(&RecordKey) -> bool,
    ) -> bool {
        let Some(row) = self.row(place) else { return false };
        let is_together = self.together_with(place, row).any(goes_along);
        if is_together || goes_along(&row.key) || self.stays_here(row) {
            return false;
        }
        let waits_for_a_person = self.input.tail.is_dead(place) || self.has_dead_create(&row.key);
        !waits_for_a_person || self.input.inspect.refers(&row.key, key)
    }

    fn stays_here(&self, row: &TailRow) -> bool {
        self.input.schema.rules(&row.key.entity).is_none_or(|rules| rules.local_only)
    }

    fn row(&self, place: OpPlace) -> Option<&TailRow> {
        self.input.tail.op(place)
    }
}
