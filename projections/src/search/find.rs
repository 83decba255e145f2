//! Finding records by words.

use std::collections::{BTreeMap, HashMap};

use fieldbook_core::limits;
use fieldbook_core::log::StoreError;
use fieldbook_core::search::{FieldWord, Fit, SearchRule, is_near, mistakes_of};
use fieldbook_core::{EntityType, RecordId, RecordKey};
use redb::ReadOnlyTable;

use super::{GRAMS, POSTINGS, STATES, State, WORDS, damaged, grams, prefix, reading, word_key};
use crate::log_view::LogView;
use crate::read::Snapshot;
use crate::tables::after_prefix;
use crate::touched::touched;

type BytesTable = ReadOnlyTable<&'static [u8], &'static [u8]>;

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
        let Some(states) = self.search_table(STATES)? else { return Ok(Lag::Far) };
        let stored = states.get(entity.as_str().as_bytes()).map_err(reading)?;
        let state = stored.and_then(|stored| State::read(stored.value()));
        let head = self.last_seq()?;
        let Some(state) = state.filter(|state| {
            let is_whole = state.building.is_none() && state.digest == rule.digest();
            is_whole && state.mark <= head && head.since(state.mark) <= limits::SEARCH_LAG as u64
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
                    records.insert(key.id.as_str().to_owned(), self.words_of(key, rule)?);
                }
            }
            if records.len() > limits::SEARCH_LAG {
                return Ok(Lag::Far);
            }
        }
        Ok(Lag::Near(records))
    }

    /// Returns the words of a record; none if the app reads no such record.
    fn words_of(&self, key: &RecordKey, rule: &SearchRule) -> Result<Vec<FieldWord>, StoreError> {
        let words = self.record_as(key, |view| view.image.map(|image| rule.words_of(image)))?;
        let words = words.flatten().transpose();
        let damaged = |fault| StoreError::corrupt("stored fields", None, fault);
        Ok(words.map_err(damaged)?.unwrap_or_default())
    }

    /// Returns the records that have each of these words, with their points: most points first, and
    /// equal points in the order of ids. `touched` are the records after the mark.
    ///
    /// # Errors
    /// [`StoreError`] if a table cannot be read.
    pub fn search(
        &self,
        entity: &EntityType,
        rule: &SearchRule,
        asked: &[String],
        touched: &BTreeMap<String, Vec<FieldWord>>,
    ) -> Result<Vec<Found>, StoreError> {
        let tables = match (
            self.search_table(POSTINGS)?,
            self.search_table(WORDS)?,
            self.search_table(GRAMS)?,
        ) {
            (Some(postings), Some(words), Some(grams)) => Some((postings, words, grams)),
            _ => None,
        };
        let search = Searching { entity, rule, touched, tables };
        let mut all: Option<HashMap<String, u64>> = None;
        for word in asked {
            let mut hits = search.hits(word)?;
            if let Some(before) = all {
                hits.retain(|id, points| {
                    before.get(id).is_some_and(|others| {
                        *points += others;
                        true
                    })
                });
            }
            if hits.is_empty() {
                return Ok(Vec::new());
            }
            all = Some(hits);
        }
        let found = all.unwrap_or_default().into_iter().map(|(id, points)| {
            let id = RecordId::parse(&id).map_err(|_| damaged())?;
            Ok(Found { id, points })
        });
        let mut found = found.collect::<Result<Vec<_>, StoreError>>()?;
        found.sort_unstable_by(|one, other| {
            other.points.cmp(&one.points).then_with(|| one.id.cmp(&other.id))
        });
        Ok(found)
    }

    fn search_table(&self, table: super::Definition) -> Result<Option<BytesTable>, StoreError> {
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
    /// Postings, words and parts of words; none before the first fold.
    tables: Option<(BytesTable, BytesTable, BytesTable)>,
}

/// The records of one asked word, with the points of their best fit.
type Hits = HashMap<String, u64>;

impl Searching<'_> {
    /// Returns the records of a word. It tries the same word, a beginning and a part first. Only if
    /// these find no record, it tries words with mistakes.
    fn hits(&self, asked: &str) -> Result<Hits, StoreError> {
        let fit = |word: &str| Fit::of(asked, word);
        let mut hits = Hits::new();
        self.each_word(asked, |word| self.add(word, fit(word), &mut hits))?;
        self.each_part(asked, |word| match fit(word) {
            Some(Fit::Part) => self.add(word, Some(Fit::Part), &mut hits),
            _ => Ok(()),
        })?;
        self.add_touched(fit, &mut hits);
        let mistakes = mistakes_of(asked);
        if !hits.is_empty() || mistakes == 0 {
            return Ok(hits);
        }
        let letters: Vec<char> = asked.chars().collect();
        let first = letters.first().map(char::to_string).unwrap_or_default();
        for begin in [first.as_str(), ""] {
            let near = |word: &str| {
                let is_near = word.starts_with(begin) && is_near(&letters, word, mistakes);
                is_near.then_some(Fit::Mistake)
            };
            self.each_word(begin, |word| self.add(word, near(word), &mut hits))?;
            self.add_touched(near, &mut hits);
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
        read: impl FnMut(&str) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let Some((_, words, _)) = &self.tables else { return Ok(()) };
        let skip = prefix(self.entity, &[]).len();
        each_key(words, &word_key(self.entity, begin), skip, read)
    }

    /// Passes each word of the dictionary that may contain a text to `read`.
    fn each_part(
        &self,
        part: &str,
        read: impl FnMut(&str) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let Some((_, _, parts)) = &self.tables else { return Ok(()) };
        // Any of its grams will do. The longest in bytes is in the fewest words, more often than
        // not.
        let Some(gram) = grams(part).into_iter().max_by_key(String::len) else { return Ok(()) };
        let from = prefix(self.entity, &[&gram]);
        each_key(parts, &from, from.len(), read)
    }

    /// Adds the records that have a word, with the points of a fit. Records that were touched since
    /// are left out.
    fn add(&self, word: &str, fit: Option<Fit>, hits: &mut Hits) -> Result<(), StoreError> {
        let (Some((postings, ..)), Some(fit)) = (&self.tables, fit) else { return Ok(()) };
        let from = prefix(self.entity, &[word]);
        let to = after_prefix(&from).unwrap_or_default();
        for row in postings.range(from.as_slice()..to.as_slice()).map_err(reading)? {
            let (key, _) = row.map_err(reading)?;
            let posting = key.value().get(from.len()..).and_then(<[u8]>::split_first);
            let (field, id) = posting.ok_or_else(damaged)?;
            let id = std::str::from_utf8(id).map_err(|_| damaged())?;
            if !self.touched.contains_key(id) {
                self.hit(id, *field, fit, hits);
            }
        }
        Ok(())
    }

    fn add_touched(&self, fit: impl Fn(&str) -> Option<Fit>, hits: &mut Hits) {
        for (id, words) in self.touched {
            for FieldWord { field, word } in words {
                if let Some(fit) = fit(word) {
                    self.hit(id, *field, fit, hits);
                }
            }
        }
    }

    fn hit(&self, id: &str, field: u8, fit: Fit, hits: &mut Hits) {
        let points = fit.points() * self.rule.weight(field);
        match hits.get_mut(id) {
            Some(known) => *known = points.max(*known),
            None => drop(hits.insert(id.to_owned(), points)),
        }
    }
}

/// Passes the rest of each key that begins so to `read`, after `skip` bytes.
fn each_key(
    table: &BytesTable,
    from: &[u8],
    skip: usize,
    mut read: impl FnMut(&str) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let to = after_prefix(from).unwrap_or_default();
    for row in table.range(from..to.as_slice()).map_err(reading)? {
        let (key, _) = row.map_err(reading)?;
        let word = key.value().get(skip..).and_then(|word| std::str::from_utf8(word).ok());
        read(word.ok_or_else(damaged)?)?;
    }
    Ok(())
}
