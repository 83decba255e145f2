//! Comparing the words with the records.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook_core::log::StoreError;
use fieldbook_core::search::{FieldWord, SearchRule};
use fieldbook_core::{EntityType, RecordId, RecordKey};

use super::block::Block;
use super::find::{BytesTable, Lag};
use super::packed::{Posting, posting, read_list};
use super::{Folded, IDS, Next, POSTINGS, RECORDS, State, WORDS, damaged, ids, prefix, reading};
use crate::read::{Snapshot, id_of};
use crate::tables::after_prefix;

/// The postings of each word.
type Words = BTreeMap<String, BTreeSet<Posting>>;

impl Snapshot {
    /// Returns whether the words of an entity type are those of its records: each folded record has
    /// a number of its own, the postings are exactly the words of these records, and no row is left
    /// of any other word. A record that no entry after the mark touched has the words that the app
    /// reads.
    ///
    /// It reads all records of the type, and has all their words in memory.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn search_is_sound(
        &self,
        entity: &EntityType,
        rule: &SearchRule,
    ) -> Result<bool, StoreError> {
        let state = self.search_state(entity)?;
        let state = state.as_deref().and_then(State::read);
        let Some(state) = state.filter(|state| state.digest == rule.digest()) else {
            return Ok(true);
        };
        let folded = self.all_folded(entity)?;
        let numbers: BTreeMap<u64, String> =
            folded.iter().map(|(id, row)| (row.number, id.clone())).collect();
        let is_numbered = numbers.len() == folded.len()
            && numbers.keys().all(|number| *number < state.number)
            && numbers.range(..state.ordered).map(|(_, id)| id).is_sorted();
        let mut wanted = Words::new();
        for row in folded.values() {
            for FieldWord { field, word } in &row.words {
                wanted.entry(word.clone()).or_default().insert(posting(row.number, *field));
            }
        }
        // While all words are folded for the first time, those to come have no postings yet.
        match &state.next {
            Next::Records(_) => wanted.clear(),
            Next::Words(after) => wanted.retain(|word, _| word <= after),
            Next::Entries | Next::RestOfEntry(_) => {}
        }
        Ok(is_numbered
            && self.all_ids(entity)? == numbers
            && self.all_words(entity)? == Some(wanted)
            && self.are_read(entity, rule, &state, &folded)?)
    }

    /// Returns whether the folded words are those that the app reads, except those of records that
    /// entries after the mark touched.
    fn are_read(
        &self,
        entity: &EntityType,
        rule: &SearchRule,
        state: &State,
        folded: &BTreeMap<String, Folded>,
    ) -> Result<bool, StoreError> {
        if state.next != Next::Entries {
            return Ok(true);
        }
        let Lag::Near(touched) = self.search_lag(entity, rule)? else { return Ok(true) };
        let mut ids: BTreeSet<String> = folded.keys().cloned().collect();
        for row in self.records(entity, None)? {
            ids.insert(row?.0.as_str().to_owned());
        }
        for id in ids.iter().filter(|id| !touched.contains_key(*id)) {
            let id = RecordId::parse(id).map_err(|_| damaged())?;
            let read = self.words_of(&RecordKey::new(entity.clone(), id.clone()), rule)?;
            let has = folded.get(id.as_str()).map(|row| row.words.as_slice()).unwrap_or_default();
            if has != read {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Passes the rows of an entity type to `read`, each with the rest of its key.
    pub(super) fn each_search_row(
        &self,
        table: super::Definition,
        entity: &EntityType,
        mut read: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let Some(table): Option<BytesTable> = self.search_table(table)? else { return Ok(()) };
        let from = prefix(entity, &[]);
        let to = after_prefix(&from).unwrap_or_default();
        for row in table.range(from.as_slice()..to.as_slice()).map_err(reading)? {
            let (key, value) = row.map_err(reading)?;
            read(key.value().get(from.len()..).ok_or_else(damaged)?, value.value())?;
        }
        Ok(())
    }

    fn all_folded(&self, entity: &EntityType) -> Result<BTreeMap<String, Folded>, StoreError> {
        let mut folded = BTreeMap::new();
        self.each_search_row(RECORDS, entity, |id, row| {
            folded.insert(id_of(id, 0)?.to_owned(), Folded::read(row)?);
            Ok(())
        })?;
        Ok(folded)
    }

    fn all_ids(&self, entity: &EntityType) -> Result<BTreeMap<u64, String>, StoreError> {
        let mut ids = BTreeMap::new();
        self.each_search_row(IDS, entity, |row, stored| {
            let row = u64::from_be_bytes(row.try_into().map_err(|_| damaged())?);
            let of_row = (row * ids::ROW..).zip(ids::of_row(stored)?);
            ids.extend(of_row.filter(|(_, id)| !id.is_empty()));
            Ok(())
        })?;
        Ok(ids)
    }

    /// Returns the words with their postings; none if rows overlap, are in disorder, or belong to
    /// no word.
    fn all_words(&self, entity: &EntityType) -> Result<Option<Words>, StoreError> {
        let mut far = Words::new();
        let mut is_sound = true;
        self.each_search_row(POSTINGS, entity, |key, stored| {
            let end = key.iter().position(|byte| *byte == 0).ok_or_else(damaged)?;
            let word = std::str::from_utf8(key.get(..end).unwrap_or_default());
            let known = far.entry(word.map_err(|_| damaged())?.to_owned()).or_default();
            let mut postings = Vec::new();
            read_list(stored, &mut postings)?;
            let from = key.get(end + 1..).unwrap_or_default();
            is_sound &= postings.first().is_some_and(|it| it.to_be_bytes().as_slice() >= from);
            is_sound &= postings.first() > known.last();
            known.extend(postings);
            Ok(())
        })?;
        let mut words = Words::new();
        self.each_search_row(WORDS, entity, |begin, stored| {
            for (place, word) in Block::read(stored)?.words().enumerate() {
                let word = word?;
                is_sound &= place > 0 || word.text >= begin;
                let text = word.as_str()?;
                is_sound &= words.last_key_value().is_none_or(|(last, _)| last.as_str() < text);
                let postings = match word.near {
                    None => far.remove(text).unwrap_or_default(),
                    Some(list) => {
                        let mut postings = Vec::new();
                        read_list(list, &mut postings)?;
                        postings.into_iter().collect()
                    }
                };
                words.insert(text.to_owned(), postings);
            }
            Ok(())
        })?;
        Ok(Some(words).filter(|_| is_sound && far.is_empty()))
    }
}
