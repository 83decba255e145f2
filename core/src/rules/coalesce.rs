//! What a record's ops come to when they are sent as one change.
//!
//! | last ↓ / next → | create | update | delete | replace |
//! |---|---|---|---|---|
//! | nothing | create | update | delete | replace |
//! | create  | create, fields composed | create, fields composed | nothing (delete, if attempted) | create (replace, if attempted), new image |
//! | update  | update, fields composed | update, fields composed | delete | replace |
//! | delete  | **replace**: no old field survives | replace | delete | replace |
//! | replace | replace, fields composed | replace, fields composed | delete | replace, new image |
//!
//! An update of which nothing is left says nothing: what came before it stands.
//!
//! Law: applying what the ops come to equals applying the ops one by one, for any ops whatever: pairs that are refused when
//! they are written (`admit`), such as a create after an update, come about when what stood between them was given up.
//!
//! What it is not: the barriers. Which ops may be put together at all is decided in [`super::plan`].

use std::collections::BTreeMap;

use crate::fields::Fields;
use crate::op::OpKind;
use crate::time::Hlc;

/// What some ops of one record come to.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Folded {
    /// Nothing that anyone else would see.
    #[default]
    Nothing,
    /// One change.
    Change(FoldedChange),
}

/// One change that stands for some ops.
#[derive(Debug, Clone, PartialEq)]
pub struct FoldedChange {
    /// What is done.
    pub kind: OpKind,
    /// An image for create and replace, a patch for update. Nulls are kept: they are values.
    pub fields: Fields,
    /// When each field was last edited.
    pub stamps: BTreeMap<String, Hlc>,
    /// The last edit of all.
    pub edited_at: Hlc,
}

/// One op, as far as folding needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What it does.
    pub kind: OpKind,
    /// Its fields.
    pub fields: Fields,
    /// When it was made.
    pub edited_at: Hlc,
}

impl Folded {
    /// Puts the next op on top. `attempted` says that the server has had such a record, or may have by what came before.
    #[must_use]
    pub fn then(self, next: Step, attempted: bool) -> Self {
        use OpKind::{Create, Delete, Replace, Update};
        let Self::Change(last) = self else {
            return Self::Change(FoldedChange::of(next));
        };
        if next.kind == Update && next.fields.is_empty() {
            return Self::Change(last);
        }
        if last.kind == Update && last.fields.is_empty() {
            return Self::Change(FoldedChange::of(next));
        }
        Self::Change(match (last.kind, next.kind) {
            (Create | Update | Replace, Create | Update) => last.composed(next),
            (Create, Delete) if !attempted => return Self::Nothing,
            (_, Delete) => FoldedChange::of(next),
            (Create, Replace) if !attempted => FoldedChange { kind: Create, ..FoldedChange::of(next) },
            (_, Replace) | (Delete, Create | Update) => {
                FoldedChange { kind: Replace, ..FoldedChange::of(next) }
            }
        })
    }
}

impl FoldedChange {
    fn of(step: Step) -> Self {
        let stamps = step.fields.names().map(|name| (name.to_owned(), step.edited_at)).collect();
        Self { kind: step.kind, fields: step.fields, stamps, edited_at: step.edited_at }
    }

    fn composed(mut self, next: Step) -> Self {
        self.stamps.extend(next.fields.names().map(|name| (name.to_owned(), next.edited_at)));
        self.fields.compose(next.fields);
        self.edited_at = self.edited_at.max(next.edited_at);
        self
    }

    /// Returns the fields that were edited earlier than the last edit.
    pub fn older(&self) -> impl Iterator<Item = (&String, Hlc)> {
        self.stamps.iter().filter(|(_, stamp)| **stamp < self.edited_at).map(|(name, stamp)| (name, *stamp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Image;
    use proptest::prelude::*;
    use serde_json::json;

    fn step(kind: OpKind, fields: serde_json::Value, at: u64) -> Step {
        Step { kind, fields: Fields::from_value(fields).unwrap(), edited_at: Hlc::from_bits(at) }
    }

    #[track_caller]
    fn folded(steps: Vec<Step>, attempted: bool) -> Folded {
        steps.into_iter().fold(Folded::Nothing, |folded, step| folded.then(step, attempted))
    }

    #[track_caller]
    fn expect_change(folded: Folded) -> FoldedChange {
        match folded {
            Folded::Change(change) => change,
            Folded::Nothing => panic!("expected a change"),
        }
    }

    #[test]
    fn create_then_update_is_one_create_with_the_union_of_fields() {
        let change = expect_change(folded(
            vec![
                step(OpKind::Create, json!({"a": 1, "b": 1}), 1),
                step(OpKind::Update, json!({"b": null, "c": 2}), 2),
            ],
            false,
        ));
        assert_eq!(change.kind, OpKind::Create);
        assert_eq!(change.fields, Fields::from_value(json!({"a": 1, "b": null, "c": 2})).unwrap());
        assert_eq!(change.older().collect::<Vec<_>>(), [(&"a".to_owned(), Hlc::from_bits(1))]);
    }

    #[test]
    fn create_then_delete_is_nothing_unless_the_create_was_attempted() {
        let steps = || vec![step(OpKind::Create, json!({"a": 1}), 1), step(OpKind::Delete, json!({}), 2)];
        assert_eq!(folded(steps(), false), Folded::Nothing);
        assert_eq!(expect_change(folded(steps(), true)).kind, OpKind::Delete);
    }

    #[test]
    fn a_create_that_was_replaced_is_still_one_that_nobody_heard_of_unless_it_was_attempted() {
        let steps =
            || vec![step(OpKind::Create, json!({"a": 1}), 1), step(OpKind::Replace, json!({"b": 1}), 2)];
        assert_eq!(expect_change(folded(steps(), false)).kind, OpKind::Create);
        assert_eq!(expect_change(folded(steps(), true)).kind, OpKind::Replace);
        let deleted = || steps().into_iter().chain([step(OpKind::Delete, json!({}), 3)]).collect();
        assert_eq!(folded(deleted(), false), Folded::Nothing);
        assert_eq!(expect_change(folded(deleted(), true)).kind, OpKind::Delete);
    }

    #[test]
    fn delete_then_create_replaces_and_no_old_field_survives() {
        let change = expect_change(folded(
            vec![
                step(OpKind::Update, json!({"old": 1}), 1),
                step(OpKind::Delete, json!({}), 2),
                step(OpKind::Create, json!({"new": 1}), 3),
            ],
            false,
        ));
        assert_eq!(
            (change.kind, change.fields),
            (OpKind::Replace, Fields::from_value(json!({"new": 1})).unwrap())
        );
    }

    #[test]
    fn ops_fold_when_what_stood_between_them_was_given_up() {
        let pair = |last, next| {
            expect_change(folded(vec![step(last, json!({"a": 1}), 1), step(next, json!({"b": 2}), 2)], true))
        };
        let update_create = pair(OpKind::Update, OpKind::Create);
        assert_eq!(
            (update_create.kind, update_create.fields),
            (OpKind::Update, Fields::from_value(json!({"a": 1, "b": 2})).unwrap())
        );
        let delete_update = pair(OpKind::Delete, OpKind::Update);
        assert_eq!(
            (delete_update.kind, delete_update.fields),
            (OpKind::Replace, Fields::from_value(json!({"b": 2})).unwrap())
        );
    }

    prop_compose! {
        fn some_fields()(members in prop::collection::btree_map("[a-c]", prop_oneof![
            Just(serde_json::Value::Null), (0..3u8).prop_map(|n| json!(n)),
        ], 0..3)) -> Fields {
            members.into_iter().collect()
        }
    }

    prop_compose! {
        fn some_start()(which in 0..3u8, before in some_fields()) -> Image {
            let before = before.into_image();
            match which {
                0 => Image::default(),
                1 => Image { fields: Some(before), before_deletion: None },
                _ => Image { fields: None, before_deletion: Some(before) },
            }
        }
    }

    proptest! {
        #[test]
        fn applying_what_ops_come_to_equals_applying_the_ops(
            start in some_start(), steps in prop::collection::vec((0..4u8, some_fields()), 0..8),
        ) {
            let known = start != Image::default();
            let (mut one_by_one, mut folded) = (start.clone(), Folded::Nothing);
            for (at, (choice, fields)) in steps.into_iter().enumerate() {
                let kind = [OpKind::Create, OpKind::Update, OpKind::Delete, OpKind::Replace][usize::from(choice)];
                let fields = if kind == OpKind::Delete { Fields::new() } else { fields };
                one_by_one.apply(kind, &fields);
                let step = Step { kind, fields, edited_at: Hlc::from_bits(at as u64 + 1) };
                folded = folded.then(step, known);
            }
            let mut at_once = start;
            if let Folded::Change(change) = folded {
                at_once.apply(change.kind, &change.fields);
            }
            prop_assert_eq!(one_by_one.fields, at_once.fields);
        }
    }
}
