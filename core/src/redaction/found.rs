//! Which names an entry has.

use super::names::{Names, header, meta};
use crate::entry::{Entry, SignedNote};
use crate::ids::{DeviceId, Epoch, OpId, RequestId, TenantId, UnitId};
use crate::names::{Actor, RecordKey};
use crate::numbers::{Cursor, Hash};

/// The names of an entry, each as often as it stands there.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) records: Vec<RecordKey>,
    pub(super) actors: Vec<Actor>,
    pub(super) ops: Vec<OpId>,
    pub(super) units: Vec<UnitId>,
}

impl Found {
    /// Finds the names of an entry.
    pub(super) fn of(entry: &Entry) -> Self {
        let mut found = Self::default();
        header(&entry.header, &mut found);
        meta(&entry.meta, &mut found);
        found
    }
}

impl Names for Found {
    fn record(&mut self, key: &RecordKey) -> RecordKey {
        self.records.push(key.clone());
        key.clone()
    }

    fn actor(&mut self, actor: &Actor) -> Actor {
        self.actors.push(actor.clone());
        actor.clone()
    }

    fn op(&mut self, id: OpId) -> OpId {
        self.ops.push(id);
        id
    }

    fn unit(&mut self, id: UnitId) -> UnitId {
        self.units.push(id);
        id
    }

    fn request(&mut self, id: RequestId) -> RequestId {
        id
    }

    fn device(&mut self, id: DeviceId) -> DeviceId {
        id
    }

    fn epoch(&mut self, id: Epoch) -> Epoch {
        id
    }

    fn tenant(&mut self, id: TenantId) -> TenantId {
        id
    }

    fn digest(&mut self, digest: Hash) -> Hash {
        digest
    }

    fn cursor(&mut self, cursor: &Cursor) -> Cursor {
        cursor.clone()
    }

    fn foreign(&mut self, text: &str) -> String {
        text.to_owned()
    }

    fn note(&mut self, note: &SignedNote) -> SignedNote {
        note.clone()
    }
}
