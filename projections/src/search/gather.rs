//! Reading the next parts of the words from a snapshot, outside the writer's turn.
//!
//! ```text
//!   first all records  ─► the words of each record
//!   then all words     ─► the postings of each word, in the order of words
//!   then the log       ─► the words that touched records have now
//! ```

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use fieldbook_core::log::StoreError;
use fieldbook_core::search::{FieldWord, SearchRule};
use fieldbook_core::{EntityType, RecordId, RecordKey, Seq};

use super::packed::{Posting, posting};
use super::{Folded, Next, RECORDS, STATES, State, reading};
use crate::log_view::LogView;
use crate::read::Snapshot;
use crate::touched::touched;

/// The most records of one part, and the most words before the last of them. Writing a part needs
/// the writer for up to 50 ms.
const RECORDS_AT_ONCE: usize = 1_250;
const WORDS_AT_ONCE: usize = 15_000;
/// The postings of one part, except those of its last word.
const POSTINGS_AT_ONCE: usize = 12_000;
/// The most postings in memory while those of all words are read: so many, and those of one word.
const POSTINGS_KEPT: usize = 200_000;

/// A part of the words of an entity type, as a snapshot has it.
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
    Words { records: Vec<Words>, mark: Seq, next: Next },
    /// The postings of some words of the records that were folded first.
    Postings { words: Vec<(String, Vec<Posting>)>, next: Next },
}

/// The words of a record.
pub(super) type Words = (String, Vec<FieldWord>);

/// The first words in the order of words, with their postings: as many as fit the memory.
pub(super) struct First {
    words: BTreeMap<String, Vec<Posting>>,
    postings: usize,
    /// The most postings. The last words go while there are more.
    most: usize,
    /// The least word that went.
    gone: Option<String>,
}

impl First {
    const fn of_at_most(most: usize) -> Self {
        Self { words: BTreeMap::new(), postings: 0, most, gone: None }
    }

    fn add(&mut self, word: &str, posting: Posting) {
        if self.gone.as_deref().is_some_and(|gone| word >= gone) {
            return;
        }
        match self.words.get_mut(word) {
            Some(postings) => postings.push(posting),
            None => drop(self.words.insert(word.to_owned(), vec![posting])),
        }
        self.postings += 1;
        while self.postings > self.most && self.words.len() > 1 {
            let Some((last, postings)) = self.words.pop_last() else { return };
            self.postings -= postings.len();
            self.gone = Some(last);
        }
    }

    /// Cuts the words into parts, the first of which follows this state.
    pub(super) fn into_parts(self, entity: &EntityType, mut state: State) -> Vec<Part> {
        let (mut parts, mut words) = (Vec::new(), self.words.into_iter().peekable());
        loop {
            let (mut some, mut postings) = (Vec::new(), 0);
            while postings < POSTINGS_AT_ONCE
                && let Some((word, mut of_word)) = words.next()
            {
                of_word.sort_unstable();
                postings += of_word.len();
                some.push((word, of_word));
            }
            let is_last = words.peek().is_none();
            let next = match some.last() {
                Some((last, _)) if !is_last || self.gone.is_some() => Next::Words(last.clone()),
                _ => Next::Entries,
            };
            let follows = Some(state.to_bytes());
            state.next = next.clone();
            let work = Work::Postings { words: some, next };
            parts.push(Part { entity: entity.clone(), follows, work });
            if is_last {
                return parts;
            }
        }
    }
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

    /// Reads the next parts of the words of an entity type, each of which follows the one before;
    /// none if the words have all that this snapshot has.
    ///
    /// # Errors
    /// [`StoreError`] if a table or the log cannot be read.
    pub fn search_parts(
        &self,
        entity: &EntityType,
        rule: &SearchRule,
    ) -> Result<Vec<Part>, StoreError> {
        let follows = self.search_state(entity)?;
        let head = self.last_seq()?;
        let state = follows.as_deref().and_then(State::read);
        let state = state.filter(|state| state.digest == rule.digest() && state.mark <= head);
        let begin = Work::Begin { digest: rule.digest(), mark: head };
        let one = |work| Ok(vec![Part { entity: entity.clone(), follows, work }]);
        let Some(state) = state else { return one(begin) };
        let after = match state.next.clone() {
            Next::Records(after) => {
                return one(self.gather_records(entity, rule, &after, state.mark)?);
            }
            Next::Words(after) => {
                let first = self.first_words(entity, &after, POSTINGS_KEPT)?;
                return Ok(first.into_parts(entity, state));
            }
            Next::Entries | Next::RestOfEntry(_) if state.mark >= head => return Ok(Vec::new()),
            Next::Entries => None,
            Next::RestOfEntry(after) => Some(after),
        };
        one(self.gather_touched(entity, rule, (state.mark, after), head)?.unwrap_or(begin))
    }

    /// Reads the first words after a word that the folded records have, with at most so many
    /// postings.
    pub(super) fn first_words(
        &self,
        entity: &EntityType,
        after: &str,
        most: usize,
    ) -> Result<First, StoreError> {
        let mut first = First::of_at_most(most);
        self.each_search_row(RECORDS, entity, |_, row| {
            Folded::each(row, |number, field, word| {
                if word > after {
                    first.add(word, posting(number, field));
                }
            })
        })?;
        Ok(first)
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
        let mut next = Next::Words(String::new());
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
            None => Ok(Work::Words { records, mark, next }),
        }
    }

    /// Gathers the records that the next entries touched, those of the first entry after an id if
    /// there is one; none if an entry can change every record.
    fn gather_touched(
        &self,
        entity: &EntityType,
        rule: &SearchRule,
        (mut mark, mut after): (Seq, Option<String>),
        head: Seq,
    ) -> Result<Option<Work>, StoreError> {
        let (log, mut gathered) = (self.log()?, Gathered::default());
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
        Work::Words { records, mark, next }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads the postings of all words, as often as the memory needs it.
    fn in_rounds(postings: &[(String, Posting)], most: usize) -> Vec<(String, Vec<Posting>)> {
        let (mark, next) = (Seq::ZERO, Next::Words(String::new()));
        let greatest = String::new();
        let mut state = State { digest: [0; 16], mark, next, number: 0, ordered: 0, greatest };
        let mut all = Vec::new();
        while let Next::Words(after) = state.next.clone() {
            let mut first = First::of_at_most(most);
            for (word, posting) in postings.iter().filter(|(word, _)| *word > after) {
                first.add(word, *posting);
                assert!(first.postings <= most || first.words.len() == 1);
            }
            let lead = EntityType::parse("lead").unwrap();
            for part in first.into_parts(&lead, state.clone()) {
                assert_eq!(part.follows, Some(state.to_bytes()));
                let Work::Postings { words, next } = part.work else { panic!("another part") };
                all.extend(words);
                state.next = next;
            }
        }
        all
    }

    proptest! {
        #[test]
        fn the_words_come_in_order_and_each_with_all_its_postings(
            postings in prop::collection::vec(("[a-d]{1,2}", 0_u64..1_000), 0..60),
            most in 1_usize..40,
        ) {
            let mut wanted: BTreeMap<String, Vec<Posting>> = BTreeMap::new();
            for (word, posting) in &postings {
                wanted.entry(word.clone()).or_default().push(*posting);
            }
            wanted.values_mut().for_each(|of_word| of_word.sort_unstable());
            prop_assert_eq!(in_rounds(&postings, most), Vec::from_iter(wanted));
        }
    }
}
