//! The laws of lists and of search. They are judged at every action of a device that changes a row
//! of what its app can list.
//!
//! A book keeps the keys of its indexes and the words of its search beside its records. A walked
//! device has no such tables: [`Kept`] holds both in memory, and a test compares it with real books
//! on the same paths. Real are the functions that decide: the keys that a change brings and takes
//! away, the window of a live list and its steps, the records that an entry touches, and the words
//! of a record.
//!
//! 1. Index: the keys, changed action by action, list the records that a scan finds, in its order.
//! 2. Live list: an action that does not touch the window of a list leaves the list as it was.
//!    After any action, the steps lead from the list before to the list after.
//! 3. Search: the words, taken anew only of records that the new entries touch, find what a scorer
//!    finds that looks at every record.
//!
//! What it does not do: keep anything that makes two states differ. Keys and words follow from the
//! records.

mod kept;

use std::collections::BTreeSet;
use std::ops::Bound;

use fieldbook_core::index::{Conditions, EntityIndexes, IndexPart, IndexRule};
use fieldbook_core::index::{Span, Steps, Turn, Window};
use fieldbook_core::search::SearchRule;
use fieldbook_core::{FieldsJson, RecordId, RecordKey, Version};
use serde_json::{Map, Value, json};

pub(super) use self::kept::Kept;
use super::device::Device;
use super::law::{Broken, Law};
use super::world::Ground;
use crate::scored::scored;
use crate::world::lists::{Images, scanned};

/// The least value that a list with a condition shows. What an op writes has it, and what a record
/// has at first does not.
pub(super) const LISTED_FROM: i64 = 9;

/// What the app of a small world declares for its lists and its search, and the lists that it
/// shows.
#[derive(Debug, Clone)]
pub(super) struct Declared {
    indexes: EntityIndexes,
    pub(super) search: SearchRule,
    pub(super) lists: Vec<Asked>,
}

/// A list that an app shows.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) rule: IndexRule,
    pub(super) limit: usize,
    /// None, or that the first part has [`LISTED_FROM`] or more.
    pub(super) conditions: Conditions,
}

impl Declared {
    pub(super) fn new() -> Self {
        let rules = rules();
        let mut from_value = Conditions::default();
        from_value
            .range(Bound::Included(json!(LISTED_FROM)), Bound::Unbounded)
            .unwrap_or_else(|_| unreachable!("BUG: a number is a bound"));
        let [by_both, by_b] = rules.clone();
        let lists = vec![
            Asked { rule: by_both, limit: 1, conditions: Conditions::default() },
            Asked { rule: by_b, limit: 2, conditions: from_value },
        ];
        let search = SearchRule::new().field("a", 2).field("b", 1);
        Self { indexes: EntityIndexes::new(rules), search, lists }
    }
}

/// Returns the indexes: one of all records, whose end a list of one row shows, and one that a
/// record enters and leaves as its values change.
pub(super) fn rules() -> [IndexRule; 2] {
    [
        IndexRule::new("by_both").desc("a").asc(IndexPart::new("b").caseless()),
        IndexRule::new("by_b").asc("b").desc("a").only_if_present(),
    ]
}

/// The records that the commits of an action named as changed.
#[derive(Debug, Clone, Default)]
pub(super) struct Named {
    pub(super) records: Vec<RecordKey>,
    /// Whether every record may have changed.
    pub(super) all: bool,
}

/// A row of a list.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row<'d> {
    pub(super) id: RecordId,
    pub(super) shown: Shown<'d>,
}

/// What a list shows of a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shown<'d> {
    pub(super) version: Option<Version>,
    pub(super) pending: usize,
    pub(super) image: &'d FieldsJson,
}

impl<'d> Shown<'d> {
    fn of(device: &'d Device, key: &RecordKey) -> Option<Self> {
        let row = device.tables.records.get(key)?;
        let image = row.image()?;
        Some(Self { version: row.version(), pending: row.tail.len(), image })
    }
}

fn text<'d>(shown: Option<Shown<'d>>) -> Option<&'d str> {
    shown.map(|shown| shown.image.as_str())
}

/// A record that an action changed.
struct Change<'d> {
    key: &'d RecordKey,
    before: Option<Shown<'d>>,
    after: Option<Shown<'d>>,
}

impl Change<'_> {
    fn is_of_image(&self) -> bool {
        self.before.map(|shown| shown.image) != self.after.map(|shown| shown.image)
    }
}

/// Brings what a device keeps up to date after an action, and checks the laws.
pub(super) fn follow_lists(ground: &Ground, before: &Device, after: &mut Device) -> Vec<Broken> {
    let mut kept = after.kept.clone();
    let judged = judge(ground, before, after, &mut kept);
    after.kept = kept;
    judged.unwrap_or_else(|broken| vec![broken])
}

fn judge(
    ground: &Ground,
    before: &Device,
    after: &Device,
    kept: &mut Kept,
) -> Result<Vec<Broken>, Broken> {
    let changes = ground.keys.iter().map(|key| Change {
        key,
        before: Shown::of(before, key),
        after: Shown::of(after, key),
    });
    let changes: Vec<_> = changes.filter(|change| change.before != change.after).collect();
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let images: Vec<_> = changes.iter().filter(|change| change.is_of_image()).collect();
    let mut new_keys = Vec::new();
    let mut broken = Vec::new();
    if !images.is_empty() {
        new_keys = kept.turn_keys(ground, &images)?;
        kept.take_words(ground, before.log.len(), after)?;
        let read = read_images(ground, after)?;
        broken.extend(check_indexes(ground, kept, &read));
        broken.extend(check_search(ground, kept, &images, &read)?);
    }
    for asked in &ground.declared.lists {
        let shown = List::read(ground, asked, before, &before.kept)?;
        let then = List::read(ground, asked, after, kept)?;
        broken.extend(check_live(ground, asked, (&shown, &then), &after.named, &new_keys)?);
    }
    Ok(broken)
}

/// Returns the fields of the records that the app reads.
fn read_images(ground: &Ground, device: &Device) -> Result<Images, Broken> {
    let shown = ground.keys.iter().filter_map(|key| Some((key, Shown::of(device, key)?)));
    let images = shown.map(|(key, shown)| Ok((key.id.as_str().to_owned(), values(shown.image)?)));
    images.collect()
}

fn values(image: &FieldsJson) -> Result<Map<String, Value>, Broken> {
    serde_json::from_str(image.as_str()).map_err(|error| Broken::unsound(&error))
}

fn check_indexes(ground: &Ground, kept: &Kept, images: &Images) -> Vec<Broken> {
    let mut broken = Vec::new();
    let Some(entity) = ground.keys.first().map(|key| &key.entity) else { return broken };
    for rule in ground.declared.indexes.rules() {
        let prefix = rule.prefix(entity);
        let from = (Bound::Included(prefix.as_slice()), Bound::Unbounded);
        let keys = kept.keys.range::<[u8], _>(from).take_while(|key| key.starts_with(&prefix));
        let listed: Vec<_> = keys.filter_map(|key| rule.id_of(entity, key)).collect();
        let wanted = scanned(rule, images);
        if listed != wanted {
            let what = format!("{} lists {listed:?}, and a scan finds {wanted:?}", rule.name());
            broken.push(Broken::new(Law::Lists, what));
        }
    }
    broken
}

/// Checks the searches for each value that a changed record had or has, and for both values of each
/// record together.
fn check_search(
    ground: &Ground,
    kept: &Kept,
    changes: &[&Change<'_>],
    images: &Images,
) -> Result<Vec<Broken>, Broken> {
    let rule = &ground.declared.search;
    let mut asked = BTreeSet::new();
    let before = changes.iter().filter_map(|change| change.before);
    let before: Vec<_> = before.map(|shown| values(shown.image)).collect::<Result<_, Broken>>()?;
    for image in before.iter().chain(images.values()) {
        let texts: Vec<_> = image.values().map(Value::to_string).collect();
        asked.insert(texts.join(" "));
        asked.extend(texts);
    }
    asked.remove("");
    let mut broken = Vec::new();
    for asked in asked {
        let found = kept.find(rule, &asked);
        let records = images.iter().map(|(id, image)| (id.as_str(), image));
        let wanted = scored(rule, records, &asked);
        if found != wanted {
            let what = format!("a search for {asked:?} finds {found:?}, not {wanted:?}");
            broken.push(Broken::new(Law::Search, what));
        }
    }
    Ok(broken)
}

/// A list, as a screen has it.
#[derive(Debug, PartialEq)]
pub(super) struct List<'d> {
    pub(super) rows: Vec<Row<'d>>,
    /// The key and the record of the row that follows the last one.
    following: Option<(Vec<u8>, RecordId)>,
    /// The key of the last row, if a row follows it.
    pub(super) next: Option<Vec<u8>>,
}

impl<'d> List<'d> {
    /// Reads a list by the keys that a device keeps.
    pub(super) fn read(
        ground: &'d Ground,
        asked: &Asked,
        device: &'d Device,
        kept: &Kept,
    ) -> Result<Self, Broken> {
        let mut list = Self { rows: Vec::new(), following: None, next: None };
        let Some(span) = asked.span(ground)? else { return Ok(list) };
        let (from, to) = span.bounds();
        let within = (Bound::Included(from), Bound::Excluded(to));
        let mut last = None;
        for at in kept.keys.range::<[u8], _>(within) {
            let id = asked.rule.id_of(span.entity(), at);
            let key = ground.keys.iter().find(|key| Some(key.id.as_str()) == id);
            let shown = key.and_then(|key| Some((key, Shown::of(device, key)?)));
            let Some((key, shown)) = shown else {
                let what = format!("{} has a key of a record that is not there", asked.rule.name());
                return Err(Broken::new(Law::Lists, what));
            };
            if list.rows.len() == asked.limit {
                (list.following, list.next) = (Some((at.clone(), key.id.clone())), last);
                break;
            }
            list.rows.push(Row { id: key.id.clone(), shown });
            last = Some(at.clone());
        }
        Ok(list)
    }

    /// Returns the window of a list that shows these rows.
    fn window(&self, ground: &Ground, asked: &Asked) -> Result<Option<Window>, Broken> {
        let Some(span) = asked.span(ground)? else { return Ok(None) };
        let (from, to) = span.bounds();
        let keys = (from.to_vec(), to.to_vec());
        let mut window = Window::new(span.entity().clone(), keys, span.is_rough());
        self.rows.iter().for_each(|row| window.add(row.id.clone()));
        if let Some((at, id)) = &self.following {
            window.add(id.clone());
            window.end_at(at, false);
        }
        Ok(Some(window))
    }
}

impl Asked {
    fn span<'a>(&'a self, ground: &'a Ground) -> Result<Option<Span<'a>>, Broken> {
        let Some(key) = ground.keys.first() else { return Ok(None) };
        let span = Span::new(&self.rule, &key.entity, &self.conditions);
        span.map(Some).map_err(|misfit| Broken::unsound(&misfit))
    }
}

/// Checks the live list of some rows over an action.
fn check_live(
    ground: &Ground,
    asked: &Asked,
    (before, after): (&List<'_>, &List<'_>),
    named: &Named,
    new_keys: &[Vec<u8>],
) -> Result<Option<Broken>, Broken> {
    let Some(window) = before.window(ground, asked)? else { return Ok(None) };
    let broken = |what| Ok(Some(Broken::new(Law::Lists, format!("{}: {what}", asked.rule.name()))));
    let is_pending = before.rows.iter().any(|row| row.shown.pending > 0);
    let turn = Turn { records: &named.records, new_keys: Some(new_keys) };
    let is_told = named.all || is_pending || window.is_touched(&turn);
    let same = before.rows == after.rows && before.next == after.next;
    if !is_told && !same {
        return broken(format!("the list is not told, and has {after:?} after {before:?}"));
    }
    let steps = Steps::between(&before.rows, &after.rows, |row| &row.id);
    let led = taken(before.rows.clone(), &steps, &after.rows);
    if led.as_deref() != Some(&after.rows[..]) {
        return broken(format!("{steps:?} lead from {:?} to {led:?}", before.rows));
    }
    if steps.is_empty() != (before.rows == after.rows) {
        return broken(format!("{steps:?} between {:?} and {:?}", before.rows, after.rows));
    }
    Ok(None)
}

/// Takes the steps as a screen does; `None` if one names a place that is not there.
fn taken<'d>(mut rows: Vec<Row<'d>>, steps: &Steps, after: &[Row<'d>]) -> Option<Vec<Row<'d>>> {
    for place in steps.removed.iter().rev() {
        (*place < rows.len()).then(|| rows.remove(*place))?;
    }
    for place in &steps.inserted {
        let row = after.get(*place)?.clone();
        (*place <= rows.len()).then(|| rows.insert(*place, row))?;
    }
    for place in &steps.updated {
        *rows.get_mut(*place)? = after.get(*place)?.clone();
    }
    Some(rows)
}
