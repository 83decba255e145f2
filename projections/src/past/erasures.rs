//! Which records had values at a moment that are erased now.

use fieldbook_core::entry::{Control, ErasedRecords, Meta};
use fieldbook_core::log::StoreError;
use fieldbook_core::{RecordKey, Seq};

use crate::log_view::LogView;
use crate::read::Snapshot;

/// The erasures that the log tells of.
pub struct Erasures(Vec<(Seq, ErasedRecords)>);

impl Erasures {
    /// Reads them.
    ///
    /// # Errors
    /// [`StoreError`] if an entry cannot be read.
    pub fn of(snapshot: &Snapshot) -> Result<Self, StoreError> {
        let seqs = snapshot.state()?.erasures;
        if seqs.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let log = snapshot.log()?;
        let mut found = Vec::with_capacity(seqs.len());
        for seq in seqs {
            if let Meta::Control(Control::Erased(erased)) = &log.existing(seq)?.meta {
                found.push((seq, erased.records.clone()));
            }
        }
        Ok(Self(found))
    }

    /// Returns the entry that says that a record's values of this moment were erased.
    pub fn of_record(&self, key: &RecordKey, at: Seq) -> Option<Seq> {
        self.after(at).find(|(_, records)| records.has(key)).map(|(seq, _)| *seq)
    }

    /// Returns the entries that say that values of a record were erased.
    pub(super) fn seqs_of(&self, key: &RecordKey) -> impl Iterator<Item = Seq> {
        self.0.iter().filter(|(_, records)| records.has(key)).map(|(seq, _)| *seq)
    }

    /// Returns the entry that says that values of this moment were erased, of whatever record.
    pub fn of_any(&self, at: Seq) -> Option<Seq> {
        self.after(at).next().map(|(seq, _)| *seq)
    }

    fn after(&self, at: Seq) -> impl Iterator<Item = &(Seq, ErasedRecords)> {
        self.0.iter().filter(move |(seq, _)| *seq > at)
    }
}
