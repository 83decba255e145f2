//! The player: it carries out each step of the schedule, then syncs every device until quiet and
//! compares it.
//!
//! Invariants:
//! 1. A transaction is written after a pull at its base position and sent at its own position, not
//!    earlier. Later transactions of its author stay on the device, because their undo windows are
//!    still open by the device's clock.
//! 2. Nothing here depends on real time, on the order of threads or on chance: the same stream and
//!    seed have the same result.
//!
//! What it is not: a judge. It collects differences, and the report has the verdict.

use std::sync::Arc;
use std::time::Duration;

use fieldbook::record::OpId;
use fieldbook::sync::Hold;
use fieldbook::{Book, RunOptions};

use crate::census::Census;
use crate::clock::VirtualClock;
use crate::compare::{Difference, ServerTable};
use crate::failure::Failure;
use crate::fleet::{Fleet, Owed, UNDO_WINDOW};
use crate::schedule::{What, schedule};
use crate::source::{Source, at_line};
use crate::stream::Stream;
use crate::sync::Syncer;
use crate::write::{WriteError, Writes, write, write_late};

/// The most tries of a device within one push while the server defers it.
const PUSH_RUNS: u32 = 30;
/// The most transactions of a device that are not pushed: the next one, and one behind it that its
/// undo window keeps there. The windows of two transactions that were written at different times
/// are never open at the same moment.
const OWED: usize = 2;
/// The most rounds of syncing all devices at the end.
const ROUNDS: u32 = 20;
/// The most syncs of one device to become quiet when nobody writes any more.
const QUIET_RUNS: u32 = 10;

pub(crate) struct Player {
    pub(crate) stream: Stream,
    pub(crate) fleet: Fleet,
    pub(crate) syncer: Syncer,
    /// The virtual time: the server's clock.
    pub(crate) world: Arc<VirtualClock>,
    pub(crate) writes: Writes,
    /// Ops that could not be pushed at their position, and were left for the end.
    pub(crate) late_ops: u64,
}

/// The state at the end.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    pub(crate) quiet: bool,
    pub(crate) rounds: u32,
    pub(crate) census: Census,
    /// The differences between the server and a device, by author.
    pub(crate) unequal: Vec<(usize, Vec<Difference>)>,
    /// The faults that a check of a book found.
    pub(crate) faults: Vec<String>,
}

impl Player {
    /// Plays the whole stream.
    pub(crate) async fn play(&mut self) -> Result<(), Failure> {
        if let Some(first) = self.stream.mutations(0)?.first() {
            self.world.set(first.made_at);
        }
        for step in schedule(&self.stream.transactions, self.stream.authors.len()) {
            match step.what {
                What::Write => self.write(step.transaction).await?,
                What::Push => self.push(step.transaction).await?,
            }
        }
        Ok(())
    }

    /// Writes a transaction at its base position, or as soon after it as it can be kept behind
    /// earlier ones.
    async fn write(&mut self, number: usize) -> Result<(), Failure> {
        let Some(author) =
            self.stream.transactions.get(number).map(|transaction| transaction.author)
        else {
            return Ok(());
        };
        let device = self.fleet.device(author)?;
        if !device.waiting.is_empty() || device.owed.len() >= OWED {
            device.waiting.push_back(number);
            self.writes.postponed_transactions += 1;
            return Ok(());
        }
        self.write_now(number, author).await
    }

    async fn write_now(&mut self, number: usize, author: usize) -> Result<(), Failure> {
        let mutations = self.stream.mutations(number)?;
        let device = self.fleet.device(author)?;
        device.clock.set(self.world.wall());
        let book = self.fleet.book(author)?;
        let pull = RunOptions { pull_only: true, ..RunOptions::default() };
        self.syncer.sync(&book, self.fleet.clock(author)?, &pull).await?;

        let device = self.fleet.device(author)?;
        let made_at = mutations.iter().map(|mutation| mutation.made_at).max().unwrap_or_default();
        let written_at = made_at.max(device.wrote_at.plus(UNDO_WINDOW));
        device.clock.set(written_at);
        device.wrote_at = written_at;
        let count = mutations.len() as u64;
        let (ops, late) = write(&book, mutations, &mut self.writes)
            .map_err(|error| refused(self.stream.source(), error))?;
        device.may_owe = true;
        device.owed.push_back(Owed { transaction: number, written_at, ops, late });
        self.syncer.progress.advance(count);
        Ok(())
    }

    async fn push(&mut self, number: usize) -> Result<(), Failure> {
        let Some(transaction) = self.stream.transactions.get(number) else { return Ok(()) };
        let author = transaction.author;
        self.world.advance_to(transaction.synced_at);
        let book = self.fleet.book(author)?;
        let device = self.fleet.device(author)?;
        let Some(place) = device.owed.iter().position(|owed| owed.transaction == number) else {
            return Ok(());
        };
        let mut leaving: Vec<_> = device.owed.drain(..=place).collect();
        let written_at = leaving.last().map(|owed| owed.written_at).unwrap_or_default();
        // A stream may have an arrival before the time of writing. The server would call such a
        // stamp ahead.
        self.world.advance_to(written_at);
        // If a later transaction was written, the clock shows the moment of that write: its undo
        // window is still open then and keeps it here, and the window of the leaving one has
        // closed.
        let write_at =
            if device.owed.is_empty() { self.world.wall().max(written_at) } else { written_at };
        let push_at =
            device.owed.front().map_or(write_at.plus(UNDO_WINDOW), |next| next.written_at);
        device.clock.set(push_at);
        let ops = leaving.iter_mut().flat_map(|owed| std::mem::take(&mut owed.ops)).collect();
        // Late mutations need what their author had read, so the push asks for a page.
        let push_only = leaving.iter().all(|owed| owed.late.is_empty());
        if !push_only {
            // Their stamp is not before the time that the device receives with that page, so the
            // server's clock shows that time too.
            self.world.advance_to(push_at);
        }
        self.send(author, &book, ops, push_only).await?;
        if !push_only && self.syncer.link.faults().is_some() {
            // The stream defines what its author had read, so no old or lost answer may keep it
            // from the device.
            self.syncer.link.heal(true);
            let pull = RunOptions { pull_only: true, ..RunOptions::default() };
            let pulled = self.syncer.sync(&book, self.fleet.clock(author)?, &pull).await;
            self.syncer.link.heal(false);
            pulled?;
        }
        for owed in leaving {
            if owed.late.is_empty() {
                continue;
            }
            // The device has pulled, so it now has what its author had read.
            let mutations = self.stream.mutations(owed.transaction)?;
            self.fleet.device(author)?.clock.set(write_at);
            let ops = write_late(&book, mutations, owed.late, &mut self.writes)
                .map_err(|error| refused(self.stream.source(), error))?;
            self.fleet.device(author)?.clock.set(push_at);
            self.send(author, &book, ops, true).await?;
        }
        drop(book);
        while let Some(next) = self.next_waiting(author)? {
            self.write_now(next, author).await?;
        }
        Ok(())
    }

    /// Takes the next transaction that waited for earlier ones to be pushed, if it can be written
    /// now.
    fn next_waiting(&mut self, author: usize) -> Result<Option<usize>, Failure> {
        let device = self.fleet.device(author)?;
        Ok(if device.owed.len() < OWED { device.waiting.pop_front() } else { None })
    }

    /// Syncs until these ops have ended, or until the rest cannot be sent now.
    async fn send(
        &mut self,
        author: usize,
        book: &Book,
        ops: Vec<OpId>,
        push_only: bool,
    ) -> Result<(), Failure> {
        let owed = |book: &Book| -> Result<u64, Failure> {
            let found = ops.iter().map(|op| book.queue().find(*op));
            let found = found.collect::<Result<Vec<_>, _>>();
            let found =
                found.map_err(|error| Failure::new("the tail cannot be read").because(error))?;
            Ok(found.iter().flatten().count() as u64)
        };
        let options = RunOptions { push_only, ..RunOptions::default() };
        for _ in 0..PUSH_RUNS {
            self.syncer.sync(book, self.fleet.clock(author)?, &options).await?;
            if owed(book)? == 0 || !self.pass_backoff(author, book)? {
                break;
            }
        }
        self.late_ops += owed(book)?;
        Ok(())
    }

    /// Passes virtual time until the first backoff ends. Returns whether there was a backoff.
    fn pass_backoff(&mut self, author: usize, book: &Book) -> Result<bool, Failure> {
        let plan = book.queue().plan();
        let backoffs = plan.holds.values().filter_map(|hold| match hold {
            Hold::BackingOff { until, .. } => Some(*until),
            Hold::NotLetThrough { until, .. } => *until,
            _ => None,
        });
        let Some(until) = backoffs.min() else { return Ok(false) };
        self.fleet.device(author)?.clock.set(until);
        self.world.advance_to(until);
        Ok(true)
    }

    /// Syncs every device until quiet, compares each with the server, and takes each device's
    /// counts.
    ///
    /// With `discard`, a book is removed after its counts were taken: the books of a fleet may be
    /// larger than a disk.
    pub(crate) async fn end(
        &mut self,
        check: bool,
        discard: bool,
    ) -> Result<(Ending, ServerTable), Failure> {
        let mut ending = Ending::default();
        self.world.advance(Duration::from_secs(60));
        let drained = self.drain(&mut ending).await?;
        self.syncer.link.heal(true);
        let Some(reader) = self.stream.authors.first().cloned() else {
            return Err(Failure::new("the stream has no authors"));
        };
        let table = ServerTable::read(&self.syncer, &reader).await?;
        let mut still = true;
        for author in 0..self.stream.authors.len() {
            let book = self.fleet.book(author)?;
            still &= self.quieten(author, &book).await?;
            self.judge(author, &book, &table, check, &mut ending)?;
            drop(book);
            if discard {
                self.fleet.discard(author)?;
            }
            self.syncer.progress.advance(1);
        }
        ending.quiet = drained && still;
        Ok((ending, table))
    }

    /// Syncs devices with pending ops until no device has any. Returns whether that was reached.
    async fn drain(&mut self, ending: &mut Ending) -> Result<bool, Failure> {
        for _ in 0..ROUNDS {
            ending.rounds += 1;
            let mut owing = false;
            for author in 0..self.stream.authors.len() {
                // A device that had nothing pending and has written nothing since is skipped.
                if !self.fleet.device(author)?.may_owe {
                    continue;
                }
                let book = self.fleet.book(author)?;
                let device = self.fleet.device(author)?;
                device.clock.advance_to(self.world.wall());
                self.syncer.sync(&book, self.fleet.clock(author)?, &RunOptions::default()).await?;
                let status = book.status();
                let owes = status.pending > status.dead_letters;
                self.fleet.device(author)?.may_owe = owes;
                owing |= owes;
                if owes {
                    self.pass_backoff(author, &book)?;
                }
            }
            if !owing {
                return Ok(true);
            }
        }
        self.syncer.progress.tell(&format!("after {ROUNDS} rounds some devices have pending ops"));
        Ok(false)
    }

    /// Syncs one device until nothing is sent or received. Returns whether that was reached without
    /// a send.
    async fn quieten(&mut self, author: usize, book: &Book) -> Result<bool, Failure> {
        self.fleet.device(author)?.clock.advance_to(self.world.wall());
        let mut pushed = false;
        for _ in 0..QUIET_RUNS {
            let clock = self.fleet.clock(author)?;
            let synced = self.syncer.sync(book, clock, &RunOptions::default()).await?;
            pushed |= synced.pushed;
            if synced.idle && !synced.moved {
                return Ok(!pushed);
            }
        }
        Ok(false)
    }

    fn judge(
        &self,
        author: usize,
        book: &Book,
        table: &ServerTable,
        check: bool,
        ending: &mut Ending,
    ) -> Result<(), Failure> {
        let failed = |error: fieldbook::Error| {
            Failure::new("a book cannot be read at the end").because(error)
        };
        let differences = table.compare(book)?;
        if !differences.is_empty() {
            ending.unequal.push((author, differences));
        }
        ending.census.add(author, book).map_err(failed)?;
        if !check {
            return Ok(());
        }
        let name = self.stream.authors.get(author).map(ToString::to_string).unwrap_or_default();
        if let Err(damage) = book.audit().verify(|_| {}).map_err(failed)?.into_result() {
            ending.faults.push(format!("the log of {name} does not verify: {damage}"));
        }
        if let Some(differing) = book.audit().check_tables().map_err(failed)?.differing.first() {
            ending.faults.push(format!("the {differing} of {name} do not match its log"));
        }
        Ok(())
    }
}

fn refused(stream: &Source, (line, error): WriteError) -> Failure {
    at_line(stream, line, "begins what the book does not take").because(error)
}
