//! Checks every row of every table of a book and reports the rows that cannot be read, for
//! `verify`.
//!
//! Invariants:
//! 1. Every row of every table is read: its key, its value, and the fields within it.
//! 2. A row that names an entry after the end of the log is reported: the log was longer when the
//!    row was written.
//! 3. Faults are reported, not returned as an error: the next table is checked all the same.
//!
//! What it does not do: compare the tables with a fold of the log. `rebuild` is for that.

use std::fmt;

use fieldbook_core::codec::Stored;
use fieldbook_core::index::IndexShapes;
use fieldbook_core::log::{StoreError, catch_storage_panic};
use fieldbook_core::record::Pending;
use fieldbook_core::rows::{
    ConflictRow, CursorRow, DeadLetterRow, FOLD_VERSION, ParkedOpRow, StateRow, StoredRecord,
    TailRow, UnitRow,
};
use fieldbook_core::{EntityType, FieldsJson, OpPlace, RecordKey, Seq};
use redb::{ReadTransaction, ReadableTable, TableHandle};

use crate::access::{decode, encode};
use crate::index::entity_of;
use crate::read::TableDump;
use crate::sum;
use crate::tables::{self, INDEX_SHAPES, Which};

/// A fault of a table, with the table's name.
#[derive(Debug, thiserror::Error)]
#[error("the table of {table}: {what}")]
pub struct TableFault {
    /// The name of the table.
    pub table: String,
    /// The fault.
    pub what: TableFaultKind,
}

/// The fault of a table.
#[derive(Debug)]
#[non_exhaustive]
pub enum TableFaultKind {
    /// The table, or the rest of it, could not be read.
    Unreadable {
        /// The number of rows that were read before.
        rows: u64,
    },
    /// Rows that cannot be read.
    Rows {
        /// The number of these rows.
        count: u64,
    },
    /// The table names an entry that the log does not have.
    BehindTheLog {
        /// The entry.
        named: Seq,
        /// The last entry of the log.
        last: Seq,
    },
}

impl fmt::Display for TableFaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { rows: 0 } => f.write_str("it could not be read"),
            Self::Unreadable { rows } => write!(f, "it could not be read beyond row {rows}"),
            Self::Rows { count: 1 } => f.write_str("1 row does not read"),
            Self::Rows { count } => write!(f, "{count} rows do not read"),
            Self::BehindTheLog { named, last } => {
                write!(
                    f,
                    "it knows of entry {named}, but the log ends at entry {last}: its end is missing"
                )
            }
        }
    }
}

impl TableDump {
    /// Returns whether this is the table of indexes.
    pub fn is_of_indexes(&self) -> bool {
        self.name == Which::Indexes.name()
    }

    /// Returns the table without the parts that depend on the app's declarations and are not on
    /// record: the references of ops.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn without_declared(mut self) -> Result<Self, StoreError> {
        if self.name == Which::References.name() {
            self.rows.clear();
        }
        if self.name == Which::Tail.name() {
            for (_, value) in &mut self.rows {
                *value = encode(&TailRow { references: Vec::new(), ..decode(value)? })?;
            }
        }
        Ok(self)
    }
}

/// Checks every row of every table. `begin` opens the book again: after a table that could not be
/// read, its transaction must not be used any more. `last` is the last entry of the log.
///
/// # Errors
/// Those of `begin`.
pub fn examine_tables(
    mut begin: impl FnMut() -> Result<ReadTransaction, StoreError>,
    last: Seq,
    mut on_fault: impl FnMut(TableFault),
) -> Result<(), StoreError> {
    let mut transaction = begin()?;
    // The next opening folds rows of an older format again, so they need not be readable.
    let mut is_present = true;
    let others: Vec<String> = catch_storage_panic(|| app_tables(&transaction)).unwrap_or_default();
    let folded = [Which::State]
        .into_iter()
        .chain(Which::ALL.into_iter().filter(|which| *which != Which::State));
    let tables = folded.map(|which| (which.name().to_owned(), Some(which)));
    for (name, which) in tables.chain(others.into_iter().map(|name| (name, None))) {
        let mut looked = Looked { last, ..Looked::default() };
        let whole = catch_storage_panic(|| match which {
            Some(which) => look_at(&transaction, which, is_present, &mut looked),
            None if name == INDEX_SHAPES.name() => look_at_shapes(&transaction, &mut looked),
            None => look_at_app_table(&transaction, &name, &mut looked),
        });
        if which == Some(Which::State) {
            is_present = looked.format.is_none_or(|format| format == FOLD_VERSION);
        }
        let is_whole = whole.is_ok();
        looked.faults(is_whole).for_each(|what| on_fault(TableFault { table: name.clone(), what }));
        if !is_whole {
            let damaged = std::mem::replace(&mut transaction, begin()?);
            drop(catch_storage_panic(|| {
                drop(damaged);
                Ok::<_, StoreError>(())
            }));
        }
    }
    Ok(())
}

/// The findings in a table.
#[derive(Default)]
struct Looked {
    last: Seq,
    rows: u64,
    unreadable: u64,
    named: Seq,
    format: Option<u32>,
}

impl Looked {
    fn names(&mut self, seq: Seq) {
        self.named = self.named.max(seq);
    }

    fn faults(self, is_whole: bool) -> impl Iterator<Item = TableFaultKind> {
        let unreadable = (!is_whole).then_some(TableFaultKind::Unreadable { rows: self.rows });
        let rows = (self.unreadable > 0).then_some(TableFaultKind::Rows { count: self.unreadable });
        let (named, last) = (self.named, self.last);
        let behind = (named > last).then_some(TableFaultKind::BehindTheLog { named, last });
        unreadable.into_iter().chain(rows).chain(behind)
    }
}

fn look_at(
    transaction: &ReadTransaction,
    which: Which,
    is_present: bool,
    looked: &mut Looked,
) -> Result<(), StoreError> {
    let table = match transaction.open_table(which.definition()) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(StoreError::during(READING)(error)),
    };
    for row in table.iter().map_err(StoreError::during(READING))? {
        let (key, value) = row.map_err(StoreError::during(READING))?;
        looked.rows += 1;
        if is_present && look_at_row(which, key.value(), value.value(), looked).is_none() {
            looked.unreadable += 1;
        }
    }
    Ok(())
}

fn app_tables(transaction: &ReadTransaction) -> Result<Vec<String>, StoreError> {
    let all = transaction.list_tables().map_err(StoreError::during(READING))?;
    let names = all.map(|table| table.name().to_owned());
    let is_of_app = |name: &String| {
        name.starts_with("app-") || name.starts_with("projections-") || name == INDEX_SHAPES.name()
    };
    Ok(names.filter(is_of_app).collect())
}

/// Checks the shapes of the indexes, which are on record for programs without the app's
/// declarations.
fn look_at_shapes(transaction: &ReadTransaction, looked: &mut Looked) -> Result<(), StoreError> {
    let table = transaction.open_table(INDEX_SHAPES).map_err(StoreError::during(READING))?;
    for row in table.iter().map_err(StoreError::during(READING))? {
        let (key, value) = row.map_err(StoreError::during(READING))?;
        looked.rows += 1;
        let reads =
            entity_of(key.value()).is_some() && read::<IndexShapes>(value.value()).is_some();
        looked.unreadable += u64::from(!reads);
    }
    Ok(())
}

/// Checks an app's own projection: its pages have to be readable, but its rows have a meaning for
/// the app only.
fn look_at_app_table(
    transaction: &ReadTransaction,
    name: &str,
    looked: &mut Looked,
) -> Result<(), StoreError> {
    let table = transaction.open_table(tables::app(name)).map_err(StoreError::during(READING))?;
    for row in table.iter().map_err(StoreError::during(READING))? {
        let (key, value) = row.map_err(StoreError::during(READING))?;
        looked.rows += u64::from(!key.value().is_empty() || !value.value().is_empty());
    }
    Ok(())
}

/// Reads a row; `None` if it cannot be read.
fn look_at_row(which: Which, key: &[u8], value: &[u8], looked: &mut Looked) -> Option<()> {
    match which {
        Which::Records => {
            RecordKey::from_bytes(key)?;
            let row: StoredRecord = read(value)?;
            row.ops_in_row().iter().for_each(|reference| looked.names(reference.place.seq));
            row.image().map_or(Some(()), is_fields)
        }
        Which::Pending => {
            let (_, seq, index) = tables::of_record_from_key(key)?;
            looked.names(seq);
            let op: Pending = read(value)?;
            (op.place == OpPlace { seq, index }).then_some(())
        }
        Which::Units => {
            <[u8; 16]>::try_from(key).ok()?;
            let row: UnitRow = read(value)?;
            looked.names(row.planned);
            row.changes
                .iter()
                .flat_map(|change| &change.ops)
                .for_each(|op| looked.names(op.place.seq));
            Some(())
        }
        Which::Conflicts => {
            let (seq, _) = tables::numbers(key)?;
            looked.names(seq);
            let row: ConflictRow = read(value)?;
            [&row.base, &row.local, &row.remote]
                .into_iter()
                .chain(&row.merged)
                .try_for_each(is_fields)
        }
        Which::OpenConflicts => {
            looked.names(tables::numbers(key)?.0);
            Some(())
        }
        Which::ConflictsOf => {
            looked.names(tables::of_record_from_key(key)?.1);
            <[u8; 16]>::try_from(value).map(drop).ok()
        }
        Which::ParkedOps => {
            <[u8; 16]>::try_from(key).ok()?;
            read::<ParkedOpRow>(value).map(drop)
        }
        Which::DeadLetters => {
            <[u8; 16]>::try_from(key).ok()?;
            let row: DeadLetterRow = read(value)?;
            looked.names(row.recorded);
            Some(())
        }
        Which::Cursors => {
            EntityType::parse(std::str::from_utf8(key).ok()?).ok()?;
            read::<CursorRow>(value).map(drop)
        }
        Which::State => {
            let Some(row) = read::<StateRow>(value) else {
                looked.format = StateRow::format_of(sum::take(value).unwrap_or(value));
                return looked.format.filter(|format| *format != FOLD_VERSION).map(drop);
            };
            looked.format = Some(row.format);
            let folded = [row.epoch_from, row.tail_folded, row.history_folded];
            folded.into_iter().for_each(|seq| looked.names(seq));
            Some(())
        }
        Which::Tail => {
            looked.names(tables::place_from_key(key)?.seq);
            read::<TailRow>(value).map(drop)
        }
        Which::References => {
            looked.names(tables::of_record_from_key(key)?.1);
            (value.len() == 1).then_some(())
        }
        Which::History => {
            looked.names(tables::history_from_key(key)?);
            Some(())
        }
        Which::Undeclared => {
            looked.names(tables::of_record_from_key(key)?.1);
            Some(())
        }
        Which::Indexes => (!key.is_empty()).then_some(()),
    }
}

fn read<T: Stored>(value: &[u8]) -> Option<T> {
    decode(value).ok()
}

fn is_fields(fields: &FieldsJson) -> Option<()> {
    fields.to_fields().ok().map(drop)
}

const READING: &str = "looking at a table";
