//! Applies the facts of an answer: changes of records and cursors. Applies the acceptance of
//! another server.

use fieldbook_core::entry::{ChangeMeta, Control, Entry, Extent, ItemIndex, Meta, Upstream};
use fieldbook_core::limits;
use fieldbook_core::log::StoreError;
use fieldbook_core::rows::{Confirmed, CursorRow, aside_hash};
use fieldbook_core::{Cursor, RecordKey, Seq, ServerEpoch, ServerId, Version, WallTime};

use super::Applying;
use crate::access::Tables;
use crate::log_view::LogView;

impl<T: Tables, L: LogView> Applying<'_, T, L> {
    pub(super) fn upstream(&mut self, upstream: &Upstream) -> Result<(), StoreError> {
        let wall = self.entry.header.wall;
        for (number, change) in upstream.changes.iter().enumerate() {
            self.news(change, u32::try_from(number).unwrap_or(u32::MAX), Some(wall))?;
        }
        for (entity, cursor) in &upstream.cursors {
            self.tables
                .put_cursor(entity, CursorRow { cursor: cursor.clone(), synced_at: wall })?;
        }
        self.change_state(|state, _| {
            state.server = Some((upstream.server, upstream.epoch));
            state.server_time = Some((upstream.server_time, wall));
            state.synced_at = Some(wall);
            state.anchor = upstream.receipt.or(state.anchor);
            state.highest = state.highest.max(highest(upstream));
        })
    }

    /// Remembers that a row was set aside, so that the same row is not set aside again. Only the
    /// last [`limits::SET_ASIDE_KNOWN`] rows are remembered.
    pub(super) fn set_aside(
        &mut self,
        name: ItemIndex,
        version: Option<Version>,
        row: Option<ItemIndex>,
    ) -> Result<(), StoreError> {
        let Some(name) = self.entry.item(name) else { return Ok(()) };
        let hash = aside_hash(name, version, row.and_then(|row| self.entry.item(row)));
        self.change_state(|state, _| {
            state.set_aside.retain(|(known, _)| *known != hash);
            state.set_aside.push((hash, version.unwrap_or_default()));
            let over = state.set_aside.len().saturating_sub(limits::SET_ASIDE_KNOWN);
            state.set_aside.drain(..over);
        })
    }

    pub(super) fn read_foreign(&mut self, entity: &str, cursor: &Cursor) -> Result<(), StoreError> {
        self.change_state(|state, _| {
            match state.foreign_cursors.iter_mut().find(|(known, _)| known == entity) {
                Some((_, known)) => known.clone_from(cursor),
                None => state.foreign_cursors.push((entity.to_owned(), cursor.clone())),
            }
        })
    }

    /// Takes the change of this entry with this number, which was heard at a time.
    pub(super) fn news(
        &mut self,
        change: &ChangeMeta,
        number: u32,
        heard: Option<WallTime>,
    ) -> Result<(), StoreError> {
        if change.undeclared {
            return self.tables.put_undeclared(&change.key, self.seq(), number);
        }
        self.change(change, self.entry, heard)
    }

    fn change(
        &mut self,
        change: &ChangeMeta,
        sent_by: &Entry,
        heard: Option<WallTime>,
    ) -> Result<(), StoreError> {
        if !self.tables.concerns(&change.key) {
            return Ok(());
        }
        let mut open = self.take_or_begin(&change.key)?;
        open.row.synced_at = heard;
        // A record of a former server has version 0. A change of version 0 is news for it: the
        // accepted server never had the record.
        let is_newer = |known: Version| change.version > known || known == Version::default();
        if open.row.version().is_none_or(is_newer) {
            let sent = change.fields.map(|index| sent_by.fields(index)).transpose();
            let sent = sent.map_err(|fault| self.damaged(fault))?.flatten().unwrap_or_default();
            if open.row.version() == Some(Version::default()) {
                // The rebase has compared the ops of abandoned units with this change of the
                // accepted server.
                open.tail_mut().for_each(|op| op.pending.abandoned = None);
            }
            let sent = Confirmed {
                version: change.version,
                edited_at: change.edited_at,
                op: change.op,
                older: change.older.clone(),
                floor: change.floor,
                deleted: change.extent == Extent::Deleted,
                fields: sent.into_image().map_err(|fault| self.damaged(fault))?,
            };
            open.row.confirmed = if change.extent == Extent::Partial {
                let before = open.row.registers().map_err(|fault| self.damaged(fault))?;
                let sent = sent.registers().map_err(|fault| self.damaged(fault))?;
                Confirmed::of(&before.with_part(sent), change.version)
            } else {
                Some(sent)
            };
            self.refer_by_what_stands(&open)?;
        }
        self.keep(open);
        Ok(())
    }

    pub(super) fn adopted(
        &mut self,
        key: &RecordKey,
        seq: Seq,
        number: u32,
    ) -> Result<(), StoreError> {
        let entry = self.log.existing(seq)?;
        self.tables.remove_undeclared(key, seq, number)?;
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let change = match &entry.meta {
            Meta::Upstream(upstream) => upstream.changes.get(number),
            Meta::Control(Control::Baseline(baseline)) => {
                baseline.records.get(number).map(|record| &record.change)
            }
            _ => None,
        };
        let heard = Some(self.entry.header.wall);
        change.map_or(Ok(()), |change| self.change(change, &entry, heard))
    }

    /// Forgets what is confirmed of a record, whatever version that is. Ops of its tail stay.
    pub(super) fn let_go(&mut self, key: &RecordKey) -> Result<(), StoreError> {
        if !self.tables.concerns(key) {
            return Ok(());
        }
        let Some(mut open) = self.take(key)? else { return Ok(()) };
        open.row.confirmed = None;
        self.refer_by_what_stands(&open)?;
        self.keep(open);
        Ok(())
    }

    pub(super) fn server_accepted(
        &mut self,
        server: Option<(ServerId, ServerEpoch)>,
    ) -> Result<(), StoreError> {
        // Unanswered units were made for versions of the former server. Their ops are planned
        // again, in units that replace them.
        for (id, unit) in self.tables.units()? {
            self.abandon(id, &unit)?;
        }
        self.close()?;
        self.tables.await_confirmation()?;
        self.effects.all_records = true;
        self.change_state(|state, _| {
            state.server = server;
            state.anchor = None;
            state.tenant = None;
            state.highest = Version::default();
            state.foreign_cursors.clear();
            state.set_aside.clear();
            state.rereading = true;
            state.had_other_server = true;
        })
    }

    pub(super) fn server_read(&mut self) -> Result<(), StoreError> {
        self.close()?;
        for key in self.tables.unconfirmed()? {
            let mut open = self.take_or_begin(&key)?;
            if let Some(confirmed) = open.row.confirmed.as_mut() {
                confirmed.never_was();
            }
            self.refer_by_what_stands(&open)?;
            self.keep(open);
        }
        self.change_state(|state, _| state.rereading = false)
    }
}

fn highest(upstream: &Upstream) -> Version {
    let given = upstream
        .outcomes
        .iter()
        .flat_map(|answered| answered.versions.iter().map(|(_, version)| *version));
    upstream.changes.iter().map(|change| change.version).chain(given).max().unwrap_or_default()
}
