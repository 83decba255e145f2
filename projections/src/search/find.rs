//! Finding records by words.

use std::collections::BTreeMap;

use fieldbook_core::limits;
use fieldbook_core::log::StoreError;
use fieldbook_core::search::{FieldWord, Fit, Near, PART_LETTERS, SearchRule, mistakes_of};
use fieldbook_core::{EntityType, RecordId, RecordKey};
use memchr::memmem::Finder;
use redb::ReadOnlyTable;

use super::block::{Block, Word};
use super::packed::{field_of, number_of, read_list};
use super::points::Hits;
use super::{Folded, IDS, POSTINGS, RECORDS, State, WORDS, damaged, ids, key_of, prefix, reading};
use crate::log_view::LogView;
use crate::read::Snapshot;
use crate::tables::after_prefix;
use crate::touched::touched;

pub(super) type BytesTable = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// A record that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The record.
    pub id: RecordId,
    /// Its points.
    pub points: u64,
}

/// How far the words are behind a snapshot.
#[derive(Debug)]
pub enum Lag {
    /// So far that they are folded first.
    Far,
    /// The records that were touched since, with the words that they have now.
    Near(BTreeMap<String, Vec<FieldWord>>),
}

impl Snapshot {
    /// Returns how far the words of an entity type are behind this snapshot.
    ///
    /// # Errors
    /// [`StoreError`] if a table or the log cannot be read.
    pub fn search_lag(&self, entity: &EntityType, rule: &SearchRule) -> Result<Lag, StoreError> {
        let state = self.search_state(entity)?;
        let head = self.last_seq()?;
        let Some(state) = state.as_deref().and_then(State::read).filter(|state| {
            state.is_whole(rule)
                && state.mark <= head
                && head.since(state.mark) <= limits::SEARCH_LAG as u64
        }) else {
            return Ok(Lag::Far);
        };
        let log = self.log()?;
        let (mut records, mut mark) = (BTreeMap::new(), state.mark);
        while mark < head {
            mark = mark.next();
            let entry = log.existing(mark)?;
            let touched = touched(&entry, &log)?;
            if touched.all {
                return Ok(Lag::Far);
            }
            for key in touched.keys.iter().filter(|key| key.entity == *entity) {
                if !records.contains_key(key.id.as_str()) {
                    if records.len() >= limits::SEARCH_LAG {
                        return Ok(Lag::Far);
                    }
                    records.insert(key.id.as_str().to_owned(), self.words_of(key, rule)?);
                }
            }
        }
        Ok(Lag::Near(records))
    }

    /// Returns the words of a record; none if the app reads no such record.
    pub(super) fn words_of(
        &self,
        key: &RecordKey,
        rule: &SearchRule,
    ) -> Result<Vec<FieldWord>, StoreError> {
        let words = self.record_as(key, |view| view.image.map(|image| rule.words_of(image)))?;
        let words = words.flatten().transpose();
        let damaged = |fault| StoreError::corrupt("stored fields", None, fault);
        Ok(words.map_err(damaged)?.unwrap_or_default())
    }

    /// Returns at most `limit` of the records that have each of these words, with their points:
    /// most points first, and equal points in the order of ids. `touched` are the records after the
    /// mark.
    ///
    /// # Errors
    /// [`StoreError`] if a table cannot be read.
    pub fn search(
        &self,
        entity: &EntityType,
        rule: &SearchRule,
        asked: &[String],
        touched: &BTreeMap<String, Vec<FieldWord>>,
        limit: usize,
    ) -> Result<Vec<Found>, StoreError> {
        let tables = match (self.search_table(WORDS)?, self.search_table(POSTINGS)?) {
            (Some(words), Some(postings)) => Some((words, postings)),
            _ => None,
        };
        let without = self.numbers_of(entity, touched.keys())?;
        let search = Searching { entity, rule, touched, tables, without };
        let mut all: Option<Hits<'_>> = None;
        for word in asked {
            let mut hits = search.hits(word)?;
            if let Some(before) = all {
                hits.and(&before);
            }
            if hits.is_empty() {
                return Ok(Vec::new());
            }
            all = Some(hits);
        }
        self.best(entity, all.unwrap_or_default(), limit)
    }

    /// Returns the best hits, in their order.
    fn best(
        &self,
        entity: &EntityType,
        hits: Hits<'_>,
        limit: usize,
    ) -> Result<Vec<Found>, StoreError> {
        let state = self.search_state(entity)?;
        let ordered = state.as_deref().and_then(State::read).map_or(0, |state| state.ordered);
        let (folded, touched) = hits.best(limit, ordered);
        let mut found = Vec::with_capacity(folded.len() + touched.len());
        if !folded.is_empty() {
            let table = self.search_table(IDS)?.ok_or_else(damaged)?;
            let ids = ids::of_numbers(&table, entity, folded.iter().map(|(number, _)| *number))?;
            let points = folded.iter().map(|(_, points)| *points);
            found.extend(ids.into_iter().zip(points).map(|(id, points)| Found { id, points }));
        }
        for (id, points) in touched {
            let id = RecordId::parse(id).map_err(|_| damaged())?;
            found.push(Found { id, points });
        }
        found.sort_unstable_by(|one, other| {
            other.points.cmp(&one.points).then_with(|| one.id.cmp(&other.id))
        });
        found.truncate(limit);
        Ok(found)
    }

    /// Returns the numbers of those of these records that have one, ascending.
    fn numbers_of<'i>(
        &self,
        entity: &EntityType,
        ids: impl Iterator<Item = &'i String>,
    ) -> Result<Vec<u64>, StoreError> {
        let Some(records) = self.search_table(RECORDS)? else { return Ok(Vec::new()) };
        let mut numbers = Vec::new();
        for id in ids {
            let stored = records.get(key_of(entity, id.as_bytes()).as_slice()).map_err(reading)?;
            if let Some(stored) = stored {
                numbers.push(Folded::read(stored.value())?.number);
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub(super) fn search_table(
        &self,
        table: super::Definition,
    ) -> Result<Option<BytesTable>, StoreError> {
        match self.transaction.open_table(table) {
            Ok(table) => Ok(Some(table)),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(StoreError::during("opening a table")(error)),
        }
    }
}

/// A search in one snapshot.
struct Searching<'s> {
    entity: &'s EntityType,
    rule: &'s SearchRule,
    touched: &'s BTreeMap<String, Vec<FieldWord>>,
    /// The dictionary and the postings of frequent words; none before the first fold.
    tables: Option<(BytesTable, BytesTable)>,
    /// The numbers of touched records.
    without: Vec<u64>,
}

impl<'s> Searching<'s> {
    /// Returns the records of a word. It tries the same word, a beginning and a part first. Only if
    /// these find no record, it tries words with mistakes.
    fn hits(&self, asked: &str) -> Result<Hits<'s>, StoreError> {
        let (mut hits, fit) = (Hits::default(), |word: &str| Fit::of(asked, word));
        if asked.chars().nth(PART_LETTERS - 1).is_some() {
            let finder = Finder::new(asked);
            self.each_block("", |block| {
                block.words_with(&finder, |word| self.add(word, fit(word.as_str()?), &mut hits))
            })?;
        } else {
            self.each_word(asked, |word| self.add(word, fit(word.as_str()?), &mut hits))?;
        }
        self.add_touched(fit, &mut hits);
        hits.settle(&self.without);
        let mistakes = mistakes_of(asked);
        if !hits.is_empty() || mistakes == 0 {
            return Ok(hits);
        }
        let mut near = Near::new(asked, mistakes);
        let first = asked.chars().next().map(String::from).unwrap_or_default();
        for begin in [first.as_str(), ""] {
            let mut fit = |word: &str| {
                (word.starts_with(begin) && near.is_near(word)).then_some(Fit::Mistake)
            };
            self.each_word(begin, |word| {
                let fit = fit(word.as_str()?);
                self.add(word, fit, &mut hits)
            })?;
            self.add_touched(fit, &mut hits);
            hits.settle(&self.without);
            if !hits.is_empty() {
                break;
            }
        }
        Ok(hits)
    }

    /// Passes each word of the dictionary that begins so to `read`.
    fn each_word(
        &self,
        begin: &str,
        mut read: impl FnMut(Word<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.each_block(begin, |block| {
            for word in block.words() {
                let word = word?;
                if word.text.starts_with(begin.as_bytes()) {
                    read(word)?;
                }
            }
            Ok(())
        })
    }

    /// Passes each block that can have words that begin so to `read`.
    fn each_block(
        &self,
        begin: &str,
        mut read: impl FnMut(Block<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let Some((words, _)) = &self.tables else { return Ok(()) };
        let (all, key) = (prefix(self.entity, &[]), key_of(self.entity, begin.as_bytes()));
        let to = after_prefix(&key).unwrap_or_default();
        // The words that begin so may begin within a block that begins before them.
        let before = words.range(all.as_slice()..=key.as_slice()).map_err(reading)?.next_back();
        let from = match before.transpose().map_err(reading)? {
            Some((key, _)) => key.value().to_vec(),
            None => key,
        };
        for row in words.range(from.as_slice()..to.as_slice()).map_err(reading)? {
            let (_, stored) = row.map_err(reading)?;
            read(Block::read(stored.value())?)?;
        }
        Ok(())
    }

    /// Adds the records that have a word, with the points of a fit.
    fn add(&self, word: Word<'_>, fit: Option<Fit>, hits: &mut Hits<'s>) -> Result<(), StoreError> {
        let (Some((_, table)), Some(fit)) = (&self.tables, fit) else { return Ok(()) };
        let mut postings = Vec::new();
        if let Some(list) = word.near {
            read_list(list, &mut postings)?;
        } else {
            let from = prefix(self.entity, &[word.as_str()?]);
            let to = after_prefix(&from).unwrap_or_default();
            for row in table.range(from.as_slice()..to.as_slice()).map_err(reading)? {
                read_list(row.map_err(reading)?.1.value(), &mut postings)?;
            }
        }
        for posting in postings {
            let points = fit.points() * self.rule.weight(field_of(posting));
            hits.add_folded(number_of(posting), points);
        }
        Ok(())
    }

    fn add_touched(&self, mut fit: impl FnMut(&str) -> Option<Fit>, hits: &mut Hits<'s>) {
        for (id, words) in self.touched {
            for FieldWord { field, word } in words {
                if let Some(fit) = fit(word) {
                    hits.add_touched(id, fit.points() * self.rule.weight(*field));
                }
            }
        }
    }
}
