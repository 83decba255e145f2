//! Compaction: the oldest entries of a log go, and everything that a person has or waits for stays.
#![cfg(feature = "simulation")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;

use common::{
    FailingDisk, Server, TestClock, assert_sound, fields, key, options, sync, sync_with, view,
};
use fieldbook::audit::entry::{Control, Meta};
use fieldbook::audit::{
    Compaction, CompactionPolicy, DamageKind, KeptBack, KeptBy, Moment, Seq, read_export,
    read_parts, salvage_book, verify_export,
};
use fieldbook::error::StoreError;
use fieldbook::sync::protocol::ExchangeRequest;
use fieldbook::{Book, Error, SignOut};
use serde_json::json;

/// A device with one book in a folder, and a server.
struct Device {
    folder: tempfile::TempDir,
    clock: Arc<TestClock>,
    server: Server,
}

impl Device {
    fn new() -> Self {
        let clock = TestClock::starting();
        Self { folder: tempfile::tempdir().unwrap(), server: Server::new(&clock), clock }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn book(&self) -> Book {
        Book::open_or_create(self.path("a.book"), options("ann", &self.clock)).unwrap()
    }

    /// Makes a book with a history: ten leads, each edited twenty times and sent each time.
    fn with_history(&self) -> Book {
        let book = self.book();
        for id in 0..10 {
            book.records().create(key(&format!("lead/{id}")), fields(json!({"n": 0}))).unwrap();
        }
        for n in 1..20 {
            self.clock.advance(60_000);
            for id in 0..10 {
                let to = fields(json!({"n": n, "text": "x".repeat(1_000)}));
                book.records().update(key(&format!("lead/{id}")), to).unwrap();
            }
            sync(&book, &self.server);
        }
        book
    }
}

fn head(book: &Book) -> Seq {
    book.audit().head().unwrap().unwrap().seq
}

fn everything() -> Compaction {
    Compaction::before(Moment::Back(0))
}

#[test]
fn a_trimmed_book_has_every_record_and_goes_on_with_its_server() {
    let device = Device::new();
    let book = device.with_history();
    let (before, last) =
        (book.records().list(&"lead".parse().unwrap(), None, 99).unwrap(), head(&book));
    let epoch = book.audit().epoch();
    let bytes = fs::metadata(device.path("a.book")).unwrap().len();
    let done = book.compact(&everything(), |_| {}).unwrap();
    // The last exchange is behind the last receipt.
    let upto = done.upto.unwrap();
    assert!(upto.number() + 20 > last.number(), "{done:?}");
    assert!(matches!(done.kept_by, Some(KeptBack::NotAnchored { anchored: Some(_) })), "{done:?}");
    assert_eq!(done.records, 10);

    let book = device.book();
    assert_sound(&book);
    let verified = book.audit().verify(|_| {}).unwrap().into_result().unwrap();
    assert_eq!(verified.trimmed.map(|upto| upto.seq), Some(upto));
    assert!(verified.entries < 30, "{verified:?}");
    let after = fs::metadata(device.path("a.book")).unwrap().len();
    assert!(after < bytes / 2, "{bytes} -> {after} bytes");
    let after = book.records().list(&"lead".parse().unwrap(), None, 99).unwrap();
    assert_eq!(format!("{after:?}"), format!("{before:?}"));

    // Both directions go on, in the same epoch.
    book.records().update(key("lead/3"), fields(json!({"n": 99}))).unwrap();
    assert_eq!(sync(&book, &device.server).units_sent, 1);
    let other = common::book("ben", &device.clock);
    sync(&other, &device.server);
    other.records().update(key("lead/4"), fields(json!({"n": 77}))).unwrap();
    sync(&other, &device.server);
    sync(&book, &device.server);
    assert_eq!(view(&book, "lead/4").unwrap()["n"], 77);
    assert_eq!(book.audit().epoch(), epoch);
    assert_sound(&book);
}

/// Writes a compacted copy of a book, and opens it.
fn compacted(book: &Book, before: Moment, device: &Device) -> (Book, Seq) {
    let disk = FailingDisk::default();
    let done = book.write_compacted(before, disk.clone()).unwrap();
    let copy = Book::on_backend(disk, options("ann", &device.clock)).unwrap();
    (copy, done.upto.unwrap())
}

#[test]
fn what_is_left_of_the_past_reads_as_before_and_what_went_is_refused() {
    let device = Device::new();
    let whole = device.with_history();
    let (last, middle) = (head(&whole), Seq::new(head(&whole).number() / 2));
    let (trimmed, upto) = compacted(&whole, Moment::Entry(middle), &device);
    assert!(upto <= middle && upto.number() + 60 > middle.number(), "{upto} of {middle}");
    assert_sound(&trimmed);
    for seq in (upto.number()..=last.number()).step_by(7).chain([last.number()]) {
        let at = Moment::Entry(Seq::new(seq));
        assert_eq!(trimmed.past_differs(Seq::new(seq)).unwrap(), None);
        let (one, other) = (trimmed.at(at).unwrap(), whole.at(at).unwrap());
        for id in 0..10 {
            let lead = key(&format!("lead/{id}"));
            let read = |book: &fieldbook::audit::At<'_>| {
                (
                    format!("{:?}", book.get_record(&lead)),
                    format!("{:?}", book.record_status(&lead)),
                )
            };
            assert_eq!(read(&one), read(&other), "{lead} at {seq}");
        }
        assert_eq!(format!("{:?}", one.status()), format!("{:?}", other.status()));
    }
    let early = [Moment::Entry(Seq::new(upto.number() - 1)), Moment::Entry(Seq::new(2))];
    for moment in early {
        let refused = trimmed.at(moment).map(|at| at.found().seq);
        assert!(matches!(refused, Err(Error::Trimmed { upto: at }) if at == upto), "{refused:?}");
    }
    let time = whole.at(early[1]).unwrap().found().at;
    assert!(matches!(trimmed.at(Moment::Time(time)), Err(Error::Trimmed { .. })));
    // The story of a record begins with how it stood, and goes on in the same words.
    let story = |book: &Book| -> Vec<String> {
        let told = book.audit().story(Some(&key("lead/3")), Seq::ZERO, last).unwrap();
        told.iter().map(fieldbook::audit::Paragraph::text).collect()
    };
    let (short, long) = (story(&trimmed), story(&whole));
    assert!(
        short[0].starts_with("What came before this was trimmed. The record stood at r"),
        "{short:?}"
    );
    assert!(long.ends_with(&short[1..]), "{short:#?} is no end of {long:#?}");
    // A walk through all of it, as a history page makes it, meets every entry that is left.
    let mut walked = Vec::new();
    trimmed
        .audit()
        .walk(&trimmed.actor(), last.next(), |step| walked.push(step.entry.header.seq))
        .unwrap();
    let entries = trimmed.audit().entries(Seq::ZERO, usize::MAX).unwrap();
    assert_eq!(walked, entries.iter().map(|entry| entry.header.seq).collect::<Vec<_>>());
}

#[test]
fn what_somebody_waits_for_stays_with_everything_behind_it() {
    let device = Device::new();
    let book = device.with_history();
    let synced = head(&book);
    book.records().create(key("lead/dead"), fields(json!({"n": 1}))).unwrap();
    sync_with(&book, &device.server.refusing("no", "no"));
    for n in 0..50 {
        book.records().update(key("lead/1"), fields(json!({"n": 1_000 + n}))).unwrap();
        sync(&book, &device.server);
    }
    let plan = book.plan_compaction(&everything(), |_| {}).unwrap();
    assert_eq!(plan.upto, Some(synced));
    let kept = plan.kept_by.clone().unwrap();
    assert!(
        matches!(&kept, KeptBack::Live(KeptBy::Op { key: of, dead: true, .. }) if *of == key("lead/dead")),
        "{kept:?}"
    );
    assert_eq!(book.compact(&everything(), |_| {}).unwrap(), plan);
    let book = device.book();
    assert_eq!(book.status().dead_letters, 1);
    let dead = book.dead_letters().list(None, 9).unwrap().items;
    assert_eq!(dead[0].key, key("lead/dead"));
    assert_sound(&book);
    // It can still be sent.
    book.dead_letters().retry(vec![dead[0].op]).unwrap();
    assert_eq!(sync(&book, &device.server).units_sent, 1);
    assert_sound(&book);
}

#[test]
fn a_log_that_no_receipt_reaches_is_trimmed_only_with_an_archive() {
    let device = Device::new();
    let book = device.book();
    // A server without receipts.
    let server = device.server.clone();
    let remote = fieldbook::sync::FnRemote::new(move |request: &ExchangeRequest| {
        Ok(fieldbook::sync::protocol::ExchangeAnswer {
            receipt: None,
            ..server.try_answer(request)?
        })
    });
    book.records().create(key("lead/1"), fields(json!({"n": 0}))).unwrap();
    for n in 1..30 {
        book.records().update(key("lead/1"), fields(json!({"n": n}))).unwrap();
        sync_with(&book, &remote);
    }
    let plan = book.plan_compaction(&everything(), |_| {}).unwrap();
    assert_eq!((plan.upto, plan.kept_by), (None, Some(KeptBack::NotAnchored { anchored: None })));
    let archive = device.path("old.fblog");
    let with_archive = everything().archive_to(&archive);
    let done = book.compact(&with_archive, |_| {}).unwrap();
    assert!(done.upto.is_some(), "{done:?}");
    let verified = verify_export(&mut File::open(&archive).unwrap()).unwrap();
    assert_eq!(verified.head.map(|head| head.seq), done.upto);
    assert_eq!(view(&device.book(), "lead/1"), Some(json!({"n": 29})));
}

#[test]
fn archives_have_what_went_and_a_second_one_begins_where_the_first_ended() {
    let device = Device::new();
    let mut book = device.with_history();
    let mut uptos = Vec::new();
    for name in ["one.fblog", "two.fblog"] {
        let how = everything().archive_to(device.path(name));
        let upto = book.plan_compaction(&how, |_| {}).unwrap().upto.unwrap();
        let before = book.at(Moment::Entry(upto)).unwrap().get_record(&key("lead/5")).unwrap();
        let done = book.compact(&how, |_| {}).unwrap();
        uptos.push(done.upto.unwrap());
        let mut file = File::open(device.path(name)).unwrap();
        let archived = read_export(&mut file, options("ann", &device.clock)).unwrap();
        assert_eq!(archived.audit().head().unwrap().map(|head| head.seq), done.upto);
        assert_eq!(archived.records().get(&key("lead/5")).unwrap(), before);
        assert!(
            archived
                .audit()
                .story(Some(&key("lead/5")), Seq::ZERO, done.upto.unwrap())
                .unwrap()
                .len()
                > 5
        );
        book = device.book();
        // What the archive has is named by the entry that says what went.
        let entries = book.audit().entries(Seq::ZERO, usize::MAX).unwrap();
        let named = entries.iter().find_map(|entry| match &entry.meta {
            Meta::Control(Control::Trimmed(trimmed)) => Some(trimmed.archive),
            _ => None,
        });
        assert_eq!(named, Some(done.archive));
        for n in 0..20 {
            book.records().update(key("lead/5"), fields(json!({"n": 100 + n}))).unwrap();
            sync(&book, &device.server);
        }
    }
    assert!(uptos[0] < uptos[1]);
    assert_sound(&book);
    // What is there is not overwritten, and the book stays.
    let refused = book.compact(&everything().archive_to(device.path("one.fblog")), |_| {});
    assert!(matches!(refused, Err(Error::Store(_))), "{refused:?}");
    assert_eq!(view(&device.book(), "lead/5").unwrap()["n"], 119);
}

#[test]
fn a_baseline_that_is_not_the_written_one_is_damage() {
    let device = Device::new();
    let (book, upto) = compacted(&device.with_history(), Moment::Back(0), &device);
    let mut stream = Vec::new();
    book.audit().export(&mut stream).unwrap();
    assert_eq!(verify_export(&mut stream.as_slice()).unwrap().trimmed.map(|at| at.seq), Some(upto));
    let at = |part: &[u8]| stream.windows(part.len()).position(|bytes| bytes == part).unwrap();
    // A value of the baseline; the hash of the last trimmed entry, which the joint has.
    let text = at(b"xxxxxxxx");
    let joint = at(upto_hash(&book, upto).as_bytes());
    for place in [text, joint] {
        let mut altered = stream.clone();
        altered[place] ^= 1;
        let damage = verify_export(&mut altered.as_slice()).unwrap_err();
        let is_found =
            matches!(damage.kind, DamageKind::HashDiffers { .. } | DamageKind::Misplaced { .. });
        assert!(is_found, "{damage}");
    }
}

fn upto_hash(book: &Book, upto: Seq) -> fieldbook::audit::Hash {
    book.audit().entries(upto, 1).unwrap().pop().unwrap().hash
}

#[test]
fn a_policy_asks_for_a_compaction_once_there_is_something_old_in_a_large_file() {
    let device = Device::new();
    let book = device.with_history();
    let policy = CompactionPolicy {
        at_least_bytes: 100_000,
        keep_milliseconds: 600_000,
        archives: Some(device.folder.path().to_owned()),
    };
    let large = CompactionPolicy { at_least_bytes: u64::MAX, ..policy.clone() };
    assert_eq!(book.compaction_due(&large).unwrap(), None);
    let long = CompactionPolicy { keep_milliseconds: u64::MAX, ..policy.clone() };
    assert_eq!(book.compaction_due(&long).unwrap(), None);
    let due = book.compaction_due(&policy).unwrap().expect("most is older than ten minutes");
    let done = book.compact(&due, |_| {}).unwrap();
    assert!(done.entries > 50, "{done:?}");
    let book = device.book();
    // What is left of the log is younger.
    assert_eq!(book.compaction_due(&policy).unwrap(), None);
    assert_sound(&book);
}

#[test]
fn every_kind_of_record_comes_through_a_baseline() {
    let device = Device::new();
    let book = device.with_history();
    book.records().delete(key("lead/7")).unwrap();
    book.records().replace(key("lead/8"), fields(json!({"only": true}))).unwrap();
    sync(&book, &device.server);
    let (other, read) = (common::book("ben", &device.clock), |book: &Book| {
        let ids: BTreeSet<_> = (0..10).map(|id| format!("lead/{id}")).collect();
        ids.iter()
            .map(|id| (view(book, id), format!("{:?}", book.record_status(&key(id)))))
            .collect::<Vec<_>>()
    });
    sync(&other, &device.server);
    other.records().update(key("lead/8"), fields(json!({"n": null, "more": 1}))).unwrap();
    sync(&other, &device.server);
    sync(&book, &device.server);
    let (trimmed, _) = compacted(&book, Moment::Back(0), &device);
    assert_eq!(read(&trimmed), read(&book));
    // Stamps came along: an older edit that arrives late loses as it would have lost.
    assert_sound(&trimmed);
    let rows = |book: &Book| {
        let dump = book.snapshot().unwrap().dump().unwrap();
        dump.into_iter()
            .filter(|table| ["records", "cursors"].contains(&table.name))
            .collect::<Vec<_>>()
    };
    assert_eq!(rows(&trimmed), rows(&book));
}

#[test]
fn archives_and_the_book_read_together_are_the_log_as_it_was() {
    let device = Device::new();
    let mut book = device.with_history();
    let mut archives = Vec::new();
    for name in ["one.fblog", "two.fblog"] {
        book.compact(&everything().archive_to(device.path(name)), |_| {}).unwrap();
        archives.push(device.path(name));
        book = device.book();
        book.records().update(key("lead/5"), fields(json!({"n": name}))).unwrap();
        sync(&book, &device.server);
    }
    let mut left = Vec::new();
    book.audit().export(&mut left).unwrap();
    let parts: Vec<Vec<u8>> =
        archives.iter().map(|path| fs::read(path).unwrap()).chain([left]).collect();
    let read = |parts: &[Vec<u8>]| {
        let mut parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let mut parts: Vec<&mut &[u8]> = parts.iter_mut().collect();
        read_parts(&mut parts, options("ann", &device.clock))
    };
    let whole = read(&parts).unwrap();
    assert_eq!(whole.audit().head().unwrap(), book.audit().head().unwrap());
    let entries = whole.audit().entries(Seq::ZERO, usize::MAX).unwrap();
    assert_eq!(entries.len() as u64, head(&book).number(), "no entry is missing");
    let story =
        |book: &Book| book.audit().story(Some(&key("lead/5")), Seq::ZERO, head(book)).unwrap();
    assert!(story(&whole).len() > 19 && story(&book).len() < 10);
    for id in 0..10 {
        let lead = key(&format!("lead/{id}"));
        assert_eq!(whole.records().get(&lead).unwrap(), book.records().get(&lead).unwrap());
    }
    // In another order, or with one missing, they are no log.
    let wrong = [
        vec![parts[1].clone(), parts[0].clone(), parts[2].clone()],
        vec![parts[0].clone(), parts[2].clone()],
    ];
    for parts in wrong {
        let refused = read(&parts).map(|book| head(&book));
        let Err(Error::Store(error)) = refused else { panic!("{refused:?}") };
        assert!(matches!(*error, StoreError::NotNext { part: 2 }), "{error}");
    }
}

#[test]
fn a_trimmed_book_is_salvaged_and_signed_out_of_like_any_other() {
    let device = Device::new();
    device.with_history().compact(&everything(), |_| {}).unwrap();
    let book = device.book();
    let rows = book.audit().entries(Seq::ZERO, usize::MAX).unwrap().len() as u64;
    let leads =
        |book: &Book| -> Vec<_> { (0..10).map(|id| view(book, &format!("lead/{id}"))).collect() };
    let before = leads(&book);
    book.close().unwrap();
    let new = device.path("new.book");
    let salvaged =
        salvage_book(device.path("a.book"), &new, options("ann", &device.clock), |_, _| {})
            .unwrap();
    assert_eq!((salvaged.linked, salvaged.missing), (rows, Vec::new()));
    let salvaged = Book::open(&new, options("ann", &device.clock)).unwrap();
    assert_eq!(leads(&salvaged), before);
    assert_sound(&salvaged);

    let book = device.book();
    book.records().update(key("lead/2"), fields(json!({"n": "mine"}))).unwrap();
    book.sign_out(SignOut::KeepUnsent).unwrap();
    let bytes = fs::read(device.path("a.book")).unwrap();
    let copies = bytes.windows(40).filter(|part| part.iter().all(|byte| *byte == b'x')).count();
    // One record is left: in the baseline, and in its row.
    assert!(copies > 0 && copies <= 3 * 1_000, "{copies}");
    let book = device.book();
    assert_eq!(view(&book, "lead/3"), None);
    assert_eq!(view(&book, "lead/2").unwrap()["n"], "mine");
    assert_sound(&book);
    sync(&book, &device.server);
    assert_eq!(view(&book, "lead/3"), before[3]);
}

/// The joint of a baseline without records comes directly after a gap, which it closes.
#[test]
fn a_book_without_records_is_trimmed_to_its_beginning_and_a_joint() {
    let device = Device::new();
    let book = device.book();
    book.records().create(key("lead/1"), fields(json!({"n": 0}))).unwrap();
    sync_with(&book, &device.server.refusing("no", "no"));
    let dead = book.dead_letters().list(None, 9).unwrap().items;
    book.dead_letters().discard(vec![dead[0].op], "typed twice").unwrap();
    book.records().create(key("lead/2"), fields(json!({"n": 0}))).unwrap();
    sync(&book, &device.server);
    let (trimmed, _) = compacted(&book, Moment::Entry(Seq::new(7)), &device);
    assert_sound(&trimmed);
    assert_eq!(view(&trimmed, "lead/2"), Some(json!({"n": 0})));
    assert_eq!(view(&trimmed, "lead/1"), None);
}
