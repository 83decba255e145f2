//! The tables that fieldbook folds from its log, and reading them.
//!
//! Begin with [`apply`], which folds one entry: it is the only write path, and needs no rule, clock
//! or randomness. `tables` has the tables, `read` a snapshot of them, `past` the tables after an
//! earlier entry, and [`rebuild`] the fold of a whole log.
//!
//! Invariants:
//! 1. Everything here can be thrown away and folded again: `rebuild(log) == tables`.
//! 2. A row ends with a sum of its bytes, so a damaged row is found when it is read.
//!
//! What it does not do: decide. Every decision is in an entry.

#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used))]

mod access;
mod apply;
mod baseline;
mod custom;
mod effects;
mod examine;
mod gap;
mod index;
mod lazy;
mod log_view;
mod memory;
mod past;
mod read;
mod rebuild;
#[cfg(feature = "search")]
pub mod search;
mod snapshot_view;
mod sorted;
mod sum;
mod tables;
mod tail_on_disk;
mod touched;

pub use access::{DiskTables, Flushed, KEYS_KEPT_OF, Tables, Wanted};
pub use apply::{apply, tail_rows};
pub use baseline::{KeptBy, Quiet, last_quiet};
pub use custom::{
    Broken, InvalidProjection, KeyValue, PROJECTION_KEY_BYTES, PROJECTION_VALUE_BYTES, Projection,
    ProjectionError, ProjectionRow, ProjectionTable, Projections, RecordChange,
};
pub use effects::{Changed, Effects, RecordEffect, TailEffect};
pub use examine::{TableFault, TableFaultKind, examine_tables};
pub use index::{Indexes, IndexesOnFile};
pub use lazy::{fold_history, fold_tail, tail_is_due};
pub use log_view::{Appended, CachedLog, EntryTable, LogView};
pub use memory::MemoryTables;
pub use past::{Erasures, Past, Step, follow_range, follow_record, history_of, last_of_book, walk};
pub use read::{Snapshot, TableDump};
pub use rebuild::{Rebuilt, fold, rebuild};
pub use snapshot_view::{PastRows, Rows, SnapshotView};
pub use tail_on_disk::{TailOnDisk, sound};
pub use touched::{Touched, touched};
