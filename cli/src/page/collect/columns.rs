//! Lays out what was collected: the columns of the first block, and the blocks of stories.

use std::collections::{BTreeMap, HashMap};

use fieldbook::audit::{Moment, Paragraph, gap};
use fieldbook::host::WallTime;
use fieldbook::{Book, RecordKey};
use serde_json::{Value, json};

use super::{Collected, Collector, KINDS, Patch, Row, Rows, Table};
use crate::commands::lacking;
use crate::show::{name, plain};

/// The most paragraphs of a block.
const BLOCK: usize = 2_000;
/// The most records that a paragraph of the device names.
const NAMED: usize = 3;

impl Collector<'_> {
    pub(super) fn end(mut self, book: &Book) -> Collected {
        let since = self.wanted.since.number();
        let (mut told, stories) = std::mem::take(&mut self.stories).end();
        told.retain(|paragraph| paragraph.to.number() > since);
        let mut blocks = self.blocks_of_device(&told);
        let story = json!({
            "from": told.iter().map(|one| one.from.number()).collect::<Vec<_>>(),
            "to": told.iter().map(|one| one.to.number()).collect::<Vec<_>>(),
            "weight": told.iter().map(|one| one.weight as u8).collect::<Vec<_>>(),
            "block": BLOCK,
            "blocks": blocks.len(),
        });
        let (of_records, starts) = self.blocks_of_records(stories);
        blocks.extend(of_records);
        let mut types = Table::default();
        let records: Vec<_> = self
            .records
            .iter()
            .map(|(key, rows)| record(types.number(name(&key.entity)), key, rows, since))
            .collect();
        let main = json!({
            "form": 1,
            "about": self.about(book),
            "actors": self.actors.all,
            "kinds": KINDS,
            "entries": self.entries,
            "overall": self.overall.all,
            "numbers": flat_rows(&self.numbers, since),
            "states": self.states.all,
            "types": types.all,
            "fields": self.fields.all,
            "records": records,
            "story": story,
            "starts": starts,
        });
        Collected {
            main,
            blocks,
            entries: self.entries.wall.len() as u64,
            records: self.records.len(),
            has_cut: self.has_cut,
        }
    }

    fn about(&self, book: &Book) -> Value {
        let last = book.at(Moment::Entry(self.wanted.until));
        let server = last.and_then(|last| last.server_state()).ok();
        let anchor = server.and_then(|server| server.anchored);
        json!({
            "name": plain(&self.wanted.name),
            "program": env!("CARGO_PKG_VERSION"),
            "device": book.audit().device().map(|device| device.to_string()),
            "app": self.app.0,
            "system": self.app.1,
            "offset": self.wanted.offset,
            "first": self.wanted.since,
            "anchored": anchor.map(|anchor| anchor.seq.number()),
            "lacking": lacking(book, None).iter().map(|rule| plain(rule)).collect::<Vec<_>>(),
        })
    }

    /// Returns the blocks of the device's paragraphs, each with its first records.
    fn blocks_of_device(&self, told: &[Paragraph]) -> Vec<Value> {
        let numbers: HashMap<&RecordKey, usize> =
            self.records.keys().enumerate().map(|(number, key)| (key, number)).collect();
        let mut before = None;
        let mut with_records = |one: &Paragraph| {
            let mut paragraph = paragraph(one, &mut before);
            let named = one.records.iter().filter_map(|key| numbers.get(key)).take(NAMED);
            paragraph.push(json!(named.collect::<Vec<_>>()));
            paragraph
        };
        let block =
            |chunk: &[Paragraph]| json!(chunk.iter().map(&mut with_records).collect::<Vec<_>>());
        told.chunks(BLOCK).map(block).collect()
    }

    /// Returns the blocks of the records' stories, and the first record of each.
    fn blocks_of_records(
        &self,
        mut stories: BTreeMap<RecordKey, Vec<Paragraph>>,
    ) -> (Vec<Value>, Vec<usize>) {
        let (mut blocks, mut starts) = (Vec::new(), Vec::new());
        let (mut open, mut paragraphs) = (Vec::new(), 0);
        for (number, (key, rows)) in self.records.iter().enumerate() {
            if open.is_empty() {
                starts.push(number);
            }
            let mut story = stories.remove(key).unwrap_or_default();
            paragraphs += story.len();
            story.retain(|paragraph| paragraph.to > self.wanted.since);
            let mut before = None;
            let story: Vec<_> = story.iter().map(|one| paragraph(one, &mut before)).collect();
            let advice = self.wanted.path.as_deref().map(|path| rows.advice.lines(Some(path)));
            open.push(json!([story, rows.why.all, advice.unwrap_or_default()]));
            if paragraphs >= BLOCK {
                blocks.push(Value::Array(std::mem::take(&mut open)));
                paragraphs = 0;
            }
        }
        if !open.is_empty() {
            blocks.push(Value::Array(open));
        }
        (blocks, starts)
    }
}

/// Returns a record: its type, its id, its two images, its states, and the edits here.
fn record(kind: usize, key: &RecordKey, rows: &Rows, since: u64) -> Value {
    let edits = rows.edits.iter().flat_map(|(at, actor)| [*at, *actor as u64]);
    json!([
        kind,
        name(&key.id),
        image(&rows.seen, since),
        image(&rows.confirmed, since),
        flat_rows(&rows.states, since),
        edits.collect::<Vec<_>>(),
    ])
}

/// Returns the rows of an image: position, then the fields that were set, each with its value, and
/// the removed ones as `-1 - field`; `null` for no record.
fn image(rows: &[(u64, Patch)], since: u64) -> Vec<Value> {
    let mut first: Patch = None;
    let mut later = Vec::new();
    for (at, patch) in rows {
        if *at > since {
            later.push((*at, patch.clone()));
            continue;
        }
        match (patch, &mut first) {
            (Some(patch), Some(first)) => first.extend(patch.clone()),
            (patch, first) => first.clone_from(patch),
        }
    }
    let first = first.map(|mut first| {
        first.retain(|_, value| value.is_some());
        (since, Some(first))
    });
    first.into_iter().chain(later).flat_map(|(at, patch)| [json!(at), flat(patch)]).collect()
}

fn flat(patch: Patch) -> Value {
    let Some(patch) = patch else { return Value::Null };
    let each = patch.into_iter().flat_map(|(field, value)| {
        let number = i64::try_from(field).unwrap_or(i64::MAX);
        match value {
            Some(value) => vec![json!(number), value],
            None => vec![json!(-1 - number)],
        }
    });
    Value::Array(each.collect())
}

/// Returns rows as one list, from the row that holds at the beginning of the page on.
fn flat_rows<const N: usize>(rows: &[Row<N>], since: u64) -> Vec<u64> {
    let from = rows.iter().rposition(|row| row.0 <= since).unwrap_or(0);
    let kept = rows.iter().skip(from);
    kept.flat_map(|(at, row)| std::iter::once((*at).max(since)).chain(row.iter().copied()))
        .collect()
}

/// Returns a paragraph: its first and last entry, its weight, its words, and the time since the one
/// before.
fn paragraph(told: &Paragraph, before: &mut Option<WallTime>) -> Vec<Value> {
    let later = before.and_then(|before| gap(before, told.at)).unwrap_or_default();
    *before = Some(told.until);
    vec![
        json!(told.from.number()),
        json!(told.to.number()),
        json!(told.weight as u8),
        json!(plain(&told.text())),
        json!(later),
    ]
}
