//! The actions of a person in the world: deciding on dead letters and conflicts, undoing, signing
//! in again.

use fieldbook::conflict::Choice;
use fieldbook::record::OpId;
use fieldbook::{Actor, Error, Fields};
use serde_json::{Map, Value};

use super::World;
use crate::broken::{Broken, ensure};
use crate::device::Device;

impl World {
    pub(super) fn verb(
        &mut self,
        number: usize,
        letter: usize,
        retry: bool,
    ) -> Result<Option<usize>, Broken> {
        let device = self.device(number)?;
        let Some(op) = dead_letter(device, letter) else { return Ok(None) };
        let book = device.book()?;
        let done = if retry {
            book.dead_letters().retry(vec![op])
        } else {
            book.dead_letters().discard(vec![op], "no longer wanted")
        };
        device.called(done)?;
        Ok(Some(number))
    }

    pub(super) fn correct(
        &mut self,
        number: usize,
        letter: usize,
        fields: &Map<String, Value>,
    ) -> Result<Option<usize>, Broken> {
        let device = self.device(number)?;
        let Some(op) = dead_letter(device, letter) else { return Ok(None) };
        let fields: Fields =
            fields.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let written = device.book()?.dead_letters().correct(op, fields);
        self.written(number, written.map(|written| written.op()))
    }

    pub(super) fn undo(&mut self, number: usize, back: usize) -> Result<Option<usize>, Broken> {
        let device = self.device(number)?;
        let mut places: Vec<_> = device.model.ops.values().map(|op| op.place).collect();
        places.sort_unstable();
        let Some(place) = places.iter().rev().nth(back % places.len().max(1)).copied() else {
            return Ok(None);
        };
        let undone = device.book()?.queue().undo(place);
        self.written(
            number,
            undone.map(|undone| match undone {
                fieldbook::conflict::Undone::Compensated(op) => Some(op),
                _ => None,
            }),
        )
    }

    pub(super) fn decide(
        &mut self,
        number: usize,
        back: usize,
        mine: bool,
    ) -> Result<Option<usize>, Broken> {
        let device = self.device(number)?;
        let conflicts = device
            .book()?
            .conflicts()
            .all()
            .map_err(|error| Broken::new("S1", format!("{error:?}")))?;
        let Some(conflict) = conflicts.iter().rev().nth(back % conflicts.len().max(1)) else {
            return Ok(None);
        };
        if conflict.open {
            let choice = if mine { Choice::Local } else { Choice::Remote };
            let resolved = device.book()?.conflicts().resolve(conflict.id, choice);
            return self.written(number, resolved.map(|()| None));
        }
        let flipped = device.book()?.conflicts().flip(conflict.id);
        self.written(number, flipped.map(|written| written.op()))
    }

    /// Records what a person's decision wrote. A decision that no longer makes sense, or would
    /// write something invalid, is reported to the person.
    fn written(
        &mut self,
        number: usize,
        result: Result<Option<OpId>, Error>,
    ) -> Result<Option<usize>, Broken> {
        let refused = matches!(result, Err(Error::NotPossible(_) | Error::Rejected(_)));
        if !refused {
            let device = self.device(number)?;
            let written = device.called(result)?.flatten();
            device.acknowledge(written);
            self.stats.ops += u64::from(written.is_some());
        }
        Ok(Some(number))
    }

    /// Lets the other user of a device use the book.
    pub(super) fn sign_in(&mut self, number: usize) -> Result<Option<usize>, Broken> {
        let device = self.device(number)?;
        device.actor = other_user(&device.actor);
        let actor = user(&device.actor)?;
        device.book()?.act_as(actor);
        Ok(Some(number))
    }

    /// Hands a pending op over to the user who does not send it, and checks that its other ops on
    /// that record go with it.
    pub(super) fn hand_over(
        &mut self,
        number: usize,
        back: usize,
    ) -> Result<Option<usize>, Broken> {
        let device = self.device(number)?;
        let tails =
            device.model.records.iter().flat_map(|(key, held)| {
                held.tail.iter().map(move |waiting| (key.clone(), waiting.op))
            });
        let pending: Vec<_> = tails.collect();
        let Some((key, op)) = pending.get(back % pending.len().max(1)).cloned() else {
            return Ok(None);
        };
        let Some(from) = device.model.ops.get(&op).map(|op| op.sender.clone()) else {
            return Ok(None);
        };
        let to = user(&other_user(&from))?;
        let handed = device.book()?.failed().hand_over(vec![op], &to);
        let Some(count) = device.called(handed)? else { return Ok(Some(number)) };
        self.settle(number)?;
        let model = &self.device(number)?.model;
        let held = model.records.get(&key).into_iter().flat_map(|held| &held.tail);
        let left = held.filter_map(|held| model.ops.get(&held.op)).find(|op| op.sender == from);
        ensure(count > 0 && left.is_none(), "S19", || {
            format!("{count} ops of {from} were handed over, and {left:?} stays on {key}")
        })?;
        Ok(Some(number))
    }

    /// Takes the server's state, and checks that nothing is left that a later exchange could send.
    pub(super) fn take_state(&mut self, number: usize) -> Result<Option<usize>, Broken> {
        let device = self.device(number)?;
        let taken = device.book()?.servers().take_state("the device starts over");
        let Some(ended) = device.called(taken)? else { return Ok(Some(number)) };
        let waited = device.model.pending();
        self.settle(number)?;
        let device = self.device(number)?;
        let (left, units) = (device.model.pending(), device.model.units.len());
        ensure(left == 0 && units == 0, "reset", || {
            format!("{left} ops and {units} units are left after a reset")
        })?;
        ensure(ended == waited as u64, "reset", || {
            format!("{waited} ops waited, and {ended} were ended")
        })?;
        Ok(Some(number))
    }

    pub(super) fn renew(&mut self, number: usize) -> Result<Option<usize>, Broken> {
        let device = self.device(number)?;
        let book = device.book()?;
        let done = book
            .servers()
            .resume(fieldbook::sync::Resume::Authenticated)
            .and_then(|()| book.servers().resume(fieldbook::sync::Resume::Upgraded));
        device.called(done)?;
        Ok(Some(number))
    }
}

/// Returns the other one of the two users of a device.
fn other_user(name: &str) -> String {
    match name.split_once('-') {
        Some(("actor", number)) => format!("guest-{number}"),
        Some((_, number)) => format!("actor-{number}"),
        None => name.to_owned(),
    }
}

fn user(name: &str) -> Result<Actor, Broken> {
    Actor::parse(name).map_err(|error| Broken::new("harness", error.to_string()))
}

fn dead_letter(device: &Device, letter: usize) -> Option<OpId> {
    let dead: Vec<OpId> = device.model.dead().into_iter().collect();
    dead.get(letter % dead.len().max(1)).copied()
}
