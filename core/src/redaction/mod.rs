//! What a bundle for support has of each entry: the rules, without any file.
//!
//! ```text
//!   every entry ─► Redactor::learn     names, units, declarations
//!   every entry ─► Redactor::settle    which entries are whole, and which ids they have
//!   every entry ─► Redactor::redact    the entry as the bundle has it
//! ```
//!
//! An entry whose names all may leave is *whole*: its meta part as it is, its items hidden, and its
//! hash proves it. Any other entry is *told*: a copy with pseudonyms, beside the hash of its
//! content. The hash proves its place, and nothing proves what is told.
//!
//! Invariants:
//! 1. Only what was asked for leaves. An item that `contents` does not list is hidden.
//! 2. An item leaves whole only if all its fields are to be shown: the commitment is over all of
//!    them. Otherwise the fields to be shown are told.
//! 3. A reference is told if the record that it names is named in the log anyway. Without that
//!    nobody could say what a change waits for.

mod contents;
mod found;
mod names;
mod pseudonyms;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::str::FromStr;

use self::contents::{Content, contents};
use self::found::Found;
use self::names::Names;
use self::pseudonyms::{Drawing, Pseudonyms};
use crate::codec;
use crate::entry::frame::{self, Frame, Keeps};
use crate::entry::{Control, Entry, EntryError, Item, Meta};
use crate::fields::{Fields, FieldsJson};
use crate::ids::{OpId, UnitId};
use crate::names::{Actor, EntityType, RecordId, RecordKey};
use crate::numbers::{Hash, Seq};
use crate::random::Randomness;
use crate::schema::{Declared, Schema};

/// Fields that a bundle shows: `lead.stage`, or `lead.*` for all fields of an entity type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shown {
    /// The entity type.
    pub entity: EntityType,
    /// The field; none for all fields.
    pub field: Option<String>,
}

/// Text that names no fields to show.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected TYPE.FIELD, such as lead.stage, or TYPE.* for all fields of a type")]
pub struct InvalidShown;

impl FromStr for Shown {
    type Err = InvalidShown;

    fn from_str(text: &str) -> Result<Self, InvalidShown> {
        let (entity, field) = text.split_once('.').ok_or(InvalidShown)?;
        let entity = EntityType::parse(entity).map_err(|_| InvalidShown)?;
        match field {
            "" => Err(InvalidShown),
            "*" => Ok(Self { entity, field: None }),
            field => Ok(Self { entity, field: Some(field.to_owned()) }),
        }
    }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.entity, self.field.as_deref().unwrap_or("*"))
    }
}

/// What a bundle is to have. The default hides every value and no name.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Everything leaves as it is.
    pub whole: bool,
    /// The fields that are shown.
    pub shown: BTreeSet<Shown>,
    /// The records that it is about. All others have pseudonyms, except those that share an entry
    /// with one of these. Empty for all records.
    pub records: BTreeSet<RecordKey>,
    /// It is about what was recorded after this entry.
    pub since: Seq,
    /// No record, no actor and no id of the device leaves.
    pub hides_ids: bool,
}

impl Wanted {
    /// Returns whether some names get pseudonyms.
    fn has_pseudonyms(&self) -> bool {
        !self.whole && (self.hides_ids || !self.records.is_empty() || self.since > Seq::ZERO)
    }

    fn shows(&self, entity: &EntityType, field: &str) -> bool {
        self.shown.iter().any(|shown| {
            shown.entity == *entity && shown.field.as_deref().is_none_or(|named| named == field)
        })
    }
}

/// How much a bundle has, and how much it leaves out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// All entries.
    pub entries: u64,
    /// The entries of which the bundle only tells.
    pub told_entries: u64,
    /// The items with values of records that are left out.
    pub hidden_values: u64,
    /// The items with text that are left out: messages, reasons, rows that were set aside.
    pub hidden_texts: u64,
    /// The items with values of records that leave whole, because all their fields are shown.
    pub shown_values: u64,
    /// The items with declarations of the app, which leave whole.
    pub declarations: u64,
    /// The fields that are told of hidden values because they are to be shown.
    pub told_fields: u64,
    /// The references that are told of hidden values.
    pub told_references: u64,
    /// The items that were erased before.
    pub erased: u64,
    /// The hashes of what units sent, which whole entries have. Whoever guesses all values of a
    /// unit can check the guess.
    pub digests: u64,
}

/// Makes the entries of a bundle.
#[derive(Debug, Default)]
pub struct Redactor {
    wanted: Wanted,
    schema: Schema,
    /// The records that the log names.
    known: HashSet<RecordKey>,
    actors: BTreeSet<Actor>,
    units: HashMap<UnitId, BTreeSet<RecordKey>>,
    ops: HashMap<OpId, RecordKey>,
    pseudonyms: Pseudonyms,
    counts: Counts,
}

impl Redactor {
    /// Begins before the first entry.
    pub fn new(wanted: Wanted) -> Self {
        let pseudonyms = Pseudonyms::new(wanted.hides_ids && !wanted.whole);
        Self { wanted, pseudonyms, ..Self::default() }
    }

    /// Returns what the bundle is to have.
    pub const fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Learns what the next entry names.
    pub fn learn(&mut self, entry: &Entry) {
        self.learn_declarations(entry);
        let found = Found::of(entry);
        self.known.extend(found.records.iter().cloned());
        self.actors.extend(found.actors.iter().cloned());
        if !self.wanted.has_pseudonyms() || self.wanted.hides_ids {
            return;
        }
        match &entry.meta {
            Meta::Intent(intent) => {
                self.ops.extend(intent.ops.iter().map(|op| (op.id, op.key.clone())));
            }
            Meta::Control(Control::Planned(planned)) => {
                for unit in &planned.units {
                    let keys = unit.changes.iter().map(|change| change.key.clone());
                    self.units.insert(unit.id, keys.collect());
                }
            }
            _ => {}
        }
        let named = self.named(&found);
        let is_about =
            |key: &RecordKey| self.wanted.records.is_empty() || self.wanted.records.contains(key);
        if entry.header.seq > self.wanted.since && named.iter().any(is_about) {
            let targets = self.targets(entry, &named);
            self.pseudonyms.kept.records.extend(named);
            self.pseudonyms.kept.records.extend(targets);
        }
    }

    fn learn_declarations(&mut self, entry: &Entry) {
        if let Meta::Control(Control::Session(session)) = &entry.meta
            && let Some(bytes) = session.schema.and_then(|item| entry.item(item))
            && let Ok(declared) = Declared::read(bytes)
        {
            self.schema = declared.schema();
        }
    }

    /// Returns the records that an entry is about, those of its units and ops among them.
    fn named(&self, found: &Found) -> BTreeSet<RecordKey> {
        let of_units = found.units.iter().filter_map(|unit| self.units.get(unit)).flatten();
        let of_ops = found.ops.iter().filter_map(|op| self.ops.get(op));
        found.records.iter().chain(of_units).chain(of_ops).cloned().collect()
    }

    /// Returns the records that asked-for records refer to in an entry.
    fn targets(&self, entry: &Entry, named: &BTreeSet<RecordKey>) -> Vec<RecordKey> {
        let mut targets = Vec::new();
        for (item, content) in contents(entry) {
            let Content::Values(key) = content else { continue };
            if !named.contains(key) {
                continue;
            }
            let Ok(Some(fields)) = entry.fields(item) else { continue };
            let Ok(fields) = fields.to_fields() else { continue };
            targets.extend(self.declared_references(key, &fields).map(|(_, target)| target));
        }
        targets
    }

    /// Learns which entries are whole, once all entries were learned.
    pub fn settle(&mut self, entry: &Entry) {
        if !self.wanted.has_pseudonyms() || self.wanted.hides_ids {
            return;
        }
        let found = Found::of(entry);
        if self.is_whole(&found) {
            self.pseudonyms.kept.ops.extend(found.ops);
            self.pseudonyms.kept.units.extend(found.units);
        }
    }

    fn is_whole(&self, found: &Found) -> bool {
        !self.wanted.has_pseudonyms()
            || (!self.wanted.hides_ids
                && self.named(found).iter().all(|key| self.pseudonyms.kept.records.contains(key)))
    }

    /// Returns the stored form of an entry in the bundle.
    ///
    /// # Errors
    /// [`EntryError`] if the entry does not read, or what is told of it would be too large.
    pub fn redact(
        &mut self,
        stored: &[u8],
        random: &mut dyn Randomness,
    ) -> Result<Vec<u8>, EntryError> {
        let entry = Entry::decode(stored)?;
        self.counts.entries += 1;
        if self.wanted.whole {
            return Ok(stored.to_vec());
        }
        if self.is_whole(&Found::of(&entry)) {
            if let Meta::Control(Control::Planned(planned)) = &entry.meta {
                self.counts.digests += planned.units.len() as u64;
            }
            let contents = contents(&entry);
            let frame = Frame::parse(stored)?;
            return Ok(frame.hiding(|index| {
                let item = usize::try_from(index).ok().and_then(|index| entry.items.get(index));
                let bytes = item.and_then(Item::bytes).unwrap_or_default();
                self.keeps(contents.get(&index), bytes, true, random)
            }));
        }
        self.tell(&entry, random)
    }

    /// Returns an entry as it is told.
    fn tell(&mut self, entry: &Entry, random: &mut dyn Randomness) -> Result<Vec<u8>, EntryError> {
        self.counts.told_entries += 1;
        let contents = contents(entry);
        let items: Vec<_> = (0..)
            .zip(&entry.items)
            .map(|(index, item)| self.told_item(contents.get(&index), item, random))
            .collect();
        let mut drawing = Drawing { all: &mut self.pseudonyms, random };
        let header = names::header(&entry.header, &mut drawing);
        let meta = names::meta(&entry.meta, &mut drawing);
        let write = |bytes: &mut Vec<u8>| codec::encode_onto(bytes, &meta);
        let hashes = (entry.joint.as_ref(), &entry.hash);
        frame::told(&header, write, &items, &entry.content, hashes)
    }

    /// Returns an item of a told entry. The commitment does not leave: with it, a guess at what is
    /// not told could be checked against the hash of the content.
    fn told_item(
        &mut self,
        content: Option<&Content<'_>>,
        item: &Item,
        random: &mut dyn Randomness,
    ) -> Item {
        let Some(bytes) = item.bytes() else {
            self.counts.erased += 1;
            return Item::Erased { commitment: Hash::ZERO };
        };
        match self.keeps(content, bytes, false, random) {
            Keeps::All => item.clone(),
            Keeps::Told(told) => Item::Hidden { commitment: Hash::ZERO, told },
            Keeps::Nothing => Item::Hidden { commitment: Hash::ZERO, told: Vec::new() },
        }
    }

    /// Returns what leaves of an item.
    fn keeps(
        &mut self,
        content: Option<&Content<'_>>,
        bytes: &[u8],
        may_be_whole: bool,
        random: &mut dyn Randomness,
    ) -> Keeps {
        match content {
            Some(Content::Declarations) => {
                self.counts.declarations += 1;
                Keeps::All
            }
            Some(Content::Values(key)) => self.keeps_of(key, bytes, may_be_whole, random),
            Some(Content::Text) | None => {
                self.counts.hidden_texts += 1;
                Keeps::Told(Vec::new())
            }
        }
    }

    fn keeps_of(
        &mut self,
        key: &RecordKey,
        bytes: &[u8],
        may_be_whole: bool,
        random: &mut dyn Randomness,
    ) -> Keeps {
        let read = FieldsJson::from_stored(bytes).and_then(|fields| fields.to_fields());
        let fields = read.unwrap_or_default();
        let shown = fields.filtered(|field| self.wanted.shows(&key.entity, field));
        if may_be_whole && !fields.is_empty() && shown.len() == fields.len() {
            self.counts.shown_values += 1;
            return Keeps::All;
        }
        self.counts.hidden_values += 1;
        self.counts.told_fields += shown.len() as u64;
        let mut told = shown;
        for (field, target) in self.references(key, &fields) {
            let name = Drawing { all: &mut self.pseudonyms, random }
                .told_record(&target, self.wanted.has_pseudonyms());
            self.counts.told_references += u64::from(!told.has(&field));
            told.set(field, name.id.as_str());
        }
        let told = if told.is_empty() { Vec::new() } else { told.to_json().as_bytes().to_vec() };
        Keeps::Told(told)
    }

    /// Returns the declared references among fields, with the records that they name, as far as the
    /// log names these too.
    fn references(&self, key: &RecordKey, fields: &Fields) -> Vec<(String, RecordKey)> {
        let found = self.declared_references(key, fields);
        found.filter(|(_, target)| self.known.contains(target)).collect()
    }

    fn declared_references(
        &self,
        key: &RecordKey,
        fields: &Fields,
    ) -> impl Iterator<Item = (String, RecordKey)> {
        let declared = self.schema.rules(&key.entity).map_or(&[][..], |rules| &rules.references);
        declared.iter().filter_map(|reference| {
            let id = fields.get(&reference.field)?.as_str()?;
            let id = RecordId::parse(id).ok()?;
            let target = RecordKey::new(reference.entity.clone(), id);
            Some((reference.field.clone(), target))
        })
    }

    /// Returns how much the bundle has, once all entries were redacted.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Returns the records that the log names and that leave under their names, in order.
    pub fn named_records(&self) -> BTreeSet<&RecordKey> {
        let hides = self.wanted.has_pseudonyms();
        let is_named = |key: &&RecordKey| !hides || self.pseudonyms.kept.records.contains(*key);
        self.known.iter().filter(is_named).collect()
    }

    /// Returns the entity types that the log names. They leave.
    pub fn entity_types(&self) -> BTreeSet<&EntityType> {
        self.known.iter().map(|key| &key.entity).collect()
    }

    /// Returns the actors that leave under their names.
    pub fn named_actors(&self) -> Vec<&Actor> {
        self.actors.iter().filter(|_| !self.pseudonyms.hides_all).collect()
    }

    /// Returns the pseudonyms of records.
    pub const fn records(&self) -> &BTreeMap<RecordKey, RecordKey> {
        &self.pseudonyms.records
    }

    /// Returns the pseudonyms of actors.
    pub const fn pseudonymous_actors(&self) -> &BTreeMap<Actor, Actor> {
        &self.pseudonyms.actors
    }
}

impl Drawing<'_, '_> {
    fn told_record(&mut self, key: &RecordKey, has_pseudonyms: bool) -> RecordKey {
        if has_pseudonyms { self.record(key) } else { key.clone() }
    }
}
