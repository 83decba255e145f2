//! Playing: each step of the schedule done to the fleet, then every device synced until quiet and compared.
//!
//! Invariants:
//! 1. A transaction is written after a pull at its base position and sent at its position, not earlier: what its author
//!    wrote after it stays behind, because its undo window is still open by the device's clock.
//! 2. Nothing here depends on real time, on the order of threads or on chance: the same stream and seed give the same end.
//!
//! What it is not: a judge. What differs is collected, and the report says whether the play holds.

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

/// How often a device is tried again within one push while the server puts it off.
const PUSH_RUNS: u32 = 30;
/// How many transactions a device holds that have yet to be pushed: one that is next, and one behind it, which its undo window
/// keeps there. No moment lies within the windows of two that were written at different times.
const OWED: usize = 2;
/// How many rounds of syncing all devices get at the end.
const ROUNDS: u32 = 20;
/// How many syncs one device gets to become quiet when nobody writes any more.
const QUIET_RUNS: u32 = 10;

pub(crate) struct Player {
    pub(crate) stream: Stream,
    pub(crate) fleet: Fleet,
    pub(crate) syncer: Syncer,
    /// The virtual world's time: the server's clock.
    pub(crate) world: Arc<VirtualClock>,
    pub(crate) writes: Writes,
    /// Ops that could not be pushed at their position, and were left for the end.
    pub(crate) late_ops: u64,
}

/// How the end was.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    pub(crate) quiet: bool,
    pub(crate) rounds: u32,
    pub(crate) census: Census,
    /// What differs between the server and a device, by author.
    pub(crate) unequal: Vec<(usize, Vec<Difference>)>,
    /// What a check of a book found.
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

    /// Writes a transaction at its base position, or as soon after it as it can be kept behind those before it.
    async fn write(&mut self, number: usize) -> Result<(), Failure> {
        let Some(author) = self.stream.transactions.get(number).map(|transaction| transaction.author) else {
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
        // A stream may say that something arrived before it was made. The server's clock would call that ahead.
        self.world.advance_to(written_at);
        // If something was written since, the clock shows the moment at which that was written: its undo window is still
        // open then and keeps it here, while the window of what leaves has closed.
        let write_at = if device.owed.is_empty() { self.world.wall().max(written_at) } else { written_at };
        let push_at = device.owed.front().map_or(write_at.plus(UNDO_WINDOW), |next| next.written_at);
        device.clock.set(push_at);
        let ops = leaving.iter_mut().flat_map(|owed| std::mem::take(&mut owed.ops)).collect();
        // What was left for now can only be written on top of what its author had seen: a page is asked for with the push.
        let push_only = leaving.iter().all(|owed| owed.late.is_empty());
        if !push_only {
            // It is stamped no earlier than the time that the device is told with that page, so the server's clock shows it too.
            self.world.advance_to(push_at);
        }
        self.send(author, &book, ops, push_only).await?;
        if !push_only && self.syncer.link.faults().is_some() {
            // What its author had seen is the stream's word, so that no old or lost answer may keep it from the device.
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
            // The device has pulled, so that it now has what its author had seen.
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

    /// Takes the next transaction that waited for those before it to leave, if it can be written now.
    fn next_waiting(&mut self, author: usize) -> Result<Option<usize>, Failure> {
        let device = self.fleet.device(author)?;
        Ok(if device.owed.len() < OWED { device.waiting.pop_front() } else { None })
    }

    /// Syncs until these ops have ended, or those that have not cannot go now.
    async fn send(
        &mut self,
        author: usize,
        book: &Book,
        ops: Vec<OpId>,
        push_only: bool,
    ) -> Result<(), Failure> {
        let owed = |book: &Book| ops.iter().filter(|op| book.queue().find(**op).is_some()).count();
        let options = RunOptions { push_only, ..RunOptions::default() };
        for _ in 0..PUSH_RUNS {
            self.syncer.sync(book, self.fleet.clock(author)?, &options).await?;
            if owed(book) == 0 || !self.pass_backoff(author, book)? {
                break;
            }
        }
        self.late_ops += owed(book) as u64;
        Ok(())
    }

    /// Lets virtual time pass until the first backoff ends; returns whether there was one.
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

    /// Syncs every device until quiet, compares each with the server, and asks each what happened.
    ///
    /// With `discard`, a book is taken away once it was asked: a fleet's books together may be larger than a disk.
    pub(crate) async fn end(&mut self, check: bool, discard: bool) -> Result<(Ending, ServerTable), Failure> {
        let mut ending = Ending::default();
        self.world.advance(Duration::from_secs(60));
        let drained = self.drain(&mut ending).await?;
        self.syncer.link.heal(true);
        let Some(reader) = self.stream.authors.first().cloned() else {
            return Err(Failure::new("a play without authors has no end"));
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

    /// Syncs devices that still owe something until none does; returns whether that came about.
    async fn drain(&mut self, ending: &mut Ending) -> Result<bool, Failure> {
        for _ in 0..ROUNDS {
            ending.rounds += 1;
            let mut owing = false;
            for author in 0..self.stream.authors.len() {
                // A device that wrote nothing since it last owed nothing is left for later.
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
        self.syncer.progress.tell(&format!("after {ROUNDS} rounds some devices still owe changes"));
        Ok(false)
    }

    /// Syncs one device until nothing comes or goes; returns whether that came about without anything leaving.
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
        let failed =
            |error: fieldbook::Error| Failure::new("a book cannot be read at the end").because(error);
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
            ending.faults.push(format!("the {differing} of {name} are not what its log comes to"));
        }
        Ok(())
    }
}

fn refused(stream: &Source, (line, error): WriteError) -> Failure {
    at_line(stream, line, "begins what the book does not take").because(error)
}
