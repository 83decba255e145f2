//! Fields that both sides wrote, each for itself or all as one.
//!
//! | who wins → | theirs | ours | merged | a person is to choose |
//! |---|---|---|---|---|
//! | a field | dropped, with our earlier writes there | raised above theirs, if it is not | raised, with the value | raised, and parked |
//!
//! Invariants:
//! 1. A value of ours that a later op of ours set anew never comes back.
//! 2. Only our last word in a field is raised: not a write that a later op of ours covers.
//!
//! What it is not: who wins ([`super::policy`]).

use std::collections::BTreeSet;

use super::found::Found;
use super::policy::{Settled, Two, settle_field};
use super::{Standing, Subject};
use crate::entry::Winner;
use crate::fields::Fields;
use crate::record::{Register, Registers};

/// A field in which our last word meets theirs.
struct Met {
    name: String,
    /// The op that has our last word.
    holder: usize,
    two: Two,
    settled: Settled,
}

impl Subject<'_> {
    /// Each field for itself.
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
                op.standing == Standing::Waits && op.tail.writes.fields.keys().all(|name| lost.contains(name))
            };
            let names: Vec<_> = met.iter().filter(|met| !ends(met)).map(|met| met.name.clone()).collect();
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

    /// Puts earlier words of ours that are below theirs on record, each by itself: our last word stays, so that a person can take it
    /// back. `last` are the fields whose last word is on record.
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

    /// Puts words of ours that are below theirs on record, those of each op by themselves: a deletion of ours that stands covers them.
    pub(super) fn record_covered(&mut self, ops: &[usize], since: &Registers) {
        self.record_earlier(ops, &self.news(since), &[], since);
    }

    /// Our last word is theirs: earlier ones of ours that say something else end on record. They must not go over theirs before our
    /// last word does, and a person can take that back.
    fn lose_earlier(&mut self, ops: &[usize], agreed: &[String], since: &Registers) {
        let is_agreed = |_: &Self, _: usize, name: &String, _: &Register| agreed.contains(name);
        for (number, names) in self.record_words(ops, is_agreed, since) {
            self.drop_fields(number, &names);
        }
    }

    /// Puts words of ours on record that are lost and are not what theirs is, those of each op by themselves; returns which.
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

    /// What follows in one field.
    fn follow(&mut self, Met { name, holder, two, settled }: Met, since: &Registers) {
        let names = [name];
        let [name] = &names;
        if settled.winner == Winner::Remote {
            for number in 0..=holder {
                let op = self.op(number);
                let is_above =
                    |word: &Register| op.standing == Standing::Unanswered || word.stamp > two.theirs;
                if op.standing != Standing::Ended && op.tail.writes.fields.get(name).is_some_and(is_above) {
                    self.drop_fields(number, &names);
                }
            }
            return;
        }
        if settled.winner == Winner::Local && two.later() == Winner::Local || self.is_covered(holder, name) {
            return;
        }
        let merged = settled.merged.map(|value| Fields::from_iter([(name.clone(), value)]));
        let above = self.above(holder, &names, two.theirs);
        self.raise(holder, &names, above, merged.as_ref());
        self.keep_order(holder, Some(name), above, since);
    }

    /// All fields win or lose together: two images meet unless they are equal.
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

    /// Returns our last word in a field, and which op has it.
    fn last_word(&self, ops: &[usize], name: &str) -> Option<(usize, Register)> {
        let word = |number: &usize| {
            let word = self.op(*number).tail.writes.fields.get(name);
            word.map(|word| (*number, word.clone()))
        };
        ops.iter().rev().find_map(word)
    }
}
