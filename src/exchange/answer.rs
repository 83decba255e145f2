//! Answers: the page, the outcomes and the decisions about them, in one commit. And the new epoch
//! of a log whose file is a copy.

use fieldbook_core::entry::{Control, Decision, Draft, Items, Meta, Receipt};
use fieldbook_core::log::entries_from;
use fieldbook_core::protocol::{ExchangeAnswer, ExchangeRequest, Outcome};
use fieldbook_core::rules::answer::{
    AnswerCounts, Answered, Reoffer, decide_answer, entries, set_aside,
};
use fieldbook_core::rules::clock::observe;
use fieldbook_core::rules::failure::freed;
use fieldbook_core::rules::news::{News, ends_rereading, keep_news};
use fieldbook_core::rules::restamp::{KnownTimes, may_be_ahead, restamp};
use fieldbook_core::rules::restore::{bring_back, offer, offer_missing};
use fieldbook_core::{Epoch, Hlc, Seq};
use fieldbook_projections::Tables;
use fieldbook_transport::ExchangeCounts;

use crate::book::Shared;
use crate::decisions::tail_ops;
use crate::error::Error;
use crate::write::write_offer;
use crate::writer::Session;

impl Shared {
    /// Restamps waiting ops whose stamps are ahead of the server's time. It is a commit of its own,
    /// before any rule compares these stamps with the answer.
    pub(super) fn lower_stamps(&self, answer: &ExchangeAnswer) -> Result<(), Error> {
        if !may_be_ahead(&self.tail(), answer.server_time) {
            return Ok(());
        }
        let is_sent_back =
            |outcome: &Outcome| matches!(outcome, Outcome::Stale { .. } | Outcome::Ahead);
        let sent_back = answer.outcomes.iter().filter(|answered| is_sent_back(&answered.outcome));
        let (sent_back, server) =
            (sent_back.map(|answered| answered.unit).collect(), answer.server_time);
        self.write_in_turn(move |session| {
            let before = match session.tables.state()?.server_time {
                Some((server, _)) => Some(server),
                None => entries_from(session.entries()?, Seq::ZERO)
                    .next()
                    .transpose()?
                    .map(|entry| entry.header.wall),
            };
            let (tail, times) = (session.tail, KnownTimes { server, now: session.now, before });
            let ops = restamp(&mut session.view().0, tail, &times, &sent_back)?;
            if !ops.is_empty() {
                tracing::warn!(
                    ops = ops.len(),
                    "the clock was ahead of the server's: ops are restamped"
                );
                let decision = Decision::Restamped { server_time: server, ops };
                session.append(Draft::control(Control::Decided(vec![decision])), Hlc::ZERO)?;
            }
            Ok(())
        })
    }

    /// The server has another continuation of this log, so the file is a copy. The log continues in
    /// a new epoch; nothing is lost.
    pub(super) fn start_epoch(&self, anchored: Receipt) -> Result<(), Error> {
        self.write_in_turn(move |session| {
            let known = entries_from(session.entries()?, anchored.seq).next().transpose()?;
            if known.is_some_and(|entry| entry.hash == anchored.hash) {
                // The server's head is in this log: the answer is to an earlier request.
                return Ok(());
            }
            tracing::warn!("this log is a restored or cloned copy: it continues in a new epoch");
            session.introduce()?;
            let epoch = Epoch::new(session.now.wall, session.randomness);
            session.epoch = epoch;
            session.append(
                Draft::control(Control::EpochStarted { epoch, anchored: Some(anchored) }),
                Hlc::ZERO,
            )?;
            Ok(())
        })
    }
}

/// The result of an answer. The default is that of an answer without news.
#[derive(Default)]
pub(super) struct Took {
    pub(super) taken: ExchangeCounts,
    /// Whether the page leaves out changes of units that are no longer unanswered. Its cursor must
    /// not be used then.
    pub(super) passed_over: bool,
    /// Whether the answer parks an actor or an entity type.
    pub(super) parks: bool,
}

/// Applies an answer: first the upstream entry, then the decisions. All of it is one commit, so the
/// size is checked before the first entry is appended.
pub(super) fn apply(
    session: &mut Session<'_>,
    asked: &ExchangeRequest,
    answer: &ExchangeAnswer,
) -> Result<Took, Error> {
    let (schema, now, last) =
        (session.schema, session.now.wall, session.head().map_or(Hlc::ZERO, |head| head.hlc));
    session.tables.reserve(answer.changes.len());
    let answered = {
        let (mut view, randomness) = session.view();
        decide_answer(&mut view, schema, answer, now, randomness)?
    };
    let state = session.tables.state()?;
    let (aside, rows_aside) = set_aside(&state, &asked.foreign_cursors, answer, session.randomness);
    let News { mut answered, tells, passed_over } =
        keep_news(&state, answer, now, !aside.is_empty(), answered);
    let read_to_end = ends_rereading(&state, asked, answer);
    let parks = answered.tally.parked_more_than_ops;
    let taken = ExchangeCounts {
        set_aside: rows_aside + answered.tally.set_aside,
        ..taken(&answered.tally)
    };
    answered.decisions.extend(freed(session.tail, &answered.decisions, now));
    let Answered { upstream, upstream_items, decisions, decision_items, reoffers, .. } = answered;
    let mut drafts = if tells { entries(answer, upstream, upstream_items) } else { Vec::new() };
    drafts.extend(aside);
    if !decisions.is_empty() {
        drafts.push(Draft {
            meta: Meta::Control(Control::Decided(decisions)),
            items: decision_items,
        });
    }
    let Ok(drafts) = drafts.into_iter().map(Draft::checked).collect::<Result<Vec<_>, _>>() else {
        let taken =
            ExchangeCounts { misbehaved: Some("too_much_to_store"), ..ExchangeCounts::default() };
        return Ok(Took { taken, passed_over: true, ..Took::default() });
    };
    let seen = answer.changes.iter().map(|change| change.edited_at).max().unwrap_or(Hlc::ZERO);
    for (number, draft) in drafts.into_iter().enumerate() {
        let hlc =
            if number == 0 && tells { observe(last, seen, answer.server_time) } else { Hlc::ZERO };
        session.append(draft, hlc)?;
    }
    offer_again(session, reoffers, read_to_end)?;
    Ok(Took { taken, passed_over, parks })
}

/// Offers records again after a server was restored: records that the former epoch had confirmed
/// and the present one lacks are written as ops, so that they are sent and nothing is lost.
fn offer_again(
    session: &mut Session<'_>,
    reoffers: Vec<Reoffer>,
    read_to_end: bool,
) -> Result<(), Error> {
    for older in reoffers {
        let row = session.tables.record(&older.key)?.unwrap_or_default();
        if let Some(offer) = offer(older, &row).map_err(Error::damaged)? {
            write_offer(session, offer)?;
        }
    }
    if !read_to_end {
        return Ok(());
    }
    let (mut missing, mut decisions, mut items) = (Vec::new(), Vec::new(), Items::default());
    for key in session.tables.unconfirmed()? {
        let Some(row) = session.tables.record(&key)? else { continue };
        let tail = tail_ops(session, &row)?;
        let confirmed = row.registers().map_err(Error::damaged)?;
        let brought_back = bring_back(&key, &confirmed, &tail, &mut items, session.randomness);
        decisions.extend(brought_back.map_err(Error::damaged)?);
        missing.extend(offer_missing(key, &row).map_err(Error::damaged)?);
    }
    decisions.push(Decision::ServerRead);
    session.append(Draft { meta: Meta::Control(Control::Decided(decisions)), items }, Hlc::ZERO)?;
    missing.into_iter().try_for_each(|offer| write_offer(session, offer))
}

fn taken(tally: &AnswerCounts) -> ExchangeCounts {
    ExchangeCounts {
        units_acked: tally.units_acked,
        ops_acked: tally.ops_acked,
        units_stale: tally.units_stale,
        units_tried_again: tally.units_tried,
        units_isolated: 0,
        units_suspected: 0,
        ops_dead: tally.ops_dead,
        conflicts: tally.conflicts,
        changes: tally.changes,
        parked: tally.parked,
        ..ExchangeCounts::default()
    }
}
