//! The laws of conflicts: edits are in a total order, in which all devices agree; a rule that is applied again changes nothing.

use fieldbook_core::entry::Winner;
use fieldbook_core::rules::resolve::{LocalEdit, RemoteEdit, Resolution, Settlement, resolve};
use fieldbook_core::{EntityRules, Fields, Hlc, OpId, OpKind, Policy};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::book::{key, some_fields};

proptest! {
    #[test]
    fn all_devices_agree_on_who_wins(edits in [edit(1), edit(2), edit(3)], base in some_fields(), policy in agreed_policy()) {
        let rules = EntityRules { policy, ..EntityRules::default() };
        let wins = |one: &Edit, other: &Edit| settle(&rules, &base, one, other).map(|settlement| settlement.winner);
        for one in &edits {
            for other in edits.iter().filter(|other| other.op != one.op) {
                match (wins(one, other), wins(other, one)) {
                    (None, None) => {}
                    (Some(Winner::Local), Some(Winner::Remote)) | (Some(Winner::Remote), Some(Winner::Local)) => {}
                    seen => prop_assert!(false, "{:?} and {:?}: {:?}", one, other, seen),
                }
            }
        }
        let [a, b, c] = &edits;
        for [x, y, z] in [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]] {
            if wins(x, y) == Some(Winner::Local) && wins(y, z) == Some(Winner::Local) {
                prop_assert_ne!(wins(x, z), Some(Winner::Remote), "the order has no circle");
            }
        }
    }

    #[test]
    fn a_rule_that_is_applied_again_changes_nothing(
        ours in list(), theirs in list(), numbers in (0..4i64, 0..4i64), policy in any_policy(),
    ) {
        let rules = EntityRules { policy, ..EntityRules::default() };
        let values = if policy == Policy::AppendUnique { (json!(ours), json!(theirs)) } else { (json!(numbers.0), json!(numbers.1)) };
        let mine = Edit { op: 1, at: 5, fields: field(values.0) };
        let other = Edit { op: 2, at: 6, fields: field(values.1) };
        let base = field(json!("base"));
        let Some(settlement) = settle(&rules, &base, &mine, &other) else { return Ok(()) };
        let outcome = match settlement.winner {
            Winner::Local => mine.fields.clone(),
            Winner::Remote => other.fields.clone(),
            Winner::Merged => settlement.merged.unwrap(),
            Winner::Undecided => return Ok(()),
        };
        let again = Edit { fields: outcome.clone(), ..mine };
        match settle(&rules, &base, &again, &other) {
            None => prop_assert_eq!(outcome, other.fields),
            Some(second) if second.winner == Winner::Merged => prop_assert_eq!(second.merged.unwrap(), outcome),
            Some(second) => prop_assert_eq!(second.winner, Winner::Local),
        }
    }
}

/// An edit of the field `a`.
#[derive(Debug, Clone)]
struct Edit {
    op: u8,
    at: u64,
    fields: Fields,
}

fn field(value: Value) -> Fields {
    std::iter::once(("a".to_owned(), value)).collect()
}

fn edit(op: u8) -> impl Strategy<Value = Edit> {
    (0..4u64, 0..4i64).prop_map(move |(at, value)| Edit { op, at, fields: field(json!(value)) })
}

fn list() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..5u8, 0..5)
}

fn agreed_policy() -> impl Strategy<Value = Policy> {
    prop::sample::select(vec![Policy::LastWriteWins, Policy::Max, Policy::Min])
}

fn any_policy() -> impl Strategy<Value = Policy> {
    prop::sample::select(vec![
        Policy::LastWriteWins,
        Policy::ServerWins,
        Policy::DeviceWins,
        Policy::Max,
        Policy::Min,
        Policy::AppendUnique,
        Policy::Manual,
    ])
}

/// Returns how one device's edit fares against another's that the server has.
fn settle(rules: &EntityRules, base: &Fields, mine: &Edit, theirs: &Edit) -> Option<Settlement> {
    let op = |edit: &Edit| OpId::from_bytes([edit.op; 16]);
    let edited = (Hlc::from_bits(mine.at), op(mine));
    let mut image = base.clone().into_image();
    image.apply(&theirs.fields);
    let there = Hlc::from_bits(theirs.at);
    let local = LocalEdit { kind: OpKind::Update, fields: &mine.fields, edited, edit_of: &|_| edited };
    let remote =
        RemoteEdit { op: op(theirs), image: Some(&image), edited_at: there, edited_at_of: &|_| there };
    // A base that neither has: where they differ, they meet.
    let mut base = base.clone();
    base.set("a", "base");
    match resolve(&key(0), rules, Some(&base), local, &remote) {
        Resolution::Conflict(settlement) => Some(settlement),
        Resolution::Apart | Resolution::Agreed => None,
    }
}
