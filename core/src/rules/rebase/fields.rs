//! Fields that both sides wrote. Each field is resolved alone, or all fields as one.
//!
//! | who wins → | the server | the device | merged | a person has to choose |
//! |---|---|---|---|---|
//! | the local field | dropped, with earlier local writes of it | raised above the remote write, unless it is above | raised with the merged value | raised and parked |
//!
//! Invariants:
//! 1. A local value never comes back after a later local op set the field again.
//! 2. Only the last local write of a field is raised. A write that a later local op covers is not.
//!
//! What it does not do: decide who wins ([`super::policy`]).

use std::collections::BTreeSet;

use super::found::Found;
use super::policy::{Resolution, StampPair, resolve_field};
use super::{OpStanding, Subject};
use crate::entry::Winner;
use crate::fields::Fields;
use crate::record::{Register, Registers};

/// A field in which the last local write meets a remote write.
struct Contested {
    name: String,
    /// The op with the last local write.
    holder: usize,
    local: Register,
    stamps: StampPair,
    resolution: Resolution,
}

impl Subject<'_> {
    /// Resolves each field alone.
    pub(super) fn meet_in_fields(&mut self, ops: &[usize], since: &Registers, news: &[String]) {
        let (mut found, mut contested, mut agreed) = (self.nothing_found(), Vec::new(), Vec::new());
        for name in news {
            let Some((holder, local)) = self.last_local_write(ops, name) else { continue };
            let stamps = StampPair { local: local.stamp, remote: self.after.stamp_of(name) };
            let values = [since.value_of(name), &local.value, self.after.value_of(name)];
            if local.stamp <= since.stamp_of(name) && !self.is_first_of_epoch {
                continue;
            }
            if values[1] == values[2] {
                agreed.extend((stamps.later() == Winner::Local).then(|| name.clone()));
                continue;
            }
            let resolution = resolve_field(self.key, self.rules, name, values, stamps);
            found.add(name, values, &resolution);
            contested.push(Contested { name: name.clone(), holder, local, stamps, resolution });
        }
        found.winner = self.overall(ops, &found.fields);
        let undecided = found.winner == Winner::Undecided;
        let ending = self.ending(&contested, &found);
        self.lose_writes(ops, since, |number, name, write| {
            let Some(last) = contested.iter().find(|contested| contested.name == name) else {
                return agreed.iter().any(|agreed| agreed == name);
            };
            let stays = last.holder != number && !undecided && !ending.contains(&last.holder);
            stays && write.stamp < last.stamps.remote && write.value != last.local.value
        });
        let Some(last) = ops.last().copied().filter(|_| !contested.is_empty()) else { return };
        self.record(ops, found);
        for contested in contested {
            self.follow(contested, since);
        }
        if undecided {
            self.park(last);
        }
    }

    /// Returns the waiting ops that lose all their fields.
    fn ending(&self, contested: &[Contested], found: &Found) -> Vec<usize> {
        let lost: Vec<_> = found.lost().collect();
        let ends = |number: &usize| {
            let op = self.op(*number);
            op.standing == OpStanding::Waits
                && op.tail.writes.fields.keys().all(|name| lost.contains(name))
        };
        contested.iter().map(|contested| contested.holder).filter(ends).collect()
    }

    /// Loses local writes, for each op alone: a write that is not the last local one of its field,
    /// or that a local deletion covers. Each lost write whose value differs from the remote value
    /// is recorded, because a person can undo the last local write, and then the write is lost. A
    /// write above the remote write is dropped too: it must not be sent over the remote write
    /// before the last local write, or after a person undoes that.
    pub(super) fn lose_writes(
        &mut self,
        ops: &[usize],
        since: &Registers,
        is_lost: impl Fn(usize, &str, &Register) -> bool,
    ) {
        for number in ops.iter().copied() {
            let (mut found, mut above) = (self.nothing_found(), Vec::new());
            found.winner = Winner::Remote;
            for (name, write) in &self.op(number).tail.writes.fields {
                let remote = self.after.value_of(name);
                if write.value == *remote || !is_lost(number, name, write) {
                    continue;
                }
                let rule = self.rules.policy_of(name);
                let lost = Resolution { winner: Winner::Remote, merged: None, rule, by: None };
                found.add(name, [since.value_of(name), &write.value, remote], &lost);
                above.extend((write.stamp > self.after.stamp_of(name)).then(|| name.clone()));
            }
            if !found.fields.is_empty() {
                self.record(&[number], found);
            }
            if !above.is_empty() {
                self.drop_fields(number, &above);
            }
        }
    }

    /// Applies the result for one field.
    fn follow(
        &mut self,
        Contested { name, holder, stamps, resolution, .. }: Contested,
        since: &Registers,
    ) {
        let names = [name];
        let [name] = &names;
        if resolution.winner == Winner::Remote {
            for number in 0..=holder {
                let op = self.op(number);
                let is_above = |write: &Register| {
                    op.standing == OpStanding::Unanswered || write.stamp > stamps.remote
                };
                if op.standing != OpStanding::Ended
                    && op.tail.writes.fields.get(name).is_some_and(is_above)
                {
                    self.drop_fields(number, &names);
                }
            }
            return;
        }
        if resolution.winner == Winner::Local && stamps.later() == Winner::Local
            || self.is_covered(holder, name)
        {
            return;
        }
        let merged = resolution.merged.map(|value| Fields::from_iter([(name.clone(), value)]));
        let above = self.above(holder, &names, stamps.remote);
        self.raise(holder, &names, above, merged.as_ref());
        self.keep_order(holder, Some(name), above, since);
    }

    /// Resolves all fields with one pair of stamps: the two images meet unless they are equal. Only
    /// policies of single fields can make the fields differ in their winner.
    pub(super) fn meet_as_one(&mut self, ops: &[usize], since: &Registers, news: &[String]) {
        let Some(last) = ops.last().copied().filter(|_| !news.is_empty()) else { return };
        let tail: Vec<_> = ops.iter().map(|number| &self.op(*number).tail.writes).collect();
        let local = since.with(tail.iter().copied());
        if local.image() == self.after.image() {
            let stays = |name: &&String| local.stamp_of(name) > self.after.stamp_of(name);
            let agreed: Vec<_> = news.iter().filter(stays).cloned().collect();
            return self.lose_writes(ops, since, |_, name, _| agreed.iter().any(|own| own == name));
        }
        let differs = |name: &&String| local.value_of(name) != self.after.value_of(name);
        let names = tail.iter().flat_map(|writes| writes.fields.keys());
        let names: BTreeSet<_> = names.chain(news.iter().filter(differs)).cloned().collect();
        let greatest = tail.iter().map(|writes| writes.greatest()).max().unwrap_or_default();
        let remote_at = news.iter().map(|name| self.after.stamp_of(name)).max().unwrap_or_default();
        let stamps = StampPair { local: greatest, remote: remote_at };
        let (mut found, mut stays) = (self.nothing_found(), Fields::new());
        for name in &names {
            let values = [since.value_of(name), local.value_of(name), self.after.value_of(name)];
            let resolution = resolve_field(self.key, self.rules, name, values, stamps);
            found.add(name, values, &resolution);
            if resolution.winner != Winner::Remote {
                stays.set(name.clone(), resolution.merged.unwrap_or_else(|| values[1].clone()));
            }
        }
        found.winner = self.overall(ops, &found.fields);
        let undecided = found.winner == Winner::Undecided;
        let lost: Vec<_> = found.lost().collect();
        self.record(ops, found);
        if !lost.is_empty() {
            ops.iter().for_each(|number| self.drop_fields(*number, &lost));
        }
        if !stays.is_empty() {
            let above = if stamps.later() == Winner::Local && !undecided {
                stamps.local.edited_at
            } else {
                stamps.remote.max(stamps.local).edited_at.next()
            };
            let names: Vec<_> = stays.names().map(str::to_owned).collect();
            self.raise(last, &names, above, Some(&stays));
        }
        if undecided {
            self.park(last);
        }
    }

    /// Returns the last local write of a field, and the number of its op.
    fn last_local_write(&self, ops: &[usize], name: &str) -> Option<(usize, Register)> {
        let write = |number: &usize| {
            let write = self.op(*number).tail.writes.fields.get(name);
            write.map(|write| (*number, write.clone()))
        };
        ops.iter().rev().find_map(write)
    }
}
