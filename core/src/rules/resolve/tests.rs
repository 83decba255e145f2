//! Each policy on its own, and that two devices which judge each other agree.

use std::collections::BTreeMap;

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn fields(value: Value) -> Fields {
    Fields::from_value(value).unwrap()
}

fn op(number: u8) -> OpId {
    OpId::from_bytes([number; 16])
}

struct Case {
    rules: EntityRules,
    base: Option<Value>,
    kind: OpKind,
    ours: Value,
    our_time: u64,
    theirs: Option<Value>,
    their_time: u64,
}

impl Case {
    fn run(self) -> Resolution {
        let (base, ours, theirs) = (self.base.map(fields), fields(self.ours), self.theirs.map(fields));
        let their_time = Hlc::from_bits(self.their_time);
        let edited = (Hlc::from_bits(self.our_time), op(1));
        let local = LocalEdit { kind: self.kind, fields: &ours, edited, edit_of: &|_| edited };
        let remote = RemoteEdit {
            op: op(2),
            image: theirs.as_ref(),
            edited_at: their_time,
            edited_at_of: &|_| their_time,
        };
        resolve(&RecordKey::parse("lead", "1").unwrap(), &self.rules, base.as_ref(), local, &remote)
    }
}

fn update(our_time: u64, their_time: u64) -> Case {
    Case {
        rules: EntityRules::default(),
        base: Some(json!({"a": 0, "b": 0})),
        kind: OpKind::Update,
        ours: json!({"a": 1}),
        our_time,
        theirs: Some(json!({"a": 2, "b": 9})),
        their_time,
    }
}

#[track_caller]
fn expect_conflict(resolution: Resolution) -> Settlement {
    match resolution {
        Resolution::Conflict(settlement) => settlement,
        other => panic!("expected a conflict, not {other:?}"),
    }
}

#[test]
fn fields_that_only_one_side_changed_merge() {
    let case = Case { theirs: Some(json!({"a": 0, "b": 9})), ..update(1, 2) };
    assert_eq!(case.run(), Resolution::Apart);
}

#[test]
fn the_later_edit_of_a_field_wins_and_both_values_are_kept() {
    let lost = expect_conflict(update(1, 2).run());
    assert_eq!(lost.winner, Winner::Remote);
    assert_eq!(lost.lost().collect::<Vec<_>>(), ["a"]);
    assert_eq!(
        (lost.base, lost.local, lost.remote),
        (fields(json!({"a": 0})), fields(json!({"a": 1})), fields(json!({"a": 2})))
    );
    assert_eq!(expect_conflict(update(2, 1).run()).winner, Winner::Local);
}

/// Found by the fuzz target `policies`: the role decided, so that two devices settled the same two edits differently.
#[test]
fn numbers_that_are_equal_however_written_fall_to_the_later_edit_under_max_and_min() {
    for policy in [Policy::Max, Policy::Min] {
        for (ours, theirs) in [(json!(3), json!(3.0)), (json!(3.0), json!(3))] {
            for (our_time, their_time, winner) in [(2, 1, Winner::Local), (1, 2, Winner::Remote)] {
                let rules = EntityRules { policy, ..EntityRules::default() };
                let (ours, theirs) = (json!({"a": ours}), Some(json!({"a": theirs, "b": 0})));
                let case = Case { rules, ours, theirs, ..update(our_time, their_time) };
                assert_eq!(expect_conflict(case.run()).winner, winner, "{policy:?}");
            }
        }
    }
}

#[test]
fn large_whole_numbers_are_compared_exactly() {
    let rules = EntityRules { policy: Policy::Max, ..EntityRules::default() };
    let (less, more) = (9_007_199_254_740_992_i64, 9_007_199_254_740_993_i64);
    let theirs = Some(json!({"a": less, "b": 0}));
    let case = Case { rules, ours: json!({"a": more}), theirs, ..update(1, 2) };
    assert_eq!(expect_conflict(case.run()).winner, Winner::Local);
}

#[test]
fn an_equal_stamp_is_decided_by_op_id() {
    assert_eq!(expect_conflict(update(5, 5).run()).winner, Winner::Remote, "op 2 is above op 1");
}

#[test]
fn a_value_that_both_sides_chose_is_no_conflict() {
    let case = Case { theirs: Some(json!({"a": 1, "b": 9})), ..update(1, 2) };
    assert_eq!(case.run(), Resolution::Agreed);
}

#[test]
fn a_delete_and_an_update_are_decided_by_the_later_edit() {
    for (our_time, their_time, winner) in [(1, 2, Winner::Remote), (2, 1, Winner::Local)] {
        let ours_deletes = Case { kind: OpKind::Delete, ours: json!({}), ..update(our_time, their_time) };
        assert_eq!(expect_conflict(ours_deletes.run()).winner, winner);
        let theirs_deletes = Case { theirs: None, ..update(our_time, their_time) };
        assert_eq!(expect_conflict(theirs_deletes.run()).winner, winner);
    }
}

#[test]
fn two_deletes_agree() {
    let case = Case { kind: OpKind::Delete, ours: json!({}), theirs: None, ..update(1, 2) };
    assert_eq!(case.run(), Resolution::Agreed);
}

#[test]
fn each_policy_settles_a_field_its_own_way() {
    let with = |policy, ours: Value, theirs: Value| {
        let rules = EntityRules { policy, ..EntityRules::default() };
        let case =
            Case { rules, ours: json!({"a": ours}), theirs: Some(json!({"a": theirs})), ..update(1, 2) };
        expect_conflict(case.run())
    };
    assert_eq!(with(Policy::ServerWins, json!(1), json!(2)).winner, Winner::Remote);
    assert_eq!(with(Policy::DeviceWins, json!(1), json!(2)).winner, Winner::Local);
    assert_eq!(with(Policy::Manual, json!(1), json!(2)).winner, Winner::Undecided);
    assert_eq!(with(Policy::Max, json!(3), json!(2)).winner, Winner::Local);
    assert_eq!(with(Policy::Min, json!(3), json!(2)).winner, Winner::Remote);
    assert_eq!(
        with(Policy::Max, json!("x"), json!(2)).winner,
        Winner::Remote,
        "falls back to the later edit"
    );
    let merged = with(Policy::AppendUnique, json!([1, 2]), json!([2, 3])).merged;
    assert_eq!(merged, Some(fields(json!({"a": [2, 3, 1]}))));
}

#[test]
fn a_whole_record_is_settled_as_one() {
    let rules = EntityRules { granularity: Granularity::WholeRecord, ..EntityRules::default() };
    let case = Case { rules, ours: json!({"a": 1, "b": 0, "c": 7}), ..update(1, 2) };
    assert_eq!(expect_conflict(case.run()).winner, Winner::Remote, "c is lost with a");
}

/// Returns the winner of each field of a record that is settled as one.
fn as_one(rules: EntityRules, our_time: u64, their_time: u64) -> Vec<Winner> {
    let rules = EntityRules { granularity: Granularity::WholeRecord, ..rules };
    let ours = fields(json!({"a": 1, "b": 1}));
    let theirs = fields(json!({"a": 2, "b": 2}));
    let edited = (Hlc::from_bits(our_time), op(1));
    // Each side's `b` is older than its record's last edit: ours by more than theirs.
    let local = LocalEdit {
        kind: OpKind::Update,
        fields: &ours,
        edited,
        edit_of: &|name| if name == "b" { (Hlc::from_bits(1), op(1)) } else { edited },
    };
    let remote = RemoteEdit {
        op: op(2),
        image: Some(&theirs),
        edited_at: Hlc::from_bits(their_time),
        edited_at_of: &|name| Hlc::from_bits(if name == "b" { 2 } else { their_time }),
    };
    let base = fields(json!({"a": 0, "b": 0}));
    let settled = resolve(&RecordKey::parse("lead", "1").unwrap(), &rules, Some(&base), local, &remote);
    expect_conflict(settled).fields.into_iter().map(|field| field.winner).collect()
}

#[test]
fn of_a_record_that_is_settled_as_one_the_last_edit_takes_every_field_that_has_no_other_rule() {
    assert_eq!(as_one(EntityRules::default(), 9, 8), [Winner::Local, Winner::Local]);
    assert_eq!(as_one(EntityRules::default(), 8, 9), [Winner::Remote, Winner::Remote]);
    let field_policies = BTreeMap::from([("a".to_owned(), Policy::ServerWins)]);
    let rules = EntityRules { field_policies, ..EntityRules::default() };
    assert_eq!(as_one(rules, 9, 8), [Winner::Remote, Winner::Local]);
}

#[test]
fn a_function_of_the_app_is_told_which_side_is_later_and_whether_one_deleted() {
    let settled_by_function = |case: Case| {
        let function = ConflictFunction::new("later unless deleted", |meeting| {
            assert_eq!(meeting.mine_is_later, meeting.mine_edited_at > meeting.theirs_edited_at);
            assert_eq!(meeting.mine.is_null(), meeting.mine_edited_at == Hlc::from_bits(7));
            if meeting.mine_is_later { Ruling::Mine } else { Ruling::Theirs }
        });
        let rules = EntityRules { function: Some(function), ..EntityRules::default() };
        expect_conflict(Case { rules, ..case }.run()).winner
    };
    assert_eq!(settled_by_function(update(2, 1)), Winner::Local);
    assert_eq!(settled_by_function(update(1, 2)), Winner::Remote);
    for (their_time, winner) in [(6, Winner::Local), (8, Winner::Remote)] {
        let deleted = Case { kind: OpKind::Delete, ours: json!({}), ..update(7, their_time) };
        assert_eq!(settled_by_function(deleted), winner);
    }
    for (our_time, winner) in [(2, Winner::Local), (1, Winner::Remote)] {
        let theirs_deleted = Case { theirs: None, their_time: 3 - our_time, ..update(our_time, 0) };
        assert_eq!(settled_by_function(theirs_deleted), winner);
    }
}

proptest! {
    #[test]
    fn two_devices_that_judge_each_other_agree_on_the_winner(a in 0u64..4, b in 0u64..4, first in 0u8..4, second in 0u8..4) {
        prop_assume!(first != second);
        let one = (Hlc::from_bits(a), op(first));
        let other = (Hlc::from_bits(b), op(second));
        let here = later(one, other) == Winner::Local;
        let there = later(other, one) == Winner::Local;
        prop_assert!(here != there);
    }
}
