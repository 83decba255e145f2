//! Fields that both sides wrote. Each field is settled alone, or all fields as one.
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
use super::policy::{Settled, Two, settle_field};
use super::{Standing, Subject};
use crate::entry::Winner;
use crate::fields::Fields;
use crate::record::{Register, Registers};

/// A field in which the last local write meets a remote write.
struct Met {
    name: String,
    /// The op with the last local write.
    holder: usize,
    two: Two,
    settled: Settled,
}

impl Subject<'_> {
    /// Settles each field alone.
    pub(super) fn meet_in_fields(&mut self, ops: &[usize], since: &Registers, news: &[String]) {
        let (mut found, mut met, mut agreed) = (self.nothing_found(), Vec::new(), Vec::new());
        for name in news {
            let Some((holder, ours)) = self.last_word(ops, name) else { continue };
            let two = Two { ours: ours.stamp, theirs: self.after.stamp_of(name) };
            let values = [since.value_of(name), &ours.value, self.after.value_of(name)];
            if ours.stamp <= since.stamp_of(name) && !self.is_another_life {
                continue;
            }
            if values[1] == values[2] {
                agreed.extend((two.later() == Winner::Local).then(|| name.clone()));
                continue;
            }
            let settled = settle_field(self.key, self.rules, name, values, two);
            found.add(name, values, &settled);
            met.push(Met { name: name.clone(), holder, two, settled });
        }
        self.lose_earlier(ops, &agreed, since);
        let Some(last) = ops.last().copied().filter(|_| !met.is_empty()) else { return };
        found.winner = self.overall(ops, &found.fields);
        let undecided = found.winner == Winner::Undecided;
        if !undecided {
            let lost: Vec<_> = found.lost().collect();
            let ends = |met: &&Met| {
                let op = self.op(met.holder);
                op.standing == Standing::Waits
                    && op.tail.writes.fields.keys().all(|name| lost.contains(name))
            };
            let names: Vec<_> =
                met.iter().filter(|met| !ends(met)).map(|met| met.name.clone()).collect();
            self.record_earlier(ops, &names, &met, since);
        }
        self.record(ops, found);
        for met in met {
            self.follow(met, since);
        }
        if undecided {
            self.park(last);
        }
    }

    /// Records earlier local writes below the remote write, for each op alone. The last local write
    /// stays, but a person can undo it, and then the earlier values are lost. `last` has the fields
    /// whose last local write is recorded with the conflict.
    fn record_earlier(&mut self, ops: &[usize], names: &[String], last: &[Met], since: &Registers) {
        let is_lost = |subject: &Self, number: usize, name: &String, word: &Register| {
            let last = last.iter().find(|met| met.name == *name).map(|met| met.holder);
            let last_word = last.and_then(|holder| subject.op(holder).tail.writes.fields.get(name));
            names.contains(name)
                && word.stamp < subject.after.stamp_of(name)
                && last != Some(number)
                && last_word.is_none_or(|last| last.value != word.value)
        };
        self.record_words(ops, is_lost, since);
    }

    /// Records local writes below the remote write that a winning local deletion covers, for each
    /// op alone.
    pub(super) fn record_covered(&mut self, ops: &[usize], since: &Registers) {
        self.record_earlier(ops, &self.news(since), &[], since);
    }

    /// Records and drops the earlier local writes of fields whose last local value equals the
    /// remote value. An earlier write must not be sent over the remote write before the last local
    /// write, or after a person undoes the last local write.
    fn lose_earlier(&mut self, ops: &[usize], agreed: &[String], since: &Registers) {
        let is_agreed = |_: &Self, _: usize, name: &String, _: &Register| agreed.contains(name);
        for (number, names) in self.record_words(ops, is_agreed, since) {
            self.drop_fields(number, &names);
        }
    }

    /// Records the lost local writes whose values differ from the remote values, for each op alone.
    /// Returns the lost fields of each op.
    fn record_words(
        &mut self,
        ops: &[usize],
        is_lost: impl Fn(&Self, usize, &String, &Register) -> bool,
        since: &Registers,
    ) -> Vec<(usize, Vec<String>)> {
        let mut all = Vec::new();
        for number in ops.iter().copied() {
            let mut found = Found { winner: Winner::Remote, ..self.nothing_found() };
            for (name, word) in &self.op(number).tail.writes.fields {
                let theirs = self.after.value_of(name);
                if word.value != *theirs && is_lost(self, number, name, word) {
                    let rule = self.rules.policy_of(name);
                    let lost = Settled { winner: Winner::Remote, merged: None, rule, by: None };
                    found.add(name, [since.value_of(name), &word.value, theirs], &lost);
                }
            }
            let lost: Vec<_> = found.lost().collect();
            if !lost.is_empty() {
                self.record(&[number], found);
                all.push((number, lost));
            }
        }
        all
    }

    /// Applies the result for one field.
    fn follow(&mut self, Met { name, holder, two, settled }: Met, since: &Registers) {
        let names = [name];
        let [name] = &names;
        if settled.winner == Winner::Remote {
            for number in 0..=holder {
                let op = self.op(number);
                let is_above = |word: &Register| {
                    op.standing == Standing::Unanswered || word.stamp > two.theirs
                };
                if op.standing != Standing::Ended
                    && op.tail.writes.fields.get(name).is_some_and(is_above)
                {
                    self.drop_fields(number, &names);
                }
            }
            return;
        }
        if settled.winner == Winner::Local && two.later() == Winner::Local
            || self.is_covered(holder, name)
        {
            return;
        }
        let merged = settled.merged.map(|value| Fields::from_iter([(name.clone(), value)]));
        let above = self.above(holder, &names, two.theirs);
        self.raise(holder, &names, above, merged.as_ref());
        self.keep_order(holder, Some(name), above, since);
    }

    /// Settles all fields with one pair of stamps: the two images meet unless they are equal. Only
    /// policies of single fields can make the fields differ in their winner.
    pub(super) fn meet_as_one(&mut self, ops: &[usize], since: &Registers, news: &[String]) {
        let Some(last) = ops.last().copied().filter(|_| !news.is_empty()) else { return };
        let tail: Vec<_> = ops.iter().map(|number| &self.op(*number).tail.writes).collect();
        let ours = since.with(tail.iter().copied());
        if ours.image() == self.after.image() {
            let stays = |name: &&String| ours.stamp_of(name) > self.after.stamp_of(name);
            let agreed: Vec<_> = news.iter().filter(stays).cloned().collect();
            return self.lose_earlier(ops, &agreed, since);
        }
        let differs = |name: &&String| ours.value_of(name) != self.after.value_of(name);
        let names = tail.iter().flat_map(|writes| writes.fields.keys());
        let names: BTreeSet<_> = names.chain(news.iter().filter(differs)).cloned().collect();
        let greatest = tail.iter().map(|writes| writes.greatest()).max().unwrap_or_default();
        let theirs_at = news.iter().map(|name| self.after.stamp_of(name)).max().unwrap_or_default();
        let two = Two { ours: greatest, theirs: theirs_at };
        let (mut found, mut stays) = (self.nothing_found(), Fields::new());
        for name in &names {
            let values = [since.value_of(name), ours.value_of(name), self.after.value_of(name)];
            let settled = settle_field(self.key, self.rules, name, values, two);
            found.add(name, values, &settled);
            if settled.winner != Winner::Remote {
                stays.set(name.clone(), settled.merged.unwrap_or_else(|| values[1].clone()));
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
            let above = if two.later() == Winner::Local && !undecided {
                two.ours.edited_at
            } else {
                two.theirs.max(two.ours).edited_at.next()
            };
            let names: Vec<_> = stays.names().map(str::to_owned).collect();
            self.raise(last, &names, above, Some(&stays));
        }
        if undecided {
            self.park(last);
        }
    }

    /// Returns the last local write of a field, and the number of its op.
    fn last_word(&self, ops: &[usize], name: &str) -> Option<(usize, Register)> {
        let word = |number: &usize| {
            let word = self.op(*number).tail.writes.fields.get(name);
            word.map(|word| (*number, word.clone()))
        };
        ops.iter().rev().find_map(word)
    }
}
