//! Which writes of ours meet which of somebody else, and what follows.
//!
//! | ours ↓ / new from others → | fields | a deletion |
//! |---|---|---|
//! | writes fields | in each field that both wrote, with another value | as a whole |
//! | a deletion | as a whole | nothing meets |
//!
//! | who wins → | theirs | ours | merged | a person is to choose |
//! |---|---|---|---|---|
//! | a field | dropped, with our earlier writes there | raised above theirs, if it is not | raised, with the value | raised, and parked |
//! | edits against a deletion | end | go with all that their author read, raised above it | – | … and parked |
//! | a deletion against edits | ends, with our earlier deletions | raised above theirs | – | … and parked |
//!
//! Invariants:
//! 1. A value of ours that a later op of ours set anew never comes back.
//! 2. Only our last word in a place is raised: not a write that a later op of ours covers.

use serde_json::Value;

use super::policy::{Settled, Two, settle_field, settle_life};
use super::{Output, Standing, Subject};
use crate::entry::{
    AnnulledReason, Conflicted, ConflictedField, Decision, Extent, ParkScope, SettledBy, Winner,
};
use crate::fields::{Fields, InvalidFields};
use crate::op::OpKind;
use crate::record::{Does, EditStamp, Life, Registers};
use crate::schema::{Granularity, Policy};
use crate::time::Hlc;

/// A conflict that is being put together.
struct Found {
    fields: Vec<ConflictedField>,
    winner: Winner,
    rule: Policy,
    base: Fields,
    local: Fields,
    remote: Fields,
    merged: Fields,
    functions: Vec<SettledBy>,
}

impl Subject<'_> {
    /// Has ops of ours meet what is new since `since`.
    pub(super) fn meet(
        &mut self,
        ops: &[usize],
        since: &Registers,
        out: &mut Output<'_>,
    ) -> Result<(), InvalidFields> {
        let ops = self.with_something_left(ops, since);
        let Some(last) = ops.last().copied() else { return Ok(()) };
        if self.come_to_nothing(&ops, since) {
            if self.after.is_live() {
                // They made a record that nobody else heard of and took it away. They must not touch the one that is there now.
                self.annul(&ops, AnnulledReason::CreatedAndDeleted, out);
            }
            return Ok(());
        }
        if since.is_live() && self.after.is_deleted() && self.after.stamp == EditStamp::NEVER {
            // Another server never had the record: nobody deleted it.
            return self.read_again(&ops, since, out);
        }
        let news = self.news(since);
        let is_touched = self.is_later(self.after.stamp, since.stamp) && !self.is_own(self.after.stamp);
        let is_gone = self.after.is_deleted() && is_touched;
        let deletes = self.op(last).tail.deletes();
        if is_gone && !deletes || deletes && self.after.is_live() && (is_touched || !news.is_empty()) {
            return self.meet_in_life(&ops, since, out);
        }
        if is_gone {
            self.lose_covered(&ops, since, out)?;
        } else {
            self.record_inner_deletion(&ops, since, &news, out);
        }
        if deletes || !self.after.is_live() {
            return Ok(());
        }
        if self.rules.granularity == Granularity::WholeRecord {
            self.meet_as_one(&ops, since, &news, out)
        } else {
            self.meet_in_fields(&ops, since, &news, out)
        }
    }

    /// Two deletions are no conflict. If ours stays, edits of ours that it covers end on record: they must not go over theirs before ours
    /// does, and a person can take ours back.
    fn lose_covered(
        &mut self,
        ops: &[usize],
        since: &Registers,
        out: &mut Output<'_>,
    ) -> Result<(), InvalidFields> {
        let stays = ops.last().is_some_and(|last| self.op(*last).tail.writes.stamp > self.after.stamp);
        let is_edit =
            |number: &usize| matches!(self.op(*number).tail.writes.does, Does::Edits | Does::Creates);
        let covered: Vec<_> = ops.iter().copied().filter(|number| stays && is_edit(number)).collect();
        if covered.is_empty() {
            return Ok(());
        }
        let mut local = Fields::new();
        covered.iter().for_each(|number| local.compose(self.op(*number).tail.named.clone()));
        let base = since.image().unwrap_or_default();
        let found = Found { winner: Winner::Remote, base, local, ..self.nothing_found() };
        self.record(&covered, found, out);
        self.lose_whole(&covered, out)
    }

    /// A deletion of ours behind which we made the record anew may go by itself, and take along what they wrote: that is on record.
    fn record_inner_deletion(&self, ops: &[usize], since: &Registers, news: &[String], out: &mut Output<'_>) {
        let Some((_, earlier)) = ops.split_last() else { return };
        let Some(deletion) = earlier.iter().copied().rev().find(|number| self.op(*number).tail.deletes())
        else {
            return;
        };
        let stamp = self.op(deletion).tail.writes.stamp;
        let said = |name: &str| {
            ops.iter().any(|op| *op > deletion && self.op(*op).tail.writes.fields.contains_key(name))
        };
        let falls = |name: &&String| {
            self.after.stamp_of(name) < stamp && !self.after.value_of(name).is_null() && !said(name)
        };
        if news.iter().any(|name| falls(&name)) {
            let (base, remote) = (since.image().unwrap_or_default(), self.after.image().unwrap_or_default());
            self.record(&[deletion], Found { base, remote, ..self.nothing_found() }, out);
        }
    }

    /// Leaves out what was superseded before: that met it then.
    fn with_something_left(&self, ops: &[usize], since: &Registers) -> Vec<usize> {
        // Another life of the server can have less than what it met then.
        let is_above = |op: &super::Op| {
            op.tail.writes.are_left(since) || self.is_another_life && op.tail.writes.are_left(&self.after)
        };
        let is_left = |number: &usize| {
            let op = self.op(*number);
            op.standing != Standing::Ended && is_above(op)
        };
        let first = ops.iter().copied().find(is_left);
        let counts = |number: &usize| {
            is_left(number)
                || self.op(*number).standing != Standing::Ended
                    && self.op(*number).tail.deletes()
                    && first.is_some_and(|first| first < *number)
        };
        ops.iter().copied().filter(counts).collect()
    }

    /// Returns whether ops made a record and deleted it before anybody heard of it.
    fn come_to_nothing(&self, ops: &[usize], since: &Registers) -> bool {
        let (Some(first), Some(last)) = (ops.first(), ops.last()) else { return false };
        let (first, last) = (self.op(*first), self.op(*last));
        let unsent = |number: &usize| {
            let op = self.op(*number);
            op.standing == Standing::Waits && op.tail.pending.given_up.is_none()
        };
        since.life == Life::Unknown
            && first.tail.writes.does == Does::Creates
            && last.tail.deletes()
            && ops.iter().all(unsent)
    }

    /// Returns the fields that others wrote since.
    fn news(&self, since: &Registers) -> Vec<String> {
        let of_ops = self.ops.iter().flat_map(|op| op.tail.writes.fields.keys());
        let mut names: Vec<&String> =
            self.after.fields.keys().chain(since.fields.keys()).chain(of_ops).collect();
        names.sort_unstable();
        names.dedup();
        let is_new = |name: &&String| {
            let stamp = self.after.stamp_of(name);
            self.is_later(stamp, since.stamp_of(name)) && !self.is_own(stamp)
        };
        names.into_iter().filter(is_new).cloned().collect()
    }

    /// Returns whether a stamp that the server has says that somebody wrote since. In another life of it that may be an earlier one.
    fn is_later(&self, stamp: EditStamp, since: EditStamp) -> bool {
        stamp > since || self.is_another_life && stamp != since && stamp != EditStamp::NEVER
    }

    /// One side deleted the record.
    fn meet_in_life(
        &mut self,
        ops: &[usize],
        since: &Registers,
        out: &mut Output<'_>,
    ) -> Result<(), InvalidFields> {
        let Some(last) = ops.last().copied() else { return Ok(()) };
        let deletes = self.op(last).tail.deletes();
        let greatest = ops.iter().map(|number| self.op(*number).tail.writes.greatest());
        let ours_at = greatest.max().unwrap_or_default();
        let two = Two { ours: ours_at, theirs: self.after.stamp };
        let nothing = Fields::new();
        let (base, theirs) = (since.image(), self.after.image());
        let mut said = Fields::new();
        for number in ops {
            said.compose(self.op(*number).tail.named.clone());
        }
        let mine = (!deletes).then_some(&said);
        let mut settled = settle_life(self.key, self.rules, [base.as_ref(), mine, theirs.as_ref()], two);
        let is_covered = |op: &super::Op| {
            op.tail.op.place > self.op(last).tail.op.place && op.tail.writes.does != Does::Creates
        };
        if deletes && two.later() == Winner::Remote && self.ops.iter().any(is_covered) {
            // Our last word is another one.
            settled.winner = Winner::Remote;
        }
        let Settled { winner, rule, by, .. } = settled;
        let found = Found {
            fields: Vec::new(),
            winner,
            rule,
            base: base.clone().unwrap_or_default(),
            local: if deletes { Fields::new() } else { said },
            remote: theirs.clone().unwrap_or_default(),
            merged: nothing,
            functions: by.into_iter().collect(),
        };
        if deletes && winner == Winner::Local {
            self.record_earlier(ops, &self.news(since), &[], since, out);
        }
        self.record(ops, found, out);
        if winner == Winner::Remote {
            return self.lose_whole(ops, out);
        }
        if !deletes {
            self.read_again(ops, since, out)?;
        }
        let winners = if deletes { std::slice::from_ref(&last) } else { ops };
        let is_below = |number: &usize| {
            winner == Winner::Undecided || self.op(*number).tail.writes.greatest() < two.theirs
        };
        let below: Vec<_> = winners.iter().copied().filter(is_below).collect();
        for number in below {
            self.raise_uncovered(number, two.theirs, out)?;
        }
        if winner == Winner::Undecided {
            out.park(ParkScope::Op(self.op(last).tail.op.id), "conflict");
        }
        Ok(())
    }

    /// Raises what an op says above a deletion of theirs. The fields that a later op of ours covers stay below it, and end.
    fn raise_uncovered(
        &mut self,
        number: usize,
        theirs: EditStamp,
        out: &mut Output<'_>,
    ) -> Result<(), InvalidFields> {
        let names: Vec<_> = self.op(number).tail.writes.fields.keys().cloned().collect();
        let (covered, stays): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| self.is_covered(number, name));
        let above = self.above(number, &stays, theirs);
        if covered.is_empty() || !stays.is_empty() {
            if !covered.is_empty() {
                self.drop_fields(number, &covered, out)?;
            }
            self.raise(number, &[], above, None, out)?;
        }
        // What its author read comes along, with a stamp of its own.
        self.keep_order(number, None, above, out)
    }

    /// Raises later words of ours above one that was raised, in a field or in all: dead letters, which do not cover it, and what would
    /// be below that which comes along.
    fn keep_order(
        &mut self,
        number: usize,
        only: Option<&str>,
        mut above: Hlc,
        out: &mut Output<'_>,
    ) -> Result<(), InvalidFields> {
        for later in number + 1..self.ops.len() {
            let op = self.op(later);
            let follows = op.standing.is_dead() || only.is_none() && op.standing.waits();
            let fields =
                op.tail.writes.fields.iter().filter(|(name, _)| only.is_none_or(|only| only == *name));
            let passed = fields.filter(|(_, field)| field.stamp.edited_at <= above);
            let passed: Vec<_> = passed.map(|(name, _)| name.clone()).collect();
            if follows && !passed.is_empty() {
                above = above.next();
                self.raise(later, &passed, above, None, out)?;
            }
        }
        Ok(())
    }

    /// Returns a time above a write of theirs, what an op has, and what earlier ops of ours have in the same fields.
    fn above(&self, number: usize, names: &[String], theirs: EditStamp) -> Hlc {
        let place = self.op(number).tail.op.place;
        let earlier = self.ops.iter().map(|op| &op.tail).filter(|op| op.op.place <= place);
        let stamps = earlier.flat_map(|op| names.iter().filter_map(|name| op.writes.fields.get(name)));
        let own = self.op(number).tail.writes.greatest();
        stamps.map(|field| field.stamp).fold(theirs.max(own), EditStamp::max).edited_at.next()
    }

    /// All that ops say is lost; dead letters stay listed.
    fn lose_whole(&mut self, ops: &[usize], out: &mut Output<'_>) -> Result<(), InvalidFields> {
        for number in ops.iter().rev() {
            if self.op(*number).standing.is_dead() {
                self.drop_fields(*number, &[], out)?;
            } else {
                self.supersede(*number, out)?;
            }
        }
        Ok(())
    }

    /// Edits stand above a deletion: each goes with all that its author read, but for refused values.
    fn read_again(
        &mut self,
        ops: &[usize],
        since: &Registers,
        out: &mut Output<'_>,
    ) -> Result<(), InvalidFields> {
        let mut read = since.clone();
        for number in ops {
            let op = self.op(*number);
            let at = read.with([&op.tail.writes]);
            let image = at.image().unwrap_or_default();
            let is_edit = op.tail.writes.does == Does::Edits;
            if !op.standing.is_dead() {
                read = at;
            }
            if is_edit {
                self.bring_back(*number, &image, out)?;
            }
        }
        Ok(())
    }

    /// Each field for itself.
    fn meet_in_fields(
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
            self.follow(ops, &name, holder, two, settled, out)?;
        }
        if undecided && let Some(last) = ops.last() {
            out.park(ParkScope::Op(self.op(*last).tail.op.id), "conflict");
        }
        Ok(())
    }

    /// Puts earlier words of ours that are below theirs on record, each by itself: our last word stays, so that a person can take it
    /// back. `last` are the fields whose last word is on record, and which op has it.
    fn record_earlier(
        &self,
        ops: &[usize],
        names: &[String],
        last: &[(&str, usize)],
        since: &Registers,
        out: &mut Output<'_>,
    ) {
        for number in ops {
            let mut found = Found { winner: Winner::Remote, ..self.nothing_found() };
            for (name, word) in &self.op(*number).tail.writes.fields {
                let last = last.iter().find(|(known, _)| known == name).map(|(_, holder)| *holder);
                let last_value = last
                    .and_then(|holder| self.op(holder).tail.writes.fields.get(name))
                    .map(|word| &word.value);
                let theirs = self.after.value_of(name);
                let is_lost = names.contains(name) && word.stamp < self.after.stamp_of(name);
                let says_other = word.value != *theirs && Some(&word.value) != last_value;
                if is_lost && says_other && last != Some(*number) {
                    let rule = self.rules.policy_of(name);
                    let lost = Settled { winner: Winner::Remote, merged: None, rule, by: None };
                    found.add(name, since.value_of(name), &word.value, theirs, &lost);
                }
            }
            if !found.fields.is_empty() {
                self.record(&[*number], found, out);
            }
        }
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
        for number in ops {
            let mut found = Found { winner: Winner::Remote, ..self.nothing_found() };
            for name in agreed {
                let theirs = self.after.value_of(name);
                let word = self.op(*number).tail.writes.fields.get(name);
                if let Some(word) = word.filter(|word| word.value != *theirs) {
                    let rule = self.rules.policy_of(name);
                    let lost = Settled { winner: Winner::Remote, merged: None, rule, by: None };
                    found.add(name, since.value_of(name), &word.value, theirs, &lost);
                }
            }
            let lost: Vec<_> = found.lost().collect();
            if !lost.is_empty() {
                self.record(&[*number], found, out);
                self.drop_fields(*number, &lost, out)?;
            }
        }
        Ok(())
    }

    /// What follows in one field.
    fn follow(
        &mut self,
        ops: &[usize],
        name: &str,
        holder: usize,
        two: Two,
        settled: Settled,
        out: &mut Output<'_>,
    ) -> Result<(), InvalidFields> {
        let names = [name.to_owned()];
        if settled.winner == Winner::Remote {
            let goes_along = |number: &usize| {
                let op = self.op(*number);
                let is_there = op.tail.writes.fields.contains_key(name);
                let earlier = op.tail.op.place <= self.op(holder).tail.op.place;
                let in_flight = op.standing == Standing::Unanswered && earlier;
                is_there && (in_flight || ops.contains(number) && two.later() == Winner::Local)
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
    fn meet_as_one(
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

    /// Returns whether a later op of ours says something of the same field. A dead letter covers nothing.
    fn is_covered(&self, holder: usize, name: &str) -> bool {
        let place = self.op(holder).tail.op.place;
        let covers = |op: &&super::Op| op.standing != Standing::Ended && !op.standing.is_dead();
        let later = self.ops.iter().filter(|op| op.tail.op.place > place).filter(covers);
        later.into_iter().any(|op| op.tail.deletes() || op.tail.writes.fields.contains_key(name))
    }

    /// The server wins as a whole only if each field that we name is lost; one open field leaves the whole open.
    fn overall(&self, ops: &[usize], fields: &[ConflictedField]) -> Winner {
        let has = |winner| fields.iter().any(|field| field.winner == winner);
        let is_lost =
            |name: &str| fields.iter().any(|field| field.name == name && field.winner == Winner::Remote);
        let mut named = ops.iter().flat_map(|number| self.op(*number).tail.named.names());
        if has(Winner::Undecided) {
            Winner::Undecided
        } else if fields.iter().all(|field| field.winner == Winner::Remote) && named.all(is_lost) {
            Winner::Remote
        } else if has(Winner::Merged) {
            Winner::Merged
        } else {
            Winner::Local
        }
    }

    fn nothing_found(&self) -> Found {
        Found {
            fields: Vec::new(),
            winner: Winner::Local,
            rule: if self.rules.function.is_some() { Policy::Function } else { self.rules.policy },
            base: Fields::new(),
            local: Fields::new(),
            remote: Fields::new(),
            merged: Fields::new(),
            functions: Vec::new(),
        }
    }

    /// Puts a conflict on record, under the last of its ops.
    fn record(&self, ops: &[usize], found: Found, out: &mut Output<'_>) {
        let Some(last) = ops.last().map(|number| &self.op(*number).tail) else { return };
        out.conflicts += 1;
        let (base, local, remote) =
            (out.fields(&found.base), out.fields(&found.local), out.fields(&found.remote));
        let merged = (!found.merged.is_empty()).then(|| out.fields(&found.merged));
        out.decisions.push(Decision::Conflicted(Conflicted {
            key: self.key.clone(),
            op: last.op,
            kind: self.kind_of(ops),
            edited_at: last.writes.greatest().edited_at,
            version: self.version,
            extent: if self.after.is_deleted() { Extent::Deleted } else { Extent::Whole },
            remote_edited_at: self.after.stamp.edited_at,
            fields: found.fields,
            winner: found.winner,
            rule: found.rule,
            base,
            local,
            remote,
            merged,
            functions: found.functions,
        }));
    }

    /// Returns what ops do as one, in a word.
    fn kind_of(&self, ops: &[usize]) -> OpKind {
        let kinds = ops.iter().map(|number| &self.op(*number).tail);
        let kinds = kinds.filter(|op| op.writes.does != Does::Nothing).map(|op| op.kind);
        kinds.reduce(then).unwrap_or(OpKind::Update)
    }
}

/// Returns what two ops in a row do as one, in a word.
fn then(first: OpKind, next: OpKind) -> OpKind {
    use OpKind::{Create, Delete, Replace, Update};
    match (first, next) {
        (_, Delete) => Delete,
        (_, Replace) | (Delete, Create | Update) => Replace,
        (Create | Update | Replace, Create | Update) => first,
    }
}

/// Returns the fields that are theirs now.
fn lost_fields(follow: &[(String, usize, Two, Settled)]) -> impl Iterator<Item = &str> {
    let lost = follow.iter().filter(|(.., settled)| settled.winner == Winner::Remote);
    lost.map(|(name, ..)| name.as_str())
}

impl Found {
    fn add(&mut self, name: &str, base: &Value, ours: &Value, theirs: &Value, settled: &Settled) {
        self.fields.push(ConflictedField {
            name: name.to_owned(),
            rule: settled.rule,
            winner: settled.winner,
        });
        self.base.set(name, base.clone());
        self.local.set(name, ours.clone());
        self.remote.set(name, theirs.clone());
        if let Some(merged) = &settled.merged {
            self.merged.set(name, merged.clone());
        }
        self.functions.extend(settled.by.clone());
    }

    fn lost(&self) -> impl Iterator<Item = String> {
        let lost = self.fields.iter().filter(|field| field.winner == Winner::Remote);
        lost.map(|field| field.name.clone())
    }
}
