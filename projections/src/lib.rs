//! The tables that fieldbook folds from its log, and reading them.
//!
//! Everything here can be thrown away and folded again: `rebuild(log) == tables` is the first
//! invariant. [`apply`] is the only write path. It needs no rule, clock or randomness.

#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used))]

mod access;
mod apply;
mod custom;
mod effects;
mod examine;
mod gap;
mod index;
mod lazy;
mod log_view;
mod memory;
mod read;
mod rebuild;
mod snapshot_view;
mod sorted;
mod sum;
mod tables;

pub use access::{DiskTables, Tables};
pub use apply::{apply, tail_rows};
pub use custom::{
    Broken, InvalidProjection, KeyValue, PROJECTION_KEY_BYTES, PROJECTION_VALUE_BYTES, Projection,
    ProjectionError, ProjectionRow, ProjectionTable, Projections, RecordChange,
};
pub use effects::{Effects, RecordEffect, TailEffect};
pub use examine::{TableFault, TableFaultKind, examine_tables};
pub use index::IndexRange;
pub use lazy::{fold_history, fold_tail, tail_is_due, touched};
pub use log_view::{Appended, CachedLog, EntryTable, LogView};
pub use memory::MemoryTables;
pub use read::{Snapshot, TableDump};
pub use rebuild::{Rebuilt, fold, rebuild};
pub use snapshot_view::SnapshotView;
