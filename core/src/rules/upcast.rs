//! Converts ops that were made under an older schema version than the app now declares.
//!
//! | the op | becomes |
//! |---|---|
//! | waits, or is a dead letter, and upcasters lead from its version to the declared one | upcast, by a decision with the new fields |
//! | … and they do not | held, until a version of the app declares them |
//! | is unanswered | the frozen unit is sent again; the op is upcast if the unit comes back stale |
//! | is a delete | unchanged: it has no fields |
//!
//! Invariants:
//! 1. The log's intent never changes. It keeps the op's first fields, the decision has the
//!    converted ones, and the frozen unit has the sent ones.
//! 2. Folding needs no upcaster: the decision has the result.
//! 3. Fields that conflicts took from the op, or gave to it, are converted with it.
//! 4. A field of an edit that the upcasters took away is taken away from the record too, if it is
//!    there. The record would else still be read by what it has there. A creation that met a record
//!    of somebody else is an edit too, and what an edit brings back from a deletion is there too.
//! 5. An op of a unit that was abandoned is converted as a whole: it has not been compared with the
//!    changes since.

use super::View;
use super::rebase::meet_anew;
use crate::entry::{Decision, Items};
use crate::fields::Fields;
use crate::names::RecordKey;
use crate::op::{OpKind, OpPlace};
use crate::random::Randomness;
use crate::record::{Registers, SentFor, TailOp};
use crate::rows::TailRow;
use crate::rules::status::ParkReason;
use crate::schema::{EntityRules, Schema};
use crate::tail::Tail;

/// Returns whether an op has to be converted before it can be sent, and can be converted.
pub fn is_due(schema: &Schema, tail: &Tail, place: OpPlace) -> bool {
    let Some(row) = tail.op(place) else { return false };
    let rules = outgrown(schema, row);
    tail.unit_of(place).is_none() && rules.is_some_and(|rules| rules.can_upcast(row.form()))
}

/// Returns the declaration of another schema version than that of an op's fields. An entity type
/// that is not declared by name has no known version.
pub(super) fn outgrown<'s>(schema: &'s Schema, row: &TailRow) -> Option<&'s EntityRules> {
    let rules = schema.declared_rules(&row.key.entity)?;
    (row.kind != OpKind::Delete && row.form() != rules.schema_version).then_some(rules)
}

/// Converts the remaining fields of an op, if that is due. Returns a decision with its new fields
/// among `items`, and the consequences if it sets a field again.
///
/// # Errors
/// The error of the view.
pub fn upcast<V: View>(
    view: &mut V,
    schema: &Schema,
    key: &RecordKey,
    place: OpPlace,
    items: &mut Items,
    random: &mut dyn Randomness,
) -> Result<Vec<Decision>, V::Error> {
    let Some(rules) = schema.declared_rules(&key.entity) else { return Ok(Vec::new()) };
    let row = view.record(key)?.unwrap_or_default();
    let mut tail = row.tail_ops(|place| view.op(place), V::Error::from)?;
    let Some(at) = tail.iter().position(|op| op.op.place == place) else { return Ok(Vec::new()) };
    let Some(op) = tail.get(at) else { return Ok(Vec::new()) };
    let from = op.schema_version();
    if from == rules.schema_version || op.kind == OpKind::Delete {
        return Ok(Vec::new());
    }
    let confirmed = row.registers()?;
    // The op has not been compared with the changes since its unit was abandoned.
    let met = op.pending.abandoned.as_ref().map(SentFor::registers).transpose()?;
    let left = left(op, met.as_ref().unwrap_or(&confirmed), &confirmed);
    let Some(mut fields) = rules.upcast(from, op.kind, left.clone()) else {
        return Ok(Vec::new());
    };
    // A creation that met a record of somebody else edits it.
    if op.kind == OpKind::Update || (op.kind == OpKind::Create && confirmed.is_live()) {
        let former: Vec<_> = left.names().filter(|name| !fields.has(name)).collect();
        let stored = stored_before(view, &confirmed, tail.get(..at).unwrap_or_default())?;
        // What the edit brings back from a deletion is there too.
        let brought = op.writes.brings_back.as_ref();
        let is_brought = |name: &str| brought.is_some_and(|read| read.contains_key(name));
        let stays = former.into_iter().filter(|name| stored.has(name) || is_brought(name));
        stays.for_each(|name| fields.set(name, serde_json::Value::Null));
    }
    let Some(op) = tail.get_mut(at) else { return Ok(Vec::new()) };
    let planned = op.op;
    let Ok(json) = Fields::checked(&fields) else {
        return Ok(vec![ParkReason::UpcastTooLarge.park(planned.id)]);
    };
    let item = items.add_fields(&json, random);
    op.turn(rules.schema_version, fields.clone());
    let (key, schema_version) = (key.clone(), rules.schema_version);
    let mut decisions =
        vec![Decision::Upcast { key: key.clone(), op: planned, schema_version, fields: item }];
    let news: Vec<_> = fields.names().filter(|name| !left.has(name)).map(str::to_owned).collect();
    let version = row.version().unwrap_or_default();
    decisions.extend(meet_anew(&key, rules, tail, at, &confirmed, version, &news, items, random));
    Ok(decisions)
}

/// Returns the record with the earlier ops that keep the form that they have: those that are
/// unanswered.
fn stored_before<V: View>(
    view: &mut V,
    confirmed: &Registers,
    earlier: &[TailOp],
) -> Result<Fields, V::Error> {
    let mut stored = confirmed.image().unwrap_or_default();
    for op in earlier {
        if view.unit_of(&op.op.id)?.is_some() {
            stored.apply(&op.named);
        }
    }
    Ok(stored)
}

/// Returns the fields of an op that nobody has overwritten in the state that it was compared with.
/// A server that was set back can lack the write that overwrote a field: the app reads that field
/// of the op again, so it is left too.
fn left(op: &TailOp, met: &Registers, confirmed: &Registers) -> Fields {
    op.named.filtered(|name| {
        op.is_above(name, met) || confirmed.is_live() && op.is_above(name, confirmed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandomness;
    use crate::rules::test_tail::tail_row;
    use crate::rules::test_view::{TestView, key, unit_id};
    use crate::time::Hlc;

    fn declared(schema_version: u32, upcasts: bool) -> Schema {
        let rules = EntityRules { schema_version, ..EntityRules::default() };
        let rules = if upcasts { rules.upcast_from(1, |_, fields| fields) } else { rules };
        Schema::closed().declare(key("a").entity, rules)
    }

    #[test]
    fn an_op_is_turned_while_it_waits_and_not_once_it_is_unanswered() {
        let view = TestView::default().with("a", 1, 1, 0);
        let (unit, reference) = (&view.units[&unit_id(1)], &view.records[&key("a")].tail[0]);
        let row = |kind| TailRow { op: reference.op, ..tail_row("a", 0, kind) };
        let due = |schema: &Schema, kind, unanswered: bool| {
            let mut tail = Tail::of(vec![(reference.place, row(kind))]);
            if unanswered {
                tail.put_unit(unit_id(1), unit);
            }
            is_due(schema, &tail, reference.place)
        };
        assert!(due(&declared(2, true), OpKind::Update, false));
        assert!(!due(&declared(2, true), OpKind::Update, true));
        assert!(!due(&declared(2, true), OpKind::Delete, false), "it has no fields");
        assert!(
            !due(&declared(2, false), OpKind::Update, false),
            "nothing leads to the declared version"
        );
    }

    #[test]
    fn what_has_the_declared_version_or_no_fields_is_left_as_it_is() {
        let turned = |view: &mut TestView, schema: &Schema| {
            let place = view.row("a").tail[0].place;
            let mut random = SeededRandomness::from_number(1);
            upcast(view, schema, &key("a"), place, &mut Items::default(), &mut random)
                .unwrap()
                .pop()
        };
        let mut view = TestView::default().with("a", 1, 0, 1);
        assert_eq!(turned(&mut view, &declared(1, true)), None);
        assert!(matches!(turned(&mut view, &declared(2, true)), Some(Decision::Upcast { .. })));
        view.turn_into_delete("a", 0);
        assert_eq!(turned(&mut view, &declared(2, true)), None);
    }

    /// Upcasts op 10, which sets `n` to 0 and renames it to `m`, while the server has this. Returns
    /// the decisions.
    fn renamed(theirs: serde_json::Value, is_lost: bool) -> Vec<Decision> {
        let mut view = waiting_beside(theirs);
        if is_lost {
            view.row("a").tail[0].named = Some(Fields::new().to_json());
        }
        turned_with(&mut view).0
    }

    /// Makes an op that sets `n` to 0, while the server has this.
    fn waiting_beside(theirs: serde_json::Value) -> TestView {
        let mut view = TestView::default().with("a", 1, 0, 1);
        let confirmed = view.row("a").confirmed.as_mut().unwrap();
        (confirmed.edited_at, confirmed.fields) =
            (Hlc::from_bits(5), crate::rules::test_view::fields(theirs).to_json());
        view
    }

    /// Upcasts the first op by a rename of all fields to `m`.
    fn turned_with(view: &mut TestView) -> (Vec<Decision>, serde_json::Value) {
        let rules = EntityRules { schema_version: 2, ..EntityRules::default() };
        let rules = rules.upcast_from(1, |_, fields| {
            fields.into_map().into_iter().map(|(_, value)| ("m".to_owned(), value)).collect()
        });
        let schema = Schema::closed().declare(key("a").entity, rules);
        let (place, mut random) = (view.row("a").tail[0].place, SeededRandomness::from_number(1));
        let mut items = Items::default();
        let decisions = upcast(view, &schema, &key("a"), place, &mut items, &mut random).unwrap();
        let items: Vec<crate::entry::Item> = items.into();
        let fields = serde_json::from_slice(items[0].bytes().unwrap()).unwrap();
        (decisions, fields)
    }

    /// Their value under the former name would else be what the app reads under the new one.
    #[test]
    fn an_edit_takes_the_former_name_away_and_so_does_a_creation_that_met_a_record() {
        for kind in [OpKind::Update, OpKind::Create] {
            for (theirs, expected) in [
                (serde_json::json!({"n": "theirs"}), serde_json::json!({"m": 0, "n": null})),
                (serde_json::json!({"x": "theirs"}), serde_json::json!({"m": 0})),
            ] {
                let mut view = waiting_beside(theirs);
                view.row("a").tail[0].kind = kind;
                assert_eq!(turned_with(&mut view).1, expected, "{kind}");
            }
        }
        // The record is gone, and the edit brings it back with what its author had read.
        let mut view = waiting_beside(serde_json::json!({}));
        let read = crate::rules::test_view::fields(serde_json::json!({"n": "before", "x": 1}));
        view.row("a").tail[0].brings_back = Some(read.to_json());
        assert_eq!(turned_with(&mut view).1, serde_json::json!({"m": 0, "n": null}));
        let mut view = waiting_beside(serde_json::json!({"n": "theirs"}));
        let row = view.row("a");
        (row.confirmed, row.tail[0].kind) = (None, OpKind::Create);
        assert_eq!(turned_with(&mut view).1, serde_json::json!({"m": 0}), "nobody has the record");
    }

    #[test]
    fn what_an_upcaster_names_anew_meets_at_once_what_the_server_has_there() {
        let met = |theirs| {
            let decisions = renamed(theirs, false);
            assert!(
                matches!(decisions[0], Decision::Upcast { schema_version: 2, .. }),
                "{decisions:?}"
            );
            decisions.len() - 1
        };
        assert_eq!(met(serde_json::json!({"n": "before"})), 0, "they have no such field");
        assert_eq!(met(serde_json::json!({"m": 0})), 0, "they say the same");
        let decisions = renamed(serde_json::json!({"m": 9}), false);
        let [_, Decision::Conflicted(found)] = decisions.as_slice() else {
            panic!("{decisions:?}")
        };
        let fields: Vec<_> =
            found.fields.iter().map(|field| (field.name.as_str(), field.winner)).collect();
        assert_eq!(fields, [("m", crate::entry::Winner::Local)], "ours is later");
    }

    /// The value was sent again without an upcast, and an upcast took it from what the app reads.
    #[test]
    fn an_upcaster_gets_what_a_server_that_was_set_back_no_longer_overwrites() {
        let upcaster = |schema_version| {
            let rules = EntityRules { schema_version, ..EntityRules::default() };
            Schema::closed().declare(key("a").entity, rules.upcast_from(1, |_, fields| fields))
        };
        let mut view = TestView::default().with("a", 1, 0, 1);
        let there = |at| {
            let mut there = view.records[&key("a")].confirmed.clone().unwrap();
            there.fields = crate::rules::test_view::fields(serde_json::json!({"n": 9})).to_json();
            there.edited_at = Hlc::from_bits(at);
            there
        };
        let (later, earlier) = (there(u64::MAX), there(1));
        let turned = |view: &mut TestView, confirmed| {
            let row = view.row("a");
            row.confirmed = Some(confirmed);
            row.tail[0].abandoned = Some(SentFor { version: None, record: Some(later.clone()) });
            let (place, mut random) = (row.tail[0].place, SeededRandomness::from_number(1));
            let mut items = Items::default();
            upcast(view, &upcaster(2), &key("a"), place, &mut items, &mut random).unwrap();
            let items: Vec<crate::entry::Item> = items.into();
            serde_json::from_slice::<serde_json::Value>(items[0].bytes().unwrap()).unwrap()
        };
        assert_eq!(turned(&mut view, later.clone()), serde_json::json!({}));
        assert_eq!(turned(&mut view, earlier), serde_json::json!({"n": 0}));
    }

    #[test]
    fn an_upcaster_gets_what_is_left_of_an_op_only() {
        let decisions = renamed(serde_json::json!({"m": 9}), true);
        assert!(
            !decisions.iter().any(|decision| matches!(decision, Decision::Conflicted(_))),
            "{decisions:?}"
        );
    }
}
