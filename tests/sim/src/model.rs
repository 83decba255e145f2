//! What a device's log means, worked out a second time: a plain fold that shares no code with the product's own.
//!
//! It takes a record's confirmed fields from the server's ledger, by the version that the device claims to have, so a device
//! that folds its own changes wrongly differs from it at once.
//!
//! Invariants that are checked here, entry by entry:
//! - S3: places have no gap, and each hash follows from the one before.
//! - S5, S9, S10: a plan takes ops of the tail, in order, each once, and transactions whole.
//! - S6: an op ends once, and not while it is under way; ops that are annulled had no effect on what the app reads.
//! - S8: a unit is acked only if the server applied it, and dissolved only if it did not.
//! - S11: what was taken in is what the server has at that version.
//! - S12: cursors do not go back.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook::entry::{
    Annulled, AnnulledReason, Conflicted, Control, Decision, Entry, Extent, Intent, Meta, ParkScope, Planned,
    PlannedOp, PlannedUnit, Upstream, Winner, chain,
};
use fieldbook::{EntityType, Hash, OpId, OpKind, OpPlace, RecordKey, UnitId, Version};

use crate::broken::{Broken, ensure};
use crate::server::{Image, Ledger, changed, parse};

/// A device's book, as its log says it must be.
#[derive(Debug, Default, Clone)]
pub struct Model {
    /// How many entries were read.
    pub entries: u64,
    /// The hash of each.
    pub hashes: Vec<Hash>,
    /// Each record that was heard of.
    pub records: BTreeMap<RecordKey, Held>,
    /// The units under way.
    pub units: BTreeMap<UnitId, Vec<(RecordKey, Vec<OpId>)>>,
    /// Every unit that ever was under way.
    pub ever_planned: BTreeSet<UnitId>,
    /// Every op ever made.
    pub ops: BTreeMap<OpId, Op>,
    /// How far each entity type was read.
    pub cursors: BTreeMap<EntityType, u64>,
    /// What is parked.
    pub parks: BTreeSet<ParkScope>,
    /// How many conflicts were recorded.
    pub conflicts: u64,
    /// The records of the conflicts in the last entry.
    clashed: BTreeSet<RecordKey>,
}

/// One record.
#[derive(Debug, Default, Clone)]
pub struct Held {
    /// The version that is confirmed.
    pub version: Option<Version>,
    /// The versions that ever were.
    pub seen: BTreeSet<Version>,
    /// What it was at that version.
    pub confirmed: Option<Image>,
    /// What it last was before the server deleted it, while something waits on top of it.
    last: Image,
    /// The ops on top, oldest first.
    pub tail: Vec<Waiting>,
}

/// An op of a tail.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Which.
    pub op: OpId,
    /// Whether it is a dead letter.
    pub dead: bool,
    /// Whether what was typed after it left nothing of it.
    outdated: bool,
    lost: BTreeSet<String>,
    merged: Image,
}

/// An op.
#[derive(Debug, Clone)]
pub struct Op {
    /// The record.
    pub key: RecordKey,
    /// What it does.
    pub kind: OpKind,
    /// Its fields.
    pub fields: Image,
    /// Where it stands.
    pub place: OpPlace,
    /// The version that its author saw.
    pub base: Option<Version>,
    /// How it ended.
    pub end: Option<End>,
    /// Whether it ever was a dead letter.
    pub was_dead: bool,
    /// The conflicts that it had: the server's version that it met, and the fields; none for the whole record.
    pub conflicts: Vec<(Version, Vec<String>)>,
}

/// How an op can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The server has it.
    Acked,
    /// It lost a conflict.
    Superseded,
    /// It had no effect.
    Annulled,
    /// A person gave it up.
    Discarded,
}

impl Model {
    /// Takes the next entry.
    ///
    /// # Errors
    /// [`Broken`] for what an entry must not say.
    pub fn take(&mut self, entry: &Entry, ledger: &Ledger) -> Result<(), Broken> {
        let seq = entry.header.seq;
        ensure(seq.number() == self.entries + 1, "S3", || {
            format!("entry {seq} comes after {} entries", self.entries)
        })?;
        let before = self.hashes.last().copied().unwrap_or(Hash::ZERO);
        ensure(chain::link(&before, &entry.content) == entry.hash, "S3", || {
            format!("entry {seq} does not follow from the one before")
        })?;
        self.entries += 1;
        self.clashed = clashed(&entry.meta);
        self.hashes.push(entry.hash);
        match &entry.meta {
            Meta::Intent(intent) => self.intent(entry, intent),
            Meta::Upstream(upstream) => self.upstream(entry, upstream, ledger),
            Meta::Control(Control::Planned(planned)) => self.planned(planned, ledger),
            Meta::Control(Control::Decided(decisions) | Control::Verb(_, decisions)) => {
                decisions.iter().try_for_each(|decision| self.decided(entry, decision, ledger))
            }
            Meta::Control(Control::Opened(_) | Control::EpochStarted { .. }) => Ok(()),
        }
    }

    fn intent(&mut self, entry: &Entry, intent: &Intent) -> Result<(), Broken> {
        for (index, op) in (0..).zip(&intent.ops) {
            let fields = match op.fields {
                Some(item) => item_of(entry, item)?,
                None => Image::new(),
            };
            let place = OpPlace { seq: entry.header.seq, index };
            let made = Op {
                key: op.key.clone(),
                kind: op.kind,
                fields,
                place,
                base: op.base,
                end: None,
                was_dead: false,
                conflicts: Vec::new(),
            };
            let twice = self.ops.insert(op.id, made).is_some();
            ensure(!twice, "S6", || format!("op {} was appended twice", op.id))?;
            let waiting = Waiting {
                op: op.id,
                dead: false,
                outdated: false,
                lost: BTreeSet::new(),
                merged: Image::new(),
            };
            self.records.entry(op.key.clone()).or_default().tail.push(waiting);
        }
        Ok(())
    }

    fn upstream(&mut self, entry: &Entry, upstream: &Upstream, ledger: &Ledger) -> Result<(), Broken> {
        for change in &upstream.changes {
            let (key, version) = (&change.key, change.version);
            let Some(there) = ledger.at(key, version) else {
                return Err(Broken::new("S11", format!("{key} never had version {version}")));
            };
            let sent = match (change.extent, change.fields) {
                (Extent::Whole, Some(item)) => Some(item_of(entry, item)?),
                _ => None,
            };
            ensure(there == sent.as_ref(), "S11", || {
                format!("{key} at {version} was not stored as the server has it")
            })?;
            self.confirm(key, version, ledger)?;
        }
        for (entity, cursor) in &upstream.cursors {
            let place = cursor.as_bytes().try_into().map_or(0, u64::from_be_bytes);
            let before = self.cursors.insert(entity.clone(), place).unwrap_or(0);
            ensure(place >= before, "S12", || {
                format!("the cursor of {entity} went back from {before} to {place}")
            })?;
        }
        Ok(())
    }

    fn confirm(&mut self, key: &RecordKey, version: Version, ledger: &Ledger) -> Result<(), Broken> {
        let held = self.records.entry(key.clone()).or_default();
        if held.version.is_none_or(|known| version > known) {
            let Some(image) = ledger.at(key, version) else {
                return Err(Broken::new("S8", format!("{key} never had version {version}")));
            };
            held.version = Some(version);
            held.seen.insert(version);
            let before = std::mem::replace(&mut held.confirmed, image.cloned());
            if let (Some(before), None) = (before, &held.confirmed) {
                held.last = before;
            }
        }
        held.settle();
        Ok(())
    }

    fn planned(&mut self, planned: &Planned, ledger: &Ledger) -> Result<(), Broken> {
        planned.annulled.iter().try_for_each(|annulled| self.annulled(annulled, ledger))?;
        for unit in &planned.units {
            for former in &unit.replaces {
                self.units.remove(former);
                ensure(self.ever_planned.contains(former), "S5", || {
                    format!("{} replaces a unit that never was", unit.id)
                })?;
            }
            self.check_plan(unit)?;
            let changes = unit
                .changes
                .iter()
                .map(|change| (change.key.clone(), change.ops.iter().map(|op| op.id).collect::<Vec<_>>()));
            self.units.insert(unit.id, changes.collect());
            ensure(self.ever_planned.insert(unit.id), "S5", || {
                format!("unit {} was planned twice", unit.id)
            })?;
        }
        Ok(())
    }

    fn check_plan(&self, unit: &PlannedUnit) -> Result<(), Broken> {
        let named: BTreeSet<OpId> =
            unit.changes.iter().flat_map(|change| change.ops.iter().map(|op| op.id)).collect();
        for change in &unit.changes {
            let under_way = self.units.values().flatten().any(|(key, _)| *key == change.key);
            ensure(!under_way, "S9", || format!("{} is in two units at once", change.key))?;
            let tail = self.records.get(&change.key).map(|held| held.tail.as_slice()).unwrap_or_default();
            let ours: Vec<_> = tail.iter().filter(|waiting| named.contains(&waiting.op)).collect();
            ensure(ours.len() == change.ops.len() && ours.iter().all(|waiting| !waiting.dead), "S5", || {
                format!("unit {} has ops of {} that do not wait", unit.id, change.key)
            })?;
            let passed = tail.iter().take_while(|waiting| !named.contains(&waiting.op));
            let overtaken = passed.filter(|waiting| !waiting.dead).count();
            ensure(overtaken == 0, "S9", || {
                format!("unit {} passes {overtaken} earlier ops of {}", unit.id, change.key)
            })?;
        }
        for op in &named {
            let Some(place) = self.ops.get(op).map(|op| op.place) else { continue };
            let mates = self.ops.iter().filter(|(_, mate)| mate.place.seq == place.seq);
            let left = mates.filter(|(id, mate)| mate.end.is_none() && !mate.was_dead && !named.contains(id));
            let left = left.count();
            ensure(left == 0, "S10", || {
                format!("unit {} leaves {left} ops of its transaction {} behind", unit.id, place.seq)
            })?;
        }
        Ok(())
    }

    fn decided(&mut self, entry: &Entry, decision: &Decision, ledger: &Ledger) -> Result<(), Broken> {
        match decision {
            Decision::Acked { unit, versions, .. } => self.acked(unit, versions, ledger),
            Decision::Tried { unit, .. } => ensure(self.units.contains_key(unit), "S6", || {
                format!("unit {unit} was tried and is not under way")
            }),
            Decision::Dissolved { unit, .. } => {
                ensure(!ledger.applied.contains_key(unit), "S7", || {
                    format!("unit {unit} took effect and is planned anew")
                })?;
                let was = self.units.remove(unit).is_some();
                ensure(was, "S6", || format!("unit {unit} was dissolved and is not under way"))
            }
            Decision::Upcast { op, .. } => {
                Err(Broken::new("S6", format!("op {} is of the only schema version", op.id)))
            }
            Decision::Conflicted(conflict) => self.conflicted(entry, conflict),
            Decision::Superseded { key, op } => {
                // What an op of ours had overwritten ends with that op; the conflict names the last word only.
                let lost =
                    self.clashed.contains(key) || matches!(entry.meta, Meta::Control(Control::Verb(..)));
                ensure(lost, "S6", || {
                    format!("op {} of {key} was superseded without a conflict: {:?}", op.place, entry.meta)
                })?;
                self.last_word(&op.id);
                self.end(key, op, End::Superseded)
            }
            Decision::DeadLettered { unit, .. } => self.dead_lettered(unit),
            Decision::Retried { key, op } => {
                // A person who sends it again means it, whatever the record has become.
                let seen = self.records.get(key).and_then(|held| held.version);
                if let Some(op) = self.ops.get_mut(&op.id) {
                    op.base = op.base.max(seen);
                }
                let waiting = self.waiting(key, op)?;
                let was = std::mem::replace(&mut waiting.dead, false);
                ensure(was, "S6", || format!("op {} was retried and is no dead letter", op.id))
            }
            Decision::Discarded { key, op } => self.end(key, op, End::Discarded),
            Decision::Annulled(annulled) => self.annulled(annulled, ledger),
            Decision::Resolved { key, op, lost, merged, .. } => {
                let merged = merged.map(|item| item_of(entry, item)).transpose()?;
                self.outdate(key, op.place, lost);
                let waiting = self.waiting(key, op)?;
                waiting.lost.extend(lost.iter().cloned());
                waiting.merged.extend(merged.unwrap_or_default());
                Ok(())
            }
            // No server is replaced in this world, and every entity type is declared.
            Decision::ServerAccepted { .. } | Decision::ServerRead | Decision::TakenIn { .. } => {
                Err(Broken::new("harness", "a decision that has no cause in this world"))
            }
            Decision::Parked { scope, .. } => {
                self.parks.insert(scope.clone());
                Ok(())
            }
            Decision::Unparked { scope } => {
                self.parks.remove(scope);
                Ok(())
            }
        }
    }

    fn acked(
        &mut self,
        unit: &UnitId,
        versions: &[(RecordKey, Version)],
        ledger: &Ledger,
    ) -> Result<(), Broken> {
        let Some(applied) = ledger.applied.get(unit) else {
            return Err(Broken::new("S8", format!("unit {unit} is acked and never took effect")));
        };
        let Some(changes) = self.units.remove(unit) else {
            return Err(Broken::new("S6", format!("unit {unit} is acked and not under way")));
        };
        for (key, ops) in changes {
            let version = versions.iter().find(|(named, _)| *named == key).map(|(_, version)| *version);
            let Some(version) = version.filter(|version| version >= applied) else {
                return Err(Broken::new("S8", format!("the ack of {unit} has no right version for {key}")));
            };
            // The ops leave the tail together with the move of confirmed, so that nothing is seen in between.
            for op in &ops {
                self.last_word(op);
                self.remove(&key, op, End::Acked)?;
            }
            self.confirm(&key, version, ledger)?;
        }
        Ok(())
    }

    fn dead_lettered(&mut self, unit: &UnitId) -> Result<(), Broken> {
        let Some(changes) = self.units.remove(unit) else {
            return Err(Broken::new("S6", format!("unit {unit} is given up and not under way")));
        };
        for (key, ops) in changes {
            let Some(held) = self.records.get_mut(&key) else { continue };
            for waiting in held.tail.iter_mut().filter(|waiting| ops.contains(&waiting.op)) {
                waiting.dead = true;
                if let Some(op) = self.ops.get_mut(&waiting.op) {
                    op.was_dead = true;
                }
            }
        }
        Ok(())
    }

    fn conflicted(&mut self, entry: &Entry, conflict: &Conflicted) -> Result<(), Broken> {
        self.conflicts += 1;
        let names: Vec<String> = conflict.fields.iter().map(|field| field.name.clone()).collect();
        if let Some(op) = self.ops.get_mut(&conflict.op.id) {
            op.conflicts.push((conflict.version, names));
        }
        let merged = conflict.merged.map(|item| item_of(entry, item)).transpose()?;
        let lost = conflict.fields.iter().filter(|field| field.winner == Winner::Remote);
        let lost: Vec<String> = lost.map(|field| field.name.clone()).collect();
        self.outdate(&conflict.key, conflict.op.place, &lost);
        let waiting = self.waiting(&conflict.key, &conflict.op)?;
        waiting.lost.extend(lost);
        waiting.merged.extend(merged.unwrap_or_default());
        Ok(())
    }

    fn annulled(&mut self, annulled: &Annulled, ledger: &Ledger) -> Result<(), Broken> {
        let before = self.visible(&annulled.key);
        for op in &annulled.ops {
            if matches!(annulled.reason, AnnulledReason::NoEffect | AnnulledReason::Arrived) {
                self.last_word(&op.id);
            }
            self.end(&annulled.key, op, End::Annulled)?;
        }
        let after = self.visible(&annulled.key);
        // What was created and deleted here says nothing about a record of that name that someone else made meanwhile, if
        // the author saw nothing of that one.
        let ops: Vec<_> = annulled.ops.iter().filter_map(|op| self.ops.get(&op.id)).collect();
        let created_on = ops.first().filter(|op| op.kind == OpKind::Create).map(|op| op.base);
        let saw = |op: &&Op| op.base.and_then(|base| ledger.at(&annulled.key, base)).flatten().is_some();
        let unseen = annulled.reason == AnnulledReason::CreatedAndDeleted
            && ops.iter().all(|op| created_on == Some(op.base) || !saw(op));
        let arrived = annulled.reason == AnnulledReason::Arrived;
        let phantom = annulled.ops.iter().find(|op| arrived && !ledger.ops.contains_key(&op.id));
        ensure(phantom.is_none(), "S8", || format!("{phantom:?} is said to have arrived and never did"))?;
        let explained = unseen || arrived || annulled.reason == AnnulledReason::Undone;
        ensure(before == after || explained, "S6", || {
            let ops: Vec<_> = annulled.ops.iter().filter_map(|op| self.ops.get(&op.id)).collect();
            let reason = annulled.reason;
            format!(
                "annulling ops changed what the app reads: {reason:?} from {before:?} to {after:?}, {ops:?}"
            )
        })
    }

    /// A dead letter must not come back over what was typed after it: when that ends, it takes from the dead letter what
    /// it said anew.
    fn last_word(&mut self, id: &OpId) {
        let Some(op) = self.ops.get(id).cloned() else { return };
        if op.kind == OpKind::Update {
            let names: Vec<String> = op.fields.keys().cloned().collect();
            self.outdate(&op.key, op.place, &names);
        } else {
            self.each_dead_before(&op.key, op.place, |waiting| waiting.outdated = true);
        }
    }

    fn outdate(&mut self, key: &RecordKey, later: OpPlace, names: &[String]) {
        self.each_dead_before(key, later, |waiting| waiting.lost.extend(names.iter().cloned()));
    }

    fn each_dead_before(&mut self, key: &RecordKey, later: OpPlace, change: impl Fn(&mut Waiting)) {
        let tail = self.records.get_mut(key).map(|held| held.tail.iter_mut()).into_iter().flatten();
        for waiting in tail.filter(|waiting| waiting.dead) {
            if self.ops.get(&waiting.op).is_some_and(|op| op.place < later) {
                change(waiting);
            }
        }
    }

    fn end(&mut self, key: &RecordKey, op: &PlannedOp, end: End) -> Result<(), Broken> {
        let under_way = self.units.values().flatten().any(|(_, ops)| ops.contains(&op.id));
        ensure(!under_way, "S6", || format!("op {} ended as {end:?} while it was under way", op.id))?;
        self.remove(key, &op.id, end)
    }

    fn remove(&mut self, key: &RecordKey, id: &OpId, end: End) -> Result<(), Broken> {
        let Some(op) = self.ops.get_mut(id) else {
            return Err(Broken::new("S6", format!("op {id} ended as {end:?} and was never made")));
        };
        if let Some(before) = op.end.replace(end) {
            return Err(Broken::new("S6", format!("op {id} ended as {before:?} and again as {end:?}")));
        }
        if let Some(held) = self.records.get_mut(key) {
            held.tail.retain(|waiting| waiting.op != *id);
            held.settle();
        }
        // What it was parked for is settled with it.
        self.parks.remove(&ParkScope::Op(*id));
        Ok(())
    }

    fn waiting(&mut self, key: &RecordKey, op: &PlannedOp) -> Result<&mut Waiting, Broken> {
        let tail = self.records.get_mut(key).map(|held| &mut held.tail);
        let found = tail.and_then(|tail| tail.iter_mut().find(|waiting| waiting.op == op.id));
        found.ok_or_else(|| Broken::new("S6", format!("a decision on op {}, which does not wait", op.id)))
    }

    /// Returns what the app must read of a record.
    pub fn visible(&self, key: &RecordKey) -> Option<Image> {
        let held = self.records.get(key)?;
        let mut image = held.confirmed.clone();
        let mut last = Some(held.last.clone()).filter(|_| held.confirmed.is_none());
        for waiting in held.tail.iter().filter(|waiting| !waiting.outdated) {
            let Some(op) = self.ops.get(&waiting.op) else { continue };
            let mut fields: Image = op.fields.clone();
            fields.retain(|name, _| !waiting.lost.contains(name));
            fields.extend(waiting.merged.clone());
            if op.kind == OpKind::Update && image.is_none() {
                image = last.take();
            }
            if op.kind == OpKind::Delete {
                last = None;
            }
            // A create on top of what someone else made meanwhile is put on top of theirs.
            let kind = match op.kind {
                OpKind::Create if image.is_some() => OpKind::Update,
                kind => kind,
            };
            image = changed(image, kind, &fields);
        }
        image
    }

    /// Returns how many ops have no end.
    pub fn pending(&self) -> usize {
        self.records.values().map(|held| held.tail.len()).sum()
    }

    /// Returns the dead letters.
    pub fn dead(&self) -> BTreeSet<OpId> {
        let waiting = self.records.values().flat_map(|held| &held.tail);
        waiting.filter(|waiting| waiting.dead).map(|waiting| waiting.op).collect()
    }
}

impl Held {
    fn settle(&mut self) {
        if self.tail.is_empty() {
            self.last = Image::new();
        }
    }
}

fn item_of(entry: &Entry, item: u32) -> Result<Image, Broken> {
    let fields = entry.fields(item).ok().flatten();
    let Some(fields) = fields else {
        return Err(Broken::new("S1", format!("entry {} lacks an item", entry.header.seq)));
    };
    parse(fields.as_str())
}

/// Returns the records of the conflicts in an entry.
fn clashed(meta: &Meta) -> BTreeSet<RecordKey> {
    let Meta::Control(Control::Decided(decisions)) = meta else { return BTreeSet::new() };
    let keys = decisions.iter().filter_map(|decision| match decision {
        Decision::Conflicted(conflict) => Some(conflict.key.clone()),
        _ => None,
    });
    keys.collect()
}
