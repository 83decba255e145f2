//! The image that an app reads after one more op, without registers.
//!
//! Invariants:
//! 1. A new op has a stamp above all that its author had read, so it does the same to an image as
//!    to registers.

use crate::fields::{FieldsJson, InvalidFields};
use crate::op::OpKind;

/// Applies a new op to the text of the image that an app reads. The function builds values only
/// where it must. It needs no stamps, since the op's stamp is above all that its author had read.
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
    use crate::fields::Fields;

    /// Applies an op to an image as values.
    fn apply_to_image(image: Option<Fields>, kind: OpKind, fields: &Fields) -> Option<Fields> {
        match (kind, image) {
            (OpKind::Delete, _) => None,
            (OpKind::Create | OpKind::Update, Some(mut image)) => {
                image.apply(fields);
                Some(image)
            }
            (OpKind::Update, None) if fields.is_empty() => None,
            (OpKind::Create | OpKind::Update | OpKind::Replace, _) => {
                Some(fields.clone().into_image())
            }
        }
    }

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
