//! A backup goes on in the place of its book, on a new device for example: what becomes of an op
//! that waited when the backup was made, and that the book sent afterwards.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::{Server, TestClock, assert_sound, fields, key, options, sync, sync_with, view};
use fieldbook::audit::entry::{Control, Meta};
use fieldbook::audit::{Entry, Seq};
use fieldbook::schema::Policy;
use fieldbook::sync::FnRemote;
use fieldbook::sync::protocol::Failure;
use fieldbook::{Book, BookOptions, EntityRules, Schema};
use redb::backends::InMemoryBackend;
use serde_json::{Value, json};

/// The record as it is before the op, after it, and after a later write of somebody who had read
/// the op. Each policy sees a difference in a field.
fn first() -> Value {
    json!({"tags": ["a"], "most": 1, "least": 9})
}

fn second() -> Value {
    json!({"tags": ["a", "b"], "most": 7, "least": 2})
}

fn third() -> Value {
    json!({"tags": ["a"], "most": 4, "least": 5})
}

/// A device with an op that waits in its backup, and has been sent since.
struct TakenOver {
    clock: Arc<TestClock>,
    server: Server,
    /// The device that the backup is of.
    old: Book,
    /// A device of somebody else, which has read what the old one sent.
    other: Book,
    backup: PathBuf,
    _folder: tempfile::TempDir,
}

fn by_policy(name: &str, clock: &Arc<TestClock>, policy: Policy) -> BookOptions {
    let undo_window = Duration::ZERO;
    let rules = EntityRules { policy, undo_window, ..EntityRules::default() };
    options(name, clock).schema(Schema::open(rules))
}

impl TakenOver {
    /// The op adds an item to a list. `planned`: it is in a unit whose request was lost, already
    /// in the backup.
    fn new(policy: Policy, planned: bool) -> Self {
        let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::starting());
        let (server, path) = (Server::new(&clock), folder.path().join("ann.book"));
        let old = Book::create_new(&path, by_policy("ann", &clock, policy)).unwrap();
        let memory = InMemoryBackend::new();
        let other = Book::on_backend(memory, by_policy("ben", &clock, policy)).unwrap();
        old.records().create(key("lead/1"), fields(first())).unwrap();
        sync(&old, &server);
        old.records().update(key("lead/1"), fields(second())).unwrap();
        if planned {
            let lost = FnRemote::new(|_: &_| Err(Failure::Unreachable { code: "lost" }.into()));
            sync_with(&old, &lost);
        }
        let backup = folder.path().join("ann.backup");
        old.audit().backup(&backup, |_, _| {}).unwrap();
        clock.advance(3_600_000);
        sync(&old, &server);
        assert_eq!(old.status().pending, 0);
        clock.advance(60_000);
        sync(&other, &server);
        Self { clock, server, old, other, backup, _folder: folder }
    }

    /// Opens the backup on a new device and syncs it, while the old device rests.
    fn taken_over(&self, policy: Policy) -> Book {
        let new = Book::open(&self.backup, by_policy("ann", &self.clock, policy)).unwrap();
        assert_eq!(new.status().pending, 1);
        for _ in 0..3 {
            self.clock.advance(3_600_000);
            sync(&new, &self.server);
        }
        assert_sound(&new);
        new
    }
}

const POLICIES: [Policy; 7] = [
    Policy::LastWriteWins,
    Policy::ServerWins,
    Policy::DeviceWins,
    Policy::Max,
    Policy::Min,
    Policy::AppendUnique,
    Policy::Manual,
];

#[test]
fn an_op_that_was_sent_after_the_backup_is_known_to_the_server_by_its_stamps() {
    for policy in POLICIES {
        let taken = TakenOver::new(policy, false);
        let before = taken.server.authority.lock().unwrap().records().count();
        let version = taken.server.version("lead/1");
        let new = taken.taken_over(policy);
        assert_eq!(taken.server.version("lead/1"), version, "no commit: {policy:?}");
        assert_eq!(taken.server.authority.lock().unwrap().records().count(), before);
        assert_eq!((new.status().pending, new.conflicts().count().unwrap().all), (0, 0));
        assert_eq!(view(&new, "lead/1"), Some(second()));
    }
}

/// Here the policy decides, because nobody knows any more that the author of the later write had
/// read the op. `docs/promises.md` lists these cases under what is not promised.
#[test]
fn an_op_that_somebody_changed_after_reading_it_comes_back_only_by_a_policy_that_ignores_time() {
    for policy in POLICIES {
        for by_the_old_device in [false, true] {
            let taken = TakenOver::new(policy, false);
            let author = if by_the_old_device { &taken.old } else { &taken.other };
            author.records().update(key("lead/1"), fields(third())).unwrap();
            sync(author, &taken.server);
            let new = taken.taken_over(policy);
            let expected = match policy {
                Policy::DeviceWins => second(),
                Policy::Max => json!({"tags": ["a"], "most": 7, "least": 5}),
                Policy::Min => json!({"tags": ["a"], "most": 4, "least": 2}),
                Policy::AppendUnique => json!({"tags": ["a", "b"], "most": 4, "least": 5}),
                _ => third(),
            };
            assert_eq!(taken.server.record("lead/1"), Some(expected), "{policy:?}");
            // The loss, or the win, is on record; with the manual policy a person is asked.
            let conflicts = new.conflicts().count().unwrap();
            let is_manual = policy == Policy::Manual;
            assert!(conflicts.all > 0 && (conflicts.open > 0) == is_manual, "{policy:?}");
            assert_eq!(new.status().pending, u64::from(is_manual));
        }
    }
}

#[test]
fn an_op_that_was_in_a_unit_in_the_backup_already_takes_effect_once_whatever_happened_since() {
    for policy in POLICIES {
        let taken = TakenOver::new(policy, true);
        taken.other.records().update(key("lead/1"), fields(third())).unwrap();
        sync(&taken.other, &taken.server);
        let new = taken.taken_over(policy);
        assert_eq!(taken.server.record("lead/1"), Some(third()), "{policy:?}");
        assert_eq!((new.status().pending, new.conflicts().count().unwrap().all), (0, 0));
    }
}

/// Nobody should do this. What happens if somebody does: each of the two finds out in turn.
#[test]
fn a_book_and_its_backup_that_both_go_on_are_told_apart_and_neither_loses_an_op() {
    let taken = TakenOver::new(Policy::LastWriteWins, false);
    let new = taken.taken_over(Policy::LastWriteWins);
    let epochs = |book: &Book| {
        let entries = book.audit().entries(Seq::ZERO, 1_000).unwrap();
        let starts =
            |entry: &&Entry| matches!(entry.meta, Meta::Control(Control::EpochStarted { .. }));
        entries.iter().filter(starts).count()
    };
    assert_eq!((epochs(&taken.old), epochs(&new)), (0, 1), "the later one has a new epoch");
    for round in 0..3 {
        for (book, side) in [(&taken.old, "old"), (&new, "new")] {
            taken.clock.advance(3_600_000);
            let record = key(&format!("{side}/{round}"));
            book.records().create(record, fields(json!({"round": round}))).unwrap();
            sync(book, &taken.server);
        }
    }
    sync(&taken.old, &taken.server);
    for book in [&taken.old, &new] {
        assert_eq!((epochs(&taken.old), epochs(&new)), (0, 1), "each has an epoch of its own now");
        assert_eq!(book.status().pending, 0);
        assert_sound(book);
        for (round, side) in (0..3).flat_map(|round| [(round, "old"), (round, "new")]) {
            let record = format!("{side}/{round}");
            assert_eq!(view(book, &record), Some(json!({ "round": round })), "{record}");
        }
    }
}

/// The clock was ahead, and no server had told its time yet. Each of the two lowers the stamp to the
/// time at which it finds out, so the copy has a later one.
#[test]
fn an_op_whose_clock_was_ahead_may_come_back_although_the_last_write_wins() {
    let (folder, policy) = (tempfile::tempdir().unwrap(), Policy::LastWriteWins);
    let (clock, ahead) = (TestClock::starting(), TestClock::starting());
    ahead.advance(30 * 24 * 3_600_000);
    let (server, path) = (Server::new(&clock), folder.path().join("ann.book"));
    let old = Book::create_new(&path, by_policy("ann", &ahead, policy)).unwrap();
    old.records().create(key("lead/1"), fields(second())).unwrap();
    let backup = folder.path().join("ann.backup");
    old.audit().backup(&backup, |_, _| {}).unwrap();
    sync(&old, &server);
    let memory = InMemoryBackend::new();
    let other = Book::on_backend(memory, by_policy("ben", &clock, policy)).unwrap();
    clock.advance(60_000);
    sync(&other, &server);
    other.records().update(key("lead/1"), fields(third())).unwrap();
    sync(&other, &server);
    assert_eq!(server.record("lead/1"), Some(third()));
    let new = Book::open(&backup, by_policy("ann", &ahead, policy)).unwrap();
    clock.advance(60_000);
    sync(&new, &server);
    assert_eq!(server.record("lead/1"), Some(second()));
    assert_eq!((new.status().pending, new.conflicts().count().unwrap().all), (0, 1));
    assert_sound(&new);
}
