//! The tables that may lag behind the log: the tail and the history.
//!
//! Nobody reads them at the moment of an append, so an append does not update them. Each has a mark
//! in the state row, up to which it is folded.
//!
//! Invariants:
//! 1. After the tail's mark the log has intents only: every commit that plans, decides or ends an
//!    op folds the tail. So opening a book reads the table and then only appends of the app, at
//!    most [`limits::LAZY_LAG`] of them.
//! 2. The history's mark only shows how much is left to fold. A reader of a history folds first.
//! 3. The history is folded in parts, each in its own commit, so that a writer waits for one part
//!    and not for the whole log.

use std::collections::BTreeMap;

use fieldbook_core::limits;
use fieldbook_core::log::StoreError;
use fieldbook_core::rows::{StateRow, TailRow};
use fieldbook_core::tail::Tail;
use fieldbook_core::{OpPlace, Seq};

use crate::access::{DiskTables, Tables, decode, encode};
use crate::effects::TailEffect;
use crate::log_view::LogView;
use crate::sorted::{BytesTable, SortedRow, write_sorted};
use crate::tables;
use crate::tables::Which;
use crate::touched::touched;

/// Returns whether so many entries were appended since the tail was folded, or so many of their ops
/// are in memory, that it should be folded now.
pub const fn tail_is_due(state: &StateRow, head: Seq, in_memory: usize) -> bool {
    head.since(state.tail_folded) >= limits::LAZY_LAG || in_memory as u64 >= OPS_IN_MEMORY
}

/// The number of ops of the tail in memory after which its table is folded.
const OPS_IN_MEMORY: u64 = 4 * limits::LAZY_LAG;

/// Folds the tail's table up to the head, with its sum and the table of references. `tail` is the
/// tail before this transaction. `effects` are the changes of this transaction.
///
/// # Errors
/// [`StoreError`] if a table cannot be read or written.
pub fn fold_tail(
    tables: &mut DiskTables<'_>,
    tail: &Tail,
    effects: &[TailEffect],
    head: Seq,
) -> Result<(), StoreError> {
    let mut state = tables.state()?;
    let mut references = References::default();
    // These ops were never in the table.
    let mut fresh: BTreeMap<OpPlace, &TailRow> = BTreeMap::new();
    for (place, row) in tail.in_memory() {
        state.tail.add(row);
        fresh.insert(place, row);
    }
    let table = tables.which(Which::Tail)?;
    for effect in effects {
        let (place, row) = match effect {
            TailEffect::Insert(place, row) | TailEffect::Replace(place, row) => (*place, Some(row)),
            TailEffect::Remove(place) => (*place, None),
            _ => continue,
        };
        if place.seq > state.tail_folded {
            let before = match row {
                Some(row) => fresh.insert(place, row),
                None => fresh.remove(&place),
            };
            before.into_iter().for_each(|before| state.tail.remove(before));
        } else if let Some(before) = put(table, place, row)? {
            state.tail.remove(&before);
            references.set(place, &before, false);
        }
        if let Some(row) = row {
            state.tail.add(row);
            if place.seq <= state.tail_folded {
                references.set(place, row, true);
            }
        }
    }
    let rows = fresh
        .iter()
        .map(|(place, row)| Ok(SortedRow::new(tables::place_key(*place).to_vec(), encode(*row)?)));
    write_sorted(table, rows)?;
    fresh.iter().for_each(|(place, row)| references.set(*place, row, true));
    if !references.0.is_empty() {
        write_sorted(tables.which(Which::References)?, references.0.into_iter().map(sorted))?;
    }
    state.tail_folded = head;
    tables.put_state(state)
}

/// Writes or removes the row of an op, and returns the row before.
fn put(
    table: &mut BytesTable<'_>,
    place: OpPlace,
    row: Option<&TailRow>,
) -> Result<Option<TailRow>, StoreError> {
    let key = tables::place_key(place);
    let before = match row {
        Some(row) => table.insert(key.as_slice(), encode(row)?.as_slice()),
        None => table.remove(key.as_slice()),
    };
    let before = before.map_err(StoreError::during("folding the tail"))?;
    before.map(|before| decode(before.value())).transpose()
}

/// The rows of the table of references that change, in the order of their keys; `None` to remove
/// one.
#[derive(Default)]
pub(crate) struct References(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl References {
    /// Sets or removes the rows of an op.
    pub(crate) fn set(&mut self, place: OpPlace, row: &TailRow, stands: bool) {
        let targets = row.targets().map(|target| (target, REFERS));
        for (target, how) in targets.chain(row.led_away.iter().map(|target| (target, LEADS_AWAY))) {
            let key = tables::of_record_key(target, place.seq, place.index);
            self.0.insert(key, stands.then(|| vec![how]));
        }
    }

    /// Returns the rows of a table that had none before.
    pub(crate) fn into_rows(self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        self.0.into_iter().filter_map(|(key, how)| Some((key, how?)))
    }
}

/// In the table of references: the op refers to the record.
const REFERS: u8 = 0;
/// In the table of references: the op removes a reference to the record.
pub(crate) const LEADS_AWAY: u8 = 1;

fn sorted((key, value): (Vec<u8>, Option<Vec<u8>>)) -> Result<SortedRow, StoreError> {
    Ok(SortedRow { key, value, is_new: false })
}

/// The number of entries of the history that one commit folds, and the number of rows after which
/// it ends. Each row needs a few microseconds.
const HISTORY_AT_ONCE: usize = 4_096;

/// Folds the next part of the history's table, at most up to the head. The mark shows its progress.
///
/// # Errors
/// [`StoreError`] if a table or the log cannot be read or written.
pub fn fold_history(
    tables: &mut DiskTables<'_>,
    log: &impl LogView,
    head: Seq,
) -> Result<(), StoreError> {
    let mut state = tables.state()?;
    let mut keys = Vec::new();
    for _ in 0..HISTORY_AT_ONCE {
        let next = log.next_place(state.history_folded.next())?;
        let Some(seq) = next.filter(|seq| *seq <= head && keys.len() < HISTORY_AT_ONCE) else {
            break;
        };
        let entry = log.existing(seq)?;
        let touched = touched(&entry, log)?;
        keys.extend(touched.keys.into_iter().map(|key| tables::history_key(&key, seq)));
        keys.extend(touched.book.then(|| tables::book_history_key(seq)));
        state.history_folded = seq;
    }
    keys.sort_unstable();
    let table = tables.which(Which::History)?;
    // Keys contain the entry, so no key after the mark was ever in the table.
    write_sorted(table, keys.into_iter().map(|key| Ok(SortedRow::new(key, Vec::new()))))?;
    tables.put_state(state)
}
