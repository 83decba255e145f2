//! Makes the op with which the other side of a resolved conflict wins.
//!
//! | resolved by field | the app reads a record | the app reads none |
//! |---|---|---|
//! | any op | an update that gives each field the value of the side that lost it | nothing |
//!
//! | resolved as a whole | the local side lost | the local side won |
//! |---|---|---|
//! | local delete, remote edit | a delete, if the record exists | a create with the remote image, if no record exists |
//! | local replace, remote edit | a replace with the local image, if the record exists | a replace with the remote image, if the record exists |
//! | local edit, remote delete | a create with the local edit on the last image, if no record exists | a delete, if the record exists |
//!
//! Invariants:
//! 1. The resolved conflict does not change. The op that flips it is an ordinary op, which cites
//!    the op of the conflict.
//! 2. If nothing is left to change, nothing is written.
//!
//! What it does not do: choose in a conflict that is still open ([`super::choose`]).

use serde_json::Value;

use super::not_possible::NotPossible;
use crate::entry::{ConflictedField, Extent, Winner};
use crate::fields::Fields;
use crate::op::{Mutation, OpKind};
use crate::rows::ConflictRow;

/// The values of a conflict.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FlipFields {
    /// The fields as the op of this device has them.
    pub local: Fields,
    /// The fields as the server has them.
    pub remote: Fields,
    /// The whole image before the conflict.
    pub last: Fields,
}

impl FlipFields {
    /// Returns the deleted record with the local op: an update on the last image, any other op with
    /// its own fields.
    fn last_with_ours(&self, kind: OpKind) -> Fields {
        match kind {
            OpKind::Delete => Fields::new(),
            OpKind::Create | OpKind::Replace => self.local.clone().into_image(),
            OpKind::Update => {
                let mut image = self.last.clone();
                image.apply(&self.local);
                image
            }
        }
    }
}

/// Returns the op with which the other side of a resolved conflict wins, or `None` if nothing is
/// left to change. `now` is the record that the app reads now.
///
/// # Errors
/// [`NotPossible`] if a person has yet to choose, or a rule merged both sides.
pub fn flip(
    conflict: &ConflictRow,
    values: &FlipFields,
    now: Option<&Fields>,
) -> Result<Option<Mutation>, NotPossible> {
    let ours_lost = match conflict.winner {
        Winner::Undecided => return Err(NotPossible::ConflictIsOpen),
        Winner::Merged => return Err(NotPossible::ConflictIsMerged),
        Winner::Remote => true,
        Winner::Local => false,
    };
    let mutation = if conflict.fields.is_empty() {
        flip_whole(conflict, values, ours_lost, now.is_some())
    } else {
        now.is_some().then(|| flip_fields(conflict, values))
    };
    Ok(mutation.map(|mutation| Mutation { cites: Some(conflict.op.id), ..mutation }))
}

fn flip_fields(conflict: &ConflictRow, values: &FlipFields) -> Mutation {
    let mut patch = Fields::new();
    for ConflictedField { name, winner, .. } in &conflict.fields {
        let other = if *winner == Winner::Remote { &values.local } else { &values.remote };
        patch.set(name, other.get(name).cloned().unwrap_or(Value::Null));
    }
    Mutation::update(conflict.key.clone(), patch)
}

fn flip_whole(
    conflict: &ConflictRow,
    values: &FlipFields,
    ours_lost: bool,
    is_there: bool,
) -> Option<Mutation> {
    let key = conflict.key.clone();
    let they_deleted = conflict.extent == Extent::Deleted;
    match (conflict.kind, ours_lost, is_there) {
        (OpKind::Delete, true, true) => Some(Mutation::delete(key)),
        (OpKind::Delete, false, false) => Some(Mutation::create(key, values.remote.clone())),
        (OpKind::Replace, true, true) if !they_deleted => {
            Some(Mutation::replace(key, values.local.clone()))
        }
        (OpKind::Replace, false, true) if !they_deleted => {
            Some(Mutation::replace(key, values.remote.clone()))
        }
        (kind, true, false) if they_deleted => {
            Some(Mutation::create(key, values.last_with_ours(kind)))
        }
        (_, false, true) if they_deleted => Some(Mutation::delete(key)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rules::test_tail::conflict;
    use crate::rules::test_view::{fields, key, op_id};

    fn cites(mutation: Mutation) -> Mutation {
        Mutation { cites: Some(op_id(1)), ..mutation }
    }

    #[test]
    fn a_flip_of_fields_gives_each_the_value_of_the_side_that_lost_it() {
        let conflict = conflict(
            OpKind::Update,
            Winner::Local,
            false,
            &[("a", Winner::Remote), ("b", Winner::Local)],
        );
        let values = FlipFields {
            local: fields(json!({"a": "ours", "b": "ours"})),
            remote: fields(json!({"a": "theirs"})),
            last: Fields::new(),
        };
        let patch = fields(json!({"a": "ours", "b": null}));
        assert_eq!(
            flip(&conflict, &values, Some(&Fields::new())),
            Ok(Some(cites(Mutation::update(key("1"), patch))))
        );
        assert_eq!(flip(&conflict, &values, None), Ok(None), "there is no record to put them in");
    }

    #[test]
    fn a_flip_of_a_whole_record_does_what_the_side_that_lost_had_done() {
        use OpKind::{Delete, Replace, Update};
        use Winner::{Local, Remote};
        let values = FlipFields {
            local: fields(json!({"a": "ours"})),
            remote: fields(json!({"a": "theirs"})),
            last: fields(json!({"a": "last", "b": "last"})),
        };
        let ours = || values.local.clone();
        let theirs = || values.remote.clone();
        let on_top = || fields(json!({"a": "ours", "b": "last"}));
        for (kind, winner, deleted, is_there, expected) in [
            (Delete, Remote, false, true, Some(Mutation::delete(key("1")))),
            (Delete, Remote, false, false, None),
            (Delete, Local, false, false, Some(Mutation::create(key("1"), theirs()))),
            (Delete, Local, false, true, None),
            (Replace, Remote, false, true, Some(Mutation::replace(key("1"), ours()))),
            (Replace, Remote, false, false, None),
            (Replace, Local, false, true, Some(Mutation::replace(key("1"), theirs()))),
            (Replace, Remote, true, false, Some(Mutation::create(key("1"), ours()))),
            (Replace, Remote, true, true, None),
            (Replace, Local, true, true, Some(Mutation::delete(key("1")))),
            (Update, Remote, true, false, Some(Mutation::create(key("1"), on_top()))),
            (Update, Remote, true, true, None),
            (Update, Remote, false, false, None),
            (Update, Local, true, true, Some(Mutation::delete(key("1")))),
            (Update, Local, true, false, None),
            (Update, Local, false, true, None),
        ] {
            let now = is_there.then(Fields::new);
            let flipped = flip(&conflict(kind, winner, deleted, &[]), &values, now.as_ref());
            assert_eq!(
                flipped,
                Ok(expected.map(cites)),
                "{kind:?}, {winner:?} won, deleted: {deleted}, there: {is_there}"
            );
        }
    }

    #[test]
    fn what_is_open_or_merged_is_not_flipped() {
        for (winner, why) in [
            (Winner::Undecided, NotPossible::ConflictIsOpen),
            (Winner::Merged, NotPossible::ConflictIsMerged),
        ] {
            let conflict = conflict(OpKind::Update, winner, false, &[("a", winner)]);
            assert_eq!(flip(&conflict, &FlipFields::default(), None), Err(why));
        }
    }
}
