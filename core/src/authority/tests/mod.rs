mod bounds;
mod devices;
mod forms;
mod pages;
mod properties;
mod rights;
mod stamps;

use std::collections::BTreeMap;

use super::*;
use crate::entry::chain;
use crate::ids::{DeviceId, Epoch, OpId, RequestId, ServerEpoch, ServerId, UnitId};
use crate::names::EntityType;
use crate::numbers::{Cursor, Hash, Seq};
use crate::op::OpKind;
use crate::protocol::{Change, HeadClaim, Outcome, Unit, UnitChange, UnitOutcome};
use crate::record::FieldWrites;
use crate::time::Hlc;

const NOW: WallTime = WallTime::from_milliseconds(1_600_000_000_000);

fn id(number: u64) -> [u8; 16] {
    (u128::from(number) + 1).to_be_bytes()
}

fn store() -> MemoryAuthority {
    MemoryAuthority::new(ServerId::from_bytes(id(1)), ServerEpoch::from_bytes(id(2)))
}

fn key(name: &str) -> RecordKey {
    name.parse().unwrap()
}

/// Returns an op whose stamp, at the same time, is above the test's earlier stamps.
fn later_op() -> OpId {
    thread_local!(static LAST: std::cell::Cell<u64> = const { std::cell::Cell::new(900) });
    LAST.with(|last| {
        last.set(last.get() + 1);
        OpId::from_bytes(id(last.get()))
    })
}

fn change(name: &str, kind: OpKind, base: Option<u64>, fields: &str) -> UnitChange {
    UnitChange {
        key: key(name),
        kind,
        base: base.map(Version::new),
        ops: vec![later_op()],
        edited_at: Hlc::at(NOW),
        older: Vec::new(),
        schema_version: 1,
        fields: (kind != OpKind::Delete).then(|| crate::FieldsJson::parse(fields).unwrap()),
    }
}

fn create(name: &str) -> UnitChange {
    change(name, OpKind::Create, None, r#"{"a":1}"#)
}

fn unit(number: u64, changes: Vec<UnitChange>) -> Unit {
    Unit { id: UnitId::from_bytes(id(number)), changes, earlier_units: Vec::new() }
}

fn request(units: Vec<Unit>) -> ExchangeRequest {
    ExchangeRequest {
        units,
        ..ExchangeRequest::new(
            RequestId::from_bytes(id(3)),
            DeviceId::from_bytes(id(4)),
            Epoch::from_bytes(id(5)),
            Actor::parse("ann").unwrap(),
        )
    }
}

fn pull(cursors: BTreeMap<EntityType, Cursor>, page_limit: u32) -> ExchangeRequest {
    ExchangeRequest { cursors, page_limit, ..request(Vec::new()) }
}

#[track_caller]
fn answered(state: &mut MemoryAuthority, request: &ExchangeRequest) -> ExchangeAnswer {
    exchange(state, request, NOW, &Caller::Anyone, &Quota::default()).unwrap()
}

#[track_caller]
fn refused(state: &mut MemoryAuthority, request: &ExchangeRequest, caller: &Caller) -> Refusal {
    let before = state.clone();
    let refusal = match exchange(state, request, NOW, caller, &Quota::default()) {
        Err(ExchangeError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    };
    assert_eq!(*state, before, "a refused request changed the store");
    refusal
}

/// Sends one unit and returns its outcome.
#[track_caller]
fn sent(state: &mut MemoryAuthority, number: u64, changes: Vec<UnitChange>) -> Outcome {
    let answer = answered(state, &request(vec![unit(number, changes)]));
    answer.outcomes.into_iter().next().unwrap().outcome
}

#[track_caller]
fn applied(state: &mut MemoryAuthority, number: u64, changes: Vec<UnitChange>) -> u64 {
    match sent(state, number, changes) {
        Outcome::Applied { versions, .. } => versions.values().next().unwrap().number(),
        other => panic!("not applied: {other:?}"),
    }
}

#[track_caller]
fn stale(state: &mut MemoryAuthority, number: u64, changes: Vec<UnitChange>) -> Vec<Change> {
    let before = state.clone();
    let Outcome::Stale { current, .. } = sent(state, number, changes) else { panic!("not stale") };
    assert_eq!(*state, before, "a stale unit changed the store");
    current
}

#[track_caller]
fn rejected(state: &mut MemoryAuthority, number: u64, changes: Vec<UnitChange>) -> String {
    let before = kept(state);
    let Outcome::Rejected { code, .. } = sent(state, number, changes) else {
        panic!("not rejected")
    };
    assert_eq!(kept(state), before, "a rejected unit changed the store");
    code
}

/// Returns the content of a store, without its memory of units.
fn kept(state: &MemoryAuthority) -> (Vec<(RecordKey, Row)>, Version, Option<WallTime>) {
    let rows = state.records().map(|(key, row)| (key.clone(), row.clone())).collect();
    (rows, state.last_commit().unwrap(), state.newest_time().unwrap())
}

fn image(state: &MemoryAuthority, name: &str) -> Option<String> {
    let row = state.record(&key(name)).unwrap()?;
    row.fields.map(|fields| fields.as_str().to_owned())
}

#[test]
fn every_unit_gets_a_commit_of_its_own_and_its_records_that_version() {
    let mut state = store();
    assert_eq!(applied(&mut state, 1, vec![create("lead/1"), create("lead/2")]), 1);
    assert_eq!(
        applied(&mut state, 2, vec![change("lead/2", OpKind::Update, Some(1), r#"{"b":2}"#)]),
        2
    );
    let versions = ["lead/1", "lead/2"]
        .map(|name| state.record(&key(name)).unwrap().unwrap().version.number());
    assert_eq!(versions, [1, 2]);
    assert_eq!(image(&state, "lead/2").unwrap(), r#"{"a":1,"b":2}"#);
}

#[test]
fn a_unit_that_replaces_one_that_took_effect_is_stale_and_told_which() {
    let mut state = store();
    applied(&mut state, 1, vec![create("lead/1")]);
    let before = state.clone();
    // Its base is the present version, so only `earlier_units` shows that its op is applied
    // already.
    let again = vec![change("lead/1", OpKind::Update, Some(1), r#"{"a":1}"#)];
    let former = |number| UnitId::from_bytes(id(number));
    let second = Unit { earlier_units: vec![former(9), former(1)], ..unit(2, again) };
    let answer = answered(&mut state, &request(vec![second]));
    let [UnitOutcome { outcome: Outcome::Stale { current, applied }, .. }] =
        answer.outcomes.as_slice()
    else {
        panic!("not stale")
    };
    assert_eq!(*applied, [former(1)]);
    assert_eq!(current.iter().map(|change| change.version.number()).collect::<Vec<_>>(), [1]);
    assert_eq!(state, before);
}

#[test]
fn a_unit_that_replaces_one_that_never_arrived_is_applied() {
    let mut state = store();
    let second =
        Unit { earlier_units: vec![UnitId::from_bytes(id(1))], ..unit(2, vec![create("lead/1")]) };
    let answer = answered(&mut state, &request(vec![second]));
    assert!(matches!(
        answer.outcomes.as_slice(),
        [UnitOutcome { outcome: Outcome::Applied { .. }, .. }]
    ));
}

#[test]
fn the_same_unit_again_gets_its_first_answer_and_changes_nothing() {
    let mut state = store();
    let one = vec![create("lead/1"), create("lead/2")];
    applied(&mut state, 1, one.clone());
    applied(&mut state, 2, vec![change("lead/1", OpKind::Update, Some(1), r#"{"a":9}"#)]);
    let before = state.clone();
    let Outcome::Duplicate { versions, current } = sent(&mut state, 1, one) else {
        panic!("not a duplicate")
    };
    assert_eq!(
        versions,
        BTreeMap::from([(key("lead/1"), Version::new(1)), (key("lead/2"), Version::new(1))])
    );
    // The answer has the present content of a record that another unit has changed since, so that
    // no device takes the first answer for the present state.
    let shown: Vec<_> =
        current.iter().map(|change| (change.key.to_string(), change.version.number())).collect();
    assert_eq!(shown, [("lead/1".to_owned(), 2)]);
    assert_eq!(state, before);
}

#[test]
fn another_unit_under_a_known_id_is_rejected() {
    let mut state = store();
    applied(&mut state, 1, vec![create("lead/1")]);
    assert_eq!(rejected(&mut state, 1, vec![create("lead/2")]), "unit_reused");
}

#[test]
fn a_unit_with_one_stale_change_is_not_applied_at_all_and_shows_every_record_that_differs() {
    let mut state = store();
    applied(&mut state, 1, vec![create("lead/1"), create("lead/2")]);
    let current = stale(
        &mut state,
        2,
        vec![
            change("lead/1", OpKind::Update, Some(1), r#"{"a":2}"#),
            change("lead/2", OpKind::Update, Some(7), r#"{"a":2}"#),
            change("lead/3", OpKind::Update, Some(1), r#"{"a":2}"#),
        ],
    );
    let shown: Vec<_> = current
        .iter()
        .map(|change| (change.key.to_string(), change.version.number(), change.deleted))
        .collect();
    assert_eq!(shown, [("lead/2".to_owned(), 1, false), ("lead/3".to_owned(), 0, true)]);
    assert_eq!(image(&state, "lead/1").unwrap(), r#"{"a":1}"#);
}

#[test]
fn a_create_needs_the_version_of_the_tombstone_that_it_covers() {
    let mut state = store();
    applied(&mut state, 1, vec![create("lead/1")]);
    applied(&mut state, 2, vec![change("lead/1", OpKind::Delete, Some(1), "")]);
    assert!(stale(&mut state, 3, vec![create("lead/1")]).first().unwrap().deleted);
    stale(&mut state, 4, vec![change("lead/1", OpKind::Create, Some(1), "{}")]);
    assert_eq!(
        applied(&mut state, 5, vec![change("lead/1", OpKind::Create, Some(2), r#"{"b":1}"#)]),
        3
    );
    assert_eq!(image(&state, "lead/1").unwrap(), r#"{"b":1}"#);
}

#[test]
fn a_deleted_record_takes_no_updates_and_a_later_deletion_only_for_its_version() {
    let mut state = store();
    applied(&mut state, 1, vec![create("lead/1")]);
    applied(&mut state, 2, vec![change("lead/1", OpKind::Delete, Some(1), "")]);
    stale(&mut state, 3, vec![change("lead/1", OpKind::Update, Some(2), r#"{"a":2}"#)]);
    stale(&mut state, 4, vec![change("lead/1", OpKind::Delete, None, "")]);
    let earlier = change("lead/1", OpKind::Delete, Some(2), "");
    let later = change("lead/1", OpKind::Delete, Some(2), "");
    let stamp = later.stamp();
    assert_eq!(applied(&mut state, 5, vec![later]), 3);
    assert_eq!(state.record(&key("lead/1")).unwrap().unwrap().stamp(), stamp);
    let earlier = UnitChange { base: Some(Version::new(3)), ..earlier };
    let before = kept(&state);
    assert_eq!(applied(&mut state, 6, vec![earlier]), 3, "its record keeps its version");
    assert_eq!(kept(&state), before);
}

#[test]
fn a_unit_of_which_nothing_stands_makes_no_commit_and_is_remembered_all_the_same() {
    let mut state = store();
    let early = change("lead/1", OpKind::Update, Some(1), r#"{"a":2}"#);
    applied(&mut state, 1, vec![create("lead/1"), create("lead/2")]);
    let before = kept(&state);
    assert_eq!(applied(&mut state, 2, vec![early.clone()]), 1);
    assert_eq!(kept(&state), before);
    let Outcome::Duplicate { versions, current } = sent(&mut state, 2, vec![early]) else {
        panic!()
    };
    assert_eq!(versions, BTreeMap::from([(key("lead/1"), Version::new(1))]));
    assert_eq!(current.len(), 1, "the version is not one that the unit made");
}

#[test]
fn a_record_of_a_unit_of_which_nothing_stands_keeps_its_version_and_the_others_get_the_commits() {
    let mut state = store();
    let early = change("lead/1", OpKind::Update, Some(1), r#"{"a":2}"#);
    applied(&mut state, 1, vec![create("lead/1"), create("lead/2")]);
    let both = vec![early, change("lead/2", OpKind::Update, Some(1), r#"{"a":2}"#)];
    let versions =
        BTreeMap::from([(key("lead/1"), Version::new(1)), (key("lead/2"), Version::new(2))]);
    let first = sent(&mut state, 2, both.clone());
    assert_eq!(first, Outcome::Applied { versions: versions.clone(), current: Vec::new() });
    let Outcome::Duplicate { versions: again, current } = sent(&mut state, 2, both) else {
        panic!()
    };
    assert_eq!(again, versions);
    assert_eq!(current.iter().map(|change| change.key.to_string()).collect::<Vec<_>>(), ["lead/1"]);
}

#[test]
fn a_unit_whose_writes_are_all_there_is_a_duplicate_whatever_its_bases() {
    let mut state = store();
    let (made, edit) = (create("lead/1"), change("lead/1", OpKind::Update, Some(1), r#"{"b":2}"#));
    let second = create("lead/2");
    let gone = change("lead/2", OpKind::Delete, Some(1), "");
    applied(&mut state, 1, vec![made, second]);
    applied(&mut state, 2, vec![edit.clone(), gone.clone()]);
    applied(&mut state, 3, vec![change("lead/1", OpKind::Update, Some(2), r#"{"a":3}"#)]);
    let before = kept(&state);
    // Other units with the same writes: a unit that was abandoned took effect after all.
    for (number, base) in [(4, Some(1)), (5, Some(3)), (6, None)] {
        let base = base.map(Version::new);
        let again = Unit {
            earlier_units: vec![UnitId::from_bytes(id(2))],
            ..unit(number, vec![UnitChange { base, ..edit.clone() }, gone.clone()])
        };
        let outcome = answered(&mut state, &request(vec![again])).outcomes.remove(0).outcome;
        let Outcome::Duplicate { versions, current } = outcome else { panic!("{outcome:?}") };
        assert_eq!(versions[&key("lead/1")], Version::new(3));
        assert_eq!(current.len(), 2, "each record is shown as it is");
    }
    assert_eq!(kept(&state), before);
    // If one write has been overwritten since, or is missing, the unit is stale.
    let overtaken = change("lead/1", OpKind::Update, Some(3), r#"{"b":9}"#);
    applied(&mut state, 7, vec![overtaken]);
    stale(&mut state, 8, vec![edit]);
}

#[test]
fn a_refusal_is_remembered_and_repeated_for_a_copy_that_comes_later() {
    let mut state = store();
    let large = format!(r#"{{"b":"{}"}}"#, "x".repeat(limits::OP_BYTES - 10));
    applied(&mut state, 1, vec![create("lead/1")]);
    let grow = vec![change("lead/1", OpKind::Update, Some(1), &large)];
    assert_eq!(rejected(&mut state, 2, grow.clone()), "record_too_large");
    // There is room now, but the device has already received the refusal.
    applied(&mut state, 3, vec![change("lead/1", OpKind::Update, Some(1), r#"{"a":null}"#)]);
    assert_eq!(rejected(&mut state, 2, grow.clone()), "record_too_large");
    // The refused unit took no effect, so a unit that names it is not stale.
    let again = UnitChange { base: Some(Version::new(2)), ..grow.into_iter().next().unwrap() };
    let again = Unit { earlier_units: vec![UnitId::from_bytes(id(2))], ..unit(4, vec![again]) };
    let answer = answered(&mut state, &request(vec![again]));
    assert!(matches!(
        answer.outcomes.as_slice(),
        [UnitOutcome { outcome: Outcome::Applied { .. }, .. }]
    ));
}

#[test]
fn a_device_that_was_told_that_a_record_never_was_can_create_it() {
    let mut state = store();
    let current =
        stale(&mut state, 1, vec![change("lead/1", OpKind::Update, Some(9), r#"{"a":2}"#)]);
    let told = current.first().unwrap().version.number();
    assert_eq!(applied(&mut state, 2, vec![change("lead/1", OpKind::Create, Some(told), "{}")]), 1);
}

#[test]
fn a_delete_of_a_record_that_never_was_leaves_a_tombstone() {
    let mut state = store();
    assert_eq!(applied(&mut state, 1, vec![change("lead/1", OpKind::Delete, None, "")]), 1);
    assert!(state.record(&key("lead/1")).unwrap().unwrap().is_deleted());
}

#[test]
fn units_that_no_store_could_take_are_rejected_with_their_fault() {
    let mut state = store();
    let no_ops = UnitChange { ops: Vec::new(), ..create("lead/1") };
    let no_fields = UnitChange { fields: None, ..create("lead/1") };
    let with_fields = UnitChange { kind: OpKind::Delete, ..create("lead/1") };
    let many =
        (0..=limits::TRANSACTION_OPS).map(|number| create(&format!("lead/{number}"))).collect();
    let cases = [
        ("no_changes", Vec::new()),
        ("no_ops", vec![no_ops]),
        ("fields_missing", vec![no_fields]),
        ("fields_present", vec![with_fields]),
        ("duplicate_key", vec![create("lead/1"), create("lead/1")]),
        ("too_many_changes", many),
    ];
    for (number, (code, changes)) in (0..).zip(cases) {
        assert_eq!(rejected(&mut state, number, changes), code);
    }
}

#[test]
fn a_record_never_grows_over_what_a_device_can_read() {
    let mut state = store();
    let half = "x".repeat(limits::OP_BYTES / 2);
    applied(
        &mut state,
        1,
        vec![change("lead/1", OpKind::Create, None, &format!(r#"{{"a":"{half}"}}"#))],
    );
    let second = change("lead/1", OpKind::Update, Some(1), &format!(r#"{{"b":"{half}"}}"#));
    assert_eq!(rejected(&mut state, 2, vec![second]), "record_too_large");
}

#[test]
fn a_unit_never_leaves_more_than_an_answer_can_carry() {
    let mut state = store();
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(limits::OP_BYTES - 100));
    let all = (0..20)
        .map(|number| change(&format!("lead/{number}"), OpKind::Create, None, &large))
        .collect();
    assert_eq!(rejected(&mut state, 1, all), "unit_too_large");
}

#[test]
fn stale_records_over_the_answers_bytes_leave_the_units_behind_them_untreated() {
    let mut state = store();
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(limits::OP_BYTES - 100));
    for number in 0..6 {
        applied(
            &mut state,
            number,
            vec![change(&format!("lead/{number}"), OpKind::Create, None, &large)],
        );
    }
    let units =
        (0..6).map(|number| unit(10 + number, vec![create(&format!("lead/{number}"))])).collect();
    let answer = answered(&mut state, &request(units));
    assert_eq!(answer.outcomes.len(), 4);
}

#[test]
fn requests_over_a_quota_and_of_other_actors_are_refused_whole() {
    let mut state = store();
    let units =
        (0..=1_000).map(|number| unit(number, vec![create(&format!("lead/{number}"))])).collect();
    assert_eq!(refused(&mut state, &request(units), &Caller::Anyone).class, RefusalClass::TooLarge);
    let bob = Caller::OneOf([Actor::parse("bob").unwrap()].into());
    let by_ann = request(vec![unit(1, vec![create("lead/1")])]);
    assert_eq!(refused(&mut state, &by_ann, &bob).code, "wrong_actor");
    let other = ExchangeRequest { protocol: 2, ..request(Vec::new()) };
    assert_eq!(refused(&mut state, &other, &Caller::Anyone).class, RefusalClass::UpgradeRequired);
}

#[test]
fn a_forked_log_applies_nothing_and_gets_no_page() {
    let mut state = store();
    let claim = |seq, contents: Vec<Hash>, hash| HeadClaim {
        anchor: None,
        contents,
        seq: Seq::new(seq),
        hash,
    };
    let head = chain::extend(&Hash::ZERO, &[Hash::from_bytes([1; 32])]);
    let mut first = request(vec![unit(1, vec![create("lead/1")])]);
    first.head = Some(claim(1, Vec::new(), head));
    first.page_limit = 10;
    let answer = answered(&mut state, &first);
    assert_eq!(answer.receipt, Some(Receipt { seq: Seq::new(1), hash: head }));
    let before = state.clone();
    let mut copy = request(vec![unit(2, vec![create("lead/2")])]);
    copy.head = Some(claim(2, vec![Hash::from_bytes([2; 32])], Hash::from_bytes([9; 32])));
    copy.page_limit = 10;
    let answer = answered(&mut state, &copy);
    assert_eq!(
        (answer.receipt, answer.forked),
        (None, Some(Receipt { seq: Seq::new(1), hash: head }))
    );
    assert!(answer.outcomes.is_empty() && answer.changes.is_empty() && answer.cursors.is_empty());
    assert_eq!(state, before);
    // A new epoch of the same device has no anchor to contradict.
    copy.epoch = Epoch::from_bytes(id(77));
    assert_eq!(answered(&mut state, &copy).outcomes.len(), 1);
}
