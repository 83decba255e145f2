//! Which items an erasure takes, over the log that has every variant of an entry.

use std::collections::BTreeSet;

use fieldbook_core::entry::{Entry, ErasedRecords};
use fieldbook_core::log::{commit, copy_without, entries, entries_from, verify};
use fieldbook_core::{RecordKey, Seq};

use super::samples;

/// Returns the log of every variant without the values of some records, and how many items went.
fn without(records: &ErasedRecords) -> (Vec<Entry>, u64) {
    let (whole, copy) = (samples::memory_store(), samples::memory_store());
    samples::append_all(&whole, samples::every_variant());
    let log = entries(&whole.begin_read().unwrap()).unwrap();
    let transaction = copy.begin_write().unwrap();
    let erased = copy_without(&log, &transaction, records).unwrap();
    commit(transaction).unwrap();
    let copied = entries(&copy.begin_read().unwrap()).unwrap();
    assert_eq!(verify(&copied, |_| {}).unwrap().head, verify(&log, |_| {}).unwrap().head);
    (entries_from(&copied, Seq::ZERO).collect::<Result<_, _>>().unwrap(), erased)
}

fn values(log: &[Entry]) -> Vec<String> {
    let items = log.iter().flat_map(|entry| &entry.items);
    items.filter_map(|item| Some(String::from_utf8_lossy(item.bytes()?).into_owned())).collect()
}

fn key(text: &str) -> RecordKey {
    text.parse().unwrap()
}

/// An item that no rule assigns to a record would leave the device in spite of an erasure. A new
/// variant with an item fails here until the log of every variant has it.
#[test]
fn every_item_of_every_variant_goes_with_the_records_except_the_declarations() {
    let all = values(&without(&ErasedRecords::only([])).0).len() as u64;
    let (log, erased) = without(&ErasedRecords::except([]));
    assert_eq!(
        values(&log),
        [r#"{"entities":{"lead":{"references":[{"field":"company","entity":"company"}]}}}"#]
    );
    assert_eq!(erased, all - 1);
}

/// What one record's erasure takes, and what of other records stays.
#[test]
fn an_erasure_of_one_record_takes_what_names_it_and_the_messages_of_its_units() {
    let (log, _) = without(&ErasedRecords::only([key("lead/update")]));
    let left: BTreeSet<_> = values(&log).into_iter().collect();
    // The frozen fields of its change in a unit, and the server's message about the unit, are gone.
    let frozen = &log[3];
    assert!(frozen.items.iter().all(|item| item.bytes().is_none()), "{frozen:?}");
    let answer = &log[4];
    assert_eq!(answer.item(0), None, "the message");
    assert_eq!(answer.item(1), Some(br#"{"name":"Ann"}"#.as_slice()), "another record's image");
    // A decision about another record keeps its values.
    assert!(left.contains(r#"{"stage":"hot"}"#), "{left:?}");
    let (log, _) = without(&ErasedRecords::only([key("lead/42")]));
    let left = values(&log);
    assert!(!left.contains(&r#"{"stage":"won"}"#.to_owned()), "its conflict: {left:?}");
    assert!(left.contains(&r#"{"key":"OrderLine/7","version":7}"#.to_owned()), "{left:?}");
}
