//! Each sentence about the join, on one row; then its laws.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::limits;

fn stamp(at: u64) -> EditStamp {
    EditStamp { edited_at: Hlc::from_bits(at), op: OpId::from_bytes(u128::from(at).to_be_bytes()) }
}

fn change(kind: OpKind, at: u64, older: &[(&str, u64)], fields: &str) -> UnitChange {
    let write = |(name, at): &(&str, u64)| {
        let EditStamp { edited_at, op } = stamp(*at);
        FieldWrites { edited_at, op, fields: vec![(*name).to_owned()] }
    };
    UnitChange {
        key: RecordKey::parse("lead", "1").unwrap(),
        kind,
        base: None,
        ops: vec![stamp(at).op],
        edited_at: Hlc::from_bits(at),
        older: older.iter().map(write).collect(),
        schema_version: 1,
        fields: (kind != OpKind::Delete).then(|| FieldsJson::parse(fields).unwrap()),
    }
}

fn create(at: u64, fields: &str) -> UnitChange {
    change(OpKind::Create, at, &[], fields)
}

fn update(at: u64, fields: &str) -> UnitChange {
    change(OpKind::Update, at, &[], fields)
}

fn replace(at: u64, fields: &str) -> UnitChange {
    change(OpKind::Replace, at, &[], fields)
}

fn delete(at: u64) -> UnitChange {
    change(OpKind::Delete, at, &[], "")
}

/// Joins a change with a row, and returns the new row if there is one.
fn joined(row: Option<&Row>, change: &UnitChange) -> Option<Row> {
    joined_by("ann", row, change)
}

fn joined_by(by: &str, row: Option<&Row>, change: &UnitChange) -> Option<Row> {
    let present = row.map_or(PresentState::Never, |row| {
        let place = row.place(&change.key.id);
        if PresentState::needs_row(change, &place) {
            PresentState::Row(Box::new(row.clone()))
        } else {
            PresentState::Stamp(place)
        }
    });
    let placing = Placing { version: Version::new(1), index: 0 };
    match changed(present, change, &Actor::parse(by).unwrap(), placing).unwrap() {
        Effect::Nothing { .. } => None,
        Effect::Row(row) => Some(row),
    }
}

fn after(changes: &[UnitChange]) -> Row {
    changes.iter().fold(None, |row, change| joined(row.as_ref(), change).or(row)).unwrap()
}

fn image(row: &Row) -> &str {
    row.fields.as_ref().map_or("", FieldsJson::as_str)
}

/// Returns the times of fields, as a device receives them.
fn times<const COUNT: usize>(row: &Row, names: [&str; COUNT]) -> [u64; COUNT] {
    let told = row.clone().into_change(RecordKey::parse("lead", "1").unwrap());
    names.map(|name| told.stamp_of(name).edited_at.to_bits())
}

#[test]
fn a_record_that_is_set_whole_by_one_op_lists_nothing() {
    let row = after(&[create(3, r#"{"a":1,"b":1}"#)]);
    assert_eq!((row.stamp(), &row.older, row.floor), (stamp(3), &Vec::new(), None));
    assert_eq!(times(&row, ["a", "b", "never"]), [3, 3, 0]);
}

#[test]
fn the_author_of_a_record_is_the_actor_of_its_own_stamp() {
    let author = |row: &Row| row.by.as_ref().unwrap().to_string();
    let made = joined_by("ann", None, &create(3, r#"{"a":1,"b":1}"#)).unwrap();
    assert_eq!(author(&made), "ann");
    let edited = joined_by("ben", Some(&made), &update(5, r#"{"a":2}"#)).unwrap();
    assert_eq!(author(&edited), "ben");
    // An earlier write of another field comes later: the last edit stays that of ben.
    let older = joined_by("eve", Some(&edited), &update(4, r#"{"c":1}"#)).unwrap();
    assert_eq!((author(&older), older.stamp()), ("ben".to_owned(), stamp(5)));
    let deleted = joined_by("eve", Some(&older), &delete(6)).unwrap();
    assert_eq!(author(&deleted), "eve");
}

#[test]
fn an_update_keeps_the_stamps_of_the_fields_it_leaves_alone() {
    let first = change(OpKind::Create, 3, &[("a", 1)], r#"{"a":1,"b":1,"c":1}"#);
    let row = after(&[first, update(5, r#"{"b":2}"#)]);
    assert_eq!(image(&row), r#"{"a":1,"b":2,"c":1}"#);
    assert_eq!((row.stamp(), times(&row, ["a", "b", "c"])), (stamp(5), [1, 5, 3]));
    assert_eq!(row.older.iter().map(FieldWrites::stamp).collect::<Vec<_>>(), [stamp(1), stamp(3)]);
}

#[test]
fn a_field_whose_stamp_is_not_above_the_rows_is_left_out_and_the_others_stand() {
    let row = after(&[
        create(2, r#"{"a":1,"b":1}"#),
        update(9, r#"{"a":9}"#),
        update(5, r#"{"a":5,"b":5,"c":5}"#),
    ]);
    assert_eq!(image(&row), r#"{"a":9,"b":5,"c":5}"#);
    assert_eq!((row.stamp(), times(&row, ["a", "b", "c"])), (stamp(9), [9, 5, 5]));
}

#[test]
fn a_change_of_which_nothing_stands_leaves_the_row() {
    let row = after(&[create(9, r#"{"a":1,"b":1}"#)]);
    for late in [
        update(4, r#"{"a":2,"b":null}"#),
        update(9, r#"{"a":1}"#),
        delete(8),
        replace(5, r#"{"a":2}"#),
    ] {
        assert_eq!(joined(Some(&row), &late), None, "{late:?}");
    }
}

#[test]
fn of_two_writes_at_one_time_the_greater_op_stands() {
    let write = |op: u8, value: &str| UnitChange {
        ops: vec![OpId::from_bytes([op; 16])],
        ..update(5, value)
    };
    let (one, other) = (write(1, r#"{"a":1}"#), write(2, r#"{"a":2}"#));
    let first = create(1, r#"{"a":0}"#);
    for changes in [[first.clone(), one.clone(), other.clone()], [first, other, one]] {
        assert_eq!(image(&after(&changes)), r#"{"a":2}"#);
    }
}

#[test]
fn a_field_that_was_taken_away_keeps_the_stamp_of_that() {
    let row = after(&[create(1, r#"{"a":1,"b":1}"#), update(3, r#"{"b":null}"#)]);
    // Also a field with the record's own stamp is listed, because a device could not know it
    // otherwise.
    assert_eq!(
        (image(&row), row.stamp(), times(&row, ["a", "b"])),
        (r#"{"a":1}"#, stamp(3), [1, 3])
    );
    let row = after(&[
        create(1, r#"{"a":1,"b":1}"#),
        update(3, r#"{"b":null}"#),
        update(8, r#"{"a":2}"#),
    ]);
    assert_eq!(times(&row, ["a", "b"]), [8, 3]);
    assert_eq!(joined(Some(&row), &update(2, r#"{"b":2}"#)), None);
    assert_eq!(image(&joined(Some(&row), &update(4, r#"{"b":2}"#)).unwrap()), r#"{"a":2,"b":2}"#);
}

#[test]
fn what_is_forgotten_of_fields_that_were_taken_away_raises_the_floor() {
    let mut changes = vec![create(1, r#"{"a":1}"#)];
    for number in 0..80 {
        changes.push(update(number + 2, &format!(r#"{{"gone{number}":null}}"#)));
    }
    let row = after(&changes);
    let listed: Vec<_> = row.older.iter().flat_map(|write| &write.fields).collect();
    let removed = listed.iter().filter(|name| name.starts_with("gone")).count();
    assert_eq!((removed, row.floor), (limits::REMOVED_STAMPS, Some(stamp(17))));
    assert_eq!(
        times(&row, ["gone79", "gone16", "gone15", "gone0", "never", "a"]),
        [81, 18, 17, 17, 17, 1]
    );
    // The floor never decreases, and no existing field is below it.
    let row = joined(Some(&row), &update(100, r#"{"gone79":1,"gone78":1}"#)).unwrap();
    assert_eq!((row.floor, times(&row, ["a"])), (Some(stamp(17)), [1]));
    assert_eq!(joined(Some(&row), &update(17, r#"{"unknown":1}"#)), None);
}

#[test]
fn a_hundred_fields_that_one_op_takes_away_are_known_by_the_floor_alone() {
    let fields =
        |value: &str| (0..100).map(|n| format!(r#""f{n}":{value}"#)).collect::<Vec<_>>().join(",");
    let row = after(&[
        create(1, &format!("{{{}}}", fields("1"))),
        update(5, &format!("{{{}}}", fields("null"))),
    ]);
    assert_eq!((image(&row), &row.older, row.floor), ("{}", &Vec::new(), Some(stamp(5))));
}

#[test]
fn a_replace_writes_its_fields_and_null_for_every_other_by_the_same_comparison() {
    let before = [
        create(1, r#"{"a":1,"b":1,"c":1}"#),
        update(9, r#"{"b":9}"#),
        update(2, r#"{"gone":null}"#),
    ];
    let row = joined(Some(&after(&before)), &replace(5, r#"{"a":5,"d":5}"#)).unwrap();
    assert_eq!(image(&row), r#"{"a":5,"b":9,"d":5}"#, "b was written later than the replace");
    assert_eq!(times(&row, ["a", "b", "c", "d", "gone"]), [5, 9, 5, 5, 5]);
    // A field whose stamp is above a deletion of the same author is removed with that stamp.
    let row = joined(
        Some(&after(&[create(1, r#"{"a":1,"b":1}"#)])),
        &change(OpKind::Replace, 7, &[("b", 4)], r#"{"a":7}"#),
    );
    assert_eq!(times(&row.unwrap(), ["a", "b"]), [7, 4]);
}

#[test]
fn a_create_of_a_record_that_is_there_writes_its_fields_only() {
    let row = after(&[create(1, r#"{"a":1,"b":1}"#), create(3, r#"{"b":3,"c":3}"#)]);
    assert_eq!((image(&row), times(&row, ["a", "b", "c"])), (r#"{"a":1,"b":3,"c":3}"#, [1, 3, 3]));
}

#[test]
fn a_deletion_stands_only_above_every_field_and_keeps_nothing_but_its_stamp() {
    let row = after(&[create(1, r#"{"a":1,"b":1}"#), update(6, r#"{"a":2}"#)]);
    assert_eq!(joined(Some(&row), &delete(5)), None);
    let row = joined(Some(&row), &delete(7)).unwrap();
    assert_eq!(
        (row.stamp(), &row.older, row.floor, &row.fields),
        (stamp(7), &Vec::new(), None, &None)
    );
}

#[test]
fn a_second_later_deletion_raises_the_tombstone_and_an_earlier_one_leaves_it() {
    let row = after(&[create(1, "{}"), delete(5)]);
    assert_eq!(joined(Some(&row), &delete(4)), None);
    assert_eq!(joined(Some(&row), &delete(5)), None);
    assert_eq!(joined(Some(&row), &delete(6)).unwrap().stamp(), stamp(6));
}

#[test]
fn what_is_below_a_tombstone_leaves_it_and_what_is_above_makes_the_record_anew_with_a_floor() {
    let row = after(&[create(1, r#"{"a":1}"#), delete(5)]);
    for late in [create(4, r#"{"a":2}"#), replace(5, r#"{"a":2}"#)] {
        assert_eq!(joined(Some(&row), &late), None);
    }
    let anew = change(OpKind::Create, 9, &[("b", 3), ("gone", 5)], r#"{"a":9,"b":3,"gone":null}"#);
    let row = joined(Some(&row), &anew).unwrap();
    assert_eq!(
        (image(&row), row.stamp(), row.floor),
        (r#"{"a":9,"b":3}"#, stamp(9), Some(stamp(5)))
    );
    assert_eq!(times(&row, ["a", "b", "gone", "never"]), [9, 3, 5, 5]);
    assert_eq!(row.older.len(), 1, "what the deletion took away is known by the floor");
}

#[test]
fn all_of_a_change_is_there_only_by_its_very_stamps() {
    let row = after(&[create(1, r#"{"a":1,"b":1}"#), update(5, r#"{"a":5,"b":null}"#)]);
    let known = |change: &UnitChange| is_known(&row, change).unwrap();
    assert!(known(&update(5, r#"{"a":5,"b":null}"#)) && known(&update(5, r#"{"b":null}"#)));
    assert!(
        !known(&update(4, r#"{"a":5}"#))
            && !known(&update(5, r#"{"a":5,"c":1}"#))
            && !known(&delete(5))
    );
    assert!(!known(&create(1, r#"{"a":1,"b":1}"#)), "the field existed, and no longer exists");
    let set_anew = after(&[create(1, r#"{"a":1,"b":1}"#), update(5, r#"{"a":5}"#)]);
    assert!(
        !is_known(&set_anew, &replace(5, r#"{"a":5}"#)).unwrap(),
        "the removed field still exists"
    );
    let replaced = after(&[create(1, r#"{"a":1,"b":1}"#), replace(5, r#"{"a":5}"#)]);
    assert!(is_known(&replaced, &replace(5, r#"{"a":5}"#)).unwrap());
    let tombstone = after(&[create(1, "{}"), delete(5)]);
    assert!(
        is_known(&tombstone, &delete(5)).unwrap() && !is_known(&tombstone, &delete(4)).unwrap()
    );
    assert!(!is_known(&tombstone, &update(5, r#"{"a":1}"#)).unwrap());
}

/// Draws changes of one record, each with its own stamp: updates and creates of a few fields. They
/// remove some fields, and some fields are older than the change.
fn drawn() -> impl Strategy<Value = Vec<UnitChange>> {
    let field = (0..5u8, any::<bool>(), prop::option::of(0..8u64));
    let one = (any::<bool>(), 0..8u64, prop::collection::vec(field, 0..5));
    prop::collection::vec(one, 1..6)
        .prop_map(|all| (1..).zip(all).map(|(number, one)| make(number, one)).collect())
}

/// A drawn field: its number, whether it is removed, and the time of its write if that is earlier.
type DrawnField = (u8, bool, Option<u64>);

fn make(number: u8, (creates, at, fields): (bool, u64, Vec<DrawnField>)) -> UnitChange {
    let (mut named, mut older) = (BTreeMap::new(), BTreeMap::new());
    for (field, is_null, at) in fields {
        let name = format!("f{field}");
        named.insert(
            name.clone(),
            if is_null { "null".to_owned() } else { format!("\"{number}-{field}\"") },
        );
        if let Some(at) = at {
            older.insert(name, (at, [number, field + 1]));
        }
    }
    let write = |(name, (at, [number, field])): (String, (u64, [u8; 2]))| {
        let mut op = [number; 16];
        op[15] = field;
        FieldWrites { edited_at: Hlc::from_bits(at), op: OpId::from_bytes(op), fields: vec![name] }
    };
    let text: Vec<_> = named.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    let kind = if creates { OpKind::Create } else { OpKind::Update };
    let older = older.into_iter().map(write).collect();
    let ops = vec![OpId::from_bytes([number; 16])];
    UnitChange { ops, older, ..change(kind, at, &[], &format!("{{{}}}", text.join(","))) }
}

/// Makes a change that writes the content of a row.
fn as_change(row: &Row) -> UnitChange {
    let mut fields = row.fields.as_ref().unwrap().to_fields().unwrap();
    let listed = row.older.iter().flat_map(|write| &write.fields);
    for name in listed.filter(|name| !row.fields.as_ref().unwrap().has(name)) {
        fields.set(name.clone(), serde_json::Value::Null);
    }
    let older = row.older.clone();
    UnitChange {
        ops: vec![row.op],
        older,
        edited_at: row.edited_at,
        ..update(0, fields.to_json().as_str())
    }
}

fn told(start: &Row, changes: &[UnitChange]) -> Row {
    changes.iter().fold(start.clone(), |row, change| joined(Some(&row), change).unwrap_or(row))
}

proptest! {
    #[test]
    fn joining_is_commutative(changes in drawn(), order in any::<prop::sample::Index>()) {
        let start = after(&[update(0, r#"{"f0":0,"f1":0}"#)]);
        let mut turned = changes.clone();
        turned.rotate_left(order.index(changes.len()));
        let reversed: Vec<_> = changes.iter().rev().cloned().collect();
        prop_assert_eq!(told(&start, &changes), told(&start, &turned));
        prop_assert_eq!(told(&start, &changes), told(&start, &reversed));
    }

    #[test]
    fn joining_is_associative(changes in drawn(), at in any::<prop::sample::Index>()) {
        let start = after(&[update(0, r#"{"f0":0,"f1":0}"#)]);
        let (first, second) = changes.split_at(at.index(changes.len()));
        let nothing = after(&[update(0, "{}")]);
        let together = [as_change(&told(&nothing, first)), as_change(&told(&nothing, second))];
        prop_assert_eq!(told(&start, &changes), told(&start, &together));
    }

    #[test]
    fn joining_is_idempotent(changes in drawn(), again in any::<prop::sample::Index>()) {
        let start = after(&[update(0, r#"{"f0":0,"f1":0}"#)]);
        let once = told(&start, &changes);
        prop_assert_eq!(joined(Some(&once), again.get(&changes)), None);
        prop_assert_eq!(joined(Some(&once), &as_change(&once)), None);
    }

    #[test]
    fn the_rows_own_stamp_is_the_greatest_and_fields_are_listed_once(changes in drawn()) {
        let row = told(&after(&[update(0, r#"{"f0":0,"f1":0}"#)]), &changes);
        prop_assert!(row.older.iter().all(|write| write.stamp() <= row.stamp()));
        let listed: Vec<_> = row.older.iter().flat_map(|write| &write.fields).collect();
        let once: std::collections::BTreeSet<_> = listed.iter().collect();
        prop_assert_eq!(listed.len(), once.len());
    }
}
