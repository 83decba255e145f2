//! The names that take the place of those that a bundle does not tell.
//!
//! Invariants:
//! 1. The same name has the same pseudonym throughout a bundle, and another one in the next bundle:
//!    it is random, and no hash of the name.
//! 2. An id that a whole entry has is the same in all told entries, so that they fit each other.

use std::collections::{BTreeMap, HashMap, HashSet};

use data_encoding::HEXLOWER;

use super::names::Names;
use crate::entry::{NOT_IN_BUNDLE, SignedNote};
use crate::ids::{DeviceId, Epoch, OpId, RequestId, TenantId, UnitId};
use crate::names::{Actor, RecordId, RecordKey};
use crate::numbers::{Cursor, Hash};
use crate::random::Randomness;

/// Names and ids that are told as they are.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) records: HashSet<RecordKey>,
    pub(super) ops: HashSet<OpId>,
    pub(super) units: HashSet<UnitId>,
}

/// The pseudonyms of a bundle.
#[derive(Debug, Default)]
pub(super) struct Pseudonyms {
    pub(super) kept: Kept,
    /// Whether actors, the device and its epochs have pseudonyms too.
    pub(super) hides_all: bool,
    pub(super) records: BTreeMap<RecordKey, RecordKey>,
    pub(super) actors: BTreeMap<Actor, Actor>,
    ids: HashMap<[u8; 16], [u8; 16]>,
    used: HashSet<String>,
}

impl Pseudonyms {
    pub(super) fn new(hides_all: bool) -> Self {
        Self { hides_all, ..Self::default() }
    }
}

/// The pseudonyms with the randomness that makes new ones.
pub(super) struct Drawing<'p, 'r> {
    pub(super) all: &'p mut Pseudonyms,
    pub(super) random: &'r mut dyn Randomness,
}

impl Drawing<'_, '_> {
    /// Returns a new pseudonym: `~` and eight random hexadecimal digits.
    fn text(&mut self) -> String {
        loop {
            let mut bytes = [0; 4];
            self.random.fill(&mut bytes);
            let text = format!("~{}", HEXLOWER.encode(&bytes));
            if self.all.used.insert(text.clone()) {
                return text;
            }
        }
    }

    fn id(&mut self, id: [u8; 16]) -> [u8; 16] {
        *self.all.ids.entry(id).or_insert_with(|| {
            let mut other = [0; 16];
            self.random.fill(&mut other);
            other
        })
    }

    fn id_of_all(&mut self, id: [u8; 16]) -> [u8; 16] {
        if self.all.hides_all { self.id(id) } else { id }
    }
}

impl Names for Drawing<'_, '_> {
    fn record(&mut self, key: &RecordKey) -> RecordKey {
        if self.all.kept.records.contains(key) {
            return key.clone();
        }
        if let Some(known) = self.all.records.get(key) {
            return known.clone();
        }
        // Nine ASCII characters are always an id.
        let id = RecordId::parse(&self.text()).unwrap_or_else(|_| key.id.clone());
        let pseudonym = RecordKey::new(key.entity.clone(), id);
        self.all.records.insert(key.clone(), pseudonym.clone());
        pseudonym
    }

    fn actor(&mut self, actor: &Actor) -> Actor {
        if !self.all.hides_all {
            return actor.clone();
        }
        if let Some(known) = self.all.actors.get(actor) {
            return known.clone();
        }
        let pseudonym = Actor::parse(&self.text()).unwrap_or_else(|_| actor.clone());
        self.all.actors.insert(actor.clone(), pseudonym.clone());
        pseudonym
    }

    fn op(&mut self, id: OpId) -> OpId {
        if self.all.kept.ops.contains(&id) { id } else { OpId::from_bytes(self.id(*id.as_bytes())) }
    }

    fn unit(&mut self, id: UnitId) -> UnitId {
        if self.all.kept.units.contains(&id) {
            return id;
        }
        UnitId::from_bytes(self.id(*id.as_bytes()))
    }

    fn request(&mut self, id: RequestId) -> RequestId {
        RequestId::from_bytes(self.id(*id.as_bytes()))
    }

    fn device(&mut self, id: DeviceId) -> DeviceId {
        DeviceId::from_bytes(self.id_of_all(*id.as_bytes()))
    }

    fn epoch(&mut self, id: Epoch) -> Epoch {
        Epoch::from_bytes(self.id_of_all(*id.as_bytes()))
    }

    fn tenant(&mut self, id: TenantId) -> TenantId {
        TenantId::from_bytes(self.id_of_all(*id.as_bytes()))
    }

    fn digest(&mut self, _: Hash) -> Hash {
        Hash::ZERO
    }

    fn cursor(&mut self, _: &Cursor) -> Cursor {
        Cursor::default()
    }

    fn foreign(&mut self, _: &str) -> String {
        NOT_IN_BUNDLE.to_owned()
    }

    fn note(&mut self, note: &SignedNote) -> SignedNote {
        if !self.all.hides_all {
            return note.clone();
        }
        SignedNote { note: NOT_IN_BUNDLE.to_owned(), keys: Vec::new() }
    }
}
