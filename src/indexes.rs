//! The indexes of a book when it is opened: those that the app declares, or those that it has.
//!
//! Invariants:
//! 1. An open book has each declared index, complete, or does not open. A book that is opened
//!    read-only is the exception: it has the indexes on record, and a list by another one fails.
//! 2. Building and dropping are one commit, so a kill leaves the former indexes or the new ones.

use fieldbook_core::Schema;
use fieldbook_core::log::{Store, catch_storage_panic};
use fieldbook_projections::{Indexes, Snapshot};

use crate::error::Error;
use crate::options::OnIndexBuild;

/// What an app says about the indexes of a book.
pub(crate) struct Wanted {
    /// The declared indexes; `None` if the app has no schema.
    pub(crate) declared: Option<Indexes>,
    /// What hears the progress of building.
    pub(crate) on_build: OnIndexBuild,
}

impl Wanted {
    /// Builds and drops indexes of a store as far as they differ, and returns those that it has
    /// then.
    pub(crate) fn reconcile(&mut self, store: &Store, schema: &Schema) -> Result<Indexes, Error> {
        let on_file = Snapshot::new(store.begin_read()?).index_shapes()?;
        if store.is_read_only() {
            return Ok(on_file.present(schema));
        }
        let wanted = self.declared.clone().unwrap_or_else(|| on_file.wanted(schema));
        if !on_file.are(&wanted) {
            let transaction = store.begin_write()?;
            wanted.build(&transaction, &on_file, schema, &mut self.on_build)?;
            store.commit(transaction)?;
        }
        Ok(wanted)
    }
}

/// Returns the indexes that a store has on record, for a fold of all tables; none if their shapes
/// do not read. Opening the book builds what is declared and missing.
pub(crate) fn on_record(store: &Store, schema: &Schema) -> Indexes {
    let shapes = catch_storage_panic(|| Snapshot::new(store.begin_read()?).index_shapes());
    shapes.map(|on_file| on_file.wanted(schema)).unwrap_or_default()
}
