//! Folding the words of records, part by part.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook_core::log::StoreError;
use fieldbook_core::search::{FieldWord, SearchRule};
use fieldbook_core::{EntityType, RecordKey, Seq};
use redb::{ReadableTable, WriteTransaction};

use super::{
    GRAMS, POSTINGS, RECORDS, STATES, Searches, State, WORDS, damaged, grams, prefix, reading,
    word_key,
};
use crate::access::{DiskTables, view};
use crate::log_view::LogView;
use crate::read::id_of;
use crate::sorted::{BytesTable, SortedRow, write_sorted};
use crate::tables::{Which, after_prefix};
use crate::touched::touched;

/// The number of records of one part. Each needs up to a millisecond.
const RECORDS_AT_ONCE: usize = 256;

/// Folds the next part of the words, at most up to the head: of the first entity type that lags
/// behind.
///
/// # Errors
/// [`StoreError`] if a table or the log cannot be read or written.
pub fn fold_search(
    tables: &mut DiskTables<'_>,
    log: &impl LogView,
    searches: &Searches,
    head: Seq,
) -> Result<(), StoreError> {
    let transaction = tables.transaction();
    for (entity, rule) in searches {
        let mut state = match state_of(transaction, entity)? {
            Some(state) if state.digest == rule.digest() && state.mark <= head => state,
            _ => begin(transaction, entity, rule, head)?,
        };
        let keys = match state.building.take() {
            Some(after) => {
                let keys = records_after(tables, entity, &after)?;
                let last = keys.last().map(|key| key.id.as_str().to_owned());
                state.building = last.filter(|_| keys.len() == RECORDS_AT_ONCE);
                keys
            }
            None if state.mark >= head => continue,
            None => match next_touched(log, entity, &mut state.mark, head)? {
                Some(keys) => keys,
                None => {
                    state = begin(transaction, entity, rule, head)?;
                    Vec::new()
                }
            },
        };
        let mut changed = Changed::default();
        let has = changed.read(tables, entity, rule, &keys)?;
        changed.write(transaction, entity, has)?;
        return put_state(transaction, entity, &state);
    }
    Ok(())
}

/// Drops all words. The next search folds them anew.
///
/// # Errors
/// [`StoreError`] if a table cannot be dropped.
pub fn drop_search(transaction: &WriteTransaction) -> Result<(), StoreError> {
    for table in [POSTINGS, WORDS, GRAMS, RECORDS, STATES] {
        transaction.delete_table(table).map_err(StoreError::during(WRITING))?;
    }
    Ok(())
}

fn open<'t>(
    transaction: &'t WriteTransaction,
    table: super::Definition,
) -> Result<BytesTable<'t>, StoreError> {
    transaction.open_table(table).map_err(StoreError::during(WRITING))
}

fn state_of(
    transaction: &WriteTransaction,
    entity: &EntityType,
) -> Result<Option<State>, StoreError> {
    let table = open(transaction, STATES)?;
    let stored = table.get(entity.as_str().as_bytes()).map_err(reading)?;
    Ok(stored.and_then(|stored| State::read(stored.value())))
}

fn put_state(
    transaction: &WriteTransaction,
    entity: &EntityType,
    state: &State,
) -> Result<(), StoreError> {
    let mut table = open(transaction, STATES)?;
    let row = table.insert(entity.as_str().as_bytes(), state.to_bytes().as_slice());
    drop(row.map_err(StoreError::during(WRITING))?);
    Ok(())
}

/// Drops the words of an entity type, and begins to fold those of all its records.
fn begin(
    transaction: &WriteTransaction,
    entity: &EntityType,
    rule: &SearchRule,
    head: Seq,
) -> Result<State, StoreError> {
    drop_words(transaction, entity)?;
    Ok(State { digest: rule.digest(), mark: head, building: Some(String::new()) })
}

/// Drops the words of one entity type.
fn drop_words(transaction: &WriteTransaction, entity: &EntityType) -> Result<(), StoreError> {
    let from = prefix(entity, &[]);
    let to = after_prefix(&from).unwrap_or_default();
    for definition in [POSTINGS, WORDS, GRAMS, RECORDS] {
        let mut table = open(transaction, definition)?;
        let dropped = table.retain_in(from.as_slice()..to.as_slice(), |_, _| false);
        dropped.map_err(StoreError::during(WRITING))?;
    }
    Ok(())
}

/// Returns the next records of an entity type.
fn records_after(
    tables: &mut DiskTables<'_>,
    entity: &EntityType,
    after: &str,
) -> Result<Vec<RecordKey>, StoreError> {
    let begin = prefix(entity, &[]);
    let end = after_prefix(&begin).unwrap_or_default();
    let from = match after {
        "" => begin.clone(),
        after => [begin.as_slice(), after.as_bytes(), &[0]].concat(),
    };
    let rows = tables.which(Which::Records)?.range(from.as_slice()..end.as_slice());
    let rows = rows.map_err(reading)?.take(RECORDS_AT_ONCE);
    let keys = rows.map(|row| {
        let (key, _) = row.map_err(reading)?;
        id_of(key.value(), begin.len())?;
        RecordKey::from_bytes(key.value()).ok_or_else(damaged)
    });
    keys.collect()
}

/// Returns the records of an entity type that the next entries touched, and moves the mark; none if
/// an entry can change every record.
fn next_touched(
    log: &impl LogView,
    entity: &EntityType,
    mark: &mut Seq,
    head: Seq,
) -> Result<Option<Vec<RecordKey>>, StoreError> {
    let mut keys = BTreeSet::new();
    while *mark < head && keys.len() < RECORDS_AT_ONCE {
        let seq = mark.next();
        let entry = log.existing(seq)?;
        let touched = touched(&entry, log)?;
        if touched.all {
            return Ok(None);
        }
        keys.extend(touched.keys.into_iter().filter(|key| key.entity == *entity));
        *mark = seq;
    }
    Ok(Some(keys.into_iter().collect()))
}

/// A key with its value.
type StoredRow = (Vec<u8>, Vec<u8>);

/// What changes in the words of some records.
#[derive(Default)]
struct Changed {
    /// The postings: whether each is there.
    postings: BTreeMap<Vec<u8>, bool>,
    /// The words that got or lost a posting.
    words: BTreeSet<String>,
}

impl Changed {
    /// Reads the words that records have and had. Returns the new rows of [`RECORDS`].
    fn read(
        &mut self,
        tables: &mut DiskTables<'_>,
        entity: &EntityType,
        rule: &SearchRule,
        keys: &[RecordKey],
    ) -> Result<Vec<StoredRow>, StoreError> {
        let table = open(tables.transaction(), RECORDS)?;
        let mut rows = Vec::with_capacity(keys.len());
        for key in keys {
            let bytes = key.to_bytes();
            let records = tables.which(Which::Records)?;
            let stored = records.get(bytes.as_slice()).map_err(reading)?;
            let words = match &stored {
                Some(stored) => view(stored.value())?.image.map(|image| rule.words_of(image)),
                None => None,
            };
            let words = words
                .transpose()
                .map_err(|fault| StoreError::corrupt("stored fields", None, fault))?;
            let words = words.unwrap_or_default();
            let had = match table.get(bytes.as_slice()).map_err(reading)? {
                Some(stored) => field_words(stored.value())?,
                None => Vec::new(),
            };
            for (one, other, is_there) in [(&had, &words, false), (&words, &had, true)] {
                for word in one.iter().filter(|word| other.binary_search(word).is_err()) {
                    let posting = posting(entity, word, key.id.as_str());
                    self.postings.insert(posting, is_there);
                    self.words.insert(word.word.clone());
                }
            }
            if had != words {
                rows.push((bytes, to_bytes(&words)));
            }
        }
        rows.sort_unstable();
        Ok(rows)
    }

    fn write(
        self,
        transaction: &WriteTransaction,
        entity: &EntityType,
        records: Vec<StoredRow>,
    ) -> Result<(), StoreError> {
        let row = |(key, value): StoredRow| {
            let value = Some(value).filter(|value| !value.is_empty());
            Ok(SortedRow { key, value, is_new: false })
        };
        write_sorted(&mut open(transaction, RECORDS)?, records.into_iter().map(row))?;
        let there = |(key, is_there): (Vec<u8>, bool)| {
            Ok(SortedRow { key, value: is_there.then(Vec::new), is_new: is_there })
        };
        let mut postings = open(transaction, POSTINGS)?;
        write_sorted(&mut postings, self.postings.into_iter().map(there))?;
        let mut words = open(transaction, WORDS)?;
        let (mut turned, mut of_parts) = (Vec::new(), BTreeMap::new());
        for word in self.words {
            let from = prefix(entity, &[&word]);
            let to = after_prefix(&from).unwrap_or_default();
            let mut left = postings.range(from.as_slice()..to.as_slice()).map_err(reading)?;
            let is_there = left.next().transpose().map_err(reading)?.is_some();
            let key = word_key(entity, &word);
            if words.get(key.as_slice()).map_err(reading)?.is_some() != is_there {
                turned.push((key, is_there));
                for gram in grams(&word) {
                    let key = [prefix(entity, &[&gram]).as_slice(), word.as_bytes()].concat();
                    of_parts.insert(key, is_there);
                }
            }
        }
        turned.sort_unstable();
        write_sorted(&mut words, turned.into_iter().map(there))?;
        write_sorted(&mut open(transaction, GRAMS)?, of_parts.into_iter().map(there))
    }
}

fn posting(entity: &EntityType, word: &FieldWord, id: &str) -> Vec<u8> {
    let mut key = prefix(entity, &[&word.word]);
    key.push(word.field);
    key.extend_from_slice(id.as_bytes());
    key
}

fn to_bytes(words: &[FieldWord]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in words {
        bytes.push(word.field);
        bytes.extend_from_slice(word.word.as_bytes());
        bytes.push(0);
    }
    bytes
}

fn field_words(mut bytes: &[u8]) -> Result<Vec<FieldWord>, StoreError> {
    let mut words = Vec::new();
    while let Some((field, rest)) = bytes.split_first() {
        let end = rest.iter().position(|byte| *byte == 0).ok_or_else(damaged)?;
        let (word, rest) = rest.split_at_checked(end).ok_or_else(damaged)?;
        let word = std::str::from_utf8(word).map_err(|_| damaged())?.to_owned();
        words.push(FieldWord { field: *field, word });
        bytes = rest.get(1..).unwrap_or_default();
    }
    Ok(words)
}

const WRITING: &str = "folding the words for search";
