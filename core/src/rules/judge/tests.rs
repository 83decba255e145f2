//! An edit of several ops is judged as one, and what comes of it is dealt back to them.

use super::*;
use crate::ids::OpId;
use crate::op::OpPlace;
use crate::schema::Policy;
use serde_json::json;

fn fields(value: Value) -> Fields {
    Fields::from_value(value).unwrap()
}

fn named(number: u8) -> PlannedOp {
    PlannedOp { id: OpId::from_bytes([number; 16]), place: OpPlace::default() }
}

/// Ops numbered and made at 1, 2, 3, …
fn edit(base: Option<Value>, ops: Vec<(OpKind, Value)>) -> Edit {
    let ops = (1..).zip(ops).map(|(number, (kind, value))| EditOp {
        op: named(number),
        kind,
        edited_at: Hlc::from_bits(u64::from(number)),
        fields: fields(value),
    });
    Edit { ops: ops.collect(), stale: false, base: base.map(fields), hides_theirs: false }
}

fn against(rules: &EntityRules, edit: Edit, theirs: Option<Value>, at: u64) -> Vec<Verdict> {
    let theirs = theirs.map(fields);
    let remote = RemoteEdit {
        op: OpId::from_bytes([99; 16]),
        image: theirs.as_ref(),
        edited_at: Hlc::from_bits(at),
        edited_at_of: &|_| Hlc::from_bits(at),
    };
    judge(&RecordKey::parse("lead", "1").unwrap(), rules, edit, &remote)
}

/// Returns what the verdicts come to: op numbers that end, and the fields that ops lose in conflicts.
fn summary(verdicts: &[Verdict]) -> (Vec<u8>, Vec<(u8, Vec<&str>)>) {
    let number = |op: &PlannedOp| op.id.as_bytes()[0];
    let (mut ended, mut lost) = (Vec::new(), Vec::new());
    for verdict in verdicts {
        match verdict {
            Verdict::Superseded(op) => ended.push(number(op)),
            Verdict::Annulled(ops, _) => ended.extend(ops.iter().map(number)),
            Verdict::Conflicted(clash) => lost.push((number(&clash.op), clash.settlement.lost().collect())),
        }
    }
    (ended, lost)
}

#[test]
fn a_value_that_we_set_anew_does_not_come_back_when_the_later_one_loses() {
    let ops = vec![(OpKind::Update, json!({"a": 1})), (OpKind::Update, json!({"a": 2}))];
    let verdicts =
        against(&EntityRules::default(), edit(Some(json!({"a": 0})), ops), Some(json!({"a": 9})), 5);
    assert_eq!(summary(&verdicts), (vec![2, 1], vec![(2, vec!["a"])]));
}

#[test]
fn a_larger_value_that_we_gave_up_does_not_come_back_by_the_rule_for_the_larger() {
    let rules = EntityRules { policy: Policy::Max, ..EntityRules::default() };
    let ops = vec![(OpKind::Update, json!({"a": 9})), (OpKind::Update, json!({"a": 3}))];
    let verdicts = against(&rules, edit(Some(json!({"a": 1})), ops), Some(json!({"a": 5})), 1);
    assert_eq!(summary(&verdicts).0, [2, 1]);
}

#[test]
fn an_op_with_another_field_loses_the_overwritten_one_and_stays() {
    let ops = vec![(OpKind::Update, json!({"a": 1, "b": 1})), (OpKind::Update, json!({"a": 2}))];
    let verdicts =
        against(&EntityRules::default(), edit(Some(json!({"a": 0})), ops), Some(json!({"a": 9})), 5);
    assert_eq!(summary(&verdicts), (vec![2], vec![(2, vec!["a"]), (1, vec!["a"])]));
}

#[test]
fn an_earlier_value_of_ours_gives_way_where_theirs_is_what_we_said_last() {
    let ops = |first| vec![(OpKind::Update, first), (OpKind::Update, json!({"a": 2}))];
    let theirs = || Some(json!({"a": 2}));
    let judged = |base, first| {
        let verdicts = against(&EntityRules::default(), edit(Some(base), ops(first)), theirs(), 1);
        let (ended, lost) = summary(&verdicts);
        (ended, lost.into_iter().map(|(op, _)| op).collect::<Vec<_>>())
    };
    assert_eq!(judged(json!({"a": 0}), json!({"a": 1})), (vec![1], vec![1]));
    assert_eq!(judged(json!({"a": 0}), json!({"a": 1, "b": 1})), (vec![], vec![1]));
    assert_eq!(judged(json!({"a": 0}), json!({"a": 2})), (vec![], vec![]), "all say the same");
    assert_eq!(judged(json!({"a": 2}), json!({"a": 1})), (vec![], vec![]), "they changed nothing");
}

#[test]
fn what_may_have_reached_the_server_is_not_taken_back_as_if_nobody_had_heard_of_it() {
    let ops = || vec![(OpKind::Create, json!({"a": 1})), (OpKind::Delete, json!({}))];
    let stale = Edit { stale: true, ..edit(None, ops()) };
    let verdicts = against(&EntityRules::default(), stale, Some(json!({"a": 9})), 1);
    assert!(matches!(&verdicts[..], [Verdict::Conflicted(clash)] if clash.kind == OpKind::Delete));
    let verdicts = against(&EntityRules::default(), edit(None, ops()), Some(json!({"a": 9})), 1);
    assert!(matches!(&verdicts[..], [Verdict::Annulled(_, AnnulledReason::CreatedAndDeleted)]));
}

#[test]
fn both_sides_come_to_the_same_if_both_deleted_or_set_the_record_to_the_same() {
    let come = |ops: Vec<(OpKind, Value)>, theirs: Option<Value>| {
        agrees_as_a_whole(&edit(None, ops).ops, theirs.map(fields).as_ref())
    };
    let delete = || (OpKind::Delete, json!({}));
    let create = |value| (OpKind::Create, json!({"a": value, "gone": null}));
    assert!(come(vec![delete()], None));
    assert!(!come(vec![delete()], Some(json!({"a": 1}))));
    assert!(come(vec![delete(), create(1)], Some(json!({"a": 1}))));
    assert!(!come(vec![delete(), create(1)], Some(json!({"a": 2}))));
    assert!(!come(vec![delete(), create(1)], None));
    assert!(!come(vec![create(1)], Some(json!({"a": 1}))), "a create is put on top of theirs");
    assert!(!come(Vec::new(), None));
}

#[test]
fn what_a_lost_delete_covered_ends_with_it() {
    let ops = vec![(OpKind::Update, json!({"b": 1})), (OpKind::Delete, json!({}))];
    let verdicts =
        against(&EntityRules::default(), edit(Some(json!({"a": 0})), ops), Some(json!({"a": 9})), 5);
    assert_eq!(summary(&verdicts), (vec![2, 1], vec![(2, vec![])]));
}

#[test]
fn what_a_delete_covered_ends_with_it_when_both_sides_deleted() {
    let ops = vec![(OpKind::Update, json!({"b": 1})), (OpKind::Delete, json!({}))];
    let verdicts = against(&EntityRules::default(), edit(Some(json!({"a": 0})), ops), None, 5);
    assert_eq!(verdicts, [Verdict::Annulled(vec![named(1), named(2)], AnnulledReason::NoEffect)]);
}

#[test]
fn a_delete_and_a_create_are_one_replace_that_loses_whole() {
    let ops = vec![(OpKind::Delete, json!({})), (OpKind::Create, json!({"a": 1, "x": 1}))];
    let verdicts =
        against(&EntityRules::default(), edit(Some(json!({"a": 0})), ops), Some(json!({"a": 9})), 5);
    assert_eq!(summary(&verdicts).0, [2, 1]);
    assert!(matches!(&verdicts[0], Verdict::Conflicted(clash) if clash.kind == OpKind::Replace
        && clash.settlement.local == fields(json!({"a": 1, "x": 1}))));
}

#[test]
fn a_create_and_a_replace_do_not_take_fields_away_unseen_from_what_someone_else_created() {
    let ops = vec![(OpKind::Create, json!({"a": 1})), (OpKind::Replace, json!({"b": 1}))];
    let verdicts = against(&EntityRules::default(), edit(None, ops), Some(json!({"c": 9})), 1);
    assert!(matches!(&verdicts[..], [Verdict::Conflicted(clash)] if clash.kind == OpKind::Replace
        && clash.settlement.remote == fields(json!({"c": 9}))));
}

#[test]
fn created_and_deleted_here_says_nothing_about_a_record_that_someone_else_made() {
    let ops = vec![
        (OpKind::Create, json!({"a": 1})),
        (OpKind::Delete, json!({})),
        (OpKind::Create, json!({"x": 1})),
    ];
    let verdicts = against(&EntityRules::default(), edit(None, ops), Some(json!({"a": 9})), 1);
    let annulled = Verdict::Annulled(vec![named(1), named(2)], AnnulledReason::CreatedAndDeleted);
    assert_eq!(verdicts, [annulled]);
}

#[test]
fn an_earlier_value_is_given_up_while_a_person_has_yet_to_choose_about_the_last() {
    let rules = EntityRules { policy: Policy::Manual, ..EntityRules::default() };
    let ops = vec![(OpKind::Update, json!({"a": 1})), (OpKind::Update, json!({"a": 2}))];
    let verdicts = against(&rules, edit(Some(json!({"a": 0})), ops), Some(json!({"a": 9})), 5);
    assert_eq!(summary(&verdicts), (vec![1], vec![(2, vec![])]));
}
