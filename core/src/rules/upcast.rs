//! Ops that were made under an older schema version than the app now declares.
//!
//! | the op | becomes |
//! |---|---|
//! | waits, or is a dead letter, and upcasters lead from its version to the declared one | upcast, by a decision that holds the new fields |
//! | … and they do not | held, until a version of the app declares them |
//! | is under way | what was frozen is sent again; it is upcast if it comes back stale |
//! | is a delete | itself: there is nothing to turn |
//!
//! Invariants:
//! 1. The log's intent is never changed: what the op said first stays there, what it was turned into stands beside it, and
//!    what was sent is in the frozen unit.
//! 2. Folding needs no upcaster: the decision says what came out.
//! 3. What conflicts took from the op, and gave it, is turned with it.

use super::{View, effective_fields};
use crate::entry::{Decision, Items, PlannedOp};
use crate::fields::Fields;
use crate::names::RecordKey;
use crate::op::{OpKind, OpPlace};
use crate::random::Randomness;
use crate::rows::TailRow;
use crate::rules::status::ParkReason;
use crate::schema::{EntityRules, Schema};
use crate::tail::Tail;

/// Returns whether an op has to be turned before it can be sent, and can be.
pub fn is_due(schema: &Schema, tail: &Tail, place: OpPlace) -> bool {
    let Some(row) = tail.op(place) else { return false };
    let rules = outgrown(schema, row);
    tail.unit_of(place).is_none() && rules.is_some_and(|rules| rules.can_upcast(row.form()))
}

/// Returns the declaration that an op's fields are of another schema version than. Of an entity type that nobody declared by
/// name no version is known.
pub(super) fn outgrown<'s>(schema: &'s Schema, row: &TailRow) -> Option<&'s EntityRules> {
    let rules = schema.declared_rules(&row.key.entity)?;
    (row.kind != OpKind::Delete && row.form() != rules.schema_version).then_some(rules)
}

/// Turns an op, if that is due: a decision with its new fields among `items`.
///
/// # Errors
/// What the view fails with.
pub fn upcast<V: View>(
    view: &mut V,
    schema: &Schema,
    key: &RecordKey,
    place: OpPlace,
    items: &mut Items,
    random: &mut dyn Randomness,
) -> Result<Option<Decision>, V::Error> {
    let Some(rules) = schema.declared_rules(&key.entity) else { return Ok(None) };
    let row = view.record(key)?.unwrap_or_default();
    let Some(reference) = row.tail.iter().find(|reference| reference.place == place) else { return Ok(None) };
    let content = view.op(place)?;
    let from = reference.upcast.as_ref().map_or(content.schema_version, |upcast| upcast.schema_version);
    if from == rules.schema_version || content.kind == OpKind::Delete {
        return Ok(None);
    }
    let fields = effective_fields(&content, reference);
    let Some(fields) = rules.upcast(from, content.kind, fields) else { return Ok(None) };
    let op = PlannedOp { id: content.id, place };
    Ok(Some(match Fields::checked(&fields) {
        Ok(json) => Decision::Upcast {
            key: key.clone(),
            op,
            schema_version: rules.schema_version,
            fields: items.add_fields(&json, random),
        },
        Err(_) => ParkReason::UpcastTooLarge.park(op.id),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandomness;
    use crate::rules::desk::{Desk, key, unit_id};
    use crate::time::{Hlc, WallTime};

    fn declared(schema_version: u32, upcasts: bool) -> Schema {
        let rules = EntityRules { schema_version, ..EntityRules::default() };
        let rules = if upcasts { rules.upcast_from(1, |_, fields| fields) } else { rules };
        Schema::closed().declare(key("a").entity, rules)
    }

    #[test]
    fn an_op_is_turned_while_it_waits_and_not_once_it_is_under_way() {
        let desk = Desk::default().with("a", 1, 1, 0);
        let (unit, reference) = (&desk.units[&unit_id(1)], &desk.records[&key("a")].tail[0]);
        let row = |kind| TailRow {
            op: reference.op,
            key: key("a"),
            kind,
            actor: unit.actor.clone(),
            edited_at: Hlc::ZERO,
            made_at: WallTime::default(),
            schema_version: 1,
            upcast: None,
            transaction_ops: 1,
            bytes: 10,
            references: Vec::new(),
            led_away: Vec::new(),
        };
        let due = |schema: &Schema, kind, under_way: bool| {
            let mut tail = Tail::of(vec![(reference.place, row(kind))]);
            if under_way {
                tail.put_unit(unit_id(1), unit);
            }
            is_due(schema, &tail, reference.place)
        };
        assert!(due(&declared(2, true), OpKind::Update, false));
        assert!(!due(&declared(2, true), OpKind::Update, true));
        assert!(!due(&declared(2, true), OpKind::Delete, false), "it has no fields");
        assert!(!due(&declared(2, false), OpKind::Update, false), "nothing leads to the declared version");
    }

    #[test]
    fn what_has_the_declared_version_or_no_fields_is_left_as_it_is() {
        let turned = |desk: &mut Desk, schema: &Schema| {
            let place = desk.row("a").tail[0].place;
            let mut random = SeededRandomness::from_number(1);
            upcast(desk, schema, &key("a"), place, &mut Items::default(), &mut random).unwrap()
        };
        let mut desk = Desk::default().with("a", 1, 0, 1);
        assert_eq!(turned(&mut desk, &declared(1, true)), None);
        assert!(matches!(turned(&mut desk, &declared(2, true)), Some(Decision::Upcast { .. })));
        desk.turn_into_delete("a", 0);
        assert_eq!(turned(&mut desk, &declared(2, true)), None);
    }
}
