//! What follows from the server's answer.
//!
//! | the server says of a unit | decision |
//! |---|---|
//! | applied, duplicate | acked |
//! | stale | dissolved; each of its ops is judged against the current record; what is left is planned anew |
//! | transient | tried; the fifth time dead-lettered |
//! | rejected | dead-lettered |
//! | unsupported | its entity type is parked |
//! | unauthorized | its actor is parked |
//!
//! and of a record: confirmed moves on if the version is higher; the ops of its tail that are not under way are judged
//! against it; a change that one of our units made confirms that unit.
//!
//! Invariants:
//! 1. Facts ([`Upstream`]) and decisions are separate entries of one commit.
//! 2. Only records that the answer names are read: the cost does not grow with the tail.
//! 3. An outcome for a unit that is not under way is ignored; a unit without an outcome stays as it is.
//! 4. Taking the same answer a second time decides nothing new.

use std::collections::BTreeMap;

use super::base::overlaid;
use super::judge::{Clash, Edit, EditOp, Verdict, judge};
use super::resolve::RemoteEdit;
use super::{View, effective_fields, retry};
use crate::entry::{
    Annulled, AnnulledReason, ChangeMeta, Conflicted, Decision, Extent, Items, OutcomeClass, OutcomeMeta,
    ParkScope, PlannedOp, Upstream, Winner,
};
use crate::fields::{Fields, FieldsJson};
use crate::ids::{OpId, UnitId};
use crate::limits;
use crate::names::RecordKey;
use crate::op::OpKind;
use crate::protocol::{Change, ExchangeAnswer, Outcome};
use crate::random::Randomness;
use crate::rows::{RecordRow, TailRef, UnitRow};
use crate::schema::{EntityRules, Schema};
use crate::time::WallTime;

/// What an answer comes to: facts and decisions, each with its erasable values.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// What the server said.
    pub upstream: Upstream,
    /// The values of `upstream`.
    pub upstream_items: Items,
    /// What follows.
    pub decisions: Vec<Decision>,
    /// The values of `decisions`.
    pub decision_items: Items,
    /// What a former life of the server had and this one lacks, to be offered again.
    pub reoffers: Vec<Reoffer>,
    /// Counts for the report.
    pub tally: Tally,
}

/// A record that the server once confirmed and now has in an older state.
#[derive(Debug, Clone, PartialEq)]
pub struct Reoffer {
    /// The record.
    pub key: RecordKey,
    /// What it was; `None` if it was deleted.
    pub image: Option<Fields>,
    /// When that was edited. The offer keeps this stamp, so that an older state never wins over a newer one.
    pub edited_at: crate::time::Hlc,
}

impl Answered {
    /// Returns whether there is anything to write.
    pub fn is_empty(&self) -> bool {
        let upstream = &self.upstream;
        self.decisions.is_empty()
            && upstream.outcomes.is_empty()
            && upstream.changes.is_empty()
            && upstream.cursors.is_empty()
            && upstream.receipt.is_none()
    }
}

/// What an answer did, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Units that reached the server.
    pub units_acked: u32,
    /// Ops that reached the server.
    pub ops_acked: u32,
    /// Units that were stale.
    pub units_stale: u32,
    /// Units that will be tried again.
    pub units_tried: u32,
    /// Ops that became dead letters.
    pub ops_dead: u32,
    /// Conflicts that were recorded.
    pub conflicts: u32,
    /// Records that the server sent.
    pub changes: u32,
    /// Whether something was parked.
    pub parked: bool,
}

/// Decides what follows from an answer.
///
/// # Errors
/// What the view fails with.
pub fn take_answer<V: View>(
    view: &mut V,
    schema: &Schema,
    answer: &ExchangeAnswer,
    now: WallTime,
    random: &mut dyn Randomness,
) -> Result<Answered, V::Error> {
    let mut taking = Taking {
        view,
        schema,
        now,
        random,
        out: Answered {
            upstream: Upstream {
                request: answer.request,
                server: answer.server,
                epoch: answer.server_epoch,
                server_time: answer.server_time,
                outcomes: Vec::new(),
                changes: Vec::new(),
                cursors: answer
                    .cursors
                    .iter()
                    .map(|(entity, cursor)| (entity.clone(), cursor.clone()))
                    .collect(),
                receipt: answer.receipt,
            },
            upstream_items: Items::default(),
            decisions: Vec::new(),
            decision_items: Items::default(),
            reoffers: Vec::new(),
            tally: Tally::default(),
        },
        touched: BTreeMap::new(),
        settled: Vec::new(),
        landed: BTreeMap::new(),
    };
    for outcome in &answer.outcomes {
        taking.outcome(outcome.unit, &outcome.outcome)?;
    }
    for change in &answer.changes {
        taking.change(change)?;
    }
    taking.judge_all()?;
    Ok(taking.out)
}

/// A record that the answer names.
#[derive(Default)]
struct Touched<'a> {
    /// What the server sent of it, lowest version first.
    changes: Vec<&'a Change>,
    /// The unit of ours that turned out stale, with its number among that unit's changes.
    stale: Option<(UnitId, usize)>,
    /// Ops of ours that turned out to have taken effect though their unit was given up.
    landed: Vec<OpId>,
}

struct Taking<'a, V: View> {
    view: &'a mut V,
    schema: &'a Schema,
    now: WallTime,
    random: &'a mut dyn Randomness,
    out: Answered,
    touched: BTreeMap<RecordKey, Touched<'a>>,
    /// Units that this answer has already decided on.
    settled: Vec<(UnitId, UnitRow)>,
    /// Ops of ours that turned out to have taken effect though their unit was given up.
    landed: BTreeMap<RecordKey, Vec<OpId>>,
}

impl<'a, V: View> Taking<'a, V> {
    fn outcome(&mut self, id: UnitId, outcome: &'a Outcome) -> Result<(), V::Error> {
        if self.settled.iter().any(|(settled, _)| *settled == id) {
            return Ok(());
        }
        let Some(unit) = self.view.unit(&id)? else { return Ok(()) };
        if let Outcome::Applied { versions, .. } | Outcome::Duplicate { versions } = outcome
            && unit.changes.iter().any(|change| !versions.contains_key(&change.key))
        {
            // Half an answer is none: the unit stays under way and is sent again.
            return Ok(());
        }
        let mut meta = OutcomeMeta {
            unit: id,
            class: OutcomeClass::Applied,
            code: String::new(),
            message: None,
            versions: Vec::new(),
        };
        match outcome {
            Outcome::Applied { versions, current } => {
                meta.versions = self.acked(id, &unit, versions);
                for change in current {
                    self.change(change)?;
                }
            }
            Outcome::Duplicate { versions } => {
                meta.class = OutcomeClass::Duplicate;
                meta.versions = self.acked(id, &unit, versions);
            }
            Outcome::Stale { current, applied } => {
                meta.class = OutcomeClass::Stale;
                self.stale(id, &unit, current, applied)?;
            }
            Outcome::Transient { code, message, retry_after_milliseconds } => {
                meta.class = OutcomeClass::Transient;
                self.describe(&mut meta, code, message);
                self.tried(id, &unit, &meta.code, message, *retry_after_milliseconds);
            }
            Outcome::Rejected { code, message } => {
                meta.class = OutcomeClass::Rejected;
                self.describe(&mut meta, code, message);
                self.dead_lettered(id, &unit, &meta.code, message);
            }
            Outcome::Unsupported { entity, code } => {
                meta.class = OutcomeClass::Unsupported;
                meta.code = cut(code, limits::CODE_BYTES);
                self.park(ParkScope::Entity(entity.clone()), &meta.code);
            }
            Outcome::Unauthorized { code } => {
                meta.class = OutcomeClass::Unauthorized;
                meta.code = cut(code, limits::CODE_BYTES);
                self.park(ParkScope::Actor(unit.actor.clone()), &meta.code);
            }
        }
        self.out.upstream.outcomes.push(meta);
        self.settled.push((id, unit));
        Ok(())
    }

    fn describe(&mut self, meta: &mut OutcomeMeta, code: &str, message: &str) {
        meta.code = cut(code, limits::CODE_BYTES);
        if !message.is_empty() {
            let message = cut(message, limits::MESSAGE_BYTES);
            meta.message = Some(self.out.upstream_items.add(message, self.random));
        }
    }

    fn acked(
        &mut self,
        id: UnitId,
        unit: &UnitRow,
        versions: &BTreeMap<RecordKey, crate::numbers::Version>,
    ) -> Vec<(RecordKey, crate::numbers::Version)> {
        let ours =
            unit.changes.iter().filter_map(|change| Some((change.key.clone(), *versions.get(&change.key)?)));
        let versions: Vec<_> = ours.collect();
        self.out.tally.units_acked += 1;
        self.out.tally.ops_acked += count(unit);
        self.out.decisions.push(Decision::Acked {
            unit: id,
            planned: unit.planned,
            versions: versions.clone(),
        });
        versions
    }

    fn stale(
        &mut self,
        id: UnitId,
        unit: &UnitRow,
        current: &'a [Change],
        applied: &[UnitId],
    ) -> Result<(), V::Error> {
        self.out.tally.units_stale += 1;
        self.out.decisions.push(Decision::Dissolved { unit: id, planned: unit.planned });
        for change in current {
            let number = unit.changes.iter().position(|ours| ours.key == change.key);
            self.change(change)?;
            if let (Some(number), Some(touched)) = (number, self.touched.get_mut(&change.key)) {
                touched.stale = Some((id, number));
            }
        }
        for change in &unit.changes {
            let Some(row) = self.view.record(&change.key)? else { continue };
            self.landed(&change.key, &row, |own| own.attempts.iter().any(|unit| applied.contains(unit)))?;
            let worn_out = |reference: &&TailRef| {
                reference.stale.saturating_add(1) >= limits::STALE_TRIES
                    && change.ops.iter().any(|op| op.id == reference.op)
            };
            for reference in row.tail.iter().filter(worn_out) {
                self.park(ParkScope::Op(reference.op), "stale");
            }
        }
        Ok(())
    }

    fn tried(&mut self, id: UnitId, unit: &UnitRow, code: &str, message: &str, retry_after: Option<u64>) {
        let tries = unit.tries.saturating_add(1);
        if tries >= limits::TRIES {
            return self.dead_lettered(id, unit, code, message);
        }
        let asked = retry_after.map(std::time::Duration::from_millis);
        let retry_at = self.now.plus(retry::backoff(tries, asked, self.random));
        self.out.tally.units_tried += 1;
        self.out.decisions.push(Decision::Tried {
            unit: id,
            planned: unit.planned,
            tries,
            code: code.to_owned(),
            retry_at,
        });
    }

    fn dead_lettered(&mut self, id: UnitId, unit: &UnitRow, code: &str, message: &str) {
        self.out.tally.ops_dead += count(unit);
        let message = cut(message, limits::MESSAGE_BYTES);
        let message = (!message.is_empty()).then(|| self.out.decision_items.add(message, self.random));
        let tries = unit.tries.saturating_add(1);
        self.out.decisions.push(Decision::DeadLettered {
            unit: id,
            planned: unit.planned,
            tries,
            code: code.to_owned(),
            message,
        });
    }

    fn park(&mut self, scope: ParkScope, code: &str) {
        self.out.tally.parked = true;
        let decision = Decision::Parked { scope, code: code.to_owned() };
        if !self.out.decisions.contains(&decision) {
            self.out.decisions.push(decision);
        }
    }

    /// Records what the server sent of a record and remembers to judge its tail, if it may have one.
    /// The same version is recorded once, though a page and an outcome may both bring it; what an outcome names has a tail.
    fn change(&mut self, change: &'a Change) -> Result<(), V::Error> {
        let known = self.touched.get(&change.key).map(|touched| touched.changes.as_slice());
        if known.unwrap_or_default().iter().any(|known| known.version == change.version) {
            return Ok(());
        }
        let kept_aside = self.schema.rules(&change.key.entity).is_none();
        let extent = match (change.deleted, change.partial) {
            (true, _) => Extent::Deleted,
            (false, true) => Extent::Partial,
            (false, false) => Extent::Whole,
        };
        let fields = match (&change.fields, extent) {
            (_, Extent::Deleted) => None,
            (Some(fields), _) => Some(self.out.upstream_items.add_fields(fields, self.random)),
            (None, _) => Some(self.out.upstream_items.add_fields(&FieldsJson::default(), self.random)),
        };
        self.out.upstream.changes.push(ChangeMeta {
            key: change.key.clone(),
            version: change.version,
            extent,
            edited_at: change.edited_at,
            op: change.op,
            older: change.older.iter().map(|(name, stamp)| (name.clone(), *stamp)).collect(),
            fields,
            kept_aside,
        });
        self.out.tally.changes += 1;
        if !kept_aside && self.view.may_need_judging(&change.key)? {
            self.touched.entry(change.key.clone()).or_default().changes.push(change);
        }
        Ok(())
    }

    fn judge_all(&mut self) -> Result<(), V::Error> {
        for (key, mut touched) in std::mem::take(&mut self.touched) {
            touched.changes.sort_by_key(|change| change.version);
            let Some(row) = self.view.record(&key)? else { continue };
            self.reoffer(&key, &row, &touched);
            if row.tail.is_empty() {
                continue;
            }
            self.confirm_own(&row, &touched)?;
            touched.landed = self.landed.remove(&key).unwrap_or_default();
            let Some(rules) = self.schema.rules(&key.entity) else { continue };
            self.judge(&key, &row, &touched, rules)?;
        }
        Ok(())
    }

    /// After a restore: what the former life of the server had last is offered again if this one has something older.
    fn reoffer(&mut self, key: &RecordKey, row: &RecordRow, touched: &Touched<'a>) {
        let Some(former) = row.confirmed.as_ref().filter(|confirmed| confirmed.version.number() == 0) else {
            return;
        };
        let Some(last) = touched.changes.last().filter(|last| last.edited_at < former.edited_at) else {
            return;
        };
        let image = row.confirmed_image().and_then(|fields| fields.to_fields().ok());
        if image.is_some() || !last.deleted {
            self.out.reoffers.push(Reoffer { key: key.clone(), image, edited_at: former.edited_at });
        }
    }

    /// A change whose last op is one of ours that is under way confirms the unit, if the unit is about this record only;
    /// for a transaction the outcome tells more, and it is on its way. If the unit was given up, it had reached the server
    /// before that, and its ops are not sent again. Where several units carried it, these are the ops that each of them did.
    fn confirm_own(&mut self, row: &RecordRow, touched: &Touched<'a>) -> Result<(), V::Error> {
        for change in &touched.changes {
            let Some(own) = row.tail.iter().find(|reference| reference.op == change.op) else { continue };
            let id = self.view.unit_of(&change.op)?.filter(|_| !own.dead);
            let Some(id) = id.filter(|id| !self.is_dissolved(*id)) else {
                let carried_it = |unit: &UnitId, other: &TailRef| other.attempts.contains(unit);
                self.landed(&change.key, row, |other| {
                    !own.attempts.is_empty() && own.attempts.iter().all(|unit| carried_it(unit, other))
                })?;
                continue;
            };
            if self.settled.iter().any(|(settled, _)| *settled == id) {
                continue;
            }
            let Some(unit) = self.view.unit(&id)? else { continue };
            // An earlier op of it came with a unit that this one took over, whose last word the server does not have.
            let is_last_word = |ops: &[PlannedOp]| ops.last().is_some_and(|last| last.id == change.op);
            if let [only] = unit.changes.as_slice()
                && is_last_word(&only.ops)
            {
                self.acked(id, &unit, &BTreeMap::from([(change.key.clone(), change.version)]));
                self.settled.push((id, unit));
            }
        }
        Ok(())
    }

    fn is_dissolved(&self, id: UnitId) -> bool {
        let dissolves =
            |decision: &Decision| matches!(decision, Decision::Dissolved { unit, .. } if *unit == id);
        self.out.decisions.iter().any(dissolves)
    }

    /// Ends ops of units that were given up and turn out to have been applied.
    fn landed(
        &mut self,
        key: &RecordKey,
        row: &RecordRow,
        has_landed: impl Fn(&TailRef) -> bool,
    ) -> Result<(), V::Error> {
        let mut ops = Vec::new();
        for reference in row.tail.iter().filter(|reference| has_landed(reference)) {
            let unit = self.view.unit_of(&reference.op)?;
            let under_way = unit.is_some_and(|unit| !reference.dead && !self.is_dissolved(unit));
            let known = self.landed.entry(key.clone()).or_default();
            if !under_way && !known.contains(&reference.op) {
                known.push(reference.op);
                ops.push(PlannedOp { id: reference.op, place: reference.place });
            }
        }
        if !ops.is_empty() {
            let reason = AnnulledReason::Arrived;
            self.out.decisions.push(Decision::Annulled(Annulled { key: key.clone(), ops, reason }));
        }
        Ok(())
    }

    /// Judges the ops of one record's tail that are not under way: those of a stale unit as one edit, those that wait as
    /// another.
    fn judge(
        &mut self,
        key: &RecordKey,
        row: &RecordRow,
        touched: &Touched<'a>,
        rules: &EntityRules,
    ) -> Result<(), V::Error> {
        let Some(last) = touched.changes.last().copied() else { return Ok(()) };
        let known = row.confirmed.as_ref().map(|confirmed| confirmed.version);
        if touched.stale.is_none() && known.is_some_and(|known| known >= last.version) {
            return Ok(());
        }
        let Some(before) = self.confirmed_before(key, row)? else { return Ok(()) };
        let after = remote_image(row, &touched.changes);
        let mut stale = Edit { stale: true, ..Edit::default() };
        let mut waiting = Edit { base: before, ..Edit::default() };
        let mut under_way = false;
        // What we made after an edit of ours that is now the server's last word was made on top of it.
        let own_last = row.tail.iter().find(|own| own.op == last.op && touched.landed.contains(&own.op));
        let to_judge = row.tail.iter().filter(|reference| {
            !reference.dead
                && !reference.outdated
                && !touched.landed.contains(&reference.op)
                && own_last.is_none_or(|own| reference.place < own.place)
        });
        let mut waits = Vec::new();
        for reference in to_judge {
            let edit = match self.standing(reference, touched)? {
                Standing::Waiting => {
                    waits.push(reference);
                    &mut waiting
                }
                Standing::Stale(base) => {
                    stale.base = base;
                    &mut stale
                }
                Standing::UnderWayOrDone => {
                    under_way = true;
                    continue;
                }
            };
            let content = self.view.op(reference.place)?;
            edit.ops.push(EditOp {
                op: PlannedOp { id: reference.op, place: reference.place },
                kind: content.kind,
                edited_at: content.edited_at,
                fields: effective_fields(&content, reference),
            });
        }
        // Bases were made of what was read before; damage would have shown then.
        waiting.base = overlaid(waiting.base.take(), waits.into_iter()).unwrap_or_default();
        if own_last.is_none() {
            stale.base = self.with_landed(row, touched, stale.base)?;
            waiting.base = self.with_landed(row, touched, waiting.base)?;
        }
        let remote = RemoteEdit {
            op: last.op,
            image: after.as_ref(),
            edited_at: last.edited_at,
            edited_at_of: &|name| last.edited_at_of(name),
        };
        if after.is_none() && waiting.ops.last().is_some_and(|last| last.kind == OpKind::Delete) {
            // Both sides deleted it. Ours ends together with all that it covers, or else that would bring the record back; it
            // stays for as long as some of that is on its way.
            if under_way {
                waiting.ops.clear();
            } else {
                stale.ops.append(&mut waiting.ops);
            }
        }
        for edit in [waiting, stale].into_iter().filter(|edit| !edit.ops.is_empty()) {
            for verdict in judge(key, rules, edit, &remote) {
                self.follow(key, last, verdict);
            }
        }
        Ok(())
    }

    /// Returns a base with what turned out to have taken effect on top: the author of what came after had seen that.
    fn with_landed(
        &mut self,
        row: &RecordRow,
        touched: &Touched<'a>,
        base: Option<Fields>,
    ) -> Result<Option<Fields>, V::Error> {
        let mut image = super::Image { fields: base, before_deletion: None };
        for reference in row.tail.iter().filter(|reference| touched.landed.contains(&reference.op)) {
            let content = self.view.op(reference.place)?;
            image.put(&content, reference);
        }
        Ok(image.fields)
    }

    fn follow(&mut self, key: &RecordKey, last: &Change, verdict: Verdict) {
        let decision = match verdict {
            Verdict::Annulled(ops, reason) => Decision::Annulled(Annulled { key: key.clone(), ops, reason }),
            Verdict::Superseded(op) => Decision::Superseded { key: key.clone(), op },
            Verdict::Conflicted(clash) => return self.conflicted(key, *clash, last),
        };
        self.out.decisions.push(decision);
    }

    fn conflicted(&mut self, key: &RecordKey, clash: Clash, last: &Change) {
        let Clash { op, kind, edited_at, settlement } = clash;
        self.out.tally.conflicts += 1;
        let items = &mut self.out.decision_items;
        let base = items.add_fields(&settlement.base.to_json(), self.random);
        let local = items.add_fields(&settlement.local.to_json(), self.random);
        let remote = items.add_fields(&settlement.remote.to_json(), self.random);
        let merged =
            settlement.merged.as_ref().map(|merged| items.add_fields(&merged.to_json(), self.random));
        let undecided = settlement.winner == Winner::Undecided;
        self.out.decisions.push(Decision::Conflicted(Conflicted {
            key: key.clone(),
            op,
            kind,
            edited_at,
            version: last.version,
            extent: if last.deleted { Extent::Deleted } else { Extent::Whole },
            remote_edited_at: last.edited_at,
            fields: settlement.fields,
            winner: settlement.winner,
            rule: settlement.rule,
            base,
            local,
            remote,
            merged,
            functions: settlement.functions,
        }));
        if undecided {
            self.park(ParkScope::Op(op.id), "conflict");
        }
    }

    fn standing(&mut self, reference: &TailRef, touched: &Touched<'a>) -> Result<Standing, V::Error> {
        let Some(id) = self.view.unit_of(&reference.op)? else { return Ok(Standing::Waiting) };
        match touched.stale {
            Some((stale, number)) if stale == id => {
                let unit = self.settled.iter().find(|(settled, _)| *settled == id);
                let base = unit
                    .and_then(|(_, unit)| unit.changes.get(number))
                    .and_then(|change| change.base_fields.as_ref());
                // Base fields were built by the fold; damage would have shown when the row was read.
                Ok(Standing::Stale(base.and_then(|fields| fields.to_fields().ok())))
            }
            _ => Ok(Standing::UnderWayOrDone),
        }
    }

    /// Returns what confirmed is once the units that this answer acks have been counted in; the outer `None` if stored
    /// text was damaged, in which case the fold will say so.
    fn confirmed_before(
        &mut self,
        key: &RecordKey,
        row: &RecordRow,
    ) -> Result<Option<Option<Fields>>, V::Error> {
        let mut image = super::Image { fields: None, before_deletion: None };
        if let Some(confirmed) = row.confirmed_image() {
            match confirmed.to_fields() {
                Ok(fields) => image.fields = Some(fields),
                Err(_) => return Ok(None),
            }
        }
        for decision in &self.out.decisions {
            let Decision::Acked { unit, .. } = decision else { continue };
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
}

enum Standing {
    /// Not sent: it can be judged.
    Waiting,
    /// It came back stale; what the record was when it was planned.
    Stale(Option<Fields>),
    /// It was sent and has no answer yet, or was acked just now.
    UnderWayOrDone,
}

/// Returns the record's image after these changes, or `None` if it is deleted.
fn remote_image(row: &RecordRow, changes: &[&Change]) -> Option<Fields> {
    let mut image = row.confirmed_fields().ok().filter(|_| row.confirmed_image().is_some());
    let known = row.confirmed.as_ref().map(|confirmed| confirmed.version);
    for change in changes.iter().filter(|change| known.is_none_or(|known| change.version >= known)) {
        let fields =
            change.fields.as_ref().map(FieldsJson::to_fields).and_then(Result::ok).unwrap_or_default();
        if change.deleted {
            image = None;
        } else if change.partial {
            image.get_or_insert_with(Fields::new).apply(&fields);
        } else {
            image = Some(fields.into_image());
        }
    }
    image
}

fn count(unit: &UnitRow) -> u32 {
    u32::try_from(unit.changes.iter().map(|change| change.ops.len()).sum::<usize>()).unwrap_or(u32::MAX)
}

/// Cuts text to so many bytes, at a character.
pub(super) fn cut(text: &str, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}
