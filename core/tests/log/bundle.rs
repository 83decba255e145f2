//! Bundles as streams: what verifies, what is cut off, and what is no bundle.

use std::path::Path;

use fieldbook_core::SeededRandomness;
use fieldbook_core::log::{
    bundle, entries, export, import, look_at_export, read_head, verify_export,
};
use fieldbook_core::redaction::{Redactor, Wanted};

use super::samples;

/// Returns a log of every variant, exported.
pub(crate) fn log() -> Vec<u8> {
    let store = samples::memory_store();
    samples::append_all(&store, samples::every_variant());
    samples::append_all(&store, (1..=10).map(samples::intent));
    let mut bytes = Vec::new();
    export(&entries(&store.begin_read().unwrap()).unwrap(), &mut bytes).unwrap();
    bytes
}

/// Returns the bundle of a log.
pub(crate) fn bundle_of(log: &[u8], wanted: Wanted) -> Vec<u8> {
    let (mut redactor, mut bytes) = (Redactor::new(wanted), Vec::new());
    let mut random = SeededRandomness::from_number(3);
    let made = bundle(|| Ok(log), &mut redactor, "tests", &mut random, &mut bytes).unwrap();
    assert_eq!(made, bytes.len() as u64);
    bytes
}

pub(crate) fn hiding_ids() -> Wanted {
    Wanted { hides_ids: true, ..Wanted::default() }
}

fn whole() -> Wanted {
    Wanted { whole: true, ..Wanted::default() }
}

#[test]
fn a_bundle_verifies_up_to_the_head_of_its_log() {
    let log = log();
    let original = verify_export(&mut log.as_slice()).unwrap();
    for wanted in [Wanted::default(), hiding_ids(), whole()] {
        let is_told = wanted.hides_ids;
        let bytes = bundle_of(&log, wanted.clone());
        let verified = verify_export(&mut bytes.as_slice()).unwrap();
        assert_eq!(verified.head.unwrap().hash, original.head.unwrap().hash);
        assert_eq!(verified.entries, original.entries);
        assert_eq!(verified.hidden_items > 0, !wanted.whole);
        assert_eq!(verified.told_entries, if is_told { original.entries } else { 0 });
        let look = look_at_export(&mut bytes.as_slice());
        assert_eq!(look.told.len(), usize::from(is_told), "one range, or none");
        // It is read in place: as a log in memory.
        let store = samples::memory_store();
        import(&mut bytes.as_slice(), &store).unwrap();
        let read = read_head(&entries(&store.begin_read().unwrap()).unwrap()).unwrap();
        assert_eq!(read.unwrap().hash, original.head.unwrap().hash);
    }
    assert_eq!(look_at_export(&mut log.as_slice()).redaction, None);
}

#[test]
fn a_bundle_of_everything_gives_the_log_back() {
    let log = log();
    let store = samples::memory_store();
    import(&mut bundle_of(&log, whole()).as_slice(), &store).unwrap();
    let mut again = Vec::new();
    export(&entries(&store.begin_read().unwrap()).unwrap(), &mut again).unwrap();
    assert!(again == log, "byte for byte");
}

/// A file that was cut off between two entries looked like a shorter one.
#[test]
fn a_bundle_that_is_cut_off_anywhere_says_so() {
    let log = log();
    for bytes in [bundle_of(&log, Wanted::default()), bundle_of(&log, hiding_ids())] {
        for length in (17..bytes.len()).step_by(7).chain([bytes.len() - 37, bytes.len() - 1]) {
            let damage = verify_export(&mut &bytes[..length]).unwrap_err();
            let source = std::error::Error::source(&damage.kind).map(ToString::to_string);
            assert!(source.unwrap_or_default().contains("cut off"), "{length}: {damage:?}");
        }
    }
}

#[test]
fn no_byte_of_a_bundle_changes_unnoticed() {
    let log = log();
    for bytes in [bundle_of(&log, Wanted::default()), bundle_of(&log, hiding_ids())] {
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(verify_export(&mut flipped.as_slice()).is_err(), "byte {at}");
        }
    }
}

#[test]
fn a_log_leaves_nothing_out_and_no_bundle_is_made_of_a_bundle() {
    let bytes = bundle_of(&log(), Wanted::default());
    let at = bytes.windows(8).position(|part| part == b"\"bundle\"").unwrap();
    // The cover of a log, as long as the former one.
    let mut renamed = bytes.clone();
    renamed[at..at + 8].copy_from_slice(b"\"log\"   ");
    let damage = verify_export(&mut renamed.as_slice()).unwrap_err();
    assert!(format!("{damage:?}").contains("OnlyInBundle"), "{damage:?}");
    let mut redactor = Redactor::new(Wanted::default());
    let mut random = SeededRandomness::from_number(3);
    let refused =
        bundle(|| Ok(bytes.as_slice()), &mut redactor, "tests", &mut random, &mut Vec::new());
    assert!(format!("{refused:?}").contains("OnlyInBundle"), "{refused:?}");
}

/// Bundles that were made are read for ever.
#[test]
fn the_golden_bundles_are_made_and_read() {
    let golden = |name: &str| {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/format-2").join(name)
    };
    let log = std::fs::read(golden("every-variant.log")).unwrap();
    let original = verify_export(&mut log.as_slice()).unwrap();
    let names = ["every-variant.bundle", "every-variant-ids-hidden.bundle"];
    for (name, wanted) in names.into_iter().zip([Wanted::default(), hiding_ids()]) {
        let made = bundle_of(&log, wanted);
        if std::env::var_os("FIELDBOOK_WRITE_GOLDEN").is_some() {
            std::fs::write(golden(name), &made).unwrap();
        }
        let bytes = std::fs::read(golden(name)).unwrap();
        assert!(made == bytes, "{name} is made otherwise now");
        let verified = verify_export(&mut bytes.as_slice()).unwrap();
        assert_eq!(verified.head.unwrap().hash, original.head.unwrap().hash, "{name}");
    }
}
