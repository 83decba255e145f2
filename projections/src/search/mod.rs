//! Search: the words of the records, folded when somebody searches.
//!
//! ```text
//!   log after the mark ─► touched records ─► their words ─┐
//!   all records, for a new rule ─► their words ───────────┴─► postings, dictionary, parts of words
//!   asked words ─► dictionary ─► postings, without touched records ┐
//!   touched records ─► their words ────────────────────────────────┴─► records with their points
//! ```
//!
//! Invariants:
//! 1. A search finds what the app reads in the same snapshot, however far the mark is behind: the
//!    records that entries after the mark touched are looked through, and their postings are not.
//! 2. The mark and the words move in one commit.
//! 3. Words of another rule, version or Unicode are never used: they are dropped, and folded anew
//!    from the records. So are the words if every record can have changed: another server was
//!    accepted, or read to its end.
//! 4. No write of the app touches these tables.
//!
//! `fold` writes the tables, `find` reads them. `fieldbook_core::search` says what is found.

mod find;
mod fold;

use std::collections::BTreeMap;

use fieldbook_core::log::StoreError;
use fieldbook_core::search::{PART_LETTERS, SearchRule};
use fieldbook_core::{EntityType, Seq};
use redb::TableDefinition;

pub use find::{Found, Lag};
pub use fold::{drop_search, fold_search};

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// The words of records. Key: entity type, 0, word, 0, place of the field, record id. Value:
/// nothing.
const POSTINGS: Definition = TableDefinition::new("search-postings-1");
/// The words that have postings. Key: entity type, 0, word. Value: nothing.
const WORDS: Definition = TableDefinition::new("search-words-1");
/// The words of [`WORDS`] by each three letters in a row. Key: entity type, 0, three letters, 0,
/// word. Value: nothing.
const GRAMS: Definition = TableDefinition::new("search-grams-1");
/// What each record has in [`POSTINGS`]. Key: entity type, 0, record id. Value: for each word the
/// place of the field, the word and 0.
const RECORDS: Definition = TableDefinition::new("search-records-1");
/// How far the words are folded. Key: entity type. Value: [`State`].
const STATES: Definition = TableDefinition::new("search-states-1");

/// The entity types that are searched, with their rules.
pub type Searches = BTreeMap<EntityType, SearchRule>;

/// How far the words of an entity type are folded.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    /// Of the rule by which they were folded.
    digest: [u8; 16],
    /// The entry up to which they have what happened.
    mark: Seq,
    /// The id after which records are still to be read for the first time; `None` after the last.
    building: Option<String>,
}

impl State {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.digest.to_vec();
        bytes.extend_from_slice(&self.mark.number().to_be_bytes());
        if let Some(after) = &self.building {
            bytes.push(1);
            bytes.extend_from_slice(after.as_bytes());
        }
        bytes
    }

    /// Reads a state. One that does not read is none, so the words are folded anew.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (digest, rest) = bytes.split_first_chunk()?;
        let (mark, rest) = rest.split_first_chunk()?;
        let building = match rest.split_first() {
            None => None,
            Some((1, after)) => Some(std::str::from_utf8(after).ok()?.to_owned()),
            Some(_) => return None,
        };
        let mark = Seq::new(u64::from_be_bytes(*mark));
        Some(Self { digest: *digest, mark, building })
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

/// Returns the key of a word in [`WORDS`]. All words that begin so have keys that begin so.
fn word_key(entity: &EntityType, word: &str) -> Vec<u8> {
    [prefix(entity, &[]).as_slice(), word.as_bytes()].concat()
}

/// Returns each three letters in a row of a word, each once.
fn grams(word: &str) -> Vec<String> {
    let letters: Vec<char> = word.chars().collect();
    let mut grams: Vec<String> =
        letters.windows(PART_LETTERS).map(|gram| gram.iter().collect()).collect();
    grams.sort_unstable();
    grams.dedup();
    grams
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
        for building in [None, Some(String::new()), Some("lead-7".to_owned())] {
            let state = State { digest: [3; 16], mark: Seq::new(9), building };
            assert_eq!(State::read(&state.to_bytes()), Some(state));
        }
        assert_eq!(State::read(&[1; 20]), None);
        assert_eq!(State::read(&[2; 26]), None);
    }

    #[test]
    fn a_word_has_each_three_letters_once() {
        assert_eq!(grams("banana"), ["ana", "ban", "nan"]);
        assert!(grams("ab").is_empty());
    }
}
