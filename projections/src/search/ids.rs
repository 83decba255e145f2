//! The ids of records by their numbers, in rows of 64.

use std::collections::BTreeMap;

use fieldbook_core::log::StoreError;
use fieldbook_core::{EntityType, RecordId};
use redb::ReadableTable;

use super::packed::{put_bytes, take_bytes};
use super::{damaged, key_of, reading};
use crate::sorted::{BytesTable, SortedRow, write_sorted};

/// The numbers of one row.
pub(super) const ROW: u64 = 64;

/// Changes of ids, by their numbers: none where the number has no record any more.
pub(super) type Changes = BTreeMap<u64, Option<String>>;

/// Reads the ids of a row, by their places.
pub(super) fn of_row(mut row: &[u8]) -> Result<Vec<String>, StoreError> {
    let mut ids = Vec::new();
    while !row.is_empty() {
        let id = std::str::from_utf8(take_bytes(&mut row)?).map_err(|_| damaged())?;
        ids.push(id.to_owned());
    }
    Ok(ids)
}

fn to_row(mut ids: Vec<String>) -> Option<Vec<u8>> {
    ids.truncate(ids.iter().rposition(|id| !id.is_empty()).map_or(0, |last| last + 1));
    let mut row = Vec::with_capacity(ids.len() * 40);
    ids.iter().for_each(|id| put_bytes(id.as_bytes(), &mut row));
    (!row.is_empty()).then_some(row)
}

/// Returns the row of a number and its place there.
fn place_of(number: u64) -> (u64, usize) {
    (number / ROW, usize::from((number % ROW).to_le_bytes()[0]))
}

fn key(entity: &EntityType, row: u64) -> Vec<u8> {
    key_of(entity, &row.to_be_bytes())
}

/// Writes changes of ids, each row once.
pub(super) fn write(
    table: &mut BytesTable<'_>,
    entity: &EntityType,
    changes: &Changes,
) -> Result<(), StoreError> {
    let mut rows: Vec<SortedRow> = Vec::new();
    let mut changes = changes.iter().peekable();
    while let Some((number, _)) = changes.peek() {
        let (row, _) = place_of(**number);
        let key = key(entity, row);
        let stored = table.get(key.as_slice()).map_err(reading)?;
        let is_new = stored.is_none();
        let mut ids = stored.map_or_else(|| Ok(Vec::new()), |stored| of_row(stored.value()))?;
        while let Some((number, id)) = changes.next_if(|(number, _)| place_of(**number).0 == row) {
            let (_, at) = place_of(*number);
            if ids.len() <= at {
                ids.resize(at + 1, String::new());
            }
            if let Some(place) = ids.get_mut(at) {
                id.clone().unwrap_or_default().clone_into(place);
            }
        }
        let value = to_row(ids);
        rows.push(SortedRow { key, is_new: is_new && value.is_some(), value });
    }
    write_sorted(table, rows.into_iter().map(Ok))
}

/// Returns the ids of records by their numbers, which ascend.
pub(super) fn of_numbers(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    entity: &EntityType,
    numbers: impl IntoIterator<Item = u64>,
) -> Result<Vec<RecordId>, StoreError> {
    let (mut found, mut row, mut ids) = (Vec::new(), None, Vec::new());
    for number in numbers {
        let (of, at) = place_of(number);
        if row != Some(of) {
            let stored = table.get(key(entity, of).as_slice()).map_err(reading)?;
            ids = of_row(stored.ok_or_else(damaged)?.value())?;
            row = Some(of);
        }
        let id = ids.get(at).ok_or_else(damaged)?;
        found.push(RecordId::parse(id).map_err(|_| damaged())?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_without_ids_is_no_row() {
        let ids = ["a", "", "c", ""].map(str::to_owned).to_vec();
        assert_eq!(of_row(&to_row(ids).unwrap()).unwrap(), ["a", "", "c"]);
        assert_eq!(to_row(vec![String::new(); 3]), None);
    }
}
