//! Writing a part of the words, within the writer's turn.

use fieldbook_core::EntityType;
use fieldbook_core::log::StoreError;
use fieldbook_core::search::FieldWord;
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};

use super::dictionary::{Change, Dictionary};
use super::gather::{Part, Words, Work};
use super::{
    FORMER, Folded, IDS, Next, POSTINGS, RECORDS, STATES, State, WORDS, ids, key_of, prefix,
    reading,
};
use crate::sorted::{BytesTable, SortedRow, write_sorted};
use crate::tables::after_prefix;

const WRITING: &str = "folding the words for search";

/// Writes a part of the words. It does nothing if the words have changed since the part was read:
/// another caller wrote the same part, or they were dropped.
///
/// # Errors
/// [`StoreError`] if a table cannot be read or written.
pub fn fold_part(transaction: &WriteTransaction, part: Part) -> Result<(), StoreError> {
    let Part { entity, follows, work } = part;
    if stored_state(transaction, &entity)? != follows {
        return Ok(());
    }
    let state = match work {
        Work::Begin { digest, mark } => {
            drop_words(transaction, &entity)?;
            let (next, greatest) = (Next::Records(String::new()), String::new());
            State { digest, mark, next, number: 0, ordered: 0, greatest }
        }
        Work::Words { records, mark, next } => {
            let Some(mut state) = follows.as_deref().and_then(State::read) else { return Ok(()) };
            // While all records are read for the first time, none of those that follow has a row.
            if matches!(state.next, Next::Records(_)) {
                write_new(transaction, &entity, &mut state, &records)?;
            } else {
                write_changed(transaction, &entity, &mut state, &records)?;
            };
            State { mark, next, ..state }
        }
        Work::Postings { words, next } => {
            let Some(state) = follows.as_deref().and_then(State::read) else { return Ok(()) };
            let changes = words.iter().flat_map(|(word, postings)| {
                postings.iter().map(|posting| Change { word, posting: *posting, is_there: true })
            });
            write_changes(transaction, &entity, &changes.collect::<Vec<_>>())?;
            State { next, ..state }
        }
    };
    let mut table = open(transaction, STATES)?;
    let row = table.insert(entity.as_str().as_bytes(), state.to_bytes().as_slice());
    drop(row.map_err(StoreError::during(WRITING))?);
    Ok(())
}

/// Drops all words. The next search folds them anew.
///
/// # Errors
/// [`StoreError`] if a table cannot be dropped.
pub fn drop_search(transaction: &WriteTransaction) -> Result<(), StoreError> {
    for table in [POSTINGS, WORDS, IDS, RECORDS, STATES] {
        transaction.delete_table(table).map_err(StoreError::during(WRITING))?;
    }
    drop_former(transaction)
}

/// Drops the tables of the former version.
fn drop_former(transaction: &WriteTransaction) -> Result<(), StoreError> {
    for name in FORMER {
        let table: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(name);
        transaction.delete_table(table).map_err(StoreError::during(WRITING))?;
    }
    Ok(())
}

/// Drops the words of one entity type.
fn drop_words(transaction: &WriteTransaction, entity: &EntityType) -> Result<(), StoreError> {
    drop_former(transaction)?;
    let states = open(transaction, STATES)?;
    let is_there = states.get(entity.as_str().as_bytes()).map_err(reading)?.is_some();
    let is_alone = states.len().map_err(reading)? == u64::from(is_there);
    drop(states);
    if is_alone {
        return drop_search(transaction);
    }
    let from = prefix(entity, &[]);
    let to = after_prefix(&from).unwrap_or_default();
    for definition in [POSTINGS, WORDS, IDS, RECORDS] {
        let mut table = open(transaction, definition)?;
        let dropped = table.retain_in(from.as_slice()..to.as_slice(), |_, _| false);
        dropped.map_err(StoreError::during(WRITING))?;
    }
    Ok(())
}

fn open<'t>(
    transaction: &'t WriteTransaction,
    table: super::Definition,
) -> Result<BytesTable<'t>, StoreError> {
    transaction.open_table(table).map_err(StoreError::during(WRITING))
}

fn stored_state(
    transaction: &WriteTransaction,
    entity: &EntityType,
) -> Result<Option<Vec<u8>>, StoreError> {
    let table = open(transaction, STATES)?;
    let stored = table.get(entity.as_str().as_bytes()).map_err(reading)?;
    Ok(stored.map(|stored| stored.value().to_vec()))
}

/// What changes with the words of some records.
#[derive(Default)]
struct Changed {
    rows: Vec<SortedRow>,
    ids: ids::Changes,
}

/// Writes the words of records that had none. Their postings are written when all records are read.
fn write_new(
    transaction: &WriteTransaction,
    entity: &EntityType,
    state: &mut State,
    records: &[Words],
) -> Result<(), StoreError> {
    let mut changed = Changed::default();
    // A record without words has no number.
    for (id, words) in records.iter().filter(|(_, words)| !words.is_empty()) {
        let number = state.number_for(id);
        changed.record(id, key_of(entity, id.as_bytes()), number, words, true);
    }
    changed.write(transaction, entity)
}

/// Writes the words that records have now, in place of those that they had.
fn write_changed(
    transaction: &WriteTransaction,
    entity: &EntityType,
    state: &mut State,
    records: &[Words],
) -> Result<(), StoreError> {
    let table = open(transaction, RECORDS)?;
    let (mut changed, mut compared) = (Changed::default(), Vec::with_capacity(records.len()));
    for (id, words) in records {
        let key = key_of(entity, id.as_bytes());
        let stored = table.get(key.as_slice()).map_err(reading)?;
        let stored = stored.map(|stored| Folded::read(stored.value())).transpose()?;
        let number = stored.as_ref().map(|had| had.number);
        let had = stored.unwrap_or_default().words;
        if had != *words {
            let is_new = number.is_none();
            let number = number.unwrap_or_else(|| state.number_for(id));
            changed.record(id, key, number, words, is_new);
            compared.push((had, words, number));
        }
    }
    drop(table);
    changed.write(transaction, entity)?;
    let mut changes = Vec::new();
    for (had, words, number) in &compared {
        compare(had, words, *number, &mut changes);
    }
    changes.sort_unstable();
    write_changes(transaction, entity, &changes)
}

fn write_changes(
    transaction: &WriteTransaction,
    entity: &EntityType,
    changes: &[Change<'_>],
) -> Result<(), StoreError> {
    let (words, postings) = (open(transaction, WORDS)?, open(transaction, POSTINGS)?);
    Dictionary { entity, words, postings }.write(changes)
}

impl Changed {
    /// Notes the new row of a record. A record without words has none, and no number.
    fn record(&mut self, id: &str, key: Vec<u8>, number: u64, words: &[FieldWord], is_new: bool) {
        let is_there = !words.is_empty();
        if is_new || !is_there {
            self.ids.insert(number, is_there.then(|| id.to_owned()));
        }
        let value = is_there.then(|| Folded::row(number, words));
        self.rows.push(SortedRow { key, value, is_new });
    }

    fn write(self, transaction: &WriteTransaction, entity: &EntityType) -> Result<(), StoreError> {
        write_sorted(&mut open(transaction, RECORDS)?, self.rows.into_iter().map(Ok))?;
        ids::write(&mut open(transaction, IDS)?, entity, &self.ids)
    }
}

/// Adds the postings that come and go when words become others. Both are in order.
fn compare<'w>(
    before: &'w [FieldWord],
    now: &'w [FieldWord],
    number: u64,
    changes: &mut Vec<Change<'w>>,
) {
    for (one, other, is_there) in [(before, now, false), (now, before, true)] {
        let differing = one.iter().filter(|word| other.binary_search(word).is_err());
        changes.extend(differing.map(|word| Change::of(word, number, is_there)));
    }
}

#[cfg(test)]
mod tests {
    use fieldbook_core::Seq;
    use fieldbook_core::search::SearchRule;
    use redb::backends::InMemoryBackend;
    use redb::{Database, ReadableDatabase, TableHandle};

    use super::*;
    use crate::read::Snapshot;

    fn part(entity: &EntityType, follows: Option<Vec<u8>>, work: Work) -> Part {
        Part { entity: entity.clone(), follows, work }
    }

    fn words(of: &[(&str, &str)], next: Next) -> Work {
        let records = of.iter().map(|(id, word)| {
            ((*id).to_owned(), vec![FieldWord { field: 0, word: (*word).to_owned() }])
        });
        Work::Words { records: records.collect(), mark: Seq::new(7), next }
    }

    #[test]
    fn the_first_fold_drops_the_tables_of_the_former_version() {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let transaction = database.begin_write().unwrap();
        for name in FORMER {
            let table: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(name);
            let mut table = transaction.open_table(table).unwrap();
            table.insert(&[1][..], &[2][..]).unwrap();
        }
        let lead = EntityType::parse("lead").unwrap();
        let begin = Work::Begin { digest: [3; 16], mark: Seq::new(7) };
        fold_part(&transaction, part(&lead, None, begin)).unwrap();
        transaction.commit().unwrap();
        let snapshot = database.begin_read().unwrap();
        let names: Vec<_> =
            snapshot.list_tables().unwrap().map(|table| table.name().to_owned()).collect();
        assert_eq!(names, [STATES.name()]);
    }

    /// Two callers can read the same part, and both ask for it to be written.
    #[test]
    fn a_part_is_written_once_and_only_after_the_state_that_it_follows() {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let transaction = database.begin_write().unwrap();
        let lead = EntityType::parse("lead").unwrap();
        let begin = Work::Begin { digest: [3; 16], mark: Seq::new(7) };
        fold_part(&transaction, part(&lead, None, begin)).unwrap();
        let begun = stored_state(&transaction, &lead).unwrap();
        let some = [("1", "ann"), ("2", "bela")];
        fold_part(&transaction, part(&lead, begun.clone(), words(&some, Next::Entries))).unwrap();
        let folded = stored_state(&transaction, &lead).unwrap();
        assert_ne!(folded, begun);
        fold_part(&transaction, part(&lead, begun, words(&some, Next::Entries))).unwrap();
        fold_part(&transaction, part(&lead, None, words(&[("9", "zoe")], Next::Entries))).unwrap();
        assert_eq!(stored_state(&transaction, &lead).unwrap(), folded);
        let records = open(&transaction, RECORDS).unwrap();
        assert_eq!(records.len().unwrap(), 2);
    }

    /// All records are taken apart before the first of their words is written.
    #[test]
    fn between_the_parts_of_the_first_fold_the_words_are_sound() {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let (lead, rule) = (EntityType::parse("lead").unwrap(), SearchRule::new().field("name", 1));
        let snapshot = || Snapshot::new(database.begin_read().unwrap());
        let fold = |part| {
            let transaction = database.begin_write().unwrap();
            fold_part(&transaction, part).unwrap();
            transaction.commit().unwrap();
        };
        fold(part(&lead, None, Work::Begin { digest: rule.digest(), mark: Seq::new(7) }));
        let some = words(
            &[("1", "ann"), ("2", "bela"), ("3", "ann"), ("4", "zoe")],
            Next::Words(String::new()),
        );
        fold(part(&lead, snapshot().search_state(&lead).unwrap(), some));
        let mut words_before = Vec::new();
        loop {
            let snapshot = snapshot();
            let state = State::read(&snapshot.search_state(&lead).unwrap().unwrap()).unwrap();
            let Next::Words(after) = &state.next else { break };
            assert!(snapshot.search_is_sound(&lead, &rule).unwrap(), "after {after:?}");
            words_before.push(after.clone());
            let first = snapshot.first_words(&lead, after, 1).unwrap();
            first.into_parts(&lead, state).into_iter().for_each(fold);
        }
        assert_eq!(words_before, ["", "ann", "bela"]);
    }
}
