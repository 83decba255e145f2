//! The tables in memory. A rebuild folds everything in memory before it writes anything, and a
//! replay uses them too.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook_core::entry::{ErasedRecords, Winner};
use fieldbook_core::log::StoreError;
use fieldbook_core::record::Pending;
use fieldbook_core::rows::{
    Confirmed, ConflictRow, CursorRow, DeadLetterRow, ParkedOpRow, RecordRow, StateRow, UnitRow,
    Visible,
};
use fieldbook_core::{EntityType, FieldsJson, OpId, RecordKey, Seq, UnitId};
use foldhash::HashMap;

use crate::access::Tables;

/// The tables folded from some entries, in memory.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "each field is a table, described in `tables`")]
pub struct MemoryTables {
    pub records: HashMap<RecordKey, RecordRow>,
    pub units: BTreeMap<UnitId, UnitRow>,
    pub conflicts: BTreeMap<(Seq, u32), ConflictRow>,
    pub conflicts_of: BTreeMap<RecordKey, Vec<(Seq, u32)>>,
    pub parked_ops: BTreeMap<OpId, ParkedOpRow>,
    pub dead_letters: BTreeMap<OpId, DeadLetterRow>,
    pub cursors: BTreeMap<EntityType, CursorRow>,
    pub undeclared: BTreeSet<(RecordKey, Seq, u32)>,
    pub state: StateRow,
    /// The only records that are folded; none to fold all.
    pub only: Option<BTreeSet<RecordKey>>,
}

fn put<K: Ord, V>(table: &mut BTreeMap<K, V>, key: K, row: Option<V>) {
    match row {
        Some(row) => drop(table.insert(key, row)),
        None => drop(table.remove(&key)),
    }
}

impl Tables for MemoryTables {
    fn concerns(&self, key: &RecordKey) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(key))
    }

    fn record(&mut self, key: &RecordKey) -> Result<Option<RecordRow>, StoreError> {
        Ok(self.records.get(key).cloned())
    }

    fn take_record(&mut self, key: &RecordKey) -> Result<Option<RecordRow>, StoreError> {
        Ok(self.records.get_mut(key).map(std::mem::take))
    }

    fn put_record(&mut self, key: &RecordKey, row: Option<RecordRow>) -> Result<(), StoreError> {
        // A unit can have records that are folded and others that are not.
        if !self.concerns(key) {
            return Ok(());
        }
        match (row, self.records.get_mut(key)) {
            (Some(row), Some(place)) => *place = row,
            (Some(row), None) => drop(self.records.insert(key.clone(), row)),
            (None, _) => drop(self.records.remove(key)),
        }
        Ok(())
    }

    fn confirmed(&mut self, key: &RecordKey) -> Result<Option<Confirmed>, StoreError> {
        Ok(self.records.get(key).and_then(|row| row.confirmed.clone()))
    }

    fn seen(&mut self, key: &RecordKey) -> Result<(Option<FieldsJson>, bool), StoreError> {
        let row = self.records.get(key);
        let has_tail = row.is_some_and(|row| !row.tail.is_empty());
        Ok((row.and_then(RecordRow::image).cloned(), has_tail))
    }

    fn push_op(
        &mut self,
        key: &RecordKey,
        op: Pending,
        visible: Visible,
    ) -> Result<(), StoreError> {
        let row = match self.records.get_mut(key) {
            Some(row) => row,
            None => self.records.entry(key.clone()).or_default(),
        };
        row.push(op, visible);
        Ok(())
    }

    fn unit(&mut self, id: &UnitId) -> Result<Option<UnitRow>, StoreError> {
        Ok(self.units.get(id).cloned())
    }

    fn put_unit(&mut self, id: &UnitId, row: Option<UnitRow>) -> Result<(), StoreError> {
        put(&mut self.units, *id, row);
        Ok(())
    }

    fn units(&mut self) -> Result<Vec<(UnitId, UnitRow)>, StoreError> {
        Ok(self.units.iter().map(|(id, row)| (*id, row.clone())).collect())
    }

    fn put_conflict(&mut self, seq: Seq, number: u32, row: ConflictRow) -> Result<(), StoreError> {
        self.conflicts_of.entry(row.key.clone()).or_default().push((seq, number));
        drop(self.conflicts.insert((seq, number), row));
        Ok(())
    }

    fn close_conflicts(
        &mut self,
        key: &RecordKey,
        op: &OpId,
        winner: Winner,
        merged: Option<&FieldsJson>,
    ) -> Result<(), StoreError> {
        for at in self.conflicts_of.get(key).into_iter().flatten() {
            if let Some(conflict) =
                self.conflicts.get_mut(at).filter(|conflict| conflict.op.id == *op)
            {
                conflict.close(winner, merged);
            }
        }
        Ok(())
    }

    fn park_of(&mut self, op: &OpId) -> Result<Option<ParkedOpRow>, StoreError> {
        Ok(self.parked_ops.get(op).cloned())
    }

    fn put_park_of(&mut self, op: &OpId, row: Option<ParkedOpRow>) -> Result<(), StoreError> {
        put(&mut self.parked_ops, *op, row);
        Ok(())
    }

    fn dead_letter(&mut self, op: &OpId) -> Result<Option<DeadLetterRow>, StoreError> {
        Ok(self.dead_letters.get(op).cloned())
    }

    fn put_dead_letter(&mut self, op: &OpId, row: Option<DeadLetterRow>) -> Result<(), StoreError> {
        put(&mut self.dead_letters, *op, row);
        Ok(())
    }

    fn put_cursor(&mut self, entity: &EntityType, row: CursorRow) -> Result<(), StoreError> {
        drop(self.cursors.insert(entity.clone(), row));
        Ok(())
    }

    fn put_undeclared(&mut self, key: &RecordKey, seq: Seq, number: u32) -> Result<(), StoreError> {
        self.undeclared.insert((key.clone(), seq, number));
        Ok(())
    }

    fn remove_undeclared(
        &mut self,
        key: &RecordKey,
        seq: Seq,
        number: u32,
    ) -> Result<(), StoreError> {
        self.undeclared.remove(&(key.clone(), seq, number));
        Ok(())
    }

    fn await_confirmation(&mut self) -> Result<(), StoreError> {
        self.cursors.clear();
        self.undeclared.clear();
        self.records.values_mut().for_each(RecordRow::await_confirmation);
        Ok(())
    }

    fn erase(&mut self, erased: &ErasedRecords) -> Result<(), StoreError> {
        let records = &mut self.records;
        records.retain(|key, row| !erased.has(key) || !row.tail.is_empty());
        let stays = |key: &RecordKey| !erased.has(key) || records.contains_key(key);
        let conflicts = &mut self.conflicts;
        self.conflicts_of.retain(|key, places| {
            let stays = stays(key);
            if !stays {
                places.iter().for_each(|place| drop(conflicts.remove(place)));
            }
            stays
        });
        self.undeclared.retain(|(key, ..)| !erased.has(key));
        if matches!(erased, ErasedRecords::Except(_)) {
            self.cursors.clear();
        }
        Ok(())
    }

    fn unconfirmed(&mut self) -> Result<Vec<RecordKey>, StoreError> {
        // In the order of keys, as on disk: the order of a hash map must not affect the fold.
        let waiting = self.records.iter().filter(|(_, row)| row.awaits_confirmation());
        let mut keys: Vec<_> = waiting.map(|(key, _)| key.clone()).collect();
        keys.sort_unstable_by_key(RecordKey::to_bytes);
        Ok(keys)
    }

    fn state(&mut self) -> Result<StateRow, StoreError> {
        Ok(self.state.clone())
    }

    fn put_state(&mut self, row: StateRow) -> Result<(), StoreError> {
        self.state = row;
        Ok(())
    }
}
