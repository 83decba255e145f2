//! The devices of a store, as its operator sees them: from the heads of their logs, and from who
//! claimed the newest of them and when.
//!
//! Invariants:
//! 1. Nothing is written for this but a row beside each new head, in the commit of that head. An
//!    exchange that anchors no new head is not seen here.
//! 2. The row of a device has nothing that its requests did not name.

use std::collections::BTreeMap;

use fieldbook_core::entry::Receipt;
use fieldbook_core::{Actor, DeviceId, Epoch, Seq, WallTime};
use redb::{ReadableDatabase, ReadableTable};

use super::state::if_there;
use super::{Damaged, StateError, Store, tables};

/// A device that is known to a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownDevice {
    /// The tenant.
    pub tenant: String,
    /// The device.
    pub device: DeviceId,
    /// The epochs of its logs, the one that was seen last at the end. A device with more than one
    /// was restored from a copy, or two copies of its book are used.
    pub logs: Vec<KnownLog>,
}

/// One epoch of a device's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownLog {
    /// The epoch.
    pub epoch: Epoch,
    /// The first entry of which the store has the head.
    pub first: Seq,
    /// The newest head.
    pub last: Receipt,
    /// When the newest head came, by the server's clock, and from which actor; none for a head from
    /// before the store kept that.
    pub seen: Option<(WallTime, Actor)>,
}

impl KnownDevice {
    /// Returns the log that was seen last.
    pub fn newest(&self) -> Option<&KnownLog> {
        self.logs.last()
    }

    /// Returns when the device was last seen, by the server's clock.
    pub fn seen_at(&self) -> Option<WallTime> {
        self.logs.iter().filter_map(|log| Some(log.seen.as_ref()?.0)).max()
    }
}

impl Store {
    /// Returns the devices of all tenants, in the order of tenants and device ids.
    pub(crate) fn devices(&self) -> Result<Vec<KnownDevice>, StateError> {
        let snapshot = self.database.begin_read()?;
        let Some(heads) = if_there(snapshot.open_table(tables::WITNESSED))? else {
            return Ok(Vec::new());
        };
        let mut known: BTreeMap<(String, DeviceId), BTreeMap<Epoch, KnownLog>> = BTreeMap::new();
        for row in heads.iter()? {
            let (key, hash) = row?;
            let (of, epoch) = log_of(key.value()).ok_or(HEAD)?;
            let head = tables::witnessed_from(key.value(), hash.value()).ok_or(HEAD)?;
            let made = || KnownLog { epoch, first: head.seq, last: head, seen: None };
            known.entry(of).or_default().entry(epoch).or_insert_with(made).last = head;
        }
        if let Some(seen) = if_there(snapshot.open_table(tables::SEEN))? {
            for row in seen.iter()? {
                let (key, value) = row?;
                let (of, epoch) = log_of(key.value()).ok_or(SEEN)?;
                let seen = tables::seen_from(value.value()).ok_or(SEEN)?;
                if let Some(log) = known.get_mut(&of).and_then(|logs| logs.get_mut(&epoch)) {
                    log.seen = Some(seen);
                }
            }
        }
        Ok(known.into_iter().map(|(of, logs)| device(of, logs)).collect())
    }
}

const HEAD: Damaged = Damaged { what: "a head that was known" };
const SEEN: Damaged = Damaged { what: "when a device was seen" };

fn device((tenant, device): (String, DeviceId), logs: BTreeMap<Epoch, KnownLog>) -> KnownDevice {
    let mut logs: Vec<_> = logs.into_values().collect();
    logs.sort_by_key(|log| (log.seen.as_ref().map(|(at, _)| *at), log.last.seq));
    KnownDevice { tenant, device, logs }
}

/// Reads whose log a key is about.
fn log_of(key: &[u8]) -> Option<((String, DeviceId), Epoch)> {
    let end = key.iter().position(|byte| *byte == 0)?;
    let (tenant, rest) = key.split_at_checked(end)?;
    let (device, rest) = rest.get(1..)?.split_first_chunk::<16>()?;
    let tenant = std::str::from_utf8(tenant).ok()?.to_owned();
    let epoch = Epoch::from_bytes(*rest.first_chunk::<16>()?);
    Some(((tenant, DeviceId::from_bytes(*device)), epoch))
}
