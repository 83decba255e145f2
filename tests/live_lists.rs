//! Live lists: what they tell, applied step by step, is the list read anew, whatever happens to the
//! book and however late they are asked.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on panics"
)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Server, TestClock, fields, key, options, sync_with};
use fieldbook::query::{IndexPlace, ListChange, LiveList, Query, Stored};
use fieldbook::record::{FieldsJson, OpPlace, Written};
use fieldbook::schema::{IndexPart, IndexRule, Reference};
use fieldbook::sync::protocol::{Failure, Unit};
use fieldbook::sync::{ExchangeParams, NextStep, RecordStatus};
use fieldbook::{
    Actor, Book, Entity, EntityRules, EntityType, Error, Mutation, Schema, SyncReport,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

fn lead() -> EntityType {
    EntityType::parse("lead").unwrap()
}

fn note() -> EntityType {
    EntityType::parse("note").unwrap()
}

fn schema() -> Schema {
    let indexes = vec![
        "n".into(),
        IndexRule::new("compound").asc("text").desc("n"),
        IndexRule::new("by_tag").asc(IndexPart::new("tags").each()).asc("n"),
    ];
    let leads = EntityRules { indexes: indexes.clone(), ..EntityRules::default() };
    let references = vec![Reference { field: "lead".to_owned(), entity: lead() }];
    let undo_window = Duration::from_secs(5);
    let notes = EntityRules { indexes, references, undo_window, ..EntityRules::default() };
    Schema::closed().declare(lead(), leads).declare(note(), notes)
}

fn in_memory(name: &str, clock: &Arc<TestClock>) -> Book {
    let options = options(name, clock).schema(schema());
    Book::on_backend(redb::backends::InMemoryBackend::new(), options).unwrap()
}

fn alone() -> Book {
    in_memory("ann", &TestClock::starting())
}

fn create(book: &Book, record: &str, value: Value) {
    book.records().create(key(record), fields(value)).unwrap();
}

/// A list as a screen has it: it knows what it was told, and nothing else.
struct Screen {
    live: LiveList<FieldsJson>,
    rows: Option<Vec<Stored<FieldsJson>>>,
    next: Option<IndexPlace>,
}

impl Screen {
    fn new(list: Query<'_, FieldsJson>) -> Self {
        Self { live: list.live().unwrap(), rows: None, next: None }
    }

    /// Takes what changed and applies it. Returns it.
    fn look(&mut self) -> Option<ListChange<FieldsJson>> {
        let change = self.live.take_change().unwrap()?;
        let before = self.rows.take();
        let mut rows = before.clone().unwrap_or_default();
        change.removed.iter().rev().for_each(|place| drop(rows.remove(*place)));
        for place in &change.inserted {
            rows.insert(*place, change.items[*place].clone());
        }
        for place in &change.updated {
            assert_ne!(rows[*place], change.items[*place], "an update that changes nothing");
            rows[*place] = change.items[*place].clone();
        }
        assert_eq!(rows, change.items, "the steps lead to the rows");
        let is_same = before.is_some_and(|before| before == rows);
        assert!(!is_same || self.next != change.next, "a change that changes nothing");
        self.rows = Some(rows);
        self.next.clone_from(&change.next);
        Some(change)
    }
}

#[test]
fn the_first_change_is_the_list_and_each_further_one_what_happened_to_it() {
    let book = alone();
    for (id, n) in [("lead/1", 10), ("lead/2", 20), ("lead/3", 30)] {
        create(&book, id, json!({ "n": n }));
    }
    let mut screen = Screen::new(book.records().query(&lead(), "n").limit(3));
    let first = screen.look().unwrap();
    assert_eq!((first.inserted, first.next), (vec![0, 1, 2], None));
    assert!(screen.look().is_none(), "nothing happened");

    // A row in the middle moves to the end, one comes before it, and the last row leaves the limit.
    book.records().update(key("lead/2"), fields(json!({"n": 40}))).unwrap();
    create(&book, "lead/4", json!({"n": 5}));
    let change = screen.look().unwrap();
    assert_eq!((change.removed, change.inserted, change.updated), (vec![1], vec![0], vec![]));
    assert!(change.next.is_some(), "the moved row follows");
    let ids: Vec<_> = change.items.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, ["4", "1", "3"]);

    // What follows the window is in it only as whether there is anything.
    book.records().update(key("lead/2"), fields(json!({"n": 50}))).unwrap();
    assert!(screen.look().is_none());
    book.records().delete(key("lead/2")).unwrap();
    let change = screen.look().unwrap();
    assert_eq!((change.removed, change.inserted, change.updated), (vec![], vec![], vec![]));
    assert_eq!(change.next, None);

    book.records().update(key("lead/1"), fields(json!({"n": 11}))).unwrap();
    let change = screen.look().unwrap();
    assert_eq!((change.removed, change.inserted, change.updated), (vec![], vec![], vec![1]));
}

#[test]
fn an_empty_list_is_told_once() {
    let book = alone();
    let mut screen = Screen::new(book.records().query(&lead(), "n").eq("nothing"));
    let first = screen.look().unwrap();
    assert!(first.items.is_empty() && first.inserted.is_empty());
    create(&book, "lead/1", json!({"n": 1}));
    assert!(screen.look().is_none());
}

#[derive(Serialize, Deserialize)]
struct Lead {
    n: u32,
}

impl Entity for Lead {
    const ENTITY: &'static str = "lead";
}

#[test]
fn a_typed_list_tells_its_values_and_a_value_that_does_not_fit_fails_alone() {
    let book = alone();
    create(&book, "lead/1", json!({"n": 1}));
    create(&book, "lead/2", json!({"n": "two"}));
    let mut live = book.query::<Lead>("n").live().unwrap();
    let first = live.take_change().unwrap().unwrap();
    let [one, two] = first.items.as_slice() else { panic!("two rows") };
    assert_eq!(one.value.as_ref().unwrap().n, 1);
    assert!(matches!(two.value, Err(Error::Type { .. })));
}

#[test]
fn a_list_that_its_index_cannot_answer_or_that_never_changes_is_a_misuse() {
    let book = alone();
    let elsewhere = {
        create(&book, "lead/1", json!({}));
        create(&book, "lead/2", json!({}));
        book.records().query(&lead(), "n").eq(Value::Null).limit(1).page().unwrap().next
    };
    assert_eq!(elsewhere, None, "only leads with a number are in it");
    create(&book, "lead/3", json!({"n": 1}));
    create(&book, "lead/4", json!({"n": 2}));
    let place = book.records().query(&lead(), "n").limit(1).page().unwrap().next;
    for list in
        [book.records().query(&lead(), "none"), book.records().query(&lead(), "n").eq(1).eq(2)]
    {
        assert!(matches!(list.live(), Err(Error::Misuse(_))));
    }
    let elsewhere = book.records().query(&lead(), "compound").after(place.as_ref()).live();
    assert!(matches!(elsewhere, Err(Error::NotOfThisList)));
    let never = book.read(|at| at.query_records(&lead(), "n").live().map(drop));
    assert!(matches!(never, Err(Error::Misuse(_))), "{never:?}");
}

#[test]
fn a_live_list_does_not_keep_the_book_open_and_ends_with_it() {
    let book = alone();
    let mut live = book.records().query(&lead(), "n").live().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(runtime.block_on(live.changed()).unwrap().is_some());
    book.close().unwrap();
    assert_eq!(runtime.block_on(live.changed()).unwrap(), None);
    assert_eq!(live.take_change().unwrap(), None);
}

#[test]
fn a_waiting_list_is_woken_by_a_commit_that_touches_it_and_a_dropped_wait_loses_nothing() {
    let book = alone();
    let mut live = book.records().query(&lead(), "n").range(10..).live().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    assert!(runtime.block_on(live.changed()).unwrap().is_some());
    create(&book, "lead/1", json!({"n": 1}));
    create(&book, "note/1", json!({"n": 11}));
    let nothing = runtime
        .block_on(async { tokio::time::timeout(Duration::from_millis(5), live.changed()).await });
    assert!(nothing.is_err(), "neither write is in the list");
    create(&book, "lead/2", json!({"n": 12}));
    let woken = async { tokio::time::timeout(Duration::from_secs(60), live.changed()).await };
    let change = runtime.block_on(woken).expect("it is woken").unwrap().unwrap();
    assert_eq!(change.inserted, [0]);
}

/// A row in flight, whose exchange then fails, changes twice without a commit of its record.
#[test]
fn the_status_of_a_row_is_told_without_a_commit() {
    let clock = TestClock::starting();
    let (server, book) = (Server::new(&clock), in_memory("ann", &clock));
    create(&book, "lead/1", json!({"n": 1}));
    let mut screen = Screen::new(book.records().query(&lead(), "n"));
    let mut status = || screen.look().map(|change| change.items[0].status.clone());
    assert_eq!(status(), Some(RecordStatus::Pending));
    let ask = ask();
    let NextStep::Exchange(request) = book.exchange().prepare(&ask).unwrap() else {
        panic!("a request")
    };
    assert_eq!(status(), Some(RecordStatus::InFlight));
    book.exchange().fail(&request, &Failure::Unknown { code: "reset" }).unwrap();
    assert_eq!(status(), Some(RecordStatus::WaitingForNetwork));
    book.act_as(Actor::parse("ben").unwrap());
    let others = status();
    assert!(matches!(others, Some(RecordStatus::Held(_) | RecordStatus::Parked(_))), "{others:?}");
    book.act_as(Actor::parse("ann").unwrap());
    assert_eq!(status(), Some(RecordStatus::WaitingForNetwork));
    sync_with(&book, &server.remote());
    assert_eq!(status(), Some(RecordStatus::Synced));
}

/// Accepting a server takes the version of every record back, in rows that no entry names.
#[test]
fn an_accepted_server_is_told_for_every_row() {
    let clock = TestClock::starting();
    let (server, book) = (Server::new(&clock), in_memory("ann", &clock));
    create(&book, "lead/1", json!({"n": 1}));
    sync_with(&book, &server.remote());
    let backup = server.authority.lock().unwrap().clone();
    server.restore(&backup, 99);
    sync_with(&book, &server.remote());
    let mut screen = Screen::new(book.records().query(&lead(), "n"));
    let before = screen.look().unwrap().items[0].version;
    book.servers().accept_only().unwrap();
    let after = screen.look().unwrap().items[0].version;
    assert_ne!(before, after);
}

fn ask() -> ExchangeParams {
    ExchangeParams {
        first: true,
        push: true,
        pull: true,
        batch_ops: 500,
        batch_bytes: 1 << 20,
        page_limit: 3,
    }
}

/// What happens to the books of the model.
#[derive(Debug, Clone)]
enum Event {
    Create(u8, Value),
    Update(u8, Value),
    Delete(u8),
    /// Several writes in one commit.
    Together(Vec<(u8, Value)>),
    Undo(u8),
    Sync,
    /// A server that refuses every unit, or the units of some records.
    Refused(u8),
    /// An exchange by hand that gets no answer.
    Lost,
    /// Writes of another device, which syncs.
    Elsewhere(Vec<(u8, Value)>),
    DecideDeadLetter(bool),
    ActAs(bool),
    Later(u8),
    Rebuild,
    /// The lists with these bits look.
    Look(u16),
}

/// Records whose numbers are equal modulo this are the same.
const RECORDS: u8 = 14;

fn record(number: u8) -> String {
    let number = number % RECORDS;
    format!("{}/{}", if number < 10 { "lead" } else { "note" }, number % 10)
}

fn image() -> impl Strategy<Value = Value> {
    let long = |end: u8| "x".repeat(300) + &end.to_string();
    let text = prop_oneof![
        3 => "[ab]{0,2}".prop_map(Value::from),
        1 => (0..3_u8).prop_map(long).prop_map(Value::from),
    ];
    let tags = proptest::collection::vec((0..3_u8).prop_map(Value::from), 0..3);
    let lead =
        prop_oneof![2 => Just(Value::Null), 1 => (0..10_u8).prop_map(|id| json!(id.to_string()))];
    let n = prop_oneof![4 => (0..12_u8).prop_map(Value::from), 1 => Just(Value::Null)];
    let whole = (n.clone(), text, tags, lead).prop_map(
        |(n, text, tags, lead)| json!({"n": n, "text": text, "tags": tags, "lead": lead}),
    );
    prop_oneof![1 => whole, 2 => n.prop_map(|n| json!({ "n": n }))]
}

fn event() -> impl Strategy<Value = Event> {
    let one = || (any::<u8>(), image());
    let several = || proptest::collection::vec((any::<u8>(), image()), 1..5);
    prop_oneof![
        6 => one().prop_map(|(id, image)| Event::Create(id, image)),
        6 => one().prop_map(|(id, image)| Event::Update(id, image)),
        2 => any::<u8>().prop_map(Event::Delete),
        2 => several().prop_map(Event::Together),
        1 => any::<u8>().prop_map(Event::Undo),
        2 => Just(Event::Sync),
        1 => any::<u8>().prop_map(Event::Refused),
        1 => Just(Event::Lost),
        3 => several().prop_map(Event::Elsewhere),
        1 => any::<bool>().prop_map(Event::DecideDeadLetter),
        1 => any::<bool>().prop_map(Event::ActAs),
        1 => (0..8_u8).prop_map(Event::Later),
        1 => Just(Event::Rebuild),
        8 => any::<u16>().prop_map(Event::Look),
    ]
}

/// A list of a book.
type List = fn(&Book) -> Query<'_, FieldsJson>;

struct Model {
    clock: Arc<TestClock>,
    server: Server,
    book: Book,
    other: Book,
    ops: Vec<OpPlace>,
    screens: Vec<(Screen, List)>,
}

/// The lists of the model: all directions, ranges, limits and kinds of conditions.
fn lists() -> Vec<List> {
    vec![
        |book| book.records().query(&lead(), "n").limit(3),
        |book| book.records().query(&lead(), "n").reversed().limit(2),
        |book| book.records().query(&lead(), "n").range(4..8).limit(2),
        |book| book.records().query(&lead(), "n").limit(0),
        |book| book.records().query(&lead(), "compound"),
        |book| book.records().query(&lead(), "compound").eq("x".repeat(300) + "1"),
        |book| book.records().query(&lead(), "compound").prefix("a").reversed().limit(2),
        |book| book.records().query(&lead(), "compound").eq(Value::Null),
        |book| book.records().query(&lead(), "by_tag").limit(4),
        |book| book.records().query(&lead(), "by_tag").eq(1),
        |book| book.records().query(&note(), "n"),
        |book| book.records().query(&note(), "by_tag").reversed().limit(3),
    ]
}

impl Model {
    fn new() -> Self {
        let clock = TestClock::starting();
        let (book, other) = (in_memory("ann", &clock), in_memory("eve", &clock));
        let screens = lists().into_iter().map(|list| (Screen::new(list(&book)), list)).collect();
        Self { server: Server::new(&clock), clock, book, other, ops: Vec::new(), screens }
    }

    fn wrote(&mut self, written: Result<Written, Error>) {
        // A write that the rules refuse is a case too.
        if let Ok(Written::Op { place, .. }) = written {
            self.ops.push(place);
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Create(id, image) => {
                self.wrote(self.book.records().create(key(&record(id)), fields(image)))
            }
            Event::Update(id, image) => {
                self.wrote(self.book.records().update(key(&record(id)), fields(image)))
            }
            Event::Delete(id) => self.wrote(self.book.records().delete(key(&record(id)))),
            Event::Together(writes) => drop(self.book.transaction(mutations(&self.book, writes))),
            Event::Undo(back) => {
                let at = self.ops.len().checked_sub(1 + usize::from(back % 4));
                if let Some(place) = at.and_then(|at| self.ops.get(at)) {
                    drop(self.book.queue().undo(*place));
                }
            }
            Event::Sync => drop(sync_with(&self.book, &self.server.remote())),
            Event::Refused(number) => drop(refused(&self.book, &self.server, number)),
            Event::Lost => {
                if let NextStep::Exchange(request) = self.book.exchange().prepare(&ask()).unwrap() {
                    self.equal_now();
                    let failure = Failure::Unknown { code: "reset" };
                    self.book.exchange().fail(&request, &failure).unwrap();
                }
            }
            Event::Elsewhere(writes) => {
                drop(self.other.transaction(mutations(&self.other, writes)));
                sync_with(&self.other, &self.server.remote());
            }
            Event::DecideDeadLetter(again) => {
                let letters = self.book.dead_letters();
                if let Some(letter) = letters.all().unwrap().pop() {
                    let ops = vec![letter.op];
                    let decided =
                        if again { letters.retry(ops) } else { letters.discard(ops, "no use") };
                    drop(decided);
                }
            }
            Event::ActAs(ann) => {
                self.book.act_as(Actor::parse(if ann { "ann" } else { "ben" }).unwrap());
            }
            // Time alone tells nothing, so a write follows it.
            Event::Later(seconds) => {
                self.clock.advance(1_000 * i64::from(seconds));
                let image = fields(json!({"n": seconds}));
                drop(self.book.records().update(key("note/0"), image.clone()));
                drop(self.book.records().create(key("note/0"), image));
                drop(self.book.records().delete(key("lead/unseen")));
                drop(self.book.records().create(key("lead/unseen"), fields(json!({"n": 99}))));
            }
            Event::Rebuild => drop(self.book.audit().rebuild(|_| {}).unwrap()),
            Event::Look(which) => {
                for at in (0..self.screens.len()).filter(|at| which >> at & 1 == 1) {
                    self.equal(at);
                }
            }
        }
    }

    fn equal_now(&mut self) {
        (0..self.screens.len()).for_each(|at| self.equal(at));
    }

    /// Lets a list look, and compares it with the same list read anew.
    fn equal(&mut self, at: usize) {
        let (screen, list) = &mut self.screens[at];
        drop(screen.look());
        let page = list(&self.book).page().unwrap();
        assert_eq!(screen.rows.as_ref(), Some(&page.items), "list {at}");
        assert_eq!(screen.next, page.next, "list {at}");
        assert!(screen.look().is_none(), "list {at} tells nothing twice");
    }
}

fn mutations(book: &Book, writes: Vec<(u8, Value)>) -> Vec<Mutation> {
    let write = |(id, image): (u8, Value)| {
        let key = key(&record(id));
        match book.records().get(&key).unwrap() {
            Some(_) if id % 5 == 0 => Mutation::delete(key),
            Some(_) => Mutation::update(key, fields(image)),
            None => Mutation::create(key, fields(image)),
        }
    };
    writes.into_iter().map(write).collect()
}

/// Syncs with a server that refuses the units of some records.
fn refused(book: &Book, server: &Server, number: u8) -> SyncReport {
    let is_bad = move |unit: &Unit| {
        let name = unit.changes[0].key.id.as_str();
        name.bytes().any(|byte| byte % 10 == number % 10)
    };
    sync_with(book, &server.refusing_where(is_bad, "23514", "no"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn a_live_list_is_always_the_list_read_anew(
        events in proptest::collection::vec(event(), 1..110)
    ) {
        let mut model = Model::new();
        for event in events {
            model.happens(event);
        }
        model.equal_now();
    }
}

/// A widget reads a file and never opens the book.
#[tokio::test(start_paused = true)]
async fn a_list_in_a_file_is_whole_and_follows_the_list() {
    let (folder, book) = (tempfile::tempdir().unwrap(), alone());
    let path = folder.path().join("today.json");
    create(&book, "lead/1", json!({"n": 1, "name": "Ann \u{0} \"B\""}));
    let list = book.records().query(&lead(), "n").limit(2).live().unwrap();
    let kept = tokio::spawn(list.keep_in_file(path.clone(), |written| written.unwrap()));
    let read = || serde_json::from_slice::<Value>(&std::fs::read(&path).unwrap()).unwrap();
    let until = async |rows: usize| {
        while !path.exists() || read()["rows"].as_array().unwrap().len() < rows {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    until(1).await;
    let first = json!({
        "id": "1",
        "version": null,
        "pending": 1,
        "status": "pending",
        "fields": {"n": 1, "name": "Ann \u{0} \"B\""},
    });
    assert_eq!(read(), json!({"rows": [first], "more": false}));

    for number in 2..5 {
        create(&book, &format!("lead/{number}"), json!({"n": number}));
    }
    until(2).await;
    assert_eq!(
        (read()["rows"][1]["id"].clone(), read()["more"].clone()),
        (json!("2"), json!(true))
    );
    book.close().unwrap();
    kept.await.expect("the end of the book ends it");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no other file is left");
}

/// Reads the names in a file of a list.
fn names(path: &std::path::Path) -> Vec<Value> {
    let read: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    read["rows"].as_array().unwrap().iter().map(|row| row["id"].clone()).collect()
}

/// The last two seconds before an app goes away used to be missing in its widget.
#[tokio::test(start_paused = true)]
async fn a_file_has_the_last_change_when_the_book_is_suspended_or_closed() {
    let folder = tempfile::tempdir().unwrap();
    let (at, path) = (folder.path().join("crm.book"), folder.path().join("today.json"));
    let options = options("ann", &TestClock::starting()).schema(schema());
    let book = Book::create_new(at, options).unwrap();
    let list = book.records().query(&lead(), "n").live().unwrap();
    let kept = tokio::spawn(list.keep_in_file(path.clone(), |written| written.unwrap()));
    while !path.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The task sleeps now, until two seconds have passed.
    create(&book, "lead/1", json!({"n": 1}));
    book.suspend().unwrap();
    assert_eq!(names(&path), [json!("1")]);
    book.resume().unwrap();
    create(&book, "lead/2", json!({"n": 2}));
    book.close().unwrap();
    assert_eq!(names(&path), [json!("1"), json!("2")]);
    kept.await.unwrap();
}

/// It used to end with the first write that failed, and nobody learned of it.
#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_written_is_tried_again_and_the_app_hears_of_it() {
    let (folder, book) = (tempfile::tempdir().unwrap(), alone());
    let path = folder.path().join("widgets/today.json");
    let list = book.records().query(&lead(), "n").live().unwrap();
    let (hear, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let kept =
        tokio::spawn(list.keep_in_file(path.clone(), move |tried| hear.send(tried).unwrap()));
    create(&book, "lead/1", json!({"n": 1}));
    for _ in 0..3 {
        assert!(matches!(heard.recv().await, Some(Err(Error::Store(_)))));
    }
    std::fs::create_dir(folder.path().join("widgets")).unwrap();
    while heard.recv().await.unwrap().is_err() {}
    assert_eq!(names(&path), [json!("1")], "without a further change of the list");
    book.close().unwrap();
    kept.await.unwrap();
}

/// A list that was being read used to keep the book open, so the close failed.
#[test]
fn a_close_waits_for_a_list_that_is_being_read() {
    for _ in 0..50 {
        let book = alone();
        let mut list = book.records().query(&lead(), "n").live().unwrap();
        let reads = std::thread::spawn(move || {
            let mut told = 0;
            while !list.has_ended() {
                told += usize::from(list.take_change().unwrap().is_some());
            }
            told
        });
        for number in 0..4 {
            create(&book, &format!("lead/{number}"), json!({"n": number}));
        }
        book.close().unwrap();
        reads.join().unwrap();
    }
}
