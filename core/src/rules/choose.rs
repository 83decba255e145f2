//! What a person's choice in an open conflict comes to.
//!
//! | the person chooses | the op that waits | what ends with it |
//! |---|---|---|
//! | the local values | is sent as it is | nothing |
//! | other values | is sent with these on top | nothing |
//! | the server's values, by field | loses the fields in question; ends if none is left | nothing |
//! | the server's values, where the whole record is in question | ends | the earlier ops that would be one change with it |
//!
//! Invariants:
//! 1. Once a person has chosen, the op is not held any more.
//! 2. What may have left is not ended by a choice, nor is a dead letter, which waits for a choice of its own.
//! 3. The decisions name every op that ends, so applying them needs no rule.

use super::not_possible::NotPossible;
use crate::entry::{Decision, ItemIndex, ParkScope, PlannedOp, Winner};
use crate::fields::Fields;
use crate::rows::{ConflictRow, RecordRow, TailRef};
use crate::tail::Tail;

/// What a person chooses in an open conflict.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// The local values.
    Mine,
    /// The server's values.
    Theirs,
    /// Other values for the fields in question.
    Merged(Fields),
}

/// What a choice comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// Whose values stand.
    pub winner: Winner,
    /// The fields that the op loses.
    pub lost: Vec<String>,
    /// The values that it gets instead.
    pub merged: Option<Fields>,
    /// The ops that end, oldest first.
    pub ends: Vec<PlannedOp>,
}

/// Decides what a choice comes to. `record` is the row of the conflict's record, `effective` what its op would still send.
///
/// # Errors
/// [`NotPossible::ConflictIsSettled`] if there is nothing to choose any more.
pub fn choose(
    conflict: &ConflictRow,
    record: &RecordRow,
    tail: &Tail,
    effective: &Fields,
    choice: &Choice,
) -> Result<Chosen, NotPossible> {
    if !conflict.open {
        return Err(NotPossible::ConflictIsSettled);
    }
    let stands = |winner, merged| Chosen { winner, lost: Vec::new(), merged, ends: Vec::new() };
    Ok(match choice {
        Choice::Mine => stands(Winner::Local, None),
        Choice::Merged(fields) => stands(Winner::Merged, Some(fields.clone())),
        Choice::Theirs => {
            let open = conflict.fields.iter().filter(|(.., winner)| *winner == Winner::Undecided);
            let lost: Vec<_> = open.map(|(name, ..)| name.clone()).collect();
            let is_whole = conflict.fields.is_empty();
            let has_nothing_left = effective.names().all(|name| lost.iter().any(|lost| lost == name));
            let mut ends = Vec::new();
            if is_whole {
                ends.extend(goes_along(record, tail, conflict.op));
            }
            if is_whole || has_nothing_left {
                ends.push(conflict.op);
            }
            Chosen { winner: Winner::Remote, lost, merged: None, ends }
        }
    })
}

/// Returns the earlier ops that would be one change with an op.
fn goes_along(record: &RecordRow, tail: &Tail, op: PlannedOp) -> impl Iterator<Item = PlannedOp> {
    let would_go_with_it = move |reference: &&TailRef| {
        reference.place < op.place && !reference.dead && tail.unit_of(reference.place).is_none()
    };
    let earlier = record.tail.iter().filter(would_go_with_it);
    earlier.map(|reference| PlannedOp { id: reference.op, place: reference.place })
}

impl Chosen {
    /// Returns the decisions. `merged` is the item with the values that the op gets.
    pub fn decisions(self, conflict: &ConflictRow, merged: Option<ItemIndex>) -> Vec<Decision> {
        let (key, op) = (&conflict.key, conflict.op);
        let resolved =
            Decision::Resolved { key: key.clone(), op, winner: self.winner, lost: self.lost, merged };
        let goes_on = Decision::Unparked { scope: ParkScope::Op(op.id) };
        let ended = self.ends.into_iter().map(|op| Decision::Superseded { key: key.clone(), op });
        [resolved, goes_on].into_iter().chain(ended).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::op::OpKind;
    use crate::rules::desk::{fields, key, op_id, unit_id};
    use crate::rules::test_tail::{conflict, pending, planned, row_of, unit_of};

    /// A conflict of op 3, which is open in these fields, and settled in another one.
    fn by_field(open: &[&str]) -> ConflictRow {
        let undecided = open.iter().map(|name| (*name, Winner::Undecided));
        let settled: Vec<_> = std::iter::once(("settled", Winner::Local)).chain(undecided).collect();
        ConflictRow { op: planned(3), ..conflict(OpKind::Update, Winner::Undecided, false, &settled) }
    }

    /// A conflict of op 3 about the whole record.
    fn whole() -> ConflictRow {
        ConflictRow { op: planned(3), ..conflict(OpKind::Delete, Winner::Undecided, false, &[]) }
    }

    /// Chooses where ops 1 to 3 of the record wait, op 3 with the fields `a` and `b`.
    fn chosen(conflict: &ConflictRow, choice: &Choice) -> Result<Chosen, NotPossible> {
        let effective = fields(json!({"a": 1, "b": 2}));
        choose(conflict, &row_of(true, &[1, 2, 3]), &Tail::default(), &effective, choice)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn who_chooses_the_local_values_has_the_op_sent_as_it_is() {
        for conflict in [by_field(&["a"]), whole()] {
            let stands = Chosen { winner: Winner::Local, lost: Vec::new(), merged: None, ends: Vec::new() };
            assert_eq!(chosen(&conflict, &Choice::Mine), Ok(stands));
        }
    }

    #[test]
    fn who_chooses_other_values_has_the_op_sent_with_these() {
        let other = fields(json!({"a": 3}));
        let merged = Some(other.clone());
        let stands = Chosen { winner: Winner::Merged, lost: Vec::new(), merged, ends: Vec::new() };
        assert_eq!(chosen(&by_field(&["a"]), &Choice::Merged(other)), Ok(stands));
    }

    #[test]
    fn an_op_loses_the_fields_in_question_and_ends_if_none_is_left() {
        let loses = |lost: &[&str], ends| {
            Ok(Chosen { winner: Winner::Remote, lost: names(lost), merged: None, ends })
        };
        assert_eq!(chosen(&by_field(&["a"]), &Choice::Theirs), loses(&["a"], Vec::new()));
        assert_eq!(chosen(&by_field(&["a", "b"]), &Choice::Theirs), loses(&["a", "b"], vec![planned(3)]));
    }

    #[test]
    fn where_the_whole_record_is_in_question_the_earlier_ops_end_with_it() {
        let chosen = chosen(&whole(), &Choice::Theirs).unwrap();
        assert_eq!(chosen.ends, [planned(1), planned(2), planned(3)]);
    }

    #[test]
    fn a_choice_ends_no_dead_letter_nothing_under_way_and_nothing_later() {
        let mut tail = pending(&[("1", OpKind::Update), ("1", OpKind::Update), ("1", OpKind::Delete)]);
        tail.put_unit(unit_id(1), &unit_of("1", vec![planned(1)]));
        let mut record = row_of(true, &[1, 2, 3, 4]);
        record.tail[1].dead = true;
        let chosen = choose(&whole(), &record, &tail, &Fields::new(), &Choice::Theirs).unwrap();
        assert_eq!(chosen.ends, [planned(3)]);
    }

    #[test]
    fn what_is_settled_is_not_chosen_in() {
        let settled = ConflictRow { open: false, ..by_field(&["a"]) };
        for choice in [Choice::Mine, Choice::Theirs, Choice::Merged(Fields::new())] {
            assert_eq!(chosen(&settled, &choice), Err(NotPossible::ConflictIsSettled));
        }
    }

    #[test]
    fn the_decisions_say_who_won_that_the_op_goes_on_and_what_ends() {
        let conflict = whole();
        let chosen = Chosen {
            winner: Winner::Remote,
            lost: names(&["a"]),
            merged: None,
            ends: vec![planned(1), planned(3)],
        };
        let (winner, lost) = (chosen.winner, chosen.lost.clone());
        let ended = |op| Decision::Superseded { key: key("1"), op };
        let expected = [
            Decision::Resolved { key: key("1"), op: planned(3), winner, lost, merged: Some(7) },
            Decision::Unparked { scope: ParkScope::Op(op_id(3)) },
            ended(planned(1)),
            ended(planned(3)),
        ];
        assert_eq!(chosen.decisions(&conflict, Some(7)), expected);
    }
}
