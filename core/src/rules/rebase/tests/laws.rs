//! Laws of rebase, over random tails and rows.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::record::Writes;

fn some_policy() -> impl Strategy<Value = Policy> {
    let all = [
        Policy::LastWriteWins,
        Policy::ServerWins,
        Policy::DeviceWins,
        Policy::Max,
        Policy::Min,
        Policy::AppendUnique,
        Policy::Manual,
    ];
    prop::sample::select(all.to_vec())
}

prop_compose! {
    fn some_fields()(members in prop::collection::btree_map("[a-c]", prop_oneof![
        Just(Value::Null), (0..3u8).prop_map(|n| json!(n)), Just(json!([1, 2])), Just(json!([2, 3])),
    ], 1..3)) -> Fields {
        members.into_iter().collect()
    }
}

/// Writes of others: each at a time of its own, so that two with one stamp are the same write.
fn foreign() -> impl Strategy<Value = Vec<Writes>> {
    prop::collection::vec((some_fields(), 2..40u64), 0..4).prop_map(|all| {
        let writes = (90..).zip(all).map(|(op, (said, time))| {
            let stamp = at(time, op);
            let fields: BTreeMap<_, _> = said
                .into_map()
                .into_iter()
                .map(|(name, value)| (name, Register { value, stamp }))
                .collect();
            Writes { does: Does::Edits, stamp, fields, brings_back: None }
        });
        writes.collect()
    })
}

/// A random op: its fields, its time after the op before, its standing and its kind.
type Drawn = (Fields, u64, usize, usize);

/// Local ops in a row. The first ops wait, are dead letters, are unanswered, or came back.
fn ours(kinds: usize, standings: usize) -> impl Strategy<Value = Vec<Drawn>> {
    prop::collection::vec((some_fields(), 1..12u64, 0..standings, 0..kinds), 0..4)
}

fn waiting(before: &Registers, ours: &[Drawn]) -> Vec<Op> {
    let (mut ops, mut time) = (Vec::<Op>::new(), 1);
    for (number, (said, after, standing, kind)) in (1..).zip(ours) {
        time += after;
        let standings = [
            (OpStanding::Waits, false),
            (OpStanding::Dead, false),
            (OpStanding::Waits, true),
            (OpStanding::Dead, true),
            (OpStanding::Unanswered, false),
        ];
        let deletion =
            ops.last().filter(|last| last.tail.deletes()).map(|last| last.tail.writes.stamp);
        let kind = match (kind, deletion) {
            (_, Some(_)) => OpKind::Create,
            (2, None) => OpKind::Replace,
            (3, None) => OpKind::Delete,
            (_, None) => OpKind::Update,
        };
        let said = if kind == OpKind::Delete { Fields::new() } else { said.clone() };
        let known = ops.iter().flat_map(|op| op.tail.named.names().map(str::to_owned));
        let mut known: Vec<_> = known.chain(before.fields.keys().cloned()).collect();
        known.sort_unstable();
        known.dedup();
        known.retain(|name| !said.has(name));
        let sets_all = matches!(kind, OpKind::Create | OpKind::Replace);
        let cleared = if sets_all { known } else { Vec::new() };
        let edited_at = Hlc::from_bits(time);
        let pending = Pending::new(op_id(number), place(number), kind, edited_at);
        let (standing, is_back) = standings[*standing];
        let pending = Pending {
            dead: standing == OpStanding::Dead,
            cleared,
            cleared_at: deletion,
            ..pending
        };
        let content =
            OpContent { id: op_id(number), kind, edited_at, schema_version: 1, fields: said };
        let since = is_back.then(|| before.clone());
        ops.push(Op {
            tail: TailOp::new(pending, content).unwrap(),
            standing,
            since,
            of_former_epoch: false,
        });
    }
    ops
}

proptest! {
    #[test]
    fn a_decision_that_is_applied_leaves_nothing_to_judge(
        ours in ours(4, 5), theirs in foreign(), policy in some_policy(), deletion in prop::option::of(2..40u64),
        whole in prop::bool::weighted(0.2),
    ) {
        let granularity = if whole { Granularity::WholeRecord } else { Granularity::Field };
        let rules = EntityRules { policy, granularity, ..EntityRules::default() };
        let before = server("a=0@1 b=0@1");
        let mut after = before.with(&theirs);
        if let Some(time) = deletion {
            after.join(&Writes { does: Does::Deletes, stamp: at(time, 98), fields: BTreeMap::new(), brings_back: None });
        }
        let mut taken = Taken::new(&rules, waiting(&before, &ours), before.clone());
        let first = taken.take(after.clone());
        let visible = taken.visible();
        prop_assert_eq!(taken.take(after), Vec::<String>::new(), "after {:?}", first);
        prop_assert_eq!(taken.visible(), visible);
    }

    #[test]
    fn without_deletions_the_last_writes_stand_in_whatever_order_they_and_pages_come(
        ours in ours(2, 2), theirs in foreign(), order in Just((0..4usize).collect::<Vec<_>>()).prop_shuffle(),
        told in prop::collection::vec(any::<bool>(), 4),
    ) {
        let rules = EntityRules::default();
        let before = server("a=0@1 b=0@1");
        let all = before.with(&theirs);
        let mut taken = Taken::new(&rules, waiting(&before, &ours), before.clone());
        let mut at_server = before.clone();
        for (number, told) in order.into_iter().zip(told) {
            if let Some(writes) = theirs.get(number) {
                at_server.join(writes);
            }
            if told {
                taken.take(at_server.clone());
            }
        }
        taken.take(at_server);
        prop_assert_eq!(&taken.confirmed, &all);
        let expected = all.with(waiting(&before, &ours).iter().map(|op| &op.tail.writes));
        prop_assert_eq!(taken.visible().image(), expected.image());
    }
}
