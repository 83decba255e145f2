//! Which ops of a record's tail are judged, and as how many edits.
//!
//! ```text
//!   tail ─► dead, outdated or arrived? ─► not judged
//!           in a unit?  no                      ─► waits    ┐ two edits, or one where the last word of ours
//!                       this answer dissolved it ─► stale    ┘ agrees with theirs as a whole
//!                       this answer ended it     ─► not judged
//!                       it has no answer yet     ─► under way, left alone
//! ```
//!
//! Invariants:
//! 1. Each edit comes with what the record was when both sides were last the same, as its authors knew it.
//! 2. Nothing that may leave by itself goes unjudged.
//!
//! What it is not: the judgement ([`super::judge`]).

use super::answer::Taking;
use super::base::overlaid;
use super::judge::{Edit, EditOp, agrees_as_a_whole};
use super::{Image, View, effective_fields};
use crate::entry::{Decision, PlannedOp};
use crate::fields::Fields;
use crate::ids::UnitId;
use crate::names::RecordKey;
use crate::op::OpKind;
use crate::rows::{RecordRow, TailRef};

/// What is judged of a record's tail.
#[derive(Debug)]
pub(super) struct Edits {
    /// The ops of a stale unit.
    pub(super) stale: Edit,
    /// Those that wait.
    pub(super) waiting: Edit,
    /// Whether there are others that have no answer yet.
    under_way: bool,
}

impl Edits {
    /// Joins the two if both sides deleted the record, or set it to the same. Ours ends together with all that it covers, or
    /// else that would come back, or take theirs away meanwhile; it stays for as long as some of that is on its way. What
    /// may leave before our last word is judged: what that covers, and a deletion or replacement that it stands on.
    pub(super) fn meet(&mut self, theirs: Option<&Fields>) {
        if !covers_and_agrees(&self.stale.ops, &self.waiting.ops, theirs) {
            return;
        }
        if self.under_way {
            let covers = |op: &EditOp| matches!(op.kind, OpKind::Delete | OpKind::Replace);
            let cover = self.waiting.ops.iter().rposition(covers).unwrap_or_default();
            let is_last_word = cover + 1 == self.waiting.ops.len();
            self.waiting.ops.truncate(if is_last_word { cover } else { cover + 1 });
        } else {
            self.stale.ops.append(&mut self.waiting.ops);
            self.stale.ops.sort_by_key(|op| op.op.place);
        }
    }
}

impl<V: View> Taking<'_, V> {
    /// Returns what is judged of a record's tail; `None` if stored text was damaged, in which case the fold will say so.
    pub(super) fn edits(&mut self, key: &RecordKey, row: &RecordRow) -> Result<Option<Edits>, V::Error> {
        let Some(before) = self.confirmed_before(key, row)? else { return Ok(None) };
        let mut stale = Edit { stale: true, ..Edit::default() };
        let mut waiting = Edit { base: before, ..Edit::default() };
        let mut under_way = false;
        let mut waits = Vec::new();
        for reference in row.tail.iter().filter(|reference| !reference.dead && !reference.outdated) {
            if self.landed.contains(&reference.op) {
                continue;
            }
            let standing = self.standing(reference, key)?;
            if matches!(standing, Standing::UnderWay | Standing::Done) {
                under_way |= matches!(standing, Standing::UnderWay);
                continue;
            }
            let content = self.view.op(reference.place)?;
            let fields = effective_fields(&content, reference);
            let edit = if let Standing::Stale(base) = standing {
                stale.base = base;
                &mut stale
            } else {
                waits.push((reference, fields.clone()));
                &mut waiting
            };
            let op = PlannedOp { id: reference.op, place: reference.place };
            edit.ops.push(EditOp {
                op,
                kind: content.kind,
                edited_at: reference.edited_at(&content),
                fields,
            });
        }
        // Bases were made of what was read before; damage would have shown then.
        waiting.base = overlaid(waiting.base.take(), &waits).unwrap_or_default();
        stale.base = self.with_landed(row, stale.base)?;
        waiting.base = self.with_landed(row, waiting.base)?;
        stale.hides_theirs = makes_anew(row, &stale.ops);
        Ok(Some(Edits { stale, waiting, under_way }))
    }

    /// Returns a base with what turned out to have taken effect on top: the author of what came after had seen that.
    fn with_landed(&mut self, row: &RecordRow, base: Option<Fields>) -> Result<Option<Fields>, V::Error> {
        let mut image = Image { fields: base, before_deletion: None };
        for reference in row.tail.iter().filter(|reference| self.landed.contains(&reference.op)) {
            let content = self.view.op(reference.place)?;
            image.put(&content, reference);
        }
        Ok(image.fields)
    }

    /// Returns whether this answer says that a unit did not take effect; its ops may have by another one.
    pub(super) fn is_sent_in_vain(&self, id: UnitId) -> bool {
        matches!(self.end_of(id), Some(UnitEnd::Dissolved | UnitEnd::DeadLettered))
    }

    fn standing(&mut self, reference: &TailRef, key: &RecordKey) -> Result<Standing, V::Error> {
        let Some(id) = self.view.unit_of(&reference.op)? else { return Ok(Standing::Waiting) };
        Ok(match self.end_of(id) {
            Some(UnitEnd::Acked | UnitEnd::DeadLettered) => Standing::Done,
            Some(UnitEnd::Dissolved) => {
                let changes = self.settled.iter().filter(|(settled, _)| *settled == id);
                let change = changes.flat_map(|(_, unit)| &unit.changes).find(|change| change.key == *key);
                let base = change.and_then(|change| change.base_fields.as_ref());
                // Base fields were built by the fold; damage would have shown when the row was read.
                Standing::Stale(base.and_then(|fields| fields.to_fields().ok()))
            }
            None => Standing::UnderWay,
        })
    }

    /// Returns what confirmed is once the units that this answer acks have been counted in; the outer `None` if stored
    /// text was damaged, in which case the fold will say so.
    fn confirmed_before(
        &mut self,
        key: &RecordKey,
        row: &RecordRow,
    ) -> Result<Option<Option<Fields>>, V::Error> {
        let mut image = Image { fields: None, before_deletion: None };
        if let Some(confirmed) = row.confirmed_image() {
            match confirmed.to_fields() {
                Ok(fields) => image.fields = Some(fields),
                Err(_) => return Ok(None),
            }
        }
        for decision in &self.out.decisions {
            let Decision::Acked { unit, versions, .. } = decision else { continue };
            // What a page brought since has it in it.
            if !versions.iter().any(|(of, version)| of == key && row.is_behind(*version)) {
                continue;
            }
            let Some((_, unit)) = self.settled.iter().find(|(settled, _)| settled == unit) else { continue };
            for change in unit.changes.iter().filter(|change| change.key == *key) {
                let fields = self.view.fields(change.fields)?.unwrap_or_default();
                match fields.to_fields() {
                    Ok(fields) => image.apply(change.kind, &fields),
                    Err(_) => return Ok(None),
                }
            }
        }
        Ok(Some(image.fields))
    }

    /// Returns what this answer has decided on a unit.
    fn end_of(&self, id: UnitId) -> Option<UnitEnd> {
        self.out.decisions.iter().find_map(|decision| match decision {
            Decision::Acked { unit, .. } if *unit == id => Some(UnitEnd::Acked),
            Decision::Dissolved { unit, .. } if *unit == id => Some(UnitEnd::Dissolved),
            Decision::DeadLettered { unit, .. } if *unit == id => Some(UnitEnd::DeadLettered),
            _ => None,
        })
    }
}

/// Returns whether what waits comes after what was stale, covers it, and agrees with what the server has as a whole.
fn covers_and_agrees(stale: &[EditOp], waiting: &[EditOp], theirs: Option<&Fields>) -> bool {
    let (Some(sent), Some(first), Some(last)) = (stale.last(), waiting.first(), waiting.last()) else {
        return agrees_as_a_whole(waiting, theirs);
    };
    if sent.op.place < first.op.place {
        return agrees_as_a_whole(waiting, theirs);
    }
    // One that was given up, and is sent again, was made before what left meanwhile; a deletion after that covers both.
    theirs.is_none() && last.kind == OpKind::Delete && sent.op.place < last.op.place
}

/// Returns whether ops make a record anew on top of a deletion that still counts.
fn makes_anew(row: &RecordRow, ops: &[EditOp]) -> bool {
    let Some(first) = ops.first().filter(|first| first.kind == OpKind::Create) else { return false };
    let is_beneath = |reference: &&TailRef| !reference.outdated && reference.place < first.op.place;
    row.tail.iter().filter(is_beneath).any(|reference| reference.kind == OpKind::Delete)
}

/// How a unit ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnitEnd {
    /// The server has it.
    Acked,
    /// It was made for another version: its ops are planned anew.
    Dissolved,
    /// Its ops are dead letters.
    DeadLettered,
}

enum Standing {
    /// Not sent: it can be judged.
    Waiting,
    /// It came back stale; what the record was when it was planned.
    Stale(Option<Fields>),
    /// It was sent and has no answer yet.
    UnderWay,
    /// It is acked by this answer, or a dead letter.
    Done,
}
