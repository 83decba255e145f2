//! Compares `tests/verify_log.py` with the program: they agree on sound logs and on the first
//! damaged entry.

use std::path::{Path, PathBuf};
use std::process::Command;

use fieldbook_core::log::{entries, export, verify_export};
use fieldbook_core::redaction::Wanted;

use super::bundle::{self, bundle_of, hiding_ids};
use super::samples;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/verify_log.py")
}

fn run(path: &Path) -> (Option<i32>, String) {
    let output = Command::new("python3").arg(script()).arg(path).output().expect("python3 runs");
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/format-2").join(name)
}

/// Has both programs verify the bytes.
#[track_caller]
fn both_agree(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
    let (code, text) = run(path);
    match verify_export(&mut &*bytes) {
        Ok(verified) => {
            let head = verified.head.expect("some entries").hash;
            assert_eq!(code, Some(0), "{text}");
            assert!(
                text.ends_with(&format!("{} entries, head {head}: ok\n", verified.entries)),
                "{text}"
            );
        }
        Err(damage) => {
            assert_eq!(code, Some(1), "{damage}: {text}");
            assert!(
                text.starts_with(&format!("entry {} is damaged: ", damage.seq)),
                "{damage}: {text}"
            );
        }
    }
}

#[test]
#[ignore = "needs python3; `.ci/run` runs it"]
fn the_second_verifier_knows_how_far_a_signature_goes() {
    let keys = std::fs::read_to_string(golden("signed.keys")).unwrap();
    let (server, device) = keys.trim().split_once('\n').unwrap();
    let with = |path: &Path, keys: &[&str]| {
        let mut command = Command::new("python3");
        command.arg(script()).arg(path);
        for key in keys {
            command.args(["--key", key]);
        }
        let output = command.output().expect("python3 runs");
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let log = golden("signed.log");
    let (code, said) = with(&log, &[server, device]);
    assert!(said.starts_with("anchored up to entry 2\nsigned up to entry 3\n"), "{said}");
    assert_eq!(code, Some(0));
    assert!(with(&log, &[]).1.starts_with("4 entries"), "nothing is proven without a key");
    assert!(with(&log, &[device]).1.starts_with("signed up to entry 3\n4 entries"));
    // A signature of the right key below another text.
    let folder = tempfile::tempdir().unwrap();
    let (path, mut bytes) = (folder.path().join("a.log"), std::fs::read(&log).unwrap());
    let at = bytes.windows(9).position(|part| part == b"\n2023-11-").expect("a time of a note");
    bytes[at + 4] = b'2';
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(with(&path, &[server]).0, Some(1));
}

#[test]
#[ignore = "needs python3; `.ci/run` runs it"]
fn the_second_verifier_agrees_on_whole_flipped_and_cut_off_logs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    let store = samples::memory_store();
    samples::append_all(&store, samples::every_variant());
    samples::append_all(&store, (1..=10).map(samples::intent));
    let mut bytes = Vec::new();
    export(&entries(&store.begin_read().unwrap()).unwrap(), &mut bytes).unwrap();
    both_agree(&path, &bytes);
    for at in (0..bytes.len()).step_by(307) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        both_agree(&path, &flipped);
    }
    for length in (17..bytes.len()).step_by(997) {
        both_agree(&path, &bytes[..length]);
    }
}

/// Both streams of a log whose beginning was trimmed, and its bundles, in which the joint is whole
/// or told.
#[test]
#[ignore = "needs python3; `.ci/run` runs it"]
fn the_second_verifier_agrees_on_a_trimmed_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    let [entries, stream] =
        ["trimmed.log", "trimmed-stream.log"].map(|name| std::fs::read(golden(name)).unwrap());
    let bundles = [Wanted::default(), hiding_ids()].map(|wanted| bundle_of(&stream, wanted));
    for bytes in [&entries, &stream, &bundles[0], &bundles[1]] {
        both_agree(&path, bytes);
        let said = run(&path).1;
        assert!(said.contains("entries up to 5 were trimmed"), "{said}");
    }
    // The checks of a baseline are the last ones, so the whole stream is read before they fail.
    for at in (0..entries.len()).step_by(31) {
        let mut flipped = entries.clone();
        flipped[at] ^= 0x10;
        both_agree(&path, &flipped);
    }
}

#[test]
#[ignore = "needs python3; `.ci/run` runs it"]
fn the_second_verifier_agrees_on_whole_flipped_and_cut_off_bundles() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.bundle");
    for wanted in [Wanted::default(), hiding_ids()] {
        let is_told = wanted.hides_ids;
        let bytes = bundle_of(&bundle::log(), wanted);
        both_agree(&path, &bytes);
        let said = run(&path).1;
        assert!(said.contains("items left out\n"), "{said}");
        assert_eq!(said.contains("claimed: only their places"), is_told, "{said}");
        for at in (0..bytes.len()).step_by(307) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            std::fs::write(&path, &flipped).unwrap();
            // What is told of an entry is not in its hash. The one that reads it names the entry,
            // the other one the sum at the end.
            assert_eq!(run(&path).0, Some(1), "byte {at}");
        }
        for length in (17..bytes.len()).step_by(997) {
            both_agree(&path, &bytes[..length]);
        }
    }
}
