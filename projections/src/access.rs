//! Typed access to the tables, on disk or in memory. Folding is written once, over [`Tables`].

use std::collections::BTreeMap;

use fieldbook_core::codec::{self, Stored};
use fieldbook_core::log::StoreError;
use fieldbook_core::rows::{ConflictRow, CursorRow, DeadLetterRow, RecordRow, StateRow, UnitRow};
use fieldbook_core::{EntityType, OpId, RecordKey, Seq, UnitId};
use redb::{ReadableTable, Table, WriteTransaction};

use crate::tables;

/// The tables that [`crate::apply`] reads and writes. `None` as a row takes it away.
#[expect(missing_docs, reason = "each pair reads and writes one table, described in `tables`")]
pub trait Tables {
    fn record(&mut self, key: &RecordKey) -> Result<Option<RecordRow>, StoreError>;
    fn put_record(&mut self, key: &RecordKey, row: Option<RecordRow>) -> Result<(), StoreError>;
    fn unit(&mut self, id: &UnitId) -> Result<Option<UnitRow>, StoreError>;
    fn put_unit(&mut self, id: &UnitId, row: Option<UnitRow>) -> Result<(), StoreError>;
    fn put_conflict(&mut self, seq: Seq, number: u32, row: ConflictRow) -> Result<(), StoreError>;
    fn close_conflicts(&mut self, key: &RecordKey, op: &OpId) -> Result<(), StoreError>;
    fn dead_letter(&mut self, op: &OpId) -> Result<Option<DeadLetterRow>, StoreError>;
    fn put_dead_letter(&mut self, op: &OpId, row: Option<DeadLetterRow>) -> Result<(), StoreError>;
    fn put_cursor(&mut self, entity: &EntityType, row: CursorRow) -> Result<(), StoreError>;
    fn put_aside(&mut self, key: &RecordKey, seq: Seq, number: u32) -> Result<(), StoreError>;
    fn remove_aside(&mut self, key: &RecordKey, seq: Seq, number: u32) -> Result<(), StoreError>;
    fn state(&mut self) -> Result<StateRow, StoreError>;
    fn put_state(&mut self, row: StateRow) -> Result<(), StoreError>;
}

type BytesTable<'t> = Table<'t, &'static [u8], &'static [u8]>;

/// The tables of a write transaction, each opened when it is first needed: an append of the app opens records only.
pub struct DiskTables<'t> {
    transaction: &'t WriteTransaction,
    open: BTreeMap<Which, BytesTable<'t>>,
    state: Option<StateRow>,
}

impl<'t> DiskTables<'t> {
    /// Works within this transaction.
    pub const fn new(transaction: &'t WriteTransaction) -> Self {
        Self { transaction, open: BTreeMap::new(), state: None }
    }

    /// Works within this transaction, whose state row is known.
    pub const fn with_state(transaction: &'t WriteTransaction, state: StateRow) -> Self {
        Self { transaction, open: BTreeMap::new(), state: Some(state) }
    }

    /// Returns the transaction, for tables that are not among [`Which`].
    pub(crate) const fn transaction(&self) -> &'t WriteTransaction {
        self.transaction
    }

    pub(crate) fn which(&mut self, which: Which) -> Result<&mut BytesTable<'t>, StoreError> {
        match self.open.entry(which) {
            std::collections::btree_map::Entry::Occupied(open) => Ok(open.into_mut()),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                let table = self.transaction.open_table(which.definition());
                Ok(vacant.insert(table.map_err(StoreError::during("opening a table"))?))
            }
        }
    }

    fn get<T: Stored>(&mut self, which: Which, key: &[u8]) -> Result<Option<T>, StoreError> {
        let table = self.which(which)?;
        let stored = table.get(key).map_err(StoreError::during("reading a row"))?;
        stored.map(|stored| decode(stored.value())).transpose()
    }

    fn put<T: Stored>(&mut self, which: Which, key: &[u8], row: Option<&T>) -> Result<(), StoreError> {
        let bytes = row.map(encode).transpose()?;
        let table = self.which(which)?;
        match bytes {
            Some(bytes) => {
                drop(table.insert(key, bytes.as_slice()).map_err(StoreError::during("writing a row"))?)
            }
            None => drop(table.remove(key).map_err(StoreError::during("taking a row away"))?),
        }
        Ok(())
    }
}

/// A table by its place in the source, so that a name and its definition cannot be mixed up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Which {
    Records,
    Units,
    Conflicts,
    DeadLetters,
    Cursors,
    State,
    Tail,
    History,
    Aside,
    Indexes,
}

impl Which {
    pub(crate) const ALL: [Self; 10] = [
        Self::Records,
        Self::Units,
        Self::Conflicts,
        Self::DeadLetters,
        Self::Cursors,
        Self::State,
        Self::Tail,
        Self::History,
        Self::Aside,
        Self::Indexes,
    ];

    pub(crate) const fn definition(self) -> redb::TableDefinition<'static, &'static [u8], &'static [u8]> {
        match self {
            Self::Records => tables::RECORDS,
            Self::Units => tables::UNITS,
            Self::Conflicts => tables::CONFLICTS,
            Self::DeadLetters => tables::DEAD_LETTERS,
            Self::Cursors => tables::CURSORS,
            Self::State => tables::STATE,
            Self::Tail => tables::TAIL,
            Self::History => tables::HISTORY,
            Self::Aside => tables::ASIDE,
            Self::Indexes => tables::INDEXES,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::Units => "units",
            Self::Conflicts => "conflicts",
            Self::DeadLetters => "dead letters",
            Self::Cursors => "cursors",
            Self::State => "state",
            Self::Tail => "tail",
            Self::History => "history",
            Self::Aside => "aside",
            Self::Indexes => "indexes",
        }
    }
}

impl Tables for DiskTables<'_> {
    fn record(&mut self, key: &RecordKey) -> Result<Option<RecordRow>, StoreError> {
        self.get(Which::Records, &key.to_bytes())
    }

    fn put_record(&mut self, key: &RecordKey, row: Option<RecordRow>) -> Result<(), StoreError> {
        self.put(Which::Records, &key.to_bytes(), row.as_ref())
    }

    fn unit(&mut self, id: &UnitId) -> Result<Option<UnitRow>, StoreError> {
        self.get(Which::Units, &tables::unit_key(id))
    }

    fn put_unit(&mut self, id: &UnitId, row: Option<UnitRow>) -> Result<(), StoreError> {
        self.put(Which::Units, &tables::unit_key(id), row.as_ref())
    }

    fn put_conflict(&mut self, seq: Seq, number: u32, row: ConflictRow) -> Result<(), StoreError> {
        self.put(Which::Conflicts, &tables::conflict_key(seq, number), Some(&row))
    }

    fn close_conflicts(&mut self, key: &RecordKey, op: &OpId) -> Result<(), StoreError> {
        let table = self.which(Which::Conflicts)?;
        let mut open = Vec::new();
        for row in table.iter().map_err(StoreError::during("reading conflicts"))? {
            let (at, stored) = row.map_err(StoreError::during("reading conflicts"))?;
            let mut conflict: ConflictRow = decode(stored.value())?;
            if conflict.open && conflict.key == *key && conflict.op.id == *op {
                conflict.open = false;
                open.push((at.value().to_vec(), conflict));
            }
        }
        open.iter().try_for_each(|(at, row)| self.put(Which::Conflicts, at, Some(row)))
    }

    fn dead_letter(&mut self, op: &OpId) -> Result<Option<DeadLetterRow>, StoreError> {
        self.get(Which::DeadLetters, &tables::op_key(op))
    }

    fn put_dead_letter(&mut self, op: &OpId, row: Option<DeadLetterRow>) -> Result<(), StoreError> {
        self.put(Which::DeadLetters, &tables::op_key(op), row.as_ref())
    }

    fn put_cursor(&mut self, entity: &EntityType, row: CursorRow) -> Result<(), StoreError> {
        self.put(Which::Cursors, tables::cursor_key(entity), Some(&row))
    }

    fn put_aside(&mut self, key: &RecordKey, seq: Seq, number: u32) -> Result<(), StoreError> {
        let at = tables::aside_key(key, seq, number);
        let table = self.which(Which::Aside)?;
        drop(table.insert(at.as_slice(), [].as_slice()).map_err(StoreError::during("writing a row"))?);
        Ok(())
    }

    fn remove_aside(&mut self, key: &RecordKey, seq: Seq, number: u32) -> Result<(), StoreError> {
        let at = tables::aside_key(key, seq, number);
        let table = self.which(Which::Aside)?;
        drop(table.remove(at.as_slice()).map_err(StoreError::during("taking a row away"))?);
        Ok(())
    }

    fn state(&mut self) -> Result<StateRow, StoreError> {
        if self.state.is_none() {
            self.state = Some(self.get(Which::State, &[])?.unwrap_or_default());
        }
        Ok(self.state.clone().unwrap_or_default())
    }

    fn put_state(&mut self, row: StateRow) -> Result<(), StoreError> {
        self.put(Which::State, &[], Some(&row))?;
        self.state = Some(row);
        Ok(())
    }
}

pub(crate) fn decode<T: Stored>(bytes: &[u8]) -> Result<T, StoreError> {
    codec::decode(bytes).map_err(|fault| StoreError::corrupt("a row; run `fieldbook rebuild`", None, fault))
}

pub(crate) fn encode<T: Stored>(row: &T) -> Result<Vec<u8>, StoreError> {
    codec::encode(row).map_err(|fault| StoreError::corrupt("a row is too large to be stored", None, fault))
}
