//! Reading ops and items out of the log while folding or deciding.
//!
//! Ops of one transaction are in one entry, so the last entry is kept: a transaction of a thousand
//! ops is decoded once, not a thousand times.

use std::cell::RefCell;
use std::rc::Rc;

use fieldbook_core::entry::{Entry, FieldsSource, ItemIndex, Meta};
use fieldbook_core::log::{Appender, StoreError, next_place, read_entry_after};
use fieldbook_core::{Fields, FieldsJson, Hash, OpContent, OpPlace, Seq};
use redb::ReadableTable;

/// The source of the contents of ops and items, for folds and rules.
pub trait LogView {
    /// Returns an entry, or `None` if the log has no entry with that seq.
    ///
    /// # Errors
    /// [`StoreError`] if the entry cannot be read.
    fn entry(&self, seq: Seq) -> Result<Option<Rc<Entry>>, StoreError>;

    /// Returns the first place from a place on that has an entry: only a baseline has gaps.
    ///
    /// # Errors
    /// [`StoreError`] if the log cannot be read.
    fn next_place(&self, from: Seq) -> Result<Option<Seq>, StoreError>;

    /// Returns an entry that must exist.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it does not exist.
    fn existing(&self, seq: Seq) -> Result<Rc<Entry>, StoreError> {
        self.entry(seq)?.ok_or(StoreError::Corrupt {
            what: "an entry that another one names is missing",
            seq: Some(seq),
            source: None,
        })
    }

    /// Returns the content of an op.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the op does not exist.
    fn op(&self, place: OpPlace) -> Result<OpContent, StoreError> {
        let entry = self.existing(place.seq)?;
        op_of(&entry, place)
    }

    /// Returns an item as fields; `None` if it was erased.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the item is not an object of fields.
    fn item(&self, seq: Seq, index: ItemIndex) -> Result<Option<FieldsJson>, StoreError> {
        let entry = self.existing(seq)?;
        entry.fields(index).map_err(|fault| StoreError::corrupt("an item", seq, fault))
    }

    /// Returns the frozen fields of a planned change; `None` if it has no fields or they were
    /// erased.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the fields cannot be read.
    fn fields(&self, source: FieldsSource) -> Result<Option<FieldsJson>, StoreError> {
        match source {
            FieldsSource::Nothing => Ok(None),
            FieldsSource::Item(seq, index) => self.item(seq, index),
            FieldsSource::OfOp(place) => {
                let entry = self.existing(place.seq)?;
                match op_meta(&entry, place)?.fields {
                    Some(index) => self.item(place.seq, index),
                    None => Ok(None),
                }
            }
        }
    }
}

impl<L: LogView> LogView for &L {
    fn entry(&self, seq: Seq) -> Result<Option<Rc<Entry>>, StoreError> {
        (*self).entry(seq)
    }

    fn next_place(&self, from: Seq) -> Result<Option<Seq>, StoreError> {
        (*self).next_place(from)
    }
}

/// Reads the content of an op from its entry.
pub(crate) fn op_of(entry: &Entry, place: OpPlace) -> Result<OpContent, StoreError> {
    let meta = op_meta(entry, place)?;
    let fields = match meta.fields {
        Some(index) => entry
            .fields(index)
            .and_then(|json| json.map_or_else(|| Ok(Fields::new()), |json| json.to_fields())),
        None => Ok(Fields::new()),
    };
    Ok(OpContent {
        id: meta.id,
        kind: meta.kind,
        edited_at: meta.edited_at,
        schema_version: meta.schema_version,
        fields: fields.map_err(|fault| StoreError::corrupt("an op's fields", place.seq, fault))?,
    })
}

pub(crate) fn op_meta(
    entry: &Entry,
    place: OpPlace,
) -> Result<&fieldbook_core::entry::OpMeta, StoreError> {
    let missing = || StoreError::Corrupt {
        what: "an op that another entry names is missing",
        seq: Some(place.seq),
        source: None,
    };
    let Meta::Intent(intent) = &entry.meta else { return Err(missing()) };
    usize::try_from(place.index).ok().and_then(|index| intent.ops.get(index)).ok_or_else(missing)
}

/// A table of entries, owned or borrowed.
pub trait EntryTable {
    /// Reads an entry, with the hash of the entry before if it is known.
    ///
    /// # Errors
    /// [`StoreError`] if the entry cannot be read, or was altered after it was sealed.
    fn read(&self, seq: Seq, previous: Option<Hash>) -> Result<Option<Entry>, StoreError>;

    /// Returns the first place from a place on that has an entry.
    ///
    /// # Errors
    /// [`StoreError`] if the table cannot be read.
    fn next_place(&self, from: Seq) -> Result<Option<Seq>, StoreError>;
}

impl<T: ReadableTable<u64, &'static [u8]>> EntryTable for &T {
    fn read(&self, seq: Seq, previous: Option<Hash>) -> Result<Option<Entry>, StoreError> {
        read_entry_after(*self, seq, previous)
    }

    fn next_place(&self, from: Seq) -> Result<Option<Seq>, StoreError> {
        next_place(*self, from)
    }
}

/// The log as an appender has it, written or held.
pub struct Appended<'a, 't>(pub &'a Appender<'t>);

impl EntryTable for Appended<'_, '_> {
    fn read(&self, seq: Seq, previous: Option<Hash>) -> Result<Option<Entry>, StoreError> {
        self.0.read(seq, previous)
    }

    fn next_place(&self, from: Seq) -> Result<Option<Seq>, StoreError> {
        self.0.next_place(from)
    }
}

impl EntryTable for redb::ReadOnlyTable<u64, &'static [u8]> {
    fn read(&self, seq: Seq, previous: Option<Hash>) -> Result<Option<Entry>, StoreError> {
        read_entry_after(self, seq, previous)
    }

    fn next_place(&self, from: Seq) -> Result<Option<Seq>, StoreError> {
        next_place(self, from)
    }
}

/// The log's table with the entries that were read last.
pub struct CachedLog<T> {
    table: T,
    recent: RefCell<Vec<(Seq, Rc<Entry>)>>,
}

/// The number of entries that are kept. It is small, because entries are read again soon or not at
/// all.
const KEPT: usize = 4;

impl<T> CachedLog<T> {
    /// Makes a log that reads from this table.
    pub const fn new(table: T) -> Self {
        Self { table, recent: RefCell::new(Vec::new()) }
    }
}

impl<T: EntryTable> LogView for CachedLog<T> {
    fn entry(&self, seq: Seq) -> Result<Option<Rc<Entry>>, StoreError> {
        if let Some((_, entry)) = self.recent.borrow().iter().find(|(kept, _)| *kept == seq) {
            return Ok(Some(Rc::clone(entry)));
        }
        let before = |(kept, entry): &(Seq, Rc<Entry>)| (kept.next() == seq).then_some(entry.hash);
        let previous = self.recent.borrow().iter().find_map(before);
        let Some(entry) = self.table.read(seq, previous)?.map(Rc::new) else { return Ok(None) };
        let mut recent = self.recent.borrow_mut();
        if recent.len() >= KEPT {
            recent.remove(0);
        }
        recent.push((seq, Rc::clone(&entry)));
        Ok(Some(entry))
    }

    fn next_place(&self, from: Seq) -> Result<Option<Seq>, StoreError> {
        self.table.next_place(from)
    }
}
