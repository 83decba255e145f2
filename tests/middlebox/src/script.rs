//! A run: books write and sync through a box with the faults that the seed draws, then with
//! refusals by content only, then without faults.
//!
//! ```text
//!   storm        writes, syncs, restarts, the clock; every fault
//!   poison only  ops without poison arrive, and everything is read, though some bodies never get through
//!   clear        everything arrives, without a person
//!   scanned      answers with one record are refused: sent ops arrive, the records before it are read, and the state shows the failure
//!   clear        everything is read
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fieldbook::{Fields, Mutation, RecordKey, RunOptions};
use fieldbook_sim::clock::SimClock;
use fieldbook_sim::dice::Dice;
use serde_json::{Value, json};

use crate::fault::Weather;
use crate::fleet::{ACTORS, Device, Image, Remotes, Servers};
use crate::middlebox::Middlebox;
use crate::{Broken, Counts};

/// The time at which every run begins: 2026-01-01.
const BEGINNING: i64 = 1_767_225_600_000;
/// The words in poisoned bodies. The box refuses bodies with them, like a scanner.
pub(crate) const POISON: &str = "X5O!P-TEST";
/// The words in the record that is refused in answers.
const SCANNED: &str = "X5O!P-READ";
/// The most rounds, in which every device syncs, until only records behind the refused record are
/// missing.
const SCANNED_ROUNDS: usize = 4;
/// The most rounds until only poisoned records are left.
const POISON_ROUNDS: usize = 150;
/// The most rounds until nothing is left.
const CLEAR_ROUNDS: usize = 60;
/// The number of shared records.
const LEADS: usize = 4;
/// The size of a field. A record with two such fields exceeds the limit.
const BIG_BYTES: usize = 600 * 1024;
const HOUR: u64 = 3_600_000;

/// A run, and the expected records.
pub(crate) struct Run {
    pub(crate) devices: Vec<Device>,
    pub(crate) remotes: Vec<Remotes>,
    pub(crate) middlebox: Middlebox,
    /// The expected fields of each record that only one book writes.
    pub(crate) own: BTreeMap<RecordKey, Option<Image>>,
    /// The records with a poisoned op, or with an op in a transaction with such a record.
    pub(crate) tainted: BTreeSet<RecordKey>,
    pub(crate) ops: u64,
    pub(crate) options: RunOptions,
    server_clock: SimClock,
    dice: Dice,
    one_shot: bool,
    poisons: bool,
    reopenings: u64,
    counter: u64,
    /// The servers, which are dropped last.
    _servers: Servers,
}

/// Runs a seed and returns the counts, and the broken promise if there is one.
pub fn run_seed(seed: u64) -> (Counts, Option<Broken>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return (Counts::default(), Some(Broken::harness("no runtime", error))),
    };
    runtime.block_on(async {
        let mut run = match Run::new(seed).await {
            Ok(run) => run,
            Err(broken) => return (Counts::default(), Some(broken)),
        };
        let broken = run.play().await.err();
        (run.counts(), broken)
    })
}

impl Run {
    async fn new(seed: u64) -> Result<Self, Broken> {
        let mut dice = Dice::new(seed);
        let server_clock = SimClock::new(BEGINNING);
        let servers = Servers::start(Arc::new(server_clock.clone())).await?;
        let middlebox =
            Middlebox::start(servers.upstreams(), Weather::new(dice.seed(), true)).await?;
        let (mut devices, mut remotes) = (Vec::new(), Vec::new());
        let count = if dice.chance(500) { 2 } else { 3 };
        for actor in ACTORS.into_iter().take(count) {
            devices.push(Device::new(actor, SimClock::new(BEGINNING), dice.seed())?);
            remotes.push(Remotes::to(&middlebox.origin, actor)?);
        }
        let options = RunOptions {
            batch_ops: usize::try_from(dice.between(1, 50)).unwrap_or(50),
            page_limit: u32::try_from(dice.between(2, 60)).unwrap_or(60),
            max_exchanges: 200,
            ..RunOptions::default()
        };
        Ok(Self {
            devices,
            remotes,
            middlebox,
            own: BTreeMap::new(),
            tainted: BTreeSet::new(),
            ops: 0,
            options,
            server_clock,
            one_shot: dice.chance(400),
            poisons: dice.chance(600),
            dice,
            reopenings: 0,
            counter: 0,
            _servers: servers,
        })
    }

    async fn play(&mut self) -> Result<(), Broken> {
        if self.dice.chance(700) {
            self.first_contact().await?;
        } else {
            // A book that never reached the right server cannot distinguish it from another one.
            self.middlebox.weather().set_misleads(false);
        }
        self.storm().await?;
        if self.middlebox.weather().refuses().is_some() {
            self.middlebox.weather().calm();
            self.poison_only().await?;
        }
        self.middlebox.weather().clear();
        self.clear().await?;
        self.scanned().await?;
        self.middlebox.weather().clear();
        self.clear().await
    }

    /// Refuses one record in answers, like a scanner of downloads.
    async fn scanned(&mut self) -> Result<(), Broken> {
        self.middlebox.weather().scan(SCANNED);
        let author = self.dice.index(self.devices.len());
        for (name, text) in [("before", "fine"), ("scanned", SCANNED), ("after", "fine")] {
            self.create(author, &format!("{author}-{name}"), text)?;
            // Each record is in its own unit, so that each has its own version.
            self.round().await?;
        }
        for number in 0..self.devices.len() {
            self.create(number, &format!("{number}-meanwhile"), "fine")?;
        }
        for _ in 0..SCANNED_ROUNDS {
            self.round().await?;
        }
        self.check_scanned(author).await
    }

    fn create(&mut self, number: usize, id: &str, text: &str) -> Result<(), Broken> {
        let mutation = Mutation::create(key("own", id)?, fields(&[("t", json!(text))]));
        self.note(&mutation);
        let Some(device) = self.devices.get(number) else { return Ok(()) };
        let written = device.book()?.write(mutation);
        written.map_err(|error| Broken(format!("a write was refused: {error:?}")))?;
        self.ops += 1;
        Ok(())
    }

    /// Syncs every device once without faults, each with an op to send. An answer without news is
    /// not recorded, so a book knows its server only after it has sent an op.
    async fn first_contact(&mut self) -> Result<(), Broken> {
        for number in 0..self.devices.len() {
            let greeting = Mutation::create(
                key("own", &format!("{number}-met"))?,
                fields(&[("t", json!("met"))]),
            );
            self.note(&greeting);
            let Some(device) = self.devices.get(number) else { continue };
            let written = device.book()?.write(greeting);
            written.map_err(|error| Broken(format!("a write was refused: {error:?}")))?;
            self.ops += 1;
        }
        for (device, remotes) in self.devices.iter().zip(&self.remotes) {
            device.sync(&remotes.patient, &self.options).await?;
        }
        Ok(())
    }

    async fn storm(&mut self) -> Result<(), Broken> {
        self.middlebox.weather().storm();
        if self.poisons {
            self.middlebox.weather().poison(POISON);
        }
        if self.dice.chance(200) {
            self.write_too_much()?;
        }
        for _ in 0..self.dice.between(25, 60) {
            let number = self.dice.index(self.devices.len());
            match self.dice.below(10) {
                0..4 => self.write(number)?,
                4..8 => self.sync(number, false).await?,
                8 => {
                    let span = self.dice.between(1, 3 * HOUR);
                    self.advance(span);
                }
                _ => self.reopen(number)?,
            }
        }
        Ok(())
    }

    /// Syncs with refusals by content only: everything else arrives, and everything is read.
    async fn poison_only(&mut self) -> Result<(), Broken> {
        let mut left = None;
        for _ in 0..POISON_ROUNDS {
            self.round().await?;
            left = self.not_arrived()?;
            if left.is_none() {
                left = self.not_shown()?;
            }
            if left.is_none() {
                return Ok(());
            }
        }
        let how =
            self.middlebox.weather().refuses().map_or_else(String::new, |how| format!("{how:?}"));
        Err(Broken(format!(
            "bodies with poison meet {how}, and after {POISON_ROUNDS} rounds {}",
            left.unwrap_or_default()
        )))
    }

    /// Syncs without faults: everything arrives, and all devices agree.
    async fn clear(&mut self) -> Result<(), Broken> {
        let mut left = None;
        for _ in 0..CLEAR_ROUNDS {
            self.round().await?;
            left = self.not_settled()?;
            if left.is_none() {
                self.round().await?;
                return self.check_end().await;
            }
        }
        Err(Broken(format!(
            "nothing is in the way any more, and after {CLEAR_ROUNDS} rounds {}",
            left.unwrap_or_default()
        )))
    }

    async fn round(&mut self) -> Result<(), Broken> {
        self.advance(HOUR);
        for number in 0..self.devices.len() {
            self.sync(number, true).await?;
        }
        Ok(())
    }

    async fn sync(&mut self, number: usize, patiently: bool) -> Result<(), Broken> {
        if self.one_shot {
            self.reopen(number)?;
        }
        let (Some(device), Some(remotes)) = (self.devices.get(number), self.remotes.get(number))
        else {
            return Ok(());
        };
        let remote = if patiently { &remotes.patient } else { &remotes.hasty };
        device.sync(remote, &self.options).await?;
        self.check_dead_letters(number)
    }

    fn reopen(&mut self, number: usize) -> Result<(), Broken> {
        self.reopenings += 1;
        self.devices.get_mut(number).map_or(Ok(()), Device::reopen)
    }

    fn advance(&self, milliseconds: u64) {
        self.server_clock.advance(milliseconds);
        self.devices.iter().for_each(|device| device.clock.advance(milliseconds));
    }

    /// Writes one change, or several as a transaction.
    fn write(&mut self, number: usize) -> Result<(), Broken> {
        let count = if self.dice.chance(200) { self.dice.between(2, 4) } else { 1 };
        let (mut mutations, mut keys) = (Vec::new(), BTreeSet::new());
        let mut is_tainted = false;
        for _ in 0..count {
            let (mutation, is_poisoned) = self.mutation(number)?;
            if keys.insert(mutation.key.clone()) {
                is_tainted |= is_poisoned || self.tainted.contains(&mutation.key);
                mutations.push(mutation);
            }
        }
        if is_tainted {
            self.tainted.extend(keys);
        }
        for mutation in &mutations {
            self.note(mutation);
        }
        let Some(device) = self.devices.get(number) else { return Ok(()) };
        let written = device.book()?.transaction(mutations);
        let written = written.map_err(|error| Broken(format!("a write was refused: {error:?}")))?;
        self.ops += written.iter().filter_map(fieldbook::Written::op).count() as u64;
        Ok(())
    }

    /// Records the expected fields of a record that only one book writes.
    fn note(&mut self, mutation: &Mutation) {
        if mutation.key.entity.as_str() != "own" {
            return;
        }
        let is = self.own.entry(mutation.key.clone()).or_default();
        if mutation.kind == fieldbook::record::OpKind::Delete {
            *is = None;
        } else {
            let said = mutation.fields.to_fields().unwrap_or_default();
            is.get_or_insert_default().extend(said.into_map());
        }
    }

    fn mutation(&mut self, number: usize) -> Result<(Mutation, bool), Broken> {
        self.counter += 1;
        let is_poisoned = self.poisons && self.dice.chance(150);
        let text = if is_poisoned {
            format!("{POISON} {}", self.counter)
        } else {
            self.counter.to_string()
        };
        if self.dice.chance(350) {
            let key = key("lead", &self.dice.index(LEADS).to_string())?;
            let field = if self.dice.chance(500) { "a" } else { "b" };
            let is_there = self.is_there(number, &key)?;
            let fields = fields(&[(field, json!(text))]);
            let mutation = if is_there {
                Mutation::update(key, fields)
            } else {
                Mutation::create(key, fields)
            };
            return Ok((mutation, is_poisoned));
        }
        let id = self.dice.index(12);
        let key = key("own", &format!("{number}-{id}"))?;
        let is_there = self.own.get(&key).is_some_and(Option::is_some);
        Ok(if is_there && self.dice.chance(80) {
            (Mutation::delete(key), false)
        } else if is_there {
            (
                Mutation::update(key, fields(&[("t", json!(text)), ("n", json!(self.counter))])),
                is_poisoned,
            )
        } else {
            (Mutation::create(key, fields(&[("t", json!(text))])), is_poisoned)
        })
    }

    fn is_there(&self, number: usize, key: &RecordKey) -> Result<bool, Broken> {
        let Some(device) = self.devices.get(number) else { return Ok(false) };
        let record = device.book()?.records().get(key);
        Ok(record.map_err(|error| Broken(format!("a record does not read: {error:?}")))?.is_some())
    }

    /// Writes half of a record in each of two books. The record is too large as a whole, so the
    /// server itself refuses one half.
    fn write_too_much(&mut self) -> Result<(), Broken> {
        for (field, device) in ["a", "b"].into_iter().zip(&self.devices) {
            let fields = fields(&[(field, json!("x".repeat(BIG_BYTES)))]);
            let written = device.book()?.write(Mutation::create(key("big", "1")?, fields));
            written.map_err(|error| Broken(format!("a write was refused: {error:?}")))?;
            self.ops += 1;
        }
        Ok(())
    }

    fn counts(&self) -> Counts {
        let counts = self.middlebox.tally().counts.clone();
        Counts { ops: self.ops, reopenings: self.reopenings, ..counts }
    }
}

/// Makes a key.
pub(crate) fn key(entity: &str, id: &str) -> Result<RecordKey, Broken> {
    RecordKey::parse(entity, id).map_err(|error| Broken::harness("no key", error))
}

fn fields(members: &[(&str, Value)]) -> Fields {
    members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}
