//! Reading the next part of the words from a snapshot, outside the writer's turn.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use fieldbook_core::log::StoreError;
use fieldbook_core::search::{FieldWord, SearchRule};
use fieldbook_core::{EntityType, RecordId, RecordKey, Seq};

use super::{Next, STATES, State, reading};
use crate::log_view::LogView;
use crate::read::Snapshot;
use crate::touched::touched;

/// The most records of one part, and the most words before the last of them. Writing a part needs
/// the writer for up to 50 ms.
const RECORDS_AT_ONCE: usize = 1_250;
const WORDS_AT_ONCE: usize = 15_000;

/// The next part of the words of an entity type, as a snapshot has it.
#[derive(Debug)]
pub struct Part {
    pub(super) entity: EntityType,
    /// The stored state that the part follows; none if there is none.
    pub(super) follows: Option<Vec<u8>>,
    pub(super) work: Work,
}

#[derive(Debug)]
pub(super) enum Work {
    /// The words are dropped, and those of all records are folded.
    Begin { digest: [u8; 16], mark: Seq },
    /// The words that records have in the snapshot, by their ids.
    Words { records: Vec<Words>, order: Vec<Place>, mark: Seq, next: Next },
}

/// The words of a record.
pub(super) type Words = (String, Vec<FieldWord>);

/// The place of a record in a part, and of a word among the words of the record.
pub(super) type Place = (usize, usize);

/// Returns the places of all words in the order of words, then records, then fields.
fn in_order(records: &[Words]) -> Vec<Place> {
    let places = records.iter().enumerate();
    let mut places: Vec<(&str, Place)> = places
        .flat_map(|(record, (_, words))| {
            let words = words.iter().enumerate();
            words.map(move |(at, word)| (word.word.as_str(), (record, at)))
        })
        .collect();
    places.sort_unstable();
    places.into_iter().map(|(_, place)| place).collect()
}

/// The records of a part.
#[derive(Default)]
struct Gathered {
    records: BTreeMap<String, Vec<FieldWord>>,
    words: usize,
}

impl Gathered {
    fn is_full(&self) -> bool {
        self.records.len() >= RECORDS_AT_ONCE || self.words >= WORDS_AT_ONCE
    }

    fn add(&mut self, id: &str, words: Vec<FieldWord>) {
        self.words += words.len();
        self.records.insert(id.to_owned(), words);
    }
}

impl Snapshot {
    /// Returns how far the words of an entity type are, as it is stored.
    pub(super) fn search_state(&self, entity: &EntityType) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(states) = self.search_table(STATES)? else { return Ok(None) };
        let stored = states.get(entity.as_str().as_bytes()).map_err(reading)?;
        Ok(stored.map(|stored| stored.value().to_vec()))
    }

    /// Reads the next part of the words of an entity type; none if they have all that this snapshot
    /// has.
    ///
    /// # Errors
    /// [`StoreError`] if a table or the log cannot be read.
    pub fn search_part(
        &self,
        entity: &EntityType,
        rule: &SearchRule,
    ) -> Result<Option<Part>, StoreError> {
        let follows = self.search_state(entity)?;
        let head = self.last_seq()?;
        let state = follows.as_deref().and_then(State::read);
        let state = state.filter(|state| state.digest == rule.digest() && state.mark <= head);
        let begin = Work::Begin { digest: rule.digest(), mark: head };
        let work = match state {
            None => begin,
            Some(State { next: Next::Records(after), mark, .. }) => {
                self.gather_records(entity, rule, &after, mark)?
            }
            Some(state) if state.mark >= head => return Ok(None),
            Some(state) => self.gather_touched(entity, rule, state, head)?.unwrap_or(begin),
        };
        Ok(Some(Part { entity: entity.clone(), follows, work }))
    }

    /// Gathers the next records of all.
    fn gather_records(
        &self,
        entity: &EntityType,
        rule: &SearchRule,
        after: &str,
        mark: Seq,
    ) -> Result<Work, StoreError> {
        let after = RecordId::parse(after).ok();
        let (mut records, mut words, mut fault) = (Vec::new(), 0, None);
        let mut next = Next::Entries;
        self.records_as(entity, after.as_ref(), |id, view| {
            match view.image.map_or_else(|| Ok(Vec::new()), |image| rule.words_of(image)) {
                Ok(found) => {
                    words += found.len();
                    records.push((id.to_owned(), found));
                }
                Err(error) => fault = Some(error),
            }
            if fault.is_some() {
                return ControlFlow::Break(());
            }
            if records.len() >= RECORDS_AT_ONCE || words >= WORDS_AT_ONCE {
                next = Next::Records(id.to_owned());
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        match fault {
            Some(fault) => Err(StoreError::corrupt("stored fields", None, fault)),
            None => Ok(Work::Words { order: in_order(&records), records, mark, next }),
        }
    }

    /// Gathers the records that the next entries touched; none if an entry can change every record.
    fn gather_touched(
        &self,
        entity: &EntityType,
        rule: &SearchRule,
        state: State,
        head: Seq,
    ) -> Result<Option<Work>, StoreError> {
        let log = self.log()?;
        let (mut mark, mut gathered) = (state.mark, Gathered::default());
        let mut after = match state.next {
            Next::RestOfEntry(after) => Some(after),
            Next::Entries | Next::Records(_) => None,
        };
        while mark < head && !gathered.is_full() {
            let entry = log.existing(mark.next())?;
            let touched = touched(&entry, &log)?;
            if touched.all {
                return Ok(None);
            }
            let after = after.take();
            let is_due = |key: &&RecordKey| {
                key.entity == *entity
                    && after.as_ref().is_none_or(|after| key.id.as_str() > after.as_str())
            };
            let mut keys = touched.keys.iter().filter(is_due).peekable();
            while let Some(key) = keys.next() {
                if !gathered.records.contains_key(key.id.as_str()) {
                    gathered.add(key.id.as_str(), self.words_of(key, rule)?);
                }
                if gathered.is_full() && keys.peek().is_some() {
                    let next = Next::RestOfEntry(key.id.as_str().to_owned());
                    return Ok(Some(gathered.work(mark, next)));
                }
            }
            mark = mark.next();
        }
        Ok(Some(gathered.work(mark, Next::Entries)))
    }
}

impl Gathered {
    fn work(self, mark: Seq, next: Next) -> Work {
        let records = self.records.into_iter().collect();
        Work::Words { records, order: Vec::new(), mark, next }
    }
}
