//! A device: the real rules and the real fold over a log and tables in memory.
//!
//! This repeats the work of the product's writer around the rules (`src/writer.rs`), without a
//! disk, threads or commits: a job reads the tables, decides by the rules and appends entries, and
//! each entry is folded when it is appended. `person` has the requests of people (`src/write.rs`,
//! `src/decisions`), `exchange` the two ends of an exchange (`src/exchange`).
//!
//! Invariants:
//! 1. Nothing is decided here: every `if` is one of the product's own, and reads the same rows.
//! 2. Rows are the fold of the log by construction: nothing but [`Job::append`] changes them.
//!
//! What it does not do: seal entries (their hashes are zero), claim heads at the server, or keep
//! the tables that lag behind the log. Other tests cover those.

mod exchange;
mod person;

use std::rc::Rc;

use fieldbook_core::entry::{
    Control, Draft, Entry, FORMAT, FieldsSource, Header, LastStop, Opened, Session,
};
use fieldbook_core::log::StoreError;
use fieldbook_core::rows::{RecordRow, UnitRow};
use fieldbook_core::rules::clock::{ServerTime, Stamped, entry_stamp, stamp};
use fieldbook_core::rules::{OpContent, View};
use fieldbook_core::tail::Tail;
use fieldbook_core::{
    Actor, Cursor, DeviceId, Epoch, FieldsJson, Hash, Hlc, MonotonicTime, Now, OpId, OpPlace,
    Randomness, RecordKey, Schema, Seq, ServerEpoch, ServerId, UnitId, WallTime,
};
use fieldbook_projections::{Effects, LogView, MemoryTables, apply};

use super::law::Broken;
use super::lists::{Kept, Named};
use super::world::op_id;

/// The surroundings of a device when an action happens to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment<'a> {
    pub(super) schema: &'a Schema,
    pub(super) actor: &'a Actor,
    /// Its wall clock.
    pub(super) wall: WallTime,
}

impl Moment<'_> {
    fn now(&self) -> Now {
        // No time passes during a decision: the time of a clock is part of the action.
        Now { wall: self.wall, monotonic: MonotonicTime::from_milliseconds(0) }
    }
}

/// A device.
#[derive(Debug, Clone)]
pub(super) struct Device {
    pub(super) number: u8,
    pub(super) log: Vec<Rc<Entry>>,
    pub(super) tables: MemoryTables,
    pub(super) tail: Tail,
    /// The server's time, from its last answer.
    pub(super) heard: Option<ServerTime>,
    /// The cursor of all entity types, and the server and epoch that it belongs to.
    pub(super) others: Option<((ServerId, ServerEpoch), Cursor)>,
    /// The number of ids that the device has drawn.
    pub(super) drawn: u16,
    /// The number of ops that the device has written.
    pub(super) ops: u8,
    /// What it keeps beside its records.
    pub(super) kept: Kept,
    /// The records that the commits of the last action named as changed.
    pub(super) named: Named,
    /// Whether its op ids are below those of the devices before it.
    ids_fall: bool,
}

/// The work of a device in one commit.
pub(super) struct Job<'a> {
    pub(super) device: &'a mut Device,
    pub(super) moment: Moment<'a>,
    effects: Effects,
    appended: u32,
}

/// What a book records of its first opening.
fn session() -> Session {
    Session {
        program: "fieldbook".to_owned(),
        app: None,
        system: "simulated".to_owned(),
        utc_offset: None,
        last_stop: LastStop::None,
        schema_digest: Hash::ZERO,
        schema: None,
    }
}

impl Device {
    /// Makes a device with an empty book.
    pub(super) fn new(number: u8, ids_fall: bool, moment: Moment<'_>) -> Result<Self, Broken> {
        let mut device = Self {
            number,
            log: Vec::new(),
            tables: MemoryTables::default(),
            tail: Tail::default(),
            heard: None,
            others: None,
            drawn: 0,
            ops: 0,
            kept: Kept::default(),
            named: Named::default(),
            ids_fall,
        };
        let id = DeviceId::from_bytes([number + 1; 16]);
        let opened = Opened { device: id, made_by: "fieldbook".to_owned() };
        device.job(moment, |job| {
            job.append(Draft::control(Control::Opened(opened)), Hlc::ZERO)?;
            // As in a real book, so that both have the same places and clocks.
            job.append(Draft::control(Control::Session(session())), Hlc::ZERO)?;
            Ok(())
        })?;
        Ok(device)
    }

    /// Runs a job as one commit.
    pub(super) fn job<T>(
        &mut self,
        moment: Moment<'_>,
        work: impl FnOnce(&mut Job<'_>) -> Result<T, Broken>,
    ) -> Result<T, Broken> {
        let mut job = Job { device: self, moment, effects: Effects::default(), appended: 0 };
        let made = work(&mut job)?;
        let effects = std::mem::take(&mut job.effects);
        self.named.all |= effects.all_records;
        self.named.records.extend(effects.records.into_iter().map(|changed| changed.key));
        effects.tail.into_iter().for_each(|effect| effect.apply_to(&mut self.tail));
        Ok(made)
    }

    /// Returns the id of the op that it writes next.
    fn next_op(&self) -> OpId {
        op_id(self.ids_fall, self.number.into(), self.ops.into())
    }

    fn epoch(&self) -> Epoch {
        Epoch::from_bytes([self.number + 1; 16])
    }

    /// Returns the clock of the last entry.
    pub(super) fn head(&self) -> Hlc {
        self.log.last().map_or(Hlc::ZERO, |entry| entry.header.hlc)
    }

    pub(super) fn op(&self, place: OpPlace) -> Result<OpContent, Broken> {
        Log(&self.log).op(place).map_err(store)
    }
}

impl Job<'_> {
    /// Appends an entry and folds it. Its clock is at least `hlc`.
    fn append(&mut self, draft: Draft, hlc: Hlc) -> Result<Seq, Broken> {
        let (head, seq) = (self.device.head(), self.next_seq());
        let hlc =
            if hlc > head { hlc } else { entry_stamp(head, self.moment.now(), self.device.heard) };
        let header = Header {
            format: FORMAT,
            kind: draft.meta.kind(),
            epoch: self.device.epoch(),
            seq,
            hlc,
            wall: self.moment.wall,
            actor: self.moment.actor.clone(),
        };
        let Draft { meta, items } = draft;
        let entry = Rc::new(Entry {
            header,
            meta,
            items: items.into(),
            content: Hash::ZERO,
            hash: Hash::ZERO,
            joint: None,
            told: false,
        });
        self.device.log.push(Rc::clone(&entry));
        self.appended += 1;
        let log = Log(&self.device.log);
        apply(&mut self.device.tables, &log, self.moment.schema, &entry, &mut self.effects)
            .map_err(store)?;
        Ok(seq)
    }

    fn next_seq(&self) -> Seq {
        self.device.log.last().map_or(Seq::ZERO, |entry| entry.header.seq).next()
    }

    /// Draws the stamp of an edit.
    fn stamp(&self, read: Hlc) -> Stamped {
        stamp(self.device.head(), read, self.moment.now(), self.device.heard)
    }

    /// Returns a view for the rules, together with a source of ids.
    fn view(&mut self) -> (JobView<'_>, Drawn<'_>) {
        let judge_all = self.appended > 0 || self.device.tables.state.had_other_server;
        let Device { log, tables, tail, drawn, number, .. } = &mut *self.device;
        (JobView { tables, log: Log(log), tail, judge_all }, Drawn { device: *number, drawn })
    }
}

/// The log as the fold and the rules read it.
#[derive(Clone, Copy)]
pub(super) struct Log<'a>(pub(super) &'a [Rc<Entry>]);

impl LogView for Log<'_> {
    fn entry(&self, seq: Seq) -> Result<Option<Rc<Entry>>, StoreError> {
        let place = usize::try_from(seq.number()).ok().and_then(|number| number.checked_sub(1));
        Ok(place.and_then(|place| self.0.get(place)).cloned())
    }

    fn next_place(&self, from: Seq) -> Result<Option<Seq>, StoreError> {
        let from = from.max(Seq::ZERO.next());
        Ok(Some(from).filter(|from| from.number() <= self.0.len() as u64))
    }
}

/// The view of the rules within a job.
pub(super) struct JobView<'a> {
    tables: &'a MemoryTables,
    log: Log<'a>,
    tail: &'a Tail,
    judge_all: bool,
}

impl View for JobView<'_> {
    type Error = StoreError;

    fn record(&mut self, key: &RecordKey) -> Result<Option<RecordRow>, StoreError> {
        Ok(self.tables.records.get(key).cloned())
    }

    fn may_need_rebase(&mut self, key: &RecordKey) -> Result<bool, StoreError> {
        Ok(self.judge_all || self.tail.has(key))
    }

    fn unit(&mut self, unit: &UnitId) -> Result<Option<UnitRow>, StoreError> {
        Ok(self.tables.units.get(unit).cloned())
    }

    fn unit_of(&mut self, op: &OpId) -> Result<Option<UnitId>, StoreError> {
        Ok(self.tail.place_of(op).and_then(|place| self.tail.unit_of(place)))
    }

    fn op(&mut self, place: OpPlace) -> Result<OpContent, StoreError> {
        self.log.op(place)
    }

    fn fields(&mut self, source: FieldsSource) -> Result<Option<FieldsJson>, StoreError> {
        self.log.fields(source)
    }
}

/// Ids in the order in which they are drawn, and nothing else that is random.
pub(super) struct Drawn<'a> {
    device: u8,
    drawn: &'a mut u16,
}

impl Randomness for Drawn<'_> {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(0);
        // An id has ten random bytes. Salts and waiting times need not differ.
        if let [_, _, _, device, _, _, _, _, high, low] = bytes {
            *self.drawn = self.drawn.saturating_add(1);
            *device = self.device + 1;
            [*high, *low] = self.drawn.to_be_bytes();
        }
    }
}

pub(super) fn store(error: StoreError) -> Broken {
    Broken::unsound(&error)
}
