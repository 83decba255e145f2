//! Healing, and the laws once failures end: everything is sent, and all devices agree.

use std::collections::BTreeSet;

use fieldbook::Book;
use fieldbook::audit::entry::ParkScope;
use fieldbook::limits;
use fieldbook::record::OpId;
use fieldbook::sync::protocol::{ExchangeRequest, Failure};
use fieldbook::sync::{ExchangeParams, Hold, NextStep};
use fieldbook_core::rules::status::ParkReason;

use super::{World, entity_type, get, is_image, oracle};
use crate::app::{ENTITIES, as_read, knows};
use crate::broken::{Broken, ensure};

/// The most rounds in which all devices sync.
const ROUNDS: usize = 60;
/// The most exchanges of one device in a round. Each ends something, so the number of pending ops
/// bounds them.
const EXCHANGES: usize = 120;

impl World {
    /// Ends all faults: disks and clocks are right, and messages in flight arrive or are lost.
    ///
    /// # Errors
    /// [`Broken`] if an invariant is broken.
    pub fn heal(&mut self) -> Result<(), Broken> {
        self.server.denied_actors.clear();
        self.server.denied_entities.clear();
        self.server.way = None;
        if self.server.is_set_back {
            self.server.declare();
        }
        for number in 0..self.devices.len() {
            let now = self.now;
            let device = self.device(number)?;
            device.disk().heal();
            device.clock.set_wall(now);
            self.settle(number)?;
            // A call may have met the failure before the failure was cancelled.
            self.device(number)?.disk().heal();
        }
        self.devices.iter_mut().for_each(|device| device.cut_off = false);
        while self.messages() > 0 {
            if let Some(number) = self.deliver(0, None)? {
                self.settle(number)?;
                self.check(number, false)?;
            }
        }
        self.devices.iter_mut().for_each(|device| device.open = None);
        // The last version of the app reaches everyone in the end.
        let version = self.devices.iter().map(|device| device.version).max().unwrap_or(1);
        for number in 0..self.devices.len() {
            if self.device(number)?.version < version {
                self.upgrade_to(number, version)?;
                self.settle(number)?;
                self.check(number, false)?;
            }
        }
        Ok(())
    }

    /// Syncs all devices until no op is pending and nothing is new.
    ///
    /// # Errors
    /// [`Broken`] if that does not end, or does not end in the same state for all.
    pub fn settle_all(&mut self) -> Result<(), Broken> {
        for round in 0..ROUNDS {
            let before = self.server.ledger.now.applied.len();
            for number in 0..self.devices.len() {
                // Each of the two users signs in.
                for _ in 0..2 {
                    self.sign_in(number)?;
                    self.settle_user(number, round)?;
                }
            }
            // Seldom is everything so quiet: what is synced can be trimmed.
            if self.setup().seed.is_multiple_of(3) {
                for number in 0..self.devices.len() {
                    self.trim(number, round)?;
                }
            }
            self.advance(2 * 3_600_000);
            let owed: usize = self.devices.iter().map(|device| device.model.pending()).sum();
            if owed == 0 && self.server.ledger.now.applied.len() == before && round > 0 {
                self.mend_all()?;
                return self.check_agreement();
            }
        }
        let stuck = self.devices.iter().position(|device| device.model.pending() > 0);
        let mut holds = Vec::new();
        for number in stuck.into_iter().chain(stuck) {
            self.sign_in(number)?;
            let device = self.device(number)?;
            holds.push((device.actor.clone(), device.book()?.queue().plan().holds));
        }
        Err(Broken::new(
            "L1",
            format!("{ROUNDS} rounds of syncing did not settle everything: {holds:?}"),
        ))
    }

    /// Trims a device's log, and checks what is left.
    fn trim(&mut self, number: usize, round: usize) -> Result<(), Broken> {
        let device = get(&mut self.devices, number)?;
        let keep = 5 * round as u64;
        if device.compact(keep, &self.server.ledger)? {
            self.stats.trimmed += 1;
            self.check(number, false)?;
            self.check_thoroughly(number)?;
        }
        Ok(())
    }

    /// Decides and syncs like the user who is signed in.
    fn settle_user(&mut self, number: usize, round: usize) -> Result<(), Broken> {
        self.decide_letters(number, round)?;
        self.decide_conflicts(number, round)?;
        self.decide_held(number)?;
        self.decide_parked(number, round)?;
        self.renew(number)?;
        self.settle(number)?;
        self.accept_server(number)?;
        self.settle(number)?;
        self.sync(number)
    }

    /// Decides on the dead letters like a person: sends them again first, and discards those that
    /// are refused again.
    fn decide_letters(&mut self, number: usize, round: usize) -> Result<(), Broken> {
        let device = self.device(number)?;
        let dead: Vec<_> = device.model.dead().into_iter().collect();
        for op in dead {
            if !device.model.dead().contains(&op) {
                // The dead letter ended together with another one.
                continue;
            }
            let book = device.book()?;
            let done = if round < 2 {
                book.dead_letters().retry(vec![op])
            } else {
                book.dead_letters().discard(vec![op], "given up")
            };
            device.called(done)?;
            self.settle(number)?;
            return self.decide_letters(number, round);
        }
        Ok(())
    }

    /// Chooses in every open conflict, like a person.
    fn decide_conflicts(&mut self, number: usize, round: usize) -> Result<(), Broken> {
        let conflicts = self.device(number)?.book()?.conflicts().all();
        let conflicts = conflicts.map_err(|error| Broken::new("S1", format!("{error:?}")))?;
        for (back, _) in conflicts.iter().rev().enumerate().filter(|(_, conflict)| conflict.open) {
            self.decide(number, back, (back + round).is_multiple_of(2))?;
            self.settle(number)?;
        }
        Ok(())
    }

    /// Discards ops that refer to deleted records, like a person.
    fn decide_held(&mut self, number: usize) -> Result<(), Broken> {
        let device = self.device(number)?;
        let book = device.book()?;
        let held = book.queue().plan().holds;
        let places =
            held.iter().filter(|(_, hold)| hold.waits_for_correction()).map(|(place, _)| *place);
        let places: Vec<_> = places.collect();
        let ops =
            device.model.ops.iter().filter(|(_, op)| places.contains(&op.place)).map(|(id, _)| *id);
        let ops: Vec<_> = ops.collect();
        if ops.is_empty() {
            return Ok(());
        }
        let done = book.dead_letters().discard(ops, "what it refers to is gone");
        device.called(done)?;
        self.settle(number)
    }

    /// Decides like a person on ops that were stale or ahead too often: sends them again first, and
    /// then discards them. An edit of a record with a stamp far ahead of the time stays ahead until
    /// that time is reached.
    fn decide_parked(&mut self, number: usize, round: usize) -> Result<(), Broken> {
        let device = self.device(number)?;
        let book = device.book()?;
        let Some(op) = parked_for_a_person(book)?.into_iter().next() else { return Ok(()) };
        let done = if round < 2 {
            book.dead_letters().retry(vec![op])
        } else {
            book.dead_letters().discard(vec![op], "it never got in")
        };
        device.called(done)?;
        self.settle(number)?;
        self.decide_parked(number, round)
    }

    /// Syncs one device like the product's loop, without failures.
    fn sync(&mut self, number: usize) -> Result<(), Broken> {
        let mut pull = true;
        for exchange in 0..EXCHANGES {
            let ask = ExchangeParams {
                first: exchange == 0,
                push: true,
                pull,
                batch_ops: limits::BATCH_OPS,
                batch_bytes: limits::BATCH_BYTES,
                page_limit: 4,
            };
            let request = match self.prepare(number, &ask)? {
                Some(NextStep::Exchange(request)) => request,
                Some(NextStep::Idle { next_wake }) => {
                    return self.check_idle(number, next_wake.is_some());
                }
                None => {
                    return Err(Broken::new("L1", "a healed device could not prepare an exchange"));
                }
            };
            pull = match self.serve(number, &request, None)? {
                Ok(answer) => get(&mut self.devices, number)?.take(&request, answer)?,
                Err(failure) => self.hear_refusal(number, &request, &failure)?,
            };
            self.settle(number)?;
            self.check(number, false)?;
            let asks = |scope: &ParkScope| matches!(scope, ParkScope::Server(..));
            if self.device(number)?.model.parks.iter().any(asks) {
                self.accept_server(number)?;
                self.settle(number)?;
                pull = true;
            }
        }
        let holds = self.device(number)?.book()?.queue().plan();
        Err(Broken::new(
            "L1",
            format!("{EXCHANGES} exchanges did not bring a device to rest: {holds:?}"),
        ))
    }

    /// Checks a refusal. A healed server refuses a device only because it is another epoch than the
    /// one that the device has read.
    fn hear_refusal(
        &mut self,
        number: usize,
        request: &ExchangeRequest,
        failure: &Failure,
    ) -> Result<bool, Broken> {
        let behind = matches!(failure, Failure::Refused { code } if code == "server_behind");
        let device = self.device(number)?;
        ensure(behind, "L1", || format!("a healed server refused a request: {failure:?}"))?;
        let failed = device.book()?.exchange().fail(request, failure);
        device.called(failed)?;
        Ok(true)
    }

    /// Checks L3 and L2: a device at rest has nothing to send, has a time to wake, or names the
    /// person that it waits for; and it has read the server's whole state.
    fn check_idle(&mut self, number: usize, wakes: bool) -> Result<(), Broken> {
        let device = get(&mut self.devices, number)?;
        let conflicts = device.book()?.conflicts().all();
        let conflicts = conflicts.map_err(|error| Broken::new("S1", format!("{error:?}")))?;
        let undecided: Vec<_> = conflicts
            .iter()
            .filter(|conflict| conflict.open)
            .map(|conflict| ParkScope::Op(conflict.op))
            .collect();
        let asks = !undecided.is_empty() || !device.model.dead().is_empty();
        let sent_by_other = device.model.ops_of_others(&device.actor);
        let excused = wakes || device.model.pending() == 0 || asks || sent_by_other;
        let mut stuck = device.model.parks.iter().filter(|scope| oracle::is_stuck(scope));
        let parked = parked_for_a_person(device.book()?)?.into_iter();
        let parked: Vec<_> = parked.map(ParkScope::Op).collect();
        let stuck =
            stuck.find(|scope| !undecided.contains(scope) && !parked.contains(scope)).cloned();
        let holds = device.book()?.queue().plan().holds;
        let excused =
            excused || !parked.is_empty() || holds.values().any(Hold::waits_for_correction);
        ensure(excused && stuck.is_none(), "L3", || {
            format!(
                "{} rests with ops that nothing will wake: {holds:?}, parked {stuck:?}",
                device.actor
            )
        })?;
        oracle::check_read(device, &self.server.ledger)
    }

    /// Checks L2 and S6: every op has its end, and every device reads the server's state.
    fn check_agreement(&mut self) -> Result<(), Broken> {
        for number in 0..self.devices.len() {
            self.check(number, false)?;
            self.check_thoroughly(number)?;
            let device = get(&mut self.devices, number)?;
            let open = device.model.ops.values().find(|op| op.end.is_none());
            ensure(open.is_none(), "S6", || format!("an op has no end: {open:?}"))?;
            let ledger = &self.server.ledger;
            let ops = ledger.now.ops.iter().filter(|(op, _)| !ledger.shared.contains(op));
            let twice = ops.into_iter().find(|(_, units)| units.len() > 1);
            ensure(twice.is_none(), "S7", || format!("an op took effect twice: {twice:?}"))?;
            let mut seen = 0;
            for entity in ENTITIES.iter().map(|name| entity_type(name)) {
                let entity = entity?;
                if !knows(device.version, &entity) {
                    continue;
                }
                let page = device.book()?.records().list(&entity, None, usize::MAX);
                let page =
                    page.map_err(|error| Broken::new("L2", format!("no list: {error:?}")))?;
                for record in page.iter() {
                    let key = record.key();
                    seen += 1;
                    let stored = self.server.ledger.now.current.get(&key);
                    let image = stored.and_then(|stored| stored.image.clone());
                    let image = image.map(|image| as_read(image, device.version));
                    let same = image.is_some_and(|image| is_image(record.json, &image));
                    ensure(same, "L2", || {
                        format!("{} reads {key} otherwise than the server", device.actor)
                    })?;
                }
            }
            let there = self
                .server
                .ledger
                .now
                .current
                .values()
                .filter(|stored| stored.image.is_some())
                .count();
            ensure(seen == there, "L2", || {
                format!("{} has {seen} records and the server {there}", device.actor)
            })?;
            self.stats.conflicts +=
                self.devices.get(number).map_or(0, |device| device.model.conflicts);
        }
        Ok(())
    }
}

/// Returns the ops that are parked for a reason that a person can end, without a conflict to choose
/// in.
fn parked_for_a_person(book: &Book) -> Result<BTreeSet<OpId>, Broken> {
    let unreadable = |error: String| Broken::new("S1", error);
    let snapshot = book.snapshot().map_err(|error| unreadable(format!("{error:?}")))?;
    let parked =
        snapshot.parked_ops().map_err(|error| unreadable(format!("{error:?}")))?.into_iter();
    Ok(parked
        .filter(|(_, code)| ParkReason::of_op(code).is_for_a_person())
        .map(|(op, _)| op)
        .collect())
}
