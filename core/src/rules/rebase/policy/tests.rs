//! Tests of each policy alone, and of the agreement of two devices that resolve the same two
//! writes.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::rules::test_view::{fields, key, op_id};
use crate::time::Hlc;

fn stamps(local: u64, remote: u64) -> StampPair {
    let stamp = |time, op| EditStamp { edited_at: Hlc::from_bits(time), op: op_id(op) };
    StampPair { local: stamp(local, 1), remote: stamp(remote, 2) }
}

fn under(policy: Policy) -> EntityRules {
    EntityRules { policy, ..EntityRules::default() }
}

/// Resolves field `a`, which was 0 before.
fn field(rules: &EntityRules, local: &Value, remote: &Value, stamps: StampPair) -> Resolution {
    resolve_field(&key("1"), rules, "a", [&json!(0), local, remote], stamps)
}

fn winner(policy: Policy, local: Value, remote: Value, stamps: StampPair) -> Winner {
    field(&under(policy), &local, &remote, stamps).winner
}

#[test]
fn each_policy_resolves_a_field_its_own_way() {
    let earlier = stamps(1, 2);
    let of = |policy, local: Value, remote: Value| winner(policy, local, remote, earlier);
    assert_eq!(of(Policy::LastWriteWins, json!(1), json!(2)), Winner::Remote);
    assert_eq!(winner(Policy::LastWriteWins, json!(1), json!(2), stamps(2, 1)), Winner::Local);
    assert_eq!(winner(Policy::ServerWins, json!(1), json!(2), stamps(2, 1)), Winner::Remote);
    assert_eq!(of(Policy::DeviceWins, json!(1), json!(2)), Winner::Local);
    assert_eq!(of(Policy::Manual, json!(1), json!(2)), Winner::Undecided);
    assert_eq!(of(Policy::Max, json!(3), json!(2)), Winner::Local);
    assert_eq!(winner(Policy::Max, json!(1), json!(2), stamps(2, 1)), Winner::Remote);
    assert_eq!(of(Policy::Min, json!(1), json!(2)), Winner::Local);
    assert_eq!(winner(Policy::Min, json!(3), json!(2), stamps(2, 1)), Winner::Remote);
}

#[test]
fn what_is_no_number_or_no_list_falls_to_the_later_write() {
    for (local, remote, later) in [(1, 2, Winner::Remote), (2, 1, Winner::Local)] {
        for policy in [Policy::Max, Policy::Min, Policy::AppendUnique] {
            assert_eq!(
                winner(policy, json!("x"), json!(2), stamps(local, remote)),
                later,
                "{policy:?}"
            );
        }
    }
}

#[test]
fn lists_are_merged_into_theirs_and_what_of_ours_is_not_in_it() {
    let resolution =
        field(&under(Policy::AppendUnique), &json!([1, 2]), &json!([2, 3]), stamps(2, 1));
    assert_eq!((resolution.winner, resolution.merged), (Winner::Merged, Some(json!([2, 3, 1]))));
}

/// Found by the fuzz target `policies`: the role decided, so that two devices resolved the same two
/// edits differently.
#[test]
fn numbers_that_are_equal_however_written_fall_to_the_later_write_under_max_and_min() {
    for policy in [Policy::Max, Policy::Min] {
        for (local, remote) in [(json!(3), json!(3.0)), (json!(3.0), json!(3))] {
            for (stamps, expected) in
                [(stamps(2, 1), Winner::Local), (stamps(1, 2), Winner::Remote)]
            {
                assert_eq!(
                    winner(policy, local.clone(), remote.clone(), stamps),
                    expected,
                    "{policy:?}"
                );
            }
        }
    }
}

#[test]
fn large_whole_numbers_are_compared_exactly() {
    let (less, more) = (9_007_199_254_740_992_i64, 9_007_199_254_740_993_i64);
    assert_eq!(winner(Policy::Max, json!(more), json!(less), stamps(1, 2)), Winner::Local);
    assert_eq!(winner(Policy::Min, json!(more), json!(less), stamps(2, 1)), Winner::Remote);
}

#[test]
fn an_equal_time_is_decided_by_op_id() {
    assert_eq!(
        winner(Policy::LastWriteWins, json!(1), json!(2), stamps(5, 5)),
        Winner::Remote,
        "op 2 is above op 1"
    );
    let other = StampPair { local: stamps(5, 5).remote, remote: stamps(5, 5).local };
    assert_eq!(winner(Policy::LastWriteWins, json!(1), json!(2), other), Winner::Local);
}

#[test]
fn a_field_has_its_own_policy_and_a_record_that_is_deleted_has_that_of_its_entity_type() {
    let rules = EntityRules {
        field_policies: [("a".to_owned(), Policy::ServerWins)].into(),
        ..under(Policy::DeviceWins)
    };
    let of_field = field(&rules, &json!(1), &json!(2), stamps(2, 1));
    assert_eq!((of_field.winner, of_field.rule), (Winner::Remote, Policy::ServerWins));
    let local = fields(json!({"a": 1}));
    let of_life = resolve_life(&key("1"), &rules, [Some(&local), Some(&local), None], stamps(1, 2));
    assert_eq!((of_life.winner, of_life.rule), (Winner::Local, Policy::DeviceWins));
}

#[test]
fn whether_a_record_is_there_is_decided_by_the_later_write_unless_a_side_or_a_person_decides() {
    let life =
        |policy, stamps| resolve_life(&key("1"), &under(policy), [None, None, None], stamps).winner;
    for policy in [Policy::LastWriteWins, Policy::Max, Policy::Min, Policy::AppendUnique] {
        assert_eq!(life(policy, stamps(2, 1)), Winner::Local, "{policy:?}");
        assert_eq!(life(policy, stamps(1, 2)), Winner::Remote, "{policy:?}");
    }
    assert_eq!(life(Policy::ServerWins, stamps(2, 1)), Winner::Remote);
    assert_eq!(life(Policy::DeviceWins, stamps(1, 2)), Winner::Local);
    assert_eq!(life(Policy::Manual, stamps(2, 1)), Winner::Undecided);
}

#[test]
fn a_function_of_the_app_is_told_which_side_is_later_and_whether_one_deleted() {
    let function = ConflictFunction::new("later unless deleted", |meeting| {
        assert_eq!(meeting.local_is_later, meeting.local_edited_at > meeting.remote_edited_at);
        assert_eq!(meeting.field.is_none(), meeting.local.is_null());
        if meeting.local_is_later { MergeDecision::Local } else { MergeDecision::Remote }
    });
    let rules = EntityRules { function: Some(function), ..EntityRules::default() };
    for (stamps, expected) in [(stamps(2, 1), Winner::Local), (stamps(1, 2), Winner::Remote)] {
        let of_field = field(&rules, &json!(1), &json!(2), stamps);
        let by = Some(ResolvedBy {
            field: Some("a".to_owned()),
            function: "later unless deleted".to_owned(),
        });
        assert_eq!((of_field.winner, of_field.rule, of_field.by), (expected, Policy::Function, by));
        let there = fields(json!({"a": 2}));
        let of_life = resolve_life(&key("1"), &rules, [Some(&there), None, Some(&there)], stamps);
        let by = Some(ResolvedBy { field: None, function: "later unless deleted".to_owned() });
        assert_eq!((of_life.winner, of_life.by), (expected, by));
    }
}

#[test]
fn a_function_may_merge_a_field_and_ask_a_person_but_cannot_merge_a_deletion() {
    let rules = |ruling: MergeDecision| {
        let function = ConflictFunction::new("always", move |_| ruling.clone());
        EntityRules { function: Some(function), ..EntityRules::default() }
    };
    let merged = || rules(MergeDecision::Merged(json!(7)));
    let resolution = field(&merged(), &json!(1), &json!(2), stamps(1, 2));
    assert_eq!((resolution.winner, resolution.merged), (Winner::Merged, Some(json!(7))));
    let too_large = rules(MergeDecision::Merged(json!("x".repeat(crate::limits::OP_BYTES + 1))));
    let resolution = field(&too_large, &json!(1), &json!(2), stamps(1, 2));
    assert_eq!(
        (resolution.winner, resolution.merged),
        (Winner::Undecided, None),
        "it breaks a limit"
    );
    assert_eq!(
        field(&rules(MergeDecision::Ask), &json!(1), &json!(2), stamps(1, 2)).winner,
        Winner::Undecided
    );
    let life = |rules: &EntityRules| {
        resolve_life(&key("1"), rules, [None, None, None], stamps(2, 1)).winner
    };
    assert_eq!(life(&merged()), Winner::Local, "the later write");
    assert_eq!(life(&rules(MergeDecision::Ask)), Winner::Undecided);
}

/// A policy whose result does not depend on the side.
fn agreed_policy() -> impl Strategy<Value = Policy> {
    prop::sample::select(vec![Policy::LastWriteWins, Policy::Max, Policy::Min])
}

fn some_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0..3i64).prop_map(|n| json!(n)),
        Just(json!(1.0)),
        Just(json!("x")),
        Just(json!([1]))
    ]
}

proptest! {
    #[test]
    fn two_devices_that_judge_each_other_agree_on_the_winner_and_the_order_has_no_circle(
        edits in [(0..4u64, some_value()), (0..4u64, some_value()), (0..4u64, some_value())], policy in agreed_policy(),
        kinds in any::<bool>(),
    ) {
        let rules = under(policy);
        let stamp = |number: usize| {
            let op = u8::try_from(number).unwrap();
            EditStamp { edited_at: Hlc::from_bits(edits[number].0), op: op_id(op) }
        };
        // A number does not compare with another value, so either all three values are numbers or
        // none is.
        let value = |number: usize| if kinds { json!(edits[number].0 % 3) } else { edits[number].1.clone() };
        let wins = |one: usize, other: usize| {
            let stamps = StampPair { local: stamp(one), remote: stamp(other) };
            field(&rules, &value(one), &value(other), stamps).winner == Winner::Local
        };
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            prop_assert_ne!(wins(one, other), wins(other, one));
        }
        if kinds || policy == Policy::LastWriteWins {
            let circles = |[a, b, c]: [usize; 3]| wins(a, b) && wins(b, c) && wins(c, a);
            prop_assert!(!circles([0, 1, 2]) && !circles([2, 1, 0]));
        }
    }
}
