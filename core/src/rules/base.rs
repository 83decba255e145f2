//! Against what a change is judged: what both sides were when they were last the same, as its author knew it.
//!
//! | an op that → | its author had seen |
//! |---|---|
//! | waits for the first time | what is confirmed: a page that changed it was judged against it |
//! | was a dead letter, or in a unit that was given up, and is sent again | what was confirmed when it was sent first; pages passed it by |
//! | an upcaster gave a field of another name | nothing of that field: no page was judged against it under that name |
//!
//! Invariants:
//! 1. An op that goes again keeps the base that it had, until it was judged against what the server has.
//! 2. It is sent for the version of that base if what is confirmed now differs where the op says something, so that the
//!    server gives its present record, and the two are judged with the stamps that the server knows.

use serde_json::Value;

use crate::fields::{Fields, FieldsJson, InvalidFields};
use crate::numbers::Version;
use crate::op::OpKind;
use crate::rows::{AuthorBase, RecordRow, TailRef};

/// Returns `base`, which is what is confirmed, with what the authors of ops that go again had seen in its place; each op
/// comes with the fields it still has. Where two of them had seen the same field differently, the earlier one counts. Whoever
/// made a record that nobody had yet has seen nothing of the fields that the op says; what came after it may have.
///
/// # Errors
/// [`InvalidFields`] if stored text was damaged.
pub fn overlaid(
    mut base: Option<Fields>,
    ops: &[(&TailRef, Fields)],
) -> Result<Option<Fields>, InvalidFields> {
    let mut later_saw = false;
    for (reference, said) in ops.iter().rev().filter(|(reference, _)| !reference.outdated) {
        let Some(seen) = &reference.base else {
            later_saw = true;
            continue;
        };
        let seen = seen.fields.as_ref().map(FieldsJson::to_fields).transpose()?;
        let says_fields = matches!(reference.kind, OpKind::Create | OpKind::Update);
        later_saw |= seen.is_some();
        match &mut base {
            Some(base) if says_fields && later_saw => {
                // Of what it did not touch when it was sent, such as what a correction added, it had seen what is confirmed.
                let seen =
                    seen.unwrap_or_else(|| said.names().map(|name| (name.to_owned(), Value::Null)).collect());
                base.compose(seen);
            }
            base => *base = seen,
        }
    }
    Ok(base)
}

/// Returns what the author of an op has seen once an upcaster turned what it `said` into `fields`: of a field that it did not
/// name before, and that the server has with another value, nothing. `base` is what it was known to have seen.
///
/// # Errors
/// [`InvalidFields`] if stored text was damaged.
pub fn upcast(
    row: &RecordRow,
    kind: OpKind,
    base: Option<AuthorBase>,
    said: &Fields,
    fields: &Fields,
) -> Result<Option<AuthorBase>, InvalidFields> {
    let Some(confirmed) = row.confirmed_image().map(FieldsJson::to_fields).transpose()? else {
        return Ok(base);
    };
    let is_news = |(name, ours): &(&str, &Value)| {
        said.get(name).is_none() && confirmed.get(name).is_some_and(|theirs| theirs != *ours)
    };
    let news: Vec<_> = fields.iter().filter(is_news).map(|(name, _)| name.to_owned()).collect();
    if news.is_empty() {
        return Ok(base);
    }
    // 0 is no version that the server gives: it is asked in any case.
    let (version, mut seen) = match base {
        Some(AuthorBase { version, fields: Some(seen) }) => (version, seen.to_fields()?),
        // Nothing at all.
        Some(AuthorBase { fields: None, .. }) => return Ok(base),
        None if kind == OpKind::Update => (Some(Version::default()), Fields::new()),
        None => (Some(Version::default()), confirmed),
    };
    for name in news {
        seen.set(name, Value::Null);
    }
    Ok(Some(AuthorBase { version, fields: Some(seen.to_json()) }))
}

/// Returns the version for which ops of a record are sent, each with the fields it still has.
///
/// # Errors
/// [`InvalidFields`] if stored text was damaged.
pub(super) fn version(row: &RecordRow, ops: &[(&TailRef, Fields)]) -> Result<Option<Version>, InvalidFields> {
    if row.version() == Some(Version::default()) {
        // What is confirmed is of a former server: no version of that says anything to this one, which is asked in any case.
        return Ok(row.version());
    }
    let confirmed = row.confirmed_image().map(FieldsJson::to_fields).transpose()?;
    for (reference, fields) in ops {
        let Some(AuthorBase { version, fields: seen }) = &reference.base else { continue };
        // A version that is not behind is of another life of the server, and says nothing of this one.
        if *version >= row.version() {
            continue;
        }
        let seen = seen.as_ref().map(FieldsJson::to_fields).transpose()?;
        if differs(reference.kind, fields, seen.as_ref(), confirmed.as_ref()) {
            return Ok(*version);
        }
    }
    Ok(row.version())
}

/// Returns whether what is confirmed is another thing than what an op's author had seen, where the op says something else.
fn differs(kind: OpKind, fields: &Fields, seen: Option<&Fields>, confirmed: Option<&Fields>) -> bool {
    let null = Value::Null;
    match (kind, confirmed) {
        (OpKind::Create | OpKind::Update, Some(confirmed)) => fields.iter().any(|(name, ours)| {
            let theirs = confirmed.get(name).unwrap_or(&null);
            theirs != ours && theirs != seen.and_then(|seen| seen.get(name)).unwrap_or(&null)
        }),
        (OpKind::Create, None) => false,
        (OpKind::Update | OpKind::Delete | OpKind::Replace, None) => seen.is_some(),
        (OpKind::Delete | OpKind::Replace, Some(confirmed)) => {
            seen.cloned().map(Fields::into_image).as_ref() != Some(confirmed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Confirmed;
    use crate::time::Hlc;
    use serde_json::json;

    fn fields(value: Value) -> Fields {
        Fields::from_value(value).unwrap()
    }

    #[track_caller]
    fn expect(kind: OpKind, ours: Value, seen: Option<Value>, confirmed: Option<Value>, differing: bool) {
        let (seen, confirmed) = (seen.map(fields), confirmed.map(fields));
        assert_eq!(differs(kind, &fields(ours), seen.as_ref(), confirmed.as_ref()), differing);
    }

    #[test]
    fn an_update_differs_only_where_it_says_something_else_than_theirs() {
        let seen = || Some(json!({"a": 0, "b": null}));
        expect(OpKind::Update, json!({"a": 1}), seen(), Some(json!({"a": 0, "c": 9})), false);
        expect(OpKind::Update, json!({"a": 1}), seen(), Some(json!({"a": 5})), true);
        expect(OpKind::Update, json!({"a": 1}), seen(), Some(json!({"a": 1})), false);
        expect(OpKind::Update, json!({"b": 1}), seen(), Some(json!({"a": 5})), false);
        expect(OpKind::Update, json!({"b": 1}), seen(), Some(json!({"b": 2})), true);
        expect(OpKind::Update, json!({"a": 1}), seen(), None, true);
    }

    #[test]
    fn what_sets_or_takes_the_whole_record_differs_with_any_field() {
        for kind in [OpKind::Delete, OpKind::Replace] {
            expect(kind, json!({}), Some(json!({"a": 0})), Some(json!({"a": 0})), false);
            expect(kind, json!({}), Some(json!({"a": 0})), Some(json!({"a": 0, "b": 1})), true);
        }
    }

    #[test]
    fn of_a_field_that_an_upcaster_named_its_author_had_seen_nothing() {
        let text = |value: Value| fields(value).to_json();
        let row = |theirs: Value| RecordRow {
            confirmed: Some(Confirmed {
                version: Version::new(7),
                edited_at: Hlc::ZERO,
                deleted: false,
                fields: text(theirs),
            }),
            ..RecordRow::default()
        };
        let turned = |theirs: Value, kind, base: Option<AuthorBase>| {
            let (said, now) = (fields(json!({"old": 1, "same": 1})), fields(json!({"new": 1, "same": 1})));
            upcast(&row(theirs), kind, base, &said, &now).unwrap()
        };
        let unseen =
            |seen: Value| Some(AuthorBase { version: Some(Version::default()), fields: Some(text(seen)) });
        let theirs = json!({"new": 2, "same": 2});
        assert_eq!(turned(theirs.clone(), OpKind::Update, None), unseen(json!({"new": null})));
        assert_eq!(turned(theirs.clone(), OpKind::Create, None), unseen(json!({"new": null, "same": 2})));
        assert_eq!(turned(json!({"new": 1, "same": 2}), OpKind::Update, None), None, "they say the same");
        assert_eq!(turned(json!({"same": 2}), OpKind::Update, None), None, "they have no such field");
        let seen =
            |seen: Value| Some(AuthorBase { version: Some(Version::new(3)), fields: Some(text(seen)) });
        let known = turned(theirs, OpKind::Update, seen(json!({"old": 0})));
        assert_eq!(known, seen(json!({"old": 0, "new": null})));
    }

    #[test]
    fn a_creation_differs_if_someone_else_made_the_record_with_other_values() {
        expect(OpKind::Create, json!({"a": 1}), None, None, false);
        expect(OpKind::Create, json!({"a": 1}), None, Some(json!({"a": 1, "b": 1})), false);
        expect(OpKind::Create, json!({"a": 1}), None, Some(json!({"a": 2})), true);
        expect(OpKind::Create, json!({"a": 1}), Some(json!({"a": 2})), Some(json!({"a": 2})), false);
    }

    fn reference(kind: OpKind, base: Option<AuthorBase>) -> TailRef {
        let op = crate::ids::OpId::from_bytes([1; 16]);
        TailRef { base, ..TailRef::new(op, crate::op::OpPlace::default(), kind) }
    }

    fn seen(version: u64, value: Option<Value>) -> Option<AuthorBase> {
        let fields = value.map(|value| fields(value).to_json());
        Some(AuthorBase { version: Some(Version::new(version)), fields })
    }

    #[test]
    fn what_authors_had_seen_stands_in_the_base_and_the_earlier_author_counts() {
        let base = || Some(fields(json!({"a": 9, "b": 9})));
        let of = |ops: &[(TailRef, Value)]| {
            let ops: Vec<_> = ops.iter().map(|(op, said)| (op, fields(said.clone()))).collect();
            overlaid(base(), &ops).unwrap()
        };
        let both = || json!({"a": 0, "b": 0});
        assert_eq!(of(&[(reference(OpKind::Update, None), both())]), base());
        let earlier = reference(OpKind::Update, seen(1, Some(json!({"a": 1}))));
        let later = reference(OpKind::Update, seen(2, Some(json!({"a": 2, "b": 2}))));
        assert_eq!(of(&[(earlier, json!({"a": 0})), (later, both())]), Some(fields(json!({"a": 1, "b": 2}))));
        let whole = || reference(OpKind::Delete, seen(1, Some(json!({"x": 1}))));
        assert_eq!(of(&[(whole(), json!({}))]), Some(fields(json!({"x": 1}))));
        let outdated = TailRef { outdated: true, ..whole() };
        assert_eq!(of(&[(outdated, json!({}))]), base(), "it says nothing any more");
    }

    #[test]
    fn who_made_the_record_had_seen_nothing_of_it_and_who_changed_it_later_may_have() {
        let of = |later: Option<AuthorBase>| {
            let create = reference(OpKind::Create, seen(1, None));
            let update = reference(OpKind::Update, later);
            let ops = [(&create, fields(json!({"b": 1}))), (&update, fields(json!({"a": 1, "c": 1})))];
            overlaid(Some(fields(json!({"a": 9, "b": 9, "c": 9}))), &ops).unwrap()
        };
        assert_eq!(
            of(None),
            Some(fields(json!({"a": 9, "b": null, "c": 9}))),
            "it had seen what is confirmed"
        );
        let something = seen(2, Some(json!({"a": 2})));
        assert_eq!(of(something), Some(fields(json!({"a": 2, "b": null, "c": 9}))));
        assert_eq!(of(seen(2, None)), None, "there was no record for either");
    }

    #[test]
    fn an_op_that_goes_again_is_sent_for_what_its_author_had_seen_only_if_that_is_another_thing_now() {
        let confirmed = Confirmed {
            version: Version::new(7),
            edited_at: Hlc::ZERO,
            deleted: false,
            fields: fields(json!({"a": 5, "b": 0})).to_json(),
        };
        let row = RecordRow { confirmed: Some(confirmed), ..RecordRow::default() };
        let of = |base, ours| {
            let reference = reference(OpKind::Update, base);
            version(&row, &[(&reference, fields(ours))]).unwrap().map(Version::number)
        };
        assert_eq!(of(None, json!({"a": 1})), Some(7), "never sent before");
        assert_eq!(of(seen(3, Some(json!({"a": 0}))), json!({"a": 1})), Some(3), "theirs is another");
        assert_eq!(of(seen(3, Some(json!({"a": 5}))), json!({"a": 1})), Some(7), "theirs is as it was");
        assert_eq!(of(seen(3, Some(json!({"a": 0}))), json!({"a": 5})), Some(7), "both say the same");
        for version in [7, 8] {
            assert_eq!(of(seen(version, Some(json!({"a": 0}))), json!({"a": 1})), Some(7), "of another life");
        }
        assert_eq!(version(&RecordRow::default(), &[]).unwrap(), None);
        let mut former = row.clone();
        former.await_confirmation();
        let create = reference(OpKind::Create, seen(1, None));
        let asked = version(&former, &[(&create, fields(json!({"a": 1})))]).unwrap();
        assert_eq!(asked, Some(Version::default()), "a version that no server gives");
    }
}
