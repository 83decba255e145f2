//! What a person decides: a conflict with the server, an op that the server refused, and undoing one's own op.
//!
//! A conflict is found when both sides changed the same thing and had not seen each other's change. By which rule it is
//! settled is declared in the [`schema`](crate::schema); only with [`Policy::Manual`] does it wait for a person, and the op
//! of this device is parked until then. An op that the server refuses for good becomes a dead letter: the app still reads
//! what it says, until a person retries, corrects or discards it.
//!
//! ```
//! use fieldbook::conflict::{Choice, DeadLetter};
//! use fieldbook::{Book, BookOptions, Error, Fields};
//!
//! /// Lets this device win wherever a person has to choose.
//! fn keep_mine(book: &Book) -> Result<usize, Error> {
//!     let mut settled = 0;
//!     loop {
//!         // Those that are settled are open no more, so the first page is always a new one.
//!         let page = book.conflicts().list_open(None, 100)?;
//!         for conflict in &page.items {
//!             println!("{}: here {}, there {}", conflict.key, conflict.local.as_str(), conflict.remote.as_str());
//!             book.conflicts().resolve(conflict.id, Choice::Mine)?;
//!             settled += 1;
//!         }
//!         if page.next.is_none() {
//!             return Ok(settled);
//!         }
//!     }
//! }
//!
//! /// Corrects what the server refused for want of a name; gives up the rest.
//! fn tidy_up(book: &Book, letter: &DeadLetter) -> Result<(), Error> {
//!     if letter.code == "name_missing" {
//!         let correction = Fields::parse(r#"{"name":"unknown"}"#).expect("it is an object");
//!         book.dead_letters().edit_and_retry(letter.op, correction)?;
//!     } else {
//!         book.dead_letters().discard(vec![letter.op], "the server does not want it")?;
//!     }
//!     Ok(())
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
//! assert_eq!(keep_mine(&book)?, 0);
//! for letter in book.dead_letters().list(None, 100)?.items {
//!     tidy_up(&book, &letter)?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What it is not: deciding anything by itself.

use fieldbook_core::rows::{ConflictRow, DeadLetterRow};
use fieldbook_core::{
    Actor, FieldsJson, Hlc, OpId, OpKind, OpPlace, RecordKey, Seq, UnitId, Version, WallTime,
};

pub use fieldbook_core::entry::{ConflictedField, Extent, SettledBy, Winner};
pub use fieldbook_core::rules::NotPossible;
pub use fieldbook_core::rules::choose::Choice;
pub use fieldbook_core::{ConflictId, InvalidConflictId};

pub use crate::decisions::{Conflicts, DeadLetters, Undone};
use crate::schema::Policy;

/// Both sides changed the same thing, and had not seen each other's change.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Conflict {
    /// Which one.
    pub id: ConflictId,
    /// The record.
    pub key: RecordKey,
    /// The op of this device.
    pub op: OpId,
    /// Where that op stands in the log.
    pub place: OpPlace,
    /// What that op does.
    pub kind: OpKind,
    /// When that op was made.
    pub edited_at: Hlc,
    /// The server's version that it met.
    pub version: Version,
    /// What the server did.
    pub extent: Extent,
    /// When the server's side was edited.
    pub remote_edited_at: Hlc,
    /// Each field that both changed, its rule and its winner; none where one side is a deletion.
    pub fields: Vec<ConflictedField>,
    /// Who won as a whole.
    pub winner: Winner,
    /// The rule by which the whole was settled.
    pub rule: Policy,
    /// The fields in question as both sides had them before.
    pub base: FieldsJson,
    /// The fields in question as the op of this device has them.
    pub local: FieldsJson,
    /// The fields in question as the server has them.
    pub remote: FieldsJson,
    /// What a merging rule, or a person, made of both.
    pub merged: Option<FieldsJson>,
    /// The functions of the app that settled it.
    pub functions: Vec<SettledBy>,
    /// When it was found, by the device's clock.
    pub at: WallTime,
    /// Whether a person still has to choose.
    pub open: bool,
}

impl Conflict {
    /// Returns the name of the app's function that settled a field, or the whole.
    pub fn function_of(&self, field: Option<&str>) -> Option<&str> {
        let found = self.functions.iter().find(|settled| settled.field.as_deref() == field);
        found.map(|settled| settled.function.as_str())
    }

    pub(crate) fn of(id: ConflictId, row: ConflictRow) -> Self {
        let fields = row.fields.into_iter();
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
            fields: fields.map(|(name, rule, winner)| ConflictedField { name, rule, winner }).collect(),
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

/// How many conflicts there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConflictCount {
    /// All of them.
    pub all: u64,
    /// Those of them in which a person has to choose.
    pub open: u64,
}

/// An op that the server refused for good. What it says is in the log: [`Queue::op`](crate::sync::Queue::op) has it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The record.
    pub key: RecordKey,
    /// The op.
    pub op: OpId,
    /// Where the op stands in the log.
    pub place: OpPlace,
    /// What the op does.
    pub kind: OpKind,
    /// Who made it.
    pub actor: Actor,
    /// The unit in which it was refused.
    pub unit: UnitId,
    /// The server's code.
    pub code: String,
    /// The server's message.
    pub message: String,
    /// How many classified answers it had.
    pub tries: u32,
    /// When the first of them came, by the device's clock.
    pub first_at: WallTime,
    /// When the last of them came.
    pub last_at: WallTime,
    /// The entry that recorded it.
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
