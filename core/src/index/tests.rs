use std::ops::Bound;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::fields::Fields;
use crate::names::{EntityType, RecordKey};

fn lead() -> EntityType {
    EntityType::parse("lead").unwrap()
}

fn image(value: Value) -> String {
    Fields::from_value(value).unwrap().to_json().as_str().to_owned()
}

fn keys(rule: &IndexRule, of: &str, value: Value) -> Vec<Vec<u8>> {
    EntityIndexes::new([rule.clone()]).keys(&lead(), of, &image(value)).unwrap()
}

/// Returns the number of records whose `n` equals a value, by the keys.
fn found(values: &[Value], wanted: &Value) -> usize {
    let (rule, lead, mut conditions) = (IndexRule::from("n"), lead(), Conditions::default());
    conditions.equal(wanted.clone()).unwrap();
    let span = Span::new(&rule, &lead, &conditions).unwrap();
    let (from, to) = span.bounds();
    let keys = values.iter().flat_map(|value| keys(&rule, "1", json!({ "n": value })));
    keys.filter(|key| from <= key.as_slice() && key.as_slice() < to).count()
}

/// Integers beyond 2⁵³ once fell together.
#[test]
fn every_whole_number_of_64_bits_has_a_place_of_its_own() {
    let two_53 = 1_u64 << 53;
    let numbers: Vec<_> = [json!(i64::MIN), json!(i64::MIN + 1), json!(-1e300)]
        .into_iter()
        .chain((two_53 - 1..=two_53 + 3).map(|number| json!(number)))
        .chain([json!(i64::MAX), json!(u64::MAX - 1), json!(u64::MAX), json!(1e300)])
        .collect();
    for number in &numbers {
        assert_eq!(found(&numbers, number), 1, "{number}");
    }
}

/// −0.0 was once not found as 0.
#[test]
fn zero_is_zero_and_one_is_one_point_zero() {
    let zeros = [json!(0), json!(0.0), json!(-0.0)];
    assert!(zeros.iter().all(|zero| found(&zeros, zero) == 3));
    assert_eq!(found(&[json!(1), json!(1.0)], &json!(1)), 2);
}

/// A text of any length was once a key.
#[test]
fn a_key_is_short_whatever_the_text() {
    let rule = IndexRule::from("n");
    for text in ["a".repeat(1 << 19), "\0".repeat(1 << 17), "é".repeat(1 << 18)] {
        let keys = keys(&rule, "1", json!({ "n": text }));
        assert!(keys[0].len() <= 300, "{} bytes", keys[0].len());
    }
}

#[test]
fn a_list_has_an_entry_for_each_different_element() {
    let rule = IndexRule::new("by_tag").asc(IndexPart::new("tags").each());
    assert_eq!(keys(&rule, "1", json!({"tags": ["b", "a", "b", null, ["c"]]})).len(), 2);
    assert_eq!(keys(&rule, "1", json!({"tags": "a"})), keys(&rule, "1", json!({"tags": ["a"]})));
    // Without an element it is among those without a value.
    assert_eq!(keys(&rule, "1", json!({"tags": []})), keys(&rule, "1", json!({})));
    assert_eq!(keys(&rule.only_if_present(), "1", json!({"tags": []})).len(), 0);
}

#[test]
fn what_cannot_be_an_index_is_refused() {
    let two = IndexRule::new("x").asc(IndexPart::new("a").each()).asc(IndexPart::new("b").each());
    for (rule, fault) in [
        (IndexRule::new("").asc("a"), InvalidIndex::Name),
        (IndexRule::new("a\0").asc("a"), InvalidIndex::Name),
        (IndexRule::new("x"), InvalidIndex::Parts),
        (IndexRule::new("x").asc("a").asc("b").asc("c").asc("d").asc("e"), InvalidIndex::Parts),
        (IndexRule::new("x").asc(""), InvalidIndex::Field),
        (two, InvalidIndex::Each),
    ] {
        assert_eq!(rule.check(), Err(fault));
    }
    let twice = EntityIndexes::new([IndexRule::from("a"), IndexRule::new("a").desc("b")]);
    assert_eq!(twice.check(), Err(InvalidIndex::Twice));
}

#[test]
fn a_place_is_read_back_and_is_of_its_index_only() {
    let (rule, other) = (IndexRule::from("n"), IndexRule::new("n").desc("n").only_if_present());
    let key = keys(&rule, "1", json!({"n": 7})).remove(0);
    let text = serde_json::to_string(&IndexPlace::new(&rule, &key)).unwrap();
    let place: IndexPlace = serde_json::from_str(&text).unwrap();
    assert_eq!(place.key(&rule, &lead()), Some(key.as_slice()));
    assert_eq!(place.key(&other, &lead()), None, "an index of another shape");
    assert_eq!(place.key(&rule, &EntityType::parse("note").unwrap()), None);
    for wrong in ["\"\"", "\"AAAA\"", "\"?\"", "7"] {
        assert!(serde_json::from_str::<IndexPlace>(wrong).is_err(), "{wrong}");
    }
}

fn number() -> impl Strategy<Value = Value> {
    let near = (-3_i64..=3).prop_flat_map(|by| {
        let at = prop::sample::select(vec![0, 1 << 53, -(1 << 53), i64::MAX - 3, i64::MIN + 3]);
        at.prop_map(move |at| at + by)
    });
    prop_oneof![
        near.clone().prop_map(|number| json!(number)),
        #[expect(clippy::cast_precision_loss, reason = "the nearest double is wanted")]
        near.prop_map(|number| json!(number as f64)),
        (0..4_u64).prop_map(|by| json!(u64::MAX - by)),
        any::<i64>().prop_map(|number| json!(number)),
        any::<f64>()
            .prop_filter("JSON has finite numbers", |n| n.is_finite())
            .prop_map(|n| json!(n)),
        (-8..8_i32).prop_map(|n| json!(f64::from(n) / 4.0)),
        Just(json!(-0.0)),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ab\0\u{1}ÿÉé]{0,3}",
        // At the place where a text is cut.
        (250..260_usize, "[ab\0]{0,3}").prop_map(|(length, end)| "a".repeat(length) + &end),
    ]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(|value| json!(value)),
        number(),
        text().prop_map(|text| json!(text)),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => scalar(),
        1 => prop::collection::vec(scalar(), 0..3).prop_map(|items| json!(items)),
        1 => Just(json!({"a": 1})),
    ]
}

fn record() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[xyz]", value(), 0..4).prop_map(|fields| {
        let present = fields.into_iter().filter(|(_, value)| !value.is_null());
        Value::Object(present.collect::<Map<_, _>>())
    })
}

prop_compose! {
    fn part(each: bool)(field in "[xyz]", descending: bool, caseless: bool, is_each: bool) -> IndexPart {
        IndexPart { field, descending, caseless, each: each && is_each }
    }
}

prop_compose! {
    fn rule()(first in part(true), others in prop::collection::vec(part(false), 0..3), only: bool) -> IndexRule {
        let parts = [vec![first], others].concat();
        IndexRule { name: "list".to_owned(), parts, only_if_present: only }
    }
}

/// The entries of a record as values, by the words of the documentation.
fn entries(rule: &IndexRule, record: &Value) -> Vec<Vec<Option<Value>>> {
    let mut rows = vec![Vec::new()];
    for part in &rule.parts {
        let scalars = |value: &Value| {
            Some(value.clone())
                .filter(|value| !value.is_null() && !value.is_array() && !value.is_object())
        };
        let mut values: Vec<_> = match record.get(&part.field) {
            Some(Value::Array(items)) if part.each => {
                items.iter().filter_map(scalars).map(Some).collect()
            }
            value => vec![value.and_then(scalars)],
        };
        if values.is_empty() {
            values.push(None);
        }
        let with = |row: &Vec<Option<Value>>| {
            values
                .iter()
                .map(|value| [row.clone(), vec![value.clone()]].concat())
                .collect::<Vec<_>>()
        };
        rows = rows.iter().flat_map(with).collect();
    }
    rows.retain(|row| !rule.only_if_present || row.iter().all(Option::is_some));
    rows
}

/// Compares two entries part by part. Texts that were cut at the same place count as equal.
fn compare_rows(
    rule: &IndexRule,
    one: &[Option<Value>],
    other: &[Option<Value>],
) -> std::cmp::Ordering {
    let pairs = rule.parts.iter().zip(one.iter().zip(other));
    pairs.fold(std::cmp::Ordering::Equal, |order, (part, (one, other))| {
        let (one, other) = (one.as_ref(), other.as_ref());
        let cut = |value: Option<&Value>| {
            let text = value.and_then(Value::as_str)?;
            let text = if part.caseless { without_case(text) } else { text.into() };
            let bytes = text.replace('\0', "\0\u{1}").into_bytes();
            let beginning = bytes.get(..limits::INDEX_TEXT_BYTES)?.to_vec();
            (bytes.len() > limits::INDEX_TEXT_BYTES).then_some(beginning)
        };
        let are_one = cut(one).is_some() && cut(one) == cut(other);
        order.then(if are_one { std::cmp::Ordering::Equal } else { compare(part, one, other) })
    })
}

fn key_of(rule: &IndexRule, row: &[Option<Value>], of: &str) -> Vec<u8> {
    rule.key(&lead(), of, &row.iter().map(Option::as_ref).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// The law of the order.
    #[test]
    fn the_order_of_keys_is_the_order_of_values_and_then_of_ids(
        rule in rule(), one in record(), other in record(), ids in ("[a-c!~]{1,3}", "[a-c!~]{1,3}"),
    ) {
        for one in entries(&rule, &one) {
            for other in entries(&rule, &other) {
                let keys = (key_of(&rule, &one, &ids.0), key_of(&rule, &other, &ids.1));
                let order = compare_rows(&rule, &one, &other).then(ids.0.cmp(&ids.1));
                prop_assert_eq!(keys.0.cmp(&keys.1), order);
            }
        }
    }

    #[test]
    fn a_record_has_the_keys_of_its_entries_and_each_has_its_id(rule in rule(), record in record(), of in "[a-c!~]{1,3}") {
        let mut wanted: Vec<_> = entries(&rule, &record).iter().map(|row| key_of(&rule, row, &of)).collect();
        wanted.sort();
        wanted.dedup();
        let found = keys(&rule, &of, record);
        prop_assert_eq!(&found, &wanted);
        for key in &found {
            prop_assert_eq!(rule.id_of(&lead(), key), Some(of.as_str()));
        }
    }

    #[test]
    fn a_change_turns_the_keys_that_only_one_side_has(
        rule in rule(), before in prop::option::of(record()), after in prop::option::of(record())
    ) {
        let lead_1: RecordKey = "lead/1".parse().unwrap();
        let indexes = EntityIndexes::new([rule.clone()]);
        let text = |record: &Option<Value>| record.clone().map(image);
        let (one, other) = (text(&before), text(&after));
        let turned = indexes.turned(&lead_1, one.as_deref(), other.as_deref()).unwrap();
        let all = |record: Option<Value>| record.map_or(vec![], |it| keys(&rule, "1", it));
        let (before, after) = (all(before), all(after));
        let without = |one: &[Vec<u8>], other: &[Vec<u8>]| -> Vec<Vec<u8>> {
            one.iter().filter(|key| !other.contains(key)).cloned().collect()
        };
        prop_assert_eq!(turned.gone, without(&before, &after));
        prop_assert_eq!(turned.new, without(&after, &before));
    }

    /// The law of lists: what a span has is what a scan finds.
    #[test]
    fn a_span_has_what_a_scan_finds(
        rule in rule(),
        records in prop::collection::vec(record(), 1..6),
        equal in prop::collection::vec(scalar(), 0..3),
        pick in any::<prop::sample::Index>(),
        ends in (0..3_u8, 0..3_u8, scalar(), scalar()),
        prefix in prop::option::of(text()),
    ) {
        let mut conditions = Conditions::default();
        // Half of the time, values that a record has.
        let known = entries(&rule, pick.get(&records));
        let known = known.first().cloned().unwrap_or_default();
        for (at, drawn) in equal.iter().enumerate().take(rule.parts.len()) {
            let value = if at % 2 == 0 { known.get(at).cloned().flatten() } else { None };
            conditions.equal(value.unwrap_or_else(|| drawn.clone())).unwrap();
        }
        if let Some(prefix) = prefix {
            conditions.prefix(prefix).unwrap();
        } else {
            let bound = |kind, value: Value| match kind {
                0 => Bound::Unbounded,
                1 => Bound::Included(value),
                _ => Bound::Excluded(value),
            };
            // Bounds of two kinds are refused, and then there is no range.
            conditions.range(bound(ends.0, ends.2), bound(ends.1, ends.3)).unwrap_or_default();
        }
        let lead = lead();
        let Ok(span) = Span::new(&rule, &lead, &conditions) else {
            prop_assert!(conditions.equal.len() + usize::from(conditions.last.is_some()) > rule.parts.len());
            return Ok(());
        };
        for record in &records {
            let text = image(record.clone());
            let (from, to) = span.bounds();
            let mut found = Vec::new();
            for key in keys(&rule, "1", record.clone()) {
                let within = from <= key.as_slice() && key.as_slice() < to;
                if within && (!span.is_rough() || span.holds(&key, "1", &text).unwrap()) {
                    found.push(key);
                }
            }
            let wanted = entries(&rule, record).into_iter().filter(|row| fulfils(&rule, &conditions, row));
            let mut wanted: Vec<_> = wanted.map(|row| key_of(&rule, &row, "1")).collect();
            wanted.sort();
            wanted.dedup();
            prop_assert_eq!(found, wanted);
        }
    }
}

/// Whether an entry fulfils conditions, by the words of the documentation.
fn fulfils(rule: &IndexRule, conditions: &Conditions, row: &[Option<Value>]) -> bool {
    let at = |part: usize, value: &Value| {
        let up = IndexPart { descending: false, ..rule.parts[part].clone() };
        compare(&up, row[part].as_ref(), Some(value))
    };
    let equal = conditions.equal.iter().enumerate().all(|(part, value)| at(part, value).is_eq());
    let part = conditions.equal.len();
    let is_kind = |bound: &Value| {
        row[part].as_ref().is_some_and(|value| {
            value.is_string() == bound.is_string() && value.is_number() == bound.is_number()
        })
    };
    equal
        && match &conditions.last {
            None => true,
            Some(span::Last::Prefix(prefix)) => {
                let without_case = |text: &str| {
                    if rule.parts[part].caseless {
                        without_case(text).into_owned()
                    } else {
                        text.to_owned()
                    }
                };
                let text = row[part].as_ref().and_then(Value::as_str);
                text.is_some_and(|text| without_case(text).starts_with(&without_case(prefix)))
            }
            Some(span::Last::Range(from, to)) => {
                let from = match from {
                    Bound::Unbounded => true,
                    Bound::Included(value) => is_kind(value) && at(part, value).is_ge(),
                    Bound::Excluded(value) => is_kind(value) && at(part, value).is_gt(),
                };
                let to = match to {
                    Bound::Unbounded => true,
                    Bound::Included(value) => is_kind(value) && at(part, value).is_le(),
                    Bound::Excluded(value) => is_kind(value) && at(part, value).is_lt(),
                };
                from && to
            }
        }
}
