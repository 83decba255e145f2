//! Writes rows in the order of their keys.
//!
//! New rows with adjacent keys are written through a cursor of the storage engine, which fills page
//! after page. The place of a row that is written alone is searched from the root, which costs
//! about twice as much. Sorted rows also change each page of the file only once in a commit.

use std::iter::Peekable;
use std::ops::Bound;

use fieldbook_core::log::StoreError;
use redb::{CursorError, Table};

/// A table with bytes as keys and values.
pub(crate) type BytesTable<'t> = Table<'t, &'static [u8], &'static [u8]>;

/// A row to write or to remove.
pub(crate) struct SortedRow {
    pub(crate) key: Vec<u8>,
    /// Its stored form; none to remove it.
    pub(crate) value: Option<Vec<u8>>,
    /// Whether the table has no row under this key.
    pub(crate) is_new: bool,
}

impl SortedRow {
    /// Makes a row under a key that the table does not have.
    pub(crate) const fn new(key: Vec<u8>, value: Vec<u8>) -> Self {
        Self { key, value: Some(value), is_new: true }
    }
}

/// Writes rows with ascending keys.
///
/// # Errors
/// The first error among the rows; [`StoreError`] if the table cannot be written.
pub(crate) fn write_sorted(
    table: &mut BytesTable<'_>,
    rows: impl Iterator<Item = Result<SortedRow, StoreError>>,
) -> Result<(), StoreError> {
    let mut rows = rows.peekable();
    while let Some(row) = rows.next() {
        let SortedRow { key, value, is_new } = row?;
        match value {
            Some(value) if is_new && next_is_new(&mut rows) => {
                write_run(table, key, value, &mut rows)?
            }
            Some(value) => drop(table.insert(key.as_slice(), value.as_slice()).map_err(failed)?),
            None => drop(table.remove(key.as_slice()).map_err(failed)?),
        }
    }
    Ok(())
}

fn next_is_new(rows: &mut Peekable<impl Iterator<Item = Result<SortedRow, StoreError>>>) -> bool {
    matches!(rows.peek(), Some(Ok(row)) if row.is_new && row.value.is_some())
}

/// Writes a new row and those after it that go into the same gap of the table.
fn write_run(
    table: &mut BytesTable<'_>,
    key: Vec<u8>,
    value: Vec<u8>,
    rows: &mut Peekable<impl Iterator<Item = Result<SortedRow, StoreError>>>,
) -> Result<(), StoreError> {
    let mut cursor = table.upper_bound_mut(Bound::Excluded(key.as_slice())).map_err(failed)?;
    cursor.insert_before(key.as_slice(), value.as_slice()).map_err(failed)?;
    while next_is_new(rows) {
        let Some(Ok(SortedRow { key, value: Some(value), .. })) = rows.peek() else { break };
        match cursor.insert_before(key.as_slice(), value.as_slice()) {
            Ok(()) => drop(rows.next()),
            // Another row is in between: the next run begins after it.
            Err(CursorError::UnorderedKey) => break,
            Err(error) => return Err(failed(error)),
        }
    }
    cursor.close().map_err(failed)
}

fn failed(error: impl Into<redb::Error>) -> StoreError {
    StoreError::during("writing rows")(error)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;
    use redb::{Database, ReadableTable, TableDefinition};

    use super::*;

    const TABLE: TableDefinition<'static, &'static [u8], &'static [u8]> =
        TableDefinition::new("rows");

    proptest! {
        #[test]
        fn a_table_written_in_runs_holds_what_a_map_would(
            before in proptest::collection::btree_map(any::<u16>(), 0..600usize, 0..80),
            changes in proptest::collection::btree_map(any::<u16>(), proptest::option::of(0..600usize), 0..80),
        ) {
            let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
            let transaction = database.begin_write().unwrap();
            let mut table = transaction.open_table(TABLE).unwrap();
            let key = |key: u16| key.to_be_bytes().to_vec();
            let value = |length: usize| vec![7; length];

            let fresh = before.iter().map(|(at, length)| Ok(SortedRow::new(key(*at), value(*length))));
            write_sorted(&mut table, fresh).unwrap();
            let changed = changes.iter().map(|(at, length)| {
                Ok(SortedRow { key: key(*at), value: length.map(value), is_new: !before.contains_key(at) })
            });
            write_sorted(&mut table, changed).unwrap();

            let mut wanted: BTreeMap<u16, usize> = before.clone();
            for (at, length) in &changes {
                match length {
                    Some(length) => drop(wanted.insert(*at, *length)),
                    None => drop(wanted.remove(at)),
                }
            }
            let found: Vec<_> = table.iter().unwrap().map(|row| {
                let (key, value) = row.unwrap();
                (key.value().to_vec(), value.value().to_vec())
            }).collect();
            prop_assert_eq!(found, wanted.into_iter().map(|(at, length)| (key(at), value(length))).collect::<Vec<_>>());
        }
    }
}
