//! The fuzz targets over the corpora in `fuzz/corpus`, and over simple changes of them, without
//! libFuzzer.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use fieldbook_sim::dice::Dice;
use fieldbook_sim::fuzz::{TARGETS, drawn};

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = format!("{}/../../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

#[test]
fn every_target_holds_over_its_corpus() {
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name} has no corpus");
        corpus.iter().for_each(|data| target(data));
    }
}

#[test]
fn every_target_holds_over_changed_inputs() {
    for (name, target) in TARGETS {
        let mut dice = Dice::new(1);
        for data in corpus(name) {
            for _ in 0..6 {
                let mut changed = data.clone();
                for _ in 0..dice.between(1, 4) {
                    let at = dice.index(changed.len());
                    if let Some(byte) = changed.get_mut(at) {
                        *byte = u8::try_from(dice.below(256)).unwrap();
                    }
                }
                changed.truncate(changed.len() - dice.index(changed.len() / 4 + 1));
                target(&changed);
            }
        }
    }
}

/// The test draws a few inputs. The program `inputs` draws any number.
#[test]
fn every_target_holds_over_drawn_inputs() {
    for (name, target) in TARGETS {
        for seed in 0..20 {
            let data = drawn(seed);
            let failed = std::panic::catch_unwind(|| target(&data)).is_err();
            assert!(!failed, "{name} fails with seed {seed}: {data:?}");
        }
    }
}
