//! The law of lists: every declared index has the records that a scan finds, each under its values
//! and in their order.
//!
//! What it is not: a check of the tables against the log. A rebuild writes an index by the same
//! rules, so it would repeat a fault of them.

use std::collections::BTreeMap;

use fieldbook::query::Query;
use fieldbook::record::FieldsJson;
use fieldbook::schema::IndexRule;
use fieldbook::{Book, EntityType};
use fieldbook_core::index::compare;
use serde_json::{Map, Value};

use crate::broken::{Broken, ensure};

/// The rows of a page: so few that most lists have several.
const PAGE: usize = 3;

/// The fields of records, by their ids.
pub(crate) type Images = BTreeMap<String, Map<String, Value>>;

/// Checks S4 for the lists of a book.
pub(crate) fn check_lists(book: &Book) -> Result<(), Broken> {
    let declared: Vec<_> = book.schema().declared().collect();
    for (entity, rules) in declared {
        let records = book.records().list(entity, None, usize::MAX).map_err(unlisted)?;
        let image = |json| serde_json::from_str(json).map_err(unlisted);
        let images = records.iter().map(|record| Ok((record.id.to_owned(), image(record.json)?)));
        let images = images.collect::<Result<Images, Broken>>()?;
        rules.indexes.iter().try_for_each(|rule| check_list(book, entity, rule, &images))?;
    }
    Ok(())
}

fn check_list(
    book: &Book,
    entity: &EntityType,
    rule: &IndexRule,
    images: &Images,
) -> Result<(), Broken> {
    let listed = pages(book.records().query(entity, rule.name()))?;
    let mut reversed = pages(book.records().query(entity, rule.name()).reversed())?;
    reversed.reverse();
    let name = || format!("{entity} by {}", rule.name());
    ensure(listed == reversed, "S4", || format!("{}: the reverse has other rows", name()))?;
    let wanted = scanned(rule, images);
    ensure(listed == wanted, "S4", || format!("{} lists {listed:?}, not {wanted:?}", name()))
}

/// Returns the ids of the records that a scan puts into an index, in the order of its rows.
pub(crate) fn scanned<'i>(rule: &IndexRule, images: &'i Images) -> Vec<&'i str> {
    // No two records need to be in one order only, so the lists are compared as they should be
    // sorted.
    let mut wanted = Vec::new();
    for (id, image) in images {
        wanted.extend(entries(rule, image).into_iter().map(|values| (id.as_str(), values)));
    }
    wanted.sort_by(|one, other| {
        let values = rule.parts().iter().zip(one.1.iter().zip(&other.1));
        let orders = values.map(|(part, (one, other))| compare(part, one.as_ref(), other.as_ref()));
        orders.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then).then(one.0.cmp(other.0))
    });
    wanted.into_iter().map(|(id, _)| id).collect()
}

/// Returns the ids of a whole list, page by page.
fn pages(list: Query<'_, FieldsJson>) -> Result<Vec<String>, Broken> {
    let (mut ids, mut list) = (Vec::new(), list.limit(PAGE));
    loop {
        let page = list.page().map_err(unlisted)?;
        ids.extend(page.items.iter().map(|row| row.id.as_str().to_owned()));
        if page.next.is_none() {
            return Ok(ids);
        }
        list = list.after(page.next.as_ref());
    }
}

/// Returns the values of a record's entries, by the words of the guide. The world's indexes have at
/// most one part with an entry for each element, which is the field `tags`.
fn entries(rule: &IndexRule, image: &Map<String, Value>) -> Vec<Vec<Option<Value>>> {
    let scalar = |value: &Value| {
        Some(value.clone())
            .filter(|value| !value.is_array() && !value.is_object() && !value.is_null())
    };
    let mut rows = vec![Vec::new()];
    for part in rule.parts() {
        let mut values: Vec<Option<Value>> = match image.get(part.field()) {
            Some(Value::Array(items)) if part.field() == "tags" => {
                items.iter().filter_map(scalar).map(Some).collect()
            }
            value => vec![value.and_then(scalar)],
        };
        values.sort_by(|one, other| compare(part, one.as_ref(), other.as_ref()));
        values.dedup();
        if values.is_empty() {
            values.push(None);
        }
        let longer = rows.iter().flat_map(|row: &Vec<Option<Value>>| {
            values.iter().map(|value| [row.as_slice(), std::slice::from_ref(value)].concat())
        });
        rows = longer.collect();
    }
    rows.retain(|row| !rule.is_only_if_present() || row.iter().all(Option::is_some));
    rows
}

fn unlisted(error: impl std::fmt::Debug) -> Broken {
    Broken::new("S4", format!("a list does not read: {error:?}"))
}
