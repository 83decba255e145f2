//! What a person decides about conflicts: choose in an open one, flip a settled one.

use fieldbook_core::entry::{Items, Verb};
use fieldbook_core::rows::ConflictRow;
use fieldbook_core::rules::NotPossible;
use fieldbook_core::rules::admit::Rejected;
use fieldbook_core::rules::choose::{Choice, choose};
use fieldbook_core::rules::flip::{FlipFields, flip};
use fieldbook_core::{ConflictId, FieldsJson};
use fieldbook_projections::Tables;

use super::{decide, tail_ops, visible};
use crate::book::Book;
use crate::error::Error;
use crate::write::{Written, write_in};

impl Book {
    /// Returns all conflicts, oldest first. Where there may be many, read them in pages: [`Self::conflicts_after`].
    ///
    /// # Errors
    /// [`Error::Store`] if one does not read.
    pub fn conflicts(&self) -> Result<Vec<(ConflictId, ConflictRow)>, Error> {
        Ok(self.snapshot()?.conflicts()?)
    }

    /// Returns conflicts, oldest first, at most `limit` of them, after one if one is given: a page of all, or of those in which a
    /// person has to choose.
    ///
    /// # Errors
    /// [`Error::Store`] if one does not read.
    pub fn conflicts_after(
        &self,
        after: Option<ConflictId>,
        limit: usize,
        only_open: bool,
    ) -> Result<Vec<(ConflictId, ConflictRow)>, Error> {
        Ok(self.snapshot()?.conflicts_after(after, limit, only_open)?)
    }

    /// Returns how many conflicts there are, and in how many of them a person has to choose.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn count_conflicts(&self) -> Result<(u64, u64), Error> {
        Ok(self.snapshot()?.count_conflicts()?)
    }

    /// Makes the other side of a settled conflict win, by an op that cites the one that was in it.
    ///
    /// # Errors
    /// [`Error::NotPossible`] if there is no such conflict, it is still open, or a rule merged both sides.
    pub fn flip(&self, conflict: ConflictId) -> Result<Written, Error> {
        let row = self.conflict(conflict)?;
        let read = |fields: &FieldsJson| fields.to_fields().map_err(Error::damaged);
        let values =
            FlipFields { local: read(&row.local)?, remote: read(&row.remote)?, last: read(&row.base)? };
        self.shared.write_in_turn(move |session| {
            let now = visible(&session.tables.record(&row.key)?.unwrap_or_default())?;
            match flip(&row, &values, now.as_ref())? {
                Some(mutation) => write_in(session, mutation),
                None => Ok(Written::Unchanged),
            }
        })
    }

    /// Settles a conflict that was left open for a person. What waited is sent, or given up, accordingly.
    ///
    /// # Errors
    /// [`Error::NotPossible`] if there is no such conflict, or it is settled already; [`Error::Rejected`] if the values that were
    /// given for both sides are not valid.
    pub fn resolve(&self, conflict: ConflictId, choice: Choice) -> Result<(), Error> {
        let row = self.conflict(conflict)?;
        self.shared.write_in_turn(move |session| {
            let record = session.tables.record(&row.key)?.unwrap_or_default();
            let tail = tail_ops(session, &record)?;
            let confirmed = record.registers().map_err(Error::damaged)?;
            let pending = session.tail;
            let chosen =
                choose(&row, &confirmed, &tail, |op| pending.unit_of(op.op.place).is_some(), &choice)?;
            let merged = chosen.merged.as_ref().map(|(merged, _)| merged.checked()).transpose();
            let merged = merged.map_err(|fault| Rejected::Fields { key: row.key.clone(), fault })?;
            let mut items = Items::default();
            let merged = merged.map(|merged| items.add_fields(&merged, session.randomness));
            decide(session, Verb::Resolve, chosen.decisions(&row, merged), items)
        })
    }

    /// Returns a conflict.
    ///
    /// # Errors
    /// [`Error::NotPossible`] if there is none of this id; [`Error::Store`] if it does not read.
    pub fn conflict(&self, id: ConflictId) -> Result<ConflictRow, Error> {
        Ok(self.snapshot()?.conflict(id)?.ok_or(NotPossible::NoSuchConflict(id))?)
    }
}
