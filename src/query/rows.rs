//! Reads the rows of a list from a snapshot: the keys of its index that the conditions ask for,
//! and the record of each.

use std::ops::ControlFlow;

use fieldbook_core::index::{IndexPlace, IndexRule, Span};
use fieldbook_core::log::StoreError;
use fieldbook_core::tail::Tail;
use fieldbook_core::{EntityRules, EntityType, RecordId, RecordKey};
use fieldbook_projections::Snapshot;

use super::{Asked, Following, PAGE_ROWS, Query, Rows, Source, Stored};
use crate::book::{Book, Shared};
use crate::error::Error;
use crate::read::{Page, with_record};

impl<'q, V> Query<'q, V> {
    /// Reads the rows of the page, with the status of records without pending ops.
    pub(super) fn rows(&self, snapshot: &Snapshot) -> Result<Rows<V>, Error> {
        Ok(self.rows_and_following(snapshot)?.0)
    }

    /// Reads the rows as [`Self::rows`] does, and the row that follows them.
    pub(crate) fn rows_and_following(
        &self,
        snapshot: &Snapshot,
    ) -> Result<(Rows<V>, Option<Following>), Error> {
        let mut items: Vec<Stored<V>> = Vec::with_capacity(self.limit.min(PAGE_ROWS));
        let (mut last, mut following) = (Vec::new(), None);
        let rule = self.each(snapshot, |at, key| {
            if items.len() == self.limit {
                following = Some(Following { at: at.to_vec(), id: key.id.clone() });
                return Ok(ControlFlow::Break(()));
            }
            let row = with_record(snapshot, &self.shared().schema, key, |record| {
                Stored::of(key.id.clone(), record, self.value)
            })?;
            items.push(row.ok_or_else(no_record)?);
            last.clear();
            last.extend_from_slice(at);
            Ok(ControlFlow::Continue(()))
        })?;
        let next = match items.is_empty() {
            true => self.after.clone(),
            false => Some(IndexPlace::new(rule, &last)),
        };
        Ok((Page { items, next: next.filter(|_| following.is_some()) }, following))
    }

    /// Returns the book, unless the list is of one instant.
    pub(crate) const fn latest_book(&self) -> Option<&'q Book> {
        match self.source {
            Source::Latest(book) => Some(book),
            Source::At(_) => None,
        }
    }

    /// Returns what the list asks for.
    pub(crate) fn into_asked(self) -> Asked<V> {
        let Self { entity, index, conditions, reversed, after, limit, value, .. } = self;
        Asked { entity, index: index.to_owned(), conditions, reversed, after, limit, value }
    }

    /// Checks that the index can answer the list.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.span()?;
        self.after_key().map(drop)
    }

    /// Returns the keys that the conditions ask for.
    pub(crate) fn span(&self) -> Result<Span<'_>, Error> {
        let rule = self.rule()?;
        if let Some(misfit) = self.misfit {
            return Err(Error::Misuse(misfit.as_str()));
        }
        let span = Span::new(rule, &self.entity, &self.conditions);
        span.map_err(|misfit| Error::Misuse(misfit.as_str()))
    }

    /// Returns the key after which the list begins.
    fn after_key(&self) -> Result<Option<&[u8]>, Error> {
        let Some(place) = &self.after else { return Ok(None) };
        let key = place.key(self.rule()?, &self.entity);
        key.map(Some).ok_or(Error::NotOfThisList)
    }

    /// Passes the keys that fulfil the conditions to `read`, and returns the rule of the index.
    pub(super) fn each(
        &self,
        snapshot: &Snapshot,
        mut read: impl FnMut(&[u8], &RecordKey) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<&'q IndexRule, Error> {
        let (span, after) = (self.span()?, self.after_key()?);
        snapshot.index_keys(&span, after, self.reversed, |at, id| {
            let key = RecordKey::new(self.entity.clone(), RecordId::parse(id).map_err(damaged)?);
            if span.is_rough() {
                let holds = with_record(snapshot, &self.shared().schema, &key, |record| {
                    span.holds(at, id, record.json)
                })?;
                if !holds.ok_or_else(no_record)?.map_err(damaged)? {
                    return Ok(ControlFlow::Continue(()));
                }
            }
            read(at, &key)
        })?;
        self.rule()
    }

    fn shared(&self) -> &'q Shared {
        match self.source {
            Source::Latest(book) => &book.shared,
            Source::At(at) => &at.book.shared,
        }
    }

    fn rule(&self) -> Result<&'q IndexRule, Error> {
        let shared = self.shared();
        let declared = shared.schema.rules(&self.entity);
        let declared = declared.and_then(|of| of.indexes.iter().find(|of| of.name() == self.index));
        let of_type = shared.indexes.of(&self.entity);
        let rules = shared.schema.declared_rules(&self.entity);
        // A program that lacks upcasters lists by what the app built.
        let is_read = of_type.is_empty()
            || of_type.form() == rules.and_then(EntityRules::form)
            || !shared.lacking.is_empty();
        match of_type.rule(self.index) {
            Some(rule) if is_read && declared.is_none_or(|declared| declared == rule) => Ok(rule),
            None if declared.is_none() => Err(Error::Misuse(
                "this entity type has no index of this name: declare it in `EntityRules::indexes`",
            )),
            _ => Err(Error::NotBuilt("the index as it is declared")),
        }
    }

    /// Sets the status of the rows with pending ops.
    pub(crate) fn fill_in(
        &self,
        page: &mut Rows<V>,
        book: &Book,
        tail: &Tail,
        snapshot: &Snapshot,
    ) -> Result<(), Error> {
        fill_in(page.items.iter_mut(), &self.entity, &book.shared, tail, snapshot)
    }
}

/// Sets the status of those rows that have pending ops. The tail and the snapshot are of one
/// instant.
pub(crate) fn fill_in<'r, V: 'r>(
    rows: impl Iterator<Item = &'r mut Stored<V>>,
    entity: &EntityType,
    shared: &Shared,
    tail: &Tail,
    snapshot: &Snapshot,
) -> Result<(), Error> {
    let rows: Vec<_> = rows.filter(|row| row.pending > 0).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let keys: Vec<_> =
        rows.iter().map(|row| RecordKey::new(entity.clone(), row.id.clone())).collect();
    let statuses = shared.statuses_of(tail, snapshot, &keys)?;
    rows.into_iter().zip(statuses).for_each(|(row, status)| row.status = status);
    Ok(())
}

fn damaged(fault: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::corrupt("a row that an index names", None, fault)
}

pub(crate) const fn no_record() -> StoreError {
    StoreError::Corrupt {
        what: "an index names a record that is not there",
        seq: None,
        source: None,
    }
}
