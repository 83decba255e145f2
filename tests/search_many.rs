//! Search in thousands of records: the fold has several parts, frequent words have rows of their own,
//! and what a search finds is still what looking at every record finds.
#![cfg(feature = "search")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on panics"
)]

mod common;
#[path = "common/scored.rs"]
mod scored;
#[path = "common/searched.rs"]
mod searched;

use std::collections::BTreeSet;

use common::{assert_sound, fields, key};
use fieldbook::host::SeededRandomness;
use fieldbook::{Book, Mutation};
use fieldbook_core::Randomness;
use scored::scored;
use searched::{in_memory, lead, rule};
use serde_json::{Map, Value, json};

fn found(book: &Book, asked: &str) -> Vec<(String, u64)> {
    let hits = book.records().search(&lead(), asked).limit(usize::MAX).run().unwrap();
    hits.into_iter().map(|hit| (hit.row.id.as_str().to_owned(), hit.points)).collect()
}

/// Finds records by looking at every one of them.
fn looked_at(book: &Book, asked: &str) -> Vec<(String, u64)> {
    let records = book.records().list(&lead(), None, usize::MAX).unwrap();
    let images: Vec<(&str, Map<String, Value>)> = records
        .iter()
        .map(|record| (record.id, serde_json::from_str(record.json).unwrap()))
        .collect();
    scored(&rule(), images.iter().map(|(id, image)| (*id, image)), asked)
}

/// Draws an index below a bound.
fn below(random: &mut SeededRandomness, bound: usize) -> usize {
    usize::try_from(random.below(bound as u64)).unwrap()
}

/// Few names and many numbers: words that thousands of records have, and words of a single one.
fn drawn(random: &mut SeededRandomness) -> Value {
    const NAMES: [&str; 9] =
        ["hanna", "hana", "anna", "schmidt", "Schmitt", "Müller", "jakarta", "東京", "kovacs"];
    let mut name = || NAMES[below(random, NAMES.len())];
    let (first, last, company) = (name(), name(), name());
    let number = random.below(1_000_000);
    json!({"name": format!("{first} {last}"), "company": format!("{company} {number:x}"),
        "phones": [format!("+62 8{:06}", random.below(1_000_000))]})
}

/// Draws what is asked for: a whole word of a drawn record, a beginning, a part or a mistake.
fn asked_of(random: &mut SeededRandomness) -> String {
    let image = drawn(random);
    let text = [&image["name"], &image["company"], &image["phones"][0]];
    let text = text[below(random, 3)].as_str().unwrap();
    let letters: Vec<char> = text.chars().collect();
    let from = below(random, 3);
    let to = letters.len() - (below(random, 3)).min(letters.len() - from - 1);
    let mut asked: Vec<char> = letters[from..to].to_vec();
    if random.below(3) == 0 && asked.len() > 4 {
        asked.swap(2, 3);
    }
    asked.into_iter().collect()
}

/// A check compares the words that are on file at that moment and drops them, so the fold begins
/// anew.
#[test]
fn a_fold_beside_writes_and_checks_ends_with_what_looking_at_every_record_finds() {
    let mut random = SeededRandomness::from_number(17);
    let book = in_memory();
    let keys = (0..3_000).map(|number| key(&format!("lead/{number:05}")));
    let made: Vec<_> = keys.map(|key| Mutation::create(key, fields(drawn(&mut random)))).collect();
    book.import(made).unwrap();
    std::thread::scope(|scope| {
        let folds = scope.spawn(|| book.fold_search().unwrap());
        let mut looks = 12;
        while !folds.is_finished() {
            let key = key(&format!("lead/{:05}", random.below(3_000)));
            book.write(Mutation::update(key, fields(drawn(&mut random)))).unwrap();
            if looks > 0 && random.below(3) == 0 {
                looks -= 1;
                assert_sound(&book);
            }
        }
    });
    for asked in ["hanna", "schm", "+62 8"] {
        assert_eq!(found(&book, asked), looked_at(&book, asked), "{asked}");
    }
    assert_sound(&book);
}

/// `FIELDBOOK_SEARCH_QUERIES` sets how many queries are drawn.
#[test]
fn a_search_in_many_records_finds_what_looking_at_every_record_finds() {
    let queries = std::env::var("FIELDBOOK_SEARCH_QUERIES").ok();
    let queries: usize = queries.map_or(25, |queries| queries.parse().unwrap());
    let mut random = SeededRandomness::from_number(16);
    let book = in_memory();
    let made = |range: std::ops::Range<usize>, random: &mut SeededRandomness| {
        let keys = range.map(|number| key(&format!("lead/{:05}", number * 7_919 % 10_000)));
        let made: Vec<_> = keys.map(|key| Mutation::create(key, fields(drawn(random)))).collect();
        book.import(made).unwrap();
    };
    // Several slices of the fold in the order of ids, then records between them.
    made(0..4_500, &mut random);
    book.fold_search().unwrap();
    made(4_500..5_500, &mut random);
    let mut there: Vec<_> = (0..5_500).map(|number| number * 7_919 % 10_000).collect();
    for number in 0..queries {
        match random.below(3) {
            0 => {
                let some: Vec<_> = (0..random.below(60))
                    .map(|_| there.swap_remove(below(&mut random, there.len())))
                    .collect();
                let gone = some.iter().map(|id| Mutation::delete(key(&format!("lead/{id:05}"))));
                book.import(gone.collect()).unwrap();
            }
            1 => {
                let some: BTreeSet<_> = (0..random.below(300))
                    .map(|_| there[below(&mut random, there.len())])
                    .collect();
                let changes = some.iter().map(|id| {
                    Mutation::update(key(&format!("lead/{id:05}")), fields(drawn(&mut random)))
                });
                book.import(changes.collect()).unwrap();
            }
            _ => {}
        }
        if number % 20 == 19 {
            book.fold_search().unwrap();
            assert_sound(&book);
        }
        let asked = asked_of(&mut random);
        let all = looked_at(&book, &asked);
        assert_eq!(found(&book, &asked), all, "{asked}");
        let best = book.records().search(&lead(), &asked).limit(7).run().unwrap();
        let best: Vec<_> = best.iter().map(|hit| hit.row.id.as_str().to_owned()).collect();
        let wanted: Vec<_> = all.into_iter().take(7).map(|(id, _)| id).collect();
        assert_eq!(best, wanted, "the best of {asked}");
    }
}

/// Frequent words have rows of their own, which are cut as they grow and go when they shrink.
#[test]
fn a_removed_word_leaves_no_row_behind() {
    let book = in_memory();
    let id = |number: usize| key(&format!("lead/{number:04}"));
    let image = |name: &str, number: usize| fields(json!({"name": format!("{name} n{number}")}));
    let all = 0..2_500;
    book.import(
        all.clone().map(|number| Mutation::create(id(number), image("ann", number))).collect(),
    )
    .unwrap();
    book.fold_search().unwrap();
    assert_eq!(found(&book, "ann").len(), 2_500);
    let renamed = all.clone().filter(|number| number % 40 > 0);
    book.import(renamed.map(|number| Mutation::update(id(number), image("zoe", number))).collect())
        .unwrap();
    book.fold_search().unwrap();
    assert_eq!((found(&book, "ann").len(), found(&book, "zoe").len()), (63, 2_437));
    assert_sound(&book);
    book.fold_search().unwrap();
    book.import(all.map(|number| Mutation::delete(id(number))).collect()).unwrap();
    book.fold_search().unwrap();
    assert_eq!(
        (found(&book, "ann"), found(&book, "zoe"), found(&book, "n7")),
        (vec![], vec![], vec![])
    );
    assert_sound(&book);
}
