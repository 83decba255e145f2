//! Coalesces a record's ops into one change: the join of their writes, as a change of the confirmed
//! record.
//!
//! | confirmed ↓ / with the ops → | live | deleted | unchanged |
//! |---|---|---|---|
//! | live | update with the changes; replace if nothing else is left | delete | nothing |
//! | deleted | create with the whole image | delete with the later stamp | nothing |
//! | not known | create with the whole image | nothing, unless a sent unit may have made it | nothing |
//!
//! Invariants:
//! 1. The change joined to the confirmed record gives the same record as the ops joined one by one.
//! 2. Each field keeps its own stamp.
//! 3. A null is sent wherever its author saw a value, also the value of another op in the same
//!    change. So the server's result does not depend on which ops were sent together.
//!
//! What it does not do: decide which ops may be sent together. That is [`super::plan`].

use std::collections::BTreeSet;

use crate::entry::CancelledReason;
use crate::fields::Fields;
use crate::op::OpKind;
use crate::record::{Does, EditStamp, FieldWrites, Life, Registers, TailOp, list_by_write};

/// One change made of some ops.
#[derive(Debug, Clone, PartialEq)]
pub struct Coalesced {
    /// What the change does.
    pub kind: OpKind,
    /// An image for create and replace, a patch for update; nothing for delete. Nulls are kept:
    /// they are values.
    pub fields: Fields,
    /// The stamp of the last op, which fields have that are not among `older`.
    pub stamp: EditStamp,
    /// The writes of the fields that have another stamp.
    pub older: Vec<FieldWrites>,
    /// The record after the change.
    pub after: Registers,
}

/// Coalesces ops, oldest first. `was_sent` is true if a unit with some of them may have reached the
/// server.
///
/// # Errors
/// The reason why nothing needs to be sent.
pub fn coalesce<'a>(
    confirmed: &Registers,
    ops: impl Iterator<Item = &'a TailOp> + Clone,
    was_sent: bool,
) -> Result<Coalesced, CancelledReason> {
    let after = confirmed.with(ops.clone().map(|op| &op.writes));
    let says_something = |op: &TailOp| op.writes.does != Does::Nothing;
    match after.life {
        _ if !ops.clone().any(says_something) => Err(CancelledReason::NoEffect),
        Life::Unknown => Err(CancelledReason::NoEffect),
        Life::Deleted => deletion(confirmed, after, ops, was_sent),
        Life::Live => change(confirmed, after, ops),
    }
}

fn deletion<'a>(
    confirmed: &Registers,
    after: Registers,
    mut ops: impl Iterator<Item = &'a TailOp>,
    was_sent: bool,
) -> Result<Coalesced, CancelledReason> {
    let is_later = after.stamp > confirmed.stamp;
    let counts = match confirmed.life {
        Life::Live => true,
        Life::Deleted => is_later,
        Life::Unknown => was_sent,
    };
    if !counts {
        let made_here =
            confirmed.life == Life::Unknown && ops.any(|op| op.writes.does == Does::Creates);
        return Err(if made_here {
            CancelledReason::CreatedAndDeleted
        } else {
            CancelledReason::NoEffect
        });
    }
    Ok(Coalesced {
        kind: OpKind::Delete,
        fields: Fields::new(),
        stamp: after.stamp,
        older: Vec::new(),
        after,
    })
}

fn change<'a>(
    confirmed: &Registers,
    after: Registers,
    ops: impl Iterator<Item = &'a TailOp> + Clone,
) -> Result<Coalesced, CancelledReason> {
    let last = |name: &str| ops.clone().filter(|op| op.writes.fields.contains_key(name)).last();
    let is_named = |name: &str| last(name).is_some_and(|op| op.named.has(name));
    // A creation removes the fields that an earlier deletion of this device showed, with the
    // deletion's stamp. Such a field was gone before the creation.
    let is_said =
        |name: &str| is_named(name) || last(name).is_some_and(|op| op.pending.cleared_at.is_none());
    let stamp =
        ops.clone().filter(|op| op.writes.does != Does::Nothing).last().map(|op| op.writes.stamp);
    let stamp = stamp.unwrap_or_default();
    // A raised null may be the only write above a deletion.
    let is_above = |name: &str| stamp <= confirmed.stamp && after.stamp_of(name) > confirmed.stamp;
    let lifts = |name: &str| confirmed.is_deleted() && is_above(name);
    let is_there = confirmed.is_live();
    let mut changed = Fields::new();
    // Fields that a deletion of this device removed are among the confirmed fields only.
    let names: BTreeSet<&String> = after.fields.keys().chain(confirmed.fields.keys()).collect();
    for name in names {
        let value = after.value_of(name);
        let is_new = !is_there || after.stamp_of(name) > confirmed.stamp_of(name);
        let counts = || !confirmed.value_of(name).is_null() || is_said(name) || lifts(name);
        if is_new && (!value.is_null() || counts()) {
            changed.set(name.clone(), value.clone());
        }
    }
    if is_there && changed.is_empty() {
        return Err(CancelledReason::NoEffect);
    }
    let sets_all = |op: &TailOp| {
        op.kind == OpKind::Replace
            || op.deletes()
            || op.kind == OpKind::Create && !op.pending.cleared.is_empty()
    };
    let is_all = || changed.clone().into_image() == after.image().unwrap_or_default();
    let kind = match is_there {
        false => OpKind::Create,
        true if ops.clone().any(sets_all) && is_all() => OpKind::Replace,
        true => OpKind::Update,
    };
    let takes_away =
        |name: &str| after.value_of(name).is_null() && confirmed.fields.contains_key(name);
    let fields = match kind {
        // A replace removes the server's fields that it does not name.
        OpKind::Replace => changed.filtered(|name| !takes_away(name) || is_named(name)),
        _ => changed.clone(),
    };
    let older = older(&changed, &after, stamp);
    Ok(Coalesced { kind, fields, stamp, older, after })
}

/// Lists the fields that do not have the change's own stamp.
fn older(fields: &Fields, after: &Registers, own: EditStamp) -> Vec<FieldWrites> {
    let stamps = fields.names().map(|name| (name.to_owned(), after.stamp_of(name)));
    list_by_write(stamps.filter(|(_, stamp)| *stamp != own))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::protocol::UnitChange;
    use crate::rules::test_tail::{deleted, tail_op, there};
    use crate::rules::test_view::{fields, key, op_id};
    use crate::time::Hlc;

    fn sent(
        confirmed: &Registers,
        ops: &[TailOp],
    ) -> Result<(OpKind, Value, u64), CancelledReason> {
        let sent = coalesce(confirmed, ops.iter(), false)?;
        let said = Value::Object(sent.fields.into_map().into_iter().collect());
        Ok((sent.kind, said, sent.stamp.edited_at.to_bits()))
    }

    fn with_cleared(mut op: TailOp, names: &[&str], at: Option<EditStamp>) -> TailOp {
        op.pending.cleared = names.iter().map(|name| (*name).to_owned()).collect();
        op.pending.cleared_at = at;
        op.write();
        op
    }

    fn record() -> Registers {
        there(&[("a", json!(0), 99, 0), ("b", json!(0), 99, 0)])
    }

    #[test]
    fn what_ops_do_to_a_record_that_is_there_is_an_update_with_what_changed() {
        let ops = [
            tail_op(1, OpKind::Update, json!({"a": 1, "b": 1})),
            tail_op(2, OpKind::Update, json!({"a": 2})),
        ];
        assert_eq!(sent(&record(), &ops), Ok((OpKind::Update, json!({"a": 2, "b": 1}), 2)));
        let older = coalesce(&record(), ops.iter(), false).unwrap().older;
        let listed = FieldWrites {
            edited_at: Hlc::from_bits(1),
            op: op_id(1),
            fields: vec!["b".to_owned()],
        };
        assert_eq!(older, [listed], "each field goes with the stamp that it has");
    }

    #[test]
    fn a_replace_is_said_where_it_comes_to_one_and_is_an_update_with_nulls_where_a_field_stays() {
        let replace = with_cleared(tail_op(1, OpKind::Replace, json!({"b": 1})), &["a"], None);
        let expected = Ok((OpKind::Replace, json!({"b": 1}), 1));
        assert_eq!(sent(&record(), std::slice::from_ref(&replace)), expected);
        let with_theirs = there(&[("a", json!(0), 99, 0), ("c", json!(9), 99, 0)]);
        let expected = Ok((OpKind::Update, json!({"a": null, "b": 1}), 1));
        assert_eq!(sent(&with_theirs, &[replace]), expected, "its author never saw `c`");
    }

    #[test]
    fn what_is_made_is_a_create_with_the_whole_image_whatever_was_beneath() {
        let ops = [
            tail_op(1, OpKind::Create, json!({"a": 1})),
            tail_op(2, OpKind::Update, json!({"b": 2})),
        ];
        let expected = Ok((OpKind::Create, json!({"a": 1, "b": 2}), 2));
        assert_eq!(sent(&Registers::default(), &ops), expected);
        assert_eq!(sent(&deleted(99, 0), &ops), expected);
    }

    #[test]
    fn a_deletion_covers_what_was_before_it_and_is_sent_over_an_earlier_one() {
        let ops =
            [tail_op(1, OpKind::Update, json!({"a": 1})), tail_op(2, OpKind::Delete, json!({}))];
        let deletion = Ok((OpKind::Delete, json!({}), 2));
        assert_eq!(sent(&record(), &ops), deletion);
        assert_eq!(sent(&deleted(99, 1), &ops), deletion, "it raises the stamp of what is deleted");
        assert_eq!(sent(&deleted(99, 5), &ops), Err(CancelledReason::NoEffect));
    }

    #[test]
    fn what_was_made_and_deleted_here_is_nothing_unless_a_unit_with_it_was_sent() {
        let ops =
            [tail_op(1, OpKind::Create, json!({"a": 1})), tail_op(2, OpKind::Delete, json!({}))];
        assert_eq!(sent(&Registers::default(), &ops), Err(CancelledReason::CreatedAndDeleted));
        let again = coalesce(&Registers::default(), ops.iter(), true).map(|sent| sent.kind);
        assert_eq!(again, Ok(OpKind::Delete));
    }

    #[test]
    fn a_deletion_and_a_creation_of_ours_take_away_what_was_there_with_the_stamp_of_the_deletion() {
        let deletion = tail_op(1, OpKind::Delete, json!({}));
        let at = Some(deletion.writes.stamp);
        let ops = [deletion, with_cleared(tail_op(2, OpKind::Create, json!({"a": 2})), &["b"], at)];
        assert_eq!(sent(&record(), &ops), Ok((OpKind::Replace, json!({"a": 2}), 2)));
        let typed_since = there(&[("a", json!(0), 99, 0), ("b", json!(9), 99, 1)]);
        let after = coalesce(&typed_since, ops.iter(), false).unwrap().after;
        // Equal times: op 199 is above op 101.
        assert_eq!(
            after.image(),
            Some(fields(json!({"a": 2, "b": 9}))),
            "by the stamp of the deletion it falls"
        );
    }

    #[test]
    fn a_null_is_sent_wherever_its_author_saw_a_value_whatever_goes_along() {
        let cleared = || with_cleared(tail_op(2, OpKind::Replace, json!({"b": 1})), &["own"], None);
        let record = there(&[("a", json!(0), 99, 50), ("b", json!(0), 99, 0)]);
        let expected = Ok((OpKind::Update, json!({"b": 1, "own": null}), 2));
        assert_eq!(
            sent(&record, &[cleared()]),
            expected,
            "the value of ours that it took away went before it"
        );
        let with_value = [tail_op(1, OpKind::Update, json!({"own": 1})), cleared()];
        assert_eq!(sent(&record, &with_value), expected, "or goes along");
        let written = tail_op(1, OpKind::Update, json!({"gone": null}));
        assert_eq!(sent(&record, &[written]), Ok((OpKind::Update, json!({"gone": null}), 1)));
    }

    /// The null was not sent. So the creation was below the deletion in the server's join, and had
    /// no effect.
    #[test]
    fn a_null_that_a_policy_raised_is_sent_where_it_is_all_that_stands_above_a_deletion() {
        let mut replace = with_cleared(tail_op(1, OpKind::Replace, json!({"b": 1})), &["a"], None);
        replace.raise(&["a".to_owned()], Hlc::from_bits(5), None);
        replace.write();
        let expected = Ok((OpKind::Create, json!({"a": null, "b": 1}), 1));
        assert_eq!(sent(&deleted(99, 4), &[replace]), expected);
    }

    #[test]
    fn what_theirs_is_above_says_nothing_any_more() {
        let theirs = there(&[("a", json!(9), 99, 50), ("b", json!(0), 99, 0)]);
        let ops = [tail_op(1, OpKind::Update, json!({"a": 1}))];
        assert_eq!(sent(&theirs, &ops), Err(CancelledReason::NoEffect));
        let ops = [tail_op(1, OpKind::Update, json!({"a": 1, "b": 1}))];
        assert_eq!(sent(&theirs, &ops), Ok((OpKind::Update, json!({"b": 1}), 1)));
    }

    prop_compose! {
        fn some_fields()(members in prop::collection::btree_map("[a-c]", prop_oneof![
            Just(Value::Null), (0..3u8).prop_map(|n| json!(n)),
        ], 1..3)) -> Value {
            Value::Object(members.into_iter().collect())
        }
    }

    fn some_record() -> impl Strategy<Value = Registers> {
        let field = (0..3u8, 0..9u64, prop::bool::weighted(0.2));
        let live = prop::collection::btree_map("[a-c]", field, 0..4).prop_map(|fields| {
            let value = |number: u8, is_null| if is_null { Value::Null } else { json!(number) };
            let fields = fields.iter();
            let fields = fields.map(|(name, (number, at, is_null))| {
                (name.as_str(), value(*number, *is_null), 99, *at)
            });
            there(&fields.collect::<Vec<_>>())
        });
        prop_oneof![3 => live, 1 => (0..9u64).prop_map(|at| deleted(99, at)), 1 => Just(Registers::default())]
    }

    proptest! {
        /// Ops are made at 1, 2, 3 and so on. The server's state may be later than any of them, and
        /// policies removed and raised some fields.
        #[test]
        fn what_is_sent_joined_to_what_is_confirmed_is_what_the_ops_joined_one_by_one_come_to(
            confirmed in some_record(),
            ops in prop::collection::vec((some_fields(), 0..4usize, prop::option::of("[a-c]"), prop::option::of(5..12u64)), 1..5),
        ) {
            let kinds = [OpKind::Create, OpKind::Update, OpKind::Replace, OpKind::Delete];
            let mut tail: Vec<TailOp> = Vec::new();
            for (number, (said, kind, lost, raised)) in (1..).zip(ops) {
                let kind = kinds[kind];
                let mut op = tail_op(number, kind, if kind == OpKind::Delete { json!({}) } else { said });
                let deletion = tail.last().filter(|last| last.deletes()).map(|last| last.writes.stamp);
                if kind == OpKind::Replace || kind == OpKind::Create && deletion.is_some() {
                    let known = ["a", "b", "c"].into_iter().filter(|name| !op.named.has(name)).collect::<Vec<_>>();
                    op = with_cleared(op, &known, deletion.filter(|_| kind == OpKind::Create));
                }
                if let Some(raised) = raised {
                    op.raise(&["a".to_owned()], Hlc::from_bits(raised), None);
                }
                op.drop_fields(&Vec::from_iter(lost));
                op.write();
                tail.push(op);
            }
            let one_by_one = confirmed.with(tail.iter().map(|op| &op.writes));
            let read = |record: &Registers| record.image().map(|image| {
                let stamped = image.iter().map(|(name, value)| (name.to_owned(), value.clone(), record.stamp_of(name)));
                stamped.collect::<Vec<_>>()
            });
            match coalesce(&confirmed, tail.iter(), false) {
                Err(_) => prop_assert_eq!(read(&one_by_one), read(&confirmed), "they come to nothing"),
                Ok(sent) => {
                    let Coalesced { kind, fields, stamp, older, after } = sent;
                    prop_assert_eq!(&after, &one_by_one);
                    let change = UnitChange {
                        key: key("1"),
                        kind,
                        base: None,
                        ops: vec![stamp.op],
                        edited_at: stamp.edited_at,
                        older,
                        schema_version: 1,
                        fields: None,
                    };
                    let mut at_once = confirmed;
                    at_once.join_sent(&change, fields);
                    prop_assert_eq!(read(&at_once), read(&one_by_one));
                }
            }
        }
    }
}
