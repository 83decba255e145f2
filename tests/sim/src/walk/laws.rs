//! The laws of every state, and the laws of a state at rest.
//!
//! The laws are about observable facts: the records of an app, its lists, its recorded conflicts,
//! and the server's state; and about the true events, which are followed independently of the
//! rules.

use fieldbook_core::{OpKind, Policy};

use super::law::{Broken, Law};
use super::rows::{Fate, OpGhost, Said, at_server, confirmed, image, words};
use super::state::State;
use super::tell::op_name;
use super::world::{FIELDS, Ground, OPS_OF_A_DEVICE, device_name};

impl State {
    /// Checks that every op waits or has ended.
    pub(super) fn check(&self, _: &Ground) -> Vec<Broken> {
        let mut broken = Vec::new();
        for (slot, ghost) in self.ghosts.each() {
            let waits = self
                .device(slot / OPS_OF_A_DEVICE)
                .is_some_and(|device| device.tail.op(ghost.place).is_some());
            if waits != (ghost.fate == Fate::Pending) {
                let what = if waits { "waits though it ended" } else { "is gone without an end" };
                broken.push(Broken::new(Law::Outcome, format!("{} {what}", op_name(slot))));
            }
        }
        broken
    }

    /// Returns the laws that are broken in a state at rest.
    pub(super) fn check_at_rest(&self, ground: &Ground) -> Vec<Broken> {
        let mut broken = Vec::new();
        for number in 0..self.devices.len() {
            self.check_device(ground, number, &mut broken);
        }
        for (slot, ghost) in self.ghosts.each() {
            self.check_lost(ground, slot, ghost, &mut broken);
        }
        self.check_twice(ground, &mut broken);
        if ground.asks_join {
            self.check_join(ground, &mut broken);
        }
        broken
    }

    fn check_device(&self, ground: &Ground, number: usize, broken: &mut Vec<Broken>) {
        let Some(device) = self.device(number) else { return };
        let who = device_name(number);
        if !self.all_wait_for_people(ground, number) {
            let what = format!(
                "{who} has something left to send, and neither sends it nor shows whom it waits for"
            );
            broken.push(Broken::new(Law::Rest, what));
        }
        for key in &ground.keys {
            let (known, theirs) = (confirmed(device, key), at_server(self.server.get(), key));
            // For a record that never existed, version 0 means the same as none.
            let version = known.0.filter(|version| version.number() > 0);
            if (version, &known.1) != (theirs.0, &theirs.1) {
                let (ours, theirs) = (words(known.1.as_ref()), words(theirs.1.as_ref()));
                let what = format!("{who} knows {ours} of {key}, the server has {theirs}");
                broken.push(Broken::new(Law::Equal, what));
            } else if device.tail.ops_of(key).next().is_none() && image(device, key) != theirs.1 {
                let (ours, theirs) = (words(image(device, key).as_ref()), words(theirs.1.as_ref()));
                let what = format!(
                    "{who} reads {ours} of {key} with nothing left to send, the server has {theirs}"
                );
                broken.push(Broken::new(Law::Equal, what));
            }
        }
    }

    /// Checks that a write of an op that is not at the server was overwritten by an author who had
    /// read it, is recorded, or a person's decision ended it.
    fn check_lost(&self, ground: &Ground, slot: usize, ghost: &OpGhost, broken: &mut Vec<Broken>) {
        // A dead letter that lost all its fields by a decision of a person stays listed, and can be
        // sent again with nothing left of it.
        let is_discarded = ghost.yielded.iter().all(|yielded| *yielded);
        if is_discarded || !matches!(ghost.fate, Fate::Acked | Fate::Superseded | Fate::NoEffect) {
            return;
        }
        let (Some(key), server) = (ground.keys.get(ghost.record), self.server.get()) else {
            return;
        };
        let (version, fields) = at_server(server, key);
        let holding = version.and_then(|version| server.holding(ghost.record, version));
        for (field, name) in FIELDS.iter().enumerate() {
            let Some(said) = ghost.said.get(field).copied().filter(|said| *said != Said::Nothing)
            else {
                continue;
            };
            let stands = Said::by(fields.as_ref(), name);
            let writer = holding.and_then(|holding| holding.fields.get(field).copied().flatten());
            if stands == said || writer == Some(slot) || (said, stands) == (Said::Null, Said::Gone)
            {
                continue;
            }
            let is_told = self.ghosts.each().any(|(other, it)| {
                let speaks = self.ghosts.says(other, field) || it.kind == OpKind::Create;
                let made = it.fate != Fate::Unsent;
                let on_record = ghost.met.has(other) || it.met.has(slot);
                let knowing = it.made_on.has(slot) && speaks;
                let same = it.said.get(field) == Some(&said);
                other != slot
                    && it.record == ghost.record
                    && (on_record || made && (knowing || same))
            });
            // An author who wrote after a deletion had read the deletion.
            let deleted = said == Said::Gone
                && self.ghosts.each().any(|(other, it)| other != slot && it.made_on.has(slot));
            if !is_told && !deleted {
                let what = format!(
                    "{} said {} of {name} in {key}, the server has {}, and nothing is on record of it",
                    op_name(slot),
                    in_words(said),
                    in_words(stands)
                );
                broken.push(Broken::new(Law::NothingLost, what));
            }
        }
    }

    /// Checks that a write does not return after an author who had read it has overwritten it.
    /// These ops overwrote nothing:
    ///
    /// - an op that lost as a whole;
    /// - a deletion, if the op that made the record again is on record over it;
    /// - a deletion in a field that a person gave up in the creation after it;
    /// - an op that only a former epoch of the server accepted. The device offers a deletion of a
    ///   former epoch again with its stamp. A later write of the present epoch wins over it, as it
    ///   does without a restore.
    fn check_twice(&self, ground: &Ground, broken: &mut Vec<Broken>) {
        let server = self.server.get();
        for (record, key) in ground.keys.iter().enumerate() {
            let version = at_server(server, key).0;
            let Some(holding) = version.and_then(|version| server.holding(record, version)) else {
                continue;
            };
            for (field, name) in FIELDS.iter().enumerate() {
                let Some(writer) = holding.fields.get(field).copied().flatten() else { continue };
                let maker = holding.life.and_then(|slot| self.ghosts.of(slot));
                let is_overruled = |slot: usize| maker.is_some_and(|op| op.met.has(slot));
                let over = self.ghosts.each().find(|(other, by)| {
                    let yielded = self.gave_up(*other, by, field);
                    let acked = by.fate == Fate::Acked
                        && by.record == record
                        && *other != writer
                        && !yielded
                        && !by.gave_way.has(writer)
                        && !(by.kind == OpKind::Delete && is_overruled(*other))
                        && (server.epochs == 1 || holding.ops.has(*other));
                    let says =
                        |slot| self.ghosts.of(slot).and_then(|op| op.said.get(field).copied());
                    let another = says(*other) != says(writer);
                    acked && by.made_on.has(writer) && self.ghosts.says(*other, field) && another
                });
                if let Some((other, _)) = over {
                    let (writer, other) = (op_name(writer), op_name(other));
                    let what = format!(
                        "{name} of {key} is what {writer} wrote, though {other} overwrote it knowingly"
                    );
                    broken.push(Broken::new(Law::NothingTwice, what));
                }
            }
        }
    }

    /// Returns whether a person gave up a field of an op, or of a later op of the device that made
    /// anew what this op deleted.
    fn gave_up(&self, slot: usize, op: &OpGhost, field: usize) -> bool {
        let gave_up = |op: &OpGhost| op.yielded.get(field).copied().unwrap_or(false);
        let anew = |(later, it): (usize, &OpGhost)| {
            let follows = later > slot && later / OPS_OF_A_DEVICE == slot / OPS_OF_A_DEVICE;
            follows && it.record == op.record && gave_up(it)
        };
        gave_up(op) || op.kind == OpKind::Delete && self.ghosts.each().any(anew)
    }

    /// Checks that the server has the join of all accepted writes, with last write wins and without
    /// deletions.
    fn check_join(&self, ground: &Ground, broken: &mut Vec<Broken>) {
        let lww = ground.world.policies.iter().all(|policy| *policy == Policy::LastWriteWins);
        let deletes = self.ghosts.each().any(|(_, op)| op.kind == OpKind::Delete);
        if !lww || deletes {
            return;
        }
        for (record, key) in ground.keys.iter().enumerate() {
            let fields = at_server(self.server.get(), key).1;
            for (field, name) in FIELDS.iter().enumerate() {
                let taken = self.ghosts.each().filter(|(slot, op)| {
                    let ended = matches!(op.fate, Fate::Acked | Fate::Superseded | Fate::NoEffect);
                    op.record == record && ended && self.ghosts.says(*slot, field)
                });
                let greatest = taken.max_by_key(|(slot, op)| (op.stamp, ground.op_of(*slot)));
                let Some((slot, op)) = greatest else { continue };
                let (said, stands) = (
                    op.said.get(field).copied().unwrap_or_default(),
                    Said::by(fields.as_ref(), name),
                );
                if said != stands {
                    let what = format!(
                        "{} has the greatest stamp of {name} in {key} and said {}, the server has {}",
                        op_name(slot),
                        in_words(said),
                        in_words(stands)
                    );
                    broken.push(Broken::new(Law::Join, what));
                }
            }
        }
    }
}

fn in_words(said: Said) -> String {
    match said {
        Said::Nothing => "nothing".to_owned(),
        Said::Value(value) => value.to_string(),
        Said::Null => "that there is none".to_owned(),
        Said::Gone => "that it is deleted".to_owned(),
    }
}
