//! The records that a device had from a former epoch of its server, or from another server, when it
//! accepts the one that answers.

use fieldbook::RecordKey;
use fieldbook::audit::Hlc;
use fieldbook::record::Version;

use super::Model;
use crate::broken::{Broken, ensure};
use crate::ledger::Registers;

impl Model {
    /// Records that the accepted server has an older state of a record than a former epoch of it
    /// had.
    pub(super) fn owe(&mut self, key: &RecordKey, edited_at: Hlc) {
        let former = self.records.get(key).filter(|held| held.version == Some(Version::default()));
        if let Some(held) = former.filter(|held| {
            held.tail.is_empty()
                && held.confirmed.as_ref().is_some_and(|known| edited_at < known.stamp.edited_at)
        }) {
            self.owed.insert(key.clone(), held.confirmed.as_ref().and_then(Registers::image));
        }
    }

    /// Records that another server, or another epoch, was accepted: none of its confirmed records
    /// is known.
    pub(super) fn server_accepted(&mut self) {
        self.cursors.clear();
        self.undeclared.clear();
        let unanswered = std::mem::take(&mut self.units);
        self.abandoned(unanswered.into_values().flatten());
        self.rereading = true;
        for held in self.records.values_mut().filter(|held| held.version.is_some()) {
            held.version = Some(Version::default());
        }
    }

    /// Records that the accepted server was read to its end: records that it did not name do not
    /// exist.
    pub(super) fn server_read(&mut self) {
        self.rereading = false;
        for (key, held) in &mut self.records {
            if held.version == Some(Version::default())
                && held.confirmed.as_ref().is_some_and(|known| known.is_there)
            {
                if held.tail.is_empty() {
                    self.owed
                        .insert(key.clone(), held.confirmed.as_ref().and_then(Registers::image));
                }
                held.read_gone = true;
                held.confirmed = Some(Registers::default());
            }
        }
    }

    /// Checks S8: the app still reads the records that are owed to an accepted server.
    ///
    /// # Errors
    /// [`Broken`] if one of them is missing.
    pub fn check_owed(&mut self) -> Result<(), Broken> {
        for (key, image) in std::mem::take(&mut self.owed) {
            ensure(self.visible(&key) == image, "S8", || {
                format!("{key}, which a former epoch of the server had, is not offered again")
            })?;
        }
        Ok(())
    }
}
