//! How the file of a book is opened: what an app declares for it, and what is read of it. A book
//! that was suspended is opened again in the same way.

use std::sync::Arc;

use fieldbook_core::entry::{AppVersion, LastStop};
use fieldbook_core::log::{Head, Store, StoreError, catch_storage_panic, read_head};
use fieldbook_core::rows::{FOLD_VERSION, StateRow};
use fieldbook_core::{Clock, DeviceKey, Schema};
use fieldbook_projections::{Indexes, Projections, Snapshot};

use crate::declared::{InForce, Opening, Source};
use crate::error::Error;
use crate::indexes::Wanted;
use crate::lend::Seat;
use crate::maintain::refold;
use crate::ready::Following;

/// Opens the store of a book once more.
pub(crate) type Reopen = Box<dyn Fn() -> Result<Store, StoreError> + Send>;

/// What a book is opened with, each time.
pub(crate) struct Origin {
    /// `None` if the storage is gone once it is closed, like a book in memory.
    pub(crate) reopen: Option<Reopen>,
    pub(crate) schema: Source,
    pub(crate) wanted: Wanted,
    pub(crate) app: Option<AppVersion>,
    pub(crate) system: String,
    pub(crate) clock: Arc<dyn Clock>,
    /// The declarations in force, as they are recorded.
    pub(crate) record: Vec<u8>,
    pub(crate) seat: Seat,
}

/// What was read of the file.
pub(crate) struct Found {
    pub(crate) head: Option<Head>,
    pub(crate) state: StateRow,
    pub(crate) device_key: Option<DeviceKey>,
    pub(crate) following: Following,
    pub(crate) in_force: InForce,
    pub(crate) indexes: Indexes,
}

impl Origin {
    /// Reads a store, and builds what it lacks. A store that cannot be read is abandoned: it is
    /// damaged, so its file must not change any more, not even by a close.
    ///
    /// # Errors
    /// [`Error::Store`] if it cannot be read; [`Error::LacksRules`].
    pub(crate) fn read(
        &mut self,
        mut store: Store,
        projections: &mut Projections,
    ) -> Result<(Store, Found), Error> {
        // The storage engine may panic on a damaged page. The error then blames the file, not the
        // app.
        match catch_storage_panic(|| self.read_store(&mut store, projections)) {
            Ok(found) => Ok((store, found)),
            Err(error) => {
                store.abandon();
                Err(error)
            }
        }
    }

    fn read_store(
        &mut self,
        store: &mut Store,
        projections: &mut Projections,
    ) -> Result<Found, Error> {
        let in_force = self.schema.reconcile(store)?;
        projections.read_by(&in_force.schema);
        let (head, state, device_key) = read_tables(store, &in_force.schema, projections)?;
        let indexes = self.wanted.reconcile(store, &in_force.schema)?;
        // Read last: what follows the book has the snapshot in which its indexes are built.
        let snapshot = Arc::new(Snapshot::new(store.begin_read()?));
        let following = Following::of(snapshot, &in_force.schema)?;
        Ok(Found { head, state, device_key, following, in_force, indexes })
    }

    /// Returns what the first write of an opening records.
    pub(crate) fn opening(&self, last_stop: LastStop) -> Opening {
        Opening {
            app: self.app.clone(),
            system: self.system.clone(),
            last_stop,
            record: self.record.clone(),
            clock: Arc::clone(&self.clock),
        }
    }
}

/// Reads the tables into memory. Rows of another [`FOLD_VERSION`] are folded anew first.
fn read_tables(
    store: &mut Store,
    schema: &Schema,
    projections: &mut Projections,
) -> Result<(Option<Head>, StateRow, Option<DeviceKey>), Error> {
    let mut snapshot = Snapshot::new(store.begin_read()?);
    let head = read_head(&snapshot.entries()?)?;
    // Rows of another version need not be readable: the tables are folded anew from the log.
    if head.is_some() && !snapshot.state().is_ok_and(|state| state.format == FOLD_VERSION) {
        drop(snapshot);
        if store.is_read_only() {
            // On damaged pages a commit can end the process. A read-only app must not risk that;
            // `rebuild` is for such files.
            store.check_pages()?;
        }
        refold(store, schema, head, |_| {})?;
        snapshot = Snapshot::new(store.begin_read()?);
    }
    let state = snapshot.state()?;
    projections.read_states(&snapshot)?;
    let device_key = snapshot.device_key()?;
    Ok((head, state, device_key))
}
