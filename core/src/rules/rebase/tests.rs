//! Stories of the rebase of a record's tail.
//!
//! ```text
//!   what the server has   unknown · deleted@7 · a=0@1 b=0@1        each field with the time at which somebody else wrote it
//!   an op of ours         1 waits update a=1 @5                    its number, how it stands, what it does, when it was made
//!                         2 waits replace b=1 -a @6                … and takes `a` away without naming it
//!                         2 waits create b=1 -a/1 @6               … with the stamp of op 1, the deletion that it stands on
//! ```
//!
//! Each story has the record before, the tail and the record after. It expects all decisions, and
//! the image that the app reads then. After the decisions are applied, a second rebase decides
//! nothing.

use serde_json::{Value, json};

use super::*;
use crate::entry::Item;
use crate::op::{OpContent, OpKind};
use crate::random::SeededRandomness;
use crate::record::{EditStamp, Life, Pending, Register};
use crate::rules::test_tail::place;
use crate::rules::test_view::{fields, key, op_id};
use crate::schema::{Granularity, Policy};

mod laws;

const THEM: u8 = 99;

fn at(number: u64, op: u8) -> EditStamp {
    EditStamp { edited_at: Hlc::from_bits(number), op: op_id(op) }
}

fn time_of(token: &str) -> u64 {
    token.trim_start_matches('@').parse().unwrap()
}

/// Reads what the server has.
fn server(text: &str) -> Registers {
    if let Some(time) = text.strip_prefix("deleted@") {
        return Registers {
            life: Life::Deleted,
            stamp: at(time_of(time), THEM),
            ..Registers::default()
        };
    }
    let mut record = Registers::default();
    for token in text.split_whitespace().filter(|token| *token != "unknown") {
        let (field, time) = token.split_once('@').unwrap();
        let (name, value) = field.split_once('=').unwrap();
        let stamp = at(time_of(time), THEM);
        record.life = Life::Live;
        record.stamp = record.stamp.max(stamp);
        let value = serde_json::from_str(value).unwrap();
        record.fields.insert(name.to_owned(), Register { value, stamp });
    }
    record
}

/// Reads an op. `earlier` has the ops before it. The unit of an op that came back was planned on
/// `planned_on`.
fn op(line: &str, earlier: &[Op], planned_on: &Registers) -> Op {
    let mut tokens = line.split_whitespace();
    let number: u8 = tokens.next().unwrap().parse().unwrap();
    let (standing, is_back) = match tokens.next().unwrap() {
        "waits" => (OpStanding::Waits, false),
        "dead" => (OpStanding::Dead, false),
        "sent" => (OpStanding::Unanswered, false),
        "stale" => (OpStanding::Waits, true),
        "refused" => (OpStanding::Dead, true),
        other => panic!("{other}"),
    };
    let kind = match tokens.next().unwrap() {
        "create" => OpKind::Create,
        "update" => OpKind::Update,
        "replace" => OpKind::Replace,
        "delete" => OpKind::Delete,
        other => panic!("{other}"),
    };
    let (mut said, mut edited_at) = (Fields::new(), u64::from(number) * 10);
    let (mut cleared, mut cleared_at) = (Vec::new(), None);
    for token in tokens {
        if let Some(name) = token.strip_prefix('-') {
            let (name, deletion) =
                name.split_once('/').map_or((name, None), |(name, of)| (name, Some(of)));
            cleared.push(name.to_owned());
            let deletion = deletion.map(|of| op_id(of.parse().unwrap()));
            let found = deletion.and_then(|of| earlier.iter().find(|op| op.tail.op.id == of));
            cleared_at = found.map(|op| op.tail.pending.stamp());
        } else if let Some((name, value)) = token.split_once('=') {
            said.set(name, serde_json::from_str::<Value>(value).unwrap());
        } else {
            edited_at = time_of(token);
        }
    }
    let edited_at = Hlc::from_bits(edited_at);
    let pending = Pending::new(op_id(number), place(number), kind, edited_at);
    let pending = Pending { cleared, cleared_at, dead: standing == OpStanding::Dead, ..pending };
    let content = OpContent { id: op_id(number), kind, edited_at, schema_version: 1, fields: said };
    let since = is_back.then(|| planned_on.clone());
    Op { tail: TailOp::new(pending, content).unwrap(), standing, since, of_former_epoch: false }
}

/// A record's tail and the rules for its rebase.
struct Story {
    rules: EntityRules,
    /// The record that a unit which comes back was planned on, if it is not the record that was
    /// confirmed before.
    planned_on: Option<&'static str>,
    is_first_of_epoch: bool,
    tail: Vec<&'static str>,
}

fn tail(tail: &[&'static str]) -> Story {
    Story {
        rules: EntityRules::default(),
        planned_on: None,
        is_first_of_epoch: false,
        tail: tail.to_vec(),
    }
}

impl Story {
    fn under(mut self, policy: Policy) -> Self {
        self.rules.policy = policy;
        self
    }

    fn whole(mut self) -> Self {
        self.rules.granularity = Granularity::WholeRecord;
        self
    }

    fn planned_on(mut self, record: &'static str) -> Self {
        self.planned_on = Some(record);
        self
    }

    /// Another epoch of the server sends the record for the first time.
    fn first_of_epoch(mut self) -> Self {
        self.is_first_of_epoch = true;
        self
    }

    /// Changes the record at the server. Expects the decisions, one a line, and the image that the
    /// app reads then.
    #[track_caller]
    fn meets(self, before: &str, after: &str, expected: &[&str], reads: Option<Value>) {
        let planned_on = server(self.planned_on.unwrap_or(before));
        let mut ops: Vec<Op> = Vec::new();
        for line in &self.tail {
            ops.push(op(line, &ops, &planned_on));
        }
        let mut taken = Taken::new(&self.rules, ops, server(before));
        taken.is_first_of_epoch = self.is_first_of_epoch;
        let decided = taken.take(server(after));
        taken.is_first_of_epoch = false;
        assert_eq!(decided, expected);
        assert_eq!(taken.visible().image(), reads.map(fields), "what the app reads");
        assert_eq!(taken.take(server(after)), [""; 0], "the decisions leave nothing to judge");
    }
}

/// A record of a device, page by page.
struct Taken<'a> {
    rules: &'a EntityRules,
    ops: Vec<Op>,
    confirmed: Registers,
    is_first_of_epoch: bool,
}

impl<'a> Taken<'a> {
    const fn new(rules: &'a EntityRules, ops: Vec<Op>, confirmed: Registers) -> Self {
        Self { rules, ops, confirmed, is_first_of_epoch: false }
    }

    /// Takes the record at the server, and returns the decisions, one a line.
    fn take(&mut self, after: Registers) -> Vec<String> {
        let (key, mut items, mut random) =
            (key("1"), Items::default(), SeededRandomness::from_number(1));
        let mut subject = Subject {
            key: &key,
            rules: self.rules,
            ops: std::mem::take(&mut self.ops),
            after: after.clone(),
            version: Version::new(2),
            is_first_of_epoch: self.is_first_of_epoch,
            decisions: Vec::new(),
            items: &mut items,
            random: &mut random,
        };
        rebase(&mut subject, &self.confirmed);
        self.confirmed = after;
        let decisions = subject.decisions;
        // After the decisions, an op that came back waits or is a dead letter.
        self.ops = subject.ops.into_iter().filter(|op| op.standing != OpStanding::Ended).collect();
        self.ops.iter_mut().for_each(|op| op.since = None);
        let items: Vec<Item> = items.into();
        decisions.iter().map(|decision| line(decision, &items)).collect()
    }

    /// Returns what the app reads.
    fn visible(&self) -> Registers {
        self.confirmed.with(self.ops.iter().map(|op| &op.tail.writes))
    }
}

/// Writes a decision as a line.
fn line(decision: &Decision, items: &[Item]) -> String {
    let number = |op: &crate::entry::PlannedOp| (op.id.as_bytes()[0] - 100).to_string();
    let value = |index: u32| -> Value {
        serde_json::from_slice(items[usize::try_from(index).unwrap()].bytes().unwrap()).unwrap()
    };
    let all =
        |fields: &[String]| if fields.is_empty() { "all".to_owned() } else { fields.join(" ") };
    match decision {
        Decision::Conflicted(found) => {
            let (base, local, remote) =
                (value(found.base), value(found.local), value(found.remote));
            let said = |of: &Value, name: &str| {
                of.get(name).map_or_else(|| "-".to_owned(), Value::to_string)
            };
            let one = |field: &crate::entry::ConflictedField| {
                let sides = [&base, &local, &remote].map(|of| said(of, &field.name)).join("|");
                format!("{} {sides} {:?}", field.name, field.winner)
            };
            let fields: Vec<_> = found.fields.iter().map(one).collect();
            let place = if fields.is_empty() { "life".to_owned() } else { fields.join(", ") };
            format!("{} meets as {}: {place}: {:?}", number(&found.op), found.kind, found.winner)
        }
        Decision::Superseded { op, .. } => format!("{} superseded", number(op)),
        Decision::Dropped { op, fields, .. } => format!("{} loses {}", number(op), all(fields)),
        Decision::Raised { op, fields, edited_at, values, .. } => {
            let values =
                values.map_or_else(String::new, |values| format!(" with {}", value(values)));
            format!("{} raises {} to {}{values}", number(op), all(fields), edited_at.to_bits())
        }
        Decision::BroughtBack { op, read, .. } => {
            format!("{} brings back {}", number(op), value(*read))
        }
        Decision::Cancelled(cancelled) => {
            let ops: Vec<_> = cancelled.ops.iter().map(number).collect();
            format!("{} cancelled {:?}", ops.join(" "), cancelled.reason)
        }
        Decision::Parked { scope: ParkScope::Op(op), code } => {
            format!("{} parked {code}", op.as_bytes()[0] - 100)
        }
        other => panic!("{other:?}"),
    }
}

// Fields.

#[test]
fn fields_that_only_one_side_wrote_merge() {
    tail(&["1 waits update a=1 @5"]).meets(
        "a=0@1 b=0@1",
        "a=0@1 b=9@7",
        &[],
        Some(json!({"a": 1, "b": 9})),
    );
}

#[test]
fn the_later_write_of_a_field_stands_and_both_are_on_record() {
    let lost = ["1 meets as update: a 0|1|9 Remote: Remote", "1 superseded"];
    tail(&["1 waits update a=1 @5"]).meets("a=0@1", "a=9@7", &lost, Some(json!({"a": 9})));
    let won = ["1 meets as update: a 0|1|9 Local: Local"];
    tail(&["1 waits update a=1 @8"]).meets("a=0@1", "a=9@7", &won, Some(json!({"a": 1})));
}

#[test]
fn a_value_that_we_set_anew_does_not_come_back_when_the_later_one_loses() {
    let both = || tail(&["1 waits update a=1 @5", "2 waits update a=2 @6"]);
    let decided = ["2 meets as update: a 0|2|9 Remote: Remote", "1 superseded", "2 superseded"];
    both().meets("a=0@1", "a=9@7", &decided, Some(json!({"a": 9})));
    let decided = [
        "2 meets as update: a 0|2|9 Remote: Remote",
        "1 loses a",
        "2 loses a",
        "1 superseded",
        "2 superseded",
    ];
    both().under(Policy::ServerWins).meets("a=0@1", "a=9@2", &decided, Some(json!({"a": 9})));
}

#[test]
fn a_larger_value_that_we_gave_up_does_not_come_back_by_the_rule_for_the_larger() {
    let decided = [
        "2 meets as update: a 1|3|5 Remote: Remote",
        "1 loses a",
        "2 loses a",
        "1 superseded",
        "2 superseded",
    ];
    let ops = ["1 waits update a=9 @6", "2 waits update a=3 @7"];
    tail(&ops).under(Policy::Max).meets("a=1@1", "a=5@4", &decided, Some(json!({"a": 5})));
}

/// It had come back stale and was judged by itself; then our deletion, over which the record was
/// made anew, ended with that.
#[test]
fn a_value_that_won_by_itself_goes_along_when_our_last_word_loses() {
    let ops = ["1 stale create a=2 @2", "2 waits update a=9 @6"];
    let decided = [
        "1 meets as create: a null|2|3 Local: Local",
        "2 meets as update: a null|9|3 Remote: Remote",
        "1 loses a",
        "2 loses a",
        "1 cancelled NoEffect",
        "2 superseded",
    ];
    tail(&ops).under(Policy::Min).meets("unknown", "a=3@1", &decided, Some(json!({"a": 3})));
}

#[test]
fn an_op_with_another_field_loses_the_overwritten_one_and_stays() {
    let ops = ["1 waits update a=1 b=1 @5", "2 waits update a=2 @6"];
    let decided = ["2 meets as update: a 0|2|9 Remote: Local", "2 superseded"];
    tail(&ops).meets("a=0@1", "a=9@7", &decided, Some(json!({"a": 9, "b": 1})));
}

#[test]
fn a_value_that_both_sides_chose_is_no_conflict_and_ends_if_theirs_is_later() {
    let ops = ["1 waits update a=1 @5", "2 waits update a=2 @6"];
    let decided = ["1 superseded", "2 cancelled NoEffect"];
    tail(&ops).meets("a=0@1", "a=2@7", &decided, Some(json!({"a": 2})));
    let decided = ["1 meets as update: a 0|1|2 Remote: Remote", "1 loses a", "1 superseded"];
    let reads = Some(json!({"a": 2}));
    tail(&ops).meets("a=0@1", "a=2@3", &decided, reads); // nothing of ours goes over theirs before our last word does
}

#[test]
fn an_equal_time_is_decided_by_op_id() {
    let decided = ["1 meets as update: a 0|1|9 Remote: Remote", "1 superseded"];
    tail(&["1 waits update a=1 @5"]).meets("a=0@1", "a=9@5", &decided, Some(json!({"a": 9})));
}

#[test]
fn a_replace_leaves_alone_what_its_author_never_saw() {
    let ops = ["1 waits replace b=1 -a @5"];
    tail(&ops).meets("a=0@1", "a=0@1 c=9@7", &[], Some(json!({"b": 1, "c": 9})));
    let decided = ["1 meets as replace: a 0|null|9 Remote: Local"];
    tail(&ops).meets("a=0@1", "a=9@7", &decided, Some(json!({"a": 9, "b": 1})));
}

#[test]
fn who_made_a_record_that_somebody_else_made_too_meets_them_in_each_field() {
    let decided = ["1 meets as create: a null|1|9 Remote: Local"];
    let reads = Some(json!({"a": 9, "b": 1, "c": 9}));
    tail(&["1 waits create a=1 b=1 @5"]).meets("unknown", "a=9@7 c=9@7", &decided, reads);
}

#[test]
fn what_ours_overrules_is_raised_above_theirs_but_not_what_a_later_op_of_ours_covers() {
    let decided = ["1 meets as update: a 0|1|9 Local: Local", "1 raises a to 8"];
    let ours = tail(&["1 waits update a=1 @5"]).under(Policy::DeviceWins);
    ours.meets("a=0@1", "a=9@7", &decided, Some(json!({"a": 1})));
    let decided = [
        "1 meets as update: a 0|1|9 Local: Local",
        "2 meets as update: a 0|2|9 Local: Local",
        "2 raises a to 8",
        "1 superseded",
    ];
    let two = tail(&["1 stale update a=1 @5", "2 waits update a=2 @6"]).under(Policy::DeviceWins);
    two.meets("a=0@1", "a=9@7", &decided, Some(json!({"a": 2})));
}

#[test]
fn a_merged_value_stands_above_both() {
    let decided = [
        "1 meets as update: a []|[1,2]|[2,3] Merged: Merged",
        "1 raises a to 8 with {\"a\":[2,3,1]}",
    ];
    let ours = tail(&["1 waits update a=[1,2] @5"]).under(Policy::AppendUnique);
    ours.meets("a=[]@1", "a=[2,3]@7", &decided, Some(json!({"a": [2, 3, 1]})));
}

#[test]
fn what_a_person_has_to_choose_in_is_read_and_held_and_earlier_values_lose() {
    let decided = [
        "2 meets as update: a 0|2|9 Undecided: Undecided",
        "2 raises a to 8",
        "2 parked conflict",
        "1 superseded",
    ];
    let ours = tail(&["1 waits update a=1 @5", "2 waits update a=2 @6"]).under(Policy::Manual);
    ours.meets("a=0@1", "a=9@7", &decided, Some(json!({"a": 2})));
}

#[test]
fn theirs_takes_along_what_is_unanswered_there_too() {
    let decided =
        ["2 meets as update: a 0|2|9 Remote: Remote", "1 loses a", "2 loses a", "2 superseded"];
    let ours = tail(&["1 sent update a=1 @8", "2 waits update a=2 @9"]).under(Policy::ServerWins);
    ours.meets("a=0@1", "a=9@7", &decided, Some(json!({"a": 9})));
}

// How ops stand.

#[test]
fn what_has_no_answer_yet_is_left_alone() {
    tail(&["1 sent update a=1 @5"]).meets("a=0@1", "a=9@7", &[], Some(json!({"a": 9})));
    tail(&["1 sent update a=1 @8"]).meets("a=0@1", "deleted@7", &[], Some(json!({"a": 1})));
}

#[test]
fn a_dead_letter_is_on_record_with_what_it_meets_and_stays_listed() {
    let decided = ["1 meets as update: a 0|1|9 Remote: Remote"];
    tail(&["1 dead update a=1 @5"]).meets("a=0@1", "a=9@7", &decided, Some(json!({"a": 9})));
}

#[test]
fn what_comes_back_meets_what_is_new_since_it_was_planned_though_a_page_had_told_it() {
    let decided = ["1 meets as update: a 0|1|9 Remote: Remote", "1 superseded"];
    let stale = tail(&["1 stale update a=1 @5"]).planned_on("a=0@1");
    stale.meets("a=9@7", "a=9@7", &decided, Some(json!({"a": 9})));
    let refused = tail(&["1 refused update a=1 @5"]).planned_on("a=0@1");
    refused.meets("a=9@7", "a=9@7", &decided[..1], Some(json!({"a": 9})));
}

// The life of a record.

#[test]
fn an_edit_below_an_unseen_deletion_ends_and_one_above_it_brings_the_record_back() {
    let decided = ["1 meets as update: life: Remote", "1 superseded"];
    tail(&["1 waits update a=1 @5"]).meets("a=0@1 b=0@1", "deleted@7", &decided, None);
    let decided = ["1 meets as update: life: Local", "1 brings back {\"a\":1,\"b\":0}"];
    let above = tail(&["1 waits update a=1 @8"]);
    above.meets("a=0@1 b=0@1", "deleted@7", &decided, Some(json!({"a": 1, "b": 0})));
}

#[test]
fn a_refused_value_does_not_go_out_again_with_what_brings_a_record_back() {
    let decided = [
        "2 meets as update: life: Local",
        "1 brings back {\"a\":1,\"b\":0}",
        "2 brings back {\"a\":0,\"b\":2}",
    ];
    let ops = tail(&["1 dead update a=1 @18", "2 waits update b=2 @19"]);
    ops.meets("a=0@1 b=0@1", "deleted@7", &decided, Some(json!({"a": 1, "b": 2})));
}

/// The unit with the edit was abandoned, and its answer was lost. What it had brought back came as
/// a change of somebody else: a later edit of the same author was recorded against it.
#[test]
fn what_an_edit_of_ours_brought_back_is_no_news_to_a_later_one() {
    let rules = EntityRules::default();
    let edit = op("1 dead update b=1 @20", &[], &Registers::default());
    let mut taken = Taken::new(&rules, vec![edit], server("a=0@1 b=0@1"));
    let decided = ["1 meets as update: life: Local", "1 brings back {\"a\":0,\"b\":1}"];
    assert_eq!(taken.take(server("deleted@7")), decided);
    let there = taken.confirmed.with([&taken.ops[0].tail.writes]);
    let later = op("2 waits replace a=2 -b @30", &taken.ops, &Registers::default());
    taken.ops.push(later);
    assert_eq!(taken.take(there), [""; 0]);
    assert_eq!(taken.visible().image(), Some(fields(json!({"a": 2}))));
}

/// The fields that the later edit brought back were above the refused write by a tick, or by the op
/// id, so that a retry of the refused write had no effect.
#[test]
fn what_a_later_edit_brings_back_without_a_refused_word_stays_below_that() {
    let life = [
        "2 meets as replace: life: Local",
        "1 brings back {\"a\":1}",
        "2 brings back {\"a\":2,\"b\":0}",
    ];
    let ops = |replace: &'static str| tail(&[replace, "2 dead update a=2 @19"]);
    let reads = || Some(json!({"a": 2}));
    let decided = [&life[..], &["1 raises all to 9"]].concat();
    ops("1 dead replace a=1 -b @8").meets("a=0@1 b=0@1", "deleted@7", &decided, reads());
    ops("1 dead replace a=1 -b @9").meets("a=0@1 b=0@1", "deleted@7", &life, reads());
}

#[test]
fn a_deletion_below_an_unseen_edit_ends_with_what_it_covered_and_one_above_it_stands() {
    let ops = ["1 waits update b=1 @5", "2 waits delete @6"];
    let decided = ["2 meets as delete: life: Remote", "2 superseded", "1 superseded"];
    tail(&ops).meets("a=0@1", "a=9@7", &decided, Some(json!({"a": 9})));
    let decided = ["1 meets as delete: life: Local"];
    tail(&["1 waits delete @8"]).meets("a=0@1", "a=9@7", &decided, None);
}

#[test]
fn two_deletions_are_no_conflict_and_only_the_later_one_is_sent() {
    let ops = ["1 waits update b=1 @5", "2 waits delete @6"];
    tail(&ops).meets("a=0@1", "deleted@7", &["1 superseded", "2 cancelled NoEffect"], None);
    tail(&ops[1..]).meets("a=0@1", "deleted@3", &[], None);
}

#[test]
fn an_edit_that_our_deletion_covers_ends_on_record_if_they_deleted_too_and_ours_can_be_taken_back()
{
    let decided = ["1 meets as update: life: Remote", "1 superseded"];
    let ops = |edit| tail(&[edit, "2 waits delete @6"]);
    ops("1 waits update b=1 @2").meets("a=0@1", "deleted@3", &decided, None);
    // An edit above the remote deletion would win over it before the local deletion is sent.
    ops("1 waits update b=1 @5").meets("a=0@1", "deleted@3", &decided, None);
}

/// The write kept a stamp below the deletion, and on other devices the deletion won the field.
#[test]
fn what_a_later_op_of_ours_covers_is_not_sent_below_their_deletion() {
    let ops = ["1 stale create a=1 b=1 @2", "2 waits update a=2 @9"];
    let decided = [
        "1 meets as create: life: Remote",
        "1 superseded",
        "2 meets as update: life: Local",
        "2 brings back {\"a\":2}",
    ];
    tail(&ops).meets("unknown", "deleted@5", &decided, Some(json!({"a": 2})));
    let decided = [
        "1 meets as create: life: Local",
        "1 raises all to 6",
        "2 meets as update: life: Local",
        "2 brings back {\"a\":2}",
    ];
    let reads = Some(json!({"a": 2, "b": 1}));
    tail(&ops).under(Policy::DeviceWins).meets("unknown", "deleted@5", &decided, reads);
}

/// The first two ops lost `a`, since the third op writes it. After a person undid the third op, the
/// app read the first value instead of the second.
#[test]
fn what_a_later_op_of_ours_covers_is_raised_in_order_since_that_can_be_taken_back() {
    let ops = ["1 waits replace a=1 -b @2", "2 waits replace a=2 -b @3", "3 waits update a=3 @9"];
    let decided = [
        "3 meets as replace: life: Local",
        "1 brings back {\"a\":1}",
        "2 brings back {\"a\":2}",
        "3 brings back {\"a\":3}",
        "1 raises all to 6",
        "2 raises a b to 7",
    ];
    tail(&ops).meets("a=0@1 b=0@1", "deleted@5", &decided, Some(json!({"a": 3})));
    let rules = EntityRules::default();
    let before = server("a=0@1 b=0@1");
    let ops = ops.map(|line| op(line, &[], &before));
    let mut taken = Taken::new(&rules, ops.into(), before);
    taken.take(server("deleted@5"));
    taken.ops.pop();
    assert_eq!(taken.visible().image(), Some(fields(json!({"a": 2}))));
}

/// Only the edit was raised, so that it was above the person's own deletion after a retry of the
/// deletion.
#[test]
fn a_refused_deletion_stays_above_an_edit_that_goes_over_their_deletion() {
    let ops =
        || ["1 waits update a=1 @5", "2 dead delete @8"].map(|line| op(line, &[], &server("")));
    let rules = EntityRules { policy: Policy::DeviceWins, ..EntityRules::default() };
    let mut taken = Taken::new(&rules, ops().into(), server("a=0@1"));
    taken.ops[0].since = Some(server("a=0@1"));
    let decided = [
        "1 meets as update: life: Local",
        "1 brings back {\"a\":1}",
        "1 raises all to 9",
        "2 raises all to 10",
    ];
    assert_eq!(taken.take(server("deleted@8")), decided);
    assert_eq!(taken.visible().image(), None);
}

#[test]
fn what_had_lost_does_not_come_back_with_the_rest_above_their_deletion() {
    let decided = [
        "1 meets as update: life: Local",
        "1 brings back {\"a\":9,\"b\":1}",
        "1 loses a",
        "1 raises all to 9",
    ];
    let ours = tail(&["1 waits update a=1 b=1 @5"]).under(Policy::DeviceWins);
    ours.meets("a=9@7 b=0@1", "deleted@8", &decided, Some(json!({"a": 9, "b": 1})));
}

/// A later local write was acked before the second op was sent again. The second op was raised with
/// the first, and its value came back.
#[test]
fn what_had_lost_is_not_raised_in_the_wake_of_an_earlier_op() {
    let decided = [
        "1 meets as update: life: Local",
        "1 brings back {\"a\":1,\"b\":9}",
        "1 raises all to 9",
        "2 superseded",
    ];
    let ops = tail(&["1 waits update a=1 @5", "2 waits update b=2 @6"]).under(Policy::DeviceWins);
    ops.meets("a=0@1 b=9@7", "deleted@8", &decided, Some(json!({"a": 1, "b": 9})));
}

#[test]
fn a_creation_of_which_nothing_is_left_does_not_leave_the_deletion_beneath_it_alone() {
    let ops = ["1 waits delete @5", "2 waits create a=1 -b/1 @6"];
    let decided = [
        "2 meets as replace: a 0|1|9 Remote, b 0|null|9 Remote: Remote",
        "2 loses a",
        "2 loses b",
        "1 2 cancelled NoEffect",
    ];
    let ours = tail(&ops).under(Policy::ServerWins);
    ours.meets("a=0@1 b=0@1", "a=9@4 b=9@4", &decided, Some(json!({"a": 9, "b": 9})));
}

/// A server whose clock was ahead applied the first op, and its answer was lost. After the server's
/// clock was right, the stamps of both ops were lowered.
#[test]
fn what_was_made_on_top_of_a_write_of_ours_stays_above_it_though_that_arrived_with_a_later_stamp() {
    let ops = || {
        ["1 waits update a=1 @5", "2 waits update a=2 @6"].map(|line| op(line, &[], &server("")))
    };
    let rules = EntityRules::default();
    let mut taken = Taken::new(&rules, ops().into(), server("a=0@1"));
    taken.ops[0].standing = OpStanding::Ended;
    taken.ops[0].tail.content.edited_at = Hlc::from_bits(9);
    let mut after = server("a=1@9");
    after.fields.get_mut("a").unwrap().stamp = at(9, 1);
    after.stamp = at(9, 1);
    assert_eq!(taken.take(after), ["2 raises a to 10"]);
    assert_eq!(taken.visible().image(), Some(fields(json!({"a": 2}))));
}

#[test]
fn what_another_life_of_the_server_lacks_does_not_hide_that_an_earlier_write_of_ours_goes_over_its_own()
 {
    let decided = ["1 meets as update: a 9|1|3 Local: Local"];
    let ours = || tail(&["1 stale update a=1 @5"]).planned_on("a=9@7");
    ours().first_of_epoch().meets("a=9@7", "a=3@2", &decided, Some(json!({"a": 1})));
    ours().meets("a=9@7", "a=9@7", &["1 superseded"], Some(json!({"a": 9})));
}

#[test]
fn an_earlier_word_below_theirs_is_on_record_while_the_last_one_that_can_be_taken_back_stays() {
    let ops = ["1 waits update a=1 @2", "2 waits update a=2 @6"];
    let decided = [
        "1 meets as update: a 0|1|9 Remote: Remote",
        "2 meets as update: a 0|2|9 Local: Local",
        "1 superseded",
    ];
    tail(&ops).meets("a=0@1", "a=9@3", &decided, Some(json!({"a": 2})));
}

#[test]
fn what_a_deletion_of_ours_can_take_along_is_on_record_though_the_record_is_made_anew() {
    let ops = ["1 waits delete @5", "2 waits create a=1 @6"];
    let decided = ["1 meets as delete: life: Local"];
    tail(&ops).meets("a=0@1", "a=0@1 c=9@3", &decided, Some(json!({"a": 1, "c": 9})));
}

/// A person sent the first two ops again without the creation. The deletion had no effect, and the
/// edit that it had covered was sent.
#[test]
fn a_refused_deletion_that_is_below_theirs_says_nothing_any_more_nor_does_what_it_covered() {
    let ops = ["1 refused update b=1 @5", "2 refused delete @6", "3 refused create a=1 @9"];
    let decided = ["3 meets as replace: a 0|1|9 Local: Local", "1 loses all", "2 loses all"];
    tail(&ops).meets("a=0@1 b=0@1", "a=9@7 b=0@1", &decided, Some(json!({"a": 1, "b": 0})));
}

#[test]
fn a_policy_decides_about_a_deletion_as_a_whole() {
    let deletion = || tail(&["1 waits delete @5"]);
    let decided = ["1 meets as delete: life: Local", "1 raises all to 8"];
    deletion().under(Policy::DeviceWins).meets("a=0@1", "a=9@7", &decided, None);
    let decided = ["1 meets as delete: life: Undecided", "1 raises all to 8", "1 parked conflict"];
    deletion().under(Policy::Manual).meets("a=0@1", "a=9@7", &decided, None);
    let edit = || tail(&["1 waits update a=1 @8"]);
    let decided = ["1 meets as update: life: Remote", "1 superseded"];
    edit().under(Policy::ServerWins).meets("a=0@1", "deleted@7", &decided, None);
    let decided = [
        "1 meets as update: life: Undecided",
        "1 brings back {\"a\":1}",
        "1 raises all to 9",
        "1 parked conflict",
    ];
    edit().under(Policy::Manual).meets("a=0@1", "deleted@7", &decided, Some(json!({"a": 1})));
}

#[test]
fn created_and_deleted_here_says_nothing_about_a_record_that_somebody_else_made() {
    let decided = ["1 2 cancelled CreatedAndDeleted"];
    let ops = ["1 waits create a=1 @5", "2 waits delete @6"];
    tail(&ops).meets("unknown", "a=9@3", &decided, Some(json!({"a": 9})));
    let decided = ["2 meets as delete: life: Local"];
    tail(&["1 stale create a=1 @5", "2 stale delete @6"]).meets("unknown", "a=9@3", &decided, None);
}

#[test]
fn a_deletion_behind_which_the_record_is_made_anew_meets_theirs_in_each_field() {
    let ops = ["1 waits delete @5", "2 waits create a=1 x=1 -b/1 @6"];
    let decided = ["2 meets as replace: a 0|1|9 Remote: Local", "2 loses b", "1 superseded"];
    tail(&ops).meets("a=0@1 b=0@1", "a=9@7 b=0@1", &decided, Some(json!({"a": 9, "b": 0, "x": 1})));
}

// The record as one.

#[test]
fn a_record_that_is_resolved_as_one_wins_or_loses_whole_and_disjoint_edits_meet() {
    let ours = |line| tail(&[line]).whole();
    let decided = [
        "1 meets as replace: a 0|1|0 Remote, b 0|0|9 Remote: Remote",
        "1 loses a b",
        "1 superseded",
    ];
    let theirs = Some(json!({"a": 0, "b": 9}));
    ours("1 waits replace a=1 b=0 @5").meets("a=0@1 b=0@1", "a=0@1 b=9@7", &decided, theirs);
    let decided = [
        "1 meets as replace: a 0|1|0 Local, b 0|0|9 Local: Local",
        "1 raises a b to 8 with {\"a\":1,\"b\":0}",
    ];
    let own = Some(json!({"a": 1, "b": 0}));
    ours("1 waits replace a=1 b=0 @8").meets("a=0@1 b=0@1", "a=0@1 b=9@7", &decided, own);
}

#[test]
fn two_images_that_are_equal_as_a_whole_do_not_meet() {
    let decided = ["1 cancelled NoEffect"];
    let ours = tail(&["1 waits replace a=1 b=0 @5"]).whole();
    ours.meets("a=0@1 b=0@1", "a=1@7 b=0@7", &decided, Some(json!({"a": 1, "b": 0})));
}
