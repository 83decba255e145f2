//! The window of a live list: which changes of a commit can change what it shows.
//!
//! Invariants:
//! 1. A commit that changes a row of the window, its order or its end touches the window.
//! 2. A commit of other entity types, or of records whose keys are outside the window before and
//!    after it, does not touch it.
//!
//! What it does not do: say what changed. The list is read again for that.

use std::collections::BTreeSet;

use crate::names::{EntityType, RecordId, RecordKey};

/// What a live list shows of an index: a range of keys, and the records in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    entity: EntityType,
    /// The first key of the range, and the first key after it.
    keys: (Vec<u8>, Vec<u8>),
    /// The records of the rows, and of the row that follows them.
    records: BTreeSet<RecordId>,
    /// Whether a record can come into the list without a new key.
    is_rough: bool,
}

/// The changes of a commit, as far as a window asks for them.
#[derive(Debug, Clone, Copy)]
pub struct Turn<'c> {
    /// The records that changed. One may be named several times.
    pub records: &'c [RecordKey],
    /// The keys that records have in their indexes and did not have before; `None` if they are not
    /// known.
    pub new_keys: Option<&'c [Vec<u8>]>,
}

impl Window {
    /// Makes a window that shows nothing yet. `is_rough` is true if the list compares more than the
    /// keys ([`super::Span::is_rough`]).
    pub const fn new(entity: EntityType, keys: (Vec<u8>, Vec<u8>), is_rough: bool) -> Self {
        Self { entity, keys, records: BTreeSet::new(), is_rough }
    }

    /// Adds the record of a row, or of the row that follows the last one.
    pub fn add(&mut self, id: RecordId) {
        self.records.insert(id);
    }

    /// Ends the window at a key. In a reversed list the window begins there.
    pub fn end_at(&mut self, key: &[u8], reversed: bool) {
        if reversed {
            self.keys.0 = key.to_vec();
        } else {
            // The key itself is in the window: it is that of a record that was added.
            self.keys.1 = [key, &[0]].concat();
        }
    }

    /// Returns whether a commit can change what the window shows.
    pub fn is_touched(&self, turn: &Turn<'_>) -> bool {
        let of_type = |key: &&RecordKey| key.entity == self.entity;
        let mut records = turn.records.iter().filter(of_type);
        let Some(new_keys) = turn.new_keys.filter(|_| !self.is_rough) else {
            return records.next().is_some();
        };
        let (from, to) = (self.keys.0.as_slice(), self.keys.1.as_slice());
        records.any(|key| self.records.contains(&key.id))
            || new_keys.iter().any(|key| (from..to).contains(&key.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> RecordKey {
        text.parse().unwrap()
    }

    fn window(is_rough: bool) -> Window {
        let keys = (b"b".to_vec(), b"x".to_vec());
        let mut window = Window::new(key("lead/1").entity, keys, is_rough);
        window.add(key("lead/1").id);
        window
    }

    fn touched(window: &Window, record: &str, new_keys: Option<&[&str]>) -> bool {
        let keys = new_keys.map(|keys| keys.iter().map(|key| key.as_bytes().to_vec()).collect());
        let keys: Option<Vec<Vec<u8>>> = keys;
        window.is_touched(&Turn { records: &[key(record)], new_keys: keys.as_deref() })
    }

    #[test]
    fn a_window_is_touched_by_its_records_and_by_new_keys_in_it() {
        let window = window(false);
        assert!(touched(&window, "lead/1", Some(&[])), "a record that is shown");
        assert!(touched(&window, "lead/2", Some(&["a", "b"])), "a record that comes in");
        assert!(touched(&window, "lead/2", None), "a record that may have come in");
        for (record, new_keys) in [("lead/2", Some([].as_slice())), ("note/1", Some(&["a", "x"]))] {
            assert!(!touched(&window, record, new_keys), "{record}");
        }
        assert!(!touched(&window, "note/1", None), "a record of another type");
    }

    #[test]
    fn a_window_ends_at_the_row_that_follows_its_last_one() {
        for (reversed, inside, outside) in [(false, "f", "f-"), (true, "f", "e")] {
            let mut window = window(false);
            window.end_at(b"f", reversed);
            assert!(touched(&window, "lead/2", Some(&[inside])));
            assert!(!touched(&window, "lead/2", Some(&[outside])));
        }
    }

    #[test]
    fn a_list_that_compares_more_than_keys_is_touched_by_every_record_of_its_type() {
        assert!(touched(&window(true), "lead/2", Some(&[])));
        assert!(!touched(&window(true), "note/1", Some(&[])));
    }
}
