//! Throwing the tables away and folding them again: everything is folded in memory first, then written sorted in one
//! transaction, which costs a fraction of folding row by row on disk.

use std::collections::BTreeMap;

use fieldbook_core::log::{Appender, Head, StoreError, entries_from, guarded};
use fieldbook_core::rows::{StateRow, TailRow};
use fieldbook_core::{OpPlace, RecordKey, Schema, Seq};
use redb::{ReadableTable, WriteTransaction};

use crate::access::encode;
use crate::apply::apply;
use crate::effects::{Effects, TailEffect};
use crate::log_view::CachedLog;
use crate::memory::MemoryTables;
use crate::sorted::{SortedRow, write_sorted};
use crate::tables::Which;
use crate::{index, lazy, tables};

/// What a fold of the whole log comes to, in memory.
pub struct Rebuilt {
    tables: MemoryTables,
    tail: BTreeMap<OpPlace, TailRow>,
    history: Vec<Vec<u8>>,
}

/// Folds a log up to and including an entry, in memory. `progress` hears of every entry.
///
/// # Errors
/// [`StoreError`] if an entry does not read or names what is not there.
pub fn fold<T: ReadableTable<u64, &'static [u8]>>(
    entries: &T,
    schema: &Schema,
    up_to: Seq,
    mut progress: impl FnMut(Seq),
) -> Result<Rebuilt, StoreError> {
    let log = CachedLog::new(entries);
    let mut rebuilt = Rebuilt { tables: MemoryTables::default(), tail: BTreeMap::new(), history: Vec::new() };
    let mut effects = Effects::default();
    for entry in entries_from(entries, Seq::ZERO.next()) {
        let entry = entry?;
        if entry.header.seq > up_to {
            break;
        }
        apply(&mut rebuilt.tables, &log, schema, &entry, &mut effects)?;
        for effect in effects.tail.drain(..) {
            match effect {
                TailEffect::Insert(place, row) | TailEffect::Replace(place, row) => {
                    drop(rebuilt.tail.insert(place, row))
                }
                TailEffect::Remove(place) => drop(rebuilt.tail.remove(&place)),
                TailEffect::Dead(..)
                | TailEffect::Parked(..)
                | TailEffect::Unit(..)
                | TailEffect::UnitGone(_) => {}
            }
        }
        effects.records.clear();
        let seq = entry.header.seq;
        rebuilt.history.extend(lazy::touched(&entry, &log)?.iter().map(|key| tables::history_key(key, seq)));
        progress(seq);
    }
    rebuilt.history.sort_unstable();
    Ok(rebuilt)
}

impl Rebuilt {
    /// Returns the tables.
    pub const fn tables(&self) -> &MemoryTables {
        &self.tables
    }

    /// Returns the tail.
    pub const fn tail(&self) -> &BTreeMap<OpPlace, TailRow> {
        &self.tail
    }

    /// Returns which entries touched a record, record by record.
    pub fn history(&self) -> impl Iterator<Item = (RecordKey, Seq)> {
        self.history.iter().filter_map(|key| tables::history_from_key(key))
    }

    /// Writes everything in place of what is there.
    ///
    /// # Errors
    /// [`StoreError`] if the disk fails.
    pub fn write(
        &self,
        transaction: &WriteTransaction,
        schema: &Schema,
        head: Seq,
    ) -> Result<StateRow, StoreError> {
        for definition in tables::ALL {
            transaction.delete_table(definition).map_err(StoreError::during("taking a table away"))?;
        }
        let state = StateRow { tail_folded: head, history_folded: head, ..self.tables.state.clone() };
        let memory = &self.tables;
        let mut records: Vec<_> =
            memory.records.iter().map(|(key, row)| (key.to_bytes(), key, row)).collect();
        records.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        let mut indexes = Vec::new();
        for (_, key, row) in &records {
            let declared =
                schema.rules(&key.entity).map(|rules| rules.indexes.as_slice()).unwrap_or_default();
            if !declared.is_empty() {
                indexes.extend(index::keys(declared, key, row.image())?);
            }
        }
        indexes.sort_unstable();
        let nothing = Vec::new;
        put_all(
            transaction,
            Which::Records,
            records.into_iter().map(|(key, _, row)| Ok((key, encode(row)?))),
        )?;
        put_all(
            transaction,
            Which::Units,
            memory.units.iter().map(|(id, row)| Ok((tables::unit_key(id).to_vec(), encode(row)?))),
        )?;
        memory.write_conflicts(transaction)?;
        let parked = memory.parked_ops.iter();
        let parked = parked.map(|(op, row)| Ok((tables::op_key(op).to_vec(), encode(row)?)));
        put_all(transaction, Which::ParkedOps, parked)?;
        let dead = memory.dead_letters.iter();
        put_all(
            transaction,
            Which::DeadLetters,
            dead.map(|(op, row)| Ok((tables::op_key(op).to_vec(), encode(row)?))),
        )?;
        let cursors = memory.cursors.iter();
        put_all(
            transaction,
            Which::Cursors,
            cursors.map(|(entity, row)| Ok((tables::cursor_key(entity).to_vec(), encode(row)?))),
        )?;
        put_all(transaction, Which::State, [Ok((nothing(), encode(&state)?))].into_iter())?;
        let tail = self.tail.iter();
        put_all(
            transaction,
            Which::Tail,
            tail.map(|(place, row)| Ok((tables::place_key(*place).to_vec(), encode(row)?))),
        )?;
        put_all(transaction, Which::History, self.history.iter().map(|key| Ok((key.clone(), nothing()))))?;
        let aside = memory
            .aside
            .iter()
            .map(|(key, seq, number)| Ok((tables::of_record_key(key, *seq, *number), nothing())));
        put_all(transaction, Which::Aside, aside)?;
        put_all(transaction, Which::Indexes, indexes.into_iter().map(|key| Ok((key, nothing()))))?;
        Ok(state)
    }
}

impl MemoryTables {
    fn write_conflicts(&self, transaction: &WriteTransaction) -> Result<(), StoreError> {
        let rows =
            || self.conflicts.iter().map(|((seq, number), row)| (tables::conflict_key(*seq, *number), row));
        let whole = rows().map(|(at, row)| Ok((at.to_vec(), encode(row)?)));
        put_all(transaction, Which::Conflicts, whole)?;
        let open = rows().filter(|(_, row)| row.open).map(|(at, _)| Ok((at.to_vec(), Vec::new())));
        put_all(transaction, Which::OpenConflicts, open)?;
        let of_record = self.conflicts.iter().map(|((seq, number), row)| {
            (tables::of_record_key(&row.key, *seq, *number), row.op.id.as_bytes().to_vec())
        });
        let mut of_record: Vec<_> = of_record.collect();
        of_record.sort_unstable();
        put_all(transaction, Which::ConflictsOf, of_record.into_iter().map(Ok))
    }
}

/// Rebuilds all tables of a book within a write transaction.
///
/// # Errors
/// [`StoreError`] if the log does not read or the disk fails.
pub fn rebuild(
    transaction: &WriteTransaction,
    schema: &Schema,
    head: Option<Head>,
    progress: impl FnMut(Seq),
) -> Result<StateRow, StoreError> {
    let up_to = head.map_or(Seq::ZERO, |head| head.seq);
    let rebuilt = {
        let appender = guarded(|| Appender::open(transaction, head))?;
        fold(appender.table(), schema, up_to, progress)?
        // The log's table is let go here, before damaged tables are touched: see `guarded`.
    };
    guarded(|| rebuilt.write(transaction, schema, up_to))
}

type Row = Result<(Vec<u8>, Vec<u8>), StoreError>;

/// Fills an empty table with rows in the order of their keys.
fn put_all(
    transaction: &WriteTransaction,
    which: Which,
    rows: impl Iterator<Item = Row>,
) -> Result<(), StoreError> {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let mut table =
        transaction.open_table(which.definition()).map_err(StoreError::during("opening a table"))?;
    guarded(|| write_sorted(&mut table, rows.map(|row| row.map(|(key, value)| SortedRow::new(key, value)))))
}
