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

use serde_json::Value;

use super::found::Found;
use super::policy::{Settled, Two, settle_field};
use super::{Output, Standing, Subject};
use crate::entry::{ParkScope, Winner};
use crate::fields::{Fields, InvalidFields};
use crate::record::{EditStamp, Register, Registers};

impl Subject<'_> {
    /// Each field for itself.
    pub(super) fn meet_in_fields(
        &mut self,
        ops: &[usize],
        since: &Registers,
        news: &[String],
        out: &mut Output<'_>,
    ) -> Result<(), InvalidFields> {
        let mut found = self.nothing_found();
        let mut follow = Vec::new();
        let mut agreed = Vec::new();
        for name in news {
            let Some((holder, ours, at)) = self.last_word(ops, name) else { continue };
            let theirs = (self.after.value_of(name).clone(), self.after.stamp_of(name));
            if at <= since.stamp_of(name) && !self.is_another_life {
                continue;
            }
            if ours == theirs.0 {
                agreed.extend((at > theirs.1).then(|| name.clone()));
                continue;
            }
            let two = Two { ours: at, theirs: theirs.1 };
            let base = since.value_of(name);
            let settled = settle_field(self.key, self.rules, name, [base, &ours, &theirs.0], two);
            found.add(name, base, &ours, &theirs.0, &settled);
            follow.push((name.clone(), holder, two, settled));
        }
        self.lose_earlier(ops, &agreed, since, out)?;
        if follow.is_empty() {
            return Ok(());
        }
        found.winner = self.overall(ops, &found.fields);
        let undecided = found.winner == Winner::Undecided;
        if !undecided {
            let lost: Vec<_> = lost_fields(&follow).collect();
            let ends = |holder: usize| {
                let op = self.op(holder);
                op.standing.waits() && op.tail.writes.fields.keys().all(|name| lost.contains(&name.as_str()))
            };
            let stays = follow.iter().filter(|(_, holder, ..)| !ends(*holder));
            let names: Vec<_> = stays.map(|(name, ..)| name.clone()).collect();
            let last: Vec<_> = follow.iter().map(|(name, holder, ..)| (name.as_str(), *holder)).collect();
            self.record_earlier(ops, &names, &last, since, out);
        }
        self.record(ops, found, out);
        for (name, holder, two, settled) in follow {
            self.follow(&name, holder, two, settled, out)?;
        }
        if undecided && let Some(last) = ops.last() {
            out.park(ParkScope::Op(self.op(*last).tail.op.id), "conflict");
        }
        Ok(())
    }

    /// Puts earlier words of ours that are below theirs on record, each by itself: our last word stays, so that a person can take it
    /// back. `last` are the fields whose last word is on record, and which op has it.
    pub(super) fn record_earlier(
        &self,
        ops: &[usize],
        names: &[String],
        last: &[(&str, usize)],
        since: &Registers,
        out: &mut Output<'_>,
    ) {
        let is_lost = |number: usize, name: &str, word: &Register| {
            let last = last.iter().find(|(known, _)| *known == name).map(|(_, holder)| *holder);
            let last_word = last.and_then(|holder| self.op(holder).tail.writes.fields.get(name));
            let is_below = names.iter().any(|known| known == name) && word.stamp < self.after.stamp_of(name);
            is_below && last != Some(number) && last_word.is_none_or(|last| last.value != word.value)
        };
        self.record_words(ops, is_lost, since, out);
    }

    /// Our last word is theirs: earlier ones of ours that say something else end on record. They must not go over theirs before our
    /// last word does, and a person can take that back.
    fn lose_earlier(
        &mut self,
        ops: &[usize],
        agreed: &[String],
        since: &Registers,
        out: &mut Output<'_>,
    ) -> Result<(), InvalidFields> {
        let is_agreed = |_: usize, name: &str, _: &Register| agreed.iter().any(|known| known == name);
        let lost = self.record_words(ops, is_agreed, since, out);
        lost.into_iter().try_for_each(|(number, names)| self.drop_fields(number, &names, out))
    }

    /// Puts words of ours on record that are lost and are not what theirs is, those of each op by themselves; returns which.
    fn record_words(
        &self,
        ops: &[usize],
        is_lost: impl Fn(usize, &str, &Register) -> bool,
        since: &Registers,
        out: &mut Output<'_>,
    ) -> Vec<(usize, Vec<String>)> {
        let mut all = Vec::new();
        for number in ops.iter().copied() {
            let mut found = Found { winner: Winner::Remote, ..self.nothing_found() };
            for (name, word) in &self.op(number).tail.writes.fields {
                let theirs = self.after.value_of(name);
                if word.value != *theirs && is_lost(number, name, word) {
                    let rule = self.rules.policy_of(name);
                    let lost = Settled { winner: Winner::Remote, merged: None, rule, by: None };
                    found.add(name, since.value_of(name), &word.value, theirs, &lost);
                }
            }
            let lost: Vec<_> = found.lost().collect();
            if !lost.is_empty() {
                self.record(&[number], found, out);
                all.push((number, lost));
            }
        }
        all
    }

    /// What follows in one field.
    fn follow(
        &mut self,
        name: &str,
        holder: usize,
        two: Two,
        settled: Settled,
        out: &mut Output<'_>,
    ) -> Result<(), InvalidFields> {
        let names = [name.to_owned()];
        if settled.winner == Winner::Remote {
            let last = self.op(holder).tail.op.place;
            let goes_along = |number: &usize| {
                let op = self.op(*number);
                let word = op.tail.writes.fields.get(name).filter(|_| op.tail.op.place <= last);
                let is_above =
                    |word: &Register| op.standing == Standing::Unanswered || word.stamp > two.theirs;
                op.standing != Standing::Ended && word.is_some_and(is_above)
            };
            let along: Vec<_> = (0..self.ops.len()).filter(goes_along).collect();
            for number in along {
                self.drop_fields(number, &names, out)?;
            }
            return Ok(());
        }
        let merged = settled.merged.map(|value| Fields::from_iter([(name.to_owned(), value)]));
        if settled.winner == Winner::Local && two.later() == Winner::Local || self.is_covered(holder, name) {
            return Ok(());
        }
        let above = self.above(holder, &names, two.theirs);
        self.raise(holder, &names, above, merged.as_ref(), out)?;
        self.keep_order(holder, Some(name), above, out)
    }

    /// All fields win or lose together: two images meet unless they are equal.
    pub(super) fn meet_as_one(
        &mut self,
        ops: &[usize],
        since: &Registers,
        news: &[String],
        out: &mut Output<'_>,
    ) -> Result<(), InvalidFields> {
        let Some(last) = ops.last().copied() else { return Ok(()) };
        let tail: Vec<_> = ops.iter().map(|number| &self.op(*number).tail.writes).collect();
        let ours = since.with(tail.iter().copied());
        if news.is_empty() {
            return Ok(());
        }
        if ours.image() == self.after.image() {
            let stays = |name: &&String| ours.stamp_of(name) > self.after.stamp_of(name);
            let agreed: Vec<_> = news.iter().filter(stays).cloned().collect();
            return self.lose_earlier(ops, &agreed, since, out);
        }
        let mut names: Vec<String> = tail.iter().flat_map(|writes| writes.fields.keys().cloned()).collect();
        names.extend(news.iter().filter(|name| ours.value_of(name) != self.after.value_of(name)).cloned());
        names.sort_unstable();
        names.dedup();
        let greatest = tail.iter().map(|writes| writes.greatest()).max().unwrap_or_default();
        let theirs_at = news.iter().map(|name| self.after.stamp_of(name)).max().unwrap_or_default();
        let two = Two { ours: greatest, theirs: theirs_at };
        let mut found = self.nothing_found();
        let mut values = Fields::new();
        for name in &names {
            let (base, mine, theirs) = (since.value_of(name), ours.value_of(name), self.after.value_of(name));
            let settled = settle_field(self.key, self.rules, name, [base, mine, theirs], two);
            found.add(name, base, mine, theirs, &settled);
            values.set(name.clone(), settled.merged.unwrap_or_else(|| mine.clone()));
        }
        found.winner = self.overall(ops, &found.fields);
        let lost: Vec<_> = found.lost().collect();
        let undecided = found.winner == Winner::Undecided;
        self.record(ops, found, out);
        let stays: Vec<_> = names.iter().filter(|name| !lost.contains(name)).cloned().collect();
        if !lost.is_empty() {
            for number in ops {
                self.drop_fields(*number, &lost, out)?;
            }
        }
        if !stays.is_empty() {
            let values = values.filtered(|name| stays.iter().any(|stays| stays == name));
            let above = if two.later() == Winner::Local && !undecided {
                two.ours.edited_at
            } else {
                two.theirs.max(two.ours).edited_at.next()
            };
            self.raise(last, &stays, above, Some(&values), out)?;
        }
        if undecided {
            out.park(ParkScope::Op(self.op(last).tail.op.id), "conflict");
        }
        Ok(())
    }

    /// Returns our last word in a field: which op, the value, the stamp.
    fn last_word(&self, ops: &[usize], name: &str) -> Option<(usize, Value, EditStamp)> {
        let holds = |number: &&usize| self.op(**number).tail.writes.fields.contains_key(name);
        let holder = *ops.iter().rev().find(holds)?;
        let field = self.op(holder).tail.writes.fields.get(name)?;
        Some((holder, field.value.clone(), field.stamp))
    }
}

/// Returns the fields that are theirs now.
fn lost_fields(follow: &[(String, usize, Two, Settled)]) -> impl Iterator<Item = &str> {
    let lost = follow.iter().filter(|(.., settled)| settled.winner == Winner::Remote);
    lost.map(|(name, ..)| name.as_str())
}
