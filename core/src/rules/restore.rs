//! Makes the offers to a server that was set back, or that replaces another one.
//!
//! | the former server | this server | the record has pending ops | offer |
//! |---|---|---|---|
//! | had an image | has another one | no | an update of the fields that differ |
//! | had an image | has none | no | a create |
//! | had deleted it | has it | no | a delete |
//! | anything | anything | yes | nothing: the pending ops are newer |
//! | had it | was read to its end and never named it | no | a create |
//!
//! Invariants:
//! 1. An offer keeps the stamp of the former server, so an older state never wins over a newer one.
//! 2. Nothing that a former server confirmed is dropped.
//!
//! What it does not do: find these records while an answer is applied ([`super::answer`]).

use super::answer::Reoffer;
use crate::entry::{Decision, Items};
use crate::fields::{FieldsJson, InvalidFields};
use crate::names::RecordKey;
use crate::op::Mutation;
use crate::random::Randomness;
use crate::record::{Does, Registers, TailOp};
use crate::rows::RecordRow;
use crate::time::Hlc;

/// An op that offers a record again.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// The mutation to write.
    pub mutation: Mutation,
    /// The stamp of the offer.
    pub edited_at: Hlc,
}

/// Returns the offer of a record that this server has in an older state, if there is something to
/// offer. `row` is the record's row.
///
/// # Errors
/// [`InvalidFields`] if the row is damaged.
pub fn offer(older: Reoffer, row: &RecordRow) -> Result<Option<Offer>, InvalidFields> {
    if !row.tail.is_empty() {
        return Ok(None);
    }
    let Reoffer { key, image, edited_at } = older;
    let now = row.image().map(FieldsJson::to_fields).transpose()?;
    let mutation = match (image, now) {
        (Some(image), Some(now)) => Mutation::update(key, now.patch_to(&image)),
        (Some(image), None) => Mutation::create(key, image),
        (None, Some(_)) => Mutation::delete(key),
        (None, None) => return Ok(None),
    };
    Ok(Some(Offer { mutation, edited_at }))
}

/// Returns the offer of a record that a former server had, and that this server, read to its end,
/// did not name.
///
/// # Errors
/// [`InvalidFields`] if the row is damaged.
pub fn offer_missing(key: RecordKey, row: &RecordRow) -> Result<Option<Offer>, InvalidFields> {
    let confirmed = row.confirmed.as_ref().filter(|_| row.tail.is_empty());
    let offer = confirmed.map(|confirmed| {
        let image = confirmed.fields.to_fields()?;
        Ok(Offer { mutation: Mutation::create(key, image), edited_at: confirmed.edited_at })
    });
    offer.transpose()
}

/// Decides that pending edits create their record again, with all that their authors read: this
/// server, read to its end, did not name the record.
///
/// # Errors
/// [`InvalidFields`] if stored text is damaged.
pub fn bring_back(
    key: &RecordKey,
    confirmed: &Registers,
    tail: &[TailOp],
    items: &mut Items,
    random: &mut dyn Randomness,
) -> Result<Vec<Decision>, InvalidFields> {
    let mut read = confirmed.clone();
    let mut decisions = Vec::new();
    for op in tail {
        let at = read.with([&op.writes]);
        if op.writes.does == Does::Edits && op.writes.brings_back.is_none() {
            let image = at.image().unwrap_or_default();
            let read = items.add_fields(&image.to_json(), random);
            decisions.push(Decision::BroughtBack { key: key.clone(), op: op.op, read });
        }
        if !op.pending.dead {
            read = at;
        }
    }
    Ok(decisions)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fields::Fields;
    use crate::op::OpKind;
    use crate::random::SeededRandomness;
    use crate::rows::Visible;
    use crate::rules::test_tail::{row_of, tail_op, there};
    use crate::rules::test_view::{fields, key, op_id};

    const BEFORE: Hlc = Hlc::from_bits(77);

    /// Makes a record that the app reads as this image.
    fn read_as(image: Option<Value>) -> RecordRow {
        let visible = image.map_or(Visible::Absent, |image| Visible::Own(fields(image).to_json()));
        RecordRow { visible, ..RecordRow::default() }
    }

    fn offered(had: Option<Value>, row: &RecordRow) -> Option<Mutation> {
        let older = Reoffer { key: key("1"), image: had.map(fields), edited_at: BEFORE };
        let offer = offer(older, row).unwrap()?;
        assert_eq!(offer.edited_at, BEFORE, "an offer keeps its stamp");
        Some(offer.mutation)
    }

    #[test]
    fn what_this_server_has_otherwise_is_offered_as_an_update_to_what_differs() {
        let now = read_as(Some(json!({"a": 1, "b": 1, "c": 1})));
        let update = Mutation::update(key("1"), fields(json!({"b": 2, "c": null})));
        assert_eq!(offered(Some(json!({"a": 1, "b": 2})), &now), Some(update));
    }

    #[test]
    fn what_this_server_lacks_is_offered_as_a_creation_and_what_it_has_again_as_a_deletion() {
        let create = Mutation::create(key("1"), fields(json!({"a": 1})));
        assert_eq!(offered(Some(json!({"a": 1})), &read_as(None)), Some(create));
        assert_eq!(
            offered(None, &read_as(Some(json!({"a": 1})))),
            Some(Mutation::delete(key("1")))
        );
        assert_eq!(offered(None, &read_as(None)), None, "neither has it");
    }

    #[test]
    fn what_is_pending_is_newer_than_an_offer() {
        let row = row_of(true, &[1]);
        for had in [Some(json!({"a": 1})), None] {
            assert_eq!(offered(had, &row), None);
        }
        assert_eq!(offer_missing(key("1"), &row), Ok(None));
    }

    #[test]
    fn what_this_server_never_named_is_offered_as_it_was_confirmed() {
        let row = row_of(true, &[]);
        let stamp = row.confirmed.as_ref().map(|confirmed| confirmed.edited_at).unwrap();
        let mutation = Mutation::create(key("1"), fields(json!({"n": "before"})));
        assert_eq!(offer_missing(key("1"), &row), Ok(Some(Offer { mutation, edited_at: stamp })));
        assert_eq!(
            offer_missing(key("1"), &row_of(false, &[])),
            Ok(None),
            "it was never confirmed"
        );
    }

    #[test]
    fn a_damaged_row_is_said_to_be_damaged() {
        let damaged = FieldsJson::from_stored(b"{").unwrap();
        let row = RecordRow { visible: Visible::Own(damaged), ..RecordRow::default() };
        let older = Reoffer { key: key("1"), image: Some(Fields::new()), edited_at: BEFORE };
        assert!(offer(older, &row).is_err());
    }

    #[test]
    fn edits_of_a_record_that_this_server_lacks_bring_it_back_as_their_authors_read_it() {
        let confirmed = there(&[("a", json!(0), 99, 0), ("b", json!(0), 99, 0)]);
        let mut refused = tail_op(2, OpKind::Update, json!({"b": "refused"}));
        refused.pending.dead = true;
        let mut known = tail_op(4, OpKind::Update, json!({"d": 4}));
        known.bring_back(fields(json!({"d": 4})));
        let tail = [
            tail_op(1, OpKind::Update, json!({"a": 1})),
            refused,
            tail_op(3, OpKind::Update, json!({"c": 3})),
            known,
            tail_op(5, OpKind::Delete, json!({})),
        ];
        let (mut items, mut random) = (Items::default(), SeededRandomness::from_number(1));
        let decisions = bring_back(&key("1"), &confirmed, &tail, &mut items, &mut random).unwrap();
        let items: Vec<crate::entry::Item> = items.into();
        let read = decisions.iter().map(|decision| match decision {
            Decision::BroughtBack { op, read, .. } => {
                let text = items[usize::try_from(*read).unwrap()].bytes().unwrap();
                (op.id, serde_json::from_slice::<Value>(text).unwrap())
            }
            other => panic!("{other:?}"),
        });
        let expected = [
            (op_id(1), json!({"a": 1, "b": 0})),
            (op_id(2), json!({"a": 1, "b": "refused"})),
            (op_id(3), json!({"a": 1, "b": 0, "c": 3})),
        ];
        assert_eq!(
            read.collect::<Vec<_>>(),
            expected,
            "a refused value goes out with its own op only"
        );
    }
}
