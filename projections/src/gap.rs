//! A gap in the keys of a table.

use fieldbook_core::log::StoreError;
use redb::ReadableTable;

use crate::sorted::BytesTable;

/// A gap in the keys of the table of records. New records often have adjacent keys, so the two keys
/// around the first new record show that the others are new too. A gap is valid until the table is
/// written.
#[derive(Default)]
pub(crate) struct Absent {
    pub(crate) gap: Option<Gap>,
    /// Whether the last record that was looked for did not exist.
    pub(crate) missed: bool,
}

/// The stored keys before and after a gap; none at an end of the table.
pub(crate) struct Gap {
    before: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
}

impl Absent {
    pub(crate) fn has(&self, key: &[u8]) -> bool {
        self.gap.as_ref().is_some_and(|gap| {
            gap.before.as_ref().is_none_or(|before| before.as_slice() < key)
                && gap.after.as_ref().is_none_or(|after| key < after.as_slice())
        })
    }
}

/// Returns the gap around a key that the table does not have.
pub(crate) fn gap_around(table: &BytesTable<'_>, key: &[u8]) -> Result<Gap, StoreError> {
    let during = StoreError::during::<redb::StorageError>;
    let before = table.range(..key).map_err(during("reading rows"))?.next_back();
    let before =
        before.transpose().map_err(during("reading rows"))?.map(|(key, _)| key.value().to_vec());
    let after = table.range(key..).map_err(during("reading rows"))?.next();
    let after =
        after.transpose().map_err(during("reading rows"))?.map(|(key, _)| key.value().to_vec());
    Ok(Gap { before, after })
}
