//! Which ops of a damaged log have no end on record: those that a person has to decide about.
//!
//! | on record about the op | it |
//! |---|---|
//! | its unit was acked | has ended |
//! | it was superseded, cancelled or discarded, or lost all its fields | has ended |
//! | it lost some fields | is left without them |
//! | it was upcast | has the upcast fields |
//! | nothing, or that it is a dead letter, was sent, or was planned again | is left |
//!
//! Invariants:
//! 1. An op whose end may stand in a missing entry is left. It is never sent by itself, so an op
//!    that reached the server, or that a person discarded, is at most shown once more.
//! 2. An op of which the fields were erased has no content to offer, and is left out.
//!
//! What it is not: a fold. It needs no state, so the entries may have gaps.

use std::collections::BTreeMap;

use super::status::ParkReason;
use crate::Randomness;
use crate::entry::{
    Cancelled, Control, Decision, Draft, Entry, Intent, Items, Meta, OpMeta, PlannedOp, PlannedUnit,
};
use crate::fields::{FieldsJson, InvalidFields};
use crate::ids::UnitId;
use crate::names::{Actor, RecordKey};
use crate::op::{OpKind, OpPlace};
use crate::time::WallTime;

/// An op without an end on record.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovered {
    /// Its author.
    pub actor: Actor,
    /// The device's clock when it was written.
    pub written_at: WallTime,
    /// The op. Its item is an index into its former entry.
    pub op: OpMeta,
    /// Its fields; none for a delete.
    pub fields: Option<FieldsJson>,
}

/// What a number of entries say about ops. Pass them in the order of the log.
#[derive(Debug, Default)]
pub struct Recovery {
    ops: BTreeMap<OpPlace, Recovered>,
    units: BTreeMap<UnitId, Vec<(RecordKey, PlannedOp)>>,
    ended: BTreeMap<OpPlace, (RecordKey, PlannedOp)>,
}

impl Recovery {
    /// Takes in the next entry.
    ///
    /// # Errors
    /// [`InvalidFields`] if an item is not the fields that it is said to be.
    pub fn follow(&mut self, entry: &Entry) -> Result<(), InvalidFields> {
        match &entry.meta {
            Meta::Intent(intent) => self.follow_intent(entry, intent),
            Meta::Upstream(_) => Ok(()),
            Meta::Control(Control::Planned(planned)) => {
                planned.units.iter().for_each(|unit| self.plan(unit));
                planned.cancelled.iter().for_each(|cancelled| self.cancel(cancelled));
                Ok(())
            }
            Meta::Control(Control::Decided(decisions) | Control::PersonActed(_, decisions)) => {
                decisions.iter().try_for_each(|decision| self.decide(entry, decision))
            }
            Meta::Control(_) => Ok(()),
        }
    }

    /// Returns the ops without an end, in the order of the log.
    pub fn open(&self) -> impl Iterator<Item = (OpPlace, &Recovered)> {
        self.ops.iter().map(|(place, op)| (*place, op))
    }

    /// Returns the ops whose end is on record, with their records.
    pub fn ended(&self) -> impl Iterator<Item = (OpPlace, &(RecordKey, PlannedOp))> {
        self.ended.iter().map(|(place, op)| (*place, op))
    }

    fn follow_intent(&mut self, entry: &Entry, intent: &Intent) -> Result<(), InvalidFields> {
        for (index, op) in (0..).zip(&intent.ops) {
            let fields = op.fields.map(|item| entry.fields(item)).transpose()?.flatten();
            if fields.is_none() && op.kind != OpKind::Delete {
                continue;
            }
            let (actor, written_at) = (entry.header.actor.clone(), entry.header.wall);
            let recovered = Recovered { actor, written_at, op: op.clone(), fields };
            self.ops.insert(OpPlace { seq: entry.header.seq, index }, recovered);
        }
        Ok(())
    }

    fn plan(&mut self, unit: &PlannedUnit) {
        let ops = unit
            .changes
            .iter()
            .flat_map(|change| change.ops.iter().map(|op| (change.key.clone(), *op)));
        self.units.insert(unit.id, ops.collect());
    }

    fn cancel(&mut self, cancelled: &Cancelled) {
        cancelled.ops.iter().for_each(|op| self.end(&cancelled.key, *op));
    }

    fn end(&mut self, key: &RecordKey, op: PlannedOp) {
        self.ops.remove(&op.place);
        self.ended.insert(op.place, (key.clone(), op));
    }

    fn decide(&mut self, entry: &Entry, decision: &Decision) -> Result<(), InvalidFields> {
        match decision {
            Decision::Acked { unit, .. } => {
                for (key, op) in self.units.remove(unit).unwrap_or_default() {
                    self.end(&key, op);
                }
            }
            Decision::Superseded { key, op } | Decision::Discarded { key, op } => {
                self.end(key, *op)
            }
            Decision::Cancelled(cancelled) => self.cancel(cancelled),
            Decision::Dropped { key, op, fields } => {
                let left = self.ops.get_mut(&op.place).filter(|_| !fields.is_empty());
                let Some(left) = left else {
                    self.end(key, *op);
                    return Ok(());
                };
                let kept = left.fields.as_ref().map(FieldsJson::to_fields).transpose()?;
                let kept =
                    kept.map(|all| all.filtered(|name| !fields.iter().any(|lost| lost == name)));
                if left.op.kind == OpKind::Update
                    && kept.as_ref().is_none_or(|kept| kept.is_empty())
                {
                    self.end(key, *op);
                } else {
                    left.fields = kept.map(|kept| kept.to_json());
                }
            }
            Decision::Upcast { op, schema_version, fields, .. } => {
                if let (Some(left), Some(upcast)) =
                    (self.ops.get_mut(&op.place), entry.fields(*fields)?)
                {
                    (left.op.schema_version, left.fields) = (*schema_version, Some(upcast));
                }
            }
            Decision::Tried { .. }
            | Decision::Requeued { .. }
            | Decision::Conflicted(_)
            | Decision::Raised { .. }
            | Decision::BroughtBack { .. }
            | Decision::DeadLettered { .. }
            | Decision::Retried { .. }
            | Decision::Parked { .. }
            | Decision::Unparked { .. }
            | Decision::Resolved { .. }
            | Decision::ServerAccepted { .. }
            | Decision::ServerRead
            | Decision::Adopted { .. }
            | Decision::Suspected { .. }
            | Decision::Restamped { .. }
            | Decision::BelongsTo { .. }
            | Decision::SetAside { .. }
            | Decision::ReadForeign { .. }
            | Decision::HandedOver { .. }
            | Decision::LetGo { .. } => {}
        }
        Ok(())
    }
}

/// Makes the entry that writes the recovered ops of one transaction again, as they were, and a park
/// of each, so that none is sent before a person decides.
pub fn write_again(ops: &[Recovered], random: &mut dyn Randomness) -> (Draft, Vec<Decision>) {
    let (mut items, mut metas, mut parks) = (Items::default(), Vec::new(), Vec::new());
    for recovered in ops {
        let fields = recovered.fields.as_ref().map(|fields| items.add_fields(fields, random));
        metas.push(OpMeta { fields, ..recovered.op.clone() });
        parks.push(ParkReason::Recovered.park(recovered.op.id));
    }
    (Draft { meta: Meta::Intent(Intent { ops: metas }), items }, parks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{CancelledReason, EntryKind, FORMAT, Header, Planned};
    use crate::ids::Epoch;
    use crate::numbers::{Hash, Seq};
    use crate::random::SeededRandomness;
    use crate::rules::test_view::op_id;
    use crate::time::Hlc;

    fn entry(seq: u64, meta: Meta, items: Items) -> Entry {
        let header = Header {
            format: FORMAT,
            kind: EntryKind::Control,
            epoch: Epoch::from_bytes([1; 16]),
            seq: Seq::new(seq),
            hlc: Hlc::ZERO,
            wall: WallTime::from_milliseconds(1),
            actor: Actor::parse("ann").unwrap(),
        };
        Entry {
            header,
            meta,
            items: items.into(),
            content: Hash::ZERO,
            hash: Hash::ZERO,
            joint: None,
            told: false,
        }
    }

    fn key() -> RecordKey {
        RecordKey::parse("lead", "1").unwrap()
    }

    fn planned(seq: u8) -> PlannedOp {
        PlannedOp { id: op_id(seq), place: OpPlace { seq: Seq::new(seq.into()), index: 0 } }
    }

    /// An update of two fields, as the op of this number.
    fn written(seq: u8) -> Entry {
        let (mut items, mut random) = (Items::default(), SeededRandomness::from_number(1));
        let fields = FieldsJson::parse(r#"{"name":"Ann","stage":"new"}"#).unwrap();
        let op = OpMeta {
            id: op_id(seq),
            key: key(),
            kind: OpKind::Update,
            edited_at: Hlc::ZERO,
            clock_capped: false,
            base: None,
            schema_version: 1,
            fields: Some(items.add_fields(&fields, &mut random)),
            cites: None,
        };
        entry(seq.into(), Meta::Intent(Intent { ops: vec![op] }), items)
    }

    /// Returns what is left of op 1 after these decisions.
    fn left(decisions: Vec<Decision>) -> Option<String> {
        let mut recovery = Recovery::default();
        recovery.follow(&written(1)).unwrap();
        let decided = Meta::Control(Control::Decided(decisions));
        recovery.follow(&entry(2, decided, Items::default())).unwrap();
        recovery.open().next().map(|(_, op)| op.fields.clone().unwrap().as_str().to_owned())
    }

    #[test]
    fn an_op_is_left_with_its_fields_until_its_end_is_on_record() {
        let op = planned(1);
        let all = Some(r#"{"name":"Ann","stage":"new"}"#.to_owned());
        let dropped = |names: &[&str]| Decision::Dropped {
            key: key(),
            op,
            fields: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert_eq!(left(Vec::new()), all);
        assert_eq!(left(vec![Decision::Retried { key: key(), op }]), all);
        assert_eq!(left(vec![dropped(&["stage"])]).as_deref(), Some(r#"{"name":"Ann"}"#));
        for end in [
            dropped(&["stage", "name"]),
            dropped(&[]),
            Decision::Superseded { key: key(), op },
            Decision::Discarded { key: key(), op },
            Decision::Cancelled(Cancelled {
                key: key(),
                ops: vec![op],
                reason: CancelledReason::Undone,
            }),
        ] {
            assert_eq!(left(vec![end.clone()]), None, "{end:?}");
        }
    }

    #[test]
    fn an_ack_ends_the_ops_of_its_unit_if_the_plan_of_the_unit_is_there() {
        let unit = UnitId::from_bytes([7; 16]);
        let acked = Decision::Acked { unit, planned: Seq::new(2), versions: Vec::new() };
        assert!(left(vec![acked.clone()]).is_some(), "the plan is missing");

        let change = crate::entry::PlannedChange {
            key: key(),
            kind: OpKind::Update,
            ops: vec![planned(1)],
            base: None,
            edited_at: Hlc::ZERO,
            older: Vec::new(),
            schema_version: 1,
            fields: crate::entry::FieldsSource::OfOp(planned(1).place),
        };
        let actor = Actor::parse("ann").unwrap();
        let (changes, earlier_units) = (vec![change], Vec::new());
        let unit = PlannedUnit { id: unit, actor, changes, digest: Hash::ZERO, earlier_units };
        let plan = Control::Planned(Planned { units: vec![unit], cancelled: Vec::new() });
        let mut recovery = Recovery::default();
        recovery.follow(&written(1)).unwrap();
        recovery.follow(&entry(2, Meta::Control(plan), Items::default())).unwrap();
        let decided = Meta::Control(Control::Decided(vec![acked]));
        recovery.follow(&entry(3, decided, Items::default())).unwrap();
        assert_eq!((recovery.open().count(), recovery.ended().count()), (0, 1));
    }

    #[test]
    fn an_op_whose_fields_were_erased_is_not_offered() {
        let mut erased = written(1);
        erased.items = vec![crate::entry::Item::Erased { commitment: Hash::ZERO }];
        let mut recovery = Recovery::default();
        recovery.follow(&erased).unwrap();
        assert_eq!(recovery.open().count(), 0);
    }
}
