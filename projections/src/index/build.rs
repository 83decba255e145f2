//! Building the indexes that a book does not have yet, and dropping those that it no longer needs.

use fieldbook_core::index::{EntityIndexes, IndexRule};
use fieldbook_core::log::StoreError;
use fieldbook_core::{EntityType, Schema};
use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::{Indexes, IndexesOnFile};
use crate::access::view;
use crate::read::{entity_types, id_of};
use crate::sorted::{BytesTable, SortedRow, write_sorted};
use crate::tables;

/// The number of keys that are sorted together. They are in memory, and each such part is written
/// in order.
const SORTED_TOGETHER: usize = 250_000;
/// The number of records after which the progress is told.
const TOLD_AFTER: u64 = 1_000;

impl Indexes {
    /// Turns the indexes of a book into these, within one transaction. Those that are new, have
    /// another shape or are of another version are built from the records. Those that are not among
    /// these are dropped. `progress` is called with the number of records read so far, and with the
    /// number of all rows of records, of which not all need to be read.
    ///
    /// # Errors
    /// [`StoreError`] if a table cannot be read or written.
    pub fn build(
        &self,
        transaction: &WriteTransaction,
        on_file: &IndexesOnFile,
        schema: &Schema,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<(), StoreError> {
        let present = on_file.present(schema);
        {
            let open = |definition| transaction.open_table(definition);
            let records = open(tables::RECORDS).map_err(StoreError::during(BUILDING))?;
            let table = open(tables::INDEXES).map_err(StoreError::during(BUILDING))?;
            let rows = records.len().map_err(StoreError::during(BUILDING))?;
            let mut building = Building { table, keys: Vec::new(), read: 0, rows };
            for entity in entity_types(&records)? {
                let (has, wants) = (present.of(&entity), self.of(&entity));
                // Keys of another form are of no use.
                let is_kept = has.form() == wants.form();
                let has = |rule: &IndexRule| is_kept && has.rules().contains(rule);
                let goes = |rule: &&IndexRule| !wants.rules().contains(rule) || !has(rule);
                for rule in on_file.rules(&entity).iter().filter(goes) {
                    building.drop_index(&entity, rule)?;
                }
                let new = wants.clone().filtered(|rule| !has(rule));
                if !new.is_empty() {
                    building.build(&records, &entity, &new, &mut progress)?;
                }
            }
            building.write()?;
        }
        self.put_on_file(transaction)
    }
}

/// The indexes that are being built.
struct Building<'t> {
    table: BytesTable<'t>,
    /// Keys that are not written yet.
    keys: Vec<Vec<u8>>,
    read: u64,
    rows: u64,
}

impl Building<'_> {
    fn drop_index(&mut self, entity: &EntityType, rule: &IndexRule) -> Result<(), StoreError> {
        let from = rule.prefix(entity);
        let to = tables::after_prefix(&from).unwrap_or_default();
        let dropped = self.table.retain_in(from.as_slice()..to.as_slice(), |_, _| false);
        dropped.map_err(StoreError::during("dropping an index"))
    }

    fn build(
        &mut self,
        records: &BytesTable<'_>,
        entity: &EntityType,
        indexes: &EntityIndexes,
        progress: &mut impl FnMut(u64, u64),
    ) -> Result<(), StoreError> {
        let from = [entity.as_str().as_bytes(), &[0]].concat();
        let to = tables::after_prefix(&from).unwrap_or_default();
        let rows = records.range(from.as_slice()..to.as_slice());
        for row in rows.map_err(StoreError::during(BUILDING))? {
            let (key, stored) = row.map_err(StoreError::during(BUILDING))?;
            if let Some(image) = view(stored.value())?.image {
                let keys = indexes.keys(entity, id_of(key.value(), from.len())?, image);
                let keys = keys.map_err(|fault| StoreError::corrupt("stored fields", None, fault));
                self.keys.extend(keys?);
            }
            self.read += 1;
            if self.read.is_multiple_of(TOLD_AFTER) {
                progress(self.read, self.rows);
            }
            if self.keys.len() >= SORTED_TOGETHER {
                self.write()?;
            }
        }
        progress(self.read, self.rows);
        Ok(())
    }

    /// Writes the keys in order. None of them is in the table.
    fn write(&mut self) -> Result<(), StoreError> {
        self.keys.sort_unstable();
        let rows = self.keys.drain(..).map(|key| Ok(SortedRow::new(key, Vec::new())));
        write_sorted(&mut self.table, rows)
    }
}

const BUILDING: &str = "building an index";
