//! Changing the words and their postings: each block and each row of a frequent word once.

use std::ops::Bound;

use fieldbook_core::EntityType;
use fieldbook_core::log::StoreError;
use fieldbook_core::search::FieldWord;
use redb::ReadableTable;

use super::block::{Block, Building, Word};
use super::packed::{Posting, change, posting, read_list, to_list};
use super::{damaged, key_of, prefix, reading};
use crate::sorted::{BytesTable, SortedRow, write_sorted};
use crate::tables::after_prefix;

/// The most bytes of the postings of a word that stand in the dictionary.
const NEAR_BYTES: usize = 128;
/// The bytes below which postings in rows of their own go back there.
const BACK_BYTES: usize = NEAR_BYTES / 2;
/// The most bytes of one row of postings. Then it is cut.
const ROW_BYTES: usize = 1_800;

/// A posting that comes or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Change<'w> {
    pub(super) word: &'w str,
    pub(super) posting: Posting,
    pub(super) is_there: bool,
}

impl<'w> Change<'w> {
    /// Makes the change of a record's word.
    pub(super) fn of(word: &'w FieldWord, number: u64, is_there: bool) -> Self {
        Self { word: &word.word, posting: posting(number, word.field), is_there }
    }

    const fn pair(&self) -> (Posting, bool) {
        (self.posting, self.is_there)
    }
}

/// The tables of words and postings, for the words of one entity type.
pub(super) struct Dictionary<'a, 't> {
    pub(super) entity: &'a EntityType,
    pub(super) words: BytesTable<'t>,
    pub(super) postings: BytesTable<'t>,
}

/// A row of a table that is cut into rows: the end of its key, its value, and where the next row
/// begins.
struct Row<V> {
    label: Vec<u8>,
    value: Option<V>,
    end: Option<Vec<u8>>,
}

/// Returns the row that a place belongs to: the last one that begins at it or before. Without one it
/// is a new row at the beginning.
fn row_of<'r>(
    table: &'r BytesTable<'_>,
    begin: &[u8],
    place: &[u8],
) -> Result<Row<redb::AccessGuard<'r, &'static [u8]>>, StoreError> {
    let to = after_prefix(begin).unwrap_or_default();
    let key = [begin, place].concat();
    let before = table.range(begin..=key.as_slice()).map_err(reading)?.next_back();
    let before = before.transpose().map_err(reading)?;
    let label = match &before {
        Some((key, _)) => key.value().get(begin.len()..).ok_or_else(damaged)?.to_vec(),
        None => Vec::new(),
    };
    let from = [begin, &label].concat();
    let after = (Bound::Excluded(from.as_slice()), Bound::Excluded(to.as_slice()));
    let next = table.range::<&[u8]>(after).map_err(reading)?.next();
    let end = match next.transpose().map_err(reading)? {
        Some((key, _)) => Some(key.value().get(begin.len()..).ok_or_else(damaged)?.to_vec()),
        None => None,
    };
    Ok(Row { label, value: before.map(|(_, value)| value), end })
}

/// The stored rows of the dictionary, in order.
struct Walk<'r> {
    table: &'r BytesTable<'r>,
    /// The bytes with which all keys begin.
    begin: &'r [u8],
    rows: Option<redb::Range<'r, &'static [u8], &'static [u8]>>,
    /// The row that has the words from its beginning up to the next row.
    here: Option<Stored<'r>>,
    next: Option<Stored<'r>>,
}

/// A stored row: the end of its key, and its value.
type Stored<'r> = (Vec<u8>, redb::AccessGuard<'r, &'static [u8]>);

/// How many rows are passed over one by one before the place of a word is searched from the root.
const STEPS: usize = 8;

impl<'r> Walk<'r> {
    const fn new(table: &'r BytesTable<'r>, begin: &'r [u8]) -> Self {
        Self { table, begin, rows: None, here: None, next: None }
    }

    /// Goes on to the row of a word, which comes after the words before.
    fn go_to(&mut self, word: &[u8]) -> Result<(), StoreError> {
        if self.rows.is_some() {
            for _ in 0..STEPS {
                if self.next.as_ref().is_none_or(|(label, _)| label.as_slice() > word) {
                    return Ok(());
                }
                self.here = self.next.take();
                self.next = self.step()?;
            }
        }
        let (key, to) = ([self.begin, word].concat(), after_prefix(self.begin).unwrap_or_default());
        let before = self.table.range(self.begin..=key.as_slice()).map_err(reading)?.next_back();
        let before = before.transpose().map_err(reading)?.map(|(key, _)| key.value().to_vec());
        let from = before.as_deref().unwrap_or(&key);
        self.rows = Some(self.table.range(from..to.as_slice()).map_err(reading)?);
        self.here = if before.is_some() { self.step()? } else { None };
        self.next = self.step()?;
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Stored<'r>>, StoreError> {
        let row = self.rows.as_mut().and_then(Iterator::next).transpose().map_err(reading)?;
        let Some((key, value)) = row else { return Ok(None) };
        Ok(Some((key.value().get(self.begin.len()..).ok_or_else(damaged)?.to_vec(), value)))
    }
}

impl Dictionary<'_, '_> {
    /// Writes changes, which are in order.
    pub(super) fn write(&mut self, changes: &[Change<'_>]) -> Result<(), StoreError> {
        let rows = self.changed(changes)?;
        write_sorted(&mut self.words, rows.into_iter().map(Ok))
    }

    /// Returns the changed rows of the dictionary. Those of frequent words are written.
    fn changed(&mut self, mut changes: &[Change<'_>]) -> Result<Vec<SortedRow>, StoreError> {
        let (entity, begin) = (self.entity, prefix(self.entity, &[]));
        let mut far = Far { entity, postings: &mut self.postings };
        let (mut walk, mut rows) = (Walk::new(&self.words, &begin), Vec::new());
        while let Some(first) = changes.first() {
            walk.go_to(first.word.as_bytes())?;
            let is_here = |change: &Change<'_>| {
                walk.next.as_ref().is_none_or(|(end, _)| change.word.as_bytes() < end.as_slice())
            };
            let (here, rest) = changes.split_at(changes.partition_point(is_here));
            changes = rest;
            let (label, block) = match &walk.here {
                Some((label, stored)) => (label.as_slice(), Block::read(stored.value())?),
                None => (&[][..], Block::default()),
            };
            let mut blocks = merged(block, here, &mut far)?.finish()?.into_iter();
            let value = blocks.next().map(|(_, block)| block);
            let is_new = walk.here.is_none();
            if value.is_some() || !is_new {
                rows.push(SortedRow { key: key_of(entity, label), value, is_new });
            }
            rows.extend(blocks.map(|(word, block)| SortedRow::new(key_of(entity, &word), block)));
        }
        Ok(rows)
    }
}

/// Makes the words of a block anew, with changes. Words between them are copied as they stand.
fn merged(
    block: Block<'_>,
    changes: &[Change<'_>],
    far: &mut Far<'_, '_>,
) -> Result<Building, StoreError> {
    let mut building = Building::default();
    let mut rest = block;
    for group in changes.chunk_by(|one, other| one.word == other.word) {
        let Some(Change { word, .. }) = group.first() else { continue };
        let stored = building.copy_before(&mut rest, word.as_bytes())?;
        match postings_of(stored, word, group, far)? {
            Postings::None => {}
            Postings::Near(list) => building.push(word.as_bytes(), Some(&list)),
            Postings::Far => building.push(word.as_bytes(), None),
        }
    }
    building.copy(rest);
    Ok(building)
}

/// Where the postings of a word are.
enum Postings {
    None,
    Near(Vec<u8>),
    Far,
}

fn postings_of(
    stored: Option<Word<'_>>,
    word: &str,
    changes: &[Change<'_>],
    far: &mut Far<'_, '_>,
) -> Result<Postings, StoreError> {
    if stored.is_some_and(|stored| stored.near.is_none()) {
        return far.change(word, changes);
    }
    let mut postings = Vec::new();
    read_list(stored.and_then(|stored| stored.near).unwrap_or_default(), &mut postings)?;
    change(&mut postings, changes.iter().map(Change::pair));
    let list = to_list(&postings);
    if list.is_empty() {
        return Ok(Postings::None);
    }
    if list.len() <= NEAR_BYTES {
        return Ok(Postings::Near(list));
    }
    far.put(&prefix(far.entity, &[word]), &[], &postings, true)?;
    Ok(Postings::Far)
}

/// The postings of frequent words.
struct Far<'a, 't> {
    entity: &'a EntityType,
    postings: &'a mut BytesTable<'t>,
}

impl Far<'_, '_> {
    /// Changes the postings of a word. It goes back into the dictionary if few are left.
    fn change(&mut self, word: &str, mut changes: &[Change<'_>]) -> Result<Postings, StoreError> {
        let begin = prefix(self.entity, &[word]);
        let goes = changes.iter().any(|change| !change.is_there);
        while let Some(first) = changes.first() {
            let mut postings = Vec::new();
            let (label, end) = {
                let row = row_of(self.postings, &begin, &first.posting.to_be_bytes())?;
                if let Some(stored) = &row.value {
                    read_list(stored.value(), &mut postings)?;
                }
                (row.label, row.end)
            };
            let is_here = |change: &Change<'_>| {
                end.as_ref()
                    .is_none_or(|end| change.posting.to_be_bytes().as_slice() < end.as_slice())
            };
            let (here, rest) = changes.split_at(changes.partition_point(is_here));
            changes = rest;
            let at_end = postings.last().is_none_or(|last| *last < first.posting);
            change(&mut postings, here.iter().map(Change::pair));
            self.put(&begin, &label, &postings, at_end)?;
        }
        if goes { self.back(&begin) } else { Ok(Postings::Far) }
    }

    /// Writes the postings of a row, in as many rows as they need. Rows to whose end postings are
    /// added are left full, as those before the last one stay as they are.
    fn put(
        &mut self,
        begin: &[u8],
        label: &[u8],
        postings: &[Posting],
        at_end: bool,
    ) -> Result<(), StoreError> {
        let key = [begin, label].concat();
        if postings.is_empty() {
            drop(self.postings.remove(key.as_slice()).map_err(writing)?);
            return Ok(());
        }
        let list = to_list(postings);
        let pieces = list.len().div_ceil(ROW_BYTES);
        let piece = if at_end {
            (postings.len() * ROW_BYTES).div_ceil(list.len().max(ROW_BYTES))
        } else {
            postings.len().div_ceil(pieces)
        };
        for (number, some) in postings.chunks(piece.max(1)).enumerate() {
            let key = match some.first() {
                Some(first) if number > 0 => [begin, &first.to_be_bytes()].concat(),
                _ => key.clone(),
            };
            let row = self.postings.insert(key.as_slice(), to_list(some).as_slice());
            drop(row.map_err(writing)?);
        }
        Ok(())
    }

    /// Takes the postings of a word back into the dictionary if they are few.
    fn back(&mut self, begin: &[u8]) -> Result<Postings, StoreError> {
        let to = after_prefix(begin).unwrap_or_default();
        let (key, list) = {
            let mut rows = self.postings.range(begin..to.as_slice()).map_err(reading)?;
            let first = rows.next().transpose().map_err(reading)?;
            let Some((key, stored)) = first else { return Ok(Postings::None) };
            if rows.next().is_some() || stored.value().len() > BACK_BYTES {
                return Ok(Postings::Far);
            }
            (key.value().to_vec(), stored.value().to_vec())
        };
        drop(self.postings.remove(key.as_slice()).map_err(writing)?);
        Ok(Postings::Near(list))
    }
}

fn writing(error: redb::StorageError) -> StoreError {
    StoreError::during("folding the words for search")(error)
}
