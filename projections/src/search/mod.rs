//! Search: the words of the records, folded when somebody searches.
//!
//! ```text
//!   log after the mark ─► touched records ─► their words ─┐
//!   all records, for a new rule ─► their words in order ──┴─► a part ─► dictionary with postings
//!   asked words ─► dictionary ─► postings, without touched records ┐
//!   touched records ─► their words ────────────────────────────────┴─► records with their points
//! ```
//!
//! Records have numbers here, in the order in which they were folded. The dictionary is cut into
//! blocks of neighbouring words, and a word's postings stand beside it. Only those of a frequent
//! word have rows of their own. So a part of the fold changes each block once, however many of its
//! words it meets. For a new rule the words of all records are taken apart first, and written in the
//! order of words after that: so each block is written once.
//!
//! Invariants:
//! 1. A search finds what the app reads in the same snapshot, however far the mark is behind: the
//!    records that entries after the mark touched are looked through, and their postings are not.
//! 2. The mark and the words move in one commit.
//! 3. Words of another rule, version or Unicode are never used: they are dropped, and folded anew
//!    from the records. So are the words if every record can have changed: another server was
//!    accepted, or read to its end.
//! 4. No write of the app touches these tables. A part is read from a snapshot, before the writer's
//!    turn: within it the part is only written.
//! 5. The postings are exactly the words of the records that were folded. Numbers depend on the
//!    order of folds, answers do not. `check` compares.
//!
//! `gather` reads a part, `fold` writes it, `find` reads the tables. `fieldbook_core::search` says
//! what is found.

mod block;
mod check;
mod dictionary;
mod find;
mod fold;
mod gather;
mod ids;
mod packed;
mod points;

use std::collections::BTreeMap;

use fieldbook_core::log::StoreError;
use fieldbook_core::search::{FieldWord, SearchRule};
use fieldbook_core::{EntityType, Seq};
use redb::TableDefinition;

pub use find::{Found, Lag};
pub use fold::{drop_search, fold_part};
pub use gather::Part;

use packed::{put_number, take_bytes, take_number};

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// The dictionary. Key: entity type, 0, a word that no word of the block comes before: its first
/// word when it was cut, and nothing for the first block. Value: a [`block::Block`].
const WORDS: Definition = TableDefinition::new("search-words-2");
/// The postings of words that have too many for the dictionary. Key: entity type, 0, word, 0, a
/// posting that none of the row comes before, as eight bytes. Value: a list of [`packed`].
const POSTINGS: Definition = TableDefinition::new("search-postings-2");
/// What each record has in the postings. Key: entity type, 0, record id. Value: its number, and for
/// each word the place of the field, the word and 0.
const RECORDS: Definition = TableDefinition::new("search-records-2");
/// The ids of records by their numbers. Key: entity type, 0, a 64th of the number, as eight bytes.
/// Value: the ids of these 64 numbers, each with its length before it.
const IDS: Definition = TableDefinition::new("search-ids-2");
/// How far the words are folded. Key: entity type. Value: [`State`].
const STATES: Definition = TableDefinition::new("search-states-2");
/// Of the former version of the tables, which are dropped.
const FORMER: [&str; 5] = [
    "search-postings-1",
    "search-words-1",
    "search-grams-1",
    "search-records-1",
    "search-states-1",
];

/// The entity types that are searched, with their rules.
pub type Searches = BTreeMap<EntityType, SearchRule>;

/// How far the words of an entity type are folded.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    /// Of the rule by which they were folded.
    digest: [u8; 16],
    /// The entry up to which they have what happened.
    mark: Seq,
    /// What comes next.
    next: Next,
    /// The number of the next record.
    number: u64,
    /// The first number from which on the order of numbers may differ from that of ids.
    ordered: u64,
    /// The id of the last number below `ordered`.
    greatest: String,
}

/// What is folded next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    /// The entries after the mark.
    Entries,
    /// All records after an id, for the first time.
    Records(String),
    /// The words after a word, of all records, for the first time.
    Words(String),
    /// The records after an id that the entry after the mark touched.
    RestOfEntry(String),
}

impl State {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.digest.to_vec();
        bytes.extend_from_slice(&self.mark.number().to_be_bytes());
        let (kind, after) = match &self.next {
            Next::Entries => (0, ""),
            Next::Records(after) => (1, after.as_str()),
            Next::RestOfEntry(after) => (2, after.as_str()),
            Next::Words(after) => (3, after.as_str()),
        };
        bytes.push(kind);
        packed::put_bytes(after.as_bytes(), &mut bytes);
        put_number(self.number, &mut bytes);
        put_number(self.ordered, &mut bytes);
        bytes.extend_from_slice(self.greatest.as_bytes());
        bytes
    }

    /// Reads a state. One that does not read is none, so the words are folded anew.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (digest, rest) = bytes.split_first_chunk()?;
        let (mark, rest) = rest.split_first_chunk()?;
        let (kind, mut rest) = rest.split_first()?;
        let after = String::from_utf8(take_bytes(&mut rest).ok()?.to_vec()).ok()?;
        let next = match kind {
            0 => Next::Entries,
            1 => Next::Records(after),
            2 => Next::RestOfEntry(after),
            3 => Next::Words(after),
            _ => return None,
        };
        let number = take_number(&mut rest).ok()?;
        let ordered = take_number(&mut rest).ok()?;
        let greatest = std::str::from_utf8(rest).ok()?.to_owned();
        let mark = Seq::new(u64::from_be_bytes(*mark));
        Some(Self { digest: *digest, mark, next, number, ordered, greatest })
    }

    /// Gives the next number to a record.
    fn number_for(&mut self, id: &str) -> u64 {
        let number = self.number;
        if self.ordered == number && (number == 0 || self.greatest.as_str() < id) {
            self.ordered += 1;
            id.clone_into(&mut self.greatest);
        }
        self.number += 1;
        number
    }

    /// Returns whether the words are those of a rule, of all records, up to the mark or up to a
    /// place behind it.
    fn is_whole(&self, rule: &SearchRule) -> bool {
        self.digest == rule.digest() && !matches!(self.next, Next::Records(_) | Next::Words(_))
    }
}

/// A row of [`RECORDS`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Folded {
    number: u64,
    words: Vec<FieldWord>,
}

impl Folded {
    /// Makes a row.
    fn row(number: u64, words: &[FieldWord]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        put_number(number, &mut bytes);
        for word in words {
            bytes.push(word.field);
            bytes.extend_from_slice(word.word.as_bytes());
            bytes.push(0);
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        let (number, mut words) = (take_number(&mut &*bytes)?, Vec::new());
        Self::each(bytes, |_, field, word| words.push(FieldWord { field, word: word.to_owned() }))?;
        Ok(Self { number, words })
    }

    /// Passes the words of a row to `read`, each with the record's number and the place of the
    /// field.
    fn each(mut bytes: &[u8], mut read: impl FnMut(u64, u8, &str)) -> Result<(), StoreError> {
        let number = take_number(&mut bytes)?;
        while let Some((field, rest)) = bytes.split_first() {
            let end = memchr::memchr(0, rest).ok_or_else(damaged)?;
            let (word, rest) = rest.split_at_checked(end).ok_or_else(damaged)?;
            read(number, *field, std::str::from_utf8(word).map_err(|_| damaged())?);
            bytes = rest.get(1..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Returns the bytes with which the keys of an entity type begin, and then these parts, each with a
/// 0 behind it.
fn prefix(entity: &EntityType, parts: &[&str]) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    for part in std::iter::once(&entity.as_str()).chain(parts) {
        key.extend_from_slice(part.as_bytes());
        key.push(0);
    }
    key
}

/// Returns a key that begins with the entity type and ends with these bytes.
fn key_of(entity: &EntityType, rest: &[u8]) -> Vec<u8> {
    let mut key = prefix(entity, &[]);
    key.extend_from_slice(rest);
    key
}

const fn damaged() -> StoreError {
    StoreError::Corrupt { what: "a row of the words for search", seq: None, source: None }
}

fn reading(error: redb::StorageError) -> StoreError {
    StoreError::during("reading the words for search")(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_back_and_anything_else_is_none() {
        let nexts = [
            Next::Entries,
            Next::Records(String::new()),
            Next::Records("lead-7".to_owned()),
            Next::Words("ann".to_owned()),
            Next::RestOfEntry("lead-7".to_owned()),
        ];
        for next in nexts {
            let (mark, greatest) = (Seq::new(9), "lead-9".to_owned());
            let state = State { digest: [3; 16], mark, next, number: 700, ordered: 300, greatest };
            assert_eq!(State::read(&state.to_bytes()), Some(state));
        }
        assert_eq!(State::read(&[1; 20]), None);
        assert_eq!(State::read(&[9; 26]), None);
    }

    #[test]
    fn numbers_are_in_the_order_of_ids_until_an_id_comes_late() {
        let (digest, mark) = ([0; 16], Seq::ZERO);
        let (next, greatest) = (Next::Entries, String::new());
        let mut state = State { digest, mark, next, number: 0, ordered: 0, greatest };
        let numbers: Vec<_> = ["b", "c", "a", "d"].map(|id| state.number_for(id)).into();
        assert_eq!(numbers, [0, 1, 2, 3]);
        assert_eq!(state.ordered, 2, "the rest has to be looked up");
    }
}
