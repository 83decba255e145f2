//! The law of live lists: what a list was told, applied step by step, is the list read anew.
//!
//! Each list looks at its own pace, so most changes that it is told are those of several actions.
//!
//! What it is not: a check that a list is right. `lists` compares lists with a scan.

use fieldbook::query::{IndexPlace, LiveList, Query, Stored};
use fieldbook::record::FieldsJson;
use fieldbook::{Book, EntityType, Error};

use crate::broken::{Broken, ensure};

/// The rows of a list of the world: so few that records come and go at its end.
pub(crate) const ROWS: usize = 3;

/// A live list of a device, as a screen has it.
pub(crate) struct Followed {
    entity: EntityType,
    index: String,
    limit: usize,
    live: LiveList<FieldsJson>,
    rows: Vec<Stored<FieldsJson>>,
    next: Option<IndexPlace>,
    was_told: bool,
}

/// Returns the live lists of a book: one of each declared index, of so many rows.
///
/// # Errors
/// [`Broken`] if one cannot be made.
pub(crate) fn follow(book: &Book, limit: usize) -> Result<Vec<Followed>, Broken> {
    let mut lists = Vec::new();
    for (entity, rules) in book.schema().declared() {
        for rule in &rules.indexes {
            let (entity, index) = (entity.clone(), rule.name().to_owned());
            let live = list(book, &entity, &index, limit).live().map_err(unlisted)?;
            let (rows, next, was_told) = (Vec::new(), None, false);
            lists.push(Followed { entity, index, limit, live, rows, next, was_told });
        }
    }
    Ok(lists)
}

fn list<'b>(
    book: &'b Book,
    entity: &EntityType,
    index: &'b str,
    limit: usize,
) -> Query<'b, FieldsJson> {
    book.records().query(entity, index).limit(limit)
}

impl Followed {
    /// Takes what the list tells, and checks S4: the list is the same read anew.
    ///
    /// # Errors
    /// [`Broken`] if it is not.
    pub(crate) fn check(&mut self, book: &Book) -> Result<(), Broken> {
        let is_new = self.look()?;
        let page = list(book, &self.entity, &self.index, self.limit).page().map_err(unlisted)?;
        // Time alone changes a status, and no list tells that.
        let without_status = |rows: &[Stored<FieldsJson>]| {
            rows.iter()
                .map(|row| (row.id.clone(), row.version, row.pending, row.value.clone()))
                .collect::<Vec<_>>()
        };
        let same = self.next == page.next
            && if is_new {
                self.rows == page.items
            } else {
                without_status(&self.rows) == without_status(&page.items)
            };
        ensure(same, "S4", || {
            format!(
                "the live list of {} by {} has {:?}, and read anew it has {page:?}",
                self.entity, self.index, self.rows
            )
        })
    }

    /// Returns whether the list told something.
    fn look(&mut self) -> Result<bool, Broken> {
        let Some(change) = self.live.take_change().map_err(unlisted)? else {
            return ensure(self.was_told, "S4", || {
                format!("the live list of {} by {} never tells", self.entity, self.index)
            })
            .map(|()| false);
        };
        let no_row = || Broken::new("S4", "a live list tells of a place that is not there");
        let item = |place: &usize| change.items.get(*place).cloned().ok_or_else(no_row);
        for place in change.removed.iter().rev() {
            ensure(*place < self.rows.len(), "S4", || "no such row is removed".to_owned())?;
            self.rows.remove(*place);
        }
        for place in &change.inserted {
            ensure(*place <= self.rows.len(), "S4", || {
                "a row is inserted behind the end".to_owned()
            })?;
            self.rows.insert(*place, item(place)?);
        }
        for place in &change.updated {
            *self.rows.get_mut(*place).ok_or_else(no_row)? = item(place)?;
        }
        ensure(self.rows == change.items, "S4", || {
            format!("the steps of a live list lead to {:?}, not {:?}", self.rows, change.items)
        })?;
        (self.next, self.was_told) = (change.next, true);
        Ok(true)
    }
}

fn unlisted(error: Error) -> Broken {
    Broken::new("S4", format!("a live list does not read: {error:?}"))
}
