//! How a group of ops becomes a unit whose bytes never change, and how those bytes are found again.
//!
//! ```text
//!   group ──fold──► change ──fit to confirmed──► planned change ──► unit, digest
//!   unit's row ──thaw──► the same unit, same digest
//! ```
//!
//! | folded ↓ / confirmed → | is there | is deleted, or was never there |
//! |---|---|---|
//! | create | update: the fields merge into what someone else created | create |
//! | update | update | create, with the whole visible image |
//! | replace | replace | create |
//! | delete | delete | nothing, unless an attempt may have created it |
//!
//! Invariants: what is frozen is a pure function of the log up to the plan; `thaw(freeze(x)) == x`, checked by the digest
//! each time a unit is sent.

use super::coalesce::{Folded, FoldedChange, Step};
use super::group::Group;
use super::size::{Excess, fitting, over};
use super::{Image, View, effective_fields};
use crate::entry::{
    Annulled, AnnulledReason, FieldsSource, Items, Planned, PlannedChange, PlannedOp, PlannedUnit,
};
use crate::fields::FieldsJson;
use crate::ids::UnitId;
use crate::limits;
use crate::names::RecordKey;
use crate::numbers::{Seq, Version};
use crate::op::{OpKind, OpPlace};
use crate::protocol::{Unit, UnitChange};
use crate::random::Randomness;
use crate::rows::{RecordRow, UnitRow};
use crate::time::{Hlc, WallTime};

/// The log does not hold what a unit is made of.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FreezeError<E: std::error::Error + 'static> {
    /// The book cannot be read.
    #[error(transparent)]
    View(E),
    /// Stored fields are damaged.
    #[error(transparent)]
    Fields(#[from] crate::fields::InvalidFields),
    /// The frozen bytes are no longer what was planned.
    #[error("unit {unit} no longer has the content that was planned: its bytes were altered since")]
    DigestDiffers {
        /// The unit.
        unit: UnitId,
    },
}

/// What groups come to.
#[derive(Debug, Clone, PartialEq)]
pub struct Frozen {
    /// The plan's entry.
    pub planned: Planned,
    /// The values of that entry.
    pub items: Items,
    /// Records that would be over the limit of size, of which nothing is in the plan.
    pub too_large: Vec<RecordKey>,
}

/// Freezes groups into one plan. `seq` is the place that the plan's entry will have.
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
    let planned = Planned { units: Vec::new(), annulled: Vec::new() };
    let frozen = Frozen { planned, items: Items::default(), too_large: Vec::new() };
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
    /// Freezes a group, or leaves everything as it was and returns false: a record would be over the limit of size.
    fn group<V: View>(&mut self, view: &mut V, group: &Group) -> Result<bool, FreezeError<V::Error>>
    where
        V::Error: std::error::Error,
    {
        let (items, annulled) = (self.frozen.items.len(), self.frozen.planned.annulled.len());
        let id = UnitId::new(self.now, self.random);
        let mut changes = Vec::new();
        let mut wire = Vec::new();
        let mut replaces: Vec<UnitId> = Vec::new();
        for (key, places) in &group.records {
            let row = view.record(key).map_err(FreezeError::View)?.unwrap_or_default();
            let (ops, folded) = fold(view, &row, places, group.replaces.is_some())?;
            let base = folded.base;
            let carried = row.tail.iter().filter(|reference| places.contains(&reference.place));
            for former in carried.flat_map(|reference| &reference.attempts) {
                if !replaces.contains(former) {
                    replaces.push(*former);
                }
            }
            let fitted = match fit(&row, folded, group.replaces.is_some())? {
                Ok(fitted) => fitted,
                Err(reason) => {
                    self.frozen.planned.annulled.push(Annulled { key: key.clone(), ops, reason });
                    continue;
                }
            };
            let json = fitted.fields.as_ref().map(crate::fields::Fields::to_json);
            if let Some(json) = &json
                && over(&row, fitted.kind, json)?.is_some()
            {
                self.frozen.items.truncate(items);
                self.frozen.planned.annulled.truncate(annulled);
                return Ok(false);
            }
            let change = self.change(key, fitted, ops, base, json.as_ref());
            wire.push(wire_change(&change, json));
            changes.push(change);
        }
        if !changes.is_empty() {
            // A server takes no longer list; the newest attempts are the likeliest to be unknown.
            replaces.drain(..replaces.len().saturating_sub(limits::TRANSACTION_OPS - 1));
            replaces.extend(group.replaces);
            let digest = Unit { id, changes: wire, replaces: Vec::new() }.digest();
            let actor = group.actor.clone();
            self.frozen.planned.units.push(PlannedUnit { id, actor, changes, digest, replaces });
        }
        Ok(true)
    }

    fn change(
        &mut self,
        key: &RecordKey,
        fitted: Fitted,
        ops: Vec<PlannedOp>,
        base: Option<Version>,
        json: Option<&FieldsJson>,
    ) -> PlannedChange {
        let fields = match (json, ops.as_slice(), fitted.as_written) {
            (None, ..) => FieldsSource::Nothing,
            (Some(_), [op], true) => FieldsSource::OfOp(op.place),
            (Some(json), ..) => FieldsSource::Item(self.seq, self.frozen.items.add_fields(json, self.random)),
        };
        PlannedChange {
            key: key.clone(),
            kind: fitted.kind,
            ops,
            base,
            edited_at: fitted.edited_at,
            older: fitted.older,
            schema_version: fitted.schema_version,
            fields,
        }
    }
}

/// Finds a planned unit's frozen bytes again.
///
/// # Errors
/// [`FreezeError::DigestDiffers`] if they are not what was planned.
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
            older: change.older.iter().cloned().collect(),
            schema_version: change.schema_version,
            fields: json,
        });
    }
    let unit = Unit { id, changes, replaces: row.replaces.clone() };
    if unit.digest() == row.digest { Ok(unit) } else { Err(FreezeError::DigestDiffers { unit: id }) }
}

/// What some waiting ops would be sent as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// What would be done.
    pub kind: OpKind,
    /// With which fields; none for a delete.
    pub fields: Option<FieldsJson>,
}

/// What the waiting ops of a record would be sent as, for showing it.
///
/// # Errors
/// [`FreezeError`] if the book cannot be read or is damaged.
pub fn preview<V: View>(
    view: &mut V,
    row: &RecordRow,
    places: &[OpPlace],
) -> Result<Option<Preview>, FreezeError<V::Error>>
where
    V::Error: std::error::Error,
{
    let (_, folded) = fold(view, row, places, false)?;
    Ok(fit(row, folded, false)?
        .ok()
        .map(|fitted| Preview { kind: fitted.kind, fields: fitted.fields.map(|fields| fields.to_json()) }))
}

/// A change as it would be sent, with what the record would be by it.
pub(super) struct Sent {
    pub(super) kind: OpKind,
    pub(super) fields: crate::fields::Fields,
    pub(super) image: Option<crate::fields::Fields>,
}

/// Returns what ops would be sent as, or `None` if nothing would be.
pub(super) fn outgoing<V: View>(
    view: &mut V,
    row: &RecordRow,
    places: &[OpPlace],
) -> Result<Option<Sent>, FreezeError<V::Error>>
where
    V::Error: std::error::Error,
{
    let (_, folded) = fold(view, row, places, false)?;
    let Ok(fitted) = fit(row, folded, false)? else { return Ok(None) };
    let confirmed = row.confirmed_image().map(FieldsJson::to_fields).transpose()?;
    let mut image = Image { fields: confirmed, before_deletion: None };
    let fields = fitted.fields.unwrap_or_default();
    image.apply(fitted.kind, &fields);
    Ok(Some(Sent { kind: fitted.kind, fields, image: image.fields }))
}

fn wire_change(change: &PlannedChange, json: Option<FieldsJson>) -> UnitChange {
    UnitChange {
        key: change.key.clone(),
        kind: change.kind,
        base: change.base,
        ops: change.ops.iter().map(|op| op.id).collect(),
        edited_at: change.edited_at,
        older: change.older.iter().cloned().collect(),
        schema_version: change.schema_version,
        fields: json,
    }
}

pub(super) struct FoldedOps {
    folded: Folded,
    schema_version: u32,
    as_written: bool,
    /// Whether any op has anything left to say.
    says_something: bool,
    /// The version that it is meant for.
    base: Option<Version>,
}

/// Folds the ops. A create and a delete come to nothing only if nobody else ever had such a record: what was seen when it was
/// deleted may be someone else's, and no later update brings that back.
pub(super) fn fold<V: View>(
    view: &mut V,
    row: &RecordRow,
    places: &[OpPlace],
    attempted: bool,
) -> Result<(Vec<PlannedOp>, FoldedOps), FreezeError<V::Error>>
where
    V::Error: std::error::Error,
{
    let attempted = attempted || row.confirmed.is_some();
    let mut folded = Folded::Nothing;
    let mut ops = Vec::with_capacity(places.len());
    let (mut schema_version, mut as_written, mut says_something) = (1, true, false);
    let mut based = Vec::new();
    for place in places {
        let content = view.op(*place).map_err(FreezeError::View)?;
        let reference = row.tail.iter().find(|reference| reference.place == *place);
        if reference.is_some_and(|reference| reference.outdated) {
            ops.push(PlannedOp { id: content.id, place: *place });
            continue;
        }
        says_something = true;
        let fields = reference
            .map_or_else(|| content.fields.clone(), |reference| effective_fields(&content, reference));
        as_written &= fields == content.fields;
        let upcast = reference.and_then(|reference| reference.upcast.as_ref());
        schema_version = upcast.map_or(content.schema_version, |upcast| upcast.schema_version);
        ops.push(PlannedOp { id: content.id, place: *place });
        if let Some(reference) = reference.filter(|reference| reference.base.is_some()) {
            based.push((reference, fields.clone()));
        }
        let edited_at = reference.map_or(content.edited_at, |reference| reference.edited_at(&content));
        folded = folded.then(Step { kind: content.kind, fields, edited_at }, attempted);
    }
    let base = super::base::version(row, &based)?;
    Ok((ops, FoldedOps { folded, schema_version, as_written, says_something, base }))
}

pub(super) struct Fitted {
    pub(super) kind: OpKind,
    pub(super) fields: Option<crate::fields::Fields>,
    edited_at: Hlc,
    older: Vec<(String, Hlc)>,
    schema_version: u32,
    as_written: bool,
}

/// Makes the folded change one that the record, as it is confirmed now, can take; or says why nothing need be sent.
pub(super) fn fit(
    row: &RecordRow,
    ops: FoldedOps,
    attempted: bool,
) -> Result<Result<Fitted, AnnulledReason>, crate::fields::InvalidFields> {
    let FoldedOps { folded, schema_version, mut as_written, says_something, .. } = ops;
    let change = match folded {
        Folded::Change(change) if change.kind == OpKind::Update && change.fields.is_empty() => {
            return Ok(Err(AnnulledReason::NoEffect));
        }
        Folded::Change(change) => change,
        Folded::Nothing if says_something => return Ok(Err(AnnulledReason::CreatedAndDeleted)),
        Folded::Nothing => return Ok(Err(AnnulledReason::NoEffect)),
    };
    let is_there = row.confirmed_image().is_some();
    let older = change.older().map(|(name, stamp)| (name.clone(), stamp)).collect();
    let FoldedChange { kind, fields, edited_at, .. } = change;
    let (kind, fields) = match (kind, is_there) {
        (OpKind::Delete, false) if !attempted => return Ok(Err(AnnulledReason::NoEffect)),
        (OpKind::Delete, _) => (OpKind::Delete, None),
        (OpKind::Create, true) => (OpKind::Update, Some(fields)),
        (OpKind::Update, false) => {
            let mut image = Image { fields: None, before_deletion: before_deletion(row)? };
            image.apply(OpKind::Update, &fields);
            as_written = false;
            (OpKind::Create, image.fields)
        }
        (OpKind::Create | OpKind::Replace, false) => (OpKind::Create, Some(fields)),
        (kind, true) => (kind, Some(fields)),
    };
    Ok(Ok(Fitted { kind, fields, edited_at, older, schema_version, as_written }))
}

fn before_deletion(row: &RecordRow) -> Result<Option<crate::fields::Fields>, crate::fields::InvalidFields> {
    row.confirmed
        .as_ref()
        .filter(|confirmed| confirmed.deleted)
        .map(|confirmed| confirmed.fields.to_fields())
        .transpose()
}

#[cfg(test)]
mod tests;
