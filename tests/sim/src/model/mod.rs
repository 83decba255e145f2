//! The meaning of a device's log, computed a second time: a plain fold that shares no code with the
//! product's own.
//!
//! It takes a record's confirmed fields from the server's ledger, by the version that the device
//! names. So a device that folds its own changes wrongly differs from it at once.
//!
//! [`Model::take`] and the records are here; plans are in `plans`, decisions in `decisions`, their
//! losses in `losses`.
//!
//! Invariants that are checked here, entry by entry:
//! - S3: places have no gap, and each hash follows from the one before.
//! - S5, S9, S10: a plan uses ops of the tail, in order, each once, and transactions whole.
//! - S6: an op ends once, and not while it is unanswered; cancelled ops had no effect on the record
//!   that the app reads.
//! - S8: a unit is acked only if the server applied it, and requeued only if it did not.
//! - S11: an applied change is the server's state at that version.
//! - S8: a record of a former server epoch that the present epoch has in an older state, or not at
//!   all, stays visible to the app, and is offered again.
//! - L5: a further try waits for a bounded time.
//! - S12: cursors do not go back, unless another server was accepted.
//! - S18: an upcast op has the result of the app's function on its remaining fields; no op keeps
//!   the old form.
//! - X3: a new epoch begins only if the server's anchor belongs to another continuation of this
//!   log.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook::audit::entry::{
    Control, Decision, Entry, ErasedRecords, Extent, Intent, Meta, ParkScope, Receipt, Upstream,
    chain,
};
use fieldbook::audit::{Hash, Seq};
use fieldbook::record::{OpId, OpKind, OpPlace, UnitId, Version};
use fieldbook::sync::ServerEpoch;
use fieldbook::{EntityType, RecordKey};

mod decisions;
mod former;
mod held;
mod losses;
mod plans;

pub use held::{Held, Waiting};

use crate::app::knows;
use crate::broken::{Broken, ensure};
use crate::ledger::{Image, Ledger, Registers, parse};

/// A device's book as its log requires it.
#[derive(Debug, Default, Clone)]
pub struct Model {
    /// How many entries were read.
    pub entries: u64,
    /// The last entry that was trimmed.
    trimmed: Seq,
    /// The number of entries that were read before the book was reopened: the server may have done
    /// more since they were written.
    pub read_before: u64,
    /// The hash of each entry.
    pub hashes: Vec<Hash>,
    /// Each known record.
    pub records: BTreeMap<RecordKey, Held>,
    /// The unanswered units.
    pub units: BTreeMap<UnitId, Vec<(RecordKey, Vec<OpId>)>>,
    /// All units that were ever planned.
    pub ever_planned: BTreeSet<UnitId>,
    /// The units that ever did not get through while others did.
    pub suspected: BTreeSet<UnitId>,
    /// The earlier units that each unit names.
    earlier_units: BTreeMap<UnitId, Vec<UnitId>>,
    /// Every op ever made.
    pub ops: BTreeMap<OpId, Op>,
    /// How far each entity type was read.
    pub cursors: BTreeMap<EntityType, u64>,
    /// The dead letters that the next entry has to empty.
    falls: Vec<(RecordKey, OpId)>,
    /// The parks.
    pub parks: BTreeSet<ParkScope>,
    /// How many conflicts were recorded.
    pub conflicts: u64,
    /// The epoch of the server in its last answer.
    pub server_epoch: Option<ServerEpoch>,
    /// Whether a server was accepted and has not been read to its end.
    pub rereading: bool,
    /// The records that the accepted server lacks, or has in an older state, and that have no op
    /// of ours on them.
    pub owed: BTreeMap<RecordKey, Option<Image>>,
    /// The changes of entity types that the app has not declared yet, by their entry and their
    /// index in it.
    pub undeclared: BTreeMap<(Seq, u32), Kept>,
    /// The entries that an opening may have added.
    pub upkeep: BTreeSet<u64>,
    /// Whether the last entry says something of the device only. Only a new log ends so.
    pub ends_with_the_device: bool,
    /// The ops of units that were planned again after an answer of one server epoch, and took
    /// effect in another.
    pub strays: BTreeSet<OpId>,
    /// The records of the conflicts in the last entry.
    clashed: BTreeSet<RecordKey>,
    /// The records of which a deletion of ours ended in the last entry.
    fallen: BTreeSet<RecordKey>,
}

/// A change of an undeclared record.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The record.
    pub key: RecordKey,
    /// Its version.
    pub version: Version,
    registers: Registers,
}

/// An op.
#[derive(Debug, Clone)]
pub struct Op {
    /// The record.
    pub key: RecordKey,
    /// The user with whose credentials it leaves.
    pub sender: String,
    /// What it does.
    pub kind: OpKind,
    /// Its fields.
    pub fields: Image,
    /// Its place.
    pub place: OpPlace,
    /// The op that it corrects, or takes back.
    pub cites: Option<OpId>,
    /// The version that its author had read.
    pub base: Option<Version>,
    /// The version that its author had read when the op was made. If the op was sent again, `base`
    /// is a later version.
    pub made_on: Option<Version>,
    /// The record that the app read when the op was made.
    pub saw: Option<Image>,
    /// The end of the op.
    pub end: Option<End>,
    /// Whether it ever was a dead letter.
    pub was_dead: bool,
    /// Its conflicts: the server's version that it met, and the fields; none for the whole record.
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
    Cancelled,
    /// A person decided that it is not sent.
    Discarded,
}

impl Model {
    /// Processes the next entry.
    ///
    /// # Errors
    /// [`Broken`] if the entry is not allowed.
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
        self.fallen = self.fallen_in(&entry.meta);
        self.hashes.push(entry.hash);
        self.ends_with_the_device = is_of_the_device(&entry.meta);
        if is_upkeep(&entry.meta) {
            self.upkeep.insert(seq.number());
        }
        let falls = std::mem::take(&mut self.falls);
        self.take_meta(entry, ledger)?;
        let says_nothing = |(key, op): &(RecordKey, OpId)| {
            let held = self.records.get(key).into_iter().flat_map(|held| &held.tail);
            held.filter(|waiting| waiting.op == *op).all(|waiting| waiting.emptied)
        };
        let shown = falls.iter().find(|fallen| !says_nothing(fallen));
        ensure(shown.is_none(), "S6", || {
            format!("{shown:?} shows again, though a deletion stood above it that need not be sent")
        })
    }

    fn take_meta(&mut self, entry: &Entry, ledger: &Ledger) -> Result<(), Broken> {
        match &entry.meta {
            Meta::Intent(intent) => self.intent(entry, intent),
            Meta::Upstream(upstream) => self.upstream(entry, upstream, ledger),
            Meta::Control(Control::Planned(planned)) => self.planned(planned, ledger),
            Meta::Control(Control::Decided(decisions) | Control::PersonActed(_, decisions)) => {
                decisions.iter().try_for_each(|decision| self.decided(entry, decision, ledger))
            }
            // They say something of the device, and nothing of a record.
            Meta::Control(
                Control::Opened(_)
                | Control::Session(_)
                | Control::Silence(_)
                | Control::Authors(_)
                | Control::Note(_),
            ) => Ok(()),
            Meta::Control(Control::Trimmed(trimmed)) => {
                self.trimmed = trimmed.upto.seq;
                Ok(())
            }
            // A baseline is never appended, and says what is known.
            Meta::Control(Control::Baseline(_)) => Ok(()),
            Meta::Control(Control::Erased(erased)) => {
                self.erased(&erased.records);
                Ok(())
            }
            Meta::Control(Control::EpochStarted { anchored, .. }) => self.epoch_started(*anchored),
        }
    }

    /// Forgets the records whose values were erased. None of them may have an op of ours.
    fn erased(&mut self, records: &ErasedRecords) {
        self.records.retain(|key, held| !records.has(key) || !held.tail.is_empty());
        self.undeclared.retain(|_, kept| !records.has(&kept.key));
        if matches!(records, ErasedRecords::Except(_)) {
            self.cursors.clear();
        }
    }

    /// Returns the records of which an entry ends a deletion of ours.
    fn fallen_in(&self, meta: &Meta) -> BTreeSet<RecordKey> {
        let Meta::Control(Control::Decided(decisions)) = meta else { return BTreeSet::new() };
        let keys = decisions.iter().filter_map(|decision| match decision {
            Decision::Superseded { key, op } => {
                let is_delete = self.ops.get(&op.id).is_some_and(|op| op.kind == OpKind::Delete);
                is_delete.then(|| key.clone())
            }
            _ => None,
        });
        keys.collect()
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
                sender: entry.header.actor.to_string(),
                kind: op.kind,
                fields,
                place,
                cites: op.cites,
                base: op.base,
                made_on: op.base,
                saw: self.visible(&op.key),
                end: None,
                was_dead: false,
                conflicts: Vec::new(),
            };
            let twice = self.ops.insert(op.id, made).is_some();
            ensure(!twice, "S6", || format!("op {} was appended twice", op.id))?;
            let mut waiting = Waiting::new(op.id, op.schema_version, op.edited_at);
            self.clear(&op.key, &mut waiting, op.kind);
            self.records.entry(op.key.clone()).or_default().tail.push(waiting);
        }
        Ok(())
    }

    fn upstream(
        &mut self,
        entry: &Entry,
        upstream: &Upstream,
        ledger: &Ledger,
    ) -> Result<(), Broken> {
        self.server_epoch = Some(upstream.epoch);
        for (number, change) in (0..).zip(&upstream.changes) {
            let (key, version) = (&change.key, change.version);
            let sent = match (change.extent, change.fields) {
                (Extent::Whole, Some(item)) => Some(item_of(entry, item)?),
                _ => None,
            };
            let never = version == Version::default() && sent.is_none();
            let mut written = ledger.at(key, version, self.server_epoch);
            let known = written
                .find(|written| written.image == sent)
                .map(|written| written.registers.clone());
            ensure(never || known.is_some(), "S11", || {
                format!("{key} at {version} was not stored as the server had it")
            })?;
            let registers = known.unwrap_or_default();
            if change.undeclared {
                let kept = Kept { key: key.clone(), version, registers };
                self.undeclared.insert((entry.header.seq, number), kept);
            } else {
                self.owe(key, change.edited_at);
                self.confirm(key, version, registers);
            }
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

    fn confirm(&mut self, key: &RecordKey, version: Version, registers: Registers) {
        let held = self.records.entry(key.clone()).or_default();
        let is_newer = |known| version > known || known == Version::default();
        if held.version.is_none_or(is_newer) {
            held.version = Some(version);
            held.seen.insert(version);
            held.confirmed = Some(registers);
        }
    }

    /// Records the fields that an op removes without naming them: for a replace those that its
    /// author had read, for a creation those of the record before our deletion.
    fn clear(&self, key: &RecordKey, waiting: &mut Waiting, kind: OpKind) {
        let Some(held) = self.records.get(key) else { return };
        let is_delete = |waiting: &Waiting| {
            !waiting.emptied
                && self.ops.get(&waiting.op).is_some_and(|op| op.kind == OpKind::Delete)
        };
        let deletion = held.tail.last().filter(|last| is_delete(last));
        let earlier = match (kind, deletion) {
            (OpKind::Replace, _) => held.tail.len(),
            (OpKind::Create, Some(_)) => held.tail.len() - 1,
            _ => return,
        };
        let before = held.tail.iter().take(earlier);
        let written = before.clone().filter_map(|held| Some(held.writes(self.ops.get(&held.op)?)));
        let read =
            before.filter_map(|held| held.brings_back.clone()).flatten().map(|(name, _)| name);
        let mut known = held.confirmed.clone().unwrap_or_default();
        // The server sends no stamps of fields that were removed below the floor.
        let floor = known.floor;
        known.fields.retain(|_, (stamp, value)| !value.is_null() || *stamp > floor);
        let names =
            written.flat_map(BTreeMap::into_keys).chain(read).chain(known.fields.into_keys());
        let names: BTreeSet<String> = names.collect();
        let said = self.ops.get(&waiting.op).map(|op| op.fields.clone()).unwrap_or_default();
        waiting.cleared = names.into_iter().filter(|name| !said.contains_key(name)).collect();
        waiting.cleared_at = deletion.filter(|_| kind == OpKind::Create).map(Waiting::stamp);
    }

    fn epoch_started(&self, anchored: Option<Receipt>) -> Result<(), Broken> {
        // The book cannot tell of a trimmed entry whether it was its own.
        let known = |receipt: Receipt| {
            if receipt.seq < self.trimmed {
                return false;
            }
            let place =
                usize::try_from(receipt.seq.number()).ok().and_then(|place| place.checked_sub(1));
            place.and_then(|place| self.hashes.get(place)) == Some(&receipt.hash)
        };
        ensure(anchored.is_some_and(|receipt| !known(receipt)), "X3", || {
            format!("a new epoch began, and {anchored:?} is of this very log")
        })
    }

    /// Checks S18: every waiting op has the form of the app's version, and no record of a known
    /// type is undeclared.
    ///
    /// # Errors
    /// [`Broken`] if an op has another form, or such a record is undeclared.
    pub fn check_forms(&self, version: u32) -> Result<(), Broken> {
        for (key, waiting) in
            self.records.iter().flat_map(|(key, held)| held.tail.iter().map(move |op| (key, op)))
        {
            let unanswered =
                self.units.values().flatten().any(|(_, ops)| ops.contains(&waiting.op));
            let is_delete = self.ops.get(&waiting.op).is_none_or(|op| op.kind == OpKind::Delete);
            ensure(unanswered || is_delete || waiting.form == version, "S18", || {
                format!("an op of {key} is of version {}, and the app of {version}", waiting.form)
            })?;
        }
        let kept =
            self.undeclared.values().map(|kept| &kept.key).find(|key| knows(version, &key.entity));
        ensure(kept.is_none(), "S18", || format!("{kept:?} is known now and undeclared"))
    }

    /// Returns the image that the app must read of a record.
    pub fn visible(&self, key: &RecordKey) -> Option<Image> {
        self.records.get(key)?.visible(|op| self.ops.get(op))
    }

    /// Returns whether an op waits for another user than this one.
    pub fn ops_of_others(&self, user: &str) -> bool {
        let mut waiting = self.records.values().flat_map(|held| &held.tail);
        waiting.any(|held| self.ops.get(&held.op).is_some_and(|op| op.sender != user))
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

fn item_of(entry: &Entry, item: u32) -> Result<Image, Broken> {
    let fields = entry.fields(item).ok().flatten();
    let Some(fields) = fields else {
        return Err(Broken::new("S1", format!("entry {} lacks an item", entry.header.seq)));
    };
    parse(fields.as_str())
}

/// Returns whether an entry says something of the device only, and so precedes another entry of its
/// commit.
const fn is_of_the_device(meta: &Meta) -> bool {
    matches!(meta, Meta::Control(Control::Session(_) | Control::Silence(_)))
}

/// Returns whether an entry may exist although no caller asked for it: the conversion of ops after
/// an upgrade of the app, with its consequences, or the lowering of stamps after the server's time
/// arrived. So may what precedes such an entry.
fn is_upkeep(meta: &Meta) -> bool {
    if is_of_the_device(meta) {
        return true;
    }
    let Meta::Control(Control::Decided(decisions)) = meta else { return false };
    let is_upgrade = |decision: &Decision| {
        matches!(decision, Decision::Upcast { .. } | Decision::Adopted { .. })
    };
    let follows = |decision: &Decision| {
        use Decision::{BroughtBack, Cancelled, Conflicted, Dropped, Parked, Raised, Superseded};
        matches!(
            decision,
            Cancelled(_)
                | BroughtBack { .. }
                | Conflicted(_)
                | Dropped { .. }
                | Parked { .. }
                | Raised { .. }
                | Superseded { .. }
        )
    };
    // An answer lowers stamps in a commit of its own, and may fail after that.
    let lowers = matches!(decisions.as_slice(), [Decision::Restamped { .. }]);
    lowers
        || decisions.iter().any(is_upgrade)
            && decisions.iter().all(|it| is_upgrade(it) || follows(it))
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
