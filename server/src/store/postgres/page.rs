//! The page of an answer, read in one statement with the last commit, so that no cursor passes a
//! change that was not sent.

use fieldbook_core::authority::{Accepted, Quota};
use fieldbook_core::protocol::ExchangeRequest;
use fieldbook_core::{Cursor, Version};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::connections::{Values, value};
use super::load::tenant_value;
use super::loaded::{Feeds, Loaded};
use super::rows;
use crate::store::{Damaged, StateError, Tenant};

/// How much of the changes is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    records: i64,
    bytes: i64,
}

impl Window {
    /// Returns enough for the page of a request. What the request changed itself is not counted in
    /// the page, and is read all the same.
    pub(super) fn of(request: &ExchangeRequest, quota: &Quota, accepted: &Accepted) -> Self {
        let has_page = accepted.forked.is_none() && !accepted.for_another_epoch;
        let limit = request.page_limit.min(quota.page_changes);
        if !has_page || limit == 0 {
            return Self { records: 0, bytes: 0 };
        }
        let own: usize = request.units.iter().map(|unit| unit.changes.len()).sum();
        let own_bytes = if own == 0 { 0 } else { quota.page_bytes };
        let whole = |number: usize| i64::try_from(number).unwrap_or(i64::MAX / 8);
        Self {
            records: i64::from(limit).saturating_add(whole(own)),
            bytes: whole(quota.page_bytes.saturating_add(own_bytes)),
        }
    }

    /// Returns at most so many records at first.
    #[cfg(test)]
    pub(super) fn at_most(self, records: i64) -> Self {
        Self { records: self.records.min(records), ..self }
    }

    /// Returns more, for a page that was not full at the end of this.
    pub(super) const fn larger(self) -> Self {
        Self { records: self.records.saturating_mul(4), bytes: self.bytes.saturating_mul(4) }
    }

    /// Returns the values of the statement.
    pub(super) fn values(self, tenant: &Tenant, request: &ExchangeRequest) -> Values {
        let (mut names, mut cursors) = (Vec::new(), Vec::new());
        if self.records > 0 {
            for (entity, cursor) in &request.cursors {
                names.push(entity.as_str().to_owned());
                cursors.push(position(cursor));
            }
        }
        let others = request.others.as_ref().map_or(0, position);
        vec![
            tenant_value(tenant),
            value(others, Type::INT8),
            value(names, Type::TEXT_ARRAY),
            value(cursors, Type::INT8_ARRAY),
            value(self.records, Type::INT8),
            value(self.bytes, Type::INT8),
        ]
    }
}

/// Returns the commit that a cursor names. The rules have refused other cursors already.
fn position(cursor: &Cursor) -> i64 {
    let bytes = cursor.as_bytes().try_into().map_or(0, u64::from_be_bytes);
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Reads the answer, and whether there are further changes.
pub(super) fn loaded(row: &Row, tenant: &Tenant) -> Result<(Loaded, bool), StateError> {
    let mut loaded = Loaded::new(rows::top(row, tenant)?);
    let entities = rows::list::<&str>(row, "entities")?;
    let commits = rows::list::<i64>(row, "commits")?;
    let indexes = rows::list::<i32>(row, "indexes")?;
    let contents = rows::list::<Option<Vec<u8>>>(row, "contents")?;
    rows::aligned(entities.len(), &[commits.len(), indexes.len(), contents.len()])?;
    let mut feeds = Feeds::new();
    let places = commits.into_iter().zip(indexes);
    for ((entity, (commit, idx)), content) in entities.into_iter().zip(places).zip(contents) {
        let place = (Version::new(rows::number(commit)?), rows::index(idx)?);
        let content = content.ok_or(Damaged { what: "a record" })?;
        feeds.entry(rows::entity(entity)?).or_default().insert(place, content);
    }
    loaded.feeds = Some(feeds);
    Ok((loaded, rows::column(row, "is_cut")?))
}
