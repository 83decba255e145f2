//! The released formats, byte by byte. A change here changes every existing book.
//!
//! `FIELDBOOK_WRITE_GOLDEN=1 cargo test -p fieldbook-core golden` writes the files when a format is
//! made; never after it was released.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use fieldbook_core::entry::{
    CancelledReason, Control, Decision, Draft, Entry, ErasedRecords, Extent, FieldsSource, Items,
    LastStop, Meta, OutcomeClass, ParkScope, PersonAction, Winner, seal,
};
use fieldbook_core::log::{Store, Verified, entries, entries_from, export, verify, verify_export};
use fieldbook_core::{Hash, OpKind, Policy, Seq};

use redb::ReadableTable;

use super::{folded, samples};

/// The golden logs.
const NAMES: [&str; 5] = ["example", "every-variant", "every-fold", "another-server", "erased"];

const STREAM_1: &[u8] = b"fieldbook-log 1\n";

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn exported(drafts: Vec<Draft>) -> (Vec<u8>, Vec<Entry>, Verified) {
    let store = samples::memory_store();
    samples::append_all(&store, drafts);
    exported_of(&store)
}

fn exported_of(store: &Store) -> (Vec<u8>, Vec<Entry>, Verified) {
    let snapshot = store.begin_read().unwrap();
    let table = entries(&snapshot).unwrap();
    // The golden logs are streams of version 1: entries alone.
    let mut bytes = STREAM_1.to_vec();
    for row in table.iter().unwrap() {
        let (_, stored) = row.unwrap();
        bytes.extend_from_slice(&u32::try_from(stored.value().len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(stored.value());
    }
    let read = entries_from(&table, Seq::ZERO).collect::<Result<_, _>>().unwrap();
    (bytes, read, verify(&table, |_| {}).unwrap())
}

/// Splits an exported log without any code of the program.
fn stored_entries(mut bytes: &[u8]) -> Vec<&[u8]> {
    bytes = bytes.strip_prefix(STREAM_1).unwrap();
    let mut stored = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_at(4);
        let length = u32::from_le_bytes(length.try_into().unwrap());
        let (entry, rest) = rest.split_at(usize::try_from(length).unwrap());
        stored.push(entry);
        bytes = rest;
    }
    stored
}

fn snapshot(entries: &[Entry]) -> String {
    let mut text = String::new();
    for entry in entries {
        writeln!(text, "{:?}\n{:#?}", entry.header, entry.meta).unwrap();
        for item in &entry.items {
            let bytes = item.bytes().map(String::from_utf8_lossy);
            writeln!(text, "item {} {bytes:?}", item.commitment()).unwrap();
        }
        writeln!(text, "content {}\nhash {}\n", entry.content, entry.hash).unwrap();
    }
    text
}

#[track_caller]
fn check_golden(name: &str, actual: &[u8]) {
    let path = repository("tests/golden/format-2").join(name);
    if std::env::var_os("FIELDBOOK_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert!(golden == actual, "{name} differs from what is in tests/golden/format-2");
}

#[test]
fn the_samples_seal_to_the_golden_logs() {
    let drafts = [
        samples::example(),
        samples::every_variant(),
        folded::every_fold(),
        folded::another_server(),
        folded::erased(),
    ];
    for (name, drafts) in NAMES.into_iter().zip(drafts) {
        let (bytes, read, verified) = exported(drafts);
        check_golden(&format!("{name}.log"), &bytes);
        check_golden(&format!("{name}.txt"), snapshot(&read).as_bytes());
        assert_eq!(verified.erased_items, u64::from(name == "every-variant"));
    }
}

#[test]
fn the_golden_logs_decode_to_their_snapshots_and_seal_again_to_their_bytes() {
    for name in NAMES {
        let path = repository("tests/golden/format-2").join(name);
        let bytes = std::fs::read(path.with_extension("log")).unwrap();
        let (mut decoded, mut previous) = (Vec::new(), Hash::ZERO);
        for stored in stored_entries(&bytes) {
            let entry = Entry::decode(stored).unwrap();
            let draft = Draft { meta: entry.meta.clone(), items: Items::from(entry.items.clone()) };
            let sealed = seal(&entry.header, &draft, &previous).unwrap();
            assert_eq!(sealed.bytes, stored);
            assert_eq!((sealed.content, sealed.hash), (entry.content, entry.hash));
            previous = entry.hash;
            decoded.push(entry);
        }
        let verified = verify_export(&mut bytes.as_slice()).unwrap();
        assert_eq!(verified.head.unwrap().hash, previous);
        assert_eq!(
            snapshot(&decoded),
            std::fs::read_to_string(path.with_extension("txt")).unwrap()
        );
    }
}

/// Its places have gaps, and its joint a hash of its own, so it does not seal again like the others.
#[test]
fn the_trimmed_log_is_its_golden_one_and_decodes_to_its_snapshot() {
    let store = folded::trimmed();
    let (bytes, read, verified) = exported_of(&store);
    check_golden("trimmed.log", &bytes);
    check_golden("trimmed.txt", snapshot(&read).as_bytes());
    assert_eq!(verified.trimmed.map(|upto| upto.seq), Some(Seq::new(5)));
    let places: Vec<_> = read.iter().map(|entry| entry.header.seq.number()).collect();
    assert_eq!(places, [1, 4, 5, 6, 7, 8]);
    let mut stream = Vec::new();
    export(&entries(&store.begin_read().unwrap()).unwrap(), &mut stream).unwrap();
    check_golden("trimmed-stream.log", &stream);
    assert_eq!(verify_export(&mut stream.as_slice()).unwrap(), verified);
    assert_eq!(verify_export(&mut bytes.as_slice()).unwrap(), verified);
}

/// The example as the program exports it.
#[test]
fn the_example_is_exported_as_the_golden_stream() {
    let store = samples::memory_store();
    samples::append_all(&store, samples::example());
    let mut bytes = Vec::new();
    export(&entries(&store.begin_read().unwrap()).unwrap(), &mut bytes).unwrap();
    check_golden("example-stream.log", &bytes);
    let entries = std::fs::read(repository("tests/golden/format-2/example.log")).unwrap();
    let alone = verify_export(&mut entries.as_slice()).unwrap();
    assert_eq!(verify_export(&mut bytes.as_slice()).unwrap(), alone);
}

/// Returns the name of a value's variant. A new variant does not compile until it is listed here,
/// and the test fails until a log has it.
macro_rules! variants {
    ($function:ident, $all:ident, $type:ident: $($variant:ident),+) => {
        const $all: &[&str] = &[$(concat!(stringify!($type), "::", stringify!($variant))),+];
        fn $function(value: &$type) -> &'static str {
            match value { $($type::$variant { .. } => concat!(stringify!($type), "::", stringify!($variant))),+ }
        }
    };
}

variants!(of_meta, METAS, Meta: Intent, Upstream, Control);
variants!(of_control, CONTROLS, Control: Opened, Planned, Decided, PersonActed, EpochStarted, Session, Silence, Authors, Note, Erased, Baseline, Trimmed);
variants!(of_erased, ERASURES, ErasedRecords: Only, Except);
variants!(of_stop, STOPS, LastStop: None, Clean, Unclean);
variants!(of_kind, KINDS, OpKind: Create, Update, Delete, Replace);
variants!(of_class, CLASSES, OutcomeClass: Applied, Duplicate, Stale, Transient, Rejected, Unsupported, Unauthorized, Ahead);
variants!(of_extent, EXTENTS, Extent: Whole, Partial, Deleted);
variants!(of_source, SOURCES, FieldsSource: Nothing, OfOp, Item);
variants!(of_reason, REASONS, CancelledReason: CreatedAndDeleted, Undone, NoEffect, LocalOnly, AlreadyApplied);
variants!(of_decision, DECISIONS, Decision: Acked, Tried, Requeued, Conflicted, Superseded, Dropped, Raised, BroughtBack, DeadLettered,
    Retried, Discarded, Cancelled, Parked, Unparked, Resolved, ServerAccepted, ServerRead, Adopted, Upcast, Suspected, Restamped, BelongsTo, SetAside,
    ReadForeign, HandedOver, LetGo);
variants!(of_scope, SCOPES, ParkScope: Actor, Entity, Op, Server, Protocol, Tenant);
variants!(of_policy, POLICIES, Policy: LastWriteWins, ServerWins, DeviceWins, Max, Min, AppendUnique, Manual, Function);
variants!(of_winner, WINNERS, Winner: Local, Remote, Merged, Undecided);
variants!(of_action, ACTIONS, PersonAction: Retry, Discard, Undo, Resolve, Resume, AcceptServer, HandOver);

fn seen_in(meta: &Meta, seen: &mut BTreeSet<&'static str>) {
    seen.insert(of_meta(meta));
    match meta {
        Meta::Intent(intent) => seen.extend(intent.ops.iter().map(|op| of_kind(&op.kind))),
        Meta::Upstream(upstream) => {
            seen.extend(upstream.outcomes.iter().map(|outcome| of_class(&outcome.class)));
            seen.extend(upstream.changes.iter().map(|change| of_extent(&change.extent)));
        }
        Meta::Control(control) => {
            seen.insert(of_control(control));
            match control {
                Control::Planned(planned) => {
                    let changes = planned.units.iter().flat_map(|unit| &unit.changes);
                    seen.extend(changes.map(|change| of_source(&change.fields)));
                    seen.extend(
                        planned.cancelled.iter().map(|cancelled| of_reason(&cancelled.reason)),
                    );
                }
                Control::PersonActed(action, decisions) => {
                    seen.insert(of_action(action));
                    decisions.iter().for_each(|decision| seen_by(decision, seen));
                }
                Control::Decided(decisions) => {
                    decisions.iter().for_each(|decision| seen_by(decision, seen))
                }
                Control::Erased(erased) => drop(seen.insert(of_erased(&erased.records))),
                Control::Session(session) => drop(seen.insert(of_stop(&session.last_stop))),
                Control::Opened(_)
                | Control::EpochStarted { .. }
                | Control::Silence(_)
                | Control::Authors(_)
                | Control::Note(_)
                | Control::Trimmed(_) => {}
                Control::Baseline(baseline) => {
                    let changes = baseline.records.iter().map(|record| &record.change);
                    seen.extend(changes.map(|change| of_extent(&change.extent)));
                }
            }
        }
    }
}

fn seen_by(decision: &Decision, seen: &mut BTreeSet<&'static str>) {
    seen.insert(of_decision(decision));
    match decision {
        Decision::Conflicted(conflicted) => {
            seen.extend(conflicted.fields.iter().map(|field| of_policy(&field.rule)));
            seen.extend(conflicted.fields.iter().map(|field| of_winner(&field.winner)));
        }
        Decision::Parked { scope, .. } => drop(seen.insert(of_scope(scope))),
        _ => {}
    }
}

#[test]
fn the_golden_log_has_every_variant_of_the_meta_part() {
    let bytes = std::fs::read(repository("tests/golden/format-2/every-variant.log")).unwrap();
    let mut seen = BTreeSet::new();
    for stored in stored_entries(&bytes) {
        seen_in(&Entry::decode(stored).unwrap().meta, &mut seen);
    }
    let all = [
        METAS, CONTROLS, KINDS, CLASSES, EXTENTS, SOURCES, REASONS, DECISIONS, SCOPES, POLICIES,
        WINNERS, ACTIONS, STOPS, ERASURES,
    ];
    assert_eq!(seen, all.concat().into_iter().collect());
}

#[test]
fn the_logs_that_are_there_to_be_folded_have_every_entry_and_every_decision() {
    let mut seen = BTreeSet::new();
    for name in ["every-fold", "another-server", "erased", "trimmed"] {
        let bytes =
            std::fs::read(repository(&format!("tests/golden/format-2/{name}.log"))).unwrap();
        for stored in stored_entries(&bytes) {
            seen_in(&Entry::decode(stored).unwrap().meta, &mut seen);
        }
    }
    for all in [METAS, CONTROLS, KINDS, EXTENTS, DECISIONS, SCOPES, ACTIONS, STOPS, ERASURES] {
        let missing: Vec<_> = all.iter().filter(|name| !seen.contains(*name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}

#[test]
fn the_worked_example_in_the_docs_is_the_golden_example() {
    let bytes = std::fs::read(repository("tests/golden/format-2/example.log")).unwrap();
    let text = std::fs::read_to_string(repository("docs/log-format.md")).unwrap();
    let (_, block) =
        text.split_once("<!-- example -->\n```text\n").expect("the docs have a worked example");
    let (block, _) = block.split_once("```").unwrap();
    // A line has an offset, the bytes in hex, and their meaning, separated by at least two spaces.
    let mut written = Vec::new();
    for line in block.lines().filter(|line| !line.is_empty()) {
        let mut columns = line.split("  ").map(str::trim).filter(|column| !column.is_empty());
        let offset: usize = columns.next().unwrap().parse().unwrap();
        assert_eq!(offset, written.len(), "{line}");
        for byte in columns.next().unwrap().split(' ') {
            written.push(u8::from_str_radix(byte, 16).expect(line));
        }
    }
    assert_eq!(written, bytes);
    for stored in stored_entries(&bytes) {
        let entry = Entry::decode(stored).unwrap();
        assert!(
            text.contains(&entry.content.to_string()),
            "the content hash of entry {}",
            entry.header.seq
        );
        assert!(text.contains(&entry.hash.to_string()), "the hash of entry {}", entry.header.seq);
        for item in &entry.items {
            assert!(
                text.contains(&item.commitment().to_string()),
                "a commitment of entry {}",
                entry.header.seq
            );
        }
    }
}
