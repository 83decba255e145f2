//! What a person decides: retry, discard, resume, confirm another server. Each is an entry with the actor who decided.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook_core::entry::{Decision, Items, ParkScope, PlannedOp, Verb};
use fieldbook_core::rows::{ConflictRow, DeadLetterRow, UnitRow};
use fieldbook_core::rules::belonging::{ServerIdentity, accept, candidates};
use fieldbook_core::rules::failure::again_at;
use fieldbook_core::rules::plan::{Hold, PlanInput, plan_record};
use fieldbook_core::rules::verbs::take_out;
use fieldbook_core::{ConflictId, OpId, OpKind, OpPlace, RecordKey, UnitId};
use fieldbook_projections::Tables;

use crate::book::Book;
use crate::corrections::verb;
use crate::error::Error;
use crate::inspect::Inspector;
use crate::sync::text_item;
use crate::writer::Session;

impl Book {
    /// Returns the dead letters, oldest first.
    ///
    /// # Errors
    /// [`Error::Store`] if one does not read.
    pub fn dead_letters(&self) -> Result<Vec<DeadLetterRow>, Error> {
        Ok(self.snapshot()?.dead_letters()?)
    }

    /// Returns the conflicts, oldest first.
    ///
    /// # Errors
    /// [`Error::Store`] if one does not read.
    pub fn conflicts(&self) -> Result<Vec<(ConflictId, ConflictRow)>, Error> {
        Ok(self.snapshot()?.conflicts()?)
    }

    /// Sends dead letters again, with their op ids and no tries counted. The others of the same transaction go with them. What
    /// does not get through while others do is tried again at once, as it is.
    ///
    /// # Errors
    /// [`Error::Misuse`] if one of them is neither; then nothing is done.
    pub fn retry(&self, ops: Vec<OpId>) -> Result<(), Error> {
        self.shared.write_in_turn(move |session| {
            let (isolated, ops) = isolated(session, &ops)?;
            let now = session.now.wall;
            let at_once = isolated.iter().filter_map(|(unit, row, _)| {
                Some(again_at(*unit, row.planned, row.suspicion.as_ref()?, now))
            });
            let at_once: Vec<_> = at_once.collect();
            let mut places = BTreeMap::new();
            for letter in dead(session, &ops)? {
                let siblings = session.tail.ops_of_entry(letter.op.place.seq);
                let siblings = siblings.filter(|(place, _)| session.tail.is_dead(*place));
                places.extend(siblings.map(|(place, row)| (place, (row.key.clone(), row.op))));
                places.insert(letter.op.place, (letter.key, letter.op.id));
            }
            let retried = |(place, (key, id))| Decision::Retried { key, op: PlannedOp { id, place } };
            let decisions = at_once.into_iter().chain(places.into_iter().map(retried)).collect();
            verb(session, Verb::Retry, decisions, Items::default())
        })
    }

    /// Gives dead letters up, or ops that are held until someone corrects them, or that do not get through: what the app reads falls back to what stands
    /// without them. The reason is kept. An op that waits behind a given-up creation is given up with it, since there is no
    /// record that it could change.
    ///
    /// # Errors
    /// [`Error::Misuse`] if one of them is neither; then nothing is done.
    pub fn discard(&self, ops: Vec<OpId>, reason: &str) -> Result<(), Error> {
        let reason = reason.to_owned();
        self.shared.write_in_turn(move |session| {
            let mut discarded: Vec<PlannedOp> = Vec::new();
            let mut decisions = Vec::new();
            for (unit, row, is_transaction) in isolated(session, &ops)?.0 {
                decisions.extend(take_out(unit, &row, &ops, is_transaction));
            }
            for (key, place, kind) in given_up(session, &ops)? {
                let row = session.tables.record(&key)?.unwrap_or_default();
                let goes_with_it = kind == OpKind::Create && row.confirmed_image().is_none();
                let lost = row.tail.iter().filter(|reference| {
                    reference.place == place || (goes_with_it && reference.place > place)
                });
                for reference in lost {
                    let op = PlannedOp { id: reference.op, place: reference.place };
                    if !discarded.contains(&op) {
                        discarded.push(op);
                        decisions.push(Decision::Discarded { key: key.clone(), op });
                    }
                }
            }
            let (items, reason) = text_item(session, &reason);
            verb(session, Verb::Discard { reason }, decisions, items)
        })
    }

    /// Says that there are new credentials for the actor who uses the book: what was parked for want of them goes on.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn credentials_renewed(&self) -> Result<(), Error> {
        let actor = self.actor();
        self.resume(|scope, _| *scope == ParkScope::Actor(actor.clone()), Verb::Resume)
    }

    /// Says that the app or the server was upgraded: entity types and protocols that were parked go on.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn upgraded(&self) -> Result<(), Error> {
        let waits = |scope: &ParkScope, code: &str| match scope {
            ParkScope::Protocol | ParkScope::Entity(_) => true,
            ParkScope::Op(_) => code == fieldbook_core::rules::upcast::PARK_CODE,
            _ => false,
        };
        self.resume(waits, Verb::Resume)
    }

    /// Returns who answered in place of the server that this book knows: another server, another life of it, or another tenant.
    /// While there is one, every sync asks who is there, and goes on by itself once the known one answers.
    pub fn servers_to_accept(&self) -> Vec<ServerIdentity> {
        candidates(&self.shared.state())
    }

    /// Accepts a server as the one this book belongs to from now on: the same one restored from a backup, or another one, or
    /// another tenant of it. Everything is fetched anew; what the former one had confirmed and this one lacks is offered to it
    /// again, never dropped.
    ///
    /// # Errors
    /// [`Error::Misuse`] if it is none of [`Self::servers_to_accept`].
    pub fn accept_this_server(&self, accepted: ServerIdentity) -> Result<(), Error> {
        self.shared.write_in_turn(move |session| {
            let state = session.tables.state()?;
            let Some(decisions) = accept(&state, &accepted) else {
                return Err(Error::Misuse("this server has not answered, so it cannot be accepted"));
            };
            verb(session, Verb::AcceptServer, decisions, Items::default())
        })
    }

    /// Accepts the only one of [`Self::servers_to_accept`], as [`Self::accept_this_server`] does.
    ///
    /// # Errors
    /// [`Error::Misuse`] if no other server has answered, or several have: then one has to be named.
    pub fn accept_server(&self) -> Result<(), Error> {
        match self.servers_to_accept().as_slice() {
            [] => Err(Error::Misuse("no other server has answered, so there is none to accept")),
            [only] => self.accept_this_server(*only),
            _ => Err(Error::Misuse("several other servers have answered: name the one that is meant")),
        }
    }

    /// Makes a dead letter of an op that does not get through, for who corrects it; does nothing to any other op.
    pub(crate) fn give_up_isolated(&self, op: OpId) -> Result<(), Error> {
        let place = self.shared.tail().place_of(&op);
        let is_isolated = |unit| self.shared.tail().unit(&unit).is_some_and(|unit| unit.isolated().is_some());
        let unit = place.and_then(|place| self.shared.tail().unit_of(place));
        if !unit.is_some_and(is_isolated) {
            return Ok(());
        }
        self.shared.write_in_turn(move |session| {
            let kind = place.and_then(|place| session.tail.op(place)).map(|row| row.kind);
            if kind == Some(OpKind::Delete) {
                return Err(Error::Misuse("a deletion has nothing to correct: retry or discard it"));
            }
            let mut decisions = Vec::new();
            for (unit, row, is_transaction) in isolated(session, &[op])?.0 {
                // Who corrects a creation takes in what went with it.
                let stays = is_transaction || kind == Some(OpKind::Create);
                decisions.extend(take_out(unit, &row, &[op], stays));
            }
            if decisions.is_empty() {
                return Ok(());
            }
            verb(session, Verb::Retry, decisions, Items::default())
        })
    }

    fn resume(&self, concerns: impl Fn(&ParkScope, &str) -> bool, word: Verb) -> Result<(), Error> {
        let scopes: Vec<_> = {
            let state = self.shared.state();
            let concerned = state.parks.iter().filter(|(scope, code)| concerns(scope, code));
            concerned.map(|(scope, _)| scope.clone()).collect()
        };
        if scopes.is_empty() {
            return Ok(());
        }
        self.shared.write_in_turn(move |session| {
            let decisions = scopes.into_iter().map(|scope| Decision::Unparked { scope }).collect();
            verb(session, word, decisions, Items::default())
        })
    }
}

fn dead(session: &mut Session<'_>, ops: &[OpId]) -> Result<Vec<DeadLetterRow>, Error> {
    let rows = ops
        .iter()
        .map(|op| session.tables.dead_letter(op)?.ok_or(Error::Misuse("this op is not a dead letter")));
    rows.collect()
}

/// A unit that does not get through, and whether it is a transaction.
type Isolated = (UnitId, UnitRow, bool);

/// Finds the units of ops that do not get through, each once; and the other ops.
fn isolated(session: &mut Session<'_>, ops: &[OpId]) -> Result<(Vec<Isolated>, Vec<OpId>), Error> {
    let (mut units, mut others): (Vec<Isolated>, _) = (Vec::new(), Vec::new());
    for op in ops {
        let place = session.tail.place_of(op).filter(|place| !session.has_touched(*place));
        let unit = place.and_then(|place| session.tail.unit_of(place));
        let unit = unit.filter(|unit| session.tail.unit(unit).is_some_and(|unit| unit.isolated().is_some()));
        let Some(unit) = unit else {
            others.push(*op);
            continue;
        };
        let row = place.and_then(|place| session.tail.op(place));
        let is_transaction = row.is_some_and(|row| row.transaction_ops > 1);
        if !units.iter().any(|(known, ..)| *known == unit) {
            let row = session.tables.unit(&unit)?;
            units.extend(row.map(|row| (unit, row, is_transaction)));
        }
    }
    Ok((units, others))
}

/// Finds the ops that may be given up: dead letters, what is held until someone corrects it, and what does not get through.
fn given_up(session: &mut Session<'_>, ops: &[OpId]) -> Result<Vec<(RecordKey, OpPlace, OpKind)>, Error> {
    let mut found = Vec::with_capacity(ops.len());
    for op in ops {
        let tail = session.tail;
        let place = tail.place_of(op).filter(|place| !session.has_touched(*place));
        let row = place.and_then(|place| Some((place, tail.op(place)?)));
        let (place, row) = row.ok_or(Error::Misuse("this op is not a dead letter"))?;
        let under_way = tail.unit_of(place).and_then(|unit| tail.unit(&unit));
        let is_isolated = under_way.is_some_and(|unit| unit.isolated().is_some());
        if !tail.is_dead(place) && !is_isolated && !waits_for_correction(session, &row.key, place)? {
            return Err(Error::Misuse(
                "this op is neither a dead letter nor held until someone corrects it, nor one that does not get through",
            ));
        }
        found.push((row.key.clone(), place, row.kind));
    }
    Ok(found)
}

fn waits_for_correction(session: &mut Session<'_>, key: &RecordKey, place: OpPlace) -> Result<bool, Error> {
    let state = session.tables.state()?;
    let (tail, schema, actor, now) = (session.tail, session.schema, session.actor.clone(), session.now.wall);
    let suspects = BTreeSet::from([key.clone()]);
    let inspector = Inspector::new(session.view().0, schema, &suspects);
    let plan = plan_record(
        &PlanInput {
            tail,
            schema,
            parks: &state.parks,
            actor: &actor,
            now,
            batch_ops: usize::MAX,
            batch_bytes: usize::MAX,
            unmetered: true,
            heed_backoff: true,
            inspect: &inspector,
        },
        key,
    );
    Ok(plan.holds.get(&place).is_some_and(Hold::waits_for_correction))
}
