//! The ops of a record's tail as writes: how decisions change them, and how they join the confirmed
//! record.
//!
//! | decision | what is left of the op |
//! |---|---|
//! | dropped (fields) | the op without these fields |
//! | dropped (whole) | nothing; a dead letter stays listed |
//! | raised (fields) | the same fields with a later stamp, and with the given values |
//! | raised (whole) | the whole op with a later stamp |
//! | restamped | the whole op with an earlier stamp, since the clock was ahead |
//! | upcast | other fields with the op's own stamp; a raised field stays raised |
//! | brought back | the same; over a deletion also all fields that its author had read |
//!
//! Invariants:
//! 1. The app reads `confirmed` with the tail joined, and nothing else.
//! 2. A deletion has no effect if a later op of the same tail creates the record again. The
//!    creation removes the fields that the deletion covered, with the stamp of the deletion. So
//!    each field is decided by its own stamp.
//! 3. A dropped field never comes back to its op by itself.
//!
//! What it does not do: decide which ops are sent ([`crate::rules::plan`]).

use serde_json::Value;

use super::pending::Pending;
use super::registers::{Does, Registers, Writes, with_stamp};
use super::stamp::EditStamp;
use crate::entry::PlannedOp;
use crate::fields::{Fields, FieldsJson, InvalidFields};
use crate::op::{OpContent, OpKind};
use crate::time::Hlc;

/// An op of a record's tail, with its fields as values.
#[derive(Debug, Clone, PartialEq)]
pub struct TailOp {
    /// The op's id and place.
    pub op: PlannedOp,
    /// The kind of the op.
    pub kind: OpKind,
    /// The op as it is stored.
    pub pending: Pending,
    /// The op as the log has it.
    pub content: OpContent,
    /// The fields that the op still names.
    pub named: Fields,
    /// The writes that are left of the op.
    pub writes: Writes,
}

impl TailOp {
    /// Reads an op.
    ///
    /// # Errors
    /// [`InvalidFields`] if stored text was damaged.
    pub fn new(pending: Pending, content: OpContent) -> Result<Self, InvalidFields> {
        let op = PlannedOp { id: pending.op, place: pending.place };
        let named = pending.named.as_ref().map(FieldsJson::to_fields).transpose()?;
        let named = if pending.emptied {
            Fields::new()
        } else {
            named.unwrap_or_else(|| content.fields.clone())
        };
        let brings_back = pending.brings_back.as_ref().map(FieldsJson::to_fields).transpose()?;
        let brings_back = brings_back.map(|read| read.into_map().into_iter().collect());
        let writes = Writes {
            does: Does::Nothing,
            stamp: pending.stamp(),
            fields: Default::default(),
            brings_back,
        };
        let mut read = Self { op, kind: pending.kind, pending, content, named, writes };
        read.write();
        Ok(read)
    }

    /// Computes `writes` from the rest of the op.
    pub(crate) fn write(&mut self) {
        let (pending, own) = (&self.pending, self.pending.stamp());
        let cleared = pending.cleared.iter().filter(|_| !pending.emptied);
        let cleared = cleared.map(|name| (name.clone(), Value::Null));
        let mut fields = with_stamp(cleared, pending.cleared_at.unwrap_or(own));
        fields.extend(with_stamp(self.named.clone().into_map(), own));
        for (name, edited_at) in &pending.raised {
            if let Some(field) = fields.get_mut(name) {
                field.stamp = EditStamp { edited_at: *edited_at, op: own.op };
            }
        }
        self.writes.does = match self.kind {
            _ if pending.emptied => Does::Nothing,
            OpKind::Delete => Does::Deletes,
            OpKind::Create => Does::Creates,
            _ if fields.is_empty() && !self.content.fields.is_empty() => Does::Nothing,
            OpKind::Update | OpKind::Replace => Does::Edits,
        };
        (self.writes.stamp, self.writes.fields) = (own, fields);
    }

    /// Sets the fields that the op names.
    fn name(&mut self, named: Fields) {
        self.pending.named = Some(named.to_json());
        self.named = named;
    }

    /// Drops fields of the op, or the whole op if `names` is empty.
    pub fn drop_fields(&mut self, names: &[String]) {
        if names.is_empty() {
            self.pending.emptied = true;
            self.named = Fields::new();
        }
        let is_lost = |name: &str| names.iter().any(|lost| lost == name);
        self.pending.cleared.retain(|name| !is_lost(name));
        self.pending.raised.retain(|(name, _)| !is_lost(name));
        if self.named.names().any(is_lost) {
            self.name(self.named.filtered(|name| !is_lost(name)));
        }
        self.write();
    }

    /// Raises fields of the op, or the whole op if `names` is empty. The op names `values` from now
    /// on, in place of its own values of these fields.
    pub fn raise(&mut self, names: &[String], edited_at: Hlc, values: Option<&Fields>) {
        if names.is_empty() {
            self.pending.edited_at = edited_at;
            self.pending.raised.clear();
        }
        self.pending.raised.retain(|(known, _)| !names.contains(known));
        self.pending.raised.extend(names.iter().map(|name| (name.clone(), edited_at)));
        if let Some(values) = values.filter(|_| !self.pending.emptied) {
            let mut named = self.named.clone();
            named.compose(values.clone());
            self.name(named);
        }
        self.write();
    }

    /// Gives the whole op an earlier stamp.
    pub fn lower(&mut self, edited_at: Hlc) {
        self.raise(&[], edited_at, None);
    }

    /// Gives the op the fields that an upcaster made of its remaining fields. A raised field stays
    /// raised if the upcaster kept its name.
    pub fn turn(&mut self, schema_version: u32, fields: Fields) {
        self.pending.raised.retain(|(name, _)| fields.has(name));
        self.pending.upcast = Some(schema_version);
        self.name(fields);
        self.write();
    }

    /// Makes the op bring the record back from a deletion, with all fields that its author had
    /// read.
    pub fn bring_back(&mut self, read: Fields) {
        self.pending.brings_back = Some(read.to_json());
        self.writes.brings_back = Some(read.into_map().into_iter().collect());
    }

    /// Gives the `cleared` fields the new stamp of a deletion, if they have its former stamp.
    pub fn follow_deletion(&mut self, before: EditStamp, after: EditStamp) {
        if self.pending.cleared_at == Some(before) {
            self.pending.cleared_at = Some(after);
            self.write();
        }
    }

    /// Returns the named fields whose stamps are above the confirmed record, or `None` if nothing
    /// is left of the op.
    pub fn named_above(&self, confirmed: &Registers) -> Option<Fields> {
        let is_above = |name: &str| self.is_above(name, confirmed);
        (self.writes.does != Does::Nothing).then(|| self.named.filtered(is_above))
    }

    /// Returns whether the op's write of a field is above the record. Every write is above a record
    /// that does not exist.
    pub(crate) fn is_above(&self, name: &str, record: &Registers) -> bool {
        let own = self.writes.fields.get(name);
        !record.is_live() || own.is_some_and(|own| own.stamp > record.stamp_of(name))
    }

    /// Returns the schema version of the fields that the op names.
    pub fn schema_version(&self) -> u32 {
        self.pending.upcast.unwrap_or(self.content.schema_version)
    }

    /// Returns whether the op deletes the record.
    pub fn deletes(&self) -> bool {
        self.writes.does == Does::Deletes
    }
}

impl Registers {
    /// Joins ops of one tail, oldest first. A deletion before a creation is left out.
    pub fn join_tail<'a>(&mut self, ops: impl IntoIterator<Item = &'a Writes>) {
        let ops: Vec<_> = ops.into_iter().collect();
        for (number, writes) in ops.iter().enumerate() {
            let makes_anew = |later: &&Writes| later.does == Does::Creates;
            let is_covered =
                writes.does == Does::Deletes && ops.iter().skip(number + 1).any(makes_anew);
            if !is_covered {
                self.join(writes);
            }
        }
    }

    /// Returns the registers with ops of one tail joined.
    #[must_use]
    pub fn with<'a>(&self, ops: impl IntoIterator<Item = &'a Writes>) -> Self {
        let mut joined = self.clone();
        joined.join_tail(ops);
        joined
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::record::EditStamp;
    use crate::record::test_ops::{deleted, fields, op_id, tail_op, there};

    fn record() -> Registers {
        there(&[("a", json!(0), 99, 0), ("b", json!(0), 99, 0)])
    }

    fn visible(confirmed: &Registers, tail: &[TailOp]) -> Option<Value> {
        let image = confirmed.with(tail.iter().map(|op| &op.writes)).image();
        image.map(|image| Value::Object(image.into_map().into_iter().collect()))
    }

    fn takes_away(mut op: TailOp, names: &[&str], at: Option<EditStamp>) -> TailOp {
        op.pending.cleared = names.iter().map(|name| (*name).to_owned()).collect();
        op.pending.cleared_at = at;
        op.write();
        op
    }

    #[test]
    fn the_app_reads_what_is_confirmed_with_the_tail_on_top() {
        let tail = [
            tail_op(1, OpKind::Update, json!({"a": 1})),
            tail_op(2, OpKind::Update, json!({"a": 2, "b": null, "c": 2})),
        ];
        assert_eq!(visible(&record(), &tail), Some(json!({"a": 2, "c": 2})));
        assert_eq!(visible(&Registers::default(), &[]), None);
    }

    #[test]
    fn an_op_still_says_what_stands_above_theirs() {
        let op = tail_op(7, OpKind::Update, json!({"a": 1, "b": 1}));
        let theirs = there(&[("a", json!(9), 99, 50), ("b", json!(9), 99, 5)]);
        assert_eq!(op.named_above(&theirs), Some(fields(json!({"b": 1}))));
        assert_eq!(op.named_above(&deleted(99, 5)), Some(fields(json!({"a": 1, "b": 1}))));
        let mut lost = op;
        lost.drop_fields(&[]);
        lost.write();
        assert_eq!(lost.named_above(&theirs), None);
    }

    #[test]
    fn theirs_that_is_later_shows_through_a_dead_letter_too() {
        let mut dead = tail_op(1, OpKind::Update, json!({"a": 1, "b": 1}));
        dead.pending.dead = true;
        let theirs = there(&[("a", json!(9), 99, 50), ("b", json!(0), 99, 0)]);
        assert_eq!(visible(&theirs, &[dead]), Some(json!({"a": 9, "b": 1})));
    }

    #[test]
    fn nothing_of_a_record_shows_behind_a_deletion_of_ours_or_theirs_unless_ours_is_above() {
        let deletion = tail_op(2, OpKind::Delete, json!({}));
        assert_eq!(visible(&record(), std::slice::from_ref(&deletion)), None);
        let edit = |number| tail_op(number, OpKind::Update, json!({"a": 1}));
        assert_eq!(visible(&deleted(99, 5), &[edit(4)]), None);
        assert_eq!(visible(&deleted(99, 5), &[edit(6)]), Some(json!({"a": 1})));
        assert_eq!(visible(&there(&[("a", json!(9), 99, 50)]), &[deletion]), Some(json!({"a": 9})));
    }

    #[test]
    fn what_is_made_anew_behind_a_deletion_of_ours_shows_nothing_of_what_was_deleted() {
        let deletion = tail_op(1, OpKind::Delete, json!({}));
        let at = Some(deletion.writes.stamp);
        let anew = takes_away(tail_op(2, OpKind::Create, json!({"a": 2})), &["b"], at);
        assert_eq!(visible(&record(), &[deletion.clone(), anew.clone()]), Some(json!({"a": 2})));
        // Somebody else wrote `b` after the deletion and before the creation.
        let theirs = there(&[("a", json!(0), 99, 0), ("b", json!(9), 99, 2)]);
        assert_eq!(visible(&theirs, &[deletion, anew]), Some(json!({"a": 2, "b": 9})));
    }

    #[test]
    fn what_brings_a_record_back_shows_what_its_author_read_and_of_a_living_record_its_fields_only()
    {
        let mut edit = tail_op(7, OpKind::Update, json!({"a": 1}));
        edit.bring_back(fields(json!({"a": 1, "b": 0})));
        assert_eq!(
            visible(&deleted(99, 5), std::slice::from_ref(&edit)),
            Some(json!({"a": 1, "b": 0}))
        );
        let again = there(&[("b", json!(9), 99, 6)]);
        assert_eq!(visible(&again, &[edit]), Some(json!({"a": 1, "b": 9})));
    }

    /// What is left of an op: each field with its value and the time of its stamp.
    fn left(op: &TailOp) -> Vec<(String, Value, u64)> {
        let fields = op.writes.fields.iter();
        fields
            .map(|(name, field)| {
                (name.clone(), field.value.clone(), field.stamp.edited_at.to_bits())
            })
            .collect()
    }

    fn field(name: &str, value: Value, at: u64) -> (String, Value, u64) {
        (name.to_owned(), value, at)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn an_op_writes_the_fields_that_it_names_and_null_for_those_that_it_takes_away() {
        let mut op = tail_op(3, OpKind::Replace, json!({"a": 1, "b": null}));
        assert_eq!(
            (op.writes.does, left(&op)),
            (Does::Edits, vec![field("a", json!(1), 3), field("b", json!(null), 3)])
        );
        op.pending.cleared = names(&["c"]);
        op.write();
        assert_eq!(left(&op)[2], field("c", json!(null), 3));
        op.pending.cleared_at = Some(EditStamp { edited_at: Hlc::from_bits(2), op: op_id(2) });
        op.write();
        assert_eq!(
            left(&op)[2],
            field("c", json!(null), 2),
            "with the stamp of the deletion that it stands on"
        );
    }

    #[test]
    fn what_was_taken_away_never_comes_back() {
        let mut op = tail_op(3, OpKind::Update, json!({"a": 1, "b": 1}));
        op.pending.cleared = names(&["c"]);
        op.raise(&names(&["a"]), Hlc::from_bits(9), Some(&fields(json!({"a": 7}))));
        op.write();
        assert_eq!(left(&op)[0], field("a", json!(7), 9));
        op.drop_fields(&names(&["a", "c"]));
        op.write();
        assert_eq!((op.writes.does, left(&op)), (Does::Edits, vec![field("b", json!(1), 3)]));
        op.drop_fields(&names(&["b"]));
        op.write();
        assert_eq!((op.writes.does, left(&op)), (Does::Nothing, Vec::new()));
    }

    #[test]
    fn nothing_is_left_of_an_op_that_lost_all_whatever_it_did() {
        for kind in [OpKind::Create, OpKind::Update, OpKind::Replace, OpKind::Delete] {
            let said = if kind == OpKind::Delete { json!({}) } else { json!({"a": 1}) };
            let mut op = tail_op(3, kind, said);
            op.pending.cleared = names(&["b"]);
            op.drop_fields(&[]);
            op.write();
            assert_eq!((op.writes.does, left(&op)), (Does::Nothing, Vec::new()), "{kind}");
        }
    }

    #[test]
    fn a_creation_that_lost_its_fields_still_makes_the_record() {
        let mut op = tail_op(3, OpKind::Create, json!({"a": 1}));
        op.drop_fields(&names(&["a"]));
        op.write();
        assert_eq!((op.writes.does, left(&op)), (Does::Creates, Vec::new()));
    }

    #[test]
    fn some_fields_or_all_of_an_op_get_a_later_stamp_and_a_clock_that_was_ahead_takes_all_back() {
        let mut op = tail_op(3, OpKind::Update, json!({"a": 1, "b": 1}));
        op.raise(&names(&["a"]), Hlc::from_bits(9), None);
        op.write();
        assert_eq!(left(&op), [field("a", json!(1), 9), field("b", json!(1), 3)]);
        assert_eq!(
            (op.pending.greatest().edited_at, op.pending.stamp().edited_at),
            (Hlc::from_bits(9), Hlc::from_bits(3))
        );
        op.raise(&[], Hlc::from_bits(12), None);
        op.write();
        assert_eq!(left(&op), [field("a", json!(1), 12), field("b", json!(1), 12)]);
        op.raise(&names(&["a"]), Hlc::from_bits(15), None);
        op.lower(Hlc::from_bits(2));
        op.write();
        assert_eq!(left(&op), [field("a", json!(1), 2), field("b", json!(1), 2)]);
    }

    #[test]
    fn an_upcaster_gets_what_is_left_and_what_it_makes_has_the_stamp_of_the_op() {
        let mut op = tail_op(3, OpKind::Update, json!({"old": 1, "b": 1}));
        op.drop_fields(&names(&["b"]));
        op.raise(&names(&["old"]), Hlc::from_bits(9), Some(&fields(json!({"old": 2}))));
        op.turn(2, fields(json!({"new": 2})));
        op.write();
        assert_eq!(left(&op), [field("new", json!(2), 3)]);
        op.pending.cleared = names(&["c", "d"]);
        op.drop_fields(&names(&["c"]));
        op.raise(&names(&["new"]), Hlc::from_bits(9), None);
        op.turn(3, fields(json!({"new": 3, "newer": 3})));
        op.write();
        let expected =
            [field("d", json!(null), 3), field("new", json!(3), 9), field("newer", json!(3), 3)];
        assert_eq!(
            left(&op),
            expected,
            "what was raised stays so under the same name, what was dropped is gone"
        );
        op.drop_fields(&names(&["d", "new", "newer"]));
        op.write();
        assert_eq!(op.writes.does, Does::Nothing);
    }
}
