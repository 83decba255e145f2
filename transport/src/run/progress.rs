//! Measures the progress of a run: a server that repeats the same answers must not keep it going
//! for ever.
//!
//! Invariants:
//! 1. A cursor that an earlier answer of this run had is no progress. So a circle of pages ends.
//! 2. Pages that move a cursor and bring no news are counted. A run accepts at most one fork.
//! 3. The run keeps eight bytes for each cursor of each page.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use fieldbook_core::limits;
use fieldbook_core::protocol::{ExchangeAnswer, ExchangeRequest};

use super::host::ExchangeCounts;

#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Hashes of the cursors in the answers of this run.
    places: HashSet<u64>,
    /// Pages in a row that brought nothing new.
    empty_pages: u32,
    has_forked: bool,
}

impl Progress {
    /// Records the cursors of an answer, and returns whether one of them is new to this run.
    pub(super) fn is_new_place(&mut self, answer: &ExchangeAnswer) -> bool {
        let ours = answer.cursors.iter().map(|(entity, cursor)| hash(&(entity.as_str(), cursor)));
        let foreign = answer
            .set_aside
            .cursors
            .iter()
            .map(|(entity, cursor)| hash(&(entity.as_str(), cursor)));
        let others = answer.others.iter().map(|cursor| hash(&("", cursor)));
        // The chain records all cursors, also those after the first new one.
        ours.chain(foreign).chain(others).filter(|place| self.places.insert(*place)).count() > 0
    }

    /// Records a fork, and returns whether this run had a fork before.
    pub(super) fn is_second_fork(&mut self, answer: &ExchangeAnswer) -> bool {
        answer.forked.is_some() && std::mem::replace(&mut self.has_forked, true)
    }

    pub(super) fn count(&mut self, taken: &ExchangeCounts) {
        let brought = taken.progressed() || taken.changes > 0 || taken.set_aside > 0;
        self.empty_pages = if brought { 0 } else { self.empty_pages.saturating_add(1) };
    }

    pub(super) const fn is_empty_for_long(&self) -> bool {
        self.empty_pages >= limits::EMPTY_PAGES
    }
}

/// Returns whether an answer reads on from the cursors of its request.
pub(super) fn moves_a_cursor(request: &ExchangeRequest, answer: &ExchangeAnswer) -> bool {
    if let Some(asked) = request.others.as_ref().filter(|asked| !asked.as_bytes().is_empty()) {
        // If one cursor covers all entity types, that cursor has to move.
        return answer.others.as_ref().is_some_and(|given| given != asked);
    }
    let ours =
        answer.cursors.iter().any(|(entity, cursor)| request.cursors.get(entity) != Some(cursor));
    let foreign = &answer.set_aside.cursors;
    ours || foreign
        .iter()
        .any(|(entity, cursor)| request.foreign_cursors.get(entity) != Some(cursor))
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
