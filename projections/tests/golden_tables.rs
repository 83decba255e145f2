//! The folded tables of the golden logs, row by row. An entry that was written once folds to the
//! same rows for ever. A difference here means that books fold to other tables than before: raise
//! `FOLD_VERSION`, so that each book is folded again. The log with every variant of the meta part
//! is left out: no book could have written it, so it does not fold.
//!
//! `FIELDBOOK_WRITE_GOLDEN=1 cargo test -p fieldbook-projections --test golden_tables` writes the
//! files.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use fieldbook_core::entry::frame::Frame;
use fieldbook_core::log::{ENTRIES, StoreError, entries_from, read_head};
use fieldbook_core::record::{Pending, SentFor};
use fieldbook_core::rows::{ConflictRow, FOLD_VERSION, RecordRow, UnitRow, Visible};
use fieldbook_core::tail::Tail;
use fieldbook_core::{EntityRules, EntityType, FieldsJson, RecordKey, Reference, Schema, Seq};
use fieldbook_projections::{CachedLog, Indexes, Rebuilt, Snapshot, fold, rebuild, touched};
use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase};

/// A lead refers to a company.
fn schema() -> Schema {
    let company = EntityType::parse("company").unwrap();
    let references = vec![Reference { field: "company".to_owned(), entity: company }];
    let rules = EntityRules { references, ..EntityRules::default() };
    Schema::open(EntityRules::default()).declare(EntityType::parse("lead").unwrap(), rules)
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/format-2").join(name)
}

/// Which entries touched a record, record by record, and which concern the book as a whole.
type History = BTreeSet<(Option<RecordKey>, Seq)>;

/// Stores an exported log.
fn stored(mut log: &[u8]) -> Database {
    let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
    let transaction = database.begin_write().unwrap();
    log = log.strip_prefix(b"fieldbook-log 1\n").unwrap();
    while let Some((length, rest)) = log.split_first_chunk() {
        let (entry, rest) = rest.split_at(usize::try_from(u32::from_le_bytes(*length)).unwrap());
        // An entry that was altered names its place all the same.
        let seq = Frame::parse(entry).unwrap().header.seq.number();
        drop(transaction.open_table(ENTRIES).unwrap().insert(seq, entry).unwrap());
        log = rest;
    }
    transaction.commit().unwrap();
    database
}

/// Folds an exported log, and the history too, which a fold leaves out.
fn folded(log: &[u8]) -> (Rebuilt, History) {
    let database = stored(log);
    let entries = database.begin_read().unwrap().open_table(ENTRIES).unwrap();
    let rebuilt = fold(&entries, &schema(), Seq::new(u64::MAX), |_| {}).unwrap();
    let (cached, mut history) = (CachedLog::new(&entries), History::new());
    for entry in entries_from(&entries, Seq::ZERO).map(Result::unwrap) {
        let touched = touched(&entry, &cached).unwrap();
        let book = touched.book.then_some(None);
        let keys = touched.keys.into_iter().map(Some).chain(book);
        history.extend(keys.map(|key| (key, entry.header.seq)));
    }
    (rebuilt, history)
}

/// The tables as text. The debug print of a row omits values, so this adds them.
struct Text(String);

impl Text {
    fn of(rebuilt: &Rebuilt, history: &History) -> String {
        let mut text = Self(format!("fold version {FOLD_VERSION}\n"));
        let tables = rebuilt.tables();
        text.table("records", &tables.records.iter().collect::<BTreeMap<_, _>>(), |row| {
            in_record(row)
        });
        text.table("units", &tables.units, in_unit);
        text.table("conflicts", &tables.conflicts, in_conflict);
        text.table("dead letters", &tables.dead_letters, |_| Vec::new());
        text.table("cursors", &tables.cursors, |_| Vec::new());
        text.table("tail", rebuilt.tail(), |_| Vec::new());
        text.keys("history", history.iter());
        text.keys("undeclared", tables.undeclared.iter());
        write!(text.0, "\n== state\n\n{:#?}\n", tables.state).unwrap();
        text.0
    }

    fn table<K: Debug, R: Debug>(
        &mut self,
        name: &str,
        rows: &BTreeMap<K, R>,
        values: impl Fn(&R) -> Vec<&FieldsJson>,
    ) {
        write!(self.0, "\n== {name}\n").unwrap();
        for (key, row) in rows {
            let mut printed = format!("{row:#?}");
            for value in values(row) {
                let hidden = format!("{value:?}");
                let shown = format!("Fields {}", value.as_str());
                assert!(printed.contains(&hidden), "{hidden} in {printed}");
                printed = printed.replacen(&hidden, &shown, 1);
            }
            assert!(!printed.contains("FieldsJson("), "a value is left out: {printed}");
            write!(self.0, "\n{key:?}\n{printed}\n").unwrap();
        }
    }

    fn keys<K: Debug>(&mut self, name: &str, keys: impl Iterator<Item = K>) {
        write!(self.0, "\n== {name}\n\n").unwrap();
        keys.for_each(|key| writeln!(self.0, "{key:?}").unwrap());
    }
}

/// The values of a row, in the order of its members.
fn in_record(row: &RecordRow) -> Vec<&FieldsJson> {
    let mut values: Vec<_> = row.confirmed.iter().map(|confirmed| &confirmed.fields).collect();
    if let Visible::Own(fields) = &row.visible {
        values.push(fields);
    }
    values.extend(row.tail.iter().flat_map(in_pending));
    values
}

fn in_pending(pending: &Pending) -> Vec<&FieldsJson> {
    let own = [pending.named.as_ref(), pending.brings_back.as_ref()];
    own.into_iter().flatten().chain(pending.abandoned.as_ref().and_then(in_sent_for)).collect()
}

fn in_sent_for(sent_for: &SentFor) -> Option<&FieldsJson> {
    sent_for.record.as_ref().map(|record| &record.fields)
}

fn in_unit(row: &UnitRow) -> Vec<&FieldsJson> {
    row.records.iter().flatten().map(|record| &record.fields).collect()
}

fn in_conflict(row: &ConflictRow) -> Vec<&FieldsJson> {
    [&row.base, &row.local, &row.remote].into_iter().chain(&row.merged).collect()
}

#[test]
fn the_golden_logs_fold_to_their_golden_tables() {
    for name in ["example", "every-fold", "another-server", "erased", "trimmed"] {
        let log = std::fs::read(golden(name).with_extension("log")).unwrap();
        let (rebuilt, history) = folded(&log);
        let tables = Text::of(&rebuilt, &history);
        let path = golden(name).with_extension("tables");
        if std::env::var_os("FIELDBOOK_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, &tables).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap();
        let differs = tables.lines().zip(expected.lines()).find(|(now, then)| now != then);
        assert!(
            tables == expected,
            "{name} folds to other tables, first {differs:?}: see FOLD_VERSION"
        );
    }
}

/// Returns the content of a tail: each of its ops, and its units.
fn said_by(tail: &Tail) -> String {
    let of_op = |(place, row)| {
        format!("{row:?} {place:?} {} {:?}\n", tail.is_dead(place), tail.unit_of(place))
    };
    tail.ops().map(of_op).chain(tail.units().map(|unit| format!("{unit:?}\n"))).collect()
}

#[test]
fn the_tail_of_a_fold_is_the_one_that_is_read_back_from_its_tables() {
    let mut dead = 0;
    for name in ["example", "every-fold", "another-server", "erased", "trimmed"] {
        let database = stored(&std::fs::read(golden(name).with_extension("log")).unwrap());
        let entries = database.begin_read().unwrap().open_table(ENTRIES).unwrap();
        let head = read_head(&entries).unwrap();
        let transaction = database.begin_write().unwrap();
        let (state, rebuilt) =
            rebuild(&transaction, &entries, &schema(), &Indexes::default(), head, |_| {}).unwrap();
        transaction.commit().unwrap();
        let read = Arc::new(Snapshot::new(database.begin_read().unwrap()));
        assert_eq!(read.state().unwrap(), state);
        let (read, folded) = (read.tail(&schema()).unwrap(), rebuilt.into_tail());
        assert_eq!(said_by(&folded), said_by(&read), "{name}");
        dead += folded.dead_letters();
    }
    assert!(dead > 0, "the logs have dead letters");
}

#[test]
fn an_entry_that_was_altered_ends_the_fold_whichever_thread_reads_it() {
    let mut log = std::fs::read(golden("every-fold.log")).unwrap();
    *log.last_mut().unwrap() ^= 1;
    let database = stored(&log);
    let entries = database.begin_read().unwrap().open_table(ENTRIES).unwrap();
    // Few entries are read by the thread that folds them.
    for up_to in [500, u64::MAX] {
        let mut folded = 0;
        let fault = fold(&entries, &schema(), Seq::new(up_to), |_| folded += 1).err().unwrap();
        let last = entries_from(&entries, Seq::ZERO).count() as u64;
        assert!(
            matches!(fault, StoreError::Corrupt { seq: Some(seq), .. } if seq == Seq::new(last))
        );
        assert_eq!(folded + 1, last);
    }
}

/// Checks the tables, not the entries: a decision that changes no row proves nothing here.
#[test]
fn every_record_of_the_golden_log_shows_what_became_of_it() {
    let (rebuilt, _) = folded(&std::fs::read(golden("every-fold.log")).unwrap());
    let row = |id: &str| {
        let found = rebuilt.tables().records.iter().find(|(key, _)| key.id.as_str() == id);
        found.map(|(_, row)| row.clone()).unwrap()
    };
    let pending = |id: &str| row(id).tail.first().cloned().unwrap();
    let ended = ["acked", "superseded", "annulled", "discarded"];
    assert!(ended.iter().all(|id| row(id).tail.is_empty()));
    let is_there = rebuilt.tables().records.keys().any(|key| key.id.as_str() == "let-go");
    assert!(!is_there, "the server does not have it");
    let named = |id: &str| pending(id).named.unwrap().to_fields().unwrap();
    assert!(!named("dropped").has("name") && !named("dropped").is_empty());
    assert!(pending("emptied").emptied && pending("dead").dead && !pending("retried").dead);
    assert!(!named("raised").is_empty() && !pending("raised").raised.is_empty());
    assert!(pending("given-up").abandoned.is_some() && pending("dead").abandoned.is_none());
    assert!(pending("brought-back").brings_back.is_some() && row("brought-back").image().is_some());
    assert!(pending("upcast").upcast.is_some() && !named("upcast").is_empty());
    assert_eq!(
        pending("replaced").cleared,
        ["phone", "stage", "taken_away"],
        "also what was taken away before"
    );
    assert!(row("made-anew").tail.last().unwrap().cleared_at.is_some());
    let company = |id: &str| rebuilt.tail().values().find(|row| row.key.id.as_str() == id).unwrap();
    assert_eq!(company("refers").references, [], "theirs is later");
}
