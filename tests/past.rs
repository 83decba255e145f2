//! The book as it was: every read at every entry equals the same read of a fold of the whole log.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use common::{Server, TestClock, book, fields, key, options, sync};
use fieldbook::audit::{Explanation, Moment, Seq, Stories, read_export};
use fieldbook::conflict::Choice;
use fieldbook::host::WallTime;
use fieldbook::record::{FieldsJson, Version};
use fieldbook::sync::{ServerIdentity, SyncState};
use fieldbook::{Book, BookOptions, Error, Mutation, RecordKey};
use serde_json::json;

/// Compares all reads at every entry.
#[track_caller]
fn same_at_every_entry(book: &Book) {
    let last = book.audit().head().unwrap().unwrap().seq.number();
    for seq in 0..=last {
        if let Some(differs) = book.past_differs(Seq::new(seq)).unwrap() {
            panic!("{differs}");
        }
    }
    same_in_a_walk(book);
}

/// What a walk knows after an entry.
#[derive(Clone, Default)]
struct Walked {
    seen: BTreeMap<RecordKey, String>,
    explained: BTreeMap<RecordKey, (String, Option<Version>, usize)>,
}

fn in_short(explanation: &Explanation) -> (String, Option<Version>, usize) {
    let version = explanation.confirmed.as_ref().map(|known| known.version);
    (explanation.in_short(), version, explanation.ops.len())
}

/// Compares a walk with the reads at every entry, and with the stories of all records.
#[track_caller]
fn same_in_a_walk(book: &Book) {
    let end = Seq::new(u64::MAX);
    let (mut walked, mut stories) = (Walked::default(), Stories::default());
    let mut moments = Vec::new();
    book.audit()
        .walk(&book.actor(), end, |step| {
            for effect in step.effects.iter().chain(step.others) {
                assert_eq!(
                    walked.seen.get(&effect.key),
                    effect.seen.before.as_ref().map(FieldsJson::as_str).map(str::to_owned).as_ref()
                );
                match &effect.seen.after {
                    Some(after) => {
                        drop(walked.seen.insert(effect.key.clone(), after.as_str().to_owned()))
                    }
                    None => drop(walked.seen.remove(&effect.key)),
                }
            }
            stories.tell(step.entry, step.effects, step.authors);
            for explanation in step.explained {
                walked.explained.insert(explanation.key.clone(), in_short(explanation));
            }
            moments.push((
                step.entry.header.seq,
                walked.clone(),
                step.status.clone(),
                step.conflicts,
            ));
        })
        .unwrap();
    let keys: BTreeSet<_> = walked.explained.keys().cloned().collect();
    for (seq, walked, status, conflicts) in moments {
        let at = book.at(Moment::Entry(seq)).unwrap();
        assert_eq!(status, at.status().unwrap(), "entry {seq}");
        assert_eq!(conflicts, at.count_conflicts().unwrap(), "entry {seq}");
        let mut listed = BTreeMap::new();
        for entity in at.entity_types().unwrap() {
            let records = at.list(&entity, None, usize::MAX).unwrap();
            listed.extend(records.iter().map(|record| (record.key(), record.json.to_owned())));
        }
        assert_eq!(walked.seen, listed, "entry {seq}");
        for key in &keys {
            let nothing = ("unknown to this device".to_owned(), None, 0);
            let known = walked.explained.get(key).unwrap_or(&nothing);
            assert_eq!(*known, in_short(&at.explain(key).unwrap()), "{key} at entry {seq}");
        }
    }
    let (device, records) = stories.end();
    assert_eq!(device, book.audit().story(None, Seq::ZERO, end).unwrap());
    for (key, told) in records {
        let story = book.audit().story(Some(&key), Seq::ZERO, end).unwrap();
        assert_eq!(told, story, "the story of {key}");
    }
}

/// Compares them with and without a folded history.
#[track_caller]
fn same_with_and_without_a_history(book: &Book) {
    same_at_every_entry(book);
    book.audit().fold_lazy().unwrap();
    same_at_every_entry(book);
}

#[test]
fn every_entry_of_the_golden_logs_reads_as_the_whole_log_folds() {
    for name in ["example", "every-fold", "another-server"] {
        let log =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/format-2").join(name);
        let bytes = std::fs::read(log.with_extension("log")).unwrap();
        let book = read_export(&mut bytes.as_slice(), BookOptions::new("ann").unwrap()).unwrap();
        same_at_every_entry(&book);
    }
}

#[test]
fn a_life_with_conflicts_refusals_and_another_server_reads_the_same_at_every_entry() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let (ann, ben) = (book("ann", &clock), book("ben", &clock));
    ann.records().create(key("lead/1"), fields(json!({"name": "one", "stage": "new"}))).unwrap();
    ann.transaction(vec![
        Mutation::create(key("lead/2"), fields(json!({"name": "two"}))),
        Mutation::create(key("call/1"), fields(json!({"minutes": 3}))),
    ])
    .unwrap();
    sync(&ann, &server);
    let backup = server.authority.lock().unwrap().clone();
    clock.advance(60_000);
    sync(&ben, &server);
    ben.records().update(key("lead/1"), fields(json!({"stage": "hot"}))).unwrap();
    clock.advance(1_000);
    ann.records().update(key("lead/1"), fields(json!({"stage": "won"}))).unwrap();
    ann.records().delete(key("lead/2")).unwrap();
    sync(&ben, &server);
    sync(&ann, &server);
    ann.records().create(key("lead/3"), fields(json!({"name": "three"}))).unwrap();
    sync(&ann, &server);
    server.restore(&backup, 9);
    ann.records().update(key("lead/3"), fields(json!({"name": "drei"}))).unwrap();
    sync(&ann, &server);
    assert_eq!(ann.status().state, SyncState::NeedsServerConfirmed);
    let candidates: Vec<ServerIdentity> = ann.servers().candidates();
    ann.servers().accept(candidates[0]).unwrap();
    sync(&ann, &server);
    same_with_and_without_a_history(&ann);
    same_with_and_without_a_history(&ben);
}

#[test]
fn an_open_conflict_is_open_at_the_moment_before_it_was_resolved() {
    use fieldbook::schema::Policy;
    use fieldbook::{EntityRules, Schema};
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let rules = EntityRules { policy: Policy::Manual, ..EntityRules::default() };
    let on = |name| {
        let options = options(name, &clock).schema(Schema::open(rules.clone()));
        Book::on_backend(redb::backends::InMemoryBackend::new(), options).unwrap()
    };
    let (ann, ben) = (on("ann"), on("ben"));
    ann.records().create(key("lead/1"), fields(json!({"stage": "new"}))).unwrap();
    sync(&ann, &server);
    sync(&ben, &server);
    ben.records().update(key("lead/1"), fields(json!({"stage": "hot"}))).unwrap();
    ann.records().update(key("lead/1"), fields(json!({"stage": "won"}))).unwrap();
    sync(&ben, &server);
    sync(&ann, &server);
    let [conflict] = ann.conflicts().list_open(None, 9).unwrap().items.try_into().unwrap();
    let open = ann.audit().head().unwrap().unwrap().seq;
    ann.conflicts().resolve(conflict.id, Choice::Local).unwrap();
    sync(&ann, &server);
    let past = ann.at(Moment::Entry(open)).unwrap();
    assert_eq!(past.count_conflicts().unwrap().open, 1);
    assert!(past.conflict(conflict.id).unwrap().unwrap().open);
    assert!(past.explain(&key("lead/1")).unwrap().to_string().contains("choose a side"));
    assert_eq!(ann.conflicts().count().unwrap().open, 0);
    same_with_and_without_a_history(&ann);
}

#[test]
fn a_time_finds_the_last_entry_of_the_logs_clock_and_says_if_the_wall_clock_was_set_back() {
    let clock = TestClock::starting();
    let ann = book("ann", &clock);
    let begun = 1_700_000_000_000;
    for number in 0..5 {
        clock.advance(60_000);
        ann.records().create(key(&format!("lead/{number}")), fields(json!({}))).unwrap();
    }
    let at = |milliseconds| {
        *ann.at(Moment::Time(WallTime::from_milliseconds(milliseconds))).unwrap().found()
    };
    assert_eq!(at(begun - 1).seq, Seq::ZERO, "before the book was made");
    assert_eq!((at(begun).seq, at(begun + 60_000).seq), (Seq::new(2), Seq::new(3)));
    assert_eq!(at(begun + 119_999).seq, Seq::new(3));
    assert_eq!((at(begun + 300_000).seq, at(i64::MAX).seq), (Seq::new(7), Seq::new(7)));
    assert_eq!((at(begun).follow, at(begun).set_back), (5, None));
    clock.advance(-600_000);
    ann.records().create(key("lead/late"), fields(json!({}))).unwrap();
    let found = at(begun + 300_001);
    assert_eq!((found.seq, found.follow), (Seq::new(8), 0));
    let set_back = found.set_back.unwrap();
    assert_eq!(set_back.seq, Seq::new(8));
    assert_eq!(set_back.showed.milliseconds(), begun - 300_000);
    assert_eq!(set_back.counts.milliseconds(), begun + 300_000);
    let late = ann.at(Moment::Entry(Seq::new(9))).err();
    assert!(matches!(late, Some(Error::NoSuchEntry { last }) if last == Seq::new(8)), "{late:?}");
    assert_eq!(ann.at(Moment::Back(2)).unwrap().found().seq, Seq::new(6));
}

/// Storage in memory that counts the bytes that are read.
#[derive(Debug, Clone, Default)]
struct Counting(std::sync::Arc<(redb::backends::InMemoryBackend, std::sync::atomic::AtomicU64)>);

impl redb::StorageBackend for Counting {
    fn len(&self) -> std::io::Result<u64> {
        self.0.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.1.fetch_add(out.len() as u64, std::sync::atomic::Ordering::SeqCst);
        self.0.0.read(offset, out)
    }

    fn set_len(&self, length: u64) -> std::io::Result<()> {
        self.0.0.set_len(length)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.0.0.sync_data()
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.0.0.write(offset, bytes)
    }
}

#[test]
fn the_story_of_one_record_reads_a_small_part_of_the_file() {
    let (clock, disk) = (TestClock::starting(), Counting::default());
    // Without memory for pages, every page is read each time.
    let ann = Book::on_backend(disk.clone(), options("ann", &clock).cache_bytes(0)).unwrap();
    for round in 0..3 {
        for part in 0..10 {
            let edits = (0..100).map(|number| {
                let lead = key(&format!("lead/{part}-{number}"));
                let values = fields(json!({"note": "n".repeat(400), "round": round}));
                if round == 0 {
                    Mutation::create(lead, values)
                } else {
                    Mutation::replace(lead, values)
                }
            });
            ann.transaction(edits.collect()).unwrap();
        }
        ann.records()
            .create(key(&format!("call/{round}")), fields(json!({"minutes": round})))
            .unwrap();
    }
    ann.audit().fold_lazy().unwrap();
    let read = |ask: &dyn Fn()| {
        let before = disk.0.1.load(std::sync::atomic::Ordering::SeqCst);
        ask();
        disk.0.1.load(std::sync::atomic::Ordering::SeqCst) - before
    };
    let (one, last) = (key("call/0"), Seq::new(u64::MAX));
    let of_one = read(&|| drop(ann.audit().story(Some(&one), Seq::ZERO, last).unwrap()));
    let then = read(&|| drop(ann.at(Moment::Back(3)).unwrap().explain(&one).unwrap()));
    let whole = read(&|| drop(ann.audit().story(None, Seq::new(1), last).unwrap()));
    assert!(of_one * 10 < whole, "{of_one} of {whole} bytes");
    assert!(then * 10 < whole, "{then} of {whole} bytes");
}

#[test]
fn waits_that_end_by_the_clock_are_those_of_the_moment() {
    use fieldbook::{EntityRules, Schema};
    use std::time::Duration;
    let clock = TestClock::starting();
    let rules = EntityRules { undo_window: Duration::from_secs(10), ..EntityRules::default() };
    let options = options("ann", &clock).schema(Schema::open(rules));
    let ann = Book::on_backend(redb::backends::InMemoryBackend::new(), options).unwrap();
    ann.records().create(key("lead/1"), fields(json!({"name": "one"}))).unwrap();
    clock.advance(3_600_000);
    let said = |moment| ann.at(moment).unwrap().plan().unwrap().holds.len();
    let made = 1_700_000_000_000;
    assert_eq!(said(Moment::Entry(Seq::new(3))), 1, "it waited for its undo window");
    assert_eq!(said(Moment::Time(WallTime::from_milliseconds(made + 20_000))), 0);
    assert!(ann.queue().plan().holds.is_empty());
}

#[test]
fn waits_that_end_by_the_clock_or_with_another_record_read_the_same_at_every_entry() {
    use std::time::Duration;

    use fieldbook::schema::Reference;
    use fieldbook::{EntityRules, EntityType, Schema};
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let company = EntityType::parse("company").unwrap();
    let references = vec![Reference { field: "company".to_owned(), entity: company.clone() }];
    let lead =
        EntityRules { references, undo_window: Duration::from_secs(10), ..EntityRules::default() };
    let other = EntityRules { undo_window: Duration::ZERO, ..EntityRules::default() };
    let call = EntityType::parse("call").unwrap();
    let schema = Schema::closed()
        .declare(EntityType::parse("lead").unwrap(), lead)
        .declare(call, other.clone())
        .declare(company, other);
    let options = options("ann", &clock).schema(schema);
    let book = Book::on_backend(redb::backends::InMemoryBackend::new(), options).unwrap();
    book.records().create(key("company/1"), fields(json!({"name": "Mill"}))).unwrap();
    book.records().create(key("lead/1"), fields(json!({"name": "one", "company": "1"}))).unwrap();
    clock.advance(4_000);
    book.transaction(vec![
        Mutation::create(key("lead/2"), fields(json!({"name": "two", "company": "1"}))),
        Mutation::create(key("call/1"), fields(json!({"minutes": 3}))),
    ])
    .unwrap();
    clock.advance(4_000);
    book.records().update(key("lead/1"), fields(json!({"name": "eins"}))).unwrap();
    // The windows of the first lead and of the transaction end between edits of another record.
    for minutes in 4..12 {
        clock.advance(2_000);
        book.records().update(key("company/1"), fields(json!({"minutes": minutes}))).unwrap();
    }
    sync(&book, &server);
    book.records().create(key("lead/3"), fields(json!({"name": "three", "company": "2"}))).unwrap();
    clock.advance(60_000);
    book.records().delete(key("company/1")).unwrap();
    book.records().update(key("lead/2"), fields(json!({"name": "zwei"}))).unwrap();
    clock.advance(60_000);
    sync(&book, &server);
    clock.advance(60_000);
    book.records().create(key("company/2"), fields(json!({"name": "Lake"}))).unwrap();
    sync(&book, &server);
    same_with_and_without_a_history(&book);
}
