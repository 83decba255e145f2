//! The log on disk: one table of stored entries in a redb file.
//!
//! ```text
//!   store     the file: made under another name, then moved into place; a refused file is not changed
//!   entries   the table "entries-1": seq → stored entry; the Appender seals new entries
//!   commit    natural group commit: callers that arrive during a commit share the next one
//!   verify    computes every hash again from the stored bytes; parts: on two threads
//!   copy      a whole database, as one commit left it, in a new file
//!   trim      a log in a new file, with a baseline in place of its oldest entries
//!   erase     a log in a new file, without the values of some records
//!   carve     the entries in a file whose pages cannot be read any more
//!   notes     the signed notes in it
//!   turn      who has the book, and who asks for it: two files beside it
//!   bundle    the log as a stream for support, with values left out
//!   export    the log as a stream of bytes that another program can verify; stream: what is around it
//! ```
//!
//! Invariants:
//! 1. Seqs run from 1 without gaps, except in a baseline ([`crate::entry::Baseline`]), and the key of a row is the seq in the header of its entry.
//! 2. A row is never changed or renumbered. Only erasure replaces an item by its commitment, which
//!    keeps every hash, and trimming seals what it keeps anew.
//! 3. A file that is refused (foreign, damaged, newer, open elsewhere) keeps its bytes.
//! 4. After a storage error nothing is written until the book is opened again: redb latches the
//!    error.
//!
//! What it does not do: make projections, or check which entry may follow which. Other modules do
//! so: they read this table and write their own tables in the same transaction.

mod bundle;
mod carve;
mod commit;
mod copy;
mod entries;
mod erase;
mod error;
mod export;
mod looking;
#[cfg(feature = "sign")]
mod notes;
mod parts;
mod staged;
mod store;
mod stream;
mod trim;
pub mod turn;
mod verify;

pub use bundle::bundle;
pub use carve::{Piece, Pieces, carve};
pub use commit::{Abandoned, GroupCommit, Reply};
pub use copy::{CopyProgress, copy_database};
pub use entries::{
    Appender, ENTRIES, Head, Stamp, entries, entries_from, next_place, read_entry,
    read_entry_after, read_head,
};
pub use erase::copy_without;
pub use error::{StoreError, catch_storage_panic};
pub use export::{
    BundleLook, Exported, export, export_in_parts, export_up_to, import, import_parts,
    look_at_export, redaction_in_export, survey_export, verify_export,
};
#[cfg(feature = "sign")]
pub use notes::{notes_in, notes_in_export};
pub use parts::{PART_ENTRIES, verify_in_parts};
pub use store::{Store, StoreOptions, commit, not_made, open_to_read};
pub use stream::Redaction;
pub use trim::{BaselineDraft, BaselinePlaces, copy_trimmed, places_for};
pub use turn::Program;
pub use verify::{Damage, DamageKind, Verified, survey, verify};
