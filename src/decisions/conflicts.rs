//! A person's decisions about conflicts: resolve an open one, flip a resolved one.

use fieldbook_core::entry::{Items, PersonAction};
use fieldbook_core::rows::ConflictRow;
use fieldbook_core::rules::NotPossible;
use fieldbook_core::rules::admit::Rejected;
use fieldbook_core::rules::choose::{Choice, choose};
use fieldbook_core::rules::flip::{FlipFields, flip};
use fieldbook_core::{ConflictId, FieldsJson};
use fieldbook_projections::Tables;

use super::{decide, tail_ops, visible};
use crate::authors::Met;
use crate::book::Book;
use crate::conflict::{Conflict, ConflictCount};
use crate::error::Error;
use crate::read::Page;
use crate::write::{Written, write_in};

/// The conflicts of a book: [`Book::conflicts`].
///
/// ```
/// use fieldbook::conflict::Choice;
/// # use fieldbook::{Book, BookOptions, Error};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
/// for conflict in book.conflicts().list_open(None, 20)?.items {
///     book.conflicts().resolve(conflict.id, Choice::Remote)?;
/// }
/// assert_eq!(book.conflicts().count()?.open, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Conflicts<'b> {
    book: &'b Book,
}

impl<'b> Conflicts<'b> {
    pub(crate) const fn of(book: &'b Book) -> Self {
        Self { book }
    }

    pub(crate) const fn book(&self) -> &'b Book {
        self.book
    }

    /// Returns all conflicts, oldest first. If there may be many, use the pages of [`Self::list`].
    ///
    /// # Errors
    /// [`Error::Store`] if a conflict cannot be read.
    pub fn all(&self) -> Result<Vec<Conflict>, Error> {
        Ok(self.list(None, usize::MAX)?.items)
    }

    /// Lists conflicts, oldest first, at most `limit` of them, after a conflict if it is given.
    ///
    /// It reads the answers of the server in which they were found, since these name the authors.
    ///
    /// # Errors
    /// [`Error::Store`] if a conflict cannot be read.
    pub fn list(
        &self,
        after: Option<ConflictId>,
        limit: usize,
    ) -> Result<Page<Conflict, ConflictId>, Error> {
        self.page(after, limit, false)
    }

    /// Lists the open conflicts, which wait for a person, as [`Self::list`] does.
    ///
    /// # Errors
    /// As for [`Self::list`].
    pub fn list_open(
        &self,
        after: Option<ConflictId>,
        limit: usize,
    ) -> Result<Page<Conflict, ConflictId>, Error> {
        self.page(after, limit, true)
    }

    fn page(
        &self,
        after: Option<ConflictId>,
        limit: usize,
        only_open: bool,
    ) -> Result<Page<Conflict, ConflictId>, Error> {
        let snapshot = self.book.shared.snapshot()?;
        let log = snapshot.log()?;
        let mut met = Met::new(&log);
        let found = snapshot.conflicts_after(after, limit, only_open)?.into_iter();
        let items = found.map(|(id, row)| met.conflict(id, row)).collect();
        Ok(Page::of(items, limit, |conflict: &Conflict| conflict.id))
    }

    /// Returns the number of conflicts.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn count(&self) -> Result<ConflictCount, Error> {
        let (all, open) = self.book.shared.snapshot()?.count_conflicts()?;
        Ok(ConflictCount { all, open })
    }

    /// Returns a conflict.
    ///
    /// # Errors
    /// [`Error::NotPossible`] if there is no conflict with this id; [`Error::Store`] if it cannot
    /// be read.
    pub fn get(&self, id: ConflictId) -> Result<Conflict, Error> {
        let row = self.row(id)?;
        Ok(Met::new(&self.book.shared.snapshot()?.log()?).conflict(id, row))
    }

    /// Lets the other side of a resolved conflict win, by a new op that cites the op of the
    /// conflict.
    ///
    /// # Errors
    /// [`Error::NotPossible`] if there is no such conflict, it is still open, or both sides were
    /// merged.
    pub fn flip(&self, conflict: ConflictId) -> Result<Written, Error> {
        let row = self.row(conflict)?;
        let read = |fields: &FieldsJson| fields.to_fields().map_err(Error::damaged);
        let values = FlipFields {
            local: read(&row.local)?,
            remote: read(&row.remote)?,
            last: read(&row.base)?,
        };
        self.book.shared.write_in_turn(move |session| {
            let now = visible(&session.tables.record(&row.key)?.unwrap_or_default())?;
            match flip(&row, &values, now.as_ref())? {
                Some(mutation) => write_in(session, mutation),
                None => Ok(Written::Unchanged),
            }
        })
    }

    /// Resolves an open conflict. The op that waited is sent or ends, as chosen.
    ///
    /// # Errors
    /// [`Error::NotPossible`] if there is no such conflict, or it is resolved already;
    /// [`Error::Rejected`] if the merged values are not valid.
    pub fn resolve(&self, conflict: ConflictId, choice: Choice) -> Result<(), Error> {
        let row = self.row(conflict)?;
        self.book.shared.write_in_turn(move |session| {
            let record = session.tables.record(&row.key)?.unwrap_or_default();
            let tail = tail_ops(session, &record)?;
            let confirmed = record.registers().map_err(Error::damaged)?;
            let pending = session.tail;
            let chosen = choose(
                &row,
                &confirmed,
                &tail,
                |op| pending.unit_of(op.op.place).is_some(),
                &choice,
            )?;
            let merged = chosen.merged.as_ref().map(|(merged, _)| merged.checked()).transpose();
            let merged =
                merged.map_err(|fault| Rejected::Fields { key: row.key.clone(), fault })?;
            let mut items = Items::default();
            let merged = merged.map(|merged| items.add_fields(&merged, session.randomness));
            decide(session, PersonAction::Resolve, chosen.decisions(&row, merged), items)
        })
    }

    fn row(&self, id: ConflictId) -> Result<ConflictRow, Error> {
        Ok(self.book.shared.snapshot()?.conflict(id)?.ok_or(NotPossible::NoSuchConflict(id))?)
    }
}
