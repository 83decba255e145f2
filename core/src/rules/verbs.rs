//! What a person asks for after the fact: undo an op, flip a settled conflict, choose in an open one.
//!
//! | undo of → | nothing newer of its record, never planned | anything else |
//! |---|---|---|
//! | any op | annulled: it never leaves | a compensating op that cites it |
//!
//! | compensation of → | create | update | delete | replace |
//! |---|---|---|---|---|
//! | is | delete | update back, for fields that nobody changed since | create with the image before | replace with the image before |
//!
//! Invariants:
//! 1. Nothing is erased: what is undone or flipped stays in the log, and the op that corrects it cites it.
//! 2. A compensation never takes back what someone did later.

use serde_json::Value;

use crate::entry::Winner;
use crate::fields::Fields;
use crate::names::RecordKey;
use crate::op::{Mutation, OpKind};
use crate::rows::ConflictRow;

/// What undoing an op comes to now that it may have left.
#[derive(Debug, Clone, PartialEq)]
pub enum Compensation {
    /// An op that takes back what the undone one did.
    Op(Mutation),
    /// There is nothing left to take back: someone changed it since.
    Nothing,
}

/// Computes the op that takes another one back.
///
/// `before` is what the app read before the op, `now` what it reads now.
pub fn compensate(
    key: &RecordKey,
    kind: OpKind,
    fields: &Fields,
    before: Option<&Fields>,
    now: Option<&Fields>,
) -> Compensation {
    let null = Value::Null;
    let mutation = match (kind, before, now) {
        (OpKind::Create, _, Some(_)) => Mutation::delete(key.clone()),
        (OpKind::Delete, Some(before), None) => Mutation::create(key.clone(), before.clone()),
        (OpKind::Replace, Some(before), Some(_)) => Mutation::replace(key.clone(), before.clone()),
        (OpKind::Update, Some(before), Some(now)) => {
            let untouched = |name: &str| now.get(name).unwrap_or(&null) == fields.get(name).unwrap_or(&null);
            let back = fields.filtered(untouched);
            let back: Fields = back
                .names()
                .map(|name| (name.to_owned(), before.get(name).cloned().unwrap_or(Value::Null)))
                .collect();
            if back.is_empty() {
                return Compensation::Nothing;
            }
            Mutation::update(key.clone(), back)
        }
        _ => return Compensation::Nothing,
    };
    Compensation::Op(mutation)
}

/// A conflict that cannot be flipped or chosen in, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotFlippable {
    /// A person has yet to choose.
    #[error("this conflict is still open: choose in it")]
    Open,
    /// It is settled already.
    #[error("this conflict is settled already: flip it")]
    Settled,
    /// A rule merged both sides.
    #[error("a rule merged both sides: write the value that you want")]
    Merged,
}

/// Computes the op that makes the other side of a settled conflict win.
///
/// `now` is what the app reads now, `last` the last image known of the record, for bringing it back.
///
/// # Errors
/// [`NotFlippable`].
pub fn flip(
    conflict: &ConflictRow,
    fields: &FlipFields,
    now: Option<&Fields>,
) -> Result<Option<Mutation>, NotFlippable> {
    let key = conflict.key.clone();
    let ours_lost = match conflict.winner {
        Winner::Undecided => return Err(NotFlippable::Open),
        Winner::Merged => return Err(NotFlippable::Merged),
        Winner::Remote => true,
        Winner::Local => false,
    };
    let by_field = !conflict.fields.is_empty();
    let remote_deleted = conflict.extent == crate::entry::Extent::Deleted;
    let mutation = if by_field {
        let mut patch = Fields::new();
        for (name, _, winner) in &conflict.fields {
            let other = if *winner == Winner::Remote { &fields.local } else { &fields.remote };
            patch.set(name, other.get(name).cloned().unwrap_or(Value::Null));
        }
        match now {
            Some(_) => Mutation::update(key, patch),
            None => return Ok(None),
        }
    } else {
        match (conflict.kind, ours_lost, now) {
            (OpKind::Delete, true, Some(_)) => Mutation::delete(key),
            (OpKind::Delete, false, None) => Mutation::create(key, fields.remote.clone()),
            (OpKind::Replace, true, Some(_)) if !remote_deleted => {
                Mutation::replace(key, fields.local.clone())
            }
            (OpKind::Replace, false, Some(_)) if !remote_deleted => {
                Mutation::replace(key, fields.remote.clone())
            }
            (_, true, None) if remote_deleted => Mutation::create(key, fields.last_with_ours()),
            (_, false, Some(_)) if remote_deleted => Mutation::delete(key),
            _ => return Ok(None),
        }
    };
    Ok(Some(mutation))
}

/// The values of a conflict, read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FlipFields {
    /// As our op had them.
    pub local: Fields,
    /// As the server had them.
    pub remote: Fields,
    /// The whole image before the conflict.
    pub last: Fields,
}

impl FlipFields {
    fn last_with_ours(&self) -> Fields {
        let mut image = self.last.clone();
        image.apply(&self.local);
        image
    }
}

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

/// What a choice means for the op that waits.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chosen {
    /// The fields that it loses.
    pub lost: Vec<String>,
    /// The values that it gets instead.
    pub merged: Option<Fields>,
    /// Whether nothing of it is left.
    pub superseded: bool,
}

/// Works a choice out. `effective` is what the op would still send.
///
/// # Errors
/// [`NotFlippable::Settled`] if there is nothing to choose any more.
pub fn choose(conflict: &ConflictRow, effective: &Fields, choice: &Choice) -> Result<Chosen, NotFlippable> {
    if !conflict.open {
        return Err(NotFlippable::Settled);
    }
    let open = |winner: &Winner| *winner == Winner::Undecided;
    let names: Vec<_> =
        conflict.fields.iter().filter(|(.., winner)| open(winner)).map(|(name, ..)| name.clone()).collect();
    Ok(match choice {
        Choice::Mine => Chosen::default(),
        Choice::Merged(fields) => Chosen { merged: Some(fields.clone()), ..Chosen::default() },
        Choice::Theirs => {
            let whole = conflict.fields.is_empty();
            let superseded = whole || effective.names().all(|name| names.iter().any(|lost| lost == name));
            Chosen { lost: names, merged: None, superseded }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: Value) -> Fields {
        Fields::from_value(value).unwrap()
    }

    fn key() -> RecordKey {
        RecordKey::parse("lead", "1").unwrap()
    }

    #[test]
    fn an_update_is_taken_back_field_by_field() {
        let (before, now) = (fields(json!({"a": 1, "b": 1})), fields(json!({"a": 2, "b": 2, "c": 2})));
        let op = fields(json!({"a": 2, "c": 2}));
        assert_eq!(
            compensate(&key(), OpKind::Update, &op, Some(&before), Some(&now)),
            Compensation::Op(Mutation::update(key(), fields(json!({"a": 1, "c": null}))))
        );
    }

    #[test]
    fn what_someone_changed_since_is_left_alone() {
        let (before, now) = (fields(json!({"a": 1})), fields(json!({"a": 3})));
        let undone = compensate(&key(), OpKind::Update, &fields(json!({"a": 2})), Some(&before), Some(&now));
        assert_eq!(undone, Compensation::Nothing);
    }

    #[test]
    fn a_delete_is_taken_back_with_the_whole_image() {
        let before = fields(json!({"a": 1}));
        assert_eq!(
            compensate(&key(), OpKind::Delete, &Fields::new(), Some(&before), None),
            Compensation::Op(Mutation::create(key(), before))
        );
        assert_eq!(
            compensate(
                &key(),
                OpKind::Create,
                &fields(json!({"a": 1})),
                None,
                Some(&fields(json!({"a": 1})))
            ),
            Compensation::Op(Mutation::delete(key()))
        );
    }
}
