//! The rules: pure decisions, one file a concern.
//!
//! ```text
//!   what the app writes
//!   admit        may this mutation be written?                       app      → ops
//!   save         what does a typed record change of what is there?   type     → patch
//!   clock        which stamp does it get?
//!
//!   what is sent
//!   plan         what is sent next, what is held and why?            tail     → units, holds
//!   order        what goes first of what could be sent?
//!   size         how much of it can go as one?
//!   inspect      what would only be sent to fail?
//!   upcast       what do ops of an older schema version become?      ops      → ops
//!   coalesce     what do a record's ops come to?                     ops      → one change
//!   freeze       what is sent of them, fitted to what is confirmed?  groups   → units
//!
//!   what comes back
//!   belonging    is it the server that the book belongs to?
//!   credible     can the answer be true at all?                      answer   → code
//!   restamp      which stamps are ahead of the server's time?        ops      → ops
//!   answer       what follows from what it says of units and records? answer  → decisions
//!   news         what of it is new, and which cursors move?          answer   → answer
//!   restore      what is offered again to a server that was set back? records → ops
//!   failure      what follows from an exchange without an answer?    failure  → decisions
//!   backoff      when is it tried again?
//!   parks        what do parks stop, and what lifts them?            parks    → decisions
//!
//!   what meets
//!   rebase       what becomes of a record's tail?                     tail     → decisions
//!
//!   what a person decides
//!   undo         what takes an op back?                              op       → decisions, or an op
//!   retry        what goes again?                                    ops      → decisions
//!   discard      what ends with an op that is given up?              ops      → decisions
//!   correct      what does a corrected dead letter become?           tail     → an op, decisions
//!   isolated     what becomes of a unit that does not get through?   unit     → decisions
//!   choose       what does a choice in an open conflict come to?     conflict → decisions
//!   flip         what makes the other side of a settled one win?     conflict → an op
//!   resume       what goes on after a change outside?                parks    → decisions
//!   not_possible why can a decision not be carried out?
//!
//!   where it stands
//!   status       where do a record and the book stand, and why?      rows     → status
//!   explain      why is a record not synced?                         status   → words
//! ```
//!
//! Invariants: a rule reads the book only through [`View`] or its arguments, gets time and randomness as arguments, writes
//! nothing, and gives the same result for the same input. What it decides becomes entries; applying those needs no rule.

pub mod admit;
pub mod answer;
pub mod backoff;
pub mod belonging;
pub mod choose;
pub mod clock;
pub mod coalesce;
pub mod correct;
pub mod credible;
#[cfg(test)]
mod desk;
pub mod discard;
pub mod explain;
pub mod failure;
pub mod flip;
pub mod freeze;
pub mod group;
pub mod inspect;
pub mod isolated;
pub mod news;
mod not_possible;
mod order;
pub mod parks;
pub mod plan;
mod rebase;
pub mod restamp;
pub mod restore;
pub mod resume;
pub mod retry;
pub mod save;
pub mod size;
pub mod status;
#[cfg(test)]
mod test_tail;
pub mod undo;
pub mod upcast;

pub use not_possible::NotPossible;

use crate::entry::FieldsSource;
use crate::fields::{Fields, FieldsJson, InvalidFields};
use crate::ids::{OpId, UnitId};
use crate::names::RecordKey;
use crate::numbers::Version;
pub use crate::op::OpContent;
use crate::op::{OpKind, OpPlace};
use crate::rows::{RecordRow, UnitRow};

/// What rules may read of a book.
pub trait View {
    /// What goes wrong when the book cannot be read.
    type Error: From<InvalidFields>;

    /// Returns a record's row, or `None` if nothing is known of the record.
    fn record(&mut self, key: &RecordKey) -> Result<Option<RecordRow>, Self::Error>;

    /// Returns the version of a record that is confirmed, if any is.
    fn confirmed_version(&mut self, key: &RecordKey) -> Result<Option<Version>, Self::Error> {
        Ok(self.record(key)?.and_then(|row| row.version()))
    }

    /// Returns whether a record may have a tail, or may be one that a former server had: whether a change of it needs to
    /// be judged at all. Never wrongly says no; a view that cannot tell without reading the row says yes.
    fn may_need_judging(&mut self, _: &RecordKey) -> Result<bool, Self::Error> {
        Ok(true)
    }

    /// Returns a unit without a final answer.
    fn unit(&mut self, unit: &UnitId) -> Result<Option<UnitRow>, Self::Error>;

    /// Returns the unit without a final answer that holds this op.
    fn unit_of(&mut self, op: &OpId) -> Result<Option<UnitId>, Self::Error>;

    /// Returns what an op of the log does.
    fn op(&mut self, place: OpPlace) -> Result<OpContent, Self::Error>;

    /// Returns frozen fields; `None` for a change without fields or with erased ones.
    fn fields(&mut self, source: FieldsSource) -> Result<Option<FieldsJson>, Self::Error>;
}

/// Applies one op to what an app reads: what an op that is written now does, since its stamp is above all that its author read.
pub fn apply_to_image(image: Option<Fields>, kind: OpKind, fields: &Fields) -> Option<Fields> {
    match (kind, image) {
        (OpKind::Delete, _) => None,
        (OpKind::Create | OpKind::Update, Some(mut image)) => {
            image.apply(fields);
            Some(image)
        }
        (OpKind::Update, None) if fields.is_empty() => None,
        (OpKind::Create | OpKind::Update | OpKind::Replace, _) => Some(fields.clone().into_image()),
    }
}

/// Applies one op to the text of what a record is, without building values where that can be helped.
///
/// # Errors
/// [`InvalidFields`] if stored text was damaged.
pub fn apply_to_text(
    image: Option<&FieldsJson>,
    kind: OpKind,
    fields: FieldsJson,
) -> Result<Option<FieldsJson>, InvalidFields> {
    let beneath = match kind {
        OpKind::Delete => return Ok(None),
        OpKind::Replace => None,
        OpKind::Create => image,
        OpKind::Update if fields.is_empty() => return Ok(image.cloned()),
        OpKind::Update => image,
    };
    match beneath {
        Some(image) => image.patched(&fields).map(Some),
        None => fields.into_image().map(Some),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    prop_compose! {
        fn some_fields()(members in prop::collection::btree_map("[a-c]", prop_oneof![
            Just(Value::Null), (0..3u8).prop_map(|n| json!(n)), Just(json!({"x": null})), Just(json!("null")),
        ], 0..4)) -> Fields {
            members.into_iter().collect()
        }
    }

    proptest! {
        #[test]
        fn an_op_means_the_same_to_text_as_to_values(
            image in prop::option::of(some_fields()),
            kind in prop::sample::select(vec![OpKind::Create, OpKind::Update, OpKind::Replace, OpKind::Delete]),
            fields in some_fields(),
        ) {
            let image = image.map(Fields::into_image);
            let text = |fields: &Option<Fields>| fields.as_ref().map(Fields::to_json);
            let applied = apply_to_text(text(&image).as_ref(), kind, fields.to_json()).unwrap();
            prop_assert_eq!(applied, text(&apply_to_image(image, kind, &fields)));
        }
    }
}
