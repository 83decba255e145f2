//! A person's decisions: about a conflict with the server, about an op that the server refused, and
//! about undoing an own op.
//!
//! A conflict is found when both sides changed the same fields and neither had read the other's
//! change. The [`schema`](crate::schema) declares the policy that resolves it. Only with
//! [`Policy::Manual`] a conflict waits for a person, and the op of this device is parked until
//! then. An op that the server refuses becomes a dead letter: the app still reads its fields, until
//! a person retries, corrects or discards it.
//!
//! ```
//! use fieldbook::conflict::{Choice, DeadLetter};
//! use fieldbook::{Book, BookOptions, Error, Fields};
//!
//! /// Lets this device win all open conflicts.
//! fn keep_local(book: &Book) -> Result<usize, Error> {
//!     let mut resolved = 0;
//!     loop {
//!         // A resolved conflict is no longer open, so the first page is always new.
//!         let page = book.conflicts().list_open(None, 100)?;
//!         for conflict in &page.items {
//!             println!("{}: local {}, remote {}", conflict.key, conflict.local.as_str(), conflict.remote.as_str());
//!             book.conflicts().resolve(conflict.id, Choice::Local)?;
//!             resolved += 1;
//!         }
//!         if page.next.is_none() {
//!             return Ok(resolved);
//!         }
//!     }
//! }
//!
//! /// Corrects dead letters without a name, and discards the rest.
//! fn tidy_up(book: &Book, letter: &DeadLetter) -> Result<(), Error> {
//!     if letter.code == "name_missing" {
//!         let correction = Fields::parse(r#"{"name":"unknown"}"#).expect("it is an object");
//!         book.dead_letters().correct(letter.op, correction)?;
//!     } else {
//!         book.dead_letters().discard(vec![letter.op], "the server does not want it")?;
//!     }
//!     Ok(())
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
//! assert_eq!(keep_local(&book)?, 0);
//! for letter in book.dead_letters().list(None, 100)?.items {
//!     tidy_up(&book, &letter)?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What it is not: a rule. Nothing here decides by itself.

use fieldbook_core::rows::{ConflictRow, DeadLetterRow};
use fieldbook_core::{
    Actor, FieldsJson, Hlc, OpId, OpKind, OpPlace, RecordKey, Seq, UnitId, Version, WallTime,
};

pub use fieldbook_core::entry::{ConflictedField, Extent, ResolvedBy, Winner};
pub use fieldbook_core::rules::NotPossible;
pub use fieldbook_core::rules::choose::Choice;
pub use fieldbook_core::{ConflictId, InvalidConflictId};

pub use crate::decisions::{Conflicts, DeadLetters, Undone};
pub use crate::overwritten::{Overwrites, Overwritten};
use crate::schema::Policy;

/// Both sides changed the same fields, and neither had read the other's change.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Conflict {
    /// The id of the conflict.
    pub id: ConflictId,
    /// The record.
    pub key: RecordKey,
    /// The op of this device.
    pub op: OpId,
    /// The place of that op in the log.
    pub place: OpPlace,
    /// The kind of that op.
    pub kind: OpKind,
    /// The time at which that op was made.
    pub edited_at: Hlc,
    /// The version of the server that the op met.
    pub version: Version,
    /// The kind of the server's change.
    pub extent: Extent,
    /// The time at which the server's side was edited.
    pub remote_edited_at: Hlc,
    /// The actor of that edit, in the server's words; none if the server did not say.
    pub remote_by: Option<Actor>,
    /// The fields that both sides changed, each with its policy and its winner. Empty if one side
    /// is a deletion.
    pub fields: Vec<ConflictedField>,
    /// The winner of the conflict as a whole.
    pub winner: Winner,
    /// The policy of the conflict as a whole.
    pub rule: Policy,
    /// The values of these fields that both sides started from.
    pub base: FieldsJson,
    /// The values of these fields in the op of this device.
    pub local: FieldsJson,
    /// The values of these fields at the server.
    pub remote: FieldsJson,
    /// The merged values, made by a policy or a person.
    pub merged: Option<FieldsJson>,
    /// The functions of the app that resolved it.
    pub functions: Vec<ResolvedBy>,
    /// The time at which it was found, by the device's clock.
    pub at: WallTime,
    /// Whether it waits for a person.
    pub open: bool,
}

impl Conflict {
    /// Returns the name of the app's function that resolved a field, or the conflict as a whole.
    pub fn function_of(&self, field: Option<&str>) -> Option<&str> {
        ResolvedBy::function_of(&self.functions, field)
    }

    pub(crate) fn of(id: ConflictId, row: ConflictRow, remote_by: Option<Actor>) -> Self {
        Self {
            id,
            key: row.key,
            op: row.op.id,
            place: row.op.place,
            kind: row.kind,
            edited_at: row.edited_at,
            version: row.version,
            extent: row.extent,
            remote_edited_at: row.remote_edited_at,
            remote_by,
            fields: row.fields,
            winner: row.winner,
            rule: row.rule,
            base: row.base,
            local: row.local,
            remote: row.remote,
            merged: row.merged,
            functions: row.functions,
            at: row.at,
            open: row.open,
        }
    }
}

/// The number of conflicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConflictCount {
    /// All conflicts.
    pub all: u64,
    /// The conflicts that wait for a person.
    pub open: u64,
}

/// An op that the server refused. [`Queue::op`](crate::sync::Queue::op) returns its fields.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The record.
    pub key: RecordKey,
    /// The op.
    pub op: OpId,
    /// The place of the op in the log.
    pub place: OpPlace,
    /// The kind of the op.
    pub kind: OpKind,
    /// The author of the op.
    pub actor: Actor,
    /// The unit that was refused.
    pub unit: UnitId,
    /// The server's code.
    pub code: String,
    /// The server's message.
    pub message: String,
    /// The number of classified answers to the unit.
    pub tries: u32,
    /// The time of the first of them, by the device's clock.
    pub first_at: WallTime,
    /// The time of the last of them.
    pub last_at: WallTime,
    /// The entry that recorded the dead letter.
    pub recorded: Seq,
}

impl DeadLetter {
    pub(crate) fn of(row: DeadLetterRow) -> Self {
        Self {
            key: row.key,
            op: row.op.id,
            place: row.op.place,
            kind: row.kind,
            actor: row.actor,
            unit: row.unit,
            code: row.code,
            message: row.message,
            tries: row.tries,
            first_at: row.first_at,
            last_at: row.last_at,
            recorded: row.recorded,
        }
    }
}
