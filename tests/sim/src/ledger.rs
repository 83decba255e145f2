//! The server's work, computed a second time in a plain way, over all epochs of its store: every
//! record at each of its versions, who wrote what, and which units took effect.
//!
//! ```text
//!   period 0  1 2 3 4 5 6          a backup is made at 4
//!   period 1        └─5'6'7'       restored from it: the commits of period 0 after 4 are not there, and their numbers are used again
//! ```
//!
//! Invariants that are checked here:
//! - S7: a unit takes effect at most once in a period and those before it, on exactly the versions
//!   that it was made for.
//! - The rows of the store are the result of the applied units.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook::RecordKey;
use fieldbook::audit::entry::Receipt;
use fieldbook::audit::{DeviceId, Epoch};
use fieldbook::record::{OpId, OpKind, UnitId, Version};
use fieldbook::sync::ServerEpoch;
use fieldbook::sync::protocol::{Change, Unit, UnitChange};
use fieldbook::sync::protocol::{EditStamp, FieldWrites};
use fieldbook_core::authority::{MemoryAuthority, Row};
use serde_json::{Map, Value};

use crate::broken::{Broken, ensure};

/// A record's fields.
pub type Image = Map<String, Value>;
/// A device, and an epoch of its log.
pub type Author = (DeviceId, Epoch);

/// The applied units.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The states of each record at each of its versions, in any period.
    history: BTreeMap<(RecordKey, Version), Vec<Written>>,
    /// The commits of each unit that ever took effect.
    ever: BTreeMap<UnitId, Vec<(usize, Version)>>,
    periods: Vec<Period>,
    /// The ops that took effect in any period.
    landed: BTreeSet<OpId>,
    /// The ops that may take effect through more than one unit. They waited in a book that was
    /// copied, so two devices have them. Or their unit was answered in one period and arrived again
    /// in another.
    pub shared: BTreeSet<OpId>,
    /// The content of the store in its present period.
    pub now: Holdings,
}

/// The content of a backup.
#[derive(Debug, Clone, Default)]
pub struct Holdings {
    /// The present state of each record.
    pub current: BTreeMap<RecordKey, Stored>,
    /// The units that took effect, with the commit.
    pub applied: BTreeMap<UnitId, Version>,
    /// The ops that took effect, with the units they were in.
    pub ops: BTreeMap<OpId, Vec<UnitId>>,
    /// The last head of each log that was claimed.
    pub anchors: BTreeMap<Author, Receipt>,
    last: Version,
    period: usize,
}

/// One period of the store: the time between two restores, whether a new epoch was declared or not.
#[derive(Debug)]
struct Period {
    epoch: ServerEpoch,
    /// The period before, and its last commit that this period has.
    before: Option<(usize, Version)>,
}

/// A record as a unit left it.
#[derive(Debug)]
pub struct Written {
    period: usize,
    /// The unit.
    pub unit: UnitId,
    /// The record's fields; none if the unit deleted the record.
    pub image: Option<Image>,
    /// The record's writes, field by field, with their stamps.
    pub registers: Registers,
}

/// A record at the server.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its version.
    pub version: Version,
    /// Its fields; none if it is deleted.
    pub image: Option<Image>,
    registers: Registers,
    /// For each field, and for the record as a whole under the empty name: the version, the author
    /// and the ops of its last change.
    writers: BTreeMap<String, (Version, Author, Vec<OpId>)>,
}

/// The writes of a record, field by field, with their stamps.
#[derive(Debug, Clone, Default)]
pub struct Registers {
    /// Whether the record exists.
    pub is_there: bool,
    /// The greatest stamp.
    pub stamp: EditStamp,
    /// The stamp of the removal of every other field.
    pub floor: EditStamp,
    /// The fields with their stamps. A null stands for a removed field.
    pub fields: BTreeMap<String, (EditStamp, Value)>,
}

impl Registers {
    /// Returns the readable image.
    pub fn image(&self) -> Option<Image> {
        let members = self.fields.iter().filter(|(_, (_, value))| !value.is_null());
        self.is_there
            .then(|| members.map(|(name, (_, value))| (name.clone(), value.clone())).collect())
    }

    /// Returns the stamp of a field.
    pub fn stamp_of(&self, field: &str) -> EditStamp {
        if !self.is_there {
            return self.stamp;
        }
        self.fields.get(field).map_or(self.floor, |(stamp, _)| *stamp)
    }

    /// Returns whether all writes of a change are present, with exactly its stamps.
    fn have(&self, change: &UnitChange, fields: Option<&Image>) -> bool {
        match fields {
            None => !self.is_there && self.stamp == change.stamp(),
            Some(fields) => {
                let is_there = |name: &String| self.stamp_of(name) == change.stamp_of(name);
                self.is_there
                    && fields.keys().all(is_there)
                    && (!fields.is_empty() || self.stamp == change.stamp())
            }
        }
    }

    /// Returns whether a row of the store has these stamps.
    fn are_told_by(&self, key: &RecordKey, row: &Row) -> bool {
        let told = row.clone().into_change(key.clone());
        let fields = self
            .fields
            .keys()
            .all(|name| told.stamp_of(name) == self.stamp_of(name).max(self.floor_of(name)));
        told.stamp() == self.stamp && (told.deleted || fields)
    }

    /// Returns the floor, if a field was removed below it: the field counts as removed at the
    /// floor.
    fn floor_of(&self, name: &str) -> EditStamp {
        let is_null = self.fields.get(name).is_some_and(|(_, value)| value.is_null());
        if is_null { self.floor } else { EditStamp::NEVER }
    }
}

/// An edit of one device that replaced or removed another device's value.
#[derive(Debug, Clone)]
pub struct Overwrite {
    /// The record.
    pub key: RecordKey,
    /// The field; empty for the existence of the record.
    pub field: String,
    /// The other device's value; none if it had removed the field, or deleted the record.
    pub value: Option<Value>,
    /// The version that brought the value.
    pub since: Version,
    /// The ops that brought the value.
    pub by: Vec<OpId>,
    /// The ops of the edit.
    pub ops: Vec<OpId>,
}

impl Ledger {
    /// Begins with an empty store.
    pub fn new(epoch: ServerEpoch) -> Self {
        let periods = vec![Period { epoch, before: None }];
        Self {
            history: BTreeMap::new(),
            ever: BTreeMap::new(),
            periods,
            landed: BTreeSet::new(),
            shared: BTreeSet::new(),
            now: Holdings::default(),
        }
    }

    /// Records the result of a unit, and returns the values of others that it replaced.
    ///
    /// # Errors
    /// [`Broken`] if the unit must not have been applied, or these are not the resulting versions
    /// of its records.
    pub fn apply(
        &mut self,
        unit: &Unit,
        versions: &BTreeMap<RecordKey, Version>,
        author: Author,
    ) -> Result<Vec<Overwrite>, Broken> {
        let last = self.now.last;
        let (mut overwrites, mut commit) = (Vec::new(), None);
        for change in &unit.changes {
            let known = self.now.current.get(&change.key);
            let base = change.base.filter(|base| *base > Version::default());
            ensure(known.map(|stored| stored.version) == base, "S14", || {
                format!("{} was applied on another version than it was made for", change.key)
            })?;
            let fields = change.fields.as_ref().map(|json| parse(json.as_str())).transpose()?;
            let version = versions.get(&change.key).copied().unwrap_or_default();
            self.landed.extend(&change.ops);
            let Some(registers) =
                joined(known.map(|stored| &stored.registers), change, fields.as_ref())
            else {
                ensure(known.is_some_and(|stored| stored.version == version), "S7", || {
                    format!("{} did not change and got version {version}", change.key)
                })?;
                continue;
            };
            ensure(version > last && commit.is_none_or(|commit| commit == version), "S7", || {
                format!("commit {version} does not come after {last}")
            })?;
            commit = Some(version);
            overwrites.extend(self.write(unit.id, change, registers, version, author));
        }
        self.now.last = commit.unwrap_or(last);
        self.record_outcome(unit.id, commit, versions)?;
        Ok(overwrites)
    }

    fn write(
        &mut self,
        unit: UnitId,
        change: &UnitChange,
        registers: Registers,
        version: Version,
        author: Author,
    ) -> Vec<Overwrite> {
        let known = self.now.current.remove(&change.key);
        let old = known.as_ref().and_then(|stored| stored.image.clone());
        let image = registers.image();
        // If somebody writes the same value again, it counts as overwritten: the new stamp belongs
        // to the second author.
        let stamps = known.as_ref().map(|stored| stored.registers.clone()).unwrap_or_default();
        let mut writers = known.map(|stored| stored.writers).unwrap_or_default();
        let news = differing(old.as_ref(), image.as_ref());
        if !news.is_empty() {
            // Ops that a delete absorbs have no effect of their own.
            let most = if change.kind == OpKind::Delete { 1 } else { usize::MAX };
            for op in change.ops.iter().rev().take(most) {
                self.now.ops.entry(*op).or_default().push(unit);
            }
        }
        let mut overwrites = Vec::new();
        for field in news {
            let written = (version, author, change.ops.clone());
            if let Some((since, writer, mut by)) = writers.insert(field.clone(), written)
                && writer != author
            {
                by.push(stamps.stamp_of(&field).op);
                let (key, ops) = (change.key.clone(), change.ops.clone());
                let value = old.as_ref().and_then(|old| match field.as_str() {
                    "" => Some(Value::Bool(true)),
                    name => old.get(name).cloned(),
                });
                overwrites.push(Overwrite { key, field, value, since, by, ops });
            }
        }
        if image.is_none() {
            // A deletion removes each field, also one that was removed before.
            writers.values_mut().for_each(|last| *last = (version, author, change.ops.clone()));
        }
        let written = Written {
            period: self.now.period,
            unit,
            image: image.clone(),
            registers: registers.clone(),
        };
        self.history.entry((change.key.clone(), version)).or_default().push(written);
        self.now.current.insert(change.key.clone(), Stored { version, image, registers, writers });
        overwrites
    }

    /// Records that a unit was accepted, with or without a commit.
    fn record_outcome(
        &mut self,
        unit: UnitId,
        commit: Option<Version>,
        versions: &BTreeMap<RecordKey, Version>,
    ) -> Result<(), Broken> {
        let before = self.now.applied.insert(unit, commit.unwrap_or_default());
        ensure(before.is_none(), "S7", || format!("unit {unit} took effect twice"))?;
        let first = versions.values().min().copied().unwrap_or_default();
        self.ever.entry(unit).or_default().push((self.now.period, first));
        Ok(())
    }

    /// Records a duplicate.
    ///
    /// # Errors
    /// [`Broken`] if the unit was not accepted before and is not fully present, or the answer
    /// leaves out others' later changes of its records.
    pub fn duplicate(
        &mut self,
        unit: &Unit,
        versions: &BTreeMap<RecordKey, Version>,
        current: &[Change],
    ) -> Result<(), Broken> {
        let first = self.now.applied.get(&unit.id).copied();
        if first.is_none() {
            for change in &unit.changes {
                let stored = self.now.current.get(&change.key);
                let names = change.fields.as_ref().map(|json| parse(json.as_str())).transpose()?;
                let is_there =
                    stored.is_some_and(|stored| stored.registers.have(change, names.as_ref()));
                ensure(is_there, "S7", || format!("{} of {} is not there", change.key, unit.id))?;
            }
            self.record_outcome(unit.id, None, versions)?;
        }
        for (key, version) in versions {
            let present = self.now.current.get(key).map(|stored| stored.version);
            let is_shown =
                current.iter().any(|shown| shown.key == *key && Some(shown.version) == present);
            let is_own = first.is_some_and(|first| first == *version);
            ensure(is_own || present == Some(*version), "S7", || {
                format!("a duplicate of {} got another answer than the first", unit.id)
            })?;
            ensure(is_shown || present == first, "S7", || {
                format!("a duplicate of {} does not show what {key} is now", unit.id)
            })?;
        }
        Ok(())
    }

    /// Compares with the rows of the store.
    ///
    /// # Errors
    /// [`Broken`] if the rows differ.
    pub fn compare(&self, authority: &MemoryAuthority) -> Result<(), Broken> {
        let mut rows = 0;
        for (key, row) in authority.records() {
            rows += 1;
            let stored = self.now.current.get(key);
            let fields = row.fields.as_ref().map(|fields| parse(fields.as_str())).transpose()?;
            ensure(
                stored
                    .is_some_and(|stored| stored.version == row.version && stored.image == fields),
                "server",
                || format!("{key} is not what the units that were applied come to"),
            )?;
            let stamps = stored.is_some_and(|stored| stored.registers.are_told_by(key, row));
            ensure(stamps, "server", || {
                format!("{key} has other stamps than the units that were applied")
            })?;
        }
        ensure(rows == self.now.current.len(), "server", || {
            "the server has other records".to_owned()
        })
    }

    /// Begins another period of the store with the content of a backup.
    pub fn restore(&mut self, backup: Holdings, epoch: ServerEpoch) {
        self.periods.push(Period { epoch, before: Some((backup.period, backup.last)) });
        self.now = Holdings { period: self.periods.len() - 1, ..backup };
    }

    /// Returns the epoch that the store names.
    pub fn epoch(&self) -> Option<ServerEpoch> {
        self.periods.get(self.now.period).map(|period| period.epoch)
    }

    /// Returns the number of the store's present period.
    pub const fn period(&self) -> usize {
        self.now.period
    }

    /// Returns whether several periods of the store have the same epoch.
    pub fn is_ambiguous(&self, epoch: Option<ServerEpoch>) -> bool {
        self.periods.iter().filter(|period| Some(period.epoch) == epoch).count() > 1
    }

    /// Returns whether a commit of a period exists in some period with this epoch.
    fn is_seen(&self, period: usize, version: Version, epoch: Option<ServerEpoch>) -> bool {
        let periods = (0..)
            .zip(&self.periods)
            .filter(|(_, period)| epoch.is_none_or(|epoch| period.epoch == epoch));
        periods.into_iter().any(|(seen, _)| self.descends(seen, period, version))
    }

    fn descends(&self, mut from: usize, to: usize, version: Version) -> bool {
        while from != to {
            match self.periods.get(from).and_then(|period| period.before) {
                Some((before, cut)) if version <= cut => from = before,
                _ => return false,
            }
        }
        true
    }

    /// Returns a record at a version in periods with an epoch, or in any; none if it never had that
    /// version.
    pub fn at<'a>(
        &'a self,
        key: &RecordKey,
        version: Version,
        epoch: Option<ServerEpoch>,
    ) -> impl Iterator<Item = &'a Written> + use<'a> {
        let written = self.history.get(&(key.clone(), version)).into_iter().flatten();
        written.filter(move |written| self.is_seen(written.period, version, epoch))
    }

    /// Returns a record before a version of the present period: at one of these versions, or as one
    /// of these units left it.
    pub fn known_before<'a>(
        &'a self,
        key: &RecordKey,
        since: Version,
        versions: &'a BTreeSet<Version>,
        units: &'a BTreeSet<UnitId>,
    ) -> impl Iterator<Item = Option<&'a Image>> {
        let before = move |version, written: &Written| {
            version < since || !self.is_seen(written.period, version, self.epoch())
        };
        self.written_from(key, Version::default())
            .filter(move |(version, it)| versions.contains(version) || units.contains(&it.unit))
            .filter(move |(version, written)| before(*version, written))
            .map(|(_, written)| written.image.as_ref())
    }

    /// Returns whether one of these units deleted a record after a version.
    pub fn was_deleted_by(
        &self,
        units: &BTreeSet<UnitId>,
        key: &RecordKey,
        after: Version,
    ) -> bool {
        let mut written = self.written_from(key, after);
        written.any(|(_, written)| written.image.is_none() && units.contains(&written.unit))
    }

    /// Returns the states of a record from a version on, in any period.
    fn written_from<'a>(
        &'a self,
        key: &RecordKey,
        first: Version,
    ) -> impl Iterator<Item = (Version, &'a Written)> + use<'a> {
        let range = (key.clone(), first)..=(key.clone(), Version::new(u64::MAX));
        let history = self.history.range(range);
        history.flat_map(|((_, version), written)| {
            written.iter().map(move |written| (*version, written))
        })
    }

    /// Returns a record at a version made by a unit; made by another unit if this unit never made
    /// that version.
    pub fn by_unit(
        &self,
        unit: &UnitId,
        key: &RecordKey,
        version: Version,
        epoch: Option<ServerEpoch>,
    ) -> Option<&Written> {
        let by_it = self.at(key, version, epoch).find(|written| written.unit == *unit);
        by_it.or_else(|| self.at(key, version, epoch).last())
    }

    /// Returns whether an op took effect in any period.
    pub fn has_landed(&self, op: &OpId) -> bool {
        self.landed.contains(op)
    }

    /// Returns the commits by which a unit took effect, in periods that go by an epoch.
    pub fn effects(
        &self,
        unit: &UnitId,
        epoch: Option<ServerEpoch>,
    ) -> impl Iterator<Item = Version> {
        let effects = self.ever.get(unit).into_iter().flatten();
        effects
            .filter(move |(period, version)| self.is_seen(*period, *version, epoch))
            .map(|(_, version)| *version)
    }
}

/// Joins a change in the plain way; none if nothing of it remains.
fn joined(
    known: Option<&Registers>,
    change: &UnitChange,
    fields: Option<&Image>,
) -> Option<Registers> {
    let greatest = change.older.iter().map(FieldWrites::stamp).fold(change.stamp(), EditStamp::max);
    let nothing = || Registers {
        is_there: true,
        stamp: change.stamp(),
        floor: EditStamp::NEVER,
        fields: BTreeMap::new(),
    };
    let Some(fields) = fields else {
        let stands = known.is_none_or(|known| change.stamp() > known.stamp);
        return stands.then(|| Registers { is_there: false, ..nothing() });
    };
    let written =
        fields.iter().map(|(name, value)| (name.clone(), (change.stamp_of(name), value.clone())));
    let mut written: BTreeMap<_, _> = written.collect();
    let mut after = match known {
        None => Registers { stamp: greatest, fields: written, ..nothing() },
        Some(known) if !known.is_there && greatest <= known.stamp => return None,
        Some(known) if !known.is_there => {
            Registers { stamp: greatest, floor: known.stamp, fields: written, ..nothing() }
        }
        Some(known) => {
            if change.kind == OpKind::Replace {
                for name in known.fields.keys().filter(|name| !fields.contains_key(*name)) {
                    written.insert(name.clone(), (change.stamp_of(name), Value::Null));
                }
            }
            written.retain(|name, (stamp, _)| *stamp > known.stamp_of(name));
            if written.is_empty() {
                return None;
            }
            let mut after = known.clone();
            after.fields.extend(written);
            after
        }
    };
    after.stamp = after.fields.values().map(|(stamp, _)| *stamp).fold(after.stamp, EditStamp::max);
    Some(after)
}

/// Applies a change in the plain way.
pub fn changed(image: Option<Image>, kind: OpKind, fields: &Image) -> Option<Image> {
    let mut after = match kind {
        OpKind::Delete => return None,
        OpKind::Create | OpKind::Replace => Image::new(),
        OpKind::Update => image.unwrap_or_default(),
    };
    for (name, value) in fields {
        if value.is_null() {
            after.remove(name);
        } else {
            after.insert(name.clone(), value.clone());
        }
    }
    Some(after)
}

/// Returns the fields in which two images differ; the empty name stands for the existence of the
/// record.
fn differing(before: Option<&Image>, after: Option<&Image>) -> Vec<String> {
    let nothing = Image::new();
    let (old, new) = (before.unwrap_or(&nothing), after.unwrap_or(&nothing));
    let mut names: Vec<String> = old.keys().chain(new.keys()).cloned().collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| old.get(name) != new.get(name));
    if before.is_some() != after.is_some() {
        names.push(String::new());
    }
    names
}

/// Reads fields.
///
/// # Errors
/// [`Broken`] if the text is not a JSON object.
pub fn parse(json: &str) -> Result<Image, Broken> {
    serde_json::from_str(json)
        .map_err(|error| Broken::new("S11", format!("fields do not read: {error}")))
}
