//! Makes a unit of a group of ops. The bytes of a unit never change, and this file also finds them
//! again.
//!
//! ```text
//!   group ──coalesce──► change ──► planned change ──► unit, digest
//!   unit's row ──thaw──► the same unit, same digest
//! ```
//!
//! Invariants: a frozen unit is a pure function of the log up to the plan. `thaw(freeze(x)) == x`,
//! and the digest checks it each time a unit is sent.

use super::View;
use super::coalesce::{Coalesced, coalesce};
use super::group::Group;
use super::size::{Excess, fitting, over};
use crate::entry::{
    Cancelled, CancelledReason, Control, Decision, Draft, FieldsSource, Items, Meta, Planned,
    PlannedChange, PlannedOp, PlannedUnit,
};
use crate::fields::{Fields, FieldsJson, InvalidFields};
use crate::ids::UnitId;
use crate::limits;
use crate::names::RecordKey;
use crate::numbers::{Seq, Version};
use crate::op::{OpKind, OpPlace};
use crate::protocol::{Unit, UnitChange};
use crate::random::Randomness;
use crate::record::{SentFor, TailOp, fall_with, uncovered_by};
use crate::rows::{RecordRow, UnitRow};
use crate::time::WallTime;

/// The log does not hold the content of a unit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FreezeError<E: std::error::Error + 'static> {
    /// The book cannot be read.
    #[error(transparent)]
    View(E),
    /// Stored fields are damaged.
    #[error(transparent)]
    Fields(#[from] InvalidFields),
    /// The frozen bytes differ from the planned ones.
    #[error("unit {unit} no longer has the content that was planned: its bytes were altered since")]
    DigestDiffers {
        /// The unit.
        unit: UnitId,
    },
}

/// The result of freezing groups.
#[derive(Debug, Clone, PartialEq)]
pub struct Frozen {
    /// The plan's entry.
    pub planned: Planned,
    /// The values of that entry.
    pub items: Items,
    /// Decisions about fields that return because the plan cancels a deletion: a later creation had
    /// removed them with the deletion's stamp.
    pub fallen: Vec<Decision>,
    /// The records that would be over the size limit. The plan has no op of them.
    pub too_large: Vec<RecordKey>,
}

impl Frozen {
    /// Returns the entries to append: the plan, and the decisions that follow from it.
    pub fn into_drafts(self) -> Vec<Draft> {
        let mut drafts = Vec::new();
        if !self.planned.units.is_empty() || !self.planned.cancelled.is_empty() {
            drafts.push(Draft {
                meta: Meta::Control(Control::Planned(self.planned)),
                items: self.items,
            });
        }
        if !self.fallen.is_empty() {
            drafts.push(Draft::control(Control::Decided(self.fallen)));
        }
        drafts
    }
}

/// Freezes groups into one plan. `seq` is the place of the plan's entry.
///
/// # Errors
/// [`FreezeError`] if the book cannot be read or is damaged.
pub fn freeze<V: View>(
    view: &mut V,
    groups: &[Group],
    seq: Seq,
    now: WallTime,
    random: &mut dyn Randomness,
) -> Result<Frozen, FreezeError<V::Error>>
where
    V::Error: std::error::Error,
{
    let planned = Planned { units: Vec::new(), cancelled: Vec::new() };
    let frozen =
        Frozen { planned, items: Items::default(), fallen: Vec::new(), too_large: Vec::new() };
    let mut freezing = Freezing { frozen, seq, now, random };
    for group in groups {
        if freezing.group(view, group)? {
            continue;
        }
        match fitting(view, group) {
            Ok(first) if freezing.group(view, &first)? => {}
            Ok(_) | Err(Excess::Over(_)) => {
                freezing.frozen.too_large.extend(group.records.iter().map(|(key, _)| key.clone()));
            }
            Err(Excess::Unread(error)) => return Err(error),
        }
    }
    Ok(freezing.frozen)
}

struct Freezing<'a> {
    frozen: Frozen,
    seq: Seq,
    now: WallTime,
    random: &'a mut dyn Randomness,
}

impl Freezing<'_> {
    /// Freezes a group. Returns false and changes nothing if a record would be over the size limit.
    fn group<V: View>(&mut self, view: &mut V, group: &Group) -> Result<bool, FreezeError<V::Error>>
    where
        V::Error: std::error::Error,
    {
        let frozen = &self.frozen;
        let before = (frozen.items.len(), frozen.planned.cancelled.len(), frozen.fallen.len());
        let id = UnitId::new(self.now, self.random);
        let (mut changes, mut wire, mut earlier_units) =
            (Vec::new(), Vec::new(), Vec::<UnitId>::new());
        for (key, places) in &group.records {
            let row = view.record(key).map_err(FreezeError::View)?.unwrap_or_default();
            let prepared = prepare(view, &row, places, group.absorbs.is_some())?;
            let carried = row.tail.iter().filter(|pending| places.contains(&pending.place));
            for former in carried.flat_map(|pending| &pending.earlier_units) {
                if !earlier_units.contains(former) {
                    earlier_units.push(*former);
                }
            }
            match self.record(key, &row, prepared)? {
                Sendable::Change(change, json) => {
                    wire.push(wire_change(&change, json));
                    changes.push(change);
                }
                Sendable::Nothing => {}
                Sendable::TooLarge => {
                    self.frozen.items.truncate(before.0);
                    self.frozen.planned.cancelled.truncate(before.1);
                    self.frozen.fallen.truncate(before.2);
                    return Ok(false);
                }
            }
        }
        if !changes.is_empty() {
            // A server accepts no longer list. The newest units are the most likely to be
            // unknown to the device.
            earlier_units.drain(..earlier_units.len().saturating_sub(limits::TRANSACTION_OPS - 1));
            earlier_units.extend(group.absorbs);
            let digest = Unit { id, changes: wire, earlier_units: Vec::new() }.digest();
            let actor = group.actor.clone();
            self.frozen.planned.units.push(PlannedUnit {
                id,
                actor,
                changes,
                digest,
                earlier_units,
            });
        }
        Ok(true)
    }

    /// Freezes ops of one record, or ends them with the decisions that follow.
    fn record(
        &mut self,
        key: &RecordKey,
        row: &RecordRow,
        prepared: Prepared,
    ) -> Result<Sendable, InvalidFields> {
        let Prepared { ops, base, schema_version, as_written, coalesced } = prepared;
        let Coalesced { kind, fields, stamp, older, .. } = match coalesced {
            Ok(coalesced) => coalesced,
            Err(reason) => {
                let falls = fall_with(row.tail.iter(), &ops).into_iter();
                let falls =
                    falls.map(|(op, fields)| Decision::Dropped { key: key.clone(), op, fields });
                self.frozen.fallen.extend(falls);
                let uncovered = uncovered_by(row.tail.iter(), &ops).into_iter();
                let emptied = uncovered.map(|op| Decision::Dropped {
                    key: key.clone(),
                    op,
                    fields: Vec::new(),
                });
                self.frozen.fallen.extend(emptied);
                self.frozen.planned.cancelled.push(Cancelled { key: key.clone(), ops, reason });
                return Ok(Sendable::Nothing);
            }
        };
        let json = (kind != OpKind::Delete).then(|| fields.to_json());
        if let Some(json) = &json
            && over(row, kind, json)?.is_some()
        {
            return Ok(Sendable::TooLarge);
        }
        let fields = match (&json, ops.as_slice(), as_written) {
            (None, ..) => FieldsSource::Nothing,
            (Some(_), [op], true) => FieldsSource::OfOp(op.place),
            (Some(json), ..) => {
                FieldsSource::Item(self.seq, self.frozen.items.add_fields(json, self.random))
            }
        };
        let (key, edited_at) = (key.clone(), stamp.edited_at);
        let change =
            PlannedChange { key, kind, ops, base, edited_at, older, schema_version, fields };
        Ok(Sendable::Change(change, json))
    }
}

/// The result of freezing the ops of one record.
enum Sendable {
    /// A change, with its fields.
    Change(PlannedChange, Option<FieldsJson>),
    /// Nothing, because the ops ended.
    Nothing,
    /// Nothing, because the record would be over the size limit.
    TooLarge,
}

/// Finds a planned unit's frozen bytes again.
///
/// # Errors
/// [`FreezeError::DigestDiffers`] if the bytes differ from the planned ones.
pub fn thaw<V: View>(view: &mut V, id: UnitId, row: &UnitRow) -> Result<Unit, FreezeError<V::Error>>
where
    V::Error: std::error::Error,
{
    let mut changes = Vec::with_capacity(row.changes.len());
    for change in &row.changes {
        let json = view.fields(change.fields).map_err(FreezeError::View)?;
        changes.push(UnitChange {
            key: change.key.clone(),
            kind: change.kind,
            base: change.base,
            ops: change.ops.iter().map(|op| op.id).collect(),
            edited_at: change.edited_at,
            older: change.older.clone(),
            schema_version: change.schema_version,
            fields: json,
        });
    }
    let unit = Unit { id, changes, earlier_units: row.earlier_units.clone() };
    if unit.digest() == row.digest {
        Ok(unit)
    } else {
        Err(FreezeError::DigestDiffers { unit: id })
    }
}

/// A change as it would be sent, with the record after it.
pub(super) struct Sent {
    pub(super) kind: OpKind,
    pub(super) fields: Fields,
    pub(super) image: Option<Fields>,
}

/// Returns the change in which ops would be sent, or `None` if nothing would be sent.
pub(super) fn outgoing<V: View>(
    view: &mut V,
    row: &RecordRow,
    places: &[OpPlace],
) -> Result<Option<Sent>, FreezeError<V::Error>>
where
    V::Error: std::error::Error,
{
    let coalesced = prepare(view, row, places, false)?.coalesced.ok();
    Ok(coalesced.map(|sent| Sent {
        kind: sent.kind,
        fields: sent.fields,
        image: sent.after.image(),
    }))
}

fn wire_change(change: &PlannedChange, json: Option<FieldsJson>) -> UnitChange {
    UnitChange {
        key: change.key.clone(),
        kind: change.kind,
        base: change.base,
        ops: change.ops.iter().map(|op| op.id).collect(),
        edited_at: change.edited_at,
        older: change.older.clone(),
        schema_version: change.schema_version,
        fields: json,
    }
}

/// The change that ops of a record make.
pub(super) struct Prepared {
    /// The ops. The op with the change's stamp is last.
    ops: Vec<PlannedOp>,
    /// The version for which the change is made.
    base: Option<Version>,
    schema_version: u32,
    /// Whether its fields are those of its last op in the log, unchanged.
    as_written: bool,
    pub(super) coalesced: Result<Coalesced, CancelledReason>,
}

/// Coalesces the ops at these places.
pub(super) fn prepare<V: View>(
    view: &mut V,
    row: &RecordRow,
    places: &[OpPlace],
    was_sent: bool,
) -> Result<Prepared, FreezeError<V::Error>>
where
    V::Error: std::error::Error,
{
    let mut tail = Vec::with_capacity(places.len());
    for pending in row.tail.iter().filter(|pending| places.contains(&pending.place)) {
        let content = view.op(pending.place).map_err(FreezeError::View)?;
        tail.push(TailOp::new(pending.clone(), content)?);
    }
    let sent_for = sent_for(row, &tail);
    let was_sent = was_sent || tail.iter().any(|op| op.pending.abandoned.is_some());
    let coalesced = coalesce(&sent_for.registers()?, tail.iter(), was_sent);
    let mut ops: Vec<_> = tail.iter().map(|op| op.op).collect();
    if let Ok(sent) = &coalesced
        && let Some(at) = ops.iter().position(|op| op.id == sent.stamp.op)
    {
        let last = ops.remove(at);
        ops.push(last);
    }
    // A deletion has no fields that could be of a version.
    let with_fields = tail.iter().rev().find(|op| op.kind != OpKind::Delete).or(tail.last());
    let schema_version = with_fields.map_or(1, TailOp::schema_version);
    let as_written = match (&coalesced, with_fields) {
        (Ok(sent), Some(op)) => sent.fields == op.content.fields,
        _ => false,
    };
    Ok(Prepared { ops, base: sent_for.version, schema_version, as_written, coalesced })
}

/// Returns the version for which ops are sent. Ops of a unit that was abandoned are sent for the
/// version of that unit, so that the server returns its present state and the two are compared.
fn sent_for(row: &RecordRow, tail: &[TailOp]) -> SentFor {
    let confirmed = SentFor { version: row.version(), record: row.confirmed.clone() };
    let abandoned = tail.iter().find_map(|op| op.pending.abandoned.as_ref());
    // A version that is not older is of another server epoch, and cannot be compared with this one.
    abandoned.filter(|sent| sent.version < confirmed.version).cloned().unwrap_or(confirmed)
}

#[cfg(test)]
mod tests;
