//! An app's own projections. They follow every commit, a new fold makes the same tables, and a
//! fault of a projection affects that projection only.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{FailingDisk, Server, TestClock, assert_sound, fields, key, options, sync};
use fieldbook::host::{Randomness, SeededRandomness};
use fieldbook::projection::{
    InvalidProjection, Projection, ProjectionError, ProjectionTable, RecordChange,
};
use fieldbook::sync::FnRemote;
use fieldbook::sync::protocol::{ExchangeRequest, Outcome};
use fieldbook::{Book, BookOptions, Error, Mutation};
use redb::backends::InMemoryBackend;
use serde_json::json;

/// A projection that counts the records with each value of a field.
struct CountBy {
    field: &'static str,
    version: u32,
}

impl Projection for CountBy {
    fn name(&self) -> &str {
        "count"
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn fold(
        &self,
        change: &RecordChange<'_>,
        table: &mut ProjectionTable<'_>,
    ) -> Result<(), ProjectionError> {
        for (fields, step) in [(change.before, -1), (change.after, 1)] {
            let value = fields.and_then(|fields| fields.get(self.field)?.as_str());
            let Some(value) = value else { continue };
            let before = table.get(value.as_bytes())?.map_or(0, |bytes| number(&bytes));
            match before + step {
                0 => table.remove(value.as_bytes())?,
                count => table.put(value.as_bytes(), &count.to_be_bytes())?,
            }
        }
        Ok(())
    }
}

/// A projection that fails on records with the field `breaks`, in the way that the field names.
struct Brittle;

impl Projection for Brittle {
    fn name(&self) -> &str {
        "brittle"
    }

    fn version(&self) -> u32 {
        1
    }

    fn fold(
        &self,
        change: &RecordChange<'_>,
        table: &mut ProjectionTable<'_>,
    ) -> Result<(), ProjectionError> {
        table.put(change.key.id.as_str().as_bytes(), b"seen")?;
        match change.after.and_then(|fields| fields.get("breaks")?.as_str()) {
            Some("panic") => panic!("planned by the test"),
            Some("error") => Err(ProjectionError::new("no_such_currency")),
            Some("too large") => table.put(&[0; 2_000], b""),
            _ => Ok(()),
        }
    }
}

/// A projection that stores each call. It depends on the number of calls, so it is not a fold of
/// differences.
struct Calls(u32);

impl Projection for Calls {
    fn name(&self) -> &str {
        "calls"
    }

    fn version(&self) -> u32 {
        self.0
    }

    fn fold(
        &self,
        change: &RecordChange<'_>,
        table: &mut ProjectionTable<'_>,
    ) -> Result<(), ProjectionError> {
        let number = table.range(.., usize::MAX)?.len() as u64;
        let shown = |side: Option<&fieldbook::Fields>| {
            side.map_or("-".to_owned(), |fields| fields.to_json().as_str().to_owned())
        };
        let told = format!("{} {} {}", change.key, shown(change.before), shown(change.after));
        table.put(&number.to_be_bytes(), told.as_bytes())
    }
}

fn number(bytes: &[u8]) -> i64 {
    i64::from_be_bytes(bytes.try_into().unwrap())
}

fn count_by(field: &'static str, version: u32) -> CountBy {
    CountBy { field, version }
}

fn in_memory(options: BookOptions) -> Book {
    Book::on_backend(InMemoryBackend::new(), options).unwrap()
}

fn counts(book: &Book) -> Vec<(String, i64)> {
    let rows = book.projection("count").range(.., usize::MAX).unwrap();
    rows.into_iter()
        .map(|(value, count)| (String::from_utf8(value).unwrap(), number(&count)))
        .collect()
}

fn told(book: &Book) -> Vec<String> {
    let rows = book.projection("calls").range(.., usize::MAX).unwrap();
    rows.into_iter().map(|(_, told)| String::from_utf8(told).unwrap()).collect()
}

fn expected(counts: &[(&str, i64)]) -> Vec<(String, i64)> {
    counts.iter().map(|(value, count)| ((*value).to_owned(), *count)).collect()
}

#[test]
fn a_projection_follows_each_write_at_once_and_reads_by_key_and_range() {
    let clock = TestClock::starting();
    let book = in_memory(options("ann", &clock).projection(count_by("stage", 1)).unwrap());
    book.records().create(key("lead/1"), fields(json!({"stage": "new"}))).unwrap();
    book.records().create(key("lead/2"), fields(json!({"stage": "new"}))).unwrap();
    assert_eq!(counts(&book), expected(&[("new", 2)]));
    book.transaction(vec![
        Mutation::update(key("lead/1"), fields(json!({"stage": "hot"}))),
        Mutation::update(key("lead/1"), fields(json!({"stage": "won"}))),
        Mutation::create(key("lead/3"), fields(json!({"stage": "won"}))),
    ])
    .unwrap();
    assert_eq!(counts(&book), expected(&[("new", 1), ("won", 2)]));
    book.records().delete(key("lead/2")).unwrap();
    assert_eq!(counts(&book), expected(&[("won", 2)]));
    let projection = book.projection("count");
    assert_eq!(projection.get(b"won").unwrap().map(|bytes| number(&bytes)), Some(2));
    assert_eq!(projection.get(b"new").unwrap(), None);
    assert_eq!(projection.range(b"x".as_slice().., 9).unwrap(), []);
    assert_eq!(projection.range(b"a".as_slice()..=b"won".as_slice(), 9).unwrap().len(), 1);
    assert_sound(&book);
}

#[test]
fn a_fold_is_told_of_visible_images_and_only_when_they_differ() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let book = in_memory(options("ann", &clock).projection(Calls(1)).unwrap());
    book.records().create(key("lead/1"), fields(json!({"a": 1}))).unwrap();
    book.records().update(key("lead/1"), fields(json!({"b": 2}))).unwrap();
    sync(&book, &server);
    sync(&book, &server);
    book.records().delete(key("lead/1")).unwrap();
    assert_eq!(
        told(&book),
        [
            r#"lead/1 - {"a":1}"#,
            r#"lead/1 {"a":1} {"a":1,"b":2}"#,
            // The sync makes no call: the app read the confirmed fields already.
            r#"lead/1 {"a":1,"b":2} -"#,
        ]
    );
}

#[test]
fn folding_anew_comes_to_the_same_after_conflicts_rebases_refusals_and_discards() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let with = |name| in_memory(options(name, &clock).projection(count_by("stage", 1)).unwrap());
    let (ann, ben) = (with("ann"), with("ben"));
    for n in 0..6 {
        ann.records()
            .create(key(&format!("lead/{n}")), fields(json!({"stage": "new", "n": n})))
            .unwrap();
    }
    sync(&ann, &server);
    sync(&ben, &server);
    assert_eq!(counts(&ben), expected(&[("new", 6)]));
    clock.advance(1_000);
    // Both devices change one field, one deletes a record that the other updates, and both make
    // changes that merge.
    ann.records().update(key("lead/0"), fields(json!({"stage": "by ann"}))).unwrap();
    ann.records().delete(key("lead/1")).unwrap();
    ann.records().update(key("lead/2"), fields(json!({"n": 20}))).unwrap();
    clock.advance(1_000);
    ben.records().update(key("lead/0"), fields(json!({"stage": "by ben"}))).unwrap();
    ben.records().update(key("lead/1"), fields(json!({"stage": "kept"}))).unwrap();
    ben.records().update(key("lead/2"), fields(json!({"stage": "hot"}))).unwrap();
    ben.records().update(key("lead/3"), fields(json!({"stage": "refused"}))).unwrap();
    sync(&ann, &server);
    let refuses_lead_3 = {
        let server = server.clone();
        FnRemote::new(move |request: &ExchangeRequest| {
            let mut request = request.clone();
            let refused: Vec<_> = request
                .units
                .extract_if(.., |unit| {
                    unit.changes.iter().any(|change| change.key == key("lead/3"))
                })
                .collect();
            let mut answer = server.answer(&request);
            answer.outcomes.extend(refused.into_iter().map(|unit| {
                fieldbook::sync::protocol::UnitOutcome {
                    unit: unit.id,
                    outcome: Outcome::Rejected {
                        code: "forbidden".to_owned(),
                        message: String::new(),
                    },
                }
            }));
            Ok(answer)
        })
    };
    common::sync_with(&ben, &refuses_lead_3);
    assert!(!ben.conflicts().all().unwrap().is_empty(), "there was a conflict to rebase over");
    let whole = expected(&[("by ben", 1), ("hot", 1), ("kept", 1), ("new", 2), ("refused", 1)]);
    assert_eq!(counts(&ben), whole);
    let dead: Vec<_> = ben.dead_letters().all().unwrap().iter().map(|letter| letter.op).collect();
    assert_eq!(dead.len(), 1);
    ben.dead_letters().discard(dead, "a mistake").unwrap();
    sync(&ann, &server);
    let agreed = expected(&[("by ben", 1), ("hot", 1), ("kept", 1), ("new", 3)]);
    assert_eq!((counts(&ann), counts(&ben)), (agreed.clone(), agreed));
    // The check folds all tables again and also compares the projection's table.
    assert_sound(&ann);
    assert_sound(&ben);
}

#[test]
fn however_devices_write_and_sync_a_projection_is_what_its_book_comes_to() {
    let clock = TestClock::starting();
    let server = Server::new(&clock);
    let devices = ["ann", "ben", "cat"]
        .map(|name| in_memory(options(name, &clock).projection(count_by("stage", 1)).unwrap()));
    let mut random = SeededRandomness::from_number(7);
    for _ in 0..600 {
        let device = &devices[usize::try_from(random.below(3)).unwrap()];
        let record = key(&format!("lead/{}", random.below(8)));
        let stage = ["new", "hot", "won"][usize::try_from(random.below(3)).unwrap()];
        let stage = fields(json!({"stage": stage}));
        let exists = device.records().get(&record).unwrap().is_some();
        clock.advance(1);
        match (random.below(8), exists) {
            (0, _) => drop(sync(device, &server)),
            (1, true) => drop(device.records().delete(record).unwrap()),
            (2, true) => drop(device.records().replace(record, stage).unwrap()),
            (_, true) => drop(device.records().update(record, stage).unwrap()),
            (_, false) => drop(device.records().create(record, stage).unwrap()),
        }
    }
    for device in devices.iter().chain(&devices) {
        sync(device, &server);
    }
    assert!(devices.iter().any(|device| !device.conflicts().all().unwrap().is_empty()));
    for device in &devices {
        assert_eq!(counts(device), counts(&devices[0]));
        assert_sound(device);
    }
}

#[test]
fn a_fold_of_more_than_differences_is_found_by_the_check() {
    let clock = TestClock::starting();
    let book = in_memory(options("ann", &clock).projection(Calls(1)).unwrap());
    book.records().create(key("lead/1"), fields(json!({"a": 1}))).unwrap();
    assert!(book.audit().check_tables().unwrap().is_sound());
    book.records().update(key("lead/1"), fields(json!({"a": 2}))).unwrap();
    assert_eq!(book.audit().check_tables().unwrap().differing, ["app projections"]);
}

#[test]
fn a_new_projection_and_a_new_version_are_folded_when_the_book_is_opened_and_a_known_one_is_not() {
    let clock = TestClock::starting();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.book");
    let first = Book::create_new(&path, options("ann", &clock)).unwrap();
    first.records().create(key("lead/1"), fields(json!({"stage": "new", "town": "x"}))).unwrap();
    first.records().create(key("lead/2"), fields(json!({"stage": "hot", "town": "x"}))).unwrap();
    first.records().delete(key("lead/2")).unwrap();
    first.close().unwrap();
    let open = |projection: CountBy, calls: u32| {
        Book::open(
            &path,
            options("ann", &clock)
                .projection(projection)
                .unwrap()
                .projection(Calls(calls))
                .unwrap(),
        )
        .unwrap()
    };

    let second = open(count_by("stage", 1), 1);
    assert_eq!(counts(&second), expected(&[("new", 1)]));
    second.records().update(key("lead/1"), fields(json!({"stage": "hot"}))).unwrap();
    assert_eq!(told(&second).len(), 2);
    second.close().unwrap();

    let third = open(count_by("town", 2), 1);
    assert_eq!(counts(&third), expected(&[("x", 1)]));
    assert_eq!(told(&third).len(), 2, "the version is the same, so it was not folded again");
    let versions: Vec<_> = third
        .audit()
        .projections()
        .unwrap()
        .into_iter()
        .map(|status| (status.name, status.version))
        .collect();
    assert_eq!(versions, [("calls".to_owned(), 1), ("count".to_owned(), 2)]);
}

#[test]
fn whoever_writes_without_a_projection_takes_it_away_and_whoever_only_reads_does_not() {
    let clock = TestClock::starting();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.book");
    let with = || options("ann", &clock).projection(Calls(1)).unwrap();
    let app = Book::create_new(&path, with()).unwrap();
    app.records().create(key("lead/1"), fields(json!({"a": 1}))).unwrap();
    app.records().update(key("lead/1"), fields(json!({"a": 2}))).unwrap();
    app.close().unwrap();

    let reader = Book::open(&path, options("ann", &clock)).unwrap();
    assert_eq!(reader.projection("calls").range(.., 9).unwrap().len(), 2);
    reader.close().unwrap();
    let app = Book::open(&path, with()).unwrap();
    assert_eq!(told(&app).len(), 2);
    app.close().unwrap();

    let stranger = Book::open(&path, options("ann", &clock)).unwrap();
    stranger.records().update(key("lead/1"), fields(json!({"a": 3}))).unwrap();
    assert!(matches!(stranger.projection("calls").get(b"x"), Err(Error::NoSuchProjection(_))));
    assert_eq!(stranger.audit().projections().unwrap(), []);
    stranger.close().unwrap();
    let app = Book::open(&path, with()).unwrap();
    assert_eq!(told(&app), [r#"lead/1 - {"a":3}"#], "folded from the present records");
}

#[test]
fn a_projection_that_breaks_takes_neither_the_write_nor_its_neighbours_down() {
    for (breaks, code) in
        [("panic", "panicked"), ("error", "no_such_currency"), ("too large", "too_large")]
    {
        let clock = TestClock::starting();
        let book = in_memory(
            options("ann", &clock)
                .projection(Brittle)
                .unwrap()
                .projection(count_by("stage", 1))
                .unwrap(),
        );
        book.records().create(key("lead/1"), fields(json!({"stage": "new"}))).unwrap();
        assert!(book.projection("brittle").get(b"1").unwrap().is_some());
        book.records()
            .create(key("lead/2"), fields(json!({"stage": "new", "breaks": breaks})))
            .unwrap();
        book.records().create(key("lead/3"), fields(json!({"stage": "new"}))).unwrap();
        assert_eq!(common::view(&book, "lead/2"), Some(json!({"stage": "new", "breaks": breaks})));
        assert_eq!(counts(&book), expected(&[("new", 3)]));

        let statuses = book.audit().projections().unwrap();
        let brittle = statuses.iter().find(|status| status.name == "brittle").unwrap();
        let broken = brittle.broken.as_ref().unwrap();
        assert_eq!((broken.code.as_str(), &broken.key), (code, &key("lead/2")));
        let refused = book.projection("brittle").get(b"1").unwrap_err();
        assert!(matches!(refused, Error::BrokenProjection(_)), "{refused}");
        assert_sound(&book);
    }
}

#[test]
fn a_broken_projection_stays_so_until_its_version_changes_or_the_book_is_rebuilt() {
    let clock = TestClock::starting();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.book");
    let with = || options("ann", &clock).projection(Brittle).unwrap();
    let is_broken = |book: &Book| {
        book.audit().projections().unwrap().iter().any(|status| status.broken.is_some())
    };
    let first = Book::create_new(&path, with()).unwrap();
    first.records().create(key("lead/1"), fields(json!({"breaks": "panic"}))).unwrap();
    first.close().unwrap();
    let second = Book::open(&path, with()).unwrap();
    assert!(is_broken(&second), "the same version would break again");
    second.audit().rebuild(|_| {}).unwrap();
    assert!(is_broken(&second), "the record at fault is still there");
    second.records().update(key("lead/1"), fields(json!({"breaks": null}))).unwrap();
    assert!(is_broken(&second));
    second.audit().rebuild(|_| {}).unwrap();
    assert!(!is_broken(&second));
    assert_eq!(
        second.projection("brittle").get(b"1").unwrap().as_deref(),
        Some(b"seen".as_slice())
    );
    second.close().unwrap();
}

#[test]
fn names_that_break_the_rule_or_are_there_twice_are_refused() {
    struct Named(&'static str);
    impl Projection for Named {
        fn name(&self) -> &str {
            self.0
        }
        fn version(&self) -> u32 {
            1
        }
        fn fold(
            &self,
            _: &RecordChange<'_>,
            _: &mut ProjectionTable<'_>,
        ) -> Result<(), ProjectionError> {
            Ok(())
        }
    }
    let clock = TestClock::starting();
    for bad in ["", "Leads", "leads!", "app-leads", &"a".repeat(64)] {
        let refused = options("ann", &clock).projection(Named(bad.to_owned().leak())).unwrap_err();
        assert_eq!(refused, InvalidProjection::Name, "{bad}");
    }
    let with_one = options("ann", &clock).projection(Named("leads")).unwrap();
    assert_eq!(with_one.projection(Named("leads")).unwrap_err(), InvalidProjection::Twice);
}

/// A projection that reads its table while the disk fails, and ignores the error.
struct Careless(Arc<AtomicBool>);

impl Projection for Careless {
    fn name(&self) -> &str {
        "careless"
    }
    fn version(&self) -> u32 {
        1
    }
    fn fold(
        &self,
        change: &RecordChange<'_>,
        table: &mut ProjectionTable<'_>,
    ) -> Result<(), ProjectionError> {
        let id = change.key.id.as_str();
        table.put(id.as_bytes(), &[7; 10_000])?;
        self.0.store(id == "2", Ordering::SeqCst);
        let read = table.get(b"1");
        self.0.store(false, Ordering::SeqCst);
        assert_eq!(read.is_err(), id == "2");
        Ok(())
    }
}

#[test]
fn a_disk_that_fails_under_a_fold_fails_the_write_whatever_the_fold_makes_of_it() {
    let clock = TestClock::starting();
    let disk = FailingDisk::default();
    let open = || {
        let careless = Careless(Arc::clone(&disk.fails));
        let with = options("ann", &clock).cache_bytes(0).projection(careless).unwrap();
        Book::on_backend(disk.clone(), with).unwrap()
    };
    let book = open();
    book.records().create(key("lead/1"), fields(json!({"a": 1}))).unwrap();
    let failed = book.records().create(key("lead/2"), fields(json!({"a": 1})));
    assert!(matches!(failed, Err(Error::Store(_))), "{failed:?}");
    drop(book);
    let book = open();
    assert_eq!(common::view(&book, "lead/2"), None);
    assert!(
        book.projection("careless").get(b"1").unwrap().is_some(),
        "the projection is not the one at fault"
    );
    assert_eq!(book.projection("careless").get(b"2").unwrap(), None);
}
