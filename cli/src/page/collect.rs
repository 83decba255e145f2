//! Collects the data of a page in one walk through the log.
//!
//! The data are columns. A position is the number of an entry. What changes at a position is a row
//! of the record: fields that were set or removed, or another state. `docs/history-page.md` has
//! every member.
//!
//! Invariants:
//! 1. A value at a position is that of the last row at or before it.
//! 2. Rows at or before the beginning of the page are joined to one row at the beginning.

mod columns;

use std::collections::{BTreeMap, HashMap};

use fieldbook::audit::entry::{Control, Entry, Meta};
use fieldbook::audit::{Explanation, Stories, WalkStep, changes};
use fieldbook::record::FieldsJson;
use fieldbook::{Actor, Book, RecordKey};
use serde::Serialize;
use serde_json::Value;

use super::{Wanted, value};
use crate::commands::explain::advise;
use crate::error::Failure;
use crate::show::advice::Advice;
use crate::show::table::Tone;
use crate::show::{name, plain, words};

/// The data of a page.
pub(super) struct Collected {
    pub(super) main: Value,
    pub(super) blocks: Vec<Value>,
    pub(super) entries: u64,
    pub(super) records: usize,
    pub(super) has_cut: bool,
}

/// Texts, each once.
#[derive(Default)]
struct Table<T> {
    numbers: HashMap<T, usize>,
    all: Vec<T>,
}

impl<T: Clone + Eq + std::hash::Hash> Table<T> {
    fn number(&mut self, item: T) -> usize {
        if let Some(number) = self.numbers.get(&item) {
            return *number;
        }
        let number = self.all.len();
        self.numbers.insert(item.clone(), number);
        self.all.push(item);
        number
    }
}

/// A state of a record or of the book: in words, its stable name, how good it is.
type State = (String, &'static str, &'static str);

/// The columns of the entries.
#[derive(Default, Serialize)]
struct Entries {
    wall: Vec<i64>,
    clock: Vec<i64>,
    actor: Vec<usize>,
    kind: Vec<usize>,
}

/// What happened to one record.
#[derive(Default)]
struct Rows {
    /// The fields that the app reads, and those that the server confirmed: changes by position.
    seen: Vec<(u64, Patch)>,
    confirmed: Vec<(u64, Patch)>,
    /// State, version, pending ops, explanation plus 1.
    states: Vec<Row<4>>,
    /// Why the record was not synced, in sentences.
    why: Table<String>,
    /// What helps now.
    advice: Advice,
    /// Position and actor of each edit here.
    edits: Vec<(u64, usize)>,
}

/// A position, and the numbers that hold from there on.
type Row<const N: usize> = (u64, [u64; N]);

/// A change of fields: the new image's values, none for a removed field. No patch stands for no
/// record.
type Patch = Option<BTreeMap<usize, Option<Value>>>;

/// Collects the data of a page.
pub(super) fn collect(
    book: &Book,
    wanted: &Wanted,
    mut progress: impl FnMut(u64),
) -> Result<Collected, Failure> {
    let mut collector = Collector {
        wanted,
        user: book.actor(),
        records: BTreeMap::new(),
        stories: Stories::default(),
        entries: Entries::default(),
        last: (0, 0),
        actors: Table::default(),
        fields: Table::default(),
        states: Table::default(),
        overall: Table::default(),
        numbers: Vec::new(),
        app: (String::new(), String::new()),
        has_cut: false,
    };
    book.audit().walk(&book.actor(), wanted.until, |step| {
        collector.take(step);
        progress(step.entry.header.seq.number());
    })?;
    Ok(collector.end(book))
}

struct Collector<'w> {
    wanted: &'w Wanted,
    /// Who looks at the book.
    user: Actor,
    records: BTreeMap<RecordKey, Rows>,
    stories: Stories,
    entries: Entries,
    /// The last wall clock and log clock of the columns.
    last: (i64, i64),
    actors: Table<String>,
    fields: Table<String>,
    states: Table<State>,
    overall: Table<State>,
    /// State, pending ops, dead letters, conflicts, open conflicts.
    numbers: Vec<Row<5>>,
    /// The app and the system of the last opening.
    app: (String, String),
    has_cut: bool,
}

impl Collector<'_> {
    fn take(&mut self, step: &WalkStep<'_>) {
        let (entry, at) = (step.entry, step.entry.header.seq.number());
        self.stories.tell(entry, step.effects, step.authors);
        for effect in step.effects {
            let actor = matches!(entry.meta, Meta::Intent(_))
                .then(|| self.actors.number(name(&entry.header.actor)));
            let rows = rows_of(&mut self.records, &effect.key);
            rows.edits.extend(actor.map(|actor| (at, actor)));
        }
        for effect in step.effects.iter().chain(step.others) {
            let seen = self.patch(effect.seen.before.as_ref(), effect.seen.after.as_ref());
            let (before, after) = (&effect.confirmed.before, &effect.confirmed.after);
            let confirmed = self.patch(before.as_ref(), after.as_ref());
            let rows = rows_of(&mut self.records, &effect.key);
            rows.seen.extend(seen.map(|patch| (at, patch)));
            rows.confirmed.extend(confirmed.map(|patch| (at, patch)));
        }
        step.explained.iter().for_each(|explanation| self.explain(at, explanation));
        self.count(at, step);
        if at > self.wanted.since.number() {
            self.column(entry);
        }
        if let Meta::Control(Control::Session(session)) = &entry.meta {
            let app = session.app.as_ref();
            let app = app.map_or_else(String::new, |app| format!("{} {}", app.name, app.version));
            self.app = (plain(&app), plain(&session.system));
        }
    }

    /// Returns what changed from one image to the next; none if nothing did.
    fn patch(&mut self, before: Option<&FieldsJson>, after: Option<&FieldsJson>) -> Option<Patch> {
        if before == after {
            return None;
        }
        if after.is_none() {
            return Some(None);
        }
        let mut patch = BTreeMap::new();
        for change in changes(before, after) {
            let field = self.fields.number(name(&change.field));
            let full = self.wanted.full;
            let new = change.new.map(|new| value::value(&new, full, &mut self.has_cut));
            patch.insert(field, new);
        }
        Some(Some(patch))
    }

    /// Notes the state of a record, if it is another one.
    fn explain(&mut self, at: u64, explanation: &Explanation) {
        let state = (
            plain(&explanation.in_short()),
            explanation.state.as_str(),
            tone(words::record_tone(explanation.state)),
        );
        let state = self.states.number(state) as u64;
        let version = explanation.confirmed.as_ref().map_or(0, |known| known.version.number());
        let rows = rows_of(&mut self.records, &explanation.key);
        let advice = explanation.ops.iter().filter_map(|op| advise(op, &self.user));
        rows.advice = advice.fold(Advice::default(), Advice::and);
        let pending = explanation.ops.len() as u64;
        if rows.states.last().is_some_and(|(_, last)| last.starts_with(&[state, version, pending]))
        {
            return;
        }
        let mut why = 0;
        if pending > 0 || explanation.undeclared {
            let said: Vec<_> = explanation.sentences.iter().map(|line| plain(line)).collect();
            why = rows.why.number(said.join("\n")) as u64 + 1;
        }
        rows.states.push((at, [state, version, pending, why]));
    }

    /// Notes the numbers of the book, if they are others.
    fn count(&mut self, at: u64, step: &WalkStep<'_>) {
        let status = step.status;
        let (said, state_tone) = words::book_state(&status.state, status.pending);
        let state = (plain(&said), words::sync_state_name(&status.state), tone(state_tone));
        let numbers = [
            self.overall.number(state) as u64,
            status.pending,
            status.dead_letters,
            step.conflicts.all,
            step.conflicts.open,
        ];
        if self.numbers.last().is_none_or(|(_, last)| *last != numbers) {
            self.numbers.push((at, numbers));
        }
    }

    fn column(&mut self, entry: &Entry) {
        let header = &entry.header;
        let (wall, clock) = (header.wall.milliseconds(), header.hlc.wall().milliseconds());
        self.entries.wall.push(wall - self.last.0);
        self.entries.clock.push(clock - self.last.1);
        self.last = (wall, clock);
        self.entries.actor.push(self.actors.number(name(&header.actor)));
        self.entries.kind.push(kind(&entry.meta));
    }
}

fn rows_of<'r>(records: &'r mut BTreeMap<RecordKey, Rows>, key: &RecordKey) -> &'r mut Rows {
    records.entry(key.clone()).or_default()
}

/// The kinds of entries. [`kind`] returns the place of a kind.
const KINDS: [&str; 7] = ["edit", "plan", "answer", "decision", "person", "opening", "silence"];

const fn kind(meta: &Meta) -> usize {
    match meta {
        Meta::Intent(_) => 0,
        Meta::Control(Control::Planned(_)) => 1,
        Meta::Upstream(_) | Meta::Control(Control::Authors(_) | Control::Note(_)) => 2,
        Meta::Control(Control::Decided(_)) => 3,
        Meta::Control(Control::PersonActed(..) | Control::Erased(_) | Control::Trimmed(_)) => 4,
        Meta::Control(
            Control::Opened(_)
            | Control::EpochStarted { .. }
            | Control::Session(_)
            | Control::Baseline(_),
        ) => 5,
        Meta::Control(Control::Silence(_)) => 6,
    }
}

const fn tone(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "good",
        Tone::Waiting => "waiting",
        Tone::Bad => "bad",
        _ => "plain",
    }
}
