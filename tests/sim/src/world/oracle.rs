//! The laws of a device after every action.

use std::collections::BTreeSet;

use fieldbook::RecordKey;
use fieldbook::audit::Seq;
use fieldbook::audit::entry::ParkScope;
use fieldbook::record::OpId;

use super::lists::check_lists;
use super::{World, is_image};
use crate::broken::{Broken, ensure};
use crate::device::Device;
use crate::ledger::{Ledger, Registers, Stored};

impl World {
    /// Checks a device: quickly, or thoroughly.
    pub(super) fn check(&mut self, number: usize, thorough: bool) -> Result<(), Broken> {
        let keys = std::mem::take(&mut self.keys);
        let actions = self.actions;
        let device = super::get(&mut self.devices, number)?;
        // Each list looks at its own pace.
        device.check_live(|list| thorough || (actions + list as u64).is_multiple_of(5))?;
        let checked = check_records(device, &keys)
            .and_then(|()| check_tail(device))
            .and_then(|()| check_cursors(device, &self.server.ledger));
        self.keys = keys;
        checked?;
        if thorough { self.check_thoroughly(number) } else { Ok(()) }
    }

    /// Checks S3 and S4: the log verifies, the tables are its fold, and the lists are those of a
    /// scan.
    pub(super) fn check_thoroughly(&mut self, number: usize) -> Result<(), Broken> {
        let device = super::get(&mut self.devices, number)?;
        let book = device.book()?;
        let verified =
            book.audit().verify(|_| {}).map_err(|error| Broken::new("S3", format!("{error:?}")))?;
        if let Err(damage) = verified.into_result() {
            return Err(Broken::new("S3", damage.to_string()));
        }
        check_lists(book)?;
        let differs = book.audit().check_tables();
        // A failure that was arranged may happen now.
        match device.called(differs)? {
            Some(check) if !check.is_sound() => Err(Broken::new(
                "S4",
                format!("the tables {:?} are not what the log says", check.differing),
            )),
            Some(_) => self.check_past(number),
            None => self.settle(number),
        }
    }

    /// Checks S4 of the past too: at sampled entries, every read equals the same read of a fold of
    /// the log up to the entry.
    fn check_past(&mut self, number: usize) -> Result<(), Broken> {
        let device = super::get(&mut self.devices, number)?;
        let book = device.book()?;
        let head = book.audit().head().map_err(unreadable)?.map_or(0, |head| head.seq.number());
        // The number of actions chooses where, so that each check looks elsewhere.
        let sample = self.actions * 7 % (head + 1);
        for seq in [sample, head.saturating_sub(sample % 9)] {
            let differs = device.book()?.past_differs(Seq::new(seq));
            if let Some(Some(differs)) = device.called(differs)? {
                return Err(Broken::new("S4", differs));
            }
        }
        self.settle(number)
    }
}

/// Checks S15: the records that the app reads, and the confirmed ones, are the fold of the log.
fn check_records(device: &Device, keys: &[RecordKey]) -> Result<(), Broken> {
    let snapshot = device.book()?.snapshot().map_err(unreadable)?;
    for key in keys {
        let row =
            snapshot.record(key).map_err(|error| unreadable(error.into()))?.unwrap_or_default();
        let held = device.model.records.get(key).cloned().unwrap_or_default();
        ensure(row.version() == held.version, "S11", || {
            format!("{key}: confirmed is {:?}, not {:?}", row.version(), held.version)
        })?;
        let confirmed = held.confirmed.as_ref().and_then(Registers::image);
        let same = match (row.confirmed_image(), &confirmed) {
            (None, None) => true,
            (Some(json), Some(image)) => is_image(json.as_str(), image),
            _ => false,
        };
        ensure(same, "S11", || {
            format!(
                "{key}: confirmed {:?} is not what the server has at that version",
                row.version()
            )
        })?;
        let tail: Vec<_> =
            row.tail.iter().map(|reference| (reference.op, reference.dead)).collect();
        let expected: Vec<_> = held.tail.iter().map(|waiting| (waiting.op, waiting.dead)).collect();
        ensure(tail == expected, "S5", || {
            format!("{key}: the tail is {tail:?}, not {expected:?}")
        })?;
        let visible = device.model.visible(key);
        let same = match (row.image(), &visible) {
            (None, None) => true,
            (Some(json), Some(image)) => is_image(json.as_str(), image),
            _ => false,
        };
        ensure(same, "S15", || {
            format!(
                "{key}: the app reads something else than confirmed with the tail on top: {:?}, not {visible:?}",
                row.image().map(fieldbook::record::FieldsJson::as_str)
            )
        })?;
    }
    Ok(())
}

/// Checks S5, S6 and L3: dead letters are listed, and each op of the tail is planned or held for a
/// reason.
fn check_tail(device: &Device) -> Result<(), Broken> {
    let book = device.book()?;
    let listed = book.dead_letters().all().map_err(unreadable)?;
    let listed: BTreeSet<OpId> = listed.iter().map(|row| row.op).collect();
    let dead = device.model.dead();
    ensure(listed == dead, "S6", || {
        format!("{} dead letters are listed of {}", listed.len(), dead.len())
    })?;
    let pending = device.model.pending() as u64;
    let status = book.status();
    ensure(status.pending == pending, "S5", || {
        format!("{} ops are said to be owed, and {pending} are", status.pending)
    })?;
    if status.state == fieldbook::SyncState::StorageFailed {
        return Ok(());
    }
    let plan = book.queue().plan();
    let mut accounted: BTreeSet<_> = plan.holds.keys().copied().collect();
    let groups = plan.groups.iter().flat_map(|group| &group.records);
    accounted.extend(groups.flat_map(|(_, places)| places.iter().copied()));
    let again = plan.again.iter().filter_map(|unit| device.model.units.get(unit)).flatten();
    let again = again.flat_map(|(_, ops)| ops).filter_map(|op| device.model.ops.get(op));
    accounted.extend(again.map(|op| op.place));
    let waiting =
        device.model.records.values().flat_map(|held| &held.tail).filter(|waiting| !waiting.dead);
    for op in waiting.filter_map(|waiting| device.model.ops.get(&waiting.op)) {
        ensure(accounted.contains(&op.place), "L3", || {
            format!("op {} of {} is neither planned nor held", op.place, op.key)
        })?;
    }
    let passed_over = book.passed_over();
    ensure(passed_over.is_none(), "L3", || {
        format!(
            "the queue of what is ready passes {passed_over:?} over, though a whole plan would send it"
        )
    })
}

/// Checks S11: everything that the server did up to a cursor is applied, or undeclared, unless an
/// answer left it out. The device can have nothing of a server epoch that it has not accepted yet.
fn check_cursors(device: &Device, ledger: &Ledger) -> Result<(), Broken> {
    let model = &device.model;
    if model.server_epoch != ledger.epoch() || ledger.is_ambiguous(model.server_epoch) {
        return Ok(());
    }
    for (key, stored) in &ledger.now.current {
        let read = model.cursors.get(&key.entity).copied().unwrap_or(0);
        ensure(stored.version.number() > read || has(device, key, stored), "S11", || {
            format!("the cursor stands at {read} and {key} at {} was passed over", stored.version)
        })?;
    }
    Ok(())
}

/// Checks L2: the server's whole state is applied, or undeclared, unless an answer left it out.
pub(super) fn check_read(device: &Device, ledger: &Ledger) -> Result<(), Broken> {
    let mut stored = ledger.now.current.iter();
    let missing = stored.find(|(key, stored)| !has(device, key, stored));
    ensure(missing.is_none(), "L2", || {
        format!("{} rests and has not read {:?}", device.actor, missing.map(|(key, _)| key))
    })
}

fn has(device: &Device, key: &RecordKey, stored: &Stored) -> bool {
    has_read(device, key, stored) || device.left_out.contains(key)
}

/// Returns whether a device has read a version of a record, or keeps it as undeclared.
pub(super) fn has_read(device: &Device, key: &RecordKey, stored: &Stored) -> bool {
    let model = &device.model;
    let known = model.records.get(key).and_then(|held| held.version);
    let kept =
        || model.undeclared.values().any(|kept| kept.key == *key && kept.version >= stored.version);
    known >= Some(stored.version) || kept()
}

/// Returns whether a park remains after new credentials and an upgrade.
pub(super) fn is_stuck(scope: &ParkScope) -> bool {
    !matches!(scope, ParkScope::Actor(_) | ParkScope::Entity(_) | ParkScope::Protocol)
}

fn unreadable(error: fieldbook::Error) -> Broken {
    Broken::new("S1", format!("the book does not read: {error:?}"))
}
