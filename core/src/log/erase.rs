//! Copies a log without the values of some records.
//!
//! Invariants:
//! 1. Each entry of the copy has the hash of the original, so receipts, and archives that verified
//!    before, fit the copy.
//! 2. An entry that was altered is not copied: the copy fails.
//!
//! What it is not: an entry that says so. The caller appends it, in the same transaction.

use redb::{ReadableTable, WriteTransaction};

use super::entries::{ENTRIES, entries_from};
use super::error::StoreError;
use crate::entry::frame::Frame;
use crate::entry::{ErasedRecords, Erasure};
use crate::numbers::Seq;

/// Copies a log into an empty one, without the values of the records. Returns how many items were
/// erased for it.
///
/// # Errors
/// [`StoreError::Corrupt`] if an entry was altered or cannot be read; [`StoreError`] if the copy
/// cannot be written.
pub fn copy_without(
    log: &impl ReadableTable<u64, &'static [u8]>,
    copy: &WriteTransaction,
    records: &ErasedRecords,
) -> Result<u64, StoreError> {
    let during = StoreError::during::<redb::StorageError>;
    let mut table = copy.open_table(ENTRIES).map_err(StoreError::during(COPYING))?;
    let (mut erasure, mut erased) = (Erasure::of(records), 0);
    for entry in entries_from(log, Seq::ZERO) {
        let entry = entry?;
        let seq = entry.header.seq;
        let items = erasure.items_of(&entry);
        let present = (0..).zip(&entry.items).filter(|(_, item)| item.bytes().is_some());
        erased += present.filter(|(index, _)| items.contains(index)).count() as u64;
        let Some(stored) = log.get(seq.number()).map_err(during(COPYING))? else { continue };
        let frame = Frame::parse(stored.value());
        let frame = frame.map_err(|fault| StoreError::corrupt_entry(seq, fault))?;
        let bytes = frame.without(&items);
        table.insert(seq.number(), bytes.as_slice()).map_err(during(COPYING))?;
    }
    Ok(erased)
}

const COPYING: &str = "copying the log";

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::entry::{Draft, Intent, Items, Meta, OpMeta};
    use crate::ids::{Epoch, OpId};
    use crate::log::{Appender, Stamp, Store, StoreOptions, commit, entries, verify};
    use crate::names::{Actor, RecordKey};
    use crate::op::OpKind;
    use crate::random::SeededRandomness;
    use crate::time::{Hlc, WallTime};

    fn store() -> Store {
        Store::with_backend(InMemoryBackend::new(), &StoreOptions::default()).unwrap()
    }

    fn at_of(stored: &[u8]) -> Option<usize> {
        stored.windows(6).position(|bytes| bytes == b"Marked")
    }

    fn key(id: u64) -> RecordKey {
        format!("lead/{id}").parse().unwrap()
    }

    /// Makes a log with one creation of each of nine records.
    fn nine() -> Store {
        let (store, mut random) = (store(), SeededRandomness::from_number(1));
        let transaction = store.begin_write().unwrap();
        let mut appender = Appender::open(&transaction, None).unwrap();
        for number in 1..10 {
            let mut items = Items::default();
            let fields = Some(items.add(format!(r#"{{"name":"Marked{number}"}}"#), &mut random));
            let op = OpMeta {
                id: OpId::from_bytes([1; 16]),
                key: key(number),
                kind: OpKind::Create,
                edited_at: Hlc::from_bits(number),
                clock_capped: false,
                base: None,
                schema_version: 1,
                fields,
                cites: None,
            };
            let draft = Draft { meta: Meta::Intent(Intent { ops: vec![op] }), items };
            let stamp = Stamp {
                epoch: Epoch::from_bytes([1; 16]),
                hlc: Hlc::from_bits(number),
                wall: WallTime::from_milliseconds(1),
                actor: Actor::parse("ann").unwrap(),
            };
            appender.append(draft, stamp).unwrap();
        }
        drop(appender);
        commit(transaction).unwrap();
        store
    }

    fn copied(from: &Store, records: &ErasedRecords) -> (Store, u64) {
        let copy = store();
        let transaction = copy.begin_write().unwrap();
        let log = entries(&from.begin_read().unwrap()).unwrap();
        let erased = copy_without(&log, &transaction, records).unwrap();
        commit(transaction).unwrap();
        (copy, erased)
    }

    #[test]
    fn a_copy_without_the_values_of_records_has_the_hashes_of_the_whole_log() {
        let whole = nine();
        let (copy, erased) = copied(&whole, &ErasedRecords::except([key(4), key(2)]));
        assert_eq!(erased, 7);
        let log = entries(&copy.begin_read().unwrap()).unwrap();
        let verified = verify(&log, |_| {}).unwrap();
        assert_eq!(verified.erased_items, 7);
        let original = entries(&whole.begin_read().unwrap()).unwrap();
        assert_eq!(verified.head, verify(&original, |_| {}).unwrap().head);
        for number in 1..10 {
            let stored = log.get(number).unwrap().unwrap().value().to_vec();
            let has = at_of(&stored).is_some();
            assert_eq!(has, number == 2 || number == 4, "record {number}");
        }
        // Erasing again what is erased counts nothing.
        assert_eq!(copied(&copy, &ErasedRecords::except([key(2)])).1, 1);
    }

    #[test]
    fn an_altered_entry_is_not_copied() {
        let whole = nine();
        let transaction = whole.begin_write().unwrap();
        {
            let mut table = transaction.open_table(ENTRIES).unwrap();
            let mut stored = table.get(5).unwrap().unwrap().value().to_vec();
            let at = at_of(&stored).unwrap();
            stored[at] = b'm';
            table.insert(5, stored.as_slice()).unwrap();
        }
        commit(transaction).unwrap();
        let copy = store();
        let transaction = copy.begin_write().unwrap();
        let log = entries(&whole.begin_read().unwrap()).unwrap();
        let refused = copy_without(&log, &transaction, &ErasedRecords::only([key(1)]));
        assert!(
            matches!(refused, Err(StoreError::Corrupt { seq: Some(seq), .. }) if seq == Seq::new(5))
        );
    }
}
