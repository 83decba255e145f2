//! A search without any table: it scores every record, by the words of the guide.

use std::collections::BTreeMap;

use fieldbook_core::search::{Fit, SearchRule, asked_words, is_near, mistakes_of, words};
use serde_json::{Map, Value};

/// A way in which a word can fit.
type Way<'a> = &'a dyn Fn(&str) -> Option<Fit>;

/// Returns the ids of the records that have all asked words, with their points: most points first,
/// and equal points in the order of ids.
pub(crate) fn scored<'r>(
    rule: &SearchRule,
    records: impl IntoIterator<Item = (&'r str, &'r Map<String, Value>)>,
    asked: &str,
) -> Vec<(String, u64)> {
    let records = records.into_iter().map(|(id, image)| (id.to_owned(), words_of(rule, image)));
    let all: BTreeMap<String, Vec<(u64, String)>> = records.collect();
    let mut points: Option<BTreeMap<String, u64>> = None;
    for word in &asked_words(asked) {
        let hits = hits(word, &all);
        points = Some(match points {
            None => hits,
            Some(before) => {
                let both =
                    hits.into_iter().filter_map(|(id, more)| Some((before.get(&id)? + more, id)));
                both.map(|(points, id)| (id, points)).collect()
            }
        });
    }
    let mut found: Vec<_> = points.unwrap_or_default().into_iter().collect();
    found.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    found
}

/// Returns the words of a record, each with the weight of its field.
fn words_of(rule: &SearchRule, image: &Map<String, Value>) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    for (name, weight) in rule.fields() {
        let texts = match image.get(name).unwrap_or(&Value::Null) {
            Value::Array(items) => items.clone(),
            value => vec![value.clone()],
        };
        for text in texts {
            let text = match text {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                _ => continue,
            };
            found.extend(words(&text).into_iter().map(|word| (u64::from(*weight), word.text)));
        }
    }
    found
}

/// Returns the records of one asked word, by the first way that finds any.
fn hits(asked: &str, all: &BTreeMap<String, Vec<(u64, String)>>) -> BTreeMap<String, u64> {
    let letters: Vec<char> = asked.chars().collect();
    let near = |found: &str| {
        let most = mistakes_of(asked);
        (most > 0 && is_near(&letters, found, most)).then_some(Fit::Mistake)
    };
    let ways: [Way<'_>; 3] = [
        &|found| Fit::of(asked, found),
        &|found| near(found).filter(|_| found.chars().next() == asked.chars().next()),
        &near,
    ];
    let mut hits = ways.iter().map(|fit| {
        let best = |found: &Vec<(u64, String)>| {
            found.iter().filter_map(|(weight, found)| Some(fit(found)?.points() * weight)).max()
        };
        all.iter().filter_map(|(id, found)| Some((id.clone(), best(found)?))).collect()
    });
    hits.find(|hits: &BTreeMap<String, u64>| !hits.is_empty()).unwrap_or_default()
}
