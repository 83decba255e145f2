//! A person's decisions: undo, retry, discard or correct an op, resolve or flip a conflict, resume,
//! accept a server.
//!
//! ```text
//!   read the rule's input ─► ask the rule (core's `rules`) ─► append its decision, with the person's actor
//! ```
//!
//! `ops` is about ops, `conflicts` about conflicts, `resume` about parks and servers, `reset`
//! about giving up everything unsent.
//!
//! Invariants:
//! 1. Nothing here decides: each method asks a rule, and writes its result.
//! 2. A decision is one commit. It is read and written within one round, so nothing changes in
//!    between.
//! 3. Nothing is erased: a decision is an entry that names the op or conflict.

mod conflicts;
mod ops;
mod reset;
mod resume;

use fieldbook_core::entry::{Control, Decision, Draft, Items, Meta, PersonAction};
use fieldbook_core::record::TailOp;
use fieldbook_core::rows::RecordRow;
use fieldbook_core::rules::NotPossible;
use fieldbook_core::{Fields, FieldsJson, Hlc, OpPlace, RecordKey, Seq};
use fieldbook_projections::{LogView, Past};

pub use self::conflicts::Conflicts;
pub use self::ops::{DeadLetters, Undone};
pub use self::reset::TakeState;
pub use self::resume::{Park, Resume, ServerState, Servers};
use crate::book::Book;
use crate::error::Error;
use crate::writer::Session;

/// Appends a person's decision.
fn decide(
    session: &mut Session<'_>,
    word: PersonAction,
    decisions: Vec<Decision>,
    items: Items,
) -> Result<(), Error> {
    session.append(
        Draft { meta: Meta::Control(Control::PersonActed(word, decisions)), items },
        Hlc::ZERO,
    )?;
    Ok(())
}

/// Reads the pending ops of a record.
pub(crate) fn tail_ops(session: &Session<'_>, record: &RecordRow) -> Result<Vec<TailOp>, Error> {
    let log = session.log_view();
    record.tail_ops(|place| Ok(log.op(place)?), Error::damaged)
}

/// Returns the fields that the app reads of a record.
fn visible(row: &RecordRow) -> Result<Option<Fields>, Error> {
    row.image().map(FieldsJson::to_fields).transpose().map_err(Error::damaged)
}

impl Book {
    /// Returns the record of an op of the log.
    pub(crate) fn key_of(&self, op: OpPlace) -> Result<RecordKey, Error> {
        let entry = self
            .audit()
            .entries(op.seq, 1)?
            .into_iter()
            .next()
            .filter(|entry| entry.header.seq == op.seq);
        let Some(Meta::Intent(intent)) = entry.map(|entry| entry.meta) else {
            return Err(NotPossible::NoSuchOp(op).into());
        };
        let meta =
            usize::try_from(op.index).ok().and_then(|index| intent.ops.into_iter().nth(index));
        Ok(meta.map(|meta| meta.key).ok_or(NotPossible::NoSuchOp(op))?)
    }

    /// Returns the fields that the app read of a record before an entry. Only entries of the record
    /// are folded.
    fn image_before(&self, key: &RecordKey, seq: Seq) -> Result<Option<Fields>, Error> {
        self.audit().fold_lazy()?;
        let before = Seq::new(seq.number().saturating_sub(1));
        let snapshot = self.shared.snapshot()?;
        let row = Past::row(&snapshot, &self.shared.schema, key, before)?;
        row.as_ref().map_or(Ok(None), visible)
    }
}
