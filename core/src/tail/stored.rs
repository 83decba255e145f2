//! The part of a tail that is not in memory, and what one question has read of it.
//!
//! Invariants:
//! 1. What is read once is kept until the question is over. So a question finds the same each time,
//!    and rows are lent, not copied.
//! 2. A reading that fails finds nothing, and the fault is kept ([`Reading::fault`]). Whoever acts
//!    on an answer looks for a fault first.
//!
//! What it is not: a cache of the book. A question that is over keeps nothing.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use foldhash::HashMap;

use crate::ids::OpId;
use crate::names::RecordKey;
use crate::numbers::Seq;
use crate::op::OpPlace;
use crate::rows::TailRow;

/// Why the stored part of a tail could not be read.
pub type TailFault = Box<dyn Error + Send + Sync>;

/// The stored part of a tail. All of it is of one moment.
///
/// # Errors
/// Each function returns a [`TailFault`] if the storage cannot be read.
#[expect(clippy::missing_errors_doc, reason = "the trait's own words say it for all")]
pub trait StoredTail: fmt::Debug + Send + Sync {
    /// Returns an op.
    fn op(&self, place: OpPlace) -> Result<Option<TailRow>, TailFault>;

    /// Returns at most `most` ops, oldest first, from a place on.
    fn ops_from(&self, place: OpPlace, most: usize) -> Result<Vec<(OpPlace, TailRow)>, TailFault>;

    /// Returns the ops of one entry, in order.
    fn ops_of_entry(&self, seq: Seq) -> Result<Vec<(OpPlace, TailRow)>, TailFault>;

    /// Returns the ops of a record, oldest first, and whether each is a dead letter. Those in
    /// memory are among them.
    fn ops_of(&self, key: &RecordKey) -> Result<Vec<(OpPlace, bool)>, TailFault>;

    /// Returns the ops that refer to a record, or that remove a reference to it, oldest first, and
    /// whether each removes one.
    fn referring(&self, key: &RecordKey) -> Result<Vec<(OpPlace, bool)>, TailFault>;

    /// Returns whether any op refers to a record, or removes a reference.
    fn has_references(&self) -> Result<bool, TailFault>;

    /// Returns the place of an op. Those in memory are among them.
    fn place_of(&self, op: &OpId) -> Result<Option<OpPlace>, TailFault>;

    /// Returns the number of dead letters.
    fn dead_letters(&self) -> Result<u64, TailFault>;
}

/// Places with a mark each.
type Marked = Arc<Vec<(OpPlace, bool)>>;

/// The ops of a record, oldest first, and those of them that are dead letters.
#[derive(Debug, Default)]
pub(super) struct OpsOf {
    pub(super) places: Vec<OpPlace>,
    dead: BTreeSet<OpPlace>,
}

impl OpsOf {
    pub(super) fn is_dead(&self, place: OpPlace) -> bool {
        self.dead.contains(&place)
    }
}

/// What one question has read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    rows: Lent<TailRow>,
    places: RefCell<HashMap<OpPlace, Option<usize>>>,
    entries: RefCell<HashMap<Seq, Arc<Vec<OpPlace>>>>,
    records: RefCell<HashMap<RecordKey, Arc<OpsOf>>>,
    referring: RefCell<HashMap<RecordKey, Marked>>,
    has_references: OnceCell<bool>,
    fault: RefCell<Option<TailFault>>,
}

impl Reading {
    pub(super) fn op(&self, stored: &dyn StoredTail, place: OpPlace) -> Option<&TailRow> {
        let known = self.places.borrow().get(&place).copied();
        let at = match known {
            Some(at) => at,
            None => {
                let at = self.sound(stored.op(place)).flatten().map(|row| self.rows.keep(row));
                self.places.borrow_mut().insert(place, at);
                at
            }
        };
        self.rows.get(at?)
    }

    /// Reads ops from a place on, and returns their places.
    pub(super) fn ops_from(
        &self,
        stored: &dyn StoredTail,
        place: OpPlace,
        most: usize,
    ) -> Vec<OpPlace> {
        self.keep(self.sound(stored.ops_from(place, most)).unwrap_or_default())
    }

    pub(super) fn ops_of_entry(&self, stored: &dyn StoredTail, seq: Seq) -> Arc<Vec<OpPlace>> {
        if let Some(known) = self.entries.borrow().get(&seq) {
            return Arc::clone(known);
        }
        let read = self.sound(stored.ops_of_entry(seq)).unwrap_or_default();
        let read = Arc::new(self.keep(read));
        self.entries.borrow_mut().insert(seq, Arc::clone(&read));
        read
    }

    pub(super) fn ops_of(&self, stored: &dyn StoredTail, key: &RecordKey) -> Arc<OpsOf> {
        self.list(&self.records, key, || {
            let ops = stored.ops_of(key)?;
            let dead = ops.iter().filter(|(_, dead)| *dead).map(|(place, _)| *place).collect();
            Ok(OpsOf { places: ops.into_iter().map(|(place, _)| place).collect(), dead })
        })
    }

    pub(super) fn referring(&self, stored: &dyn StoredTail, key: &RecordKey) -> Marked {
        self.list(&self.referring, key, || stored.referring(key))
    }

    pub(super) fn has_references(&self, stored: &dyn StoredTail) -> bool {
        *self.has_references.get_or_init(|| self.sound(stored.has_references()).unwrap_or_default())
    }

    pub(super) fn place_of(&self, stored: &dyn StoredTail, op: &OpId) -> Option<OpPlace> {
        self.sound(stored.place_of(op)).flatten()
    }

    pub(super) fn dead_letters(&self, stored: &dyn StoredTail) -> u64 {
        self.sound(stored.dead_letters()).unwrap_or_default()
    }

    /// Returns the first fault, once.
    pub(super) fn fault(&self) -> Option<TailFault> {
        self.fault.borrow_mut().take()
    }

    /// Keeps a fault, if there is one, and returns whether there is none.
    pub(super) fn take_over(&self, fault: Option<TailFault>) -> bool {
        self.sound(fault.map_or(Ok(()), Err)).is_some()
    }

    fn sound<T>(&self, read: Result<T, TailFault>) -> Option<T> {
        read.map_err(|fault| {
            self.fault.borrow_mut().get_or_insert(fault);
        })
        .ok()
    }

    fn keep(&self, read: Vec<(OpPlace, TailRow)>) -> Vec<OpPlace> {
        let mut places = self.places.borrow_mut();
        let kept = read.into_iter().map(|(place, row)| {
            places.entry(place).or_insert_with(|| Some(self.rows.keep(row)));
            place
        });
        kept.collect()
    }

    fn list<T: Default>(
        &self,
        lists: &RefCell<HashMap<RecordKey, Arc<T>>>,
        key: &RecordKey,
        read: impl FnOnce() -> Result<T, TailFault>,
    ) -> Arc<T> {
        if let Some(known) = lists.borrow().get(key) {
            return Arc::clone(known);
        }
        let read = Arc::new(self.sound(read()).unwrap_or_default());
        lists.borrow_mut().insert(key.clone(), Arc::clone(&read));
        read
    }
}

/// Values that are lent as long as their keeper, while more are added: each part is allocated once
/// and is twice as long as the part before.
struct Lent<T> {
    parts: [OnceCell<Box<[OnceCell<T>]>>; PARTS],
    kept: Cell<usize>,
}

/// The number of parts. Their values together are more than any memory has.
const PARTS: usize = 32;

impl<T> Lent<T> {
    /// Keeps a value and returns its number.
    fn keep(&self, value: T) -> usize {
        let number = self.kept.get();
        self.kept.set(number.saturating_add(1));
        let (part, at) = place_of(number);
        let part = self.parts.get(part).map(|cell| {
            let length = 1_usize << part;
            cell.get_or_init(|| (0..length).map(|_| OnceCell::new()).collect())
        });
        if let Some(cell) = part.and_then(|part| part.get(at)) {
            // The cell is empty, because no number is given twice.
            drop(cell.set(value));
        }
        number
    }

    fn get(&self, number: usize) -> Option<&T> {
        let (part, at) = place_of(number);
        self.parts.get(part)?.get()?.get(at)?.get()
    }
}

/// Returns the part of a number, and the place in it.
const fn place_of(number: usize) -> (usize, usize) {
    let part = number.saturating_add(1).ilog2();
    (part as usize, number.saturating_add(1) - (1_usize << part))
}

impl<T> Default for Lent<T> {
    fn default() -> Self {
        Self { parts: std::array::from_fn(|_| OnceCell::new()), kept: Cell::default() }
    }
}

impl<T> fmt::Debug for Lent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lent({})", self.kept.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lent_stays_while_more_is_kept() {
        let lent = Lent::default();
        let first = lent.keep("0".to_owned());
        let kept = lent.get(first).unwrap();
        for number in 1..1_000 {
            assert_eq!(lent.keep(number.to_string()), number);
        }
        assert_eq!(kept, "0");
        assert!((0..1_000).all(|number| lent.get(number) == Some(&number.to_string())));
        assert_eq!(lent.get(1_000), None);
    }
}
