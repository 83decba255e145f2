//! The world: devices, a network as a list of messages, a server, and time. It performs one action
//! at a time, and after each action it checks every invariant that can be checked then.

mod check;
mod exchange;
mod heal;
mod left_out;
pub(crate) mod lists;
pub(crate) mod live;
mod oracle;
mod search;
mod upheaval;
mod verbs;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};

use fieldbook::audit::Seq;
use fieldbook::record::{OpId, OpKind};
use fieldbook::sync::protocol::{ExchangeRequest, Failure};
use fieldbook::{EntityType, Error, Fields, Mutation, MutationFields, RecordKey, Written};
use serde_json::Value;

use crate::action::{Action, Edit, Kind, Setup};
use crate::app::{ENTITIES, as_read, knows, schema, updated};
use crate::broken::{Broken, ensure};
use crate::clock::SimClock;
use crate::device::Device;
use crate::disk::{Fault, Loss};
use crate::ledger::{Image, changed};
use crate::run::Stats;
use crate::server::Server;

/// The time at which every world begins: 2026-01-01.
const BEGINNING: i64 = 1_767_225_600_000;
/// How often, in actions, tables are compared with the log and the log is verified.
const THOROUGH_EVERY: u64 = 40;
/// The most messages in flight; beyond that the oldest are lost.
const MESSAGES: usize = 40;
/// How many entries of a log are shown when something broke.
const SHOWN_ENTRIES: usize = 30;

/// A simulated world.
pub struct World {
    setup: Setup,
    devices: Vec<Device>,
    server: Server,
    network: Vec<Message>,
    now: i64,
    keys: Vec<RecordKey>,
    stats: Stats,
    trace: DefaultHasher,
    actions: u64,
}

/// A message in flight.
#[derive(Clone)]
enum Message {
    Request {
        device: usize,
        bytes: Vec<u8>,
    },
    Answer {
        device: usize,
        request: Box<ExchangeRequest>,
        body: Result<Vec<u8>, Failure>,
        /// The change of its page that is left out on the way, counted round.
        left_out: Option<usize>,
    },
}

impl Message {
    /// Returns the device that sent it or will receive it.
    const fn device(&self) -> usize {
        match self {
            Self::Request { device, .. } | Self::Answer { device, .. } => *device,
        }
    }
}

impl World {
    /// Makes a world.
    ///
    /// # Errors
    /// [`Broken`] if a book cannot be made.
    pub fn new(setup: Setup) -> Result<Self, Broken> {
        let mut devices = Vec::new();
        for number in 0..setup.devices {
            let error = setup.clock_errors.get(number).copied().unwrap_or(0);
            let clock = SimClock::new(BEGINNING.saturating_add(error));
            let seed = setup.seed.wrapping_mul(1_000_003).wrapping_add(number as u64 * 10_007);
            devices.push(Device::new(format!("actor-{number}"), clock, schema(&setup, 1)?, seed)?);
        }
        let mut keys = Vec::new();
        for entity in ENTITIES {
            for id in 0..setup.records {
                keys.push(key(entity, id)?);
            }
        }
        Ok(Self {
            setup,
            devices,
            server: Server::new(),
            network: Vec::new(),
            now: BEGINNING,
            keys,
            stats: Stats::default(),
            trace: DefaultHasher::new(),
            actions: 0,
        })
    }

    /// Returns the setup of the world.
    pub const fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Returns the number of devices, copies included.
    pub const fn devices(&self) -> usize {
        self.devices.len()
    }

    /// Returns whether a device is cut off.
    pub fn is_cut_off(&self, device: usize) -> bool {
        self.devices.get(device).is_some_and(|device| device.cut_off)
    }

    /// Returns the number of messages in flight.
    pub fn messages(&self) -> usize {
        self.network.len()
    }

    /// Returns the counts so far.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Returns a number that is equal for equal runs.
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// Performs one action and checks everything that it may have touched.
    ///
    /// # Errors
    /// [`Broken`] with the broken invariant.
    pub fn step(&mut self, action: &Action) -> Result<(), Broken> {
        self.actions += 1;
        self.trace.write(serde_json::to_string(action).unwrap_or_default().as_bytes());
        if let Some(kind) = action.fault() {
            *self.stats.faults.entry(kind).or_default() += 1;
        }
        let touched = self.act(action)?;
        if let Some(number) = touched {
            self.settle(number)?;
            self.check(number, self.actions.is_multiple_of(THOROUGH_EVERY))?;
            let head = self.device(number)?.model.hashes.last().copied();
            self.trace.write(head.map(|head| *head.as_bytes()).unwrap_or_default().as_slice());
        }
        Ok(())
    }

    /// Performs one action; returns the device that it touched.
    fn act(&mut self, action: &Action) -> Result<Option<usize>, Broken> {
        let devices = self.devices.len().max(1);
        let number = |device: &usize| device % devices;
        match action {
            Action::Write { device, edit } => {
                self.write(number(device), std::slice::from_ref(edit), false)
            }
            Action::Transaction { device, edits } => self.write(number(device), edits, true),
            Action::Begin { device, push, pull, batch, page } => {
                self.begin(number(device), *push, *pull, *batch, *page)
            }
            Action::Deliver { message, trouble } => self.deliver(*message, *trouble),
            Action::Drop { message } => {
                self.take_message(*message);
                Ok(None)
            }
            Action::Duplicate { message } => {
                if let Some(message) =
                    self.network.get(message % self.network.len().max(1)).cloned()
                {
                    self.send(message);
                }
                Ok(None)
            }
            Action::Truncate { message } => {
                let place = message % self.network.len().max(1);
                if let Some(Message::Answer { body: Ok(bytes), .. }) = self.network.get_mut(place) {
                    bytes.truncate(bytes.len() * 2 / 3);
                }
                Ok(None)
            }
            Action::LeaveOut { message, change } => {
                self.leave_out(*message, *change);
                Ok(None)
            }
            Action::Check { device, mend } => self.check_with_server(number(device), *mend),
            Action::GiveUp { device } => self.give_up(number(device)),
            Action::Advance { milliseconds } => {
                self.advance(*milliseconds);
                Ok(None)
            }
            Action::ClockJump { device, milliseconds } => {
                let device = self.device(number(device))?;
                device.clock.set_wall(device.clock.wall().saturating_add(*milliseconds));
                Ok(None)
            }
            Action::ClockStrays { device, milliseconds, edit } => {
                self.clock_strays(number(device), *milliseconds, edit)
            }
            Action::Way(way) => {
                self.server.way = *way;
                Ok(None)
            }
            Action::Crash { device, loss, killed } => {
                let number = number(device);
                let device = get(&mut self.devices, number)?;
                device.crash(*loss, *killed, None, &self.server.ledger)?;
                Ok(Some(number))
            }
            Action::CrashAfter { device, changes, loss, again } => {
                let fault = Fault { after: *changes, forever: true };
                self.device(number(device))?.arrange(fault, *loss, *again);
                Ok(None)
            }
            Action::DiskError { device, changes } => {
                let fault = Fault { after: *changes, forever: false };
                self.device(number(device))?.arrange(fault, Loss::Nothing, None);
                Ok(None)
            }
            Action::Reopen { device } => {
                let number = number(device);
                get(&mut self.devices, number)?.reopen(&self.server.ledger)?;
                Ok(Some(number))
            }
            Action::Retry { device, letter } => self.verb(number(device), *letter, true),
            Action::Discard { device, letter } => self.verb(number(device), *letter, false),
            Action::Correct { device, letter, fields } => {
                self.correct(number(device), *letter, fields)
            }
            Action::Undo { device, back } => self.undo(number(device), *back),
            Action::Decide { device, back, mine } => self.decide(number(device), *back, *mine),
            Action::Renew { device } => self.renew(number(device)),
            Action::Rebuild { device } => {
                let number = number(device);
                let device = self.device(number)?;
                let rebuilt = device.book()?.audit().rebuild(|_| {});
                device.called(rebuilt)?;
                Ok(Some(number))
            }
            Action::Partition { device, begins } => self.partition(number(device), *begins),
            Action::Permission { right, granted } => self.permit(*right, *granted),
            Action::Upgrade { device } => self.upgrade(number(device)),
            Action::Clone { device } => self.copy(number(device)),
            Action::Backup => {
                self.server.back_up();
                Ok(None)
            }
            Action::Restore { declared } => {
                self.server.restore(*declared);
                Ok(None)
            }
            Action::AcceptServer { device } => self.accept_server(number(device)),
            Action::SignIn { device } => self.sign_in(number(device)),
            Action::HandOver { device, back } => self.hand_over(number(device), *back),
            Action::TakeState { device } => self.take_state(number(device)),
            Action::KeepUnsent { device } => {
                let number = number(device);
                get(&mut self.devices, number)?.keep_unsent(&self.server.ledger)?;
                Ok(Some(number))
            }
            Action::Compact { device, keep } => {
                let number = number(device);
                let device = get(&mut self.devices, number)?;
                self.stats.trimmed += u64::from(device.compact(*keep, &self.server.ledger)?);
                Ok(Some(number))
            }
            Action::Search { device, entity, asked, fold } => {
                let number = number(device);
                if *fold {
                    let device = self.device(number)?;
                    let folded = device.book()?.fold_search();
                    if device.called(folded)?.is_none() {
                        return Ok(Some(number));
                    }
                }
                self.search(number, *entity, asked)
            }
        }
    }

    /// Recovers a device whose disk failed, and reads the new entries of its log.
    fn settle(&mut self, number: usize) -> Result<(), Broken> {
        let device = get(&mut self.devices, number)?;
        if device.disk().has_failed() {
            device.check_stopped()?;
            let (loss, again) = device.arranged.unwrap_or((Loss::Nothing, None));
            self.stats.recoveries += 1;
            return device.crash(loss, loss == Loss::Nothing, again, &self.server.ledger);
        }
        device.observe(&self.server.ledger)
    }

    fn write(
        &mut self,
        number: usize,
        edits: &[Edit],
        together: bool,
    ) -> Result<Option<usize>, Broken> {
        let mut images: BTreeMap<RecordKey, Option<Image>> = BTreeMap::new();
        let mut mutations = Vec::new();
        let (mut valid, mut changes) = (true, 0);
        for edit in edits {
            let entity = if edit.task {
                "task"
            } else if edit.note {
                "note"
            } else {
                "lead"
            };
            let key = key(entity, edit.record % self.setup.records.max(1))?;
            let device = self.device(number)?;
            valid &= knows(device.version, &key.entity);
            let version = device.version;
            let image = images.entry(key.clone()).or_insert_with(|| device.model.visible(&key));
            let mutation = mutation(key, edit, image.is_some());
            valid &= image.is_some() != (mutation.kind == OpKind::Create);
            let fields = mutation.fields.to_fields().unwrap_or_default().into_map();
            let after = match (mutation.kind, &*image) {
                (OpKind::Update, Some(stored)) => Some(updated(stored, version, &fields)),
                (kind, _) => changed(image.clone(), kind, &fields),
            };
            let is_read_so = mutation.kind == OpKind::Replace
                && image.clone().map(|image| as_read(image, version)) == after;
            changes +=
                usize::from((after != *image && !is_read_so) || mutation.kind == OpKind::Create);
            if !is_read_so {
                *image = after;
            }
            mutations.push(mutation);
        }
        let device = get(&mut self.devices, number)?;
        let result = match (together, mutations.pop()) {
            (false, Some(mutation)) => device.book()?.write(mutation).map(|written| vec![written]),
            (_, last) => device.book()?.transaction(mutations.into_iter().chain(last).collect()),
        };
        if let Err(Error::Rejected(reason)) = &result {
            ensure(!valid, "admit", || format!("a valid write was rejected: {reason}"))?;
            return Ok(Some(number));
        }
        let Some(written) = device.called(result)? else { return Ok(Some(number)) };
        ensure(valid, "admit", || "a write that is not valid was taken".to_owned())?;
        let ops: Vec<OpId> = written.iter().filter_map(Written::op).collect();
        ensure(ops.len() == changes, "admit", || {
            format!("{changes} changes were made and {} ops written", ops.len())
        })?;
        self.stats.ops += ops.len() as u64;
        device.acknowledge(ops);
        for (key, image) in images {
            let read = device.book()?.records().get(&key);
            let Some(read) = device.called(read)? else { return Ok(Some(number)) };
            let expected = image.map(|image| as_read(image, device.version));
            let is_same = match (&read, &expected) {
                (Some(record), Some(image)) => is_image(record.json.as_str(), image),
                (read, expected) => read.is_none() && expected.is_none(),
            };
            ensure(is_same, "S15", || {
                format!("{key}: the app reads {read:?} after its write, and not {expected:?}")
            })?;
        }
        Ok(Some(number))
    }

    /// Returns the end of each device's log, to find the cause of a failure.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for device in &self.devices {
            let entries = device
                .book()
                .ok()
                .and_then(|book| book.audit().entries(Seq::new(1), usize::MAX).ok());
            let entries = entries.unwrap_or_default();
            text += &format!("-- {}\n", device.actor);
            for entry in entries.iter().skip(entries.len().saturating_sub(SHOWN_ENTRIES)) {
                text += &format!("{:>5} {:?}\n", entry.header.seq.number(), entry.meta);
            }
        }
        text
    }

    fn advance(&mut self, milliseconds: u64) {
        self.now = self.now.saturating_add(i64::try_from(milliseconds).unwrap_or(i64::MAX));
        self.stats.device_milliseconds += milliseconds.saturating_mul(self.devices.len() as u64);
        self.devices.iter().for_each(|device| device.clock.advance(milliseconds));
    }

    fn send(&mut self, message: Message) {
        self.network.push(message);
        if self.network.len() > MESSAGES {
            self.network.remove(0);
        }
    }

    fn take_message(&mut self, message: usize) -> Option<Message> {
        let place = message % self.network.len().max(1);
        (place < self.network.len()).then(|| self.network.remove(place))
    }

    fn device(&mut self, number: usize) -> Result<&mut Device, Broken> {
        get(&mut self.devices, number)
    }
}

fn get(devices: &mut [Device], number: usize) -> Result<&mut Device, Broken> {
    devices.get_mut(number).ok_or_else(|| Broken::new("harness", "there is no such device"))
}

fn entity_type(name: &str) -> Result<EntityType, Broken> {
    EntityType::parse(name).map_err(|error| Broken::new("harness", format!("{name}: {error}")))
}

fn key(entity: &str, id: usize) -> Result<RecordKey, Broken> {
    RecordKey::parse(entity, &id.to_string())
        .map_err(|error| Broken::new("harness", error.to_string()))
}

fn mutation(key: RecordKey, edit: &Edit, is_there: bool) -> Mutation {
    let fields: Fields =
        edit.fields.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    // Some apps have values, and some have text. The results must be the same.
    let fields = match fields.checked() {
        Ok(json) if edit.record.is_multiple_of(2) => MutationFields::from(json),
        _ => fields.into(),
    };
    match edit.kind {
        Kind::Create => Mutation::create(key, fields),
        Kind::Update => Mutation::update(key, fields),
        Kind::Replace => Mutation::replace(key, fields),
        Kind::Delete => Mutation::delete(key),
        Kind::Save if is_there => Mutation::update(key, fields),
        Kind::Save => Mutation::create(key, fields),
    }
}

/// Returns whether a record's fields are these.
fn is_image(json: &str, image: &Image) -> bool {
    serde_json::from_str::<Value>(json).is_ok_and(|value| value.as_object() == Some(image))
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "World({} devices, {} actions)", self.devices.len(), self.actions)
    }
}
