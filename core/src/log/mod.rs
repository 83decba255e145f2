//! The log on disk: one table of stored entries in a redb file.
//!
//! ```text
//!   store     the file: made under another name, then moved into place; a refused file is not changed
//!   entries   the table "entries-1": seq → stored entry; the Appender seals new entries
//!   commit    natural group commit: callers that arrive during a commit share the next one
//!   verify    computes every hash again from the stored bytes; parts: on two threads
//!   export    the log as a stream of bytes that another program can verify
//! ```
//!
//! Invariants:
//! 1. Seqs run from 1 without gaps, and the key of a row is the seq in the header of its entry.
//! 2. A row is never changed or renumbered. Only erasure replaces an item by its commitment, which
//!    keeps every hash.
//! 3. A file that is refused (foreign, damaged, newer, open elsewhere) keeps its bytes.
//! 4. After a storage error nothing is written until the book is opened again: redb latches the
//!    error.
//!
//! What it does not do: make projections, or check which entry may follow which. Other modules do
//! so: they read this table and write their own tables in the same transaction.

mod commit;
mod entries;
mod error;
mod export;
mod looking;
mod parts;
mod staged;
mod store;
mod verify;

pub use commit::{Abandoned, GroupCommit, Reply};
pub use entries::{
    Appender, ENTRIES, Head, Stamp, entries, entries_from, read_entry, read_entry_after, read_head,
};
pub use error::{StoreError, guarded};
pub use export::{EXPORT_MAGIC, export, export_in_parts, survey_export, verify_export};
pub use parts::{PART_ENTRIES, verify_in_parts};
pub use store::{Store, StoreOptions, commit};
pub use verify::{Damage, DamageKind, Verified, survey, verify};
