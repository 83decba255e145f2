//! The effect of a person's choice in an open conflict.
//!
//! | the person chooses | the waiting op | other ops that end |
//! |---|---|---|
//! | the local values | is sent unchanged | none |
//! | other values | is sent with these, above both sides | none |
//! | the server's values, by field | loses the fields of the conflict; ends if none is left | earlier waiting ops, in the same way |
//! | the server's values, if one side deletes | ends | earlier waiting ops; later ops, if no record is left |
//!
//! Invariants:
//! 1. Once a person has chosen, the op is not held any more.
//! 2. A choice changes no op that may have left.
//! 3. A choice ends no dead letter, which needs its own decision. The dead letter loses what a
//!    waiting op would lose: if it is sent again, it must not go over the chosen values.
//! 4. The decisions name every op that ends, so applying them needs no rule.

use super::not_possible::NotPossible;
use crate::entry::{Decision, ItemIndex, ParkScope, PlannedOp, Winner};
use crate::fields::Fields;
use crate::record::{Registers, TailOp, fall_with};
use crate::rows::ConflictRow;
use crate::time::Hlc;

/// A person's choice in an open conflict.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// The local values.
    Local,
    /// The server's values.
    Remote,
    /// Other values for the fields in question.
    Merged(Fields),
}

/// The effect of a choice.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// The side whose values win.
    pub winner: Winner,
    /// The ops that lose fields. A dead letter without named fields loses everything.
    pub dropped: Vec<(PlannedOp, Vec<String>)>,
    /// The values that the op gets instead, and the time of their edit.
    pub merged: Option<(Fields, Hlc)>,
    /// The ops that end, oldest first.
    pub ends: Vec<PlannedOp>,
    /// The later ops that end because their record is gone.
    pub discarded: Vec<PlannedOp>,
}

/// Decides the effect of a choice. `confirmed` is the server's state of the conflict's record,
/// `tail` are its pending ops, oldest first, and `is_unanswered` returns whether an op is in a unit
/// without a final answer.
///
/// # Errors
/// [`NotPossible::ConflictIsResolved`] if there is nothing left to choose.
pub fn choose(
    conflict: &ConflictRow,
    confirmed: &Registers,
    tail: &[TailOp],
    is_unanswered: impl Fn(&TailOp) -> bool,
    choice: &Choice,
) -> Result<Chosen, NotPossible> {
    if !conflict.open {
        return Err(NotPossible::ConflictIsResolved);
    }
    let stands = |winner, merged| Chosen {
        winner,
        dropped: Vec::new(),
        merged,
        ends: Vec::new(),
        discarded: Vec::new(),
    };
    let answered = || tail.iter().filter(|op| !is_unanswered(op));
    Ok(match choice {
        Choice::Local => stands(Winner::Local, None),
        Choice::Merged(fields) => {
            let own =
                tail.iter().find(|op| op.op.id == conflict.op.id).map(|op| op.writes.greatest());
            let above = own.unwrap_or_default().max(confirmed.stamp).edited_at.next();
            stands(Winner::Merged, Some((fields.clone(), above)))
        }
        Choice::Remote if conflict.fields.is_empty() => {
            let (lost, later): (Vec<_>, Vec<_>) =
                answered().partition(|op| op.op.place <= conflict.op.place);
            let waiting = |ops: &[&TailOp]| {
                ops.iter().filter(|op| !op.pending.dead).map(|op| op.op).collect()
            };
            let of_lost: Vec<_> = lost.iter().map(|op| op.op).collect();
            let mut dropped = fall_with(tail.iter().map(|op| &op.pending), &of_lost);
            let letters = lost.iter().filter(|op| op.pending.dead && !op.pending.emptied);
            dropped.extend(letters.map(|letter| (letter.op, Vec::new())));
            // Without the record, later ops have nothing to change.
            let discarded = if confirmed.is_live() { Vec::new() } else { waiting(&later) };
            Chosen { dropped, ends: waiting(&lost), discarded, ..stands(Winner::Remote, None) }
        }
        Choice::Remote => {
            let open = conflict.fields.iter().filter(|field| field.winner == Winner::Undecided);
            let lost: Vec<_> = open.map(|field| field.name.clone()).collect();
            let mut chosen = stands(Winner::Remote, None);
            for op in answered().filter(|op| op.op.place <= conflict.op.place) {
                let loses: Vec<_> = lost
                    .iter()
                    .filter(|name| op.writes.fields.contains_key(*name))
                    .cloned()
                    .collect();
                let is_all = !loses.is_empty() && loses.len() == op.writes.fields.len();
                if is_all && !op.pending.dead {
                    chosen.ends.push(op.op);
                } else if !loses.is_empty() {
                    chosen.dropped.push((op.op, loses));
                }
            }
            chosen
        }
    })
}

impl Chosen {
    /// Returns the decisions. `merged` is the item with the values that the op gets.
    pub fn decisions(self, conflict: &ConflictRow, merged: Option<ItemIndex>) -> Vec<Decision> {
        let (key, op) = (&conflict.key, conflict.op);
        let mut decisions = vec![
            Decision::Resolved { key: key.clone(), op, winner: self.winner, merged },
            Decision::Unparked { scope: ParkScope::Op(op.id) },
        ];
        if let Some((values, edited_at)) = self.merged {
            let fields = values.names().map(str::to_owned).collect();
            decisions.push(Decision::Raised {
                key: key.clone(),
                op,
                fields,
                edited_at,
                values: merged,
            });
        }
        let dropped = self.dropped.into_iter();
        decisions.extend(dropped.map(|(op, fields)| Decision::Dropped {
            key: key.clone(),
            op,
            fields,
        }));
        decisions
            .extend(self.ends.into_iter().map(|op| Decision::Superseded { key: key.clone(), op }));
        // These ops met no write of the server. A person discards them together with the op that
        // they follow.
        decisions.extend(
            self.discarded.into_iter().map(|op| Decision::Discarded { key: key.clone(), op }),
        );
        decisions
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::op::OpKind;
    use crate::rules::test_tail::{conflict, deleted, planned, tail_op, there};
    use crate::rules::test_view::{fields, key, op_id};

    /// Makes a conflict of op 3, open in these fields and resolved in another one.
    fn by_field(open: &[&str]) -> ConflictRow {
        let undecided = open.iter().map(|name| (*name, Winner::Undecided));
        let settled: Vec<_> =
            std::iter::once(("settled", Winner::Local)).chain(undecided).collect();
        ConflictRow {
            op: planned(3),
            ..conflict(OpKind::Update, Winner::Undecided, false, &settled)
        }
    }

    /// Makes a conflict of op 3 about the whole record.
    fn whole() -> ConflictRow {
        ConflictRow { op: planned(3), ..conflict(OpKind::Delete, Winner::Undecided, false, &[]) }
    }

    /// Makes ops 1 and 2 of the record with field `a`, and op 3 with `a` and `b`, or a deletion.
    fn tail(last: OpKind) -> Vec<TailOp> {
        let third = if last == OpKind::Delete { json!({}) } else { json!({"a": 1, "b": 2}) };
        let earlier = |number| tail_op(number, OpKind::Update, json!({"a": 0, "other": 0}));
        vec![earlier(1), earlier(2), tail_op(3, last, third)]
    }

    fn chosen(conflict: &ConflictRow, choice: &Choice) -> Result<Chosen, NotPossible> {
        let theirs = there(&[("a", json!(9), 99, 50)]);
        choose(conflict, &theirs, &tail(conflict.kind), |_| false, choice)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn stands(winner: Winner) -> Chosen {
        Chosen {
            winner,
            dropped: Vec::new(),
            merged: None,
            ends: Vec::new(),
            discarded: Vec::new(),
        }
    }

    #[test]
    fn who_chooses_the_local_values_has_the_op_sent_as_it_is() {
        for conflict in [by_field(&["a"]), whole()] {
            assert_eq!(chosen(&conflict, &Choice::Local), Ok(stands(Winner::Local)));
        }
    }

    #[test]
    fn who_chooses_other_values_has_the_op_sent_with_these_above_both() {
        let other = fields(json!({"a": 3}));
        let merged = Some((other.clone(), Hlc::from_bits(51)));
        let expected = Chosen { merged, ..stands(Winner::Merged) };
        assert_eq!(chosen(&by_field(&["a"]), &Choice::Merged(other)), Ok(expected));
    }

    #[test]
    fn ops_lose_the_fields_in_question_and_end_if_none_is_left() {
        let loses = |dropped: &[(u8, &[&str])], ends: &[u8]| {
            let dropped = dropped.iter().map(|(op, lost)| (planned(*op), names(lost))).collect();
            let ends = ends.iter().map(|op| planned(*op)).collect();
            Ok(Chosen { dropped, ends, ..stands(Winner::Remote) })
        };
        let of = |open: &[&str]| chosen(&by_field(open), &Choice::Remote);
        assert_eq!(
            of(&["a"]),
            loses(&[(1, &["a"]), (2, &["a"]), (3, &["a"])], &[]),
            "no earlier word comes back"
        );
        assert_eq!(of(&["a", "b"]), loses(&[(1, &["a"]), (2, &["a"])], &[3]));
    }

    #[test]
    fn where_the_whole_record_is_in_question_the_earlier_ops_end_with_it() {
        let chosen = chosen(&whole(), &Choice::Remote).unwrap();
        assert_eq!(
            chosen,
            Chosen { ends: vec![planned(1), planned(2), planned(3)], ..stands(Winner::Remote) }
        );
    }

    #[test]
    fn a_choice_ends_nothing_without_an_answer_and_nothing_later() {
        let mut tail = tail(OpKind::Delete);
        tail.push(tail_op(4, OpKind::Create, json!({"a": 4})));
        let is_unanswered = |op: &TailOp| op.op.id == op_id(1);
        let theirs = there(&[("a", json!(9), 99, 50)]);
        let chosen = choose(&whole(), &theirs, &tail, is_unanswered, &Choice::Remote).unwrap();
        assert_eq!(chosen.ends, [planned(2), planned(3)]);
        let by_field =
            choose(&by_field(&["a"]), &theirs, &tail, is_unanswered, &Choice::Remote).unwrap();
        assert_eq!(by_field.dropped, [(planned(2), names(&["a"]))]);
    }

    /// A server refused three ops of a record. A person had the last of them sent again, and chose
    /// the server's value in its conflict. Sent again, the first of them replaced that value.
    #[test]
    fn a_dead_letter_stays_listed_and_never_goes_over_the_chosen_values() {
        let theirs = there(&[("a", json!(9), 99, 50)]);
        let chosen = |conflict: ConflictRow, dead: &[usize]| {
            let mut tail = tail(conflict.kind);
            dead.iter().for_each(|number| tail[*number].pending.dead = true);
            let chosen = choose(&conflict, &theirs, &tail, |_| false, &Choice::Remote).unwrap();
            (chosen.dropped, chosen.ends)
        };
        let loses = |number: u8, lost: &[&str]| (planned(number), names(lost));
        let a_lost = vec![loses(1, &["a"]), loses(2, &["a"]), loses(3, &["a"])];
        assert_eq!(chosen(by_field(&["a"]), &[0]), (a_lost.clone(), vec![]));
        assert_eq!(chosen(by_field(&["a"]), &[0, 1, 2]), (a_lost, vec![]));
        let both_lost = vec![loses(1, &["a"]), loses(2, &["a"]), loses(3, &["a", "b"])];
        assert_eq!(chosen(by_field(&["a", "b"]), &[2]), (both_lost, vec![]));
        let ends = vec![planned(1), planned(3)];
        assert_eq!(chosen(whole(), &[1]), (vec![loses(2, &[])], ends), "and brings nothing back");
    }

    #[test]
    fn a_dead_letter_loses_everything_once() {
        let mut tail = tail(OpKind::Delete);
        tail[1].pending.dead = true;
        tail[1].drop_fields(&[]);
        let theirs = there(&[("a", json!(9), 99, 50)]);
        let chosen = choose(&whole(), &theirs, &tail, |_| false, &Choice::Remote).unwrap();
        assert_eq!(chosen.dropped, []);
    }

    #[test]
    fn what_stands_on_an_edit_ends_with_it_if_the_record_is_not_there_without_it() {
        let mut tail = tail(OpKind::Update);
        tail.push(tail_op(4, OpKind::Update, json!({"c": 4})));
        let deleted_by_them = conflict(OpKind::Update, Winner::Undecided, true, &[]);
        let conflict = ConflictRow { op: planned(3), ..deleted_by_them };
        let chosen =
            choose(&conflict, &deleted(99, 50), &tail, |_| false, &Choice::Remote).unwrap();
        assert_eq!(
            (chosen.ends, chosen.discarded),
            (vec![planned(1), planned(2), planned(3)], vec![planned(4)])
        );
    }

    #[test]
    fn what_a_creation_took_away_by_the_stamp_of_a_deletion_falls_with_that() {
        let mut tail = tail(OpKind::Delete);
        let mut anew = tail_op(4, OpKind::Create, json!({"a": 4}));
        anew.pending.cleared = names(&["b"]);
        anew.pending.cleared_at = Some(tail[2].pending.stamp());
        tail.push(anew);
        let theirs = there(&[("a", json!(9), 99, 50)]);
        let chosen = choose(&whole(), &theirs, &tail, |_| false, &Choice::Remote).unwrap();
        assert_eq!(chosen.dropped, [(planned(4), names(&["b"]))]);
    }

    #[test]
    fn what_is_resolved_is_not_chosen_in() {
        let settled = ConflictRow { open: false, ..by_field(&["a"]) };
        for choice in [Choice::Local, Choice::Remote, Choice::Merged(Fields::new())] {
            assert_eq!(chosen(&settled, &choice), Err(NotPossible::ConflictIsResolved));
        }
    }

    #[test]
    fn the_decisions_say_who_won_that_the_op_goes_on_and_what_is_lost_and_ends() {
        let conflict = whole();
        let chosen = Chosen {
            winner: Winner::Remote,
            dropped: vec![(planned(2), names(&["a"]))],
            merged: Some((fields(json!({"b": 5})), Hlc::from_bits(8))),
            ends: vec![planned(1), planned(3)],
            discarded: vec![planned(4)],
        };
        let ended = |op| Decision::Superseded { key: key("1"), op };
        let (raised, lost) = (names(&["b"]), names(&["a"]));
        let edited_at = Hlc::from_bits(8);
        let expected = [
            Decision::Resolved {
                key: key("1"),
                op: planned(3),
                winner: Winner::Remote,
                merged: Some(7),
            },
            Decision::Unparked { scope: ParkScope::Op(op_id(3)) },
            Decision::Raised {
                key: key("1"),
                op: planned(3),
                fields: raised,
                edited_at,
                values: Some(7),
            },
            Decision::Dropped { key: key("1"), op: planned(2), fields: lost },
            ended(planned(1)),
            ended(planned(3)),
            Decision::Discarded { key: key("1"), op: planned(4) },
        ];
        assert_eq!(chosen.decisions(&conflict, Some(7)), expected);
    }
}
