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
//!   rebase       whose was the server's last edit?
//!   edits        which ops of the record's tail are judged?
//!   judge        what becomes of those then?
//!   base         against what are they judged?
//!   resolve      who wins a field that both sides changed?
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
pub mod base;
pub mod belonging;
pub mod choose;
pub mod clock;
pub mod coalesce;
pub mod correct;
pub mod credible;
#[cfg(test)]
mod desk;
pub mod discard;
mod edits;
pub mod explain;
pub mod failure;
pub mod flip;
pub mod freeze;
pub mod group;
pub mod inspect;
pub mod isolated;
mod judge;
pub mod news;
mod not_possible;
mod order;
pub mod parks;
pub mod plan;
mod rebase;
pub mod resolve;
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
use crate::op::{OpKind, OpPlace};
use crate::rows::{RecordRow, TailRef, UnitRow};
use crate::time::Hlc;

/// What rules may read of a book.
pub trait View {
    /// What goes wrong when the book cannot be read.
    type Error;

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

/// What an op of the log does, apart from whom it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct OpContent {
    /// The op.
    pub id: OpId,
    /// What it does.
    pub kind: OpKind,
    /// When it was made.
    pub edited_at: Hlc,
    /// The schema version it was made under.
    pub schema_version: u32,
    /// Its fields; none for a delete, or if they were erased.
    pub fields: Fields,
}

/// Returns what is left of an op's fields, upcast if they were, after conflicts took some away and gave it others.
pub fn effective_fields(content: &OpContent, reference: &TailRef) -> Fields {
    // What an upcaster made was checked when it was written, so damage would have shown then.
    let upcast = reference.upcast.as_ref().and_then(|upcast| upcast.fields.to_fields().ok());
    let said = upcast.unwrap_or_else(|| content.fields.clone());
    if reference.lost.is_empty() && reference.merged.is_none() {
        return said;
    }
    let mut fields = said.filtered(|name| !reference.lost.iter().any(|lost| lost == name));
    // Merged values were made from values that were read before, so damage would have shown then.
    if let Some(merged) = reference.merged.as_ref().and_then(|merged| merged.to_fields().ok()) {
        fields.compose(merged);
    }
    fields
}

/// What a record looks like while ops are folded over it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Image {
    /// The fields, or `None` where there is no record.
    pub fields: Option<Fields>,
    /// The last known fields of a record that the server deleted, for an edit that survives the deletion.
    pub before_deletion: Option<Fields>,
}

impl Image {
    /// Applies what is left of an op of the tail.
    pub fn put(&mut self, content: &OpContent, reference: &TailRef) {
        if !reference.outdated {
            self.apply(content.kind, &effective_fields(content, reference));
        }
    }

    /// Applies one op: the meaning of an op. [`apply_to_text`] is the same for stored text, and a test holds the two together.
    pub fn apply(&mut self, kind: OpKind, fields: &Fields) {
        match kind {
            // Someone else made the record too: ours is put on top of theirs, as it will be sent.
            OpKind::Create if self.fields.is_some() => {
                if let Some(image) = &mut self.fields {
                    image.apply(fields);
                }
            }
            OpKind::Create | OpKind::Replace => self.fields = Some(fields.clone().into_image()),
            OpKind::Delete => {
                self.fields = None;
                self.before_deletion = None;
            }
            // An update that says nothing brings no record back.
            OpKind::Update if fields.is_empty() => {}
            OpKind::Update => {
                let mut image =
                    self.fields.take().or_else(|| self.before_deletion.take()).unwrap_or_default();
                image.apply(fields);
                self.fields = Some(image);
            }
        }
    }
}

/// Applies one op to the text of what a record is, without building values where that can be helped.
///
/// # Errors
/// [`InvalidFields`] if stored text was damaged.
pub fn apply_to_text(
    image: Option<&FieldsJson>,
    before_deletion: Option<&FieldsJson>,
    kind: OpKind,
    fields: FieldsJson,
) -> Result<Option<FieldsJson>, InvalidFields> {
    let beneath = match kind {
        OpKind::Delete => return Ok(None),
        OpKind::Replace => None,
        OpKind::Create => image,
        OpKind::Update if fields.is_empty() => return Ok(image.cloned()),
        OpKind::Update => image.or(before_deletion),
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

    #[test]
    fn an_update_that_says_nothing_brings_no_deleted_record_back() {
        let mut image = Image { fields: None, before_deletion: Some(Fields::new()) };
        image.apply(OpKind::Update, &Fields::new());
        assert_eq!(image.fields, None);
        image.apply(OpKind::Update, &std::iter::once(("a".to_owned(), json!(1))).collect());
        assert!(image.fields.is_some());
    }

    proptest! {
        #[test]
        fn an_op_means_the_same_to_text_as_to_values(
            image in prop::option::of(some_fields()),
            before in prop::option::of(some_fields()),
            kind in prop::sample::select(vec![OpKind::Create, OpKind::Update, OpKind::Replace, OpKind::Delete]),
            fields in some_fields(),
        ) {
            let mut values = Image {
                fields: image.map(Fields::into_image),
                before_deletion: before.map(Fields::into_image),
            };
            let text = |fields: &Option<Fields>| fields.as_ref().map(Fields::to_json);
            let (image, before) = (text(&values.fields), text(&values.before_deletion));
            let applied = apply_to_text(image.as_ref(), before.as_ref(), kind, fields.to_json()).unwrap();
            values.apply(kind, &fields);
            prop_assert_eq!(applied, text(&values.fields));
        }
    }
}
