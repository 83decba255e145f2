//! A person's decisions about ops: undo, retry, discard, correct.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook_core::entry::{Items, ParkScope, PersonAction};
use fieldbook_core::record::TailOp;
use fieldbook_core::rows::RecordRow;
use fieldbook_core::rules::NotPossible;
use fieldbook_core::rules::correct::{before_correction, correct};
use fieldbook_core::rules::discard::{discard, to_discard};
use fieldbook_core::rules::hand_over::hand_over;
use fieldbook_core::rules::isolated::{
    Isolated, Rest, isolated, isolated_unit, left_behind, take_out,
};
use fieldbook_core::rules::plan::{Hold, PlanInput, plan_record};
use fieldbook_core::rules::retry::{retry, try_at_once};
use fieldbook_core::rules::status::{Stopped, together};
use fieldbook_core::rules::undo::{cancel, compensate};
use fieldbook_core::{Actor, Fields, OpId, OpPlace, RecordKey};
use fieldbook_projections::{LogView, Tables};

use super::{decide, tail_ops};
use crate::book::Book;
use crate::conflict::DeadLetter;
use crate::error::Error;
use crate::exchange::text_item;
use crate::failed::Failed;
use crate::inspect::Inspector;
use crate::read::Page;
use crate::status::Queue;
use crate::write::{Written, write_in, write_on};
use crate::writer::Session;

/// The result of an undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undone {
    /// The op, with the rest of its transaction, is not sent.
    Cancelled,
    /// The op was sent, or later ops depend on it: this new op reverses it.
    Compensated(OpId),
    /// Nothing was left to undo: the same fields were changed since. An op that is held until a
    /// person corrects it stays held; [`DeadLetters::discard`] ends it.
    Nothing,
}

impl Queue<'_> {
    /// Undoes an op. An op that was not sent is cancelled. An op that may have been sent is
    /// reversed by another op that cites it. A transaction is cancelled as a whole, and reversed op
    /// by op.
    ///
    /// # Errors
    /// [`Error::NotPossible`] if the log has no such op; [`Error::Store`] if the book cannot be
    /// read.
    pub fn undo(&self, op: OpPlace) -> Result<Undone, Error> {
        let key = self.book.key_of(op)?;
        let before = self.book.image_before(&key, op.seq)?;
        self.book.shared.write_in_turn(move |session| {
            let tail = session.tail;
            let rows = record_rows(session, tail.ops_of_entry(op.seq).map(|(_, row)| &row.key))?;
            if let Some(decisions) = cancel(tail, &session.touched(), &rows, op) {
                decide(session, PersonAction::Undo, decisions, Items::default())?;
                return Ok(Undone::Cancelled);
            }
            let undone = session.log_view().op(op)?;
            let record = session.tables.record(&key)?.unwrap_or_default();
            let tail = tail_ops(session, &record)?;
            let confirmed = record.registers().map_err(Error::damaged)?;
            let now = confirmed.with(tail.iter().map(|op| &op.writes));
            let Some(back) = compensate(&key, &undone, before.as_ref(), &now) else {
                return Ok(Undone::Nothing);
            };
            Ok(write_in(session, back)?.op().map_or(Undone::Nothing, Undone::Compensated))
        })
    }
}

/// The dead letters of a book, and other ops that wait for a person's decision:
/// [`Book::dead_letters`].
///
/// ```
/// # use fieldbook::{Book, BookOptions};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("user-7")?)?;
/// // The server was repaired: send all dead letters again.
/// let refused: Vec<_> = book.dead_letters().all()?.into_iter().map(|letter| letter.op).collect();
/// book.dead_letters().retry(refused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct DeadLetters<'b> {
    book: &'b Book,
}

impl<'b> DeadLetters<'b> {
    pub(crate) const fn of(book: &'b Book) -> Self {
        Self { book }
    }

    /// Returns all dead letters, oldest first. If there may be many, use the pages of
    /// [`Self::list`].
    ///
    /// # Errors
    /// [`Error::Store`] if a dead letter cannot be read.
    pub fn all(&self) -> Result<Vec<DeadLetter>, Error> {
        Ok(self.book.shared.snapshot()?.dead_letters()?.into_iter().map(DeadLetter::of).collect())
    }

    /// Lists dead letters in the order of their ops' ids, which is nearly the order of the ops: at
    /// most `limit` of them, after the dead letter of an op if it is given.
    ///
    /// # Errors
    /// [`Error::Store`] if a dead letter cannot be read.
    pub fn list(&self, after: Option<OpId>, limit: usize) -> Result<Page<DeadLetter, OpId>, Error> {
        let found = self.book.shared.snapshot()?.dead_letters_after(after, limit)?.into_iter();
        Ok(Page::of(found.map(DeadLetter::of).collect(), limit, |letter| letter.op))
    }

    /// Returns the dead letter of an op, or `None` if it has none.
    ///
    /// # Errors
    /// [`Error::Store`] if it cannot be read.
    pub fn get(&self, op: OpId) -> Result<Option<DeadLetter>, Error> {
        Ok(self.book.shared.snapshot()?.dead_letter(&op)?.map(DeadLetter::of))
    }

    /// Sends dead letters again, with the same op ids and no tries counted. The other dead letters
    /// of the transaction go with them. A unit that does not get through is tried again at once,
    /// with the same bytes. A parked op resumes, unless it waits for a choice or for something
    /// outside.
    ///
    /// # Errors
    /// [`Error::NotPossible`] if one of the ops is none of these. Nothing is written then.
    pub fn retry(&self, ops: Vec<OpId>) -> Result<(), Error> {
        self.book.shared.write_in_turn(move |session| {
            let (units, others) = isolated(session.tail, &session.touched(), &ops);
            let mut decisions = Vec::new();
            for found in units {
                let row = session.tables.unit(&found.unit)?;
                decisions
                    .extend(row.and_then(|row| try_at_once(found.unit, &row, session.now.wall)));
            }
            let letters = others.into_iter().map(|op| Ok((op, session.tables.dead_letter(&op)?)));
            let letters = letters.collect::<Result<Vec<_>, Error>>()?;
            let stopped = stopped(session, &ops)?;
            decisions.extend(retry(session.tail, &stopped, letters)?);
            decide(session, PersonAction::Retry, decisions, Items::default())
        })
    }

    /// Discards dead letters, or ops that are held until a person corrects them, that are parked,
    /// that do not get through, or that a user made who is not there: records lose the changes. The
    /// log keeps the reason. An op that waits for a discarded creation is discarded too, because
    /// there is no record that it could change.
    ///
    /// # Errors
    /// [`Error::NotPossible`] if one of the ops waits for no such decision. Nothing is written
    /// then.
    pub fn discard(&self, ops: Vec<OpId>, reason: &str) -> Result<(), Error> {
        let reason = reason.to_owned();
        self.book.shared.write_in_turn(move |session| {
            let (tail, touched) = (session.tail, session.touched());
            let mut decisions = Vec::new();
            let parks = session.tables.state()?.parks;
            let user = session.actor.clone();
            let is_gone = |actor: &Actor| {
                let of_them = |scope: &ParkScope| *scope == ParkScope::Actor(actor.clone());
                *actor != user || parks.iter().any(|(scope, _)| of_them(scope))
            };
            for found in left_behind(tail, &touched, &ops, is_gone).0 {
                let row = session.tables.unit(&found.unit)?;
                decisions.extend(row.into_iter().flat_map(|row| take_out(found, &row, &ops)));
            }
            let stopped = stopped(session, &ops)?;
            let found =
                to_discard(tail, &touched, &stopped, &ops, |key, place| hold(session, key, place))?;
            let rows = record_rows(session, found.iter().map(|found| &found.key))?;
            decisions.extend(discard(&found, &rows, |place| tail.unit_of(place).is_some()));
            let (items, reason) = text_item(session, &reason);
            decide(session, PersonAction::Discard { reason }, decisions, items)
        })
    }

    /// Corrects a dead letter and sends it again: a new op with the fields of the dead letter and
    /// these on top, which cites and supersedes it. Ops that waited for a dead creation become part
    /// of the new op. Fields that a later op of the record has set are not brought back. An op that
    /// does not get through can be corrected too: it becomes a dead letter first, and stays one if
    /// the correction is not valid.
    ///
    /// # Errors
    /// [`Error::NotPossible`] if the op is neither, or if it deletes; [`Error::Rejected`] if the
    /// corrected op is not valid. A dead letter is unchanged then.
    pub fn correct(&self, op: OpId, correction: Fields) -> Result<Written, Error> {
        self.abandon_isolated(op)?;
        self.book.shared.write_in_turn(move |session| {
            let letter = session.tables.dead_letter(&op)?.ok_or(NotPossible::NotRefused(op))?;
            let record = session.tables.record(&letter.key)?.unwrap_or_default();
            let confirmed = record.registers().map_err(Error::damaged)?;
            let tail = tail_ops(session, &record)?;
            let pending = session.tail;
            let in_flight = |op: &TailOp| pending.unit_of(op.op.place).is_some();
            let corrected = correct(&letter.key, &confirmed, &tail, in_flight, op, correction)?;
            let written = write_on(session, corrected.image.as_ref(), corrected.mutation)?;
            decide(session, PersonAction::Retry, corrected.ends, Items::default())?;
            Ok(written)
        })
    }

    /// Makes a dead letter of an op that does not get through, so that it can be corrected. Any
    /// other op is unchanged.
    fn abandon_isolated(&self, op: OpId) -> Result<(), Error> {
        let is_isolated = {
            let tail = self.book.shared.tail();
            tail.place_of(&op).is_some_and(|place| isolated_unit(&tail, place).is_some())
        };
        if !is_isolated {
            return Ok(());
        }
        self.book.shared.write_in_turn(move |session| {
            let (units, _) = isolated(session.tail, &session.touched(), &[op]);
            for found in units {
                let pending = session.tail.place_of(&op).and_then(|place| session.tail.op(place));
                let Some(kind) = pending.map(|row| row.kind) else { continue };
                let found = before_correction(found, op, kind)?;
                let row = session.tables.unit(&found.unit)?;
                let decisions =
                    row.into_iter().flat_map(|row| take_out(found, &row, &[op])).collect();
                decide(session, PersonAction::Retry, decisions, Items::default())?;
            }
            Ok(())
        })
    }
}

/// Reads the parks of some ops and of those that may go with them, and which of these have an open
/// conflict.
fn stopped(session: &mut Session<'_>, ops: &[OpId]) -> Result<Stopped, Error> {
    let (tail, mut stopped) = (session.tail, Stopped::default());
    if session.tables.state()?.parked_ops == 0 {
        return Ok(stopped);
    }
    for (_, row) in together(tail, ops) {
        let Some(parked) = session.tables.park_of(&row.op)? else { continue };
        if session.tables.open_conflict(&row.key, &row.op)?.is_some() {
            stopped.open.insert(row.op);
        }
        stopped.parks.insert(row.op, parked.code);
    }
    Ok(stopped)
}

/// Reads the rows of records.
pub(super) fn record_rows<'k>(
    session: &mut Session<'_>,
    keys: impl Iterator<Item = &'k RecordKey>,
) -> Result<BTreeMap<RecordKey, RecordRow>, Error> {
    // A row with a long tail is large, and many ops may be of one record.
    let keys: BTreeSet<_> = keys.collect();
    let rows = keys.into_iter();
    rows.map(|key| Ok((key.clone(), session.tables.record(key)?.unwrap_or_default()))).collect()
}

/// Reads why an op is held.
fn hold(session: &mut Session<'_>, key: &RecordKey, place: OpPlace) -> Result<Option<Hold>, Error> {
    let state = session.tables.state()?;
    let (tail, schema, actor, now) =
        (session.tail, session.schema, session.actor.clone(), session.now.wall);
    let suspects = BTreeSet::from([key.clone()]);
    let inspector = Inspector::new(session.view().0, schema, &suspects);
    let input = PlanInput::unbounded(tail, schema, &state.parks, &actor, now, &inspector);
    let plan = plan_record(&input, key);
    Ok(plan.holds.get(&place).cloned())
}

impl Failed<'_> {
    /// Hands ops over to another user, whose credentials send them from now on, and returns how
    /// many ops that are: the other ops of the same user on these records and in these transactions
    /// go with them, and what goes with those, so that no transaction is divided. The ops keep their
    /// ids, their stamps and their fields. The log has who decided it.
    ///
    /// A unit with such an op may have left already, and nobody knows whether it arrived. It is
    /// abandoned, and its ops are sent again; they take effect once.
    ///
    /// ```
    /// # use fieldbook::{Actor, Book, BookOptions, Fields};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let book = Book::create_new(folder.path().join("crm.book"), BookOptions::new("ann")?)?;
    /// # book.records().create("lead/42".parse()?, Fields::parse("{}")?)?;
    /// // Ann has left. Ben uses her device, and takes over what she had not sent.
    /// let (ann, ben) = (Actor::parse("ann")?, Actor::parse("ben")?);
    /// book.act_as(ben.clone());
    /// let of_ann = book.failed().of(ann);
    /// let ops = of_ann.page(None, 100)?.items.into_iter().map(|item| item.op.op).collect();
    /// assert_eq!(of_ann.hand_over(ops, &ben)?, 1);
    /// assert!(of_ann.page(None, 100)?.items.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotPossible`] if one of the ops is not pending, or this user sends it already.
    /// Nothing is written then.
    pub fn hand_over(&self, ops: Vec<OpId>, to: &Actor) -> Result<usize, Error> {
        let to = to.clone();
        self.book().shared.write_in_turn(move |session| {
            let found = hand_over(session.tail, &session.touched(), &ops, &to)?;
            let number = found.ops.len();
            let mut decisions = Vec::new();
            for unit in &found.units {
                let row = session.tables.unit(unit)?;
                let all = Isolated { unit: *unit, rest: Rest::SentAgain };
                decisions.extend(row.into_iter().flat_map(|row| take_out(all, &row, &[])));
            }
            decisions.extend(found.decisions(&to));
            if number > 0 {
                decide(session, PersonAction::HandOver, decisions, Items::default())?;
            }
            Ok(number)
        })
    }
}
